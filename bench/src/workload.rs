//! The loops that are measured. Each measures itself, so that starting and ending do not count.

use std::fs::{self, File};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use clap::{Args, ValueEnum};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use crate::statistics;

/// The file that is read and mapped: small enough to stay in the page cache.
pub(crate) const FILE_BYTES: usize = 4 << 20;

/// How much is written to it at a time, too, so that its folios are of one page.
pub(crate) const PAGE_BYTES: usize = 4096;

/// What is done over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Loop {
    /// pread() of 4 KiB that are in the page cache.
    Read4k,
    /// pread() of 64 KiB that are in the page cache.
    Read64k,
    /// Map the cached file, touch each of its pages, unmap it. An operation is one fault.
    Faults,
}

impl Loop {
    pub(crate) const ALL: [Self; 3] = [Self::Read4k, Self::Read64k, Self::Faults];

    /// The column's title, and what an operation is.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Read4k => "pread 4 KiB",
            Self::Read64k => "pread 64 KiB",
            Self::Faults => "mapped fault",
        }
    }

    /// How often a chunk repeats it: some 400 us.
    const fn repeats(self) -> usize {
        match self {
            Self::Read4k => 500,
            Self::Read64k => 60,
            Self::Faults => 5,
        }
    }
}

/// How to run a loop.
#[derive(Args)]
pub(crate) struct Options {
    /// Which.
    #[arg(long, value_enum)]
    kind: Loop,
    /// The file to read or map.
    #[arg(long)]
    file: PathBuf,
    /// How many chunks to time, some 400 us each.
    #[arg(long)]
    chunks: usize,
    /// Where to write the sample.
    #[arg(long)]
    out: PathBuf,
    /// Also let the kernel time each BPF program, which costs time by itself.
    #[arg(long)]
    programs: bool,
}

/// What a run of a loop measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sample {
    /// What an operation took in the middle chunk: what others on the machine did hardly counts.
    pub(crate) median_ns: f64,
    /// What an operation took on average.
    pub(crate) mean_ns: f64,
    /// Whether the disk was read meanwhile, so that the sample is void.
    pub(crate) is_disturbed: bool,
    /// How many faults a mapping of the file takes; 0 for reads.
    pub(crate) faults_per_mapping: u64,
    /// What the BPF programs took, if asked for.
    pub(crate) programs: Vec<ProgramCost>,
}

/// What a BPF program took during a loop, its timing included.
#[derive(Serialize, Deserialize)]
pub(crate) struct ProgramCost {
    /// Its name, of which the kernel keeps 15 characters.
    pub(crate) name: String,
    pub(crate) runs_per_operation: f64,
    pub(crate) ns_per_run: f64,
}

/// Runs a loop and writes its sample.
pub(crate) fn run(options: &Options) -> Result<()> {
    let file = Warm::open(&options.file)?;
    let faults_per_mapping = match options.kind {
        Loop::Faults => file.faults_per_mapping()?,
        Loop::Read4k | Loop::Read64k => 0,
    };
    let mut buffer = vec![0; FILE_BYTES];
    // The first chunk is the slowest: it is not timed.
    file.chunk(options.kind, &mut buffer)?;
    let mut chunk_times = Vec::with_capacity(options.chunks);
    let statistics = options
        .programs
        .then(|| aya::sys::enable_stats(aya::sys::Stats::RunTime))
        .transpose()
        .context("cannot let the kernel time BPF programs")?;
    let programs_before = program_times(options.programs)?;
    let before = getrusage(UsageWho::RUSAGE_SELF)?;
    for _ in 0..options.chunks {
        let start = Instant::now();
        file.chunk(options.kind, &mut buffer)?;
        chunk_times.push(start.elapsed());
    }
    let after = getrusage(UsageWho::RUSAGE_SELF)?;
    let programs_after = program_times(options.programs)?;
    drop(statistics);

    let operations_per_chunk = options.kind.repeats() as f64 * (faults_per_mapping.max(1) as f64);
    let per_operation: Vec<f64> = chunk_times
        .iter()
        .map(|time| time.as_nanos() as f64 / operations_per_chunk)
        .collect();
    let operations = operations_per_chunk * options.chunks as f64;
    let sample = Sample {
        median_ns: statistics::median(&per_operation).context("no chunks")?,
        mean_ns: per_operation.iter().sum::<f64>() / options.chunks as f64,
        is_disturbed: disk_use(&before) != disk_use(&after),
        faults_per_mapping,
        programs: programs_after
            .iter()
            .filter_map(|end| cost(end, &programs_before, operations))
            .collect(),
    };
    fs::write(&options.out, serde_json::to_vec(&sample)?)
        .with_context(|| format!("cannot write {}", options.out.display()))
}

