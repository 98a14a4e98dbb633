//! The parts of the page that need no script.

use super::flow;
use crate::{
    recording::{AuditEntry, Measure, Measures, Path, Recording, Unavailable, Unit},
    report::{
        footer, grid,
        html::{escaped, markup},
        observed, reasons, summary,
        table::Options,
        text::Shown,
        units::{amount, count, counted},
    },
};

use super::drawing;

/// Lines of text are not cut for want of room here.
const WIDE: Options = Options::new(100_000, false);

/// How much of a command is its heading.
const HEADING_WIDTH: usize = 300;

/// The command, for the window's title.
pub(super) fn title(recording: &Recording) -> String {
    markup(&Shown::command(&recording.target.command).keep_start(80))
}

/// What ran, how it ended, how it was watched.
pub(super) fn context(recording: &Recording) -> String {
    let target = &recording.target;
    let command = Shown::command(&target.command).keep_start(HEADING_WIDTH);
    let host = &recording.host;
    let mut facts = vec![
        (
            "wall time",
            amount(target.wall_time_ns, Unit::Nanoseconds).to_string(),
            "",
        ),
        ("ended", summary::end(target.end), ""),
        ("processes", count(target.processes), ""),
        ("threads", count(target.threads), ""),
        (
            "kernel",
            format!("Linux {}, {}", host.kernel, host.arch),
            "",
        ),
        ("CPUs", count(host.cpus.into()), ""),
        ("hooks", recording.probes.backend.name().into(), ""),
        ("copies", recording.probes.copies.says().into(), ""),
    ];
    facts.push(match summary::lost(recording) {
        Some(lost) => ("losses", format!("INCOMPLETE, {lost}"), "alarm"),
        None => ("losses", "nothing lost".into(), ""),
    });
    facts.push(match verdicts(recording) {
        [0, 0, _] => ("audit", "none".into(), ""),
        [agreeing, 0, _] => ("audit", format!("{agreeing} of {agreeing}"), ""),
        [agreeing, failing, _] => (
            "audit",
            format!("{failing} of {} DISAGREE", agreeing + failing),
            "alarm",
        ),
    });
    let mut out = format!(
        "<h1><code>{}</code></h1>\n<dl class=\"facts\">\n",
        markup(&command)
    );
    for (name, value, class) in facts {
        out += &format!(
            "<div class=\"{class}\"><dt>{name}</dt><dd>{}</dd></div>\n",
            escaped(&value)
        );
    }
    out + "</dl>\n"
}

/// Where the bytes came from, in two lines.
pub(super) fn answer(recording: &Recording) -> String {
    let lines = [
        summary::from_disk(recording),
        summary::to_program(recording),
    ];
    let mut out = String::from("<dl class=\"answer\">\n");
    for (heading, items) in lines {
        out += &format!("<div><dt>{heading}</dt>");
        for item in items {
            out += &format!("<dd>{}</dd>", escaped(&item));
        }
        out += "</div>\n";
    }
    out + "</dl>\n"
}

/// The drawing.
pub(super) fn flows(recording: &Recording) -> String {
    drawing::draw(&flow::lanes(recording)) + &estimates(recording)
}

/// By how much sampled copies may be off.
fn estimates(recording: &Recording) -> String {
    let Some(sampling) = &recording.probes.copy_sampling else {
        return String::new();
    };
    let bound = |bytes| amount(bytes, Unit::Bytes).to_string();
    let bounds: Vec<_> = sampling
        .error_bounds
        .iter()
        .map(|(path, error)| {
            format!(
                "{path} ±{} to user and ±{} from user",
                bound(error.copied_to_user_bytes),
                bound(error.copied_from_user_bytes)
            )
        })
        .collect();
    let bounds = match bounds.is_empty() {
        true => "no bounds of the error are known".into(),
        false => bounds.join(", "),
    };
    format!(
        "<p class=\"quiet\">Copies were sampled, so copied bytes are estimates: {}.</p>\n",
        escaped(&bounds)
    )
}

/// All measures of all paths.
pub(super) fn totals(recording: &Recording) -> String {
    let times = footer::estimated_times(recording)
        .map(|times| format!("<p class=\"quiet\">{}</p>\n", escaped(&times)));
    measures(recording) + &times.unwrap_or_default()
}

