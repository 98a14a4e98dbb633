//! Stacks that are as they were.
//!
//! A program does most of its work where it has done some before: called by the same callers, with its
//! stack at the same place. If all that a walk has read of the stack is still there, so are the callers,
//! and comparing that takes a fraction of what a walk does.

use aya_ebpf::{helpers::generated::bpf_probe_read_user, macros::map, maps::PerCpuArray};
use mmtrace_common::stack::{RECALLED_SLOTS, mix};

use crate::stack::{Kind, SCRATCH};

/// Stacks that were taken last: for each kind of program its own, since one kind may interrupt another.
#[map]
static RECALLED: PerCpuArray<Recalled> = PerCpuArray::with_max_entries(RECALLED_SLOTS, 0);

/// How many there are for each kind of program: a power of two.
const EACH_RECALLS: u32 = 8;

const _: () = assert!(Kind::ALL * EACH_RECALLS <= RECALLED_SLOTS);

/// How many words of a stack are compared at most: a power of two. A walk that has read more is made
/// again each time.
const TRAIL_WORDS: usize = 64;
/// How many words are read at a time, from the first one on that is needed: a power of two.
const WINDOW_WORDS: usize = 64;
const WINDOW_BYTES: u64 = (WINDOW_WORDS * size_of::<u64>()) as u64;

/// What a walk depended on.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Trail {
    /// Where it began: the registers.
    instruction: u64,
    stack_pointer: u64,
    frame_pointer: u64,
    /// Whose stack it is, as in a walk.
    owner: u64,
    /// 1: it was led by the frame pointer's register, which means nothing else in most programs.
    by_frame_pointer: u64,
    /// How many words it has read; more than [`TRAIL_WORDS`]: it cannot be recalled.
    count: u64,
    /// These: how far above the stack pointer, in bytes, and what was there.
    words: [[u64; 2]; TRAIL_WORDS],
}

/// A stack that was taken.
#[repr(C)]
struct Recalled {
    trail: Trail,
    /// Its number in `FRAMES`; 0: there is none here.
    number: u64,
}

impl Trail {
    /// A walk begins.
    #[inline(always)]
    pub(crate) fn begin(&mut self, registers: [u64; 3], owner: u64) {
        [self.instruction, self.stack_pointer, self.frame_pointer] = registers;
        self.owner = owner;
        self.by_frame_pointer = 0;
        self.count = 0;
    }

    /// The walk was led by the frame pointer's register.
    #[inline(always)]
    pub(crate) fn follow_frame_pointer(&mut self) {
        self.by_frame_pointer = 1;
    }

    /// The walk was led by this word of the stack.
    #[inline(always)]
    pub(crate) fn follow(&mut self, address: u64, value: u64) {
        let above = address.wrapping_sub(self.stack_pointer);
        if above % size_of::<u64>() as u64 != 0 {
            return self.give_up();
        }
        self.words[self.count as usize & (TRAIL_WORDS - 1)] = [above, value];
        self.count += 1;
    }

    /// The walk was led by more than is kept here.
    #[inline(always)]
    pub(crate) fn give_up(&mut self) {
        self.count = TRAIL_WORDS as u64 + 1;
    }
}

/// Where a stack that begins there is kept.
#[inline(always)]
fn slot(kind: u32, trail: &Trail) -> u32 {
    let hash = mix(trail.stack_pointer, trail.instruction) as u32;
    kind * EACH_RECALLS + (hash & (EACH_RECALLS - 1))
}

/// The number of the stack whose walk would begin as the one in the scratch space of this kind of
/// program, if it is as it was; 0 if it must be walked.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_recall(kind: u32) -> u64 {
    let Some(walk) = SCRATCH.get_ptr_mut(kind) else {
        return 0;
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let walk = unsafe { &mut *walk };
    let Some(recalled) = RECALLED.get_ptr(slot(kind, &walk.trail)) else {
        return 0;
    };
    // SAFETY: as above.
    let recalled = unsafe { &*recalled };
    let (was, is) = (&recalled.trail, &walk.trail);
    if was.instruction != is.instruction
        || was.stack_pointer != is.stack_pointer
        || was.owner != is.owner
        || (was.by_frame_pointer != 0 && was.frame_pointer != is.frame_pointer)
    {
        return 0;
    }
    // Before the first word: nothing has been read yet.
    let mut begins = was.words[0][0].wrapping_sub(WINDOW_BYTES);
    for index in 0..TRAIL_WORDS {
        if index as u64 >= was.count {
            break;
        }
        let [above, value] = was.words[index];
        let mut into = above.wrapping_sub(begins);
        if into >= WINDOW_BYTES {
            // From the word before on: the frame pointer that is kept there may come next.
            into = size_of::<u64>() as u64;
            begins = above.wrapping_sub(into);
            // SAFETY: writes into the field; the helper checks the address.
            let failed = unsafe {
                bpf_probe_read_user(
                    (&raw mut walk.window).cast(),
                    WINDOW_BYTES as u32,
                    is.stack_pointer.wrapping_add(begins) as *const _,
                )
            };
            if failed != 0 {
                return 0;
            }
        }
        if walk.window[into as usize / size_of::<u64>() & (WINDOW_WORDS - 1)] != value {
            return 0;
        }
    }
    recalled.number
}

/// Keeps the walk that is in the scratch space, whose stack has this number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_keep_trail(kind: u32, number: u64) -> u32 {
    let Some(walk) = SCRATCH.get_ptr(kind) else {
        return 0;
    };
    // SAFETY: this CPU's own entry, for this kind of program.
    let trail = unsafe { &(*walk).trail };
    if trail.count > TRAIL_WORDS as u64 {
        return 0;
    }
    let Some(recalled) = RECALLED.get_ptr_mut(slot(kind, trail)) else {
        return 0;
    };
    // SAFETY: as above.
    let recalled = unsafe { &mut *recalled };
    let kept = &mut recalled.trail;
    kept.instruction = trail.instruction;
    kept.stack_pointer = trail.stack_pointer;
    kept.frame_pointer = trail.frame_pointer;
    kept.owner = trail.owner;
    kept.by_frame_pointer = trail.by_frame_pointer;
    kept.count = trail.count;
    for index in 0..TRAIL_WORDS {
        if index as u64 >= trail.count {
            break;
        }
        kept.words[index] = trail.words[index];
    }
    recalled.number = number;
    0
}

/// The words that are read at a time.
pub(crate) type Window = [u64; WINDOW_WORDS];
