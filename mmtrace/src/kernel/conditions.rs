//! What of this system and this process decides over refusals.

use std::{fmt, fs, io};

use nix::sys::{
    resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
    utsname::uname,
};

use super::{
    attempt::mounts::Detached,
    refusal::{Asked, Cause, Refusal},
};

/// The circumstances in which the kernel was asked.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The lockdown mode, if it can be seen.
    pub lockdown: Result<Lockdown, Refusal>,
    /// What this process may do; `None` where /proc does not tell.
    pub capabilities: Option<Capabilities>,
    /// Whether it is in another user namespace than the system's first.
    pub in_user_namespace: bool,
    /// Whether the kernel has kprobes.
    pub kprobes: bool,
    /// Whether programs' memory counts as locked (before 5.11), of which this process may have only
    /// so much.
    pub memory_is_limited: bool,
}

/// Lets this process lock as much memory as it takes, where that is limited and it may: before Linux
/// 5.11 the programs and maps of all processes of a user count as locked together, and each process
/// has its own limit for that sum. Not for processes that were started before.
pub fn lift_memory_limit() {
    if release() < [5, 11] {
        // A process that may not goes on with what it has: the kernel's refusal tells then.
        let _refused = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    }
}

impl Conditions {
    /// Those of this process.
    #[must_use]
    pub fn here() -> Self {
        let capabilities = Capabilities::of_this_process();
        let may_raise = capabilities.is_none_or(|all| all.has(Capability::SysResource));
        let limit = getrlimit(Resource::RLIMIT_MEMLOCK);
        let limited = limit.is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
        Self {
            lockdown: Lockdown::in_force(),
            memory_is_limited: release() < [5, 11] && limited && !may_raise,
            capabilities,
            in_user_namespace: Namespace::User.is_another() == Some(true),
            kprobes: super::attempt::kprobe().is_ok(),
        }
    }

    /// Whether this process lacks a capability over the whole system: those in a user namespace of
    /// its own are none. Not where that is unknown.
    #[must_use]
    pub fn lacks(&self, capability: Capability) -> bool {
        let held = self.capabilities.is_none_or(|all| all.has(capability));
        !held || self.in_user_namespace
    }

    /// Whether this process may load and attach kernel programs, as far as its capabilities say.
    #[must_use]
    pub fn may_attach(&self) -> bool {
        let suffice = self.capabilities.is_none_or(Capabilities::suffice);
        suffice && !self.in_user_namespace
    }
}

/// The running kernel's version and patch level; zeros if it has an odd name.
#[must_use]
pub fn release() -> [u32; 2] {
    let name = uname().map(|name| name.release().to_string_lossy().into_owned());
    numbers(&name.unwrap_or_default())
}

/// The first two numbers of a release.
fn numbers(release: &str) -> [u32; 2] {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    [(); 2].map(|()| numbers.next().unwrap_or(0))
}

/// How far the kernel guards itself against root: kernel_lockdown(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// Against being changed.
    Integrity,
    /// Against being read, too.
    Confidentiality,
}

impl Lockdown {
    /// The mode in force. Where securityfs is not mounted, it is looked at without mounting it.
    ///
    /// # Errors
    ///
    /// If it cannot be seen.
    pub fn in_force() -> Result<Self, Refusal> {
        const MOUNTED: &str = "/sys/kernel/security";
        let file = format!("{MOUNTED}/lockdown");
        let mounted = fs::read_dir(MOUNTED).is_ok_and(|mut entries| entries.next().is_some());
        let modes = if mounted {
            fs::read_to_string(&file)
        } else {
            Detached::new("securityfs").and_then(|securityfs| securityfs.read("lockdown"))
        };
        let modes = match modes {
            Ok(modes) => modes,
            // The file is made by the security module.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::None),
            Err(error) => return Err(Refusal::of_call(Asked::Lockdown, &file, &error)),
        };
        Self::of(&modes).ok_or_else(|| {
            let odd = format!("{file} has {:?}", modes.trim());
            Refusal::new(Asked::Lockdown, Cause::Different, odd)
        })
    }

