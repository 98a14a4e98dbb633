//! The command line.

mod compare;
mod diff;
mod generate;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::output::Format as _;
use crate::probe::copies::Wanted;
use crate::recording;
use crate::report::{format::Format, quantity::Quantity};
use crate::settle::{self, experiment::Experiment, performance::sample, plan, sabotage::Sabotage};
pub use compare::CompareArgs;
pub use diff::DiffArgs;
pub use generate::{CompletionsArgs, ManArgs};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Where a program's file data comes from: read() or mmap, copy or fault, cache or disk.
#[derive(Debug, Parser)]
#[command(
    name = "mmtrace",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command and report where its file data came from.
    Run(RunArgs),
    /// Show a recording again, or write it in other formats.
    Report(ReportArgs),
    /// Try what this kernel offers and refuses, and say what would lift each refusal.
    Doctor(DoctorArgs),
    /// Decide by measurement what read and mmap copy, and other claims about memory mapping.
    Settle(SettleArgs),
    /// Run two commands in turn, and tell which is faster and what each copies and reads.
    Compare(CompareArgs),
    /// Show how two recordings differ.
    Diff(DiffArgs),
    /// Print a script that completes mmtrace's command lines.
    Completions(CompletionsArgs),
    /// Print mmtrace's manual page, or write all pages.
    Man(ManArgs),
    /// The programs that `settle` runs.
    #[command(hide = true)]
    SettleWorkload(SettleWorkloadArgs),
    /// Take one sample of the experiment on performance.
    #[command(name = sample::SUBCOMMAND, hide = true)]
    SettleSample(sample::Args),
}

/// Arguments of `mmtrace settle`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0 if every claim that was tried was decided, 1 if not, 2 if mmtrace fails.")]
pub struct SettleArgs {
    /// Try this claim only; may be repeated. --list names them.
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    pub claim: Vec<String>,

    /// Bytes of the files that are read and written, such as 64M; by default up to 256M, as the
    /// machine and DIR have room.
    #[arg(long, value_name = "N", value_parser = plan::parse_size)]
    pub size: Option<u64>,

    /// Where the files are made: a directory on the disk in question. They have no names, and are
    /// gone with mmtrace.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub dir: PathBuf,

    /// How often each experiment is made; a prediction must hold each time. By default once, and seven
    /// times for best-performance.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repeat: Option<u32>,

    /// Before each cold sample of best-performance, drop all of the machine's clean caches, not the
    /// file's pages alone.
    #[arg(long)]
    pub drop_caches: bool,

    /// Do not show how it goes on.
    #[arg(short, long)]
    pub quiet: bool,

    /// Name the claims, and try none.
    #[arg(long)]
    pub list: bool,

    /// Write the result to FILE (FILE.json, FILE.html, FILE.md; - is JSON on standard output); may be
    /// repeated.
    #[arg(short, long = "output", value_name = "FILE", action = ArgAction::Append)]
    pub output: Vec<PathBuf>,

    /// The language of the claims' words that comes first: the article's is Chinese.
    #[arg(long, value_enum, default_value_t, value_name = "LANGUAGE")]
    pub lang: Lang,

    /// Spoil something: for tests of what must not be confirmed then.
    #[arg(long, value_enum, value_name = "KIND", hide = true)]
    pub sabotage: Option<Sabotage>,
}

/// A language of the claims' words.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
}

impl From<Lang> for settle::report::Language {
    fn from(lang: Lang) -> Self {
        match lang {
            Lang::En => Self::English,
            Lang::Zh => Self::Chinese,
        }
    }
}

/// Arguments of `mmtrace settle-workload`.
#[derive(Args, Debug)]
pub struct SettleWorkloadArgs {
    /// Make one experiment in this process.
    #[arg(long, hide = true)]
    pub step: Option<String>,

    /// Bytes of the files.
    #[arg(long, value_name = "N", value_parser = plan::parse_size, default_value = "16M")]
    pub size: u64,

    /// Where the files are made.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,

    /// How often.
    #[arg(long, value_name = "K", default_value_t = 1)]
    pub repeat: u32,

    /// The descriptor that the reports go to.
    #[arg(long, default_value_t = 1)]
    pub report: i32,

    /// The process to end with.
    #[arg(long)]
    pub parent: Option<u32>,

    /// Spoil something.
    #[arg(long, value_enum, value_name = "KIND")]
    pub sabotage: Option<Sabotage>,

    /// The experiments.
    #[arg(value_enum, required = true)]
    pub experiments: Vec<Experiment>,
}

