//! One run's probes: attached while the target waits, read when it has ended.

use std::cell::LazyCell;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use aya_log::EbpfLogger;
use mmtrace_common::Lost;
use tokio::{
    io::unix::AsyncFd,
    time::{Instant as TimerInstant, sleep_until, timeout_at},
};

use super::{
    calibration::{Known, calibrate, cost_of_copy},
    copy_sampling::{Sampled, Sampler, clock},
    cpus::Cpus,
    disks::Disks,
    events::Events,
    maps::{counted, may_have_missed_ends, threads},
    recording, samples, stacks, witness,
};
use crate::{
    kernel::stack::Symbols,
    probe::{
        self, Attached, Backend, Extras, Purpose,
        copies::{Wanted, Watched},
        missed::{Missed, missed},
        sample,
    },
    recording::Recording,
    target::Outcome,
    witness::{self as watchpoints, Finding},
};

/// What is observed only if it is asked for, and what that may cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Every trial of the [witness](crate::witness), and names for what it sees.
    pub witness: bool,
    /// Samples of the kernel, so many times a second on each CPU.
    pub sample_hz: Option<u32>,
    /// What it may cost to find copies, in percent of the command's processor time.
    pub copy_budget: f64,
    /// Stacks of where the work was caused.
    pub stacks: bool,
    /// Heat maps of which parts of files were used when.
    pub heat_maps: bool,
    /// What becomes of what is read ahead.
    pub readahead_use: bool,
}

/// Probes that run, and what they have told.
pub struct Session {
    pub(super) command: Vec<OsString>,
    pub(super) attached: Attached,
    pub(super) events: Events,
    /// Tells of CPUs that come.
    cpus: Option<Cpus>,
    pub(super) calibration: Vec<Known>,
    pub(super) asked: Asked,
    /// What the witness saw.
    pub(super) findings: Vec<Finding>,
    /// Why the kernel is not sampled although it was asked for.
    pub(super) no_samples: Option<String>,
    /// Block devices as they were after the calibration.
    disks: Disks,
    /// Threads that were still there when the counts were read.
    pub(super) alive: usize,
    /// Hook calls for which the kernel did not run a program.
    pub(super) missed: Missed,
    /// When to look for processes whose end could not be told.
    look_at: TimerInstant,
    logger: Option<AsyncFd<EbpfLogger<Print>>>,
    /// The breakpoints that see the command's copies, if they stay on.
    copying: Watched,
    /// How often a CPU has come on which copies were not watched until then.
    unwatched_cpus: u64,
    /// What turns them off and on, if they do not.
    sampler: Option<Sampler>,
    /// What that has found out.
    pub(super) sampled: Option<Sampled>,
}

