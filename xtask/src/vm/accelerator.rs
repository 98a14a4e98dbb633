//! What runs the machines' processors: KVM where kernels start under it, emulation elsewhere.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::emulator;

/// How long a kernel may take to get as far as it can. Under KVM that is about a second.
const TRIAL_TIMEOUT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// The value of QEMU's `-accel`: tried once in a process, with the first kernel that asks.
pub(super) fn accelerator(kernel: &Path) -> &'static str {
    static KVM: OnceLock<bool> = OnceLock::new();
    if *KVM.get_or_init(|| kvm_works(kernel)) {
        "kvm"
    } else {
        // One thread for all processors: with several, TCG can translate code while another
        // processor patches it and keep the old translation, and these kernels patch
        // themselves whenever a tracepoint is switched on. They die of a forgotten int3.
        "tcg,thread=single"
    }
}

/// Whether a kernel starts under KVM. Being able to make such a machine is not enough: where KVM has
/// no help by the processor (`kvm_pvm`), only kernels made for it run, and others hang.
fn kvm_works(kernel: &Path) -> bool {
    if !Path::new("/dev/kvm").exists() {
        return false;
    }
    let works = emulator::command()
        .and_then(|qemu| ends_by_itself(qemu, "kvm", kernel))
        .unwrap_or(false);
    if !works {
        eprintln!("vm: kernels do not start under this machine's KVM: emulating");
    }
    works
}

/// Whether a kernel that is given no root directory panics over that, as it should, which ends the
/// machine.
fn ends_by_itself(mut qemu: Command, accelerator: &str, kernel: &Path) -> Result<bool> {
    let mut qemu = qemu
        .args(["-M", "q35", "-cpu", "max", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-no-reboot", "-m", "512M"])
        .args(["-accel", accelerator, "-append", "panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let ends = pidfd_open(Pid::from_child(&qemu), PidfdFlags::empty())?;
    let mut ends = [PollFd::new(&ends, PollFlags::IN)];
    let ended = poll(&mut ends, Some(&TRIAL_TIMEOUT))? > 0;
    if !ended {
        qemu.kill()?;
    }
    Ok(qemu.wait()?.success() && ended)
}
