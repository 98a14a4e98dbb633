//! `--wait-descendants`: what the command leaves behind is followed to its end, and none of it
//! notices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use mmtrace::recording::Recording;

use crate::{kill, make_pipe, mmtrace_run, needs_tracing, read_until, shell, text};

/// Leaves a child behind that prints its parent as soon as that is another.
const ORPHAN: &str =
    "( while read -r _ _ _ parent _ < /proc/self/stat && [ \"$parent\" = $$ ]; do :; done
    echo \"$parent\" ) & exit 4";

/// Three generations, each left behind by the one before. When the command is gone the last says
/// so, and then what it reads from the pipe `$1`.
const GENERATIONS: &str = "( ( while [ -d /proc/$$ ]; do :; done
    ( echo left; read -r line < \"$1\"; echo \"$line\" ) & ) & ) & exit 4";

/// mmtrace with a command that has left its descendants behind.
struct Left {
    directory: tempfile::TempDir,
    mmtrace: Child,
    stdout: ChildStdout,
}

impl Left {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pipe = make_pipe(directory.path());
        let mut mmtrace = mmtrace_run()
            .args(["-q", "--wait-descendants", "-o"])
            .arg(recording_in(directory.path()))
            .arg("--")
            .args(shell(GENERATIONS))
            .arg("sh")
            .arg(&pipe)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = mmtrace.stdout.take().unwrap();
        assert_eq!(read_until(&mut stdout, "\n"), "left\n");
        Self {
            directory,
            mmtrace,
            stdout,
        }
    }

    /// Lets the last generation go on, and end.
    fn go_on(&mut self) {
        fs::write(self.directory.path().join("pipe"), "on\n").unwrap();
        assert_eq!(read_until(&mut self.stdout, "\n"), "on\n");
    }

    /// Waits for mmtrace's end.
    fn recording(&mut self) -> Recording {
        assert_eq!(self.mmtrace.wait().unwrap().code(), Some(4));
        let json = fs::read(recording_in(self.directory.path())).unwrap();
        Recording::from_json(&json).unwrap()
    }
}

fn recording_in(directory: &Path) -> PathBuf {
    directory.join("recording.json")
}

#[test]
fn an_orphans_parent_is_what_it_is_without_mmtrace() {
    needs_tracing!();
    let mut traced = mmtrace_run();
    traced
        .args(["-q", "--wait-descendants", "--"])
        .args(shell(ORPHAN));
    let mut bare = Command::new("sh");
    bare.args(["-c", ORPHAN]);
    let [traced, bare] = [traced, bare].map(|mut command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(4));
        text(&output.stdout).to_owned()
    });
    assert!(!bare.is_empty());
    assert_eq!(traced, bare);
}

#[test]
fn what_outlives_the_command_by_generations_is_followed_to_its_end() {
    needs_tracing!();
    let mut left = Left::new();
    left.go_on();
    let recording = left.recording();
    assert_eq!(recording.processes.len(), 4);
    for process in &recording.processes {
        assert!(process.end_ns.is_some(), "{process:?}");
    }
    let rusage: Vec<_> = recording
        .audit
        .iter()
        .filter(|entry| entry.check.ends_with("against rusage"))
        .collect();
    assert_eq!(rusage.len(), 3);
    for entry in rusage {
        let note = entry.note.as_deref().unwrap_or_default();
        assert!(
            entry.agree.is_none() && note.contains("not waited for"),
            "{entry:?}"
        );
    }
}

#[test]
fn an_interrupt_ends_the_waiting_and_nothing_else() {
    needs_tracing!();
    let mut left = Left::new();
    kill(left.mmtrace.id().cast_signed(), libc::SIGINT);
    let recording = left.recording();
    assert_eq!(recording.processes.len(), 4);
    assert_eq!(recording.processes[3].end_ns, None);
    left.go_on();
}