fn disk_use(usage: &Usage) -> [i64; 2] {
    [usage.major_page_faults(), usage.block_reads()]
}

/// A file that is in the page cache.
struct Warm(File);

impl Warm {
    fn open(path: &Path) -> Result<Self> {
        let in_file = || format!("cannot read {}", path.display());
        let length = fs::read(path).with_context(in_file)?.len();
        ensure!(
            length == FILE_BYTES,
            "the file has {length} bytes, not {FILE_BYTES}"
        );
        Ok(Self(File::open(path).with_context(in_file)?))
    }

    fn chunk(&self, kind: Loop, buffer: &mut [u8]) -> Result<()> {
        match kind {
            Loop::Read4k => self.read(kind.repeats(), &mut buffer[..PAGE_BYTES]),
            Loop::Read64k => self.read(kind.repeats(), &mut buffer[..16 * PAGE_BYTES]),
            Loop::Faults => (0..kind.repeats()).try_for_each(|_| self.touch()),
        }
    }

    /// Reads pieces of the buffer's size, one after the other, from the start again at the end.
    fn read(&self, count: usize, buffer: &mut [u8]) -> Result<()> {
        let pieces = FILE_BYTES / buffer.len();
        for piece in 0..count {
            let offset = (piece % pieces) * buffer.len();
            self.0.read_exact_at(buffer, offset as u64)?;
        }
        black_box(buffer);
        Ok(())
    }

    /// Maps the file, reads a byte of each page, and unmaps it.
    fn touch(&self) -> Result<()> {
        let length = NonZeroUsize::new(FILE_BYTES).context("empty file")?;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ,
                MapFlags::MAP_SHARED,
                &self.0,
                0,
            )
        }?;
        for offset in (0..FILE_BYTES).step_by(PAGE_BYTES) {
            // SAFETY: within the mapping, whose file is that long; nobody truncates it.
            black_box(unsafe { start.cast::<u8>().add(offset).read_volatile() });
        }
        // SAFETY: the whole mapping, and nothing refers to it.
        unsafe { munmap(start, FILE_BYTES) }.context("cannot unmap")
    }

    fn faults_per_mapping(&self) -> Result<u64> {
        self.touch()?;
        let before = getrusage(UsageWho::RUSAGE_SELF)?.minor_page_faults();
        self.touch()?;
        let after = getrusage(UsageWho::RUSAGE_SELF)?.minor_page_faults();
        Ok(u64::try_from(after - before)?)
    }
}

/// A program's times so far.
struct ProgramTimes {
    id: u32,
    name: String,
    runs: u64,
    time: Duration,
}

fn program_times(wanted: bool) -> Result<Vec<ProgramTimes>> {
    if !wanted {
        return Ok(Vec::new());
    }
    loaded_programs()
        .map(|program| {
            let program = program?;
            Ok(ProgramTimes {
                id: program.id(),
                name: program.name_as_str().unwrap_or("?").to_owned(),
                runs: program.run_count(),
                time: program.run_time(),
            })
        })
        .collect()
}

/// What a program took since `before`, if it ran.
fn cost(end: &ProgramTimes, before: &[ProgramTimes], operations: f64) -> Option<ProgramCost> {
    let start = before.iter().find(|program| program.id == end.id)?;
    let runs = end.runs - start.runs;
    (runs > 0).then(|| ProgramCost {
        name: end.name.clone(),
        runs_per_operation: runs as f64 / operations,
        ns_per_run: (end.time - start.time).as_nanos() as f64 / runs as f64,
    })
}
