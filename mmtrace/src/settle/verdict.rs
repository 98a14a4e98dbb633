//! Verdicts: what the findings say of a claim.

use serde::Serialize;

use super::{
    claims::Claim,
    outcome::Outcomes,
    performance::{self, Ruling},
    report::says,
    rule::{Finding, Role},
};

/// How a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// All that it predicts is so.
    Confirmed,
    /// Nothing that it predicts is so.
    Refuted,
    /// Some of what it predicts is so, and some is not.
    Partly,
    /// It cannot be told.
    Undecided,
}

impl Standing {
    /// The word with which verdicts begin.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Refuted => "refuted",
            Self::Partly => "partly",
            Self::Undecided => "undecided",
        }
    }

    /// Of the predictions that are passed, whatever the controls say.
    fn of<'a>(predictions: impl Iterator<Item = &'a Finding> + Clone) -> Self {
        let any = |holds| predictions.clone().any(|finding| finding.holds == holds);
        match (any(None), any(Some(true)), any(Some(false))) {
            (true, _, _) | (false, false, false) => Self::Undecided,
            (false, true, false) => Self::Confirmed,
            (false, false, true) => Self::Refuted,
            (false, true, true) => Self::Partly,
        }
    }
}

impl From<Ruling> for Standing {
    fn from(ruling: Ruling) -> Self {
        match ruling {
            Ruling::Confirmed => Self::Confirmed,
            Ruling::Refuted => Self::Refuted,
            Ruling::Partly => Self::Partly,
            Ruling::Undecided => Self::Undecided,
        }
    }
}

/// How one reading of a claim stands, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How it stands.
    pub standing: Standing,
    /// In words, beginning with the standing's.
    pub verdict: String,
}

/// A claim that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Which.
    pub claim: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// How it stands as its author means it and as the reader does, where these differ.
    pub readings: Option<[Verdict; 2]>,
    /// What every rule found.
    pub findings: Vec<Finding>,
}

impl Tried {
    /// Tries a claim on what was measured.
    #[must_use]
    pub fn new(claim: &Claim, outcomes: &Outcomes) -> Self {
        let findings: Vec<Finding> = claim
            .rules
            .iter()
            .map(|rule| rule.apply(outcomes))
            .collect();
        let reading = |roles: &[Role]| reading(&findings, roles);
        let (verdict, readings) = if claim.has_readings() {
            let author = reading(&[Role::Prediction, Role::AuthorPrediction]);
            let reader = reading(&[Role::Prediction, Role::ReaderPrediction]);
            (both(&author, &reader), Some([author, reader]))
        } else {
            (reading(&[Role::Prediction]), None)
        };
        Self {
            claim: claim.id,
            verdict,
            readings,
            findings,
        }
    }

    /// Judges a claim by what was timed, or by why nothing could be.
    #[must_use]
    pub fn timed(claim: &Claim, timed: &Result<performance::Outcome, String>) -> Self {
        let verdict = match timed {
            Ok(outcome) => {
                let judged = performance::verdict(outcome);
                Verdict {
                    standing: judged.ruling.into(),
                    verdict: judged.text,
                }
            }
            Err(reason) => Verdict {
                standing: Standing::Undecided,
                verdict: format!("undecided: it could not be measured: {reason}."),
            },
        };
        Self {
            claim: claim.id,
            verdict,
            readings: None,
            findings: Vec::new(),
        }
    }

    /// Whether it, or each reading of it, was decided.
    #[must_use]
    pub fn decided(&self) -> bool {
        let readings = self.readings.iter().flatten();
        readings
            .chain([&self.verdict])
            .all(|it| it.standing != Standing::Undecided)
    }
}

/// The verdict on a claim that two read differently.
fn both(author: &Verdict, reader: &Verdict) -> Verdict {
    let undecided = [author, reader]
        .iter()
        .any(|it| it.standing == Standing::Undecided);
    let (standing, begins) = match undecided {
        true => (Standing::Undecided, "undecided: "),
        false => (author.standing, ""),
    };
    Verdict {
        standing,
        verdict: format!(
            "{begins}{} as the author means it; {} as the reader does. The author's: {} The \
             reader's: {}",
            author.standing.word(),
            reader.standing.word(),
            sentence(&author.verdict),
            sentence(&reader.verdict),
        ),
    }
}

/// What follows the standing in a verdict.
fn sentence(verdict: &str) -> &str {
    verdict.split_once(": ").map_or(verdict, |(_, rest)| rest)
}

/// The verdict on the predictions with these roles.
fn reading(findings: &[Finding], roles: &[Role]) -> Verdict {
    let predictions = || {
        findings
            .iter()
            .filter(|finding| roles.contains(&finding.role))
    };
    let spoilt = findings.iter().find(|finding| match finding.role {
        Role::Control => finding.holds != Some(true),
        Role::ControlIfHad => finding.holds == Some(false),
        _ => false,
    });
    if let Some(control) = spoilt {
        return Verdict {
            standing: Standing::Undecided,
            verdict: format!("undecided: {}.", says([control])),
        };
    }
    let standing = Standing::of(predictions());
    let having = |holds| says(predictions().filter(|finding| finding.holds == holds));
    let text = match standing {
        Standing::Confirmed => having(Some(true)),
        Standing::Refuted => having(Some(false)),
        Standing::Partly => format!(
            "this is so: {}; this is not: {}",
            having(Some(true)),
            having(Some(false))
        ),
        Standing::Undecided => {
            let known = [("this is so", Some(true)), ("this is not", Some(false))];
            let known = known.map(|(words, holds)| match having(holds) {
                text if text.is_empty() => text,
                text => format!(". Known is, {words}: {text}"),
            });
            format!("{}{}", having(None), known.concat())
        }
    };
    let mut evidence: Vec<_> = predictions().filter_map(Finding::evidence).collect();
    evidence.sort();
    evidence.dedup();
    let evidence: Vec<_> = evidence.iter().map(|it| it.words()).collect();
    let evidence = match evidence.is_empty() {
        true => String::new(),
        false => format!(" Evidence: {}.", evidence.join(", ")),
    };
    Verdict {
        standing,
        verdict: format!("{}: {text}.{evidence}", standing.word()),
    }
}

#[cfg(test)]
mod tests;
