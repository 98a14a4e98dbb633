//! What mmtrace measured of an experiment: its processes' rows of the recording.

use std::collections::{HashMap, HashSet};

use super::{
    figure::{Evidence, Figure, Value, Values},
    workload::{Report, Step},
};
use crate::recording::{Copies, Measure, Path, Recording, Row};

/// What of a recording cannot be relied on: why.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust {
    /// Of all of its figures.
    lost: Option<String>,
    /// Of some measures, which the kernel counts otherwise.
    disputed: HashMap<Measure, String>,
}

impl Trust {
    pub(super) fn of(recording: &Recording) -> Self {
        // Names and the like change no figure.
        const HARMLESS: [&str; 5] = [
            "names",
            "file_names",
            "process_events",
            "kernel_samples",
            "truths",
        ];

        let lost: Vec<String> = recording
            .lost
            .iter()
            .filter(|(name, count)| **count > 0 && !HARMLESS.contains(&name.as_str()))
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let failing = recording
            .audit
            .iter()
            .filter(|entry| entry.agree == Some(false));
        let disputed = failing.map(|entry| {
            let figure = |number: Option<u64>| number.map_or("-".to_owned(), |it| it.to_string());
            let reason = format!(
                "the audit disagrees: {}, ours {}, the kernel's {}",
                entry.check,
                figure(entry.ours),
                figure(entry.theirs)
            );
            (entry.measure, reason)
        });
        Self {
            lost: (!lost.is_empty())
                .then(|| format!("the recording is incomplete: lost {}", lost.join(", "))),
            disputed: disputed.collect(),
        }
    }

    /// Why a measure cannot be relied on.
    fn lacks(&self, measures: &[Measure]) -> Option<&String> {
        let mut disputed = measures
            .iter()
            .filter_map(|measure| self.disputed.get(measure));
        self.lost.as_ref().or_else(|| disputed.next())
    }
}

/// Paths of work on files.
const FILE_PATHS: [Path; 6] = [
    Path::Read,
    Path::Mmap,
    Path::Write,
    Path::Direct,
    Path::Prefetch,
    Path::Writeback,
];
/// Paths between processes.
const CHANNEL_PATHS: [Path; 2] = [Path::Ipc, Path::Splice];

/// The rows of an experiment's processes on its objects, and on channels.
pub(super) struct Measured<'a> {
    recording: &'a Recording,
    trust: &'a Trust,
    rows: Vec<&'a Row>,
    /// The experiment's first process.
    first: Option<u32>,
    /// Whether it has objects of which the recording knows none: then there is no saying what was
    /// done on them.
    lost_objects: bool,
}

impl<'a> Measured<'a> {
    pub(super) fn of(recording: &'a Recording, report: &Report, trust: &'a Trust) -> Self {
        let is_it = |command: &[std::ffi::OsString]| {
            Step::of_command(command).is_some_and(|step| {
                (step.experiment, step.repetition) == (report.experiment, report.repetition)
            })
        };
        let mut members: HashSet<u32> = HashSet::new();
        let mut first = None;
        // A process comes after the one that started it.
        for process in &recording.processes {
            let inherited = process
                .parent
                .is_some_and(|parent| members.contains(&parent));
            if inherited || is_it(&process.command) {
                members.insert(process.id);
                first = first.or(Some(process.id));
            }
        }
        let objects: HashSet<u32> = recording
            .files
            .iter()
            .filter(|file| {
                report.objects.iter().any(|object| {
                    file.inode == object.inode
                        && (file.device.major, file.device.minor) == (object.major, object.minor)
                })
            })
            .map(|file| file.id)
            .collect();
        let concerns = |row: &&Row| {
            row.process
                .is_some_and(|process| members.contains(&process))
                && (row
                    .file
                    .is_some_and(|file| objects.contains(&file) && FILE_PATHS.contains(&row.path))
                    || CHANNEL_PATHS.contains(&row.path))
        };
        Self {
            recording,
            trust,
            rows: recording.rows.iter().filter(concerns).collect(),
            first,
            lost_objects: !report.objects.is_empty() && objects.is_empty(),
        }
    }

    /// A measure's sum over the rows that `which` chooses; unknown if it is not measured on one of
    /// `paths`.
    fn sum(&self, measure: Measure, paths: &[Path], which: impl Fn(&Row) -> bool) -> Value {
        if self.first.is_none() {
            return Value::unknown("the experiment's process is not in the recording");
        }
        if self.lost_objects {
            return Value::unknown("the experiment's file is not in the recording");
        }
        if let Some(reason) = self.trust.lacks(&[measure]) {
            return Value::unknown(reason.clone());
        }
        if let Some(path) = paths
            .iter()
            .find(|path| self.recording.totals[**path].get(measure).is_none())
        {
            return Value::unknown(self.reason(measure, *path));
        }
        let rows = self
            .rows
            .iter()
            .filter(|row| paths.contains(&row.path) && which(row));
        let sum = rows.filter_map(|row| row.measures.get(measure)).sum();
        Value::known(sum, Evidence::Hooks)
    }

    /// Why a measure is null on a path.
    fn reason(&self, measure: Measure, path: Path) -> String {
        let mut all = self.recording.probes.unavailable.iter();
        let found = all.find(|it| {
            it.measures.contains(&measure) && (it.paths.is_empty() || it.paths.contains(&path))
        });
        found.map_or_else(
            || format!("{} is not measured on {}", measure.label(), path.name()),
            |unavailable| unavailable.reason.clone(),
        )
    }

