//! What a device holds, from its superblock alone: type, label and UUID as blkid prints them.
//!
//! Magic numbers are short and stale ones stay behind, so each probe also checks what its format says must hold.

use crate::bytes::{array, has, le_u16, le_u32};
use crate::error::Result;
use crate::partition::uuid;
use crate::read_at::{ReadAt, read_up_to};

/// What recognised content is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// Files.
    FileSystem,
    /// A member of a volume: LVM, md, a RAID controller's, ZFS, bcache.
    Volume,
    /// Encrypted content.
    Encrypted,
    /// Something else: swap, a journal.
    Other,
}

/// What a superblock shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The type as blkid names it: `ext4`, `xfs`, `LVM2_member`…
    pub kind: &'static str,
    /// What it is for.
    pub usage: Usage,
    /// Volume label.
    pub label: Option<String>,
    /// UUID or serial number, in the form blkid prints.
    pub uuid: Option<String>,
}

impl Probe {
    pub(crate) const fn new(kind: &'static str, usage: Usage) -> Self {
        Self { kind, usage, label: None, uuid: None }
    }

    pub(crate) const fn file_system(kind: &'static str) -> Self {
        Self::new(kind, Usage::FileSystem)
    }

    pub(crate) fn with_uuid(mut self, bytes: Option<[u8; 16]>) -> Self {
        self.uuid = bytes.filter(|bytes| *bytes != [0; 16]).map(uuid);
        self
    }

    pub(crate) fn with_label(mut self, bytes: Option<&[u8]>) -> Self {
        self.label = bytes.and_then(label);
        self
    }
}

/// A label up to its first zero byte, trailing white space cut.
pub(crate) fn label(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next()?;
    let text = String::from_utf8_lossy(text).trim_end().to_owned();
    Some(text).filter(|text| !text.is_empty())
}

/// Probes `device`.
///
/// # Errors
/// Whatever reading the device gives.
pub fn probe(device: &dyn ReadAt) -> Result<Option<Probe>> {
    let head = read_up_to(device, 0, 4096)?;
    Ok(ext(&head))
}

/// ext2, ext3, ext4 and their external journals: superblock at 1024.
fn ext(head: &[u8]) -> Option<Probe> {
    const AT: usize = 1024;
    if le_u16(head, AT + 0x38) != Some(0xef53) {
        return None;
    }
    let compatible = le_u32(head, AT + 0x5c)?;
    let incompatible = le_u32(head, AT + 0x60)?;
    let read_only = le_u32(head, AT + 0x64)?;
    // As libblkid has it: what ext3 does not know makes an ext4; filetype, recover and meta_bg, sparse_super, large_file
    // and btree_dir are ext3's.
    let beyond_ext3 = incompatible & !0x16 != 0 || read_only & !0x7 != 0;
    let kind = match () {
        () if incompatible & 0x8 != 0 => "jbd",
        () if beyond_ext3 => "ext4",
        () if compatible & 0x4 != 0 => "ext3",
        () => "ext2",
    };
    let usage = if kind == "jbd" { Usage::Other } else { Usage::FileSystem };
    let known = Probe::new(kind, usage).with_uuid(array(head, AT + 0x68));
    Some(known.with_label(head.get(AT + 0x78..AT + 0x88)))
}
