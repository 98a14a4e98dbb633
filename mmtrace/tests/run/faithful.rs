//! What the target finds is what it would find without mmtrace.

use std::io::Write;
use std::mem;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::ptr;

use crate::{mmtrace, needs_tracing, not_in_the_background, shell, text};

/// Prints what a process inherits, identities of pipes left out.
const INHERITED: &str = r#"
    pwd; umask; ulimit -a; echo "$@"
    grep -E '^(Sig(Blk|Ign)|NoNewPrivs|Seccomp:|Cap|Groups|[UG]id)' /proc/self/status
    cut -d' ' -f5-8 /proc/self/stat | sed 's/^/group session terminal: /'
    for fd in /proc/$$/fd/*; do
        echo "${fd##*/} $(readlink "$fd" | sed 's/[0-9]*//g')"
    done
    tr '\0' '\n' < /proc/$$/environ
"#;

/// Asserts that the script prints the same bare and by mmtrace, each executed after `setup`.
fn assert_same(setup: fn()) {
    let arguments = [&shell(INHERITED)[..], &["sh", "", " a  b ", "*", "ü\n"]].concat();
    let mut bare = Command::new(arguments[0]);
    bare.args(&arguments[1..])
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID");
    let [bare, traced] = [bare, mmtrace(&arguments)].map(|mut command| {
        command.stdin(Stdio::null());
        // SAFETY: each setup makes only async-signal-safe calls.
        unsafe {
            command.pre_exec(move || {
                not_in_the_background();
                setup();
                Ok(())
            })
        };
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).to_owned()
    });
    assert!(
        bare.contains("SigIgn") && bare.contains("terminal:") && bare.contains("PATH="),
        "{bare}"
    );
    assert_eq!(bare, traced);
}

fn ignore(signal: i32) {
    // SAFETY: a valid signal and disposition.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

#[test]
fn everything_inherited_is_the_same() {
    needs_tracing!();
    assert_same(|| {});
}

#[test]
fn ignored_signals_stay_ignored_and_others_do_not() {
    needs_tracing!();
    assert_same(|| ignore(libc::SIGPIPE));
    assert_same(|| ignore(libc::SIGCHLD));
    assert_same(|| {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, 40] {
            ignore(signal);
        }
    });
}

#[test]
fn blocked_signals_stay_blocked() {
    needs_tracing!();
    assert_same(|| {
        // SAFETY: whole, valid arguments.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGUSR1, libc::SIGCHLD, libc::SIGTERM, 41] {
                libc::sigaddset(&raw mut set, signal);
            }
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        }
    });
}

#[test]
fn closed_streams_and_extra_descriptors_are_passed_on() {
    needs_tracing!();
    // SAFETY: plain arguments; the copies have no close-on-exec flag.
    assert_same(|| unsafe {
        libc::close(0);
        libc::dup2(1, 9);
        libc::dup2(2, 57);
    });
    // SAFETY: as above.
    assert_same(|| unsafe {
        libc::close(2);
    });
}

#[test]
fn limits_directory_and_umask_are_passed_on() {
    needs_tracing!();
    // SAFETY: whole, valid arguments.
    assert_same(|| unsafe {
        libc::chdir(c"/usr".as_ptr());
        libc::umask(0o027);
        let limit = libc::rlimit {
            rlim_cur: 1 << 30,
            rlim_max: 1 << 31,
        };
        libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit);
        libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
    });
}

#[test]
fn streams_are_the_targets() {
    needs_tracing!();
    let mut target = mmtrace(["cat"]);
    let mut target = target
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input: Vec<u8> = (0..=255).cycle().take(300_007).collect();
    let mut stdin = target.stdin.take().unwrap();
    let sent = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = target.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success() && output.stdout == input);
}

#[test]
fn a_reader_that_leaves_ends_the_target_as_bare() {
    needs_tracing!();
    let mut target = mmtrace(["yes"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(target.stdout.take());
    assert_eq!(target.wait().unwrap().signal(), Some(libc::SIGPIPE));
}

#[test]
fn the_summary_goes_to_standard_error() {
    needs_tracing!();
    let output = crate::mmtrace_run()
        .args(["--", "echo", "out"])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "out\n");
    assert!(text(&output.stderr).contains("exit 0"));
}
