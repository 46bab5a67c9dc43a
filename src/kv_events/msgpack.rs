//! Just enough of `MessagePack` to read events: no tree, no recursion, nothing allocated by what a length announces.

/// A value's head; of a scalar all of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Item<'a> {
    Nil,
    Bool(bool),
    /// Negative ones as their two's complement.
    Int(u64),
    Float(f64),
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// So many values follow.
    Array(u32),
    /// So many pairs follow.
    Map(u32),
    Other,
}

/// Reads values one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes left: more values than that cannot follow.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn uint(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// A signed number of so many bytes, its sign carried up.
    fn int(&mut self, bytes: usize) -> Option<u64> {
        let shift = 64 - 8 * bytes as u32;
        let value = self.uint(bytes)? << shift;
        Some((value.cast_signed() >> shift).cast_unsigned())
    }

    fn length(&mut self, bytes: usize) -> Option<usize> {
        usize::try_from(self.uint(bytes)?).ok()
    }

    fn count(&mut self, bytes: usize) -> Option<u32> {
        u32::try_from(self.uint(bytes)?).ok()
    }

    /// The next head; `None` at the end, or if the bytes are cut.
    pub(super) fn next(&mut self) -> Option<Item<'a>> {
        let mark = *self.take(1)?.first()?;
        Some(match mark {
            0x00..=0x7f => Item::Int(u64::from(mark)),
            0x80..=0x8f => Item::Map(u32::from(mark & 0x0f)),
            0x90..=0x9f => Item::Array(u32::from(mark & 0x0f)),
            0xa0..=0xbf => Item::Text(self.take(usize::from(mark & 0x1f))?),
            0xc0 => Item::Nil,
            0xc2 | 0xc3 => Item::Bool(mark == 0xc3),
            0xc4..=0xc6 => {
                let length = self.length(1 << (mark - 0xc4))?;
                Item::Bytes(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (mark - 0xc7))?;
                self.take(length.checked_add(1)?)?;
                Item::Other
            }
            0xca => Item::Float(f64::from(f32::from_bits(self.uint(4)? as u32))),
            0xcb => Item::Float(f64::from_bits(self.uint(8)?)),
            0xcc..=0xcf => Item::Int(self.uint(1 << (mark - 0xcc))?),
            0xd0..=0xd3 => Item::Int(self.int(1 << (mark - 0xd0))?),
            0xd4..=0xd8 => {
                self.take(1 + (1 << (mark - 0xd4)))?;
                Item::Other
            }
            0xd9..=0xdb => {
                let length = self.length(1 << (mark - 0xd9))?;
                Item::Text(self.take(length)?)
            }
            0xdc | 0xdd => Item::Array(self.count(2 << (mark - 0xdc))?),
            0xde | 0xdf => Item::Map(self.count(2 << (mark - 0xde))?),
            // Never used.
            0xc1 => return None,
            0xe0..=0xff => Item::Int(i64::from(mark.cast_signed()).cast_unsigned()),
        })
    }

    /// Passes over one value, whatever it is, and returns its bytes.
    pub(super) fn skip(&mut self) -> Option<&'a [u8]> {
        let start = self.rest;
        let mut left = 1_u64;
        while left > 0 {
            left = match self.next()? {
                Item::Array(count) => left + u64::from(count),
                Item::Map(pairs) => left + 2 * u64::from(pairs),
                _ => left,
            } - 1;
        }
        start.get(..start.len() - self.rest.len())
    }

    /// A reader of the next value alone.
    pub(super) fn value(&mut self) -> Option<Self> {
        self.skip().map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_of_every_width_are_read() {
        fn read(bytes: &[u8]) -> Option<Item<'_>> {
            Reader::new(bytes).next()
        }
        assert_eq!(read(&[0x7f]), Some(Item::Int(127)));
        assert_eq!(read(&[0xff]), Some(Item::Int(u64::MAX)));
        assert_eq!(read(&[0xcd, 1, 2]), Some(Item::Int(258)));
        assert_eq!(read(&[0xd1, 0xff, 0xfe]), Some(Item::Int((-2_i64).cast_unsigned())));
        assert_eq!(read(&[0xcf, 0xff, 0, 0, 0, 0, 0, 0, 1]), Some(Item::Int(0xff00_0000_0000_0001)));
        assert_eq!(read(&[0xd3, 0xff, 0, 0, 0, 0, 0, 0, 1]), Some(Item::Int(0xff00_0000_0000_0001)));
        assert_eq!(read(&[0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]), Some(Item::Float(1.0)));
    }

    #[test]
    fn what_is_announced_but_not_there_is_not_read() {
        for bytes in [&[0xdb, 0xff, 0xff, 0xff, 0xff][..], &[0xc6, 0, 0, 1, 0, 7], &[0xdd, 1, 1], &[0xa2, b'a'], &[]] {
            assert_eq!(Reader::new(bytes).next(), None, "{bytes:?}");
        }
        assert_eq!(Reader::new(&[0xdd, 0xff, 0xff, 0xff, 0xff, 0x01]).skip(), None);
    }

    #[test]
    fn nested_values_are_passed_over_whole() {
        // {"a": [1, {"b": nil}], "c": bin}, 5
        let bytes = [0x82, 0xa1, b'a', 0x92, 1, 0x81, 0xa1, b'b', 0xc0, 0xa1, b'c', 0xc4, 2, 9, 9, 5];
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.skip().map(<[u8]>::len), Some(bytes.len() - 1));
        assert_eq!((reader.next(), reader.next()), (Some(Item::Int(5)), None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            while let Some(value) = reader.skip() {
                prop_assert!(!value.is_empty());
            }
        }
    }
}
