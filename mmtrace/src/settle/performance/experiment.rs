//! Taking the samples: each in a process of its own, all in random order, and none believed whose
//! cache was not as it should be.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    outcome::{Cell, Measured, Method},
    sample::{self, Counters, Sample, Task},
    workload::{Cache, Content, FileWork, Random, Truth, Work},
};
use crate::{
    page_cache::CachedFile, progress::Progress, report::units::counted, statistics::FEWEST_ROUNDS,
};

/// How often a sample is tried before it is given up.
const TRIES: usize = 4;

/// Cells that are measured together, since one after the other would undo each other's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Files that are read from disk.
    Cold,
    /// Files that are cached.
    Warm,
    /// Messages.
    Ipc,
}

impl Phase {
    pub(super) const ALL: [Self; 3] = [Self::Cold, Self::Warm, Self::Ipc];

    /// Its name in words.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold files",
            Self::Warm => "warm files",
            Self::Ipc => "messages",
        }
    }

    const fn of(work: &Work) -> Self {
        match work {
            Work::File(work) => match work.cache {
                Cache::Cold => Self::Cold,
                Cache::Warm => Self::Warm,
            },
            Work::Ipc(_) => Self::Ipc,
        }
    }
}

/// The cells while they are measured.
pub(super) struct Experiment {
    files: Vec<CachedFile>,
    cells: Vec<Cell>,
    /// What each cell's samples must come to.
    truths: Vec<Truth>,
    random: Random,
    drop_caches: bool,
    /// How many samples were taken so far.
    taken: u64,
}

impl Experiment {
    pub(super) fn new(
        files: Vec<CachedFile>,
        mut cells: Vec<Cell>,
        content: Content,
        random: Random,
        drop_caches: bool,
    ) -> Self {
        let truth = |cell: &mut Cell| {
            let truth = match &cell.work {
                Work::File(work) => work.truth(content),
                Work::Ipc(work) => work.truth(),
            };
            cell.useful_bytes = truth.useful_bytes;
            truth
        };
        Self {
            truths: cells.iter_mut().map(truth).collect(),
            files,
            cells,
            random,
            drop_caches,
            taken: 0,
        }
    }

    /// Measures a phase's cells so many times, or as often as the time allows, and as often as it
    /// takes to say anything. Returns how many times.
    ///
    /// # Errors
    /// If samples cannot be taken at all, or a consumer saw what is not in the file.
    pub(super) fn measure(
        &mut self,
        phase: Phase,
        repetitions: usize,
        limit: Duration,
        progress: &mut Progress,
    ) -> Result<usize> {
        if phase == Phase::Warm {
            self.warm_up()?;
        }
        let start = Instant::now();
        for repetition in 0..repetitions {
            if repetition >= FEWEST_ROUNDS && start.elapsed() > limit {
                return Ok(repetition);
            }
            let cells = self.cells.iter().enumerate();
            let of_phase = cells.filter(|(_, cell)| Phase::of(&cell.work) == phase);
            let mut cells: Vec<usize> = of_phase.map(|(cell, _)| cell).collect();
            self.random.shuffle(&mut cells);
            let all = cells.len();
            for (done, cell) in cells.into_iter().enumerate() {
                progress.draw_if_due(|| {
                    format!(
                        "settle: timing {}, round {} of {repetitions}: {} of {all}",
                        phase.name(),
                        repetition + 1,
                        done + 1,
                    )
                });
                let mut turns: Vec<usize> = (0..self.cells[cell].contestants.len()).collect();
                self.random.shuffle(&mut turns);
                for contestant in turns {
                    if self.cells[cell].skipped.is_none() {
                        self.take(repetition, cell, contestant)?;
                    }
                }
            }
        }
        Ok(repetitions)
    }

    /// The cells with what came of them.
    pub(super) fn finish(mut self) -> Vec<Cell> {
        self.cells.iter_mut().for_each(Cell::sum_up);
        self.cells
    }

