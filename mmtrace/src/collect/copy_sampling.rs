//! Watching copies for a part of the time, so that it costs no more than a budget.
//!
//! The breakpoints are turned off and on. A call counts as watched if they were on from its beginning
//! to its end. What the others copied is estimated from what they returned, path by path: by the ratio
//! of copied to returned bytes of the calls that were watched. How much that ratio varies from window
//! to window tells how far the estimate may be off.

use std::{collections::BTreeMap, io, sync::atomic::Ordering, time::Duration};

use anyhow::Result;
use aya::Ebpf;
use mmtrace_common::{Path, WatchedCalls};
use perf_event::Counter;
use statrs::distribution::{ContinuousCDF as _, StudentsT};
use tokio::time::Instant;

use super::shared::Shared;
use crate::{
    probe::{
        copies::{Plan, Watched},
        cpus::possible_cpus,
    },
    recording::{Copies, CopyChange, CopyError, CopySampling},
};

/// How long it is watched at a time, at least.
const WINDOW: Duration = Duration::from_millis(5);
/// How often the cost is looked at while everything is watched.
const LOOK: Duration = Duration::from_millis(20);
/// How long it is not watched at a time, at most.
const PAUSE: Duration = Duration::from_secs(1);
/// What is watched at most of the time where sampling is asked for.
const MOST: f64 = 0.5;
/// In how many cases an estimate is as near to the truth as it says, or nearer.
const CONFIDENCE: f64 = 0.999;

/// Words of a sample.
const WORDS: usize = size_of::<WatchedCalls>() / size_of::<u64>();

/// What was seen of each path in a window.
type Window = Vec<WatchedCalls>;

/// Turns the watching off and on.
pub(super) struct Sampler {
    breakpoints: Watched,
    /// The processor time of whom they watch.
    clock: Counter,
    watched: Shared,
    samples: Shared,
    /// For how many CPUs there are samples.
    cpus: usize,
    /// What a copy costs while it is watched.
    cost_ns: u64,
    /// What all may cost, of the command's processor time.
    budget: f64,
    /// Whether it may be watched all the time.
    may_be_exact: bool,
    /// The number of the window: even while it is watched.
    window: u64,
    started: Instant,
    since: Instant,
    /// When to look again.
    next: Instant,
    /// The sums at the last look.
    last: Totals,
    /// What watching has cost so far.
    spent_ns: u64,
    windows: Vec<Window>,
    watched_time: Duration,
    changes: Vec<CopyChange>,
}

#[derive(Clone, Debug, Default)]
struct Totals {
    copies: u64,
    clock_ns: u64,
    samples: Window,
}

impl Sampler {
    /// For breakpoints that are on.
    ///
    /// # Errors
    ///
    /// If the kernel programs' maps cannot be shared.
    pub(super) fn new(
        breakpoints: Watched,
        clock: Counter,
        ebpf: &Ebpf,
        cost_ns: u64,
        budget: f64,
        may_be_exact: bool,
    ) -> Result<Self> {
        let cpus = possible_cpus()?;
        let samples = cpus * Path::ALL.len() * WORDS;
        let now = Instant::now();
        Ok(Self {
            breakpoints,
            clock,
            watched: Shared::new(ebpf, "WATCHED", 1)?,
            samples: Shared::new(ebpf, "WATCHED_CALLS", samples)?,
            cpus,
            cost_ns,
            budget,
            may_be_exact,
            window: 0,
            started: now,
            since: now,
            next: now + if may_be_exact { LOOK } else { WINDOW },
            last: Totals {
                samples: vec![WatchedCalls::default(); Path::ALL.len()],
                ..Totals::default()
            },
            spent_ns: 0,
            windows: Vec::new(),
            watched_time: Duration::ZERO,
            changes: Vec::new(),
        })
    }

    /// The command is about to start.
    pub(super) fn start(&mut self) {
        let now = Instant::now();
        (self.started, self.since) = (now, now);
        self.next = now + if self.may_be_exact { LOOK } else { WINDOW };
    }

