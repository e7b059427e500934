//! RAID levels whose members hold parity or several copies: where each chunk lies, and how a missing one is computed.
//!
//! Source: the Linux kernel's `raid5.c` (`raid5_compute_sector` and the order of the syndrome), `raid10.c`
//! (`__raid10_find_phys`), and H. P. Anvin, "The mathematics of RAID-6". Both md and device-mapper's raid target use them.

use crate::error::{Error, Result};
use crate::galois::{add, add_times, inverse, power_of_two, times};
use crate::read_at::{ReadAt, Source};
use crate::volume::compose::{front, read_any, read_in_pieces};

/// Bytes that are computed at a time: a chunk can be as long as an image says.
const COMPUTE_BYTES: u64 = 128 << 10;

/// Where parity goes as the stripes go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// From the last member to the first.
    Left,
    /// From the first member to the last.
    Right,
    /// Always the first.
    First,
    /// Always the last.
    Last,
}

/// The layouts of RAID 4, 5 and 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParityLayout {
    rotation: Rotation,
    /// Whether data goes on after parity ("symmetric") instead of from the first member.
    symmetric: bool,
    second: Second,
}

/// Where the second parity, Q, lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    /// There is none.
    None,
    /// After P, with the coefficients counted from the member after Q: md's own layouts.
    AfterP,
    /// After P, with the coefficients counted from the first member: those of DDF.
    AfterPDdf,
    /// Before P, with the coefficients of DDF.
    BeforeP,
    /// On the last member: a RAID 5 that has been given one more.
    LastMember,
}

impl ParityLayout {
    /// The layout that md numbers so at `level` (md(4), `ALGORITHM_…` of the kernel's `raid5.h`).
    pub(crate) fn of_md(level: i32, number: u32) -> Option<Self> {
        use Rotation::{First, Last, Left, Right};
        let layout = |rotation, symmetric, second| Some(Self { rotation, symmetric, second });
        match (level, number) {
            (4, _) => layout(Last, false, Second::None),
            (5, 0) => layout(Left, false, Second::None),
            (5, 1) => layout(Right, false, Second::None),
            (5, 2) => layout(Left, true, Second::None),
            (5, 3) => layout(Right, true, Second::None),
            (5, 4) => layout(First, false, Second::None),
            (5, 5) => layout(Last, false, Second::None),
            (6, 0) => layout(Left, false, Second::AfterP),
            (6, 1) => layout(Right, false, Second::AfterP),
            (6, 2) => layout(Left, true, Second::AfterP),
            (6, 3) => layout(Right, true, Second::AfterP),
            (6, 4) => layout(First, false, Second::AfterP),
            (6, 5) => layout(Last, false, Second::AfterP),
            (6, 8) => layout(Right, false, Second::AfterPDdf),
            (6, 9) => layout(Left, false, Second::AfterPDdf),
            (6, 10) => layout(Left, true, Second::BeforeP),
            (6, 16) => layout(Left, false, Second::LastMember),
            (6, 17) => layout(Right, false, Second::LastMember),
            (6, 18) => layout(Left, true, Second::LastMember),
            (6, 19) => layout(Right, true, Second::LastMember),
            (6, 20) => layout(First, false, Second::LastMember),
            _ => None,
        }
    }

    /// Members of each stripe that hold parity.
    pub(crate) const fn parities(self) -> usize {
        match self.second {
            Second::None => 1,
            _ => 2,
        }
    }

    /// The members that hold P and Q in `stripe`.
    fn parity(self, stripe: u64, members: usize) -> (usize, Option<usize>) {
        let ring = if self.second == Second::LastMember { members.saturating_sub(1) } else { members };
        // The first stripe of DDF's "N restart" has P on the last member but one.
        let stripe = if self.second == Second::AfterPDdf && self.rotation == Rotation::Left {
            stripe.wrapping_add(1)
        } else {
            stripe
        };
        let turn = stripe.checked_rem(ring as u64).and_then(|turn| usize::try_from(turn).ok()).unwrap_or(0);
        let p = match self.rotation {
            Rotation::Left => ring.saturating_sub(1).saturating_sub(turn),
            Rotation::Right => turn,
            Rotation::First => 0,
            Rotation::Last => members.saturating_sub(self.parities()),
        };
        let q = match self.second {
            Second::None => None,
            Second::AfterP | Second::AfterPDdf => Some(if p + 1 == members { 0 } else { p + 1 }),
            Second::BeforeP => Some(if p == 0 { members.saturating_sub(1) } else { p - 1 }),
            Second::LastMember => Some(members.saturating_sub(1)),
        };
        (p, q)
    }

