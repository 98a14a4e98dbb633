//! `mmtrace report` as its callers see it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

const MMTRACE: &str = env!("CARGO_BIN_EXE_mmtrace");

fn saved(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    directory.join(name).with_extension("json")
}

fn report(recording: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(MMTRACE);
    command.env_remove("SUDO_UID").env_remove("SUDO_GID");
    command.arg("report").arg(recording).args(arguments);
    command.output().unwrap()
}

fn written(output: &Output) -> &str {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    std::str::from_utf8(&output.stdout).unwrap()
}

fn refused(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn without_an_output_it_is_the_table() {
    let output = report(&saved("small"), &[]);
    let table = written(&output);
    assert!(
        table.starts_with("rg --mmap -c needle big.log    410 ms, exit 0, 1 process"),
        "{table}"
    );
}

#[test]
fn standard_output_has_the_format_asked_for() {
    let json = report(&saved("stacks"), &["-o", "-"]);
    assert_eq!(
        written(&json).as_bytes(),
        fs::read(saved("stacks")).unwrap()
    );
    let folded = ["--format", "folded", "--measure", "faults"];
    let lines = report(&saved("stacks"), &folded);
    assert_eq!(written(&lines).lines().count(), 7);
    let same = report(&saved("stacks"), &[&folded[..], &["-o", "-"]].concat());
    assert_eq!(written(&same), written(&lines));
}

#[test]
fn a_recording_may_come_from_standard_input() {
    let mut command = Command::new(MMTRACE);
    command
        .args(["report", "-", "-o", "-"])
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let json = fs::read(saved("hostile")).unwrap();
    child.stdin.take().unwrap().write_all(&json).unwrap();
    assert_eq!(written(&child.wait_with_output().unwrap()).as_bytes(), json);
}

#[test]
fn each_file_has_the_format_of_its_suffix() {
    let directory = tempfile::tempdir().unwrap();
    let names = [
        "a.json",
        "a.svg",
        "a.folded",
        "a.speedscope.json",
        "a.pb.gz",
        "a.trace.json",
    ];
    let files = names.map(|name| directory.path().join(name));
    let mut command = Command::new(MMTRACE);
    command
        .arg("report")
        .arg(saved("stacks"))
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID");
    for file in &files {
        command.arg("-o").arg(file);
    }
    assert_eq!(written(&command.output().unwrap()), "");
    let beginnings: [&[u8]; 6] = [
        b"{\n  \"schema\": \"mmtrace.recording/1\"",
        b"<?xml version=\"1.0\" standalone=\"no\"?><!DOCTYPE svg",
        b"exec;_dl_start;",
        b"{\n  \"$schema\": ",
        b"\x1f\x8b",
        b"{\n  \"displayTimeUnit\": \"ms\"",
    ];
    for (file, beginning) in files.iter().zip(beginnings) {
        assert!(
            fs::read(file).unwrap().starts_with(beginning),
            "{}",
            file.display()
        );
    }
    let unknown = directory.path().join("a.txt");
    let unknown = unknown.to_str().unwrap();
    written(&report(
        &saved("stacks"),
        &["-o", unknown, "--format", "folded"],
    ));
    assert_eq!(fs::read(unknown).unwrap(), fs::read(&files[2]).unwrap());
}

#[test]
fn what_cannot_be_shown_is_told_and_the_other_files_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let [svg, json] = ["a.svg", "a.json"].map(|name| directory.path().join(name));
    let files = [svg.to_str().unwrap(), json.to_str().unwrap()];
    let output = report(&saved("small"), &["-o", files[0], "-o", files[1]]);
    assert_eq!(
        refused(&output),
        format!(
            "mmtrace: cannot write the recording to '{}': the recording has no stacks\n  Record again \
             with `mmtrace run --stacks`, or with -o of a format that shows stacks.\n",
            files[0]
        )
    );
    assert!(!svg.exists() && json.exists());
}

#[test]
fn what_is_no_recording_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.json");
    let whole = fs::read(saved("small")).unwrap();
    for (bytes, why) in [
        (&b""[..], "not an mmtrace recording: it is empty"),
        (b"[1, 2]", "not a readable mmtrace recording: invalid type"),
        (b"{\"a\": 1}", "it has no \"schema\""),
        (
            &whole[..700],
            "the recording ends too early, in line 24, column 80",
        ),
    ] {
        fs::write(&file, bytes).unwrap();
        let output = report(&file, &[]);
        let errors = refused(&output);
        assert!(
            errors.contains(why) && errors.lines().count() == 1,
            "{errors}"
        );
    }
    let missing = report(&directory.path().join("b.json"), &[]);
    assert!(refused(&missing).starts_with("mmtrace: cannot read '"));
    let usage = report(&saved("small"), &["--measure", "everything"]);
    assert!(
        refused(&usage)
            .contains("[possible values: copied, returned, disk, faults, wait, readahead, waste]")
    );
    let suffix = report(&saved("small"), &["-o", "a.pdf"]);
    assert!(refused(&suffix).contains(
        "Supported suffixes: .json, .html, .folded, .svg, .speedscope.json, .pb.gz, .trace.json"
    ));
}
