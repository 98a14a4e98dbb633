//! What the kernel side tells as it happens, through the ring buffer.

use crate::{FileKey, stack::CodePlace};

/// The longest path that is told, in bytes; a longer one loses its upper directories.
pub const PATH_BYTES: usize = 4096;
/// The longest single name in a path, with its terminator.
pub const NAME_BYTES: usize = 256;
/// How much of a command line is told.
pub const ARGUMENT_BYTES: usize = 1024;

/// Which event follows an [`EventHeader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// A process started: [`ProcessEvent`].
    Started = 1,
    /// A process runs another program: [`ProcessEvent`], then its command line.
    Executed = 2,
    /// A process's last thread ended: [`ProcessEvent`].
    Ended = 3,
    /// A file was seen for the first time: [`FileEvent`], then its path.
    File = 4,
    /// More of the path of the file told last: [`FileEvent`], then directories further up.
    FileMore = 5,
    /// A process has mapped code: [`CodeEvent`].
    Code = 6,
    /// A stack was taken whose [rules](crate::stack::UnwindRule) are not all known: [`StackEvent`].
    Stack = 7,
}

/// What every event begins with.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct EventHeader {
    /// The [`EventKind`], by number.
    pub kind: u32,
    /// Bytes of text that follow the event's fixed part.
    pub text_bytes: u32,
}

/// A process started, ran another program, or ended.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ProcessEvent {
    /// Kind, and the length of the command line.
    pub header: EventHeader,
    /// The process, as in [`RowKey`](crate::RowKey).
    pub process: u64,
    /// `Started`: its parent.
    pub parent: u64,
    /// When, on the kernel's monotonic clock.
    pub at_ns: u64,
    /// `Started`: its pid, in the initial namespace.
    pub pid: u32,
    /// `Ended`: as `wait` gives it.
    pub exit_status: u32,
    /// `Started`, of the target: `task_struct.min_flt` and `maj_flt` from before it was followed.
    pub faults_before: [u64; 2],
    /// The same of `task_struct.ioac.read_bytes`.
    pub disk_read_bytes_before: u64,
}

/// A file was seen for the first time.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FileEvent {
    /// Kind, and the length of the path.
    pub header: EventHeader,
    /// Which file.
    pub file: FileKey,
    /// `inode.i_size`.
    pub size_bytes: u64,
    /// `super_block.s_magic`.
    pub magic: u64,
    /// `inode.i_rdev`, of a device.
    pub rdev: u32,
    /// `inode.i_mode`.
    pub mode: u32,
    /// 1: with this, the path goes up to the root that the process sees; 0: it does not, yet.
    pub complete: u32,
    /// 1: the file has no name any more.
    pub deleted: u32,
    /// `file_system_type.name`.
    pub filesystem: [u8; 16],
}

/// A mapping of code.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CodeEvent {
    /// Kind; no text.
    pub header: EventHeader,
    /// The process, as in [`RowKey`](crate::RowKey).
    pub process: u64,
    /// Which of its programs, as in [`ThreadStacks`](crate::stack::ThreadStacks).
    pub image: u64,
    /// The mapping's first address.
    pub start: u64,
    /// The address after its last.
    pub end: u64,
    /// What is mapped at `start`.
    pub place: CodePlace,
}

/// How much of its stack is told with a [`StackEvent`]: a multiple of [`STACK_PIECE_BYTES`].
pub const STACK_BYTES: usize = 8192;
/// The same while there is much room for it.
pub const DEEP_STACK_BYTES: usize = 4 * STACK_BYTES;
/// What is read of the stack at once.
pub const STACK_PIECE_BYTES: usize = 512;

/// What is on the stack where a frame's rule is not known, for user space to find its callers.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct StackEvent {
    /// Kind, and how many bytes of the stack are known: these follow.
    pub header: EventHeader,
    /// The process, as in [`RowKey`](crate::RowKey).
    pub process: u64,
    /// Which of its programs, as in [`ThreadStacks`](crate::stack::ThreadStacks).
    pub image: u64,
    /// The stack, by its number in `FRAMES`.
    pub number: u64,
    /// The frame's instruction: an address in the call that it has made.
    pub instruction: u64,
    /// Where in a file that is.
    pub place: CodePlace,
    /// The frame's stack pointer: the address of the first byte told.
    pub stack_pointer: u64,
    /// What is in the register of the frame pointer.
    pub frame_pointer: u64,
}

const _: () = assert!(size_of::<StackEvent>() == 80 && align_of::<StackEvent>() == 8);
const _: () = assert!(STACK_BYTES.is_multiple_of(STACK_PIECE_BYTES));
const _: () = assert!(size_of::<CodeEvent>() == 64 && align_of::<CodeEvent>() == 8);
const _: () = assert!(size_of::<EventHeader>() == 8);
const _: () = assert!(size_of::<ProcessEvent>() == 64 && align_of::<ProcessEvent>() == 8);
const _: () = assert!(size_of::<FileEvent>() == 72 && align_of::<FileEvent>() == 8);
