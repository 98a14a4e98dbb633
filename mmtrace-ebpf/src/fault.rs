//! Page faults: how many, on what, and what they made accessible.
//!
//! Two ways to count them, by what the kernel allows:
//!
//! - `handle_mm_fault`'s entry has the mapping and the flags. Its return is not relied on: the
//!   function sleeps, a kretprobe misses what exceeds its pool, and a trampoline's program is not
//!   entered while another task, preempted, is inside it on the same CPU (5.15 on; seen on 7.x).
//!   The end is told by the software events `page-faults-min` and `-maj`, which the kernel raises
//!   where it charges the fault to the task (`mm_account_fault` in mm/memory.c, 5.9 on), once
//!   however often it was retried. An entry that was missed is made up for by them, too.
//! - Where nothing can be put at functions, `page_fault_user` and `page_fault_kernel` tell that a
//!   fault begins, and the same events that it is done.
//!
//! Faults taken for the kernel's own access to user pages (get_user_pages) raise no event, but are
//! charged: they are found in the task's counters, at the next fault or when the call ends. So are
//! those on a CPU that has no events of ours, since it was offline when they were opened.

use aya_ebpf::{EbpfContext as _, programs::PerfEventContext};
use mmtrace_common::{FileKey, Lost, Program, Thread};

use crate::{
    account::{Slot, advance, row},
    ahead, file, heat,
    kernel::{kernel, pointer},
    mapping,
    maps::{EXEC, MMAP, OTHER, PREFETCH, generations, lose, lose_many},
    sampling, stack,
    thread::{self, current_task, fault_counters, now_ns},
    uring,
};

const VM_EXEC: u64 = 4;

/// A fault begins, and its mapping is not known yet.
pub(crate) fn begin(thread: &mut Thread, address: u64) {
    let fault = &mut thread.fault;
    fault.active = 1;
    fault.resolved = 0;
    fault.address = address;
    fault.flags = 0;
    fault.write_protected = 0;
    fault.started_ns = now_ns();
    sampling::differs_from(thread, thread.fault.started_ns);
}

/// A fault begins on a mapping that is known.
pub(crate) fn begin_on(thread: &mut Thread, vma: u64, address: u64, flags: u32) {
    // One that goes on where it was left has not returned: its time runs on.
    let again = thread.fault.active != 0 && thread.fault.address == address;
    let started_ns = thread.fault.started_ns;
    begin(thread, address);
    if again {
        thread.fault.started_ns = started_ns;
    }
    thread.fault.flags = flags;
    thread.fault.vma = vma;
    let remote = flags & kernel!(fault_flag_remote) != 0;
    if remote || !remembered(thread, address) {
        thread::elsewhere(thread, |tid| mmtrace_remember(tid));
    }
    apply(thread);
    if remote {
        // Another process's memory: its addresses mean nothing in this one.
        thread.mapping.end = 0;
    }
}

/// Finds out what the thread's fault is on, if that is not known yet.
#[inline(always)]
pub(crate) fn resolve(thread: &mut Thread) {
    if thread.fault.resolved == 0 {
        thread::elsewhere(thread, |tid| mmtrace_resolve(tid));
    }
}

/// Finds out what the current thread's fault is on.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_resolve(tid: u32) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let address = thread.fault.address;
    if !remembered(thread, address) {
        let mm = pointer(current_task(), kernel!(task_mm));
        let vma = mapping::mmtrace_find(mm, address);
        if vma == 0 {
            lose(Lost::Mappings);
            thread.fault.resolved = 1;
            thread.fault.path = OTHER;
            thread.fault.file = FileKey::default();
            thread.fault.page = u64::MAX;
            return 0;
        }
        thread.fault.vma = vma;
        thread::elsewhere(thread, |tid| mmtrace_remember(tid));
    }
    apply(thread);
    0
}

/// Whether the mapping that the thread remembers is the one of `address`.
#[inline(always)]
fn remembered(thread: &Thread, address: u64) -> bool {
    // In the midst of an execve, an address may be of the old memory or of the new.
    if thread.call.active != 0 && thread.call.path == EXEC {
        return false;
    }
    let mapping = &thread.mapping;
    address >= mapping.start
        && address < mapping.end
        && generations(thread.tgid).is_some_and(|now| now.mappings == mapping.generation)
}

