//! Mounts that only this suite sees.

use std::{
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, anyhow};

use crate::workload::c_string;

/// Gives this process, and what it starts from then on, mounts of its own: what it mounts goes with
/// it, and nobody else sees it. Once for the whole process.
pub(crate) fn own_namespace() -> anyhow::Result<()> {
    static OUTCOME: OnceLock<Result<(), String>> = OnceLock::new();
    let outcome = OUTCOME.get_or_init(|| {
        // SAFETY: the strings are constants, and no other memory is passed.
        let done = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(
                    c"none".as_ptr(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    libc::MS_REC | libc::MS_PRIVATE,
                    std::ptr::null(),
                ) == 0
        };
        done.then_some(())
            .ok_or_else(|| io::Error::last_os_error().to_string())
    });
    outcome.clone().map_err(|error| anyhow!(error))
}

/// Something mounted, unmounted when dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts `source` on `target`, a directory that is made.
    pub(crate) fn new(
        source: &Path,
        target: &Path,
        file_system: &str,
        options: &str,
    ) -> anyhow::Result<Self> {
        own_namespace()?;
        std::fs::create_dir_all(target)?;
        let [source_name, target_name] = [source, target].map(|path| c_string(path.as_os_str()));
        let [kind, data] = [file_system, options].map(|text| c_string(text.as_ref()));
        let (source_name, target_name, kind, data) = (source_name?, target_name?, kind?, data?);
        // SAFETY: C strings that outlive the call.
        let mounted = unsafe {
            libc::mount(
                source_name.as_ptr(),
                target_name.as_ptr(),
                kind.as_ptr(),
                0,
                data.as_ptr().cast(),
            )
        };
        if mounted != 0 {
            let error = io::Error::last_os_error();
            return Err(error)
                .with_context(|| format!("mounting {file_system} {source:?} on {target:?}"));
        }
        Ok(Self(target.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = c_string(self.0.as_os_str()).and_then(|target| {
            // SAFETY: a C string that outlives the call.
            match unsafe { libc::umount2(target.as_ptr(), 0) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
        if let Err(error) = unmounted {
            eprintln!("mmtrace-tests: {:?} stays mounted: {error}", self.0);
        }
    }
}
