//! Stacks of calls, faults, block requests and waits: who caused the work.
//!
//! Of calls and faults, [`sampling`] chooses whose are taken, and for how many these stand. Block
//! requests and waits are all looked at.
//!
//! Who has called in the program, [`unwind`] finds.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{
        bpf_get_current_task_btf,
        generated::{bpf_get_stack, bpf_get_task_stack},
    },
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use mmtrace_common::{
    CALIBRATION_PROCESS, Lost, Thread,
    stack::{
        COPY_FRAMES, FRAMES_SLOTS, Frames, STACK_BLOCK, STACK_FRAMES, STACK_SLOTS, StackKey,
        StackWork, mix,
    },
};

use crate::{
    account::{BPF_NOEXIST, Slot, entry},
    ahead,
    kernel::kernel,
    maps::{self, atomic_add, lose},
    sampling, thread,
    unwind::{self, NOT_UNWOUND, Walk},
};

/// The different stacks, by a number made of their addresses. User space makes it and the next two
/// as small as can be if no stacks are asked for.
#[map]
static FRAMES: HashMap<u64, Frames> = HashMap::with_max_entries(FRAMES_SLOTS, 0);

/// What was done with each.
#[map]
static STACKS: HashMap<StackKey, StackWork> = HashMap::with_max_entries(STACK_SLOTS, 0);

/// How many stacks were taken.
#[map]
static STACKS_TAKEN: Array<u64> = Array::with_max_entries(1, 0);

/// Where stacks are put together. Programs of one kind do not interrupt each other on a CPU, those
/// of several kinds may.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Walk> = PerCpuArray::with_max_entries(Kind::ALL, 0);

/// In which program a stack is taken.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Call = 0,
    Fault = 1,
    Disk = 2,
    Switch = 3,
    Copy = 4,
}

impl Kind {
    pub(crate) const ALL: u32 = 5;
}

/// Whether stacks are taken of what this thread does.
#[inline(always)]
pub(crate) fn wanted(thread: &Thread) -> bool {
    kernel!(stacks) != 0 && thread.process != CALIBRATION_PROCESS
}

/// A call begins that stands for so many: whether it is looked at is decided before it is known what
/// it does.
#[inline(always)]
pub(crate) fn call_begins(thread: &mut Thread, stands_for: u64) {
    let stacks = &mut thread.stacks;
    stacks.call_stands_for = stands_for;
    stacks.call_copied_bytes = [0; 2];
    stacks.copying_bytes = 0;
}

/// The present call copies here. In the debug exception: nothing but the thread's entry is written.
#[inline(always)]
pub(crate) fn call_copies(ctx: *mut c_void, thread: &mut Thread) {
    if kernel!(stacks) == 0 {
        return;
    }
    let chosen = thread.stacks.call_stands_for != 0 || !sampling::is_small(thread.call.size_bytes);
    let stacks = &mut thread.stacks;
    if !chosen || stacks.copying_bytes != 0 || thread.call.active == 0 {
        return;
    }
    // SAFETY: writes into the field at most; the context is this program's.
    let bytes = unsafe {
        bpf_get_stack(
            ctx.cast(),
            (&raw mut stacks.copying).cast(),
            size_of_val(&stacks.copying) as u32,
            0,
        )
    };
    if bytes > 0 {
        stacks.copying_bytes = bytes as u64;
    }
}

/// A call ends that has returned this.
#[inline(always)]
pub(crate) fn call_ends(ctx: *mut c_void, thread: &mut Thread, path: u32, returned: u64) {
    if !wanted(thread) {
        return;
    }
    let [to_user, from_user] = thread.stacks.call_copied_bytes;
    let moved = returned.max(to_user).max(from_user);
    let times = if sampling::is_small(moved) {
        thread.stacks.call_stands_for
    } else {
        1
    };
    thread.stacks.call_stands_for = 0;
    if times == 0 || moved == 0 {
        return;
    }
    let user = of_program(ctx, thread, Kind::Call);
    let kernel = if thread.stacks.copying_bytes == 0 {
        0
    } else {
        thread::elsewhere(thread, |tid| mmtrace_keep_copying(tid))
    };
    let work = StackWork {
        bytes_returned: returned * times,
        copied_to_user_bytes: to_user * times,
        copied_from_user_bytes: from_user * times,
        ..StackWork::default()
    };
    add(thread, path, user, kernel, work);
}

