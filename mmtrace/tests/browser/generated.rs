//! Recordings made for tests of the page: with stacks, a timeline and heat maps that fit their rows.

use std::sync::Arc;

use mmtrace::recording::{
    Copies, Device, File, HeatCell, HeatMap, Measure, Measured, Measures, Path, PathName, Process,
    Recording, Row, Stack, StackSampling, Timeline, Totals,
};

/// How much there is to be in a recording.
pub(crate) struct Size {
    pub(crate) files: u32,
    pub(crate) processes: u32,
    /// For each measure with stacks.
    pub(crate) stacks: u32,
}

/// Numbers that look like chance, and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

const PATHS: [Path; 5] = [
    Path::Read,
    Path::Mmap,
    Path::Exec,
    Path::Metadata,
    Path::Other,
];
const PAGE: u64 = 4_096;

/// `base` with other processes, files and rows, and all that pictures are made of.
pub(crate) fn recording(base: Recording, size: &Size) -> Recording {
    let mut numbers = Numbers(1);
    let mut recording = base;
    recording.processes = (0..size.processes)
        .map(|id| process(id, &mut numbers))
        .collect();
    recording.target.processes = size.processes.into();
    recording.files = (0..size.files).map(|id| file(id, &mut numbers)).collect();
    recording.rows = rows(size, &mut numbers);
    recording.probes.copies = Copies::Exact;
    recording
        .probes
        .unavailable
        .retain(|entry| entry.purpose == "disk writes");
    let mut measured = Measured::default();
    for (path, totals) in recording.totals.iter() {
        let known = Measure::ALL
            .into_iter()
            .filter(|&m| totals.get(m).is_some());
        let known: Vec<_> = known
            .chain([
                Measure::CopiedToUserBytes,
                Measure::CopiedFromUserBytes,
                Measure::CopiedInKernelBytes,
                Measure::ReadaheadUnusedBytes,
            ])
            .collect();
        let known = match path {
            Path::Direct | Path::Splice | Path::Ipc | Path::Swap | Path::Writeback => Vec::new(),
            _ => known,
        };
        measured.set(path, mmtrace::recording::MeasureSet::of(&known));
    }
    for row in &mut recording.rows {
        for measure in Measure::ALL {
            if !measured.on(row.path).contains(measure) {
                row.measures.set(measure, None);
            }
        }
    }
    recording.totals = Totals::of(&recording.rows, &measured);
    recording.target.wall_time_ns = 391 << 20;
    recording.timeline = Some(timeline(&recording, &mut numbers));
    recording.heat_maps = recording
        .files
        .iter()
        .take(200)
        .map(|f| heat_map(f, &mut numbers))
        .collect();
    recording.stacks = stacks(&recording, size.stacks, &mut numbers);
    recording.stack_sampling = Some(StackSampling {
        unwinding: "frame pointers".into(),
        moments: 12_345,
        taken: 12_000,
        notes: vec!["Stacks end where a library has no frame pointers.".into()],
    });
    recording.check().unwrap();
    recording
}

fn process(id: u32, numbers: &mut Numbers) -> Process {
    let words = [
        ["make", "-j8"],
        ["cc1", "-O2"],
        ["ld", "--gc-sections"],
        ["sh", "-c"],
    ];
    let start_ns = u64::from(id) * 3_000_000;
    Process {
        id,
        pid: 4_000 + id,
        parent: (id > 0).then(|| numbers.below(id.into()) as u32),
        command: words[id as usize % 4]
            .map(Into::into)
            .into_iter()
            .chain([format!("unit-{id}.c").into()])
            .collect(),
        start_ns,
        end_ns: (id % 7 != 6).then(|| start_ns + 20_000_000 + numbers.below(200_000_000)),
    }
}

