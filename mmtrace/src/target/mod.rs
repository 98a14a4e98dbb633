//! The traced command: started behind a gate, let go, waited for.
//!
//! ```text
//! Spec --spawn--> Stopped --release--> Running --wait--> Outcome
//! ```
//! The child does everything that it can before the gate: it takes the user's identity, finds the
//! command's file and restores the signal mask. Then it waits, [`Stopped`], while mmtrace attaches.
//! On release it makes one recognisable system call, [`Marker`], and execve. Should mmtrace die
//! first, the gate closes and the child exits without having run anything.
//!
//! The target keeps mmtrace's process group, terminal, streams, limits and working directory.

mod account;
mod child;
mod counters;
mod exit;
mod initial;
mod plan;
mod running;
mod signals;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use os_display::Quotable;

pub use account::Account;
pub use counters::{Baseline, Faults, ProcIo};
pub use exit::Exit;
pub(crate) use initial::stream_closed;
pub use running::{Outcome, Running, Usage};
pub use signals::Signals;

use crate::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND};
use child::{Message, Stage};

/// `prctl(`[`REGISTER_OPTION`](mmtrace_common::REGISTER_OPTION)`, nonce, role)`: by this call the
/// kernel programs recognise the child, directly before its command's execve. No kernel knows the
/// option, so that the call has no effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Marker {
    /// Tells this run's child from any other process that makes the same call.
    pub nonce: u32,
}

impl Marker {
    /// A marker with a nonce from the kernel's random numbers.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn random() -> io::Result<Self> {
        let mut nonce = [0; 4];
        File::open("/dev/urandom")?.read_exact(&mut nonce)?;
        Ok(Self {
            nonce: u32::from_ne_bytes(nonce),
        })
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The command's name and its arguments; at least the name.
    pub command: Vec<OsString>,
    /// Whom to run it as; None for mmtrace's own user.
    pub user: Option<Account>,
    /// Whether its standard streams are /dev/null instead of mmtrace's.
    pub silent: bool,
    /// The call to make before execve.
    pub marker: Option<Marker>,
}

/// A child, reaped at the latest when this is dropped.
struct Child {
    pid: libc::pid_t,
    /// mmtrace's end of the channel: the gate, and the child's messages.
    channel: Option<OwnedFd>,
}

impl Child {
    fn reap(&mut self) {
        self.channel = None;
        // SAFETY: waits for this process's own child, whose status is not asked for.
        while unsafe { libc::waitpid(self.pid, ptr::null_mut(), 0) } == -1
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Without a channel the child has been handed on.
        if self.channel.is_some() {
            self.reap();
        }
    }
}

/// A target that waits at the gate. Dropping it ends the child, which has run nothing.
pub struct Stopped {
    child: Child,
    pidfd: OwnedFd,
    baseline: Baseline,
    signals: Signals,
    spec: Spec,
}

