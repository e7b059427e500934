//! Extended attributes ("XFS Algorithms & Data Structures", extended attributes): in the inode, or in leaves of a tree.

use super::bmap::{self, Contents};
use super::directory::{IndexBlock, index_block, index_records};
use super::inode::{Fork, Format, Inode};
use super::superblock::BASIC_BLOCK;
use super::volume::{Seal, Volume};
use crate::bytes::{be_u16, be_u32, be_u64, has, slice};
use crate::error::{Error, Result};
use crate::filesystem::ExtendedAttribute;

/// Bits of an attribute's flags (`XFS_ATTR_*`).
const LOCAL: u8 = 0x01;
const ROOT: u8 = 0x02;
const SECURE: u8 = 0x04;
const PARENT: u8 = 0x08;
const INCOMPLETE: u8 = 0x80;
/// Bytes of a value at most (`XFS_XATTR_SIZE_MAX`), and of all attributes of one inode that are taken in.
const VALUE_MAX: u32 = 64 << 10;
const ALL_MAX: usize = 64 << 20;
/// What an attribute takes beside its bytes.
const OVERHEAD: usize = 64;
const DEPTH_MAX: u32 = 5;
/// Bytes of the header that each block of a value out of line has in version 5 (`xfs_attr3_rmt_hdr`).
const REMOTE_HEADER: usize = 56;
const REMOTE_SEAL: Seal = Seal { name: "xfs attribute value", checksum: 12, uuid: 16, owner: Some(32) };

/// All attributes of `inode`, in the order they lie. Pointers to parents and what an interrupted change left are not
/// among them; POSIX ACLs have the form that `getxattr` gives them.
///
/// # Errors
/// [`Error::Corrupt`] where they contradict the format.
pub(super) fn all(volume: &Volume, inode: &Inode) -> Result<Vec<ExtendedAttribute>> {
    let fork = inode.fork(Fork::Attributes);
    let mut found = Vec::new();
    if fork.is_empty() {
        return Ok(found);
    }
    match inode.format(Fork::Attributes)? {
        Format::Local => short_form(inode, fork, &mut found)?,
        // mkfs reserves the room for a fork without filling it.
        Format::Extents if inode.extents(Fork::Attributes) == 0 => {}
        Format::Extents | Format::Btree => leaves(volume, inode, &mut found)?,
        Format::Device => return Err(inode.corrupt("its attributes have the format of a device")),
    }
    Ok(found)
}

fn add(inode: &Inode, found: &mut Vec<ExtendedAttribute>, flags: u8, name: &[u8], value: &[u8]) -> Result<()> {
    if flags & (PARENT | INCOMPLETE) != 0 {
        return Ok(());
    }
    let namespace: &[u8] = match flags & (ROOT | SECURE) {
        0 => b"user.",
        ROOT => b"trusted.",
        SECURE => b"security.",
        _ => return Err(inode.corrupt("an attribute of it is in two namespaces")),
    };
    let access_list = match name {
        b"SGI_ACL_FILE" if flags & ROOT != 0 => Some(b"system.posix_acl_access".as_slice()),
        b"SGI_ACL_DEFAULT" if flags & ROOT != 0 => Some(b"system.posix_acl_default".as_slice()),
        _ => None,
    };
    // Linux shows root the list in both forms.
    if let Some((name, value)) = access_list.zip(access_control_list(value)) {
        found.push(ExtendedAttribute { name: name.to_vec(), value });
    }
    found.push(ExtendedAttribute { name: [namespace, name].concat(), value: value.to_vec() });
    Ok(())
}

