//! Which of many calls and faults are looked at closely, and the time of those that are not.
//!
//! Taking a stack costs as much as a small read, asking the clock twice a seventh of one. So not every
//! call and fault is looked at where many come fast: they are counted off in blocks, and one of each
//! block, taken at random, stands for all of it. A block is as long as makes looking cheap: a single
//! one where they come slowly. What moves many bytes stands for itself only: in the name of others it
//! would outweigh them, and unseen it would be missed.
//!
//! The time of all calls is taken but of one kind: small reads from the page cache, after many of the
//! same descriptor. And of these only the time until one differs from the others: from where it fills
//! the cache, faults or waits for the disk, its time is its own.

use aya_ebpf::{helpers::bpf_get_prandom_u32, macros::map, maps::PerCpuArray};
use mmtrace_common::{
    CALIBRATION_PROCESS, Thread, TimeSamples,
    path::{MOST_SAMPLED_NS, VARIANCE_SHIFT},
};

use crate::{
    account::{Slot, advance},
    maps::{READ, atomic_add},
    thread::now_ns,
};

/// What the times stand on that were not taken of each call.
#[map]
static TIME_SAMPLES: PerCpuArray<TimeSamples> = PerCpuArray::with_max_entries(1, 0);

/// A block is made longer if it took less, shorter if it took more than four times as long.
const BLOCK_NS: u64 = 32_000;
/// A block has at most so many calls or faults, as a shift.
const LONGEST: u32 = 3;

/// How many calls, or faults, the next one stands for: 0, or all of its block if it is the one.
#[inline(always)]
pub(crate) fn stands_for(thread: &mut Thread, of: Slot) -> u64 {
    let of = of as usize;
    let blocks = &mut thread.blocks;
    if blocks.left[of] == 0 {
        let now_ns = now_ns();
        let took_ns = now_ns - blocks.begun_ns[of];
        blocks.begun_ns[of] = now_ns;
        if took_ns < BLOCK_NS && blocks.shift[of] < LONGEST {
            blocks.shift[of] += 1;
        } else if took_ns > 4 * BLOCK_NS && blocks.shift[of] > 0 {
            blocks.shift[of] -= 1;
        }
        blocks.left[of] = 1 << (blocks.shift[of] & 31);
        // SAFETY: no arguments.
        blocks.chosen[of] = unsafe { bpf_get_prandom_u32() } & (blocks.left[of] - 1);
    }
    blocks.left[of] -= 1;
    if blocks.left[of] == blocks.chosen[of] {
        1 << (blocks.shift[of] & 31)
    } else {
        0
    }
}

/// After how many of the same descriptor not each read's time is taken: so many that what is estimated
/// after them cannot be far off the whole.
const ALL_TIMED: u32 = 16_384;
/// What moves more takes so long that looking at it makes it hardly longer.
const SMALL_BYTES: u64 = 16 << 10;

/// Whether what moves so many bytes is one of those that others may stand for.
#[inline(always)]
pub(crate) fn is_small(bytes: u64) -> bool {
    bytes <= SMALL_BYTES
}

/// Whether the time of the call that begins is perhaps not taken. It repeats the last one.
#[inline(always)]
pub(crate) fn is_one_of_many(thread: &mut Thread) -> bool {
    let call = &mut thread.call;
    if call.repeats < ALL_TIMED {
        call.repeats += 1;
        return false;
    }
    call.path == READ && is_small(call.size_bytes) && thread.process != CALIBRATION_PROCESS
}

/// As the time of how many calls that of the next one of many counts: 0 if it is not to be taken.
#[inline(always)]
pub(crate) fn time_counts(stands_for: u64) -> u32 {
    if stands_for != 0
        && let Some(samples) = TIME_SAMPLES.get_ptr_mut(0)
    {
        // SAFETY: this CPU's entry; a thread may take the place of one that is here, hence atomically.
        unsafe {
            atomic_add(&raw mut (*samples).timed, 1);
            atomic_add(&raw mut (*samples).stand_for, stands_for);
        }
    }
    stands_for as u32
}

/// From now on the present call's time is its own, which differs from that of others.
#[inline(always)]
pub(crate) fn differs(thread: &mut Thread) {
    if thread.call.time_counts != 1 {
        differs_from(thread, now_ns());
    }
}

/// As [`differs`], from this time on.
#[inline(always)]
pub(crate) fn differs_from(thread: &mut Thread, now_ns: u64) {
    if thread.call.time_counts != 1 {
        // As if it had begun so much earlier, or only now.
        thread.call.started_ns = now_ns - until(thread, now_ns);
        thread.call.time_counts = 1;
    }
}

/// The time of the present call, which ends, with that of those for which it stands.
#[inline(always)]
pub(crate) fn time_of_call(thread: &mut Thread) -> u64 {
    if thread.call.time_counts == 0 {
        // What comes until the next call is no part of one.
        thread.call.time_counts = 1;
        return 0;
    }
    let now_ns = now_ns();
    advance(thread, now_ns);
    let time_ns = until(thread, now_ns);
    thread.call.time_counts = 1;
    time_ns.saturating_sub(thread.call.nested_ns)
}

/// The present call's time until now, and that of those for which it stands.
#[inline(always)]
fn until(thread: &Thread, now_ns: u64) -> u64 {
    let time_ns = now_ns - thread.call.started_ns;
    let counts = u64::from(thread.call.time_counts);
    if counts > 1 {
        add_variance(time_ns, counts);
    }
    time_ns * counts
}

/// Notes how far the sum may be off for a time that stands for several calls'.
#[inline(always)]
fn add_variance(time_ns: u64, calls: u64) {
    let Some(samples) = TIME_SAMPLES.get_ptr_mut(0) else {
        return;
    };
    let short_ns = time_ns.min(MOST_SAMPLED_NS);
    let variance = ((short_ns * short_ns) >> VARIANCE_SHIFT) * (calls * (calls - 1));
    // SAFETY: as above.
    unsafe { atomic_add(&raw mut (*samples).variance, variance) };
}
