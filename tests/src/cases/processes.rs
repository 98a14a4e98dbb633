//! Processes and threads that begin and end in every way.

use anyhow::ensure;

use super::reads::as_made;
use crate::{
    case::{Case, Need, Scene, Site, State, Stdout, case, rehearse, words},
    check::{Check, on},
    truth::{End, Truth},
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("process/fork-1000-readers", &[], fork_readers),
        case("process/64-threads", &[Need::Cold], threads),
        case("process/killed-half-way", &[Need::Cold], killed),
        case("process/exec-chain", &[], exec_chain),
        case("process/vfork-exec", &[], spawn),
        case("process/thread-execs", &[], thread_exec),
        case("process/left-behind", &[], orphan),
        case("process/exit-status", &[], exit_status),
        case("process/several-at-once", &[], several),
    ]
}

/// The truth of `times` readings of `size` bytes to the end, `block` bytes a call.
fn readings(times: u64, size: u64, block: u64) -> Truth {
    Truth {
        calls: times * (size.div_ceil(block) + 1),
        requested_bytes: times * (size.div_ceil(block) + 1) * block,
        returned_bytes: times * size,
        ..Truth::default()
    }
}

fn fork_readers(site: &Site) -> anyhow::Result<Scene> {
    const CHILDREN: u64 = 1_000;
    const READ_BYTES: u64 = 1_511;
    let file = site.data_in(State::Warm, 10_007)?;
    let command = site.workload(
        "fork-readers",
        &[&file, &CHILDREN.to_string(), &READ_BYTES.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == CHILDREN * READ_BYTES);
        let read = on(&file, "read");
        as_made(check, &read, truth);
        let children = usize::try_from(CHILDREN)?;
        check.each_process(&read, "bytes_returned", READ_BYTES, children);
        check.each_process(&read, "operations", 1, children);
        check.process_count(children + 1);
        Ok(())
    }))
}

fn threads(site: &Site) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Cold, size)?;
    let from_disk = site.on_disk_bytes(size)?;
    let command = site.workload("threads", &[&file, &"64", &"4099"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        let read = on(&file, "read");
        as_made(check, &read, truth);
        check.equal(&read, "disk_read_bytes", from_disk);
        check.process_count(1);
        Ok(())
    }))
}

/// What was done up to the kill is all there, and mmtrace ends by the same signal.
fn killed(site: &Site) -> anyhow::Result<Scene> {
    const CALLS: u64 = 101;
    const READ_BYTES: u64 = 4_099;
    let file = site.data_in(State::Cold, site.size_bytes())?;
    let command = site.workload(
        "killed",
        &[&file, &READ_BYTES.to_string(), &CALLS.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == CALLS * READ_BYTES);
        as_made(check, &on(&file, "read"), truth);
        check.process_count(1);
        Ok(())
    })
    .ending(End::Signal(libc::SIGKILL))
    .alone())
}

fn exec_chain(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Warm, 10_007)?;
    let command = site.workload("exec-chain", &[&file, &"1511", &"7"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.calls == 8 && truth.returned_bytes == 8 * 1_511);
        as_made(check, &on(&file, "read"), truth);
        check.process_count(1);
        Ok(())
    }))
}

fn spawn(site: &Site) -> anyhow::Result<Scene> {
    const SIZE_BYTES: u64 = 200_003;
    let file = site.data_in(State::Warm, SIZE_BYTES)?;
    let command = site.workload("spawn", &[&file, &"1511"]);
    Ok(Scene::workload(command, move |check, truth| {
        let read = on(&file, "read");
        ensure!(*truth == readings(2, SIZE_BYTES, 1_511));
        as_made(check, &read, truth);
        check.each_process(&read, "bytes_returned", SIZE_BYTES, 2);
        check.process_count(2);
        Ok(())
    }))
}

fn thread_exec(site: &Site) -> anyhow::Result<Scene> {
    const SIZE_BYTES: u64 = 200_003;
    let file = site.data_in(State::Warm, SIZE_BYTES)?;
    let command = site.workload("thread-exec", &[&file, &"1511"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(*truth == readings(1, SIZE_BYTES, 1_511));
        as_made(check, &on(&file, "read"), &readings(3, SIZE_BYTES, 1_511));
        check.process_count(1);
        Ok(())
    }))
}

/// `--wait-descendants` counts what a child does after its parent has ended.
fn orphan(site: &Site) -> anyhow::Result<Scene> {
    const SIZE_BYTES: u64 = 200_003;
    let file = site.data_in(State::Warm, SIZE_BYTES)?;
    let command = site.workload("orphan", &[&file, &"1511"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(*truth == readings(1, SIZE_BYTES, 1_511));
        as_made(check, &on(&file, "read"), truth);
        check.process_count(2);
        Ok(())
    })
    .with_descendants())
}

/// The target's status is mmtrace's, without anything in between.
fn exit_status(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Warm, 10_007)?;
    let command = words(&[
        &"sh",
        &"-c",
        &"read line < \"$1\"; echo; exit 83",
        &"sh",
        &file,
    ]);
    Ok(Scene::new(command, move |check, _| {
        check.at_least(&on(&file, "read"), "operations", 1);
        Ok(())
    })
    .ending(End::Exit(83))
    .printing(Stdout::Exactly(b"\n".to_vec()))
    .alone())
}

/// Readers of one file at the same time, each a program of its own.
fn several(site: &Site) -> anyhow::Result<Scene> {
    const SIZE_BYTES: u64 = 1_000_003;
    let file = site.data_in(State::Warm, SIZE_BYTES)?;
    let script =
        "for i in 1 2 3 4 5 6 7; do dd if=\"$1\" of=/dev/null bs=4099 status=none & done; wait";
    let command = words(&[&"sh", &"-c", &script, &"sh", &file]);
    rehearse(&command)?;
    Ok(Scene::new(command, move |check: &mut Check<'_>, _| {
        let read = on(&file, "read");
        as_made(check, &read, &readings(7, SIZE_BYTES, 4_099));
        check.each_process(&read, "bytes_returned", SIZE_BYTES, 7);
        check.process_count(8);
        Ok(())
    }))
}
