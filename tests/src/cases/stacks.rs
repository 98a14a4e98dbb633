//! Where in the code the work was caused.

use std::{collections::BTreeMap, ffi::OsString, fs, path::PathBuf};

use anyhow::{Context as _, ensure};

use crate::{
    case::{Case, Need, Part, Scene, Site, State, case, words},
    check::{Check, on},
    needs::kernel_is,
    recording::Stack,
    workload::SITES,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "stacks/call-sites",
            &[Need::FirstBackend, Need::Part(Part::Slow)],
            call_sites,
        ),
        case("stacks/faults", &[], faults),
        case("stacks/cold", &[Need::FirstBackend, Need::Cold], cold),
        case("stacks/descendants", &[Need::FirstBackend], descendants),
        case("stacks/far-caller", &[Need::FirstBackend], far_caller),
        case("stacks/program-deleted", &IN_USER_SPACE, |site| {
            program_gone(site, "sites-gone")
        }),
        case("stacks/program-replaced", &IN_USER_SPACE, |site| {
            program_gone(site, "sites-replaced")
        }),
        case("stacks/rare-and-large", &[Need::FirstBackend], rare),
        case("stacks/programs-in-turn", &[Need::FirstBackend], in_turn),
        case("stacks/made-code", &IN_USER_SPACE, made),
        case("stacks/other-mounts", &OTHER_MOUNTS, |site| {
            elsewhere(site, "sites")
        }),
        case("stacks/made-code-other-mounts", &OTHER_MOUNTS, |site| {
            elsewhere(site, "sites-made")
        }),
    ]
}

/// What user space alone finds out is the same under each kernel.
const IN_USER_SPACE: [Need; 2] = [Need::FirstBackend, Need::Fast];
const OTHER_MOUNTS: [Need; 3] = [Need::FirstBackend, Need::Fast, Need::Mounts];

/// Calls that the sites' programs make.
pub(super) const CALLS: u64 = 100_003;

/// Each place's part of the bytes is right, and the sums are exact.
fn call_sites(site: &Site) -> anyhow::Result<Scene> {
    let file = sites_data(site)?;
    let command = site.workload("sites", &[&file, &CALLS.to_string()]);
    Ok(sites_scene(command, file))
}

/// The file that they read.
pub(super) fn sites_data(site: &Site) -> anyhow::Result<PathBuf> {
    site.data_in(State::Warm, 65_537)
}

/// A scene with a workload that reads this file from places with names.
fn sites_scene(command: Vec<OsString>, file: PathBuf) -> Scene {
    Scene::workload(command, move |check, truth| {
        check.equal(&on(&file, "read"), "bytes_returned", truth.returned_bytes);
        shares(check, &SITES.map(|(name, _)| name), truth.site_bytes)
    })
    .with_options(&["--stacks"])
}

/// As [`parts`], and enough stacks were taken.
pub(super) fn shares(
    check: &mut Check<'_>,
    names: &[&str; 3],
    site_bytes: [u64; 3],
) -> anyhow::Result<()> {
    let recording = check.recording();
    let sampling = recording.stack_sampling();
    let sampling = sampling.context("nothing says how stacks were taken")?;
    check.that(
        sampling.taken > CALLS / 16 && sampling.moments >= CALLS,
        || {
            format!(
                "of {} moments {} stacks were taken",
                sampling.moments, sampling.taken
            )
        },
    );
    parts(check, names, site_bytes);
    Ok(())
}

/// The places with these names in them have these parts of what was read, but for 2 % of all of it, and
/// the sums are exact.
fn parts(check: &mut Check<'_>, names: &[&str; 3], site_bytes: [u64; 3]) {
    let all_bytes: u64 = site_bytes.iter().sum();
    let recording = check.recording();
    for measure in ["bytes_returned", "copied_to_user_bytes"] {
        let of_measure = |stack: &&Stack| stack.path == "read" && stack.measure == measure;
        let stacks: Vec<_> = recording.stacks.iter().filter(of_measure).collect();
        if stacks.is_empty() && measure != "bytes_returned" {
            continue;
        }
        for (name, bytes) in names.iter().zip(site_bytes) {
            let through = |stack: &&&Stack| stack.frames.iter().any(|frame| frame.contains(name));
            let found: u64 = stacks.iter().filter(through).map(|stack| stack.value).sum();
            let off = found.abs_diff(bytes);
            check.that(off * 50 <= all_bytes, || {
                format!("{measure} of {name}: recorded {found}, must be {bytes} but for 2 % of all")
            });
        }
    }
    add_up(check);
}

