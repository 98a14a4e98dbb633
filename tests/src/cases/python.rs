//! Python's mmap module.

use anyhow::Context as _;

use crate::{
    case::{Case, Need, Scene, Site, State, Stdout, case, find_program, rehearse, words},
    check::on,
    files,
};

/// Loads a byte of every page, in the order that the second argument names, and prints how many
/// pages there were.
const SCRIPT: &str = "
import mmap, random, sys
with open(sys.argv[1], 'rb') as file:
    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    pages = list(range(0, len(view), mmap.PAGESIZE))
    if sys.argv[2] == 'random':
        random.Random(1511).shuffle(pages)
    for offset in pages:
        view[offset]
    print(len(pages))
";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for order in ["sequential", "random"] {
        for state in State::BOTH {
            let needs = [&[Need::Program("python3")], state.needs()].concat();
            cases.push(case(
                format!("python/mmap-{order}-{}", state.name()),
                &needs,
                move |site| mapped(site, order, state),
            ));
        }
    }
    cases
}

fn mapped(site: &Site, order: &str, state: State) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data("data", size)?;
    let pages = size.div_ceil(files::page_size());
    let from_disk = state.disk_bytes(site.on_disk_bytes(size)?);
    let python = find_program("python3").context("python3 is gone")?;
    let command = words(&[&python, &"-S", &"-c", &SCRIPT, &file, &order]);
    rehearse(&command)?;
    site.bring(state, &file)?;
    Ok(Scene::new(command, move |check, _| {
        let mapped = on(&file, "mmap");
        check.equal(&mapped, "operations", 0);
        check.equal(&mapped, "bytes_returned", 0);
        check.equal(&mapped, "disk_read_bytes", from_disk);
        check.equal(&on(&file, "read"), "bytes_returned", 0);
        check.some_faults(&mapped);
        Ok(())
    })
    .printing(Stdout::Exactly(format!("{pages}\n").into())))
}
