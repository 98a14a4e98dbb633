//! Where in the programs and in the kernel the work was caused.

use std::{collections::HashSet, fmt, sync::Arc};

use mmtrace_common::Path;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use super::{Measure, path_name};

/// A part of a process's sum of one measure on one path, and the calls that led to it.
///
/// The stacks of a process, path and measure add up to the sum of its rows exactly; which stacks they
/// are is [sampled](StackSampling).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// The [`Process::id`](super::Process::id); `None` as in rows.
    pub process: Option<u32>,
    /// The path.
    #[serde(with = "path_name::one")]
    pub path: Path,
    /// The measure that `value` is of.
    pub measure: Measure,
    /// How much of it.
    pub value: u64,
    /// The functions, the outermost first. One of the kernel's ends in [`KERNEL_FRAME`], one that the
    /// compiler has put into its caller in [`INLINED_FRAME`]. One without a name is its file's name
    /// with where it begins, or `unknown`, in brackets; so is [`NO_STACK`].
    pub frames: Vec<Arc<str>>,
    /// Where in the source each of the frames is, as `FILE:LINE`; empty if that is known of none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Option<Arc<str>>>,
}

/// What the name of a function of the kernel's ends in.
pub const KERNEL_FRAME: &str = "_[k]";
/// What the name of a function ends in that the compiler has put into its caller.
pub const INLINED_FRAME: &str = "_[i]";
/// The only frame of work of which no stack was taken.
pub const NO_STACK: &str = "[no stack taken]";

/// How stacks were taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackSampling {
    /// How callers were found: `unwinding information and frame pointers`, or `frame pointers`.
    pub unwinding: String,
    /// Calls, faults, requests and waits that count in a measure with stacks.
    pub moments: u64,
    /// Of how many of these a stack was taken.
    pub taken: u64,
    /// What the stacks leave open, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Reads stacks so that equal names share memory: a recording has few functions and many frames.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Stack>, D::Error> {
    struct StacksVisitor;

    impl<'de> Visitor<'de> for StacksVisitor {
        type Value = Vec<Stack>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of stacks")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Stack>, A::Error> {
            let mut names = HashSet::new();
            let mut stacks = Vec::new();
            while let Some(mut stack) = list.next_element::<Stack>()? {
                let sources = stack.sources.iter_mut().flatten();
                for name in stack.frames.iter_mut().chain(sources) {
                    share(&mut names, name);
                }
                stacks.push(stack);
            }
            Ok(stacks)
        }
    }

    deserializer.deserialize_seq(StacksVisitor)
}

/// Replaces `name` by its equal in `names`.
fn share(names: &mut HashSet<Arc<str>>, name: &mut Arc<str>) {
    match names.get(name) {
        Some(equal) => *name = Arc::clone(equal),
        None => {
            names.insert(Arc::clone(name));
        }
    }
}
