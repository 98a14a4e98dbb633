//! The child between fork and execve.
//!
//! It makes raw system calls alone and touches everything it will need before it reports itself
//! ready, so that as few faults as possible lie between the gate and execve.

use std::ffi::{c_char, c_int, c_long};
use std::os::fd::AsRawFd as _;
use std::ptr;

use mmtrace_common::Role;

use super::plan::{Candidate, Plan};
use crate::failure::OWN_FAILURE;

unsafe extern "C" {
    /// The environment that mmtrace was given.
    pub(super) static environ: *mut *const c_char;
}

/// What the child says on its channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(i32)]
pub(super) enum Stage {
    /// It waits at the gate.
    Ready = 1,
    /// Taking the user's identity failed.
    Identity = 2,
    /// No candidate is an executable file.
    Lookup = 3,
    /// execve failed.
    Exec = 4,
}

/// A message on the channel: its stage and an error number.
pub(super) type Message = [i32; 2];

impl Stage {
    pub(super) fn from_message(message: Message) -> Option<Self> {
        [Self::Ready, Self::Identity, Self::Lookup, Self::Exec]
            .into_iter()
            .find(|stage| *stage as i32 == message[0])
    }
}

/// Sets the process up as the target's, waits at the gate and becomes the command.
///
/// # Safety
/// Only in the single thread of a process just forked. `channel` is its end of the pair and
/// `parent_channel` the copy of mmtrace's.
pub(super) unsafe fn become_target(plan: &Plan, channel: c_int, parent_channel: c_int) -> ! {
    // SAFETY: system calls on descriptors and memory that the fork gave this process.
    unsafe {
        // Otherwise this copy would keep the gate from ever closing.
        libc::close(parent_channel);
        for stream in 0..3 {
            if super::initial::stream_closed(stream) && stream != channel {
                libc::close(stream);
            }
        }
        if let Some(null) = &plan.null {
            for stream in (0..3).filter(|stream| *stream != channel) {
                libc::dup2(null.as_raw_fd(), stream);
            }
        }
        if let Some(user) = &plan.identity
            && let Err(error) = user.assume()
        {
            give_up(
                channel,
                Stage::Identity,
                error.raw_os_error().unwrap_or(libc::EPERM),
            );
        }
        let first = match first_executable(&plan.candidates) {
            Ok(first) => first,
            Err(errno) => give_up(channel, Stage::Lookup, errno),
        };
        set_disposition(libc::SIGPIPE, plan.ignore_sigpipe);
        set_disposition(libc::SIGCHLD, plan.ignore_sigchld);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const plan.mask, ptr::null_mut());

        // A failing call made for its faults: it touches the code and errno that follow the gate.
        libc::syscall(libc::SYS_prctl, -1);
        let mut gate = 0_u8;
        send(channel, [Stage::Ready as i32, 0]);
        let received = loop {
            let received = libc::syscall(libc::SYS_recvfrom, channel, &raw mut gate, 1, 0, 0, 0);
            if received != -1 || errno() != libc::EINTR {
                break received;
            }
        };
        if received != 1 {
            // mmtrace ended, or gave up, before the start.
            libc::_exit(OWN_FAILURE.into());
        }
        let errno = execute(plan, first);
        give_up(channel, Stage::Exec, errno)
    }
}

/// The first candidate that is a file which may be executed, or the error that execvp would give.
fn first_executable(candidates: &[Candidate]) -> Result<usize, c_int> {
    let mut error = libc::ENOENT;
    for (index, candidate) in candidates.iter().enumerate() {
        let path = candidate.path.as_ptr();
        // SAFETY: `path` is a C string, `status` has the size that the call fills.
        let found = unsafe {
            let mut status: libc::stat = std::mem::zeroed();
            if libc::stat(path, &raw mut status) == -1 {
                Err(errno())
            } else if status.st_mode & libc::S_IFMT == libc::S_IFDIR {
                Err(libc::EISDIR)
            } else if libc::faccessat(libc::AT_FDCWD, path, libc::X_OK, libc::AT_EACCESS) == -1 {
                Err(errno())
            } else {
                Ok(())
            }
        };
        match found {
            Ok(()) => return Ok(index),
            // "Not a directory" for an explicit path is one more way of not being there.
            Err(libc::ENOENT | libc::ENOTDIR) => {}
            Err(errno) if candidates.len() == 1 => error = errno,
            Err(_) => error = libc::EACCES,
        }
    }
    Err(error)
}

/// Marks this process for the kernel programs and executes; returns execvp's error number.
///
/// # Safety
/// As `become_target`.
unsafe fn execute(plan: &Plan, first: usize) -> c_int {
    // SAFETY: all pointers are to C strings and null-terminated arrays of the plan, or to the
    // environment, which nothing has changed.
    unsafe {
        let arguments = plan.arguments.as_ptr();
        let environment = plan
            .environment
            .as_ref()
            .map_or(environ.cast_const(), |own| own.as_ptr());
        let mut denied = false;
        if let Some(marker) = plan.marker {
            // EINVAL is expected: the kernel programs see the call, the kernel knows no such option.
            libc::syscall(
                libc::SYS_prctl,
                c_long::from(mmtrace_common::REGISTER_OPTION),
                c_long::from(marker.nonce),
                Role::Target as c_long,
                0,
                0,
            );
        }
        let mut error = libc::ENOENT;
        for candidate in plan.candidates.iter().skip(first) {
            libc::syscall(
                libc::SYS_execve,
                candidate.path.as_ptr(),
                arguments,
                environment,
            );
            error = errno();
            if error == libc::ENOEXEC {
                let shell_arguments = candidate.shell_arguments.as_ptr();
                libc::syscall(
                    libc::SYS_execve,
                    plan.shell.as_ptr(),
                    shell_arguments,
                    environment,
                );
                return libc::ENOEXEC;
            }
            match error {
                libc::EACCES => denied = true,
                libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
                _ => return error,
            }
        }
        if denied { libc::EACCES } else { error }
    }
}

unsafe fn set_disposition(signal: c_int, ignore: bool) {
    // SAFETY: a whole, valid action; the old one is not asked for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

unsafe fn give_up(channel: c_int, stage: Stage, errno: c_int) -> ! {
    // SAFETY: the channel is open; _exit runs no code of mmtrace's.
    unsafe {
        send(channel, [stage as i32, errno]);
        libc::_exit(OWN_FAILURE.into())
    }
}

/// Sends by the socket call: a write would count in the target's `/proc/PID/io`.
unsafe fn send(channel: c_int, message: Message) {
    // SAFETY: the message is on the stack for the time of the call. A parent that is gone needs no
    // answer: the gate tells.
    unsafe {
        let size = size_of::<Message>();
        libc::syscall(
            libc::SYS_sendto,
            channel,
            message.as_ptr(),
            size,
            libc::MSG_NOSIGNAL,
            0,
            0,
        );
    }
}

fn errno() -> c_int {
    // SAFETY: the C library's own error number of this thread.
    unsafe { *libc::__errno_location() }
}
