//! The kernel programs whose runs are counted, for threads that are followed.

macro_rules! programs {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A kernel program, or two of which a run has only one: indices of [`Thread::hits`] and
        /// of the `HITS` map.
        ///
        /// [`Thread::hits`]: crate::Thread::hits
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Program {
            $($(#[$doc])* $name,)*
        }

        impl Program {
            /// Each.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name; that of a second one ends in a word more (`_event`, `_kprobe`).
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

programs! {
    /// A system call begins.
    SysEnter = "sys_enter",
    /// A system call ends.
    SysExit = "sys_exit",
    /// A task is made.
    Fork = "sched_process_fork",
    /// A task is made, by the function that wakes it first.
    NewTask = "new_task_kprobe",
    /// A program was executed.
    Exec = "sched_process_exec",
    /// A thread ends.
    Exit = "sched_process_exit",
    /// A thread is freed.
    Free = "sched_process_free",
    /// A thread goes to wait for the disk, or comes back.
    Switch = "sched_switch",
    /// A folio enters the page cache.
    CacheFilled = "cache_filled",
    /// The same, by the tracepoint's event.
    CacheFilledEvent = "cache_filled_event",
    /// A block request is queued.
    BioQueue = "bio_queue",
    /// The same, by the tracepoint's event.
    BioQueueEvent = "bio_queue_event",
    /// A block request is submitted.
    SubmitBio = "submit_bio_kprobe",
    /// A fault begins in user mode.
    FaultUser = "page_fault_user",
    /// A fault begins in the kernel.
    FaultKernel = "page_fault_kernel",
    /// A fault is handled.
    FaultEnter = "fault_enter",
    /// A minor fault is charged.
    FaultMinor = "fault_minor",
    /// A major fault is charged.
    FaultMajor = "fault_major",
    /// Pages are mapped (`set_pte_range`).
    SetPteRange = "set_pte_range",
    /// A page is mapped (`do_set_pte`).
    SetPte = "do_set_pte",
    /// A page is mapped (`alloc_set_pte`).
    AllocSetPte = "alloc_set_pte",
    /// A huge page is mapped.
    SetPmd = "do_set_pmd",
    /// A page that may not be written is written, and copied if need be (`do_wp_page`).
    WpPage = "do_wp_page",
    /// The same, where the copying is a function of its own (`wp_page_copy`).
    WpPageCopy = "wp_page_copy",
    /// A page is copied (`copy_mc_to_kernel`).
    CopyPage = "copy_mc_to_kernel",
    /// A page that was brought in is about to be mapped, or its copy (`finish_fault`).
    FinishFault = "finish_fault",
    /// A large folio is copied (`copy_user_large_folio`).
    CopyLargeFolio = "copy_user_large_folio",
    /// A huge page is copied (`copy_user_huge_page`).
    CopyHugePage = "copy_user_huge_page",
    /// `io_submit` goes on to a request.
    AioSubmit = "aio_submit",
    /// A request of aio is complete.
    AioComplete = "aio_complete",
    /// A request of io_uring is submitted.
    UringSubmit = "uring_submit",
    /// A request of io_uring is complete.
    UringComplete = "uring_complete",
    /// A request of io_uring is issued.
    UringIssue = "uring_issue",
    /// A copy between kernel and user memory begins (`copy_user_enhanced_fast_string` and its kind).
    CopyAny = "copy_any",
    /// A copy to an iterator begins (`_copy_to_iter`).
    CopyToIter = "copy_to_iter",
    /// A copy from an iterator begins (`_copy_from_iter`).
    CopyFromIter = "copy_from_iter",
    /// A copy from an iterator to a page begins (`copy_folio_from_iter_atomic`).
    CopyFromIterAtomic = "copy_from_iter_atomic",
    /// A copy to user memory begins (`_copy_to_user`).
    CopyToUser = "copy_to_user",
}
