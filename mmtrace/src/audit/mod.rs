//! The audit: a run's figures beside the counters that the kernel keeps by itself.
//!
//! Pure functions from both figures to the recording's entries. Whoever reads the kernel's counters
//! subtracts what they held before the target's first instruction.

use crate::recording::{AuditEntry, Measure, Path, Totals};

/// What a run counted, of the measures for which the kernel has counters of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Over all paths and processes; `None` when the run could not measure it.
    pub minor_faults: Option<u64>,
    /// The same.
    pub major_faults: Option<u64>,
    /// The same. The kernel charges a read to the thread that submits it: take away the bytes that
    /// were submitted by threads outside the run before comparing.
    pub disk_read_bytes: Option<u64>,
}

impl Counted {
    /// The figures of `totals`.
    #[must_use]
    pub fn from_totals(totals: &Totals) -> Self {
        let sum = totals.all_paths();
        Self {
            minor_faults: sum.minor_faults,
            major_faults: sum.major_faults,
            disk_read_bytes: sum.disk_read_bytes,
        }
    }
}

/// What `wait4` reported of the target and of those descendants that were waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rusage {
    /// `ru_minflt`.
    pub minor_faults: u64,
    /// `ru_majflt`.
    pub major_faults: u64,
    /// `ru_inblock`: blocks of 512 bytes.
    pub block_input: u64,
}

/// The kernel's counters in each traced thread's `task_struct`, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounters {
    /// `min_flt`.
    pub minor_faults: u64,
    /// `maj_flt`.
    pub major_faults: u64,
    /// `ioac.read_bytes`.
    pub read_bytes: u64,
}

/// Whether the kernel's counters cover the same processes as the run's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage<'a> {
    /// They do.
    Same,
    /// They do not, for this reason.
    Differs(&'a str),
}

/// Compares with what `wait4` reported.
#[must_use]
pub fn rusage(ours: &Counted, theirs: &Rusage, coverage: Coverage<'_>) -> Vec<AuditEntry> {
    [
        (
            "minor faults against rusage",
            Measure::MinorFaults,
            ours.minor_faults,
            theirs.minor_faults,
        ),
        (
            "major faults against rusage",
            Measure::MajorFaults,
            ours.major_faults,
            theirs.major_faults,
        ),
        (
            "block input against rusage",
            Measure::DiskReadBytes,
            ours.disk_read_bytes,
            theirs.block_input.saturating_mul(512),
        ),
    ]
    .map(|(check, measure, ours, theirs)| compare(check, measure, ours, Some(theirs), coverage))
    .into()
}

/// Compares with `read_bytes` of the target's `/proc/PID/io`, which includes the descendants that
/// were waited for. `theirs` is `None` when it could not be read.
#[must_use]
pub fn proc_io(ours: &Counted, theirs: Option<u64>, coverage: Coverage<'_>) -> AuditEntry {
    compare(
        "disk bytes against /proc/PID/io",
        Measure::DiskReadBytes,
        ours.disk_read_bytes,
        theirs,
        coverage,
    )
}

/// Compares with the counters of the traced threads. They cover every thread, waited for or not,
/// unless some could not be read.
#[must_use]
pub fn tasks(ours: &Counted, theirs: &TaskCounters, coverage: Coverage<'_>) -> Vec<AuditEntry> {
    [
        (
            "minor faults against threads",
            Measure::MinorFaults,
            ours.minor_faults,
            theirs.minor_faults,
        ),
        (
            "major faults against threads",
            Measure::MajorFaults,
            ours.major_faults,
            theirs.major_faults,
        ),
        (
            "disk bytes against threads",
            Measure::DiskReadBytes,
            ours.disk_read_bytes,
            theirs.read_bytes,
        ),
    ]
    .map(|(check, measure, ours, theirs)| compare(check, measure, ours, Some(theirs), coverage))
    .into()
}

/// Compares what was seen of a workload of known size with what it is known to do.
#[must_use]
pub fn calibration(
    path: Path,
    measure: Measure,
    seen: Option<u64>,
    done: Option<u64>,
    coverage: Coverage<'_>,
) -> AuditEntry {
    let check = format!("{} of a known {}", measure.label(), path.name());
    compare(&check, measure, seen, done, coverage)
}

/// Compares what the copy routines were seen to move on a path with what its calls returned.
#[must_use]
pub fn copies(
    path: Path,
    measure: Measure,
    copied: u64,
    returned: u64,
    coverage: Coverage<'_>,
) -> AuditEntry {
    let check = format!("{} by {} against returned", measure.label(), path.name());
    compare(&check, measure, Some(copied), Some(returned), coverage)
}

/// Compares how many bytes the kernel was seen to store at a watched address with how many were to
/// be copied there. `what` was done: a read, a mapped page.
#[must_use]
pub fn watched(what: &str, seen: Option<u64>, done: u64, coverage: Coverage<'_>) -> AuditEntry {
    let check = format!("bytes copied to the watched byte of a {what}");
    compare(
        &check,
        Measure::CopiedToUserBytes,
        seen,
        Some(done),
        coverage,
    )
}

/// Compares how many stores of mmtrace's own to watched bytes were seen with how many it made.
#[must_use]
pub fn own_stores(seen: u64, made: u64) -> AuditEntry {
    let check = "mmtrace's own stores to watched bytes";
    compare(
        check,
        Measure::Operations,
        Some(seen),
        Some(made),
        Coverage::Same,
    )
}

