//! The rules and their thresholds.

use super::{Rule, Use};
use crate::{
    recording::{Path, Unit},
    report::units::{amount, count, percent},
};

/// What concerns less is not worth a line: a millisecond of copying, a tenth of one of a disk.
const LEAST_BYTES: u64 = 1 << 20;
/// Of what was read ahead, the share of which the waste is told: by the kernel's own guess a half of
/// it is well spent.
const UNUSED_SHARE: u64 = 2;
/// A smaller read costs more for the call than for the copy.
const SMALL_READ_BYTES: u64 = 4 << 10;
/// So many calls take some milliseconds.
const MANY_CALLS: u64 = 10_000;
/// So many waits for the disk take tens of milliseconds on a fast one, and seconds on a slow one.
const MANY_MAJOR_FAULTS: u64 = 256;
/// Up to so many pages for each major fault, the disk is read a page at a time.
const FEW_PAGES: u64 = 2;
/// The buffer that is suggested.
const BUFFER_BYTES: u64 = 64 << 10;

/// Every rule.
pub static RULES: [Rule; 5] = [
    Rule {
        name: "unused-readahead",
        check: "bytes read from disk fall with MADV_RANDOM",
        fires: unused_readahead,
    },
    Rule {
        name: "small-reads",
        check: "operations and kernel time fall with a larger buffer",
        fires: small_reads,
    },
    Rule {
        name: "page-by-page",
        check: "major faults and disk wait fall with the advice",
        fires: page_by_page,
    },
    Rule {
        name: "private-writes",
        check: "bytes copied in kernel fall to 0",
        fires: private_writes,
    },
    Rule {
        name: "both-ways",
        check: "bytes copied to user fall if the mapping serves alone",
        fires: both_ways,
    },
];

fn bytes(value: u64) -> String {
    amount(value, Unit::Bytes).to_string()
}

fn unused_readahead(used: &Use<'_>) -> Option<(String, u64)> {
    let mapped = used.on(Path::Mmap)?;
    let (ahead, unused) = (mapped.readahead_bytes?, mapped.readahead_unused_bytes?);
    (unused >= LEAST_BYTES && unused >= ahead / UNUSED_SHARE).then(|| {
        let says = format!(
            "of {} read ahead for its mapping, {} ({}) were never used. If it is read in random \
             order, madvise(MADV_RANDOM) reads what is touched alone",
            bytes(ahead),
            bytes(unused),
            percent(unused, ahead),
        );
        (says, unused)
    })
}

fn small_reads(used: &Use<'_>) -> Option<(String, u64)> {
    let read = used.on(Path::Read)?;
    let (operations, returned) = (read.operations?, read.bytes_returned?);
    let mean = returned.checked_div(operations)?;
    (operations >= MANY_CALLS && returned > 0 && mean < SMALL_READ_BYTES).then(|| {
        let says = format!(
            "{} reads returned {mean} B each on average. With a buffer of {}, {} would do",
            count(operations),
            bytes(BUFFER_BYTES),
            count(returned.div_ceil(BUFFER_BYTES)),
        );
        (says, returned)
    })
}

fn page_by_page(used: &Use<'_>) -> Option<(String, u64)> {
    let mapped = used.on(Path::Mmap)?;
    let (faults, disk) = (mapped.major_faults?, mapped.disk_read_bytes?);
    let each = disk.checked_div(faults)?;
    (faults >= MANY_MAJOR_FAULTS && each > 0 && each <= FEW_PAGES * used.page_bytes).then(|| {
        let says = format!(
            "{} faults on its mapping waited for the disk, for {} each. If they go forward, \
             MADV_SEQUENTIAL (and no MADV_RANDOM) reads more at a time; MADV_WILLNEED or \
             MAP_POPULATE reads in advance",
            count(faults),
            bytes(each),
        );
        (says, disk)
    })
}

fn private_writes(used: &Use<'_>) -> Option<(String, u64)> {
    let copied = used.on(Path::Mmap)?.copied_in_kernel_bytes?;
    (copied >= LEAST_BYTES).then(|| {
        let says = format!(
            "the kernel copied {} of its private mapping when it was written. MAP_SHARED copies \
             nothing, if the file may be changed; read() copies once, without a fault for each page",
            bytes(copied),
        );
        (says, copied)
    })
}

fn both_ways(used: &Use<'_>) -> Option<(String, u64)> {
    let (read, mapped) = (used.on(Path::Read)?, used.on(Path::Mmap)?);
    let returned = read.bytes_returned?;
    // What faults made accessible is not always known; each has at least a page of it.
    let (seen, at_least) = match mapped.mapped_bytes {
        Some(bytes) => (bytes, ""),
        None => {
            let faults = mapped.minor_faults? + mapped.major_faults?;
            (faults * used.page_bytes, "at least ")
        }
    };
    (returned >= LEAST_BYTES && seen >= LEAST_BYTES).then(|| {
        let says = format!(
            "the same process read {} of it by calls and saw {at_least}{} of it through a mapping. \
             What is mapped need not be read",
            bytes(returned),
            bytes(seen),
        );
        (says, returned)
    })
}
