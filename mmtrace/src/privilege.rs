//! Whether mmtrace may observe the kernel, and what to type if not.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::unistd::Uid;
use os_display::Quotable;

use crate::failure::Failure;

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Where sudo looks for commands, as distributions configure it.
const SUDO_PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Checks the capabilities that loading and attaching kernel programs takes.
///
/// `arguments` is mmtrace's own command line, for the remedy.
///
/// # Errors
/// A [`Failure`] that says what to type instead.
pub fn check(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Where /proc does not tell, the kernel will.
    if effective_capabilities(&status).is_none_or(suffices) {
        return Ok(());
    }
    let mut arguments = arguments.into_iter();
    let name = arguments
        .next()
        .map(|name| findable_by_sudo(name, env::current_exe().ok()));
    Err(if Uid::effective().is_root() {
        Failure::own(
            "observing the kernel is not permitted: this root lacks CAP_BPF and CAP_PERFMON",
        )
        .remedy("In a container, add them when it is started: --cap-add BPF --cap-add PERFMON.")
    } else {
        Failure::own("observing the kernel needs root").remedy(format!(
            "Type instead:\nsudo {}",
            command_line(name.into_iter().chain(arguments))
        ))
    })
}

fn suffices(capabilities: u64) -> bool {
    let has = |capability: u32| capabilities & (1 << capability) != 0;
    has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON))
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let field = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(field.trim(), 16).ok()
}

/// Arguments as they can be typed into a shell.
fn command_line(arguments: impl IntoIterator<Item = OsString>) -> String {
    let quoted: Vec<String> = arguments
        .into_iter()
        .map(|argument| argument.maybe_quote().external(true).to_string())
        .collect();
    quoted.join(" ")
}

/// What sudo finds mmtrace by: its path, where sudo's PATH would not lead to it.
fn findable_by_sudo(name: OsString, executable: Option<PathBuf>) -> OsString {
    let on_path = |path: &PathBuf| {
        path.parent()
            .is_some_and(|directory| SUDO_PATH.iter().any(|on_path| directory == *on_path))
    };
    match executable {
        Some(path) if !name.as_bytes().contains(&b'/') && !on_path(&path) => path.into_os_string(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_and_judged() {
        assert_eq!(
            effective_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"),
            Some(0x1ff_ffff_ffff)
        );
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
        assert!(suffices(1 << CAP_SYS_ADMIN));
        assert!(suffices(1 << CAP_BPF | 1 << CAP_PERFMON));
        assert!(!suffices(1 << CAP_BPF));
    }

    #[test]
    fn sudo_finds_what_is_named() {
        let named = |name: &str, path: &str| findable_by_sudo(name.into(), Some(path.into()));
        assert_eq!(named("mmtrace", "/usr/bin/mmtrace"), "mmtrace");
        assert_eq!(
            named("mmtrace", "/home/a/.cargo/bin/mmtrace"),
            "/home/a/.cargo/bin/mmtrace"
        );
        assert_eq!(named("./mmtrace", "/home/a/mmtrace"), "./mmtrace");
    }

    #[test]
    fn the_command_line_can_be_typed() {
        let line = ["mmtrace", "run", "--", "rg", "a b", "it's", "-e"].map(OsString::from);
        assert_eq!(command_line(line), "mmtrace run -- rg 'a b' \"it's\" -e");
    }
}
