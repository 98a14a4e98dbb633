//! What goes wrong around mmtrace: it says so once, and leaves nothing behind.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mmtrace::recording::Recording;

use crate::{MMTRACE, failed, mmtrace_run, needs_tracing, read_until, shell, text};

/// The kernel frees programs and maps some time after their last descriptor is closed.
const FREEING: Duration = Duration::from_secs(10);

/// From linux/bpf.h: what fdinfo calls an object's number, and the command that opens it by that.
const OBJECTS: [(&str, libc::c_long); 3] = [("prog_id:", 13), ("map_id:", 14), ("link_id:", 30)];

/// The BPF objects that a process has descriptors of.
fn objects_of(pid: u32) -> Vec<(libc::c_long, u32)> {
    let mut objects = Vec::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let text = fs::read_to_string(descriptor.unwrap().path()).unwrap_or_default();
        for (key, command) in OBJECTS {
            let numbers = text.lines().filter_map(|line| line.strip_prefix(key));
            objects.extend(numbers.map(|number| (command, number.trim().parse().unwrap())));
        }
    }
    objects
}

fn exists(command: libc::c_long, id: u32) -> bool {
    let attributes = [id, 0, 0];
    // SAFETY: the command takes the number first and zeros after it, with their size; a descriptor
    // that it returns is ours to close.
    unsafe {
        let size = size_of_val(&attributes);
        let descriptor = libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size);
        if descriptor >= 0 {
            libc::close(descriptor as i32);
        }
        descriptor >= 0
    }
}

#[test]
fn killing_mmtrace_leaves_the_target_alone_and_nothing_behind() {
    needs_tracing!();
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let script = format!(
        "echo ready; read line; echo \"$line\" > '{}'",
        mark.display()
    );
    let mut mmtrace = mmtrace_run()
        .arg("-o")
        .arg(directory.path().join("recording.json"))
        .arg("--")
        .args(shell(&script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = mmtrace.stdout.take().unwrap();
    read_until(&mut stdout, "ready\n");
    let objects = objects_of(mmtrace.id());
    assert!(objects.iter().any(|(command, id)| exists(*command, *id)));
    let mut stdin = mmtrace.stdin.take().unwrap();
    mmtrace.kill().unwrap();
    mmtrace.wait().unwrap();
    stdin.write_all(b"on\n").unwrap();
    // Its end, which closes the pipe, is what is waited for.
    io::copy(&mut stdout, &mut io::sink()).unwrap();
    assert_eq!(fs::read_to_string(&mark).unwrap(), "on\n");
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        1,
        "mmtrace left a file behind"
    );
    let end = Instant::now() + FREEING;
    while let Some((command, id)) = objects.iter().find(|(command, id)| exists(*command, *id)) {
        assert!(
            Instant::now() < end,
            "object {id} of command {command} stays"
        );
        // The kernel tells nobody when it has freed them.
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_kernel_without_types_is_named_with_the_remedy() {
    needs_tracing!();
    for hide in [
        "mount -t tmpfs none /sys/kernel/btf",
        "mount --bind /dev/null /sys/kernel/btf/vmlinux",
    ] {
        // In a namespace of its own for mounts.
        let hidden = |then: &str| {
            let mut command = Command::new("unshare");
            let script = format!("{hide} && {then}");
            command.args(["--mount", "sh", "-c", &script, "sh", MMTRACE]);
            command
        };
        if !hidden("true").status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: the types cannot be hidden");
            return;
        }
        let output = hidden("exec \"$1\" run -- echo ran").output().unwrap();
        let message = failed(&output, 125);
        assert!(
            message.contains("/sys/kernel/btf/vmlinux")
                && message.matches("mmtrace: ").count() == 1,
            "{message}"
        );
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn a_backend_that_the_kernel_refuses_is_named_with_its_reason() {
    needs_tracing!();
    for backend in ["fentry", "kprobe", "tracepoint"] {
        let output = mmtrace_run()
            .args(["-q", "--backend", backend, "--", "true"])
            .output()
            .unwrap();
        if output.status.success() {
            continue;
        }
        let message = failed(&output, 125);
        let reason = format!("mmtrace: the {backend} backend cannot be had on this kernel: ");
        let mut lines = message.lines();
        assert!(
            lines.next().is_some_and(|line| line.starts_with(&reason)),
            "{message}"
        );
        // Then what lifts it, indented, and where to look.
        assert!(
            lines.clone().all(|line| line.starts_with("  ")),
            "{message}"
        );
        assert!(
            lines.any(|line| line.contains("mmtrace doctor")),
            "{message}"
        );
    }
}

#[test]
fn a_closed_standard_output_is_refused_and_a_full_one_is_told() {
    needs_tracing!();
    let run = format!("exec '{MMTRACE}' run -q -o - -- sh -c 'exit 3'");
    let closed = Command::new("sh")
        .args(["-c", &format!("{run} >&-")])
        .output();
    assert!(failed(&closed.unwrap(), 125).contains("standard output is closed"));
    let full = Command::new("sh")
        .args(["-c", &format!("{run} > /dev/full")])
        .output();
    let full = full.unwrap();
    let message = failed(&full, 3);
    assert!(
        message.contains("No space left") && message.lines().count() == 1,
        "{message}"
    );
}

#[test]
fn no_name_acts_on_the_terminal_or_is_lost() {
    needs_tracing!();
    let directory = tempfile::tempdir().unwrap();
    let recording = directory.path().join("recording.json");
    let names: [&[u8]; 3] = [b"two\nlines", b"\x1b[31mred\x07", b"\xff\xfe\xc3("];
    let files = names.map(|name| directory.path().join(OsStr::from_bytes(name)));
    for file in &files {
        fs::write(file, "x").unwrap();
    }
    let output = mmtrace_run()
        .arg("-o")
        .arg(&recording)
        .args(["--", "cat"])
        .args(&files)
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "xxx");
    let table = text(&output.stderr);
    let acts = |c: &char| c.is_control() && *c != '\n';
    assert_eq!(table.chars().find(acts), None, "{table}");
    let recording = Recording::from_json(&fs::read(&recording).unwrap()).unwrap();
    assert_eq!(
        recording.target.command[1..],
        files.each_ref().map(|file| file.as_os_str().to_owned())
    );
    for file in &files {
        let named =
            |other: &&mmtrace::recording::File| other.name.as_deref() == Some(file.as_os_str());
        assert_eq!(recording.files.iter().filter(named).count(), 1, "{file:?}");
    }
}
