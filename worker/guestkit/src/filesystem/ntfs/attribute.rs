//! MFT records and what they hold: update sequences, attributes, attribute lists and run lists.
//!
//! The format has no published specification; names and offsets are those of `layout.h` of the Linux-NTFS project's
//! documentation and of the kernel's `fs/ntfs3/ntfs.h`.

use super::names;
use crate::bytes::{le_u16, le_u32, le_u64, slice};
use crate::error::{Error, Limit, Result};

/// What of an attribute's type is known here (`ATTR_TYPE`).
pub(super) mod kind {
    pub(in super::super) const STANDARD_INFORMATION: u32 = 0x10;
    pub(in super::super) const ATTRIBUTE_LIST: u32 = 0x20;
    pub(in super::super) const SECURITY_DESCRIPTOR: u32 = 0x50;
    pub(in super::super) const VOLUME_NAME: u32 = 0x60;
    pub(in super::super) const VOLUME_INFORMATION: u32 = 0x70;
    pub(in super::super) const DATA: u32 = 0x80;
    pub(in super::super) const INDEX_ROOT: u32 = 0x90;
    pub(in super::super) const INDEX_ALLOCATION: u32 = 0xa0;
    pub(in super::super) const BITMAP: u32 = 0xb0;
    pub(in super::super) const REPARSE_POINT: u32 = 0xc0;
    pub(in super::super) const EA: u32 = 0xe0;
    pub(super) const END: u32 = 0xffff_ffff;
}

/// Update sequences guard pieces of 512 bytes, whatever the sector size (`SEQUENCE_NUMBER_STRIDE`).
const STRIDE: usize = 512;
/// Extents of one file: an attribute list of 256 KiB, the largest there is, can hold about as many.
const RUNS_MAX: usize = 1_500_000;
/// The lower 48 bits of a file reference are the record's number, the upper 16 its sequence number.
const RECORD_MASK: u64 = (1 << 48) - 1;

/// A file reference: a record, and how often it had been taken into use when it was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) record: u64,
    pub(super) sequence: u16,
}

impl Reference {
    pub(super) const fn new(raw: u64) -> Self {
        // The shift leaves 16 bits.
        Self { record: raw & RECORD_MASK, sequence: (raw >> 48) as u16 }
    }
}

/// Checks a block's signature and update sequence and puts the bytes back that the sequence took the places of.
///
/// # Errors
/// [`Error::Corrupt`] for another signature, and for a block that was not written whole.
pub(super) fn fix_up(block: &mut [u8], signature: [u8; 4], structure: &'static str, at: u64) -> Result<()> {
    let corrupt = |reason: &str| Error::corrupt(structure, at, reason);
    let found = block.first_chunk::<4>().copied().unwrap_or_default();
    if found != signature {
        return Err(match &found {
            b"BAAD" => corrupt("a check of the disk has marked it bad"),
            _ => Error::corrupt(structure, at, format!("its signature is {:?}", found.escape_ascii().to_string())),
        });
    }
    let (start, count) = match (le_u16(block, 4), le_u16(block, 6)) {
        (Some(start), Some(count)) => (usize::from(start), usize::from(count)),
        _ => return Err(corrupt("it is too short")),
    };
    let is_whole = count.checked_sub(1).and_then(|pieces| pieces.checked_mul(STRIDE)) == Some(block.len());
    if !is_whole || !start.is_multiple_of(2) {
        return Err(corrupt("its update sequence does not fit its size"));
    }
    let outside = || corrupt("its update sequence leaves it");
    let sequence = slice(block, start, 2 * count).ok_or_else(outside)?.to_vec();
    let (number, saved) = sequence.split_at_checked(2).ok_or_else(outside)?;
    for (piece, saved) in block.chunks_exact_mut(STRIDE).zip(saved.chunks_exact(2)) {
        match piece.last_chunk_mut::<2>() {
            Some(end) if *end == *number => end.copy_from_slice(saved),
            _ => return Err(corrupt("it was not written whole: its update sequence differs")),
        }
    }
    Ok(())
}

