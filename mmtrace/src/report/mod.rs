//! Reports: what a recording looks like. Each format is a function of the recording alone.

pub mod doctor;
mod footer;
mod grid;
pub mod json;
mod observed;
mod paint;
mod summary;
pub mod table;
mod text;
pub(crate) mod units;
