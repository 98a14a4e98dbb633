//! What is read, in which order, and what is done with it: the same for whatever brings the bytes.

use serde::{Deserialize, Serialize};

/// Every how many bytes the touching consumer looks at one: no page is smaller.
const TOUCH_STRIDE_BYTES: usize = 4096;

/// Pseudo-random numbers (splitmix64): the same from the same seed, on every machine.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Puts `items` into a random order (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.next() % (last as u64 + 1);
            items.swap(last, other as usize);
        }
    }
}

/// What a program does with the bytes that it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consumer {
    /// Looks at the first byte, and at one every 4,096 bytes after it.
    Touch,
    /// Adds up all of them.
    Sum,
}

impl Consumer {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Touch, Self::Sum];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Touch => "touch",
            Self::Sum => "sum",
        }
    }

    /// The sum of the bytes looked at. It copies nothing, as that would hide what the kernel copies.
    ///
    /// Never inlined, so that the same instructions run on a read buffer and on a mapping.
    #[inline(never)]
    pub(super) fn consume(self, bytes: &[u8]) -> u64 {
        let add = |sum: u64, byte: &u8| sum.wrapping_add(u64::from(*byte));
        match self {
            Self::Touch => bytes.iter().step_by(TOUCH_STRIDE_BYTES).fold(0, add),
            Self::Sum => bytes.iter().fold(0, add),
        }
    }
}

/// What a file has in it: known at each place without the file, and not to be compressed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    pub(super) seed: u64,
}

impl Content {
    /// Fills `bytes` with what is from `offset` on, a multiple of 8.
    pub(super) fn fill(self, offset: u64, bytes: &mut [u8]) {
        let (words, rest) = bytes.as_chunks_mut::<8>();
        let mut index = offset / 8;
        for word in words {
            *word = self.word(index);
            index += 1;
        }
        rest.copy_from_slice(&self.word(index)[..rest.len()]);
    }

    const fn word(self, index: u64) -> [u8; 8] {
        Random::new(self.seed ^ index.rotate_left(32))
            .next()
            .to_le_bytes()
    }
}

/// Writes message `number` as its sender would make it up: each word is stored once.
///
/// Never inlined, so that the same instructions fill a buffer and a mapping.
#[inline(never)]
pub(super) fn fill_message(number: u64, bytes: &mut [u8]) {
    let (words, rest) = bytes.as_chunks_mut::<8>();
    let mut value = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in words {
        *word = value.to_le_bytes();
        value = value.wrapping_add(0x0101_0101_0101_0101);
    }
    rest.fill(number as u8);
}

/// The order in which the blocks of a file are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// From the first to the last.
    Sequential,
    /// In random order, none twice in a pass.
    Random,
}

/// A block of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) length: usize,
}

/// What pages of the file the page cache has at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// None.
    Cold,
    /// All.
    Warm,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileWork {
    /// The file's size in bytes.
    pub size_bytes: u64,
    /// The order of the blocks.
    pub pattern: Pattern,
    /// What the page cache has of it at the start.
    pub cache: Cache,
    /// How many threads share the blocks.
    pub threads: usize,
    /// Bytes of a read, and of what is looked at in a mapping at a time; the last block may be
    /// shorter.
    pub block_bytes: usize,
    /// How many blocks are visited in a pass, all threads together; all if there are not so many.
    pub blocks: u64,
    /// How many times they are visited after each open.
    pub passes: u64,
    /// How many times the file is opened, read and closed.
    pub opens: u64,
    /// What is done with the bytes.
    pub consumer: Consumer,
    /// Of the random order.
    pub seed: u64,
}

