//! Stops: mmtrace stops with its target and goes on with it.

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use crate::{FOREVER, kill, mmtrace, needs_tracing, read_until, shell, target_of};

/// mmtrace as a shell starts a job: in a process group of its own.
fn job(script: &str) -> Child {
    mmtrace(shell(script))
        .process_group(0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until mmtrace itself has stopped, and returns the signal that a shell would be told.
fn wait_for_stop(mmtrace: &Child) -> i32 {
    let mut status = 0;
    // SAFETY: the child is this process's own and `status` outlives the call.
    let waited =
        unsafe { libc::waitpid(mmtrace.id().cast_signed(), &raw mut status, libc::WUNTRACED) };
    assert_eq!(waited, mmtrace.id().cast_signed());
    assert!(
        libc::WIFSTOPPED(status),
        "mmtrace ended instead: {status:#x}"
    );
    libc::WSTOPSIG(status)
}

fn group(mmtrace: &Child) -> i32 {
    -mmtrace.id().cast_signed()
}

#[test]
fn a_stopped_target_stops_mmtrace_and_the_shell_continues_both() {
    needs_tracing!();
    for signal in ["STOP", "TSTP", "TTIN", "TTOU"] {
        let mut mmtrace = job(&format!("kill -{signal} $$; exit 5"));
        let told = wait_for_stop(&mmtrace);
        assert!([libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&told));
        kill(group(&mmtrace), libc::SIGCONT);
        assert_eq!(mmtrace.wait().unwrap().code(), Some(5), "{signal}");
    }
}

#[test]
fn a_stop_of_the_whole_group_stops_both() {
    needs_tracing!();
    // No command of its own: a shell that is stopped amid vfork does not stop, bare neither.
    let mut mmtrace = mmtrace(shell("echo ready; read line; exit 5"))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(mmtrace.stdout.as_mut().unwrap(), "ready\n");
    for _ in 0..20 {
        kill(group(&mmtrace), libc::SIGTSTP);
        assert_eq!(wait_for_stop(&mmtrace), libc::SIGTSTP);
        kill(group(&mmtrace), libc::SIGCONT);
    }
    drop(mmtrace.stdin.take());
    assert_eq!(mmtrace.wait().unwrap().code(), Some(5));
}

#[test]
fn continuing_mmtrace_alone_continues_the_target() {
    needs_tracing!();
    let mut mmtrace = job("kill -STOP $$; exit 6");
    wait_for_stop(&mmtrace);
    kill(mmtrace.id().cast_signed(), libc::SIGCONT);
    assert_eq!(mmtrace.wait().unwrap().code(), Some(6));
}

#[test]
fn stopping_mmtrace_alone_stops_the_target() {
    needs_tracing!();
    let mut mmtrace = job(FOREVER);
    read_until(mmtrace.stdout.as_mut().unwrap(), "ready\n");
    let target = target_of(mmtrace.id());
    kill(mmtrace.id().cast_signed(), libc::SIGTSTP);
    wait_for_stop(&mmtrace);
    let stat = std::fs::read_to_string(format!("/proc/{target}/stat")).unwrap();
    assert!(stat.contains(") T "), "{stat}");
    kill(target, libc::SIGKILL);
    kill(group(&mmtrace), libc::SIGCONT);
    mmtrace.wait().unwrap();
}
