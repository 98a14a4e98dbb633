//! What holds of every recording, whatever was traced.

use std::{collections::BTreeMap, ops::RangeInclusive};

use crate::{
    check::PATHS,
    files::page_size,
    needs::kernel_is,
    recording::{Measures, Recording},
    tracer::copies_can_be_watched,
    truth::End,
};

/// What a recording must say.
pub(crate) struct Expected<'a> {
    /// How the command ended.
    pub(crate) end: End,
    /// What was lost, and how much of it; nothing else may be.
    pub(crate) lost: Vec<(&'a str, RangeInclusive<u64>)>,
    /// The backend that was used.
    pub(crate) backend: &'a str,
    /// How copies were found.
    pub(crate) copies: &'a str,
}

/// Everything that is wrong with a recording.
pub(crate) fn violations(recording: &Recording, expected: &Expected<'_>) -> Vec<String> {
    let &Expected {
        end,
        ref lost,
        backend,
        copies,
    } = expected;
    let mut wrong = Vec::new();
    if recording.backend() != backend {
        wrong.push(format!(
            "backend: recorded {}, asked for {backend}",
            recording.backend()
        ));
    }
    let target = &recording.target;
    let recorded_end = match (target.exit_code, target.signal) {
        (Some(status), None) => Some(End::Exit(status)),
        (None, Some(signal)) => Some(End::Signal(signal)),
        _ => None,
    };
    if recorded_end != Some(end) {
        wrong.push(format!(
            "the target's end: recorded {recorded_end:?}, was {end:?}"
        ));
    }
    let processes = recording.all_processes().len() as u64;
    if target.processes != processes {
        wrong.push(format!(
            "processes: target says {}, listed are {processes}",
            target.processes
        ));
    }
    let mut unexpected = recording.lost.clone();
    for (what, expected) in lost {
        let count = unexpected.remove(*what).unwrap_or(0);
        if !expected.contains(&count) {
            wrong.push(format!("lost: {count} {what}, must be {expected:?}"));
        }
    }
    for (what, count) in &unexpected {
        if *count != 0 {
            wrong.push(format!("lost: {count} {what}"));
        }
    }
    for known in KNOWN {
        wrong.extend(calibration(recording, backend, known));
    }
    if recording.copies() != copies {
        let found = recording.copies();
        wrong.push(format!("copies: recorded {found}, must be {copies}"));
    }
    wrong.extend(unwatched(recording));
    wrong.extend(calls(recording));
    wrong.extend(sums(recording));
    wrong.extend(timeline(recording));
    wrong.extend(heat_maps(recording));
    wrong
}

/// What is wrong with a recording's audit. Where disk reads are `unseen`, its checks of these, and
/// no others, must disagree.
pub(crate) fn wrong_audit(recording: &Recording, unseen: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    if recording.audit.is_empty() {
        wrong.push("the audit is empty".into());
    }
    for entry in &recording.audit {
        let of_disk = ["disk bytes", "block input"]
            .iter()
            .any(|what| entry.check.starts_with(what));
        let expected = !(unseen && of_disk);
        if entry.agree == Some(!expected) {
            wrong.push(format!(
                "audit, {}: ours {:?}, theirs {:?}",
                entry.check, entry.ours, entry.theirs
            ));
        }
        if entry.agree.is_none() && entry.note.is_none() {
            wrong.push(format!(
                "audit, {}: does not apply, and no reason",
                entry.check
            ));
        }
    }
    wrong
}

/// What the calibration, which every run makes, must have found.
const KNOWN: [&str; 2] = [
    "mapped bytes of a known mmap",
    "bytes copied in kernel of a known mmap",
];

fn calibration(recording: &Recording, backend: &str, known: &str) -> Option<String> {
    let found = recording.audit.iter().find(|entry| entry.check == known);
    let agree = found.and_then(|entry| entry.agree);
    // Tracepoints do not see what is mapped, nor what is copied.
    let expected = (backend != "tracepoint").then_some(true);
    (found.is_none() || agree != expected)
        .then(|| format!("audit, {known}: {found:?}, must be {expected:?}"))
}

/// How copies are found here.
pub(crate) fn copies_here() -> &'static str {
    if copies_can_be_watched() {
        "exact"
    } else {
        "returns"
    }
}

/// Which of the bytes that every run watches the audit does not mention. That they are as they must
/// be, the audit says.
fn unwatched(recording: &Recording) -> Vec<String> {
    let checks: Vec<_> = ["read", "read file", "mapped page"]
        .map(|what| format!("bytes copied to the watched byte of a {what}"))
        .into();
    let having = |check: &String| recording.audit.iter().find(|entry| entry.check == *check);
    // Where no watchpoint can be had, there is one entry that says so.
    if having(&checks[0]).is_some_and(|entry| entry.agree.is_none()) {
        return Vec::new();
    }
    let missing = checks.iter().filter(|check| having(check).is_none());
    missing.map(|check| format!("audit: no {check}")).collect()
}

/// The program that observes calls here.
pub(crate) fn program_of_calls() -> &'static str {
    if kernel_is([7, 0]) {
        "sys_enter_event"
    } else if kernel_is([6, 2]) {
        "sys_enter_in_place"
    } else {
        "sys_enter"
    }
}

