//! Samples of what the kernel does for the threads that are followed: a statistic of time.
//!
//! The software event `cpu-clock` (`cpu_clock_event_start` in kernel/events/core.c) is a timer of
//! high resolution on each CPU. Its interrupt comes anywhere, in the midst of our other programs too:
//! what they work on is only read here. It does not come where interrupts are off; that time is put
//! where they are switched on again.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_stack,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
    programs::PerfEventContext,
};
use mmtrace_common::{CALIBRATION_PROCESS, Lost, SAMPLE_SLOTS, SampleKey};

use crate::{
    account::BPF_NOEXIST,
    fault,
    maps::{OTHER, atomic_add, lose},
    thread,
};

/// How often each sample was taken. User space makes it as small as can be if none are.
#[map]
static SAMPLES: HashMap<SampleKey, u64> = HashMap::with_max_entries(SAMPLE_SLOTS, 0);

/// Where a sample is put together: it is too large for the stack. The timer's interrupt does not
/// interrupt itself.
#[map]
static SAMPLE: PerCpuArray<SampleKey> = PerCpuArray::with_max_entries(1, 0);

/// How many samples were taken.
#[map]
static SAMPLED: Array<u64> = Array::with_max_entries(1, 0);

/// The timer has interrupted something.
pub(crate) fn taken(ctx: &PerfEventContext) {
    let Some(thread) = thread::current() else {
        return;
    };
    if thread.process == CALIBRATION_PROCESS {
        return;
    }
    if let Some(samples) = SAMPLED.get_ptr_mut(0) {
        // SAFETY: a valid entry; other CPUs add to it too, hence atomically.
        unsafe { atomic_add(samples, 1) };
    }
    let Some(key) = SAMPLE.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: an entry of this CPU's own, which nothing else uses while this runs.
    let key = unsafe { &mut *key };
    key.path = OTHER;
    key.user = u32::from(in_user_mode(ctx));
    key.frames = [0; _];
    if key.user == 0 {
        key.path = fault::mmtrace_path_now(thread.tid);
        // SAFETY: the helper writes to the frames at most, and knows the context of this type of
        // program.
        let bytes = unsafe {
            bpf_get_stack(
                ctx.as_ptr(),
                (&raw mut key.frames).cast(),
                size_of_val(&key.frames) as u32,
                0,
            )
        };
        if bytes <= 0 {
            lose(Lost::KernelSamples);
            return;
        }
    }
    count(key);
}

#[inline(always)]
fn count(key: &SampleKey) {
    if let Some(count) = SAMPLES.get_ptr_mut(key) {
        // SAFETY: a valid entry; other CPUs add to it too, hence atomically.
        unsafe { atomic_add(count, 1) };
    } else if SAMPLES.insert(key, 1, BPF_NOEXIST).is_err() {
        // Full, or another CPU was first.
        match SAMPLES.get_ptr_mut(key) {
            // SAFETY: as above.
            Some(count) => unsafe { atomic_add(count, 1) },
            None => lose(Lost::KernelSamples),
        }
    }
}

/// Whether the interrupted instruction was the program's own.
#[inline(always)]
fn in_user_mode(ctx: &PerfEventContext) -> bool {
    // SAFETY: the context begins with the registers, which a program of this type may read.
    let registers = unsafe { &(*ctx.ctx).regs };
    // The ring in the code segment's selector; the exception level in the saved state.
    #[cfg(not(bpf_target_arch = "aarch64"))]
    return registers.cs & 3 != 0;
    #[cfg(bpf_target_arch = "aarch64")]
    return registers.pstate & 0xf == 0;
}
