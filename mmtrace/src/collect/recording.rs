//! From what was counted and told to the recording.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
};

use mmtrace_common::{FileKey, Lost, Path, Program, RowKey, TimeSamples, path::VARIANCE_SHIFT};
use nix::sys::utsname::uname;

use super::{
    copy_sampling::{Ratio, Sampled},
    events::{FileSeen, ProcessSeen},
    heat,
    maps::Counted,
    session::Session,
    timeline,
};
use crate::{
    audit,
    page_cache::page_bytes,
    probe::{Attached, Purpose, coverage, missed::Missed},
    recording::{
        AuditEntry, Copies, CopyError, Device, End, File, Hook, Host, Measure, MeasureSet,
        Measured, Measures, Probes, Process, Recording, Refused, Row, Target, TimeSampling, Tool,
        Totals, Unavailable,
    },
    target::{Exit, Outcome},
};

/// Makes the recording of a run that has ended.
pub(super) fn make(session: &Session, counted: &Counted, outcome: &Outcome) -> Recording {
    let attached = &session.attached;
    let (mut unavailable, mut measured) =
        unavailable(attached, &session.missed, session.asked.readahead_use);
    let estimates: Vec<Estimate> = match &session.sampled {
        Some(sampled) => Path::ALL
            .into_iter()
            .map(|path| Estimate::of(path, sampled, counted))
            .collect(),
        None => Vec::new(),
    };
    let unknown: Vec<Path> = estimates
        .iter()
        .filter(|estimate| estimate.ratios.is_none())
        .map(|estimate| estimate.path)
        .collect();
    let mut copies_unknown = |purpose: &str, reason: &str, paths: &[Path]| {
        let copied = [Measure::CopiedToUserBytes, Measure::CopiedFromUserBytes];
        for path in paths {
            let rest = measured.on(*path).without(MeasureSet::of(&copied));
            measured.set(*path, rest);
        }
        unavailable.push(Unavailable {
            purpose: purpose.to_owned(),
            reason: reason.to_owned(),
            measures: copied.to_vec(),
            paths: paths.to_vec(),
        });
    };
    if !unknown.is_empty() {
        copies_unknown(
            "copies_sampled",
            "copies were watched for a part of the time, and nothing tells what calls that return \
             no bytes have copied in the rest",
            &unknown,
        );
    }
    if attached.copies.is_some() && works_unseen(attached, counted) {
        copies_unknown(
            "io_uring_issues",
            "requests of io_uring were made, and no tracepoint tells that the thread that submitted \
             one tries it again, as it does when the data has come",
            &REQUESTED,
        );
    }
    let mut lost: BTreeMap<String, u64> = counted
        .lost
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect();
    let process_ids = process_ids(counted, &session.events.processes);
    let file_ids = file_ids(counted);
    let files = files(&file_ids, &session.events.files, &mut lost);
    let rows = rows(counted, &process_ids, &file_ids, &measured, &estimates);
    let totals = Totals::of(&rows, &measured);
    let processes = processes(&process_ids, &session.events.processes);
    let recording = Recording {
        tool: Tool {
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        host: host(),
        target: Target {
            command: session.command.clone(),
            pid: processes.first().map_or(0, |process| process.pid),
            end: Some(match outcome.exit {
                Exit::Code(code) => End::ExitCode(code),
                Exit::Signal(signal) => End::Signal(signal),
            }),
            wall_time_ns: outcome.wall_time_ns,
            processes: processes.len() as u64,
            threads: counted.truths.values().map(|truth| truth.threads).sum(),
        },
        probes: Probes {
            backend: attached.backend,
            copies: match (&attached.copies, &session.sampled) {
                (Some(_), None) => Copies::Exact,
                (Some(_), Some(_)) => Copies::Sampled,
                (None, _) => Copies::Returns,
            },
            copy_sampling: session.sampled.as_ref().map(|sampled| {
                let errors = estimates.iter().filter_map(Estimate::error);
                sampled.describe(errors.collect())
            }),
            time_sampling: time_sampling(&counted.time_samples),
            hooks: hooks(attached, counted),
            unavailable,
            refused: refused(attached),
        },
        lost,
        audit: Vec::new(),
        witness: Vec::new(),
        kernel_samples: None,
        timeline: timeline::make(&counted.timeline, &totals),
        totals,
        files,
        processes,
        rows,
        heat_maps: heat::make(
            &counted.heat,
            &file_ids,
            |key| session.events.files.get(key).is_none_or(has_data),
            // Which is known on all paths or on none.
            measured
                .on(Path::Read)
                .contains(Measure::ReadaheadUnusedBytes),
        ),
        stack_sampling: None,
        stacks: Vec::new(),
    };
    Recording {
        audit: audit(session, counted, outcome, &recording),
        ..recording
    }
}

/// What the calls of a path have copied while that was not watched.
struct Estimate {
    path: Path,
    /// Bytes that these calls returned.
    unwatched_bytes: u64,
    /// To the program and from it; `None` where nothing tells.
    ratios: Option<[Ratio; 2]>,
}

impl Estimate {
    fn of(path: Path, sampled: &Sampled, counted: &Counted) -> Self {
        let of_path = |key: &&RowKey| key.path == path as u32;
        let rows = counted.rows.iter().filter(|(key, _)| of_path(key));
        let unwatched_bytes = rows.map(|(_, counts)| counts.unwatched_bytes).sum();
        let none = Ratio {
            value: 0.0,
            error: 0.0,
        };
        let ratios = match path {
            // Most of their copies are of calls that return no bytes.
            Path::Exec | Path::Metadata | Path::Other => None,
            _ if unwatched_bytes == 0 => Some([none; 2]),
            _ => sampled.ratios(path),
        };
        Self {
            path,
            unwatched_bytes,
            ratios,
        }
    }

    /// Adds what is estimated to what was seen.
    fn complete(&self, counts: &mut mmtrace_common::Measures) {
        if let Some([to_user, from_user]) = self.ratios {
            let unwatched = counts.unwatched_bytes as f64;
            counts.copied_to_user_bytes += (unwatched * to_user.value).round() as u64;
            counts.copied_from_user_bytes += (unwatched * from_user.value).round() as u64;
        }
    }

    /// By how much it may be off, with the path's name; `None` where nothing is estimated.
    fn error(&self) -> Option<(String, CopyError)> {
        let [to_user, from_user] = self.ratios.filter(|_| self.unwatched_bytes != 0)?;
        let bound = |ratio: Ratio| (self.unwatched_bytes as f64 * ratio.error).ceil() as u64;
        let error = CopyError {
            copied_to_user_bytes: bound(to_user),
            copied_from_user_bytes: bound(from_user),
        };
        Some((self.path.name().to_owned(), error))
    }
}

/// What the time of small reads was estimated from; `None` if it was taken of each.
fn time_sampling(samples: &TimeSamples) -> Option<TimeSampling> {
    let variance_ns2 = samples.variance as f64 * f64::from(1 << VARIANCE_SHIFT);
    (samples.timed != 0).then(|| TimeSampling {
        timed: samples.timed,
        stand_for: samples.stand_for,
        error_bound_ns: (variance_ns2.sqrt() * STANDARD_ERRORS).ceil() as u64,
    })
}

/// Within so many standard errors are 999 of 1,000 sums of many samples (the normal distribution's
/// quantile).
const STANDARD_ERRORS: f64 = 3.290_5;

/// This machine.
pub(crate) fn host() -> Host {
    let name = uname().ok();
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    Host {
        kernel: text(name.as_ref().map(|name| name.release())),
        arch: text(name.as_ref().map(|name| name.machine())),
        page_size: page_bytes(),
        cpus: aya::util::online_cpus().map_or(0, |cpus| cpus.len() as u32),
    }
}

fn hooks(attached: &Attached, counted: &Counted) -> Vec<Hook> {
    attached
        .hooks
        .iter()
        .map(|(purpose, hook)| Hook {
            name: hook.at.target().to_owned(),
            kind: hook.at.kind().to_owned(),
            purpose: purpose.name().to_owned(),
            program: hook.program.to_owned(),
            hits: hits(hook.program, counted),
        })
        .collect()
}

/// The paths on which requests of io_uring copy.
const REQUESTED: [Path; 4] = [Path::Read, Path::Write, Path::Splice, Path::Ipc];

/// Whether there were requests of io_uring, and nothing tells which one a thread that submits some works
/// for.
fn works_unseen(attached: &Attached, counted: &Counted) -> bool {
    let serves = |wanted| {
        let mut hooks = attached.hooks.iter();
        hooks.any(|(purpose, _)| *purpose == wanted)
    };
    let submitted = counted.hits[Program::UringSubmit as usize] > 0;
    submitted && !serves(Purpose::UringIssues)
}

/// How often a program ran for the threads that were followed.
fn hits(program: &str, counted: &Counted) -> Option<u64> {
    let index = Program::ALL
        .iter()
        .enumerate()
        .filter(|(_, known)| program.starts_with(known.name()))
        // Several may begin so: the longest is meant.
        .max_by_key(|(_, known)| known.name().len())?
        .0;
    counted.hits.get(index).copied()
}

/// What cannot be measured and why, and so what can.
fn unavailable(
    attached: &Attached,
    missed: &Missed,
    readahead_use: bool,
) -> (Vec<Unavailable>, Measured) {
    let missing = attached.unavailable.iter();
    let (mut all, mut measured) = coverage::of(
        missing.map(|missing| (missing.purpose, missing.refusal.reason.as_str())),
        attached.copies.as_ref(),
    );
    let maps_seen = attached
        .hooks
        .iter()
        .any(|(purpose, _)| *purpose == Purpose::Mapped);
    if maps_seen {
        match coverage::readahead_use(readahead_use, &attached.hooks) {
            Some(unavailable) => all.push(unavailable),
            None => measured.add(Measure::ReadaheadUnusedBytes),
        }
    }
    if !missed.untold.is_empty() {
        let reason = format!(
            "how often the kernel missed a return of {}, it tells only from Linux 6.7 on",
            missed.untold.join(" and ")
        );
        all.push(coverage::entry("missed_kretprobes", &reason, &[]));
    }
    (all, measured)
}

/// The backends that would have been better.
fn refused(attached: &Attached) -> Vec<Refused> {
    let refused = attached.refused.iter();
    refused
        .map(|(backend, refusal)| Refused {
            backend: *backend,
            reason: refusal.reason.clone(),
        })
        .collect()
}

/// The numbers of processes in the recording, the target first, the rest as they started.
pub(super) fn process_ids(
    counted: &Counted,
    seen: &BTreeMap<u64, ProcessSeen>,
) -> HashMap<u64, u32> {
    let mut keys: BTreeSet<u64> = seen.keys().copied().collect();
    // One whose events were lost still has rows.
    keys.extend(counted.rows.keys().map(|key| key.process));
    let mut keys: Vec<u64> = keys.into_iter().collect();
    keys.sort_by_key(|key| {
        let seen = seen.get(key);
        (
            seen.is_none_or(|seen| seen.parent != 0),
            seen.map_or(u64::MAX, |seen| seen.start_ns),
            *key,
        )
    });
    (0..).zip(keys).map(|(id, key)| (key, id)).collect()
}

fn file_ids(counted: &Counted) -> HashMap<FileKey, u32> {
    let keys: BTreeSet<FileKey> = counted
        .rows
        .keys()
        .map(|key| key.file)
        .filter(|file| *file != FileKey::default())
        .collect();
    (0..).zip(keys).map(|(id, key)| (key, id)).collect()
}

fn files(
    ids: &HashMap<FileKey, u32>,
    seen: &HashMap<FileKey, FileSeen>,
    lost: &mut BTreeMap<String, u64>,
) -> Vec<File> {
    let mut files: Vec<File> = ids
        .iter()
        .map(|(key, id)| {
            let seen = seen.get(key);
            let name = seen.and_then(name);
            // What a file system keeps for itself has no name (btrfs's own tree), nor type: the
            // kernel programs tell it without.
            if name.is_none() && seen.is_none_or(|seen| seen.mode & S_IFMT != 0) {
                *lost.entry("names".to_owned()).or_default() += 1;
            }
            File {
                id: *id,
                name,
                device: device(key.device),
                inode: key.inode,
                size: seen.map(|seen| seen.size_bytes),
                filesystem: seen.map(|seen| seen.filesystem.clone()),
            }
        })
        .collect();
    files.sort_by_key(|file| file.id);
    files
}

/// The kernel's own encoding of device numbers: include/linux/kdev_t.h.
pub(super) fn device(number: u32) -> Device {
    Device {
        major: number >> 20,
        minor: number & 0xf_ffff,
    }
}

const S_IFMT: u32 = libc::S_IFMT;

/// Whether a file is a block device.
pub(super) fn is_block_device(seen: &FileSeen) -> bool {
    seen.mode & S_IFMT == libc::S_IFBLK
}

/// Whether a file may have data at offsets: all but directories, links and devices that are none of
/// blocks. What a file system keeps for itself has no type, nor has the ring of aio.
fn has_data(seen: &FileSeen) -> bool {
    [0, libc::S_IFREG, libc::S_IFBLK].contains(&(seen.mode & S_IFMT))
}

/// A file's name as the target sees it, or as /proc shows what has no place in any directory.
fn name(seen: &FileSeen) -> Option<OsString> {
    if is_block_device(seen) && !seen.complete {
        return block_device_name(device(seen.rdev));
    }
    let path = seen.path();
    let bytes = match seen.filesystem.as_str() {
        "pipefs" => b"pipe".to_vec(),
        "sockfs" => b"socket".to_vec(),
        "anon_inodefs" => [b"anon_inode:", path.strip_prefix(b"/").unwrap_or(&path)].concat(),
        _ if seen.complete => path,
        // Memory without a file that the kernel makes one of, named as in /proc/PID/maps:
        // "/dev/zero (deleted)", "/anon_hugepage (deleted)".
        "tmpfs" | "hugetlbfs" if seen.deleted => [path.as_slice(), b" (deleted)"].concat(),
        _ => return None,
    };
    Some(OsString::from_vec(bytes))
}

fn block_device_name(device: Device) -> Option<OsString> {
    let events = std::fs::read_to_string(format!("/sys/dev/block/{device}/uevent")).ok()?;
    let name = events
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(OsString::from(format!("/dev/{name}")))
}

fn rows(
    counted: &Counted,
    processes: &HashMap<u64, u32>,
    files: &HashMap<FileKey, u32>,
    measured: &Measured,
    estimates: &[Estimate],
) -> Vec<Row> {
    let row = |(key, counts): (&RowKey, &mmtrace_common::Measures)| {
        let path = Path::from_number(key.path).unwrap_or(Path::Other);
        let mut counts = *counts;
        if let Some(estimate) = estimates.get(path as usize) {
            estimate.complete(&mut counts);
        }
        let mut measures = Measures::from_kernel(&counts, measured.on(path));
        if measured.on(path).contains(Measure::ReadaheadUnusedBytes) {
            let pages = counted.unused_pages.get(key).copied().unwrap_or(0);
            measures.readahead_unused_bytes = Some(pages * page_bytes());
        }
        Row {
            process: processes.get(&key.process).copied(),
            file: files.get(&key.file).copied(),
            path,
            measures,
        }
    };
    let mut rows: Vec<Row> = counted
        .rows
        .iter()
        .map(row)
        .filter(|row| !row.measures.is_empty())
        .collect();
    rows.sort_by_key(|row| (row.process, row.path, row.file));
    rows
}

fn processes(ids: &HashMap<u64, u32>, seen: &BTreeMap<u64, ProcessSeen>) -> Vec<Process> {
    let start = ids
        .iter()
        .find(|(_, id)| **id == 0)
        .and_then(|(key, _)| seen.get(key))
        .map_or(0, |target| target.start_ns);
    let mut processes: Vec<Process> = ids
        .iter()
        .map(|(key, id)| {
            let seen = seen.get(key);
            Process {
                id: *id,
                pid: seen.map_or((key >> 32) as u32, |seen| seen.pid),
                parent: seen.and_then(|seen| ids.get(&seen.parent).copied()),
                command: seen.map_or_else(Vec::new, |seen| {
                    seen.command
                        .iter()
                        .cloned()
                        .map(OsString::from_vec)
                        .collect()
                }),
                start_ns: seen.map_or(0, |seen| seen.start_ns.saturating_sub(start)),
                end_ns: seen
                    .and_then(|seen| seen.end_ns)
                    .map(|end| end.saturating_sub(start)),
            }
        })
        .collect();
    processes.sort_by_key(|process| process.id);
    // A child that never ran a program of its own runs its parent's.
    for index in 0..processes.len() {
        if processes[index].command.is_empty()
            && let Some(parent) = processes[index].parent
            && (parent as usize) < index
        {
            processes[index].command = processes[parent as usize].command.clone();
        }
    }
    processes
}

fn audit(
    session: &Session,
    counted: &Counted,
    outcome: &Outcome,
    recording: &Recording,
) -> Vec<AuditEntry> {
    let ours = audit::Counted::from_totals(&recording.totals);
    let seen = &session.events.processes;
    let running = session.events.running();
    let mut theirs = audit::TaskCounters::default();
    for truth in counted.truths.values() {
        theirs.minor_faults += truth.minor_faults;
        theirs.major_faults += truth.major_faults;
        theirs.read_bytes += truth.disk_read_bytes;
    }
    let alive = format!("{} threads are still there", session.alive);
    let tasks = match session.alive {
        0 => audit::Coverage::Same,
        _ => audit::Coverage::Differs(&alive),
    };
    // What wait4 reports leaves out whom the command, or one of its descendants, did not wait for.
    let unwaited = "it leaves out descendants that were not waited for";
    let before = seen
        .values()
        .find(|process| process.parent == 0)
        .cloned()
        .unwrap_or_default();
    let rusage = audit::Rusage {
        minor_faults: outcome
            .usage
            .minor_faults
            .saturating_sub(before.faults_before[0]),
        major_faults: outcome
            .usage
            .major_faults
            .saturating_sub(before.faults_before[1]),
        block_input: outcome
            .usage
            .input_blocks
            .saturating_sub(before.disk_read_bytes_before / 512),
    };
    let waited = if running > 0 || !all_waited_for(seen, &theirs, &rusage) {
        audit::Coverage::Differs(unwaited)
    } else {
        audit::Coverage::Same
    };
    let io = outcome
        .io
        .map(|io| io.read_bytes.saturating_sub(before.disk_read_bytes_before));
    let mut entries = audit::tasks(&ours, &theirs, tasks);
    let (fetched, network) = fetched_without_requests(recording);
    entries.extend(audit::rusage(&ours, &rusage, waited));
    entries.push(audit::proc_io(&ours, io, waited));
    entries.extend(session.calibration.iter().map(|known| {
        let coverage = match &known.done {
            Ok(_) => audit::Coverage::Same,
            Err(reason) => audit::Coverage::Differs(reason),
        };
        let done = known.done.as_ref().ok().copied();
        audit::calibration(known.path, known.measure, known.seen, done, coverage)
    }));
    let all_seen = session
        .attached
        .copies
        .as_ref()
        .is_some_and(|plan| plan.all);
    entries.extend(copies_against_returned(recording, all_seen));
    for entry in &mut entries {
        if entry.measure == Measure::DiskReadBytes
            && entry.agree == Some(false)
            && entry
                .theirs
                .zip(entry.ours)
                .is_some_and(|(theirs, ours)| theirs <= ours + fetched)
        {
            entry.agree = None;
            entry.note = Some(format!(
                "of the difference, up to {fetched} bytes are what {} fetched: a network file \
                 system charges that to the task, without a block request",
                network
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
    }
    entries
}

/// What was copied against what calls returned, on the paths where these are the same: through the
/// page cache each byte that is read or written is copied once.
fn copies_against_returned(recording: &Recording, all_seen: bool) -> Vec<AuditEntry> {
    /// Where nothing but the page cache is read and written, and not on DAX devices.
    const CACHED: [&str; 6] = ["btrfs", "ext2", "ext3", "ext4", "tmpfs", "xfs"];
    let mut entries = Vec::new();
    if recording.probes.copies == Copies::Sampled {
        // What calls returned is a part of the estimate.
        return entries;
    }
    for (path, total) in recording.totals.iter() {
        let measure = match path {
            Path::Read => Measure::CopiedToUserBytes,
            Path::Write => Measure::CopiedFromUserBytes,
            _ => continue,
        };
        let (Some(copied), Some(returned)) = (total.get(measure), total.bytes_returned) else {
            continue;
        };
        let mut differing: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
        for row in recording.rows.iter().filter(|row| row.path == path) {
            let both = [row.measures.get(measure), row.measures.bytes_returned];
            let both = both.map(Option::unwrap_or_default);
            if both[0] != both[1] {
                let file = row.file.and_then(|file| recording.files.get(file as usize));
                let system = file.and_then(|file| file.filesystem.as_deref());
                let sums = differing.entry(system.unwrap_or("unknown")).or_default();
                for (sum, more) in sums.iter_mut().zip(both) {
                    *sum += more;
                }
            }
        }
        // Where all copies are seen, the arrays of vectored calls and aio's requests are among them.
        let arguments = path == Path::Write && copied > returned && all_seen;
        let cached = differing.keys().any(|system| CACHED.contains(system)) && !arguments;
        let reasons: Vec<_> = differing
            .iter()
            .map(|(system, [copied, returned])| {
                format!("of {system} {copied} bytes were copied and {returned} returned")
            })
            .collect();
        let lost = recording.lost.contains_key(Lost::Copies.name());
        let why = if lost {
            "copies were lost"
        } else if arguments {
            "the calls also copy the arrays of their vectors, and aio's requests"
        } else {
            "not all file systems move each byte once by the copy routines"
        };
        let reason = format!("{why}: {}", reasons.join(", "));
        let coverage = if differing.is_empty() || cached && !lost {
            audit::Coverage::Same
        } else {
            audit::Coverage::Differs(&reason)
        };
        entries.push(audit::copies(path, measure, copied, returned, coverage));
    }
    entries
}

/// How much was brought into the page cache without a block request from network file systems, or
/// from overlays, which may lie on one; and from which. Those built on the kernel's netfs library,
/// NFS and SMB call `task_io_account_read` themselves.
fn fetched_without_requests(recording: &Recording) -> (u64, BTreeSet<String>) {
    const NETWORK: [&str; 9] = [
        "9p", "afs", "ceph", "cifs", "nfs", "nfs4", "orangefs", "overlay", "smb3",
    ];
    let mut fetched = 0;
    let mut from = BTreeSet::new();
    for row in &recording.rows {
        let file = row.file.and_then(|file| recording.files.get(file as usize));
        let filled = row.measures.cache_filled_bytes.unwrap_or(0);
        if let Some(name) = file.and_then(|file| file.filesystem.as_ref())
            && NETWORK.contains(&name.as_str())
            && filled > 0
            && row.measures.disk_reads == Some(0)
        {
            fetched += filled;
            from.insert(name.clone());
        }
    }
    (fetched, from)
}

/// Whether every process that was followed ended while its parent was there to wait for it, as far
/// as the kernel's sums tell: what wait4 reports is then everything.
fn all_waited_for(
    seen: &BTreeMap<u64, ProcessSeen>,
    threads: &audit::TaskCounters,
    reported: &audit::Rusage,
) -> bool {
    if seen.len() <= 1 {
        return true;
    }
    let ends: HashMap<u64, u64> = seen
        .iter()
        .filter_map(|(key, process)| Some((*key, process.end_ns?)))
        .collect();
    let orphan = seen
        .iter()
        .any(|(key, process)| process.parent != 0 && ends.get(key) > ends.get(&process.parent));
    // A parent that ignores SIGCHLD, or ends without waiting, leaves children out as well: then
    // the sum of all threads is more than what was reported.
    !orphan && reported.minor_faults >= threads.minor_faults
}
