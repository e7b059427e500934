//! Directories (Linux, Documentation/filesystems/ext4: "Directory Entries").
//!
//! A directory is read from its first block to its last. Where it has a tree of hashes, the tree's nodes look like unused
//! entries, so nothing of it is needed, and nothing of it can lead astray.

use std::collections::HashMap;
use std::sync::Arc;

use super::superblock::crc32c;
use crate::bytes::{array, le_u16, le_u32, slice, sum_holds};
use crate::error::{Error, Limit, Result};
use crate::filesystem::{DirEntry, FileType, NodeId};

/// Names of one directory: `dir_nlink` file systems hold more only where mail or caches went astray.
const ENTRIES_MAX: usize = 2_000_000;
/// Memory of one listing, about what so many names of an ordinary length take.
const LISTING_BYTES_MAX: usize = 160 << 20;
/// Memory an entry takes besides its name.
const ENTRY_COST: usize = 64;
/// Memory of names held for lookups in all; one directory is held whatever it takes.
const NAMES_BYTES_HELD: usize = 16 << 20;
const HEADER_BYTES: usize = 8;
const TAIL_BYTES: usize = 12;

/// A directory being listed.
#[derive(Debug)]
pub(super) struct Listing {
    /// Whether entries tell the type of their file (`filetype`).
    pub(super) has_types: bool,
    /// Number of inodes there are.
    pub(super) inodes: u32,
    /// The seed of the blocks' checksums, where they have some.
    pub(super) checksum_seed: Option<u32>,
    /// Whether some blocks are nodes of a tree of hashes.
    pub(super) is_indexed: bool,
    pub(super) entries: Vec<DirEntry>,
    cost: usize,
}

impl Listing {
    pub(super) const fn new(has_types: bool, inodes: u32, checksum_seed: Option<u32>, is_indexed: bool) -> Self {
        Self { has_types, inodes, checksum_seed, is_indexed, entries: Vec::new(), cost: 0 }
    }

    /// Adds the entries of the block that lies at `at` of the device and is the `number`th of the directory.
    ///
    /// The kernel lists the rest of a directory past a block that is broken, and says so in its log; here the whole listing
    /// fails, because a shortened one looks like a whole one.
    ///
    /// # Errors
    /// [`Error::Corrupt`], also for a wrong checksum; limits.
    pub(super) fn add_block(&mut self, block: &[u8], at: u64, number: u64) -> Result<()> {
        let is_node = self.is_indexed && (number == 0 || record_bytes(block, 0) == Some(block.len()));
        if let Some(seed) = self.checksum_seed.filter(|_| !is_node)
            && !checksum_holds(block, seed)
        {
            return Err(Error::corrupt("ext directory block", at, "its checksum is wrong"));
        }
        self.add_entries(block, at)
    }

    /// Adds the entries that fill `region`, a block or a part of an inode.
    ///
    /// # Errors
    /// [`Error::Corrupt`] by the kernel's rules (`__ext4_check_dir_entry`); limits.
    pub(super) fn add_entries(&mut self, region: &[u8], at: u64) -> Result<()> {
        let mut within = 0_usize;
        while within < region.len() {
            let corrupt =
                |reason: String| Error::corrupt("ext directory entry", at.saturating_add(within as u64), reason);
            let length = record_bytes(region, within).ok_or_else(|| corrupt("it is cut short".into()))?;
            let entry = slice(region, within, length).filter(|_| length >= 12 && length % 4 == 0);
            let entry = entry.ok_or_else(|| corrupt(format!("it is said to have {length} bytes")))?;
            let inode = le_u32(entry, 0).unwrap_or(0);
            let [name_bytes, kind] = array(entry, 6).unwrap_or_default();
            if inode != 0 {
                let name = slice(entry, HEADER_BYTES, usize::from(name_bytes))
                    .ok_or_else(|| corrupt(format!("its name of {name_bytes} bytes leaves it")))?;
                if name.is_empty() || name.contains(&b'/') {
                    return Err(corrupt("its name is none".into()));
                }
                if inode > self.inodes {
                    return Err(corrupt(format!("it names inode {inode} of {}", self.inodes)));
                }
                if !matches!(name, b"." | b"..") {
                    self.add(name, inode, kind)?;
                }
            }
            within = within.saturating_add(length);
        }
        Ok(())
    }

