//! Stacks of calls, faults, block requests and waits: who caused the work.
//!
//! A stack costs as much as a small read, so not every call and fault is looked at: they are counted
//! off in blocks, and one of each block, taken at random, stands for all of it. A block is as long
//! as makes looking cheap: a single one where they come slowly. Block requests and waits are all
//! looked at.
//!
//! The program's callers are found by frame pointers. A function that keeps none, such as the C
//! library's `read`, hides its caller that way: the chain leads on from the caller's frame. User
//! space looks up in the function's unwinding information how far above the stack pointer its return
//! address is, and puts that into [`CALLERS`]; the place is asked for when it is seen first.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{
        bpf_get_current_task_btf, bpf_get_prandom_u32, bpf_task_pt_regs, generated::bpf_get_stack,
    },
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use mmtrace_common::{
    CALIBRATION_PROCESS, CodeEvent, EventHeader, EventKind, Lost, Thread,
    stack::{
        CALLER_ASKED, CALLER_BY_FRAME_POINTER, CALLERS_SLOTS, COPY_FRAMES, CodePlace, FRAMES_SLOTS,
        Frames, GUESSED, STACK_BLOCK, STACK_FRAMES, STACK_SLOTS, StackKey, StackWork,
    },
};

use crate::{
    account::{BPF_NOEXIST, Slot, entry},
    ahead, file,
    kernel::{kernel, pointer, read, read_user},
    mapping,
    maps::{self, EVENTS, atomic_add, lose},
    thread::{self, now_ns},
};

/// The different stacks, by a number made of their addresses. User space makes it and the next two
/// as small as can be if no stacks are asked for.
#[map]
static FRAMES: HashMap<u64, Frames> = HashMap::with_max_entries(FRAMES_SLOTS, 0);

/// What was done with each.
#[map]
static STACKS: HashMap<StackKey, StackWork> = HashMap::with_max_entries(STACK_SLOTS, 0);

/// Where a function that keeps no frame pointer has its return address, by its instruction.
#[map]
static CALLERS: HashMap<CodePlace, u64> = HashMap::with_max_entries(CALLERS_SLOTS, 0);

/// How many stacks were taken.
#[map]
static STACKS_TAKEN: Array<u64> = Array::with_max_entries(1, 0);

/// Where stacks are put together. Programs of one kind do not interrupt each other on a CPU, those
/// of several kinds may.
#[map]
static SCRATCH: PerCpuArray<Frames> = PerCpuArray::with_max_entries(Kind::ALL, 0);

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
    const ALL: u32 = 5;
}

/// Whether stacks are taken of what this thread does.
#[inline(always)]
fn wanted(thread: &Thread) -> bool {
    kernel!(stacks) != 0 && thread.process != CALIBRATION_PROCESS
}

/// A block is made longer if it took less, shorter if it took more than four times as long.
const BLOCK_NS: u64 = 32_000;
/// A block has at most so many calls or faults, as a shift.
const LONGEST: u32 = 3;

/// How many calls, or faults, the next one stands for: 0, or all of its block if it is the one.
#[inline(always)]
fn stands_for(thread: &mut Thread, of: usize) -> u64 {
    let stacks = &mut thread.stacks;
    if stacks.left[of] == 0 {
        let now_ns = now_ns();
        let took_ns = now_ns - stacks.begun_ns[of];
        stacks.begun_ns[of] = now_ns;
        if took_ns < BLOCK_NS && stacks.shift[of] < LONGEST {
            stacks.shift[of] += 1;
        } else if took_ns > 4 * BLOCK_NS && stacks.shift[of] > 0 {
            stacks.shift[of] -= 1;
        }
        stacks.left[of] = 1 << (stacks.shift[of] & 31);
        // SAFETY: no arguments.
        stacks.chosen[of] = unsafe { bpf_get_prandom_u32() } & (stacks.left[of] - 1);
    }
    stacks.left[of] -= 1;
    if stacks.left[of] == stacks.chosen[of] {
        1 << (stacks.shift[of] & 31)
    } else {
        0
    }
}

