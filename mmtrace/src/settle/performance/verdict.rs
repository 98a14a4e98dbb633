//! What the outcome says of the claim, by a rule that is stated here and nowhere else.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    outcome::{Cell, Method, Outcome, Winner},
    table::{TOLD_AMPLIFICATION, busy, name},
    workload::{Cache, Pattern, Work},
};
use crate::statistics::FEWEST_ROUNDS;

/// How a claim fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ruling {
    /// It holds.
    Confirmed,
    /// It does not.
    Refuted,
    /// It holds in some cases.
    Partly,
    /// Nothing was measured that could tell.
    Undecided,
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Confirmed => "confirmed",
            Self::Refuted => "refuted",
            Self::Partly => "partly",
            Self::Undecided => "undecided",
        })
    }
}

/// The ruling and the reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The ruling.
    pub ruling: Ruling,
    /// The ruling, then the reasons.
    pub text: String,
}

/// In how many cells which side wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Cells with enough samples of both sides.
    measured: usize,
    /// Of these, where mapping is faster beyond the spread.
    mapping: usize,
    /// Of these, where copying is.
    copying: usize,
}

impl Tally {
    fn of<'a>(cells: impl Iterator<Item = &'a Cell>) -> Self {
        let mut tally = Self::default();
        for cell in cells.filter(|cell| is_measured(cell)) {
            tally.measured += 1;
            match cell.winner {
                Some(winner) if winner.method.is_mapping() => tally.mapping += 1,
                Some(_) => tally.copying += 1,
                None => {}
            }
        }
        tally
    }

    /// The rule. "The best" is best everywhere: a single case in which it is not makes it a part of
    /// the truth. A mapping is let have whatever advice suits it. Where the spread swallows every
    /// difference, nothing is known.
    const fn ruling(self) -> Ruling {
        match self {
            Self {
                mapping: 0,
                copying: 0,
                ..
            } => Ruling::Undecided,
            Self { mapping: 0, .. } => Ruling::Refuted,
            Self {
                measured, mapping, ..
            } if mapping == measured => Ruling::Confirmed,
            _ => Ruling::Partly,
        }
    }
}

/// Whether the cell has what it takes to tell a spread, on both sides.
fn is_measured(cell: &Cell) -> bool {
    [false, true].into_iter().all(|is_mapping| {
        let best = cell.best(is_mapping);
        best.is_some_and(|best| best.samples.len() >= FEWEST_ROUNDS)
    })
}

const fn is_of_files(cell: &Cell) -> bool {
    matches!(cell.work, Work::File(_))
}

/// Judges the claim by the outcome.
#[must_use]
pub fn verdict(outcome: &Outcome) -> Verdict {
    let cells = || outcome.cells.iter();
    let ruling = Tally::of(cells()).ruling();
    let mut sentences: Vec<String> = Vec::new();
    for (what, of_files) in [("read", true), ("a channel that copies", false)] {
        let part = || cells().filter(move |cell| is_of_files(cell) == of_files);
        let tally = Tally::of(part());
        if tally.measured > 0 {
            sentences.push(format!(
                "{} is faster beyond the spread in {} of {} cells, {what} in {}, and nobody in {}",
                if of_files {
                    "For files, a mapping"
                } else {
                    "For messages, shared memory"
                },
                tally.mapping,
                tally.measured,
                tally.copying,
                tally.measured - tally.mapping - tally.copying,
            ));
        }
    }
    let listed = |title: &str, is_listed: &dyn Fn(&Cell) -> bool| {
        let names: Vec<String> = cells()
            .filter(|cell| is_measured(cell) && is_listed(cell))
            .map(|cell| name(&cell.work))
            .collect();
        (!names.is_empty()).then(|| format!("{title}: {}", names.join("; ")))
    };
    let is_mapping = |winner: Option<Winner>| winner.map(|winner| winner.method.is_mapping());
    sentences.extend(
        [
            listed("Copying is faster in", &|cell| {
                is_mapping(cell.winner) == Some(false)
            }),
            listed(
                "Without advice to the kernel a mapping does not win in",
                &|cell| {
                    is_mapping(cell.winner) == Some(true)
                        && is_mapping(cell.winner_unadvised) != Some(true)
                },
            ),
        ]
        .into_iter()
        .flatten(),
    );
    sentences.extend(trap(outcome));
    let skipped = cells().filter(|cell| !is_measured(cell)).count();
    if skipped > 0 {
        sentences.push(format!(
            "{skipped} of {} cells could not be measured",
            outcome.cells.len()
        ));
    }
    sentences.extend(busy(outcome));
    sentences.extend(
        outcome
            .not_tried
            .iter()
            .map(|what| format!("Not tried: {what}")),
    );
    Verdict {
        ruling,
        text: format!("{ruling}: {}.", sentences.join(". ")),
    }
}

