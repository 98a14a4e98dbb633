//! One measurement, in a process of its own: mmtrace, started again with [`Args`].

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    time::Instant,
};

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::{
    messages,
    outcome::Method,
    reader,
    workload::{Block, FileWork, Work},
};

/// The hidden subcommand's name.
pub const SUBCOMMAND: &str = "settle-sample";

/// Arguments of the hidden subcommand that takes one sample.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What is to be measured, as JSON.
    task: String,
}

/// What a sample is of.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) method: Method,
    pub(super) work: Work,
}

/// What a sample tells.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Sample {
    /// By the monotonic clock, around the work alone.
    pub(super) elapsed_ns: u64,
    /// Of what the consumer saw.
    pub(super) sum: u64,
    pub(super) counters: Counters,
}

/// What the kernel has counted for this process, or during some work of it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counters {
    pub(super) minor_faults: u64,
    pub(super) major_faults: u64,
    /// Read from disks on the process's account; None where the kernel does not say.
    pub(super) disk_bytes: Option<u64>,
    /// For how long the process's first thread was ready to run while others ran; 0 where the kernel
    /// does not say.
    pub(super) waited_ns: u64,
}

impl Counters {
    /// Of this process and the children that it has waited for: the sender of messages.
    ///
    /// For how long it waited is looked at by [`Waiting`], closer to the clock.
    fn now() -> Result<Self> {
        let own = getrusage(UsageWho::RUSAGE_SELF)?;
        let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let faults = |of_own: i64, of_children: i64| (of_own + of_children).cast_unsigned();
        Ok(Self {
            minor_faults: faults(own.minor_page_faults(), children.minor_page_faults()),
            major_faults: faults(own.major_page_faults(), children.major_page_faults()),
            disk_bytes: fs::read_to_string("/proc/self/io").ok().and_then(|text| {
                let mut lines = text.lines();
                lines.find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok())
            }),
            waited_ns: 0,
        })
    }

    fn since(self, before: Self, waited_ns: u64) -> Self {
        let disk = self.disk_bytes.zip(before.disk_bytes);
        Self {
            minor_faults: self.minor_faults - before.minor_faults,
            major_faults: self.major_faults - before.major_faults,
            disk_bytes: disk.map(|(after, before)| after - before),
            waited_ns,
        }
    }
}

/// How long this process's first thread waits for a processor. One call without an open, so that
/// little else comes between it and the clock.
struct Waiting {
    schedstat: Option<File>,
    before_ns: u64,
}

impl Waiting {
    fn begin() -> Self {
        let schedstat = File::open("/proc/self/schedstat").ok();
        Self {
            before_ns: schedstat.as_ref().and_then(Self::so_far_ns).unwrap_or(0),
            schedstat,
        }
    }

    /// Since it began, in nanoseconds; 0 where the kernel does not say.
    fn end(self) -> u64 {
        let so_far_ns = self.schedstat.as_ref().and_then(Self::so_far_ns);
        so_far_ns.map_or(0, |after_ns| after_ns.saturating_sub(self.before_ns))
    }

    fn so_far_ns(schedstat: &File) -> Option<u64> {
        // Three numbers: time on a processor, time spent waiting for one, and how often it ran.
        let mut text = [0; 64];
        let length = schedstat.read_at(&mut text, 0).ok()?;
        let text = str::from_utf8(&text[..length]).ok()?;
        text.split(' ').nth(1)?.parse().ok()
    }
}

/// Takes the sample and writes it to standard output as JSON.
///
/// # Errors
/// If the work cannot be done.
pub fn execute(arguments: &Args) -> Result<()> {
    // Nobody waits for a sample whose experiment was killed.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let task: Task = serde_json::from_str(&arguments.task).context("not a task")?;
    let sample = match task.work {
        Work::File(work) => of_file(task.method, &work, &work.visits()),
        Work::Ipc(work) => {
            let before = Counters::now()?;
            let waiting = Waiting::begin();
            let (elapsed, sum) = messages::pass(task.method, &work)?;
            let waited_ns = waiting.end();
            let counters = Counters::now()?.since(before, waited_ns);
            Ok(Sample {
                elapsed_ns: u64::try_from(elapsed.as_nanos())?,
                sum,
                counters,
            })
        }
    }?;
    serde_json::to_writer(io::stdout(), &sample)?;
    io::stdout().flush().context("cannot tell the sample")
}

/// The blocks are worked out before, so that finding the next one costs every method the same.
fn of_file(method: Method, work: &FileWork, visits: &[Vec<Block>]) -> Result<Sample> {
    let before = Counters::now()?;
    let waiting = Waiting::begin();
    let start = Instant::now();
    let sum = reader::read(method, work, visits)?;
    let elapsed_ns = u64::try_from(start.elapsed().as_nanos())?;
    let waited_ns = waiting.end();
    Ok(Sample {
        elapsed_ns,
        sum,
        counters: Counters::now()?.since(before, waited_ns),
    })
}
