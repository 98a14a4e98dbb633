//! The kernel, this process, the settings, and what perf events there are.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::Uid;

use super::diagnosis::{Denial, Fact};
use crate::{
    collect::host,
    kernel::{
        attempt::{
            mounts::Detached,
            perf::{self, Registers},
        },
        btf::{Btf, KERNEL_BTF},
        conditions::{Capability, Conditions, Namespace},
        event,
        refusal::{Asked, Refusal},
        symbols,
    },
    probe::plan::Requirement,
};

/// A routine through which the kernel copies to programs, on every kernel that mmtrace runs on.
const COPY_ROUTINE: &str = "_copy_to_iter";

/// The kernel.
pub(super) fn kernel(here: &Conditions) -> Vec<Fact> {
    let host = host();
    let types = match Btf::is_there() {
        Ok(()) => Fact::there("types", KERNEL_BTF),
        Err(refusal) => Fact::refused(
            "types",
            "not there",
            Denial::of(&refusal, here),
            &["nothing can be measured"],
        ),
    };
    let lockdown = match &here.lockdown {
        Ok(mode) => Fact::note("lockdown", mode.name()),
        Err(refusal) => Fact::refused("lockdown", "not visible", Denial::of(refusal, here), &[]),
    };
    let addresses = match address() {
        Ok(_) => Fact::there("addresses", "shown by /proc/kallsyms"),
        Err(refusal) => Fact::refused(
            "addresses",
            "not shown",
            Denial::of(&refusal, here),
            &["no breakpoints on kernel functions"],
        ),
    };
    vec![
        Fact::note("release", host.kernel),
        Fact::note("architecture", host.arch),
        types,
        lockdown,
        tracefs(here),
        addresses,
    ]
}

/// Where the routine is.
fn address() -> Result<u64, Refusal> {
    symbols::address(COPY_ROUTINE)
        .map_err(|error| Refusal::of(Asked::Addresses, "/proc/kallsyms", &error))
}

/// tracefs: mounted and readable, else whether it could be mounted, else not.
fn tracefs(here: &Conditions) -> Fact {
    const NAME: &str = "tracefs";
    let costs = || {
        // Only the programs for events need it, which is what kernels are asked for that preempt
        // the others.
        let needed =
            Btf::of_kernel().is_ok_and(|btf| Requirement::PreemptibleTracepoints.is_met(&btf));
        if needed {
            "tracepoints' programs are left out while a preempted task is inside them on the same \
             CPU, and that is told as lost"
        } else {
            "nothing on this kernel"
        }
    };
    let mut unreadable = None;
    for place in event::MOUNTED {
        match fs::read_to_string(Path::new(place).join(EVENT)) {
            Ok(_) => return Fact::there(NAME, format!("mounted at {place}")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => unreadable = Some(Refusal::of_call(Asked::Tracefs, place, &error)),
        }
    }
    let value = match &unreadable {
        Some(_) => "mounted, but closed to this process",
        None => "not mounted",
    };
    let detached = Detached::new(NAME).and_then(|tracefs| tracefs.read(EVENT));
    match (detached, unreadable) {
        (Ok(_), _) => Fact::refused(
            NAME,
            format!("{value}; it can be"),
            Denial {
                reason: "no tracefs at /sys/kernel/tracing or /sys/kernel/debug/tracing".to_owned(),
                errno: None,
                meaning: Some("a mount of one's own, tried and closed again, works".to_owned()),
                lifted_by: vec!["mount -t tracefs tracefs /sys/kernel/tracing".to_owned()],
            },
            &[costs()],
        ),
        (Err(error), unreadable) => {
            let refusal = unreadable
                .unwrap_or_else(|| Refusal::of_call(Asked::Tracefs, "mounting it", &error));
            Fact::refused(NAME, value, Denial::of(&refusal, here), &[costs()])
        }
    }
}

/// What shows that tracefs can be read: the format of an event that every kernel has.
const EVENT: &str = "events/raw_syscalls/sys_enter/format";

/// This process.
pub(super) fn process(here: &Conditions) -> Vec<Fact> {
    let user = Uid::effective();
    let mut facts = vec![Fact::note(
        "user",
        if user.is_root() {
            "root".to_owned()
        } else {
            format!("id {user}")
        },
    )];
    for capability in Capability::ALL {
        facts.push(capability_fact(capability, here));
    }
    for namespace in Namespace::ALL {
        let name = format!("{}_namespace", namespace.name());
        let value = match namespace.is_another() {
            Some(false) => "the system's first",
            Some(true) => "another than the system's first",
            None => "not visible",
        };
        facts.push(Fact::note(&name, value));
    }
    facts.push(Fact::note("container", container()));
    facts.push(Fact::note("system_call_filter", seccomp()));
    facts.push(Fact::note("cgroup", cgroup()));
    facts
}

fn capability_fact(capability: Capability, here: &Conditions) -> Fact {
    let name = capability.name();
    let Some(all) = here.capabilities else {
        return Fact::note(name, "not visible: /proc does not tell");
    };
    if all.has(capability) && !here.in_user_namespace {
        return Fact::there(name, "held");
    }
    let implied = all.has(Capability::SysAdmin);
    let cost = match capability {
        Capability::Bpf | Capability::Perfmon if implied && !here.in_user_namespace => {
            return Fact::there(name, "implied by CAP_SYS_ADMIN");
        }
        Capability::Bpf | Capability::Perfmon => "nothing can be measured",
        Capability::SysAdmin => {
            "no breakpoints on kernel functions; lockdown and tracefs show only where securityfs \
             and tracefs are mounted"
        }
        Capability::Syslog => "addresses of kernel functions may be hidden",
        Capability::SysResource => "limits stay as they are",
    };
    let flag = name.trim_start_matches("CAP_");
    let (value, reason, lifted_by) = if all.has(capability) {
        (
            "held in this user namespace only",
            format!("{name} in a user namespace does not reach the kernel"),
            "leaving the namespace".to_owned(),
        )
    } else {
        (
            "missing",
            format!("this process lacks {name}"),
            format!(
                "on the host: sudo; docker, podman: --cap-add {flag}; kubernetes: \
                 securityContext: {{capabilities: {{add: [{flag}]}}}}"
            ),
        )
    };
    let denial = Denial {
        reason,
        errno: None,
        meaning: None,
        lifted_by: vec![lifted_by],
    };
    Fact::refused(name, value, denial, &[cost])
}

/// What looks like a container around this process. Hints: none of them decides anything.
fn container() -> String {
    let mut hints: Vec<String> = Vec::new();
    let marks = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
    for (mark, name) in marks {
        if Path::new(mark).exists() {
            hints.push(format!("{name} ({mark})"));
        }
    }
    if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        hints.push("kubernetes (KUBERNETES_SERVICE_HOST)".to_owned());
    }
    // Written by systemd in containers that it starts; by nspawn and others, for it.
    if let Ok(kind) = fs::read_to_string("/run/systemd/container") {
        hints.push(format!("{} (/run/systemd/container)", kind.trim()));
    }
    match hints.is_empty() {
        true => "no sign of one".to_owned(),
        false => hints.join(", "),
    }
}

