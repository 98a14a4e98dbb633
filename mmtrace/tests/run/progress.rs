//! The progress line on a terminal.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Command, Stdio};

use crate::{MMTRACE, kill, make_pipe, mmtrace_run, needs_tracing, read_until, shell, terminal};

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

/// `mmtrace settle` with a claim that takes one small experiment, so many times.
fn settle(repeat: &str, options: &[&str], stdout: Option<Stdio>) -> (Child, File) {
    let claim = ["--claim", "visible-only-after-write", "--size", "4096"];
    settle_claim(&claim, repeat, options, stdout)
}

fn settle_claim(
    claim: &[&str],
    repeat: &str,
    options: &[&str],
    stdout: Option<Stdio>,
) -> (Child, File) {
    let mut command = Command::new(MMTRACE);
    command
        .arg("settle")
        .args(claim)
        .args(["--repeat", repeat])
        .args(options);
    terminal::start(command, stdout)
}

#[test]
fn settle_tells_which_experiment_it_makes_until_it_ends() {
    needs_tracing!();
    // Three experiments with files of 16 MiB, which take minutes: a line is drawn after two seconds.
    let claim = ["--claim", "mmap-one-copy", "--size", "16777259"];
    let (mut mmtrace, mut terminal) = settle_claim(&claim, "1000", &[], None);
    assert_eq!(read_until(&mut terminal, "\r\x1b[K"), "\r\x1b[K");
    let line = read_until(&mut terminal, "\r");
    assert!(
        line.starts_with("settle: ") && line.contains(" of 3000: "),
        "{line:?}"
    );
    // Not SIGINT, which a shell has what it starts in the background ignore.
    kill(mmtrace.id().cast_signed(), libc::SIGTERM);
    let mut written = Vec::new();
    terminal.read_to_end(&mut written).unwrap_err();
    assert_eq!(mmtrace.wait().unwrap().code(), Some(2));
    let written = String::from_utf8(written).unwrap();
    let (_, after) = written
        .rsplit_once("\r\x1b[K")
        .expect("the line was erased");
    assert!(
        after.contains("SIGTERM") && !after.contains('\x1b'),
        "{after:?}"
    );
}

#[test]
fn settle_draws_no_line_when_quiet() {
    needs_tracing!();
    let quiet = written(settle("120", &["-q"], None));
    assert!(
        quiet.contains("1 of 1 claims decided") && !quiet.contains('\x1b'),
        "{quiet:?}"
    );
}
