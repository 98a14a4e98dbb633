//! Names for places in the kernel's code, and which of them copy: /proc/kallsyms, by address.

use std::{fmt, fs};

use anyhow::{Context as _, Result, ensure};

/// The kernel's functions, its modules' too, as they are at this moment.
///
/// Reading them takes some 100 ms: the kernel writes the text anew each time.
#[derive(Clone, Debug)]
pub struct Symbols {
    text: String,
    /// By address; of several functions at one address, one.
    functions: Vec<Function>,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    address: u64,
    /// Whether other files of the kernel can call it: its name is then the one in use.
    global: bool,
    /// Where in the text its name is.
    name: (usize, usize),
}

/// A place in the kernel's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function.
    pub function: String,
    /// How far into it, in bytes.
    pub offset: u64,
}

impl fmt::Display for Frame {
    /// As the kernel writes it: `vfs_read+0x1f`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}+{:#x}", self.function, self.offset)
    }
}

/// No function is this long: what is further from the one before it is none of the kernel's.
const LONGEST_BYTES: u64 = 1 << 20;

impl Symbols {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell their addresses.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
        let symbols = Self::parse(text);
        // Where they are kept secret, each address is 0.
        ensure!(
            symbols.functions.len() > 1,
            "/proc/kallsyms hides the addresses (kernel.kptr_restrict)"
        );
        Ok(symbols)
    }

    /// Of lines such as `ffffffff81b6b0c0 T _copy_to_iter`, with a module's name after the
    /// function's where it is in one.
    pub(crate) fn parse(text: String) -> Self {
        let mut functions = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let mut words = line.split_ascii_whitespace();
            if let (Some(address), Some(kind), Some(name)) =
                (words.next(), words.next(), words.next())
                && let Ok(address) = u64::from_str_radix(address, 16)
                && matches!(kind, "t" | "T" | "w" | "W")
            {
                let at = start + (name.as_ptr().addr() - line.as_ptr().addr());
                functions.push(Function {
                    address,
                    global: kind == "T",
                    name: (at, at + name.len()),
                });
            }
            start += line.len();
        }
        // Stable: what comes first in the file stays first.
        functions.sort_by_key(|function| (function.address, !function.global));
        functions.dedup_by_key(|function| function.address);
        Self { text, functions }
    }

    /// The function that has this address, and how far into it that is; `None` if it is none's.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<(&str, u64)> {
        let after = self
            .functions
            .partition_point(|function| function.address <= address);
        let function = self.functions.get(after.checked_sub(1)?)?;
        let offset = address - function.address;
        let (start, end) = function.name;
        (offset < LONGEST_BYTES).then(|| (&self.text[start..end], offset))
    }

    /// The place of an instruction, if it is the kernel's.
    #[must_use]
    pub fn instruction(&self, address: u64) -> Option<Frame> {
        let (function, offset) = self.find(address)?;
        Some(Frame {
            function: function.to_owned(),
            offset,
        })
    }

    /// The place to which a call returns, if it is the kernel's: the call is before it, and may be
    /// its function's last instruction.
    #[must_use]
    pub fn return_to(&self, address: u64) -> Option<Frame> {
        let frame = self.instruction(address.checked_sub(1)?)?;
        Some(Frame {
            offset: frame.offset + 1,
            ..frame
        })
    }
}

/// Whether a function copies between the kernel and user memory, or is called to do so: named in
/// lib/iov_iter.c, lib/usercopy.c, include/linux/uaccess.h and arch/*/lib/, 5.10 to 7.x. Those that
/// copy the kernel's own pages too (`copy_mc_fragile`) are not among them.
#[must_use]
pub fn is_copy_routine(function: &str) -> bool {
    // What the compiler has split off a function has its name with an ending (`.isra.0`).
    let name = function.split('.').next().unwrap_or(function);
    COPY_ROUTINES.contains(&name)
}

