//! The page of a recording in a browser. Where none is installed, these tests count as ignored.

mod devtools;
mod generated;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::LazyLock,
};

use devtools::Page;
use generated::Size;
use libtest_mimic::{Arguments, Trial};
use mmtrace::{
    recording::{HeatCell, Measure, Measured, Recording, Totals},
    report::page,
};
use serde_json::{Value, json};

const WIDE: [u32; 2] = [1200, 900];
const TELEPHONE: [u32; 2] = [380, 800];

/// A test, which gets the browser.
type Test = fn(&Path);

const TESTS: [(&str, Test); 11] = [
    ("pages_load_nothing_and_break_no_policy", load_nothing),
    ("the_policy_holds", policy),
    ("files_are_sorted_filtered_and_turned", files),
    ("a_file_opens_its_paths_and_its_heat_map", file),
    ("heat_maps_tell_what_is_not_known", unknown_heat),
    ("figures_are_those_of_the_table", figures),
    ("a_process_without_work_has_zeros_and_dashes", zeros),
    ("the_timeline_is_read_by_keys", timeline),
    ("flame_graphs_are_searched_and_zoomed", flames),
    ("colours_are_those_of_the_theme", theme),
    ("pages_fit_a_telephone", telephone),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each has a browser of its own.
    arguments.test_threads = Some(1);
    let browser = devtools::installed();
    let tests = TESTS.map(|(name, test)| {
        let browser = browser.clone();
        let ignored = browser.is_none();
        let run = move || {
            test(&browser.ok_or("no browser is installed: chromium, for instance")?);
            Ok(())
        };
        let trial = Trial::test(name, run).with_ignored_flag(ignored);
        match ignored {
            true => trial.with_kind("no browser"),
            false => trial,
        }
    });
    libtest_mimic::run(&arguments, tests.into()).exit_code()
}

fn saved(name: &str) -> Recording {
    let directory = [env!("CARGO_MANIFEST_DIR"), "tests", "recordings", name];
    let file = directory.iter().collect::<PathBuf>().with_extension("json");
    Recording::from_json(&fs::read(file).unwrap()).unwrap()
}

/// A large recording: more files and stacks than a browser could show at once.
static LARGE: LazyLock<Recording> = LazyLock::new(|| {
    let size = Size {
        files: 10_000,
        processes: 60,
        stacks: 4_000,
    };
    let recording = generated::recording(saved("large"), &size);
    assert!(recording.stacks.len() > 20_000);
    recording
});

/// A small one.
static SMALL: LazyLock<Recording> = LazyLock::new(|| {
    let size = Size {
        files: 60,
        processes: 30,
        stacks: 200,
    };
    generated::recording(saved("large"), &size)
});

/// A page and the directory that it is in.
struct Opened {
    page: Page,
    _directory: tempfile::TempDir,
}

fn open(browser: &Path, recording: &Recording, size: [u32; 2]) -> Opened {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("page.html");
    page::write(recording, &mut fs::File::create(&file).unwrap()).unwrap();
    Opened {
        page: Page::open(browser, &file, size),
        _directory: directory,
    }
}

/// What the browser complained of, and what the page asked for beside itself.
fn complaints(page: &Page) -> Vec<String> {
    let asked = |parameters: &Value| parameters["request"]["url"].as_str().unwrap().to_owned();
    page.events()
        .iter()
        .filter(|event| match event.method.as_str() {
            "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" => true,
            "Network.requestWillBeSent" => !asked(&event.parameters).ends_with("/page.html"),
            _ => false,
        })
        .map(|event| format!("{}: {}", event.method, event.parameters))
        .collect()
}

fn load_nothing(browser: &Path) {
    for name in [
        "small",
        "nulls",
        "losses",
        "hostile",
        "empty",
        "witness",
        "stacks",
        "stacks-hostile",
    ] {
        let mut opened = open(browser, &saved(name), WIDE);
        let page = &mut opened.page;
        for button in ["#files button.open", "#processes button.open"] {
            if page.value(format_args!("document.querySelector('{button}') !== null")) == true {
                page.click(button);
            }
        }
        page.settle();
        assert_eq!(complaints(page), [""; 0], "{name}");
        assert_eq!(page.value("document.scripts.length"), 2, "{name}");
    }
}

