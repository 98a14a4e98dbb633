//! Heat maps: from the kernel side's cells, whose parts grow with the file and whose stretches grow with
//! the run, to equal ones.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use mmtrace_common::{
    FileKey, HeatKey, HeatWork,
    heat::HALF,
    timeline::{begins_ns, width_shift},
};

use crate::recording::{HeatCell, HeatMap};

/// Of how many files a recording has heat maps: of those with the most bytes.
const FILES: usize = 100;

/// Makes the heat maps of the files that have an id and for which `has_offsets` holds. What was brought
/// in unused is told if `unused_is_known`.
pub(super) fn make(
    counted: &BTreeMap<HeatKey, HeatWork>,
    ids: &HashMap<FileKey, u32>,
    has_offsets: impl Fn(&FileKey) -> bool,
    unused_is_known: bool,
) -> Vec<HeatMap> {
    let Some(last) = counted.keys().map(|key| key.stretch).max() else {
        return Vec::new();
    };
    let mut files: BTreeMap<u32, Vec<(&HeatKey, &HeatWork)>> = BTreeMap::new();
    for (key, work) in counted {
        if let Some(id) = ids.get(&key.file)
            && has_offsets(&key.file)
        {
            files.entry(*id).or_default().push((key, work));
        }
    }
    let mut maps: Vec<HeatMap> = files
        .iter()
        .map(|(id, cells)| of_file(*id, cells, width_shift(HALF, last), unused_is_known))
        .collect();
    maps.sort_by_key(|map| Reverse(bytes(map)));
    maps.truncate(FILES);
    maps.sort_by_key(|map| map.file);
    maps
}

/// What was done with all of a file.
fn bytes(map: &HeatMap) -> u64 {
    let cells = map.cells.iter();
    cells
        .map(|cell| cell.returned_bytes + cell.faulted_bytes + cell.cache_filled_bytes)
        .sum()
}

/// Puts a file's cells into parts that are all as wide as the widest one, and into stretches that are
/// `1 << stretch_shift` long.
fn of_file(
    file: u32,
    cells: &[(&HeatKey, &HeatWork)],
    stretch_shift: u32,
    unused_is_known: bool,
) -> HeatMap {
    let shifts = cells.iter().map(|(key, _)| key.shift);
    let shift = shifts.max().unwrap_or(0);
    let mut sums: BTreeMap<(u64, u64), HeatCell> = BTreeMap::new();
    for (key, work) in cells {
        let part = u64::from(key.part) >> (shift - key.shift);
        let stretch = begins_ns(HALF, key.stretch) >> stretch_shift;
        let cell = sums.entry((part, stretch)).or_insert(HeatCell {
            part,
            stretch,
            readahead_unused_bytes: unused_is_known.then_some(0),
            ..HeatCell::default()
        });
        cell.returned_bytes += work.returned_bytes;
        cell.faulted_bytes += work.faulted_bytes;
        cell.cache_filled_bytes += work.cache_filled_bytes;
        if let Some(bytes) = &mut cell.readahead_unused_bytes {
            *bytes += work.readahead_unused_bytes;
        }
    }
    HeatMap {
        file,
        width_bytes: 1 << shift,
        width_ns: 1 << stretch_shift,
        cells: sums.into_values().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(inode: u64, shift: u32, part: u32, stretch: u32) -> HeatKey {
        HeatKey {
            file: FileKey {
                inode,
                ..FileKey::default()
            },
            shift,
            part,
            stretch,
            padding: 0,
        }
    }

    fn returned(returned_bytes: u64) -> HeatWork {
        HeatWork {
            returned_bytes,
            ..HeatWork::default()
        }
    }

    fn ids(inodes: std::ops::Range<u64>) -> HashMap<FileKey, u32> {
        (0..)
            .zip(inodes)
            .map(|(id, inode)| (key(inode, 0, 0, 0).file, id))
            .collect()
    }

    #[test]
    fn cells_become_as_wide_as_the_files_widest_and_as_long_as_the_runs_last() {
        // 0 and 1 last a unit; 32 is the first that lasts two.
        let counted = BTreeMap::from([
            (key(7, 12, 6, 0), returned(3)),
            (key(7, 12, 7, 1), returned(5)),
            (key(7, 14, 1, 1), returned(7)),
            (key(7, 14, 0, 1), returned(11)),
            (key(8, 12, 63, 32), returned(13)),
        ]);
        let maps = make(&counted, &ids(7..9), |_| true, false);
        let told: Vec<_> = maps
            .iter()
            .map(|map| {
                let cells = map.cells.iter();
                let cells = cells.map(|cell| [cell.part, cell.stretch, cell.returned_bytes]);
                (map.file, map.width_bytes, map.width_ns, cells.collect())
            })
            .collect();
        let first = vec![[0, 0, 11], [1, 0, 3 + 5 + 7]];
        assert_eq!(
            told,
            [
                (0, 1 << 14, 2 << 16, first),
                (1, 1 << 12, 2 << 16, vec![[63, 16, 13]])
            ]
        );
    }

    #[test]
    fn files_without_offsets_and_all_but_the_most_used_have_none() {
        let all = 1..FILES as u64 + 4;
        let counted: BTreeMap<_, _> = all
            .clone()
            .map(|inode| (key(inode, 12, 0, 0), returned(inode)))
            .collect();
        let maps = make(&counted, &ids(all), |file| file.inode != 50, false);
        let files: Vec<u64> = maps.iter().map(|map| u64::from(map.file) + 1).collect();
        // The two with the least bytes do not fit.
        let expected = (3..FILES as u64 + 4).filter(|inode| *inode != 50);
        assert_eq!(files, expected.collect::<Vec<_>>());
        assert!(make(&BTreeMap::new(), &ids(1..2), |_| true, true).is_empty());
    }

    #[test]
    fn what_is_unused_is_none_where_it_is_not_known_and_0_where_nothing_is() {
        let unused = HeatWork {
            cache_filled_bytes: 17,
            readahead_unused_bytes: 13,
            ..HeatWork::default()
        };
        let counted = BTreeMap::from([
            (key(7, 12, 4, 0), unused),
            (key(7, 12, 5, 0), unused),
            (key(7, 13, 3, 0), returned(11)),
        ]);
        let told = |known| {
            let maps = make(&counted, &ids(7..8), |_| true, known);
            let cells = maps[0].cells.iter();
            let cells = cells.map(|cell| (cell.part, cell.readahead_unused_bytes));
            cells.collect::<Vec<_>>()
        };
        assert_eq!(told(true), [(2, Some(2 * 13)), (3, Some(0))]);
        assert_eq!(told(false), [(2, None), (3, None)]);
    }
}
