//! The kernel side's counts.

use std::collections::BTreeMap;

use super::events::Events;
use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapError, PerCpuArray},
};
use mmtrace_common::{
    Ahead, AheadKey, CALIBRATION_PROCESS, FileKey, HeatKey, HeatWork, Lost, Measures, Path,
    Request, RequestKey, RowKey, StretchKey, Thread, TimeSamples, Truth, ahead::UNUSED,
    heat::NO_COLUMN, stack::StackKey,
};

use crate::page_cache::page_bytes;

/// What was counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    /// The rows.
    pub rows: BTreeMap<RowKey, Measures>,
    /// The rows' sums over time, path by path.
    pub timeline: BTreeMap<StretchKey, Measures>,
    /// Which parts of files were used when, if that was asked for.
    pub heat: BTreeMap<HeatKey, HeatWork>,
    /// Of rows, how many pages that were read ahead nobody had used, if that was asked for.
    pub unused_pages: BTreeMap<RowKey, u64>,
    /// Of stacks, how many of those are still there.
    pub unused_by_stack: BTreeMap<StackKey, u64>,
    /// The kernel's own counters of each process's ended threads.
    pub truths: BTreeMap<u64, Truth>,
    /// What the times of small reads stand on.
    pub time_samples: TimeSamples,
    /// What was lost, without the kinds of which nothing was.
    pub lost: BTreeMap<&'static str, u64>,
    /// How often each program ran, by [`Program`](mmtrace_common::Program).
    pub hits: Vec<u64>,
    /// Requests that are not complete, as far as was seen: of io_uring, and of aio.
    pub requests: [u64; 2],
}

/// Reads everything, once the programs are detached.
///
/// # Errors
///
/// If a map cannot be read.
pub(super) fn counted(ebpf: &Ebpf) -> Result<Counted> {
    let mut result = Counted::default();
    let aliases: HashMap<_, FileKey, FileKey> = HashMap::try_from(map(ebpf, "ALIASES")?)?;
    let aliases: BTreeMap<FileKey, FileKey> = aliases.iter().collect::<Result<_, _>>()?;
    // What was counted before an alias was known is the same file's.
    let mut add = |mut key: RowKey, measures: &Measures| {
        key.file = aliases.get(&key.file).copied().unwrap_or(key.file);
        sum(result.rows.entry(key).or_default(), measures);
    };
    let rows: HashMap<_, RowKey, Measures> = HashMap::try_from(map(ebpf, "ROWS")?)?;
    for entry in rows.iter() {
        let (key, measures) = entry?;
        add(key, &measures);
    }
    // Threads that still run, or that the kernel has not freed yet, hold work of their own.
    result.hits = Array::<_, u64>::try_from(map(ebpf, "HITS")?)?
        .iter()
        .collect::<Result<_, _>>()?;
    let timeline: HashMap<_, StretchKey, Measures> = HashMap::try_from(map(ebpf, "TIMELINE")?)?;
    result.timeline = timeline.iter().collect::<Result<_, _>>()?;
    for thread in followed(ebpf)? {
        let pending = thread
            .pending
            .map(|pending| (pending.key, pending.measures));
        for (key, measures) in pending.into_iter().chain([copied(&thread)]) {
            add(key, &measures);
            if ![0, CALIBRATION_PROCESS].contains(&key.process) {
                let key = StretchKey {
                    stretch: thread.stretch,
                    path: key.path,
                };
                sum(result.timeline.entry(key).or_default(), &measures);
            }
        }
        for (sum, hits) in result.hits.iter_mut().zip(thread.hits.0) {
            *sum += hits;
        }
    }
    result
        .rows
        .retain(|key, _| key.process != 0 && key.process != CALIBRATION_PROCESS);
    result.heat = heat(ebpf, &aliases)?;
    unused(ebpf, &aliases, &mut result)?;
    let truths: HashMap<_, u64, Truth> = HashMap::try_from(map(ebpf, "TRUTHS")?)?;
    for entry in truths.iter() {
        let (process, truth) = entry?;
        if process != CALIBRATION_PROCESS {
            result.truths.insert(process, truth);
        }
    }
    let requests: HashMap<_, RequestKey, Request> = HashMap::try_from(map(ebpf, "REQUESTS")?)?;
    for entry in requests.iter() {
        let (_, request) = entry?;
        // Of a synchronization nothing is expected but its end.
        if request.row.path != Path::Writeback as u32 {
            result.requests[usize::from(request.aio != 0)] += u64::from(request.count);
        }
    }
    let samples: PerCpuArray<_, TimeSamples> = PerCpuArray::try_from(map(ebpf, "TIME_SAMPLES")?)?;
    for of_cpu in samples.get(&0, 0)?.iter() {
        result.time_samples.timed += of_cpu.timed;
        result.time_samples.stand_for += of_cpu.stand_for;
        result.time_samples.variance = result.time_samples.variance.saturating_add(of_cpu.variance);
    }
    let lost: Array<_, u64> = Array::try_from(map(ebpf, "LOST")?)?;
    for what in Lost::ALL {
        let count = lost.get(&(what as u32), 0)?;
        if count != 0 {
            result.lost.insert(what.name(), count);
        }
    }
    Ok(result)
}

