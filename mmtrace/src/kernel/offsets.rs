//! From BTF to the numbers that the kernel programs read structures by.

use anyhow::{Context as _, Result};
use mmtrace_common::Kernel;

use super::{btf::Btf, event};

/// What the kernel programs need to know of this kernel.
///
/// # Errors
///
/// If a field is missing without which nothing can be attributed.
pub fn of(btf: &Btf) -> Result<Kernel> {
    let offset = |structure: &str, field: &str| {
        btf.field(structure, field)
            .map_or(Kernel::ABSENT, |field| field.offset())
    };
    let needed = |structure: &str, field: &str| {
        btf.field(structure, field)
            .map(|field| field.offset())
            .with_context(|| format!("this kernel's struct {structure} has no field {field}"))
    };
    // The same field under the names that it has had, the newest first.
    let any = |fields: &[(&str, &str)]| {
        fields
            .iter()
            .find_map(|(structure, field)| btf.field(structure, field))
            .map_or(Kernel::ABSENT, |field| field.offset())
    };
    let bits = |of: &str, names: &[&str], otherwise: u32| {
        let values = names.iter().filter_map(|name| btf.enum_value(of, name));
        match values.fold(0, |sum, value| sum | value) {
            0 => otherwise,
            sum => u32::try_from(sum).unwrap_or(otherwise),
        }
    };
    let bit = |of: &str, name: &str| {
        btf.enum_value(of, name)
            .and_then(|value| u32::try_from(value).ok())
            .unwrap_or(Kernel::ABSENT)
    };
    let in_iowait = btf
        .field("task_struct", "in_iowait")
        .context("this kernel's struct task_struct has no field in_iowait")?;
    let default = Kernel::DEFAULT;
    let of_event = |(category, name): (&str, &str), field: &str| {
        event::field_offset(category, name, field).unwrap_or(Kernel::ABSENT)
    };

    Ok(Kernel {
        task_pid: needed("task_struct", "pid")?,
        task_tgid: needed("task_struct", "tgid")?,
        task_flags: needed("task_struct", "flags")?,
        task_stack: offset("task_struct", "stack"),
        task_mm: needed("task_struct", "mm")?,
        task_files: needed("task_struct", "files")?,
        task_fs: needed("task_struct", "fs")?,
        task_signal: needed("task_struct", "signal")?,
        task_min_flt: needed("task_struct", "min_flt")?,
        // Absent without CONFIG_TASK_IO_ACCOUNTING: the audit then has nothing to compare with.
        task_read_bytes: offset("task_struct", "ioac.read_bytes"),
        task_bio_list: needed("task_struct", "bio_list")?,
        task_exit_code: needed("task_struct", "exit_code")?,
        task_in_iowait: in_iowait.offset(),
        task_in_iowait_bit: in_iowait.bit_offset % 8,
        signal_live: needed("signal_struct", "live")?,
        signal_group_exit_code: needed("signal_struct", "group_exit_code")?,
        files_fdt: needed("files_struct", "fdt")?,
        fdtable_max_fds: needed("fdtable", "max_fds")?,
        fdtable_fd: needed("fdtable", "fd")?,
        file_inode: needed("file", "f_inode")?,
        file_flags: needed("file", "f_flags")?,
        file_pos: needed("file", "f_pos")?,
        file_mapping: needed("file", "f_mapping")?,
        file_mnt: needed("file", "f_path.mnt")?,
        file_dentry: needed("file", "f_path.dentry")?,
        inode_mode: needed("inode", "i_mode")?,
        inode_ino: needed("inode", "i_ino")?,
        inode_ino_bytes: btf
            .field("inode", "i_ino")
            .map_or(8, |field| field.size_bytes),
        inode_sb: needed("inode", "i_sb")?,
        inode_rdev: needed("inode", "i_rdev")?,
        inode_generation: needed("inode", "i_generation")?,
        inode_size: needed("inode", "i_size")?,
        inode_dentry: needed("inode", "i_dentry")?,
        sb_dev: needed("super_block", "s_dev")?,
        sb_magic: needed("super_block", "s_magic")?,
        sb_type: needed("super_block", "s_type")?,
        fstype_name: needed("file_system_type", "name")?,
        dentry_parent: needed("dentry", "d_parent")?,
        dentry_name: any(&[("dentry", "d_name.name"), ("dentry", "__d_name.name")]),
        dentry_hash_pprev: needed("dentry", "d_hash.pprev")?,
        dentry_alias: any(&[("dentry", "d_alias"), ("dentry", "d_u.d_alias")]),
        mount_mnt: needed("mount", "mnt")?,
        mount_parent: needed("mount", "mnt_parent")?,
        mount_mountpoint: needed("mount", "mnt_mountpoint")?,
        vfsmount_root: needed("vfsmount", "mnt_root")?,
        fs_root_mnt: needed("fs_struct", "root.mnt")?,
        fs_root_dentry: needed("fs_struct", "root.dentry")?,
        mm_maple_root: offset("mm_struct", "mm_mt.ma_root"),
        mm_rb_root: offset("mm_struct", "mm_rb.rb_node"),
        mm_exe_file: needed("mm_struct", "exe_file")?,
        mm_start_code: needed("mm_struct", "start_code")?,
        mm_arg_start: needed("mm_struct", "arg_start")?,
        mm_arg_end: needed("mm_struct", "arg_end")?,
        vma_start: needed("vm_area_struct", "vm_start")?,
        vma_end: needed("vm_area_struct", "vm_end")?,
        vma_flags: needed("vm_area_struct", "vm_flags")?,
        vma_file: needed("vm_area_struct", "vm_file")?,
        vma_pgoff: needed("vm_area_struct", "vm_pgoff")?,
        vma_rb: offset("vm_area_struct", "vm_rb"),
        vmf_vma: needed("vm_fault", "vma")?,
        vmf_address: needed("vm_fault", "address")?,
        vmf_flags: needed("vm_fault", "flags")?,
        vmf_page: needed("vm_fault", "page")?,
        vmf_cow_page: needed("vm_fault", "cow_page")?,
        page_compound_head: any(&[("page", "compound_info"), ("page", "compound_head")]),
        folio_flags: any(&[("folio", "flags"), ("page", "flags")]),
        folio_mapping: any(&[("folio", "mapping"), ("page", "mapping")]),
        folio_index: any(&[("folio", "index"), ("page", "index")]),
        folio_nr_pages: any(&[("folio", "_nr_pages"), ("folio", "_folio_nr_pages")]),
        folio_order: any(&[("folio", "_folio_order")]),
        pg_head: bit("pageflags", "PG_head"),
        mapping_host: needed("address_space", "host")?,
        bio_opf: needed("bio", "bi_opf")?,
        bio_size: needed("bio", "bi_iter.bi_size")?,
        bio_idx: needed("bio", "bi_iter.bi_idx")?,
        bio_vecs: needed("bio", "bi_io_vec")?,
        req_meta: bit("req_flag_bits", "__REQ_META"),
        event_cache_inode: of_event(CACHE_EVENT, "i_ino"),
        event_cache_index: of_event(CACHE_EVENT, "index"),
        event_cache_device: of_event(CACHE_EVENT, "s_dev"),
        event_cache_order: of_event(CACHE_EVENT, "order"),
        event_bio_sectors: of_event(BIO_EVENT, "nr_sector"),
        event_bio_flags: of_event(BIO_EVENT, "rwbs"),
        task_thread_status: offset("task_struct", "thread_info.status"),
        mm_ioctx_table: offset("mm_struct", "ioctx_table"),
        ioctx_table_entries: offset("kioctx_table", "table"),
        aio_context: offset("aio_kiocb", "ki_ctx"),
        aio_object: offset("aio_kiocb", "ki_res.obj"),
        uring_opcode: offset("io_kiocb", "opcode"),
        uring_flags: offset("io_kiocb", "flags"),
        uring_file: offset("io_kiocb", "file"),
        uring_fd: offset("io_kiocb", "cqe.fd"),
        uring_context: offset("io_kiocb", "ctx"),
        uring_user_data: offset("io_kiocb", "user_data"),
        uring_files: offset("io_ring_ctx", "file_table.files"),
        uring_nodes: offset("io_ring_ctx", "file_table.data.nodes"),
        uring_node_file: offset("io_rsrc_node", "file_ptr"),
        uring_rw_offset: offset("io_rw", "kiocb.ki_pos"),
        uring_rw_address: offset("io_rw", "addr"),
        uring_rw_size: offset("io_rw", "len"),
        uring_message: offset("io_sr_msg", "umsg"),
        uring_message_size: offset("io_sr_msg", "len"),
        uring_message_flags: offset("io_sr_msg", "flags"),
        uring_splice_fd: offset("io_splice", "splice_fd_in"),
        uring_splice_flags: offset("io_splice", "flags"),
        uring_splice_offset: offset("io_splice", "off_in"),
        uring_splice_size: offset("io_splice", "len"),
        uring_fadvise_offset: offset("io_fadvise", "offset"),
        uring_fadvise_size: offset("io_fadvise", "len"),
        uring_fadvise_size_bytes: btf
            .field("io_fadvise", "len")
            .map_or(8, |field| field.size_bytes),
        uring_fadvise_advice: offset("io_fadvise", "advice"),
        uring_work: offset("io_kiocb", "work"),
        task_worker: any(&[
            ("task_struct", "worker_private"),
            ("task_struct", "pf_io_worker"),
        ]),
        worker_work: offset("io_worker", "cur_work"),
        uring_cqe_result: offset("io_uring_cqe", "res"),
        // In a place of its own from 7.x on.
        iter_type: offset("iov_iter", "iter_type"),
        iter_count: offset("iov_iter", "count"),
        iter_ubuf: bit("iter_type", "ITER_UBUF"),
        iter_iovec: bit("iter_type", "ITER_IOVEC"),
        iter_bvec: bit("iter_type", "ITER_BVEC"),
        event_uring_request: of_event(URING_SUBMIT_EVENT, "req"),
        event_uring_completed: of_event(URING_COMPLETE_EVENT, "req"),
        event_uring_result: of_event(URING_COMPLETE_EVENT, "res"),
        type_pt_regs: btf.structure_id("pt_regs").unwrap_or(0),
        fault_flag_remote: bits(
            "fault_flag",
            &["FAULT_FLAG_REMOTE"],
            default.fault_flag_remote,
        ),
        page_shift: rustix::param::page_size().trailing_zeros(),
        ..default
    })
}

const CACHE_EVENT: (&str, &str) = ("filemap", "mm_filemap_add_to_page_cache");
const URING_SUBMIT_EVENT: (&str, &str) = ("io_uring", "io_uring_submit_req");
const URING_COMPLETE_EVENT: (&str, &str) = ("io_uring", "io_uring_complete");
const BIO_EVENT: (&str, &str) = ("block", "block_bio_queue");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_all_that_is_needed() {
        let Ok(btf) = Btf::of_kernel() else {
            return;
        };
        let kernel = of(&btf).expect("offsets");
        assert_ne!(kernel.dentry_name, Kernel::ABSENT);
        assert_ne!(kernel.folio_mapping, Kernel::ABSENT);
        assert!(kernel.mm_maple_root != Kernel::ABSENT || kernel.mm_rb_root != Kernel::ABSENT);
        assert_eq!(kernel.page_shift, 12);
        if kernel.worker_work != Kernel::ABSENT {
            assert_ne!(kernel.task_worker, Kernel::ABSENT);
            assert_ne!(kernel.uring_work, Kernel::ABSENT);
        }
    }
}
