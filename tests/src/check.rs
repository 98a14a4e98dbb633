//! What is asserted of a recording, case by case.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    recording::{Audit, Recording, Row, Samples, Watched},
    truth::KernelTruth,
};

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every figure was as it must be.
    Passed,
    /// Some were not: both numbers of each.
    Failed(Vec<String>),
    /// It could not be tried, or this kernel cannot give a figure that it needs.
    Skipped(String),
}

/// Which rows.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    file: Option<PathBuf>,
    paths: Vec<&'static str>,
}

/// The rows of `file` on `path`.
pub(crate) fn on(file: &Path, path: &'static str) -> Rows {
    on_any(file, &[path])
}

/// The rows of `file` on any of `paths`.
pub(crate) fn on_any(file: &Path, paths: &[&'static str]) -> Rows {
    Rows {
        file: Some(file.to_owned()),
        paths: paths.to_vec(),
    }
}

/// The rows of every file, and of none, on `path`.
pub(crate) fn all_on(path: &'static str) -> Rows {
    Rows {
        file: None,
        paths: vec![path],
    }
}

/// Every row.
pub(crate) fn everything() -> Rows {
    Rows {
        file: None,
        paths: PATHS.to_vec(),
    }
}

/// Every row of `file`.
pub(crate) fn all_of(file: &Path) -> Rows {
    on_any(file, &PATHS)
}

/// Every row of `file`, except those on `path`.
pub(crate) fn not_on(file: &Path, path: &'static str) -> Rows {
    let mut rows = all_of(file);
    rows.paths.retain(|other| *other != path);
    rows
}

/// Every path.
pub(crate) const PATHS: [&str; 12] = [
    "read",
    "mmap",
    "exec",
    "write",
    "direct",
    "splice",
    "ipc",
    "prefetch",
    "swap",
    "writeback",
    "metadata",
    "other",
];

impl std::fmt::Display for Rows {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.paths.len() < PATHS.len() / 2 {
            write!(formatter, "{}", self.paths.join("+"))?;
        } else {
            write!(formatter, "all")?;
            for left_out in PATHS.iter().filter(|path| !self.paths.contains(path)) {
                write!(formatter, " but {left_out}")?;
            }
        }
        match &self.file {
            Some(file) => write!(formatter, " of {:?}", file.file_name().unwrap_or_default()),
            None => Ok(()),
        }
    }
}

/// Compares the rows of some processes of a recording with what they must be.
pub(crate) struct Check<'a> {
    recording: &'a Recording,
    processes: BTreeSet<u64>,
    compared: usize,
    failures: Vec<String>,
    unavailable: Option<String>,
}

impl<'a> Check<'a> {
    /// Looks at `processes`' rows only.
    pub(crate) fn new(recording: &'a Recording, processes: BTreeSet<u64>) -> Self {
        Self {
            recording,
            processes,
            compared: 0,
            failures: Vec::new(),
            unavailable: None,
        }
    }

    /// Requires the sum of `measure` over `rows` to be `expected`.
    pub(crate) fn equal(&mut self, rows: &Rows, measure: &str, expected: u64) {
        self.require(rows, measure, "", expected, |sum| sum == expected);
    }

    /// Requires the sum of `measure` over `rows` to be at least `least`.
    pub(crate) fn at_least(&mut self, rows: &Rows, measure: &str, least: u64) {
        self.require(rows, measure, "at least ", least, |sum| sum >= least);
    }

    /// Requires the sum of `measure` over `rows` to be at most `most`.
    pub(crate) fn at_most(&mut self, rows: &Rows, measure: &str, most: u64) {
        self.require(rows, measure, "at most ", most, |sum| sum <= most);
    }

    /// Requires both kinds of faults of `rows` to add up to `expected`.
    pub(crate) fn faults(&mut self, rows: &Rows, expected: u64) {
        self.require_faults(rows, &expected.to_string(), |sum| sum == expected);
    }

