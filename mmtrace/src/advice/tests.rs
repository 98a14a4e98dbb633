use super::*;
use crate::recording::{Device, Row};

const SMALL: &[u8] = include_bytes!("../../tests/recordings/small.json");
const MIB: u64 = 1 << 20;

/// What the rules say of a file with these rows of one process.
fn said(rows: &[(Path, Measures)]) -> Vec<(&'static str, String)> {
    let mut recording = Recording::from_json(SMALL).unwrap();
    let template = recording.files[0].clone();
    recording.files = vec![File {
        id: 7,
        name: Some("/data/a\x1bb".into()),
        device: Device { major: 8, minor: 1 },
        ..template
    }];
    let process = Some(recording.processes[0].id);
    recording.rows = rows
        .iter()
        .map(|(path, measures)| Row {
            process,
            file: Some(7),
            path: *path,
            measures: *measures,
        })
        .collect();
    let advice = advise(&recording);
    advice.into_iter().map(|it| (it.rule, it.says)).collect()
}

fn none() -> Vec<(&'static str, String)> {
    Vec::new()
}

fn only(rule: &'static str, says: &str) -> Vec<(&'static str, String)> {
    vec![(rule, format!("/data/a\\x1bb: {says}"))]
}

#[test]
fn readahead_that_is_not_used() {
    let mapped = |ahead, unused| {
        let measures = Measures {
            readahead_bytes: Some(ahead),
            readahead_unused_bytes: unused,
            ..Measures::default()
        };
        said(&[(Path::Mmap, measures)])
    };
    assert_eq!(
        mapped(16 * MIB, Some(15 * MIB)),
        only(
            "unused-readahead",
            "of 16.0 MiB read ahead for its mapping, 15.0 MiB (93.8 %) were never used. If it is \
             read in random order, madvise(MADV_RANDOM) reads what is touched alone"
        )
    );
    assert_eq!(mapped(16 * MIB, Some(8 * MIB)).len(), 1);
    assert_eq!(mapped(16 * MIB, Some(8 * MIB - 1)), none());
    assert_eq!(mapped(MIB, Some(MIB - 1)), none());
    // Not measured is not unused.
    assert_eq!(mapped(16 * MIB, None), none());
}

#[test]
fn reads_that_are_small_and_many() {
    let read = |operations, returned| {
        let measures = Measures {
            operations: Some(operations),
            bytes_returned: returned,
            ..Measures::default()
        };
        said(&[(Path::Read, measures)])
    };
    assert_eq!(
        read(262_144, Some(16 * MIB)),
        only(
            "small-reads",
            "262,144 reads returned 64 B each on average. With a buffer of 64.0 KiB, 256 would do"
        )
    );
    assert_eq!(read(10_000, Some(10_000)).len(), 1);
    assert_eq!(read(9_999, Some(9_999)), none());
    assert_eq!(read(10_000, Some(10_000 * 4_095)).len(), 1);
    assert_eq!(read(10_000, Some(10_000 * 4_096)), none());
    // Looking for what is not there yet, as `tail -f` does: a larger buffer changes nothing.
    assert_eq!(read(10_000, Some(0)), none());
    assert_eq!(read(10_000, None), none());
}

#[test]
fn major_faults_for_a_page_each() {
    let mapped = |faults, disk| {
        let measures = Measures {
            major_faults: Some(faults),
            disk_read_bytes: disk,
            ..Measures::default()
        };
        said(&[(Path::Mmap, measures)])
    };
    assert_eq!(
        mapped(1_000, Some(1_000 * 4_096)),
        only(
            "page-by-page",
            "1,000 faults on its mapping waited for the disk, for 4,096 B each. If they go forward, \
             MADV_SEQUENTIAL (and no MADV_RANDOM) reads more at a time; MADV_WILLNEED or \
             MAP_POPULATE reads in advance"
        )
    );
    assert_eq!(mapped(256, Some(256 * 8_192)).len(), 1);
    assert_eq!(mapped(255, Some(255 * 4_096)), none());
    assert_eq!(mapped(256, Some(256 * 8_193)), none());
    assert_eq!(mapped(256, Some(0)), none());
    assert_eq!(mapped(256, None), none());
}

#[test]
fn copies_of_a_private_mapping() {
    let on = |path, copied| {
        let measures = Measures {
            copied_in_kernel_bytes: copied,
            ..Measures::default()
        };
        said(&[(path, measures)])
    };
    assert_eq!(
        on(Path::Mmap, Some(16 * MIB)),
        only(
            "private-writes",
            "the kernel copied 16.0 MiB of its private mapping when it was written. MAP_SHARED \
             copies nothing, if the file may be changed; read() copies once, without a fault for \
             each page"
        )
    );
    assert_eq!(on(Path::Mmap, Some(MIB)).len(), 1);
    assert_eq!(on(Path::Mmap, Some(MIB - 1)), none());
    // A program's own data: its loader asks for it.
    assert_eq!(on(Path::Exec, Some(16 * MIB)), none());
    assert_eq!(on(Path::Mmap, None), none());
}

#[test]
fn a_file_that_is_read_and_mapped() {
    let both = |returned, mapped, faults| {
        let read = Measures {
            bytes_returned: Some(returned),
            ..Measures::default()
        };
        let mapping = Measures {
            mapped_bytes: mapped,
            minor_faults: faults,
            major_faults: Some(0),
            ..Measures::default()
        };
        said(&[(Path::Read, read), (Path::Mmap, mapping)])
    };
    assert_eq!(
        both(16 * MIB, Some(2 * MIB), Some(1)),
        only(
            "both-ways",
            "the same process read 16.0 MiB of it by calls and saw 2.0 MiB of it through a mapping. \
             What is mapped need not be read"
        )
    );
    assert_eq!(
        both(16 * MIB, None, Some(1_024)),
        only(
            "both-ways",
            "the same process read 16.0 MiB of it by calls and saw at least 4.0 MiB of it through a \
             mapping. What is mapped need not be read"
        )
    );
    assert_eq!(both(MIB - 1, Some(2 * MIB), Some(1)), none());
    assert_eq!(both(MIB, Some(MIB - 1), Some(1_024)), none());
    assert_eq!(both(MIB, None, Some(255)), none());
    assert_eq!(both(MIB, None, None), none());
}

#[test]
fn what_concerns_most_comes_first_and_rules_have_names_of_their_own() {
    let read = Measures {
        operations: Some(10_000),
        bytes_returned: Some(10_000_000),
        ..Measures::default()
    };
    let mapping = Measures {
        copied_in_kernel_bytes: Some(64 * MIB),
        ..Measures::default()
    };
    let all = said(&[(Path::Read, read), (Path::Mmap, mapping)]);
    let rules: Vec<_> = all.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(rules, ["private-writes", "small-reads"]);
    for (index, rule) in RULES.iter().enumerate() {
        assert!(RULES[..index].iter().all(|other| other.name != rule.name));
    }
}
