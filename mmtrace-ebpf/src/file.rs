//! Files: from descriptor to inode, and from inode to a name.

use aya_ebpf::{
    helpers::{bpf_get_current_task, generated::bpf_probe_read_kernel_str},
    maps::ring_buf::RingBufEntry,
};
use mmtrace_common::{
    EventKind, FileEvent, FileKey, Lost, Thread,
    event::{NAME_BYTES, PATH_BYTES},
};

use crate::{
    kernel::{has, kernel, pointer, read},
    maps::{ALIASES, DIRECT, EVENTS, IPC, NAMED, OTHER, lose},
    thread,
};

/// Reads a part of the walk's state; volatile, so that it is not kept in a register.
macro_rules! get {
    ($place:expr) => {
        // SAFETY: a field of a valid structure.
        unsafe { core::ptr::read_volatile(&raw const $place) }
    };
}

/// Writes a part of the walk's state.
macro_rules! set {
    ($place:expr, $value:expr) => {{
        let value = $value;
        // SAFETY: a field of a valid structure.
        unsafe { core::ptr::write_volatile(&raw mut $place, value) }
    }};
}

const S_IFMT: u32 = 0o170_000;
pub(crate) const S_IFBLK: u32 = 0o060_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFSOCK: u32 = 0o140_000;
/// `O_DIRECT` of x86-64 and of the generic ABI.
#[cfg(not(bpf_target_arch = "aarch64"))]
const O_DIRECT: u32 = 0o040_000;
/// `O_DIRECT` of arm64.
#[cfg(bpf_target_arch = "aarch64")]
const O_DIRECT: u32 = 0o200_000;

/// The `struct file` behind one of the current task's descriptors, or 0.
pub(crate) fn of_descriptor(descriptor: i32) -> u64 {
    if descriptor < 0 {
        return 0;
    }
    // SAFETY: no arguments; the current task always exists.
    let task = unsafe { bpf_get_current_task() };
    let table = pointer(pointer(task, kernel!(task_files)), kernel!(files_fdt));
    if descriptor as u32 >= read::<u32>(table, kernel!(fdtable_max_fds)) {
        return 0;
    }
    let files = pointer(table, kernel!(fdtable_fd));
    if files == 0 {
        return 0;
    }
    pointer(files + (descriptor as u64) * 8, 0)
}

/// Whether a key is that of no file.
#[inline(always)]
pub(crate) fn is_none(key: &FileKey) -> bool {
    key.inode == 0 && key.device == 0
}

/// An inode's key.
pub(crate) fn key_of_inode(inode: u64) -> FileKey {
    let device = read::<u32>(pointer(inode, kernel!(inode_sb)), kernel!(sb_dev));
    let generation = read::<u32>(inode, kernel!(inode_generation));
    FileKey {
        inode: inode_number(inode),
        device,
        generation,
    }
}

/// `inode.i_ino`; of block devices, whose inodes have none on some kernels (5.10 is one), `inode.i_rdev`.
fn inode_number(inode: u64) -> u64 {
    let number = if kernel!(inode_ino_bytes) == 4 {
        u64::from(read::<u32>(inode, kernel!(inode_ino)))
    } else {
        read(inode, kernel!(inode_ino))
    };
    if number == 0 {
        u64::from(read::<u32>(inode, kernel!(inode_rdev)))
    } else {
        number
    }
}

/// An inode's type bits and permissions.
pub(crate) fn mode_of(inode: u64) -> u32 {
    u32::from(read::<u16>(inode, kernel!(inode_mode)))
}

/// Whether an inode is a block device: its pages are a file system's own blocks, unless it is read
/// as a file.
pub(crate) fn is_block_device(inode: u64) -> bool {
    mode_of(inode) & S_IFMT == S_IFBLK
}

/// Whether an inode may have data at offsets: it is a regular file, a block device, or of no type, as
/// the ring of aio is.
pub(crate) fn has_data(inode: u64) -> bool {
    let kind = mode_of(inode) & S_IFMT;
    kind == S_IFREG || kind == S_IFBLK || kind == 0
}

/// Whether an inode is one that a file system keeps for itself, such as btrfs's tree: no directory
/// has it. (Its mode says nothing: it may be left from an inode that was there before.)
pub(crate) fn is_internal(inode: u64) -> bool {
    inode != 0 && pointer(inode, kernel!(inode_dentry)) == 0 && !is_block_device(inode)
}

