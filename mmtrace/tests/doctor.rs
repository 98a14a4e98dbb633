//! `mmtrace doctor`: what it says is compared with what then works.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use mmtrace::doctor::{BackendReport, Diagnosis, Fact, State};
use mmtrace::recording::{Backend, Recording};
use mmtrace::report::doctor::{Options, render};
use unicode_width::UnicodeWidthStr as _;

const MMTRACE: &str = env!("CARGO_BIN_EXE_mmtrace");

/// The user "nobody", whom every system has.
const NOBODY: u32 = 65534;

/// Ends the test early, with the reason on standard error, where mmtrace cannot trace.
macro_rules! needs_tracing {
    () => {
        if mmtrace::privilege::check([]).is_err() {
            eprintln!("skipped: needs root");
            return;
        }
    };
}

/// What `doctor --json` says, and its exit status.
fn diagnosis(output: &Output) -> (Diagnosis, i32) {
    let diagnosis = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {output:?}");
    });
    (diagnosis, output.status.code().expect("an exit status"))
}

fn doctor() -> (Diagnosis, i32) {
    let output = Command::new(MMTRACE).args(["doctor", "--json"]).output();
    diagnosis(&output.unwrap())
}

/// A command in a namespace of mounts, after `hide`; the command's words are `$@`.
fn hidden(hide: &str, command: &[&str]) -> Output {
    let script = format!("set -e; {hide}; exec \"$@\"");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", &script, "sh"]);
    unshare.args(command).output().unwrap()
}

/// Whether things can be hidden in a namespace of mounts; says so if not.
fn can_hide() -> bool {
    let can = hidden("mount -t tmpfs none /mnt", &["true"]);
    if !can.status.success() {
        eprintln!("skipped: nothing can be mounted");
    }
    can.status.success()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("output is UTF-8")
}

fn fact<'a>(facts: &'a [Fact], name: &str) -> &'a Fact {
    let found = facts.iter().find(|fact| fact.name == name);
    found.unwrap_or_else(|| panic!("no {name} among {facts:?}"))
}

fn usable(report: &BackendReport) -> bool {
    matches!(report.state, State::Chosen | State::Possible)
}

/// The hooks that a report says are used, with their purposes, in a recording's words.
fn hooks(report: &BackendReport) -> Vec<[String; 3]> {
    let mut hooks = Vec::new();
    for purpose in &report.purposes {
        let choices = purpose.choices.iter();
        for choice in choices.filter(|choice| choice.state == State::Chosen) {
            hooks.extend(
                choice
                    .hooks
                    .iter()
                    .map(|hook| [purpose.name.clone(), hook.kind.clone(), hook.name.clone()]),
            );
        }
    }
    hooks
}

/// Runs `true` under a backend: the recording, or how mmtrace failed.
fn run(backend: &str, wrapper: &dyn Fn(&[&str]) -> Output) -> Result<Recording, Output> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recording.json");
    let file = file.to_str().expect("a path in UTF-8");
    let output = wrapper(&[
        MMTRACE,
        "run",
        "-q",
        "--backend",
        backend,
        "-o",
        file,
        "--",
        "true",
    ]);
    if !output.status.success() {
        return Err(output);
    }
    Ok(Recording::from_json(&fs::read(file).unwrap()).unwrap())
}

fn plainly(command: &[&str]) -> Output {
    let mut it = Command::new(command[0]);
    it.args(&command[1..]).output().unwrap()
}

