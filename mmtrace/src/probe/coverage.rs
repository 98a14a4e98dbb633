//! What is not measured, or not exactly, by what could not be attached: the one place that
//! recordings and `doctor` have it from.

use mmtrace_common::Path;

use super::{
    copies,
    plan::{Attachment, Hook, Purpose, Requirement},
};
use crate::{
    kernel::btf::Btf,
    recording::{Measure, MeasureSet, Measured, Unavailable},
};

/// What this version counts, where its hooks can be had.
const COUNTED: MeasureSet = MeasureSet::of(&[
    Measure::Operations,
    Measure::BytesRequested,
    Measure::BytesReturned,
    Measure::CopiedToUserBytes,
    Measure::CopiedFromUserBytes,
    Measure::CopiedInKernelBytes,
    Measure::MinorFaults,
    Measure::MajorFaults,
    Measure::MappedBytes,
    Measure::DiskReads,
    Measure::DiskReadBytes,
    Measure::CacheFilledBytes,
    Measure::ReadaheadBytes,
    Measure::KernelTimeNs,
    Measure::DiskWaitNs,
]);

/// What a missing purpose costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The measures that are null for it, on every path.
    pub measures: &'static [Measure],
    /// What else it costs, in words.
    pub says: Option<&'static str>,
}

/// What is not measured where a purpose cannot be served.
#[must_use]
pub const fn without(purpose: Purpose) -> Cost {
    let (measures, says): (&[Measure], _) = match purpose {
        Purpose::Calls | Purpose::Processes | Purpose::Faults | Purpose::Cache | Purpose::Disk => {
            (&[], Some("the backend cannot be used"))
        }
        Purpose::Copies => (
            &[Measure::CopiedToUserBytes, Measure::CopiedFromUserBytes],
            Some("that mapping copies nothing is taken from what calls return, not seen"),
        ),
        Purpose::Mapped => (&[Measure::MappedBytes, Measure::ReadaheadUnusedBytes], None),
        Purpose::PageCopies => (&[Measure::CopiedInKernelBytes], None),
        Purpose::Waits => (&[Measure::DiskWaitNs], None),
        Purpose::Aio => (
            &[],
            Some(
                "disk reads of aio requests on several files in one call may be under other, and \
                 what a program takes from the ring by itself is told as lost",
            ),
        ),
        Purpose::UringSubmissions => (&[], Some("io_uring's requests are not counted")),
        Purpose::UringCompletions => (&[], Some("what io_uring's requests return is told as lost")),
        Purpose::UringIssues => (
            &[],
            Some(
                "which of io_uring's requests the thread that submitted them works for is a guess, \
                 where they are of several files at a time",
            ),
        ),
    };
    Cost { measures, says }
}

/// What is not exact where a purpose is served by these hooks.
#[must_use]
pub fn inexact(purpose: Purpose, hooks: &[Hook], btf: &Btf) -> Vec<&'static str> {
    let any = |test: fn(&Hook) -> bool| hooks.iter().any(test);
    let mut all = Vec::new();
    if purpose == Purpose::Faults && !any(|hook| hook.at.function().is_some()) {
        all.push(
            "faults that the kernel takes for itself (O_DIRECT buffers, populating) are placed by \
             a guess",
        );
        all.push("part of the disk wait of faults is under other");
    }
    if purpose == Purpose::Disk && !any(|hook| hook.at.function().is_some()) {
        all.push("requests that the control group's io.max holds back are missed");
    }
    if any(|hook| matches!(hook.at, Attachment::Kretprobe(_))) {
        all.push(
            "the kernel may miss a kretprobe when many threads are in the function: told as lost \
             from Linux 6.7 on",
        );
    }
    if Requirement::PreemptibleTracepoints.is_met(btf) && is_left_out(purpose, hooks) {
        all.push(
            "a program is left out while a preempted task is inside it on the same CPU: told as \
             lost",
        );
    }
    all
}

/// Whether a preempted task inside one of these programs keeps another one's work from being seen.
fn is_left_out(purpose: Purpose, hooks: &[Hook]) -> bool {
    // Where these fire, nothing is preempted.
    const SAFE: [&str; 2] = ["sched_switch", "sched_process_free"];
    // Faults are counted by their events.
    purpose != Purpose::Faults
        && hooks.iter().any(|hook| match hook.at {
            Attachment::Fentry(_) | Attachment::Fexit(_) => true,
            Attachment::RawTracepoint(name) => {
                let event = |other: &Hook| other.at.event().is_some_and(|(_, event)| event == name);
                !SAFE.contains(&name) && !hooks.iter().any(event)
            }
            _ => false,
        })
}

/// What cannot be measured and why, given the purposes that are not served with their reasons and
/// where the copies are watched, and so what can.
#[must_use]
pub fn of<'a>(
    missing: impl IntoIterator<Item = (Purpose, &'a str)>,
    copies: Option<&copies::Plan>,
) -> (Vec<Unavailable>, Measured) {
    let mut all = vec![never()];
    let mut measures = COUNTED;
    for (purpose, reason) in missing {
        let lacks = without(purpose).measures;
        measures = measures.without(MeasureSet::of(lacks));
        all.push(entry(purpose.name(), reason, lacks));
    }
    let mut measured = Measured::everywhere(measures);
    let untimed = [Path::Other, Path::Metadata];
    for path in untimed {
        measured.set(
            path,
            measures.without(MeasureSet::of(&[Measure::KernelTimeNs])),
        );
    }
    for (reason, measure, paths) in copies.iter().flat_map(|plan| plan.blind()) {
        for path in paths {
            let rest = measured.on(*path).without(MeasureSet::of(&[measure]));
            measured.set(*path, rest);
        }
        all.push(Unavailable {
            paths: paths.to_vec(),
            ..entry("copies_in_part", reason, &[measure])
        });
    }
    let time = entry(
        "kernel_time",
        "calls that are not about file data wait for terminals, timers and children: their time \
         says nothing",
        &[Measure::KernelTimeNs],
    );
    all.push(Unavailable {
        paths: untimed.into(),
        ..time
    });
    (all, measured)
}

/// What this version measures on no kernel.
fn never() -> Unavailable {
    entry(
        "disk_writes",
        "this version does not follow writes to the disk",
        &[Measure::DiskWrites, Measure::DiskWriteBytes],
    )
}

/// Why it is not known how much of what is read ahead is used, where what faults map is known.
#[must_use]
pub fn readahead_use(asked: bool, hooks: &[(Purpose, Hook)]) -> Option<Unavailable> {
    let blind = |(_, hook): &(Purpose, Hook)| hook.program == "alloc_set_pte_kretprobe";
    let reason = if !asked {
        "it is followed with --readahead-use only"
    } else if hooks.iter().any(blind) {
        "the return of alloc_set_pte does not tell which page is mapped"
    } else {
        return None;
    };
    Some(entry(
        "readahead_use",
        reason,
        &[Measure::ReadaheadUnusedBytes],
    ))
}

/// Something that cannot be measured on any path.
pub fn entry(purpose: &str, reason: &str, measures: &[Measure]) -> Unavailable {
    Unavailable {
        purpose: purpose.to_owned(),
        reason: reason.to_owned(),
        measures: measures.to_vec(),
        paths: Vec::new(),
    }
}
