//! Where functions without a frame pointer have their return address, by the unwinding information
//! of their file.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, ParsedEhFrameHdr,
    Register, RegisterRule, UnwindContext, UnwindSection as _,
};
use mmtrace_common::stack::CALLER_BY_FRAME_POINTER;

use super::elf;

/// `rsp` in DWARF's numbering of x86-64's registers.
const STACK_POINTER: Register = Register(7);
/// The return address, which is no register, in the same numbering.
const RETURN_ADDRESS: Register = Register(16);

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

    /// How many bytes above the stack pointer the return address ends, at the instruction of an
    /// address; [`CALLER_BY_FRAME_POINTER`] if the function has a frame, or nothing is known of it.
    pub(super) fn caller_at(&self, address: u64) -> u64 {
        self.above_stack_pointer(address)
            .unwrap_or(CALLER_BY_FRAME_POINTER)
    }

    /// The address at which the function begins that the instruction of an address is in: what
    /// functions without a name are told apart by.
    pub(super) fn function_at(&self, address: u64) -> Option<u64> {
        let frames = EhFrame::new(&self.frames, LittleEndian);
        let header = self.header();
        let found = match header.as_ref().and_then(|header| header.table()) {
            Some(table) => {
                table.fde_for_address(&frames, &self.bases, address, EhFrame::cie_from_offset)
            }
            None => frames.fde_for_address(&self.bases, address, EhFrame::cie_from_offset),
        };
        Some(found.ok()?.initial_address())
    }

    /// The index of the frames, if there is one.
    fn header(&self) -> Option<ParsedEhFrameHdr<EndianSlice<'_, LittleEndian>>> {
        EhFrameHdr::new(&self.index, LittleEndian)
            .parse(&self.bases, 8)
            .ok()
    }

    fn above_stack_pointer(&self, address: u64) -> Option<u64> {
        let frames = EhFrame::new(&self.frames, LittleEndian);
        let mut context = UnwindContext::new();
        let header = self.header();
        let row = match header.as_ref().and_then(|header| header.table()) {
            Some(table) => table.unwind_info_for_address(
                &frames,
                &self.bases,
                &mut context,
                address,
                EhFrame::cie_from_offset,
            ),
            None => frames.unwind_info_for_address(
                &self.bases,
                &mut context,
                address,
                EhFrame::cie_from_offset,
            ),
        };
        let row = row.ok()?;
        // Such as `_start`, which nothing has called.
        if row.register(RETURN_ADDRESS) == Some(RegisterRule::Undefined) {
            return None;
        }
        match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } if *register == STACK_POINTER => {
                u64::try_from(*offset).ok().filter(|offset| *offset >= 8)
            }
            _ => None,
        }
    }
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
        assert_eq!(unwinding.caller_at(read), 8);
        assert_eq!(unwinding.function_at(read + 1), Some(read));
    }

    #[test]
    fn where_a_program_starts_nothing_has_called_it() {
        let own = File::open("/proc/self/exe").unwrap();
        let (unwinding, start) =
            elf::read(&own, |elf| (Unwinding::of(elf).unwrap(), elf.entry())).unwrap();
        assert_eq!(unwinding.function_at(start), Some(start));
        assert_eq!(unwinding.caller_at(start + 4), CALLER_BY_FRAME_POINTER);
    }

    #[test]
    fn what_is_not_known_is_left_to_frame_pointers() {
        let own = File::open("/proc/self/exe").unwrap();
        let unwinding = elf::read(&own, Unwinding::of).unwrap().unwrap();
        assert_eq!(unwinding.caller_at(u64::MAX), CALLER_BY_FRAME_POINTER);
        assert_eq!(unwinding.caller_at(0), CALLER_BY_FRAME_POINTER);
    }
}
