//! What mmtrace costs before and after the workload: time to start, memory, the binary's size.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

use crate::statistics::Interval;

/// How often starting is repeated.
const STARTS: usize = 25;

/// What starting costs; times in ms.
pub(crate) struct Start {
    /// From starting mmtrace to its target's first instructions, less the same for a bare one.
    pub(crate) to_first_instruction: Interval,
    /// `mmtrace run -q -- true` from beginning to end, less `true`.
    pub(crate) whole_run: Interval,
    /// The most memory that mmtrace had, in bytes.
    pub(crate) peak_memory_bytes: u64,
    /// The binary's size in bytes.
    pub(crate) binary_bytes: u64,
}

/// The monotonic clock in ns, the same for every process.
pub(crate) fn monotonic_ns() -> Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}

/// Measures starting. To be called before any other child: of all children together the kernel
/// keeps the largest one's memory.
pub(crate) fn measure(mmtrace: &Path) -> Result<Start> {
    let program = std::env::current_exe()?;
    let mut first_instruction = Vec::new();
    let mut whole_run = Vec::new();
    for _ in 0..STARTS {
        let bare = until_first_instruction(Command::new(&program).arg("now"))?;
        let traced = until_first_instruction(
            Command::new(mmtrace)
                .args(["run", "-q", "--"])
                .arg(&program)
                .arg("now"),
        )?;
        first_instruction.push(traced - bare);
        let bare = whole(&mut Command::new("true"))?;
        let traced = whole(Command::new(mmtrace).args(["run", "-q", "--", "true"]))?;
        whole_run.push(traced - bare);
    }
    // In KiB. Every other child was smaller by far.
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    Ok(Start {
        to_first_instruction: Interval::of(&first_instruction).context("no starts")?,
        whole_run: Interval::of(&whole_run).context("no starts")?,
        peak_memory_bytes: u64::try_from(peak)? * 1024,
        binary_bytes: fs::metadata(mmtrace)?.len(),
    })
}

/// From now to when the command's program `now` runs, in ms.
fn until_first_instruction(command: &mut Command) -> Result<f64> {
    let start = monotonic_ns()?;
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(
        output.status.success(),
        "{} failed",
        command.get_program().display()
    );
    let first: i64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok((first - start) as f64 / 1e6)
}

/// A command's time from beginning to end, in ms.
fn whole(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).status()?;
    ensure!(
        status.success(),
        "{} failed",
        command.get_program().display()
    );
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
