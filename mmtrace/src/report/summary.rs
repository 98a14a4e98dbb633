//! The first lines: what ran, how it was watched, and where the bytes came from.

use std::cmp::Reverse;

use super::{
    paint::{Paint, Tone},
    table::Options,
    text::Shown,
    units::{amount, count, counted, percent},
};
use crate::recording::{Copies, End, Measures, Path, Recording, Unit};

/// A command keeps this much of its line before other things are left out for it.
const COMMAND_WIDTH: usize = 24;

/// One line: the command, whether anything was lost, how long it took, how it ended, how many
/// processes and threads it had.
pub(super) fn context(recording: &Recording, options: &Options) -> String {
    let target = &recording.target;
    let command = Shown::command(&target.command);
    let alarm = lost(recording).map(|lost| format!("INCOMPLETE, {lost}"));
    let mut facts = vec![
        amount(target.wall_time_ns, Unit::Nanoseconds).to_string(),
        end(target.end),
        counted(target.processes, "process", "processes"),
        counted(target.threads, "thread", "threads"),
    ];
    let gap = 4;
    let line = |facts: &[String]| {
        let alarm = alarm.iter().cloned();
        alarm
            .chain(facts.iter().cloned())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let wanted = command.width().min(COMMAND_WIDTH);
    while facts.len() > 1 && line(&facts).len() + gap + wanted > options.width {
        facts.pop();
    }
    let paint = Paint {
        color: options.color,
    };
    let plain = line(&facts);
    let command = command.keep_start(options.width.saturating_sub(gap + plain.len()));
    let rest = match &alarm {
        Some(alarm) => {
            let rest = &plain[alarm.len()..];
            paint.tone(Tone::Alarm, alarm) + rest
        }
        None => plain,
    };
    format!("{}{:gap$}{rest}", paint.tone(Tone::Strong, &command), "")
}

/// One line: the kernel, the kind of hooks, how copies were found, losses, the audit. The kernel's
/// name is what gives way.
pub(super) fn probes(recording: &Recording, options: &Options) -> String {
    let probes = &recording.probes;
    let copies = probes.copies.says();
    let lost = lost(recording).unwrap_or_else(|| "nothing lost".into());
    let facts = format!(
        ", {}, {copies}, {lost}, {}",
        probes.backend.name(),
        audit(recording)
    );
    let kernel = Shown::prose(&format!("Linux {}", recording.host.kernel));
    let kernel = kernel.keep_start(options.width.saturating_sub(facts.len()).max(KERNEL_WIDTH));
    Shown::prose(&(kernel + &facts)).keep_start(options.width)
}

/// A kernel's name is never cut below this.
const KERNEL_WIDTH: usize = 12;

fn audit(recording: &Recording) -> String {
    let verdicts = || recording.audit.iter().filter_map(|entry| entry.agree);
    let all = verdicts().count();
    let failing = verdicts().filter(|agree| !agree).count();
    match (all, failing) {
        (0, _) => "no audit".into(),
        (_, 0) => format!("audit {all}/{all}"),
        _ => format!("AUDIT {}/{all}", all - failing),
    }
}

pub(super) fn lost(recording: &Recording) -> Option<String> {
    let lost = recording
        .lost
        .values()
        .fold(0, |sum: u64, &count| sum.saturating_add(count));
    (lost > 0).then(|| format!("{} lost", count(lost)))
}

pub(super) fn end(end: Option<End>) -> String {
    match end {
        Some(End::ExitCode(code)) => format!("exit {code}"),
        Some(End::Signal(signal)) => match signal_name(signal) {
            Some(name) => format!("killed by {name}"),
            None => format!("killed by signal {signal}"),
        },
        None => "still running".into(),
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGALRM => "SIGALRM",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        _ => return None,
    })
}