/// Arguments of `mmtrace doctor`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0 if `mmtrace run` can measure at least read against mmap here, 1 if not.")]
pub struct DoctorArgs {
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// How the kernel is observed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Backend {
    /// The best one that this kernel lets mmtrace have.
    #[default]
    Auto,
    /// fentry/fexit programs, which need BTF and ftrace.
    Fentry,
    /// Kernel probes.
    Kprobe,
    /// Tracepoints alone, for kernels that refuse the other two.
    Tracepoint,
}

impl Backend {
    /// The one asked for; None for the best that can be had.
    #[must_use]
    pub const fn wanted(self) -> Option<recording::Backend> {
        match self {
            Self::Auto => None,
            Self::Fentry => Some(recording::Backend::Fentry),
            Self::Kprobe => Some(recording::Backend::Kprobe),
            Self::Tracepoint => Some(recording::Backend::Tracepoint),
        }
    }
}

/// How copies are found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Copies {
    /// As exact while that costs no more than the budget, else as sampled; as returns where this
    /// kernel does not allow it.
    #[default]
    Auto,
    /// Every copy, by hardware breakpoints on the kernel's copy routines.
    Exact,
    /// As exact, for a part of the time: the rest is estimated.
    Sampled,
    /// By what calls return: the copies themselves are not watched.
    Returns,
}

impl From<Copies> for Wanted {
    fn from(copies: Copies) -> Self {
        match copies {
            Copies::Auto => Self::Auto,
            Copies::Exact => Self::Exact,
            Copies::Sampled => Self::Sampled,
            Copies::Returns => Self::Returns,
        }
    }
}

/// [`probe::sample::SAMPLE_HZ`](crate::probe::sample::SAMPLE_HZ), as clap takes it.
const DEFAULT_HZ: &str = "997";

/// A percentage above 0.
fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("it is a number above 0 and up to 100".into()),
    }
}

/// Arguments of `mmtrace run`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: the command's own; 127 if it is not found, 126 if it cannot be executed, 125 if \
mmtrace fails before it starts. When a signal ends the command, it ends mmtrace too.")]
pub struct RunArgs {
    /// Write the recording to FILE, in the format of its suffix: .json, .html (a page), .svg (a flame graph), .folded,
    /// .speedscope.json, .pb.gz (pprof), .trace.json (Perfetto); - is JSON on standard output; may be
    /// repeated.
    #[arg(short, long = "output", value_name = "FILE", action = ArgAction::Append)]
    pub output: Vec<PathBuf>,

    /// What flame graphs and folded stacks show; by default the first of these that there is any of.
    #[arg(long, value_enum, value_name = "MEASURE")]
    pub measure: Option<Quantity>,

    /// Take stacks of where the work is caused. Done anyway if -o names a format that shows them.
    #[arg(long)]
    pub stacks: bool,

    /// Record which parts of the files were used when. Done anyway if -o names a page (.html), which
    /// shows that.
    #[arg(long)]
    pub heat_maps: bool,

    /// Follow what becomes of what is read ahead: how much of it is never used.
    #[arg(long)]
    pub readahead_use: bool,

    /// How to observe the kernel.
    #[arg(long, value_enum, default_value_t, value_name = "BACKEND")]
    pub backend: Backend,

    /// How to find what was copied.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub copies: Copies,

    /// What finding copies may cost, in percent of the command's processor time (auto, sampled).
    #[arg(long, default_value_t = 5.0, value_parser = percent, value_name = "PERCENT")]
    pub copy_budget: f64,

    /// Run the command as this user; under sudo, the default is the user who called sudo.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Go on until everything that the command started has ended.
    #[arg(long)]
    pub wait_descendants: bool,

    /// Watch single bytes of mmtrace's own memory before the command starts, and show who stores to
    /// them: the kernel's copy routine for a read, nobody for a mapped page.
    #[arg(long)]
    pub witness: bool,

    /// Sample what the kernel does for the command so many times a second on each CPU, and show how
    /// much of it is copying: a statistic.
    #[arg(
        long,
        value_name = "HZ",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = DEFAULT_HZ,
        value_parser = clap::value_parser!(u32).range(1..=100_000),
    )]
    pub sample_kernel: Option<u32>,

    /// Print diagnostics, the kernel programs' too; twice for more.
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Print no report and no progress; errors are still printed.
    #[arg(short, long)]
    pub quiet: bool,

    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl RunArgs {
    /// Whether stacks were asked for, or are needed for a file that was.
    #[must_use]
    pub fn wants_stacks(&self) -> bool {
        let mut formats = self.output.iter().filter_map(|path| Format::of_path(path));
        self.stacks || formats.any(Format::shows_stacks)
    }

    /// Whether heat maps were asked for, or are needed for a file that was.
    #[must_use]
    pub fn wants_heat_maps(&self) -> bool {
        let mut formats = self.output.iter().filter_map(|path| Format::of_path(path));
        self.heat_maps || formats.any(Format::shows_heat_maps)
    }
}

