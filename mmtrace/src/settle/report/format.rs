//! What a settlement can be written as.

use std::io::{self, Write};

use super::{Language, html, json, markdown};
use crate::output;
use crate::settle::Settlement;

/// A format of a settlement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// A page that needs nothing else.
    Html,
    /// Markdown.
    Markdown,
}

impl Format {
    /// Writes `settlement`, with the claims' words in `language` first.
    ///
    /// # Errors
    /// When `to` cannot be written to.
    pub fn write(
        self,
        settlement: &Settlement,
        language: Language,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        match self {
            Self::Json => json(settlement, to),
            Self::Html => to.write_all(html(settlement, language).as_bytes()),
            Self::Markdown => to.write_all(markdown(settlement, language).as_bytes()),
        }
    }
}

impl output::Format for Format {
    const ALL: &'static [Self] = &[Self::Json, Self::Html, Self::Markdown];
    const PLAIN: Self = Self::Json;

    fn suffix(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Html => "html",
            Self::Markdown => "md",
        }
    }
}
