//! `mmtrace report`: shows a recording again, and writes it in other formats.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use os_display::Quotable as _;

use super::{Rendering, table_options};
use crate::cli::ReportArgs;
use crate::failure::{self, Failure};
use crate::output::Outputs;
use crate::recording::Recording;
use crate::report::{format::Format, table};
use crate::target::{Account, Exit};

/// Status when it fails.
const FAILED: u8 = 2;

/// Carries out `mmtrace report`.
///
/// # Errors
/// If the recording cannot be read, or not shown, with the status 2.
pub(super) fn execute(arguments: &ReportArgs) -> Result<Exit> {
    report(arguments).map_err(|error| failure::with_status(&error, FAILED).into())
}

fn report(arguments: &ReportArgs) -> Result<Exit> {
    let mut files = arguments.output.clone();
    if files.is_empty() && arguments.format.is_some() {
        files.push(PathBuf::from("-"));
    }
    let outputs: Outputs<Format> = Outputs::prepare(&files, arguments.format, Account::invoker()?)?;
    let recording = read(&arguments.recording)?;
    if outputs.is_empty() {
        let table = table::render(&recording, &table_options(io::stdout()));
        let written = io::stdout().write_all(table.as_bytes());
        written.context("cannot write to standard output")?;
        return Ok(Exit::Code(0));
    }
    let rendering = Rendering {
        recording: &recording,
        quantity: arguments.measure,
    };
    let mut errors = outputs.write(&rendering);
    let last = errors.pop();
    for error in errors {
        failure::report(&error);
    }
    last.map_or(Ok(Exit::Code(0)), Err)
}

pub(super) fn read(path: &Path) -> Result<Recording> {
    let mut json = Vec::new();
    let (name, read) = match path.as_os_str() == "-" {
        true => (
            "standard input".to_owned(),
            io::stdin().lock().read_to_end(&mut json).map(drop),
        ),
        false => (
            path.quote().external(true).to_string(),
            fs::read(path).map(|bytes| json = bytes),
        ),
    };
    read.map_err(|error| Failure::own(format!("cannot read {name}: {error}")))?;
    Recording::from_json(&json).with_context(|| name)
}
