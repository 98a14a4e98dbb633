//! The progress line on a terminal.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::{mmtrace_run, needs_tracing, shell, terminal};

/// All that `command` writes to its terminal, until it ends.
fn written(command: Command, stdout: Option<Stdio>) -> String {
    let (mut mmtrace, mut terminal) = terminal::start(command, stdout);
    let mut written = Vec::new();
    // Linux answers EIO for a terminal that nobody has open any more.
    let end = terminal.read_to_end(&mut written).unwrap_err();
    assert_eq!(end.raw_os_error(), Some(libc::EIO));
    assert_eq!(mmtrace.wait().unwrap().code(), Some(0));
    String::from_utf8(written).unwrap()
}

fn run(options: &[&str]) -> Command {
    let mut command = mmtrace_run();
    command.args(options).arg("--").args(shell("sleep 2.5"));
    command
}

#[test]
fn it_is_drawn_after_two_seconds_and_erased_before_the_summary() {
    needs_tracing!();
    let written = written(run(&[]), Some(Stdio::null()));
    let (line, summary) = written
        .rsplit_once("\r\x1b[K")
        .expect("a line was drawn and erased");
    assert!(
        line.starts_with("\r\x1b[Kmmtrace: 2 s") && line.ends_with('\r'),
        "{line:?}"
    );
    assert!(
        summary.contains("exit 0") && !summary.contains('\x1b'),
        "{summary:?}"
    );
}

#[test]
fn it_is_not_drawn_beside_the_targets_output_or_when_quiet() {
    needs_tracing!();
    assert!(!written(run(&[]), None).contains('\x1b'));
    assert_eq!(written(run(&["-q"]), Some(Stdio::null())), "");
}
