//! `mmtrace doctor`: what it says of the backend under test is what a run then has.

use std::{cell::RefCell, process::Command, rc::Rc};

use anyhow::ensure;

use crate::{
    case::{Case, Need, Part, Scene, Site, case, words},
    doctor::{Said, registers},
    leftovers::Objects,
    needs::kernel_is,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("doctor/true", &[], what_it_says),
        case(
            "doctor/little-memory",
            &[Need::FirstBackend, Need::Part(Part::Slow)],
            little_memory,
        ),
    ]
}

/// A limit of the memory that may be locked matters before Linux 5.11, to who may not lift it.
fn little_memory(site: &Site) -> anyhow::Result<Scene> {
    const LIMIT: [&str; 2] = ["prlimit", "--memlock=65536"];
    const POWERLESS: [&str; 3] = ["setpriv", "--bounding-set", "-sys_resource"];
    let ask = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        Said::by_command(command.args(&words[1..]).arg(&site.mmtrace))
    };
    let allowed = ask(&LIMIT)?;
    let powerless = ask(&[&POWERLESS[..], &LIMIT[..]].concat())?;
    let is_free = kernel_is([5, 11]);
    Ok(Scene::new(words(&[&"true"]), move |check, _| {
        for (who, (said, status), can) in [
            ("who may lift the limit", &allowed, true),
            ("who may not", &powerless, is_free),
        ] {
            let right = said.verdict.can_measure == can && *status == Some(i32::from(!can));
            check.that(right, || format!("{who}: {:?}, {status:?}", said.verdict));
        }
        for backend in powerless.0.backends.iter().filter(|_| !is_free) {
            let mut lifts = backend.lifted_by().iter();
            let told = lifts.any(|by| by.contains("ulimit -l unlimited"));
            check.that(told, || format!("what would help is not said: {backend:?}"));
        }
        Ok(())
    }))
}

/// What it says of all backends, each of which it tries: asked once, for the cases of all.
fn asked_once(site: &Site) -> anyhow::Result<(Rc<Said>, Option<i32>)> {
    thread_local! {
        static ANSWER: RefCell<Option<(Rc<Said>, Option<i32>)>> = const { RefCell::new(None) };
    }
    if let Some(known) = ANSWER.with_borrow(Clone::clone) {
        return Ok(known);
    }
    let before = Objects::now();
    let (said, status) = Said::by(site.mmtrace.as_os_str())?;
    let left = Objects::left_since(&before);
    ensure!(left.is_empty(), "doctor left in the kernel: {left}");
    let answer = (Rc::new(said), status);
    ANSWER.set(Some(answer.clone()));
    Ok(answer)
}

fn what_it_says(site: &Site) -> anyhow::Result<Scene> {
    let (said, status) = asked_once(site)?;
    let backend = site.backend.clone();
    let registers = registers()?.map(Some);
    Ok(Scene::new(words(&[&"true"]), move |check, _| {
        check.that(said.verdict.can_measure && status == Some(0), || {
            format!("{:?}, status {status:?}", said.verdict)
        });
        let report = said.of(&backend)?;
        check.that(["chosen", "possible"].contains(&&*report.state), || {
            format!("{backend} works, and is said to be {}", report.state)
        });
        let (told, hooked) = (report.hooks(), check.recording().hooks());
        check.that(told == hooked, || {
            format!("hooks: {told:?}, are {hooked:?}")
        });
        check.that(said.registers() == registers, || {
            format!("registers: {:?}, are {registers:?}", said.registers())
        });
        Ok(())
    }))
}
