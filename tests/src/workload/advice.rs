//! Data brought in ahead of its use.

use std::os::fd::AsRawFd as _;

use anyhow::bail;

use super::{Arguments, sys};
use crate::truth::Truth;

/// Small enough that no device's readahead limit cuts a request short.
const CHUNK_BYTES: usize = 65_536;

/// Prefetches all of a file in chunks, by `readahead`, `fadvise` or `madvise`, then waits for the
/// data by reading it with `pread`.
///
/// The truth's calls are those that prefetch; its bytes are those of the reads.
pub(super) fn prefetch(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let how = arguments.text()?;
    let size = usize::try_from(path.metadata()?.len())?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    let fd = file.as_raw_fd();
    let mapping = sys::Mapping::new(Some(&file), size, libc::PROT_READ, libc::MAP_SHARED)?;

    let mut truth = Truth::default();
    for offset in (0..size).step_by(CHUNK_BYTES) {
        let length = CHUNK_BYTES.min(size - offset);
        match how.as_str() {
            "readahead" => sys::readahead(fd, offset as u64, length)?,
            "fadvise" => sys::fadvise(fd, offset as u64, length as u64, libc::POSIX_FADV_WILLNEED)?,
            "madvise" => mapping.advise_part(offset, length, libc::MADV_WILLNEED)?,
            _ => bail!("{how:?} is not readahead, fadvise or madvise"),
        }
        truth.calls += 1;
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let returned = sys::pread(fd, &mut buffer, truth.returned_bytes)?;
        truth.requested_bytes += CHUNK_BYTES as u64;
        truth.returned_bytes += returned;
        if returned == 0 {
            return Ok(truth);
        }
    }
}
