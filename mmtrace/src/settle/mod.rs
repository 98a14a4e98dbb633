//! `mmtrace settle`: decides claims about memory mapping by measurement.
//!
//! ```text
//! claims -> experiments -> driver, traced as any command -> recording, reports -> outcomes
//!        -> rules -> findings -> verdicts
//! ```
//! Each experiment is a process that does one thing in plain system calls. What is measured of it are
//! the recording's rows of that process; what it sees for itself it reports. The rules are data, in
//! [`claims`].
//!
//! What is fastest is timed by [`performance`] afterwards, untraced: hooks take longer where there are
//! more calls and faults.

pub mod claims;
mod cpus;
pub mod experiment;
pub mod figure;
mod measured;
pub mod outcome;
pub mod performance;
pub mod plan;
pub mod report;
pub mod rule;
pub mod sabotage;
pub mod verdict;
pub mod workload;

use std::{
    env,
    fs::File,
    hash::{BuildHasher as _, RandomState},
    io::{Read as _, Seek as _},
    os::fd::AsRawFd as _,
    path::PathBuf,
    pin::pin,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    signal::{SigSet, Signal, raise},
};

use crate::{
    collect::{Asked, Session, host},
    kernel::stack::Symbols,
    probe::{Purpose, copies::Wanted},
    progress::Progress,
    recording::{Copies, Host, Path as DataPath, Recording, WitnessTrial},
    target::{Exit, Marker, Running, Signals, Spec, Stopped},
};
use claims::Claim;
use experiment::Experiment;
use outcome::{Outcomes, outcomes};
use sabotage::Sabotage;
use verdict::Tried;
use workload::{Job, Report, Step};

/// What is to be settled, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The claims.
    pub claims: Vec<&'static Claim>,
    /// Bytes of each file at most.
    pub size_bytes: u64,
    /// Where the files are made.
    pub directory: PathBuf,
    /// How often each experiment is made; None for as often as each kind needs.
    pub repetitions: Option<u32>,
    /// Drop all clean caches of the machine before what is timed cold.
    pub drop_caches: bool,
    /// What is spoilt, for tests.
    pub sabotage: Option<Sabotage>,
    /// Whether to tell how it goes on.
    pub progress: bool,
}

/// How often what is counted is made: it comes out the same each time.
const COUNTED_REPETITIONS: u32 = 1;
/// How often what is timed is made: it has a spread.
const TIMED_REPETITIONS: u32 = 7;

impl Settings {
    /// How often the traced experiments are made.
    #[must_use]
    pub fn counted_repetitions(&self) -> u32 {
        self.repetitions.unwrap_or(COUNTED_REPETITIONS)
    }

    /// Whether some claim needs tracing.
    #[must_use]
    pub fn traces(&self) -> bool {
        self.claims.iter().any(|claim| !claim.is_timed())
    }

    /// What is to be timed, if some claim needs that.
    fn timed(&self) -> Option<performance::Plan> {
        self.claims
            .iter()
            .any(|claim| claim.is_timed())
            .then(|| performance::Plan {
                dir: self.directory.clone(),
                size_bytes: self.size_bytes,
                repetitions: self.repetitions.unwrap_or(TIMED_REPETITIONS) as usize,
                drop_caches: self.drop_caches,
                seed: RandomState::new().hash_one(()),
                phase_limit: performance::PHASE_LIMIT,
            })
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// How it was made.
    pub settings: Settings,
    /// The claims with their verdicts.
    pub tried: Vec<Tried>,
    /// What came of the experiments.
    pub outcomes: Outcomes,
    /// The machine.
    pub host: Host,
    /// What they were watched by, if anything was.
    pub watched: Option<Watched>,
    /// What was timed, if anything was.
    pub performance: Option<performance::Outcome>,
}

/// How the experiments were watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The kind of hooks.
    pub backend: &'static str,
    /// How copies were found.
    pub copies: Copies,
    /// The kind of file system that the files were on, if mmtrace was told.
    pub filesystem: Option<String>,
    /// How long it took.
    pub wall_time_ns: u64,
    /// How many of the audit's comparisons agree, and how many do not.
    pub audit: [usize; 2],
    /// What mmtrace saw of watched bytes of its own before the experiments.
    pub witness: Vec<WitnessTrial>,
}

