//! What the kernel refused, and why, in a form that a [remedy](super::remedy) can be looked up by.

use std::{error::Error, fmt, io};

use nix::errno::Errno;

/// What was asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Its type information.
    Types,
    /// To take the kernel programs, with their maps.
    Program,
    /// To take a trampoline program.
    Trampoline,
    /// A function of this name.
    Function,
    /// A function or tracepoint with the arguments that a program understands.
    Arguments,
    /// A kprobe or kretprobe.
    Kprobe,
    /// A tracepoint.
    RawTracepoint,
    /// A tracepoint's event.
    Event,
    /// A software event on every CPU.
    SoftwareEvent,
    /// Any hook of a backend for a purpose.
    AnyHook,
    /// A breakpoint on the kernel's own code.
    ExecutionBreakpoint,
    /// A watchpoint on memory of this process, for the kernel's accesses too.
    DataWatchpoint,
    /// To be sampled by time, in the kernel too.
    CpuClock,
    /// Where its functions are.
    Addresses,
    /// tracefs.
    Tracefs,
    /// Its lockdown mode.
    Lockdown,
    /// The figures of the calibration.
    Calibration,
}

/// How it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// By this error.
    Errno(i32),
    /// It does not have it.
    Absent,
    /// It has it otherwise.
    Different,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked for.
    pub asked: Asked,
    /// How it was refused.
    pub cause: Cause,
    /// The same in words; one line.
    pub reason: String,
}

impl Refusal {
    /// A refusal without an error.
    pub fn new(asked: Asked, cause: Cause, reason: impl Into<String>) -> Self {
        Self {
            asked,
            cause,
            reason: reason.into(),
        }
    }

    /// What this error says; the reason begins with `what`. Of a refusal among its causes, its
    /// cause.
    pub fn of(asked: Asked, what: &str, error: &anyhow::Error) -> Self {
        let mut causes = error.chain();
        if let Some(known) = causes.find_map(|cause| cause.downcast_ref::<Self>()) {
            return known.clone().within(what);
        }
        let errno = error.chain().find_map(|cause| {
            let error = cause.downcast_ref::<io::Error>()?;
            error.raw_os_error()
        });
        let reason = match errno {
            Some(errno) => in_words(errno),
            None => format!("{error:#}"),
        };
        Self {
            asked,
            cause: errno.map_or(Cause::Absent, Cause::Errno),
            reason: format!("{what}: {reason}"),
        }
    }

    /// What a system call's error says.
    pub fn of_call(asked: Asked, what: &str, error: &io::Error) -> Self {
        let reason = error
            .raw_os_error()
            .map_or_else(|| error.to_string(), in_words);
        Self {
            asked,
            cause: error.raw_os_error().map_or(Cause::Absent, Cause::Errno),
            reason: format!("{what}: {reason}"),
        }
    }

    /// The error's name, such as `EPERM`.
    #[must_use]
    pub fn errno_name(&self) -> Option<String> {
        match self.cause {
            Cause::Errno(errno) => Some(name(errno)),
            Cause::Absent | Cause::Different => None,
        }
    }

    /// The same refusal of something that needed it.
    #[must_use]
    pub fn within(self, what: &str) -> Self {
        Self {
            reason: format!("{what}: {}", self.reason),
            ..self
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl Error for Refusal {}

/// An error of the kernel's own, which its headers for programs do not have.
const ENOTSUPP: i32 = 524;

/// An error's name.
fn name(errno: i32) -> String {
    match (Errno::from_raw(errno), errno) {
        (Errno::UnknownErrno, ENOTSUPP) => "ENOTSUPP".to_owned(),
        (Errno::UnknownErrno, _) => format!("error {errno}"),
        (known, _) => format!("{known:?}"),
    }
}

/// An error's name with what it stands for.
#[must_use]
pub fn in_words(errno: i32) -> String {
    let meaning = match (Errno::from_raw(errno), errno) {
        (Errno::UnknownErrno, ENOTSUPP) => "not supported",
        (known, _) => known.desc(),
    };
    let mut meaning = meaning.to_owned();
    if let Some(first) = meaning.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    format!("{meaning} ({})", name(errno))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_error_is_found_below_added_context() {
        let error = Err::<(), _>(io::Error::from_raw_os_error(libc::EPERM))
            .context("loading")
            .unwrap_err();
        let refusal = Refusal::of(Asked::Program, "a program", &error);
        assert_eq!(refusal.cause, Cause::Errno(libc::EPERM));
        assert_eq!(refusal.reason, "a program: operation not permitted (EPERM)");
        assert_eq!(refusal.errno_name().as_deref(), Some("EPERM"));
    }

    #[test]
    fn errors_have_names() {
        assert_eq!(in_words(libc::EBUSY), "device or resource busy (EBUSY)");
        assert_eq!(in_words(524), "not supported (ENOTSUPP)");
        assert_eq!(name(100_000), "error 100000");
    }
}
