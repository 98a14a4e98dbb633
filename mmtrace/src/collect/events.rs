//! The kernel side's events: processes that start and end, files seen for the first time.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use mmtrace_common::{
    CodeEvent, EventHeader, EventKind, FileEvent, FileKey, ProcessEvent, StackEvent,
};
use tokio::io::unix::AsyncFd;

use super::code::Code;

/// A process that was followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessSeen {
    /// Its pid, in the initial namespace.
    pub pid: u32,
    /// The process that made it; 0 for the target itself.
    pub parent: u64,
    /// What it ran last, argument by argument; empty if it never left its parent's program.
    pub command: Vec<Vec<u8>>,
    /// Minor and major faults that the kernel had charged to it before it was followed.
    pub faults_before: [u64; 2],
    /// Bytes from disk that the kernel had charged to it before.
    pub disk_read_bytes_before: u64,
    /// When it started, on the monotonic clock.
    pub start_ns: u64,
    /// When it ended, if it has.
    pub end_ns: Option<u64>,
    /// As `wait` gives it, once it has ended.
    pub exit_status: u32,
}

/// A file that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileSeen {
    /// The names on its path, from the file up, each ending in a zero.
    pub names: Vec<u8>,
    /// Whether they go up to the process's root.
    pub complete: bool,
    /// Whether it had no name any more.
    pub deleted: bool,
    /// Its size when it was first seen.
    pub size_bytes: u64,
    /// Its mode: type and permissions.
    pub mode: u32,
    /// The type of its file system, as in /proc/filesystems.
    pub filesystem: String,
    /// Its device number, of a device; in the kernel's encoding.
    pub rdev: u32,
}

/// What the kernel side has told.
pub(super) struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    /// Processes, by the number that rows have.
    pub processes: BTreeMap<u64, ProcessSeen>,
    /// Files.
    pub files: HashMap<FileKey, FileSeen>,
    /// The programs' code, if stacks are wanted.
    pub code: Code,
}

impl Events {
    /// Takes the ring buffer from the loaded programs, and if stacks are wanted, where these look up
    /// rules.
    ///
    /// # Errors
    ///
    /// If it is not there, or outside of a tokio runtime.
    pub(super) fn new(ebpf: &mut Ebpf, stacks: bool) -> Result<Self> {
        let map = ebpf
            .take_map("EVENTS")
            .context("the kernel programs have no map EVENTS")?;
        let ring = RingBuf::try_from(map)?;
        let code = if stacks {
            Code::new(ebpf)?
        } else {
            Code::default()
        };
        Ok(Self {
            // SAFETY: the ring buffer's descriptor stays open and the same for as long as it lives.
            ring: unsafe { AsyncFd::register(ring) }?,
            processes: BTreeMap::new(),
            files: HashMap::new(),
            code,
        })
    }

    /// Returns when there are new events.
    ///
    /// # Errors
    ///
    /// If the ring buffer cannot be waited for.
    pub(super) async fn told(&mut self) -> Result<()> {
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// How many of the processes followed have not ended.
    #[must_use]
    pub(super) fn running(&self) -> usize {
        self.processes
            .values()
            .filter(|process| process.end_ns.is_none())
            .count()
    }

    /// Takes what is there.
    pub(super) fn drain(&mut self) {
        while let Some(item) = self.ring.get_mut().next() {
            take(&mut self.processes, &mut self.files, &mut self.code, &item);
        }
    }
}

fn take(
    processes: &mut BTreeMap<u64, ProcessSeen>,
    files: &mut HashMap<FileKey, FileSeen>,
    code: &mut Code,
    bytes: &[u8],
) {
    let Some(header) = fixed::<EventHeader>(bytes) else {
        return;
    };
    if header.kind == EventKind::File as u32 || header.kind == EventKind::FileMore as u32 {
        let Some(event) = fixed::<FileEvent>(bytes) else {
            return;
        };
        let names = text(bytes, size_of::<FileEvent>(), header);
        let seen = files.entry(event.file).or_default();
        if header.kind == EventKind::File as u32 {
            *seen = file(&event, names);
        } else {
            seen.names.extend_from_slice(names);
            seen.complete = event.complete != 0;
        }
        return;
    }
    if header.kind == EventKind::Code as u32 {
        if let Some(event) = fixed::<CodeEvent>(bytes) {
            let file = files.get(&event.place.file);
            code.mapped(&event, processes.get(&event.process), file);
        }
        return;
    }
    if header.kind == EventKind::Stack as u32 {
        if let Some(event) = fixed::<StackEvent>(bytes) {
            let stack = text(bytes, size_of::<StackEvent>(), header);
            code.stack_told(&event, stack);
        }
        return;
    }
    let Some(event) = fixed::<ProcessEvent>(bytes) else {
        return;
    };
    let seen = processes.entry(event.process).or_default();
    if header.kind == EventKind::Started as u32 {
        seen.pid = event.pid;
        seen.parent = event.parent;
        seen.start_ns = event.at_ns;
        seen.faults_before = event.faults_before;
        seen.disk_read_bytes_before = event.disk_read_bytes_before;
        code.forked(event.process, event.pid, event.parent);
    } else if header.kind == EventKind::Executed as u32 {
        code.executed(event.process);
        let text = text(bytes, size_of::<ProcessEvent>(), header);
        let text = text.strip_suffix(b"\0").unwrap_or(text);
        seen.command = text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    } else if header.kind == EventKind::Ended as u32 {
        seen.end_ns = Some(event.at_ns);
        seen.exit_status = event.exit_status;
    }
}

fn file(event: &FileEvent, names: &[u8]) -> FileSeen {
    let end = event.filesystem.iter().position(|byte| *byte == 0);
    FileSeen {
        names: names.to_vec(),
        complete: event.complete != 0,
        deleted: event.deleted != 0,
        size_bytes: event.size_bytes,
        mode: event.mode,
        filesystem: String::from_utf8_lossy(&event.filesystem[..end.unwrap_or(16)]).into_owned(),
        rdev: event.rdev,
    }
}

impl FileSeen {
    /// The path that the names make.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.names.len() + 1);
        let names = self.names.strip_suffix(b"\0").unwrap_or(&self.names);
        for name in names.rsplit(|byte| *byte == 0) {
            // The root of a tree that is mounted nowhere is called "/" itself.
            if !name.starts_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        path
    }
}

/// The fixed part at the start of an event.
fn fixed<T: Copy>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are as many bytes as T has, and the event types are plain integers.
    (bytes.len() >= size_of::<T>())
        .then(|| unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

fn text(bytes: &[u8], fixed: usize, header: EventHeader) -> &[u8] {
    let end = bytes.len().min(fixed + header.text_bytes as usize);
    bytes.get(fixed..end).unwrap_or(b"")
}
