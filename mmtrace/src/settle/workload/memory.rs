//! What it takes that several processes hold the same data.

use std::os::fd::AsRawFd as _;

use anyhow::{Result, ensure};

use super::{
    bench::{Bench, Forked, Other, Turns, fork, read_to_end},
    data::FIRST,
    sys::{Mapping, in_smaps, page_bytes},
};
use crate::settle::figure::{Evidence, Figure};

/// How many processes.
pub(in crate::settle) const HOLDERS: u32 = 3;
/// The turn at which they end.
const END: u32 = 1 + HOLDERS;

/// How they hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// In a buffer filled by `read(2)`.
    Read,
    /// By a shared mapping.
    Mapped,
    /// By a private mapping, to each page of which they have stored.
    Written,
}

/// Three processes hold all of the file at the same time. What that takes is what of the file is in
/// the page cache, and what each has for itself.
pub(super) fn held(bench: &mut Bench, how: How) -> Result<()> {
    let turns = Turns::new()?;
    let mut addresses = Mapping::new(
        None,
        HOLDERS as usize * size_of::<usize>(),
        libc::MAP_SHARED,
    )?;
    let mut holders: Vec<Forked> = Vec::new();
    for number in 1..=HOLDERS {
        let holds = |bench: &mut Bench, first: &Other| {
            let memory = hold(bench, how)?;
            let (words, _) = addresses.bytes_mut().as_chunks_mut::<8>();
            words[number as usize - 1] = memory.at(0).addr().to_ne_bytes();
            turns.pass(number);
            turns.wait(END, first).map(drop)
        };
        let holder = fork(bench, holds)?;
        turns.wait(number, &holder.0)?;
        holders.push(holder);
    }
    let of_all = |field: &str| -> Result<u64> {
        let (words, _) = addresses.bytes().as_chunks::<8>();
        let mut sum = 0;
        for (holder, address) in holders.iter().zip(words) {
            let Other::Child(pid) = holder.0 else {
                continue;
            };
            sum += in_smaps(&pid.to_string(), usize::from_ne_bytes(*address), field)?;
        }
        Ok(sum)
    };
    let file = bench.file(true, 0)?;
    let cached = Mapping::new(Some(&file), bench.size()?, libc::MAP_SHARED)?.cached_bytes()?;
    let memory = of_all("Anonymous").map(|own| own + cached);
    let held = of_all("Rss");
    turns.pass(END);
    for holder in holders {
        holder.join()?;
    }
    bench.set(Figure::CachedAfterBytes, cached, Evidence::PageTables);
    bench.try_set(Figure::MemoryBytes, memory, Evidence::PageTables);
    bench.try_set(Figure::RightBytes, held, Evidence::PageTables);
    Ok(())
}

fn hold(bench: &mut Bench, how: How) -> Result<Mapping> {
    let size = bench.size()?;
    let mapping = match how {
        How::Read => {
            let file = bench.file(false, 0)?;
            let mut buffer = Mapping::new(None, size, libc::MAP_PRIVATE)?;
            let read = read_to_end(file.as_raw_fd(), buffer.bytes_mut(), 64 << 10)?;
            ensure!(read == size, "the file is shorter than it was made");
            buffer
        }
        How::Mapped => bench.map(libc::MAP_SHARED)?,
        How::Written => bench.map(libc::MAP_PRIVATE)?,
    };
    for place in (0..size).step_by(page_bytes()) {
        let byte = mapping.load(place);
        ensure!(
            byte == FIRST.at(place as u64),
            "the file is not as it was made"
        );
        if how == How::Written {
            mapping.store(place, byte);
        }
    }
    Ok(mapping)
}
