//! The first process of the tests' virtual machines.
//!
//! It inserts the few modules that the host's root directory and the test disks need, makes that
//! root writable by an overlay in memory, runs one command in it, reports the exit status and
//! turns the machine off.

#[path = "../src/vm/job.rs"]
mod job;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, init_module, reboot};

use job::{
    DISK_LINKS, Disk, JOB_FILE, Job, REPORT_PORT, ROOT_TAG, Report, STDERR_PORT, STDOUT_PORT,
};

fn main() {
    if let Err(error) = run() {
        eprintln!("vm-init: {error:#}");
    }
    // Without unmounting: the disks are made anew for each run.
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("vm-init: cannot power off: {error}");
    }
}

/// Sets the machine up, runs the command, and reports how that went.
fn run() -> Result<()> {
    mount_new("proc", "/proc", "proc", "")?;
    mount_new("sysfs", "/sys", "sysfs", "")?;
    mount_new("devtmpfs", "/dev", "devtmpfs", "")?;
    let job: Job = serde_json::from_slice(&fs::read(Path::new("/").join(JOB_FILE))?)?;
    for module in &job.modules {
        let image = fs::read(module).with_context(|| format!("module {module}"))?;
        init_module(&image, c"").with_context(|| format!("cannot insert module {module}"))?;
    }
    let mut report = open_port(REPORT_PORT)?;
    let outcome = run_job(&job, &mut report);
    let last = match &outcome {
        Ok(status) => Report::Ended(*status),
        Err(error) => Report::Failed(format!("{error:#}")),
    };
    send(&mut report, &last)?;
    outcome.map(drop)
}

fn run_job(job: &Job, report: &mut File) -> Result<u8> {
    let outputs = [open_port(STDOUT_PORT)?, open_port(STDERR_PORT)?];
    let directory = Path::new(OsStr::from_bytes(&job.directory));
    let all_modules = Path::new(OsStr::from_bytes(&job.all_modules));
    change_root(&[directory, all_modules])?;
    for disk in &job.disks {
        set_up_disk(disk)?;
    }
    fs::create_dir_all("/lib/modules")?;
    mount_bind(all_modules, "/lib/modules").context("cannot bind /lib/modules")?;
    // Only loopback: 0x1 is IFF_UP.
    fs::write("/sys/class/net/lo/flags", "0x1").context("cannot bring loopback up")?;
    send(report, &Report::Started)?;
    run_command(job, directory, outputs)
}

/// Replaces the initramfs by the host's root directory under an overlay in memory.
///
/// The `needed` directories are not hidden by an empty /tmp or /run.
fn change_root(needed: &[&Path]) -> Result<()> {
    mount_new(
        ROOT_TAG,
        "/host",
        "9p",
        // The host's files do not change meanwhile, so all of them may be cached.
        "trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro",
    )?;
    mount_new("tmpfs", "/overlay", "tmpfs", "")?;
    fs::create_dir("/overlay/upper")?;
    fs::create_dir("/overlay/work")?;
    mount_new(
        "overlay",
        "/root",
        "overlay",
        "lowerdir=/host,upperdir=/overlay/upper,workdir=/overlay/work",
    )?;
    for dir in ["/proc", "/sys", "/dev"] {
        mount_move(dir, format!("/root{dir}")).with_context(|| format!("cannot move {dir}"))?;
    }
    std::env::set_current_dir("/root")?;
    mount_move(".", "/").context("cannot make the host's root the root")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")?;
    // What a device manager would link.
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, link).with_context(|| format!("cannot link {link}"))?;
    }
    // As systemd does: the numbers of events are there.
    mount_new("tracefs", "/sys/kernel/tracing", "tracefs", "")?;
    mount_new("devpts", "/dev/pts", "devpts", "mode=620,ptmxmode=666")?;
    mount_new("tmpfs", "/dev/shm", "tmpfs", "mode=1777")?;
    for (dir, mode) in [("/run", "mode=755"), ("/tmp", "mode=1777")] {
        if !needed.iter().any(|path| path.starts_with(dir)) {
            mount_new("tmpfs", dir, "tmpfs", mode)?;
        }
    }
    Ok(())
}

