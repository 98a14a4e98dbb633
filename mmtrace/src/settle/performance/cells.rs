//! Which combinations of conditions are measured, and between whom.

use super::{
    outcome::{Cell, Method},
    workload::{Cache, Consumer, FileWork, IpcWork, Pattern, Work},
};
use Cache::{Cold, Warm};
use Consumer::{Sum, Touch};
use Method::{
    Mmap, MmapPopulate, MmapRandom, MmapSequential, MmapWillneed, Pipe, Read, SharedMapping,
    UnixStream,
};
use Pattern::{Random, Sequential};

const KIB: usize = 1 << 10;
const MIB: u64 = 1 << 20;

/// A file of middling size.
pub(super) const MIDDLING_BYTES: u64 = MIB;
/// Bytes of all messages of a sample together, if these are large.
const IPC_BYTES: u64 = 16 * MIB;
/// And how many at most, if they are small.
const IPC_MESSAGES: u64 = 1 << 14;
/// Sizes of messages.
const MESSAGE_BYTES: [usize; 5] = [64, KIB, 16 * KIB, 128 * KIB, 1024 * KIB];

/// How many blocks are read in random order from a large file that is cold. Few, as each is a wait
/// for the disk; and the kernel stops reading around a mapping's faults after a hundred misses.
const COLD_BLOCKS: u64 = 256;

/// What is the same in a row of cells.
struct Row {
    pattern: Pattern,
    block_bytes: usize,
    blocks: u64,
    passes: u64,
    opens: u64,
    methods: &'static [Method],
}

const fn row(pattern: Pattern, block_bytes: usize, methods: &'static [Method]) -> Row {
    Row {
        pattern,
        block_bytes,
        blocks: u64::MAX,
        passes: 1,
        opens: 1,
        methods,
    }
}

/// From the start to the end, from disk: each advice but that against reading ahead.
const SEQUENTIAL_COLD: Row = row(
    Sequential,
    128 * KIB,
    &[Read, Mmap, MmapSequential, MmapWillneed, MmapPopulate],
);
/// In random order, from disk: the trap of the default, which reads around each fault.
const RANDOM_COLD: Row = Row {
    blocks: COLD_BLOCKS,
    ..row(Random, 4 * KIB, &[Read, Mmap, MmapRandom])
};
/// What is cached takes no readahead: of the advices, only populating differs from the default.
const WARM: &[Method] = &[Read, Mmap, MmapPopulate];
const SEQUENTIAL_WARM: Row = row(Sequential, 128 * KIB, WARM);
const SEQUENTIAL_WARM_SMALL: Row = row(Sequential, 4 * KIB, WARM);
const RANDOM_WARM: Row = row(Random, 4 * KIB, WARM);

/// What the cells are made for.
pub(super) struct Design {
    /// Size of the large file.
    pub(super) large_bytes: u64,
    /// Whether it is larger than memory.
    pub(super) exceeds_memory: bool,
    /// Size of the smallest one.
    pub(super) page_bytes: u64,
    /// As how many threads everything is read, beside one.
    pub(super) threads: usize,
    /// Of the order of blocks.
    pub(super) seed: u64,
}

impl Design {
    /// Everything that is measured.
    pub(super) fn cells(&self) -> Vec<Cell> {
        let mut cells = self.large(1);
        // Each thread needs something to read.
        if self.threads > 1
            && self.large_bytes > (self.threads * SEQUENTIAL_WARM.block_bytes) as u64
        {
            cells.extend(self.large(self.threads));
        }
        cells.extend(self.middling());
        cells.extend(self.page());
        cells.extend(messages());
        cells
    }

    fn cell(
        &self,
        row: &Row,
        size_bytes: u64,
        cache: Cache,
        threads: usize,
        consumer: Consumer,
    ) -> Cell {
        let work = FileWork {
            size_bytes,
            pattern: row.pattern,
            cache,
            threads,
            block_bytes: row.block_bytes,
            blocks: row.blocks,
            passes: row.passes,
            opens: row.opens,
            consumer,
            seed: self.seed,
        };
        Cell::new(Work::File(work), row.methods)
    }

    /// The large file, from disk once for each order, and cached.
    fn large(&self, threads: usize) -> Vec<Cell> {
        let cell =
            |row: &Row, cache, consumer| self.cell(row, self.large_bytes, cache, threads, consumer);
        let random_cold = Row {
            blocks: COLD_BLOCKS * if self.exceeds_memory { 16 } else { 1 },
            ..RANDOM_COLD
        };
        let mut cells = vec![
            cell(&random_cold, Cold, Touch),
            cell(&SEQUENTIAL_WARM, Warm, Touch),
            cell(&SEQUENTIAL_WARM, Warm, Sum),
            cell(&RANDOM_WARM, Warm, Touch),
        ];
        if threads == 1 {
            // The disk's speed, whoever waits for it: once is enough.
            cells.push(cell(&SEQUENTIAL_COLD, Cold, Sum));
            cells.push(cell(&SEQUENTIAL_WARM_SMALL, Warm, Sum));
        }
        cells
    }

    fn middling(&self) -> [Cell; 7] {
        let few = Row {
            blocks: COLD_BLOCKS / 16,
            ..RANDOM_COLD
        };
        // Opened for each pass: what opening and mapping cost is spread over a file of this size.
        let opened = Row {
            opens: 100,
            ..SEQUENTIAL_WARM
        };
        // Held open, and read in small pieces over and over: the trap for read.
        let held = |block_bytes, passes| Row {
            passes,
            ..row(Random, block_bytes, WARM)
        };
        let cell = |row: &Row, cache, consumer| self.cell(row, MIDDLING_BYTES, cache, 1, consumer);
        [
            cell(&SEQUENTIAL_COLD, Cold, Sum),
            cell(&few, Cold, Touch),
            cell(&opened, Warm, Touch),
            cell(&opened, Warm, Sum),
            cell(&held(64, 8), Warm, Sum),
            cell(&held(4 * KIB, 100), Warm, Touch),
            cell(&held(4 * KIB, 100), Warm, Sum),
        ]
    }

    fn page(&self) -> [Cell; 4] {
        let whole = |opens| Row {
            opens,
            ..row(Sequential, self.page_bytes as usize, WARM)
        };
        let held = Row {
            passes: 2_000,
            ..row(Random, 64, WARM)
        };
        let cell = |row: &Row, cache, consumer| self.cell(row, self.page_bytes, cache, 1, consumer);
        [
            cell(&whole(1), Cold, Touch),
            cell(&whole(2_000), Warm, Touch),
            cell(&whole(2_000), Warm, Sum),
            cell(&held, Warm, Sum),
        ]
    }
}

fn messages() -> impl Iterator<Item = Cell> {
    MESSAGE_BYTES.into_iter().flat_map(|message_bytes| {
        Consumer::ALL.map(|consumer| {
            let work = IpcWork {
                message_bytes,
                messages: (IPC_BYTES / message_bytes as u64).min(IPC_MESSAGES),
                consumer,
            };
            Cell::new(Work::Ipc(work), &[Pipe, UnixStream, SharedMapping])
        })
    })
}
