//! Parts of files, used in known ways.

use std::{
    fs::File,
    io::{Seek as _, SeekFrom},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, ensure};

use super::{Arguments, sys};
use crate::{files, truth::Truth};

/// Reads a range of a file at its position, `SIZE` bytes at a time, `TIMES` times.
pub(super) fn read_part(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let first = arguments.number()? as u64;
    let bytes = arguments.number()?;
    let size = arguments.number()?;
    let times = arguments.number()?;
    let mut file = File::from(sys::open(&path, libc::O_RDONLY)?);
    let mut buffer = vec![0; size];
    let mut truth = Truth::default();
    for _ in 0..times {
        file.seek(SeekFrom::Start(first))?;
        let mut left = bytes;
        while left > 0 {
            let asked = left.min(size);
            let returned = sys::read(file.as_raw_fd(), &mut buffer[..asked])?;
            ensure!(returned == asked as u64, "a read returned {returned}");
            truth.add(asked, returned);
            left -= asked;
        }
    }
    Ok(truth)
}

/// Reads a file's beginning, puts the file out of the page cache, and reads that again. The truth says
/// how much of it was there before.
pub(super) fn read_evicted(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let mut buffer = vec![0; arguments.number()?];
    let file = sys::open(&path, libc::O_RDONLY)?;
    let mut truth = Truth::default();
    let mut read = || -> anyhow::Result<()> {
        let returned = sys::pread(file.as_raw_fd(), &mut buffer, 0)?;
        truth.add(buffer.len(), returned);
        Ok(())
    };
    read()?;
    let cached_bytes = files::cached_bytes(&path)?;
    files::make_cold(&path)?;
    read()?;
    truth.cached_bytes = cached_bytes;
    Ok(truth)
}

/// Maps a file, and loads a byte at `FIRST` and at each multiple of `STRIDE` from there on. The
/// truth says which of the loads took a fault.
pub(super) fn touch_part(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let first = arguments.number()?;
    let stride = arguments.number()?;
    let length = usize::try_from(path.metadata()?.len())?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    // What the program itself is made of shall not fault while it is watched.
    sys::lock_all().context("mlockall")?;
    let mapping = sys::Mapping::new(Some(&file), length, libc::PROT_READ, libc::MAP_SHARED)?;
    let mut truth = Truth::default();
    for offset in (first..length).step_by(stride) {
        let before = sys::thread_faults();
        mapping.load(offset);
        let faults = sys::thread_faults().since(before).sum();
        ensure!(faults <= 1, "a load took {faults} faults");
        if faults == 1 {
            truth.faulted_offsets.push(offset as u64);
        }
    }
    Ok(truth)
}

/// Writes to a file's end, whatever offset the call asks for.
pub(super) fn append(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let size = arguments.number()?;
    let calls = arguments.number()?;
    let file = sys::open(&path, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND)?;
    let buffer = vec![1; size];
    let mut truth = Truth::default();
    for _ in 0..calls {
        truth.add(size, sys::pwrite(file.as_raw_fd(), &buffer, 0)?);
    }
    Ok(truth)
}