    /// The mode in brackets: `none [integrity] confidentiality`.
    fn of(modes: &str) -> Option<Self> {
        match modes.split_once('[')?.1.split_once(']')?.0 {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }

    /// As the kernel names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

/// Capabilities that matter to mmtrace, by their numbers in include/uapi/linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Stands for `Bpf` and `Perfmon`, mounts, and sets breakpoints on kernel code.
    SysAdmin = 21,
    /// Raises limits.
    SysResource = 24,
    /// Shows addresses of kernel functions.
    Syslog = 34,
    /// Attaches programs, and lets them read kernel memory.
    Perfmon = 38,
    /// Loads programs.
    Bpf = 39,
}

impl Capability {
    /// Each that matters on any kernel.
    pub const ALL: [Self; 4] = [Self::Bpf, Self::Perfmon, Self::SysAdmin, Self::Syslog];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Syslog => "CAP_SYSLOG",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }
}

/// What a process may do: its effective capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// This process's; `None` where /proc does not tell.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        Self::in_status(&fs::read_to_string("/proc/self/status").ok()?)
    }

    fn in_status(status: &str) -> Option<Self> {
        let field = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(field.trim(), 16).ok().map(Self)
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u32) != 0
    }

    /// Whether they suffice for loading and attaching kernel programs.
    #[must_use]
    pub const fn suffice(self) -> bool {
        self.has(Capability::SysAdmin)
            || (self.has(Capability::Bpf) && self.has(Capability::Perfmon))
    }
}

/// Kinds of namespaces that make the system look different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Of users: root in another one has no say over the kernel.
    User,
    /// Of process ids.
    Pid,
    /// Of control groups.
    Cgroup,
}

impl Namespace {
    /// Each.
    pub const ALL: [Self; 3] = [Self::User, Self::Pid, Self::Cgroup];

    /// Its name below /proc/self/ns.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Cgroup => "cgroup",
        }
    }

    /// The first one's inode number: `PROC_USER_INIT_INO` and its like in
    /// include/linux/proc_ns.h, the same on every kernel.
    const fn first(self) -> u32 {
        match self {
            Self::User => 0xeffffffd,
            Self::Pid => 0xeffffffc,
            Self::Cgroup => 0xeffffffb,
        }
    }

    /// Whether this process is in another one than the system's first; `None` where /proc does not
    /// tell.
    #[must_use]
    pub fn is_another(self) -> Option<bool> {
        let link = fs::read_link(format!("/proc/self/ns/{}", self.name())).ok()?;
        let link = link.to_string_lossy();
        let number = link.split_once('[')?.1.strip_suffix(']')?;
        Some(number.parse::<u32>().ok()? != self.first())
    }
}

impl fmt::Display for Lockdown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_and_judged() {
        let all = Capabilities::in_status("Name:\tx\nCapEff:\t000001ffffffffff\n");
        assert_eq!(all, Some(Capabilities(0x1ff_ffff_ffff)));
        assert_eq!(Capabilities::in_status("Name:\tx\n"), None);
        let of = |capabilities: &[Capability]| {
            Capabilities(capabilities.iter().map(|one| 1 << *one as u32).sum())
        };
        assert!(of(&[Capability::SysAdmin]).suffice());
        assert!(of(&[Capability::Bpf, Capability::Perfmon]).suffice());
        assert!(!of(&[Capability::Bpf, Capability::Syslog]).suffice());
    }

    #[test]
    fn a_release_begins_with_its_version() {
        assert_eq!(numbers("7.3.4+deb13-amd64"), [7, 3]);
        assert_eq!(numbers("6.18-rc1"), [6, 18]);
        assert_eq!(numbers("odd"), [0, 0]);
    }

    #[test]
    fn the_mode_in_force_is_the_one_in_brackets() {
        let of = Lockdown::of;
        assert_eq!(
            of("[none] integrity confidentiality\n"),
            Some(Lockdown::None)
        );
        assert_eq!(
            of("none [integrity] confidentiality\n"),
            Some(Lockdown::Integrity)
        );
        assert_eq!(
            of("none integrity [confidentiality]"),
            Some(Lockdown::Confidentiality)
        );
        assert_eq!(of("none integrity"), None);
    }
}
