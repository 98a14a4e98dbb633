//! Which threads are followed.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf, bpf_ktime_get_ns,
    bpf_task_pt_regs,
};
use mmtrace_common::{FileKey, Lost, Program, THREAD_SLOTS, Thread};

use crate::{
    account::{BPF_NOEXIST, Slot},
    fault,
    kernel::{kernel, read},
    maps::{DISPLACED, METADATA, MMAP, OTHER, PREFETCH, SLOTS, THREADS, atomic_add, lose},
    uring,
};

/// The current thread, if it is followed.
#[inline(always)]
pub(crate) fn current() -> Option<&'static mut Thread> {
    by_tid(bpf_get_current_pid_tgid() as u32)
}

/// The current thread, if it is followed or works for a process that is: io_uring makes threads of
/// the process without a `sched_process_fork` (`create_io_thread`, 5.12 on). A worker's call is made
/// the request that it is at.
#[inline(always)]
pub(crate) fn current_or_worker() -> Option<&'static mut Thread> {
    let thread = match current() {
        Some(thread) => thread,
        None => worker()?,
    };
    uring::turn_worker(thread);
    Some(thread)
}

/// The current thread, which is not followed, if io_uring has made it for a process that is.
#[inline(always)]
fn worker() -> Option<&'static mut Thread> {
    let both = bpf_get_current_pid_tgid();
    let (tid, tgid) = (both as u32, (both >> 32) as u32);
    if tid == tgid {
        return None;
    }
    let first = by_tid(tgid)?;
    let (process, image) = (first.process, first.stacks.image);
    follow(tid, tgid, current_task(), process, image);
    let thread = by_tid(tid)?;
    // Whatever the kernel has charged to it, it was for this process.
    thread.faults_before = [0; 2];
    thread.disk_read_bytes_before = 0;
    Some(thread)
}

/// A thread, if it is followed.
#[inline(always)]
pub(crate) fn by_tid(tid: u32) -> Option<&'static mut Thread> {
    // The idle threads, of which there is one for each CPU.
    if tid == 0 {
        return None;
    }
    let home = slot(tid, 0);
    let thread = entry(home)?;
    if thread.tid == tid {
        return Some(thread);
    }
    if DISPLACED.get(home) == Some(&0) {
        return None;
    }
    let thread = entry(mmtrace_displaced(tid))?;
    (thread.tid == tid).then_some(thread)
}

#[inline(always)]
fn entry(slot: u32) -> Option<&'static mut Thread> {
    let thread = THREADS.get_ptr_mut(slot)?;
    // SAFETY: entries of an array are always there. Only the thread itself works on its entry; the
    // programs that look up another's, at fork, switch and free, run when that one does not. One of
    // ours interrupts another only where it reads user memory that is not there: page_fault_kernel
    // then changes `fault`, which is reset after.
    Some(unsafe { &mut *thread })
}

/// How many entries a tid leads to.
const PROBES: u32 = 16;
/// How far apart they are: odd, and far from the next tids' own.
const STRIDE: u32 = 4_099;

/// One of the entries that a tid leads to.
#[inline(always)]
fn slot(tid: u32, probe: u32) -> u32 {
    (tid + probe * STRIDE) & (THREAD_SLOTS - 1)
}

/// The entry of a thread that has not got its first; one that is not the thread's if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_displaced(tid: u32) -> u32 {
    for probe in 1..PROBES {
        let slot = slot(tid, probe);
        if entry(slot).is_some_and(|thread| thread.tid == tid) {
            return slot;
        }
    }
    slot(tid, 0)
}

/// An entry for a thread that has none, to be written whole.
#[inline(always)]
pub(crate) fn add(tid: u32) -> Option<&'static mut Thread> {
    let slot = mmtrace_claim(tid);
    if slot >= THREAD_SLOTS {
        lose(Lost::Threads);
        return None;
    }
    entry(slot)
}