impl FileWork {
    /// For each thread, the blocks that it visits in a pass, in order.
    pub(super) fn visits(&self) -> Vec<Vec<Block>> {
        let block_bytes = self.block_bytes as u64;
        let mut blocks: Vec<u64> = (0..self.size_bytes.div_ceil(block_bytes)).collect();
        if self.pattern == Pattern::Random {
            Random::new(self.seed).shuffle(&mut blocks);
        }
        blocks.truncate(usize::try_from(self.blocks).unwrap_or(usize::MAX));
        let block = |number: &u64| {
            let offset = number * block_bytes;
            Block {
                offset,
                length: (self.size_bytes - offset).min(block_bytes) as usize,
            }
        };
        blocks
            .chunks(blocks.len().div_ceil(self.threads).max(1))
            .map(|part| part.iter().map(block).collect())
            .collect()
    }

    /// What one pass visits, in bytes and as the sum that its consumer must come to.
    pub(super) fn truth(&self, content: Content) -> Truth {
        let mut buffer = vec![0; self.block_bytes];
        let mut pass = Truth::default();
        for block in self.visits().into_iter().flatten() {
            let bytes = &mut buffer[..block.length];
            content.fill(block.offset, bytes);
            pass.useful_bytes += bytes.len() as u64;
            pass.sum = pass.sum.wrapping_add(self.consumer.consume(bytes));
        }
        pass.times(self.passes * self.opens)
    }
}

/// How messages are passed from one process to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpcWork {
    /// Bytes of a message.
    pub message_bytes: usize,
    /// How many there are.
    pub messages: u64,
    /// What the receiver does with them.
    pub consumer: Consumer,
}

impl IpcWork {
    /// What the receiver gets, in bytes and as the sum that its consumer must come to.
    pub(super) fn truth(&self) -> Truth {
        let mut message = vec![0; self.message_bytes];
        let mut truth = Truth::default();
        for number in 0..self.messages {
            fill_message(number, &mut message);
            truth.useful_bytes += message.len() as u64;
            truth.sum = truth.sum.wrapping_add(self.consumer.consume(&message));
        }
        truth
    }
}

/// What is measured in a cell, but for the means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// A file is read.
    File(FileWork),
    /// Messages are passed.
    Ipc(IpcWork),
}

/// What a work must come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    pub(super) useful_bytes: u64,
    pub(super) sum: u64,
}

impl Truth {
    const fn times(self, factor: u64) -> Self {
        Self {
            useful_bytes: self.useful_bytes * factor,
            sum: self.sum.wrapping_mul(factor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: FileWork = FileWork {
        size_bytes: 10_007,
        pattern: Pattern::Random,
        cache: Cache::Warm,
        threads: 3,
        block_bytes: 64,
        blocks: u64::MAX,
        passes: 2,
        opens: 5,
        consumer: Consumer::Sum,
        seed: 7,
    };

    #[test]
    fn the_threads_together_visit_each_block_once() {
        let visits = WORK.visits();
        assert_eq!(visits.len(), 3);
        let mut blocks = visits.concat();
        assert!(!blocks.is_sorted_by_key(|block| block.offset));
        blocks.sort_by_key(|block| block.offset);
        let mut end = 0;
        for block in blocks {
            assert_eq!(block.offset, end);
            end += block.length as u64;
        }
        assert_eq!(end, WORK.size_bytes);
    }

    #[test]
    fn the_truth_is_that_of_the_whole_content() {
        let content = Content { seed: 3 };
        let mut bytes = vec![0; 10_007];
        content.fill(0, &mut bytes);
        let sum = bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let truth = Truth {
            useful_bytes: 100_070,
            sum: 10 * sum,
        };
        assert_eq!(WORK.truth(content), truth);
        let sequential = FileWork {
            pattern: Pattern::Sequential,
            threads: 1,
            block_bytes: 4096,
            ..WORK
        };
        assert_eq!(sequential.truth(content), truth);
    }

    #[test]
    fn touching_looks_at_one_byte_a_page() {
        let mut bytes = vec![0; 8_193];
        for at in [0, 4_096, 8_192] {
            bytes[at] = 1;
        }
        bytes[1] = 100;
        assert_eq!(Consumer::Touch.consume(&bytes), 3);
        assert_eq!(Consumer::Sum.consume(&bytes), 103);
    }
}
