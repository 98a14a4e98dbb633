//! What watching copies costs a program that has the kernel copy and does little else, and whether `auto`
//! stays within its budget.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::measure::Measuring;
use crate::statistics::{Interval, median};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    measuring: Measuring,
    /// How often the program looks up 65,536 elements.
    #[arg(long, default_value_t = 30)]
    passes: u32,
}

/// A way to watch copies.
struct Way {
    options: &'static [&'static str],
    /// What `auto` may add, as a share.
    budget: Option<f64>,
}

/// The first is what the others are compared with.
const WAYS: [Way; 4] = [
    Way {
        options: &["--copies", "returns"],
        budget: None,
    },
    Way {
        options: &["--copies", "exact"],
        budget: None,
    },
    Way {
        options: &["--copies", "auto"],
        budget: Some(0.05),
    },
    Way {
        options: &["--copies", "auto", "--copy-budget", "1"],
        budget: Some(0.01),
    },
];

/// Measures all ways in turn and prints a table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut times: [Vec<f64>; WAYS.len()] = Default::default();
    for round in 0..options.measuring.rounds {
        eprintln!("bench: round {} of {}", round + 1, options.measuring.rounds);
        for (way, times) in WAYS.iter().zip(&mut times) {
            times.push(once(options, way)?);
        }
    }
    let unit = if options.measuring.counts_instructions {
        "instructions"
    } else {
        "ns"
    };
    print!("{}", table(&times, options.measuring.rounds, unit));
    Ok(())
}

/// Runs the program once; gives what an element took, in ns.
fn once(options: &Options, way: &Way) -> Result<f64> {
    let recording = options.measuring.dir.join("budget.json");
    let output = Command::new(&options.measuring.mmtrace)
        .args(["run", "-q", "-o"])
        .arg(&recording)
        .args(way.options)
        .arg("--")
        .arg(std::env::current_exe()?)
        .args(["lookups", "--passes", &options.passes.to_string()])
        .output()
        .with_context(|| format!("cannot start {}", options.measuring.mmtrace.display()))?;
    let says = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mmtrace failed: {says}");
    let recording: Value = serde_json::from_slice(&std::fs::read(&recording)?)?;
    let copies = recording["probes"]["copies"].as_str().unwrap_or("");
    // What could not be watched, or was always, would say nothing of a budget.
    let expected = if way.budget.is_some() {
        "sampled"
    } else {
        way.options[1]
    };
    ensure!(
        copies == expected,
        "copies were taken as \"{copies}\", not as \"{expected}\": see `mmtrace doctor`"
    );
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn table(times: &[Vec<f64>], rounds: usize, unit: &str) -> String {
    let mut text = format!(
        "Rounds: {rounds}. An element is two copies of 4 bytes.\n\n\
         | | {unit} an element | times `returns` (95 %) | budget | |\n|---|---:|---:|---:|---|\n"
    );
    for (way, own) in WAYS.iter().zip(times) {
        let ratios: Vec<f64> = own.iter().zip(&times[0]).map(|(a, b)| a / b).collect();
        let Some((interval, time)) = Interval::of(&ratios).zip(median(own)) else {
            continue;
        };
        let (budget, verdict) = way.budget.map_or((String::new(), ""), |budget| {
            let most = 1.0 + budget;
            (format!("{most:.2}"), interval.verdict(most))
        });
        let Interval { low, median, high } = interval;
        text += &format!(
            "| `{}` | {time:.0} | {median:.3} ({low:.3} to {high:.3}) | {budget} | {verdict} |\n",
            way.options.join(" ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_is_compared_with_the_first_round_by_round() {
        let times = [
            vec![100.0, 200.0],
            vec![1000.0, 2200.0],
            vec![103.0, 208.0],
            vec![102.0, 203.0],
        ];
        let expected = "\
Rounds: 2. An element is two copies of 4 bytes.

| | ns an element | times `returns` (95 %) | budget | |
|---|---:|---:|---:|---|
| `--copies returns` | 150 | 1.000 (1.000 to 1.000) |  |  |
| `--copies exact` | 1600 | 10.500 (10.000 to 11.000) |  |  |
| `--copies auto` | 156 | 1.035 (1.030 to 1.040) | 1.05 | holds |
| `--copies auto --copy-budget 1` | 152 | 1.018 (1.015 to 1.020) | 1.01 | missed |
";
        assert_eq!(table(&times, 2, "ns"), expected);
    }
}
