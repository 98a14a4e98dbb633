//! Memory that is copied as it is written, or not.

use std::{
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, bail, ensure};

use super::{Arguments, reads::page_size, sys};
use crate::truth::Truth;

const WRITABLE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Writes to anonymous memory that nobody shares, `PAGES` pages each: to some at once, to some where
/// it has read before and so has the zero page, or a huge one.
pub(super) fn unshared(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let pages = arguments.number()?;
    let mut truth = Truth::default();
    for (advice, loaded) in [
        (libc::MADV_NOHUGEPAGE, false),
        (libc::MADV_NOHUGEPAGE, true),
        (libc::MADV_HUGEPAGE, false),
        (libc::MADV_HUGEPAGE, true),
    ] {
        let mapping = sys::Mapping::new(None, pages * page_size(), WRITABLE, ANONYMOUS)?;
        mapping.advise(advice).context("madvise")?;
        if loaded {
            let zero = each_page(pages).all(|offset| mapping.load(offset) == 0);
            ensure!(zero, "new memory is not zero");
        }
        each_page(pages).for_each(|offset| mapping.store(offset, 1));
        truth.touched_pages += pages as u64;
    }
    Ok(truth)
}

fn each_page(pages: usize) -> impl Iterator<Item = usize> {
    (0..pages).map(|page| page * page_size())
}

/// Fills anonymous memory of one `KIND` (`small`, `huge` or `hugetlb` pages) and forks twice: a child
/// that stores nothing, then one that stores into `STORES` places, each in another page. Then it
/// stores into the same places itself.
pub(super) fn forked(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let kind = arguments.text()?;
    let stores = arguments.number()?;
    let huge = huge_page_size()?;
    let (flags, step, size) = match kind.as_str() {
        "small" => (ANONYMOUS, page_size(), stores * page_size()),
        // One more, since the mapping need not begin where a huge page may.
        "huge" => (
            ANONYMOUS,
            page_size(),
            (stores * page_size()).next_multiple_of(huge) + huge,
        ),
        "hugetlb" => (ANONYMOUS | libc::MAP_HUGETLB, huge, stores * huge),
        other => bail!("{other:?} is not small, huge or hugetlb"),
    };
    let mapping = sys::Mapping::new(None, size, WRITABLE, flags)?;
    match kind.as_str() {
        "small" => mapping.advise(libc::MADV_NOHUGEPAGE).context("madvise")?,
        "huge" => mapping.advise(libc::MADV_HUGEPAGE).context("madvise")?,
        _ => {}
    }
    let first = match kind.as_str() {
        "huge" => mapping.address().align_offset(huge),
        _ => 0,
    };
    mapping.fill();
    if kind == "huge" {
        let expected = (stores * page_size()).next_multiple_of(huge) as u64;
        let resident = mapping.resident("AnonHugePages:")?;
        ensure!(resident >= expected, "{resident} bytes are in huge pages");
    }
    let places: Vec<_> = (0..stores).map(|store| first + store * step).collect();
    for places in [&[], places.as_slice()] {
        // SAFETY: this program has one thread.
        match unsafe { sys::fork_and_stand_still()? } {
            Some(child) => ensure!(sys::wait(child)? == 0, "a child failed"),
            None => {
                store_all(&mapping, places);
                sys::exit_now(0);
            }
        }
    }
    store_all(&mapping, &places);
    Ok(Truth {
        touched_pages: stores as u64,
        ..Truth::default()
    })
}

/// Both children call it: what they copy of their stack is the same.
#[inline(never)]
fn store_all(mapping: &sys::Mapping, places: &[usize]) {
    for &place in places {
        mapping.store(place, 2);
    }
}

/// Bytes of a huge page here.
fn huge_page_size() -> anyhow::Result<usize> {
    let size = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")?;
    Ok(size.trim().parse()?)
}

/// Writes to each page of a private mapping of a file, forks a child that ends at once, writes again,
/// forks a child that writes to each page as well, and writes once more.
pub(super) fn forked_mapping(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    /// More than the kernel puts off putting into its lists (`PAGEVEC_SIZE`, 15): on 5.10 a page that
    /// waits for that counts as shared, and is copied.
    const SETTLED_PAGES: usize = 64;
    let path = arguments.path()?;
    let (file, size) = open_whole(&path)?;
    // What is put off is put off by each processor.
    sys::stay_on_one_cpu()?;
    let mapping = sys::Mapping::new(Some(&file), size, WRITABLE, libc::MAP_PRIVATE)?;
    mapping.fill();
    let settling = sys::Mapping::new(None, SETTLED_PAGES * page_size(), WRITABLE, ANONYMOUS)?;
    settling.advise(libc::MADV_NOHUGEPAGE).context("madvise")?;
    settling.fill();
    for writes in [false, true] {
        // SAFETY: this program has one thread.
        match unsafe { sys::fork_and_stand_still()? } {
            Some(child) => ensure!(sys::wait(child)? == 0, "a child failed"),
            None => {
                if writes {
                    mapping.fill();
                }
                sys::exit_now(0);
            }
        }
        mapping.fill();
    }
    Ok(Truth {
        touched_pages: size.div_ceil(page_size()) as u64,
        ..Truth::default()
    })
}

/// Has all of a file read into a private mapping of another as large, by `read` with or without
/// `O_DIRECT` (`read`, `direct`).
pub(super) fn into_private(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    const READ_BYTES: usize = 65_536;
    let from = arguments.path()?;
    let into = arguments.path()?;
    let flags = match arguments.text()?.as_str() {
        "read" => libc::O_RDONLY,
        "direct" => libc::O_RDONLY | libc::O_DIRECT,
        other => bail!("{other:?} is not read or direct"),
    };
    let from = sys::open(&from, flags)?;
    let (file, size) = open_whole(&into)?;
    let mapping = sys::Mapping::new(Some(&file), size, WRITABLE, libc::MAP_PRIVATE)?;
    let whole = size.next_multiple_of(page_size());
    let mut truth = Truth::default();
    let mut offset = 0;
    while offset < size {
        let asked = READ_BYTES.min(whole - offset);
        // SAFETY: `offset` is below the mapping's size.
        let address = unsafe { mapping.address().add(offset) };
        let returned = sys::read_to(from.as_raw_fd(), address, asked)?;
        ensure!(returned > 0, "the file that is read is shorter");
        truth.add(asked, returned);
        offset += usize::try_from(returned)?;
    }
    truth.touched_pages = (whole / page_size()) as u64;
    Ok(truth)
}

fn open_whole(path: &Path) -> anyhow::Result<(OwnedFd, usize)> {
    let size = usize::try_from(path.metadata()?.len())?;
    Ok((sys::open(path, libc::O_RDONLY)?, size))
}