impl Settlement {
    /// Whether each claim that was tried was decided.
    #[must_use]
    pub fn decided(&self) -> bool {
        self.tried.iter().all(Tried::decided)
    }
}

/// How often the experiments are made anew because the kernel has left calls of hooks out.
const ATTEMPTS: u32 = 3;

/// Makes the experiments and decides the claims.
///
/// # Errors
/// If the kernel cannot be observed, or the experiments cannot be made at all.
pub async fn settle(settings: Settings) -> Result<Settlement> {
    let mut progress = Progress::of_silent(settings.progress);
    let (outcomes, watched) = match settings.traces() {
        true => {
            let (outcomes, watched) = trace(&settings, &mut progress).await?;
            (outcomes, Some(watched))
        }
        false => (Outcomes::new(Vec::new(), host().page_size), None),
    };
    let timed = settings.timed().map(|plan| {
        performance::measure(&plan, &mut progress).map_err(|error| format!("{error:#}"))
    });
    progress.erase();
    let tried = settings.claims.iter().map(|claim| match &timed {
        Some(timed) if claim.is_timed() => Tried::timed(claim, timed),
        _ => Tried::new(claim, &outcomes),
    });
    Ok(Settlement {
        tried: tried.collect(),
        settings,
        outcomes,
        host: host(),
        watched,
        performance: timed.and_then(Result::ok),
    })
}

/// Makes the traced experiments: what came of them, and what they were watched by.
async fn trace(settings: &Settings, progress: &mut Progress) -> Result<(Outcomes, Watched)> {
    let mask = SigSet::thread_get_mask().context("the mask of signals")?;
    let mut attempts = 0;
    let made = loop {
        let made = make(settings, progress).await?;
        // What comes after the driver is ended by signals as any program is.
        mask.thread_set_mask().context("the mask of signals")?;
        if let Some(signal) = made.asked_to_end {
            progress.erase();
            raise(Signal::try_from(signal)?).context("cannot end by a signal")?;
        }
        attempts += 1;
        // From 7.0 on, a program may be left out while a preempted task is inside it.
        let left_out = made
            .recording
            .lost
            .get("hook_calls")
            .is_some_and(|lost| *lost > 0);
        if !left_out || attempts == ATTEMPTS {
            break made;
        }
    };
    let Made {
        recording, reports, ..
    } = made;
    // Read only now: it takes a while, and would be in the way of nothing.
    let symbols = Symbols::read().map_err(|error| format!("{error:#}"));
    let outcomes = outcomes(&recording, &reports, &symbols);
    Ok((outcomes, watched(&recording)))
}

/// The experiments that claims need, each once, in the order of their definition.
fn experiments(claims: &[&Claim]) -> Vec<Experiment> {
    let mut all: Vec<Experiment> = claims
        .iter()
        .flat_map(|claim| claim.experiments())
        .collect();
    all.sort();
    all.dedup();
    all
}

/// What came of a run of the driver.
struct Made {
    recording: Recording,
    /// What the programs told.
    reports: Vec<Report>,
    /// A signal by which somebody asked mmtrace to end, when the driver had ended by itself.
    asked_to_end: Option<i32>,
}

