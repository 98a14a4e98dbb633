//! The keys by which the kernel side aggregates.

/// A file, as the kernel knows it. All zero: no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct FileKey {
    /// `inode.i_ino`, or `inode.i_rdev` where that is 0.
    pub inode: u64,
    /// `super_block.s_dev`, in the kernel's own encoding (major in the upper 12 bits of 32).
    pub device: u32,
    /// `inode.i_generation`: tells a new file from a deleted one that had its inode number.
    pub generation: u32,
}

/// A row of the recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct RowKey {
    /// Which process: its tgid in the upper half, in the lower one part of its start time, so that
    /// a pid that is used again is another process.
    pub process: u64,
    /// Which file.
    pub file: FileKey,
    /// Which [path](crate::Path), by number.
    pub path: u32,
    /// Unused, for the alignment: always 0.
    pub padding: u32,
}

/// What the kernel itself counted for the threads of a process, read when each ends: what the
/// audit compares with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Truth {
    /// Sum of `task_struct.min_flt` since the thread was followed.
    pub minor_faults: u64,
    /// Sum of `task_struct.maj_flt`.
    pub major_faults: u64,
    /// Sum of `task_struct.ioac.read_bytes`.
    pub disk_read_bytes: u64,
    /// Threads that have ended, and are in the sums.
    pub threads: u64,
}

const _: () = assert!(size_of::<FileKey>() == 16 && align_of::<FileKey>() == 8);
const _: () = assert!(size_of::<RowKey>() == 32 && align_of::<RowKey>() == 8);
const _: () = assert!(size_of::<Truth>() == 32 && align_of::<Truth>() == 8);
