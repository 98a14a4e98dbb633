//! Types that mmtrace's kernel programs and its user space share.
//!
//! Each is defined once, here, with its layout asserted at compile time: the kernel side writes
//! them into maps and a ring buffer, user space reads the same bytes.
#![no_std]

pub mod ahead;
pub mod call;
pub mod event;
pub mod heat;
pub mod hook;
pub mod kernel;
pub mod lost;
pub mod path;
pub mod request;
pub mod row;
pub mod sample;
pub mod stack;
pub mod thread;
pub mod timeline;

#[cfg(feature = "user")]
mod pod;

pub use ahead::{AHEAD_PAGES, AHEAD_RANGE, AHEAD_ROWS, AHEAD_SLOTS, Ahead, AheadKey, AheadOwner};
pub use call::{CallSpec, FLAG_CHANGES_FDS, FLAG_CHANGES_MAPPINGS, FLAG_IOVEC, NO_ARGUMENT};
pub use event::{
    CodeEvent, DEEP_STACK_BYTES, EventHeader, EventKind, FileEvent, ProcessEvent, STACK_BYTES,
    STACK_PIECE_BYTES, StackEvent,
};
pub use heat::{HEAT_SLOTS, HeatKey, HeatWork};
pub use hook::Program;
pub use kernel::Kernel;
pub use lost::Lost;
pub use path::{Measures, Path, TimeSamples, WatchedCalls};
pub use request::{Request, RequestKey};
pub use row::{FileKey, RowKey, Truth};
pub use sample::{SAMPLE_FRAMES, SAMPLE_SLOTS, SampleKey};
pub use thread::{THREAD_SLOTS, Thread};
pub use timeline::{STRETCH_SLOTS, StretchKey};

/// The `prctl` option by which a thread asks to be followed: no kernel knows it, so that the call
/// fails with `EINVAL` and changes nothing. Its second argument must be the run's nonce, its third
/// the [role](Role).
pub const REGISTER_OPTION: u32 = 0x6d6d_7472;

/// What a thread that registers itself is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// The target, directly before its `execve`.
    Target = 1,
    /// A thread of mmtrace that makes the calibration's read and faults.
    Calibration = 2,
    /// The calibration's thread again: no longer followed.
    Done = 3,
}

/// The [`RowKey::process`] of the calibration.
pub const CALIBRATION_PROCESS: u64 = u64::MAX;
