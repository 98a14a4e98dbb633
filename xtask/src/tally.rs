//! Counting tests across test programs of two kinds.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::AddAssign;

/// What begins the line of a failure, in the output of the suite and in ours.
const FAILURE: &str = "FAILED";

/// How many tests passed, failed and were skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// A line on each failure that had one, to be said again at the end: between thousands of lines
    /// nobody finds it.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// One failed test, which it prints.
    pub(crate) fn one_failed(what: &str) -> Self {
        let line = format!("{FAILURE}: {what}");
        println!("{line}");
        Self {
            failed: 1,
            failures: vec![line],
            ..Self::default()
        }
    }

    /// One skipped test.
    pub(crate) fn one_skipped() -> Self {
        Self {
            skipped: 1,
            ..Self::default()
        }
    }

    /// The same, each failure's line beginning with a label.
    pub(crate) fn labelled(mut self, label: &str) -> Self {
        for line in &mut self.failures {
            line.insert_str(0, label);
        }
        self
    }

    /// The sum of what the test programs of one `cargo test` say.
    pub(crate) fn of_cargo_test(output: &str) -> Self {
        let mut sum = Self::default();
        for line in output.lines() {
            if line.starts_with("test ") && line.ends_with(FAILURE) {
                sum.failures.push(line.into());
            }
            let Some((_, counts)) = line
                .strip_prefix("test result: ")
                .and_then(|rest| rest.split_once(". "))
            else {
                continue;
            };
            sum.passed += count(counts, "passed");
            sum.failed += count(counts, "failed");
            sum.skipped += count(counts, "ignored");
        }
        sum
    }

    /// What the closing line of the integration suite says; `None` without such a line.
    pub(crate) fn of_suite(output: &str) -> Option<Self> {
        let mut tally = output.lines().rev().find_map(|line| {
            let tally = Self {
                passed: count(line, "passed"),
                failed: count(line, "failed"),
                skipped: count(line, "skipped"),
                failures: Vec::new(),
            };
            (tally.to_string() == line.trim_end()).then_some(tally)
        })?;
        let failed = output.lines().filter(|line| line.starts_with(FAILURE));
        tally.failures = failed.map(str::to_owned).collect();
        Some(tally)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
            ..
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// The number before `what` in a list like `3 passed; 1 failed`; 0 if there is none.
fn count(list: &str, what: &str) -> u64 {
    list.split([';', ','])
        .find_map(|item| item.trim().strip_suffix(what)?.trim_end().parse().ok())
        .unwrap_or(0)
}

/// Passes what is written on to standard output, and keeps it.
#[derive(Default)]
pub(crate) struct Tee {
    kept: Vec<u8>,
    /// How much of it has been passed on.
    passed_on: usize,
    /// What begins each line of the output; without one, pieces of lines are passed on too.
    label: Option<String>,
}

impl Tee {
    /// One that begins each line with a label, for outputs that mingle.
    pub(crate) fn labelled(label: impl Into<String>) -> Self {
        Self {
            label: Some(label.into()),
            ..Self::default()
        }
    }

    /// Passes on and keeps all that `source` has, to its end.
    pub(crate) fn drain(mut source: impl Read) -> io::Result<Self> {
        let mut tee = Self::default();
        io::copy(&mut source, &mut tee)?;
        Ok(tee)
    }

    /// What was written.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.kept.extend_from_slice(bytes);
        let new = &self.kept[self.passed_on..];
        let mut stdout = io::stdout().lock();
        let passed = match &self.label {
            None => {
                stdout.write_all(new)?;
                new.len()
            }
            Some(label) => {
                let whole = new.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
                for line in new[..whole].split_inclusive(|&b| b == b'\n') {
                    stdout.write_all(label.as_bytes())?;
                    stdout.write_all(line)?;
                }
                whole
            }
        };
        stdout.flush()?;
        self.passed_on += passed;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_test_results_add_up() {
        let output = "running 4 tests\n\
            test tally::tests::one ... FAILED\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n";
        let sum = Tally::of_cargo_test(output);
        assert_eq!(sum.to_string(), "13 passed, 2 failed, 1 skipped");
        assert_eq!(sum.failures, ["test tally::tests::one ... FAILED"]);
    }

    #[test]
    fn the_suite_is_counted_by_its_closing_line_alone() {
        let output = "ok one\nFAILED two [fentry]: 1, must be 2\n\
            1 passed, 1 failed, 1 skipped (says a case)\n12 passed, 1 failed, 3 skipped\n";
        let tally = Tally::of_suite(output).unwrap().labelled("7 ext4 ");
        assert_eq!(tally.to_string(), "12 passed, 1 failed, 3 skipped");
        assert_eq!(tally.failures, ["7 ext4 FAILED two [fentry]: 1, must be 2"]);
        assert_eq!(Tally::of_suite("ok one\n"), None);
    }
}
