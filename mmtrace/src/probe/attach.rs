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
    trial::{Outcome, Trial, Tried, unmet},
};
use crate::failure::Failure;
use crate::kernel::{
    attempt,
    btf::Btf,
    conditions::{Conditions, lift_memory_limit},
    offsets,
    refusal::{Asked, Cause, Refusal},
    remedy, symbols,
};

/// The kernel programs, compiled by the build script.
pub(super) static PROGRAMS: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mmtrace-programs"));

/// A purpose that this run cannot serve.
#[derive(Clone, Debug)]
pub struct Unavailable {
    /// Which.
    pub purpose: Purpose,
    /// Why.
    pub refusal: Refusal,
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
    pub refused: Vec<(Backend, Refusal)>,
}

impl Attached {
    /// Goes on without watching the copies.
    pub fn give_copies_up(&mut self, why: &anyhow::Error) {
        self.copies = None;
        self.hooks
            .retain(|(purpose, _)| *purpose != Purpose::Copies);
        self.unavailable.push(Unavailable {
            purpose: Purpose::Copies,
            refusal: no_copies(why),
        });
    }

    /// Detaches the programs of a purpose, as if they had never seen anything.
    pub(crate) fn blind(&mut self, purpose: Purpose) {
        for (_, hook) in self.hooks.iter().filter(|(it, _)| *it == purpose) {
            if let Some(program) = self.ebpf.program_mut(hook.program) {
                unload(program);
            }
        }
    }

    /// Detaches and unloads the programs; the maps stay.
    pub fn detach(&mut self) {
        for (_, program) in self.ebpf.programs_mut() {
            unload(program);
        }
    }
}

/// Detaches and unloads a program. One that was never loaded is no failure.
fn unload(program: &mut Program) {
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
    lift_memory_limit();
    let mut prober = Prober::new(copies, nonce, verbose)?;
    if sampled {
        prober.loader.map_max_entries("SAMPLES", SAMPLE_SLOTS);
    }
    let mut refused = Vec::new();
    for backend in BACKENDS {
        if wanted.is_some_and(|wanted| wanted != backend) {
            continue;
        }
        match prober.attach(backend)? {
            Ok(mut attached) => {
                attached.refused = refused;
                return Ok(attached);
            }
            Err(refusal) => refused.push((backend, refusal)),
        }
    }
    Err(none(wanted, &refused).into())
}

/// That no backend can be had, of those that were tried.
fn none(wanted: Option<Backend>, refused: &[(Backend, Refusal)]) -> Failure {
    let message = match wanted {
        Some(backend) => format!(
            "the {} backend cannot be had on this kernel: {}",
            backend.name(),
            refused.first().map_or("", |(_, refusal)| &refusal.reason)
        ),
        None => format!("no backend can be had on this kernel: {}", reasons(refused)),
    };
    let refusals: Vec<&Refusal> = refused.iter().map(|(_, refusal)| refusal).collect();
    let remedies = remedy::sentences(&refusals, &Conditions::here());
    let more = ["`mmtrace doctor` tells more.".to_owned()];
    Failure::own(message).remedy([&remedies[..], &more].concat().join("\n"))
}

/// The backends with their reasons; one that is the same for all is said once.
fn reasons(refused: &[(Backend, Refusal)]) -> String {
    match refused {
        [(_, first), rest @ ..] if rest.iter().all(|(_, refusal)| refusal == first) => {
            first.reason.clone()
        }
        _ => refused
            .iter()
            .map(|(backend, refusal)| format!("{}: {refusal}", backend.name()))
            .collect::<Vec<_>>()
            .join("; "),
    }
}

/// That copies cannot be watched.
fn no_copies(why: &anyhow::Error) -> Refusal {
    let refusal = Refusal::of(Asked::ExecutionBreakpoint, "", why);
    Refusal {
        reason: format!("copies are known by what calls return only: {why:#}"),
        ..refusal
    }
}

