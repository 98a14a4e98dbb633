//! The watchpoint witness, and samples of the kernel.

use std::fs;

use anyhow::ensure;

use crate::{
    case::{Case, Need, Part, Scene, Site, State, case, rehearse, words},
    check::Check,
    recording::{Samples, Watched},
};

/// Samples need time.
const SAMPLED: [Need; 2] = [Need::FirstBackend, Need::Part(Part::Slow)];

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("witness/stores", &[Need::FirstBackend], stores),
        case("samples/reads", &SAMPLED, reads),
        case("samples/mapping", &SAMPLED, mapping),
    ]
}

/// mmtrace lies on the file system under test, since it reads and maps its own file.
fn stores(site: &Site) -> anyhow::Result<Scene> {
    let copy = site.path("mmtrace");
    fs::copy(&site.mmtrace, &copy)?;
    fs::File::open(&copy)?.sync_all()?;
    let scene = Scene::new(words(&[&"true"]), |check, _| {
        if let Some(reason) = check.missing("witness") {
            check.skip(reason.to_owned());
            return Ok(());
        }
        let trials = check.witness();
        let made: Vec<_> = trials
            .iter()
            .map(|trial| (trial.trial.as_str(), trial.file.as_str()))
            .collect();
        ensure!(
            made == [
                ("read", "memory"),
                ("read", "mmtrace"),
                ("mmap", "mmtrace"),
                ("direct", "mmtrace"),
            ],
            "the trials are {made:?}"
        );
        for trial in trials {
            check.that(trial.watched_bytes == 1, || format!("{trial:?}"));
            match trial.trial.as_str() {
                "read" => read_is_stored(check, trial),
                "mmap" => {
                    check.that(trial.faults == Some(1), || format!("{trial:?}"));
                    nobody_stores(check, trial);
                }
                // File systems may refuse O_DIRECT, or go through the page cache all the same.
                _ if trial.kernel_stores.is_none() => {
                    check.that(trial.note.is_some(), || format!("{trial:?}"));
                }
                _ if trial.kernel_stores == Some(1) => read_is_stored(check, trial),
                _ => nobody_stores(check, trial),
            }
        }
        Ok(())
    });
    Ok(scene.with_options(&["--witness"]).traced_by(copy))
}

/// The kernel stores the byte once, in a copy routine that a read leads to.
fn read_is_stored(check: &mut Check<'_>, trial: &Watched) {
    check.that(trial.kernel_stores == Some(1), || format!("{trial:?}"));
    the_watch_sees(check, trial);
    let depth = |name: &str| {
        let mut functions = trial.stack.iter().map(|frame| frame.split('+').next());
        functions.position(|function| function == Some(name))
    };
    let copy = trial.copy_routine.as_deref().and_then(depth);
    let read = depth("vfs_read");
    check.that(copy.is_some() && copy < read, || format!("{trial:?}"));
}

fn nobody_stores(check: &mut Check<'_>, trial: &Watched) {
    check.that(
        trial.kernel_stores == Some(0) && trial.stack.is_empty(),
        || format!("{trial:?}"),
    );
    the_watch_sees(check, trial);
}

/// mmtrace's own store is seen, so that seeing none means that there was none.
fn the_watch_sees(check: &mut Check<'_>, trial: &Watched) {
    check.that(
        trial.user_stores == Some(0) && trial.own_stores == Some(1),
        || format!("{trial:?}"),
    );
}

/// How often each of a file's users runs: long enough for some samples on a fast machine.
const ROUNDS: &str = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23";

/// A warm file that is read: most of the time goes into copying.
fn reads(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Warm, site.size_bytes())?;
    let script = format!("{ROUNDS}; do cat \"$0\" > /dev/null; done");
    let command = words(&[&"sh", &"-c", &script, &file]);
    rehearse(&command)?;
    let scene = Scene::new(command, |check, _| {
        let Some(samples) = sampled(check) else {
            return Ok(());
        };
        let read = samples.rows.iter().find(|row| row.path == "read");
        check.that(
            read.is_some_and(|row| row.in_copy_routines > Some(row.samples / 2)),
            || format!("reads that are not mostly copies: {samples:?}"),
        );
        Ok(())
    });
    Ok(scene.with_options(&["--sample-kernel=1999"]))
}

/// A warm file that is mapped and touched: nothing is copied.
fn mapping(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Warm, site.size_bytes())?;
    let script = format!("{ROUNDS}; do \"$0\" workload touch \"$1\" shared > /dev/null; done");
    let command = words(&[&"sh", &"-c", &script, &site.myself, &file]);
    rehearse(&command)?;
    let scene = Scene::new(command, |check, _| {
        let Some(samples) = sampled(check) else {
            return Ok(());
        };
        let mapped = samples.rows.iter().find(|row| row.path == "mmap");
        check.that(
            mapped.is_some_and(|row| row.samples > 0 && row.in_copy_routines == Some(0)),
            || format!("a mapping that is copied: {samples:?}"),
        );
        Ok(())
    });
    Ok(scene.with_options(&["--sample-kernel=1999"]))
}

/// The samples, of which each that was taken is in one row.
fn sampled<'a>(check: &mut Check<'a>) -> Option<&'a Samples> {
    // Every kernel has the timer; only how often it may fire, the kernel lowers by itself.
    if let Some(reason) = check.missing("kernel_samples")
        && reason.contains("perf_event_max_sample_rate")
    {
        check.skip(reason.to_owned());
        return None;
    }
    let samples = check.samples()?;
    let kernel: u64 = samples.rows.iter().map(|row| row.samples).sum();
    let taken = check.hits("cpu-clock");
    check.that(
        samples.hz == 1999 && taken == Some(kernel + samples.user),
        || format!("{taken:?} samples were taken: {samples:?}"),
    );
    check.that(samples.user > 0 && samples.note.is_none(), || {
        format!("{samples:?}")
    });
    for row in &samples.rows {
        let copying = row.copy_routines.values().sum();
        check.that(row.in_copy_routines == Some(copying), || format!("{row:?}"));
    }
    Some(samples)
}