impl Stopped {
    /// Starts the target and returns when it waits at the gate.
    ///
    /// # Errors
    /// A [`Failure`] with status 127 or 126 when the command does not exist or is not executable,
    /// any other error when the process cannot be set up.
    pub fn spawn(spec: Spec, signals: Signals) -> Result<Self> {
        let plan = plan::Plan::new(&spec, &signals.mask)?;
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .context("cannot make the gate's sockets")?;
        // SAFETY: the child makes only calls that are safe after a fork and never returns.
        let pid = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                child::become_target(&plan, theirs.as_raw_fd(), ours.as_raw_fd());
            }
            pid
        };
        check(pid).context("cannot start a process")?;
        drop(theirs);
        let mut child = Child {
            pid,
            channel: Some(ours),
        };

        let message =
            receive(child.channel.as_ref()).context("cannot hear from the new process")?;
        match message.map(|message| (Stage::from_message(message), message[1])) {
            Some((Some(Stage::Ready), _)) => {}
            Some((Some(stage), errno)) => {
                child.reap();
                return Err(start_failure(&spec, stage, errno).into());
            }
            _ => {
                child.reap();
                return Err(
                    Failure::own("the new process ended before the command's start").into(),
                );
            }
        }
        let baseline = Baseline::read(pid).with_context(|| {
            format!("cannot read the new process's counters in /proc/{pid} (is /proc mounted?)")
        })?;
        // SAFETY: the child is not yet reaped, so its id is its own; the new descriptor has no other owner.
        let pidfd = unsafe {
            let descriptor = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            check(descriptor as i32).context("cannot watch the new process (needs Linux 5.3)")?;
            OwnedFd::from_raw_fd(descriptor as i32)
        };
        Ok(Self {
            child,
            pidfd,
            baseline,
            signals,
            spec,
        })
    }

    /// The target's process id.
    pub fn pid(&self) -> u32 {
        self.child.pid.cast_unsigned()
    }

    /// What the target will be recognised by, once it has been released.
    pub fn marker(&self) -> Option<Marker> {
        self.spec.marker
    }

    /// The target's counters at the gate.
    pub fn baseline(&self) -> Baseline {
        self.baseline
    }

    /// Opens the gate. The command starts now; whether it could be executed, [`Running::wait`] tells.
    ///
    /// # Errors
    /// When the target cannot be watched; it has not been let go then.
    pub fn release(mut self) -> Result<Running> {
        let channel = self
            .child
            .channel
            .take()
            .context("the target has been let go already")?;
        let copy = channel.try_clone();
        // Until the gate is open, an error on the way must find the child still owned.
        self.child.channel = Some(copy.context("cannot copy the gate's descriptor")?);
        let running = Running::new(
            self.child.pid,
            self.pidfd,
            channel,
            self.signals,
            self.spec,
            self.baseline,
        )?;
        if let Some(gate) = self.child.channel.take() {
            // A child that a signal has ended cannot hear it; the wait will tell.
            let _ = send(gate.as_raw_fd(), &[1], MsgFlags::MSG_NOSIGNAL);
        }
        Ok(running)
    }
}

/// The next message, None when the child has closed its end.
fn receive(channel: Option<&OwnedFd>) -> io::Result<Option<Message>> {
    let channel = channel.ok_or(io::ErrorKind::NotConnected)?;
    let mut bytes = [0; size_of::<Message>()];
    match recv(channel.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
        Ok(0) | Err(nix::Error::ECONNRESET) => Ok(None),
        // SAFETY: any bytes make two integers.
        Ok(_) => Ok(Some(unsafe { mem::transmute::<[u8; 8], Message>(bytes) })),
        Err(error) => Err(error.into()),
    }
}

/// Why the command was not started, in the words and with the status of a shell.
fn start_failure(spec: &Spec, stage: Stage, errno: i32) -> Failure {
    let error = nix::errno::Errno::from_raw(errno).desc();
    let name = spec.command.first().cloned().unwrap_or_default();
    let quoted = name.maybe_quote().external(true).to_string();
    match (stage, errno) {
        (Stage::Identity, _) => Failure::own(format!(
            "cannot run {quoted} as the user asked for: {error}"
        )),
        (Stage::Lookup, libc::ENOENT) => {
            let failure = Failure::with_status(NOT_FOUND, format!("{quoted}: command not found"));
            let by_path = !name.as_encoded_bytes().contains(&b'/');
            if by_path && std::env::var_os("SUDO_UID").is_some() {
                failure.remedy(format!(
                    "sudo may have replaced your PATH. Keep it:\n\
                     sudo env \"PATH=$PATH\" mmtrace run -- {quoted} ..."
                ))
            } else {
                failure
            }
        }
        (Stage::Exec, libc::ENOENT) => Failure::with_status(
            NOT_FOUND,
            format!("{quoted}: cannot be executed: its interpreter does not exist"),
        ),
        _ => Failure::with_status(
            NOT_EXECUTABLE,
            format!("{quoted}: cannot be executed: {error}"),
        ),
    }
}

/// The result of a C call that returns -1 on error.
fn check(result: i32) -> io::Result<i32> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
