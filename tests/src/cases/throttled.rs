//! Requests that a control group's `io.max` holds back, so that a kernel worker queues them.

use anyhow::ensure;

use super::reads::as_made;
use crate::{
    case::{Case, Need, Scene, Site, State, case},
    cgroup::IoLimit,
    check::{not_on, on},
};

pub(super) fn cases() -> Vec<Case> {
    vec![case(
        "throttled/read",
        &[Need::Cold, Need::IoLimit],
        throttled,
    )]
}

/// Each read counts where it is submitted, however late it is queued. The tracepoint backend sees
/// only those that are not held back, and its audit says so.
fn throttled(site: &Site) -> anyhow::Result<Scene> {
    const SIZE_BYTES: u64 = 1_000_003;
    /// Far less than any disk gives.
    const LIMIT_BYTES_PER_S: u64 = 1 << 19;
    let file = site.data_in(State::Cold, SIZE_BYTES)?;
    let from_disk = site.on_disk_bytes(SIZE_BYTES)?;
    let limit = IoLimit::new(&site.directory, LIMIT_BYTES_PER_S)?;
    let command = limit.inside(&site.workload("read", &[&file, &"read", &"65003"]));
    let misses = site.backend == "tracepoint";
    let scene = Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == SIZE_BYTES);
        let read = on(&file, "read");
        as_made(check, &read, truth);
        if misses {
            check.at_most(&read, "disk_read_bytes", from_disk - 1);
        } else {
            check.equal(&read, "disk_read_bytes", from_disk);
        }
        check.equal(&not_on(&file, "read"), "disk_read_bytes", 0);
        Ok(())
    })
    .keeping(limit)
    .unshared();
    Ok(if misses {
        scene.with_unseen_disk_reads()
    } else {
        scene
    })
}
