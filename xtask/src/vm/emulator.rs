//! QEMU: the machine's own, or one unpacked into the lab.
//!
//! Installing it can mean removing another package (a newer qemu-utils, say). The user's packages
//! are not ours to remove, so the same packages are then unpacked beside the kernels, which also
//! needs no root.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::lab;
use crate::command::{find_program, output, program, run};

/// The program.
const QEMU: &str = "qemu-system-x86_64";

/// Whether there is a QEMU to run.
pub(crate) fn is_there() -> bool {
    find_program(QEMU).is_some() || unpacked().join(QEMU_PATH).exists()
}

/// A command that runs QEMU.
pub(super) fn command() -> Result<Command> {
    let root = unpacked();
    let unpacked = root.join(QEMU_PATH);
    if find_program(QEMU).is_some() || !unpacked.exists() {
        return program(QEMU);
    }
    let libraries = ["usr/lib", "lib"].map(|dir| root.join(dir).join("x86_64-linux-gnu"));
    let mut command = Command::new(unpacked);
    command
        .env("QEMU_MODULE_DIR", libraries[0].join("qemu"))
        .env("LD_LIBRARY_PATH", env::join_paths(libraries)?);
    for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
        command.arg("-L").arg(root.join(firmware));
    }
    Ok(command)
}

/// Where QEMU is inside its package.
const QEMU_PATH: &str = "usr/bin/qemu-system-x86_64";

fn unpacked() -> PathBuf {
    lab().join("qemu")
}

/// Unpacks a package of QEMU, and what it needs that is not installed, into the lab.
pub(crate) fn unpack(package: &str) -> Result<()> {
    let plan = output(
        program("apt-get")?
            .args(["install", "--simulate", "--no-install-recommends", package])
            .env("LC_ALL", "C"),
    )?;
    let packages: Vec<String> = plan.lines().filter_map(to_install).collect();
    ensure!(
        !packages.is_empty(),
        "apt-get would install nothing for {package}"
    );
    let partial = unpacked().with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let archives = partial.join("archives");
    fs::create_dir_all(&archives)?;
    eprintln!(
        "setup: unpacking {} packages of QEMU into {}, where they change nothing",
        packages.len(),
        unpacked().display()
    );
    run(program("apt-get")?
        // apt's own user may not write here; signatures are checked all the same.
        .args(["--quiet", "-o", "APT::Sandbox::User=root"])
        .args(["-o", "Acquire::Retries=3", "download"])
        .args(&packages)
        .current_dir(&archives))?;
    for archive in fs::read_dir(&archives)? {
        extract(&archive?.path(), &partial)?;
    }
    fs::remove_dir_all(archives)?;
    fs::rename(&partial, unpacked()).context("cannot put QEMU in its place")
}

fn extract(archive: &Path, into: &Path) -> Result<()> {
    run(program("dpkg-deb")?.arg("--extract").arg(archive).arg(into))
}

/// `NAME=VERSION` from a line of apt's plan that installs a package:
/// `Inst NAME [OLD] (VERSION Suite [arch])`.
fn to_install(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let (_, version) = rest.split_once('(')?;
    Some(format!("{name}={}", version.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::to_install;

    #[test]
    fn the_plan_names_what_is_installed() {
        let of = |line| to_install(line);
        assert_eq!(
            of("Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])"),
            Some("libfdt1=1.6.1-4+b1".to_owned())
        );
        assert_eq!(
            of("Inst zlib1g [1:1.2] (1:1.3 Debian:12/oldstable [amd64])"),
            Some("zlib1g=1:1.3".to_owned())
        );
        assert_eq!(of("Remv qemu-utils [1:10.0.2]"), None);
        assert_eq!(of("Conf libfdt1 (1.6.1-4+b1 Debian:12)"), None);
    }
}