/// A few large reads between many small ones count as what they are.
fn rare(site: &Site) -> anyhow::Result<Scene> {
    let file = sites_data(site)?;
    let size = fs::metadata(&file)?.len().to_string();
    let command = site.workload("rare-read", &[&file, &size]);
    let names = SITES.map(|(name, _)| name);
    Ok(Scene::workload(command, move |check, truth| {
        check.equal(&on(&file, "read"), "bytes_returned", truth.returned_bytes);
        parts(check, &names, truth.site_bytes);
        Ok(())
    })
    .with_options(&["--stacks"]))
}

/// A program whose file is not there any more has its names nevertheless.
fn program_gone(site: &Site, workload: &str) -> anyhow::Result<Scene> {
    let file = sites_data(site)?;
    let program = site.path("program");
    fs::copy(&site.myself, &program)?;
    let calls = CALLS.to_string();
    let command = words(&[&program, &"workload", &workload, &file, &calls]);
    Ok(sites_scene(command, file))
}

/// Code that is made at run time has the names that its program tells.
fn made(site: &Site) -> anyhow::Result<Scene> {
    let file = sites_data(site)?;
    let command = site.workload("sites-made", &[&file, &CALLS.to_string()]);
    let names = SITES.map(|(name, _)| name);
    Ok(Scene::workload(command, move |check, truth| {
        let _removed = PerfMaps::of(check);
        shares(check, &names, truth.site_bytes)
    })
    .with_options(&["--stacks"]))
}

/// Of a process that runs one program after another, each stack has the names of the program that it was
/// taken of.
fn in_turn(site: &Site) -> anyhow::Result<Scene> {
    const PROGRAMS: u64 = 13;
    // Large, so that the few small reads that a start makes are not much beside them.
    const READ_BYTES: u64 = 524_309;
    let file = site.data_in(State::Warm, READ_BYTES)?;
    let [bytes, links] = [READ_BYTES, PROGRAMS - 1].map(|number| number.to_string());
    let command = site.workload("exec-chain", &[&file, &bytes, &links]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == PROGRAMS * READ_BYTES);
        check.equal(&on(&file, "read"), "bytes_returned", truth.returned_bytes);
        let recording = check.recording();
        let by_workload = |stack: &&Stack| {
            let named = |frame: &String| frame.contains("mmtrace_tests::workload");
            let read = stack.path == "read" && stack.measure == "bytes_returned";
            read && stack.frames.iter().any(named)
        };
        let stacks = recording.stacks.iter().filter(by_workload);
        let found: u64 = stacks.map(|stack| stack.value).sum();
        check.that(
            found.abs_diff(truth.returned_bytes) * 50 <= truth.returned_bytes,
            || {
                let all = truth.returned_bytes;
                format!("of {all} bytes {found}, but for 2 %, must have names of the workload")
            },
        );
        add_up(check);
        Ok(())
    })
    .with_options(&["--stacks"]))
}

/// The same in places that nobody else sees.
fn elsewhere(site: &Site, workload: &str) -> anyhow::Result<Scene> {
    let file = sites_data(site)?;
    let calls = CALLS.to_string();
    let command = site.workload("elsewhere", &[&file, &workload, &calls]);
    let names = SITES.map(|(name, _)| name);
    Ok(Scene::workload(command, move |check, truth| {
        shares(check, &names, truth.site_bytes)
    })
    .with_options(&["--stacks"]))
}

/// The files in which the recording's processes have told names: removed when dropped.
pub(super) struct PerfMaps(Vec<PathBuf>);

impl PerfMaps {
    /// Those of a recording.
    pub(super) fn of(check: &Check<'_>) -> Self {
        let pids = check.recording().pids();
        Self(
            pids.map(|pid| format!("/tmp/perf-{pid}.map").into())
                .collect(),
        )
    }
}

impl Drop for PerfMaps {
    fn drop(&mut self) {
        for path in &self.0 {
            // Most have told none.
            let _absent = fs::remove_file(path);
        }
    }
}

/// Faults are the touching function's, and the kernel's as far as it lets its stack be looked at in a
/// fault of user mode. Their sums are exact.
fn faults(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Warm, site.size_bytes())?;
    let command = site.workload("touch", &[&file, &"shared"]);
    Ok(Scene::workload(command, move |check, _| {
        check.some_faults(&on(&file, "mmap"));
        let recording = check.recording();
        // As the compiler has put one into the other, or not.
        let touches = |frame: &String| {
            let names = ["Mapping::load", "workload::maps::"];
            names.iter().any(|name| frame.contains(name))
        };
        let touching: Vec<&Stack> = recording
            .stacks
            .iter()
            .filter(|stack| stack.path == "mmap" && stack.measure == "minor_faults")
            .filter(|stack| stack.frames.iter().any(touches))
            .collect();
        check.that(!touching.is_empty(), || {
            "no stack of a fault leads through what touches".into()
        });
        let innermost = if kernel_is([5, 15]) {
            "handle_mm_fault_[k]"
        } else {
            ""
        };
        for stack in touching {
            check.that(
                stack
                    .frames
                    .last()
                    .is_some_and(|last| last.contains(innermost)),
                || format!("its frames do not end in {innermost}: {:?}", stack.frames),
            );
        }
        add_up(check);
        Ok(())
    })
    .with_options(&["--stacks"]))
}

