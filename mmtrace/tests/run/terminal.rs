//! A terminal to run mmtrace on.

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::ptr;

/// Starts `command` on a new terminal, as its session's leader; returns the terminal's other side.
///
/// `stdout` None is the terminal too.
pub(crate) fn start(mut command: Command, stdout: Option<Stdio>) -> (Child, File) {
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: both descriptors are written by the call and owned from here on.
    let (master, slave) = unsafe {
        let (name, settings, size) = (ptr::null_mut(), ptr::null(), ptr::null());
        assert_eq!(
            libc::openpty(&raw mut master, &raw mut slave, name, settings, size),
            0
        );
        libc::fcntl(master, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(slave, libc::F_SETFD, libc::FD_CLOEXEC);
        (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    };
    command.stdin(slave.try_clone().unwrap());
    command.stdout(stdout.unwrap_or_else(|| slave.try_clone().unwrap().into()));
    command.stderr(slave);
    // SAFETY: two system calls.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        })
    };
    (command.spawn().unwrap(), master)
}
