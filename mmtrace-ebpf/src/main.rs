//! mmtrace's kernel programs: each is named here, with what it hooks; what it does is in the
//! module of its hook family.
#![no_std]
#![no_main]
// For the atomic addition (see maps::atomic_add): BPF's assembly is not stable in Rust yet.
#![feature(asm_experimental_arch)]

mod account;
mod ahead;
mod aio;
mod call;
mod copy;
mod cow;
mod disk;
mod fault;
mod file;
mod heat;
mod kernel;
mod mapping;
mod maps;
mod message;
mod process;
mod recall;
mod request;
mod sample;
mod sampling;
mod special;
mod stack;
mod thread;
mod unwind;
mod uring;

use aya_ebpf::{
    macros::{fentry, fexit, kprobe, kretprobe, perf_event, raw_tracepoint, tracepoint},
    programs::{
        FEntryContext, FExitContext, PerfEventContext, ProbeContext, RawTracePointContext,
        RetProbeContext, TracePointContext,
    },
};
use mmtrace_common::{Program, Thread};

use call::{Copied, InPlace};

macro_rules! raw_tracepoints {
    ($($(#[$doc:meta])* $name:ident => $function:path;)*) => {
        $(
            $(#[$doc])*
            #[raw_tracepoint]
            pub fn $name(ctx: RawTracePointContext) -> i32 {
                $function(&ctx);
                0
            }
        )*
    };
}

raw_tracepoints! {
    /// `sys_enter(regs, number)`.
    sys_enter => call_begins;
    /// As `sys_enter`, 6.2 on.
    sys_enter_in_place => call_begins_in_place;
    /// `sys_exit(regs, returned)`.
    sys_exit => call_ends;
    /// `sched_process_fork(parent, child)`.
    sched_process_fork => thread_begins;
    /// `sched_process_exec(task, old_pid, binprm)`.
    sched_process_exec => program_begins;
    /// `sched_process_exit(task)`.
    sched_process_exit => thread_ends;
    /// `sched_process_free(task)`.
    sched_process_free => process::freed;
    /// `sched_switch(preempt, leaves, comes)`.
    sched_switch => disk::switched;
    /// `mm_filemap_add_to_page_cache(folio)`.
    cache_filled => disk::cache_filled;
    /// `block_bio_queue(bio)`, 5.12 on.
    bio_queue => bio_queued;
    /// `block_bio_queue(queue, bio)`, before 5.12.
    bio_queue_second => bio_queued_second;
    /// `io_uring_submit_req(request)`; on 6.1 `io_uring_submit_sqe(request, ..)`.
    uring_submit => uring_submits;
    /// `io_uring_submit_sqe(context, request, ..)`, before 6.0.
    uring_submit_second => uring_submits_second;
    /// `io_uring_complete(context, request, completion)`, 6.18 on.
    uring_complete_cqe => uring_completes_cqe;
    /// `io_uring_complete(context, request, user_data, result, ..)`, 6.1 and 6.12.
    uring_complete => uring_completes;
    /// `io_uring_complete(context, user_data, result, ..)`, 5.15.
    uring_complete_nameless => uring_completes_nameless;
    /// `page_fault_user(address, regs, error)`: in user mode.
    page_fault_user => fault_in_user_mode;
    /// `page_fault_kernel(address, regs, error)`: the kernel's own access; to user memory if it is
    /// a fault that concerns us.
    page_fault_kernel => fault_in_kernel;
}

fn call_begins(ctx: &RawTracePointContext) {
    call::enter(ctx, || Copied::from(ctx.arg(0)), ctx.arg(1));
}

fn call_begins_in_place(ctx: &RawTracePointContext) {
    call::enter(ctx, || InPlace::at(ctx.arg(0)), ctx.arg(1));
}

fn call_ends(ctx: &RawTracePointContext) {
    call::exit(ctx, ctx.arg(1));
}

/// Where the records of the events `raw_syscalls:sys_enter` and `sys_exit` have the call's number,
/// and the second what it returned: behind the header that all events have.
const EVENT_NUMBER: usize = 8;
const EVENT_RETURNED: usize = 16;

/// The event `raw_syscalls:sys_enter`. Its programs run with preemption off on every kernel, those
/// of the tracepoint itself do not from 7.0 on, and are left out while a preempted task is inside.
#[tracepoint]
pub fn sys_enter_event(ctx: TracePointContext) -> u32 {
    // SAFETY: the helper checks the address, which is inside the record.
    if let Ok(number) = unsafe { ctx.read_at(EVENT_NUMBER) } {
        call::enter(&ctx, InPlace::of_current, number);
    }
    0
}

/// The event `raw_syscalls:sys_exit`: see `sys_enter_event`.
#[tracepoint]
pub fn sys_exit_event(ctx: TracePointContext) -> u32 {
    // SAFETY: the helper checks the address, which is inside the record.
    if let Ok(returned) = unsafe { ctx.read_at(EVENT_RETURNED) } {
        call::exit(&ctx, returned);
    }
    0
}

fn program_begins(ctx: &RawTracePointContext) {
    process::executed(ctx, ctx.arg::<i32>(1) as u32);
}

/// Where the record of `sched:sched_process_exec` has the thread's number before.
const EVENT_OLD_TID: usize = 16;

/// The event `sched:sched_process_exec`: see `sys_enter_event`.
#[tracepoint]
pub fn sched_process_exec_event(ctx: TracePointContext) -> u32 {
    // SAFETY: the helper checks the address, which is inside the record.
    if let Ok(old_tid) = unsafe { ctx.read_at(EVENT_OLD_TID) } {
        process::executed(&ctx, old_tid);
    }
    0
}

fn thread_begins(ctx: &RawTracePointContext) {
    process::forked(ctx.arg(1), Program::Fork);
}

/// `wake_up_new_task(task)`: by `kernel_clone` directly after `sched_process_fork`, and for the
/// threads that io_uring makes (kernel/fork.c).
#[kprobe]
pub fn new_task_kprobe(ctx: ProbeContext) -> u32 {
    process::forked(ctx.arg(0).unwrap_or(0), Program::NewTask);
    0
}

fn thread_ends(_ctx: &RawTracePointContext) {
    process::exiting();
}

/// The event `sched:sched_process_exit`: see `sys_enter_event`.
#[tracepoint]
pub fn sched_process_exit_event(_ctx: TracePointContext) -> u32 {
    process::exiting();
    0
}

/// The event `filemap:mm_filemap_add_to_page_cache`, for what the tracepoint's own program was left
/// out of.
#[tracepoint]
pub fn cache_filled_event(ctx: TracePointContext) -> u32 {
    disk::cache_filled_event(&ctx);
    0
}

/// The event `block:block_bio_queue`, for what the tracepoint's own program was left out of.
#[tracepoint]
pub fn bio_queue_event(ctx: TracePointContext) -> u32 {
    disk::submitted_event(&ctx);
    0
}

fn bio_queued(ctx: &RawTracePointContext) {
    disk::submitted(ctx, ctx.arg(0), Program::BioQueue);
}

fn bio_queued_second(ctx: &RawTracePointContext) {
    disk::submitted(ctx, ctx.arg(1), Program::BioQueue);
}

fn uring_submits(ctx: &RawTracePointContext) {
    uring::submitted(ctx.arg(0));
}

fn uring_submits_second(ctx: &RawTracePointContext) {
    uring::submitted(ctx.arg(1));
}

fn uring_completes_cqe(ctx: &RawTracePointContext) {
    let result: u32 = kernel::read(ctx.arg(2), kernel::kernel!(uring_cqe_result));
    uring::completed(ctx.arg(0), ctx.arg(1), 0, result as i32);
}

fn uring_completes(ctx: &RawTracePointContext) {
    uring::completed(ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
}

fn uring_completes_nameless(ctx: &RawTracePointContext) {
    uring::completed(ctx.arg(0), 0, ctx.arg(1), ctx.arg(2));
}

/// The event `io_uring:io_uring_submit_req`: see `sys_enter_event`.
#[tracepoint]
pub fn uring_submit_event(ctx: TracePointContext) -> u32 {
    uring::submitted(disk::in_record(&ctx, kernel::kernel!(event_uring_request)));
    0
}

/// The event `io_uring:io_uring_complete`: see `sys_enter_event`.
#[tracepoint]
pub fn uring_complete_event(ctx: TracePointContext) -> u32 {
    let result: u32 = disk::in_record(&ctx, kernel::kernel!(event_uring_result));
    let request = disk::in_record(&ctx, kernel::kernel!(event_uring_completed));
    uring::completed(0, request, 0, result as i32);
    0
}

/// Addresses from here on are the kernel's.
const KERNEL_HALF: u64 = 1 << 63;

fn fault_in_user_mode(ctx: &RawTracePointContext) {
    if let Some(thread) = user_fault(ctx, Program::FaultUser) {
        if thread.fault.active != 0 {
            fault::reconcile_and_resolve(thread);
        }
        fault::begin(thread, ctx.arg(0));
    }
}

fn fault_in_kernel(ctx: &RawTracePointContext) {
    if let Some(thread) = user_fault(ctx, Program::FaultKernel) {
        // What get_user_pages has taken for the call until now is none of this fault's.
        fault::reconcile_and_resolve(thread);
        fault::begin(thread, ctx.arg(0));
    }
}

#[inline(always)]
fn user_fault(ctx: &RawTracePointContext, program: Program) -> Option<&'static mut Thread> {
    if ctx.arg::<u64>(0) >= KERNEL_HALF {
        return None;
    }
    let thread = thread::current()?;
    if thread.stacks.taking != 0 {
        return None;
    }
    thread::hit(thread, program);
    Some(thread)
}

/// The software event `page-faults-min`.
#[perf_event]
pub fn fault_minor(ctx: PerfEventContext) -> i32 {
    fault::charged(&ctx, false);
    0
}

/// The software event `page-faults-maj`.
#[perf_event]
pub fn fault_major(ctx: PerfEventContext) -> i32 {
    fault::charged(&ctx, true);
    0
}

/// The software event `cpu-clock`, so many times a second on each CPU.
#[perf_event]
pub fn kernel_sample(ctx: PerfEventContext) -> i32 {
    sample::taken(&ctx);
    0
}

/// Whatever makes all copies: see `copy::any`.
#[perf_event]
pub fn copy_any(ctx: PerfEventContext) -> i32 {
    copy::any(ctx.ctx);
    0
}

/// `_copy_to_iter(address, bytes, iterator)`.
#[perf_event]
pub fn copy_to_iter(ctx: PerfEventContext) -> i32 {
    copy::to_iter(ctx.ctx);
    0
}

/// `_copy_from_iter(address, bytes, iterator)`.
#[perf_event]
pub fn copy_from_iter(ctx: PerfEventContext) -> i32 {
    copy::from_iter(ctx.ctx);
    0
}

/// `copy_folio_from_iter_atomic(folio, offset, bytes, iterator)`.
#[perf_event]
pub fn copy_from_iter_atomic(ctx: PerfEventContext) -> i32 {
    copy::from_iter_atomic(ctx.ctx);
    0
}

/// `_copy_to_user(to, from, bytes)`.
#[perf_event]
pub fn copy_to_user(ctx: PerfEventContext) -> i32 {
    copy::to_user(ctx.ctx);
    0
}

/// `handle_mm_fault(vma, address, flags, regs)`, 5.9 on; `fault_minor` and `fault_major` tell the
/// end.
#[fentry]
pub fn fault_enter(ctx: FEntryContext) -> i32 {
    if let Some(thread) = thread::current() {
        thread::hit(thread, Program::FaultEnter);
        fault::settle_before_another(thread);
        fault::begin_on(thread, ctx.arg(0), ctx.arg(1), ctx.arg(2));
        thread.fault.silent = u32::from(fault::is_null(thread, ctx.arg(3)));
    }
    0
}

/// As `fault_enter`.
#[kprobe]
pub fn fault_enter_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(thread) = thread::current() {
        thread::hit(thread, Program::FaultEnter);
        fault::settle_before_another(thread);
        fault::begin_on(
            thread,
            ctx.arg(0).unwrap_or(0),
            ctx.arg(1).unwrap_or(0),
            ctx.arg(2).unwrap_or(0),
        );
        thread.fault.silent = u32::from(ctx.arg::<u64>(3).unwrap_or(0) == 0);
    }
    0
}

/// `io_issue_sqe(request, flags)`.
#[fentry]
pub fn uring_issue(ctx: FEntryContext) -> i32 {
    if let Some(thread) = thread::current_or_worker() {
        let request = fault::as_number(thread, ctx.arg(0));
        uring::issued(thread, request);
    }
    0
}

/// As `uring_issue`.
#[kprobe]
pub fn uring_issue_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(thread) = thread::current_or_worker() {
        uring::issued(thread, ctx.arg(0).unwrap_or(0));
    }
    0
}

/// `io_submit_one(context, iocb, compat)`.
#[fentry]
pub fn aio_submit(ctx: FEntryContext) -> i32 {
    if let Some(thread) = thread::current() {
        let address = fault::as_number(thread, ctx.arg(1));
        aio::turn(thread, address);
    }
    0
}

/// As `aio_submit`.
#[kprobe]
pub fn aio_submit_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(thread) = thread::current() {
        aio::turn(thread, ctx.arg(1).unwrap_or(0));
    }
    0
}