const COPY_ROUTINES: [&str; 46] = [
    // lib/iov_iter.c and include/linux/iov_iter.h
    "_copy_from_iter",
    "_copy_from_iter_flushcache",
    "_copy_from_iter_full",
    "_copy_from_iter_full_nocache",
    "_copy_from_iter_nocache",
    "_copy_mc_to_iter",
    "_copy_to_iter",
    "copy_folio_from_iter_atomic",
    "copy_from_user_iter",
    "copy_page_from_iter",
    "copy_page_from_iter_atomic",
    "copy_page_from_iter_iovec",
    "copy_page_to_iter",
    "copy_page_to_iter_iovec",
    "copy_page_to_iter_nofault",
    "copy_to_user_iter",
    "copy_to_user_iter_mc",
    "copyin",
    "copyout",
    "copyout_mc",
    "copyout_nofault",
    "csum_and_copy_from_iter",
    "csum_and_copy_from_iter_full",
    "csum_and_copy_to_iter",
    "iov_iter_copy_from_user_atomic",
    // lib/usercopy.c and include/linux/uaccess.h
    "_copy_from_user",
    "_copy_to_user",
    "_inline_copy_from_user",
    "_inline_copy_to_user",
    "copy_folio_from_user",
    "raw_copy_from_user",
    "raw_copy_to_user",
    // arch/x86/lib
    "__copy_from_user_flushcache",
    "__copy_user_flushcache",
    "__copy_user_nocache",
    "copy_mc_to_user",
    "copy_user_enhanced_fast_string",
    "copy_user_fast_string",
    "copy_user_generic",
    "copy_user_generic_string",
    "copy_user_generic_unrolled",
    "copy_user_short_string",
    "rep_movs_alternative",
    // arch/arm64/lib
    "__arch_copy_from_user",
    "__arch_copy_to_user",
    "__pi___arch_copy_to_user",
];

/// Whether an exception or an interrupt enters the kernel by this function: what is called under it
/// is no work of those that are above it in the stack.
#[must_use]
pub fn is_exception_entry(function: &str) -> bool {
    // arch/x86/include/asm/idtentry.h; arch/arm64/kernel/entry.S.
    [
        "asm_exc_",
        "asm_sysvec_",
        "asm_common_interrupt",
        "el1h_64_",
    ]
    .iter()
    .any(|beginning| function.starts_with(beginning))
}

/// The innermost copy routine in a stack, the innermost function first, that is not interrupted.
pub fn copy_routine<'a>(stack: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    stack
        .into_iter()
        .take_while(|function| !is_exception_entry(function))
        .find(|function| is_copy_routine(function))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000100 t alias
ffffffff81000100 T startup
ffffffff81000000 T _stext
ffffffff81000180 d data
ffffffff81000200 t copyout.isra.0
ffffffffc0000000 t ext4_read\t[ext4]
";

    #[test]
    fn addresses_are_found_in_functions() {
        let symbols = Symbols::parse(TEXT.to_owned());
        for (address, found) in [
            (0xffff_ffff_8100_0000, Some(("_stext", 0))),
            (0xffff_ffff_8100_01ff, Some(("startup", 0xff))),
            (0xffff_ffff_c000_0010, Some(("ext4_read", 0x10))),
            (0xffff_ffff_d000_0000, None),
            (0x1000, None),
        ] {
            assert_eq!(symbols.find(address), found, "{address:x}");
        }
    }

    #[test]
    fn a_call_at_a_functions_end_returns_to_that_function() {
        let symbols = Symbols::parse(TEXT.to_owned());
        let frame = symbols.return_to(0xffff_ffff_8100_0200).unwrap();
        assert_eq!(frame.to_string(), "startup+0x100");
        let frame = symbols.instruction(0xffff_ffff_8100_0200).unwrap();
        assert_eq!(frame.to_string(), "copyout.isra.0+0x0");
    }

    #[test]
    fn the_innermost_copy_is_found_unless_it_is_interrupted() {
        let stack = ["copyout.isra.0", "_copy_to_iter", "vfs_read"];
        assert_eq!(copy_routine(stack), Some("copyout.isra.0"));
        assert_eq!(copy_routine(["ext4_read", "vfs_read"]), None);
        let fault = ["filemap_fault", "asm_exc_page_fault", "_copy_to_iter"];
        assert_eq!(copy_routine(fault), None);
    }

    #[test]
    fn the_running_kernel_has_copy_routines() {
        let Ok(symbols) = Symbols::read() else {
            return;
        };
        let names = symbols.functions.iter().map(|function| {
            let (start, end) = function.name;
            &symbols.text[start..end]
        });
        let routines = names.filter(|name| is_copy_routine(name)).count();
        assert!(routines >= 4, "{routines}");
    }
}
