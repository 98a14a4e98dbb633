//! Reading the kernel's structures, at the offsets that user space found in its BTF.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
use mmtrace_common::{Kernel, kernel::RDONLY_CAST};

/// Filled in by user space before the programs are loaded; constant from then on.
#[unsafe(no_mangle)]
static KERNEL: Kernel = Kernel::DEFAULT;

/// One of [`KERNEL`]'s fields, as it was set (the compiler must not use the default).
macro_rules! kernel {
    ($field:ident) => {
        // SAFETY: reads a field of a static; volatile because user space writes it before loading.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::settings().$field) }
    };
}
pub(crate) use kernel;

#[inline(always)]
pub(crate) fn settings() -> &'static Kernel {
    &KERNEL
}

/// The value at an address of the current process's memory; zero if it is not there. No branch on
/// failure, as in [`read`].
#[inline(always)]
pub(crate) fn read_user<T: Plain>(address: u64) -> T {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes as many bytes as T has, zeros if the address is not mapped; any
    // bytes are a value of a Plain type.
    unsafe {
        bpf_probe_read_user(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const _,
        );
        value.assume_init()
    }
}

/// The pointer to a kernel structure that is at an address: the verifier lets programs read through
/// it, which takes no call of a helper. `of` is the structure's type in the kernel's BTF.
///
/// For programs that are loaded only where the kernel has `bpf_rdonly_cast` (6.2 on), to which user
/// space makes this call before it loads them.
#[inline(always)]
pub(crate) fn known_as(address: u64, of: u32) -> *const u8 {
    let pointer: u64;
    // SAFETY: bpf_rdonly_cast(address, type) gives its argument; what calls clobber is told.
    unsafe {
        core::arch::asm!(
            "call {call}",
            call = const RDONLY_CAST,
            inlateout("r1") address => _,
            inlateout("r2") u64::from(of) => _,
            lateout("r0") pointer,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
            options(nostack, pure, nomem),
        );
    }
    pointer as *const u8
}

/// Whether this kernel has the field whose offset is given.
#[inline(always)]
pub(crate) fn has(offset: u32) -> bool {
    offset != Kernel::ABSENT
}

/// Integers, for which zeros are a value.
pub(crate) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl<const N: usize> Plain for [u64; N] {}
impl<const N: usize> Plain for [u8; N] {}

/// The value at `base + offset`; zero if it cannot be read, or if this kernel has no such field.
///
/// No branch on failure: the helper itself fills with zeros what it cannot read (5.5 on), and each
/// branch would double what the verifier has to go through.
#[inline(always)]
pub(crate) fn read<T: Plain>(base: u64, offset: u32) -> T {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    if !has(offset) {
        value = core::mem::MaybeUninit::zeroed();
    } else {
        // SAFETY: the helper writes as many bytes as T has, and checks the kernel's address.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                (base + u64::from(offset)) as *const _,
            )
        };
    }
    // SAFETY: zeroed, or written by the helper; any bytes are a value of a Plain type.
    unsafe { value.assume_init() }
}

/// The pointer at `base + offset`, 0 if it cannot be read.
#[inline(always)]
pub(crate) fn pointer(base: u64, offset: u32) -> u64 {
    read(base, offset)
}
