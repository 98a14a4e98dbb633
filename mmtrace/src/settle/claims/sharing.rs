//! One object in several processes.

use super::{
    super::{
        experiment::Experiment::*,
        figure::Figure::*,
        rule::{Amount::*, Must::*},
    },
    ALL, ALL_PAGES, Claim, HOLDERS, LOOKED, NONE, SAME, SEEN, SHARES_NOTHING, control, predict,
};

pub(super) const SHARING: &[Claim] = &[
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
];
