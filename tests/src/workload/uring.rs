//! io_uring, by its system calls.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, bail, ensure};

use super::{Arguments, sys};
use crate::{files, truth::Truth};

// include/uapi/linux/io_uring.h
const SETUP_SQPOLL: u32 = 1 << 1;
const ENTER_GETEVENTS: u32 = 1;
const ENTER_SQ_WAKEUP: u32 = 1 << 1;
const SQ_NEED_WAKEUP: u32 = 1;
const REGISTER_BUFFERS: u32 = 0;
const REGISTER_FILES: u32 = 2;
const SQES_OFFSET: i64 = 0x1000_0000;
const FIXED_FILE: u8 = 1;
const ASYNC: u8 = 1 << 4;
const READV: u8 = 1;
const WRITEV: u8 = 2;
const FSYNC: u8 = 3;
const READ_FIXED: u8 = 4;
const WRITE_FIXED: u8 = 5;
const SENDMSG: u8 = 9;
const RECVMSG: u8 = 10;
const READ: u8 = 22;
const WRITE: u8 = 23;
const FADVISE: u8 = 24;
const MADVISE: u8 = 25;
const SEND: u8 = 26;
const RECV: u8 = 27;
const SPLICE: u8 = 30;
const TEE: u8 = 33;

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Default)]
struct Parameters {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    sq: Offsets,
    cq: Offsets,
}

/// `struct io_sqring_offsets`, and `io_cqring_offsets`: head, tail, mask, entries are alike.
#[repr(C)]
#[derive(Default)]
struct Offsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    /// SQ: the flags. CQ: the overflow.
    fifth: u32,
    /// SQ: what was dropped. CQ: the completions.
    sixth: u32,
    /// SQ: the array of indices.
    seventh: u32,
    reserved: u32,
    address: u64,
}

/// `struct io_uring_sqe`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Submission {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    size: u32,
    operation_flags: u32,
    user_data: u64,
    buffer_index: u16,
    personality: u16,
    splice_fd: i32,
    reserved: [u64; 2],
}

/// `struct io_uring_cqe`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// A ring.
struct Ring {
    fd: OwnedFd,
    rings: *mut u8,
    submissions: *mut Submission,
    parameters: Parameters,
}

impl Ring {
    fn new(entries: u32, flags: u32) -> anyhow::Result<Self> {
        let mut parameters = Parameters {
            flags,
            sq_thread_idle: 1000,
            ..Parameters::default()
        };
        // SAFETY: the parameters are ours to be read and written.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &raw mut parameters) };
        let fd = RawFd::try_from(fd)?;
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("io_uring_setup");
        }
        // SAFETY: the descriptor was just made and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // One mapping has both rings (IORING_FEAT_SINGLE_MMAP, 5.4 on).
        ensure!(parameters.features & 1 != 0, "two mappings");
        let of_sq = parameters.sq.seventh + 4 * parameters.sq_entries;
        let of_cq = parameters.cq.sixth + 16 * parameters.cq_entries;
        let rings = map(&fd, of_sq.max(of_cq) as usize, 0)?;
        let submissions = map(&fd, 64 * parameters.sq_entries as usize, SQES_OFFSET)?.cast();
        Ok(Self {
            fd,
            rings,
            submissions,
            parameters,
        })
    }

    /// A number in the rings that the kernel shares.
    fn shared(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel says that there is an aligned number, and the mapping is never undone.
        unsafe { &*self.rings.add(offset as usize).cast() }
    }

    fn register(&self, what: u32, argument: *const libc::c_void) -> anyhow::Result<()> {
        // SAFETY: the callers' arrays have one entry.
        let done = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.fd.as_raw_fd(),
                what,
                argument,
                1,
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error()).context("io_uring_register");
        }
        Ok(())
    }

    /// Submits these and waits until as many are complete: their results, by `user_data`.
    fn run(&self, submissions: &[Submission]) -> anyhow::Result<Vec<(u64, i32)>> {
        let sq = &self.parameters.sq;
        let mask = self.shared(sq.mask).load(Ordering::Relaxed);
        let tail = self.shared(sq.tail).load(Ordering::Relaxed);
        for (index, submission) in (0_u32..).zip(submissions) {
            let at = tail.wrapping_add(index) & mask;
            // SAFETY: below the number of entries; the kernel does not look yet.
            unsafe { self.submissions.add(at as usize).write(*submission) };
            self.shared(sq.seventh + 4 * at)
                .store(at, Ordering::Relaxed);
        }
        let count = u32::try_from(submissions.len())?;
        self.shared(sq.tail)
            .store(tail.wrapping_add(count), Ordering::SeqCst);
        let polled = self.parameters.flags & SETUP_SQPOLL != 0;
        let mut flags = ENTER_GETEVENTS;
        if polled && self.shared(sq.fifth).load(Ordering::SeqCst) & SQ_NEED_WAKEUP != 0 {
            flags |= ENTER_SQ_WAKEUP;
        }
        let mut results = Vec::new();
        let mut to_submit = if polled { 0 } else { count };
        while results.len() < submissions.len() {
            let missing = submissions.len() - results.len();
            // SAFETY: no memory is passed.
            let entered = unsafe {
                libc::syscall(
                    libc::SYS_io_uring_enter,
                    self.fd.as_raw_fd(),
                    to_submit,
                    missing,
                    flags,
                    ptr::null::<u8>(),
                    0,
                )
            };
            if entered < 0 {
                return Err(io::Error::last_os_error()).context("io_uring_enter");
            }
            if !polled {
                to_submit -= u32::try_from(entered)?;
            }
            self.reap(&mut results);
        }
        Ok(results)
    }

    fn reap(&self, results: &mut Vec<(u64, i32)>) {
        let cq = &self.parameters.cq;
        let mask = self.shared(cq.mask).load(Ordering::Relaxed);
        let mut head = self.shared(cq.head).load(Ordering::Relaxed);
        while head != self.shared(cq.tail).load(Ordering::Acquire) {
            let at = cq.sixth as usize + 16 * (head & mask) as usize;
            // SAFETY: a completion that the kernel has written, before it moved the tail.
            let completion = unsafe { self.rings.add(at).cast::<Completion>().read() };
            results.push((completion.user_data, completion.result));
            head = head.wrapping_add(1);
        }
        self.shared(cq.head).store(head, Ordering::Release);
    }
}

