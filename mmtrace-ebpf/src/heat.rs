//! Heat maps: which parts of a file were used when.
//!
//! What calls returned, what was faulted on and what was brought into the page cache is added to cells
//! of a part of a file and a stretch of the run. Both are chosen so that a file has a few dozen of
//! each, however long it is and however long the run takes; user space makes those of a file equal.
//! What turns out to be evicted unused is added to the cell that has it as brought in.
//! What is counted here adds up to the rows: whoever adds to a row calls this with as much.

use aya_ebpf::{macros::map, maps::HashMap};
use mmtrace_common::{
    CALIBRATION_PROCESS, FileKey, HEAT_SLOTS, HeatKey, HeatWork, Lost, RequestKey, Thread,
    heat::{HALF, NO_COLUMN, column, part_shift},
    path::Path,
    thread::FROM_USER,
    timeline::stretch_at,
};

use crate::{
    account::{entry, started_ns},
    ahead, file,
    kernel::{kernel, read},
    maps::{DIRECT, IPC, OTHER, REQUESTS, atomic_add, lose, lose_many},
    thread::{self, now_ns},
};

/// The cells. User space makes it as small as can be if no heat maps are asked for.
#[map]
static HEAT_MAPS: HashMap<HeatKey, HeatWork> = HashMap::with_max_entries(HEAT_SLOTS, 0);

/// A new cell.
static NOTHING: HeatWork = HeatWork {
    returned_bytes: 0,
    faulted_bytes: 0,
    cache_filled_bytes: 0,
    readahead_unused_bytes: 0,
};

/// Which of a cell's sums is meant: in the upper bits of `how`, of which the lower ones are a shift.
const RETURNED: u64 = 0;
const FAULTED: u64 = 1;
const CACHE_FILLED: u64 = 2;
const UNUSED: u64 = 3;
const KIND_SHIFT: u32 = 8;

/// No [`PARTS`](mmtrace_common::heat::PARTS) of a file are this wide: it has no heat map.
const NONE: u64 = 0;

/// Whether heat maps are made of what a process does.
#[inline(always)]
fn wanted(process: u64) -> bool {
    kernel!(heat_maps) != 0 && process != 0 && process != CALIBRATION_PROCESS
}

/// Whether it matters where in their files the bytes are that calls and requests move.
#[inline(always)]
pub(crate) fn are_places_wanted() -> bool {
    kernel!(heat_maps) != 0 || ahead::is_followed()
}

/// Whether that matters of those of a process.
#[inline(always)]
fn is_placed(process: u64) -> bool {
    are_places_wanted() && process != 0 && process != CALIBRATION_PROCESS
}

/// Whether what calls on a path return is at an offset of their file.
#[inline(always)]
fn has_offsets(path: u32) -> bool {
    path != IPC && path != OTHER
}

/// The thread's call has returned so many bytes.
#[inline(always)]
pub(crate) fn returned(thread: &mut Thread, bytes: u64) {
    if is_placed(thread.process) && bytes != 0 && has_offsets(thread.call.path) {
        thread::elsewhere(thread, |tid| mmtrace_heat_call(tid, bytes));
    }
}

/// As [`returned`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_heat_call(tid: u32, bytes: u64) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let call = &thread.call;
    let shift = mmtrace_heat_shift(call.file_pointer);
    if shift == NONE {
        return 0;
    }
    let writes = u64::from(call.direction == FROM_USER);
    let start = mmtrace_heat_start(call.file_pointer, call.offset, bytes, writes);
    moved(call.file, start, bytes, shift, writes, call.path);
    0
}

/// A call or request has moved bytes that begin there.
#[inline(always)]
fn moved(file: FileKey, start: u64, bytes: u64, shift: u64, writes: u64, path: u32) {
    let (inode, rest) = (file.inode, file::rest_of(file));
    // What is written, or read past the page cache, uses nothing that was read ahead.
    if writes == 0 && path != DIRECT {
        ahead::returned(inode, rest, start, bytes);
    }
    if kernel!(heat_maps) != 0 {
        mmtrace_heat(inode, rest, start, bytes, RETURNED << KIND_SHIFT | shift);
    }
}

