//! The page of a recording, as text. `tests/browser` looks at it in a browser.

#[path = "browser/generated.rs"]
mod generated;

use std::{collections::BTreeMap, fs, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use generated::Size;
use mmtrace::{
    recording::{Measure, MeasureSet, Measured, Measures, Path, Recording, Row, Totals},
    report::page,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

fn saved(name: &str) -> Recording {
    let directory = [env!("CARGO_MANIFEST_DIR"), "tests", "recordings", name];
    let file = directory.iter().collect::<PathBuf>().with_extension("json");
    Recording::from_json(&fs::read(file).unwrap()).unwrap()
}

fn generated() -> Recording {
    let size = Size {
        files: 40,
        processes: 6,
        stacks: 300,
    };
    generated::recording(saved("large"), &size)
}

fn written(recording: &Recording) -> String {
    let mut page = Vec::new();
    page::write(recording, &mut page).unwrap();
    String::from_utf8(page).unwrap()
}

/// What is between two marks that the page has once.
fn between<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let mut parts = page.split(from);
    let rest = parts.nth(1).unwrap();
    assert!(parts.next().is_none(), "{from} is there once");
    rest.split_once(to).unwrap().0
}

fn style(page: &str) -> &str {
    between(page, "<style>", "</style>")
}

fn script(page: &str) -> &str {
    between(page, "<script>", "</script>")
}

fn data(page: &str) -> &str {
    between(
        page,
        "<script type=\"application/json\" id=\"data\">",
        "</script>",
    )
}

/// The page without what is the same in each, and without the block of data.
fn markup(page: &str) -> String {
    let policy = between(page, "Content-Security-Policy\" content=\"", "\"");
    [style(page), script(page), data(page), policy]
        .iter()
        .fold(page.to_owned(), |page, part| page.replace(part, "…"))
}

#[test]
fn pages_are_as_saved() {
    for name in [
        "small",
        "nulls",
        "hostile",
        "empty",
        "witness",
        "stacks-hostile",
    ] {
        insta::assert_snapshot!(format!("page-{name}"), markup(&written(&saved(name))));
    }
}

#[test]
fn no_name_becomes_markup() {
    let page = written(&saved("stacks-hostile"));
    assert!(!data(&page).contains(['<', '>', '&', '\u{2028}', '\u{2029}']));
    assert_eq!(page.matches("<script").count(), 2, "the page's own");
    let page = written(&saved("hostile"));
    assert!(
        data(&page).contains("script\\u003ealert(1)"),
        "the name is there"
    );
    assert!(!data(&page).contains(['<', '>', '&', '\u{2028}', '\u{2029}']));
    assert_eq!(page.matches("<script").count(), 2, "the page's own");
    let shown = markup(&page);
    let harmful = |c: &char| {
        (c.is_control() && *c != '\n') || "\u{200b}\u{202e}\u{2066}\u{feff}".contains(*c)
    };
    assert_eq!(shown.chars().find(harmful), None);
    assert!(shown.contains("&lt;script&gt;"), "the command is there");
}

#[test]
fn the_policy_names_the_pages_own_style_and_script() {
    let page = written(&generated());
    let policy = between(&page, "Content-Security-Policy\" content=\"", "\"");
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; \
             form-action 'none'",
            hash(style(&page)),
            hash(script(&page))
        )
    );
    let shown = markup(&page);
    for inline in [
        " style=",
        " onclick=",
        " onload=",
        " onerror=",
        "javascript:",
        "http:",
        "https:",
    ] {
        assert!(!shown.contains(inline), "{inline}");
    }
}

