//! Data from one process to another: the first one sends, the second one receives.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, Read as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CloneFlags, unshare},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::{mkfifo, pipe},
};

use super::{
    bench::{Bench, Other, Turns, fork},
    data::FIRST,
    share::own_tmpfs,
    sys::{self, Mapping},
    watch::Watches,
};
use crate::settle::figure::{Evidence, Figure};

/// Channels that carry bytes or messages between descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Pipe,
    Fifo,
    Unix,
    Datagram,
    Tcp,
    /// A pipe into which pages are put by `vmsplice`.
    Vmsplice,
}

/// Both ends of a channel.
struct Ends {
    from: OwnedFd,
    to: OwnedFd,
}

impl Stream {
    fn open(self) -> Result<Ends> {
        Ok(match self {
            Self::Pipe | Self::Vmsplice => {
                let (to, from) = pipe().context("pipe")?;
                Ends { from, to }
            }
            Self::Fifo => fifo()?,
            Self::Unix => {
                let (from, to) = UnixStream::pair().context("socketpair")?;
                Ends {
                    from: from.into(),
                    to: to.into(),
                }
            }
            Self::Datagram => {
                let (from, to) = UnixDatagram::pair().context("socketpair")?;
                Ends {
                    from: from.into(),
                    to: to.into(),
                }
            }
            Self::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").context("TCP over loopback")?;
                let from = TcpStream::connect(listener.local_addr()?).context("connect")?;
                let (to, _) = listener.accept().context("accept")?;
                Ends {
                    from: from.into(),
                    to: to.into(),
                }
            }
        })
    }
}

/// A FIFO in a tmpfs that nobody else sees, and that goes with this process.
fn fifo() -> Result<Ends> {
    let path = own_tmpfs()?.join("fifo");
    mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).context("mkfifo")?;
    // For both, so that opening one end does not wait for another process.
    let both = OpenOptions::new().read(true).write(true).open(&path)?;
    let to = OpenOptions::new().read(true).open(&path)?;
    let from = OpenOptions::new().write(true).open(&path)?;
    drop(both);
    Ok(Ends {
        from: from.into(),
        to: to.into(),
    })
}

/// Receives by the call that is passed until all has come, into a buffer of which bytes are watched.
fn receive(
    bench: &mut Bench,
    room_bytes: usize,
    mut call: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> Result<()> {
    let size = bench.size()?;
    let mut buffer = Mapping::buffer(size + room_bytes)?;
    let watches = Watches::set(&buffer, size, bench);
    let mut done = 0;
    while done < size {
        let length = room_bytes.min(buffer.length() - done);
        let received = call(&mut buffer.bytes_mut()[done..done + length]).context("receiving")?;
        ensure!(received > 0, "the other side has ended too early");
        done += received;
    }
    let right = FIRST.right(0, &buffer.bytes()[..size]);
    watches.tell(&buffer, bench);
    bench.checked(done as u64, right);
    Ok(())
}

/// What is sent.
fn message(bench: &Bench) -> Result<Mapping> {
    let mut data = Mapping::buffer(bench.size()?)?;
    FIRST.fill(0, data.bytes_mut());
    Ok(data)
}

/// Through a channel of descriptors, `chunk_bytes` at a time.
pub(super) fn stream(bench: &mut Bench, how: Stream, chunk_bytes: usize) -> Result<()> {
    let data = message(bench)?;
    let Ends { from, to } = how.open()?;
    let mut from = Some(from);
    let receives = |bench: &mut Bench, _: &Other| {
        // The end of the data is seen only when nobody could send any more.
        from = None;
        let mut to = File::from(to.try_clone()?);
        receive(bench, chunk_bytes, |buffer| to.read(buffer))
    };
    let child = fork(bench, receives)?;
    drop(to);
    let from = from.context("the sending end")?;
    for chunk in data.bytes().chunks(chunk_bytes) {
        match how {
            Stream::Vmsplice => splice_in(&from, chunk)?,
            _ => send(&from, chunk)?,
        }
    }
    drop(from);
    child.join()
}

fn send(to: &OwnedFd, chunk: &[u8]) -> Result<()> {
    let mut left = chunk;
    while !left.is_empty() {
        // SAFETY: the buffer is ours, and its length is given.
        let sent =
            sys::bytes(unsafe { libc::write(to.as_raw_fd(), left.as_ptr().cast(), left.len()) });
        left = &left[sent.context("sending")?..];
    }
    Ok(())
}

fn splice_in(to: &OwnedFd, chunk: &[u8]) -> Result<()> {
    let mut left = chunk;
    while !left.is_empty() {
        let part = libc::iovec {
            iov_base: left.as_ptr().cast_mut().cast(),
            iov_len: left.len(),
        };
        // SAFETY: the part lies in the buffer, which is not changed any more.
        let moved = sys::bytes(unsafe { libc::vmsplice(to.as_raw_fd(), &raw const part, 1, 0) });
        left = &left[moved.context("vmsplice")?..];
    }
    Ok(())
}

/// Message queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Sysv,
    Posix,
}

