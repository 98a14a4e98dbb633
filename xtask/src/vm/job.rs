//! What the host tells the first process of a virtual machine, and how that one answers.
//!
//! Compiled into both: xtask writes a [`Job`] into the initramfs, `vm-init` reads it.

use serde::{Deserialize, Serialize};

/// The job's path in the initramfs.
pub(crate) const JOB_FILE: &str = "job.json";

/// The tag under which the host's root directory is shared.
pub(crate) const ROOT_TAG: &str = "hostroot";

/// Names of the virtio-serial ports: the command's two outputs, and [`Report`]s.
pub(crate) const STDOUT_PORT: &str = "mmtrace.stdout";
pub(crate) const STDERR_PORT: &str = "mmtrace.stderr";
pub(crate) const REPORT_PORT: &str = "mmtrace.report";

/// Where disks are found by their serial numbers, after `virtio-`.
pub(crate) const DISK_LINKS: &str = "/dev/disk/by-id";

/// What to run in the virtual machine, and on what.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    /// Kernel modules, as files of the initramfs, in the order in which to insert them.
    pub(crate) modules: Vec<String>,
    /// The disks.
    pub(crate) disks: Vec<Disk>,
    /// The host's directory of all of this kernel's modules, to be found at /lib/modules.
    pub(crate) all_modules: Vec<u8>,
    /// The command with its arguments.
    pub(crate) command: Vec<Vec<u8>>,
    /// The command's environment.
    pub(crate) environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// The command's working directory.
    pub(crate) directory: Vec<u8>,
}

/// A disk, already formatted if it is to be.
#[derive(Serialize, Deserialize)]
pub(crate) struct Disk {
    /// Its serial number, and its directory's name below /mnt.
    pub(crate) name: String,
    /// Its file system's type; without one it is not mounted.
    pub(crate) file_system: Option<String>,
}

/// What the first process reports, a line of JSON each.
#[derive(Serialize, Deserialize)]
pub(crate) enum Report {
    /// The machine is up; the command starts.
    Started,
    /// The command ended with this exit status, 128 and its number for a signal.
    Ended(u8),
    /// The machine could not be set up.
    Failed(String),
}
