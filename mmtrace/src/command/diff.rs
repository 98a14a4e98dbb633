//! `mmtrace diff`: how two recordings differ.

use std::io::{self, Write};

use anyhow::{Context as _, Result};

use super::{report::read, table_options};
use crate::cli::DiffArgs;
use crate::failure::{self, Failure};
use crate::output::{Export, Outputs};
use crate::report::diff::{self, Compared, Format};
use crate::report::quantity::Quantity;
use crate::target::{Account, Exit};

/// Status when it fails.
const FAILED: u8 = 2;

/// Carries out `mmtrace diff`.
///
/// # Errors
/// If a recording cannot be read, or the difference not be written, with the status 2.
pub(super) fn execute(arguments: &DiffArgs) -> Result<Exit> {
    tell(arguments).map_err(|error| failure::with_status(&error, FAILED).into())
}

fn tell(arguments: &DiffArgs) -> Result<Exit> {
    if [&arguments.before, &arguments.after]
        .iter()
        .all(|path| path.as_os_str() == "-")
    {
        return Err(Failure::own("standard input is one recording, not two").into());
    }
    let outputs = Outputs::prepare(&arguments.output, None, Account::invoker()?)?;
    let before = read(&arguments.before)?;
    let after = read(&arguments.after)?;
    let compared = Compared::of(&before, &after);
    if outputs.is_empty() {
        let text = diff::table(&compared, table_options(io::stdout()).width);
        let written = io::stdout().write_all(text.as_bytes());
        written.context("cannot write to standard output")?;
        return Ok(Exit::Code(0));
    }
    let told = Told {
        compared,
        quantity: arguments.measure,
    };
    let mut errors = outputs.write(&told);
    let last = errors.pop();
    for error in errors {
        failure::report(&error);
    }
    last.map_or(Ok(Exit::Code(0)), Err)
}

/// A difference, and what its picture is to show.
struct Told<'a> {
    compared: Compared<'a>,
    quantity: Option<Quantity>,
}

impl Export for Told<'_> {
    type Format = Format;
    const NAME: &'static str = "difference";

    fn export(&self, format: Format, to: &mut dyn Write) -> Result<()> {
        format.write(&self.compared, self.quantity, to)
    }
}
