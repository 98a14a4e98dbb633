//! The functions of a recording's stacks, numbered, for formats that list them once.

use std::{collections::HashMap, hash::Hash};

use crate::recording::{Path, Stack};

/// What a stack is made of.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Frame<'a> {
    /// The path, as the outermost function.
    Path(Path),
    /// A function, and its place in the source.
    Function(&'a str, Option<&'a str>),
}

impl<'a> Frame<'a> {
    /// A stack's functions, the outermost first.
    pub(super) fn functions(stack: &'a Stack) -> impl Iterator<Item = Self> {
        let sources = stack.sources.iter().map(Option::as_deref);
        let sources = sources.chain(std::iter::repeat(None));
        let frames = stack.frames.iter().zip(sources);
        frames.map(|(name, source)| Self::Function(name, source))
    }

    /// The name, as the recording has it.
    pub(super) fn name(self) -> &'a str {
        match self {
            Self::Path(path) => path.name(),
            Self::Function(name, _) => name,
        }
    }

    /// The function, wherever in it the stack goes on.
    pub(super) fn without_line(self) -> Self {
        match self {
            Self::Function(name, _) => Self::Function(name, self.place().0),
            Self::Path(_) => self,
        }
    }

    /// The file and the line, where they are known.
    pub(super) fn place(self) -> (Option<&'a str>, Option<u32>) {
        match self {
            Self::Function(_, Some(source)) => place(source),
            _ => (None, None),
        }
    }
}

/// Things numbered from 0 in the order in which they were met.
pub(super) struct Numbers<T> {
    numbers: HashMap<T, usize>,
    met: Vec<T>,
}

impl<T: Clone + Eq + Hash> Numbers<T> {
    pub(super) fn new() -> Self {
        Self {
            numbers: HashMap::new(),
            met: Vec::new(),
        }
    }

    pub(super) fn number(&mut self, thing: T) -> usize {
        if let Some(&number) = self.numbers.get(&thing) {
            return number;
        }
        self.met.push(thing.clone());
        self.numbers.insert(thing, self.met.len() - 1);
        self.met.len() - 1
    }

    /// Each, in the order of the numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.met.iter()
    }
}

/// `FILE:LINE`, in its parts.
fn place(source: &str) -> (Option<&str>, Option<u32>) {
    let parts = source.rsplit_once(':');
    match parts.and_then(|(file, line)| Some((file, line.parse().ok()?))) {
        Some((file, line)) if !file.is_empty() => (Some(file), Some(line)),
        _ => (Some(source), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_ends_in_a_line_if_it_has_one() {
        for (source, parts) in [
            ("src/main.rs:9", ("src/main.rs", Some(9))),
            ("a:b:7", ("a:b", Some(7))),
            ("main.rs", ("main.rs", None)),
            ("main.rs:", ("main.rs:", None)),
            ("main.rs:-1", ("main.rs:-1", None)),
            ("x:99999999999", ("x:99999999999", None)),
            (":1", (":1", None)),
        ] {
            assert_eq!(place(source), (Some(parts.0), parts.1), "{source}");
        }
    }
}