fn measures(recording: &Recording) -> String {
    let worked: Vec<(Path, &Measures)> = recording
        .totals
        .iter()
        .filter(|(_, totals)| !totals.is_empty())
        .collect();
    let mut out = String::new();
    if worked.is_empty() {
        out += "<p class=\"absent\">0: no path did any work in this run.</p>\n";
    } else {
        out += "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Paths and measures\">\
                <table class=\"totals\"><thead><tr><th scope=\"col\">measure</th>";
        for (path, _) in &worked {
            let name = path.name();
            out += &format!(
                "<th scope=\"col\" class=\"n\"><i class=\"swatch p-{name}\"></i>{name}</th>"
            );
        }
        out += "<th scope=\"col\" class=\"n\">total</th></tr></thead><tbody>\n";
        for (measure, ..) in grid::columns() {
            out += &format!("<tr><th scope=\"row\">{}</th>", measure.label());
            let mut sum = grid::Sum::default();
            for (path, totals) in &worked {
                out += &cell(recording, *path, totals, measure);
                sum.add(totals);
            }
            let total = sum.amount(measure);
            out += &match total {
                Some(total) => format!("<td class=\"n\">{total}</td>"),
                None => null(&footer::reasons(recording, &[measure]).join("; ")),
            };
            out += "</tr>\n";
        }
        out += "</tbody></table></div>\n";
    }
    let (unmeasured, idle): (Vec<_>, Vec<_>) = recording
        .totals
        .iter()
        .filter(|(_, totals)| totals.is_empty())
        .partition(|(_, totals)| **totals == Measures::default());
    let names = |paths: &[(Path, &Measures)]| {
        let names = paths.iter().map(|(path, _)| path.name());
        names.collect::<Vec<_>>().join(", ")
    };
    if !idle.is_empty() {
        out += &format!(
            "<p>Paths with no work, 0 in all that was measured: {}.</p>\n",
            names(&idle)
        );
    }
    if !unmeasured.is_empty() {
        out += &format!(
            "<p>Paths that were not measured: {}.</p>\n",
            names(&unmeasured)
        );
    }
    out + "<p class=\"quiet\">A dash could not be measured, and says why when pointed at; the reasons \
           are listed <a href=\"#unknown\">below</a>. A 0 is a true zero. A sum with ≥ is of what could \
           be measured.</p>\n"
}

fn cell(recording: &Recording, path: Path, totals: &Measures, measure: Measure) -> String {
    match totals.get(measure) {
        Some(0) => "<td class=\"n zero\">0</td>".into(),
        Some(value) => format!("<td class=\"n\">{}</td>", amount(value, measure.unit())),
        None => null(reasons::on(recording, measure, path)),
    }
}

fn null(reason: &str) -> String {
    format!(
        "<td class=\"n null\" title=\"not measured: {}\"><span aria-label=\"not measured\">–</span></td>",
        escaped(reason)
    )
}

/// How many checks of the audit agree, do not, and do not apply.
fn verdicts(recording: &Recording) -> [usize; 3] {
    [Some(true), Some(false), None].map(|agree| {
        let entries = recording.audit.iter();
        entries.filter(|entry| entry.agree == agree).count()
    })
}

/// The figures beside the kernel's own.
pub(super) fn audit(recording: &Recording) -> String {
    if recording.audit.is_empty() {
        return "<p class=\"absent\">This run was not audited.</p>\n".into();
    }
    let [agreeing, failing, aside] = verdicts(recording);
    let class = if failing > 0 { " class=\"alarm\"" } else { "" };
    let mut out = format!("<p{class}>{agreeing} of {} agree", agreeing + failing);
    if failing > 0 {
        out += &format!(", {failing} DISAGREE");
    }
    if aside > 0 {
        out += &format!(", {aside} not applicable");
    }
    out += ".</p>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Audit\">\
            <table class=\"audit\"><thead><tr><th scope=\"col\">check</th><th scope=\"col\" class=\"n\">ours</th>\
            <th scope=\"col\" class=\"n\">the kernel’s</th><th scope=\"col\">verdict</th>\
            <th scope=\"col\">note</th></tr></thead><tbody>\n";
    out.extend(recording.audit.iter().map(check));
    out + "</tbody></table></div>\n"
}

fn check(entry: &AuditEntry) -> String {
    // Exactly: a difference of one byte must show.
    let figure = |value: Option<u64>| value.map_or("–".into(), count);
    let (class, verdict) = match entry.agree {
        Some(true) => ("good", "agree"),
        Some(false) => ("alarm", "DIFFER"),
        None => ("quiet", "not applicable"),
    };
    format!(
        "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td>\
         <td class=\"{class}\">{verdict}</td><td class=\"note\">{}</td></tr>\n",
        escaped(&entry.check),
        figure(entry.ours),
        figure(entry.theirs),
        escaped(entry.note.as_deref().unwrap_or_default()),
    )
}

