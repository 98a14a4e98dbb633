//! What `perf_event_open` grants: debug registers, and sampling by time. Events are opened on the
//! calling thread, disabled, and closed again, so that none of them ever fires.

use std::{hint::black_box, io};

use perf_event::{
    Builder, SampleFlag,
    events::{Breakpoint, Software},
};

use crate::kernel::refusal::{Asked, Refusal};

/// How many debug registers could be had, and what kept the next from being had.
#[derive(Clone, Debug)]
pub struct Registers {
    /// So many at the same time.
    pub had: u32,
    /// What the kernel said to one more.
    pub stopped: Refusal,
}

/// x86 has four (`HBP_NUM` in arch/x86/include/asm/hw_breakpoint.h); no machine has as many as
/// this.
const MORE_THAN_ANY: usize = 64;

/// How many breakpoints on kernel code at `address` this thread can have.
///
/// Asks for `CAP_SYS_ADMIN` (hw_breakpoint_parse, kernel/events/hw_breakpoint.c), and for a kernel
/// with kprobes (arch_build_bp_info, arch/x86/kernel/hw_breakpoint.c).
#[must_use]
pub fn execution_breakpoints(address: u64) -> Registers {
    registers(Breakpoint::execute(address), Asked::ExecutionBreakpoint)
}

/// How many watchpoints on its own memory this thread can have, which see the kernel's stores too.
#[must_use]
pub fn data_watchpoints() -> Registers {
    let watched = black_box(Box::new(0_u64));
    let address = (&raw const *watched).addr() as u64;
    let length = size_of::<u64>() as u64;
    registers(Breakpoint::write(address, length), Asked::DataWatchpoint)
}

fn registers(breakpoint: Breakpoint, asked: Asked) -> Registers {
    let open = || {
        let mut event = Builder::new(breakpoint);
        event.include_kernel().sample_period(1);
        event.build()
    };
    let mut held = Vec::new();
    let refused = loop {
        match open() {
            Ok(event) if held.len() < MORE_THAN_ANY => held.push(event),
            Ok(_) => break io::Error::from_raw_os_error(libc::ENOSPC),
            Err(error) => break error,
        }
    };
    Registers {
        had: held.len() as u32,
        stopped: Refusal::of_call(asked, "perf_event_open", &refused),
    }
}

/// Tries whether this thread may be sampled by `cpu-clock`, with the kernel's stacks.
///
/// # Errors
///
/// The kernel's refusal.
pub fn cpu_clock() -> Result<(), Refusal> {
    const PERIOD_NS: u64 = 1_000_000;
    let mut event = Builder::new(Software::CPU_CLOCK);
    event
        .include_kernel()
        .sample_period(PERIOD_NS)
        .sample(SampleFlag::CALLCHAIN);
    event
        .build()
        .map(drop)
        .map_err(|error| Refusal::of_call(Asked::CpuClock, "perf_event_open", &error))
}
