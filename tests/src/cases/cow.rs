//! Pages that the kernel copies for itself: copy on write.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};

use crate::{
    case::{Case, Need, Scene, Site, State, case},
    check::{Check, Rows, all_on, not_on, on},
    files,
    workload::{Cpus, stay_on_one_cpu},
};

const COPIED: &str = "copied_in_kernel_bytes";

/// The prime size of the mapped files.
const SIZE_BYTES: u64 = 300_007;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for state in State::BOTH {
        // Without a page there before: copied from the page cache at once.
        let name = format!("cow/written-{}", state.name());
        cases.push(case(name, state.needs(), move |site| {
            touched(site, "private,write", state, pages(SIZE_BYTES))
        }));
        // Where the file's page is there already, it is replaced by a copy.
        let name = format!("cow/loaded-then-written-{}", state.name());
        cases.push(case(name, state.needs(), move |site| {
            touched(site, "private,loaded,write", state, pages(SIZE_BYTES))
        }));
    }
    for (name, options, copied) in [
        ("loaded", "private", 0),
        ("shared-written", "shared,write", 0),
        ("shared-loaded-then-written", "shared,loaded,write", 0),
        // The kernel fills a writable private mapping with copies, as if each page was written.
        (
            "populated",
            "private,write,populate,none",
            pages(SIZE_BYTES),
        ),
        ("locked", "private,write,lock,none", pages(SIZE_BYTES)),
        (
            "populated-then-written",
            "private,populate,write",
            pages(SIZE_BYTES),
        ),
    ] {
        cases.push(case(format!("cow/{name}"), &[], move |site| {
            touched(site, options, State::Warm, copied)
        }));
    }
    cases.extend([
        case("cow/read-into-private", &[], |site| into(site, "read")),
        case("cow/direct-into-private", &[Need::DirectIo], |site| {
            into(site, "direct")
        }),
        case("cow/forked-mapping", &[Need::HugePages], forked_mapping),
        case("cow/unshared", &[Need::HugePages], unshared),
        case("cow/forked", &[Need::HugePages], forked),
        case("cow/forked-huge-pages", &[Need::HugePages], forked_huge),
        case("cow/forked-hugetlb", &[Need::HugetlbPages], forked_hugetlb),
    ]);
    cases
}

fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(files::page_size())
}

/// Requires so many pages of the file to have been copied, all of them on `mmap`.
fn copied(check: &mut Check<'_>, file: &Path, pages: u64) {
    check.equal(&on(file, "mmap"), COPIED, pages * files::page_size());
    check.equal(&not_on(file, "mmap"), COPIED, 0);
}

fn touched(
    site: &Site,
    options: &'static str,
    state: State,
    expected: u64,
) -> anyhow::Result<Scene> {
    let file = site.data_in(state, SIZE_BYTES)?;
    let command = site.workload("touch", &[&file, &options]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.mapped_bytes == SIZE_BYTES.next_multiple_of(files::page_size()));
        copied(check, &file, expected);
        Ok(())
    }))
}

/// What the kernel writes into a private mapping, it writes into copies of its pages.
fn into(site: &Site, how: &'static str) -> anyhow::Result<Scene> {
    let from = site.data("from", SIZE_BYTES)?;
    let into = site.data_in(State::Warm, SIZE_BYTES)?;
    let command = site.workload("read-into-private", &[&from, &into, &how]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.returned_bytes == SIZE_BYTES);
        copied(check, &into, truth.touched_pages);
        check.equal(&not_on(&from, "mmap"), COPIED, 0);
        Ok(())
    }))
}

/// What nobody else has any more is not copied again; what a child writes while its parent has it is.
fn forked_mapping(site: &Site) -> anyhow::Result<Scene> {
    let file = site.data_in(State::Warm, SIZE_BYTES)?;
    let command = site.workload("forked-mapping", &[&file]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.touched_pages == pages(SIZE_BYTES));
        let once = truth.touched_pages * files::page_size();
        if let Some(copied) = check.by_process(&on(&file, "mmap"), COPIED) {
            check.that(copied == [once, 0, once], || {
                format!("parent and children copied {copied:?}, must be {once}, 0 and {once}")
            });
        }
        check.equal(&not_on(&file, "mmap"), COPIED, 0);
        Ok(())
    }))
}

/// New memory is cleared, not copied, whether or not it was read before.
fn unshared(site: &Site) -> anyhow::Result<Scene> {
    const PAGES: u64 = 1_511;
    let pinned = Pinned(stay_on_one_cpu()?);
    let command = site.workload("unshared", &[&PAGES.to_string()]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.touched_pages == 4 * PAGES);
        check.equal(&all_on("other"), COPIED, 0);
        Ok(())
    })
    // Without a fork before it.
    .alone()
    .keeping(pinned))
}

