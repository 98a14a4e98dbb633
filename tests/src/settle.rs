//! What `mmtrace settle` writes, as its documentation describes it.

use std::{
    ffi::OsStr,
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::case::Site;

/// The parts that the checks look at.
#[derive(Debug, Deserialize)]
pub(crate) struct Settlement {
    schema: String,
    pub(crate) size_bytes: u64,
    claims: Vec<Claim>,
    experiments: Vec<Experiment>,
    /// The status that mmtrace ended with.
    #[serde(skip)]
    pub(crate) status: Option<i32>,
    /// What it printed.
    #[serde(skip)]
    pub(crate) text: String,
}

/// A claim with its verdict.
#[derive(Debug, Deserialize)]
pub(crate) struct Claim {
    pub(crate) id: String,
    pub(crate) verdict: String,
    pub(crate) author: Option<Reading>,
    pub(crate) reader: Option<Reading>,
    pub(crate) performance: Option<Performance>,
    pub(crate) repeat: Vec<String>,
}

/// How a claim stands as somebody means it.
#[derive(Debug, Deserialize)]
pub(crate) struct Reading {
    pub(crate) verdict: String,
}

/// What was timed for a claim.
#[derive(Debug, Deserialize)]
pub(crate) struct Performance {
    pub(crate) repetitions: usize,
    pub(crate) cells: Vec<Cell>,
}

/// One combination of conditions.
#[derive(Debug, Deserialize)]
pub(crate) struct Cell {
    pub(crate) skipped: Option<String>,
    pub(crate) contestants: Vec<Contestant>,
}

/// A method's part in it.
#[derive(Debug, Deserialize)]
pub(crate) struct Contestant {
    pub(crate) method: String,
    pub(crate) samples: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Experiment {
    experiment: String,
    values: serde_json::Map<String, serde_json::Value>,
}

impl Settlement {
    /// Settles claims (all, if there are none) with so many bytes, with more options.
    pub(crate) fn of(
        site: &Site,
        claims: &[&str],
        size_bytes: u64,
        options: &[&str],
    ) -> anyhow::Result<Self> {
        let files = ["json", "md", "html"].map(|suffix| site.path(format!("settled.{suffix}")));
        let size = size_bytes.to_string();
        let mut command = Command::new(&site.mmtrace);
        command
            .args(["settle", "--size", &size, "--dir"])
            .arg(&site.directory);
        command
            .args(claims.iter().flat_map(|claim| ["--claim", claim]))
            .args(options);
        for file in &files {
            command.args([OsStr::new("-o"), file.as_os_str()]);
        }
        let output = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let json = fs::read(&files[0]).with_context(|| format!("settle wrote nothing: {said}"))?;
        let mut settlement: Self = serde_json::from_slice(&json)?;
        ensure!(
            settlement.schema == "mmtrace.settlement/1",
            "schema {}",
            settlement.schema
        );
        for file in &files[1..] {
            let text = fs::read_to_string(file)?;
            let mut claims = settlement.claims.iter();
            ensure!(
                claims.all(|claim| text.contains(&claim.id)),
                "{file:?} lacks claims"
            );
        }
        settlement.status = output.status.code();
        settlement.text = String::from_utf8(output.stdout)?;
        for file in files {
            fs::remove_file(file)?;
        }
        Ok(settlement)
    }

    /// A claim.
    pub(crate) fn claim(&self, id: &str) -> anyhow::Result<&Claim> {
        let mut claims = self.claims.iter();
        claims
            .find(|claim| claim.id == id)
            .with_context(|| format!("no claim {id}"))
    }

    /// Each.
    pub(crate) fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// A figure of an experiment; `None` if it is not known.
    pub(crate) fn figure(&self, experiment: &str, figure: &str) -> anyhow::Result<Option<u64>> {
        let mut made = self.experiments.iter();
        let made = made.find(|made| made.experiment == experiment);
        let made = made.with_context(|| format!("no experiment {experiment}"))?;
        let value = made.values.get(figure);
        let value = value.with_context(|| format!("{experiment} has no {figure}"))?;
        Ok(value["number"].as_u64())
    }
}

/// The status and the message of a settlement that is refused.
pub(crate) fn refused(site: &Site, options: &[&OsStr]) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = Command::new(&site.mmtrace);
    let output = command
        .arg("settle")
        .args(options)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.stdout.is_empty(),
        "it went on: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok((output.status.code(), said))
}
