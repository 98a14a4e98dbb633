//! Hook calls for which the kernel did not run a program.
//!
//! A raw tracepoint's or a trampoline's program is not entered while it runs already on the same
//! CPU. Where programs can be preempted (trampolines from 5.15, raw tracepoints from 7.0), another
//! task gets in between and its call is left out. The kernel counts that, from 5.12.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};

use super::{Attached, Purpose, plan::Attachment};

/// The programs that were left out, and how often, of those whose work nothing makes up for. By
/// any thread of the system: the kernel does not tell which.
///
/// # Errors
///
/// If /proc does not tell.
pub fn missed(attached: &Attached) -> Result<Vec<(&'static str, u64)>> {
    let mut missed = Vec::new();
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
        let path = format!("/proc/self/fdinfo/{}", program.fd()?.as_fd().as_raw_fd());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let misses = misses(&text);
        if misses != 0 {
            missed.push((hook.program, misses));
        }
    }
    Ok(missed)
}

/// The count in what the kernel tells of a program's descriptor; older ones do not have it, and
/// do not leave calls out either.
fn misses(fdinfo: &str) -> u64 {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::misses;

    #[test]
    fn the_count_is_found_where_there_is_one() {
        let fdinfo =
            "pos:\t0\nprog_type:\t17\nrun_cnt:\t3\nrecursion_misses:\t12\nmemlock:\t4096\n";
        assert_eq!(misses(fdinfo), 12);
        assert_eq!(misses("pos:\t0\nprog_type:\t17\n"), 0);
    }
}
