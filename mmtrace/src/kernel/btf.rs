//! The running kernel's type information (BTF), as far as mmtrace asks it: where fields are, what
//! enum values are, which functions there are and what arguments they take.
//!
//! Read in place, with one index over names: about a tenth of the time that general parsers take,
//! which read every type of the 5 MB before they answer, and the target waits for it.

use std::{
    collections::HashMap,
    fs::File,
    hash::{BuildHasherDefault, Hasher},
    ops::Deref,
};

use anyhow::{Context as _, Result, bail, ensure};
use memmap2::{Mmap, MmapOptions};

use super::{
    conditions::Conditions,
    refusal::{Asked, Refusal},
    remedy,
};
use crate::failure::Failure;

/// Where the kernel shows its own type information (5.4 on, with `CONFIG_DEBUG_INFO_BTF`).
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

/// Kinds of types, by the numbers of include/uapi/linux/btf.h.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Type information.
#[derive(Debug)]
pub struct Btf {
    data: Data,
    /// Where each type begins in `data`; type 0 is `void`.
    types: Vec<usize>,
    /// Where the strings begin in `data`.
    strings: usize,
    /// Types by kind and name; see [`Btf::find`].
    names: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
}

/// The bytes of type information.
#[derive(Debug)]
enum Data {
    /// Mapped from the kernel's own (6.16 on), which nothing changes.
    Mapped(Mmap),
    /// Read: a page at a time, which takes several times as long.
    Read(Vec<u8>),
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(data) => data,
            Self::Read(data) => data,
        }
    }
}

/// For keys that are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Where a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// From the structure's start, in bits.
    pub bit_offset: u32,
    /// Bytes of its type; of a bit-field, of the integer that holds it.
    pub size_bytes: u32,
}

impl Field {
    /// From the structure's start, in bytes.
    #[must_use]
    pub fn offset(self) -> u32 {
        self.bit_offset / 8
    }
}

impl Btf {
    /// The running kernel's.
    ///
    /// # Errors
    ///
    /// If the kernel has none, or it cannot be understood.
    pub fn of_kernel() -> Result<Self> {
        let data = read_kernel_btf().map_err(|refusal| {
            let remedies = remedy::sentences(&[&refusal], &Conditions::here());
            Failure::own(refusal.reason).remedy(remedies.join("\n"))
        })?;
        Self::index(data).with_context(|| format!("cannot understand {KERNEL_BTF}"))
    }