#[test]
fn data_read_back_is_what_was_recorded() {
    let recording = generated();
    let data: Value = serde_json::from_str(data(&written(&recording))).unwrap();
    let columns: Vec<Measure> = data["measures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|words| {
            let mut all = Measure::ALL.into_iter();
            all.find(|measure| words["label"] == measure.label())
                .unwrap()
        })
        .collect();

    let rows = data["rows"].as_array().unwrap();
    assert_eq!(rows.len(), recording.rows.len());
    for (numbers, row) in rows.iter().zip(&recording.rows) {
        let numbers: Vec<u64> = serde_json::from_value(numbers.clone()).unwrap();
        // Ids are places in these lists.
        let id = |id: Option<u32>| id.map_or(0, |id| u64::from(id) + 1);
        assert_eq!(
            numbers[..3],
            [id(row.process), id(row.file), row.path as u64]
        );
        let known: Vec<u64> =
            serde_json::from_value(data["known"][row.path as usize].clone()).unwrap();
        let mut values: BTreeMap<u64, u64> = known.iter().map(|&column| (column, 0)).collect();
        for pair in numbers[3..].chunks(2) {
            assert!(
                values.insert(pair[0], pair[1]).is_some(),
                "a value of a null"
            );
        }
        for (column, measure) in columns.iter().enumerate() {
            let value = values.get(&(column as u64)).copied();
            assert_eq!(value, row.measures.get(*measure), "{}", measure.name());
        }
    }

    for (place, file) in recording.files.iter().enumerate() {
        let name = file.name.as_ref().unwrap().to_str().unwrap();
        assert_eq!(data["files"]["names"][place], name);
        assert_eq!(data["files"]["sizes"][place], file.size.unwrap());
    }
    let timeline = recording.timeline.as_ref().unwrap();
    let series = data["timeline"]["series"].as_array().unwrap();
    assert_eq!(
        series.len(),
        timeline.paths.values().map(BTreeMap::len).sum::<usize>()
    );
    for one in series {
        let path = Path::ALL[one["path"].as_u64().unwrap() as usize];
        let measure = columns[one["measure"].as_u64().unwrap() as usize];
        let mut values: Vec<u64> = serde_json::from_value(one["values"].clone()).unwrap();
        if values.is_empty() {
            values = vec![0; timeline.stretches];
        }
        assert_eq!(timeline.get(path, measure), Some(&values[..]));
    }
    for (map, heat) in data["heat_maps"]
        .as_array()
        .unwrap()
        .iter()
        .zip(&recording.heat_maps)
    {
        let cells: Vec<u64> = heat
            .cells
            .iter()
            .flat_map(|c| {
                let known = [
                    c.part,
                    c.stretch,
                    c.returned_bytes,
                    c.faulted_bytes,
                    c.cache_filled_bytes,
                ];
                known.into_iter().chain(c.readahead_unused_bytes)
            })
            .collect();
        assert_eq!(map["cells"], serde_json::json!(cells));
    }
    assert_eq!(folded(&data["flames"]), recorded_stacks(&recording));
}

type Folded = BTreeMap<(String, Vec<String>), u64>;

/// The stacks of the page's graphs, with their path first.
fn folded(flames: &Value) -> Folded {
    let mut folded = Folded::new();
    for graph in flames["graphs"].as_array().unwrap() {
        let list = |name: &str| serde_json::from_value::<Vec<u64>>(graph[name].clone()).unwrap();
        let mut open: Vec<String> = Vec::new();
        for ((depth, name), own) in list("depths")
            .into_iter()
            .zip(list("names"))
            .zip(list("own"))
        {
            open.truncate(depth as usize);
            open.push(
                flames["strings"][name as usize]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            );
            if own > 0 {
                folded.insert(
                    (graph["name"].as_str().unwrap().to_owned(), open.clone()),
                    own,
                );
            }
        }
    }
    folded
}

fn recorded_stacks(recording: &Recording) -> Folded {
    let mut folded = Folded::new();
    for stack in &recording.stacks {
        let graph = match stack.measure {
            Measure::DiskReadBytes => "disk",
            Measure::MinorFaults | Measure::MajorFaults => "faults",
            Measure::DiskWaitNs => "wait",
            Measure::BytesReturned => "returned",
            Measure::ReadaheadUnusedBytes => "waste",
            _ => "copied",
        };
        let path = [stack.path.name().to_owned()].into_iter();
        let frames = path.chain(stack.frames.iter().map(|frame| frame.to_string()));
        *folded
            .entry((graph.to_owned(), frames.collect()))
            .or_default() += stack.value;
    }
    folded
}

