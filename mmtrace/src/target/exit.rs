//! How a target ended, and ending alike.

use std::fmt;
use std::mem;
use std::process;
use std::ptr;

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// By exiting with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// From the status of `wait4`.
    pub(super) fn from_wait_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }

    /// Ends this process in the same way: a signal ends it too, without a core dump of its own.
    pub fn imitate(self) -> ! {
        let signal = match self {
            Self::Code(code) => process::exit(code),
            Self::Signal(signal) => signal,
        };
        // SAFETY: whole, valid arguments throughout. Failures need no check: if the signal does
        // not end the process, the shell's number for it does.
        unsafe {
            let none = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            // A core_pattern that is a pipe does not heed the limit.
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(signal, &raw const action, ptr::null_mut());
            let mut only: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut only);
            libc::sigaddset(&raw mut only, signal);
            libc::raise(signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, ptr::null_mut());
        }
        process::exit(128 + signal)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(known) => write!(f, "killed by {known}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_are_told_apart() {
        assert_eq!(Exit::from_wait_status(3 << 8), Exit::Code(3));
        assert_eq!(
            Exit::from_wait_status(libc::SIGTERM),
            Exit::Signal(libc::SIGTERM)
        );
        assert_eq!(
            Exit::from_wait_status(libc::SIGSEGV | 0x80),
            Exit::Signal(libc::SIGSEGV)
        );
        assert_eq!(Exit::Signal(libc::SIGKILL).to_string(), "killed by SIGKILL");
        assert_eq!(Exit::Signal(40).to_string(), "killed by signal 40");
    }
}