fn file(id: u32, numbers: &mut Numbers) -> File {
    let kinds = ["src", "include/linux", "build/objects", "share/data"];
    let ends = ["c", "h", "o", "bin"];
    let kind = id as usize % 4;
    File {
        id,
        name: Some(
            format!(
                "/srv/project/{}/module-{}/part-{id:05}.{}",
                kinds[kind],
                id % 97,
                ends[kind]
            )
            .into(),
        ),
        device: Device {
            major: 254,
            minor: 0,
        },
        inode: 100_000 + u64::from(id),
        size: Some((1 + numbers.below(4_000)) * PAGE),
        filesystem: Some("ext4".into()),
    }
}

fn rows(size: &Size, numbers: &mut Numbers) -> Vec<Row> {
    let mut rows = Vec::new();
    for file in 0..size.files {
        let mut row = |path, numbers: &mut Numbers| {
            let pages = 1 + numbers.below(400) * numbers.below(100) / 20;
            let reads = path == Path::Read;
            let faults = matches!(path, Path::Mmap | Path::Exec);
            let cold = numbers.below(3) > 0;
            let some = |wanted: bool, value: u64| Some(if wanted { value } else { 0 });
            rows.push(Row {
                process: Some(numbers.below(size.processes.into()) as u32),
                file: Some(file),
                path,
                measures: Measures {
                    operations: some(reads, pages / 4 + 1),
                    bytes_requested: some(reads, pages * PAGE),
                    bytes_returned: some(reads, pages * PAGE - 7),
                    copied_to_user_bytes: some(reads, pages * PAGE - 7),
                    copied_from_user_bytes: Some(0),
                    copied_in_kernel_bytes: some(faults, pages / 9 * PAGE),
                    minor_faults: some(faults, pages / 16),
                    major_faults: some(faults && cold, pages / 40),
                    mapped_bytes: some(faults, pages * PAGE),
                    disk_reads: some(cold, pages / 32 + 1),
                    disk_read_bytes: some(cold, (pages + 8) * PAGE),
                    disk_writes: None,
                    disk_write_bytes: None,
                    cache_filled_bytes: some(cold, (pages + 8) * PAGE),
                    readahead_bytes: some(cold, pages * PAGE / 2),
                    readahead_unused_bytes: some(cold, numbers.below(pages) * PAGE / 2),
                    kernel_time_ns: Some(pages * 900),
                    disk_wait_ns: some(cold, pages * 14_000),
                },
            });
        };
        row(PATHS[file as usize % 3], numbers);
        if file % 5 == 0 {
            row(PATHS[(file as usize + 1) % 3], numbers);
        }
    }
    for path in [Path::Metadata, Path::Other] {
        rows.push(Row {
            process: Some(0),
            file: None,
            path,
            measures: Measures {
                minor_faults: Some(if path == Path::Other { 4_180 } else { 0 }),
                disk_read_bytes: Some(if path == Path::Other { 0 } else { 180 * PAGE }),
                ..Measures::zero(mmtrace::recording::MeasureSet::of(&Measure::ALL))
            },
        });
    }
    rows
}

fn timeline(recording: &Recording, numbers: &mut Numbers) -> Timeline {
    const STRETCHES: usize = 391;
    let mut timeline = Timeline {
        width_ns: 1 << 20,
        stretches: STRETCHES,
        paths: Default::default(),
    };
    for (path, totals) in recording
        .totals
        .iter()
        .filter(|(_, totals)| !totals.is_empty())
    {
        let from = numbers.below(STRETCHES as u64 / 2) as usize;
        let long = STRETCHES / 3 + numbers.below(STRETCHES as u64 / 3) as usize;
        let measures = timeline.paths.entry(PathName(path)).or_default();
        let weights: Vec<u64> = (0..STRETCHES)
            .map(|i| {
                if (from..from + long).contains(&i) {
                    1 + numbers.below(100)
                } else {
                    0
                }
            })
            .collect();
        let sum: u64 = weights.iter().sum();
        for measure in Measure::ALL {
            let Some(total) = totals.get(measure) else {
                continue;
            };
            let mut values: Vec<u64> = weights
                .iter()
                .map(|&weight| (u128::from(total) * u128::from(weight) / u128::from(sum)) as u64)
                .collect();
            values[from] += total - values.iter().sum::<u64>();
            measures.insert(measure, values);
        }
    }
    timeline
}

