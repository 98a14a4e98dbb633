//! The system calls of the workloads, and what the kernel tells about memory.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    ptr,
};

use anyhow::{Context as _, Result, ensure};

use super::report::Object;

/// Bytes of a page.
pub(super) fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// `size` in whole pages.
pub(super) fn in_pages(size: usize) -> usize {
    size.next_multiple_of(page_bytes())
}

/// What a call returned, as a count of bytes.
pub(super) fn bytes(returned: isize) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// What a call returned, where 0 is success.
pub(super) fn done(returned: i32) -> io::Result<()> {
    match returned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Opens the file that a descriptor leads to once more, with an offset of its own.
pub(super) fn reopen(descriptor: RawFd, write: bool, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags)
        .open(format!("/proc/self/fd/{descriptor}"))
}

/// Memory that is mapped until this is dropped.
pub(super) struct Mapping {
    address: *mut u8,
    length: usize,
}

impl Mapping {
    /// `mmap` of a file, or of anonymous memory, for loads and stores.
    pub(super) fn new(file: Option<&File>, length: usize, flags: i32) -> io::Result<Self> {
        let (descriptor, more) = match file {
            Some(file) => (file.as_raw_fd(), 0),
            None => (-1, libc::MAP_ANONYMOUS),
        };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                protection,
                flags | more,
                descriptor,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            address: address.cast(),
            length,
        })
    }

    /// Anonymous memory with all of its pages.
    pub(super) fn buffer(length: usize) -> io::Result<Self> {
        Self::new(None, length, libc::MAP_PRIVATE | libc::MAP_POPULATE)
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The address of a byte.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.length);
        self.address.wrapping_add(offset)
    }

    /// One load.
    pub(super) fn load(&self, offset: usize) -> u8 {
        // SAFETY: inside the mapping; volatile, so that it is made, and now.
        unsafe { self.at(offset).read_volatile() }
    }

    /// One store.
    pub(super) fn store(&self, offset: usize, byte: u8) {
        // SAFETY: as for a load; nobody has a reference to a part of the mapping at this time.
        unsafe { self.at(offset).write_volatile(byte) };
    }

    /// All of it, at a time when no other process stores there.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for as long as this lives, and by the caller's word constant meanwhile.
        unsafe { std::slice::from_raw_parts(self.address, self.length) }
    }

    /// All of it, to be stored to.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; borrowed mutably, so that this process has no other reference to it.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.length) }
    }

    pub(super) fn advise(&self, advice: i32) -> io::Result<()> {
        // SAFETY: our own mapping; the advices in use here change no data.
        done(unsafe { libc::madvise(self.address.cast(), in_pages(self.length), advice) })
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        // SAFETY: our own mapping.
        done(unsafe { libc::msync(self.address.cast(), self.length, libc::MS_SYNC) })
    }

    pub(super) fn lock(&self) -> io::Result<()> {
        // SAFETY: our own mapping.
        done(unsafe { libc::mlock(self.address.cast(), self.length) })
    }

    /// Bytes of it that are in the page cache, whoever brought them there, in whole pages.
    pub(super) fn cached_bytes(&self) -> io::Result<u64> {
        Ok((self.cached_pages()?.len() * page_bytes()) as u64)
    }

    /// Where in it the pages begin that are in the page cache.
    pub(super) fn cached_pages(&self) -> io::Result<Vec<usize>> {
        let mut pages = vec![0_u8; self.length.div_ceil(page_bytes())];
        // SAFETY: the vector has a byte for each page of the mapping.
        done(unsafe { libc::mincore(self.address.cast(), self.length, pages.as_mut_ptr()) })?;
        let cached = pages.iter().enumerate().filter(|(_, page)| **page & 1 != 0);
        Ok(cached.map(|(index, _)| index * page_bytes()).collect())
    }

    /// Puts anonymous memory in the place of the page with this byte: what was mapped there is not
    /// stored to, whatever is stored there now.
    pub(super) fn replace_page(&self, offset: usize) -> io::Result<()> {
        let page = self.at(offset - offset % page_bytes());
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a page of our own mapping, to which nobody has a reference at this time.
        let address = unsafe { libc::mmap(page.cast(), page_bytes(), protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The file or the shared memory that the kernel has here, by /proc/self/maps.
    pub(super) fn object(&self) -> Result<Object> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let start = format!("{:x}-", self.address.addr());
        let parse = |line: &str| {
            let mut words = line.split_ascii_whitespace().skip(3);
            let (major, minor) = words.next()?.split_once(':')?;
            Some(Object {
                major: u32::from_str_radix(major, 16).ok()?,
                minor: u32::from_str_radix(minor, 16).ok()?,
                inode: words.next()?.parse().ok()?,
            })
        };
        let line = maps.lines().find(|line| line.starts_with(&start));
        line.and_then(parse)
            .context("the mapping is not in /proc/self/maps")
    }

    /// A field of this mapping in /proc/self/smaps, such as `Swap`, in bytes.
    pub(super) fn in_smaps(&self, field: &str) -> Result<u64> {
        in_smaps("self", self.address.addr(), field)
    }

    /// The pages as /proc/self/pagemap has them.
    pub(super) fn pages(&self) -> Result<Vec<Page>> {
        let first = self.address.addr() / page_bytes();
        let mut entries = vec![0_u8; self.length.div_ceil(page_bytes()) * 8];
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, first as u64 * 8)?;
        let (entries, _) = entries.as_chunks::<8>();
        Ok(entries
            .iter()
            .map(|entry| Page(u64::from_ne_bytes(*entry)))
            .collect())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, to which no reference outlives this.
        unsafe { libc::munmap(self.address.cast(), self.length) };
    }
}

