//! The tables, in Markdown.

use std::fmt::Write as _;

use crate::contestant::{Contestant, Family, Figures};
use crate::measure::Measured;
use crate::start::Start;
use crate::statistics::{Interval, median};
use crate::workload::{Loop, ProgramCost};

/// mmtrace's time may be so many times that of empty programs on its hooks.
const GOAL_OF_EMPTY: f64 = 1.25;
/// With stacks, so many times.
const GOAL_OF_EMPTY_WITH_STACKS: f64 = 1.5;
/// mmtrace may add such a part of what bpftrace adds.
const GOAL_OF_BPFTRACE: f64 = 0.5;
const GOAL_START_MS: f64 = 150.0;
const GOAL_MEMORY_MIB: f64 = 64.0;
const GOAL_BINARY_MIB: f64 = 15.0;

/// Everything that was measured.
pub(crate) fn markdown(measured: &Measured) -> String {
    let mut text = String::new();
    write_all(&mut text, measured).expect("a String takes everything");
    text
}

fn write_all(text: &mut String, measured: &Measured) -> std::fmt::Result {
    write_context(text, measured)?;
    write_times(text, measured)?;
    write_goals(text, measured)?;
    if let Some(start) = &measured.start {
        write_start(text, start)?;
    }
    write_programs(text, measured)
}

fn write_context(text: &mut String, measured: &Measured) -> std::fmt::Result {
    let host = nix::sys::utsname::uname();
    let release = host.as_ref().map_or_else(
        |_| "?".to_owned(),
        |host| host.release().to_string_lossy().into_owned(),
    );
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    writeln!(
        text,
        "Linux {release}, {cpus} CPU{}; rounds: {}; samples dropped because the disk was read: {}; \
         a mapping of the file takes {} faults.\n",
        if cpus == 1 { "" } else { "s" },
        measured.rounds,
        measured.disturbed,
        measured.faults_per_mapping,
    )
}

/// Times and what is added to the loop alone.
fn write_times(text: &mut String, measured: &Measured) -> std::fmt::Result {
    let unit = if measured.counts_instructions {
        "instructions"
    } else {
        "ns"
    };
    write!(text, "| {unit} per operation |")?;
    for kind in &measured.loops {
        write!(text, " {} | added |", kind.title())?;
    }
    writeln!(text, "\n|---|{}", "---:|".repeat(2 * measured.loops.len()))?;
    let mut reasons: Vec<String> = Vec::new();
    for &contestant in &measured.contestants {
        if measured
            .loops
            .iter()
            .all(|&kind| times(measured, kind, contestant).is_none())
        {
            let reason = reason(measured, contestant);
            reasons.push(format!("- {contestant}: {reason}"));
            continue;
        }
        write!(text, "| {contestant} |")?;
        for &kind in &measured.loops {
            let cell = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.0}"));
            let time = times(measured, kind, contestant).map(present);
            let added = match contestant {
                Contestant::Alone => None,
                _ => median(&added(measured, kind, contestant)),
            };
            write!(
                text,
                " {} | {} |",
                cell(time.and_then(|t| median(&t))),
                cell(added)
            )?;
        }
        writeln!(text)?;
    }
    if !reasons.is_empty() {
        writeln!(text, "\nNot to be had here:\n{}", reasons.join("\n"))?;
    }
    Ok(())
}

fn write_goals(text: &mut String, measured: &Measured) -> std::fmt::Result {
    writeln!(
        text,
        "\n| mmtrace | loop | times the empty programs (95 %) | goal ≤ {GOAL_OF_EMPTY} \
         | with stacks (95 %) | goal ≤ {GOAL_OF_EMPTY_WITH_STACKS} \
         | of what bpftrace adds for all figures (95 %) | goal ≤ {GOAL_OF_BPFTRACE} \
         | for one sum (95 %) |\n\
         |---|---|---:|---|---:|---|---:|---|---:|"
    )?;
    for family in Family::ALL {
        for &kind in &measured.loops {
            if times(measured, kind, Contestant::Mmtrace(family)).is_none() {
                continue;
            }
            let [of_empty, with_stacks] = [Contestant::Mmtrace(family), Contestant::Stacks(family)]
                .map(|mmtrace| Interval::of(&of_empty(measured, kind, family, mmtrace)));
            let [of_one, of_all] = Figures::BOTH
                .map(|figures| Interval::of(&of_bpftrace(measured, kind, family, figures)));
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                family.name(),
                kind.title(),
                ratio(of_empty),
                verdict(of_empty, GOAL_OF_EMPTY),
                ratio(with_stacks),
                verdict(with_stacks, GOAL_OF_EMPTY_WITH_STACKS),
                ratio(of_all),
                verdict(of_all, GOAL_OF_BPFTRACE),
                ratio(of_one),
            )?;
        }
    }
    Ok(())
}

fn ratio(interval: Option<Interval>) -> String {
    interval.map_or("-".to_owned(), |Interval { low, median, high }| {
        format!("{median:.2} ({low:.2} to {high:.2})")
    })
}

fn verdict(ratio: Option<Interval>, goal: f64) -> &'static str {
    ratio.map_or("not measured", |ratio| ratio.verdict(goal))
}

