//! Signals sent to mmtrace, and those of a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

use crate::{FOREVER, kill, mmtrace, needs_tracing, read_until, shell, terminal};

/// Tells of each signal and ends, with status 7, by SIGTERM. What it waits for ends with its input.
const TELLS: &str = "
    for signal in INT QUIT HUP USR1 USR2 ALRM WINCH CONT; do trap \"echo $signal\" $signal; done
    trap 'echo TERM; exit 7' TERM
    exec 3<&0
    cat <&3 >&- 2>&- & cat=$!
    echo ready
    while :; do wait $cat; done
";

fn end(mut mmtrace: Child, mut from: impl Read) -> String {
    kill(mmtrace.id().cast_signed(), libc::SIGTERM);
    let said = read_until(&mut from, "TERM").replace('\r', "");
    assert_eq!(mmtrace.wait().unwrap().code(), Some(7));
    said
}

#[test]
fn what_is_sent_to_mmtrace_reaches_the_target_once() {
    needs_tracing!();
    let mut mmtrace = mmtrace(shell(TELLS))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = mmtrace.stdout.take().unwrap();
    read_until(&mut stdout, "ready\n");
    for (signal, name) in [
        (libc::SIGINT, "INT\n"),
        (libc::SIGINT, "INT\n"),
        (libc::SIGQUIT, "QUIT\n"),
        (libc::SIGHUP, "HUP\n"),
        (libc::SIGUSR1, "USR1\n"),
        (libc::SIGUSR2, "USR2\n"),
        (libc::SIGALRM, "ALRM\n"),
        (libc::SIGWINCH, "WINCH\n"),
        (libc::SIGCONT, "CONT\n"),
    ] {
        kill(mmtrace.id().cast_signed(), signal);
        assert_eq!(read_until(&mut stdout, "\n"), name);
    }
    assert_eq!(end(mmtrace, stdout), "TERM");
}

#[test]
fn a_signal_that_ends_the_target_ends_mmtrace() {
    needs_tracing!();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, 40] {
        let mut mmtrace = mmtrace(shell(FOREVER))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        read_until(&mut mmtrace.stdout.take().unwrap(), "ready\n");
        kill(mmtrace.id().cast_signed(), signal);
        assert_eq!(mmtrace.wait().unwrap().signal(), Some(signal));
    }
}

fn on_terminal(script: &str) -> (Child, File) {
    terminal::start(mmtrace(shell(script)), None)
}

#[test]
fn the_terminals_signals_reach_the_target_once_and_leave_mmtrace_alone() {
    needs_tracing!();
    let (mmtrace, mut terminal) = on_terminal(TELLS);
    read_until(&mut terminal, "ready\r\n");
    for (typed, name) in [
        (b"\x03", "INT\r\n"),
        (b"\x03", "INT\r\n"),
        (b"\x1c", "QUIT\r\n"),
        (b"\x03", "INT\r\n"),
    ] {
        terminal.write_all(typed).unwrap();
        // The terminal echoes ^C before.
        assert_eq!(read_until(&mut terminal, "\n")[2..], *name);
    }
    let size = libc::winsize {
        ws_row: 11,
        ws_col: 77,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the size outlives the call.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(read_until(&mut terminal, "\n"), "WINCH\r\n");
    assert_eq!(end(mmtrace, terminal), "TERM");
}

#[test]
fn a_terminal_that_hangs_up_is_told_to_the_target() {
    needs_tracing!();
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let script = format!(
        "trap ': > \"{}\"; exit 5' HUP; echo ready; while :; do read -r line; done",
        mark.display()
    );
    let (mut mmtrace, mut terminal) = on_terminal(&script);
    read_until(&mut terminal, "ready\r\n");
    drop(terminal);
    assert_eq!(mmtrace.wait().unwrap().code(), Some(5));
    assert!(mark.exists());
}