/// `xfs_acl` as the attribute that Linux shows (`posix_acl_xattr_header`): version 2, little-endian, and no identity
/// where the tag needs none.
fn access_control_list(value: &[u8]) -> Option<Vec<u8>> {
    const VERSION: u32 = 2;
    const USER: u32 = 0x02;
    const GROUP: u32 = 0x08;
    let count = usize::try_from(be_u32(value, 0)?).ok()?;
    let entries = slice(value, 4, count.checked_mul(12)?)?;
    let mut list = VERSION.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(12) {
        let (tag, identity, permissions) = (be_u32(entry, 0)?, be_u32(entry, 4)?, be_u16(entry, 8)?);
        let identity = if matches!(tag, USER | GROUP) { identity } else { u32::MAX };
        list.extend(u16::try_from(tag).ok()?.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(identity.to_le_bytes());
    }
    Some(list)
}

/// Attributes in the inode (`xfs_attr_sf_hdr`).
fn short_form(inode: &Inode, fork: &[u8], found: &mut Vec<ExtendedAttribute>) -> Result<()> {
    let broken = || inode.corrupt("its attributes are cut off");
    let total = usize::from(be_u16(fork, 0).ok_or_else(broken)?);
    let bytes = fork.get(..total).ok_or_else(broken)?;
    let count = *bytes.get(2).ok_or_else(broken)?;
    let mut at: usize = 4;
    for _ in 0..count {
        let header = slice(bytes, at, 3).ok_or_else(broken)?;
        let &[name_length, value_length, flags] = header else { return Err(broken()) };
        let (name_length, value_length) = (usize::from(name_length), usize::from(value_length));
        let name = slice(bytes, at + 3, name_length).ok_or_else(broken)?;
        let value = slice(bytes, at + 3 + name_length, value_length).ok_or_else(broken)?;
        add(inode, found, flags, name, value)?;
        at += 3 + name_length + value_length;
    }
    Ok(())
}

fn leaves(volume: &Volume, inode: &Inode, found: &mut Vec<ExtendedAttribute>) -> Result<()> {
    let geometry = &volume.geometry;
    let mut block = vec![0; geometry.block_bytes as usize];
    let place = |number: u32| u64::from(number) << geometry.block_log;
    let broken = || inode.corrupt("the tree of its attributes contradicts itself");
    let mut offset = 0;
    let mut depth = 0;
    // Down the left side to the first leaf.
    loop {
        match index_block(volume, inode, Fork::Attributes, &mut block, offset)? {
            IndexBlock::Attributes => break,
            IndexBlock::Node if depth < DEPTH_MAX => {}
            IndexBlock::Node | IndexBlock::Leaf => return Err(broken()),
        }
        depth += 1;
        let (header, ..) = index_records(volume, &block).filter(|(_, count, _)| *count > 0).ok_or_else(broken)?;
        offset = place(be_u32(&block, header + 4).ok_or_else(broken)?);
    }
    let mut taken = 0;
    // Leaves can be half empty; where they form a ring, this is where it ends.
    for _ in 0..2 * ALL_MAX / block.len() {
        volume.budget.check_time()?;
        leaf(volume, inode, &block, &mut taken, found)?;
        let next = be_u32(&block, 0).unwrap_or(0);
        if next == 0 {
            return Ok(());
        }
        offset = place(next);
        if index_block(volume, inode, Fork::Attributes, &mut block, offset)? != IndexBlock::Attributes {
            return Err(broken());
        }
    }
    Err(broken())
}

/// A leaf (`xfs_attr_leaf_hdr`): its entries, with names and values behind them or values out of line.
fn leaf(
    volume: &Volume,
    inode: &Inode,
    block: &[u8],
    taken: &mut usize,
    found: &mut Vec<ExtendedAttribute>,
) -> Result<()> {
    let (entries, counts) = if volume.geometry.v5 { (80, 56) } else { (32, 12) };
    let broken = || inode.corrupt("a leaf of its attributes contradicts itself");
    let count = usize::from(be_u16(block, counts).ok_or_else(broken)?);
    let entries = slice(block, entries, count * 8).ok_or_else(broken)?;
    for entry in entries.chunks_exact(8) {
        let at = usize::from(be_u16(entry, 4).ok_or_else(broken)?);
        let flags = *entry.get(6).ok_or_else(broken)?;
        if flags & (PARENT | INCOMPLETE) != 0 {
            continue;
        }
        let remote;
        let (name, value) = if flags & LOCAL != 0 {
            let name_length = usize::from(*block.get(at + 2).ok_or_else(broken)?);
            let value_length = usize::from(be_u16(block, at).ok_or_else(broken)?);
            (slice(block, at + 3, name_length), slice(block, at + 3 + name_length, value_length))
        } else {
            let name_length = usize::from(*block.get(at + 8).ok_or_else(broken)?);
            let (first, length) = (be_u32(block, at).ok_or_else(broken)?, be_u32(block, at + 4).ok_or_else(broken)?);
            if length > VALUE_MAX {
                return Err(broken());
            }
            remote = remote_value(volume, inode, first, length as usize)?;
            (slice(block, at + 9, name_length), Some(remote.as_slice()))
        };
        let (name, value) = (name.ok_or_else(broken)?, value.ok_or_else(broken)?);
        *taken = taken.saturating_add(OVERHEAD + name.len() + value.len());
        if *taken > ALL_MAX {
            return Err(inode.corrupt("its attributes are larger than any can be"));
        }
        add(inode, found, flags, name, value)?;
    }
    Ok(())
}

/// A value out of line, from block `first` of the fork on; in version 5 each block begins with a header.
fn remote_value(volume: &Volume, inode: &Inode, first: u32, length: usize) -> Result<Vec<u8>> {
    let geometry = &volume.geometry;
    let block_bytes = geometry.block_bytes as usize;
    let header = if geometry.v5 { REMOTE_HEADER } else { 0 };
    let blocks = length.div_ceil(block_bytes - header);
    let mut raw = vec![0; blocks * block_bytes];
    let offset = u64::from(first) << geometry.block_log;
    let was_replayed = bmap::read(volume, inode, Fork::Attributes, Contents::Metadata, &mut raw, offset)?;
    let mut value = Vec::with_capacity(length);
    for block in raw.chunks_exact(block_bytes) {
        let count = (length - value.len()).min(block_bytes - header);
        if geometry.v5 {
            let is_next = has(block, 0, b"XARM")
                && be_u32(block, 4).map(|offset| offset as usize) == Some(value.len())
                && be_u32(block, 8).map(|count| count as usize) == Some(count);
            if !is_next {
                return Err(Error::corrupt("xfs attribute value", inode.at(), "a block of it is another's"));
            }
            volume.verify(block, inode.at(), REMOTE_SEAL, inode.number, was_replayed)?;
        }
        value.extend(slice(block, header, count).unwrap_or_default());
    }
    Ok(value)
}

/// Longest target of a symbolic link (`XFS_SYMLINK_MAXLEN`).
const TARGET_MAX: u64 = 1024;
/// Bytes of the header of a target out of line in version 5 (`xfs_dsymlink_hdr`), one for each of its extents.
const TARGET_HEADER: usize = 56;
const TARGET_SEAL: Seal = Seal { name: "xfs symbolic link", checksum: 12, uuid: 16, owner: Some(32) };

/// The target of a symbolic link, in its inode or in blocks of its own.
///
/// # Errors
/// [`Error::Corrupt`] where it contradicts the format.
pub(super) fn link_target(volume: &Volume, link: &Inode) -> Result<Vec<u8>> {
    let geometry = &volume.geometry;
    if link.size == 0 || link.size > TARGET_MAX {
        return Err(link.corrupt(format!("its target has {} bytes", link.size)));
    }
    let length = usize::try_from(link.size).unwrap_or(usize::MAX);
    let cut = || link.corrupt("its target is cut off");
    if link.format(Fork::Data)? == Format::Local {
        return Ok(link.fork(Fork::Data).get(..length).ok_or_else(cut)?.to_vec());
    }
    let mut target = Vec::with_capacity(length);
    for extent in bmap::map(volume, link, Fork::Data, 0)?.extents {
        let whole = extent.length << geometry.block_log;
        // A target of 1024 bytes takes three blocks of 512 with their headers.
        if whole > 64 << 10 || target.len() == length {
            break;
        }
        let at = geometry.byte_of_block(extent.block, extent.length)?;
        let mut bytes = vec![0; usize::try_from(whole).unwrap_or(0)];
        let was_replayed = volume.read(&mut bytes, at)?;
        let header = if geometry.v5 { TARGET_HEADER } else { 0 };
        let mut count = bytes.len().saturating_sub(header).min(length - target.len());
        if geometry.v5 {
            let is_next = has(&bytes, 0, b"XSLM")
                && be_u32(&bytes, 4).map(|offset| offset as usize) == Some(target.len())
                && be_u64(&bytes, 40) == Some(at / BASIC_BLOCK);
            if !is_next {
                return Err(link.corrupt("a block of its target is another's"));
            }
            volume.verify(&bytes, at, TARGET_SEAL, link.number, was_replayed)?;
            count = count.min(be_u32(&bytes, 8).map_or(0, |count| count as usize));
        }
        target.extend(slice(&bytes, header, count).unwrap_or_default());
    }
    if target.len() == length { Ok(target) } else { Err(cut()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_control_lists_have_the_form_that_linux_shows() {
        let disk =
            [&2_u32.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 9, 0, 6, 0, 0], &[0, 0, 0, 2, 0, 0, 3, 0xe8, 0, 4, 0, 0]];
        let shown = [&[2_u8, 0, 0, 0][..], &[1, 0, 6, 0, 255, 255, 255, 255], &[2, 0, 4, 0, 0xe8, 3, 0, 0]];
        assert_eq!(access_control_list(&disk.concat()), Some(shown.concat()));
        assert_eq!(access_control_list(&disk.concat()[..20]), None);
    }
}
