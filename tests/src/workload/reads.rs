//! Reads, by each call that reads.

use std::{
    io,
    os::fd::{AsRawFd as _, RawFd},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, bail};

use super::{Arguments, sys};
use crate::truth::Truth;

/// Reads a file from its start with one kind of call, up to the call that returns 0, or
/// `CALLS` times.
pub(super) fn read(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let call = arguments.text()?;
    let size = arguments.number()?;
    let calls = arguments.optional_number()?.unwrap_or(usize::MAX);
    read_file(&path, &call, size, calls)
}

/// As [`read`]; the truth also tells how long that took.
pub(super) fn timed_read(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let (begun, processor_ns) = (Instant::now(), sys::processor_ns());
    let truth = read(arguments)?;
    Ok(Truth {
        processor_ns: sys::processor_ns() - processor_ns,
        elapsed_ns: u64::try_from(begun.elapsed().as_nanos())?,
        ..truth
    })
}

/// As [`read`].
pub(super) fn read_file(
    path: &Path,
    call: &str,
    size: usize,
    calls: usize,
) -> anyhow::Result<Truth> {
    let file = sys::open(path, libc::O_RDONLY)?;
    let fd = file.as_raw_fd();
    let one: fn(RawFd, &mut [u8], u64) -> io::Result<u64> = match call {
        "read" => |fd, buffer, _| sys::read(fd, buffer),
        "readv" => |fd, buffer, _| sys::readv(fd, buffer),
        "pread" => sys::pread,
        "preadv" => sys::preadv,
        "preadv2" => sys::preadv2,
        _ => bail!("{call:?} is not read, pread, readv, preadv or preadv2"),
    };
    let mut buffer = vec![0; size];
    let mut truth = Truth::default();
    for _ in 0..calls {
        let returned = one(fd, &mut buffer, truth.returned_bytes)?;
        truth.add(size, returned);
        if returned == 0 {
            break;
        }
    }
    Ok(truth)
}

/// Reads that return nothing: of 0 bytes, to an address that is not mapped (`EFAULT`), and on a
/// descriptor that is not open (`EBADF`); between them one that returns data.
///
/// The calls with `EBADF` reach no file and are not in the truth. Neither are those of a number that no
/// call has, with a read's arguments, after a read and after a call that is none of interest.
pub(super) fn odd_calls(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    const EMPTY_READS: u64 = 3;
    const FAULTING_READS: u64 = 5;
    const FAULTING_SIZE_BYTES: usize = 4_099;
    const UNOPENED_READS: u64 = 7;
    const NO_CALLS: u64 = 5;
    const UNOPENED_FD: RawFd = 1_000_003;
    const NO_CALL: libc::c_long = -1;

    let path = arguments.path()?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    let mut truth = Truth::default();
    for _ in 0..EMPTY_READS {
        truth.add(0, sys::read(file.as_raw_fd(), &mut [])?);
    }
    let hole = sys::Mapping::new(
        None,
        2 * FAULTING_SIZE_BYTES,
        libc::PROT_NONE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    )?;
    for _ in 0..FAULTING_READS {
        let result = sys::read_to(file.as_raw_fd(), hole.address(), FAULTING_SIZE_BYTES);
        expect_error(result, libc::EFAULT)?;
        truth.add(FAULTING_SIZE_BYTES, 0);
    }
    for _ in 0..UNOPENED_READS {
        expect_error(sys::read(UNOPENED_FD, &mut [0; 11]), libc::EBADF)?;
    }
    let mut buffer = [0; 1_511];
    truth.add(buffer.len(), sys::read(file.as_raw_fd(), &mut buffer)?);
    for _ in 0..NO_CALLS {
        // SAFETY: there is no such call, hence it does nothing with its arguments.
        let result = unsafe { libc::syscall(NO_CALL, file.as_raw_fd(), buffer.as_mut_ptr(), 13) };
        let result = u64::try_from(result).map_err(|_| io::Error::last_os_error());
        expect_error(result, libc::ENOSYS)?;
        // SAFETY: it has no arguments.
        unsafe { libc::syscall(libc::SYS_getpid) };
    }
    Ok(truth)
}

fn expect_error(result: io::Result<u64>, error: i32) -> anyhow::Result<()> {
    match result {
        Err(actual) if actual.raw_os_error() == Some(error) => Ok(()),
        other => bail!(
            "instead of {}: {other:?}",
            io::Error::from_raw_os_error(error)
        ),
    }
}

/// Reads one file into a shared mapping of another, so that the kernel's copy faults. The truth's
/// faults are those taken during the reads.
pub(super) fn into_mapping(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let from = arguments.path()?;
    let into = arguments.path()?;
    let size = arguments.number()?;
    let total = usize::try_from(from.metadata()?.len())?;
    let from = sys::open(&from, libc::O_RDONLY)?;
    let into = sys::open(&into, libc::O_RDWR)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // What the program itself is made of shall not fault while it is watched.
    sys::lock_all().context("mlockall")?;
    let mapping = sys::Mapping::new(Some(&into), total, protection, libc::MAP_SHARED)?;
    let mut truth = Truth::default();
    let before = sys::faults();
    let mut offset = 0;
    while offset < total {
        let asked = size.min(total - offset);
        // SAFETY: `offset` is below the mapping's size.
        let address = unsafe { mapping.address().add(offset) };
        let returned = sys::read_to(from.as_raw_fd(), address, asked)?;
        truth.add(asked, returned);
        offset += usize::try_from(returned)?;
    }
    truth.faults = sys::faults().since(before);
    truth.touched_pages = total.div_ceil(page_size()) as u64;
    Ok(truth)
}

/// Reads a file with `O_DIRECT` into aligned memory, of which each page is touched before (`touched`)
/// or none (`untouched`).
pub(super) fn direct(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let size = arguments.number()?;
    let touched = match arguments.text()?.as_str() {
        "touched" => true,
        "untouched" => false,
        other => bail!("{other:?} is not touched or untouched"),
    };
    let file = sys::open(&path, libc::O_RDONLY | libc::O_DIRECT)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let buffer = sys::Mapping::new(
        None,
        size,
        protection,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    )?;
    if touched {
        buffer.fill();
    }
    let length = path.metadata()?.len();
    let mut truth = Truth::default();
    while truth.returned_bytes < length {
        truth.add(
            size,
            sys::read_to(file.as_raw_fd(), buffer.address(), size)?,
        );
    }
    Ok(truth)
}

/// Bytes of a page here.
pub(super) fn page_size() -> usize {
    // SAFETY: it only returns a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("a page has a size")
}
