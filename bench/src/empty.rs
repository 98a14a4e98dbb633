//! Programs that do nothing, on the hooks that mmtrace attached: what being called costs.

use anyhow::{Context as _, Result};
use aya::{Btf, Ebpf, EbpfLoader};
use mmtrace::probe::{Attachment, load_and_attach};
use object::write::{Object, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};
use serde::Deserialize;

/// A hook as recordings name it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Hook {
    /// The function, tracepoint or event.
    name: String,
    /// How a program is attached to it.
    kind: String,
}

impl Hook {
    fn attachment(&self) -> Option<Attachment<'_>> {
        Attachment::from_recording(&self.kind, &self.name)
    }

    /// The ELF section that makes the loader take a program for one of this kind.
    fn section(&self) -> String {
        let kind = match self.kind.as_str() {
            "software_event" => "perf_event",
            kind => kind,
        };
        format!("{kind}/{}", self.name)
    }
}

/// `r0 = 0; exit`, as the kernel encodes it.
const DO_NOTHING: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// Attaches a program that does nothing to each hook, until the result is dropped.
///
/// The kernel's types are needed for functions' entries and returns only.
pub(crate) fn attach(hooks: &[Hook], types: &Btf) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().btf(None).load(&object_file(hooks)?)?;
    for (index, hook) in hooks.iter().enumerate() {
        let program = ebpf
            .program_mut(&program_name(index))
            .context("a program is missing")?;
        hook.attachment()
            .context("the benchmark does not know this kind of hook")
            .and_then(|at| load_and_attach(program, at, Some(types)))
            .with_context(|| hook.section())?;
    }
    Ok(ebpf)
}

/// A program's name: the kernel takes letters, digits and underscores only.
fn program_name(index: usize) -> String {
    format!("empty_{index}")
}

/// An object file with a program for each hook.
fn object_file(hooks: &[Hook]) -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::default());
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    for (index, hook) in hooks.iter().enumerate() {
        let name = hook.section().into_bytes();
        let section = object.add_section(Vec::new(), name, SectionKind::Text);
        let value = object.append_section_data(section, &DO_NOTHING, 8);
        object.add_symbol(Symbol {
            name: program_name(index).into_bytes(),
            value,
            size: DO_NOTHING.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    Ok(object.write()?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn hook(kind: &str, name: &str) -> Hook {
        Hook {
            name: name.to_owned(),
            kind: kind.to_owned(),
        }
    }

    #[test]
    fn the_loader_understands_the_object() {
        let file = object_file(&[
            hook("raw_tracepoint", "sys_enter"),
            hook("tracepoint", "raw_syscalls:sys_enter"),
            hook("fentry", "handle_mm_fault"),
            hook("fexit", "handle_mm_fault"),
            hook("kprobe", "submit_bio"),
            hook("kretprobe", "submit_bio"),
            hook("software_event", "page-faults-min"),
        ])
        .unwrap();
        let object = EbpfLoader::new().btf(None).load(&file);
        assert_eq!(object.unwrap().programs().count(), 7);
    }

    #[test]
    fn programs_are_attached_to_what_a_recording_names() {
        // For this thread alone.
        let mounted = crate::measure::mount_tracing();
        if mounted.is_err() || !Path::new("/sys/kernel/tracing/events/sched").exists() {
            eprintln!("skipped: attaching to events needs root and tracefs: {mounted:?}");
            return;
        }
        let hooks = [
            hook("tracepoint", "sched:sched_process_exit"),
            hook("raw_tracepoint", "sched_process_exit"),
            hook("software_event", "page-faults-maj"),
        ];
        let types = Btf::from_sys_fs().unwrap();
        attach(&hooks, &types).unwrap();
        let error = attach(&[hook("uprobe", "main")], &types).unwrap_err();
        assert!(format!("{error:#}").contains("uprobe/main"), "{error:#}");
    }
}
