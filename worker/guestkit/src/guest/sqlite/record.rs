//! Records: the values of one row. Source: "Database File Format", section 2.1, "Record Format".

use std::borrow::Cow;

use crate::bytes::{array, slice};

use super::{Encoding, Value};

/// Columns of one table: SQLite's own bound (SQLITE_MAX_COLUMN).
const COLUMNS_MAX: usize = 32_767;

/// The values of a row, told apart and not yet decoded.
#[derive(Debug)]
pub(super) struct Values<'a> {
    encoding: Encoding,
    /// Serial type and stored bytes of each column.
    columns: Vec<(u64, &'a [u8])>,
}

impl<'a> Values<'a> {
    /// `None` where the record contradicts itself.
    pub(super) fn parse(payload: &'a [u8], encoding: Encoding) -> Option<Self> {
        let (header_bytes, mut at) = varint(payload)?;
        let header_bytes = usize::try_from(header_bytes).ok()?;
        let header = payload.get(..header_bytes)?;
        let mut body = header_bytes;
        let mut columns = Vec::new();
        while at < header_bytes {
            if columns.len() >= COLUMNS_MAX {
                return None;
            }
            let (serial, used) = varint(header.get(at..)?)?;
            at = at.checked_add(used)?;
            let length = stored_bytes(serial)?;
            columns.push((serial, slice(payload, body, length)?));
            body = body.checked_add(length)?;
        }
        Some(Self { encoding, columns })
    }

    /// The value of a column; null where the row has no such column.
    pub(super) fn get(&self, column: usize) -> Value<'a> {
        match self.columns.get(column) {
            Some((serial, bytes)) => value(*serial, bytes, self.encoding),
            None => Value::Null,
        }
    }
}

fn stored_bytes(serial: u64) -> Option<usize> {
    match serial {
        0 | 8 | 9 => Some(0),
        1..=4 => usize::try_from(serial).ok(),
        5 => Some(6),
        6 | 7 => Some(8),
        // Reserved for SQLite's own use; never in a file.
        10 | 11 => None,
        _ => usize::try_from(serial.checked_sub(12)? / 2).ok(),
    }
}

fn value<'a>(serial: u64, bytes: &'a [u8], encoding: Encoding) -> Value<'a> {
    match serial {
        1..=6 => Value::Integer(integer(bytes)),
        7 => array(bytes, 0).map_or(Value::Null, |bytes| Value::Real(f64::from_be_bytes(bytes))),
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        12.. if serial.is_multiple_of(2) => Value::Blob(bytes),
        13.. => Value::Text(text(bytes, encoding)),
        _ => Value::Null,
    }
}

/// A big-endian two's complement number of up to eight bytes.
fn integer(bytes: &[u8]) -> i64 {
    let is_negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
    let start: i64 = if is_negative { -1 } else { 0 };
    bytes.iter().fold(start, |number, byte| (number << 8) | i64::from(*byte))
}

fn text(bytes: &[u8], encoding: Encoding) -> Cow<'_, str> {
    let from_units = |unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks().0.iter().map(|pair| unit(*pair)).collect();
        Cow::Owned(String::from_utf16_lossy(&units))
    };
    match encoding {
        Encoding::Utf8 => String::from_utf8_lossy(bytes),
        Encoding::Utf16Le => from_units(u16::from_le_bytes),
        Encoding::Utf16Be => from_units(u16::from_be_bytes),
    }
}

/// A number of one to nine bytes, seven bits in each but the ninth, which has eight; and how many bytes it took.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(8) {
        number = (number << 7) | u64::from(byte & 0x7f);
        if *byte < 0x80 {
            return Some((number, index.saturating_add(1)));
        }
    }
    let ninth = bytes.get(8)?;
    Some(((number << 8) | u64::from(*ninth), 9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_every_width() {
        let cases: [(&[u8], i64); 5] = [
            (&[0x7f], 127),
            (&[0xff], -1),
            (&[0x80, 0], -32_768),
            (&[0, 0x80, 0], 32_768),
            (&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], i64::MAX),
        ];
        for (bytes, number) in cases {
            assert_eq!(integer(bytes), number);
        }
        assert_eq!(varint(&[0x81, 0]), Some((128, 2)));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0xff; 8]), None);
        assert_eq!(varint(&[]), None);
    }

    #[test]
    fn values_have_their_class() {
        // Header of 7 bytes: null, 0, 1, a byte, text of 2 bytes, a blob of 1 byte.
        let record = [7, 0, 8, 9, 1, 17, 14, 0xfe, b'h', b'i', 0xaa];
        let values = Values::parse(&record, Encoding::Utf8).unwrap();
        let expected = [
            Value::Null,
            Value::Integer(0),
            Value::Integer(1),
            Value::Integer(-2),
            Value::Text("hi".into()),
            Value::Blob(&[0xaa]),
            Value::Null,
        ];
        for (column, expected) in expected.into_iter().enumerate() {
            assert_eq!(values.get(column), expected, "{column}");
        }
        assert!(Values::parse(&record[..10], Encoding::Utf8).is_none());
        assert!(Values::parse(&[2, 10], Encoding::Utf8).is_none());
        assert_eq!(text(&[b'h', 0, b'i', 0], Encoding::Utf16Le), "hi");
        assert_eq!(text(&[0, b'h', 0, b'i'], Encoding::Utf16Be), "hi");
    }
}