/// The kernel has charged a fault.
#[inline(always)]
pub(crate) fn faulted(ctx: *mut c_void, thread: &mut Thread, path: u32, major: bool) {
    if !wanted(thread) {
        return;
    }
    let copied = thread.stacks.copied_in_kernel_bytes;
    thread.stacks.copied_in_kernel_bytes = 0;
    // Those that wait for the disk or copy a huge page are rare, and take long.
    let times = if major || !sampling::is_small(copied) {
        1
    } else {
        sampling::stands_for(thread, Slot::Fault)
    };
    if times == 0 {
        return;
    }
    let user = of_program(ctx, thread, Kind::Fault);
    let kernel = of_kernel_in_fault(ctx, thread);
    let work = StackWork {
        copied_in_kernel_bytes: copied * times,
        minor_faults: if major { 0 } else { times },
        major_faults: u64::from(major),
        ..StackWork::default()
    };
    add(thread, path, user, kernel, work);
}

/// The kernel copies a page in the present fault.
#[inline(always)]
pub(crate) fn page_copied(thread: &mut Thread, bytes: u64) {
    if kernel!(stacks) != 0 {
        thread.stacks.copied_in_kernel_bytes += bytes;
    }
}

/// So much was read ahead, for which a block request follows.
#[inline(always)]
pub(crate) fn read_ahead(thread: &mut Thread, bytes: u64) {
    if kernel!(stacks) != 0 {
        thread.stacks.readahead_bytes += bytes;
    }
}

/// A block request is submitted.
#[inline(always)]
pub(crate) fn submitted(ctx: *mut c_void, thread: &mut Thread, path: u32, bytes: u64) {
    if !wanted(thread) {
        return;
    }
    let user = of_program(ctx, thread, Kind::Disk);
    let kernel = of_kernel(ctx, Kind::Disk);
    let work = StackWork {
        disk_read_bytes: bytes,
        readahead_bytes: thread.stacks.readahead_bytes,
        ..StackWork::default()
    };
    thread.stacks.readahead_bytes = 0;
    add(thread, path, user, kernel, work);
    ahead::submitted(thread, user, kernel);
}

/// A page that was read ahead with this stack has been evicted unused: `whose` is a path and, in its
/// upper half, the image.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_unused_page(process: u64, whose: u64, user: u64, kernel: u64) -> u32 {
    let key = StackKey {
        process,
        user,
        kernel,
        path: whose as u32,
        image: (whose >> 32) as u32,
    };
    let page_bytes = 1 << kernel!(page_shift);
    match entry(&STACKS, &key, &NOTHING) {
        // SAFETY: a live entry of STACKS, from which nothing is deleted.
        Some(sums) => unsafe { atomic_add(&raw mut (*sums).readahead_unused_bytes, page_bytes) },
        None => lose(Lost::Stacks),
    }
    0
}

/// The current thread begins to wait for the disk.
#[inline(always)]
pub(crate) fn wait_begins(ctx: *mut c_void, thread: &mut Thread) {
    if wanted(thread) {
        let user = of_program(ctx, thread, Kind::Switch);
        thread.stacks.wait = [user, of_kernel(ctx, Kind::Switch)];
    }
}

/// A thread has waited.
#[inline(always)]
pub(crate) fn waited(thread: &mut Thread, path: u32, time_ns: u64) {
    if !wanted(thread) {
        return;
    }
    let [user, kernel] = thread.stacks.wait;
    let work = StackWork {
        disk_wait_ns: time_ns,
        ..StackWork::default()
    };
    add(thread, path, user, kernel, work);
}

