//! The few ways in which sources are put together: one after another, in stripes, as copies, with holes.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::read_at::{ReadAt, Source, check_range};

/// Fills `buffer` from the front: `piece` fills the start of what is left, which lies at the offset it is given, and says
/// how many bytes that were.
///
/// # Errors
/// [`Error::Corrupt`] for a range that leaves `0..total`, and whatever `piece` gives.
pub(crate) fn read_in_pieces(
    total: u64,
    buffer: &mut [u8],
    offset: u64,
    mut piece: impl FnMut(&mut [u8], u64) -> Result<usize>,
) -> Result<()> {
    check_range(total, buffer.len(), offset)?;
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(done as u64);
        match piece(rest, at)? {
            0 => return Err(Error::corrupt("volume", at, "nothing lies there")),
            count => done = done.saturating_add(count),
        }
    }
    Ok(())
}

/// The first `length` bytes of `buffer`, or all of it where it is shorter.
pub(crate) fn front(buffer: &mut [u8], length: u64) -> &mut [u8] {
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
    buffer.get_mut(..length).unwrap_or_default()
}

/// Bytes in which copies are tried again one by one after a longer read has failed on each of them: a bad block must not
/// take its neighbours along.
const RETRY_BYTES: usize = 4096;

/// Fills `buffer` by the first of `copies` that can be read, each a source and the place of the first byte in it.
///
/// # Errors
/// The error of the first, where all fail; one that says that the budget is used up at once.
pub(crate) fn read_any(buffer: &mut [u8], copies: &[(&Source, u64)]) -> Result<()> {
    let attempt = |part: &mut [u8], at: u64| {
        let mut first = None;
        for (source, place) in copies {
            match source.read_exact_at(part, place.saturating_add(at)) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| Error::corrupt("volume", at, "no copy of these bytes is there")))
    };
    match attempt(buffer, 0) {
        Err(error) if error.is_budget_exhausted() || buffer.len() <= RETRY_BYTES || copies.len() < 2 => Err(error),
        Err(_) => {
            let mut at = 0;
            for part in buffer.chunks_mut(RETRY_BYTES) {
                attempt(part, at)?;
                at = at.saturating_add(part.len() as u64);
            }
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Zeros.
#[derive(Debug)]
pub(crate) struct Zeros(pub(crate) u64);

impl ReadAt for Zeros {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.0, buffer.len(), offset)?;
        buffer.fill(0);
        Ok(())
    }
}

/// A stretch of a device, and where its bytes are.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) source: Source,
    /// Where it starts in `source`.
    pub(crate) offset: u64,
}

/// Parts one after another.
#[derive(Debug)]
pub(crate) struct Concat {
    parts: Vec<Part>,
    length: u64,
}

impl Concat {
    /// Parts that must follow one another without gap, the first at 0.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where they do not.
    pub(crate) fn new(mut parts: Vec<Part>) -> Result<Self> {
        parts.sort_by_key(|part| part.start);
        let mut length = 0_u64;
        for part in &parts {
            let end = part.start.checked_add(part.length).filter(|_| part.start == length && part.length > 0);
            length = end.ok_or_else(|| {
                Error::corrupt(
                    "volume",
                    part.start,
                    format!("a part starts there, and the ones before end at {length}"),
                )
            })?;
        }
        Ok(Self { parts, length })
    }

    /// The same as a source; a single part that is a whole source is that source.
    pub(crate) fn into_source(self) -> Source {
        match self.parts.as_slice() {
            [only] if only.offset == 0 && only.length == only.source.len() => Arc::clone(&only.source),
            _ => Arc::new(self),
        }
    }
}

impl ReadAt for Concat {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_in_pieces(self.length, buffer, offset, |rest, at| {
            let index = self.parts.partition_point(|part| part.start <= at);
            let Some(part) = index.checked_sub(1).and_then(|index| self.parts.get(index)) else { return Ok(0) };
            let within = at.saturating_sub(part.start);
            let piece = front(rest, part.length.saturating_sub(within));
            part.source.read_exact_at(piece, part.offset.saturating_add(within))?;
            Ok(piece.len())
        })
    }
}

