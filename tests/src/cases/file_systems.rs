//! File systems just mounted, whose own blocks are not in memory: those go to `metadata`, the
//! file's to its path. And overlays, where what is read and what is mapped are one file.

use std::{fs, path::Path};

use anyhow::ensure;

use super::reads::as_made;
use crate::{
    case::{Case, Need, Scene, Site, State, Stdout, case, rehearse, words},
    check::{all_on, not_on, on},
    devices, files,
    mounts::Mount,
};

/// What is made and read anew on a scratch disk.
struct Fresh {
    /// As in the case's name.
    name: &'static str,
    file_system: &'static str,
    /// Mount options.
    options: &'static str,
    /// How many bytes, and how they are read: the workload and its further arguments.
    size_bytes: u64,
    workload: &'static [&'static str],
    /// The path of that.
    path: &'static str,
    /// What the disk holds of the file.
    on_disk: OnDisk,
}

/// What the disk holds of a file.
#[derive(Clone, Copy)]
enum OnDisk {
    /// All of it, in whole blocks.
    Blocks,
    /// Less, being compressed.
    Compressed,
    /// All of it, among the file system's own blocks.
    Inline,
}

const SIZE_BYTES: u64 = 1_000_003;
/// Files beside the one that is read, small enough for btrfs to keep them among its own blocks.
const NEIGHBOURS: u64 = 101;
const NEIGHBOUR_BYTES: usize = 1_511;
const READ: &[&str] = &["read", "read", "65003"];
const MAP: &[&str] = &["touch", "shared"];
const DIRECT: &[&str] = &["direct", "65536", "touched"];

#[rustfmt::skip]
const FRESH: [Fresh; 11] = [
    Fresh { name: "ext4-read",   file_system: "ext4",  options: "", size_bytes: SIZE_BYTES, workload: READ,   path: "read",   on_disk: OnDisk::Blocks },
    Fresh { name: "ext4-map",    file_system: "ext4",  options: "", size_bytes: SIZE_BYTES, workload: MAP,    path: "mmap",   on_disk: OnDisk::Blocks },
    Fresh { name: "ext4-direct", file_system: "ext4",  options: "", size_bytes: SIZE_BYTES, workload: DIRECT, path: "direct", on_disk: OnDisk::Blocks },
    Fresh { name: "xfs-read",    file_system: "xfs",   options: "", size_bytes: SIZE_BYTES, workload: READ,   path: "read",   on_disk: OnDisk::Blocks },
    Fresh { name: "xfs-map",     file_system: "xfs",   options: "", size_bytes: SIZE_BYTES, workload: MAP,    path: "mmap",   on_disk: OnDisk::Blocks },
    Fresh { name: "xfs-direct",  file_system: "xfs",   options: "", size_bytes: SIZE_BYTES, workload: DIRECT, path: "direct", on_disk: OnDisk::Blocks },
    Fresh { name: "btrfs-read",  file_system: "btrfs", options: "", size_bytes: SIZE_BYTES, workload: READ,   path: "read",   on_disk: OnDisk::Blocks },
    Fresh { name: "btrfs-map",   file_system: "btrfs", options: "", size_bytes: SIZE_BYTES, workload: MAP,    path: "mmap",   on_disk: OnDisk::Blocks },
    Fresh { name: "btrfs-direct", file_system: "btrfs", options: "", size_bytes: SIZE_BYTES, workload: DIRECT, path: "direct", on_disk: OnDisk::Blocks },
    Fresh { name: "btrfs-compressed-read", file_system: "btrfs", options: "compress-force=zstd", size_bytes: SIZE_BYTES, workload: READ, path: "read", on_disk: OnDisk::Compressed },
    Fresh { name: "btrfs-inline-read", file_system: "btrfs", options: "", size_bytes: 1_511, workload: READ, path: "read", on_disk: OnDisk::Inline },
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = FRESH
        .iter()
        .map(|fresh| {
            let maker = match fresh.file_system {
                "xfs" => "mkfs.xfs",
                "btrfs" => "mkfs.btrfs",
                _ => "mkfs.ext4",
            };
            let needs = [Need::ScratchDisks(1), Need::Mounts, Need::Program(maker)];
            case(format!("fresh/{}", fresh.name), &needs, |site| {
                read_fresh(site, fresh)
            })
        })
        .collect();
    for layer in ["lower", "upper"] {
        for (order, first) in [("read-then-map", "read"), ("map-then-read", "map")] {
            cases.push(case(
                format!("overlay/{layer}-{order}"),
                &[Need::Cold, Need::Mounts],
                move |site| overlaid(site, layer, first),
            ));
        }
    }
    cases.push(case(
        "overlay/exec",
        &[Need::Cold, Need::Mounts],
        overlaid_program,
    ));
    cases
}

