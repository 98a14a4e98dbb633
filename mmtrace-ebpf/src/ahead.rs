//! What becomes of what is read ahead: whether it is used before it is evicted or the run ends.
//!
//! A page that comes into the page cache beyond what was asked for is remembered with whom it is charged
//! to. A call that returns its bytes, or a fault that maps it, uses it. One that comes in again has been
//! evicted meanwhile: unused, if nobody had used it. What is left unused in the end, user space counts.
//!
//! Pages are kept in pieces, with a byte for each that two threads may write at once without harm. A
//! piece that is all used is forgotten: had one of its pages been evicted and read ahead again at that
//! very moment, it would go with it.

use aya_ebpf::{macros::map, maps::HashMap};
use mmtrace_common::{
    AHEAD_PAGES, AHEAD_RANGE, AHEAD_ROWS, AHEAD_SLOTS, Ahead, AheadKey, AheadOwner,
    CALIBRATION_PROCESS, FileKey, Lost, RowKey, Thread,
    ahead::{How, UNKNOWN, UNUSED, USED},
    heat::NO_COLUMN,
};

use crate::{
    account::entry,
    file, heat,
    kernel::kernel,
    maps::{atomic_add, lose_many},
    stack,
    thread::{self, Charge},
};

/// The pieces. User space makes this and the next as small as can be if it is not asked for.
#[map]
static AHEAD: HashMap<AheadKey, Ahead> = HashMap::with_max_entries(AHEAD_SLOTS, 0);

/// How many pages of rows were evicted unused.
#[map]
static AHEAD_EVICTED: HashMap<RowKey, u64> = HashMap::with_max_entries(AHEAD_ROWS, 0);

/// A new piece.
static NOTHING: Ahead = Ahead {
    states: [UNKNOWN; AHEAD_PAGES as usize],
    owners: [AheadOwner {
        process: 0,
        user: 0,
        kernel: 0,
        how: How::new(0, NO_COLUMN),
        image: 0,
    }; AHEAD_PAGES as usize],
};

/// No pages.
static NONE: u64 = 0;

/// Whether what becomes of readahead is followed.
#[inline(always)]
pub(crate) fn is_followed() -> bool {
    kernel!(readahead_use) != 0
}

/// So many bytes were brought in, from page `index` of the charge's file on. In its heat map they are in
/// that column.
#[inline(always)]
pub(crate) fn filled(thread: &mut Thread, charge: &Charge, index: u64, bytes: u64, column: u32) {
    let process = thread.process;
    if !is_followed() || process == 0 || process == CALIBRATION_PROCESS {
        return;
    }
    if file::is_none(&charge.file) {
        return;
    }
    let pages = bytes >> kernel!(page_shift);
    let [first, last] = charge.wanted;
    // Which of them were asked for: all, where that is not known.
    let [from, to] = if first == u64::MAX {
        [0, pages]
    } else {
        [first, last.saturating_add(1)].map(|page| page.saturating_sub(index).min(pages))
    };
    let How(how) = How::new(charge.path, column);
    let who = u64::from(thread.tid) | u64::from(how) << 32;
    let which = index | pages << PAGES_SHIFT;
    let (inode, rest) = (charge.file.inode, file::rest_of(charge.file));
    thread::elsewhere(thread, |_| {
        mmtrace_ahead_filled(who, inode, rest, which, from | to << 32)
    });
    if kernel!(stacks) != 0 {
        waits(thread, charge.file, index, index + pages);
    }
}

/// Pages wait for the block request that brings them in: its stack is theirs. Those before them that
/// wait still, and are elsewhere, have none.
#[inline(always)]
fn waits(thread: &mut Thread, file: FileKey, first: u64, end: u64) {
    let stacks = &mut thread.stacks;
    let from = stacks.ahead[0];
    let goes_on = from != stacks.ahead[1]
        && thread::same_file(&stacks.ahead_file, &file)
        && first >= from
        && end - from <= AHEAD_RANGE;
    if goes_on {
        stacks.ahead[1] = end.max(stacks.ahead[1]);
    } else {
        stacks.ahead_file = file;
        stacks.ahead = [first, end];
    }
}

/// A block request is submitted, with these stacks.
#[inline(always)]
pub(crate) fn submitted(thread: &mut Thread, user: u64, kernel: u64) {
    if is_followed() && thread.stacks.ahead[0] != thread.stacks.ahead[1] {
        thread::elsewhere(thread, |tid| mmtrace_ahead_stacks(tid, user, kernel));
    }
}