/// All disk reads have the stack of who read, down to the kernel's function that submits.
fn cold(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Cold, site.size_bytes())?;
    let command = site.workload("read", &[&file, &"read", &"65537"]);
    Ok(Scene::workload(command, move |check, _| {
        let recording = check.recording();
        let mut submitted = 0;
        let mut waited = 0;
        for stack in recording.stacks.iter().filter(|stack| stack.path == "read") {
            let kernel = stack.frames.iter().any(|frame| frame.ends_with("_[k]"));
            match stack.measure.as_str() {
                "disk_read_bytes" if kernel => submitted += stack.value,
                "disk_wait_ns" if kernel => waited += stack.value,
                _ => {}
            }
        }
        // None, where all that was read was there before anybody waited for it.
        let waits = recording.totals.get("read");
        let waits = waits.and_then(|total| total.get("disk_wait_ns").copied().flatten());
        check.that(submitted > 0 && Some(waited) == waits, || {
            format!(
                "stacks into the kernel have {submitted} bytes from disk, {waited} ns of waiting, must be {waits:?}"
            )
        });
        add_up(check);
        Ok(())
    })
    .with_options(&["--stacks"]))
}

/// A caller is found that is farther up than 8 KiB, the first time that its callee is met.
fn far_caller(site: &Site) -> anyhow::Result<Scene> {
    let file = sites_data(site)?;
    let command = site.workload("far-read", &[&file]);
    Ok(Scene::workload(command, move |check, _| {
        let bytes_through = |names: &[&str]| -> u64 {
            let leads =
                |stack: &&Stack, name| stack.frames.iter().any(|frame| frame.contains(name));
            let stacks = check.recording().stacks.iter();
            stacks
                .filter(|stack| stack.path == "read" && stack.measure == "bytes_returned")
                .filter(|stack| names.iter().all(|name| leads(stack, name)))
                .map(|stack| stack.value)
                .sum()
        };
        let [near, far] = [&["site_small"][..], &["site_small", "far_caller"]].map(bytes_through);
        check.that(near > 0 && near == far, || {
            format!("of {near} bytes {far} have the far caller")
        });
        add_up(check);
        Ok(())
    })
    .with_options(&["--stacks"]))
}

/// Processes that are forked have their parent's code, and those that run another program their own.
fn descendants(site: &Site) -> anyhow::Result<Scene> {
    const CHILDREN: u64 = 13;
    let file = site.data_in(State::Warm, site.size_bytes())?;
    let command = site.workload("fork-readers", &[&file, &CHILDREN.to_string(), &"4099"]);
    Ok(Scene::workload(command, move |check, _| {
        let recording = check.recording();
        let reads = |stack: &&Stack| stack.path == "read" && stack.measure == "bytes_returned";
        let mut named: BTreeMap<Option<u64>, bool> = BTreeMap::new();
        for stack in recording.stacks.iter().filter(reads) {
            let known = stack.frames.iter().any(|frame| frame.contains("read"));
            *named.entry(stack.process).or_default() |= known;
        }
        let known = named.values().filter(|known| **known).count() as u64;
        check.that(known >= CHILDREN, || {
            format!(
                "of {} processes that read {known} have names in their stacks",
                named.len()
            )
        });
        add_up(check);
        Ok(())
    })
    .with_options(&["--stacks"]))
}

/// The stacks of each process, path and measure add up to its rows.
fn add_up(check: &mut Check<'_>) {
    let recording = check.recording();
    let mut sums: BTreeMap<(Option<u64>, &str, &str), [u64; 2]> = BTreeMap::new();
    for stack in &recording.stacks {
        let key = (stack.process, stack.path.as_str(), stack.measure.as_str());
        sums.entry(key).or_default()[0] += stack.value;
    }
    for row in &recording.rows {
        for (measure, value) in &row.measures {
            let key = (row.process, row.path.as_str(), measure.as_str());
            if let (Some(sums), Some(value)) = (sums.get_mut(&key), value) {
                sums[1] += value;
            }
        }
    }
    check.that(!sums.is_empty(), || "there are no stacks".into());
    for ((process, path, measure), [stacks, rows]) in sums {
        check.that(stacks == rows, || {
            format!("{measure} of process {process:?} on {path}: stacks {stacks}, rows {rows}")
        });
    }
}
