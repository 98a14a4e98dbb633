//! What a case is: what it needs, what it runs, what must come out.

use std::{
    any::Any,
    cell::RefCell,
    ffi::{OsStr, OsString},
    fs,
    io::Read as _,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use memmap2::Mmap;

use crate::{
    check::Check,
    files,
    truth::{End, Truth},
    workload::LOCKED,
};

/// Where cases run, and how large they are.
#[derive(Clone)]
pub(crate) struct Site {
    /// A directory for this case alone, on the file system under test.
    pub(crate) directory: PathBuf,
    /// Whether the machine is slow.
    pub(crate) small: bool,
    /// Disks that may be written to.
    pub(crate) scratch_disks: Vec<PathBuf>,
    /// This program.
    pub(crate) myself: PathBuf,
    /// mmtrace's binary.
    pub(crate) mmtrace: PathBuf,
    /// What keeps files in memory.
    pub(crate) kept: Rc<RefCell<Vec<Mmap>>>,
    /// The backend under test.
    pub(crate) backend: String,
}

impl Site {
    /// The prime size of files that are read in whole.
    pub(crate) fn size_bytes(&self) -> u64 {
        if self.small { 2_000_003 } else { 20_000_003 }
    }

    /// A path in the case's directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.join(name)
    }

    /// A file of this size in the case's directory, without order in its bytes.
    pub(crate) fn data(&self, name: impl AsRef<Path>, size_bytes: u64) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        files::make_random(&path, size_bytes)?;
        Ok(path)
    }

    /// As [`Site::data`], cold or warm.
    pub(crate) fn data_in(&self, state: State, size_bytes: u64) -> anyhow::Result<PathBuf> {
        let path = self.data("data", size_bytes)?;
        self.bring(state, &path)?;
        Ok(path)
    }

    /// Puts a file into this state, and makes sure that it is. A warm one stays in memory for as
    /// long as this site is there.
    pub(crate) fn bring(&self, state: State, file: &Path) -> anyhow::Result<()> {
        match state {
            State::Cold => files::make_cold(file)?,
            State::Warm => self.kept.borrow_mut().push(files::keep_warm(file)?),
        }
        Ok(())
    }

    /// `size_bytes` as the file system reads it from the disk: in whole blocks.
    pub(crate) fn on_disk_bytes(&self, size_bytes: u64) -> anyhow::Result<u64> {
        Ok(size_bytes.next_multiple_of(files::block_size(&self.directory)?))
    }

    /// The command that runs a workload that uses up the memory: the program itself stays there.
    /// It is rehearsed on a small file, as [`rehearse`] says.
    pub(crate) fn hungry_workload(
        &self,
        name: &str,
        file: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Vec<OsString>> {
        let command = |file: &Path| {
            let mut command = self.workload(LOCKED, &[&name, &file]);
            command.extend(arguments.iter().map(OsString::from));
            command
        };
        rehearse(&command(&self.data("small", 10_007)?))?;
        Ok(command(file))
    }

    /// The command that runs a workload.
    pub(crate) fn workload(&self, name: &str, arguments: &[&dyn AsRef<OsStr>]) -> Vec<OsString> {
        let mut command: Vec<OsString> =
            vec![self.myself.clone().into(), "workload".into(), name.into()];
        command.extend(arguments.iter().map(|word| word.as_ref().to_owned()));
        command
    }
}

/// Whether a file's data is in the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// None of it.
    Cold,
    /// All of it.
    Warm,
}

impl State {
    /// Both.
    pub(crate) const BOTH: [Self; 2] = [Self::Cold, Self::Warm];

    /// As in cases' names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }

    /// What a case with such a file needs.
    pub(crate) fn needs(self) -> &'static [Need] {
        match self {
            Self::Cold => &[Need::Cold],
            Self::Warm => &[],
        }
    }

    /// What is read from the disk of something that takes `bytes` there.
    pub(crate) fn disk_bytes(self, bytes: u64) -> u64 {
        match self {
            Self::Cold => bytes,
            Self::Warm => 0,
        }
    }
}

/// A part of the suite that a machine may leave to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Part {
    /// What takes a slow machine long, and is much the same on every kernel.
    Slow,
    /// What is the same on every file system.
    AnyFileSystem,
    /// All of the article's claims.
    Claims,
    /// What spoils them.
    Spoilt,
}

