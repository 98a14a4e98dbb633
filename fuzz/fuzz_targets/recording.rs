//! Whatever a file has in it, reading it and showing it do not panic.

#![no_main]

use std::{
    collections::{BTreeMap, HashSet},
    io,
};

use libfuzzer_sys::fuzz_target;
use mmtrace::{
    output::Format as _,
    recording::{Measure, MeasureSet, Measured, Recording, Totals},
    report::{
        flamegraph::{self, Direction},
        format::Format,
        quantity::Quantity,
        table,
    },
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(recording) = Recording::from_json(bytes) {
        show(&recording);
    } else if let Ok(recording) = serde_json::from_slice::<Recording>(bytes) {
        // Numbers that do not add up keep almost all inputs from what comes after the reading.
        let recording = repaired(recording);
        if recording.check().is_ok() {
            show(&recording);
        }
    }
});

fn show(recording: &Recording) {
    for width in [0, 80, 300] {
        let _ = table::render(recording, &table::Options::new(width, true));
    }
    for &format in Format::ALL {
        // Whether there is anything to show is another matter.
        let _ = format.write(recording, None, &mut io::sink());
    }
    for quantity in Quantity::ALL {
        let _ = Format::Svg.write(recording, Some(quantity), &mut io::sink());
    }
    for direction in [Direction::Forwards, Direction::Backwards] {
        let quantity = Quantity::Disk;
        let _ =
            flamegraph::differential(recording, recording, quantity, direction, &mut io::sink());
    }
}

/// Makes the sums right, and leaves out what names nothing.
fn repaired(mut recording: Recording) -> Recording {
    let mut processes = HashSet::new();
    recording
        .processes
        .retain(|process| processes.insert(process.id));
    let known = |id: Option<u32>| id.is_none_or(|id| processes.contains(&id));
    recording.processes.retain(|process| known(process.parent));
    let processes: HashSet<_> = recording
        .processes
        .iter()
        .map(|process| process.id)
        .collect();
    let known = |id: Option<u32>| id.is_none_or(|id| processes.contains(&id));
    let mut files = HashSet::new();
    recording.files.retain(|file| files.insert(file.id));
    recording
        .rows
        .retain(|row| known(row.process) && row.file.is_none_or(|id| files.contains(&id)));
    recording.heat_maps.retain(|map| files.contains(&map.file));
    recording.stacks.retain(|stack| known(stack.process));

    let mut measured = Measured::default();
    for row in &recording.rows {
        let has = Measure::ALL
            .into_iter()
            .filter(|&measure| row.measures.get(measure).is_some());
        measured.set(row.path, MeasureSet::of(&has.collect::<Vec<_>>()));
    }
    for row in &mut recording.rows {
        for measure in Measure::ALL {
            let value = row.measures.get(measure).unwrap_or(0);
            let is_measured = measured.on(row.path).contains(measure);
            row.measures.set(measure, is_measured.then_some(value));
        }
    }
    recording.totals = Totals::of(&recording.rows, &measured);

    let mut left: BTreeMap<_, u64> = BTreeMap::new();
    for row in &recording.rows {
        for measure in Measure::ALL {
            if let Some(value) = row.measures.get(measure) {
                let sum = left.entry((row.process, row.path, measure)).or_default();
                *sum = sum.saturating_add(value);
            }
        }
    }
    recording.stacks.retain_mut(|stack| {
        stack.sources.truncate(stack.frames.len());
        if stack.sources.len() < stack.frames.len() {
            stack.sources.clear();
        }
        match left.get_mut(&(stack.process, stack.path, stack.measure)) {
            Some(left) => {
                stack.value = stack.value.min(*left);
                *left -= stack.value;
                true
            }
            None => false,
        }
    });
    // The last stack of each kind has what is left.
    for stack in recording.stacks.iter_mut().rev() {
        let left = left.get_mut(&(stack.process, stack.path, stack.measure));
        stack.value += left.map_or(0, std::mem::take);
    }
    recording
}
