//! What the kernel's copy routines move, seen there: skipped where it cannot be.

use anyhow::{Context as _, ensure};

use crate::{
    case::{
        ANY_FILE_SYSTEM, Case, Need, Scene, Site, State, Stdout, case, find_program, rehearse,
        words,
    },
    check::{Check, Rows, all_of, all_on, on},
    files,
};

/// A prime number of bytes, not near a page's size.
const BLOCK_BYTES: u64 = 5_003;
/// As many bytes as a disk takes directly.
const DIRECT_BYTES: u64 = 13 * 4_096;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for call in ["read", "pread", "readv", "preadv", "preadv2"] {
        cases.push(case(format!("copies/{call}"), &[], move |site| {
            let command = |file: &dyn AsRef<std::ffi::OsStr>| {
                site.workload("read", &[file, &call, &BLOCK_BYTES.to_string()])
            };
            read(site, command)
        }));
    }
    for how in ["read", "readv", "fixed", "async", "sqpoll"] {
        cases.push(case(
            format!("copies/uring-{how}"),
            &[Need::Uring],
            move |site| {
                let size = site.size_bytes().to_string();
                let command = |file: &dyn AsRef<std::ffi::OsStr>| {
                    site.workload("uring", &[&how, file, &BLOCK_BYTES.to_string(), &size])
                };
                Ok(requests(site, read(site, command)?))
            },
        ));
    }
    for how in ["pread", "preadv"] {
        cases.push(case(
            format!("copies/aio-{how}"),
            &[Need::Aio],
            move |site| {
                let size = site.size_bytes().to_string();
                let command = |file: &dyn AsRef<std::ffi::OsStr>| {
                    site.workload("aio", &[&how, &BLOCK_BYTES.to_string(), &size, file])
                };
                read(site, command)
            },
        ));
    }
    for block in ["1", "4096", "65537", "1048576"] {
        cases.push(case(format!("copies/dd-{block}"), &[], move |site| {
            dd(site, block)
        }));
    }
    for mapping in [false, true] {
        let name = if mapping { "mmap" } else { "no-mmap" };
        cases.push(case(
            format!("copies/rg-{name}"),
            &[Need::Program("rg")],
            move |site| ripgrep(site, mapping),
        ));
        cases.push(case(
            format!("copies/python-{}", if mapping { "mmap" } else { "read" }),
            &[Need::Program("python3")],
            move |site| python(site, mapping),
        ));
    }
    for call in ["write", "pwrite", "writev"] {
        cases.push(case(format!("copies/{call}"), &[], move |site| {
            write(site, &call, "write")
        }));
    }
    for how in ["write", "writev", "write-fixed"] {
        cases.push(case(
            format!("copies/uring-{how}"),
            &[Need::Uring],
            move |site| Ok(requests(site, write(site, &how, "uring")?)),
        ));
    }
    cases.extend([
        case("copies/aio-pwrite", &[Need::Aio], |site| {
            write(site, &"pwrite", "aio")
        }),
        case("copies/touched", &[], touched),
        case("copies/into-mapping", &[Need::Cold], into_mapping),
        case("copies/direct", &[Need::DirectIo, Need::Cold], direct),
        case("copies/cat-piped", &[], piped),
        case("copies/short-reads", &[], short_reads),
        case("copies/short-writes", &[Need::Cold], short_writes),
        case("copies/bad-stats", &[ANY_FILE_SYSTEM], bad_stats),
        case("copies/fork-1000-readers", &[ANY_FILE_SYSTEM], fork_readers),
        case("copies/64-threads", &[ANY_FILE_SYSTEM], |site| {
            threads(site, "64", "4099")
        }),
        case("copies/1000-threads", &[ANY_FILE_SYSTEM], |site| {
            threads(site, "1000", "509")
        }),
        case("copies/exec-chain", &[ANY_FILE_SYSTEM], exec_chain),
    ]);
    for how in ["pipe", "socket"] {
        cases.push(case(
            format!("copies/{how}"),
            &[ANY_FILE_SYSTEM],
            move |site| talk(site, "talk", how),
        ));
    }
    for how in ["msg", "mmsg", "posix", "sysv"] {
        cases.push(case(
            format!("copies/{how}"),
            &[ANY_FILE_SYSTEM],
            move |site| talk(site, "messages", how),
        ));
    }
    for case in &mut cases {
        case.needs.insert(0, Need::FirstBackend);
    }
    cases
}

