//! The timeline: from the kernel side's stretches, which grow with the run, to equal ones.

use std::collections::BTreeMap;

use mmtrace_common::{
    Path, StretchKey,
    timeline::{HALF, begins_ns, width_shift},
};

use super::maps::sum;
use crate::recording::{Measure, MeasureSet, Measures, PathName, Timeline, Totals, share_out};

/// What is told over time. Of operations and what they ask for some are counted before it is known
/// that they come to nothing.
const TOLD: [Measure; 13] = [
    Measure::BytesReturned,
    Measure::CopiedToUserBytes,
    Measure::CopiedFromUserBytes,
    Measure::CopiedInKernelBytes,
    Measure::MinorFaults,
    Measure::MajorFaults,
    Measure::MappedBytes,
    Measure::CacheFilledBytes,
    Measure::ReadaheadBytes,
    Measure::DiskReads,
    Measure::DiskReadBytes,
    Measure::KernelTimeNs,
    Measure::DiskWaitNs,
];

/// Puts what was counted into stretches that are all as long as the last one.
pub(super) fn make(
    counted: &BTreeMap<StretchKey, mmtrace_common::Measures>,
    totals: &Totals,
) -> Option<Timeline> {
    let last = counted.keys().next_back()?.stretch;
    let shift = width_shift(HALF, last);
    let stretches = (begins_ns(HALF, last) >> shift) as usize + 1;
    let mut sums: BTreeMap<Path, Vec<mmtrace_common::Measures>> = BTreeMap::new();
    for (key, work) in counted {
        let path = Path::from_number(key.path).unwrap_or(Path::Other);
        let values = sums
            .entry(path)
            .or_insert_with(|| vec![Default::default(); stretches]);
        sum(
            &mut values[(begins_ns(HALF, key.stretch) >> shift) as usize],
            work,
        );
    }
    let paths = sums.iter().map(|(path, sums)| {
        let told = TOLD.iter().filter_map(|&measure| {
            let total = totals[*path].get(measure).filter(|&total| total != 0)?;
            Some((measure, values(sums, measure, total)?))
        });
        (PathName(*path), told.collect())
    });
    Some(Timeline {
        width_ns: 1 << shift,
        stretches,
        paths: paths.collect(),
    })
}

/// A measure's value in each stretch. Where copies were sampled, they are a part of the `total`,
/// which is shared out in proportion.
fn values(sums: &[mmtrace_common::Measures], measure: Measure, total: u64) -> Option<Vec<u64>> {
    let counted: Vec<u64> = sums
        .iter()
        .map(|work| Measures::from_kernel(work, MeasureSet::of(&[measure])))
        .map(|work| work.get(measure).unwrap_or(0))
        .collect();
    match measure {
        Measure::CopiedToUserBytes | Measure::CopiedFromUserBytes => share_out(total, &counted),
        _ => Some(counted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Measured, Row};

    fn work(
        stretch: u32,
        bytes_returned: u64,
        minor_faults: u64,
    ) -> (StretchKey, mmtrace_common::Measures) {
        let key = StretchKey {
            stretch,
            path: Path::Read as u32,
        };
        let work = mmtrace_common::Measures {
            bytes_returned,
            minor_faults,
            copied_to_user_bytes: bytes_returned,
            ..Default::default()
        };
        (key, work)
    }

    #[test]
    fn stretches_become_as_long_as_the_last_and_estimates_are_shared_out() {
        // 0 and 1 last a unit; 256 is the first that lasts two.
        let counted = BTreeMap::from([
            work(0, 3, 0),
            work(1, 5, 1),
            work(2, 7, 0),
            work(256, 11, 0),
        ]);
        let measures = Measures {
            bytes_returned: Some(26),
            copied_to_user_bytes: Some(52),
            minor_faults: Some(1),
            ..Measures::default()
        };
        let told = [
            Measure::BytesReturned,
            Measure::CopiedToUserBytes,
            Measure::MinorFaults,
        ];
        let row = Row {
            process: None,
            file: None,
            path: Path::Read,
            measures,
        };
        let totals = Totals::of(&[row], &Measured::everywhere(MeasureSet::of(&told)));
        let timeline = make(&counted, &totals).unwrap();
        assert_eq!((timeline.width_ns, timeline.stretches), (2 << 16, 129));
        let first = |measure| {
            timeline
                .get(Path::Read, measure)
                .map(|values| [values[0], values[1], values[128]])
        };
        assert_eq!(first(Measure::BytesReturned), Some([8, 7, 11]));
        assert_eq!(first(Measure::CopiedToUserBytes), Some([16, 14, 22]));
        assert_eq!(first(Measure::MinorFaults), Some([1, 0, 0]));
        assert_eq!(first(Measure::DiskReadBytes), None);
        assert_eq!(timeline.get(Path::Mmap, Measure::BytesReturned), None);
    }
}
