//! Whether a mapping has "the best performance" for files, and the "highest efficiency" between
//! processes: an experiment with reads, mappings and advices, and with channels.
//!
//! - Each sample is taken in a process of its own, by the monotonic clock, around opening, mapping,
//!   reading, unmapping and closing.
//! - The cells of a phase take turns in a random order, anew in each repetition; in each, the contestants
//!   do, one right after the other, so that what else the machine does meets all of them.
//! - A file is cold or warm because the page cache was looked at before, and for warm ones after.
//! - A winner is named where the difference exceeds the spread: the rule is in [`statistics`](crate::statistics).

mod cells;
mod experiment;
mod file;
mod messages;
mod outcome;
mod reader;
mod ring;
pub mod sample;
mod table;
mod verdict;
mod workload;

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{page_cache::page_bytes, progress::Progress};
use cells::Design;
use experiment::{Experiment, Phase};
use workload::{Content, Random};

pub use outcome::{Cell, Contestant, Measured, Method, Outcome, Winner};
pub use table::table;
pub use verdict::{Ruling, Verdict, verdict};
pub use workload::{Cache, Consumer, FileWork, IpcWork, Pattern, Work};

/// [`Plan::phase_limit`] for someone who waits.
pub const PHASE_LIMIT: Duration = Duration::from_secs(9);

/// How the experiment is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the files are made.
    pub dir: PathBuf,
    /// Size of the large file in bytes. Larger than memory, it shows what happens then.
    pub size_bytes: u64,
    /// How many times each sample is taken; fewer than three tell nothing.
    pub repetitions: usize,
    /// Drop all clean caches of the machine before each cold sample, not the file's pages alone.
    pub drop_caches: bool,
    /// Of the random orders and of the files' content.
    pub seed: u64,
    /// A phase that has taken this long ends after its third repetition or a later one: for slow
    /// disks.
    pub phase_limit: Duration,
}

/// Does the experiment.
///
/// Nothing is left of it in any case: its files have no names, and its processes end with it.
///
/// # Errors
/// If the files cannot be made, or if a method brings wrong data.
pub fn measure(plan: &Plan, progress: &mut Progress) -> Result<Outcome> {
    ensure!(plan.size_bytes > 0, "there is nothing in a file of 0 bytes");
    ensure!(plan.repetitions > 0, "at least one repetition is needed");
    let start = Instant::now();
    let page_bytes = page_bytes();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut sizes_bytes = vec![plan.size_bytes, cells::MIDDLING_BYTES, page_bytes];
    sizes_bytes.sort_unstable();
    sizes_bytes.dedup();
    let mut random = Random::new(plan.seed);
    let content = Content {
        seed: random.next(),
    };
    let files = sizes_bytes
        .iter()
        .map(|size_bytes| file::create(&plan.dir, *size_bytes, content))
        .collect::<Result<Vec<_>>>()?;
    let readahead_bytes = file::readahead_bytes(&files[0].file);
    let memory_bytes = memory_bytes();
    let mut not_tried = Vec::new();
    if cpus == 1 {
        not_tried.push("several threads: there is one processor".to_owned());
    }
    let exceeds_memory = memory_bytes.is_some_and(|memory| plan.size_bytes > memory);
    if !exceeds_memory {
        let memory =
            memory_bytes.map_or_else(String::new, |bytes| format!(" (of {})", table::size(bytes)));
        not_tried.push(format!(
            "a file larger than memory{memory}: ask for such a size"
        ));
    }

    let cells = Design {
        large_bytes: plan.size_bytes,
        exceeds_memory,
        page_bytes,
        threads: cpus,
        seed: random.next(),
    }
    .cells();
    let mut experiment = Experiment::new(files, cells, content, random, plan.drop_caches);
    for phase in Phase::ALL {
        let done = experiment.measure(phase, plan.repetitions, plan.phase_limit, progress)?;
        if done < plan.repetitions {
            not_tried.push(format!(
                "more than {done} of {} repetitions of {}: too slow",
                plan.repetitions,
                phase.name()
            ));
        }
    }
    Ok(Outcome {
        seed: plan.seed,
        repetitions: plan.repetitions,
        cpus,
        memory_bytes,
        readahead_bytes,
        drop_caches: plan.drop_caches,
        cells: experiment.finish(),
        not_tried,
        elapsed_ns: u64::try_from(start.elapsed().as_nanos()).context("too long")?,
    })
}

/// The machine's memory in bytes.
fn memory_bytes() -> Option<u64> {
    let info = rustix::system::sysinfo();
    info.totalram.checked_mul(u64::from(info.mem_unit))
}