/// That each backend does what is said of it.
fn is_true(said: &Diagnosis, status: i32, wrapper: &dyn Fn(&[&str]) -> Output) {
    for report in &said.backends {
        let name = report.backend.name();
        match run(name, wrapper) {
            Ok(recording) => {
                assert!(usable(report), "{name} works: {report:?}");
                let hooked = recording.probes.hooks.iter();
                let hooked: Vec<_> = hooked
                    .map(|hook| [hook.purpose.clone(), hook.kind.clone(), hook.name.clone()])
                    .collect();
                assert_eq!(hooks(report), hooked);
            }
            Err(failed) => {
                assert!(!usable(report), "{name}: {}", stderr(&failed));
                assert_eq!(failed.status.code(), Some(125));
                let reason = &report.refusal.as_ref().expect("a reason").reason;
                let first = stderr(&failed).lines().next().unwrap_or_default();
                assert!(first.contains(reason.as_str()), "{first}: {reason}");
            }
        }
    }
    let verdict = &said.verdict;
    assert_eq!(status, i32::from(!verdict.can_measure));
    match run("auto", wrapper) {
        Ok(recording) => {
            assert!(verdict.can_measure, "{verdict:?}");
            assert_eq!(verdict.backend, Some(recording.probes.backend));
            assert_eq!(verdict.copies, Some(recording.probes.copies));
            // What only the end of a run tells is not foreseen.
            let mut unavailable = recording.probes.unavailable;
            unavailable.retain(|entry| entry.purpose != "missed_kretprobes");
            let mut backends = said.backends.iter();
            let chosen = backends.find(|report| report.state == State::Chosen);
            assert_eq!(chosen.map(|it| &it.unavailable), Some(&unavailable));
            let refused: Vec<Backend> = said
                .backends
                .iter()
                .take_while(|report| report.state != State::Chosen)
                .map(|report| report.backend)
                .collect();
            let recorded: Vec<_> = recording
                .probes
                .refused
                .iter()
                .map(|it| it.backend)
                .collect();
            assert_eq!(refused, recorded);
        }
        Err(failed) => assert!(!verdict.can_measure, "{}", stderr(&failed)),
    }
}

#[test]
fn each_backend_does_what_is_said_of_it() {
    needs_tracing!();
    let (said, status) = doctor();
    assert_eq!(fact(&said.kernel, "types").state, State::Possible);
    assert_eq!(fact(&said.perf, "cpu_clock").state, State::Possible);
    is_true(&said, status, &plainly);
}

#[test]
fn what_is_hidden_is_missed() {
    needs_tracing!();
    if !can_hide() {
        return;
    }
    // Without types: as in a container with an old /sys.
    let hide = "mount -t tmpfs none /sys/kernel/btf";
    let output = hidden(hide, &[MMTRACE, "doctor", "--json"]);
    let (said, status) = diagnosis(&output);
    let types = fact(&said.kernel, "types");
    assert_eq!(types.state, State::Refused);
    let denial = types.refusal.as_ref().expect("a reason");
    assert_eq!(denial.errno.as_deref(), Some("ENOENT"));
    assert!(
        denial
            .lifted_by
            .iter()
            .any(|by| by.contains("CONFIG_DEBUG_INFO_BTF"))
    );
    assert_eq!(status, 1);
    is_true(&said, status, &|command| hidden(hide, command));
    // Without tracefs, where it is mounted: still right, whichever hooks that gives.
    let hide = "for i in /sys/kernel/tracing /sys/kernel/debug; do \
                if [ -d $i ]; then mount -t tmpfs none $i; fi; done";
    let output = hidden(hide, &[MMTRACE, "doctor", "--json"]);
    let (said, status) = diagnosis(&output);
    let tracefs = fact(&said.kernel, "tracefs");
    assert_eq!(tracefs.state, State::Refused, "{tracefs:?}");
    is_true(&said, status, &|command| hidden(hide, command));
    // Without addresses.
    let hide = "mount --bind /dev/null /proc/kallsyms";
    let output = hidden(hide, &[MMTRACE, "doctor", "--json"]);
    let (said, _) = diagnosis(&output);
    assert_eq!(fact(&said.kernel, "addresses").state, State::Refused);
    let breakpoints = fact(&said.perf, "execution_breakpoints");
    assert_eq!(
        (breakpoints.state, breakpoints.count),
        (State::Refused, Some(0))
    );
}

#[test]
fn nothing_is_left_mounted() {
    needs_tracing!();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    doctor();
    assert_eq!(mounts(), before);
}

