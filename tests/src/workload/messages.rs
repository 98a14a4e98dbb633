//! Messages: of sockets, by one call or many at a time, and of queues.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use anyhow::{bail, ensure};

use super::{Arguments, sys};
use crate::truth::Truth;

/// Sends messages to itself and receives them: `CALLS` times, by the calls that `HOW` says. The
/// truth counts both sides.
pub(super) fn messages(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let how = arguments.text()?;
    let size = arguments.number()?;
    let calls = arguments.number()?;
    let mut truth = Truth::default();
    match how.as_str() {
        "msg" | "mmsg" => {
            let (receiver, sender) = sys::datagram_pair()?;
            let (receiver, sender) = (receiver.as_raw_fd(), sender.as_raw_fd());
            for _ in 0..calls {
                if how == "msg" {
                    one(&mut truth, sender, receiver, size)?;
                } else {
                    many(&mut truth, sender, receiver, size)?;
                }
            }
        }
        "posix" => {
            let queue = PosixQueue::new(size)?;
            let mut buffer = vec![0; size];
            for _ in 0..calls {
                let part = size - 3;
                queue.send(&buffer[..part])?;
                truth.add(part, part as u64);
                truth.add(size, queue.receive(&mut buffer)?);
            }
        }
        "sysv" => {
            let queue = SystemQueue::new()?;
            // The message's type comes first.
            let mut buffer = vec![1; size + 8];
            for _ in 0..calls {
                let part = size - 3;
                queue.send(&buffer, part)?;
                truth.add(part, part as u64);
                truth.add(size, queue.receive(&mut buffer, size)?);
            }
        }
        _ => bail!("{how:?} is not msg, mmsg, posix or sysv"),
    }
    Ok(truth)
}

/// One message, sent in three parts, received into a buffer that is larger.
fn one(truth: &mut Truth, sender: RawFd, receiver: RawFd, size: usize) -> anyhow::Result<()> {
    let mut out = vec![7; size];
    let mut parts = sys::three_parts(&mut out);
    let message = sys::message_header(&mut parts);
    // SAFETY: the header leads to parts of `out`, which outlives the call.
    truth.add(
        size,
        sys::bytes(unsafe { libc::sendmsg(sender, &message, 0) })?,
    );
    let room = size + 11;
    let mut into = vec![0; room];
    let mut parts = sys::three_parts(&mut into);
    let mut message = sys::message_header(&mut parts);
    // SAFETY: as above, of `into`.
    let received = sys::bytes(unsafe { libc::recvmsg(receiver, &mut message, 0) })?;
    ensure!(received == size as u64, "the message was cut");
    truth.add(room, received);
    Ok(())
}

/// Three messages of unequal size by one call each way, with room for five.
fn many(truth: &mut Truth, sender: RawFd, receiver: RawFd, size: usize) -> anyhow::Result<()> {
    let sizes = [size, size / 2, size / 5];
    let mut outs = sizes.map(|size| vec![7; size]);
    let mut parts: Vec<_> = outs.iter_mut().map(|out| sys::three_parts(out)).collect();
    let mut messages: Vec<_> = parts
        .iter_mut()
        .map(|parts| libc::mmsghdr {
            msg_hdr: sys::message_header(parts),
            msg_len: 0,
        })
        .collect();
    // SAFETY: each header leads to parts of a buffer that outlives the call.
    let sent = unsafe { libc::sendmmsg(sender, messages.as_mut_ptr(), 3, 0) };
    ensure!(sent == 3, "{sent} sent: {}", io::Error::last_os_error());
    let sum: usize = sizes.iter().sum();
    truth.add(sum, sum as u64);

    let mut intos = [(); 5].map(|()| vec![0; size]);
    let mut parts: Vec<_> = intos
        .iter_mut()
        .map(|into| sys::three_parts(into))
        .collect();
    let mut messages: Vec<_> = parts
        .iter_mut()
        .map(|parts| libc::mmsghdr {
            msg_hdr: sys::message_header(parts),
            msg_len: 0,
        })
        .collect();
    // SAFETY: as above. It takes what there is, and does not wait for more.
    let received = unsafe {
        libc::recvmmsg(
            receiver,
            messages.as_mut_ptr(),
            5,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    ensure!(received == 3, "{received} received");
    let moved: u64 = messages[..3].iter().map(|m| u64::from(m.msg_len)).sum();
    ensure!(moved == sum as u64, "a message was cut");
    truth.add(5 * size, moved);
    Ok(())
}

/// A POSIX message queue without a name.
struct PosixQueue(OwnedFd);

impl PosixQueue {
    fn new(size: usize) -> anyhow::Result<Self> {
        let name = sys::c_string(format!("/mmtrace-tests-{}", std::process::id()).as_ref())?;
        // SAFETY: plain data, for which zeros are a value.
        let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
        attributes.mq_maxmsg = 3;
        attributes.mq_msgsize = i64::try_from(size)?;
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        // SAFETY: name and attributes outlive the call, which takes them for O_CREAT.
        let queue = unsafe { libc::mq_open(name.as_ptr(), flags, 0o600, &attributes) };
        ensure!(queue >= 0, "mq_open: {}", io::Error::last_os_error());
        // SAFETY: a queue is a descriptor on Linux; it was just opened and is nobody else's.
        let queue = unsafe { OwnedFd::from_raw_fd(queue) };
        // SAFETY: the name is a C string.
        unsafe { libc::mq_unlink(name.as_ptr()) };
        Ok(Self(queue))
    }

    fn send(&self, message: &[u8]) -> anyhow::Result<()> {
        // SAFETY: the buffer is ours, and its length is given.
        let sent = unsafe {
            libc::mq_send(
                self.0.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
            )
        };
        ensure!(sent == 0, "mq_send: {}", io::Error::last_os_error());
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<u64> {
        // SAFETY: as above.
        sys::bytes(unsafe {
            libc::mq_receive(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                ptr::null_mut(),
            )
        })
    }
}

/// A System V message queue, removed when dropped.
struct SystemQueue(i32);

impl SystemQueue {
    fn new() -> anyhow::Result<Self> {
        // SAFETY: no memory is passed.
        let queue = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) };
        ensure!(queue >= 0, "msgget: {}", io::Error::last_os_error());
        Ok(Self(queue))
    }

    fn send(&self, message: &[u8], size: usize) -> anyhow::Result<()> {
        assert!(size + 8 <= message.len());
        // SAFETY: the buffer has room for the type and `size` bytes.
        let sent = unsafe { libc::msgsnd(self.0, message.as_ptr().cast(), size, 0) };
        ensure!(sent == 0, "msgsnd: {}", io::Error::last_os_error());
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8], size: usize) -> io::Result<u64> {
        assert!(size + 8 <= buffer.len());
        // SAFETY: as above.
        sys::bytes(unsafe { libc::msgrcv(self.0, buffer.as_mut_ptr().cast(), size, 0, 0) })
    }
}

impl Drop for SystemQueue {
    fn drop(&mut self) {
        // SAFETY: removing takes no memory.
        unsafe { libc::msgctl(self.0, libc::IPC_RMID, ptr::null_mut()) };
    }
}