/// Whether calls are observed by the cheaper program where the kernel takes it: if it did not, the
/// other one would be there without a word.
fn calls(recording: &Recording) -> Option<String> {
    let expected = program_of_calls();
    let hooks = recording.hooks();
    let mut programs = hooks
        .iter()
        .filter(|hook| hook.name.ends_with("sys_enter"))
        .map(|hook| hook.program.as_str());
    let program = programs.next().unwrap_or("none");
    (program != expected).then(|| format!("sys_enter: observed by {program}, must be {expected}"))
}

/// Where the timeline does not add up to the totals.
fn timeline(recording: &Recording) -> Vec<String> {
    let Some(timeline) = &recording.timeline else {
        return vec!["there is no timeline".into()];
    };
    if recording.lost.contains_key("timeline") {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for (path, measures) in &timeline.paths {
        for (measure, values) in measures {
            let total = recording
                .totals
                .get(path)
                .and_then(|total| total.get(measure));
            let total = total.copied().flatten();
            let sum = values
                .iter()
                .fold(0, |sum: u64, value| sum.saturating_add(*value));
            if total != Some(sum) {
                wrong.push(format!(
                    "{measure} on {path}: the total is {total:?}, over time it adds up to {sum}"
                ));
            }
        }
    }
    wrong
}

/// Where a file's heat map does not add up to its rows.
fn heat_maps(recording: &Recording) -> Vec<String> {
    let complete = !recording.lost.contains_key("heat_maps");
    let mut wrong = Vec::new();
    for map in &recording.heat_maps {
        let of_rows = |measures: &[&str], ignored: &[&str]| -> u64 {
            let rows = recording.rows.iter();
            rows.filter(|row| row.file == Some(map.file) && !ignored.contains(&row.path.as_str()))
                .flat_map(|row| measures.iter().map(|name| row.measures.get(*name)))
                .map(|value| value.copied().flatten().unwrap_or(0))
                .sum()
        };
        // What calls on these paths return is at no offset of a file.
        let returned = of_rows(&["bytes_returned"], &["ipc", "other"]);
        let faults = of_rows(&["minor_faults", "major_faults"], &[]);
        let filled = of_rows(&["cache_filled_bytes"], &[]);
        let unused = of_rows(&["readahead_unused_bytes"], &[]);
        let unused_is_known = !recording.is_unavailable("readahead_unused_bytes", "read");
        let mut cells = [0; 4];
        for cell in &map.cells {
            let unused = cell.readahead_unused_bytes;
            if unused.is_some() != unused_is_known
                || (complete && unused.unwrap_or(0) > cell.cache_filled_bytes)
            {
                wrong.push(format!(
                    "a cell of the heat map of file {} has {unused:?} of {} bytes unused",
                    map.file, cell.cache_filled_bytes
                ));
            }
            cells[3] += unused.unwrap_or(0);
            cells[0] += cell.returned_bytes;
            cells[1] += cell.faulted_bytes;
            cells[2] += cell.cache_filled_bytes;
        }
        let rows = [returned, faults * page_size(), filled, unused];
        let fits = |(cells, rows): (&u64, &u64)| cells == rows || (cells < rows && !complete);
        if !cells.iter().zip(&rows).all(fits) {
            wrong.push(format!(
                "the heat map of file {}: returned, faulted, filled and unused are {cells:?}, its rows have {rows:?}",
                map.file
            ));
        }
    }
    wrong
}

/// Where the rows do not add up to the totals.
fn sums(recording: &Recording) -> Vec<String> {
    let mut added: BTreeMap<&str, Measures> = BTreeMap::new();
    let mut wrong = Vec::new();
    for row in &recording.rows {
        if !PATHS.contains(&row.path.as_str()) {
            wrong.push(format!("a row is on path {:?}, which is none", row.path));
        }
        let total = added.entry(&row.path).or_default();
        for (measure, value) in &row.measures {
            let sum = total.entry(measure.clone()).or_default();
            // A sum is null only when all of its parts are, and stops at the largest number: some
            // programs ask for as much as can be asked for.
            *sum = match (*sum, *value) {
                (Some(sum), Some(value)) => Some(sum.saturating_add(value)),
                (sum, value) => sum.or(value),
            };
        }
    }
    for (path, measures) in added {
        let Some(total) = recording.totals.get(path) else {
            wrong.push(format!("totals lack path {path}, which rows have"));
            continue;
        };
        for (measure, sum) in measures {
            let total = total.get(&measure).copied().flatten();
            if total != sum {
                wrong.push(format!(
                    "{measure} on {path}: the total is {total:?}, its rows add up to {sum:?}"
                ));
            }
        }
    }
    for (path, total) in &recording.totals {
        if recording.rows.iter().any(|row| row.path == *path) {
            continue;
        }
        if let Some((measure, value)) = total.iter().find(|(_, value)| value.unwrap_or(0) != 0) {
            wrong.push(format!(
                "{measure} on {path}: the total is {value:?}, but no row is on that path"
            ));
        }
    }
    wrong
}