/// Apart from all others where tracepoints are all that there is: with requests of io_uring in a run,
/// no more is said of what it copied.
fn requests(site: &Site, scene: Scene) -> Scene {
    match site.backend.as_str() {
        "tracepoint" => scene.in_group("requests"),
        _ => scene,
    }
}

/// Requires so many bytes to have been copied to the program, and none from it.
pub(super) fn to_user(check: &mut Check<'_>, rows: &Rows, bytes: u64) {
    check.equal(rows, "bytes_returned", bytes);
    check.equal(rows, "copied_to_user_bytes", bytes);
}

/// Requires that mappings were used, and nothing was copied for them.
pub(super) fn mapped(check: &mut Check<'_>) {
    let all = all_on("mmap");
    check.some_faults(&all);
    check.equal(&all, "copied_to_user_bytes", 0);
    check.equal(&all, "copied_from_user_bytes", 0);
}

/// A workload that reads all of a file.
fn read(
    site: &Site,
    command: impl Fn(&dyn AsRef<std::ffi::OsStr>) -> Vec<std::ffi::OsString>,
) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Warm, size)?;
    Ok(Scene::workload(command(&file), move |check, truth| {
        ensure!(truth.returned_bytes == size);
        to_user(check, &on(&file, "read"), size);
        mapped(check);
        Ok(())
    }))
}

fn dd(site: &Site, block: &str) -> anyhow::Result<Scene> {
    let size = if block == "1" {
        10_007
    } else {
        site.size_bytes()
    };
    let file = site.data_in(State::Warm, size)?;
    let copy = site.path("copy");
    let [mut input, mut output] = ["if=", "of="].map(std::ffi::OsString::from);
    input.push(&file);
    output.push(&copy);
    let command = words(&[
        &"dd",
        &input,
        &output,
        &format!("bs={block}"),
        &"status=none",
    ]);
    rehearse(&command)?;
    Ok(Scene::new(command, move |check, _| {
        to_user(check, &on(&file, "read"), size);
        let written = on(&copy, "write");
        check.equal(&written, "copied_from_user_bytes", size);
        check.equal(&written, "copied_to_user_bytes", 0);
        mapped(check);
        Ok(())
    }))
}

fn ripgrep(site: &Site, mapping: bool) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.path("text");
    files::make_text(&file, size)?;
    let rg = find_program("rg").context("rg is gone")?;
    let how = if mapping { "--mmap" } else { "--no-mmap" };
    let command = words(&[&rg, &"--no-config", &how, &"-c", &"needle", &file]);
    let prints = rehearse(&command)?;
    Ok(Scene::new(command, move |check, _| {
        to_user(check, &on(&file, "read"), if mapping { 0 } else { size });
        mapped(check);
        Ok(())
    })
    .printing(Stdout::Exactly(prints)))
}