/// Makes the mapping of the current thread's fault the one that it remembers. (The mapping's
/// address is not passed: a trampoline's argument is a pointer to the verifier, which it lets
/// nobody pass as a number; what comes out of a map is one.)
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_remember(tid: u32) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let vma = thread.fault.vma;
    let generation = generations(thread.tgid).map_or(0, |now| now.mappings);
    let vm_file = pointer(vma, kernel!(vma_file));
    let vm_flags = pointer(vma, kernel!(vma_flags));
    let mapping = &mut thread.mapping;
    mapping.start = pointer(vma, kernel!(vma_start));
    mapping.end = pointer(vma, kernel!(vma_end));
    mapping.first_page = pointer(vma, kernel!(vma_pgoff));
    mapping.generation = generation;
    if vm_file == 0 {
        mapping.path = OTHER;
        mapping.file = FileKey::default();
        return 0;
    }
    let inode = file::inode_of(vm_file);
    mapping.path = if vm_flags & VM_EXEC != 0 { EXEC } else { MMAP };
    let key = file::key_of_inode(inode);
    file::tell_inode(key, inode);
    mapping.file = file::known_as(key);
    mapping.file_bytes = heat::mapped_bytes(inode);
    0
}

/// Takes path, file and page from the remembered mapping.
#[inline(always)]
fn apply(thread: &mut Thread) {
    let mapping = &thread.mapping;
    let fault = &mut thread.fault;
    fault.resolved = 1;
    // Populating by madvise is a prefetch, whichever way the pages come.
    let prefetch = thread.call.active != 0 && thread.call.path == PREFETCH;
    fault.path = if prefetch && mapping.path != OTHER {
        PREFETCH
    } else {
        mapping.path
    };
    fault.file = mapping.file;
    fault.page = if mapping.path == OTHER {
        u64::MAX
    } else {
        ((fault.address - mapping.start) >> kernel!(page_shift)) + mapping.first_page
    };
}

/// Counts the thread's fault, which is done.
pub(crate) fn end(thread: &mut Thread, major: bool) {
    resolve(thread);
    let (path, file) = (thread.fault.path, thread.fault.file);
    let now_ns = now_ns();
    let time_ns = now_ns - thread.fault.started_ns;
    advance(thread, now_ns);
    let timed = thread.fault.active != 0;
    thread.fault.active = 0;
    thread.faults_counted[usize::from(major)] += 1;
    let measures = row(thread, Slot::Fault, path, file);
    if major {
        measures.major_faults += 1;
    } else {
        measures.minor_faults += 1;
    }
    if timed {
        measures.kernel_time_ns += time_ns;
        thread.call.nested_ns += time_ns;
    }
    heat::faulted(thread, 1);
}

/// `page-faults-min` or `-maj`: the kernel has charged a fault to the current thread.
pub(crate) fn charged(ctx: &PerfEventContext, major: bool) {
    // SAFETY: the context of a perf_event program is this structure.
    let address = unsafe { (*ctx.ctx).addr };
    let Some(thread) = thread::current_or_worker() else {
        return;
    };
    let program = if major {
        Program::FaultMajor
    } else {
        Program::FaultMinor
    };
    thread::hit(thread, program);
    if thread.fault.active == 0 {
        begin(thread, address);
    }
    thread.fault.address = address;
    end(thread, major);
    stack::faulted(ctx.as_ptr(), thread, thread.fault.path, major);
}

/// Whether a trampoline's argument is null. The verifier takes it for a pointer that never is; what
/// comes out of a map is a number to it.
#[inline(always)]
pub(crate) fn is_null(thread: &mut Thread, argument: u64) -> bool {
    as_number(thread, argument) == 0
}

/// A trampoline's argument, as a number that may be passed on: see [`is_null`].
#[inline(always)]
pub(crate) fn as_number(thread: &mut Thread, argument: u64) -> u64 {
    // SAFETY: a field of a valid entry; volatile, so that it is written and read indeed.
    unsafe {
        core::ptr::write_volatile(&raw mut thread.fault.registers, argument);
        core::ptr::read_volatile(&raw const thread.fault.registers)
    }
}

/// Counts faults that the kernel charged to the thread without an event: they were taken for its
/// own access to user pages, inside the call in progress.
#[inline(always)]
pub(crate) fn reconcile(thread: &mut Thread) {
    if let Some([minor, major]) = uncounted(thread) {
        count_silent(thread, minor, major);
    }
}

/// As [`reconcile`], where there is room on the stack to look for the mapping of a fault whose end
/// nothing has told.
#[inline(always)]
pub(crate) fn reconcile_and_resolve(thread: &mut Thread) {
    if let Some([minor, major]) = uncounted(thread) {
        if thread.fault.active != 0 {
            resolve(thread);
        }
        count_silent(thread, minor, major);
    }
}

/// What the kernel has charged to the thread and is not counted.
#[inline(always)]
fn uncounted(thread: &Thread) -> Option<[u64; 2]> {
    let [minor, major] = fault_counters(thread.task);
    let minor = minor - thread.faults_before[0] - thread.faults_counted[0];
    let major = major - thread.faults_before[1] - thread.faults_counted[1];
    let some = minor | major != 0 && (minor | major) >> 63 == 0;
    some.then_some([minor, major])
}

