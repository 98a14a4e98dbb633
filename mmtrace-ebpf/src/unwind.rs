//! From the program's registers to its callers, on x86-64.
//!
//! Distributions compile most of what they ship without frame pointers. How far above the stack pointer
//! a function's return address is, its file's unwinding information says; what that means for a place
//! in the code, user space puts into [`RULES`]. A place that is not there is followed by the frame pointer
//! for now, and user space is told what is on the stack: it finds the callers of that stack by itself, and
//! puts all places on the way into the map.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_RB_AVAIL_DATA},
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_task_pt_regs,
        generated::bpf_probe_read_user,
    },
    macros::map,
    maps::{Array, PerCpuArray},
};
use mmtrace_common::{
    CALIBRATION_PROCESS, CodeEvent, DEEP_STACK_BYTES, EventHeader, EventKind, Lost, STACK_BYTES,
    STACK_PIECE_BYTES, StackEvent, Thread,
    stack::{
        ALL_KNOWN, CodePlace, Frames, REMEMBERED_SLOTS, RULES_SLOTS, RULES_TRIES, RuleSlot,
        SIGNAL_FRAME_POINTER, SIGNAL_STACK_POINTER, STACK_BLOCK, STACK_FRAMES, UnwindRule, mix,
    },
};

use crate::{
    file,
    kernel::{kernel, pointer, read, read_user},
    mapping,
    maps::{EVENTS, EVENTS_BYTES, generations, lose},
    recall::{Trail, Window, mmtrace_keep_trail, mmtrace_recall},
    stack::{Kind, SCRATCH, mmtrace_keep},
    thread,
};

/// How to get from a place in a file's code to the caller. User space fills it, without system calls:
/// in these, programs of perf events and kprobes would be left out.
#[map]
static RULES: Array<RuleSlot> = Array::with_max_entries(RULES_SLOTS, BPF_F_MMAPABLE);

/// The rules of addresses that were met last, which need no mapping to be looked up: for each kind of
/// program its own, since one kind may interrupt another.
#[map]
static REMEMBERED: PerCpuArray<[Remembered; 2]> =
    PerCpuArray::with_max_entries(REMEMBERED_SLOTS, 0);

/// How many there are for each kind of program: a power of two.
const EACH_REMEMBERS: u32 = 256;

const _: () = assert!(Kind::ALL * EACH_REMEMBERS <= REMEMBERED_SLOTS);

/// In `vm_area_struct.vm_flags`: code (include/linux/mm.h).
const VM_EXEC: u64 = 4;

/// The rule of an instruction. Two that share an entry of [`REMEMBERED`] are both kept, the newer one
/// first: a stack has few frames that meet in one entry, but of those it has, each would displace the
/// other each time.
#[repr(C)]
#[derive(Clone, Copy)]
struct Remembered {
    instruction: u64,
    /// Whose, as [`Walk::owner`].
    owner: u64,
    rule: UnwindRule,
}

/// A stack that is being taken.
#[repr(C)]
pub(crate) struct Walk {
    /// What of it is kept.
    pub(crate) frames: Frames,
    /// What it depended on.
    pub(crate) trail: Trail,
    /// Where the stack is read to be compared.
    pub(crate) window: Window,
    /// Whose it is: the process, and how often it has mapped code. Code that was unmapped runs no more.
    owner: u64,
    /// The process, as in the rows, and which of its programs it runs.
    process: u64,
    image: u64,
    /// Where the walk is: the instruction or what is returned to, stack pointer and frame pointer.
    instruction: u64,
    stack_pointer: u64,
    frame_pointer: u64,
    /// Where on the stack the frame pointer was; 0: in its register.
    frame_pointer_from: u64,
    /// The same three at the frame of which no rule was known, but that it is the call.
    unknown: [u64; 3],
    /// Which place in a file that is.
    unknown_place: CodePlace,
    /// What tells such a stack from others with the same frames; 0: all rules were known.
    pub(crate) mark: u64,
}

