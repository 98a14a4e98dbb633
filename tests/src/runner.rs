//! Runs cases under each backend, and says how each went.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    case::{Case, Need, Part, Scene, Site, Stdout, rehearse},
    check::{Check, Verdict},
    invariants::{self, Expected},
    needs::{Here, kernel_preempts_programs},
    recording::Recording,
    tracer::{Traced, Tracer, last_lines},
    truth::{End, KernelTruth, Truth},
    workload::{Plan, Step},
};

/// What to run, and where.
pub(crate) struct Options {
    /// mmtrace's binary.
    pub(crate) mmtrace: PathBuf,
    /// A directory on the file system under test.
    pub(crate) directory: PathBuf,
    /// The backends, which must work; empty: every one that does.
    pub(crate) backends: Vec<String>,
    /// Disks that may be written to.
    pub(crate) scratch_disks: Vec<PathBuf>,
    /// Whether the machine is slow: small files, and many cases to one start of mmtrace.
    pub(crate) small: bool,
    /// What is left to other machines.
    pub(crate) left_out: Vec<Part>,
}

/// The backends that mmtrace knows.
pub(crate) const BACKENDS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];

/// How many cases went how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    /// Prints a line for a case, and counts it.
    pub(crate) fn report(&mut self, name: &str, backend: &str, verdict: &Verdict) {
        match verdict {
            Verdict::Passed => {
                self.passed += 1;
                println!("ok {name} [{backend}]");
            }
            Verdict::Failed(reasons) => {
                self.failed += 1;
                println!("FAILED {name} [{backend}]: {}", reasons.join("; "));
            }
            Verdict::Skipped(reason) => {
                self.skipped += 1;
                println!("skipped {name} [{backend}] ({reason})");
            }
        }
    }

    /// Whether nothing failed.
    pub(crate) fn is_good(self) -> bool {
        self.failed == 0
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(
            formatter,
            "{passed} passed, {failed} failed, {skipped} skipped"
        )
    }
}