    /// When to look again.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Looks what the watching costs, and turns it off or on.
    ///
    /// # Errors
    ///
    /// If the kernel refuses that.
    pub(super) fn look(&mut self) -> Result<()> {
        let now = Instant::now();
        if !self.window.is_multiple_of(2) {
            self.breakpoints.enable()?;
            self.turn();
            self.last = self.totals()?;
            self.since = now;
            self.next = now + WINDOW;
            return Ok(());
        }
        let totals = self.totals()?;
        // What was counted on a CPU is gone with it.
        let copies = totals.copies.saturating_sub(self.last.copies);
        let clock_ns = totals.clock_ns - self.last.clock_ns;
        // Longer than asked for, where nobody let this program run in time.
        let window = now - self.since;
        self.end_window(&totals, now);
        let cost_ns = copies * self.cost_ns;
        self.spent_ns += cost_ns;
        let cost = cost_ns as f64 / clock_ns.max(1) as f64;
        let most = if self.may_be_exact { 1.0 } else { MOST };
        let share = (self.budget / cost.max(f64::MIN_POSITIVE)).min(most);
        if share >= 1.0 {
            self.next = now + LOOK;
            return Ok(());
        }
        if self.changes.is_empty() && self.may_be_exact {
            self.changes.push(CopyChange {
                at_ns: (now - self.started).as_nanos() as u64,
                copies: Copies::Sampled,
            });
        }
        self.turn();
        self.breakpoints.disable()?;
        // Until all that was spent is within the budget.
        let owed_ns = self.spent_ns as f64 / self.budget - totals.clock_ns as f64;
        self.next = now + pause(window, share, owed_ns / clock_ns.max(1) as f64);
        Ok(())
    }

    /// A CPU has come online: copies are watched there too.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn cpu_came(&mut self, plan: &Plan, ebpf: &Ebpf, cpu: u32) -> Result<()> {
        plan.watch_cpu(ebpf, cpu, &mut self.breakpoints)?;
        if !self.window.is_multiple_of(2) {
            self.breakpoints.disable()?;
        }
        Ok(())
    }

    fn turn(&mut self) {
        self.window += 1;
        self.watched.word(0).store(self.window, Ordering::SeqCst);
    }

    fn end_window(&mut self, totals: &Totals, now: Instant) {
        self.watched_time += now - self.since;
        self.since = now;
        let window = totals.samples.iter().zip(&self.last.samples);
        self.windows.push(window.map(since).collect());
        self.last = totals.clone();
    }

    fn totals(&mut self) -> Result<Totals> {
        let mut totals = Totals {
            clock_ns: self.clock.read()?,
            copies: self.breakpoints.copies(),
            ..Totals::default()
        };
        totals.samples = vec![WatchedCalls::default(); Path::ALL.len()];
        for cpu in 0..self.cpus {
            for (path, sum) in totals.samples.iter_mut().enumerate() {
                let first = (cpu * Path::ALL.len() + path) * WORDS;
                let word = |index| self.samples.word(first + index).load(Ordering::Relaxed);
                sum.returned_bytes += word(0);
                sum.copied_to_user_bytes += word(1);
                sum.copied_from_user_bytes += word(2);
            }
        }
        Ok(totals)
    }

    /// Ends all watching: what was found out, if it was not watched all the time.
    ///
    /// # Errors
    ///
    /// If what was seen cannot be read.
    pub(super) fn end(mut self) -> Result<Option<Sampled>> {
        let now = Instant::now();
        if self.window.is_multiple_of(2) {
            let totals = self.totals()?;
            self.end_window(&totals, now);
        }
        if self.window == 0 {
            return Ok(None);
        }
        Ok(Some(Sampled {
            watched: self.watched_time,
            run: now - self.started,
            cost_ns: self.cost_ns,
            changes: self.changes,
            windows: self.windows,
        }))
    }
}

/// How long not to watch after a window, of which `share` may be watched. What is `owed`, in windows, is
/// made up for: those before it was known what they cost, and those that were longer than meant.
fn pause(window: Duration, share: f64, owed: f64) -> Duration {
    let windows = (1.0 / share - 1.0).max(owed);
    window.mul_f64(windows.min(1e6)).min(PAUSE)
}

fn since((now, before): (&WatchedCalls, &WatchedCalls)) -> WatchedCalls {
    WatchedCalls {
        returned_bytes: now.returned_bytes - before.returned_bytes,
        copied_to_user_bytes: now.copied_to_user_bytes - before.copied_to_user_bytes,
        copied_from_user_bytes: now.copied_from_user_bytes - before.copied_from_user_bytes,
    }
}

/// What was seen in windows.
#[derive(Clone, Debug)]
pub(super) struct Sampled {
    watched: Duration,
    run: Duration,
    cost_ns: u64,
    changes: Vec<CopyChange>,
    windows: Vec<Window>,
}

