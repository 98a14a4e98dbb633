//! Names for places in programs' code.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    os::fd::AsRawFd as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use blazesym::symbolize::{
    CodeInfo, Input, Symbolized, Symbolizer,
    source::{Elf, Source},
};
use mmtrace_common::{FileKey, stack::CodePlace};

use super::{
    code::{Code, Image},
    module::Module,
};
use crate::recording::INLINED_FRAME;

/// A function at a place, and where in the source that is.
type Function = (Arc<str>, Option<Arc<str>>);

/// The functions at places: several where the compiler has put one into another, the outermost
/// first.
#[derive(Default)]
pub(super) struct Names {
    places: HashMap<CodePlace, Vec<Function>>,
    wanted: BTreeMap<FileKey, BTreeSet<u64>>,
    /// What an address is of which program.
    addresses: HashMap<(Image, u64), CodePlace>,
    /// Files that have names for none of their code.
    nameless: BTreeSet<String>,
    /// How many files could not be opened: their process was gone, and they are not where it saw them.
    unopened: usize,
    /// Addresses of code that is no file's, and then their names, program by program.
    made_wanted: BTreeMap<Image, BTreeSet<u64>>,
    made: HashMap<(Image, u64), Arc<str>>,
    /// Why such names are missing.
    refused: BTreeSet<String>,
}

impl Names {
    /// Notes that names are wanted of a stack's addresses, the innermost first.
    pub(super) fn want(&mut self, image: Image, addresses: &[u64], code: &Code) {
        for (index, address) in addresses.iter().enumerate() {
            let is_file = |place: &CodePlace| code.module(&place.file).is_none_or(Module::has_code);
            let Some(place) = code.find(image, *address).filter(is_file) else {
                let wanted = self.made_wanted.entry(image).or_default();
                wanted.insert(call(*address, index > 0));
                continue;
            };
            self.addresses.insert((image, *address), place);
            let wanted = self.wanted.entry(place.file).or_default();
            wanted.insert(call(place.offset, index > 0));
        }
    }

    /// Looks all of them up, file by file.
    pub(super) fn resolve(&mut self, code: &Code) {
        for (image, addresses) in std::mem::take(&mut self.made_wanted) {
            let (names, refused) = code.made_at_run_time(image, &addresses);
            let names = names.into_iter();
            self.made
                .extend(names.map(|(address, name)| ((image, address), name)));
            self.refused.extend(refused);
        }
        let symbolizer = Symbolizer::builder()
            .enable_code_info(true)
            .enable_inlined_fns(true)
            .enable_demangling(false)
            .build();
        for (file, offsets) in std::mem::take(&mut self.wanted) {
            let Some(module) = code.module(&file) else {
                self.unopened += 1;
                continue;
            };
            let offsets: Vec<u64> = offsets.into_iter().collect();
            // The program's own file, or one that has its name in the process: reached by the
            // descriptor that is open since then.
            let path = format!("/proc/self/fd/{}", module.file.as_raw_fd());
            let source = Source::Elf(Elf::new(path));
            // What programs bring along may be damaged, on purpose too: no reason to lose the rest.
            let found = catch_unwind(AssertUnwindSafe(|| {
                symbolizer.symbolize(&source, Input::FileOffset(&offsets))
            }));
            let mut found = found
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default()
                .into_iter();
            let mut any = false;
            for offset in offsets {
                let place = CodePlace { file, offset };
                if let Some(Symbolized::Sym(symbol)) = found.next() {
                    any = true;
                    let mut functions = vec![(
                        Arc::from(&*demangled(&symbol.name)),
                        symbol.code_info.as_deref().and_then(line),
                    )];
                    functions.extend(symbol.inlined.iter().map(|inlined| {
                        let name = format!("{}{INLINED_FRAME}", demangled(&inlined.name));
                        (Arc::from(name), inlined.code_info.as_ref().and_then(line))
                    }));
                    self.places.insert(place, functions);
                } else {
                    let go_name = module.go_name(offset);
                    any |= go_name.is_some();
                    let name = go_name.unwrap_or_else(|| module.nameless(offset));
                    let name = Arc::from(name);
                    self.places.insert(place, vec![(name, None)]);
                }
            }
            if !any {
                self.nameless.insert(module.name.clone());
            }
        }
    }

    /// Adds the functions at an address to a stack that is put together from the outermost.
    /// `returns`: it is where a call returns to.
    pub(super) fn add(
        &self,
        image: Image,
        address: u64,
        returns: bool,
        frames: &mut Vec<Arc<str>>,
        sources: &mut Vec<Option<Arc<str>>>,
    ) {
        let place = self.addresses.get(&(image, address));
        let functions = place.and_then(|place| {
            let offset = call(place.offset, returns);
            self.places.get(&CodePlace {
                offset,
                file: place.file,
            })
        });
        match functions {
            Some(functions) => {
                for (name, source) in functions {
                    frames.push(name.clone());
                    sources.push(source.clone());
                }
            }
            None => {
                let made = self.made.get(&(image, call(address, returns)));
                frames.push(made.cloned().unwrap_or_else(|| Arc::from("[unknown]")));
                sources.push(None);
            }
        }
    }

    /// Whether anything is known of an address.
    pub(super) fn knows(&self, image: Image, address: u64, returns: bool) -> bool {
        let made = (image, call(address, returns));
        self.addresses.contains_key(&(image, address)) || self.made.contains_key(&made)
    }

    /// What has no names, in words.
    pub(super) fn notes(&self) -> Vec<String> {
        let names: Vec<_> = self.nameless.iter().map(String::as_str).collect();
        let mut notes = Vec::new();
        if !names.is_empty() {
            notes.push(format!("no symbols in {}", names.join(", ")));
        }
        if self.unopened > 0 {
            notes.push(format!(
                "no names from files that were not opened before their processes were gone: {} of these",
                self.unopened
            ));
        }
        notes.extend(self.refused.iter().cloned());
        notes
    }
}

/// The place of the call, of the place that it returns to: that may be the next function's.
fn call(offset: u64, returns: bool) -> u64 {
    offset.saturating_sub(u64::from(returns))
}

/// A symbol's name as the source has it, if it is a mangled one of Rust or C++.
fn demangled(name: &str) -> Cow<'_, str> {
    if let Ok(function) = rustc_demangle::try_demangle(name) {
        return Cow::Owned(format!("{function:#}"));
    }
    // Without that, names such as `h` are types.
    if !name.starts_with("_Z") {
        return Cow::Borrowed(name);
    }
    // What programs bring along may be made to do harm.
    let demangle = || cpp_demangle::Symbol::new(name).ok()?.demangle().ok();
    catch_unwind(demangle)
        .ok()
        .flatten()
        .map_or(Cow::Borrowed(name), Cow::Owned)
}

fn line(info: &CodeInfo<'_>) -> Option<Arc<str>> {
    let line = info.line?;
    Some(Arc::from(format!("{}:{line}", info.to_path().display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_the_source_has_them() {
        for (symbol, name) in [
            ("h", "h"),
            ("main", "main"),
            ("_Z", "_Z"),
            ("_start", "_start"),
            ("_ZN4shop6Reader5smallEi", "shop::Reader::small(int)"),
            (
                "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE",
                "core::fmt::Write::write_fmt",
            ),
            ("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"),
        ] {
            assert_eq!(demangled(symbol), name);
        }
    }
}
