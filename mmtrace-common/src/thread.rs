//! What the kernel side knows of a thread that it follows.

use crate::{FileKey, HeatKey, Measures, Program, RowKey, stack::ThreadStacks};

/// The system call that a thread is in.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Call {
    /// 1 inside a call.
    pub active: u32,
    /// The [path](crate::Path) of what is done in it, by number.
    pub path: u32,
    /// The file that it is about.
    pub file: FileKey,
    /// When it began, as far as its time was taken.
    pub started_ns: u64,
    /// Time of the faults taken inside it, which is not its own.
    pub nested_ns: u64,
    /// Bytes asked for.
    pub size_bytes: u64,
    /// Where in the file; `u64::MAX`: at its position.
    pub offset: u64,
    /// The `struct file`, or 0.
    pub file_pointer: u64,
    /// `CallSpec::flags`.
    pub flags: u32,
    /// `CallSpec::special`.
    pub special: u32,
    /// Which way its data goes: [`TO_USER`], [`FROM_USER`] or [`EITHER_WAY`].
    pub direction: u32,
    /// 1: it works on user memory that the kernel knows by its pages (io_uring's registered
    /// buffers), so that a copy to pages is one to the program.
    pub registered: u32,
    /// The window of watching that it began in: see the map `WATCHED`.
    pub window: u64,
    /// One more than its number, as long as another call of that number on the same descriptor
    /// differs from it in size and offset only; else 0.
    pub repeatable: u32,
    /// 1 if such calls have an offset as well.
    pub has_offset: u16,
    /// 1 while the thread's pending work of calls is that of its path and file.
    pub in_row: u16,
    /// Of a worker of io_uring whose request is looked up: when that was submitted; 0: it works for
    /// none that is known.
    pub request_ns: u64,
    /// As the time of how many calls its own since it began counts; 0: it is not taken.
    pub time_counts: u32,
    /// How many calls before it were the same but for size and offset, as far as that matters.
    pub repeats: u32,
    /// What a special call's end needs of its arguments.
    pub extra: [u64; 3],
}

/// The fault that a thread is in.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Fault {
    /// 1 inside a fault.
    pub active: u32,
    /// 1 when `path` and `file` are known.
    pub resolved: u32,
    /// The [path](crate::Path), by number.
    pub path: u32,
    /// The kernel's `FAULT_FLAG_` bits, where the backend sees them.
    pub flags: u32,
    /// The file that is mapped there.
    pub file: FileKey,
    /// The address.
    pub address: u64,
    /// When it began.
    pub started_ns: u64,
    /// The page of the file, or `u64::MAX`.
    pub page: u64,
    /// 1 for a fault taken for the kernel's own access to user pages (`regs` is null): it raises no
    /// software event.
    pub silent: u32,
    /// 1 once it is known to be on a page that is there and may not be written.
    pub write_protected: u32,
    /// `handle_mm_fault`'s `regs`.
    pub registers: u64,
    /// The `vm_area_struct`, where the backend is passed it; else 0.
    pub vma: u64,
}

/// Work that is not in its row yet: added there when the thread goes on to another row, or ends.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Pending {
    /// Which row.
    pub key: RowKey,
    /// What is to be added.
    pub measures: Measures,
}

/// The file that a descriptor named when the thread last used one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CachedFd {
    /// The descriptor; -1: none.
    pub fd: i32,
    /// The [path](crate::Path) of reads of it, by number.
    pub read_path: u32,
    /// The [path](crate::Path) of writes to it, by number.
    pub write_path: u32,
    /// The process's generation of descriptors then.
    pub generation: u32,
    /// The file.
    pub file: FileKey,
    /// The `struct file`.
    pub file_pointer: u64,
}

/// The mapping that the thread last faulted on.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CachedMapping {
    /// Its first address.
    pub start: u64,
    /// The address after its last.
    pub end: u64,
    /// Its `vm_pgoff`.
    pub first_page: u64,
    /// Bytes of its file; `u64::MAX`: it has no heat map, or none are made.
    pub file_bytes: u64,
    /// Its file, all zero for anonymous memory.
    pub file: FileKey,
    /// The [path](crate::Path) of faults on it, by number.
    pub path: u32,
    /// The process's generation of mappings then.
    pub generation: u32,
}

/// In [`Call::direction`] and [`LastCopy::direction`]: to the program's memory.
pub const TO_USER: u32 = 0;
/// In the same: from the program's memory.
pub const FROM_USER: u32 = 1;
/// In [`Call::direction`]: the call does not say.
pub const EITHER_WAY: u32 = 2;

