//! A recording, as its documentation describes it.
//!
//! Written apart from mmtrace's own model on purpose: what one side gets wrong, the other sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

/// A row's or a total's measures by name; `None` is one that could not be measured.
pub(crate) type Measures = BTreeMap<String, Option<u64>>;

/// The parts of a recording that the checks look at.
#[derive(Debug, Deserialize)]
pub(crate) struct Recording {
    schema: String,
    pub(crate) target: Target,
    probes: Probes,
    pub(crate) lost: BTreeMap<String, u64>,
    pub(crate) audit: Vec<Audit>,
    #[serde(default)]
    pub(crate) witness: Vec<Watched>,
    pub(crate) kernel_samples: Option<Samples>,
    pub(crate) totals: BTreeMap<String, Measures>,
    files: Vec<File>,
    processes: Vec<Process>,
    pub(crate) rows: Vec<Row>,
    pub(crate) timeline: Option<Timeline>,
    #[serde(default)]
    pub(crate) heat_maps: Vec<HeatMap>,
    stack_sampling: Option<StackSampling>,
    #[serde(default)]
    pub(crate) stacks: Vec<Stack>,
}

/// How the command ended: one of the two.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// How many processes there were.
    pub(crate) processes: u64,
}

#[derive(Debug, Deserialize)]
struct Probes {
    backend: String,
    copies: String,
    copy_sampling: Option<CopySampling>,
    time_sampling: Option<TimeSampling>,
    hooks: Vec<Counted>,
    unavailable: Vec<Unavailable>,
}

/// For how much of the time copies were watched.
#[derive(Debug, Deserialize)]
pub(crate) struct CopySampling {
    pub(crate) watched_ns: u64,
    pub(crate) run_ns: u64,
    pub(crate) windows: u64,
    pub(crate) error_bounds: BTreeMap<String, CopyError>,
}

/// Of how many small reads the time was taken.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct TimeSampling {
    pub(crate) timed: u64,
    pub(crate) stand_for: u64,
    pub(crate) error_bound_ns: u64,
}

/// By how much what was copied on a path may be off.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct CopyError {
    pub(crate) copied_to_user_bytes: u64,
}

/// A hook that was attached, and what for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Hook {
    pub(crate) purpose: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) program: String,
}

/// A hook, and how often its program ran.
#[derive(Debug, Deserialize)]
struct Counted {
    #[serde(flatten)]
    hook: Hook,
    hits: Option<u64>,
}

/// What was seen of a watched byte.
#[derive(Debug, Deserialize)]
pub(crate) struct Watched {
    pub(crate) trial: String,
    pub(crate) file: String,
    pub(crate) watched_bytes: u64,
    pub(crate) kernel_stores: Option<u64>,
    pub(crate) user_stores: Option<u64>,
    pub(crate) own_stores: Option<u64>,
    pub(crate) faults: Option<u64>,
    pub(crate) copy_routine: Option<String>,
    pub(crate) stack: Vec<String>,
    pub(crate) note: Option<String>,
}

/// Samples of the kernel.
#[derive(Debug, Deserialize)]
pub(crate) struct Samples {
    pub(crate) hz: u64,
    pub(crate) user: u64,
    pub(crate) rows: Vec<SampledPath>,
    pub(crate) note: Option<String>,
}

/// Those of a path.
#[derive(Debug, Deserialize)]
pub(crate) struct SampledPath {
    pub(crate) path: String,
    pub(crate) samples: u64,
    pub(crate) in_copy_routines: Option<u64>,
    pub(crate) copy_routines: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Unavailable {
    purpose: String,
    reason: String,
    #[serde(default)]
    measures: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
}

/// The rows' sums over time.
#[derive(Debug, Deserialize)]
pub(crate) struct Timeline {
    pub(crate) paths: BTreeMap<String, BTreeMap<String, Vec<u64>>>,
}

/// Which parts of a file were used when.
#[derive(Debug, Deserialize)]
pub(crate) struct HeatMap {
    pub(crate) file: u64,
    pub(crate) width_bytes: u64,
    pub(crate) cells: Vec<HeatCell>,
}

/// What was done with a part of a file in a stretch of the run.
#[derive(Debug, Deserialize)]
pub(crate) struct HeatCell {
    pub(crate) part: u64,
    pub(crate) stretch: u64,
    pub(crate) returned_bytes: u64,
    pub(crate) faulted_bytes: u64,
    pub(crate) cache_filled_bytes: u64,
    pub(crate) readahead_unused_bytes: Option<u64>,
}

/// How stacks were taken.
#[derive(Debug, Deserialize)]
pub(crate) struct StackSampling {
    pub(crate) moments: u64,
    pub(crate) taken: u64,
    #[serde(default)]
    pub(crate) notes: Vec<String>,
}

/// A part of a sum, and the calls that led to it.
#[derive(Debug, Deserialize)]
pub(crate) struct Stack {
    pub(crate) process: Option<u64>,
    pub(crate) path: String,
    pub(crate) measure: String,
    pub(crate) value: u64,
    pub(crate) frames: Vec<String>,
}

/// One of mmtrace's own cross-checks.
#[derive(Debug, Deserialize)]
pub(crate) struct Audit {
    pub(crate) check: String,
    pub(crate) ours: Option<u64>,
    pub(crate) theirs: Option<u64>,
    pub(crate) agree: Option<bool>,
    pub(crate) note: Option<String>,
}

#[derive(Debug, Deserialize)]
struct File {
    id: u64,
    name: Option<String>,
    name_bytes: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Process {
    id: u64,
    pid: i32,
    parent: Option<u64>,
}

/// What one process did with one file on one path.
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) process: Option<u64>,
    pub(crate) file: Option<u64>,
    pub(crate) path: String,
    #[serde(flatten)]
    pub(crate) measures: Measures,
}

