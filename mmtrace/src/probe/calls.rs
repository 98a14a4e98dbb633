//! Which system calls matter, and how their arguments are read.

use mmtrace_common::{
    CallSpec, FLAG_CHANGES_FDS, FLAG_CHANGES_MAPPINGS, FLAG_IOVEC, NO_ARGUMENT, Path,
    call::{
        AIO_REAP, AIO_SUBMIT, FLAG_ADDRESS, FLAG_ADVICE, FLAG_COUNTED, FLAG_FIXED_PATH, FLAG_MAPS,
        FLAG_OFFSET_POINTER, FLAG_RETURNS_BYTES, MESSAGE, MESSAGES, PLAIN, WHOLE,
    },
};

const NO: u8 = NO_ARGUMENT;
/// `io_pgetevents`, which the libc crate does not name everywhere.
const IO_PGETEVENTS: i64 = if cfg!(target_arch = "x86_64") {
    333
} else {
    292
};
/// Reads and writes: counted, and what they return is bytes.
const DATA: u16 = FLAG_COUNTED | FLAG_RETURNS_BYTES;

const fn spec(path: Path, fd: u8, size: u8, offset: u8, flags: u16) -> CallSpec {
    CallSpec {
        path: path as u8 + 1,
        fd_argument: fd,
        size_argument: size,
        offset_argument: offset,
        advice_argument: NO,
        flags,
        special: PLAIN,
    }
}

const fn special(special: u8, spec: CallSpec) -> CallSpec {
    CallSpec { special, ..spec }
}

const fn advice(fd: u8, size: u8, offset: u8, advice: u8) -> CallSpec {
    CallSpec {
        advice_argument: advice,
        ..spec(
            Path::Prefetch,
            fd,
            size,
            offset,
            FLAG_COUNTED | FLAG_FIXED_PATH | FLAG_ADVICE | if fd == NO { FLAG_ADDRESS } else { 0 },
        )
    }
}

