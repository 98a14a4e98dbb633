//! Programs that people use: what they read is known from strace.

use std::{collections::HashMap, ffi::OsString, fs, path::PathBuf};

use anyhow::{Context as _, ensure};

use crate::{
    case::{Case, Need, Scene, Site, State, Stdout, case, find_program, rehearse, words},
    check::{all_on, on, on_any},
    files,
    needs::bytes_read_by,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for state in State::BOTH {
        for mapping in [false, true] {
            let name = if mapping { "mmap" } else { "no-mmap" };
            let needs = [&[Need::Program("rg")], state.needs()].concat();
            cases.push(case(
                format!("rg/{name}-{}", state.name()),
                &needs,
                move |site| ripgrep(site, mapping, state),
            ));
            let needs = [&[Need::Traced("sqlite3")], state.needs()].concat();
            cases.push(case(
                format!("sqlite3/{name}-{}", state.name()),
                &needs,
                move |site| sqlite(site, mapping, state),
            ));
        }
    }
    cases.push(case("git/status", &[Need::Traced("git")], git_status));
    cases
}

/// ripgrep reads all of the file, or maps it: its data comes by the one path or the other.
fn ripgrep(site: &Site, mapping: bool, state: State) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.path("text");
    files::make_text(&file, size)?;
    let rg = find_program("rg").context("rg is gone")?;
    let how = if mapping { "--mmap" } else { "--no-mmap" };
    let command = words(&[&rg, &"--no-config", &how, &"-c", &"needle", &file]);
    let prints = rehearse(&command)?;
    site.bring(state, &file)?;
    let from_disk = state.disk_bytes(site.on_disk_bytes(size)?);
    Ok(Scene::new(command, move |check, _| {
        let (read, mapped) = (on(&file, "read"), on(&file, "mmap"));
        let (by_read, by_map) = if mapping {
            (0, from_disk)
        } else {
            (from_disk, 0)
        };
        check.equal(&read, "bytes_returned", if mapping { 0 } else { size });
        check.equal(&read, "disk_read_bytes", by_read);
        check.equal(&mapped, "disk_read_bytes", by_map);
        check.equal(&mapped, "operations", 0);
        if mapping {
            check.some_faults(&mapped);
        } else {
            check.faults(&mapped, 0);
        }
        Ok(())
    })
    .printing(Stdout::Exactly(prints)))
}

/// A query over all of a database.
fn sqlite(site: &Site, mapping: bool, state: State) -> anyhow::Result<Scene> {
    let database = site.path("db");
    let rows = if site.small { 200 } else { 5_003 };
    let sqlite = find_program("sqlite3").context("sqlite3 is gone")?;
    let fill = format!(
        "create table t(n integer, x blob);
         with recursive c(n) as (select 1 union all select n + 1 from c where n < {rows})
         insert into t select n, randomblob(1511) from c;"
    );
    rehearse(&words(&[&sqlite, &"-batch", &database, &fill]))?;
    let map_bytes = if mapping { 1 << 30 } else { 0 };
    let query = format!("pragma mmap_size={map_bytes}; select sum(length(x)) from t;");
    let command = words(&[
        &sqlite,
        &"-batch",
        &"-init",
        &"/dev/null",
        &database,
        &query,
    ]);
    let prints = rehearse(&command)?;
    let reads = bytes_read_by(&command, &site.directory)?;
    let known = reads.get(&database).copied().unwrap_or_default();
    site.bring(state, &database)?;
    let from_disk = state.disk_bytes(fs::metadata(&database)?.len());
    Ok(Scene::new(command, move |check, _| {
        let (read, mapped) = (on(&database, "read"), on(&database, "mmap"));
        check.equal(&read, "bytes_returned", known);
        if mapping {
            check.some_faults(&mapped);
            let both = on_any(&database, &["read", "mmap"]);
            check.equal(&both, "disk_read_bytes", from_disk);
        } else {
            check.faults(&mapped, 0);
            check.equal(&read, "disk_read_bytes", from_disk);
        }
        Ok(())
    })
    .printing(Stdout::Exactly(prints)))
}

/// git reads some files and maps others, in a repository that has something of each kind to tell.
fn git_status(site: &Site) -> anyhow::Result<Scene> {
    let repository = site.path("repository");
    fs::create_dir(&repository)?;
    for number in 0..40 {
        let directory = repository.join(format!("directory-{}", number % 5));
        fs::create_dir_all(&directory)?;
        files::make_text(&directory.join(format!("file-{number}")), 1_511 + number)?;
    }
    fs::write(repository.join(".gitignore"), "ignored\n")?;
    let git = |arguments: &[&str]| -> anyhow::Result<Vec<OsString>> {
        let git = find_program("git").context("git is gone")?;
        // No user's or system's configuration, and no index written on the way: each status reads
        // the same.
        let mut command = words(&[
            &"env",
            &"GIT_CONFIG_NOSYSTEM=1",
            &"GIT_CONFIG_GLOBAL=/dev/null",
            &"GIT_OPTIONAL_LOCKS=0",
            &git,
            &"-C",
            &repository,
        ]);
        command.extend(arguments.iter().map(OsString::from));
        Ok(command)
    };
    rehearse(&git(&["init", "-q"])?)?;
    rehearse(&git(&["add", "."])?)?;
    let identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"];
    rehearse(&git(
        &[&identity[..], &["commit", "-q", "-m", "all"]].concat()
    )?)?;
    fs::write(repository.join("directory-1/file-1"), "changed\n")?;
    fs::write(repository.join("directory-2/new"), "new\n")?;
    fs::write(repository.join("ignored"), "ignored\n")?;
    let command = git(&["status", "--short"])?;
    let prints = rehearse(&command)?;
    ensure!(!prints.is_empty(), "git sees no change");
    let reads: HashMap<PathBuf, u64> = bytes_read_by(&command, &site.directory)?;
    ensure!(!reads.is_empty(), "strace sees no read of git");
    Ok(Scene::new(command, move |check, _| {
        for (file, bytes) in &reads {
            check.equal(&on(file, "read"), "bytes_returned", *bytes);
        }
        check.at_least(&all_on("mmap"), "minor_faults", 1);
        Ok(())
    })
    .printing(Stdout::Exactly(prints)))
}
