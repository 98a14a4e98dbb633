//! Messages from one process to another, through a pipe, a socket or shared memory.
//!
//! The sender makes each message up and the receiver looks at it in the same way whatever the
//! channel: in a buffer of its own where the channel copies, in the shared memory itself where it
//! does not. Making and removing the channel counts; starting the sender does not. Each side has a
//! processor of its own where there are two.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::{
    outcome::Method,
    ring::Ring,
    workload::{IpcWork, fill_message},
};
use crate::settle::cpus;

/// A channel, before it is known who is which side.
enum Channel {
    Pipe(io::PipeReader, io::PipeWriter),
    Socket(UnixStream, UnixStream),
    Ring(Ring),
}

/// Passes the messages; returns how long that took and the sum of what the consumer saw.
///
/// To be called in a process with a single thread: it forks.
///
/// # Errors
/// If the channel cannot be made, or breaks.
pub(super) fn pass(method: Method, work: &IpcWork) -> Result<(Duration, u64)> {
    // Otherwise the kernel's scheduler puts both on one processor in some runs, and not in others.
    let cpus = cpus::allowed()?;
    cpus::bind(cpus[0])?;
    let start = Instant::now();
    let channel = match method {
        Method::Pipe => {
            let (reader, writer) = io::pipe()?;
            Channel::Pipe(reader, writer)
        }
        Method::UnixStream => {
            let (receiver, sender) = UnixStream::pair()?;
            Channel::Socket(receiver, sender)
        }
        Method::SharedMapping => Channel::Ring(Ring::new(work.message_bytes)?),
        _ => bail!("{} passes no messages", method.name()),
    };
    let making = start.elapsed();

    let (wait, mut go) = io::pipe()?;
    // SAFETY: this process has a single thread, so that its copy finds everything in order.
    let sender = unsafe { libc::fork() };
    if sender == 0 {
        drop(go);
        let sent = cpus::bind(cpus[1 % cpus.len()]).and_then(|()| send(channel, work, wait));
        // SAFETY: ends the copy without what is only the first process's to do at exit.
        unsafe { libc::_exit(i32::from(sent.is_err())) };
    }
    ensure!(sender > 0, "no sender: {}", io::Error::last_os_error());
    let start = Instant::now();
    go.write_all(&[0])?;
    let received = receive(channel, work);
    let elapsed = making + start.elapsed();
    let mut status = 0;
    // SAFETY: our own child, and a variable of ours.
    let waited = unsafe { libc::waitpid(sender, &raw mut status, 0) };
    let sum = received?;
    ensure!(waited == sender && status == 0, "the sender failed");
    Ok((elapsed, sum))
}

/// The sender: waits until it may begin, then sends everything.
fn send(channel: Channel, work: &IpcWork, mut wait: io::PipeReader) -> Result<()> {
    // With the receiver, the sender ends, too.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    wait.read_exact(&mut [0])?;
    match channel {
        Channel::Pipe(reader, writer) => {
            drop(reader);
            write_all(writer, work)
        }
        Channel::Socket(receiver, sender) => {
            drop(receiver);
            write_all(sender, work)
        }
        Channel::Ring(ring) => {
            (0..work.messages).try_for_each(|number| ring.send(|slot| fill_message(number, slot)))
        }
    }
}

fn write_all(mut channel: impl Write, work: &IpcWork) -> Result<()> {
    let mut buffer = vec![0; work.message_bytes];
    for number in 0..work.messages {
        fill_message(number, &mut buffer);
        channel.write_all(&buffer)?;
    }
    Ok(())
}

/// The receiver: returns the sum of what the consumer saw, after the channel is gone.
fn receive(channel: Channel, work: &IpcWork) -> Result<u64> {
    match channel {
        Channel::Pipe(reader, writer) => {
            drop(writer);
            read_all(reader, work)
        }
        Channel::Socket(receiver, sender) => {
            drop(sender);
            read_all(receiver, work)
        }
        Channel::Ring(ring) => {
            let mut sum = 0_u64;
            for _ in 0..work.messages {
                sum = sum.wrapping_add(ring.receive(|slot| work.consumer.consume(slot))?);
            }
            Ok(sum)
        }
    }
}

fn read_all(mut channel: impl Read, work: &IpcWork) -> Result<u64> {
    let mut buffer = vec![0; work.message_bytes];
    let mut sum = 0_u64;
    for _ in 0..work.messages {
        channel
            .read_exact(&mut buffer)
            .context("the channel broke")?;
        sum = sum.wrapping_add(work.consumer.consume(&buffer));
    }
    Ok(sum)
}
