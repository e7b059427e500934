//! Members of volumes and encrypted containers, recognised by their own signatures and named as blkid names them.

pub(crate) use super::controllers::controllers;
use crate::bytes::{array, be_u32, has, le_u32, le_u64, slice};
use crate::error::Result;
use crate::filesystem::probe::{Probe, Usage, View, label};
use crate::volume::bitlocker;
use crate::volume::lvm::label::{find_label, hyphenated, label_id};

fn member(kind: &'static str) -> Probe {
    Probe::new(kind, Usage::Volume)
}

/// Linux md (md(4), and the kernel's `md_p.h`): version 1.1 at the start, 1.2 4 KiB in, 1.0 and 0.90 near the end.
pub(crate) fn md(view: &View<'_>) -> Result<Option<Probe>> {
    let sectors = view.len() / 512;
    let version_1_0 = (sectors.saturating_sub(16) & !7).saturating_mul(512);
    for at in [0, 4096, version_1_0] {
        if let Some(found) = md_version_1(&view.at(at, 256)?, at / 512) {
            return Ok(Some(found));
        }
    }
    let version_0_90 = (view.len() & !0xffff).saturating_sub(0x1_0000);
    Ok(md_version_0_90(&view.at(version_0_90, 128)?))
}

const MD_MAGIC: u32 = 0xa92b_4efc;

fn md_version_1(superblock: &[u8], sector: u64) -> Option<Probe> {
    let is_here = le_u32(superblock, 0)? == MD_MAGIC && le_u32(superblock, 4)? == 1;
    if !is_here || le_u64(superblock, 144)? != sector {
        return None;
    }
    Some(member("linux_raid_member").with_uuid(array(superblock, 16)).with_label(slice(superblock, 32, 32)))
}

fn md_version_0_90(superblock: &[u8]) -> Option<Probe> {
    if le_u32(superblock, 0)? != MD_MAGIC || le_u32(superblock, 4)? != 0 || le_u32(superblock, 8)? != 90 {
        return None;
    }
    // Four numbers, the first apart from the others, each of them a big-endian quarter of the UUID as people write it.
    let mut uuid = [0; 16];
    for (part, at) in uuid.chunks_exact_mut(4).zip([20, 52, 56, 60]) {
        part.copy_from_slice(&le_u32(superblock, at)?.to_be_bytes());
    }
    Some(member("linux_raid_member").with_uuid(Some(uuid)))
}

/// LVM2's label, in one of the first four sectors; its checksum tells it from text.
pub(crate) fn lvm2(view: &View<'_>) -> Result<Option<Probe>> {
    let id = find_label(view.head()).and_then(|(_, sector)| hyphenated(label_id(sector)?));
    Ok(id.map(|id| member("LVM2_member").with_uuid_text(Some(id))))
}

/// LUKS1 and LUKS2 (on-disk format specifications): the UUID is text at 168 in both.
pub(crate) fn luks(view: &View<'_>) -> Result<Option<Probe>> {
    let head = view.head();
    if !has(head, 0, b"LUKS\xba\xbe") {
        return Ok(None);
    }
    let version_2 = has(head, 6, &[0, 2]);
    let found = Probe::new("crypto_LUKS", Usage::Encrypted).with_uuid_text(slice(head, 168, 40).and_then(label));
    Ok(Some(if version_2 { found.with_label(slice(head, 24, 48)) } else { found }))
}

/// BitLocker (libbde's description of the format): a boot sector of its own, or for "to go" a FAT one with an identifier.
pub(crate) fn bitlocker(view: &View<'_>) -> Result<Option<Probe>> {
    let head = view.head();
    let found = has(head, 3, bitlocker::SIGNATURE) || has(head, bitlocker::TO_GO, &bitlocker::IDENTIFIER);
    Ok(found.then(|| Probe::new("BitLocker", Usage::Encrypted)))
}

const BCACHE_MAGIC: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81];

/// bcache (the kernel's `bcache_ondisk.h`): superblock at 4096, which says that it lies in sector 8.
pub(crate) fn bcache(view: &View<'_>) -> Result<Option<Probe>> {
    let head = view.head();
    if !has(head, 4096 + 24, &BCACHE_MAGIC) || le_u64(head, 4096 + 8) != Some(8) {
        return Ok(None);
    }
    let found = Probe::new("bcache", Usage::Other).with_uuid(array(head, 4096 + 40));
    Ok(Some(found.with_label(slice(head, 4096 + 72, 32))))
}

