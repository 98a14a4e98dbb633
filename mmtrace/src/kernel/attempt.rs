//! What the kernel allows, found out by trying.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::btf::Btf;

/// Tries whether the kernel takes trampoline programs (`BPF_PROG_TYPE_TRACING`).
///
/// # Errors
///
/// The kernel's refusal, in words.
pub fn fentry(btf: &Btf) -> Result<()> {
    let id = btf
        .function_id("handle_mm_fault")
        .context("this kernel's type information has no function handle_mm_fault")?;
    load_tracing(id)
}

/// Whether there is anything to put a kprobe with.
///
/// # Errors
///
/// If this kernel was built without kprobes.
pub fn kprobe() -> Result<()> {
    let found = ["/sys/bus/event_source/devices/kprobe/type"]
        .iter()
        .any(|path| Path::new(path).exists());
    if !found {
        bail!("it was built without kprobes (CONFIG_KPROBE_EVENTS)");
    }
    Ok(())
}

/// `union bpf_attr` for `BPF_PROG_LOAD`, as far as `attach_btf_id`; the kernel takes a shorter one
/// for one that ends in zeros (include/uapi/linux/bpf.h, 5.5 on).
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instructions_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
    btf_fd: u32,
    func_info_record_size: u32,
    func_info: u64,
    func_info_count: u32,
    line_info_record_size: u32,
    line_info: u64,
    line_info_count: u32,
    attach_btf_id: u32,
}

fn load_tracing(function: u32) -> Result<()> {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_TYPE_TRACING: u32 = 26;
    const BPF_TRACE_FENTRY: u32 = 24;
    // r0 = 0; exit
    let instructions: [u64; 2] = [0xb7, 0x95];
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_TRACING,
        instructions_count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: BPF_TRACE_FENTRY,
        attach_btf_id: function,
        ..LoadAttributes::default()
    };
    // SAFETY: the attributes and what they point to live until the call returns.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of::<LoadAttributes>(),
        )
    };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Err(error).context(match lockdown() {
            Some(mode) => format!("it is locked down ({mode}): trampoline programs are refused"),
            None => "it refuses trampoline programs".to_owned(),
        });
    }
    // SAFETY: the descriptor is ours, and used nowhere else.
    unsafe { libc::close(i32::try_from(fd)?) };
    Ok(())
}

/// The lockdown mode in force, where the kernel shows it.
#[must_use]
pub fn lockdown() -> Option<String> {
    let modes = std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let mode = modes.split_once('[')?.1.split_once(']')?.0;
    (mode != "none").then(|| mode.to_owned())
}
