//! aio: the requests of `io_submit`, and what becomes of them.
//!
//! `io_submit` takes an array of addresses of `struct iocb` (include/uapi/linux/aio_abi.h). Each is
//! counted as the call begins; those that the kernel did not take, by what the call returns, are
//! taken back as it ends: nobody else has touched them meanwhile, which is not sure of the others.
//! In which of them the kernel is tells `io_submit_one` (fs/aio.c), where functions can be hooked.
//!
//! A completion goes through `aio_complete_rw`, in any context. Where that is not hooked, what
//! `io_getevents` returns tells it, unless the program takes it from the shared ring by itself.

use mmtrace_common::{Lost, Program, RequestKey, Thread, call::AIO_SUBMIT};

use crate::{
    call::{MAX_RW_COUNT, look_up, mmtrace_vector_bytes},
    copy,
    kernel::{kernel, pointer, read_user},
    maps::{IPC, OTHER, WRITEBACK, hit, lose_many},
    request, thread,
};

const PREAD: u64 = 0;
const PWRITE: u64 = 1;
const FSYNC: u64 = 2;
const FDSYNC: u64 = 3;
const PREADV: u64 = 7;
const PWRITEV: u64 = 8;

/// How many requests of one call are counted.
const MAX_REQUESTS: u64 = 1024;
/// How many one call of an inner function looks at: see `mmtrace_messages_bytes`.
const AT_ONCE: u64 = 32;
/// Bytes of `struct io_event`.
const EVENT_BYTES: u64 = 32;

/// In `call.extra[2]`, above the number of requests: they are of several files, or on several paths.
const SEVERAL_FILES: u64 = 1 << 62;
const SEVERAL_PATHS: u64 = 1 << 63;
const COUNT: u64 = SEVERAL_FILES - 1;

/// The `kioctx` of a context's number, which is the address of its ring: `lookup_ioctx`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_context(number: u64) -> u64 {
    let index = read_user::<u32>(number);
    let mm = pointer(thread::current_task(), kernel!(task_mm));
    let table = pointer(mm, kernel!(mm_ioctx_table));
    if table == 0 {
        return 0;
    }
    pointer(table + u64::from(index) * 8, kernel!(ioctx_table_entries))
}

/// `io_submit` begins.
#[inline(always)]
pub(crate) fn submit(tid: u32, context: u64, array: u64, count: u64) {
    let owner = mmtrace_context(context);
    // A `long` to the kernel; the call fails if it is negative.
    let count = if count >> 63 == 0 { count } else { 0 };
    if let Some(thread) = thread::by_tid(tid) {
        thread.call.extra = [owner, array, count.min(COUNT)];
    }
    for block in 0..MAX_REQUESTS / AT_ONCE {
        let first = block * AT_ONCE;
        if first >= count {
            break;
        }
        mmtrace_take_some(tid, owner, array, first, count);
    }
    if let Some(thread) = thread::by_tid(tid) {
        sum_up(thread, count);
    }
}

/// What the call's work belongs to as long as no hook tells which of its requests it is for.
#[inline(always)]
fn sum_up(thread: &mut Thread, count: u64) {
    let bits = thread.call.extra[2];
    if bits & SEVERAL_PATHS != 0 {
        request::work_for_none(thread);
    } else if count > 1 {
        // Of no file in particular, if there are several: each page tells its own then.
        if bits & SEVERAL_FILES != 0 {
            thread.call.file = Default::default();
        }
        thread.call.file_pointer = 0;
        thread.call.size_bytes = 0;
        thread.call.offset = u64::MAX;
    }
}

/// Counts at most [`AT_ONCE`] of a call's requests, from `first` on.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_take_some(
    tid: u32,
    owner: u64,
    array: u64,
    first: u64,
    count: u64,
) -> u32 {
    for index in 0..AT_ONCE {
        if first + index >= count {
            break;
        }
        // One after the other, not one in the other: together they need too much stack.
        let id = mmtrace_take(tid, array + (first + index) * 8, (first + index) as u32);
        if id != 0 {
            request::mmtrace_request(tid, owner, id);
        }
    }
    0
}

