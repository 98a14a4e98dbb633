//! Reads, mappings and a write of known size, made at the start of every run: a probe that does not see
//! them is an error, not a zero.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd as _,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::Ebpf;
use mmtrace_common::{CALIBRATION_PROCESS, Measures, Path, REGISTER_OPTION, Role, Truth};
use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    statfs::{BTRFS_SUPER_MAGIC, fstatfs},
};

use perf_event::Counter;

use super::maps;
use crate::{
    kernel::breakpoint::Scope,
    probe::{Attached, Purpose},
    recording::Measure,
};

/// A prime, so that no other read adds up to it.
const READ_BYTES: usize = 7919;
const READS: u64 = 3;
/// Pages touched, each in another fault-around window (64 KiB).
const PAGES: usize = 5;
const WINDOW_BYTES: usize = 64 << 10;
/// What is read by `O_DIRECT`: whole blocks, of any size in use.
const DIRECT_BYTES: usize = 12 << 10;
/// How often all of it is tried. The kernel may take mapped pages back before they are counted, or
/// leave a program out now and then (see [`crate::probe::missed`]); not every time.
const ATTEMPTS: usize = 3;

/// A figure of something known.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The path on which it was done.
    pub(super) path: Path,
    /// The measure.
    pub(super) measure: Measure,
    /// What was counted; `None` when this run does not measure it.
    pub(super) seen: Option<u64>,
    /// What was done, or why that is not known.
    pub(super) done: Result<u64, String>,
}

impl Known {
    fn is_wrong(&self) -> bool {
        match (self.seen, &self.done) {
            (Some(seen), Ok(done)) => seen != *done,
            _ => false,
        }
    }
}

/// Does what is known, and looks at how it was counted.
///
/// # Errors
///
/// If what was counted is not what was done.
pub(super) fn calibrate(attached: &Attached, nonce: u32) -> Result<Vec<Known>> {
    let mut known = attempt(attached, nonce)?;
    for _ in 1..ATTEMPTS {
        if !known.iter().any(Known::is_wrong) {
            break;
        }
        known = attempt(attached, nonce)?;
    }
    judged(known)
}

/// Calibrates probes that nothing else is asked of. Copies are given up if it is them that are not
/// seen, as a run does that is not told otherwise.
///
/// # Errors
///
/// If what was counted is not what was done.
pub fn see_what_is_known(attached: &mut Attached, nonce: u32) -> Result<()> {
    match calibrate(attached, nonce) {
        Err(error) if attached.copies.is_some() => {
            attached.give_copies_up(&error);
            calibrate(attached, nonce).map(drop)
        }
        result => result.map(drop),
    }
}

/// What is known, if all of it was counted.
fn judged(known: Vec<Known>) -> Result<Vec<Known>> {
    if let Some(wrong) = known.iter().find(|known| known.is_wrong()) {
        let (measure, path) = (wrong.measure.label(), wrong.path.name());
        let (seen, done) = (wrong.seen.unwrap_or(0), wrong.done.as_ref().unwrap_or(&0));
        return Err(anyhow!(
            "the probes do not see what is done: of {done} {measure} of a known {path} they \
             counted {seen}"
        ));
    }
    Ok(known)
}

fn attempt(attached: &Attached, nonce: u32) -> Result<Vec<Known>> {
    let mut known = read_and_map(attached, nonce)?;
    known.push(write_privately(attached, nonce)?);
    known.push(read_directly(&attached.ebpf, nonce)?);
    Ok(known)
}

/// Whether a purpose that not every backend serves has hooks in this run.
fn serves(attached: &Attached, purpose: Purpose) -> bool {
    let mut unavailable = attached.unavailable.iter();
    !unavailable.any(|missing| missing.purpose == purpose)
}

