//! rpm's own database, "ndb": slots that tell where each package's blob lies. SUSE uses it. Source: rpm's
//! `lib/backend/ndb/rpmpkg.c`, whose layout is described nowhere else.

use std::collections::HashSet;

use crate::bytes::{has, le_u32, slice};
use crate::error::{Error, Result};
use crate::guest::damage::Damage;
use crate::limits::Budget;
use crate::read_at::ReadAt;

const MAGIC: &[u8; 4] = b"RpmP";
const SLOT_MAGIC: &[u8; 4] = b"Slot";
const BLOB_MAGIC: &[u8; 4] = b"BlbS";
const BLOB_END_MAGIC: &[u8; 4] = b"BlbE";
/// Slots fill pages; the header stands in place of the first two.
const PAGE_BYTES: usize = 4096;
const HEADER_BYTES: usize = 32;
const SLOT_BYTES: usize = 16;
/// Blobs begin and end at multiples of this.
const BLOCK_BYTES: u64 = 16;
const BLOB_HEAD_BYTES: usize = 16;
const BLOB_TAIL_BYTES: usize = 12;

/// Visits the blob of each package, in order of slots.
///
/// # Errors
/// [`Error::Corrupt`] for a header that is none, [`Error::Unsupported`] for another version.
pub(super) fn blobs(file: &dyn ReadAt, budget: &Budget, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Damage> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(|error| error.in_structure("rpm ndb header", 0))?;
    if !has(&header, 0, MAGIC) {
        return Err(Error::corrupt("rpm ndb header", 0, "it does not begin with \"RpmP\""));
    }
    let word = |at| le_u32(&header, at).unwrap_or_default();
    if word(4) != 0 {
        return Err(Error::unsupported(format!("rpm ndb version {}", word(4))));
    }
    let mut walk = Walk { file, budget, seen: HashSet::new(), blob_bytes: 0 };
    let mut damage = Damage::default();
    let mut page = [0; PAGE_BYTES];
    for number in 0..u64::from(word(12)) {
        budget.check_time()?;
        let at = number.saturating_mul(PAGE_BYTES as u64);
        let read = file.read_exact_at(&mut page, at);
        if let Err(error) = read {
            // Pages lie one after another: behind the first that is missing there is none.
            damage.note(error.in_structure("rpm ndb slots", at))?;
            break;
        }
        let first = if number == 0 { HEADER_BYTES } else { 0 };
        for slot in page.get(first..).unwrap_or_default().as_chunks::<SLOT_BYTES>().0 {
            if !has(slot, 0, SLOT_MAGIC) {
                damage.note(Error::corrupt("rpm ndb slots", at, "a slot has no magic number"))?;
                break;
            }
            if le_u32(slot, 8) == Some(0) {
                continue;
            }
            let blob = walk.blob(slot).and_then(|blob| visit(blob_data(&blob)));
            damage.keep(blob)?;
        }
    }
    Ok(damage)
}

struct Walk<'a> {
    file: &'a dyn ReadAt,
    budget: &'a Budget,
    seen: HashSet<u32>,
    /// Bytes of all blobs so far: blobs do not overlap, so they are never more than the file's.
    blob_bytes: u64,
}

impl Walk<'_> {
    /// The blob that a slot tells of, head and tail included, checked.
    fn blob(&mut self, slot: &[u8]) -> Result<Vec<u8>> {
        let word = |at| le_u32(slot, at).unwrap_or_default();
        let (package, offset, blocks) = (word(4), word(8), word(12));
        let offset = u64::from(offset).saturating_mul(BLOCK_BYTES);
        let length = u64::from(blocks).saturating_mul(BLOCK_BYTES);
        let corrupt = |reason: String| Error::corrupt("rpm ndb blob", offset, reason);
        if !self.seen.insert(package) {
            return Err(corrupt(format!("package {package} has two slots")));
        }
        self.blob_bytes = self.blob_bytes.saturating_add(length);
        if offset.saturating_add(length) > self.file.len() || self.blob_bytes > self.file.len() {
            return Err(corrupt(format!("its {length} bytes leave the file")));
        }
        let mut blob = self.budget.allocate(length)?;
        self.file.read_exact_at(&mut blob, offset)?;
        let stored = le_u32(&blob, 12).and_then(|stored| usize::try_from(stored).ok()).unwrap_or(usize::MAX);
        if !has(&blob, 0, BLOB_MAGIC) || le_u32(&blob, 4) != Some(package) {
            return Err(corrupt(format!("it is not that of package {package}")));
        }
        let needed = stored.saturating_add(BLOB_HEAD_BYTES).saturating_add(BLOB_TAIL_BYTES);
        if needed.checked_next_multiple_of(SLOT_BYTES) != Some(blob.len()) {
            return Err(corrupt(format!("{stored} bytes do not fill its {blocks} blocks")));
        }
        let tail_at = blob.len().saturating_sub(BLOB_TAIL_BYTES);
        let (covered, tail) = blob.split_at_checked(tail_at).unwrap_or_default();
        if !has(tail, 8, BLOB_END_MAGIC) || le_u32(tail, 4).map(u64::from) != Some(stored as u64) {
            return Err(corrupt("its end is missing".to_owned()));
        }
        if le_u32(tail, 0) != Some(adler32(covered)) {
            return Err(corrupt("its checksum is wrong".to_owned()));
        }
        Ok(blob)
    }
}