fn seccomp() -> &'static str {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"));
    match mode.map(str::trim) {
        Some("0") => "none",
        Some("2") => "a seccomp filter",
        Some(_) => "seccomp's strict mode",
        None => "not visible",
    }
}

/// The control group, as this process sees it: the unified hierarchy's, if there is one.
fn cgroup() -> String {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let first = groups.lines().next();
    unified.or(first).unwrap_or("not visible").to_owned()
}

/// The settings that bear on what is allowed, with what they mean for this process.
pub(super) fn settings(here: &Conditions) -> Vec<Fact> {
    let lacks = |capability| here.lacks(capability);
    let privileged = !lacks(Capability::SysAdmin);
    let setting = |name: &str, means: &dyn Fn(i64) -> &'static str| {
        let path: PathBuf = ["/proc/sys", &name.replace('.', "/")].iter().collect();
        let value = match fs::read_to_string(path) {
            Ok(text) => match text.trim().parse() {
                Ok(value) => format!("{value}: {}", means(value)),
                Err(_) => text.trim().to_owned(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => "not there".to_owned(),
            Err(_) => "not visible to this user".to_owned(),
        };
        Fact::note(name, value)
    };
    vec![
        setting("kernel.perf_event_paranoid", &|value| match value {
            _ if privileged => "does not bind this process, which has CAP_SYS_ADMIN",
            3.. => "forbids perf events; on Debian's and Ubuntu's kernels also with CAP_PERFMON",
            _ if !lacks(Capability::Perfmon) => "does not bind this process, which has CAP_PERFMON",
            2 => "forbids perf events that see the kernel",
            1 => "forbids perf events that see a whole CPU",
            _ => "forbids nothing that mmtrace needs",
        }),
        setting("kernel.kptr_restrict", &|value| match value {
            2.. => "hides the addresses of kernel functions from everybody",
            _ if !lacks(Capability::Syslog) => "does not bind this process, which has CAP_SYSLOG",
            1 => "hides the addresses of kernel functions from this process",
            _ => "hides the addresses of kernel functions where perf_event_paranoid is above 1",
        }),
        setting("kernel.unprivileged_bpf_disabled", &|value| match value {
            0 => "does not matter: mmtrace's programs take CAP_BPF and CAP_PERFMON anyway",
            _ => "does not matter with CAP_BPF, which mmtrace's programs take anyway",
        }),
        setting("kernel.ftrace_enabled", &|value| match value {
            0 => "ftrace is off: what uses it, as fentry does, may not work",
            _ => "ftrace is on",
        }),
        setting("net.core.bpf_jit_enable", &|value| match value {
            0 => "programs are interpreted, which takes longer",
            _ => "programs are compiled",
        }),
    ]
}

/// Debug registers and sampling.
pub(super) fn perf(here: &Conditions) -> Vec<Fact> {
    let breakpoints = address().map(perf::execution_breakpoints);
    let breakpoints = breakpoints.unwrap_or_else(|refusal| Registers {
        had: 0,
        stopped: refusal,
    });
    let clock = match perf::cpu_clock() {
        Ok(()) => Fact::there(
            "cpu_clock",
            "this process may be sampled, in the kernel too",
        ),
        Err(refusal) => Fact::refused(
            "cpu_clock",
            "refused",
            Denial::of(&refusal, here),
            &["no view of time in the kernel by sampling"],
        ),
    };
    vec![
        registers(
            "execution_breakpoints",
            &format!("on kernel functions ({COPY_ROUTINE})"),
            &breakpoints,
            "copies cannot be seen at the kernel's copy routines, only by what calls return",
            here,
        ),
        registers(
            "data_watchpoints",
            "on this process's memory",
            &perf::data_watchpoints(),
            "the kernel's stores into a buffer cannot be witnessed",
            here,
        ),
        clock,
    ]
}

fn registers(name: &str, on: &str, registers: &Registers, cost: &str, here: &Conditions) -> Fact {
    let count = Some(registers.had);
    if registers.had > 0 {
        return Fact {
            count,
            ..Fact::there(name, format!("{} at a time {on}", registers.had))
        };
    }
    let denial = Denial::of(&registers.stopped, here);
    Fact {
        count,
        ..Fact::refused(name, format!("none {on}"), denial, &[cost])
    }
}
