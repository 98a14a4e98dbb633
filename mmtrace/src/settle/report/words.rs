//! Words that the reports share.

use super::Language;
use crate::{
    recording::Unit,
    report::units::amount,
    settle::{
        Settlement,
        claims::Claim,
        experiment::Experiment,
        figure::{Figure, Value},
        outcome::Outcome,
        performance, repeat_command,
        rule::{Finding, Role},
    },
};

/// A claim's words, those of the language that comes first before the others.
pub(super) fn both(claim: &Claim, language: Language) -> [&'static str; 2] {
    match language {
        Language::English => [claim.english, claim.chinese],
        Language::Chinese => [claim.chinese, claim.english],
    }
}

/// A number with its unit; a dash if it is not known.
pub(super) fn shown(value: &Value, unit: Unit) -> String {
    let number = value.number;
    number.map_or("-".to_owned(), |number| plain(number, unit))
}

/// A number with its unit, zero bytes too.
pub(super) fn plain(number: u64, unit: Unit) -> String {
    match (number, unit) {
        (0, Unit::Bytes) => "0 B".to_owned(),
        _ => amount(number, unit).to_string(),
    }
}

/// What findings say, in words: what is the same of several experiments is said once.
#[must_use]
pub fn says<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> String {
    let mut said: Vec<(String, Vec<String>)> = Vec::new();
    for finding in findings {
        let what = finding.says();
        let experiment = finding.experiment.name();
        match said.iter_mut().find(|(other, _)| *other == what) {
            Some((_, experiments)) => experiments.push(experiment),
            None => said.push((what, vec![experiment])),
        }
    }
    let said = said
        .iter()
        .map(|(what, experiments)| format!("{what} ({})", experiments.join(", ")));
    said.collect::<Vec<_>>().join("; ")
}

impl Finding {
    /// What was measured, and what must be where that is something else, in words.
    fn says(&self) -> String {
        let unit = self.figure.unit();
        let label = self.figure.label();
        match (self.measured.number, &self.measured.reason) {
            (Some(number), _) if self.holds == Some(true) => {
                format!("{label}: {}", plain(number, unit))
            }
            (Some(number), _) => format!("{label}: {}, {}", plain(number, unit), self.wanted()),
            (None, reason) => {
                let reason = reason.as_deref().unwrap_or("nobody says why");
                format!("{label}: not known, since {reason}")
            }
        }
    }

    /// What it must be.
    #[must_use]
    pub fn wanted(&self) -> String {
        let unit = self.figure.unit();
        match (self.at_least, self.at_most) {
            (Some(least), Some(most)) if least == most => format!("must be {}", plain(least, unit)),
            (Some(least), Some(most)) => {
                format!("must be {} to {}", plain(least, unit), plain(most, unit))
            }
            (Some(least), None) => format!("must be at least {}", plain(least, unit)),
            (None, Some(most)) => format!("must be at most {}", plain(most, unit)),
            (None, None) => "is to be compared with what is not known".to_owned(),
        }
    }

    /// Whether it is so, in a word.
    pub(super) const fn outcome(&self) -> &'static str {
        match self.holds {
            Some(true) => "so",
            Some(false) => "NOT SO",
            None => "unknown",
        }
    }

    /// What it is for, in a word.
    pub(super) const fn role(&self) -> &'static str {
        match self.role {
            Role::Prediction => "claim",
            Role::AuthorPrediction => "author",
            Role::ReaderPrediction => "reader",
            Role::Control | Role::ControlIfHad => "control",
            Role::Note => "note",
        }
    }
}

/// The figures that are shown of every experiment, with a short heading each.
pub(super) const COLUMNS: [(&str, Figure); 6] = [
    ("disk", Figure::DiskReadBytes),
    ("to user", Figure::CopiedToUserBytes),
    ("from user", Figure::CopiedFromUserBytes),
    ("in kernel", Figure::CopiedInKernelBytes),
    ("faults", Figure::Faults),
    ("I/O calls", Figure::Operations),
];

/// What was measured of an experiment, in the order of [`COLUMNS`].
pub(super) fn cells(outcome: &Outcome) -> [String; COLUMNS.len()] {
    COLUMNS.map(|(_, figure)| {
        let value = outcome.values.get(&figure);
        value.map_or("-".to_owned(), |value| shown(value, figure.unit()))
    })
}

/// The experiments of a claim, each once, with what came of it the first time.
pub(super) fn ran<'a>(
    settlement: &'a Settlement,
    claim: &Claim,
) -> Vec<(Experiment, Option<&'a Outcome>)> {
    let mut all: Vec<Experiment> = claim.experiments().collect();
    all.sort();
    all.dedup();
    let of = |experiment| (experiment, settlement.outcomes.find(experiment, 0));
    all.into_iter().map(of).collect()
}

/// What was timed for a claim, if times decide it.
pub(super) fn timed<'a>(
    settlement: &'a Settlement,
    claim: &Claim,
) -> Option<&'a performance::Outcome> {
    let timed = settlement.performance.as_ref();
    timed.filter(|_| claim.is_timed())
}

/// How it was watched, in a line.
pub(super) fn conditions(settlement: &Settlement) -> String {
    let Some(watched) = &settlement.watched else {
        return format!(
            "Linux {}, {} CPUs, in {}; files of {}; timed, and not traced",
            settlement.host.kernel,
            settlement.host.cpus,
            settlement.settings.directory.display(),
            plain(settlement.settings.size_bytes, Unit::Bytes),
        );
    };
    let [agree, disagree] = watched.audit;
    format!(
        "Linux {}, {} CPUs, {} in {}; files of {}, each experiment made {}; {} backend, {}; audit: \
         {agree} agree, {disagree} do not; {}",
        settlement.host.kernel,
        settlement.host.cpus,
        watched.filesystem.as_deref().unwrap_or("a file system"),
        settlement.settings.directory.display(),
        plain(settlement.settings.size_bytes, Unit::Bytes),
        match settlement.settings.counted_repetitions() {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        },
        watched.backend,
        watched.copies.says(),
        amount(watched.wall_time_ns, Unit::Nanoseconds),
    )
}

/// The words of the command that repeats a claim.
pub(super) fn repeat(settlement: &Settlement, claim: &Claim) -> Vec<String> {
    repeat_command(claim, &settlement.settings)
}