/// An MFT record, its update sequence checked and taken back.
#[derive(Debug)]
pub(super) struct Record {
    /// How often it was taken into use.
    pub(super) sequence: u16,
    /// Names of the file, those for DOS with them.
    pub(super) links: u16,
    /// Whether a file has it now.
    pub(super) in_use: bool,
    /// Whether that file is a directory.
    pub(super) is_directory: bool,
    /// The file's base record, where this one only extends it.
    pub(super) base: Option<Reference>,
    /// Its attributes in on-disk order.
    pub(super) attributes: Vec<Attribute>,
}

impl Record {
    /// Parses the record `number` out of its raw bytes; `at` is where they lie.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(super) fn parse(mut bytes: Vec<u8>, at: u64) -> Result<Self> {
        fix_up(&mut bytes, *b"FILE", "NTFS MFT record", at)?;
        let corrupt = |reason: &str| Error::corrupt("NTFS MFT record", at, reason);
        let header = || {
            let (links, flags, base) = (le_u16(&bytes, 18)?, le_u16(&bytes, 22)?, le_u64(&bytes, 32)?);
            Some((le_u16(&bytes, 16)?, links, le_u16(&bytes, 20)?, flags, le_u32(&bytes, 24)?, base))
        };
        let (sequence, links, first, flags, used, base) = header().ok_or_else(|| corrupt("it is too short"))?;
        let used = usize::try_from(used).ok().and_then(|used| bytes.get(..used));
        let used = used.ok_or_else(|| corrupt("more bytes are in use than it has"))?;
        let mut record = Self {
            sequence,
            links,
            in_use: flags & 1 != 0,
            is_directory: flags & 2 != 0,
            base: (base != 0).then(|| Reference::new(base)),
            attributes: Vec::new(),
        };
        let mut rest = used.get(usize::from(first)..).ok_or_else(|| corrupt("its attributes lie outside"))?;
        while record.in_use {
            let (kind, length) = match (le_u32(rest, 0), le_u32(rest, 4)) {
                (Some(kind::END), _) => break,
                (Some(kind), Some(length)) if length >= 24 && length % 8 == 0 => (kind, length as usize),
                _ => return Err(corrupt("an attribute has no sound length")),
            };
            let (attribute, after) =
                rest.split_at_checked(length).ok_or_else(|| corrupt("an attribute leaves the record"))?;
            let attribute = Attribute::parse(kind, attribute)
                .ok_or_else(|| corrupt("a field of an attribute lies outside of the attribute"))?;
            record.attributes.push(attribute);
            rest = after;
        }
        Ok(record)
    }
}

/// Attribute flags: compressed (with the method in the same byte), encrypted by EFS.
const COMPRESSED: u16 = 0x00ff;
const LZNT1: u16 = 0x0001;
const ENCRYPTED: u16 = 0x4000;

/// One attribute, or one piece of it where it spreads over several records.
#[derive(Debug)]
pub(super) struct Attribute {
    pub(super) kind: u32,
    pub(super) name: Vec<u16>,
    pub(super) id: u16,
    pub(super) flags: u16,
    pub(super) body: Body,
}

/// Where the value of an attribute lies.
#[derive(Debug)]
pub(super) enum Body {
    /// In the record.
    Resident(Vec<u8>),
    /// In clusters.
    Runs(Mapping),
}

/// One piece of a run list, still encoded, and what the first piece tells of the whole value.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) first_vcn: u64,
    /// The last cluster that the piece maps; one less than the first where it maps none.
    last_vcn: u64,
    /// Binary logarithm of the clusters that are compressed as one.
    compression_unit: u8,
    size: u64,
    initialised: u64,
    pairs: Vec<u8>,
}