/// What attaching takes, whatever the backend: this kernel's types, where its copies can be seen,
/// and the loader.
pub struct Prober {
    btf: Btf,
    kernel: Kernel,
    copies: Result<copies::Plan, Refusal>,
    loader: EbpfLoader<'static>,
}

impl Prober {
    /// Reads this kernel's types. `nonce` is what followed threads are known by.
    ///
    /// # Errors
    ///
    /// If the kernel has no types, or lacks some that the programs need, or its copies cannot be
    /// watched and nothing else will do.
    pub fn new(copies: Wanted, nonce: u32, verbose: bool) -> Result<Self> {
        let looking = (copies != Wanted::Returns).then(copies::Plan::in_background);
        let btf = Btf::of_kernel()?;
        let mut loader = quick_loader()?;
        loader.map_max_entries("SAMPLES", 1);
        let mut kernel = offsets::of(&btf)?;
        kernel.verbose = u32::from(verbose);
        kernel.nonce = nonce;
        let plan = match looking.map(JoinHandle::join) {
            None => Err(anyhow!("not asked for (--copies returns)")),
            Some(Ok(plan)) => plan,
            Some(Err(_)) => Err(anyhow!("looking for the copy routines panicked")),
        };
        let plan = match plan {
            Err(error) if !copies.may_be_returns() => {
                return Err(error.context("the kernel's copies cannot be watched"));
            }
            plan => plan.map_err(|error| no_copies(&error)),
        };
        if let Ok(plan) = &plan {
            plan.describe(&mut kernel);
            kernel.sampling = u32::from(matches!(copies, Wanted::Auto | Wanted::Sampled));
        }
        Ok(Self {
            btf,
            kernel,
            copies: plan,
            loader,
        })
    }

    /// Attaches the hooks of a backend: for each purpose the first choice that works.
    fn attach(&mut self, backend: Backend) -> Result<Result<Attached, Refusal>> {
        let mut attempt = match self.open(backend)? {
            Ok(attempt) => attempt,
            Err(refusal) => return Ok(Err(refusal)),
        };
        for purpose in Purpose::ALL {
            let trial = attempt.serve(purpose);
            if let Some(refusal) = trial.refusal()
                && purpose.required()
            {
                let lacking = format!("no hooks for {}", purpose.name());
                return Ok(Err(refusal.within(&lacking)));
            }
        }
        attempt.prepare_copies()?;
        Ok(Ok(attempt.attached))
    }

    /// Loads the programs for a backend, and attaches none yet. The inner error is the kernel's
    /// refusal.
    ///
    /// # Errors
    ///
    /// If the programs are not what they should be, which is no fault of the kernel's.
    pub fn open(&mut self, backend: Backend) -> Result<Result<Attempt<'_>, Refusal>> {
        let allowed = match backend {
            Backend::Fentry => attempt::fentry(&self.btf),
            Backend::Kprobe => attempt::kprobe(),
            Backend::Tracepoint => Ok(()),
        };
        if let Err(refusal) = allowed {
            return Ok(Err(refusal));
        }
        let mut kernel = self.kernel;
        kernel.faults_by_entry = u32::from(backend != Backend::Tracepoint);
        let programs = with_kernel_calls(&self.btf);
        let loaded = self
            .loader
            // The programs have no relocations against kernel types: see mmtrace_common::kernel.
            .btf(None)
            // Leaked: the loader serves several backends, and takes what it is given for as long.
            .override_global("KERNEL", &*Box::leak(Box::new(kernel)), true)
            .load(&programs);
        let mut ebpf = match loaded {
            Ok(ebpf) => ebpf,
            Err(error) => {
                let what = "it does not take the kernel programs' maps";
                let refusal = Refusal::of(Asked::Program, what, &error.into());
                return Ok(Err(refusal));
            }
        };
        fill_calls(&mut ebpf)?;
        let types = match backend {
            Backend::Fentry => Some(aya::Btf::from_sys_fs()?),
            _ => None,
        };
        let mut attempt = Attempt {
            attached: Attached {
                ebpf,
                backend,
                hooks: Vec::new(),
                unavailable: Vec::new(),
                copies: None,
                refused: Vec::new(),
            },
            btf: &self.btf,
            copies: &self.copies,
            types,
        };
        attempt.load_ahead();
        Ok(Ok(attempt))
    }
}

