//! The read calls, one by one.

use std::{
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use anyhow::{bail, ensure};

use crate::{
    case::{Case, Need, Scene, Site, State, case},
    check::{Check, Rows, all_of, all_on, not_on, on},
    files,
    needs::{memory_bytes, spare_disk},
    truth::Truth,
};

/// A prime number of bytes, not near a page's size.
const READ_BYTES: u64 = 1_511;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for call in ["read", "pread", "readv", "preadv", "preadv2"] {
        for state in State::BOTH {
            cases.push(case(
                format!("{call}/{}", state.name()),
                state.needs(),
                move |site| whole(site, call, state),
            ));
        }
    }
    cases.extend([
        case("read/many-warm", &[Need::FirstBackend], |site| {
            many(site, "read", State::Warm, true)
        }),
        case(
            "pread/many-cold",
            &[Need::FirstBackend, Need::Cold],
            |site| many(site, "pread", State::Cold, true),
        ),
        case("preadv/many-warm", &[Need::FirstBackend], |site| {
            many(site, "preadv", State::Warm, false)
        }),
        case("pread/part", &[Need::Cold], part),
        case("read/odd", &[], odd),
        case("read/into-cold-mapping", &[Need::Cold], |site| {
            into_mapping(site, State::Cold)
        }),
        case("read/into-warm-mapping", &[], |site| {
            into_mapping(site, State::Warm)
        }),
        case("read/sparse", &[], sparse),
        case("read/sparse-with-data", &[Need::Cold], sparse_with_data),
        case(
            "read/larger-than-memory",
            &[Need::Cold, Need::SmallMemory],
            larger,
        ),
        case("read/block-device", &[Need::SpareDisk], block_device),
        case("direct/file", &[Need::DirectIo, Need::Cold], |site| {
            direct(site, "touched")
        }),
        case(
            "direct/untouched-buffer",
            &[Need::DirectIo, Need::Cold],
            |site| direct(site, "untouched"),
        ),
    ]);
    cases
}

/// Requires that the calls were counted as the workload made them.
pub(super) fn as_made(check: &mut Check<'_>, rows: &Rows, truth: &Truth) {
    check.equal(rows, "operations", truth.calls);
    check.equal(rows, "bytes_requested", truth.requested_bytes);
    check.equal(rows, "bytes_returned", truth.returned_bytes);
}

fn whole(site: &Site, call: &'static str, state: State) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(state, size)?;
    let from_disk = state.disk_bytes(site.on_disk_bytes(size)?);
    let command = site.workload("read", &[&file, &call, &READ_BYTES.to_string()]);
    Ok(Scene::workload(command, move |check, truth| {
        let read = on(&file, "read");
        ensure!(truth.calls == size.div_ceil(READ_BYTES) + 1 && truth.returned_bytes == size);
        as_made(check, &read, truth);
        check.equal(&read, "disk_read_bytes", from_disk);
        check.equal(&not_on(&file, "read"), "operations", 0);
        check.equal(&not_on(&file, "read"), "disk_read_bytes", 0);
        Ok(())
    }))
}

/// Many small reads in a row, and how long they took.
fn many(site: &Site, call: &'static str, state: State, sampled: bool) -> anyhow::Result<Scene> {
    const SMALL_BYTES: u64 = 163;
    const SIZE_BYTES: u64 = 13_000_027;
    let size = SIZE_BYTES;
    let file = site.data_in(state, size)?;
    let command = site.workload("timed-read", &[&file, &call, &SMALL_BYTES.to_string()]);
    let scene = Scene::workload(command, move |check, truth| {
        let read = on(&file, "read");
        ensure!(truth.returned_bytes == size);
        as_made(check, &read, truth);
        timed(check, &read, truth, sampled)
    });
    Ok(scene.unshared())
}

