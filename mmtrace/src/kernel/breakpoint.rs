//! Hardware breakpoints on the kernel's own instructions.

use std::{io, os::fd::RawFd};

use anyhow::Error;
use perf_event::{Builder, Counter, events::Breakpoint};

/// Whom a breakpoint watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The calling thread.
    ThisThread,
    /// Whatever runs on a CPU.
    Cpu(u32),
}

/// Puts a program at an address of the kernel.
///
/// # Errors
///
/// The kernel's: see [`why`].
pub fn open(address: u64, scope: Scope, program: RawFd) -> io::Result<Counter> {
    let mut counter = builder(address, scope).build()?;
    counter.set_bpf(program)?;
    counter.enable()?;
    Ok(counter)
}

/// Tries whether the kernel takes breakpoints on its own instructions, at an address where there
/// is none.
///
/// # Errors
///
/// The kernel's: see [`why`].
pub fn allowed() -> io::Result<()> {
    /// In the page of error pointers, where nothing ever is.
    const NOWHERE: u64 = u64::MAX - 0xfff;
    builder(NOWHERE, Scope::ThisThread).build().map(drop)
}

fn builder(address: u64, scope: Scope) -> Builder<'static> {
    let mut builder = Builder::new(Breakpoint::execute(address));
    builder.include_kernel().sample_period(1);
    match scope {
        Scope::ThisThread => builder.observe_self(),
        Scope::Cpu(cpu) => builder.any_pid().one_cpu(cpu as usize),
    };
    builder
}

/// What the kernel means by refusing a breakpoint on its own instructions.
#[must_use]
pub fn why(error: io::Error) -> Error {
    let reason = match error.raw_os_error() {
        // arch_build_bp_info in arch/x86/kernel/hw_breakpoint.c: without kprobes, no place is known
        // to be safe.
        Some(libc::EINVAL) => {
            "this kernel takes no breakpoints on its own code: it was built without kprobes \
             (CONFIG_KPROBES)"
        }
        // hw_breakpoint_parse in kernel/events/hw_breakpoint.c.
        Some(libc::EPERM | libc::EACCES) => "breakpoints on the kernel's code need CAP_SYS_ADMIN",
        Some(libc::ENOSPC) => {
            "too few of the CPU's debug registers are free: a debugger or perf has taken them"
        }
        Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP) => {
            "this kernel has no hardware breakpoints (CONFIG_HAVE_HW_BREAKPOINT)"
        }
        _ => "the kernel refuses a breakpoint on its own code",
    };
    Error::new(error).context(reason)
}