fn write_start(text: &mut String, start: &Start) -> std::fmt::Result {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let rows = [
        (
            "to the target's first instruction, over running it bare",
            Some(start.to_first_instruction),
            start.to_first_instruction.median,
            "ms",
            Some(GOAL_START_MS),
        ),
        (
            "`mmtrace run -q -- true` over `true`",
            Some(start.whole_run),
            start.whole_run.median,
            "ms",
            None,
        ),
        (
            "most memory resident",
            None,
            mib(start.peak_memory_bytes),
            "MiB",
            Some(GOAL_MEMORY_MIB),
        ),
        (
            "size of the binary",
            None,
            mib(start.binary_bytes),
            "MiB",
            Some(GOAL_BINARY_MIB),
        ),
    ];
    writeln!(text, "\n| mmtrace itself | | goal | |\n|---|---:|---|---|")?;
    for (what, interval, value, unit, goal) in rows {
        write!(text, "| {what} | {value:.1} {unit}")?;
        if let Some(Interval { low, high, .. }) = interval {
            write!(text, " ({low:.1} to {high:.1})")?;
        }
        // A size is what it is.
        let interval = interval.unwrap_or(Interval {
            low: value,
            median: value,
            high: value,
        });
        match goal {
            Some(goal) => writeln!(text, " | ≤ {goal} {unit} | {} |", interval.verdict(goal))?,
            None => writeln!(text, " | | |")?,
        }
    }
    Ok(())
}

fn write_programs(text: &mut String, measured: &Measured) -> std::fmt::Result {
    if measured.programs.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "\n| backend | loop | program | runs per operation | per run, over an empty one \
         | per operation |\n|---|---|---|---:|---:|---:|"
    )?;
    for of in &measured.programs {
        for ProgramCost {
            name,
            runs_per_operation,
            ns_per_run,
        } in &of.sample.programs
        {
            // What ran by chance, at the clock's or another process's pace.
            if *runs_per_operation < 0.001 {
                continue;
            }
            let net = ns_per_run - of.empty_ns;
            writeln!(
                text,
                "| {} | {} | {name} | {runs_per_operation:.3} | {net:.0} | {:.0} |",
                of.family.name(),
                of.kind.title(),
                net * runs_per_operation
            )?;
        }
    }
    Ok(())
}

/// A contestant's times by round; None if it cannot be had.
fn times(measured: &Measured, kind: Loop, contestant: Contestant) -> Option<&[Option<f64>]> {
    result(measured, kind, contestant)?
        .as_ref()
        .ok()
        .map(Vec::as_slice)
}

fn result(
    measured: &Measured,
    kind: Loop,
    contestant: Contestant,
) -> Option<&anyhow::Result<Vec<Option<f64>>>> {
    let kind = measured.loops.iter().position(|&each| each == kind)?;
    let contestant = measured
        .contestants
        .iter()
        .position(|&each| each == contestant)?;
    measured.results.get(kind)?.get(contestant)
}

/// Why a contestant cannot be had.
fn reason(measured: &Measured, contestant: Contestant) -> String {
    let first = measured.loops.first();
    let error = first.and_then(|kind| result(measured, *kind, contestant));
    let error = error.and_then(|times| times.as_ref().err());
    error.map_or_else(|| "unknown".to_owned(), |error| format!("{error:#}"))
}

fn present(times: &[Option<f64>]) -> Vec<f64> {
    times.iter().copied().flatten().collect()
}

/// What a contestant adds to the loop alone, in each round that has both.
fn added(measured: &Measured, kind: Loop, contestant: Contestant) -> Vec<f64> {
    by_round(
        measured,
        kind,
        [Contestant::Alone, contestant],
        |[alone, with]| with - alone,
    )
}

/// The time of `mmtrace` by that of empty programs on its hooks, in each round that has both.
fn of_empty(measured: &Measured, kind: Loop, family: Family, mmtrace: Contestant) -> Vec<f64> {
    let pair = [Contestant::Empty(family), mmtrace];
    by_round(measured, kind, pair, |[empty, mmtrace]| mmtrace / empty)
}

/// What mmtrace adds by what bpftrace adds by the same kind of hooks, which tell the same figures,
/// in each round that has both.
fn of_bpftrace(measured: &Measured, kind: Loop, family: Family, figures: Figures) -> Vec<f64> {
    let three = [
        Contestant::Alone,
        Contestant::Mmtrace(family),
        Contestant::Bpftrace(family, figures),
    ];
    by_round(measured, kind, three, |[alone, mmtrace, bpftrace]| {
        (mmtrace - alone) / (bpftrace - alone)
    })
}

/// Applies `f` to the contestants' times of each round in which all have one.
fn by_round<const N: usize>(
    measured: &Measured,
    kind: Loop,
    contestants: [Contestant; N],
    f: impl Fn([f64; N]) -> f64,
) -> Vec<f64> {
    let columns: Option<Vec<_>> = contestants
        .iter()
        .map(|&contestant| times(measured, kind, contestant))
        .collect();
    let Some(columns) = columns else {
        return Vec::new();
    };
    (0..measured.rounds)
        .filter_map(|round| {
            let values: Option<Vec<f64>> = columns
                .iter()
                .map(|column| column.get(round).copied().flatten())
                .collect();
            Some(f(values?.try_into().ok()?))
        })
        .collect()
}