/// `aio_complete_rw(kiocb, result)`: in any context. The request is where its `kiocb` is.
#[fentry]
pub fn aio_complete(ctx: FEntryContext) -> i32 {
    let request: u64 = ctx.arg(0);
    aio::complete(
        kernel::read(request, kernel::kernel!(aio_context)),
        kernel::read(request, kernel::kernel!(aio_object)),
        ctx.arg(1),
    );
    0
}

/// As `aio_complete`.
#[kprobe]
pub fn aio_complete_kprobe(ctx: ProbeContext) -> u32 {
    let request: u64 = ctx.arg(0).unwrap_or(0);
    aio::complete(
        kernel::read(request, kernel::kernel!(aio_context)),
        kernel::read(request, kernel::kernel!(aio_object)),
        ctx.arg(1).unwrap_or(0),
    );
    0
}

/// `submit_bio(bio)`.
#[kprobe]
pub fn submit_bio_kprobe(ctx: ProbeContext) -> u32 {
    disk::submitted(&ctx, ctx.arg(0).unwrap_or(0), Program::SubmitBio);
    0
}

/// Pages of a whole middle directory entry: what `do_set_pmd` maps.
const PMD_PAGES: u64 = 512;

/// `set_pte_range(vmf, folio, page, nr, address)`, 6.6 on: `nr` pages that were not mapped are.
/// Source: mm/memory.c; called by `filemap_map_pages` and `finish_fault` alone.
#[fentry]
pub fn set_pte_range(ctx: FEntryContext) -> i32 {
    let pages = u64::from(ctx.arg::<u32>(3));
    fault::mapped(Program::SetPteRange, pages, ctx.arg(4));
    0
}

