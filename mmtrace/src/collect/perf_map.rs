//! Names that programs give to code that they make at run time: the file `/tmp/perf-PID.map`, which
//! has the address, the size and the name of each function. `perf` reads the same.
//!
//! The file is the traced program's, and may have been made to do harm.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fs::{self, File},
    io::Read as _,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// No more than this is read of a file.
const LARGEST_BYTES: u64 = 64 << 20;
/// No more than this is taken of a name.
const LONGEST_NAME_BYTES: usize = 1_024;
/// No more mount namespaces than this are kept.
const MOST_NAMESPACES: usize = 64;
/// No further up than this it is looked among who made a process.
const MOST_PARENTS: usize = 8;
/// File systems round their times by at most so much.
const ROUNDING: Duration = Duration::from_secs(1);

/// Where a process's file would be, and whose.
#[derive(Clone)]
struct Origin {
    /// The process as it sees itself, which the file is named after.
    pid: u32,
    /// The same, as mmtrace sees it.
    pid_outside: u32,
    /// Its effective user.
    user: u32,
    /// Its mount namespace, if that is not mmtrace's own.
    mounts: Option<Arc<File>>,
    /// Its root directory there, by name: held open it would keep people from unmounting it.
    root: PathBuf,
    /// The process that it has its program from, and with it what that had made until then.
    parent: Option<u64>,
}

/// What is known of the processes' files.
pub(super) struct PerfMaps {
    origins: HashMap<u64, Origin>,
    /// Mount namespaces other than mmtrace's own. Held by themselves they keep nobody from
    /// unmounting, as an open directory would.
    namespaces: HashMap<OsString, Arc<File>>,
    own_mounts: Option<OsString>,
    /// Files that are older than this are of processes that had the same numbers before.
    since: SystemTime,
}

impl PerfMaps {
    pub(super) fn new() -> Self {
        Self {
            origins: HashMap::new(),
            namespaces: HashMap::new(),
            own_mounts: mounts_of("self"),
            since: SystemTime::now() - ROUNDING,
        }
    }

    /// A process has been made.
    pub(super) fn forked(&mut self, process: u64, pid: u32, parent: u64) {
        let inherited = self.origins.get(&parent);
        let nested = inherited.is_some_and(|origin| origin.pid != origin.pid_outside);
        let (user, mounts, root) = match inherited {
            Some(origin) => (origin.user, origin.mounts.clone(), origin.root.clone()),
            None => (0, None, PathBuf::from("/")),
        };
        let (pid_inside, user) = match inherited {
            Some(_) if !nested => (pid, user),
            _ => status(pid).unwrap_or((pid, user)),
        };
        let origin = Origin {
            pid: pid_inside,
            pid_outside: pid,
            user,
            mounts,
            root,
            parent: Some(parent),
        };
        self.origins.insert(process, origin);
    }

    /// A process runs another program: it may be another user's, and in another place.
    pub(super) fn executed(&mut self, process: u64) {
        let Some(origin) = self.origins.get_mut(&process) else {
            return;
        };
        origin.parent = None;
        // It may be gone again, and is what it was then.
        let pid = origin.pid_outside;
        if let Some((pid, user)) = status(pid) {
            (origin.pid, origin.user) = (pid, user);
        }
        if let Ok(root) = fs::read_link(format!("/proc/{pid}/root")) {
            origin.root = root;
        }
        let Some(mounts) = mounts_of(&pid.to_string()) else {
            return;
        };
        if Some(&mounts) == self.own_mounts.as_ref() {
            origin.mounts = None;
            return;
        }
        let known = self.namespaces.len();
        origin.mounts = match self.namespaces.get(&mounts) {
            Some(namespace) => Some(Arc::clone(namespace)),
            None if known < MOST_NAMESPACES => {
                let namespace = File::open(format!("/proc/{pid}/ns/mnt")).ok().map(Arc::new);
                if let Some(namespace) = &namespace {
                    self.namespaces.insert(mounts, Arc::clone(namespace));
                }
                namespace
            }
            None => None,
        };
    }