/// A mapping of a ring's, for as long as the program runs.
fn map(ring: &OwnedFd, size: usize, offset: i64) -> io::Result<*mut u8> {
    // SAFETY: the kernel chooses the address, so nothing mapped is replaced.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            ring.as_raw_fd(),
            offset,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(address.cast())
}

/// Whether the kernel lets this process have a ring.
pub(crate) fn can_be_had() -> anyhow::Result<()> {
    Ring::new(1, 0).map(drop)
}

/// Requests submitted together.
const DEPTH: usize = 5;

/// What a request does: its opcode, its flags, and where it is in whole or in parts.
struct Kind {
    opcode: u8,
    flags: u8,
    open: i32,
    ring: u32,
}

fn kind(how: &str) -> anyhow::Result<Kind> {
    let (opcode, flags, open, ring) = match how {
        "read" => (READ, 0, libc::O_RDONLY, 0),
        "readv" => (READV, 0, libc::O_RDONLY, 0),
        "fixed" => (READ_FIXED, FIXED_FILE, libc::O_RDONLY, 0),
        "async" => (READ, ASYNC, libc::O_RDONLY, 0),
        "sqpoll" => (READ, 0, libc::O_RDONLY, SETUP_SQPOLL),
        "direct" => (READ, 0, libc::O_RDONLY | libc::O_DIRECT, 0),
        "direct-async" => (READ, ASYNC, libc::O_RDONLY | libc::O_DIRECT, 0),
        "write" => (WRITE, 0, libc::O_WRONLY | libc::O_CREAT, 0),
        "writev" => (WRITEV, 0, libc::O_WRONLY | libc::O_CREAT, 0),
        "write-fixed" => (WRITE_FIXED, FIXED_FILE, libc::O_WRONLY | libc::O_CREAT, 0),
        _ => bail!("io_uring cannot {how:?} here"),
    };
    Ok(Kind {
        opcode,
        flags,
        open,
        ring,
    })
}

