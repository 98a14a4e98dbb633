//! Sampling the kernel: the one program that no purpose of the plan needs, attached when asked for.

use anyhow::{Context as _, Result};
use aya::programs::{
    PerfEvent,
    perf_event::{PerfEventConfig, SamplePolicy, SoftwareEvent},
};
use perf_event::{Builder, events::Software};

use super::{Attached, cpus::OnCpus};
use crate::kernel::refusal::{Asked, Refusal};

/// How often each CPU is interrupted in a second if nobody says: a prime near 1,000, so that it does
/// not go in step with what the system does by its own timers.
pub const SAMPLE_HZ: u32 = 997;

/// The program that takes the samples.
pub const PROGRAM: &str = "kernel_sample";

/// The event, as recordings name it.
pub(crate) const EVENT: &str = "cpu-clock";

/// Samples the kernel `hz` times a second on each CPU, as long as `attached` is there.
///
/// # Errors
///
/// If the kernel refuses.
pub fn attach(attached: &mut Attached, hz: u32) -> Result<()> {
    let program: &mut PerfEvent = attached
        .ebpf
        .program_mut(PROGRAM)
        .with_context(|| format!("the kernel programs have no {PROGRAM}"))?
        .try_into()?;
    program.load().map_err(|error| {
        Refusal::of(
            Asked::Program,
            "the kernel refuses the program",
            &error.into(),
        )
    })?;
    let event = PerfEventConfig::Software(SoftwareEvent::CpuClock);
    let policy = SamplePolicy::Frequency(hz.into());
    let on_cpus = OnCpus::attach(program, event, policy).with_context(|| refusal(hz))?;
    attached.on_cpus.push((PROGRAM, on_cpus));
    Ok(())
}

/// Whether the kernel can be sampled here.
///
/// # Errors
///
/// Why not: what the kernel says to the event.
pub fn available() -> Result<()> {
    Builder::new(Software::CPU_CLOCK)
        .any_pid()
        .one_cpu(0)
        .include_kernel()
        .sample_frequency(SAMPLE_HZ.into())
        .build()
        .with_context(|| refusal(SAMPLE_HZ))?;
    Ok(())
}

fn refusal(hz: u32) -> String {
    let most = std::fs::read_to_string("/proc/sys/kernel/perf_event_max_sample_rate")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    match most {
        Some(most) if hz > most => format!(
            "no {hz} samples a second: kernel.perf_event_max_sample_rate is {most} now (the \
             kernel lowers it where samples take long)"
        ),
        _ => format!("the kernel refuses the event {EVENT}"),
    }
}
