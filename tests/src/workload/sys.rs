//! The system calls that workloads make: one wrapper, one call, its return value as it is.

use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use anyhow::Context as _;

use crate::truth::Faults;

/// What a call returned, as a count of bytes.
pub(crate) fn bytes(returned: isize) -> io::Result<u64> {
    u64::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// What a call returned, where 0 is success.
fn done(returned: i32) -> io::Result<()> {
    match returned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A C string of `text`.
///
/// # Errors
/// When it contains a zero byte.
pub(crate) fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// `open(path, flags | O_CLOEXEC, 0o644)`.
pub(crate) fn open(path: &Path, flags: i32) -> anyhow::Result<OwnedFd> {
    let name = c_string(path.as_os_str())?;
    // SAFETY: the name is a C string that outlives the call.
    let fd = unsafe { libc::open(name.as_ptr(), flags | libc::O_CLOEXEC, 0o644) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("opening {path:?}"));
    }
    // SAFETY: the descriptor was just opened and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Leaves a descriptor open for the program that is executed next.
pub(crate) fn keep_over_exec(file: &OwnedFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) })
}

/// `read` to `address`, which need not be valid: the kernel checks it.
pub(crate) fn read_to(fd: RawFd, address: *mut u8, size: usize) -> io::Result<u64> {
    // SAFETY: callers pass a buffer of theirs of that size, or one that the kernel refuses.
    bytes(unsafe { libc::read(fd, address.cast(), size) })
}

/// `read`.
pub(crate) fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<u64> {
    read_to(fd, buffer.as_mut_ptr(), buffer.len())
}

/// `pread`.
pub(crate) fn pread(fd: RawFd, buffer: &mut [u8], offset: u64) -> io::Result<u64> {
    // SAFETY: the buffer is ours, and its length is given.
    bytes(unsafe {
        libc::pread64(
            fd,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            offset.cast_signed(),
        )
    })
}

/// Three parts of a buffer, of unequal size, as `readv` takes them.
pub(crate) fn three_parts(buffer: &mut [u8]) -> [libc::iovec; 3] {
    let (first, rest) = buffer.split_at_mut(buffer.len() / 7);
    let (second, third) = rest.split_at_mut(rest.len() / 3);
    [first, second, third].map(|part| libc::iovec {
        iov_base: part.as_mut_ptr().cast(),
        iov_len: part.len(),
    })
}

/// A message header for these parts.
pub(crate) fn message_header(parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: plain data, for which zeros are a value: no address, no control data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = parts.len();
    header
}

/// `readv` in three parts.
pub(crate) fn readv(fd: RawFd, buffer: &mut [u8]) -> io::Result<u64> {
    let parts = three_parts(buffer);
    // SAFETY: the parts lie in the buffer, which outlives the call.
    bytes(unsafe { libc::readv(fd, parts.as_ptr(), 3) })
}

/// `preadv` in three parts.
pub(crate) fn preadv(fd: RawFd, buffer: &mut [u8], offset: u64) -> io::Result<u64> {
    let parts = three_parts(buffer);
    // SAFETY: the parts lie in the buffer, which outlives the call.
    bytes(unsafe { libc::preadv64(fd, parts.as_ptr(), 3, offset.cast_signed()) })
}

/// `preadv2` in three parts, without flags.
pub(crate) fn preadv2(fd: RawFd, buffer: &mut [u8], offset: u64) -> io::Result<u64> {
    let parts = three_parts(buffer);
    // SAFETY: the parts lie in the buffer, which outlives the call.
    bytes(unsafe { libc::preadv64v2(fd, parts.as_ptr(), 3, offset.cast_signed(), 0) })
}

/// `write` from `address`, which need not be valid: the kernel checks it.
pub(crate) fn write_from(fd: RawFd, address: *const u8, size: usize) -> io::Result<u64> {
    // SAFETY: the kernel only reads there, and refuses what is not mapped.
    bytes(unsafe { libc::write(fd, address.cast(), size) })
}

/// `write`.
pub(crate) fn write(fd: RawFd, buffer: &[u8]) -> io::Result<u64> {
    write_from(fd, buffer.as_ptr(), buffer.len())
}

/// `fstat` to `address`, which need not be valid: the kernel checks it.
pub(crate) fn stat_to(fd: RawFd, address: *mut u8) -> io::Result<()> {
    // SAFETY: callers pass a place that the kernel refuses.
    done(unsafe { libc::syscall(libc::SYS_fstat, fd, address) as i32 })
}

/// `pwrite`.
pub(crate) fn pwrite(fd: RawFd, buffer: &[u8], offset: u64) -> io::Result<u64> {
    // SAFETY: the buffer is ours, and its length is given.
    bytes(unsafe {
        libc::pwrite64(
            fd,
            buffer.as_ptr().cast(),
            buffer.len(),
            offset.cast_signed(),
        )
    })
}

/// `writev` in three parts.
pub(crate) fn writev(fd: RawFd, buffer: &mut [u8]) -> io::Result<u64> {
    let parts = three_parts(buffer);
    // SAFETY: the parts lie in the buffer, which outlives the call.
    bytes(unsafe { libc::writev(fd, parts.as_ptr(), 3) })
}