impl Walk {
    /// It is made of so many frames, of none of which the rule is missing.
    #[inline(always)]
    pub(crate) fn set_known(&mut self, count: u64) {
        self.frames.count = count;
        self.frames.unknown = ALL_KNOWN;
        self.mark = 0;
    }

    /// It is made of what the kernel has put there, so many bytes, or an error; says whether there is any.
    #[inline(always)]
    pub(crate) fn take(&mut self, bytes: i64) -> bool {
        if bytes <= 0 {
            return false;
        }
        self.set_known(bytes as u64 / WORD_BYTES);
        true
    }
}

/// What [`mmtrace_unwind`] gives where the registers are not to be had, or the program is none of 64
/// bits.
pub(crate) const NOT_UNWOUND: u64 = u64::MAX;

/// Takes the program's stack by its registers; its number, 0 if there is no room for it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_unwind(kind: u32, tid: u32) -> u64 {
    let (Some(thread), Some(walk)) = (thread::by_tid(tid), SCRATCH.get_ptr_mut(kind)) else {
        return NOT_UNWOUND;
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let walk = unsafe { &mut *walk };
    if !begin(thread, walk) {
        return NOT_UNWOUND;
    }
    let recalled = mmtrace_recall(kind);
    if recalled != 0 {
        return recalled;
    }
    for frame in 0..STACK_FRAMES as u32 {
        let mut went = mmtrace_to_caller(kind, frame, REMEMBERED_RULE);
        if went == NOT_REMEMBERED {
            let rule = mmtrace_rule(kind, frame);
            went = mmtrace_to_caller(kind, frame, rule);
        }
        if went == NO_CALLER {
            break;
        }
    }
    let number = mmtrace_keep(kind);
    // With an unknown rule, user space needs to see more than the frames.
    if number != 0 && walk.mark == 0 {
        mmtrace_keep_trail(kind, number);
    }
    number
}

/// As a rule: the one that is remembered.
const REMEMBERED_RULE: u64 = u64::MAX;

/// How a step to a caller went: there is none.
const NO_CALLER: u32 = 0;
/// There is one.
const CALLER: u32 = 1;
/// No rule is remembered.
const NOT_REMEMBERED: u32 = 2;

#[inline(always)]
fn begin(thread: &Thread, walk: &mut Walk) -> bool {
    /// Fields of `pt_regs`: after the instruction come the code segment, the flags and the stack
    /// pointer.
    const FRAME_POINTER: u32 = 32;
    const INSTRUCTION: u32 = 128;
    /// The code segment of 64-bit programs, `__USER_CS`.
    const USER_CODE: u64 = 0x33;
    // Other processors' calls leave the return address in a register.
    if cfg!(not(bpf_target_arch = "x86_64")) {
        return false;
    }
    let registers = registers();
    let [instruction, code_segment, _, stack_pointer] = read::<[u64; 4]>(registers, INSTRUCTION);
    walk.instruction = instruction;
    walk.stack_pointer = stack_pointer;
    walk.frame_pointer = read(registers, FRAME_POINTER);
    walk.frame_pointer_from = 0;
    walk.process = thread.process;
    walk.image = thread.stacks.image.into();
    let code = generations(thread.tgid).map_or(0, |generations| generations.code);
    walk.owner = u64::from(thread.tgid) << 32 | u64::from(code);
    walk.set_known(0);
    let registers = [instruction, stack_pointer, walk.frame_pointer];
    walk.trail.begin(registers, walk.owner);
    // Threads of the kernel that work for the program have no such registers.
    code_segment == USER_CODE && instruction != 0
}

/// Where the current thread's registers in user mode are.
///
/// Without the helper, of 5.15, at the upper end of its kernel stack (`task_pt_regs` in
/// arch/x86/include/asm/processor.h; without the room above them that kernels with FRED leave, which
/// are newer than those that this is for).
#[inline(always)]
fn registers() -> u64 {
    /// `THREAD_SIZE`.
    const STACK_BYTES: u64 = 16_384;
    /// Bytes of `struct pt_regs`.
    const REGISTERS_BYTES: u64 = 168;
    if kernel!(task_pt_regs) != 0 {
        // SAFETY: the current task always exists.
        unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
    } else {
        pointer(thread::current_task(), kernel!(task_stack)) + STACK_BYTES - REGISTERS_BYTES
    }
}

