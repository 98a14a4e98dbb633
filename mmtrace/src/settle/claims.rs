//! The claims, in the words of the article and in English, and the rules that decide each: a table.
//!
//! A prediction says what the claim implies. A control says that the experiment was what its name says
//! and that the probes see: mostly a case beside it in which the outcome must differ.

use super::{
    experiment::Experiment::{self, *},
    figure::Figure::{self, *},
    rule::{
        Amount::{self, *},
        Must::{self, *},
        Role::{self, *},
        Rule,
    },
    workload::HOLDERS,
};

/// Something that is said about memory mapping.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Its name on the command line and in JSON.
    pub id: &'static str,
    /// In English.
    pub english: &'static str,
    /// In the article's words, or of what its drawings show.
    pub chinese: &'static str,
    /// What decides it.
    pub rules: &'static [Rule],
}

impl Claim {
    /// The experiments that it needs, in the order in which they are made.
    pub fn experiments(&self) -> impl Iterator<Item = Experiment> + use<'_> {
        self.rules.iter().flat_map(|rule| {
            let other = match rule.must {
                BeLessThanIn(other) => Some(other),
                _ => None,
            };
            [Some(rule.experiment), other].into_iter().flatten()
        })
    }

    /// Whether the article's author and the reader read it differently.
    #[must_use]
    pub fn has_readings(&self) -> bool {
        self.rules.iter().any(|rule| rule.role == AuthorPrediction)
    }
}

/// The claim with this name.
#[must_use]
pub fn find(id: &str) -> Option<&'static Claim> {
    CLAIMS.iter().find(|claim| claim.id == id)
}

const fn rule(
    role: Role,
    experiment: Experiment,
    figure: Figure,
    must: Must,
    why: &'static str,
) -> Rule {
    Rule {
        role,
        experiment,
        figure,
        must,
        why,
    }
}

/// All of it, in bytes.
const ALL: Amount = Sizes(1);
/// None of it.
const NONE: Amount = Exactly(0);
/// All of it, in pages.
const ALL_PAGES: Amount = SizesInPages(1);

const COLD: &str = "the cache was cold: what comes, comes from the disk";
const WARM: &str = "all of it was in the page cache";
const NO_CALLS: &str = "what is called a mapping reads and writes by no call";
const FAULTED: &str = "the pages came by faults: the mapping was used";
const LOADED: &str = "the program found the file's data on each page";
const ARRIVED: &str = "the data has arrived as it was sent";
const FROM_DISK: &str = "each byte comes from the disk once";
const ONE_COPY: &str = "each byte is copied to the program's buffer once";
const NO_COPY: &str = "the program looks at the page cache itself";
const SEES_READS: &str = "the same probes see the copies of the same file's read(2)";
const SEES_DISK: &str = "the same probes see the disk where it is read";
const LOOKED: &str = "the second process has looked at each page";
const SEEN: &str = "what one process stores, the other sees";
const SAME: &str = "both have the same physical pages";
const SHARES_NOTHING: &str = "nothing is copied for it";
const IN: &str = "the sender's bytes are copied into the kernel";
const OUT: &str = "and from there to the receiver";
const PAGED: &str = "after it was paged out, the data is there again";

const fn control(experiment: Experiment, figure: Figure, must: Must, why: &'static str) -> Rule {
    rule(Control, experiment, figure, must, why)
}

const fn predict(experiment: Experiment, figure: Figure, must: Must, why: &'static str) -> Rule {
    rule(Prediction, experiment, figure, must, why)
}

const fn note(experiment: Experiment, figure: Figure, must: Must, why: &'static str) -> Rule {
    rule(Note, experiment, figure, must, why)
}

const fn cold(experiment: Experiment) -> Rule {
    control(experiment, CachedBeforeBytes, Be(NONE), COLD)
}