/// A copy of mmtrace where everybody may execute it: nobody may not reach the build directory.
fn copy_for_all(directory: &Path) -> String {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.join("mmtrace");
    fs::copy(MMTRACE, &copy).unwrap();
    copy.to_str().expect("a path in UTF-8").to_owned()
}

#[test]
fn without_rights_it_says_what_is_missing_and_what_would_be_tried() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: needs root, to be somebody else");
        return;
    }
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let copy = copy_for_all(directory.path());
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&copy);
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        command.args(arguments).output().unwrap()
    };
    let (said, status) = diagnosis(&as_nobody(&["doctor", "--json"]));
    assert_eq!(status, 1);
    assert!(!said.verdict.can_measure && said.verdict.backend.is_none());
    assert!(said.verdict.text.contains("root"), "{}", said.verdict.text);
    assert_eq!(fact(&said.process, "user").value, format!("id {NOBODY}"));
    for name in ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYSLOG"] {
        let capability = fact(&said.process, name);
        assert_eq!(capability.state, State::Refused, "{capability:?}");
        assert!(
            capability
                .refusal
                .as_ref()
                .is_some_and(|it| !it.lifted_by.is_empty())
        );
    }
    let failed = as_nobody(&["run", "-q", "--", "true"]);
    assert_eq!(failed.status.code(), Some(125), "{}", stderr(&failed));
    // What it says would be tried is what root finds.
    let (found, _) = doctor();
    for (said, found) in said.backends.iter().zip(&found.backends) {
        assert!(matches!(said.state, State::Untried | State::Refused));
        for (said, found) in said.purposes.iter().zip(&found.purposes) {
            assert_eq!(said.name, found.name);
            for (said, found) in said.choices.iter().zip(&found.choices) {
                match said.state {
                    State::Refused => assert_eq!(found.state, State::Refused, "{found:?}"),
                    State::Untried => {
                        let by_types = found.refusal.as_ref().is_some_and(|it| it.errno.is_none());
                        assert!(!by_types, "{found:?}");
                    }
                    state => panic!("{state:?} without rights"),
                }
            }
        }
    }
}

#[test]
fn in_a_user_namespace_capabilities_are_no_rights() {
    let unshare = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--user", "--map-root-user"])
            .args(command)
            .output()
            .unwrap()
    };
    if !unshare(&["true"]).status.success() {
        eprintln!("skipped: no user namespace can be made");
        return;
    }
    let (said, status) = diagnosis(&unshare(&[MMTRACE, "doctor", "--json"]));
    assert_eq!(status, 1);
    let namespace = fact(&said.process, "user_namespace");
    assert!(namespace.value.contains("another"), "{namespace:?}");
    assert_eq!(fact(&said.process, "CAP_BPF").state, State::Refused);
    is_true(&said, status, &unshare);
}

#[test]
fn the_text_fits_and_says_the_same() {
    let (said, status) = doctor();
    for width in (60..=220).step_by(10) {
        let options = Options {
            width,
            color: false,
        };
        let text = render(&said, &options);
        for line in text.lines() {
            assert!(line.width() <= width, "at {width}: {line}");
        }
        assert!(!text.contains('\x1b'));
        for purpose in said.backends.iter().flat_map(|report| &report.purposes) {
            assert!(text.contains(&purpose.name));
        }
    }
    let colored = Options {
        width: 80,
        color: true,
    };
    assert!(render(&said, &colored).contains('\x1b'));
    let output = plainly(&[MMTRACE, "doctor"]);
    assert_eq!(output.status.code(), Some(status));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\x1b'), "no terminal, no colour");
    let first: String = text.lines().next().unwrap_or_default().to_owned();
    assert_eq!(first, said.verdict.text);
}

#[test]
fn bad_arguments_are_refused_with_2() {
    for arguments in [&["doctor", "--jsn"][..], &["doctor", "more"]] {
        let output = plainly(&[&[MMTRACE], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
    }
    assert!(plainly(&[MMTRACE, "doctor", "--help"]).status.success());
}
