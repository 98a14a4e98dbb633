//! A settlement, told to people and to programs.

mod format;
mod headline;
mod html;
mod json;
mod markdown;
mod text;
mod words;

pub use format::Format;
pub use html::html;
pub use json::json;
pub use markdown::markdown;
pub use text::{list, text};
pub use words::says;

/// The language of the claims' words that comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Chinese.
    Chinese,
}
