//! What runs: the experiments' programs, in plain system calls.
//!
//! `mmtrace settle-workload` is both the driver, which makes the files and starts a process for each
//! experiment, and that process. Everything that they see for themselves they tell in lines of JSON,
//! [`Report`]; what mmtrace measures comes from its recording alone.

mod bench;
mod data;
mod driver;
mod files;
mod ipc;
mod memory;
mod report;
mod share;
mod swap;
mod sys;
mod watch;
mod write;

use std::{ffi::OsString, os::fd::RawFd, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{experiment::Experiment, sabotage::Sabotage};
use bench::Bench;
pub(super) use driver::nameless;
pub use report::{Object, Report};

/// How many processes hold the same data, where that is tried.
pub const HOLDERS: u64 = memory::HOLDERS as u64;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "settle-workload";
/// Its option that makes it the process of one experiment.
const STEP: &str = "--step";

/// What the driver is to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The experiments, in this order.
    pub experiments: Vec<Experiment>,
    /// How often.
    pub repetitions: u32,
    /// Bytes of each file at most.
    pub size_bytes: u64,
    /// Where the files are made.
    pub directory: PathBuf,
    /// Where the reports go.
    pub report: RawFd,
    /// The process to end with, if there is one.
    pub parent: Option<u32>,
    /// What is spoilt.
    pub sabotage: Option<Sabotage>,
}

impl Job {
    /// The arguments of `mmtrace` with which it becomes the driver of this.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            SUBCOMMAND.into(),
            "--size".into(),
            self.size_bytes.to_string().into(),
            "--dir".into(),
            self.directory.clone().into(),
            "--repeat".into(),
            self.repetitions.to_string().into(),
            "--report".into(),
            self.report.to_string().into(),
        ];
        if let Some(parent) = self.parent {
            arguments.extend(["--parent".into(), parent.to_string().into()]);
        }
        if let Some(name) = self
            .sabotage
            .and_then(|kind| clap::ValueEnum::to_possible_value(&kind))
        {
            arguments.extend(["--sabotage".into(), name.get_name().into()]);
        }
        arguments.extend(self.experiments.iter().map(|it| it.name().into()));
        arguments
    }
}

/// What the process of one experiment is told by the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which experiment.
    pub experiment: Experiment,
    /// The how many-th time, from 0.
    pub repetition: u32,
    /// Bytes of its data.
    pub size_bytes: u64,
    /// The file that the driver has made, as a descriptor.
    pub file: Option<RawFd>,
    /// Where the report goes.
    pub report: RawFd,
    /// The driver.
    pub parent: libc::pid_t,
    /// What is spoilt.
    pub sabotage: Option<Sabotage>,
}

impl Step {
    /// Reads it from its JSON.
    ///
    /// # Errors
    /// If it is no step.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// What a process with this command line, a recording's, was told; `None` if it is no experiment.
    #[must_use]
    pub fn of_command(command: &[OsString]) -> Option<Self> {
        match command {
            [_, name, option, step, ..] if name == SUBCOMMAND && option == STEP => {
                Self::parse(step.to_str()?).ok()
            }
            _ => None,
        }
    }
}

/// Makes the experiments of a job, each in a process of its own.
///
/// # Errors
/// If the files cannot be made, or no process can be started. An experiment that fails is told in
/// its report.
pub fn drive(job: &Job) -> Result<()> {
    driver::run(job)
}

/// Makes one experiment in this process, and tells what was seen.
///
/// # Errors
/// If that cannot be told.
pub fn make(step: Step) -> Result<()> {
    let mut bench = Bench::new(step);
    let made = sys::die_with(bench.step.parent).and_then(|()| experiment(&mut bench));
    if let Err(error) = made {
        bench.report.failed = Some(format!("{error:#}"));
    }
    bench::tell(&bench.report, bench.step.report).context("the experiment's report")
}

fn experiment(bench: &mut Bench) -> Result<()> {
    const SMALL: usize = 4 << 10;
    const MEDIUM: usize = 64 << 10;
    const LARGE: usize = 1 << 20;
    match bench.step.experiment {
        Experiment::ReadCold | Experiment::ReadWarm => files::read(bench, MEDIUM, 0),
        Experiment::ReadColdSmall => files::read(bench, SMALL, 0),
        Experiment::ReadColdLarge => files::read(bench, LARGE, 0),
        Experiment::ReadDirect => files::read(bench, LARGE, libc::O_DIRECT),
        Experiment::MapColdShared | Experiment::MapWarm => files::map(bench, libc::MAP_SHARED),
        Experiment::MapColdPrivate => files::map(bench, libc::MAP_PRIVATE),
        Experiment::MapUntouched => files::map_only(bench, files::Fill::Nothing),
        Experiment::MapPopulated => files::map_only(bench, files::Fill::Populate),
        Experiment::MapAdvised => files::map_only(bench, files::Fill::Advise),
        Experiment::FirstLoad => files::first_load(bench),
        Experiment::SharedStore | Experiment::ObjectFile => share::file(bench, libc::MAP_SHARED),
        Experiment::PrivateStore => share::file(bench, libc::MAP_PRIVATE),
        Experiment::ObjectTmpfs => share::tmpfs(bench),
        Experiment::ObjectMemfd => share::memfd(bench),
        Experiment::ObjectAnonymous => share::anonymous(bench, libc::MAP_SHARED),
        Experiment::ObjectPrivate => share::anonymous(bench, libc::MAP_PRIVATE),
        Experiment::WriteSeen => share::write_seen(bench),
        Experiment::StoreSeen => share::store_seen(bench),
        Experiment::ReadStale => share::read_stale(bench),
        Experiment::MemoryRead => memory::held(bench, memory::How::Read),
        Experiment::MemoryMapped => memory::held(bench, memory::How::Mapped),
        Experiment::MemoryWritten => memory::held(bench, memory::How::Written),
        Experiment::SwapClean => swap::page_out(bench, swap::Kind::Clean),
        Experiment::SwapShared => swap::page_out(bench, swap::Kind::Shared),
        Experiment::SwapPrivate => swap::page_out(bench, swap::Kind::Private),
        Experiment::SwapAnonymous => swap::page_out(bench, swap::Kind::Anonymous),
        Experiment::WriteCall | Experiment::WriteOver => write::call(bench, MEDIUM),
        Experiment::WriteMapped => write::mapped(bench, libc::MAP_SHARED),
        Experiment::WritePrivate => write::mapped(bench, libc::MAP_PRIVATE),
        Experiment::IpcPipe => ipc::stream(bench, ipc::Stream::Pipe, MEDIUM),
        Experiment::IpcFifo => ipc::stream(bench, ipc::Stream::Fifo, MEDIUM),
        Experiment::IpcUnixStream => ipc::stream(bench, ipc::Stream::Unix, MEDIUM),
        Experiment::IpcUnixDatagram => ipc::stream(bench, ipc::Stream::Datagram, 2 * SMALL),
        Experiment::IpcTcp => ipc::stream(bench, ipc::Stream::Tcp, MEDIUM),
        Experiment::IpcVmsplice => ipc::stream(bench, ipc::Stream::Vmsplice, MEDIUM),
        Experiment::IpcSysv => ipc::queue(bench, ipc::Queue::Sysv, 2 * SMALL),
        Experiment::IpcPosix => ipc::queue(bench, ipc::Queue::Posix, 2 * SMALL),
        Experiment::IpcVmRead => ipc::read_from_process(bench, MEDIUM),
        Experiment::IpcMapped => ipc::mapped(bench, MEDIUM),
    }
}