/// Adds the frame where the walk is, and goes on to its caller by a rule; says how that went.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_to_caller(kind: u32, frame: u32, rule: u64) -> u32 {
    let Some(walk) = SCRATCH.get_ptr_mut(kind) else {
        return NO_CALLER;
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let walk = unsafe { &mut *walk };
    let mut rule = UnwindRule::of_number(rule);
    if rule.number() == REMEMBERED_RULE {
        let instruction = instruction(walk, frame);
        let Some([newer, older]) = remembered(kind, instruction) else {
            return NO_CALLER;
        };
        rule = if newer.instruction == instruction && newer.owner == walk.owner {
            newer.rule
        } else if older.instruction == instruction && older.owner == walk.owner {
            older.rule
        } else {
            return NOT_REMEMBERED;
        };
    }
    walk.frames.addresses[frame as usize & (STACK_FRAMES + STACK_BLOCK - 1)] = walk.instruction;
    walk.frames.count = u64::from(frame) + 1;
    if rule == UnwindRule::END {
        return NO_CALLER;
    }
    if rule == UnwindRule::UNKNOWN && walk.mark == 0 {
        walk.frames.unknown = u64::from(frame);
        let instruction = instruction(walk, frame);
        walk.unknown = [instruction, walk.stack_pointer, walk.frame_pointer];
        walk.mark = mmtrace_mark(walk.stack_pointer, mix(walk.process, walk.image));
    }
    if rule == UnwindRule::SIGNAL {
        let registers = walk.stack_pointer;
        walk.trail.give_up();
        walk.frame_pointer = read_user(registers + SIGNAL_FRAME_POINTER);
        [walk.stack_pointer, walk.instruction] = read_user(registers + SIGNAL_STACK_POINTER);
        return went(walk);
    }
    let (frame_ends, saved_bytes) = match rule {
        UnwindRule::UNKNOWN | UnwindRule::FRAME_POINTER => {
            if walk.frame_pointer_from == 0 {
                walk.trail.follow_frame_pointer();
            } else {
                walk.trail
                    .follow(walk.frame_pointer_from, walk.frame_pointer);
            }
            (walk.frame_pointer + 2 * WORD_BYTES, 2 * WORD_BYTES)
        }
        _ => (walk.stack_pointer + rule.frame_bytes(), rule.saved_bytes()),
    };
    // The frame pointer is saved next to the return address mostly: then both are read at once.
    let [next_to_it, returns_to] = read_user::<[u64; 2]>(frame_ends - 2 * WORD_BYTES);
    walk.trail.follow(frame_ends - WORD_BYTES, returns_to);
    if saved_bytes != 0 {
        walk.frame_pointer_from = frame_ends - saved_bytes;
        walk.frame_pointer = if saved_bytes == 2 * WORD_BYTES {
            next_to_it
        } else {
            read_user(walk.frame_pointer_from)
        };
    }
    walk.stack_pointer = frame_ends;
    walk.instruction = returns_to;
    went(walk)
}

#[inline(always)]
fn went(walk: &Walk) -> u32 {
    if walk.instruction == 0 {
        NO_CALLER
    } else {
        CALLER
    }
}

const WORD_BYTES: u64 = size_of::<u64>() as u64;

/// Where the rule of an instruction is remembered, if it is.
#[inline(always)]
fn remembered(kind: u32, instruction: u64) -> Option<&'static mut [Remembered; 2]> {
    let hash = (mix(0, instruction) as u32) & (EACH_REMEMBERS - 1);
    let remembered = REMEMBERED.get_ptr_mut(kind * EACH_REMEMBERS + hash)?;
    // SAFETY: this CPU's own entry, for this kind of program.
    Some(unsafe { &mut *remembered })
}

