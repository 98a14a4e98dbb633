//! `cargo xtask bench overhead`: builds mmtrace and the program that measures it, and runs that
//! one here or in a virtual machine.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::command::{as_root, target_dir};
use crate::vm::{self, Kernel, MachineOptions};
use crate::{build, setup};

/// On one emulated processor, parsing a kernel's types alone takes long.
const VM_TIMEOUT_S: u64 = 3600;

/// Instruction counts hardly differ from round to round.
const VM_ROUNDS: u32 = 3;
const NATIVE_ROUNDS: u32 = 20;

/// How to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Count instructions on this kernel in a virtual machine, instead of timing here.
    #[arg(long, value_name = "KERNEL")]
    vm: Option<String>,
    /// How many rounds [default: 20, or 3 in a virtual machine].
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Also measure each of mmtrace's kernel programs by itself.
    #[arg(long)]
    programs: bool,
}

/// Measures and prints the tables.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let kernel = options.vm.as_deref().map(Kernel::by_name).transpose()?;
    setup::for_build()?;
    let mmtrace = build::mmtrace()?;
    let bench = build::bench()?;
    match kernel {
        Some(kernel) => in_vm(options, kernel, &bench, &mmtrace),
        None => natively(options, &bench, &mmtrace),
    }
}

fn natively(options: &Options, bench: &Path, mmtrace: &Path) -> Result<ExitCode> {
    let dir = target_dir().join("bench");
    fs::create_dir_all(&dir)?;
    let rounds = options.rounds.unwrap_or(NATIVE_ROUNDS);
    let status = as_root(bench)?
        .args(arguments(options, mmtrace, &dir, rounds))
        .status()
        .with_context(|| format!("cannot start {}", bench.display()))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn in_vm(options: &Options, kernel: &Kernel, bench: &Path, mmtrace: &Path) -> Result<ExitCode> {
    setup::for_tests()?;
    let machine = MachineOptions {
        memory: 2048,
        cpus: 1,
        disks: vec!["ext4=256M".parse()?],
        icount: true,
        append: Vec::new(),
        timeout: Some(VM_TIMEOUT_S),
    };
    let rounds = options.rounds.unwrap_or(VM_ROUNDS);
    let mut command: Vec<OsString> = vec![PathBuf::from(bench).into()];
    command.extend(arguments(options, mmtrace, Path::new("/mnt/ext4"), rounds));
    command.push("--counts-instructions".into());
    let (status, ..) = vm::boot(kernel, &machine, &command, io::stdout(), io::stderr())?;
    Ok(ExitCode::from(status))
}

fn arguments(options: &Options, mmtrace: &Path, dir: &Path, rounds: u32) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["overhead".into(), "--mmtrace".into(), mmtrace.into()];
    arguments.extend(["--dir".into(), dir.into()]);
    arguments.extend(["--rounds".into(), rounds.to_string().into()]);
    if options.programs {
        arguments.push("--programs".into());
    }
    arguments
}