/// Runs `cases` under every backend asked for.
///
/// # Errors
/// When no case can be run at all: no directory, no mmtrace.
pub(crate) fn run(options: &Options, cases: &[Case]) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let tracer = Tracer {
        binary: fs::canonicalize(&options.mmtrace)
            .with_context(|| format!("mmtrace in {:?}", options.mmtrace))?,
        limit: Duration::from_secs(if options.small { 400 } else { 100 }),
    };
    let directory = tempfile::Builder::new()
        .prefix("mmtrace-tests-")
        .tempdir_in(&options.directory)
        .with_context(|| format!("a directory in {:?}", options.directory))?;
    let myself = std::env::current_exe()?;
    // This program's own file, for the reason that `rehearse` gives.
    let touch = ["workload", "touch"].map(OsString::from);
    let all_of_it = [myself.clone().into(), "shared".into()];
    rehearse(&[&[myself.clone().into()], &touch[..], &all_of_it[..]].concat())?;
    let scratch_disks = options
        .scratch_disks
        .iter()
        .map(|disk| fs::canonicalize(disk).with_context(|| format!("the scratch disk {disk:?}")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let asked: Vec<&str> = if options.backends.is_empty() {
        BACKENDS.to_vec()
    } else {
        options.backends.iter().map(String::as_str).collect()
    };
    let mut here = Here::new(
        directory.path(),
        scratch_disks.len(),
        options.small,
        options.left_out.clone(),
    );
    let mut first = None;
    for backend in asked {
        if let Some(reason) = tracer.refuses(backend)? {
            // Tracepoints are on every kernel, and who names a backend knows that it is here: what
            // refuses it then is no kernel, but a defect.
            if backend == "tracepoint" || !options.backends.is_empty() {
                let refused = Verdict::Failed(vec![reason]);
                tally.report("backend/accepted", backend, &refused);
                continue;
            }
            for case in cases {
                tally.report(&case.name, backend, &Verdict::Skipped(reason.clone()));
            }
            continue;
        }
        let first = *first.get_or_insert(backend);
        let mut batch = Batch {
            tracer: &tracer,
            backend,
            waiting: BTreeMap::new(),
            disks: 0,
        };
        for (index, case) in cases.iter().enumerate() {
            let repeats = case.needs.contains(&Need::FirstBackend) && backend != first;
            let repeated = repeats.then(|| format!("the same under every backend: see {first}"));
            if let Some(reason) = repeated.or_else(|| here.lacks(&case.needs)) {
                tally.report(&case.name, backend, &Verdict::Skipped(reason));
                continue;
            }
            let disks = disks_of(case, scratch_disks.len());
            if batch.disks + disks > scratch_disks.len() {
                batch.run_all(&mut tally)?;
            }
            let site = Site {
                directory: directory.path().join(format!("{backend}-{index}")),
                small: options.small,
                scratch_disks: scratch_disks[batch.disks..].to_vec(),
                myself: myself.clone(),
                mmtrace: tracer.binary.clone(),
                kept: Rc::default(),
                backend: backend.to_owned(),
            };
            let mut tries = tries(case);
            let ready = loop {
                fs::create_dir(&site.directory)?;
                let scene = match (case.prepare)(&site) {
                    Ok(scene) => scene,
                    Err(error) => {
                        let wrong = format!("preparing it: {error:#}");
                        tally.report(&case.name, backend, &Verdict::Failed(vec![wrong]));
                        break None;
                    }
                };
                let mut ready = Ready {
                    name: case.name.clone(),
                    stdout: site.directory.join("standard-output"),
                    site: site.clone(),
                    scene,
                };
                if options.small && !ready.scene.unshared {
                    break Some(ready);
                }
                let verdict = run_alone(&tracer, backend, &ready)
                    .unwrap_or_else(|error| Verdict::Failed(vec![format!("{error:#}")]));
                // What is mounted in the directory goes first.
                drop(ready.scene.kept.take());
                fs::remove_dir_all(&site.directory)?;
                tries -= 1;
                if tries == 0 || !matches!(verdict, Verdict::Failed(_)) {
                    tally.report(&ready.name, backend, &verdict);
                    break None;
                }
            };
            if let Some(ready) = ready {
                batch.disks += disks;
                batch.add(ready, &mut tally)?;
            }
        }
        batch.run_all(&mut tally)?;
    }
    Ok(tally)
}

/// How often a case is tried at most. Nothing holds a warm file in the page cache: a machine that
/// reclaims memory ahead of need takes some of it away between the preparation and the run, now and
/// then, and the run reads it from the disk again.
fn tries(case: &Case) -> u32 {
    if case.name.ends_with("-warm") { 3 } else { 1 }
}

/// How many of so many disks are a case's own until it has run.
fn disks_of(case: &Case, disks: usize) -> usize {
    let of = |need: &Need| match need {
        Need::ScratchDisks(needed) => *needed,
        // One of those, where there are any.
        Need::SpareDisk => disks.min(1),
        _ => 0,
    };
    case.needs.iter().map(of).sum()
}

/// How many cases share a start of mmtrace on a slow machine: few enough for their files to stay in
/// the page cache, or out of it, until it is their turn.
const BATCH: usize = 40;

/// A case that is ready to run.
struct Ready {
    name: String,
    site: Site,
    scene: Scene,
    /// Where its output goes when it shares mmtrace with others.
    stdout: PathBuf,
}

/// Runs a case under an mmtrace of its own.
fn run_alone(tracer: &Tracer, backend: &str, ready: &Ready) -> anyhow::Result<Verdict> {
    let scene = &ready.scene;
    let mut options = scene.options.clone();
    if scene.wait_descendants {
        options.push("--wait-descendants");
    }
    let options = &options[..];
    let tracer = &Tracer {
        binary: scene.tracer.as_ref().unwrap_or(&tracer.binary).clone(),
        limit: tracer.limit,
    };
    let plan = ready.site.path("plan.json");
    let results = ready.site.path("results.json");
    let (traced, kernel) = if scene.alone {
        (tracer.run(backend, options, &scene.command)?, None)
    } else {
        write_plan(&plan, &results, vec![Step::new(&scene.command, None)])?;
        let command = ready.site.workload("sequence", &[&plan]);
        let traced = tracer.run(backend, options, &command)?;
        let kernel = load_results(&results, 1)
            .with_context(|| last_lines(&traced.stderr))?
            .remove(0);
        (traced, Some(kernel))
    };
    let recording = match load(&traced) {
        Ok(recording) => recording,
        Err(error) => return Ok(Verdict::Failed(vec![format!("{error:#}")])),
    };
    let expected = Expected {
        end: scene.end,
        lost: scene.lost.clone(),
        backend,
        copies: scene.copies.unwrap_or(invariants::copies_here()),
    };
    let mut wrong = faults_of_run(&traced, &recording, &expected);
    wrong.extend(invariants::wrong_audit(&recording, scene.unseen_disk_reads));
    let processes = match &kernel {
        Some(kernel) => recording.tree(kernel.pid),
        None => recording.all_processes(),
    };
    let mut check = Check::new(&recording, processes);
    judge(scene, &traced.stdout, kernel.as_ref(), &mut check)?;
    let verdict = check.verdict();
    if wrong.is_empty() {
        return Ok(excused(verdict, &recording));
    }
    if let Verdict::Failed(reasons) = verdict {
        wrong.extend(reasons);
    }
    Ok(excused(Verdict::Failed(wrong), &recording))
}

/// Cases that share one mmtrace.
struct Batch<'a> {
    tracer: &'a Tracer,
    backend: &'a str,
    /// Those that are ready, by their group and their options to mmtrace.
    waiting: BTreeMap<(&'static str, Vec<&'static str>), Vec<Ready>>,
    /// How many scratch disks are theirs.
    disks: usize,
}