/// As [`submitted`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_ahead_stacks(tid: u32, user: u64, kernel: u64) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let [first, end] = thread.stacks.ahead;
    thread.stacks.ahead = [0; 2];
    let mut at = first - first % AHEAD_PAGES;
    for _ in 0..=AHEAD_RANGE / AHEAD_PAGES {
        if at >= end {
            break;
        }
        mmtrace_ahead_stack(tid, at, user, kernel);
        at += AHEAD_PAGES;
    }
    0
}

/// As [`submitted`], of one piece.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_ahead_stack(tid: u32, first_page: u64, user: u64, kernel: u64) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let key = AheadKey {
        file: thread.stacks.ahead_file,
        first_page,
    };
    let Some(piece) = AHEAD.get_ptr_mut(key) else {
        return 0;
    };
    // SAFETY: as in mmtrace_ahead_piece.
    let piece = unsafe { &mut *piece };
    for page in 0..AHEAD_PAGES as usize {
        let owner = &mut piece.owners[page];
        if owner.process == thread.process && owner.user | owner.kernel == 0 {
            owner.user = user;
            owner.kernel = kernel;
            owner.image = thread.stacks.image;
        }
    }
    0
}

/// Where in a number that has a page's index the number of pages is: the index has 52 bits at most, and
/// 48 do for files of an exbibyte.
const PAGES_SHIFT: u32 = 48;

/// The pieces that a folio is in: of a huge page, and one more where it is not aligned.
const FOLIO_PIECES: u64 = 512 / AHEAD_PAGES + 1;

/// As [`filled`]: `who` is a thread, a path and a column, `which` the first page and how many there are,
/// `asked` the first of those that was asked for and the one after the last.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_ahead_filled(
    who: u64,
    inode: u64,
    rest: u64,
    which: u64,
    asked: u64,
) -> u32 {
    let first = which & ((1 << PAGES_SHIFT) - 1);
    let end = first + (which >> PAGES_SHIFT);
    let (from, to) = (first + u64::from(asked as u32), first + (asked >> 32));
    let mut at = first;
    for _ in 0..FOLIO_PIECES {
        if at >= end {
            return 0;
        }
        let piece = at - at % AHEAD_PAGES;
        let stop = end.min(piece + AHEAD_PAGES);
        let filled = bits(at - piece, stop - piece);
        let (from, to) = (from.max(at), to.min(stop));
        let asked = if from < to {
            bits(from - piece, to - piece)
        } else {
            0
        };
        mmtrace_ahead_piece(who, inode, rest, piece, filled | asked << AHEAD_PAGES);
        at = stop;
    }
    if at < end {
        lose_many(Lost::ReadaheadUse, end - at);
    }
    0
}

/// Bits for the pages of a piece from one to before another.
#[inline(always)]
fn bits(from: u64, to: u64) -> u64 {
    (1 << (to & 31)) - (1 << (from & 31))
}

/// Pages of a piece were brought in, of which some were asked for: in the upper half of `pages`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_ahead_piece(
    who: u64,
    inode: u64,
    rest: u64,
    first_page: u64,
    pages: u64,
) -> u32 {
    let Some(thread) = thread::by_tid(who as u32) else {
        return 0;
    };
    let owner = AheadOwner {
        process: thread.process,
        user: 0,
        kernel: 0,
        how: How((who >> 32) as u32),
        image: 0,
    };
    let key = AheadKey {
        file: file::key_from(inode, rest),
        first_page,
    };
    let asked = pages >> AHEAD_PAGES;
    let ahead = pages & !asked & ((1 << AHEAD_PAGES) - 1);
    let piece = if ahead == 0 {
        // All that matters is whether they were read ahead before.
        AHEAD.get_ptr_mut(key)
    } else {
        entry(&AHEAD, &key, &NOTHING)
    };
    let Some(piece) = piece else {
        let mut lost = 0;
        for page in 0..AHEAD_PAGES {
            lost += ahead >> page & 1;
        }
        lose_many(Lost::ReadaheadUse, lost);
        return 0;
    };
    // SAFETY: a valid entry: they are preallocated, so that one which is forgotten meanwhile stays memory
    // of the map. The bytes of different pages do not share a word that is written.
    let piece = unsafe { &mut *piece };
    for page in 0..AHEAD_PAGES as usize {
        if pages >> page & 1 == 0 {
            continue;
        }
        if piece.states[page] == UNUSED {
            let before = piece.owners[page];
            let How(how) = before.how;
            mmtrace_ahead_evicted(before.process, how, inode, rest, first_page + page as u64);
            if kernel!(stacks) != 0 {
                let whose = u64::from(before.image) << 32 | u64::from(before.how.path());
                stack::mmtrace_unused_page(before.process, whose, before.user, before.kernel);
            }
        }
        if ahead >> page & 1 == 0 {
            piece.states[page] = USED;
        } else {
            piece.owners[page] = owner;
            piece.states[page] = UNUSED;
        }
    }
    forget_if_used(&key, piece);
    0
}

