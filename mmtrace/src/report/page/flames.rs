//! Stacks as trees, one for each question that a flame graph answers.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use serde::Serialize;

use crate::{
    recording::{Recording, Stack},
    report::{quantity::Quantity, text::Shown},
};

/// The flame graphs, and the names that their frames have.
#[derive(Serialize)]
pub(super) struct Flames {
    /// Whether stacks were asked for.
    asked: bool,
    /// Names of functions, and places in the source.
    strings: Vec<String>,
    graphs: Vec<Graph>,
}

#[derive(Default, Serialize)]
struct Graph {
    name: &'static str,
    label: &'static str,
    /// Of counts, what is counted.
    unit: &'static str,
    /// Why there is nothing to draw; empty if there is.
    absent: String,
    /// The frames, each before those that it called and the larger ones first. Three lists: how
    /// deep each is, which string its name is, and what it has by itself.
    depths: Vec<u32>,
    names: Vec<u32>,
    own: Vec<u64>,
    /// Which string its place in the source is, and 1; 0 for none. Empty if no frame has one.
    places: Vec<u32>,
}

/// Makes the trees of `recording`.
pub(super) fn flames(recording: &Recording) -> Flames {
    let mut strings = Strings::default();
    let graphs = Quantity::ALL
        .into_iter()
        .map(|quantity| {
            let (stacks, absent) = match quantity.stacks(recording) {
                Ok(stacks) => (stacks, String::new()),
                Err(missing) => (Vec::new(), missing.to_string()),
            };
            Graph {
                name: quantity.name(),
                label: quantity.label(),
                unit: quantity.count_name(),
                absent,
                ..Graph::of(&stacks, &mut strings)
            }
        })
        .collect();
    Flames {
        asked: recording.stack_sampling.is_some(),
        strings: strings.list,
        graphs,
    }
}

impl Graph {
    /// The frames of `stacks`.
    fn of(stacks: &[&Stack], strings: &mut Strings) -> Self {
        let mut tree = Tree::default();
        for stack in stacks {
            tree.add(stack, strings);
        }
        tree.laid()
    }
}

#[derive(Default)]
struct Strings {
    list: Vec<String>,
    places: HashMap<Arc<str>, u32>,
}

impl Strings {
    fn place(&mut self, text: &Arc<str>) -> u32 {
        if let Some(&place) = self.places.get(text) {
            return place;
        }
        let place = u32::try_from(self.list.len()).expect("fewer strings than memory has bytes");
        self.list.push(Shown::prose(text).keep_start(usize::MAX));
        self.places.insert(text.clone(), place);
        place
    }
}

/// What is called by what.
#[derive(Default)]
struct Tree {
    frames: Vec<Frame>,
    /// The frame that a caller (`None` for the paths) has of this name.
    called: HashMap<(Option<u32>, u32), u32>,
}

struct Frame {
    name: u32,
    depth: u32,
    own: u64,
    total: u64,
    place: Place,
    called: Vec<u32>,
}

/// Where in the source a frame is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    At(u32),
    /// At several, or it is not known.
    Unclear,
}

impl Tree {
    fn add(&mut self, stack: &Stack, strings: &mut Strings) {
        let root = strings.place(&Arc::from(stack.path.name()));
        let mut frame = self.enter(None, root, Place::Unclear);
        self.count(frame, stack.value);
        for (index, name) in stack.frames.iter().enumerate() {
            let source = stack.sources.get(index).and_then(Option::as_ref);
            let place = source.map_or(Place::Unclear, |source| Place::At(strings.place(source)));
            let name = strings.place(name);
            frame = self.enter(Some(frame), name, place);
            self.count(frame, stack.value);
        }
        let own = &mut self.frames[frame as usize].own;
        *own = own.saturating_add(stack.value);
    }

    fn count(&mut self, frame: u32, value: u64) {
        let total = &mut self.frames[frame as usize].total;
        *total = total.saturating_add(value);
    }

    fn enter(&mut self, caller: Option<u32>, name: u32, place: Place) -> u32 {
        if let Some(&found) = self.called.get(&(caller, name)) {
            let frame = &mut self.frames[found as usize];
            if frame.place != place {
                frame.place = Place::Unclear;
            }
            return found;
        }
        let new = u32::try_from(self.frames.len()).expect("fewer frames than memory has bytes");
        let depth = caller.map_or(0, |caller| self.frames[caller as usize].depth + 1);
        self.frames.push(Frame {
            name,
            depth,
            own: 0,
            total: 0,
            place,
            called: Vec::new(),
        });
        if let Some(caller) = caller {
            self.frames[caller as usize].called.push(new);
        }
        self.called.insert((caller, name), new);
        new
    }

    /// Lists the frames, each before those it called, and the larger ones first.
    fn laid(&self) -> Graph {
        let mut graph = Graph::default();
        let by_size = |frames: &mut Vec<u32>| {
            // Of equals the one that came first stays first; the last is taken from the list first.
            frames.sort_by_key(|&frame| (self.frames[frame as usize].total, Reverse(frame)));
        };
        let roots = (0..self.frames.len() as u32).filter(|&f| self.frames[f as usize].depth == 0);
        let mut open: Vec<_> = roots.collect();
        by_size(&mut open);
        while let Some(next) = open.pop() {
            let frame = &self.frames[next as usize];
            graph.depths.push(frame.depth);
            graph.names.push(frame.name);
            graph.own.push(frame.own);
            graph.places.push(match frame.place {
                Place::At(place) => place + 1,
                Place::Unclear => 0,
            });
            let mut called = frame.called.clone();
            by_size(&mut called);
            open.extend(called);
        }
        if graph.places.iter().all(|&place| place == 0) {
            graph.places.clear();
        }
        graph
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Measure, Path};

    fn stack(path: Path, measure: Measure, value: u64, frames: &[&str]) -> Stack {
        Stack {
            process: None,
            path,
            measure,
            value,
            frames: frames.iter().map(|&frame| frame.into()).collect(),
            sources: Vec::new(),
        }
    }

    #[test]
    fn stacks_with_the_same_beginning_share_it_and_larger_ones_come_first() {
        let mut strings = Strings::default();
        let mut tree = Tree::default();
        for (path, value, frames) in [
            (Path::Read, 1, &["main", "a"][..]),
            (Path::Mmap, 2, &["main"]),
            (Path::Read, 4, &["main", "b"]),
            (Path::Read, 8, &["main"]),
        ] {
            let stack = stack(path, Measure::DiskReadBytes, value, frames);
            tree.add(&stack, &mut strings);
        }
        let graph = tree.laid();
        let names: Vec<_> = graph
            .names
            .iter()
            .map(|&name| strings.list[name as usize].as_str())
            .collect();
        assert_eq!(names, ["read", "main", "b", "a", "mmap", "main"]);
        assert_eq!(graph.depths, [0, 1, 2, 2, 0, 1]);
        assert_eq!(graph.own, [0, 8, 4, 1, 0, 2]);
        assert!(graph.places.is_empty());
    }
}
