//! `mmtrace doctor`: what this kernel offers and refuses, tried with the code that `run` starts with.

mod backends;
mod diagnosis;
mod system;

use anyhow::{Context as _, Result};

pub use diagnosis::{
    BackendReport, ChoiceReport, Denial, Diagnosis, Fact, Hook, PurposeReport, SCHEMA, State,
    Verdict,
};

use crate::{
    kernel::conditions::{Capabilities, Conditions, lift_memory_limit},
    recording::{Copies, Tool},
    target::Marker,
};

/// Tries what there is to try. Nothing of it stays: programs are detached at once, mounts and
/// events are closed.
///
/// # Errors
///
/// If something that is no matter of the kernel's goes wrong, such as reading random numbers.
pub fn examine() -> Result<Diagnosis> {
    let here = Conditions::here();
    lift_memory_limit();
    let marker = Marker::random().context("cannot read random numbers")?;
    // Where /proc does not tell, the kernel will.
    let backends = if here.capabilities.is_none_or(Capabilities::suffice) {
        backends::tried(&here, marker.nonce)?
    } else {
        backends::untried(&here)
    };
    Ok(Diagnosis {
        tool: Tool {
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        verdict: verdict(&backends),
        kernel: system::kernel(&here),
        process: system::process(&here),
        settings: system::settings(&here),
        perf: system::perf(&here),
        backends,
    })
}

/// What `run` would use, and what that lets it measure.
fn verdict(backends: &[BackendReport]) -> Verdict {
    if let Some(chosen) = backends.iter().find(|report| report.state == State::Chosen) {
        return Verdict {
            can_measure: true,
            backend: Some(chosen.backend),
            copies: chosen.copies,
            text: format!(
                "mmtrace can measure read against mmap here: {} backend, {}.",
                chosen.backend.name(),
                chosen.copies.map_or("copies not found", Copies::says)
            ),
        };
    }
    let untried = backends.iter().any(|report| report.state == State::Untried);
    let text = if untried {
        "mmtrace cannot measure as this user: it takes root, or CAP_BPF and CAP_PERFMON.".to_owned()
    } else {
        "mmtrace cannot measure read against mmap here: every backend is refused.".to_owned()
    };
    Verdict {
        can_measure: false,
        backend: None,
        copies: None,
        text,
    }
}
