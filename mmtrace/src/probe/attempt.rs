//! A backend whose programs are being attached.

use std::thread;

use anyhow::Result;

use super::{
    attach::{Attached, Unavailable},
    copies,
    plan::{Choice, Hook, Purpose},
    program::{asked, attach_loaded, last_words, load, unload},
    trial::{Outcome, Trial, Tried, fits},
};
use crate::kernel::{
    btf::Btf,
    refusal::{Asked, Cause, Refusal},
};

/// A backend whose programs are being attached.
pub struct Attempt<'a> {
    /// What is attached so far.
    pub attached: Attached,
    pub(super) btf: &'a Btf,
    pub(super) copies: &'a Result<copies::Plan, Refusal>,
    pub(super) types: Option<aya::Btf>,
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
        let on_cpus = attach_loaded(program, at)
            .map_err(|error| Refusal::of(asked(at), &what, &error))?
            .map(|on_cpus| (hook.program, on_cpus));
        self.attached.on_cpus.extend(on_cpus);
        Ok(())
    }

    fn unload(&mut self, hook: &Hook) {
        let on_cpus = &mut self.attached.on_cpus;
        on_cpus.retain(|(program, _)| *program != hook.program);
        if let Some(program) = self.attached.ebpf.program_mut(hook.program) {
            unload(program);
        }
    }

    /// Loads the programs of each purpose's first choice, all at the same time: the verifier takes
    /// long over some. One that fails is loaded again when it is attached, which then says why.
    pub(super) fn load_ahead(&mut self) {
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
