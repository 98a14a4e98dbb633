//! What the kernel side counted and told, taken out of its maps and made a recording.

mod calibration;
mod disks;
mod events;
mod maps;
mod recording;
mod samples;
mod session;
mod witness;

pub use session::{Asked, Session};
