//! What format a file's own bytes show, read from its header and, for two formats, its tail.

use super::ova;
use crate::bytes::{be_u32, be_u64, has, le_u32, le_u64, slice};
use crate::error::Result;
use crate::read_at::{ReadAt, read_up_to};

/// Bytes from the start that tell every format apart; the farthest magic is ISO 9660's neighbour, tar's, at 257.
const HEAD_BYTES: usize = 4096;

/// The format of a disk image, as its users name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU copy-on-write, versions 2 and 3.
    Qcow2,
    /// QEMU copy-on-write, version 1.
    Qcow1,
    /// VMware: hosted sparse, COWD, seSparse, or a text descriptor.
    Vmdk,
    /// VirtualBox.
    Vdi,
    /// Microsoft Virtual PC and Hyper-V generation 1.
    Vhd,
    /// Hyper-V.
    Vhdx,
    /// QEMU enhanced disk.
    Qed,
    /// Parallels hard disk.
    Parallels,
    /// Bochs growing, undoable or volatile disk.
    Bochs,
    /// Apple disk image.
    Dmg,
    /// Expert Witness, as EnCase writes it.
    Ewf,
    /// Advanced Forensic Format, version 1 to 3.
    Aff,
    /// A virtual machine in a tar archive: an OVF descriptor, and the disks it names.
    Ova,
    /// Any other tar archive.
    Tar,
    /// Compressed as a whole by gzip, bzip2, xz, zstd or lz4.
    Compressed(&'static str),
}

impl Format {
    /// The formats that [`super::open`] reads.
    pub const READ: [Self; 7] = [Self::Raw, Self::Qcow2, Self::Vmdk, Self::Vdi, Self::Vhd, Self::Vhdx, Self::Ova];

    /// The name users know, as `qemu-img` spells it where it reads the format; VHD is `vhd`, not `vpc`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Qcow1 => "qcow",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Qed => "qed",
            Self::Parallels => "parallels",
            Self::Bochs => "bochs",
            Self::Dmg => "dmg",
            Self::Ewf => "ewf",
            Self::Aff => "aff",
            Self::Ova => "ova",
            Self::Tar => "tar archive",
            Self::Compressed(by) => by,
        }
    }

    /// The format called `name`, as documents and image headers spell it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let known = [
            Self::Raw,
            Self::Qcow2,
            Self::Qcow1,
            Self::Vmdk,
            Self::Vdi,
            Self::Vhd,
            Self::Vhdx,
            Self::Qed,
            Self::Parallels,
            Self::Bochs,
            Self::Dmg,
            Self::Ewf,
            Self::Ova,
        ];
        match name {
            "vpc" => Some(Self::Vhd),
            _ => known.into_iter().find(|format| format.name() == name),
        }
    }

    /// The container format that a file name's extension claims.
    pub(crate) fn from_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "hdd" | "hds" => Some(Self::Parallels),
            "e01" | "ex01" | "s01" => Some(Self::Ewf),
            name => Self::from_name(name).filter(|format| *format != Self::Raw),
        }
    }
}

/// What the bytes of `file` show; [`Format::Raw`] where no header is recognised.
///
/// # Errors
/// Whatever reading the file gives.
pub fn detect(file: &dyn ReadAt) -> Result<Format> {
    let head = read_up_to(file, 0, HEAD_BYTES)?;
    match by_head(&head) {
        Some(Format::Tar) if ova::is_appliance(file)? => return Ok(Format::Ova),
        Some(format) => return Ok(format),
        None => {}
    }
    // A fixed VHD, and a dmg, have nothing but a trailer; a VHD's may be 511 bytes (Virtual PC before 2004).
    let tail = read_up_to(file, file.len().saturating_sub(512), 512)?;
    if is_vhd_footer(&tail) || tail.get(1..).is_some_and(is_vhd_footer) {
        return Ok(Format::Vhd);
    }
    if has(&tail, 0, b"koly") && be_u32(&tail, 8) == Some(512) {
        return Ok(Format::Dmg);
    }
    Ok(Format::Raw)
}

/// Bytes of the disk in an image of a format that is not read, where its header tells: QEMU's `docs/interop` for QED and
/// Parallels, its `block/qcow.c` and `block/bochs.c` for the other two, and for dmg the trailer as libdmg describes it.
///
/// # Errors
/// Whatever reading the file gives.
pub(super) fn virtual_size_of_unread(file: &dyn ReadAt, format: Format) -> Result<Option<u64>> {
    let head = read_up_to(file, 0, 512)?;
    let sectors = |count: u64| count.checked_mul(512);
    Ok(match format {
        Format::Qcow1 => be_u64(&head, 24),
        Format::Qed => le_u64(&head, 48),
        // The older of its two magics counts sectors in 32 bits.
        Format::Parallels if has(&head, 0, b"WithoutFreeSpace") => le_u32(&head, 36).map(u64::from).and_then(sectors),
        Format::Parallels => le_u64(&head, 36).and_then(sectors),
        Format::Bochs => le_u64(&head, if le_u32(&head, 64) == Some(0x1_0000) { 84 } else { 88 }),
        Format::Dmg => be_u64(&read_up_to(file, file.len().saturating_sub(512), 512)?, 492).and_then(sectors),
        _ => None,
    })
}

