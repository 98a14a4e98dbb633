//! What caused the work (the path), and how much of it there was (the measures).

/// The kernel data path that a thread was in when work was done for it.
///
/// Paths nest: a fault taken while `read()` copies into a mapped buffer is [`Path::Mmap`] work
/// inside a [`Path::Read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Path {
    /// Buffered reads of files and block devices, by any call.
    Read = 0,
    /// Faults on file mappings that are not program text, and populating such mappings.
    Mmap = 1,
    /// `execve`'s own reads, and faults on executable mappings.
    Exec = 2,
    /// Buffered writes, by any call.
    Write = 3,
    /// `O_DIRECT` and DAX, both ways.
    Direct = 4,
    /// `splice`, `sendfile`, `copy_file_range`, `vmsplice`, `tee`.
    Splice = 5,
    /// Pipes, FIFOs, sockets, message queues and other processes' memory.
    Ipc = 6,
    /// `readahead`, and the `WILLNEED` and `POPULATE` advices.
    Prefetch = 7,
    /// Anonymous pages read from swap and written to it.
    Swap = 8,
    /// Flusher threads, `fsync`, `msync`.
    Writeback = 9,
    /// Directory and file-system blocks.
    Metadata = 10,
    /// Everything else: counted, never dropped.
    Other = 11,
}

impl Path {
    /// Every path, in the order in which tables list them.
    pub const ALL: [Self; 12] = [
        Self::Read,
        Self::Mmap,
        Self::Exec,
        Self::Write,
        Self::Direct,
        Self::Splice,
        Self::Ipc,
        Self::Prefetch,
        Self::Swap,
        Self::Writeback,
        Self::Metadata,
        Self::Other,
    ];

    /// The name used in recordings and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Mmap => "mmap",
            Self::Exec => "exec",
            Self::Write => "write",
            Self::Direct => "direct",
            Self::Splice => "splice",
            Self::Ipc => "ipc",
            Self::Prefetch => "prefetch",
            Self::Swap => "swap",
            Self::Writeback => "writeback",
            Self::Metadata => "metadata",
            Self::Other => "other",
        }
    }

    /// The path whose number is `number`; `None` for a number that no path has.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}

/// What is counted for each process, file and path. All counts are since the target's start.
///
/// What a kernel or backend cannot count stays 0 here; user space turns it into `null`, with the
/// reason, from the plan of hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Measures {
    /// Calls. Faults are counted apart.
    pub operations: u64,
    /// Bytes that the calls asked for.
    pub bytes_requested: u64,
    /// Bytes that the calls returned.
    pub bytes_returned: u64,
    /// Of those, what calls returned of which not all copies were watched.
    pub unwatched_bytes: u64,
    /// Bytes that the CPU copied from the kernel to user memory.
    pub copied_to_user_bytes: u64,
    /// Bytes that the CPU copied from user memory to the kernel.
    pub copied_from_user_bytes: u64,
    /// Bytes of pages that the kernel copied for itself.
    pub copied_in_kernel_bytes: u64,
    /// Faults resolved without waiting for the disk, as the kernel charges them to the task.
    pub minor_faults: u64,
    /// Faults that waited for the disk, as the kernel charges them to the task.
    pub major_faults: u64,
    /// Bytes made accessible by faults.
    pub mapped_bytes: u64,
    /// Bytes of page cache brought in.
    pub cache_filled_bytes: u64,
    /// Of those, beyond what was asked for.
    pub readahead_bytes: u64,
    /// Block requests for reading, as file systems submit them; stacked devices count once.
    pub disk_reads: u64,
    /// Bytes of those.
    pub disk_read_bytes: u64,
    /// Time inside the path's kernel entry, without the paths nested in it.
    pub kernel_time_ns: u64,
    /// Of that, blocked on the disk.
    pub disk_wait_ns: u64,
}

/// What the times of reads stand on whose time was not taken of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TimeSamples {
    /// How many were taken.
    pub timed: u64,
    /// For how many calls these stand.
    pub stand_for: u64,
    /// What the variance of their sum is at most, in ns² as a shift by [`VARIANCE_SHIFT`] leaves
    /// it: of a time t that was chosen among n, n (n - 1) t² (Horvitz and Thompson).
    pub variance: u64,
}

/// See [`TimeSamples::variance`].
pub const VARIANCE_SHIFT: u32 = 12;
/// A longer time adds as much to it as this one, lest the sum overflow: a second.
pub const MOST_SAMPLED_NS: u64 = 1 << 30;

/// What was seen of a path's calls while all of their copies were watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WatchedCalls {
    /// Bytes that they returned.
    pub returned_bytes: u64,
    /// Bytes copied to user memory.
    pub copied_to_user_bytes: u64,
    /// Bytes copied from it.
    pub copied_from_user_bytes: u64,
}

/// How many measures there are: [`Measures`] is as many `u64`s.
pub const MEASURES: usize = size_of::<Measures>() / size_of::<u64>();

const _: () = assert!(MEASURES == 16 && align_of::<Measures>() == 8);