/// What a blob that was checked holds.
fn blob_data(blob: &[u8]) -> &[u8] {
    let length = le_u32(blob, 12).and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    slice(blob, BLOB_HEAD_BYTES, length).unwrap_or_default()
}

/// RFC 1950, section 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    // The most bytes whose sums fit 32 bits.
    const RUN: usize = 5552;
    let (mut low, mut high) = (1_u32, 0_u32);
    for run in bytes.chunks(RUN) {
        for byte in run {
            low = low.wrapping_add(u32::from(*byte));
            high = high.wrapping_add(low);
        }
        low %= MODULUS;
        high %= MODULUS;
    }
    (high << 16) | low
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::limits::Limits;

    /// A database of these blobs, each with its package's number.
    pub(in crate::guest::linux::rpm) fn database(blobs: &[(u32, &[u8])]) -> Vec<u8> {
        let mut file = vec![0; PAGE_BYTES];
        for slot in file.chunks_mut(SLOT_BYTES) {
            slot[..4].copy_from_slice(SLOT_MAGIC);
        }
        file[..HEADER_BYTES].fill(0);
        file[..4].copy_from_slice(MAGIC);
        file[12] = 1;
        for (index, (package, data)) in blobs.iter().enumerate() {
            let at = file.len();
            file.extend(BLOB_MAGIC);
            file.extend(package.to_le_bytes());
            file.extend([0; 4]);
            file.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            file.extend(*data);
            while !(file.len() - at + BLOB_TAIL_BYTES).is_multiple_of(SLOT_BYTES) {
                file.push(0);
            }
            let sum = adler32(&file[at..]);
            file.extend(sum.to_le_bytes());
            file.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            file.extend(BLOB_END_MAGIC);
            let blocks = u32::try_from((file.len() - at) / SLOT_BYTES).unwrap();
            let slot = HEADER_BYTES + index * SLOT_BYTES;
            file[slot + 4..slot + 8].copy_from_slice(&package.to_le_bytes());
            file[slot + 8..slot + 12].copy_from_slice(&u32::try_from(at / SLOT_BYTES).unwrap().to_le_bytes());
            file[slot + 12..slot + 16].copy_from_slice(&blocks.to_le_bytes());
        }
        file
    }

    fn read(file: Vec<u8>) -> Result<(Vec<Vec<u8>>, Damage)> {
        let mut found = Vec::new();
        let damage = blobs(&file, &Budget::new(&Limits::default()), &mut |blob| {
            found.push(blob.to_vec());
            Ok(())
        })?;
        Ok((found, damage))
    }

    #[test]
    fn blobs_are_found_and_checked() {
        let file = database(&[(1, b"one"), (2, b""), (7, &[9; 5000])]);
        let (found, damage) = read(file.clone()).unwrap();
        assert_eq!(found, [b"one".to_vec(), Vec::new(), vec![9; 5000]]);
        assert_eq!(damage.count, 0);
        let mut wrong = file.clone();
        wrong[PAGE_BYTES + BLOB_HEAD_BYTES] ^= 1;
        let (found, damage) = read(wrong).unwrap();
        assert_eq!((found.len(), damage.count), (2, 1));
        assert!(damage.first.unwrap().to_string().contains("checksum"));
        let (found, damage) = read(file[..file.len() - 1].to_vec()).unwrap();
        assert_eq!((found.len(), damage.count), (2, 1));
        assert!(read(file[..100].to_vec()).unwrap().0.is_empty());
        assert!(read(b"RpmP".to_vec()).is_err());
        assert!(read(vec![0; 5000]).is_err());
    }

    #[test]
    fn slots_that_share_a_blob_are_told() {
        let mut file = database(&[(1, b"one"), (2, b"two")]);
        file.copy_within(HEADER_BYTES..HEADER_BYTES + SLOT_BYTES, HEADER_BYTES + SLOT_BYTES);
        let (found, damage) = read(file).unwrap();
        assert_eq!((found.len(), damage.count), (1, 1));
    }
}
