//! Stacks: from the kernel side's numbers to names, and to parts of the rows' sums.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap as BpfHashMap},
};
use mmtrace_common::{
    Path,
    stack::{ALL_KNOWN, Frames, StackKey, StackWork},
};

use super::{
    code::{Code, Image},
    names::Names,
};
use crate::{
    kernel::stack::Symbols,
    page_cache::page_bytes,
    recording::{KERNEL_FRAME, Measure, NO_STACK, Recording, Stack, StackSampling, share_out},
};

/// The only frame of work of which a stack was taken that could not be kept, or that had no frames.
const NO_FRAMES: &str = "[unknown]";

/// How callers are found.
const UNWINDING: &str = if cfg!(target_arch = "x86_64") {
    "unwinding information and frame pointers"
} else {
    "frame pointers"
};

/// Adds to a recording where its work was caused. `numbers` are those of its processes, by the
/// kernel side's; `unused_pages` are those that were read ahead and nobody used by the end.
///
/// # Errors
///
/// If a map cannot be read.
pub(super) fn add(
    ebpf: &Ebpf,
    code: &mut Code,
    symbols: &Result<Symbols, String>,
    numbers: &HashMap<u64, u32>,
    unused_pages: &BTreeMap<StackKey, u64>,
    recording: &mut Recording,
) -> Result<()> {
    let map = |name| {
        let map = ebpf.map(name);
        map.with_context(|| format!("the kernel programs have no map {name}"))
    };
    let frames: BpfHashMap<_, u64, Frames> = BpfHashMap::try_from(map("FRAMES")?)?;
    let frames: HashMap<u64, Frames> = frames.iter().collect::<Result<_, _>>()?;
    let stacks: BpfHashMap<_, StackKey, StackWork> = BpfHashMap::try_from(map("STACKS")?)?;
    let mut stacks: BTreeMap<StackKey, StackWork> = stacks.iter().collect::<Result<_, _>>()?;
    for (key, pages) in unused_pages {
        stacks.entry(*key).or_default().readahead_unused_bytes += pages * page_bytes();
    }
    let taken: Array<_, u64> = Array::try_from(map("STACKS_TAKEN")?)?;

    let mut names = Names::default();
    let mut notes = Vec::new();
    if let Err(why) = symbols {
        notes.push(format!("the kernel's functions have no names: {why}"));
    }
    let mut hiding_files = BTreeSet::new();
    let mut known_in_part = BTreeSet::new();
    // Each process's, since the same address is another function there.
    let traces: BTreeMap<StackKey, Trace> = stacks
        .keys()
        .map(|key| {
            let mut addresses = Vec::new();
            if let Some(frames) = frames.get(&key.user) {
                let (known, whole) = of_program(frames, key.user, code);
                if whole {
                    hiding_files.extend(hiding(&known, Image::of(key), code));
                } else {
                    known_in_part.insert(key.user);
                }
                addresses = known;
                names.want(Image::of(key), &addresses, code);
            }
            let kernel = frames.get(&key.kernel).map_or(&[][..], |frames| {
                &frames.addresses[..(frames.count as usize).min(frames.addresses.len())]
            });
            let trace = Trace {
                program: addresses,
                kernel: of_kernel(kernel, symbols),
            };
            (*key, trace)
        })
        .collect();
    names.resolve(code);
    notes.extend(names.notes());
    if !hiding_files.is_empty() {
        let files: Vec<_> = hiding_files.into_iter().collect();
        notes.push(format!(
            "no unwinding information for functions in {}: without frame pointers, they hide their callers",
            files.join(", ")
        ));
    }
    if !known_in_part.is_empty() {
        notes.push(format!(
            "stacks that lack callers, since not all that was on the stack could be told when it was new: {}",
            known_in_part.len()
        ));
    }
    if code.rules_left_out() > 0 {
        notes.push(format!(
            "places in the code that there was no room for, left by the frame pointer: {}",
            code.rules_left_out()
        ));
    }

    let mut weights = Weights::new();
    for (key, work) in &stacks {
        let Some(process) = numbers.get(&key.process) else {
            continue;
        };
        let path = Path::from_number(key.path).unwrap_or(Path::Other);
        for (measure, value) in parts(work) {
            if value != 0 {
                let weights = weights.entry((*process, path, measure)).or_default();
                weights.push((*key, value));
            }
        }
    }
    recording.stacks = shared_out(recording, &weights, |key| {
        traces
            .get(key)
            .map(|trace| trace.frames(Image::of(key), &names))
            .unwrap_or_default()
    });
    recording.stack_sampling = Some(StackSampling {
        unwinding: UNWINDING.to_owned(),
        moments: moments(recording),
        taken: taken.get(&0, 0)?,
        notes,
    });
    Ok(())
}

