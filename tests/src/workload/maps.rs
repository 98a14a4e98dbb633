//! Mappings, touched in known ways.

use std::{
    fs::File,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, bail};

use super::{
    Arguments,
    reads::{page_size, read_file},
    sys,
};
use crate::truth::Truth;

/// From linux/mman.h, 5.14 on: fault in every page for reading.
const MADV_POPULATE_READ: i32 = 22;

/// Maps a file and touches a byte of each of its pages.
///
/// Options: `private` (else shared), `write` (stores instead of loads), `loaded` (stores after all has
/// been loaded from), `shuffled` or `none` (else
/// in order), `random`, `sequential` (advices), `populate`, `populate-read`, `lock` (filled in by
/// the kernel first).
pub(super) fn touch(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let options = arguments.text()?;
    let has = |option| options.split(',').any(|given| given == option);
    let known =
        "shared private write loaded shuffled none random sequential populate populate-read lock";
    if let Some(unknown) = options
        .split(',')
        .find(|given| !known.split(' ').any(|option| option == *given))
    {
        bail!("option {unknown:?} is none of: {known}");
    }

    let write = has("write");
    let file = sys::open(&path, if write { libc::O_RDWR } else { libc::O_RDONLY })?;
    let size = usize::try_from(path.metadata()?.len())?;
    let order = page_order(size.div_ceil(page_size()), has("shuffled"));
    let mut protection = libc::PROT_READ;
    if write {
        protection |= libc::PROT_WRITE;
    }
    let mut flags = if has("private") {
        libc::MAP_PRIVATE
    } else {
        libc::MAP_SHARED
    };
    if has("populate") {
        flags |= libc::MAP_POPULATE;
    }
    // What the program itself is made of shall not fault while it is watched.
    sys::lock_all().context("mlockall")?;
    let before = sys::faults();
    let mapping = sys::Mapping::new(Some(&file), size, protection, flags)?;
    for (option, advice) in [
        ("random", libc::MADV_RANDOM),
        ("sequential", libc::MADV_SEQUENTIAL),
        ("populate-read", MADV_POPULATE_READ),
    ] {
        if has(option) {
            mapping.advise(advice).with_context(|| option.to_owned())?;
        }
    }
    if has("lock") {
        mapping.lock().context("mlock")?;
    }
    if has("loaded") {
        for &page in &order {
            mapping.load(page * page_size());
        }
    }
    let mut truth = Truth::default();
    if !has("none") {
        for &page in &order {
            let offset = page * page_size();
            if write {
                mapping.store(offset, 1);
            } else {
                mapping.load(offset);
            }
            truth.touched_pages += 1;
        }
    }
    truth.faults = sys::faults().since(before);
    truth.mapped_bytes = mapping.resident("Rss:")?;
    Ok(truth)
}

/// Page numbers below `pages`, in order or in an order that no readahead foresees.
fn page_order(pages: usize, shuffled: bool) -> Vec<usize> {
    let mut order: Vec<_> = (0..pages).collect();
    if shuffled {
        // Fisher and Yates, with a fixed linear congruential sequence: the same order every time.
        let mut state = 1_u64;
        for last in (1..pages).rev() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            order.swap(last, (state >> 33) as usize % (last + 1));
        }
    }
    order
}

/// Reads all of a file, and loads a byte of each page of a mapping of it: first the one, `read` or
/// `map`, then the other. The truth's faults are those taken by the loads.
pub(super) fn read_and_map(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let first = arguments.text()?;
    let size = arguments.number()?;
    let mut truth = Truth::default();
    if first == "read" {
        truth = read_file(&path, "read", size, usize::MAX)?;
    }
    let file = sys::open(&path, libc::O_RDONLY)?;
    let length = usize::try_from(path.metadata()?.len())?;
    sys::lock_all().context("mlockall")?;
    let mapping = sys::Mapping::new(Some(&file), length, libc::PROT_READ, libc::MAP_SHARED)?;
    let before = sys::thread_faults();
    for offset in (0..length).step_by(page_size()) {
        mapping.load(offset);
        truth.touched_pages += 1;
    }
    let faults = sys::thread_faults().since(before);
    if first == "map" {
        let read = read_file(&path, "read", size, usize::MAX)?;
        truth.calls = read.calls;
        truth.requested_bytes = read.requested_bytes;
        truth.returned_bytes = read.returned_bytes;
    }
    truth.faults = faults;
    Ok(truth)
}

/// Threads that each map a file, load a byte of each of its pages and unmap it, `ROUNDS` times,
/// while as many others map and unmap anonymous memory: the kernel's tree of mappings changes
/// during the faults. The truth's faults are those taken by the loads.
pub(super) fn remapped(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let threads = arguments.number()?;
    let rounds = arguments.number()?;
    let size = usize::try_from(path.metadata()?.len())?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    sys::lock_all().context("mlockall")?;
    let done = AtomicBool::new(false);
    let loaded: Vec<anyhow::Result<Truth>> = thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| map_and_unmap(&done));
        }
        let loading: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| map_and_load(&file, size, rounds)))
            .collect();
        let loaded = loading
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect();
        done.store(true, Ordering::Relaxed);
        loaded
    });
    let mut truth = Truth::default();
    for part in loaded {
        let part = part?;
        truth.touched_pages += part.touched_pages;
        truth.faults.minor += part.faults.minor;
        truth.faults.major += part.faults.major;
    }
    Ok(truth)
}

/// Maps and unmaps pieces of anonymous memory until it is told to end.
fn map_and_unmap(done: &AtomicBool) {
    /// So many that the tree has to split nodes and to join them again.
    const PIECES: usize = 40;
    while !done.load(Ordering::Relaxed) {
        let pieces = (0..PIECES).map(|index| {
            // Neighbours with the same protection would become one mapping.
            let protection = [libc::PROT_READ, libc::PROT_NONE][index % 2];
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            sys::Mapping::new(None, 2 * page_size(), protection, flags)
        });
        let pieces: Vec<_> = pieces
            .map(|piece| piece.expect("anonymous memory can be mapped"))
            .collect();
        drop(pieces);
    }
}

fn map_and_load(file: &OwnedFd, size: usize, rounds: usize) -> anyhow::Result<Truth> {
    let mut truth = Truth::default();
    for _ in 0..rounds {
        let mapping = sys::Mapping::new(Some(file), size, libc::PROT_READ, libc::MAP_SHARED)?;
        let before = sys::thread_faults();
        for offset in (0..size).step_by(page_size()) {
            mapping.load(offset);
        }
        let faults = sys::thread_faults().since(before);
        truth.faults.minor += faults.minor;
        truth.faults.major += faults.major;
        truth.touched_pages += size.div_ceil(page_size()) as u64;
    }
    Ok(truth)
}

/// Reads a file once, maps it, cuts it off and loads what is gone: ends by `SIGBUS`.
pub(super) fn truncated(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let size = arguments.number()?;
    let file = sys::open(&path, libc::O_RDWR)?;
    let mut buffer = vec![0; size];
    sys::pread(file.as_raw_fd(), &mut buffer, 0)?;
    let mapping = sys::Mapping::new(
        Some(&file),
        4 * page_size(),
        libc::PROT_READ,
        libc::MAP_SHARED,
    )?;
    mapping.load(0);
    File::from(file).set_len(1)?;
    mapping.load(3 * page_size());
    bail!("a page beyond the file's end was readable")
}