impl Part {
    /// Why a case that belongs to it is skipped.
    pub(crate) fn elsewhere(self) -> &'static str {
        match self {
            Self::Slow => "this machine is slow: tried natively and on other kernels",
            Self::AnyFileSystem => "the same on every file system: tried on another",
            Self::Claims => "this machine is slow: claims are settled natively and in others",
            Self::Spoilt => "this machine is slow: claims are spoilt natively and in another",
        }
    }
}

/// What a case cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Need {
    /// The first of the backends that are tried: what the case is about is the same under each.
    FirstBackend,
    /// That this part of the suite is not left to other machines.
    Part(Part),
    /// A kernel that takes breakpoints on its code.
    Copies,
    /// A kernel on which watching copies leaves debug registers to others.
    SpareRegister,
    /// A processor that may be taken away.
    Hotplug,
    /// A file system that reads from a disk what was put out of the page cache.
    Cold,
    /// A file system that takes `O_DIRECT`.
    DirectIo,
    /// A program.
    Program(&'static str),
    /// A program, and strace to know what it reads.
    Traced(&'static str),
    /// A python3 that can tell names of its functions.
    PythonPerf,
    /// A disk that nothing uses, to be read.
    SpareDisk,
    /// Disks that may be written to, so many: they are the case's own until it has run.
    ScratchDisks(usize),
    /// A machine that is thrown away.
    Disposable,
    /// Mounting.
    Mounts,
    /// A control group that limits reads from the disk under test.
    IoLimit,
    /// Transparent huge pages.
    HugePages,
    /// Huge pages of hugetlbfs, which may be set aside.
    HugetlbPages,
    /// `madvise(MADV_POPULATE_READ)`.
    PopulateRead,
    /// A file system that copies when `cp` asks for a copy, and does not share the data.
    CopiesData,
    /// A kernel that takes a 64-bit program's calls through the 32-bit interface.
    Compat,
    /// aio.
    Aio,
    /// io_uring.
    Uring,
    /// Memory small enough for a file larger than it.
    SmallMemory,
    /// A machine on which timing many samples takes no long while.
    Fast,
}

/// What a case needs that is not about a file system.
pub(crate) const ANY_FILE_SYSTEM: Need = Need::Part(Part::AnyFileSystem);

/// What the command's standard output must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stdout {
    /// These bytes.
    Exactly(Vec<u8>),
    /// What is in this file.
    SameAs(PathBuf),
    /// A workload's truth, and nothing else.
    Truth,
}

