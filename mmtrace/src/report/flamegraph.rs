//! Flame graphs of stacks, as SVG.

use std::{collections::BTreeMap, io::Write};

use inferno::flamegraph::{
    self, Options, Palette,
    color::{BackgroundColor, MultiPalette},
};

use super::{
    folded::fold,
    quantity::{Missing, Quantity},
    text::Shown,
    units::{amount, count},
};
use crate::{
    failure::Failure,
    recording::{Recording, Stack},
};

/// Draws `stacks`, which are those of `recording` that have any of `quantity`. The path is the
/// outermost function, so that what was read and what was mapped stand side by side.
///
/// # Errors
/// When `to` cannot be written to, or the sum of all is 2^64 or more.
pub fn write(
    recording: &Recording,
    quantity: Quantity,
    stacks: &[&Stack],
    to: &mut dyn Write,
) -> anyhow::Result<()> {
    let folded = fold(stacks).map_err(Failure::from)?;
    let total = amount(folded.values().sum(), quantity.unit());
    let title = format!("{}, {total}: {}", quantity.label(), command(recording));
    let mut notes = vec![watched(recording)];
    notes.extend(quantity.unmeasured(recording));
    let lines: Vec<_> = folded
        .into_iter()
        .map(|(stack, value)| format!("{stack} {value}"))
        .collect();
    draw(&mut options(quantity, title, &notes), &lines, to)
}

/// Draws how the stacks of two recordings differ: as wide as in `after`, a function red where there is
/// more of `quantity` in it, without those that it calls, than in `before`, blue where there is less.
///
/// What is in `before` alone has no width: [`Direction::Backwards`] shows it.
///
/// # Errors
/// When there are no stacks of `quantity` in the one that gives the width, none could be had of the
/// other, or `to` cannot be written to.
pub fn differential(
    before: &Recording,
    after: &Recording,
    quantity: Quantity,
    direction: Direction,
    to: &mut dyn Write,
) -> anyhow::Result<()> {
    let folded = |recording: &Recording, name| match quantity.stacks(recording) {
        Ok(stacks) => Ok(fold(&stacks).map_err(Failure::from)?),
        Err(missing) => Err(anyhow::Error::new(Failure::from(missing)).context(name)),
    };
    // 0 in one of the two is a difference like any other.
    let or_zero = |recording: &Recording, name| match quantity.stacks(recording) {
        Err(Missing::Nothing(_)) => Ok(Default::default()),
        _ => folded(recording, name),
    };
    let (mut old, mut new) = match direction {
        Direction::Forwards => (or_zero(before, "before")?, folded(after, "after")?),
        Direction::Backwards => (folded(before, "before")?, or_zero(after, "after")?),
    };
    let sum = |values: &BTreeMap<String, u64>| amount(values.values().sum(), quantity.unit());
    let title = format!(
        "{}, {} before, {} after: {}",
        quantity.label(),
        sum(&old),
        sum(&new),
        command(after),
    );
    if direction == Direction::Backwards {
        std::mem::swap(&mut old, &mut new);
    }
    for stack in old.keys() {
        new.entry(stack.clone()).or_default();
    }
    let lines: Vec<_> = new
        .into_iter()
        .map(|(stack, value)| format!("{stack} {} {value}", old.get(&stack).unwrap_or(&0)))
        .collect();
    let notes = match direction {
        Direction::Forwards => {
            "width: after; red: more in the function itself than before, blue: less"
        }
        Direction::Backwards => {
            "width: before; red: more in the function itself than before, blue: less"
        }
    };
    let mut options = options(quantity, title, &[notes.into()]);
    options.negate_differentials = direction == Direction::Backwards;
    draw(&mut options, &lines, to)
}

/// Which of two recordings gives a differential flame graph its widths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// The later one: what is gone has no width.
    Forwards,
    /// The earlier one: what is new has no width.
    Backwards,
}

fn draw(options: &mut Options<'_>, lines: &[String], to: &mut dyn Write) -> anyhow::Result<()> {
    let lines = lines.iter().map(String::as_str);
    Ok(flamegraph::from_lines(options, lines, to)?)
}

/// Characters of a title and of the line below that the picture has room for.
const TITLE_WIDTH: usize = 110;
const NOTES_WIDTH: usize = 170;

fn options(quantity: Quantity, title: String, notes: &[String]) -> Options<'static> {
    let mut options = Options::default();
    options.title = Shown::prose(&title).keep_start(TITLE_WIDTH);
    options.subtitle = Some(Shown::prose(&notes.join("; ")).keep_start(NOTES_WIDTH));
    options.count_name = quantity.count_name().into();
    // The one that tells `_[k]` and `_[i]` apart.
    options.colors = Palette::Multi(MultiPalette::Java);
    options.bgcolors = Some(BackgroundColor::Grey);
    // The same picture each time.
    options.deterministic = true;
    // Lines are in order already.
    options.no_sort = true;
    options
}

/// The command, as one would type it.
fn command(recording: &Recording) -> String {
    Shown::command(&recording.target.command).whole()
}

/// How the recording was made, as far as it bears on the picture.
fn watched(recording: &Recording) -> String {
    let mut watched = format!(
        "{}, {}",
        recording.probes.backend.name(),
        recording.probes.copies.says()
    );
    if let Some(sampling) = &recording.stack_sampling {
        watched += &format!(
            ", stacks of {} of {} moments by {}",
            count(sampling.taken),
            count(sampling.moments),
            sampling.unwinding
        );
    }
    if !recording.lost.is_empty() {
        watched += ", INCOMPLETE";
    }
    watched
}