/// Where the trap of the default advice is worst, how much is read that nobody asked for.
fn trap(outcome: &Outcome) -> Option<String> {
    let amplifications = |cell: &Cell| {
        let of = |method| cell.contestant(method)?.amplification;
        Some([
            of(Method::Mmap)?,
            of(Method::MmapRandom)?,
            of(Method::Read)?,
        ])
    };
    let is_trap = |work: &Work| {
        matches!(work, Work::File(work)
            if work.pattern == Pattern::Random && work.cache == Cache::Cold)
    };
    let (cell, [mmap, random, read]) = outcome
        .cells
        .iter()
        .filter(|cell| is_trap(&cell.work))
        .filter_map(|cell| Some((cell, amplifications(cell)?)))
        .max_by(|(_, [a, ..]), (_, [b, ..])| a.total_cmp(b))?;
    (mmap >= TOLD_AMPLIFICATION).then(|| {
        format!(
            "In {}, the disk is read for {mmap:.1} times the bytes asked for by a plain mapping, \
             {random:.1} times with MADV_RANDOM, {read:.1} times by read",
            name(&cell.work)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{super::outcome::Measured, *};
    use crate::settle::performance::workload::{Consumer, IpcWork};

    /// A cell of messages in which each channel took the same time five times.
    fn cell(pipe_ns: f64, shared_ns: f64) -> Cell {
        let work = IpcWork {
            message_bytes: 64,
            messages: 10,
            consumer: Consumer::Sum,
        };
        let methods = [Method::Pipe, Method::SharedMapping];
        let mut cell = Cell::new(Work::Ipc(work), &methods);
        cell.useful_bytes = 640;
        for (contestant, ns_per_byte) in cell.contestants.iter_mut().zip([pipe_ns, shared_ns]) {
            contestant.samples = (0..5)
                .map(|repetition| Measured {
                    repetition,
                    position: 0,
                    ns_per_byte,
                    minor_faults: 0,
                    major_faults: 0,
                    disk_bytes: None,
                    waited: 0.0,
                })
                .collect();
        }
        cell.sum_up();
        cell
    }

    fn judged(cells: Vec<Cell>) -> Verdict {
        verdict(&Outcome {
            seed: 0,
            repetitions: 5,
            cpus: 1,
            memory_bytes: None,
            readahead_bytes: None,
            drop_caches: false,
            elapsed_ns: 0,
            cells,
            not_tried: vec!["several threads: there is one processor".into()],
        })
    }

    #[test]
    fn the_rule() {
        let (mapping, copying, nobody) = (cell(2.0, 1.0), cell(1.0, 2.0), cell(1.0, 1.01));
        for (cells, ruling) in [
            (vec![], Ruling::Undecided),
            (vec![&mapping, &mapping], Ruling::Confirmed),
            (vec![&mapping, &copying], Ruling::Partly),
            (vec![&mapping, &nobody], Ruling::Partly),
            (vec![&copying, &nobody], Ruling::Refuted),
            (vec![&nobody], Ruling::Undecided),
        ] {
            let verdict = judged(cells.into_iter().cloned().collect());
            assert_eq!(verdict.ruling, ruling);
            assert!(verdict.text.starts_with(&ruling.to_string()));
            assert!(verdict.text.contains("Not tried: several threads"));
        }
    }

    #[test]
    fn a_cell_without_samples_of_one_side_decides_nothing() {
        let mut lacking = cell(1.0, 2.0);
        lacking.contestants[0].samples.truncate(FEWEST_ROUNDS - 1);
        lacking.sum_up();
        let verdict = judged(vec![lacking.clone()]);
        assert_eq!(verdict.ruling, Ruling::Undecided);
        assert!(verdict.text.contains("1 of 1 cells could not be measured"));
        let verdict = judged(vec![cell(2.0, 1.0), lacking]);
        assert_eq!(verdict.ruling, Ruling::Confirmed);
    }

    #[test]
    fn where_copying_wins_is_named() {
        let text = judged(vec![cell(2.0, 1.0), cell(1.0, 2.0)]).text;
        assert!(
            text.contains("Copying is faster in: messages of 64 B, sum"),
            "{text}"
        );
    }
}