impl Attribute {
    fn parse(kind: u32, bytes: &[u8]) -> Option<Self> {
        let name_length = usize::from(*bytes.get(9)?);
        let name = match name_length {
            0 => Vec::new(),
            units => names::units(slice(bytes, usize::from(le_u16(bytes, 10)?), 2 * units)?),
        };
        let body = if *bytes.get(8)? == 0 {
            let value = slice(bytes, usize::from(le_u16(bytes, 20)?), usize::try_from(le_u32(bytes, 16)?).ok()?)?;
            Body::Resident(value.to_vec())
        } else {
            let first_vcn = le_u64(bytes, 16)?;
            let is_first = first_vcn == 0;
            Body::Runs(Mapping {
                first_vcn,
                last_vcn: le_u64(bytes, 24)?,
                compression_unit: *bytes.get(34)?,
                // Only the first piece has the sizes.
                size: if is_first { le_u64(bytes, 48)? } else { 0 },
                initialised: if is_first { le_u64(bytes, 56)? } else { 0 },
                pairs: bytes.get(usize::from(le_u16(bytes, 32)?)..)?.to_vec(),
            })
        };
        Some(Self { kind, name, id: le_u16(bytes, 14)?, flags: le_u16(bytes, 12)?, body })
    }

    /// The first cluster that this piece maps.
    pub(super) const fn first_vcn(&self) -> u64 {
        match &self.body {
            Body::Resident(_) => 0,
            Body::Runs(mapping) => mapping.first_vcn,
        }
    }

    /// Bytes of the value, as the first piece tells.
    pub(super) const fn size(&self) -> u64 {
        match &self.body {
            Body::Resident(value) => value.len() as u64,
            Body::Runs(mapping) => mapping.size,
        }
    }

    /// The value, where it lies in the record.
    pub(super) const fn resident(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Resident(value) => Some(value.as_slice()),
            Body::Runs(_) => None,
        }
    }

    pub(super) fn is(&self, kind: u32, name: &[u16]) -> bool {
        self.kind == kind && self.name == name
    }

    /// Bytes of memory that it holds.
    pub(super) const fn weight(&self) -> usize {
        let value = match &self.body {
            Body::Resident(value) => value.len(),
            Body::Runs(mapping) => mapping.pairs.len(),
        };
        size_of::<Self>() + value + 2 * self.name.len()
    }
}

/// An entry of an attribute list: one attribute, or one piece of one, and the record it lies in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListEntry {
    pub(super) kind: u32,
    pub(super) name: Vec<u16>,
    pub(super) first_vcn: u64,
    pub(super) record: Reference,
    pub(super) id: u16,
}

/// The entries of an `$ATTRIBUTE_LIST`.
///
/// # Errors
/// [`Error::Corrupt`] for an entry that leaves the list.
pub(super) fn parse_list(list: &[u8], at: u64) -> Result<Vec<ListEntry>> {
    let parse = |entry: &[u8]| {
        let name = slice(entry, usize::from(*entry.get(7)?), 2 * usize::from(*entry.get(6)?))?;
        Some(ListEntry {
            kind: le_u32(entry, 0)?,
            name: names::units(name),
            first_vcn: le_u64(entry, 8)?,
            record: Reference::new(le_u64(entry, 16)?),
            id: le_u16(entry, 24)?,
        })
    };
    let mut entries = Vec::new();
    let mut rest = list;
    // Zeros may fill the list up.
    while let Some(length) = le_u16(rest, 4).filter(|length| *length != 0) {
        let entry = rest.get(..usize::from(length)).filter(|entry| entry.len() >= 26).and_then(parse);
        entries.push(entry.ok_or_else(|| Error::corrupt("NTFS attribute list", at, "an entry leaves the list"))?);
        rest = rest.get(usize::from(length)..).unwrap_or_default();
    }
    Ok(entries)
}

/// Consecutive clusters of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The first cluster within the value.
    pub(super) vcn: u64,
    /// Clusters.
    pub(super) length: u64,
    /// The first cluster on the volume; `None` is a hole.
    pub(super) lcn: Option<u64>,
}

