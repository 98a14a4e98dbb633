//! What the witness saw, and the kernel's samples.

use super::{
    paint::{Paint, Tone},
    table::Options,
    text::{Shown, wrapped},
    units::{amount, count, percent},
};
use crate::recording::{KernelSamples, Recording, SampledPath, Unit, WitnessTrial};

/// One line: what was stored to watched bytes, and by whom.
pub(super) fn witness(recording: &Recording, options: &Options) -> Option<String> {
    if recording.witness.is_empty() {
        return None;
    }
    let seen: Vec<_> = recording
        .witness
        .iter()
        .filter(|trial| trial.kernel_stores.is_some())
        .collect();
    let line = if seen.is_empty() {
        let mut notes = recording
            .witness
            .iter()
            .filter_map(|trial| trial.note.as_deref());
        format!(
            "Witness: nothing watched: {}",
            notes.next().unwrap_or("no reason given")
        )
    } else {
        // Of the reads the one that shows most, and last, since its stack is long: of a file on a
        // disk rather than of one in memory.
        let read = seen.iter().rev().find(|trial| trial.trial == "read");
        let others = seen.iter().filter(|trial| trial.trial != "read");
        let told: Vec<String> = others.chain(read).map(|trial| told(trial)).collect();
        let heading = "Witness, the kernel's stores";
        format!("{heading}: {}", told.join(", "))
    };
    Some(Shown::prose(&line).keep_start(options.width))
}

fn told(trial: &WitnessTrial) -> String {
    let what = match trial.trial.as_str() {
        "mmap" => "mapped page",
        "direct" => "O_DIRECT",
        other => other,
    };
    let stores = count(trial.kernel_stores.unwrap_or(0));
    // The functions without where in them: the line is for people.
    let functions = trial.stack.iter().map(|frame| frame.split('+').next());
    let functions: Vec<_> = functions.map(Option::unwrap_or_default).collect();
    if functions.is_empty() {
        format!("{what} {stores}")
    } else {
        format!("{what} {stores}, in {}", functions.join(" < "))
    }
}

/// The table of samples, path by path.
pub(super) fn samples(recording: &Recording, options: &Options) -> Vec<String> {
    let Some(samples) = &recording.kernel_samples else {
        return Vec::new();
    };
    let paint = Paint {
        color: options.color,
    };
    let mut lines = Vec::new();
    if !samples.rows.is_empty() {
        let heading = Line {
            path: "kernel path".into(),
            samples: "samples".into(),
            time: "time".into(),
            copying: "copying".into(),
            interval: "95 % interval".into(),
        };
        let rows: Vec<Line> = samples
            .rows
            .iter()
            .map(|row| Line::of(row, samples))
            .collect();
        let widest = |text: fn(&Line) -> &str| {
            let all = rows.iter().chain([&heading]);
            all.map(|line| text(line).len()).max().unwrap_or(0)
        };
        let widths = [
            widest(|line| &line.path),
            widest(|line| &line.samples),
            widest(|line| &line.time),
            widest(|line| &line.copying),
            widest(|line| &line.interval),
        ];
        lines.push(paint.tone(Tone::Quiet, &heading.laid(widths)));
        lines.extend(rows.iter().map(|line| line.laid(widths)));
    }
    let kernel = samples
        .rows
        .iter()
        .fold(0, |sum: u64, row| sum.saturating_add(row.samples));
    let mut text = format!(
        "Samples, {} a second on each CPU: {} in the kernel, {} in the program. A statistic: the \
         interval is where the true share of copying is, 95 times in 100.",
        count(samples.hz.into()),
        count(kernel),
        count(samples.user)
    );
    if let Some(note) = &samples.note {
        text += &format!(" What copied is not known: {note}.");
    }
    let note = wrapped(&text, 0, options.width);
    lines.extend(note.iter().map(|line| paint.tone(Tone::Quiet, line)));
    lines
}

struct Line {
    path: String,
    samples: String,
    time: String,
    copying: String,
    interval: String,
}

impl Line {
    fn of(row: &SampledPath, samples: &KernelSamples) -> Self {
        let time_ns = u128::from(row.samples) * 1_000_000_000 / u128::from(samples.hz.max(1));
        let time_ns = u64::try_from(time_ns).unwrap_or(u64::MAX);
        let (copying, interval) = match row.in_copy_routines {
            None => ("-".into(), "-".into()),
            Some(copying) => {
                let [low, high] = interval(copying, row.samples);
                let interval = format!("{low:.1} to {high:.1} %");
                (percent(copying, row.samples), interval)
            }
        };
        Self {
            path: row.path.name().into(),
            samples: count(row.samples),
            time: amount(time_ns, Unit::Nanoseconds).to_string(),
            copying,
            interval,
        }
    }

    fn laid(&self, widths: [usize; 5]) -> String {
        let [path, samples, time, copying, interval] = widths;
        format!(
            "{:path$}  {:>samples$}  {:>time$}  {:>copying$}  {:>interval$}",
            self.path, self.samples, self.time, self.copying, self.interval
        )
    }
}

/// Between which percentages a share is, with 95 % confidence, of which `part` of `whole` samples
/// were found: Wilson's interval, which is right for small numbers and shares near 0 and 1 too.
fn interval(part: u64, whole: u64) -> [f64; 2] {
    /// Of the normal distribution, 95 % lie within as many standard deviations.
    const Z: f64 = 1.96;
    if whole == 0 {
        return [0.0, 100.0];
    }
    let n = whole as f64;
    let share = part as f64 / n;
    let middle = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [middle - spread, middle + spread].map(|edge| (edge / scale * 100.0).clamp(0.0, 100.0))
}

#[cfg(test)]
mod tests {
    use super::interval;

    #[test]
    fn the_interval_is_wilsons() {
        // Ten of ten, for instance: from 1 / (1 + 1.96^2 / 10) on.
        for (part, whole, low, high) in [
            (0, 0, 0.0, 100.0),
            (0, 10, 0.0, 27.8),
            (5, 10, 23.7, 76.3),
            (10, 10, 72.2, 100.0),
            (700, 1_000, 67.1, 72.8),
        ] {
            let found = interval(part, whole);
            assert!(
                (found[0] - low).abs() < 0.06 && (found[1] - high).abs() < 0.06,
                "{part} of {whole}: {found:?}"
            );
        }
    }
}
