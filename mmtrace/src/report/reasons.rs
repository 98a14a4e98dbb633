//! Why something is null.

use crate::recording::{Measure, Path, Recording};

/// Why `measure` is null on `path`.
pub(super) fn on(recording: &Recording, measure: Measure, path: Path) -> &str {
    let entries = &recording.probes.unavailable;
    let of_measure = || {
        let entries = entries.iter();
        entries.filter(|entry| entry.measures.contains(&measure))
    };
    of_measure()
        .find(|entry| entry.paths.is_empty() || entry.paths.contains(&path))
        .map_or(NONE, |entry| &entry.reason)
}

const NONE: &str = "the recording gives no reason";
