//! The kernels to test on: where each is found, and fetching it.
//!
//! The machine's own apt fetches them, and checks their signatures, but from source lists of
//! ours and into directories of ours: what is installed is not touched, and root is not needed.

use std::cmp::Ordering;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{output, program, run};

/// A series of stock Debian kernels.
pub(crate) struct Kernel {
    /// What the user calls it.
    pub(crate) series: &'static str,
    /// The Debian suites to look in.
    pub(crate) suites: &'static [&'static str],
    /// Packages that make it up, `*` standing for the rest of the version: the image first.
    packages: &'static [&'static str],
}

/// Every kernel. The newest version that the suites have of each is taken.
#[rustfmt::skip]
pub(crate) const KERNELS: [Kernel; 5] = [
    Kernel { series: "5.10", suites: &["bullseye-security"],             packages: &["linux-image-5.10.*-amd64"] },
    Kernel { series: "6.1",  suites: &["bookworm", "bookworm-security"], packages: &["linux-image-6.1.*-amd64"] },
    Kernel { series: "6.12", suites: &["bookworm-security"],             packages: &["linux-image-6.12.*-amd64"] },
    Kernel { series: "6.18", suites: &["trixie-backports"],              packages: &["linux-image-6.18.*-amd64"] },
    Kernel { series: "7",    suites: &["trixie-backports"],              packages: &["linux-binary-7.*-amd64", "linux-modules-7.*-amd64", "linux-base-7.*-amd64"] },
];

/// Names the mirror for hosts whose apt is not configured for Debian.
const MIRROR_VARIABLE: &str = "MMTRACE_DEBIAN_MIRROR";

/// The keys that sign Debian's lists.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that has been fetched.
pub(crate) struct Fetched {
    /// The directory that holds all of it.
    dir: PathBuf,
    release: String,
}

impl Fetched {
    /// The kernel image.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The directory in which its modules are at lib/modules.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `uname -r` says on it.
    pub(crate) fn release(&self) -> &str {
        &self.release
    }

    /// What belongs at /lib/modules.
    pub(crate) fn modules(&self) -> PathBuf {
        self.dir.join("lib/modules")
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}", self.series)
    }
}

impl Kernel {
    /// The kernel of this name, or an error that lists those there are.
    pub(crate) fn by_name(name: &str) -> Result<&'static Self> {
        KERNELS
            .iter()
            .find(|kernel| kernel.series == name)
            .with_context(|| {
                let names = KERNELS.map(|kernel| kernel.series).join(", ");
                format!("unknown kernel {name}: there are {names}")
            })
    }

    /// The kernel in `lab`, if it has been fetched.
    pub(crate) fn fetched(&self, lab: &Path) -> Option<Fetched> {
        let dir = self.dir(lab);
        let release = fs::read_to_string(dir.join("release")).ok()?;
        Some(Fetched { dir, release })
    }

    /// Fetches the kernel into `lab`, unless it is there.
    pub(crate) fn fetch(&self, lab: &Path) -> Result<Fetched> {
        match self.fetched(lab) {
            Some(fetched) => Ok(fetched),
            None => self
                .download(lab)
                .with_context(|| format!("cannot fetch {self}")),
        }
    }

    fn dir(&self, lab: &Path) -> PathBuf {
        lab.join("kernels").join(self.series)
    }

    fn download(&self, lab: &Path) -> Result<Fetched> {
        let apt = PrivateApt::new(&lab.join("apt").join(self.suites.join("+")), self.suites)?;
        let dir = self.dir(lab);
        let partial = dir.with_extension("partial");
        remove(&partial)?;
        fs::create_dir_all(&partial)?;
        for pattern in self.packages {
            let package = apt.newest(pattern)?;
            eprintln!("vm: fetching {package} from {}", self.suites.join(", "));
            let archive = apt.download(&package, &partial)?;
            run(program("dpkg-deb")?
                .arg("--extract")
                .arg(&archive)
                .arg(&partial))?;
            fs::remove_file(archive)?;
        }
        let release = arrange(&partial)?;
        run(program("depmod")?
            .arg("--basedir")
            .arg(&partial)
            .arg(&release))?;
        // Last, as its being there says that all else is.
        fs::write(partial.join("release"), &release)?;
        remove(&dir)?;
        fs::rename(&partial, &dir)?;
        Ok(Fetched { dir, release })
    }
}