/// A call begins, of which it is decided here whether it is looked at: before it is known what it
/// does.
#[inline(always)]
pub(crate) fn call_begins(thread: &mut Thread) {
    if !wanted(thread) {
        return;
    }
    let stands_for = stands_for(thread, Slot::Call as usize);
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
    let stacks = &mut thread.stacks;
    if stacks.call_stands_for == 0 || stacks.copying_bytes != 0 || thread.call.active == 0 {
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
    if !wanted(thread) || thread.stacks.call_stands_for == 0 {
        return;
    }
    let times = thread.stacks.call_stands_for;
    thread.stacks.call_stands_for = 0;
    let [to_user, from_user] = thread.stacks.call_copied_bytes;
    if returned | to_user | from_user == 0 {
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
    // Those that wait for the disk are rare, and take long.
    let times = if major {
        1
    } else {
        stands_for(thread, Slot::Fault as usize)
    };
    if times == 0 {
        return;
    }
    let user = of_program(ctx, thread, Kind::Fault);
    let kernel = of_kernel(ctx, Kind::Fault);
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

/// A page that was read ahead with this stack has been evicted unused.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_unused_page(process: u64, path: u32, user: u64, kernel: u64) -> u32 {
    let key = StackKey {
        process,
        user,
        kernel,
        path,
        padding: 0,
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
        padding: 0,
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
    let number = match take(ctx, kind, USER_STACK) {
        Some(frames) => {
            let instruction = frames.addresses[0];
            frames.caller = thread::elsewhere(thread, |tid| {
                mmtrace_caller(tid, instruction, stack_pointer())
            });
            mmtrace_keep(kind as u32)
        }
        None => 0,
    };
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
    let Some(frames) = take(ctx, kind, 0) else {
        return 0;
    };
    frames.caller = 0;
    mmtrace_keep(kind as u32)
}

/// Takes the present stack into the scratch space of this kind of program.
#[inline(always)]
fn take(ctx: *mut c_void, kind: Kind, flags: u64) -> Option<&'static mut Frames> {
    let frames = SCRATCH.get_ptr_mut(kind as u32)?;
    // SAFETY: this CPU's own entry, for this kind of program.
    let frames = unsafe { &mut *frames };
    // SAFETY: writes into the field at most; the context is this program's.
    let bytes = unsafe {
        bpf_get_stack(
            ctx.cast(),
            (&raw mut frames.addresses).cast(),
            (STACK_FRAMES * size_of::<u64>()) as u32,
            flags,
        )
    };
    if bytes <= 0 {
        return None;
    }
    frames.count = bytes as u64 / size_of::<u64>() as u64;
    Some(frames)
}

/// Keeps where the current call's copy was made; gives its number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_keep_copying(tid: u32) -> u64 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let Some(frames) = SCRATCH.get_ptr_mut(Kind::Copy as u32) else {
        return 0;
    };
    // SAFETY: this CPU's own entry, for what is done at the end of a call.
    let frames = unsafe { &mut *frames };
    for index in 0..COPY_FRAMES {
        frames.addresses[index] = thread.stacks.copying[index];
    }
    frames.count = thread.stacks.copying_bytes / size_of::<u64>() as u64;
    frames.caller = 0;
    mmtrace_keep(Kind::Copy as u32)
}

/// Keeps the stack that is in the scratch space, if it is new; gives its number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_keep(kind: u32) -> u64 {
    let Some(frames) = SCRATCH.get_ptr_mut(kind) else {
        return 0;
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let frames = unsafe { &mut *frames };
    let count = frames.count as usize;
    if count == 0 || count > STACK_FRAMES {
        return 0;
    }
    for index in 0..STACK_BLOCK {
        frames.addresses[count + index] = 0;
    }
    let mut number = frames.caller ^ (count as u64) << 48;
    for block in 0..STACK_FRAMES.div_ceil(STACK_BLOCK) {
        if block * STACK_BLOCK >= count {
            break;
        }
        number = mmtrace_mix(kind, block as u32, number);
    }
    // 0 stands for none.
    number |= u64::from(number == 0);
    if FRAMES.get_ptr_mut(number).is_none() {
        let _exists = FRAMES.insert(number, frames, BPF_NOEXIST);
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
    /// An odd number without a pattern: 2^64 over the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let Some(frames) = SCRATCH.get_ptr_mut(kind) else {
        return 0;
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let frames = unsafe { &*frames };
    let first = (block as usize * STACK_BLOCK) & (STACK_FRAMES + STACK_BLOCK - 1);
    let mut number = number;
    for index in 0..STACK_BLOCK {
        number = (number ^ frames.addresses[first + index]).wrapping_mul(FACTOR);
        number ^= number >> 29;
    }
    number
}

/// The return address of the function at an instruction of the current program, where the frame
/// pointers would leave its caller out; else 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_caller(tid: u32, instruction: u64, stack_pointer: u64) -> u64 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    if thread.stacks.instruction != instruction {
        let at = thread::elsewhere(thread, |_| mmtrace_caller_at(instruction));
        if at == CALLER_ASKED && stack_pointer == 0 {
            return 0;
        }
        if at == CALLER_ASKED {
            // As for most functions that make a system call. User space will know better.
            return user_word(stack_pointer) | GUESSED;
        }
        thread.stacks.instruction = instruction;
        thread.stacks.caller_at = at;
    }
    let at = thread.stacks.caller_at;
    if at == CALLER_BY_FRAME_POINTER || stack_pointer == 0 {
        return 0;
    }
    user_word(stack_pointer + at - 8)
}

