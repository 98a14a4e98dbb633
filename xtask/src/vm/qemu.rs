//! Running a virtual machine by QEMU.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, PipeReader, PipeWriter, Write};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::accelerator::accelerator;
use super::emulator;
use super::job::{Disk, REPORT_PORT, ROOT_TAG, Report, STDERR_PORT, STDOUT_PORT};

/// How long a machine may take to boot. About 10 s are usual under emulation.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);

/// How long it may take to turn itself off after its report.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of the console an error shows: from where the kernel begins to complain, or of its end.
const CONSOLE_LINES: usize = 60;

/// What a line of the console has that tells of a kernel in trouble.
const TROUBLE: [&str; 8] = [
    "BUG:",
    "Oops",
    "Kernel panic",
    "general protection fault",
    "invalid opcode",
    "int3:",
    "soft lockup",
    "Out of memory:",
];

/// A machine to run.
pub(crate) struct Machine<'a> {
    /// A directory for its files, which is its alone.
    pub(crate) dir: &'a Path,
    /// The kernel image.
    pub(crate) kernel: &'a Path,
    /// The initramfs.
    pub(crate) initramfs: &'a Path,
    /// Disks with their images.
    pub(crate) disks: &'a [(Disk, PathBuf)],
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// Processors. Counting instructions needs a single one.
    pub(crate) cpus: u32,
    /// Whether virtual time counts instructions, so that costs repeat.
    pub(crate) counts_instructions: bool,
    /// Further words for the kernel's command line.
    pub(crate) append: &'a [String],
    /// How long the command may take.
    pub(crate) timeout: Option<Duration>,
}

impl Machine<'_> {
    /// Runs the machine, passing the command's outputs on; returns the command's exit status and
    /// the outputs.
    pub(crate) fn run<O, E>(&self, stdout: O, stderr: E) -> Result<(u8, O, E)>
    where
        O: Write + Send + 'static,
        E: Write + Send + 'static,
    {
        let (stdout_from, stdout_to) = io::pipe()?;
        let (stderr_from, stderr_to) = io::pipe()?;
        let (report_from, report_to) = io::pipe()?;
        let mut qemu = self.command()?;
        let ports = [
            (STDOUT_PORT, stdout_to),
            (STDERR_PORT, stderr_to),
            (REPORT_PORT, report_to),
        ];
        for (name, pipe) in ports {
            add_port(&mut qemu, name, pipe);
        }
        // SAFETY: between fork and exec, the closure makes one system call and allocates nothing.
        unsafe {
            // A killed xtask must not leave a machine running.
            qemu.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let started = qemu.spawn().context("cannot start QEMU")?;
        // QEMU has its own pipes: ours would keep them from ending with it.
        drop(qemu);
        let mut qemu = started;
        let stdout = thread::spawn(move || copy(stdout_from, stdout));
        let stderr = thread::spawn(move || copy(stderr_from, stderr));
        let outcome = self.supervise(&mut qemu, report_from);
        if outcome.is_err() {
            qemu.kill()?;
            qemu.wait()?;
        }
        let panicked = |_| anyhow!("passing the machine's output on panicked");
        let stdout = stdout.join().map_err(panicked)?;
        let stderr = stderr.join().map_err(panicked)?;
        let status = outcome.map_err(|error| anyhow!("{error:#}{}", self.last_words()))?;
        Ok((status, stdout?, stderr?))
    }

    /// Follows the machine's reports until it has turned itself off.
    fn supervise(&self, qemu: &mut Child, reports: PipeReader) -> Result<u8> {
        let reports = receive(reports);
        let next = |timeout: Option<Duration>, doing: &str| {
            let report = match timeout {
                Some(timeout) => reports.recv_timeout(timeout),
                None => reports.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match report {
                Ok(Report::Failed(reason)) => bail!("the machine could not be set up: {reason}"),
                Ok(report) => Ok(report),
                Err(RecvTimeoutError::Disconnected) => bail!("the machine died {doing}"),
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "the machine hung {doing}: {} s passed",
                        timeout.unwrap_or_default().as_secs()
                    )
                }
            }
        };
        let Report::Started = next(Some(BOOT_TIMEOUT), "while it booted")? else {
            bail!("the command ended before it started");
        };
        let Report::Ended(status) = next(self.timeout, "while the command ran")? else {
            bail!("the command started twice");
        };
        // The channel ends with the pipe, and the pipe with QEMU.
        match reports.recv_timeout(POWER_OFF_TIMEOUT) {
            Err(RecvTimeoutError::Disconnected) => {}
            _ => bail!("the machine did not turn itself off"),
        }
        qemu.wait()?;
        Ok(status)
    }

    fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// What QEMU and the kernel complained of, for an error message.
    fn last_words(&self) -> String {
        let read = |path: PathBuf| {
            fs::read(path)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        };
        let complaints = read(self.dir.join("qemu.log"));
        let console = read(self.console());
        let console = telling_part(&console);
        format!("\n{complaints}--- the console ---\n{console}\n---")
    }

    fn command(&self) -> Result<Command> {
        let mut qemu = emulator::command()?;
        qemu.args(["-M", "q35", "-cpu", "max", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-no-reboot", "-m"])
            .arg(format!("{}M", self.memory_mib));
        if self.counts_instructions {
            qemu.args([
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=0,sleep=off",
                "-smp",
                "1",
            ]);
        } else {
            let accelerator = accelerator(self.kernel);
            qemu.args(["-accel", accelerator, "-smp", &self.cpus.to_string()]);
        }
        let mut words = vec![
            "console=ttyS0",
            "panic=-1",
            "oops=panic",
            "quiet",
            "loglevel=4",
        ];
        words.extend(self.append.iter().map(String::as_str));
        qemu.arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", &words.join(" ")])
            .arg("-serial")
            .arg(format!("file:{}", option_value(&self.console())))
            .args([
                "-fsdev",
                "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
            ])
            .args([
                "-device",
                &format!("virtio-9p-pci,fsdev=root,mount_tag={ROOT_TAG}"),
            ])
            .args(["-device", "virtio-serial-pci"]);
        for (disk, image) in self.disks {
            let (name, image) = (&disk.name, option_value(image));
            qemu.arg("-drive")
                .arg(format!(
                    "if=none,id={name},format=raw,cache=unsafe,file={image}"
                ))
                .args([
                    "-device",
                    &format!("virtio-blk-pci,drive={name},serial={name}"),
                ]);
        }
        qemu.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.dir.join("qemu.log"))?);
        Ok(qemu)
    }
}

