//! Who is compared, and how each is made to watch a loop.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::Btf;
use clap::ValueEnum;
use serde::Deserialize;

use crate::empty::{self, Hook};
use crate::workload::{self, Loop, Sample};

/// Families of hooks: mmtrace's backends, and what bpftrace's programs hook to see the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    Fentry,
    Kprobe,
    Tracepoint,
}

impl Family {
    pub(crate) const ALL: [Self; 3] = [Self::Fentry, Self::Kprobe, Self::Tracepoint];

    /// The backend's name on mmtrace's command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// The bpftrace program that sums what the loop reads, or counts its faults.
    pub(crate) const fn bpftrace_program(self, kind: Loop, figures: Figures) -> &'static str {
        match figures {
            Figures::One => self.one_sum(kind),
            Figures::All => self.all_figures(kind),
        }
    }

    /// For each process and file what mmtrace tells of it: of reads how many, the bytes asked for
    /// and returned, and the time; of faults how many, the pages mapped, and the time. (The file of
    /// a fault, and what it maps, no tracepoint tells.)
    const fn all_figures(self, kind: Loop) -> &'static str {
        match (self, kind) {
            (Self::Fentry, Loop::Faults) => {
                "kfunc:handle_mm_fault { @start[tid] = nsecs; \
                 @file[tid] = args->vma->vm_file->f_inode->i_ino } \
                 kfunc:set_pte_range { @pages[pid, @file[tid]] = sum(args->nr) } \
                 kretfunc:handle_mm_fault { $file = @file[tid]; @faults[pid, $file] = count(); \
                 @time[pid, $file] = sum(nsecs - @start[tid]) }"
            }
            (Self::Kprobe, Loop::Faults) => {
                "kprobe:handle_mm_fault { @start[tid] = nsecs; \
                 @file[tid] = ((struct vm_area_struct *)arg0)->vm_file->f_inode->i_ino } \
                 kprobe:set_pte_range { @pages[pid, @file[tid]] = sum(arg3) } \
                 kretprobe:handle_mm_fault { $file = @file[tid]; @faults[pid, $file] = count(); \
                 @time[pid, $file] = sum(nsecs - @start[tid]) }"
            }
            (Self::Tracepoint, Loop::Faults) => {
                "tracepoint:exceptions:page_fault_user { @start[tid] = nsecs } \
                 software:page-faults:1 { @faults[pid] = count(); \
                 @time[pid] = sum(nsecs - @start[tid]) }"
            }
            (Self::Fentry, _) => {
                "kfunc:filemap_read { @start[tid] = nsecs; @asked[tid] = args->iter->count } \
                 kretfunc:filemap_read { $file = args->iocb->ki_filp->f_inode->i_ino; \
                 @calls[pid, $file] = count(); @requested[pid, $file] = sum(@asked[tid]); \
                 @returned[pid, $file] = sum(retval); \
                 @time[pid, $file] = sum(nsecs - @start[tid]) }"
            }
            (Self::Kprobe, _) => {
                "kprobe:filemap_read { @start[tid] = nsecs; \
                 @asked[tid] = ((struct iov_iter *)arg1)->count; \
                 @file[tid] = ((struct kiocb *)arg0)->ki_filp->f_inode->i_ino } \
                 kretprobe:filemap_read { $file = @file[tid]; @calls[pid, $file] = count(); \
                 @requested[pid, $file] = sum(@asked[tid]); @returned[pid, $file] = sum(retval); \
                 @time[pid, $file] = sum(nsecs - @start[tid]) }"
            }
            (Self::Tracepoint, _) => {
                "tracepoint:syscalls:sys_enter_pread64 { @start[tid] = nsecs; \
                 @asked[tid] = args->count; @file[tid] = args->fd } \
                 tracepoint:syscalls:sys_exit_pread64 { $file = @file[tid]; \
                 @calls[pid, $file] = count(); @requested[pid, $file] = sum(@asked[tid]); \
                 @returned[pid, $file] = sum(args->ret); \
                 @time[pid, $file] = sum(nsecs - @start[tid]) }"
            }
        }
    }

    /// One sum for each process.
    const fn one_sum(self, kind: Loop) -> &'static str {
        match (self, kind) {
            (Self::Fentry, Loop::Faults) => "kfunc:handle_mm_fault { @[pid] = count() }",
            (Self::Kprobe, Loop::Faults) => "kprobe:handle_mm_fault { @[pid] = count() }",
            (Self::Tracepoint, Loop::Faults) => "software:page-faults:1 { @[pid] = count() }",
            (Self::Fentry, _) => "kretfunc:filemap_read { @[pid] = sum(retval) }",
            (Self::Kprobe, _) => "kretprobe:filemap_read { @[pid] = sum(retval) }",
            (Self::Tracepoint, _) => {
                "tracepoint:syscalls:sys_exit_pread64 { @[pid] = sum(args->ret) }"
            }
        }
    }
}

/// What a bpftrace program is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figures {
    /// The bytes returned, or the number of faults, for each process.
    One,
    /// All that mmtrace tells of them, for each process and file.
    All,
}

