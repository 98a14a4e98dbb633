//! aio, by its system calls.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
};

use anyhow::{bail, ensure};

use super::{Arguments, sys};
use crate::truth::Truth;

// include/uapi/linux/aio_abi.h
const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const PREADV: u16 = 7;
const PWRITEV: u16 = 8;

/// `struct iocb`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Request {
    data: u64,
    key: u32,
    flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    more_flags: u32,
    event_fd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    object: u64,
    result: i64,
    more: i64,
}

/// A context for so many requests at a time.
struct Context(u64);

impl Context {
    fn new(requests: usize) -> io::Result<Self> {
        let mut context = 0_u64;
        // SAFETY: `context` is ours to be written, and 0 as the call asks for.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, requests, &mut context) };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(context))
    }

    /// How many of the requests were taken.
    fn submit(&self, requests: &[*const Request]) -> io::Result<usize> {
        // SAFETY: the requests, and the buffers that they lead to, live until they are reaped.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_submit,
                self.0,
                requests.len(),
                requests.as_ptr(),
            )
        };
        usize::try_from(taken).map_err(|_| io::Error::last_os_error())
    }

    fn reap(&self, events: &mut [Event], at_least: usize) -> io::Result<usize> {
        // SAFETY: there is room for as many events as is said.
        let reaped = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.0,
                at_least,
                events.len(),
                events.as_mut_ptr(),
                ptr::null::<libc::timespec>(),
            )
        };
        usize::try_from(reaped).map_err(|_| io::Error::last_os_error())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is ours, and nothing is in flight any more.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// How many requests one `io_submit` has.
const DEPTH: usize = 7;

/// Reads or writes `BYTES` of each file, `SIZE` at a time, `DEPTH` requests to a call, the files
/// taking turns. The truth counts the requests.
pub(super) fn aio(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let how = arguments.text()?;
    let size = arguments.number()?;
    let total = arguments.number()?;
    let (opcode, flags) = match how.as_str() {
        "pread" => (PREAD, libc::O_RDONLY),
        "preadv" => (PREADV, libc::O_RDONLY),
        "direct" => (PREAD, libc::O_RDONLY | libc::O_DIRECT),
        "pwrite" => (PWRITE, libc::O_WRONLY | libc::O_CREAT),
        "pwritev" => (PWRITEV, libc::O_WRONLY | libc::O_CREAT),
        "direct-write" => (PWRITE, libc::O_WRONLY | libc::O_CREAT | libc::O_DIRECT),
        _ => bail!("{how:?} is not pread, preadv, pwrite, pwritev, direct or direct-write"),
    };
    let mut files = vec![sys::open(&arguments.path()?, flags)?];
    while let Ok(path) = arguments.path() {
        files.push(sys::open(&path, flags)?);
    }
    let buffer = sys::Mapping::new(
        None,
        DEPTH * size.next_multiple_of(4096),
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    )?;
    // btrfs reads through the page cache, and again, into a buffer that is not there (6.18 on).
    buffer.fill();
    let context = Context::new(2 * DEPTH)?;
    let mut truth = Truth::default();
    let places: Vec<(&OwnedFd, usize)> = (0..total.div_ceil(size))
        .flat_map(|index| files.iter().map(move |file| (file, index * size)))
        .collect();
    for batch in places.chunks(DEPTH) {
        let mut vectors = [[libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        }; 3]; DEPTH];
        let mut requests = [Request::default(); DEPTH];
        for (slot, (file, offset)) in batch.iter().enumerate() {
            let whole = matches!(how.as_str(), "pwrite" | "pwritev");
            let asked = if whole {
                size.min(total - offset)
            } else {
                size
            };
            // SAFETY: the slot's part of the buffer, which nothing else refers to.
            let part = unsafe {
                std::slice::from_raw_parts_mut(
                    buffer.address().add(slot * size.next_multiple_of(4096)),
                    asked,
                )
            };
            requests[slot] = Request {
                opcode,
                fd: file.as_raw_fd().cast_unsigned(),
                buffer: part.as_mut_ptr() as u64,
                bytes: asked as u64,
                offset: i64::try_from(*offset)?,
                ..Request::default()
            };
            if opcode == PREADV || opcode == PWRITEV {
                vectors[slot] = sys::three_parts(part);
                requests[slot].buffer = vectors[slot].as_ptr() as u64;
                requests[slot].bytes = 3;
            }
            truth.calls += 1;
            truth.requested_bytes += asked as u64;
        }
        let pointers: Vec<*const Request> =
            requests[..batch.len()].iter().map(ptr::from_ref).collect();
        let mut submitted = 0;
        while submitted < pointers.len() {
            submitted += context.submit(&pointers[submitted..])?;
        }
        let mut events = [Event::default(); DEPTH];
        let reaped = context.reap(&mut events, submitted)?;
        ensure!(reaped == submitted, "{reaped} of {submitted} completed");
        for event in &events[..reaped] {
            let moved = u64::try_from(event.result);
            truth.returned_bytes += moved.map_err(|_| anyhow::anyhow!("{}", event.result))?;
        }
    }
    // One that is not taken, for want of a file, is no operation.
    let nowhere = Request {
        opcode,
        fd: u32::MAX,
        ..Request::default()
    };
    ensure!(context.submit(&[ptr::from_ref(&nowhere)]).is_err());
    Ok(truth)
}
