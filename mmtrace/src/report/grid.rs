//! A table of measures that fits a width: the least telling columns are left out first, and names
//! are shortened; no line is ever wider.

use super::{
    paint::{Paint, Tone},
    text::Shown,
    units::{Amount, amount},
};
use crate::recording::{Measure, MeasureSet, Measures};

/// Spaces between columns.
const GAP: usize = 2;

/// The share of the width that names get before columns of measures are left out for them.
const NAME_SHARE: (usize, usize) = (3, 10);

/// A measure's column: its heading in two lines, and whether it is shown even if nothing in it could
/// be measured.
struct Column {
    measure: Measure,
    heading: [&'static str; 2],
    expected: bool,
}

const fn column(measure: Measure, heading: [&'static str; 2], expected: bool) -> Column {
    Column {
        measure,
        heading,
        expected,
    }
}

/// Every column, in the order in which tables show them.
const COLUMNS: [Column; Measure::ALL.len()] = [
    column(Measure::Operations, ["", "operations"], true),
    column(Measure::BytesRequested, ["", "requested"], false),
    column(Measure::BytesReturned, ["", "returned"], true),
    column(Measure::CopiedToUserBytes, ["copied", "to user"], false),
    column(Measure::CopiedFromUserBytes, ["copied", "from user"], false),
    column(Measure::CopiedInKernelBytes, ["copied", "in kernel"], false),
    column(Measure::MinorFaults, ["minor", "faults"], true),
    column(Measure::MajorFaults, ["major", "faults"], true),
    column(Measure::MappedBytes, ["", "mapped"], true),
    column(Measure::DiskReads, ["disk", "reads"], true),
    column(Measure::DiskReadBytes, ["read", "from disk"], true),
    column(Measure::CacheFilledBytes, ["into", "cache"], false),
    column(Measure::ReadaheadBytes, ["read", "ahead"], false),
    column(Measure::ReadaheadUnusedBytes, ["ahead,", "unused"], false),
    column(Measure::DiskWrites, ["disk", "writes"], false),
    column(Measure::DiskWriteBytes, ["written", "to disk"], false),
    column(Measure::KernelTimeNs, ["kernel", "time"], false),
    column(Measure::DiskWaitNs, ["disk", "wait"], true),
];

/// Every measure in the order of the columns, with its heading, and whether it is shown even if
/// nothing in it could be measured.
pub(super) fn columns() -> impl Iterator<Item = (Measure, [&'static str; 2], bool)> {
    COLUMNS
        .iter()
        .map(|column| (column.measure, column.heading, column.expected))
}

/// The measures from the most to the least telling: which columns a narrow table keeps.
pub(super) const BY_WORTH: [Measure; Measure::ALL.len()] = [
    Measure::DiskReadBytes,
    Measure::BytesReturned,
    Measure::MappedBytes,
    Measure::CopiedToUserBytes,
    Measure::MajorFaults,
    Measure::Operations,
    Measure::MinorFaults,
    Measure::DiskWaitNs,
    Measure::DiskWriteBytes,
    Measure::CopiedInKernelBytes,
    Measure::CopiedFromUserBytes,
    Measure::ReadaheadBytes,
    Measure::ReadaheadUnusedBytes,
    Measure::DiskReads,
    Measure::KernelTimeNs,
    Measure::CacheFilledBytes,
    Measure::BytesRequested,
    Measure::DiskWrites,
];

/// What a row is about.
pub(super) struct Label {
    /// The name, which may be shortened.
    pub(super) name: Shown,
    /// Whether shortening keeps the name's end rather than its beginning.
    pub(super) keep_end: bool,
    /// Short text beside the name, which is never shortened; empty for none.
    pub(super) detail: String,
}

/// Measures added up from several rows of a recording.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) measures: Measures,
    /// What was null in some of the rows: the sum is of the others.
    unknown: MeasureSet,
}

impl Sum {
    /// Adds `measures`.
    pub(super) fn add(&mut self, measures: &Measures) {
        self.measures.add(measures);
        for measure in Measure::ALL {
            if measures.get(measure).is_none() {
                self.unknown = self.unknown.union(MeasureSet::of(&[measure]));
            }
        }
    }

    /// The amount of `measure`, marked when it is a lower bound; `None` when nothing is known.
    pub(super) fn amount(&self, measure: Measure) -> Option<Amount> {
        let mut amount = amount(self.measures.get(measure)?, measure.unit());
        if self.unknown.contains(measure) {
            amount.number.insert(0, LOWER_BOUND);
        }
        Some(amount)
    }
}

impl Label {
    fn fitted(&self, width: usize) -> String {
        match self.keep_end {
            true => self.name.keep_end(width),
            false => self.name.keep_start(width),
        }
    }
}

/// A table before it is laid out.
pub(super) struct Grid {
    /// The headings of the name and of the detail.
    pub(super) heading: [&'static str; 2],
    /// The rows, in order.
    pub(super) rows: Vec<(Label, Sum)>,
    /// A last row, set apart from the others.
    pub(super) total: Option<Sum>,
}

/// A table laid out for a width.
#[derive(Default)]
pub(super) struct Laid {
    /// Its lines, without line ends.
    pub(super) lines: Vec<String>,
    /// Measures that have a dash in it.
    pub(super) dashes: Vec<Measure>,
    /// Whether it has a sum that is a lower bound.
    pub(super) bounds: bool,
    /// Measures that there were, for which the width had no room.
    pub(super) hidden: Vec<Measure>,
}

/// A column with its cells as text.
struct Filled {
    column: &'static Column,
    /// One cell a row, then the total's if there is one; `None` is a dash.
    cells: Vec<Option<Amount>>,
    cells_width: usize,
    unit_width: usize,
}

impl Filled {
    fn new<'a>(column: &'static Column, rows: impl Iterator<Item = &'a Sum>) -> Self {
        let cells: Vec<_> = rows.map(|row| row.amount(column.measure)).collect();
        let amounts = || cells.iter().flatten();
        let unit_width = amounts().map(|cell| cell.unit.len()).max().unwrap_or(0);
        let cells_width = amounts()
            .map(|cell| match cell.unit {
                "" => Shown::width_of(&cell.number),
                _ => Shown::width_of(&cell.number) + 1 + unit_width,
            })
            .max()
            .unwrap_or(0);
        Self {
            column,
            cells,
            cells_width,
            unit_width,
        }
    }

    fn width(&self) -> usize {
        let heading = self.column.heading.map(str::len).into_iter().max();
        self.cells_width.max(heading.unwrap_or(0)).max(1)
    }

    fn cell(&self, row: usize, paint: Paint) -> String {
        let (text, tone) = match &self.cells[row] {
            None => ("-".into(), Tone::Quiet),
            Some(zero) if zero.number == "0" => ("0".into(), Tone::Quiet),
            Some(cell) if cell.unit.is_empty() => (cell.number.clone(), Tone::Plain),
            Some(Amount { number, unit }) => {
                (format!("{number} {unit:<0$}", self.unit_width), Tone::Plain)
            }
        };
        let space = self.width() - Shown::width_of(&text);
        format!("{:space$}{}", "", paint.tone(tone, &text))
    }
}

impl Grid {
    /// Lays the table out for `width` columns.
    pub(super) fn lay(&self, width: usize, paint: Paint) -> Laid {
        let mut laid = Laid::default();
        if self.rows.is_empty() {
            return laid;
        }
        let labels = || self.rows.iter().map(|(label, _)| label);
        let longest = labels().map(|label| label.name.width()).max().unwrap_or(0);
        let detail = labels().map(|label| label.detail.len()).max().unwrap_or(0);
        let detail = match detail.max(self.heading[1].len()) {
            0 => 0,
            detail => detail + GAP,
        };
        let name = longest.min(width * NAME_SHARE.0 / NAME_SHARE.1);
        let name = name.max(self.heading[0].len()).max(TOTAL.len());

        let mut filled = self.filled();
        let mut room = width.saturating_sub(name + detail);
        let mut shown = Vec::new();
        for measure in BY_WORTH {
            let Some(column) = filled.iter().find(|f| f.column.measure == measure) else {
                continue;
            };
            let needed = column.width() + GAP;
            if needed <= room {
                room -= needed;
                shown.push(measure);
            } else if column.cells.iter().any(Option::is_some) {
                laid.hidden.push(measure);
            }
        }
        filled.retain(|f| shown.contains(&f.column.measure));
        let dashed = filled.iter().filter(|f| f.cells.contains(&None));
        laid.dashes = dashed.map(|f| f.column.measure).collect();
        let mut amounts = filled.iter().flat_map(|f| f.cells.iter().flatten());
        laid.bounds = amounts.any(|amount| amount.number.starts_with(LOWER_BOUND));

        let names: Vec<_> = labels().map(|label| label.fitted(name + room)).collect();
        let longest = names.iter().map(|name| Shown::width_of(name)).max();
        let name = longest
            .unwrap_or(0)
            .max(self.heading[0].len())
            .max(TOTAL.len());
        self.lay_heading(&filled, name, detail, paint, &mut laid.lines);
        for (row, (text, label)) in names.iter().zip(labels()).enumerate() {
            let space = name - Shown::width_of(text);
            let mut line = format!("{text}{:space$}", "");
            if detail > 0 {
                line += &format!("{:GAP$}{:<2$}", "", label.detail, detail - GAP);
            }
            laid.lines.push(Self::row(line, &filled, row, paint));
        }
        if self.total.is_some() {
            let line = format!("{TOTAL:<0$}", name + detail);
            laid.lines
                .push(Self::row(line, &filled, self.rows.len(), paint));
        }
        laid
    }

    /// The columns that have anything to show.
    fn filled(&self) -> Vec<Filled> {
        let sums = || self.rows.iter().map(|(_, row)| row).chain(&self.total);
        COLUMNS
            .iter()
            .filter(|column| {
                let values = || sums().map(|row| row.measures.get(column.measure));
                values().any(|value| value.is_some_and(|value| value > 0))
                    || (column.expected && values().all(|value| value.is_none()))
            })
            .map(|column| Filled::new(column, sums()))
            .collect()
    }

    fn lay_heading(
        &self,
        filled: &[Filled],
        name: usize,
        detail: usize,
        paint: Paint,
        lines: &mut Vec<String>,
    ) {
        for half in 0..2 {
            let mut line = match half {
                0 => " ".repeat(name + detail),
                _ if detail == 0 => format!("{:<name$}", self.heading[0]),
                _ => format!(
                    "{:<name$}{:GAP$}{:<3$}",
                    self.heading[0],
                    "",
                    self.heading[1],
                    detail - GAP
                ),
            };
            for f in filled {
                line += &format!("{:GAP$}{:>2$}", "", f.column.heading[half], f.width());
            }
            let line = line.trim_end();
            if !line.is_empty() {
                lines.push(paint.tone(Tone::Strong, line));
            }
        }
    }

    fn row(mut line: String, filled: &[Filled], row: usize, paint: Paint) -> String {
        for f in filled {
            line += &format!("{:GAP$}{}", "", f.cell(row, paint));
        }
        line.trim_end().into()
    }
}

/// Marks a sum of which a part is unknown.
const LOWER_BOUND: char = '≥';

/// The name of the total's row.
const TOTAL: &str = "total";