/// Every claim.
pub const CLAIMS: &[Claim] = &[
    Claim {
        id: "read-two-copies",
        english: "The traditional read copies twice: from the disk to the page cache, and from the \
                  page cache to the user's buffer.",
        chinese: "传统的Linux系统文件操作流程(示意图)",
        rules: &[
            cold(ReadCold),
            cold(ReadColdSmall),
            cold(ReadColdLarge),
            cold(ReadDirect),
            control(ReadCold, RightBytes, Be(ALL), ARRIVED),
            control(ReadDirect, RightBytes, Be(ALL), ARRIVED),
            control(
                ReadDirect,
                DiskReadBytes,
                BeOnDisk(ALL),
                "past the page cache, from the disk",
            ),
            control(
                ReadDirect,
                CopiedToUserBytes,
                Be(NONE),
                "with O_DIRECT the disk fills the buffer: there the second copy must be missing",
            ),
            predict(ReadCold, DiskReadBytes, BeOnDisk(ALL), FROM_DISK),
            predict(ReadCold, CopiedToUserBytes, Be(ALL), ONE_COPY),
            predict(ReadColdSmall, DiskReadBytes, BeOnDisk(ALL), FROM_DISK),
            predict(ReadColdSmall, CopiedToUserBytes, Be(ALL), ONE_COPY),
            predict(ReadColdLarge, DiskReadBytes, BeOnDisk(ALL), FROM_DISK),
            predict(ReadColdLarge, CopiedToUserBytes, Be(ALL), ONE_COPY),
        ],
    },
    Claim {
        id: "mmap-one-copy",
        english: "With mmap one copy is left. The author: from kernel to user space. The reader: \
                  from the disk to memory, and none from kernel to user space.",
        chinese: "你说一次拷贝发生在内核空间复制到用户空间!个人理解,这一次拷贝应该是指的从磁盘调度到\
                  主内存发生的,因为直接映射到用户空间的,用户直接访问的是用户空间虚拟地址,应该不会发生\
                  内核空间到用户空间的拷贝!",
        rules: &[
            cold(MapColdShared),
            cold(MapColdPrivate),
            cold(ReadCold),
            control(MapColdShared, RightBytes, Be(Pages), LOADED),
            control(MapColdPrivate, RightBytes, Be(Pages), LOADED),
            control(MapColdShared, Operations, Be(NONE), NO_CALLS),
            control(MapColdPrivate, Operations, Be(NONE), NO_CALLS),
            control(MapColdShared, Faults, BeAtLeast(Exactly(1)), FAULTED),
            control(MapColdPrivate, Faults, BeAtLeast(Exactly(1)), FAULTED),
            control(ReadCold, CopiedToUserBytes, Be(ALL), SEES_READS),
            rule(
                AuthorPrediction,
                MapColdShared,
                CopiedToUserBytes,
                Be(ALL),
                "the author: each byte is copied from kernel to user space",
            ),
            rule(
                AuthorPrediction,
                MapColdPrivate,
                CopiedToUserBytes,
                Be(ALL),
                "the author: each byte is copied from kernel to user space",
            ),
            rule(
                ReaderPrediction,
                MapColdShared,
                DiskReadBytes,
                BeOnDisk(ALL),
                FROM_DISK,
            ),
            rule(
                ReaderPrediction,
                MapColdShared,
                CopiedToUserBytes,
                Be(NONE),
                NO_COPY,
            ),
            rule(
                ReaderPrediction,
                MapColdPrivate,
                DiskReadBytes,
                BeOnDisk(ALL),
                FROM_DISK,
            ),
            rule(
                ReaderPrediction,
                MapColdPrivate,
                CopiedToUserBytes,
                Be(NONE),
                NO_COPY,
            ),
        ],
    },
    Claim {
        id: "warm-copies",
        english: "With the file already cached, read still copies once, and mmap copies nothing at \
                  all.",
        chinese: "因为直接映射到用户空间的 …… 应该不会发生内核空间到用户空间的拷贝!",
        rules: &[
            control(ReadWarm, CachedBeforeBytes, Be(ALL_PAGES), WARM),
            control(MapWarm, CachedBeforeBytes, Be(ALL_PAGES), WARM),
            control(ReadWarm, RightBytes, Be(ALL), ARRIVED),
            control(MapWarm, RightBytes, Be(Pages), LOADED),
            control(MapWarm, Operations, Be(NONE), NO_CALLS),
            control(MapWarm, Faults, BeAtLeast(Exactly(1)), FAULTED),
            cold(ReadCold),
            control(ReadCold, DiskReadBytes, BeOnDisk(ALL), SEES_DISK),
            predict(
                ReadWarm,
                DiskReadBytes,
                Be(NONE),
                "nothing is left to be read from the disk",
            ),
            predict(ReadWarm, CopiedToUserBytes, Be(ALL), ONE_COPY),
            predict(
                MapWarm,
                DiskReadBytes,
                Be(NONE),
                "nothing is left to be read from the disk",
            ),
            predict(MapWarm, CopiedToUserBytes, Be(NONE), NO_COPY),
        ],
    },
    Claim {
        id: "map-reads-nothing",
        english: "mmap itself relates no data to the addresses: it only builds the mapping.",
        chinese: "此时,该虚拟地址并没有任何数据关联到文件中,仅仅只是建立映射关系",
        rules: &[
            cold(MapUntouched),
            cold(MapPopulated),
            control(MapUntouched, Operations, Be(NONE), NO_CALLS),
            control(
                MapPopulated,
                DiskReadBytes,
                BeOnDisk(ALL),
                "with MAP_POPULATE mmap does read: there the same probes see it",
            ),
            control(
                MapPopulated,
                CachedAfterBytes,
                Be(ALL_PAGES),
                "and it is cached then",
            ),
            rule(
                ControlIfHad,
                MapAdvised,
                DiskReadBytes,
                BeOnDisk(ALL),
                "MADV_POPULATE_READ reads too",
            ),
            predict(MapUntouched, DiskReadBytes, Be(NONE), "mmap reads nothing"),
            predict(MapUntouched, Faults, Be(NONE), "and causes no fault"),
            predict(
                MapUntouched,
                CachedAfterBytes,
                Be(NONE),
                "and nothing is cached by it",
            ),
        ],
    },
    Claim {
        id: "visible-only-after-write",
        english: "Only when a process writes to the virtual memory does the data become visible.",
        chinese: "当其中1个进程对虚拟内存写入数据时,则真正实现了数据的可见",
        rules: &[
            cold(FirstLoad),
            control(FirstLoad, CheckedBytes, Be(ALL), "every byte was looked at"),
            control(
                FirstLoad,
                Operations,
                Be(NONE),
                "nobody has written, or read by a call",
            ),
            control(FirstLoad, Faults, BeAtLeast(Exactly(1)), FAULTED),
            predict(
                FirstLoad,
                RightBytes,
                Be(NONE),
                "before anybody has stored, no byte of the file is to be seen",
            ),
        ],
    },
    Claim {
        id: "shared-write-visible",
        english: "A write through one process's shared mapping is visible to every process that maps \
                  the object.",
        chinese: "若其中1个进程对该虚拟区域进行写操作,那么,对于也把该共享对象映射到其自身虚拟内存区域的进程\
                  也是可见的",
        rules: &[
            control(SharedStore, CheckedBytes, Be(Pages), LOOKED),
            control(PrivateStore, CheckedBytes, Be(Pages), LOOKED),
            control(
                PrivateStore,
                RightBytes,
                Be(NONE),
                "stores to a private mapping must not be seen by the other process",
            ),
            control(
                PrivateStore,
                SamePages,
                Be(NONE),
                "they are in pages of their own",
            ),
            control(
                PrivateStore,
                CopiedInKernelBytes,
                Be(ALL_PAGES),
                "which the kernel has copied: there the same probes see it",
            ),
            predict(SharedStore, RightBytes, Be(Pages), SEEN),
            predict(SharedStore, SamePages, Be(Pages), SAME),
            predict(SharedStore, Operations, Be(NONE), "without a call"),
            predict(SharedStore, Copies, Be(NONE), SHARES_NOTHING),
            predict(SharedStore, CopiedInKernelBytes, Be(NONE), "nor is a page"),
        ],
    },
    Claim {
        id: "direct-interaction",
        english: "Kernel and user space interact directly through the mapped region.",
        chinese: "用户空间 & 内核空间的高效交互(通过映射的区域 直接交互)",
        rules: &[
            control(WriteSeen, CheckedBytes, Be(ALL), "all was looked at"),
            control(StoreSeen, CheckedBytes, Be(ALL), "all was looked at"),
            control(ReadStale, CheckedBytes, Be(ALL), "all was looked at"),
            control(
                ReadStale,
                RightBytes,
                Be(NONE),
                "what was read before stays as it was: it is no window, but a copy",
            ),
            predict(
                WriteSeen,
                RightBytes,
                Be(ALL),
                "what the kernel takes by write(2) is seen through a mapping made before",
            ),
            predict(
                WriteSeen,
                FirstCopies,
                Be(NONE),
                "and nothing is copied for who looks",
            ),
            predict(
                StoreSeen,
                RightBytes,
                Be(ALL),
                "what is stored to a mapping, read(2) gives, without msync",
            ),
            predict(
                StoreSeen,
                FirstCopies,
                Be(NONE),
                "and nothing is copied for who stores",
            ),
        ],
    },
    Claim {
        id: "no-io-calls",
        english: "Memory access takes the place of I/O read and write calls.",
        chinese: "用内存读写 代替 I/O读写",
        rules: &[
            control(MapColdShared, RightBytes, Be(Pages), LOADED),
            control(MapWarm, RightBytes, Be(Pages), LOADED),
            control(
                ReadCold,
                Operations,
                Be(CallsOf(64 << 10)),
                "read(2) takes a call for each 64 KiB: there the same probes see them",
            ),
            control(
                ReadColdSmall,
                Operations,
                Be(CallsOf(4 << 10)),
                "or for each 4 KiB",
            ),
            predict(
                MapColdShared,
                Operations,
                Be(NONE),
                "all is used without a call",
            ),
            predict(MapWarm, Operations, Be(NONE), "all is used without a call"),
        ],
    },
    Claim {
        id: "object-kinds",
        english: "The shared object may be a regular file or an anonymous one.",
        chinese: "被映射的对象称为:共享对象(普通文件 / 匿名文件)",
        rules: &[
            control(ObjectFile, CheckedBytes, Be(Pages), LOOKED),
            control(ObjectTmpfs, CheckedBytes, Be(Pages), LOOKED),
            control(ObjectMemfd, CheckedBytes, Be(Pages), LOOKED),
            control(ObjectAnonymous, CheckedBytes, Be(Pages), LOOKED),
            control(ObjectPrivate, CheckedBytes, Be(Pages), LOOKED),
            control(
                ObjectPrivate,
                RightBytes,
                Be(NONE),
                "private anonymous memory must not be shared",
            ),
            predict(ObjectFile, RightBytes, Be(Pages), SEEN),
            predict(ObjectFile, SamePages, Be(Pages), SAME),
            predict(ObjectFile, Copies, Be(NONE), SHARES_NOTHING),
            predict(ObjectTmpfs, RightBytes, Be(Pages), SEEN),
            predict(ObjectTmpfs, SamePages, Be(Pages), SAME),
            predict(ObjectTmpfs, Copies, Be(NONE), SHARES_NOTHING),
            predict(ObjectMemfd, RightBytes, Be(Pages), SEEN),
            predict(ObjectMemfd, SamePages, Be(Pages), SAME),
            predict(ObjectMemfd, Copies, Be(NONE), SHARES_NOTHING),
            predict(ObjectAnonymous, RightBytes, Be(Pages), SEEN),
            predict(ObjectAnonymous, SamePages, Be(Pages), SAME),
            predict(ObjectAnonymous, Copies, Be(NONE), SHARES_NOTHING),
        ],
    },
    Claim {
        id: "memory-use",
        english: "Mapping improves memory use through shared objects.",
        chinese: "提高内存利用率:通过虚拟内存 & 共享对象",
        rules: &[
            control(
                MemoryRead,
                RightBytes,
                BeAbout(SizesInPages(HOLDERS)),
                "each holds all of it",
            ),
            control(
                MemoryMapped,
                RightBytes,
                BeAbout(SizesInPages(HOLDERS)),
                "each holds all of it",
            ),
            control(
                MemoryWritten,
                RightBytes,
                BeAbout(SizesInPages(HOLDERS)),
                "each holds all of it",
            ),
            control(
                MemoryWritten,
                MemoryBytes,
                BeAbout(SizesInPages(1 + HOLDERS)),
                "mapped, but each its own after a store: there nothing must be saved",
            ),
            predict(
                MemoryRead,
                MemoryBytes,
                BeAbout(SizesInPages(1 + HOLDERS)),
                "read(2): the page cache, and a buffer for each process",
            ),
            predict(
                MemoryMapped,
                MemoryBytes,
                BeAbout(SizesInPages(1)),
                "mapped: the page cache alone, whoever looks at it",
            ),
        ],
    },
    Claim {
        id: "swapped",
        english: "The mapped area is swapped in and out of the swap space.",
        chinese: "虚拟内存区域被初始化后,就会在交换空间中换你来还去",
        rules: &[
            cold(SwapClean),
            control(SwapClean, RightBytes, Be(Pages), PAGED),
            control(SwapShared, RightBytes, Be(Pages), PAGED),
            control(SwapPrivate, RightBytes, Be(Pages), PAGED),
            control(SwapAnonymous, RightBytes, Be(Pages), PAGED),
            control(
                SwapClean,
                CachedAfterBytes,
                Be(NONE),
                "clean pages of a file are dropped",
            ),
            control(
                SwapClean,
                DiskReadBytes,
                BeOnDisk(Sizes(2)),
                "and read again from the file: once at first, once afterwards",
            ),
            control(
                SwapShared,
                CachedAfterBytes,
                Be(NONE),
                "changed pages of a file are dropped",
            ),
            control(
                SwapShared,
                DirtiedBytes,
                BeAtLeast(ALL_PAGES),
                "after they were written to the file",
            ),
            predict(
                SwapClean,
                SwappedBytes,
                Be(ALL_PAGES),
                "clean pages of a file go to swap",
            ),
            predict(
                SwapShared,
                SwappedBytes,
                Be(ALL_PAGES),
                "changed pages of a file go to swap",
            ),
            predict(
                SwapPrivate,
                SwappedBytes,
                Be(ALL_PAGES),
                "changed pages of a private mapping go to swap",
            ),
            predict(
                SwapAnonymous,
                SwappedBytes,
                Be(ALL_PAGES),
                "pages of shared anonymous memory go to swap",
            ),
        ],
    },
    Claim {
        id: "write-copies",
        english: "The traditional write copies from user to kernel space and then goes to disk; a \
                  mapped write does not copy.",
        chinese: "提高数据读 / 写效率:如 文件读 / 写操作(传统的Linux系统文件操作流程,示意图)",
        rules: &[
            cold(WriteMapped),
            cold(WritePrivate),
            control(
                WritePrivate,
                CopiedInKernelBytes,
                Be(ALL_PAGES),
                "each page of a private mapping is copied in the kernel: there the same probes see it",
            ),
            control(
                WritePrivate,
                DirtiedBytes,
                BeAtMost(Exactly(DISK_NOISE_BYTES)),
                "and none of it is for the disk",
            ),
            control(WriteMapped, Operations, BeAtMost(Exactly(0)), NO_CALLS),
            predict(
                WriteCall,
                CopiedFromUserBytes,
                Be(ALL),
                "write(2) copies each byte to the kernel",
            ),
            predict(
                WriteCall,
                DirtiedBytes,
                BeAtLeast(ALL),
                "all of it is for the disk",
            ),
            predict(
                WriteMapped,
                CopiedFromUserBytes,
                Be(NONE),
                "a mapped write copies nothing",
            ),
            predict(WriteMapped, CopiedInKernelBytes, Be(NONE), "nor any page"),
            predict(
                WriteMapped,
                DirtiedBytes,
                BeAtLeast(ALL),
                "and all of it is for the disk",
            ),
            note(
                WriteCall,
                DeviceWrittenBytes,
                BeAtLeast(ALL),
                "and the device has written it",
            ),
            note(
                WriteMapped,
                DeviceWrittenBytes,
                BeAtLeast(ALL),
                "and the device has written it",
            ),
            note(
                WriteMapped,
                DiskReadBytes,
                BeOnDisk(ALL),
                "before a store the kernel must read the page: a mapped write of cold pages reads them",
            ),
            note(
                WriteOver,
                DiskReadBytes,
                BeAtMost(Exactly(DISK_NOISE_BYTES)),
                "write(2) of whole pages need not",
            ),
        ],
    },
    Claim {
        id: "ipc-two-copies",
        english: "Traditional inter-process communication copies twice, into the kernel and out of it.",
        chinese: "传统的跨进程通信(示意图)",
        rules: &[
            control(IpcVmRead, RightBytes, Be(ALL), ARRIVED),
            control(
                IpcVmRead,
                Copies,
                BeWithHeads(ALL),
                "process_vm_readv copies from one process to the other: there one copy must be missing",
            ),
            control(IpcPipe, RightBytes, Be(ALL), ARRIVED),
            control(IpcFifo, RightBytes, Be(ALL), ARRIVED),
            control(IpcUnixStream, RightBytes, Be(ALL), ARRIVED),
            control(IpcUnixDatagram, RightBytes, Be(ALL), ARRIVED),
            control(IpcTcp, RightBytes, Be(ALL), ARRIVED),
            control(IpcSysv, RightBytes, Be(ALL), ARRIVED),
            control(IpcPosix, RightBytes, Be(ALL), ARRIVED),
            predict(IpcPipe, CopiedFromUserBytes, BeWithHeads(ALL), IN),
            predict(IpcPipe, CopiedToUserBytes, BeWithHeads(ALL), OUT),
            predict(IpcFifo, CopiedFromUserBytes, BeWithHeads(ALL), IN),
            predict(IpcFifo, CopiedToUserBytes, BeWithHeads(ALL), OUT),
            predict(IpcUnixStream, CopiedFromUserBytes, BeWithHeads(ALL), IN),
            predict(IpcUnixStream, CopiedToUserBytes, BeWithHeads(ALL), OUT),
            predict(IpcUnixDatagram, CopiedFromUserBytes, BeWithHeads(ALL), IN),
            predict(IpcUnixDatagram, CopiedToUserBytes, BeWithHeads(ALL), OUT),
            predict(IpcTcp, CopiedFromUserBytes, BeWithHeads(ALL), IN),
            predict(IpcTcp, CopiedToUserBytes, BeWithHeads(ALL), OUT),
            predict(IpcSysv, CopiedFromUserBytes, BeWithHeads(ALL), IN),
            predict(IpcSysv, CopiedToUserBytes, BeWithHeads(ALL), OUT),
            predict(IpcPosix, CopiedFromUserBytes, BeWithHeads(ALL), IN),
            predict(IpcPosix, CopiedToUserBytes, BeWithHeads(ALL), OUT),
            note(
                IpcVmsplice,
                CopiedFromUserBytes,
                BeWithHeads(NONE),
                "vmsplice hands pages over instead of copying them",
            ),
            note(
                IpcVmsplice,
                CopiedToUserBytes,
                BeWithHeads(ALL),
                "read(2) at the other end copies",
            ),
        ],
    },
    Claim {
        id: "ipc-mapped-none",
        english: "Communication through a mapping copies nothing in the kernel.",
        chinese: "使用了内存映射的跨进程通信(示意图)",
        rules: &[
            control(IpcMapped, RightBytes, Be(ALL), ARRIVED),
            control(IpcPipe, RightBytes, Be(ALL), ARRIVED),
            control(
                IpcPipe,
                Copies,
                BeWithHeads(Sizes(2)),
                "the same data through a pipe is copied twice: there the same probes see it",
            ),
            predict(IpcMapped, Copies, Be(NONE), "the kernel copies nothing"),
            predict(
                IpcMapped,
                Operations,
                Be(NONE),
                "and nothing is sent or received by a call",
            ),
            note(
                IpcMapped,
                ProgramStoredBytes,
                Be(ALL),
                "the sender stores the data itself",
            ),
            note(
                IpcMapped,
                ProgramLoadedBytes,
                Be(ALL),
                "and the receiver loads it",
            ),
            note(
                IpcMapped,
                FutexCalls,
                BeAtLeast(NONE),
                "the receiver's calls to take turns",
            ),
        ],
    },
    Claim {
        id: "fewer-copies",
        english: "Mapping reduces the number of copies.",
        chinese: "减少了数据拷贝次数",
        rules: &[
            cold(ReadCold),
            cold(MapColdShared),
            control(ReadCold, RightBytes, Be(ALL), ARRIVED),
            control(MapColdShared, RightBytes, Be(Pages), LOADED),
            control(MapColdShared, Operations, Be(NONE), NO_CALLS),
            control(MapWarm, RightBytes, Be(Pages), LOADED),
            control(MapWarm, Operations, Be(NONE), NO_CALLS),
            control(IpcMapped, RightBytes, Be(ALL), ARRIVED),
            control(IpcPipe, RightBytes, Be(ALL), ARRIVED),
            predict(
                MapColdShared,
                Copies,
                BeLessThanIn(ReadCold),
                "reading a cold file",
            ),
            predict(
                MapWarm,
                Copies,
                BeLessThanIn(ReadWarm),
                "reading a cached file",
            ),
            predict(
                WriteMapped,
                Copies,
                BeLessThanIn(WriteCall),
                "writing a file",
            ),
            predict(
                IpcMapped,
                Copies,
                BeLessThanIn(IpcPipe),
                "from process to process",
            ),
        ],
    },
];

