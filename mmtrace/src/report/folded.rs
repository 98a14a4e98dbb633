//! Folded stacks: a line for each, its functions from the outermost to the innermost with
//! semicolons, and a number.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use super::{quantity::Missing, text::Shown};
use crate::failure::Failure;
use crate::recording::Stack;

/// Writes `stacks` with the path as the outermost function, the stacks of all processes together.
///
/// # Errors
/// When `to` cannot be written to, or the sum of all is 2^64 or more.
pub fn write(stacks: &[&Stack], to: &mut dyn Write) -> anyhow::Result<()> {
    for (stack, value) in fold(stacks).map_err(Failure::from)? {
        writeln!(to, "{stack} {value}")?;
    }
    Ok(())
}

/// The value of each stack, by its line.
pub(super) fn fold(stacks: &[&Stack]) -> Result<BTreeMap<String, u64>, Missing> {
    let mut names: HashMap<&str, String> = HashMap::new();
    let mut folded: BTreeMap<String, u64> = BTreeMap::new();
    let mut sum: u64 = 0;
    for stack in stacks {
        let mut line = String::from(stack.path.name());
        for frame in &stack.frames {
            line.push(';');
            line.push_str(names.entry(frame).or_insert_with(|| escape(frame)));
        }
        // Part of the sum of all, which does not overflow.
        sum = sum.checked_add(stack.value).ok_or(Missing::TooLarge)?;
        *folded.entry(line).or_default() += stack.value;
    }
    Ok(folded)
}

/// A function's name, escaped so that it is one function, and never a number, to who reads a line.
fn escape(name: &str) -> String {
    let shown = Shown::name(name.as_ref()).whole().replace(';', "\\x3b");
    match shown.rsplit_once(' ') {
        // At the end of a line it would be a value.
        Some((head, tail)) if tail.bytes().all(|byte| b"0123456789.".contains(&byte)) => {
            format!("{head}\\x20{tail}")
        }
        _ => shown,
    }
}
