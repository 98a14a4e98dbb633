//! io_uring: its requests, by tracepoints that are on every kernel.
//!
//! `io_uring_submit_req` (`io_uring_submit_sqe` on 6.1 and older) fires once for each request, in the
//! thread that submits it, when all but its file has been made ready; `io_uring_complete` for each
//! completion, in any context (io_uring/io_uring.c). In between the request may be issued at once,
//! later in a worker, or several times: `io_issue_sqe` tells, where functions can be hooked.

use mmtrace_common::{FileKey, Lost, Program, RequestKey, Thread};

use crate::{
    call::{MAX_RW_COUNT, POSIX_FADV_WILLNEED, brings_in, mmtrace_look_at, mmtrace_vector_bytes},
    copy, fault, file,
    kernel::{has, kernel, pointer, read},
    maps::{IPC, OTHER, PREFETCH, READ, SPLICE, WRITE, WRITEBACK, hit, lose},
    message::mmtrace_message_bytes,
    request, thread,
};

// include/uapi/linux/io_uring.h
const READV: u8 = 1;
const WRITEV: u8 = 2;
const FSYNC: u8 = 3;
const READ_FIXED: u8 = 4;
const WRITE_FIXED: u8 = 5;
const SYNC_FILE_RANGE: u8 = 8;
const SENDMSG: u8 = 9;
const RECVMSG: u8 = 10;
const READ_: u8 = 22;
const WRITE_: u8 = 23;
const FADVISE: u8 = 24;
const MADVISE: u8 = 25;
const SEND: u8 = 26;
const RECV: u8 = 27;
const SPLICE_: u8 = 30;
const TEE: u8 = 33;
const SEND_ZC: u8 = 47;
const SENDMSG_ZC: u8 = 48;
const READ_MULTISHOT: u8 = 49;
const READV_FIXED: u8 = 60;
const WRITEV_FIXED: u8 = 61;

/// `REQ_F_FIXED_FILE`: the descriptor is an index of the ring's own table.
const FIXED_FILE: u32 = 1;
/// `SPLICE_F_FD_IN_FIXED`: the same of the file that a splice reads.
const SPLICE_FIXED: u32 = 1 << 31;
/// `IORING_RECV_MULTISHOT`.
const RECV_MULTISHOT: u16 = 2;

/// By what a request's completion will tell of it.
#[inline(always)]
fn key(context: u64, request: u64, user_data: u64) -> RequestKey {
    if has(kernel!(uring_user_data)) {
        RequestKey {
            owner: context,
            id: user_data,
        }
    } else {
        RequestKey {
            owner: request,
            id: 0,
        }
    }
}

#[inline(always)]
fn key_of(request: u64) -> RequestKey {
    key(
        pointer(request, kernel!(uring_context)),
        request,
        read(request, kernel!(uring_user_data)),
    )
}

/// A request is submitted by the current thread, which may be one that the kernel has made to poll
/// the submission queue.
pub(crate) fn submitted(request: u64) {
    if let Some(thread) = thread::current_or_worker() {
        thread::hit(thread, Program::UringSubmit);
        copy::put(thread);
        fault::settle(thread);
        thread::elsewhere(thread, |tid| mmtrace_uring(tid, request));
        // Our own reading of user memory may have raised page_fault_kernel, and no more.
        thread.fault.active = 0;
    }
}

