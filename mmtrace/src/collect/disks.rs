//! What the kernel counts for each block device, by whoever reads it: /sys/block/DEVICE/stat.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mmtrace_common::FileKey;

use super::{
    events::FileSeen,
    maps::Counted,
    recording::{device, is_block_device},
};
use crate::{
    audit::{self, DiskGrowth},
    recording::{AuditEntry, Device},
};

/// What a device was read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stat {
    reads: u64,
    read_bytes: u64,
}

impl Stat {
    fn of(disk: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/sys/block/{disk}/stat")).ok()?)
    }

    /// Documentation/block/stat.rst: requests, merged ones, sectors of 512 bytes.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
        Some(Self {
            reads: fields.next()?.ok()?,
            read_bytes: fields.nth(1)?.ok()? * 512,
        })
    }
}

/// Every whole block device, and what it had been read when the run began.
#[derive(Clone, Debug)]
pub(super) struct Disks(BTreeMap<String, Stat>);

/// Where files lie.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// On these whole devices together.
    Disks(BTreeSet<String>),
    /// Nothing tells, for this reason.
    Unknown(String),
}

impl Disks {
    pub(super) fn now() -> Self {
        let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        Self(
            disks
                .filter_map(|disk| {
                    let name = disk.file_name().into_string().ok()?;
                    Some((name.clone(), Stat::of(&name)?))
                })
                .collect(),
        )
    }

    /// Compares what was read from each device with what the device was read since.
    pub(super) fn audit(
        &self,
        counted: &Counted,
        files: &HashMap<FileKey, FileSeen>,
    ) -> Vec<AuditEntry> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut read: BTreeMap<Place, u64> = BTreeMap::new();
        let mut places: HashMap<Option<Device>, Place> = HashMap::new();
        for (key, measures) in &counted.rows {
            if measures.disk_read_bytes == 0 {
                continue;
            }
            let lies_on = device_of(key.file, files);
            let place = places.entry(lies_on).or_insert_with(|| match lies_on {
                Some(device) => place(device, &mounts),
                None => Place::Unknown("no file".to_owned()),
            });
            *read.entry(place.clone()).or_default() += measures.disk_read_bytes;
        }
        let mut entries = Vec::new();
        let (mut elsewhere, mut bytes) = (Vec::new(), 0);
        for (place, ours) in read {
            match place {
                Place::Disks(disks) => {
                    let names: Vec<&str> = disks.iter().map(String::as_str).collect();
                    entries.push(audit::disk(
                        &names.join(", "),
                        ours,
                        self.growth(&disks, ours),
                    ));
                }
                Place::Unknown(what) => {
                    elsewhere.push(what);
                    bytes += ours;
                }
            }
        }
        if bytes > 0 {
            entries.push(audit::unknown_disk(&elsewhere.join(", "), bytes));
        }
        entries
    }

    /// By how much these devices' counters have grown together. A request is counted when it is
    /// done, of which nobody is told: readahead may still be under way, so what is missing of `ours`
    /// is waited for as long as anything comes.
    fn growth(&self, disks: &BTreeSet<String>, ours: u64) -> DiskGrowth {
        let mut seen = 0;
        let mut deadline = Instant::now() + COMING;
        loop {
            let mut grown = 0;
            for disk in disks {
                let (Some(before), Some(now)) = (self.0.get(disk), Stat::of(disk)) else {
                    return DiskGrowth::NotThere;
                };
                if now.reads == 0 || is_uncounted(disk) {
                    return DiskGrowth::NotCounted;
                }
                grown += now.read_bytes.saturating_sub(before.read_bytes);
            }
            if grown >= ours || Instant::now() > deadline {
                return DiskGrowth::Bytes(grown);
            }
            if grown > seen {
                seen = grown;
                deadline = Instant::now() + COMING;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether a device's statistics are switched off.
fn is_uncounted(disk: &str) -> bool {
    let switch = fs::read_to_string(format!("/sys/block/{disk}/queue/iostats"));
    switch.is_ok_and(|switch| switch.trim() == "0")
}

/// How long a request may take.
const COMING: Duration = Duration::from_millis(500);

/// The device that a file lies on, or is.
fn device_of(file: FileKey, files: &HashMap<FileKey, FileSeen>) -> Option<Device> {
    if file == FileKey::default() {
        return None;
    }
    let number = match files.get(&file) {
        Some(seen) if is_block_device(seen) => seen.rdev,
        _ => file.device,
    };
    Some(device(number))
}

/// Where the files of a file system lie that has this device number.
fn place(device: Device, mounts: &str) -> Place {
    let mount = Mount::of(device, mounts);
    let filesystem = mount.map_or("an unknown file system", |mount| mount.filesystem);
    let disks = match mount {
        Some(mount) if mount.is_on_several() => None,
        Some(mount) if mount.filesystem == "btrfs" => btrfs_disks(mount.source),
        _ => whole_disk(Path::new(&format!("/sys/dev/block/{device}")))
            .map(|disk| BTreeSet::from([disk])),
    };
    disks.map_or_else(
        || Place::Unknown(format!("{filesystem} ({device})")),
        Place::Disks,
    )
}

/// A line of /proc/self/mountinfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mount<'a> {
    filesystem: &'a str,
    source: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn of(device: Device, mounts: &'a str) -> Option<Self> {
        let number = device.to_string();
        mounts.lines().find_map(|line| {
            let (mount, of) = line.split_once(" - ")?;
            let mut of = of.split(' ');
            (mount.split(' ').nth(2) == Some(number.as_str())).then_some(Self {
                filesystem: of.next()?,
                source: of.next()?,
                options: of.next().unwrap_or_default(),
            })
        })
    }

    /// XFS with some files' data on a second device.
    fn is_on_several(self) -> bool {
        self.options
            .split(',')
            .any(|option| option.starts_with("rtdev="))
    }
}

/// The devices of a btrfs, one of which is `source`. Its device number is no device's.
fn btrfs_disks(source: &str) -> Option<BTreeSet<String>> {
    let source = fs::canonicalize(source).ok()?;
    let name = source.file_name()?;
    let all = fs::read_dir("/sys/fs/btrfs").ok()?.flatten();
    let devices = all
        .map(|filesystem| filesystem.path().join("devices"))
        .find(|devices| devices.join(name).exists())?;
    fs::read_dir(devices)
        .ok()?
        .flatten()
        .map(|device| whole_disk(&device.path()))
        .collect()
}

/// The whole device that a device, as /sys has it, is or is a part of.
fn whole_disk(device: &Path) -> Option<String> {
    let mut path: PathBuf = fs::canonicalize(device).ok()?;
    if path.join("partition").exists() {
        path.pop();
    }
    path.file_name()?.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_figure_is_sectors() {
        let text =
            "     100        7     4096       12        1        0        8        0        0\n";
        let expected = Stat {
            reads: 100,
            read_bytes: 4096 * 512,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("100"), None);
    }

    #[test]
    fn a_mount_is_found_by_its_device() {
        let mounts = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
                      40 22 0:35 / /data rw - btrfs /dev/vdb rw,subvol=/\n\
                      41 22 254:32 / /x rw - xfs /dev/vdc rw,rtdev=/dev/vdd,noquota\n";
        let of = |major, minor| Mount::of(Device { major, minor }, mounts);
        assert_eq!(of(0, 35).unwrap().source, "/dev/vdb");
        assert!(of(254, 32).unwrap().is_on_several());
        assert!(!of(254, 1).unwrap().is_on_several());
        assert_eq!(of(254, 2), None);
    }
}
