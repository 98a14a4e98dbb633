//! A difference as a page.

use super::{
    Compared,
    lines::{HEADINGS, Line, MOST, file_name, lines, ranked, stack_name},
};
use crate::{
    recording::Unit,
    report::{
        html::{escaped, markup},
        text::Shown,
        units::amount,
    },
};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}\
table{border-collapse:collapse;margin:1rem 0}\
th,td{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ccc}\
th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}\
td:first-child{overflow-wrap:anywhere}\
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}th,td{border-color:#444}}";

/// The page: everything is in it.
pub(super) fn page(compared: &Compared<'_>) -> String {
    let difference = &compared.difference;
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>How two runs differ</title><style>{STYLE}</style></head><body>\n\
         <h1>How two runs differ</h1>\n"
    );
    for (side, recording) in compared.sides() {
        let wall = amount(recording.target.wall_time_ns, Unit::Nanoseconds);
        let lost = if recording.lost.is_empty() {
            ""
        } else {
            ", INCOMPLETE"
        };
        page += &format!(
            "<p>{side}: <code>{}</code>, {wall}, {}{lost}</p>\n",
            markup(&Shown::command(&recording.target.command).whole()),
            recording.probes.backend.name(),
        );
    }
    let paths = difference.paths.iter();
    let paths = paths.flat_map(|changed| lines(changed.of.name(), &changed.changes));
    let files = ranked(&difference.files);
    let of_files = files.iter().take(MOST);
    let of_files = of_files.flat_map(|(file, changes)| lines(&file_name(file, 120), changes));
    page += &table("All paths", &lines("", &difference.total));
    page += &table("Path by path", &paths.collect::<Vec<_>>());
    page += &table("File by file", &of_files.collect::<Vec<_>>());
    page += &and_more(files.len());
    if let Some(stacks) = &difference.stacks {
        let stacks = ranked(stacks);
        let shown = stacks.iter().take(MOST);
        let shown = shown.flat_map(|(stack, changes)| lines(&stack_name(stack), changes));
        page += &table("Stack by stack", &shown.collect::<Vec<_>>());
        page += &and_more(stacks.len());
    }
    page + "</body></html>\n"
}

fn and_more(all: usize) -> String {
    match all.saturating_sub(MOST) {
        0 => String::new(),
        more => format!("<p>and {more} more, in JSON</p>\n"),
    }
}

fn table(title: &str, lines: &[Line]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut table = format!("<h2>{}</h2>\n<table><tr>", escaped(title));
    for heading in HEADINGS {
        table += &format!("<th>{heading}</th>");
    }
    table += "</tr>\n";
    for line in lines {
        let cells = line.iter().map(|cell| format!("<td>{}</td>", markup(cell)));
        table += &format!("<tr>{}</tr>\n", cells.collect::<String>());
    }
    table + "</table>\n"
}
