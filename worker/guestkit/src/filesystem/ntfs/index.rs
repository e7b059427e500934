//! Directories: B+ trees of names, sorted by their capitals (`$I30`).

use std::cmp::Ordering;
use std::sync::Arc;

use super::attribute::{Reference, fix_up};
use super::names::{self, UpCase};
use crate::bytes::{le_u16, le_u32, le_u64, slice};
use crate::error::{Error, Result};

/// The name of a directory's index.
pub(super) const NAME: &str = "$I30";
/// Names that exist for DOS only, beside a long one.
const DOS: u8 = 2;
/// File attributes, as the copies in an index and `$STANDARD_INFORMATION` have them.
pub(super) const READ_ONLY: u32 = 0x1;
pub(super) const HIDDEN: u32 = 0x2;
pub(super) const SYSTEM: u32 = 0x4;
const REPARSE_POINT: u32 = 0x400;
const DIRECTORY: u32 = 0x1000_0000;
/// Blocks that one search reads: the depth of the tree, and those between names that differ in case only.
const BLOCKS_MAX: u32 = 100;

/// `$INDEX_ROOT`: the upper end of the tree, and how large the blocks of the rest are.
#[derive(Debug)]
pub(super) struct Root<'a> {
    pub(super) block_bytes: u64,
    entries: Entries<'a>,
}

/// The entries of one node of the tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entries<'a> {
    rest: &'a [u8],
    at: u64,
    ended: bool,
}

/// One entry: a name, or the end of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    reference: Reference,
    /// The copy of the file's `$FILE_NAME`; `None` at the end of a node.
    name: Option<FileName<'a>>,
    /// The block whose names come before this one.
    below: Option<u64>,
}

/// A `$FILE_NAME`, in an index or a record.
#[derive(Debug, Clone, Copy)]
struct FileName<'a> {
    attributes: u32,
    namespace: u8,
    name: &'a [u8],
}

impl<'a> FileName<'a> {
    fn parse(value: &'a [u8]) -> Option<Self> {
        let length = usize::from(*value.get(64)?);
        let name = slice(value, 66, 2 * length)?;
        Some(Self { attributes: le_u32(value, 56)?, namespace: *value.get(65)?, name })
    }

    /// Whether it is a name of its own, not the short form of another.
    const fn is_visible(self) -> bool {
        self.namespace != DOS
    }

    fn units(self) -> impl Iterator<Item = u16> {
        self.name.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit))
    }
}

/// A name as a directory lists it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: Vec<u8>,
    pub(super) reference: Reference,
    /// Whether it is a directory; `None` where only the file itself tells what it is.
    pub(super) is_directory: Option<bool>,
}

impl<'a> Root<'a> {
    /// Parses the value of an `$INDEX_ROOT`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for what is no index of names.
    pub(super) fn parse(value: &'a [u8], at: u64) -> Result<Self> {
        let corrupt = |reason: &str| Error::corrupt("NTFS index root", at, reason);
        // Names (`$FILE_NAME`), collated as names.
        if (le_u32(value, 0), le_u32(value, 4)) != (Some(0x30), Some(1)) {
            return Err(corrupt("it is not a directory's"));
        }
        let block_bytes = le_u32(value, 8).map(u64::from);
        let block_bytes = block_bytes.filter(|bytes| bytes.is_power_of_two() && (512..=65536).contains(bytes));
        let block_bytes = block_bytes.ok_or_else(|| corrupt("its blocks have no sound size"))?;
        let entries = Entries::parse(value.get(16..).unwrap_or_default(), at)?;
        Ok(Self { block_bytes, entries })
    }

    pub(super) const fn entries(&self) -> Entries<'a> {
        self.entries
    }
}

/// Checks a block of an `$INDEX_ALLOCATION` that should be the one at `vcn`, and takes its update sequence back.
///
/// # Errors
/// [`Error::Corrupt`].
pub(super) fn check_block(block: &mut [u8], vcn: u64, at: u64) -> Result<()> {
    fix_up(block, *b"INDX", "NTFS index block", at)?;
    match le_u64(block, 16) {
        Some(found) if found == vcn => Ok(()),
        found => {
            let reason = format!("it is the block {}, where {vcn} should be", found.unwrap_or(0));
            Err(Error::corrupt("NTFS index block", at, reason))
        }
    }
}

/// The entries of a block that [`check_block`] has checked.
///
/// # Errors
/// [`Error::Corrupt`].
pub(super) fn block_entries(block: &[u8], at: u64) -> Result<Entries<'_>> {
    Entries::parse(block.get(24..).unwrap_or_default(), at)
}

