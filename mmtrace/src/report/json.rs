//! The recording as JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::Formatter;

use crate::recording::{Recording, SCHEMA};

/// Writes `recording` as one JSON object, with a line for each row, file and process, so that
/// recordings can be read and compared line by line.
///
/// # Errors
/// When `out` cannot be written to.
pub fn write(recording: &Recording, mut out: impl Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Document<'a> {
        schema: &'static str,
        #[serde(flatten)]
        recording: &'a Recording,
    }

    write_lines(
        &Document {
            schema: SCHEMA,
            recording,
        },
        2,
        &mut out,
    )
}

/// Writes `value` as JSON in which elements down to `depth` have a line each.
///
/// # Errors
/// When `out` cannot be written to.
pub(crate) fn write_lines(
    value: &impl Serialize,
    depth: usize,
    mut out: impl Write,
) -> io::Result<()> {
    let lines = Lines {
        lined: depth,
        ..Lines::default()
    };
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, lines))?;
    out.write_all(b"\n")
}

/// Breaks lines between the outer elements only.
#[derive(Default)]
struct Lines {
    /// How deep the elements are that get a line each.
    lined: usize,
    depth: usize,
    /// Whether the innermost array or object that was ended or is open has an element.
    filled: bool,
}

impl Lines {
    fn open(&mut self, out: &mut (impl Write + ?Sized), bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        out.write_all(bracket)
    }

    fn close(&mut self, out: &mut (impl Write + ?Sized), bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled && self.depth < self.lined {
            self.line(out)?;
        }
        self.filled = true;
        out.write_all(bracket)
    }

    fn element(&mut self, out: &mut (impl Write + ?Sized), first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        if self.depth <= self.lined {
            self.line(out)?;
        } else if !first {
            out.write_all(b" ")?;
        }
        Ok(())
    }

    fn line(&self, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        write!(out, "\n{:1$}", "", 2 * self.depth)
    }
}

impl Formatter for Lines {
    fn begin_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.element(out, first)
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, _out: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.element(out, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, _out: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }
}
