//! Block devices made of others: what a file system asks for counts once.

use anyhow::ensure;

use super::reads::as_made;
use crate::{
    case::{Case, Need, Scene, Site, State, case},
    check::{all_of, all_on, not_on, on},
    devices::Stack,
    files,
};

pub(super) fn cases() -> Vec<Case> {
    [
        ("stacked/loop", Stack::Loop, 1, "losetup"),
        ("stacked/dm-linear", Stack::Linear, 1, "dmsetup"),
        ("stacked/dm-crypt", Stack::Crypt, 1, "cryptsetup"),
        ("stacked/md-raid0", Stack::Raid, 2, "mdadm"),
    ]
    .into_iter()
    .map(|(name, stack, disks, program)| {
        let needs = [
            // Also the loop device: on a machine that is thrown away.
            Need::ScratchDisks(disks),
            Need::Mounts,
            Need::Program(program),
        ];
        case(name, &needs, move |site| read_and_mapped(site, stack))
    })
    .collect()
}

/// One file is read, into a mapping of another: each comes from the disk once, and by its own path.
fn read_and_mapped(site: &Site, stack: Stack) -> anyhow::Result<Scene> {
    const SIZE_BYTES: u64 = 1_000_003;
    let mounted = site.path("mounted");
    let kept = stack.make(site)?.mounted(&mounted)?;
    let [from, into] = ["from", "into"].map(|name| mounted.join(name));
    for file in [&from, &into] {
        files::make_random(file, SIZE_BYTES)?;
        site.bring(State::Cold, file)?;
    }
    let from_disk = SIZE_BYTES.next_multiple_of(files::block_size(&mounted)?);
    let command = site.workload("read-into-mapping", &[&from, &into, &"65003"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.faults.sum() > 0, "the reads take no fault");
        let (read, mapped) = (on(&from, "read"), on(&into, "mmap"));
        as_made(check, &read, truth);
        check.equal(&read, "disk_read_bytes", from_disk);
        check.equal(&not_on(&from, "read"), "disk_read_bytes", 0);
        check.equal(&mapped, "minor_faults", truth.faults.minor);
        check.equal(&mapped, "major_faults", truth.faults.major);
        check.equal(&mapped, "disk_read_bytes", from_disk);
        check.equal(&not_on(&into, "mmap"), "disk_read_bytes", 0);
        check.faults(&all_of(&from), 0);
        check.equal(&all_on("other"), "disk_read_bytes", 0);
        check.process_count(1);
        Ok(())
    })
    .keeping(kept))
}
