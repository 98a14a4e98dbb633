//! The data block of the page: what its script draws from, as JSON that no parser of HTML reads
//! anything into.

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{self, Write},
};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use super::{
    flames::{Flames, flames},
    useful::useful_bytes,
};
use crate::{
    recording::{File, HeatCell, HeatMap, Measure, Path, Recording, Row, Unit},
    report::{grid, reasons, table, text::Shown},
};

/// All that the script gets.
#[derive(Serialize)]
pub(super) struct Data {
    measures: Vec<Words>,
    /// Measures from the most to the least telling.
    telling: Vec<usize>,
    paths: Vec<&'static str>,
    /// For each path, which measures the run has of it: the others are null.
    known: Vec<Vec<usize>>,
    files: Files,
    processes: Processes,
    /// The process and the file, each its place in its list and 1, 0 for none; the path; then a
    /// measure and its value for all that are above 0.
    rows: Vec<Vec<u64>>,
    timeline: Option<Timeline>,
    heat_maps: Vec<Heat>,
    /// Why those with three sums for each cell lack the fourth.
    no_heat_unused: String,
    flames: Flames,
}

/// A measure's words, in the order of tables' columns.
#[derive(Serialize)]
struct Words {
    label: &'static str,
    heading: String,
    unit: &'static str,
    /// Whether its column is shown when nothing in it could be measured.
    expected: bool,
}

/// Files, a list for each of their properties.
#[derive(Default, Serialize)]
struct Files {
    names: Vec<String>,
    devices: Vec<String>,
    /// As text: a script's numbers lose digits of large ones.
    inodes: Vec<String>,
    sizes: Vec<Option<u64>>,
    file_systems: Vec<Option<String>>,
    /// Bytes that the program got of it; null if that is not known.
    useful: Vec<Option<u64>>,
    /// Whether that counts bytes that the program could touch, and perhaps did not.
    mapped: Vec<bool>,
}

/// Processes, the same.
#[derive(Default, Serialize)]
struct Processes {
    commands: Vec<String>,
    pids: Vec<u32>,
    /// The parent's place in the list.
    parents: Vec<Option<usize>>,
    starts_ns: Vec<u64>,
    ends_ns: Vec<Option<u64>>,
    /// Of the run.
    wall_time_ns: u64,
}

/// Sums over time.
#[derive(Serialize)]
struct Timeline {
    width_ns: u64,
    stretches: usize,
    /// What is 0 all the time has no values.
    series: Vec<Series>,
}

#[derive(Serialize)]
struct Series {
    path: usize,
    measure: usize,
    values: Vec<u64>,
}

/// A file's heat map.
#[derive(Serialize)]
struct Heat {
    /// The file's place in the list.
    file: usize,
    width_bytes: u64,
    width_ns: u64,
    /// How many sums each cell has: bytes by calls, by faults, into the cache and, if that is known,
    /// into it for nothing.
    sums: usize,
    /// For each cell its part, stretch and sums.
    cells: Vec<u64>,
}

/// Where a measure is in the list of measures.
fn column(measure: Measure) -> usize {
    let mut columns = grid::columns();
    columns
        .position(|(other, ..)| other == measure)
        .expect("every measure has a column")
}

impl Data {
    pub(super) fn of(recording: &Recording) -> Self {
        let places: HashMap<u32, usize> = recording
            .files
            .iter()
            .enumerate()
            .map(|(place, file)| (file.id, place))
            .collect();
        Self {
            measures: grid::columns().map(words).collect(),
            telling: grid::BY_WORTH.map(column).into(),
            paths: Path::ALL.map(Path::name).into(),
            known: recording
                .totals
                .iter()
                .map(|(_, totals)| {
                    let known = grid::columns().map(|(measure, ..)| totals.get(measure));
                    let known = known.enumerate().filter(|(_, value)| value.is_some());
                    known.map(|(place, _)| place).collect()
                })
                .collect(),
            files: files(recording, &places),
            processes: processes(recording),
            rows: rows(recording, &places),
            timeline: timeline(recording),
            heat_maps: recording
                .heat_maps
                .iter()
                .filter_map(|map| heat(map, *places.get(&map.file)?))
                .collect(),
            no_heat_unused: no_heat_unused(recording),
            flames: flames(recording),
        }
    }

    /// Writes it as JSON in which nothing is markup.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut serializer = serde_json::Serializer::with_formatter(out, Embedded);
        Ok(self.serialize(&mut serializer)?)
    }
}

