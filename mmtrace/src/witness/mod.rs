//! The watchpoint witness: the processor watches chosen bytes of a thread's memory, and each store
//! to them is told, with who made it: the program itself, or the kernel, and where in it.
//!
//! A hardware watchpoint (`perf_event_open` with `PERF_TYPE_BREAKPOINT` and `HW_BREAKPOINT_W`) on an
//! address of user memory can be had where breakpoints on the kernel's own code are refused. It
//! fires for the kernel's stores to that address too, if the event does not exclude the kernel.
//!
//! It does not see stores to the same memory by another address. By addresses of its own, the kernel
//! fills the page cache, clears new pages and copies a private page before the first write to it; a
//! disk's controller uses none at all. So what it proves is about the address: what a program finds
//! there without that anything was stored there was not copied to it.

mod trials;

use std::io;

use anyhow::{Context as _, Result, bail, ensure};
use perf_event::{Builder, SampleFlag, Sampler, events::Breakpoint};

use crate::{
    failure::Failure,
    kernel::stack::{Frame, Symbols},
};
pub use trials::{Finding, Observed, Trial, run};

/// Kinds of records (linux/perf_event.h): an event, and that too many came.
const RECORD_SAMPLE: u32 = 9;
const RECORD_THROTTLE: u32 = 5;
/// Of a record's `misc`: what the processor was doing, `CPUMODE_MASK`.
const MODE_MASK: u16 = 7;
/// Of these, the kernel.
const MODE_KERNEL: u16 = 1;
/// From here on, what a call chain has are no addresses but marks between its parts
/// (`PERF_CONTEXT_MAX`).
const CONTEXT_MARKS: u64 = -4_095_i64 as u64;

/// Frames of a store's stack, the innermost; a read of a file takes about ten.
const FRAMES: u16 = 32;
/// Of the ring buffer: room for some 200 stores.
const RING_BYTES: usize = 64 << 10;

/// Bytes of a thread's memory, watched until this is dropped.
///
/// A processor has a few registers for this (four on x86), which debuggers use as well.
pub struct Watch {
    sampler: Sampler,
    /// How many stores were told of so far.
    told: u64,
}

/// Stores to watched bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stores {
    /// Each, in the order in which they were made.
    pub seen: Vec<Store>,
    /// How many more there were of which nothing is known but that they were made.
    pub lost: u64,
}

/// A store to watched bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Whether the kernel made it.
    pub by_kernel: bool,
    /// Where execution was directly after it, and inside a repeated instruction (`rep movsb`), at it.
    pub ip: u64,
    /// Where in the kernel it goes on after that function, and so outwards; empty for the program's
    /// own stores.
    pub callers: Vec<u64>,
}

impl Store {
    /// Its place in the kernel and its callers outwards; `None` where no function is. Empty for the
    /// program's own stores.
    #[must_use]
    pub fn stack(&self, symbols: &Symbols) -> Vec<Option<Frame>> {
        if !self.by_kernel {
            return Vec::new();
        }
        let callers = self.callers.iter();
        [symbols.instruction(self.ip)]
            .into_iter()
            .chain(callers.map(|caller| symbols.return_to(*caller)))
            .collect()
    }

    /// From a sample's record: the address, then the call chain, a count and as many entries (the
    /// order of `PERF_SAMPLE_` in perf_event_open(2)). perf-event2 0.7.4 does not read an empty chain
    /// at a record's end.
    fn parse(by_kernel: bool, record: &[u8]) -> Option<Self> {
        let (words, _) = record.as_chunks::<8>();
        let mut words = words.iter().copied().map(u64::from_ne_bytes);
        let (ip, entries) = (words.next()?, words.next()?);
        let chain: Vec<u64> = words.take(usize::try_from(entries).ok()?).collect();
        let addresses = chain.iter().copied().filter(|entry| *entry < CONTEXT_MARKS);
        (chain.len() as u64 == entries).then(|| Self {
            by_kernel,
            ip,
            // The first address is the store's own.
            callers: addresses.skip(1).collect(),
        })
    }
}

