//! Runs mmtrace, and keeps what it leaves.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

use crate::{leftovers::Objects, truth::End};

/// The program under test.
pub(crate) struct Tracer {
    /// Its binary.
    pub(crate) binary: PathBuf,
    /// How long a run of it may take.
    pub(crate) limit: Duration,
}

/// What a run of it left.
pub(crate) struct Traced {
    /// How mmtrace itself ended.
    pub(crate) end: End,
    /// What the command printed.
    pub(crate) stdout: Vec<u8>,
    /// What mmtrace, and the command, said on standard error.
    pub(crate) stderr: String,
    /// The recording's path, in a directory of its own.
    pub(crate) recording: PathBuf,
    /// What should not be there: files beside the recording, BPF objects.
    pub(crate) left_behind: Vec<String>,
    _directory: tempfile::TempDir,
}

impl Tracer {
    /// Why it refuses `backend` here; `None` when it accepts it.
    pub(crate) fn refuses(&self, backend: &str) -> anyhow::Result<Option<String>> {
        let traced = self.run(backend, &[], &["true".into()])?;
        if traced.end == End::Exit(0) {
            return Ok(None);
        }
        let said = traced.stderr.lines().find(|line| !line.trim().is_empty());
        Ok(Some(said.unwrap_or("it said nothing").to_owned()))
    }

    /// Traces `command`.
    pub(crate) fn run(
        &self,
        backend: &str,
        options: &[&str],
        command: &[OsString],
    ) -> anyhow::Result<Traced> {
        let directory = tempfile::tempdir()?;
        let outputs = directory.path().join("outputs");
        fs::create_dir(&outputs)?;
        let recording = outputs.join("recording.json");
        let mut arguments: Vec<&OsStr> = ["run", "--backend", backend]
            .into_iter()
            .map(OsStr::new)
            .collect();
        // Whatever that costs.
        if copies_can_be_watched() && !options.contains(&"--copies") {
            arguments.extend(["--copies", "exact"].map(OsStr::new));
        }
        arguments.push(OsStr::new("-o"));
        arguments.push(recording.as_os_str());
        arguments.extend(options.iter().map(OsStr::new));
        arguments.push(OsStr::new("--"));
        arguments.extend(command.iter().map(OsString::as_os_str));

        let before = Objects::now();
        let (end, stdout, stderr) = self.run_bare(&arguments, directory.path())?;
        let mut left_behind = Vec::new();
        let left = Objects::left_since(&before);
        if !left.is_empty() {
            left_behind.push(format!("left in the kernel: {left}"));
        }
        for entry in fs::read_dir(&outputs)? {
            let path = entry?.path();
            if path != recording {
                left_behind.push(format!("left beside the recording: {path:?}"));
            }
        }
        Ok(Traced {
            end,
            stdout,
            stderr,
            recording,
            left_behind,
            _directory: directory,
        })
    }

    /// Runs the binary with `arguments`: its end, standard output and standard error.
    fn run_bare(
        &self,
        arguments: &[&OsStr],
        directory: &Path,
    ) -> anyhow::Result<(End, Vec<u8>, String)> {
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| directory.join(name));
        let mut child = Command::new(&self.binary)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&stdout)?)
            .stderr(fs::File::create(&stderr)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {:?}", self.binary))?;
        let in_time = wait(&child, self.limit)?;
        if !in_time {
            end_group(&mut child)?;
        }
        let status = child.wait()?;
        let said = String::from_utf8_lossy(&fs::read(&stderr)?).into_owned();
        ensure!(
            in_time,
            "mmtrace did not end within {} s: {}",
            self.limit.as_secs(),
            last_lines(&said)
        );
        let end = match (status.code(), status.signal()) {
            (Some(code), _) => End::Exit(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => bail!("mmtrace ended neither by itself nor by a signal: {status}"),
        };
        Ok((end, fs::read(&stdout)?, said))
    }
}

/// Whether the kernel takes breakpoints on its code: it does where it takes kprobes.
pub(crate) fn copies_can_be_watched() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe/type").exists()
}

/// The end of what a program said, on one line.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

/// Waits until a child ends: whether it did within `limit`.
fn wait(child: &Child, limit: Duration) -> anyhow::Result<bool> {
    // SAFETY: no memory is passed; the child is not reaped yet, so its pid is its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    ensure!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was just made and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
    let mut ended = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let limit_ms = i32::try_from(limit.as_millis())?;
    // SAFETY: one structure, ours.
    match unsafe { libc::poll(&mut ended, 1, limit_ms) } {
        -1 => Err(std::io::Error::last_os_error()).context("poll"),
        ready => Ok(ready == 1),
    }
}

/// Ends a child that hangs, and what it started in its process group.
fn end_group(child: &mut Child) -> anyhow::Result<()> {
    let group = i32::try_from(child.id())?;
    // SAFETY: no memory is passed; the group is the child's own, made when it was started.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    child.kill()?;
    Ok(())
}
