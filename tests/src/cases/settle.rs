//! `mmtrace settle`: its verdicts, and that nothing spoilt is confirmed.

use std::{
    ffi::OsStr,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    case::{Case, Need, Part, Scene, Site, case, rehearse, words},
    leftovers::{Objects, until},
    mounts::Mount,
    settle::{Settlement, refused},
    tracer::copies_can_be_watched,
    workload,
};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Need] = &[
        Need::FirstBackend,
        Need::Part(Part::Spoilt),
        Need::Cold,
        Need::DirectIo,
    ];
    vec![
        settled(
            "settle/claims",
            &[
                Need::FirstBackend,
                Need::Part(Part::Claims),
                Need::Cold,
                Need::DirectIo,
            ],
            claims,
        ),
        settled("settle/small-sizes", NEEDS, small_sizes),
        settled("settle/repeated", NEEDS, repeated),
        settled(
            "settle/swap",
            &[Need::FirstBackend, Need::Cold, Need::ScratchDisks(1)],
            swap,
        ),
        settled("settle/spoilt-cache", NEEDS, spoilt_cache),
        settled("settle/spoilt-mapping", NEEDS, spoilt_mapping),
        settled("settle/spoilt-disk-probe", NEEDS, spoilt_disk_probe),
        settled("settle/spoilt-copy-probe", NEEDS, spoilt_copy_probe),
        settled(
            "settle/misattached-disk-probe",
            NEEDS,
            misattached_disk_probe,
        ),
        settled(
            "settle/misattached-fault-probe",
            NEEDS,
            misattached_fault_probe,
        ),
        settled("settle/no-copy-probe", NEEDS, no_copy_probe),
        settled("settle/bad-input", &NEEDS[..2], bad_input),
        settled(
            "settle/no-room",
            &[Need::FirstBackend, Need::Part(Part::Spoilt), Need::Mounts],
            no_room,
        ),
        settled("settle/killed", &NEEDS[..2], killed),
        settled("settle/asked-to-end-late", &NEEDS[..2], asked_to_end_late),
    ]
}

/// A case in which mmtrace settles claims by itself, before anything is traced.
pub(super) fn settled(
    name: &'static str,
    needs: &[Need],
    settle: fn(&Site) -> anyhow::Result<()>,
) -> Case {
    case(name, needs, move |site| {
        let before = Objects::now();
        settle(site)?;
        let left = Objects::left_since(&before);
        ensure!(left.is_empty(), "left in the kernel: {left}");
        let mut files = fs::read_dir(&site.directory)?;
        ensure!(files.next().is_none(), "left in the directory");
        Ok(Scene::new(words(&[&"true"]), |_, _| Ok(())))
    })
}

/// Prime, so that no coincidence passes.
const SIZE_BYTES: u64 = 1_000_003;

/// What comes of each claim on every kernel, but for `swapped`, which needs swap space.
const EXPECTED: [(&str, &str); 14] = [
    ("read-two-copies", "confirmed"),
    ("mmap-one-copy", "refuted"),
    ("warm-copies", "confirmed"),
    ("map-reads-nothing", "confirmed"),
    ("visible-only-after-write", "refuted"),
    ("shared-write-visible", "confirmed"),
    ("direct-interaction", "confirmed"),
    ("no-io-calls", "confirmed"),
    ("object-kinds", "confirmed"),
    ("memory-use", "confirmed"),
    ("write-copies", "confirmed"),
    ("ipc-two-copies", "confirmed"),
    ("ipc-mapped-none", "confirmed"),
    ("fewer-copies", "confirmed"),
];

fn as_expected(settlement: &Settlement, claims: &[&str]) -> anyhow::Result<()> {
    for (id, expected) in EXPECTED {
        if claims.is_empty() || claims.contains(&id) {
            let verdict = &settlement.claim(id)?.verdict;
            ensure!(verdict.starts_with(expected), "{id}: {verdict}");
        }
    }
    Ok(())
}

