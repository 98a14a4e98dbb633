//! The claims, in the words of the article and in English, and the rules that decide each: a table.
//!
//! A prediction says what the claim implies. A control says that the experiment was what its name says
//! and that the probes see: mostly a case beside it in which the outcome must differ.

mod moving;
mod reading;
mod sharing;

use super::{
    experiment::Experiment,
    figure::Figure::{self, CachedBeforeBytes},
    rule::{
        Amount::{self, Exactly, Sizes, SizesInPages},
        Must::{self, Be, BeLessThanIn},
        Role::{self, AuthorPrediction, Control, Note, Prediction},
        Rule,
    },
    workload::HOLDERS,
};

/// Something that is said about memory mapping.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Its name on the command line and in JSON.
    pub id: &'static str,
    /// In English.
    pub english: &'static str,
    /// In the article's words, or of what its drawings show.
    pub chinese: &'static str,
    /// What decides it; of a claim about time there are none, since how long something takes is no
    /// relation that must hold: see [`super::performance`].
    pub rules: &'static [Rule],
}

impl Claim {
    /// The experiments that it needs, in the order in which they are made.
    pub fn experiments(&self) -> impl Iterator<Item = Experiment> + use<'_> {
        self.rules.iter().flat_map(|rule| {
            let other = match rule.must {
                BeLessThanIn(other) => Some(other),
                _ => None,
            };
            [Some(rule.experiment), other].into_iter().flatten()
        })
    }

    /// Whether times decide it, and not rules.
    #[must_use]
    pub const fn is_timed(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the article's author and the reader read it differently.
    #[must_use]
    pub fn has_readings(&self) -> bool {
        self.rules.iter().any(|rule| rule.role == AuthorPrediction)
    }
}

/// Every claim.
pub fn all() -> impl Iterator<Item = &'static Claim> {
    let tables = [
        reading::READING,
        sharing::SHARING,
        moving::MOVING,
        PERFORMANCE,
    ];
    tables.into_iter().flatten()
}

/// The one that is settled last: it needs the machine for itself.
const PERFORMANCE: &[Claim] = &[Claim {
    id: "best-performance",
    english: "Reading and writing files by mapping is more efficient and performs best; \
              communication between processes by mapping is the most efficient.",
    chinese: "使用了内存映射的文件读/写 操作方式效率更加高、性能最好! 使用了内存映射的跨进程通信 效率最高、性能最好!",
    rules: &[],
}];

/// The claim with this name.
#[must_use]
pub fn find(id: &str) -> Option<&'static Claim> {
    all().find(|claim| claim.id == id)
}

const fn rule(
    role: Role,
    experiment: Experiment,
    figure: Figure,
    must: Must,
    why: &'static str,
) -> Rule {
    Rule {
        role,
        experiment,
        figure,
        must,
        why,
    }
}

/// All of it, in bytes.
const ALL: Amount = Sizes(1);
/// None of it.
const NONE: Amount = Exactly(0);
/// All of it, in pages.
const ALL_PAGES: Amount = SizesInPages(1);

const COLD: &str = "the cache was cold: what comes, comes from the disk";
const WARM: &str = "all of it was in the page cache";
const NO_CALLS: &str = "what is called a mapping reads and writes by no call";
const FAULTED: &str = "the pages came by faults: the mapping was used";
const LOADED: &str = "the program found the file's data on each page";
const ARRIVED: &str = "the data has arrived as it was sent";
const FROM_DISK: &str = "each byte comes from the disk once";
const ONE_COPY: &str = "each byte is copied to the program's buffer once";
const NO_COPY: &str = "the program looks at the page cache itself";
const SEES_READS: &str = "the same probes see the copies of the same file's read(2)";
const SEES_DISK: &str = "the same probes see the disk where it is read";
const LOOKED: &str = "the second process has looked at each page";
const SEEN: &str = "what one process stores, the other sees";
const SAME: &str = "both have the same physical pages";
const SHARES_NOTHING: &str = "nothing is copied for it";
const IN: &str = "the sender's bytes are copied into the kernel";
const OUT: &str = "and from there to the receiver";
const PAGED: &str = "after it was paged out, the data is there again";

const fn control(experiment: Experiment, figure: Figure, must: Must, why: &'static str) -> Rule {
    rule(Control, experiment, figure, must, why)
}

const fn predict(experiment: Experiment, figure: Figure, must: Must, why: &'static str) -> Rule {
    rule(Prediction, experiment, figure, must, why)
}

const fn note(experiment: Experiment, figure: Figure, must: Must, why: &'static str) -> Rule {
    rule(Note, experiment, figure, must, why)
}

const fn cold(experiment: Experiment) -> Rule {
    control(experiment, CachedBeforeBytes, Be(NONE), COLD)
}

/// What a file system may dirty or read of its own when a file is opened and mapped.
const DISK_NOISE_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{super::rule::Must::*, *};

    #[test]
    fn every_claim_has_a_name_words_and_predictions() {
        let names: BTreeSet<&str> = all().map(|claim| claim.id).collect();
        assert_eq!(names.len(), all().count());
        for claim in all() {
            assert!(
                !claim.english.is_empty() && !claim.chinese.is_empty(),
                "{}",
                claim.id
            );
            let has = |role| claim.rules.iter().any(|rule| rule.role == role);
            assert!(
                claim.is_timed()
                    || has(Prediction)
                    || has(AuthorPrediction) && has(Role::ReaderPrediction)
            );
        }
    }

    /// A probe that sees nothing must not decide: each claim has a control that wants something.
    #[test]
    fn every_claim_has_a_control_that_zeros_do_not_satisfy() {
        for claim in all().filter(|claim| !claim.is_timed()) {
            let wants = |rule: &Rule| match rule.must {
                Be(amount) | BeOnDisk(amount) | BeWithHeads(amount) | BeAbout(amount)
                | BeAtLeast(amount) => amount != NONE,
                BeAtMost(_) | BeLessThanIn(_) => false,
            };
            let controls = claim.rules.iter().filter(|rule| rule.role == Control);
            assert!(controls.into_iter().any(wants), "{}", claim.id);
        }
    }
}
