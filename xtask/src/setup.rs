//! Installs what building and testing need. Harmless to repeat: what is there stays.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::command::{as_root, cargo, find_program, output, run as run_command};
use crate::toolchain::{self, LINKED, Toolchain};
use crate::vm;

/// The bpf-linker that is known to work with the aya this workspace pins.
const BPF_LINKER_VERSION: &str = "0.13.0";

/// A compiler with its sources, as Debian packages it beside its own older one.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Programs that the virtual machines need, with the Debian package of each.
const TEST_PROGRAMS: [(&str, &str); 13] = [
    ("cpio", "cpio"),
    ("depmod", "kmod"),
    ("modprobe", "kmod"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("dpkg-deb", "dpkg"),
    ("losetup", "mount"),
    ("dmsetup", "dmsetup"),
    ("cryptsetup", "cryptsetup-bin"),
    ("mdadm", "mdadm"),
];

/// The Debian package of QEMU for this machine's architecture.
const QEMU_PACKAGE: &str = "qemu-system-x86";

/// apt's option to wait for another apt, in seconds.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=300";

/// What to set up.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Also what the tests need: QEMU, tools for file systems and block devices.
    #[arg(long)]
    pub(crate) tests: bool,
}

/// Sets up what is missing, saying what before doing it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let toolchain = for_build()?;
    eprintln!(
        "setup: toolchain {} (LLVM {}{}) and bpf-linker are ready for the kernel programs",
        toolchain.name,
        toolchain.llvm,
        if toolchain.needs_bootstrap {
            ", RUSTC_BOOTSTRAP=1"
        } else {
            ""
        }
    );
    if options.tests {
        for_tests()?;
        eprintln!("setup: what the virtual machines need is ready");
    }
    Ok(())
}

/// Sets up the toolchain and the linker for the kernel programs.
pub(crate) fn for_build() -> Result<Toolchain> {
    let mut apt = Apt::default();
    let toolchain = match toolchain::find() {
        Some(toolchain) => toolchain,
        None => provide_toolchain(&mut apt)?,
    };
    if !toolchain::has_linker() {
        provide_linker(&mut apt, toolchain.llvm)?;
    }
    Ok(toolchain)
}

/// Sets up the programs that the virtual machines need.
pub(crate) fn for_tests() -> Result<()> {
    let mut missing: Vec<&str> = TEST_PROGRAMS
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|&(_, package)| package)
        .collect();
    missing.dedup();
    if !Path::new(vm::KEYRING).exists() {
        missing.push("debian-archive-keyring");
    }
    let mut apt = Apt::default();
    apt.install(&missing)?;
    if vm::emulator::is_there() {
        return Ok(());
    }
    if apt.removes_nothing_for(QEMU_PACKAGE)? {
        apt.install(&[QEMU_PACKAGE])
    } else {
        vm::emulator::unpack(QEMU_PACKAGE)
    }
}

/// A way to a toolchain.
type Way = fn(&mut Apt) -> Result<()>;

/// Tries the ways to a toolchain, from the least to the most that is installed.
fn provide_toolchain(apt: &mut Apt) -> Result<Toolchain> {
    let mut failures = Vec::new();
    let ways: [(&str, Way); 3] = [
        ("link the distribution's compiler", link_compiler),
        ("rustup's nightly with rust-src", add_nightly),
        ("Debian's newer compiler with its sources", install_compiler),
    ];
    for (name, way) in ways {
        let outcome = way(apt).and_then(|()| {
            let toolchain = toolchain::find().context("it cannot build for BPF")?;
            if !toolchain::has_linker() && !has_llvm(apt, toolchain.llvm)? {
                bail!(
                    "there is no LLVM {} here to build bpf-linker with",
                    toolchain.llvm
                );
            }
            Ok(toolchain)
        });
        match outcome {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => failures.push(format!("\n  {name}: {error:#}")),
        }
    }
    bail!(
        "no compiler for the kernel programs could be set up. Install a nightly Rust with the \
         component rust-src (rustup toolchain install nightly --component rust-src), or a \
         compiler not older than {} with its library's sources, then run this again. Tried:{}",
        env!("CARGO_PKG_RUST_VERSION"),
        failures.concat()
    )
}

/// Makes rustup know a distribution's compiler that is already installed with its sources.
fn link_compiler(_: &mut Apt) -> Result<()> {
    let core = "/usr/lib/rustlib/src/rust/library/core/Cargo.toml";
    if !std::fs::exists("/usr/bin/rustc")? || !std::fs::exists(core)? {
        bail!("there is none with sources in /usr");
    }
    if find_program("rustup").is_none() {
        return Ok(());
    }
    eprintln!("setup: linking /usr as rustup toolchain {LINKED}");
    run_command(Command::new("rustup").args(["toolchain", "link", LINKED, "/usr"]))?;
    if !toolchain::inspect(LINKED).is_some_and(|toolchain| toolchain.is_usable()) {
        run_command(Command::new("rustup").args(["toolchain", "uninstall", LINKED]))?;
        bail!("it is too old");
    }
    Ok(())
}

/// Adds the library's sources to rustup's nightly, or installs it with them.
fn add_nightly(apt: &mut Apt) -> Result<()> {
    if find_program("rustup").is_none() {
        bail!("there is no rustup");
    }
    let mut rustup = Command::new("rustup");
    match toolchain::inspect("nightly") {
        Some(nightly) if nightly.is_recent => {
            if !toolchain::has_linker() && !has_llvm(apt, nightly.llvm)? {
                bail!(
                    "there is no LLVM {} here to build bpf-linker with",
                    nightly.llvm
                );
            }
            eprintln!("setup: adding component rust-src to toolchain nightly (rustup)");
            rustup.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
        }
        _ => {
            eprintln!("setup: installing toolchain nightly with rust-src (rustup)");
            rustup.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
            rustup.args(["--component", "rust-src"]);
        }
    }
    run_command(&mut rustup)
}

