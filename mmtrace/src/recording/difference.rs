//! How two recordings differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    sync::Arc,
};

use mmtrace_common::Path;

use super::{File, Measure, Measures, Recording, Totals};

/// A figure before and after; null in one where it was not measured there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub before: Option<u64>,
    /// After.
    pub after: Option<u64>,
}

impl Change {
    /// By how much it has grown; `None` if that is not known.
    #[must_use]
    pub fn difference(self) -> Option<i128> {
        Some(i128::from(self.after?) - i128::from(self.before?))
    }

    /// How many times as much it is after; `None` if that is not known, or it was 0 before.
    #[must_use]
    pub fn ratio(self) -> Option<f64> {
        let (before, after) = (self.before?, self.after?);
        (before > 0).then(|| after as f64 / before as f64)
    }

    /// Whether both are known and equal, or neither is known.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.before == self.after
    }
}

/// What has changed of one thing: the measures that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// The thing.
    pub of: T,
    /// The measures with both figures.
    pub changes: Vec<(Measure, Change)>,
}

/// A file in either recording, on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnFile {
    /// Its name; `None` if neither recording has it.
    pub name: Option<OsString>,
    /// Its device and inode, as the first recording that has it says.
    pub place: String,
    /// The path.
    pub path: Path,
}

/// A stack in either recording.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OnStack {
    /// The functions, the outermost first.
    pub frames: Vec<Arc<str>>,
    /// The path.
    pub path: Path,
}

/// How two recordings differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// All measures of all paths together.
    pub total: Vec<(Measure, Change)>,
    /// What differs path by path.
    pub paths: Vec<Changed<Path>>,
    /// What differs file by file and path by path. Files are matched by name; those whose name changed,
    /// or is not known, by device and inode.
    pub files: Vec<Changed<OnFile>>,
    /// What differs stack by stack; `None` unless both have stacks.
    pub stacks: Option<Vec<Changed<OnStack>>>,
}

impl Difference {
    /// How `after` differs from `before`.
    #[must_use]
    pub fn of(before: &Recording, after: &Recording) -> Self {
        let sides = [before, after];
        let total = changes(sides.map(|side| side.totals.all_paths()));
        let paths = Path::ALL.map(|path| Changed {
            of: path,
            changes: differing(sides.map(|side| side.totals[path])),
        });
        let stacks = sides.iter().all(|side| !side.stacks.is_empty());
        Self {
            total,
            paths: paths.into_iter().filter(Changed::any).collect(),
            files: files(before, after),
            stacks: stacks.then(|| self::stacks(before, after)),
        }
    }
}

impl<T> Changed<T> {
    fn any(&self) -> bool {
        !self.changes.is_empty()
    }
}

/// Every measure that is known in one of two.
fn changes([before, after]: [Measures; 2]) -> Vec<(Measure, Change)> {
    let of = |measure| {
        let change = Change {
            before: before.get(measure),
            after: after.get(measure),
        };
        (measure, change)
    };
    let known = |(_, change): &(Measure, Change)| change.before.or(change.after).is_some();
    Measure::ALL.into_iter().map(of).filter(known).collect()
}

/// Every measure that differs. Nothing here and not measured there is none: that it is not measured is
/// told of the sums over all paths.
fn differing(sides: [Measures; 2]) -> Vec<(Measure, Change)> {
    let mut all = changes(sides);
    all.retain(|(_, change)| {
        !change.is_none() && change.before.unwrap_or(0) != change.after.unwrap_or(0)
    });
    all
}

/// 0 for what a recording measures on a path, null for what it does not.
fn nothing(totals: &Totals, path: Path) -> Measures {
    let mut nothing = Measures::default();
    for measure in Measure::ALL {
        nothing.set(measure, totals[path].get(measure).map(|_| 0));
    }
    nothing
}

fn by_name(one: &File, other: &File) -> bool {
    one.name.is_some() && one.name == other.name
}

fn by_place(one: &File, other: &File) -> bool {
    (one.device, one.inode) == (other.device, other.inode)
}

fn by_both(one: &File, other: &File) -> bool {
    by_name(one, other) && by_place(one, other)
}

/// Which file of `before` is which of `after`, by their ids there.
fn matched(before: &Recording, after: &Recording) -> Vec<[Option<u32>; 2]> {
    let mut left: BTreeSet<u32> = after.files.iter().map(|file| file.id).collect();
    let mut pairs: Vec<(&File, Option<u32>)> = before.files.iter().map(|it| (it, None)).collect();
    for same in [by_both, by_name, by_place] {
        for (file, found) in pairs.iter_mut().filter(|(_, found)| found.is_none()) {
            let mut rest = after.files.iter().filter(|other| left.contains(&other.id));
            if let Some(other) = rest.find(|other| same(file, other)) {
                left.remove(&other.id);
                *found = Some(other.id);
            }
        }
    }
    let pairs = pairs
        .into_iter()
        .map(|(file, found)| [Some(file.id), found]);
    pairs
        .chain(left.iter().map(|id| [None, Some(*id)]))
        .collect()
}

fn files(before: &Recording, after: &Recording) -> Vec<Changed<OnFile>> {
    let sides = [before, after];
    let sums = sides.map(|side| {
        let mut sums: BTreeMap<(u32, Path), Measures> = BTreeMap::new();
        for row in &side.rows {
            if let Some(file) = row.file {
                let sum = sums.entry((file, row.path)).or_default();
                sum.add(&row.measures);
            }
        }
        sums
    });
    let mut all = Vec::new();
    for ids in matched(before, after) {
        let file = |side: usize| {
            let mut files = sides[side].files.iter();
            files.find(|file| Some(file.id) == ids[side])
        };
        let Some(file) = file(0).or_else(|| file(1)) else {
            continue;
        };
        for path in Path::ALL {
            let of = |side: usize| {
                let sum = ids[side].and_then(|id| sums[side].get(&(id, path)));
                sum.copied()
                    .unwrap_or_else(|| nothing(&sides[side].totals, path))
            };
            all.push(Changed {
                of: OnFile {
                    name: file.name.clone(),
                    place: format!("inode {} on {}", file.inode, file.device),
                    path,
                },
                changes: differing([of(0), of(1)]),
            });
        }
    }
    all.retain(Changed::any);
    all
}

fn stacks(before: &Recording, after: &Recording) -> Vec<Changed<OnStack>> {
    let mut sums: BTreeMap<(OnStack, Measure), [u64; 2]> = BTreeMap::new();
    for (side, recording) in [before, after].into_iter().enumerate() {
        for stack in &recording.stacks {
            let on = OnStack {
                frames: stack.frames.clone(),
                path: stack.path,
            };
            let sum = sums.entry((on, stack.measure)).or_default();
            sum[side] = sum[side].saturating_add(stack.value);
        }
    }
    let mut all: Vec<Changed<OnStack>> = Vec::new();
    for ((on, measure), [one, other]) in sums {
        // A measure that one of them lacks on the path is none that differs by stacks.
        let known = |side: &Recording| side.totals[on.path].get(measure).is_some();
        if one == other || !known(before) || !known(after) {
            continue;
        }
        let change = Change {
            before: Some(one),
            after: Some(other),
        };
        match all.last_mut() {
            Some(last) if last.of == on => last.changes.push((measure, change)),
            _ => all.push(Changed {
                of: on,
                changes: vec![(measure, change)],
            }),
        }
    }
    all
}