    /// Whether the running kernel shows any.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn is_there() -> Result<(), Refusal> {
        read_kernel_btf().map(drop)
    }

    /// From its bytes.
    ///
    /// # Errors
    ///
    /// If they are not well-formed type information of this machine's byte order.
    pub fn parse(data: Vec<u8>) -> Result<Self> {
        Self::index(Data::Read(data))
    }

    fn index(data: Data) -> Result<Self> {
        ensure!(data.len() >= 24, "too short");
        let half = |at: usize| u16::from_ne_bytes([data[at], data[at + 1]]);
        ensure!(half(0) == MAGIC, "not type information of this byte order");
        let header = word(&data, 4)? as usize;
        let types_at = header + word(&data, 8)? as usize;
        let types_end = types_at + word(&data, 12)? as usize;
        let strings = header + word(&data, 16)? as usize;
        ensure!(types_end <= data.len() && strings <= data.len(), "cut off");

        let mut types = vec![0];
        let mut names = HashMap::with_capacity_and_hasher(1 << 17, BuildHasherDefault::default());
        let mut at = types_at;
        while at < types_end {
            let id = u32::try_from(types.len())?;
            types.push(at);
            let info = word(&data, at + 4)?;
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            if matches!(
                kind,
                kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::TYPEDEF | kind::FUNC
            ) {
                let name = string(&data, strings, word(&data, at)?)?;
                if !name.is_empty() {
                    // The first of a name, as the kernel's own look-up takes.
                    names.entry(key(kind, name)).or_insert(id);
                }
            }
            at += 12
                + match kind {
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
                    kind::ENUM | kind::FUNC_PROTO => 8 * count,
                    0..=kind::ENUM64 => 0,
                    _ => bail!("type {id} is of kind {kind}, which is not known"),
                };
        }
        Ok(Self {
            data,
            types,
            strings,
            names,
        })
    }

    fn word(&self, at: usize) -> u32 {
        word(&self.data, at).unwrap_or(0)
    }

    fn name(&self, at: usize) -> &[u8] {
        string(&self.data, self.strings, self.word(at)).unwrap_or(b"")
    }

    /// Kind, number of members and place of a type.
    fn parts(&self, id: u32) -> (u32, usize, usize) {
        let at = self.types.get(id as usize).copied().unwrap_or(0);
        if id == 0 || at == 0 {
            return (0, 0, 0);
        }
        let info = self.word(at + 4);
        (info >> 24 & 0x1f, (info & 0xffff) as usize, at)
    }

    fn find(&self, kind: u32, name: &str) -> Option<u32> {
        let id = *self.names.get(&key(kind, name.as_bytes()))?;
        // Two names may have one hash.
        (self.name(self.types[id as usize]) == name.as_bytes()).then_some(id)
    }

    /// A type without the names and qualifiers around it.
    fn plain(&self, mut id: u32) -> u32 {
        loop {
            let (kind, _, at) = self.parts(id);
            match kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = self.word(at + 8)
                }
                _ => return id,
            }
        }
    }

    fn size_bytes(&self, id: u32) -> u32 {
        let (kind, _, at) = self.parts(self.plain(id));
        match kind {
            0 => 0,
            kind::ARRAY => self.size_bytes(self.word(at + 12)) * self.word(at + 20),
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => self.word(at + 8),
            _ => 8,
        }
    }

    /// Where a field of a structure is. `path` goes through named members with dots; members
    /// without a name are looked into.
    #[must_use]
    pub fn field(&self, structure: &str, path: &str) -> Option<Field> {
        let mut id = self.find(kind::STRUCT, structure)?;
        let mut bit_offset = 0;
        let mut found = None;
        for part in path.split('.') {
            let (offset, member) = self.member(id, part.as_bytes())?;
            bit_offset += offset;
            id = member;
            found = Some(Field {
                bit_offset,
                size_bytes: self.size_bytes(member),
            });
        }
        found
    }

    /// A member's offset in bits, and its type.
    fn member(&self, structure: u32, wanted: &[u8]) -> Option<(u32, u32)> {
        let structure = self.plain(structure);
        let (kind, count, at) = self.parts(structure);
        if kind != kind::STRUCT && kind != kind::UNION {
            return None;
        }
        let bit_fields = self.word(at + 4) >> 31 == 1;
        for member in (0..count).map(|index| at + 12 + 12 * index) {
            let name = self.name(member);
            let kind = self.word(member + 4);
            let offset = self.word(member + 8);
            let offset = if bit_fields {
                offset & 0xff_ffff
            } else {
                offset
            };
            if name == wanted {
                return Some((offset, kind));
            }
            if name.is_empty()
                && let Some((inner, kind)) = self.member(kind, wanted)
            {
                return Some((offset + inner, kind));
            }
        }
        None
    }

    /// A value of an enum.
    #[must_use]
    pub fn enum_value(&self, of: &str, name: &str) -> Option<u64> {
        let id = self.find(kind::ENUM, of)?;
        let (kind, count, at) = self.parts(id);
        let stride = if kind == kind::ENUM64 { 12 } else { 8 };
        (0..count)
            .map(|index| at + 12 + stride * index)
            .find(|&value| self.name(value) == name.as_bytes())
            .map(|value| {
                let high = if kind == kind::ENUM64 {
                    self.word(value + 8)
                } else {
                    0
                };
                u64::from(self.word(value + 4)) | u64::from(high) << 32
            })
    }

    /// The names of a function's parameters; `None` if there is no such function.
    #[must_use]
    pub fn function_parameters(&self, name: &str) -> Option<Vec<String>> {
        let (_, _, at) = self.parts(self.find(kind::FUNC, name)?);
        Some(self.parameters(self.word(at + 8)))
    }

    /// A function's number among the types: what the kernel calls `attach_btf_id`.
    #[must_use]
    pub fn function_id(&self, name: &str) -> Option<u32> {
        self.find(kind::FUNC, name)
    }

    /// A structure's number among the types.
    #[must_use]
    pub fn structure_id(&self, name: &str) -> Option<u32> {
        self.find(kind::STRUCT, name)
    }

    /// How many arguments a tracepoint passes; `None` if there is no such tracepoint.
    #[must_use]
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let (_, _, at) = self.parts(self.find(kind::TYPEDEF, &format!("btf_trace_{name}"))?);
        let (_, _, pointer) = self.parts(self.word(at + 8));
        // The first parameter is the kernel's own.
        Some(
            self.parameters(self.word(pointer + 8))
                .len()
                .saturating_sub(1),
        )
    }

    fn parameters(&self, prototype: u32) -> Vec<String> {
        let (kind, count, at) = self.parts(prototype);
        if kind != kind::FUNC_PROTO {
            return Vec::new();
        }
        (0..count)
            .map(|index| String::from_utf8_lossy(self.name(at + 12 + 8 * index)).into_owned())
            .collect()
    }
}

