//! Everything that the child needs after the fork, made before it: the child must not allocate.

use std::env;
use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use anyhow::{Context, Result};

use super::Spec;
use super::account::Account;
use super::signals::Mask;

/// Where execvp looks when PATH is unset.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Runs a file that has no interpreter line, as execvp does.
const SHELL: &CStr = c"/bin/sh";

/// A C array of strings, ending in null, with the strings it points to.
pub(super) struct StringArray {
    pointers: Vec<*const c_char>,
    _strings: Vec<CString>,
}

impl StringArray {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect();
        Self {
            pointers,
            _strings: strings,
        }
    }

    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// One file that the command's name may mean.
pub(super) struct Candidate {
    pub(super) path: CString,
    /// Arguments for the shell, should the file turn out to be a script without interpreter line.
    pub(super) shell_arguments: StringArray,
}

/// The child's instructions.
pub(super) struct Plan {
    pub(super) candidates: Vec<Candidate>,
    pub(super) shell: &'static CStr,
    pub(super) arguments: StringArray,
    /// None: the environment that mmtrace was given, bit for bit.
    pub(super) environment: Option<StringArray>,
    pub(super) identity: Option<Account>,
    /// /dev/null, if the streams are to be that.
    pub(super) null: Option<File>,
    pub(super) marker: Option<super::Marker>,
    pub(super) mask: libc::sigset_t,
    pub(super) ignore_sigpipe: bool,
    pub(super) ignore_sigchld: bool,
}

impl Plan {
    pub(super) fn new(spec: &Spec, mask: &Mask) -> Result<Self> {
        let arguments = spec
            .command
            .iter()
            .map(|argument| CString::new(argument.as_bytes()))
            .collect::<Result<Vec<_>, _>>()
            .context("an argument holds a zero byte")?;
        let name = spec.command.first().context("there is no command")?;
        let candidates = candidates(name, env::var_os("PATH").as_deref())
            .into_iter()
            .map(|path| {
                let mut shell_arguments = vec![SHELL.to_owned(), path.clone()];
                shell_arguments.extend(arguments.iter().skip(1).cloned());
                Candidate {
                    path,
                    shell_arguments: StringArray::new(shell_arguments),
                }
            })
            .collect();
        let identity = spec.user.clone().filter(|user| !user.is_current());
        let environment = identity.as_ref().map(|user| {
            let entries = user.adapt(current_environment());
            let strings = entries
                .into_iter()
                .filter_map(|entry| CString::new(entry).ok());
            StringArray::new(strings.collect())
        });
        let null = || OpenOptions::new().read(true).write(true).open("/dev/null");
        let null = spec.silent.then(null).transpose().context("/dev/null")?;
        Ok(Self {
            null,
            candidates,
            shell: SHELL,
            arguments: StringArray::new(arguments),
            environment,
            identity,
            marker: spec.marker,
            mask: mask.original,
            ignore_sigpipe: super::initial::sigpipe_ignored(),
            ignore_sigchld: mask.sigchld_ignored,
        })
    }
}

/// The files that execvp would try for `name`, in order.
fn candidates(name: &OsStr, path: Option<&OsStr>) -> Vec<CString> {
    let name = name.as_bytes();
    if name.contains(&b'/') {
        return CString::new(name).into_iter().collect();
    }
    if name.is_empty() {
        return Vec::new();
    }
    let default = OsString::from(DEFAULT_PATH);
    let directories = path
        .unwrap_or(&default)
        .as_bytes()
        .split(|&byte| byte == b':');
    directories
        .filter_map(|directory| {
            // An empty entry is the working directory.
            let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
            CString::new([directory, separator, name].concat()).ok()
        })
        .collect()
}

/// mmtrace's environment, entries without '=' too, which Rust's own view leaves out.
fn current_environment() -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    // SAFETY: `environ` is null or a null-terminated array of C strings, and no thread of mmtrace
    // changes the environment.
    unsafe {
        let mut entry = super::child::environ.cast_const();
        while !entry.is_null() && !(*entry).is_null() {
            entries.push(CStr::from_ptr(*entry).to_bytes().to_vec());
            entry = entry.add(1);
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str, path: Option<&str>) -> Vec<String> {
        let found = candidates(OsStr::new(name), path.map(OsStr::new));
        found
            .into_iter()
            .map(|path| path.into_string().unwrap())
            .collect()
    }

    #[test]
    fn candidates_are_those_of_execvp() {
        assert_eq!(names("rg", Some("/a::/b")), ["/a/rg", "rg", "/b/rg"]);
        assert_eq!(names("./rg", Some("/a")), ["./rg"]);
        assert_eq!(names("rg", None), ["/bin/rg", "/usr/bin/rg"]);
        assert!(names("", Some("/a")).is_empty());
    }
}
