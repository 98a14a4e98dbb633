//! Writes, data moved between files, and data between processes.

use std::fs;

use anyhow::ensure;

use super::reads::as_made;
use crate::{
    case::{ANY_FILE_SYSTEM, Case, Need, Scene, Site, State, case},
    check::{all_on, on},
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for call in ["write", "pwrite", "writev"] {
        cases.push(case(format!("write/{call}"), &[], move |site| {
            written(site, call)
        }));
    }
    for how in ["sendfile", "splice"] {
        for state in State::BOTH {
            cases.push(case(
                format!("splice/{how}-{}", state.name()),
                state.needs(),
                move |site| moved(site, how, state),
            ));
        }
    }
    // Shared instead of copied, the bytes would come from nowhere.
    cases.push(case(
        "splice/copy_file_range-cold",
        &[Need::Cold, Need::CopiesData],
        |site| moved(site, "copy_file_range", State::Cold),
    ));
    for how in ["pipe", "socket"] {
        cases.push(case(
            format!("ipc/{how}"),
            &[ANY_FILE_SYSTEM],
            move |site| talked(site, how),
        ));
    }
    for how in ["msg", "mmsg", "posix", "sysv"] {
        cases.push(case(
            format!("ipc/{how}"),
            &[ANY_FILE_SYSTEM],
            move |site| messages(site, how),
        ));
    }
    cases
}

/// Both sides of each message, by what is behind the calls' arguments.
fn messages(site: &Site, how: &str) -> anyhow::Result<Scene> {
    const MESSAGE_BYTES: u64 = 4_099;
    const CALLS: u64 = 101;
    let command = site.workload(
        "messages",
        &[&how, &MESSAGE_BYTES.to_string(), &CALLS.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.calls == 2 * CALLS && truth.returned_bytes < truth.requested_bytes);
        as_made(check, &all_on("ipc"), truth);
        Ok(())
    }))
}

fn written(site: &Site, call: &str) -> anyhow::Result<Scene> {
    const WRITE_BYTES: u64 = 4_099;
    const CALLS: u64 = 211;
    let file = site.path("written");
    let command = site.workload(
        "write",
        &[&file, &call, &WRITE_BYTES.to_string(), &CALLS.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(fs::metadata(&file)?.len() == CALLS * WRITE_BYTES);
        ensure!(truth.returned_bytes == CALLS * WRITE_BYTES);
        as_made(check, &on(&file, "write"), truth);
        check.equal(&on(&file, "read"), "operations", 0);
        Ok(())
    }))
}

fn moved(site: &Site, how: &str, state: State) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let from = site.data_in(state, size)?;
    let to = site.path("moved");
    let from_disk = state.disk_bytes(site.on_disk_bytes(size)?);
    let command = site.workload("move", &[&from, &to, &how, &"65003"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        as_made(check, &on(&from, "splice"), truth);
        check.equal(&on(&from, "splice"), "disk_read_bytes", from_disk);
        check.equal(&on(&from, "read"), "bytes_returned", 0);
        ensure!(fs::read(&from)? == fs::read(&to)?, "the file moved differs");
        Ok(())
    }))
}

/// Each byte is sent once and received once.
fn talked(site: &Site, how: &str) -> anyhow::Result<Scene> {
    const MESSAGE_BYTES: u64 = 4_099;
    const CALLS: u64 = 101;
    let command = site.workload(
        "talk",
        &[&how, &MESSAGE_BYTES.to_string(), &CALLS.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == 2 * CALLS * MESSAGE_BYTES);
        let both = all_on("ipc");
        as_made(check, &both, truth);
        check.equal(&both, "disk_read_bytes", 0);
        check.process_count(2);
        Ok(())
    }))
}
