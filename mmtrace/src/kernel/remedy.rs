//! What refusals mean and what lifts them, as a table.

use super::{
    conditions::{Capability, Conditions, Lockdown},
    refusal::{Asked, Cause, Refusal},
};

/// What a refusal comes from, and what would lift it.
#[derive(Debug, PartialEq, Eq)]
pub struct Remedy {
    /// What was asked for.
    asked: &'static [Asked],
    /// All of these hold.
    when: &'static [When],
    /// What it comes from: a sentence without its full stop.
    pub meaning: &'static str,
    /// What would lift it, each by itself unless it says otherwise; empty where nothing does, or
    /// nothing needs to.
    pub lifted_by: &'static [&'static str],
}

/// Something that decides what a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// The kernel's error.
    Errno(i32),
    /// Any error of the kernel's.
    AnyErrno,
    /// An error that says that this process may not.
    Forbidden,
    /// The kernel does not have it.
    Absent,
    /// The kernel has it otherwise.
    Different,
    /// The kernel is locked down against being read.
    Confidential,
    /// This process lacks a capability.
    Without(Capability),
    /// This process's capabilities do not suffice for kernel programs.
    Unprivileged,
    /// Its user namespace is not the first.
    UserNamespace,
    /// The kernel has no kprobes.
    NoKprobes,
    /// What programs take counts as locked memory, of which this process may have little.
    LockedMemory,
}

impl When {
    fn holds(self, refusal: &Refusal, here: &Conditions) -> bool {
        match self {
            Self::Errno(errno) => refusal.cause == Cause::Errno(errno),
            Self::AnyErrno => matches!(refusal.cause, Cause::Errno(_)),
            Self::Forbidden => {
                matches!(refusal.cause, Cause::Errno(libc::EPERM | libc::EACCES))
            }
            Self::Absent => refusal.cause == Cause::Absent,
            Self::Different => refusal.cause == Cause::Different,
            Self::Confidential => here.lockdown == Ok(Lockdown::Confidentiality),
            Self::Without(capability) => here.lacks(capability),
            Self::Unprivileged => !here.may_attach(),
            Self::UserNamespace => here.in_user_namespace,
            Self::NoKprobes => !here.kprobes,
            Self::LockedMemory => here.memory_is_limited,
        }
    }
}

/// What a refusal means here; `None` where nothing is known beyond its reason.
#[must_use]
pub fn of(refusal: &Refusal, here: &Conditions) -> Option<&'static Remedy> {
    TABLE.iter().find(|row| {
        row.asked.contains(&refusal.asked) && row.when.iter().all(|when| when.holds(refusal, here))
    })
}

/// What these refusals mean and what lifts them, in sentences, a line each, none twice.
#[must_use]
pub fn sentences(refusals: &[&Refusal], here: &Conditions) -> Vec<String> {
    let mut told: Vec<&Remedy> = Vec::new();
    for refusal in refusals {
        if let Some(remedy) = of(refusal, here)
            && !told.contains(&remedy)
        {
            told.push(remedy);
        }
    }
    let mut lines = Vec::new();
    for remedy in told {
        lines.push(format!("{}.", capitalized(remedy.meaning)));
        lines.extend(remedy.lifted_by.iter().map(|by| format!("- {by}")));
    }
    lines
}

