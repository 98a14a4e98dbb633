//! `cargo xtask test`: every test there is, summed up in one closing line.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;

use crate::command::{as_root, cargo, target_dir};
use crate::tally::{Tally, Tee};
use crate::vm::{self, DiskRequest, KERNELS, Kernel, MachineOptions};
use crate::{build, setup};

/// How long the suite may take in one virtual machine. The longest are usually done in half of this.
const SUITE_TIMEOUT_S: u64 = 2_400;

/// Which tests to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Only on this machine's own kernel.
    #[arg(long)]
    native_only: bool,
    /// Only this kernel's virtual machine, and no native suite. May be repeated.
    #[arg(long = "kernel", value_name = "KERNEL", conflicts_with = "native_only")]
    kernels: Vec<String>,
    /// Only the integration suite's cases whose names contain this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// How many minutes after the start no further virtual machine is begun: what it was for is
    /// skipped.
    #[arg(long, value_name = "MINUTES", default_value_t = 56)]
    time_limit: u64,
}

/// Runs the tests; fails if one of them does.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    let named: Vec<&'static Kernel> = options
        .kernels
        .iter()
        .map(|name| Kernel::by_name(name))
        .collect::<Result<_>>()?;
    setup::for_build()?;
    let suite = Suite {
        mmtrace: build::mmtrace()?,
        program: build::suite()?,
        filter: options.filter.as_deref(),
        started,
        minutes: options.time_limit,
    };
    let mut tally = Tally::default();
    if options.filter.is_none() {
        heading("the crates' tests");
        tally += crate_tests()?;
    }
    if named.is_empty() && suite.has_cases("")? {
        heading("the suite on this machine's kernel");
        tally += suite.run_natively()?;
    }
    let kernels = match (options.native_only, named.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => KERNELS.iter().collect(),
        (false, false) => named,
    };
    // Once for all kernels: where it fails, it takes its time to.
    let lab = if kernels.is_empty() {
        Ok(())
    } else {
        setup::for_tests()
    };
    let mut ready_kernels = Vec::new();
    for kernel in kernels {
        // One after the other: they come from the same mirror.
        let ready = match &lab {
            Ok(()) => vm::fetch(kernel).map_err(|error| format!("{error:#}")),
            Err(error) => Err(format!("{error:#}")),
        };
        match ready {
            Ok(()) => ready_kernels.push(kernel),
            Err(reason) => tally += skipped(&reason, &kernel.to_string()),
        }
    }
    if !ready_kernels.is_empty() {
        heading("the suite in virtual machines, each line with its kernel and what is tried there");
        tally += suite.run_in_vms(&suite.machines(&ready_kernels)?)?;
    }
    if !tally.failures.is_empty() {
        heading("what failed");
        for line in &tally.failures {
            println!("{line}");
        }
    }
    println!("\n{tally}");
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A whole suite that cannot run is one skipped test.
fn skipped(reason: &str, kernel: &str) -> Tally {
    println!("skipped ({reason}): the suite on {kernel}");
    Tally::one_skipped()
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// Runs what `cargo test` runs.
fn crate_tests() -> Result<Tally> {
    let mut test = cargo();
    // The kernel programs build only for BPF.
    test.args([
        "test",
        "--workspace",
        "--exclude",
        "mmtrace-ebpf",
        "--no-fail-fast",
    ]);
    let (succeeded, output) = run_and_keep(&mut test)?;
    let mut tally = Tally::of_cargo_test(&output);
    if !succeeded && tally.failed == 0 {
        tally += Tally::one_failed("cargo test failed before its tests ended");
    }
    Ok(tally)
}

/// What is tried on a kernel, in a machine of its own.
struct Trial {
    /// As in the output.
    name: &'static str,
    /// The kernels to try it on.
    kernels: &'static [&'static str],
    /// Memory in MiB.
    memory: u32,
    /// The disk with the file system under test.
    disk: &'static str,
    /// How many disks there are beside it, to be written to.
    scratch_disks: usize,
    /// Stock kernels have all three: one that is refused there is a failure.
    backends: &'static [&'static str],
    /// Only the cases whose names contain this.
    filter: &'static str,
    /// The parts of the suite that are left to other trials.
    left_out: &'static [&'static str],
    /// Whether the kernel is locked down so far that it refuses everything: then only what `mmtrace
    /// doctor` says is tried, by a command of the suite's own.
    locked_down: bool,
}

/// What that command's cases are called.
const LOCKED_DOWN_CASES: &str = "lockdown/doctor";

/// So many that cases with a disk of their own can share a run.
const SCRATCH_DISKS: usize = 12;

