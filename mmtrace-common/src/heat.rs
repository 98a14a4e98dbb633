//! Which parts of a file were used when.

use crate::{FileKey, timeline::doublings};

/// How many parts a file has at most.
pub const PARTS: u64 = 64;

/// As the timeline's [`HALF`](crate::timeline::HALF), of the stretches here: a run has up to twice as
/// many.
pub const HALF: u64 = 16;

/// A part of a file in a stretch of the run: a key of the `HEAT_MAPS` map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct HeatKey {
    /// Which file.
    pub file: FileKey,
    /// How wide its parts are, as a shift of bytes: as the file grows, so do they.
    pub shift: u32,
    /// Which part, from 0.
    pub part: u32,
    /// Which [stretch](crate::timeline), from 0.
    pub stretch: u32,
    /// Unused, for the alignment: always 0.
    pub padding: u32,
}

/// What was done with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HeatWork {
    /// Bytes that calls returned or wrote.
    pub returned_bytes: u64,
    /// Bytes of the pages that faults were taken on.
    pub faulted_bytes: u64,
    /// Bytes of page cache brought in.
    pub cache_filled_bytes: u64,
    /// Of these, read ahead and not used before they were evicted.
    pub readahead_unused_bytes: u64,
}

/// The cells of a stretch whose parts are as wide as that, as a shift of bytes: as a number of 24 bits.
#[inline(always)]
#[must_use]
pub const fn column(shift: u32, stretch: u32) -> u32 {
    shift | stretch << COLUMN_SHIFT
}

/// The number of no column.
pub const NO_COLUMN: u32 = 0;

/// Where in a column's number the stretch is.
const COLUMN_SHIFT: u32 = 8;

impl HeatKey {
    /// The cell of a column that a page of a file is in.
    #[inline(always)]
    #[must_use]
    pub const fn of_page(file: FileKey, column: u32, page: u64, page_shift: u32) -> Self {
        let shift = column & ((1 << COLUMN_SHIFT) - 1);
        Self {
            file,
            shift,
            part: ((page << page_shift) >> (shift & 63)) as u32,
            stretch: column >> COLUMN_SHIFT,
            padding: 0,
        }
    }
}

/// How many cells are kept: entries of the `HEAT_MAPS` map.
pub const HEAT_SLOTS: u32 = 262_144;

/// How wide the parts of a file of so many bytes are, as a shift of bytes: whole pages, and no more
/// than [`PARTS`].
#[inline(always)]
#[must_use]
pub fn part_shift(file_bytes: u64, page_shift: u32) -> u32 {
    let shift = doublings(PARTS / 2, file_bytes.saturating_sub(1));
    if shift > page_shift {
        shift
    } else {
        page_shift
    }
}

const _: () = assert!(size_of::<HeatKey>() == 32 && align_of::<HeatKey>() == 8);
const _: () = assert!(size_of::<HeatWork>() == 32 && align_of::<HeatWork>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_at_most_so_many_parts_of_whole_pages() {
        let parts = |bytes: u64| bytes.div_ceil(1 << part_shift(bytes, 12));
        assert_eq!([0, 1, 4_096, 4_097].map(parts), [0, 1, 1, 2]);
        assert_eq!([1 << 18, (1 << 18) + 1].map(parts), [64, 33]);
        assert_eq!(part_shift(1 << 18, 12), 12);
        assert_eq!(part_shift((1 << 18) + 1, 12), 13);
        assert_eq!(part_shift(1 << 63, 12), 57);
        assert_eq!(part_shift(u64::MAX, 12), 58);
    }

    #[test]
    fn a_page_is_in_the_part_and_the_stretch_of_its_column() {
        let file = FileKey {
            inode: 7,
            ..FileKey::default()
        };
        for (shift, page, part) in [(12, 0, 0), (12, 63, 63), (14, 63, 15), (58, 1 << 48, 4)] {
            // An hour has 362, and each doubling of that 16 more.
            for stretch in [0, 1, 362, 65_535] {
                let column = column(shift, stretch);
                assert!(column != NO_COLUMN && column < 1 << 24);
                let expected = HeatKey {
                    file,
                    shift,
                    part,
                    stretch,
                    padding: 0,
                };
                assert_eq!(HeatKey::of_page(file, column, page, 12), expected);
            }
        }
    }
}