/// Every claim but that about time, with figures that are known without mmtrace.
fn claims(site: &Site) -> anyhow::Result<()> {
    let counted = EXPECTED.map(|(id, _)| id);
    let settlement = Settlement::of(
        site,
        &[&counted[..], &["swapped"]].concat(),
        SIZE_BYTES,
        &[],
    )?;
    as_expected(&settlement, &[])?;
    let swapped = &settlement.claim("swapped")?.verdict;
    ensure!(
        swapped.starts_with("partly") || swapped.contains("swap space"),
        "swapped: {swapped}"
    );
    let mut verdicts = settlement.claims().iter().map(|claim| &claim.verdict);
    let undecided = verdicts.any(|verdict| verdict.starts_with("undecided"));
    ensure!(
        settlement.status == Some(i32::from(undecided)),
        "status {:?}",
        settlement.status
    );
    let copy = settlement.claim("mmap-one-copy")?;
    let [author, reader] = [&copy.author, &copy.reader].map(|it| it.as_ref().map(|it| &it.verdict));
    ensure!(
        author.is_some_and(|it| it.starts_with("refuted")),
        "author: {author:?}"
    );
    ensure!(
        reader.is_some_and(|it| it.starts_with("confirmed")),
        "reader: {reader:?}"
    );

    let size = settlement.size_bytes;
    ensure!(size == SIZE_BYTES, "{size} bytes");
    let on_disk = site.on_disk_bytes(size)?;
    for (experiment, figure, expected) in [
        ("read-cold", "disk_read_bytes", on_disk),
        ("read-cold", "copied_to_user_bytes", size),
        ("read-cold", "copied_from_user_bytes", 0),
        ("read-cold", "operations", size.div_ceil(64 << 10) + 1),
        ("read-warm", "disk_read_bytes", 0),
        ("read-warm", "copied_to_user_bytes", size),
        ("map-cold-shared", "disk_read_bytes", on_disk),
        ("map-cold-shared", "copied_to_user_bytes", 0),
        ("map-cold-private", "copied_to_user_bytes", 0),
        ("map-warm", "copied_to_user_bytes", 0),
        ("map-untouched", "disk_read_bytes", 0),
        ("write-call", "copied_from_user_bytes", size),
        (
            "write-private",
            "copied_in_kernel_bytes",
            size.next_multiple_of(4096),
        ),
        ("ipc-mapped", "copies", 0),
    ] {
        let measured = settlement.figure(experiment, figure)?;
        ensure!(
            measured == Some(expected),
            "{experiment}, {figure}: {measured:?}, not {expected}"
        );
    }
    let text = &settlement.text;
    ensure!(
        text.contains("page cache (mapped, 0 B copied)"),
        "no headline: {text}"
    );
    Ok(())
}

/// Of these, a few.
const CORE: [&str; 4] = [
    "read-two-copies",
    "mmap-one-copy",
    "warm-copies",
    "map-reads-nothing",
];

/// A byte, a page and a byte more: verdicts hold, or there is none. A file system may keep what is so
/// small beside its name, so that nothing is read from where files' data is.
fn small_sizes(site: &Site) -> anyhow::Result<()> {
    for size_bytes in [1, 4096, 4097] {
        let settlement = Settlement::of(site, &CORE, size_bytes, &[])?;
        for id in CORE {
            let verdict = &settlement.claim(id)?.verdict;
            let mut expected = EXPECTED.iter().filter(|(claim, _)| *claim == id);
            let as_always = expected.any(|(_, expected)| verdict.starts_with(expected));
            ensure!(
                as_always || verdict.starts_with("undecided"),
                "{size_bytes}, {id}: {verdict}"
            );
        }
    }
    Ok(())
}

fn repeated(site: &Site) -> anyhow::Result<()> {
    let settlement = Settlement::of(site, &CORE, SIZE_BYTES, &["--repeat", "3"])?;
    as_expected(&settlement, &CORE)
}

