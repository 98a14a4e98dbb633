//! Reports: what a recording looks like. Each format is a function of the recording alone.

mod advice;
pub mod comparison;
pub mod diff;
pub mod doctor;
pub mod flamegraph;
pub mod folded;
mod footer;
pub mod format;
mod frames;
mod grid;
pub(crate) mod html;
pub mod json;
mod observed;
pub mod page;
mod paint;
pub mod pprof;
pub mod quantity;
mod reasons;
pub mod speedscope;
mod summary;
pub mod table;
pub(crate) mod text;
pub mod trace;
pub(crate) mod units;
