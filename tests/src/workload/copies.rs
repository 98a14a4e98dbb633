//! Copies that the kernel cannot make, or not in whole, or not at the first try.

use std::{io, os::fd::AsRawFd as _};

use anyhow::{bail, ensure};

use super::{Arguments, reads::page_size, sys};
use crate::truth::Truth;

/// Bytes asked for in each call, more than fit.
const ASKED_BYTES: usize = 5_003;
/// Bytes that fit, from none to all but one.
const FITTING_BYTES: [usize; 7] = [0, 1, 7, 64, 1_009, 4_096, 5_002];

/// Memory of which the second half may not be accessed.
struct Half {
    mapping: sys::Mapping,
    size: usize,
}

impl Half {
    fn new() -> io::Result<Self> {
        let size = 4 * page_size();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let mapping = sys::Mapping::new(None, 2 * size, libc::PROT_READ | libc::PROT_WRITE, flags)?;
        mapping.fill();
        mapping.protect_part(size, size, libc::PROT_NONE)?;
        Ok(Self { mapping, size })
    }

    /// The address from which on so many bytes may be accessed.
    fn address(&self, bytes: usize) -> *mut u8 {
        // SAFETY: within the mapping.
        unsafe { self.mapping.address().add(self.size - bytes) }
    }
}

/// What a call moved: nothing, if it could not.
fn moved(result: io::Result<u64>) -> io::Result<u64> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(0),
        other => other,
    }
}

/// Reads into memory that ends too early.
pub(super) fn short_reads(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let file = sys::open(&arguments.path()?, libc::O_RDONLY)?;
    let half = Half::new()?;
    let mut truth = Truth::default();
    for fitting in FITTING_BYTES {
        let address = half.address(fitting);
        let returned = moved(sys::read_to(file.as_raw_fd(), address, ASKED_BYTES))?;
        truth.add(ASKED_BYTES, returned);
    }
    ensure!(truth.returned_bytes > 0, "no read moves anything");
    Ok(truth)
}

/// Writes from memory that ends too early (of which btrfs takes nothing), and from a mapped file that is not in memory. The truth's
/// faults are those taken for the latter.
pub(super) fn short_writes(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let cold = arguments.path()?;
    let size = usize::try_from(cold.metadata()?.len())?;
    let cold = sys::open(&cold, libc::O_RDONLY)?;
    let to = sys::open(&arguments.path()?, libc::O_WRONLY | libc::O_CREAT)?;
    let half = Half::new()?;
    let mut truth = Truth::default();
    for fitting in FITTING_BYTES {
        let address = half.address(fitting);
        let returned = moved(sys::write_from(to.as_raw_fd(), address, ASKED_BYTES))?;
        truth.add(ASKED_BYTES, returned);
    }
    let mapping = sys::Mapping::new(Some(&cold), size, libc::PROT_READ, libc::MAP_SHARED)?;
    let before = sys::faults();
    for offset in (0..size - ASKED_BYTES).step_by(64 * ASKED_BYTES) {
        // SAFETY: within the mapping.
        let address = unsafe { mapping.address().add(offset) };
        let returned = sys::write_from(to.as_raw_fd(), address, ASKED_BYTES)?;
        truth.add(ASKED_BYTES, returned);
    }
    truth.faults = sys::faults().since(before);
    Ok(truth)
}

/// Asks for the state of a file, to be put where there is no memory.
pub(super) fn bad_stats(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let calls = arguments.number()?;
    let half = Half::new()?;
    let mut truth = Truth::default();
    for _ in 0..calls {
        match sys::stat_to(0, half.address(0)) {
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {}
            other => bail!("instead of EFAULT: {other:?}"),
        }
        truth.add(size_of::<libc::stat>(), 0);
    }
    Ok(truth)
}
