//! Requests that complete later: of aio and of io_uring.

use std::{ffi::OsStr, fs};

use anyhow::ensure;

use super::reads::as_made;
use crate::{
    case::{Case, Need, Scene, Site, State, case},
    check::{all_of, all_on, not_on, on},
};

/// A prime number of bytes, more than a page has.
const REQUEST_BYTES: u64 = 10_007;
/// As many bytes as a disk takes directly.
const DIRECT_BYTES: u64 = 13 * 4_096;
/// A prime size of a file that is written.
const WRITTEN_BYTES: u64 = 500_009;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for state in State::BOTH {
        for how in ["pread", "preadv"] {
            cases.push(case(
                format!("aio/{how}-{}", state.name()),
                &[&[Need::Aio], state.needs()].concat(),
                move |site| read(site, "aio", how, state, "read"),
            ));
        }
        for how in ["read", "readv", "fixed", "async", "sqpoll"] {
            cases.push(case(
                format!("uring/{how}-{}", state.name()),
                &[&[Need::Uring], state.needs()].concat(),
                move |site| read(site, "uring", how, state, "read"),
            ));
        }
    }
    let direct = [Need::DirectIo, Need::Cold];
    cases.push(case(
        "aio/direct",
        &[&[Need::Aio], &direct[..]].concat(),
        |site| read(site, "aio", "direct", State::Cold, "direct"),
    ));
    for how in ["direct", "direct-async"] {
        cases.push(case(
            format!("uring/{how}"),
            &[&[Need::Uring], &direct[..]].concat(),
            move |site| read(site, "uring", how, State::Cold, "direct"),
        ));
    }
    for how in ["pwrite", "pwritev"] {
        cases.push(case(format!("aio/{how}"), &[Need::Aio], move |site| {
            written(site, "aio", how, REQUEST_BYTES, "write")
        }));
    }
    cases.push(case(
        "aio/direct-write",
        &[Need::Aio, Need::DirectIo],
        |site| written(site, "aio", "direct-write", DIRECT_BYTES, "direct"),
    ));
    for how in ["write", "writev", "write-fixed"] {
        cases.push(case(format!("uring/{how}"), &[Need::Uring], move |site| {
            written(site, "uring", how, REQUEST_BYTES, "write")
        }));
    }
    cases.push(case(
        "aio/two-files-cold",
        &[Need::Aio, Need::Cold],
        |site| two_files(site, "aio", "pread", "read"),
    ));
    // Of two files at a time, by io_uring's workers.
    cases.push(case(
        "uring/async-two-files-cold",
        &[Need::Uring, Need::Cold],
        |site| two_files(site, "uring", "async", "read"),
    ));
    cases.push(case(
        "uring/direct-async-two-files",
        &[&[Need::Uring], &direct[..]].concat(),
        |site| two_files(site, "uring", "direct-async", "direct"),
    ));
    for how in ["send", "message"] {
        cases.push(case(
            format!("uring/talk-{how}"),
            &[Need::Uring],
            move |site| talked(site, how),
        ));
    }
    for how in ["fadvise", "madvise"] {
        cases.push(case(
            format!("uring/{how}-cold"),
            &[Need::Uring, Need::Cold],
            move |site| prefetched(site, how),
        ));
    }
    cases.push(case("uring/tee", &[Need::Uring], duplicated));
    cases.push(case("uring/fsync", &[Need::Uring], synced));
    cases
}

/// The command that moves `total` bytes of each file, `size` at a time.
fn command(
    site: &Site,
    workload: &str,
    how: &str,
    files: &[&dyn AsRef<OsStr>],
    size: u64,
    total: u64,
) -> Vec<std::ffi::OsString> {
    let (size, total) = (size.to_string(), total.to_string());
    let mut arguments: Vec<&dyn AsRef<OsStr>> = vec![&how];
    if workload == "aio" {
        arguments.extend([&size as &dyn AsRef<OsStr>, &total]);
        arguments.extend(files);
    } else {
        arguments.extend([files[0], &size, &total]);
        arguments.extend(&files[1..]);
    }
    site.workload(workload, &arguments)
}