fn capitalized(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

const EVERYTHING_ATTACHED: &[Asked] = &[
    Asked::Program,
    Asked::Trampoline,
    Asked::Kprobe,
    Asked::RawTracepoint,
    Asked::Event,
    Asked::SoftwareEvent,
];

const EVERYTHING: &[Asked] = &[
    Asked::Program,
    Asked::Trampoline,
    Asked::Kprobe,
    Asked::RawTracepoint,
    Asked::Event,
    Asked::SoftwareEvent,
    Asked::ExecutionBreakpoint,
    Asked::DataWatchpoint,
    Asked::CpuClock,
    Asked::Tracefs,
    Asked::Lockdown,
];

/// What lifts a container's filter of system calls.
const UNFILTERED: &[&str] = &[
    "docker, podman: --security-opt seccomp=unconfined, or --privileged",
    "kubernetes: securityContext: {seccompProfile: {type: Unconfined}}, or {privileged: true}",
];

const PERF: &[Asked] = &[
    Asked::SoftwareEvent,
    Asked::Event,
    Asked::Kprobe,
    Asked::ExecutionBreakpoint,
    Asked::DataWatchpoint,
    Asked::CpuClock,
];

/// What gives root's rights, or the part of them that mmtrace needs.
const PRIVILEGES: &[&str] = &[
    "on the host: sudo",
    "docker, podman: --cap-add BPF --cap-add PERFMON, or --privileged; as root in the container",
    "kubernetes: securityContext: {runAsUser: 0, capabilities: {add: [BPF, PERFMON]}}, or \
     {privileged: true}",
];

const ADMINISTRATION: &str = "on the host: sudo; docker, podman: --cap-add SYS_ADMIN; kubernetes: \
                              securityContext: {capabilities: {add: [SYS_ADMIN]}}";

const OUTSIDE: &[&str] = &[
    "on the host: sudo, outside of the namespace",
    "podman: as root (sudo podman); docker: --userns=host where the daemon remaps users; \
     kubernetes: hostUsers: true",
];

/// The first row that fits tells: from the special to the general.
static TABLE: &[Remedy] = &[
    // Capabilities in a namespace of users say nothing about what belongs to the whole system:
    // bpf_capable() and perfmon_capable() ask for those of the first.
    Remedy {
        asked: EVERYTHING,
        when: &[When::UserNamespace, When::Forbidden],
        meaning: "this process is in a user namespace of its own, and its capabilities there do \
                  not reach the kernel",
        lifted_by: OUTSIDE,
    },
    Remedy {
        asked: &[Asked::Addresses],
        when: &[When::UserNamespace, When::Different],
        meaning: "this process is in a user namespace of its own, and its capabilities there do \
                  not reach the kernel",
        lifted_by: OUTSIDE,
    },
    Remedy {
        asked: EVERYTHING_ATTACHED,
        when: &[When::Unprivileged, When::AnyErrno],
        meaning: "this process lacks CAP_BPF and CAP_PERFMON, which loading and attaching \
                  programs takes",
        lifted_by: PRIVILEGES,
    },
    // bpf_probe_read_kernel is taken away (bpf_base_func_proto), kprobes are refused and tracefs is
    // closed: LOCKDOWN_BPF_READ_KERNEL, LOCKDOWN_KPROBES, LOCKDOWN_TRACEFS in include/linux/security.h.
    Remedy {
        asked: EVERYTHING_ATTACHED,
        when: &[When::Confidential, When::AnyErrno],
        meaning: "this kernel is locked down (confidentiality): no program may read its memory, \
                  and mmtrace's must",
        lifted_by: &[
            "boot parameter: lockdown=integrity in place of lockdown=confidentiality; the mode \
             cannot be lowered while the kernel runs",
            "a kernel built without CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY",
        ],
    },
    // perf_allow_kernel() and perf_allow_cpu(), include/linux/perf_event.h.
    Remedy {
        asked: PERF,
        when: &[
            When::Errno(libc::EACCES),
            When::Without(Capability::Perfmon),
        ],
        meaning: "the setting kernel.perf_event_paranoid forbids it to processes without \
                  CAP_PERFMON",
        lifted_by: &[
            "sysctl kernel.perf_event_paranoid=1",
            "on the host: sudo; docker, podman: --cap-add PERFMON; kubernetes: securityContext: \
             {capabilities: {add: [PERFMON]}}",
        ],
    },
    // Debian's and Ubuntu's own patch to perf_event_open (perf_paranoid_any).
    Remedy {
        asked: PERF,
        when: &[
            When::Errno(libc::EACCES),
            When::Without(Capability::SysAdmin),
        ],
        meaning: "this kernel asks for CAP_SYS_ADMIN, as Debian's and Ubuntu's do where the \
                  setting kernel.perf_event_paranoid is above 2",
        lifted_by: &["sysctl kernel.perf_event_paranoid=2", ADMINISTRATION],
    },
    // bpf_charge_memlock(), kernel/bpf/syscall.c, until 5.11.
    Remedy {
        asked: &[Asked::Program],
        when: &[When::LockedMemory, When::Errno(libc::EPERM)],
        meaning: "before Linux 5.11 programs' memory counts as locked, and this process may lock \
                  little",
        lifted_by: &[
            "ulimit -l unlimited; docker, podman: --ulimit memlock=-1",
            "on the host: sudo; docker, podman: --cap-add SYS_RESOURCE; kubernetes: \
             securityContext: {capabilities: {add: [SYS_RESOURCE]}}",
        ],
    },
    Remedy {
        asked: &[Asked::Program],
        when: &[When::Errno(libc::EPERM)],
        meaning: "this process has the capabilities, so something else forbids bpf(2): a filter \
                  of system calls (seccomp), or a security module",
        lifted_by: UNFILTERED,
    },
    Remedy {
        asked: &[Asked::Trampoline],
        when: &[When::Errno(libc::EPERM)],
        meaning: "the kernel takes other programs from this process, but none for trampolines: \
                  it was built so, or a security module says so",
        lifted_by: &[
            "another kernel: stock ones take them with CONFIG_DEBUG_INFO_BTF, CONFIG_BPF_JIT and \
             CONFIG_FUNCTION_TRACER",
        ],
    },
    // ftrace has no entry for the function (__bpf_tracing, ftrace_set_filter_ip), or another
    // tracer patches it in a way that excludes this one.
    Remedy {
        asked: &[Asked::Trampoline],
        when: &[When::Errno(libc::EBUSY)],
        meaning: "the function cannot be patched: it was built without ftrace's entry, or \
                  something else has patched it",
        lifted_by: &["ending other tracers and live patches, if there are any"],
    },
    Remedy {
        asked: &[Asked::Trampoline],
        when: &[],
        meaning: "the kernel has no trampolines for this",
        lifted_by: &["a kernel with CONFIG_BPF_JIT, CONFIG_FUNCTION_TRACER and \
             CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"],
    },
    Remedy {
        asked: &[Asked::Kprobe],
        when: &[When::Absent],
        meaning: "the kernel offers no kprobes",
        lifted_by: &["a kernel with CONFIG_KPROBES and CONFIG_KPROBE_EVENTS"],
    },
    Remedy {
        asked: &[Asked::Kprobe],
        when: &[When::Errno(libc::EINVAL)],
        meaning: "the function must not be probed: it is marked so, or built without ftrace's \
                  entry",
        lifted_by: &["a kernel with CONFIG_KPROBE_EVENTS_ON_NOTRACE, for the latter"],
    },
    Remedy {
        asked: &[Asked::AnyHook],
        when: &[],
        meaning: "no tracepoint tells of it",
        lifted_by: &["the fentry or the kprobe backend, where it can be had"],
    },
    Remedy {
        asked: &[Asked::Event],
        when: &[When::Errno(libc::ENOENT)],
        meaning: "the event is not found: tracefs is not mounted here, or the kernel lacks the \
                  event",
        lifted_by: TRACEFS_MOUNTED,
    },
    Remedy {
        asked: &[Asked::Event],
        when: &[When::Absent],
        meaning: "the event is not found: tracefs is not mounted here",
        lifted_by: TRACEFS_MOUNTED,
    },
    Remedy {
        asked: &[Asked::Event],
        when: &[When::Errno(libc::EACCES)],
        meaning: "tracefs is there, but not open to this user",
        lifted_by: &["root: only it may enter tracefs as it is mounted"],
    },
    Remedy {
        asked: &[Asked::Tracefs],
        when: &[When::Errno(libc::ENODEV)],
        meaning: "the kernel has no tracefs",
        lifted_by: &["a kernel with CONFIG_TRACING"],
    },
    Remedy {
        asked: &[Asked::Tracefs],
        when: &[When::Confidential],
        meaning: "this kernel is locked down (confidentiality), which closes tracefs",
        lifted_by: &["boot parameter: lockdown=integrity in place of lockdown=confidentiality"],
    },
    Remedy {
        asked: &[Asked::Tracefs, Asked::Lockdown],
        when: &[When::Without(Capability::SysAdmin)],
        meaning: "it is not mounted, or closed to this user, and looking into a mount of one's \
                  own takes CAP_SYS_ADMIN",
        lifted_by: &[ADMINISTRATION],
    },
    Remedy {
        asked: &[Asked::Types],
        when: &[],
        meaning: "the kernel's type information is not there",
        lifted_by: &[
            "a kernel with CONFIG_DEBUG_INFO_BTF, as distributions build theirs",
            "/sys mounted, and /sys/kernel/btf not hidden; docker, podman: -v \
             /sys/kernel/btf:/sys/kernel/btf:ro; kubernetes: a hostPath volume of it",
        ],
    },
    // within_kprobe_blacklist() says yes to every address where there are no kprobes
    // (include/linux/kprobes.h), and arch_build_bp_info() asks it.
    Remedy {
        asked: &[Asked::ExecutionBreakpoint],
        when: &[When::NoKprobes, When::Errno(libc::EINVAL)],
        meaning: "on x86 a kernel without kprobes takes no breakpoint on its own code",
        lifted_by: &["a kernel with CONFIG_KPROBES"],
    },
    Remedy {
        asked: &[Asked::ExecutionBreakpoint],
        when: &[When::Without(Capability::SysAdmin)],
        meaning: "breakpoints on kernel code take CAP_SYS_ADMIN",
        lifted_by: &[ADMINISTRATION],
    },
    Remedy {
        asked: &[Asked::ExecutionBreakpoint, Asked::DataWatchpoint],
        when: &[When::Errno(libc::ENOSPC)],
        meaning: "all debug registers are taken",
        lifted_by: &["ending debuggers and tracers that hold them"],
    },
    Remedy {
        asked: &[Asked::ExecutionBreakpoint, Asked::DataWatchpoint],
        when: &[When::Errno(libc::ENOENT)],
        meaning: "the kernel or this machine offers no debug registers",
        lifted_by: &[
            "a kernel with CONFIG_HAVE_HW_BREAKPOINT; in a virtual machine, a hypervisor \
                      that passes them on",
        ],
    },
    Remedy {
        asked: PERF,
        when: &[When::Errno(libc::EPERM)],
        meaning: "something forbids perf_event_open(2): a filter of system calls (seccomp), a \
                  user namespace, or a security module",
        lifted_by: UNFILTERED,
    },
    // kallsyms_show_value(), kernel/ksyms_common.c (kernel/kallsyms.c before 6.5).
    Remedy {
        asked: &[Asked::Addresses],
        when: &[When::Different],
        meaning: "the kernel does not show this process where its functions are",
        lifted_by: &[
            "CAP_SYSLOG, with kernel.kptr_restrict below 2: on the host, sudo; docker, podman: \
             --cap-add SYSLOG; kubernetes: capabilities: {add: [SYSLOG]}",
        ],
    },
    Remedy {
        asked: &[Asked::Addresses],
        when: &[],
        meaning: "/proc/kallsyms does not tell",
        lifted_by: &["/proc mounted, and a kernel with CONFIG_KALLSYMS"],
    },
];

const TRACEFS_MOUNTED: &[&str] = &[
    "on the host: mount -t tracefs tracefs /sys/kernel/tracing",
    "docker, podman: -v /sys/kernel/tracing:/sys/kernel/tracing; kubernetes: a hostPath volume \
     of /sys/kernel/tracing",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Conditions {
        Conditions {
            lockdown: Ok(Lockdown::None),
            capabilities: None,
            in_user_namespace: false,
            kprobes: true,
            memory_is_limited: false,
        }
    }

    fn meaning(refusal: &Refusal, here: &Conditions) -> &'static str {
        of(refusal, here).map_or("", |remedy| remedy.meaning)
    }

    #[test]
    fn the_same_error_means_what_the_circumstances_say() {
        let refusal = Refusal::new(Asked::Program, Cause::Errno(libc::EPERM), "no");
        assert!(meaning(&refusal, &here()).contains("seccomp"));
        let namespace = Conditions {
            in_user_namespace: true,
            ..here()
        };
        assert!(meaning(&refusal, &namespace).contains("user namespace"));
        let confidential = Conditions {
            lockdown: Ok(Lockdown::Confidentiality),
            ..here()
        };
        assert!(meaning(&refusal, &confidential).contains("locked down"));
        let breakpoint = Refusal::new(Asked::ExecutionBreakpoint, Cause::Errno(libc::EINVAL), "no");
        assert_eq!(of(&breakpoint, &here()), None);
        let without = Conditions {
            kprobes: false,
            ..here()
        };
        assert!(meaning(&breakpoint, &without).contains("without kprobes"));
    }

    #[test]
    fn nothing_is_said_twice() {
        let confidential = Conditions {
            lockdown: Ok(Lockdown::Confidentiality),
            ..here()
        };
        let refusal = Refusal::new(Asked::Program, Cause::Errno(libc::EINVAL), "no");
        let lines = sentences(&[&refusal, &refusal], &confidential);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("This kernel is locked down (confidentiality)"));
        assert!(lines[1].starts_with("- boot parameter: "));
    }
}