/// A value of any length, ready to be read.
#[derive(Debug)]
pub(super) struct Stream {
    /// Bytes.
    pub(super) size: u64,
    /// Bytes that were ever written; zeros follow them.
    pub(super) initialised: u64,
    /// EFS has encrypted it.
    pub(super) encrypted: bool,
    pub(super) content: Content,
}

/// How a [`Stream`] is stored.
#[derive(Debug)]
pub(super) enum Content {
    /// In the record itself.
    Resident(Vec<u8>),
    /// In clusters, byte by byte.
    Plain(Vec<Run>),
    /// In clusters, so many of which are compressed as one.
    Compressed { runs: Vec<Run>, unit_clusters: u64 },
}

/// Clusters that are compressed as one are sixteen everywhere; 1 MiB bounds what one byte can ask for.
const COMPRESSION_UNIT_BYTES_MAX: u64 = 1 << 20;

impl Stream {
    /// Puts the pieces of one attribute together, given by their order in the value, on a volume of `clusters`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a piece is missing or a run leaves the volume; [`Error::Unsupported`] for an unknown
    /// compression; [`Error::LimitReached`] for more runs than a file can have.
    pub(super) fn assemble<'a>(
        pieces: impl IntoIterator<Item = &'a Attribute>,
        cluster_bytes: u64,
        clusters: u64,
        at: u64,
    ) -> Result<Self> {
        let corrupt = |reason: &str| Error::corrupt("NTFS run list", at, reason);
        let mut pieces = pieces.into_iter();
        let first = pieces.next().ok_or_else(|| corrupt("there is none"))?;
        let mapping = match &first.body {
            Body::Resident(value) => {
                let size = value.len() as u64;
                let content = Content::Resident(value.clone());
                let encrypted = first.flags & ENCRYPTED != 0;
                return Ok(Self { size, initialised: size, encrypted, content });
            }
            Body::Runs(mapping) => mapping,
        };
        if mapping.first_vcn != 0 {
            return Err(corrupt("its first piece is missing"));
        }
        let mut runs = Vec::new();
        let mut vcn = mapping.decode(clusters, &mut runs, at)?;
        for piece in pieces {
            let Body::Runs(mapping) = &piece.body else { return Err(corrupt("a piece lies in the record")) };
            if mapping.first_vcn != vcn {
                return Err(corrupt("a piece is missing"));
            }
            vcn = mapping.decode(clusters, &mut runs, at)?;
        }
        if vcn.checked_mul(cluster_bytes).is_none() || i64::try_from(mapping.size).is_err() {
            return Err(corrupt("it maps more than a file can hold"));
        }
        let content = match first.flags & COMPRESSED {
            0 => Content::Plain(runs),
            LZNT1 => {
                let unit_clusters = 1_u64.checked_shl(u32::from(mapping.compression_unit)).unwrap_or(0);
                if !(2..=COMPRESSION_UNIT_BYTES_MAX / cluster_bytes).contains(&unit_clusters) {
                    return Err(corrupt("its compression unit has no sound size"));
                }
                Content::Compressed { runs, unit_clusters }
            }
            other => return Err(Error::unsupported(format!("NTFS compression method {other}"))),
        };
        let initialised = mapping.initialised.min(mapping.size);
        Ok(Self { size: mapping.size, initialised, encrypted: first.flags & ENCRYPTED != 0, content })
    }

    /// The runs, none where the value lies in the record.
    pub(super) fn runs(&self) -> &[Run] {
        match &self.content {
            Content::Resident(_) => &[],
            Content::Plain(runs) | Content::Compressed { runs, .. } => runs,
        }
    }
}

