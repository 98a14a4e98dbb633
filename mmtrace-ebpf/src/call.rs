//! System calls: the operations, what they asked for and what they returned.
//!
//! `sys_enter` and `sys_exit` are there on every kernel, see every call whatever the file system
//! and say what it returned, hence they count for every backend. Source: `trace_sys_enter` in
//! kernel/entry (5.10: kernel/entry/common.c). Context: the calling thread.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated},
};
use aya_log_ebpf::debug;
use mmtrace_common::{
    CALIBRATION_PROCESS, CallSpec, FLAG_CHANGES_FDS, FLAG_CHANGES_MAPPINGS, FLAG_IOVEC, FileKey,
    Lost, NO_ARGUMENT, Program, REGISTER_OPTION, Role, Thread,
    call::{
        FLAG_ADDRESS, FLAG_ADVICE, FLAG_COUNTED, FLAG_FIXED_PATH, FLAG_MAPS, FLAG_OFFSET_POINTER,
        FLAG_RETURNS_BYTES, PLAIN,
    },
    thread::{EITHER_WAY, FROM_USER, TO_USER},
};

use crate::{
    account::{Slot, row_of_call},
    copy, fault, file, heat,
    kernel::{kernel, known_as, pointer, read},
    mapping::{self, less},
    maps::{CALLS, DIRECT, OTHER, READ, STARTED_NS, WRITE, generations, lose},
    process, sampling, special, stack,
    thread::{self, now_ns},
    unwind,
};

#[cfg(bpf_target_arch = "aarch64")]
mod arch {
    /// `prctl`.
    pub(super) const PRCTL: u64 = 167;
    /// Bit of `thread_info.status` in a call through the 32-bit interface: not told apart here.
    pub(super) const COMPAT: u32 = 0;
    /// Which of the words read there is `user_pt_regs.pc`.
    pub(super) const INSTRUCTION_POINTER: usize = 32;
    /// Bytes of `struct pt_regs` that hold the arguments, and where they begin.
    pub(super) const START: u32 = 0;
    /// Which of the words read there are the arguments, in order.
    pub(super) const ORDER: [usize; 6] = [0, 1, 2, 3, 4, 5];
    /// How many words are read there.
    pub(super) const WORDS: usize = 33;
    /// Not told apart here.
    pub(super) fn may_be_compat(_registers: &impl super::Registers) -> bool {
        false
    }
}
#[cfg(not(bpf_target_arch = "aarch64"))]
mod arch {
    /// `prctl`.
    pub(super) const PRCTL: u64 = 157;
    /// Bit of `thread_info.status` in a call through the 32-bit interface, by a 32-bit program or
    /// by `int 0x80`: `TS_COMPAT` of arch/x86/include/asm/thread_info.h.
    pub(super) const COMPAT: u32 = 2;
    /// Which of the words read there is `pt_regs.ip`.
    pub(super) const INSTRUCTION_POINTER: usize = 9;
    /// `pt_regs.r10`: r10, r9, r8, ax, cx, dx, si, di follow each other.
    pub(super) const START: u32 = 56;
    /// Which of the words read there are the arguments, in order: di, si, dx, r10, r8, r9.
    pub(super) const ORDER: [usize; 6] = [7, 6, 5, 0, 2, 1];
    /// How many words are read there: `pt_regs.orig_ax` and `ip` follow.
    pub(super) const WORDS: usize = 10;
    /// Whether a call may have come through the 32-bit interface. The `syscall` instruction leaves
    /// the address after it in cx as well; this spares its calls another look.
    pub(super) fn may_be_compat(registers: &impl super::Registers) -> bool {
        registers.word(4) != registers.word(INSTRUCTION_POINTER)
    }
}

/// What the kernel takes of one call at most: include/linux/fs.h.
pub(crate) const MAX_RW_COUNT: u64 = 0x7fff_f000;
pub(crate) const POSIX_FADV_WILLNEED: u64 = 3;
const MADV_WILLNEED: u64 = 3;
const MADV_POPULATE_READ: u64 = 22;
const MADV_POPULATE_WRITE: u64 = 23;