/// Adds how many pages were evicted unused, and how many are unused in the end. The cells of heat maps
/// have the former by now.
fn unused(ebpf: &Ebpf, aliases: &BTreeMap<FileKey, FileKey>, result: &mut Counted) -> Result<()> {
    let file = |file: FileKey| aliases.get(&file).copied().unwrap_or(file);
    let mut add = |mut key: RowKey, pages: u64| {
        key.file = file(key.file);
        *result.unused_pages.entry(key).or_default() += pages;
    };
    let evicted: HashMap<_, RowKey, u64> = HashMap::try_from(map(ebpf, "AHEAD_EVICTED")?)?;
    for entry in evicted.iter() {
        let (key, pages) = entry?;
        add(key, pages);
    }
    let pieces: HashMap<_, AheadKey, Ahead> = HashMap::try_from(map(ebpf, "AHEAD")?)?;
    for entry in pieces.iter() {
        let (key, piece) = entry?;
        let pages = (key.first_page..).zip(piece.states.iter().zip(piece.owners));
        for (page, (_, owner)) in pages.filter(|(_, (state, _))| **state == UNUSED) {
            let row = RowKey {
                process: owner.process,
                file: key.file,
                path: owner.how.path(),
                padding: 0,
            };
            add(row, 1);
            let stack = StackKey {
                process: owner.process,
                user: owner.user,
                kernel: owner.kernel,
                path: owner.how.path(),
                image: owner.image,
            };
            *result.unused_by_stack.entry(stack).or_default() += 1;
            if owner.how.column() != NO_COLUMN {
                let shift = page_bytes().trailing_zeros();
                let cell = HeatKey::of_page(file(key.file), owner.how.column(), page, shift);
                result.heat.entry(cell).or_default().readahead_unused_bytes += page_bytes();
            }
        }
    }
    Ok(())
}

/// The cells of heat maps, by the files that calls know.
fn heat(ebpf: &Ebpf, aliases: &BTreeMap<FileKey, FileKey>) -> Result<BTreeMap<HeatKey, HeatWork>> {
    let cells: HashMap<_, HeatKey, HeatWork> = HashMap::try_from(map(ebpf, "HEAT_MAPS")?)?;
    let mut sums: BTreeMap<HeatKey, HeatWork> = BTreeMap::new();
    for entry in cells.iter() {
        let (mut key, work) = entry?;
        key.file = aliases.get(&key.file).copied().unwrap_or(key.file);
        let sum = sums.entry(key).or_default();
        sum.returned_bytes += work.returned_bytes;
        sum.faulted_bytes += work.faulted_bytes;
        sum.cache_filled_bytes += work.cache_filled_bytes;
        sum.readahead_unused_bytes += work.readahead_unused_bytes;
    }
    Ok(sums)
}

/// What a thread has copied in the call that it is in, if it is in one.
fn copied(thread: &Thread) -> (RowKey, Measures) {
    let inside = thread.call.active != 0;
    let key = RowKey {
        process: thread.process,
        file: if inside {
            thread.call.file
        } else {
            FileKey::default()
        },
        path: if inside {
            thread.call.path
        } else {
            Path::Other as u32
        },
        padding: 0,
    };
    let [copied_to_user_bytes, copied_from_user_bytes] = thread.copies.bytes;
    let copied = Measures {
        copied_to_user_bytes,
        copied_from_user_bytes,
        ..Measures::default()
    };
    (key, copied)
}