impl Batch<'_> {
    /// Takes one more, and runs its group if it has become large enough.
    fn add(&mut self, ready: Ready, tally: &mut Tally) -> anyhow::Result<()> {
        let key = (ready.scene.group, ready.scene.options.clone());
        let group = self.waiting.entry(key).or_default();
        group.push(ready);
        if group.len() == BATCH {
            let full = std::mem::take(group);
            self.run(full, tally)?;
        }
        Ok(())
    }

    /// Runs all that wait: their disks are free then.
    fn run_all(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        for waiting in std::mem::take(&mut self.waiting).into_values() {
            self.run(waiting, tally)?;
        }
        self.disks = 0;
        Ok(())
    }

    /// Runs these, and removes their files. What is wrong with the run as a whole is a failure of its
    /// own.
    fn run(&self, mut waiting: Vec<Ready>, tally: &mut Tally) -> anyhow::Result<()> {
        let Some(first) = waiting.first() else {
            return Ok(());
        };
        let name = format!("shared run from {}", first.name);
        match self.trace(&waiting) {
            Ok((traced, recording, kernels)) => {
                let expected = Expected {
                    end: End::Exit(0),
                    lost: Vec::new(),
                    backend: self.backend,
                    copies: invariants::copies_here(),
                };
                let mut wrong = faults_of_run(&traced, &recording, &expected);
                wrong.extend(invariants::wrong_audit(&recording, false));
                let verdict = if wrong.is_empty() {
                    Verdict::Passed
                } else {
                    Verdict::Failed(wrong)
                };
                tally.report(&name, self.backend, &excused(verdict, &recording));
                for (ready, kernel) in waiting.iter().zip(&kernels) {
                    let mut check = Check::new(&recording, recording.tree(kernel.pid));
                    let ended = kernel.end;
                    check.that(ended == ready.scene.end, || {
                        format!("it ended by {ended:?}, must be {:?}", ready.scene.end)
                    });
                    let judged = fs::read(&ready.stdout)
                        .map_err(anyhow::Error::from)
                        .and_then(|out| judge(&ready.scene, &out, Some(kernel), &mut check));
                    let verdict = match judged {
                        Ok(()) => excused(check.verdict(), &recording),
                        Err(error) => Verdict::Failed(vec![format!("{error:#}")]),
                    };
                    tally.report(&ready.name, self.backend, &verdict);
                }
            }
            Err(error) => {
                let wrong = Verdict::Failed(vec![format!("{error:#}")]);
                for ready in &waiting {
                    tally.report(&ready.name, self.backend, &wrong);
                }
            }
        }
        for ready in &mut waiting {
            // What is mounted in the directory goes first.
            drop(ready.scene.kept.take());
            fs::remove_dir_all(&ready.site.directory)?;
        }
        Ok(())
    }

    fn trace(&self, waiting: &[Ready]) -> anyhow::Result<(Traced, Recording, Vec<KernelTruth>)> {
        let site = &waiting[0].site;
        let (plan, results) = (site.path("plan.json"), site.path("results.json"));
        let steps = waiting
            .iter()
            .map(|ready| Step::new(&ready.scene.command, Some(ready.stdout.clone())))
            .collect();
        write_plan(&plan, &results, steps)?;
        let command = site.workload("sequence", &[&plan]);
        let options = &waiting[0].scene.options;
        let traced = self.tracer.run(self.backend, options, &command)?;
        let recording = load(&traced)?;
        let kernels =
            load_results(&results, waiting.len()).with_context(|| last_lines(&traced.stderr))?;
        Ok((traced, recording, kernels))
    }
}

