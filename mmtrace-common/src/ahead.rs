//! What was read ahead, page by page, until it is used.

use crate::FileKey;

/// How many pages are kept together.
pub const AHEAD_PAGES: u64 = 16;

/// Pages of a file that follow each other: a key of the `AHEAD` map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct AheadKey {
    /// Which file.
    pub file: FileKey,
    /// The first of [`AHEAD_PAGES`] pages, counted from the file's start: a multiple of that.
    pub first_page: u64,
}

/// Who brought a page in beyond what was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AheadOwner {
    /// The process, as in [`RowKey`](crate::RowKey).
    pub process: u64,
    /// With which stack of the program, as in [`StackKey`](crate::stack::StackKey); 0: not known.
    pub user: u64,
    /// With which of the kernel.
    pub kernel: u64,
    /// How.
    pub how: How,
    /// To which of the process's programs `user` belongs, as in [`StackKey`](crate::stack::StackKey).
    pub image: u32,
}

/// On which path a page was brought in, and in which column of its file's heat map it is, as one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct How(pub u32);

impl How {
    /// On the path with this number, in this [column](crate::heat::column).
    #[inline(always)]
    #[must_use]
    pub const fn new(path: u32, column: u32) -> Self {
        Self(path | column << COLUMN_SHIFT)
    }

    /// The path's number.
    #[inline(always)]
    #[must_use]
    pub const fn path(self) -> u32 {
        self.0 & ((1 << COLUMN_SHIFT) - 1)
    }

    /// The column.
    #[inline(always)]
    #[must_use]
    pub const fn column(self) -> u32 {
        self.0 >> COLUMN_SHIFT
    }
}

/// Where in such a number the column is.
const COLUMN_SHIFT: u32 = 8;

/// Nothing is known of a page.
pub const UNKNOWN: u8 = 0;
/// It was asked for, read or mapped since it was brought in.
pub const USED: u8 = 1;
/// It was brought in beyond what was asked for, and nobody has used it.
pub const UNUSED: u8 = 2;

/// What is known of such pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Ahead {
    /// [`UNKNOWN`], [`USED`] or [`UNUSED`]: a byte each, which is written as a whole.
    pub states: [u8; AHEAD_PAGES as usize],
    /// Of those that are unused.
    pub owners: [AheadOwner; AHEAD_PAGES as usize],
}

/// How many such pieces of files are kept: entries of the `AHEAD` map. One all of whose pages are used
/// is forgotten.
pub const AHEAD_SLOTS: u32 = 65_536;

/// Over how many pages those are at most that wait for a block request, whose stack is theirs.
pub const AHEAD_RANGE: u64 = 2_048;

/// Of how many rows it is counted what was evicted unused: entries of the `AHEAD_EVICTED` map.
pub const AHEAD_ROWS: u32 = 16_384;

const _: () = assert!(size_of::<AheadKey>() == 24 && align_of::<AheadKey>() == 8);
const _: () = assert!(size_of::<AheadOwner>() == 32 && align_of::<AheadOwner>() == 8);
const _: () = assert!(size_of::<Ahead>() == 528 && align_of::<Ahead>() == 8);