fn by_head(head: &[u8]) -> Option<Format> {
    let format = match head {
        _ if has(head, 0, b"QFI\xfb") => match be_u32(head, 4) {
            Some(1) => Format::Qcow1,
            _ => Format::Qcow2,
        },
        _ if has(head, 0, b"KDMV") || has(head, 0, b"COWD") || is_se_sparse(head) || is_descriptor(head) => {
            Format::Vmdk
        }
        _ if le_u32(head, 64) == Some(0xbeda_107f) => Format::Vdi,
        _ if has(head, 0, b"vhdxfile") => Format::Vhdx,
        _ if is_vhd_footer(head) => Format::Vhd,
        _ if has(head, 0, b"QED\0") => Format::Qed,
        _ if has(head, 0, b"WithoutFreeSpace") || has(head, 0, b"WithouFreSpacExt") => Format::Parallels,
        _ if has(head, 0, b"Bochs Virtual HD Image\0") => Format::Bochs,
        _ if has(head, 0, b"EVF\x09\x0d\x0a\xff\0") || has(head, 0, b"LVF\x09\x0d\x0a\xff\0") => Format::Ewf,
        _ if has(head, 0, b"EVF2\x0d\x0a\x81\0") || has(head, 0, b"LEF2\x0d\x0a\x81\0") => Format::Ewf,
        _ if has(head, 0, b"AFF10\r\n\0") => Format::Aff,
        _ if has(head, 257, b"ustar") => Format::Tar,
        _ if has(head, 0, &[0x1f, 0x8b, 8]) => Format::Compressed("gzip"),
        _ if has(head, 0, b"BZh") && has(head, 4, &[0x31, 0x41, 0x59, 0x26, 0x53, 0x59]) => Format::Compressed("bzip2"),
        _ if has(head, 0, b"\xfd7zXZ\0") => Format::Compressed("xz"),
        _ if has(head, 0, &[0x28, 0xb5, 0x2f, 0xfd]) => Format::Compressed("zstd"),
        _ if has(head, 0, &[0x04, 0x22, 0x4d, 0x18]) => Format::Compressed("lz4"),
        _ => return None,
    };
    Some(format)
}

/// Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format": cookie, and a version of 1.x.
fn is_vhd_footer(bytes: &[u8]) -> bool {
    has(bytes, 0, b"conectix") && be_u32(bytes, 12).is_some_and(|version| version >> 16 == 1)
}

fn is_se_sparse(head: &[u8]) -> bool {
    le_u64(head, 0) == Some(0xcafe_babe) && be_u64(head, 8).is_some()
}

/// Virtual Disk Format 5.0, "The Descriptor File": text whose first lines are comments, one of them this.
fn is_descriptor(head: &[u8]) -> bool {
    let start = slice(head, 0, head.len().min(512)).unwrap_or_default();
    let mut lines = start.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    lines.next().is_some_and(|line| line.eq_ignore_ascii_case(b"# Disk DescriptorFile"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_recognised() {
        let at = |offset: usize, magic: &[u8]| {
            let mut bytes = vec![0; 4096];
            bytes[offset..offset + magic.len()].copy_from_slice(magic);
            bytes
        };
        for (bytes, expected) in [
            (at(0, b"QFI\xfb\0\0\0\x03"), Format::Qcow2),
            (at(0, b"QFI\xfb\0\0\0\x02"), Format::Qcow2),
            (at(0, b"QFI\xfb\0\0\0\x01"), Format::Qcow1),
            (at(0, b"KDMV\x01\0\0\0"), Format::Vmdk),
            (b"\r\n# Disk DescriptorFile\nversion=1\n".to_vec(), Format::Vmdk),
            (at(0, &[0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0, 1]), Format::Vmdk),
            (at(64, &[0x7f, 0x10, 0xda, 0xbe]), Format::Vdi),
            (at(0, b"vhdxfile"), Format::Vhdx),
            (at(4096 - 512, b"conectix\0\0\0\x02\0\x01\0\0"), Format::Vhd),
            (at(4096 - 511, b"conectix\0\0\0\x02\0\x01\0\0"), Format::Vhd),
            (at(4096 - 512, b"koly\0\0\0\x04\0\0\x02\0"), Format::Dmg),
            (at(257, b"ustar\0"), Format::Tar),
            (at(0, &[0x1f, 0x8b, 8]), Format::Compressed("gzip")),
            (b"just text\n".to_vec(), Format::Raw),
            (Vec::new(), Format::Raw),
        ] {
            assert_eq!(detect(&bytes).unwrap(), expected);
        }
    }
}
