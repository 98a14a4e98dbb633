//! A line that tells how a long run goes on, where it disturbs nothing.
//!
//! The target shares mmtrace's standard error, so the line is drawn with care: only on a terminal,
//! only while mmtrace is in its foreground, and not when the target's standard output is that
//! terminal too, unless it writes nothing. The cursor stays at the line's beginning: what the target does write to the
//! terminal takes the line's place.

use std::io::{self, IsTerminal};
use std::mem;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Runs shorter than this draw nothing.
const FIRST: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_secs(1);

/// The progress line of a run.
pub struct Progress {
    /// When to draw next; None when nothing is ever drawn.
    next: Option<Instant>,
    /// What it says, whatever it is asked to.
    text: Option<String>,
    drawn: bool,
}

impl Progress {
    /// A line that appears two seconds from now, if `wanted` and if it disturbs nothing.
    pub fn new(wanted: bool) -> Self {
        Self::of_silent(wanted && !same_terminal())
    }

    /// The same for a target that writes nothing to the terminal.
    pub fn of_silent(wanted: bool) -> Self {
        let draws = wanted && io::stderr().is_terminal();
        Self {
            next: draws.then(|| Instant::now() + FIRST),
            text: None,
            drawn: false,
        }
    }

    /// The same, with a text of its own instead of the run's.
    pub fn saying(mut self, text: String) -> Self {
        self.text = Some(text);
        self
    }

    /// Resolves when the line is to be drawn; never, if it never is.
    pub async fn due(&mut self) {
        match self.next {
            Some(next) => sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    /// Draws the line if it is due, for work that awaits nothing.
    pub fn draw_if_due(&mut self, text: impl FnOnce() -> String) {
        if self.next.is_some_and(|next| next <= Instant::now()) {
            self.draw(|| Some(text()));
        }
    }

    /// Draws the line with the text that `text` gives; None leaves it as it is.
    pub fn draw(&mut self, text: impl FnOnce() -> Option<String>) {
        self.next = self.next.map(|_| Instant::now() + EVERY);
        let Some(columns) = foreground_columns() else {
            return;
        };
        if let Some(text) = self.text.clone().or_else(text) {
            crate::say(&format!("\r\x1b[K{}\r", fit(&text, columns)));
            self.drawn = true;
        }
    }

    /// Removes the line; call it before anything else is printed.
    pub fn erase(&mut self) {
        if mem::take(&mut self.drawn) && foreground_columns().is_some() {
            crate::say("\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.erase();
    }
}

/// Whether standard output is the terminal that standard error is.
fn same_terminal() -> bool {
    let device = |descriptor: i32| {
        // SAFETY: a struct of integers that the call fills.
        unsafe {
            let mut status: libc::stat = mem::zeroed();
            (libc::fstat(descriptor, &raw mut status) == 0).then_some(status.st_rdev)
        }
    };
    io::stdout().is_terminal()
        && device(io::stdout().as_raw_fd()) == device(io::stderr().as_raw_fd())
}

/// The terminal's width, None while mmtrace is in its background.
fn foreground_columns() -> Option<usize> {
    let terminal = io::stderr().as_raw_fd();
    // SAFETY: queries that fill a struct of integers.
    unsafe {
        if libc::tcgetpgrp(terminal) != libc::getpgrp() {
            return None;
        }
        let mut size: libc::winsize = mem::zeroed();
        let known = libc::ioctl(terminal, libc::TIOCGWINSZ, &raw mut size) == 0 && size.ws_col > 0;
        Some(if known { size.ws_col.into() } else { 80 })
    }
}

/// As much of `text` as leaves the last column free, where a terminal would wrap.
fn fit(text: &str, columns: usize) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(columns.saturating_sub(1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_never_wraps_or_moves_the_cursor() {
        assert_eq!(fit("12 s, 3 GiB", 80), "12 s, 3 GiB");
        assert_eq!(fit("12 s, 3 GiB", 5), "12 s");
        assert_eq!(fit("a\x1b[2Jb\n", 80), "a[2Jb");
    }
}