impl Mapping {
    /// Appends the runs of this piece and gives the cluster after them. Each pair is a byte with the lengths of two
    /// numbers, the number of clusters, and the signed distance from the last run; none stands for a hole.
    fn decode(&self, clusters: u64, runs: &mut Vec<Run>, at: u64) -> Result<u64> {
        let corrupt = |reason: &str| Error::corrupt("NTFS run list", at, reason);
        let mut vcn = self.first_vcn;
        let mut lcn = 0_i64;
        let mut rest = self.pairs.as_slice();
        loop {
            let (sizes, after) = match rest.split_first() {
                Some((&sizes, after)) if sizes != 0 => (sizes, after),
                _ => break,
            };
            let ended = || corrupt("it ends within a run");
            let (length, after) = after.split_at_checked(usize::from(sizes & 15)).ok_or_else(ended)?;
            let (distance, after) = after.split_at_checked(usize::from(sizes >> 4)).ok_or_else(ended)?;
            rest = after;
            let length = signed(length).and_then(|length| u64::try_from(length).ok()).filter(|length| *length > 0);
            let length = length.ok_or_else(|| corrupt("a run has no sound length"))?;
            let place = if distance.is_empty() {
                None
            } else {
                let distance = signed(distance).ok_or_else(|| corrupt("a run has no sound place"))?;
                lcn = lcn.checked_add(distance).ok_or_else(|| corrupt("a run has no sound place"))?;
                // Windows NT 4 wrote -1 for a hole.
                (lcn != -1).then_some(lcn)
            };
            let place = place.map(|lcn| {
                let start = u64::try_from(lcn).ok()?;
                start.checked_add(length).filter(|end| *end <= clusters).map(|_| start)
            });
            let place = match place {
                Some(None) => return Err(corrupt("a run leaves the volume")),
                Some(start) => start,
                None => None,
            };
            push_run(runs, Run { vcn, length, lcn: place })?;
            vcn = vcn.checked_add(length).ok_or_else(|| corrupt("it maps more than a file can hold"))?;
        }
        if self.last_vcn.wrapping_add(1) != vcn {
            return Err(corrupt("it maps other clusters than it says"));
        }
        Ok(vcn)
    }
}

/// Runs that continue one another become one, so that they are read as one.
fn push_run(runs: &mut Vec<Run>, run: Run) -> Result<()> {
    if let Some(last) = runs.last_mut() {
        let continues = match (last.lcn, run.lcn) {
            (Some(last_lcn), Some(lcn)) => last_lcn.checked_add(last.length) == Some(lcn),
            (None, None) => true,
            _ => false,
        };
        if let Some(length) = last.length.checked_add(run.length).filter(|_| continues) {
            last.length = length;
            return Ok(());
        }
    }
    if runs.len() >= RUNS_MAX {
        return Err(Error::LimitReached { which: Limit::Allocation, value: (RUNS_MAX * size_of::<Run>()) as u64 });
    }
    runs.push(run);
    Ok(())
}

