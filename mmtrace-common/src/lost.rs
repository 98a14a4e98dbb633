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
    /// Faults whose mapping could not be found, or whose beginning was missed and that no event tells
    /// of: counted under `other`.
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
    /// How often a CPU came online, whose copies no breakpoint saw at first.
    Copies = 9,
    /// Kernel samples that were not counted: no room for another stack, or no stack to be had.
    KernelSamples = 10,
    /// Work that is in no stretch of the timeline: no room for another.
    Timeline = 11,
    /// Stacks that were not kept: no room for another.
    Stacks = 12,
    /// Code that was mapped, which did not fit the ring buffer.
    Code = 13,
    /// Faults whose end was not told, so that their time is not known: the CPU had come online since
    /// the events were opened, or another program was at work on a BPF map there, when the kernel
    /// runs no programs of events.
    FaultTimes = 14,
    /// Work that is in no cell of its file's heat map: no room for another, or where in the file it
    /// was is not known.
    HeatMaps = 15,
    /// Pages read ahead of which it is not known whether they were used: no room for more, or where in
    /// its file a request read is not known.
    ReadaheadUse = 16,
}

impl Lost {
    /// Every kind.
    pub const ALL: [Self; 17] = [
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
        Self::Timeline,
        Self::Stacks,
        Self::Code,
        Self::FaultTimes,
        Self::HeatMaps,
        Self::ReadaheadUse,
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
            Self::Timeline => "timeline",
            Self::Stacks => "stacks",
            Self::Code => "code",
            Self::FaultTimes => "fault_times",
            Self::HeatMaps => "heat_maps",
            Self::ReadaheadUse => "readahead_use",
        }
    }
}
