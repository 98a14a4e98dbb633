//! What the page cache has of a file: made sure of, then looked at.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use memmap2::{Mmap, MmapOptions};
use rustix::fs::{Advice, fadvise};

/// Bytes read at a time where only the effect on the page cache is wanted.
const CHUNK_BYTES: usize = 1 << 20;
/// How often the kernel is asked to drop a file's pages before it is believed that it won't.
const EVICTIONS: usize = 20;
/// Between these: pages that are still being read stay, and nobody is told when they have been. What
/// counts is the number of pages looked up after: if any stay, the sample is not taken.
const PAUSE: Duration = Duration::from_millis(5);
/// The number of cachestat(2), from Linux 6.5 on, the same on all machines.
const CACHESTAT: libc::c_long = 451;

/// A file whose pages in the cache are looked at.
pub struct CachedFile {
    /// The file.
    pub file: File,
    /// How large it was when it was opened.
    pub size_bytes: u64,
    /// Never touched: only to ask what the page cache has.
    mapping: Mmap,
}

impl CachedFile {
    /// Takes a file that is not empty.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn of(file: File) -> Result<Self> {
        let size_bytes = file.metadata()?.len();
        // SAFETY: no byte of the mapping is ever looked at, so it does not matter who changes the file.
        let mapping = unsafe { MmapOptions::new().map(&file) }.context("mmap")?;
        Ok(Self {
            file,
            size_bytes,
            mapping,
        })
    }

    /// Drops its pages from the cache; returns how many stayed there all the same.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn evict(&self, drop_caches: bool) -> Result<u64> {
        let mut cached = self.cached_pages()?;
        for _ in 0..EVICTIONS {
            if cached == 0 {
                break;
            }
            fadvise(&self.file, 0, None, Advice::DontNeed).context("fadvise")?;
            cached = self.cached_pages()?;
            if cached > 0 {
                thread::sleep(PAUSE);
            }
        }
        if drop_caches {
            fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches")?;
            cached = self.cached_pages()?;
        }
        Ok(cached)
    }

    /// Reads what the cache lacks; returns how many pages are missing all the same.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn warm(&self) -> Result<u64> {
        if self.missing_pages()? > 0 {
            let mut chunk = vec![0; CHUNK_BYTES];
            let mut offset = 0;
            while offset < self.size_bytes {
                let read = self.file.read_at(&mut chunk, offset)?;
                ensure!(read > 0, "the file is shorter than it was made");
                offset += read as u64;
            }
        }
        self.missing_pages()
    }

    /// How many of its pages the cache lacks.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn missing_pages(&self) -> Result<u64> {
        Ok(self.size_bytes.div_ceil(page_bytes()) - self.resident_pages()?)
    }

    /// How many of its pages can be used from the cache, by mincore(2), which looks where mappings
    /// do.
    fn resident_pages(&self) -> Result<u64> {
        let pages = self.size_bytes.div_ceil(page_bytes());
        let mut resident = vec![0_u8; usize::try_from(pages)?];
        // SAFETY: the whole mapping, and a byte for each of its pages.
        let result = unsafe {
            libc::mincore(
                self.mapping.as_ptr().cast_mut().cast(),
                self.mapping.len(),
                resident.as_mut_ptr(),
            )
        };
        ensure!(result == 0, "mincore: {}", io::Error::last_os_error());
        // The other bits mean nothing yet.
        Ok(resident.iter().filter(|page| **page & 1 == 1).count() as u64)
    }

    /// How many of its pages the cache has, those included that are still being read.
    ///
    /// By mincore(2), which leaves these out, or cachestat(2), if that counts more: some kernels do
    /// not have it, and through an overlay it looks at a cache that nothing goes through.
    fn cached_pages(&self) -> Result<u64> {
        /// `struct cachestat_range` and `struct cachestat` (linux/mman.h).
        const WHOLE_FILE: [u64; 2] = [0, 0];
        let mut counts = [0_u64; 5];
        // SAFETY: the file is ours, the range and the counts are as large as the kernel's structures.
        let result = unsafe {
            libc::syscall(
                CACHESTAT,
                self.file.as_raw_fd(),
                WHOLE_FILE.as_ptr(),
                counts.as_mut_ptr(),
                0,
            )
        };
        let counted = if result == 0 { counts[0] } else { 0 };
        Ok(self.resident_pages()?.max(counted))
    }
}

/// The size of a page in bytes.
#[must_use]
pub fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}