impl Session {
    /// Attaches the probes of `backend`, or the best that can be had, and tries them. The copies of
    /// the process `target`, which waits, are watched from here on.
    ///
    /// # Errors
    ///
    /// If the probes cannot be had, or do not see a known read or its copies.
    pub fn attach(
        command: Vec<OsString>,
        backend: Option<Backend>,
        copies: Wanted,
        target: u32,
        nonce: u32,
        verbose: bool,
        asked: Asked,
    ) -> Result<Self> {
        // Beside the attaching: the first watchpoint of a task waits for a grace period of RCU
        // (account_event in kernel/events/core.c), some 10 ms.
        let witness = thread::spawn(move || watchpoints::run(asked.witness));
        let extras = Extras {
            samples: asked.sample_hz.is_some(),
            stacks: asked.stacks,
            heat_maps: asked.heat_maps,
            readahead_use: asked.readahead_use,
        };
        let cpus = Cpus::listen();
        let mut attached = probe::attach(backend, copies, nonce, verbose, extras)?;
        let no_samples = asked
            .sample_hz
            .and_then(|hz| sample::attach(&mut attached, hz).err())
            .map(|error| format!("{error:#}"));
        let events = Events::new(&mut attached.ebpf, asked.stacks)?;
        let logger = verbose
            .then(|| log_from(&mut attached))
            .transpose()
            .context("cannot read the kernel programs' diagnostics")?;
        let sampling = matches!(copies, Wanted::Auto | Wanted::Sampled);
        let (calibration, cost_ns) = match try_out(&attached, sampling, nonce) {
            // Without the copies, if it was them.
            Err(error) if copies.may_be_returns() && attached.copies.is_some() => {
                attached.give_copies_up(&error);
                try_out(&attached, sampling, nonce)?
            }
            result => result?,
        };
        let findings = witness
            .join()
            .map_err(|_| anyhow!("the witness panicked"))?;
        // Only now: no thread has a register left for anything else then.
        let mut copying = match watch_copies(&attached) {
            Err(error) if copies.may_be_returns() => {
                attached.give_copies_up(&error);
                Watched::default()
            }
            result => result?,
        };
        let sampler = match cost_ns {
            Some(cost_ns) if !copying.is_empty() => {
                let clock = clock(target).context("cannot watch the command's time")?;
                let budget = asked.copy_budget / 100.0;
                let may_be_exact = copies == Wanted::Auto;
                let breakpoints = std::mem::take(&mut copying);
                let ebpf = &attached.ebpf;
                let sampler =
                    Sampler::new(breakpoints, clock, ebpf, cost_ns, budget, may_be_exact)?;
                Some(sampler)
            }
            _ => None,
        };
        Ok(Self {
            copying,
            unwatched_cpus: 0,
            sampler,
            sampled: None,
            command,
            attached,
            events,
            cpus,
            calibration,
            asked,
            findings,
            no_samples,
            disks: Disks::now(),
            alive: 0,
            missed: Missed::default(),
            look_at: TimerInstant::now() + LOOKING,
            logger,
        })
    }

    /// Takes the programs of a purpose away and tells nobody: for tests of what rests on them.
    pub fn blind(&mut self, purpose: Purpose) {
        if purpose == Purpose::Copies {
            self.copying = Watched::default();
        }
        self.attached.blind(purpose);
    }

    /// Moves the programs of a purpose to where they count something else, and tells nobody: for
    /// tests of what rests on them.
    ///
    /// # Errors
    ///
    /// If that cannot be had.
    pub fn misattach(&mut self, purpose: Purpose) -> Result<()> {
        self.attached.misattach(purpose)
    }

    /// The command is about to be released.
    pub fn start(&mut self) {
        if let Some(sampler) = &mut self.sampler {
            sampler.start();
        }
    }

    /// Takes what the kernel side tells, for as long as it is awaited.
    ///
    /// # Errors
    ///
    /// If it cannot be waited for.
    pub async fn pump(&mut self) -> Result<()> {
        loop {
            self.events.drain();
            self.told().await?;
        }
    }

    /// Takes what the kernel side tells until no process that was followed runs any more.
    ///
    /// # Errors
    ///
    /// If it cannot be waited for, or the kernel side's maps cannot be read.
    pub async fn all_ended(&mut self) -> Result<()> {
        loop {
            self.events.drain();
            if self.events.running() == 0 {
                return Ok(());
            }
            if let Ok(told) = timeout_at(self.look_at, self.told()).await {
                told?;
            } else if self.ended_untold()? {
                return Ok(());
            } else {
                self.look_at = TimerInstant::now() + LOOKING;
            }
        }
    }

    /// Whether everything has ended of which the kernel side could not tell that.
    fn ended_untold(&mut self) -> Result<bool> {
        let missed = missed(&self.attached)?;
        let mut left_out = missed.calls.iter().map(|(program, _)| program);
        if !may_have_missed_ends(&self.attached.ebpf)?
            && !left_out.any(|program| program.starts_with("sched_process_exit"))
        {
            return Ok(false);
        }
        let known = self.events.processes.len();
        let [_, running] = threads(&self.attached.ebpf, &self.events)?;
        // Whom one of them has started meanwhile was perhaps not met on the way through the map.
        self.events.drain();
        Ok(running == 0 && self.events.processes.len() == known)
    }

