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
const IPC_BYTES: u64 = 32 * MIB;
/// And how many at most, if they are small.
const IPC_MESSAGES: u64 = 1 << 15;
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
    ..row(Random, 4 * KIB, &[Read, Mmap, MmapRandom, MmapPopulate])
};
/// As RANDOM_COLD, without what reads all of the file whatever is asked for.
const RANDOM_COLD_THREADS: Row = Row {
    methods: &[Read, Mmap, MmapRandom],
    ..RANDOM_COLD
};
/// What is cached takes no readahead: of the advices, only populating differs from the default.
const WARM: &[Method] = &[Read, Mmap, MmapPopulate];
const SEQUENTIAL_WARM: Row = row(Sequential, 128 * KIB, WARM);
const SEQUENTIAL_WARM_SMALL: Row = row(Sequential, 4 * KIB, WARM);
const RANDOM_WARM: Row = row(Random, 4 * KIB, WARM);

impl Row {
    fn cell(&self, size_bytes: u64, cache: Cache, threads: usize, consumer: Consumer) -> Cell {
        let work = FileWork {
            size_bytes,
            pattern: self.pattern,
            cache,
            threads,
            block_bytes: self.block_bytes,
            blocks: self.blocks,
            passes: self.passes,
            opens: self.opens,
            consumer,
            seed: u64::from(self.block_bytes as u32),
        };
        Cell::new(Work::File(work), self.methods)
    }
}

/// Everything that is measured with a large file of this size, a middling one and one of a page,
/// in one thread and in so many.
pub(super) fn all(large_bytes: u64, page_bytes: u64, threads: usize) -> Vec<Cell> {
    let mut cells = vec![
        SEQUENTIAL_COLD.cell(large_bytes, Cold, 1, Sum),
        RANDOM_COLD.cell(large_bytes, Cold, 1, Touch),
        SEQUENTIAL_WARM.cell(large_bytes, Warm, 1, Touch),
        SEQUENTIAL_WARM.cell(large_bytes, Warm, 1, Sum),
        SEQUENTIAL_WARM_SMALL.cell(large_bytes, Warm, 1, Sum),
        RANDOM_WARM.cell(large_bytes, Warm, 1, Touch),
    ];
    if threads > 1 {
        cells.extend([
            RANDOM_COLD_THREADS.cell(large_bytes, Cold, threads, Touch),
            SEQUENTIAL_WARM.cell(large_bytes, Warm, threads, Touch),
            SEQUENTIAL_WARM.cell(large_bytes, Warm, threads, Sum),
            RANDOM_WARM.cell(large_bytes, Warm, threads, Touch),
        ]);
    }
    cells.extend(middling());
    cells.extend(page(page_bytes));
    cells.extend(messages());
    cells
}

fn middling() -> impl Iterator<Item = Cell> {
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
    [
        SEQUENTIAL_COLD.cell(MIDDLING_BYTES, Cold, 1, Sum),
        few.cell(MIDDLING_BYTES, Cold, 1, Touch),
        opened.cell(MIDDLING_BYTES, Warm, 1, Touch),
        opened.cell(MIDDLING_BYTES, Warm, 1, Sum),
        held(64, 8).cell(MIDDLING_BYTES, Warm, 1, Sum),
        held(4 * KIB, 100).cell(MIDDLING_BYTES, Warm, 1, Touch),
        held(4 * KIB, 100).cell(MIDDLING_BYTES, Warm, 1, Sum),
    ]
    .into_iter()
}

fn page(page_bytes: u64) -> impl Iterator<Item = Cell> {
    let whole = |opens| Row {
        opens,
        ..row(Sequential, page_bytes as usize, WARM)
    };
    let held = Row {
        passes: 2_000,
        ..row(Random, 64, WARM)
    };
    [
        whole(1).cell(page_bytes, Cold, 1, Touch),
        whole(2_000).cell(page_bytes, Warm, 1, Touch),
        whole(2_000).cell(page_bytes, Warm, 1, Sum),
        held.cell(page_bytes, Warm, 1, Sum),
    ]
    .into_iter()
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
