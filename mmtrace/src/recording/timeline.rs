//! When the work was done, and where in the files.

use std::collections::BTreeMap;

use mmtrace_common::Path;
use serde::{Deserialize, Serialize};

use super::{Measure, path_name::PathName};

/// The rows' sums over time: a number for each stretch of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// How long each stretch is; a power of two. The first begins with the command's release.
    pub width_ns: u64,
    /// How many stretches there are.
    pub stretches: usize,
    /// For each path with any work, and each measure that the run has of it, a value for each
    /// stretch. They add up to the path's total.
    pub paths: BTreeMap<PathName, BTreeMap<Measure, Vec<u64>>>,
}

impl Timeline {
    /// The values of a measure on a path, one for each stretch; `None` if there are none or it could
    /// not be measured.
    #[must_use]
    pub fn get(&self, path: Path, measure: Measure) -> Option<&[u64]> {
        let measures = self.paths.get(&PathName(path))?;
        measures.get(&measure).map(Vec::as_slice)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for (path, measures) in &self.paths {
            for (measure, values) in measures {
                if values.len() != self.stretches {
                    return Err(format!(
                        "the timeline has {} stretches, but {} of {} has {}",
                        self.stretches,
                        measure.name(),
                        path.0.name(),
                        values.len()
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Which parts of a file were used when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeatMap {
    /// The [`File::id`](super::File::id).
    pub file: u32,
    /// Bytes of the file that a cell is about; a power of two.
    pub width_bytes: u64,
    /// How long a cell is; a power of two.
    pub width_ns: u64,
    /// Those in which anything happened.
    pub cells: Vec<HeatCell>,
}

/// What was done with a part of a file during a stretch of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeatCell {
    /// Which part: its first byte is at this times [`HeatMap::width_bytes`].
    pub part: u64,
    /// Which stretch: it begins at this times [`HeatMap::width_ns`].
    pub stretch: u64,
    /// Bytes that calls returned or wrote.
    pub returned_bytes: u64,
    /// Bytes of pages that faults were taken on.
    pub faulted_bytes: u64,
    /// Bytes brought into the page cache.
    pub cache_filled_bytes: u64,
    /// Of these, read ahead and not used before they were evicted or the run ended; `None` where that
    /// could not be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readahead_unused_bytes: Option<u64>,
}
