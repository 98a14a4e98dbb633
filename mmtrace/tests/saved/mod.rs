//! Saved recordings.

use std::{fs, path::PathBuf};

use mmtrace::recording::Recording;

pub(crate) fn saved(name: &str) -> Vec<u8> {
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "recordings", name]
        .iter()
        .collect();
    fs::read(file.with_extension("json")).unwrap()
}

pub(crate) fn recording(name: &str) -> Recording {
    Recording::from_json(&saved(name)).unwrap()
}
