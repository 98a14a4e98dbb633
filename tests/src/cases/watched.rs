//! Watching copies where that is made hard: for a part of the time, beside debuggers and other
//! mmtraces, on processors that go, with too few debug registers. And on other file systems.

use std::{
    cell::RefCell,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, ensure};
use perf_event::{Builder, Counter, events::Breakpoint};

use super::{
    copies::{mapped, to_user},
    file_systems::overlay,
};
use crate::{
    case::{Case, Need, Part, Scene, Site, State, case, find_program, rehearse, words},
    check::{Check, on},
    files,
    mounts::Mount,
    recording::Recording,
};

pub(super) fn cases() -> Vec<Case> {
    let programs = ["rg", "python3"].map(Need::Program);
    let mounted = [
        &[Need::Disposable, Need::Part(Part::Slow), Need::Mounts],
        &programs[..],
    ]
    .concat();
    let mut cases = vec![
        case("copies/sampled", &[Need::Part(Part::Slow)], |site| {
            for_a_part(site, &["--copies", "sampled"])
        }),
        case("copies/auto", &[Need::Part(Part::Slow)], |site| {
            for_a_part(site, &["--copies", "auto", "--copy-budget", "0.1"])
        }),
        case("copies/on-tmpfs", &mounted, on_tmpfs),
        case("copies/on-overlay", &mounted, on_overlay),
        case(
            "copies/registers-taken",
            &[Need::Part(Part::Slow)],
            registers_taken,
        ),
        case("copies/debugged", &[], debugged),
        case(
            "copies/beside-another",
            &[Need::Part(Part::Slow), Need::SpareRegister],
            beside_another,
        ),
        case("copies/hotplug", &[Need::Hotplug], hotplug),
        case("copies/map-calls", &[Need::Traced("dd")], map_calls),
        case("copies/privileged", &[Need::Part(Part::Slow)], privileged),
        case(
            "copies/rights-dropped",
            &[Need::Disposable, Need::Part(Part::Slow)],
            rights_dropped,
        ),
        // Whose directories everybody may enter.
        case("copies/as-user", &[Need::Disposable], as_user),
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
        near_enough(check, &file, size)
    })
    .with_options(options)
    .with_copies("sampled"))
}

/// What is said to have been copied of a file that was read whole, in small pieces, is as near to the
/// truth as it is said to be.
fn near_enough(check: &mut Check<'_>, file: &Path, size: u64) -> anyhow::Result<()> {
    let sampling = check.recording().copy_sampling();
    let sampling = sampling.context("nothing says how they were sampled")?;
    check.that((1..sampling.run_ns).contains(&sampling.watched_ns), || {
        format!(
            "{} ns of {} were watched",
            sampling.watched_ns, sampling.run_ns
        )
    });
    let bound = sampling.error_bounds.get("read").copied();
    let rows = on(file, "read");
    check.equal(&rows, "bytes_returned", size);
    let bound = bound.map_or(0, |bound| bound.copied_to_user_bytes);
    // Few windows tell little, and it says so; how many there are depends on how fast the machine is.
    check.that(bound < size / 2 || sampling.windows < 10, || {
        format!(
            "it may be off by {bound} after {} windows",
            sampling.windows
        )
    });
    check.at_least(&rows, "copied_to_user_bytes", size.saturating_sub(bound));
    check.at_most(&rows, "copied_to_user_bytes", size + bound);
    check.equal(&rows, "copied_from_user_bytes", 0);
    mapped(check);
    Ok(())
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
    .keeping(registers)
    .unshared())
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

/// A processor that is taken away and given back again and again, until this is dropped.
struct Flapping {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<u32>>>,
}

/// The switch of the last processor.
pub(crate) const SWITCH: &str = "/sys/devices/system/cpu/cpu1/online";

