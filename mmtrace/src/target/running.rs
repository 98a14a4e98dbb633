//! A target on its way: its end, its stops, the signals meant for it.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::io::unix::AsyncFd;

use super::child::{Message, Stage};
use super::counters::{Baseline, Faults, ProcIo, Stat};
use super::exit::Exit;
use super::signals::{Meaning, Signals, is_pending, meaning, stop_self};
use super::{Spec, check, receive, start_failure};

/// The kernel's account of an ended process, with the children that it had waited for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Page faults resolved without waiting for storage.
    pub minor_faults: u64,
    /// Page faults resolved after waiting for storage.
    pub major_faults: u64,
    /// Reads from storage, in units of 512 bytes.
    pub input_blocks: u64,
    /// Writes to storage, in units of 512 bytes.
    pub output_blocks: u64,
    /// Processor time in user mode.
    pub user_time_ns: u64,
    /// Processor time in the kernel.
    pub system_time_ns: u64,
}

impl From<&libc::rusage> for Usage {
    fn from(usage: &libc::rusage) -> Self {
        let count = |value: libc::c_long| u64::try_from(value).unwrap_or(0);
        let time_ns =
            |time: libc::timeval| count(time.tv_sec) * 1_000_000_000 + count(time.tv_usec) * 1_000;
        Self {
            minor_faults: count(usage.ru_minflt),
            major_faults: count(usage.ru_majflt),
            input_blocks: count(usage.ru_inblock),
            output_blocks: count(usage.ru_oublock),
            user_time_ns: time_ns(usage.ru_utime),
            system_time_ns: time_ns(usage.ru_stime),
        }
    }
}

/// How a target ended and what the kernel says it used.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub exit: Exit,
    /// From its release to its end; descendants that outlive it are not included.
    pub wall_time_ns: u64,
    /// wait4's figures for the target and every descendant that was waited for.
    pub usage: Usage,
    /// The target's own faults, without its children's; None if they could not be read.
    pub faults: Option<Faults>,
    /// `/proc/PID/io` of the same processes as in `usage`; None where the kernel does not tell.
    pub io: Option<ProcIo>,
    /// The target's counters at the gate, which the figures above include.
    pub baseline: Baseline,
    /// The last signal read meanwhile by which somebody asked mmtrace to end.
    pub asked_to_end: Option<i32>,
}

/// The signals by which somebody asks mmtrace to end.
const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// A target that has been let go. Dropping it leaves the target alone: it goes on unwatched.
pub struct Running {
    pid: libc::pid_t,
    pidfd: AsyncFd<OwnedFd>,
    /// Open until the child's execve has succeeded.
    channel: Option<AsyncFd<OwnedFd>>,
    signals: Signals,
    spec: Spec,
    baseline: Baseline,
    started: Instant,
    /// mmtrace has stopped itself with the target since the last SIGCONT.
    was_stopped: bool,
}

impl Running {
    pub(super) fn new(
        pid: libc::pid_t,
        pidfd: OwnedFd,
        channel: OwnedFd,
        signals: Signals,
        spec: Spec,
        baseline: Baseline,
    ) -> Result<Self> {
        Ok(Self {
            pid,
            pidfd: watched(pidfd).context("cannot wait for the target")?,
            channel: Some(watched(channel).context("cannot wait for the target's start")?),
            signals,
            spec,
            baseline,
            started: Instant::now(),
            was_stopped: false,
        })
    }

    /// The target's process id.
    pub fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Waits for the target's end, forwards signals and follows its stops meanwhile; reaps it.
    ///
    /// Not to be dropped before it has resolved and then called again.
    ///
    /// # Errors
    /// A [`Failure`](crate::failure::Failure) with status 126 or 127 when the command could not be
    /// executed after all; an I/O error when the kernel refuses to tell of the target.
    pub async fn wait(&mut self) -> Result<Outcome> {
        // SAFETY: no arguments, no failure.
        let session_leader = unsafe { libc::getsid(0) == libc::getpid() };
        let mut asked_to_end = None;
        loop {
            tokio::select! {
                biased;
                message = started(self.channel.as_ref()) => {
                    self.channel = None;
                    if let Some(message) = message.context("cannot hear from the target")? {
                        self.reap()?;
                        let stage = Stage::from_message(message).unwrap_or(Stage::Exec);
                        return Err(start_failure(&self.spec, stage, message[1]).into());
                    }
                }
                signal = self.signals.next() => {
                    let signal = signal.context("cannot read the signals sent to mmtrace")?;
                    asked_to_end = ending(&signal).or(asked_to_end);
                    match meaning(&signal, self.pid, session_leader) {
                        Meaning::Child => self.child_changed()?,
                        Meaning::Continue => self.continue_target(),
                        Meaning::Forward(signal) => self.send(signal),
                        Meaning::Nothing => {}
                    }
                }
                ended = self.pidfd.readable() => {
                    ended.context("cannot wait for the target")?.retain_ready();
                    break;
                }
            }
        }
        let wall_time_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let faults = Stat::read(self.pid).ok().map(|stat| stat.faults);
        let io = ProcIo::read(self.pid);
        let (exit, usage) = self.reap()?;
        Ok(Outcome {
            exit,
            wall_time_ns,
            usage,
            faults,
            io,
            baseline: self.baseline,
            asked_to_end,
        })
    }

