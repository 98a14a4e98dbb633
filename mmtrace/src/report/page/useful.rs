//! How much of a file a program got.

use crate::recording::{Path, Row};

/// What a program got of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Useful {
    /// Bytes that calls returned, and that faults made accessible.
    pub(super) bytes: u64,
    /// Whether it includes the latter: the program may have touched less.
    pub(super) mapped: bool,
}

/// What the program got by `rows`, which are all of one file's; `None` if that is not known.
pub(super) fn useful_bytes(rows: &[&Row]) -> Option<Useful> {
    let mut useful = Useful {
        bytes: 0,
        mapped: false,
    };
    for row in rows.iter().filter(|row| !row.measures.is_empty()) {
        let bytes = match row.path {
            Path::Read | Path::Splice => row.measures.bytes_returned?,
            Path::Mmap | Path::Exec => {
                // Reads of the file, such as `execve`'s own, map nothing.
                let mapped = row.measures.mapped_bytes?;
                useful.mapped |= mapped > 0;
                mapped
            }
            // What its calls returned is both ways.
            Path::Direct => return None,
            // These bring nothing to the program by themselves.
            Path::Write | Path::Ipc | Path::Prefetch => 0,
            // Nor do these, but what they read from the disk was of use in another way.
            Path::Swap | Path::Writeback | Path::Metadata | Path::Other => {
                if row.measures.disk_read_bytes != Some(0) {
                    return None;
                }
                0
            }
        };
        useful.bytes = useful.bytes.saturating_add(bytes);
    }
    Some(useful)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Measures;

    fn row(path: Path, measures: Measures) -> Row {
        Row {
            process: None,
            file: None,
            path,
            measures,
        }
    }

    #[test]
    fn returned_and_mapped_bytes_are_useful_and_what_is_not_known_is_null() {
        let known = Measures {
            operations: Some(1),
            bytes_returned: Some(5),
            mapped_bytes: Some(4_096),
            ..Measures::default()
        };
        let [read, mapped, written] = [Path::Read, Path::Mmap, Path::Write].map(|p| row(p, known));
        let direct = row(Path::Direct, known);
        let block = row(
            Path::Metadata,
            Measures {
                disk_read_bytes: Some(4_096),
                ..known
            },
        );
        let unknown = row(
            Path::Mmap,
            Measures {
                mapped_bytes: None,
                minor_faults: Some(1),
                ..known
            },
        );
        let of = |bytes, mapped| Some(Useful { bytes, mapped });
        assert_eq!(useful_bytes(&[&read, &written]), of(5, false));
        assert_eq!(useful_bytes(&[&read, &mapped]), of(4_101, true));
        assert_eq!(useful_bytes(&[&read, &unknown]), None);
        assert_eq!(useful_bytes(&[&direct]), None);
        assert_eq!(useful_bytes(&[&block]), None);
        assert_eq!(useful_bytes(&[]), of(0, false));
    }
}
