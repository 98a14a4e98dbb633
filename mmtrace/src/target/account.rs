//! Whose rights the target runs with and output files are written with.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::thread;

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::failure::Failure;

/// Variables that sudo adds; a target that no longer runs by sudo must not see them.
const SUDO_VARIABLES: [&str; 4] = ["SUDO_COMMAND", "SUDO_GID", "SUDO_UID", "SUDO_USER"];

/// A user: identity, groups, and what the environment says of the user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    pub(super) uid: libc::uid_t,
    pub(super) gid: libc::gid_t,
    pub(super) groups: Vec<libc::gid_t>,
    /// Variables to set; empty for a user that the user database does not know.
    variables: Vec<(&'static str, OsString)>,
}

impl Account {
    /// The user called `name`.
    ///
    /// # Errors
    /// When there is no such user or the user database cannot be read.
    pub fn by_name(name: &str) -> Result<Self> {
        let user = User::from_name(name)
            .with_context(|| format!("cannot look up user '{name}'"))?
            .ok_or_else(|| Failure::own(format!("--user: there is no user '{name}'")))?;
        Self::of_user(user)
    }

    /// The user who called sudo, when mmtrace runs as root by sudo; None otherwise.
    ///
    /// # Errors
    /// When sudo's variables hold no valid ids or the user database cannot be read.
    pub fn invoker() -> Result<Option<Self>> {
        let (Some(uid), true) = (env::var_os("SUDO_UID"), Uid::effective().is_root()) else {
            return Ok(None);
        };
        let uid = parse_id("SUDO_UID", &uid)?;
        if let Some(user) =
            User::from_uid(Uid::from_raw(uid)).context("cannot look up the user who called sudo")?
        {
            return Self::of_user(user).map(Some);
        }
        let gid = env::var_os("SUDO_GID")
            .ok_or_else(|| Failure::own("SUDO_UID is set but SUDO_GID is not"))?;
        let gid = parse_id("SUDO_GID", &gid)?;
        Ok(Some(Self {
            uid,
            gid,
            groups: vec![gid],
            variables: Vec::new(),
        }))
    }

    fn of_user(user: User) -> Result<Self> {
        let name = std::ffi::CString::new(user.name.as_str())?;
        let groups = getgrouplist(&name, user.gid)
            .with_context(|| format!("cannot look up the groups of user '{}'", user.name))?;
        Ok(Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            variables: vec![
                ("HOME", user.dir.into_os_string()),
                ("LOGNAME", user.name.clone().into()),
                ("SHELL", user.shell.into_os_string()),
                ("USER", user.name.into()),
            ],
        })
    }

    /// Whether mmtrace already runs with this user's identity.
    pub fn is_current(&self) -> bool {
        Uid::effective().as_raw() == self.uid && Uid::current().as_raw() == self.uid
    }

    /// `environment` ("NAME=value" entries) as this user's programs should see it.
    pub(super) fn adapt(&self, environment: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let names = |entry: &[u8], name: &str| {
            entry
                .strip_prefix(name.as_bytes())
                .is_some_and(|rest| rest.first() == Some(&b'='))
        };
        let mut adapted: Vec<Vec<u8>> = environment
            .into_iter()
            .filter(|entry| {
                !SUDO_VARIABLES.iter().any(|name| names(entry, name))
                    && !self.variables.iter().any(|(name, _)| names(entry, name))
            })
            .collect();
        for (name, value) in &self.variables {
            adapted.push([name.as_bytes(), b"=", &value.clone().into_vec()].concat());
        }
        adapted
    }

    /// Runs `work` with this user's rights and no others; mmtrace itself keeps its own.
    ///
    /// In Linux credentials belong to a thread: they are dropped for good in one made for `work`.
    ///
    /// # Errors
    /// When the kernel refuses to change the thread's credentials.
    pub fn act_as<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        if self.is_current() {
            return Ok(work());
        }
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                // SAFETY: raw system calls, unlike the C library's wrappers, change the calling
                // thread alone, which is what is wanted. The list outlives its call.
                unsafe { self.assume() }?;
                Ok(work())
            });
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Takes this user's identity for the calling thread, without allocating.
    ///
    /// # Safety
    /// The rest of the process keeps its identity: only for a thread that ends, or a process with
    /// one thread.
    pub(super) unsafe fn assume(&self) -> io::Result<()> {
        // SAFETY: plain system calls; the list outlives its call.
        unsafe {
            let groups =
                libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr());
            if groups == -1
                || libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid) == -1
                || libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid) == -1
            {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

fn parse_id(variable: &str, value: &OsString) -> Result<u32> {
    let id = value.to_str().and_then(|text| text.parse().ok());
    Ok(id.ok_or_else(|| Failure::own(format!("{variable} holds {value:?}, which is no id")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Account {
        Account {
            uid: 65534,
            gid: 65534,
            groups: vec![65534],
            variables: vec![("HOME", "/nonexistent".into()), ("USER", "nobody".into())],
        }
    }

    #[test]
    fn the_environment_is_the_users_and_otherwise_untouched() {
        let before = [
            "HOMELY=1",
            "HOME=/root",
            "odd entry",
            "SUDO_UID=1000",
            "USER=root",
            "SUDO_ASKPASS=x",
        ];
        let after = nobody().adapt(
            before
                .iter()
                .map(|entry| entry.as_bytes().to_vec())
                .collect(),
        );
        let after: Vec<&str> = after
            .iter()
            .map(|entry| std::str::from_utf8(entry).unwrap())
            .collect();
        assert_eq!(
            after,
            [
                "HOMELY=1",
                "odd entry",
                "SUDO_ASKPASS=x",
                "HOME=/nonexistent",
                "USER=nobody"
            ]
        );
    }

    #[test]
    fn acting_as_another_leaves_this_process_alone() {
        if !Uid::effective().is_root() {
            eprintln!("skipped: only root can act as another user");
            return;
        }
        let identity = || {
            (
                Uid::effective().as_raw(),
                nix::unistd::getgroups().unwrap().len(),
            )
        };
        let before = identity();
        assert_eq!(nobody().act_as(identity).unwrap(), (65534, 1));
        assert_eq!(identity(), before);
    }
}