    fn add(&mut self, name: &[u8], inode: u32, kind: u8) -> Result<()> {
        self.cost = self.cost.saturating_add(ENTRY_COST).saturating_add(name.len());
        if self.entries.len() >= ENTRIES_MAX || self.cost > LISTING_BYTES_MAX {
            return Err(Error::LimitReached { which: Limit::Entries, value: ENTRIES_MAX as u64 });
        }
        let file_type = match kind {
            _ if !self.has_types => None,
            1 => Some(FileType::Regular),
            2 => Some(FileType::Directory),
            3 => Some(FileType::CharacterDevice),
            4 => Some(FileType::BlockDevice),
            5 => Some(FileType::Fifo),
            6 => Some(FileType::Socket),
            7 => Some(FileType::Symlink),
            _ => None,
        };
        self.entries.push(DirEntry { name: name.to_vec(), node: NodeId(u64::from(inode)), file_type });
        Ok(())
    }
}

/// `rec_len`; with blocks of 64 KiB, whose length does not fit, its lower two bits are the upper ones.
fn record_bytes(region: &[u8], at: usize) -> Option<usize> {
    let stored = usize::from(le_u16(region, at.checked_add(4)?)?);
    Some(match stored {
        0 | 0xffff if region.len() >= 1 << 16 => region.len(),
        stored if region.len() >= 1 << 16 => (stored & 0xfffc) | (stored & 3) << 16,
        stored => stored,
    })
}

/// The last twelve bytes look like an unused entry and hold the checksum of what precedes them.
fn checksum_holds(block: &[u8], seed: u32) -> bool {
    let Some((covered, tail)) = block.len().checked_sub(TAIL_BYTES).and_then(|end| block.split_at_checked(end)) else {
        return false;
    };
    tail.starts_with(&[0, 0, 0, 0, 12, 0, 0, 0xde]) && sum_holds(le_u32(tail, 8) == Some(crc32c(seed, covered)))
}

/// The names of one directory, packed and sorted.
#[derive(Debug)]
pub(super) struct Names {
    bytes: Vec<u8>,
    /// Where a name begins, how long it is, and its inode.
    entries: Vec<(u32, u8, u32)>,
}

impl Names {
    pub(super) fn new(entries: &[DirEntry]) -> Self {
        let mut names = Self { bytes: Vec::new(), entries: Vec::with_capacity(entries.len()) };
        for entry in entries {
            let inode = u32::try_from(entry.node.0).unwrap_or(0);
            let start = u32::try_from(names.bytes.len()).unwrap_or(u32::MAX);
            names.entries.push((start, u8::try_from(entry.name.len()).unwrap_or(u8::MAX), inode));
            names.bytes.extend_from_slice(&entry.name);
        }
        let Self { bytes, entries } = &mut names;
        // Stable, so that the first of several equal names is the one that is found, as by reading on.
        entries.sort_by(|one, other| name_of(bytes, one).cmp(name_of(bytes, other)));
        names
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<u32> {
        let at = self.entries.partition_point(|entry| name_of(&self.bytes, entry) < name);
        self.entries.get(at).filter(|entry| name_of(&self.bytes, entry) == name).map(|(_, _, inode)| *inode)
    }

    fn cost(&self) -> usize {
        self.bytes.len().saturating_add(self.entries.len().saturating_mul(size_of::<(u32, u8, u32)>()))
    }
}

fn name_of<'a>(bytes: &'a [u8], (start, length, _): &(u32, u8, u32)) -> &'a [u8] {
    usize::try_from(*start).ok().and_then(|start| slice(bytes, start, usize::from(*length))).unwrap_or_default()
}

