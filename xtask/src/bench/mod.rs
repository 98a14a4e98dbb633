//! `cargo xtask bench`: what mmtrace costs.

mod place;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use place::{Place, Time};

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Task {
    /// Compare mmtrace with empty programs on its hooks and with other tracers. Prints Markdown.
    ///
    /// In a virtual machine instructions are counted, in 3 rounds unless told otherwise.
    Overhead {
        #[command(flatten)]
        place: Place,
        /// Also measure each of mmtrace's kernel programs by itself.
        #[arg(long)]
        programs: bool,
        /// Only this loop.
        #[arg(long = "loop", value_name = "LOOP", value_parser = ["read4k", "read64k", "faults"])]
        only_loop: Option<String>,
        /// Only this backend, beside empty programs and bpftrace on the same hooks.
        #[arg(long, value_name = "BACKEND", value_parser = ["fentry", "kprobe", "tracepoint"])]
        backend: Option<String>,
    },
    /// Compare the ways to watch copies on a program that does little else, and `auto` with its budget.
    /// Prints Markdown.
    ///
    /// For kernels that take breakpoints on their code: in a virtual machine, with `--vm`, if this one
    /// refuses them. Time is measured there too, since an exception takes more of it than its
    /// instructions do.
    Budget {
        #[command(flatten)]
        place: Place,
        /// Count instructions in the virtual machine, which repeats exactly.
        #[arg(long, requires = "vm")]
        instructions: bool,
    },
}

/// Measures it.
pub(crate) fn run(task: &Task) -> Result<ExitCode> {
    match task {
        Task::Overhead {
            place,
            programs,
            only_loop,
            backend,
        } => {
            let mut more = Vec::new();
            if *programs {
                more.push("--programs");
            }
            for (option, value) in [("--loop", only_loop), ("--backend", backend)] {
                if let Some(value) = value {
                    more.extend([option, value]);
                }
            }
            place.measure("overhead", &more, Time::CountsInstructions)
        }
        Task::Budget {
            place,
            instructions,
        } => {
            let time = if *instructions {
                Time::CountsInstructions
            } else {
                Time::Passes
            };
            place.measure("budget", &[], time)
        }
    }
}