/// Two lines, the answer: which paths read from disk, and which brought bytes to the program.
pub(super) fn answer(recording: &Recording, options: &Options) -> [String; 2] {
    [from_disk(recording), to_program(recording)].map(|(heading, items)| {
        let paint = Paint {
            color: options.color,
        };
        let head = format!("{heading:<HEADING_WIDTH$}");
        let rest = fitting(&items, options.width.saturating_sub(head.len()));
        paint.tone(Tone::Strong, &head) + &rest
    })
}

/// The width of the answer's headings, with the space after them.
const HEADING_WIDTH: usize = 12;

pub(super) fn from_disk(recording: &Recording) -> (&'static str, Vec<String>) {
    let total = recording.totals.all_paths().disk_read_bytes;
    let items = match total {
        None => vec!["not measured".into()],
        Some(0) => vec!["nothing".into()],
        Some(total) => {
            let shares = descending(recording, |row| row.disk_read_bytes);
            let mut items: Vec<_> = shares
                .into_iter()
                .map(|(path, bytes)| format!("{} {}", path.name(), percent(bytes, total)))
                .collect();
            items[0] = format!("{}: {}", amount(total, Unit::Bytes), items[0]);
            items
        }
    };
    ("From disk", items)
}

/// The paths whose calls return bytes to the program.
const RETURNING: [Path; 3] = [Path::Read, Path::Direct, Path::Ipc];

pub(super) fn to_program(recording: &Recording) -> (&'static str, Vec<String>) {
    let mut amounts = Vec::new();
    let mut collect = |verb, paths: Vec<(Path, u64)>| {
        amounts.extend(paths.into_iter().map(|(path, bytes)| (bytes, path, verb)));
    };
    if recording.probes.copies == Copies::Exact {
        collect(
            "copied",
            descending(recording, |row| row.copied_to_user_bytes),
        );
    } else {
        let mut returned = descending(recording, |row| row.bytes_returned);
        returned.retain(|(path, _)| RETURNING.contains(path));
        collect("returned", returned);
    }
    collect("mapped", descending(recording, |row| row.mapped_bytes));
    amounts.sort_by_key(|&(bytes, path, _)| (Reverse(bytes), path));
    let mut items: Vec<_> = amounts
        .into_iter()
        .map(|(bytes, path, verb)| format!("{} {} {verb}", path.name(), amount(bytes, Unit::Bytes)))
        .collect();
    // Where mapped bytes cannot be had, the faults still tell that mappings were used.
    for (path, row) in recording.totals.iter() {
        let faults = faults(row);
        if row.mapped_bytes.is_none() && path != Path::Other && faults > 0 {
            items.push(format!(
                "{} {}",
                path.name(),
                counted(faults, "fault", "faults")
            ));
        }
    }
    if items.is_empty() {
        items.push("nothing".into());
    }
    ("To program", items)
}

pub(super) fn faults(row: &Measures) -> u64 {
    [row.minor_faults, row.major_faults]
        .into_iter()
        .flatten()
        .fold(0, u64::saturating_add)
}

/// The paths for which `measure` is above 0, the largest first.
fn descending(
    recording: &Recording,
    measure: impl Fn(&Measures) -> Option<u64>,
) -> Vec<(Path, u64)> {
    let mut paths: Vec<_> = recording
        .totals
        .iter()
        .filter_map(|(path, row)| Some((path, measure(row).filter(|&value| value > 0)?)))
        .collect();
    paths.sort_by_key(|&(_, value)| Reverse(value));
    paths
}

/// As many of `items` as fit into `width`, with commas, and how many more there are.
pub(super) fn fitting(items: &[impl AsRef<str>], width: usize) -> String {
    let mut shown = items.len();
    loop {
        let mut line = String::new();
        for item in &items[..shown] {
            if !line.is_empty() {
                line += ", ";
            }
            line += item.as_ref();
        }
        if shown < items.len() {
            line += &format!(", {} more", items.len() - shown);
        }
        if line.len() <= width || shown <= 1 {
            return Shown::prose(&line).keep_start(width);
        }
        shown -= 1;
    }
}
