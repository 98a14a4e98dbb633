//! The subcommands, a file for each.

mod compare;
mod diff;
mod doctor;
mod generate;
mod report;
mod run;
mod settle;

use std::env;
use std::io::Write;
use std::os::fd::AsFd;

use anyhow::Result;

use crate::cli::Command;
use crate::output::Export;
use crate::recording::Recording;
use crate::report::{format::Format, quantity::Quantity, table};
use crate::settle::performance::sample;
use crate::target::Exit;

/// Carries out a subcommand; returns how mmtrace is to end.
///
/// # Errors
/// Whatever keeps the subcommand from its work; see [`crate::failure::Failure`] for the status.
pub fn execute(command: Command) -> Result<Exit> {
    match command {
        Command::Run(arguments) => run::execute(arguments),
        Command::Report(arguments) => report::execute(&arguments),
        Command::Doctor(arguments) => doctor::execute(&arguments),
        Command::Settle(arguments) => settle::execute(&arguments),
        Command::Compare(arguments) => compare::execute(arguments),
        Command::Diff(arguments) => diff::execute(&arguments),
        Command::Completions(arguments) => generate::completions(&arguments),
        Command::Man(arguments) => generate::man(&arguments),
        Command::SettleWorkload(arguments) => settle::execute_workload(&arguments),
        Command::SettleSample(arguments) => {
            sample::execute(&arguments)?;
            Ok(Exit::Code(0))
        }
    }
}

/// Columns of a report that goes to no terminal.
const PIPED_WIDTH: usize = 120;

/// How a recording's table suits the stream that it goes to.
fn table_options(to: impl AsFd) -> table::Options {
    let terminal = terminal_size::terminal_size_of(to);
    let colorless = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    table::Options {
        width: terminal.map_or(PIPED_WIDTH, |(width, _)| width.0.into()),
        color: terminal.is_some() && !colorless,
        files: 10,
        processes: 10,
    }
}

/// A recording, and what its pictures are to show.
struct Rendering<'a> {
    recording: &'a Recording,
    quantity: Option<Quantity>,
}

impl Export for Rendering<'_> {
    type Format = Format;
    const NAME: &'static str = "recording";

    fn export(&self, format: Format, to: &mut dyn Write) -> Result<()> {
        format.write(self.recording, self.quantity, to)
    }
}
