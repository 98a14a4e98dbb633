//! Processes: what is followed from its first instruction to its last.

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_probe_read_user, programs::RawTracePointContext,
};
use mmtrace_common::{
    CALIBRATION_PROCESS, EventHeader, EventKind, Lost, ProcessEvent, Program, Thread, Truth, event,
};

use crate::{
    account::flush_thread,
    copy, fault,
    kernel::{kernel, pointer, read},
    maps::{EVENTS, HITS, TRUTHS, atomic_add, generations, lose},
    thread::{self, fault_counters, now_ns},
};

/// The number of a process that starts now: see `RowKey::process`.
pub(crate) fn number(tgid: u32) -> u64 {
    u64::from(tgid) << 32 | u64::from((now_ns() >> 10) as u32)
}

/// A task has been made, and has not run yet. Context: its parent.
#[inline(always)]
pub(crate) fn forked(child: u64, program: Program) {
    let Some(parent) = thread::current() else {
        return;
    };
    thread::hit(parent, program);
    let tid: u32 = read(child, kernel!(task_pid));
    let tgid: u32 = read(child, kernel!(task_tgid));
    let image = parent.stacks.image;
    // A child that shares the address space (vfork) changes its parent's mappings.
    if let Some(generations) = generations(parent.tgid) {
        generations.mappings = generations.mappings.wrapping_add(1);
    }
    if tgid == parent.tgid {
        thread::follow(tid, tgid, child, parent.process, image);
    } else {
        let process = number(tgid);
        thread::follow(tid, tgid, child, process, image);
        tell_start(process, parent.process, tgid, child);
    }
}

/// `sched_process_exec`: the program has been replaced. A thread that is not the first takes over
/// the first one's tid (`de_thread` in fs/exec.c).
#[inline(always)]
pub(crate) fn executed(ctx: &impl EbpfContext, old_tid: u32) {
    let tid = ctx.pid();
    if old_tid != tid {
        let Some(thread) = thread::by_tid(old_tid) else {
            return;
        };
        // The first thread is dead, and not freed yet: its own end would not find it any more.
        let mut first = thread::by_tid(tid);
        if let Some(first) = &mut first {
            hand_over(first, thread);
            end_thread(first);
        }
        if let Some(entry) = first.or_else(|| thread::add(tid)) {
            thread::copy(thread, entry);
            entry.tid = tid;
        }
        thread::mmtrace_remove(old_tid);
    }
    let Some(thread) = thread::current() else {
        return;
    };
    thread::hit(thread, Program::Exec);
    fault::settle(thread);
    thread.fd.fd = -1;
    thread.mapping.end = 0;
    thread.unnamed = 1;
    thread.stacks.image += 1;
    if let Some(generations) = generations(thread.tgid) {
        generations.fds = generations.fds.wrapping_add(1);
        generations.mappings = generations.mappings.wrapping_add(1);
        generations.code = generations.code.wrapping_add(1);
    }
    tell_command(thread.process);
    // Our own reading of user memory may have raised page_fault_kernel, and no more.
    thread.fault.active = 0;
}

/// Hands faults over that were counted for the first thread, by its tid, but charged to the one
/// that has taken it over meanwhile.
#[inline(always)]
fn hand_over(first: &mut Thread, thread: &mut Thread) {
    let charged = fault_counters(first.task);
    for kind in 0..2 {
        let more = first.faults_counted[kind] + first.faults_before[kind];
        let more = more.saturating_sub(charged[kind]);
        first.faults_counted[kind] -= more;
        thread.faults_counted[kind] += more;
    }
}

/// `sched_process_exit`: in `do_exit`, before the files are gone (and before the address space is,
/// 6.16 on), so that the thread still does work that belongs to it.
pub(crate) fn exiting() {
    let Some(thread) = thread::current() else {
        return;
    };
    thread::hit(thread, Program::Exit);
    let task = thread::current_task();
    copy::put(thread);
    thread.call.active = 0;
    fault::reconcile(thread);
    thread.fault.active = 0;
    flush_thread(thread);
    let signal = pointer(task, kernel!(task_signal));
    if read::<u32>(signal, kernel!(signal_live)) == 0 {
        let group = read::<u32>(signal, kernel!(signal_group_exit_code));
        let own = read::<u32>(task, kernel!(task_exit_code));
        let status = if group != 0 { group } else { own };
        tell(ProcessEvent {
            header: header(EventKind::Ended, 0),
            process: thread.process,
            at_ns: now_ns(),
            exit_status: status,
            ..ProcessEvent::default()
        });
    }
}