/// A System V message: its type, and the text behind it.
const TYPE_BYTES: usize = size_of::<libc::c_long>();

/// Through a message queue, in messages of `chunk_bytes`.
pub(super) fn queue(bench: &mut Bench, how: Queue, chunk_bytes: usize) -> Result<()> {
    // Queues of a namespace of its own go with it, however this process ends.
    unshare(CloneFlags::CLONE_NEWIPC).context("an IPC namespace")?;
    match how {
        Queue::Sysv => sysv(bench, chunk_bytes),
        Queue::Posix => posix(bench, chunk_bytes),
    }
}

fn sysv(bench: &mut Bench, chunk_bytes: usize) -> Result<()> {
    let data = message(bench)?;
    // SAFETY: no memory is passed.
    let queue = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) };
    ensure!(queue >= 0, "msgget: {}", io::Error::last_os_error());
    let receives = |bench: &mut Bench, _: &Other| {
        // The type comes before the text: it is received in front of what is there already, which is
        // put back.
        let mut before = [0; TYPE_BYTES];
        let mut front = Mapping::buffer(bench.size()? + chunk_bytes + TYPE_BYTES)?;
        let size = bench.size()?;
        let watches = Watches::set(&front, size + TYPE_BYTES, bench);
        let mut done = 0;
        while done < size {
            let into = &mut front.bytes_mut()[done..done + TYPE_BYTES + chunk_bytes];
            before.copy_from_slice(&into[..TYPE_BYTES]);
            // SAFETY: the buffer has room for the type and the text.
            let received = sys::bytes(unsafe {
                libc::msgrcv(queue, into.as_mut_ptr().cast(), chunk_bytes, 0, 0)
            });
            into[..TYPE_BYTES].copy_from_slice(&before);
            done += received.context("msgrcv")?;
        }
        let right = FIRST.right(0, &front.bytes()[TYPE_BYTES..TYPE_BYTES + size]);
        watches.tell(&front, bench);
        bench.checked(done as u64, right);
        Ok(())
    };
    let child = fork(bench, receives)?;
    let mut text = vec![0; TYPE_BYTES + chunk_bytes];
    text[..TYPE_BYTES].copy_from_slice(&(1 as libc::c_long).to_ne_bytes());
    for chunk in data.bytes().chunks(chunk_bytes) {
        text[TYPE_BYTES..TYPE_BYTES + chunk.len()].copy_from_slice(chunk);
        // SAFETY: the buffer has the type and as much text.
        let sent = unsafe { libc::msgsnd(queue, text.as_ptr().cast(), chunk.len(), 0) };
        sys::done(sent).context("msgsnd")?;
    }
    child.join()
}