/// With swap space it is seen what goes there, and what does not.
fn swap(site: &Site) -> anyhow::Result<()> {
    let disk = site.scratch_disks.first().context("no disk")?;
    rehearse(&words(&[&"mkswap", disk]))?;
    rehearse(&words(&[&"swapon", disk]))?;
    let settlement = Settlement::of(site, &["swapped"], SIZE_BYTES, &[]);
    rehearse(&words(&[&"swapoff", disk]))?;
    let settlement = settlement?;
    let verdict = &settlement.claim("swapped")?.verdict;
    ensure!(verdict.starts_with("partly"), "{verdict}");
    Ok(())
}

/// Settles claims with something spoilt: none of them may be confirmed, or one of its readings.
fn spoilt(site: &Site, kind: &str, claims: &[&str]) -> anyhow::Result<()> {
    let settlement = Settlement::of(site, claims, SIZE_BYTES, &["--sabotage", kind])?;
    for claim in settlement.claims() {
        let readings = [&claim.author, &claim.reader].into_iter().flatten();
        let mut all = readings.map(|it| &it.verdict).chain([&claim.verdict]);
        ensure!(
            !all.any(|it| it.starts_with("confirmed")),
            "{}: {}",
            claim.id,
            claim.verdict
        );
    }
    let copy = settlement.claim("mmap-one-copy")?;
    ensure!(
        copy.verdict.starts_with("undecided"),
        "mmap-one-copy: {}",
        copy.verdict
    );
    ensure!(
        settlement.status == Some(1),
        "status {:?}",
        settlement.status
    );
    Ok(())
}

fn spoilt_cache(site: &Site) -> anyhow::Result<()> {
    let resting = [
        &CORE[..],
        &["visible-only-after-write", "write-copies", "fewer-copies"],
    ]
    .concat();
    spoilt(site, "warm-cache", &resting)
}

fn spoilt_mapping(site: &Site) -> anyhow::Result<()> {
    let resting = [
        "mmap-one-copy",
        "warm-copies",
        "map-reads-nothing",
        "visible-only-after-write",
        "shared-write-visible",
        "direct-interaction",
        "no-io-calls",
        "object-kinds",
        "memory-use",
        "write-copies",
        "fewer-copies",
    ];
    spoilt(site, "copying-map", &resting)
}

fn spoilt_disk_probe(site: &Site) -> anyhow::Result<()> {
    spoilt(site, "blind-disk-probe", &CORE)
}

fn misattached_disk_probe(site: &Site) -> anyhow::Result<()> {
    spoilt(site, "misattached-disk-probe", &CORE)
}

/// The claims that rest on faults. That minor and major ones add up to the same, whichever is which,
/// makes none of them right.
fn misattached_fault_probe(site: &Site) -> anyhow::Result<()> {
    spoilt(
        site,
        "misattached-fault-probe",
        &[
            "mmap-one-copy",
            "warm-copies",
            "map-reads-nothing",
            "visible-only-after-write",
        ],
    )
}

const COPIES: [&str; 6] = [
    "read-two-copies",
    "mmap-one-copy",
    "warm-copies",
    "ipc-two-copies",
    "ipc-mapped-none",
    "fewer-copies",
];

/// Where there are no breakpoints, the watchpoints serve instead, and there is nothing to spoil.
fn spoilt_copy_probe(site: &Site) -> anyhow::Result<()> {
    if copies_can_be_watched() {
        spoilt(site, "blind-copy-probe", &COPIES)?;
    }
    Ok(())
}

fn no_copy_probe(site: &Site) -> anyhow::Result<()> {
    spoilt(site, "no-copy-probe", &COPIES)
}

