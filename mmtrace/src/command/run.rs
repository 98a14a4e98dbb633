//! `mmtrace run`: starts a command, observes it, reports.

use std::env;
use std::io::{self, Write};
use std::pin::pin;
use std::time::Instant;

use anyhow::{Context, Result};

use super::PIPED_WIDTH;
use crate::cli::RunArgs;
use crate::collect::{Asked, Session};
use crate::failure;
use crate::output::{Export, Format, Outputs};
use crate::privilege;
use crate::progress::Progress;
use crate::recording::Recording;
use crate::report::{json, table};
use crate::target::{Account, Exit, Marker, Outcome, Running, Signals, Spec, Stopped};

/// What a recording can be written as.
const FORMATS: &[Format] = &[Format::Json];

/// Carries out `mmtrace run`.
///
/// # Errors
/// Whatever fails before the command starts. Later failures are printed and leave the status the
/// command's own.
pub(super) fn execute(arguments: RunArgs) -> Result<Exit> {
    let invoker = Account::invoker()?;
    let user = match &arguments.user {
        Some(name) => Some(Account::by_name(name)?),
        None => invoker.clone(),
    };
    let outputs = Outputs::prepare(&arguments.output, FORMATS, invoker)?;
    privilege::check(env::args_os())?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(run(arguments, user, outputs))
}

async fn run(arguments: RunArgs, user: Option<Account>, outputs: Outputs) -> Result<Exit> {
    let signals = Signals::block().context("cannot take over the signals")?;
    let marker = Marker::random().context("cannot read random numbers")?;
    let spec = Spec {
        command: arguments.command.clone(),
        user,
        marker: Some(marker),
    };
    let target = Stopped::spawn(spec, signals)?;
    let mut session = Session::attach(
        arguments.command,
        arguments.backend.wanted(),
        arguments.copies.into(),
        target.pid(),
        marker.nonce,
        arguments.verbose > 0,
        Asked {
            witness: arguments.witness,
            sample_hz: arguments.sample_kernel,
            copy_budget: arguments.copy_budget,
        },
    )?;
    session.start();
    let mut running = target.release()?;
    let progress = Progress::new(!arguments.quiet);
    let outcome = watch(
        &mut running,
        &mut session,
        progress,
        arguments.wait_descendants,
    )
    .await?;
    match session.collect(&outcome) {
        Ok(recording) => {
            for error in outputs.write(&recording) {
                failure::report(&error);
            }
            if !arguments.quiet {
                crate::say(&table::render(&recording, &table_options()));
            }
        }
        Err(error) => {
            failure::report(&error.context("cannot collect what was observed"));
        }
    }
    Ok(outcome.exit)
}

/// How the table suits the standard error that there is.
fn table_options() -> table::Options {
    let terminal = terminal_size::terminal_size_of(io::stderr());
    let colorless = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    table::Options {
        width: terminal.map_or(PIPED_WIDTH, |(width, _)| width.0.into()),
        color: terminal.is_some() && !colorless,
        files: 10,
        processes: 10,
    }
}

/// Waits for the target's end, and for its descendants' if asked to, and lets the session work
/// meanwhile.
async fn watch(
    running: &mut Running,
    session: &mut Session,
    mut progress: Progress,
    wait_descendants: bool,
) -> Result<Outcome> {
    let started = Instant::now();
    let mut observing = true;
    let outcome = {
        let mut wait = pin!(running.wait());
        loop {
            tokio::select! {
                outcome = &mut wait => break outcome?,
                pumped = session.pump(), if observing => {
                    observing = false;
                    if let Err(error) = pumped {
                        report_stop(&mut progress, error);
                    }
                }
                () = progress.due() => progress.draw(|| Some(session.progress(started.elapsed()))),
            }
        }
    };
    while wait_descendants && observing {
        tokio::select! {
            ended = session.all_ended() => {
                observing = false;
                if let Err(error) = ended {
                    report_stop(&mut progress, error);
                }
            }
            asked = running.asked_to_end() => {
                asked?;
                break;
            }
            () = progress.due() => progress.draw(|| Some(session.progress(started.elapsed()))),
        }
    }
    Ok(outcome)
}

fn report_stop(progress: &mut Progress, error: anyhow::Error) {
    progress.erase();
    failure::report(&error.context("the observation has stopped; the command goes on"));
}

impl Export for Recording {
    const NAME: &'static str = "recording";

    fn export(&self, format: Format, to: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Json => json::write(self, to),
            // FORMATS does not have them.
            Format::Html | Format::Markdown => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}
