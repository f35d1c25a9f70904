//! The bytes of states: numbers of variable length, floats, and bounds that are checked.

use datafusion_common::{DataFusionError, Result, exec_datafusion_err};

/// LEB128: seven bits a byte, the lowest first.
pub(super) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Small numbers of either sign become small numbers without one.
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads a state's bytes.
pub(super) struct Reader<'a> {
    name: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Behind the version, which must be `version`.
    pub(super) fn new(name: &'static str, version: u8, bytes: &'a [u8]) -> Result<Self> {
        match bytes.split_first() {
            Some((found, rest)) if *found == version => Ok(Self { name, rest }),
            Some((found, _)) => Err(exec_datafusion_err!(
                "{name}: the state is of format {found}; this program reads format {version}"
            )),
            None => Err(exec_datafusion_err!("{name}: the state is empty")),
        }
    }

    pub(super) fn malformed(&self, what: &str) -> DataFusionError {
        exec_datafusion_err!("{}: the state is malformed: {what}", self.name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((bytes, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.malformed("it ends too early"));
        };
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    pub(super) fn float(&mut self) -> Result<f64> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.bytes(8)?);
        Ok(f64::from_le_bytes(bytes))
    }

    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number is too long"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_come_back_and_have_one_form_only() {
        for value in [0, 1, 127, 128, 300, u64::MAX / 3, u64::MAX] {
            let mut bytes = vec![9];
            write_varint(value, &mut bytes);
            assert_eq!(
                Reader::new("f", 9, &bytes).unwrap().varint().unwrap(),
                value
            );
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
        for bad in [&[][..], &[0x80], &[0x80, 0], &[0xff; 10], &[0xff; 11]] {
            let bytes = [&[9], bad].concat();
            assert!(
                Reader::new("f", 9, &bytes).unwrap().varint().is_err(),
                "{bad:?}"
            );
        }
        assert!(Reader::new("f", 9, &[8]).is_err());
        assert!(Reader::new("f", 9, &[]).is_err());
    }
}
