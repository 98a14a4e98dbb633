//! Advice, at the end of the table.

use super::{table::Options, text::wrapped, units::counted};
use crate::{advice::advise, recording::Recording};

/// How many pieces of advice are shown.
const MOST: usize = 5;

/// What the recording suggests to do otherwise, and how to check that.
pub(super) fn advice(recording: &Recording, options: &Options) -> Vec<String> {
    let all = advise(recording);
    let mut lines: Vec<String> = all
        .iter()
        .take(MOST)
        .flat_map(|advice| {
            let line = format!("Advice: {}; check: {}.", advice.says, advice.check);
            wrapped(&line, 0, options.width)
        })
        .collect();
    let more = all.len().saturating_sub(MOST) as u64;
    if more > 0 {
        let pieces = counted(more, "more piece", "more pieces");
        lines.push(format!("and {pieces} of advice"));
    }
    lines
}
