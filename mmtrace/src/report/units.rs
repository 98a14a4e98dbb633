//! Numbers as people read them: counts with separators, bytes and times with a unit.

use crate::recording::Unit;

/// A number and its unit, apart so that columns can align both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) number: String,
    /// Empty for counts and for zero.
    pub(crate) unit: &'static str,
}

impl std::fmt::Display for Amount {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let space = if self.unit.is_empty() { "" } else { " " };
        write!(formatter, "{}{space}{}", self.number, self.unit)
    }
}

/// `value` in the unit that suits its size. Zero is a plain 0, whatever it counts.
pub(crate) fn amount(value: u64, unit: Unit) -> Amount {
    match unit {
        _ if value == 0 => Amount {
            number: "0".into(),
            unit: "",
        },
        Unit::Count => Amount {
            number: count(value),
            unit: "",
        },
        Unit::Bytes => bytes(value),
        Unit::Nanoseconds => time(value),
    }
}

/// `value` with thousands separators.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut separated = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            separated.push(',');
        }
        separated.push(digit);
    }
    separated
}

/// Below this, bytes are shown one by one.
const EXACT_BELOW_BYTES: u64 = 10 << 10;

fn bytes(value: u64) -> Amount {
    if value < EXACT_BELOW_BYTES {
        return Amount {
            number: count(value),
            unit: "B",
        };
    }
    // Tenths, rounded to the nearest; the next unit when they would show as 1024.0 or more.
    let tenths = |shift: u32| ((u128::from(value) * 10 + (1 << (shift - 1))) >> shift) as u64;
    let (shift, unit) = [
        (10, "KiB"),
        (20, "MiB"),
        (30, "GiB"),
        (40, "TiB"),
        (50, "PiB"),
    ]
    .into_iter()
    .find(|&(shift, _)| tenths(shift) < 10_240)
    .unwrap_or((60, "EiB"));
    let tenths = tenths(shift);
    Amount {
        number: format!("{}.{}", tenths / 10, tenths % 10),
        unit,
    }
}

fn time(value_ns: u64) -> Amount {
    let (scale_ns, unit) = match value_ns {
        0..1_000 => {
            return Amount {
                number: value_ns.to_string(),
                unit: "ns",
            };
        }
        // Each bound is where three digits would round up to the next unit.
        1_000..999_500 => (1_000, "us"),
        999_500..999_500_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let hundredths = (u128::from(value_ns) * 100 + scale_ns / 2) / scale_ns;
    let tenths = (u128::from(value_ns) * 10 + scale_ns / 2) / scale_ns;
    let number = if hundredths < 1_000 {
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    } else if tenths < 1_000 {
        format!("{}.{}", tenths / 10, tenths % 10)
    } else {
        count(((u128::from(value_ns) + scale_ns / 2) / scale_ns) as u64)
    };
    Amount { number, unit }
}

/// `part` of `whole` in percent. A share that is neither none nor all never shows as one of these.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0 %".into();
    }
    if part == whole {
        return "100 %".into();
    }
    let whole = u128::from(whole);
    match (u128::from(part) * 1_000 + whole / 2) / whole {
        0 if part > 0 => "<0.1 %".into(),
        1_000.. if u128::from(part) < whole => ">99.9 %".into(),
        permille => format!("{}.{} %", permille / 10, permille % 10),
    }
}

/// `value` things: `1 process`, `2,000 processes`.
pub(crate) fn counted(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(value), if value == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: u64, unit: Unit) -> String {
        amount(value, unit).to_string()
    }

    #[test]
    fn counts_are_separated_by_thousands() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(shown(value, Unit::Count), text);
        }
    }

    #[test]
    fn bytes_are_exact_when_few() {
        for (value, text) in [
            (0, "0"),
            (1, "1 B"),
            (10_239, "10,239 B"),
            (10_240, "10.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1_048_524, "1023.9 KiB"),
            (268_435_456, "256.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(shown(value, Unit::Bytes), text);
        }
    }

    #[test]
    fn times_have_three_digits() {
        for (value, text) in [
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (9_999, "10.0 us"),
            (99_960, "100 us"),
            (999_499, "999 us"),
            (999_500, "1.00 ms"),
            (410_000_000, "410 ms"),
            (999_500_000, "1.00 s"),
            (1_234_567_000_000, "1,235 s"),
        ] {
            assert_eq!(shown(value, Unit::Nanoseconds), text);
        }
    }

    #[test]
    fn a_small_share_is_not_none_and_a_large_one_not_all() {
        for (part, whole, text) in [
            (0, 0, "0 %"),
            (0, 7, "0.0 %"),
            (1, 1_000_000, "<0.1 %"),
            (1, 3, "33.3 %"),
            (999_999, 1_000_000, ">99.9 %"),
            (7, 7, "100 %"),
            (u64::MAX, u64::MAX, "100 %"),
        ] {
            assert_eq!(percent(part, whole), text);
        }
    }
}
