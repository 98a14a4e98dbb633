//! Exit statuses and deaths.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use crate::{failed, mmtrace, mmtrace_run, needs_tracing, shell, text};

fn executable(directory: &Path, name: &str, content: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn the_status_is_the_targets() {
    needs_tracing!();
    for status in [0, 1, 42, 125, 126, 127, 255] {
        let output = mmtrace(shell(&format!("exit {status}"))).output().unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(status), "")
        );
    }
}

#[test]
fn death_by_signal_is_the_targets_without_a_core_of_mmtrace() {
    needs_tracing!();
    for signal in [
        libc::SIGTERM,
        libc::SIGKILL,
        libc::SIGSEGV,
        libc::SIGABRT,
        libc::SIGPIPE,
        libc::SIGINT,
        40,
    ] {
        let status = mmtrace(shell(&format!("kill -{signal} $$")))
            .status()
            .unwrap();
        assert_eq!(
            (status.signal(), status.core_dumped()),
            (Some(signal), false)
        );
    }
}

#[test]
fn a_missing_command_is_127() {
    needs_tracing!();
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let dangling = executable(directory.path(), "dangling", "#!/no/such/interpreter\n");
    assert!(
        failed(&mmtrace(["no-such-command-9e3"]).output().unwrap(), 127)
            .contains("no-such-command-9e3")
    );
    assert!(failed(&mmtrace([""]).output().unwrap(), 127).contains("not found"));
    assert!(failed(&mmtrace([&missing]).output().unwrap(), 127).contains("not found"));
    assert!(failed(&mmtrace([&dangling]).output().unwrap(), 127).contains("interpreter"));
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    needs_tracing!();
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    fs::write(&plain, "").unwrap();
    assert!(failed(&mmtrace([&plain]).output().unwrap(), 126).contains("Permission denied"));
    assert!(failed(&mmtrace([directory.path()]).output().unwrap(), 126).contains("directory"));

    let busy = directory.path().join("busy");
    fs::copy("/bin/true", &busy).unwrap();
    let writer = fs::OpenOptions::new().append(true).open(&busy).unwrap();
    assert!(failed(&mmtrace([&busy]).output().unwrap(), 126).contains("busy"));
    drop(writer);
}

#[test]
fn the_path_is_searched_past_what_cannot_be_executed() {
    needs_tracing!();
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("1"), directory.path().join("2"));
    fs::create_dir_all(first.join("tool")).unwrap();
    fs::create_dir(&second).unwrap();
    executable(&second, "tool", "#!/bin/sh\nexit 6\n");
    let path = format!("{}:{}", first.display(), second.display());
    assert_eq!(
        mmtrace(["tool"]).env("PATH", path).status().unwrap().code(),
        Some(6)
    );
    assert_eq!(
        mmtrace(["tool"])
            .env("PATH", &first)
            .output()
            .unwrap()
            .status
            .code(),
        Some(126)
    );
}

#[test]
fn a_script_without_interpreter_line_runs_in_the_shell() {
    needs_tracing!();
    let directory = tempfile::tempdir().unwrap();
    let script = executable(directory.path(), "script", "echo \"$# $1\"\nexit 9\n");
    let output = mmtrace([script.as_os_str(), "a b".as_ref(), "c".as_ref()])
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(9), "2 a b\n")
    );
}

#[test]
fn wrong_command_lines_are_125() {
    for line in [
        &[][..],
        &["--"],
        &["--backend", "ptrace", "--", "true"],
        &["--no-such-option", "true"],
    ] {
        failed(&mmtrace_run().args(line).output().unwrap(), 125);
    }
    assert!(mmtrace_run().arg("--help").status().unwrap().success());
}

#[test]
fn a_name_cannot_write_to_the_terminal() {
    needs_tracing!();
    let output = mmtrace(["a\x1b[31m\n"]).output().unwrap();
    let message = failed(&output, 127);
    assert!(
        !message.contains('\x1b') && message.lines().count() == 1,
        "{message:?}"
    );
}
