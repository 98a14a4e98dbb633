//! What the witness is put to at the start of a run: a read, a mapped page and a read past the page
//! cache, each with one watched byte.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
};

use anyhow::{Context as _, Result, ensure};
use memmap2::MmapOptions;
use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    resource::{UsageWho, getrusage},
    statfs::{FUSE_SUPER_MAGIC, FsType, NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, fstatfs},
};

use super::{Stores, Watch};

/// Bytes of each buffer and mapping, whole blocks for `O_DIRECT`.
const SIZE_BYTES: usize = 16 << 10;
/// The watched byte: far from the ends, which copy routines may store twice.
const WATCHED: usize = 5_003;

/// Something that is done with a watched byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// `pread` of a file in memory (tmpfs), which every kernel copies.
    ReadMemory,
    /// `pread` of mmtrace's own file.
    ReadFile,
    /// A page of mmtrace's own file, mapped and touched: its byte is watched before the fault.
    Map,
    /// `pread` of mmtrace's own file with `O_DIRECT`.
    Direct,
}

impl Trial {
    /// Each, in the order in which they are made.
    pub const ALL: [Self; 4] = [Self::ReadMemory, Self::ReadFile, Self::Map, Self::Direct];
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which.
    pub trial: Trial,
    /// What was seen, or why it could not be made.
    pub observed: Result<Observed, String>,
}

/// What was seen of the watched byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Stores to it while its value came to be there.
    pub stores: Stores,
    /// Stores to it while mmtrace then made one of its own: the proof that the watch sees.
    pub own: Stores,
    /// Faults that the kernel charged meanwhile, before mmtrace's own store.
    pub faults: u64,
    /// Why the kernel need not have copied anything, where the file system may do without.
    pub excuse: Option<String>,
}

/// Makes each trial in the calling thread, or those alone that go to no disk.
#[must_use]
pub fn run(all: bool) -> Vec<Finding> {
    let trials = Trial::ALL
        .into_iter()
        .filter(|trial| all || *trial != Trial::Direct);
    let finding = |trial| Finding {
        trial,
        observed: made(trial)
            .and_then(not_blind)
            .map_err(|error| format!("{error:#}")),
    };
    trials.map(finding).collect()
}

/// What was seen, if anything at all was: mmtrace's own store at least.
fn not_blind(observed: Observed) -> Result<Observed> {
    let seen = |stores: &Stores| !stores.seen.is_empty() || stores.lost > 0;
    ensure!(
        seen(&observed.stores) || seen(&observed.own),
        "a watchpoint can be set here, but does not fire"
    );
    Ok(observed)
}

fn made(trial: Trial) -> Result<Observed> {
    match trial {
        Trial::ReadMemory => {
            let memory = memfd_create("mmtrace-witness", MFdFlags::MFD_CLOEXEC)
                .context("no file in memory")?;
            let mut memory = File::from(memory);
            memory.write_all(&[0x5a; SIZE_BYTES])?;
            read(&memory)
        }
        Trial::ReadFile => {
            let file = own_file(0)?;
            let excuse = excuse(&file)?;
            Ok(Observed {
                excuse,
                ..read(&file)?
            })
        }
        Trial::Map => map(&own_file(0)?),
        Trial::Direct => read(&own_file(libc::O_DIRECT).context("no O_DIRECT")?),
    }
}

fn own_file(flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open("/proc/self/exe")
}

/// Memory that `O_DIRECT` takes.
#[repr(align(4096))]
struct Buffer([u8; SIZE_BYTES]);

/// Reads a file's start into a buffer with a watched byte.
fn read(file: &File) -> Result<Observed> {
    let mut buffer = Box::new(Buffer([0; SIZE_BYTES]));
    // Once without the watch, to know what will be there, and that it can be read.
    file.read_exact_at(&mut buffer.0, 0)?;
    let expected = buffer.0[WATCHED];
    buffer.0[WATCHED] = !expected;
    let mut watch = Watch::new(0, (&raw const buffer.0[WATCHED]).addr(), 1)?;
    let before = faults()?;
    file.read_exact_at(&mut buffer.0, 0)?;
    let faults = faults()? - before;
    let stores = watch.stores()?;
    ensure!(
        buffer.0[WATCHED] == expected,
        "the read did not bring the watched byte"
    );
    let watched = &raw mut buffer.0[WATCHED];
    Ok(Observed {
        stores,
        own: own_store(&mut watch, watched)?,
        faults,
        excuse: None,
    })
}

/// Touches a page of a file that is mapped afresh, with a watched byte.
fn map(file: &File) -> Result<Observed> {
    let mut expected = [0];
    file.read_exact_at(&mut expected, WATCHED as u64)?;
    // SAFETY: a private mapping of a file that nobody can cut short: a program that runs.
    let mut mapping = unsafe { MmapOptions::new().len(SIZE_BYTES).map_copy(file) }?;
    let watched = mapping.as_mut_ptr().wrapping_add(WATCHED);
    let mut watch = Watch::new(0, watched.addr(), 1)?;
    let before = faults()?;
    // SAFETY: inside the mapping, which lives on; volatile, so that it is read now.
    let there = unsafe { watched.read_volatile() };
    let faults = faults()? - before;
    let stores = watch.stores()?;
    ensure!(
        there == expected[0],
        "the mapping has another byte than the file"
    );
    ensure!(faults > 0, "the mapped page was there without a fault");
    Ok(Observed {
        stores,
        own: own_store(&mut watch, watched)?,
        faults,
        excuse: None,
    })
}

/// Stores to the watched byte: what the watch sees of that.
fn own_store(watch: &mut Watch, watched: *mut u8) -> Result<Stores> {
    // SAFETY: the caller's own memory, to which it holds no reference now; volatile, so that one
    // store is made.
    unsafe { watched.write_volatile(0xa5) };
    watch.stores()
}

/// Faults that the kernel has charged to this thread.
fn faults() -> io::Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    Ok((usage.minor_page_faults() + usage.major_page_faults()).cast_unsigned())
}

/// Why a read of this file need not be a copy by the kernel: its file system may have the data put
/// into the buffer by whoever serves it.
fn excuse(file: &File) -> io::Result<Option<String>> {
    /// Of linux/magic.h; nix has no name for it.
    const V9FS_MAGIC: FsType = FsType(0x0102_1997);
    let kind = fstatfs(file)?.filesystem_type();
    let name = [
        (V9FS_MAGIC, "9p"),
        (FUSE_SUPER_MAGIC, "FUSE"),
        (NFS_SUPER_MAGIC, "NFS"),
        (
            OVERLAYFS_SUPER_MAGIC,
            "an overlay, perhaps of a network file system",
        ),
    ]
    .into_iter()
    .find_map(|(magic, name)| (magic == kind).then_some(name));
    Ok(name.map(|name| {
        format!("mmtrace's own file lies on {name}, which may bring data without a copy")
    }))
}
