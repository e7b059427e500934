//! Values: their names, types and data.

use super::{COMPRESSED_VALUE_NAME, Hive, NODE_BYTES_MAX, name_text};
use crate::bytes::{array, le_u16, le_u32, slice};
use crate::error::{Error, Result};

/// Bytes of a value node without its name.
const VALUE_NODE_BYTES: usize = 20;
/// The bit of a size that says that the data stands in place of its offset.
const INLINE: u32 = 1 << 31;
/// Bytes of data in one segment of big data; data of this size is in one cell (specification, "Big data").
const SEGMENT_BYTES: usize = 16_344;
/// Seconds from 1601-01-01, where a FILETIME begins, to 1970-01-01.
const FILETIME_TO_UNIX_SECONDS: i64 = 11_644_473_600;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// `REG_NONE`.
    None,
    /// `REG_SZ`: text.
    Text,
    /// `REG_EXPAND_SZ`: text with names of environment variables.
    ExpandText,
    /// `REG_BINARY`.
    Binary,
    /// `REG_DWORD`.
    Number,
    /// `REG_DWORD_BIG_ENDIAN`.
    BigEndianNumber,
    /// `REG_LINK`: the path of another key.
    Link,
    /// `REG_MULTI_SZ`.
    Texts,
    /// `REG_RESOURCE_LIST`.
    ResourceList,
    /// `REG_FULL_RESOURCE_DESCRIPTOR`.
    ResourceDescriptor,
    /// `REG_RESOURCE_REQUIREMENTS_LIST`.
    ResourceRequirements,
    /// `REG_QWORD`.
    LongNumber,
    /// Any other: device properties and the store of applications have their own.
    Other(u32),
}

impl ValueType {
    const fn new(number: u32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Text,
            2 => Self::ExpandText,
            3 => Self::Binary,
            4 => Self::Number,
            5 => Self::BigEndianNumber,
            6 => Self::Link,
            7 => Self::Texts,
            8 => Self::ResourceList,
            9 => Self::ResourceDescriptor,
            10 => Self::ResourceRequirements,
            11 => Self::LongNumber,
            other => Self::Other(other),
        }
    }
}

/// One value of a key.
#[derive(Debug, Clone)]
pub struct Value<'h> {
    hive: &'h Hive,
    offset: u32,
    name: String,
    kind: ValueType,
    size: u32,
    data: [u8; 4],
}

impl<'h> Value<'h> {
    pub(super) fn read(hive: &'h Hive, offset: u32) -> Result<Self> {
        let corrupt = |why: &str| Error::corrupt("registry value", u64::from(offset), why);
        let node = hive.cell(offset, NODE_BYTES_MAX, "registry value")?;
        if !node.starts_with(b"vk") {
            return Err(corrupt("it has no signature vk"));
        }
        let short = || corrupt("it is cut off");
        let name_bytes = usize::from(le_u16(&node, 2).ok_or_else(short)?);
        let flags = le_u16(&node, 16).ok_or_else(short)?;
        let name = slice(&node, VALUE_NODE_BYTES, name_bytes);
        // A default value's node may end where its name would begin.
        let name = if name_bytes == 0 { &[] } else { name.ok_or_else(|| corrupt("its name leaves its cell"))? };
        Ok(Self {
            hive,
            offset,
            name: name_text(name, flags & COMPRESSED_VALUE_NAME != 0),
            kind: ValueType::new(le_u32(&node, 12).ok_or_else(short)?),
            size: le_u32(&node, 4).ok_or_else(short)?,
            data: array(&node, 8).ok_or_else(short)?,
        })
    }

