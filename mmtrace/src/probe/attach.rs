//! Loading the kernel programs and attaching them: the best backend that this kernel lets us have.

use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{
        PerfEvent, Program, ProgramError,
        perf_event::{
            BreakpointConfig, PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent,
        },
    },
    util::online_cpus,
};
use mmtrace_common::{CallSpec, Kernel, SAMPLE_SLOTS, kernel::RDONLY_CAST};

use super::{
    calls,
    copies::{self, Wanted},
    plan::{Attachment, BACKENDS, Backend, Choice, Hook, Purpose},
};
use crate::kernel::{attempt, btf::Btf, offsets, symbols};

/// The kernel programs, compiled by the build script.
pub(super) static PROGRAMS: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mmtrace-programs"));

/// A purpose that this run cannot serve.
#[derive(Clone, Debug)]
pub struct Unavailable {
    /// Which.
    pub purpose: Purpose,
    /// Why.
    pub reason: String,
}

/// Programs that run.
#[derive(Debug)]
pub struct Attached {
    /// The loaded object: its maps are read from here; dropping it detaches everything.
    pub ebpf: Ebpf,
    /// The backend they belong to.
    pub backend: Backend,
    /// The hooks, by purpose.
    pub hooks: Vec<(Purpose, Hook)>,
    /// What could not be had.
    pub unavailable: Vec<Unavailable>,
    /// Where the copies are watched, if they are.
    pub copies: Option<copies::Plan>,
    /// Better backends that were refused, and why.
    pub refused: Vec<(Backend, String)>,
}

impl Attached {
    fn prepare_copies(&mut self, plan: Result<copies::Plan>) -> Result<()> {
        match plan {
            Ok(plan) => {
                plan.load(&mut self.ebpf)?;
                let hooks = plan.hooks.iter().map(|(hook, _)| (Purpose::Copies, *hook));
                self.hooks.extend(hooks);
                self.copies = Some(plan);
            }
            Err(error) => self.give_copies_up(&error),
        }
        Ok(())
    }

    /// Goes on without watching the copies.
    pub fn give_copies_up(&mut self, why: &anyhow::Error) {
        self.copies = None;
        self.hooks
            .retain(|(purpose, _)| *purpose != Purpose::Copies);
        self.unavailable.push(Unavailable {
            purpose: Purpose::Copies,
            reason: format!("copies are known by what calls return only: {why:#}"),
        });
    }

    /// Detaches and unloads the programs; the maps stay.
    pub fn detach(&mut self) {
        for (_, program) in self.ebpf.programs_mut() {
            // A program of another backend was never loaded, which is no failure.
            let _ = match program {
                Program::RawTracePoint(program) => program.unload(),
                Program::TracePoint(program) => program.unload(),
                Program::FEntry(program) => program.unload(),
                Program::FExit(program) => program.unload(),
                Program::KProbe(program) => program.unload(),
                Program::PerfEvent(program) => program.unload(),
                _ => Ok(()),
            };
        }
    }
}

/// Loads and attaches the programs of `wanted`, or of the best backend that can be had. `sampled`
/// makes room for [samples](super::sample).
///
/// # Errors
///
/// If the wanted backend is refused, or every one is; the reason is the kernel's.
pub fn attach(
    wanted: Option<Backend>,
    copies: Wanted,
    nonce: u32,
    verbose: bool,
    sampled: bool,
) -> Result<Attached> {
    let looking = (copies != Wanted::Returns).then(copies::Plan::in_background);
    let btf = Btf::of_kernel()?;
    let mut loader = quick_loader()?;
    loader.map_max_entries("SAMPLES", if sampled { SAMPLE_SLOTS } else { 1 });
    let mut kernel = offsets::of(&btf)?;
    kernel.verbose = u32::from(verbose);
    kernel.nonce = nonce;
    let plan = match looking.map(JoinHandle::join) {
        None => Err(anyhow!("not asked for (--copies returns)")),
        Some(Ok(plan)) => plan,
        Some(Err(_)) => Err(anyhow!("looking for the copy routines panicked")),
    };
    let plan = match plan {
        Err(error) if copies == Wanted::Exact => {
            return Err(error.context("the kernel's copies cannot be watched"));
        }
        plan => plan,
    };
    if let Ok(plan) = &plan {
        plan.describe(&mut kernel);
    }
    let mut refused = Vec::new();
    for backend in BACKENDS {
        if wanted.is_some_and(|wanted| wanted != backend) {
            continue;
        }
        match attach_backend(backend, &btf, kernel, &mut loader) {
            Ok(mut attached) => {
                attached.refused = refused;
                attached.prepare_copies(plan)?;
                return Ok(attached);
            }
            Err(error) => refused.push((backend, format!("{error:#}"))),
        }
    }
    match wanted {
        Some(backend) => bail!(
            "the {} backend cannot be had on this kernel: {}",
            backend.name(),
            refused.first().map_or("", |(_, reason)| reason.as_str())
        ),
        None => bail!(
            "no backend can be had on this kernel: {}",
            refused
                .iter()
                .map(|(backend, reason)| format!("{}: {reason}", backend.name()))
                .collect::<Vec<_>>()
                .join("; ")
        ),
    }
}

