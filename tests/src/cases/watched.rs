//! Watching copies where that is made hard: for a part of the time, beside debuggers and other
//! mmtraces, with too few debug registers. And on other file systems.

use std::{
    cell::RefCell,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, ensure};
use perf_event::{Builder, Counter, events::Breakpoint};

use super::{
    copies::{mapped, to_user},
    file_systems::overlay,
};
use crate::{
    case::{Case, Need, Scene, Site, State, case, find_program, rehearse, words},
    check::{Check, on},
    files,
    mounts::Mount,
    recording::Recording,
};

pub(super) fn cases() -> Vec<Case> {
    let programs = ["rg", "python3"].map(Need::Program);
    let mounted = [&[Need::ScratchDisks(1), Need::Mounts], &programs[..]].concat();
    let mut cases = vec![
        case("copies/sampled", &[Need::Thorough], |site| {
            for_a_part(site, &["--copies", "sampled"])
        }),
        case("copies/auto", &[Need::Thorough], |site| {
            for_a_part(site, &["--copies", "auto", "--copy-budget", "0.1"])
        }),
        case("copies/on-tmpfs", &mounted, on_tmpfs),
        case("copies/on-overlay", &mounted, on_overlay),
        case("copies/registers-taken", &[Need::Thorough], registers_taken),
        case("copies/debugged", &[], debugged),
        case("copies/beside-another", &[Need::Thorough], beside_another),
    ];
    for case in &mut cases {
        case.needs.splice(0..0, [Need::FirstBackend, Need::Copies]);
    }
    cases
}

/// What a path is said to have copied while it was not always watched is as near to the truth as it
/// is said to be.
fn for_a_part(site: &Site, options: &[&'static str]) -> anyhow::Result<Scene> {
    /// Small, so that there are many calls, which takes a while.
    const BLOCK_BYTES: &str = "11";
    let size = site.size_bytes();
    let file = site.data_in(State::Warm, size)?;
    let command = site.workload("read", &[&file, &"read", &BLOCK_BYTES]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        let recording = check.recording();
        let sampling = recording.copy_sampling();
        let sampling = sampling.context("nothing says how they were sampled")?;
        check.that((1..sampling.run_ns).contains(&sampling.watched_ns), || {
            format!(
                "{} ns of {} were watched",
                sampling.watched_ns, sampling.run_ns
            )
        });
        let bound = sampling.error_bounds.get("read").copied();
        let rows = on(&file, "read");
        check.equal(&rows, "bytes_returned", size);
        let bound = bound.map_or(0, |bound| bound.copied_to_user_bytes);
        check.that(bound < size / 2, || format!("it may be off by {bound}"));
        check.at_least(&rows, "copied_to_user_bytes", size - bound);
        check.at_most(&rows, "copied_to_user_bytes", size + bound);
        check.equal(&rows, "copied_from_user_bytes", 0);
        mapped(check);
        Ok(())
    })
    .with_options(options)
    .with_copies("sampled"))
}

/// Programs that read and map files in a directory, each one of its own.
fn programs(site: &Site, directory: &Path) -> anyhow::Result<Scene> {
    const SCRIPT: &str = "
set -e
cd \"$1\"
dd if=dd of=copy bs=65537 status=none
cat cat > /dev/null
\"$2\" --no-config --no-mmap -c needle rg-read > /dev/null
\"$2\" --no-config --mmap -c needle rg-mmap > /dev/null
\"$3\" -S -c 'open(\"python-read\", \"rb\", buffering=0).read()'
\"$3\" -S -c 'import mmap
file = open(\"python-mmap\", \"rb\")
sum(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)[::4096])'
exec \"$4\" workload touch touched shared
";
    let size = site.size_bytes();
    let [rg, python] = ["rg", "python3"].map(|name| find_program(name).context("it is gone"));
    let (rg, python) = (rg?, python?);
    let command = words(&[
        &"sh",
        &"-c",
        &SCRIPT,
        &"sh",
        &directory,
        &rg,
        &python,
        &site.myself,
    ]);
    rehearse(&command)?;
    fs::remove_file(directory.join("copy"))?;
    let directory = directory.to_owned();
    Ok(Scene::workload(command, move |check, _| {
        for name in READ {
            to_user(check, &on(&directory.join(name), "read"), size);
        }
        let copy = directory.join("copy");
        check.equal(&on(&copy, "write"), "copied_from_user_bytes", size);
        for name in MAPPED {
            let file = directory.join(name);
            check.some_faults(&on(&file, "mmap"));
            to_user(check, &on(&file, "read"), 0);
        }
        mapped(check);
        Ok(())
    }))
}

/// The files of [`programs`].
const READ: [&str; 4] = ["dd", "cat", "rg-read", "python-read"];
const MAPPED: [&str; 3] = ["rg-mmap", "python-mmap", "touched"];

