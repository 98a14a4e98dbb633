//! Arguments of `mmtrace diff`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::report::quantity::Quantity;

/// Arguments of `mmtrace diff`.
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// The recording before, as `mmtrace run -o FILE.json` wrote it; - is standard input.
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,

    /// The recording after.
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,

    /// Write the difference to FILE (FILE.json, FILE.html, FILE.svg: a flame graph of both's stacks;
    /// - is JSON on standard output), instead of showing the table; may be repeated.
    #[arg(short, long = "output", value_name = "FILE", action = ArgAction::Append)]
    pub output: Vec<PathBuf>,

    /// What the flame graph shows; by default the first of these that AFTER has any of.
    #[arg(long, value_enum, value_name = "MEASURE")]
    pub measure: Option<Quantity>,
}
