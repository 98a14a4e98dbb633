//! Copies between the kernel's memory and the program's, at the kernel's copy routines.
//!
//! The routines are built without ftrace and can be probed by neither fentry nor kprobe. A hardware
//! breakpoint on their first instruction sees each call with its arguments. Its program runs in the
//! debug exception, in the thread that copies, whatever that one does at the moment, so it touches
//! nothing but the thread's own entry: what was copied is put into a row when the call ends, or the
//! thread goes on to another request.
//!
//! A breakpoint tells how much is to be moved, which can be more than is: an address may not be
//! mapped, and the copies of buffered writes are tried without taking faults, and again when that
//! failed. So the last copy stays open until it is known how it went: the next one goes on where it
//! stopped, or the call returns less.

use aya_ebpf::bindings::bpf_perf_event_data;
use mmtrace_common::{
    FileKey, Program, Thread,
    call::{FLAG_IOVEC, FLAG_RETURNS_BYTES, WHOLE},
    kernel::{COPIES_ALL, COPIES_BY_ROUTINE, COPIES_NONE},
    thread::{FROM_USER, LastCopy, TO_USER},
};

use crate::{
    account::{Slot, row},
    kernel::{kernel, read},
    maps::{OTHER, WATCHED, watched_calls},
    stack, thread,
};

/// Addresses from here on are the kernel's.
const KERNEL_HALF: u64 = 1 << 63;
/// The upper half of the address of the kernel's own code.
const KERNEL_TEXT: u64 = 0xffff_ffff;
const EFAULT: i64 = 14;

/// The registers at a function's first instruction.
#[cfg(not(bpf_target_arch = "aarch64"))]
mod arch {
    /// Where in `struct pt_regs` the first four arguments are, in words: di, si, dx, cx.
    pub(super) const ARGUMENTS: [usize; 4] = [14, 13, 12, 11];
    /// Where in the same the stack pointer is. The return address lies there.
    pub(super) const STACK: usize = 19;
}
#[cfg(bpf_target_arch = "aarch64")]
mod arch {
    /// Where in `struct user_pt_regs` the first four arguments are, in words.
    pub(super) const ARGUMENTS: [usize; 4] = [0, 1, 2, 3];
    /// Where in the same the stack pointer is. Breakpoints are not used here.
    pub(super) const STACK: usize = 31;
}

/// A word of the registers, with which a perf_event program's context begins.
#[inline(always)]
fn register(data: *mut bpf_perf_event_data, word: usize) -> u64 {
    // SAFETY: the verifier lets programs read the registers in whole words.
    unsafe { core::ptr::read_volatile(data.cast::<u64>().add(word)) }
}

/// `copy_user_enhanced_fast_string(to, from, bytes)`, `copy_user_generic_string` and
/// `copy_user_generic_unrolled`: one of them, by what the CPU has, makes all copies up to 6.3 but
/// those of single numbers (arch/x86/lib/copy_user_64.S, `copy_user_generic`).
#[inline(always)]
pub(crate) fn any(data: *mut bpf_perf_event_data) {
    let to = register(data, arch::ARGUMENTS[0]);
    let from = register(data, arch::ARGUMENTS[1]);
    // An `unsigned int`.
    let size_bytes = register(data, arch::ARGUMENTS[2]) & 0xffff_ffff;
    let stack = register(data, arch::STACK);
    // BPF programs read user memory by the same function: ours do, at each call.
    let caller: u64 = read(stack, 0);
    let low = caller as u32;
    if caller >> 32 == KERNEL_TEXT && low >= kernel!(nofault_start) && low < kernel!(nofault_end) {
        return;
    }
    let Some(thread) = thread::current_or_worker() else {
        return;
    };
    thread::hit(thread, Program::CopyAny);
    if to < KERNEL_HALF && from >= KERNEL_HALF {
        by_address(data, thread, TO_USER, to, from, size_bytes);
    } else if from < KERNEL_HALF && to >= KERNEL_HALF {
        by_address(data, thread, FROM_USER, from, to, size_bytes);
    }
}

/// `_copy_to_user(to, from, bytes)` (lib/usercopy.c).
#[inline(always)]
pub(crate) fn to_user(data: *mut bpf_perf_event_data) {
    let to = register(data, arch::ARGUMENTS[0]);
    let from = register(data, arch::ARGUMENTS[1]);
    let size_bytes = register(data, arch::ARGUMENTS[2]);
    if let Some(thread) = thread::current_or_worker() {
        thread::hit(thread, Program::CopyToUser);
        by_address(data, thread, TO_USER, to, from, size_bytes);
    }
}

