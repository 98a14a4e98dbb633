//! What is looked up in files with code by hand. They belong to the traced programs, which may have
//! made them to do harm: only what is asked for is read, and not more than a limit of it.

use std::{fs::File, io::BufReader};

use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSegment as _, ReadCache, SegmentFlags,
    elf::PF_X, read::elf::ElfFile64,
};

/// The largest section that is read. Unwinding information of the largest browsers has some 20 MiB.
const LARGEST_SECTION_BYTES: u64 = 256 << 20;

/// An ELF file that is being read.
pub(super) type Elf<'file> =
    ElfFile64<'file, LittleEndian, &'file ReadCache<BufReader<&'file File>>>;

/// A part of the file that is mapped in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where in the file it begins.
    pub offset: u64,
    /// How much of the file it has.
    pub size_bytes: u64,
    /// Its address, from which the mapping's is as far away as all of the file's segments are.
    pub address: u64,
    /// Whether it is code.
    pub code: bool,
}

/// A section: its address, and its bytes.
pub(super) type Section = (u64, Vec<u8>);

/// Looks something up in an ELF file; `None` if it is none.
pub(super) fn read<T>(file: &File, look_up: impl FnOnce(&Elf<'_>) -> T) -> Option<T> {
    let cache = ReadCache::new(BufReader::new(file));
    let elf = ElfFile64::parse(&cache).ok()?;
    Some(look_up(&elf))
}

/// The file's segments.
pub(super) fn segments(elf: &Elf<'_>) -> Vec<Segment> {
    let segments = elf.segments().map(|segment| {
        let (offset, size_bytes) = segment.file_range();
        let flags = match segment.flags() {
            SegmentFlags::Elf { p_flags } => p_flags,
            _ => 0,
        };
        Segment {
            offset,
            size_bytes,
            address: segment.address(),
            code: flags & PF_X != 0,
        }
    });
    segments.collect()
}

impl Segment {
    /// The segment that this place of the file is in.
    pub(super) fn find(segments: &[Self], offset: u64) -> Option<&Self> {
        let within = |segment: &&Self| {
            let into = offset.checked_sub(segment.offset);
            into.is_some_and(|into| into < segment.size_bytes)
        };
        segments.iter().find(within)
    }
}

/// Where a section is, by its name.
pub(super) fn address_of(elf: &Elf<'_>, name: &str) -> Option<u64> {
    Some(elf.section_by_name(name)?.address())
}

/// A section by its name.
pub(super) fn section(elf: &Elf<'_>, name: &str) -> Option<Section> {
    let section = elf.section_by_name(name)?;
    let (_, size_bytes) = section.file_range()?;
    if size_bytes > LARGEST_SECTION_BYTES {
        return None;
    }
    Some((section.address(), section.data().ok()?.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_program_has_code_and_other_segments() {
        let own = File::open("/proc/self/exe").unwrap();
        let segments = read(&own, segments).unwrap();
        let code = segments.iter().find(|segment| segment.code).unwrap();
        assert_eq!(Segment::find(&segments, code.offset), Some(code));
        assert!(segments.iter().any(|segment| !segment.code));
        assert_eq!(Segment::find(&segments, u64::MAX), None);
    }

    #[test]
    fn what_is_no_elf_file_has_nothing() {
        let mut script = tempfile::tempfile().unwrap();
        assert!(read(&script, segments).is_none());
        script.write_all(b"#!/bin/sh").unwrap();
        assert!(read(&script, segments).is_none());
    }
}
