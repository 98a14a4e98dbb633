//! The rounds: everyone in turn, again and again, so that what the machine does besides meets all.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::contestant::{Arena, Contestant, Family};
use crate::report;
use crate::start::{self, Start};
use crate::workload::{Loop, Sample};

/// What every measurement is told.
#[derive(Args)]
pub(crate) struct Measuring {
    /// The mmtrace to measure.
    #[arg(long)]
    pub(crate) mmtrace: PathBuf,
    /// Where to make the file that is read: on a file system with a disk.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How many rounds.
    #[arg(long, default_value_t = 20)]
    pub(crate) rounds: usize,
    /// Time counts instructions here: name them so, and do not measure starting.
    #[arg(long)]
    pub(crate) counts_instructions: bool,
}

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    measuring: Measuring,
    /// How many chunks a loop has in a round, some 400 us each.
    #[arg(long, default_value_t = 100)]
    chunks: usize,
    /// Also measure each of mmtrace's programs by itself.
    #[arg(long)]
    programs: bool,
    /// Only this loop.
    #[arg(long = "loop", value_name = "LOOP")]
    only_loop: Option<Loop>,
    /// Only this backend, and what its goals are measured by.
    #[arg(long, value_name = "BACKEND")]
    backend: Option<Family>,
}

/// What was measured.
pub(crate) struct Measured {
    pub(crate) counts_instructions: bool,
    pub(crate) rounds: usize,
    /// Samples that were dropped, as the disk was read meanwhile.
    pub(crate) disturbed: usize,
    pub(crate) faults_per_mapping: u64,
    pub(crate) start: Option<Start>,
    /// What was done over and over.
    pub(crate) loops: Vec<Loop>,
    /// Who has watched that.
    pub(crate) contestants: Vec<Contestant>,
    /// For each loop and contestant, in these orders, what an operation took in each round.
    pub(crate) results: Vec<Vec<Result<Vec<Option<f64>>>>>,
    pub(crate) programs: Vec<ProgramsOf>,
}

/// What mmtrace's programs took in a loop.
pub(crate) struct ProgramsOf {
    pub(crate) family: Family,
    pub(crate) kind: Loop,
    pub(crate) sample: Sample,
    /// What the kernel's timing makes of a program that does nothing, per run.
    pub(crate) empty_ns: f64,
}

/// Measures everything and prints it.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "attaching programs needs root: run this by sudo"
    );
    mount_tracing()?;
    let loops: Vec<Loop> = (options.only_loop).map_or_else(|| Loop::ALL.into(), |only| vec![only]);
    let contestants = Contestant::all(options.backend);
    let mut measured = Measured {
        counts_instructions: options.measuring.counts_instructions,
        rounds: options.measuring.rounds,
        disturbed: 0,
        faults_per_mapping: 0,
        start: None,
        results: loops
            .iter()
            .map(|_| contestants.iter().map(|_| Ok(Vec::new())).collect())
            .collect(),
        loops,
        contestants,
        programs: Vec::new(),
    };
    // First: see there.
    if !options.measuring.counts_instructions {
        measured.start =
            Some(start::measure(&options.measuring.mmtrace).context("cannot start mmtrace")?);
    }
    let arena = Arena::new(&options.measuring.mmtrace, &options.measuring.dir)?;
    for round in 0..options.measuring.rounds {
        eprintln!("bench: round {} of {}", round + 1, options.measuring.rounds);
        measured.add_round(&arena, options.chunks)?;
    }
    if options.programs {
        measured.add_programs(&arena, options.chunks)?;
    }
    print!("{}", report::markdown(&measured));
    Ok(())
}

impl Measured {
    /// Runs everyone in turn. Who fails in the first round cannot be had here.
    fn add_round(&mut self, arena: &Arena, chunks: usize) -> Result<()> {
        arena.write_file()?;
        for (results, &kind) in self.results.iter_mut().zip(&self.loops) {
            for (times, &contestant) in results.iter_mut().zip(&self.contestants) {
                let Ok(rounds) = times else { continue };
                let sample = match arena.run(contestant, kind, chunks, false) {
                    Ok(sample) => sample,
                    Err(error) if rounds.is_empty() => {
                        *times = Err(error);
                        continue;
                    }
                    Err(error) => {
                        return Err(error.context(format!("{contestant} failed after it worked")));
                    }
                };
                // Fewer faults than there can be: the file has been read from the disk.
                self.faults_per_mapping = self.faults_per_mapping.max(sample.faults_per_mapping);
                let is_disturbed = sample.is_disturbed
                    || (kind == Loop::Faults
                        && sample.faults_per_mapping < self.faults_per_mapping);
                self.disturbed += usize::from(is_disturbed);
                // Alone in its machine, a loop is interrupted by the clock and its tracer only:
                // that counts. Elsewhere, the median leaves out what others do.
                let time = if self.counts_instructions {
                    sample.mean_ns
                } else {
                    sample.median_ns
                };
                rounds.push((!is_disturbed).then_some(time));
            }
        }
        Ok(())
    }

    fn add_programs(&mut self, arena: &Arena, chunks: usize) -> Result<()> {
        for family in Family::ALL {
            let mmtrace = Contestant::Mmtrace(family);
            if !self.contestants.contains(&mmtrace) {
                continue;
            }
            for &kind in &self.loops {
                let Ok(sample) = arena.run(mmtrace, kind, chunks, true) else {
                    continue;
                };
                let empty = arena.run(Contestant::Empty(family), kind, chunks, true)?;
                let runs: f64 = empty.programs.iter().map(|p| p.runs_per_operation).sum();
                let time: f64 = empty
                    .programs
                    .iter()
                    .map(|p| p.runs_per_operation * p.ns_per_run)
                    .sum();
                self.programs.push(ProgramsOf {
                    family,
                    kind,
                    sample,
                    empty_ns: time / runs,
                });
            }
        }
        Ok(())
    }
}

/// Mounts the file systems that other tracers need, where they are missing, for us alone.
pub(crate) fn mount_tracing() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot have mounts of our own")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    for (file_system, target) in [
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
    ] {
        match mount(
            Some(file_system),
            target,
            Some(file_system),
            MsFlags::empty(),
            None::<&str>,
        ) {
            // Without them, the tracers that need them say so.
            Ok(()) | Err(Errno::EBUSY | Errno::ENOENT | Errno::ENODEV | Errno::EPERM) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot mount {file_system}")),
        }
    }
    Ok(())
}
