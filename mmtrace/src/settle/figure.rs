//! The figures: what is known of an experiment, and where each number comes from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recording::Unit;

/// Defines [`Figure`] from one list.
macro_rules! figures {
    ($($variant:ident, $unit:ident, $label:literal;)*) => {
        /// Something that is counted of an experiment.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Figure {
            $(#[doc = $label] $variant,)*
        }

        impl Figure {
            /// Each.
            pub const ALL: [Self; [$(Figure::$variant),*].len()] = [$(Self::$variant),*];

            /// In words.
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
    };
}

figures! {
    // From mmtrace's recording.
    DiskReadBytes, Bytes, "read from disk";
    CopiedToUserBytes, Bytes, "copied kernel to user";
    CopiedFromUserBytes, Bytes, "copied user to kernel";
    CopiedInKernelBytes, Bytes, "pages copied in the kernel";
    Copies, Bytes, "copied between kernel and user";
    FirstCopies, Bytes, "copied for the first process";
    Operations, Count, "I/O calls";
    ReturnedBytes, Bytes, "returned by calls";
    Faults, Count, "page faults";
    // From the programs themselves.
    SizeBytes, Bytes, "size";
    CachedBeforeBytes, Bytes, "in the page cache before";
    CachedAfterBytes, Bytes, "in the page cache after";
    CheckedBytes, Bytes, "bytes looked at";
    RightBytes, Bytes, "bytes as they must be";
    PagesCompared, Count, "pages compared";
    SamePages, Count, "the same physical pages in both";
    WatchedBytes, Count, "bytes watched";
    KernelStores, Count, "of the watched bytes, stored to by the kernel";
    DirtiedBytes, Bytes, "dirtied for the disk";
    DeviceWrittenBytes, Bytes, "written by the device";
    SwappedBytes, Bytes, "in swap space";
    MemoryBytes, Bytes, "memory in use";
    ProgramStoredBytes, Bytes, "stored by the sending program itself";
    ProgramLoadedBytes, Bytes, "loaded by the receiving program itself";
    FutexCalls, Count, "futex calls";
}

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Counted by mmtrace's hooks.
    Hooks,
    /// Every copy was seen at the kernel's copy routines.
    CopyRoutines,
    /// What the calls returned, and watchpoints on bytes of the program's memory.
    ReturnsAndWatchpoints,
    /// What the calls returned.
    Returns,
    /// The kernel's page tables, as /proc/PID/pagemap and smaps show them.
    PageTables,
    /// The kernel's own counters: of the task in /proc/PID/io, of the device in /sys/block.
    KernelCounters,
    /// What the program itself saw.
    Program,
}

impl Evidence {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Hooks => "mmtrace's hooks",
            Self::CopyRoutines => "every call of the kernel's copy routines",
            Self::ReturnsAndWatchpoints => "return values and watchpoints",
            Self::Returns => "return values",
            Self::PageTables => "page tables",
            Self::KernelCounters => "the kernel's own counters",
            Self::Program => "what the program saw",
        }
    }
}

/// A number, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The number; null when it could not be had.
    pub number: Option<u64>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Value {
    /// A number from somewhere.
    #[must_use]
    pub const fn known(number: u64, evidence: Evidence) -> Self {
        Self {
            number: Some(number),
            evidence: Some(evidence),
            reason: None,
        }
    }

    /// No number.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self {
            number: None,
            evidence: None,
            reason: Some(reason.into()),
        }
    }
}

/// What is known of one experiment.
pub type Values = BTreeMap<Figure, Value>;
