//! Bytes of a workload's own memory that are watched for the kernel's stores.

use anyhow::{Result, anyhow, ensure};

use super::{bench::Bench, sys::Mapping};
use crate::{
    settle::{
        figure::{Evidence, Figure, Value},
        sabotage::Sabotage,
    },
    witness::Watch,
};

/// At most so many bytes: the processor has four registers for that, and others use some.
const BYTES: usize = 3;
/// How far into its page a watched byte is: far from the ends of a copy, which routines may store
/// twice.
const IN_PAGE: usize = 2_003;

/// Where `length` bytes are watched: in the first page, in the middle and in the last.
fn places(length: usize, page_bytes: usize) -> Vec<usize> {
    let last = length - 1;
    let within = |page: usize| (page * page_bytes + IN_PAGE).min(last);
    let pages = length.div_ceil(page_bytes);
    let mut places: Vec<usize> = [0, pages / 2, pages - 1].map(within).to_vec();
    places.dedup();
    places.truncate(BYTES);
    places
}

/// The watches, until their stores are told.
pub(super) struct Watches(Result<Vec<(usize, Watch)>>);

impl Watches {
    /// Watches bytes of the first `length` of `memory`.
    pub(super) fn set(memory: &Mapping, length: usize, bench: &Bench) -> Self {
        if bench.step.sabotage == Some(Sabotage::NoCopyProbe) {
            return Self(Err(anyhow!("no watchpoint: not to be had in this test")));
        }
        let set = |place| Ok((place, Watch::new(0, memory.at(place).addr(), 1)?));
        let places = places(length, super::sys::page_bytes());
        Self(places.into_iter().map(set).collect())
    }

    /// Notes what the kernel has stored to them. Then each is stored to, in a page of its own: that
    /// this is seen is the proof that the watch sees. The mapping is not to be looked at any more.
    pub(super) fn tell(self, memory: &Mapping, bench: &mut Bench) {
        let told = self.0.and_then(|watches| tell(watches, memory, bench));
        if let Err(error) = told {
            let reason = format!("{error:#}");
            for figure in [Figure::WatchedBytes, Figure::KernelStores] {
                bench.report.set(figure, Value::unknown(reason.clone()));
            }
        }
    }
}

fn tell(watches: Vec<(usize, Watch)>, memory: &Mapping, bench: &mut Bench) -> Result<()> {
    let mut stored = 0;
    let watched = watches.len() as u64;
    for (place, mut watch) in watches {
        let stores = watch.stores()?;
        ensure!(stores.lost == 0, "{} stores were lost", stores.lost);
        memory.replace_page(place)?;
        memory.store(place, 1);
        let own = watch.stores()?;
        ensure!(
            own.by_program() == 1 && own.by_kernel() == 0,
            "a watchpoint can be set here, but does not see every store: {own:?}"
        );
        // A routine may store a byte more than once: what counts is whether it did.
        stored += u64::from(stores.by_kernel() > 0);
        let first = stores.seen.iter().find(|store| store.by_kernel);
        if let Some(store) = first.filter(|_| bench.report.store.is_empty()) {
            bench.report.store = [&[store.ip], &store.callers[..]].concat();
        }
    }
    let known = |number| Value::known(number, Evidence::ReturnsAndWatchpoints);
    bench.report.set(Figure::WatchedBytes, known(watched));
    bench.report.set(Figure::KernelStores, known(stored));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_inside_and_apart() {
        assert_eq!(places(1, 4096), [0]);
        assert_eq!(places(4096, 4096), [2003]);
        assert_eq!(places(4097, 4096), [2003, 4096]);
        assert_eq!(
            places(3 << 20, 4096),
            [2003, (3 << 19) + 2003, (3 << 20) - 4096 + 2003]
        );
    }
}