/// Whether an inode's pages are a file system's own blocks, unless it is read as a file.
pub(crate) fn has_own_blocks(inode: u64) -> bool {
    is_block_device(inode) || is_internal(inode)
}

/// Under which path a call on a file belongs that would be `path` on a regular file.
pub(crate) fn path_for(file: u64, inode: u64, path: u32) -> u32 {
    match mode_of(inode) & S_IFMT {
        S_IFREG | S_IFBLK | S_IFDIR => {
            if read::<u32>(file, kernel!(file_flags)) & O_DIRECT != 0 {
                DIRECT
            } else {
                path
            }
        }
        S_IFIFO | S_IFSOCK => IPC,
        _ => OTHER,
    }
}

/// Tells user space a file's name, once, from a `struct file`: as the process sees it.
#[inline(always)]
pub(crate) fn tell_name(key: FileKey, file: u64, inode: u64) {
    if is_none(&key) {
        return;
    }
    // SAFETY: the reference is used before anything else touches the map.
    if unsafe { NAMED.get(key) } == Some(&2) {
        return;
    }
    let mut more = mmtrace_announce(key.inode, rest_of(key), inode, file);
    for _ in 0..PARTS {
        if more == 0 {
            break;
        }
        more = mmtrace_announce(key.inode, rest_of(key), 0, 0);
    }
}

/// In how many more parts than one a path is told at most.
const PARTS: u32 = 16;

/// Tells user space of a file, once, from its inode: its own name, without the directories. The
/// way up is left to the places where a call names a file, since the verifier takes long over it.
pub(crate) fn tell_inode(key: FileKey, inode: u64) {
    if is_none(&key) {
        return;
    }
    // SAFETY: the reference is used before anything else touches the map.
    if unsafe { NAMED.get(key) }.is_some() {
        return;
    }
    mmtrace_announce_inode(key.inode, rest_of(key), inode);
}

const OVERLAYFS_MAGIC: u64 = 0x794c_7630;

/// The key by which calls know a mapping's file.
#[inline(always)]
pub(crate) fn known_as(key: FileKey) -> FileKey {
    // SAFETY: copied at once; nothing is ever deleted from the map.
    unsafe { ALIASES.get(key) }.copied().unwrap_or(key)
}

/// Notes under which key calls know the file that a mapping of `file` really has, and tells its
/// name. Only overlayfs maps another file than the one it is given.
#[inline(always)]
pub(crate) fn note_mapping(file: u64, vma: u64) {
    let inode = inode_of(file);
    let magic: u64 = read(pointer(inode, kernel!(inode_sb)), kernel!(sb_magic));
    let real = inode_of(pointer(vma, kernel!(vma_file)));
    if magic != OVERLAYFS_MAGIC || real == 0 || real == inode {
        return;
    }
    let real_key = key_of_inode(real);
    let key = key_of_inode(inode);
    if known_as(real_key) != key && ALIASES.insert(&real_key, &key, 0).is_err() {
        lose(Lost::Mappings);
    }
    tell_name(real_key, file, real);
}

/// Device and generation of a key, for functions that take numbers only.
pub(crate) fn rest_of(key: FileKey) -> u64 {
    u64::from(key.device) | u64::from(key.generation) << 32
}

pub(crate) fn key_from(number: u64, rest: u64) -> FileKey {
    FileKey {
        inode: number,
        device: rest as u32,
        generation: (rest >> 32) as u32,
    }
}

/// Tells a [`FileEvent`] with its path: the names from the file up, each ending in a zero, which
/// user space turns round. It is put together in the ring buffer itself: space of a CPU's own
/// could be taken by another thread's program, where trampolines can be preempted. Says whether
/// there is more of the path: that is told in the next event, without an inode.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_announce(number: u64, rest: u64, inode: u64, file: u64) -> u32 {
    let key = key_from(number, rest);
    let Some(thread) = thread::current() else {
        lose(Lost::FileNames);
        return 0;
    };
    if inode != 0 && !note_told(key, 2) {
        return 0;
    }
    let Some(mut record) = new_record() else {
        return 0;
    };
    let target = record.as_mut_ptr();
    // SAFETY: the reserved space is as large as a FileRecord, which is plain integers; every part
    // that user space reads is written here.
    let target = unsafe { &mut *target };
    if inode == 0 {
        target.event.header.kind = EventKind::FileMore as u32;
        target.event.file = key;
    } else {
        let dentry = pointer(file, kernel!(file_dentry));
        describe(target, key, inode, dentry);
        set!(thread.walk.dentry, dentry);
        set!(thread.walk.vfsmount, pointer(file, kernel!(file_mnt)));
    }
    let more = walk_up(thread, target);
    record.submit(0);
    more
}

