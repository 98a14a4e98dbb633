//! The last lines: the audit, what was lost, what could not be measured.

use super::{
    paint::{Paint, Tone},
    summary::fitting,
    table::Options,
    text::{Shown, wrapped},
    units::{amount, count},
};
use crate::recording::{AuditEntry, Measure, Path, Recording, Unavailable, Unit};

/// The audit: one line when no check fails, all checks with both figures when one does.
pub(super) fn audit(recording: &Recording, options: &Options) -> Vec<String> {
    let paint = Paint {
        color: options.color,
    };
    let entries = &recording.audit;
    let having = |agree| entries.iter().filter(|entry| entry.agree == agree).count();
    let (agreeing, failing, aside) = (having(Some(true)), having(Some(false)), having(None));
    if entries.is_empty() {
        return Vec::new();
    }
    let aside = match aside {
        0 => String::new(),
        aside => format!(", {aside} not applicable"),
    };
    if failing == 0 {
        let checks: Vec<_> = entries
            .iter()
            .filter(|entry| entry.agree == Some(true))
            .map(|entry| entry.check.as_str())
            .collect();
        let line = format!(
            "Audit: {agreeing} of {agreeing} agree{aside}: {}",
            checks.join(", ")
        );
        let line = line.trim_end_matches(": ");
        return vec![Shown::prose(line).keep_start(options.width)];
    }
    let heading = format!("Audit: {failing} of {} DISAGREE{aside}", agreeing + failing);
    let mut lines = vec![paint.tone(Tone::Alarm, &heading)];
    let figures: Vec<_> = entries.iter().map(Figures::of).collect();
    let widest = |text: fn(&Figures) -> &str| figures.iter().map(|f| text(f).len()).max();
    let ours = widest(|f| &f.ours).unwrap_or(0);
    let theirs = widest(|f| &f.theirs).unwrap_or(0);
    let verdict = widest(|f| f.verdict).unwrap_or(0);
    let columns = "  ".len() + verdict + "  ours ".len() + ours + "  kernel's ".len() + theirs + 2;
    let longest = figures.iter().map(|f| f.check.width()).max().unwrap_or(0);
    let check_width = longest.min(options.width.saturating_sub(columns));
    for figure in &figures {
        let check = figure.check.keep_start(check_width);
        let space = check_width - Shown::width_of(&check);
        let line = format!(
            "  {:<verdict$}  {check}{:space$}  ours {:>ours$}  kernel's {:>theirs$}",
            figure.verdict, "", figure.ours, figure.theirs,
        );
        let tone = match figure.agree {
            Some(false) => Tone::Alarm,
            Some(true) => Tone::Plain,
            None => Tone::Quiet,
        };
        lines.push(paint.tone(tone, &Shown::prose(&line).keep_start(options.width)));
        if let Some(note) = &figure.note {
            lines.extend(wrapped(note, verdict + 4, options.width));
        }
    }
    lines
}

struct Figures {
    agree: Option<bool>,
    verdict: &'static str,
    check: Shown,
    ours: String,
    theirs: String,
    note: Option<String>,
}

impl Figures {
    /// The figures exactly: a difference of one byte must show.
    fn of(entry: &AuditEntry) -> Self {
        let figure = |value: Option<u64>| value.map_or("-".into(), count);
        Self {
            agree: entry.agree,
            verdict: match entry.agree {
                Some(true) => "agree",
                Some(false) => "DIFFER",
                None => "n/a",
            },
            check: Shown::prose(&entry.check),
            ours: figure(entry.ours),
            theirs: figure(entry.theirs),
            note: entry.note.clone(),
        }
    }
}

/// The lines in a tone.
fn toned(tone: Tone, lines: &[String], options: &Options) -> Vec<String> {
    let paint = Paint {
        color: options.color,
    };
    lines.iter().map(|line| paint.tone(tone, line)).collect()
}

/// What was lost, by what it is.
pub(super) fn lost(recording: &Recording, options: &Options) -> Vec<String> {
    let lost: Vec<_> = recording
        .lost
        .iter()
        .filter(|&(_, &lost)| lost > 0)
        .map(|(name, &lost)| format!("{} {}", name.replace('_', " "), count(lost)))
        .collect();
    if lost.is_empty() {
        return Vec::new();
    }
    let text = format!("Lost: {}. Some figures may be low.", lost.join(", "));
    toned(Tone::Alarm, &wrapped(&text, 0, options.width), options)
}

/// That a time is an estimate.
pub(super) fn times(recording: &Recording, options: &Options) -> Vec<String> {
    let Some(text) = estimated_times(recording) else {
        return Vec::new();
    };
    toned(Tone::Quiet, &wrapped(&text, 0, options.width), options)
}