    /// The names of a process's addresses, as far as its file has them, or that of who made it with
    /// its program in it. Also why a file that is there was not read.
    pub(super) fn names(
        &self,
        process: u64,
        addresses: &BTreeSet<u64>,
    ) -> (BTreeMap<u64, Arc<str>>, Option<String>) {
        let mut names = BTreeMap::new();
        let mut missing = addresses.clone();
        let mut next = Some(process);
        let mut refused = None;
        for _ in 0..=MOST_PARENTS {
            let origin = next.and_then(|process| self.origins.get(&process));
            let Some(origin) = origin.filter(|_| !missing.is_empty()) else {
                break;
            };
            match origin.read(self.since) {
                Ok(Some(text)) => names.extend(parse(&text, &missing)),
                Ok(None) => {}
                Err(error) => refused = Some(format!("{}: {error:#}", origin.name())),
            }
            missing.retain(|address| !names.contains_key(address));
            next = origin.parent;
        }
        (names, refused)
    }
}

impl Origin {
    fn name(&self) -> String {
        format!("perf-{}.map", self.pid)
    }

    /// What is in the file; `None` if there is none.
    fn read(&self, since: SystemTime) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open()? else {
            return Ok(None);
        };
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "it is no regular file");
        let owner = metadata.uid();
        // Root's only if everybody may read it: it could be mounted there to have it read.
        let public = owner == 0 && metadata.mode() & libc::S_IROTH != 0;
        ensure!(
            owner == self.user || public,
            "it belongs to user {owner}, the process to {}",
            self.user
        );
        ensure!(metadata.modified()? >= since, "it is older than the run");
        let mut text = Vec::new();
        file.take(LARGEST_BYTES).read_to_end(&mut text)?;
        Ok(Some(text))
    }

    /// As the process sees it, or has seen it if it has ended.
    fn open(&self) -> Result<Option<File>> {
        let name = self.name();
        let own = PathBuf::from(format!("/proc/{}/root", self.pid_outside));
        if let Ok(root) = root(&own)
            && status(self.pid_outside).is_some_and(|(pid, _)| pid == self.pid)
        {
            return open(root, &name);
        }
        let Some(mounts) = &self.mounts else {
            return open(root(&self.root)?, &name);
        };
        // A thread of its own: it does not come back from there.
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                unshare(CloneFlags::CLONE_FS)?;
                setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS)
                    .context("its mount namespace cannot be entered")?;
                open(root(&self.root)?, &name)
            });
            there.join().unwrap_or_else(|_| Err(anyhow!("it panicked")))
        })
    }
}

/// A directory from which a file can be opened.
fn root(path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from)
}

/// Opens a file in `/tmp` of this root; `None` if there is none. It is not waited for, whatever it
/// is, and no link is followed to it, nor out of the root.
fn open(root: File, name: &str) -> Result<Option<File>> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = format!("tmp/{name}");
    match rustix::fs::openat2(root, path, flags, Mode::empty(), within) {
        Ok(file) => Ok(Some(file.into())),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(rustix::io::Errno::LOOP) => Err(anyhow!("it is a symbolic link")),
        Err(error) => Err(error.into()),
    }
}

/// The namespace that a process's mounts are in, as a link's text.
fn mounts_of(pid: &str) -> Option<OsString> {
    let link = fs::read_link(format!("/proc/{pid}/ns/mnt"));
    link.ok().map(Into::into)
}

/// A process's number as it sees itself, and its effective user.
fn status(pid: u32) -> Option<(u32, u32)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let values = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::split_ascii_whitespace)
    };
    let inside = values("NStgid:")?.next_back()?.parse().ok()?;
    let effective = values("Uid:")?.nth(1)?.parse().ok()?;
    Some((inside, effective))
}

/// The names of addresses: lines of address, size and name. What is told later holds.
fn parse(text: &[u8], addresses: &BTreeSet<u64>) -> BTreeMap<u64, Arc<str>> {
    let mut names = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some((start, end, name)) = function(line) else {
            continue;
        };
        let mut inside = addresses.range(start..end).peekable();
        if inside.peek().is_none() {
            continue;
        }
        let name = &name[..name.len().min(LONGEST_NAME_BYTES)];
        let name: Arc<str> = Arc::from(String::from_utf8_lossy(name));
        for address in inside {
            names.insert(*address, Arc::clone(&name));
        }
    }
    names
}