    /// The member that holds the data chunk `index` of a stripe whose parity lies so.
    fn data(self, index: usize, p: usize, q: Option<usize>, members: usize) -> usize {
        if self.symmetric {
            let (after, ring) = match self.second {
                Second::None | Second::BeforeP => (p + 1, members),
                Second::AfterP | Second::AfterPDdf => (p + 2, members),
                Second::LastMember => (p + 1, members.saturating_sub(1)),
            };
            return after.wrapping_add(index).checked_rem(ring).unwrap_or(0);
        }
        // The members without parity, in order.
        (0..members).filter(|member| *member != p && Some(*member) != q).nth(index).unwrap_or(members)
    }

    /// The power of the generator by which the data of `member` goes into Q.
    fn power(self, member: usize, p: usize, q: usize, members: usize) -> usize {
        match self.second {
            Second::AfterPDdf | Second::BeforeP => member,
            _ => {
                let from = |start: usize, to: usize| (to + members - start).checked_rem(members).unwrap_or(0);
                let first = (q + 1).checked_rem(members).unwrap_or(0);
                let steps = from(first, member);
                if from(first, p) < steps { steps.saturating_sub(1) } else { steps }
            }
        }
    }
}

/// RAID 4, 5 or 6.
#[derive(Debug)]
pub(crate) struct Parity {
    members: Vec<Option<Source>>,
    layout: ParityLayout,
    chunk: u64,
    length: u64,
}

impl Parity {
    /// `members` in their places, `None` where one is missing; `used` bytes of each belong to the array.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where more are missing than parity makes up for, or the numbers make no array.
    pub(crate) fn new(members: Vec<Option<Source>>, layout: ParityLayout, chunk: u64, used: u64) -> Result<Self> {
        let parities = layout.parities();
        // The generator of the field has 255 powers.
        if members.len() <= parities || members.len() > 256 || chunk == 0 {
            let reason = format!("{} members with chunks of {chunk} bytes make no array with parity", members.len());
            return Err(Error::corrupt("RAID array", 0, reason));
        }
        check_missing(&members, parities)?;
        let stripes = used.checked_div(chunk).unwrap_or(0);
        let per_stripe = chunk.checked_mul((members.len() - parities) as u64);
        let length = per_stripe.and_then(|bytes| bytes.checked_mul(stripes));
        let length = length.ok_or_else(|| Error::corrupt("RAID array", 0, "it is longer than any device"))?;
        Ok(Self { members, layout, chunk, length })
    }

    fn read_member(&self, member: usize, buffer: &mut [u8], offset: u64) -> Result<()> {
        match self.members.get(member) {
            Some(Some(source)) => source.read_exact_at(buffer, offset),
            _ => Err(Error::corrupt("RAID array", offset, format!("member {member} is missing"))),
        }
    }

    /// Computes what `wanted` holds from the others.
    fn compute(&self, stripe: u64, wanted: usize, buffer: &mut [u8], offset: u64) -> Result<()> {
        let (p, q) = self.layout.parity(stripe, self.members.len());
        let mut others = Vec::new();
        let mut failed = Vec::new();
        let mut data = vec![0; buffer.len()];
        // The sum of the data that can be read, and of the same each times its coefficient.
        let (mut sum, mut weighted) = (vec![0; buffer.len()], vec![0; buffer.len()]);
        for member in (0..self.members.len()).filter(|member| *member != p && Some(*member) != q && *member != wanted) {
            match self.read_member(member, &mut data, offset) {
                Ok(()) => {
                    add(&mut sum, &data);
                    if let Some(q) = q {
                        add_times(
                            &mut weighted,
                            &data,
                            power_of_two(self.layout.power(member, p, q, self.members.len())),
                        );
                    }
                    others.push(member);
                }
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Err(error) => failed.push((member, error)),
            }
        }
        let first_parity = self.read_member(p, &mut data, offset);
        match (failed.pop(), failed.is_empty(), first_parity, q) {
            (None, _, Ok(()), _) => {
                add(&mut sum, &data);
                buffer.copy_from_slice(&sum);
                Ok(())
            }
            (_, _, Err(error), _) if error.is_budget_exhausted() => Err(error),
            (None, _, Err(_), Some(q)) => {
                self.read_member(q, &mut data, offset)?;
                add(&mut weighted, &data);
                let own = power_of_two(self.layout.power(wanted, p, q, self.members.len()));
                buffer.fill(0);
                add_times(buffer, &weighted, inverse(own));
                Ok(())
            }
            (Some((other, _)), true, Ok(()), Some(q)) => {
                add(&mut sum, &data);
                self.read_member(q, &mut data, offset)?;
                add(&mut weighted, &data);
                let count = self.members.len();
                let own = power_of_two(self.layout.power(wanted, p, q, count));
                let others = power_of_two(self.layout.power(other, p, q, count));
                // sum = x + y and weighted = own x + others y.
                let scale = inverse(own ^ others);
                buffer.fill(0);
                add_times(buffer, &weighted, scale);
                add_times(buffer, &sum, times(others, scale));
                Ok(())
            }
            (Some((_, error)), ..) | (None, _, Err(error), None) => Err(error),
        }
    }
}