/// Counts a request that the current thread submits, and makes it the one that it works for.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_uring(tid: u32, request: u64) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let opcode: u8 = read(request, kernel!(uring_opcode));
    request::work_for_none(thread);
    thread.call.active = 1;
    let path = match opcode {
        READV | READ_FIXED | READ_ | READ_MULTISHOT | READV_FIXED => READ,
        WRITEV | WRITE_FIXED | WRITE_ | WRITEV_FIXED => WRITE,
        FSYNC | SYNC_FILE_RANGE => WRITEBACK,
        SENDMSG | RECVMSG | SEND | RECV | SEND_ZC | SENDMSG_ZC => IPC,
        FADVISE | MADVISE => PREFETCH,
        SPLICE_ | TEE => SPLICE,
        _ => return 0,
    };
    if path == PREFETCH {
        let advice: u32 = read(request, kernel!(uring_fadvise_advice));
        let wanted = if opcode == FADVISE {
            u64::from(advice) == POSIX_FADV_WILLNEED
        } else {
            brings_in(u64::from(advice))
        };
        if !wanted {
            return 0;
        }
    }
    thread.call.path = path;
    thread.call.registered = u32::from(matches!(
        opcode,
        READ_FIXED | WRITE_FIXED | READV_FIXED | WRITEV_FIXED
    ));
    measure(thread, request, opcode);
    if opcode == MADVISE {
        let address: u64 = read(request, kernel!(uring_fadvise_offset));
        thread::elsewhere(thread, |tid| mmtrace_look_at(tid, address));
    } else {
        let file = file_of(request, opcode);
        thread::elsewhere(thread, |tid| mmtrace_describe(tid, file));
    }
    let multishot: u16 = read(request, kernel!(uring_message_flags));
    let receives = opcode == RECV || opcode == RECVMSG;
    if opcode == READ_MULTISHOT || (receives && multishot & RECV_MULTISHOT != 0) {
        // Its completions, all but the last, do not tell of which request they are.
        lose(Lost::Completions);
    }
    let key = key_of(request);
    thread::elsewhere(thread, |tid| {
        request::mmtrace_request(tid, key.owner, key.id)
    })
}

/// Size and offset of a request.
#[inline(always)]
fn measure(thread: &mut Thread, request: u64, opcode: u8) {
    let call = &mut thread.call;
    call.offset = u64::MAX;
    call.size_bytes = match opcode {
        READV | WRITEV | READV_FIXED | WRITEV_FIXED => {
            call.offset = read(request, kernel!(uring_rw_offset));
            let count: u32 = read(request, kernel!(uring_rw_size));
            mmtrace_vector_bytes(read(request, kernel!(uring_rw_address)), u64::from(count))
        }
        READ_FIXED | WRITE_FIXED | READ_ | WRITE_ | READ_MULTISHOT => {
            call.offset = read(request, kernel!(uring_rw_offset));
            u64::from(read::<u32>(request, kernel!(uring_rw_size)))
        }
        SENDMSG | RECVMSG | SENDMSG_ZC => {
            mmtrace_message_bytes(read(request, kernel!(uring_message)))
        }
        SEND | RECV | SEND_ZC => u64::from(read::<u32>(request, kernel!(uring_message_size))),
        FADVISE | MADVISE => {
            if opcode == FADVISE {
                call.offset = read(request, kernel!(uring_fadvise_offset));
            }
            if kernel!(uring_fadvise_size_bytes) == 4 {
                u64::from(read::<u32>(request, kernel!(uring_fadvise_size)))
            } else {
                read(request, kernel!(uring_fadvise_size))
            }
        }
        SPLICE_ | TEE => {
            if opcode == SPLICE_ {
                call.offset = read(request, kernel!(uring_splice_offset));
            }
            read(request, kernel!(uring_splice_size))
        }
        _ => 0,
    }
    .min(MAX_RW_COUNT);
}

/// The `struct file` that a request is about.
#[inline(always)]
fn file_of(request: u64, opcode: u8) -> u64 {
    let splices = opcode == SPLICE_ || opcode == TEE;
    let known = pointer(request, kernel!(uring_file));
    if known != 0 && !splices {
        return known;
    }
    let (descriptor, fixed): (i32, bool) = if splices {
        let flags: u32 = read(request, kernel!(uring_splice_flags));
        (
            read::<u32>(request, kernel!(uring_splice_fd)) as i32,
            flags & SPLICE_FIXED != 0,
        )
    } else {
        let flags: u32 = read(request, kernel!(uring_flags));
        (
            read::<u32>(request, kernel!(uring_fd)) as i32,
            flags & FIXED_FILE != 0,
        )
    };
    if !fixed {
        return file::of_descriptor(descriptor);
    }
    let context = pointer(request, kernel!(uring_context));
    let index = u64::from(descriptor as u32);
    let file = if has(kernel!(uring_nodes)) {
        let node = pointer(pointer(context, kernel!(uring_nodes)) + index * 8, 0);
        pointer(node, kernel!(uring_node_file))
    } else {
        pointer(pointer(context, kernel!(uring_files)) + index * 8, 0)
    };
    // The low bits say what kind of file it is.
    file & !7
}

