//! Stacks: where in the program and in the kernel work is caused.

/// Frames of a stack that are kept at most, the innermost ones.
pub const STACK_FRAMES: usize = 120;
/// Words that are looked at together, for which there is room after the last frame.
pub const STACK_BLOCK: usize = 8;

/// A stack: an entry of the `FRAMES` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Frames {
    /// How many frames there are.
    pub count: u64,
    /// The frame of which no rule was known yet, so that its caller was found by the frame pointer
    /// and may not be its caller: a [`StackEvent`](crate::StackEvent) with the stack's number tells
    /// more. [`ALL_KNOWN`]: there is none.
    pub unknown: u64,
    /// The instruction and the return addresses outwards from it, and unspecified words after them.
    pub addresses: [u64; STACK_FRAMES + STACK_BLOCK],
}

/// In [`Frames::unknown`]: the rules of all frames were known.
pub const ALL_KNOWN: u64 = u64::MAX;

/// How many different stacks are kept: entries of the `FRAMES` map.
pub const FRAMES_SLOTS: u32 = 32_768;

/// Whose work has which stack: a key of the `STACKS` map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct StackKey {
    /// Which process, as in [`RowKey`](crate::RowKey).
    pub process: u64,
    /// The program's frames, by their number in `FRAMES`; 0: none are known.
    pub user: u64,
    /// The kernel's frames; 0: none are known.
    pub kernel: u64,
    /// Which [path](crate::Path), by number.
    pub path: u32,
    /// Which of the programs that the process has run, as in [`ThreadStacks`].
    pub image: u32,
}

/// How many of these are kept: entries of the `STACKS` map.
pub const STACK_SLOTS: u32 = 65_536;

/// Work that has a stack, each part times how many the one that was looked at stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StackWork {
    /// Bytes that calls returned.
    pub bytes_returned: u64,
    /// Bytes that the CPU copied from the kernel to user memory.
    pub copied_to_user_bytes: u64,
    /// Bytes that the CPU copied from user memory to the kernel.
    pub copied_from_user_bytes: u64,
    /// Bytes of pages that the kernel copied for itself.
    pub copied_in_kernel_bytes: u64,
    /// Faults resolved without waiting for the disk.
    pub minor_faults: u64,
    /// Faults that waited for the disk.
    pub major_faults: u64,
    /// Bytes of page cache brought in beyond what was asked for.
    pub readahead_bytes: u64,
    /// Of those, evicted before anybody used them.
    pub readahead_unused_bytes: u64,
    /// Bytes of block requests.
    pub disk_read_bytes: u64,
    /// Time blocked on the disk.
    pub disk_wait_ns: u64,
}

/// A place in a file's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct CodePlace {
    /// The file.
    pub file: crate::FileKey,
    /// The byte of it at which the instruction is.
    pub offset: u64,
}

impl CodePlace {
    /// What it is made of.
    #[must_use]
    pub const fn words(self) -> [u64; 3] {
        let file = self.file;
        let rest = file.device as u64 | (file.generation as u64) << 32;
        [file.inode, rest, self.offset]
    }

    /// The first entry of the `RULES` map in which its rule may be.
    #[must_use]
    pub const fn first_slot(self) -> u32 {
        let [inode, rest, offset] = self.words();
        mix(mix(inode, rest), offset) as u32 & (RULES_SLOTS - 1)
    }
}

/// Mixes a word into a number.
#[must_use]
pub const fn mix(number: u64, word: u64) -> u64 {
    /// An odd number without a pattern: 2^64 over the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let number = (number ^ word).wrapping_mul(FACTOR);
    number ^ number >> 29
}

/// How many places' rules are kept: entries of the `RULES` map, an array that user space fills in memory
/// that both share. A power of two.
pub const RULES_SLOTS: u32 = 32_768;
/// In how many entries a place's rule may be, one after the other.
pub const RULES_TRIES: u32 = 8;

/// An entry of the `RULES` map.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RuleSlot {
    /// The place.
    pub place: CodePlace,
    /// Its rule, which is written last. [`UnwindRule::UNKNOWN`]: nothing is here.
    pub rule: UnwindRule,
}

/// How many each CPU remembers by their addresses: entries of the `REMEMBERED` map.
pub const REMEMBERED_SLOTS: u32 = 2_048;
/// How many stacks each CPU compares with: entries of the `RECALLED` map.
pub const RECALLED_SLOTS: u32 = 64;

