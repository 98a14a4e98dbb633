//! The driver: makes the files, puts them out of the page cache or into it, and has each experiment
//! made by a process of its own.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::{
    Job, STEP, SUBCOMMAND, Step, bench,
    data::{Data, FIRST},
    report::Report,
    sys::{self, Mapping, object_of},
};
use crate::settle::{
    experiment::Given,
    figure::{Evidence, Figure, Value},
    sabotage::Sabotage,
};

/// How much of a file is made at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Makes the experiments of a job.
pub(super) fn run(job: &Job) -> Result<()> {
    if let Some(parent) = job.parent {
        sys::die_with(parent.cast_signed())?;
    }
    // Files that experiments only read are made once for each size.
    let mut shared: Vec<(u64, File)> = Vec::new();
    for repetition in 0..job.repetitions {
        for &experiment in &job.experiments {
            let size_bytes = experiment.scale().of(job.size_bytes);
            let own;
            let file = match experiment.given() {
                Given::Nothing => None,
                Given::Empty => {
                    own = nameless(&job.directory)?;
                    Some(&own)
                }
                Given::ColdOwn => {
                    own = with_data(&job.directory, size_bytes)?;
                    Some(&own)
                }
                Given::Cold | Given::Warm => {
                    if !shared.iter().any(|(size, _)| *size == size_bytes) {
                        shared.push((size_bytes, with_data(&job.directory, size_bytes)?));
                    }
                    let found = shared.iter().find(|(size, _)| *size == size_bytes);
                    found.map(|(_, file)| file)
                }
            };
            let step = Step {
                experiment,
                repetition,
                size_bytes,
                file: file.map(|file| file.as_raw_fd()),
                report: job.report,
                parent: std::process::id().cast_signed(),
                sabotage: job.sabotage,
            };
            let report = attempt(step, file)?;
            bench::tell(&report, job.report)?;
        }
    }
    Ok(())
}

/// Has an experiment made; what the driver knows of it.
fn attempt(step: Step, file: Option<&File>) -> Result<Report> {
    let mut report = Report::new(step.experiment, step.repetition);
    report.set(
        Figure::SizeBytes,
        Value::known(step.size_bytes, Evidence::Program),
    );
    let mut warm = None;
    if let Some(file) = file {
        report.objects.push(object_of(file)?);
        let given = step.experiment.given();
        // An empty file is mapped for its identity alone: on some file systems fstat(2) names another
        // device than the kernel has.
        let length = match given {
            Given::Empty => sys::page_bytes(),
            _ => usize::try_from(step.size_bytes)?,
        };
        let mapping = Mapping::new(Some(file), length, libc::MAP_SHARED)?;
        report.objects.push(mapping.object()?);
        let cached = match given {
            Given::Nothing | Given::Empty => Ok(0),
            Given::Cold | Given::ColdOwn => make_cold(file, &mapping, step.sabotage),
            Given::Warm => {
                let mapping = warm.insert(mapping);
                mapping.lock().context("keeping the file in memory")?;
                Ok(mapping.cached_bytes()?)
            }
        };
        let value = match cached {
            Ok(cached) => Value::known(cached, Evidence::PageTables),
            Err(error) => Value::unknown(format!("{error:#}")),
        };
        report.set(Figure::CachedBeforeBytes, value);
    }
    let status = start(&step, file)?;
    drop(warm);
    if !status.success() {
        report.failed = Some(format!("the experiment's process ended by {status}"));
    }
    Ok(report)
}

/// Puts a file out of the page cache; how many bytes stay.
fn make_cold(file: &File, mapping: &Mapping, sabotage: Option<Sabotage>) -> Result<u64> {
    /// A page that is in use at the moment is left where it is.
    const TRIES: usize = 20;

    file.sync_all().context("fsync")?;
    let mut cached = mapping.cached_bytes()?;
    if sabotage == Some(Sabotage::WarmCache) {
        mapping.lock()?;
        return Ok(mapping.cached_bytes()?);
    }
    for _ in 0..TRIES {
        if cached == 0 {
            break;
        }
        // SAFETY: no memory is passed.
        let error =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        ensure!(
            error == 0,
            "fadvise: {}",
            io::Error::from_raw_os_error(error)
        );
        cached = mapping.cached_bytes()?;
    }
    // It has no disk to which data could be put out of the page cache.
    ensure!(
        cached == 0 || fstatfs(file)?.filesystem_type() != TMPFS_MAGIC,
        "tmpfs keeps its data in memory: there is no disk below it"
    );
    Ok(cached)
}

/// Runs the process of an experiment to its end.
fn start(step: &Step, file: Option<&File>) -> Result<std::process::ExitStatus> {
    let descriptor = file.map(|file| file.as_raw_fd());
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(env::args_os().next().unwrap_or_default())
        .args([SUBCOMMAND, STEP])
        .arg(serde_json::to_string(step)?)
        .arg(step.experiment.name());
    // SAFETY: after the fork, one call that takes no memory.
    unsafe { command.pre_exec(move || descriptor.map_or(Ok(()), inherit)) };
    command.status().context("starting an experiment's process")
}

/// Lets a descriptor stay open over execve.
pub(super) fn inherit(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as this takes.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
    let flags = fcntl_getfd(descriptor)?;
    Ok(fcntl_setfd(descriptor, flags.difference(FdFlags::CLOEXEC))?)
}

/// A file of this size with [`FIRST`] data, on the disk.
fn with_data(directory: &Path, size_bytes: u64) -> Result<File> {
    let mut file = nameless(directory)?;
    fill(&mut file, FIRST, size_bytes).context("writing the experiment's file")?;
    file.sync_all().context("fsync of the experiment's file")?;
    Ok(file)
}

/// Writes `size_bytes` of data.
fn fill(file: &mut File, data: Data, size_bytes: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    while offset < size_bytes {
        let length = (size_bytes - offset).min(CHUNK_BYTES as u64) as usize;
        data.fill(offset, &mut chunk[..length]);
        file.write_all(&chunk[..length])?;
        offset += length as u64;
    }
    Ok(())
}

/// An empty file without a name in a directory: it goes when the last descriptor does, however that
/// comes about.
pub(in crate::settle) fn nameless(directory: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let opened = options
        .clone()
        .custom_flags(libc::O_TMPFILE)
        .open(directory);
    match opened {
        Ok(file) => Ok(file),
        // A file system, or an old kernel's overlay, that has no files without a name.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            let file = tempfile::tempfile_in(directory);
            file.with_context(|| format!("a file in {}", directory.display()))
        }
        Err(error) => Err(error).with_context(|| format!("a file in {}", directory.display())),
    }
}