/// Takes an entry for a thread; [`THREAD_SLOTS`] if all that it may have are taken.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_claim(tid: u32) -> u32 {
    for probe in 0..PROBES {
        let slot = slot(tid, probe);
        if SLOTS.insert(slot, tid, BPF_NOEXIST).is_ok() {
            if probe > 0 {
                count_displaced(tid, 1);
            }
            return slot;
        }
    }
    THREAD_SLOTS
}

/// Gives a thread's entry back.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_remove(tid: u32) -> u32 {
    let home = slot(tid, 0);
    let mut at = home;
    if entry(home).is_none_or(|thread| thread.tid != tid) {
        at = mmtrace_displaced(tid);
    }
    if let Some(thread) = entry(at)
        && thread.tid == tid
    {
        thread.tid = 0;
        if at != home {
            count_displaced(tid, u64::MAX);
        }
        let _gone = SLOTS.remove(at);
    }
    0
}

/// Adds to the number of threads that have not got their first entry: `u64::MAX` takes one away.
#[inline(always)]
fn count_displaced(tid: u32, more: u64) {
    if let Some(count) = DISPLACED.get_ptr_mut(slot(tid, 0)) {
        // SAFETY: a valid entry.
        unsafe { atomic_add(count, more) };
    }
}

/// Counts that a program runs for a thread.
#[inline(always)]
pub(crate) fn hit(thread: &mut Thread, program: Program) {
    thread.hits.0[program as usize] += 1;
}

/// Calls a function that works on the same thread's entry, which it finds by itself (see
/// `account::mmtrace_flush` for why it is not passed). The compiler takes a `&mut` for the only way
/// to what it points to: it must be told that the entry is read and written here.
#[inline(always)]
pub(crate) fn elsewhere<R>(thread: &mut Thread, function: impl FnOnce(u32) -> R) -> R {
    let tid = thread.tid;
    in_memory(thread);
    let result = function(tid);
    in_memory(thread);
    result
}

/// Makes the compiler write what it holds of the entry in registers, and forget it.
#[inline(always)]
fn in_memory(thread: &mut Thread) {
    // One instruction that does nothing: none at all would leave two source lines at one place,
    // which the kernel refuses.
    // SAFETY: changes nothing; as far as the compiler knows, it changes what is pointed to.
    unsafe {
        core::arch::asm!("{thread} = {thread}", thread = in(reg) &raw mut *thread, options(nostack));
    }
}

/// Now, on the kernel's monotonic clock.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// How many words of a thread's entry are written at a time. The compiler makes up to 128 stores of
/// one write; of more it makes a call of a loop over bytes, each of which the verifier looks at.
const PART: usize = 100;

/// Makes an entry what [`Thread::default`] is: zeros.
fn clear(thread: &mut Thread) {
    let words = (&raw mut *thread).cast::<u64>();
    for first in (0..WORDS).step_by(PART) {
        // SAFETY: inside the entry, which is plain numbers, for which zeros are a value.
        unsafe { words.add(first).write_bytes(0, PART.min(WORDS - first)) };
        in_memory(thread);
    }
}

/// Copies one thread's entry to another's.
pub(crate) fn copy(from: &mut Thread, to: &mut Thread) {
    let source = (&raw const *from).cast::<u64>();
    let target = (&raw mut *to).cast::<u64>();
    for first in (0..WORDS).step_by(PART) {
        let count = PART.min(WORDS - first);
        // SAFETY: inside both entries, which are two, of plain numbers.
        unsafe {
            target
                .add(first)
                .copy_from_nonoverlapping(source.add(first), count)
        };
        in_memory(to);
    }
}

const WORDS: usize = size_of::<Thread>() / size_of::<u64>();

/// Starts following a thread, which runs that image of its process.
pub(crate) fn follow(tid: u32, tgid: u32, task: u64, process: u64, image: u32) {
    // One that a thread before it has left: the kernel has freed that one, or its end was missed.
    let found = by_tid(tid);
    let Some(thread) = found.or_else(|| add(tid)) else {
        return;
    };
    clear(thread);
    thread.tid = tid;
    thread.process = process;
    thread.task = task;
    thread.tgid = tgid;
    thread.io_worker = u32::from(is_io_worker(task));
    thread.stacks.image = image;
    thread.fd.fd = -1;
    thread.faults_before = fault_counters(task);
    thread.disk_read_bytes_before = read(task, kernel!(task_read_bytes));
}