/// The measures that have stacks.
const WITH_STACKS: [Measure; 10] = [
    Measure::BytesReturned,
    Measure::CopiedToUserBytes,
    Measure::CopiedFromUserBytes,
    Measure::CopiedInKernelBytes,
    Measure::MinorFaults,
    Measure::MajorFaults,
    Measure::ReadaheadBytes,
    Measure::ReadaheadUnusedBytes,
    Measure::DiskReadBytes,
    Measure::DiskWaitNs,
];

fn parts(work: &StackWork) -> [(Measure, u64); WITH_STACKS.len()] {
    [
        (Measure::BytesReturned, work.bytes_returned),
        (Measure::CopiedToUserBytes, work.copied_to_user_bytes),
        (Measure::CopiedFromUserBytes, work.copied_from_user_bytes),
        (Measure::CopiedInKernelBytes, work.copied_in_kernel_bytes),
        (Measure::MinorFaults, work.minor_faults),
        (Measure::MajorFaults, work.major_faults),
        (Measure::ReadaheadBytes, work.readahead_bytes),
        (Measure::ReadaheadUnusedBytes, work.readahead_unused_bytes),
        (Measure::DiskReadBytes, work.disk_read_bytes),
        (Measure::DiskWaitNs, work.disk_wait_ns),
    ]
}

/// What could have a stack: calls, faults and block requests.
fn moments(recording: &Recording) -> u64 {
    let total = recording.totals.all_paths();
    [
        Measure::Operations,
        Measure::MinorFaults,
        Measure::MajorFaults,
        Measure::DiskReads,
    ]
    .iter()
    .filter_map(|measure| total.get(*measure))
    .sum()
}

/// Frames, the outermost first, and where in the source each is.
type Named = (Vec<Arc<str>>, Vec<Option<Arc<str>>>);

/// How much of each process's work of one measure on one path each stack was seen with.
type Weights = BTreeMap<(u32, Path, Measure), Vec<(StackKey, u64)>>;

/// Shares each sum of the rows out among the stacks that were seen of it. Stacks with the same
/// frames become one.
fn shared_out(
    recording: &Recording,
    weights: &Weights,
    frames: impl Fn(&StackKey) -> Named,
) -> Vec<Stack> {
    let mut sums: BTreeMap<(Option<u32>, Path, Measure), u64> = BTreeMap::new();
    for row in &recording.rows {
        for measure in WITH_STACKS {
            if let Some(value) = row.measures.get(measure).filter(|value| *value != 0) {
                *sums.entry((row.process, row.path, measure)).or_default() += value;
            }
        }
    }
    let mut stacks = Vec::new();
    for ((process, path, measure), sum) in sums {
        let mut by_frames: BTreeMap<Named, u64> = BTreeMap::new();
        let seen = process.and_then(|process| weights.get(&(process, path, measure)));
        for (key, weight) in seen.into_iter().flatten() {
            let weight_so_far = by_frames.entry(frames(key)).or_default();
            *weight_so_far = weight_so_far.saturating_add(*weight);
        }
        let values: Vec<u64> = by_frames.values().copied().collect();
        let shares = share_out(sum, &values).unwrap_or_else(|| {
            by_frames = BTreeMap::from([((vec![Arc::from(NO_STACK)], Vec::new()), sum)]);
            vec![sum]
        });
        for ((frames, sources), value) in by_frames.into_keys().zip(shares) {
            let known = sources.iter().any(Option::is_some);
            stacks.push(Stack {
                process,
                path,
                measure,
                value,
                frames,
                sources: if known { sources } else { Vec::new() },
            });
        }
    }
    stacks.retain(|stack| stack.value != 0);
    stacks
}

