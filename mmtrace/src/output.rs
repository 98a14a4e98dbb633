//! Output files: checked before the target starts, written whole or not at all.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use os_display::Quotable;
use tempfile::{Builder, NamedTempFile};

use crate::failure::Failure;
use crate::target::{Account, stream_closed};

/// The formats that something can be written in.
pub trait Format: Copy + fmt::Debug + Send + Sync + 'static {
    /// Every one.
    const ALL: &'static [Self];
    /// What standard output gets, if no format is asked for.
    const PLAIN: Self;

    /// The suffix that stands for it, without its first dot.
    fn suffix(self) -> &'static str;

    /// The format that the end of a file's name stands for: of several, the longest.
    fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.as_encoded_bytes();
        let ends = |format: &Self| {
            let stem = name.strip_suffix(format.suffix().as_bytes());
            stem.is_some_and(|stem| stem.len() > 1 && stem.ends_with(b"."))
        };
        let formats = Self::ALL.iter().copied().filter(ends);
        formats.max_by_key(|format| format.suffix().len())
    }
}

/// Turns what was measured into a file's bytes.
///
/// Sent to another thread for the time of the writing, hence `Sync`.
pub trait Export: Sync {
    /// What it can be written as.
    type Format: Format;
    /// What it is, for messages.
    const NAME: &'static str;

    /// Writes it in `format`.
    ///
    /// # Errors
    /// Those of `to`, and that there is nothing to show in this format, and why.
    fn export(&self, format: Self::Format, to: &mut dyn Write) -> Result<()>;
}

#[derive(Debug)]
enum Destination {
    StandardOutput,
    /// The file to replace, symbolic links resolved, and the permissions of one that exists.
    File {
        path: PathBuf,
        mode: Option<u32>,
    },
}

#[derive(Debug)]
struct Output<F> {
    /// As the user named it.
    name: PathBuf,
    format: F,
    destination: Destination,
}

/// The files that were asked for by `-o`.
///
/// All work on them is done with the rights of the user they belong to, so that under sudo nobody
/// reaches through a symbolic link what that user could not.
#[derive(Debug)]
pub struct Outputs<F> {
    outputs: Vec<Output<F>>,
    owner: Option<Account>,
}

impl<F: Format> Outputs<F> {
    /// Checks that each file can be written, without leaving anything behind.
    ///
    /// `asked` is the format of "-", which is standard output, and of files whose suffix names none.
    /// `owner` is whom the files will belong to, None for mmtrace's own user.
    ///
    /// # Errors
    /// A [`Failure`] that names the first file that cannot be written, and why.
    pub fn prepare(paths: &[PathBuf], asked: Option<F>, owner: Option<Account>) -> Result<Self> {
        let prepare = || {
            paths
                .iter()
                .map(|path| Output::prepare(path, asked))
                .collect::<Result<Vec<_>>>()
        };
        let outputs = as_owner(owner.as_ref(), prepare)?;
        for (index, output) in outputs.iter().enumerate() {
            let same = |other: &Output<F>| match (&other.destination, &output.destination) {
                (Destination::File { path: one, .. }, Destination::File { path: two, .. }) => {
                    one == two
                }
                (Destination::StandardOutput, Destination::StandardOutput) => true,
                _ => false,
            };
            if outputs.iter().take(index).any(same) {
                return Err(refusal(&output.name, "it is given twice").into());
            }
        }
        Ok(Self { outputs, owner })
    }

    /// Whether no output was asked for.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Writes every file, each atomically; a failure of one does not keep the others from it.
    ///
    /// Returns what failed, one error for each file.
    pub fn write<T: Export<Format = F>>(&self, exported: &T) -> Vec<anyhow::Error> {
        let write = || {
            Ok(self
                .outputs
                .iter()
                .filter_map(|output| output.write(exported).err())
                .collect())
        };
        as_owner(self.owner.as_ref(), write).unwrap_or_else(|error| vec![error])
    }
}

fn as_owner<T: Send>(
    owner: Option<&Account>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    match owner {
        Some(owner) => owner
            .act_as(work)
            .context("cannot take the user's rights for the output files")?,
        None => work(),
    }
}