/// A page's entry in /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Page(pub(super) u64);

impl Page {
    /// The number of the physical page; `None` when there is none, or it is not told.
    pub(super) fn frame(self) -> Option<u64> {
        const PRESENT: u64 = 1 << 63;
        let frame = self.0 & ((1 << 55) - 1);
        (self.0 & PRESENT != 0 && frame != 0).then_some(frame)
    }

    /// Whether it is there and the program's own: no page of a file, nor of shared memory.
    pub(super) fn is_own(self) -> bool {
        const PRESENT_OR_SWAPPED: u64 = 3 << 62;
        const FILE_OR_SHARED: u64 = 1 << 61;
        self.0 & PRESENT_OR_SWAPPED != 0 && self.0 & FILE_OR_SHARED == 0
    }
}

/// A field of the mapping of a process that starts at `address`, in /proc/PID/smaps, in bytes.
pub(super) fn in_smaps(process: &str, address: usize, field: &str) -> Result<u64> {
    let path = format!("/proc/{process}/smaps");
    let smaps = fs::read_to_string(&path).with_context(|| path.clone())?;
    let start = format!("{address:x}-");
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
    let kib = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = kib.and_then(|kib| kib.trim().strip_suffix(" kB"));
    let kib = kib.with_context(|| format!("{path} does not tell {field}"))?;
    Ok(kib.parse::<u64>()? << 10)
}

/// How the kernel numbers an open file.
pub(super) fn object_of(file: &File) -> io::Result<Object> {
    let status = file.metadata()?;
    Ok(Object {
        inode: status.ino(),
        major: libc::major(status.dev()),
        minor: libc::minor(status.dev()),
    })
}

/// Bytes that this process has dirtied of files on disks, less those that were never written since
/// the file was cut off: `write_bytes` of /proc/self/io.
pub(super) fn dirtied_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io").context("/proc/self/io")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("/proc/self/io has no write_bytes")?.parse()?)
}

/// Bytes that the device below a file has written since the start of the system, for anybody.
pub(super) fn device_written_bytes(object: Object) -> Result<u64> {
    const SECTOR_BYTES: u64 = 512;
    const SECTORS_WRITTEN: usize = 6;
    let Object { major, minor, .. } = object;
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("no block device of its own is below the file: {path}"))?;
    let sectors = text.split_ascii_whitespace().nth(SECTORS_WRITTEN);
    let sectors: u64 = sectors
        .with_context(|| format!("{path} is short"))?
        .parse()?;
    Ok(sectors * SECTOR_BYTES)
}

/// Bytes of swap space on this machine.
pub(super) fn swap_space_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("SwapFree:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib
        .context("/proc/meminfo has no SwapFree")?
        .parse::<u64>()?
        << 10)
}

/// Has the kernel end this process when the one that started it, `parent`, ends.
pub(super) fn die_with(parent: libc::pid_t) -> Result<()> {
    // SAFETY: no memory is passed.
    unsafe {
        done(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)).context("PR_SET_PDEATHSIG")?;
        // It may have ended before.
        ensure!(
            libc::getppid() == parent,
            "the process that started this one has ended"
        );
    }
    Ok(())
}