/// The calls of interest: number and how to read them.
#[must_use]
pub fn table() -> Vec<(i64, CallSpec)> {
    use libc as c;
    let mappings = spec(
        Path::Other,
        NO,
        NO,
        NO,
        FLAG_CHANGES_MAPPINGS | FLAG_FIXED_PATH,
    );
    let fds = spec(Path::Other, NO, NO, NO, FLAG_CHANGES_FDS | FLAG_FIXED_PATH);
    let both = spec(
        Path::Other,
        NO,
        NO,
        NO,
        FLAG_CHANGES_FDS | FLAG_CHANGES_MAPPINGS | FLAG_FIXED_PATH,
    );
    let moved = DATA | FLAG_FIXED_PATH;
    let counted = FLAG_COUNTED | FLAG_FIXED_PATH;
    let context = FLAG_FIXED_PATH;
    let mut table = vec![
        (c::SYS_read, spec(Path::Read, 0, 2, NO, DATA)),
        (c::SYS_pread64, spec(Path::Read, 0, 2, 3, DATA)),
        (c::SYS_readv, spec(Path::Read, 0, 2, NO, DATA | FLAG_IOVEC)),
        (c::SYS_preadv, spec(Path::Read, 0, 2, 3, DATA | FLAG_IOVEC)),
        (c::SYS_preadv2, spec(Path::Read, 0, 2, 3, DATA | FLAG_IOVEC)),
        (c::SYS_write, spec(Path::Write, 0, 2, NO, DATA)),
        (c::SYS_pwrite64, spec(Path::Write, 0, 2, 3, DATA)),
        (
            c::SYS_writev,
            spec(Path::Write, 0, 2, NO, DATA | FLAG_IOVEC),
        ),
        (
            c::SYS_pwritev,
            spec(Path::Write, 0, 2, 3, DATA | FLAG_IOVEC),
        ),
        (
            c::SYS_pwritev2,
            spec(Path::Write, 0, 2, 3, DATA | FLAG_IOVEC),
        ),
        // What is moved belongs to the file that it comes from.
        (
            c::SYS_sendfile,
            spec(Path::Splice, 1, 3, 2, moved | FLAG_OFFSET_POINTER),
        ),
        (
            c::SYS_splice,
            spec(Path::Splice, 0, 4, 1, moved | FLAG_OFFSET_POINTER),
        ),
        (
            c::SYS_copy_file_range,
            spec(Path::Splice, 0, 4, 1, moved | FLAG_OFFSET_POINTER),
        ),
        (c::SYS_tee, spec(Path::Splice, 0, 2, NO, moved)),
        (
            c::SYS_vmsplice,
            spec(Path::Splice, 0, 2, NO, moved | FLAG_IOVEC),
        ),
        (c::SYS_recvfrom, spec(Path::Ipc, 0, 2, NO, moved)),
        (c::SYS_sendto, spec(Path::Ipc, 0, 2, NO, moved)),
        (
            c::SYS_recvmsg,
            special(MESSAGE, spec(Path::Ipc, 0, NO, NO, moved)),
        ),
        (
            c::SYS_sendmsg,
            special(MESSAGE, spec(Path::Ipc, 0, NO, NO, moved)),
        ),
        (
            c::SYS_recvmmsg,
            special(MESSAGES, spec(Path::Ipc, 0, NO, NO, counted)),
        ),
        (
            c::SYS_sendmmsg,
            special(MESSAGES, spec(Path::Ipc, 0, NO, NO, counted)),
        ),
        (
            c::SYS_mq_timedsend,
            special(WHOLE, spec(Path::Ipc, 0, 2, NO, counted)),
        ),
        (c::SYS_mq_timedreceive, spec(Path::Ipc, 0, 2, NO, moved)),
        (
            c::SYS_msgsnd,
            special(WHOLE, spec(Path::Ipc, NO, 2, NO, counted)),
        ),
        (c::SYS_msgrcv, spec(Path::Ipc, NO, 2, NO, moved)),
        (
            c::SYS_io_submit,
            special(AIO_SUBMIT, spec(Path::Other, NO, NO, NO, context)),
        ),
        (
            c::SYS_io_getevents,
            special(AIO_REAP, spec(Path::Other, NO, NO, NO, context)),
        ),
        (
            IO_PGETEVENTS,
            special(AIO_REAP, spec(Path::Other, NO, NO, NO, context)),
        ),
        (
            c::SYS_process_vm_readv,
            spec(Path::Ipc, NO, 2, NO, moved | FLAG_IOVEC),
        ),
        (
            c::SYS_process_vm_writev,
            spec(Path::Ipc, NO, 2, NO, moved | FLAG_IOVEC),
        ),
        (
            c::SYS_readahead,
            spec(Path::Prefetch, 0, 2, 1, FLAG_COUNTED | FLAG_FIXED_PATH),
        ),
        (c::SYS_fadvise64, advice(0, 2, 1, 3)),
        (c::SYS_madvise, advice(NO, 1, NO, 2)),
        (
            c::SYS_mmap,
            spec(
                Path::Mmap,
                4,
                1,
                5,
                FLAG_CHANGES_MAPPINGS | FLAG_MAPS | FLAG_FIXED_PATH,
            ),
        ),
        (
            c::SYS_mlock,
            spec(Path::Mmap, NO, NO, NO, context | FLAG_ADDRESS),
        ),
        (
            c::SYS_mlock2,
            spec(Path::Mmap, NO, NO, NO, context | FLAG_ADDRESS),
        ),
        (c::SYS_mlockall, spec(Path::Mmap, NO, NO, NO, context)),
        (
            c::SYS_execve,
            spec(Path::Exec, NO, NO, NO, FLAG_COUNTED | context),
        ),
        (
            c::SYS_execveat,
            spec(Path::Exec, NO, NO, NO, FLAG_COUNTED | context),
        ),
        (
            c::SYS_fsync,
            spec(Path::Writeback, 0, NO, NO, FLAG_COUNTED | context),
        ),
        (
            c::SYS_fdatasync,
            spec(Path::Writeback, 0, NO, NO, FLAG_COUNTED | context),
        ),
        (
            c::SYS_sync_file_range,
            spec(Path::Writeback, 0, NO, NO, FLAG_COUNTED | context),
        ),
        (
            c::SYS_syncfs,
            spec(Path::Writeback, 0, NO, NO, FLAG_COUNTED | context),
        ),
        (
            c::SYS_sync,
            spec(Path::Writeback, NO, NO, NO, FLAG_COUNTED | context),
        ),
        (
            c::SYS_msync,
            spec(Path::Writeback, NO, 1, NO, FLAG_COUNTED | context),
        ),
        (c::SYS_munmap, mappings),
        (c::SYS_mremap, mappings),
        (c::SYS_mprotect, mappings),
        (c::SYS_pkey_mprotect, mappings),
        (c::SYS_brk, mappings),
        (c::SYS_remap_file_pages, mappings),
        (c::SYS_shmat, mappings),
        (c::SYS_shmdt, mappings),
        (c::SYS_close, fds),
        (c::SYS_dup3, fds),
        (c::SYS_close_range, fds),
        (c::SYS_fcntl, fds),
        (c::SYS_unshare, fds),
        (c::SYS_io_uring_enter, fds),
        // The file may be another's, and its descriptors with it.
        (c::SYS_clone, both),
        (c::SYS_clone3, both),
        (c::SYS_getdents64, spec(Path::Metadata, 0, NO, NO, context)),
    ];
    #[cfg(target_arch = "x86_64")]
    table.extend([
        (c::SYS_dup2, fds),
        (c::SYS_fork, both),
        (c::SYS_vfork, both),
        (c::SYS_getdents, spec(Path::Metadata, 0, NO, NO, context)),
    ]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_listed_once_and_fits_the_map() {
        let mut numbers: Vec<_> = table().into_iter().map(|(number, _)| number).collect();
        assert!(numbers.iter().all(|number| (0..512).contains(number)));
        let all = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all);
    }
}