fn python(site: &Site, mapping: bool) -> anyhow::Result<Scene> {
    /// Sums bytes of a file that is read, or mapped.
    const SCRIPT: &str = "
import mmap, sys
with open(sys.argv[1], 'rb', buffering=0) as file:
    if sys.argv[2] == 'mmap':
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    else:
        view = file.read()
    print(sum(view[::4096]))
";
    let size = site.size_bytes();
    let file = site.data_in(State::Warm, size)?;
    let python = find_program("python3").context("python3 is gone")?;
    let how = if mapping { "mmap" } else { "read" };
    let command = words(&[&python, &"-S", &"-c", &SCRIPT, &file, &how]);
    let prints = rehearse(&command)?;
    Ok(Scene::new(command, move |check, _| {
        to_user(check, &on(&file, "read"), if mapping { 0 } else { size });
        if mapping {
            check.some_faults(&on(&file, "mmap"));
        }
        mapped(check);
        Ok(())
    })
    .printing(Stdout::Exactly(prints)))
}

fn write(site: &Site, how: &dyn AsRef<std::ffi::OsStr>, by: &str) -> anyhow::Result<Scene> {
    const CALLS: u64 = 101;
    let file = site.path("written");
    let total = CALLS * BLOCK_BYTES;
    let [block, calls, bytes] = [BLOCK_BYTES, CALLS, total].map(|number| number.to_string());
    let command = match by {
        "aio" => site.workload(by, &[how, &block, &bytes, &file]),
        "uring" => site.workload(by, &[how, &file, &block, &bytes]),
        _ => site.workload(by, &[&file, how, &block, &calls]),
    };
    // A `struct iocb`, or three of `struct iovec`.
    let arguments = match how.as_ref().to_str() {
        _ if by == "aio" => 64,
        Some("writev") => 48,
        _ => 0,
    };
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == total);
        let rows = on(&file, "write");
        let more = if arguments_are_seen(check) {
            CALLS * arguments
        } else {
            0
        };
        check.equal(&rows, "copied_from_user_bytes", total + more);
        check.equal(&rows, "copied_to_user_bytes", 0);
        mapped(check);
        Ok(())
    }))
}

/// Each page is touched, and none copied.
fn touched(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Warm, site.size_bytes())?;
    let command = site.workload("touch", &[&file, &"random"]);
    Ok(Scene::workload(command, move |check, truth| {
        check.faults(&on(&file, "mmap"), truth.faults.sum());
        check.equal(&all_of(&file), "copied_to_user_bytes", 0);
        mapped(check);
        Ok(())
    }))
}

/// The copies fault on what they copy to, and are the reads' all the same.
fn into_mapping(site: &Site) -> anyhow::Result<Scene> {
    const SIZE_BYTES: u64 = 1_000_003;
    let from = site.data("from", SIZE_BYTES)?;
    let into = site.data("into", SIZE_BYTES)?;
    site.bring(State::Warm, &from)?;
    site.bring(State::Cold, &into)?;
    let command = site.workload("read-into-mapping", &[&from, &into, &"65003"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.faults.sum() > 0, "the reads take no fault");
        to_user(check, &on(&from, "read"), SIZE_BYTES);
        check.some_faults(&on(&into, "mmap"));
        check.equal(&all_of(&into), "copied_to_user_bytes", 0);
        mapped(check);
        Ok(())
    }))
}

/// The disk stores into the program's memory by itself.
fn direct(site: &Site) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Cold, size)?;
    let command = site.workload("direct", &[&file, &DIRECT_BYTES.to_string(), &"touched"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        let rows = on(&file, "direct");
        check.equal(&rows, "bytes_returned", size);
        check.equal(&rows, "copied_to_user_bytes", 0);
        Ok(())
    }))
}

/// What goes through a pipe is copied into it and out of it.
fn piped(site: &Site) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Warm, size)?;
    let command = words(&[&"sh", &"-c", &"cat \"$1\" | wc -c", &"sh", &file]);
    rehearse(&command)?;
    Ok(Scene::new(command, move |check, _| {
        to_user(check, &on(&file, "read"), size);
        let pipe = all_on("ipc");
        check.equal(&pipe, "copied_to_user_bytes", size);
        check.equal(&pipe, "copied_from_user_bytes", size);
        Ok(())
    })
    .printing(Stdout::Exactly(format!("{size}\n").into())))
}

