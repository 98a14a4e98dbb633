//! The outcome as text, in 80 columns.

use super::{
    outcome::{Cell, Contestant, Method, Outcome},
    workload::{Cache, FileWork, IpcWork, Pattern, Work},
};
use crate::{recording::Unit, report::units::amount};

const FILES: &str = "\
Files: ns per useful byte, the median and its typical deviation; the winner's
factor. Advised: the best of +seq, +rnd, +will (madvise), +pop (MAP_POPULATE).
Hot: opened or mapped once, read again and again. -: not beyond the spread.";
const MESSAGES: &str = "Messages between two processes: ns per byte, likewise.";
/// From this factor on, it is worth telling how much of the disk was read for a useful byte.
pub(super) const TOLD_AMPLIFICATION: f64 = 1.5;
/// From this share on, it is worth telling that samples waited for a processor.
const TOLD_WAITING: f64 = 0.02;

/// The tables of files and of messages, then what of the disk was read for nothing, and what could not
/// be measured. Of what holds for all of it the verdict tells.
#[must_use]
pub fn table(outcome: &Outcome) -> String {
    let mut files = vec![file_row([
        "size", "by", "cache", "thr", "block", "use", "read", "mmap", "advised", "winner",
    ])];
    let mut messages = vec![message_row([
        "size", "use", "pipe", "unix", "shared", "winner",
    ])];
    let mut notes = Vec::new();
    for cell in &outcome.cells {
        match (&cell.skipped, &cell.work) {
            (Some(reason), work) => notes.push(format!("Not measured: {}: {reason}", name(work))),
            (None, Work::File(work)) => files.push(file_line(cell, work)),
            (None, Work::Ipc(work)) => messages.push(message_line(cell, work)),
        }
        notes.extend(amplification(cell));
    }
    let mut text = String::new();
    for (title, lines) in [(FILES, files), (MESSAGES, messages), ("", notes)] {
        let title = (!title.is_empty()).then_some(title);
        for line in title.into_iter().chain(lines.iter().map(String::as_str)) {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// A work's name in sentences.
pub(super) fn name(work: &Work) -> String {
    match work {
        Work::File(work) => format!(
            "{} {} {}, {} thread{}, by {}, {}",
            size(work.size_bytes),
            match work.pattern {
                Pattern::Sequential => "sequential",
                Pattern::Random => "random",
            },
            cache(work),
            work.threads,
            if work.threads == 1 { "" } else { "s" },
            size(work.block_bytes as u64),
            work.consumer.name(),
        ),
        Work::Ipc(work) => format!(
            "messages of {}, {}",
            size(work.message_bytes as u64),
            work.consumer.name()
        ),
    }
}

const fn cache(work: &FileWork) -> &'static str {
    match work.cache {
        Cache::Cold => "cold",
        Cache::Warm if work.passes > 1 => "hot",
        Cache::Warm => "warm",
    }
}

fn file_line(cell: &Cell, work: &FileWork) -> String {
    let of = |method| time(cell.contestant(method));
    let best = cell.fastest(|method| method.is_mapping() && method != Method::Mmap);
    let advice = best.map_or("", |best| short(best.method));
    file_row([
        &size(work.size_bytes),
        match work.pattern {
            Pattern::Sequential => "seq",
            Pattern::Random => "rnd",
        },
        cache(work),
        &work.threads.to_string(),
        &size(work.block_bytes as u64),
        work.consumer.name(),
        &of(Method::Read),
        &of(Method::Mmap),
        format!("{advice} {}", time(best)).trim(),
        &winner(cell),
    ])
}

fn file_row(cells: [&str; 10]) -> String {
    let [
        size,
        order,
        cache,
        threads,
        block,
        consumer,
        read,
        mmap,
        advised,
        winner,
    ] = cells;
    format!(
        "{size:>7} {order:<3} {cache:<4} {threads:>2} {block:>7} {consumer:<5} {read:>9} \
         {mmap:>9} {advised:>14} {winner:>9}"
    )
}

fn message_line(cell: &Cell, work: &IpcWork) -> String {
    let of = |method| time(cell.contestant(method));
    message_row([
        &size(work.message_bytes as u64),
        work.consumer.name(),
        &of(Method::Pipe),
        &of(Method::UnixStream),
        &of(Method::SharedMapping),
        &winner(cell),
    ])
}

fn message_row(cells: [&str; 6]) -> String {
    let [size, consumer, pipe, unix, shared, winner] = cells;
    format!("{size:>7} {consumer:<5} {pipe:>9} {unix:>9} {shared:>9} {winner:>12}")
}

/// A method's name where it is clear that it is a mapping.
fn short(method: Method) -> &'static str {
    let name = method.name();
    match name.strip_prefix("mmap") {
        Some(advice) if !advice.is_empty() => advice,
        _ => name,
    }
}

fn winner(cell: &Cell) -> String {
    cell.winner.map_or_else(
        || "-".into(),
        |winner| {
            let name = short(winner.method);
            format!("{name} {}", three_digits(winner.factor))
        },
    )
}

/// A contestant's median, and its deviation in percent of that.
fn time(contestant: Option<&Contestant>) -> String {
    let spread = contestant.and_then(|contestant| contestant.ns_per_byte);
    spread.map_or_else(String::new, |spread| {
        let percent = 100.0 * spread.deviation / spread.median;
        format!("{}±{percent:.0}%", three_digits(spread.median))
    })
}

/// A positive number with three digits, or all those before the point.
fn three_digits(value: f64) -> String {
    let decimals = match value {
        ..1.0 => 3,
        1.0..9.995 => 2,
        9.995..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// Bytes in their unit, without a fraction of nothing.
pub(super) fn size(bytes: u64) -> String {
    let amount = amount(bytes, Unit::Bytes);
    let number = amount.number.trim_end_matches(".0");
    format!("{number} {}", amount.unit)
}

/// Whether others had the processors, which makes everything differ less clearly.
pub(super) fn busy(outcome: &Outcome) -> Option<String> {
    let waited = outcome.waited().filter(|waited| *waited >= TOLD_WAITING)?;
    Some(format!(
        "The machine was busy: a sample typically waited {:.0} % of its time for a processor",
        100.0 * waited
    ))
}

/// How much of the disk was read for a useful byte in a cell, if it was more than that.
fn amplification(cell: &Cell) -> Option<String> {
    let factors: Vec<(Method, f64)> = cell
        .contestants
        .iter()
        .filter_map(|contestant| Some((contestant.method, contestant.amplification?)))
        .collect();
    let told = factors
        .iter()
        .any(|(_, factor)| *factor >= TOLD_AMPLIFICATION);
    told.then(|| {
        let factors: Vec<String> = factors
            .iter()
            .map(|(method, factor)| format!("{} {}", method.name(), three_digits(*factor)))
            .collect();
        format!(
            "Disk bytes per useful byte, {}:\n  {}",
            name(&cell.work),
            factors.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0123, "0.012"),
            (1.0, "1.00"),
            (9.996, "10.0"),
            (31.04, "31.0"),
            (1234.5, "1234"),
        ] {
            assert_eq!(three_digits(value), text);
        }
    }

    #[test]
    fn sizes_that_are_round_look_round() {
        assert_eq!(size(64), "64 B");
        assert_eq!(size(4_096), "4,096 B");
        assert_eq!(size(256 << 20), "256 MiB");
        assert_eq!(size((5 << 20) / 2), "2.5 MiB");
    }
}