/// The registers with which a call was made.
pub(crate) trait Registers {
    /// Argument `index`, 0 for [`NO_ARGUMENT`]. A chain of comparisons: the verifier of 5.10
    /// refuses a variable index into the stack, and each a variable offset into a structure.
    #[inline(always)]
    fn argument(&self, index: u8) -> u64 {
        match index {
            0 => self.word(arch::ORDER[0]),
            1 => self.word(arch::ORDER[1]),
            2 => self.word(arch::ORDER[2]),
            3 => self.word(arch::ORDER[3]),
            4 => self.word(arch::ORDER[4]),
            _ => 0,
        }
    }

    /// One of the words from [`arch::START`] on.
    fn word(&self, index: usize) -> u64;
}

/// Those of a `struct pt_regs`, copied by one call of a helper.
pub(crate) struct Copied([u64; arch::WORDS]);

impl Copied {
    pub(crate) fn from(address: u64) -> Self {
        Self(read(address, arch::START))
    }
}

impl Registers for Copied {
    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        self.0[index]
    }
}

/// Those of a `struct pt_regs`, read where they are, each when it is needed: the verifier knows what
/// the pointer leads to.
pub(crate) struct InPlace(*const u8);

impl InPlace {
    /// Those of the current thread, from a kernel that has [`thread::user_registers`].
    pub(crate) fn of_current() -> Self {
        Self(thread::user_registers())
    }

    /// Those at an address, from a kernel that has [`known_as`].
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self(known_as(address, kernel!(type_pt_regs)))
    }

    #[inline(always)]
    fn read(&self, offset: usize) -> u64 {
        // SAFETY: inside a pt_regs; the verifier checks that, and has the kernel read zero where
        // nothing is. Volatile, so that each is a load of its own.
        unsafe { self.0.add(offset).cast::<u64>().read_volatile() }
    }
}

impl Registers for InPlace {
    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        self.read(arch::START as usize + index * 8)
    }
}

/// A call begins: its number, and how to get its arguments.
#[inline(always)]
pub(crate) fn enter<R: Registers>(
    ctx: &impl EbpfContext,
    registers: impl FnOnce() -> R,
    number: u64,
) {
    let Some(thread) = thread::current() else {
        if number == arch::PRCTL {
            register(ctx, &registers());
        }
        return;
    };
    thread::hit(thread, Program::SysEnter);
    // Outside of any call, such as of a signal.
    copy::put(thread);
    // Back in user mode since: a fault that ended in a signal has no end of its own.
    fault::leave(thread);
    let registers = registers();
    if number == arch::PRCTL && done(thread, &registers) {
        return;
    }
    if thread.unnamed != 0 {
        thread.unnamed = 0;
        mmtrace_name_program(registers.word(arch::INSTRUCTION_POINTER));
    }
    if arch::may_be_compat(&registers)
        && read::<u32>(thread.task, kernel!(task_thread_status)) & arch::COMPAT != 0
    {
        lose(Lost::CompatCalls);
        thread.call.active = 0;
        return;
    }
    if repeats(thread, number, &registers) {
        thread.call.size_bytes = registers.argument(SIZE_ARGUMENT).min(MAX_RW_COUNT);
        if thread.call.has_offset != 0 {
            thread.call.offset = registers.argument(OFFSET_ARGUMENT);
        }
        let one_of_many = sampling::is_one_of_many(thread);
        start(thread, one_of_many);
        return;
    }
    thread.call.active = 0;
    thread.call.repeatable = 0;
    thread.call.repeats = 0;
    thread.call.in_row = 0;
    let spec = match CALLS.get(number as u32) {
        Some(spec) if spec.path != 0 => spec,
        _ => return,
    };
    begin(thread, spec, &registers);
    if thread.call.active != 0 && is_repeatable(spec) {
        thread.call.repeatable = number as u32 + 1;
        thread.call.has_offset = u16::from(spec.offset_argument != NO_ARGUMENT);
    }
}