/// A request of aio or io_uring is complete, with this result: called before that is forgotten.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_heat_request(owner: u64, id: u64, bytes: u64) -> u32 {
    let Some(request) = REQUESTS.get_ptr_mut(RequestKey { owner, id }) else {
        return 0;
    };
    // SAFETY: entries are preallocated; one that is deleted meanwhile stays memory of the map.
    let request = unsafe { &*request };
    let shift = u64::from(request.heat_shift);
    if request.mixed != 0 || shift == NONE || !is_placed(request.row.process) {
        return 0;
    }
    if request.file_pointer == 0 {
        // Which of several it was is not known.
        if kernel!(heat_maps) != 0 {
            lose(Lost::HeatMaps);
        }
        ahead::returned_somewhere(bytes);
        return 0;
    }
    let writes = u64::from(request.row.path == Path::Write as u32);
    let start = mmtrace_heat_start(request.file_pointer, request.offset, bytes, writes);
    moved(
        request.row.file,
        start,
        bytes,
        shift,
        writes,
        request.row.path,
    );
    0
}

/// How wide the parts of a `struct file` on a path are, for a request that will be complete later.
#[inline(always)]
pub(crate) fn shift_for(path: u32, file_pointer: u64) -> u16 {
    if are_places_wanted() && has_offsets(path) {
        mmtrace_heat_shift(file_pointer) as u16
    } else {
        NONE as u16
    }
}

/// How wide the parts of a `struct file` are, as a shift of bytes; [`NONE`] if it has no data at
/// offsets.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_heat_shift(file_pointer: u64) -> u64 {
    let inode = file::inode_of(file_pointer);
    if !file::has_data(inode) {
        return NONE;
    }
    let size_bytes = read(inode, kernel!(inode_size));
    u64::from(part_shift(size_bytes, kernel!(page_shift)))
}

const O_APPEND: u32 = 0o2_000;

/// Where in a file a call or request that has moved so many bytes began. `offset` is what it asked
/// for; `u64::MAX`: the file's position.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_heat_start(
    file_pointer: u64,
    offset: u64,
    bytes: u64,
    writes: u64,
) -> u64 {
    let flags: u32 = read(file_pointer, kernel!(file_flags));
    if writes != 0 && flags & O_APPEND != 0 && offset != u64::MAX {
        // At the end whatever it asked for, which is where it has put the end.
        let size: u64 = read(file::inode_of(file_pointer), kernel!(inode_size));
        return size.saturating_sub(bytes);
    }
    if offset != u64::MAX {
        return offset;
    }
    let position: u64 = read(file_pointer, kernel!(file_pos));
    position.saturating_sub(bytes)
}

/// The thread's fault was charged so many times: more than once if ends of others were not told.
#[inline(always)]
pub(crate) fn faulted(thread: &mut Thread, faults: u64) {
    if wanted(thread.process) {
        thread::elsewhere(thread, |tid| mmtrace_heat_fault(tid, faults));
    }
}

/// Faults were charged on a file of which the page is not known.
#[inline(always)]
pub(crate) fn faulted_somewhere(thread: &Thread, faults: u64) {
    if wanted(thread.process) {
        lose_many(Lost::HeatMaps, faults);
    }
}

/// As [`faulted`]. What it needs is in the thread's entry: some of the calls that lead here have hardly
/// any stack left.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_heat_fault(tid: u32, faults: u64) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    if file::is_none(&thread.fault.file) || thread.mapping.file_bytes == u64::MAX {
        return 0;
    }
    let page_shift = kernel!(page_shift);
    let end = (thread.fault.page + 1) << page_shift;
    let shift = part_shift(thread.mapping.file_bytes.max(end), page_shift);
    let key = &mut thread.heat;
    key.file = thread.fault.file;
    key.shift = shift;
    key.part = ((end - 1) >> shift) as u32;
    key.stretch = stretch_at(HALF, now_ns() - started_ns());
    add(key, FAULTED, faults << page_shift);
    0
}

