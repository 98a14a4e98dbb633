//! The table that a run ends with, for people.

use std::{cmp::Reverse, collections::HashMap, ffi::OsStr};

use super::{
    advice, footer,
    grid::{Grid, Label, Sum},
    observed,
    paint::{Paint, Tone},
    summary,
    text::Shown,
    units::count,
};
use crate::recording::{File, Measures, Path, Process, Recording};

/// How a table is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Columns of the terminal. Tables of fewer than [`Options::MIN_WIDTH`] are not drawn narrower.
    pub width: usize,
    /// Whether to use colour.
    pub color: bool,
    /// How many files to list at most.
    pub files: usize,
    /// How many processes to list at most.
    pub processes: usize,
}

impl Options {
    /// The narrowest table.
    pub const MIN_WIDTH: usize = 60;

    /// The usual table for a terminal of `width` columns.
    #[must_use]
    pub const fn new(width: usize, color: bool) -> Self {
        Self {
            width,
            color,
            files: 10,
            processes: 5,
        }
    }
}

/// Draws `recording` as text that ends with a line end. No line is wider than the width asked for,
/// and nothing in the recording can act on the terminal.
#[must_use]
pub fn render(recording: &Recording, options: &Options) -> String {
    let options = &Options {
        width: options.width.max(Options::MIN_WIDTH),
        ..*options
    };
    let paint = Paint {
        color: options.color,
    };
    let mut sections = vec![
        vec![
            summary::context(recording, options),
            paint.tone(Tone::Quiet, &summary::probes(recording, options)),
        ],
        summary::answer(recording, options).into(),
    ];
    let mut unknown = footer::Unknown::default();
    for (grid, more) in [
        (paths(recording), String::new()),
        files(recording, options.files),
        processes(recording, options.processes),
    ] {
        let mut laid = grid.lay(options.width, paint);
        if !more.is_empty() {
            laid.lines.push(paint.tone(Tone::Quiet, &more));
        }
        sections.push(laid.lines);
        for dash in laid.dashes {
            if !unknown.dashes.contains(&dash) {
                unknown.dashes.push(dash);
            }
        }
        unknown.bounds |= laid.bounds;
        // What has no room beside the names of files has been told path by path, in the first grid.
        if unknown.hidden.is_none() {
            unknown.hidden = Some(laid.hidden);
        }
    }
    sections.push(observed::samples(recording, options));
    let mut notes = footer::audit(recording, options);
    notes.extend(observed::witness(recording, options));
    notes.extend(footer::lost(recording, options));
    notes.extend(footer::times(recording, options));
    notes.extend(footer::unknown(recording, &unknown, options));
    notes.extend(footer::refused(recording, options));
    sections.push(notes);
    sections.push(advice::advice(recording, options));

    let sections: Vec<_> = sections
        .into_iter()
        .filter(|lines| !lines.is_empty())
        .map(|lines| lines.join("\n") + "\n")
        .collect();
    sections.join("\n")
}

fn paths(recording: &Recording) -> Grid {
    let mut total = Sum::default();
    let mut rows = Vec::new();
    for (path, measures) in recording.totals.iter() {
        if !measures.is_empty() {
            let mut sum = Sum::default();
            sum.add(measures);
            total.add(measures);
            let label = Label {
                name: Shown::prose(path.name()),
                keep_end: false,
                detail: String::new(),
            };
            rows.push((label, sum));
        }
    }
    Grid {
        heading: ["path", ""],
        total: (rows.len() > 1).then_some(total),
        rows,
    }
}

