//! The format of pprof: a compressed protocol buffer, with a sample type for each measure that has
//! stacks.

mod message;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, io::Write, mem};

use flate2::{Compression, write::GzEncoder};
use prost::Message as _;

use self::message::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};
use super::{
    frames::{Frame, Numbers},
    quantity::{self, Missing},
    text::Shown,
};
use crate::{
    failure::Failure,
    recording::{INLINED_FRAME, KERNEL_FRAME, Measure, Recording, Stack, Unit},
};

/// Writes all stacks. Each sample has the labels `path`, `process` and `pid`.
///
/// # Errors
/// When `to` cannot be written to, the recording has no stacks, or a number is 2^63 or more.
pub fn write(recording: &Recording, to: &mut dyn Write) -> anyhow::Result<()> {
    let profile = Builder::new(recording)
        .and_then(Builder::build)
        .map_err(Failure::from)?;
    let mut compressed = GzEncoder::new(to, Compression::default());
    compressed.write_all(&profile.encode_to_vec())?;
    compressed.finish()?;
    Ok(())
}

struct Builder<'a> {
    recording: &'a Recording,
    measures: Vec<Measure>,
    strings: Numbers<String>,
    functions: Numbers<(i64, i64)>,
    frames: Numbers<Frame<'a>>,
    /// Functions, each after those that the compiler has put into it.
    locations: Numbers<Vec<usize>>,
}

/// The mapping of what is not the kernel's: the program's and its libraries' code, which are not
/// told apart.
const PROGRAM: u64 = 1;
const KERNEL: u64 = 2;

impl<'a> Builder<'a> {
    fn new(recording: &'a Recording) -> Result<Self, Missing> {
        let mut strings = Numbers::new();
        // The format wants it to be the first.
        strings.number(String::new());
        Ok(Self {
            recording,
            measures: quantity::with_stacks(recording)?,
            strings,
            functions: Numbers::new(),
            frames: Numbers::new(),
            locations: Numbers::new(),
        })
    }

