//! Calls of which not all is in their arguments and in what they return.

use mmtrace_common::call::{AIO_REAP, AIO_SUBMIT, MESSAGE, MESSAGES, WHOLE};

use crate::{aio, message, thread};

const MESSAGE_: u32 = MESSAGE as u32;
const MESSAGES_: u32 = MESSAGES as u32;
const WHOLE_: u32 = WHOLE as u32;
const AIO_SUBMIT_: u32 = AIO_SUBMIT as u32;
const AIO_REAP_: u32 = AIO_REAP as u32;

/// Such a call begins: reads what its arguments lead to.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_begin_special(
    tid: u32,
    first: u64,
    second: u64,
    third: u64,
    fourth: u64,
) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    match thread.call.special {
        MESSAGE_ => thread.call.size_bytes = message::mmtrace_message_bytes(second),
        MESSAGES_ => {
            thread.call.extra = [second, 0, 0];
            thread.call.size_bytes = message::mmtrace_messages_bytes(second, third);
        }
        AIO_SUBMIT_ => thread::elsewhere(thread, |_| aio::submit(tid, first, third, second)),
        AIO_REAP_ => thread.call.extra = [aio::mmtrace_context(first), fourth, 0],
        _ => {}
    }
    0
}

/// Such a call ends: how many bytes it has moved.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_end_special(tid: u32, returned: i64) -> u64 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let [owner, address, count] = thread.call.extra;
    match thread.call.special {
        MESSAGE_ if returned > 0 => returned as u64,
        MESSAGES_ if returned > 0 => message::mmtrace_messages_moved(owner, returned as u64),
        WHOLE_ if returned == 0 => thread.call.size_bytes,
        AIO_SUBMIT_ => {
            thread::elsewhere(thread, |_| {
                aio::submitted(tid, owner, address, count, returned)
            });
            0
        }
        AIO_REAP_ if returned > 0 => {
            aio::mmtrace_reap(owner, address, returned as u64);
            0
        }
        _ => 0,
    }
}