/// A case that is ready to run.
pub(crate) struct Scene {
    /// The command.
    pub(crate) command: Vec<OsString>,
    /// How it must end.
    pub(crate) end: End,
    /// What it must print.
    pub(crate) stdout: Stdout,
    /// mmtrace starts it itself, without the witness in between.
    pub(crate) alone: bool,
    /// mmtrace waits for everything that it started.
    pub(crate) wait_descendants: bool,
    /// How copies must have been found, if not in the best way that there is.
    pub(crate) copies: Option<&'static str>,
    /// More options for mmtrace.
    pub(crate) options: Vec<&'static str>,
    /// Another copy of mmtrace than the one under test.
    pub(crate) tracer: Option<PathBuf>,
    /// The kernel charges disk reads that this backend does not see: the audit must say so.
    pub(crate) unseen_disk_reads: bool,
    /// It shares its run with no other case.
    pub(crate) unshared: bool,
    /// It shares its run with cases of this group only.
    pub(crate) group: &'static str,
    /// What has to be there until it has run, and is taken down when dropped.
    pub(crate) kept: Option<Box<dyn Any>>,
    /// What the recording must say was lost, and how much; nothing else may be.
    pub(crate) lost: Vec<(&'static str, RangeInclusive<u64>)>,
    /// What must come out.
    pub(crate) check: CheckFn,
}

/// What must come out, given what the workload says of itself (all zero for other programs).
pub(crate) type CheckFn = Box<dyn Fn(&mut Check<'_>, &Truth) -> anyhow::Result<()>>;

impl Scene {
    /// A scene with a program that ends by itself and prints nothing.
    pub(crate) fn new(
        command: Vec<OsString>,
        check: impl Fn(&mut Check<'_>, &Truth) -> anyhow::Result<()> + 'static,
    ) -> Self {
        Self {
            command,
            end: End::Exit(0),
            stdout: Stdout::Exactly(Vec::new()),
            alone: false,
            wait_descendants: false,
            copies: None,
            options: Vec::new(),
            tracer: None,
            unseen_disk_reads: false,
            unshared: false,
            group: "",
            kept: None,
            lost: Vec::new(),
            check: Box::new(check),
        }
    }

    /// A scene with a workload, which prints its truth.
    pub(crate) fn workload(
        command: Vec<OsString>,
        check: impl Fn(&mut Check<'_>, &Truth) -> anyhow::Result<()> + 'static,
    ) -> Self {
        Self::new(command, check).printing(Stdout::Truth)
    }

    /// With this output.
    pub(crate) fn printing(self, stdout: Stdout) -> Self {
        Self { stdout, ..self }
    }

    /// Ending so.
    pub(crate) fn ending(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// With disk reads that this backend does not see.
    pub(crate) fn with_unseen_disk_reads(self) -> Self {
        Self {
            unseen_disk_reads: true,
            ..self
        }
    }

    /// In a run of its own, which loses so much of this.
    pub(crate) fn losing(self, what: &'static str, count: u64) -> Self {
        Self {
            lost: vec![(what, count..=count)],
            ..self.unshared()
        }
    }

    /// In a run of its own, which may lose this.
    pub(crate) fn perhaps_losing(self, what: &'static str) -> Self {
        Self {
            lost: [&self.lost[..], &[(what, 0..=u64::MAX)]].concat(),
            ..self.unshared()
        }
    }

    /// In a run of its own.
    pub(crate) fn unshared(self) -> Self {
        Self {
            unshared: true,
            ..self
        }
    }

    /// In a run with cases of this group only.
    pub(crate) fn in_group(self, group: &'static str) -> Self {
        Self { group, ..self }
    }

    /// With this there until its run has ended.
    pub(crate) fn keeping(self, kept: impl Any) -> Self {
        Self {
            kept: Some(Box::new(kept)),
            ..self
        }
    }

    /// In a run of its own, with these options to mmtrace.
    pub(crate) fn with_options(self, options: &[&'static str]) -> Self {
        self.sharing_options(options).unshared()
    }

    /// With these options to mmtrace, in a run with cases that have the same.
    pub(crate) fn sharing_options(self, options: &[&'static str]) -> Self {
        Self {
            options: options.to_vec(),
            ..self
        }
    }

    /// With copies found so.
    pub(crate) fn with_copies(self, copies: &'static str) -> Self {
        Self {
            copies: Some(copies),
            ..self
        }
    }

    /// In a run of its own, traced by this copy of mmtrace.
    pub(crate) fn traced_by(self, copy: PathBuf) -> Self {
        Self {
            tracer: Some(copy),
            ..self.unshared()
        }
    }

    /// Started by mmtrace itself.
    pub(crate) fn alone(self) -> Self {
        Self {
            alone: true,
            unshared: true,
            ..self
        }
    }

    /// Traced until everything it started has ended.
    pub(crate) fn with_descendants(self) -> Self {
        Self {
            wait_descendants: true,
            ..self.alone()
        }
    }
}

/// Makes the files and the command.
type Prepare = Box<dyn Fn(&Site) -> anyhow::Result<Scene>>;

/// A case.
pub(crate) struct Case {
    /// Its name: the family, a slash, what it tries.
    pub(crate) name: String,
    /// What it cannot do without.
    pub(crate) needs: Vec<Need>,
    /// Makes the files and the command.
    pub(crate) prepare: Prepare,
}

/// A case.
pub(crate) fn case(
    name: impl Into<String>,
    needs: &[Need],
    prepare: impl Fn(&Site) -> anyhow::Result<Scene> + 'static,
) -> Case {
    Case {
        name: name.into(),
        needs: needs.to_vec(),
        prepare: Box::new(prepare),
    }
}

/// A command's words.
pub(crate) fn words(words: &[&dyn AsRef<OsStr>]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

/// Runs a command that nobody traces: what it prints.
///
/// A case does this with a program of the system before it puts its own files out of the page
/// cache, so that the program's are in it: on a network file system, such as a virtual machine's
/// root, the kernel charges a process for reads that go to no disk.
pub(crate) fn rehearse(command: &[OsString]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(&command[0])
        .args(&command[1..])
        .output()
        .with_context(|| format!("running {:?}", command[0]))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// Where a program is, in `PATH` or the administrator's directories that a user's lacks; `None` when
/// it is not installed.
///
/// Version managers' shims are passed over: they start other programs before the one meant.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = |directory: PathBuf| {
        let program = directory.join(name);
        let mut head = [0; 4];
        fs::File::open(&program).ok()?.read_exact(&mut head).ok()?;
        (head == *b"\x7fELF").then_some(program)
    };
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .find_map(found)
}
