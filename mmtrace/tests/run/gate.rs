//! The gate itself, by the library.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use mmtrace::failure::Failure;
use mmtrace::target::{Exit, Marker, Signals, Spec, Stopped};

fn in_runtime<T>(work: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work())
}

fn spec(command: &[&str]) -> Spec {
    Spec {
        command: command.iter().map(OsString::from).collect(),
        user: None,
        silent: false,
        marker: Some(Marker::random().unwrap()),
    }
}

fn spawn(command: &[&str]) -> anyhow::Result<Stopped> {
    Stopped::spawn(spec(command), Signals::block()?)
}

#[test]
fn a_target_dropped_at_the_gate_runs_nothing_and_is_gone() {
    in_runtime(async || {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let target = spawn(&["touch", mark.to_str().unwrap()]).unwrap();
        let process = format!("/proc/{}", target.pid());
        assert!(Path::new(&process).exists());
        drop(target);
        assert!(!Path::new(&process).exists() && !mark.exists());
    });
}

#[test]
fn the_target_waits_as_a_copy_of_mmtrace() {
    in_runtime(async || {
        let target = spawn(&["true"]).unwrap();
        let link = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(link(target.pid()), link(std::process::id()));
        assert!(target.baseline().faults.minor > 0);
        assert_eq!(
            target.release().unwrap().wait().await.unwrap().exit,
            Exit::Code(0)
        );
    });
}

#[test]
fn the_outcome_is_the_kernels_account() {
    in_runtime(async || {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, vec![7; 100_003]).unwrap();
        let target = spawn(&[
            "dd",
            "bs=1009",
            "status=none",
            &format!("if={}", file.display()),
            "of=/dev/null",
        ]);
        let target = target.unwrap();
        let before = target.baseline().io;
        let outcome = target.release().unwrap().wait().await.unwrap();
        assert_eq!(outcome.exit, Exit::Code(0));
        assert_eq!(outcome.baseline.io, before);
        // Where both are told, the end's includes the gate's and the file that dd read and wrote.
        if let (Some(before), Some(after)) = (before, outcome.io) {
            assert!(after.rchar - before.rchar >= 100_003 && after.wchar - before.wchar == 100_003);
            assert!(after.syscw - before.syscw == 100);
        }
        let faults = outcome.faults.unwrap();
        assert_eq!(
            (outcome.usage.minor_faults, outcome.usage.major_faults),
            (faults.minor, faults.major)
        );
        assert!(outcome.wall_time_ns > 0 && faults.minor > outcome.baseline.faults.minor);
    });
}

#[test]
fn a_missing_command_is_known_at_the_gate() {
    in_runtime(async || {
        let error = spawn(&["/no/such/command"]).err().unwrap();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().status(), 127);
    });
}

#[test]
fn a_target_killed_at_the_gate_is_an_outcome() {
    in_runtime(async || {
        let target = spawn(&["true"]).unwrap();
        crate::kill(target.pid().cast_signed(), libc::SIGKILL);
        let outcome = target.release().unwrap().wait().await.unwrap();
        assert_eq!(outcome.exit, Exit::Signal(libc::SIGKILL));
    });
}
