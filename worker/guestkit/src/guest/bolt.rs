//! Bolt databases (bbolt), read only: buckets in buckets of keys and values, as containerd keeps what it knows. Two header pages
//! take turns; of those whose sum is right the newer is the committed one.
//!
//! Source: bbolt's `internal/common/page.go`, `meta.go`, `bucket.go` (layouts); all numbers have the byte order of the machine,
//! which is little-endian on every one that containers run on here.
#![deny(clippy::indexing_slicing)]

use std::collections::HashSet;

use crate::bytes::{le_u16, le_u32, le_u64, slice, sum_holds};
use crate::error::{Error, Result};
use crate::read_at::ReadAt;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const PAGE_HEADER_BYTES: usize = 16;
/// Of the meta structure after its page's header; the last eight are its sum.
const META_BYTES: usize = 64;
/// Of a bucket's own header, in its value.
const BUCKET_HEADER_BYTES: usize = 16;
/// An element of a branch and of a leaf.
const ELEMENT_BYTES: usize = 16;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
/// Of a leaf's element: its value is a bucket.
const IS_BUCKET: u32 = 0x01;
/// Page sizes are those of machines.
const PAGE_BYTES: std::ops::RangeInclusive<u32> = 1_024..=65_536;
/// Pages below one another: a tree of this depth over pages of 4 KiB would not fit on a disk.
const DEPTH_MAX: u32 = 16;
/// Bytes of one page with what overflows it: values of containerd are kilobytes.
const PAGE_RUN_BYTES_MAX: u64 = 16 << 20;
/// Keys of one bucket: a node that keeps more images than this has no room left.
const KEYS_MAX: usize = 100_000;

/// A database, opened.
#[derive(Debug)]
pub(crate) struct Bolt<'a> {
    file: &'a dyn ReadAt,
    page_bytes: u32,
    root: u64,
}

/// Keys and values in order of key.
#[derive(Debug)]
pub(crate) struct Bucket {
    entries: Vec<(Vec<u8>, Value)>,
}

#[derive(Debug)]
enum Value {
    Bytes(Vec<u8>),
    /// Where its tree begins; a small bucket lies in its value.
    Bucket {
        root: u64,
        inline: Vec<u8>,
    },
}

fn corrupt(structure: &'static str, offset: u64, reason: impl Into<String>) -> Error {
    Error::Corrupt { structure, offset, reason: reason.into() }
}

impl<'a> Bolt<'a> {
    /// Finds the header that was committed last.
    ///
    /// # Errors
    /// `Corrupt` where neither header is right.
    pub(crate) fn open(file: &'a dyn ReadAt) -> Result<Self> {
        let mut newest: Option<(u64, Self)> = None;
        // Where the second header lies is only known with the first's page size; where that is broken, sizes are tried.
        let first = meta(file, 0)?;
        let sizes: Vec<u64> = match &first {
            Some(first) => vec![u64::from(first.page_bytes)],
            None => (10..=16).map(|power| 1_u64 << power).collect(),
        };
        let mut headers = vec![first];
        for size in sizes {
            headers.push(meta(file, size)?);
        }
        for found in headers.into_iter().flatten() {
            if newest.as_ref().is_none_or(|(transaction, _)| *transaction < found.transaction) {
                newest = Some((found.transaction, Self { file, page_bytes: found.page_bytes, root: found.root }));
            }
        }
        newest.map(|(_, bolt)| bolt).ok_or_else(|| corrupt("bolt header", 0, "neither header has its sum"))
    }

    /// The outermost bucket.
    ///
    /// # Errors
    /// As those of reading any.
    pub(crate) fn root(&self) -> Result<Bucket> {
        self.read(self.root, &[])
    }

    /// The bucket below `names`; `None` where one of them is absent.
    ///
    /// # Errors
    /// `Corrupt` where a page is not what its place asks for.
    pub(crate) fn bucket(&self, names: &[&[u8]]) -> Result<Option<Bucket>> {
        let mut bucket = self.root()?;
        for name in names {
            match self.child(&bucket, name)? {
                Some(child) => bucket = child,
                None => return Ok(None),
            }
        }
        Ok(Some(bucket))
    }

    /// The bucket under `name`.
    ///
    /// # Errors
    /// As those of reading any.
    pub(crate) fn child(&self, bucket: &Bucket, name: &[u8]) -> Result<Option<Bucket>> {
        let found = bucket.entries.iter().find(|(key, _)| key == name);
        match found {
            Some((_, Value::Bucket { root, inline })) => self.read(*root, inline).map(Some),
            _ => Ok(None),
        }
    }

    fn read(&self, root: u64, inline: &[u8]) -> Result<Bucket> {
        let mut entries = Vec::new();
        if root == 0 {
            leaf(inline, 0, &mut entries)?;
        } else {
            self.collect(root, 0, &mut HashSet::new(), &mut entries)?;
        }
        Ok(Bucket { entries })
    }

