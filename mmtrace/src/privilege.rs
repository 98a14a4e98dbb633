//! Whether mmtrace may observe the kernel, and what to type if not.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::unistd::Uid;
use os_display::Quotable;

use crate::failure::Failure;
use crate::kernel::conditions::Capabilities;

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
    // Where /proc does not tell, the kernel will.
    if Capabilities::of_this_process().is_none_or(Capabilities::suffice) {
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
