//! Pictures of stacks and of time, drawn from saved recordings. `INSTA_UPDATE=always` accepts what is
//! drawn.

mod saved;

use std::collections::BTreeMap;

use mmtrace::{
    failure::Failure,
    recording::{Measure, Recording},
    report::{
        flamegraph::{self, Direction},
        format::Format,
        quantity::{Missing, Quantity},
    },
};
use saved::recording;
use serde_json::Value;

const WITH_STACKS: [&str; 3] = ["stacks", "stacks-hostile", "stacks-large"];

fn draw(recording: &Recording, format: Format, asked: Option<Quantity>) -> String {
    let mut drawn = Vec::new();
    format.write(recording, asked, &mut drawn).unwrap();
    String::from_utf8(drawn).unwrap()
}

fn refusal(recording: &Recording, format: Format, asked: Option<Quantity>) -> String {
    let mut drawn = Vec::new();
    let error = format.write(recording, asked, &mut drawn).unwrap_err();
    assert!(drawn.is_empty(), "what is refused is not begun");
    assert!(error.downcast_ref::<Failure>().is_some(), "{error:?}");
    error.to_string()
}

/// The texts of an SVG, as the file has them, with the colour of each function.
fn texts(svg: &str) -> String {
    let part = |text: &str, from: &str, to: &str| {
        let rest = text
            .split_once(from)
            .unwrap_or_else(|| panic!("{from} in {text}"))
            .1;
        rest.split_once(to).unwrap().0.to_owned()
    };
    let headings = svg
        .split("<text ")
        .skip(1)
        .filter(|text| text.starts_with("id=\"title\"") || text.starts_with("id=\"subtitle\""));
    let headings = headings.map(|text| part(text, ">", "</text>"));
    let frames = svg.split("<title>").skip(1).map(|frame| {
        let (title, rest) = frame.split_once("</title>").unwrap();
        format!("{} {title}", part(rest, "fill=\"", "\""))
    });
    headings.chain(frames).collect::<Vec<_>>().join("\n")
}

#[test]
fn flame_graphs_are_as_saved() {
    let stacks = recording("stacks");
    for quantity in [
        Quantity::Copied,
        Quantity::Disk,
        Quantity::Faults,
        Quantity::Wait,
    ] {
        let svg = draw(&stacks, Format::Svg, Some(quantity));
        insta::assert_snapshot!(format!("flamegraph-{}", quantity.name()), texts(&svg));
    }
    let hostile = draw(&recording("stacks-hostile"), Format::Svg, None);
    insta::assert_snapshot!("flamegraph-hostile", texts(&hostile));
}

#[test]
fn folded_stacks_are_as_saved() {
    for (name, quantity) in [
        ("stacks", Quantity::Disk),
        ("stacks-hostile", Quantity::Faults),
    ] {
        let folded = draw(&recording(name), Format::Folded, Some(quantity));
        insta::assert_snapshot!(format!("folded-{name}"), folded);
    }
}

#[test]
fn folded_stacks_add_up_to_the_totals() {
    for name in WITH_STACKS {
        let recording = recording(name);
        for quantity in Quantity::ALL {
            let Ok(stacks) = quantity.stacks(&recording) else {
                continue;
            };
            assert!(!stacks.is_empty());
            let folded = draw(&recording, Format::Folded, Some(quantity));
            let mut paths: BTreeMap<&str, u64> = BTreeMap::new();
            for line in folded.lines() {
                let (stack, value) = line.rsplit_once(' ').unwrap();
                let path = stack.split(';').next().unwrap();
                *paths.entry(path).or_default() += value.parse::<u64>().unwrap();
            }
            for (path, totals) in recording.totals.iter() {
                let measures = quantity.measures().iter();
                let total: u64 = measures.filter_map(|&measure| totals.get(measure)).sum();
                let drawn = paths.get(path.name()).copied().unwrap_or(0);
                assert_eq!(
                    drawn,
                    total,
                    "{name}, {} of {}",
                    quantity.name(),
                    path.name()
                );
            }
        }
    }
}