/// Makes the request whose address is at `place` the one that the thread works for: that address, or
/// 0 if it is not to be counted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_take(tid: u32, place: u64, index: u32) -> u64 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let address: u64 = read_user(place);
    let [_, _, operation, buffer, bytes, offset] = read_user::<[u64; 6]>(address);
    let opcode = operation & 0xffff;
    let vectored = opcode == PREADV || opcode == PWRITEV;
    let synchronizes = opcode == FSYNC || opcode == FDSYNC;
    if !(opcode == PREAD || opcode == PWRITE || vectored || synchronizes) {
        return 0;
    }
    look_up(thread, (operation >> 32) as i32);
    let path = if synchronizes {
        WRITEBACK
    } else if opcode == PREAD || opcode == PREADV {
        thread.fd.read_path
    } else {
        thread.fd.write_path
    };
    let file = thread.fd.file;
    let call = &mut thread.call;
    if index > 0 {
        if call.path != path {
            call.extra[2] |= SEVERAL_PATHS;
        }
        if call.file != file {
            call.extra[2] |= SEVERAL_FILES;
        }
    }
    call.path = path;
    call.file = file;
    call.file_pointer = thread.fd.file_pointer;
    call.offset = if path == IPC || path == OTHER {
        u64::MAX
    } else {
        offset
    };
    call.size_bytes = if synchronizes {
        0
    } else if vectored {
        mmtrace_vector_bytes(buffer, bytes).min(MAX_RW_COUNT)
    } else {
        bytes.min(MAX_RW_COUNT)
    };
    address
}

/// `io_submit` ends: it has taken so many.
#[inline(always)]
pub(crate) fn submitted(tid: u32, owner: u64, array: u64, bits: u64, returned: i64) {
    let count = bits & COUNT;
    let taken = if returned > 0 { returned as u64 } else { 0 };
    for block in 0..MAX_REQUESTS / AT_ONCE {
        let first = taken + block * AT_ONCE;
        if first >= count {
            break;
        }
        mmtrace_give_back(tid, owner, array + first * 8, count - first);
    }
    if taken > MAX_REQUESTS {
        lose_many(Lost::Requests, taken - MAX_REQUESTS);
    }
}

/// Takes back the first [`AT_ONCE`] of `count` requests whose addresses are in an array.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_give_back(tid: u32, owner: u64, array: u64, count: u64) -> u32 {
    for index in 0..AT_ONCE {
        if index >= count {
            break;
        }
        request::mmtrace_take_back(tid, owner, read_user(array + index * 8));
    }
    0
}

/// `io_submit_one(context, iocb, compat)`: from here on the call works for this request.
pub(crate) fn turn(thread: &mut Thread, address: u64) {
    if thread.call.active == 0 || thread.call.special != u32::from(AIO_SUBMIT) {
        return;
    }
    thread::hit(thread, Program::AioSubmit);
    copy::put(thread);
    let key = RequestKey {
        owner: thread.call.extra[0],
        id: address,
    };
    request::work_for(thread, &key);
}

/// `aio_complete_rw(kiocb, result)`.
#[inline(always)]
pub(crate) fn complete(owner: u64, object: u64, result: i64) {
    if request::completed(owner, object, result) {
        hit(Program::AioComplete);
    }
}

/// `io_getevents` has returned so many events.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_reap(owner: u64, events: u64, count: u64) -> u32 {
    for block in 0..MAX_REQUESTS / AT_ONCE {
        let first = block * AT_ONCE;
        if first >= count {
            break;
        }
        mmtrace_reap_some(owner, events + first * EVENT_BYTES, count - first);
    }
    0
}

/// The same of the first [`AT_ONCE`] of `count` events.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_reap_some(owner: u64, events: u64, count: u64) -> u32 {
    for index in 0..AT_ONCE {
        if index >= count {
            break;
        }
        let [_, object, result] = read_user::<[u64; 3]>(events + index * EVENT_BYTES);
        request::completed(owner, object, result as i64);
    }
    0
}
