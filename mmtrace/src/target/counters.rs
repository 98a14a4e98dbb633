//! The kernel's own counters of a process, in `/proc`.

use std::fs;
use std::io;

/// `/proc/PID/io`: what the kernel accounted to a process and to the children it has reaped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ProcIo {
    /// Bytes returned by read calls, from anything: files, pipes, terminals.
    pub rchar: u64,
    /// Bytes passed to write calls.
    pub wchar: u64,
    /// Read calls.
    pub syscr: u64,
    /// Write calls.
    pub syscw: u64,
    /// Bytes fetched from storage.
    pub read_bytes: u64,
    /// Bytes sent, or by dirtying pages yet to be sent, to storage.
    pub write_bytes: u64,
    /// Bytes of `write_bytes` that truncation made unnecessary.
    pub cancelled_write_bytes: u64,
}

impl ProcIo {
    /// Reads the counters of `pid`, alive or not yet reaped.
    ///
    /// None where the kernel lacks task I/O accounting or denies it.
    pub(super) fn read(pid: libc::pid_t) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/io")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| -> Option<u64> {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
        };
        Some(Self {
            rchar: field("rchar")?,
            wchar: field("wchar")?,
            syscr: field("syscr")?,
            syscw: field("syscw")?,
            read_bytes: field("read_bytes")?,
            write_bytes: field("write_bytes")?,
            cancelled_write_bytes: field("cancelled_write_bytes")?,
        })
    }
}

/// Page faults in `/proc/PID/stat`, of all threads that the process ever had.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    /// Resolved without waiting for storage.
    pub minor: u64,
    /// Resolved after waiting for storage.
    pub major: u64,
    /// Minor faults of the children that the process has reaped.
    pub children_minor: u64,
    /// Major faults of the children that the process has reaped.
    pub children_major: u64,
}

/// What mmtrace uses of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stat {
    pub(super) state: u8,
    pub(super) faults: Faults,
}

impl Stat {
    /// Reads the line of `pid`, alive or not yet reaped.
    pub(super) fn read(pid: libc::pid_t) -> io::Result<Self> {
        let line = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&line)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected stat line"))
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // The name, field 2, is in parentheses and may itself hold spaces and parentheses.
        let name_end = line.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| -> Option<u64> { fields.get(field - 3)?.parse().ok() };
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            faults: Faults {
                minor: number(10)?,
                children_minor: number(11)?,
                major: number(12)?,
                children_major: number(13)?,
            },
        })
    }
}

/// A target's counters while it waits at the gate, before its command's execve.
///
/// They hold mmtrace's own doing in the child since the fork: subtract them from the end's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Baseline {
    /// `/proc/PID/io`; None where the kernel does not tell.
    pub io: Option<ProcIo>,
    /// Faults of `/proc/PID/stat`.
    pub faults: Faults,
}

impl Baseline {
    pub(super) fn read(pid: libc::pid_t) -> io::Result<Self> {
        Ok(Self {
            io: ProcIo::read(pid),
            faults: Stat::read(pid)?.faults,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = b"42 (a) R (b c) T 1 42 42 0 -1 4194560 101 202 3 4 5 6 7 8 20 0 1 0";
        let expected = Faults {
            minor: 101,
            children_minor: 202,
            major: 3,
            children_major: 4,
        };
        assert_eq!(
            Stat::parse(line),
            Some(Stat {
                state: b'T',
                faults: expected
            })
        );
        assert_eq!(Stat::parse(b"42 (a) R 1"), None);
    }

    #[test]
    fn io_is_parsed_by_name_and_whole() {
        let text = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\n\
                    cancelled_write_bytes: 7\n";
        let io = ProcIo::parse(text).unwrap();
        assert_eq!(
            (io.rchar, io.wchar, io.read_bytes, io.cancelled_write_bytes),
            (1, 2, 5, 7)
        );
        assert_eq!(ProcIo::parse("rchar: 1\n"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id().cast_signed();
        assert!(Stat::read(pid).unwrap().faults.minor > 0);
    }
}
