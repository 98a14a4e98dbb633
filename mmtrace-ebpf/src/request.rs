//! Requests that one call submits and that complete later: of aio and of io_uring.

use mmtrace_common::{
    FileKey, Lost, Request, RequestKey, RowKey, Thread, call::AIO_SUBMIT, kernel::COPIES_ALL,
    path::Measures,
};

use crate::{
    account::{Slot, add, row, stretch},
    copy, heat,
    kernel::{has, kernel},
    maps::{OTHER, READ, REQUESTS, WRITE, lose},
    thread::{self, now_ns},
};

/// Counts a request, which the current thread's `call` describes, and notes it as not complete.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_request(tid: u32, owner: u64, id: u64) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let call = &thread.call;
    let request = Request {
        row: RowKey {
            process: thread.process,
            file: call.file,
            path: call.path,
            padding: 0,
        },
        size_bytes: call.size_bytes,
        offset: call.offset,
        file_pointer: call.file_pointer,
        submitted_ns: now_ns(),
        window: copy::window(),
        count: 1,
        mixed: 0,
        heat_shift: heat::shift_for(call.path, call.file_pointer),
        aio: u32::from(call.special == u32::from(AIO_SUBMIT)),
        registered: call.registered,
    };
    let measures = row(thread, Slot::Call, request.row.path, request.row.file);
    measures.operations += 1;
    measures.bytes_requested += request.size_bytes;
    note(&RequestKey { owner, id }, request);
    0
}

#[inline(always)]
fn note(key: &RequestKey, request: Request) {
    let Some(known) = REQUESTS.get_ptr_mut(key) else {
        if REQUESTS.insert(key, &request, 0).is_err() {
            lose(Lost::Completions);
        }
        return;
    };
    // SAFETY: entries are preallocated; one that is deleted meanwhile stays memory of the map.
    let known = unsafe { &mut *known };
    if key.id == 0 && !has(kernel!(uring_user_data)) {
        // A request's own memory is in use again: its completion went by unseen.
        lose(Lost::Completions);
        *known = request;
        return;
    }
    // By what completions tell, several are the same one.
    known.count += 1;
    known.offset = u64::MAX;
    known.file_pointer = 0;
    if !same_row(&known.row, &request.row) {
        known.mixed = 1;
    }
}

#[inline(always)]
fn same_row(one: &RowKey, other: &RowKey) -> bool {
    one.file.inode == other.file.inode
        && one.file.device == other.file.device
        && one.file.generation == other.file.generation
        && one.path == other.path
        && one.process == other.process
}

/// A request is complete, with this result, in any context: whether it is one that was counted.
#[inline(always)]
pub(crate) fn completed(owner: u64, id: u64, result: i64) -> bool {
    if heat::are_places_wanted() && result > 0 {
        heat::mmtrace_heat_request(owner, id, result as u64);
    }
    mmtrace_completed(owner, id, result) != 0
}

/// As [`completed`], but for heat maps.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_completed(owner: u64, id: u64, result: i64) -> u32 {
    let key = RequestKey { owner, id };
    let Some(request) = REQUESTS.get_ptr_mut(key) else {
        return 0;
    };
    // SAFETY: as in `note`.
    let request = unsafe { &mut *request };
    if request.mixed != 0 {
        lose(Lost::Completions);
    } else {
        let returned = if result > 0 { result as u64 } else { 0 };
        // To and from pages the kernel copies by a plain memcpy, where all else goes through one
        // function: what was returned was copied.
        let copied = if kernel!(copies) == COPIES_ALL && request.registered != 0 {
            returned
        } else {
            0
        };
        let watched = copied != 0 || copy::watched(request.window);
        if watched && copied == 0 {
            copy::sample(request.row.path, returned);
        }
        let now_ns = now_ns();
        let work = Measures {
            bytes_returned: returned,
            unwatched_bytes: if watched { 0 } else { returned },
            copied_to_user_bytes: if request.row.path == READ { copied } else { 0 },
            copied_from_user_bytes: if request.row.path == WRITE { copied } else { 0 },
            kernel_time_ns: if request.row.path == OTHER {
                0
            } else {
                now_ns.saturating_sub(request.submitted_ns)
            },
            ..Measures::default()
        };
        add(&request.row, stretch(now_ns), &work);
    }
    if request.count > 1 {
        request.count -= 1;
    } else {
        let _gone = REQUESTS.remove(key);
    }
    1
}

/// Takes back a request that was counted and then not submitted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_take_back(tid: u32, owner: u64, id: u64) -> u32 {
    let key = RequestKey { owner, id };
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    // SAFETY: copied at once; only this thread knows the request yet.
    let Some(request) = (unsafe { REQUESTS.get(key) }).copied() else {
        return 0;
    };
    let measures = row(thread, Slot::Call, request.row.path, request.row.file);
    // The row's sum was raised by as much before, in the map or here.
    measures.operations = measures.operations.wrapping_sub(1);
    measures.bytes_requested = measures.bytes_requested.wrapping_sub(request.size_bytes);
    let _gone = REQUESTS.remove(key);
    0
}

/// A request that has not completed and whose row is known.
#[inline(always)]
fn known(key: &RequestKey) -> Option<&'static Request> {
    let request = REQUESTS.get_ptr(key)?;
    // SAFETY: only read; an entry that is deleted meanwhile stays memory of the map.
    let request = unsafe { &*request };
    (request.mixed == 0).then_some(request)
}

/// When a request was submitted; 0: it is none that is [known].
#[inline(always)]
pub(crate) fn submitted_ns(key: &RequestKey) -> u64 {
    known(key).map_or(0, |request| request.submitted_ns)
}

/// The path of a request; that of work of no known kind if it is none that is [known].
#[inline(always)]
pub(crate) fn path_of(key: &RequestKey) -> u32 {
    known(key).map_or(OTHER, |request| request.row.path)
}

/// Makes what the thread does from now on work for a request, or for none that is known.
#[inline(always)]
pub(crate) fn work_for(thread: &mut Thread, key: &RequestKey) {
    let call = &mut thread.call;
    call.repeatable = 0;
    call.in_row = 0;
    match known(key) {
        Some(request) => {
            call.path = request.row.path;
            call.file = request.row.file;
            call.size_bytes = request.size_bytes;
            call.offset = request.offset;
            call.file_pointer = request.file_pointer;
            call.registered = request.registered;
            call.window = request.window;
            call.request_ns = request.submitted_ns;
        }
        None => work_for_none(thread),
    }
}

/// Makes what the thread does from now on work of no path and file that is known.
#[inline(always)]
pub(crate) fn work_for_none(thread: &mut Thread) {
    let call = &mut thread.call;
    call.repeatable = 0;
    call.in_row = 0;
    call.path = OTHER;
    call.file = FileKey::default();
    call.size_bytes = 0;
    call.offset = u64::MAX;
    call.file_pointer = 0;
    call.registered = 0;
    call.request_ns = 0;
}
