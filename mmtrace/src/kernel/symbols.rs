//! Addresses of the kernel's functions.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
};

use anyhow::{Context as _, Result, ensure};

use super::refusal::{Asked, Cause, Refusal};

/// Where the kernel lists its symbols with their addresses, its own before those of modules and in
/// the order of their addresses.
const SYMBOLS: &str = "/proc/kallsyms";

/// Where a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its first instruction.
    pub start: u64,
    /// Where the next symbol is.
    pub end: u64,
}

/// Finds functions of the kernel itself: those of `names` that there are. Of two with one name the
/// first.
///
/// # Errors
///
/// If the list cannot be read, or the kernel hides addresses.
pub fn find<'a>(names: &[&'a str]) -> Result<HashMap<&'a str, Function>> {
    let file = File::open(SYMBOLS).with_context(|| format!("cannot read {SYMBOLS}"))?;
    find_in(BufReader::with_capacity(1 << 16, file), names).with_context(|| format!("in {SYMBOLS}"))
}

/// Where a function of the kernel itself begins.
///
/// # Errors
///
/// As [`find`], and if there is none of this name.
pub fn address(name: &str) -> Result<u64> {
    let found = find(&[name])?;
    found
        .get(name)
        .map(|function| function.start)
        .with_context(|| format!("this kernel has no function {name}"))
}

fn find_in<'a>(mut list: impl BufRead, names: &[&'a str]) -> Result<HashMap<&'a str, Function>> {
    let mut found = HashMap::new();
    let mut open: Option<(&'a str, u64)> = None;
    let mut line = Vec::new();
    while list.read_until(b'\n', &mut line)? != 0 {
        let Some((address, name)) = parse(&line) else {
            // The module's name stands after a tab: all of the kernel's own have come.
            break;
        };
        if let Some((name, start)) = open
            && address != start
        {
            found.entry(name).or_insert(Function {
                start,
                end: address,
            });
            open = None;
        }
        if open.is_none()
            && let Some(wanted) = names.iter().find(|wanted| wanted.as_bytes() == name)
        {
            ensure!(
                address != 0,
                Refusal::new(
                    Asked::Addresses,
                    Cause::Different,
                    "the kernel hides its addresses (kernel.kptr_restrict, or CAP_SYSLOG is \
                     missing)"
                )
            );
            open = Some((wanted, address));
        }
        line.clear();
    }
    Ok(found)
}

/// The address and name in a line such as `ffffffff81000000 T _text`.
fn parse(line: &[u8]) -> Option<(u64, &[u8])> {
    let (address, rest) = line.split_at_checked(16)?;
    let address = u64::from_str_radix(str::from_utf8(address).ok()?, 16).ok()?;
    let [b' ', _, b' ', name @ .., b'\n'] = rest else {
        return None;
    };
    (!name.contains(&b'\t')).then_some((address, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_end_where_the_next_one_begins() {
        let list = "ffffffff81000000 T _text\n\
            ffffffff81000010 T _copy_to_iter\n\
            ffffffff81000010 t alias\n\
            ffffffff81000090 T _copy_to_user\n\
            ffffffff810000a0 t last\n\
            ffffffffc0000000 t of_module\t[module]\n\
            ffffffffc0000010 t last\t[module]\n";
        let found = find_in(list.as_bytes(), &["_copy_to_iter", "of_module", "absent"]).unwrap();
        let function = Function {
            start: 0xffff_ffff_8100_0010,
            end: 0xffff_ffff_8100_0090,
        };
        assert_eq!(found, HashMap::from([("_copy_to_iter", function)]));
    }

    #[test]
    fn hidden_addresses_are_an_error() {
        let list = "0000000000000000 T _copy_to_iter\n0000000000000000 T next\n";
        let error = find_in(list.as_bytes(), &["_copy_to_iter"]).unwrap_err();
        assert!(error.to_string().contains("kptr_restrict"), "{error}");
    }
}
