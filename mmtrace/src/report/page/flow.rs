//! Which flows of data there are to draw: for each path what went from the disk to the kernel's
//! memory, and from there to the program's.

use crate::{
    recording::{Copies, Measure, Measures, Path, Recording},
    report::{reasons, summary},
};

/// A path's flows.
pub(super) struct Lane {
    pub(super) path: Path,
    /// What the middle of the drawing is for this path, where it is not the page cache.
    pub(super) middle: &'static str,
    /// Between the disk and the middle.
    pub(super) disk: Vec<Flow>,
    /// Between the middle and the program's memory.
    pub(super) user: Vec<Flow>,
    /// From the disk to the program's memory, and back.
    pub(super) past: Vec<Flow>,
}

/// An arrow.
pub(super) struct Flow {
    pub(super) measure: Measure,
    pub(super) bytes: Option<u64>,
    /// What is done with them.
    pub(super) verb: &'static str,
    pub(super) kind: Kind,
    /// Faults that mapped them.
    pub(super) faults: u64,
    /// Why it is not known.
    pub(super) reason: Option<String>,
}

/// How an arrow is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes move to the right.
    Right,
    /// Bytes move to the left.
    Left,
    /// Bytes move, both ways in one number.
    Both,
    /// Bytes become visible where they are: nothing moves.
    Mapped,
    /// Bytes stay in the kernel.
    Inside,
}

/// Where an arrow's number comes from, and when it is drawn.
struct Source(Measure, &'static str, Kind, When);

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// A zero is telling.
    Always,
    /// A zero is not, and neither is that it is not known.
    Some,
}

use Kind::{Both, Inside, Left, Mapped, Right};
use Measure::{
    BytesReturned, CopiedFromUserBytes, CopiedInKernelBytes, CopiedToUserBytes, DiskReadBytes,
    DiskWriteBytes, MappedBytes,
};
use When::{Always, Some as IfAny};

const READ: Source = Source(DiskReadBytes, "read", Right, Always);
const ALSO_READ: Source = Source(DiskReadBytes, "read", Right, IfAny);
const WRITTEN: Source = Source(DiskWriteBytes, "written", Left, IfAny);
const COPIED: Source = Source(CopiedToUserBytes, "copied", Right, Always);
const ALSO_COPIED: Source = Source(CopiedToUserBytes, "copied", Right, IfAny);
const TAKEN: Source = Source(CopiedFromUserBytes, "copied", Left, Always);
const ALSO_TAKEN: Source = Source(CopiedFromUserBytes, "copied", Left, IfAny);
const MAPPED: Source = Source(MappedBytes, "mapped", Mapped, Always);
const ALSO_MAPPED: Source = Source(MappedBytes, "mapped", Mapped, IfAny);
const PASSED_ON: Source = Source(BytesReturned, "passed on", Inside, IfAny);
const PAGES: Source = Source(CopiedInKernelBytes, "pages copied", Right, IfAny);

/// The lanes of all paths that moved anything.
pub(super) fn lanes(recording: &Recording) -> Vec<Lane> {
    recording
        .totals
        .iter()
        .filter(|(_, totals)| !totals.is_empty())
        .map(|(path, totals)| lane(recording, path, totals))
        .filter(|lane| {
            let flows = || lane.disk.iter().chain(&lane.user).chain(&lane.past);
            // Faults on no file, calls on terminals: nothing that a drawing of bytes could show.
            lane.path != Path::Other || flows().any(|flow| flow.bytes.unwrap_or(0) > 0)
        })
        .collect()
}

fn lane(recording: &Recording, path: Path, totals: &Measures) -> Lane {
    let (middle, disk, user, past): (_, &[Source], &[Source], &[Source]) = match path {
        Path::Read => ("", &[READ], &[COPIED, ALSO_TAKEN], &[]),
        Path::Mmap | Path::Exec => ("", &[READ], &[MAPPED, COPIED, PAGES], &[]),
        Path::Write => ("", &[ALSO_READ, WRITTEN], &[TAKEN, ALSO_COPIED], &[]),
        Path::Direct => ("passed by", &[], &[COPIED, TAKEN], &[READ, WRITTEN]),
        Path::Splice => ("", &[READ], &[PASSED_ON, COPIED, ALSO_TAKEN], &[]),
        Path::Ipc => ("buffers", &[], &[COPIED, TAKEN], &[]),
        Path::Prefetch => ("", &[READ], &[ALSO_MAPPED, ALSO_COPIED], &[]),
        Path::Swap => ("swap cache", &[READ, WRITTEN], &[ALSO_MAPPED], &[]),
        Path::Writeback => (
            "",
            &[Source(DiskWriteBytes, "written", Left, Always), ALSO_READ],
            &[],
            &[],
        ),
        Path::Metadata => ("fs blocks", &[READ, WRITTEN], &[ALSO_COPIED], &[]),
        Path::Other => (
            "no file",
            &[ALSO_READ, WRITTEN],
            &[ALSO_COPIED, ALSO_TAKEN, PAGES],
            &[],
        ),
    };
    let flows = |sources: &[Source]| -> Vec<Flow> {
        let sources = sources.iter();
        sources
            .filter_map(|source| flow(recording, path, totals, source))
            .collect()
    };
    let mut user = flows(user);
    // Without the copies, what the calls returned is all that is known of them.
    if recording.probes.copies == Copies::Returns
        && !matches!(path, Path::Splice | Path::Direct)
        && totals.bytes_returned.unwrap_or(0) > 0
    {
        let kind = match path {
            Path::Read => Right,
            Path::Write => Left,
            _ => Both,
        };
        user.retain(|flow| flow.bytes.is_some());
        let returned = Source(BytesReturned, "returned", kind, IfAny);
        user.extend(flow(recording, path, totals, &returned));
    }
    let mut past = flows(past);
    // Direct writes, where those to the disk are not known.
    if path == Path::Direct && totals.bytes_returned > totals.disk_read_bytes {
        let returned = Source(BytesReturned, "returned", Both, IfAny);
        past.extend(flow(recording, path, totals, &returned));
    }
    Lane {
        path,
        middle,
        disk: flows(disk),
        user,
        past,
    }
}

fn flow(recording: &Recording, path: Path, totals: &Measures, source: &Source) -> Option<Flow> {
    let &Source(measure, verb, kind, when) = source;
    let bytes = totals.get(measure);
    if when == IfAny && bytes.unwrap_or(0) == 0 {
        return None;
    }
    let reason = bytes.is_none();
    let reason = reason.then(|| reasons::on(recording, measure, path).to_owned());
    Some(Flow {
        measure,
        bytes,
        verb,
        kind,
        faults: match kind {
            Mapped => summary::faults(totals),
            _ => 0,
        },
        reason,
    })
}
