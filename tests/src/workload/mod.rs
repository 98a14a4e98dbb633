//! The workloads: programs of known size, made of plain libc calls.
//!
//! Each prints what it did, its [`Truth`], as one line of JSON on standard output.

mod advice;
mod aio;
mod compat;
mod copies;
mod cow;
#[cfg(target_arch = "x86_64")]
mod debugger;
mod elsewhere;
mod heat;
mod made;
mod maps;
mod messages;
mod processes;
mod reads;
mod sequence;
mod sites;
mod streams;
mod sys;
mod uring;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use anyhow::{Context as _, bail};

use crate::truth::Truth;

pub(crate) use uring::can_be_had as can_have_a_ring;

pub(crate) use sequence::{Plan, Step};
pub(crate) use sites::SITES;
pub(crate) use sys::{Cpus, stay_on_one_cpu};
pub(crate) use sys::{c_string, signal};

/// A workload: its name, the names of its arguments, and what it does.
struct Workload {
    name: &'static str,
    arguments: &'static str,
    run: fn(&mut Arguments) -> anyhow::Result<Truth>,
}

const WORKLOADS: &[Workload] = &[
    workload("read", "FILE CALL SIZE [CALLS]", reads::read),
    workload("timed-read", "FILE CALL SIZE [CALLS]", reads::timed_read),
    workload("odd-calls", "FILE", reads::odd_calls),
    workload("read-into-mapping", "FILE MAPPED SIZE", reads::into_mapping),
    workload("short-reads", "FILE", copies::short_reads),
    workload("short-writes", "MAPPED TO", copies::short_writes),
    workload("bad-stats", "CALLS", copies::bad_stats),
    workload("direct", "FILE SIZE TOUCHED", reads::direct),
    workload(
        "fork-readers",
        "FILE CHILDREN SIZE",
        processes::fork_readers,
    ),
    workload("threads", "FILE THREADS SIZE", processes::threads),
    workload("killed", "FILE SIZE CALLS", processes::killed),
    workload("exec-chain", "FILE SIZE LINKS", processes::exec_chain),
    workload("spawn", "FILE SIZE", processes::spawn),
    workload("thread-exec", "FILE SIZE", processes::thread_exec),
    workload("orphan", "FILE SIZE", processes::orphan),
    workload("touch", "FILE OPTION,..", maps::touch),
    workload("unshared", "PAGES", cow::unshared),
    workload("forked", "KIND STORES", cow::forked),
    workload("forked-mapping", "FILE", cow::forked_mapping),
    workload("read-into-private", "FILE MAPPED HOW", cow::into_private),
    workload("remapped", "FILE THREADS ROUNDS", maps::remapped),
    workload("read-and-map", "FILE FIRST SIZE", maps::read_and_map),
    workload("truncated", "FILE SIZE", maps::truncated),
    workload("prefetch", "FILE HOW", advice::prefetch),
    workload("read-part", "FILE FIRST BYTES SIZE TIMES", heat::read_part),
    workload("read-evicted", "FILE SIZE", heat::read_evicted),
    workload("touch-part", "FILE FIRST STRIDE", heat::touch_part),
    workload("append", "FILE SIZE CALLS", heat::append),
    workload("far-read", "FILE", sites::far),
    workload("rare-read", "FILE SIZE", sites::rare),
    workload("sites", "FILE CALLS", sites::sites),
    workload("sites-gone", "FILE CALLS", sites::gone),
    workload("sites-replaced", "FILE CALLS", sites::replaced),
    workload("sites-made", "FILE CALLS", made::sites),
    workload("elsewhere", "FILE WORKLOAD CALLS", elsewhere::elsewhere),
    workload("write", "FILE CALL SIZE CALLS", streams::write),
    workload("move", "FROM TO HOW SIZE", streams::move_file),
    workload("talk", "HOW SIZE CALLS", streams::talk),
    workload("messages", "HOW SIZE CALLS", messages::messages),
    workload("compat", "FILE CALLS", compat::compat),
    workload("aio", "HOW SIZE BYTES FILE..", aio::aio),
    workload("uring", "HOW FILE SIZE BYTES [FILE ...]", uring::uring),
    workload("uring-talk", "HOW SIZE CALLS", uring::talk),
    workload("uring-tee", "SIZE CALLS", uring::tee),
    workload("uring-sync", "FILE CALLS", uring::sync),
    workload("uring-advise", "HOW FILE", uring::advise),
    #[cfg(target_arch = "x86_64")]
    workload("debugged", "FILE SIZE STORES", debugger::debugged),
];

const fn workload(
    name: &'static str,
    arguments: &'static str,
    run: fn(&mut Arguments) -> anyhow::Result<Truth>,
) -> Workload {
    Workload {
        name,
        arguments,
        run,
    }
}

/// A word before a workload's name: what the program is made of is kept in memory.
pub(crate) const LOCKED: &str = "locked";

/// Runs a workload and prints its truth.
///
/// # Errors
/// When there is no such workload, its arguments are wrong, or one of its calls fails.
pub(crate) fn run(name: &str, mut arguments: Vec<OsString>) -> anyhow::Result<()> {
    if name == LOCKED && !arguments.is_empty() {
        sys::lock_all().context("mlockall")?;
        let name = arguments.remove(0);
        return run(&name.to_string_lossy(), arguments);
    }
    if name == sequence::NAME {
        return sequence::run(&arguments);
    }
    let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == name) else {
        let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        bail!("no workload {name:?}; there are: {}", names.join(", "));
    };
    let mut arguments = Arguments(arguments.into_iter());
    let truth = (workload.run)(&mut arguments)
        .with_context(|| format!("workload {name} {}", workload.arguments))?;
    println!("{}", serde_json::to_string(&truth)?);
    Ok(())
}

/// A workload's arguments, taken from the front.
struct Arguments(std::vec::IntoIter<OsString>);

impl Arguments {
    fn next(&mut self) -> anyhow::Result<OsString> {
        self.0.next().context("an argument is missing")
    }

    fn path(&mut self) -> anyhow::Result<PathBuf> {
        Ok(self.next()?.into())
    }

    fn text(&mut self) -> anyhow::Result<String> {
        self.next()?
            .into_string()
            .map_err(|text| anyhow::anyhow!("{text:?} is not UTF-8"))
    }

    fn number(&mut self) -> anyhow::Result<usize> {
        let text = self.text()?;
        text.parse()
            .with_context(|| format!("{text:?} is not a number"))
    }

    fn optional_number(&mut self) -> anyhow::Result<Option<usize>> {
        if self.0.as_slice().is_empty() {
            return Ok(None);
        }
        self.number().map(Some)
    }
}

/// The arguments that run a workload in this program.
pub(crate) fn command_of<'a>(name: &'a str, arguments: &[&'a OsStr]) -> Vec<&'a OsStr> {
    let mut all = vec![OsStr::new("workload"), OsStr::new(name)];
    all.extend_from_slice(arguments);
    all
}