fn heat_map(file: &File, numbers: &mut Numbers) -> HeatMap {
    let parts = file.size.unwrap_or(PAGE).div_ceil(1 << 16);
    let mut cells = Vec::new();
    for stretch in 0..64 {
        let part = stretch * parts / 64;
        let filled = if stretch % 2 == 0 { 1 << 16 } else { 0 };
        cells.push(HeatCell {
            part,
            stretch,
            returned_bytes: numbers.below(1 << 16),
            faulted_bytes: if stretch % 5 == 0 {
                numbers.below(1 << 14)
            } else {
                0
            },
            cache_filled_bytes: filled,
            readahead_unused_bytes: Some(filled / 8 * (stretch % 7)),
        });
        cells.push(HeatCell {
            part: numbers.below(parts),
            stretch,
            returned_bytes: numbers.below(1 << 12),
            readahead_unused_bytes: Some(0),
            ..HeatCell::default()
        });
    }
    HeatMap {
        file: file.id,
        width_bytes: 1 << 16,
        width_ns: 1 << 23,
        cells,
    }
}

/// Stacks that add up to the rows.
fn stacks(recording: &Recording, size: u32, numbers: &mut Numbers) -> Vec<Stack> {
    let mut sums = std::collections::BTreeMap::new();
    for row in &recording.rows {
        for measure in [
            Measure::BytesReturned,
            Measure::CopiedToUserBytes,
            Measure::CopiedInKernelBytes,
            Measure::DiskReadBytes,
            Measure::MinorFaults,
            Measure::MajorFaults,
            Measure::DiskWaitNs,
            Measure::ReadaheadUnusedBytes,
        ] {
            if let Some(value @ 1..) = row.measures.get(measure) {
                *sums.entry((measure, row.path, row.process)).or_insert(0) += value;
            }
        }
    }
    let names: Vec<Arc<str>> = (0..400)
        .map(|i| format!("module_{}::step_{i}", i % 23).into())
        .collect();
    let kernel: Vec<Arc<str>> = [
        "entry_SYSCALL_64",
        "do_syscall_64",
        "ksys_read",
        "vfs_read",
        "filemap_read",
        "page_cache_ra_unbounded",
    ]
    .map(|name| format!("{name}_[k]").into())
    .into();
    let each = (size * 7 / sums.len().max(1) as u32).max(1);
    let mut stacks = Vec::new();
    for ((measure, path, process), mut left) in sums {
        for index in (0..each).rev() {
            let value = if index == 0 {
                left
            } else {
                numbers.below(2 * left / u64::from(index + 1) + 1).min(left)
            };
            left -= value;
            if value == 0 {
                continue;
            }
            let mut frames: Vec<Arc<str>> = vec!["_start".into(), "main".into()];
            let mut sources: Vec<Option<Arc<str>>> = vec![None, Some("src/main.rs:12".into())];
            let mut at = numbers.below(6);
            for _ in 0..3 + numbers.below(9) {
                at = (at * 7 + numbers.below(3)) % 400;
                let inlined = at.is_multiple_of(11);
                let name = &names[at as usize];
                frames.push(if inlined {
                    format!("{name}_[i]").into()
                } else {
                    name.clone()
                });
                sources.push(Some(format!("src/module_{}.rs:{at}", at % 23).into()));
            }
            for name in &kernel[..3 + numbers.below(4) as usize] {
                frames.push(name.clone());
                sources.push(None);
            }
            stacks.push(Stack {
                process,
                path,
                measure,
                value,
                frames,
                sources,
            });
        }
        if left > 0 {
            stacks.push(Stack {
                process,
                path,
                measure,
                value: left,
                frames: vec![mmtrace::recording::NO_STACK.into()],
                sources: Vec::new(),
            });
        }
    }
    stacks
}
