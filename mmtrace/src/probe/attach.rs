//! Attaching the kernel programs: the best backend that this kernel lets us have.

use anyhow::{Context as _, Result, ensure};
use aya::{Ebpf, programs::Program};

use super::{
    copies::{self, Wanted},
    cpus::OnCpus,
    plan::{BACKENDS, Backend, Hook, Purpose},
    prober::{Extras, Prober},
    program::{load_and_attach, unload},
};
use crate::failure::Failure;
use crate::kernel::{
    conditions::{Conditions, lift_memory_limit},
    refusal::{Asked, Refusal},
    remedy,
};

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
    /// The programs that are on events of each CPU, by name.
    pub(super) on_cpus: Vec<(&'static str, OnCpus)>,
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
            self.on_cpus.retain(|(program, _)| *program != hook.program);
        }
    }

    /// A CPU has come online: what each CPU has for itself is attached there too. If it has gone
    /// again, or the kernel refuses, what is not seen there is found out or lost: see the programs.
    pub(crate) fn cpu_came(&mut self, cpu: u32) {
        for (name, on_cpus) in &mut self.on_cpus {
            if let Some(Program::PerfEvent(program)) = self.ebpf.program_mut(name) {
                let _refused = on_cpus.attach_to(program, cpu);
            }
        }
    }

    /// Attaches the programs of a purpose where they do not belong, if they take what is passed there,
    /// as if that had been the plan.
    pub(crate) fn misattach(&mut self, purpose: Purpose) -> Result<()> {
        let mut moved = false;
        for (_, hook) in self.hooks.iter().filter(|(it, _)| *it == purpose) {
            if let Some(at) = hook.at.mistaken()
                && let Some(program) = self.ebpf.program_mut(hook.program)
            {
                unload(program);
                load_and_attach(program, at, None)
                    .with_context(|| format!("{} at {}", hook.program, at.target()))?;
                moved = true;
            }
        }
        ensure!(moved, "no hook for {} can be mistaken", purpose.name());
        Ok(())
    }

    /// Detaches and unloads the programs; the maps stay.
    pub fn detach(&mut self) {
        self.on_cpus.clear();
        for (_, program) in self.ebpf.programs_mut() {
            unload(program);
        }
    }
}

/// Loads and attaches the programs of `wanted`, or of the best backend that can be had.
///
/// # Errors
///
/// If the wanted backend is refused, or every one is; the reason is the kernel's.
pub fn attach(
    wanted: Option<Backend>,
    copies: Wanted,
    nonce: u32,
    verbose: bool,
    extras: Extras,
) -> Result<Attached> {
    lift_memory_limit();
    let mut prober = Prober::new(copies, nonce, verbose)?;
    prober.add(extras);
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
pub(super) fn no_copies(why: &anyhow::Error) -> Refusal {
    let refusal = Refusal::of(Asked::ExecutionBreakpoint, "", why);
    Refusal {
        reason: format!("copies are known by what calls return only: {why:#}"),
        ..refusal
    }
}