fn policy(browser: &Path) {
    let mut opened = open(browser, &saved("hostile"), WIDE);
    let page = &mut opened.page;
    let violated = page.value(
        "new Promise((done) => {
           const violated = [];
           document.addEventListener('securitypolicyviolation', (event) => {
             violated.push(event.effectiveDirective);
             if (violated.length === 3) done(violated);
           });
           const script = document.createElement('script');
           script.textContent = 'window.broken = true';
           document.body.append(script);
           const image = new Image();
           image.src = 'http://localhost/image.png';
           document.body.setAttribute('onclick', 'window.broken = true');
           document.body.click();
         })",
    );
    let mut violated: Vec<String> = serde_json::from_value(violated).unwrap();
    violated.sort();
    assert_eq!(violated, ["img-src", "script-src-attr", "script-src-elem"]);
    assert_eq!(page.value("window.broken === undefined"), true);
}

/// The names of all files, in the order that a page must have them.
fn names_by(key: impl Fn(u32) -> u64) -> Vec<String> {
    let mut files: Vec<_> = LARGE.files.iter().collect();
    files.sort_by_key(|file| key(file.id));
    let names = files.iter().map(|file| file.name.as_ref().unwrap());
    names
        .map(|name| name.to_str().unwrap().to_owned())
        .collect()
}

fn files(browser: &Path) {
    const NAMES: &str = "#files tbody .name";
    let mut opened = open(browser, &LARGE, WIDE);
    let page = &mut opened.page;
    let mut disk = vec![0; LARGE.files.len()];
    for row in &LARGE.rows {
        if let Some(file) = row.file {
            disk[file as usize] += row.measures.disk_read_bytes.unwrap();
        }
    }
    let largest = page.texts(NAMES);
    assert_eq!(largest.len(), 25, "no more than a page");
    let first = names_by(|id| u64::MAX - disk[id as usize])[0].clone();
    assert_eq!(largest[0], first, "the largest first");
    assert_eq!(page.text("#files .status"), "1 to 25 of 10,000");
    let heading = "#files thead th[aria-sort]";
    assert_eq!(page.text(heading), "read from disk ▼");

    page.click("#files button[data-key=name]");
    let mut sorted = names_by(u64::from);
    sorted.sort();
    assert_eq!(page.texts(NAMES), sorted[..25]);
    // The heading keeps the focus, so that a key turns the order around.
    page.press("Enter");
    sorted.reverse();
    assert_eq!(page.texts(NAMES), sorted[..25]);
    let order = format!("document.querySelector('{heading}').ariaSort");
    assert_eq!(page.value(order), "descending");

    page.click("#files .pager button:last-child");
    assert_eq!(page.texts(NAMES), sorted[25..50]);
    assert_eq!(page.text("#files .status"), "26 to 50 of 10,000");

    page.click("#file-filter");
    page.write("PART-0012");
    let found: Vec<_> = sorted
        .iter()
        .filter(|name| name.contains("part-0012"))
        .collect();
    assert_eq!(page.texts(NAMES).iter().collect::<Vec<_>>(), found);
    assert_eq!(page.text("#files .status"), "10 found of 10,000");
    assert_eq!(complaints(page), [""; 0]);
}

fn file(browser: &Path) {
    let mut opened = open(browser, &SMALL, WIDE);
    let page = &mut opened.page;
    page.click("#files button.open");
    assert_eq!(
        page.value("document.querySelector('#files button.open').ariaExpanded"),
        "true"
    );
    let name = page.text("#files tbody .name");
    assert_eq!(page.text("#files .details code"), name);
    let id = SMALL
        .files
        .iter()
        .find(|file| file.name.as_ref().unwrap() == name.as_str());
    let id = id.unwrap().id;
    let mut paths: Vec<_> = SMALL
        .rows
        .iter()
        .filter(|row| row.file == Some(id))
        .map(|row| row.path)
        .collect();
    paths.sort();
    let paths: Vec<_> = paths.iter().map(|path| path.name()).collect();
    assert_eq!(page.texts("#files .details tbody th"), paths);
    assert_eq!(page.texts("#files .map svg").len(), 4);
    let drawn = "Array.from(document.querySelectorAll('#files .map svg'), (drawing) => drawing.querySelector('path[d^=M]') !== null)";
    assert_eq!(page.value(drawn), json!([true, true, true, true]));
    let map = SMALL.heat_maps.iter().find(|map| map.file == id).unwrap();
    let sum = |of: fn(&HeatCell) -> u64| map.cells.iter().map(of).sum::<u64>();
    let filled = sum(|cell| cell.cache_filled_bytes);
    let unused = sum(|cell| cell.readahead_unused_bytes.unwrap());
    let share = unused * 1_000 / filled;
    let words = format!(", {}.{} % of what came in", share / 10, share % 10);
    let told = page.texts("#files .heat figcaption").pop().unwrap();
    assert!(told.contains(&words), "{told:?} lacks {words:?}");
    page.press("Enter");
    assert_eq!(page.texts("#files .details").len(), 0, "closed again");
}

