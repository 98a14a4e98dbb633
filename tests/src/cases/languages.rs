//! Call sites of programs in several languages, built and run with what there is on the machine.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};

use super::stacks::{CALLS, PerfMaps, shares, sites_data};
use crate::{
    case::{Case, Need, Part, Scene, Site, Stdout, case, find_program, rehearse, words},
    check::{Check, on},
    recording::Stack,
};

/// A program that reads from three places.
#[derive(Clone, Copy)]
struct Program {
    /// As in the case's name.
    name: &'static str,
    /// Its source, and what that ends in.
    source: (&'static str, &'static str),
    /// Compiles it, with the source and the program as the last words; or runs it.
    tool: &'static str,
    options: &'static [&'static str],
    /// What the names of the places have in them; none, if they have no names.
    sites: Option<[&'static str; 3]>,
}

const C: (&str, &str) = (include_str!("sites/sites.c"), "c");
const CC: (&str, &str) = (include_str!("sites/sites.cc"), "cc");
const GO: (&str, &str) = (include_str!("sites/sites.go"), "go");

const IN_C: Option<[&str; 3]> = Some(["site_small", "site_large", "site_middle"]);
const IN_GO: Option<[&str; 3]> = Some([
    "main.siteSmall",
    "main.(*reader).siteLarge",
    "main.siteMiddle",
]);

