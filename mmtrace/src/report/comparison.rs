//! Two commands compared, as text.

use std::io::{self, Write};

use super::{
    text::{Shown, wrapped},
    units::amount,
};
use crate::{
    compare::{Comparison, Figure},
    output,
    recording::Unit,
    statistics::Spread,
};

/// A format of a comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One JSON object.
    Json,
}

impl Format {
    /// Writes `comparison`.
    ///
    /// # Errors
    /// When `to` cannot be written to.
    pub fn write(self, comparison: &Comparison, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Json => {
                serde_json::to_writer_pretty(&mut *to, comparison)?;
                to.write_all(b"\n")
            }
        }
    }
}

impl output::Format for Format {
    const ALL: &'static [Self] = &[Self::Json];
    const PLAIN: Self = Self::Json;

    fn suffix(self) -> &'static str {
        match self {
            Self::Json => "json",
        }
    }
}

/// Tells a comparison in lines of at most `width` columns, or 60 if that is less.
#[must_use]
pub fn text(comparison: &Comparison, width: usize) -> String {
    const LEAST_WIDTH: usize = 60;

    let width = width.max(LEAST_WIDTH);
    let mut lines = Vec::new();
    for (letter, side) in ["A", "B"].iter().zip(&comparison.sides) {
        lines.extend(wrapped(&format!("{letter}: {}", side.command), 0, width));
    }
    let rounds = comparison.sides[0].rounds.len();
    let mut about = vec![
        format!("{rounds} rounds"),
        comparison.backend.to_owned(),
        "median and middle half".to_owned(),
    ];
    about.extend(comparison.notes.iter().cloned());
    let incomplete: usize = comparison.sides.iter().map(|side| side.incomplete).sum();
    if incomplete > 0 {
        about.push(format!("INCOMPLETE recordings: {incomplete}"));
    }
    lines.extend(wrapped(&about.join(", "), 0, width));
    lines.push(String::new());
    let mut rows = vec![["", "A", "", "B", "", "A / B"].map(str::to_owned)];
    for compared in &comparison.figures {
        let unit = compared.figure.unit();
        let middle = |side: usize| {
            let spread: Option<Spread> = compared.spread[side];
            let number = spread.map_or("-".to_owned(), |spread| figure(spread.median, unit));
            let half = compared.middle_half[side].map_or_else(String::new, |[low, high]| {
                match low == high {
                    true => String::new(),
                    false => format!("{} to {}", figure(low, unit), figure(high, unit)),
                }
            });
            [number, half]
        };
        let [[a, a_half], [b, b_half]] = [middle(0), middle(1)];
        let ratio = match (compared.differs, compared.ratio) {
            (None, _) => String::new(),
            (Some(false), _) => "within the spread".to_owned(),
            (Some(true), Some(ratio)) => format!("{:.2}", ratio.value),
            (Some(true), None) => "differs".to_owned(),
        };
        rows.push([
            compared.figure.label().to_owned(),
            a,
            a_half,
            b,
            b_half,
            ratio,
        ]);
    }
    lines.extend(aligned(&rows));
    if comparison
        .figure(Figure::CopiedToUserBytes)
        .is_some_and(|it| it.spread == [None; 2])
    {
        let why = "Copies are known by what calls return only: this kernel takes no breakpoints \
                   there, or none were asked for.";
        lines.extend(wrapped(why, 0, width));
    }
    lines.push(String::new());
    lines.extend(wrapped(&comparison.answer, 0, width));
    lines.join("\n") + "\n"
}

fn figure(value: f64, unit: Unit) -> String {
    match value.round() as u64 {
        0 if unit == Unit::Bytes => "0 B".to_owned(),
        value => amount(value, unit).to_string(),
    }
}

fn aligned(rows: &[[String; 6]]) -> Vec<String> {
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| Shown::width_of(&row[column]));
        cells.max().unwrap_or(0)
    });
    let line = |row: &[String; 6]| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let space = " ".repeat(widths[column] - Shown::width_of(cell));
            match column {
                1 | 3 => format!("{space}{cell}"),
                _ => format!("{cell}{space}"),
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