/// Whether a call is the thread's last one again but for its size and offset, which saves half of the
/// work of a loop of reads.
#[inline(always)]
fn repeats(thread: &Thread, number: u64, registers: &impl Registers) -> bool {
    // A number of -1 plus one is 0 as well: programs may call that, and tracers make it of any call.
    thread.call.repeatable != 0
        && thread.call.repeatable == (number as u32).wrapping_add(1)
        && is_known(
            thread,
            registers.argument(FD_ARGUMENT) as i32,
            generation(thread),
        )
}

/// Whether calls of a kind say all in the arguments that `read` and `write` have, and an offset.
#[inline(always)]
fn is_repeatable(spec: &CallSpec) -> bool {
    spec.flags == FLAG_COUNTED | FLAG_RETURNS_BYTES
        && spec.special == PLAIN
        && spec.fd_argument == FD_ARGUMENT
        && spec.size_argument == SIZE_ARGUMENT
        && (spec.offset_argument == NO_ARGUMENT || spec.offset_argument == OFFSET_ARGUMENT)
}

/// Which arguments of such calls are the descriptor, the size and the offset.
const FD_ARGUMENT: u8 = 0;
const SIZE_ARGUMENT: u8 = 2;
const OFFSET_ARGUMENT: u8 = 3;

#[inline(always)]
fn begin(thread: &mut Thread, spec: &CallSpec, registers: &impl Registers) {
    let flags = spec.flags;
    if flags & (FLAG_CHANGES_FDS | FLAG_CHANGES_MAPPINGS) != 0 {
        forget(thread, flags);
    }
    if flags & FLAG_ADVICE != 0 {
        let advice = registers.argument(spec.advice_argument);
        let wanted = if spec.fd_argument == NO_ARGUMENT {
            brings_in(advice)
        } else {
            advice == POSIX_FADV_WILLNEED
        };
        if !wanted {
            return;
        }
    }
    let mut path = u32::from(spec.path) - 1;
    thread.call.file = FileKey::default();
    thread.call.file_pointer = 0;
    let descriptor = registers.argument(spec.fd_argument) as i32;
    if spec.fd_argument != NO_ARGUMENT && (flags & FLAG_MAPS == 0 || descriptor >= 0) {
        look_up(thread, descriptor);
        if flags & FLAG_FIXED_PATH == 0 {
            path = if path == WRITE {
                thread.fd.write_path
            } else {
                thread.fd.read_path
            };
        }
        thread.call.file = thread.fd.file;
        thread.call.file_pointer = thread.fd.file_pointer;
    }
    if flags & FLAG_ADDRESS != 0 {
        thread.call.size_bytes = registers.argument(1);
        thread::elsewhere(thread, |tid| mmtrace_look_at(tid, registers.argument(0)));
    }
    thread.call.path = path;
    thread.call.flags = u32::from(flags);
    thread.call.offset = if spec.offset_argument == NO_ARGUMENT {
        u64::MAX
    } else {
        let offset = registers.argument(spec.offset_argument);
        if flags & FLAG_OFFSET_POINTER == 0 {
            offset
        } else {
            // SAFETY: the helper checks the address and fails on one that is not mapped, null too.
            unsafe { bpf_probe_read_user(offset as *const u64) }.unwrap_or(u64::MAX)
        }
    };
    thread.call.size_bytes = if flags & FLAG_IOVEC != 0 {
        mmtrace_vector_bytes(
            registers.argument(spec.size_argument - 1),
            registers.argument(spec.size_argument),
        )
    } else {
        registers.argument(spec.size_argument)
    };
    if flags & FLAG_RETURNS_BYTES != 0 {
        thread.call.size_bytes = thread.call.size_bytes.min(MAX_RW_COUNT);
    }
    thread.call.special = u32::from(spec.special);
    thread.call.direction = match u32::from(spec.path) - 1 {
        READ => TO_USER,
        WRITE => FROM_USER,
        _ => EITHER_WAY,
    };
    thread.call.registered = 0;
    if spec.special != PLAIN {
        thread::elsewhere(thread, |tid| {
            special::mmtrace_begin_special(
                tid,
                registers.argument(0),
                registers.argument(1),
                registers.argument(2),
                registers.argument(3),
            )
        });
    }
    start(thread, false);
}

