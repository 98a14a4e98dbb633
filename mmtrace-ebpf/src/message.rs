//! Messages of sockets: sizes behind `struct msghdr` and arrays of `struct mmsghdr`.

use crate::{
    call::{MAX_RW_COUNT, mmtrace_vector_bytes},
    kernel::read_user,
};

/// `msghdr.msg_iov`; `msg_iovlen` follows it.
const VECTORS: u64 = 16;
/// `mmsghdr.msg_len`.
const MOVED: u64 = 56;
/// Bytes of `struct mmsghdr`.
const STRIDE: u64 = 64;
/// `UIO_MAXIOV`: the kernel takes no more messages in one call.
const MAX_MESSAGES: u64 = 1024;
/// How many one call of an inner function looks at.
const AT_ONCE: u64 = 32;

/// How many bytes a message has room for, or has.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_message_bytes(header: u64) -> u64 {
    let [vectors, count] = read_user::<[u64; 2]>(header + VECTORS);
    mmtrace_vector_bytes(vectors, count).min(MAX_RW_COUNT)
}

/// As [`mmtrace_message_bytes`], of several messages.
///
/// In two loops, one in the other, each in a function of its own: the verifier goes through a loop
/// round by round, but through such a function only once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_messages_bytes(headers: u64, count: u64) -> u64 {
    // An `unsigned int` to the kernel.
    let count = count & 0xffff_ffff;
    let mut sum = 0;
    for block in 0..MAX_MESSAGES / AT_ONCE {
        let first = block * AT_ONCE;
        if first >= count {
            break;
        }
        sum += mmtrace_some_messages_bytes(headers + first * STRIDE, count - first);
    }
    sum
}

/// The same of the first [`AT_ONCE`] of `count` messages.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_some_messages_bytes(headers: u64, count: u64) -> u64 {
    let mut sum = 0;
    for index in 0..AT_ONCE {
        if index >= count {
            break;
        }
        sum += mmtrace_message_bytes(headers + index * STRIDE);
    }
    sum
}

/// How many bytes the first `count` messages have moved, when the call is done.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_messages_moved(headers: u64, count: u64) -> u64 {
    let mut sum = 0;
    for block in 0..MAX_MESSAGES / AT_ONCE {
        let first = block * AT_ONCE;
        if first >= count {
            break;
        }
        sum += mmtrace_some_messages_moved(headers + first * STRIDE, count - first);
    }
    sum
}

/// The same of the first [`AT_ONCE`] of `count` messages.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_some_messages_moved(headers: u64, count: u64) -> u64 {
    let mut sum = 0;
    for index in 0..AT_ONCE {
        if index >= count {
            break;
        }
        sum += u64::from(read_user::<u32>(headers + index * STRIDE + MOVED));
    }
    sum
}
