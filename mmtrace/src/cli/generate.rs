//! Arguments of what is made from the command line's definition.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Arguments of `mmtrace completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Arguments of `mmtrace man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Write a page for mmtrace and one for each subcommand into DIR, which exists; without it, the
    /// first goes to standard output.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