/// A loader that has not read the kernel's types.
///
/// `EbpfLoader::new` reads all of them, for relocations that these programs do not have: 100 ms, for
/// which the target would wait. It does without if it does not find them, so it is made by a thread
/// that sees no files. Should the thread not get there, it reads them, and all is well but slower.
fn quick_loader() -> Result<EbpfLoader<'static>> {
    let made = thread::spawn(|| {
        // SAFETY: two system calls on a constant string; CLONE_FS makes the root directory this
        // thread's own, which ends when it has made the loader.
        unsafe {
            if libc::unshare(libc::CLONE_FS) == 0 {
                libc::chroot(c"/proc/self/fdinfo".as_ptr());
            }
        }
        EbpfLoader::new()
    });
    made.join()
        .map_err(|_| anyhow!("making the loader of the kernel programs panicked"))
}

fn attach_backend(
    backend: Backend,
    btf: &Btf,
    mut kernel: Kernel,
    loader: &mut EbpfLoader<'static>,
) -> Result<Attached> {
    match backend {
        Backend::Fentry => attempt::fentry(btf)?,
        Backend::Kprobe => attempt::kprobe()?,
        Backend::Tracepoint => {}
    }
    kernel.faults_by_entry = u32::from(backend != Backend::Tracepoint);
    let programs = with_kernel_calls(btf);
    let mut ebpf = loader
        // The programs have no relocations against kernel types: see mmtrace_common::kernel.
        .btf(None)
        // Leaked: the loader serves several backends, and takes what it is given for as long.
        .override_global("KERNEL", &*Box::leak(Box::new(kernel)), true)
        .load(&programs)
        .context("cannot load the kernel programs")?;
    fill_calls(&mut ebpf)?;
    let mut attached = Attached {
        ebpf,
        backend,
        hooks: Vec::new(),
        unavailable: Vec::new(),
        copies: None,
        refused: Vec::new(),
    };
    let types = match backend {
        Backend::Fentry => Some(aya::Btf::from_sys_fs()?),
        _ => None,
    };
    load_ahead(&mut attached, btf, types.as_ref());
    for purpose in Purpose::ALL {
        if let Err(error) = attach_purpose(&mut attached, purpose, btf, types.as_ref()) {
            if purpose.required() {
                return Err(error.context(format!("no hooks for {}", purpose.name())));
            }
            attached.unavailable.push(Unavailable {
                purpose,
                reason: format!("{error:#}"),
            });
        }
    }
    Ok(attached)
}

/// The programs with their calls of `bpf_rdonly_cast` made to the running kernel's, if it has that
/// (6.2 on): aya has no way to say that a program calls a function of the kernel.
fn with_kernel_calls(btf: &Btf) -> Vec<u8> {
    /// `struct bpf_insn` of a call: the code, and in its second byte what is called.
    const CALL: u8 = 0x85;
    const PSEUDO_KFUNC_CALL: u8 = 2 << 4;
    let instruction = |called: u8, number: i32| {
        let [a, b, c, d] = number.to_ne_bytes();
        [CALL, called, 0, 0, a, b, c, d]
    };
    let mut programs = PROGRAMS.to_vec();
    let Some(function) = btf.function_id("bpf_rdonly_cast") else {
        return programs;
    };
    let placeholder = instruction(0, RDONLY_CAST);
    let call = instruction(PSEUDO_KFUNC_CALL, function.cast_signed());
    // An object's sections of instructions begin at a multiple of 8.
    let (words, _) = programs.as_chunks_mut::<8>();
    for word in words.iter_mut().filter(|word| **word == placeholder) {
        *word = call;
    }
    programs
}

fn fill_calls(ebpf: &mut Ebpf) -> Result<()> {
    let mut map: Array<_, CallSpec> = ebpf
        .map_mut("CALLS")
        .ok_or_else(|| anyhow!("the kernel programs have no map CALLS"))?
        .try_into()?;
    for (number, spec) in calls::table() {
        map.set(u32::try_from(number)?, spec, 0)?;
    }
    Ok(())
}

fn attach_purpose(
    attached: &mut Attached,
    purpose: Purpose,
    btf: &Btf,
    types: Option<&aya::Btf>,
) -> Result<()> {
    let mut last = anyhow!("the {} backend cannot see it", attached.backend.name());
    'choices: for choice in purpose.choices(attached.backend) {
        if !choice.requires.is_met(btf) || !functions_are_there(choice, btf, &mut last) {
            continue;
        }
        for hook in choice.hooks {
            if let Err(error) = attach_hook(&mut attached.ebpf, hook, types) {
                last = error.context(format!("{} {}", hook.at.kind(), hook.at.target()));
                continue 'choices;
            }
        }
        attached
            .hooks
            .extend(choice.hooks.iter().map(|hook| (purpose, *hook)));
        return Ok(());
    }
    Err(last)
}

