//! A control group whose processes read from a disk no faster than so.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::{case::words, mounts::Mount};

/// A group with a limit, removed when dropped.
pub(crate) struct IoLimit {
    group: PathBuf,
    _mount: Mount,
}

impl IoLimit {
    /// Limits reads from the disk that holds `directory`, an empty one, to so many bytes a second.
    pub(crate) fn new(directory: &Path, bytes_per_s: u64) -> anyhow::Result<Self> {
        let device = fs::metadata(directory)?.dev();
        let root = directory.join("cgroup");
        let mount = Mount::new(Path::new("none"), &root, "cgroup2", "")?;
        let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
        ensure!(
            controllers.split_whitespace().any(|name| name == "io"),
            "the kernel has no io controller"
        );
        fs::write(root.join("cgroup.subtree_control"), "+io").context("enabling io")?;
        let group = root.join("mmtrace-tests");
        fs::create_dir(&group)?;
        let limit = Self {
            group,
            _mount: mount,
        };
        let (major, minor) = (libc::major(device), libc::minor(device));
        let line = format!("{major}:{minor} rbps={bytes_per_s}");
        fs::write(limit.group.join("io.max"), &line).with_context(|| format!("io.max: {line}"))?;
        Ok(limit)
    }

    /// A command that joins the group and becomes `command`.
    pub(crate) fn inside(&self, command: &[OsString]) -> Vec<OsString> {
        let script = "echo $$ > \"$0\" && exec \"$@\"";
        let mut inside = words(&[&"sh", &"-c", &script, &self.group.join("cgroup.procs")]);
        inside.extend_from_slice(command);
        inside
    }
}

impl Drop for IoLimit {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.group) {
            eprintln!("mmtrace-tests: {:?} stays: {error}", self.group);
        }
    }
}
