//! Whatever a file has in it, reading it ends with a recording or an error, and fast: without what
//! formats then make of it, which has a target of its own.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mmtrace::recording::Recording;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = Recording::from_json(bytes) {
        // What a user would see of it.
        let _ = format!("{error:#}");
    }
});
