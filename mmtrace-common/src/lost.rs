//! What the kernel side could not keep, counted: indices of the `LOST` map.

/// A kind of loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Lost {
    /// Work not counted: no room for another row.
    Rows = 0,
    /// Threads not followed: no room for another.
    Threads = 1,
    /// Starts, ends and command lines of processes that did not fit the ring buffer.
    ProcessEvents = 2,
    /// File names that did not fit the ring buffer.
    FileNames = 3,
    /// Faults whose mapping could not be found: counted under `other`.
    Mappings = 4,
    /// Threads whose kernel counters were not kept: no room for another process.
    Truths = 5,
    /// System calls through the 32-bit interface, which are not counted: their numbers mean other
    /// calls.
    CompatCalls = 6,
    /// Requests of aio and io_uring of which neither operation nor bytes are counted: no room, or
    /// too many in one call.
    Requests = 7,
    /// Requests of aio and io_uring whose completion was not seen, or could not be told apart.
    Completions = 8,
    /// Copies that no breakpoint could see: of a call, or of all that a program does.
    Copies = 9,
    /// Kernel samples that were not counted: no room for another stack, or no stack to be had.
    KernelSamples = 10,
}

impl Lost {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Rows,
        Self::Threads,
        Self::ProcessEvents,
        Self::FileNames,
        Self::Mappings,
        Self::Truths,
        Self::CompatCalls,
        Self::Requests,
        Self::Completions,
        Self::Copies,
        Self::KernelSamples,
    ];

    /// The name used in recordings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Threads => "threads",
            Self::ProcessEvents => "process_events",
            Self::FileNames => "file_names",
            Self::Mappings => "mappings",
            Self::Truths => "truths",
            Self::CompatCalls => "compat_calls",
            Self::Requests => "requests",
            Self::Completions => "completions",
            Self::Copies => "copies",
            Self::KernelSamples => "kernel_samples",
        }
    }
}
