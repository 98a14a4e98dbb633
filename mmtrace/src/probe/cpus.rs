//! Events that each CPU has for itself.
//!
//! A CPU that goes offline takes its events with it, and brings none back
//! (`perf_event_exit_cpu_context` in kernel/events/core.c).

use std::collections::HashMap;

use anyhow::{Result, anyhow};
use aya::{
    programs::{
        PerfEvent, ProgramError,
        perf_event::{PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy},
    },
    sys::SyscallError,
    util::{nr_cpus, online_cpus},
};

/// How many CPUs there may ever be: a program's CPU has a number below it.
///
/// # Errors
///
/// If the kernel does not tell.
pub(crate) fn possible_cpus() -> Result<usize> {
    nr_cpus().map_err(|(file, error)| anyhow!("cannot read {file}: {error}"))
}

/// A program on an event of every CPU.
#[derive(Debug)]
pub struct OnCpus {
    event: PerfEventConfig,
    policy: SamplePolicy,
    links: HashMap<u32, PerfEventLinkId>,
}

impl OnCpus {
    /// Attaches a program to an event of each CPU that is online.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, of a CPU that is there.
    pub fn attach(
        program: &mut PerfEvent,
        event: PerfEventConfig,
        policy: SamplePolicy,
    ) -> Result<Self> {
        let mut all = Self {
            event,
            policy,
            links: HashMap::new(),
        };
        for cpu in online_cpus().map_err(|(what, error)| anyhow!(error).context(what))? {
            match all.attach_to(program, cpu) {
                Err(error) if has_gone(&error) => {}
                result => result?,
            }
        }
        Ok(all)
    }

    /// Attaches the program to a CPU, in place of what it had there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, or the CPU is offline.
    pub fn attach_to(&mut self, program: &mut PerfEvent, cpu: u32) -> Result<(), ProgramError> {
        if let Some(link) = self.links.remove(&cpu) {
            program.detach(link)?;
        }
        let scope = PerfEventScope::AllProcessesOneCpu { cpu };
        let link = program.attach(self.event, scope, self.policy, false)?;
        self.links.insert(cpu, link);
        Ok(())
    }
}

/// Whether an event cannot be had because its CPU is offline.
fn has_gone(error: &ProgramError) -> bool {
    matches!(
        error,
        ProgramError::SyscallError(SyscallError { io_error, .. })
            if io_error.raw_os_error() == Some(libc::ENODEV)
    )
}
