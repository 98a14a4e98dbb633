//! Work from code that is made at run time, as compilers of scripts make it.

use std::{fs, os::fd::RawFd, ptr};

use anyhow::Context as _;

use super::{
    Arguments,
    sites::{SITES, read_from},
    sys::Mapping,
};
use crate::truth::Truth;

/// A function that calls another with the arguments that it has been given, and keeps a frame
/// pointer.
#[cfg(target_arch = "x86_64")]
fn caller_of(function: usize) -> Vec<u8> {
    let mut code = vec![0x55]; // push rbp
    code.extend([0x48, 0x89, 0xe5]); // mov rbp, rsp
    code.extend([0x48, 0xb8]); // mov rax, function
    code.extend(function.to_le_bytes());
    code.extend([0xff, 0xd0]); // call rax
    code.extend([0x5d, 0xc3]); // pop rbp; ret
    code
}

/// The same.
#[cfg(target_arch = "aarch64")]
fn caller_of(function: usize) -> Vec<u8> {
    let mut code = Vec::new();
    let literal = [function as u32, (function as u64 >> 32) as u32];
    for instruction in [
        0xa9bf_7bfd, // stp x29, x30, [sp, -16]!
        0x9100_03fd, // mov x29, sp
        0x5800_0090, // ldr x16, the literal
        0xd63f_0200, // blr x16
        0xa8c1_7bfd, // ldp x29, x30, [sp], 16
        0xd65f_03c0, // ret
        literal[0],
        literal[1],
    ] {
        code.extend(u32::to_le_bytes(instruction));
    }
    code
}

/// Room for each function.
const ROOM_BYTES: usize = 64;

/// As the workload `sites`, from code without a file, whose names are told in `/tmp/perf-PID.map`.
pub(super) fn sites(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    type Pread = unsafe extern "C" fn(RawFd, *mut u8, usize, libc::off_t) -> isize;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let size = SITES.len() * ROOM_BYTES;
    let code = Mapping::new(None, size, libc::PROT_READ | libc::PROT_WRITE, anonymous)?;
    let mut map = String::new();
    let made = [0, 1, 2].map(|site: usize| {
        let function = caller_of(libc::pread64 as *const () as usize);
        let room = code.address().wrapping_add(site * ROOM_BYTES);
        // SAFETY: within the mapping, which is writable and nobody else's.
        unsafe { ptr::copy_nonoverlapping(function.as_ptr(), room, function.len()) };
        let (name, _) = SITES[site];
        map += &format!("{:x} {:x} {name}\n", room as usize, function.len());
        // SAFETY: it will be code of this kind before anybody calls it.
        let function = unsafe { std::mem::transmute::<*mut u8, Pread>(room) };
        move |fd: RawFd, buffer: &mut [u8]| {
            // SAFETY: the code hands the arguments on to `pread64`, which writes into the buffer at
            // most.
            let returned = unsafe { function(fd, buffer.as_mut_ptr(), buffer.len(), 0) };
            u64::try_from(returned).unwrap_or(0)
        }
    });
    code.protect_part(0, size, libc::PROT_READ | libc::PROT_EXEC)?;
    let path = format!("/tmp/perf-{}.map", std::process::id());
    fs::write(&path, map).with_context(|| format!("writing {path}"))?;
    let [small, large, middle] = &made;
    read_from(arguments, [small, large, middle])
}
