//! The page cache's filling, block requests, and waiting for them.

use aya_ebpf::{
    EbpfContext,
    programs::{RawTracePointContext, TracePointContext},
};
use mmtrace_common::{
    FileKey, Program, Thread,
    thread::{RAN_BIO_QUEUE, RAN_CACHE_FILLED},
};

use crate::{
    account::{advance, row},
    ahead, fault, file, heat,
    kernel::{Plain, kernel, pointer, read},
    maps::{BLOCK_DEVICES, DIRECT, OTHER, SWAP},
    sampling, stack,
    thread::{self, Charge, charge, now_ns},
};

/// `mm_filemap_add_to_page_cache`: a folio (5.16 on; before, a page) is brought into the page
/// cache. Source: `__filemap_add_folio` in mm/filemap.c; not reached by tmpfs, which keeps its
/// pages by itself. Context: the thread that reads, faults or prefetches.
pub(crate) fn cache_filled(ctx: &RawTracePointContext) {
    let Some(thread) = thread::current_or_worker() else {
        return;
    };
    thread::hit(thread, Program::CacheFilled);
    thread.ran |= RAN_CACHE_FILLED;
    let folio: u64 = ctx.arg(0);
    let inode = file::inode_of_folio(folio);
    let key = file::key_of_inode(inode);
    if file::is_block_device(inode)
        && let Some(device) = BLOCK_DEVICES.get_ptr_mut(0)
    {
        // SAFETY: a valid entry, into which everybody writes the same.
        unsafe { *device = key.device };
    }
    let charge = charge(thread, key, file::has_own_blocks(inode));
    if charge.file == key {
        file::tell_inode(key, inode);
    }
    let index = read(folio, kernel!(folio_index));
    filled(thread, &charge, inode, index, file::folio_bytes(folio));
}

/// The same, where the tracepoint's own program was left out: from the event's record, which has no
/// folio. The file is that of the call or fault in progress.
pub(crate) fn cache_filled_event(ctx: &TracePointContext) {
    let Some(thread) = thread::current_or_worker() else {
        return;
    };
    thread::hit(thread, Program::CacheFilledEvent);
    if has_run(thread, RAN_CACHE_FILLED) {
        return;
    }
    let key = FileKey {
        inode: in_record(ctx, kernel!(event_cache_inode)),
        device: in_record(ctx, kernel!(event_cache_device)),
        generation: 0,
    };
    let order: u8 = in_record(ctx, kernel!(event_cache_order));
    let metadata = BLOCK_DEVICES.get(0) == Some(&key.device);
    let charge = charge(thread, key, metadata);
    let index = in_record(ctx, kernel!(event_cache_index));
    let bytes = (1 << kernel!(page_shift)) << (order & 31);
    filled(thread, &charge, 0, index, bytes);
}

/// Whether the program of a raw tracepoint has counted what its event tells now.
#[inline(always)]
fn has_run(thread: &mut Thread, which: u32) -> bool {
    let has_run = thread.ran & which != 0;
    thread.ran &= !which;
    has_run
}

/// A field of an event's record.
#[inline(always)]
pub(crate) fn in_record<T: Plain>(ctx: &TracePointContext, offset: u32) -> T {
    read(ctx.as_ptr() as u64, offset)
}

