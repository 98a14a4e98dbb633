//! Work over time, in stretches that grow with the run: the first ones are short, and whenever the
//! run has become twice as long, so do those that follow. So their number grows with the logarithm
//! of the run's length only, and at each moment the run so far has at least `half` of them, by which
//! the functions here are told how fine they are.

/// The first stretches' length, as a shift of ns: 65,536 ns.
const UNIT_SHIFT: u32 = 16;
/// How many of the timeline's stretches have the same length, but for the first ones, which are twice
/// as many.
pub const HALF: u64 = 128;

/// What a stretch did on a path: a key of the `TIMELINE` map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct StretchKey {
    /// Which stretch, from 0.
    pub stretch: u32,
    /// Which [path](crate::Path), by number.
    pub path: u32,
}

/// How many stretches are kept, path by path: entries of the `TIMELINE` map.
pub const STRETCH_SLOTS: u32 = 16_384;

/// The stretch that is in progress so long after the start.
#[inline(always)]
#[must_use]
pub fn stretch_at(half: u64, elapsed_ns: u64) -> u32 {
    let units = elapsed_ns >> UNIT_SHIFT;
    let doublings = doublings(half, units);
    (doublings as u64 * half + (units >> doublings)) as u32
}

/// How often a number can be halved and not become less than `half`: 0 if it is less.
#[inline(always)]
pub(crate) fn doublings(half: u64, number: u64) -> u32 {
    let mut doublings = 0;
    // The number of binary digits beyond `half`'s, itself digit by digit.
    let mut step = 32;
    while step > 0 {
        if number >> (doublings + step) >= half {
            doublings += step;
        }
        step /= 2;
    }
    doublings
}

/// How long a stretch is, as a shift of ns.
#[inline(always)]
#[must_use]
pub const fn width_shift(half: u64, stretch: u32) -> u32 {
    let doublings = (stretch as u64 / half).saturating_sub(1);
    UNIT_SHIFT + doublings as u32
}

/// When a stretch begins, in ns since the start.
#[inline(always)]
#[must_use]
pub const fn begins_ns(half: u64, stretch: u32) -> u64 {
    let shift = width_shift(half, stretch);
    let before = (shift - UNIT_SHIFT) as u64 * half;
    (stretch as u64 - before) << shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heat;

    #[test]
    fn stretches_follow_each_other_without_a_gap() {
        for half in [heat::HALF, HALF] {
            assert_eq!((begins_ns(half, 0), stretch_at(half, 0)), (0, 0));
            let last = 40 * half as u32;
            for stretch in 0..last {
                let begins = begins_ns(half, stretch);
                let ends = begins + (1 << width_shift(half, stretch));
                assert_eq!(stretch_at(half, begins), stretch);
                assert_eq!(stretch_at(half, ends - 1), stretch);
                assert_eq!(begins_ns(half, stretch + 1), ends);
            }
        }
    }

    #[test]
    fn a_run_has_at_least_half_and_an_hour_takes_a_few_thousand() {
        let second = 1_000_000_000;
        for half in [heat::HALF, HALF] {
            for seconds in [1, 60, 3_600, 86_400] {
                let last = stretch_at(half, seconds * second);
                let widths = (seconds * second) >> width_shift(half, last);
                assert!((half..2 * half).contains(&widths), "{seconds}: {widths}");
            }
        }
        assert_eq!(stretch_at(HALF, 3_600 * second), 2_513);
        assert_eq!(stretch_at(heat::HALF, 3_600 * second), 362);
    }
}
