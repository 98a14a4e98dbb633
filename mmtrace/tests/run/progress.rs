//! The progress line on a terminal.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Stdio};

use crate::{make_pipe, mmtrace_run, needs_tracing, read_until, shell, terminal};

/// All that mmtrace writes to its terminal from now on, until it ends.
fn written((mut mmtrace, mut terminal): (Child, File)) -> String {
    let mut written = Vec::new();
    // Linux answers EIO for a terminal that nobody has open any more.
    let end = terminal.read_to_end(&mut written).unwrap_err();
    assert_eq!(end.raw_os_error(), Some(libc::EIO));
    assert_eq!(mmtrace.wait().unwrap().code(), Some(0));
    String::from_utf8(written).unwrap()
}

#[test]
fn it_is_drawn_after_two_seconds_and_erased_before_the_summary() {
    needs_tracing!();
    let directory = tempfile::tempdir().unwrap();
    let pipe = make_pipe(directory.path());
    let mut command = mmtrace_run();
    command
        .arg("--")
        .args(shell("read line < \"$1\""))
        .arg("sh")
        .arg(&pipe);
    let (mmtrace, mut terminal) = terminal::start(command, Some(Stdio::null()));
    assert_eq!(read_until(&mut terminal, "\r\x1b[K"), "\r\x1b[K");
    let line = read_until(&mut terminal, "\r");
    assert!(line.starts_with("mmtrace: 2 s"), "{line:?}");
    fs::write(&pipe, "\n").unwrap();
    let written = written((mmtrace, terminal));
    let (_, summary) = written
        .rsplit_once("\r\x1b[K")
        .expect("the line was erased");
    assert!(
        summary.contains("exit 0") && !summary.contains('\x1b'),
        "{summary:?}"
    );
}

#[test]
fn it_is_not_drawn_beside_the_targets_output_or_when_quiet() {
    needs_tracing!();
    // Longer than it takes for a line to be drawn: that none is drawn is no event.
    let run = |options: &[&str], stdout| {
        let mut command = mmtrace_run();
        command.args(options).arg("--").args(shell("sleep 2.5"));
        written(terminal::start(command, stdout))
    };
    assert!(!run(&[], None).contains('\x1b'));
    assert_eq!(run(&["-q"], Some(Stdio::null())), "");
}
