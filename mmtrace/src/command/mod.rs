//! The subcommands, a file for each.

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
    }
}