/// Installs Debian's newer compiler and links it.
fn install_compiler(apt: &mut Apt) -> Result<()> {
    apt.install(&DEBIAN_COMPILER)?;
    link_compiler(apt)
}

/// Whether bpf-linker can be built with this version of LLVM.
fn has_llvm(apt: &mut Apt, llvm: u32) -> Result<bool> {
    Ok(llvm_prefix(llvm).is_some() || apt.offers(&format!("llvm-{llvm}-dev"))?)
}

/// Where LLVM of this major version is installed with its development files.
fn llvm_prefix(llvm: u32) -> Option<String> {
    [
        format!("/usr/lib/llvm-{llvm}/bin/llvm-config"),
        "llvm-config".to_owned(),
    ]
    .into_iter()
    .filter(|config| {
        output(Command::new(config).arg("--version"))
            .is_ok_and(|version| version.starts_with(&format!("{llvm}.")))
    })
    .find_map(|config| output(Command::new(config).arg("--prefix")).ok())
    .map(|prefix| prefix.trim().to_owned())
}

/// Builds bpf-linker against the LLVM that the compiler has.
fn provide_linker(apt: &mut Apt, llvm: u32) -> Result<()> {
    let libraries = [
        format!("llvm-{llvm}-dev"),
        format!("libllvm{llvm}"),
        format!("libpolly-{llvm}-dev"),
        "libzstd-dev".to_owned(),
        "zlib1g-dev".to_owned(),
    ];
    if apt.offers(&libraries[0])? {
        apt.install(&libraries.each_ref().map(String::as_str))?;
    }
    let Some(prefix) = llvm_prefix(llvm) else {
        bail!(
            "bpf-linker is missing, and so is what it is built with: install LLVM {llvm} with \
             its development files, or put a ready-made bpf-linker on PATH, then run this again"
        );
    };
    eprintln!("setup: installing bpf-linker {BPF_LINKER_VERSION} with LLVM {llvm} (cargo install)");
    run_command(
        cargo()
            .args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION])
            .args(["--locked", "--no-default-features", "--features"])
            .arg(format!("llvm-{llvm}"))
            .env("LLVM_PREFIX", prefix),
    )?;
    if !toolchain::has_linker() {
        bail!(
            "bpf-linker was installed where PATH does not look: add cargo's bin directory to PATH"
        );
    }
    Ok(())
}

/// The distribution's packages, where it has apt.
#[derive(Default)]
struct Apt {
    is_updated: bool,
}

impl Apt {
    /// Installs the packages that are missing.
    fn install(&mut self, packages: &[&str]) -> Result<()> {
        let missing: Vec<&str> = packages
            .iter()
            .copied()
            .filter(|p| !is_installed(p))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if find_program("apt-get").is_none() {
            bail!(
                "missing, and there is no apt to install them with: {}. Install what has these \
                 names in Debian",
                missing.join(" ")
            );
        }
        eprintln!(
            "setup: installing packages as root (apt-get): {}",
            missing.join(" ")
        );
        self.update()?;
        run_command(
            // As arguments of env, since sudo does not pass the environment on.
            as_root("env")?
                .args([
                    "DEBIAN_FRONTEND=noninteractive",
                    "apt-get",
                    "install",
                    "--yes",
                    "--quiet",
                ])
                // Debian's two compilers exclude each other: the user's must not be removed.
                .args(["--no-install-recommends", "--no-remove", "-o", LOCK_TIMEOUT])
                .args(&missing),
        )
        .context("apt-get could not install them")
    }

    /// Whether the distribution has a package of this name to install.
    fn offers(&mut self, package: &str) -> Result<bool> {
        if find_program("apt-get").is_none() {
            return Ok(false);
        }
        let known = || {
            let policy = output(Command::new("apt-cache").args(["policy", package]))?;
            let candidate = policy
                .lines()
                .find_map(|l| l.trim().strip_prefix("Candidate: "));
            anyhow::Ok(candidate.is_some_and(|version| version != "(none)"))
        };
        if known()? {
            return Ok(true);
        }
        self.update()?;
        known()
    }

    /// Whether installing a package leaves all others as they are.
    fn removes_nothing_for(&mut self, package: &str) -> Result<bool> {
        if !self.offers(package)? {
            // Installing it then says what is wrong.
            return Ok(true);
        }
        let plan = output(
            Command::new("apt-get")
                .args(["install", "--simulate", "--no-install-recommends", package])
                .env("LC_ALL", "C"),
        )?;
        Ok(!plan.lines().any(|line| line.starts_with("Remv ")))
    }

    /// Fetches the lists of packages, once.
    fn update(&mut self) -> Result<()> {
        if !self.is_updated {
            eprintln!("setup: fetching the lists of packages as root (apt-get update)");
            // One dead source must not keep the others from being used.
            if let Err(error) =
                run_command(as_root("apt-get")?.args(["update", "--quiet", "-o", LOCK_TIMEOUT]))
            {
                eprintln!("setup: going on with the lists there are: {error:#}");
            }
            self.is_updated = true;
        }
        Ok(())
    }
}

fn is_installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}
