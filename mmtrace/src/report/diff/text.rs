//! A difference as text for a terminal.

use super::{
    Compared,
    lines::{HEADINGS, Line, MOST, file_name, lines, ranked, stack_name},
};
use crate::{
    recording::Unit,
    report::{
        text::{Shown, wrapped},
        units::{amount, count},
    },
};

/// The narrowest table.
const LEAST_WIDTH: usize = 60;

/// What has changed, in lines of at most `width` columns, or 60 if that is less.
#[must_use]
pub fn table(compared: &Compared<'_>, width: usize) -> String {
    let width = width.max(LEAST_WIDTH);
    let difference = &compared.difference;
    let mut text = String::new();
    for (side, recording) in compared.sides() {
        let command = Shown::command(&recording.target.command);
        let wall = amount(recording.target.wall_time_ns, Unit::Nanoseconds);
        let lost = if recording.lost.is_empty() {
            ""
        } else {
            ", INCOMPLETE"
        };
        let how = format!("  {wall}, {}{lost}", recording.probes.backend.name());
        let room = width.saturating_sub(8 + how.len());
        text += &format!("{side:<8}{}{how}\n", command.keep_start(room));
    }
    let mut sections: Vec<(&str, Vec<Line>)> = vec![("all paths", lines("", &difference.total))];
    let paths = difference.paths.iter();
    let paths = paths.flat_map(|changed| lines(changed.of.name(), &changed.changes));
    sections.push(("path", paths.collect()));
    let files = ranked(&difference.files);
    let name_width = width.saturating_sub(FIGURES_WIDTH);
    let shown = files.iter().take(MOST);
    let shown = shown.flat_map(|(file, changes)| lines(&file_name(file, name_width), changes));
    sections.push(("file", shown.collect()));
    for (heading, lines) in sections {
        text += &aligned(heading, &lines);
    }
    text += &and_more(files.len());
    if let Some(stacks) = &difference.stacks {
        let stacks = ranked(stacks);
        for (stack, changes) in stacks.iter().take(MOST) {
            text.push('\n');
            for line in wrapped(&stack_name(stack), 0, width) {
                text += &format!("{line}\n");
            }
            text += &rows(&lines("", changes));
        }
        text += &and_more(stacks.len());
    }
    text
}

/// What the columns of figures take at most, with the spaces between.
const FIGURES_WIDTH: usize = 76;

fn and_more(all: usize) -> String {
    match all.saturating_sub(MOST) {
        0 => String::new(),
        more => format!("and {} more\n", count(more as u64)),
    }
}

fn aligned(heading: &str, lines: &[Line]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut headings = HEADINGS.map(str::to_owned);
    heading.clone_into(&mut headings[0]);
    format!("\n{}", rows(&[&[headings], lines].concat()))
}

/// Lines in columns: names to the left, figures to the right.
fn rows(lines: &[Line]) -> String {
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let cells = lines.iter().map(|line| Shown::width_of(&line[column]));
        cells.max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (column, cell) in line.iter().enumerate() {
            let space = " ".repeat(widths[column] - Shown::width_of(cell));
            row += &match column {
                0 => format!("{cell}{space}"),
                1 => format!("  {cell}{space}"),
                _ => format!("  {space}{cell}"),
            };
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}
