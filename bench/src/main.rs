//! What mmtrace costs, measured beside the bare workload, empty programs on the same hooks, and
//! other tracers that are asked for the same sums.
//!
//! `cargo xtask bench` builds and runs it, on this machine or in a virtual one.

mod budget;
mod contestant;
mod empty;
mod lookups;
mod measure;
mod report;
mod start;
mod statistics;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures what mmtrace costs.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Compare mmtrace with empty programs and other tracers. Prints Markdown.
    Overhead(measure::Options),
    /// Compare the ways to watch copies, and `auto` with its budget. Prints Markdown.
    Budget(budget::Options),
    /// The workload: run one loop and write what an operation took to a file.
    Loop(workload::Options),
    /// Another: look elements of a BPF map up, and print what one took, in ns.
    Lookups(lookups::Options),
    /// Print the monotonic clock's time, in ns: when a program's first instructions run.
    Now,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Overhead(options) => measure::run(&options),
        Task::Budget(options) => budget::run(&options),
        Task::Lookups(options) => lookups::run(&options),
        Task::Loop(options) => workload::run(&options),
        Task::Now => print_now(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mmtrace-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_now() -> Result<()> {
    println!("{}", start::monotonic_ns()?);
    Ok(())
}