impl Figures {
    pub(crate) const BOTH: [Self; 2] = [Self::One, Self::All];
}

/// How mmtrace finds what is copied, where it watches the kernel's copy routines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copies {
    Exact,
    Sampled,
    Auto,
}

impl Copies {
    pub(crate) const ALL: [Self; 3] = [Self::Exact, Self::Sampled, Self::Auto];

    /// The mode's name on mmtrace's command line.
    const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Sampled => "sampled",
            Self::Auto => "auto",
        }
    }
}

/// What a loop runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    Alone,
    Empty(Family),
    /// With copies by what calls return.
    Mmtrace(Family),
    /// The same, and with stacks of where the work is caused.
    Stacks(Family),
    /// By the best backend, with copies by the kernel's routines.
    Copying(Copies),
    Bpftrace(Family, Figures),
    PerfTrace,
    Strace,
}

impl Contestant {
    /// Everyone, in the tables' order: if that is wanted of one family only, who is of it, and the loop
    /// alone.
    pub(crate) fn all(family: Option<Family>) -> Vec<Self> {
        let mut all = vec![Self::Alone];
        for family in Family::ALL {
            all.extend([
                Self::Empty(family),
                Self::Mmtrace(family),
                Self::Stacks(family),
            ]);
        }
        all.extend(Copies::ALL.map(Self::Copying));
        for figures in Figures::BOTH {
            all.extend(Family::ALL.map(|family| Self::Bpftrace(family, figures)));
        }
        all.extend([Self::PerfTrace, Self::Strace]);
        if family.is_some() {
            all.retain(|each| *each == Self::Alone || each.family() == family);
        }
        all
    }

    /// Whose hooks it uses, if they are of one family.
    const fn family(self) -> Option<Family> {
        match self {
            Self::Empty(family)
            | Self::Mmtrace(family)
            | Self::Stacks(family)
            | Self::Bpftrace(family, _) => Some(family),
            Self::Alone | Self::Copying(_) | Self::PerfTrace | Self::Strace => None,
        }
    }

    /// How many of a hundred chunks it runs: those that stop the target at each call run fewer.
    const fn percent_of_chunks(self) -> usize {
        match self {
            Self::PerfTrace | Self::Strace => 10,
            _ => 100,
        }
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => write!(f, "alone"),
            Self::Empty(family) => write!(f, "empty programs, {}", family.name()),
            Self::Mmtrace(family) => write!(f, "mmtrace, {}", family.name()),
            Self::Stacks(family) => write!(f, "mmtrace, {}, with stacks", family.name()),
            Self::Copying(copies) => write!(f, "mmtrace, copies {}", copies.name()),
            Self::Bpftrace(family, figures) => {
                let hooks = match family {
                    Family::Fentry => "kfunc",
                    _ => family.name(),
                };
                let figures = match figures {
                    Figures::One => "one sum",
                    Figures::All => "all figures",
                };
                write!(f, "bpftrace, {hooks}, {figures}")
            }
            Self::PerfTrace => write!(f, "perf trace -s"),
            Self::Strace => write!(f, "strace -f -c"),
        }
    }
}

/// Of a recording, how the command was watched.
#[derive(Deserialize)]
struct Probes {
    copies: String,
    hooks: Vec<Hook>,
}

/// Everything that the contestants need.
pub(crate) struct Arena {
    mmtrace: PathBuf,
    program: PathBuf,
    /// The file that the loops read.
    file: PathBuf,
    /// Where a loop writes its sample.
    sample: PathBuf,
    types: Btf,
}

impl Arena {
    /// What the loops need is made in `dir`.
    pub(crate) fn new(mmtrace: &Path, dir: &Path) -> Result<Self> {
        Ok(Self {
            mmtrace: mmtrace.to_owned(),
            program: std::env::current_exe()?,
            file: dir.join("mmtrace-bench.data"),
            sample: dir.join("mmtrace-bench.sample"),
            types: Btf::from_sys_fs().context("cannot read the kernel's types")?,
        })
    }

    /// Writes the loops' file anew: its pages may have been dropped from the cache, and read again
    /// as larger folios, whose faults cost something else.
    pub(crate) fn write_file(&self) -> Result<()> {
        let in_file = || format!("cannot write {}", self.file.display());
        // Truncated, as a page that is cached keeps its folio.
        let mut file = File::create(&self.file).with_context(in_file)?;
        let page = [b'm'; workload::PAGE_BYTES];
        for _ in 0..workload::FILE_BYTES / page.len() {
            file.write_all(&page).with_context(in_file)?;
        }
        file.sync_all().with_context(in_file)
    }

