//! One of the kernel programs: loading it, and attaching it where it belongs.

use anyhow::{Context as _, Result, bail};
use aya::programs::{
    Program, ProgramError,
    perf_event::{BreakpointConfig, PerfEventConfig, SamplePolicy, SoftwareEvent},
};

use super::{cpus::OnCpus, plan::Attachment};
use crate::kernel::{refusal::Asked, symbols};

/// Loads a program, unless it is loaded, and attaches it.
///
/// # Errors
///
/// If the program is of another type than the attachment's, or the kernel refuses; so it does at a
/// function's entry or return (fentry, fexit) if `types`, the kernel's, are not given.
pub fn load_and_attach(
    program: &mut Program,
    at: Attachment<'_>,
    types: Option<&aya::Btf>,
) -> Result<()> {
    if program.fd().is_err() {
        load(program, at, types)?;
    }
    attach_loaded(program, at).map(drop)
}

/// Attaches a program: where, if it is on events that each CPU has for itself.
pub(super) fn attach_loaded(program: &mut Program, at: Attachment<'_>) -> Result<Option<OnCpus>> {
    match program {
        Program::RawTracePoint(program) => {
            program.attach(at.target())?;
        }
        Program::TracePoint(program) => {
            let (category, name) = at.event().context("it is a program for an event")?;
            program.attach(category, name)?;
        }
        Program::FEntry(program) => {
            program.attach()?;
        }
        Program::FExit(program) => {
            program.attach()?;
        }
        Program::KProbe(program) => {
            program.attach(at.target(), 0)?;
        }
        Program::PerfEvent(program) => {
            let on_cpus = OnCpus::attach(program, event(at)?, SamplePolicy::Period(1))?;
            return Ok(Some(on_cpus));
        }
        _ => bail!("it is of a type that nothing is attached to"),
    }
    Ok(None)
}

/// Loads a program.
pub(super) fn load(
    program: &mut Program,
    at: Attachment<'_>,
    types: Option<&aya::Btf>,
) -> Result<()> {
    let types = || types.context("the kernel's types were not read");
    match program {
        Program::RawTracePoint(program) => program.load()?,
        Program::TracePoint(program) => program.load()?,
        Program::FEntry(program) => program.load(at.target(), types()?)?,
        Program::FExit(program) => program.load(at.target(), types()?)?,
        Program::KProbe(program) => program.load()?,
        Program::PerfEvent(program) => program.load()?,
        _ => bail!("it is of a type that is not loaded"),
    }
    Ok(())
}

/// The event of an attachment that is no tracepoint.
fn event(at: Attachment<'_>) -> Result<PerfEventConfig> {
    Ok(match at {
        Attachment::MajorFaults => PerfEventConfig::Software(SoftwareEvent::PageFaultsMaj),
        Attachment::Breakpoint(name) => {
            PerfEventConfig::Breakpoint(BreakpointConfig::Instruction {
                address: symbols::address(name)?,
            })
        }
        _ => PerfEventConfig::Software(SoftwareEvent::PageFaultsMin),
    })
}

/// Detaches and unloads a program. One that was never loaded is no failure.
pub(super) fn unload(program: &mut Program) {
    let _ = match program {
        Program::RawTracePoint(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::PerfEvent(program) => program.unload(),
        _ => Ok(()),
    };
}

/// What an attachment asks of the kernel.
pub(super) fn asked(at: Attachment<'_>) -> Asked {
    match at {
        Attachment::RawTracepoint(_) => Asked::RawTracepoint,
        Attachment::Event(_) => Asked::Event,
        Attachment::Fentry(_) | Attachment::Fexit(_) => Asked::Trampoline,
        Attachment::Kprobe(_) | Attachment::Kretprobe(_) => Asked::Kprobe,
        Attachment::Breakpoint(_) => Asked::ExecutionBreakpoint,
        Attachment::MinorFaults | Attachment::MajorFaults => Asked::SoftwareEvent,
    }
}

/// What the verifier said last, in brackets: its whole log has thousands of lines.
pub(super) fn last_words(error: &anyhow::Error) -> String {
    let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref() else {
        return String::new();
    };
    let log = verifier_log.to_string();
    let said: Vec<&str> = log
        .lines()
        .filter(|line| !line.is_empty() && !STATISTICS.iter().any(|word| line.starts_with(word)))
        .collect();
    match said[said.len().saturating_sub(LOG_LINES)..].join(" | ") {
        none if none.is_empty() => none,
        last => format!(" ({last})"),
    }
}

/// How the verifier's lines begin that say only what it took.
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

/// How many of the verifier's last lines are shown.
const LOG_LINES: usize = 2;
