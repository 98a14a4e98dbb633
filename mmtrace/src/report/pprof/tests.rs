//! Profiles of saved recordings, read back.

use std::{collections::HashSet, io::Read as _};

use flate2::read::GzDecoder;

use super::*;

const STACKS: &[u8] = include_bytes!("../../../tests/recordings/stacks.json");
const HOSTILE: &[u8] = include_bytes!("../../../tests/recordings/stacks-hostile.json");
const LARGE: &[u8] = include_bytes!("../../../tests/recordings/stacks-large.json");

fn recording(json: &[u8]) -> Recording {
    Recording::from_json(json).unwrap()
}

fn profile(recording: &Recording) -> Profile {
    let mut compressed = Vec::new();
    write(recording, &mut compressed).unwrap();
    let mut bytes = Vec::new();
    let mut decoder = GzDecoder::new(&compressed[..]);
    decoder.read_to_end(&mut bytes).unwrap();
    Profile::decode(&bytes[..]).unwrap()
}

fn text(profile: &Profile, number: i64) -> &str {
    &profile.string_table[usize::try_from(number).unwrap()]
}

#[test]
fn values_add_up_to_the_totals() {
    for json in [STACKS, HOSTILE, LARGE] {
        let recording = recording(json);
        let profile = profile(&recording);
        let totals = recording.totals.all_paths();
        let types: Vec<_> = profile
            .sample_type
            .iter()
            .map(|kind| text(&profile, kind.r#type))
            .collect();
        let measures = Measure::ALL.into_iter();
        let with_stacks: Vec<_> = measures
            .filter(|measure| {
                recording
                    .stacks
                    .iter()
                    .any(|stack| stack.measure == *measure)
            })
            .collect();
        assert_eq!(
            types,
            with_stacks
                .iter()
                .map(|measure| measure.name())
                .collect::<Vec<_>>()
        );
        for (column, &measure) in with_stacks.iter().enumerate() {
            let sum: i64 = profile
                .sample
                .iter()
                .map(|sample| sample.value[column])
                .sum();
            assert_eq!(
                Some(sum.unsigned_abs()),
                totals.get(measure),
                "{}",
                measure.name()
            );
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    for json in [STACKS, HOSTILE, LARGE] {
        let profile = profile(&recording(json));
        assert_eq!(profile.string_table[0], "");
        assert_eq!(
            profile.string_table.iter().collect::<HashSet<_>>().len(),
            profile.string_table.len()
        );
        let ids = |ids: Vec<u64>| {
            assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
            ids.len() as u64
        };
        let functions = ids(profile
            .function
            .iter()
            .map(|function| function.id)
            .collect());
        let locations = ids(profile
            .location
            .iter()
            .map(|location| location.id)
            .collect());
        let mappings = ids(profile.mapping.iter().map(|mapping| mapping.id).collect());
        for function in &profile.function {
            text(&profile, function.filename);
            assert!(!text(&profile, function.name).is_empty());
        }
        for location in &profile.location {
            assert!((1..=mappings).contains(&location.mapping_id));
            assert!(!location.line.is_empty());
            let mut lines = location.line.iter();
            assert!(lines.all(|line| (1..=functions).contains(&line.function_id)));
        }
        for sample in &profile.sample {
            assert_eq!(sample.value.len(), profile.sample_type.len());
            let mut stack = sample.location_id.iter();
            assert!(stack.all(|location| (1..=locations).contains(location)));
        }
    }
}

#[test]
fn a_function_has_those_that_were_put_into_it() {
    let profile = profile(&recording(STACKS));
    let name = |line: &Line| {
        let function = &profile.function[usize::try_from(line.function_id).unwrap() - 1];
        let name = text(&profile, function.name);
        format!("{name} {}:{}", text(&profile, function.filename), line.line)
    };
    let groups = profile
        .location
        .iter()
        .filter(|location| location.line.len() > 1);
    let groups: Vec<_> = groups
        .map(|location| location.line.iter().map(name).collect::<Vec<_>>())
        .collect();
    assert_eq!(
        groups,
        [
            vec!["search::scan :0", "search::run :0"],
            vec![
                "search::scan src/scan.rs:77",
                "<alloc::vec::Vec<u8> as search::Fill>::fill src/fill.rs:12",
                "search::worker_loop src/search.rs:88",
            ],
        ]
    );
}

#[test]
fn samples_are_labelled_and_innermost_first() {
    let profile = profile(&recording(STACKS));
    let sample = &profile.sample[0];
    let labels: Vec<_> = sample
        .label
        .iter()
        .map(|label| {
            (
                text(&profile, label.key),
                text(&profile, label.str),
                label.num,
            )
        })
        .collect();
    let command = "search --half-mapped needle big.log";
    assert_eq!(
        labels,
        [
            ("path", "mmap", 0),
            ("process", command, 0),
            ("pid", "", 4711)
        ]
    );
    let name = |id: &u64| {
        let location = &profile.location[usize::try_from(*id).unwrap() - 1];
        let function = usize::try_from(location.line[0].function_id).unwrap() - 1;
        (
            text(&profile, profile.function[function].name),
            location.mapping_id,
        )
    };
    let first = name(&sample.location_id[0]);
    assert_eq!(first, ("filemap_map_pages", KERNEL));
    assert_eq!(
        name(sample.location_id.last().unwrap()),
        ("_start", PROGRAM)
    );
}

#[test]
fn nothing_in_a_profile_acts_on_a_terminal() {
    let profile = profile(&recording(HOSTILE));
    for text in &profile.string_table {
        assert_eq!(text.chars().find(|c| c.is_control()), None, "{text}");
    }
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let mut recording = recording(STACKS);
    recording.stacks[0].value = 1 << 63;
    let error = write(&recording, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}
