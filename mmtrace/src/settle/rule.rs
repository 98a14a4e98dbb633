//! Rules: what a claim predicts, as relations between measured numbers, and whether they hold.

use serde::Serialize;

use super::{
    experiment::Experiment,
    figure::{Evidence, Figure, Value},
    outcome::Outcomes,
};

/// How much is expected, from the size of an experiment's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many, whatever the size.
    Exactly(u64),
    /// So many times the size.
    Sizes(u64),
    /// So many times the size in whole pages.
    SizesInPages(u64),
    /// As many as the size has pages.
    Pages,
    /// Calls that each move so many bytes, and one more that finds the end.
    CallsOf(u64),
}

/// A relation that a figure must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// Equal.
    Be(Amount),
    /// Equal, but for what the disk's granularity adds and for pages that had to be read twice:
    /// [`DISK_EXTRA_BYTES`] and a sixteenth more at most.
    BeOnDisk(Amount),
    /// Equal, but for the heads of messages and for arguments that calls read: [`HEAD_BYTES`] a
    /// message of the experiment more at most, of at least [`MESSAGE_BYTES`] each.
    BeWithHeads(Amount),
    /// Equal within a sixteenth: the machine may take pages back meanwhile.
    BeAbout(Amount),
    /// Not less.
    BeAtLeast(Amount),
    /// Not more.
    BeAtMost(Amount),
    /// Less than the same figure of another experiment.
    BeLessThanIn(Experiment),
}

/// What [`Must::BeOnDisk`] allows whatever the size: the largest block that file systems read whole.
pub const DISK_EXTRA_BYTES: u64 = 64 << 10;
/// What [`Must::BeWithHeads`] allows for a message: two `iovec`s of a call, or a message's type, twice
/// over.
pub const HEAD_BYTES: u64 = 64;
/// The smallest messages that are sent.
pub const MESSAGE_BYTES: u64 = 8 << 10;
/// Of pages that may be taken back or read twice, one in so many.
const TOLERATED: u64 = 16;

/// What a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The claim says so. Where there are two readings of it, both do.
    Prediction,
    /// The claim says so as its author means it.
    AuthorPrediction,
    /// The claim says so as the author's reader means it.
    ReaderPrediction,
    /// The experiment was what it is said to be, and the probes see: a case beside it in which the
    /// outcome must differ, or a known part. Where it fails, nothing is decided.
    Control,
    /// As a control, where this kernel has what it takes.
    ControlIfHad,
    /// Worth to be seen; decides nothing.
    Note,
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is for.
    pub role: Role,
    /// Of which experiment.
    pub experiment: Experiment,
    /// Which figure.
    pub figure: Figure,
    /// How it must be.
    pub must: Must,
    /// Why.
    pub why: &'static str,
}

impl Amount {
    fn of(self, size_bytes: u64, page_bytes: u64) -> u64 {
        match self {
            Self::Exactly(number) => number,
            Self::Sizes(times) => times.saturating_mul(size_bytes),
            Self::SizesInPages(times) => {
                times.saturating_mul(size_bytes.next_multiple_of(page_bytes))
            }
            Self::Pages => size_bytes.div_ceil(page_bytes),
            Self::CallsOf(bytes) => size_bytes.div_ceil(bytes) + 1,
        }
    }
}

/// Whether a figure is as a rule says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What the rule is for.
    pub role: Role,
    /// Of which experiment.
    pub experiment: Experiment,
    /// Which figure.
    pub figure: Figure,
    /// What was measured: where the rule does not hold every time, then when it does not.
    pub measured: Value,
    /// The least that it may be.
    pub at_least: Option<u64>,
    /// The most that it may be.
    pub at_most: Option<u64>,
    /// Whether it is; null when that is not known.
    pub holds: Option<bool>,
    /// Why it must be.
    pub why: &'static str,
}

impl Rule {
    /// Tries the rule on every repetition of its experiment.
    #[must_use]
    pub fn apply(&self, outcomes: &Outcomes) -> Finding {
        let mut findings: Vec<Finding> = (0..outcomes.repetitions())
            .map(|repetition| self.apply_to(outcomes, repetition))
            .collect();
        // The one that counts: a failure, else what is not known, else the first.
        let worst = |finding: &Finding| match finding.holds {
            Some(false) => 0,
            None => 1,
            Some(true) => 2,
        };
        findings.sort_by_key(worst);
        findings.into_iter().next().unwrap_or_else(|| {
            self.finding(Value::unknown("the experiment was not made"), None, None)
        })
    }

    fn apply_to(&self, outcomes: &Outcomes, repetition: u32) -> Finding {
        let measured = outcomes.value(self.experiment, repetition, self.figure);
        match self.range(outcomes, repetition) {
            Ok((least, most)) => self.finding(measured, least, most),
            Err(reason) => self.finding(Value::unknown(reason), None, None),
        }
    }

    fn finding(&self, measured: Value, at_least: Option<u64>, at_most: Option<u64>) -> Finding {
        let within = |number: u64| {
            at_least.is_none_or(|least| number >= least)
                && at_most.is_none_or(|most| number <= most)
        };
        Finding {
            role: self.role,
            experiment: self.experiment,
            figure: self.figure,
            holds: measured.number.map(within),
            measured,
            at_least,
            at_most,
            why: self.why,
        }
    }

    /// The least and the most that the figure may be, or why that is not known.
    fn range(
        &self,
        outcomes: &Outcomes,
        repetition: u32,
    ) -> Result<(Option<u64>, Option<u64>), String> {
        let known = |experiment, figure| {
            let value = outcomes.value(experiment, repetition, figure);
            let reason = value.reason.unwrap_or_default();
            value.number.ok_or(reason)
        };
        let size_bytes = known(self.experiment, Figure::SizeBytes)?;
        let of = |amount: Amount| amount.of(size_bytes, outcomes.page_bytes());
        Ok(match self.must {
            Must::Be(amount) => (Some(of(amount)), Some(of(amount))),
            Must::BeOnDisk(amount) => {
                let bytes = of(amount);
                (
                    Some(bytes),
                    Some(bytes + bytes / TOLERATED + DISK_EXTRA_BYTES),
                )
            }
            Must::BeWithHeads(amount) => {
                let heads = size_bytes.div_ceil(MESSAGE_BYTES) * HEAD_BYTES;
                (Some(of(amount)), Some(of(amount) + heads))
            }
            Must::BeAbout(amount) => {
                let bytes = of(amount);
                (
                    Some(bytes - bytes / TOLERATED),
                    Some(bytes + bytes / TOLERATED),
                )
            }
            Must::BeAtLeast(amount) => (Some(of(amount)), None),
            Must::BeAtMost(amount) => (None, Some(of(amount))),
            Must::BeLessThanIn(other) => match known(other, self.figure)? {
                0 => return Err(format!("{} has none either", other.name())),
                number => (None, Some(number - 1)),
            },
        })
    }
}

impl Finding {
    /// What the measured number stands on, if it is known.
    #[must_use]
    pub fn evidence(&self) -> Option<Evidence> {
        self.measured.evidence
    }
}
