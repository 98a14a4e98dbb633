//! What a workload knows of itself, and what the kernel counted for it.

use serde::{Deserialize, Serialize};

/// Page faults, as the kernel charges them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    /// Without waiting for the disk.
    pub(crate) minor: u64,
    /// With waiting for the disk.
    pub(crate) major: u64,
}

impl Faults {
    /// Both kinds.
    pub(crate) fn sum(self) -> u64 {
        self.minor + self.major
    }

    /// What was charged since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            minor: self.minor - before.minor,
            major: self.major - before.major,
        }
    }
}

/// What a workload did, summed from what its calls returned. It prints this as one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Truth {
    /// Calls made on the file in question, failed ones too.
    pub(crate) calls: u64,
    /// Bytes asked for in those.
    pub(crate) requested_bytes: u64,
    /// Bytes that they returned.
    pub(crate) returned_bytes: u64,
    /// Pages that were loaded from or stored to.
    pub(crate) touched_pages: u64,
    /// Bytes of the mapping that were accessible at the end, by `/proc/self/smaps`.
    pub(crate) mapped_bytes: u64,
    /// Faults charged during the part of the workload that its name is about.
    pub(crate) faults: Faults,
    /// Of what calls returned, how much through each of the places that have names.
    #[serde(default)]
    pub(crate) site_bytes: [u64; 3],
    /// Where in the file the loads were that took a fault.
    #[serde(default)]
    pub(crate) faulted_offsets: Vec<u64>,
    /// Bytes of the file that were in the page cache before they were evicted.
    #[serde(default)]
    pub(crate) cached_bytes: u64,
    /// How long the calls took all together.
    #[serde(default)]
    pub(crate) elapsed_ns: u64,
    /// Of that, on a processor.
    #[serde(default)]
    pub(crate) processor_ns: u64,
}

impl Truth {
    /// Adds a call that asked for `requested` bytes and returned `returned`.
    pub(crate) fn add(&mut self, requested: usize, returned: u64) {
        self.calls += 1;
        self.requested_bytes += requested as u64;
        self.returned_bytes += returned;
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// By itself, with this status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl End {
    /// From what `wait` reports.
    pub(crate) fn from_wait_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Exit(libc::WEXITSTATUS(status))
        }
    }
}

/// What the kernel counted for a command and the children that it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KernelTruth {
    /// The process.
    pub(crate) pid: i32,
    /// How it ended.
    pub(crate) end: End,
    /// By `wait4`.
    pub(crate) faults: Faults,
    /// `read_bytes` of `/proc/PID/io`, read when it had ended; `None` on a kernel without.
    pub(crate) disk_read_bytes: Option<u64>,
}
