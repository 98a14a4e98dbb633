//! Signals that reach mmtrace while the target runs: which go on to the target.
//!
//! A signal that a process sends to the whole process group, by `kill -TERM -PGID`, reaches the
//! target twice: by itself and from mmtrace, which cannot tell it from one sent to mmtrace alone.

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::ptr;

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;

/// Signals that a fault in mmtrace itself raises: blocking them would only hide it.
const OWN_FAULTS: [i32; 7] = [
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGTRAP,
];

/// What mmtrace's caller had set, for the target.
pub(super) struct Mask {
    pub(super) original: libc::sigset_t,
    pub(super) sigchld_ignored: bool,
}

/// The signals sent to mmtrace, blocked and read from a descriptor.
///
/// From [`Signals::block`] on no signal but SIGKILL, SIGSTOP and mmtrace's own faults ends or stops
/// mmtrace, so the target decides what ^C means and the report is always written.
pub struct Signals {
    pub(super) mask: Mask,
    descriptor: AsyncFd<SignalFd>,
}

impl Signals {
    /// Blocks the signals. Call it before mmtrace has a second thread, inside the async runtime.
    ///
    /// # Errors
    /// When the kernel refuses the descriptor.
    pub fn block() -> io::Result<Self> {
        // SAFETY: whole, valid arguments; the set is filled before it is used.
        let mask = unsafe {
            let mut blocked: libc::sigset_t = mem::zeroed();
            libc::sigfillset(&raw mut blocked);
            for signal in OWN_FAULTS {
                libc::sigdelset(&raw mut blocked, signal);
            }
            let mut original: libc::sigset_t = mem::zeroed();
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const blocked, &raw mut original);
            // A caller may have had it ignored; then the kernel would reap the target by itself.
            let mut default: libc::sigaction = mem::zeroed();
            default.sa_sigaction = libc::SIG_DFL;
            let mut before: libc::sigaction = mem::zeroed();
            libc::sigaction(libc::SIGCHLD, &raw const default, &raw mut before);
            Mask {
                original,
                sigchld_ignored: before.sa_sigaction == libc::SIG_IGN,
            }
        };
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let descriptor = SignalFd::with_flags(&SigSet::all(), flags)?;
        // SAFETY: the descriptor owns itself and stays the same one until the watch is dropped.
        let descriptor = unsafe { AsyncFd::register(descriptor)? };
        Ok(Self { mask, descriptor })
    }

    /// The next signal.
    pub(super) async fn next(&self) -> io::Result<libc::signalfd_siginfo> {
        loop {
            let mut ready = self.descriptor.readable().await?;
            match self.descriptor.get_ref().read_signal()? {
                Some(signal) => return Ok(signal),
                None => ready.clear_ready(),
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.descriptor.get_ref().as_fd()
    }
}

/// What a signal to mmtrace means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Meaning {
    /// A child stopped, went on or ended.
    Child,
    /// mmtrace went on after a stop, or was told to while it ran.
    Continue,
    /// For the target.
    Forward(i32),
    /// The target got it by itself, or it is not for the target.
    Nothing,
}

/// Decides by the signal and its sender.
///
/// The terminal's signals reach the target's process group, which is mmtrace's own, without help;
/// `session_leader` says that mmtrace is one, which alone is told when the terminal hangs up.
pub(super) fn meaning(
    info: &libc::signalfd_siginfo,
    target: libc::pid_t,
    session_leader: bool,
) -> Meaning {
    let signal = info.ssi_signo.cast_signed();
    let sent_by_process = info.ssi_code <= 0;
    match signal {
        libc::SIGCHLD if !sent_by_process => Meaning::Child,
        // A program that signals its parent does not mean itself.
        _ if sent_by_process && info.ssi_pid == target.cast_unsigned() => Meaning::Nothing,
        libc::SIGCONT if sent_by_process || session_leader => Meaning::Continue,
        _ if sent_by_process => Meaning::Forward(signal),
        libc::SIGHUP if session_leader => Meaning::Forward(signal),
        // A timer set before mmtrace was executed.
        libc::SIGALRM | libc::SIGVTALRM | libc::SIGPROF => Meaning::Forward(signal),
        _ => Meaning::Nothing,
    }
}

/// Whether mmtrace was sent `signal` and has not read it yet.
pub(super) fn is_pending(signal: i32) -> bool {
    // SAFETY: the set lives on the stack for the time of the calls.
    unsafe {
        let mut pending: libc::sigset_t = mem::zeroed();
        libc::sigpending(&raw mut pending) == 0
            && libc::sigismember(&raw const pending, signal) == 1
    }
}

/// Stops mmtrace as the target was stopped, so that the shell takes its terminal back.
///
/// `signal` stopped the target. A SIGSTOP is answered by SIGTSTP, which the kernel ignores where no
/// shell is left that could continue mmtrace. Returns once mmtrace goes on.
pub(super) fn stop_self(signal: i32) {
    let signal = match signal {
        libc::SIGTTIN | libc::SIGTTOU => signal,
        _ => libc::SIGTSTP,
    };
    // SAFETY: whole, valid arguments; the stop happens in the call that unblocks.
    unsafe {
        let mut only: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut only);
        libc::sigaddset(&raw mut only, signal);
        libc::raise(signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, ptr::null_mut());
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const only, ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: i32 = 77;

    fn meaning_of(signal: i32, code: i32, sender: u32, session_leader: bool) -> Meaning {
        // SAFETY: a plain struct of integers.
        let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        info.ssi_signo = signal.cast_unsigned();
        info.ssi_code = code;
        info.ssi_pid = sender;
        meaning(&info, TARGET, session_leader)
    }

    #[test]
    fn sent_signals_go_on_and_the_terminals_do_not() {
        for signal in [
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGUSR1,
            libc::SIGTSTP,
            40,
        ] {
            assert_eq!(
                meaning_of(signal, libc::SI_USER, 5, false),
                Meaning::Forward(signal)
            );
            assert_eq!(
                meaning_of(signal, libc::SI_QUEUE, 5, false),
                Meaning::Forward(signal)
            );
            assert_eq!(
                meaning_of(signal, libc::SI_KERNEL, 0, false),
                Meaning::Nothing
            );
        }
        assert_eq!(
            meaning_of(libc::SIGWINCH, libc::SI_KERNEL, 0, false),
            Meaning::Nothing
        );
    }

    #[test]
    fn what_the_target_cannot_have_got_goes_on() {
        assert_eq!(
            meaning_of(libc::SIGHUP, libc::SI_KERNEL, 0, true),
            Meaning::Forward(libc::SIGHUP)
        );
        assert_eq!(
            meaning_of(libc::SIGALRM, libc::SI_KERNEL, 0, false),
            Meaning::Forward(libc::SIGALRM)
        );
    }

    #[test]
    fn the_targets_own_signals_do_not_come_back_to_it() {
        assert_eq!(
            meaning_of(libc::SIGTERM, libc::SI_USER, 77, false),
            Meaning::Nothing
        );
        assert_eq!(
            meaning_of(libc::SIGCHLD, libc::SI_USER, 5, false),
            Meaning::Forward(libc::SIGCHLD)
        );
        assert_eq!(meaning_of(libc::SIGCHLD, 5, 77, false), Meaning::Child);
    }
}