impl<F: Format> Output<F> {
    fn prepare(name: &Path, asked: Option<F>) -> Result<Self> {
        let name = name.to_owned();
        if name.as_os_str() == "-" {
            if stream_closed(1) {
                return Err(refusal(&name, "standard output is closed").into());
            }
            return Ok(Self {
                name,
                format: asked.unwrap_or(F::PLAIN),
                destination: Destination::StandardOutput,
            });
        }
        let format = F::of_path(&name).or(asked).ok_or_else(|| {
            let suffixes = F::ALL.iter().map(|format| format!(".{}", format.suffix()));
            let suffixes = suffixes.collect::<Vec<_>>().join(", ");
            refusal(&name, "its suffix names no format that mmtrace writes").remedy(format!(
                "Supported suffixes: {suffixes}; - is standard output."
            ))
        })?;
        let (path, mode) = match fs::canonicalize(&name) {
            Ok(path) => {
                let metadata = fs::metadata(&path).map_err(|error| refusal(&name, error))?;
                if !metadata.is_file() {
                    let kind = if metadata.is_dir() {
                        "it is a directory"
                    } else {
                        "it is no regular file"
                    };
                    return Err(refusal(&name, kind).into());
                }
                // Replacing a file needs no right to write to it, but who protects one means it.
                fs::OpenOptions::new()
                    .append(true)
                    .open(&path)
                    .map_err(|error| refusal(&name, error))?;
                (path, Some(metadata.permissions().mode() & 0o777))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (name.clone(), None),
            Err(error) => return Err(refusal(&name, error).into()),
        };
        // The only sure test of whether the directory takes a file. It is removed at once.
        temporary_beside(&path, mode).map_err(|error| {
            let directory = directory_of(&path);
            let why = if directory.is_dir() {
                format!("its directory takes no new file: {error}")
            } else {
                format!(
                    "its directory {} does not exist",
                    directory.quote().external(true)
                )
            };
            refusal(&name, why)
        })?;
        Ok(Self {
            name,
            format,
            destination: Destination::File { path, mode },
        })
    }

    fn write<T: Export<Format = F>>(&self, exported: &T) -> Result<()> {
        let written = match &self.destination {
            Destination::StandardOutput => {
                let mut stdout = io::stdout().lock();
                exported
                    .export(self.format, &mut stdout)
                    .and_then(|()| Ok(stdout.flush()?))
            }
            Destination::File { path, mode } => {
                replace(path, *mode, |file| exported.export(self.format, file))
            }
        };
        let name = self.name.quote().external(true);
        written.with_context(|| format!("cannot write the {} to {name}", T::NAME))
    }
}

/// Writes a file beside `path` and renames it over. On an error, `path` is as before.
fn replace(
    path: &Path,
    mode: Option<u32>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let mut file = temporary_beside(path, mode)?;
    // To the file itself: the errors of tempfile's own type name the temporary file.
    let mut buffered = BufWriter::new(file.as_file_mut());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn temporary_beside(path: &Path, mode: Option<u32>) -> io::Result<NamedTempFile> {
    let file = Builder::new()
        .prefix(".mmtrace-")
        .suffix(".tmp")
        // Not by tempfile's own function, whose errors name the temporary file.
        .make_in(directory_of(path), |path| {
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                // Less the umask, as for any new file.
                .mode(0o666)
                .open(path)
        })?;
    if let Some(mode) = mode {
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(file)
}

fn directory_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn refusal(name: &Path, why: impl fmt::Display) -> Failure {
    Failure::own(format!(
        "cannot write to {} (-o): {why}",
        name.quote().external(true)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum Kind {
        Json,
        TraceJson,
    }

    impl Format for Kind {
        const ALL: &'static [Self] = &[Self::Json, Self::TraceJson];
        const PLAIN: Self = Self::Json;

        fn suffix(self) -> &'static str {
            match self {
                Self::Json => "json",
                Self::TraceJson => "trace.json",
            }
        }
    }

    struct Text(&'static str);

    impl Export for Text {
        type Format = Kind;
        const NAME: &'static str = "text";

        fn export(&self, _: Kind, to: &mut dyn Write) -> Result<()> {
            Ok(to.write_all(self.0.as_bytes())?)
        }
    }

    struct Fails;

    impl Export for Fails {
        type Format = Kind;
        const NAME: &'static str = "text";

        fn export(&self, _: Kind, to: &mut dyn Write) -> Result<()> {
            to.write_all(b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull).into())
        }
    }

    fn prepare(paths: &[PathBuf]) -> Result<Outputs<Kind>> {
        Outputs::prepare(paths, None, None)
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn refused(path: PathBuf) -> String {
        prepare(&[path]).unwrap_err().to_string()
    }

    #[test]
    fn the_longest_suffix_is_the_format() {
        for (name, format) in [
            ("a.json", Some(Kind::Json)),
            ("/a.b/a.trace.json", Some(Kind::TraceJson)),
            ("trace.json", Some(Kind::Json)),
            (".trace.json", Some(Kind::Json)),
            ("atrace.json", Some(Kind::Json)),
            (".json", None),
            ("json", None),
            ("a.json.gz", None),
            ("/", None),
        ] {
            assert_eq!(Kind::of_path(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn the_format_asked_for_is_that_of_other_names() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a.json", "a.txt"].map(|name| directory.path().join(name));
        let outputs = Outputs::prepare(&paths, Some(Kind::TraceJson), None).unwrap();
        let formats = outputs.outputs.iter().map(|output| output.format);
        assert_eq!(formats.collect::<Vec<_>>(), [Kind::Json, Kind::TraceJson]);
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        fs::write(&path, "before").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let outputs = prepare(std::slice::from_ref(&path)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(names(directory.path()), ["a.json"]);

        assert_eq!(outputs.write(&Fails).len(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");

        assert!(outputs.write(&Text("after")).is_empty());
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(names(directory.path()), ["a.json"]);
    }

    #[test]
    fn a_link_stays_one_and_its_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (
            directory.path().join("file"),
            directory.path().join("link.json"),
        );
        fs::write(&file, "before").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(
            prepare(std::slice::from_ref(&link))
                .unwrap()
                .write(&Text("after"))
                .is_empty()
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), "after");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_cannot_be_written_is_refused_before() {
        let directory = tempfile::tempdir().unwrap();
        let inside = |name: &str| directory.path().join(name);
        fs::create_dir(inside("directory.json")).unwrap();
        assert!(refused(inside("directory.json")).contains("is a directory"));
        assert!(refused(inside("missing/a.json")).contains("does not exist"));
        let unnamed = refused("/proc/a.json".into());
        assert!(
            unnamed.contains("no new file") && !unnamed.contains("tmp"),
            "{unnamed}"
        );
        assert!(refused(inside("a.svg")).contains("suffix"));
        assert!(refused(inside("json")).contains("suffix"));
        assert!(refused("/dev/fd/../null.json".into()).contains("-o"));
        let twice = [inside("a.json"), inside("./a.json")];
        assert!(prepare(&twice).unwrap_err().to_string().contains("twice"));
    }
}
