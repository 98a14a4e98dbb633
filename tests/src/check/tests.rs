//! Recordings that are wrong in one way each, and are seen to be.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::{
    invariants::{self, Expected},
    truth::{End, Faults},
};

const FILE: &str = "/data/big";

/// A recording in which everything is right: 3 reads of a file by process 1, a child of process 0,
/// and a fault on another file by its child, process 2.
fn right() -> Value {
    let row = |process: u64, file: Option<u64>, path: &str, figures: [u64; 4]| {
        json!({
            "process": process, "file": file, "path": path,
            "operations": figures[0], "bytes_returned": figures[1],
            "minor_faults": figures[2], "major_faults": 0, "disk_read_bytes": figures[3],
            "mapped_bytes": null,
        })
    };
    json!({
        "schema": "mmtrace.recording/1",
        "target": {"exit_code": 3, "processes": 3},
        "probes": {"backend": "tracepoint", "copies": invariants::copies_here(),
          "hooks": [{
            "purpose": "calls", "kind": "raw_tracepoint", "name": "sys_enter", "hits": 3,
            "program": invariants::program_of_calls(),
          }],
          "unavailable": [{
            "purpose": "mapped_bytes", "reason": "no such tracepoint",
            "measures": ["mapped_bytes"], "paths": [],
        }]},
        "lost": {},
        "audit": [
            {"check": "faults", "ours": 7, "theirs": 7, "agree": true},
            {"check": "mapped bytes of a known mmap", "ours": null, "theirs": 4096, "agree": null,
             "note": "not measured in this run"},
            {"check": "bytes copied in kernel of a known mmap", "ours": null, "theirs": 4096,
             "agree": null, "note": "not measured in this run"},
            {"check": "bytes copied to the watched byte of a read", "ours": null, "theirs": 1,
             "agree": null, "note": "no watchpoint"},
        ],
        "totals": {
            "read": {
                "operations": 3, "bytes_returned": 1511, "minor_faults": 0, "major_faults": 0,
                "disk_read_bytes": 4096, "mapped_bytes": null,
            },
            "mmap": {
                "operations": 0, "bytes_returned": 0, "minor_faults": 7, "major_faults": 0,
                "disk_read_bytes": 0, "mapped_bytes": null,
            },
        },
        "files": [
            {"id": 4, "name": FILE},
            {"id": 5, "name": "/data/\u{fffd}", "name_bytes": "2f646174612fff"},
        ],
        "processes": [
            {"id": 0, "pid": 100, "parent": null},
            {"id": 1, "pid": 101, "parent": 0},
            {"id": 2, "pid": 102, "parent": 1},
        ],
        "rows": [
            row(1, Some(4), "read", [3, 1_511, 0, 4_096]),
            row(2, Some(5), "mmap", [0, 0, 7, 0]),
        ],
        "timeline": {
            "width_ns": 65_536, "stretches": 2,
            "paths": {"read": {"bytes_returned": [1_000, 511]}, "mmap": {"minor_faults": [7, 0]}},
        },
    })
}

fn parse(json: &Value) -> Recording {
    Recording::parse(json.to_string().as_bytes()).expect("the recording has every key")
}

fn violations(json: &Value) -> Vec<String> {
    let recording = parse(json);
    let expected = Expected {
        end: End::Exit(3),
        lost: Vec::new(),
        backend: "tracepoint",
        copies: invariants::copies_here(),
    };
    let mut wrong = invariants::violations(&recording, &expected);
    wrong.extend(invariants::wrong_audit(&recording, false));
    wrong
}

