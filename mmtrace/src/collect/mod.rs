//! What the kernel side counted and told, taken out of its maps and made a recording.

mod calibration;
mod copy_sampling;
mod disks;
mod events;
mod maps;
mod recording;
mod samples;
mod session;
mod witness;

pub use calibration::see_what_is_known;
pub(crate) use recording::host;
pub use session::{Asked, Session};