/// A backend whose programs are being attached.
pub struct Attempt<'a> {
    /// What is attached so far.
    pub attached: Attached,
    btf: &'a Btf,
    copies: &'a Result<copies::Plan, Refusal>,
    types: Option<aya::Btf>,
}

impl Attempt<'_> {
    /// This kernel's types.
    #[must_use]
    pub fn btf(&self) -> &Btf {
        self.btf
    }

    /// Attaches the first choice for a purpose that works, and notes in `attached` what that gave.
    pub fn serve(&mut self, purpose: Purpose) -> Trial {
        let backend = self.attached.backend;
        let mut trial = Trial {
            purpose,
            backend,
            tried: Vec::new(),
        };
        for choice in purpose.choices(backend) {
            let outcome = match self.attach_choice(choice) {
                Ok(()) => Outcome::Chosen,
                Err(refusal) => Outcome::Refused(refusal),
            };
            trial.tried.push(Tried { choice, outcome });
            if let Some(choice) = trial.chosen() {
                let hooks = choice.hooks.iter().map(|hook| (purpose, *hook));
                self.attached.hooks.extend(hooks);
                return trial;
            }
        }
        if let Some(refusal) = trial.refusal() {
            let missing = Unavailable { purpose, refusal };
            self.attached.unavailable.push(missing);
        }
        trial
    }

    /// Loads what watches the copies, where that is planned. It is attached to threads, later.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a program that watches them.
    pub fn prepare_copies(&mut self) -> Result<()> {
        let attached = &mut self.attached;
        match self.copies {
            Ok(plan) => {
                plan.load(&mut attached.ebpf)?;
                let hooks = plan.hooks.iter().map(|(hook, _)| (Purpose::Copies, *hook));
                attached.hooks.extend(hooks);
                attached.copies = Some(plan.clone());
            }
            Err(refusal) => attached.unavailable.push(Unavailable {
                purpose: Purpose::Copies,
                refusal: refusal.clone(),
            }),
        }
        Ok(())
    }

    /// Tries the choices that [`Attempt::serve`] did not come to, each by itself, and adds them to
    /// the trials. Everything is detached before and after.
    pub fn try_the_rest(&mut self, trials: &mut [Trial]) {
        self.attached.detach();
        self.attached.hooks.clear();
        for trial in trials {
            let rest = trial.purpose.choices(trial.backend).skip(trial.tried.len());
            for choice in rest {
                let outcome = match self.attach_choice(choice) {
                    Ok(()) => Outcome::Possible,
                    Err(refusal) => Outcome::Refused(refusal),
                };
                for hook in choice.hooks {
                    self.unload(hook);
                }
                trial.tried.push(Tried { choice, outcome });
            }
        }
    }

    /// Attaches all hooks of a choice, or none.
    fn attach_choice(&mut self, choice: &Choice) -> Result<(), Refusal> {
        fits(choice, self.btf)?;
        for (index, hook) in choice.hooks.iter().enumerate() {
            if let Err(refusal) = self.attach_hook(hook) {
                for attached in &choice.hooks[..=index] {
                    self.unload(attached);
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn attach_hook(&mut self, hook: &Hook) -> Result<(), Refusal> {
        let at = hook.at;
        let what = format!("{} {}", at.kind(), at.target());
        let Some(program) = self.attached.ebpf.program_mut(hook.program) else {
            let reason = format!("{what}: the kernel programs have no {}", hook.program);
            return Err(Refusal::new(Asked::Program, Cause::Absent, reason));
        };
        if program.fd().is_err() {
            load(program, at, self.types.as_ref()).map_err(|error| {
                let refusal = Refusal::of(Asked::Program, "the program is refused", &error);
                Refusal {
                    reason: refusal.reason + &last_words(&error),
                    ..refusal
                }
                .within(&what)
            })?;
        }
        attach_loaded(program, at).map_err(|error| Refusal::of(asked(at), &what, &error))
    }

    fn unload(&mut self, hook: &Hook) {
        if let Some(program) = self.attached.ebpf.program_mut(hook.program) {
            unload(program);
        }
    }

    /// Loads the programs of each purpose's first choice, all at the same time: the verifier takes
    /// long over some. One that fails is loaded again when it is attached, which then says why.
    fn load_ahead(&mut self) {
        let mut hooks: Vec<&Hook> = Vec::new();
        for purpose in Purpose::ALL {
            let mut choices = purpose.choices(self.attached.backend);
            let first = choices.find(|choice| fits(choice, self.btf).is_ok());
            hooks.extend(first.iter().flat_map(|choice| choice.hooks));
        }
        let types = self.types.as_ref();
        thread::scope(|scope| {
            for (name, program) in self.attached.ebpf.programs_mut() {
                if let Some(hook) = hooks.iter().copied().find(|hook| hook.program == name) {
                    scope.spawn(|| load(program, hook.at, types));
                }
            }
        });
    }
}

/// What an attachment asks of the kernel.
fn asked(at: Attachment<'_>) -> Asked {
    match at {
        Attachment::RawTracepoint(_) => Asked::RawTracepoint,
        Attachment::Event(_) => Asked::Event,
        Attachment::Fentry(_) | Attachment::Fexit(_) => Asked::Trampoline,
        Attachment::Kprobe(_) | Attachment::Kretprobe(_) => Asked::Kprobe,
        Attachment::Breakpoint(_) => Asked::ExecutionBreakpoint,
        Attachment::MinorFaults | Attachment::MajorFaults => Asked::SoftwareEvent,
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

/// What this kernel's types say of the choices for a purpose, for somebody who may attach none.
#[must_use]
pub fn by_types(purpose: Purpose, backend: Backend, btf: &Btf) -> Trial {
    let tried = purpose.choices(backend).map(|choice| Tried {
        choice,
        outcome: fits(choice, btf).map_or_else(Outcome::Refused, |()| Outcome::Untried),
    });
    Trial {
        purpose,
        backend,
        tried: tried.collect(),
    }
}

/// Whether this kernel has what a choice is for, by its types.
fn fits(choice: &Choice, btf: &Btf) -> Result<(), Refusal> {
    if !choice.requires.is_met(btf) {
        return Err(unmet(choice.requires));
    }
    let mut functions = choice.hooks.iter().filter_map(|hook| hook.at.function());
    match functions.find(|function| btf.function_id(function).is_none()) {
        Some(missing) => Err(Refusal::new(
            Asked::Function,
            Cause::Absent,
            format!("this kernel has no function {missing}"),
        )),
        None => Ok(()),
    }
}

/// What the verifier said last, in brackets: its whole log has thousands of lines.
fn last_words(error: &anyhow::Error) -> String {
    let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref() else {
        return String::new();
    };
    let log = verifier_log.to_string();
    let said: Vec<&str> = log
        .lines()
        .filter(|line| !line.is_empty() && !STATISTICS.iter().any(|word| line.starts_with(word)))
        .collect();
    match said[said.len().saturating_sub(LOG_LINES)..].join(" | ") {
        none if none.is_empty() => none,
        last => format!(" ({last})"),
    }
}

/// How the verifier's lines begin that say only what it took.
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

/// How many of the verifier's last lines are shown.
const LOG_LINES: usize = 2;

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
    attach_loaded(program, at)
}

fn attach_loaded(program: &mut Program, at: Attachment<'_>) -> Result<()> {
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
