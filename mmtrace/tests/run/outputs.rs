//! `-o FILE`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::{failed, mmtrace_run, needs_tracing, shell, text};

fn run_to(files: &[&Path], script: &str) -> Output {
    let mut command = mmtrace_run();
    command.arg("--quiet");
    for file in files {
        command.arg("-o").arg(file);
    }
    command.arg("--").args(shell(script)).output().unwrap()
}

#[test]
fn several_files_are_written_and_nothing_else_is_left() {
    needs_tracing!();
    let directory = tempfile::tempdir().unwrap();
    let files = ["a.json", "b.json"].map(|name| directory.path().join(name));
    let output = run_to(&[&files[0], &files[1]], "exit 3");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(3), ""));
    let read = files
        .each_ref()
        .map(|file| fs::read_to_string(file).unwrap());
    assert_eq!(read[0], read[1]);
    let recording: serde_json::Value = serde_json::from_str(&read[0]).unwrap();
    assert_eq!(recording["schema"], "mmtrace.recording/1");
    assert_eq!(recording["target"]["exit_code"], 3);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn a_dash_is_standard_output_after_the_targets() {
    needs_tracing!();
    let output = run_to(&[Path::new("-")], "echo first");
    let (first, recording) = text(&output.stdout).split_once('\n').unwrap();
    assert_eq!(first, "first");
    assert!(serde_json::from_str::<serde_json::Value>(recording).is_ok());
}

#[test]
fn what_cannot_be_written_is_said_before_the_start() {
    needs_tracing!();
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let script = format!(": > '{}'", mark.display());
    for (name, why) in [
        ("/no/such/directory/a.json", "does not exist"),
        ("/proc/a.json", "takes no new file"),
        ("/dev/null", "suffix"),
        ("a.pdf", "suffix"),
    ] {
        let output = run_to(&[Path::new(name)], &script);
        assert!(
            failed(&output, 125).contains(why),
            "{name}: {}",
            text(&output.stderr)
        );
        assert!(!mark.exists());
    }
}

/// A mounted tmpfs, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=64k", "none"])
            .arg(directory.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(directory)),
            _ => {
                eprintln!("skipped: no tmpfs can be mounted");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_full_at_the_end_is_one_line_and_the_status_stays() {
    needs_tracing!();
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let file = disk.0.path().join("a.json");
    let fill = disk.0.path().join("fill");
    let output = run_to(
        &[&file],
        &format!("cat /dev/zero > '{}' 2> /dev/null; exit 3", fill.display()),
    );
    let stderr = failed(&output, 3);
    assert!(
        stderr.lines().count() == 1 && stderr.contains("No space left"),
        "{stderr}"
    );
    assert!(
        !stderr.contains(".mmtrace-"),
        "the temporary file is nobody's concern: {stderr}"
    );
    assert_eq!(
        fs::read_dir(disk.0.path()).unwrap().count(),
        1,
        "only the target's file is left"
    );
}