/// How to get from a place in a function to the function's caller (x86-64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct UnwindRule(u64);

/// Where `ucontext.uc_mcontext.rbp` is, in bytes (arch/x86/include/uapi/asm/sigcontext.h).
pub const SIGNAL_FRAME_POINTER: u64 = 120;
/// Where `ucontext.uc_mcontext.rsp` is; `rip` is next.
pub const SIGNAL_STACK_POINTER: u64 = 160;

impl UnwindRule {
    /// It is not known yet.
    pub const UNKNOWN: Self = Self(0);
    /// The frame pointer leads to the caller, or nothing is known.
    pub const FRAME_POINTER: Self = Self(1);
    /// Nothing has called this function, such as a program's `_start`.
    pub const END: Self = Self(2);

    /// A signal handler returns here. Above the stack pointer are the registers of what it interrupted:
    /// `ucontext` (include/uapi/asm-generic/ucontext.h), at [`SIGNAL_FRAME_POINTER`] and
    /// [`SIGNAL_STACK_POINTER`], with the instruction after that.
    pub const SIGNAL: Self = Self(3);

    /// The return address ends `frame_bytes` above the stack pointer, at least 8. `saved_bytes` below
    /// that is the caller's frame pointer; 0: it is in its register still.
    #[must_use]
    pub const fn by_stack_pointer(frame_bytes: u32, saved_bytes: u32) -> Self {
        Self(frame_bytes as u64 | (saved_bytes as u64) << 32)
    }

    /// As a number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// From [`Self::number`].
    #[must_use]
    pub const fn of_number(value: u64) -> Self {
        Self(value)
    }

    /// See [`Self::by_stack_pointer`].
    #[must_use]
    pub const fn frame_bytes(self) -> u64 {
        self.0 & 0xffff_ffff
    }

    /// See [`Self::by_stack_pointer`].
    #[must_use]
    pub const fn saved_bytes(self) -> u64 {
        self.0 >> 32
    }
}

/// Frames that are kept of where in the kernel a copy is made: the innermost ones.
pub const COPY_FRAMES: usize = 24;

/// What a thread's stacks need, from one of the kernel's hooks to the next.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ThreadStacks {
    /// How many calls the present one stands for; 0: it is not chosen.
    pub call_stands_for: u64,
    /// What the present call has copied, to the program and from it.
    pub call_copied_bytes: [u64; 2],
    /// What the kernel has copied in the present fault.
    pub copied_in_kernel_bytes: u64,
    /// Read ahead for the block request that is next.
    pub readahead_bytes: u64,
    /// Where that is: the file, the first page, and the one after the last.
    pub ahead_file: crate::FileKey,
    /// See `ahead_file`.
    pub ahead: [u64; 2],
    /// The stacks with which the thread waits for the disk: the program's, and the kernel's.
    pub wait: [u64; 2],
    /// The kernel's stack of faults in user mode, by its number.
    pub fault_way: u64,
    /// For how many more faults it is taken to be the same.
    pub fault_way_left: u32,
    /// Which program the process runs, to which the addresses on its stack belong: how many `execve`
    /// have replaced it and its forebears', from the first process on.
    pub image: u32,
    /// 1 while a stack is taken: reading it may raise faults that are nobody's.
    pub taking: u64,
    /// Bytes of `copying` that are known.
    pub copying_bytes: u64,
    /// Where in the kernel the present call's copy was made.
    pub copying: [u64; COPY_FRAMES],
    /// What is to be added next, and to whose.
    pub key: StackKey,
    /// See `key`.
    pub work: StackWork,
}

const _: () = assert!(size_of::<Frames>() == 1_040 && align_of::<Frames>() == 8);
// A mask keeps the verifier sure of where they are.
const _: () = assert!((STACK_FRAMES + STACK_BLOCK).is_power_of_two());
const _: () = assert!(size_of::<StackKey>() == 32 && align_of::<StackKey>() == 8);
const _: () = assert!(size_of::<StackWork>() == 80);
const _: () = assert!(size_of::<RuleSlot>() == 32);
const _: () = assert!(size_of::<CodePlace>() == 24 && align_of::<CodePlace>() == 8);
