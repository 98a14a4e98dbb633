//! Messages through memory that two processes share: slots in a ring, and a futex for whoever has
//! to wait.
//!
//! Both sides work in the slots themselves: nothing is copied, by the kernel or otherwise.

use std::{
    io, ptr, slice,
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, SeqCst},
    },
};

use anyhow::{Context as _, Result, ensure};
use memmap2::{MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes of all slots together, as a pipe has: more where two messages take more.
const RING_BYTES: usize = 64 << 10;
/// After this time without a message, the other side is taken for dead.
const PATIENCE_S: libc::time_t = 10;

/// A count that one side raises and the other waits for, on a cache line of its own.
#[repr(C, align(64))]
struct Count {
    value: AtomicU32,
    /// Whether the other side sleeps until it changes.
    awaited: AtomicU32,
}

/// How many messages were written and how many consumed, both modulo 2^32.
#[repr(C)]
struct Counts {
    written: Count,
    consumed: Count,
}

/// A ring in shared memory, which a forked process goes on sharing.
pub(super) struct Ring {
    memory: MmapRaw,
    message_bytes: usize,
    slots: u32,
}

impl Ring {
    /// A ring for messages of this size.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(super) fn new(message_bytes: usize) -> Result<Self> {
        // A power of two, so that a slot's number follows from the counts when these overflow.
        let slots = (RING_BYTES / message_bytes).max(2).next_power_of_two();
        let memory = memfd_create(c"mmtrace", MFdFlags::MFD_CLOEXEC).context("no shared memory")?;
        let length = size_of::<Counts>() + slots * message_bytes;
        nix::unistd::ftruncate(&memory, length as libc::off_t)?;
        // New memory is all zero, which is an empty ring.
        let memory = MmapOptions::new().len(length).map_raw(&memory)?;
        Ok(Self {
            memory,
            message_bytes,
            slots: u32::try_from(slots)?,
        })
    }

    fn counts(&self) -> &Counts {
        // SAFETY: the mapping begins with the counts, is aligned to a page, and lives as long as
        // self; they are atomics alone.
        unsafe { &*self.memory.as_ptr().cast::<Counts>() }
    }

    fn slot(&self, number: u32) -> *mut u8 {
        let index = (number % self.slots) as usize;
        self.memory
            .as_mut_ptr()
            .wrapping_add(size_of::<Counts>() + index * self.message_bytes)
    }

    /// As the only sender: has `write` make up the next message in its slot, then passes it on.
    ///
    /// # Errors
    /// If the receiver does not make room.
    pub(super) fn send(&self, write: impl FnOnce(&mut [u8])) -> Result<()> {
        let Counts { written, consumed } = self.counts();
        let number = written.value.load(Relaxed);
        // Room for one more than there are.
        consumed.wait_while(|consumed| number.wrapping_sub(consumed) >= self.slots)?;
        // SAFETY: inside the mapping; the receiver leaves the slot alone until it is passed on.
        write(unsafe { slice::from_raw_parts_mut(self.slot(number), self.message_bytes) });
        written.raise(number);
        Ok(())
    }

    /// As the only receiver: has `read` look at the next message in its slot, then frees that.
    ///
    /// # Errors
    /// If none comes.
    pub(super) fn receive<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let Counts { written, consumed } = self.counts();
        let number = consumed.value.load(Relaxed);
        written.wait_while(|written| written == number)?;
        // SAFETY: inside the mapping; the sender leaves the slot alone until it is free again.
        let result = read(unsafe { slice::from_raw_parts(self.slot(number), self.message_bytes) });
        consumed.raise(number);
        Ok(result)
    }
}

impl Count {
    /// Counts one more than `before`, and wakes the other side if it sleeps.
    fn raise(&self, before: u32) {
        self.value.store(before.wrapping_add(1), SeqCst);
        // After the store in the one order of all: either this sees the sleeper, or the sleeper
        // sees the store.
        if self.awaited.load(SeqCst) != 0 {
            // SAFETY: wakes whoever waits on an address of ours; nothing is stored.
            unsafe { libc::syscall(libc::SYS_futex, &raw const self.value, libc::FUTEX_WAKE, 1) };
        }
    }

    /// Sleeps while `unwanted` holds of the value. Nobody spins, as in a pipe.
    fn wait_while(&self, unwanted: impl Fn(u32) -> bool) -> Result<()> {
        while unwanted(self.value.load(Acquire)) {
            self.awaited.store(1, SeqCst);
            let value = self.value.load(SeqCst);
            let slept = if unwanted(value) {
                self.sleep_while(value)
            } else {
                Ok(())
            };
            self.awaited.store(0, SeqCst);
            slept?;
        }
        Ok(())
    }

    fn sleep_while(&self, value: u32) -> Result<()> {
        let patience = libc::timespec {
            tv_sec: PATIENCE_S,
            tv_nsec: 0,
        };
        // SAFETY: the address and the time are ours, and live until it returns.
        let slept = unsafe {
            libc::syscall(
                libc::SYS_futex,
                &raw const self.value,
                libc::FUTEX_WAIT,
                value,
                &raw const patience,
                ptr::null::<u32>(),
                0,
            )
        };
        let error = io::Error::last_os_error();
        let harmless = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR));
        ensure!(
            slept == 0 || harmless,
            "waiting for the other process: {error}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_in_order() {
        for message_bytes in [64, 1 << 20] {
            let ring = Ring::new(message_bytes).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 0..3_000_u32 {
                        ring.send(|slot| {
                            slot[..4].copy_from_slice(&number.to_le_bytes());
                            slot[message_bytes - 1] = number as u8;
                        })
                        .unwrap();
                    }
                });
                for number in 0..3_000_u32 {
                    let seen = |slot: &[u8]| (slot[..4].to_vec(), slot[message_bytes - 1]);
                    assert_eq!(
                        ring.receive(seen).unwrap(),
                        (number.to_le_bytes().to_vec(), number as u8)
                    );
                }
            });
        }
    }
}
