//! What the running kernel is and offers.

pub mod attempt;
pub mod breakpoint;
pub mod btf;
pub mod conditions;
pub mod event;
pub mod offsets;
pub mod refusal;
pub mod remedy;
pub mod stack;
pub mod symbols;
