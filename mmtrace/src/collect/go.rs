//! Names of Go's functions, from the table that each Go program has for its own stack traces. It is
//! there in stripped programs too, which have neither symbols nor unwinding information.
//!
//! The format is that of Go 1.18 and later (`pcHeader` and `_func` in runtime/symtab.go and
//! runtime/runtime2.go).

use std::fs::File;

use super::elf;

/// What the table begins with, in Go 1.18 and from 1.20 on.
const MAGICS: [u32; 2] = [0xffff_fff0, 0xffff_fff1];

/// The table.
pub(super) struct Functions {
    table: Vec<u8>,
    /// How many functions it has.
    count: usize,
    /// The address that theirs are counted from.
    text: u64,
    /// Where in the table their names are, and where they are themselves.
    names: usize,
    functions: usize,
}

impl Functions {
    /// Of a Go program; `None` if it is none.
    pub(super) fn of(file: &File) -> Option<Self> {
        let (table, text) = elf::read(file, |elf| {
            let table = elf::section(elf, ".gopclntab");
            let (_, table) = table.or_else(|| elf::section(elf, ".data.rel.ro.gopclntab"))?;
            Some((table, elf::address_of(elf, ".text")))
        })??;
        Self::parse(table, text?)
    }

    /// `text` is where the code begins: in position-independent programs the table's own word for it
    /// is written when they are loaded.
    fn parse(table: Vec<u8>, text: u64) -> Option<Self> {
        const POINTER_BYTES: u8 = 8;
        let magic = u32::from_le_bytes(table.get(..4)?.try_into().ok()?);
        if !MAGICS.contains(&magic) || table.get(7) != Some(&POINTER_BYTES) {
            return None;
        }
        let word = |index: usize| {
            let bytes = table.get(8 + 8 * index..16 + 8 * index)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let [count, begins, names, functions] = [word(0)?, word(2)?, word(3)?, word(7)?];
        Some(Self {
            count: usize::try_from(count).ok()?,
            text: if begins == 0 { text } else { begins },
            names: usize::try_from(names).ok()?,
            functions: usize::try_from(functions).ok()?,
            table,
        })
    }

    /// The function that an address is in.
    pub(super) fn name_at(&self, address: u64) -> Option<String> {
        let wanted = u32::try_from(address.checked_sub(self.text)?).ok()?;
        // The last that does not begin after it.
        let (mut first, mut end) = (0, self.count);
        while first < end {
            let middle = first + (end - first) / 2;
            if self.number(self.functions, middle.checked_mul(2)?)? <= wanted {
                first = middle + 1;
            } else {
                end = middle;
            }
        }
        let found = first.checked_sub(1)?;
        // After the last function comes only where it ends.
        if self.number(self.functions, first.checked_mul(2)?)? <= wanted {
            return None;
        }
        let function = self.number(self.functions, found * 2 + 1)?;
        let function = self.functions.checked_add(function as usize)?;
        let name = self.names.checked_add(self.number(function, 1)? as usize)?;
        let name = self.table.get(name..)?;
        let end = name.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(&name[..end]).into_owned();
        (!name.is_empty()).then_some(name)
    }

    /// One of the 32-bit numbers that are at this place of the table.
    fn number(&self, place: usize, index: usize) -> Option<u32> {
        let at = place.checked_add(index.checked_mul(4)?)?;
        let bytes = self.table.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of two functions, at 0x1000 and 0x1040, that ends at 0x1060.
    fn table(begins: u64) -> Vec<u8> {
        let names = 72;
        let functions = names + 24;
        let mut table = 0xffff_fff1_u32.to_le_bytes().to_vec();
        table.extend([0, 0, 1, 8]);
        for word in [2, 0, begins, names, 0, 0, 0, functions] {
            table.extend(u64::to_le_bytes(word));
        }
        table.extend(b"main.one\0main.(*T).two\0\0");
        // Where they begin and are told of, the end, and then what is told: the beginning, the name.
        for number in [0, 20, 0x40, 28, 0x60, 0, 0, 0x40, 9_u32] {
            table.extend(number.to_le_bytes());
        }
        table
    }

    #[test]
    fn functions_are_found_by_any_address_in_them() {
        for begins in [0, 0x1000] {
            let functions = Functions::parse(table(begins), 0x1000).unwrap();
            for (address, name) in [
                (0xfff, None),
                (0x1000, Some("main.one")),
                (0x103f, Some("main.one")),
                (0x1040, Some("main.(*T).two")),
                (0x105f, Some("main.(*T).two")),
                (0x1060, None),
                (u64::MAX, None),
            ] {
                assert_eq!(functions.name_at(address).as_deref(), name, "{address:x}");
            }
        }
    }

    #[test]
    fn a_damaged_table_has_no_names() {
        let good = table(0x1000);
        for cut in 0..good.len() {
            if let Some(functions) = Functions::parse(good[..cut].to_vec(), 0) {
                let _whatever = functions.name_at(0x1000);
            }
        }
        for byte in 8..72 {
            let mut bad = good.clone();
            bad[byte] = 0xff;
            if let Some(functions) = Functions::parse(bad, 0) {
                let _whatever = functions.name_at(0x1050);
            }
        }
        assert!(Functions::parse(vec![0; 100], 0).is_none());
    }
}