    /// Its name; empty for the default value.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> ValueType {
        self.kind
    }

    /// Bytes of its data.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size & !INLINE
    }

    /// Its data.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the data leaves its cells; [`Error::LimitReached`] for more than
    /// [`crate::Limits::allocation_bytes`]; limits and I/O.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let corrupt = |why: String| Error::corrupt("registry value", u64::from(self.offset), why);
        let size = usize::try_from(self.size()).unwrap_or(usize::MAX);
        if self.size & INLINE != 0 {
            let data = self.data.get(..size).map(<[u8]>::to_vec);
            return data.ok_or_else(|| corrupt(format!("{size} bytes do not fit into an offset")));
        }
        if size == 0 {
            return Ok(Vec::new());
        }
        let at = u32::from_le_bytes(self.data);
        let length = self.hive.cell_length(at, "registry value's data")?;
        if size > SEGMENT_BYTES && self.hive.base.minor > 3 && length < size {
            return self.big_data(at, size);
        }
        if length < size {
            return Err(corrupt(format!("its {size} bytes do not fit into a cell of {length}")));
        }
        self.hive.read(at.saturating_add(4), size)
    }

    /// Data in segments. Source: specification, "Big data".
    fn big_data(&self, at: u32, size: usize) -> Result<Vec<u8>> {
        let structure = "registry big data";
        let corrupt = |why: &str| Error::corrupt(structure, u64::from(at), why);
        let header = self.hive.cell(at, 8, structure)?;
        if !header.starts_with(b"db") {
            return Err(corrupt("it has no signature db"));
        }
        let (count, list_at) = le_u16(&header, 2).zip(le_u32(&header, 4)).ok_or_else(|| corrupt("it is cut off"))?;
        let segments_bytes = usize::from(count) * SEGMENT_BYTES;
        if segments_bytes < size || u64::from(self.size()) > u64::from(self.hive.base.bins_bytes) {
            return Err(corrupt("its segments hold less than the value has"));
        }
        let list = self.hive.cell(list_at, usize::from(count) * 4, structure)?;
        let mut data = Vec::new();
        for segment in list.as_chunks::<4>().0 {
            let wanted = (size - data.len()).min(SEGMENT_BYTES);
            if wanted == 0 {
                break;
            }
            let part = self.hive.cell(u32::from_le_bytes(*segment), wanted, structure)?;
            if part.len() < wanted {
                return Err(corrupt("a segment is too short"));
            }
            data.extend_from_slice(&part);
        }
        if data.len() < size { Err(corrupt("its list of segments is too short")) } else { Ok(data) }
    }

    /// Its text up to the first zero, where it is of a type that has one.
    ///
    /// # Errors
    /// As [`Value::bytes`].
    pub fn text(&self) -> Result<Option<String>> {
        match self.kind {
            ValueType::Text | ValueType::ExpandText | ValueType::Link => Ok(Some(utf16_text(&self.bytes()?))),
            _ => Ok(None),
        }
    }

    /// Its texts, where it is of the type that has several; the empty one that ends them is left out.
    ///
    /// # Errors
    /// As [`Value::bytes`].
    pub fn texts(&self) -> Result<Option<Vec<String>>> {
        if self.kind != ValueType::Texts {
            return Ok(None);
        }
        let bytes = self.bytes()?;
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        let texts = units.split(|unit| *unit == 0).filter(|text| !text.is_empty());
        Ok(Some(texts.map(String::from_utf16_lossy).collect()))
    }

    /// Its number, where it is of a type that has one; `None` also where the data is too short for it.
    ///
    /// # Errors
    /// As [`Value::bytes`].
    pub fn number(&self) -> Result<Option<u64>> {
        Ok(match self.kind {
            ValueType::Number => le_u32(&self.bytes()?, 0).map(u64::from),
            ValueType::BigEndianNumber => crate::bytes::be_u32(&self.bytes()?, 0).map(u64::from),
            ValueType::LongNumber => crate::bytes::le_u64(&self.bytes()?, 0),
            _ => None,
        })
    }
}

/// UTF-16LE up to the first zero; lone surrogates become replacement characters, a last odd byte is no unit.
#[must_use]
pub fn utf16_text(bytes: &[u8]) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A FILETIME (steps of 100 ns since 1601-01-01 UTC) as seconds since 1970-01-01; `None` for zero and for "never".
#[must_use]
pub const fn filetime_seconds(time: u64) -> Option<i64> {
    if time == 0 || time >= i64::MAX.cast_unsigned() {
        return None;
    }
    Some((time / 10_000_000).cast_signed() - FILETIME_TO_UNIX_SECONDS)
}
