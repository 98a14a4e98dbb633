//! How two recordings differ, as text, JSON, a page, and a flame graph.

mod html;
mod json;
mod lines;
mod text;

use std::io::Write;

use anyhow::Result;

use super::{
    flamegraph::{self, Direction},
    quantity::Quantity,
};
use crate::{
    failure::Failure,
    output,
    recording::{Difference, Recording},
};
pub use text::table;

/// Two recordings and how they differ.
pub struct Compared<'a> {
    before: &'a Recording,
    after: &'a Recording,
    difference: Difference,
}

impl<'a> Compared<'a> {
    /// Compares two recordings.
    #[must_use]
    pub fn of(before: &'a Recording, after: &'a Recording) -> Self {
        Self {
            before,
            after,
            difference: Difference::of(before, after),
        }
    }

    fn sides(&self) -> [(&'static str, &'a Recording); 2] {
        [("before", self.before), ("after", self.after)]
    }
}

/// A format of a difference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// A page that needs nothing else.
    Html,
    /// A flame graph.
    Svg,
}

impl Format {
    /// Writes how two recordings differ.
    ///
    /// # Errors
    /// When `to` cannot be written to, or there are no stacks for a flame graph.
    pub fn write(
        self,
        compared: &Compared<'_>,
        asked: Option<Quantity>,
        to: &mut dyn Write,
    ) -> Result<()> {
        let (before, after) = (compared.before, compared.after);
        match self {
            Self::Json => Ok(json::write(compared, to)?),
            Self::Html => Ok(to.write_all(html::page(compared).as_bytes())?),
            Self::Svg => {
                let quantity = match asked {
                    Some(quantity) => quantity,
                    None => Quantity::choose(None, after).map_err(Failure::from)?.0,
                };
                flamegraph::differential(before, after, quantity, Direction::Forwards, to)
            }
        }
    }
}

impl output::Format for Format {
    const ALL: &'static [Self] = &[Self::Json, Self::Html, Self::Svg];
    const PLAIN: Self = Self::Json;

    fn suffix(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Html => "html",
            Self::Svg => "svg",
        }
    }
}
