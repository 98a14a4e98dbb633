//! What an experiment's programs say of themselves: one line of JSON each.

use serde::{Deserialize, Serialize};

use crate::settle::{
    experiment::Experiment,
    figure::{Figure, Value, Values},
};

/// A file or piece of shared memory, as the kernel numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its inode number.
    pub inode: u64,
    /// Its device's number by the driver.
    pub major: u32,
    /// The device's number within the driver.
    pub minor: u32,
}

/// What was seen and done in one experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which.
    pub experiment: Experiment,
    /// The how many-th time, from 0.
    pub repetition: u32,
    /// What the programs know.
    pub values: Values,
    /// What the work was done on.
    pub objects: Vec<Object>,
    /// The first store of the kernel's that was seen: its address, then its callers'.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub store: Vec<u64>,
    /// Why the experiment could not be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Report {
    /// Of an experiment that begins.
    #[must_use]
    pub fn new(experiment: Experiment, repetition: u32) -> Self {
        Self {
            experiment,
            repetition,
            values: Values::new(),
            objects: Vec::new(),
            store: Vec::new(),
            failed: None,
        }
    }

    /// Notes a figure.
    pub fn set(&mut self, figure: Figure, value: Value) {
        self.values.insert(figure, value);
    }

    /// Adds what another process of the same experiment said.
    pub fn merge(&mut self, other: Self) {
        self.values.extend(other.values);
        self.objects.extend(other.objects);
        if self.store.is_empty() {
            self.store = other.store;
        }
        self.failed = self.failed.take().or(other.failed);
    }
}