/// As `set_pte_range`.
#[kprobe]
pub fn set_pte_range_kprobe(ctx: ProbeContext) -> u32 {
    let pages = u64::from(ctx.arg::<u32>(3).unwrap_or(0));
    fault::mapped(Program::SetPteRange, pages, ctx.arg(4).unwrap_or(0));
    0
}

/// `do_set_pte(vmf, page, address)`, 5.12 to 6.5: one page.
#[fentry]
pub fn do_set_pte(ctx: FEntryContext) -> i32 {
    fault::mapped(Program::SetPte, 1, ctx.arg(2));
    0
}

/// As `do_set_pte`.
#[kprobe]
pub fn do_set_pte_kprobe(ctx: ProbeContext) -> u32 {
    fault::mapped(Program::SetPte, 1, ctx.arg(2).unwrap_or(0));
    0
}

/// `alloc_set_pte(vmf, page)`, before 5.12: one page, if it returns 0.
#[fexit]
pub fn alloc_set_pte(ctx: FExitContext) -> i32 {
    if ctx.arg::<u32>(2) == 0 {
        let address = kernel::pointer(ctx.arg(0), kernel::kernel!(vmf_address));
        fault::mapped(Program::AllocSetPte, 1, address);
    }
    0
}

/// As `alloc_set_pte`, but that it does not know where: `readahead_unused_bytes` is null with it.
#[kretprobe]
pub fn alloc_set_pte_kretprobe(ctx: RetProbeContext) -> u32 {
    if ctx.ret::<u32>() == 0 {
        fault::mapped(Program::AllocSetPte, 1, 0);
    }
    0
}

