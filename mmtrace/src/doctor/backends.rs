//! The backends, each tried as `run` tries it, then its other choices.

use anyhow::Result;

use super::diagnosis::{BackendReport, ChoiceReport, Denial, Hook, PurposeReport, State};
use crate::{
    collect::see_what_is_known,
    kernel::{
        attempt,
        btf::Btf,
        conditions::Conditions,
        refusal::{Asked, Cause, Refusal},
    },
    probe::{
        Attached, Attempt, Prober, Purpose, by_types,
        copies::Wanted,
        coverage,
        plan::{self, BACKENDS, Backend},
        trial::{Outcome, Trial},
    },
    recording::Copies,
};

/// Tries every backend.
pub(super) fn tried(here: &Conditions, nonce: u32) -> Result<Vec<BackendReport>> {
    let mut prober = match Btf::is_there() {
        Ok(()) => match Prober::new(Wanted::Auto, nonce, false) {
            Ok(prober) => prober,
            Err(error) => return Ok(all_refused(&not_as_needed(&error), here)),
        },
        Err(refusal) => return Ok(all_refused(&refusal, here)),
    };
    let mut reports: Vec<BackendReport> = Vec::new();
    for backend in BACKENDS {
        let mut report = try_backend(&mut prober, backend, here, nonce)?;
        let chosen = reports.iter().any(|report| report.state == State::Chosen);
        if report.state == State::Possible && !chosen {
            report.state = State::Chosen;
        }
        reports.push(report);
    }
    Ok(reports)
}

fn try_backend(
    prober: &mut Prober,
    backend: Backend,
    here: &Conditions,
    nonce: u32,
) -> Result<BackendReport> {
    let mut attempt = match prober.open(backend)? {
        Ok(attempt) => attempt,
        Err(refusal) => return Ok(refused(backend, &refusal, here)),
    };
    let mut trials: Vec<Trial> = Purpose::ALL
        .into_iter()
        .map(|purpose| attempt.serve(purpose))
        .collect();
    let missing = trials.iter().find_map(|trial| {
        let refusal = trial.refusal().filter(|_| trial.purpose.required())?;
        Some(refusal.within(&format!("no hooks for {}", trial.purpose.name())))
    });
    let refusal = missing.or_else(|| see(&mut attempt, nonce).err());
    let attached = &attempt.attached;
    let watched = copies(attached, here);
    let found = match attached.copies {
        Some(_) => Copies::Exact,
        None => Copies::Returns,
    };
    let missing = attached.unavailable.iter();
    let missing = missing.map(|it| (it.purpose, it.refusal.reason.as_str()));
    let (unavailable, _) = coverage::of(missing, attached.copies.as_ref());
    attempt.try_the_rest(&mut trials);
    let btf = attempt.btf();
    let served = trials.iter().map(|trial| purpose(trial, btf, here));
    let purposes = served.chain(watched).collect();
    Ok(match refusal {
        None => BackendReport {
            backend,
            state: State::Possible,
            refusal: None,
            copies: Some(found),
            unavailable,
            purposes,
        },
        Some(refusal) => BackendReport {
            purposes,
            ..refused(backend, &refusal, here)
        },
    })
}

/// Prepares the copies, and makes the calibration.
fn see(attempt: &mut Attempt<'_>, nonce: u32) -> Result<(), Refusal> {
    attempt
        .prepare_copies()
        .map_err(|error| Refusal::of(Asked::Program, "copies cannot be watched", &error))?;
    see_what_is_known(&mut attempt.attached, nonce).map_err(|error| {
        let reason = format!("{error:#}");
        Refusal::new(Asked::Calibration, Cause::Different, reason)
    })
}

/// How watching the copies fared; `None` where it was not come to.
fn copies(attached: &Attached, here: &Conditions) -> Option<PurposeReport> {
    let which = Purpose::Copies;
    let report = PurposeReport {
        name: which.name().to_owned(),
        required: which.required(),
        state: State::Chosen,
        refusal: None,
        null: Vec::new(),
        costs: Vec::new(),
        choices: Vec::new(),
    };
    if let Some(plan) = &attached.copies {
        let hooks = plan.hooks.iter().map(|(hook, _)| hook);
        let choices = vec![choice(hooks, State::Chosen, None)];
        return Some(PurposeReport { choices, ..report });
    }
    let missing = attached.unavailable.iter().find(|it| it.purpose == which)?;
    let cost = coverage::without(which);
    Some(PurposeReport {
        state: State::Refused,
        refusal: Some(Denial::of(&missing.refusal, here)),
        null: cost.measures.to_vec(),
        costs: cost.says.into_iter().map(str::to_owned).collect(),
        ..report
    })
}

