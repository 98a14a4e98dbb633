//! Runs commands one after the other, and writes down what the kernel counted for each.
//!
//! Under mmtrace it stands between the tool and the commands: its `wait4` is a witness that mmtrace
//! has no part in, and many cases can share one start of the tool where that is slow.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::sys;
use crate::truth::{End, Faults, KernelTruth};

/// The workload's name.
pub(super) const NAME: &str = "sequence";

/// The commands, and where the results go.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// In this order.
    pub(crate) steps: Vec<Step>,
    /// Gets a [`KernelTruth`] for each step, as JSON.
    pub(crate) results: PathBuf,
}

/// A command to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Program and arguments, as bytes: file names need not be UTF-8.
    command: Vec<Vec<u8>>,
    /// Where its output goes; `None`: where this program's does.
    pub(crate) stdout: Option<PathBuf>,
}

impl Step {
    /// A step that runs `command`.
    pub(crate) fn new(command: &[OsString], stdout: Option<PathBuf>) -> Self {
        Self {
            command: command
                .iter()
                .map(|word| word.as_bytes().to_vec())
                .collect(),
            stdout,
        }
    }
}

/// Runs the plan in the file that the only argument names. A plan of one step ends as that step's
/// command does.
pub(super) fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    let [plan] = arguments else {
        anyhow::bail!("workload {NAME} PLAN.json");
    };
    let plan: Plan = serde_json::from_slice(&fs::read(plan)?)
        .with_context(|| format!("the plan in {plan:?}"))?;
    let results = plan
        .steps
        .iter()
        .map(run_step)
        .collect::<anyhow::Result<Vec<_>>>()?;
    fs::write(&plan.results, serde_json::to_vec(&results)?)
        .with_context(|| format!("writing {:?}", plan.results))?;
    let [only] = &results[..] else {
        return Ok(());
    };
    match only.end {
        End::Exit(status) => std::process::exit(status),
        End::Signal(signal) => end_by(signal),
    }
}

/// Ends this process by `signal`, as the command ended, and leaves no core file.
fn end_by(signal: i32) -> anyhow::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is ours; the signal's default action needs no memory of ours.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::signal(signal, libc::SIG_DFL);
    }
    sys::signal_self(signal)?;
    anyhow::bail!("signal {signal} did not end the process")
}

fn run_step(step: &Step) -> anyhow::Result<KernelTruth> {
    let words = step
        .command
        .iter()
        .map(|word| sys::c_string(&OsString::from_vec(word.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(!words.is_empty(), "a step has no command");
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let stdout = step
        .stdout
        .as_deref()
        .map(|path| sys::open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC))
        .transpose()?;
    // SAFETY: this program has one thread so far.
    let Some(pid) = (unsafe { sys::fork()? }) else {
        use std::os::fd::AsRawFd as _;
        // SAFETY: the descriptors are open; the array ends with a null pointer, and its strings
        // live on until the exec.
        unsafe {
            if let Some(file) = &stdout {
                libc::dup2(file.as_raw_fd(), libc::STDOUT_FILENO);
            }
            libc::execvp(pointers[0], pointers.as_ptr());
        }
        sys::exit_now(127);
    };
    account(pid)
}

/// Waits for a child, reads its counters while it is a zombie, and reaps it.
fn account(pid: i32) -> anyhow::Result<KernelTruth> {
    let id = libc::id_t::try_from(pid)?;
    // SAFETY: plain data, for which zeros are a value; the calls fill it.
    let waited = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, id, &mut info, libc::WEXITED | libc::WNOWAIT)
    };
    ensure!(waited == 0, std::io::Error::last_os_error());
    let disk_read_bytes = disk_read_bytes(Path::new(&format!("/proc/{pid}/io")));
    let mut status = 0;
    // SAFETY: as above.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        ensure!(
            libc::wait4(pid, &mut status, 0, &mut usage) == pid,
            std::io::Error::last_os_error()
        );
        usage
    };
    Ok(KernelTruth {
        pid,
        end: End::from_wait_status(status),
        faults: Faults {
            minor: usage.ru_minflt.cast_unsigned(),
            major: usage.ru_majflt.cast_unsigned(),
        },
        disk_read_bytes,
    })
}

fn disk_read_bytes(io: &Path) -> Option<u64> {
    fs::read_to_string(io)
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok())
}