/// Makes the current thread's call one on a file: its path says what it does, and is made the one
/// that it is on a file of this kind.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_describe(tid: u32, pointer: u64) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let does = thread.call.path;
    if pointer == 0 {
        thread.call.file = FileKey::default();
        thread.call.file_pointer = 0;
        if does == READ || does == WRITE {
            thread.call.path = OTHER;
        }
        return 0;
    }
    let inode = file::inode_of(pointer);
    thread.call.file_pointer = pointer;
    thread.call.file = file::key_of_inode(inode);
    if does == READ || does == WRITE {
        thread.call.path = file::path_for(pointer, inode, does);
    }
    file::tell_name(thread.call.file, pointer, inode);
    0
}

/// `io_issue_sqe(request, flags)`: from here on the thread works for this request.
pub(crate) fn issued(thread: &mut Thread, request: u64) {
    thread::hit(thread, Program::UringIssue);
    copy::put(thread);
    let key = key_of(request);
    request::work_for(thread, &key);
    thread.call.active = 1;
}

/// Makes the call of the current thread, if it is a worker, the request that it works for now, where
/// no hook tells.
#[inline(always)]
pub(crate) fn turn_worker(thread: &mut Thread) {
    if kernel!(look_up_workers) != 0 && thread.io_worker != 0 {
        thread::elsewhere(thread, |tid| mmtrace_turn_worker(tid));
    }
}

/// As [`turn_worker`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_turn_worker(tid: u32) -> u32 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let request = request_of_worker(thread.task);
    // What polls a ring is told which request it is at as it submits that.
    if request == NO_WORKER {
        return 0;
    }
    let key = key_of(request);
    // The requests of a worker were submitted by one thread, each at another time.
    if thread.call.active != 0 && request::submitted_ns(&key) == thread.call.request_ns {
        return 0;
    }
    copy::put(thread);
    request::work_for(thread, &key);
    thread.call.active = 1;
    0
}

/// The path of what a thread works for, outside of faults. Changes nothing.
#[inline(always)]
pub(crate) fn path_now(thread: &Thread) -> u32 {
    if kernel!(look_up_workers) != 0 && thread.io_worker != 0 {
        let request = request_of_worker(thread.task);
        if request != NO_WORKER {
            return request::path_of(&key_of(request));
        }
    }
    if thread.call.active != 0 {
        thread.call.path
    } else {
        OTHER
    }
}

/// In place of a request: the thread is none of io_uring's workers.
const NO_WORKER: u64 = u64::MAX;

/// The request that a thread works for, as one of io_uring's workers; 0: none at the moment. `cur_work`
/// is set before a worker begins with a request, or goes on to one that was linked to it, and cleared
/// when it is done, before the request's memory may be used again (`io_worker_handle_work` in
/// io_uring/io-wq.c).
#[inline(always)]
fn request_of_worker(task: u64) -> u64 {
    let worker = pointer(task, kernel!(task_worker));
    if worker == 0 || !has(kernel!(worker_work)) || !thread::is_io_worker(task) {
        return NO_WORKER;
    }
    match pointer(worker, kernel!(worker_work)) {
        0 => 0,
        work => work - u64::from(kernel!(uring_work)),
    }
}

/// A request is complete, with this result. In any context.
#[inline(always)]
pub(crate) fn completed(context: u64, request: u64, user_data: u64, result: i32) {
    let key = key(context, request, user_data);
    if request::completed(key.owner, key.id, i64::from(result)) {
        hit(Program::UringComplete);
    }
}