    fn build(mut self) -> Result<Profile, Missing> {
        let sample = self.samples()?;
        let location = self.all_locations();
        let function = self.functions.iter().enumerate();
        let function = function
            .map(|(number, &(name, filename))| Function {
                id: id(number),
                name,
                filename,
            })
            .collect();
        let sample_type: Vec<_> = self
            .measures
            .clone()
            .into_iter()
            .map(|measure| ValueType {
                r#type: self.text(measure.name()),
                unit: self.text(match measure.unit() {
                    Unit::Bytes => "bytes",
                    Unit::Nanoseconds => "nanoseconds",
                    Unit::Count => "count",
                }),
            })
            .collect();
        let command = Shown::command(&self.recording.target.command).whole();
        let program = self.recording.target.command.first();
        let program = program.map_or_else(String::new, |name| Shown::name(name).whole());
        Ok(Profile {
            mapping: vec![
                Mapping {
                    id: PROGRAM,
                    filename: self.text(&program),
                    has_functions: true,
                },
                Mapping {
                    id: KERNEL,
                    filename: self.text("[kernel.kallsyms]"),
                    has_functions: true,
                },
            ],
            comment: vec![
                self.text(concat!("mmtrace ", env!("CARGO_PKG_VERSION"))),
                self.text(&command),
            ],
            default_sample_type: sample_type.first().map_or(0, |first| first.r#type),
            duration_nanos: signed(self.recording.target.wall_time_ns)?,
            sample_type,
            sample,
            location,
            function,
            string_table: self.strings.iter().cloned().collect(),
        })
    }

    /// A sample for each stack of a process and path, with the values of all measures.
    fn samples(&mut self) -> Result<Vec<Sample>, Missing> {
        let mut places = HashMap::new();
        let mut samples: Vec<Sample> = Vec::new();
        let mut labels = HashMap::new();
        let recording = self.recording;
        for stack in recording.stacks.iter().filter(|stack| stack.value > 0) {
            let Some(column) = self.measures.iter().position(|&m| m == stack.measure) else {
                continue;
            };
            let locations = self.stack(stack);
            let place = *places
                .entry((stack.process, stack.path, locations))
                .or_insert_with_key(|(process, path, locations)| {
                    let label = labels
                        .entry((*process, *path))
                        .or_insert_with(|| self.labels(stack));
                    samples.push(Sample {
                        location_id: locations.clone(),
                        value: vec![0; self.measures.len()],
                        label: label.clone(),
                    });
                    samples.len() - 1
                });
            let value = &mut samples[place].value[column];
            let sum = value.checked_add(signed(stack.value)?);
            *value = sum.ok_or(Missing::TooLarge)?;
        }
        Ok(samples)
    }

    fn labels(&mut self, stack: &Stack) -> Vec<Label> {
        let mut labels = vec![Label {
            key: self.text("path"),
            str: self.text(stack.path.name()),
            num: 0,
        }];
        let mut processes = self.recording.processes.iter();
        if let Some(process) = processes.find(|process| Some(process.id) == stack.process) {
            let command = Shown::command(&process.command).whole();
            labels.push(Label {
                key: self.text("process"),
                str: self.text(&command),
                num: 0,
            });
            labels.push(Label {
                key: self.text("pid"),
                str: 0,
                num: process.pid.into(),
            });
        }
        labels
    }

    /// The ids of a stack's locations, the innermost first.
    fn stack(&mut self, stack: &'a Stack) -> Vec<u64> {
        let mut locations = Vec::with_capacity(stack.frames.len());
        let mut group: Vec<usize> = Vec::new();
        for frame in Frame::functions(stack) {
            if !frame.name().ends_with(INLINED_FRAME) && !group.is_empty() {
                locations.push(self.location(&mut group));
            }
            group.push(self.frames.number(frame));
        }
        if !group.is_empty() {
            locations.push(self.location(&mut group));
        }
        locations.reverse();
        locations
    }

    /// The id of the location of a function and those in it, the outermost first, which are taken.
    fn location(&mut self, group: &mut Vec<usize>) -> u64 {
        group.reverse();
        id(self.locations.number(mem::take(group)))
    }

    fn all_locations(&mut self) -> Vec<Location> {
        let frames: Vec<_> = self.frames.iter().copied().collect();
        let lines: Vec<_> = frames.iter().map(|&frame| self.line(frame)).collect();
        let kernel = |frames_of: &Vec<usize>| {
            let mut names = frames_of.iter().map(|&number| frames[number].name());
            names.any(|name| name.ends_with(KERNEL_FRAME))
        };
        let locations = self.locations.iter().enumerate();
        locations
            .map(|(number, group)| Location {
                id: id(number),
                mapping_id: if kernel(group) { KERNEL } else { PROGRAM },
                line: group.iter().map(|&number| lines[number].clone()).collect(),
            })
            .collect()
    }

    fn line(&mut self, frame: Frame<'a>) -> Line {
        let name = frame.name();
        let name = name.strip_suffix(KERNEL_FRAME).unwrap_or(name);
        let name = name.strip_suffix(INLINED_FRAME).unwrap_or(name);
        let (file, line) = frame.place();
        let name = self.text(&Shown::name(name.as_ref()).whole());
        let file = file.map_or(0, |file| self.text(&Shown::name(file.as_ref()).whole()));
        Line {
            function_id: id(self.functions.number((name, file))),
            line: line.map_or(0, i64::from),
        }
    }

    fn text(&mut self, text: &str) -> i64 {
        i64::try_from(self.strings.number(text.into())).expect("memory is smaller than 2^63")
    }
}

/// Ids begin with 1: 0 means none.
fn id(number: usize) -> u64 {
    number as u64 + 1
}

fn signed(value: u64) -> Result<i64, Missing> {
    value.try_into().map_err(|_| Missing::TooLarge)
}
