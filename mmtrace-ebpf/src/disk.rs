//! The page cache's filling, block requests, and waiting for them.

use aya_ebpf::programs::RawTracePointContext;
use mmtrace_common::Thread;

use crate::{
    account::row,
    fault, file,
    kernel::{kernel, pointer, read},
    maps::{DIRECT, SWAP},
    thread::{self, Charge, charge, now_ns},
};

/// `mm_filemap_add_to_page_cache`: a folio (5.16 on; before, a page) is brought into the page
/// cache. Source: `__filemap_add_folio` in mm/filemap.c; not reached by tmpfs, which keeps its
/// pages by itself. Context: the thread that reads, faults or prefetches.
pub(crate) fn cache_filled(ctx: &RawTracePointContext) {
    let Some(thread) = thread::current_or_worker() else {
        return;
    };
    let folio: u64 = ctx.arg(0);
    let inode = file::inode_of_folio(folio);
    let key = file::key_of_inode(inode);
    let bytes = file::folio_bytes(folio);
    let charge = charge(thread, key, file::is_block_device(inode));
    if charge.file == key {
        file::tell_inode(key, inode);
    }
    let ahead = beyond(&charge, read(folio, kernel!(folio_index)), bytes);
    let measures = row(thread, charge.slot, charge.path, charge.file);
    measures.cache_filled_bytes += bytes;
    measures.readahead_bytes += ahead;
}

/// How much of a folio lies outside of what was asked for. Where that is not known (a prefetch, an
/// `execve`), nothing does.
#[inline(always)]
fn beyond(charge: &Charge, first: u64, bytes: u64) -> u64 {
    let [wanted_first, wanted_last] = charge.wanted;
    if wanted_first == u64::MAX {
        return 0;
    }
    let shift = kernel!(page_shift);
    let last = first + (bytes >> shift) - 1;
    let from = first.max(wanted_first);
    let to = last.min(wanted_last);
    let wanted = if from <= to { to - from + 1 } else { 0 };
    bytes - (wanted << shift)
}

const REQ_OP_MASK: u32 = 0xff;

/// A block request is submitted by the current thread: `submit_bio`, or `block_bio_queue` where
/// that cannot be hooked (it fires once for each bio, in `submit_bio_noacct`: block/blk-core.c).
/// What a stacked driver (dm, md, loop) submits in turn is not counted: in the same thread it does
/// so with `current->bio_list` set, and its worker threads are not followed.
pub(crate) fn submitted(bio: u64) {
    let Some(thread) = thread::current_or_worker() else {
        return;
    };
    let operation: u32 = read(bio, kernel!(bio_opf));
    let bytes: u32 = read(bio, kernel!(bio_size));
    if operation & REQ_OP_MASK != 0 || bytes == 0 {
        return;
    }
    if pointer(thread::current_task(), kernel!(task_bio_list)) != 0 {
        return;
    }
    count(thread, bio, operation, u64::from(bytes));
}

#[inline(always)]
fn count(thread: &mut Thread, bio: u64, operation: u32, bytes: u64) {
    let vecs = pointer(bio, kernel!(bio_vecs));
    let index: u32 = read(bio, kernel!(bio_idx));
    let folio = file::folio_of_page(pointer(vecs + u64::from(index) * 16, 0));
    let mapping = pointer(folio, kernel!(folio_mapping));
    let direct = thread.call.active != 0 && thread.call.path == DIRECT;
    let (inode, anonymous) = if mapping & 1 != 0 {
        (0, true)
    } else {
        (file::inode_of_folio(folio), false)
    };
    let key = file::key_of_inode(inode);
    // A file system's own blocks: marked by it, or in its device's page cache.
    let meta_bit = 1u32 << (kernel!(req_meta) & 31);
    let metadata = (operation & meta_bit != 0 && !direct) || file::is_block_device(inode);
    let mut charge = charge(thread, key, metadata);
    if anonymous && !direct {
        charge.path = SWAP;
        charge.file = key;
    }
    if charge.file == key {
        file::tell_inode(key, inode);
    }
    let measures = row(thread, charge.slot, charge.path, charge.file);
    measures.disk_reads += 1;
    measures.disk_read_bytes += bytes;
}

/// `sched_switch`: a thread that waits for the disk has `task_struct.in_iowait` set, when it goes
/// and still when it comes back (`io_schedule` in kernel/sched/core.c).
pub(crate) fn switched(ctx: &RawTracePointContext) {
    let leaves: u64 = ctx.arg(1);
    let comes: u64 = ctx.arg(2);
    if waits_for_disk(leaves)
        && let Some(thread) = thread_of(leaves)
    {
        // The thread that leaves is still the current one, whose memory can be looked at.
        if thread.fault.active != 0 {
            fault::resolve(thread);
        }
        thread.wait_started_ns = now_ns();
    }
    if waits_for_disk(comes)
        && let Some(thread) = thread_of(comes)
    {
        waited(thread);
    }
}

#[inline(always)]
fn thread_of(task: u64) -> Option<&'static mut Thread> {
    thread::by_tid(read(task, kernel!(task_pid)))
}

#[inline(always)]
fn waits_for_disk(task: u64) -> bool {
    let bits: u8 = read(task, kernel!(task_in_iowait));
    bits & (1 << (kernel!(task_in_iowait_bit) & 7)) != 0
}

#[inline(always)]
fn waited(thread: &mut Thread) {
    if thread.wait_started_ns == 0 {
        return;
    }
    let time_ns = now_ns() - thread.wait_started_ns;
    thread.wait_started_ns = 0;
    let (slot, path, file) = if thread.fault.active != 0 {
        (
            crate::account::Slot::Fault,
            thread.fault.path,
            thread.fault.file,
        )
    } else if thread.call.active != 0 {
        (
            crate::account::Slot::Call,
            thread.call.path,
            thread.call.file,
        )
    } else {
        (
            crate::account::Slot::Call,
            crate::maps::OTHER,
            Default::default(),
        )
    };
    row(thread, slot, path, file).disk_wait_ns += time_ns;
}
