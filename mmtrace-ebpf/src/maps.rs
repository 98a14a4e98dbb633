//! What the programs share with user space and with each other.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::generated::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use mmtrace_common::{
    CallSpec, FileKey, Lost, Path, Program, Request, RequestKey, RowKey, STRETCH_SLOTS, StretchKey,
    THREAD_SLOTS, Thread, Truth, WatchedCalls, path::Measures,
};

/// Threads followed. A thread has one of the few entries that its tid leads to: an array is looked
/// up in without a call, in a hash map it takes several.
#[map]
pub(crate) static THREADS: Array<Thread> = Array::with_max_entries(THREAD_SLOTS, 0);

/// Who has which entry of [`THREADS`]: of those that want one, on several CPUs, one gets it.
#[map]
pub(crate) static SLOTS: HashMap<u32, u32> = HashMap::with_max_entries(THREAD_SLOTS, 0);

/// For each entry of [`THREADS`], how many threads have another one because it was taken.
#[map]
pub(crate) static DISPLACED: Array<u64> = Array::with_max_entries(THREAD_SLOTS, 0);

/// How often each program ran, for threads that have ended.
#[map]
pub(crate) static HITS: Array<u64> = Array::with_max_entries(Program::ALL.len() as u32, 0);

/// What was counted.
#[map]
pub(crate) static ROWS: HashMap<RowKey, Measures> = HashMap::with_max_entries(65_536, 0);

/// The rows' sums over time.
#[map]
pub(crate) static TIMELINE: HashMap<StretchKey, Measures> =
    HashMap::with_max_entries(STRETCH_SLOTS, 0);

/// When the target was about to execute its program: the timeline begins there.
#[map]
pub(crate) static STARTED_NS: Array<u64> = Array::with_max_entries(1, 0);

/// Requests of aio and io_uring that have not completed.
#[map]
pub(crate) static REQUESTS: HashMap<RequestKey, Request> = HashMap::with_max_entries(16_384, 0);

/// The kernel's own counters of each process's ended threads.
#[map]
pub(crate) static TRUTHS: HashMap<u64, Truth> = HashMap::with_max_entries(32_768, 0);

/// Files that were told: 1 with their own name only, 2 with their path as the process sees it.
#[map]
pub(crate) static NAMED: HashMap<FileKey, u32> = HashMap::with_max_entries(65_536, 0);

/// From the inode that a mapping has to the one that its descriptor had: overlayfs maps the file
/// below it, whose inode nobody outside knows.
#[map]
pub(crate) static ALIASES: HashMap<FileKey, FileKey> = HashMap::with_max_entries(16_384, 0);

/// What each system call is, by its number.
#[map]
pub(crate) static CALLS: Array<CallSpec> = Array::with_max_entries(512, 0);

/// Generations of each process's descriptors and mappings, by the low bits of its tgid: what a
/// thread remembers of one holds while the generation is the same. Two processes that share an
/// entry only forget too often.
#[map]
pub(crate) static GENERATIONS: Array<Generations> = Array::with_max_entries(PROCESS_SLOTS, 0);

/// Entries of [`GENERATIONS`]: a power of two.
pub(crate) const PROCESS_SLOTS: u32 = 65_536;

/// See [`GENERATIONS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Generations {
    pub(crate) fds: u32,
    pub(crate) mappings: u32,
    /// Of mappings of code.
    pub(crate) code: u32,
}

/// `s_dev` of the file system that block devices' inodes are on, once one was seen.
#[map]
pub(crate) static BLOCK_DEVICES: Array<u32> = Array::with_max_entries(1, 0);

/// The window of watching: even while copies are watched, odd while they are not. The breakpoints are
/// turned on before it becomes even, and off after it has become odd.
#[map]
pub(crate) static WATCHED: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What was seen of each path's calls that began and ended in the same window: for each CPU an entry
/// of each path. User space, which reads it meanwhile, makes room for all CPUs.
#[map]
static WATCHED_CALLS: Array<WatchedCalls> =
    Array::with_max_entries(Path::ALL.len() as u32, BPF_F_MMAPABLE);

