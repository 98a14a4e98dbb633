//! What pages are made of: text in which nothing is markup, and drawings.

use super::text::Shown;

/// Text in which nothing is markup, nor deceives its reader.
pub(crate) fn escaped(text: &str) -> String {
    markup(&Shown::prose(text).keep_start(usize::MAX))
}

/// Text that was made [`Shown`] before, in which nothing is markup.
pub(crate) fn markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            _ => out.push(character),
        }
    }
    out
}

/// A line of text in a drawing; `anchor` is `start`, `middle` or `end`, `class` may be empty.
pub(crate) fn svg_text(x: usize, y: usize, anchor: &str, class: &str, text: &str) -> String {
    let class = match class {
        "" => String::new(),
        class => format!(" class=\"{class}\""),
    };
    format!(
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\"{class}>{}</text>\n",
        escaped(text)
    )
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_in_text_is_markup() {
        assert_eq!(
            escaped("<b a=\"1\">&\x1b"),
            "&lt;b a=&quot;1&quot;&gt;&amp;\\x1b"
        );
    }
}
