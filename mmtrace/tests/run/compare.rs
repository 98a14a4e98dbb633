//! `mmtrace compare`.

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::{MMTRACE, needs_tracing, read_until, terminal, text};

const SIZE_BYTES: u64 = 3_000_017;

fn compare(arguments: &[&str]) -> Output {
    let mut command = Command::new(MMTRACE);
    command
        .arg("compare")
        .args(arguments)
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID");
    command.output().unwrap()
}

/// Compares reading a file whole with reading nothing of it; the JSON.
fn compared(options: &[&str]) -> Value {
    // On a disk, where the build is: other places may be in memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = directory.path().join("a file");
    fs::write(&file, vec![1; SIZE_BYTES as usize]).unwrap();
    let one = format!("cat '{}'", file.display());
    let other = format!("head -c 0 '{}'", file.display());
    let commands = ["--repeat", "3", "-o", "-", "--", &one, &other];
    let output = compare(&[options, &commands].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn figure<'a>(comparison: &'a Value, name: &str) -> &'a Value {
    let figures = comparison["figures"].as_array().unwrap();
    figures.iter().find(|it| it["figure"] == name).unwrap()
}

#[test]
fn what_is_warm_is_read_and_comes_from_no_disk() {
    needs_tracing!();
    let comparison = compared(&["--warm"]);
    assert_eq!(comparison["schema"], "mmtrace.compare/1");
    assert_eq!(comparison["cache"], "warm");
    for side in 0..2 {
        let rounds = comparison["sides"][side]["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 3);
    }
    let read = figure(&comparison, "bytes_read");
    assert_eq!(read["differs"], true);
    let spread = |side: usize| read["spread"][side]["median"].as_f64().unwrap() as u64;
    // And a few KiB of libraries, the same for both.
    assert!((SIZE_BYTES..SIZE_BYTES + 65_536).contains(&spread(0)));
    assert!(spread(1) < 65_536);
    let disk = figure(&comparison, "disk_read_bytes");
    // Nothing of the file. Parts of programs may be read where the system takes memory back.
    let most = disk["spread"][0]["max"].as_f64().unwrap() as u64;
    assert!(most < SIZE_BYTES, "{most}");
}

#[test]
fn what_is_cold_comes_from_the_disk_in_each_round() {
    needs_tracing!();
    let comparison = compared(&["--cold"]);
    let disk = figure(&comparison, "disk_read_bytes");
    if disk["spread"][0]["max"] == 0.0 {
        eprintln!("skipped: the file system has no disk");
        return;
    }
    assert!(disk["spread"][0]["min"].as_f64().unwrap() >= SIZE_BYTES as f64);
    assert_eq!(disk["differs"], true);
}

#[test]
fn commands_that_fail_end_it_unless_that_is_to_be_ignored() {
    needs_tracing!();
    let output = compare(&["--repeat", "1", "--", "true", "sh -c 'exit 3'"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("exit 3") && said.contains("--ignore-failure"),
        "{said}"
    );
    let output = compare(&["-i", "--repeat", "1", "--", "true", "sh -c 'exit 3'"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("that takes 3 rounds or more"));
}

#[test]
fn what_is_no_comparison_is_refused() {
    for (arguments, word) in [
        (&["--", "true"][..], "2 values"),
        (&["--cold", "--warm", "--", "true", "true"], "--warm"),
        (&["--repeat", "0", "--", "true", "true"], "--repeat"),
        (&["--", "true", "a 'b"], "a 'b"),
        (&["--", "true", " "], "empty command"),
        (&["-o", "x.html", "--", "true", "true"], ".json"),
        (&["--", "true", "no-such-command-here"], "command not found"),
    ] {
        if word == "command not found" {
            needs_tracing!();
        }
        let output = compare(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

#[test]
fn the_commands_write_nothing_unless_that_is_asked_for() {
    needs_tracing!();
    let loud = [
        "--repeat",
        "1",
        "--",
        "echo 'aloud'",
        "sh -c 'echo aloud >&2'",
    ];
    let output = compare(&loud);
    let lines = |output: &Output| {
        let all = [text(&output.stdout), text(&output.stderr)].concat();
        all.lines().filter(|line| *line == "aloud").count()
    };
    assert_eq!(lines(&output), 0);
    let output = compare(&[&["--show-output"], &loud[..]].concat());
    // Each once untimed, and once timed.
    assert_eq!(lines(&output), 4);
}

#[test]
fn it_tells_which_round_it_is() {
    needs_tracing!();
    let mut command = Command::new(MMTRACE);
    // Longer than it takes for a line to be drawn.
    command.args(["compare", "--repeat", "1", "--", "sleep 2.5", "true"]);
    let (mut mmtrace, mut terminal) = terminal::start(command, Some(Stdio::null()));
    let line = read_until(&mut terminal, "sleep 2.5\r");
    assert!(
        line.ends_with("compare: once before: sleep 2.5\r"),
        "{line:?}"
    );
    mmtrace.kill().unwrap();
    mmtrace.wait().unwrap();
}
