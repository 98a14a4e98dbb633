//! What the kernel side counted and told, taken out of its maps and made a recording.

mod calibration;
mod code;
mod copy_sampling;
mod cpus;
mod disks;
mod elf;
mod events;
mod go;
mod heat;
mod maps;
mod module;
mod names;
mod perf_map;
mod recording;
mod samples;
mod session;
mod shared;
mod stacks;
mod timeline;
mod unwinding;
mod witness;

pub use calibration::see_what_is_known;
pub(crate) use recording::host;
pub use session::{Asked, Session};