#[test]
fn a_picture_that_cannot_be_drawn_says_why() {
    let absent = |recording: &Recording, name: &str| {
        let data: Value = serde_json::from_str(data(&written(recording))).unwrap();
        let graphs = data["flames"]["graphs"].as_array().unwrap();
        let graph = graphs.iter().find(|graph| graph["name"] == name).unwrap();
        graph["absent"].as_str().unwrap().to_owned()
    };
    let nulls = absent(&saved("nulls"), "copied");
    assert_eq!(nulls, "the recording has no stacks");
    let mut recording = generated();
    assert_eq!(absent(&recording, "wait"), "");
    recording
        .stacks
        .retain(|stack| stack.measure != Measure::DiskWaitNs);
    assert_eq!(
        absent(&recording, "wait"),
        "no stacks were taken of time asleep for the disk"
    );
}

/// The labels of the wide drawing's arrows on a path.
fn labels(recording: &Recording, path: &str) -> Vec<String> {
    let page = written(recording);
    let drawing = between(&page, "<svg class=\"flow wide\"", "</svg>");
    let label = |line: &&str| line.contains("class=\"label");
    let text = |line: &str| {
        let text = line.split_once("class=\"label").unwrap().1;
        let text = text.split_once('>').unwrap().1;
        text.split_once("</text>").unwrap().0.to_owned()
    };
    // A path's name comes after its arrows.
    let end = drawing
        .split_once(&format!("class=\"path\">{path}<"))
        .unwrap()
        .0;
    let lane = end.rsplit("class=\"path\">").next().unwrap();
    lane.lines().filter(label).map(text).collect()
}

/// A recording in which a path has these totals, and others have none.
fn of_path(name: &str, path: Path, measures: Measures) -> Recording {
    let mut recording = saved(name);
    recording.rows = vec![Row {
        process: None,
        file: None,
        path,
        measures,
    }];
    let known = Measure::ALL
        .into_iter()
        .filter(|&m| measures.get(m).is_some());
    let mut measured = Measured::default();
    measured.set(path, MeasureSet::of(&known.collect::<Vec<_>>()));
    recording.totals = Totals::of(&recording.rows, &measured);
    recording
}

#[test]
fn arrows_are_what_was_measured() {
    let calls = Measures {
        operations: Some(1),
        bytes_returned: Some(4 << 20),
        disk_read_bytes: Some(4 << 20),
        minor_faults: Some(0),
        major_faults: Some(0),
        ..Measures::default()
    };
    let of = |path, measures| labels(&of_path("nulls", path, measures), path.name());
    assert_eq!(of(Path::Read, calls), ["4.0 MiB read", "4.0 MiB returned"]);
    let direct = of(Path::Direct, calls);
    assert_eq!(
        direct,
        [
            "4.0 MiB read",
            "copied: not measured [1]",
            "copied: not measured [2]"
        ]
    );
    let written = Measures {
        disk_read_bytes: Some(0),
        ..calls
    };
    assert_eq!(
        of(Path::Direct, written)[..2],
        ["0 B read", "4.0 MiB returned"]
    );
    assert_eq!(of(Path::Write, written), ["4.0 MiB returned"]);
    let splice = of(Path::Splice, calls);
    assert_eq!(
        splice,
        [
            "4.0 MiB read",
            "4.0 MiB passed on",
            "copied: not measured [1]"
        ]
    );

    let faults = Measures {
        bytes_returned: Some(0),
        minor_faults: Some(1_024),
        major_faults: Some(1),
        ..calls
    };
    let mapped = [
        "4.0 MiB read",
        "1,025 faults; mapped bytes: not measured [1]",
        "copied: not measured [2]",
    ];
    assert_eq!(of(Path::Mmap, faults), mapped);
    let exact = Measures {
        mapped_bytes: Some(4 << 20),
        copied_to_user_bytes: Some(0),
        copied_in_kernel_bytes: Some(4_096),
        ..faults
    };
    let mapped = [
        "4.0 MiB read",
        "4.0 MiB mapped",
        "0 B copied",
        "4,096 B pages copied",
    ];
    assert_eq!(of(Path::Mmap, exact), mapped);
}