    /// Brings all files into the cache anew from start to end, so that it has them in units of the
    /// same size for everyone: earlier reads in random order leave small ones. Cells of a file that
    /// does not fit are given up.
    fn warm_up(&mut self) -> Result<()> {
        for file in &self.files {
            // What cannot be dropped is there.
            file.evict(false)?;
            let missing = file.warm()?;
            if missing == 0 {
                continue;
            }
            for cell in &mut self.cells {
                if matches!(cell.work, Work::File(work)
                    if work.cache == Cache::Warm && work.size_bytes == file.size_bytes)
                {
                    cell.skipped = Some(do_not_stay(missing));
                }
            }
        }
        Ok(())
    }

    /// Takes a contestant's sample of a repetition. The cell is given up if it has none at all.
    fn take(&mut self, repetition: usize, cell: usize, contestant: usize) -> Result<()> {
        let mut doubt = String::new();
        for _ in 0..TRIES {
            let method = self.cells[cell].contestants[contestant].method;
            let work = self.cells[cell].work;
            let position = self.taken;
            self.taken += 1;
            match self.sample(cell, method) {
                Ok(Ok(sample)) => {
                    ensure!(
                        sample.sum == self.truths[cell].sum,
                        "{} brought other data than there is",
                        method.name()
                    );
                    let samples = &mut self.cells[cell].contestants[contestant].samples;
                    samples.push(measured(
                        &work,
                        repetition,
                        position,
                        &sample,
                        self.truths[cell].useful_bytes,
                    ));
                    return Ok(());
                }
                Ok(Err(reason)) => {
                    self.cells[cell].contestants[contestant].discarded += 1;
                    doubt = reason;
                }
                Err(error) => {
                    self.cells[cell].contestants[contestant].discarded += 1;
                    doubt = format!("{}: {error:#}", method.name());
                    break;
                }
            }
        }
        if self.cells[cell].contestants[contestant].samples.is_empty() {
            self.cells[cell].skipped = Some(doubt);
        }
        Ok(())
    }

    /// One sample, or why it is not to be believed.
    fn sample(&self, cell: usize, method: Method) -> Result<Result<Sample, String>> {
        let work = self.cells[cell].work;
        let Work::File(file_work) = work else {
            return run(Task { method, work }, Stdio::null()).map(Ok);
        };
        let mut files = self.files.iter();
        let file = files
            .find(|file| file.size_bytes == file_work.size_bytes)
            .context("no file of this size")?;
        let unprepared = match file_work.cache {
            Cache::Cold => Some(file.evict(self.drop_caches)?)
                .filter(|pages| *pages > 0)
                .map(|pages| {
                    let pages = counted(pages, "page", "pages");
                    format!("{pages} of it in the cache when the kernel was asked to drop it")
                }),
            Cache::Warm => Some(file.warm()?)
                .filter(|pages| *pages > 0)
                .map(do_not_stay),
        };
        if let Some(reason) = unprepared {
            return Ok(Err(reason));
        }
        let mut sample = run(Task { method, work }, Stdio::from(file.file.try_clone()?))?;
        Ok(match file_work.cache {
            Cache::Cold => {
                // From a cold file none at all: this file system does not put them to an account.
                sample.counters.disk_bytes = sample.counters.disk_bytes.filter(|bytes| *bytes > 0);
                doubt_cold(&sample.counters, self.truths[cell].useful_bytes)
            }
            Cache::Warm => doubt_warm(&sample.counters, file.missing_pages()?),
        }
        .map_or(Ok(sample), Err))
    }
}

fn do_not_stay(pages: u64) -> String {
    let pages = counted(pages, "page", "pages");
    format!("{pages} of it not in the cache after it was read")
}

/// Why what was read from a cold file is not to be believed. What the kernel does not count for a
/// process, as on some file systems, is no reason.
fn doubt_cold(counters: &Counters, useful_bytes: u64) -> Option<String> {
    let disk_bytes = counters.disk_bytes?;
    (disk_bytes < useful_bytes)
        .then(|| format!("{disk_bytes} bytes were read from disk, and {useful_bytes} asked for"))
}

