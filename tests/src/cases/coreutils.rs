//! dd, cat and cp.

use std::fs;

use anyhow::ensure;

use crate::{
    case::{Case, Need, Scene, Site, State, Stdout, case, rehearse, words},
    check::{all_of, all_on, not_on, on, on_any},
    files::page_size,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for state in State::BOTH {
        for block in [512, 4_096, 65_537, 1_048_576] {
            cases.push(case(
                format!("dd/{block}-{}", state.name()),
                state.needs(),
                move |site| dd(site, block, state),
            ));
        }
        // Where the file system shares data, cat's copy to a file reads nothing.
        let needs = match state {
            State::Cold => &[Need::Cold, Need::CopiesData][..],
            State::Warm => &[],
        };
        cases.push(case(format!("cat/{}", state.name()), needs, move |site| {
            cat(site, state)
        }));
    }
    cases.push(case("cat/piped", &[], cat_piped));
    cases.push(case("cp/plain", &[Need::Cold, Need::CopiesData], |site| {
        cp(site, "--reflink=auto")
    }));
    cases.push(case("cp/without-reflink", &[Need::Cold], |site| {
        cp(site, "--reflink=never")
    }));
    cases
}

/// dd reads full blocks, then what is left, then once more to see the end.
fn dd(site: &Site, block_bytes: u64, state: State) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data("data", size)?;
    let reads = size.div_ceil(block_bytes) + 1;
    let from_disk = state.disk_bytes(site.on_disk_bytes(size)?);
    let filled = state.disk_bytes(size.next_multiple_of(page_size()));
    let mut input = std::ffi::OsString::from("if=");
    input.push(&file);
    let command = words(&[
        &"dd",
        &input,
        &"of=/dev/null",
        &format!("bs={block_bytes}"),
        &"status=none",
    ]);
    rehearse(&command)?;
    site.bring(state, &file)?;
    Ok(Scene::new(command, move |check, _| {
        let read = on(&file, "read");
        check.equal(&read, "operations", reads);
        check.equal(&read, "bytes_requested", reads * block_bytes);
        check.equal(&read, "bytes_returned", size);
        check.equal(&read, "disk_read_bytes", from_disk);
        check.equal(&read, "cache_filled_bytes", filled);
        check.equal(&not_on(&file, "read"), "disk_read_bytes", 0);
        check.equal(&not_on(&file, "read"), "bytes_returned", 0);
        check.faults(&all_of(&file), 0);
        Ok(())
    }))
}

/// cat to a file reads, or has the kernel copy: between them they move everything once.
fn cat(site: &Site, state: State) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data("data", size)?;
    let from_disk = state.disk_bytes(site.on_disk_bytes(size)?);
    let same = Stdout::SameAs(file.clone());
    let moved = on_any(&file, &["read", "splice"]);
    let command = words(&[&"cat", &file]);
    rehearse(&command)?;
    site.bring(state, &file)?;
    Ok(Scene::new(command, move |check, _| {
        check.equal(&moved, "bytes_returned", size);
        check.equal(&moved, "disk_read_bytes", from_disk);
        Ok(())
    })
    .printing(same))
}

/// What cat writes into a pipe, wc reads from it.
fn cat_piped(site: &Site) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Warm, size)?;
    let command = words(&[&"sh", &"-c", &"cat \"$1\" | wc -c", &"sh", &file]);
    rehearse(&command)?;
    Ok(Scene::new(command, move |check, _| {
        check.equal(&on(&file, "read"), "bytes_returned", size);
        check.equal(&on(&file, "read"), "disk_read_bytes", 0);
        check.equal(&all_on("ipc"), "bytes_returned", 2 * size);
        check.process_count(3);
        Ok(())
    })
    .printing(Stdout::Exactly(format!("{size}\n").into())))
}

/// cp reads and writes, or has the kernel copy: which one is its own choice.
fn cp(site: &Site, reflink: &str) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data("data", size)?;
    let from_disk = site.on_disk_bytes(size)?;
    let copy = site.path("copy");
    let command = words(&[&"cp", &reflink, &file, &copy]);
    rehearse(&command)?;
    fs::remove_file(&copy)?;
    site.bring(State::Cold, &file)?;
    Ok(Scene::new(command, move |check, _| {
        let moved = on_any(&file, &["read", "splice"]);
        check.equal(&moved, "bytes_returned", size);
        check.equal(&moved, "disk_read_bytes", from_disk);
        // What was read is written with as many bytes; what the kernel copied is not.
        if let Some(read) = check.sum(&on(&file, "read"), "bytes_returned") {
            check.equal(&on(&copy, "write"), "bytes_returned", read);
        }
        ensure!(fs::read(&file)? == fs::read(&copy)?, "the copy differs");
        Ok(())
    }))
}