    /// Returns when the kernel side has told something.
    async fn told(&mut self) -> Result<()> {
        loop {
            let look_at = self.sampler.as_ref().map(Sampler::next);
            let readable = async {
                match &mut self.logger {
                    Some(logger) => logger.readable_mut().await,
                    None => std::future::pending().await,
                }
            };
            let came = async {
                match &mut self.cpus {
                    Some(cpus) => cpus.came().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = self.events.told() => return told,
                () = until(look_at) => {
                    if let Some(sampler) = &mut self.sampler {
                        sampler.look().context("cannot go on sampling the copies")?;
                    }
                }
                came = came => {
                    for cpu in came.context("cannot go on looking for CPUs that come")? {
                        self.cpu_came(cpu);
                    }
                }
                ready = readable => {
                    let mut ready = ready?;
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            }
        }
    }

    /// Attaches to a CPU that has come online what each has for itself.
    fn cpu_came(&mut self, cpu: u32) {
        self.attached.cpu_came(cpu);
        let ebpf = &self.attached.ebpf;
        if let Some(plan) = &self.attached.copies {
            self.unwatched_cpus += 1;
            // It may have gone again, or be refused: that copies were lost is said anyway.
            let _refused = match &mut self.sampler {
                Some(sampler) => sampler.cpu_came(plan, ebpf, cpu),
                None => plan.watch_cpu(ebpf, cpu, &mut self.copying),
            };
        }
    }

    /// A line for somebody who waits.
    #[must_use]
    pub fn progress(&self, elapsed: Duration) -> String {
        format!(
            "mmtrace: {} s, {} processes, {} files",
            elapsed.as_secs(),
            self.events.processes.len(),
            self.events.files.len(),
        )
    }

    /// What each process ran last, argument by argument, in the order of their start.
    pub fn commands(&self) -> impl Iterator<Item = Vec<OsString>> {
        let processes = self.events.processes.values();
        let words = |words: &[Vec<u8>]| words.iter().cloned().map(OsString::from_vec).collect();
        processes.map(move |process| words(&process.command))
    }

    /// Waits until the kernel has freed the threads that have ended: only then are its own
    /// counters of them final. One that nobody waits for stays, hence the limit.
    fn wait_for_the_last(&mut self) -> Result<()> {
        let mut deadline = Instant::now() + FREEING;
        loop {
            self.events.drain();
            let [ended, running] = threads(&self.attached.ebpf, &self.events)?;
            let alive = ended + running;
            if ended == 0 || Instant::now() > deadline {
                self.alive = alive;
                return Ok(());
            }
            if alive < self.alive || self.alive == 0 {
                self.alive = alive;
                deadline = Instant::now() + FREEING;
            }
            // Looked at again, up to the limit above: nothing depends on how long this takes. An
            // event for each thread that is freed would cost every one that ends; this costs a run's
            // end a millisecond.
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads what was counted, and detaches.
    ///
    /// # Errors
    ///
    /// If the kernel side's maps cannot be read.
    pub fn collect(mut self, outcome: &Outcome) -> Result<Recording> {
        self.wait_for_the_last()?;
        self.missed = missed(&self.attached)?;
        // Nothing is counted any more from here on, for what still runs either.
        self.copying = Watched::default();
        if let Some(sampler) = self.sampler.take() {
            self.sampled = sampler.end()?;
        }
        self.attached.detach();
        let mut counted = counted(&self.attached.ebpf)?;
        let calls: u64 = self.missed.calls.iter().map(|(_, times)| times).sum();
        if calls != 0 {
            counted.lost.insert(HOOK_CALLS, calls);
        }
        if self.unwatched_cpus != 0 {
            *counted.lost.entry(Lost::Copies.name()).or_default() += self.unwatched_cpus;
        }
        // Counted wherever copies could be watched.
        if self.attached.copies.is_none() {
            counted.lost.remove(Lost::Copies.name());
        }
        // No process ends before its aio requests are complete. io_uring's are cancelled and complete
        // later: they are missing only where nothing sees any complete.
        let [uring, aio] = counted.requests;
        let mut hooks = self.attached.hooks.iter();
        let unseen = hooks.all(|(purpose, _)| *purpose != Purpose::UringCompletions);
        let left = aio + if unseen { uring } else { 0 };
        if left != 0 {
            *counted.lost.entry(Lost::Completions.name()).or_default() += left;
        }
        if self.logger.is_some() {
            for (program, times) in &self.missed.calls {
                crate::say(&format!("mmtrace: {program} was left out {times} times\n"));
            }
        }
        self.events.drain();
        if let Some(logger) = &mut self.logger {
            logger.get_mut().flush();
        }
        let mut recording = recording::make(&self, &counted, outcome);
        // Read only now if at all: it takes long, and the command has ended.
        let symbols = LazyCell::new(|| Symbols::read().map_err(|error| format!("{error:#}")));
        recording.audit.extend(witness::audit(&self.findings));
        if self.asked.witness {
            witness::add(&self.findings, &symbols, &mut recording);
        }
        if self.asked.stacks {
            let numbers = recording::process_ids(&counted, &self.events.processes);
            let code = &mut self.events.code;
            stacks::add(
                &self.attached.ebpf,
                code,
                &symbols,
                &numbers,
                &counted.unused_by_stack,
                &mut recording,
            )?;
        }
        match (self.asked.sample_hz, &self.no_samples) {
            (Some(hz), None) => {
                samples::add(&self.attached.ebpf, hz, &symbols, &mut recording)?;
            }
            (Some(_), Some(reason)) => samples::refused(reason, &mut recording),
            (None, _) => {}
        }
        let disks = self.disks.audit(&counted, &self.events.files);
        recording.audit.extend(disks);
        Ok(recording)
    }
}

/// Returns at that time; never, if there is none.
async fn until(time: Option<TimerInstant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Makes the calibration, and measures what it costs to watch a copy if copies are to be `sampled`.
fn try_out(attached: &Attached, sampled: bool, nonce: u32) -> Result<(Vec<Known>, Option<u64>)> {
    let known = calibrate(attached, nonce)?;
    let cost_ns = match &attached.copies {
        Some(_) if sampled => Some(cost_of_copy(attached, nonce)?),
        _ => None,
    };
    Ok((known, cost_ns))
}

/// Watches all copies, if that is planned.
fn watch_copies(attached: &Attached) -> Result<Watched> {
    let Some(plan) = &attached.copies else {
        return Ok(Watched::default());
    };
    plan.watch_all(&attached.ebpf)
        .context("the kernel's copies cannot be watched")
}

/// What a recording calls the hook calls for which the kernel did not run a program.
const HOOK_CALLS: &str = "hook_calls";

/// How often it is looked for processes whose end could not be told.
const LOOKING: Duration = Duration::from_secs(1);

/// How long the kernel may take to free a thread that has ended and was waited for: it does so
/// after a grace period of RCU, milliseconds as a rule.
const FREEING: Duration = Duration::from_millis(500);

/// The kernel programs' diagnostics, to be printed on standard error as they come.
fn log_from(attached: &mut Attached) -> Result<AsyncFd<EbpfLogger<Print>>> {
    let logger = EbpfLogger::init_with_logger(&mut attached.ebpf, Print)?;
    // SAFETY: the logger's descriptor stays open and the same for as long as it lives.
    Ok(unsafe { AsyncFd::register(logger) }?)
}

/// Prints log records.
struct Print;

impl log::Log for Print {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        crate::say(&format!("mmtrace: kernel: {}\n", record.args()));
    }

    fn flush(&self) {}
}