/// Copied bytes for each byte returned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    /// How many.
    pub(super) value: f64,
    /// By how much it may be off, but in one case of a thousand ([`CONFIDENCE`]).
    pub(super) error: f64,
}

impl Sampled {
    /// The ratios of a path, to the program and from it; `None` if none of its calls was watched.
    pub(super) fn ratios(&self, path: Path) -> Option<[Ratio; 2]> {
        let of = |part: fn(&WatchedCalls) -> u64| {
            let pairs: Vec<[f64; 2]> = self
                .windows
                .iter()
                .map(|window| &window[path as usize])
                .map(|sample| [part(sample) as f64, sample.returned_bytes as f64])
                .filter(|pair| *pair != [0.0; 2])
                .collect();
            ratio(&pairs)
        };
        Some([
            of(|sample| sample.copied_to_user_bytes)?,
            of(|sample| sample.copied_from_user_bytes)?,
        ])
    }

    /// What the recording says of it, with the errors of its estimates.
    pub(super) fn describe(&self, errors: BTreeMap<String, CopyError>) -> CopySampling {
        CopySampling {
            watched_ns: self.watched.as_nanos() as u64,
            run_ns: self.run.as_nanos() as u64,
            windows: self.windows.len() as u64,
            cost_per_copy_ns: self.cost_ns,
            changes: self.changes.clone(),
            error_bounds: errors,
        }
    }
}

/// The ratio of two sums, and its error by how it varies between pairs (the linear estimate of its
/// standard error; Cochran, Sampling Techniques, 6.4; times Student's t, since few pairs tell little of
/// how much they vary). One pair tells nothing of that: then it may be off by all there is.
fn ratio(pairs: &[[f64; 2]]) -> Option<Ratio> {
    let sum = |part: usize| pairs.iter().map(|pair| pair[part]).sum::<f64>();
    let (copied, returned) = (sum(0), sum(1));
    if returned == 0.0 {
        return None;
    }
    let value = copied / returned;
    let count = pairs.len() as f64;
    let squares: f64 = pairs
        .iter()
        .map(|[copied, returned]| (copied - value * returned).powi(2))
        .sum();
    let error = match StudentsT::new(0.0, 1.0, count - 1.0) {
        Ok(t) => {
            let standard_errors = t.inverse_cdf(f64::midpoint(1.0, CONFIDENCE));
            standard_errors * (count / (count - 1.0) * squares).sqrt() / returned
        }
        // There are no degrees of freedom.
        Err(_) => value,
    };
    Some(Ratio { value, error })
}

/// The clock of a process and its descendants.
pub(super) fn clock(pid: u32) -> io::Result<Counter> {
    let mut clock = perf_event::Builder::new(perf_event::events::Software::TASK_CLOCK)
        .include_kernel()
        .observe_pid(pid.cast_signed())
        .inherit(true)
        .build()?;
    clock.enable()?;
    Ok(clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_keep_the_share_make_up_for_what_is_owed_and_end() {
        assert_eq!(pause(WINDOW, 0.25, -7.0), WINDOW * 3);
        assert_eq!(pause(WINDOW, 0.25, 11.0), WINDOW * 11);
        assert_eq!(pause(WINDOW, 1e-9, 0.0), PAUSE);
        assert_eq!(pause(WINDOW, 0.5, 1e9), PAUSE);
    }

    #[test]
    fn a_ratio_that_does_not_vary_has_no_error() {
        let found = ratio(&[[3.0, 3.0], [500.0, 500.0]]).unwrap();
        assert_eq!(
            found,
            Ratio {
                value: 1.0,
                error: 0.0
            }
        );
        assert_eq!(ratio(&[[0.0, 7.0], [0.0, 9.0]]).unwrap().error, 0.0);
    }

    #[test]
    fn one_that_varies_has_one_and_without_calls_there_is_none() {
        let found = ratio(&[[1.0, 10.0], [3.0, 10.0], [2.0, 10.0]]).unwrap();
        assert!((found.value - 0.2).abs() < 1e-9);
        // By a table of Student's t for 0.999 and two degrees of freedom.
        assert!((found.error - 31.599 * 3.0_f64.sqrt() / 30.0).abs() < 1e-4);
        assert_eq!(ratio(&[[5.0, 10.0]]).unwrap().error, 0.5);
        assert_eq!(ratio(&[]), None);
        assert_eq!(ratio(&[[5.0, 0.0]]), None);
    }
}
