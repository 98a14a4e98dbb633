//! `--witness`, what it stands on, and `--sample-kernel`.

use std::process::Output;

use mmtrace::{
    recording::{AuditEntry, Recording},
    witness::{self, Trial},
};
use perf_event::{Builder, Counter, events::Breakpoint};

use crate::{mmtrace_run, needs_tracing, text};

/// How often a process makes the trials.
const REPEATED: usize = 100;
/// How many processes make them.
const FRESH: usize = 5;

#[test]
fn every_time_a_read_is_stored_by_the_kernel_and_a_mapped_page_by_nobody() {
    needs_tracing!();
    if let Err(error) = witness::available() {
        eprintln!("skipped: {error:#}");
        return;
    }
    for _ in 0..REPEATED {
        for finding in witness::run(false) {
            let seen = finding.observed.expect("a trial");
            let by_kernel = match finding.trial {
                Trial::ReadMemory => 1,
                Trial::ReadFile if seen.excuse.is_none() => 1,
                Trial::ReadFile => seen.stores.by_kernel(),
                Trial::Map => 0,
                Trial::Direct => unreachable!("it was not asked for"),
            };
            assert_eq!(seen.stores.by_kernel(), by_kernel, "{:?}", finding.trial);
            assert_eq!(seen.stores.by_program(), 0, "{:?}", finding.trial);
            assert_eq!(seen.stores.lost, 0);
            assert_eq!((seen.own.by_kernel(), seen.own.by_program()), (0, 1));
        }
    }
    for _ in 0..FRESH {
        let (recording, _) = run(&["--witness"]);
        let entries = watched(&recording);
        assert!(entries.len() >= 4, "{entries:?}");
        for entry in entries {
            assert_ne!(entry.agree, Some(false), "{entry:?}");
        }
        let [memory, ..] = &recording.witness[..] else {
            panic!("no trials");
        };
        assert_eq!(memory.kernel_stores, Some(1));
        let routine = memory.copy_routine.as_deref().expect("a copy routine");
        assert!(memory.stack.iter().any(|frame| frame.starts_with(routine)));
    }
    // Here, not in a test of its own: meanwhile nobody can watch anything.
    without_registers();
}

/// All registers of all CPUs are taken: the run goes on without.
fn without_registers() {
    const ATTEMPTS: usize = 100;
    let mut taken = Vec::new();
    // Tests beside this one hold some for a while: what they give back is taken, too.
    let mut attempts = (0..ATTEMPTS).map(|_| {
        taken.extend(take_every_register());
        run(&["--witness"])
    });
    let (recording, output) = attempts
        .find(|(recording, _)| watched(recording).len() == 1)
        .expect("a run without registers");
    drop(taken);
    let entry = watched(&recording)[0];
    assert_eq!((entry.agree, entry.ours), (None, None), "{entry:?}");
    let note = entry.note.as_deref().unwrap_or_default();
    assert!(note.contains("debug registers"), "{note}");
    let mut unavailable = recording.probes.unavailable.iter();
    assert!(unavailable.any(|entry| entry.purpose == "witness"));
    let table = text(&output.stderr);
    assert!(table.contains("Witness: nothing watched: "), "{table}");
}

fn take_every_register() -> Vec<Counter> {
    static WATCHED: u64 = 0;
    let cpus = aya::util::online_cpus().expect("CPUs");
    let register = |cpu: &u32| {
        Builder::new(Breakpoint::write((&raw const WATCHED).addr() as u64, 8))
            .any_pid()
            .one_cpu(*cpu as usize)
            .build()
            .ok()
    };
    let of_cpu = |cpu: u32| std::iter::from_fn(move || register(&cpu));
    cpus.into_iter().flat_map(of_cpu).collect()
}

fn run(options: &[&str]) -> (Recording, Output) {
    let mut mmtrace = mmtrace_run();
    let output = mmtrace
        .args(options)
        .args(["-o", "-", "--", "true"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (Recording::from_json(&output.stdout).unwrap(), output)
}

fn watched(recording: &Recording) -> Vec<&AuditEntry> {
    let entries = recording.audit.iter();
    entries
        .filter(|entry| entry.check.contains("watched"))
        .collect()
}

#[test]
fn without_the_option_bytes_are_watched_and_no_names_are_read() {
    needs_tracing!();
    let (recording, _) = run(&[]);
    assert!(recording.witness.is_empty());
    assert!(!watched(&recording).is_empty());
}

#[test]
fn a_rate_that_the_kernel_refuses_is_told_and_the_command_runs() {
    needs_tracing!();
    let most = std::fs::read_to_string("/proc/sys/kernel/perf_event_max_sample_rate").unwrap();
    let most: u32 = most.trim().parse().unwrap();
    if most >= 100_000 {
        eprintln!("skipped: this kernel takes every rate that can be asked for");
        return;
    }
    let (recording, _) = run(&["--sample-kernel=100000"]);
    assert_eq!(recording.kernel_samples, None);
    let mut unavailable = recording.probes.unavailable.iter();
    let entry = unavailable.find(|entry| entry.purpose == "kernel_samples");
    let reason = &entry.expect("a reason").reason;
    assert!(reason.contains("perf_event_max_sample_rate"), "{reason}");
}
