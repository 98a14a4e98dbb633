//! Text that the traced program chose, made safe for a terminal and fitted to a width.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use unicode_width::UnicodeWidthChar as _;

/// Text as a terminal may show it, in pieces that are never cut: a character with the marks that
/// combine with it, or an escape such as `\x1b`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    text: String,
    width: usize,
}

/// How many marks may combine with a character: more of them are drawn over the lines around it.
const MARKS: usize = 4;

impl Shown {
    /// A name with everything escaped that could act on a terminal or deceive its reader: control
    /// characters, marks that change the direction of text or are invisible, and bytes that are not
    /// UTF-8. A backslash is doubled, so that no name can look like the escape of another.
    pub(crate) fn name(name: &OsStr) -> Self {
        match name.is_empty() {
            true => Self::prose("\"\""),
            false => Self::escape(name, "\\\\"),
        }
    }

    /// Prose, escaped like a name, with its backslashes as they are.
    pub(crate) fn prose(text: &str) -> Self {
        Self::escape(text.as_ref(), "\\")
    }

    /// A command as one would type it in a shell, escaped like prose.
    pub(crate) fn command(arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut line = Vec::new();
        for (index, argument) in arguments.iter().enumerate() {
            if index > 0 {
                line.push(b' ');
            }
            quote(argument.as_ref().as_bytes(), &mut line);
        }
        Self::escape(OsStr::from_bytes(&line), "\\")
    }

    fn escape(text: &OsStr, backslash: &str) -> Self {
        let mut shown = Self::default();
        for chunk in text.as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => shown.push_escape(backslash.into()),
                    _ => shown.push(character),
                }
            }
            for byte in chunk.invalid() {
                shown.push_escape(format!("\\x{byte:02x}"));
            }
        }
        shown
    }

    fn push(&mut self, character: char) {
        match character {
            '\n' => self.push_escape("\\n".into()),
            '\t' => self.push_escape("\\t".into()),
            '\r' => self.push_escape("\\r".into()),
            '\0'..='\x1f' | '\x7f' => self.push_escape(format!("\\x{:02x}", character as u32)),
            _ if deceives(character) => {
                self.push_escape(format!("\\u{{{:x}}}", character as u32));
            }
            _ => {
                let width = character.width().unwrap_or(0);
                match self.pieces.last_mut() {
                    _ if width > 0 => self.pieces.push(Piece {
                        text: character.into(),
                        width,
                    }),
                    Some(last) if last.text.chars().count() <= MARKS => last.text.push(character),
                    _ => self.push_escape(format!("\\u{{{:x}}}", character as u32)),
                }
            }
        }
    }

    /// Adds an escape, which is ASCII.
    fn push_escape(&mut self, escape: String) {
        self.pieces.push(Piece {
            width: escape.len(),
            text: escape,
        });
    }

    /// The parts of a word between which a line may end: beside a wide character, but not so that a
    /// line begins with the mark that closes something, or ends with one that opens it.
    fn parts(self) -> Vec<Self> {
        const CLOSING: &str = ",.:;!?)]}%,。、:;!?)】》」』”’";
        const OPENING: &str = "([{(【《「『“‘";

        let mut parts: Vec<Self> = Vec::new();
        for piece in self.pieces {
            match parts.last_mut() {
                Some(part)
                    if part.pieces.last().is_some_and(|last| {
                        last.width < 2 && piece.width < 2
                            || CLOSING.contains(&piece.text)
                            || OPENING.contains(&last.text)
                    }) =>
                {
                    part.pieces.push(piece);
                }
                _ => parts.push(Self {
                    pieces: vec![piece],
                }),
            }
        }
        parts
    }

    /// Columns that `text` takes, which was escaped before.
    pub(crate) fn width_of(text: &str) -> usize {
        text.chars().filter_map(|character| character.width()).sum()
    }

    /// Columns that the whole text takes.
    pub(crate) fn width(&self) -> usize {
        self.pieces.iter().map(|piece| piece.width).sum()
    }

    /// All of it.
    pub(crate) fn whole(&self) -> String {
        join(&self.pieces)
    }

    /// The beginning of the text, ending in an ellipsis when it is wider than `width`.
    pub(crate) fn keep_start(&self, width: usize) -> String {
        if self.width() <= width {
            return join(&self.pieces);
        }
        if width == 0 {
            return String::new();
        }
        let end = fitting(self.pieces.iter(), width - 1);
        join(&self.pieces[..end]) + "…"
    }

    /// The end of the text, which tells files apart, after an ellipsis when it is wider than
    /// `width`. Begins at a directory where little is lost by that.
    pub(crate) fn keep_end(&self, width: usize) -> String {
        if self.width() <= width {
            return join(&self.pieces);
        }
        if width == 0 {
            return String::new();
        }
        let count = fitting(self.pieces.iter().rev(), width - 1);
        let tail = &self.pieces[self.pieces.len() - count..];
        let directory = tail
            .iter()
            .position(|piece| piece.text == "/")
            .filter(|&slash| slash <= tail.len() / 3)
            .unwrap_or(0);
        format!("…{}", join(&tail[directory..]))
    }
}

