//! From an address to its mapping, without locks and without helpers that may refuse: the thread
//! that faults holds its mapping's lock (or the whole address space's), so that the mapping cannot
//! go away. The tree above it may change, as for the kernel's own lockless walk (`mas_walk` under
//! RCU in `lock_vma_under_rcu`): other threads map and unmap meanwhile. A walk that met such a
//! change is made again from the root, as the kernel makes it.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::kernel::{has, kernel, pointer};

/// How often a walk is begun before the mapping counts as not found. Each time, another thread
/// must have replaced a node on the way in the few hundred ns that a walk takes.
const ATTEMPTS: u32 = 16;

/// The `vm_area_struct` of an address, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_find(mm: u64, address: u64) -> u64 {
    for _ in 0..ATTEMPTS {
        let vma = mmtrace_walk(mm, address);
        if vma != 0 {
            return vma;
        }
    }
    0
}

/// The mapping of an address that one walk down the tree finds, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_walk(mm: u64, address: u64) -> u64 {
    if mm == 0 {
        return 0;
    }
    let vma = if has(kernel!(mm_maple_root)) {
        in_maple_tree(pointer(mm, kernel!(mm_maple_root)), address)
    } else {
        in_rb_tree(pointer(mm, kernel!(mm_rb_root)), address)
    };
    // What a walk through nodes in change leads to need not be the mapping of the address.
    if vma != 0
        && address >= pointer(vma, kernel!(vma_start))
        && address < pointer(vma, kernel!(vma_end))
    {
        vma
    } else {
        0
    }
}

/// Pivots of `maple_range_64` and of its leaf; `maple_arange_64` has fewer (lib/maple_tree.c and
/// include/linux/maple_tree.h, 6.1 to 7.x, 64 bit).
const RANGE_PIVOTS: u64 = 15;
const ARANGE_PIVOTS: u64 = 9;
const LEAF_64: u64 = 1;
const ARANGE_64: u64 = 3;
/// More levels than any tree of mappings has: 16^8 of them.
const LEVELS: u32 = 8;

/// Walks the maple tree: internal nodes and leaves hold pivots, the last index of each slot.
#[inline(always)]
fn in_maple_tree(root: u64, address: u64) -> u64 {
    let mut entry = root;
    for level in 0..LEVELS {
        // The lowest two bits tell a node from a value at the root (a tree with a single entry has
        // the value there).
        if level == 0 && entry & 3 != 2 {
            return 0;
        }
        let kind = kind_of(entry);
        entry = mmtrace_level(entry, address);
        if entry == 0 || kind <= LEAF_64 {
            return entry;
        }
    }
    0
}

/// A node's type, in bits 3 to 6 of what points to it.
#[inline(always)]
fn kind_of(entry: u64) -> u64 {
    (entry >> 3) & 0xf
}

/// What a node of the maple tree has for an address: a node, or from a leaf, a mapping; 0 if the
/// node cannot be read or is no longer part of the tree.
///
/// In a function of its own, which the verifier looks at once and not once for each level. What is
/// computed has no branches, so that it looks once, not for each way through (6.1's gives up
/// otherwise).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_level(entry: u64, address: u64) -> u64 {
    let mut words = [0u64; RANGE_PIVOTS as usize + 1];
    let node = entry & !0xff;
    if !fill(&mut words, node) {
        return 0;
    }
    // A node that was replaced points to itself as its parent.
    if words[0] & !0xff == node {
        return 0;
    }
    let fewer = less(kind_of(entry) ^ ARANGE_64, 1);
    let slot = slot_of(&words, fewer, address);
    let pivots = RANGE_PIVOTS - fewer * (RANGE_PIVOTS - ARANGE_PIVOTS);
    pointer(node + 8 * (1 + pivots + slot), 0)
}

/// Which slot of a node an address is in: as many as there are pivots below it. `fewer` is 1 for a
/// `maple_arange_64`.
#[inline(always)]
fn slot_of(words: &[u64; RANGE_PIVOTS as usize + 1], fewer: u64, address: u64) -> u64 {
    let mut slot = 0;
    let mut ended = 0;
    for (index, pivot) in words[1..].iter().enumerate() {
        ended |= 1 - less(*pivot, address);
        // A zero pivot after the first ends the node: its slot is the last one.
        if index > 0 {
            ended |= less(*pivot, 1);
        }
        if index >= ARANGE_PIVOTS as usize {
            ended |= fewer;
        }
        slot += 1 - ended;
    }
    slot
}

/// 1 if `one` is less than `other`, else 0: without a branch, which the compiler would make of the
/// comparison.
#[inline(always)]
pub(crate) fn less(one: u64, other: u64) -> u64 {
    let borrow: u64;
    // The borrow of `one - other`: (!one & other) | ((!one | other) & (one - other)), top bit.
    // SAFETY: arithmetic on registers alone.
    unsafe {
        core::arch::asm!(
            "{difference} = {one}",
            "{difference} -= {other}",
            "{inverse} = {one}",
            "{inverse} ^= -1",
            "{both} = {inverse}",
            "{both} &= {other}",
            "{inverse} |= {other}",
            "{difference} &= {inverse}",
            "{both} |= {difference}",
            "{both} >>= 63",
            one = in(reg) one,
            other = in(reg) other,
            difference = out(reg) _,
            inverse = out(reg) _,
            both = out(reg) borrow,
            options(nostack),
        );
    }
    borrow
}

/// Reads from the kernel into `target`; says whether it could.
#[inline(always)]
fn fill<T>(target: &mut T, address: u64) -> bool {
    // SAFETY: writes as many bytes as T has, and fails on a bad address; T is plain integers.
    let failed = unsafe {
        bpf_probe_read_kernel(
            (&raw mut *target).cast(),
            size_of::<T>() as u32,
            address as *const _,
        )
    };
    failed == 0
}

/// More levels than a red-black tree of 2^32 mappings has.
const RB_LEVELS: u32 = 64;

/// Walks the red-black tree of kernels before 6.1 (`find_vma` in mm/mmap.c).
#[inline(always)]
fn in_rb_tree(root: u64, address: u64) -> u64 {
    const RB_RIGHT: u32 = 8;
    const RB_LEFT: u32 = 16;
    let mut node = root;
    for _ in 0..RB_LEVELS {
        if node == 0 {
            return 0;
        }
        let vma = node - u64::from(kernel!(vma_rb));
        if address >= pointer(vma, kernel!(vma_end)) {
            node = pointer(node, RB_RIGHT);
        } else if address < pointer(vma, kernel!(vma_start)) {
            node = pointer(node, RB_LEFT);
        } else {
            return vma;
        }
    }
    0
}
