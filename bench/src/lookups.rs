//! A program that does little but have the kernel copy: it looks up all elements of a BPF array in one
//! call, which copies the key and the value of each by itself.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::libc::{SYS_bpf, c_long, syscall};
use nix::time::{ClockId, clock_gettime};

/// How often to look them up.
#[derive(Args)]
pub(crate) struct Options {
    /// How often all elements are looked up.
    #[arg(long)]
    passes: u32,
}

/// How many elements there are.
const ELEMENTS: u32 = 65_536;

const BPF_MAP_CREATE: c_long = 0;
const BPF_MAP_LOOKUP_BATCH: c_long = 24;
const BPF_MAP_TYPE_ARRAY: u32 = 2;

/// `union bpf_attr` of `BPF_MAP_CREATE` (include/uapi/linux/bpf.h), as far as it is used.
#[repr(C)]
struct Creation {
    map_type: u32,
    key_bytes: u32,
    value_bytes: u32,
    elements: u32,
}

/// The same of `BPF_MAP_LOOKUP_BATCH` (5.6 on).
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Looks them up, and prints the processor time of each element in ns.
pub(crate) fn run(options: &Options) -> Result<()> {
    let map = create()?;
    let mut keys = vec![0u32; ELEMENTS as usize];
    let mut values = vec![0u32; ELEMENTS as usize];
    let start = processor_time_ns()?;
    for _ in 0..options.passes {
        look_up(&map, &mut keys, &mut values)?;
    }
    let time_ns = processor_time_ns()? - start;
    let elements = f64::from(options.passes) * f64::from(ELEMENTS);
    println!("{}", time_ns as f64 / elements);
    Ok(())
}

fn create() -> Result<OwnedFd> {
    let mut creation = Creation {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_bytes: 4,
        value_bytes: 4,
        elements: ELEMENTS,
    };
    // SAFETY: a structure of the call's, and its size.
    let map = unsafe {
        syscall(
            SYS_bpf,
            BPF_MAP_CREATE,
            &raw mut creation,
            size_of::<Creation>(),
        )
    };
    ensure!(
        map >= 0,
        "cannot create a map: {}",
        io::Error::last_os_error()
    );
    // SAFETY: a new descriptor that is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(map)?) })
}

fn look_up(map: &OwnedFd, keys: &mut [u32], values: &mut [u32]) -> Result<()> {
    let mut next = 0u32;
    let mut batch = Batch {
        in_batch: 0,
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: ELEMENTS,
        map: u32::try_from(map.as_raw_fd())?,
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: as above; there is room for as many keys and values as it says.
    unsafe {
        syscall(
            SYS_bpf,
            BPF_MAP_LOOKUP_BATCH,
            &raw mut batch,
            size_of::<Batch>(),
        )
    };
    // Having looked up the last one, it fails with ENOENT: there is no next.
    ensure!(
        batch.count == ELEMENTS,
        "looked up {} elements of {ELEMENTS}: {}",
        batch.count,
        io::Error::last_os_error()
    );
    Ok(())
}

fn processor_time_ns() -> Result<i64> {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).context("cannot ask the time")?;
    Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}