/// `PF_IO_WORKER` (include/linux/sched.h).
const IO_WORKER: u32 = 0x10;

/// Whether a thread is one of those that the kernel makes for io_uring. A worker that ends gives up
/// this or its `io_worker` before that is freed (`io_worker_exit` in io_uring/io-wq.c).
#[inline(always)]
pub(crate) fn is_io_worker(task: u64) -> bool {
    read::<u32>(task, kernel!(task_flags)) & IO_WORKER != 0
}

/// `task_struct.min_flt` and `maj_flt`: faults as the kernel charges them to the thread.
#[inline(always)]
pub(crate) fn fault_counters(task: u64) -> [u64; 2] {
    read(task, kernel!(task_min_flt))
}

/// The current `task_struct`.
#[inline(always)]
pub(crate) fn current_task() -> u64 {
    // SAFETY: no arguments; the current task always exists.
    unsafe { bpf_get_current_task() }
}

/// The address of the current thread's registers in user mode (5.15 on).
pub(crate) fn user_registers() -> *const u8 {
    // SAFETY: the current task always exists.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8 }
}

/// To which path and file work belongs that is done now, by or for a thread.
pub(crate) struct Charge {
    pub(crate) slot: Slot,
    pub(crate) path: u32,
    pub(crate) file: FileKey,
    /// The pages asked for, first and last.
    pub(crate) wanted: [u64; 2],
}

/// To what the thread's present work belongs, if it concerns `inode` (0: none is known).
#[inline(always)]
pub(crate) fn charge(thread: &mut Thread, inode: FileKey, metadata: bool) -> Charge {
    fault::settle(thread);
    if thread.fault.active != 0 {
        fault::resolve(thread);
        // What populates a mapping asks for more than the page of the moment.
        let call = &thread.call;
        let populates = call.active != 0 && (call.path == MMAP || call.path == PREFETCH);
        let wanted = if populates {
            wanted_pages(thread)
        } else {
            [thread.fault.page, thread.fault.page]
        };
        let fault = &thread.fault;
        return Charge {
            slot: Slot::Fault,
            path: if metadata { METADATA } else { fault.path },
            file: if metadata { inode } else { fault.file },
            wanted,
        };
    }
    let call = &thread.call;
    if call.active == 0 {
        return Charge {
            slot: Slot::Call,
            path: if metadata { METADATA } else { OTHER },
            file: inode,
            wanted: [u64::MAX; 2],
        };
    }
    if metadata && !same_file(&call.file, &inode) {
        return Charge {
            slot: Slot::Call,
            path: METADATA,
            file: inode,
            wanted: [u64::MAX; 2],
        };
    }
    let file = if !crate::file::is_none(&call.file) {
        call.file
    } else {
        inode
    };
    Charge {
        slot: Slot::Call,
        path: call.path,
        file,
        wanted: wanted_pages(thread),
    }
}

#[inline(always)]
pub(crate) fn same_file(one: &FileKey, other: &FileKey) -> bool {
    one.inode == other.inode && one.device == other.device && one.generation == other.generation
}

/// The pages that the call in progress asks for.
fn wanted_pages(thread: &Thread) -> [u64; 2] {
    let call = &thread.call;
    let start = if call.offset == u64::MAX {
        if call.file_pointer == 0 {
            u64::MAX
        } else {
            read(call.file_pointer, kernel!(file_pos))
        }
    } else {
        call.offset
    };
    if start == u64::MAX || call.size_bytes == 0 {
        return [u64::MAX; 2];
    }
    let shift = kernel!(page_shift);
    [start >> shift, (start + call.size_bytes - 1) >> shift]
}