    /// Runs a loop under a contestant. The error is why it cannot be had here.
    pub(crate) fn run(
        &self,
        contestant: Contestant,
        kind: Loop,
        chunks: usize,
        programs: bool,
    ) -> Result<Sample> {
        let chunks = (chunks * contestant.percent_of_chunks()).div_ceil(100);
        let workload = self.workload(kind, chunks, programs);
        match contestant {
            Contestant::Alone => complete(&mut self.under(&[], &workload)).map(drop)?,
            Contestant::Empty(family) => {
                let hooks = self.hooks(family)?;
                let attached = empty::attach(&hooks, &self.types)?;
                complete(&mut self.under(&[], &workload))?;
                drop(attached);
            }
            Contestant::Mmtrace(family) => {
                let options = ["--backend", family.name(), "--copies", "returns"];
                complete(&mut self.under_mmtrace(&options, &workload)?)?;
            }
            Contestant::Stacks(family) => {
                let backend = ["--backend", family.name(), "--copies", "returns"];
                let options = [&backend[..], &["--stacks"]].concat();
                complete(&mut self.under_mmtrace(&options, &workload)?)?;
            }
            Contestant::Copying(copies) => {
                ensure!(self.watches_copies()?, "this kernel refuses breakpoints");
                let options = ["--copies", copies.name()];
                complete(&mut self.under_mmtrace(&options, &workload)?)?;
            }
            Contestant::Bpftrace(family, figures) => {
                let program = family.bpftrace_program(kind, figures);
                let mut bpftrace = Command::new("bpftrace");
                bpftrace.args(["-e", program, "-c", &workload.join(" ")]);
                let output = complete(&mut bpftrace)?;
                ensure!(output.contains("]: "), "its program saw nothing");
            }
            Contestant::PerfTrace => {
                let words: &[&str] = match kind {
                    Loop::Faults => &["perf", "trace", "-s", "-F", "all", "-o", "/dev/null"],
                    _ => &["perf", "trace", "-s", "-o", "/dev/null"],
                };
                complete(&mut self.under(words, &workload))?;
            }
            Contestant::Strace => {
                let words = ["strace", "-f", "-c", "-o", "/dev/null"];
                complete(&mut self.under(&words, &workload))?;
            }
        }
        let sample = fs::read(&self.sample).context("the loop wrote no sample")?;
        fs::remove_file(&self.sample)?;
        Ok(serde_json::from_slice(&sample)?)
    }

    /// The hooks that mmtrace attaches under a backend.
    fn hooks(&self, family: Family) -> Result<Vec<Hook>> {
        let options = ["--backend", family.name(), "--copies", "returns"];
        Ok(self.probes(&options)?.hooks)
    }

    /// Whether the kernel's copy routines can be watched here.
    fn watches_copies(&self) -> Result<bool> {
        Ok(self.probes(&[])?.copies != "returns")
    }

    /// How mmtrace watches a command with these options: its recording says so.
    fn probes(&self, options: &[&str]) -> Result<Probes> {
        #[derive(Deserialize)]
        struct Recording {
            probes: Probes,
        }
        let mut mmtrace = Command::new(&self.mmtrace);
        mmtrace.args(["run", "-q", "-o", "-"]).args(options);
        let json = complete(mmtrace.args(["--", "true"]))?;
        let recording: Recording = serde_json::from_str(&json).context("odd recording")?;
        Ok(recording.probes)
    }

    /// The command line of a loop.
    fn workload(&self, kind: Loop, chunks: usize, programs: bool) -> Vec<String> {
        let kind = match kind {
            Loop::Read4k => "read4k",
            Loop::Read64k => "read64k",
            Loop::Faults => "faults",
        };
        let mut words = vec![self.program.display().to_string(), "loop".to_owned()];
        for (option, value) in [
            ("--kind", kind.to_owned()),
            ("--chunks", chunks.to_string()),
            ("--file", self.file.display().to_string()),
            ("--out", self.sample.display().to_string()),
        ] {
            words.extend([option.to_owned(), value]);
        }
        if programs {
            words.push("--programs".to_owned());
        }
        words
    }

    /// The workload's command, run by mmtrace with these options.
    fn under_mmtrace(&self, options: &[&str], workload: &[String]) -> Result<Command> {
        let mmtrace = self.mmtrace.to_str().context("mmtrace's path is odd")?;
        let words = [&[mmtrace, "run", "-q"], options, &["--"]].concat();
        Ok(self.under(&words, workload))
    }

    /// The workload's command with other words before it.
    fn under(&self, tracer: &[&str], workload: &[String]) -> Command {
        let mut words = tracer
            .iter()
            .copied()
            .chain(workload.iter().map(String::as_str));
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // What cannot be removed was never made.
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_file(&self.sample);
    }
}

/// Runs a command to its end and returns its standard output; why it failed is in what it said.
fn complete(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| anyhow!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(anyhow!(
        "{}",
        reason(&stderr).unwrap_or("failed without a word")
    ))
}

/// The line that says why: the last one of an error, else the last one.
fn reason(stderr: &str) -> Option<&str> {
    let lines = || {
        stderr
            .lines()
            .rev()
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    lines()
        // bpftrace says that of every machine where its limit cannot be raised, and goes on.
        .filter(|line| !line.contains("RLIMIT_MEMLOCK"))
        .find(|line| line.to_lowercase().contains("error"))
        .or_else(|| lines().next())
}