/// Adds work with its stack to the maps.
#[inline(always)]
fn add(thread: &mut Thread, path: u32, user: u64, kernel: u64, work: StackWork) {
    thread.stacks.key = StackKey {
        process: thread.process,
        user,
        kernel,
        path,
        image: thread.stacks.image,
    };
    thread.stacks.work = work;
    thread::elsewhere(thread, |tid| mmtrace_add_stack(tid));
}

/// A new entry of [`STACKS`].
static NOTHING: StackWork = StackWork {
    bytes_returned: 0,
    copied_to_user_bytes: 0,
    copied_from_user_bytes: 0,
    copied_in_kernel_bytes: 0,
    minor_faults: 0,
    major_faults: 0,
    readahead_bytes: 0,
    readahead_unused_bytes: 0,
    disk_read_bytes: 0,
    disk_wait_ns: 0,
};

/// Adds what a thread has put into `stacks`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_add_stack(tid: u32) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    if let Some(taken) = STACKS_TAKEN.get_ptr_mut(0) {
        // SAFETY: a valid entry; other CPUs add to it too, hence atomically.
        unsafe { atomic_add(taken, 1) };
    }
    let (key, work) = (&thread.stacks.key, &thread.stacks.work);
    if STACKS.get_ptr_mut(key).is_none() {
        let _exists = STACKS.insert(key, &NOTHING, BPF_NOEXIST);
    }
    let Some(sums) = STACKS.get_ptr_mut(key) else {
        lose(Lost::Stacks);
        return 0;
    };
    // SAFETY: a live entry of STACKS, from which nothing is deleted.
    unsafe {
        maps::add_each!(
            sums,
            work,
            bytes_returned copied_to_user_bytes copied_from_user_bytes copied_in_kernel_bytes
            minor_faults major_faults readahead_bytes readahead_unused_bytes disk_read_bytes
            disk_wait_ns
        );
    }
    0
}

/// `BPF_F_USER_STACK`.
const USER_STACK: u64 = 1 << 8;

/// The number of the present stack of the program; 0 if there is none.
#[inline(always)]
fn of_program(ctx: *mut c_void, thread: &mut Thread, kind: Kind) -> u64 {
    set_taking(thread, 1);
    let mut number = thread::elsewhere(thread, |tid| unwind::mmtrace_unwind(kind as u32, tid));
    if number == NOT_UNWOUND {
        number = if take(ctx, kind, USER_STACK) {
            mmtrace_keep(kind as u32)
        } else {
            0
        };
    }
    set_taking(thread, 0);
    number
}

#[inline(always)]
fn set_taking(thread: &mut Thread, taking: u64) {
    // SAFETY: a field of a valid entry; volatile, since a program that interrupts this one reads it.
    unsafe { core::ptr::write_volatile(&raw mut thread.stacks.taking, taking) };
}

/// The number of the kernel's present stack; 0 if there is none.
#[inline(always)]
fn of_kernel(ctx: *mut c_void, kind: Kind) -> u64 {
    if take(ctx, kind, 0) {
        mmtrace_keep(kind as u32)
    } else {
        0
    }
}

/// For how many faults in user mode one kernel stack is taken.
const SAME_WAY: u32 = 16;

/// The number of the kernel's present stack in a fault; 0 if there is none.
///
/// The event of a fault that was taken in user mode has the registers that the program had, not the
/// kernel's. What is on the thread's kernel stack then (5.15 on, as [`unwind`] needs it: the helper is of 5.9,
/// its argument to be had from 5.11 on) takes long to walk, and is the same each time: one way leads from
/// such a fault to where it is counted.
#[inline(always)]
fn of_kernel_in_fault(ctx: *mut c_void, thread: &mut Thread) -> u64 {
    if take(ctx, Kind::Fault, 0) {
        return mmtrace_keep(Kind::Fault as u32);
    }
    if kernel!(task_pt_regs) == 0 {
        return 0;
    }
    if thread.stacks.fault_way_left == 0 {
        thread.stacks.fault_way = if take_of_task(Kind::Fault) {
            mmtrace_keep(Kind::Fault as u32)
        } else {
            0
        };
        thread.stacks.fault_way_left = SAME_WAY;
    }
    thread.stacks.fault_way_left -= 1;
    thread.stacks.fault_way
}