/// What is not known is told, and not drawn as 0.
fn unknown_heat(browser: &Path) {
    let mut recording = saved("stacks");
    let reasons = [
        "not counted by this version",
        "the recording has it of whole files only",
    ];
    for reason in reasons {
        let mut opened = open(browser, &recording, WIDE);
        let page = &mut opened.page;
        page.click("#files button.open");
        assert_eq!(page.texts("#files .map svg").len(), 3);
        let told = page.texts("#files .heat .absent");
        assert_eq!(told, [format!("Not known: {reason}.")]);
        // As an older recording with the measure.
        for row in &mut recording.rows {
            row.measures.set(Measure::ReadaheadUnusedBytes, Some(1));
        }
        let mut measured = Measured::default();
        measured.add(Measure::ReadaheadUnusedBytes);
        recording.totals = Totals::of(&recording.rows, &measured);
    }
}

fn figures(browser: &Path) {
    let mut opened = open(browser, &SMALL, WIDE);
    let page = &mut opened.page;
    let headings = page.texts("#totals thead th");
    for (row, measure) in [
        (1, "minor faults"),
        (2, "disk read bytes"),
        (3, "disk wait"),
    ] {
        let choose = format!(
            "(() => {{ const select = document.querySelector('#timeline-measure');
               const option = Array.from(select.options).find((o) => o.text === '{measure}');
               select.value = option.value; select.dispatchEvent(new Event('change')); }})()"
        );
        page.value(choose);
        let cells = page.value(format_args!(
            "Array.from(Array.from(document.querySelectorAll('#totals tbody tr'))
               .find((row) => row.cells[0].textContent === '{measure}').cells, (c) => c.textContent)"
        ));
        let cells: Vec<String> = serde_json::from_value(cells).unwrap();
        // Made by the script and by mmtrace: the same words for the same numbers.
        let told: Vec<_> = headings
            .iter()
            .zip(&cells)
            .skip(1)
            .filter(|(heading, cell)| *heading != "total" && *cell != "0")
            .map(|(heading, cell)| format!("{heading} {cell}"))
            .collect();
        assert_eq!(page.texts("#timeline .legend li"), told, "{row}: {measure}");
    }
}

fn zeros(browser: &Path) {
    let mut recording = saved("small");
    let mut idle = recording.processes[0].clone();
    (idle.id, idle.parent) = (9, Some(idle.id));
    recording.processes.push(idle);
    let mut opened = open(browser, &recording, WIDE);
    let page = &mut opened.page;
    page.click("#process-all");
    let headings = page.texts("#processes thead th");
    let cells = page.texts("#processes tbody tr:nth-child(2) > *");
    let cell = |heading: &str| {
        let place = headings.iter().position(|other| other == heading);
        place.map(|place| cells[place].as_str())
    };
    assert_eq!(cell("operations"), Some("0"));
    assert_eq!(cell("read from disk"), Some("0"));
    // What is known nowhere, and not expected, has no column.
    assert_eq!(cell("copied to user"), None);
    page.click("#processes tbody tr:nth-child(2) button");
    let told = page.texts("#processes .details p");
    assert_eq!(told.last().unwrap(), "0: no work of its own.");

    let mut opened = open(browser, &saved("nulls"), WIDE);
    let page = &mut opened.page;
    let headings = page.texts("#files thead th");
    let mapped = headings.iter().position(|heading| heading == "mapped");
    let cell = format!(
        "#files tbody tr:first-child > *:nth-child({})",
        mapped.unwrap() + 1
    );
    assert_eq!(page.text(&cell), "–");
}

