//! Which parts of files were used when.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use anyhow::{Context as _, ensure};

use crate::{
    case::{Case, Need, Scene, Site, State, case},
    check::{Check, on},
    files,
};

/// Bytes of a read or write: a prime number, not near a page's size.
const SIZE_BYTES: u64 = 1_511;
/// More than a part has.
const LARGE_BYTES: u64 = 700_001;
/// A prime size of a file that has parts of 65,536 bytes.
const MAPPED_BYTES: u64 = 4_000_037;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("heat/read-quarter-warm", &[], |site| {
            read(site, State::Warm, SIZE_BYTES, 1)
        }),
        case("heat/read-twice-cold", &[Need::Cold], |site| {
            read(site, State::Cold, SIZE_BYTES, 2)
        }),
        case("heat/read-large-warm", &[], |site| {
            read(site, State::Warm, LARGE_BYTES, 1)
        }),
        case("heat/unused-evicted-cold", &[Need::Cold], unused_evicted),
        case("heat/unused-mapped-cold", &[Need::Cold], unused_mapped),
        case("heat/map-strided-warm", &[], |site| {
            mapped(site, 5 * 4_096, 3 * PART_BYTES)
        }),
        case("heat/map-last-warm", &[], |site| {
            mapped(site, LAST * PART_BYTES + 1, PART_BYTES)
        }),
        case("heat/write", &[], |site| {
            written(site, "write", |site, file, calls| {
                site.workload("write", &[&file, &"write", &SIZE_BYTES.to_string(), &calls])
            })
        }),
        case("heat/append", &[], |site| {
            written(site, "append", |site, file, calls| {
                site.workload("append", &[&file, &SIZE_BYTES.to_string(), &calls])
            })
        }),
        case("heat/aio-warm", &[Need::Aio], |site| {
            requested(site, |site, file, size| {
                site.workload("aio", &[&"pread", &SIZE_BYTES.to_string(), &size, &file])
            })
        }),
        case("heat/uring-warm", &[Need::Uring], |site| {
            requested(site, |site, file, size| {
                site.workload("uring", &[&"read", &file, &SIZE_BYTES.to_string(), &size])
            })
        }),
    ]
}

/// The parts of [`MAPPED_BYTES`].
const PART_BYTES: u64 = 65_536;
/// The last of them.
const LAST: u64 = MAPPED_BYTES / PART_BYTES;

/// How wide a file's parts are: a power of two, at least a page, and no more than 64 of them.
fn width_bytes(size: u64) -> u64 {
    let mut width = files::page_size();
    while size.div_ceil(width) > 64 {
        width *= 2;
    }
    width
}

/// How much of the range from `first` to `end` is in each part that it touches.
fn spread(width: u64, first: u64, end: u64) -> Vec<(u64, u64)> {
    let parts = first / width..=(end - 1) / width;
    parts
        .map(|part| {
            let from = first.max(part * width);
            (part, end.min((part + 1) * width) - from)
        })
        .collect()
}

/// The second quarter only.
fn read(site: &Site, state: State, size_bytes: u64, times: u64) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(state, size)?;
    let (first, bytes) = (size / 4, size / 4);
    let command = site.workload(
        "read-part",
        &[
            &file,
            &first.to_string(),
            &bytes.to_string(),
            &size_bytes.to_string(),
            &times.to_string(),
        ],
    );
    Ok(scene(command, move |check| {
        let width = width_bytes(size);
        let mut returned = spread(width, first, first + bytes);
        for (_, bytes) in &mut returned {
            *bytes *= times;
        }
        cells(check, &file, width, "returned_bytes", &returned)?;
        cells(check, &file, width, "faulted_bytes", &[])?;
        let cached = by_part(check, &file, "cache_filled_bytes")?;
        match state {
            State::Warm => check.that(cached.is_empty(), || format!("filled: {cached:?}")),
            // What is read ahead beyond it is the kernel's choice.
            State::Cold => {
                let page = files::page_size();
                let whole = spread(
                    width,
                    first / page * page,
                    (first + bytes).next_multiple_of(page),
                );
                let inner = &whole[..whole.len() - 1];
                check.that(inner.iter().all(|cell| cached.contains(cell)), || {
                    format!("filled: {cached:?}, must have {inner:?}")
                });
            }
        }
        Ok(())
    }))
}

/// Loads from a few pages, far from each other.
fn mapped(site: &Site, first: u64, stride: u64) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Warm, MAPPED_BYTES)?;
    let command = site.workload(
        "touch-part",
        &[&file, &first.to_string(), &stride.to_string()],
    );
    Ok(Scene::workload(command, move |check, truth| {
        // The kernel makes neighbours accessible too: not each load takes a fault.
        let offsets = &truth.faulted_offsets;
        ensure!(offsets.first() == Some(&first), "the first load took none");
        let parts: Vec<_> = offsets
            .iter()
            .map(|offset| (offset / PART_BYTES, files::page_size()))
            .collect();
        cells(check, &file, PART_BYTES, "faulted_bytes", &parts)?;
        cells(check, &file, PART_BYTES, "returned_bytes", &[])
    })
    .sharing_options(&["--heat-maps"]))
}

