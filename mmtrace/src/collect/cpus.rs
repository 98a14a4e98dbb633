//! CPUs that come online while a command runs.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::io::unix::AsyncFd;

/// The kernel's messages about devices.
pub(super) struct Cpus(AsyncFd<OwnedFd>);

impl Cpus {
    /// Listens from now on; `None` where the kernel tells this process nothing.
    pub(super) fn listen() -> Option<Self> {
        /// Those of the kernel itself (net/netlink; lib/kobject_uevent.c).
        const FROM_KERNEL: u32 = 1;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )
        .ok()?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, FROM_KERNEL)).ok()?;
        // SAFETY: the descriptor stays open and the same for as long as its owner lives.
        Some(Self(unsafe { AsyncFd::register(socket) }.ok()?))
    }

    /// Returns when some have come: which; nothing if that was not understood.
    pub(super) async fn came(&mut self) -> std::io::Result<Vec<u32>> {
        let mut ready = self.0.readable().await?;
        let socket = ready.get_inner().as_raw_fd();
        let mut came = Vec::new();
        let mut message = [0; 4_096];
        loop {
            match recv(socket, &mut message, MsgFlags::empty()) {
                Ok(length) => came.extend(online(&message[..length])),
                Err(Errno::EAGAIN) => break,
                // There were too many: the next one may still be one of them.
                Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(came)
    }
}

/// The CPU of a message that one has come online: `ACTION@PATH`, then variables.
fn online(message: &[u8]) -> Option<u32> {
    let head = message.split(|byte| *byte == 0).next()?;
    let head = std::str::from_utf8(head).ok()?;
    head.strip_prefix("online@/devices/system/cpu/cpu")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cpus_that_come_online_are_told() {
        let message = b"online@/devices/system/cpu/cpu12\0ACTION=online\0SUBSYSTEM=cpu\0";
        assert_eq!(online(message), Some(12));
        for other in [
            &b"offline@/devices/system/cpu/cpu12\0"[..],
            b"online@/devices/system/memory/memory3\0",
            b"online@/devices/system/cpu/cpu\xff\0",
            b"",
        ] {
            assert_eq!(online(other), None);
        }
    }
}
