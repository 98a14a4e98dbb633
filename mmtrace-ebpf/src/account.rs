//! Adding work to its row.

use aya_ebpf::maps::HashMap;
use mmtrace_common::{
    CALIBRATION_PROCESS, FileKey, Lost, RowKey, StretchKey, Thread,
    path::Measures,
    timeline::{HALF, begins_ns, stretch_at},
};

use crate::{
    maps::{self, ROWS, STARTED_NS, TIMELINE, lose},
    thread,
};

/// Which of a thread's places for pending work is meant.
#[derive(Clone, Copy)]
pub(crate) enum Slot {
    /// Work of system calls.
    Call = 0,
    /// Work of faults.
    Fault = 1,
    /// Copies of calls that are about no data.
    Other = 2,
}

/// The measures of a row, to be added to. Work is kept with the thread until it goes on to another
/// row, so that a loop of calls on one file touches no shared memory.
#[inline(always)]
pub(crate) fn row(thread: &mut Thread, slot: Slot, path: u32, file: FileKey) -> &mut Measures {
    let key = RowKey {
        process: thread.process,
        file,
        path,
        padding: 0,
    };
    if !same(&thread.pending[slot as usize].key, &key) {
        thread::elsewhere(thread, |tid| mmtrace_flush(tid, slot as u32));
        thread.pending[slot as usize].key = key;
    }
    &mut thread.pending[slot as usize].measures
}

/// As [`row`], of the thread's call.
#[inline(always)]
pub(crate) fn row_of_call(thread: &mut Thread) -> &mut Measures {
    if thread.call.in_row == 0 {
        let (path, file) = (thread.call.path, thread.call.file);
        row(thread, Slot::Call, path, file);
        thread.call.in_row = 1;
    }
    &mut thread.pending[Slot::Call as usize].measures
}

#[inline(always)]
fn same(one: &RowKey, other: &RowKey) -> bool {
    one.file.inode == other.file.inode
        && one.path == other.path
        && one.file.device == other.file.device
        && one.file.generation == other.file.generation
        && one.process == other.process
}

/// Puts a thread's pending work into its rows.
pub(crate) fn flush_thread(thread: &mut Thread) {
    thread::elsewhere(thread, |tid| {
        mmtrace_flush(tid, Slot::Call as u32);
        mmtrace_flush(tid, Slot::Fault as u32);
        mmtrace_flush(tid, Slot::Other as u32)
    });
}

/// Adds what is pending in one of a thread's places to its row in the map, which is made if it is
/// not there, and clears the place.
///
/// As every function here that is exported: the verifier checks it once by itself, with any
/// arguments, and not again for each way that leads to a call of it (5.6 on). For that it takes
/// numbers only, and gives one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_flush(tid: u32, slot: u32) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let pending = if slot == 0 {
        thread.call.in_row = 0;
        &mut thread.pending[0]
    } else if slot == 1 {
        &mut thread.pending[1]
    } else {
        &mut thread.pending[2]
    };
    add(&pending.key, thread.stretch, &pending.measures);
    pending.key = RowKey::default();
    pending.measures = Measures::default();
    0
}

/// A new row's value: not on the stack, of which the calls that lead here have 512 bytes in all.
static NOTHING: Measures = Measures {
    operations: 0,
    bytes_requested: 0,
    bytes_returned: 0,
    unwatched_bytes: 0,
    copied_to_user_bytes: 0,
    copied_from_user_bytes: 0,
    copied_in_kernel_bytes: 0,
    minor_faults: 0,
    major_faults: 0,
    mapped_bytes: 0,
    cache_filled_bytes: 0,
    readahead_bytes: 0,
    disk_reads: 0,
    disk_read_bytes: 0,
    kernel_time_ns: 0,
    disk_wait_ns: 0,
};

/// Adds work to its row in the map, and to a stretch of the timeline; each is made if it is not
/// there.
#[inline(always)]
pub(crate) fn add(key: &RowKey, stretch: u32, work: &Measures) {
    if key.process == 0 {
        return;
    }
    match entry(&ROWS, key, &NOTHING) {
        // SAFETY: a live entry of ROWS, from which nothing is deleted.
        Some(row) => unsafe { add_each(row, work) },
        None => lose(Lost::Rows),
    }
    if key.process == CALIBRATION_PROCESS {
        return;
    }
    let key = StretchKey {
        stretch,
        path: key.path,
    };
    match entry(&TIMELINE, &key, &NOTHING) {
        // SAFETY: as above, of TIMELINE.
        Some(sums) => unsafe { add_each(sums, work) },
        None => lose(Lost::Timeline),
    }
}

/// An entry of a map of work, which is made of `nothing` if it is not there and there is room.
#[inline(always)]
pub(crate) fn entry<K, V>(map: &HashMap<K, V>, key: &K, nothing: &V) -> Option<*mut V> {
    if let Some(entry) = map.get_ptr_mut(key) {
        return Some(entry);
    }
    // Another CPU may make it at the same moment: then this insertion fails and the entry is there.
    let _exists = map.insert(key, nothing, BPF_NOEXIST);
    map.get_ptr_mut(key)
}

/// Adds to sums to which other CPUs add as well.
///
/// # Safety
///
/// `sums` must point to a live map value.
#[inline(always)]
unsafe fn add_each(sums: *mut Measures, work: &Measures) {
    // SAFETY: a live map value, by this function's contract.
    unsafe {
        maps::add_each!(
            sums,
            work,
            operations bytes_requested bytes_returned unwatched_bytes copied_to_user_bytes
            copied_from_user_bytes copied_in_kernel_bytes minor_faults major_faults mapped_bytes
            cache_filled_bytes readahead_bytes disk_reads disk_read_bytes kernel_time_ns disk_wait_ns
        );
    }
}

/// The stretch of the timeline that is in progress at a time.
#[inline(always)]
pub(crate) fn stretch(now_ns: u64) -> u32 {
    stretch_at(HALF, now_ns - started_ns())
}

/// When the timeline begins.
#[inline(always)]
pub(crate) fn started_ns() -> u64 {
    STARTED_NS.get(0).copied().unwrap_or(0)
}

/// Goes on to the stretch of the timeline that is now, if the thread's last one has ended.
#[inline(always)]
pub(crate) fn advance(thread: &mut Thread, now_ns: u64) {
    if now_ns >= thread.stretch_ends_ns {
        thread::elsewhere(thread, |tid| mmtrace_advance(tid, now_ns));
    }
}

/// Puts what the thread has done into its stretch of the timeline, and goes on to the present one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_advance(tid: u32, now_ns: u64) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    flush_thread(thread);
    let stretch = stretch(now_ns);
    thread.stretch = stretch;
    thread.stretch_ends_ns = started_ns() + begins_ns(HALF, stretch + 1);
    0
}

/// For a map: insert only what is not there.
pub(crate) const BPF_NOEXIST: u64 = 1;
