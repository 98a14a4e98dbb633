//! Writing a file, by calls and through mappings.

use std::{fs::File, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};

use super::{
    bench::{Bench, write_all},
    data::SECOND,
    files::own_pages,
    sys::{device_written_bytes, dirtied_bytes, object_of},
};
use crate::settle::figure::{Evidence, Figure};

/// Writes the file by `write(2)`, and has it brought to the disk.
pub(super) fn call(bench: &mut Bench, chunk_bytes: usize) -> Result<()> {
    let file = bench.file(true, 0)?;
    let mut buffer = vec![0; bench.size()?];
    SECOND.fill(0, &mut buffer);
    let before = Written::now(&file);
    write_all(file.as_raw_fd(), &buffer, chunk_bytes)?;
    file.sync_all().context("fsync")?;
    before.tell(bench, &file);
    Ok(())
}

/// Stores to every byte of a mapping of the file, and has it brought to the disk.
pub(super) fn mapped(bench: &mut Bench, flags: i32) -> Result<()> {
    let file = bench.file(true, 0)?;
    let mut mapping = bench.map(flags)?;
    let before = Written::now(&file);
    SECOND.fill(0, mapping.bytes_mut());
    mapping.sync().context("msync")?;
    before.tell(bench, &file);
    own_pages(bench, &mapping);
    Ok(())
}

/// The kernel's counters of what is written, at one time.
struct Written {
    dirtied: Result<u64>,
    by_device: Result<u64>,
}

impl Written {
    fn now(file: &File) -> Self {
        Self {
            dirtied: dirtied_bytes(),
            by_device: object_of(file)
                .map_err(Into::into)
                .and_then(device_written_bytes),
        }
    }

    /// Notes what was written since.
    fn tell(self, bench: &mut Bench, file: &File) {
        let now = Self::now(file);
        for (figure, before, after) in [
            (Figure::DirtiedBytes, self.dirtied, now.dirtied),
            (Figure::DeviceWrittenBytes, self.by_device, now.by_device),
        ] {
            let grown = before.and_then(|before| Ok(after?.saturating_sub(before)));
            bench.try_set(figure, grown, Evidence::KernelCounters);
        }
    }
}
