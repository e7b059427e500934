//! The superblock of squashfs 4.0 (the kernel's `Documentation/filesystems/squashfs.rst` and `squashfs_fs.h`).

use super::codec::Codec;
use crate::bytes::{has, le_u16, le_u32, le_u64};
use crate::error::{Error, Result};

/// Bytes of the superblock.
pub(super) const SUPERBLOCK_BYTES: usize = 96;

/// What the superblock tells; positions are bytes from the start of the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) inodes: u32,
    pub(super) block_bytes: usize,
    pub(super) fragments: u32,
    pub(super) codec: Codec,
    pub(super) ids: u16,
    pub(super) root: u64,
    pub(super) bytes_used: u64,
    pub(super) id_table: u64,
    /// `None` where no file has attributes.
    pub(super) attribute_table: Option<u64>,
    pub(super) inode_table: u64,
    pub(super) directory_table: u64,
    pub(super) fragment_table: u64,
}

impl Superblock {
    /// The superblock in `bytes`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for fields that contradict one another; [`Error::Unsupported`] for another version or compression.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |reason: String| Error::corrupt("squashfs superblock", 0, reason);
        let read = || {
            let number = le_u16(bytes, 20)?;
            Some((
                number,
                Self {
                    inodes: le_u32(bytes, 4)?,
                    block_bytes: usize::try_from(le_u32(bytes, 12)?).ok()?,
                    fragments: le_u32(bytes, 16)?,
                    codec: Codec::of_number(number).unwrap_or(Codec::Gzip),
                    ids: le_u16(bytes, 26)?,
                    root: le_u64(bytes, 32)?,
                    bytes_used: le_u64(bytes, 40)?,
                    id_table: le_u64(bytes, 48)?,
                    attribute_table: Some(le_u64(bytes, 56)?).filter(|at| *at != u64::MAX),
                    inode_table: le_u64(bytes, 64)?,
                    directory_table: le_u64(bytes, 72)?,
                    fragment_table: le_u64(bytes, 80)?,
                },
            ))
        };
        let whole = bytes.len() >= SUPERBLOCK_BYTES && has(bytes, 0, b"hsqs");
        let Some((number, superblock)) = read().filter(|_| whole) else {
            return Err(wrong("it is cut off, or its magic is missing".into()));
        };
        let (major, minor) = (le_u16(bytes, 28).unwrap_or(0), le_u16(bytes, 30).unwrap_or(0));
        if (major, minor) != (4, 0) {
            return Err(Error::unsupported(format!("squashfs version {major}.{minor}")));
        }
        if Codec::of_number(number).is_none() {
            return Err(Error::unsupported(format!("squashfs compression {number}")));
        }
        let block_bytes = superblock.block_bytes;
        let is_log = le_u16(bytes, 22).and_then(|log| 1_usize.checked_shl(u32::from(log))) == Some(block_bytes);
        if !is_log || !(4096..=1 << 20).contains(&block_bytes) {
            return Err(wrong(format!("a block has {block_bytes} bytes")));
        }
        let in_order = superblock.inode_table < superblock.directory_table
            && superblock.directory_table < superblock.bytes_used
            && superblock.id_table < superblock.bytes_used;
        if !in_order || superblock.ids == 0 {
            return Err(wrong("its tables are not in order, or nobody owns a file".into()));
        }
        Ok(superblock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Vec<u8> {
        let mut bytes = b"hsqs".to_vec();
        bytes.resize(96, 0);
        for (at, value) in [(14, 2), (20, 1), (22, 17), (26, 1), (28, 4), (41, 1), (48, 90), (64, 10), (72, 20)] {
            bytes[at] = value;
        }
        bytes[56..64].fill(0xff);
        bytes
    }

    #[test]
    fn a_superblock_holds_what_its_fields_say_or_is_refused() {
        let superblock = Superblock::parse(&bytes()).unwrap();
        assert_eq!((superblock.block_bytes, superblock.codec, superblock.ids), (131_072, Codec::Gzip, 1));
        assert_eq!((superblock.bytes_used, superblock.attribute_table), (256, None));
        for length in 0..96 {
            assert!(Superblock::parse(&bytes()[..length]).is_err(), "{length}");
        }
        for (at, value) in [(0, 0), (22, 16), (26, 0), (72, 9), (41, 0)] {
            let mut bad = bytes();
            bad[at] = value;
            assert!(matches!(Superblock::parse(&bad), Err(Error::Corrupt { .. })), "{at}");
        }
        for (at, value) in [(28, 3), (20, 9)] {
            let mut other = bytes();
            other[at] = value;
            assert!(matches!(Superblock::parse(&other), Err(Error::Unsupported { .. })), "{at}");
        }
    }
}