/// bcachefs (the kernel's `bcachefs_format.h`): superblock at 4096, its magic bcache's or its own.
pub(crate) fn bcachefs(view: &View<'_>) -> Result<Option<Probe>> {
    const MAGIC: [u8; 16] =
        [0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef];
    let head = view.head();
    if !has(head, 4096 + 24, &MAGIC) && !has(head, 4096 + 24, &BCACHE_MAGIC) {
        return Ok(None);
    }
    let found = Probe::file_system("bcachefs").with_uuid(array(head, 4096 + 56));
    Ok(Some(found.with_label(slice(head, 4096 + 72, 32))))
}

/// ZFS ("ZFS On-Disk Specification", chapter 1): four labels of 256 KiB, each with a list of pairs 16 KiB in and a ring
/// of uberblocks from 128 KiB on.
pub(crate) fn zfs(view: &View<'_>) -> Result<Option<Probe>> {
    const LABEL_BYTES: u64 = 256 << 10;
    // The smallest device ZFS takes.
    if view.len() < 64 << 20 {
        return Ok(None);
    }
    let last = (view.len() & !(LABEL_BYTES - 1)).saturating_sub(LABEL_BYTES);
    for label_at in [0, LABEL_BYTES, last.saturating_sub(LABEL_BYTES), last] {
        let pairs = view.at(label_at + (16 << 10), 8 << 10)?;
        // XDR, written on a machine of either endianness, version 0 with unique names: every pool's list begins so.
        if !matches!(pairs.get(..12), Some([1, 0 | 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])) {
            continue;
        }
        if let Some((name, Some(guid))) = zfs_identity(&pairs) {
            return Ok(Some(member("zfs_member").with_label_text(name).with_uuid_text(Some(guid))));
        }
    }
    Ok(None)
}

/// The pool's name and identifier from the label's list of pairs, which is in XDR (RFC 4506).
fn zfs_identity(pairs: &[u8]) -> Option<(Option<String>, Option<String>)> {
    let (mut name, mut guid) = (None, None);
    // Encoding (4 bytes), version, flags.
    let mut at = 12;
    loop {
        let size = be_u32(pairs, at)? as usize;
        if size == 0 {
            return Some((name, guid));
        }
        let name_length = be_u32(pairs, at + 8)? as usize;
        let key = slice(pairs, at + 12, name_length)?;
        let value = at.checked_add(12)?.checked_add(name_length.checked_next_multiple_of(4)?)?.checked_add(8)?;
        match key {
            b"name" => name = label(slice(pairs, value.checked_add(4)?, be_u32(pairs, value)? as usize)?),
            b"pool_guid" => guid = crate::bytes::be_u64(pairs, value).map(|guid| guid.to_string()),
            _ => {}
        }
        if name.is_some() && guid.is_some() {
            return Some((name, guid));
        }
        at = at.checked_add(size)?;
    }
}

/// VDO's geometry block (dm-vdo's `encodings.h`): magic, header, release, and the volume's UUID.
pub(crate) fn vdo(view: &View<'_>) -> Result<Option<Probe>> {
    let head = view.head();
    let found = has(head, 0, b"dmvdo001");
    Ok(found.then(|| Probe::new("vdo", Usage::Volume).with_uuid(array(head, 40))))
}

/// SNIA's Common RAID Disk Data Format, section 5: an anchor header in the last sector.
pub(crate) fn ddf(view: &View<'_>) -> Result<Option<Probe>> {
    let anchor = view.at((view.len() / 512).saturating_sub(1).saturating_mul(512), 512)?;
    Ok((be_u32(&anchor, 0) == Some(0xde11_de11)).then(|| member("ddf_raid_member")))
}

/// Intel Matrix RAID: its signature stands in the last sector but one.
pub(crate) fn intel(view: &View<'_>) -> Result<Option<Probe>> {
    let sector = view.at((view.len() / 512).saturating_sub(2).saturating_mul(512), 512)?;
    Ok(has(&sector, 0, b"Intel Raid ISM Cfg Sig. ").then(|| member("isw_raid_member")))
}

/// UBI (the kernel's `ubi-media.h`): an erase counter header at the start; blkid prints the image's sequence number.
pub(crate) fn ubi(view: &View<'_>) -> Result<Option<Probe>> {
    let head = view.head();
    let found = has(head, 0, b"UBI#") && head.get(4) == Some(&1);
    let sequence = be_u32(head, 24).map(|number| number.to_string());
    Ok(found.then(|| member("ubi").with_uuid_text(sequence)))
}
