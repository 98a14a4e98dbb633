//! Programs in a place that nobody else sees.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::{
        fd::IntoRawFd as _,
        unix::{fs::PermissionsExt as _, process::CommandExt as _},
    },
    process::Command,
};

use anyhow::Context as _;

use super::{Arguments, command_of, sys};
use crate::{mounts, truth::Truth};

/// Runs another workload on the file, in a copy of this program that is in a `/tmp` of its own.
pub(super) fn elsewhere(arguments: &mut Arguments) -> anyhow::Result<Truth> {
    let path = arguments.path()?;
    let workload = arguments.text()?;
    let calls = arguments.text()?;
    // Whose name may be hidden then.
    let file = sys::open(&path, libc::O_RDONLY)?;
    sys::keep_over_exec(&file)?;
    let file = format!("/proc/self/fd/{}", file.into_raw_fd());
    let program = fs::read(std::env::current_exe()?)?;
    // Not undone: it goes with this process.
    std::mem::forget(mounts::Mount::new(
        "none".as_ref(),
        "/tmp".as_ref(),
        "tmpfs",
        "size=64m",
    )?);
    fs::write("/tmp/program", program)?;
    fs::set_permissions("/tmp/program", Permissions::from_mode(0o755))?;
    let words: [&OsStr; 2] = [file.as_ref(), calls.as_ref()];
    let error = Command::new("/tmp/program")
        .args(command_of(&workload, &words))
        .exec();
    Err(error).context("running /tmp/program")
}