/// `do_set_pmd(vmf, page)`, before 6.16: a whole entry, if it returns 0.
#[fexit]
pub fn do_set_pmd_2(ctx: FExitContext) -> i32 {
    if ctx.arg::<u32>(2) == 0 {
        fault::mapped(Program::SetPmd, PMD_PAGES, 0);
    }
    0
}

/// `do_set_pmd(vmf, folio, page)`, 6.16 on.
#[fexit]
pub fn do_set_pmd_3(ctx: FExitContext) -> i32 {
    if ctx.arg::<u32>(3) == 0 {
        fault::mapped(Program::SetPmd, PMD_PAGES, 0);
    }
    0
}

/// As `do_set_pmd_2` and `_3`.
#[kretprobe]
pub fn do_set_pmd_kretprobe(ctx: RetProbeContext) -> u32 {
    if ctx.ret::<u32>() == 0 {
        fault::mapped(Program::SetPmd, PMD_PAGES, 0);
    }
    0
}

/// `do_wp_page(vmf)`: a write to a page that is there and may not be written.
#[kprobe]
pub fn do_wp_page_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(thread) = thread::current_or_worker() {
        cow::write_protected(thread, ctx.arg(0).unwrap_or(0));
    }
    0
}

/// `copy_mc_to_kernel(to, from, bytes)`.
#[kprobe]
pub fn copy_mc_to_kernel_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(thread) = thread::current_or_worker() {
        cow::page_copied(thread, ctx.arg(2).unwrap_or(0));
    }
    0
}