/// What is refused, before anything is made: with what words.
fn bad_input(site: &Site) -> anyhow::Result<()> {
    let nowhere = site.path("nowhere");
    let here = site.directory.as_os_str();
    for (options, words) in [
        (
            ["--claim", "no-such-claim"].map(OsStr::new),
            &["no-such-claim", "mmap-one-copy"][..],
        ),
        (["--size", "0"].map(OsStr::new), &["no bytes"]),
        (["--size", "1E"].map(OsStr::new), &["a number of bytes"]),
        (["--repeat", "0"].map(OsStr::new), &["--repeat"]),
        (
            [OsStr::new("--dir"), nowhere.as_os_str()],
            &["nowhere", "no directory"],
        ),
        (
            [OsStr::new("--dir"), OsStr::new("/proc")],
            &["/proc", "no new file"],
        ),
    ] {
        is_refused(site, &options, words)?;
    }
    let too_large = ["--size", "1000000G", "--dir"].map(OsStr::new);
    is_refused(
        site,
        &[&too_large[..], &[here]].concat(),
        &["no room", "are free"],
    )
}

fn is_refused(site: &Site, options: &[&OsStr], words: &[&str]) -> anyhow::Result<()> {
    let (status, said) = refused(site, options)?;
    let told = words.iter().all(|word| said.contains(word));
    ensure!(
        status == Some(2) && told,
        "{options:?}: status {status:?}, {said}"
    );
    Ok(())
}

/// A directory on a file system without room, and on one that may not be written to.
fn no_room(site: &Site) -> anyhow::Result<()> {
    let directory = site.path("mounted");
    let on_tmpfs = |options: &str, full: bool, word: &str| {
        let _mounted = Mount::new(Path::new("tmpfs"), &directory, "tmpfs", options)?;
        if full {
            fs::write(directory.join("full"), [1; 60 << 10])?;
        }
        is_refused(site, &[OsStr::new("--dir"), directory.as_os_str()], &[word])
    };
    let full = on_tmpfs("size=64k", true, "no room");
    let read_only = on_tmpfs("ro", false, "Read-only");
    fs::remove_dir(&directory)?;
    full.and(read_only)
}

/// How long it may take until a process is there, or gone.
const LIMIT: Duration = Duration::from_secs(40);

/// Starts `mmtrace settle` in the case's directory, until its driver is there, which is once the probes
/// are attached; whether that came to be.
fn start(site: &Site, options: &[&str]) -> anyhow::Result<(Child, bool)> {
    let child = Command::new(&site.mmtrace)
        .args(["settle", "--size", "8M"])
        .args(options)
        .arg("--dir")
        .arg(&site.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let started = until(LIMIT, || !workloads(site).is_empty());
    Ok((child, started))
}

/// The processes of the case's `mmtrace settle` that are at work.
fn workloads(site: &Site) -> Vec<PathBuf> {
    let mine = |pid: &PathBuf| {
        let command = fs::read(pid.join("cmdline")).unwrap_or_default();
        let directory = site.directory.as_os_str().as_encoded_bytes();
        let mut words = command.split(|byte| *byte == 0);
        words.any(|word| word == directory)
            && command.windows(15).any(|part| part == b"settle-workload")
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.map(|entry| entry.path());
    processes.filter(mine).collect()
}

/// Killed in the middle: no file stays, and no process.
fn killed(site: &Site) -> anyhow::Result<()> {
    let (mut child, started) = start(site, &["--repeat", "1000"])?;
    child.kill()?;
    child.wait()?;
    ensure!(started, "no driver was started");
    ensure!(
        until(LIMIT, || workloads(site).is_empty()),
        "left running: {:?}",
        workloads(site)
    );
    Ok(())
}

/// Asked to end when the driver has ended by itself, so that the signal can reach nobody else.
fn asked_to_end_late(site: &Site) -> anyhow::Result<()> {
    let (child, started) = start(site, &["--claim", "map-reads-nothing", "--repeat", "10"])?;
    let signal = |number| workload::signal(child.id(), number);
    signal(libc::SIGSTOP)?;
    // A process that nobody has waited for yet has no command line.
    let ended = until(LIMIT, || workloads(site).is_empty());
    signal(libc::SIGTERM)?;
    signal(libc::SIGCONT)?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(started && ended, "no driver was started, or it did not end");
    ensure!(
        output.status.signal() == Some(libc::SIGTERM),
        "{}: {said}",
        output.status
    );
    Ok(())
}
