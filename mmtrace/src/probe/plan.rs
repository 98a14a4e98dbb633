//! The plan of hooks, as data: for each purpose, what serves it in each backend, and what that
//! gives. What runs is chosen by trying (see [`super::attach`]), not by the kernel's version.

use crate::kernel::{btf::Btf, conditions::release};
pub use crate::recording::Backend;

/// Every backend, the best first. fentry costs least; some kernels refuse it, and those built without
/// function tracing have none. Tracepoints and software events are on every kernel.
pub const BACKENDS: [Backend; 3] = [Backend::Fentry, Backend::Kprobe, Backend::Tracepoint];

/// What a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment<'a> {
    /// A tracepoint, with its arguments as the kernel passes them.
    RawTracepoint(&'a str),
    /// A tracepoint's event, `category:name`, with its record.
    Event(&'a str),
    /// A function's entry.
    Fentry(&'a str),
    /// A function's return.
    Fexit(&'a str),
    /// A function's entry, by kprobe.
    Kprobe(&'a str),
    /// A function's return, by kretprobe.
    Kretprobe(&'a str),
    /// A function's first instruction, by a hardware breakpoint.
    Breakpoint(&'a str),
    /// `page-faults-min` on every CPU.
    MinorFaults,
    /// `page-faults-maj` on every CPU.
    MajorFaults,
}

impl<'a> Attachment<'a> {
    /// The attachment that a recording names so; `None` for a kind or an event that is unknown.
    #[must_use]
    pub fn from_recording(kind: &str, name: &'a str) -> Option<Self> {
        [
            Self::RawTracepoint(name),
            Self::Event(name),
            Self::Fentry(name),
            Self::Fexit(name),
            Self::Kprobe(name),
            Self::Kretprobe(name),
            Self::Breakpoint(name),
            Self::MinorFaults,
            Self::MajorFaults,
        ]
        .into_iter()
        .find(|at| at.kind() == kind && at.target() == name)
    }

    /// The kind, as recordings name it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::RawTracepoint(_) => "raw_tracepoint",
            Self::Event(_) => "tracepoint",
            Self::Fentry(_) => "fentry",
            Self::Fexit(_) => "fexit",
            Self::Kprobe(_) => "kprobe",
            Self::Kretprobe(_) => "kretprobe",
            Self::Breakpoint(_) => "breakpoint",
            Self::MinorFaults | Self::MajorFaults => "software_event",
        }
    }

    /// The function, tracepoint or event.
    #[must_use]
    pub const fn target(self) -> &'a str {
        match self {
            Self::RawTracepoint(name)
            | Self::Event(name)
            | Self::Fentry(name)
            | Self::Fexit(name)
            | Self::Kprobe(name)
            | Self::Kretprobe(name)
            | Self::Breakpoint(name) => name,
            Self::MinorFaults => "page-faults-min",
            Self::MajorFaults => "page-faults-maj",
        }
    }

    /// An event's category and name.
    #[must_use]
    pub fn event(self) -> Option<(&'a str, &'a str)> {
        match self {
            Self::Event(event) => event.split_once(':'),
            _ => None,
        }
    }

    /// Where somebody might attach by mistake what belongs here: it is passed the same, at other times.
    #[must_use]
    pub(super) fn mistaken(self) -> Option<Self> {
        match self {
            Self::MinorFaults => Some(Self::MajorFaults),
            Self::MajorFaults => Some(Self::MinorFaults),
            // The requests that are joined to others.
            Self::RawTracepoint("block_bio_queue") => {
                Some(Self::RawTracepoint("block_bio_backmerge"))
            }
            Self::Event("block:block_bio_queue") => Some(Self::Event("block:block_bio_backmerge")),
            // A request's end, in whatever thread is interrupted.
            Self::Kprobe("submit_bio") => Some(Self::Kprobe("bio_endio")),
            _ => None,
        }
    }

    /// The kernel function that must be there; `None` for what is not at a function.
    #[must_use]
    pub const fn function(self) -> Option<&'a str> {
        match self {
            Self::Fentry(name) | Self::Fexit(name) | Self::Kprobe(name) | Self::Kretprobe(name) => {
                Some(name)
            }
            _ => None,
        }
    }
}

/// A kernel program and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program's name in the object.
    pub program: &'static str,
    /// Where it is attached.
    pub at: Attachment<'static>,
}

/// One way to serve a purpose: hooks that go together.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// What they are for.
    pub purpose: Purpose,
    /// The backend that they belong to; `None`: every one.
    pub backend: Option<Backend>,
    /// What the kernel must be like, by its type information.
    pub requires: Requirement,
    /// The hooks: all of them, or the choice is none.
    pub hooks: &'static [Hook],
}

