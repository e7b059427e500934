//! The write-ahead log: what was committed and not yet copied into the database. Source: "WAL-mode File Format"
//! (<https://sqlite.org/walformat.html>) and "Database File Format", section 4.

use std::collections::HashMap;

use crate::bytes::be_u32;
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::ReadAt;

use super::{Overlay, page_bytes};

/// With either, the lowest bit telling in which byte order the checksums were made: 0 for little-endian.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;
const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// What a log says.
pub(super) enum Log<'a> {
    /// Nothing: it is empty, or holds no whole transaction.
    Empty,
    /// Nothing, because it is no log.
    Invalid,
    /// These pages.
    Pages(Overlay<'a>),
}

/// The pages of every transaction that was committed: frames count up to the last commit before the first frame whose
/// salts or checksum are not those of this log, as SQLite recovers it.
///
/// # Errors
/// Whatever reading meets; [`Error::Unsupported`] for another version of the format.
pub(super) fn committed<'a>(log: &'a dyn ReadAt, budget: &Budget) -> Result<Log<'a>> {
    if log.is_empty() {
        return Ok(Log::Empty);
    }
    let mut header = [0; HEADER_BYTES];
    if log.len() < HEADER_BYTES as u64 {
        return Ok(Log::Invalid);
    }
    log.read_exact_at(&mut header, 0)?;
    let word = |at| be_u32(&header, at).unwrap_or_default();
    if word(0) & !1 != MAGIC {
        return Ok(Log::Invalid);
    }
    let is_big_endian = word(0) & 1 == 1;
    let salts = (word(16), word(20));
    let mut sum = checksum(header.get(..24).unwrap_or_default(), (0, 0), is_big_endian);
    let Some(page_bytes) = page_bytes(word(8)).filter(|_| sum == (word(24), word(28))) else {
        return Ok(Log::Invalid);
    };
    if word(4) != VERSION {
        return Err(Error::unsupported(format!("sqlite write-ahead log version {}", word(4))));
    }
    let frame_bytes = FRAME_HEADER_BYTES.saturating_add(usize::try_from(page_bytes).unwrap_or_default());
    let mut frame = vec![0; frame_bytes];
    let mut at = HEADER_BYTES as u64;
    let mut overlay = Overlay { file: log, page_bytes, images: HashMap::new(), pages: 0 };
    let mut uncommitted = HashMap::new();
    while log.len().saturating_sub(at) >= frame_bytes as u64 {
        budget.check_time()?;
        log.read_exact_at(&mut frame, at)?;
        let word = |at| be_u32(&frame, at).unwrap_or_default();
        let (page, pages_after) = (word(0), word(4));
        sum = checksum(frame.get(..8).unwrap_or_default(), sum, is_big_endian);
        sum = checksum(frame.get(FRAME_HEADER_BYTES..).unwrap_or_default(), sum, is_big_endian);
        if page == 0 || (word(8), word(12)) != salts || (word(16), word(20)) != sum {
            break;
        }
        uncommitted.insert(page, at.saturating_add(FRAME_HEADER_BYTES as u64));
        if pages_after > 0 {
            overlay.images.extend(uncommitted.drain());
            overlay.pages = pages_after;
        }
        at = at.saturating_add(frame_bytes as u64);
    }
    Ok(if overlay.pages == 0 { Log::Empty } else { Log::Pages(overlay) })
}

/// The running sum over pairs of words (section 4.2 of the file format).
fn checksum(bytes: &[u8], start: (u32, u32), is_big_endian: bool) -> (u32, u32) {
    let word = if is_big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
    let words = bytes.as_chunks().0;
    words.as_chunks().0.iter().fold(start, |(first, second), [one, other]: &[[u8; 4]; 2]| {
        let first = first.wrapping_add(word(*one)).wrapping_add(second);
        (first, second.wrapping_add(word(*other)).wrapping_add(first))
    })
}