/// The instruction where the walk is: the call, of the place that it returns to, which may be the next
/// function's.
#[inline(always)]
fn instruction(walk: &Walk, frame: u32) -> u64 {
    walk.instruction - u64::from(frame != 0)
}

/// A number made of what is innermost on the stack: who has called is there, wherever. Much of what is
/// there changes from call to call, though, so that nearly each stack is new: as soon as user space is
/// behind, only the first word counts, where system calls are made from.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_mark(stack_pointer: u64, whose: u64) -> u64 {
    let [first, others @ ..] = read_user::<[u64; 16]>(stack_pointer);
    let mut number = mix(whose ^ stack_pointer << 32, first);
    if untaken_bytes() < EVENTS_BYTES / 8 {
        for word in others {
            number = mix(number, word);
        }
    }
    number | 1
}

/// How much is in the ring buffer that user space has not taken yet.
#[inline(always)]
fn untaken_bytes() -> u32 {
    EVENTS.query(BPF_RB_AVAIL_DATA.into()) as u32
}

/// The rule of where the walk is, which is remembered.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_rule(kind: u32, frame: u32) -> u64 {
    let Some(walk) = SCRATCH.get_ptr(kind) else {
        return UnwindRule::END.number();
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let walk = unsafe { &*walk };
    let instruction = instruction(walk, frame);
    let rule = look_up(kind, instruction);
    if rule != UnwindRule::UNKNOWN
        && let Some([newer, older]) = remembered(kind, instruction)
    {
        *older = *newer;
        *newer = Remembered {
            instruction,
            owner: walk.owner,
            rule,
        };
    }
    rule.number()
}

/// The rule of an instruction of the current program.
#[inline(always)]
fn look_up(kind: u32, instruction: u64) -> UnwindRule {
    let mm = pointer(thread::current_task(), kernel!(task_mm));
    let vma = mapping::mmtrace_find(mm, instruction);
    // A frame pointer that is none leads anywhere.
    if pointer(vma, kernel!(vma_flags)) & VM_EXEC == 0 {
        return UnwindRule::END;
    }
    if pointer(vma, kernel!(vma_file)) == 0 {
        return of_made_code(instruction);
    }
    UnwindRule::of_number(mmtrace_rule_in(kind, vma, instruction))
}

/// What [`RULES`] says of an instruction that is mapped from a file. In a function of its own for the
/// space on the stack, of which all in a chain of calls have 512 bytes together.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_rule_in(kind: u32, vma: u64, instruction: u64) -> u64 {
    let into = instruction - pointer(vma, kernel!(vma_start));
    let place = CodePlace {
        file: file::key_of_inode(file::inode_of(pointer(vma, kernel!(vma_file)))),
        offset: into + (pointer(vma, kernel!(vma_pgoff)) << kernel!(page_shift)),
    };
    let words = place.words();
    let first = place.first_slot();
    for slot in 0..RULES_TRIES {
        let Some(entry) = RULES.get_ptr((first + slot) & (RULES_SLOTS - 1)) else {
            break;
        };
        // SAFETY: an entry of an array; volatile, since user space writes it, the rule last.
        let rule = unsafe { core::ptr::read_volatile(&raw const (*entry).rule) };
        if rule == UnwindRule::UNKNOWN {
            if let Some(walk) = SCRATCH.get_ptr_mut(kind) {
                // SAFETY: this CPU's own entry, for this kind of program.
                let walk = unsafe { &mut *walk };
                if walk.mark == 0 {
                    walk.unknown_place = place;
                }
            }
            return rule.number();
        }
        // SAFETY: as above; what has a rule is not written any more.
        if unsafe { (*entry).place }.words() == words {
            return rule.number();
        }
    }
    // There is no room for it.
    UnwindRule::FRAME_POINTER.number()
}

