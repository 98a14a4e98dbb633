//! Building mmtrace and what belongs to it.

use std::path::PathBuf;

use anyhow::Result;

use crate::command::{cargo, run, target_dir};
use crate::setup;

/// Builds the optimized binary, after setting up its toolchain, and returns its path.
pub(crate) fn mmtrace() -> Result<PathBuf> {
    setup::for_build()?;
    release("mmtrace")
}

/// Builds the integration suite and returns its path.
pub(crate) fn suite() -> Result<PathBuf> {
    release("mmtrace-tests")
}

/// Builds the program that measures mmtrace and returns its path.
pub(crate) fn bench() -> Result<PathBuf> {
    release("mmtrace-bench")
}

/// Builds the first process of the virtual machines and returns its path.
///
/// It is linked statically, as its initramfs holds no libraries, and with the profile that xtask
/// itself has, as all of its dependencies are built by then.
pub(crate) fn vm_init() -> Result<PathBuf> {
    run(cargo()
        .args([
            "rustc",
            "--quiet",
            "--package",
            "xtask",
            "--bin",
            "vm-init",
            "--",
        ])
        .args(["-Ctarget-feature=+crt-static", "-Cstrip=symbols"]))?;
    Ok(target_dir().join("debug/vm-init"))
}

/// Builds one package's binary of the same name, optimized.
fn release(package: &str) -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--package", package]))?;
    Ok(target_dir().join("release").join(package))
}