impl ReadAt for Parity {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let count = self.members.len();
        let per_stripe = count.saturating_sub(self.layout.parities()) as u64;
        read_in_pieces(self.length, buffer, offset, |rest, at| {
            let number = at.checked_div(self.chunk).unwrap_or(0);
            let within = at.checked_rem(self.chunk).unwrap_or(0);
            let stripe = number.checked_div(per_stripe).unwrap_or(0);
            let index = number.checked_rem(per_stripe).and_then(|index| usize::try_from(index).ok()).unwrap_or(0);
            let (p, q) = self.layout.parity(stripe, count);
            let member = self.layout.data(index, p, q, count);
            let place = stripe.saturating_mul(self.chunk).saturating_add(within);
            let piece = front(rest, self.chunk.saturating_sub(within));
            match self.read_member(member, piece, place) {
                Err(error) if !error.is_budget_exhausted() => {
                    let piece = front(piece, COMPUTE_BYTES);
                    self.compute(stripe, member, piece, place)?;
                    Ok(piece.len())
                }
                read => read.map(|()| piece.len()),
            }
        })
    }
}

/// Fails where more than `bearable` of `members` are missing.
fn check_missing(members: &[Option<Source>], bearable: usize) -> Result<()> {
    let missing = members.iter().filter(|member| member.is_none()).count();
    if missing > bearable {
        let reason = format!("{missing} of its {} members are missing", members.len());
        return Err(Error::corrupt("RAID array", 0, reason));
    }
    Ok(())
}

/// RAID 10, or copies that are dealt out over any number of members.
#[derive(Debug)]
pub(crate) struct Raid10 {
    members: Vec<Option<Source>>,
    geometry: Geometry10,
    chunk: u64,
    /// Bytes between a chunk and its next far copy.
    stride: u64,
    length: u64,
}

/// How the copies of RAID 10 are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry10 {
    near: usize,
    far: usize,
    /// Whether far copies follow in the next row, rather than in the next part of the members.
    offset: bool,
    /// Members among which far copies rotate.
    far_set: usize,
}

impl Geometry10 {
    /// As md numbers the layout: near copies, far copies in the second byte, and flags from bit 16 on.
    fn of_md(layout: u32, members: usize) -> Option<Self> {
        let near = (layout & 0xff) as usize;
        let far = (layout >> 8 & 0xff) as usize;
        let far_set = match layout >> 17 {
            0 => members,
            1 => members.checked_div(far)?,
            2 => far.checked_mul(near)?,
            _ => return None,
        };
        let copies = near.checked_mul(far)?;
        let is_sound = copies > 0 && copies <= members && far_set > 0 && far_set <= members;
        is_sound.then_some(Self { near, far, offset: layout & 1 << 16 != 0, far_set })
    }
}

impl Raid10 {
    /// `members` in their places, `None` where one is missing; `used` bytes of each belong to the array.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an unknown layout, [`Error::Corrupt`] where a chunk has no copy left.
    pub(crate) fn new(members: Vec<Option<Source>>, layout: u32, chunk: u64, used: u64) -> Result<Self> {
        let count = members.len();
        let Some(geometry) = Geometry10::of_md(layout, count) else {
            return Err(Error::unsupported(format!("raid10 layout {layout:#x} of {count} members")));
        };
        let chunks = used.checked_div(chunk).ok_or_else(|| Error::corrupt("RAID array", 0, "chunks of 0 bytes"))?;
        let overflow = || Error::corrupt("RAID array", 0, "it is longer than any device");
        let (near, far, disks) = (geometry.near as u64, geometry.far as u64, count as u64);
        let chunks = (chunks / far.max(1)).checked_mul(disks).ok_or_else(overflow)? / near.max(1);
        let length = chunks.checked_mul(chunk).ok_or_else(overflow)?;
        let rows = chunks.checked_mul(near * far).ok_or_else(overflow)?.div_ceil(disks.max(1));
        let stride = if geometry.offset { chunk } else { (rows / far.max(1)).saturating_mul(chunk) };
        let array = Self { members, geometry, chunk, stride, length };
        array.check_copies(chunks)?;
        Ok(array)
    }

