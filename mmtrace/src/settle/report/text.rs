//! A settlement as text for a terminal.

use super::{
    Language, headline,
    words::{COLUMNS, both, cells, conditions, ran, repeat, timed},
};
use crate::{
    report::text::{Shown, wrapped},
    settle::{
        Settlement,
        claims::{self, Claim},
        performance,
        verdict::Tried,
    },
};

/// The claims by name, with their words.
#[must_use]
pub fn list(language: Language) -> String {
    let widest = claims::all().map(|claim| claim.id.len()).max().unwrap_or(0);
    let line = |claim: &Claim| format!("{:<widest$}  {}\n", claim.id, both(claim, language)[0]);
    claims::all().map(line).collect()
}

/// Tells a settlement in lines of at most `width` columns, where what is in them can be broken.
#[must_use]
pub fn text(settlement: &Settlement, language: Language, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    let ways = headline::ways(settlement);
    lines.extend(ways.iter().map(headline::Way::line));
    if !ways.is_empty() {
        lines.push(String::new());
    }
    lines.extend(wrapped(&conditions(settlement), 0, width));
    for tried in &settlement.tried {
        lines.push(String::new());
        lines.extend(of_claim(settlement, tried, language, width));
    }
    let decided = settlement
        .tried
        .iter()
        .filter(|tried| tried.decided())
        .count();
    lines.push(String::new());
    lines.push(format!(
        "{decided} of {} claims decided",
        settlement.tried.len()
    ));
    lines.join("\n") + "\n"
}

fn of_claim(
    settlement: &Settlement,
    tried: &Tried,
    language: Language,
    width: usize,
) -> Vec<String> {
    let Some(claim) = claims::find(tried.claim) else {
        return Vec::new();
    };
    let mut lines = vec![claim.id.to_owned()];
    for words in both(claim, language) {
        lines.extend(wrapped(words, 2, width));
    }
    match timed(settlement, claim) {
        Some(outcome) => lines.extend(times(outcome, width)),
        None if claim.is_timed() => {}
        None => lines.extend(table(settlement, claim, width)),
    }
    lines.extend(wrapped(&tried.verdict.verdict, 2, width));
    if tried.readings.is_some() {
        lines.extend(
            stacks(settlement, claim)
                .iter()
                .flat_map(|line| wrapped(line, 2, width)),
        );
    }
    let command = Shown::command(&repeat(settlement, claim)).keep_start(usize::MAX);
    lines.push(format!("  again: {command}"));
    lines
}

/// Where the kernel has stored to watched bytes: of the experiments where these could be watched, of
/// mmtrace's own read where not.
fn stacks(settlement: &Settlement, claim: &Claim) -> Vec<String> {
    const FRAMES: usize = 6;

    let line = |whose: &str, stack: &[String]| {
        let frames: Vec<_> = stack.iter().take(FRAMES).map(String::as_str).collect();
        format!(
            "{whose}, the kernel's store to a watched byte: {}",
            frames.join(" < ")
        )
    };
    let of_experiments = ran(settlement, claim)
        .into_iter()
        .filter_map(|(experiment, outcome)| {
            let stack = &outcome?.stack;
            (!stack.is_empty()).then(|| line(&experiment.name(), stack))
        });
    let lines: Vec<String> = of_experiments.collect();
    if !lines.is_empty() {
        return lines;
    }
    let witness = settlement.watched.iter().flat_map(|it| &it.witness);
    let own = witness.into_iter().find(|trial| !trial.stack.is_empty());
    own.map(|trial| line("mmtrace's own read of a file", &trial.stack))
        .into_iter()
        .collect()
}

/// What was timed, in columns, and in sentences that are broken where they are too long. The columns
/// take the whole width of a terminal.
fn times(outcome: &performance::Outcome, width: usize) -> Vec<String> {
    let lines = performance::table(outcome);
    let lines = lines.trim_end().lines().flat_map(|line| {
        if Shown::width_of(line) <= width {
            vec![line.to_owned()]
        } else {
            wrapped(line, 0, width)
        }
    });
    lines.collect()
}

/// What was measured of a claim's experiments.
fn table(settlement: &Settlement, claim: &Claim, width: usize) -> Vec<String> {
    let heading = ["experiment"]
        .into_iter()
        .chain(COLUMNS.map(|(heading, _)| heading));
    let mut rows: Vec<Vec<String>> = vec![heading.map(str::to_owned).collect()];
    let mut failed = Vec::new();
    for (experiment, outcome) in ran(settlement, claim) {
        let mut row = vec![experiment.name()];
        match outcome {
            Some(outcome) => {
                row.extend(cells(outcome));
                let reason = outcome.failed.as_ref();
                failed.extend(reason.map(|reason| format!("{}: {reason}", experiment.name())));
            }
            None => row.extend(COLUMNS.map(|_| "-".to_owned())),
        }
        rows.push(row);
    }
    let mut lines = aligned(&rows, width);
    for reason in failed {
        lines.extend(wrapped(&reason, 4, width));
    }
    lines
}

/// Rows in columns, the first to the left, closer together where they would be too wide.
fn aligned(rows: &[Vec<String>], width: usize) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| Shown::width_of(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let needed = 2 * columns + widths.iter().sum::<usize>();
    let gap = if needed > width { " " } else { "  " };
    let line = |row: &Vec<String>| {
        let mut line = format!("{gap}{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            line += &format!("{gap}{cell:>width$}");
        }
        line
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_closer_together_where_there_is_no_room() {
        let rows = [["experiment", "disk"], ["read", "256.0 MiB"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            aligned(&rows, 23),
            ["  experiment       disk", "  read        256.0 MiB"]
        );
        assert_eq!(
            aligned(&rows, 22),
            [" experiment      disk", " read       256.0 MiB"]
        );
    }
}
