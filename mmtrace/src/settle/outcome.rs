//! What came of the experiments: the recording's rows of each one's processes, and what these
//! programs told.

use serde::Serialize;

use super::{
    experiment::Experiment,
    figure::{Figure, Value, Values},
    measured::{Measured, Trust},
    workload::Report,
};
use crate::{
    kernel::stack::{Frame, Symbols, copy_routine},
    recording::Recording,
};

/// What came of one experiment, one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Which.
    pub experiment: Experiment,
    /// The how many-th time, from 0.
    pub repetition: u32,
    /// What is known.
    pub values: Values,
    /// The first store of the kernel's to a watched byte: its place, and its callers outwards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
    /// The copy routine in that stack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_routine: Option<String>,
    /// Why it could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// What came of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcomes {
    outcomes: Vec<Outcome>,
    page_bytes: u64,
    repetitions: u32,
}

impl Outcomes {
    /// Of outcomes.
    #[must_use]
    pub fn new(outcomes: Vec<Outcome>, page_bytes: u64) -> Self {
        let repetitions = outcomes.iter().map(|outcome| outcome.repetition + 1);
        Self {
            repetitions: repetitions.max().unwrap_or(0),
            outcomes,
            page_bytes,
        }
    }

    /// Each.
    #[must_use]
    pub fn all(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// How often the experiments were made.
    #[must_use]
    pub fn repetitions(&self) -> u32 {
        self.repetitions
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// One of them.
    #[must_use]
    pub fn find(&self, experiment: Experiment, repetition: u32) -> Option<&Outcome> {
        let mut all = self.outcomes.iter();
        all.find(|it| it.experiment == experiment && it.repetition == repetition)
    }

    /// A figure, or why it is not known.
    #[must_use]
    pub fn value(&self, experiment: Experiment, repetition: u32, figure: Figure) -> Value {
        let Some(outcome) = self.find(experiment, repetition) else {
            return Value::unknown("the experiment was not made");
        };
        // What was so before it began.
        let before = matches!(figure, Figure::SizeBytes | Figure::CachedBeforeBytes);
        match (&outcome.failed, outcome.values.get(&figure)) {
            (Some(reason), _) if !before => {
                Value::unknown(format!("it could not be made: {reason}"))
            }
            (_, Some(value)) => value.clone(),
            (_, None) => Value::unknown("it does not tell this"),
        }
    }
}

/// Puts together what was measured and what was told.
#[must_use]
pub fn outcomes(
    recording: &Recording,
    reports: &[Report],
    symbols: &Result<Symbols, String>,
) -> Outcomes {
    let mut merged: Vec<Report> = Vec::new();
    for report in reports {
        let same = |other: &&mut Report| {
            (other.experiment, other.repetition) == (report.experiment, report.repetition)
        };
        match merged.iter_mut().find(same) {
            Some(first) => first.merge(report.clone()),
            None => merged.push(report.clone()),
        }
    }
    let trust = Trust::of(recording);
    let outcomes = merged.iter().map(|report| {
        let measured = Measured::of(recording, report, &trust);
        let mut values = report.values.clone();
        for (figure, value) in measured.values(report) {
            // What the hooks saw comes before what page tables show of the same.
            let known = value.number.is_some();
            if known || !values.contains_key(&figure) {
                values.insert(figure, value);
            }
        }
        let (stack, copy_routine) = named(&report.store, symbols);
        Outcome {
            experiment: report.experiment,
            repetition: report.repetition,
            values,
            stack,
            copy_routine,
            failed: report.failed.clone(),
        }
    });
    Outcomes::new(outcomes.collect(), recording.host.page_size)
}

/// A stack by name, and the copy routine in it.
fn named(store: &[u64], symbols: &Result<Symbols, String>) -> (Vec<String>, Option<String>) {
    let (Some((ip, callers)), Ok(symbols)) = (store.split_first(), symbols) else {
        return (Vec::new(), None);
    };
    let callers = callers.iter().map(|caller| symbols.return_to(*caller));
    let frames: Vec<_> = [symbols.instruction(*ip)]
        .into_iter()
        .chain(callers)
        .collect();
    let function = |frame: &Option<Frame>| {
        frame
            .as_ref()
            .map_or(String::new(), |it| it.function.clone())
    };
    let functions: Vec<String> = frames.iter().map(function).collect();
    let routine = copy_routine(functions.iter().map(String::as_str)).map(str::to_owned);
    let text = |frame: &Option<Frame>| frame.as_ref().map_or("?".to_owned(), Frame::to_string);
    (frames.iter().map(text).collect(), routine)
}
