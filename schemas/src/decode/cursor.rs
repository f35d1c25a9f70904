//! Reading Avro's binary encoding, every length checked against the bytes that are there.

/// What is wrong with a record's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the record ends within it")]
    End,
    #[error("its number is longer than 10 bytes")]
    LongNumber,
    #[error("its number is too large for an int")]
    LargeInt,
    #[error("its length is negative")]
    Length,
    #[error("it is no UTF-8 text")]
    Text,
    #[error("it is no UUID")]
    Uuid,
    #[error("it is {0}, and a boolean is 0 or 1")]
    Boolean(u8),
    #[error("it takes branch {0} of a union that has none of that number")]
    Branch(i64),
    #[error("it is symbol {0} of an enumeration that has none of that number")]
    Symbol(i64),
    #[error("its block's size is not that of its items")]
    BlockSize,
    #[error("it has more items than a record may have")]
    Items,
    #[error("{0} bytes are left over behind the last field")]
    Trailing(usize),
    #[error("it is null, and the reader's schema has no null there")]
    Null,
}

/// The bytes of a record that are still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    #[inline(always)]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Fault::End)?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(Fault::End)?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// The zigzag number's bits, least 7 first.
    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Fault> {
        match self.bytes {
            [first, rest @ ..] if *first < 0x80 => {
                self.bytes = rest;
                Ok(u64::from(*first))
            }
            _ => self.long_varint(),
        }
    }

    #[inline]
    fn long_varint(&mut self) -> Result<u64, Fault> {
        if let Some(word) = self.bytes.first_chunk::<8>() {
            let word = u64::from_le_bytes(*word);
            let last = !word & 0x8080_8080_8080_8080;
            if last != 0 {
                // The highest bit of each byte says whether another follows: the groups of 7 bits are drawn together.
                let used = last.trailing_zeros() / 8 + 1;
                let word = word & (u64::MAX >> (64 - 8 * used)) & 0x7f7f_7f7f_7f7f_7f7f;
                let word = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
                let word = (word & 0x0000_3fff_0000_3fff) | ((word & 0x3fff_0000_3fff_0000) >> 2);
                let word = (word & 0x0000_0000_0fff_ffff) | ((word & 0x0fff_ffff_0000_0000) >> 4);
                self.bytes = &self.bytes[used as usize..];
                return Ok(word);
            }
        }
        self.slow_varint()
    }

    #[cold]
    fn slow_varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0u64;
        for (index, byte) in self.bytes.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                if index == 9 && *byte > 1 {
                    return Err(Fault::LongNumber);
                }
                self.bytes = &self.bytes[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.bytes.len() < 10 {
            Fault::End
        } else {
            Fault::LongNumber
        })
    }

    #[inline(always)]
    pub(crate) fn long(&mut self) -> Result<i64, Fault> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    #[inline(always)]
    pub(crate) fn int(&mut self) -> Result<i32, Fault> {
        let before = self.bytes.len();
        let zigzag = u32::try_from(self.varint()?).map_err(|_| Fault::LargeInt)?;
        if before - self.bytes.len() > 5 {
            return Err(Fault::LargeInt);
        }
        Ok((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32))
    }

    #[inline(always)]
    pub(crate) fn float(&mut self) -> Result<f32, Fault> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    #[inline(always)]
    pub(crate) fn double(&mut self) -> Result<f64, Fault> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    #[inline(always)]
    pub(crate) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Fault::Boolean(other)),
        }
    }

    #[inline(always)]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(self.long()?).map_err(|_| Fault::Length)?;
        self.take(length)
    }

    #[inline(always)]
    pub(crate) fn text(&mut self) -> Result<&'a [u8], Fault> {
        let bytes = self.bytes()?;
        if bytes.is_ascii() || std::str::from_utf8(bytes).is_ok() {
            Ok(bytes)
        } else {
            Err(Fault::Text)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn zigzag(value: i64) -> Vec<u8> {
        apache_avro::writer::datum::GenericDatumWriter::builder(&apache_avro::Schema::Long)
            .build()
            .unwrap()
            .write_value_to_vec(value)
            .unwrap()
    }

    #[test]
    fn numbers_of_every_length_are_read_as_they_were_written() {
        let mut values = vec![0, 1, -1, i64::MAX, i64::MIN];
        for bits in 0..63 {
            values.extend([
                1i64 << bits,
                -(1i64 << bits),
                (1i64 << bits) - 1,
                (1i64 << bits) + 1,
            ]);
        }
        for value in values {
            for tail in [0, 1, 20] {
                let mut bytes = zigzag(value);
                bytes.extend(std::iter::repeat_n(0xff, tail));
                let mut cursor = Cursor::new(&bytes);
                assert_eq!(cursor.long(), Ok(value));
                assert_eq!(cursor.bytes.len(), tail);
                let as_int = Cursor::new(&bytes).int();
                assert_eq!(as_int, i32::try_from(value).map_err(|_| Fault::LargeInt));
            }
        }
    }

    #[test]
    fn numbers_without_an_end_are_faults() {
        assert_eq!(Cursor::new(&[]).long(), Err(Fault::End));
        assert_eq!(Cursor::new(&[0x80; 9]).long(), Err(Fault::End));
        assert_eq!(Cursor::new(&[0x80; 12]).long(), Err(Fault::LongNumber));
        assert_eq!(
            Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).long(),
            Err(Fault::LongNumber)
        );
        assert_eq!(
            Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).int(),
            Err(Fault::LargeInt)
        );
    }
}