/// A child copies what it writes, its parent nothing when it has the memory for itself again.
fn forked(site: &Site) -> anyhow::Result<Scene> {
    const PAGES: u64 = 997;
    const STACK_PAGES: u64 = 40;
    let command = site.workload("forked", &[&"small", &PAGES.to_string()]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.touched_pages == PAGES);
        let copies = by_children(check, &all_on("other"), PAGES * files::page_size());
        if let Some(parent) = copies {
            // Of its stack and heap, after each of the forks.
            check.that(parent <= STACK_PAGES * files::page_size(), || {
                format!("the parent copied {parent} bytes")
            });
        }
        Ok(())
    }))
}

/// A huge page is not copied: what maps it is split, and the small page that is written is.
fn forked_huge(site: &Site) -> anyhow::Result<Scene> {
    const PAGES: u64 = 599;
    let command = site.workload("forked", &[&"huge", &PAGES.to_string()]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.touched_pages == PAGES);
        by_children(check, &all_on("other"), PAGES * files::page_size());
        Ok(())
    }))
}

/// A page of hugetlbfs is copied whole.
fn forked_hugetlb(site: &Site) -> anyhow::Result<Scene> {
    const PAGES: u64 = 3;
    // The parent's and the child's.
    let reserved = Hugetlb::reserve(2 * PAGES)?;
    let huge_bytes = reserved.page_bytes;
    let command = site.workload("forked", &[&"hugetlb", &PAGES.to_string()]);
    Ok(Scene::workload(command, move |check, truth| {
        ensure!(truth.touched_pages == PAGES);
        by_children(check, &all_on("mmap"), PAGES * huge_bytes);
        Ok(())
    })
    .keeping(reserved))
}

/// Requires the second child to have copied so many bytes more than the first, which wrote nothing
/// but its stack; returns what their parent copied.
fn by_children(check: &mut Check<'_>, rows: &Rows, expected: u64) -> Option<u64> {
    let copied = check.by_process(rows, COPIED)?;
    check.that(
        matches!(copied[..], [_, idle, writer] if idle + expected == writer),
        || {
            format!(
                "parent and children copied {copied:?} ({rows}): the last must have copied \
                 {expected} more than the one before"
            )
        },
    );
    copied.first().copied()
}

/// This thread on one CPU, with what it starts, until dropped.
///
/// Up to 5.17 `execve` makes the page of its arguments one that is copied when the program first writes
/// to it, if something else has it still, as a batch of new pages has (`do_wp_page` in mm/memory.c). It
/// empties the batch of the CPU that it is on (`shift_arg_pages` in fs/exec.c), which is another one
/// than that of the page if the thread has moved between the two.
struct Pinned(Cpus);

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = self.0.allow() {
            eprintln!("{error}");
        }
    }
}

/// Huge pages set aside, given back when dropped.
pub(crate) struct Hugetlb {
    before: u64,
    page_bytes: u64,
}

impl Hugetlb {
    const COUNT: &str = "/proc/sys/vm/nr_hugepages";

    /// Sets `more` of them aside.
    ///
    /// # Errors
    /// When the kernel has none, or not enough memory is free in one piece.
    pub(crate) fn reserve(more: u64) -> anyhow::Result<Self> {
        let count = || -> anyhow::Result<u64> {
            let text =
                fs::read_to_string(Self::COUNT).context("the kernel has no hugetlb pages")?;
            Ok(text.trim().parse()?)
        };
        let memory = fs::read_to_string("/proc/meminfo")?;
        let kib = memory
            .lines()
            .find_map(|line| {
                line.strip_prefix("Hugepagesize:")?
                    .trim()
                    .strip_suffix(" kB")
            })
            .context("the kernel has no hugetlb pages")?;
        let reserved = Self {
            before: count()?,
            page_bytes: kib.parse::<u64>()? << 10,
        };
        fs::write(Self::COUNT, (reserved.before + more).to_string())?;
        let now = count()?;
        ensure!(
            now == reserved.before + more,
            "of {more} hugetlb pages the kernel sets {} aside",
            now - reserved.before
        );
        Ok(reserved)
    }
}

impl Drop for Hugetlb {
    fn drop(&mut self) {
        if let Err(error) = fs::write(Self::COUNT, self.before.to_string()) {
            eprintln!("{}: {error}", Self::COUNT);
        }
    }
}
