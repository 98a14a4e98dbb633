//! Which threads are followed.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf, bpf_ktime_get_ns,
    bpf_task_pt_regs,
};
use mmtrace_common::{FileKey, Lost, Thread};

use crate::{
    account::Slot,
    fault,
    kernel::{kernel, read},
    maps::{METADATA, MMAP, OTHER, PREFETCH, THREADS, lose},
};

/// The current thread, if it is followed.
#[inline(always)]
pub(crate) fn current() -> Option<&'static mut Thread> {
    by_tid(bpf_get_current_pid_tgid() as u32)
}

/// The current thread, if it is followed or works for a process that is: io_uring makes threads of
/// the process without a `sched_process_fork` (`create_io_thread`, 5.12 on).
#[inline(always)]
pub(crate) fn current_or_worker() -> Option<&'static mut Thread> {
    if let Some(thread) = current() {
        return Some(thread);
    }
    let both = bpf_get_current_pid_tgid();
    let (tid, tgid) = (both as u32, (both >> 32) as u32);
    if tid == tgid {
        return None;
    }
    let process = by_tid(tgid)?.process;
    follow(tid, tgid, current_task(), process);
    by_tid(tid)
}

/// A thread, if it is followed.
#[inline(always)]
pub(crate) fn by_tid(tid: u32) -> Option<&'static mut Thread> {
    let thread = THREADS.get_ptr_mut(tid)?;
    // SAFETY: entries are preallocated and deleted only when their thread is freed. Only the
    // thread itself works on its entry; the programs that look up another's, at fork, switch and
    // free, run when that one does not. One of ours interrupts another only where it reads user
    // memory that is not there: page_fault_kernel then changes `fault`, which is reset after.
    Some(unsafe { &mut *thread })
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

/// Starts following a thread.
pub(crate) fn follow(tid: u32, tgid: u32, task: u64, process: u64) {
    let [minor, major] = fault_counters(task);
    let Some(scratch) = NEW_THREAD.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's own entry. Where the program of `sched_process_fork` can be preempted (7.0
    // on), it is not entered again on this CPU, and the only other one that gets here runs before
    // the target is let go.
    let thread = unsafe { &mut *scratch };
    *thread = Thread::default();
    thread.process = process;
    thread.task = task;
    thread.tgid = tgid;
    thread.tid = tid;
    thread.fd.fd = -1;
    thread.faults_before = [minor, major];
    thread.disk_read_bytes_before = read(task, kernel!(task_read_bytes));
    if THREADS.insert(tid, &*thread, 0).is_err() {
        lose(Lost::Threads);
    }
}

/// Where a new entry is put together: too large for the stack.
#[aya_ebpf::macros::map]
static NEW_THREAD: aya_ebpf::maps::PerCpuArray<Thread> =
    aya_ebpf::maps::PerCpuArray::with_max_entries(1, 0);

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
pub(crate) fn user_registers() -> u64 {
    // SAFETY: the current task always exists.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
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
fn same_file(one: &FileKey, other: &FileKey) -> bool {
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