fn make_files(site: &Site, directory: &Path) -> anyhow::Result<()> {
    for name in READ.into_iter().chain(MAPPED) {
        files::make_text(&directory.join(name), site.size_bytes())?;
    }
    Ok(())
}

fn on_tmpfs(site: &Site) -> anyhow::Result<Scene> {
    let directory = site.path("mounted");
    let mount = Mount::new(Path::new("tmpfs"), &directory, "tmpfs", "")?;
    make_files(site, &directory)?;
    Ok(programs(site, &directory)?.keeping(mount))
}

fn on_overlay(site: &Site) -> anyhow::Result<Scene> {
    for layer in ["lower", "upper"] {
        fs::create_dir(site.path(layer))?;
    }
    make_files(site, &site.path("lower"))?;
    let mount = overlay(site)?;
    Ok(programs(site, &site.path("merged"))?.keeping(mount))
}

/// Every debug register of every processor, as a debugger takes one: until it is dropped.
fn take_registers() -> anyhow::Result<Vec<Counter>> {
    /// x86 has as many.
    const REGISTERS: usize = 4;
    static WATCHED: u64 = 0;
    let cpus = thread::available_parallelism()?.get();
    let each = (0..cpus).flat_map(|cpu| [cpu; REGISTERS]);
    each.map(|cpu| {
        let watch = Breakpoint::write(&raw const WATCHED as u64, 8);
        Builder::new(watch)
            .any_pid()
            .one_cpu(cpu)
            .exclude_kernel(true)
            .build()
            .context("taking a debug register")
    })
    .collect()
}

/// Without a register, copies are taken from what calls return, and that is said.
fn registers_taken(site: &Site) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Warm, size)?;
    let command = site.workload("read", &[&file, &"read", &"5003"]);
    let registers = take_registers()?;
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        let reason = check.missing("copies").unwrap_or_default().to_owned();
        check.that(reason.contains("debug registers"), || {
            format!("why not is said to be {reason:?}")
        });
        check.equal(&on(&file, "read"), "bytes_returned", size);
        Ok(())
    })
    .with_options(&["--copies", "auto"])
    .with_copies("returns")
    .keeping(registers))
}

/// A debugger in the traced command watches a variable of its child's. It gets a register where one
/// is left (up to Linux 6.3), and is refused where none is; what is copied is right either way.
fn debugged(site: &Site) -> anyhow::Result<Scene> {
    const STORES: u64 = 17;
    const BLOCK_BYTES: u64 = 5_003;
    let file = site.data_in(State::Warm, 1_000_003)?;
    let command = site.workload(
        "debugged",
        &[&file, &BLOCK_BYTES.to_string(), &STORES.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        let watched = check.recording().hooks();
        let taken = watched.iter().filter(|hook| hook.purpose == "copies");
        let expected = if taken.count() == 4 { 0 } else { STORES };
        check.that(truth.calls == expected, || {
            format!(
                "the debugger was told of {} stores, must be of {expected}",
                truth.calls
            )
        });
        to_user(check, &on(&file, "read"), STORES * BLOCK_BYTES);
        Ok(())
    }))
}

/// Another mmtrace, whose command waits.
struct Another {
    tracer: Child,
    outputs: tempfile::TempDir,
}

impl Another {
    /// Starts one whose command reads the file before it waits, and again after.
    fn start(site: &Site, file: &Path) -> anyhow::Result<Self> {
        const SCRIPT: &str = "
dd if=\"$1\" of=/dev/null bs=4099 status=none; echo ready
read line; dd if=\"$1\" of=/dev/null bs=4099 status=none";
        let outputs = tempfile::tempdir()?;
        let mut tracer = Command::new(&site.mmtrace)
            .args([
                "run",
                "-q",
                "--copies",
                "exact",
                "--backend",
                &site.backend,
                "-o",
            ])
            .arg(outputs.path().join("recording.json"))
            .args(["--", "sh", "-c", SCRIPT, "sh"])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = tracer.stdout.take().context("no pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(
            line == "ready\n",
            "the other mmtrace's command did not start"
        );
        Ok(Self { tracer, outputs })
    }

    /// Lets its command end: what it has recorded.
    fn end(mut self) -> anyhow::Result<Recording> {
        drop(self.tracer.stdin.take());
        let status = self.tracer.wait()?;
        ensure!(status.success(), "the other mmtrace: {status}");
        Recording::load(&self.outputs.path().join("recording.json"))
    }
}

/// Two at once: both see their own command's copies, all of them and no others.
fn beside_another(site: &Site) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Warm, size)?;
    let other = RefCell::new(Some(Another::start(site, &file)?));
    let command = site.workload("read", &[&file, &"read", &"5003"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        to_user(check, &on(&file, "read"), size);
        let other = other.take().context("it has been judged before")?.end()?;
        let mut others = Check::new(&other, other.all_processes());
        to_user(&mut others, &on(&file, "read"), 2 * size);
        check.takes_over(others);
        Ok(())
    })
    .unshared())
}
