//! A file with what its log would have written over it, in memory.

use std::collections::BTreeMap;

use super::super::blocks::read_padded;
use crate::bytes::slice;
use crate::error::{Error, Result};
use crate::read_at::{ReadAt, Source, check_range};

/// What a range of the file holds instead of its own bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Zeros,
    /// So many bytes into the written bytes.
    Written(usize),
}

impl Content {
    /// What follows `bytes` further on.
    fn after(self, bytes: u64) -> Self {
        match self {
            Self::Zeros => Self::Zeros,
            Self::Written(at) => Self::Written(at.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX))),
        }
    }
}

/// A file, written over.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Source,
    length: u64,
    /// By where they begin: where they end, and what they hold. They do not overlap.
    ranges: BTreeMap<u64, (u64, Content)>,
    written: Vec<u8>,
}

impl Overlay {
    pub(super) fn new(file: Source) -> Self {
        let length = file.len();
        Self { file, length, ranges: BTreeMap::new(), written: Vec::new() }
    }

    /// Makes the file at least `length` bytes long.
    pub(super) fn extend(&mut self, length: u64) {
        self.length = self.length.max(length);
    }

    /// Writes `bytes` at `offset`; `None` where that leaves what can be addressed.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Option<()> {
        let at = self.written.len();
        self.written.try_reserve(bytes.len()).ok()?;
        self.written.extend_from_slice(bytes);
        self.put(offset, bytes.len() as u64, Content::Written(at))
    }

    /// Writes `length` zeros at `offset`; `None` as above.
    pub(super) fn write_zeros(&mut self, offset: u64, length: u64) -> Option<()> {
        self.put(offset, length, Content::Zeros)
    }

    fn put(&mut self, start: u64, length: u64, content: Content) -> Option<()> {
        let end = start.checked_add(length)?;
        if length == 0 {
            return Some(());
        }
        // What begins before and reaches in is cut; what begins within goes, but for what reaches out.
        if let Some((&before, &(until, old))) =
            self.ranges.range(..start).next_back().filter(|(_, (end, _))| *end > start)
        {
            self.ranges.insert(before, (start, old));
            if until > end {
                self.ranges.insert(end, (until, old.after(end - before)));
            }
        }
        while let Some((&within, &(until, old))) = self.ranges.range(start..end).next() {
            self.ranges.remove(&within);
            if until > end {
                self.ranges.insert(end, (until, old.after(end - within)));
            }
        }
        self.ranges.insert(start, (end, content));
        self.extend(end);
        Some(())
    }

    /// The range that holds `at`, or the first after it.
    fn range_from(&self, at: u64) -> Option<(u64, u64, Content)> {
        let holding = self.ranges.range(..=at).next_back().filter(|(_, (end, _))| *end > at);
        let (start, (end, content)) = holding.or_else(|| self.ranges.range(at..).next())?;
        Some((*start, *end, *content))
    }
}

impl ReadAt for Overlay {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.length, buffer.len(), offset)?;
        let mut rest = buffer;
        let mut at = offset;
        while !rest.is_empty() {
            let wanted = rest.len() as u64;
            let (length, content) = match self.range_from(at) {
                Some((start, end, content)) if start <= at => (end - at, Some(content.after(at - start))),
                Some((start, ..)) => (start - at, None),
                None => (wanted, None),
            };
            let count = usize::try_from(length.min(wanted)).unwrap_or(rest.len());
            let (part, later) = std::mem::take(&mut rest).split_at_mut(count);
            match content {
                None => read_padded(&*self.file, part, at)?,
                Some(Content::Zeros) => part.fill(0),
                Some(Content::Written(from)) => {
                    let bytes = slice(&self.written, from, part.len());
                    part.copy_from_slice(bytes.ok_or_else(|| Error::corrupt("vhdx log", at, "it ends too early"))?);
                }
            }
            rest = later;
            at = at.saturating_add(count as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// The oracle is a plain array that is written to.
    #[test]
    fn reads_give_what_was_written_last() {
        let mut state = 1_u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..200 {
            let file: Vec<u8> = (0..500).map(|at| at as u8).collect();
            let mut expected = file.clone();
            let mut overlay = Overlay::new(Arc::new(file));
            for step in 0..30 {
                let (start, length) = (next(600) as usize, next(80) as usize);
                if expected.len() < start + length {
                    expected.resize(start + length, 0);
                }
                if next(3) == 0 {
                    overlay.write_zeros(start as u64, length as u64).unwrap();
                    expected[start..start + length].fill(0);
                } else {
                    let bytes = vec![100 + step; length];
                    overlay.write(start as u64, &bytes).unwrap();
                    expected[start..start + length].copy_from_slice(&bytes);
                }
            }
            expected.resize(overlay.len() as usize, 0);
            let (from, length) = (next(400) as usize, next(100) as usize);
            for (from, length) in [(0, expected.len()), (from, length)] {
                let mut found = vec![1; length];
                overlay.read_exact_at(&mut found, from as u64).unwrap();
                assert_eq!(found, expected[from..from + length]);
            }
        }
    }

    #[test]
    fn writing_past_what_can_be_addressed_is_refused() {
        let mut overlay = Overlay::new(Arc::new(vec![0; 10]));
        assert_eq!(overlay.write_zeros(u64::MAX - 4095, 4096), None);
        assert_eq!(overlay.write_zeros(4096, 1 << 62), Some(()));
        assert_eq!(overlay.len(), (1 << 62) + 4096);
    }
}