/// Each request is an operation of the path that the call of its kind would be.
fn read(
    site: &Site,
    workload: &'static str,
    how: &'static str,
    state: State,
    path: &'static str,
) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(state, size)?;
    let from_disk = state.disk_bytes(site.on_disk_bytes(size)?);
    let request = if path == "direct" {
        DIRECT_BYTES
    } else {
        REQUEST_BYTES
    };
    let command = command(site, workload, how, &[&file], request, size);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        let rows = on(&file, path);
        as_made(check, &rows, truth);
        check.equal(&not_on(&file, path), "operations", 0);
        check.equal(&rows, "disk_read_bytes", from_disk);
        check.equal(&not_on(&file, path), "disk_read_bytes", 0);
        Ok(())
    }))
}

fn written(
    site: &Site,
    workload: &str,
    how: &str,
    request: u64,
    path: &'static str,
) -> anyhow::Result<Scene> {
    let file = site.path("written");
    let total = if path == "direct" {
        11 * request
    } else {
        WRITTEN_BYTES
    };
    let command = command(site, workload, how, &[&file], request, total);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(fs::metadata(&file)?.len() == total && truth.returned_bytes == total);
        as_made(check, &on(&file, path), truth);
        check.equal(&not_on(&file, path), "operations", 0);
        Ok(())
    }))
}

/// Requests of two files at a time: each file's disk reads are its own.
fn two_files(
    site: &Site,
    workload: &'static str,
    how: &'static str,
    path: &'static str,
) -> anyhow::Result<Scene> {
    const SIZE_BYTES: u64 = 1_000_003;
    let files = [site.data("one", SIZE_BYTES)?, site.data("two", SIZE_BYTES)?];
    for file in &files {
        site.bring(State::Cold, file)?;
    }
    let from_disk = site.on_disk_bytes(SIZE_BYTES)?;
    let request = if path == "direct" {
        DIRECT_BYTES
    } else {
        REQUEST_BYTES
    };
    let both: [&dyn AsRef<OsStr>; 2] = [&files[0], &files[1]];
    let command = command(site, workload, how, &both, request, SIZE_BYTES);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == 2 * SIZE_BYTES);
        for file in &files {
            let rows = on(file, path);
            check.equal(&rows, "operations", truth.calls / 2);
            check.equal(&rows, "bytes_returned", SIZE_BYTES);
            check.equal(&rows, "disk_read_bytes", from_disk);
            check.equal(&not_on(file, path), "disk_read_bytes", 0);
        }
        Ok(())
    }))
}

fn talked(site: &Site, how: &str) -> anyhow::Result<Scene> {
    const MESSAGE_BYTES: u64 = 4_099;
    const CALLS: u64 = 101;
    let command = site.workload(
        "uring-talk",
        &[&how, &MESSAGE_BYTES.to_string(), &CALLS.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == 2 * CALLS * MESSAGE_BYTES);
        as_made(check, &all_on("ipc"), truth);
        Ok(())
    }))
}

/// Advice by a request brings the file in, and a request that splices moves it on.
fn prefetched(site: &Site, how: &str) -> anyhow::Result<Scene> {
    let size = site.size_bytes() / 10;
    let file = site.data_in(State::Cold, size)?;
    let from_disk = site.on_disk_bytes(size)?;
    let command = site.workload("uring-advise", &[&how, &file]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        let prefetch = on(&file, "prefetch");
        check.equal(&prefetch, "operations", 1);
        check.equal(&prefetch, "bytes_requested", size);
        as_made(check, &on(&file, "splice"), truth);
        check.equal(&on(&file, "splice"), "disk_read_bytes", 0);
        check.equal(&prefetch, "disk_read_bytes", from_disk);
        check.equal(&all_of(&file), "disk_read_bytes", from_disk);
        Ok(())
    }))
}

/// Pipe to pipe, by reference.
fn duplicated(site: &Site) -> anyhow::Result<Scene> {
    const PART_BYTES: u64 = 4_093;
    const CALLS: u64 = 101;
    let command = site.workload("uring-tee", &[&PART_BYTES.to_string(), &CALLS.to_string()]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == CALLS * PART_BYTES);
        as_made(check, &all_on("splice"), truth);
        Ok(())
    }))
}

fn synced(site: &Site) -> anyhow::Result<Scene> {
    const CALLS: u64 = 7;
    let file = site.path("synced");
    let command = site.workload("uring-sync", &[&file, &CALLS.to_string()]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.calls == CALLS);
        check.equal(&on(&file, "writeback"), "operations", CALLS);
        check.equal(&on(&file, "write"), "bytes_returned", CALLS);
        Ok(())
    }))
}
