//! Reading a file, and mapping it.

use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};

use super::{
    bench::{Bench, read_to_end},
    data::FIRST,
    sys::{Mapping, page_bytes},
    watch::Watches,
};
use crate::settle::figure::{Evidence, Figure};

/// Reads the whole file into a buffer as large, `chunk_bytes` at a time, to its end.
pub(super) fn read(bench: &mut Bench, chunk_bytes: usize, flags: i32) -> Result<()> {
    let size = bench.size()?;
    let file = bench.file(false, flags)?;
    // Whole chunks, which O_DIRECT wants, and one more for the call that finds the end.
    let room = (size + 1).next_multiple_of(chunk_bytes);
    let room = if flags == 0 { size + 1 } else { room };
    let mut buffer = Mapping::buffer(room)?;
    let watches = Watches::set(&buffer, size, bench);
    let read = match flags {
        0 => read_to_end(file.as_raw_fd(), buffer.bytes_mut(), chunk_bytes)?,
        // What is behind a last part of a block, O_DIRECT refuses to read.
        _ => read_direct(file.as_raw_fd(), &mut buffer, size, chunk_bytes)?,
    };
    let right = FIRST.right(0, &buffer.bytes()[..read.min(size)]);
    watches.tell(&buffer, bench);
    bench.checked(read as u64, right);
    Ok(())
}

fn read_direct(file: i32, buffer: &mut Mapping, size: usize, chunk_bytes: usize) -> Result<usize> {
    let mut done = 0;
    while done < size {
        let length = chunk_bytes.min(buffer.length() - done);
        let part = &mut buffer.bytes_mut()[done..done + length];
        let read = read_to_end(file, part, chunk_bytes).context("with O_DIRECT")?;
        if read == 0 {
            break;
        }
        done += read;
    }
    Ok(done)
}

/// Maps the file and loads one byte of each page.
pub(super) fn map(bench: &mut Bench, flags: i32) -> Result<()> {
    let size = bench.size()?;
    let mapping = bench.map(flags)?;
    let watches = Watches::set(&mapping, size, bench);
    let mut right = 0;
    let places = (0..size).step_by(page_bytes());
    let pages = places.len() as u64;
    for place in places {
        right += u64::from(mapping.load(place) == FIRST.at(place as u64));
    }
    own_pages(bench, &mapping);
    watches.tell(&mapping, bench);
    bench.checked(pages, right);
    Ok(())
}

/// What makes a mapping's pages be there without that the program touches them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// Nothing.
    Nothing,
    /// `MAP_POPULATE`.
    Populate,
    /// `MADV_POPULATE_READ`, from Linux 5.14 on.
    Advise,
}

/// Maps the file and unmaps it, and touches nothing of it.
pub(super) fn map_only(bench: &mut Bench, fill: Fill) -> Result<()> {
    /// From linux/mman.h; in libc under this name for newer kernels only.
    const MADV_POPULATE_READ: i32 = 22;

    let flags = match fill {
        Fill::Populate => libc::MAP_SHARED | libc::MAP_POPULATE,
        Fill::Nothing | Fill::Advise => libc::MAP_SHARED,
    };
    let mapping = bench.map(flags)?;
    if fill == Fill::Advise {
        let advised = mapping.advise(MADV_POPULATE_READ);
        advised.context("MADV_POPULATE_READ (from Linux 5.14 on)")?;
    }
    let cached = mapping.cached_bytes()?;
    bench.set(Figure::CachedAfterBytes, cached, Evidence::PageTables);
    Ok(())
}

/// Loads every byte of a mapping of the file, to which nobody has ever stored.
pub(super) fn first_load(bench: &mut Bench) -> Result<()> {
    let mapping = bench.map(libc::MAP_SHARED)?;
    let right = FIRST.right(0, mapping.bytes());
    let length = mapping.length() as u64;
    bench.checked(length, right);
    Ok(())
}

/// Notes how much of a mapping is the program's own pages: copies that the kernel has made.
pub(super) fn own_pages(bench: &mut Bench, mapping: &Mapping) {
    let own = mapping.pages().map(|pages| {
        let own = pages.iter().filter(|page| page.is_own()).count();
        (own * page_bytes()) as u64
    });
    bench.try_set(Figure::CopiedInKernelBytes, own, Evidence::PageTables);
}
