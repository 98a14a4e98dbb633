//! `mmtrace run`: starts a command, observes it, reports.

use std::env;
use std::io;
use std::pin::pin;
use std::time::Instant;

use anyhow::{Context, Result};

use super::{Rendering, table_options};
use crate::cli::RunArgs;
use crate::collect::{Asked, Session};
use crate::failure;
use crate::output::Outputs;
use crate::privilege;
use crate::probe::{Backend, copies::Wanted};
use crate::progress::Progress;
use crate::report::{format::Format, table};
use crate::target::{Account, Exit, Marker, Outcome, Running, Signals, Spec, Stopped};

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
    let outputs = Outputs::prepare(&arguments.output, None, invoker)?;
    privilege::check(env::args_os())?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(run(arguments, user, outputs))
}

async fn run(arguments: RunArgs, user: Option<Account>, outputs: Outputs<Format>) -> Result<Exit> {
    let spec = Spec {
        command: arguments.command.clone(),
        user,
        silent: false,
        marker: None,
    };
    let how = How {
        backend: arguments.backend.wanted(),
        copies: arguments.copies.into(),
        verbose: arguments.verbose > 0,
        asked: Asked {
            witness: arguments.witness,
            sample_hz: arguments.sample_kernel,
            copy_budget: arguments.copy_budget,
            stacks: arguments.wants_stacks(),
            heat_maps: arguments.wants_heat_maps(),
            readahead_use: arguments.readahead_use,
        },
        wait_descendants: arguments.wait_descendants,
    };
    let (session, outcome) = observe(spec, how, || Progress::new(!arguments.quiet)).await?;
    match session.collect(&outcome) {
        Ok(recording) => {
            let rendering = Rendering {
                recording: &recording,
                quantity: arguments.measure,
            };
            for error in outputs.write(&rendering) {
                failure::report(&error);
            }
            if !arguments.quiet {
                crate::say(&table::render(&recording, &table_options(io::stderr())));
            }
        }
        Err(error) => {
            failure::report(&error.context("cannot collect what was observed"));
        }
    }
    Ok(outcome.exit)
}

/// How a command is observed.
pub(super) struct How {
    pub(super) backend: Option<Backend>,
    pub(super) copies: Wanted,
    pub(super) verbose: bool,
    pub(super) asked: Asked,
    pub(super) wait_descendants: bool,
}

/// Runs a command to its end, observed. `progress` is called when it has been started.
///
/// # Errors
/// If it cannot be observed, or not be started.
pub(super) async fn observe(
    spec: Spec,
    how: How,
    progress: impl FnOnce() -> Progress,
) -> Result<(Session, Outcome)> {
    let signals = Signals::block().context("cannot take over the signals")?;
    let marker = Marker::random().context("cannot read random numbers")?;
    let command = spec.command.clone();
    let spec = Spec {
        marker: Some(marker),
        ..spec
    };
    let target = Stopped::spawn(spec, signals)?;
    let mut session = Session::attach(
        command,
        how.backend,
        how.copies,
        target.pid(),
        marker.nonce,
        how.verbose,
        how.asked,
    )?;
    session.start();
    let mut running = target.release()?;
    let outcome = watch(&mut running, &mut session, progress(), how.wait_descendants).await?;
    Ok((session, outcome))
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
