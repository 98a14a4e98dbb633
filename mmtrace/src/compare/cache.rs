//! The files that commands read, put out of memory or into it before each run, and looked at.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use os_display::Quotable as _;

use crate::{
    failure::Failure,
    page_cache::CachedFile,
    recording::{Path as DataPath, Recording},
    report::units::counted,
};

/// What is made sure of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing of the files is in memory.
    Cold,
    /// All of them are.
    Warm,
    /// Nothing.
    AsItIs,
}

impl State {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::AsItIs => "as it is",
        }
    }
}

/// How often a file is made so before that is given up.
const TRIES: usize = 10;

/// The files.
pub struct Files {
    state: State,
    files: Vec<(PathBuf, CachedFile)>,
    /// Files that are in use by others, and stay in memory.
    staying: Vec<PathBuf>,
}

impl Files {
    /// The files that these recordings have reads or mappings of, as far as they can be had.
    ///
    /// # Errors
    /// If cold or warm files are asked for, and there is none to make so.
    pub fn of(state: State, recordings: &[Recording]) -> Result<Self> {
        let mut names = BTreeSet::new();
        if state != State::AsItIs {
            recordings.iter().for_each(|it| names.extend(read(it)));
        }
        let mut files = Vec::new();
        let mut staying = Vec::new();
        for name in names {
            let Some(file) = regular(&name) else {
                continue;
            };
            if state == State::Cold {
                // Only what is on disk can be dropped. A file system that has none refuses.
                let _ = file.file.sync_all();
                if file.evict(false)? > 0 {
                    staying.push(name);
                    continue;
                }
            }
            files.push((name, file));
        }
        if state != State::AsItIs && files.is_empty() {
            let message = format!(
                "--{}: the commands read no file that can be made so",
                state.name()
            );
            return Err(Failure::own(message).into());
        }
        Ok(Self {
            state,
            files,
            staying,
        })
    }

    /// Makes them so.
    ///
    /// # Errors
    /// If that cannot be had, by then.
    pub fn prepare(&self) -> Result<()> {
        for (name, file) in &self.files {
            let quoted = || name.quote().external(true).to_string();
            // What else the machine does may bring pages in, or put them out.
            let mut tries = 0;
            let (pages, how) = loop {
                let (pages, how) = match self.state {
                    State::Cold => (file.evict(false), "in memory when it was to be dropped"),
                    State::Warm => (file.warm(), "not in memory when it was to be"),
                    State::AsItIs => (Ok(0), ""),
                };
                let pages = pages.with_context(quoted)?;
                tries += 1;
                if pages == 0 || tries == TRIES {
                    break (pages, how);
                }
            };
            if pages > 0 {
                let pages = counted(pages, "page", "pages");
                bail!("{}: {pages} of it {how}", quoted());
            }
        }
        Ok(())
    }

    /// What was made so, in words.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let number = |files: usize| counted(files as u64, "file", "files");
        if self.state != State::AsItIs {
            notes.push(format!(
                "{} before each run: {}",
                self.state.name(),
                number(self.files.len())
            ));
        }
        if !self.staying.is_empty() {
            notes.push(format!(
                "{} stayed in memory, as others use them (libraries do)",
                number(self.staying.len())
            ));
        }
        notes
    }
}

/// The names of the files that were read or mapped.
fn read(recording: &Recording) -> impl Iterator<Item = PathBuf> {
    const PATHS: [DataPath; 5] = [
        DataPath::Read,
        DataPath::Mmap,
        DataPath::Direct,
        DataPath::Splice,
        DataPath::Prefetch,
    ];
    let rows = recording.rows.iter();
    let used = rows.filter(|row| PATHS.contains(&row.path) && !row.measures.is_empty());
    let used: BTreeSet<u32> = used.filter_map(|row| row.file).collect();
    let files = recording.files.iter();
    let files = files.filter(move |file| used.contains(&file.id));
    files.filter_map(|file| file.name.as_deref().map(PathBuf::from))
}

/// A regular file that is not empty and can be opened.
fn regular(name: &Path) -> Option<CachedFile> {
    // Of a named pipe, opening would wait for the other side.
    let metadata = name.is_absolute().then(|| name.metadata().ok()).flatten()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return None;
    }
    CachedFile::of(File::open(name).ok()?).ok()
}
