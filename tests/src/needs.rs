//! What there is here of what cases need, found out by trying.

use std::{
    collections::HashMap,
    fs,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::{
    case::{Need, Part, find_program, rehearse, words},
    cases::{cow::Hugetlb, watched::SWITCH},
    cgroup::IoLimit,
    files, mounts,
    tracer::copies_can_be_watched,
    workload::can_have_a_ring,
};

/// Answers, remembered.
pub(crate) struct Here {
    directory: PathBuf,
    scratch_disks: usize,
    small: bool,
    left_out: Vec<Part>,
    known: HashMap<Need, Option<String>>,
}

impl Here {
    /// What there is for cases whose files are below `directory`, with so many disks that may be
    /// written to, on a slow (`small`) machine that leaves these parts to others.
    pub(crate) fn new(
        directory: &Path,
        scratch_disks: usize,
        small: bool,
        left_out: Vec<Part>,
    ) -> Self {
        Self {
            directory: directory.to_owned(),
            scratch_disks,
            small,
            left_out,
            known: HashMap::new(),
        }
    }

    /// Why a case with these needs cannot be tried; `None` when it can.
    pub(crate) fn lacks(&mut self, needs: &[Need]) -> Option<String> {
        let part = needs.iter().find_map(|need| match need {
            Need::Part(part) if self.left_out.contains(part) => Some(part),
            _ => None,
        });
        if let Some(part) = part {
            return Some(part.elsewhere().into());
        }
        if self.small && needs.contains(&Need::Fast) {
            return Some("this machine is slow: tried natively".into());
        }
        needs.iter().find_map(|need| {
            self.known
                .entry(*need)
                .or_insert_with(|| {
                    try_out(*need, &self.directory, self.scratch_disks)
                        .err()
                        .map(|e| format!("{e:#}"))
                })
                .clone()
        })
    }
}

fn try_out(need: Need, directory: &Path, scratch_disks: usize) -> anyhow::Result<()> {
    match need {
        // The runner knows which that is, and what it was told of the machine.
        Need::FirstBackend | Need::Part(_) | Need::Fast => Ok(()),
        Need::Copies => {
            ensure!(
                copies_can_be_watched(),
                "this kernel takes no breakpoints on its code"
            );
            Ok(())
        }
        Need::SpareRegister => {
            // Where one function makes all copies (up to Linux 6.3), one register is enough.
            let symbols = fs::read_to_string("/proc/kallsyms")?;
            let one = " copy_user_generic_unrolled\n";
            ensure!(
                symbols.contains(one),
                "watching copies takes all debug registers on this kernel"
            );
            Ok(())
        }
        Need::Hotplug => {
            try_out(Need::Disposable, directory, scratch_disks)?;
            fs::write(SWITCH, "1").context("no processor can be taken away")
        }
        Need::Cold => try_cold(directory),
        Need::DirectIo => try_direct(directory),
        Need::Program(name) => find_program(name)
            .map(drop)
            .with_context(|| format!("{name} is not installed")),
        Need::Traced(name) => {
            try_out(Need::Program(name), directory, scratch_disks)?;
            try_strace()
        }
        Need::PythonPerf => try_python(),
        Need::SpareDisk if scratch_disks > 0 => Ok(()),
        Need::SpareDisk => spare_disk().map(drop).context("every disk is in use"),
        Need::Disposable => {
            ensure!(scratch_disks > 0, "this machine is not thrown away");
            Ok(())
        }
        Need::ScratchDisks(needed) => {
            ensure!(
                scratch_disks >= needed,
                "disks that may be written to: {scratch_disks}, needed are {needed}"
            );
            Ok(())
        }
        Need::IoLimit => {
            try_out(Need::Disposable, directory, scratch_disks)?;
            let directory = tempfile::tempdir_in(directory)?;
            IoLimit::new(directory.path(), 1 << 20).map(drop)
        }
        Need::Mounts => mounts::own_namespace().context("nothing can be mounted here"),
        Need::HugePages => try_huge_pages(),
        Need::HugetlbPages => {
            try_out(Need::Disposable, directory, scratch_disks)?;
            Hugetlb::reserve(1).map(drop)
        }
        Need::PopulateRead => try_populate(),
        Need::CopiesData => try_copy(directory),
        Need::Compat => try_compat(directory),
        Need::Aio => try_aio(),
        Need::Uring => can_have_a_ring().context("this kernel or system refuses io_uring"),
        Need::SmallMemory => {
            let memory = memory_bytes()?;
            ensure!(
                memory <= LARGEST_SMALL_MEMORY_BYTES,
                "the memory is {} MiB, too large to make a larger file",
                memory >> 20
            );
            Ok(())
        }
    }
}

/// The largest memory that a file larger than it is made for.
const LARGEST_SMALL_MEMORY_BYTES: u64 = 400 << 20;

/// Bytes of memory of this machine.
pub(crate) fn memory_bytes() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))
        .context("/proc/meminfo has no MemTotal")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// A file that is removed when dropped, with data in it.