#[test]
fn files_for_speedscope_are_as_saved() {
    for name in ["stacks", "stacks-hostile"] {
        let drawn = draw(&recording(name), Format::Speedscope, None);
        insta::assert_snapshot!(format!("speedscope-{name}"), drawn);
    }
}

#[test]
fn profiles_for_speedscope_add_up_to_the_totals() {
    for name in WITH_STACKS {
        let recording = recording(name);
        let file: Value =
            serde_json::from_str(&draw(&recording, Format::Speedscope, None)).unwrap();
        let frames = file["shared"]["frames"].as_array().unwrap().len() as u64;
        let totals = recording.totals.all_paths();
        let profiles = file["profiles"].as_array().unwrap();
        for profile in profiles {
            let measure = Measure::ALL
                .into_iter()
                .find(|measure| profile["name"] == measure.label());
            assert_eq!(profile["endValue"].as_u64(), totals.get(measure.unwrap()));
            let weights = profile["weights"].as_array().unwrap();
            let sum = weights
                .iter()
                .map(|weight| weight.as_u64().unwrap())
                .sum::<u64>();
            assert_eq!(profile["endValue"].as_u64(), Some(sum));
            let samples = profile["samples"].as_array().unwrap();
            assert_eq!(samples.len(), weights.len());
            let mut numbers = samples.iter().flat_map(|sample| sample.as_array().unwrap());
            assert!(numbers.all(|number| number.as_u64().unwrap() < frames));
        }
    }
}

#[test]
fn traces_are_as_saved() {
    insta::assert_snapshot!(
        "trace-hostile",
        draw(&recording("stacks-hostile"), Format::Trace, None)
    );
    insta::assert_snapshot!(
        "trace-no-timeline",
        draw(&recording("small"), Format::Trace, None)
    );
}

#[test]
fn the_counters_of_a_trace_add_up_to_the_totals() {
    let recording = recording("stacks");
    let trace: Value = serde_json::from_str(&draw(&recording, Format::Trace, None)).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    for measure in Measure::ALL {
        let name = match measure {
            Measure::KernelTimeNs | Measure::DiskWaitNs => format!("{} (ns)", measure.label()),
            _ => measure.label().to_owned(),
        };
        let counters = events.iter().filter(|event| event["name"] == name);
        let counters: Vec<_> = counters.collect();
        for (path, totals) in recording.totals.iter() {
            let values = counters
                .iter()
                .filter_map(|event| event["args"][path.name()].as_u64());
            assert_eq!(
                values.sum::<u64>(),
                totals.get(measure).unwrap_or(0),
                "{name}, {}",
                path.name()
            );
        }
        if let Some(last) = counters.last() {
            assert_eq!(counters.len(), 26);
            assert_eq!(
                last["ts"],
                25.0 * 16_777.216,
                "a counter ends with the timeline"
            );
            assert!(
                last["args"]
                    .as_object()
                    .unwrap()
                    .values()
                    .all(|value| value == 0)
            );
        }
    }
    let slices: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(slices.len(), 2);
    assert_eq!(
        (&slices[0]["ts"], &slices[0]["dur"]),
        (&0.0.into(), &409_000.0.into())
    );
    assert_eq!(
        (&slices[1]["ts"], &slices[1]["dur"]),
        (&20_000.0.into(), &390_000.0.into())
    );
    assert_eq!(slices[1]["args"]["end"], "outlived the tracing");
}