impl Flapping {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut times = 0;
                while !stop.load(Ordering::Relaxed) {
                    fs::write(SWITCH, "0")?;
                    fs::write(SWITCH, "1")?;
                    times += 1;
                }
                Ok(times)
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it: how often the processor was taken away.
    fn end(&mut self) -> anyhow::Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it has ended before")?;
        let times = thread.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
        times.context("switching a processor")
    }
}

impl Drop for Flapping {
    fn drop(&mut self) {
        if self.thread.is_some()
            && let Err(error) = self.end()
        {
            eprintln!("mmtrace-tests: {error:#}");
        }
    }
}

/// A processor that comes and goes takes nothing with it, but perhaps the time of some faults, what they
/// were on, and some copies: all are told as lost.
fn hotplug(site: &Site) -> anyhow::Result<Scene> {
    /// How often each page is written.
    const ROUNDS: u64 = 12;
    const SCRIPT: &str = "
set -e
\"$1\" workload threads \"$2\" 13 211
round=0
while [ $round -lt $4 ]; do
    round=$((round + 1))
    \"$1\" workload touch \"$3\" private,write
done > /dev/null";
    let size = site.size_bytes();
    let [file, map] = ["read", "map"].map(|name| site.data(name, size));
    let (file, map) = (file?, map?);
    site.bring(State::Warm, &file)?;
    site.bring(State::Warm, &map)?;
    let rounds = ROUNDS.to_string();
    let command = words(&[
        &"sh",
        &"-c",
        &SCRIPT,
        &"sh",
        &site.myself,
        &file,
        &map,
        &rounds,
    ]);
    rehearse(&command)?;
    let pages = ROUNDS * size.div_ceil(files::page_size());
    let flapping = RefCell::new(Flapping::start());
    let scene = Scene::workload(command, move |check, truth| {
        let times = flapping.borrow_mut().end()?;
        check.that(times > 0, || "the processor stayed".into());
        ensure!(truth.returned_bytes == size);
        let read = on(&file, "read");
        check.equal(&read, "bytes_returned", size);
        // Until the breakpoints are back on a processor that has come, and that is said.
        if check.recording().lost.contains_key("copies") {
            check.at_most(&read, "copied_to_user_bytes", size);
        } else {
            to_user(check, &read, size);
        }
        let faults = on(&map, "mmap");
        // Until the fault events are back, it is not known what a fault was on whose end only the
        // task's counters tell, if nothing told it at its beginning.
        let unknown = check.recording().lost.get("mappings").copied();
        check.at_most(&faults, "minor_faults", pages);
        check.at_least(&faults, "minor_faults", pages - unknown.unwrap_or(0));
        check.equal(&faults, "major_faults", 0);
        check.equal(&faults, "mapped_bytes", pages * files::page_size());
        check.equal(
            &faults,
            "copied_in_kernel_bytes",
            pages * files::page_size(),
        );
        mapped(check);
        Ok(())
    })
    .perhaps_losing("fault_times")
    .perhaps_losing("copies");
    // Only there is a fault's mapping not known at its beginning.
    Ok(if site.backend == "tracepoint" {
        scene.perhaps_losing("mappings")
    } else {
        scene
    })
}

