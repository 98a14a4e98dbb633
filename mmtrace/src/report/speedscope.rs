//! The file format of speedscope: a profile for each measure that has stacks.

use std::io::Write;

use serde::Serialize;

use super::{
    frames::{Frame, Numbers},
    json,
    quantity::{self, Missing},
    text::Shown,
};
use crate::{
    failure::Failure,
    recording::{Measure, Recording, Unit},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(rename = "$schema")]
    schema: &'static str,
    exporter: &'static str,
    name: String,
    active_profile_index: usize,
    shared: Shared,
    profiles: Vec<Profile>,
}

#[derive(Serialize)]
struct Shared {
    frames: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    r#type: &'static str,
    name: String,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

/// Writes a profile for each measure that has stacks, the path as the outermost function.
///
/// # Errors
/// When `to` cannot be written to, the recording has no stacks, or a sum is 2^64 or more.
pub fn write(recording: &Recording, to: &mut dyn Write) -> anyhow::Result<()> {
    let mut frames = Numbers::new();
    let profiles = quantity::with_stacks(recording)
        .and_then(|measures| {
            let profiles = measures.into_iter();
            let profiles = profiles.map(|measure| profile(recording, measure, &mut frames));
            profiles.collect::<Result<_, _>>()
        })
        .map_err(Failure::from)?;
    let escaped = |text: &str| Shown::name(text.as_ref()).whole();
    let frames = frames.iter().map(|frame: &Frame<'_>| Listed {
        name: escaped(frame.name()),
        file: frame.place().0.map(escaped),
    });
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        exporter: concat!("mmtrace ", env!("CARGO_PKG_VERSION")),
        name: Shown::command(&recording.target.command).whole(),
        active_profile_index: 0,
        shared: Shared {
            frames: frames.collect(),
        },
        profiles,
    };
    Ok(json::write_lines(&file, 3, to)?)
}

fn profile<'a>(
    recording: &'a Recording,
    measure: Measure,
    frames: &mut Numbers<Frame<'a>>,
) -> Result<Profile, Missing> {
    let mut profile = Profile {
        r#type: "sampled",
        name: measure.label().into(),
        unit: match measure.unit() {
            Unit::Bytes => "bytes",
            Unit::Nanoseconds => "nanoseconds",
            Unit::Count => "none",
        },
        start_value: 0,
        end_value: 0,
        samples: Vec::new(),
        weights: Vec::new(),
    };
    for stack in recording
        .stacks
        .iter()
        .filter(|stack| stack.measure == measure)
    {
        let outermost = [Frame::Path(stack.path)].into_iter();
        let sample = outermost.chain(Frame::functions(stack));
        let sample = sample
            .map(|frame| frames.number(frame.without_line()))
            .collect();
        let sum = profile.end_value.checked_add(stack.value);
        profile.end_value = sum.ok_or(Missing::TooLarge)?;
        profile.samples.push(sample);
        profile.weights.push(stack.value);
    }
    Ok(profile)
}
