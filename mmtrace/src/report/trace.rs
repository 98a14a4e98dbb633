//! The Trace Event Format of Chrome's tracing, which Perfetto opens too: when the work was done.

use std::{ffi::OsString, io::Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{json, text::Shown};
use crate::recording::{Measure, Process, Recording, Timeline, Unit};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    display_time_unit: &'static str,
    other_data: Map<String, Value>,
    trace_events: Vec<Event>,
}

#[derive(Serialize)]
struct Event {
    name: String,
    ph: &'static str,
    /// In microseconds, as is `dur`.
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: u32,
    tid: u32,
    args: Map<String, Value>,
}

/// Whose counters those of the whole run are: no process has this id, which is above the kernel's
/// largest (`PID_MAX_LIMIT`).
const WHOLE_RUN: u32 = (1 << 22) + 1;

/// Writes a slice for each process, and for each measure and path what there was of it during each
/// stretch of the timeline.
///
/// # Errors
/// When `to` cannot be written to.
pub fn write(recording: &Recording, to: &mut dyn Write) -> anyhow::Result<()> {
    let mut other_data = Map::new();
    let mut add = |key: &str, value: Value| other_data.insert(key.into(), value);
    add(
        "tool",
        concat!("mmtrace ", env!("CARGO_PKG_VERSION")).into(),
    );
    add("command", command(&recording.target.command).into());
    add(
        "kernel",
        Shown::prose(&recording.host.kernel).whole().into(),
    );
    let mut trace_events = vec![named(WHOLE_RUN, "the whole run".into())];
    for process in &recording.processes {
        trace_events.push(named(process.pid, command(&process.command)));
        trace_events.push(slice(process, recording.target.wall_time_ns));
    }
    match &recording.timeline {
        Some(timeline) => {
            add("counters_are_per_ns", timeline.width_ns.into());
            counters(timeline, &mut trace_events);
        }
        None => {
            add("counters", "the recording has no timeline".into());
        }
    }
    let trace = Trace {
        display_time_unit: "ms",
        other_data,
        trace_events,
    };
    Ok(json::write_lines(&trace, 2, to)?)
}

fn command(arguments: &[OsString]) -> String {
    Shown::command(arguments).whole()
}

fn named(pid: u32, name: String) -> Event {
    Event {
        name: "process_name".into(),
        ph: "M",
        ts: 0.0,
        dur: None,
        pid,
        tid: pid,
        args: [("name".into(), name.into())].into_iter().collect(),
    }
}

fn slice(process: &Process, wall_time_ns: u64) -> Event {
    let end_ns = process.end_ns.unwrap_or(wall_time_ns);
    let mut args = Map::new();
    args.insert("parent".into(), process.parent.into());
    if process.end_ns.is_none() {
        args.insert("end".into(), "outlived the tracing".into());
    }
    Event {
        name: command(&process.command),
        ph: "X",
        ts: microseconds(process.start_ns),
        dur: Some(microseconds(end_ns.saturating_sub(process.start_ns))),
        pid: process.pid,
        tid: process.pid,
        args,
    }
}

/// A counter for each measure that there is any of, with a series for each path.
fn counters(timeline: &Timeline, events: &mut Vec<Event>) {
    for measure in Measure::ALL {
        let paths = timeline.paths.iter();
        let mut series: Vec<_> = paths
            .filter_map(|(path, measures)| Some((path.0.name(), measures.get(&measure)?)))
            .collect();
        series.retain(|(_, values)| values.iter().any(|&value| value > 0));
        if series.is_empty() {
            continue;
        }
        // A counter keeps its value until the next one: after the last stretch comes 0.
        for stretch in 0..=timeline.stretches {
            let at_ns = timeline.width_ns.saturating_mul(stretch as u64);
            let values = series.iter().map(|(path, values)| {
                let value = values.get(stretch).copied().unwrap_or(0);
                ((*path).to_owned(), value.into())
            });
            events.push(Event {
                name: match measure.unit() {
                    Unit::Nanoseconds => format!("{} (ns)", measure.label()),
                    Unit::Bytes | Unit::Count => measure.label().into(),
                },
                ph: "C",
                ts: microseconds(at_ns),
                dur: None,
                pid: WHOLE_RUN,
                tid: WHOLE_RUN,
                args: values.collect(),
            });
        }
    }
}

fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1e3
}
