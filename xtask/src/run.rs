//! `cargo xtask run`: mmtrace from a clean clone, in one command.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::build;
use crate::command::as_root;

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// The command to trace, with its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Builds mmtrace and becomes `mmtrace run -- CMD`, so that signals and the exit status are its.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mmtrace = build::mmtrace()?;
    let error = as_root(&mmtrace)?
        .args(["run", "--"])
        .args(&options.command)
        .exec();
    Err(error).with_context(|| format!("cannot start {}", mmtrace.display()))
}