fn read_and_map(attached: &Attached, nonce: u32) -> Result<Vec<Known>> {
    let (mapped, counts) = counted(&attached.ebpf, || reads_and_faults(attached, nonce))?;
    let charged = counts.truth();
    ensure!(
        charged.minor_faults + charged.major_faults > 0,
        "the kernel charges no faults to a thread that takes some"
    );
    let measures_mapping = serves(attached, Purpose::Mapped);
    let known = |path, measure, seen, done| Known {
        path,
        measure,
        seen: Some(seen),
        done: Ok(done),
    };
    let returned = counts.on(Path::Read, |row| row.bytes_returned);
    let mut all = vec![
        known(
            Path::Read,
            Measure::Operations,
            counts.on(Path::Read, |row| row.operations),
            READS,
        ),
        known(
            Path::Read,
            Measure::BytesReturned,
            returned,
            READS * READ_BYTES as u64,
        ),
        // Of all paths: the thread may also take faults on mmtrace's program and its data.
        known(
            Path::Mmap,
            Measure::MinorFaults,
            counts.on_all(|row| row.minor_faults),
            charged.minor_faults,
        ),
        known(
            Path::Mmap,
            Measure::MajorFaults,
            counts.on_all(|row| row.major_faults),
            charged.major_faults,
        ),
        Known {
            path: Path::Mmap,
            measure: Measure::MappedBytes,
            seen: measures_mapping.then(|| counts.on(Path::Mmap, |row| row.mapped_bytes)),
            done: mapped.map_err(no_pagemap),
        },
    ];
    if attached.copies.is_some() {
        let to_user = |path| counts.on(path, |row| row.copied_to_user_bytes);
        all.extend([
            known(
                Path::Read,
                Measure::CopiedToUserBytes,
                to_user(Path::Read),
                READS * READ_BYTES as u64,
            ),
            known(
                Path::Mmap,
                Measure::CopiedToUserBytes,
                to_user(Path::Mmap),
                0,
            ),
            known(
                Path::Write,
                Measure::CopiedFromUserBytes,
                counts.on(Path::Write, |row| row.copied_from_user_bytes),
                READ_BYTES as u64,
            ),
        ]);
    }
    Ok(all)
}

fn write_privately(attached: &Attached, nonce: u32) -> Result<Known> {
    let (copied, counts) = counted(&attached.ebpf, || private_writes(nonce))?;
    Ok(Known {
        path: Path::Mmap,
        measure: Measure::CopiedInKernelBytes,
        seen: serves(attached, Purpose::PageCopies)
            .then(|| counts.on(Path::Mmap, |row| row.copied_in_kernel_bytes)),
        done: copied.map_err(no_pagemap),
    })
}

fn no_pagemap(error: io::Error) -> String {
    format!("/proc/self/pagemap cannot be read: {error}")
}

fn read_directly(ebpf: &Ebpf, nonce: u32) -> Result<Known> {
    let (site, counts) = counted(ebpf, || direct_read(nonce))?;
    let seen = counts.on(Path::Direct, |row| row.disk_read_bytes);
    let done = match site {
        Err(error) => Err(format!("no O_DIRECT read of mmtrace's own file: {error}")),
        Ok(has_disk) => match counts.truth().disk_read_bytes {
            0 => Err("an O_DIRECT read of mmtrace's own file goes to no disk".to_owned()),
            _ if seen == 0 && !has_disk => Err(
                "the file system of mmtrace's own file has no disk, and may charge what it \
                 fetches from elsewhere"
                    .to_owned(),
            ),
            charged if charged != DIRECT_BYTES as u64 => Err(format!(
                "the kernel charges {charged} bytes for an O_DIRECT read of {DIRECT_BYTES}"
            )),
            charged => Ok(charged),
        },
    };
    Ok(Known {
        path: Path::Direct,
        measure: Measure::DiskReadBytes,
        seen: done.is_ok().then_some(seen),
        done,
    })
}

/// What was counted for the calibration, before and after.
struct Counts {
    before: (BTreeMap<u32, Measures>, Truth),
    after: (BTreeMap<u32, Measures>, Truth),
}

impl Counts {
    /// What was counted on a path.
    fn on(&self, path: Path, part: fn(&Measures) -> u64) -> u64 {
        let of = |rows: &BTreeMap<u32, Measures>| rows.get(&(path as u32)).map_or(0, part);
        of(&self.after.0) - of(&self.before.0)
    }

    /// What was counted on all paths.
    fn on_all(&self, part: fn(&Measures) -> u64) -> u64 {
        let of = |rows: &BTreeMap<u32, Measures>| rows.values().map(part).sum::<u64>();
        of(&self.after.0) - of(&self.before.0)
    }

