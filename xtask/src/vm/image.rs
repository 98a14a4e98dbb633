//! What a virtual machine boots from: an initramfs made for the one command, and disks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};

use super::job::{DISK_LINKS, Disk, JOB_FILE, Job};
use super::kernels::Fetched;
use crate::command::{output, program};

/// Modules that every virtual machine needs: its devices and its root directory.
const MODULES: [&str; 6] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "overlay",
];

/// Settings for mkfs.xfs that kernels from 5.10 on can mount, as xfsprogs brings them.
const XFS_SETTINGS: &str = "options=/usr/share/xfsprogs/mkfs/lts_5.10.conf";

/// What stands for a file system where a disk is to have none.
const RAW: &str = "raw";

/// A disk as asked for: `ext4=1G`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskRequest {
    file_system: String,
    size_bytes: u64,
}

impl DiskRequest {
    /// Its file system, or [`RAW`].
    pub(crate) fn kind(&self) -> &str {
        &self.file_system
    }
}

impl FromStr for DiskRequest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (file_system, size) = text
            .split_once('=')
            .context("expected FS=SIZE, like ext4=1G")?;
        ensure!(
            ["ext4", "xfs", "btrfs", RAW].contains(&file_system),
            "unknown file system {file_system}: there are ext4, xfs and btrfs, and raw for none"
        );
        let (digits, shift) = match size.as_bytes().last() {
            Some(b'K') => (&size[..size.len() - 1], 10),
            Some(b'M') => (&size[..size.len() - 1], 20),
            Some(b'G') => (&size[..size.len() - 1], 30),
            _ => (size, 0),
        };
        let units: u64 = digits.parse().context("expected a size like 512M or 1G")?;
        Ok(Self {
            file_system: file_system.to_owned(),
            size_bytes: units
                .checked_shl(shift)
                .filter(|b| b >> shift == units)
                .context("too large")?,
        })
    }
}

/// Makes the disks in `dir`; returns what the guest has to know, and each one's image.
pub(crate) fn make_disks(requests: &[DiskRequest], dir: &Path) -> Result<Vec<(Disk, PathBuf)>> {
    let mut disks: Vec<(Disk, PathBuf)> = Vec::new();
    for (request, name) in requests.iter().zip(names(requests)) {
        let file_system = &request.file_system;
        let image = dir.join(format!("{name}.img"));
        File::create(&image)?.set_len(request.size_bytes)?;
        if file_system != RAW {
            make_file_system(file_system, &image)?;
        }
        disks.push((
            Disk {
                name,
                file_system: (file_system != RAW).then(|| file_system.clone()),
            },
            image,
        ));
    }
    Ok(disks)
}

/// The disks' names: their kind, a second one of a kind with a number.
fn names(requests: &[DiskRequest]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let kind = &request.file_system;
        let before = requests[..index].iter().filter(|r| r.file_system == *kind);
        names.push(match before.count() {
            0 => kind.clone(),
            count => format!("{kind}{}", count + 1),
        });
    }
    names
}

/// Where the guest finds the disks.
pub(crate) fn disk_links(requests: &[DiskRequest]) -> Vec<String> {
    names(requests)
        .iter()
        .map(|name| format!("{DISK_LINKS}/virtio-{name}"))
        .collect()
}

fn make_file_system(file_system: &str, image: &Path) -> Result<()> {
    let mut format = program(&format!("mkfs.{file_system}"))?;
    format.arg("-q");
    match file_system {
        // The kernel would go on writing tables in the background, in the tests' disk counts;
        // on a fresh sparse file they are zero as it is.
        "ext4" => _ = format.args(["-E", "lazy_itable_init=1,lazy_journal_init=1"]),
        // Where the file is missing or unusable, xfsprogs is so old that its own defaults do.
        "xfs" if xfs_settings_work(image)? => _ = format.args(["-c", XFS_SETTINGS]),
        _ => {}
    }
    // Captured, as mkfs.btrfs talks even when it is quiet.
    output(format.arg(image)).map(drop)
}