/// Tells a [`FileEvent`] with the file's own name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_announce_inode(number: u64, rest: u64, inode: u64) -> u32 {
    let key = key_from(number, rest);
    if !note_told(key, 1) {
        return 0;
    }
    let Some(mut record) = new_record() else {
        return 0;
    };
    let target = record.as_mut_ptr();
    // SAFETY: as in mmtrace_announce.
    let target = unsafe { &mut *target };
    let alias = pointer(inode, kernel!(inode_dentry));
    let dentry = alias.wrapping_sub(u64::from(kernel!(dentry_alias)));
    describe(target, key, inode, dentry);
    target.event.complete = 0;
    if is_internal(inode) {
        target.event.mode = 0;
    }
    set!(target.at, 0);
    if alias != 0 {
        append(target, dentry);
    }
    target.event.header.text_bytes = get!(target.at) as u32;
    record.submit(0);
    0
}

/// Makes [`NAMED`] say `told` of a file from now on; if it cannot, the file is not told.
#[inline(always)]
fn note_told(key: FileKey, told: u32) -> bool {
    let noted = NAMED.insert(&key, &told, 0).is_ok();
    if !noted {
        lose(Lost::FileNames);
    }
    noted
}

/// Room for a file's event.
#[inline(always)]
fn new_record() -> Option<RingBufEntry<FileRecord>> {
    let record = EVENTS.reserve::<FileRecord>(0);
    if record.is_none() {
        lose(Lost::FileNames);
    }
    record
}

/// Writes all of an event but its path.
#[inline(always)]
fn describe(record: &mut FileRecord, key: FileKey, inode: u64, dentry: u64) {
    let superblock = pointer(inode, kernel!(inode_sb));
    let filesystem = pointer(pointer(superblock, kernel!(sb_type)), kernel!(fstype_name));
    let event = &mut record.event;
    event.header.kind = EventKind::File as u32;
    event.file = key;
    event.size_bytes = read(inode, kernel!(inode_size));
    event.magic = read(superblock, kernel!(sb_magic));
    event.rdev = read(inode, kernel!(inode_rdev));
    event.mode = mode_of(inode);
    event.deleted = u32::from(pointer(dentry, kernel!(dentry_hash_pprev)) == 0);
    event.filesystem = [0; 16];
    // SAFETY: writes at most 16 bytes into the field; a bad address leaves it empty.
    unsafe {
        bpf_probe_read_kernel_str(
            event.filesystem.as_mut_ptr().cast(),
            16,
            filesystem as *const _,
        )
    };
}

/// A file's event as it lies in the ring buffer.
#[repr(C)]
struct FileRecord {
    event: FileEvent,
    /// Room for one name beyond the longest path, so that masked offsets stay inside.
    text: [u8; PATH_BYTES + NAME_BYTES],
    /// Bytes of text so far.
    at: u64,
}

/// How many directories and mount points are gone up in one part.
const DEPTH: u32 = 24;

/// Writes the names from where the thread's walk is up into the record's text; says whether there
/// are more.
///
/// The walk's state lives in memory, not in registers: so the verifier sees the same unknown
/// numbers at the start of each round, and looks at a round once, not once for each way to get
/// there.
#[inline(always)]
fn walk_up(thread: &mut Thread, record: &mut FileRecord) -> u32 {
    set!(record.at, 0);
    let mut complete = 0;
    for _ in 0..DEPTH {
        let dentry = thread::elsewhere(thread, |tid| mmtrace_step(tid));
        // A file of no directory has its whole name here (memfd); a root's is "/".
        let ended = get!(thread.walk.ended);
        if dentry != 0 && (ended == 0 || get!(record.at) == 0) {
            append(record, dentry);
        }
        if ended != 0 {
            complete = 1;
            break;
        }
    }
    record.event.header.text_bytes = get!(record.at) as u32;
    record.event.complete = complete;
    1 - complete
}