/// Requires that reads took as long as the workload says, and that of many that say all in their
/// arguments not each was timed.
fn timed(check: &mut Check<'_>, read: &Rows, truth: &Truth, sampled: bool) -> anyhow::Result<()> {
    /// After so many the sampling begins.
    const ALL_TIMED: u64 = 16_384;
    /// Of the last ones, so many at most have nobody who stands for them, or who do not come.
    const BLOCK: u64 = 8;

    let sampling = check.recording().time_sampling().copied();
    let bound_ns = match sampling {
        Some(sampling) if sampled => {
            let rest = truth.calls - ALL_TIMED;
            check.that(
                (rest - BLOCK..=rest + BLOCK).contains(&sampling.stand_for)
                    && sampling.timed * BLOCK >= sampling.stand_for
                    && sampling.timed < rest,
                || format!("{rest} reads beside those all timed: {sampling:?}"),
            );
            sampling.error_bound_ns
        }
        None if !sampled => 0,
        other => bail!("time sampling: {other:?}"),
    };
    check.at_most(read, "kernel_time_ns", truth.elapsed_ns + bound_ns);
    // Entering the kernel, and what is done in the tracepoints there, is not in it: part of the time,
    // but less than would be missing if nobody stood for others.
    check.that(truth.calls >= 4 * ALL_TIMED, || {
        format!("{} calls", truth.calls)
    });
    let least_ns = truth.processor_ns / 3;
    check.at_least(read, "kernel_time_ns", least_ns);
    // What is waited for is all in it, not in one call of eight.
    if let Some(wait_ns) = check.sum(read, "disk_wait_ns") {
        check.at_least(read, "kernel_time_ns", wait_ns);
    }
    Ok(())
}

/// The first calls only: more comes from the disk than was asked for, and all of it into the cache.
fn part(site: &Site) -> anyhow::Result<Scene> {
    const CALLS: u64 = 17;
    let file = site.data_in(State::Cold, site.size_bytes())?;
    let command = site.workload(
        "read",
        &[&file, &"pread", &READ_BYTES.to_string(), &CALLS.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        let read = on(&file, "read");
        ensure!(truth.returned_bytes == CALLS * READ_BYTES);
        as_made(check, &read, truth);
        let cached = files::cached_bytes(&file)?;
        check.equal(&read, "cache_filled_bytes", cached);
        check.equal(&read, "disk_read_bytes", cached);
        let asked = (CALLS * READ_BYTES).next_multiple_of(files::page_size());
        ensure!(cached > asked, "there was no readahead");
        check.at_least(&read, "readahead_bytes", cached - asked);
        Ok(())
    }))
}

/// Calls that return nothing count when they reached a file; with `EBADF` there is none.
fn odd(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Warm, 10_007)?;
    let command = site.workload("odd-calls", &[&file]);
    Ok(Scene::workload(command, move |check, truth| {
        as_made(check, &on(&file, "read"), truth);
        Ok(())
    }))
}

/// The faults that the kernel's copy takes belong to the mapping, the reads to the file.
fn into_mapping(site: &Site, state: State) -> anyhow::Result<Scene> {
    const SIZE_BYTES: u64 = 1_000_003;
    let from = site.data("from", SIZE_BYTES)?;
    let into = site.data("into", SIZE_BYTES)?;
    site.bring(state, &from)?;
    site.bring(state, &into)?;
    let from_disk = state.disk_bytes(site.on_disk_bytes(SIZE_BYTES)?);
    let command = site.workload("read-into-mapping", &[&from, &into, &"65003"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.faults.sum() > 0, "the reads take no fault");
        as_made(check, &on(&from, "read"), truth);
        check.equal(&on(&from, "read"), "disk_read_bytes", from_disk);
        check.faults(&all_of(&from), 0);
        let mapped = on(&into, "mmap");
        check.equal(&mapped, "minor_faults", truth.faults.minor);
        check.equal(&mapped, "major_faults", truth.faults.major);
        check.equal(&mapped, "disk_read_bytes", from_disk);
        check.equal(&mapped, "operations", 0);
        check.equal(&on(&into, "read"), "disk_read_bytes", 0);
        Ok(())
    }))
}

/// A hole is read as zeros that no disk holds.
fn sparse(site: &Site) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.path("sparse");
    let sparse = fs::File::create(&file)?;
    sparse.set_len(size)?;
    sparse.sync_all()?;
    let command = site.workload("read", &[&file, &"read", &"65003"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        as_made(check, &on(&file, "read"), truth);
        check.equal(&all_of(&file), "disk_read_bytes", 0);
        Ok(())
    }))
}