/// Names of the directories that lookups went through lately, so that one path after another reads each once.
#[derive(Debug, Default)]
pub(super) struct HeldNames {
    directories: HashMap<u32, (Arc<Names>, u64)>,
    cost: usize,
    clock: u64,
}

impl HeldNames {
    pub(super) fn get(&mut self, directory: u32) -> Option<Arc<Names>> {
        self.clock = self.clock.wrapping_add(1);
        let (names, used) = self.directories.get_mut(&directory)?;
        *used = self.clock;
        Some(Arc::clone(names))
    }

    pub(super) fn insert(&mut self, directory: u32, names: Arc<Names>) {
        self.cost = self.cost.saturating_add(names.cost());
        self.clock = self.clock.wrapping_add(1);
        if let Some((before, _)) = self.directories.insert(directory, (names, self.clock)) {
            self.cost = self.cost.saturating_sub(before.cost());
        }
        while self.cost > NAMES_BYTES_HELD && self.directories.len() > 1 {
            let oldest = self.directories.iter().min_by_key(|(_, (_, used))| *used).map(|(directory, _)| *directory);
            if let Some((names, _)) = oldest.and_then(|oldest| self.directories.remove(&oldest)) {
                self.cost = self.cost.saturating_sub(names.cost());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(inode: u32, length: u16, name: &[u8], kind: u8) -> Vec<u8> {
        let mut bytes = inode.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend([u8::try_from(name.len()).unwrap(), kind]);
        bytes.extend(name);
        bytes.resize(usize::from(length), 0);
        bytes
    }

    fn listed(region: &[u8]) -> Result<Vec<DirEntry>> {
        let mut listing = Listing::new(true, 100, None, false);
        listing.add_block(region, 0, 0).map(|()| listing.entries)
    }

    #[test]
    fn unused_entries_and_the_directory_itself_are_not_listed() {
        let block = [
            record(2, 12, b".", 2),
            record(2, 12, b"..", 2),
            record(0, 16, b"gone", 1),
            record(12, 24, &[0xff, b'a'], 7),
        ]
        .concat();
        let entries = listed(&block).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].name.as_slice(), entries[0].node), (&[0xff, b'a'][..], NodeId(12)));
        assert_eq!(entries[0].file_type, Some(FileType::Symlink));
    }

    #[test]
    fn entries_that_contradict_the_format_are_refused() {
        for block in [
            record(12, 8, b"", 1),
            record(12, 14, b"a", 1),
            record(12, 12, b"", 1),
            record(12, 12, b"a/b", 1),
            record(101, 12, b"a", 1),
            [record(12, 12, b"a", 1), vec![0; 12]].concat(),
            [record(12, 12, b"a", 1), vec![0; 3]].concat(),
        ] {
            assert!(matches!(listed(&block), Err(Error::Corrupt { .. })), "{block:?}");
        }
    }

    #[test]
    fn the_longest_record_fills_a_block_of_64_kib() {
        let mut block = vec![0; 1 << 16];
        block[4..6].copy_from_slice(&0xffff_u16.to_le_bytes());
        assert!(listed(&block).unwrap().is_empty());
    }

    #[test]
    fn names_are_found_and_the_memory_of_held_ones_is_bounded() {
        let entry = |number: u32| DirEntry {
            name: format!("name-{number}").into_bytes(),
            node: NodeId(u64::from(number)),
            file_type: None,
        };
        let entries: Vec<DirEntry> = (1..60_000).rev().map(entry).collect();
        let names = Arc::new(Names::new(&entries));
        assert!(entries.iter().all(|entry| names.find(&entry.name) == u32::try_from(entry.node.0).ok()));
        assert_eq!(names.find(b"name-"), None);
        let mut held = HeldNames::default();
        for directory in 0..100 {
            held.insert(directory, Arc::clone(&names));
            assert!(held.get(directory).is_some() && held.cost <= NAMES_BYTES_HELD);
        }
        assert!(held.get(0).is_none());
    }
}
