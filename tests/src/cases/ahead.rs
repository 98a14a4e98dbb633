//! What becomes of what is read ahead, by what of it is in the page cache after the run.

use std::ffi::OsString;

use anyhow::{Context as _, ensure};

use crate::{
    case::{Case, Need, Scene, Site, State, case, rehearse, words},
    check::{Check, Rows, on},
    files,
};

/// Bytes of a read: a prime number, not near a page's size.
const SIZE_BYTES: u64 = 1_511;
/// Between loads from a mapping: readahead around one does not reach the next.
const STRIDE_BYTES: u64 = 600_011;

pub(super) fn cases() -> Vec<Case> {
    let cold = [Need::Cold];
    vec![
        case("ahead/first-page", &cold, |site| part(site, 0, SIZE_BYTES)),
        case("ahead/quarter", &cold, |site| {
            let quarter = site.size_bytes() / 4;
            part(site, quarter, quarter)
        }),
        case("ahead/all", &cold, |site| {
            all(site, |site, file, _| {
                site.workload("read", &[file, &"read", &SIZE_BYTES.to_string()])
            })
        }),
        case("ahead/aio", &[Need::Cold, Need::Aio], |site| {
            all(site, |site, file, size| {
                site.workload("aio", &[&"pread", &SIZE_BYTES.to_string(), &size, file])
            })
        }),
        case("ahead/uring", &[Need::Cold, Need::Uring], |site| {
            all(site, |site, file, size| {
                site.workload("uring", &[&"read", file, &SIZE_BYTES.to_string(), &size])
            })
        }),
        case("ahead/another-process", &cold, another_process),
        case("ahead/evicted", &cold, evicted),
        case("ahead/strided-mapping", &cold, mapped),
        case(
            "ahead/stacks",
            &[Need::FirstBackend, Need::Cold],
            with_stacks,
        ),
    ]
}

/// A file that is cold, and what it is used by.
fn scene(
    command: Vec<OsString>,
    check: impl Fn(&mut Check<'_>, &crate::truth::Truth) -> anyhow::Result<()> + 'static,
) -> Scene {
    Scene::workload(command, check).sharing_options(&["--readahead-use"])
}

/// A range is read: what else is in memory afterwards was read ahead for nothing.
fn part(site: &Site, first: u64, bytes: u64) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Cold, site.size_bytes())?;
    let numbers = [first, bytes, SIZE_BYTES, 1].map(|number| number.to_string());
    let [first_, bytes_, size, times] = &numbers;
    let command = site.workload("read-part", &[&file, first_, bytes_, size, times]);
    Ok(scene(command, move |check, _| {
        let page = files::page_size();
        let used = (first + bytes).next_multiple_of(page) - first / page * page;
        let unused = files::cached_bytes(&file)? - used;
        ensure!(unused > 0, "nothing was read ahead");
        check.equal(&on(&file, "read"), "readahead_unused_bytes", unused);
        Ok(())
    }))
}

/// All of it is read.
fn all(
    site: &Site,
    command: impl Fn(&Site, &dyn AsRef<std::ffi::OsStr>, String) -> Vec<OsString>,
) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Cold, size)?;
    let command = command(site, &file, size.to_string());
    Ok(scene(command, move |check, _| {
        none_unused(check, &on(&file, "read"));
        Ok(())
    }))
}

/// Requires something to have been read ahead, and all of it to have been used.
fn none_unused(check: &mut Check<'_>, rows: &Rows) {
    check.equal(rows, "readahead_unused_bytes", 0);
    // Where that is not known, it may not be either whether anything was (aio's, under tracepoints).
    if check.sum(rows, "readahead_unused_bytes").is_some() {
        check.at_least(rows, "readahead_bytes", 1);
    }
}

/// A process reads a byte, and another one all of what was read ahead for it.
fn another_process(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Cold, site.size_bytes())?;
    let script = "dd bs=1 count=1 status=none of=/dev/null <\"$1\" && exec cat \"$1\" >/dev/null";
    let command = words(&[&"sh", &"-c", &script, &"sh", &file]);
    rehearse(&words(&[&"sh", &"-c", &script, &"sh", &"/dev/null"]))?;
    files::make_cold(&file)?;
    Ok(Scene::new(command, move |check, _| {
        none_unused(check, &on(&file, "read"));
        Ok(())
    })
    .sharing_options(&["--readahead-use"]))
}

/// A page is read, all is evicted, and it is read again: what was read ahead is unused twice.
fn evicted(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Cold, site.size_bytes())?;
    let command = site.workload("read-evicted", &[&file, &SIZE_BYTES.to_string()]);
    Ok(scene(command, move |check, truth| {
        let cached = [truth.cached_bytes, files::cached_bytes(&file)?];
        let unused = cached.map(|bytes| bytes - files::page_size());
        ensure!(!unused.contains(&0), "nothing was read ahead: {cached:?}");
        let sum = unused.iter().sum();
        check.equal(&on(&file, "read"), "readahead_unused_bytes", sum);
        Ok(())
    }))
}

/// What was evicted unused, and what is unused in the end, has the stack of who had it read, down to the
/// kernel's function that submits.
fn with_stacks(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Cold, site.size_bytes())?;
    let command = site.workload("read-evicted", &[&file, &SIZE_BYTES.to_string()]);
    Ok(scene(command, move |check, _| {
        let Some(unused) = check.sum(&on(&file, "read"), "readahead_unused_bytes") else {
            return Ok(());
        };
        let stacks = check.recording().stacks.iter();
        let known = stacks.filter(|stack| {
            let has = |word: &str| stack.frames.iter().any(|frame| frame.contains(word));
            stack.path == "read"
                && stack.measure == "readahead_unused_bytes"
                && has("pread")
                && has("_[k]")
        });
        let known: u64 = known.map(|stack| stack.value).sum();
        check.that(unused > 0 && known == unused, || {
            format!("of {unused} unused bytes {known} have their stacks")
        });
        Ok(())
    })
    .sharing_options(&["--readahead-use", "--stacks"]))
}

/// Bytes far from each other are loaded: what is in memory and was not mapped was read for nothing.
fn mapped(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Cold, site.size_bytes())?;
    let command = site.workload("touch-part", &[&file, &"0", &STRIDE_BYTES.to_string()]);
    Ok(scene(command, move |check, truth| {
        ensure!(
            truth.faulted_offsets.len() > 1,
            "hardly a load took a fault"
        );
        let rows = on(&file, "mmap");
        let Some(mapped) = check.sum(&rows, "mapped_bytes") else {
            return Ok(());
        };
        let cached = files::cached_bytes(&file)?;
        let unused = cached
            .checked_sub(mapped)
            .context("more was mapped than is in memory")?;
        ensure!(unused > 0, "nothing was read ahead");
        check.equal(&rows, "readahead_unused_bytes", unused);
        Ok(())
    }))
}
