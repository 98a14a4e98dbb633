//! Reading a recording back, and whether it is consistent.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use super::{Measure, MeasureSet, Measured, Recording, SCHEMA, Totals};

/// Why something could not be read as a recording.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is nothing.
    #[error("not an mmtrace recording: it is empty")]
    Empty,
    /// It ends in the middle.
    #[error(
        "the recording ends too early, in line {line}, column {column}: it was cut off, or is still \
         being written"
    )]
    CutOff {
        /// The line in which it ends, the first being 1.
        line: usize,
        /// After how many bytes of it.
        column: usize,
    },
    /// It is not JSON, or a key is missing or of the wrong type.
    #[error("not a readable mmtrace recording: {0}")]
    Malformed(serde_json::Error),
    /// It is JSON of another kind.
    #[error(
        "not an mmtrace recording: it has no \"schema\" that begins with \"mmtrace.recording/\""
    )]
    Foreign,
    /// Another version of mmtrace wrote it.
    #[error(
        "this recording has the format {found:?}, this version of mmtrace reads {SCHEMA:?}: \
         use the version of mmtrace that wrote it"
    )]
    Version {
        /// The format that the file names.
        found: String,
    },
    /// Its parts contradict each other.
    #[error("the recording contradicts itself: {0}; was it edited or cut off?")]
    Inconsistent(String),
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        match error.is_eof() {
            true => Self::CutOff {
                line: error.line(),
                column: error.column(),
            },
            false => Self::Malformed(error),
        }
    }
}

impl Recording {
    /// Reads a recording from its JSON.
    ///
    /// # Errors
    /// When it is no recording, of a version that this program does not know, or contradicts
    /// itself.
    pub fn from_json(json: &[u8]) -> Result<Self, ReadError> {
        #[derive(Deserialize)]
        struct Header {
            schema: Option<String>,
        }

        if json.trim_ascii().is_empty() {
            return Err(ReadError::Empty);
        }
        let schema = serde_json::from_slice::<Header>(json)?
            .schema
            .filter(|schema| schema.starts_with("mmtrace.recording/"))
            .ok_or(ReadError::Foreign)?;
        if schema != SCHEMA {
            return Err(ReadError::Version { found: schema });
        }
        let recording: Self = serde_json::from_slice(json)?;
        recording.check().map_err(ReadError::Inconsistent)?;
        Ok(recording)
    }

    /// Checks that ids are unique, that rows name processes and files that are listed, and that the
    /// rows add up to the totals, and samples to theirs.
    ///
    /// # Errors
    /// The first contradiction, in words.
    pub fn check(&self) -> Result<(), String> {
        let processes = distinct("process", self.processes.iter().map(|process| process.id))?;
        let files = distinct("file", self.files.iter().map(|file| file.id))?;
        for process in &self.processes {
            if let Some(parent) = process.parent.filter(|id| !processes.contains(id)) {
                return Err(format!("process {} has no parent {parent}", process.id));
            }
        }
        for row in &self.rows {
            if let Some(id) = row.process.filter(|id| !processes.contains(id)) {
                return Err(format!("a row names process {id}, which is not listed"));
            }
            if let Some(id) = row.file.filter(|id| !files.contains(id)) {
                return Err(format!("a row names file {id}, which is not listed"));
            }
        }
        if let Some(samples) = &self.kernel_samples {
            samples.check()?;
        }
        if let Some(timeline) = &self.timeline {
            timeline.check()?;
        }
        if let Some(map) = self.heat_maps.iter().find(|map| !files.contains(&map.file)) {
            return Err(format!(
                "a heat map names file {}, which is not listed",
                map.file
            ));
        }
        self.check_stacks(&processes)?;
        self.check_totals()
    }

    /// Stacks name processes that are listed, and add up to the rows.
    fn check_stacks(&self, processes: &HashSet<u32>) -> Result<(), String> {
        let mut sums: BTreeMap<_, u64> = BTreeMap::new();
        for stack in &self.stacks {
            if let Some(id) = stack.process.filter(|id| !processes.contains(id)) {
                return Err(format!("a stack names process {id}, which is not listed"));
            }
            if !stack.sources.is_empty() && stack.sources.len() != stack.frames.len() {
                return Err("a stack has more or fewer places in the source than frames".into());
            }
            let sum = sums
                .entry((stack.process, stack.path, stack.measure))
                .or_default();
            *sum = sum.saturating_add(stack.value);
        }
        let mut rows: BTreeMap<_, u64> = BTreeMap::new();
        for row in &self.rows {
            for measure in Measure::ALL {
                if let Some(value) = row.measures.get(measure) {
                    let sum = rows.entry((row.process, row.path, measure)).or_default();
                    *sum = sum.saturating_add(value);
                }
            }
        }
        for ((process, path, measure), sum) in sums {
            let of_rows = rows.get(&(process, path, measure)).copied();
            if of_rows != Some(sum) {
                return Err(format!(
                    "the stacks of {} on {} add up to {sum}, the rows to {}",
                    measure.name(),
                    path.name(),
                    of_rows.map_or("nothing".into(), |sum| sum.to_string()),
                ));
            }
        }
        Ok(())
    }

    fn check_totals(&self) -> Result<(), String> {
        let mut measured = Measured::default();
        for (path, totals) in self.totals.iter() {
            let known = Measure::ALL.map(|measure| totals.get(measure).map(|_| measure));
            for measure in known.into_iter().flatten() {
                measured.set(path, measured.on(path).union(MeasureSet::of(&[measure])));
            }
        }
        for row in &self.rows {
            for measure in Measure::ALL {
                if row.measures.get(measure).is_some() != measured.on(row.path).contains(measure) {
                    return Err(format!(
                        "{} of the path {} is null in only one of a row and the totals",
                        measure.name(),
                        row.path.name(),
                    ));
                }
            }
        }
        let sums = Totals::of(&self.rows, &measured);
        for (path, totals) in self.totals.iter() {
            for measure in Measure::ALL {
                if sums[path].get(measure) != totals.get(measure) {
                    return Err(format!(
                        "the rows' {} of the path {} do not add up to the total",
                        measure.name(),
                        path.name(),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn distinct(kind: &str, ids: impl Iterator<Item = u32>) -> Result<HashSet<u32>, String> {
    let mut seen = HashSet::new();
    for id in ids {
        if !seen.insert(id) {
            return Err(format!("two entries have the {kind} id {id}"));
        }
    }
    Ok(seen)
}