    /// Requires a fault, of either kind, of `rows`.
    pub(crate) fn some_faults(&mut self, rows: &Rows) {
        self.require_faults(rows, "at least 1", |sum| sum > 0);
    }

    /// Requires a measure of `rows` to be the same in each of the processes that has such rows, and
    /// requires `processes` of them.
    pub(crate) fn each_process(
        &mut self,
        rows: &Rows,
        measure: &str,
        expected: u64,
        processes: usize,
    ) {
        let selected = self.select(rows);
        let having: BTreeSet<u64> = selected.iter().filter_map(|row| row.process).collect();
        self.that(having.len() == processes, || {
            format!(
                "processes with rows ({rows}): recorded {}, must be {processes}",
                having.len()
            )
        });
        for process in having {
            let of_process = selected.iter().filter(|row| row.process == Some(process));
            match of_process
                .map(|row| row.measures.get(measure).copied().flatten())
                .sum::<Option<u64>>()
            {
                Some(sum) => self.that(sum == expected, || {
                    format!("{measure} of process {process} ({rows}): recorded {sum}, must be {expected}")
                }),
                None => self.lacks(measure, rows.paths[0]),
            }
        }
    }

    /// The sum of `measure` over `rows` for each process, in the order in which they started; `None`,
    /// noted, when it is null somewhere.
    pub(crate) fn by_process(&mut self, rows: &Rows, measure: &str) -> Option<Vec<u64>> {
        self.sum(rows, measure)?;
        let selected = self.select(rows);
        let of_process = |process: &u64| {
            let rows = selected.iter().filter(|row| row.process == Some(*process));
            rows.filter_map(|row| row.measures.get(measure).copied().flatten())
                .sum()
        };
        Some(self.processes.iter().map(of_process).collect())
    }

    /// Requires as many processes as `expected`.
    pub(crate) fn process_count(&mut self, expected: usize) {
        let actual = self.processes.len();
        self.that(actual == expected, || {
            format!("processes: recorded {actual}, must be {expected}")
        });
    }

