//! What extensions keep in a record's system use field: the System Use Sharing Protocol (IEEE P1281) and Rock Ridge
//! (IEEE P1282, 1.12), and the entry of zisofs, whose contents are compressed.

use super::super::Timestamp;
use super::record::{long_date, short_date};
use crate::bytes::{array, has, le_u32, slice};
use crate::error::{Error, Result};

/// Continuation areas of one record: as many as the kernel follows.
const CONTINUATIONS_MAX: usize = 32;
/// Bytes of a continuation area: a block.
const CONTINUATION_BYTES_MAX: u32 = 2048;
/// The longest name, and the longest link target, that anything could resolve.
const TEXT_BYTES_MAX: usize = 4096;
/// Bytes that discs for CD-ROM XA keep before the entries.
const XA_BYTES: usize = 14;

/// Gives bytes of a block: its number, the first byte in it, and how many.
pub(super) type ReadBlock<'a> = dyn Fn(u32, u32, u32) -> Result<Vec<u8>> + 'a;
/// Takes an entry's signature and data.
type Take<'a> = dyn FnMut(&[u8; 2], &[u8]) -> Result<()> + 'a;

/// Permissions and owner (`PX`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Posix {
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Contents that are compressed (`ZF`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compressed {
    /// `pz`, or another algorithm of a later version.
    pub(super) algorithm: [u8; 2],
    pub(super) header_bytes: u32,
    pub(super) block_shift: u8,
    pub(super) size: u32,
}

/// What a record's entries tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RockRidge {
    pub(super) name: Option<Vec<u8>>,
    pub(super) posix: Option<Posix>,
    pub(super) device: Option<(u32, u32)>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) created: Option<Timestamp>,
    pub(super) modified: Option<Timestamp>,
    pub(super) accessed: Option<Timestamp>,
    pub(super) changed: Option<Timestamp>,
    /// The block of a directory that was moved away because it lay too deep (`CL`).
    pub(super) child: Option<u32>,
    /// Whether the record is where such a directory was moved to (`RE`).
    pub(super) is_relocated: bool,
    pub(super) compressed: Option<Compressed>,
}

/// How many bytes of system use fields are another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Of the record that the root directory keeps of itself.
    pub(super) in_root: usize,
    /// Of every other record.
    pub(super) elsewhere: usize,
}

/// Whether and how a volume uses the protocol (`SP`). `None` where the record that the root directory keeps of itself has
/// no such entry, or nothing of Rock Ridge.
pub(super) fn find(system_use: &[u8], read: &ReadBlock<'_>) -> Result<Option<Skipped>> {
    let indicator = [0, XA_BYTES].into_iter().find(|at| has(system_use, *at, b"SP\x07\x01\xbe\xef"));
    let Some(at) = indicator else { return Ok(None) };
    let elsewhere = usize::from(system_use.get(at + 6).copied().unwrap_or(0));
    let mut is_rock_ridge = false;
    each(system_use.get(at..).unwrap_or_default(), read, &mut |signature, _| {
        is_rock_ridge |= matches!(signature, b"RR" | b"PX" | b"NM" | b"TF");
        Ok(())
    })?;
    Ok(is_rock_ridge.then_some(Skipped { in_root: at, elsewhere }))
}

impl RockRidge {
    /// The entries in `system_use`, from which the volume's skipped bytes are gone.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a chain of continuations without end, or a name longer than any.
    pub(super) fn parse(system_use: &[u8], read: &ReadBlock<'_>) -> Result<Self> {
        let mut all = Self::default();
        let mut link = Link::default();
        each(system_use, read, &mut |signature, data| {
            match signature {
                b"NM" => all.take_name(data)?,
                b"SL" => link.take(data)?,
                b"PX" => all.posix = posix(data).or(all.posix),
                b"PN" => all.device = device(data).or(all.device),
                b"TF" => all.take_times(data),
                b"CL" => all.child = le_u32(data, 0).or(all.child),
                b"RE" => all.is_relocated = true,
                b"ZF" => all.compressed = compressed(data).or(all.compressed),
                _ => {}
            }
            Ok(())
        })?;
        all.target = link.is_any.then_some(link.target);
        Ok(all)
    }