/// `_copy_to_iter(address, bytes, iterator)` (lib/iov_iter.c). `copy_page_to_iter` calls it for each
/// page.
#[inline(always)]
pub(crate) fn to_iter(data: *mut bpf_perf_event_data) {
    in_memory(data, Program::CopyToIter, TO_USER);
}

/// `_copy_from_iter(address, bytes, iterator)` (lib/iov_iter.c).
#[inline(always)]
pub(crate) fn from_iter(data: *mut bpf_perf_event_data) {
    in_memory(data, Program::CopyFromIter, FROM_USER);
}

/// `(address, bytes, iterator)`.
#[inline(always)]
fn in_memory(data: *mut bpf_perf_event_data, program: Program, direction: u32) {
    let place = [0, register(data, arch::ARGUMENTS[0])];
    let size_bytes = register(data, arch::ARGUMENTS[1]);
    let iterator = register(data, arch::ARGUMENTS[2]);
    by_iterator(data, program, direction, size_bytes, iterator, place);
}

/// `copy_folio_from_iter_atomic(folio, offset, bytes, iterator)`, on 6.12 and older
/// `copy_page_from_iter_atomic`: buffered writes (lib/iov_iter.c). It does not call
/// `_copy_from_iter`.
#[inline(always)]
pub(crate) fn from_iter_atomic(data: *mut bpf_perf_event_data) {
    let place = [
        register(data, arch::ARGUMENTS[0]),
        register(data, arch::ARGUMENTS[1]),
    ];
    let size_bytes = register(data, arch::ARGUMENTS[2]);
    let iterator = register(data, arch::ARGUMENTS[3]);
    by_iterator(
        data,
        Program::CopyFromIterAtomic,
        FROM_USER,
        size_bytes,
        iterator,
        place,
    );
}

/// A copy begins at these addresses.
#[inline(always)]
fn by_address(
    data: *mut bpf_perf_event_data,
    thread: &mut Thread,
    direction: u32,
    user: u64,
    kernel: u64,
    size_bytes: u64,
) {
    stack::call_copies(data.cast(), thread);
    let last = &thread.copies.last;
    // It goes on, on both sides, where the last one stopped before its end.
    let moved = user.wrapping_sub(last.user);
    if last.iterates == 0
        && last.direction == direction
        && moved < last.size_bytes
        && kernel.wrapping_sub(last.kernel) == moved
    {
        let missing = last.size_bytes - moved;
        take_back(thread, missing);
    }
    count(
        thread,
        LastCopy {
            size_bytes,
            user,
            kernel,
            place: [0; 2],
            direction,
            iterates: 0,
        },
    );
}

/// A copy of an iterator begins, to or from this place (see [`LastCopy`]).
#[inline(always)]
fn by_iterator(
    data: *mut bpf_perf_event_data,
    program: Program,
    direction: u32,
    size_bytes: u64,
    iterator: u64,
    place: [u64; 2],
) {
    let Some(thread) = thread::current_or_worker() else {
        return;
    };
    thread::hit(thread, program);
    let kind = u32::from(read::<u8>(iterator, kernel!(iter_type)));
    // All other kinds are over the kernel's memory, pages or nothing.
    let users = kind == kernel!(iter_ubuf)
        || kind == kernel!(iter_iovec)
        || kind == kernel!(iter_bvec) && thread.call.active != 0 && thread.call.registered != 0;
    if !users {
        return;
    }
    stack::call_copies(data.cast(), thread);
    let left: u64 = read(iterator, kernel!(iter_count));
    let last = &thread.copies.last;
    // A copy that goes on where the last one has stopped does so on the kernel's side too: an
    // iterator at the same address may be that of another message or request of the same call. Only
    // buffered writes go on after a copy that has moved nothing.
    let moved = last.kernel.wrapping_sub(left);
    if last.iterates != 0
        && last.direction == direction
        && last.user == iterator
        && (moved != 0 || place[0] != 0)
        && last.place[0] == place[0]
        && place[1].wrapping_sub(last.place[1]) == moved
        && moved < last.size_bytes
    {
        let missing = last.size_bytes - moved;
        take_back(thread, missing);
    }
    count(
        thread,
        LastCopy {
            size_bytes: if size_bytes < left { size_bytes } else { left },
            user: iterator,
            kernel: left,
            place,
            direction,
            iterates: 1,
        },
    );
}

#[inline(always)]
fn count(thread: &mut Thread, copy: LastCopy) {
    if copy.direction == TO_USER {
        thread.copies.bytes[0] += copy.size_bytes;
    } else {
        thread.copies.bytes[1] += copy.size_bytes;
    }
    thread.copies.last = copy;
}

