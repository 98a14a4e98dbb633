//! Block devices made of others, and file systems on them.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    case::{Site, find_program, rehearse, words},
    files,
    mounts::Mount,
};

/// How a device is made of others.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stack {
    /// A file is the device.
    Loop,
    /// Device mapper: the two halves of a disk, the second one first.
    Linear,
    /// Device mapper: encrypted.
    Crypt,
    /// The multiple-device driver: two disks by turns.
    Raid,
}

/// The names of devices that have one, which are gone with their case.
const LINEAR: &str = "mmtrace-tests-linear";
const CRYPT: &str = "mmtrace-tests-crypt";

/// Where an array without a name of its own is.
const ARRAY: &str = "/dev/md127";

impl Stack {
    /// The kernel's modules for it.
    fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Loop => &["loop"],
            Self::Linear => &["dm_mod"],
            Self::Crypt => &["dm_mod", "dm_crypt"],
            Self::Raid => &["md_mod", "raid0"],
        }
    }

    /// Makes such a device, of the site's scratch disks or in its directory.
    pub(crate) fn make(self, site: &Site) -> anyhow::Result<Device> {
        let modules = words(&[&"modprobe", &"--all"]);
        let modules = modules
            .into_iter()
            .chain(self.modules().iter().map(OsString::from))
            .collect::<Vec<_>>();
        run(&modules)?;
        let disk = |index: usize| site.scratch_disks.get(index).context("too few disks");
        let named = |name| Path::new("/dev/mapper").join(name);
        match self {
            Self::Loop => {
                let file = site.path("device");
                fs::File::create(&file)?.set_len(64 << 20)?;
                let said = run(&words(&[&"losetup", &"--find", &"--show", &file]))?;
                let path = PathBuf::from(String::from_utf8(said)?.trim_end());
                Ok(Device {
                    remove: words(&[&"losetup", &"--detach", &path]),
                    path,
                })
            }
            Self::Linear => {
                let disk = disk(0)?.display();
                let half = files::size_bytes(&fs::File::open(&site.scratch_disks[0])?)? / 1024;
                let table = format!("0 {half} linear {disk} {half}\n{half} {half} linear {disk} 0");
                run(&words(&[
                    &"dmsetup", &"create", &LINEAR, &"--table", &table,
                ]))?;
                Ok(Device {
                    remove: words(&[&"dmsetup", &"remove", &LINEAR]),
                    path: named(LINEAR),
                })
            }
            Self::Crypt => {
                let key = site.path("key");
                fs::write(&key, [0x5a; 32])?;
                let cipher = ["--cipher", "aes-xts-plain64", "--key-size", "256"];
                let mut open = words(&[&"cryptsetup", &"open", &"--type", &"plain", &"--key-file"]);
                open.push(key.into());
                open.extend(cipher.map(OsString::from));
                open.extend(words(&[disk(0)?, &CRYPT]));
                run(&open)?;
                Ok(Device {
                    remove: words(&[&"cryptsetup", &"close", &CRYPT]),
                    path: named(CRYPT),
                })
            }
            Self::Raid => {
                let options = ["--run", "--level=0", "--chunk=64", "--raid-devices=2"];
                let mut build = words(&[&"mdadm", &"--build", &ARRAY, &"--quiet"]);
                build.extend(options.map(OsString::from));
                build.extend(words(&[disk(0)?, disk(1)?]));
                run(&build)?;
                Ok(Device {
                    remove: words(&[&"mdadm", &"--quiet", &"--stop", &ARRAY]),
                    path: ARRAY.into(),
                })
            }
        }
    }
}

/// A block device, taken apart when dropped.
pub(crate) struct Device {
    /// Its node.
    pub(crate) path: PathBuf,
    remove: Vec<OsString>,
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = run(&self.remove) {
            eprintln!("mmtrace-tests: {:?} stays: {error:#}", self.path);
        }
    }
}

/// Makes a file system on a device; what was on it is lost.
pub(crate) fn format(device: &Path, file_system: &str) -> anyhow::Result<()> {
    let force = if file_system == "ext4" { "-F" } else { "-f" };
    let program = format!("mkfs.{file_system}");
    let make = |settings: &[&str]| {
        let mut command = words(&[&program, &"-q", &force]);
        command.extend(settings.iter().map(OsString::from));
        command.push(device.into());
        run(&command).map(drop)
    };
    if file_system == "xfs" {
        // Without what later kernels than 5.10 brought. Where the file is missing or unusable,
        // xfsprogs is so old that its own defaults do.
        const OLD: &str = "options=/usr/share/xfsprogs/mkfs/lts_5.10.conf";
        return make(&["-c", OLD]).or_else(|_| make(&[]));
    }
    make(&[])
}

/// A device with an ext4 that is mounted.
pub(crate) struct Mounted {
    // In the order in which they are taken down.
    _mount: Mount,
    _device: Device,
}

impl Device {
    /// Makes an ext4 on it and mounts that on `target`.
    pub(crate) fn mounted(self, target: &Path) -> anyhow::Result<Mounted> {
        format(&self.path, "ext4")?;
        let mount = Mount::new(&self.path, target, "ext4", "")?;
        Ok(Mounted {
            _mount: mount,
            _device: self,
        })
    }
}

/// Runs a program of the system: what it prints.
fn run(command: &[OsString]) -> anyhow::Result<Vec<u8>> {
    let name = command[0].to_string_lossy();
    let program = find_program(&name).with_context(|| format!("{name} is not installed"))?;
    let mut env = words(&[&"env", &"DM_DISABLE_UDEV=1", &"MDADM_NO_UDEV=1", &program]);
    env.extend_from_slice(&command[1..]);
    rehearse(&env)
}