/// `text` in lines of at most `width` columns, indented by `indent`, escaped. A line may end at a
/// space, and beside a wide character, as in Chinese. A word that is wider than a line is cut.
pub(crate) fn wrapped(text: &str, indent: usize, width: usize) -> Vec<String> {
    let room = width.saturating_sub(indent).max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        for (index, part) in Shown::prose(word).parts().into_iter().enumerate() {
            let space = if index == 0 && !line.is_empty() {
                " "
            } else {
                ""
            };
            let part = part.keep_start(room);
            let together = Shown::width_of(&line) + space.len() + Shown::width_of(&part);
            if !line.is_empty() && together > room {
                lines.push(format!("{:indent$}{line}", ""));
                line = part;
            } else {
                line += space;
                line += &part;
            }
        }
    }
    lines.push(format!("{:indent$}{line}", ""));
    lines
}

/// How many of `pieces` fit into `width` columns.
fn fitting<'a>(pieces: impl Iterator<Item = &'a Piece>, width: usize) -> usize {
    let mut used = 0;
    pieces
        .take_while(|piece| {
            used += piece.width;
            used <= width
        })
        .count()
}

fn join(pieces: &[Piece]) -> String {
    pieces.iter().map(|piece| piece.text.as_str()).collect()
}

/// Whether a character is a C1 control, invisible, none at all, or changes the direction of the text around it.
fn deceives(character: char) -> bool {
    matches!(
        character,
        '\u{80}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            // No characters; XML forbids them.
            | '\u{fffe}'..='\u{ffff}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

fn quote(argument: &[u8], line: &mut Vec<u8>) {
    let plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(byte) || *byte > 0x7f;
    if !argument.is_empty() && argument.iter().all(plain) {
        line.extend(argument);
        return;
    }
    let double =
        argument.contains(&b'\'') && !argument.iter().any(|byte| b"\"$`\\!".contains(byte));
    let mark = if double { b'"' } else { b'\'' };
    line.push(mark);
    for &byte in argument {
        match byte {
            b'\'' if !double => line.extend(b"'\\''"),
            _ => line.push(byte),
        }
    }
    line.push(mark);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> String {
        Shown::name(OsStr::from_bytes(bytes)).whole()
    }

    #[test]
    fn nothing_acts_on_the_terminal() {
        for (bytes, text) in [
            (&b"plain name.txt"[..], "plain name.txt"),
            (b"a\nb\tc\rd\0", "a\\nb\\tc\\rd\\x00"),
            (b"\x1b[31mred\x07\x7f", "\\x1b[31mred\\x07\\x7f"),
            (b"\xff\xc3(", "\\xff\\xc3("),
            (b"back\\slash", "back\\\\slash"),
            ("\u{202e}txt.exe".as_bytes(), "\\u{202e}txt.exe"),
            (
                "zero\u{200b}width\u{feff}".as_bytes(),
                "zero\\u{200b}width\\u{feff}",
            ),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("日本語 e\u{301}".as_bytes(), "日本語 e\u{301}"),
            ("\u{301}".as_bytes(), "\\u{301}"),
        ] {
            assert_eq!(whole(bytes), text);
        }
    }

    #[test]
    fn widths_are_those_of_the_terminal() {
        assert_eq!(Shown::name(OsStr::new("日本語")).width(), 6);
        assert_eq!(Shown::name(OsStr::new("e\u{301}")).width(), 1);
        assert_eq!(Shown::name(OsStr::new("\n")).width(), 2);
    }

    #[test]
    fn shortening_keeps_the_width_and_cuts_no_escape() {
        let shown = Shown::name(OsStr::new("ab\x1bcd\x1bef"));
        assert_eq!(shown.keep_start(7), "ab\\x1b…");
        assert_eq!(shown.keep_start(5), "ab…");
        assert_eq!(shown.keep_end(7), "…\\x1bef");
        assert_eq!(shown.keep_end(6), "…ef");
        assert_eq!(Shown::name(OsStr::new("日本語")).keep_start(4), "日…");
    }

    #[test]
    fn a_shortened_path_begins_at_a_directory() {
        let shown = Shown::name(OsStr::new("/usr/lib/x86_64-linux-gnu/libc.so.6"));
        assert_eq!(shown.keep_end(35), "/usr/lib/x86_64-linux-gnu/libc.so.6");
        assert_eq!(shown.keep_end(30), "…/x86_64-linux-gnu/libc.so.6");
        assert_eq!(shown.keep_end(12), "…/libc.so.6");
    }

    #[test]
    fn commands_are_quoted_as_in_a_shell() {
        for (arguments, line) in [
            (&["grep", "a\\|b", ""][..], r"grep 'a\|b' ''"),
            (&["sh", "-c", "echo 'a b'"], r#"sh -c "echo 'a b'""#),
            (&["echo", "'$HOME'\n"], r"echo ''\''$HOME'\''\n'"),
        ] {
            assert_eq!(Shown::command(arguments).keep_start(99), line);
        }
    }

    #[test]
    fn lines_end_at_spaces_and_beside_wide_characters() {
        assert_eq!(wrapped("ab cd ef", 2, 7), ["  ab cd", "  ef"]);
        assert_eq!(wrapped("也是可见的", 0, 4), ["也是", "可见", "的"]);
        assert_eq!(wrapped("进程1和12", 0, 6), ["进程1", "和12"]);
        assert_eq!(wrapped("abcdef", 0, 4), ["abc…"]);
    }

    #[test]
    fn no_line_begins_with_a_mark_that_closes() {
        assert_eq!(wrapped("操作,那么", 0, 4), ["操", "作,", "那么"]);
        assert_eq!(wrapped("通过(映射)交互", 0, 6), ["通过", "(映射)", "交互"]);
    }
}
