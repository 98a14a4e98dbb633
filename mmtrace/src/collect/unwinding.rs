//! How to get from functions to their callers, by the unwinding information of their file.

use std::ops::Range;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EhFrameHdr, EndianSlice, FrameDescriptionEntry,
    LittleEndian, ParsedEhFrameHdr, Register, RegisterRule, UnwindContext, UnwindSection as _,
    UnwindTableRow,
};
use mmtrace_common::stack::UnwindRule;

use super::elf;

/// `rbp` in DWARF's numbering of x86-64's registers.
const FRAME_POINTER: Register = Register(6);
/// `rsp` in the same.
const STACK_POINTER: Register = Register(7);
/// The return address, which is no register, in the same.
const RETURN_ADDRESS: Register = Register(16);

type Function<'file> = FrameDescriptionEntry<EndianSlice<'file, LittleEndian>>;

/// The unwinding information of a file.
pub(super) struct Unwinding {
    bases: BaseAddresses,
    frames: Vec<u8>,
    index: Vec<u8>,
}

impl Unwinding {
    /// Of an ELF file; `None` if it has none.
    pub(super) fn of(elf: &elf::Elf<'_>) -> Option<Self> {
        let (frames_at, frames) = elf::section(elf, ".eh_frame")?;
        let (index_at, index) = elf::section(elf, ".eh_frame_hdr").unwrap_or_default();
        Some(Self {
            bases: BaseAddresses::default()
                .set_eh_frame(frames_at)
                .set_eh_frame_hdr(index_at)
                .set_text(elf::address_of(elf, ".text").unwrap_or(0)),
            frames,
            index,
        })
    }

    /// How to get from the instruction of an address to its function's caller. `None` if nothing is
    /// known of it.
    pub(super) fn rule_at(&self, address: u64) -> Option<UnwindRule> {
        let function = self.function(address)?;
        if function.is_signal_trampoline() {
            return Some(UnwindRule::SIGNAL);
        }
        let frames = EhFrame::new(&self.frames, LittleEndian);
        let mut context = UnwindContext::new();
        let row = function.unwind_info_for_address(&frames, &self.bases, &mut context, address);
        Some(rule_of(row.ok()?))
    }

    /// The address at which the function begins that the instruction of an address is in: what
    /// functions without a name are told apart by.
    pub(super) fn function_at(&self, address: u64) -> Option<u64> {
        Some(self.function(address)?.initial_address())
    }

    /// What is known of the function at an address.
    fn function(&self, address: u64) -> Option<Function<'_>> {
        let frames = EhFrame::new(&self.frames, LittleEndian);
        let header = self.header();
        let found = match header.as_ref().and_then(|header| header.table()) {
            Some(table) => {
                table.fde_for_address(&frames, &self.bases, address, EhFrame::cie_from_offset)
            }
            None => frames.fde_for_address(&self.bases, address, EhFrame::cie_from_offset),
        };
        found.ok()
    }

    /// The code around an address of which nothing is known, up to functions of which something is.
    pub(super) fn gap_at(&self, address: u64, code: Range<u64>) -> Range<u64> {
        let frames = EhFrame::new(&self.frames, LittleEndian);
        let mut entries = frames.entries(&self.bases);
        let mut gap = code;
        // What is damaged ends the list.
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(function) = entry else {
                continue;
            };
            let Ok(function) = function.parse(EhFrame::cie_from_offset) else {
                break;
            };
            let (start, end) = (function.initial_address(), function.end_address());
            if end <= address {
                gap.start = gap.start.max(end);
            } else if start > address {
                gap.end = gap.end.min(start);
            }
        }
        gap
    }

    /// The index of the frames, if there is one.
    fn header(&self) -> Option<ParsedEhFrameHdr<EndianSlice<'_, LittleEndian>>> {
        EhFrameHdr::new(&self.index, LittleEndian)
            .parse(&self.bases, 8)
            .ok()
    }
}

/// What a row of the table says. Rules that are not expressed in bytes above the stack pointer are those
/// of functions with a frame pointer, but for few written in assembly.
fn rule_of(row: &UnwindTableRow<usize>) -> UnwindRule {
    // Such as of `_start`, which nothing has called.
    if row.register(RETURN_ADDRESS) == Some(RegisterRule::Undefined) {
        return UnwindRule::END;
    }
    by_stack_pointer(row).unwrap_or(UnwindRule::FRAME_POINTER)
}

fn by_stack_pointer(row: &UnwindTableRow<usize>) -> Option<UnwindRule> {
    let &CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
        return None;
    };
    let frame_bytes = u32::try_from(offset).ok().filter(|bytes| *bytes >= 8)?;
    let saved_bytes = match row.register(FRAME_POINTER) {
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => 0,
        // Files may be made to do harm: there is no -i64::MIN.
        Some(RegisterRule::Offset(offset)) => u32::try_from(offset.checked_neg()?).ok()?,
        Some(_) => return None,
    };
    let returns = row.register(RETURN_ADDRESS) == Some(RegisterRule::Offset(-8));
    (register == STACK_POINTER && returns)
        .then(|| UnwindRule::by_stack_pointer(frame_bytes, saved_bytes))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use object::Object as _;

    use super::*;

    #[test]
    fn the_c_librarys_read_has_its_return_address_on_top() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().nth(5))
            .find(|name| name.contains("/libc.so") || name.contains("/libc-"));
        let Some(libc) = libc else {
            // Linked statically.
            return;
        };
        let file = File::open(libc).unwrap();
        let (unwinding, read) = elf::read(&file, |elf| {
            let exports = elf.exports().unwrap();
            let mut exports = exports.into_iter();
            let read = exports.find(|export| export.name() == b"read").unwrap();
            (Unwinding::of(elf).unwrap(), read.address())
        })
        .unwrap();
        let on_top = UnwindRule::by_stack_pointer(8, 0);
        assert_eq!(unwinding.rule_at(read), Some(on_top));
        assert_eq!(unwinding.function_at(read + 1), Some(read));
    }

    #[test]
    fn where_a_program_starts_nothing_has_called_it() {
        let own = File::open("/proc/self/exe").unwrap();
        let (unwinding, start) =
            elf::read(&own, |elf| (Unwinding::of(elf).unwrap(), elf.entry())).unwrap();
        assert_eq!(unwinding.function_at(start), Some(start));
        assert_eq!(unwinding.rule_at(start + 4), Some(UnwindRule::END));
    }

    #[test]
    fn of_what_is_no_function_nothing_is_known() {
        let own = File::open("/proc/self/exe").unwrap();
        let unwinding = elf::read(&own, Unwinding::of).unwrap().unwrap();
        assert_eq!(unwinding.rule_at(u64::MAX), None);
        assert_eq!(unwinding.rule_at(0), None);
    }
}