fn probe_file(directory: &Path) -> anyhow::Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new_in(directory)?;
    files::make_random(file.path(), 65_003)?;
    Ok(file)
}

fn try_cold(directory: &Path) -> anyhow::Result<()> {
    let file = probe_file(directory)?;
    files::make_cold(file.path()).context("no file can be made cold here")?;
    let read_bytes = || -> anyhow::Result<u64> {
        let io = fs::read_to_string("/proc/self/io").context("no I/O accounting")?;
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("read_bytes: "));
        Ok(line.context("no read_bytes")?.parse()?)
    };
    let before = read_bytes()?;
    fs::read(file.path())?;
    ensure!(
        read_bytes()? - before >= 65_003,
        "the file system under test reads from no disk"
    );
    Ok(())
}

fn try_direct(directory: &Path) -> anyhow::Result<()> {
    let file = probe_file(directory)?;
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(file.path())
        .map(drop)
        .context("the file system under test takes no O_DIRECT")
}

fn try_strace() -> anyhow::Result<()> {
    let strace = find_program("strace").context("strace is not installed")?;
    let status = Command::new(strace)
        .args(["-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "strace does not work here");
    Ok(())
}

fn try_python() -> anyhow::Result<()> {
    const SCRIPT: &str = "
import sys, sysconfig
sys.exit(not sysconfig.get_config_var('PY_HAVE_PERF_TRAMPOLINE'))
";
    let python = find_program("python3").context("python3 is not installed")?;
    let status = Command::new(python).args(["-S", "-c", SCRIPT]).status()?;
    ensure!(
        status.success(),
        "python3 cannot tell names of its functions: that is new in 3.12"
    );
    Ok(())
}

fn try_huge_pages() -> anyhow::Result<()> {
    let enabled = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .context("the kernel has no transparent huge pages")?;
    ensure!(
        !enabled.contains("[never]"),
        "transparent huge pages are switched off"
    );
    Ok(())
}

fn try_populate() -> anyhow::Result<()> {
    const MADV_POPULATE_READ: i32 = 22;
    // SAFETY: no byte is covered, so the kernel only says whether it knows the advice.
    let result = unsafe { libc::madvise(std::ptr::null_mut(), 0, MADV_POPULATE_READ) };
    ensure!(result == 0, "the kernel has no MADV_POPULATE_READ");
    Ok(())
}

fn try_compat(directory: &Path) -> anyhow::Result<()> {
    let file = probe_file(directory)?;
    let status = Command::new(std::env::current_exe()?)
        .args(["workload", "compat"])
        .arg(file.path())
        .arg("1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(
        status.success(),
        "the kernel has no 32-bit interface (CONFIG_IA32_EMULATION)"
    );
    Ok(())
}

fn try_aio() -> anyhow::Result<()> {
    // SAFETY: 0 is no context: the kernel only says whether it knows the call.
    let result = unsafe { libc::syscall(libc::SYS_io_destroy, 0) };
    let error = std::io::Error::last_os_error();
    ensure!(
        result == 0 || error.raw_os_error() == Some(libc::EINVAL),
        "the kernel has no aio: {error}"
    );
    Ok(())
}

fn try_copy(directory: &Path) -> anyhow::Result<()> {
    /// From linux/fs.h: `_IOW(0x94, 9, int)`.
    const FICLONE: libc::c_ulong = 0x4004_9409;
    let from = probe_file(directory)?;
    let to = tempfile::NamedTempFile::new_in(directory)?;
    // SAFETY: the request takes a descriptor, and touches no memory of ours.
    let cloned = unsafe { libc::ioctl(to.as_raw_fd(), FICLONE as _, from.as_raw_fd()) };
    ensure!(
        cloned != 0,
        "the file system under test shares data instead of copying it"
    );
    Ok(())
}

/// A disk that has data and that no mount, swap or other device uses.
pub(crate) fn spare_disk() -> Option<PathBuf> {
    let mounted = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    // A file system of several devices has a device number of its own.
    let of_btrfs: Vec<_> = fs::read_dir("/sys/fs/btrfs")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|file_system| fs::read_dir(file_system.path().join("devices")).ok())
        .flatten()
        .flatten()
        .map(|device| device.file_name().to_string_lossy().into_owned())
        .collect();
    let used = |device: &Path| {
        let number = fs::read_to_string(device.join("dev")).unwrap_or_default();
        let name = device
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let holders =
            fs::read_dir(device.join("holders")).is_ok_and(|mut all| all.next().is_some());
        mounted
            .lines()
            .any(|line| line.split(' ').nth(2) == Some(number.trim()))
            || swaps
                .lines()
                .any(|line| line.starts_with(&format!("/dev/{name} ")))
            || holders
            || of_btrfs.contains(&name)
    };
    let mut disks: Vec<_> = fs::read_dir("/sys/block")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|disk| disk.join("device").exists())
        .collect();
    disks.sort();
    disks.into_iter().find_map(|disk| {
        let parts: Vec<_> = fs::read_dir(&disk)
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .filter(|part| part.join("partition").exists())
            .collect();
        let sectors: u64 = fs::read_to_string(disk.join("size"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let free = sectors > 0 && !used(&disk) && !parts.iter().any(|part| used(part));
        let node = Path::new("/dev").join(disk.file_name()?);
        (free && node.exists()).then_some(node)
    })
}

/// What a command reads from each file below `directory`, by the calls' return values, as strace
/// sees it.
pub(crate) fn bytes_read_by(
    command: &[std::ffi::OsString],
    directory: &Path,
) -> anyhow::Result<HashMap<PathBuf, u64>> {
    let strace = find_program("strace").context("strace is not installed")?;
    let logs = tempfile::tempdir()?;
    let log = logs.path().join("log");
    // A log for each thread, so that no line is interrupted by another's.
    let mut traced = words(&[
        &strace,
        &"-ff",
        &"--seccomp-bpf",
        &"-y",
        &"-s0",
        &"-e",
        &"trace=read,pread64,readv,preadv,preadv2",
        &"-o",
        &log,
    ]);
    traced.extend_from_slice(command);
    rehearse(&traced)?;
    let mut bytes = HashMap::new();
    for log in fs::read_dir(logs.path())? {
        for line in fs::read_to_string(log?.path())?.lines() {
            if let Some((file, returned)) = parse_strace(line)
                && file.starts_with(directory)
            {
                *bytes.entry(file).or_default() += returned;
            }
        }
    }
    Ok(bytes)
}

/// The file and the bytes of a line such as `read(3</a/file>, ""..., 4096) = 12`.
fn parse_strace(line: &str) -> Option<(PathBuf, u64)> {
    let (call, returned) = line.rsplit_once(" = ")?;
    let (_, rest) = call.split_once('<')?;
    let (file, _) = rest.split_once(">,")?;
    Some((file.into(), returned.split(' ').next()?.parse().ok()?))
}

/// Whether a tracepoint's programs can be preempted: from 7.0 on.
pub(crate) fn kernel_preempts_programs() -> bool {
    kernel_is([7, 0])
}

/// Whether this kernel has this version or a later one.
pub(crate) fn kernel_is(version: [u32; 2]) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    [parts.next().unwrap_or(0), parts.next().unwrap_or(0)] >= version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_strace_are_understood() {
        assert_eq!(
            parse_strace("pread64(3</tmp/x/db>, \"\"..., 100, 0) = 100"),
            Some(("/tmp/x/db".into(), 100))
        );
        assert_eq!(
            parse_strace("read(3</tmp/x>, 0x1, 5) = -1 EFAULT (Bad address)"),
            None
        );
        assert_eq!(parse_strace("+++ exited with 0 +++"), None);
    }

    #[test]
    fn strace_counts_what_cat_reads() -> anyhow::Result<()> {
        if try_strace().is_err() {
            return Ok(());
        }
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("data");
        files::make_random(&file, 300_007)?;
        let command = words(&[&"cat", &file]);
        let bytes = bytes_read_by(&command, directory.path())?;
        assert_eq!(bytes.get(&file), Some(&300_007));
        Ok(())
    }
}