/// Chunks dealt out to members in turn.
#[derive(Debug)]
pub(crate) struct Striped {
    /// Each with where its first chunk lies.
    pub(crate) members: Vec<(Source, u64)>,
    /// Bytes of a chunk, not 0.
    pub(crate) chunk: u64,
    /// How far the first chunk's member is from the first member.
    pub(crate) shift: u64,
    pub(crate) length: u64,
}

impl ReadAt for Striped {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let count = self.members.len() as u64;
        read_in_pieces(self.length, buffer, offset, |rest, at| {
            let (number, within) = (at.checked_div(self.chunk), at.checked_rem(self.chunk));
            let (Some(number), Some(within)) = (number, within) else { return Ok(0) };
            let turn = number.wrapping_add(self.shift).checked_rem(count).and_then(|turn| usize::try_from(turn).ok());
            let Some((member, start)) = turn.and_then(|turn| self.members.get(turn)) else { return Ok(0) };
            let row = number.checked_div(count).unwrap_or(0);
            let place = row.saturating_mul(self.chunk).saturating_add(within).saturating_add(*start);
            let piece = front(rest, self.chunk.saturating_sub(within));
            member.read_exact_at(piece, place)?;
            Ok(piece.len())
        })
    }
}

/// Copies of the same bytes, the best one first.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) legs: Vec<Source>,
    pub(crate) length: u64,
}

impl ReadAt for Mirror {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.length, buffer.len(), offset)?;
        let copies: Vec<_> = self.legs.iter().map(|leg| (leg, offset)).collect();
        read_any(buffer, &copies)
    }
}

/// A member some stretches of which are known to be wrong: blocks recorded as bad, or not rebuilt yet.
#[derive(Debug)]
pub(crate) struct Patchy {
    pub(crate) source: Source,
    /// Start and end in bytes, in any order.
    pub(crate) bad: Vec<(u64, u64)>,
}

impl ReadAt for Patchy {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), buffer.len(), offset)?;
        let end = offset.saturating_add(buffer.len() as u64);
        if let Some((start, _)) = self.bad.iter().find(|(from, to)| *from < end && *to > offset) {
            return Err(Error::corrupt("RAID member", *start, "the array records these bytes as bad"));
        }
        self.source.read_exact_at(buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(bytes: impl IntoIterator<Item = u8>) -> Source {
        Arc::new(bytes.into_iter().collect::<Vec<_>>())
    }

    fn all(source: &dyn ReadAt) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(source.len()).unwrap()];
        source.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn parts_follow_one_another() {
        let part = |start, length, offset| Part { start, length, source: source(0..10), offset };
        let joined = Concat::new(vec![part(3, 2, 0), part(0, 3, 7)]).unwrap();
        assert_eq!(all(&joined), [7, 8, 9, 0, 1]);
        assert!(joined.read_exact_at(&mut [0; 2], 4).is_err());
        for wrong in
            [vec![part(1, 2, 0)], vec![part(0, 3, 0), part(2, 2, 0)], vec![part(0, u64::MAX, 0), part(u64::MAX, 9, 0)]]
        {
            assert!(Concat::new(wrong).is_err());
        }
    }

    #[test]
    fn chunks_are_dealt_out_in_turn() {
        let members = vec![(source([0, 1, 4, 5, 8]), 0), (source([9, 2, 3, 6, 7]), 1)];
        let striped = Striped { members, chunk: 2, shift: 0, length: 9 };
        assert_eq!(all(&striped), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_bad_block_of_each_copy_does_not_hide_what_the_other_has() {
        let bytes: Vec<u8> = (0..64 << 10).map(|at: u32| (at / 7 % 251) as u8).collect();
        let leg = |bad| -> Source { Arc::new(Patchy { source: source(bytes.clone()), bad: vec![bad] }) };
        let mirror = Mirror { legs: vec![leg((5000, 5512)), leg((30000, 30512))], length: 64 << 10 };
        assert_eq!(all(&mirror), bytes);
        let hopeless = Mirror { legs: vec![leg((5000, 5512)), leg((5511, 5600))], length: 64 << 10 };
        assert!(hopeless.read_exact_at(&mut [0; 100], 5500).is_err());
        assert!(hopeless.read_exact_at(&mut [0; 100], 6000).is_ok());
    }
}