    /// What the kernel charged to the thread.
    fn truth(&self) -> Truth {
        let (before, after) = (self.before.1, self.after.1);
        Truth {
            minor_faults: after.minor_faults - before.minor_faults,
            major_faults: after.major_faults - before.major_faults,
            disk_read_bytes: after.disk_read_bytes - before.disk_read_bytes,
            threads: after.threads - before.threads,
        }
    }
}

/// Works in a thread of its own, so that nothing else that mmtrace does is counted.
fn counted<T: Send>(ebpf: &Ebpf, work: impl FnOnce() -> Result<T> + Send) -> Result<(T, Counts)> {
    let now = || -> Result<_> {
        let truth = maps::truth(ebpf, CALIBRATION_PROCESS)?;
        Ok((maps::calibration(ebpf)?, truth.unwrap_or_default()))
    };
    let before = now()?;
    let result = thread::scope(|scope| scope.spawn(work).join())
        .map_err(|_| anyhow!("the calibration's thread panicked"))??;
    let after = now()?;
    ensure!(
        after.1.threads > before.1.threads,
        "the probes do not see a thread that registers itself"
    );
    Ok((result, Counts { before, after }))
}

/// Reads, touches, and writes to memory; returns how many bytes are mapped then.
fn reads_and_faults(attached: &Attached, nonce: u32) -> Result<io::Result<u64>> {
    let _copying = match &attached.copies {
        Some(plan) => plan.watch(&attached.ebpf, Scope::ThisThread)?,
        None => Vec::new(),
    };
    let memory = File::from(memfd_create(c"mmtrace", MFdFlags::MFD_CLOEXEC)?);
    let file = File::open("/proc/self/exe")?;
    let mut buffer = vec![0; READ_BYTES];
    let mapping = Mapping::of(
        &file,
        PAGES * WINDOW_BYTES,
        libc::PROT_READ,
        libc::MAP_SHARED,
    )?;
    let mut result = Ok(());
    register(nonce, Role::Calibration);
    for index in 0..READS {
        result = result.and(file.read_exact_at(&mut buffer, index));
    }
    for page in 0..PAGES {
        mapping.touch(page * WINDOW_BYTES);
    }
    result = result.and(memory.write_all_at(&buffer, 0));
    register(nonce, Role::Done);
    result.context("the calibration's read or write failed")?;
    Ok(mapping.bytes_of(|entry| entry & THERE != 0))
}

/// Writes to a private mapping, every second time where it has read before; returns how many bytes
/// are no longer the file's then. Nothing but the mapping and the thread's own stack is written.
fn private_writes(nonce: u32) -> Result<io::Result<u64>> {
    let file = File::open("/proc/self/exe")?;
    let mapping = Mapping::of(
        &file,
        PAGES * WINDOW_BYTES,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE,
    )?;
    register(nonce, Role::Calibration);
    for page in 0..PAGES {
        if page % 2 == 1 {
            mapping.touch(page * WINDOW_BYTES);
        }
        mapping.write(page * WINDOW_BYTES);
    }
    register(nonce, Role::Done);
    Ok(mapping.bytes_of(|entry| entry & THERE != 0 && entry & OF_FILE == 0))
}

/// Of a page's entry in /proc/PID/pagemap: it is there; it is swapped, or on its way to another place
/// in memory.
const THERE: u64 = 0b11 << 62;
/// Of the same: it is a file's, or shared.
const OF_FILE: u64 = 1 << 61;

