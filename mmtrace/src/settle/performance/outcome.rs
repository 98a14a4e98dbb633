//! What the experiment found: cells, and in each the contestants and who won.

use serde::{Deserialize, Serialize};

use super::workload::Work;
use crate::statistics::{Spread, faster, median};

/// A way in which bytes come to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// `pread` into a buffer.
    Read,
    /// A shared mapping with the kernel's default behaviour.
    Mmap,
    /// A mapping with `MADV_SEQUENTIAL`.
    MmapSequential,
    /// A mapping with `MADV_RANDOM`.
    MmapRandom,
    /// A mapping with `MADV_WILLNEED`.
    MmapWillneed,
    /// A mapping with `MAP_POPULATE`.
    MmapPopulate,
    /// A pipe of the default size.
    Pipe,
    /// A pair of unix stream sockets with the default buffers.
    UnixStream,
    /// Shared memory with a futex.
    SharedMapping,
}

impl Method {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Mmap => "mmap",
            Self::MmapSequential => "mmap+seq",
            Self::MmapRandom => "mmap+rnd",
            Self::MmapWillneed => "mmap+will",
            Self::MmapPopulate => "mmap+pop",
            Self::Pipe => "pipe",
            Self::UnixStream => "unix",
            Self::SharedMapping => "shared",
        }
    }

    /// Whether the program finds the bytes in memory that is mapped, rather than having them copied.
    #[must_use]
    pub const fn is_mapping(self) -> bool {
        !matches!(self, Self::Read | Self::Pipe | Self::UnixStream)
    }
}

/// A sample that was believed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// In which repetition, from 0.
    pub repetition: usize,
    /// As which one of all samples of the experiment, from 0: the order is random.
    pub position: u64,
    /// Time for each useful byte, in nanoseconds; without that for which it waited for a processor
    /// where a single thread reads a file that is cached.
    pub ns_per_byte: f64,
    /// Minor faults.
    pub minor_faults: u64,
    /// Major faults.
    pub major_faults: u64,
    /// Bytes read from disks on the process's account; None where that is not known.
    pub disk_bytes: Option<u64>,
    /// For which share of its time the process's first thread was ready to run while others ran.
    pub waited: f64,
}

/// A method's part in a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contestant {
    /// Which.
    pub method: Method,
    /// Its samples, by repetition.
    pub samples: Vec<Measured>,
    /// How many samples failed or were not believed, as the cache was not as it should have been.
    pub discarded: u64,
    /// Time for each useful byte, in nanoseconds; None without a sample.
    pub ns_per_byte: Option<Spread>,
    /// Minor faults, the median.
    pub minor_faults: Option<f64>,
    /// Major faults, the median.
    pub major_faults: Option<f64>,
    /// Bytes read from disks, the median; None where that is not known.
    pub disk_bytes: Option<f64>,
    /// Bytes read from disks for each useful byte; None where that is not known.
    pub amplification: Option<f64>,
}

impl Contestant {
    pub(super) const fn new(method: Method) -> Self {
        Self {
            method,
            samples: Vec::new(),
            discarded: 0,
            ns_per_byte: None,
            minor_faults: None,
            major_faults: None,
            disk_bytes: None,
            amplification: None,
        }
    }

    /// Works out the figures from the samples, each of which was of so many useful bytes.
    fn sum_up(&mut self, useful_bytes: u64) {
        let of = |figure: fn(&Measured) -> Option<f64>| -> Vec<f64> {
            self.samples.iter().filter_map(figure).collect()
        };
        self.ns_per_byte = Spread::of(&of(|sample| Some(sample.ns_per_byte)));
        self.minor_faults = median(&of(|sample| Some(sample.minor_faults as f64)));
        self.major_faults = median(&of(|sample| Some(sample.major_faults as f64)));
        self.disk_bytes = median(&of(|sample| sample.disk_bytes.map(|bytes| bytes as f64)));
        self.amplification = self.disk_bytes.map(|bytes| bytes / useful_bytes as f64);
    }

    fn median_ns(&self) -> Option<f64> {
        self.ns_per_byte.map(|spread| spread.median)
    }

