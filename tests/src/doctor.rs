//! What `mmtrace doctor --json` says, as its documentation describes it, and what of it can be found
//! out without mmtrace.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::fd::{FromRawFd as _, OwnedFd},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{
    check::Verdict,
    recording::Hook,
    runner::{BACKENDS, Tally},
    tracer::Tracer,
};

/// The parts that the checks look at.
#[derive(Debug, Deserialize)]
pub(crate) struct Said {
    schema: String,
    pub(crate) verdict: Answer,
    kernel: BTreeMap<String, Fact>,
    perf: BTreeMap<String, Fact>,
    pub(crate) backends: Vec<Backend>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) can_measure: bool,
}

#[derive(Debug, Deserialize)]
struct Fact {
    value: String,
    count: Option<u32>,
}

/// A backend, with what it can be used for.
#[derive(Debug, Deserialize)]
pub(crate) struct Backend {
    name: String,
    pub(crate) state: String,
    refusal: Option<Refusal>,
    purposes: Vec<Purpose>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    reason: String,
    meaning: Option<String>,
    lifted_by: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Purpose {
    name: String,
    choices: Vec<Choice>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    state: String,
    hooks: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    kind: String,
    program: String,
    name: String,
}

impl Said {
    /// Asks mmtrace: what it says, and the status that it exits with.
    pub(crate) fn by(mmtrace: &OsStr) -> anyhow::Result<(Self, Option<i32>)> {
        Self::by_command(&mut Command::new(mmtrace))
    }

    /// Asks mmtrace by a command that starts it with more arguments.
    pub(crate) fn by_command(command: &mut Command) -> anyhow::Result<(Self, Option<i32>)> {
        let output = command.args(["doctor", "--json"]).output()?;
        let said: Self = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        ensure!(said.schema == "mmtrace.doctor/1", "schema {}", said.schema);
        Ok((said, output.status.code()))
    }

    /// What it says of a backend.
    pub(crate) fn of(&self, backend: &str) -> anyhow::Result<&Backend> {
        let mut all = self.backends.iter();
        all.find(|report| report.name == backend)
            .with_context(|| format!("nothing is said of the {backend} backend"))
    }

    /// How many debug registers it says there are: for breakpoints on kernel code, and for
    /// watchpoints.
    pub(crate) fn registers(&self) -> [Option<u32>; 2] {
        ["execution_breakpoints", "data_watchpoints"]
            .map(|name| self.perf.get(name).and_then(|fact| fact.count))
    }
}

impl Backend {
    /// What it says would lift the refusal.
    pub(crate) fn lifted_by(&self) -> &[String] {
        self.refusal.as_ref().map_or(&[], |it| &it.lifted_by)
    }

    /// The hooks that it says are used, as recordings list them.
    pub(crate) fn hooks(&self) -> Vec<Hook> {
        let mut hooks = Vec::new();
        for purpose in &self.purposes {
            let chosen = purpose.choices.iter().filter(|it| it.state == "chosen");
            hooks.extend(chosen.flat_map(|choice| &choice.hooks).map(|hook| Hook {
                purpose: purpose.name.clone(),
                kind: hook.kind.clone(),
                name: hook.name.clone(),
                program: hook.program.clone(),
            }));
        }
        hooks
    }
}

/// How many debug registers this thread can have, found out without mmtrace: for breakpoints on
/// the kernel's `_copy_to_iter`, and for watchpoints on memory of its own.
pub(crate) fn registers() -> anyhow::Result<[u32; 2]> {
    const EXECUTE: u64 = 4;
    const WRITE: u64 = 2;
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    let address = symbols
        .lines()
        .find_map(|line| line.strip_suffix(" T _copy_to_iter"))
        .context("no _copy_to_iter")?;
    let watched = Box::new(0_u64);
    Ok([
        registers_at(u64::from_str_radix(address, 16)?, EXECUTE),
        registers_at((&raw const *watched).addr() as u64, WRITE),
    ])
}

fn registers_at(address: u64, kind: u64) -> u32 {
    // `perf_event_attr` of linux/perf_event.h in eights of bytes, in its second version (80 bytes):
    // PERF_TYPE_BREAKPOINT and the size; the flags, of which the first is `disabled`; the kind of
    // breakpoint, after the wakeups; where, and how many bytes.
    let mut attributes = [0_u64; 10];
    attributes[0] = 5 | 80 << 32;
    attributes[5] = 1;
    attributes[6] = kind << 32;
    attributes[7] = address;
    attributes[8] = 8;
    let mut held = Vec::new();
    loop {
        // SAFETY: the kernel reads as many bytes as the size says, during the call; a descriptor
        // that it returns is ours.
        unsafe {
            let fd = libc::syscall(
                libc::SYS_perf_event_open,
                attributes.as_ptr(),
                0,
                -1,
                -1,
                libc::c_ulong::from(8_u8),
            );
            if fd < 0 {
                return held.len() as u32;
            }
            held.push(OwnedFd::from_raw_fd(fd as i32));
        }
    }
}

/// Checks what is said where `lockdown=confidentiality` refuses everything.
pub(crate) fn locked_down(mmtrace: &Path) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let tracer = Tracer {
        binary: fs::canonicalize(mmtrace)?,
        limit: Duration::from_secs(100),
    };
    let (said, status) = Said::by(tracer.binary.as_os_str())?;
    let mut wrong = Vec::new();
    let mode = said.kernel.get("lockdown").map(|fact| fact.value.as_str());
    if mode != Some("confidentiality") {
        wrong.push(format!("lockdown is said to be {mode:?}"));
    }
    if said.verdict.can_measure || status != Some(1) {
        wrong.push(format!("{:?}, status {status:?}", said.verdict));
    }
    let registers = registers()?.map(Some);
    if said.registers() != registers {
        wrong.push(format!(
            "registers: {:?}, are {registers:?}",
            said.registers()
        ));
    }
    tally.report("lockdown/doctor", "all", &verdict(wrong));
    for backend in BACKENDS {
        let wrong = match tracer.refuses(backend)? {
            None => vec!["run accepts it".to_owned()],
            Some(message) => of_backend(said.of(backend)?, &message),
        };
        tally.report("lockdown/doctor", backend, &verdict(wrong));
    }
    Ok(tally)
}

/// What is wrong with what is said of a backend that `run` refuses with this message.
fn of_backend(report: &Backend, message: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            wrong.push(format!("{what}: {report:?}, run says {message:?}"));
        }
    };
    must(report.state == "refused", "state");
    let refusal = report.refusal.as_ref();
    must(
        refusal.is_some_and(|it| message.contains(&it.reason)),
        "reason",
    );
    let meaning = refusal.and_then(|it| it.meaning.as_deref());
    must(
        meaning.is_some_and(|it| it.contains("locked down (confidentiality)")),
        "meaning",
    );
    let mut lifts = refusal.iter().flat_map(|it| &it.lifted_by);
    must(lifts.any(|by| by.contains("lockdown=integrity")), "remedy");
    wrong
}

fn verdict(wrong: Vec<String>) -> Verdict {
    match wrong.is_empty() {
        true => Verdict::Passed,
        false => Verdict::Failed(wrong),
    }
}