fn timeline(browser: &Path) {
    let mut opened = open(browser, &SMALL, WIDE);
    let page = &mut opened.page;
    page.value("document.querySelector('#timeline svg').focus()");
    for _ in 0..3 {
        page.press("ArrowRight");
    }
    let told = page.text("#timeline .status");
    assert!(told.starts_with("from 2.10 ms to 3.15 ms: "), "{told}");
    let mut empty = open(browser, &saved("small"), WIDE);
    assert_eq!(
        empty.page.text("#timeline .absent"),
        "This recording has no timeline: when the work was done was not recorded."
    );
}

fn flames(browser: &Path) {
    let mut opened = open(browser, &LARGE, WIDE);
    let page = &mut opened.page;
    page.click("#flames .choices button:nth-child(3)");
    let all = page.text("#flames div > .status:not(.matches)");
    assert!(all.starts_with("bytes read from disk: "), "{all}");
    let pressed = "#flames .choices [aria-pressed=true]";
    assert_eq!(page.text(pressed), "disk");

    page.click("#flame-search");
    page.write("Module_7::");
    let with = |stack: &&mmtrace::recording::Stack| {
        stack.measure == Measure::DiskReadBytes
            && stack
                .frames
                .iter()
                .any(|frame| frame.contains("module_7::"))
    };
    let found: u64 = LARGE
        .stacks
        .iter()
        .filter(with)
        .map(|stack| stack.value)
        .sum();
    let told = page.text("#flames .matches");
    let expected = format!("{:.1} GiB, ", found as f64 / f64::from(1 << 30));
    assert!(told.starts_with(&expected), "{told}, not {expected}");

    // The first path's box is at the left of the first row.
    let corner = page.value(
        "(() => { const c = document.querySelector('#flames canvas'); c.scrollIntoView({ block: 'center' });
           const b = c.getBoundingClientRect(); return [b.x, b.y]; })()",
    );
    let [x, y]: [f64; 2] = serde_json::from_value(corner).unwrap();
    page.click_at(x + 20.0, y + 30.0);
    let zoomed = page.text("#flames div > .status:not(.matches)");
    assert!(zoomed.starts_with("_start: "), "{zoomed}");
    let back = "document.querySelector('#flames .tools button').disabled";
    assert_eq!(page.value(back), false);
    page.value("document.querySelector('#flames canvas').focus()");
    page.press("Escape");
    assert_eq!(page.value(back), true);
    for key in ["ArrowDown", "ArrowDown"] {
        page.press(key);
    }
    let told = page.text("#flames div > .status:not(.matches)");
    assert!(told.starts_with("main, src/main.rs:12: "), "{told}");

    assert_eq!(complaints(page), [""; 0]);

    let mut without = SMALL.clone();
    without
        .stacks
        .retain(|stack| stack.measure != Measure::DiskWaitNs);
    let mut opened = open(browser, &without, WIDE);
    let page = &mut opened.page;
    page.click("#flames .choices button:nth-child(5)");
    assert_eq!(
        page.text("#flames .absent:not([hidden])"),
        "wait: no stacks were taken of time asleep for the disk"
    );
}

fn theme(browser: &Path) {
    let mut opened = open(browser, &SMALL, WIDE);
    let page = &mut opened.page;
    let mut seen = Vec::new();
    for theme in ["light", "dark"] {
        let feature = json!([{"name": "prefers-color-scheme", "value": theme}]);
        page.call("Emulation.setEmulatedMedia", json!({"features": feature}));
        page.settle();
        let body = page.value("getComputedStyle(document.body).backgroundColor");
        let flame = page.value(
            "Array.from(document.querySelector('#flames canvas').getContext('2d').getImageData(60, 35, 1, 1).data)",
        );
        seen.push((body, flame));
    }
    let light = (json!("rgb(255, 255, 255)"), json!([244, 201, 139, 255]));
    let dark = (json!("rgb(20, 23, 27)"), json!([123, 85, 36, 255]));
    assert_eq!(seen, [light, dark]);
}

fn telephone(browser: &Path) {
    for recording in [&saved("hostile"), &saved("witness"), &SMALL] {
        let mut opened = open(browser, recording, TELEPHONE);
        let page = &mut opened.page;
        page.click("#files button.open");
        page.settle();
        let width = page.value("document.documentElement.scrollWidth");
        assert!(width.as_u64().unwrap() <= TELEPHONE[0].into(), "{width}");
        let drawings =
            "Array.from(document.querySelectorAll('svg.flow'), (d) => d.clientWidth > 0)";
        assert_eq!(page.value(drawings), json!([false, true]));
    }
}
