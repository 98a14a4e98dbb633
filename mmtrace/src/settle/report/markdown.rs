//! A settlement as Markdown.

use super::{
    Language, headline,
    words::{COLUMNS, both, cells, conditions, ran, repeat, timed},
};
use crate::{
    report::text::Shown,
    settle::{
        Settlement,
        claims::{self, Claim},
        performance,
        verdict::Tried,
    },
};

/// Tells a settlement as Markdown.
#[must_use]
pub fn markdown(settlement: &Settlement, language: Language) -> String {
    let mut out = String::from("# What read and mmap copy\n\n");
    let ways = headline::ways(settlement);
    if !ways.is_empty() {
        out += "```\n";
        out.extend(ways.iter().map(|way| way.line() + "\n"));
        out += "```\n\n";
    }
    out += &format!("{}\n", escaped(&conditions(settlement)));
    for tried in &settlement.tried {
        if let Some(claim) = claims::find(tried.claim) {
            out += &section(settlement, claim, tried, language);
        }
    }
    out
}

fn section(settlement: &Settlement, claim: &Claim, tried: &Tried, language: Language) -> String {
    let [first, second] = both(claim, language);
    let mut out = format!(
        "\n## {}\n\n> {first}\n>\n> {second}\n\n**{}**\n\n",
        claim.id,
        escaped(&tried.verdict.verdict)
    );
    if let Some(outcome) = timed(settlement, claim) {
        out += &format!("```\n{}\n```\n", performance::table(outcome).trim_end());
    }
    if !claim.is_timed() {
        out += &measured(settlement, claim, tried);
    }
    let command = Shown::command(&repeat(settlement, claim)).keep_start(usize::MAX);
    out += &format!("\nAgain: `{command}`\n");
    out
}

/// What was measured of a claim's experiments, and what the rules found.
fn measured(settlement: &Settlement, claim: &Claim, tried: &Tried) -> String {
    let mut out = String::new();
    let headings = COLUMNS.map(|(heading, _)| heading).join(" | ");
    out += &format!("| experiment | what it does | {headings} |\n");
    out += &format!("|---|---|{}\n", "---:|".repeat(COLUMNS.len()));
    for (experiment, outcome) in ran(settlement, claim) {
        let cells = outcome.map_or(COLUMNS.map(|_| "-".to_owned()), cells);
        out += &format!(
            "| {} | {} | {} |\n",
            experiment.name(),
            experiment.words(),
            cells.join(" | ")
        );
    }
    out += "\n| what it is for | experiment | figure | measured | must be | | why |\n";
    out += "|---|---|---|---:|---|---|---|\n";
    for finding in &tried.findings {
        out += &format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            finding.role(),
            finding.experiment.name(),
            finding.figure.label(),
            super::words::shown(&finding.measured, finding.figure.unit()),
            finding.wanted(),
            finding.outcome(),
            finding.why,
        );
    }
    out
}

/// Text in which nothing is Markdown.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in Shown::prose(text).keep_start(usize::MAX).chars() {
        if r"\`*_{}[]<>()#+!|~&".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_text_is_markdown() {
        assert_eq!(escaped("a_b *c* <d>|\n"), r"a\_b \*c\* \<d\>\|\\n");
    }
}