fn read_kernel_btf() -> Result<Data, Refusal> {
    let read = || {
        let file = File::open(KERNEL_BTF)?;
        // Private: the kernel refuses to share it (`btf_sysfs_vmlinux_mmap` in kernel/bpf/sysfs_btf.c).
        // SAFETY: the kernel's type information is constant for as long as the kernel runs.
        match unsafe { MmapOptions::new().map_copy_read_only(&file) } {
            Ok(data) => Ok(Data::Mapped(data)),
            Err(_) => std::fs::read(KERNEL_BTF).map(Data::Read),
        }
    };
    let what = || format!("no type information at {KERNEL_BTF}");
    read().map_err(|error| Refusal::of_call(Asked::Types, &what(), &error))
}

/// Under what a type is found: its name, apart for each kind.
fn key(kind: u32, name: &[u8]) -> u64 {
    hash(name) ^ u64::from(merged(kind)) << 56
}

/// Structures and unions share their names, and so do the two kinds of enum.
fn merged(kind: u32) -> u32 {
    match kind {
        kind::UNION => kind::STRUCT,
        kind::ENUM64 => kind::ENUM,
        other => other,
    }
}

/// FNV-1a: names are short, and there are 100,000 of them.
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn word(data: &[u8], at: usize) -> Result<u32> {
    let bytes = data.get(at..at + 4).context("cut off")?;
    Ok(u32::from_ne_bytes(bytes.try_into()?))
}

fn string(data: &[u8], strings: usize, at: u32) -> Result<&[u8]> {
    let rest = data.get(strings + at as usize..).context("cut off")?;
    let end = rest.iter().position(|byte| *byte == 0).context("cut off")?;
    Ok(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_refused() {
        assert!(Btf::parse(vec![]).is_err());
        assert!(Btf::parse(vec![0; 100]).is_err());
        let mut data = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0];
        data.extend([12, 0, 0, 0, 1, 0, 0, 0]);
        data.extend([0; 3]);
        assert!(Btf::parse(data).is_err());
    }

    #[test]
    fn the_kernels_own_is_not_copied_where_it_can_be_mapped() {
        let Ok(data) = read_kernel_btf() else {
            return;
        };
        // Older ones may have been given that too.
        let can_be_mapped = crate::kernel::conditions::release() >= [6, 16];
        assert!(!can_be_mapped || matches!(data, Data::Mapped(_)));
    }

    #[test]
    fn the_running_kernel_has_what_every_kernel_has() {
        let Ok(btf) = Btf::of_kernel() else {
            return;
        };
        let pid = btf.field("task_struct", "pid").expect("task_struct.pid");
        let tgid = btf.field("task_struct", "tgid").expect("task_struct.tgid");
        assert_eq!(tgid.offset(), pid.offset() + 4);
        assert_eq!(pid.size_bytes, 4);
        assert_eq!(btf.enum_value("pid_type", "PIDTYPE_PID"), Some(0));
        assert_eq!(btf.tracepoint_arguments("sys_enter"), Some(2));
        assert!(btf.field("task_struct", "no_such_field").is_none());
        let inner = btf.field("bio", "bi_iter.bi_size").expect("bi_size");
        let outer = btf.field("bio", "bi_iter").expect("bi_iter");
        assert!(inner.bit_offset > outer.bit_offset);
    }
}