/// Runs the driver as a traced command.
async fn make(settings: &Settings, progress: &mut Progress) -> Result<Made> {
    let signals = Signals::block().context("cannot take over the signals")?;
    let told = memfd_create("mmtrace-settle-reports", MFdFlags::empty()).context("memfd_create")?;
    let told = File::from(told);
    let job = Job {
        experiments: experiments(&settings.claims),
        repetitions: settings.counted_repetitions(),
        size_bytes: settings.size_bytes,
        directory: settings.directory.clone(),
        report: told.as_raw_fd(),
        parent: Some(std::process::id()),
        sabotage: settings.sabotage,
    };
    let myself = env::current_exe().context("cannot find mmtrace's own file")?;
    let command = [vec![myself.into()], job.arguments()].concat();
    let marker = Marker::random().context("cannot read random numbers")?;
    let spec = Spec {
        command: command.clone(),
        user: None,
        silent: false,
        marker: Some(marker),
    };
    let target = Stopped::spawn(spec, signals)?;
    let copies = match settings.sabotage {
        Some(Sabotage::NoCopyProbe) => Wanted::Returns,
        _ => Wanted::ExactIfAllowed,
    };
    let asked = Asked {
        witness: true,
        ..Asked::default()
    };
    let pid = target.pid();
    let mut session = Session::attach(command, None, copies, pid, marker.nonce, false, asked)?;
    match settings.sabotage {
        Some(Sabotage::BlindDiskProbe) => session.blind(Purpose::Disk),
        Some(Sabotage::BlindCopyProbe) => session.blind(Purpose::Copies),
        Some(Sabotage::MisattachedDiskProbe) => session.misattach(Purpose::Disk)?,
        Some(Sabotage::MisattachedFaultProbe) => session.misattach(Purpose::Faults)?,
        _ => {}
    }
    session.start();
    let mut running = target.release()?;
    let steps = job.experiments.len() * job.repetitions as usize;
    let exit = watch(&mut running, &mut session, progress, steps).await?;
    let recording = session
        .collect(&exit)
        .context("cannot collect what was observed")?;
    if exit.exit != Exit::Code(0) {
        bail!("the experiments' driver ended early: {}", exit.exit);
    }
    Ok(Made {
        recording,
        reports: read(told)?,
        asked_to_end: exit.asked_to_end,
    })
}

async fn watch(
    running: &mut Running,
    session: &mut Session,
    progress: &mut Progress,
    steps: usize,
) -> Result<crate::target::Outcome> {
    let mut wait = pin!(running.wait());
    loop {
        tokio::select! {
            outcome = &mut wait => return outcome,
            pumped = session.pump() => pumped.context("the observation has stopped")?,
            () = progress.due() => progress.draw(|| line(session, steps)),
        }
    }
}

/// A line for somebody who waits: which experiment is being made, of so many.
fn line(session: &Session, steps: usize) -> Option<String> {
    let begun = session
        .commands()
        .filter_map(|command| Step::of_command(&command));
    // A process that an experiment starts has the same command.
    let mut begun: Vec<_> = begun
        .map(|step| (step.repetition, step.experiment))
        .collect();
    begun.sort_unstable();
    begun.dedup();
    let (_, last) = begun.last()?;
    Some(format!(
        "settle: {} of {steps}: {}",
        begun.len(),
        last.name()
    ))
}

/// What the programs told, a report a line.
fn read(mut told: File) -> Result<Vec<Report>> {
    let mut text = String::new();
    told.rewind()?;
    told.read_to_string(&mut text)?;
    let reports = text.lines().map(serde_json::from_str);
    reports
        .collect::<Result<_, _>>()
        .context("a report of an experiment")
}

fn watched(recording: &Recording) -> Watched {
    let agreeing = |agree| {
        recording
            .audit
            .iter()
            .filter(|entry| entry.agree == Some(agree))
            .count()
    };
    Watched {
        backend: recording.probes.backend.name(),
        copies: recording.probes.copies,
        filesystem: filesystem(recording),
        wall_time_ns: recording.target.wall_time_ns,
        audit: [agreeing(true), agreeing(false)],
        witness: recording.witness.clone(),
    }
}

/// The kind of file system that the experiments' files are on.
fn filesystem(recording: &Recording) -> Option<String> {
    let written = recording
        .rows
        .iter()
        .filter(|row| row.path == DataPath::Write);
    let most = written.max_by_key(|row| row.measures.bytes_returned)?;
    let file = recording
        .files
        .iter()
        .find(|file| Some(file.id) == most.file)?;
    file.filesystem.clone()
}

/// The command that makes a claim's experiments again: for `mmtrace run`, where they are traced.
#[must_use]
pub fn repeat_command(claim: &Claim, settings: &Settings) -> Vec<String> {
    let begins: &[&str] = match claim.is_timed() {
        true => &["mmtrace", "settle", "--claim", claim.id],
        false => &["mmtrace", "run", "--", "mmtrace", workload::SUBCOMMAND],
    };
    let mut words: Vec<String> = begins.iter().map(|word| (*word).to_owned()).collect();
    words.extend([
        "--size".to_owned(),
        settings.size_bytes.to_string(),
        "--dir".to_owned(),
        settings.directory.display().to_string(),
    ]);
    if claim.is_timed() && settings.drop_caches {
        words.push("--drop-caches".to_owned());
    }
    words.extend(experiments(&[claim]).into_iter().map(Experiment::name));
    words
}
