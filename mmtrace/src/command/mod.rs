//! The subcommands, a file for each.

mod doctor;
mod run;
mod settle;

use anyhow::Result;

use crate::cli::Command;
use crate::settle::performance::sample;
use crate::target::Exit;

/// Carries out a subcommand; returns how mmtrace is to end.
///
/// # Errors
/// Whatever keeps the subcommand from its work; see [`crate::failure::Failure`] for the status.
pub fn execute(command: Command) -> Result<Exit> {
    match command {
        Command::Run(arguments) => run::execute(arguments),
        Command::Doctor(arguments) => doctor::execute(&arguments),
        Command::Settle(arguments) => settle::execute(&arguments),
        Command::SettleWorkload(arguments) => settle::execute_workload(&arguments),
        Command::SettleSample(arguments) => {
            sample::execute(&arguments)?;
            Ok(Exit::Code(0))
        }
    }
}

/// Columns of a report that goes to no terminal.
const PIPED_WIDTH: usize = 120;