    /// What the rows and the watched bytes say.
    pub(super) fn values(&self, report: &Report) -> Values {
        let all = |_: &Row| true;
        let first = |row: &Row| row.process == self.first;
        let others = |row: &Row| row.process != self.first;
        let io = [
            Path::Read,
            Path::Write,
            Path::Direct,
            Path::Ipc,
            Path::Splice,
        ];
        let faulting = [Path::Mmap, Path::Prefetch];
        let mut values = Values::new();
        values.insert(
            Figure::DiskReadBytes,
            self.sum(Measure::DiskReadBytes, &FILE_PATHS, all),
        );
        values.insert(Figure::Operations, self.sum(Measure::Operations, &io, all));
        values.insert(
            Figure::ReturnedBytes,
            self.sum(Measure::BytesReturned, &io, all),
        );
        let faults = [Measure::MinorFaults, Measure::MajorFaults]
            .map(|measure| self.sum(measure, &faulting, all));
        values.insert(Figure::Faults, plus(&faults[0], &faults[1]));
        values.insert(
            Figure::CopiedInKernelBytes,
            self.sum(Measure::CopiedInKernelBytes, &[Path::Mmap], all),
        );
        let to_user = [Path::Read, Path::Mmap, Path::Direct, Path::Ipc];
        let from_user = [Path::Write, Path::Mmap, Path::Direct, Path::Ipc];
        let seen_to =
            |which: &dyn Fn(&Row) -> bool| self.seen(Measure::CopiedToUserBytes, &to_user, which);
        let seen_from = |which: &dyn Fn(&Row) -> bool| {
            self.seen(Measure::CopiedFromUserBytes, &from_user, which)
        };
        let exact = self.recording.probes.copies == Copies::Exact;
        let (to, from, own) = if exact {
            let own = plus(&seen_to(&first), &seen_from(&first));
            (seen_to(&all), seen_from(&all), own)
        } else {
            let read = [Path::Read, Path::Direct];
            let to = plus(
                &self.returned(&read, &all),
                &self.returned(&[Path::Ipc], &others),
            );
            let from = plus(
                &self.returned(&[Path::Write], &all),
                &self.returned(&[Path::Ipc], &first),
            );
            let own = self.returned(&[Path::Read, Path::Direct, Path::Write, Path::Ipc], &first);
            (self.watched(to, report), self.not_spliced(from), own)
        };
        values.insert(Figure::Copies, plus(&to, &from));
        values.insert(Figure::CopiedToUserBytes, to);
        values.insert(Figure::CopiedFromUserBytes, from);
        values.insert(Figure::FirstCopies, own);
        values
    }

    fn seen(&self, measure: Measure, paths: &[Path], which: &dyn Fn(&Row) -> bool) -> Value {
        let sum = self.sum(measure, paths, which);
        Value {
            evidence: sum.number.map(|_| Evidence::CopyRoutines),
            ..sum
        }
    }

    fn returned(&self, paths: &[Path], which: &dyn Fn(&Row) -> bool) -> Value {
        let sum = self.sum(Measure::BytesReturned, paths, which);
        Value {
            evidence: sum.number.map(|_| Evidence::Returns),
            ..sum
        }
    }

    /// What calls returned, if the watched bytes show that it was copied: the kernel has stored to
    /// each of them. If it has to none, nothing was copied to where they are.
    fn watched(&self, returned: Value, report: &Report) -> Value {
        if !report.experiment.watched() || returned.number.is_none() {
            return returned;
        }
        let figure = |figure| report.values.get(&figure);
        let number = |name| figure(name).and_then(|value| value.number);
        let evidence = Evidence::ReturnsAndWatchpoints;
        match (number(Figure::WatchedBytes), number(Figure::KernelStores)) {
            (Some(1..), Some(0)) => Value::known(0, evidence),
            (Some(watched), Some(stored)) if watched == stored => Value {
                evidence: Some(evidence),
                ..returned
            },
            (Some(watched), Some(stored)) => Value::unknown(format!(
                "the kernel has stored to {stored} of {watched} watched bytes: what the calls \
                 returned was copied in part"
            )),
            _ => Value::unknown(
                figure(Figure::WatchedBytes)
                    .and_then(|value| value.reason.clone())
                    .unwrap_or_else(|| "no byte was watched".to_owned()),
            ),
        }
    }

    /// What calls returned, unless `vmsplice` took part: it returns what it has not copied.
    fn not_spliced(&self, returned: Value) -> Value {
        let spliced = self.sum(Measure::BytesReturned, &[Path::Splice], |_| true);
        match spliced.number {
            Some(0) => returned,
            _ => Value::unknown(
                "what vmsplice returns need not have been copied; breakpoints on the kernel's copy \
                 routines would tell",
            ),
        }
    }
}

/// The sum of two values, on the weaker evidence.
fn plus(one: &Value, other: &Value) -> Value {
    match (one.number, other.number) {
        (Some(a), Some(b)) => Value {
            number: Some(a + b),
            evidence: one.evidence.max(other.evidence),
            reason: None,
        },
        (None, _) => one.clone(),
        (_, None) => other.clone(),
    }
}