const fn c(name: &'static str, options: &'static [&'static str]) -> Program {
    Program {
        name,
        source: C,
        tool: "cc",
        options,
        sites: IN_C,
    }
}

const fn go(name: &'static str, options: &'static [&'static str]) -> Program {
    Program {
        name,
        source: GO,
        tool: "go",
        options,
        sites: IN_GO,
    }
}

const COMPILED: &[Program] = &[
    c("c", &["-O2"]),
    c(
        "c-no-frame-pointers",
        &[
            "-O2",
            "-fomit-frame-pointer",
            "-fno-asynchronous-unwind-tables",
        ],
    ),
    c("c-frame-pointers", &["-O2", "-fno-omit-frame-pointer"]),
    c("c-static", &["-O2", "-static"]),
    c("c-static-pie", &["-O2", "-static-pie"]),
    // Several segments of code, of which the kernel's programs are told the first.
    c(
        "c-segments",
        &[
            "-O2",
            "-no-pie",
            "-DPLACED=__attribute__((section(\"elsewhere\")))",
            "-Wl,--section-start=elsewhere=0x10000000",
        ],
    ),
    c("c-signal", &["-O2", "-DSIGNAL"]),
    Program {
        sites: None,
        ..c("c-stripped", &["-O2", "-s"])
    },
    Program {
        name: "c++",
        source: CC,
        tool: "c++",
        options: &["-O2", "-g"],
        sites: Some([
            "shop::Reader::small(",
            "shop::Sized<4001>::large(",
            "shop::middle",
        ]),
    },
    go("go", &["build"]),
    go("go-stripped", &["build", "-ldflags=-s -w"]),
    go("go-pie", &["build", "-buildmode=pie", "-ldflags=-s -w"]),
];

/// Names are found by user space, the same under each kernel; the registers that callers are found by
/// are not.
fn pace_of(program: &Program) -> Need {
    if ["c", "c-no-frame-pointers"].contains(&program.name) {
        Need::Part(Part::Slow)
    } else {
        Need::Fast
    }
}

pub(super) fn cases() -> Vec<Case> {
    let compiled = COMPILED.iter().map(|program| {
        case(
            format!("stacks/{}", program.name),
            &[
                Need::FirstBackend,
                pace_of(program),
                Need::Program(program.tool),
            ],
            |site| compiled(site, program),
        )
    });
    let mut cases: Vec<Case> = compiled.collect();
    let installed = [Need::FirstBackend, Need::Fast, Need::Program("node")];
    cases.push(case("stacks/node", &installed, node));
    let usable = [Need::FirstBackend, Need::Fast, Need::PythonPerf];
    cases.push(case("stacks/python", &usable, python));
    cases
}

/// What a program that is to be traced reads, tried without: the bytes of each place.
fn site_bytes(prints: &[u8]) -> anyhow::Result<[u64; 3]> {
    let text = str::from_utf8(prints)?;
    let sums: Vec<u64> = text
        .split_ascii_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let sums: Result<[u64; 3], _> = sums.try_into();
    sums.map_err(|sums| anyhow!("three sums are missing: {sums:?}"))
}

fn source(site: &Site, (text, suffix): (&str, &str)) -> anyhow::Result<PathBuf> {
    let path = site.path(format!("sites.{suffix}"));
    fs::write(&path, text)?;
    Ok(path)
}

fn compiled(site: &Site, program: &Program) -> anyhow::Result<Scene> {
    let file = sites_data(site)?;
    let source = source(site, program.source)?;
    let binary = site.path("program");
    let tool = find_program(program.tool).context("the compiler is gone")?;
    // Go keeps what it has compiled in the user's home, which there need not be.
    let cache = OsString::from_iter(["GOCACHE=".as_ref(), site.path("cache").as_os_str()]);
    let mut compile = words(&[&"env", &cache, &tool]);
    compile.extend(program.options.iter().map(OsString::from));
    compile.extend(words(&[&"-o", &binary, &source]));
    rehearse(&compile)?;
    let command = words(&[&binary, &file, &CALLS.to_string()]);
    let prints = rehearse(&command)?;
    let site_bytes = site_bytes(&prints)?;
    let (sites, hides) = (program.sites, hides_callers(program));
    Ok(Scene::new(command, move |check, _| {
        reads(check, &file, site_bytes);
        hidden(check, hides)?;
        if let (Some(names), false) = (&sites, hides) {
            called_by_main(check, names, site_bytes);
        }
        match &sites {
            Some(names) => shares(check, names, site_bytes),
            None => nameless_shares(check, site_bytes),
        }
    })
    .printing(Stdout::Exactly(prints))
    .with_options(&["--stacks"]))
}

/// Whether the program's functions hide their callers: they have neither unwinding information nor
/// frame pointers.
fn hides_callers(program: &Program) -> bool {
    program.name == "c-no-frame-pointers"
}

/// The recording says that the program's functions hide their callers, or does not.
fn hidden(check: &mut Check<'_>, hides: bool) -> anyhow::Result<()> {
    let recording = check.recording();
    let sampling = recording.stack_sampling();
    let notes = &sampling
        .context("nothing says how stacks were taken")?
        .notes;
    let of_callers = |note: &&String| note.contains("they hide their callers");
    let said = notes.iter().find(of_callers).map_or("", String::as_str);
    let named = said.split([' ', ',', ':']).any(|word| word == "program");
    check.that(named == hides, || {
        format!("callers that the program hides: {hides}, but the notes are {notes:?}")
    });
    Ok(())
}

/// Each place was called by the program's main function, and that by what starts programs: all callers
/// are there, not only the innermost.
fn called_by_main(check: &mut Check<'_>, names: &[&str; 3], site_bytes: [u64; 3]) {
    let all_bytes: u64 = site_bytes.iter().sum();
    let recording = check.recording();
    let of_reads = |stack: &&Stack| stack.path == "read" && stack.measure == "bytes_returned";
    let is_site = |frame: &String| names.iter().any(|name| frame.contains(name));
    let whole = |stack: &&Stack| {
        let site = stack.frames.iter().position(is_site);
        // The outermost is the path's, then there is `_start`, or what Go has.
        let main = |frame: &String| frame == "main" || frame == "main.main";
        site.is_some_and(|site| stack.frames[..site].iter().skip(1).any(main))
    };
    let stacks = recording.stacks.iter().filter(of_reads).filter(whole);
    let found: u64 = stacks.map(|stack| stack.value).sum();
    check.that(all_bytes.abs_diff(found) * 50 <= all_bytes, || {
        format!("of {all_bytes} bytes, {found} were read under main, must be all but 2 %")
    });
}

fn reads(check: &mut Check<'_>, file: &Path, site_bytes: [u64; 3]) {
    let all_bytes: u64 = site_bytes.iter().sum();
    check.equal(&on(file, "read"), "bytes_returned", all_bytes);
}

/// Functions without names are told apart by where they begin.
fn nameless_shares(check: &mut Check<'_>, site_bytes: [u64; 3]) -> anyhow::Result<()> {
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    let recording = check.recording();
    let of_reads = |stack: &&Stack| stack.path == "read" && stack.measure == "bytes_returned";
    for stack in recording.stacks.iter().filter(of_reads) {
        let nameless = |frame: &&String| frame.starts_with("[program+0x");
        if let Some(innermost) = stack.frames.iter().rfind(nameless) {
            *found.entry(innermost).or_default() += stack.value;
        }
    }
    let mut names: Vec<(u64, &str)> = found.iter().map(|(name, sum)| (*sum, *name)).collect();
    names.sort_unstable();
    // Each by its place in the order of the sums.
    let mut order = [0, 1, 2];
    order.sort_unstable_by_key(|site| site_bytes[*site]);
    let mut by_site = [""; 3];
    for (site, (_, name)) in order.into_iter().zip(names) {
        by_site[site] = name;
    }
    check.that(by_site.iter().all(|name| !name.is_empty()), || {
        format!("functions without names that read: {found:?}, must be three")
    });
    shares(check, &by_site, site_bytes)
}

/// A script of a language that makes code at run time, and tells names with these options.
fn interpreted(
    site: &Site,
    (program, script): (&str, (&str, &str)),
    options: &[&str],
    names: [&'static str; 3],
) -> anyhow::Result<Scene> {
    let file = sites_data(site)?;
    let program = find_program(program).context("the program is gone")?;
    let script = source(site, script)?;
    let calls = CALLS.to_string();
    let arguments = words(&[&script, &file, &calls]);
    let prints = rehearse(&[words(&[&program]), arguments.clone()].concat())?;
    let site_bytes = site_bytes(&prints)?;
    let mut command = words(&[&program]);
    command.extend(options.iter().map(OsString::from));
    command.extend(arguments);
    Ok(Scene::new(command, move |check, _| {
        let _removed = PerfMaps::of(check);
        reads(check, &file, site_bytes);
        shares(check, &names, site_bytes)
    })
    .printing(Stdout::Exactly(prints))
    .with_options(&["--stacks"]))
}

fn node(site: &Site) -> anyhow::Result<Scene> {
    let script = (include_str!("sites/sites.js"), "js");
    let options = [
        "--perf-basic-prof",
        "--interpreted-frames-native-stack",
        "--no-turbo-inlining",
        // Its log goes to a file that is deleted, and not to the directory it is in.
        "--no-logfile-per-isolate",
        "--logfile=+",
    ];
    let names = ["siteSmall", "siteLarge", "siteMiddle"];
    interpreted(site, ("node", script), &options, names)
}

fn python(site: &Site) -> anyhow::Result<Scene> {
    let script = (include_str!("sites/sites.py"), "py");
    let names = ["py::site_small", "py::site_large", "py::site_middle"];
    interpreted(site, ("python3", script), &["-X", "perf"], names)
}