/// A stack before its addresses have names.
struct Trace {
    /// The program's addresses, the innermost first.
    program: Vec<u64>,
    /// The kernel's functions, the outermost first.
    kernel: Vec<Arc<str>>,
}

impl Trace {
    fn frames(&self, image: Image, names: &Names) -> Named {
        let (mut frames, mut sources) = (Vec::new(), Vec::new());
        let known = |(index, address): &(usize, &u64)| names.knows(image, **address, *index > 0);
        // Without what is no code, to which the chain leads where a function uses the register for
        // something else; that is not known either of code made at run time without names, which is in
        // between at most. The innermost is code.
        let program = self.program.iter().enumerate().rev();
        let program = program.skip_while(|frame| frame.0 > 0 && !known(frame));
        for (index, address) in program {
            names.add(image, *address, index > 0, &mut frames, &mut sources);
        }
        sources.extend(self.kernel.iter().map(|_| None));
        frames.extend(self.kernel.iter().cloned());
        if frames.is_empty() {
            return (vec![Arc::from(NO_FRAMES)], vec![None]);
        }
        (frames, sources)
    }
}

/// The addresses of a program's stack, the innermost first: where rules were missing when it was taken,
/// with the callers that were found since. Also whether these are all.
fn of_program(frames: &Frames, number: u64, code: &Code) -> (Vec<u64>, bool) {
    let count = (frames.count as usize).min(frames.addresses.len());
    let mut addresses = frames.addresses[..count].to_vec();
    if frames.unknown == ALL_KNOWN {
        return (addresses, true);
    }
    let Some(callers) = code.unwound(number) else {
        return (addresses, false);
    };
    addresses.truncate(frames.unknown as usize + 1);
    addresses.extend_from_slice(&callers.addresses);
    (addresses, callers.whole)
}

/// The names of the files with functions in a stack that may hide their callers.
fn hiding(addresses: &[u64], image: Image, code: &mut Code) -> Vec<String> {
    let mut names = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let place = code.find(image, address.saturating_sub(u64::from(index > 0)));
        names.extend(place.and_then(|place| code.hiding(place)));
    }
    names
}

/// Names of the kernel's functions, the outermost first, without what takes the stack itself.
fn of_kernel(addresses: &[u64], symbols: &Result<Symbols, String>) -> Vec<Arc<str>> {
    let Ok(symbols) = symbols else {
        return Vec::new();
    };
    let mut names: Vec<&str> = addresses
        .iter()
        .enumerate()
        // A return address may be the first one after its function.
        .map(|(index, address)| symbols.find(address - u64::from(index > 0)))
        .map(|found| found.map_or("", |(function, _)| function))
        .collect();
    let hook = |name: &&str| {
        // With and without underscores before them.
        let bare = name.trim_start_matches('_');
        ["bpf_", "traceiter_", "perf_"]
            .iter()
            .any(|start| bare.starts_with(start))
            || name.contains("kprobe")
            || name.is_empty()
    };
    let own = names.iter().take_while(|name| hook(name)).count();
    names.drain(..own);
    names
        .iter()
        .rev()
        .filter(|name| !name.is_empty())
        .map(|name| Arc::from(format!("{name}{KERNEL_FRAME}")))
        .collect()
}
