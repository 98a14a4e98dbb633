//! The files that are read, and what the page cache has of them: made sure of, then looked at.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use memmap2::{Mmap, MmapOptions};
use nix::sys::stat::{major, minor};
use rustix::fs::{Advice, fadvise};

use super::workload::Content;

/// Bytes written or read at a time where only the effect on the page cache is wanted.
const CHUNK_BYTES: usize = 1 << 20;
/// How often the kernel is asked to drop a file's pages before it is believed that it won't.
const EVICTIONS: usize = 20;
/// Between these: pages that are still being read stay, and nobody is told when they have been. What
/// counts is the number of pages looked up after: if any stay, the sample is not taken.
const PAUSE: Duration = Duration::from_millis(5);
/// The number of cachestat(2), from Linux 6.5 on, the same on all machines.
const CACHESTAT: libc::c_long = 451;

/// A file without a name, of known content: nothing of it is left when this process ends.
pub(super) struct TestFile {
    pub(super) file: File,
    pub(super) size_bytes: u64,
    /// Never touched: only to ask what the page cache has.
    mapping: Mmap,
}

impl TestFile {
    /// Makes one in `dir`, on disk when this returns. All of it is in the page cache.
    pub(super) fn create(dir: &Path, size_bytes: u64, content: Content) -> Result<Self> {
        let in_dir = || {
            let dir = dir.display();
            format!("cannot write a file of {size_bytes} bytes in {dir}")
        };
        let mut file = tempfile::tempfile_in(dir).with_context(in_dir)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        while offset < size_bytes {
            let bytes = &mut chunk[..(size_bytes - offset).min(CHUNK_BYTES as u64) as usize];
            content.fill(offset, bytes);
            file.write_all(bytes).with_context(in_dir)?;
            offset += bytes.len() as u64;
        }
        // Only what is on disk can be dropped from the cache.
        file.sync_all().with_context(in_dir)?;
        // SAFETY: nobody else has the file, and it is not written to any more.
        let mapping = unsafe { MmapOptions::new().map(&file) }.with_context(in_dir)?;
        Ok(Self {
            file,
            size_bytes,
            mapping,
        })
    }

    /// Drops its pages from the cache; returns how many stayed there all the same.
    pub(super) fn evict(&self, drop_caches: bool) -> Result<u64> {
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
    pub(super) fn warm(&self) -> Result<u64> {
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
    pub(super) fn missing_pages(&self) -> Result<u64> {
        Ok(self.size_bytes.div_ceil(page_bytes()?) - self.resident_pages()?)
    }

    /// How many of its pages can be used from the cache, by mincore(2), which looks where mappings
    /// do.
    fn resident_pages(&self) -> Result<u64> {
        let pages = self.size_bytes.div_ceil(page_bytes()?);
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

    /// How much the kernel reads ahead on the file's disk at most, if it says so.
    pub(super) fn readahead_bytes(&self) -> Option<u64> {
        let device = self.file.metadata().ok()?.dev();
        let device = format!("/sys/dev/block/{}:{}", major(device), minor(device));
        // A partition has its disk's.
        ["queue", "../queue"].into_iter().find_map(|queue| {
            let kib = fs::read_to_string(format!("{device}/{queue}/read_ahead_kb")).ok()?;
            Some(kib.trim().parse::<u64>().ok()? << 10)
        })
    }
}

/// The size of a page in bytes.
pub(super) fn page_bytes() -> Result<u64> {
    // SAFETY: asks for a constant.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).context("no page size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_as_made_sure_of() {
        // A file on a disk, where the build is; not in memory, as other places may be.
        let file = TestFile::create(
            Path::new(env!("CARGO_MANIFEST_DIR")),
            100_003,
            Content { seed: 1 },
        );
        let Ok(file) = file else {
            eprintln!("skipped: the source cannot be written to");
            return;
        };
        let pages = 100_003_u64.div_ceil(page_bytes().unwrap());
        if file.evict(false).unwrap() > 0 {
            eprintln!("skipped: this file system keeps pages");
            return;
        }
        assert_eq!(file.missing_pages().unwrap(), pages);
        assert_eq!(file.warm().unwrap(), 0);
    }
}