/// What takes an emulated machine long, and is much the same on every kernel.
const SLOW: &str = "slow";
/// What is the same on every file system.
const ANY_FILE_SYSTEM: &str = "any-file-system";
/// All of the claims that `mmtrace settle` decides.
const CLAIMS: &str = "claims";
/// What spoils those.
const SPOILT: &str = "spoilt";

/// A trial with nothing out of the ordinary, on no kernel yet.
const ORDINARY: Trial = Trial {
    name: "ext4",
    kernels: &[],
    memory: 2048,
    disk: "ext4=2G",
    scratch_disks: SCRATCH_DISKS,
    backends: &["fentry", "kprobe"],
    filter: "",
    left_out: &[],
    locked_down: false,
};

/// What depends on the file system.
const XFS: Trial = Trial {
    name: "xfs",
    disk: "xfs=2G",
    scratch_disks: 0,
    backends: &["fentry"],
    left_out: &[SLOW, ANY_FILE_SYSTEM, SPOILT],
    ..ORDINARY
};
const BTRFS: Trial = Trial {
    name: "btrfs",
    disk: "btrfs=2G",
    ..XFS
};

/// Every trial: what is short and tried nowhere else, then the longest first.
const TRIALS: [Trial; 10] = [
    Trial {
        name: "little memory",
        kernels: &["5.10", "7"],
        memory: 384,
        scratch_disks: 0,
        backends: &["fentry"],
        filter: "larger-than-memory",
        ..ORDINARY
    },
    Trial {
        name: "locked down",
        kernels: &["6.12"],
        disk: "ext4=64M",
        scratch_disks: 0,
        backends: &[],
        locked_down: true,
        ..ORDINARY
    },
    Trial {
        kernels: &["7"],
        left_out: &[SPOILT],
        ..ORDINARY
    },
    Trial {
        kernels: &["5.10"],
        ..ORDINARY
    },
    Trial {
        kernels: &["6.1", "6.12", "6.18"],
        left_out: &[SLOW, SPOILT],
        ..ORDINARY
    },
    // The hooks are the same on all kernels before 7.
    Trial {
        name: "tracepoints",
        kernels: &["7", "5.10"],
        backends: &["tracepoint"],
        left_out: &[SLOW, CLAIMS, SPOILT],
        ..ORDINARY
    },
    Trial {
        kernels: &["6.12"],
        ..XFS
    },
    Trial {
        kernels: &["7"],
        left_out: &[SLOW, ANY_FILE_SYSTEM, CLAIMS, SPOILT],
        ..XFS
    },
    Trial {
        kernels: &["7"],
        ..BTRFS
    },
    Trial {
        kernels: &["6.12"],
        left_out: &[SLOW, ANY_FILE_SYSTEM, CLAIMS, SPOILT],
        ..BTRFS
    },
];

/// The integration suite.
struct Suite<'a> {
    mmtrace: PathBuf,
    program: PathBuf,
    filter: Option<&'a str>,
    started: Instant,
    /// How long after that the last machine is begun at the latest.
    minutes: u64,
}