/// The function of a line: its first address, the one after its last, and its name.
fn function(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let mut number = || {
        let word = str::from_utf8(words.next()?).ok()?;
        u64::from_str_radix(word.trim_start_matches("0x"), 16).ok()
    };
    let start = number()?;
    let end = start.checked_add(number()?)?;
    let name = words.next()?.trim_ascii();
    // A range that ends before it begins would be a panic.
    (end > start && !name.is_empty()).then_some((start, end, name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_last_line_about_an_address_holds() {
        let text = b"1000 20 one\n\
            0x1010 0x20 two words; and \xff\n\
            nonsense\n\
            1020 0 empty\n\
            ffffffffffffffff 2 beyond the last address\n\
            2000 10\n\
            2000 10 \n\
            3000 10 cut";
        let addresses = [0xfff, 0x1000, 0x1010, 0x102f, 0x1030, 0x2000, 0x300f];
        let names = parse(text, &addresses.into());
        let names: Vec<_> = names.iter().map(|(at, name)| (*at, &**name)).collect();
        let two = "two words; and \u{fffd}";
        assert_eq!(
            names,
            [
                (0x1000, "one"),
                (0x1010, two),
                (0x102f, two),
                (0x300f, "cut")
            ]
        );
        let long = [b"1000 20 ".as_slice(), &[b'x'; 5_000]].concat();
        let names = parse(&long, &[0x1000].into());
        assert_eq!(names[&0x1000].len(), LONGEST_NAME_BYTES);
    }

    /// A process that has ended, and sees this one's files.
    fn ended(pid: u32, user: u32) -> Origin {
        Origin {
            pid,
            pid_outside: u32::MAX,
            user,
            mounts: None,
            root: PathBuf::from("/"),
            parent: None,
        }
    }

    #[test]
    fn the_file_of_a_process_with_another_root_is_there() {
        let (pid, me) = (std::process::id(), nix::unistd::geteuid().as_raw());
        let root = tempfile::tempdir().unwrap();
        let mut origin = ended(pid, me);
        origin.root = root.path().to_owned();
        let past = SystemTime::UNIX_EPOCH;
        assert_eq!(origin.read(past).unwrap(), None);

        fs::create_dir(root.path().join("tmp")).unwrap();
        let path = root.path().join(format!("tmp/perf-{pid}.map"));
        fs::write(&path, "1 1 name").unwrap();
        assert_eq!(origin.read(past).unwrap(), Some(b"1 1 name".to_vec()));
        // Which leads to a file outside of that root.
        fs::remove_dir_all(root.path().join("tmp")).unwrap();
        symlink("/tmp", root.path().join("tmp")).unwrap();
        let outside = format!("/tmp/perf-{pid}.map");
        fs::write(&outside, "1 1 name").unwrap();
        let read = origin.read(past);
        fs::remove_file(outside).unwrap();
        assert!(read.is_err(), "{read:?}");
    }

    /// What comes of a file in /tmp, by what it is.
    fn read(pid: u32, user: u32, since: SystemTime) -> Result<Option<Vec<u8>>, String> {
        ended(pid, user)
            .read(since)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn only_a_new_regular_file_of_the_processs_user_is_read() {
        // Beyond the largest pid that there can be.
        let pid = 5_000_000 + std::process::id();
        let path = format!("/tmp/perf-{pid}.map");
        let me = nix::unistd::geteuid().as_raw();
        let past = SystemTime::UNIX_EPOCH;
        let _gone = fs::remove_file(&path);
        assert_eq!(read(pid, me, past), Ok(None));

        fs::write(&path, "1 1 name").unwrap();
        assert_eq!(read(pid, me, past), Ok(Some(b"1 1 name".to_vec())));
        let later = SystemTime::now() + Duration::from_secs(60);
        let older = "it is older than the run".to_owned();
        assert_eq!(read(pid, me, later), Err(older));
        if me != 0 {
            assert!(read(pid, me + 1, past).is_err());
        }
        fs::remove_file(&path).unwrap();

        symlink("/proc/self/status", &path).unwrap();
        assert_eq!(read(pid, me, past), Err("it is a symbolic link".to_owned()));
        fs::remove_file(&path).unwrap();

        nix::unistd::mkfifo(&*path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let irregular = Err("it is no regular file".to_owned());
        assert_eq!(read(pid, me, past), irregular);
        fs::remove_file(&path).unwrap();

        fs::create_dir(&path).unwrap();
        assert_eq!(read(pid, me, past), irregular);
        fs::remove_dir(&path).unwrap();
    }
}