#[test]
fn nothing_in_a_recording_acts_in_a_picture() {
    let hostile = recording("stacks-hostile");
    for format in [
        Format::Svg,
        Format::Folded,
        Format::Speedscope,
        Format::Trace,
    ] {
        let drawn = draw(&hostile, format, None);
        let harmful = |c: &char| {
            (c.is_control() && !"\n\t".contains(*c))
                || "\u{200b}\u{202e}\u{2066}\u{feff}\u{ffff}".contains(*c)
        };
        assert_eq!(drawn.chars().find(harmful), None, "{format:?}");
    }
    let calm = draw(&recording("stacks"), Format::Svg, None);
    let hostile = draw(&hostile, Format::Svg, None);
    for mark in ["<script", "]]>", "<!--", "<svg", "<b>"] {
        assert_eq!(
            hostile.matches(mark).count(),
            calm.matches(mark).count(),
            "{mark}"
        );
    }
}

#[test]
fn why_there_is_no_picture_is_told() {
    let without = recording("small");
    for format in [
        Format::Svg,
        Format::Folded,
        Format::Speedscope,
        Format::Pprof,
    ] {
        assert_eq!(
            refusal(&without, format, None),
            "the recording has no stacks"
        );
    }
    let stacks = recording("stacks");
    assert_eq!(
        refusal(&stacks, Format::Svg, Some(Quantity::Waste)),
        "not measured: unused readahead bytes: not counted by this version"
    );
    let hostile = recording("stacks-hostile");
    assert_eq!(
        refusal(&hostile, Format::Folded, Some(Quantity::Wait)),
        "there is nothing to show: time asleep for the disk: 0"
    );
    let mut fewer = stacks.clone();
    fewer
        .stacks
        .retain(|stack| stack.measure == Measure::DiskReadBytes);
    assert_eq!(
        refusal(&fewer, Format::Svg, Some(Quantity::Faults)),
        "no stacks were taken of page faults"
    );
    fewer.stacks.clear();
    for format in [Format::Svg, Format::Pprof] {
        assert_eq!(
            refusal(&fewer, format, None),
            "there is nothing to show: no measure has stacks"
        );
    }
    let mut huge = stacks;
    let copied = huge
        .stacks
        .iter_mut()
        .filter(|stack| stack.measure == Measure::CopiedToUserBytes);
    copied.for_each(|stack| stack.value = u64::MAX);
    assert!(refusal(&huge, Format::Svg, None).starts_with("the numbers are too large"));
    assert!(refusal(&huge, Format::Speedscope, None).starts_with("the numbers are too large"));
}

#[test]
fn the_first_quantity_with_stacks_is_shown_if_none_is_asked_for() {
    let chosen =
        |recording: &Recording| Quantity::choose(None, recording).map(|(quantity, _)| quantity);
    let mut stacks = recording("stacks");
    assert_eq!(chosen(&stacks), Ok(Quantity::Copied));
    assert_eq!(chosen(&recording("stacks-hostile")), Ok(Quantity::Disk));
    stacks
        .stacks
        .retain(|stack| stack.measure == Measure::MajorFaults);
    assert_eq!(chosen(&stacks), Ok(Quantity::Faults));
    assert_eq!(chosen(&recording("small")), Err(Missing::NotTaken));
}

#[test]
fn differences_are_drawn_in_both_directions() {
    let before = recording("stacks");
    let mut after = before.clone();
    after.stacks.retain(|stack| stack.path.name() != "exec");
    for stack in &mut after.stacks {
        match stack.path.name() {
            "read" => stack.value *= 2,
            _ => stack.value /= 2,
        }
    }
    for (name, direction) in [
        ("forwards", Direction::Forwards),
        ("backwards", Direction::Backwards),
    ] {
        let mut svg = Vec::new();
        flamegraph::differential(&before, &after, Quantity::Disk, direction, &mut svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        insta::assert_snapshot!(format!("differential-{name}"), texts(&svg));
    }
    let without = recording("small");
    let mut svg = Vec::new();
    let error = flamegraph::differential(
        &without,
        &after,
        Quantity::Disk,
        Direction::Forwards,
        &mut svg,
    );
    assert_eq!(
        format!("{:#}", error.unwrap_err()),
        "before: the recording has no stacks"
    );
    assert!(svg.is_empty());
}