/// A page has been evicted that nobody had used: `how` is a [`How`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_ahead_evicted(
    process: u64,
    how: u32,
    inode: u64,
    rest: u64,
    page: u64,
) -> u32 {
    let how = How(how);
    let key = RowKey {
        process,
        file: file::key_from(inode, rest),
        path: how.path(),
        padding: 0,
    };
    match entry(&AHEAD_EVICTED, &key, &NONE) {
        Some(pages) => {
            // SAFETY: a live entry of AHEAD_EVICTED, from which nothing is deleted.
            unsafe { atomic_add(pages, 1) };
            heat::unused(inode, rest, how.column(), page);
        }
        None => lose_many(Lost::ReadaheadUse, 1),
    }
    0
}

#[inline(always)]
fn forget_if_used(key: &AheadKey, piece: &Ahead) {
    const ALL_USED: u64 = u64::from_ne_bytes([USED; 8]);
    let words = (&raw const piece.states).cast::<u64>();
    // SAFETY: the states are two words, aligned as the entry is.
    let [one, other] = unsafe { [words.read(), words.add(1).read()] };
    if one == ALL_USED && other == ALL_USED {
        let _gone = AHEAD.remove(key);
    }
}

/// Bytes of a file were returned to a program, or sent on for it.
#[inline(always)]
pub(crate) fn returned(inode: u64, rest: u64, start: u64, bytes: u64) {
    if is_followed() && bytes != 0 {
        let shift = kernel!(page_shift);
        let last = start.saturating_add(bytes - 1) >> shift;
        mmtrace_ahead_used(inode, rest, start >> shift, last + 1);
    }
}

/// Bytes were returned of which it is not known where in their file they are.
#[inline(always)]
pub(crate) fn returned_somewhere(bytes: u64) {
    if is_followed() {
        lose_many(Lost::ReadaheadUse, bytes.div_ceil(1 << kernel!(page_shift)));
    }
}

/// Pages of a file were made accessible.
#[inline(always)]
pub(crate) fn mapped(file: FileKey, first: u64, pages: u64) {
    mmtrace_ahead_used(file.inode, file::rest_of(file), first, first + pages);
}

/// How many pieces, and how many times as many, are gone through: enough for the longest call, which
/// moves less than 2 GiB.
const SOME: u64 = 128;
const TIMES: u64 = 256;

/// Pages of a file are used, from one to before another.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_ahead_used(inode: u64, rest: u64, first: u64, end: u64) -> u32 {
    let mut at = first;
    for _ in 0..=TIMES {
        if at >= end {
            break;
        }
        let stop = end.min(at - at % AHEAD_PAGES + SOME * AHEAD_PAGES);
        mmtrace_ahead_used_some(inode, rest, at, stop);
        at = stop;
    }
    0
}

/// As [`mmtrace_ahead_used`], of [`SOME`] pieces.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_ahead_used_some(inode: u64, rest: u64, first: u64, end: u64) -> u32 {
    let mut at = first;
    for _ in 0..SOME {
        if at >= end {
            break;
        }
        let piece = at - at % AHEAD_PAGES;
        let stop = end.min(piece + AHEAD_PAGES);
        mmtrace_ahead_used_piece(inode, rest, piece, bits(at - piece, stop - piece));
        at = stop;
    }
    0
}

/// As [`mmtrace_ahead_used`], of one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_ahead_used_piece(
    inode: u64,
    rest: u64,
    first_page: u64,
    pages: u64,
) -> u32 {
    let key = AheadKey {
        file: file::key_from(inode, rest),
        first_page,
    };
    let Some(piece) = AHEAD.get_ptr_mut(key) else {
        return 0;
    };
    // SAFETY: as in mmtrace_ahead_piece.
    let piece = unsafe { &mut *piece };
    for page in 0..AHEAD_PAGES as usize {
        if pages >> page & 1 != 0 {
            piece.states[page] = USED;
        }
    }
    forget_if_used(&key, piece);
    0
}