/// What it costs a thread that a copy is watched: the least of several measurements.
///
/// # Errors
///
/// If the breakpoints are refused, or the reads fail.
pub(super) fn cost_of_copy(attached: &Attached, nonce: u32) -> Result<u64> {
    const ROUNDS: usize = 5;
    const READS: usize = 64;
    let measure = || {
        let plan = attached.copies.as_ref().context("no copies are watched")?;
        let mut copying = plan.watch(&attached.ebpf, Scope::ThisThread)?;
        let file = File::open("/proc/self/exe")?;
        let reads = || -> io::Result<Duration> {
            let started = Instant::now();
            for _ in 0..READS {
                file.read_exact_at(&mut [0], 0)?;
            }
            Ok(started.elapsed())
        };
        let mut least = [Duration::MAX; 2];
        register(nonce, Role::Calibration);
        let mut rounds = || -> io::Result<()> {
            for _ in 0..ROUNDS {
                least[0] = least[0].min(reads()?);
                copying.iter_mut().try_for_each(Counter::disable)?;
                least[1] = least[1].min(reads()?);
                copying.iter_mut().try_for_each(Counter::enable)?;
            }
            Ok(())
        };
        let result = rounds();
        register(nonce, Role::Done);
        result?;
        let cost = least[0].saturating_sub(least[1]).as_nanos() / READS as u128;
        Ok(u64::try_from(cost)?)
    };
    Ok(counted(&attached.ebpf, measure)?.0)
}

/// Memory that `O_DIRECT` takes.
#[repr(align(4096))]
struct Blocks([u8; DIRECT_BYTES]);

/// Reads past the page cache, if that can be had; returns whether the file system has a disk.
fn direct_read(nonce: u32) -> Result<io::Result<bool>> {
    let mut blocks = Box::new(Blocks([0; DIRECT_BYTES]));
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open("/proc/self/exe");
    // The first time, where the file lies may have to be read as well.
    let rehearsed = opened.and_then(|file| {
        file.read_exact_at(&mut blocks.0, 0)?;
        Ok(file)
    });
    register(nonce, Role::Calibration);
    let read = rehearsed.and_then(|file| {
        file.read_exact_at(&mut blocks.0, 0)?;
        Ok(file)
    });
    register(nonce, Role::Done);
    Ok(read.and_then(|file| {
        let device = file.metadata()?.dev();
        // btrfs has a disk, and a device number that is none's.
        Ok(libc::major(device) != 0 || fstatfs(&file)?.filesystem_type() == BTRFS_SUPER_MAGIC)
    }))
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

/// A mapping of a file.
struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    fn of(
        file: &File,
        length: usize,
        protection: libc::c_int,
        flags: libc::c_int,
    ) -> io::Result<Self> {
        if file.metadata()?.len() < length as u64 {
            return Err(io::Error::other("mmtrace's own binary is too short"));
        }
        // SAFETY: a new mapping at an address that the kernel chooses; the descriptor is open.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                flags,
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

    /// Stores a byte. The mapping must be private and for writing.
    fn write(&self, offset: usize) {
        assert!(offset < self.length);
        // SAFETY: as in `touch`; nothing refers to what is in the mapping.
        unsafe { self.start.cast::<u8>().add(offset).write_volatile(1) };
    }

    /// How many of its bytes are in pages whose entry is so: the kernel tells 8 bytes of each.
    fn bytes_of(&self, wanted: fn(u64) -> bool) -> io::Result<u64> {
        let page_bytes = rustix::param::page_size();
        let mut entries = vec![0; self.length / page_bytes * 8];
        let first = self.start.addr() / page_bytes * 8;
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, first as u64)?;
        let (entries, _) = entries.as_chunks::<8>();
        let entries = entries.iter().map(|entry| u64::from_ne_bytes(*entry));
        Ok((entries.filter(|entry| wanted(*entry)).count() * page_bytes) as u64)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more.
        unsafe { libc::munmap(self.start, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(seen: Option<u64>, done: Result<u64, String>) -> Known {
        Known {
            path: Path::Mmap,
            measure: Measure::MappedBytes,
            seen,
            done,
        }
    }

    #[test]
    fn what_was_not_seen_is_an_error_and_what_is_not_known_none() {
        let no_disk = || Err("no disk".to_owned());
        for right in [
            known(Some(4_096), Ok(4_096)),
            known(None, Ok(4_096)),
            known(Some(0), no_disk()),
            known(None, no_disk()),
        ] {
            assert!(judged(vec![right]).is_ok());
        }
        let error = judged(vec![
            known(Some(4_096), Ok(4_096)),
            known(Some(0), Ok(8_192)),
        ]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "the probes do not see what is done: of 8192 mapped bytes of a known mmap they counted 0"
        );
    }
}