    /// Once the target has ended: waits until somebody asks mmtrace to end.
    ///
    /// # Errors
    /// When the signals sent to mmtrace cannot be read.
    pub async fn asked_to_end(&self) -> Result<()> {
        loop {
            let signal = self.signals.next().await;
            let signal = signal.context("cannot read the signals sent to mmtrace")?;
            if ending(&signal).is_some() {
                return Ok(());
            }
        }
    }

    /// After SIGCHLD. A later change of the target sends another, so one look at it is enough.
    fn child_changed(&mut self) -> Result<()> {
        let options = libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG;
        let change = match wait_for(self.pid, options) {
            Ok(change) => change,
            // It has ended, which its pidfd tells.
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => None,
            Err(error) => return Err(error).context("cannot follow the target"),
        };
        if let Some(stop) = change.filter(|change| change.si_code == libc::CLD_STOPPED)
            // Nobody would continue mmtrace after a target, or a group, that goes on already.
            && self.is_stopped()
            && !is_pending(libc::SIGCONT)
        {
            self.was_stopped = true;
            // SAFETY: for a stopped child the kernel has filled in the signal.
            stop_self(unsafe { stop.si_status() });
        }
        Ok(())
    }

    /// After SIGCONT: a shell continues the whole group, anyone else perhaps mmtrace alone.
    fn continue_target(&mut self) {
        let resumed = mem::take(&mut self.was_stopped);
        if self.is_stopped() || !resumed {
            self.send(libc::SIGCONT);
        }
    }

    fn is_stopped(&self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| stat.state == b'T')
    }

    /// A signal that the target may not be sent, or no longer can, is nobody's.
    fn send(&self, signal: i32) {
        let pidfd = self.pidfd.get_ref().as_raw_fd();
        // SAFETY: no siginfo is passed; the kernel makes it as for kill.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                pidfd,
                signal,
                ptr::null::<u8>(),
                0,
            )
        };
    }

    /// Takes the ended target, and what the kernel says it used.
    fn reap(&self) -> Result<(Exit, Usage)> {
        // SAFETY: a plain struct of integers, which the call fills.
        let mut usage: libc::rusage = unsafe { mem::zeroed() };
        let mut status = 0;
        loop {
            // SAFETY: both results live on the stack for the time of the call.
            match check(unsafe { libc::wait4(self.pid, &raw mut status, 0, &raw mut usage) }) {
                Ok(_) => return Ok((Exit::from_wait_status(status), Usage::from(&usage))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot take the ended target's status"),
            }
        }
    }
}

/// The signal, if it asks mmtrace to end.
fn ending(info: &libc::signalfd_siginfo) -> Option<i32> {
    let signal = info.ssi_signo.cast_signed();
    ENDING.contains(&signal).then_some(signal)
}

fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays the same, open one until the watch is dropped with it.
    Ok(unsafe { AsyncFd::register(descriptor)? })
}

/// Resolves when the child's execve has succeeded (None) or failed (why); never without a channel.
async fn started(channel: Option<&AsyncFd<OwnedFd>>) -> io::Result<Option<Message>> {
    match channel {
        Some(channel) => {
            channel.readable().await?.retain_ready();
            receive(Some(channel.get_ref()))
        }
        None => std::future::pending().await,
    }
}

/// waitid of a child; None when WNOHANG was given and nothing has changed.
fn wait_for(id: libc::pid_t, options: i32) -> io::Result<Option<libc::siginfo_t>> {
    // SAFETY: a struct that is valid as zeroes and filled by the call. Its signal number stays 0
    // when nothing has changed.
    unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        check(libc::waitid(
            libc::P_PID,
            id.cast_unsigned(),
            &raw mut info,
            options,
        ))?;
        Ok((info.si_signo != 0).then_some(info))
    }
}