    fn times(&self) -> Vec<(usize, f64)> {
        let samples = self.samples.iter();
        samples
            .map(|sample| (sample.repetition, sample.ns_per_byte))
            .collect()
    }
}

/// Who was faster in a cell, beyond the spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Winner {
    /// The fastest of its side.
    pub method: Method,
    /// The fastest of the other side.
    pub over: Method,
    /// The other's time by its own.
    pub factor: f64,
}

/// One combination of conditions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// What was done.
    pub work: Work,
    /// Bytes that the program asked for in a sample.
    pub useful_bytes: u64,
    /// By which methods.
    pub contestants: Vec<Contestant>,
    /// The faster side: mapping or copying, each by its best method. None where the difference does
    /// not exceed the spread.
    pub winner: Option<Winner>,
    /// The same without advice to the kernel: the plain mapping alone against copying.
    pub winner_unadvised: Option<Winner>,
    /// Why there is nothing to compare.
    pub skipped: Option<String>,
}

impl Cell {
    pub(super) fn new(work: Work, methods: &[Method]) -> Self {
        Self {
            work,
            useful_bytes: 0,
            contestants: methods.iter().copied().map(Contestant::new).collect(),
            winner: None,
            winner_unadvised: None,
            skipped: None,
        }
    }

    /// A method's part, if it took part.
    #[must_use]
    pub fn contestant(&self, method: Method) -> Option<&Contestant> {
        let mut contestants = self.contestants.iter();
        contestants.find(|contestant| contestant.method == method)
    }

    /// The fastest of the mapping methods, or of the copying ones.
    #[must_use]
    pub fn best(&self, is_mapping: bool) -> Option<&Contestant> {
        self.fastest(|method| method.is_mapping() == is_mapping)
    }

    /// The fastest of some methods.
    pub(super) fn fastest(&self, is_of: impl Fn(Method) -> bool) -> Option<&Contestant> {
        self.contestants
            .iter()
            .filter(|contestant| is_of(contestant.method))
            .filter_map(|contestant| Some((contestant.median_ns()?, contestant)))
            .min_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, contestant)| contestant)
    }

    /// Works out the contestants' figures and the winners.
    pub(super) fn sum_up(&mut self) {
        for contestant in &mut self.contestants {
            contestant.sum_up(self.useful_bytes);
        }
        let copying = self.best(false);
        let against = |mapping: Option<&Contestant>| {
            let (copying, mapping) = (copying?, mapping?);
            let beats = |ours: &Contestant, theirs: &Contestant| {
                Some(Winner {
                    method: ours.method,
                    over: theirs.method,
                    factor: faster(&ours.times(), &theirs.times())?,
                })
            };
            beats(mapping, copying).or_else(|| beats(copying, mapping))
        };
        let advised = against(self.best(true));
        let unadvised =
            against(self.fastest(|method| matches!(method, Method::Mmap | Method::SharedMapping)));
        (self.winner, self.winner_unadvised) = (advised, unadvised);
    }
}

/// What the whole experiment found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of the random orders: the same seed gives the same.
    pub seed: u64,
    /// How many repetitions were asked for.
    pub repetitions: usize,
    /// Processors that the experiment may use.
    pub cpus: usize,
    /// The machine's memory in bytes; None where the kernel does not tell.
    pub memory_bytes: Option<u64>,
    /// How much of a file on this disk the kernel reads ahead at most, in bytes; None where it does
    /// not tell.
    pub readahead_bytes: Option<u64>,
    /// Whether all of the kernel's clean caches were dropped before each cold sample.
    pub drop_caches: bool,
    /// How long it took, in nanoseconds.
    pub elapsed_ns: u64,
    /// What was to be measured.
    pub cells: Vec<Cell>,
    /// What was not, and why: in words.
    pub not_tried: Vec<String>,
}

impl Outcome {
    /// For which share of its time a sample typically waited for a processor that others had; None
    /// without samples.
    #[must_use]
    pub fn waited(&self) -> Option<f64> {
        let contestants = self.cells.iter().flat_map(|cell| &cell.contestants);
        let samples = contestants.flat_map(|contestant| &contestant.samples);
        median(&samples.map(|sample| sample.waited).collect::<Vec<_>>())
    }
}