/// While the command runs, mmtrace makes no `bpf` call, though it looks at its windows meanwhile: such a
/// call holds events off.
fn map_calls(site: &Site) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Warm, size)?;
    let [tracer, calls] = ["tracer", "calls"].map(|name| site.path(name));
    let script = format!(
        "#!/bin/sh\nexec strace -f -q --seccomp-bpf -e trace=bpf,execve -o '{}' '{}' \"$@\"\n",
        calls.display(),
        site.mmtrace.display()
    );
    fs::write(&tracer, script)?;
    fs::set_permissions(&tracer, fs::Permissions::from_mode(0o755))?;
    let command = site.workload("read", &[&file, &"read", &"11"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        let sampling = check.recording().copy_sampling();
        let windows = sampling.context("nothing was sampled")?.windows;
        check.that(windows > 1, || format!("{windows} windows"));
        let calls = fs::read_to_string(&calls)?;
        let lines: Vec<&str> = calls.lines().collect();
        let start = lines.iter().rposition(|line| line.contains(" execve("));
        let (before, run) = lines.split_at(start.context("it ran nothing")?);
        let is_call = |line: &&&str| line.contains(" bpf(");
        ensure!(
            before.iter().any(|line| is_call(&line)),
            "strace sees no bpf call"
        );
        let process = run[0].split(' ').next();
        let ends = |line: &&str| line.split(' ').next() == process && line.contains("+++ exited");
        let end = run.iter().position(ends).context("it has no end")?;
        let made = run[..end].iter().filter(is_call).count();
        check.that(made == 0, || {
            format!("{made} bpf calls while the command ran")
        });
        Ok(())
    })
    .with_options(&["--copies", "sampled"])
    .with_copies("sampled")
    .traced_by(tracer)
    .alone())
}

/// What a program that gives its own group's rights copies is seen like any other's, and what comes
/// after it.
fn privileged(site: &Site) -> anyhow::Result<Scene> {
    const SCRIPT: &str = "
set -e
\"$1\" workload read \"$3\" read 5003
\"$2\" workload read \"$4\" read 5003 > /dev/null
\"$1\" workload read \"$3\" read 5003 > /dev/null";
    /// Not the superuser's.
    const GROUP: u32 = 65_534;
    let size = site.size_bytes();
    let [before, given] = ["before", "given"].map(|name| site.data(name, size));
    let (before, given) = (before?, given?);
    site.bring(State::Warm, &before)?;
    site.bring(State::Warm, &given)?;
    let program = site.path("program");
    fs::copy(&site.myself, &program)?;
    chown(&program, None, Some(GROUP))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o2_755))?;
    let command = words(&[
        &"sh",
        &"-c",
        &SCRIPT,
        &"sh",
        &site.myself,
        &program,
        &before,
        &given,
    ]);
    rehearse(&command)?;
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        to_user(check, &on(&before, "read"), 2 * size);
        to_user(check, &on(&given, "read"), size);
        Ok(())
    })
    .unshared())
}

/// A command that gives its rights up can start threads and processes as before.
fn rights_dropped(site: &Site) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Warm, size)?;
    let program = site.path("program");
    fs::copy(&site.myself, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    for directory in site.directory.ancestors().take(2) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    let command = words(&[
        &"setpriv",
        &"--reuid=65534",
        &"--clear-groups",
        &"sh",
        &"-c",
        &"\"$1\" workload threads \"$2\" 13 211; exit $?",
        &"sh",
        &program,
        &file,
    ]);
    rehearse(&command)?;
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        to_user(check, &on(&file, "read"), size);
        Ok(())
    })
    .alone())
}

/// A command without rights starts threads and processes, and a program that gives it some: all of
/// their copies are seen.
fn as_user(site: &Site) -> anyhow::Result<Scene> {
    const SCRIPT: &str = "
set -e
\"$1/program\" workload threads \"$1/read\" 13 211
\"$1/setuid\" workload read \"$1/secret\" read 5003 > /dev/null";
    let size = site.size_bytes();
    let [read, secret] = ["read", "secret"].map(|name| site.data(name, size));
    let (read, secret) = (read?, secret?);
    for (name, mode) in [("program", 0o755), ("setuid", 0o4_755)] {
        let program = site.path(name);
        fs::copy(&site.myself, &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(mode))?;
    }
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    for directory in site.directory.ancestors().take(2) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    let command = words(&[&"sh", &"-c", &SCRIPT, &"sh", &site.directory]);
    rehearse(&command)?;
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == size);
        to_user(check, &on(&read, "read"), size);
        to_user(check, &on(&secret, "read"), size);
        Ok(())
    })
    .with_options(&["--user", "nobody"])
    .alone())
}