/// The current CPU's entry of [`WATCHED_CALLS`] for a path.
#[inline(always)]
pub(crate) fn watched_calls(path: u32) -> Option<*mut WatchedCalls> {
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    WATCHED_CALLS.get_ptr_mut(cpu * Path::ALL.len() as u32 + path)
}

/// What was lost, by [`Lost`].
#[map]
pub(crate) static LOST: Array<u64> = Array::with_max_entries(Lost::ALL.len() as u32, 0);

/// Starts and ends of processes, names of files, mapped code, and stacks that user space is to unwind.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// The size of [`EVENTS`].
pub(crate) const EVENTS_BYTES: u32 = 8 << 20;

/// Counts a loss.
pub(crate) fn lose(what: Lost) {
    lose_many(what, 1);
}

/// Counts losses.
pub(crate) fn lose_many(what: Lost, count: u64) {
    if let Some(sum) = LOST.get_ptr_mut(what as u32) {
        // SAFETY: a valid entry; other CPUs add to it too, hence atomically.
        unsafe { atomic_add(sum, count) };
    }
}

/// Counts that a program runs for a thread that is followed, in whatever context.
#[inline(always)]
pub(crate) fn hit(program: Program) {
    if let Some(count) = HITS.get_ptr_mut(program as u32) {
        // SAFETY: a valid entry; other CPUs add to it too, hence atomically.
        unsafe { atomic_add(count, 1) };
    }
}

/// Adds to a number that other CPUs add to as well.
///
/// # Safety
///
/// `target` must point to a live map value.
#[inline(always)]
pub(crate) unsafe fn atomic_add(target: *mut u64, amount: u64) {
    // The form without the old value, which every kernel has; the one with it, which the compiler
    // would emit for an atomic of the core library, needs 5.12.
    // SAFETY: `target` is valid by this function's contract, and aligned as map values are.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({target} + 0) += {amount}",
            target = in(reg) target,
            amount = in(reg) amount,
            options(nostack),
        );
    }
}

/// [`atomic_add`] of each of these fields of some work, where there is any, to the same field of sums.
///
/// Needs `unsafe`: the sums must be a live map value.
macro_rules! add_each {
    ($sums:ident, $work:ident, $($field:ident)*) => {
        $(if $work.$field != 0 {
            $crate::maps::atomic_add(&raw mut (*$sums).$field, $work.$field);
        })*
    };
}
pub(crate) use add_each;

/// The generations of a process.
#[inline(always)]
pub(crate) fn generations(tgid: u32) -> Option<&'static mut Generations> {
    let entry = GENERATIONS.get_ptr_mut(tgid & (PROCESS_SLOTS - 1))?;
    // SAFETY: array entries live as long as the map. Lost updates between CPUs are harmless: both
    // change the generation.
    Some(unsafe { &mut *entry })
}

/// The paths as the numbers that keys hold.
pub(crate) const READ: u32 = Path::Read as u32;
pub(crate) const MMAP: u32 = Path::Mmap as u32;
pub(crate) const EXEC: u32 = Path::Exec as u32;
pub(crate) const WRITE: u32 = Path::Write as u32;
pub(crate) const DIRECT: u32 = Path::Direct as u32;
pub(crate) const IPC: u32 = Path::Ipc as u32;
pub(crate) const SPLICE: u32 = Path::Splice as u32;
pub(crate) const WRITEBACK: u32 = Path::Writeback as u32;
pub(crate) const PREFETCH: u32 = Path::Prefetch as u32;
pub(crate) const SWAP: u32 = Path::Swap as u32;
pub(crate) const METADATA: u32 = Path::Metadata as u32;
pub(crate) const OTHER: u32 = Path::Other as u32;