/// Each message is copied in and out once.
fn talk(site: &Site, workload: &str, how: &'static str) -> anyhow::Result<Scene> {
    const MESSAGE_BYTES: u64 = 4_099;
    const CALLS: u64 = 101;
    let command = site.workload(
        workload,
        &[&how, &MESSAGE_BYTES.to_string(), &CALLS.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes % 2 == 0 && truth.returned_bytes > 0);
        let rows = all_on("ipc");
        let half = truth.returned_bytes / 2;
        check.equal(&rows, "copied_to_user_bytes", half);
        if how.ends_with("msg") && arguments_are_seen(check) {
            check.at_least(&rows, "copied_from_user_bytes", half);
        } else {
            check.equal(&rows, "copied_from_user_bytes", half);
        }
        Ok(())
    }))
}

/// Whether what calls read of their arguments is seen as well: up to 6.3.
fn arguments_are_seen(check: &Check<'_>) -> bool {
    let hooks = check.recording().hooks();
    hooks
        .iter()
        .any(|hook| hook.purpose == "copies" && hook.name.starts_with("copy_user_"))
}

/// Copies that stop before their end count for what they moved.
fn short_reads(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Warm, site.size_bytes())?;
    let command = site.workload("short-reads", &[&file]);
    Ok(Scene::workload(command, move |check, truth| {
        to_user(check, &on(&file, "read"), truth.returned_bytes);
        Ok(())
    }))
}

/// So do those that are tried again.
fn short_writes(site: &Site) -> anyhow::Result<Scene> {
    let cold = site.data_in(State::Cold, site.size_bytes())?;
    let to = site.path("to");
    let command = site.workload("short-writes", &[&cold, &to]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.faults.sum() > 0, "the writes take no fault");
        let written = on(&to, "write");
        check.equal(&written, "bytes_returned", truth.returned_bytes);
        check.equal(&written, "copied_from_user_bytes", truth.returned_bytes);
        check.some_faults(&on(&cold, "mmap"));
        mapped(check);
        Ok(())
    }))
}

/// What is asked for and does not get there was not copied.
fn bad_stats(site: &Site) -> anyhow::Result<Scene> {
    const CALLS: u64 = 10_007;
    let command = site.workload("bad-stats", &[&CALLS.to_string()]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.calls == CALLS);
        let others = all_on("other");
        // The program's own start copies a little.
        check.at_least(&others, "copied_to_user_bytes", 1);
        check.at_most(&others, "copied_to_user_bytes", truth.requested_bytes / 100);
        Ok(())
    }))
}

fn fork_readers(site: &Site) -> anyhow::Result<Scene> {
    const CHILDREN: u64 = 1_000;
    const READ_BYTES: u64 = 1_511;
    let file = site.data_in(State::Warm, 10_007)?;
    let command = site.workload(
        "fork-readers",
        &[&file, &CHILDREN.to_string(), &READ_BYTES.to_string()],
    );
    Ok(Scene::workload(command, move |check, _| {
        let read = on(&file, "read");
        let children = usize::try_from(CHILDREN)?;
        check.each_process(&read, "copied_to_user_bytes", READ_BYTES, children);
        Ok(())
    }))
}

fn threads(site: &Site, threads: &str, block: &str) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Warm, size)?;
    let command = site.workload("threads", &[&file, &threads, &block]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        to_user(check, &on(&file, "read"), size);
        Ok(())
    }))
}

fn exec_chain(site: &Site) -> anyhow::Result<Scene> {
    const SIZE_BYTES: u64 = 10_007;
    const LINKS: u64 = 11;
    let file = site.data_in(State::Warm, SIZE_BYTES)?;
    let command = site.workload("exec-chain", &[&file, &"1511", &LINKS.to_string()]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes > SIZE_BYTES);
        to_user(check, &on(&file, "read"), truth.returned_bytes);
        Ok(())
    }))
}
