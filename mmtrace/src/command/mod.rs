//! The subcommands, a file for each.

mod doctor;
mod run;

use anyhow::Result;

use crate::cli::Command;
use crate::target::Exit;

/// Carries out a subcommand; returns how mmtrace is to end.
///
/// # Errors
/// Whatever keeps the subcommand from its work; see [`crate::failure::Failure`] for the status.
pub fn execute(command: Command) -> Result<Exit> {
    match command {
        Command::Run(arguments) => run::execute(arguments),
        Command::Doctor(arguments) => doctor::execute(&arguments),
    }
}

/// Columns of a report that goes to no terminal.
const PIPED_WIDTH: usize = 120;
