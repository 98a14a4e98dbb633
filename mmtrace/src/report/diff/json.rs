//! A difference as JSON.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::Compared;
use crate::recording::{Change, Measure, Recording};
use crate::report::text::Shown;

/// The version of the format.
const SCHEMA: &str = "mmtrace.diff/1";

/// Writes the difference, exactly and whole.
pub(super) fn write(compared: &Compared<'_>, to: &mut dyn Write) -> io::Result<()> {
    let difference = &compared.difference;
    let paths = difference
        .paths
        .iter()
        .map(|changed| json!({"path": changed.of.name(), "changes": changes(&changed.changes)}));
    let files = difference.files.iter().map(|changed| {
        let name = changed
            .of
            .name
            .as_deref()
            .map(|name| Shown::name(name).whole());
        json!({
            "file": name,
            "place": changed.of.place,
            "path": changed.of.path.name(),
            "changes": changes(&changed.changes),
        })
    });
    let stacks = difference.stacks.as_ref().map(|stacks| {
        let stacks = stacks.iter().map(|changed| {
            json!({
                "path": changed.of.path.name(),
                "frames": changed.of.frames,
                "changes": changes(&changed.changes),
            })
        });
        stacks.collect::<Vec<_>>()
    });
    let value = json!({
        "schema": SCHEMA,
        "before": side(compared.before),
        "after": side(compared.after),
        "total": changes(&difference.total),
        "paths": paths.collect::<Vec<_>>(),
        "files": files.collect::<Vec<_>>(),
        "stacks": stacks,
    });
    serde_json::to_writer_pretty(&mut *to, &value)?;
    to.write_all(b"\n")
}

fn side(recording: &Recording) -> Value {
    json!({
        "command": Shown::command(&recording.target.command).whole(),
        "wall_time_ns": recording.target.wall_time_ns,
        "backend": recording.probes.backend,
        "lost": recording.lost,
    })
}

fn changes(changes: &[(Measure, Change)]) -> Value {
    let all = changes.iter().map(|(measure, change)| {
        let difference = change.difference().and_then(|it| i64::try_from(it).ok());
        let value = json!({
            "before": change.before,
            "after": change.after,
            "difference": difference,
            "ratio": change.ratio(),
        });
        (measure.name().to_owned(), value)
    });
    Value::Object(all.collect::<Map<_, _>>())
}