/// `sendfile` from the file's position.
pub(crate) fn sendfile(to: RawFd, from: RawFd, size: usize) -> io::Result<u64> {
    // SAFETY: no memory is passed.
    bytes(unsafe { libc::sendfile64(to, from, ptr::null_mut(), size) })
}

/// `splice` from position to position.
pub(crate) fn splice(from: RawFd, to: RawFd, size: usize) -> io::Result<u64> {
    // SAFETY: no memory is passed.
    bytes(unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), size, 0) })
}

/// `copy_file_range` from position to position.
pub(crate) fn copy_file_range(from: RawFd, to: RawFd, size: usize) -> io::Result<u64> {
    // SAFETY: no memory is passed.
    bytes(unsafe { libc::copy_file_range(from, ptr::null_mut(), to, ptr::null_mut(), size, 0) })
}

/// `readahead`.
pub(crate) fn readahead(fd: RawFd, offset: u64, size: usize) -> io::Result<()> {
    // SAFETY: no memory is passed.
    bytes(unsafe { libc::readahead(fd, offset.cast_signed(), size) }).map(drop)
}

/// `posix_fadvise`.
pub(crate) fn fadvise(fd: RawFd, offset: u64, size: u64, advice: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    match unsafe { libc::posix_fadvise64(fd, offset.cast_signed(), size.cast_signed(), advice) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// `pipe2(O_CLOEXEC)`: the end to read from, and the one to write to.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    done(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both were just made and are nobody else's.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// `socketpair` of unix stream sockets.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(libc::SOCK_STREAM)
}

/// `socketpair` of unix datagram sockets.
pub(crate) fn datagram_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(libc::SOCK_DGRAM)
}

fn pair(kind: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    done(unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            kind | libc::SOCK_CLOEXEC,
            0,
            ends.as_mut_ptr(),
        )
    })?;
    // SAFETY: both were just made and are nobody else's.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// `fork`: `None` in the child.
///
/// # Safety
/// The caller has one thread only, so that no lock is held by a thread that the child lacks.
pub(crate) unsafe fn fork() -> io::Result<Option<i32>> {
    // SAFETY: by this function's own condition.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        child => Ok(Some(child)),
    }
}

/// As [`fork`], and the parent stands still until the child ends or executes a program: only the child
/// writes to the memory that they share.
///
/// # Safety
/// As for [`fork`].
pub(crate) unsafe fn fork_and_stand_still() -> io::Result<Option<i32>> {
    let flags = libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: no stack and no memory is passed: the child goes on with a copy of this one's, as after
    // `fork`. By this function's own condition no other thread is missing.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        child => Ok(Some(i32::try_from(child).map_err(io::Error::other)?)),
    }
}

/// Ends the process without running anything on the way out.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: it takes no memory and does not return.
    unsafe { libc::_exit(status) }
}

