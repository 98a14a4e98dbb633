//! mmtrace: where a program's file data comes from.
//!
//! The binary is a thin `main` over this library, so that each part can be tested by itself.

pub mod advice;
pub mod audit;
pub mod cli;
pub mod collect;
pub mod command;
pub mod compare;
pub mod doctor;
pub mod failure;
pub mod kernel;
pub mod output;
pub mod page_cache;
pub mod privilege;
pub mod probe;
pub mod progress;
pub mod recording;
pub mod report;
pub mod settle;
pub mod statistics;
pub mod target;
pub mod witness;

use std::io::Write;

/// Writes `text` to standard error in one call, so that it is not torn by the target's output.
///
/// A standard error that cannot be written to leaves nobody to tell: that error is dropped.
pub fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
