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
    /// The address that the innermost function returns to, where the chain of frame pointers leaves
    /// its caller out; 0: it does not. With [`GUESSED`], it is not known yet whether it does.
    pub caller: u64,
    /// The instruction and the return addresses outwards from it, and unspecified words after them.
    pub addresses: [u64; STACK_FRAMES + STACK_BLOCK],
}

/// In [`Frames::caller`]: the return address is taken to be the stack's last word.
pub const GUESSED: u64 = 1 << 63;

/// How many different stacks are kept: entries of the `FRAMES` map.
pub const FRAMES_SLOTS: u32 = 8_192;

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
    /// Unused, for the alignment: always 0.
    pub padding: u32,
}

/// How many of these are kept: entries of the `STACKS` map.
pub const STACK_SLOTS: u32 = 16_384;

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

/// A place in a file's code: a key of the `CALLERS` map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct CodePlace {
    /// The file.
    pub file: crate::FileKey,
    /// The byte of it at which the instruction is.
    pub offset: u64,
}

/// How many places are kept: entries of the `CALLERS` map.
pub const CALLERS_SLOTS: u32 = 16_384;

/// In the `CALLERS` map: it has been asked where the return address of a place is.
pub const CALLER_ASKED: u64 = 0;
/// In the same: the frame pointers lead to it. Any other value says how many bytes above the stack
/// pointer it ends.
pub const CALLER_BY_FRAME_POINTER: u64 = u64::MAX;

/// Frames that are kept of where in the kernel a copy is made: the innermost ones.
pub const COPY_FRAMES: usize = 24;

/// What a thread's stacks need, from one of the kernel's hooks to the next.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ThreadStacks {
    /// Of calls and of faults one is chosen in each block of them: how many are left of the block.
    pub left: [u32; 2],
    /// How many will be left when the chosen one comes.
    pub chosen: [u32; 2],
    /// How many are in a block, as a shift.
    pub shift: [u32; 2],
    /// When the block began.
    pub begun_ns: [u64; 2],
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
    /// The program's instruction whose caller was looked up last.
    pub instruction: u64,
    /// What [`CALLERS_SLOTS`]'s map says of it.
    pub caller_at: u64,
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
const _: () = assert!(size_of::<CodePlace>() == 24 && align_of::<CodePlace>() == 8);