/// Reads or writes `BYTES` of each file, `SIZE` at a time, of the files in turn, `DEPTH` requests
/// together. The truth counts the requests.
pub(super) fn uring(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let how = arguments.text()?;
    let kind = kind(&how)?;
    let mut files = vec![sys::open(&arguments.path()?, kind.open)?];
    let size = arguments.number()?;
    let total = arguments.number()?;
    while let Ok(path) = arguments.path() {
        files.push(sys::open(&path, kind.open)?);
    }
    let stride = size.next_multiple_of(4096);
    let buffer = sys::Mapping::new(
        None,
        DEPTH * stride,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    )?;
    // btrfs reads through the page cache, and again, into a buffer that is not there (6.18 on).
    buffer.fill();
    let ring = Ring::new(8, kind.ring)?;
    if kind.flags & FIXED_FILE != 0 {
        let vector = libc::iovec {
            iov_base: buffer.address().cast(),
            iov_len: DEPTH * stride,
        };
        ring.register(REGISTER_BUFFERS, (&raw const vector).cast())?;
        ensure!(files.len() == 1, "one file is registered");
        let fd = files[0].as_raw_fd();
        ring.register(REGISTER_FILES, (&raw const fd).cast())?;
    }
    let writes = kind.open & libc::O_ACCMODE != libc::O_RDONLY;
    let direct = kind.open & libc::O_DIRECT != 0;
    // What is still to be moved: of which file, offset and size.
    let mut parts: Vec<(&OwnedFd, usize, usize)> = (0..total.div_ceil(size))
        .flat_map(|index| files.iter().map(move |file| (file, index * size)))
        .map(|(file, offset)| {
            // An unaligned end is read by asking for more than there is.
            let asked = if direct {
                size
            } else {
                size.min(total - offset)
            };
            (file, offset, asked)
        })
        .collect();
    parts.reverse();
    let mut truth = Truth::default();
    while !parts.is_empty() {
        let batch: Vec<_> = parts.split_off(parts.len().saturating_sub(DEPTH));
        let mut vectors = [[libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        }; 3]; DEPTH];
        let mut submissions = Vec::new();
        for (slot, &(file, offset, asked)) in batch.iter().rev().enumerate() {
            // SAFETY: the slot's part of the buffer, which nothing else refers to.
            let part = unsafe {
                std::slice::from_raw_parts_mut(buffer.address().add(slot * stride), asked)
            };
            let mut submission = Submission {
                opcode: kind.opcode,
                flags: kind.flags,
                fd: if kind.flags & FIXED_FILE != 0 {
                    0
                } else {
                    file.as_raw_fd()
                },
                offset: offset as u64,
                address: part.as_mut_ptr() as u64,
                size: u32::try_from(asked)?,
                user_data: slot as u64,
                ..Submission::default()
            };
            if kind.opcode == READV || kind.opcode == WRITEV {
                vectors[slot] = sys::three_parts(part);
                submission.address = vectors[slot].as_ptr() as u64;
                submission.size = 3;
            }
            submissions.push(submission);
        }
        for (slot, result) in ring.run(&submissions)? {
            let (file, offset, asked) = batch[batch.len() - 1 - usize::try_from(slot)?];
            let Ok(moved) = usize::try_from(result) else {
                bail!("{}", io::Error::from_raw_os_error(-result));
            };
            truth.add(asked, moved as u64);
            // A kernel may move less than it could.
            if moved < asked && offset + moved < total {
                ensure!(!writes && moved > 0, "{moved} bytes of {asked} were moved");
                parts.push((file, offset + moved, asked - moved));
            }
        }
    }
    Ok(truth)
}

/// Sends itself `CALLS` messages of `SIZE` bytes through a pair of sockets, each in one buffer or,
/// with a header, in three. The truth counts both sides.
pub(super) fn talk(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let how = arguments.text()?;
    let size = arguments.number()?;
    let calls = arguments.number()?;
    let (receiver, sender) = sys::socket_pair()?;
    let ring = Ring::new(8, 0)?;
    let mut out = vec![7_u8; size];
    let mut into = vec![0_u8; size];
    let mut truth = Truth::default();
    let opcodes = match how.as_str() {
        "send" => [SEND, RECV],
        "message" => [SENDMSG, RECVMSG],
        _ => bail!("{how:?} is not send or message"),
    };
    for _ in 0..calls {
        let sides = [(&sender, &mut out), (&receiver, &mut into)];
        for (opcode, (fd, buffer)) in opcodes.into_iter().zip(sides) {
            let mut parts = sys::three_parts(buffer);
            let mut header = sys::message_header(&mut parts);
            let (address, length) = if how == "send" {
                (buffer.as_mut_ptr().cast(), u32::try_from(size)?)
            } else {
                ((&raw mut header).cast::<libc::c_void>(), 1)
            };
            let submission = Submission {
                opcode,
                fd: fd.as_raw_fd(),
                address: address as u64,
                size: length,
                ..Submission::default()
            };
            let results = ring.run(&[submission])?;
            truth.add(size, u64::try_from(results[0].1)?);
        }
    }
    Ok(truth)
}

