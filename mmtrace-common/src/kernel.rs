//! What the kernel programs must know of the kernel they run on.
//!
//! Rust emits no CO-RE relocations, so user space reads these from the running kernel's BTF and
//! writes them into the programs' read-only data before it loads them. The verifier sees them as
//! constants.

/// A helper that no kernel has: in the programs it stands for the kernel's function
/// `bpf_rdonly_cast`, which is called by its number in the running kernel's BTF.
pub const RDONLY_CAST: i32 = 0x6d6d_7263;

macro_rules! kernel {
    ($($(#[$doc:meta])* $name:ident = $default:expr,)*) => {
        /// Offsets in bytes, bit numbers and enum values of the running kernel.
        ///
        /// [`Kernel::ABSENT`] where this kernel has no such field.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct Kernel {
            $($(#[$doc])* pub $name: u32,)*
        }

        impl Kernel {
            /// This kernel has no such field.
            pub const ABSENT: u32 = u32::MAX;

            /// What is not read from BTF, at its default; everything else absent.
            pub const DEFAULT: Self = Self { $($name: $default,)* };
        }

        const _: () = assert!(align_of::<Kernel>() == 4);
    };
}

kernel! {
    /// `task_struct.pid`.
    task_pid = Self::ABSENT,
    /// `task_struct.tgid`.
    task_tgid = Self::ABSENT,
    /// `task_struct.flags`.
    task_flags = Self::ABSENT,
    /// `task_struct.stack`.
    task_stack = Self::ABSENT,
    /// `task_struct.mm`.
    task_mm = Self::ABSENT,
    /// `task_struct.files`.
    task_files = Self::ABSENT,
    /// `task_struct.fs`.
    task_fs = Self::ABSENT,
    /// `task_struct.signal`.
    task_signal = Self::ABSENT,
    /// `task_struct.min_flt`; `maj_flt` follows it.
    task_min_flt = Self::ABSENT,
    /// `task_struct.ioac.read_bytes`.
    task_read_bytes = Self::ABSENT,
    /// `task_struct.bio_list`: not null inside a stacked driver's submission.
    task_bio_list = Self::ABSENT,
    /// `task_struct.exit_code`.
    task_exit_code = Self::ABSENT,
    /// Byte of the bit-field `task_struct.in_iowait`.
    task_in_iowait = Self::ABSENT,
    /// Bit of it in that byte.
    task_in_iowait_bit = 0,
    /// `signal_struct.live`.
    signal_live = Self::ABSENT,
    /// `signal_struct.group_exit_code`.
    signal_group_exit_code = Self::ABSENT,
    /// `files_struct.fdt`.
    files_fdt = Self::ABSENT,
    /// `fdtable.max_fds`.
    fdtable_max_fds = Self::ABSENT,
    /// `fdtable.fd`.
    fdtable_fd = Self::ABSENT,
    /// `file.f_inode`.
    file_inode = Self::ABSENT,
    /// `file.f_flags`.
    file_flags = Self::ABSENT,
    /// `file.f_pos`.
    file_pos = Self::ABSENT,
    /// `file.f_mapping`.
    file_mapping = Self::ABSENT,
    /// `file.f_path.mnt`.
    file_mnt = Self::ABSENT,
    /// `file.f_path.dentry`.
    file_dentry = Self::ABSENT,
    /// `inode.i_mode`.
    inode_mode = Self::ABSENT,
    /// `inode.i_ino`.
    inode_ino = Self::ABSENT,
    /// Bytes of `inode.i_ino`.
    inode_ino_bytes = 8,
    /// `inode.i_sb`.
    inode_sb = Self::ABSENT,
    /// `inode.i_rdev`.
    inode_rdev = Self::ABSENT,
    /// `inode.i_generation`.
    inode_generation = Self::ABSENT,
    /// `inode.i_size`.
    inode_size = Self::ABSENT,
    /// `inode.i_dentry.first`.
    inode_dentry = Self::ABSENT,
    /// `super_block.s_dev`.
    sb_dev = Self::ABSENT,
    /// `super_block.s_magic`.
    sb_magic = Self::ABSENT,
    /// `super_block.s_type`.
    sb_type = Self::ABSENT,
    /// `file_system_type.name`.
    fstype_name = Self::ABSENT,
    /// `dentry.d_parent`.
    dentry_parent = Self::ABSENT,
    /// `dentry.d_name.name`.
    dentry_name = Self::ABSENT,
    /// `dentry.d_hash.pprev`: null for a dentry that is unhashed (deleted).
    dentry_hash_pprev = Self::ABSENT,
    /// `dentry.d_u.d_alias`: what `inode.i_dentry` links.
    dentry_alias = Self::ABSENT,
    /// `mount.mnt`.
    mount_mnt = Self::ABSENT,
    /// `mount.mnt_parent`.
    mount_parent = Self::ABSENT,
    /// `mount.mnt_mountpoint`.
    mount_mountpoint = Self::ABSENT,
    /// `vfsmount.mnt_root`.
    vfsmount_root = Self::ABSENT,
    /// `fs_struct.root.mnt`.
    fs_root_mnt = Self::ABSENT,
    /// `fs_struct.root.dentry`.
    fs_root_dentry = Self::ABSENT,
    /// `mm_struct.mm_mt.ma_root` (6.1 on).
    mm_maple_root = Self::ABSENT,
    /// `mm_struct.mm_rb.rb_node` (before 6.1).
    mm_rb_root = Self::ABSENT,
    /// `mm_struct.exe_file`.
    mm_exe_file = Self::ABSENT,
    /// `mm_struct.start_code`.
    mm_start_code = Self::ABSENT,
    /// `mm_struct.arg_start`.
    mm_arg_start = Self::ABSENT,
    /// `mm_struct.arg_end`.
    mm_arg_end = Self::ABSENT,
    /// `vm_area_struct.vm_start`.
    vma_start = Self::ABSENT,
    /// `vm_area_struct.vm_end`.
    vma_end = Self::ABSENT,
    /// `vm_area_struct.vm_flags`.
    vma_flags = Self::ABSENT,
    /// `vm_area_struct.vm_file`.
    vma_file = Self::ABSENT,
    /// `vm_area_struct.vm_pgoff`.
    vma_pgoff = Self::ABSENT,
    /// `vm_area_struct.vm_rb` (before 6.1).
    vma_rb = Self::ABSENT,
    /// `vm_fault.vma`.
    vmf_vma = Self::ABSENT,
    /// `vm_fault.address`.
    vmf_address = Self::ABSENT,
    /// `vm_fault.flags`.
    vmf_flags = Self::ABSENT,
    /// `vm_fault.page`.
    vmf_page = Self::ABSENT,
    /// `vm_fault.cow_page`.
    vmf_cow_page = Self::ABSENT,
    /// `page.compound_head` or `compound_info`.
    page_compound_head = Self::ABSENT,
    /// `folio.flags` or `page.flags`.
    folio_flags = Self::ABSENT,
    /// `folio.mapping` or `page.mapping`.
    folio_mapping = Self::ABSENT,
    /// `folio.index` or `page.index`.
    folio_index = Self::ABSENT,
    /// Number of pages of a large folio, 4 bytes (6.6 on, under several names).
    folio_nr_pages = Self::ABSENT,
    /// Order of a large folio, 1 byte (until 6.6).
    folio_order = Self::ABSENT,
    /// Bit of `folio.flags` that tells a large folio.
    pg_head = Self::ABSENT,
    /// `address_space.host`.
    mapping_host = Self::ABSENT,
    /// `bio.bi_opf`.
    bio_opf = Self::ABSENT,
    /// `bio.bi_iter.bi_size`.
    bio_size = Self::ABSENT,
    /// `bio.bi_iter.bi_idx`.
    bio_idx = Self::ABSENT,
    /// `bio.bi_io_vec`.
    bio_vecs = Self::ABSENT,
    /// Bit of `bio.bi_opf` that tells metadata.
    req_meta = Self::ABSENT,
    /// In the record of the event `mm_filemap_add_to_page_cache`: `i_ino`.
    event_cache_inode = Self::ABSENT,
    /// The same: `index`.
    event_cache_index = Self::ABSENT,
    /// The same: `s_dev`.
    event_cache_device = Self::ABSENT,
    /// The same: `order`.
    event_cache_order = Self::ABSENT,
    /// In the record of the event `block_bio_queue`: `nr_sector`.
    event_bio_sectors = Self::ABSENT,
    /// The same: `rwbs`.
    event_bio_flags = Self::ABSENT,
    /// `task_struct.thread_info.status`: its bit 2 (`TS_COMPAT`) tells a call through the 32-bit
    /// interface (x86).
    task_thread_status = Self::ABSENT,
    /// `mm_struct.ioctx_table`.
    mm_ioctx_table = Self::ABSENT,
    /// `kioctx_table.table`.
    ioctx_table_entries = Self::ABSENT,
    /// `aio_kiocb.ki_ctx`.
    aio_context = Self::ABSENT,
    /// `aio_kiocb.ki_res.obj`.
    aio_object = Self::ABSENT,
    /// `io_kiocb.opcode`.
    uring_opcode = Self::ABSENT,
    /// `io_kiocb.flags`.
    uring_flags = Self::ABSENT,
    /// `io_kiocb.file`.
    uring_file = Self::ABSENT,
    /// `io_kiocb.cqe.fd` (6.1 on; in 5.15, the file is known as the request is submitted).
    uring_fd = Self::ABSENT,
    /// `io_kiocb.ctx`.
    uring_context = Self::ABSENT,
    /// `io_kiocb.user_data`, where a completion tells no more than that.
    uring_user_data = Self::ABSENT,
    /// `io_ring_ctx.file_table.files` (6.12 and older).
    uring_files = Self::ABSENT,
    /// `io_ring_ctx.file_table.data.nodes` (6.18 on).
    uring_nodes = Self::ABSENT,
    /// `io_rsrc_node.file_ptr`.
    uring_node_file = Self::ABSENT,
    /// `io_rw.kiocb.ki_pos`.
    uring_rw_offset = Self::ABSENT,
    /// `io_rw.addr`.
    uring_rw_address = Self::ABSENT,
    /// `io_rw.len`.
    uring_rw_size = Self::ABSENT,
    /// `io_sr_msg.umsg`.
    uring_message = Self::ABSENT,
    /// `io_sr_msg.len`.
    uring_message_size = Self::ABSENT,
    /// `io_sr_msg.flags` (6.0 on).
    uring_message_flags = Self::ABSENT,
    /// `io_splice.splice_fd_in`.
    uring_splice_fd = Self::ABSENT,
    /// `io_splice.flags`.
    uring_splice_flags = Self::ABSENT,
    /// `io_splice.off_in`.
    uring_splice_offset = Self::ABSENT,
    /// `io_splice.len`.
    uring_splice_size = Self::ABSENT,
    /// `io_fadvise.offset`.
    uring_fadvise_offset = Self::ABSENT,
    /// `io_fadvise.len`.
    uring_fadvise_size = Self::ABSENT,
    /// Bytes of it.
    uring_fadvise_size_bytes = 8,
    /// `io_fadvise.advice`.
    uring_fadvise_advice = Self::ABSENT,
    /// `io_kiocb.work`.
    uring_work = Self::ABSENT,
    /// `task_struct.worker_private`, of io_uring's workers their `io_worker`; before 5.17
    /// `pf_io_worker`.
    task_worker = Self::ABSENT,
    /// `io_worker.cur_work`.
    worker_work = Self::ABSENT,
    /// `io_uring_cqe.res`.
    uring_cqe_result = Self::ABSENT,
    /// In the record of the event `io_uring_submit_req`: `req`.
    event_uring_request = Self::ABSENT,
    /// In the record of the event `io_uring_complete`: `req`.
    event_uring_completed = Self::ABSENT,
    /// The same: `res`.
    event_uring_result = Self::ABSENT,
    /// `iov_iter.iter_type`, 1 byte (5.14 on).
    iter_type = Self::ABSENT,
    /// `iov_iter.count`.
    iter_count = Self::ABSENT,
    /// `ITER_UBUF` (6.0 on).
    iter_ubuf = Self::ABSENT,
    /// `ITER_IOVEC`.
    iter_iovec = Self::ABSENT,
    /// `ITER_BVEC`.
    iter_bvec = Self::ABSENT,
    /// Which copies are watched: [`COPIES_NONE`] and its kind.
    copies = COPIES_NONE,
    /// 1: stacks are taken.
    stacks = 0,
    /// 1: heat maps are made.
    heat_maps = 0,
    /// 1: it is followed what becomes of what is read ahead.
    readahead_use = 0,
    /// 1: the kernel has `bpf_task_pt_regs` (5.15 on).
    task_pt_regs = 0,
    /// 1: the watching may be turned off and on.
    sampling = 0,
    /// Where `copy_from_user_nofault` begins, by which BPF programs read user memory: the lower half
    /// of its address, of which the upper one is all ones.
    nofault_start = 0,
    /// Where it ends.
    nofault_end = 0,
    /// Bytes of a page, as a shift.
    page_shift = 12,
    /// What a thread must pass with [`REGISTER_OPTION`](crate::REGISTER_OPTION) to be followed.
    nonce = 0,
    /// `struct pt_regs`'s number in the kernel's BTF.
    type_pt_regs = 0,
    /// 1: the programs log what they do (`-v`).
    verbose = 0,
    /// `FAULT_FLAG_REMOTE`.
    fault_flag_remote = 0x80,
    /// 1: for which request a worker of io_uring works is looked up in its `io_worker`; 0: nothing
    /// tells, or `io_issue_sqe` does.
    look_up_workers = 0,
    /// 1: faults begin as `handle_mm_fault` is entered; 0: by the page fault tracepoints.
    faults_by_entry = 0,
}

/// In [`Kernel::copies`]: none.
pub const COPIES_NONE: u32 = 0;
/// In [`Kernel::copies`]: all, where they begin to move bytes.
pub const COPIES_ALL: u32 = 1;
/// In [`Kernel::copies`]: those of the routines that are most used.
pub const COPIES_BY_ROUTINE: u32 = 2;
