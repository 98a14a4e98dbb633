//! What was seen of single bytes and of single moments: the witness, and the kernel's samples.

use std::collections::BTreeMap;

use mmtrace_common::Path;
use serde::{Deserialize, Serialize};

use super::path_name;

/// Something that mmtrace did itself at the start of a run, with a byte of its memory watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessTrial {
    /// What was done: `read`, `mmap` or `direct`.
    pub trial: String,
    /// With which file: `memory` (a file of tmpfs) or `mmtrace` (mmtrace's own).
    pub file: String,
    /// How many bytes were watched.
    pub watched_bytes: u64,
    /// Stores of the kernel's to them; null when the trial could not be made.
    pub kernel_stores: Option<u64>,
    /// Stores of the program's to them meanwhile.
    pub user_stores: Option<u64>,
    /// Of one store that mmtrace made afterwards, how many were seen: the proof that the watch sees.
    pub own_stores: Option<u64>,
    /// Faults that the kernel charged meanwhile.
    pub faults: Option<u64>,
    /// The function that copied; null when the kernel stored nothing, or not in a copy routine.
    pub copy_routine: Option<String>,
    /// The first store's place in the kernel, `function+offset`, and its callers outwards.
    pub stack: Vec<String>,
    /// Why something is null, or what explains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Samples of the traced threads, taken by a timer on each CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelSamples {
    /// How often a second, on each CPU.
    pub hz: u32,
    /// Samples of the threads' own code.
    pub user: u64,
    /// Samples of the kernel's code, by path; those without samples are left out.
    pub rows: Vec<SampledPath>,
    /// Why it is not known what was in copy routines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Samples of the kernel's code on one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampledPath {
    /// The path.
    #[serde(with = "path_name::one")]
    pub path: Path,
    /// How many.
    pub samples: u64,
    /// Of these, in a copy routine or in what it called; null when the functions' names are not
    /// known.
    pub in_copy_routines: Option<u64>,
    /// Of these, in which: the innermost one of each stack.
    pub copy_routines: BTreeMap<String, u64>,
}

impl KernelSamples {
    /// Checks that the parts add up.
    ///
    /// # Errors
    /// The first contradiction, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        for row in &self.rows {
            let parts = row.copy_routines.values();
            let parts = parts.fold(0, |sum: u64, part| sum.saturating_add(*part));
            let whole = row.in_copy_routines.unwrap_or(0);
            if whole != parts || whole > row.samples {
                return Err(format!(
                    "the kernel samples of the path {} do not add up",
                    row.path.name()
                ));
            }
        }
        Ok(())
    }
}
