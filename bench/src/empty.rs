//! Programs that do nothing, on the hooks that mmtrace attached: what being called costs.

use anyhow::{Context as _, Result, anyhow, bail};
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{FEntry, FExit, KProbe, PerfEvent, Program};
use aya::util::online_cpus;
use aya::{Btf, Ebpf, EbpfLoader};
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
        attach_one(program, hook, types).with_context(|| hook.section())?;
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

fn attach_one(program: &mut Program, hook: &Hook, types: &Btf) -> Result<()> {
    let name = &hook.name;
    match program {
        Program::RawTracePoint(program) => {
            program.load()?;
            program.attach(name)?;
        }
        Program::FEntry(program) => attach_fentry(program, name, types)?,
        Program::FExit(program) => attach_fexit(program, name, types)?,
        Program::KProbe(program) => attach_kprobe(program, name)?,
        Program::PerfEvent(program) => attach_event(program, name)?,
        _ => bail!("mmtrace has a kind of hook that the benchmark does not know"),
    }
    Ok(())
}

fn attach_fentry(program: &mut FEntry, function: &str, types: &Btf) -> Result<()> {
    program.load(function, types)?;
    program.attach()?;
    Ok(())
}

fn attach_fexit(program: &mut FExit, function: &str, types: &Btf) -> Result<()> {
    program.load(function, types)?;
    program.attach()?;
    Ok(())
}

fn attach_kprobe(program: &mut KProbe, function: &str) -> Result<()> {
    program.load()?;
    program.attach(function, 0)?;
    Ok(())
}

/// Attaches to a software event on every CPU.
fn attach_event(program: &mut PerfEvent, name: &str) -> Result<()> {
    let event = match name {
        "page-faults-min" => SoftwareEvent::PageFaultsMin,
        "page-faults-maj" => SoftwareEvent::PageFaultsMaj,
        _ => bail!("unknown software event"),
    };
    program.load()?;
    for cpu in online_cpus().map_err(|(what, error)| anyhow!(error).context(what))? {
        program.attach(
            PerfEventConfig::Software(event),
            PerfEventScope::AllProcessesOneCpu { cpu },
            SamplePolicy::Period(1),
            false,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_understands_the_object() {
        let hook = |kind: &str, name: &str| Hook {
            name: name.to_owned(),
            kind: kind.to_owned(),
        };
        let file = object_file(&[
            hook("raw_tracepoint", "sys_enter"),
            hook("fentry", "handle_mm_fault"),
            hook("fexit", "handle_mm_fault"),
            hook("kprobe", "submit_bio"),
            hook("kretprobe", "submit_bio"),
            hook("software_event", "page-faults-min"),
        ])
        .unwrap();
        let object = EbpfLoader::new().btf(None).load(&file);
        assert_eq!(object.unwrap().programs().count(), 6);
    }
}
