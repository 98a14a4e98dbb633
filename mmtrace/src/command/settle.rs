//! `mmtrace settle`: decides claims about memory mapping by measurement.

use std::{
    env,
    io::{self, Write},
};

use anyhow::{Context as _, Result};

use super::PIPED_WIDTH;
use crate::cli::{SettleArgs, SettleWorkloadArgs};
use crate::failure::{self, Failure};
use crate::output::{Export, Outputs};
use crate::privilege;
use crate::settle::{
    Settings, Settlement,
    claims::{self, Claim},
    plan::{self, FAILED},
    report, settle,
    workload::{self, Job, Step},
};
use crate::target::{Account, Exit};

/// Carries out `mmtrace settle`.
///
/// # Errors
/// Whatever keeps it from making the experiments, with the status 2.
pub(super) fn execute(arguments: &SettleArgs) -> Result<Exit> {
    if arguments.list {
        let list = report::list(arguments.lang.into());
        return print(&list).map(|()| Exit::Code(0));
    }
    decide(arguments).map_err(|error| failure::with_status(&error, FAILED).into())
}

fn decide(arguments: &SettleArgs) -> Result<Exit> {
    let claims = chosen(&arguments.claim)?;
    let outputs = Outputs::prepare(&arguments.output, None, Account::invoker()?)?;
    // What is only timed needs no rights.
    let traces = claims.iter().any(|claim| !claim.is_timed());
    if traces || arguments.drop_caches {
        privilege::check(env::args_os())?;
    }
    let size_bytes = plan::size_bytes(arguments.size, &arguments.dir, traces)?;
    let directory = std::path::absolute(&arguments.dir).context("--dir")?;
    let settings = Settings {
        claims,
        size_bytes,
        directory,
        repetitions: arguments.repeat,
        drop_caches: arguments.drop_caches,
        sabotage: arguments.sabotage,
        progress: !arguments.quiet,
    };
    let settlement = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(settle(settings))?;
    let language = arguments.lang.into();
    let told = Told {
        settlement: &settlement,
        language,
    };
    let mut status = i32::from(!settlement.decided());
    for error in outputs.write(&told) {
        failure::report(&error);
        status = FAILED.into();
    }
    if !arguments.output.iter().any(|path| path.as_os_str() == "-") {
        let terminal = terminal_size::terminal_size_of(io::stdout());
        let width = terminal.map_or(PIPED_WIDTH, |(width, _)| width.0.into());
        print(&report::text(&settlement, language, width))?;
    }
    Ok(Exit::Code(status))
}

fn print(text: &str) -> Result<()> {
    let written = io::stdout().write_all(text.as_bytes());
    written.context("cannot write to standard output")
}

/// The claims with these names; all of them, if there are no names.
fn chosen(names: &[String]) -> Result<Vec<&'static Claim>> {
    if names.is_empty() {
        return Ok(claims::all().collect());
    }
    let mut chosen: Vec<&Claim> = Vec::new();
    for name in names {
        let claim = claims::find(name).ok_or_else(|| {
            let known: Vec<_> = claims::all().map(|claim| claim.id).collect();
            Failure::with_status(FAILED, format!("--claim {name}: there is no such claim"))
                .remedy(format!("The claims are: {}.", known.join(", ")))
        })?;
        if !chosen.iter().any(|other| other.id == claim.id) {
            chosen.push(claim);
        }
    }
    Ok(chosen)
}

/// A settlement in the language that was asked for.
struct Told<'a> {
    settlement: &'a Settlement,
    language: report::Language,
}

impl Export for Told<'_> {
    type Format = report::Format;
    const NAME: &'static str = "settlement";

    fn export(&self, format: report::Format, to: &mut dyn Write) -> Result<()> {
        format.write(self.settlement, self.language, to)?;
        Ok(())
    }
}

/// Carries out `mmtrace settle-workload`.
///
/// # Errors
/// If the experiments cannot be made.
pub(super) fn execute_workload(arguments: &SettleWorkloadArgs) -> Result<Exit> {
    if let Some(step) = &arguments.step {
        workload::make(Step::parse(step).context("--step")?)?;
        return Ok(Exit::Code(0));
    }
    workload::drive(&Job {
        experiments: arguments.experiments.clone(),
        repetitions: arguments.repeat,
        size_bytes: arguments.size,
        directory: arguments.dir.clone(),
        report: arguments.report,
        parent: arguments.parent,
        sabotage: arguments.sabotage,
    })?;
    Ok(Exit::Code(0))
}