/// The rule of a call in code that was made at run time, which says nothing of itself but by what it
/// does when the call has returned. Python's trampolines, one for each function, then do
/// `add $8, %rsp; ret` (Python/asm_trampoline.S, 3.12 and 3.13).
#[inline(always)]
fn of_made_code(call: u64) -> UnwindRule {
    const ADD_AND_RETURN: u64 = 0xc3_08c4_8348;
    const BYTES: u32 = 5;
    if read_user::<u64>(call + 1) << (64 - 8 * BYTES) == ADD_AND_RETURN << (64 - 8 * BYTES) {
        UnwindRule::by_stack_pointer(16, 0)
    } else {
        UnwindRule::FRAME_POINTER
    }
}

/// Tells of code that the current process has mapped, if it is code.
#[inline(always)]
pub(crate) fn mapped(thread: &Thread, vma: u64) {
    if kernel!(stacks) != 0 && thread.process != CALIBRATION_PROCESS {
        mmtrace_code_mapped(thread.process, thread.stacks.image, vma);
    }
}

/// As [`mapped`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_code_mapped(process: u64, image: u32, vma: u64) -> u32 {
    let mapped = pointer(vma, kernel!(vma_file));
    if mapped != 0 && pointer(vma, kernel!(vma_flags)) & VM_EXEC != 0 {
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        if let Some(generations) = generations(tgid) {
            generations.code = generations.code.wrapping_add(1);
        }
        let offset = pointer(vma, kernel!(vma_pgoff)) << kernel!(page_shift);
        tell_code(process, image, vma, offset);
    }
    0
}

#[inline(always)]
fn tell_code(process: u64, image: u32, vma: u64, offset: u64) {
    let event = CodeEvent {
        header: EventHeader {
            kind: EventKind::Code as u32,
            text_bytes: 0,
        },
        process,
        image: image.into(),
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
}

/// A [`StackEvent`] with what is on the stack, from its stack pointer up.
#[repr(C)]
struct ToldStack<const BYTES: usize> {
    event: StackEvent,
    bytes: [u8; BYTES],
}

/// Tells what is on the stack that was just kept by this number, from the frame on of which no rule was
/// known: less of it as soon as user space is behind. Where there is no room, user space counts the stack
/// among those that it knows in part.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_tell_stack(kind: u32, number: u64) -> u32 {
    let Some(walk) = SCRATCH.get_ptr(kind) else {
        return 0;
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let walk = unsafe { &*walk };
    let untaken_bytes = untaken_bytes();
    // Half of the room is left to what cannot be made up for.
    if untaken_bytes < EVENTS_BYTES / 8 {
        tell_stack::<DEEP_STACK_BYTES>(walk, number);
    } else if untaken_bytes < EVENTS_BYTES / 2 {
        tell_stack::<STACK_BYTES>(walk, number);
    }
    0
}

#[inline(always)]
fn tell_stack<const BYTES: usize>(walk: &Walk, number: u64) {
    let Some(mut record) = EVENTS.reserve::<ToldStack<BYTES>>(0) else {
        return;
    };
    let told = record.as_mut_ptr();
    // SAFETY: the reserved space is as large as a ToldStack, which is plain integers; the part of its
    // bytes that user space reads is written here.
    let ToldStack { event, bytes } = unsafe { &mut *told };
    event.process = walk.process;
    event.image = walk.image;
    event.number = number;
    [event.instruction, event.stack_pointer, event.frame_pointer] = walk.unknown;
    event.place = walk.unknown_place;
    event.header.kind = EventKind::Stack as u32;
    event.header.text_bytes = 0;
    for piece in 0..BYTES / STACK_PIECE_BYTES {
        let at = piece * STACK_PIECE_BYTES;
        // SAFETY: writes as many bytes, which are inside of the field.
        let failed = unsafe {
            bpf_probe_read_user(
                bytes.as_mut_ptr().add(at).cast(),
                STACK_PIECE_BYTES as u32,
                (event.stack_pointer + at as u64) as *const _,
            )
        };
        // The stack's upper end, mostly.
        if failed != 0 {
            break;
        }
        event.header.text_bytes = (at + STACK_PIECE_BYTES) as u32;
    }
    record.submit(0);
}
