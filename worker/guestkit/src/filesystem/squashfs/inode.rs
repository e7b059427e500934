//! Inodes of squashfs 4.0 (the kernel's `squashfs_fs.h`): fourteen kinds, of which seven are short forms.

use super::super::FileType;
use super::metadata::Reader;
use crate::bytes::{le_u16, le_u32, le_u64};
use crate::error::{Error, Result};

/// No tail of the file lies in a fragment; no attributes.
const NONE: u32 = u32::MAX;
/// The longest target of a symbolic link that Linux writes is one page long.
const TARGET_BYTES_MAX: u32 = 65536;

/// A file, by its inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) file_type: FileType,
    pub(super) mode: u16,
    /// Indices into the table of owners.
    pub(super) uid: u16,
    pub(super) gid: u16,
    pub(super) modified: u32,
    pub(super) links: u32,
    pub(super) size: u64,
    /// Index into the table of attributes.
    pub(super) attributes: Option<u32>,
    pub(super) content: Content,
}

/// What an inode tells beyond `stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Directory {
        /// The listing's block in the directory table, and the byte in it.
        block: u32,
        offset: u16,
        /// Where the index lies, and how many entries it has.
        index: ((u64, usize), u16),
    },
    File {
        /// Byte of the first data block.
        start: u64,
        /// Number of the fragment that holds the tail, and the byte in it.
        fragment: Option<(u32, u32)>,
        /// Where the lengths of the data blocks lie.
        lengths: (u64, usize),
    },
    Symlink(Vec<u8>),
    Device {
        major: u32,
        minor: u32,
    },
    Nothing,
}

impl Inode {
    /// The inode that `reader` stands at, on a file system with blocks of `block_bytes`. `at` names it in errors.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a kind that there is not, or a link's target that is too long.
    pub(super) fn read(reader: &mut Reader<'_>, at: u64) -> Result<Self> {
        let head = reader.array::<16>()?;
        let half = |at: usize| le_u16(&head, at).unwrap_or(0);
        let kind = half(0);
        // The long forms count on from the short ones.
        let (file_type, is_long) = match kind {
            1 | 8 => (FileType::Directory, kind == 8),
            2 | 9 => (FileType::Regular, kind == 9),
            3 | 10 => (FileType::Symlink, kind == 10),
            4 | 11 => (FileType::BlockDevice, kind == 11),
            5 | 12 => (FileType::CharacterDevice, kind == 12),
            6 | 13 => (FileType::Fifo, kind == 13),
            7 | 14 => (FileType::Socket, kind == 14),
            _ => return Err(Error::corrupt("squashfs inode", at, format!("its kind is {kind}"))),
        };
        let mut inode = Self {
            file_type,
            mode: half(2) & 0o7777,
            uid: half(4),
            gid: half(6),
            modified: le_u32(&head, 8).unwrap_or(0),
            links: 1,
            size: 0,
            attributes: None,
            content: Content::Nothing,
        };
        match (file_type, is_long) {
            (FileType::Directory, false) => inode.read_directory(reader)?,
            (FileType::Directory, true) => inode.read_long_directory(reader)?,
            (FileType::Regular, false) => inode.read_file(reader)?,
            (FileType::Regular, true) => inode.read_long_file(reader)?,
            (FileType::Symlink, _) => inode.read_symlink(reader, is_long, at)?,
            (FileType::BlockDevice | FileType::CharacterDevice, _) => inode.read_device(reader, is_long)?,
            (FileType::Fifo | FileType::Socket, _) => {
                inode.links = word(reader)?;
                inode.read_attributes(reader, is_long)?;
            }
        }
        Ok(inode)
    }

    fn read_directory(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let fields = reader.array::<16>()?;
        self.links = le_u32(&fields, 4).unwrap_or(0);
        self.size = le_u16(&fields, 8).map_or(0, u64::from);
        let (block, offset) = (le_u32(&fields, 0).unwrap_or(0), le_u16(&fields, 10).unwrap_or(0));
        self.content = Content::Directory { block, offset, index: (reader.position(), 0) };
        Ok(())
    }

    fn read_long_directory(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let fields = reader.array::<24>()?;
        self.links = le_u32(&fields, 0).unwrap_or(0);
        self.size = le_u32(&fields, 4).map_or(0, u64::from);
        self.attributes = le_u32(&fields, 20).filter(|index| *index != NONE);
        let (block, offset) = (le_u32(&fields, 8).unwrap_or(0), le_u16(&fields, 18).unwrap_or(0));
        let count = le_u16(&fields, 16).unwrap_or(0);
        self.content = Content::Directory { block, offset, index: (reader.position(), count) };
        Ok(())
    }

    fn read_file(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let fields = reader.array::<16>()?;
        self.size = le_u32(&fields, 12).map_or(0, u64::from);
        let start = le_u32(&fields, 0).map_or(0, u64::from);
        self.content = Content::File { start, fragment: fragment(&fields, 4), lengths: reader.position() };
        Ok(())
    }

    fn read_long_file(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let fields = reader.array::<40>()?;
        self.size = le_u64(&fields, 8).unwrap_or(0);
        self.links = le_u32(&fields, 24).unwrap_or(0);
        self.attributes = le_u32(&fields, 36).filter(|index| *index != NONE);
        let start = le_u64(&fields, 0).unwrap_or(0);
        self.content = Content::File { start, fragment: fragment(&fields, 28), lengths: reader.position() };
        Ok(())
    }

    fn read_symlink(&mut self, reader: &mut Reader<'_>, is_long: bool, at: u64) -> Result<()> {
        self.links = word(reader)?;
        let length = word(reader)?;
        if length > TARGET_BYTES_MAX {
            return Err(Error::corrupt("squashfs inode", at, format!("a link's target has {length} bytes")));
        }
        self.size = u64::from(length);
        self.content = Content::Symlink(reader.bytes(u64::from(length))?);
        self.read_attributes(reader, is_long)
    }

    /// Numbers of devices are packed as Linux packs them (`new_encode_dev`).
    fn read_device(&mut self, reader: &mut Reader<'_>, is_long: bool) -> Result<()> {
        self.links = word(reader)?;
        let device = word(reader)?;
        self.content =
            Content::Device { major: (device >> 8) & 0xfff, minor: (device & 0xff) | ((device >> 12) & 0xf_ff00) };
        self.read_attributes(reader, is_long)
    }

    fn read_attributes(&mut self, reader: &mut Reader<'_>, is_long: bool) -> Result<()> {
        if is_long {
            self.attributes = Some(word(reader)?).filter(|index| *index != NONE);
        }
        Ok(())
    }
}

fn word(reader: &mut Reader<'_>) -> Result<u32> {
    reader.array().map(u32::from_le_bytes)
}

fn fragment(fields: &[u8], at: usize) -> Option<(u32, u32)> {
    let number = le_u32(fields, at).filter(|number| *number != NONE)?;
    Some((number, le_u32(fields, at + 4)?))
}
