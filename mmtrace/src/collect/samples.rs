//! Samples of the kernel, from the kernel side's map to the recording.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap},
};
use mmtrace_common::{Path, SampleKey};

use crate::{
    kernel::stack::{Symbols, copy_routine},
    probe::sample,
    recording::{Hook, KernelSamples, Recording, SampledPath, Unavailable},
};

/// What the samples are for, as recordings name it.
const PURPOSE: &str = "kernel_samples";

/// Adds the samples that were taken to a recording, and the event to its hooks.
///
/// # Errors
///
/// If a map cannot be read.
pub(super) fn add(
    ebpf: &Ebpf,
    hz: u32,
    symbols: &Result<Symbols, String>,
    recording: &mut Recording,
) -> Result<()> {
    let map = |name| {
        let map = ebpf.map(name);
        map.with_context(|| format!("the kernel programs have no map {name}"))
    };
    let samples: HashMap<_, SampleKey, u64> = HashMap::try_from(map("SAMPLES")?)?;
    let samples: Vec<(SampleKey, u64)> = samples.iter().collect::<Result<_, _>>()?;
    let taken: Array<_, u64> = Array::try_from(map("SAMPLED")?)?;
    recording.kernel_samples = Some(summed(&samples, hz, symbols));
    recording.probes.hooks.push(Hook {
        name: sample::EVENT.to_owned(),
        kind: "software_event".to_owned(),
        purpose: PURPOSE.to_owned(),
        program: sample::PROGRAM.to_owned(),
        hits: Some(taken.get(&0, 0)?),
    });
    Ok(())
}

fn summed(
    samples: &[(SampleKey, u64)],
    hz: u32,
    symbols: &Result<Symbols, String>,
) -> KernelSamples {
    let mut user = 0;
    let mut paths: BTreeMap<Path, SampledPath> = BTreeMap::new();
    for (key, count) in samples {
        if key.user != 0 {
            user += count;
            continue;
        }
        let path = Path::from_number(key.path).unwrap_or(Path::Other);
        let row = paths.entry(path).or_insert_with(|| SampledPath {
            path,
            samples: 0,
            in_copy_routines: symbols.is_ok().then_some(0),
            copy_routines: BTreeMap::new(),
        });
        row.samples += count;
        if let (Ok(symbols), Some(copying)) = (symbols, &mut row.in_copy_routines)
            && let Some(routine) = routine(key, symbols)
        {
            *copying += count;
            *row.copy_routines.entry(routine.to_owned()).or_default() += count;
        }
    }
    KernelSamples {
        hz,
        user,
        rows: paths.into_values().collect(),
        note: symbols.as_ref().err().cloned(),
    }
}

/// The copy routine that was interrupted, itself or in what it called.
fn routine<'a>(key: &SampleKey, symbols: &'a Symbols) -> Option<&'a str> {
    let frames = key.frames.iter().take_while(|address| **address != 0);
    let functions = frames.enumerate().map(|(index, address)| {
        // A return address may be the first one after its function.
        let address = address - u64::from(index > 0);
        symbols.find(address).map_or("", |(function, _)| function)
    });
    copy_routine(functions)
}

/// Tells why there are none.
pub(super) fn refused(reason: &str, recording: &mut Recording) {
    recording.probes.unavailable.push(Unavailable {
        purpose: PURPOSE.to_owned(),
        reason: reason.to_owned(),
        measures: Vec::new(),
        paths: Vec::new(),
    });
}

#[cfg(test)]
mod tests {
    use mmtrace_common::SAMPLE_FRAMES;

    use super::*;

    const TEXT: &str = "\
ffffffff81000100 T rep_movs_alternative
ffffffff81000200 T _copy_to_iter
ffffffff81000300 T vfs_read
ffffffff81000400 t asm_exc_page_fault
ffffffff81000500 T filemap_fault
";

    fn sample(path: Path, user: u32, stack: &[u64]) -> SampleKey {
        let mut frames = [0; SAMPLE_FRAMES];
        for (frame, offset) in frames.iter_mut().zip(stack) {
            *frame = 0xffff_ffff_8100_0000 + offset;
        }
        SampleKey {
            path: path as u32,
            user,
            frames,
        }
    }

    #[test]
    fn samples_add_up_path_by_path() {
        let symbols = Ok(Symbols::parse(TEXT.to_owned()));
        let samples = [
            (sample(Path::Read, 0, &[0x100, 0x210, 0x310]), 7),
            // It returns to the end of _copy_to_iter.
            (sample(Path::Read, 0, &[0x520, 0x300]), 5),
            (sample(Path::Read, 0, &[0x310]), 3),
            (sample(Path::Mmap, 0, &[0x510, 0x410, 0x210]), 2),
            (sample(Path::Other, 1, &[]), 11),
        ];
        let summed = summed(&samples, 97, &symbols);
        assert_eq!((summed.hz, summed.user), (97, 11));
        let [read, mmap] = &summed.rows[..] else {
            panic!("{:?}", summed.rows);
        };
        assert_eq!((read.samples, read.in_copy_routines), (15, Some(12)));
        let routines: Vec<_> = read
            .copy_routines
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        assert_eq!(
            routines,
            [("_copy_to_iter", 5), ("rep_movs_alternative", 7)]
        );
        assert_eq!((mmap.samples, mmap.in_copy_routines), (2, Some(0)));
    }

    #[test]
    fn without_names_it_is_not_known_what_copies() {
        let samples = [(sample(Path::Read, 0, &[0x100]), 7)];
        let summed = summed(&samples, 97, &Err("hidden".to_owned()));
        assert_eq!(summed.rows[0].in_copy_routines, None);
        assert_eq!(summed.note.as_deref(), Some("hidden"));
    }
}