/// A page is read, all is evicted, and it is read again: what came in after it is unused, twice.
fn unused_evicted(site: &Site) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Cold, size)?;
    let command = site.workload("read-evicted", &[&file, &SIZE_BYTES.to_string()]);
    Ok(Scene::workload(command, move |check, truth| {
        let page = files::page_size();
        let width = width_bytes(size);
        let mut unused = BTreeMap::new();
        for cached in [truth.cached_bytes, files::cached_bytes(&file)?] {
            ensure!(cached > page, "nothing was read ahead");
            for (part, bytes) in spread(width, page, cached) {
                *unused.entry(part).or_default() += bytes;
            }
        }
        let unused: Vec<_> = unused.into_iter().collect();
        if is_unused_known(check, &file, "read")? {
            cells(check, &file, width, "readahead_unused_bytes", &unused)?;
        }
        Ok(())
    })
    .sharing_options(&UNUSED))
}

/// Bytes far from each other are loaded: what is in memory and was not mapped is unused.
fn unused_mapped(site: &Site) -> anyhow::Result<Scene> {
    /// Readahead around a load does not reach the next.
    const STRIDE_BYTES: u64 = 600_011;
    let file = site.data_in(State::Cold, site.size_bytes())?;
    let command = site.workload("touch-part", &[&file, &"0", &STRIDE_BYTES.to_string()]);
    Ok(Scene::workload(command, move |check, _| {
        if !is_unused_known(check, &file, "mmap")? {
            return Ok(());
        }
        let mapped = check.sum(&on(&file, "mmap"), "mapped_bytes");
        let mapped = mapped.context("mapped bytes are not known")?;
        let unused = files::cached_bytes(&file)? - mapped;
        ensure!(unused > 0, "nothing was read ahead");
        let found = by_part(check, &file, "readahead_unused_bytes")?;
        let found: u64 = found.iter().map(|(_, bytes)| bytes).sum();
        check.that(found == unused, || {
            format!("{found} bytes are unused in the cells, must be {unused}")
        });
        Ok(())
    })
    .sharing_options(&UNUSED))
}

/// Heat maps with what was brought in unused.
const UNUSED: [&str; 2] = ["--heat-maps", "--readahead-use"];

/// Whether a file's heat map, as its rows, tells what was brought in unused. If it does, the sums are the
/// same.
fn is_unused_known(check: &mut Check<'_>, file: &Path, path: &'static str) -> anyhow::Result<bool> {
    let rows = check.sum(&on(file, path), "readahead_unused_bytes");
    let recording = check.recording();
    let map = recording.heat_map(file).context("it has no heat map")?;
    let cells = map.cells.iter().map(|cell| cell.readahead_unused_bytes);
    let cells: Option<u64> = cells.sum();
    check.that(cells == rows, || {
        format!("{cells:?} bytes are unused in the cells, {rows:?} in the rows")
    });
    Ok(rows.is_some())
}

/// A file that grows: it ends with parts of the width that its size in the end has.
fn written(
    site: &Site,
    name: &str,
    command: impl Fn(&Site, &Path, String) -> Vec<OsString>,
) -> anyhow::Result<Scene> {
    const CALLS: u64 = 1_009;
    let file = site.path(name);
    let command = command(site, &file, CALLS.to_string());
    Ok(scene(command, move |check| {
        let size = CALLS * SIZE_BYTES;
        ensure!(file.metadata()?.len() == size);
        let width = width_bytes(size);
        let written = spread(width, 0, size);
        cells(check, &file, width, "returned_bytes", &written)
    }))
}

/// Requests that complete later, of all of a file.
fn requested(
    site: &Site,
    command: impl Fn(&Site, &Path, String) -> Vec<OsString>,
) -> anyhow::Result<Scene> {
    let size = site.size_bytes();
    let file = site.data_in(State::Warm, size)?;
    let command = command(site, &file, size.to_string());
    Ok(scene(command, move |check| {
        let width = width_bytes(size);
        let returned = spread(width, 0, size);
        cells(check, &file, width, "returned_bytes", &returned)
    }))
}

fn scene(
    command: Vec<OsString>,
    check: impl Fn(&mut Check<'_>) -> anyhow::Result<()> + 'static,
) -> Scene {
    Scene::workload(command, move |found, _| check(found)).sharing_options(&["--heat-maps"])
}

/// Requires these sums, part by part, of a file's heat map.
fn cells(
    check: &mut Check<'_>,
    file: &Path,
    width: u64,
    measure: &str,
    expected: &[(u64, u64)],
) -> anyhow::Result<()> {
    let recording = check.recording();
    let map = recording.heat_map(file).context("it has no heat map")?;
    check.that(map.width_bytes == width, || {
        format!("parts are {} bytes, must be {width}", map.width_bytes)
    });
    check.that(map.cells.iter().all(|cell| cell.stretch < 32), || {
        "there are more than 32 stretches".into()
    });
    let found = by_part(check, file, measure)?;
    check.that(found == expected, || {
        format!("{measure} by part: {found:?}, must be {expected:?}")
    });
    Ok(())
}

/// The sums of a file's heat map, for each part that has any.
fn by_part(check: &Check<'_>, file: &Path, measure: &str) -> anyhow::Result<Vec<(u64, u64)>> {
    let recording = check.recording();
    let map = recording.heat_map(file).context("it has no heat map")?;
    let mut sums = BTreeMap::new();
    for cell in &map.cells {
        let bytes = match measure {
            "returned_bytes" => cell.returned_bytes,
            "faulted_bytes" => cell.faulted_bytes,
            "readahead_unused_bytes" => cell.readahead_unused_bytes.unwrap_or(0),
            _ => cell.cache_filled_bytes,
        };
        if bytes != 0 {
            *sums.entry(cell.part).or_default() += bytes;
        }
    }
    Ok(sums.into_iter().collect())
}
