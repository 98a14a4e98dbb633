//! Mapped pages that the kernel is asked to page out.

use anyhow::{Context as _, Result, bail};

use super::{
    bench::Bench,
    data::{Data, FIRST, SECOND},
    sys::{Mapping, dirtied_bytes, page_bytes, swap_space_bytes},
};
use crate::settle::{
    cpus,
    figure::{Evidence, Figure, Value},
};

/// From Linux 5.4 on.
const MADV_PAGEOUT: i32 = 21;

/// Which pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of a file, as they are on the disk.
    Clean,
    /// Of a file, changed through a shared mapping.
    Shared,
    /// Of a private mapping of a file, changed.
    Private,
    /// Of anonymous shared memory.
    Anonymous,
}

/// Brings the pages into the state of their kind, has them paged out, looks where they are then, and
/// loads them again.
pub(super) fn page_out(bench: &mut Bench, kind: Kind) -> Result<()> {
    // A page that was just brought in waits in a list of its CPU's (`lru_add`), and MADV_PAGEOUT takes
    // pages only from the lists of the CPU that it runs on.
    let cpus = cpus::allowed()?;
    cpus::bind(cpus[0])?;
    let before = dirtied_bytes();
    let mapping = match kind {
        Kind::Clean | Kind::Shared => bench.map(libc::MAP_SHARED)?,
        Kind::Private => bench.map(libc::MAP_PRIVATE)?,
        Kind::Anonymous => bench.share(None)?,
    };
    let data = if kind == Kind::Clean { FIRST } else { SECOND };
    for place in (0..mapping.length()).step_by(page_bytes()) {
        match kind {
            Kind::Clean => drop(mapping.load(place)),
            _ => mapping.store(place, data.at(place as u64)),
        }
    }
    if kind == Kind::Shared {
        // The kernel pages a file's page out only when it is on the disk: a flusher thread would see
        // to that sooner or later.
        mapping.sync().context("msync")?;
    }
    bench.try_set(
        Figure::DirtiedBytes,
        before.and_then(|before| Ok(dirtied_bytes()? - before)),
        Evidence::KernelCounters,
    );
    let swaps = matches!(kind, Kind::Private | Kind::Anonymous);
    let needed = mapping.length() as u64;
    if swaps && swap_space_bytes()? < needed {
        let reason = "this machine has not enough swap space for it (swapon some, then again)";
        bench
            .report
            .set(Figure::SwappedBytes, Value::unknown(reason));
    } else {
        out(&mapping, kind, &cpus).context("MADV_PAGEOUT (from Linux 5.4 on)")?;
        let swapped = mapping.in_smaps("Swap");
        bench.try_set(Figure::SwappedBytes, swapped, Evidence::PageTables);
        let resident = mapping.in_smaps("Rss");
        bench.try_set(Figure::MemoryBytes, resident, Evidence::PageTables);
        if !swaps {
            let cached = mapping.cached_bytes()?;
            bench.set(Figure::CachedAfterBytes, cached, Evidence::PageTables);
        }
    }
    loaded_again(bench, &mapping, data);
    Ok(())
}

/// Asks the kernel for it. A page in use at the moment, or still on its way to the disk, stays, and so
/// does one that compaction has moved meanwhile, which is in the list of the CPU that did that: it is
/// asked again a few times, on each CPU. A file's page that stays is not in the mapping any more, where
/// alone the kernel looks for pages to page out: it is loaded, without a read, to be there again.
fn out(mapping: &Mapping, kind: Kind, cpus: &[usize]) -> Result<()> {
    const ROUNDS: usize = 50;

    let mut left = 0;
    for _ in 0..ROUNDS {
        for cpu in cpus {
            cpus::bind(*cpu)?;
            if left != 0 && matches!(kind, Kind::Clean | Kind::Shared) {
                for place in mapping.cached_pages()? {
                    mapping.load(place);
                }
            }
            mapping.advise(MADV_PAGEOUT)?;
            left = match kind {
                Kind::Clean | Kind::Shared => mapping.cached_bytes()?,
                Kind::Private | Kind::Anonymous => mapping.in_smaps("Rss")?,
            };
            if left == 0 {
                return Ok(());
            }
        }
    }
    bail!("{left} bytes stay in memory although the kernel was asked to page them out")
}

fn loaded_again(bench: &mut Bench, mapping: &Mapping, data: Data) {
    let places = (0..mapping.length()).step_by(page_bytes());
    let pages = places.len() as u64;
    let right = places.filter(|place| mapping.load(*place) == data.at(*place as u64));
    let right = right.count() as u64;
    bench.checked(pages, right);
}