    /// Section 4.1.4. Names of the directory itself and its parent tell nothing.
    fn take_name(&mut self, data: &[u8]) -> Result<()> {
        let flags = data.first().copied().unwrap_or(0);
        if flags & 0x26 == 0 {
            extend(self.name.get_or_insert_default(), data.get(1..).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Section 4.1.6: which times follow is told by bits, the lowest first.
    fn take_times(&mut self, data: &[u8]) {
        let flags = data.first().copied().unwrap_or(0);
        let is_long = flags & 0x80 != 0;
        let mut at = 1;
        let targets = [&mut self.created, &mut self.modified, &mut self.accessed, &mut self.changed];
        for (bit, target) in targets.into_iter().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0) {
            let _ = bit;
            let time = if is_long {
                array::<17>(data, at).and_then(|date| long_date(&date))
            } else {
                array::<7>(data, at).map(|date| short_date(&date))
            };
            *target = time.or(*target);
            at += if is_long { 17 } else { 7 };
        }
    }
}

/// A symbolic link's target, put together from components (section 4.1.3).
#[derive(Debug, Default)]
struct Link {
    target: Vec<u8>,
    is_any: bool,
    /// Whether a slash must come before the next component.
    is_open: bool,
}

impl Link {
    fn take(&mut self, data: &[u8]) -> Result<()> {
        self.is_any = true;
        let mut rest = data.get(1..).unwrap_or_default();
        while let (Some(&flags), Some(&length)) = (rest.first(), rest.get(1)) {
            let content = rest.get(2..2 + usize::from(length)).unwrap_or_default();
            if self.is_open {
                extend(&mut self.target, b"/")?;
            }
            let text = match flags & 0x0e {
                0x02 => b".".as_slice(),
                0x04 => b"..",
                0x08 => b"/",
                _ => content,
            };
            extend(&mut self.target, text)?;
            // The first bit: the component goes on in the next one.
            self.is_open = flags & 0x09 == 0;
            rest = rest.get(2 + usize::from(length)..).unwrap_or_default();
        }
        Ok(())
    }
}

fn extend(text: &mut Vec<u8>, more: &[u8]) -> Result<()> {
    if text.len() + more.len() > TEXT_BYTES_MAX {
        return Err(Error::corrupt("Rock Ridge entry", 0, format!("a name has more than {TEXT_BYTES_MAX} bytes")));
    }
    text.extend_from_slice(more);
    Ok(())
}

/// Hands each entry's signature and data to `take`, those in continuation areas too.
fn each(area: &[u8], read: &ReadBlock<'_>, take: &mut Take<'_>) -> Result<()> {
    let mut area = area.to_vec();
    for _ in 0..=CONTINUATIONS_MAX {
        let mut continuation = None;
        let mut at = 0;
        while let Some(signature) = array::<2>(&area, at) {
            let length = area.get(at + 2).copied().map_or(0, usize::from);
            let Some(entry) = slice(&area, at, length).filter(|entry| entry.len() >= 4) else { break };
            let data = entry.get(4..).unwrap_or_default();
            match &signature {
                b"ST" => break,
                b"CE" => continuation = le_u32(data, 0).zip(le_u32(data, 8)).zip(le_u32(data, 16)),
                other => take(other, data)?,
            }
            at += length;
        }
        let Some(((block, offset), length)) = continuation else { return Ok(()) };
        if length > CONTINUATION_BYTES_MAX || offset > CONTINUATION_BYTES_MAX {
            let reason = format!("a continuation of {length} bytes at {offset}");
            return Err(Error::corrupt("system use entry", u64::from(block), reason));
        }
        area = read(block, offset, length)?;
    }
    Err(Error::corrupt("system use entry", 0, "continuations go on without end"))
}

fn posix(data: &[u8]) -> Option<Posix> {
    Some(Posix { mode: le_u32(data, 0)?, links: le_u32(data, 8)?, uid: le_u32(data, 16)?, gid: le_u32(data, 24)? })
}

/// Section 4.1.2: numbers of 64 bits in two halves; where the upper one is empty, systems of 16 bits wrote both in the
/// lower one.
fn device(data: &[u8]) -> Option<(u32, u32)> {
    let (high, low) = (le_u32(data, 0)?, le_u32(data, 8)?);
    Some(if high == 0 && low > 0xff { (low >> 8, low & 0xff) } else { (high, low) })
}

fn compressed(data: &[u8]) -> Option<Compressed> {
    Some(Compressed {
        algorithm: array(data, 0)?,
        header_bytes: u32::from(*data.get(2)?) * 4,
        block_shift: *data.get(3)?,
        size: le_u32(data, 4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(signature: &[u8; 2], data: &[u8]) -> Vec<u8> {
        let mut entry = signature.to_vec();
        entry.extend([4 + data.len() as u8, 1]);
        entry.extend(data);
        entry
    }

    fn both(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| [number.to_le_bytes(), number.to_be_bytes()].concat()).collect()
    }

    fn nothing(_: u32, _: u32, _: u32) -> Result<Vec<u8>> {
        Err(Error::corrupt("test", 0, "no continuation"))
    }

    #[test]
    fn names_and_targets_go_on_across_entries_and_areas() {
        let first = [entry(b"NM", b"\x01long "), entry(b"CE", &both(&[7, 8, 9]))].concat();
        let second = [
            entry(b"NM", b"\0name"),
            entry(b"SL", b"\x01\x08\0\0\x03usr\x01\x02lo"),
            entry(b"SL", b"\0\0\x03cal\x04\0\x02\0\0\x01x"),
        ]
        .concat();
        let read = |block, offset, length| {
            assert_eq!((block, offset, length), (7, 8, 9));
            Ok(second.clone())
        };
        let found = RockRidge::parse(&first, &read).unwrap();
        assert_eq!(found.name.as_deref(), Some(b"long name".as_slice()));
        assert_eq!(found.target.as_deref(), Some(b"/usr/local/.././x".as_slice()));
    }

    #[test]
    fn owners_devices_and_times_are_read() {
        let area = [
            entry(b"PX", &both(&[0o060_644, 1, 1000, 100])),
            entry(b"PN", &both(&[0, 0x0801])),
            entry(b"TF", &[0x0e, 70, 1, 1, 0, 0, 1, 0, 70, 1, 1, 0, 0, 2, 0, 70, 1, 1, 0, 0, 3, 0]),
        ]
        .concat();
        let found = RockRidge::parse(&area, &nothing).unwrap();
        assert_eq!(found.posix, Some(Posix { mode: 0o060_644, links: 1, uid: 1000, gid: 100 }));
        assert_eq!(found.device, Some((8, 1)));
        let seconds = |time: Option<Timestamp>| time.map(|time| time.seconds);
        assert_eq!(
            [found.created, found.modified, found.accessed, found.changed].map(seconds),
            [None, Some(1), Some(2), Some(3)]
        );
    }

    #[test]
    fn continuations_in_circles_are_corrupt() {
        let area = entry(b"CE", &both(&[1, 0, 28]));
        let read = |_, _, _| Ok(area.clone());
        assert!(matches!(RockRidge::parse(&area, &read), Err(Error::Corrupt { .. })));
        let large = entry(b"CE", &both(&[1, 0, 1 << 30]));
        assert!(matches!(RockRidge::parse(&large, &nothing), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn the_protocol_is_told_by_the_root() {
        let sharing = [b"SP\x07\x01\xbe\xef\x05".to_vec(), entry(b"PX", &both(&[0o040_755, 2, 0, 0]))].concat();
        assert_eq!(find(&sharing, &nothing).unwrap(), Some(Skipped { in_root: 0, elsewhere: 5 }));
        let on_xa = [vec![0; 14], sharing].concat();
        assert_eq!(find(&on_xa, &nothing).unwrap(), Some(Skipped { in_root: 14, elsewhere: 5 }));
        assert_eq!(find(b"SP\x07\x01\xbe\xef\0", &nothing).unwrap(), None, "nothing of Rock Ridge");
        assert_eq!(find(&[], &nothing).unwrap(), None);
    }
}
