//! What mmtrace says was read from a disk, beside what the disk's own counter says.

use std::{ffi::OsString, fs, os::unix::fs::MetadataExt as _};

use crate::{
    case::{Case, Need, Scene, Site, State, case, rehearse, words},
    check::on,
};

pub(super) fn cases() -> Vec<Case> {
    vec![case("disk/own-counter", &[Need::Cold], own_counter)]
}

/// One file, read from the disk by one program. Where the disk under test is not the one that the
/// system lies on, nobody else reads it meanwhile.
fn own_counter(site: &Site) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let from_disk = site.on_disk_bytes(size)?;
    let file = site.data("data", size)?;
    let ours_alone = fs::metadata(&site.directory)?.dev() != fs::metadata("/")?.dev();
    let mut input = OsString::from("if=");
    input.push(&file);
    let command = words(&[&"dd", &input, &"of=/dev/null", &"bs=65537", &"status=none"]);
    rehearse(&command)?;
    site.bring(State::Cold, &file)?;
    Ok(Scene::new(command, move |check, _| {
        check.equal(&on(&file, "read"), "disk_read_bytes", from_disk);
        let disks: Vec<_> = check
            .audit()
            .iter()
            .filter(|entry| {
                entry.check.starts_with("disk bytes on ") && entry.ours >= Some(from_disk)
            })
            .collect();
        let [disk] = disks[..] else {
            let text = format!("{} disks were read so much, must be 1", disks.len());
            check.that(false, || text);
            return Ok(());
        };
        let (agree, text) = (disk.agree, format!("{disk:?}"));
        check.that(
            agree == Some(true) || (!ours_alone && agree.is_none()),
            || text,
        );
        Ok(())
    })
    .alone())
}
