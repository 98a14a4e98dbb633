//! Users: sudo's caller, `--user`, no root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::{MMTRACE, failed, mmtrace_run, needs_tracing, shell, text};

/// The user "nobody", whom every system has.
const NOBODY: u32 = 65534;

fn by_sudo() -> Command {
    let mut command = mmtrace_run();
    command
        .env("SUDO_UID", NOBODY.to_string())
        .env("SUDO_GID", NOBODY.to_string())
        .env("SUDO_USER", "nobody");
    command.arg("-q");
    command
}

/// Whether to go on: root with a user "nobody"; says so if not.
fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    let nobody = nix::unistd::User::from_name("nobody")
        .is_ok_and(|user| user.is_some_and(|user| user.uid.as_raw() == NOBODY));
    if !(root && nobody) {
        eprintln!("skipped: needs root and the user nobody with id {NOBODY}");
    }
    root && nobody
}

const WHO: &str = "id -u; id -g; id -G; echo $USER $LOGNAME ${SUDO_UID-none} $OTHER";

#[test]
fn by_sudo_the_target_is_its_callers() {
    needs_tracing!();
    if !is_root() {
        return;
    }
    let output = by_sudo()
        .env("OTHER", "kept")
        .arg("--")
        .args(shell(WHO))
        .output()
        .unwrap();
    assert_eq!(
        text(&output.stdout),
        "65534\n65534\n65534\nnobody nobody none kept\n",
        "{}",
        text(&output.stderr)
    );
    let output = by_sudo()
        .args(["--user", "root", "--", "id", "-u"])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "0\n");
    let output = mmtrace_run()
        .args(["-q", "--user", "nobody", "--"])
        .args(shell(WHO))
        .output()
        .unwrap();
    assert!(text(&output.stdout).starts_with("65534\n65534\n65534\nnobody"));
}

#[test]
fn by_sudo_the_callers_rights_decide_what_can_be_executed() {
    needs_tracing!();
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let script = directory.path().join("script");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        mmtrace_run()
            .args(["-q", "--"])
            .arg(&script)
            .status()
            .unwrap()
            .success()
    );
    failed(&by_sudo().arg("--").arg(&script).output().unwrap(), 126);
}

#[test]
fn by_sudo_output_files_are_the_callers_and_follow_no_link_beyond() {
    needs_tracing!();
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let file = directory.path().join("a.json");
    assert!(
        by_sudo()
            .arg("-o")
            .arg(&file)
            .args(["--", "true"])
            .status()
            .unwrap()
            .success()
    );
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY));

    let protected = tempfile::tempdir().unwrap();
    let secret = protected.path().join("secret.json");
    fs::write(&secret, "secret").unwrap();
    let link = directory.path().join("link.json");
    symlink(&secret, &link).unwrap();
    let output = by_sudo()
        .arg("-o")
        .arg(&link)
        .args(["--", "true"])
        .output()
        .unwrap();
    assert!(failed(&output, 125).contains("Permission denied"));
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
}

#[test]
fn an_unknown_user_is_refused() {
    let output = mmtrace_run()
        .args(["--user", "no-such-user-9e3", "--", "true"])
        .output()
        .unwrap();
    assert!(failed(&output, 125).contains("no-such-user-9e3"));
}

#[test]
fn without_root_the_message_says_what_to_type() {
    let mut command;
    if nix::unistd::Uid::effective().is_root() {
        // nobody may not reach the build directory.
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = directory.path().join("mmtrace");
        fs::copy(MMTRACE, &copy).unwrap();
        command = Command::new(&copy);
        let output = command
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/")
            .args(["run", "--", "rg", "a b"])
            .output();
        let output = output.unwrap();
        assert!(failed(&output, 125).contains(&format!("sudo {} run -- rg 'a b'", copy.display())));
    } else {
        command = mmtrace_run();
        let output = command.args(["--", "rg", "a b"]).output().unwrap();
        assert!(failed(&output, 125).contains("run -- rg 'a b'"));
    }
}
