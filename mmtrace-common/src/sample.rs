//! Samples of what the kernel does: where it was interrupted, and for what it worked.

/// Frames of a stack that are kept, the innermost ones: what copies is among these. A
/// map's key has 512 bytes at most.
pub const SAMPLE_FRAMES: usize = 32;

/// What samples have in common that are counted together: a key of the `SAMPLES` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct SampleKey {
    /// The [path](crate::Path) that the thread was on, by number.
    pub path: u32,
    /// 1: in user mode; the rest is 0 then.
    pub user: u32,
    /// The interrupted instruction and the return addresses outwards from it; 0 after the last.
    pub frames: [u64; SAMPLE_FRAMES],
}

/// How many different samples are kept apart: entries of the `SAMPLES` map.
pub const SAMPLE_SLOTS: u32 = 8_192;

const _: () = assert!(size_of::<SampleKey>() == 264 && align_of::<SampleKey>() == 8);
