//! Every report, drawn from saved recordings. `INSTA_UPDATE=always` accepts what is drawn.

mod saved;

use std::sync::Arc;

use mmtrace::{
    recording::{Backend, ReadError, Recording, Refused},
    report::{json, table},
};
use saved::{recording, saved};
use unicode_width::UnicodeWidthStr as _;

const RECORDINGS: [&str; 9] = [
    "small", "large", "nulls", "warm", "losses", "audit", "hostile", "empty", "witness",
];

fn draw(name: &str, width: usize, color: bool) -> String {
    table::render(&recording(name), &table::Options::new(width, color))
}

#[test]
fn tables_are_as_saved() {
    for name in RECORDINGS {
        for width in [80, 120, 200] {
            insta::assert_snapshot!(format!("table-{name}-{width}"), draw(name, width, false));
        }
    }
    insta::assert_snapshot!("table-losses-color", draw("losses", 80, true));
    let every_file = table::Options {
        files: usize::MAX,
        ..table::Options::new(100, false)
    };
    let hostile = table::render(&recording("hostile"), &every_file);
    insta::assert_snapshot!("table-hostile-every-file", hostile);
}

#[test]
fn better_hooks_that_were_refused_are_told() {
    let mut recording = recording("nulls");
    let draw = |recording: &Recording| table::render(recording, &table::Options::new(60, false));
    assert!(!draw(&recording).contains("mmtrace doctor"));
    recording.probes.refused = [Backend::Fentry, Backend::Kprobe]
        .map(|backend| Refused {
            backend,
            reason: "no".to_owned(),
        })
        .into();
    let text = draw(&recording);
    let lines: Vec<_> = text.lines().rev().take(2).collect();
    let told = [lines[1], lines[0]].join(" ");
    assert_eq!(
        told,
        "Better hooks (fentry, kprobe) cannot be had here: `mmtrace doctor` says why, and what that costs."
    );
    let mut json = Vec::new();
    json::write(&recording, &mut json).unwrap();
    assert_eq!(Recording::from_json(&json).unwrap(), recording);
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for name in RECORDINGS {
        for width in (60..=220).step_by(9) {
            for line in draw(name, width, false).lines() {
                assert!(line.width() <= width, "{name} at {width}: {line}");
            }
        }
    }
}

#[test]
fn nothing_in_a_recording_acts_on_the_terminal() {
    let text = draw("hostile", 200, false);
    let harmful = |c: &char| {
        (c.is_control() && *c != '\n') || "\u{200b}\u{202e}\u{2066}\u{feff}".contains(*c)
    };
    assert_eq!(text.chars().find(harmful), None);
    for name in RECORDINGS {
        let plain: String = draw(name, 200, true)
            .split("\x1b[")
            .enumerate()
            .map(|(index, part)| match index {
                0 => part,
                _ => part.split_once('m').expect("only colours are written").1,
            })
            .collect();
        assert_eq!(plain, draw(name, 200, false), "colour changes nothing else");
    }
}

#[test]
fn json_is_written_as_it_was_read() {
    let with_stacks = ["stacks", "stacks-hostile", "stacks-large"];
    for name in RECORDINGS.into_iter().chain(with_stacks) {
        let mut written = Vec::new();
        json::write(&recording(name), &mut written).unwrap();
        assert!(written == saved(name), "{name}.json differs");
    }
}