#[inline(never)]
fn count_silent(thread: &mut Thread, minor: u64, major: u64) {
    thread.faults_counted[0] += minor;
    thread.faults_counted[1] += major;
    let begun = thread.fault.active != 0;
    if begun && thread.fault.silent == 0 {
        lose_many(Lost::FaultTimes, minor + major);
    }
    if begun && thread.fault.resolved == 0 {
        lose_many(Lost::Mappings, minor + major);
        thread.fault.path = OTHER;
        thread.fault.file = FileKey::default();
    }
    let call = &thread.call;
    // mmap, mlock and madvise say which mapping is populated; any other call's buffers may be
    // anything.
    let populates = call.path == MMAP || call.path == PREFETCH;
    let (path, file) = if begun {
        thread.fault.active = 0;
        heat::faulted(thread, minor + major);
        (thread.fault.path, thread.fault.file)
    } else if call.active != 0 && populates && !crate::file::is_none(&call.file) {
        heat::faulted_somewhere(thread, minor + major);
        (call.path, call.file)
    } else {
        // Its beginning was missed. In an execve it was on the new program's arguments: no file.
        if kernel!(faults_by_entry) != 0 && !(call.active != 0 && call.path == EXEC) {
            lose_many(Lost::Mappings, minor + major);
        }
        (OTHER, FileKey::default())
    };
    let measures = row(thread, Slot::Fault, path, file);
    measures.minor_faults += minor;
    measures.major_faults += major;
}

/// Makes sure that what the kernel charges from now on is for the fault that begins. Inside a call, one
/// of `get_user_pages` may have come before whose beginning was missed: it would be taken for this
/// one's end.
#[inline(always)]
pub(crate) fn settle_before_another(thread: &mut Thread) {
    if thread.fault.active | thread.call.active != 0 {
        reconcile(thread);
    }
}

/// Ends a fault that has begun, if the kernel has charged it by now without that an event told.
/// Called before anything that would be taken for a part of it.
#[inline(always)]
pub(crate) fn settle(thread: &mut Thread) {
    if thread.fault.active != 0 {
        reconcile(thread);
    }
}

/// Forgets a fault that has begun, but for what the kernel has charged.
#[inline(always)]
pub(crate) fn leave(thread: &mut Thread) {
    settle(thread);
    thread.fault.active = 0;
}

/// On which path a thread is now. Changes nothing: what asks may have interrupted a program of ours.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_path_now(tid: u32) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return OTHER;
    };
    let call = &thread.call;
    if !is_in_fault(thread) {
        return uring::path_now(thread);
    }
    let fault = &thread.fault;
    if fault.resolved != 0 {
        return fault.path;
    }
    let path = if remembered(thread, fault.address) {
        thread.mapping.path
    } else {
        let mm = pointer(current_task(), kernel!(task_mm));
        path_of(mapping::mmtrace_find(mm, fault.address))
    };
    let prefetch = call.active != 0 && call.path == PREFETCH;
    if prefetch && path != OTHER {
        PREFETCH
    } else {
        path
    }
}

/// Whether a thread is in a fault, without [settling](settle) that.
#[inline(always)]
fn is_in_fault(thread: &Thread) -> bool {
    if thread.fault.active == 0 {
        return false;
    }
    let [minor, major] = fault_counters(thread.task);
    minor == thread.faults_before[0] + thread.faults_counted[0]
        && major == thread.faults_before[1] + thread.faults_counted[1]
}

/// The path of faults on a mapping; 0: on an address that has none.
#[inline(always)]
fn path_of(vma: u64) -> u32 {
    if vma == 0 || pointer(vma, kernel!(vma_file)) == 0 {
        OTHER
    } else if pointer(vma, kernel!(vma_flags)) & VM_EXEC != 0 {
        EXEC
    } else {
        MMAP
    }
}

/// Pages were made accessible in the current thread's fault, from an address on; 0: around the fault's
/// own, as many as that is aligned to.
pub(crate) fn mapped(program: Program, pages: u64, address: u64) {
    let Some(thread) = thread::current() else {
        return;
    };
    thread::hit(thread, program);
    if thread.fault.active == 0 {
        return;
    }
    resolve(thread);
    let (path, file) = (thread.fault.path, thread.fault.file);
    if crate::file::is_none(&file) {
        return;
    }
    row(thread, Slot::Fault, path, file).mapped_bytes += pages << kernel!(page_shift);
    if ahead::is_followed() {
        let shift = kernel!(page_shift);
        let of_fault = thread.fault.address >> shift;
        let first = if address == 0 {
            of_fault & !(pages - 1)
        } else {
            address >> shift
        };
        // Which may be before the fault's.
        let page = thread.fault.page.wrapping_add(first).wrapping_sub(of_fault);
        ahead::mapped(file, page, pages);
    }
}
