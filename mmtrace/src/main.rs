//! mmtrace: where a program's file data comes from.

use std::ffi::OsStr;
use std::process;

use clap::Parser;
use mmtrace::cli::Cli;
use mmtrace::{command, failure};

fn main() {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            process::exit(usage_status(&error));
        }
    };
    match command::execute(cli.command) {
        Ok(exit) => exit.imitate(),
        Err(error) => process::exit(failure::report(&error).into()),
    }
}

/// `run` keeps the target's statuses apart from its own: a wrong command line is 125 there, 2 elsewhere.
fn usage_status(error: &clap::Error) -> i32 {
    match error.exit_code() {
        0 => 0,
        _ if std::env::args_os().nth(1).as_deref() == Some(OsStr::new("run")) => {
            failure::OWN_FAILURE.into()
        }
        status => status,
    }
}