#[test]
fn what_is_no_recording_is_refused() {
    let altered = |from: &str, to: &str| {
        let json = String::from_utf8(saved("small")).unwrap();
        assert!(json.contains(from), "{from} is in the recording");
        Recording::from_json(json.replacen(from, to, 1).as_bytes()).unwrap_err()
    };
    assert!(matches!(
        Recording::from_json(b"ELF"),
        Err(ReadError::Malformed(_))
    ));
    assert!(matches!(
        Recording::from_json(b"{}"),
        Err(ReadError::Foreign)
    ));
    let version = altered("mmtrace.recording/1", "mmtrace.recording/2");
    assert!(matches!(&version, ReadError::Version { found } if found == "mmtrace.recording/2"));
    insta::assert_snapshot!("unknown-version", version);
    for (from, to) in [
        (r#""operations": 130"#, r#""operations": 131"#),
        (r#""operations": 130"#, r#""operations": null"#),
        (r#""process": 0"#, r#""process": 9"#),
        (r#""file": 3"#, r#""file": 99"#),
        (r#"{"id": 1"#, r#"{"id": 0"#),
    ] {
        let error = altered(from, to);
        assert!(matches!(error, ReadError::Inconsistent(_)), "{to}: {error}");
    }
    let witness = String::from_utf8(saved("witness")).unwrap();
    let sample = r#""_copy_to_iter": 15"#;
    assert!(witness.contains(sample), "{sample} is in the recording");
    let error = Recording::from_json(witness.replace(sample, r#""_copy_to_iter": 16"#).as_bytes());
    assert!(
        matches!(error, Err(ReadError::Inconsistent(_))),
        "{error:?}"
    );
    let hostile = String::from_utf8(saved("hostile")).unwrap();
    for (from, to) in [
        (r#""name_bytes": "2f"#, r#""name_bytes": "2e"#),
        (r#""name_bytes": "2f"#, r#""name_bytes": "+f"#),
        (r#""name_bytes": "2f"#, r#""name_bytes": "2"#),
        (r#""command_bytes": ["#, r#""command_bytes": ["00", "#),
    ] {
        assert!(hostile.contains(from), "{from} is in the recording");
        let error = Recording::from_json(hostile.replace(from, to).as_bytes()).unwrap_err();
        assert!(matches!(error, ReadError::Malformed(_)), "{to}: {error}");
    }
    let stacks = String::from_utf8(saved("stacks")).unwrap();
    for (from, to, why) in [
        (
            r#""value": 237,"#,
            r#""value": 238,"#,
            "the stacks of copied_to_user_bytes on exec add up to 392, the rows to 391",
        ),
        (
            r#""process": 1, "path": "read", "measure""#,
            r#""process": 9, "path": "read", "measure""#,
            "a stack names process 9, which is not listed",
        ),
        (
            r#""sources": [null, "#,
            r#""sources": ["#,
            "a stack has more or fewer places in the source than frames",
        ),
        (
            r#""stretches": 25"#,
            r#""stretches": 24"#,
            "the timeline has 24 stretches, but operations of read has 25",
        ),
        (
            r#""file": 0, "width_bytes""#,
            r#""file": 9, "width_bytes""#,
            "a heat map names file 9, which is not listed",
        ),
    ] {
        assert!(stacks.contains(from), "{from} is in the recording");
        match Recording::from_json(stacks.replacen(from, to, 1).as_bytes()) {
            Err(ReadError::Inconsistent(found)) => assert_eq!(found, why),
            other => panic!("{to}: {other:?}"),
        }
    }
    assert!(matches!(
        altered(r#""path": "exec""#, r#""path": "warp""#),
        ReadError::Malformed(_)
    ));
}

#[test]
fn where_a_recording_is_damaged_is_told() {
    let whole = saved("stacks");
    // Any part of it, but for the line end that is its last byte.
    for length in (1..whole.len() - 1).step_by(97).chain([whole.len() - 2]) {
        let part = &whole[..length];
        let last = part.rsplit(|&byte| byte == b'\n').next().unwrap();
        let lines = part.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let error = Recording::from_json(part).unwrap_err();
        let told = matches!(error, ReadError::CutOff { line, column } if line == lines && column == last.len());
        assert!(
            told,
            "after {length} bytes, {lines}:{}: {error}",
            last.len()
        );
    }
    for nothing in [&b""[..], b" \n"] {
        assert!(matches!(
            Recording::from_json(nothing),
            Err(ReadError::Empty)
        ));
    }
    let damaged = String::from_utf8(whole).unwrap();
    let damaged = damaged.replacen(r#""value": 237"#, r#""value": -237"#, 1);
    let error = Recording::from_json(damaged.as_bytes()).unwrap_err();
    let line = damaged
        .lines()
        .position(|line| line.contains("-237"))
        .unwrap()
        + 1;
    let place = format!("expected u64 at line {line} column 83");
    assert!(error.to_string().ends_with(&place), "{error}");
}

#[test]
fn older_and_newer_recordings_are_read() {
    let older = recording("small");
    assert!(older.stacks.is_empty() && older.heat_maps.is_empty());
    assert!(older.timeline.is_none() && older.stack_sampling.is_none());
    let newer = String::from_utf8(saved("stacks")).unwrap();
    let newer = newer.replace(r#""frames""#, r#""colour": [1], "frames""#);
    assert_eq!(
        Recording::from_json(newer.as_bytes()).unwrap(),
        recording("stacks")
    );
}

#[test]
fn equal_names_share_memory() {
    let recording = recording("stacks");
    let names: Vec<_> = recording
        .stacks
        .iter()
        .flat_map(|stack| &stack.frames)
        .collect();
    let of = |name: &str| {
        names
            .iter()
            .copied()
            .filter(|found| ***found == *name)
            .collect::<Vec<_>>()
    };
    let mains = of("main");
    assert_eq!(mains.len(), 25);
    assert!(mains.iter().all(|name| Arc::ptr_eq(name, mains[0])));
}

#[test]
fn the_documented_example_is_a_recording() {
    let document = include_str!("../../docs/recording.md");
    let example = document
        .split("```json\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("the document begins with an example");
    let recording = Recording::from_json(example.as_bytes()).unwrap();
    assert_eq!(recording.rows.len(), 1);
}
