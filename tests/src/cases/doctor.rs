//! `mmtrace doctor`: what it says of the backend under test is what a run then has.

use anyhow::ensure;

use crate::{
    case::{Case, Scene, Site, case, words},
    doctor::{Said, registers},
    leftovers::Objects,
};

pub(super) fn cases() -> Vec<Case> {
    vec![case("doctor/true", &[], what_it_says)]
}

fn what_it_says(site: &Site) -> anyhow::Result<Scene> {
    let before = Objects::now();
    let (said, status) = Said::by(site.mmtrace.as_os_str())?;
    let left = Objects::left_since(&before);
    ensure!(left.is_empty(), "doctor left in the kernel: {left}");
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