/// `inode` is 0 if it is not known.
#[inline(always)]
fn filled(thread: &mut Thread, charge: &Charge, inode: u64, index: u64, bytes: u64) {
    sampling::differs(thread);
    let ahead = beyond(charge, index, bytes);
    let measures = row(thread, charge.slot, charge.path, charge.file);
    measures.cache_filled_bytes += bytes;
    measures.readahead_bytes += ahead;
    let column = heat::cache_filled(thread, charge.file, inode, index, bytes);
    ahead::filled(thread, charge, index, bytes, column);
    stack::read_ahead(thread, ahead);
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
pub(crate) fn submitted(ctx: &impl EbpfContext, bio: u64, program: Program) {
    let Some(thread) = thread::current_or_worker() else {
        return;
    };
    thread::hit(thread, program);
    thread.ran |= RAN_BIO_QUEUE;
    let operation: u32 = read(bio, kernel!(bio_opf));
    let bytes: u32 = read(bio, kernel!(bio_size));
    if operation & REQ_OP_MASK != 0 || bytes == 0 {
        return;
    }
    if is_stacked() {
        return;
    }
    count(ctx, thread, bio, operation, u64::from(bytes));
}

/// Whether the current thread is inside a stacked driver's submission.
#[inline(always)]
fn is_stacked() -> bool {
    pointer(thread::current_task(), kernel!(task_bio_list)) != 0
}

/// Bytes of a sector, whatever the device's own blocks are.
const SECTOR_SHIFT: u32 = 9;

/// The same, where the tracepoint's own program was left out: from the event's record, which has no
/// bio. The file is that of the call or fault in progress.
pub(crate) fn submitted_event(ctx: &TracePointContext) {
    let Some(thread) = thread::current_or_worker() else {
        return;
    };
    thread::hit(thread, Program::BioQueueEvent);
    if has_run(thread, RAN_BIO_QUEUE) {
        return;
    }
    // As blk_fill_rwbs in kernel/trace/blktrace.c writes them: the operation, then flags.
    let flags: [u8; 8] = in_record(ctx, kernel!(event_bio_flags));
    let sectors: u32 = in_record(ctx, kernel!(event_bio_sectors));
    if flags[0] != b'R' || sectors == 0 || is_stacked() {
        return;
    }
    let direct = thread.call.active != 0 && thread.call.path == DIRECT;
    let marked = flags[1] == b'M' || flags[2] == b'M' || flags[3] == b'M' || flags[4] == b'M';
    let mut charge = charge(thread, FileKey::default(), marked && !direct);
    // What is read in a fault on no file is anonymous memory.
    if thread.fault.active != 0 && charge.path == OTHER {
        charge.path = SWAP;
    }
    submitted_for(ctx, thread, &charge, u64::from(sectors) << SECTOR_SHIFT);
}

#[inline(always)]
fn submitted_for(ctx: &impl EbpfContext, thread: &mut Thread, charge: &Charge, bytes: u64) {
    advance(thread, now_ns());
    let measures = row(thread, charge.slot, charge.path, charge.file);
    measures.disk_reads += 1;
    measures.disk_read_bytes += bytes;
    stack::submitted(ctx.as_ptr(), thread, charge.path, bytes);
}

#[inline(always)]
fn count(ctx: &impl EbpfContext, thread: &mut Thread, bio: u64, operation: u32, bytes: u64) {
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
    // A file system's own blocks: marked by it, in its device's page cache, or in a tree of its own.
    let meta_bit = 1u32 << (kernel!(req_meta) & 31);
    let metadata = operation & meta_bit != 0 || file::has_own_blocks(inode);
    let mut charge = charge(thread, key, metadata);
    // Of a request of which nothing is known: its buffer, as far as can be told.
    let buffer = thread.fault.active == 0 && (thread.call.active == 0 || thread.call.path == OTHER);
    if anonymous && !direct && !buffer {
        charge.path = SWAP;
        charge.file = key;
    }
    if charge.file == key {
        file::tell_inode(key, inode);
    }
    submitted_for(ctx, thread, &charge, bytes);
}

/// `sched_switch`: a thread that waits for the disk has `task_struct.in_iowait` set, when it goes
/// and still when it comes back (`io_schedule` in kernel/sched/core.c).
pub(crate) fn switched(ctx: &RawTracePointContext) {
    let leaves: u64 = ctx.arg(1);
    let comes: u64 = ctx.arg(2);
    // The thread that leaves is still the current one, whose memory can be looked at.
    if waits_for_disk(leaves)
        && let Some(thread) = thread::current_or_worker()
    {
        thread::hit(thread, Program::Switch);
        fault::settle(thread);
        if thread.fault.active != 0 {
            fault::resolve(thread);
        }
        thread.wait_started_ns = now_ns();
        sampling::differs_from(thread, thread.wait_started_ns);
        stack::wait_begins(ctx.as_ptr(), thread);
    }
    if waits_for_disk(comes)
        && let Some(thread) = thread_of(comes)
    {
        thread::hit(thread, Program::Switch);
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
    let now_ns = now_ns();
    let time_ns = now_ns - thread.wait_started_ns;
    advance(thread, now_ns);
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
    stack::waited(thread, path, time_ns);
}
