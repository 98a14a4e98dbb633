//! A debugger, which has the processor watch a variable of the program that it debugs.

use std::{
    io,
    mem::offset_of,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{bail, ensure};

use super::{Arguments, sys};
use crate::truth::{End, Truth};

/// The variable that is watched.
static WATCHED: AtomicU64 = AtomicU64::new(0);

/// Bits of the debug control register: the first address is watched, for stores to its eight bytes.
const WATCH_STORES: usize = 1 | 0b01 << 16 | 0b10 << 18;

/// Reads `STORES` blocks of the file in a child, which stores to the watched variable after each. The
/// truth's calls are how many stores this process was told of: all, or none if the kernel has no
/// register left for it.
pub(super) fn debugged(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let file = sys::open(&arguments.path()?, libc::O_RDONLY)?;
    let size = arguments.number()?;
    let stores = arguments.number()? as u64;
    // SAFETY: this program has one thread so far.
    let Some(child) = (unsafe { sys::fork()? }) else {
        sys::exit_now(i32::from(be_debugged(&file, size, stores).is_err()));
    };
    ensure!(stopped_by(sys::wait(child)?) == Some(libc::SIGSTOP));
    let watched = watch(child)?;
    let mut truth = Truth::default();
    loop {
        request(libc::PTRACE_CONT, child, 0, 0)?;
        let status = sys::wait(child)?;
        match stopped_by(status) {
            Some(libc::SIGTRAP) => truth.add(0, 0),
            Some(other) => bail!("the child was stopped by signal {other}"),
            None => {
                ensure!(End::from_wait_status(status) == End::Exit(0));
                break;
            }
        }
    }
    ensure!(
        truth.calls == if watched { stores } else { 0 },
        "told of {} of {stores} stores",
        truth.calls
    );
    Ok(truth)
}

/// What the child does.
fn be_debugged(file: &OwnedFd, size: usize, stores: u64) -> anyhow::Result<()> {
    request(libc::PTRACE_TRACEME, 0, 0, 0)?;
    sys::signal_self(libc::SIGSTOP)?;
    let mut buffer = vec![0; size];
    for store in 0..stores {
        let returned = sys::pread(file.as_raw_fd(), &mut buffer, store * size as u64)?;
        ensure!(returned == size as u64);
        WATCHED.store(store, Ordering::Relaxed);
    }
    Ok(())
}

/// Has the processor watch the child's variable; says whether the kernel had a register for it.
fn watch(child: i32) -> io::Result<bool> {
    let register = offset_of!(libc::user, u_debugreg);
    let control = register + 7 * size_of::<u64>();
    let set = |register, value| request(libc::PTRACE_POKEUSER, child, register, value);
    let outcome =
        set(register, ptr::from_ref(&WATCHED) as usize).and_then(|()| set(control, WATCH_STORES));
    match outcome {
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => Ok(false),
        other => other.map(|()| true),
    }
}

/// `ptrace(2)` with two numbers.
fn request(what: libc::c_uint, child: i32, first: usize, second: usize) -> io::Result<()> {
    // SAFETY: the requests made here take numbers, of the child's memory at most, and none of ours.
    match unsafe { libc::ptrace(what, child, first, second) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The signal that stopped a child with this wait status.
fn stopped_by(status: i32) -> Option<i32> {
    libc::WIFSTOPPED(status).then(|| libc::WSTOPSIG(status))
}