    /// The recording.
    pub(crate) fn recording(&self) -> &'a Recording {
        self.recording
    }

    /// Requires `file` to be in the recording by this very name.
    pub(crate) fn is_named(&mut self, file: &Path) {
        let found = self.recording.files_named(file).len();
        self.that(found == 1, || {
            format!("files named {file:?}: recorded {found}, must be 1")
        });
    }

    /// Requires no file in the recording to have this name.
    pub(crate) fn is_not_named(&mut self, file: &Path) {
        let found = self.recording.files_named(file).len();
        self.that(found == 0, || {
            format!("files named {file:?}: recorded {found}, must be none")
        });
    }

    /// Requires what the kernel counted for the processes by itself, or fewer bytes from the disk
    /// where some are `unseen`.
    pub(crate) fn kernel_agrees(&mut self, kernel: &KernelTruth, unseen: bool) {
        let all = everything();
        self.equal(&all, "minor_faults", kernel.faults.minor);
        self.equal(&all, "major_faults", kernel.faults.major);
        if let Some(bytes) = kernel.disk_read_bytes {
            if unseen {
                self.at_most(&all, "disk_read_bytes", bytes.saturating_sub(1));
            } else {
                self.equal(&all, "disk_read_bytes", bytes);
            }
        }
    }

    /// Requires `holds`, and says what is wrong otherwise.
    pub(crate) fn that(&mut self, holds: bool, wrong: impl FnOnce() -> String) {
        self.compared += 1;
        if !holds {
            self.failures.push(wrong());
        }
    }

    /// The sum of `measure` over `rows`; `None`, noted, when one of them is null.
    pub(crate) fn sum(&mut self, rows: &Rows, measure: &str) -> Option<u64> {
        let mut sum = 0_u64;
        let mut null_on = None;
        let mut missing = false;
        for row in self.select(rows) {
            match row.measures.get(measure) {
                Some(Some(value)) => sum = sum.saturating_add(*value),
                Some(None) => null_on = Some(row.path.clone()),
                None => missing = true,
            }
        }
        // A row that is not there says nothing where the measure is not taken at all. Of many
        // paths only those that have rows matter: not every measure exists on every path.
        if let [path] = rows.paths[..]
            && self.recording.is_unavailable(measure, path)
        {
            null_on = Some(path.to_owned());
        }
        self.that(!missing, || format!("a row ({rows}) has no key {measure}"));
        match null_on {
            Some(path) => {
                self.lacks(measure, &path);
                None
            }
            None => (!missing).then_some(sum),
        }
    }

    /// mmtrace's own cross-checks, of the run as a whole.
    pub(crate) fn audit(&self) -> &'a [Audit] {
        &self.recording.audit
    }

    /// What the witness saw.
    pub(crate) fn witness(&self) -> &'a [Watched] {
        &self.recording.witness
    }

    /// The kernel's samples; noted when there are none.
    pub(crate) fn samples(&mut self) -> Option<&'a Samples> {
        let samples = self.recording.kernel_samples.as_ref();
        self.that(samples.is_some(), || "there are no kernel samples".into());
        samples
    }

    /// Why this run lacks something as a whole.
    pub(crate) fn missing(&self, purpose: &str) -> Option<&'a str> {
        self.recording.missing(purpose)
    }

    /// How often a hook ran for the traced threads.
    pub(crate) fn hits(&self, name: &str) -> Option<u64> {
        self.recording.hits(name)
    }

    /// The case cannot be tried here, for this reason.
    pub(crate) fn skip(&mut self, reason: String) {
        self.unavailable.get_or_insert(reason);
    }

    /// What another recording fails at, this one does.
    pub(crate) fn takes_over(&mut self, other: Check<'_>) {
        self.compared += other.compared;
        self.failures.extend(other.failures);
        self.unavailable = self.unavailable.take().or(other.unavailable);
    }

    /// How the case went.
    pub(crate) fn verdict(self) -> Verdict {
        if !self.failures.is_empty() {
            return Verdict::Failed(self.failures);
        }
        if let Some(reason) = self.unavailable {
            return Verdict::Skipped(reason);
        }
        if self.compared == 0 {
            return Verdict::Failed(vec!["the case compares nothing".into()]);
        }
        Verdict::Passed
    }

    fn select(&self, rows: &Rows) -> Vec<&'a Row> {
        let files = rows
            .file
            .as_deref()
            .map(|file| self.recording.files_named(file));
        self.recording
            .rows
            .iter()
            .filter(|row| {
                row.process.is_some_and(|id| self.processes.contains(&id))
                    && rows.paths.contains(&row.path.as_str())
                    && files
                        .as_ref()
                        .is_none_or(|files| row.file.is_some_and(|id| files.contains(&id)))
            })
            .collect()
    }

    fn lacks(&mut self, measure: &str, path: &str) {
        let reason = self.recording.reason(measure, path);
        self.unavailable.get_or_insert(reason);
    }

    fn require_faults(&mut self, rows: &Rows, must_be: &str, holds: impl Fn(u64) -> bool) {
        let minor = self.sum(rows, "minor_faults");
        let major = self.sum(rows, "major_faults");
        if let (Some(minor), Some(major)) = (minor, major) {
            self.that(holds(minor + major), || {
                format!(
                    "faults ({rows}): recorded {minor} minor and {major} major, \
                     must be {must_be} in all"
                )
            });
        }
    }

    fn require(
        &mut self,
        rows: &Rows,
        measure: &str,
        bound: &str,
        expected: u64,
        holds: impl Fn(u64) -> bool,
    ) {
        if let Some(sum) = self.sum(rows, measure) {
            self.that(holds(sum), || {
                format!("{measure} ({rows}): recorded {sum}, must be {bound}{expected}")
            });
        }
    }
}

#[cfg(test)]
mod tests;