fn posix(bench: &mut Bench, chunk_bytes: usize) -> Result<()> {
    let data = message(bench)?;
    let name = CString::new("/mmtrace-settle")?;
    // SAFETY: plain data, for which zeros are a value.
    let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
    attributes.mq_maxmsg = 8;
    attributes.mq_msgsize = i64::try_from(chunk_bytes)?;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    // SAFETY: name and attributes outlive the call, which takes them for O_CREAT.
    let queue = unsafe { libc::mq_open(name.as_ptr(), flags, 0o600, &raw const attributes) };
    ensure!(queue >= 0, "mq_open: {}", io::Error::last_os_error());
    // SAFETY: a queue is a descriptor on Linux; it was just opened and is nobody else's.
    let queue = unsafe { OwnedFd::from_raw_fd(queue) };
    let receives = |bench: &mut Bench, _: &Other| {
        receive(bench, chunk_bytes, |buffer| {
            // SAFETY: the buffer is ours, and its length is given.
            sys::bytes(unsafe {
                libc::mq_receive(
                    queue.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    std::ptr::null_mut(),
                )
            })
        })
    };
    let child = fork(bench, receives)?;
    for chunk in data.bytes().chunks(chunk_bytes) {
        // SAFETY: as above.
        let sent =
            unsafe { libc::mq_send(queue.as_raw_fd(), chunk.as_ptr().cast(), chunk.len(), 0) };
        sys::done(sent).context("mq_send")?;
    }
    child.join()
}

/// The second process reads the first one's memory by `process_vm_readv`.
pub(super) fn read_from_process(bench: &mut Bench, chunk_bytes: usize) -> Result<()> {
    let data = message(bench)?;
    let size = bench.size()?;
    let (source, first) = (data.at(0), std::process::id().cast_signed());
    let receives = |bench: &mut Bench, _: &Other| {
        let mut done = 0;
        receive(bench, chunk_bytes, |buffer| {
            let length = buffer.len().min(size - done);
            let into = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: length,
            };
            let from = libc::iovec {
                iov_base: source.wrapping_add(done).cast(),
                iov_len: length,
            };
            // SAFETY: `into` is inside our buffer; the other process's memory is only read.
            let read = sys::bytes(unsafe {
                libc::process_vm_readv(first, &raw const into, 1, &raw const from, 1, 0)
            })?;
            done += read;
            Ok(read)
        })
    };
    fork(bench, receives)?.join()
}

/// Through memory that both have mapped: the first one stores a part, the second one loads it.
pub(super) fn mapped(bench: &mut Bench, chunk_bytes: usize) -> Result<()> {
    let data = message(bench)?;
    let file = File::from(memfd_create("mmtrace-settle", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(bench.step.size_bytes)?;
    let mut ours = bench.share(Some(&file))?;
    let turns = Turns::new()?;
    let places = (0..ours.length()).step_by(chunk_bytes);
    // Each part takes two turns: it is there, it was taken.
    let turn = |part: usize| u32::try_from(2 * part + 1);
    let receives = |bench: &mut Bench, first: &Other| {
        let theirs = bench.share(Some(&file))?;
        let watches = Watches::set(&theirs, theirs.length(), bench);
        let (mut right, mut calls) = (0, 0);
        for (part, place) in places.clone().enumerate() {
            let there = turn(part)?;
            calls += turns.wait(there, first)? + 1;
            let end = (place + chunk_bytes).min(theirs.length());
            right += FIRST.right(place as u64, &theirs.bytes()[place..end]);
            turns.pass(there + 1);
        }
        let length = theirs.length() as u64;
        watches.tell(&theirs, bench);
        bench.checked(length, right);
        bench.set(Figure::ProgramLoadedBytes, length, Evidence::Program);
        bench.set(Figure::FutexCalls, calls, Evidence::Program);
        Ok(())
    };
    let child = fork(bench, receives)?;
    for (part, place) in places.clone().enumerate() {
        let end = (place + chunk_bytes).min(ours.length());
        ours.bytes_mut()[place..end].copy_from_slice(&data.bytes()[place..end]);
        let there = turn(part)?;
        turns.pass(there);
        turns.wait(there + 1, &child.0)?;
    }
    let length = ours.length() as u64;
    bench.set(Figure::ProgramStoredBytes, length, Evidence::Program);
    child.join()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn each_channel_carries_bytes() -> Result<()> {
        for how in [Stream::Pipe, Stream::Unix, Stream::Datagram, Stream::Tcp] {
            let Ends { from, to } = how.open()?;
            File::from(from).write_all(b"7 bytes")?;
            let mut buffer = [0; 7];
            File::from(to).read_exact(&mut buffer)?;
            assert_eq!(&buffer, b"7 bytes", "{how:?}");
        }
        Ok(())
    }
}