/// How the kernel must be for a program to understand what it is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing that its functions' names do not tell.
    None,
    /// The tracepoint passes so many arguments.
    TracepointArguments(&'static str, usize),
    /// The kernel has the function.
    Function(&'static str),
    /// The function takes so many parameters.
    Parameters(&'static str, usize),
    /// A tracepoint's programs can be preempted: from 7.0, which no type tells.
    PreemptibleTracepoints,
}

impl Requirement {
    /// Whether this kernel is so.
    #[must_use]
    pub fn is_met(self, btf: &Btf) -> bool {
        match self {
            Self::None => true,
            Self::PreemptibleTracepoints => release() >= [7, 0],
            Self::Function(name) => btf.function_id(name).is_some(),
            Self::TracepointArguments(name, count) => btf.tracepoint_arguments(name) == Some(count),
            Self::Parameters(name, count) => btf
                .function_parameters(name)
                .is_some_and(|parameters| parameters.len() == count),
        }
    }
}

/// Every choice; of those for one purpose, the best first.
pub static PLAN: &[Choice] = &[
    // A program that a preempted task is inside of is not entered again on that CPU.
    Choice {
        requires: Requirement::PreemptibleTracepoints,
        ..every(
            Purpose::Calls,
            &[
                event("sys_enter_event", "raw_syscalls:sys_enter"),
                event("sys_exit_event", "raw_syscalls:sys_exit"),
            ],
        )
    },
    Choice {
        requires: Requirement::Function("bpf_rdonly_cast"),
        ..every(
            Purpose::Calls,
            &[
                raw("sys_enter_in_place", "sys_enter"),
                raw("sys_exit", "sys_exit"),
            ],
        )
    },
    every(
        Purpose::Calls,
        &[raw("sys_enter", "sys_enter"), raw("sys_exit", "sys_exit")],
    ),
    Choice {
        requires: Requirement::PreemptibleTracepoints,
        ..only(Backend::Fentry, Purpose::Processes, PROCESSES_UNPREEMPTED)
    },
    Choice {
        requires: Requirement::PreemptibleTracepoints,
        ..only(Backend::Kprobe, Purpose::Processes, PROCESSES_UNPREEMPTED)
    },
    Choice {
        requires: Requirement::PreemptibleTracepoints,
        ..every(
            Purpose::Processes,
            &[
                raw("sched_process_fork", "sched_process_fork"),
                event("sched_process_exec_event", "sched:sched_process_exec"),
                event("sched_process_exit_event", "sched:sched_process_exit"),
                raw("sched_process_free", "sched_process_free"),
            ],
        )
    },
    every(
        Purpose::Processes,
        &[
            raw("sched_process_fork", "sched_process_fork"),
            raw("sched_process_exec", "sched_process_exec"),
            raw("sched_process_exit", "sched_process_exit"),
            raw("sched_process_free", "sched_process_free"),
        ],
    ),
    // Where trampolines' programs can be preempted, so can raw tracepoints'.
    Choice {
        requires: Requirement::PreemptibleTracepoints,
        ..only(Backend::Fentry, Purpose::Faults, FAULTS_BY_KPROBE)
    },
    only(
        Backend::Fentry,
        Purpose::Faults,
        &[
            hook("fault_enter", Attachment::Fentry("handle_mm_fault")),
            // Not fexit: a program that a preempted task is inside of is not entered again.
            hook("fault_minor", Attachment::MinorFaults),
            hook("fault_major", Attachment::MajorFaults),
        ],
    ),
    only(Backend::Kprobe, Purpose::Faults, FAULTS_BY_KPROBE),
    only(
        Backend::Tracepoint,
        Purpose::Faults,
        &[
            raw("page_fault_user", "page_fault_user"),
            raw("page_fault_kernel", "page_fault_kernel"),
            hook("fault_minor", Attachment::MinorFaults),
            hook("fault_major", Attachment::MajorFaults),
        ],
    ),
    // The event counts what the tracepoint's own program is left out of; it comes after it.
    Choice {
        requires: Requirement::PreemptibleTracepoints,
        ..every(
            Purpose::Cache,
            &[
                raw("cache_filled", "mm_filemap_add_to_page_cache"),
                event("cache_filled_event", "filemap:mm_filemap_add_to_page_cache"),
            ],
        )
    },
    every(
        Purpose::Cache,
        &[raw("cache_filled", "mm_filemap_add_to_page_cache")],
    ),
    // Not fentry at submit_bio: see above. A kprobe's programs are not preempted, and it is in the
    // thread that the kernel charges, also where a cgroup's limit has the request queued later.
    only(
        Backend::Fentry,
        Purpose::Disk,
        &[hook("submit_bio_kprobe", Attachment::Kprobe("submit_bio"))],
    ),
    Choice {
        requires: Requirement::TracepointArguments("block_bio_queue", 1),
        ..only(
            Backend::Fentry,
            Purpose::Disk,
            &[raw("bio_queue", "block_bio_queue")],
        )
    },
    Choice {
        requires: Requirement::TracepointArguments("block_bio_queue", 2),
        ..only(
            Backend::Fentry,
            Purpose::Disk,
            &[raw("bio_queue_second", "block_bio_queue")],
        )
    },
    only(
        Backend::Kprobe,
        Purpose::Disk,
        &[hook("submit_bio_kprobe", Attachment::Kprobe("submit_bio"))],
    ),
    Choice {
        requires: Requirement::PreemptibleTracepoints,
        ..only(
            Backend::Tracepoint,
            Purpose::Disk,
            &[
                raw("bio_queue", "block_bio_queue"),
                event("bio_queue_event", "block:block_bio_queue"),
            ],
        )
    },
    Choice {
        requires: Requirement::TracepointArguments("block_bio_queue", 1),
        ..only(
            Backend::Tracepoint,
            Purpose::Disk,
            &[raw("bio_queue", "block_bio_queue")],
        )
    },
    Choice {
        requires: Requirement::TracepointArguments("block_bio_queue", 2),
        ..only(
            Backend::Tracepoint,
            Purpose::Disk,
            &[raw("bio_queue_second", "block_bio_queue")],
        )
    },
    Choice {
        requires: Requirement::Parameters("do_set_pmd", 3),
        ..only(
            Backend::Fentry,
            Purpose::Mapped,
            &[
                hook("set_pte_range", Attachment::Fentry("set_pte_range")),
                hook("do_set_pmd_3", Attachment::Fexit("do_set_pmd")),
            ],
        )
    },
    Choice {
        requires: Requirement::Parameters("do_set_pmd", 2),
        ..only(
            Backend::Fentry,
            Purpose::Mapped,
            &[
                hook("set_pte_range", Attachment::Fentry("set_pte_range")),
                hook("do_set_pmd_2", Attachment::Fexit("do_set_pmd")),
            ],
        )
    },
    Choice {
        requires: Requirement::Parameters("do_set_pmd", 2),
        ..only(
            Backend::Fentry,
            Purpose::Mapped,
            &[
                hook("do_set_pte", Attachment::Fentry("do_set_pte")),
                hook("do_set_pmd_2", Attachment::Fexit("do_set_pmd")),
            ],
        )
    },
    only(
        Backend::Fentry,
        Purpose::Mapped,
        &[hook("alloc_set_pte", Attachment::Fexit("alloc_set_pte"))],
    ),
    only(
        Backend::Kprobe,
        Purpose::Mapped,
        &[
            hook("set_pte_range_kprobe", Attachment::Kprobe("set_pte_range")),
            hook("do_set_pmd_kretprobe", Attachment::Kretprobe("do_set_pmd")),
        ],
    ),
    only(
        Backend::Kprobe,
        Purpose::Mapped,
        &[
            hook("do_set_pte_kprobe", Attachment::Kprobe("do_set_pte")),
            hook("do_set_pmd_kretprobe", Attachment::Kretprobe("do_set_pmd")),
        ],
    ),
    only(
        Backend::Kprobe,
        Purpose::Mapped,
        &[hook(
            "alloc_set_pte_kretprobe",
            Attachment::Kretprobe("alloc_set_pte"),
        )],
    ),
    // Nothing keeps a task from being preempted where pages are copied: not fentry, see above.
    only(Backend::Fentry, Purpose::PageCopies, PAGE_COPIES),
    only(Backend::Fentry, Purpose::PageCopies, FOLIO_COPIES),
    only(Backend::Kprobe, Purpose::PageCopies, PAGE_COPIES),
    only(Backend::Kprobe, Purpose::PageCopies, FOLIO_COPIES),
    every(Purpose::Waits, &[raw("sched_switch", "sched_switch")]),
    // Where a task can be preempted inside a trampoline's program, kprobes miss less.
    Choice {
        requires: Requirement::PreemptibleTracepoints,
        ..only(
            Backend::Fentry,
            Purpose::Aio,
            &[
                hook("aio_submit_kprobe", Attachment::Kprobe("io_submit_one")),
                hook("aio_complete_kprobe", Attachment::Kprobe("aio_complete_rw")),
            ],
        )
    },
    only(
        Backend::Fentry,
        Purpose::Aio,
        &[
            hook("aio_submit", Attachment::Fentry("io_submit_one")),
            hook("aio_complete", Attachment::Fentry("aio_complete_rw")),
        ],
    ),
    only(
        Backend::Kprobe,
        Purpose::Aio,
        &[
            hook("aio_submit_kprobe", Attachment::Kprobe("io_submit_one")),
            hook("aio_complete_kprobe", Attachment::Kprobe("aio_complete_rw")),
        ],
    ),
    Choice {
        requires: Requirement::PreemptibleTracepoints,
        ..every(
            Purpose::UringSubmissions,
            &[hook(
                "uring_submit_event",
                Attachment::Event("io_uring:io_uring_submit_req"),
            )],
        )
    },
    Choice {
        requires: Requirement::TracepointArguments("io_uring_submit_req", 1),
        ..every(
            Purpose::UringSubmissions,
            &[raw("uring_submit", "io_uring_submit_req")],
        )
    },
    Choice {
        requires: Requirement::TracepointArguments("io_uring_submit_sqe", 2),
        ..every(
            Purpose::UringSubmissions,
            &[raw("uring_submit", "io_uring_submit_sqe")],
        )
    },
    Choice {
        requires: Requirement::TracepointArguments("io_uring_submit_sqe", 7),
        ..every(
            Purpose::UringSubmissions,
            &[raw("uring_submit_second", "io_uring_submit_sqe")],
        )
    },
    Choice {
        requires: Requirement::PreemptibleTracepoints,
        ..every(
            Purpose::UringCompletions,
            &[hook(
                "uring_complete_event",
                Attachment::Event("io_uring:io_uring_complete"),
            )],
        )
    },
    Choice {
        requires: Requirement::TracepointArguments("io_uring_complete", 3),
        ..every(
            Purpose::UringCompletions,
            &[raw("uring_complete_cqe", "io_uring_complete")],
        )
    },
    Choice {
        requires: Requirement::TracepointArguments("io_uring_complete", 7),
        ..every(
            Purpose::UringCompletions,
            &[raw("uring_complete", "io_uring_complete")],
        )
    },
    Choice {
        requires: Requirement::TracepointArguments("io_uring_complete", 4),
        ..every(
            Purpose::UringCompletions,
            &[raw("uring_complete_nameless", "io_uring_complete")],
        )
    },
    Choice {
        requires: Requirement::PreemptibleTracepoints,
        ..only(
            Backend::Fentry,
            Purpose::UringIssues,
            &[hook(
                "uring_issue_kprobe",
                Attachment::Kprobe("io_issue_sqe"),
            )],
        )
    },
    only(
        Backend::Fentry,
        Purpose::UringIssues,
        &[hook("uring_issue", Attachment::Fentry("io_issue_sqe"))],
    ),
    only(
        Backend::Kprobe,
        Purpose::UringIssues,
        &[hook(
            "uring_issue_kprobe",
            Attachment::Kprobe("io_issue_sqe"),
        )],
    ),
];

/// What tells of faults by a kprobe.
const FAULTS_BY_KPROBE: &[Hook] = &[
    hook("fault_enter_kprobe", Attachment::Kprobe("handle_mm_fault")),
    // Not a kretprobe: the function sleeps, and more threads in it than the kernel has prepared for
    // would go unseen.
    hook("fault_minor", Attachment::MinorFaults),
    hook("fault_major", Attachment::MajorFaults),
];

/// What tells of copied pages where copying a page on a write is a function of its own.
const PAGE_COPIES: &[Hook] = &[
    hook("wp_page_copy_kprobe", Attachment::Kprobe("wp_page_copy")),
    hook("finish_fault_kprobe", Attachment::Kprobe("finish_fault")),
    hook(
        "copy_user_huge_page_kprobe",
        Attachment::Kprobe("copy_user_huge_page"),
    ),
];

/// What tells of copied pages where it is not.
const FOLIO_COPIES: &[Hook] = &[
    hook("do_wp_page_kprobe", Attachment::Kprobe("do_wp_page")),
    hook(
        "copy_mc_to_kernel_kprobe",
        Attachment::Kprobe("copy_mc_to_kernel"),
    ),
    hook("finish_fault_kprobe", Attachment::Kprobe("finish_fault")),
    hook(
        "copy_user_large_folio_kprobe",
        Attachment::Kprobe("copy_user_large_folio"),
    ),
];

/// What tells of processes where a raw tracepoint's program can be preempted and kprobes can be
/// had.
const PROCESSES_UNPREEMPTED: &[Hook] = &[
    hook("new_task_kprobe", Attachment::Kprobe("wake_up_new_task")),
    event("sched_process_exec_event", "sched:sched_process_exec"),
    event("sched_process_exit_event", "sched:sched_process_exit"),
    // In an RCU callback, which nothing preempts.
    raw("sched_process_free", "sched_process_free"),
];

/// What hooks are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Calls: operations, bytes, and where the rest belongs.
    Calls,
    /// What is followed, from fork to the thread's end.
    Processes,
    /// Faults, and where the work in them belongs.
    Faults,
    /// What faults made accessible.
    Mapped,
    /// Pages that the kernel copies for itself.
    PageCopies,
    /// The page cache's filling.
    Cache,
    /// Block requests.
    Disk,
    /// Waiting for the disk.
    Waits,
    /// For which of its requests `io_submit` works, and what becomes of them.
    Aio,
    /// io_uring's requests.
    UringSubmissions,
    /// What becomes of them.
    UringCompletions,
    /// For which of them a thread works.
    UringIssues,
    /// Copies, at the kernel's copy routines: see [`super::copies`].
    Copies,
}

impl Purpose {
    /// Each that a backend serves, in the order in which they are attached.
    pub const ALL: [Self; 12] = [
        Self::Calls,
        Self::Processes,
        Self::Faults,
        Self::Mapped,
        Self::PageCopies,
        Self::Cache,
        Self::Disk,
        Self::Waits,
        Self::Aio,
        Self::UringSubmissions,
        Self::UringCompletions,
        Self::UringIssues,
    ];

    /// Its name in recordings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Processes => "processes",
            Self::Faults => "faults",
            Self::Mapped => "mapped_bytes",
            Self::PageCopies => "page_copies",
            Self::Cache => "page_cache",
            Self::Disk => "disk_reads",
            Self::Waits => "disk_wait",
            Self::Aio => "aio",
            Self::UringSubmissions => "io_uring_submissions",
            Self::UringCompletions => "io_uring_completions",
            Self::UringIssues => "io_uring_issues",
            Self::Copies => "copies",
        }
    }

    /// Whether a backend that cannot serve it is no backend.
    #[must_use]
    pub const fn required(self) -> bool {
        !matches!(
            self,
            Self::Mapped
                | Self::PageCopies
                | Self::Waits
                | Self::Aio
                | Self::UringSubmissions
                | Self::UringCompletions
                | Self::UringIssues
                | Self::Copies
        )
    }

    /// The ways to serve it under a backend, the best first.
    pub fn choices(self, backend: Backend) -> impl Iterator<Item = &'static Choice> {
        PLAN.iter().filter(move |choice| {
            choice.purpose == self && choice.backend.is_none_or(|only| only == backend)
        })
    }
}

