//! What a picture of stacks shows the amounts of.

use clap::ValueEnum;

use super::footer;
use crate::failure::Failure;
use crate::recording::{Measure, Recording, Stack, Unit};

/// One or more measures, in one unit, that a picture shows the sums of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Quantity {
    /// Bytes that the kernel copied: to the program, from it, and pages for itself.
    Copied,
    /// Bytes that calls returned, however they got to the program.
    Returned,
    /// Bytes read from disk.
    Disk,
    /// Faults, minor and major.
    Faults,
    /// Nanoseconds asleep for the disk.
    Wait,
    /// Bytes read ahead, used or not.
    Readahead,
    /// Bytes that were read ahead and never used.
    Waste,
}

impl Quantity {
    /// Every one. Who asks for none gets the first that there are stacks of.
    pub const ALL: [Self; 7] = [
        Self::Copied,
        Self::Returned,
        Self::Disk,
        Self::Faults,
        Self::Wait,
        Self::Readahead,
        Self::Waste,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Returned => "returned",
            Self::Disk => "disk",
            Self::Faults => "faults",
            Self::Wait => "wait",
            Self::Readahead => "readahead",
            Self::Waste => "waste",
        }
    }

    /// The words used in titles and messages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Copied => "bytes copied by the kernel",
            Self::Returned => "bytes that calls returned",
            Self::Disk => "bytes read from disk",
            Self::Faults => "page faults",
            Self::Wait => "time asleep for the disk",
            Self::Readahead => "bytes read ahead",
            Self::Waste => "bytes read ahead and never used",
        }
    }

    /// The measures whose sum it is.
    #[must_use]
    pub const fn measures(self) -> &'static [Measure] {
        match self {
            Self::Copied => &[
                Measure::CopiedToUserBytes,
                Measure::CopiedFromUserBytes,
                Measure::CopiedInKernelBytes,
            ],
            Self::Returned => &[Measure::BytesReturned],
            Self::Disk => &[Measure::DiskReadBytes],
            Self::Faults => &[Measure::MinorFaults, Measure::MajorFaults],
            Self::Wait => &[Measure::DiskWaitNs],
            Self::Readahead => &[Measure::ReadaheadBytes],
            Self::Waste => &[Measure::ReadaheadUnusedBytes],
        }
    }

    /// What its numbers count.
    #[must_use]
    pub const fn unit(self) -> Unit {
        self.measures()[0].unit()
    }

    /// What one of it is called beside a number.
    #[must_use]
    pub const fn count_name(self) -> &'static str {
        match self {
            Self::Copied | Self::Returned | Self::Disk | Self::Readahead | Self::Waste => "bytes",
            Self::Faults => "faults",
            Self::Wait => "ns",
        }
    }

    /// The stacks of `recording` that have any of it.
    ///
    /// # Errors
    /// When there are none, and why.
    pub fn stacks(self, recording: &Recording) -> Result<Vec<&Stack>, Missing> {
        any_stacks(recording)?;
        let totals = recording.totals.all_paths();
        let known = |&&measure: &&Measure| totals.get(measure).is_some();
        let counted: Vec<_> = self.measures().iter().filter(known).collect();
        if counted.is_empty() {
            let reasons = footer::reasons(recording, self.measures());
            return Err(Missing::NotMeasured(reasons.join("; ")));
        }
        let stacks = recording.stacks.iter();
        let stacks: Vec<_> = stacks
            .filter(|stack| stack.value > 0 && self.measures().contains(&stack.measure))
            .collect();
        if !stacks.is_empty() {
            return Ok(stacks);
        }
        let none = counted
            .iter()
            .all(|&&measure| totals.get(measure) == Some(0));
        Err(match none {
            true => Missing::Nothing(self),
            false => Missing::NotOfThis(self),
        })
    }

    /// `asked`, or the first that there are stacks of, and these.
    ///
    /// # Errors
    /// When there are none of it, and why.
    pub fn choose(
        asked: Option<Self>,
        recording: &Recording,
    ) -> Result<(Self, Vec<&Stack>), Missing> {
        let of = |quantity: Self| Ok((quantity, quantity.stacks(recording)?));
        if let Some(asked) = asked {
            return of(asked);
        }
        any_stacks(recording)?;
        let mut all = Self::ALL.into_iter();
        all.find_map(|quantity| of(quantity).ok())
            .ok_or(Missing::NothingAtAll)
    }

    /// What of it is not in the picture, because it could not be measured, and why.
    #[must_use]
    pub fn unmeasured(self, recording: &Recording) -> Vec<String> {
        let mut measures = self.measures().to_vec();
        let busy = recording
            .totals
            .iter()
            .filter(|(_, totals)| !totals.is_empty());
        let busy: Vec<_> = busy.map(|(_, totals)| totals).collect();
        measures.retain(|&measure| busy.iter().any(|totals| totals.get(measure).is_none()));
        match measures.is_empty() {
            true => Vec::new(),
            false => footer::reasons(recording, &measures),
        }
    }
}

/// The measures that have stacks.
///
/// # Errors
/// When there are none, and why.
pub(super) fn with_stacks(recording: &Recording) -> Result<Vec<Measure>, Missing> {
    any_stacks(recording)?;
    let mut having = [false; Measure::ALL.len()];
    for stack in recording.stacks.iter().filter(|stack| stack.value > 0) {
        having[stack.measure as usize] = true;
    }
    let measures = Measure::ALL.into_iter().zip(having);
    let measures: Vec<_> = measures
        .filter(|(_, has)| *has)
        .map(|(measure, _)| measure)
        .collect();
    match measures.is_empty() {
        true => Err(Missing::NothingAtAll),
        false => Ok(measures),
    }
}

/// # Errors
/// If the recording has no stacks at all.
fn any_stacks(recording: &Recording) -> Result<(), Missing> {
    match recording.stacks.is_empty() && recording.stack_sampling.is_none() {
        true => Err(Missing::NotTaken),
        false => Ok(()),
    }
}

/// Why there is nothing to draw.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Missing {
    /// Nobody asked for stacks.
    #[error("the recording has no stacks")]
    NotTaken,
    /// The measures are null.
    #[error("not measured: {0}")]
    NotMeasured(String),
    /// They are zero.
    #[error("there is nothing to show: {}: 0", .0.label())]
    Nothing(Quantity),
    /// No measure has stacks.
    #[error("there is nothing to show: no measure has stacks")]
    NothingAtAll,
    /// They are more than zero, but have no stacks.
    #[error("no stacks were taken of {}", .0.label())]
    NotOfThis(Quantity),
    /// More than the format can have.
    #[error("the numbers are too large: their sum is not below 2^64")]
    TooLarge,
}

impl From<Missing> for Failure {
    fn from(missing: Missing) -> Self {
        let failure = Self::own(missing.to_string());
        match missing {
            Missing::NotTaken => failure.remedy(
                "Record again with `mmtrace run --stacks`, or with -o of a format that shows stacks.",
            ),
            Missing::Nothing(_) | Missing::NotMeasured(_) | Missing::NotOfThis(_) => {
                let names = Quantity::ALL.map(Quantity::name).join(", ");
                failure.remedy(format!("--measure takes {names}."))
            }
            Missing::NothingAtAll | Missing::TooLarge => failure,
        }
    }
}