impl Suite<'_> {
    fn arguments(&self, dir: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["run".into(), "--mmtrace".into()];
        arguments.extend([self.mmtrace.clone().into(), "--dir".into(), dir.into()]);
        if let Some(filter) = self.filter {
            arguments.extend(["--filter".into(), filter.into()]);
        }
        arguments
    }

    fn run_natively(&self) -> Result<Tally> {
        let dir = target_dir().join("test-data");
        fs::create_dir_all(&dir)?;
        let mut suite = match as_root(&self.program) {
            Ok(suite) => suite,
            Err(error) => {
                return Ok(skipped(&format!("{error:#}"), "this machine's kernel"));
            }
        };
        let (succeeded, output) = run_and_keep(suite.args(self.arguments(&dir)))?;
        Ok(count(&output, succeeded))
    }

    /// Which trials to make on which kernels: those that have a case that is asked for.
    fn machines<'k>(&self, kernels: &[&'k Kernel]) -> Result<Vec<(&'static Trial, &'k Kernel)>> {
        let mut machines = Vec::new();
        for trial in &TRIALS {
            let asked_for = if trial.locked_down {
                let filter = self.filter;
                filter.is_none_or(|text| LOCKED_DOWN_CASES.contains(text))
            } else {
                self.has_cases(trial.filter)?
            };
            if !asked_for {
                continue;
            }
            let on = kernels.iter();
            let on = on.filter(|kernel| trial.kernels.contains(&kernel.series));
            machines.extend(on.map(|kernel| (trial, *kernel)));
        }
        Ok(machines)
    }

    /// Whether any of the cases whose names contain `filter` is asked for.
    fn has_cases(&self, filter: &str) -> Result<bool> {
        let listing = Command::new(&self.program)
            .args(self.arguments(Path::new(".")))
            .args(["--list", "--filter", filter])
            .output()
            .context("cannot list the suite's cases")?;
        Ok(listing.status.success())
    }

    /// Runs the suite in these machines: as many at a time as there are processors, since an
    /// emulated machine keeps one busy.
    fn run_in_vms(&self, machines: &[(&Trial, &Kernel)]) -> Result<Tally> {
        build::vm_init()?;
        let at_once = thread::available_parallelism().map_or(1, NonZero::get);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut tally = Tally::default();
            while let Some((trial, kernel)) = machines.get(next.fetch_add(1, Ordering::Relaxed)) {
                let minutes = self.minutes;
                tally += if self.started.elapsed().as_secs() / 60 < minutes {
                    self.run_in_vm(trial, kernel)?
                } else {
                    let reason = format!("{minutes} minutes have passed: see --time-limit");
                    skipped(&reason, &format!("{kernel}, {}", trial.name))
                };
            }
            anyhow::Ok(tally)
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once.min(machines.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let mut sum = Tally::default();
            for worker in workers {
                sum += worker.join().map_err(|_| anyhow!("a worker panicked"))??;
            }
            Ok(sum)
        })
    }

    fn run_in_vm(&self, trial: &Trial, kernel: &Kernel) -> Result<Tally> {
        let under_test: DiskRequest = trial.disk.parse()?;
        let scratch = vec!["raw=512M".parse()?; trial.scratch_disks];
        let directory = Path::new("/mnt").join(under_test.kind());
        let mut command = vec![self.program.clone().into()];
        if trial.locked_down {
            command.extend(["locked-down".into(), "--mmtrace".into()]);
            command.push(self.mmtrace.clone().into());
        } else {
            command.extend(self.arguments(&directory));
            command.push("--small".into());
            command.extend(["--filter".into(), trial.filter.into()]);
            for backend in trial.backends {
                command.extend(["--backend".into(), backend.into()]);
            }
            for part in trial.left_out {
                command.extend(["--leave-out".into(), part.into()]);
            }
            for link in vm::disk_links(&scratch) {
                command.extend(["--scratch-disk".into(), link.into()]);
            }
        }
        let append = match trial.locked_down {
            true => vec!["lockdown=confidentiality".to_owned()],
            false => Vec::new(),
        };
        let machine = MachineOptions {
            memory: trial.memory,
            cpus: 2,
            disks: [vec![under_test], scratch].concat(),
            icount: false,
            append,
            timeout: Some(SUITE_TIMEOUT_S),
        };
        let label = format!("{:5}{:14}", kernel.series, trial.name);
        match vm::boot(
            kernel,
            &machine,
            &command,
            Tee::labelled(&label),
            io::stderr(),
        ) {
            Ok((status, output, _)) => Ok(count(&output.text(), status == 0).labelled(&label)),
            // What it printed by then counts for nothing.
            Err(error) => Ok(Tally::one_failed(&format!("{error:#}")).labelled(&label)),
        }
    }
}

/// What the suite's run counts as.
fn count(output: &str, succeeded: bool) -> Tally {
    let Some(mut tally) = Tally::of_suite(output) else {
        return Tally::one_failed("the suite ended without its closing line");
    };
    if !succeeded && tally.failed == 0 {
        tally += Tally::one_failed("the suite failed, though none of its cases did");
    }
    tally
}

/// Runs a command, passing its output on; returns whether it succeeded, and the output.
fn run_and_keep(command: &mut Command) -> Result<(bool, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let output = Tee::drain(child.stdout.take().context("no pipe")?)?;
    Ok((child.wait()?.success(), output.text()))
}

#[cfg(test)]
mod tests {
    use super::{KERNELS, TRIALS};

    #[test]
    fn every_kernel_is_tried_and_every_trial_has_kernels() {
        for kernel in KERNELS {
            let tried = |trial: &super::Trial| trial.kernels.contains(&kernel.series);
            assert!(TRIALS.iter().any(tried), "{}", kernel.series);
        }
        for trial in &TRIALS {
            assert!(!trial.kernels.is_empty(), "{}", trial.name);
            for name in trial.kernels {
                assert!(
                    KERNELS.iter().any(|kernel| kernel.series == *name),
                    "{name}"
                );
            }
        }
    }
}
