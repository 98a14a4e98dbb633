//! The data of the files: different at every place, without order, and known by its place alone.

/// The data, in one of several editions that differ at every byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Data(pub(super) u8);

/// What files are made of.
pub(super) const FIRST: Data = Data(0);
/// What is written over it.
pub(super) const SECOND: Data = Data(0x5a);

impl Data {
    /// Eight bytes, by which of them (SplitMix64).
    fn word(self, index: u64) -> [u8; 8] {
        let mut word = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31))
            .to_le_bytes()
            .map(|byte| byte ^ self.0)
    }

    /// The byte at this place.
    pub(super) fn at(self, offset: u64) -> u8 {
        self.word(offset / 8)[(offset % 8) as usize]
    }

    /// Puts what is from `offset` on, a multiple of 8, into `buffer`.
    pub(super) fn fill(self, offset: u64, buffer: &mut [u8]) {
        for (index, part) in (offset / 8..).zip(buffer.chunks_mut(8)) {
            part.copy_from_slice(&self.word(index)[..part.len()]);
        }
    }

    /// How many bytes of `buffer` are what is from `offset` on, a multiple of 8.
    pub(super) fn right(self, offset: u64, buffer: &[u8]) -> u64 {
        let parts = (offset / 8..).zip(buffer.chunks(8));
        parts
            .map(|(index, part)| {
                let word = self.word(index);
                part.iter()
                    .zip(word)
                    .filter(|(is, must)| **is == *must)
                    .count() as u64
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_right_and_in_another_edition_wrong() {
        let mut buffer = [0; 1003];
        FIRST.fill(4096, &mut buffer);
        assert_eq!(FIRST.right(4096, &buffer), 1003);
        assert_eq!(SECOND.right(4096, &buffer), 0);
        assert_eq!(FIRST.at(4096 + 1002), buffer[1002]);
    }
}