/// From here on, what the thread does is its call's work. Of `one_of_many` the time is taken only if it
/// stands for others.
#[inline(always)]
fn start(thread: &mut Thread, one_of_many: bool) {
    // Our own reading of user memory may have raised page_fault_kernel, and no more.
    thread.fault.active = 0;
    let stacks = stack::wanted(thread);
    let mut time_counts = 1;
    if stacks || one_of_many {
        let stands_for = sampling::stands_for(thread, Slot::Call);
        if stacks {
            stack::call_begins(thread, stands_for);
        }
        if one_of_many {
            time_counts = sampling::time_counts(stands_for);
        }
    }
    thread.call.time_counts = time_counts;
    thread.call.nested_ns = 0;
    thread.call.window = copy::window();
    if time_counts != 0 {
        thread.call.started_ns = now_ns();
    }
    thread.call.active = 1;
}

/// Whether `madvise` with this advice brings data in.
#[inline(always)]
pub(crate) fn brings_in(advice: u64) -> bool {
    advice == MADV_WILLNEED || advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE
}

/// A call ends.
#[inline(always)]
pub(crate) fn exit(ctx: &impl EbpfContext, returned: i64) {
    let Some(thread) = thread::current() else {
        return;
    };
    thread::hit(thread, Program::SysExit);
    let flags = thread.call.flags as u16;
    let watched = copy::call_ends(thread, returned);
    if thread.call.active == 0 {
        fault::reconcile(thread);
        thread.fault.active = 0;
        return;
    }
    // A buffered read or write takes no pages by get_user_pages.
    let plain = flags & (FLAG_RETURNS_BYTES | FLAG_FIXED_PATH) == FLAG_RETURNS_BYTES
        && thread.call.path != DIRECT;
    if !plain || thread.fault.active != 0 {
        // While the call is still the present one: faults taken for it have no event of their own.
        fault::reconcile(thread);
    }
    thread.fault.active = 0;
    if flags & FLAG_MAPS != 0 && returned > 0 && thread.call.file_pointer != 0 {
        thread::elsewhere(thread, |tid| mmtrace_note_mapping(tid, returned as u64));
    }
    let moved = if thread.call.special != u32::from(PLAIN) {
        let moved = thread::elsewhere(thread, |tid| special::mmtrace_end_special(tid, returned));
        thread.fault.active = 0;
        moved
    } else if returned > 0 && flags & FLAG_RETURNS_BYTES != 0 {
        returned as u64
    } else {
        0
    };
    thread.call.active = 0;
    if flags & FLAG_COUNTED != 0 {
        let mut time_ns = sampling::time_of_call(thread);
        let (path, requested) = (thread.call.path, thread.call.size_bytes);
        // A path that is not about data waits for terminals and children: its time says nothing.
        if path == OTHER {
            time_ns = 0;
        }
        let measures = row_of_call(thread);
        measures.operations += 1;
        measures.bytes_requested += requested;
        measures.bytes_returned += moved;
        measures.kernel_time_ns += time_ns;
        if !watched {
            measures.unwatched_bytes += moved;
        } else if moved != 0 {
            copy::sample(path, moved);
        }
        heat::returned(thread, moved);
        stack::call_ends(ctx.as_ptr(), thread, path, moved);
    }
    if flags & (FLAG_CHANGES_FDS | FLAG_CHANGES_MAPPINGS) != 0 {
        forget(thread, flags);
    }
    if kernel!(verbose) != 0 {
        debug!(
            ctx,
            "call ends: tid {} path {} inode {} returned {}",
            ctx.pid(),
            thread.call.path,
            thread.call.file.inode,
            returned
        );
    }
}

