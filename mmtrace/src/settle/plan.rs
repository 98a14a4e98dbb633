//! How large a settlement is, and whether there is room for it.

use std::{fs, os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result};
use os_display::Quotable as _;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::{experiment::PART_BYTES, workload::nameless};
use crate::{failure::Failure, page_cache::page_bytes};

/// Size of each file, unless something else is asked for or there is little room.
const DEFAULT_BYTES: u64 = 256 << 20;
/// Of the memory that is available, and of the disk's free space, one part in so many at most.
const SHARE: u64 = 8;
/// The status of a settlement that fails.
pub const FAILED: u8 = 2;

/// Finds out with which size the experiments can be made in `directory`: those that are traced, if
/// `traces`, which hold files in memory.
///
/// # Errors
/// A [`Failure`] if there is no room for what is asked for, or the directory takes no files.
pub fn size_bytes(asked: Option<u64>, directory: &Path, traces: bool) -> Result<u64> {
    let name = directory.quote().external(true).to_string();
    let refuse = |why: String| Failure::with_status(FAILED, format!("--dir {name}: {why}"));
    if !directory.is_dir() {
        return Err(refuse("it is no directory".to_owned()).into());
    }
    let file = nameless(directory)
        .map_err(|error| refuse(format!("it takes no new file: {}", error.root_cause())))?;
    let room = statvfs(directory).context("statvfs")?;
    let free_bytes = room.f_bavail * room.f_frsize;
    let available_bytes = available_memory_bytes()?;
    let page_bytes = page_bytes();
    let size_bytes = asked.unwrap_or_else(|| {
        let most = (available_bytes / SHARE).min(free_bytes / SHARE);
        let round = if most >= 1 << 20 { 1 << 20 } else { page_bytes };
        (most.min(DEFAULT_BYTES) / round * round).max(page_bytes)
    });
    // Files that experiments share in two sizes, and one of an experiment's own.
    let on_disk_bytes = size_bytes
        .saturating_mul(2)
        .saturating_add(size_bytes.min(PART_BYTES));
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let full = |free_bytes| {
        refuse(format!(
            "no room for files of {} MiB in all: {} MiB are free",
            mib(on_disk_bytes),
            mib(free_bytes)
        ))
        .remedy("--size takes fewer bytes, --dir another directory.")
    };
    if on_disk_bytes > free_bytes {
        return Err(full(free_bytes).into());
    }
    // What is free for others need not be for us: a quota, or a file system that says what it has not.
    match fallocate(file.as_fd(), FallocateFlags::empty(), 0, on_disk_bytes) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::FBIG) => {
            return Err(full(free_bytes).into());
        }
        Err(error) => return Err(error).context(format!("a file in {name}")),
    }
    // A file in the page cache, a buffer as large, and what three processes hold.
    let in_memory_bytes = size_bytes
        .saturating_mul(2)
        .saturating_add(size_bytes.min(PART_BYTES).saturating_mul(4));
    if traces && in_memory_bytes > available_bytes {
        let message = format!(
            "--size: the experiments would take {} MiB of memory: {} MiB are available",
            mib(in_memory_bytes),
            mib(available_bytes)
        );
        return Err(Failure::with_status(FAILED, message).into());
    }
    Ok(size_bytes)
}

/// Bytes of memory that programs can still have.
fn available_memory_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib
        .context("/proc/meminfo has no MemAvailable")?
        .parse::<u64>()?
        << 10)
}

/// A size such as `4096`, `64K`, `16M` or `1G`.
///
/// # Errors
/// Why it is none, in words.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.strip_suffix("iB").unwrap_or(text);
    let (digits, shift) = match text.char_indices().next_back() {
        Some((end, 'k' | 'K')) => (&text[..end], 10),
        Some((end, 'm' | 'M')) => (&text[..end], 20),
        Some((end, 'g' | 'G')) => (&text[..end], 30),
        _ => (text, 0),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "it is a number of bytes, or one with K, M or G")?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err("a file of no bytes settles nothing".into()),
        Some(bytes) => Ok(bytes),
        None => Err("no file is so large".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("1", 1),
            ("4097", 4097),
            ("64K", 65_536),
            ("16MiB", 16 << 20),
            ("2g", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["0", "0M", "", "-1", "1T", "M", "99999999999G", "1.5M"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
