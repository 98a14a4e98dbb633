//! What the kernel allows, found out by trying. Nothing that is tried stays.

pub mod mounts;
pub mod perf;

use std::{io, path::Path};

use crate::kernel::{
    btf::Btf,
    refusal::{Asked, Cause, Refusal},
};

/// Tries whether the kernel takes trampoline programs (`BPF_PROG_TYPE_TRACING` at a function).
///
/// # Errors
///
/// The kernel's refusal.
pub fn fentry(btf: &Btf) -> Result<(), Refusal> {
    const FUNCTION: &str = "handle_mm_fault";
    let id = btf.function_id(FUNCTION).ok_or_else(|| {
        Refusal::new(
            Asked::Function,
            Cause::Absent,
            format!("this kernel has no function {FUNCTION}"),
        )
    })?;
    load_tracing(id).map_err(|error| {
        Refusal::of_call(Asked::Trampoline, "it takes no trampoline programs", &error)
    })
}

/// Whether there is anything to put a kprobe with.
///
/// # Errors
///
/// If this kernel was built without kprobes, or does not show that it has them.
pub fn kprobe() -> Result<(), Refusal> {
    if !Path::new("/sys/bus/event_source/devices/kprobe/type").exists() {
        let reason = if Path::new("/sys/bus/event_source/devices").exists() {
            "it was built without kprobes (CONFIG_KPROBE_EVENTS)"
        } else {
            "whether it has kprobes cannot be seen: /sys is not mounted, or hidden"
        };
        return Err(Refusal::new(Asked::Kprobe, Cause::Absent, reason));
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

fn load_tracing(function: u32) -> io::Result<()> {
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
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is ours, and used nowhere else; a descriptor fits.
    unsafe { libc::close(fd as i32) };
    Ok(())
}
