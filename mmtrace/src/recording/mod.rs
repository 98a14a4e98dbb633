//! The recording: everything that a run found out, and its JSON.
//!
//! The keys are fixed; a later version may add some. `docs/recording.md` describes them.

mod bytes;
mod difference;
mod measure;
mod path_name;
mod read;
mod share;
mod stacks;
mod timeline;
mod totals;
mod witness;

use std::{collections::BTreeMap, ffi::OsString, fmt, str::FromStr};

pub use mmtrace_common::Path;
use serde::{Deserialize, Serialize};

pub use self::{
    difference::{Change, Changed, Difference, OnFile, OnStack},
    measure::{Measure, MeasureSet, Measured, Measures, Unit},
    path_name::PathName,
    read::ReadError,
    share::share_out,
    stacks::{INLINED_FRAME, KERNEL_FRAME, NO_STACK, Stack, StackSampling},
    timeline::{HeatCell, HeatMap, Timeline},
    totals::Totals,
    witness::{KernelSamples, SampledPath, WitnessTrial},
};

/// The version of the format that this program writes, and reads.
pub const SCHEMA: &str = "mmtrace.recording/1";

/// One run of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// The program that made the recording.
    pub tool: Tool,
    /// The machine it was made on.
    pub host: Host,
    /// The command that was traced.
    pub target: Target,
    /// How it was watched.
    pub probes: Probes,
    /// What was lost, by what it is: a full map, a missed probe, a name not found. Only counts
    /// above 0.
    pub lost: BTreeMap<String, u64>,
    /// Our figures against the kernel's own.
    pub audit: Vec<AuditEntry>,
    /// What the watchpoint witness saw, where it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witness: Vec<WitnessTrial>,
    /// Samples of the kernel's code, where they were asked for and could be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_samples: Option<KernelSamples>,
    /// The rows' sums, path by path.
    pub totals: Totals,
    /// Every file that a row names.
    pub files: Vec<File>,
    /// Every process that was traced.
    pub processes: Vec<Process>,
    /// What each process did with each file on each path.
    pub rows: Vec<Row>,
    /// The rows' sums over time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// Which parts of the files were used when, where it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heat_maps: Vec<HeatMap>,
    /// How stacks were taken, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_sampling: Option<StackSampling>,
    /// Where the work was caused, where it was asked for.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "stacks::deserialize"
    )]
    pub stacks: Vec<Stack>,
}

/// The program that made a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its version.
    pub version: String,
}

/// The machine that a recording was made on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The kernel's release, as `uname -r` has it.
    pub kernel: String,
    /// The architecture, as `uname -m` has it.
    pub arch: String,
    /// Bytes of a page.
    pub page_size: u64,
    /// CPUs that were online.
    pub cpus: u32,
}

/// The command that was traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The command and its arguments.
    #[serde(flatten, with = "bytes::command")]
    pub command: Vec<OsString>,
    /// The process id of the command itself.
    pub pid: u32,
    /// How it ended; `None` when the tracing ended first.
    #[serde(flatten)]
    pub end: Option<End>,
    /// From the command's release to its end.
    pub wall_time_ns: u64,
    /// How many processes were traced.
    pub processes: u64,
    /// How many threads they had in all.
    pub threads: u64,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// By itself, with this status.
    ExitCode(i32),
    /// By this signal.
    Signal(i32),
}

/// How a run was watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// The kind of hooks.
    pub backend: Backend,
    /// How the copied bytes were found.
    pub copies: Copies,
    /// How copies were sampled, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_sampling: Option<CopySampling>,
    /// Of how many reads the time was taken, if not of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_sampling: Option<TimeSampling>,
    /// The hooks that were attached.
    pub hooks: Vec<Hook>,
    /// What could not be measured, and why.
    pub unavailable: Vec<Unavailable>,
    /// Better backends that were tried first, and why the kernel refused them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

/// A kind of hooks that could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which.
    pub backend: Backend,
    /// Why.
    pub reason: String,
}

/// The kind of hooks that a run used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Entry and exit of kernel functions, through BTF trampolines.
    Fentry,
    /// Entry and exit of kernel functions, through kprobes and kretprobes.
    Kprobe,
    /// Tracepoints alone.
    Tracepoint,
}

impl Backend {
    /// The name used in recordings, in tables and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// How the copied bytes were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Copies {
    /// Every call of the kernel's copy routines was seen.
    Exact,
    /// The copy routines were watched for a part of the time.
    Sampled,
    /// Only what the calls returned was seen, not the copies themselves.
    Returns,
}