/// `wp_page_copy(vmf)`.
#[kprobe]
pub fn wp_page_copy_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(thread) = thread::current_or_worker() {
        cow::replaced(thread, ctx.arg(0).unwrap_or(0));
    }
    0
}

/// `finish_fault(vmf)`.
#[kprobe]
pub fn finish_fault_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(thread) = thread::current_or_worker() {
        cow::brought_in(thread, ctx.arg(0).unwrap_or(0));
    }
    0
}

/// `copy_user_large_folio(to, from, address, vma)`, 6.4 on.
#[kprobe]
pub fn copy_user_large_folio_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(thread) = thread::current_or_worker() {
        let bytes = file::folio_bytes(ctx.arg(0).unwrap_or(0));
        cow::huge_page_copied(thread, Program::CopyLargeFolio, bytes);
    }
    0
}

/// `copy_user_huge_page(to, from, address, vma, pages)`, before 6.4.
#[kprobe]
pub fn copy_user_huge_page_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(thread) = thread::current_or_worker() {
        let pages: u32 = ctx.arg(4).unwrap_or(0);
        let bytes = u64::from(pages) << kernel::kernel!(page_shift);
        cow::huge_page_copied(thread, Program::CopyHugePage, bytes);
    }
    0
}

/// The kernel refuses most helpers to programs under another licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the verifier refuses a program that could get here, so that none does.
    unsafe { core::hint::unreachable_unchecked() }
}
