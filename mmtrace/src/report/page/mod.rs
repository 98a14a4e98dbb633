//! The page of a recording: one file that needs nothing else, and loads nothing.
//!
//! What needs no interaction is markup, made here. The rest is drawn by the page's own script from a
//! block of data. The page's policy lets the browser run that script and no other, and fetch
//! nothing, whatever the traced programs have put into names.

mod data;
mod drawing;
mod flames;
mod flow;
mod sections;
mod useful;

use std::io::{self, Write};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256};

use crate::recording::Recording;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
/// The parts see each other, and nothing else does.
const SCRIPT: &str = concat!(
    "(() => {\n\"use strict\";\n",
    include_str!("script/format.js"),
    include_str!("script/dom.js"),
    include_str!("script/rows.js"),
    include_str!("script/table.js"),
    include_str!("script/timeline.js"),
    include_str!("script/heat.js"),
    include_str!("script/files.js"),
    include_str!("script/processes.js"),
    include_str!("script/tree.js"),
    include_str!("script/flame.js"),
    include_str!("script/main.js"),
    "})();\n"
);

/// Writes `recording` as a page.
///
/// # Errors
/// Those of `out`.
pub fn write(recording: &Recording, out: &mut dyn Write) -> io::Result<()> {
    let mut pieces = PAGE.split("{{");
    out.write_all(pieces.next().unwrap_or_default().as_bytes())?;
    for piece in pieces {
        let (name, rest) = piece.split_once("}}").expect("every place is closed");
        let text = match name {
            "policy" => policy(),
            "title" => sections::title(recording),
            "style" => STYLE.into(),
            "context" => sections::context(recording),
            "answer" => sections::answer(recording),
            "flows" => sections::flows(recording),
            "stack-sampling" => sections::stack_sampling(recording),
            "totals" => sections::totals(recording),
            "audit" => sections::audit(recording),
            "observed" => sections::observed(recording),
            "unknown" => sections::unknown(recording),
            "lost" => sections::lost(recording),
            "hooks" => sections::hooks(recording),
            "made" => sections::made(recording),
            "script" => SCRIPT.into(),
            "data" => {
                data::Data::of(recording).write(out)?;
                String::new()
            }
            other => unreachable!("the page has no place {other}"),
        };
        out.write_all(text.as_bytes())?;
        out.write_all(rest.as_bytes())?;
    }
    Ok(())
}

/// What a browser lets the page do: its own style and script, and nothing else.
fn policy() -> String {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; \
         form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}