/// Tells the names of the program that the current process runs and of what makes its first call,
/// which is the program's loader if it has one: nothing names these to the kernel in a call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_name_program(instruction: u64) -> u32 {
    let mm = pointer(thread::current_task(), kernel!(task_mm));
    let program = pointer(mm, kernel!(mm_exe_file));
    let code = mapping::mmtrace_find(mm, pointer(mm, kernel!(mm_start_code)));
    file::note_mapping(program, code);
    let loads = mapping::mmtrace_find(mm, instruction);
    let loader = pointer(loads, kernel!(vma_file));
    for file in [program, loader] {
        let inode = file::inode_of(file);
        file::tell_name(file::key_of_inode(inode), file, inode);
    }
    let tid = bpf_get_current_pid_tgid() as u32;
    if let Some(thread) = thread::by_tid(tid) {
        unwind::mapped(thread, code);
        unwind::mapped(thread, loads);
    }
    0
}

/// Makes the current thread's call one about the file that is mapped at `address`, if its range is
/// all inside that mapping.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_look_at(tid: u32, address: u64) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let mm = pointer(thread::current_task(), kernel!(task_mm));
    let vma = mapping::mmtrace_find(mm, address);
    let end = pointer(vma, kernel!(vma_end));
    let file = pointer(vma, kernel!(vma_file));
    if file == 0 || end.wrapping_sub(address) < thread.call.size_bytes {
        return 0;
    }
    let inode = file::inode_of(file);
    let key = file::key_of_inode(inode);
    file::tell_inode(key, inode);
    thread.call.file = file::known_as(key);
    0
}

/// Notes what a mapping that the current thread has made is of.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_note_mapping(tid: u32, address: u64) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let mm = pointer(thread::current_task(), kernel!(task_mm));
    let vma = mapping::mmtrace_find(mm, address);
    file::note_mapping(thread.call.file_pointer, vma);
    unwind::mapped(thread, vma);
    0
}

/// What the threads of this process remember of descriptors or mappings holds no more. Called as
/// the call begins and as it ends, since another thread may look in between.
#[inline(always)]
fn forget(thread: &Thread, flags: u16) {
    if let Some(generations) = generations(thread.tgid) {
        if flags & FLAG_CHANGES_FDS != 0 {
            generations.fds = generations.fds.wrapping_add(1);
        }
        if flags & FLAG_CHANGES_MAPPINGS != 0 {
            generations.mappings = generations.mappings.wrapping_add(1);
        }
    }
}

/// Makes `thread.fd` describe a descriptor.
#[inline(always)]
pub(crate) fn look_up(thread: &mut Thread, descriptor: i32) {
    let generation = generation(thread);
    if is_known(thread, descriptor, generation) {
        return;
    }
    thread.fd.generation = generation;
    thread::elsewhere(thread, |tid| mmtrace_look_up(tid, descriptor));
}

/// Whether `thread.fd` describes a descriptor of this generation.
#[inline(always)]
fn is_known(thread: &Thread, descriptor: i32, generation: u32) -> bool {
    thread.fd.fd == descriptor && thread.fd.generation == generation
}

/// The present generation of the process's descriptors.
#[inline(always)]
fn generation(thread: &Thread) -> u32 {
    generations(thread.tgid).map_or(0, |generations| generations.fds)
}

/// Makes `thread.fd` describe a descriptor of the current thread, from the kernel's tables.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_look_up(tid: u32, descriptor: i32) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let pointer = file::of_descriptor(descriptor);
    let inode = file::inode_of(pointer);
    thread.fd.fd = if pointer == 0 { -1 } else { descriptor };
    thread.fd.file_pointer = pointer;
    if pointer == 0 {
        thread.fd.file = FileKey::default();
        thread.fd.read_path = OTHER;
        thread.fd.write_path = OTHER;
        return 0;
    }
    thread.fd.file = file::key_of_inode(inode);
    thread.fd.read_path = file::path_for(pointer, inode, crate::maps::READ);
    thread.fd.write_path = file::path_for(pointer, inode, WRITE);
    file::tell_name(thread.fd.file, pointer, inode);
    0
}