/// What a file system may dirty or read of its own when a file is opened and mapped.
const DISK_NOISE_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_claim_has_a_name_words_and_predictions() {
        let names: BTreeSet<&str> = CLAIMS.iter().map(|claim| claim.id).collect();
        assert_eq!(names.len(), CLAIMS.len());
        for claim in CLAIMS {
            assert!(
                !claim.english.is_empty() && !claim.chinese.is_empty(),
                "{}",
                claim.id
            );
            let has = |role| claim.rules.iter().any(|rule| rule.role == role);
            assert!(has(Prediction) || has(AuthorPrediction) && has(ReaderPrediction));
        }
    }

    /// A probe that sees nothing must not decide: each claim has a control that wants something.
    #[test]
    fn every_claim_has_a_control_that_zeros_do_not_satisfy() {
        for claim in CLAIMS {
            let wants = |rule: &Rule| match rule.must {
                Be(amount) | BeOnDisk(amount) | BeWithHeads(amount) | BeAbout(amount)
                | BeAtLeast(amount) => amount != NONE,
                BeAtMost(_) | BeLessThanIn(_) => false,
            };
            let controls = claim.rules.iter().filter(|rule| rule.role == Control);
            assert!(controls.into_iter().any(wants), "{}", claim.id);
        }
    }
}
