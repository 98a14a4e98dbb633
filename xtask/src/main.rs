//! mmtrace's set-up, builds, tests, virtual machines and benchmarks.

mod bench;
mod build;
mod command;
mod run;
mod setup;
mod tally;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// mmtrace's set-up, builds, tests and virtual machines.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building mmtrace needs. Harmless to repeat.
    Setup(setup::Options),
    /// Build the optimized binary, target/release/mmtrace.
    Build,
    /// Build mmtrace and run `mmtrace run -- CMD`, by sudo when not root.
    Run(run::Options),
    /// Run every test: the crates', the native suite, and the suite in each virtual machine.
    Test(test::Options),
    /// Measure what mmtrace costs.
    #[command(subcommand)]
    Bench(bench::Task),
    /// Boot stock kernels in virtual machines.
    #[command(subcommand)]
    Vm(vm::Task),
}

/// The exit status of a task that failed by itself, not by the command it ran.
const OWN_FAILURE: u8 = 125;

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup(options) => setup::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Build => build::mmtrace().map(|_| ExitCode::SUCCESS),
        Task::Run(options) => run::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(task) => bench::run(&task),
        Task::Vm(task) => vm::run(&task),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(OWN_FAILURE)
    })
}
