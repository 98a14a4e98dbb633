//! How two recordings differ, drawn from saved ones. `INSTA_UPDATE=always` accepts what is drawn.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use mmtrace::{
    output::Format as _,
    recording::{Difference, Measure, Recording},
    report::diff::{Compared, Format, table},
};
use unicode_width::UnicodeWidthStr as _;

fn file(name: &str) -> PathBuf {
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "recordings", name]
        .iter()
        .collect();
    file.with_extension("json")
}

fn recording(name: &str) -> Recording {
    Recording::from_json(&fs::read(file(name)).unwrap()).unwrap()
}

const PAIRS: [[&str; 2]; 4] = [
    ["small", "warm"],
    ["small", "nulls"],
    ["empty", "hostile"],
    ["large", "large"],
];

fn written(format: Format, before: &str, after: &str) -> String {
    let (before, after) = (recording(before), recording(after));
    let mut text = Vec::new();
    let compared = Compared::of(&before, &after);
    format.write(&compared, None, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn differences_are_as_saved() {
    for [before, after] in PAIRS {
        let (one, other) = (recording(before), recording(after));
        let text = table(&Compared::of(&one, &other), 100);
        insta::assert_snapshot!(format!("table-{before}-{after}"), text);
    }
    for format in [Format::Json, Format::Html] {
        let name = format!("{}-small-warm", format.suffix());
        insta::assert_snapshot!(name, written(format, "small", "warm"));
    }
}

#[test]
fn nothing_in_a_recording_is_markup_or_acts_on_the_terminal() {
    let page = written(Format::Html, "empty", "hostile");
    assert!(
        !page.contains("<script") && !page.contains('\x1b'),
        "{page}"
    );
    let (one, other) = (recording("empty"), recording("hostile"));
    let text = table(&Compared::of(&one, &other), 100);
    assert!(
        text.chars().all(|it| it == '\n' || !it.is_control()),
        "{text}"
    );
}

#[test]
fn lines_of_figures_fit_their_columns() {
    for [before, after] in PAIRS {
        let (one, other) = (recording(before), recording(after));
        for line in table(&Compared::of(&one, &other), 120).lines() {
            assert!(line.width() <= 120, "{line}");
        }
    }
}

#[test]
fn the_same_recording_does_not_differ() {
    let one = recording("large");
    let difference = Difference::of(&one, &one);
    assert!(difference.paths.is_empty() && difference.files.is_empty());
    assert!(difference.total.iter().all(|(_, change)| change.is_none()));
}

#[test]
fn a_file_keeps_its_identity_by_name_or_by_inode() {
    let before = recording("small");
    let known = before.files.iter().position(|file| file.name.is_some());
    let known = known.unwrap();
    // Made anew: the same name, another inode. Then renamed: another name, the same inode.
    for change in [
        (|file| file.inode += 1_000) as fn(&mut mmtrace::recording::File),
        |file| file.name = Some("/elsewhere".into()),
    ] {
        let mut after = before.clone();
        change(&mut after.files[known]);
        assert!(Difference::of(&before, &after).files.is_empty());
    }
    let mut after = before.clone();
    after.files[known].inode += 1_000;
    after.files[known].name = Some("/elsewhere".into());
    assert!(!Difference::of(&before, &after).files.is_empty());
}

#[test]
fn what_one_does_not_measure_has_no_difference() {
    let before = recording("small");
    let mut after = before.clone();
    for row in &mut after.rows {
        row.measures.set(Measure::DiskReadBytes, None);
    }
    let mut measured = mmtrace::recording::Measured::default();
    for (path, totals) in before.totals.iter() {
        let known = Measure::ALL
            .into_iter()
            .filter(|measure| totals.get(*measure).is_some() && *measure != Measure::DiskReadBytes);
        let known: Vec<Measure> = known.collect();
        measured.set(path, mmtrace::recording::MeasureSet::of(&known));
    }
    after.totals = mmtrace::recording::Totals::of(&after.rows, &measured);
    let difference = Difference::of(&before, &after);
    let mut total = difference.total.iter();
    let (_, change) = total.find(|(it, _)| *it == Measure::DiskReadBytes).unwrap();
    assert!(change.before.is_some() && change.after.is_none());
    assert_eq!((change.difference(), change.ratio()), (None, None));
}

fn diff(arguments: &[&str]) -> Output {
    let files = ["small", "warm"].map(file);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmtrace"));
    command
        .arg("diff")
        .args(files)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn files_and_wrong_arguments() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("d.html");
    let output = diff(&["-o", page.to_str().unwrap(), "-o", "-"]);
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["schema"], "mmtrace.diff/1");
    assert!(
        fs::read_to_string(page)
            .unwrap()
            .starts_with("<!DOCTYPE html>")
    );
    let refused = |output: Output, word: &str| {
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(word), "{said}");
    };
    refused(diff(&["-o", "d.txt"]), ".json, .html, .svg");
    let svg = directory.path().join("d.svg");
    refused(diff(&["-o", svg.to_str().unwrap()]), "stack");
    let mut two = Command::new(env!("CARGO_BIN_EXE_mmtrace"));
    refused(
        two.args(["diff", "-", "-"]).output().unwrap(),
        "one recording",
    );
    let mut none = Command::new(env!("CARGO_BIN_EXE_mmtrace"));
    let missing = none.args(["diff", "/nowhere.json"]).arg(file("small"));
    refused(missing.output().unwrap(), "/nowhere.json");
}
