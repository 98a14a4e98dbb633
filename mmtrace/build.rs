//! Builds the kernel programs, which mmtrace carries inside its binary.

// One detection for the set-up and for the build, so that they cannot disagree.
#[path = "../xtask/src/toolchain.rs"]
#[allow(dead_code, reason = "the set-up uses more of it")]
mod toolchain;

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../xtask/src/toolchain.rs");
    println!("cargo:rerun-if-changed=../mmtrace-common");
    println!("cargo:rerun-if-changed=../Cargo.toml");
    println!("cargo:rerun-if-changed=../Cargo.lock");
    println!("cargo:rerun-if-env-changed={}", toolchain::OVERRIDE);

    let Some(toolchain) = toolchain::find() else {
        bail!("no Rust compiler here can build the kernel programs: run `cargo xtask setup`");
    };
    if !toolchain::has_linker() {
        bail!(
            "bpf-linker is missing, so the kernel programs cannot be linked: run `cargo xtask setup`"
        );
    }
    // SAFETY: this program has a single thread.
    unsafe {
        // Else aya-build turns each line of progress into a warning of ours.
        std::env::set_var("CARGO_TERM_QUIET", "true");
        if toolchain.needs_bootstrap {
            std::env::set_var("RUSTC_BOOTSTRAP", "1");
        }
    }
    let package = Package {
        name: "mmtrace-ebpf",
        root_dir: "../mmtrace-ebpf",
        ..Package::default()
    };
    build_ebpf([package], Toolchain::Custom(&toolchain.name)).with_context(|| {
        format!(
            "cannot build the kernel programs with toolchain {} (LLVM {}) and bpf-linker",
            toolchain.name, toolchain.llvm
        )
    })
}
