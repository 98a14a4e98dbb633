//! The code that programs have mapped: what their addresses mean.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsStr,
    fs::{File, OpenOptions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    rc::Rc,
    sync::Arc,
};

use aya::maps::{HashMap as BpfHashMap, MapData};
use mmtrace_common::{
    CodeEvent, FileKey,
    stack::{CALLER_BY_FRAME_POINTER, CodePlace},
};

use super::{
    elf::{self, Segment},
    events::{FileSeen, ProcessSeen},
    go,
    perf_map::PerfMaps,
    unwinding::Unwinding,
};
use crate::page_cache::page_bytes;

/// A mapping of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    /// The address after its last.
    end: u64,
    /// What is mapped at its first.
    place: CodePlace,
}

/// The mappings of one process, by their first address.
type Mappings = BTreeMap<u64, Mapping>;

/// A file with code.
pub(super) struct Module {
    /// Open from when it was seen first, so that it may be replaced or deleted.
    pub file: File,
    /// Its name without directories.
    pub name: String,
    /// None, if it is no ELF file.
    segments: Vec<Segment>,
    unwinding: Option<Unwinding>,
    /// What a Go program knows of itself, once it was asked for.
    go: OnceCell<Option<go::Functions>>,
    /// Places that were asked for, and the answers.
    callers: HashMap<u64, u64>,
}

/// What is known of the programs' code.
#[derive(Default)]
pub(super) struct Code {
    /// Where the kernel programs look answers up; `None` if stacks are not wanted.
    answers: Option<BpfHashMap<MapData, CodePlace, u64>>,
    processes: HashMap<u64, Rc<Mappings>>,
    modules: HashMap<FileKey, Module>,
    /// What programs tell of code that they make; `None` if stacks are not wanted.
    perf_maps: Option<PerfMaps>,
}

impl Code {
    /// That answers where the kernel programs look.
    pub(super) fn new(answers: BpfHashMap<MapData, CodePlace, u64>) -> Self {
        Self {
            answers: Some(answers),
            perf_maps: Some(PerfMaps::new()),
            ..Self::default()
        }
    }

    /// A process has been made, which has its parent's code.
    pub(super) fn forked(&mut self, process: u64, pid: u32, parent: u64) {
        if let Some(perf_maps) = &mut self.perf_maps {
            perf_maps.forked(process, pid, parent);
        }
        if let Some(mappings) = self.processes.get(&parent) {
            let mappings = Rc::clone(mappings);
            self.processes.insert(process, mappings);
        }
    }

    /// A process runs another program.
    pub(super) fn executed(&mut self, process: u64) {
        if let Some(perf_maps) = &mut self.perf_maps {
            perf_maps.executed(process);
        }
        self.processes.remove(&process);
    }

    /// A process has mapped code.
    pub(super) fn mapped(
        &mut self,
        event: &CodeEvent,
        process: Option<&ProcessSeen>,
        file: Option<&FileSeen>,
    ) {
        let mappings = Rc::make_mut(self.processes.entry(event.process).or_default());
        // What was there has been replaced.
        mappings.retain(|start, mapping| mapping.end <= event.start || *start >= event.end);
        mappings.insert(
            event.start,
            Mapping {
                end: event.end,
                place: event.place,
            },
        );
        if !self.modules.contains_key(&event.place.file)
            && let (Some(process), Some(file)) = (process, file)
            && let Some(module) = Module::open(event, process.pid, file)
        {
            self.modules.insert(event.place.file, module);
        }
        if let Some(module) = self.modules.get(&event.place.file) {
            module.add_siblings(event, mappings);
        }
    }

    /// Answers where the return address of a place is.
    pub(super) fn asked(&mut self, place: CodePlace) {
        let at = self.caller_at(place);
        if let Some(answers) = &mut self.answers {
            // Without an answer the kernel programs go on guessing, which the stacks tell.
            let _ = answers.insert(place, at, 0);
        }
    }

    /// Which place an address of a process is.
    pub(super) fn find(&self, process: u64, address: u64) -> Option<CodePlace> {
        let mappings = self.processes.get(&process)?;
        let (start, mapping) = mappings.range(..=address).next_back()?;
        (address < mapping.end).then(|| CodePlace {
            offset: mapping.place.offset + (address - start),
            ..mapping.place
        })
    }

    /// A file with code.
    pub(super) fn module(&self, file: &FileKey) -> Option<&Module> {
        self.modules.get(file)
    }

    /// As [`Unwinding::caller_at`].
    pub(super) fn caller_at(&mut self, place: CodePlace) -> u64 {
        let module = self.modules.get_mut(&place.file);
        module.map_or(CALLER_BY_FRAME_POINTER, |module| {
            module.caller_at(place.offset)
        })
    }

    /// As [`PerfMaps::names`].
    pub(super) fn made_at_run_time(
        &self,
        process: u64,
        addresses: &BTreeSet<u64>,
    ) -> (BTreeMap<u64, Arc<str>>, Option<String>) {
        let perf_maps = self.perf_maps.as_ref();
        perf_maps.map_or_else(Default::default, |perf_maps| {
            perf_maps.names(process, addresses)
        })
    }
}

impl Module {
    /// Opens the file that a mapping is of: the very one as long as the process is there, else the
    /// one that has its name now, if it is the same.
    fn open(event: &CodeEvent, pid: u32, seen: &FileSeen) -> Option<Self> {
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
        let read = elf::read(&file, |elf| (elf::segments(elf), Unwinding::of(elf)));
        let (segments, unwinding) = read.unwrap_or_default();
        Some(Self {
            name: String::from_utf8_lossy(name).into_owned(),
            segments,
            unwinding,
            go: OnceCell::new(),
            callers: HashMap::new(),
            file,
        })
    }

    /// Adds the file's other segments of code to where one of them is mapped: the kernel maps all of a
    /// program, and tells of one.
    fn add_siblings(&self, event: &CodeEvent, mappings: &mut Mappings) {
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
        let unwinding = self.unwinding.as_ref();
        let begins = unwinding.and_then(|unwinding| unwinding.function_at(self.address(offset)?));
        match begins {
            Some(begins) => format!("[{}+{begins:#x}]", self.name),
            None => format!("[{}]", self.name),
        }
    }

    /// The address that the file gives to a place in it.
    fn address(&self, offset: u64) -> Option<u64> {
        let segment = Segment::find(&self.segments, offset)?;
        segment.address.checked_add(offset - segment.offset)
    }

    fn caller_at(&mut self, offset: u64) -> u64 {
        let address = self.address(offset);
        let unwinding = self.unwinding.as_ref().zip(address);
        *self.callers.entry(offset).or_insert_with(|| {
            unwinding.map_or(CALLER_BY_FRAME_POINTER, |(unwinding, address)| {
                unwinding.caller_at(address)
            })
        })
    }
}