impl Copies {
    /// In words.
    #[must_use]
    pub const fn says(self) -> &'static str {
        match self {
            Self::Exact => "every copy seen",
            Self::Sampled => "copies sampled",
            Self::Returns => "copies by return value",
        }
    }
}

/// How the copy routines were watched for a part of the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySampling {
    /// How long they were watched.
    pub watched_ns: u64,
    /// How long they could have been.
    pub run_ns: u64,
    /// In how many pieces.
    pub windows: u64,
    /// What watching a copy costs, by the calibration.
    pub cost_per_copy_ns: u64,
    /// When the way in which copies are found has changed.
    pub changes: Vec<CopyChange>,
    /// By how much the estimates may be off, but in one case of a thousand, for each path that has any.
    pub error_bounds: BTreeMap<String, CopyError>,
}

/// From when on copies were found in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyChange {
    /// Since the command's release.
    pub at_ns: u64,
    /// The new way.
    pub copies: Copies,
}

/// By how much estimates of a path's copies may be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyError {
    /// Of what was copied to the program.
    pub copied_to_user_bytes: u64,
    /// Of what was copied from it.
    pub copied_from_user_bytes: u64,
}

/// What the time of small reads was estimated from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeSampling {
    /// Of how many such reads the time was taken.
    pub timed: u64,
    /// For how many these stand.
    pub stand_for: u64,
    /// By how much `kernel_time_ns` of the path `read` may be off, but in one case of a thousand.
    pub error_bound_ns: u64,
}

/// A hook that was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The function, tracepoint or event; an event of kind `tracepoint` is `category:name`.
    pub name: String,
    /// How it was attached: `fexit`, `kretprobe`, `raw_tracepoint` and so on.
    pub kind: String,
    /// What it is for.
    pub purpose: String,
    /// Which of mmtrace's programs runs there: some hooks have one for newer kernels.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program: String,
    /// How often it fired for the target; null when it was not counted.
    pub hits: Option<u64>,
}

/// Something that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    /// What it would have told.
    pub purpose: String,
    /// Why it could not be had.
    pub reason: String,
    /// The measures that are null for this reason.
    #[serde(default)]
    pub measures: Vec<Measure>,
    /// On which paths; on all when empty.
    #[serde(default, with = "path_name::many")]
    pub paths: Vec<Path>,
}

/// One of our figures beside a counter that the kernel keeps by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// What is compared with what.
    pub check: String,
    /// The measure compared; it gives the unit of both figures.
    pub measure: Measure,
    /// Our figure; null when it could not be measured.
    pub ours: Option<u64>,
    /// The kernel's.
    pub theirs: Option<u64>,
    /// Whether they are equal; null when the comparison does not apply.
    pub agree: Option<bool>,
    /// Why it does not apply, or what explains a difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A file that a row names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// The number that rows use.
    pub id: u32,
    /// The name as the target sees it; `None` when it could not be found.
    #[serde(flatten, with = "bytes::name")]
    pub name: Option<OsString>,
    /// The device that holds it.
    pub device: Device,
    /// Its inode number there.
    pub inode: u64,
    /// Its size in bytes when it was first seen; `None` when it could not be found.
    pub size: Option<u64>,
    /// The kind of file system; `None` when it could not be found.
    pub filesystem: Option<String>,
}

/// A device number, written `major:minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Device {
    /// The driver's number.
    pub major: u32,
    /// The device's number within the driver.
    pub minor: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once(':')
            .and_then(|(major, minor)| {
                Some(Self {
                    major: major.parse().ok()?,
                    minor: minor.parse().ok()?,
                })
            })
            .ok_or_else(|| format!("{text:?} is not a device number such as 8:1"))
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A process that was traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The number that rows use. Unlike process ids, it is never used twice in a run.
    pub id: u32,
    /// The process id, as the tool sees it.
    pub pid: u32,
    /// The `id` of the process that started it; `None` for the command itself.
    pub parent: Option<u32>,
    /// The program it last ran, with its arguments.
    #[serde(flatten, with = "bytes::command")]
    pub command: Vec<OsString>,
    /// When it started, since the command's first instruction.
    pub start_ns: u64,
    /// When it ended; `None` when it outlived the tracing.
    pub end_ns: Option<u64>,
}

/// What one process did with one file on one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The [`Process::id`]; `None` for work that no traced process can be charged with.
    pub process: Option<u32>,
    /// The [`File::id`]; `None` for work on no file, such as faults on anonymous memory.
    pub file: Option<u32>,
    /// The path.
    #[serde(with = "path_name::one")]
    pub path: Path,
    /// How much of it there was.
    #[serde(flatten)]
    pub measures: Measures,
}
