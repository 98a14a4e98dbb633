//! BPF objects that are in the kernel and belong to nobody who runs.

use std::{
    collections::BTreeSet,
    fmt, fs, io, thread,
    time::{Duration, Instant},
};

/// The kernel frees programs and maps some time after their last descriptor is closed.
const FREEING: Duration = Duration::from_secs(10);

/// From linux/bpf.h: the commands that list what there is.
const KINDS: [(Kind, libc::c_long); 3] = [(Kind::Program, 11), (Kind::Map, 12), (Kind::Link, 31)];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Program,
    Map,
    Link,
}

/// BPF programs, maps and links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects(BTreeSet<(Kind, u32)>);

impl Objects {
    /// All that are in the kernel.
    pub(crate) fn now() -> Self {
        let mut objects = BTreeSet::new();
        for (kind, command) in KINDS {
            let mut id = 0;
            while let Ok(next) = next_id(command, id) {
                objects.insert((kind, next));
                id = next;
            }
        }
        Self(objects)
    }

    /// What came since `before` and stays though no running process holds it.
    pub(crate) fn left_since(before: &Self) -> Self {
        let mut left = BTreeSet::new();
        until(FREEING, || {
            // In this order: what appears in between is held by whoever made it.
            let now = Self::now();
            let held = Self::held();
            left = now
                .0
                .difference(&before.0)
                .filter(|object| !held.0.contains(object))
                .copied()
                .collect();
            left.is_empty()
        });
        Self(left)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What running processes have descriptors of.
    fn held() -> Self {
        let mut held = BTreeSet::new();
        let directories = fs::read_dir("/proc").into_iter().flatten().flatten();
        for directory in directories {
            // Not a process, or one that has ended meanwhile: holds nothing.
            let Ok(descriptors) = fs::read_dir(directory.path().join("fdinfo")) else {
                continue;
            };
            for descriptor in descriptors.flatten() {
                let text = fs::read_to_string(descriptor.path()).unwrap_or_default();
                held.extend(text.lines().filter_map(object));
            }
        }
        Self(held)
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, id)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(formatter, "{comma}{kind:?} {id}")?;
        }
        Ok(())
    }
}

/// The object that a line of fdinfo names.
fn object(line: &str) -> Option<(Kind, u32)> {
    let (key, id) = line.split_once(':')?;
    let kind = match key {
        "prog_id" => Kind::Program,
        "map_id" => Kind::Map,
        "link_id" => Kind::Link,
        _ => return None,
    };
    Some((kind, id.trim().parse().ok()?))
}

/// The start of `union bpf_attr` for the commands that list.
#[repr(C)]
struct NextId {
    start: u32,
    next: u32,
    open_flags: u32,
}

fn next_id(command: libc::c_long, start: u32) -> io::Result<u32> {
    let mut attributes = NextId {
        start,
        next: 0,
        open_flags: 0,
    };
    // SAFETY: the structure is as the command takes it, with its size; the kernel writes `next`.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut attributes,
            size_of::<NextId>(),
        )
    };
    match returned {
        0 => Ok(attributes.next),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Looks again and again whether something has come to be so, for what the kernel tells nobody of;
/// says whether it has within `limit`. What is decided is decided by `so`, not by how long that takes.
pub(crate) fn until(limit: Duration, mut so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if so() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_name_their_objects() {
        assert_eq!(object("prog_id:\t17"), Some((Kind::Program, 17)));
        assert_eq!(object("link_id:\t3"), Some((Kind::Link, 3)));
        assert_eq!(object("pos:\t0"), None);
    }
}