/// Links a disk to where a device manager would, and mounts it at /mnt under its name if it has a
/// file system.
fn set_up_disk(disk: &Disk) -> Result<()> {
    let device = fs::read_dir("/sys/block")?
        .filter_map(Result::ok)
        .find(|entry| {
            fs::read_to_string(entry.path().join("serial"))
                .is_ok_and(|serial| serial.trim() == disk.name)
        })
        .with_context(|| format!("no disk has the serial number {}", disk.name))?;
    let device = Path::new("/dev").join(device.file_name());
    fs::create_dir_all(DISK_LINKS)?;
    let link = Path::new(DISK_LINKS).join(format!("virtio-{}", disk.name));
    symlink(&device, &link).with_context(|| format!("cannot link {}", link.display()))?;
    match &disk.file_system {
        Some(kind) => mount_new(device, format!("/mnt/{}", disk.name), kind, ""),
        None => Ok(()),
    }
}

/// Runs the command to its end and passes its outputs on; returns its exit status.
///
/// The command gets pipes, not the ports themselves, which cannot be opened twice.
fn run_command(job: &Job, directory: &Path, outputs: [File; 2]) -> Result<u8> {
    let mut words = job.command.iter().map(|word| OsStr::from_bytes(word));
    let program = words.next().context("no command")?;
    let environment = job
        .environment
        .iter()
        .map(|(key, value)| (OsStr::from_bytes(key), OsStr::from_bytes(value)));
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .envs(environment)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let [_, mut stderr] = outputs;
            writeln!(stderr, "{}: {error}", program.display())?;
            // As shells say it.
            return Ok(if error.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            });
        }
    };
    // The command has its own copies of the pipes' writing ends by now.
    drop(command);
    let [stdout, stderr] = outputs;
    let copies = [
        copy(child.stdout.take().context("no standard output")?, stdout),
        copy(child.stderr.take().context("no standard error")?, stderr),
    ];
    let status = reap_until(child.id())?;
    // What the command left running would keep the pipes open: `i` kills all but this process.
    fs::write("/proc/sysrq-trigger", "i")?;
    for copy in copies {
        match copy.join() {
            Ok(outcome) => outcome.context("cannot pass output on")?,
            Err(_) => bail!("passing output on panicked"),
        };
    }
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    u8::try_from(code.context("neither exited nor killed")?).context("odd exit status")
}

/// Passes a pipe on to a port in the background.
///
/// Not by `io::copy`, which would splice: from an empty pipe, splicing to a port returns 0 at once,
/// which looks like the pipe's end.
fn copy(mut from: impl Read + Send + 'static, mut to: File) -> JoinHandle<io::Result<()>> {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match from.read(&mut buffer)? {
                0 => return Ok(()),
                length => to.write_all(&buffer[..length])?,
            }
        }
    })
}

/// Waits for a child, and on the way for every orphan: the first process inherits them.
fn reap_until(child: u32) -> Result<ExitStatus> {
    loop {
        let Some((pid, status)) = wait(WaitOptions::empty())? else {
            continue;
        };
        if pid.as_raw_nonzero().get().cast_unsigned() == child {
            return Ok(ExitStatus::from_raw(status.as_raw()));
        }
    }
}

/// Opens the virtio-serial port of this name, which the kernel announces some time after the
/// device has been found.
fn open_port(name: &str) -> Result<File> {
    const TRIES: u32 = 600;
    for _ in 0..TRIES {
        if let Some(device) = find_port(name) {
            return File::options()
                .write(true)
                .open(&device)
                .with_context(|| format!("cannot open {}", device.display()));
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("no virtio-serial port is named {name}")
}

fn find_port(name: &str) -> Option<PathBuf> {
    let port = fs::read_dir("/sys/class/virtio-ports")
        .ok()?
        .filter_map(Result::ok)
        .find(|port| {
            fs::read_to_string(port.path().join("name")).is_ok_and(|found| found.trim() == name)
        })?;
    let device = Path::new("/dev").join(port.file_name());
    device.exists().then_some(device)
}

fn send(port: &mut File, report: &Report) -> Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    port.write_all(&line).context("cannot report to the host")
}

/// Mounts something on a directory, which is made if missing.
fn mount_new(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    file_system: &str,
    options: &str,
) -> Result<()> {
    let (source, target) = (source.as_ref(), target.as_ref());
    fs::create_dir_all(target)?;
    let options = std::ffi::CString::new(options)?;
    // `ro` among the options is the superblock's business; as a flag it is the mount's.
    mount(source, target, file_system, MountFlags::empty(), &*options).with_context(|| {
        format!(
            "cannot mount {file_system} {} on {}",
            source.display(),
            target.display()
        )
    })
}