/// What the calibration was counted with: the sum of its rows, by path.
///
/// # Errors
///
/// If a map cannot be read.
pub(super) fn calibration(ebpf: &Ebpf) -> Result<BTreeMap<u32, Measures>> {
    let mut sums = BTreeMap::new();
    let rows: HashMap<_, RowKey, Measures> = HashMap::try_from(map(ebpf, "ROWS")?)?;
    for entry in rows.iter() {
        let (key, measures) = entry?;
        if key.process == CALIBRATION_PROCESS {
            sum(sums.entry(key.path).or_default(), &measures);
        }
    }
    Ok(sums)
}

/// How many threads are still there, of processes that have ended and of others.
///
/// # Errors
///
/// If the map cannot be read.
pub(super) fn threads(ebpf: &Ebpf, events: &Events) -> Result<[usize; 2]> {
    let mut counts = [0; 2];
    for thread in followed(ebpf)? {
        let ended = events
            .processes
            .get(&thread.process)
            .is_some_and(|process| process.end_ns.is_some());
        counts[usize::from(!ended)] += 1;
    }
    Ok(counts)
}

/// Whether the end of a process may not have been told: for want of space in the ring buffer, or
/// because its last thread could not be followed.
///
/// # Errors
///
/// If the map cannot be read.
pub(super) fn may_have_missed_ends(ebpf: &Ebpf) -> Result<bool> {
    let lost: Array<_, u64> = Array::try_from(map(ebpf, "LOST")?)?;
    for what in [Lost::ProcessEvents, Lost::Threads] {
        if lost.get(&(what as u32), 0)? != 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The kernel's own counters of a process's ended threads, if it has any.
///
/// # Errors
///
/// If the map cannot be read.
pub(super) fn truth(ebpf: &Ebpf, process: u64) -> Result<Option<Truth>> {
    let truths: HashMap<_, u64, Truth> = HashMap::try_from(map(ebpf, "TRUTHS")?)?;
    match truths.get(&process, 0) {
        Ok(truth) => Ok(Some(truth)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The threads that are followed now.
fn followed(ebpf: &Ebpf) -> Result<Vec<Thread>> {
    let slots: HashMap<_, u32, u32> = HashMap::try_from(map(ebpf, "SLOTS")?)?;
    let threads: Array<_, Thread> = Array::try_from(map(ebpf, "THREADS")?)?;
    let mut followed = Vec::new();
    for slot in slots.keys() {
        let thread = threads.get(&slot?, 0)?;
        // Its slot has been given back, or taken and not written yet.
        if thread.tid != 0 {
            followed.push(thread);
        }
    }
    Ok(followed)
}

fn map<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a aya::maps::Map> {
    ebpf.map(name)
        .with_context(|| format!("the kernel programs have no map {name}"))
}

/// Wrapping, since a part may be less than nothing: a request that was counted and then not
/// submitted is taken away where the thread is, not from the row it was added to.
pub(super) fn sum(into: &mut Measures, more: &Measures) {
    into.operations = into.operations.wrapping_add(more.operations);
    into.bytes_requested = into.bytes_requested.wrapping_add(more.bytes_requested);
    into.bytes_returned = into.bytes_returned.wrapping_add(more.bytes_returned);
    into.unwatched_bytes = into.unwatched_bytes.wrapping_add(more.unwatched_bytes);
    into.copied_to_user_bytes = into
        .copied_to_user_bytes
        .wrapping_add(more.copied_to_user_bytes);
    into.copied_from_user_bytes = into
        .copied_from_user_bytes
        .wrapping_add(more.copied_from_user_bytes);
    into.copied_in_kernel_bytes = into
        .copied_in_kernel_bytes
        .wrapping_add(more.copied_in_kernel_bytes);
    into.minor_faults = into.minor_faults.wrapping_add(more.minor_faults);
    into.major_faults = into.major_faults.wrapping_add(more.major_faults);
    into.mapped_bytes = into.mapped_bytes.wrapping_add(more.mapped_bytes);
    into.cache_filled_bytes = into
        .cache_filled_bytes
        .wrapping_add(more.cache_filled_bytes);
    into.readahead_bytes = into.readahead_bytes.wrapping_add(more.readahead_bytes);
    into.disk_reads = into.disk_reads.wrapping_add(more.disk_reads);
    into.disk_read_bytes = into.disk_read_bytes.wrapping_add(more.disk_read_bytes);
    into.kernel_time_ns = into.kernel_time_ns.wrapping_add(more.kernel_time_ns);
    into.disk_wait_ns = into.disk_wait_ns.wrapping_add(more.disk_wait_ns);
}
