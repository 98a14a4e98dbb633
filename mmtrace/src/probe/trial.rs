//! How the choices for a purpose fared when they were tried: what `run` starts with and `doctor`
//! tells.

use super::plan::{Choice, Purpose, Requirement};
use crate::kernel::{
    btf::Btf,
    refusal::{Asked, Cause, Refusal},
};
use crate::recording::Backend;

/// How one choice fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The first that worked: this one is used.
    Chosen,
    /// It works too.
    Possible,
    /// The kernel has what it is for; whether it allows it is not known.
    Untried,
    /// The kernel does not have it, or refuses it.
    Refused(Refusal),
}

/// A choice that was tried.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Which.
    pub choice: &'static Choice,
    /// How it fared.
    pub outcome: Outcome,
}

/// What was tried for a purpose under a backend, in the plan's order.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What for.
    pub purpose: Purpose,
    /// The backend.
    pub backend: Backend,
    /// The choices, as far as they were tried.
    pub tried: Vec<Tried>,
}

impl Trial {
    /// The choice that is used.
    #[must_use]
    pub fn chosen(&self) -> Option<&'static Choice> {
        self.tried
            .iter()
            .find(|tried| tried.outcome == Outcome::Chosen)
            .map(|tried| tried.choice)
    }

    /// Why no choice can be used; `None` when one can, or none was tried that might.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let mut best: Option<&Refusal> = None;
        for tried in &self.tried {
            match &tried.outcome {
                Outcome::Chosen | Outcome::Untried => return None,
                Outcome::Refused(refusal) => {
                    // That another choice is meant for this kernel explains least, an error most.
                    if best.is_none_or(|best| weight(best.cause) <= weight(refusal.cause)) {
                        best = Some(refusal);
                    }
                }
                Outcome::Possible => {}
            }
        }
        Some(best.cloned().unwrap_or_else(|| {
            Refusal::new(
                Asked::AnyHook,
                Cause::Absent,
                format!("the {} backend cannot see it", self.backend.name()),
            )
        }))
    }
}

fn weight(cause: Cause) -> u8 {
    match cause {
        Cause::Different => 0,
        Cause::Absent => 1,
        Cause::Errno(_) => 2,
    }
}

/// A requirement that this kernel does not meet, as a refusal.
pub(super) fn unmet(requirement: Requirement) -> Refusal {
    let reason = match requirement {
        Requirement::None => String::new(),
        Requirement::TracepointArguments(name, count) => {
            format!("this kernel has no tracepoint {name} with {count} arguments")
        }
        Requirement::Function(name) => format!("this kernel has no function {name}"),
        Requirement::Parameters(name, count) => {
            format!("this kernel has no function {name} with {count} parameters")
        }
        Requirement::PreemptibleTracepoints => {
            "this kernel does not preempt tracepoints' programs: only from 7.0 on is it needed"
                .to_owned()
        }
    };
    Refusal::new(Asked::Arguments, Cause::Different, reason)
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
pub(super) fn fits(choice: &Choice, btf: &Btf) -> Result<(), Refusal> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(outcomes: Vec<Outcome>) -> Trial {
        let backend = Backend::Tracepoint;
        let choice = Purpose::Calls.choices(backend).next().unwrap();
        Trial {
            purpose: Purpose::Calls,
            backend,
            tried: outcomes
                .into_iter()
                .map(|outcome| Tried { choice, outcome })
                .collect(),
        }
    }

    fn refused(cause: Cause) -> Outcome {
        Outcome::Refused(Refusal::new(
            Asked::RawTracepoint,
            cause,
            format!("{cause:?}"),
        ))
    }

    #[test]
    fn an_error_explains_more_than_what_is_not_there() {
        let trial = trial(vec![
            refused(Cause::Different),
            refused(Cause::Errno(1)),
            refused(Cause::Absent),
        ]);
        assert_eq!(trial.chosen().map(|choice| choice.purpose), None);
        assert_eq!(trial.refusal().unwrap().cause, Cause::Errno(1));
    }

    #[test]
    fn what_has_a_choice_is_not_refused() {
        let trial = trial(vec![refused(Cause::Errno(1)), Outcome::Chosen]);
        assert_eq!(trial.refusal(), None);
        assert_eq!(trial.chosen().unwrap().purpose, Purpose::Calls);
    }

    #[test]
    fn a_purpose_without_choices_cannot_be_seen() {
        let refusal = trial(Vec::new()).refusal().unwrap();
        assert_eq!(refusal.reason, "the tracepoint backend cannot see it");
    }
}