/// The files that cost most, path by path, and how many more there are.
fn files(recording: &Recording, limit: usize) -> (Grid, String) {
    let by_id: HashMap<u32, &File> = recording.files.iter().map(|file| (file.id, file)).collect();
    let mut sums: HashMap<(u32, Path), Sum> = HashMap::new();
    for row in &recording.rows {
        if let Some(file) = row.file {
            sums.entry((file, row.path)).or_default().add(&row.measures);
        }
    }
    let mut ranked: Vec<_> = sums
        .into_iter()
        .filter(|(_, sum)| !sum.measures.is_empty())
        .collect();
    ranked.sort_by_key(|&((file, path), sum)| (Reverse(cost(&sum.measures)), file, path));
    let more = ranked.len().saturating_sub(limit);
    ranked.truncate(limit);
    let rows = ranked
        .into_iter()
        .map(|((id, path), sum)| {
            let label = Label {
                name: by_id
                    .get(&id)
                    .map_or_else(Shown::default, |file| file_name(file)),
                keep_end: true,
                detail: path.name().into(),
            };
            (label, sum)
        })
        .collect();
    let grid = Grid {
        heading: ["file", "path"],
        rows,
        total: None,
    };
    (grid, and_more(more))
}

pub(super) fn file_name(file: &File) -> Shown {
    match &file.name {
        Some(name) => Shown::name(name),
        None => Shown::prose(&format!("(inode {} on {})", file.inode, file.device)),
    }
}

/// The processes that cost most, if there are several, and how many more there are.
fn processes(recording: &Recording, limit: usize) -> (Grid, String) {
    let by_id: HashMap<u32, &Process> = recording
        .processes
        .iter()
        .map(|process| (process.id, process))
        .collect();
    let mut sums: HashMap<Option<u32>, Sum> = HashMap::new();
    for row in &recording.rows {
        sums.entry(row.process).or_default().add(&row.measures);
    }
    let mut ranked: Vec<_> = sums
        .into_iter()
        .filter(|(_, sum)| !sum.measures.is_empty())
        .collect();
    if ranked.len() < 2 {
        ranked.clear();
    }
    ranked.sort_by_key(|&(process, sum)| (Reverse(cost(&sum.measures)), process));
    let more = ranked.len().saturating_sub(limit);
    ranked.truncate(limit);
    let rows = ranked
        .into_iter()
        .map(|(id, sum)| {
            let process = id.and_then(|id| by_id.get(&id));
            let label = Label {
                name: process.map_or_else(
                    || Shown::name(OsStr::new("(no process of the run)")),
                    |process| Shown::command(&process.command),
                ),
                keep_end: false,
                detail: process.map_or_else(String::new, |process| process.pid.to_string()),
            };
            (label, sum)
        })
        .collect();
    let grid = Grid {
        heading: ["process", "pid"],
        rows,
        total: None,
    };
    (grid, and_more(more))
}

fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!("and {} more", count(more as u64)),
    }
}

/// What a row cost, for ranking: the disk first, then bytes to and from the program, then calls and
/// faults. Where mapped bytes are not known, each fault has mapped a page at least: otherwise a large file
/// that is mapped would come after every small one that is read.
fn cost(measures: &Measures) -> [u64; 3] {
    const SMALLEST_PAGE_BYTES: u64 = 4096;
    let sum = |values: &[Option<u64>]| {
        values
            .iter()
            .flatten()
            .fold(0, |sum: u64, &value| sum.saturating_add(value))
    };
    let faults = sum(&[measures.minor_faults, measures.major_faults]);
    let mapped_bytes = measures
        .mapped_bytes
        .unwrap_or_else(|| faults.saturating_mul(SMALLEST_PAGE_BYTES));
    [
        sum(&[measures.disk_read_bytes, measures.disk_write_bytes]),
        sum(&[measures.bytes_returned, Some(mapped_bytes)]),
        sum(&[measures.operations, Some(faults)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_mapping_of_unknown_bytes_comes_before_a_small_read() {
        let mapped = Measures {
            minor_faults: Some(1_024),
            ..Measures::default()
        };
        let read = Measures {
            bytes_returned: Some(4_017),
            operations: Some(4),
            ..Measures::default()
        };
        assert!(cost(&mapped) > cost(&read));
        // As measured, where it is.
        let nothing = Some(0);
        assert!(
            cost(&Measures {
                mapped_bytes: nothing,
                ..mapped
            }) < cost(&read)
        );
    }
}