    fn collect(
        &self,
        page: u64,
        depth: u32,
        seen: &mut HashSet<u64>,
        entries: &mut Vec<(Vec<u8>, Value)>,
    ) -> Result<()> {
        let at = page.saturating_mul(u64::from(self.page_bytes));
        if depth > DEPTH_MAX {
            return Err(corrupt("bolt page", at, format!("more than {DEPTH_MAX} pages lie below one another")));
        }
        if !seen.insert(page) {
            return Err(corrupt("bolt page", at, "it is in the tree twice"));
        }
        let bytes = self.page(page)?;
        match le_u16(&bytes, 8) {
            Some(LEAF) => leaf(&bytes, at, entries),
            Some(BRANCH) => {
                let count = usize::from(le_u16(&bytes, 10).unwrap_or_default());
                for element in 0..count {
                    let start = element.saturating_mul(ELEMENT_BYTES).saturating_add(PAGE_HEADER_BYTES);
                    let child = le_u64(&bytes, start.saturating_add(8))
                        .ok_or_else(|| corrupt("bolt page", at, "its elements leave it"))?;
                    self.collect(child, depth.saturating_add(1), seen, entries)?;
                }
                Ok(())
            }
            kind => Err(corrupt("bolt page", at, format!("its kind is {kind:?}, not a branch or a leaf"))),
        }
    }

    /// A page with those that it overflows into.
    fn page(&self, number: u64) -> Result<Vec<u8>> {
        let page_bytes = u64::from(self.page_bytes);
        let at = number.saturating_mul(page_bytes);
        let mut header = [0_u8; PAGE_HEADER_BYTES];
        self.file.read_exact_at(&mut header, at)?;
        let overflow = u64::from(le_u32(&header, 12).unwrap_or_default());
        if le_u64(&header, 0) != Some(number) {
            return Err(corrupt("bolt page", at, "it says to be another"));
        }
        let length = overflow.saturating_add(1).saturating_mul(page_bytes);
        if length > PAGE_RUN_BYTES_MAX || at.saturating_add(length) > self.file.len() {
            return Err(corrupt("bolt page", at, format!("it overflows into {overflow} pages")));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

impl Bucket {
    /// Names of the buckets in it.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().filter(|(_, value)| matches!(value, Value::Bucket { .. })).map(|(key, _)| key.as_slice())
    }

    /// The value under `key`.
    pub(crate) fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.iter().find_map(|(known, value)| match value {
            Value::Bytes(bytes) if known == key => Some(bytes.as_slice()),
            _ => None,
        })
    }
}

struct Meta {
    page_bytes: u32,
    root: u64,
    transaction: u64,
}

/// The header at a byte, where it is right.
fn meta(file: &dyn ReadAt, at: u64) -> Result<Option<Meta>> {
    let mut bytes = [0_u8; PAGE_HEADER_BYTES + META_BYTES];
    if at.saturating_add(bytes.len() as u64) > file.len() {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, at)?;
    let fields = || -> Option<Meta> {
        let meta = slice(&bytes, PAGE_HEADER_BYTES, META_BYTES)?;
        let page_bytes = le_u32(meta, 8).filter(|size| PAGE_BYTES.contains(size) && size.is_power_of_two())?;
        let is_right = le_u32(meta, 0)? == MAGIC && le_u32(meta, 4)? == VERSION;
        let has_its_sum = sum_holds(le_u64(meta, 56)? == fnv1a(meta.get(..56)?));
        (is_right && has_its_sum).then_some(Meta {
            page_bytes,
            root: le_u64(meta, 16)?,
            transaction: le_u64(meta, 48)?,
        })
    };
    Ok(fields())
}

/// Source: Fowler, Noll, Vo: FNV-1a of 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The elements of a leaf: flags, position counted from the element, and the lengths of key and value.
fn leaf(page: &[u8], at: u64, entries: &mut Vec<(Vec<u8>, Value)>) -> Result<()> {
    let leaves = || corrupt("bolt page", at, "its elements leave it");
    let count = usize::from(le_u16(page, 10).ok_or_else(leaves)?);
    for element in 0..count {
        if entries.len() >= KEYS_MAX {
            return Err(corrupt("bolt page", at, format!("a bucket has more than {KEYS_MAX} keys")));
        }
        let start = element.saturating_mul(ELEMENT_BYTES).saturating_add(PAGE_HEADER_BYTES);
        let number = |offset: usize| {
            le_u32(page, start.saturating_add(offset))
                .and_then(|number| usize::try_from(number).ok())
                .ok_or_else(leaves)
        };
        let (flags, position, key_bytes, value_bytes) = (number(0)?, number(4)?, number(8)?, number(12)?);
        let key_at = start.saturating_add(position);
        let key = slice(page, key_at, key_bytes).ok_or_else(leaves)?;
        let value = slice(page, key_at.saturating_add(key_bytes), value_bytes).ok_or_else(leaves)?;
        let value = if flags & IS_BUCKET as usize == 0 {
            Value::Bytes(value.to_vec())
        } else {
            let root = le_u64(value, 0).ok_or_else(leaves)?;
            Value::Bucket { root, inline: value.get(BUCKET_HEADER_BYTES..).unwrap_or_default().to_vec() }
        };
        entries.push((key.to_vec(), value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the reference: http://www.isthe.com/chongo/tech/comp/fnv/ (test vectors).
    #[test]
    fn sums_are_those_of_the_reference() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn what_is_no_database_is_refused() {
        for bytes in [vec![], vec![0; 100], vec![0xff; 8_192]] {
            assert!(matches!(Bolt::open(&bytes), Err(Error::Corrupt { .. })));
        }
    }
}