/// A little-endian signed number of 1 to 8 bytes.
fn signed(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last()? & 0x80 != 0;
    let mut wide = if negative { [0xff; 8] } else { [0; 8] };
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(first_vcn: u64, last_vcn: u64, pairs: &[u8]) -> Attribute {
        let body = Body::Runs(Mapping {
            first_vcn,
            last_vcn,
            compression_unit: 0,
            size: 100,
            initialised: 200,
            pairs: pairs.to_vec(),
        });
        Attribute { kind: kind::DATA, name: Vec::new(), id: 0, flags: 0, body }
    }

    /// The examples of the Linux-NTFS documentation, "Data Runs".
    #[test]
    fn run_lists_decode_as_documented() {
        type Runs<'a> = &'a [(u64, u64, Option<u64>)];
        let cases: [(&[u8], Runs<'_>); 3] = [
            (&[0x21, 0x18, 0x34, 0x56, 0x00], &[(0, 0x18, Some(0x5634))]),
            (
                &[0x31, 0x38, 0x73, 0x25, 0x34, 0x32, 0x14, 0x01, 0xe5, 0x11, 0x02, 0x31, 0x42, 0xaa, 0x00, 0x03, 0x00],
                &[(0, 0x38, Some(0x0034_2573)), (0x38, 0x114, Some(0x0036_3758)), (0x14c, 0x42, Some(0x0039_3802))],
            ),
            (
                &[0x11, 0x30, 0x60, 0x21, 0x10, 0x00, 0x01, 0x11, 0x20, 0xe0, 0x01, 0x09, 0x00],
                &[(0, 0x30, Some(0x60)), (0x30, 0x10, Some(0x160)), (0x40, 0x20, Some(0x140)), (0x60, 9, None)],
            ),
        ];
        for (pairs, expected) in cases {
            let last = expected.iter().map(|(_, length, _)| length).sum::<u64>() - 1;
            let stream = Stream::assemble([&mapping(0, last, pairs)], 4096, 1 << 30, 0).unwrap();
            let found: Vec<_> = stream.runs().iter().map(|run| (run.vcn, run.length, run.lcn)).collect();
            assert_eq!(found, expected);
            assert_eq!((stream.size, stream.initialised), (100, 100));
        }
    }

    #[test]
    fn pieces_must_follow_one_another_and_stay_on_the_volume() {
        let (first, second) = (mapping(0, 3, &[0x11, 4, 8, 0]), mapping(4, 5, &[0x11, 2, 12, 0]));
        let whole = Stream::assemble([&first, &second], 512, 14, 0).unwrap();
        assert_eq!(whole.runs(), [Run { vcn: 0, length: 6, lcn: Some(8) }], "continued on the volume, so one run");
        let broken = [(vec![&first, &second], 13), (vec![&second], 14), (vec![&first, &first], 14)];
        for (pieces, clusters) in broken {
            assert!(matches!(Stream::assemble(pieces, 512, clusters, 0), Err(Error::Corrupt { .. })));
        }
        for pairs in [&[0x11, 4][..], &[0x19, 1], &[0x01, 0x84], &[0x11, 3, 8], &[0x11, 4, 0xf0], &[0x10, 4]] {
            let piece = mapping(0, 3, pairs);
            assert!(matches!(Stream::assemble([&piece], 512, 14, 0), Err(Error::Corrupt { .. })), "{pairs:x?}");
        }
        assert_eq!(signed(&[0xff, 0xff, 0x7f]), Some(0x7f_ffff));
        assert_eq!(signed(&[0; 9]), None);
    }

    #[test]
    fn a_block_that_was_not_written_whole_is_refused() {
        let mut block = vec![7_u8; 1024];
        block[..8].copy_from_slice(b"FILE\x30\0\x03\0");
        block[48..54].copy_from_slice(&[0xaa, 0xbb, 1, 2, 3, 4]);
        for end in [510, 1022] {
            block[end..end + 2].copy_from_slice(&[0xaa, 0xbb]);
        }
        let mut good = block.clone();
        fix_up(&mut good, *b"FILE", "record", 0).unwrap();
        assert_eq!((&good[510..512], &good[1022..]), (&[1, 2][..], &[3, 4][..]));
        for (at, value) in [(1022, 0), (6, 2), (4, 0xff), (0, b'B'), (6, 0), (5, 4)] {
            let mut broken = block.clone();
            broken[at] = value;
            assert!(matches!(fix_up(&mut broken, *b"FILE", "record", 0), Err(Error::Corrupt { .. })), "{at}");
        }
    }

    #[test]
    fn an_attribute_list_ends_where_its_entries_do() {
        let mut list = vec![0_u8; 64];
        list[..8].copy_from_slice(&[0x80, 0, 0, 0, 32, 0, 2, 26]);
        list[8] = 9;
        list[16..24].copy_from_slice(&[5, 0, 0, 0, 0, 0, 3, 0]);
        list[24] = 1;
        list[26..30].copy_from_slice(&[b'a', 0, b'b', 0]);
        let entries = parse_list(&list, 0).unwrap();
        let record = Reference { record: 5, sequence: 3 };
        let name = "ab".encode_utf16().collect();
        assert_eq!(entries, [ListEntry { kind: kind::DATA, name, first_vcn: 9, record, id: 1 }]);
        list[4] = 65;
        assert!(parse_list(&list, 0).is_err());
        list[4] = 25;
        assert!(parse_list(&list, 0).is_err());
    }
}