impl Stores {
    /// How many the kernel made.
    #[must_use]
    pub fn by_kernel(&self) -> u64 {
        self.seen.iter().filter(|store| store.by_kernel).count() as u64
    }

    /// How many the program made.
    #[must_use]
    pub fn by_program(&self) -> u64 {
        self.seen.len() as u64 - self.by_kernel()
    }
}

impl Watch {
    /// Watches `length` bytes at `address` in the memory of the thread `tid`: 1, 2, 4 or 8 bytes,
    /// and the address a multiple of them. Stores by that thread are seen, and by the kernel in it,
    /// from when this returns.
    ///
    /// # Errors
    ///
    /// If the kernel refuses: a [`Failure`] with the reason in words.
    pub fn new(tid: libc::pid_t, address: usize, length: usize) -> Result<Self> {
        let mut event = Builder::new(Breakpoint::write(address as u64, length as u64));
        event
            .observe_pid(tid)
            .any_cpu()
            .include_kernel()
            .enabled(true)
            .sample_period(1)
            .sample(SampleFlag::IP | SampleFlag::CALLCHAIN)
            .sample_max_stack(FRAMES)
            .exclude_callchain_user(true);
        let counter = event.build().map_err(refusal)?;
        let sampler = counter
            .sampled(RING_BYTES)
            .context("no buffer for what the watchpoint tells")?;
        Ok(Self { sampler, told: 0 })
    }

    /// The stores since the watch began, or since this was asked last.
    ///
    /// # Errors
    ///
    /// If the kernel's counter cannot be read, if it gives what it should not, or if it stopped the
    /// watch because of too many stores (`kernel.perf_event_max_sample_rate` a second).
    pub fn stores(&mut self) -> Result<Stores> {
        let made = self.sampler.read().context("the watchpoint's counter")?;
        let mut stores = Stores::default();
        while let Some(record) = self.sampler.next_record() {
            match record.ty() {
                RECORD_SAMPLE => {
                    let by_kernel = record.misc() & MODE_MASK == MODE_KERNEL;
                    let store = Store::parse(by_kernel, &record.to_contiguous());
                    stores
                        .seen
                        .push(store.context("a record of a store is cut short")?);
                }
                RECORD_THROTTLE => {
                    bail!("the kernel stopped the watch: too many stores in a short time")
                }
                // How many there was no room for, the counter says.
                _ => {}
            }
        }
        self.told += stores.seen.len() as u64;
        stores.lost = made.saturating_sub(self.told);
        self.told += stores.lost;
        Ok(stores)
    }
}

/// Whether data watchpoints that see the kernel can be had here: one is set on a byte of mmtrace's
/// own, which is then stored to.
///
/// # Errors
///
/// Why not, in words, with what would help where something does.
pub fn available() -> Result<()> {
    let mut byte = 0_u8;
    let mut watch = Watch::new(0, (&raw const byte).addr(), 1)?;
    // SAFETY: our own variable; volatile, so that the store is made.
    unsafe { (&raw mut byte).write_volatile(1) };
    let stores = watch.stores()?;
    ensure!(
        stores.by_program() == 1 && stores.by_kernel() == 0 && stores.lost == 0,
        "a watchpoint can be set, but does not see one store as one: {stores:?}"
    );
    Ok(())
}

/// Why a watchpoint was refused, in words.
fn refusal(error: io::Error) -> Failure {
    let reason = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EBUSY) => {
            return Failure::own(
                "no watchpoint: all of the processor's debug registers are taken, perhaps by a \
                 debugger",
            )
            .remedy("End what uses hardware watchpoints or breakpoints: gdb, perf -e mem:...");
        }
        Some(libc::EACCES | libc::EPERM) => {
            return Failure::own(format!("no watchpoint: {error}")).remedy(
                "It takes CAP_PERFMON, or kernel.perf_event_paranoid below 2; seccomp filters of \
                 containers may refuse perf_event_open as such.",
            );
        }
        Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP) => {
            "this kernel or this machine has no hardware watchpoints"
        }
        Some(libc::ENOSYS) => "this kernel has no perf events",
        _ => return Failure::own(format!("no watchpoint: {error}")),
    };
    Failure::own(format!("no watchpoint: {reason} ({error})"))
}
