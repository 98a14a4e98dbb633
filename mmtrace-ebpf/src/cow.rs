//! Pages that the kernel copies for itself: copy on write.
//!
//! Three ways lead to a copy (mm/memory.c, mm/hugetlb.c):
//!
//! - A page that is there and may not be written is written: `do_wp_page`. It goes on with the page
//!   as it is, or replaces it (`wp_page_copy`). The zero page is replaced by a cleared one, without
//!   a copy; any other by a copy of one page, also where it is part of a large folio: what maps a
//!   huge page is split before (`do_huge_pmd_wp_page`, from 5.8).
//! - A page of a private file mapping that is not there yet is written: `do_cow_fault` copies the
//!   page cache's page before anything is mapped, and hands the copy to `finish_fault`.
//! - A huge page of hugetlbfs: `hugetlb_wp` (on 5.10 `hugetlb_cow`) copies all of it.
//!
//! A copy counts when it is made, also if the fault is then tried again.

use mmtrace_common::{FileKey, Program, Thread};

use crate::{
    account::row,
    fault,
    kernel::{kernel, pointer, read},
    stack,
    thread::{self, charge},
};

/// `do_wp_page`: copies of a page that follow in this fault are for it. Nothing else is copied
/// there: compaction, which also copies pages, is for large folios, and a new page is a small one.
#[inline(always)]
pub(crate) fn write_protected(thread: &mut Thread, vmf: u64) {
    thread::hit(thread, Program::WpPage);
    begun(thread, vmf);
    thread.fault.write_protected = 1;
}

/// `copy_mc_to_kernel`, which copies a page of a write fault from 6.1 on (`copy_mc_user_highpage` in
/// include/linux/highmem.h). Others call it as well: only what `do_wp_page` copies counts.
#[inline(always)]
pub(crate) fn page_copied(thread: &mut Thread, bytes: u32) {
    thread::hit(thread, Program::CopyPage);
    fault::settle(thread);
    if thread.fault.active != 0 && thread.fault.write_protected != 0 {
        copied(thread, u64::from(bytes));
    }
}

/// `wp_page_copy`: `vmf->page` is null for the zero page (`vm_normal_page`).
#[inline(always)]
pub(crate) fn replaced(thread: &mut Thread, vmf: u64) {
    thread::hit(thread, Program::WpPageCopy);
    if pointer(vmf, kernel!(vmf_page)) != 0 {
        begun(thread, vmf);
        copied(thread, 1 << kernel!(page_shift));
    }
}

/// `finish_fault`: by now `vmf->cow_page` is a copy, if there is one.
#[inline(always)]
pub(crate) fn brought_in(thread: &mut Thread, vmf: u64) {
    thread::hit(thread, Program::FinishFault);
    if pointer(vmf, kernel!(vmf_cow_page)) != 0 {
        begun(thread, vmf);
        copied(thread, 1 << kernel!(page_shift));
    }
}

/// `copy_user_large_folio` or `copy_user_huge_page`: in a fault, or at `fork` for a page that is
/// pinned.
#[inline(always)]
pub(crate) fn huge_page_copied(thread: &mut Thread, program: Program, bytes: u64) {
    thread::hit(thread, program);
    copied(thread, bytes);
}

/// Makes up for a fault's beginning that was missed (see [`fault`]).
#[inline(always)]
fn begun(thread: &mut Thread, vmf: u64) {
    fault::settle(thread);
    if thread.fault.active == 0 {
        let vma = pointer(vmf, kernel!(vmf_vma));
        let address = pointer(vmf, kernel!(vmf_address));
        fault::begin_on(thread, vma, address, read(vmf, kernel!(vmf_flags)));
        // Whether it raises an event when it is done is not known: found in the counters if not.
        thread.fault.silent = 1;
    }
}

#[inline(always)]
fn copied(thread: &mut Thread, bytes: u64) {
    let charge = charge(thread, FileKey::default(), false);
    row(thread, charge.slot, charge.path, charge.file).copied_in_kernel_bytes += bytes;
    stack::page_copied(thread, bytes);
}
