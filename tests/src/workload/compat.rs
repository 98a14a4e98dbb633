//! Calls of a 64-bit program through the 32-bit interface.

use std::os::fd::AsRawFd as _;

use anyhow::ensure;

use super::{Arguments, sys};
use crate::truth::Truth;

/// Makes `CALLS` calls by `int 0x80`, of each of three numbers that mean something else in the
/// 64-bit interface, and between them reads of the file. The truth is about the reads.
pub(super) fn compat(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let calls = arguments.number()?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    let mut truth = Truth::default();
    let mut buffer = [0; 1_511];
    for _ in 0..calls {
        made::getpid()?;
        truth.add(buffer.len(), sys::read(file.as_raw_fd(), &mut buffer)?);
        made::empty_read(file.as_raw_fd())?;
        made::yield_now()?;
    }
    ensure!(truth.returned_bytes > 0, "the file is empty");
    Ok(truth)
}

#[cfg(target_arch = "x86_64")]
mod made {
    use std::{arch::asm, os::fd::RawFd};

    use anyhow::ensure;

    // arch/x86/entry/syscalls/syscall_32.tbl. To the 64-bit interface these are close, writev and
    // getgroups... whatever their arguments hold.
    const READ: u32 = 3;
    const GETPID: u32 = 20;
    const SCHED_YIELD: u32 = 158;

    /// A call with three arguments, the second of which is null.
    fn call(number: u32, first: u32, third: u32) -> i32 {
        let result: u64;
        // SAFETY: the calls made here take no memory. Older kernels do not keep r8 to r11; rbx,
        // which the compiler keeps for itself, is put back.
        unsafe {
            asm!(
                "xchg {first:r}, rbx",
                "int 0x80",
                "xchg {first:r}, rbx",
                first = inout(reg) u64::from(first) => _,
                inlateout("rax") u64::from(number) => result,
                in("rcx") 0_u64,
                in("rdx") u64::from(third),
                lateout("r8") _,
                lateout("r9") _,
                lateout("r10") _,
                lateout("r11") _,
            );
        }
        result as i32
    }

    pub(super) fn getpid() -> anyhow::Result<()> {
        ensure!(call(GETPID, 0, 0) == std::process::id().cast_signed());
        Ok(())
    }

    pub(super) fn empty_read(fd: RawFd) -> anyhow::Result<()> {
        ensure!(call(READ, fd.cast_unsigned(), 0) == 0);
        Ok(())
    }

    pub(super) fn yield_now() -> anyhow::Result<()> {
        ensure!(call(SCHED_YIELD, 0, 0) == 0);
        Ok(())
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod made {
    use std::os::fd::RawFd;

    use anyhow::bail;

    pub(super) fn getpid() -> anyhow::Result<()> {
        bail!("only x86-64 has an interface of another width in the same program")
    }

    pub(super) fn empty_read(_: RawFd) -> anyhow::Result<()> {
        getpid()
    }

    pub(super) fn yield_now() -> anyhow::Result<()> {
        getpid()
    }
}