fn words((measure, heading, expected): (Measure, [&'static str; 2], bool)) -> Words {
    Words {
        label: measure.label(),
        heading: heading.join(" ").trim_start().to_owned(),
        unit: match measure.unit() {
            Unit::Count => "count",
            Unit::Bytes => "bytes",
            Unit::Nanoseconds => "ns",
        },
        expected,
    }
}

fn files(recording: &Recording, places: &HashMap<u32, usize>) -> Files {
    let mut rows: Vec<Vec<&Row>> = vec![Vec::new(); recording.files.len()];
    for row in &recording.rows {
        if let Some(place) = row.file.and_then(|id| places.get(&id)) {
            rows[*place].push(row);
        }
    }
    let mut files = Files::default();
    for (file, rows) in recording.files.iter().zip(rows) {
        let File {
            id: _,
            name: _,
            device,
            inode,
            size,
            filesystem,
        } = file;
        let shown = table::file_name(file);
        files.names.push(shown.keep_start(usize::MAX));
        files.devices.push(device.to_string());
        files.inodes.push(inode.to_string());
        files.sizes.push(*size);
        let kind = filesystem.as_deref().map(Shown::prose);
        let kind = kind.map(|kind| kind.keep_start(usize::MAX));
        files.file_systems.push(kind);
        let useful = useful_bytes(&rows);
        files.useful.push(useful.map(|useful| useful.bytes));
        let mapped = useful.is_some_and(|useful| useful.mapped);
        files.mapped.push(mapped);
    }
    files
}

/// How much of a command is kept: the recording keeps about as much of most.
const COMMAND_WIDTH: usize = 2_000;

fn processes(recording: &Recording) -> Processes {
    let places: HashMap<u32, usize> = recording
        .processes
        .iter()
        .enumerate()
        .map(|(place, process)| (process.id, place))
        .collect();
    let shown = |command: &[OsString]| Shown::command(command).keep_start(COMMAND_WIDTH);
    let mut processes = Processes {
        wall_time_ns: recording.target.wall_time_ns,
        ..Processes::default()
    };
    for process in &recording.processes {
        processes.commands.push(shown(&process.command));
        processes.pids.push(process.pid);
        let parent = process.parent.and_then(|id| places.get(&id).copied());
        processes.parents.push(parent);
        processes.starts_ns.push(process.start_ns);
        processes.ends_ns.push(process.end_ns);
    }
    processes
}

fn rows(recording: &Recording, files: &HashMap<u32, usize>) -> Vec<Vec<u64>> {
    let processes: HashMap<u32, usize> = recording
        .processes
        .iter()
        .enumerate()
        .map(|(place, process)| (process.id, place))
        .collect();
    let place = |places: &HashMap<u32, usize>, id: Option<u32>| {
        let place = id.and_then(|id| places.get(&id));
        place.map_or(0, |&place| place as u64 + 1)
    };
    recording
        .rows
        .iter()
        .map(|row| {
            let mut numbers = vec![
                place(&processes, row.process),
                place(files, row.file),
                row.path as u64,
            ];
            for (column, (measure, ..)) in grid::columns().enumerate() {
                if let Some(value @ 1..) = row.measures.get(measure) {
                    numbers.extend([column as u64, value]);
                }
            }
            numbers
        })
        .collect()
}

fn timeline(recording: &Recording) -> Option<Timeline> {
    let timeline = recording.timeline.as_ref()?;
    let mut series = Vec::new();
    for path in Path::ALL {
        for (measure, ..) in grid::columns() {
            if let Some(values) = timeline.get(path, measure) {
                let worked = values.iter().any(|&value| value > 0);
                series.push(Series {
                    path: path as usize,
                    measure: column(measure),
                    values: if worked { values.into() } else { Vec::new() },
                });
            }
        }
    }
    Some(Timeline {
        width_ns: timeline.width_ns,
        stretches: timeline.stretches,
        series,
    })
}

fn heat(map: &HeatMap, file: usize) -> Option<Heat> {
    let unused = |cell: &HeatCell| cell.readahead_unused_bytes;
    let is_known = map.cells.iter().all(|cell| unused(cell).is_some());
    let mut cells = Vec::new();
    for cell in &map.cells {
        cells.extend([
            cell.part,
            cell.stretch,
            cell.returned_bytes,
            cell.faulted_bytes,
            cell.cache_filled_bytes,
        ]);
        cells.extend(unused(cell).filter(|_| is_known));
    }
    (!cells.is_empty()).then_some(Heat {
        file,
        width_bytes: map.width_bytes,
        width_ns: map.width_ns,
        sums: if is_known { 4 } else { 3 },
        cells,
    })
}

/// Why heat maps do not have what was brought in unused.
fn no_heat_unused(recording: &Recording) -> String {
    let measure = Measure::ReadaheadUnusedBytes;
    let why = match recording.totals[Path::Read].get(measure) {
        Some(_) => "the recording has it of whole files only",
        None => reasons::on(recording, measure, Path::Read),
    };
    Shown::prose(why).keep_start(usize::MAX)
}

/// JSON whose strings have nothing that ends a script or begins a comment, nor a line end of
/// Unicode's.
struct Embedded;

impl Formatter for Embedded {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (safe, unsafe_on) = rest.split_at(at);
            CompactFormatter.write_string_fragment(out, safe)?;
            let mut characters = unsafe_on.chars();
            if let Some(character) = characters.next() {
                write!(out, "\\u{:04x}", character as u32)?;
            }
            rest = characters.as_str();
        }
        CompactFormatter.write_string_fragment(out, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_a_page_has_no_markup_and_means_the_same() {
        let text = "a</script><!--&amp;\u{2028}\u{2029}\"\\\n";
        let mut out = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, Embedded);
        text.serialize(&mut serializer).unwrap();
        let json = String::from_utf8(out).unwrap();
        assert_eq!(
            json,
            r#""a\u003c/script\u003e\u003c!--\u0026amp;\u2028\u2029\"\\\n""#
        );
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