/// Which times are estimates, and by how much they may be off.
pub(super) fn estimated_times(recording: &Recording) -> Option<String> {
    let sampling = recording.probes.time_sampling?;
    Some(format!(
        "{} of {} repeated small reads were timed: the kernel time of read may be off by {}.",
        count(sampling.timed),
        count(sampling.stand_for),
        amount(sampling.error_bound_ns, Unit::Nanoseconds),
    ))
}

/// What the grids do not tell.
#[derive(Default)]
pub(super) struct Unknown {
    /// Measures that have a dash somewhere.
    pub(super) dashes: Vec<Measure>,
    /// Whether there is a sum that is a lower bound.
    pub(super) bounds: bool,
    /// Measures for which the first grid has no room.
    pub(super) hidden: Option<Vec<Measure>>,
}

/// What the dashes mean, and what else could not be measured or shown.
pub(super) fn unknown(recording: &Recording, unknown: &Unknown, options: &Options) -> Vec<String> {
    let dashes = &unknown.dashes;
    let mut lines = Vec::new();
    if !dashes.is_empty() {
        let mut text = String::from("A dash could not be measured; a 0 is a true zero.");
        if unknown.bounds {
            text += " A sum with ≥ is of what could.";
        }
        lines.extend(wrapped(&text, 0, options.width));
        for reason in reasons(recording, dashes) {
            lines.extend(wrapped(&reason, 2, options.width));
        }
    }
    let others = others(recording, dashes);
    if !others.is_empty() {
        let either = if dashes.is_empty() { "" } else { " either" };
        let text = format!("Not measured{either}: {}.", others.join(", "));
        lines.extend(wrapped(&text, 0, options.width));
    }
    let hidden = unknown.hidden.as_deref().unwrap_or_default();
    if !hidden.is_empty() {
        let head = "No room for: ";
        let hidden: Vec<_> = hidden.iter().map(|measure| measure.label()).collect();
        lines.push(format!(
            "{head}{}",
            fitting(&hidden, options.width - head.len())
        ));
    }
    toned(Tone::Quiet, &lines, options)
}

/// What could not be measured on any path and has no dash to say so.
fn others(recording: &Recording, dashes: &[Measure]) -> Vec<String> {
    let all = recording.totals.all_paths();
    let mut measures = Measure::ALL.to_vec();
    measures.retain(|&measure| all.get(measure).is_none() && !dashes.contains(&measure));
    let mut others = Vec::new();
    for entry in &recording.probes.unavailable {
        if entry
            .measures
            .iter()
            .any(|measure| measures.contains(measure))
        {
            measures.retain(|measure| !entry.measures.contains(measure));
            others.push(entry.purpose.clone());
        }
    }
    others.extend(measures.iter().map(|measure| measure.label().into()));
    others
}

/// Why `measures` could not be measured, on some path or on all: a line for each reason.
pub(super) fn reasons(recording: &Recording, measures: &[Measure]) -> Vec<String> {
    let mut unexplained = measures.to_vec();
    let mut reasons = Vec::new();
    for entry in &recording.probes.unavailable {
        let explained: Vec<_> = entry
            .measures
            .iter()
            .copied()
            .filter(|measure| measures.contains(measure))
            .collect();
        if !explained.is_empty() {
            unexplained.retain(|measure| !explained.contains(measure));
            reasons.push(reason(&explained, entry));
        }
    }
    if !unexplained.is_empty() {
        reasons.push(format!(
            "{}: the recording gives no reason",
            labels(&unexplained)
        ));
    }
    reasons
}

fn reason(measures: &[Measure], entry: &Unavailable) -> String {
    let paths: Vec<_> = entry.paths.iter().map(|&path| Path::name(path)).collect();
    let paths = match paths.len() {
        0 => String::new(),
        _ => format!(" of {}", paths.join(", ")),
    };
    format!("{}{paths}: {}", labels(measures), entry.reason)
}

/// The words for `measures`, with commas.
pub(super) fn labels(measures: &[Measure]) -> String {
    let labels: Vec<_> = measures.iter().map(|measure| measure.label()).collect();
    labels.join(", ")
}

/// That better kinds of hooks were refused.
pub(super) fn refused(recording: &Recording, options: &Options) -> Vec<String> {
    let names: Vec<_> = recording
        .probes
        .refused
        .iter()
        .map(|refused| refused.backend.name())
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    let text = format!(
        "Better hooks ({}) cannot be had here: `mmtrace doctor` says why, and what that costs.",
        names.join(", ")
    );
    toned(Tone::Quiet, &wrapped(&text, 0, options.width), options)
}
