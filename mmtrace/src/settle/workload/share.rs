//! Two processes and one object.

use std::{fs::File, os::fd::AsRawFd as _, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::memfd::{MFdFlags, memfd_create},
};

use super::{
    bench::{Bench, Other, Turns, fork, read_to_end, write_all},
    data::{Data, FIRST, SECOND},
    driver::nameless,
    files::own_pages,
    sys::{Mapping, Page, page_bytes},
};
use crate::settle::figure::{Evidence, Figure};

const CHUNK_BYTES: usize = 64 << 10;

/// Turns of the two: who looks is ready, what is to be seen was done, it was looked at.
const READY: u32 = 1;
const DONE: u32 = 2;
const LOOKED: u32 = 3;

/// This process stores a byte to each page of the file, mapped with `flags`; a second one, which
/// maps it shared, looks.
pub(super) fn file(bench: &mut Bench, flags: i32) -> Result<()> {
    let ours = bench.map(flags)?;
    stored_and_seen(bench, &ours, |bench| bench.map(libc::MAP_SHARED).map(Some))?;
    own_pages(bench, &ours);
    Ok(())
}

/// The same with a file of a tmpfs of its own.
pub(super) fn tmpfs(bench: &mut Bench) -> Result<()> {
    object(bench, &nameless(&own_tmpfs()?)?)
}

/// The directory of a tmpfs that nobody else sees, and that goes with this process.
pub(super) fn own_tmpfs() -> Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    let none: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).context("a private mount namespace")?;
    let directory = std::env::temp_dir();
    mount(
        Some("tmpfs"),
        &directory,
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .with_context(|| format!("tmpfs on {}", directory.display()))?;
    Ok(directory)
}

/// The same with a memfd.
pub(super) fn memfd(bench: &mut Bench) -> Result<()> {
    let file = memfd_create("mmtrace-settle", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    object(bench, &file.into())
}

fn object(bench: &mut Bench, file: &File) -> Result<()> {
    file.set_len(bench.step.size_bytes)?;
    let ours = bench.share(Some(file))?;
    stored_and_seen(bench, &ours, |bench| bench.share(Some(file)).map(Some))
}

/// The same with anonymous memory, which the second process inherits.
pub(super) fn anonymous(bench: &mut Bench, flags: i32) -> Result<()> {
    if flags == libc::MAP_SHARED {
        let ours = bench.share(None)?;
        return stored_and_seen(bench, &ours, |_| Ok(None));
    }
    let ours = Mapping::new(None, bench.size()?, flags)?;
    // There before the fork, so that both begin with the same pages.
    for place in (0..ours.length()).step_by(page_bytes()) {
        ours.store(place, 1);
    }
    stored_and_seen(bench, &ours, |_| Ok(None))
}

/// Stores to each page of `ours`; a second process looks at its own mapping, or at the inherited one.
fn stored_and_seen(
    bench: &mut Bench,
    ours: &Mapping,
    theirs: impl FnOnce(&mut Bench) -> Result<Option<Mapping>>,
) -> Result<()> {
    let turns = Turns::new()?;
    let places = (0..ours.length()).step_by(page_bytes());
    // The second process leaves its page tables here, to be compared.
    let mut tables = Mapping::new(None, places.len() * size_of::<u64>(), libc::MAP_SHARED)?;
    let looks = |bench: &mut Bench, first: &Other| {
        let own = theirs(bench)?;
        let mapping = own.as_ref().unwrap_or(ours);
        turns.pass(READY);
        turns.wait(DONE, first)?;
        let seen = places
            .clone()
            .filter(|place| mapping.load(*place) == marked(*place));
        let seen = seen.count() as u64;
        bench.checked(places.len() as u64, seen);
        let pages = mapping.pages()?;
        let (words, _) = tables.bytes_mut().as_chunks_mut::<8>();
        for (word, page) in words.iter_mut().zip(pages) {
            *word = page.0.to_ne_bytes();
        }
        turns.pass(LOOKED);
        Ok(())
    };
    let child = fork(bench, looks)?;
    turns.wait(READY, &child.0)?;
    for place in places.clone() {
        ours.store(place, marked(place));
    }
    turns.pass(DONE);
    turns.wait(LOOKED, &child.0)?;
    let pages = ours.pages()?;
    let (words, _) = tables.bytes().as_chunks::<8>();
    let theirs = words.iter().map(|word| Page(u64::from_ne_bytes(*word)));
    let frames: Vec<_> = pages
        .iter()
        .zip(theirs)
        .map(|(own, other)| (own.frame(), other.frame()))
        .collect();
    let known = frames
        .iter()
        .all(|(own, other)| own.is_some() && other.is_some());
    let same = frames.iter().filter(|(own, other)| own == other).count() as u64;
    let told = |number| {
        ensure!(
            known,
            "/proc/self/pagemap does not tell page frames (it takes CAP_SYS_ADMIN)"
        );
        Ok(number)
    };
    bench.try_set(
        Figure::PagesCompared,
        told(frames.len() as u64),
        Evidence::PageTables,
    );
    bench.try_set(Figure::SamePages, told(same), Evidence::PageTables);
    child.join()
}

/// What is stored to a page: no byte that was there before.
fn marked(place: usize) -> u8 {
    SECOND.at(place as u64) | 2
}

/// This process maps the file and looks; a second one writes all of it by `write(2)`.
pub(super) fn write_seen(bench: &mut Bench) -> Result<()> {
    let mapping = bench.map(libc::MAP_SHARED)?;
    // Mapped before, as an old copy would be.
    let before = FIRST.right(0, mapping.bytes());
    ensure!(
        before == mapping.length() as u64,
        "the file is not as it was made"
    );
    another_writes(bench)?;
    bench.checked(mapping.length() as u64, SECOND.right(0, mapping.bytes()));
    Ok(())
}

/// A second process writes other data over the file.
fn another_writes(bench: &Bench) -> Result<()> {
    let writes = |bench: &mut Bench, _: &Other| {
        let file = bench.file(true, 0)?;
        write_all(
            file.as_raw_fd(),
            &filled(SECOND, bench.size()?),
            CHUNK_BYTES,
        )
    };
    fork(bench, writes)?.join()
}

fn filled(data: Data, size: usize) -> Vec<u8> {
    let mut buffer = vec![0; size];
    data.fill(0, &mut buffer);
    buffer
}

/// This process stores to a mapping; a second one reads the file by `read(2)`.
pub(super) fn store_seen(bench: &mut Bench) -> Result<()> {
    let mut mapping = bench.map(libc::MAP_SHARED)?;
    SECOND.fill(0, mapping.bytes_mut());
    let reads = |bench: &mut Bench, _: &Other| {
        let file = bench.file(false, 0)?;
        let mut buffer = vec![0; bench.size()?];
        let read = read_to_end(file.as_raw_fd(), &mut buffer, CHUNK_BYTES)?;
        bench.checked(read as u64, SECOND.right(0, &buffer[..read]));
        Ok(())
    };
    fork(bench, reads)?.join()
}

/// This process keeps what it has read; a second one writes the file.
pub(super) fn read_stale(bench: &mut Bench) -> Result<()> {
    let file = bench.file(false, 0)?;
    let mut buffer = vec![0; bench.size()?];
    let read = read_to_end(file.as_raw_fd(), &mut buffer, CHUNK_BYTES)?;
    another_writes(bench)?;
    bench.checked(read as u64, SECOND.right(0, &buffer[..read]));
    Ok(())
}