/// Goes up one directory or mount point, and says of which dentry the name is next, 0 if of none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mmtrace_step(tid: u32) -> u64 {
    let Some(thread) = thread::by_tid(tid) else {
        return 0;
    };
    let walk = &mut thread.walk;
    walk.ended = 1;
    let (dentry, vfsmount) = (walk.dentry, walk.vfsmount);
    // SAFETY: no arguments; the current task always exists.
    let fs = pointer(unsafe { bpf_get_current_task() }, kernel!(task_fs));
    let root = pointer(fs, kernel!(fs_root_dentry));
    if dentry == 0 || (dentry == root && vfsmount == pointer(fs, kernel!(fs_root_mnt))) {
        return 0;
    }
    if vfsmount != 0 && dentry == pointer(vfsmount, kernel!(vfsmount_root)) {
        // On to the directory that this file system is mounted on.
        let mount = vfsmount - u64::from(kernel!(mount_mnt));
        let above = pointer(mount, kernel!(mount_parent));
        if above != 0 && above != mount {
            walk.dentry = pointer(mount, kernel!(mount_mountpoint));
            walk.vfsmount = above + u64::from(kernel!(mount_mnt));
            walk.ended = 0;
        }
        return 0;
    }
    walk.dentry = pointer(dentry, kernel!(dentry_parent));
    walk.ended = u64::from(walk.dentry == dentry);
    dentry
}

/// Appends a dentry's name with its terminating zero.
#[inline(always)]
fn append(record: &mut FileRecord, dentry: u64) {
    let name = pointer(dentry, kernel!(dentry_name));
    let at = get!(record.at);
    let start = (at as usize) & (PATH_BYTES - 1);
    // SAFETY: `start` is below PATH_BYTES, and NAME_BYTES more are there.
    let target = unsafe { record.text.as_mut_ptr().add(start) };
    // SAFETY: writes at most NAME_BYTES to `target`, and fails on a bad address.
    let length =
        unsafe { bpf_probe_read_kernel_str(target.cast(), NAME_BYTES as u32, name as *const _) };
    let end = at + length as u64;
    if length > 0 && end <= PATH_BYTES as u64 {
        set!(record.at, end);
    }
}

/// The inode of a `struct file`: of a block device, the one that has its pages (any number of
/// device nodes may lead there).
#[inline(always)]
pub(crate) fn inode_of(file: u64) -> u64 {
    let inode = pointer(file, kernel!(file_inode));
    if is_block_device(inode) {
        pointer(pointer(file, kernel!(file_mapping)), kernel!(mapping_host))
    } else {
        inode
    }
}

/// The inode that a page-cache page belongs to; 0 for anonymous memory and for pages of none.
pub(crate) fn inode_of_folio(folio: u64) -> u64 {
    let mapping = pointer(folio, kernel!(folio_mapping));
    // The low bits tell anonymous and movable pages, which have no inode.
    if mapping & 3 != 0 {
        return 0;
    }
    pointer(mapping, kernel!(mapping_host))
}

/// The folio that a page belongs to.
pub(crate) fn folio_of_page(page: u64) -> u64 {
    let info = pointer(page, kernel!(page_compound_head));
    if info & 1 == 0 {
        return page;
    }
    // A tail page leads to its head: by the head's address, plus 1, or, where the kernel lays its
    // pages out so that this works (7.0 on), by a mask for its own address: include/linux/
    // page-flags.h. A mask has more leading ones than any address.
    if info >= 0xffff_ffff_0000_0000 {
        page & info
    } else {
        info - 1
    }
}

/// Bytes of a folio.
pub(crate) fn folio_bytes(folio: u64) -> u64 {
    let page_bytes = 1u64 << kernel!(page_shift);
    let flags = pointer(folio, kernel!(folio_flags));
    if flags & (1u64 << (kernel!(pg_head) & 63)) == 0 {
        return page_bytes;
    }
    if has(kernel!(folio_nr_pages)) {
        return u64::from(read::<u32>(folio, kernel!(folio_nr_pages))) * page_bytes;
    }
    let order = read::<u8>(folio, kernel!(folio_order));
    page_bytes << (order & 31)
}