/// Loads the programs of each purpose's first choice, all at the same time: the verifier takes long
/// over some. One that fails is loaded again when it is attached, which then says why.
fn load_ahead(attached: &mut Attached, btf: &Btf, types: Option<&aya::Btf>) {
    let mut hooks: Vec<&Hook> = Vec::new();
    for purpose in Purpose::ALL {
        let first = purpose.choices(attached.backend).find(|choice| {
            choice.requires.is_met(btf) && functions_are_there(choice, btf, &mut anyhow!(""))
        });
        hooks.extend(first.iter().flat_map(|choice| choice.hooks));
    }
    thread::scope(|scope| {
        for (name, program) in attached.ebpf.programs_mut() {
            if let Some(hook) = hooks.iter().copied().find(|hook| hook.program == name) {
                scope.spawn(|| load(program, hook.at, types));
            }
        }
    });
}

/// Whether this kernel has the functions of a choice; if not, `reason` says which is missing.
fn functions_are_there(choice: &Choice, btf: &Btf, reason: &mut anyhow::Error) -> bool {
    let missing = choice
        .hooks
        .iter()
        .filter_map(|hook| hook.at.function())
        .find(|function| btf.function_id(function).is_none());
    if let Some(function) = missing {
        *reason = anyhow!("this kernel has no function {function}");
    }
    missing.is_none()
}

fn attach_hook(ebpf: &mut Ebpf, hook: &Hook, types: Option<&aya::Btf>) -> Result<()> {
    let program = ebpf
        .program_mut(hook.program)
        .with_context(|| format!("the kernel programs have no {}", hook.program))?;
    load_and_attach(program, hook.at, types).map_err(shorten)
}

/// Leaves the verifier's log out of a refusal: thousands of lines. Its last ones say why.
pub(super) fn shorten(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<ProgramError>() {
        Some(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES)..].join(" | ");
            if last.is_empty() {
                anyhow!("the kernel refuses the program: {io_error}")
            } else {
                anyhow!("the kernel refuses the program: {io_error} ({last})")
            }
        }
        _ => error,
    }
}

/// How many of the verifier's last lines are shown.
const LOG_LINES: usize = 4;

/// Loads a program, unless it is loaded, and attaches it.
///
/// # Errors
///
/// If the program is of another type than the attachment's, or the kernel refuses; so it does at a
/// function's entry or return (fentry, fexit) if `types`, the kernel's, are not given.
pub fn load_and_attach(
    program: &mut Program,
    at: Attachment<'_>,
    types: Option<&aya::Btf>,
) -> Result<()> {
    if program.fd().is_err() {
        load(program, at, types)?;
    }
    match program {
        Program::RawTracePoint(program) => {
            program.attach(at.target())?;
        }
        Program::TracePoint(program) => {
            let (category, name) = at.event().context("it is a program for an event")?;
            program.attach(category, name)?;
        }
        Program::FEntry(program) => {
            program.attach()?;
        }
        Program::FExit(program) => {
            program.attach()?;
        }
        Program::KProbe(program) => {
            program.attach(at.target(), 0)?;
        }
        Program::PerfEvent(program) => on_every_cpu(program, at)?,
        _ => bail!("it is of a type that nothing is attached to"),
    }
    Ok(())
}

fn load(program: &mut Program, at: Attachment<'_>, types: Option<&aya::Btf>) -> Result<()> {
    let types = || types.context("the kernel's types were not read");
    match program {
        Program::RawTracePoint(program) => program.load()?,
        Program::TracePoint(program) => program.load()?,
        Program::FEntry(program) => program.load(at.target(), types()?)?,
        Program::FExit(program) => program.load(at.target(), types()?)?,
        Program::KProbe(program) => program.load()?,
        Program::PerfEvent(program) => program.load()?,
        _ => bail!("it is of a type that is not loaded"),
    }
    Ok(())
}

fn on_every_cpu(program: &mut PerfEvent, at: Attachment<'_>) -> Result<()> {
    let event = match at {
        Attachment::MajorFaults => PerfEventConfig::Software(SoftwareEvent::PageFaultsMaj),
        Attachment::Breakpoint(name) => {
            PerfEventConfig::Breakpoint(BreakpointConfig::Instruction {
                address: symbols::address(name)?,
            })
        }
        _ => PerfEventConfig::Software(SoftwareEvent::PageFaultsMin),
    };
    let cpus = online_cpus().map_err(|(what, error)| anyhow!(error).context(what))?;
    for cpu in cpus {
        program.attach(
            event,
            PerfEventScope::AllProcessesOneCpu { cpu },
            SamplePolicy::Period(1),
            false,
        )?;
    }
    Ok(())
}
