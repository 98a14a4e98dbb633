//! File names that no text file would have.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use anyhow::ensure;

use super::reads::as_made;
use crate::{
    case::{Case, Scene, Site, State, case},
    check::on,
};

/// Cases' names, and files' names.
const NAMES: [(&str, &[u8]); 5] = [
    ("newline", b"two\nlines"),
    ("escape-sequence", b"\x1b[31mred\x1b[0m\x07"),
    ("invalid-utf8", b"\xff\xfe not \xc3( text"),
    ("quotes-and-backslashes", b"a \"b\" \\n 'c' \t \x7f"),
    ("unicode", "naïve Ω 文件".as_bytes()),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = NAMES
        .into_iter()
        .map(|(name, file)| case(format!("name/{name}"), &[], move |site| named(site, file)))
        .collect();
    cases.push(case("name/longest", &[], |site| named(site, &[b'x'; 255])));
    cases.push(case("name/deep", &[], deep));
    cases
}

fn named(site: &Site, name: &[u8]) -> anyhow::Result<Scene> {
    const SIZE_BYTES: u64 = 10_007;
    let file = site.data(OsStr::from_bytes(name), SIZE_BYTES)?;
    site.bring(State::Warm, &file)?;
    let command = site.workload("read", &[&file, &"read", &"1511"]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == SIZE_BYTES);
        check.is_named(&file);
        as_made(check, &on(&file, "read"), truth);
        Ok(())
    }))
}

/// A file below many directories, with a path of more than a thousand bytes.
fn deep(site: &Site) -> anyhow::Result<Scene> {
    let mut directory = site.path("deep");
    for level in 0..40 {
        directory.push(format!("a-directory-on-the-level-number-{level}"));
    }
    std::fs::create_dir_all(&directory)?;
    let below = Site {
        directory,
        ..site.clone()
    };
    named(&below, b"at the bottom")
}
