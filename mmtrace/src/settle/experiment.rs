//! The experiments: each is one process that does one thing with one file, in plain calls.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How many bytes an experiment is made with, of those that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// All.
    Full,
    /// At most [`PART_BYTES`]: what it shows does not depend on the size.
    Part,
}

/// The most that an experiment of [`Scale::Part`] is made with.
pub const PART_BYTES: u64 = 32 << 20;

impl Scale {
    /// The size of an experiment, when `size_bytes` were asked for.
    #[must_use]
    pub fn of(self, size_bytes: u64) -> u64 {
        match self {
            Self::Full => size_bytes,
            Self::Part => size_bytes.min(PART_BYTES),
        }
    }
}

/// The file that an experiment finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// None.
    Nothing,
    /// One with data, of which nothing is in the page cache.
    Cold,
    /// One with data, all of it in the page cache and kept there.
    Warm,
    /// One with data for this experiment alone, cold: it writes to it.
    ColdOwn,
    /// An empty one for this experiment alone.
    Empty,
}

/// Defines [`Experiment`] with its properties from one list.
macro_rules! experiments {
    ($($variant:ident, $scale:ident, $given:ident, $words:literal;)*) => {
        /// An experiment.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum Experiment {
            $(#[doc = $words] $variant,)*
        }

        impl Experiment {
            /// How large it is.
            #[must_use]
            pub const fn scale(self) -> Scale {
                match self {
                    $(Self::$variant => Scale::$scale,)*
                }
            }

            /// The file that it finds.
            #[must_use]
            pub const fn given(self) -> Given {
                match self {
                    $(Self::$variant => Given::$given,)*
                }
            }

            /// What it does.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$variant => $words,)*
                }
            }
        }
    };
}

experiments! {
    ReadCold, Full, Cold, "cold file, read(2) to the end, 64 KiB at a time";
    ReadColdSmall, Full, Cold, "cold file, read(2) to the end, 4 KiB at a time";
    ReadColdLarge, Full, Cold, "cold file, read(2) to the end, 1 MiB at a time";
    ReadDirect, Full, Cold, "cold file, read(2) with O_DIRECT to the end, 1 MiB at a time";
    ReadWarm, Full, Warm, "cached file, read(2) to the end, 64 KiB at a time";
    MapColdShared, Full, Cold, "cold file, mmap with MAP_SHARED, one byte of each page loaded";
    MapColdPrivate, Full, Cold, "cold file, mmap with MAP_PRIVATE, one byte of each page loaded";
    MapWarm, Full, Warm, "cached file, mmap with MAP_SHARED, one byte of each page loaded";
    MapUntouched, Full, Cold, "cold file, mmap and munmap, nothing loaded or stored";
    MapPopulated, Full, Cold, "cold file, mmap with MAP_POPULATE, nothing loaded or stored";
    MapAdvised, Full, Cold, "cold file, mmap, madvise with MADV_POPULATE_READ, nothing loaded or stored";
    FirstLoad, Part, Cold, "cold file, mmap, every byte loaded and compared, before anybody has stored";
    SharedStore, Part, ColdOwn, "two processes map a file with MAP_SHARED; one stores, the other looks";
    PrivateStore, Part, ColdOwn, "the same, but the one that stores maps with MAP_PRIVATE";
    WriteSeen, Part, ColdOwn, "a process maps a file and looks at what another writes with write(2)";
    StoreSeen, Part, ColdOwn, "a process stores to a mapping, another reads the file with read(2)";
    ReadStale, Part, ColdOwn, "a process keeps what it read with read(2); another writes with write(2)";
    ObjectFile, Part, ColdOwn, "a regular file, mapped by two processes; one stores, the other looks";
    ObjectTmpfs, Part, Nothing, "the same with a file of tmpfs";
    ObjectMemfd, Part, Nothing, "the same with a memfd";
    ObjectAnonymous, Part, Nothing, "the same with anonymous memory, MAP_SHARED";
    ObjectPrivate, Part, Nothing, "the same with anonymous memory, MAP_PRIVATE";
    MemoryRead, Part, ColdOwn, "three processes hold the file's bytes, each in a buffer filled by read(2)";
    MemoryMapped, Part, ColdOwn, "three processes hold the file's bytes, each by a mapping";
    MemoryWritten, Part, ColdOwn, "three processes hold them by MAP_PRIVATE, and store to each page";
    SwapClean, Part, ColdOwn, "mapped file, every page loaded, MADV_PAGEOUT, loaded again";
    SwapShared, Part, ColdOwn, "mapped file, every page stored to, msync, MADV_PAGEOUT, loaded again";
    SwapPrivate, Part, ColdOwn, "MAP_PRIVATE, every page stored to, MADV_PAGEOUT, loaded again";
    SwapAnonymous, Part, Nothing, "anonymous memory, MAP_SHARED, stored to, MADV_PAGEOUT, loaded again";
    WriteCall, Full, Empty, "write(2) of new data, 64 KiB at a time, then fsync";
    WriteMapped, Full, ColdOwn, "cold file, every byte stored through MAP_SHARED, then msync";
    WritePrivate, Full, ColdOwn, "cold file, every byte stored through MAP_PRIVATE, then msync";
    WriteOver, Full, ColdOwn, "cold file, overwritten by write(2), 64 KiB at a time, then fsync";
    IpcPipe, Part, Nothing, "pipe, from one process to another, 64 KiB at a time";
    IpcFifo, Part, Nothing, "FIFO, from one process to another, 64 KiB at a time";
    IpcUnixStream, Part, Nothing, "unix socket, stream, from one process to another, 64 KiB at a time";
    IpcUnixDatagram, Part, Nothing, "unix socket, datagrams of 8 KiB, from one process to another";
    IpcTcp, Part, Nothing, "TCP over loopback, from one process to another, 64 KiB at a time";
    IpcSysv, Part, Nothing, "System V message queue, messages of 8 KiB";
    IpcPosix, Part, Nothing, "POSIX message queue, messages of 8 KiB";
    IpcVmRead, Part, Nothing, "process_vm_readv from another process, 64 KiB at a time";
    IpcVmsplice, Part, Nothing, "pages put into a pipe by vmsplice, read(2) by another process";
    IpcMapped, Part, Nothing, "shared mapping of a memfd, two processes, taking turns by futex";
}

impl Experiment {
    /// Its name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it watches bytes for the kernel's stores, where a debug register is free for that.
    #[must_use]
    pub const fn watched(self) -> bool {
        matches!(
            self,
            Self::ReadCold
                | Self::ReadColdSmall
                | Self::ReadColdLarge
                | Self::ReadDirect
                | Self::ReadWarm
                | Self::MapColdShared
                | Self::MapColdPrivate
                | Self::MapWarm
                | Self::IpcPipe
                | Self::IpcFifo
                | Self::IpcUnixStream
                | Self::IpcUnixDatagram
                | Self::IpcTcp
                | Self::IpcSysv
                | Self::IpcPosix
                | Self::IpcVmRead
                | Self::IpcVmsplice
                | Self::IpcMapped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_on_the_command_line_are_those_in_json() {
        for experiment in Experiment::value_variants() {
            let json = serde_json::to_string(experiment).unwrap();
            assert_eq!(json, format!("\"{}\"", experiment.name()));
        }
    }
}
