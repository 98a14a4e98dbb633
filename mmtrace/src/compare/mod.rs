//! Two commands compared: what each of their runs cost, and which differences exceed the spread.

pub mod cache;

use serde::Serialize;

use crate::{
    recording::{Copies, Measure, Path as DataPath, Recording, Unit},
    report::{text::Shown, units::amount},
    statistics::{FEWEST_ROUNDS, Ratio, Spread, differs, middle_half},
};

/// A figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// From the command's release to its end, observed.
    WallTimeNs,
    /// Bytes read from disks.
    DiskReadBytes,
    /// Bytes that the kernel copied to the program; null where only what calls return is known.
    CopiedToUserBytes,
    /// Bytes that calls have read from files.
    BytesRead,
    /// Minor and major.
    Faults,
    /// Inside the kernel.
    KernelTimeNs,
}

impl Figure {
    /// Every one, as they are shown.
    pub const ALL: [Self; 6] = [
        Self::WallTimeNs,
        Self::DiskReadBytes,
        Self::CopiedToUserBytes,
        Self::BytesRead,
        Self::Faults,
        Self::KernelTimeNs,
    ];

    /// The words in tables.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::WallTimeNs => "wall time",
            Self::DiskReadBytes => "read from disk",
            Self::CopiedToUserBytes => "copied to user",
            Self::BytesRead => "read by calls",
            Self::Faults => "faults",
            Self::KernelTimeNs => "kernel time",
        }
    }

    /// What it counts.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::WallTimeNs | Self::KernelTimeNs => Unit::Nanoseconds,
            Self::Faults => Unit::Count,
            Self::DiskReadBytes | Self::CopiedToUserBytes | Self::BytesRead => Unit::Bytes,
        }
    }

    /// Of a recording; `None` where it was not measured.
    #[must_use]
    pub fn of(self, recording: &Recording) -> Option<u64> {
        let sum = recording.totals.all_paths();
        match self {
            Self::WallTimeNs => Some(recording.target.wall_time_ns),
            Self::DiskReadBytes => sum.get(Measure::DiskReadBytes),
            // What is filled in from return values is no copy that was seen.
            Self::CopiedToUserBytes if recording.probes.copies == Copies::Returns => None,
            Self::CopiedToUserBytes => sum.get(Measure::CopiedToUserBytes),
            Self::BytesRead => {
                let read = [DataPath::Read, DataPath::Direct];
                let read = read.map(|path| recording.totals[path].bytes_returned);
                read.into_iter().sum()
            }
            Self::Faults => Some(sum.minor_faults? + sum.major_faults?),
            Self::KernelTimeNs => sum.get(Measure::KernelTimeNs),
        }
    }
}

/// What came of a command.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// The command, escaped.
    pub command: String,
    /// Of each figure, in the order of [`Figure::ALL`], its value in each round.
    pub rounds: Vec<[Option<u64>; Figure::ALL.len()]>,
    /// How many recordings were incomplete.
    pub incomplete: usize,
}

/// What is known of a figure of both commands.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Which.
    pub figure: Figure,
    /// Over the first command's rounds, and the second's; null if it was not measured in each.
    pub spread: [Option<Spread>; 2],
    /// Between which values the middle half of the rounds is.
    pub middle_half: [Option<[f64; 2]>; 2],
    /// Whether the two differ beyond the spread; null if that cannot be known.
    pub differs: Option<bool>,
    /// How many times the second's the first's is; null where one is 0.
    pub ratio: Option<Ratio>,
}

/// Two commands compared.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The version of the format.
    pub schema: &'static str,
    /// What was made sure of before each run: `cold`, `warm` or `as it is`.
    pub cache: &'static str,
    /// The hooks that the runs were observed by.
    pub backend: &'static str,
    /// What there is to know beside.
    pub notes: Vec<String>,
    /// The commands.
    pub sides: [Side; 2],
    /// Figure by figure.
    pub figures: Vec<Compared>,
    /// All of it in a sentence.
    pub answer: String,
}

