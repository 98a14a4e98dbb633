//! Hook calls for which the kernel did not run a program.
//!
//! A raw tracepoint's or a trampoline's program is not entered while it runs already on the same
//! CPU. Where programs can be preempted (trampolines from 5.15, raw tracepoints from 7.0), another
//! task gets in between and its call is left out. The kernel counts that, from 5.12, with the
//! program.
//!
//! A kretprobe is missed when more threads are in the function than the kernel has prepared for, and
//! any kprobe inside another one. The kernel counts that with the probe, and tells it from 6.7 on, as
//! part of what it knows of the link. (/sys/kernel/tracing/kprobe_profile lists only probes with a
//! name there, which those of perf events do not have.)

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
};

use anyhow::{Context as _, Result};

use super::{Attached, Purpose, plan::Attachment};

/// What programs were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Which and how often, of those whose work nothing makes up for. By any thread of the system:
    /// the kernel does not tell which.
    pub calls: Vec<(&'static str, u64)>,
    /// The functions with a kretprobe of which the kernel does not tell.
    pub untold: Vec<&'static str>,
}

/// Looks what was left out so far.
///
/// # Errors
///
/// If /proc does not tell.
pub fn missed(attached: &Attached) -> Result<Missed> {
    let mut missed = Missed::default();
    let links = links()?;
    for (purpose, hook) in &attached.hooks {
        // A fault is counted by its event, with or without its beginning.
        if *purpose == Purpose::Faults {
            continue;
        }
        // So is what a tracepoint tells where its event is taken as well.
        if let Attachment::RawTracepoint(name) = hook.at
            && attached
                .hooks
                .iter()
                .any(|(_, other)| other.at.event().is_some_and(|(_, event)| event == name))
        {
            continue;
        }
        let program = attached
            .ebpf
            .program(hook.program)
            .with_context(|| format!("no program {}", hook.program))?;
        // One that was taken away is left out of nothing.
        let Ok(descriptor) = program.fd() else {
            continue;
        };
        let mut misses = misses(&fdinfo(descriptor.as_fd().as_raw_fd())?);
        if matches!(hook.at, Attachment::Kprobe(_) | Attachment::Kretprobe(_)) {
            let link = links.get(&program.info()?.id());
            match link.and_then(|link| misses_of_kprobe(*link).ok().flatten()) {
                Some(more) => misses += more,
                None if matches!(hook.at, Attachment::Kretprobe(_)) => {
                    missed.untold.push(hook.at.target());
                }
                // Missed only in another kprobe's handler.
                None => {}
            }
        }
        if misses != 0 {
            missed.calls.push((hook.program, misses));
        }
    }
    Ok(missed)
}

/// What the kernel tells of one of this process's descriptors.
fn fdinfo(descriptor: RawFd) -> Result<String> {
    let path = format!("/proc/self/fdinfo/{descriptor}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// The count in what the kernel tells of a program's descriptor; older ones do not have it, and
/// do not leave calls out either.
fn misses(fdinfo: &str) -> u64 {
    field(fdinfo, "recursion_misses:").unwrap_or(0)
}

fn field<T: std::str::FromStr>(fdinfo: &str, key: &str) -> Option<T> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

/// This process's descriptors of links, by the program that they attach.
fn links() -> Result<HashMap<u32, RawFd>> {
    let all = fs::read_dir("/proc/self/fdinfo").context("cannot read /proc/self/fdinfo")?;
    Ok(all
        .flatten()
        .filter_map(|entry| {
            let descriptor = entry.file_name().to_str()?.parse().ok()?;
            // One that has been closed meanwhile is no link of ours.
            let text = fdinfo(descriptor).ok()?;
            field::<u32>(&text, "link_id:")?;
            Some((field(&text, "prog_id:")?, descriptor))
        })
        .collect())
}

/// `bpf_link_info` of a link to a kprobe, from linux/bpf.h.
#[repr(C)]
#[derive(Default)]
struct KprobeLinkInfo {
    link_type: u32,
    id: u32,
    program: u32,
    padding: u32,
    event_type: u32,
    event_padding: u32,
    function_name: u64,
    name_bytes: u32,
    offset: u32,
    address: u64,
    /// From 6.7 on.
    missed: u64,
}

const _: () = assert!(size_of::<KprobeLinkInfo>() == 56);

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    descriptor: u32,
    info_bytes: u32,
    info: u64,
}

/// How often a link's kprobe or kretprobe was missed; `None` where the kernel does not tell.
fn misses_of_kprobe(link: RawFd) -> io::Result<Option<u64>> {
    const GET_INFO: libc::c_long = 15;
    let mut info = KprobeLinkInfo::default();
    let mut attributes = GetInfo {
        descriptor: link.cast_unsigned(),
        info_bytes: size_of::<KprobeLinkInfo>() as u32,
        info: (&raw mut info).addr() as u64,
    };
    // SAFETY: the structure is as the command takes it, with its size; the kernel writes at most
    // `info_bytes` to `info`, which has as many, and says in it how many it knows of.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            GET_INFO,
            &raw mut attributes,
            size_of::<GetInfo>(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let told = attributes.info_bytes as usize >= size_of::<KprobeLinkInfo>();
    Ok(told.then_some(info.missed))
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use aya::{EbpfLoader, programs::KProbe};

    use super::{links, misses, misses_of_kprobe};
    use crate::{kernel::attempt, probe::object::PROGRAMS};

    #[test]
    fn the_count_is_found_where_there_is_one() {
        let fdinfo =
            "pos:\t0\nprog_type:\t17\nrun_cnt:\t3\nrecursion_misses:\t12\nmemlock:\t4096\n";
        assert_eq!(misses(fdinfo), 12);
        assert_eq!(misses("pos:\t0\nprog_type:\t17\n"), 0);
    }

    /// More threads sleep in a function than a kretprobe is prepared for.
    #[test]
    fn missed_kretprobes_are_found_where_the_kernel_tells_of_them() {
        const PROGRAM: &str = "do_set_pmd_kretprobe";
        if let Err(error) = attempt::kprobe() {
            eprintln!("skipped: {error}");
            return;
        }
        let mut ebpf = EbpfLoader::new().btf(None).load(PROGRAMS).unwrap();
        let program: &mut KProbe = ebpf.program_mut(PROGRAM).unwrap().try_into().unwrap();
        program.load().unwrap();
        program.attach("hrtimer_nanosleep", 0).unwrap();
        let id = program.info().unwrap().id();
        let told = links()
            .unwrap()
            .get(&id)
            .map(|link| misses_of_kprobe(*link));
        let Some(Ok(Some(before))) = told else {
            eprintln!("skipped: the kernel does not tell: {told:?}");
            return;
        };
        // Long enough for a good part of them to be in the function at once.
        let nap = Duration::from_secs(3);
        let sleepers: Vec<_> = (0..200)
            .map(|_| thread::spawn(move || thread::sleep(nap)))
            .collect();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
        let after = misses_of_kprobe(links().unwrap()[&id]).unwrap().unwrap();
        assert!(after > before, "{before} missed, then {after}");
    }
}