/// The verdict on `json` of a check of process 101 and its children.
fn verdict(json: &Value, check: impl Fn(&mut Check<'_>)) -> Verdict {
    let recording = parse(json);
    let mut all = Check::new(&recording, recording.tree(101));
    check(&mut all);
    all.verdict()
}

fn failures(json: &Value, check: impl Fn(&mut Check<'_>)) -> Vec<String> {
    match verdict(json, check) {
        Verdict::Failed(reasons) => reasons,
        other => panic!("not failed: {other:?}"),
    }
}

/// What a case would require of the right recording.
fn require(check: &mut Check<'_>) {
    let read = on(Path::new(FILE), "read");
    check.equal(&read, "operations", 3);
    check.equal(&read, "bytes_returned", 1_511);
    check.equal(&read, "disk_read_bytes", 4_096);
    check.faults(&all_of(Path::new(FILE)), 0);
    check.equal(&not_on(Path::new(FILE), "read"), "operations", 0);
    check.each_process(&read, "operations", 3, 1);
    check.process_count(2);
    check.is_named(Path::new(FILE));
    let kernel = KernelTruth {
        pid: 101,
        end: End::Exit(3),
        faults: Faults { minor: 7, major: 0 },
        disk_read_bytes: Some(4_096),
    };
    check.kernel_agrees(&kernel, false);
}

#[test]
fn an_audit_must_tell_of_unseen_disk_reads() {
    let mut json = right();
    assert_eq!(
        invariants::wrong_audit(&parse(&json), true),
        Vec::<String>::new(),
        "a check of faults agrees as ever"
    );
    json["audit"][0]["check"] = "disk bytes against threads".into();
    assert!(!invariants::wrong_audit(&parse(&json), true).is_empty());
    json["audit"][0]["agree"] = false.into();
    assert!(invariants::wrong_audit(&parse(&json), true).is_empty());
}

#[test]
fn what_is_right_passes() {
    assert_eq!(violations(&right()), Vec::<String>::new());
    assert_eq!(verdict(&right(), require), Verdict::Passed);
}

#[test]
fn each_wrong_figure_fails_with_both_numbers() {
    for (measure, wrong, must_be) in [
        ("operations", 4, "3"),
        ("bytes_returned", 1_510, "1511"),
        ("disk_read_bytes", 0, "4096"),
        ("minor_faults", 1, "0 in all"),
    ] {
        let mut json = right();
        json["rows"][0][measure] = json!(wrong);
        let reasons = failures(&json, require).join("; ");
        assert!(
            reasons.contains(&format!("recorded {wrong}")) && reasons.contains(must_be),
            "{measure}: {reasons}"
        );
        assert!(!violations(&json).is_empty(), "{measure} against its total");
    }
}

#[test]
fn a_row_on_another_path_or_file_or_process_fails() {
    for (key, value) in [
        ("path", json!("mmap")),
        ("file", json!(5)),
        ("file", json!(null)),
        ("process", json!(0)),
        ("process", json!(null)),
        ("process", json!(2)),
    ] {
        let mut json = right();
        json["rows"][0][key] = value.clone();
        // One process has the rows, as before, when it is merely the wrong one.
        if value != json!(2) {
            failures(&json, require);
        }
    }
}

#[test]
fn a_row_too_many_fails() {
    let mut json = right();
    let mut row = json["rows"][0].clone();
    row["process"] = json!(2);
    json["rows"].as_array_mut().expect("rows").push(row);
    failures(&json, require);
    assert!(!violations(&json).is_empty());
}

#[test]
fn another_name_fails() {
    let mut json = right();
    json["files"][0]["name"] = json!("/data/other");
    failures(&json, require);
}

#[test]
fn a_process_missing_from_the_tree_fails() {
    let mut json = right();
    json["processes"][2]["parent"] = json!(0);
    failures(&json, require);
}

#[test]
fn names_are_bytes() {
    use std::os::unix::ffi::OsStrExt as _;
    let name = Path::new(std::ffi::OsStr::from_bytes(b"/data/\xff"));
    let named = |check: &mut Check<'_>| check.equal(&on(name, "mmap"), "minor_faults", 7);
    assert_eq!(verdict(&right(), named), Verdict::Passed);
    // The text alone is not the name.
    failures(&right(), |check| {
        check.is_named(Path::new("/data/\u{fffd}"))
    });
}

#[test]
fn null_is_skipped_with_its_reason_and_never_passes() {
    let reason = Verdict::Skipped("mapped_bytes: no such tracepoint".into());
    let mapped = on(Path::new(FILE), "mmap");
    // There is no such row, but its lack says nothing.
    let zero = |check: &mut Check<'_>| check.equal(&mapped, "mapped_bytes", 0);
    assert_eq!(verdict(&right(), zero), reason);

    let mut json = right();
    json["rows"][0]["bytes_returned"] = json!(null);
    let read = on(Path::new(FILE), "read");
    let returned = |check: &mut Check<'_>| check.equal(&read, "bytes_returned", 1_511);
    assert_eq!(
        verdict(&json, returned),
        Verdict::Skipped("bytes_returned on read is null, for no reason given".into())
    );
    // A wrong figure beside it still fails.
    json["rows"][0]["operations"] = json!(2);
    assert_eq!(failures(&json, require).len(), 2);
}

#[test]
fn figures_are_told_process_by_process() {
    let all = all_of(Path::new(FILE));
    for (measure, expected, verdict_must_be) in [
        // Process 2 has no row of the file.
        ("operations", Some(vec![3, 0]), Verdict::Passed),
        (
            "mapped_bytes",
            None,
            Verdict::Skipped("mapped_bytes: no such tracepoint".into()),
        ),
    ] {
        let verdict = verdict(&right(), |check| {
            let figures = check.by_process(&all, measure);
            check.that(figures == expected, || format!("{figures:?}"));
        });
        assert_eq!(verdict, verdict_must_be);
    }
}

#[test]
fn a_missing_key_fails() {
    let mut json = right();
    json["rows"][0]
        .as_object_mut()
        .expect("a row")
        .remove("operations");
    failures(&json, require);
}

#[test]
fn a_case_that_compares_nothing_fails() {
    failures(&right(), |_| ());
}

#[test]
fn bounds_are_kept() {
    let read = on(Path::new(FILE), "read");
    let within = |check: &mut Check<'_>| {
        check.at_least(&read, "bytes_returned", 1_511);
        check.some_faults(&all_on("mmap"));
    };
    assert_eq!(verdict(&right(), within), Verdict::Passed);
    failures(&right(), |check| {
        check.at_least(&read, "bytes_returned", 1_512)
    });
    failures(&right(), |check| check.some_faults(&read));
}

#[test]
fn each_broken_invariant_is_seen() {
    let breakages: [(&str, Value); 15] = [
        ("/lost", json!({"rows": 1})),
        ("/audit", json!([])),
        ("/audit/0/agree", json!(false)),
        ("/audit/1/note", json!(null)),
        ("/audit/1/check", json!("another")),
        ("/audit/2/agree", json!(true)),
        ("/target/exit_code", json!(0)),
        ("/target/processes", json!(2)),
        ("/probes/backend", json!("kprobe")),
        ("/probes/copies", json!("sampled")),
        ("/totals/read/bytes_returned", json!(1_512)),
        ("/totals/read/operations", json!(null)),
        ("/rows/1/path", json!("mapped")),
        ("/timeline", json!(null)),
        ("/timeline/paths/read/bytes_returned/1", json!(512)),
    ];
    for (pointer, value) in breakages {
        let mut json = right();
        *json.pointer_mut(pointer).expect("the recording has it") = value;
        assert!(!violations(&json).is_empty(), "{pointer}");
    }
    let mut json = right();
    json["totals"]["swap"] = json!({"operations": 1});
    assert!(!violations(&json).is_empty(), "a total without rows");
    json["totals"]["swap"] = json!({"operations": 0});
    assert!(violations(&json).is_empty(), "a total of nothing");
}

#[test]
fn another_schema_is_refused() {
    let mut json = right();
    json["schema"] = json!("mmtrace.recording/2");
    assert!(Recording::parse(json.to_string().as_bytes()).is_err());
}
