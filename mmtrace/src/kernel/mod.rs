//! What the running kernel is and offers.

pub mod attempt;
pub mod btf;
pub mod event;
pub mod offsets;