/// All of a file on a file system that has just been mounted.
fn read_fresh(site: &Site, fresh: &'static Fresh) -> anyhow::Result<Scene> {
    let disk = &site.scratch_disks[0];
    let mounted = site.path("mounted");
    devices::format(disk, fresh.file_system)?;
    let file = mounted.join("directory/data");
    let mount = || Mount::new(disk, &mounted, fresh.file_system, fresh.options);
    {
        let _mount = mount()?;
        fs::create_dir(mounted.join("directory"))?;
        match fresh.on_disk {
            OnDisk::Compressed => files::make_text(&file, fresh.size_bytes)?,
            OnDisk::Blocks | OnDisk::Inline => files::make_random(&file, fresh.size_bytes)?,
        }
        // So many after it that mounting does not bring all of a tree into memory: btrfs reads its
        // end.
        for number in 0..NEIGHBOURS {
            let neighbour = mounted.join(format!("directory/neighbour-{number}"));
            fs::write(neighbour, [0x5a; NEIGHBOUR_BYTES])?;
        }
    }
    let kept = mount()?;
    let (name, arguments) = (fresh.workload[0], &fresh.workload[1..]);
    let mut command = site.workload(name, &[&file]);
    command.extend(arguments.iter().map(Into::into));
    let block = files::block_size(&mounted)?;
    Ok(Scene::workload(command, move |check, truth| {
        let own = on(&file, fresh.path);
        if truth.calls > 0 {
            ensure!(truth.returned_bytes == fresh.size_bytes);
            as_made(check, &own, truth);
        } else {
            check.equal(&own, "minor_faults", truth.faults.minor);
            check.equal(&own, "major_faults", truth.faults.major);
        }
        match fresh.on_disk {
            OnDisk::Blocks => {
                let whole = fresh.size_bytes.next_multiple_of(block);
                check.equal(&own, "disk_read_bytes", whole);
            }
            OnDisk::Compressed => {
                check.at_least(&own, "disk_read_bytes", 1);
                check.at_most(&own, "disk_read_bytes", fresh.size_bytes / 2);
            }
            OnDisk::Inline => check.equal(&own, "disk_read_bytes", 0),
        }
        if fresh.path != "direct" {
            let filled = fresh.size_bytes.next_multiple_of(files::page_size());
            check.equal(&own, "cache_filled_bytes", filled);
        }
        check.equal(&not_on(&file, fresh.path), "disk_read_bytes", 0);
        // All else that the kernel charged. Of btrfs, mounting now and then brings in all that is
        // needed but the data.
        let needed = fresh.file_system != "btrfs" || matches!(fresh.on_disk, OnDisk::Inline);
        check.at_least(&all_on("metadata"), "disk_read_bytes", u64::from(needed));
        check.equal(&all_on("other"), "disk_read_bytes", 0);
        check.equal(&all_on("other"), "cache_filled_bytes", 0);
        Ok(())
    })
    .keeping(kept))
}

/// An overlay of two directories of the file system under test.
pub(super) fn overlay(site: &Site) -> anyhow::Result<Mount> {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| site.path(name));
    fs::create_dir_all(&work)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    Mount::new(
        Path::new("overlay"),
        &site.path("merged"),
        "overlay",
        &options,
    )
}

/// A file of an overlay's layer, read and mapped, in this order or the other: it is one file, by
/// the name that it has in the overlay, and comes from the disk once.
fn overlaid(site: &Site, layer: &'static str, first: &'static str) -> anyhow::Result<Scene> {
    for directory in ["lower", "upper"] {
        fs::create_dir(site.path(directory))?;
    }
    let real = site.data(Path::new(layer).join("data"), SIZE_BYTES)?;
    let kept = overlay(site)?;
    let file = site.path("merged/data");
    site.bring(State::Cold, &file)?;
    let from_disk = site.on_disk_bytes(SIZE_BYTES)?;
    let command = site.workload("read-and-map", &[&file, &first, &"65003"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == SIZE_BYTES && truth.faults.sum() > 0);
        let (read, mapped) = (on(&file, "read"), on(&file, "mmap"));
        check.is_named(&file);
        as_made(check, &read, truth);
        check.equal(&mapped, "minor_faults", truth.faults.minor);
        check.equal(&mapped, "major_faults", truth.faults.major);
        let by = |path| if first == path { from_disk } else { 0 };
        check.equal(&read, "disk_read_bytes", by("read"));
        check.equal(&mapped, "disk_read_bytes", by("map"));
        check.is_not_named(&real);
        check.equal(&all_on("other"), "disk_read_bytes", 0);
        Ok(())
    })
    .keeping(kept))
}

/// A program of an overlay's lower layer: what it is made of comes by `exec`, under its name there.
fn overlaid_program(site: &Site) -> anyhow::Result<Scene> {
    for directory in ["lower", "upper"] {
        fs::create_dir(site.path(directory))?;
    }
    let real = site.path("lower/program");
    fs::copy(&site.myself, &real)?;
    // An overlay passes no sync on to its lower layer, and what is not written stays in memory.
    fs::File::open(&real)?.sync_all()?;
    let kept = overlay(site)?;
    let program = site.path("merged/program");
    let command = words(&[&program, &"--version"]);
    let prints = rehearse(&command)?;
    site.bring(State::Cold, &program)?;
    Ok(Scene::new(command, move |check, _| {
        check.is_named(&program);
        check.is_not_named(&real);
        check.at_least(&on(&program, "exec"), "disk_read_bytes", 1);
        check.some_faults(&on(&program, "exec"));
        check.equal(&all_on("other"), "disk_read_bytes", 0);
        Ok(())
    })
    .printing(Stdout::Exactly(prints))
    .keeping(kept))
}
