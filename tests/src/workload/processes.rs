//! Processes and threads that read, begin and end in every way.

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    os::fd::AsRawFd as _,
    path::Path,
    ptr, thread,
};

use anyhow::{bail, ensure};

use super::{Arguments, command_of, reads::read_file, sys};
use crate::truth::{End, Truth};

/// Children that live at the same time.
const AT_ONCE: usize = 25;

/// Forks children that each read once, `SIZE` bytes at an offset of its own.
pub(super) fn fork_readers(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let children = arguments.number()?;
    let size = arguments.number()?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    let mut buffer = vec![0; size];
    let mut truth = Truth::default();
    for first in (0..children).step_by(AT_ONCE) {
        let mut alive = Vec::new();
        for child in first..children.min(first + AT_ONCE) {
            // SAFETY: this program has one thread so far.
            match unsafe { sys::fork()? } {
                Some(pid) => alive.push(pid),
                None => {
                    let read = sys::pread(file.as_raw_fd(), &mut buffer, child as u64);
                    sys::exit_now(i32::from(!read.is_ok_and(|n| n == size as u64)));
                }
            }
        }
        for pid in alive {
            ensure!(sys::wait(pid)? == 0, "a child read less than all");
            truth.add(size, size as u64);
        }
    }
    Ok(truth)
}

/// Threads that each read a part of the file that no other reads, `SIZE` bytes a call.
pub(super) fn threads(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let threads = arguments.number()?;
    let size = arguments.number()?;
    let part = path.metadata()?.len().div_ceil(threads as u64);
    let file = sys::open(&path, libc::O_RDONLY)?;
    let fd = file.as_raw_fd();
    let parts: Vec<anyhow::Result<Truth>> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads as u64)
            .map(|index| {
                scope.spawn(move || {
                    let mut buffer = vec![0; size];
                    let mut truth = Truth::default();
                    let (mut offset, end) = (index * part, (index + 1) * part);
                    while offset < end {
                        let asked = size.min(usize::try_from(end - offset)?);
                        let returned = sys::pread(fd, &mut buffer[..asked], offset)?;
                        truth.add(asked, returned);
                        offset += returned;
                        if returned == 0 {
                            break;
                        }
                    }
                    Ok(truth)
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect()
    });
    let mut truth = Truth::default();
    for part in parts {
        let part = part?;
        truth.calls += part.calls;
        truth.requested_bytes += part.requested_bytes;
        truth.returned_bytes += part.returned_bytes;
    }
    Ok(truth)
}

/// Reads `CALLS` times, prints the truth, and kills itself.
pub(super) fn killed(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let size = arguments.number()?;
    let calls = arguments.number()?;
    let truth = read_file(&path, "read", size, calls)?;
    println!("{}", serde_json::to_string(&truth)?);
    std::io::stdout().flush()?;
    sys::signal_self(libc::SIGKILL)?;
    bail!("SIGKILL did not end the process")
}

/// Reads once and becomes itself anew, `LINKS` times. The truth counts all of them.
pub(super) fn exec_chain(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let size = arguments.number()?;
    let links = arguments.number()?;
    let done = arguments.optional_number()?.unwrap_or(0);
    read_file(&path, "read", size, 1)?;
    if done < links {
        let [size, links, done] = [size, links, done + 1].map(|n| OsString::from(n.to_string()));
        let arguments = [path.as_os_str(), &size, &links, &done];
        return Err(sys::exec_self(&command_of("exec-chain", &arguments)));
    }
    let mut truth = Truth::default();
    (0..=links).for_each(|_| truth.add(size, size as u64));
    Ok(truth)
}

/// Starts a child by `posix_spawn`, which shares this process's memory up to its exec (as vfork
/// does); both read all of the file.
pub(super) fn spawn(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let size = arguments.number()?;
    let mut truth = read_file(&path, "read", size, usize::MAX)?;
    let number = OsString::from(size.to_string());
    let child = posix_spawn(&command_of(
        "read",
        &[path.as_os_str(), OsStr::new("read"), &number],
    ))?;
    ensure!(
        End::from_wait_status(sys::wait(child)?) == End::Exit(0),
        "the child failed"
    );
    // The child did the same.
    truth.calls *= 2;
    truth.requested_bytes *= 2;
    truth.returned_bytes *= 2;
    Ok(truth)
}

/// Starts this program with its output thrown away: the child's pid.
fn posix_spawn(arguments: &[&OsStr]) -> anyhow::Result<i32> {
    let strings = std::iter::once(OsStr::new("mmtrace-tests"))
        .chain(arguments.iter().copied())
        .map(sys::c_string)
        .collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<_> = strings
        .iter()
        .map(|text| text.as_ptr().cast_mut())
        .collect();
    pointers.push(ptr::null_mut());
    let mut environment = [ptr::null_mut()];
    let mut child = 0;
    // SAFETY: the actions are initialized before use and destroyed once; the arrays end with null
    // pointers; all strings outlive the call, which does not keep them.
    let error = unsafe {
        let mut actions = std::mem::zeroed();
        libc::posix_spawn_file_actions_init(&mut actions);
        libc::posix_spawn_file_actions_addopen(
            &mut actions,
            libc::STDOUT_FILENO,
            c"/dev/null".as_ptr(),
            libc::O_WRONLY,
            0,
        );
        let error = libc::posix_spawn(
            &mut child,
            c"/proc/self/exe".as_ptr(),
            &actions,
            ptr::null(),
            pointers.as_mut_ptr(),
            environment.as_mut_ptr(),
        );
        libc::posix_spawn_file_actions_destroy(&mut actions);
        error
    };
    match error {
        0 => Ok(child),
        error => Err(std::io::Error::from_raw_os_error(error).into()),
    }
}

/// The main thread reads all of the file, then a second one does, and makes the process a `read` of
/// that file: the thread that lives on is not the one that was the leader. The truth, printed
/// by the last, is a third of the whole.
pub(super) fn thread_exec(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let size = arguments.number()?;
    read_file(&path, "read", size, usize::MAX)?;
    let failed = thread::scope(|scope| {
        scope
            .spawn(|| {
                if let Err(error) = read_file(&path, "read", size, usize::MAX) {
                    return error;
                }
                let number = OsString::from(size.to_string());
                sys::exec_self(&command_of(
                    "read",
                    &[path.as_os_str(), OsStr::new("read"), &number],
                ))
            })
            .join()
    });
    Err(failed.unwrap_or_else(|_| anyhow::anyhow!("the thread panicked")))
}

/// Leaves a child behind that reads all of the file once this process, its parent, has ended. The
/// truth is the child's.
pub(super) fn orphan(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let size = arguments.number()?;
    let (parent_ended, parent_lives) = sys::pipe()?;
    let mut truth = Truth::default();
    let length = usize::try_from(path.metadata()?.len())?;
    for _ in 0..=length.div_ceil(size) {
        truth.add(size, 0);
    }
    truth.returned_bytes = length as u64;
    // SAFETY: this program has one thread so far.
    if unsafe { sys::fork()? }.is_none() {
        drop(parent_lives);
        // Returns 0 when the parent's end of the pipe is closed by its end.
        let read = sys::read(parent_ended.as_raw_fd(), &mut [0])
            .map_err(anyhow::Error::from)
            .and_then(|_| read_to_end(&path, size));
        sys::exit_now(i32::from(read.is_err()));
    }
    // Closed by the process's end, not before.
    std::mem::forget(parent_lives);
    Ok(truth)
}

fn read_to_end(path: &Path, size: usize) -> anyhow::Result<Truth> {
    read_file(path, "read", size, usize::MAX)
}