/// So much of the last copy did not happen; all of it at most.
#[inline(always)]
fn take_back(thread: &mut Thread, missing: u64) {
    let last = &mut thread.copies.last;
    let missing = if missing < last.size_bytes {
        missing
    } else {
        last.size_bytes
    };
    last.size_bytes -= missing;
    if last.direction == TO_USER {
        thread.copies.bytes[0] -= missing;
    } else {
        thread.copies.bytes[1] -= missing;
    }
}

/// The thread's call ends with this result, which may show that the last copy did not happen or not
/// in whole. What was copied is put into the call's row, if all of it was watched: whether it was.
#[inline(always)]
pub(crate) fn call_ends(thread: &mut Thread, returned: i64) -> bool {
    if kernel!(copies) == COPIES_NONE {
        return true;
    }
    if kernel!(copies) == COPIES_BY_ROUTINE
        && thread.call.special == u32::from(WHOLE)
        && thread.call.active != 0
        && returned == 0
    {
        // A message that goes to a queue, all or nothing: `load_msg` (ipc/msgutil.c) copies it by
        // `_copy_from_user`, which is not watched.
        thread.copies.bytes[1] += thread.call.size_bytes;
    }
    if thread.copies.last.size_bytes != 0 {
        thread::elsewhere(thread, |tid| mmtrace_judge_copy(tid, returned));
    }
    put(thread);
    watched(thread.call.window)
}

/// The window of watching that is now.
#[inline(always)]
pub(crate) fn window() -> u64 {
    if kernel!(sampling) == 0 {
        return 0;
    }
    // SAFETY: an entry of an array; volatile, since user space changes it at any time.
    WATCHED
        .get_ptr(0)
        .map_or(1, |window| unsafe { window.read_volatile() })
}

/// Whether all copies have been watched since a window that work began in.
#[inline(always)]
pub(crate) fn watched(began: u64) -> bool {
    began & 1 == 0 && window() == began
}

/// Counts what was returned by work of a path that was watched from its beginning to its end.
#[inline(always)]
pub(crate) fn sample(path: u32, returned_bytes: u64) {
    if kernel!(sampling) != 0
        && let Some(sample) = watched_calls(path)
    {
        // SAFETY: this CPU's entry, which no other program on it is in the middle of changing.
        unsafe { (*sample).returned_bytes += returned_bytes };
    }
}

/// Takes back of the current thread's last copy what the call's result says was not moved.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_judge_copy(tid: u32, returned: i64) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let last = &thread.copies.last;
    let call = &thread.call;
    if returned == -EFAULT {
        let all = last.size_bytes;
        take_back(thread, all);
        return 0;
    }
    let returns_bytes = call.active != 0 && call.flags & u32::from(FLAG_RETURNS_BYTES) != 0;
    if !returns_bytes || returned < 0 {
        return 0;
    }
    // Beside its data a call may copy addresses and sizes, by no iterator; a plain read or write
    // copies none, but the array of a vectored one where that is seen.
    let array = last.direction == FROM_USER
        && call.flags & u32::from(FLAG_IOVEC) != 0
        && kernel!(copies) == COPIES_ALL;
    if last.iterates == 0 && (call.direction != last.direction || array) {
        return 0;
    }
    let copied = if last.direction == TO_USER {
        thread.copies.bytes[0]
    } else {
        thread.copies.bytes[1]
    };
    if copied > returned as u64 {
        take_back(thread, copied - returned as u64);
    }
    0
}

/// Puts what the thread has copied into the row of what it works for, which is about to change.
#[inline(always)]
pub(crate) fn put(thread: &mut Thread) {
    if kernel!(copies) == COPIES_NONE {
        return;
    }
    thread.copies.last.size_bytes = 0;
    if thread.copies.bytes[0] | thread.copies.bytes[1] != 0 {
        thread::elsewhere(thread, |tid| mmtrace_put_copies(tid));
    }
}

/// As [`put`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_put_copies(tid: u32) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let [to_user, from_user] = thread.copies.bytes;
    thread.copies.bytes = [0; 2];
    if kernel!(stacks) != 0 {
        thread.stacks.call_copied_bytes = [to_user, from_user];
    }
    let call = &thread.call;
    if !watched(call.window) {
        return 0;
    }
    let (path, file) = if call.active != 0 {
        (call.path, call.file)
    } else {
        (OTHER, FileKey::default())
    };
    let measures = if path == OTHER {
        row(thread, Slot::Other, path, file)
    } else {
        row(thread, Slot::Call, path, file)
    };
    measures.copied_to_user_bytes += to_user;
    measures.copied_from_user_bytes += from_user;
    if kernel!(sampling) != 0
        && let Some(sample) = watched_calls(path)
    {
        // SAFETY: as in `sample`.
        unsafe {
            (*sample).copied_to_user_bytes += to_user;
            (*sample).copied_from_user_bytes += from_user;
        }
    }
    0
}
