//! Arguments of `mmtrace compare`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::{Backend, Copies};

/// Arguments of `mmtrace compare`.
#[derive(Args, Debug)]
#[command(after_help = "\
A command is split into words as a shell does, and run without one: for pipes and variables, give \
'sh -c \"...\"'.

Exit status: 0 if both commands could be compared, 2 if mmtrace or a command fails.")]
pub struct CompareArgs {
    /// How often each command is timed; fewer than three times tell no difference.
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repeat: u32,

    /// Before each run, drop from memory the files that the commands read.
    #[arg(long, conflicts_with = "warm")]
    pub cold: bool,

    /// Before each run, bring the files that the commands read into memory.
    #[arg(long)]
    pub warm: bool,

    /// Write the comparison to FILE (FILE.json; - is standard output); may be repeated.
    #[arg(short, long = "output", value_name = "FILE", action = ArgAction::Append)]
    pub output: Vec<PathBuf>,

    /// How to observe the kernel.
    #[arg(long, value_enum, default_value_t, value_name = "BACKEND")]
    pub backend: Backend,

    /// How to find what was copied.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub copies: Copies,

    /// Go on if a command ends with another status than 0.
    #[arg(short, long)]
    pub ignore_failure: bool,

    /// Leave the commands their standard streams: by default these are /dev/null.
    #[arg(long)]
    pub show_output: bool,

    /// Run the commands as this user; under sudo, the default is the user who called sudo.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Do not show how it goes on.
    #[arg(short, long)]
    pub quiet: bool,

    /// The two commands, each as one argument.
    #[arg(value_name = "COMMAND", num_args = 2, required = true)]
    pub commands: Vec<String>,
}
