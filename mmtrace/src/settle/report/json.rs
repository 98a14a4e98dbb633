//! A settlement as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::words::repeat;
use crate::{
    recording::{Host, WitnessTrial},
    report::json::write_lines,
    settle::{
        Settlement, claims,
        experiment::Experiment,
        outcome::Outcome,
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
    backend: &'a str,
    copies: crate::recording::Copies,
    wall_time_ns: u64,
    audit: Audit,
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
    let watched = &settlement.watched;
    let settings = &settlement.settings;
    let [agree, disagree] = watched.audit;
    let made = |outcome| Made {
        outcome,
        does: outcome.experiment.words(),
    };
    let document = Document {
        schema: SCHEMA,
        tool: Tool {
            version: env!("CARGO_PKG_VERSION"),
        },
        host: &watched.host,
        size_bytes: settings.size_bytes,
        directory: settings.directory.to_string_lossy().into_owned(),
        filesystem: watched.filesystem.as_deref(),
        repetitions: settings.repetitions,
        backend: watched.backend,
        copies: watched.copies,
        wall_time_ns: watched.wall_time_ns,
        audit: Audit { agree, disagree },
        witness: &watched.witness,
        claims: settlement
            .tried
            .iter()
            .filter_map(|tried| claim(settlement, tried))
            .collect(),
        experiments: settlement.outcomes.all().iter().map(made).collect(),
    };
    write_lines(&document, LINED, to)
}

fn claim<'a>(settlement: &Settlement, tried: &'a Tried) -> Option<ClaimOut<'a>> {
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
        repeat: repeat(settlement, claim),
    })
}
