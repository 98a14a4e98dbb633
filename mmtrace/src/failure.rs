//! An error that ends mmtrace, with the status it ends with and what the user can do about it.

use std::error::Error;
use std::fmt;

/// Status of a failure of mmtrace's own before the target started.
pub const OWN_FAILURE: u8 = 125;

/// Status when the command was found but could not be executed, as in shells.
pub const NOT_EXECUTABLE: u8 = 126;

/// Status when the command was not found, as in shells.
pub const NOT_FOUND: u8 = 127;

/// A failure with its exit status and its remedy; `main` looks for it in an error's causes.
#[derive(Debug)]
pub struct Failure {
    status: u8,
    message: String,
    remedy: Option<String>,
}

impl Failure {
    /// A failure of mmtrace's own before the target started.
    pub fn own(message: impl Into<String>) -> Self {
        Self::with_status(OWN_FAILURE, message)
    }

    /// A failure that ends mmtrace with `status`.
    pub fn with_status(status: u8, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            remedy: None,
        }
    }

    /// Adds what the user can do about it: one or more full sentences or a command line.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The exit status that this failure asks for.
    pub fn status(&self) -> u8 {
        self.status
    }
}

/// An error as a failure with another exit status, its causes and its remedy kept.
#[must_use]
pub fn with_status(error: &anyhow::Error, status: u8) -> Failure {
    let mut failures = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<Failure>());
    Failure {
        status,
        message: format!("{error:#}"),
        remedy: failures.find_map(|failure| failure.remedy.clone()),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// Prints an error once, with its causes and remedy, on standard error; returns its exit status.
pub fn report(error: &anyhow::Error) -> u8 {
    let failure = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>());
    let mut text = format!("mmtrace: {error:#}\n");
    if let Some(remedy) = failure.and_then(|failure| failure.remedy.as_deref()) {
        for line in remedy.lines() {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
    }
    crate::say(&text);
    failure.map_or(OWN_FAILURE, Failure::status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_status_is_found_below_added_context() {
        let error = Err::<(), _>(Failure::with_status(NOT_FOUND, "no such command"))
            .context("starting")
            .unwrap_err();
        assert_eq!(report(&error), NOT_FOUND);
        assert_eq!(report(&anyhow::anyhow!("anything")), OWN_FAILURE);
    }
}
