//! Workloads of known size, and what mmtrace must say of them.

mod case;
mod cases;
mod cgroup;
mod check;
mod devices;
mod doctor;
mod files;
mod invariants;
mod leftovers;
mod mounts;
mod needs;
mod recording;
mod runner;
mod settle;
mod tracer;
mod truth;
mod workload;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Workloads of known size, and what mmtrace must say of them.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trace the workloads with mmtrace and check its recordings. Needs root.
    Run {
        /// mmtrace's binary.
        #[arg(long, required_unless_present = "list", default_value = "mmtrace")]
        mmtrace: PathBuf,
        /// A directory on the file system under test; everything made there is removed again.
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// A backend to test, which must work here [default: every one that does].
        #[arg(long)]
        backend: Vec<String>,
        /// Only the cases whose name contains this; given again, that too.
        #[arg(long)]
        filter: Vec<String>,
        /// A disk that may be written to: what is on it is lost.
        #[arg(long)]
        scratch_disk: Vec<PathBuf>,
        /// Print the cases' names and run none.
        #[arg(long)]
        list: bool,
        /// For slow machines: small files, and many cases to one start of mmtrace.
        #[arg(long)]
        small: bool,
        /// A part of the suite that is left to other machines.
        #[arg(long, value_enum)]
        leave_out: Vec<case::Part>,
    },
    /// Check what `mmtrace doctor` says on a kernel that is locked down so far that it refuses
    /// everything: one booted with lockdown=confidentiality. Needs root.
    LockedDown {
        /// mmtrace's binary.
        #[arg(long, default_value = "mmtrace")]
        mmtrace: PathBuf,
    },
    /// Run one of the workloads, which prints what it did as JSON.
    Workload {
        /// Its name.
        name: String,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mmtrace-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing failed.
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Workload { name, arguments } => workload::run(&name, arguments).map(|()| true),
        Command::LockedDown { mmtrace } => {
            let tally = doctor::locked_down(&mmtrace)?;
            println!("{tally}");
            Ok(tally.is_good())
        }
        Command::Run {
            mmtrace,
            dir,
            backend,
            filter,
            scratch_disk,
            list,
            small,
            leave_out,
        } => {
            let mut cases = cases::all();
            cases.retain(|case| filter.iter().all(|text| case.name.contains(text)));
            anyhow::ensure!(!cases.is_empty(), "no case's name contains {filter:?}");
            if list {
                cases.iter().for_each(|case| println!("{}", case.name));
                return Ok(true);
            }
            let options = runner::Options {
                mmtrace,
                directory: dir,
                backends: backend,
                scratch_disks: scratch_disk,
                small,
                left_out: leave_out,
            };
            let tally = runner::run(&options, &cases)?;
            println!("{tally}");
            Ok(tally.is_good())
        }
    }
}