impl<'a> Entries<'a> {
    /// Parses an index header and what follows it.
    fn parse(header: &'a [u8], at: u64) -> Result<Self> {
        let bound = |at| le_u32(header, at).and_then(|bound| usize::try_from(bound).ok());
        let entries = bound(0).zip(bound(4)).and_then(|(from, to)| header.get(from..to));
        let rest = entries.ok_or_else(|| Error::corrupt("NTFS index", at, "its entries lie outside of it"))?;
        Ok(Self { rest, at, ended: false })
    }

    /// Appends what a directory lists of this node. The volume's own files, whose records come before
    /// [`FIRST_USER_RECORD`], and names for DOS are left out.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for an entry that leaves its node.
    pub(super) fn list(self, listed: &mut Vec<Listed>) -> Result<()> {
        for entry in self {
            let entry = entry?;
            let Some(name) = entry.name.filter(|name| name.is_visible()) else { continue };
            if entry.reference.record < FIRST_USER_RECORD {
                continue;
            }
            // The copies of other attributes can be old, and the rest says the file itself.
            let is_known = name.attributes & (REPARSE_POINT | SYSTEM) == 0;
            let is_directory = name.attributes & DIRECTORY != 0;
            let is_directory =
                (is_known || is_directory && name.attributes & REPARSE_POINT == 0).then_some(is_directory);
            let name = visible(name);
            if !matches!(name.as_slice(), b"." | b"..") {
                listed.push(Listed { name, reference: entry.reference, is_directory });
            }
        }
        Ok(())
    }
}

/// Records before this one belong to the volume's own files (`FILE_first_user`).
pub(super) const FIRST_USER_RECORD: u64 = 24;

/// A name as bytes; the two that no path can carry in a name become replacement characters.
fn visible(name: FileName<'_>) -> Vec<u8> {
    let replaced = name.units().map(|unit| if unit == u16::from(b'/') || unit == 0 { 0xfffd } else { unit });
    names::to_bytes(replaced)
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let parsed = self.parse_entry();
        if parsed.is_none() {
            self.ended = true;
        }
        Some(parsed.ok_or_else(|| Error::corrupt("NTFS index", self.at, "an entry leaves its node")))
    }
}

impl<'a> Entries<'a> {
    fn parse_entry(&mut self) -> Option<Entry<'a>> {
        let length = usize::from(le_u16(self.rest, 8)?);
        let (key_length, flags) = (usize::from(le_u16(self.rest, 10)?), le_u16(self.rest, 12)?);
        let (entry, rest) = self.rest.split_at_checked(length).filter(|_| length >= 16)?;
        let has_below = flags & 1 != 0;
        let below = if has_below { Some(le_u64(entry, length.checked_sub(8)?)?) } else { None };
        self.ended = flags & 2 != 0;
        let name = if self.ended { None } else { Some(FileName::parse(slice(entry, 16, key_length)?)?) };
        self.rest = rest;
        Some(Entry { reference: Reference::new(le_u64(entry, 0)?), name, below })
    }
}

/// A search for one name in a tree whose blocks are read by `read`.
pub(super) struct Search<'s, R> {
    name: &'s [u16],
    upcase: &'s UpCase,
    read: R,
    blocks_read: u32,
    /// The first name that differs in nothing but case.
    alike: Option<Reference>,
}

impl<'s, R: FnMut(u64) -> Result<Arc<[u8]>>> Search<'s, R> {
    pub(super) const fn new(name: &'s [u16], upcase: &'s UpCase, read: R) -> Self {
        Self { name, upcase, read, blocks_read: 0, alike: None }
    }

    /// The file of this very name, else of one that differs in case only. Names alike lie side by side, so that only the
    /// blocks between them are read.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a tree that is none; whatever reading a block gives.
    pub(super) fn find(mut self, root: Entries<'_>) -> Result<Option<Reference>> {
        let exact = self.descend(root)?;
        Ok(match exact {
            Descent::Found(reference) => Some(reference),
            Descent::GoOn | Descent::Passed => self.alike,
        })
    }

    fn descend(&mut self, entries: Entries<'_>) -> Result<Descent> {
        for entry in entries {
            let entry = entry?;
            let order = match entry.name {
                Some(name) => self.upcase.compare(self.name, name.units()),
                None => Ordering::Less,
            };
            if order == Ordering::Greater {
                continue;
            }
            if let Some(block) = entry.below {
                self.blocks_read += 1;
                if self.blocks_read > BLOCKS_MAX {
                    return Err(Error::corrupt("NTFS index", entries.at, "its tree leads back into itself"));
                }
                let bytes = (self.read)(block)?;
                match self.descend(block_entries(&bytes, block)?)? {
                    Descent::GoOn => {}
                    done => return Ok(done),
                }
            }
            match entry.name {
                Some(name) if order == Ordering::Equal => {
                    if name.units().eq(self.name.iter().copied()) {
                        return Ok(Descent::Found(entry.reference));
                    }
                    self.alike.get_or_insert(entry.reference);
                }
                Some(_) => return Ok(Descent::Passed),
                None => {}
            }
        }
        Ok(Descent::GoOn)
    }
}

