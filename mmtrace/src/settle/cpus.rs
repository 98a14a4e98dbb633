//! Which CPUs an experiment runs on.

use std::iter;

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};

/// Those that this process may run on: the one that it is on first.
///
/// # Errors
/// If the kernel does not tell.
pub(super) fn allowed() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    let here = sched_getcpu().context("getcpu")?;
    let others =
        (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true) && *cpu != here);
    Ok(iter::once(here).chain(others).collect())
}

/// Binds this thread to one of them.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn bind(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("sched_setaffinity")
}