/// The version of the format.
pub const SCHEMA: &str = "mmtrace.compare/1";

impl Comparison {
    /// Compares what came of two commands.
    #[must_use]
    pub fn of(
        sides: [Side; 2],
        cache: &'static str,
        backend: &'static str,
        notes: Vec<String>,
    ) -> Self {
        let figures: Vec<Compared> = Figure::ALL
            .into_iter()
            .enumerate()
            .map(|(index, figure)| compared(figure, index, &sides))
            .collect();
        let answer = answer(&sides, &figures);
        Self {
            schema: SCHEMA,
            cache,
            backend,
            notes,
            sides,
            figures,
            answer,
        }
    }

    /// A figure.
    #[must_use]
    pub fn figure(&self, figure: Figure) -> Option<&Compared> {
        find(&self.figures, figure)
    }
}

fn find(figures: &[Compared], figure: Figure) -> Option<&Compared> {
    figures.iter().find(|it| it.figure == figure)
}

/// A figure by round, if each has it.
fn by_round(side: &Side, index: usize) -> Option<Vec<(usize, f64)>> {
    let rounds = side.rounds.iter().enumerate();
    let values = rounds.map(|(round, figures)| Some((round, figures[index]? as f64)));
    values.collect()
}

fn compared(figure: Figure, index: usize, sides: &[Side; 2]) -> Compared {
    let [one, other] = [0, 1].map(|side| by_round(&sides[side], index));
    let values = |rounds: &Option<Vec<(usize, f64)>>| -> Option<Vec<f64>> {
        let rounds = rounds.as_ref()?.iter();
        Some(rounds.map(|(_, value)| *value).collect())
    };
    let all = [values(&one), values(&other)];
    let both = one.as_ref().zip(other.as_ref());
    Compared {
        figure,
        spread: [0, 1].map(|side| Spread::of(all[side].as_ref()?)),
        middle_half: [0, 1].map(|side| middle_half(all[side].as_ref()?)),
        differs: both.and_then(|(one, other)| differs(one, other)),
        ratio: both.and_then(|(one, other)| Ratio::of(other, one)),
    }
}

/// The sentence: which takes longer, and what it copies against the other.
fn answer(sides: &[Side; 2], figures: &[Compared]) -> String {
    let Some(wall) = find(figures, Figure::WallTimeNs) else {
        return String::new();
    };
    let quoted = |side: usize| format!("`{}`", sides[side].command);
    let Some(ratio) = wall.ratio else {
        return format!(
            "Which takes longer is not known: that takes {FEWEST_ROUNDS} rounds or more."
        );
    };
    let slower = usize::from(ratio.value < 1.0);
    let ratio = if slower == 0 { ratio } else { ratio.inverse() };
    let times = format!("{:.2} ± {:.2} times", ratio.value, ratio.half_width());
    let begins = match ratio.is_above_one() {
        true => format!("{} takes {times} as long", quoted(slower)),
        false => format!(
            "Neither is faster beyond the spread: {} takes {times} as long",
            quoted(slower)
        ),
    };
    let against = |figure: Figure, verb: &str| {
        let figure = find(figures, figure)?;
        let [one, other] = [slower, 1 - slower].map(|side| figure.spread[side]);
        let bytes = |spread: Spread| match spread.median.round() as u64 {
            0 => "0 B".to_owned(),
            bytes => amount(bytes, Unit::Bytes).to_string(),
        };
        Some(format!("{verb} {} against {}", bytes(one?), bytes(other?)))
    };
    let moved = against(Figure::CopiedToUserBytes, "the kernel copies to it")
        .or_else(|| against(Figure::BytesRead, "its calls read"));
    match moved {
        Some(moved) => format!("{begins}; {moved}."),
        None => format!("{begins}."),
    }
}

/// A command line as it is shown.
#[must_use]
pub fn shown(words: &[String]) -> String {
    Shown::command(words).whole()
}

#[cfg(test)]
mod tests;