fn purpose(trial: &Trial, btf: &Btf, here: &Conditions) -> PurposeReport {
    let purpose = trial.purpose;
    let refusal = trial.refusal();
    let cost = refusal.as_ref().map(|_| coverage::without(purpose));
    let (state, costs) = match (trial.chosen(), cost) {
        (Some(chosen), _) => {
            let costs = coverage::inexact(purpose, chosen.hooks, btf);
            (State::Chosen, costs)
        }
        (None, Some(cost)) => (State::Refused, cost.says.into_iter().collect()),
        (None, None) => (State::Untried, Vec::new()),
    };
    PurposeReport {
        name: purpose.name().to_owned(),
        required: purpose.required(),
        state,
        refusal: refusal.map(|refusal| Denial::of(&refusal, here)),
        null: cost.map_or_else(Vec::new, |cost| cost.measures.to_vec()),
        costs: costs.into_iter().map(str::to_owned).collect(),
        choices: trial
            .tried
            .iter()
            .map(|tried| match &tried.outcome {
                Outcome::Chosen => choice(tried.choice.hooks, State::Chosen, None),
                Outcome::Possible => choice(tried.choice.hooks, State::Possible, None),
                Outcome::Untried => choice(tried.choice.hooks, State::Untried, None),
                Outcome::Refused(refusal) => {
                    let denial = Denial::of(refusal, here);
                    choice(tried.choice.hooks, State::Refused, Some(denial))
                }
            })
            .collect(),
    }
}

fn choice<'a>(
    hooks: impl IntoIterator<Item = &'a plan::Hook>,
    state: State,
    refusal: Option<Denial>,
) -> ChoiceReport {
    let hooks = hooks.into_iter().map(|hook| Hook {
        name: hook.at.target().to_owned(),
        kind: hook.at.kind().to_owned(),
        program: hook.program.to_owned(),
    });
    ChoiceReport {
        state,
        refusal,
        hooks: hooks.collect(),
    }
}

fn refused(backend: Backend, refusal: &Refusal, here: &Conditions) -> BackendReport {
    BackendReport {
        backend,
        state: State::Refused,
        refusal: Some(Denial::of(refusal, here)),
        copies: None,
        unavailable: Vec::new(),
        purposes: Vec::new(),
    }
}

fn all_refused(refusal: &Refusal, here: &Conditions) -> Vec<BackendReport> {
    BACKENDS
        .into_iter()
        .map(|backend| refused(backend, refusal, here))
        .collect()
}

/// What would be tried by somebody who may: what this kernel has by its types. What it does not
/// have is told, since it shows without any rights.
pub(super) fn untried(here: &Conditions) -> Vec<BackendReport> {
    let btf = match Btf::is_there() {
        Ok(()) => Btf::of_kernel(),
        Err(refusal) => return all_refused(&refusal, here),
    };
    let btf = match btf {
        Ok(btf) => btf,
        Err(error) => return all_refused(&not_as_needed(&error), here),
    };
    let report = |backend| {
        let gate = match backend {
            Backend::Kprobe => attempt::kprobe(),
            Backend::Fentry | Backend::Tracepoint => Ok(()),
        };
        if let Err(refusal) = gate {
            return refused(backend, &refusal, here);
        }
        let purposes = Purpose::ALL.into_iter();
        BackendReport {
            backend,
            state: State::Untried,
            refusal: None,
            copies: None,
            unavailable: Vec::new(),
            purposes: purposes
                .map(|what| purpose(&by_types(what, backend, &btf), &btf, here))
                .collect(),
        }
    };
    BACKENDS.into_iter().map(report).collect()
}

/// Type information that lacks something.
fn not_as_needed(error: &anyhow::Error) -> Refusal {
    Refusal::new(Asked::Arguments, Cause::Different, format!("{error:#}"))
}