/// Bytes that an array of `struct iovec` stands for.
///
/// In two loops, one in the other, each in a function of its own: the verifier goes through a loop
/// round by round, but through such a function only once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_vector_bytes(address: u64, count: u64) -> u64 {
    let mut sum = 0;
    for block in 0..MAX_VECTORS.div_ceil(AT_ONCE) {
        let first = block * AT_ONCE;
        if first >= count {
            break;
        }
        sum += mmtrace_some_vectors_bytes(address + first * VECTOR_BYTES, count - first);
    }
    sum
}

/// The same of the first [`AT_ONCE`] of `count` vectors.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_some_vectors_bytes(address: u64, count: u64) -> u64 {
    let mut sum = 0u64;
    for block in 0..AT_ONCE / VECTORS_READ {
        let first = block * VECTORS_READ;
        if first >= count {
            break;
        }
        let mut vectors = [[0u64; 2]; VECTORS_MASK as usize];
        // No more than there are: what lies behind the array's end may not be mapped. Without a
        // branch, of which the verifier would follow both ways in each round.
        let left = count - first;
        let all = less(left, VECTORS_READ);
        let bytes = ((all * left + (1 - all) * VECTORS_READ) & VECTORS_MASK) * VECTOR_BYTES;
        // SAFETY: `vectors` has room for VECTORS_MASK of 16 bytes; the helper checks the address.
        unsafe {
            generated::bpf_probe_read_user(
                vectors.as_mut_ptr().cast(),
                bytes as u32,
                (address + first * VECTOR_BYTES) as *const _,
            )
        };
        for [_, length] in &vectors[..VECTORS_READ as usize] {
            sum += length;
        }
    }
    sum
}

/// Bytes of a `struct iovec`.
const VECTOR_BYTES: u64 = 16;
/// `UIO_MAXIOV`: the kernel takes no more in one call.
const MAX_VECTORS: u64 = 1024;
/// How many one call of the inner function looks at.
const AT_ONCE: u64 = 12 * VECTORS_READ;
/// How many are read at a time: few, since the calls that lead here share 512 bytes of stack.
const VECTORS_READ: u64 = 7;
/// A mask that shows the verifier that they are not more than the stack has room for.
const VECTORS_MASK: u64 = 7;

/// A thread asks to be followed.
#[inline(never)]
fn register(ctx: &impl EbpfContext, registers: &impl Registers) {
    if registers.argument(0) as u32 != REGISTER_OPTION
        || registers.argument(1) as u32 != kernel!(nonce)
    {
        return;
    }
    let task = thread::current_task();
    let tid = ctx.pid();
    let tgid = ctx.tgid();
    let role = registers.argument(2) as u32;
    if role == Role::Target as u32 {
        let process = process::number(tgid);
        thread::follow(tid, tgid, task, process, 0);
        if let Some(started_ns) = STARTED_NS.get_ptr_mut(0) {
            // SAFETY: a valid entry, which nobody else writes.
            unsafe { *started_ns = now_ns() };
        }
        process::tell_start(process, 0, tgid, task);
        // What it runs until its execve has succeeded.
        if let Some(thread) = thread::current() {
            thread.unnamed = 1;
        }
    } else if role == Role::Calibration as u32 {
        thread::follow(tid, tgid, task, CALIBRATION_PROCESS, 0);
    }
}

/// The calibration asks to be followed no longer.
#[inline(always)]
fn done(thread: &mut Thread, registers: &impl Registers) -> bool {
    if thread.process != CALIBRATION_PROCESS {
        return false;
    }
    let done = registers.argument(0) as u32 == REGISTER_OPTION
        && registers.argument(2) as u32 == Role::Done as u32;
    if done {
        process::end_thread(thread);
        thread::elsewhere(thread, |tid| thread::mmtrace_remove(tid));
    }
    done
}