/// As [`take`] of the kernel's present stack, of the thread instead of from where the hook is.
#[inline(always)]
fn take_of_task(kind: Kind) -> bool {
    let Some(walk) = SCRATCH.get_ptr_mut(kind as u32) else {
        return false;
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let walk = unsafe { &mut *walk };
    // SAFETY: writes into the field at most; the current task always exists.
    let bytes = unsafe {
        bpf_get_task_stack(
            bpf_get_current_task_btf(),
            (&raw mut walk.frames.addresses).cast(),
            (STACK_FRAMES * size_of::<u64>()) as u32,
            0,
        )
    };
    walk.take(bytes)
}

/// Has the kernel take the present stack, by frame pointers if it is the program's, into the scratch
/// space of this kind of program; says whether there is one.
#[inline(always)]
fn take(ctx: *mut c_void, kind: Kind, flags: u64) -> bool {
    let Some(walk) = SCRATCH.get_ptr_mut(kind as u32) else {
        return false;
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let walk = unsafe { &mut *walk };
    // SAFETY: writes into the field at most; the context is this program's.
    let bytes = unsafe {
        bpf_get_stack(
            ctx.cast(),
            (&raw mut walk.frames.addresses).cast(),
            (STACK_FRAMES * size_of::<u64>()) as u32,
            flags,
        )
    };
    walk.take(bytes)
}

/// Keeps where the current call's copy was made; gives its number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_keep_copying(tid: u32) -> u64 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let Some(walk) = SCRATCH.get_ptr_mut(Kind::Copy as u32) else {
        return 0;
    };
    // SAFETY: this CPU's own entry, for what is done at the end of a call.
    let walk = unsafe { &mut *walk };
    for index in 0..COPY_FRAMES {
        walk.frames.addresses[index] = thread.stacks.copying[index];
    }
    walk.set_known(thread.stacks.copying_bytes / size_of::<u64>() as u64);
    mmtrace_keep(Kind::Copy as u32)
}

/// Keeps the stack that is in the scratch space, if it is new; gives its number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_keep(kind: u32) -> u64 {
    let Some(walk) = SCRATCH.get_ptr_mut(kind) else {
        return 0;
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let walk = unsafe { &mut *walk };
    let frames = &mut walk.frames;
    let count = frames.count as usize;
    if count == 0 || count > STACK_FRAMES {
        return 0;
    }
    for index in 0..STACK_BLOCK {
        frames.addresses[count + index] = 0;
    }
    let mut number = walk.mark ^ (count as u64) << 48;
    for block in 0..STACK_FRAMES.div_ceil(STACK_BLOCK) {
        if block * STACK_BLOCK >= count {
            break;
        }
        number = mmtrace_mix(kind, block as u32, number);
    }
    // 0 stands for none.
    number |= u64::from(number == 0);
    if FRAMES.get_ptr_mut(number).is_none() {
        let new = FRAMES.insert(number, &walk.frames, BPF_NOEXIST).is_ok();
        if new && walk.mark != 0 {
            unwind::mmtrace_tell_stack(kind, number);
        }
        if FRAMES.get_ptr_mut(number).is_none() {
            lose(Lost::Stacks);
            return 0;
        }
    }
    number
}

/// Mixes the addresses of a block into a stack's number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_mix(kind: u32, block: u32, number: u64) -> u64 {
    let Some(walk) = SCRATCH.get_ptr(kind) else {
        return 0;
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let frames = unsafe { &(*walk).frames };
    let first = (block as usize * STACK_BLOCK) & (STACK_FRAMES + STACK_BLOCK - 1);
    let mut number = number;
    for index in 0..STACK_BLOCK {
        number = mix(number, frames.addresses[first + index]);
    }
    number
}
