//! The files that are read.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::sys::stat::{major, minor};

use super::workload::Content;
use crate::page_cache::CachedFile;

/// Bytes written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Makes a file without a name in `dir`, of known content, on disk when this returns, and in
/// the page cache. Nothing of it is left when this process ends.
pub(super) fn create(dir: &Path, size_bytes: u64, content: Content) -> Result<CachedFile> {
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
    CachedFile::of(file).with_context(in_dir)
}

/// How much the kernel reads ahead on a file's disk at most, if it says so.
pub(super) fn readahead_bytes(file: &File) -> Option<u64> {
    let device = file.metadata().ok()?.dev();
    let device = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    // A partition has its disk's.
    ["queue", "../queue"].into_iter().find_map(|queue| {
        let kib = fs::read_to_string(format!("{device}/{queue}/read_ahead_kb")).ok()?;
        Some(kib.trim().parse::<u64>().ok()? << 10)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page_cache::page_bytes;

    #[test]
    fn the_cache_is_as_made_sure_of() {
        // A file on a disk, where the build is; not in memory, as other places may be.
        let file = create(
            Path::new(env!("CARGO_MANIFEST_DIR")),
            100_003,
            Content { seed: 1 },
        );
        let Ok(file) = file else {
            eprintln!("skipped: the source cannot be written to");
            return;
        };
        let pages = 100_003_u64.div_ceil(page_bytes());
        if file.evict(false).unwrap() > 0 {
            eprintln!("skipped: this file system keeps pages");
            return;
        }
        assert_eq!(file.missing_pages().unwrap(), pages);
        assert_eq!(file.warm().unwrap(), 0);
    }
}