    /// Fails where a chunk has no copy on the members that are there. The pattern repeats after as many chunks as there
    /// are members.
    fn check_copies(&self, chunks: u64) -> Result<()> {
        for number in 0..chunks.min(self.members.len() as u64) {
            if !self.copies(number).iter().any(|(member, _)| matches!(self.members.get(*member), Some(Some(_)))) {
                let missing = self.members.iter().filter(|member| member.is_none()).count();
                let reason =
                    format!("{missing} of its {} members are missing, all copies of a chunk", self.members.len());
                return Err(Error::corrupt("RAID array", 0, reason));
            }
        }
        Ok(())
    }

    /// The members that hold chunk `number`, and where.
    fn copies(&self, number: u64) -> Vec<(usize, u64)> {
        let Geometry10 { near, far, offset, far_set } = self.geometry;
        let count = self.members.len();
        let first = number.saturating_mul(near as u64);
        let mut row = first.checked_div(count as u64).unwrap_or(0);
        let mut member = first.checked_rem(count as u64).and_then(|rest| usize::try_from(rest).ok()).unwrap_or(0);
        if offset {
            row = row.saturating_mul(far as u64);
        }
        let mut place = row.saturating_mul(self.chunk);
        // Where members are no multiple of a set, the last set takes the rest in.
        let last_start = (count / far_set).saturating_sub(1).saturating_mul(far_set);
        let last_size = far_set + count % far_set;
        let mut copies = Vec::with_capacity(near.saturating_mul(far));
        for _ in 0..near {
            let (mut at, mut far_place) = (member, place);
            copies.push((at, far_place));
            for _ in 1..far {
                let set = at / far_set;
                at += near;
                if !count.is_multiple_of(far_set) && at > last_start {
                    at = (at - last_start) % last_size + last_start;
                } else {
                    at = at % far_set + far_set * set;
                }
                far_place = far_place.saturating_add(self.stride);
                copies.push((at, far_place));
            }
            member += 1;
            if member >= count {
                member = 0;
                place = place.saturating_add(self.chunk);
            }
        }
        copies
    }
}

