//! The cases, family by family.

mod asynchronous;
mod compat;
mod copies;
mod coreutils;
pub(crate) mod cow;
mod disks;
mod doctor;
mod file_systems;
mod maps;
mod names;
mod processes;
mod programs;
mod python;
mod reads;
mod settle;
mod stacked;
mod streams;
mod throttled;
mod timed;
mod watched;
mod witness;

use crate::case::Case;

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
        watched::cases(),
        compat::cases(),
        asynchronous::cases(),
        processes::cases(),
        disks::cases(),
        file_systems::cases(),
        stacked::cases(),
        throttled::cases(),
        witness::cases(),
        programs::cases(),
        doctor::cases(),
        settle::cases(),
        timed::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
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
