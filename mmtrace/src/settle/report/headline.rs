//! The headline: both ways from the disk to the program, with what was measured on each.

use crate::{
    recording::Unit,
    settle::{Settlement, experiment::Experiment, figure::Figure},
};

use super::words::plain;

/// One way of a file's data.
pub(super) struct Way {
    /// What goes that way.
    pub(super) name: &'static str,
    /// From the disk to the page cache; `None` if that is not known.
    pub(super) disk_bytes: Option<u64>,
    /// From there to the program.
    pub(super) copied_bytes: Option<u64>,
    /// Whether the program has the page cache mapped.
    pub(super) mapped: bool,
}

/// Those that were measured: reading and mapping a cold file, then a cached one.
pub(super) fn ways(settlement: &Settlement) -> Vec<Way> {
    let ways = [
        ("read, cold", Experiment::ReadCold, false),
        ("mmap, cold", Experiment::MapColdShared, true),
        ("read, cached", Experiment::ReadWarm, false),
        ("mmap, cached", Experiment::MapWarm, true),
    ];
    let outcomes = &settlement.outcomes;
    let made = ways
        .into_iter()
        .filter(|(_, experiment, _)| outcomes.find(*experiment, 0).is_some());
    made.map(|(name, experiment, mapped)| {
        let figure = |figure| outcomes.value(experiment, 0, figure).number;
        Way {
            name,
            disk_bytes: figure(Figure::DiskReadBytes),
            copied_bytes: figure(Figure::CopiedToUserBytes),
            mapped,
        }
    })
    .collect()
}

/// A number of bytes, or that it is not known.
pub(super) fn bytes(number: Option<u64>) -> String {
    number.map_or("? B".to_owned(), |number| plain(number, Unit::Bytes))
}

impl Way {
    /// As a line of text.
    pub(super) fn line(&self) -> String {
        let arrow = |number: Option<u64>| match number {
            Some(0) => format!("--{}-->", bytes(number)),
            _ => format!("=={}==>", bytes(number)),
        };
        let cache = match self.mapped {
            true => format!("page cache (mapped, {} copied)", bytes(self.copied_bytes)),
            false => format!("page cache {} user buffer", arrow(self.copied_bytes)),
        };
        format!("{:<13} disk {} {cache}", self.name, arrow(self.disk_bytes))
    }
}
