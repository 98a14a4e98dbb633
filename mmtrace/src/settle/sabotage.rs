//! Ways to spoil a settlement, for its tests: none may leave a claim confirmed that rests on what
//! was spoilt.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// Cold files are not made cold.
    WarmCache,
    /// Mappings of files are buffers into which they are read.
    CopyingMap,
    /// The hooks for disk reads see nothing, and nobody says so.
    BlindDiskProbe,
    /// The breakpoints on the copy routines see nothing, and nobody says so.
    BlindCopyProbe,
    /// The hooks for disk reads are at another event of the block layer.
    MisattachedDiskProbe,
    /// The hooks for minor and major faults are each at the other's event.
    MisattachedFaultProbe,
    /// Neither breakpoints on the copy routines nor watchpoints can be had.
    NoCopyProbe,
}
