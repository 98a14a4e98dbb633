//! Work from places in the code that have names.

use std::{
    fs,
    hint::black_box,
    os::fd::{AsRawFd as _, RawFd},
};

use super::{Arguments, sys};
use crate::truth::Truth;

/// Bytes that a call of each site reads. The largest share is neither the most frequent one's nor
/// the rarest one's.
pub(crate) const SITES: [(&str, usize); 3] = [
    ("site_small", 1_009),
    ("site_large", 4_001),
    ("site_middle", 2_003),
];

/// Reads some bytes of a file's beginning into a buffer: how many were read.
pub(super) type Read<'code> = &'code dyn Fn(RawFd, &mut [u8]) -> u64;

/// Makes calls that read the file's beginning from three places.
pub(super) fn sites(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    read_from(arguments, [&site_small, &site_large, &site_middle])
}

/// The same, when the program's file is deleted.
pub(super) fn gone(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    fs::remove_file(std::env::current_exe()?)?;
    sites(arguments)
}

/// The same, when another file has the name of the program's.
pub(super) fn replaced(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let program = std::env::current_exe()?;
    let new = program.with_extension("new");
    fs::write(&new, "no program")?;
    fs::rename(&new, &program)?;
    sites(arguments)
}

/// Makes calls that read the file's beginning, from these places in an order without a pattern.
pub(super) fn read_from(
    arguments: &mut Arguments,
    sites: [Read<'_>; SITES.len()],
) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let calls = arguments.number()?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    let fd = file.as_raw_fd();
    let mut buffer = [0; 4_096];
    let mut truth = Truth::default();
    let mut state: u32 = 1;
    for _ in 0..calls {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        // Of ten calls five are small, three large.
        let site = match (state >> 16) % 10 {
            0..5 => 0,
            5..8 => 1,
            _ => 2,
        };
        let (_, bytes) = SITES[site];
        let returned = sites[site](fd, &mut buffer[..bytes]);
        truth.add(bytes, returned);
        truth.site_bytes[site] += returned;
    }
    Ok(truth)
}

/// Reads the file's beginning from a place whose caller is far up the stack: a few times, since not each
/// call has a stack taken.
pub(super) fn far(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    const CALLS: usize = 101;
    let path = arguments.path()?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    let mut truth = Truth::default();
    for _ in 0..CALLS {
        truth.add(FAR_READ_BYTES, far_caller(file.as_raw_fd()));
    }
    Ok(truth)
}

/// Reads a little from one place many times, and a few times much from another.
pub(super) fn rare(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    const CALLS: usize = 40_009;
    const LARGE_EACH: usize = 3_001;
    const LITTLE_BYTES: usize = 13;
    let path = arguments.path()?;
    let mut buffer = vec![0; arguments.number()?];
    let file = sys::open(&path, libc::O_RDONLY)?;
    let fd = file.as_raw_fd();
    let mut truth = Truth::default();
    let mut add = |site: usize, bytes, returned| {
        truth.add(bytes, returned);
        truth.site_bytes[site] += returned;
    };
    for call in 0..CALLS {
        add(0, LITTLE_BYTES, site_small(fd, &mut buffer[..LITTLE_BYTES]));
        if call % LARGE_EACH == 0 {
            add(1, buffer.len(), site_large(fd, &mut buffer));
        }
    }
    Ok(truth)
}

/// Bytes that a call of [`far`] reads.
const FAR_READ_BYTES: usize = 3_001;

#[inline(never)]
fn far_caller(fd: RawFd) -> u64 {
    let returned = beneath_much(fd);
    // Not the last thing that is done.
    black_box(returned)
}

/// Between its caller and its callees are 20,011 bytes.
#[inline(never)]
fn beneath_much(fd: RawFd) -> u64 {
    let mut much = [0; 20_011];
    site_small(fd, &mut black_box(&mut much)[..FAR_READ_BYTES])
}

/// The C library's own function, so that it returns to the site and not to something between.
#[inline(always)]
fn pread(fd: RawFd, buffer: &mut [u8]) -> u64 {
    // SAFETY: writes into the buffer at most.
    let returned = unsafe { libc::pread64(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    // Not the last thing that is done, or else it is no call but a jump.
    u64::try_from(black_box(returned)).unwrap_or(0)
}

macro_rules! site {
    ($name:ident) => {
        #[inline(never)]
        fn $name(fd: RawFd, buffer: &mut [u8]) -> u64 {
            let returned = pread(fd, buffer);
            // So that no two sites are one function.
            black_box(stringify!($name));
            returned
        }
    };
}

site!(site_small);
site!(site_large);
site!(site_middle);
