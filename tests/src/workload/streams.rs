//! Writes, data moved between descriptors, and talk between processes.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
};

use anyhow::{bail, ensure};

use super::{Arguments, sys};
use crate::truth::Truth;

/// Writes a file from its start, with one kind of call.
pub(super) fn write(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let call = arguments.text()?;
    let size = arguments.number()?;
    let calls = arguments.number()?;
    let file = sys::open(&path, libc::O_WRONLY | libc::O_CREAT)?;
    let fd = file.as_raw_fd();
    let one: fn(RawFd, &mut [u8], u64) -> io::Result<u64> = match call.as_str() {
        "write" => |fd, buffer, _| sys::write(fd, buffer),
        "writev" => |fd, buffer, _| sys::writev(fd, buffer),
        "pwrite" => |fd, buffer, offset| sys::pwrite(fd, buffer, offset),
        _ => bail!("{call:?} is not write, pwrite or writev"),
    };
    let mut buffer = vec![0x5a; size];
    let mut truth = Truth::default();
    for _ in 0..calls {
        let returned = one(fd, &mut buffer, truth.returned_bytes)?;
        truth.add(size, returned);
    }
    Ok(truth)
}

/// Moves all of a file into another without a buffer: by `sendfile`, by `copy_file_range`, or by
/// `splice` through a pipe. The truth is about the calls that take from the first file.
pub(super) fn move_file(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let from = sys::open(&arguments.path()?, libc::O_RDONLY)?;
    let to = sys::open(&arguments.path()?, libc::O_WRONLY | libc::O_CREAT)?;
    let how = arguments.text()?;
    let size = arguments.number()?;
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    let (pipe_out, pipe_in) = sys::pipe()?;
    let mut truth = Truth::default();
    loop {
        let returned = match how.as_str() {
            "sendfile" => sys::sendfile(to, from, size)?,
            "copy_file_range" => sys::copy_file_range(from, to, size)?,
            "splice" => sys::splice(from, pipe_in.as_raw_fd(), size)?,
            _ => bail!("{how:?} is not sendfile, copy_file_range or splice"),
        };
        truth.add(size, returned);
        if returned == 0 {
            return Ok(truth);
        }
        if how == "splice" {
            let mut left = usize::try_from(returned)?;
            while left > 0 {
                left -= usize::try_from(sys::splice(pipe_out.as_raw_fd(), to, left)?)?;
            }
        }
    }
}

/// A child sends `CALLS` messages, this process receives them: through a `pipe` or a `socket`.
/// The truth counts both sides, and only calls that move bytes.
pub(super) fn talk(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let how = arguments.text()?;
    let size = arguments.number()?;
    let calls = arguments.number()?;
    let (receiver, sender): (OwnedFd, OwnedFd) = match how.as_str() {
        "pipe" => sys::pipe()?,
        "socket" => sys::socket_pair()?,
        _ => bail!("{how:?} is not pipe or socket"),
    };
    let mut buffer = vec![0; size];
    // SAFETY: this program has one thread so far.
    let Some(child) = (unsafe { sys::fork()? }) else {
        let whole = |_| sys::write(sender.as_raw_fd(), &buffer).is_ok_and(|n| n == size as u64);
        sys::exit_now(i32::from(!(0..calls).all(whole)));
    };
    let total = (size * calls) as u64;
    let mut truth = Truth::default();
    let mut received = 0;
    while received < total {
        let returned = sys::read(receiver.as_raw_fd(), &mut buffer)?;
        ensure!(returned > 0, "the sender ended early");
        received += returned;
        truth.add(size, returned);
    }
    ensure!(sys::wait(child)? == 0, "the sender failed");
    truth.calls += calls as u64;
    truth.requested_bytes += total;
    truth.returned_bytes += total;
    Ok(truth)
}
