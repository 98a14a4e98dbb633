//! What an experiment's process works with: its file, its report, a second process.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{FromRawFd as _, RawFd},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::{
    Step,
    report::Report,
    sys::{self, Mapping},
};
use crate::settle::{
    figure::{Evidence, Figure, Value},
    sabotage::Sabotage,
};

/// An experiment that is being made.
pub(super) struct Bench {
    /// What is to be done.
    pub(super) step: Step,
    /// What is told of it.
    pub(super) report: Report,
}

impl Bench {
    pub(super) fn new(step: Step) -> Self {
        let report = Report::new(step.experiment, step.repetition);
        Self { step, report }
    }

    /// Bytes of the experiment's data.
    pub(super) fn size(&self) -> Result<usize> {
        Ok(usize::try_from(self.step.size_bytes)?)
    }

    /// The file that the driver has made, opened by this process.
    pub(super) fn file(&self, write: bool, flags: i32) -> Result<File> {
        let descriptor = self.step.file.context("this experiment has no file")?;
        sys::reopen(descriptor, write, flags).context("opening the experiment's file")
    }

    /// Maps the whole file, as its experiment says.
    pub(super) fn map(&mut self, flags: i32) -> Result<Mapping> {
        let size = self.size()?;
        // The file of MAP_SHARED must be open for writing, if it is to be mapped for stores.
        let file = self.file(true, 0)?;
        if self.step.sabotage == Some(Sabotage::CopyingMap) {
            return read_in_secret(&file, size);
        }
        let mapping = Mapping::new(Some(&file), size, flags).context("mmap")?;
        self.report.objects.push(mapping.object()?);
        Ok(mapping)
    }

    /// Memory without a file, that shows up in the report.
    pub(super) fn share(&mut self, file: Option<&File>) -> Result<Mapping> {
        let size = self.size()?;
        let mapping = Mapping::new(file, size, libc::MAP_SHARED).context("mmap")?;
        self.report.objects.push(mapping.object()?);
        Ok(mapping)
    }

    /// Notes a figure that the program knows.
    pub(super) fn set(&mut self, figure: Figure, number: u64, evidence: Evidence) {
        self.report.set(figure, Value::known(number, evidence));
    }

    /// Notes a figure that the program knows, if it could be had.
    pub(super) fn try_set(&mut self, figure: Figure, number: Result<u64>, evidence: Evidence) {
        let value = match number {
            Ok(number) => Value::known(number, evidence),
            Err(error) => Value::unknown(format!("{error:#}")),
        };
        self.report.set(figure, value);
    }

    /// Notes how many bytes were looked at and how many were what they must be.
    pub(super) fn checked(&mut self, checked: u64, right: u64) {
        self.set(Figure::CheckedBytes, checked, Evidence::Program);
        self.set(Figure::RightBytes, right, Evidence::Program);
    }
}

/// What a mapping is replaced by where a test wants to see through a program that copies in secret.
fn read_in_secret(file: &File, size: usize) -> Result<Mapping> {
    use std::os::unix::fs::FileExt as _;

    let mut buffer = Mapping::buffer(size)?;
    file.read_exact_at(buffer.bytes_mut(), 0)?;
    Ok(buffer)
}

/// Writes a report as a line, in one call, to a descriptor that others write to as well.
pub(super) fn tell(report: &Report, to: RawFd) -> Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    // SAFETY: the descriptor was inherited for this, and stays open: it is not closed below.
    let mut to = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(to) });
    to.write_all(&line).context("cannot tell what was seen")
}

/// Two processes that take turns: a number in shared memory, and waits for it by futex.
pub(super) struct Turns(Mapping);

/// How long one side waits before it looks whether the other one is still there.
const LOOK_AFTER_NS: i64 = 200_000_000;

impl Turns {
    pub(super) fn new() -> io::Result<Self> {
        Mapping::new(None, size_of::<AtomicU32>(), libc::MAP_SHARED).map(Self)
    }

    fn turn(&self) -> &AtomicU32 {
        // SAFETY: four aligned bytes of shared memory, which all use as this alone.
        unsafe { AtomicU32::from_ptr(self.0.at(0).cast()) }
    }

