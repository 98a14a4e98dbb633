//! What mmtrace was started with and Rust's runtime changes before `main`.
//!
//! The runtime ignores SIGPIPE and opens `/dev/null` in place of closed standard streams. The
//! target must find both as mmtrace's caller left them, so they are recorded ahead of the runtime.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);
static CLOSED_STREAMS: AtomicU8 = AtomicU8::new(0);

// SAFETY: the C library calls each entry of `.init_array` once, before `main`, as a function that
// takes nothing it must use and returns nothing; `record` needs nothing of Rust's runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

extern "C" fn record() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action makes this a query into `action`, which has the right size.
    let action = unsafe {
        libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    SIGPIPE_IGNORED.store(action.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
    let mut closed = 0;
    for stream in 0..3 {
        // SAFETY: F_GETFD only asks; a closed descriptor is the answer looked for.
        if unsafe { libc::fcntl(stream, libc::F_GETFD) } == -1 {
            closed |= 1 << stream;
        }
    }
    CLOSED_STREAMS.store(closed, Ordering::Relaxed);
}

/// Whether mmtrace's caller had SIGPIPE ignored.
pub(super) fn sigpipe_ignored() -> bool {
    SIGPIPE_IGNORED.load(Ordering::Relaxed)
}

/// Whether standard stream 0, 1 or 2 was closed when mmtrace started.
pub(crate) fn stream_closed(stream: i32) -> bool {
    CLOSED_STREAMS.load(Ordering::Relaxed) & (1 << stream) != 0
}
