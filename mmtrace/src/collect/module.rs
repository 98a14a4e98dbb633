//! A file with code that programs have mapped.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fs::{File, OpenOptions},
    ops::Range,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
};

use mmtrace_common::{
    CodeEvent,
    stack::{CodePlace, UnwindRule},
};
use object::Object as _;

use super::{
    elf::{self, Segment},
    events::FileSeen,
    go,
    unwinding::Unwinding,
};
use crate::page_cache::page_bytes;

/// A mapping of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// The address after its last.
    pub end: u64,
    /// What is mapped at its first.
    pub place: CodePlace,
}

/// The mappings of one process, by their first address.
pub(super) type Mappings = BTreeMap<u64, Mapping>;

/// How long the code is, at most, with which a program starts. Written in assembly, it may have no
/// unwinding information, as the loader of the GNU C library.
const START_BYTES: u64 = 64;

/// How long the code is, at most, that the compiler adds.
const ADDED_BYTES: u64 = 256;

/// A file with code.
pub(super) struct Module {
    /// Open from when it was seen first, so that it may be replaced or deleted.
    pub file: File,
    /// Its name without directories.
    pub name: String,
    /// None, if it is no ELF file.
    segments: Vec<Segment>,
    unwinding: Option<Unwinding>,
    /// The addresses where a program starts.
    start: Range<u64>,
    /// What a Go program knows of itself, once it was asked for.
    go: OnceCell<Option<go::Functions>>,
    /// What its unwinding information says of places that were looked up.
    rules: HashMap<u64, Option<UnwindRule>>,
    /// Code of which it says nothing, as far as it was looked for.
    gaps: Vec<Range<u64>>,
}

impl Module {
    /// Opens the file that a mapping is of: the very one as long as the process is there, else the
    /// one that has its name now, if it is the same.
    pub(super) fn open(event: &CodeEvent, pid: u32, seen: &FileSeen) -> Option<Self> {
        let path = seen.path();
        let very = format!("/proc/{pid}/map_files/{:x}-{:x}", event.start, event.end);
        let file = File::open(very).ok().or_else(|| {
            // A name that the program chose: not to be waited for, whatever is there now.
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .custom_flags(flags)
                .open(OsStr::from_bytes(&path));
            let metadata = file.as_ref().ok()?.metadata().ok()?;
            let same = metadata.is_file() && metadata.ino() == event.place.file.inode;
            file.ok().filter(|_| same)
        })?;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(&path);
        let read = elf::read(&file, |elf| {
            (elf::segments(elf), Unwinding::of(elf), elf.entry())
        });
        let (segments, unwinding, start) = read.unwrap_or_default();
        Some(Self {
            name: String::from_utf8_lossy(name).into_owned(),
            segments,
            unwinding,
            start: start..start.saturating_add(START_BYTES),
            go: OnceCell::new(),
            rules: HashMap::new(),
            gaps: Vec::new(),
            file,
        })
    }

    /// Adds the file's other segments of code to where one of them is mapped: the kernel maps all of a
    /// program, and tells of one.
    pub(super) fn add_siblings(&self, event: &CodeEvent, mappings: &mut Mappings) {
        let page_bytes = page_bytes();
        let page = |address: u64| address - address % page_bytes;
        let mut code = self.segments.iter().filter(|segment| segment.code);
        let Some(told) = code.find(|segment| page(segment.offset) == event.place.offset) else {
            return;
        };
        let away = event.start.wrapping_sub(page(told.address));
        for segment in self.segments.iter().filter(|segment| segment.code) {
            let start = page(segment.address).wrapping_add(away);
            let bytes = segment
                .size_bytes
                .saturating_add(segment.address % page_bytes);
            let Some(end) = start
                .checked_add(bytes)
                .and_then(|end| end.checked_next_multiple_of(page_bytes))
            else {
                continue;
            };
            let before = mappings.range(..end).next_back();
            if end > start && before.is_none_or(|(_, mapping)| mapping.end <= start) {
                let place = CodePlace {
                    offset: page(segment.offset),
                    ..event.place
                };
                mappings.insert(start, Mapping { end, place });
            }
        }
    }

    /// Whether its addresses mean what the file says.
    pub(super) fn has_code(&self) -> bool {
        !self.segments.is_empty()
    }

    /// The name of a function that has no symbol, at an offset of the file: what a Go program says
    /// itself, else none.
    pub(super) fn go_name(&self, offset: u64) -> Option<String> {
        let address = self.address(offset)?;
        let functions = self.go.get_or_init(|| go::Functions::of(&self.file));
        functions.as_ref()?.name_at(address)
    }

    /// What a function without a name is called, at an offset of the file: by the file's name and where
    /// the function begins.
    pub(super) fn nameless(&self, offset: u64) -> String {
        match self.function_at(offset) {
            Some(begins) => format!("[{}+{begins:#x}]", self.name),
            None => format!("[{}]", self.name),
        }
    }

    /// The address that the file gives to the beginning of the function at an offset.
    pub(super) fn function_at(&self, offset: u64) -> Option<u64> {
        let unwinding = self.unwinding.as_ref()?;
        unwinding.function_at(self.address(offset)?)
    }

    /// Whether the function at an offset of the file hides its callers if it keeps no frame pointer: it
    /// has no unwinding information. Go's need none, and neither does what the compiler adds to programs
    /// and libraries (crtstuff.c), which is short.
    pub(super) fn may_hide_callers(&mut self, offset: u64) -> bool {
        if self.rule(offset).is_some() || self.go_name(offset).is_some() {
            return false;
        }
        let gap = self.gap_at(offset);
        gap.is_some_and(|gap| gap.end.saturating_sub(gap.start) > ADDED_BYTES)
    }

    /// The code around an offset of the file that has no unwinding information: its addresses.
    fn gap_at(&mut self, offset: u64) -> Option<Range<u64>> {
        let address = self.address(offset)?;
        if let Some(gap) = self.gaps.iter().find(|gap| gap.contains(&address)) {
            return Some(gap.clone());
        }
        let segment = Segment::find(&self.segments, offset)?;
        let mut gap = segment.address..segment.address.saturating_add(segment.size_bytes);
        if let Some(unwinding) = &self.unwinding {
            gap = unwinding.gap_at(address, gap);
        }
        self.gaps.push(gap.clone());
        Some(gap)
    }

    /// The address that the file gives to a place in it.
    pub(super) fn address(&self, offset: u64) -> Option<u64> {
        let segment = Segment::find(&self.segments, offset)?;
        segment.address.checked_add(offset - segment.offset)
    }

    /// As [`Unwinding::rule_at`], of an offset of the file.
    pub(super) fn rule(&mut self, offset: u64) -> Option<UnwindRule> {
        if let Some(rule) = self.rules.get(&offset) {
            return *rule;
        }
        let rule = self.address(offset).and_then(|address| {
            let unwinding = self.unwinding.as_ref();
            let known = unwinding.and_then(|unwinding| unwinding.rule_at(address));
            known.or_else(|| self.start.contains(&address).then_some(UnwindRule::END))
        });
        self.rules.insert(offset, rule);
        rule
    }
}
