//! What tables of a difference have in their lines.

use std::cmp::Reverse;

use crate::{
    recording::{Change, Changed, Measure, OnFile, OnStack, Unit},
    report::{
        text::Shown,
        units::{amount, count},
    },
};

/// Files, and stacks, that are shown at most.
pub(super) const MOST: usize = 20;

/// A line: what it is of, the measure, before, after, the difference and the ratio.
pub(super) type Line = [String; 6];

/// The headings.
pub(super) const HEADINGS: [&str; 6] = ["", "measure", "before", "after", "difference", "ratio"];

/// A change's figures; a dash for what is not known.
pub(super) fn line(of: String, measure: Measure, change: Change) -> Line {
    let unit = measure.unit();
    let figure = |value: Option<u64>| {
        value.map_or_else(|| "-".to_owned(), |value| amount(value, unit).to_string())
    };
    let difference = change.difference().map_or_else(
        || "-".to_owned(),
        |difference| {
            let size = u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX);
            let sign = match difference {
                ..0 => "-",
                0 => "",
                _ => "+",
            };
            format!("{sign}{}", amount(size, unit))
        },
    );
    let ratio = change.ratio().map_or_else(
        || "-".to_owned(),
        |ratio| match ratio {
            ..10.0 => format!("{ratio:.3}"),
            10.0..100.0 => format!("{ratio:.1}"),
            _ => count(ratio.round() as u64),
        },
    );
    [
        of,
        measure.label().to_owned(),
        figure(change.before),
        figure(change.after),
        difference,
        ratio,
    ]
}

/// The lines of one thing: its name in the first.
pub(super) fn lines(of: &str, changes: &[(Measure, Change)]) -> Vec<Line> {
    let mut name = of.to_owned();
    let changes = changes.iter();
    changes
        .map(|(measure, change)| line(std::mem::take(&mut name), *measure, *change))
        .collect()
}

/// A file's name and path, in at most `width` columns.
pub(super) fn file_name(file: &OnFile, width: usize) -> String {
    let path = file.path.name();
    let width = width.saturating_sub(path.len() + 2).max(8);
    let name = match &file.name {
        Some(name) => Shown::name(name).keep_end(width),
        None => Shown::prose(&format!("({})", file.place)).keep_start(width),
    };
    format!("{name}  {path}")
}

/// A stack's functions, the innermost first.
pub(super) fn stack_name(stack: &OnStack) -> String {
    let frames: Vec<&str> = stack.frames.iter().rev().map(|frame| &**frame).collect();
    Shown::prose(&format!("{}: {}", stack.path.name(), frames.join(" < "))).whole()
}

/// What differs most, of times not: these always differ a little.
pub(super) fn ranked<T>(all: &[Changed<T>]) -> Vec<(&T, Vec<(Measure, Change)>)> {
    let mut all: Vec<_> = all
        .iter()
        .map(|changed| {
            let mut changes = changed.changes.clone();
            changes.retain(|(measure, _)| measure.unit() != Unit::Nanoseconds);
            (&changed.of, changes)
        })
        .filter(|(_, changes)| !changes.is_empty())
        .collect();
    all.sort_by_key(|(_, changes)| Reverse(weight(changes)));
    all
}

/// How much differs: bytes first, then counts.
fn weight(changes: &[(Measure, Change)]) -> [u128; 2] {
    [Unit::Bytes, Unit::Count].map(|unit| {
        let of_unit = changes.iter().filter(|(measure, _)| measure.unit() == unit);
        let sizes = of_unit.map(|(_, change)| match change.difference() {
            Some(difference) => difference.unsigned_abs(),
            None => change.before.or(change.after).unwrap_or(0).into(),
        });
        sizes.max().unwrap_or(0)
    })
}