/// A word of the current process's memory below 2^63; 0 if it is not there.
#[inline(always)]
fn user_word(address: u64) -> u64 {
    read_user::<u64>(address) & !GUESSED
}

/// What [`CALLERS`] says of an instruction of the current program; asks, if it says nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_caller_at(instruction: u64) -> u64 {
    let mm = pointer(thread::current_task(), kernel!(task_mm));
    let vma = mapping::mmtrace_find(mm, instruction);
    let mapped = pointer(vma, kernel!(vma_file));
    if vma == 0 || mapped == 0 {
        return CALLER_BY_FRAME_POINTER;
    }
    let into = instruction - pointer(vma, kernel!(vma_start));
    let place = CodePlace {
        file: file::key_of_inode(file::inode_of(mapped)),
        offset: into + (pointer(vma, kernel!(vma_pgoff)) << kernel!(page_shift)),
    };
    // SAFETY: copied at once; nothing is ever deleted from the map.
    if let Some(at) = unsafe { CALLERS.get(place) } {
        return *at;
    }
    if CALLERS.insert(&place, &CALLER_ASKED, BPF_NOEXIST).is_ok() {
        mmtrace_tell_code(EventKind::Place as u32, 0, vma, place.offset);
    }
    CALLER_ASKED
}

/// Tells of code that the current process has mapped, if it is code.
#[inline(always)]
pub(crate) fn mapped(process: u64, vma: u64) {
    if kernel!(stacks) != 0 && process != CALIBRATION_PROCESS {
        mmtrace_code_mapped(process, vma);
    }
}

/// As [`mapped`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_code_mapped(process: u64, vma: u64) -> u32 {
    const VM_EXEC: u64 = 4;
    let mapped = pointer(vma, kernel!(vma_file));
    if mapped != 0 && pointer(vma, kernel!(vma_flags)) & VM_EXEC != 0 {
        let offset = pointer(vma, kernel!(vma_pgoff)) << kernel!(page_shift);
        mmtrace_tell_code(EventKind::Code as u32, process, vma, offset);
    }
    0
}

/// Tells of a mapping of code, or of a place in it: the one at this offset of its file. In a function
/// of its own for the space on the stack, of which all in a chain of calls have 512 bytes together.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_tell_code(kind: u32, process: u64, vma: u64, offset: u64) -> u32 {
    let event = CodeEvent {
        header: EventHeader {
            kind,
            text_bytes: 0,
        },
        process,
        start: pointer(vma, kernel!(vma_start)),
        end: pointer(vma, kernel!(vma_end)),
        place: CodePlace {
            file: file::key_of_inode(file::inode_of(pointer(vma, kernel!(vma_file)))),
            offset,
        },
    };
    if EVENTS.output::<CodeEvent>(&event, 0).is_err() {
        lose(Lost::Code);
    }
    0
}

/// The current thread's stack pointer in user mode; 0 where it is not known.
#[inline(always)]
fn stack_pointer() -> u64 {
    /// `pt_regs.sp`.
    #[cfg(not(bpf_target_arch = "aarch64"))]
    const STACK_POINTER: u32 = 152;
    /// `user_pt_regs.sp`.
    #[cfg(bpf_target_arch = "aarch64")]
    const STACK_POINTER: u32 = 248;
    let registers = if kernel!(task_pt_regs) != 0 {
        // SAFETY: the current task always exists.
        unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
    } else {
        on_kernel_stack()
    };
    read(registers, STACK_POINTER)
}

/// Where the current thread's registers in user mode are: at the upper end of its kernel stack
/// (`task_pt_regs` in arch/x86/include/asm/processor.h; without the room above them that kernels with
/// FRED leave, which are newer than those that this is for). 0 if what is there are not such
/// registers.
#[inline(always)]
fn on_kernel_stack() -> u64 {
    /// `THREAD_SIZE`.
    const STACK_BYTES: u64 = 16_384;
    /// Bytes of `struct pt_regs`.
    const REGISTERS_BYTES: u64 = 168;
    /// `pt_regs.cs`, and its value in 64-bit programs, `__USER_CS`.
    const CODE_SEGMENT: u32 = 136;
    const USER_CODE: u64 = 0x33;
    let stack = pointer(thread::current_task(), kernel!(task_stack));
    let registers = stack + STACK_BYTES - REGISTERS_BYTES;
    if read::<u64>(registers, CODE_SEGMENT) == USER_CODE {
        registers
    } else {
        0
    }
}