/// `sched_process_free`: nothing can be charged to the thread any more; in an RCU callback.
pub(crate) fn freed(ctx: &RawTracePointContext) {
    let task: u64 = ctx.arg(0);
    let tid: u32 = read(task, kernel!(task_pid));
    let Some(thread) = thread::by_tid(tid) else {
        return;
    };
    // The tid may be another thread's by now.
    if thread.task == task {
        thread::hit(thread, Program::Free);
        end_thread(thread);
        thread::mmtrace_remove(tid);
    }
}

/// Puts what is left of a thread into its rows, and the kernel's own counters beside them.
#[inline(never)]
pub(crate) fn end_thread(thread: &mut Thread) {
    fault::reconcile(thread);
    copy::put(thread);
    flush_thread(thread);
    if thread.process != CALIBRATION_PROCESS {
        for (index, hits) in thread.hits.0.iter().enumerate() {
            if let Some(sum) = HITS.get_ptr_mut(index as u32) {
                // SAFETY: a valid entry.
                unsafe { atomic_add(sum, *hits) };
            }
        }
    }
    let mut truth = TRUTHS.get_ptr_mut(thread.process);
    if truth.is_none() {
        let _exists = TRUTHS.insert(thread.process, Truth::default(), 1);
        truth = TRUTHS.get_ptr_mut(thread.process);
    }
    let Some(truth) = truth else {
        lose(Lost::Truths);
        return;
    };
    let [minor, major] = fault_counters(thread.task);
    let disk = read::<u64>(thread.task, kernel!(task_read_bytes));
    // SAFETY: a live entry of TRUTHS, from which nothing is deleted.
    unsafe {
        atomic_add(
            &raw mut (*truth).minor_faults,
            minor - thread.faults_before[0],
        );
        atomic_add(
            &raw mut (*truth).major_faults,
            major - thread.faults_before[1],
        );
        atomic_add(
            &raw mut (*truth).disk_read_bytes,
            disk - thread.disk_read_bytes_before,
        );
        atomic_add(&raw mut (*truth).threads, 1);
    }
}

/// Tells that a process starts.
pub(crate) fn tell_start(process: u64, parent: u64, tgid: u32, task: u64) {
    tell(ProcessEvent {
        header: header(EventKind::Started, 0),
        process,
        parent,
        at_ns: now_ns(),
        pid: tgid,
        exit_status: 0,
        faults_before: fault_counters(task),
        disk_read_bytes_before: read(task, kernel!(task_read_bytes)),
    });
}

/// A process's event with its command line, as it lies in the ring buffer.
#[repr(C)]
struct CommandRecord {
    event: ProcessEvent,
    text: [u8; event::ARGUMENT_BYTES],
}

/// Tells the command line that a process runs now: zero-terminated strings, one after another.
#[inline(never)]
fn tell_command(process: u64) {
    let Some(mut record) = EVENTS.reserve::<CommandRecord>(0) else {
        lose(Lost::ProcessEvents);
        return;
    };
    let mm = pointer(thread::current_task(), kernel!(task_mm));
    let start = pointer(mm, kernel!(mm_arg_start));
    let end = pointer(mm, kernel!(mm_arg_end));
    let mut length = if end > start { end - start } else { 0 };
    if length > event::ARGUMENT_BYTES as u64 {
        length = event::ARGUMENT_BYTES as u64;
    }
    let record_pointer = record.as_mut_ptr();
    // SAFETY: the reserved space is as large as a CommandRecord, which is plain integers; the part
    // of its text that user space reads is written here.
    let target = unsafe { &mut *record_pointer };
    // SAFETY: writes at most ARGUMENT_BYTES into the text; fails on a bad address.
    let failed = unsafe {
        bpf_probe_read_user(
            target.text.as_mut_ptr().cast(),
            length as u32,
            start as *const _,
        )
    };
    if failed != 0 {
        length = 0;
    }
    target.event = ProcessEvent {
        header: header(EventKind::Executed, length as u32),
        process,
        at_ns: now_ns(),
        ..ProcessEvent::default()
    };
    record.submit(0);
}

fn header(kind: EventKind, text_bytes: u32) -> EventHeader {
    EventHeader {
        kind: kind as u32,
        text_bytes,
    }
}

#[inline(never)]
fn tell(event: ProcessEvent) {
    if EVENTS.output::<ProcessEvent>(&event, 0).is_err() {
        lose(Lost::ProcessEvents);
    }
}