/// Makes QEMU write what the guest writes to a virtio-serial port into a pipe.
fn add_port(qemu: &mut Command, name: &str, pipe: PipeWriter) {
    let fd = pass_on(qemu, pipe);
    qemu.args(["-add-fd", &format!("fd={fd},set={fd}")])
        .args([
            "-chardev",
            &format!("file,id={name},path=/dev/fdset/{fd},append=on"),
        ])
        .args([
            "-device",
            &format!("virtserialport,chardev={name},name={name}"),
        ]);
}

/// Leaves a pipe open to a command, under the number returned, and to no other: machines are started
/// beside each other, and one that had another's pipe would keep it from ending.
fn pass_on(command: &mut Command, pipe: PipeWriter) -> RawFd {
    let fd = pipe.as_raw_fd();
    // SAFETY: between fork and exec, the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(move || Ok(fcntl_setfd(&pipe, FdFlags::empty())?));
    }
    fd
}

/// A path as part of an option: QEMU wants commas doubled.
fn option_value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The lines of a console that say what went wrong, or the last ones.
fn telling_part(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let end = lines.len().saturating_sub(CONSOLE_LINES);
    let from = lines
        .iter()
        .position(|line| TROUBLE.iter().any(|word| line.contains(word)))
        .map_or(end, |first| first.min(end));
    lines[from..]
        .iter()
        .take(CONSOLE_LINES)
        .copied()
        .collect::<Vec<_>>()
        .join("\n")
}

/// Copies to the end, passing each piece on at once, and returns where it went.
fn copy<W: Write>(mut from: PipeReader, mut to: W) -> io::Result<W> {
    io::copy(&mut from, &mut to)?;
    to.flush()?;
    Ok(to)
}

/// Reads reports in the background, so that waiting for one can time out.
fn receive(from: PipeReader) -> Receiver<Report> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let report = serde_json::from_str(&line)
                .unwrap_or_else(|error| Report::Failed(format!("odd report {line:?}: {error}")));
            if sender.send(report).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn a_pipe_ends_with_its_command_whatever_starts_beside() -> Result<()> {
        let (mut from, to) = io::pipe()?;
        let mut command = Command::new("sh");
        let fd = pass_on(&mut command, to);
        command.args(["-c", &format!("echo here > /dev/fd/{fd}")]);
        // Started when the pipe is ready to be passed on, as another machine can be.
        let mut beside = Command::new("cat").stdin(Stdio::piped()).spawn()?;
        let mut child = command.spawn()?;
        drop(command);
        assert!(child.wait()?.success());
        let mut read = [0; 5];
        from.read_exact(&mut read)?;
        assert_eq!(read, *b"here\n");
        let mut end = [PollFd::new(&from, PollFlags::IN)];
        poll(&mut end, Some(&Timespec::default()))?;
        assert!(end[0].revents().contains(PollFlags::HUP));
        drop(beside.stdin.take());
        assert!(beside.wait()?.success());
        Ok(())
    }

    #[test]
    fn a_console_is_shown_from_where_the_trouble_began() {
        let numbered =
            |range: std::ops::Range<usize>| range.map(|n| format!("line {n}\n")).collect();
        let calm: String = numbered(0..100);
        assert!(telling_part(&calm).starts_with("line 40\n"));
        let trouble = format!("{calm}BUG: unable to handle\n{calm}");
        assert!(telling_part(&trouble).starts_with("BUG: unable to handle\nline 0\n"));
        assert_eq!(telling_part("BUG: one\nand two"), "BUG: one\nand two");
    }
}
