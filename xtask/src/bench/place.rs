//! Where to measure: builds mmtrace and the program that measures it, and runs that one here or in a
//! virtual machine.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::command::{as_root, target_dir};
use crate::vm::{self, Kernel, MachineOptions};
use crate::{build, setup};

/// On one emulated processor, parsing a kernel's types alone takes long.
const VM_TIMEOUT_S: u64 = 3600;

/// Instruction counts hardly differ from round to round.
const COUNTING_ROUNDS: u32 = 3;
const TIMING_ROUNDS: u32 = 20;

/// Where to measure, and how often.
#[derive(Args)]
pub(crate) struct Place {
    /// Measure on this kernel, in a virtual machine, instead of here.
    #[arg(long, value_name = "KERNEL")]
    vm: Option<String>,
    /// How many rounds [default: 20, or 3 where instructions are counted].
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
}

/// What time is in a virtual machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// The number of instructions.
    CountsInstructions,
    /// What it is elsewhere.
    Passes,
}

impl Place {
    /// Has `task` of `mmtrace-bench` measure and print its tables.
    pub(super) fn measure(&self, task: &str, more: &[&str], time: Time) -> Result<ExitCode> {
        let kernel = self.vm.as_deref().map(Kernel::by_name).transpose()?;
        setup::for_build()?;
        let mmtrace = build::mmtrace()?;
        let bench = build::bench()?;
        let arguments = |dir: &Path, rounds: u32| {
            let mut arguments: Vec<OsString> = vec![task.into(), "--mmtrace".into()];
            arguments.push(mmtrace.clone().into());
            arguments.extend(["--dir".into(), dir.into()]);
            arguments.extend([
                "--rounds".into(),
                self.rounds.unwrap_or(rounds).to_string().into(),
            ]);
            arguments.extend(more.iter().map(Into::into));
            arguments
        };
        let Some(kernel) = kernel else {
            let dir = target_dir().join("bench");
            fs::create_dir_all(&dir)?;
            let status = as_root(&bench)?
                .args(arguments(&dir, TIMING_ROUNDS))
                .status()
                .with_context(|| format!("cannot start {}", bench.display()))?;
            return Ok(if status.success() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        };
        setup::for_tests()?;
        let counts = time == Time::CountsInstructions;
        let machine = MachineOptions {
            memory: 2048,
            cpus: 1,
            disks: vec!["ext4=256M".parse()?],
            icount: counts,
            append: Vec::new(),
            timeout: Some(VM_TIMEOUT_S),
        };
        let rounds = if counts {
            COUNTING_ROUNDS
        } else {
            TIMING_ROUNDS
        };
        let mut command: Vec<OsString> = vec![bench.into()];
        command.extend(arguments(Path::new("/mnt/ext4"), rounds));
        if counts {
            command.push("--counts-instructions".into());
        }
        let (status, ..) = vm::boot(kernel, &machine, &command, io::stdout(), io::stderr())?;
        Ok(ExitCode::from(status))
    }
}
