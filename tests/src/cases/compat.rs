//! Calls through the 32-bit interface.

use anyhow::ensure;

use super::reads::as_made;
use crate::{
    case::{Case, Need, Scene, Site, State, case},
    check::{all_of, on},
};

pub(super) fn cases() -> Vec<Case> {
    vec![case(
        "compat/int80",
        &[Need::FirstBackend, Need::Compat],
        compat,
    )]
}

/// Calls through the 32-bit interface are told as lost, and not taken for what their numbers mean
/// in the other.
fn compat(site: &Site) -> anyhow::Result<Scene> {
    const CALLS: u64 = 61;
    let file = site.data_in(State::Warm, 200_003)?;
    let command = site.workload("compat", &[&file, &CALLS.to_string()]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.calls == CALLS);
        as_made(check, &on(&file, "read"), truth);
        check.equal(&all_of(&file), "operations", truth.calls);
        Ok(())
    })
    .losing("compat_calls", 3 * CALLS))
}
