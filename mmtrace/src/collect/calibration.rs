//! A read and a mapping of known size, made at the start of every run: a probe that does not see
//! them is an error, not a zero.

use std::{fs::File, io, os::fd::AsRawFd as _, os::unix::fs::FileExt as _, thread};

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use mmtrace_common::{CALIBRATION_PROCESS, Measures, Path, REGISTER_OPTION, Role, Truth};

use super::maps;

/// A prime, so that no other read adds up to it.
const READ_BYTES: usize = 7919;
const READS: u64 = 3;
/// Pages touched, each in another fault-around window (64 KiB).
const PAGES: usize = 5;
const WINDOW_BYTES: usize = 64 << 10;

/// What was known and what was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calibration {
    /// Reads made.
    pub(super) reads: u64,
    /// Bytes that they returned.
    pub(super) read_bytes: u64,
    /// What was counted on the read path.
    pub(super) seen: Measures,
    /// Minor and major faults that the kernel charged to the thread.
    pub(super) charged_faults: [u64; 2],
    /// Those that were counted, on all paths.
    pub(super) seen_faults: [u64; 2],
}

/// Makes the known read and faults, and looks at how they were counted.
///
/// # Errors
///
/// If what was counted is not what was done.
pub(super) fn calibrate(ebpf: &Ebpf, nonce: u32) -> Result<Calibration> {
    // A thread of its own, so that nothing else that mmtrace does is counted.
    thread::spawn(move || work(nonce))
        .join()
        .map_err(|_| anyhow::anyhow!("the calibration's thread panicked"))?
        .context("cannot make the calibration's read")?;
    let rows = maps::calibration(ebpf)?;
    let truth = maps::truth(ebpf, CALIBRATION_PROCESS)?;
    let calibration = judge(&rows, truth);
    let Calibration {
        seen,
        charged_faults,
        seen_faults,
        ..
    } = calibration;
    ensure!(
        seen.operations == READS && seen.bytes_returned == READS * READ_BYTES as u64,
        "the probes do not see what is done: of {READS} reads of {READ_BYTES} bytes they counted \
         {} with {} bytes",
        seen.operations,
        seen.bytes_returned,
    );
    if seen_faults != charged_faults || truth.minor_faults + truth.major_faults == 0 {
        bail!(
            "the probes do not see what is done: of {} minor and {} major faults they counted {} \
             and {}",
            charged_faults[0],
            charged_faults[1],
            seen_faults[0],
            seen_faults[1],
        );
    }
    Ok(calibration)
}

fn judge(rows: &std::collections::BTreeMap<u32, Measures>, truth: Truth) -> Calibration {
    let sum = |part: fn(&Measures) -> u64| rows.values().map(part).sum::<u64>();
    Calibration {
        reads: READS,
        read_bytes: READS * READ_BYTES as u64,
        seen: rows.get(&(Path::Read as u32)).copied().unwrap_or_default(),
        charged_faults: [truth.minor_faults, truth.major_faults],
        seen_faults: [sum(|row| row.minor_faults), sum(|row| row.major_faults)],
    }
}

fn work(nonce: u32) -> io::Result<()> {
    let file = File::open("/proc/self/exe")?;
    let mut buffer = vec![0; READ_BYTES];
    let mapping = Mapping::of(&file, PAGES * WINDOW_BYTES)?;
    register(nonce, Role::Calibration);
    let mut result = Ok(());
    for index in 0..READS {
        result = result.and(file.read_exact_at(&mut buffer, index));
    }
    for page in 0..PAGES {
        mapping.touch(page * WINDOW_BYTES);
    }
    register(nonce, Role::Done);
    result
}

fn register(nonce: u32, role: Role) {
    // SAFETY: no kernel knows the option: the call fails and has no effect.
    unsafe {
        libc::prctl(
            REGISTER_OPTION as libc::c_int,
            nonce,
            role as libc::c_ulong,
            0,
            0,
        )
    };
}

/// A mapping of a file, for reading.
struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    fn of(file: &File, length: usize) -> io::Result<Self> {
        if file.metadata()?.len() < length as u64 {
            return Err(io::Error::other("mmtrace's own binary is too short"));
        }
        // SAFETY: a new mapping at an address that the kernel chooses; the descriptor is open.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, length })
    }

    fn touch(&self, offset: usize) {
        assert!(offset < self.length);
        // SAFETY: inside the mapping, whose file is as long as it: a running binary cannot be
        // truncated. Volatile, so that the read is made.
        unsafe { self.start.cast::<u8>().add(offset).read_volatile() };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more.
        unsafe { libc::munmap(self.start, self.length) };
    }
}
