//! Stock kernels in virtual machines, with the host's root directory and scratch disks.

mod accelerator;
pub(crate) mod emulator;
mod image;
mod job;
mod kernels;
mod qemu;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::command::target_dir;
use crate::{build, setup};
pub(crate) use image::{DiskRequest, disk_links};
use job::Job;
pub(crate) use kernels::{KERNELS, KEYRING, Kernel};
use qemu::Machine;

/// Variables of the caller that a command sees in its machine too.
const PASSED_VARIABLES: [&str; 9] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TERM",
    "COLUMNS",
    "NO_COLOR",
    "RUST_BACKTRACE",
    "RUST_LOG",
];

/// What to do with virtual machines.
#[derive(Subcommand)]
pub(crate) enum Task {
    /// List the kernels, and which are here.
    List,
    /// Fetch kernels: those named, or all.
    Fetch {
        /// Kernels, as `vm list` names them.
        kernels: Vec<String>,
    },
    /// Boot a kernel, run a command on it, and exit as the command does.
    Run(RunOptions),
}

/// How to run a command in a virtual machine.
#[derive(Args)]
pub(crate) struct RunOptions {
    /// A kernel, as `vm list` names it.
    kernel: String,
    #[command(flatten)]
    machine: MachineOptions,
    /// The command with its arguments. It runs as root in this directory; what it writes outside
    /// the scratch disks is forgotten.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What a virtual machine is made of.
#[derive(Args)]
pub(crate) struct MachineOptions {
    /// Memory in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub(crate) memory: u32,
    /// Processors.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) cpus: u32,
    /// An empty disk, mounted at /mnt/FS (a second one at /mnt/FS2). FS is ext4, xfs or btrfs; a
    /// raw one has no file system and is not mounted.
    #[arg(long = "disk", value_name = "FS=SIZE", default_value = "ext4=1G")]
    pub(crate) disks: Vec<DiskRequest>,
    /// Let virtual time count instructions on one processor, so that costs repeat.
    #[arg(long)]
    pub(crate) icount: bool,
    /// A word to add to the kernel's command line.
    #[arg(long, value_name = "WORD")]
    pub(crate) append: Vec<String>,
    /// How many seconds the command may take before the machine counts as hung.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
}

/// Does a task.
pub(crate) fn run(task: &Task) -> Result<ExitCode> {
    match task {
        Task::List => list(),
        Task::Fetch { kernels } => fetch_all(kernels),
        Task::Run(options) => {
            let kernel = Kernel::by_name(&options.kernel)?;
            setup::for_tests()?;
            let command = &options.command;
            let (status, ..) = boot(
                kernel,
                &options.machine,
                command,
                Unbuffered(io::stdout()),
                io::stderr(),
            )?;
            Ok(ExitCode::from(status))
        }
    }
}

/// Where everything of the virtual machines is.
fn lab() -> PathBuf {
    target_dir().join("vm")
}

fn list() -> Result<ExitCode> {
    for kernel in &KERNELS {
        let state = match kernel.fetched(&lab()) {
            Some(fetched) => fetched.release().to_owned(),
            None => "not fetched".to_owned(),
        };
        println!("{:6} {:30} {state}", kernel.series, kernel.suites.join(" "));
    }
    Ok(ExitCode::SUCCESS)
}

fn fetch_all(names: &[String]) -> Result<ExitCode> {
    let named: Vec<&Kernel> = names
        .iter()
        .map(|name| Kernel::by_name(name))
        .collect::<Result<_>>()?;
    let kernels = if named.is_empty() {
        KERNELS.iter().collect()
    } else {
        named
    };
    setup::for_tests()?;
    for kernel in kernels {
        let fetched = kernel.fetch(&lab())?;
        eprintln!("vm: {kernel} is {}", fetched.release());
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetches a kernel, unless it is here.
pub(crate) fn fetch(kernel: &Kernel) -> Result<()> {
    kernel.fetch(&lab()).map(drop)
}

/// Boots a kernel and runs a command on it; returns its exit status and the outputs.
pub(crate) fn boot<O, E>(
    kernel: &Kernel,
    options: &MachineOptions,
    command: &[OsString],
    stdout: O,
    stderr: E,
) -> Result<(u8, O, E)>
where
    O: Write + Send + 'static,
    E: Write + Send + 'static,
{
    let fetched = kernel.fetch(&lab())?;
    let scratch = Scratch::new(&lab())?;
    let tree = scratch.0.join("tree");
    let disks = image::make_disks(&options.disks, &scratch.0)?;
    let modules = image::add_modules(&fetched, &disks, &tree)?;
    let (guest_disks, images): (Vec<_>, Vec<_>) = disks.into_iter().unzip();
    let job = Job {
        modules,
        disks: guest_disks,
        all_modules: fetched.modules().into_os_string().into_vec(),
        command: command.iter().cloned().map(OsString::into_vec).collect(),
        environment: PASSED_VARIABLES
            .iter()
            .filter_map(|name| Some((name.as_bytes().to_vec(), env::var_os(name)?.into_vec())))
            .collect(),
        directory: env::current_dir()?.into_os_string().into_vec(),
    };
    let initramfs = scratch.0.join("initramfs");
    image::pack(&tree, &build::vm_init()?, &job, &initramfs)?;
    Machine {
        dir: &scratch.0,
        kernel: &fetched.image(),
        initramfs: &initramfs,
        disks: &job.disks.into_iter().zip(images).collect::<Vec<_>>(),
        memory_mib: options.memory,
        cpus: options.cpus,
        counts_instructions: options.icount,
        append: &options.append,
        timeout: options.timeout.map(Duration::from_secs),
    }
    .run(stdout, stderr)
    .with_context(|| format!("{kernel} ({})", fetched.release()))
}

/// How many runs this process has made: several can be under way.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// A directory for one run, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(lab: &Path) -> Result<Self> {
        let runs = lab.join("runs");
        fs::create_dir_all(&runs)?;
        let own = std::process::id().to_string();
        // What a killed run has left behind.
        for run in fs::read_dir(&runs)? {
            let run = run?;
            let pid = Path::new(&run.file_name()).with_extension("");
            if pid.as_os_str() != own.as_str() && !Path::new("/proc").join(pid).exists() {
                fs::remove_dir_all(run.path())?;
            }
        }
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let dir = runs.join(format!("{own}.{number}"));
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("vm: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Passes each piece on at once, where the line buffer would keep an unfinished line.
struct Unbuffered<W: Write>(W);

impl<W: Write> Write for Unbuffered<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes)?;
        self.0.flush()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