/// Brings the ways in which packages lay a kernel out to one; returns the kernel's release.
fn arrange(dir: &Path) -> Result<String> {
    if !dir.join("lib").exists() {
        fs::rename(dir.join("usr/lib"), dir.join("lib"))?;
    }
    let releases: Vec<_> = fs::read_dir(dir.join("lib/modules"))?.collect::<Result<_, _>>()?;
    let [release] = releases.as_slice() else {
        bail!("the packages hold modules of {} kernels", releases.len());
    };
    let release = release
        .file_name()
        .into_string()
        .ok()
        .context("odd kernel release")?;
    let images = [
        dir.join(format!("boot/vmlinuz-{release}")),
        dir.join(format!("lib/modules/{release}/vmlinuz")),
    ];
    let image = images.iter().find(|image| image.exists());
    fs::rename(
        image.context("no kernel image in the packages")?,
        dir.join("vmlinuz"),
    )?;
    Ok(release)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// apt with lists of its own.
struct PrivateApt {
    dir: PathBuf,
}

impl PrivateApt {
    /// Fetches the lists of these suites into `dir`.
    fn new(dir: &Path, suites: &[&str]) -> Result<Self> {
        fs::create_dir_all(dir.join("lists/partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        let mirror = mirror()?;
        let sources: Vec<String> = suites
            .iter()
            .map(|suite| {
                let archive = if suite.ends_with("-security") {
                    "debian-security"
                } else {
                    "debian"
                };
                format!("deb [signed-by={KEYRING} arch=amd64] {mirror}/{archive} {suite} main\n")
            })
            .collect();
        fs::write(dir.join("sources.list"), sources.concat())?;
        let apt = Self {
            dir: dir.to_owned(),
        };
        run(apt
            .command("apt-get")?
            .args(["--quiet", "--quiet", "update"]))?;
        Ok(apt)
    }

    fn command(&self, name: &str) -> Result<Command> {
        let mut command = program(name)?;
        for (key, path) in [
            ("Dir::Etc::sourcelist", self.dir.join("sources.list")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State::lists", self.dir.join("lists")),
            ("Dir::State::status", "/dev/null".into()),
            ("Dir::Cache", self.dir.join("cache")),
        ] {
            command.arg("-o").arg(format!("{key}={}", path.display()));
        }
        // apt's own user may not write here; signatures are checked all the same. The index
        // targets beyond the packages (such as application metadata) are of no use.
        command.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]);
        command.args([
            "-o",
            "Acquire::Languages=none",
            "-o",
            "APT::Architecture=amd64",
        ]);
        Ok(command)
    }

    /// The newest package whose name matches.
    fn newest(&self, pattern: &str) -> Result<String> {
        let (prefix, suffix) = pattern.split_once('*').context("a pattern without *")?;
        let names = output(self.command("apt-cache")?.args(["pkgnames", prefix]))?;
        names
            .lines()
            .filter_map(|name| Some((name, version(name, prefix, suffix)?)))
            .max_by(|(_, a), (_, b)| compare_versions(a, b))
            .map(|(name, _)| name.to_owned())
            .with_context(|| format!("no list that could be fetched has a package {pattern}"))
    }

    /// Downloads a package into `dir` and returns its file.
    fn download(&self, package: &str, dir: &Path) -> Result<PathBuf> {
        let mut download = self.command("apt-get")?;
        run(download
            .args(["--quiet", "--quiet", "download", package])
            .current_dir(dir))?;
        fs::read_dir(dir)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get left no file for {package}"))
    }
}

/// Where this machine gets Debian's packages from: the URL above `debian` and `debian-security`.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var(MIRROR_VARIABLE) {
        return Ok(mirror.trim_end_matches('/').to_owned());
    }
    let targets = output(program("apt-get")?.args(["indextargets", "--format", "$(REPO_URI)"]))?;
    targets
        .lines()
        .find_map(|uri| uri.trim_end_matches('/').strip_suffix("/debian"))
        .map(str::to_owned)
        .with_context(|| {
            format!(
                "this machine's apt knows no mirror of Debian: name the URL above its directories \
                 debian and debian-security in {MIRROR_VARIABLE}"
            )
        })
}

/// The part of a package's name between prefix and suffix, if it is a plain version: what has
/// words in it is another flavour (rt, cloud) or not a kernel.
fn version<'a>(name: &'a str, prefix: &str, suffix: &str) -> Option<&'a str> {
    let version = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    // `117+deb12` and `0-56` are plain, `117+deb12-rt` and `0-0.deb11.52` are not.
    let number = match version.split_once("+deb") {
        Some((number, suite)) if suite.bytes().all(|b| b.is_ascii_digit()) => number,
        Some(_) => return None,
        None => version,
    };
    number
        .bytes()
        .all(|b| b.is_ascii_digit() || b == b'.' || b == b'-')
        .then_some(version)
}

/// Compares versions number by number.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let numbers = |version: &str| -> Vec<u64> {
        let parts = version.split(|c: char| !c.is_ascii_digit());
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(compare_versions("0-9", "0-10"), Ordering::Less);
        assert_eq!(compare_versions("117+deb12", "99+deb12"), Ordering::Greater);
        assert_eq!(
            compare_versions("18.15+deb13", "18.15+deb13"),
            Ordering::Equal
        );
    }

    #[test]
    fn other_flavours_do_not_match() {
        let version = |name| version(name, "linux-image-6.1.", "-amd64");
        assert_eq!(version("linux-image-6.1.0-56-amd64"), Some("0-56"));
        assert_eq!(version("linux-image-6.1.0-0.deb11.52-amd64"), None);
        assert_eq!(version("linux-image-6.1.0-56-rt-amd64"), None);
        assert_eq!(version("linux-image-6.1.0-56-cloud-amd64"), None);
        assert_eq!(version("linux-image-6.1.0-56-amd64-dbg"), None);
        assert_eq!(version("linux-image-6.1.9+deb12-amd64"), Some("9+deb12"));
        assert_eq!(version("linux-image-6.1.9+deb12-rt-amd64"), None);
    }
}
