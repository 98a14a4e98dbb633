//! Which Rust toolchain can build the kernel programs.
//!
//! Shared by `cargo xtask setup`, which provides one, and mmtrace's build script, which uses it.
//! BPF is a target without a ready-made `core`: the compiler must bring its library's sources, and
//! `-Z build-std` must be allowed, by a nightly compiler or by `RUSTC_BOOTSTRAP=1`.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

/// The name under which `setup` makes a distribution's compiler known to rustup.
pub(crate) const LINKED: &str = "mmtrace-bpf";

/// Names a rustup toolchain to use instead of the ones looked for.
pub(crate) const OVERRIDE: &str = "MMTRACE_BPF_TOOLCHAIN";

/// A toolchain that is there, with or without sources.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Its name for rustup; meaningless where there is no rustup.
    pub(crate) name: String,
    /// Whether it brings the sources of `core`.
    pub(crate) has_sources: bool,
    /// Whether it is new enough for this workspace.
    pub(crate) is_recent: bool,
    /// Whether `-Z build-std` needs `RUSTC_BOOTSTRAP=1`.
    pub(crate) needs_bootstrap: bool,
    /// The major version of its LLVM, which bpf-linker's must not be older than.
    pub(crate) llvm: u32,
}

impl Toolchain {
    /// Whether it can build the kernel programs.
    pub(crate) fn is_usable(&self) -> bool {
        self.has_sources && self.is_recent
    }
}

/// The toolchain for the kernel programs, if one is ready.
///
/// The linked one goes first: it is there only because `setup` found it the best.
pub(crate) fn find() -> Option<Toolchain> {
    if let Ok(name) = env::var(OVERRIDE) {
        return inspect(&name).filter(Toolchain::is_usable);
    }
    [LINKED, "nightly", "stable"]
        .iter()
        .filter_map(|name| inspect(name))
        .find(Toolchain::is_usable)
}

/// What rustup's toolchain `name` is; without rustup, what the only compiler is. `None` if absent.
pub(crate) fn inspect(name: &str) -> Option<Toolchain> {
    let version = rustc(name, &["-vV"])?;
    let sysroot = rustc(name, &["--print", "sysroot"])?;
    let field = |key: &str| {
        version
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
    };
    let release = field("release")?;
    Some(Toolchain {
        name: name.to_owned(),
        has_sources: Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .exists(),
        is_recent: numbers(release) >= numbers(env!("CARGO_PKG_RUST_VERSION")),
        needs_bootstrap: !release.contains("nightly") && !release.contains("dev"),
        llvm: numbers(field("LLVM version")?).first().copied()?,
    })
}

/// Whether there is a linker for BPF programs.
pub(crate) fn has_linker() -> bool {
    Command::new("bpf-linker")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// What rustc prints; `None` where it is missing or fails.
fn rustc(toolchain: &str, args: &[&str]) -> Option<String> {
    let through_rustup = Command::new("rustup")
        .args(["run", toolchain, "rustc"])
        .args(args)
        // Looking must not install anything.
        .env("RUSTUP_AUTO_INSTALL", "0")
        .env_remove("RUSTC")
        .stderr(Stdio::null())
        .output();
    let output = match through_rustup {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Command::new("rustc")
            .args(args)
            .stderr(Stdio::null())
            .output(),
        outcome => outcome,
    };
    let output = output.ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// The leading numbers of a version: `1.97.0-nightly` is 1, 97, 0.
fn numbers(version: &str) -> Vec<u32> {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    plain
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect()
}