/// How a search through one node ended.
enum Descent {
    /// With the very name.
    Found(Reference),
    /// Names alike can follow the node.
    GoOn,
    /// A later name was met.
    Passed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(record: u8, name: &str, namespace: u8, flags: u16, below: Option<u64>) -> Vec<u8> {
        let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut key = vec![0; 66];
        if flags & 2 == 0 {
            key[64] = (units.len() / 2) as u8;
            key[65] = namespace;
            key.extend(&units);
        } else {
            key.clear();
        }
        let key_length = key.len() as u16;
        key.resize(key.len().next_multiple_of(8), 0);
        let length = 16 + key.len() + if below.is_some() { 8 } else { 0 };
        let mut bytes = vec![record, 0, 0, 0, 0, 0, 1, 0];
        bytes.extend((length as u16).to_le_bytes());
        bytes.extend(key_length.to_le_bytes());
        bytes.extend((flags | u16::from(below.is_some())).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(key);
        bytes.extend(below.into_iter().flat_map(u64::to_le_bytes));
        bytes
    }

    fn node(entries: &[Vec<u8>]) -> Vec<u8> {
        let entries = entries.concat();
        let mut bytes = 16_u32.to_le_bytes().to_vec();
        bytes.extend((16 + entries.len() as u32).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(entries);
        bytes
    }

    #[test]
    fn a_name_is_found_wherever_its_likes_lie() {
        // The root holds "Beta"; below it lie "alpha" and "BETA", and after it "beta" and "gamma".
        let root = node(&[entry(30, "Beta", 0, 0, Some(1)), entry(0, "", 0, 2, Some(2))]);
        let block = |entries: &[Vec<u8>]| [vec![0; 24], node(entries)].concat();
        let first = block(&[entry(31, "alpha", 0, 0, None), entry(32, "BETA", 0, 0, None), entry(0, "", 0, 2, None)]);
        let second = block(&[entry(33, "beta", 0, 0, None), entry(34, "gamma", 0, 0, None), entry(0, "", 0, 2, None)]);
        let upcase = UpCase::substitute();
        let find = |name: &str| {
            let name: Vec<u16> = name.encode_utf16().collect();
            let mut read = Vec::new();
            let search = Search::new(&name, &upcase, |block| {
                read.push(block);
                Ok(if block == 1 { first.clone() } else { second.clone() }.into())
            });
            let found = search.find(Entries::parse(&root, 0).unwrap()).unwrap();
            (found.map(|reference| reference.record), read)
        };
        assert_eq!(find("beta"), (Some(33), vec![1, 2]));
        assert_eq!(find("BETA"), (Some(32), vec![1]));
        assert_eq!(find("Beta"), (Some(30), vec![1]));
        assert_eq!(find("bETA"), (Some(32), vec![1, 2]));
        assert_eq!(find("GAMMA"), (Some(34), vec![2]));
        assert_eq!(find("aa"), (None, vec![1]));
        assert_eq!(find("zeta"), (None, vec![2]));
    }

    #[test]
    fn a_tree_that_leads_back_into_itself_ends() {
        let root = node(&[entry(0, "", 0, 2, Some(0))]);
        let block = [vec![0; 24], root.clone()].concat();
        let upcase = UpCase::substitute();
        let search = Search::new(&[], &upcase, |_| Ok(block.clone().into()));
        assert!(matches!(search.find(Entries::parse(&root, 0).unwrap()), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn listings_leave_out_dos_names_and_the_volumes_own_files() {
        let bytes = node(&[
            entry(5, ".", 3, 0, None),
            entry(40, "LONGNA~1.TXT", 2, 0, None),
            entry(40, "long name.txt", 1, 0, None),
            entry(41, "a/b", 0, 0, None),
            entry(0, "", 0, 2, None),
            entry(42, "behind the end", 0, 0, None),
        ]);
        let mut listed = Vec::new();
        Entries::parse(&bytes, 0).unwrap().list(&mut listed).unwrap();
        let names: Vec<_> = listed.iter().map(|one| String::from_utf8_lossy(&one.name)).collect();
        assert_eq!(names, ["long name.txt", "a\u{fffd}b"]);
        for length in 0..bytes.len() {
            let short = bytes.get(..length).unwrap();
            assert!(Entries::parse(short, 0).is_err(), "the header says more than there is");
        }
        let mut endless = bytes.clone();
        endless[24] = 0;
        assert!(Entries::parse(&endless, 0).unwrap().list(&mut Vec::new()).is_err());
    }
}