impl ReadAt for Raid10 {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_in_pieces(self.length, buffer, offset, |rest, at| {
            let number = at.checked_div(self.chunk).unwrap_or(0);
            let within = at.checked_rem(self.chunk).unwrap_or(0);
            let piece = front(rest, self.chunk.saturating_sub(within));
            let placed = self.copies(number).into_iter();
            let copies: Vec<_> = placed
                .filter_map(|(member, place)| Some((self.members.get(member)?.as_ref()?, place.saturating_add(within))))
                .collect();
            read_any(piece, &copies)?;
            Ok(piece.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// The tables of md(4) and of Wikipedia's "Non-standard RAID levels" for four members: a digit is a data chunk.
    #[test]
    fn the_layouts_are_those_of_the_published_tables() {
        let tables: [(i32, u32, &[&str]); 13] = [
            (5, 0, &["012P", "34P5", "6P78", "P9ab", "cdeP"]),
            (5, 1, &["P012", "3P45", "67P8", "9abP", "Pcde"]),
            (5, 2, &["012P", "45P3", "8P67", "P9ab", "cdeP"]),
            (5, 3, &["P012", "5P34", "78P6", "9abP", "Pcde"]),
            (5, 4, &["P012", "P345"]),
            (5, 5, &["012P", "345P"]),
            (4, 0, &["012P", "345P"]),
            (6, 0, &["Q01P", "23PQ", "4PQ5", "PQ67", "Q89P"]),
            (6, 2, &["Q01P", "23PQ", "5PQ4", "PQ67", "Q89P"]),
            (6, 8, &["PQ01", "2PQ3", "45PQ", "Q67P", "PQ89"]),
            (6, 9, &["01PQ", "2PQ3", "PQ45", "Q67P", "89PQ"]),
            (6, 10, &["01QP", "3QP2", "QP45", "P67Q", "89QP"]),
            (6, 18, &["01PQ", "3P2Q", "P45Q", "67PQ"]),
        ];
        for (level, number, rows) in tables {
            let layout = ParityLayout::of_md(level, number).unwrap();
            let members = 4;
            let per_stripe = members - layout.parities();
            for (stripe, expected) in rows.iter().enumerate() {
                let (p, q) = layout.parity(stripe as u64, members);
                let mut row = vec!['?'; members];
                for index in 0..per_stripe {
                    let digit = u32::try_from(stripe * per_stripe + index).unwrap();
                    row[layout.data(index, p, q, members)] = char::from_digit(digit, 16).unwrap();
                }
                row[p] = 'P';
                if let Some(q) = q {
                    row[q] = 'Q';
                }
                assert_eq!(
                    row.iter().collect::<String>(),
                    *expected,
                    "level {level}, layout {number}, stripe {stripe}"
                );
            }
        }
    }

    fn noise(length: usize, seed: u32) -> Vec<u8> {
        let mut state = seed | 1;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    }

    fn all(source: &dyn ReadAt) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(source.len()).unwrap()];
        source.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn any_missing_members_that_parity_makes_up_for_are_computed() {
        const CHUNK: usize = 64;
        for (level, number) in
            [(4, 0), (5, 0), (5, 2), (5, 3), (6, 0), (6, 2), (6, 5), (6, 8), (6, 9), (6, 10), (6, 19)]
        {
            let layout = ParityLayout::of_md(level, number).unwrap();
            let (members, stripes) = (6, 7);
            let per_stripe = members - layout.parities();
            let bytes = noise(stripes * per_stripe * CHUNK, 7);
            let mut disks = vec![vec![0_u8; stripes * CHUNK]; members];
            for stripe in 0..stripes {
                let (p, q) = layout.parity(stripe as u64, members);
                for index in 0..per_stripe {
                    let chunk = &bytes[(stripe * per_stripe + index) * CHUNK..][..CHUNK];
                    let member = layout.data(index, p, q, members);
                    disks[member][stripe * CHUNK..][..CHUNK].copy_from_slice(chunk);
                    add(&mut disks[p][stripe * CHUNK..][..CHUNK], chunk);
                    if let Some(q) = q {
                        let factor = power_of_two(layout.power(member, p, q, members));
                        add_times(&mut disks[q][stripe * CHUNK..][..CHUNK], chunk, factor);
                    }
                }
            }
            for first in 0..members {
                for second in first..members {
                    let missing = if layout.parities() == 2 { [first, second] } else { [first, first] };
                    let members = disks
                        .iter()
                        .enumerate()
                        .map(|(index, disk)| (!missing.contains(&index)).then(|| Arc::new(disk.clone()) as Source));
                    let array =
                        Parity::new(members.collect(), layout, CHUNK as u64, (stripes * CHUNK) as u64 + 5).unwrap();
                    assert_eq!(all(&array), bytes, "level {level}, layout {number}, without {missing:?}");
                }
            }
            assert!(Parity::new(vec![None; members], layout, CHUNK as u64, 1000).is_err());
        }
    }

    /// The tables of md(4) and of Wikipedia's "Linux MD RAID 10".
    #[test]
    fn copies_lie_where_the_published_tables_have_them() {
        let tables: [(u32, &[&str]); 4] = [
            // near=2 over 3
            (0x102, &["001", "122", "334", "455"]),
            // far=2 over 3
            (0x201, &["012", "345", "201", "534"]),
            // offset=2 over 3
            (0x1_0201, &["012", "201", "345", "534"]),
            // far=2 over 3 with sets as large as all
            (0x301, &["012", "345", "201", "534", "120", "453"]),
        ];
        for (layout, rows) in tables {
            let array =
                Raid10::new(vec![Some(Arc::new(vec![0_u8; 99]) as Source); 3], layout, 1, rows.len() as u64).unwrap();
            let mut found = vec![vec!['.'; 3]; rows.len()];
            for number in 0..array.length {
                for (member, place) in array.copies(number) {
                    found[usize::try_from(place).unwrap()][member] =
                        char::from_digit(u32::try_from(number).unwrap(), 36).unwrap();
                }
            }
            let found: Vec<String> = found.into_iter().map(|row| row.into_iter().collect()).collect();
            assert_eq!(found, rows, "layout {layout:#x}");
        }
    }

    #[test]
    fn an_array_without_a_copy_left_is_refused() {
        let member = || Some(Arc::new(vec![0_u8; 64]) as Source);
        assert!(Raid10::new(vec![None, member(), member(), None], 0x102, 8, 64).is_ok());
        assert!(Raid10::new(vec![None, None, member(), member()], 0x102, 8, 64).is_err());
        for hostile in [0, 0x100, 0xffff, 0x7_0102, u32::MAX] {
            assert!(Raid10::new(vec![member(), member()], hostile, 8, 64).is_err(), "{hostile:#x}");
        }
    }
}