const fn every(purpose: Purpose, hooks: &'static [Hook]) -> Choice {
    Choice {
        purpose,
        backend: None,
        requires: Requirement::None,
        hooks,
    }
}

const fn only(backend: Backend, purpose: Purpose, hooks: &'static [Hook]) -> Choice {
    Choice {
        purpose,
        backend: Some(backend),
        requires: Requirement::None,
        hooks,
    }
}

const fn hook(program: &'static str, at: Attachment<'static>) -> Hook {
    Hook { program, at }
}

const fn event(program: &'static str, event: &'static str) -> Hook {
    hook(program, Attachment::Event(event))
}

const fn raw(program: &'static str, tracepoint: &'static str) -> Hook {
    hook(program, Attachment::RawTracepoint(tracepoint))
}

#[cfg(test)]
mod tests {
    use super::{Attachment, PLAN};

    #[test]
    fn a_recorded_hook_is_the_attachment_it_was() {
        for hook in PLAN.iter().flat_map(|choice| choice.hooks) {
            let (kind, name) = (hook.at.kind(), hook.at.target());
            assert_eq!(Attachment::from_recording(kind, name), Some(hook.at));
        }
        assert_eq!(Attachment::from_recording("uprobe", "main"), None);
        assert_eq!(Attachment::from_recording("software_event", "clock"), None);
    }
}
