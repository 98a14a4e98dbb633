//! `mmtrace doctor`: says what this kernel offers and refuses.

use std::env;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

use crate::cli::DoctorArgs;
use crate::doctor;
use crate::report::doctor as report;
use crate::target::Exit;

/// Carries out `mmtrace doctor`.
///
/// # Errors
/// If it cannot be tried, or standard output cannot be written to.
pub(super) fn execute(arguments: &DoctorArgs) -> Result<Exit> {
    let diagnosis = doctor::examine()?;
    let text = if arguments.json {
        report::json(&diagnosis)?
    } else {
        let terminal = terminal_size::terminal_size_of(io::stdout());
        let colorless = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let options = report::Options {
            width: terminal.map_or(super::PIPED_WIDTH, |(width, _)| width.0.into()),
            color: terminal.is_some() && !colorless,
        };
        report::render(&diagnosis, &options)
    };
    io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")?;
    Ok(Exit::Code(i32::from(!diagnosis.verdict.can_measure)))
}
