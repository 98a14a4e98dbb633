//! `mmtrace settle --claim best-performance`: what is timed.

use anyhow::{Context as _, ensure};

use super::settle::settled;
use crate::{
    case::{Case, Need, Site},
    settle::Settlement,
};

pub(super) fn cases() -> Vec<Case> {
    vec![settled(
        "settle/best-performance",
        &[Need::FirstBackend, Need::Cold, Need::Fast],
        best_performance,
    )]
}

/// Who wins is the machine's to say: that it was measured, and told, is not.
fn best_performance(site: &Site) -> anyhow::Result<()> {
    const ID: &str = "best-performance";
    const VERDICTS: [&str; 4] = ["confirmed", "refuted", "partly", "undecided"];
    const METHODS: [&str; 9] = [
        "read",
        "mmap",
        "mmap-sequential",
        "mmap-random",
        "mmap-willneed",
        "mmap-populate",
        "pipe",
        "unix-stream",
        "shared-mapping",
    ];

    let settlement = Settlement::of(site, &[ID], 4_000_037, &["--repeat", "3"])?;
    let claim = settlement.claim(ID)?;
    let verdict = &claim.verdict;
    let known = VERDICTS.iter().find(|word| verdict.starts_with(**word));
    let status = i32::from(*known.context(verdict.clone())? == "undecided");
    ensure!(
        settlement.status == Some(status),
        "status {:?}, {verdict}",
        settlement.status
    );
    ensure!(
        claim
            .repeat
            .starts_with(&["mmtrace", "settle", "--claim", ID].map(String::from)),
        "again: {:?}",
        claim.repeat
    );
    let performance = claim.performance.as_ref().context("nothing was timed")?;
    ensure!(
        performance.repetitions == 3,
        "{} repetitions",
        performance.repetitions
    );
    let measured = performance
        .cells
        .iter()
        .filter(|cell| cell.skipped.is_none())
        .flat_map(|cell| &cell.contestants)
        .filter(|contestant| contestant.samples.len() == 3)
        .map(|contestant| contestant.method.as_str());
    let measured: Vec<&str> = measured.collect();
    let lacking = METHODS.iter().find(|method| !measured.contains(method));
    ensure!(lacking.is_none(), "{lacking:?} was never measured");
    let text = &settlement.text;
    ensure!(text.contains("ns per useful byte"), "no table: {text}");
    Ok(())
}