/// Of a file with a hole, what is in it comes from the disk, and only that.
fn sparse_with_data(site: &Site) -> anyhow::Result<Scene> {
    const DATA_BYTES: u64 = 65_536;
    let size = site.size_bytes();
    let file = site.path("sparse");
    let sparse = fs::File::create(&file)?;
    sparse.set_len(size)?;
    sparse.write_all_at(&vec![0xa5; usize::try_from(DATA_BYTES)?], 16 * DATA_BYTES)?;
    sparse.sync_all()?;
    site.bring(State::Cold, &file)?;
    ensure!(
        sparse.metadata()?.blocks() * 512 < size,
        "the file has no hole"
    );
    let command = site.workload("read", &[&file, &"read", &"65003"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        as_made(check, &on(&file, "read"), truth);
        check.equal(&on(&file, "read"), "disk_read_bytes", DATA_BYTES);
        Ok(())
    }))
}

/// The size of a file that cannot be in memory all at once.
pub(super) fn larger_than_memory_bytes() -> anyhow::Result<u64> {
    Ok(memory_bytes()? / 4 * 5 / 4096 * 4096 + 1_511)
}

/// A file that cannot be in memory all at once is still read exactly once from start to end.
fn larger(site: &Site) -> anyhow::Result<Scene> {
    let size = larger_than_memory_bytes()?;
    let file = site.data_in(State::Cold, size)?;
    let from_disk = site.on_disk_bytes(size)?;
    let command = site.hungry_workload("read", &file, &["read", "1000003"])?;
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        as_made(check, &on(&file, "read"), truth);
        check.equal(&on(&file, "read"), "disk_read_bytes", from_disk);
        check.equal(&not_on(&file, "read"), "disk_read_bytes", 0);
        Ok(())
    })
    .unshared())
}

/// The start of a disk that nothing uses, by the device's own file: what came from the disk is what
/// is in the device's page cache now.
fn block_device(site: &Site) -> anyhow::Result<Scene> {
    const CALLS: u64 = 101;
    let scratch = site.scratch_disks.first().cloned();
    let Some(disk) = scratch.or_else(spare_disk) else {
        anyhow::bail!("the spare disk is gone");
    };
    site.bring(State::Cold, &disk)?;
    // Its page cache goes when nobody has it open any more.
    let open = fs::File::open(&disk)?;
    let command = site.workload(
        "read",
        &[&disk, &"read", &READ_BYTES.to_string(), &CALLS.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == CALLS * READ_BYTES);
        let read = on(&disk, "read");
        as_made(check, &read, truth);
        let cached = files::cached_bytes(&disk)?;
        let asked = truth.returned_bytes.next_multiple_of(files::page_size());
        ensure!(cached > asked, "there was no readahead");
        check.equal(&read, "disk_read_bytes", cached);
        check.equal(&read, "cache_filled_bytes", cached);
        check.at_least(&read, "readahead_bytes", cached - asked);
        check.equal(&not_on(&disk, "read"), "disk_read_bytes", 0);
        check.equal(&all_on("metadata"), "disk_read_bytes", 0);
        Ok(())
    })
    .keeping(open))
}

/// `O_DIRECT` fills no cache: each byte comes from the disk, up to the end of its block. Where the
/// buffer is not in memory yet, btrfs (6.18) brings in the first bytes through the page cache, and
/// reads ahead.
fn direct(site: &Site, buffer: &'static str) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Cold, size)?;
    let from_disk = site.on_disk_bytes(size)?;
    let command = site.workload("direct", &[&file, &"65536", &buffer]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        let own = on(&file, "direct");
        as_made(check, &own, truth);
        if buffer == "touched" {
            check.equal(&own, "disk_read_bytes", from_disk);
            check.equal(&own, "cache_filled_bytes", 0);
        } else {
            check.at_least(&own, "disk_read_bytes", from_disk);
        }
        check.equal(&not_on(&file, "direct"), "disk_read_bytes", 0);
        check.equal(&on(&file, "read"), "operations", 0);
        Ok(())
    }))
}
