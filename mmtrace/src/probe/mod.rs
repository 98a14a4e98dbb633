//! Which hooks there are, and their life: plan, load, attach.

pub mod attach;
pub mod calls;
pub mod copies;
pub mod coverage;
pub mod missed;
pub mod plan;
pub mod sample;
pub mod trial;

pub use attach::{Attached, Attempt, Prober, Unavailable, attach, by_types, load_and_attach};
pub use plan::{Attachment, Backend, Purpose};