/// Duplicates `SIZE` bytes, which no pipe is too small for, from one pipe into another, `CALLS`
/// times. The truth counts these requests.
pub(super) fn tee(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let size = arguments.number()?;
    let calls = arguments.number()?;
    let (from_out, from_in) = sys::pipe()?;
    let (to_out, to_in) = sys::pipe()?;
    let ring = Ring::new(8, 0)?;
    let mut buffer = vec![7; size];
    let mut truth = Truth::default();
    for _ in 0..calls {
        let written = sys::write(from_in.as_raw_fd(), &buffer)?;
        ensure!(written == size as u64, "a pipe took {written} bytes");
        let submission = Submission {
            opcode: TEE,
            fd: to_in.as_raw_fd(),
            size: u32::try_from(size)?,
            splice_fd: from_out.as_raw_fd(),
            ..Submission::default()
        };
        truth.add(size, u64::try_from(ring.run(&[submission])?[0].1)?);
        for pipe in [&from_out, &to_out] {
            let read = sys::read(pipe.as_raw_fd(), &mut buffer)?;
            ensure!(read == size as u64, "a pipe gave {read} bytes");
        }
    }
    Ok(truth)
}

/// Writes a byte to `FILE` and has it brought to the disk, `CALLS` times. The truth counts the
/// requests that do that.
pub(super) fn sync(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let file = sys::open(&arguments.path()?, libc::O_WRONLY | libc::O_CREAT)?;
    let calls = arguments.number()?;
    let ring = Ring::new(8, 0)?;
    let mut truth = Truth::default();
    for _ in 0..calls {
        sys::write(file.as_raw_fd(), b"x")?;
        let submission = Submission {
            opcode: FSYNC,
            fd: file.as_raw_fd(),
            ..Submission::default()
        };
        ensure!(ring.run(&[submission])?[0].1 == 0, "fsync failed");
        truth.add(0, 0);
    }
    Ok(truth)
}

/// Has a file read ahead, by its descriptor or by a mapping of it, waits until it is in the page
/// cache, and splices all of it into a pipe and out again. The truth counts the requests that splice
/// out of the file.
pub(super) fn advise(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    const PART_BYTES: usize = 60_013;
    let how = arguments.text()?;
    let path = arguments.path()?;
    let size = usize::try_from(path.metadata()?.len())?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    let ring = Ring::new(8, 0)?;
    let mapping = sys::Mapping::new(Some(&file), size, libc::PROT_READ, libc::MAP_SHARED)?;
    let advice = match how.as_str() {
        "fadvise" => Submission {
            opcode: FADVISE,
            fd: file.as_raw_fd(),
            size: u32::try_from(size)?,
            operation_flags: libc::POSIX_FADV_WILLNEED.cast_unsigned(),
            ..Submission::default()
        },
        "madvise" => Submission {
            opcode: MADVISE,
            fd: -1,
            address: mapping.address() as u64,
            size: u32::try_from(size)?,
            operation_flags: libc::MADV_WILLNEED.cast_unsigned(),
            ..Submission::default()
        },
        _ => bail!("{how:?} is not fadvise or madvise"),
    };
    ensure!(ring.run(&[advice])?[0].1 == 0, "the advice is refused");
    while files::cached_bytes(&path)? < (size as u64).next_multiple_of(4096) {
        std::thread::yield_now();
    }
    let (pipe_out, pipe_in) = sys::pipe()?;
    let mut buffer = vec![0; PART_BYTES];
    let mut truth = Truth::default();
    while truth.returned_bytes < size as u64 {
        let splice = Submission {
            opcode: SPLICE,
            fd: pipe_in.as_raw_fd(),
            // Where in the pipe: nowhere in particular.
            offset: u64::MAX,
            address: truth.returned_bytes,
            size: u32::try_from(PART_BYTES)?,
            splice_fd: file.as_raw_fd(),
            ..Submission::default()
        };
        let moved = u64::try_from(ring.run(&[splice])?[0].1)?;
        truth.add(PART_BYTES, moved);
        let mut left = usize::try_from(moved)?;
        while left > 0 {
            left -= usize::try_from(sys::read(pipe_out.as_raw_fd(), &mut buffer[..left])?)?;
        }
    }
    Ok(truth)
}
