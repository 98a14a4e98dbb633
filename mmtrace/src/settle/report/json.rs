//! A settlement as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::words::{repeat, timed};
use crate::{
    recording::{Host, WitnessTrial},
    report::json::write_lines,
    settle::{
        Settlement, claims,
        experiment::Experiment,
        outcome::Outcome,
        performance,
        rule::Finding,
        verdict::{Standing, Tried, Verdict},
    },
};

/// How deep elements have a line each: the claims' rules do.
const LINED: usize = 4;

/// The version of the format.
const SCHEMA: &str = "mmtrace.settlement/1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    tool: Tool,
    host: &'a Host,
    size_bytes: u64,
    directory: String,
    filesystem: Option<&'a str>,
    repetitions: u32,
    backend: Option<&'a str>,
    copies: Option<crate::recording::Copies>,
    wall_time_ns: Option<u64>,
    audit: Option<Audit>,
    witness: &'a [WitnessTrial],
    claims: Vec<ClaimOut<'a>>,
    experiments: Vec<Made<'a>>,
}

#[derive(Serialize)]
struct Tool {
    version: &'static str,
}

#[derive(Serialize)]
struct Audit {
    agree: usize,
    disagree: usize,
}

#[derive(Serialize)]
struct ClaimOut<'a> {
    id: &'a str,
    english: &'a str,
    chinese: &'a str,
    standing: Standing,
    verdict: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<&'a Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reader: Option<&'a Verdict>,
    experiments: Vec<Experiment>,
    rules: &'a [Finding],
    #[serde(skip_serializing_if = "Option::is_none")]
    performance: Option<&'a performance::Outcome>,
    repeat: Vec<String>,
}

#[derive(Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    outcome: &'a Outcome,
    does: &'static str,
}

/// Writes a settlement as one JSON object.
///
/// # Errors
/// Those of `to`.
pub fn json(settlement: &Settlement, to: &mut dyn Write) -> io::Result<()> {
    let watched = settlement.watched.as_ref();
    let settings = &settlement.settings;
    let made = |outcome| Made {
        outcome,
        does: outcome.experiment.words(),
    };
    let document = Document {
        schema: SCHEMA,
        tool: Tool {
            version: env!("CARGO_PKG_VERSION"),
        },
        host: &settlement.host,
        size_bytes: settings.size_bytes,
        directory: settings.directory.to_string_lossy().into_owned(),
        filesystem: watched.and_then(|it| it.filesystem.as_deref()),
        repetitions: settings.counted_repetitions(),
        backend: watched.map(|it| it.backend),
        copies: watched.map(|it| it.copies),
        wall_time_ns: watched.map(|it| it.wall_time_ns),
        audit: watched.map(|it| Audit {
            agree: it.audit[0],
            disagree: it.audit[1],
        }),
        witness: watched.map_or(&[], |it| &it.witness),
        claims: settlement
            .tried
            .iter()
            .filter_map(|tried| claim(settlement, tried))
            .collect(),
        experiments: settlement.outcomes.all().iter().map(made).collect(),
    };
    write_lines(&document, LINED, to)
}

fn claim<'a>(settlement: &'a Settlement, tried: &'a Tried) -> Option<ClaimOut<'a>> {
    let claim = claims::find(tried.claim)?;
    let mut experiments: Vec<Experiment> = claim.experiments().collect();
    experiments.sort();
    experiments.dedup();
    let reading = |index: usize| tried.readings.as_ref().map(|both| &both[index]);
    Some(ClaimOut {
        id: claim.id,
        english: claim.english,
        chinese: claim.chinese,
        standing: tried.verdict.standing,
        verdict: &tried.verdict.verdict,
        author: reading(0),
        reader: reading(1),
        experiments,
        rules: &tried.findings,
        performance: timed(settlement, claim),
        repeat: repeat(settlement, claim),
    })
}
