//! `mmtrace run` as its callers see it: the target behaves as if it ran bare.

mod calibration;
mod compare;
mod descendants;
mod exit;
mod faithful;
mod gate;
mod hardship;
mod job_control;
mod outputs;
mod progress;
mod signals;
mod terminal;
mod users;
mod witness;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MMTRACE: &str = env!("CARGO_BIN_EXE_mmtrace");

/// Whether this process may observe the kernel, as `mmtrace run` demands; says so if not.
fn can_trace() -> bool {
    let able = mmtrace::privilege::check([]).is_ok();
    if !able {
        eprintln!("skipped: mmtrace run needs root");
    }
    able
}

/// Ends the test early, with the reason on standard error, where mmtrace cannot trace.
macro_rules! needs_tracing {
    () => {
        if !crate::can_trace() {
            return;
        }
    };
}
use needs_tracing;

/// `mmtrace run --quiet -- COMMAND...`, not by sudo.
fn mmtrace<S: AsRef<OsStr>>(command: impl IntoIterator<Item = S>) -> Command {
    let mut mmtrace = mmtrace_run();
    mmtrace.args(["--quiet", "--"]).args(command);
    mmtrace
}

/// `mmtrace run`, not by sudo.
fn mmtrace_run() -> Command {
    let mut mmtrace = Command::new(MMTRACE);
    mmtrace
        .arg("run")
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID");
    // SAFETY: the closure makes only async-signal-safe calls.
    unsafe {
        mmtrace.pre_exec(|| {
            not_in_the_background();
            Ok(())
        })
    };
    mmtrace
}

/// Undoes what tests inherit that run in a script's background, or by nohup: ignored signals. For
/// use between fork and exec.
fn not_in_the_background() {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        // SAFETY: signal is async-signal-safe, and the signals are valid.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn shell(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

/// A target's script: what it starts only a signal ends.
const FOREVER: &str = "echo ready; exec sleep infinity";

/// Makes a named pipe in a directory.
fn make_pipe(directory: &Path) -> PathBuf {
    let pipe = directory.join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    pipe
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

/// Standard error of a run that must have failed with `status`.
fn failed(output: &Output, status: i32) -> &str {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    stderr
}

/// Reads up to and with `ending`.
fn read_until(from: &mut impl Read, ending: &str) -> String {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(ending.as_bytes()) {
        from.read_exact(&mut byte).unwrap_or_else(|error| {
            panic!(
                "no {ending:?} in {:?}: {error}",
                String::from_utf8_lossy(&read)
            )
        });
        read.push(byte[0]);
    }
    String::from_utf8(read).expect("output is UTF-8")
}

/// The one child of mmtrace's process `pid`: the target.
fn target_of(pid: u32) -> i32 {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("mmtrace runs");
    children.trim().parse().expect("mmtrace has one child")
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: plain arguments.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill {pid}");
}