/// Whether mkfs.xfs accepts [`XFS_SETTINGS`]; nothing is written.
fn xfs_settings_work(image: &Path) -> Result<bool> {
    let mut rehearsal = program("mkfs.xfs")?;
    rehearsal.args(["-N", "-c", XFS_SETTINGS]).arg(image);
    Ok(output(&mut rehearsal).is_ok())
}

/// Puts the modules needed into `tree` and returns their names there, in the order of inserting.
pub(crate) fn add_modules(
    kernel: &Fetched,
    disks: &[(Disk, PathBuf)],
    tree: &Path,
) -> Result<Vec<String>> {
    let mut modules: BTreeSet<&str> = disks
        .iter()
        .filter_map(|(disk, _)| disk.file_system.as_deref())
        .collect();
    if modules.contains("btrfs") {
        // It asks for this as it mounts, when there is no modprobe yet.
        modules.insert("crypto-crc32c");
    }
    let listing = output(
        program("modprobe")?
            // The host's own settings are for its own kernel.
            .args([
                "--config",
                "/dev/null",
                "--show-depends",
                "--all",
                "--dirname",
            ])
            .arg(kernel.dir())
            .args(["--set-version", kernel.release()])
            .args(MODULES)
            .args(modules),
    )?;
    fs::create_dir_all(tree.join("modules"))?;
    let mut names: Vec<String> = Vec::new();
    for line in listing.lines() {
        let Some(file) = line.strip_prefix("insmod ") else {
            ensure!(line.starts_with("builtin "), "modprobe says {line:?}");
            continue;
        };
        let file = Path::new(file.trim());
        let name = unpacked_name(file)?;
        if names.contains(&name) {
            continue;
        }
        fs::write(tree.join(&name), unpack(file)?)?;
        names.push(name);
    }
    Ok(names)
}

/// The name in the initramfs of a module file, which may be compressed.
fn unpacked_name(file: &Path) -> Result<String> {
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .context("odd module name")?;
    let (stem, _) = name.split_once(".ko").context("odd module name")?;
    Ok(format!("modules/{stem}.ko"))
}

/// A module's content. Kernels before 5.17 cannot decompress modules themselves.
fn unpack(file: &Path) -> Result<Vec<u8>> {
    let tool = match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return Ok(fs::read(file)?),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{} is compressed in an unknown way", file.display()),
    };
    let unpacked = program(tool)?
        .args(["--decompress", "--stdout"])
        .arg(file)
        .output()?;
    ensure!(
        unpacked.status.success(),
        "{tool} cannot decompress {}",
        file.display()
    );
    Ok(unpacked.stdout)
}

/// Makes an initramfs of `tree`, after adding the first process and its job.
pub(crate) fn pack(tree: &Path, init: &Path, job: &Job, image: &Path) -> Result<()> {
    fs::copy(init, tree.join("init")).context("cannot add the first process")?;
    fs::write(tree.join(JOB_FILE), serde_json::to_vec(job)?)?;
    let mut names = vec!["init".to_owned(), JOB_FILE.to_owned(), "modules".to_owned()];
    names.extend(job.modules.iter().cloned());
    let mut child = program("cpio")?
        .args(["--create", "--quiet", "--format=newc", "--owner=0:0"])
        .current_dir(tree)
        .stdin(Stdio::piped())
        .stdout(File::create(image)?)
        .spawn()?;
    let mut list = child.stdin.take().context("no pipe to cpio")?;
    list.write_all(names.join("\n").as_bytes())?;
    drop(list);
    ensure!(child.wait()?.success(), "cpio failed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_requests() {
        let request: DiskRequest = "xfs=512M".parse().expect("a good request");
        assert_eq!(request.size_bytes, 512 << 20);
        for bad in [
            "ext4",
            "ntfs=1G",
            "ext4=",
            "ext4=1T",
            "ext4=99999999999999G",
        ] {
            assert!(bad.parse::<DiskRequest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn compression_is_not_part_of_a_module_name() {
        let name = unpacked_name(Path::new("/a/virtio_blk.ko.xz")).expect("a module");
        assert_eq!(name, "modules/virtio_blk.ko");
    }
}
