//! Which hooks there are, and their life: plan, load, attach.

pub mod attach;
pub mod attempt;
pub mod calls;
pub mod copies;
pub mod coverage;
pub mod cpus;
pub mod missed;
mod object;
pub mod plan;
pub mod prober;
pub mod program;
pub mod sample;
pub mod trial;

pub use attach::{Attached, Unavailable, attach};
pub use attempt::Attempt;
pub use plan::{Attachment, Backend, Purpose};
pub use prober::{Extras, Prober};
pub use program::load_and_attach;
pub use trial::by_types;