/// The copy that a thread has made last. How much of it was moved is not known when it begins: the
/// next copy tells, or what the call returns.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct LastCopy {
    /// Bytes to be moved; 0: there is none, or all were.
    pub size_bytes: u64,
    /// The `iov_iter`, or where in user memory.
    pub user: u64,
    /// What the iterator had left before, or where in the kernel's memory.
    pub kernel: u64,
    /// By an iterator: the page or folio that a buffered write copies to, and where in it; for other
    /// copies 0, and where in the kernel's memory.
    pub place: [u64; 2],
    /// [`TO_USER`] or [`FROM_USER`].
    pub direction: u32,
    /// 1: by an iterator.
    pub iterates: u32,
}

/// Copies that a thread has made in the call or request in progress.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Copies {
    /// Bytes, by direction.
    pub bytes: [u64; 2],
    /// The last one, which counts in `bytes`.
    pub last: LastCopy,
}

/// Blocks of calls and of faults, in each of which one is chosen.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Blocks {
    /// How many are left of the block.
    pub left: [u32; 2],
    /// How many will be left when the chosen one comes.
    pub chosen: [u32; 2],
    /// How many are in a block, as a shift.
    pub shift: [u32; 2],
    /// When it began.
    pub begun_ns: [u64; 2],
}

/// Where a walk from a file up to its root is.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Walk {
    /// The `dentry` that is next.
    pub dentry: u64,
    /// The `vfsmount` that it is in.
    pub vfsmount: u64,
    /// 1 when there is nothing above.
    pub ended: u64,
}

/// In [`Thread::ran`]: the program of `mm_filemap_add_to_page_cache`.
pub const RAN_CACHE_FILLED: u32 = 1;
/// In [`Thread::ran`]: the program of `block_bio_queue`.
pub const RAN_BIO_QUEUE: u32 = 2;

/// How many threads are followed at a time at most: entries of the `THREADS` map, a power of two.
pub const THREAD_SLOTS: u32 = 16_384;

/// A thread that is followed: an entry of the `THREADS` map.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Thread {
    /// Which process, as in [`RowKey`].
    pub process: u64,
    /// When the stretch of the [timeline](crate::timeline) ends that `pending` belongs to.
    pub stretch_ends_ns: u64,
    /// Which stretch that is.
    pub stretch: u32,
    /// 1: the kernel has made it for io_uring (`PF_IO_WORKER`): a worker, or what polls a ring.
    pub io_worker: u32,
    /// Its `task_struct`.
    pub task: u64,
    /// Its tgid.
    pub tgid: u32,
    /// Its tid; 0: nobody has this entry.
    pub tid: u32,
    /// 1 while the program that it runs, and the program's loader, have not been told by name.
    pub unnamed: u32,
    /// [`RAN_CACHE_FILLED`] and [`RAN_BIO_QUEUE`]: which raw tracepoint's program has just counted
    /// what the tracepoint's event tells next.
    pub ran: u32,
    /// Where a walk from a file up to its root is.
    pub walk: Walk,
    /// When it began to wait for the disk; 0: it does not.
    pub wait_started_ns: u64,
    /// `task_struct.min_flt` and `maj_flt` when it was followed, less what was counted since.
    pub faults_before: [u64; 2],
    /// Faults counted since.
    pub faults_counted: [u64; 2],
    /// `task_struct.ioac.read_bytes` when it was followed.
    pub disk_read_bytes_before: u64,
    /// The system call in progress.
    pub call: Call,
    /// The fault in progress.
    pub fault: Fault,
    /// The last descriptor used.
    pub fd: CachedFd,
    /// The last mapping faulted on.
    pub mapping: CachedMapping,
    /// Copies that are not in `pending` yet.
    pub copies: Copies,
    /// Work of calls, of faults, and copies of calls that are about no data: apart, since they
    /// alternate.
    pub pending: [Pending; 3],
    /// Which of its calls and faults are looked at.
    pub blocks: Blocks,
    /// What its stacks need.
    pub stacks: ThreadStacks,
    /// Where the key of a heat map's cell is put together.
    pub heat: HeatKey,
    /// How often each [`Program`] ran for it.
    pub hits: Hits,
}

/// How often each [`Program`] ran for a thread, by its number.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Hits(pub [u64; Program::ALL.len()]);

// By hand: the language has it for arrays of up to 32 only.
impl Default for Hits {
    fn default() -> Self {
        Self([0; Program::ALL.len()])
    }
}

const _: () = assert!(size_of::<Pending>() == 160);
const _: () = assert!(size_of::<Thread>().is_multiple_of(8) && align_of::<Thread>() == 8);