    /// Ends this side's part up to `turn`; returns after one `futex` call.
    pub(super) fn pass(&self, turn: u32) {
        let word = self.turn();
        word.store(turn, Ordering::Release);
        // SAFETY: the word lives on; nobody waiting is no error.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
    }

    /// Waits for the other side's `turn`; how many `futex` calls that took.
    pub(super) fn wait(&self, turn: u32, other: &Other) -> Result<u64> {
        let word = self.turn();
        let limit = libc::timespec {
            tv_sec: 0,
            tv_nsec: LOOK_AFTER_NS,
        };
        let mut calls = 0;
        loop {
            let now = word.load(Ordering::Acquire);
            if now >= turn {
                return Ok(calls);
            }
            other.is_there()?;
            calls += 1;
            // SAFETY: word and limit outlive the call, which returns at once if the word differs.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    word.as_ptr(),
                    libc::FUTEX_WAIT,
                    now,
                    &raw const limit,
                )
            };
        }
    }
}

/// The process on the other side of an experiment.
pub(super) enum Other {
    /// The one that forked this one, which ends with it.
    Parent,
    /// A fork of this one.
    Child(libc::pid_t),
}

impl Other {
    fn is_there(&self) -> Result<()> {
        let Self::Child(pid) = self else {
            return Ok(());
        };
        // SAFETY: a struct that is valid as zeroes and that the call fills; nothing is reaped.
        let state = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            sys::done(libc::waitid(
                libc::P_PID,
                pid.cast_unsigned(),
                &raw mut info,
                options,
            ))?;
            info.si_signo
        };
        ensure!(state == 0, "the second process has ended too early");
        Ok(())
    }
}

/// Forks; `work` is done in the child, which tells what it notes and ends.
pub(super) fn fork(
    bench: &Bench,
    work: impl FnOnce(&mut Bench, &Other) -> Result<()>,
) -> Result<Forked> {
    // SAFETY: the experiment's process has one thread.
    let (parent, pid) = unsafe { (libc::getpid(), libc::fork()) };
    match pid {
        -1 => Err(io::Error::last_os_error()).context("fork"),
        0 => {
            let mut own = Bench::new(bench.step.clone());
            let result = sys::die_with(parent).and_then(|()| work(&mut own, &Other::Parent));
            if let Err(error) = result {
                own.report.failed = Some(format!("the second process: {error:#}"));
            }
            let told = tell(&own.report, bench.step.report);
            // SAFETY: ends the process, and runs nothing of the parent's on the way out.
            unsafe { libc::_exit(i32::from(told.is_err())) }
        }
        pid => Ok(Forked(Other::Child(pid))),
    }
}

/// A forked process, to be waited for.
pub(super) struct Forked(pub(super) Other);

impl Forked {
    /// Waits for its end.
    pub(super) fn join(self) -> Result<()> {
        let Other::Child(pid) = self.0 else {
            bail!("not a child");
        };
        let mut status = 0;
        // SAFETY: our own child, which nobody else waits for.
        let ended = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        ensure!(ended == pid, io::Error::last_os_error());
        match status {
            0 => Ok(()),
            _ => Err(anyhow!("the second process ended with status {status:#x}")),
        }
    }
}

/// Writes all of a buffer by `write(2)`, `chunk_bytes` at a time.
pub(super) fn write_all(file: RawFd, buffer: &[u8], chunk_bytes: usize) -> Result<()> {
    for chunk in buffer.chunks(chunk_bytes) {
        let mut left = chunk;
        while !left.is_empty() {
            // SAFETY: the buffer is ours, and its length is given.
            let wrote = sys::bytes(unsafe { libc::write(file, left.as_ptr().cast(), left.len()) })
                .context("write")?;
            ensure!(wrote > 0, "write wrote nothing");
            left = &left[wrote..];
        }
    }
    Ok(())
}

/// Reads by `read(2)`, `chunk_bytes` at a time, until the buffer is full or the end is reached; how
/// much.
pub(super) fn read_to_end(file: RawFd, buffer: &mut [u8], chunk_bytes: usize) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let length = chunk_bytes.min(buffer.len() - done);
        let into = buffer[done..].as_mut_ptr();
        // SAFETY: inside the buffer, which is ours.
        let read = sys::bytes(unsafe { libc::read(file, into.cast(), length) }).context("read")?;
        if read == 0 {
            break;
        }
        done += read;
    }
    Ok(done)
}