/// Waits for a child's end: its wait status.
pub(crate) fn wait(child: i32) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` is ours to be written.
    match unsafe { libc::waitpid(child, &mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(status),
    }
}

/// Sends this process a signal.
pub(crate) fn signal_self(signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    done(unsafe { libc::kill(libc::getpid(), signal) })
}

/// Sends a process a signal.
pub(crate) fn signal(process: u32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    done(unsafe { libc::kill(process.cast_signed(), signal) })
}

/// `execv` of this program with `arguments` after its name; returns only when it fails.
pub(crate) fn exec_self(arguments: &[&OsStr]) -> anyhow::Error {
    let strings: io::Result<Vec<CString>> = std::iter::once(OsStr::new("mmtrace-tests"))
        .chain(arguments.iter().copied())
        .map(c_string)
        .collect();
    let strings = match strings {
        Ok(strings) => strings,
        Err(error) => return error.into(),
    };
    let mut pointers: Vec<_> = strings.iter().map(|text| text.as_ptr()).collect();
    pointers.push(ptr::null());
    // SAFETY: the array ends with a null pointer, and the strings outlive the call.
    unsafe { libc::execv(c"/proc/self/exe".as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error().into()
}

/// Processors that a thread may run on.
pub(crate) struct Cpus(libc::cpu_set_t);

impl Cpus {
    /// Lets this thread, and what it starts from now on, run on these.
    pub(crate) fn allow(&self) -> io::Result<()> {
        // SAFETY: reads the set, as large as it is.
        done(unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &self.0) })
    }
}

/// Has this thread run on one processor from now on: one of those that it may run on, which are told.
pub(crate) fn stay_on_one_cpu() -> io::Result<Cpus> {
    // SAFETY: `cpu_set_t` is plain data, for which zeros are a value; the call gets its size.
    let (allowed, one) = unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        done(libc::sched_getaffinity(
            0,
            size_of_val(&allowed),
            &mut allowed,
        ))?;
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        let cpus = libc::CPU_SETSIZE as usize;
        if let Some(cpu) = (0..cpus).find(|cpu| libc::CPU_ISSET(*cpu, &allowed)) {
            libc::CPU_SET(cpu, &mut one);
        }
        (allowed, one)
    };
    Cpus(one).allow()?;
    Ok(Cpus(allowed))
}

/// `mlockall` of what is mapped now, until all of it is in memory: the kernel passes over what it cannot
/// bring in, for want of memory say, and succeeds all the same.
pub(crate) fn lock_all() -> io::Result<()> {
    const ATTEMPTS: usize = 100;
    for _ in 0..ATTEMPTS {
        let before = thread_faults();
        // SAFETY: no memory is passed.
        done(unsafe { libc::mlockall(libc::MCL_CURRENT) })?;
        if thread_faults().since(before).sum() == 0 {
            return Ok(());
        }
    }
    Err(io::Error::other("mlockall brought pages in each time"))
}

/// The faults that the kernel has charged to this process so far.
pub(crate) fn faults() -> Faults {
    faults_of(libc::RUSAGE_SELF)
}

/// The faults that the kernel has charged to this thread so far.
pub(crate) fn thread_faults() -> Faults {
    faults_of(libc::RUSAGE_THREAD)
}

fn faults_of(who: i32) -> Faults {
    // SAFETY: `rusage` is plain data, for which zeros are a value; the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &mut usage);
        usage
    };
    Faults {
        minor: usage.ru_minflt.cast_unsigned(),
        major: usage.ru_majflt.cast_unsigned(),
    }
}

/// How long this thread has been on a processor.
pub(crate) fn processor_ns() -> u64 {
    // SAFETY: `timespec` is plain data, for which zeros are a value; the call fills it.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time);
        time
    };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// A mapping, unmapped when dropped.
pub(crate) struct Mapping {
    address: *mut u8,
    size: usize,
}

impl Mapping {
    /// `mmap` of the first `size` bytes of `file`, or of anonymous memory.
    pub(crate) fn new(
        file: Option<&OwnedFd>,
        size: usize,
        protection: i32,
        flags: i32,
    ) -> io::Result<Self> {
        let fd = file.map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: the kernel chooses the address, so nothing mapped is replaced.
        let address = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, fd, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            address: address.cast(),
            size,
        })
    }

    /// Its first address.
    pub(crate) fn address(&self) -> *mut u8 {
        self.address
    }

    /// Stores into each page, so that all of it is there.
    pub(crate) fn fill(&self) {
        let page = super::reads::page_size();
        (0..self.size)
            .step_by(page)
            .for_each(|offset| self.store(offset, 1));
    }

    /// `madvise` for all of it.
    pub(crate) fn advise(&self, advice: i32) -> io::Result<()> {
        self.advise_part(0, self.size, advice)
    }

    /// `madvise` for `size` bytes from `offset`, a multiple of the page size.
    pub(crate) fn advise_part(&self, offset: usize, size: usize, advice: i32) -> io::Result<()> {
        assert!(offset + size <= self.size);
        // SAFETY: the range is within the mapping, and no advice used here discards private data.
        done(unsafe { libc::madvise(self.address.add(offset).cast(), size, advice) })
    }

    /// `mprotect` for `size` bytes from `offset`, a multiple of the page size. No more than what is
    /// accessible of them may be loaded or stored after that.
    pub(crate) fn protect_part(
        &self,
        offset: usize,
        size: usize,
        protection: i32,
    ) -> io::Result<()> {
        assert!(offset + size <= self.size);
        // SAFETY: the range is within the mapping, which no reference points into.
        done(unsafe { libc::mprotect(self.address.add(offset).cast(), size, protection) })
    }

    /// `mlock` of all of it.
    pub(crate) fn lock(&self) -> io::Result<()> {
        // SAFETY: the range is the mapping's own.
        done(unsafe { libc::mlock(self.address.cast(), self.size) })
    }

    /// How many bytes of it /proc/self/smaps says to be so: a line's name with its colon.
    pub(crate) fn resident(&self, how: &str) -> anyhow::Result<u64> {
        let smaps = fs::read_to_string("/proc/self/smaps")?;
        let start = format!("{:x}-", self.address as usize);
        let kib = smaps
            .lines()
            .skip_while(|line| !line.starts_with(&start))
            .find_map(|line| line.strip_prefix(how))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .context("the mapping is not in /proc/self/smaps")?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }

    /// Loads the byte at `offset`, from memory.
    pub(crate) fn load(&self, offset: usize) -> u8 {
        assert!(offset < self.size);
        // SAFETY: within the mapping. Another process may change the byte or cut the file off:
        // a volatile load tolerates the first, and the second's SIGBUS is what is tested.
        unsafe { self.address.add(offset).read_volatile() }
    }

    /// Stores a byte at `offset`. The mapping must be writable.
    pub(crate) fn store(&self, offset: usize, byte: u8) {
        assert!(offset < self.size);
        // SAFETY: within the mapping, which no reference points into.
        unsafe { self.address.add(offset).write_volatile(byte) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's own, and no reference into it is given out.
        unsafe { libc::munmap(self.address.cast(), self.size) };
    }
}