/// Compares in how many watched reads the kernel stored in a copy routine with in how many it
/// stored. `None`: its functions' names are not known.
#[must_use]
pub fn through_copy_routines(known: Option<u64>, all: u64, coverage: Coverage<'_>) -> AuditEntry {
    let check = "watched reads that went through a copy routine";
    compare(check, Measure::Operations, known, Some(all), coverage)
}

/// By how much a block device's own counter of bytes read has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskGrowth {
    /// By so much.
    Bytes(u64),
    /// It was not there during all of the run.
    NotThere,
    /// The kernel counts nothing for it.
    NotCounted,
}

/// Compares what was read from a block device with what the device itself was read. Anybody may
/// read it, so the device's figure may be larger, and must not be smaller.
#[must_use]
pub fn disk(name: &str, ours: u64, theirs: DiskGrowth) -> AuditEntry {
    let (theirs, coverage) = match theirs {
        DiskGrowth::Bytes(theirs) if theirs > ours => (
            Some(theirs),
            Coverage::Differs("it is of the whole machine: others have read the device as well"),
        ),
        DiskGrowth::Bytes(theirs) => (Some(theirs), Coverage::Same),
        DiskGrowth::NotThere => (
            None,
            Coverage::Differs("the device was not there during all of the run"),
        ),
        DiskGrowth::NotCounted => (
            None,
            Coverage::Differs("the kernel keeps no statistics of this device"),
        ),
    };
    let check = format!("disk bytes on {name} against /sys/block");
    compare(&check, Measure::DiskReadBytes, Some(ours), theirs, coverage)
}

/// What was read without that its device is known: `of` says of what.
#[must_use]
pub fn unknown_disk(of: &str, ours: u64) -> AuditEntry {
    let reason = format!("reads of {of}: nothing tells from which device");
    compare(
        "disk bytes elsewhere against /sys/block",
        Measure::DiskReadBytes,
        Some(ours),
        None,
        Coverage::Differs(&reason),
    )
}

fn compare(
    check: &str,
    measure: Measure,
    ours: Option<u64>,
    theirs: Option<u64>,
    coverage: Coverage<'_>,
) -> AuditEntry {
    let (agree, note) = match (ours, theirs, coverage) {
        (_, _, Coverage::Differs(reason)) => (None, Some(reason)),
        (None, _, _) => (None, Some("not measured in this run")),
        (_, None, _) => (None, Some("the kernel's counter could not be read")),
        (Some(ours), Some(theirs), Coverage::Same) => (Some(ours == theirs), None),
    };
    AuditEntry {
        check: check.into(),
        measure,
        ours,
        theirs,
        agree,
        note: note.map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Counted = Counted {
        minor_faults: Some(211),
        major_faults: Some(13),
        disk_read_bytes: Some(8_192),
    };

    fn agreement(entries: &[AuditEntry]) -> Vec<Option<bool>> {
        entries.iter().map(|entry| entry.agree).collect()
    }

    #[test]
    fn block_input_is_compared_in_bytes() {
        let theirs = Rusage {
            minor_faults: 211,
            major_faults: 12,
            block_input: 16,
        };
        let entries = rusage(&OURS, &theirs, Coverage::Same);
        assert_eq!(agreement(&entries), [Some(true), Some(false), Some(true)]);
        assert_eq!(
            (entries[1].ours, entries[1].theirs),
            (Some(13), Some(12)),
            "both figures are kept"
        );
    }

    #[test]
    fn a_comparison_that_does_not_apply_says_why() {
        let entries = rusage(
            &OURS,
            &Rusage::default(),
            Coverage::Differs("one process was not waited for"),
        );
        assert_eq!(agreement(&entries), [None; 3]);
        assert_eq!(
            entries[0].note.as_deref(),
            Some("one process was not waited for")
        );
        assert_eq!(entries[0].theirs, Some(0), "their figure is kept");
    }

    #[test]
    fn what_was_not_measured_is_not_compared() {
        let ours = Counted {
            major_faults: None,
            ..OURS
        };
        let theirs = TaskCounters {
            minor_faults: 211,
            major_faults: 0,
            read_bytes: 8_192,
        };
        let entries = tasks(&ours, &theirs, Coverage::Same);
        assert_eq!(agreement(&entries), [Some(true), None, Some(true)]);
        assert_eq!(proc_io(&OURS, None, Coverage::Same).agree, None);
    }

    #[test]
    fn a_disk_that_others_read_too_is_no_disagreement() {
        let agreement = |theirs| disk("vda", 4_096, theirs).agree;
        assert_eq!(agreement(DiskGrowth::Bytes(4_096)), Some(true));
        assert_eq!(agreement(DiskGrowth::Bytes(4_608)), None);
        assert_eq!(agreement(DiskGrowth::Bytes(3_584)), Some(false));
        assert_eq!(agreement(DiskGrowth::NotCounted), None);
        let entry = disk("vda", 4_096, DiskGrowth::Bytes(4_608));
        assert_eq!(entry.theirs, Some(4_608), "their figure is kept");
        assert_eq!(unknown_disk("no file", 512).agree, None);
    }

    #[test]
    fn calibration_compares_what_was_seen_with_what_was_done() {
        let compared =
            |seen, coverage| calibration(Path::Read, Measure::Operations, seen, Some(7), coverage);
        assert_eq!(compared(Some(7), Coverage::Same).agree, Some(true));
        assert_eq!(compared(Some(6), Coverage::Same).agree, Some(false));
        assert_eq!(compared(None, Coverage::Same).agree, None);
        let aside = compared(None, Coverage::Differs("no disk"));
        assert_eq!(aside.note.as_deref(), Some("no disk"));
        assert_eq!(aside.check, "operations of a known read");
    }
}