/// Bytes of the file that a mapping is of, for its heat map; `u64::MAX`: it has none.
#[inline(always)]
pub(crate) fn mapped_bytes(inode: u64) -> u64 {
    if kernel!(heat_maps) != 0 && file::has_data(inode) {
        read(inode, kernel!(inode_size))
    } else {
        u64::MAX
    }
}

/// So many bytes were brought into the page cache from page `index` of `inode` on (0: not known), which
/// are charged to `file`. Tells the column that has them.
#[inline(always)]
pub(crate) fn cache_filled(
    thread: &Thread,
    file: FileKey,
    inode: u64,
    index: u64,
    bytes: u64,
) -> u32 {
    if !wanted(thread.process) || file::is_none(&file) {
        return NO_COLUMN;
    }
    let page_shift = kernel!(page_shift);
    let size_bytes: u64 = if inode == 0 {
        0
    } else {
        read(inode, kernel!(inode_size))
    };
    let how = CACHE_FILLED << KIND_SHIFT | u64::from(part_shift(size_bytes, page_shift));
    let start = index << page_shift;
    mmtrace_heat(file.inode, file::rest_of(file), start, bytes, how)
}

/// A page that had been brought in, and is in that column, was evicted unused.
#[inline(always)]
pub(crate) fn unused(inode: u64, rest: u64, column: u32, page: u64) {
    if column != NO_COLUMN {
        let page_shift = kernel!(page_shift);
        let cell = HeatKey::of_page(FileKey::default(), column, page, page_shift);
        let place = u64::from(cell.stretch) << 32 | u64::from(cell.part);
        let how = UNUSED << KIND_SHIFT | u64::from(cell.shift);
        mmtrace_heat_part(inode, rest, place, 1 << page_shift, how);
    }
}

/// Adds bytes from `start` on to the parts that they are in. `how` is what was done, and the width of
/// the file's parts by its size; they are wider if the bytes are beyond that. Gives the column.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_heat(inode: u64, rest: u64, start: u64, bytes: u64, how: u64) -> u32 {
    let Some(end) = start.checked_add(bytes) else {
        lose(Lost::HeatMaps);
        return NO_COLUMN;
    };
    let shift = u64::from(part_shift(end, kernel!(page_shift))).max(how & SHIFT_MASK);
    let how = (how & !SHIFT_MASK) | shift;
    let stretch = stretch_at(HALF, now_ns() - started_ns());
    let mut at = start;
    for _ in 0..mmtrace_common::heat::PARTS {
        if at >= end {
            break;
        }
        let part = at >> shift;
        let ends = ((part + 1) << shift).min(end);
        let place = u64::from(stretch) << 32 | part;
        mmtrace_heat_part(inode, rest, place, ends - at, how);
        at = ends;
    }
    column(shift as u32, stretch)
}

/// The part of `how` that is a shift.
const SHIFT_MASK: u64 = (1 << KIND_SHIFT) - 1;

/// Adds bytes to a cell: `place` is its stretch and part.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_heat_part(
    inode: u64,
    rest: u64,
    place: u64,
    bytes: u64,
    how: u64,
) -> u32 {
    let key = HeatKey {
        file: file::key_from(inode, rest),
        shift: (how & SHIFT_MASK) as u32,
        part: place as u32,
        stretch: (place >> 32) as u32,
        padding: 0,
    };
    add(&key, how >> KIND_SHIFT, bytes);
    0
}

/// Adds bytes to a cell, which is made if it is not there.
#[inline(always)]
fn add(key: &HeatKey, kind: u64, bytes: u64) {
    let Some(cell) = entry(&HEAT_MAPS, key, &NOTHING) else {
        lose(Lost::HeatMaps);
        return;
    };
    // SAFETY: inside a live entry of HEAT_MAPS, from which nothing is deleted.
    unsafe {
        if kind == RETURNED {
            atomic_add(&raw mut (*cell).returned_bytes, bytes);
        } else if kind == FAULTED {
            atomic_add(&raw mut (*cell).faulted_bytes, bytes);
        } else if kind == CACHE_FILLED {
            atomic_add(&raw mut (*cell).cache_filled_bytes, bytes);
        } else {
            atomic_add(&raw mut (*cell).readahead_unused_bytes, bytes);
        }
    }
}
