//! The calibration that every run makes.

use mmtrace::recording::{AuditEntry, Backend, Recording};

use crate::{mmtrace_run, needs_tracing, text};

fn entry<'a>(recording: &'a Recording, check: &str) -> &'a AuditEntry {
    let found = recording.audit.iter().find(|entry| entry.check == check);
    found.unwrap_or_else(|| panic!("no {check:?} in {:?}", recording.audit))
}

#[test]
fn what_is_known_was_seen_or_a_reason_is_given() {
    needs_tracing!();
    let output = mmtrace_run()
        .args(["-q", "-o", "-", "--", "true"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let recording = Recording::from_json(&output.stdout).unwrap();
    for check in [
        "operations of a known read",
        "bytes returned of a known read",
        "minor faults of a known mmap",
        "major faults of a known mmap",
    ] {
        assert_eq!(entry(&recording, check).agree, Some(true), "{check}");
    }
    let mapped = entry(&recording, "mapped bytes of a known mmap");
    let seen = recording.probes.backend != Backend::Tracepoint;
    assert_eq!(mapped.agree, seen.then_some(true), "{mapped:?}");
    // Where mmtrace lies on no disk, there is none to read.
    let disk = entry(&recording, "disk read bytes of a known direct");
    match disk.agree {
        Some(agree) => assert!(agree && disk.ours == Some(12 << 10), "{disk:?}"),
        None => assert!(disk.note.is_some() && disk.ours.is_none(), "{disk:?}"),
    }
}
