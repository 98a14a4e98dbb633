//! The cases, family by family.

mod ahead;
mod asynchronous;
mod compat;
mod copies;
mod coreutils;
pub(crate) mod cow;
mod disks;
mod doctor;
mod file_systems;
mod heat;
mod languages;
mod maps;
mod names;
mod processes;
mod programs;
mod python;
mod reads;
mod settle;
mod stacked;
mod stacks;
mod streams;
mod throttled;
mod timed;
pub(crate) mod watched;
mod witness;

use crate::case::{ANY_FILE_SYSTEM, Case};

/// Every case, in the order in which they run.
pub(crate) fn all() -> Vec<Case> {
    [
        coreutils::cases(),
        reads::cases(),
        names::cases(),
        maps::cases(),
        cow::cases(),
        python::cases(),
        streams::cases(),
        copies::cases(),
        on_any_file_system(watched::cases()),
        on_any_file_system(compat::cases()),
        asynchronous::cases(),
        on_any_file_system(processes::cases()),
        disks::cases(),
        file_systems::cases(),
        stacked::cases(),
        on_any_file_system(stacks::cases()),
        on_any_file_system(languages::cases()),
        on_any_file_system(heat::cases()),
        ahead::cases(),
        throttled::cases(),
        on_any_file_system(witness::cases()),
        programs::cases(),
        on_any_file_system(doctor::cases()),
        settle::cases(),
        timed::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Cases whose files, if they have any, might be on whichever file system.
fn on_any_file_system(mut cases: Vec<Case>) -> Vec<Case> {
    for case in &mut cases {
        case.needs.insert(0, ANY_FILE_SYSTEM);
    }
    cases
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let cases = super::all();
        let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
        assert_eq!(names.len(), cases.len());
        assert!(names.iter().all(|name| name.contains('/')));
    }
}
