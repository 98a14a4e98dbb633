//! Reading a file, by system calls or through a mapping: what brings the bytes differs, what is
//! done with them does not.
//!
//! Everything that a program does for its bytes counts: opening and closing, the buffer that a read
//! takes, mapping, advice and unmapping. These are what a mapping costs; without them it would only
//! be told what it saves.

use std::{fs::File, hint::black_box, io, os::unix::fs::FileExt as _, thread};

use memmap2::{Advice, Mmap, MmapOptions};

use super::{
    outcome::Method,
    workload::{Block, Consumer, FileWork},
};

/// The file that a sample reads: its standard input, opened anew, since readahead goes by what was
/// read through the same open file.
const FILE: &str = "/proc/self/fd/0";

/// Something that blocks of a file come from.
trait Source {
    /// The bytes of a block, until the next is asked for.
    fn block(&mut self, block: Block) -> io::Result<&[u8]>;
}

/// System calls that copy into a buffer.
struct Reads {
    file: File,
    buffer: Vec<u8>,
}

impl Source for Reads {
    fn block(&mut self, block: Block) -> io::Result<&[u8]> {
        let buffer = &mut self.buffer[..block.length];
        self.file.read_exact_at(buffer, block.offset)?;
        Ok(buffer)
    }
}

/// A mapping of the whole file.
struct Mapped<'a>(&'a [u8]);

impl Source for Mapped<'_> {
    fn block(&mut self, block: Block) -> io::Result<&[u8]> {
        Ok(&self.0[block.offset as usize..][..block.length])
    }
}

/// Reads the file as often as the work says; returns the sum of what its consumer saw.
///
/// # Errors
/// If the file cannot be read or mapped by this method.
pub(super) fn read(method: Method, work: &FileWork, visits: &[Vec<Block>]) -> io::Result<u64> {
    let mut sum = 0_u64;
    for _ in 0..work.opens {
        sum = sum.wrapping_add(match method {
            Method::Read => by_reads(work, visits)?,
            _ => by_mapping(method, work, visits)?,
        });
    }
    Ok(sum)
}

/// Each thread opens the file for itself, as each has a position of its own in it.
fn by_reads(work: &FileWork, visits: &[Vec<Block>]) -> io::Result<u64> {
    in_threads(visits, |blocks| {
        let mut source = Reads {
            file: File::open(FILE)?,
            buffer: vec![0; work.block_bytes],
        };
        visit(&mut source, blocks, work.passes, work.consumer)
    })
}

/// All threads use one mapping.
fn by_mapping(method: Method, work: &FileWork, visits: &[Vec<Block>]) -> io::Result<u64> {
    let mapping = map(method, &File::open(FILE)?)?;
    in_threads(visits, |blocks| {
        visit(&mut Mapped(&mapping), blocks, work.passes, work.consumer)
    })
}

fn map(method: Method, file: &File) -> io::Result<Mmap> {
    let mut options = MmapOptions::new();
    if method == Method::MmapPopulate {
        options.populate();
    }
    // SAFETY: the file has no name, and the process that made it does not write to it any more.
    let mapping = unsafe { options.map(file) }?;
    let advice = match method {
        Method::MmapSequential => Some(Advice::Sequential),
        Method::MmapRandom => Some(Advice::Random),
        Method::MmapWillneed => Some(Advice::WillNeed),
        _ => None,
    };
    advice.map_or(Ok(()), |advice| mapping.advise(advice))?;
    Ok(mapping)
}

/// Visits the blocks; returns the sum of what the consumer saw.
fn visit(
    source: &mut impl Source,
    blocks: &[Block],
    passes: u64,
    consumer: Consumer,
) -> io::Result<u64> {
    let mut sum = 0_u64;
    for _ in 0..passes {
        for block in blocks {
            // Opaque, so that a mapping that does not change is looked at again all the same.
            let bytes = black_box(source.block(*block)?);
            sum = sum.wrapping_add(consumer.consume(bytes));
        }
    }
    Ok(sum)
}

/// Does `work` with each part in a thread of its own, and with a single one in this thread.
fn in_threads(
    parts: &[Vec<Block>],
    work: impl Fn(&[Block]) -> io::Result<u64> + Sync,
) -> io::Result<u64> {
    if let [part] = parts {
        return work(part);
    }
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = parts
            .iter()
            .map(|part| scope.spawn(move || work(part)))
            .collect();
        threads.into_iter().try_fold(0_u64, |sum, thread| {
            let part = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(sum.wrapping_add(part))
        })
    })
}