/// Why what was read from a warm file is not to be believed.
fn doubt_warm(counters: &Counters, missing_pages: u64) -> Option<String> {
    let disk_bytes = counters.disk_bytes.unwrap_or(0);
    let major_faults = counters.major_faults;
    if missing_pages > 0 {
        let pages = counted(missing_pages, "page", "pages");
        Some(format!("{pages} left the cache meanwhile"))
    } else if disk_bytes > 0 || major_faults > 0 {
        Some(format!(
            "{disk_bytes} bytes were read from disk, with {major_faults} major faults"
        ))
    } else {
        None
    }
}

/// The time that counts. Where one thread reads what is cached, nothing goes on while it waits for a
/// processor that others have: that is not the method's. Elsewhere the disk or another thread does go
/// on meanwhile, and all of the time counts.
const fn counted_ns(work: &Work, sample: &Sample) -> u64 {
    let waited_ns = sample.counters.waited_ns;
    match work {
        Work::File(FileWork {
            cache: Cache::Warm,
            threads: 1,
            ..
        }) if waited_ns < sample.elapsed_ns => sample.elapsed_ns - waited_ns,
        _ => sample.elapsed_ns,
    }
}

fn measured(
    work: &Work,
    repetition: usize,
    position: u64,
    sample: &Sample,
    useful_bytes: u64,
) -> Measured {
    Measured {
        repetition,
        position,
        ns_per_byte: counted_ns(work, sample) as f64 / useful_bytes as f64,
        minor_faults: sample.counters.minor_faults,
        major_faults: sample.counters.major_faults,
        disk_bytes: sample.counters.disk_bytes,
        waited: sample.counters.waited_ns as f64 / sample.elapsed_ns as f64,
    }
}

/// Takes a sample in a process of its own, with the file as its standard input.
fn run(task: Task, file: Stdio) -> Result<Sample> {
    let output = Command::new("/proc/self/exe")
        .arg(sample::SUBCOMMAND)
        .arg(serde_json::to_string(&task)?)
        .stdin(file)
        .output()
        .context("cannot start a process to measure")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ({})", said.trim(), output.status);
    }
    serde_json::from_slice(&output.stdout).context("a sample that cannot be read")
}

#[cfg(test)]
mod tests {
    use super::{
        super::workload::{Consumer, Pattern},
        *,
    };

    fn counters(major_faults: u64, disk_bytes: Option<u64>) -> Counters {
        Counters {
            minor_faults: 9,
            major_faults,
            disk_bytes,
            waited_ns: 0,
        }
    }

    #[test]
    fn a_cold_file_is_read_from_disk_whole() {
        assert!(doubt_cold(&counters(1, Some(4_095)), 4_096).is_some());
        for disk_bytes in [Some(4_096), Some(9_999), None] {
            assert_eq!(doubt_cold(&counters(1, disk_bytes), 4_096), None);
        }
    }

    #[test]
    fn a_warm_file_takes_no_disk() {
        assert_eq!(doubt_warm(&counters(0, Some(0)), 0), None);
        assert_eq!(doubt_warm(&counters(0, None), 0), None);
        assert!(doubt_warm(&counters(0, Some(512)), 0).is_some());
        assert!(doubt_warm(&counters(1, Some(0)), 0).is_some());
        assert!(doubt_warm(&counters(0, Some(0)), 1).is_some());
    }

    #[test]
    fn waiting_counts_but_for_a_single_thread_with_a_warm_file() {
        let sample = |waited_ns| Sample {
            elapsed_ns: 100,
            sum: 0,
            counters: Counters {
                waited_ns,
                ..Counters::default()
            },
        };
        let work = |cache, threads| {
            Work::File(FileWork {
                size_bytes: 1,
                pattern: Pattern::Sequential,
                cache,
                threads,
                block_bytes: 1,
                blocks: 1,
                passes: 1,
                opens: 1,
                consumer: Consumer::Sum,
                seed: 0,
            })
        };
        let warm = work(Cache::Warm, 1);
        assert_eq!(counted_ns(&warm, &sample(30)), 70);
        // Nothing waits longer than it takes.
        assert_eq!(counted_ns(&warm, &sample(130)), 100);
        for other in [work(Cache::Cold, 1), work(Cache::Warm, 2)] {
            assert_eq!(counted_ns(&other, &sample(30)), 100);
        }
    }
}
