//! `cargo xtask bench`: what mmtrace costs.

mod overhead;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Task {
    /// Compare mmtrace with empty programs on its hooks and with other tracers. Prints Markdown.
    Overhead(overhead::Options),
}

/// Measures it.
pub(crate) fn run(task: &Task) -> Result<ExitCode> {
    match task {
        Task::Overhead(options) => overhead::run(options),
    }
}
