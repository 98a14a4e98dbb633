//! The measures: their names, their units, and a set of values for one row.

use mmtrace_common::Path;
use serde::{Deserialize, Serialize};

/// What a measure's number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Calls, faults, requests.
    Count,
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Nanoseconds,
}

/// Defines [`Measure`] and [`Measures`] from one list, so that neither can lack what the other has.
macro_rules! measures {
    ($($(#[$doc:meta])* $field:ident = $variant:ident, $unit:ident, $label:literal;)*) => {
        /// One of the measures. In a recording it goes by its [`name`](Self::name).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Measure {
            $($(#[$doc])* $variant,)*
        }

        impl Measure {
            /// Every measure, in the order in which recordings list them.
            pub const ALL: [Self; [$(Measure::$variant),*].len()] = [$(Self::$variant),*];

            /// The key used in recordings.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($field),)*
                }
            }

            /// The words used in tables and messages.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }

            /// What the number counts.
            #[must_use]
            pub const fn unit(self) -> Unit {
                match self {
                    $(Self::$variant => Unit::$unit,)*
                }
            }
        }

        /// A value for every measure; `None` is one that could not be measured, never a zero.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Measures {
            $($(#[$doc])* pub $field: Option<u64>,)*
        }

        impl Measures {
            /// The value of `measure`.
            #[must_use]
            pub const fn get(&self, measure: Measure) -> Option<u64> {
                match measure {
                    $(Measure::$variant => self.$field,)*
                }
            }

            /// Sets the value of `measure`.
            pub const fn set(&mut self, measure: Measure, value: Option<u64>) {
                match measure {
                    $(Measure::$variant => self.$field = value,)*
                }
            }
        }
    };
}

measures! {
    /// Calls; faults are counted apart.
    operations = Operations, Count, "operations";
    /// Bytes that the calls asked for.
    bytes_requested = BytesRequested, Bytes, "bytes requested";
    /// Bytes that the calls returned.
    bytes_returned = BytesReturned, Bytes, "bytes returned";
    /// Bytes that the CPU copied from the kernel to the program.
    copied_to_user_bytes = CopiedToUserBytes, Bytes, "bytes copied to user";
    /// Bytes that the CPU copied from the program to the kernel.
    copied_from_user_bytes = CopiedFromUserBytes, Bytes, "bytes copied from user";
    /// Bytes of pages that the kernel copied for itself, such as on the first write to a private page.
    copied_in_kernel_bytes = CopiedInKernelBytes, Bytes, "bytes copied in kernel";
    /// Faults resolved without waiting for the disk, as the kernel charges them.
    minor_faults = MinorFaults, Count, "minor faults";
    /// Faults that waited for the disk, as the kernel charges them.
    major_faults = MajorFaults, Count, "major faults";
    /// Bytes made accessible by faults.
    mapped_bytes = MappedBytes, Bytes, "mapped bytes";
    /// Block requests for reading.
    disk_reads = DiskReads, Count, "disk reads";
    /// Bytes of those.
    disk_read_bytes = DiskReadBytes, Bytes, "disk read bytes";
    /// Block requests for writing.
    disk_writes = DiskWrites, Count, "disk writes";
    /// Bytes of those.
    disk_write_bytes = DiskWriteBytes, Bytes, "disk write bytes";
    /// Bytes brought into the page cache.
    cache_filled_bytes = CacheFilledBytes, Bytes, "bytes cached";
    /// Of those, beyond what was asked for.
    readahead_bytes = ReadaheadBytes, Bytes, "readahead bytes";
    /// Of those, never used before they were evicted or the run ended.
    readahead_unused_bytes = ReadaheadUnusedBytes, Bytes, "unused readahead bytes";
    /// Time inside the path's kernel entry, without the paths nested in it.
    kernel_time_ns = KernelTimeNs, Nanoseconds, "kernel time";
    /// Of that, blocked on the disk.
    disk_wait_ns = DiskWaitNs, Nanoseconds, "disk wait";
}

impl Measures {
    /// What the kernel programs counted, with every measure that is not in `measured` null.
    ///
    /// The kernel programs leave what they cannot count at 0, so only the plan of hooks knows which
    /// zeros are real.
    #[must_use]
    pub fn from_kernel(counted: &mmtrace_common::Measures, measured: MeasureSet) -> Self {
        // Taken apart field by field: a measure added to the kernel side must be placed here.
        let &mmtrace_common::Measures {
            operations,
            bytes_requested,
            bytes_returned,
            unwatched_bytes: _,
            copied_to_user_bytes,
            copied_from_user_bytes,
            copied_in_kernel_bytes,
            minor_faults,
            major_faults,
            mapped_bytes,
            cache_filled_bytes,
            readahead_bytes,
            disk_reads,
            disk_read_bytes,
            kernel_time_ns,
            disk_wait_ns,
        } = counted;
        let mut measures = Self {
            operations: Some(operations),
            bytes_requested: Some(bytes_requested),
            bytes_returned: Some(bytes_returned),
            copied_to_user_bytes: Some(copied_to_user_bytes),
            copied_from_user_bytes: Some(copied_from_user_bytes),
            copied_in_kernel_bytes: Some(copied_in_kernel_bytes),
            minor_faults: Some(minor_faults),
            major_faults: Some(major_faults),
            mapped_bytes: Some(mapped_bytes),
            cache_filled_bytes: Some(cache_filled_bytes),
            readahead_bytes: Some(readahead_bytes),
            disk_reads: Some(disk_reads),
            disk_read_bytes: Some(disk_read_bytes),
            kernel_time_ns: Some(kernel_time_ns),
            disk_wait_ns: Some(disk_wait_ns),
            ..Self::default()
        };
        for measure in Measure::ALL {
            if !measured.contains(measure) {
                measures.set(measure, None);
            }
        }
        measures
    }

    /// Zero for every measure in `measured`, null for the others.
    #[must_use]
    pub fn zero(measured: MeasureSet) -> Self {
        let mut measures = Self::default();
        for measure in Measure::ALL {
            if measured.contains(measure) {
                measures.set(measure, Some(0));
            }
        }
        measures
    }

    /// Adds `other`, measure by measure. A sum is null only when both sides are.
    ///
    /// Sums stop at `u64::MAX`, which no run reaches.
    pub fn add(&mut self, other: &Self) {
        for measure in Measure::ALL {
            let sum = match (self.get(measure), other.get(measure)) {
                (Some(ours), Some(theirs)) => Some(ours.saturating_add(theirs)),
                (ours, theirs) => ours.or(theirs),
            };
            self.set(measure, sum);
        }
    }

    /// Whether nothing was counted: every measure is 0 or null.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        Measure::ALL
            .iter()
            .all(|&measure| self.get(measure).unwrap_or(0) == 0)
    }
}

/// A set of measures: those that a run can give for a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeasureSet(u32);

impl MeasureSet {
    /// No measure.
    pub const NONE: Self = Self(0);

    /// The set of `measures`.
    #[must_use]
    pub const fn of(measures: &[Measure]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < measures.len() {
            bits |= 1 << measures[index] as u32;
            index += 1;
        }
        Self(bits)
    }

    /// Whether `measure` is in the set.
    #[must_use]
    pub const fn contains(self, measure: Measure) -> bool {
        self.0 & (1 << measure as u32) != 0
    }

    /// What is in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Which measures a run can give, path by path. What it cannot give is null in every row and total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured([MeasureSet; Path::ALL.len()]);

impl Measured {
    /// The same measures for every path.
    #[must_use]
    pub const fn everywhere(measures: MeasureSet) -> Self {
        Self([measures; Path::ALL.len()])
    }

    /// What can be measured for `path`.
    #[must_use]
    pub const fn on(&self, path: Path) -> MeasureSet {
        self.0[path as usize]
    }

    /// Adds a measure that can be measured for every path.
    pub fn add(&mut self, measure: Measure) {
        for set in &mut self.0 {
            *set = set.union(MeasureSet::of(&[measure]));
        }
    }

    /// Sets what can be measured for `path`.
    pub const fn set(&mut self, path: Path, measures: MeasureSet) {
        self.0[path as usize] = measures;
    }
}