/// What the witness saw, and the kernel's samples.
pub(super) fn observed(recording: &Recording) -> String {
    let mut out = String::new();
    if let Some(line) = observed::witness(recording, &WIDE) {
        out += &format!("<p>{}</p>\n", markup(&line));
    }
    let samples = observed::samples(recording, &WIDE);
    if let Some((note, table)) = samples.split_last() {
        let table: Vec<_> = table.iter().map(|line| markup(line)).collect();
        if !table.is_empty() {
            out += &format!(
                "<pre class=\"scroll\" tabindex=\"0\">{}</pre>\n",
                table.join("\n")
            );
        }
        out += &format!("<p class=\"quiet\">{}</p>\n", markup(note));
    }
    match out.is_empty() {
        true => String::new(),
        false => {
            format!("<section id=\"observed\"><h2>Seen by other means</h2>\n{out}</section>\n")
        }
    }
}

/// What could not be measured, and why.
pub(super) fn unknown(recording: &Recording) -> String {
    let probes = &recording.probes;
    if probes.unavailable.is_empty() && probes.refused.is_empty() {
        return "<p>Everything could be measured.</p>\n".into();
    }
    let mut out = String::from("<ul class=\"reasons\">\n");
    for entry in &probes.unavailable {
        out += &format!(
            "<li><strong>{}</strong>: {}{}</li>\n",
            escaped(&entry.purpose.replace('_', " ")),
            escaped(&entry.reason),
            nulls(entry)
        );
    }
    for refused in &probes.refused {
        out += &format!(
            "<li><strong>{} hooks</strong>: {}</li>\n",
            refused.backend.name(),
            escaped(&refused.reason)
        );
    }
    out + "</ul>\n"
}

fn nulls(entry: &Unavailable) -> String {
    if entry.measures.is_empty() {
        return String::new();
    }
    let of = match entry.paths.is_empty() {
        true => "all paths".into(),
        false => {
            let names: Vec<_> = entry.paths.iter().map(|&path| Path::name(path)).collect();
            names.join(", ")
        }
    };
    format!(
        " <span class=\"quiet\">(a dash: {} of {of})</span>",
        footer::labels(&entry.measures)
    )
}

/// What was lost.
pub(super) fn lost(recording: &Recording) -> String {
    let lost: Vec<_> = recording
        .lost
        .iter()
        .filter(|(_, lost)| **lost > 0)
        .collect();
    if lost.is_empty() {
        return "<p>Nothing was lost.</p>\n".into();
    }
    let mut out = String::from("<p class=\"alarm\">Some figures may be low.</p>\n<ul>\n");
    for (name, lost) in lost {
        out += &format!(
            "<li>{}: {}</li>\n",
            escaped(&name.replace('_', " ")),
            count(*lost)
        );
    }
    out + "</ul>\n"
}

/// How stacks were taken, and what they leave open.
pub(super) fn stack_sampling(recording: &Recording) -> String {
    let Some(sampling) = &recording.stack_sampling else {
        return "<p class=\"absent\">No stacks were asked for in this run.</p>\n".into();
    };
    let mut out = format!(
        "<p class=\"quiet\">Stacks of {} of {}, by {}. The sums are exact; which stacks they \
         belong to is sampled.",
        count(sampling.taken),
        counted(sampling.moments, "moment", "moments"),
        escaped(&sampling.unwinding),
    );
    out += "</p>\n";
    for note in &sampling.notes {
        out += &format!("<p class=\"quiet\">Left open: {}</p>\n", escaped(note));
    }
    out
}

/// How this page was made.
pub(super) fn made(recording: &Recording) -> String {
    format!("Made by mmtrace {}", escaped(&recording.tool.version))
}

/// The hooks that were attached.
pub(super) fn hooks(recording: &Recording) -> String {
    let mut out = format!(
        "<details><summary>{}</summary><div class=\"scroll\"><table><thead><tr><th>hook</th>\
         <th>kind</th><th>purpose</th><th class=\"n\">hits</th></tr></thead><tbody>\n",
        counted(recording.probes.hooks.len() as u64, "hook", "hooks")
    );
    for hook in &recording.probes.hooks {
        let hits = hook.hits.map_or("–".into(), count);
        out += &format!(
            "<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td class=\"n\">{hits}</td></tr>\n",
            escaped(&hook.name),
            escaped(&hook.kind),
            escaped(&hook.purpose.replace('_', " ")),
        );
    }
    out + "</tbody></table></div></details>\n"
}
