//! What a recording suggests to do otherwise: rules, each with the figures that it fires on and a way
//! to check what following it brings. `docs/advice.md` has the thresholds with their reasons.
//!
//! A rule whose figures are null is silent.

mod rules;

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{
    recording::{File, Measures, Path, Recording},
    report::text::Shown,
};
pub use rules::RULES;

/// A piece of advice about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The name of the rule that fired.
    pub rule: &'static str,
    /// The [`File::id`].
    pub file: u32,
    /// What was seen, with its figures, and what may be better. Names in it are escaped.
    pub says: String,
    /// How to find out whether it is.
    pub check: &'static str,
    /// What it concerns in bytes, to rank by.
    weight_bytes: u64,
}

/// A rule.
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// How to check what following it brings.
    pub check: &'static str,
    /// What it says of a use of a file, and about how many bytes; nothing where it does not fire.
    fires: fn(&Use<'_>) -> Option<(String, u64)>,
}

/// What the processes that ran one program on one file did with it, path by path.
struct Use<'a> {
    paths: BTreeMap<Path, Measures>,
    page_bytes: u64,
    file: &'a File,
}

impl Use<'_> {
    /// What was done on a path, if anything was.
    fn on(&self, path: Path) -> Option<&Measures> {
        self.paths.get(&path)
    }
}

/// Columns that a file's name may take.
const NAME_WIDTH: usize = 60;

/// What the rules say of a recording, what concerns most first.
#[must_use]
pub fn advise(recording: &Recording) -> Vec<Advice> {
    let mut all: Vec<Advice> = Vec::new();
    for used in uses(recording) {
        for rule in &RULES {
            let Some((says, weight_bytes)) = (rule.fires)(&used) else {
                continue;
            };
            // The most of the processes that it is true of.
            let same = |other: &&mut Advice| other.rule == rule.name && other.file == used.file.id;
            let advice = Advice {
                rule: rule.name,
                file: used.file.id,
                says: format!("{}: {says}", name(used.file)),
                check: rule.check,
                weight_bytes,
            };
            match all.iter_mut().find(same) {
                Some(other) if other.weight_bytes < weight_bytes => *other = advice,
                Some(_) => {}
                None => all.push(advice),
            }
        }
    }
    all.sort_by_key(|advice| (Reverse(advice.weight_bytes), advice.file, advice.rule));
    all
}

/// What each process did with each file.
fn uses(recording: &Recording) -> Vec<Use<'_>> {
    let files: BTreeMap<u32, &File> = recording.files.iter().map(|it| (it.id, it)).collect();
    let mut uses: BTreeMap<(Option<u32>, u32), Use<'_>> = BTreeMap::new();
    for row in &recording.rows {
        let Some(file) = row.file.and_then(|id| files.get(&id)) else {
            continue;
        };
        let used = uses.entry((row.process, file.id)).or_insert_with(|| Use {
            paths: BTreeMap::new(),
            page_bytes: recording.host.page_size,
            file,
        });
        let measures = used.paths.entry(row.path).or_default();
        measures.add(&row.measures);
    }
    uses.into_values().collect()
}

fn name(file: &File) -> String {
    match &file.name {
        Some(name) => Shown::name(name).keep_end(NAME_WIDTH),
        None => format!("(inode {} on {})", file.inode, file.device),
    }
}

#[cfg(test)]
mod tests;