impl Recording {
    /// How stacks were taken, if they were.
    pub(crate) fn stack_sampling(&self) -> Option<&StackSampling> {
        self.stack_sampling.as_ref()
    }

    /// The heat map of the file that has this name.
    pub(crate) fn heat_map(&self, file: &Path) -> Option<&HeatMap> {
        let files = self.files_named(file);
        self.heat_maps.iter().find(|map| files.contains(&map.file))
    }

    /// Reads the recording in `path`.
    ///
    /// # Errors
    /// When it is not there, is no JSON, lacks a key, or has another schema.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read(path).with_context(|| format!("no recording in {path:?}"))?;
        Self::parse(&text)
    }

    /// As [`Recording::load`], of the text itself.
    pub(crate) fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let recording: Self = serde_json::from_slice(text).context("the recording's JSON")?;
        ensure!(
            recording.schema == "mmtrace.recording/1",
            "the recording's schema is {:?}",
            recording.schema
        );
        Ok(recording)
    }

    /// What was attached.
    pub(crate) fn hooks(&self) -> Vec<Hook> {
        self.probes
            .hooks
            .iter()
            .map(|counted| counted.hook.clone())
            .collect()
    }

    /// The backend that was used.
    pub(crate) fn backend(&self) -> &str {
        &self.probes.backend
    }

    /// How copies were found.
    pub(crate) fn copies(&self) -> &str {
        &self.probes.copies
    }

    /// For how much of the time, if not for all.
    pub(crate) fn copy_sampling(&self) -> Option<&CopySampling> {
        self.probes.copy_sampling.as_ref()
    }

    /// Of how many small reads the time was taken, if not of all.
    pub(crate) fn time_sampling(&self) -> Option<&TimeSampling> {
        self.probes.time_sampling.as_ref()
    }

    /// Why `measure` is null on `path`.
    pub(crate) fn reason(&self, measure: &str, path: &str) -> String {
        self.unavailable(measure, path).map_or_else(
            || format!("{measure} on {path} is null, for no reason given"),
            |entry| format!("{}: {}", entry.purpose, entry.reason),
        )
    }

    /// What says that `measure` could not be measured on `path`.
    fn unavailable(&self, measure: &str, path: &str) -> Option<&Unavailable> {
        self.probes.unavailable.iter().find(|entry| {
            entry.measures.iter().any(|name| name == measure)
                && (entry.paths.is_empty() || entry.paths.iter().any(|name| name == path))
        })
    }

    /// Why this run lacks something as a whole.
    pub(crate) fn missing(&self, purpose: &str) -> Option<&str> {
        let mut missing = self.probes.unavailable.iter();
        let entry = missing.find(|entry| entry.purpose == purpose)?;
        Some(&entry.reason)
    }

    /// How often a hook ran for the traced threads.
    pub(crate) fn hits(&self, name: &str) -> Option<u64> {
        let mut hooks = self.probes.hooks.iter();
        hooks.find(|counted| counted.hook.name == name)?.hits
    }

    /// Whether `measure` is null on `path` as a whole, so that the lack of a row means nothing.
    pub(crate) fn is_unavailable(&self, measure: &str, path: &str) -> bool {
        self.unavailable(measure, path).is_some()
            || self
                .totals
                .get(path)
                .is_some_and(|total| total.get(measure) == Some(&None))
    }

    /// The files that have this name.
    pub(crate) fn files_named(&self, path: &Path) -> BTreeSet<u64> {
        self.files
            .iter()
            .filter(|file| {
                file.name_as_bytes()
                    .is_some_and(|name| name.as_bytes() == path.as_os_str().as_bytes())
            })
            .map(|file| file.id)
            .collect()
    }

    /// The pid of every process.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> {
        self.processes.iter().map(|process| process.pid)
    }

    /// The numbers of every process.
    pub(crate) fn all_processes(&self) -> BTreeSet<u64> {
        self.processes.iter().map(|process| process.id).collect()
    }

    /// The numbers of the process with this pid and all that descend from it.
    pub(crate) fn tree(&self, pid: i32) -> BTreeSet<u64> {
        let mut tree: BTreeSet<u64> = self
            .processes
            .iter()
            .filter(|process| process.pid == pid)
            .map(|process| process.id)
            .collect();
        loop {
            let before = tree.len();
            for process in &self.processes {
                if process.parent.is_some_and(|parent| tree.contains(&parent)) {
                    tree.insert(process.id);
                }
            }
            if tree.len() == before {
                return tree;
            }
        }
    }
}

impl File {
    /// The name's bytes: in hexadecimal beside the text where that is not UTF-8.
    fn name_as_bytes(&self) -> Option<OsString> {
        let Some(hex) = &self.name_bytes else {
            return self.name.clone().map(OsString::from);
        };
        hex.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<Vec<_>>>()
            .map(OsString::from_vec)
    }
}