fn write_plan(path: &Path, results: &Path, steps: Vec<Step>) -> anyhow::Result<()> {
    let plan = Plan {
        steps,
        results: results.to_owned(),
    };
    Ok(fs::write(path, serde_json::to_vec(&plan)?)?)
}

fn load_results(path: &Path, steps: usize) -> anyhow::Result<Vec<KernelTruth>> {
    let results: Vec<KernelTruth> =
        serde_json::from_slice(&fs::read(path).context("the commands were not all run")?)?;
    ensure!(results.len() == steps, "not every command was run");
    Ok(results)
}

fn load(traced: &Traced) -> anyhow::Result<Recording> {
    Recording::load(&traced.recording)
        .with_context(|| format!("ended by {:?}: {}", traced.end, last_lines(&traced.stderr)))
}

/// What is wrong with a run, apart from the figures that its case is about.
fn faults_of_run(traced: &Traced, recording: &Recording, expected: &Expected<'_>) -> Vec<String> {
    let mut wrong = traced.left_behind.clone();
    if traced.end != expected.end {
        wrong.push(format!(
            "mmtrace ended by {:?}, the command must by {:?}: {}",
            traced.end,
            expected.end,
            last_lines(&traced.stderr)
        ));
    }
    wrong.extend(invariants::violations(recording, expected));
    wrong
}

/// A failure that the recording itself foretells shows nothing: from 7.0 on the kernel leaves a
/// tracepoint's program out where a preempted task is inside it, and mmtrace says how often. In the
/// tracepoint backend a fork can be missed so, now and then; anything else is made up for.
fn excused(verdict: Verdict, recording: &Recording) -> Verdict {
    let left_out = recording.lost.get("hook_calls").copied().unwrap_or(0);
    match verdict {
        Verdict::Failed(_)
            if (1..=FEW).contains(&left_out)
                && recording.backend() == "tracepoint"
                && kernel_preempts_programs() =>
        {
            Verdict::Skipped(format!("the kernel left {left_out} calls of hooks out"))
        }
        verdict => verdict,
    }
}

/// How many hook calls the kernel may leave out in a run.
const FEW: u64 = 20;

/// Compares a case's output and figures with what they must be.
fn judge(
    scene: &Scene,
    stdout: &[u8],
    kernel: Option<&KernelTruth>,
    check: &mut Check<'_>,
) -> anyhow::Result<()> {
    let mut truth = Truth::default();
    match &scene.stdout {
        Stdout::Exactly(expected) => check.that(stdout == expected, || differ(stdout, expected)),
        Stdout::SameAs(file) => {
            let expected = fs::read(file)?;
            check.that(stdout == expected, || differ(stdout, &expected));
        }
        Stdout::Truth => {
            truth = serde_json::from_slice(stdout).with_context(|| {
                format!("the workload printed {:?}", String::from_utf8_lossy(stdout))
            })?;
        }
    }
    (scene.check)(check, &truth)?;
    if let Some(kernel) = kernel {
        check.kernel_agrees(kernel, scene.unseen_disk_reads);
    }
    Ok(())
}

fn differ(actual: &[u8], expected: &[u8]) -> String {
    let same = actual
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    format!(
        "standard output: {} bytes, must be {}; they differ from byte {same} on",
        actual.len(),
        expected.len()
    )
}
