//! Mappings: what is touched, what is brought in, what becomes accessible.

use anyhow::ensure;

use super::reads::{as_made, larger_than_memory_bytes};
use crate::{
    case::{Case, Need, Scene, Site, State, case},
    check::{all_of, all_on, not_on, on},
    files,
    truth::End,
};

/// Options of the `touch` workload under which every page is touched.
const TOUCHING: [(&str, &str); 9] = [
    ("sequential", "shared"),
    ("shuffled", "shared,shuffled"),
    ("advised-random", "shared,shuffled,random"),
    ("advised-random-in-order", "shared,random"),
    ("advised-sequential", "shared,sequential"),
    ("private", "private"),
    ("private-written", "private,write"),
    ("shared-written", "shared,write"),
    ("private-written-shuffled", "private,write,shuffled"),
];

/// Options under which the kernel makes every page accessible, though none is touched.
const FILLING: [(&str, &str, &[Need]); 3] = [
    ("populate", "shared,populate,none", &[]),
    (
        "populate-read",
        "shared,populate-read,none",
        &[Need::PopulateRead],
    ),
    ("lock", "shared,lock,none", &[]),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for state in State::BOTH {
        for (name, options) in TOUCHING {
            let full_name = format!("map/{name}-{}", state.name());
            cases.push(case(full_name, state.needs(), move |site| {
                touched(site, options, state)
            }));
            let full_name = format!("map/{name}-{}-mapped", state.name());
            cases.push(case(full_name, state.needs(), move |site| {
                accessible(site, options, state)
            }));
        }
        for (name, options, needs) in FILLING {
            let needs = [needs, state.needs()].concat();
            let full_name = format!("map/{name}-{}", state.name());
            cases.push(case(full_name, &needs, move |site| {
                filled(site, options, state)
            }));
        }
    }
    for how in ["readahead", "fadvise", "madvise"] {
        cases.push(case(
            format!("prefetch/{how}"),
            &[Need::Cold],
            move |site| prefetched(site, how),
        ));
    }
    cases.extend([
        case("map/untouched", &[Need::Cold], untouched),
        case("map/one-page-at-a-time", &[Need::Cold], one_page_at_a_time),
        case(
            "map/larger-than-memory",
            &[Need::Cold, Need::SmallMemory],
            larger,
        ),
        case("map/remapped-meanwhile", &[], remapped),
        case("map/truncated", &[], truncated),
    ]);
    cases
}

/// The size of mapped files: each page may cost a disk read, so smaller than what is read.
fn mapped_size_bytes(site: &Site) -> u64 {
    if site.small { 300_007 } else { 2_000_003 }
}

/// Faults are those that the process was charged with, the disk's bytes those that are cached now.
fn touched(site: &Site, options: &'static str, state: State) -> anyhow::Result<Scene> {
    let size = mapped_size_bytes(site);
    let file = site.data_in(state, size)?;
    let pages = size.div_ceil(files::page_size());
    let from_disk = state.disk_bytes(site.on_disk_bytes(size)?);
    let command = site.workload("touch", &[&file, &options]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.touched_pages == pages);
        let mapped = on(&file, "mmap");
        check.equal(&mapped, "minor_faults", truth.faults.minor);
        check.equal(&mapped, "major_faults", truth.faults.major);
        check.equal(&mapped, "operations", 0);
        check.equal(&mapped, "bytes_returned", 0);
        check.equal(&mapped, "disk_read_bytes", from_disk);
        check.equal(
            &mapped,
            "cache_filled_bytes",
            state.disk_bytes(pages * files::page_size()),
        );
        check.equal(&not_on(&file, "mmap"), "disk_read_bytes", 0);
        check.faults(&not_on(&file, "mmap"), 0);
        Ok(())
    }))
}

/// What became accessible is what the process's page tables have in the end; pages of one's own,
/// copied on the first store, are accessible too.
fn accessible(site: &Site, options: &'static str, state: State) -> anyhow::Result<Scene> {
    let file = site.data_in(state, mapped_size_bytes(site))?;
    let pages = mapped_size_bytes(site).div_ceil(files::page_size());
    let command = site.workload("touch", &[&file, &options]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.mapped_bytes == pages * files::page_size());
        check.equal(&on(&file, "mmap"), "mapped_bytes", truth.mapped_bytes);
        Ok(())
    }))
}

/// Filled by the kernel on request: by the path of that request, and without a page missing.
fn filled(site: &Site, options: &'static str, state: State) -> anyhow::Result<Scene> {
    let size = mapped_size_bytes(site);
    let file = site.data_in(state, size)?;
    let path = if options.contains("populate-read") {
        "prefetch"
    } else {
        "mmap"
    };
    let from_disk = state.disk_bytes(site.on_disk_bytes(size)?);
    let whole = size.next_multiple_of(files::page_size());
    let command = site.workload("touch", &[&file, &options]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.mapped_bytes == whole && truth.touched_pages == 0);
        check.equal(&on(&file, path), "disk_read_bytes", from_disk);
        check.equal(&not_on(&file, path), "disk_read_bytes", 0);
        check.faults(&on(&file, path), truth.faults.sum());
        Ok(())
    }))
}

