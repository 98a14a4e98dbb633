//! A settlement as a page that needs nothing else.

use super::{
    Language, headline,
    words::{COLUMNS, both, cells, conditions, ran, repeat, shown, timed},
};
use crate::{
    report::{
        html::{escaped, svg_text},
        text::Shown,
    },
    settle::{
        Settlement,
        claims::{self, Claim},
        performance,
        verdict::Tried,
    },
};

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;\
background:#fff}\
table{border-collapse:collapse;margin:1rem 0;font-size:.85rem}\
td,th{border-bottom:1px solid #ddd;padding:.2rem .6rem;text-align:left;vertical-align:top}\
td.n{text-align:right;white-space:nowrap}\
.verdict{font-weight:600;border-left:.4rem solid #888;padding-left:.6rem}\
.confirmed{border-color:#2a7}.refuted{border-color:#c33}.partly{border-color:#d90}\
pre{font-size:.85rem;overflow-x:auto}\
code{background:#f4f4f4;padding:.1rem .3rem;overflow-wrap:anywhere}\
svg{max-width:100%;height:auto}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}td,th{border-color:#444}\
code{background:#282828}svg{background:#ddd}}";

/// Tells a settlement as a page.
#[must_use]
pub fn html(settlement: &Settlement, language: Language) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>What read and mmap copy</title><style>{STYLE}</style></head><body>\n\
         <h1>What read and mmap copy</h1>\n"
    );
    out += &drawing(&headline::ways(settlement));
    out += &format!("<p>{}</p>\n", escaped(&conditions(settlement)));
    for tried in &settlement.tried {
        if let Some(claim) = claims::find(tried.claim) {
            out += &section(settlement, claim, tried, language);
        }
    }
    out + "</body></html>\n"
}

fn section(settlement: &Settlement, claim: &Claim, tried: &Tried, language: Language) -> String {
    let mut out = format!("<h2 id=\"{0}\">{0}</h2>\n", claim.id);
    for words in both(claim, language) {
        let tongue = if words == claim.chinese { "zh" } else { "en" };
        out += &format!(
            "<blockquote lang=\"{tongue}\">{}</blockquote>\n",
            escaped(words)
        );
    }
    out += &format!(
        "<p class=\"verdict {}\">{}</p>\n",
        tried.verdict.standing.word(),
        escaped(&tried.verdict.verdict)
    );
    if let Some(outcome) = timed(settlement, claim) {
        let table = performance::table(outcome);
        let lines = table.trim_end().lines().map(escaped);
        out += &format!("<pre>{}</pre>\n", lines.collect::<Vec<_>>().join("\n"));
    }
    if !claim.is_timed() {
        out += &measured(settlement, claim, tried);
    }
    let command = Shown::command(&repeat(settlement, claim)).keep_start(usize::MAX);
    out + &format!("<p>Again: <code>{}</code></p>\n", escaped(&command))
}

/// What was measured of a claim's experiments, and what the rules found.
fn measured(settlement: &Settlement, claim: &Claim, tried: &Tried) -> String {
    let mut out = String::from("<table><tr><th>experiment</th><th>what it does</th>");
    out.extend(COLUMNS.map(|(heading, _)| format!("<th>{heading}</th>")));
    out += "</tr>\n";
    for (experiment, outcome) in ran(settlement, claim) {
        out += &format!(
            "<tr><td>{}</td><td>{}</td>",
            experiment.name(),
            escaped(experiment.words())
        );
        let cells = outcome.map_or(COLUMNS.map(|_| "-".to_owned()), cells);
        out.extend(cells.map(|cell| format!("<td class=\"n\">{}</td>", escaped(&cell))));
        out += "</tr>\n";
    }
    out += "</table>\n<details><summary>The rules</summary><table><tr><th>for</th><th>experiment</th>\
            <th>figure</th><th>measured</th><th>must be</th><th></th><th>why</th></tr>\n";
    for finding in &tried.findings {
        out += &format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            finding.role(),
            finding.experiment.name(),
            escaped(finding.figure.label()),
            shown(&finding.measured, finding.figure.unit()),
            escaped(&finding.wanted()),
            finding.outcome(),
            escaped(finding.why),
        );
    }
    out + "</table></details>\n"
}

/// Width of the drawing, and height of each way in it.
const WIDTH: usize = 860;
const HEIGHT: usize = 74;

/// The ways as a drawing: boxes, and arrows between them with the bytes on them.
fn drawing(ways: &[headline::Way]) -> String {
    if ways.is_empty() {
        return String::new();
    }
    let height = HEIGHT * ways.len();
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         aria-label=\"Where the data goes\" font-family=\"sans-serif\" font-size=\"14\">\n\
         <defs><marker id=\"a\" markerWidth=\"8\" markerHeight=\"8\" refX=\"7\" refY=\"4\" \
         orient=\"auto\"><path d=\"M0,0L8,4L0,8z\"/></marker></defs>\n"
    );
    for (row, way) in ways.iter().enumerate() {
        let top = row * HEIGHT + 16;
        out += &svg_text(0, top + 26, "start", "", way.name);
        out += &framed(110, 90, top, "disk", "#cde");
        out += &arrow(200, 370, top, way.disk_bytes);
        if way.mapped {
            out += &framed(370, 480, top, "page cache, mapped into the program", "#ced");
            out += &svg_text(
                610,
                top + 56,
                "middle",
                "",
                &format!("{} copied", headline::bytes(way.copied_bytes)),
            );
        } else {
            out += &framed(370, 130, top, "page cache", "#ced");
            out += &arrow(500, 700, top, way.copied_bytes);
            out += &framed(700, 150, top, "user buffer", "#edc");
        }
    }
    out + "</svg>\n"
}

fn framed(left: usize, width: usize, top: usize, label: &str, fill: &str) -> String {
    format!(
        "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"40\" rx=\"5\" fill=\"{fill}\" \
         stroke=\"#555\"/>{}",
        svg_text(left + width / 2, top + 26, "middle", "", label)
    )
}

fn arrow(from: usize, to: usize, top: usize, bytes: Option<u64>) -> String {
    let dashes = if bytes == Some(0) {
        " stroke-dasharray=\"4 4\""
    } else {
        ""
    };
    format!(
        "<line x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{y}\" stroke=\"#000\" stroke-width=\"2\"{dashes} \
         marker-end=\"url(#a)\"/>{}",
        svg_text(
            (from + to) / 2,
            top + 14,
            "middle",
            "",
            &headline::bytes(bytes)
        ),
        y = top + 22,
    )
}
