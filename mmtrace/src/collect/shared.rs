//! Arrays that user space and the kernel programs share while the command runs.
//!
//! They are in this process's memory. To work on a map by a system call would have the kernel leave
//! out every program of a perf event, kprobe or tracepoint on that CPU in the meantime
//! (`bpf_disable_instrumentation` in include/linux/bpf.h, 5.11 on; `bpf_prog_active` before), and for
//! perf events it does not count them. Where the kernel lets the command preempt this process in
//! such a call, its faults and copies would be missed.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::AtomicU64,
};

use anyhow::{Context as _, Result, bail};
use aya::{Ebpf, maps::Map};
use memmap2::{MmapOptions, MmapRaw};

/// An array of the kernel side whose entries are made of `u64`s, one after the other.
pub(super) struct Shared {
    words: usize,
    memory: MmapRaw,
}

impl Shared {
    /// Maps so many words of a map that was made with `BPF_F_MMAPABLE` (5.5 on).
    ///
    /// # Errors
    ///
    /// If there is no such array, or the kernel refuses to map it.
    pub(super) fn new(ebpf: &Ebpf, name: &str, words: usize) -> Result<Self> {
        let Some(Map::Array(map)) = ebpf.map(name) else {
            bail!("the kernel programs have no array {name}");
        };
        let memory = MmapOptions::new()
            .len(words * size_of::<u64>())
            .map_raw(map.fd().as_fd().as_raw_fd())
            .with_context(|| format!("cannot map the array {name}"))?;
        Ok(Self { words, memory })
    }

    /// A word of it.
    ///
    /// # Panics
    ///
    /// If it has fewer.
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words);
        // SAFETY: inside the mapping, which lives as long as this does and is aligned to pages; the
        // kernel writes whole words.
        unsafe { AtomicU64::from_ptr(self.memory.as_mut_ptr().cast::<u64>().add(index)) }
    }
}