/// What is prefetched is read from the disk then, and not again when it is read.
fn prefetched(site: &Site, how: &'static str) -> anyhow::Result<Scene> {
    let size = mapped_size_bytes(site);
    let file = site.data_in(State::Cold, size)?;
    let from_disk = site.on_disk_bytes(size)?;
    let command = site.workload("prefetch", &[&file, &how]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        check.equal(&all_on("prefetch"), "operations", truth.calls);
        check.equal(&on(&file, "prefetch"), "disk_read_bytes", from_disk);
        let read = on(&file, "read");
        check.equal(&read, "bytes_returned", size);
        check.equal(&read, "disk_read_bytes", 0);
        Ok(())
    }))
}

/// A mapping alone brings nothing in.
fn untouched(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Cold, mapped_size_bytes(site))?;
    let command = site.workload("touch", &[&file, &"shared,none"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.mapped_bytes == 0 && files::cached_bytes(&file)? == 0);
        let all = all_of(&file);
        check.faults(&all, 0);
        check.equal(&all, "disk_read_bytes", 0);
        check.equal(&all, "cache_filled_bytes", 0);
        Ok(())
    }))
}

/// With `MADV_RANDOM`, cold and in order, each page is a major fault and a disk read of its own.
fn one_page_at_a_time(site: &Site) -> anyhow::Result<Scene> {
    let size = mapped_size_bytes(site);
    let file = site.data_in(State::Cold, size)?;
    let pages = size.div_ceil(files::page_size());
    let command = site.workload("touch", &[&file, &"shared,random"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.faults.major == pages);
        let mapped = on(&file, "mmap");
        check.equal(&mapped, "major_faults", pages);
        check.equal(&mapped, "disk_reads", pages);
        check.equal(&mapped, "readahead_bytes", 0);
        check.at_least(&mapped, "disk_wait_ns", 1);
        if let Some(wait_ns) = check.sum(&mapped, "disk_wait_ns") {
            check.at_least(&mapped, "kernel_time_ns", wait_ns);
        }
        Ok(())
    }))
}

/// A mapping that cannot be in memory all at once. All that the kernel charges for it is the
/// mapping's: once from start to end, and again what was read ahead and went before it was touched.
fn larger(site: &Site) -> anyhow::Result<Scene> {
    let size = larger_than_memory_bytes()?;
    let file = site.data_in(State::Cold, size)?;
    let from_disk = site.on_disk_bytes(size)?;
    let command = site.hungry_workload("touch", &file, &["shared"])?;
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.touched_pages == size.div_ceil(files::page_size()));
        let mapped = on(&file, "mmap");
        check.equal(&mapped, "minor_faults", truth.faults.minor);
        check.equal(&mapped, "major_faults", truth.faults.major);
        check.at_least(&mapped, "disk_read_bytes", from_disk);
        check.equal(&not_on(&file, "mmap"), "disk_read_bytes", 0);
        for path in ["read", "exec", "other"] {
            check.equal(&all_on(path), "disk_read_bytes", 0);
        }
        Ok(())
    })
    .unshared())
}

/// Each fault is on the file, though other threads change the tree of mappings while it is looked
/// up in there.
fn remapped(site: &Site) -> anyhow::Result<Scene> {
    const THREADS: u64 = 6;
    const SIZE_BYTES: u64 = 1_000_003;
    let rounds = if site.small { 29 } else { 997 };
    let file = site.data_in(State::Warm, SIZE_BYTES)?;
    let pages = SIZE_BYTES.div_ceil(files::page_size());
    let command = site.workload(
        "remapped",
        &[&file, &THREADS.to_string(), &rounds.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.touched_pages == THREADS * rounds * pages && truth.faults.minor > 0);
        let mapped = on(&file, "mmap");
        check.equal(&mapped, "minor_faults", truth.faults.minor);
        check.equal(&mapped, "major_faults", truth.faults.major);
        check.faults(&not_on(&file, "mmap"), 0);
        check.process_count(1);
        Ok(())
    }))
}

/// A file cut off under a mapping ends the process by `SIGBUS`, with us as without us.
fn truncated(site: &Site) -> anyhow::Result<Scene> {
    const READ_BYTES: u64 = 4_099;
    let file = site.data_in(State::Warm, 65_003)?;
    let command = site.workload("truncated", &[&file, &READ_BYTES.to_string()]);
    Ok(Scene::new(command, move |check, truth| {
        ensure!(truth.calls == 0, "it printed something");
        let mut made = truth.clone();
        made.calls = 1;
        made.requested_bytes = READ_BYTES;
        made.returned_bytes = READ_BYTES;
        as_made(check, &on(&file, "read"), &made);
        // The load that worked; the one that did not is no fault that was resolved.
        check.faults(&on(&file, "mmap"), 1);
        Ok(())
    })
    .ending(End::Signal(libc::SIGBUS)))
}
