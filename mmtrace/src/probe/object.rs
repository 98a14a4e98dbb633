//! The object that holds the kernel programs and their maps.

use std::thread;

use anyhow::{Result, anyhow};
use aya::{Ebpf, EbpfLoader, maps::Array};
use mmtrace_common::{CallSpec, kernel::RDONLY_CAST};

use super::calls;
use crate::kernel::btf::Btf;

/// The kernel programs, compiled by the build script.
pub(super) static PROGRAMS: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mmtrace-programs"));

/// A loader that has not read the kernel's types.
///
/// `EbpfLoader::new` reads all of them, for relocations that these programs do not have: 100 ms, for
/// which the target would wait. It does without if it does not find them, so it is made by a thread
/// that sees no files. Should the thread not get there, it reads them, and all is well but slower.
pub(super) fn quick_loader() -> Result<EbpfLoader<'static>> {
    let made = thread::spawn(|| {
        // SAFETY: two system calls on a constant string; CLONE_FS makes the root directory this
        // thread's own, which ends when it has made the loader.
        unsafe {
            if libc::unshare(libc::CLONE_FS) == 0 {
                libc::chroot(c"/proc/self/fdinfo".as_ptr());
            }
        }
        EbpfLoader::new()
    });
    made.join()
        .map_err(|_| anyhow!("making the loader of the kernel programs panicked"))
}

/// The programs with their calls of `bpf_rdonly_cast` made to the running kernel's, if it has that
/// (6.2 on): aya has no way to say that a program calls a function of the kernel.
pub(super) fn with_kernel_calls(btf: &Btf) -> Vec<u8> {
    /// `struct bpf_insn` of a call: the code, and in its second byte what is called.
    const CALL: u8 = 0x85;
    const PSEUDO_KFUNC_CALL: u8 = 2 << 4;
    let instruction = |called: u8, number: i32| {
        let [a, b, c, d] = number.to_ne_bytes();
        [CALL, called, 0, 0, a, b, c, d]
    };
    let mut programs = PROGRAMS.to_vec();
    let Some(function) = btf.function_id("bpf_rdonly_cast") else {
        return programs;
    };
    let placeholder = instruction(0, RDONLY_CAST);
    let call = instruction(PSEUDO_KFUNC_CALL, function.cast_signed());
    // An object's sections of instructions begin at a multiple of 8.
    let (words, _) = programs.as_chunks_mut::<8>();
    for word in words.iter_mut().filter(|word| **word == placeholder) {
        *word = call;
    }
    programs
}

/// Tells the programs what each system call is.
///
/// # Errors
///
/// If they have no such map.
pub(super) fn fill_calls(ebpf: &mut Ebpf) -> Result<()> {
    let mut map: Array<_, CallSpec> = ebpf
        .map_mut("CALLS")
        .ok_or_else(|| anyhow!("the kernel programs have no map CALLS"))?
        .try_into()?;
    for (number, spec) in calls::table() {
        map.set(u32::try_from(number)?, spec, 0)?;
    }
    Ok(())
}