/// Arguments of `mmtrace report`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0, or 2 if the recording cannot be read, or not shown as asked.")]
pub struct ReportArgs {
    /// The recording, as `mmtrace run -o FILE.json` wrote it; - is standard input.
    #[arg(value_name = "RECORDING")]
    pub recording: PathBuf,

    /// Write the recording to FILE, in the format of its suffix: .json, .html (a page), .svg (a flame graph), .folded,
    /// .speedscope.json, .pb.gz (pprof), .trace.json (Perfetto); - is standard output; may be repeated.
    /// Without, the table is shown.
    #[arg(short, long = "output", value_name = "FILE", action = ArgAction::Append)]
    pub output: Vec<PathBuf>,

    /// The format of standard output (json, if -o - is given without), and of files with an unknown
    /// suffix.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,

    /// What flame graphs and folded stacks show; by default the first of these that there is any of.
    #[arg(long, value_enum, value_name = "MEASURE")]
    pub measure: Option<Quantity>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::sample::SAMPLE_HZ;
    use clap::CommandFactory;

    fn run(arguments: &[&str]) -> Result<RunArgs, clap::Error> {
        match Cli::try_parse_from([&["mmtrace", "run"], arguments].concat())?.command {
            Command::Run(run) => Ok(run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_after_the_command_are_the_commands() {
        for line in [
            &["-q", "--", "rg", "-o", "x", "--", "-q"][..],
            &["-q", "rg", "-o", "x", "--", "-q"],
        ] {
            let run = run(line).unwrap();
            assert!(run.quiet && run.output.is_empty());
            assert_eq!(run.command, ["rg", "-o", "x", "--", "-q"]);
        }
    }

    #[test]
    fn several_outputs_and_a_backend() {
        let run = run(&[
            "-o",
            "a.json",
            "-ob.json",
            "--backend",
            "kprobe",
            "-vv",
            "--",
            "true",
        ])
        .unwrap();
        assert_eq!(
            run.output,
            [PathBuf::from("a.json"), PathBuf::from("b.json")]
        );
        assert_eq!((run.backend, run.verbose), (Backend::Kprobe, 2));
    }

    #[test]
    fn sampling_takes_its_rate_after_an_equals_sign_only() {
        let rate = |arguments: &[&str]| run(arguments).unwrap().sample_kernel;
        assert_eq!(rate(&["true"]), None);
        assert_eq!(rate(&["--sample-kernel", "true"]), Some(SAMPLE_HZ));
        assert_eq!(rate(&["--sample-kernel=97", "true"]), Some(97));
        for line in ["--sample-kernel=0", "--sample-kernel=many"] {
            assert!(run(&[line, "true"]).is_err(), "{line}");
        }
    }

    #[test]
    fn stacks_are_taken_for_what_shows_them() {
        let wants = |arguments: &[&str]| run(arguments).unwrap().wants_stacks();
        assert!(!wants(&["true"]));
        assert!(!wants(&["-o", "a.json", "-o-", "-oa.trace.json", "true"]));
        assert!(wants(&["--stacks", "true"]));
        for name in ["a.svg", "a.folded", "a.speedscope.json", "a.pb.gz"] {
            assert!(wants(&["-o", "a.json", "-o", name, "true"]), "{name}");
        }
    }

    #[test]
    fn heat_maps_are_made_for_what_shows_them() {
        let wants = |arguments: &[&str]| run(arguments).unwrap().wants_heat_maps();
        assert!(!wants(&["true"]));
        assert!(!wants(&["-o", "a.json", "-o", "a.svg", "--stacks", "true"]));
        assert!(wants(&["--heat-maps", "true"]));
        assert!(wants(&["-o", "a.json", "-o", "a.html", "true"]));
    }

    #[test]
    fn no_command_and_unknown_options_are_errors() {
        for line in [
            &[][..],
            &["--"],
            &["--bakend", "auto", "true"],
            &["--backend", "ptrace", "true"],
            &["--copy-budget", "0", "true"],
            &["--copy-budget", "some", "true"],
        ] {
            assert!(run(line).is_err(), "{line:?}");
        }
    }
}
