//! The rollback journal: pages as they were before a transaction that was never finished. Source: "Database File Format",
//! section 3, "The Rollback Journal".

use std::collections::HashMap;

use crate::bytes::{be_u32, has};
use crate::error::Result;
use crate::limits::Budget;
use crate::read_at::ReadAt;

use super::{Overlay, page_bytes};

const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
const HEADER_BYTES: usize = 28;
/// Page number before, checksum behind each page.
const RECORD_EXTRA_BYTES: u64 = 8;
/// Every 200th byte of a page is summed, from its end.
const CHECKSUM_STEP: usize = 200;

/// One header of a journal; more follow where a transaction was synchronised in between.
struct Header {
    /// Records behind it; `None` for all that the file has room for.
    records: Option<u32>,
    nonce: u32,
    pages_before: u32,
    sector_bytes: u64,
    page_bytes: u32,
}

impl Header {
    /// The header at `at`; `None` where the journal says nothing there: it is deleted, truncated or zeroed when a
    /// transaction ends.
    fn read(journal: &dyn ReadAt, at: u64) -> Result<Option<Self>> {
        if journal.len().saturating_sub(at) < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        journal.read_exact_at(&mut header, at)?;
        if !has(&header, 0, &MAGIC) {
            return Ok(None);
        }
        let word = |at| be_u32(&header, at).unwrap_or_default();
        let (sector_bytes, page) = (word(20), page_bytes(word(24)));
        let is_sector = sector_bytes.is_power_of_two() && (32..=65_536).contains(&sector_bytes);
        let Some(page_bytes) = page.filter(|_| is_sector) else { return Ok(None) };
        Ok(Some(Self {
            records: Some(word(8)).filter(|records| *records != u32::MAX),
            nonce: word(12),
            pages_before: word(16),
            sector_bytes: u64::from(sector_bytes),
            page_bytes,
        }))
    }
}

/// The pages to take back; `None` where the journal is not hot. Records end at the first whose checksum is wrong: behind
/// it, nothing had reached the database either.
///
/// # Errors
/// Whatever reading meets.
pub(super) fn to_roll_back<'a>(journal: &'a dyn ReadAt, budget: &Budget) -> Result<Option<Overlay<'a>>> {
    let Some(first) = Header::read(journal, 0)? else { return Ok(None) };
    let (page_bytes, pages) = (first.page_bytes, first.pages_before);
    let record_bytes = u64::from(page_bytes).saturating_add(RECORD_EXTRA_BYTES);
    let mut record = vec![0; usize::try_from(record_bytes).unwrap_or_default()];
    let mut overlay = Overlay { file: journal, page_bytes, images: HashMap::new(), pages };
    let (mut header, mut at) = (first, 0_u64);
    'headers: loop {
        at = at.saturating_add(header.sector_bytes);
        let room = journal.len().saturating_sub(at).checked_div(record_bytes).unwrap_or_default();
        let records = header.records.map_or(room, |records| room.min(u64::from(records)));
        for _ in 0..records {
            budget.check_time()?;
            journal.read_exact_at(&mut record, at)?;
            let page = be_u32(&record, 0).unwrap_or_default();
            let end = record.len().saturating_sub(4);
            let image = record.get(4..end).unwrap_or_default();
            if page == 0 || be_u32(&record, end) != Some(checksum(image, header.nonce)) {
                break 'headers;
            }
            if page <= pages {
                overlay.images.insert(page, at.saturating_add(4));
            }
            at = at.saturating_add(record_bytes);
        }
        // The next header begins at a sector's boundary.
        at = at.checked_next_multiple_of(header.sector_bytes).unwrap_or(u64::MAX);
        header = match Header::read(journal, at)? {
            Some(next) if next.page_bytes == page_bytes => next,
            _ => break,
        };
    }
    Ok(Some(overlay))
}

fn checksum(page: &[u8], nonce: u32) -> u32 {
    let mut sum = nonce;
    let mut at = page.len().saturating_sub(CHECKSUM_STEP);
    while at > 0 {
        sum = sum.wrapping_add(page.get(at).copied().map_or(0, u32::from));
        at = at.saturating_sub(CHECKSUM_STEP);
    }
    sum
}
