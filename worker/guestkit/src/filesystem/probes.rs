//! One function per family of file systems: where its superblock lies and what must hold in it.
//!
//! Each takes its facts from the format's own description: the kernel's on-disk headers, the vendor's specification, or
//! ECMA's standards; the function's first line names it.

use super::probe::{Probe, Usage, View, label, label_utf16};
use crate::bytes::{array, be_u16, be_u32, has, hex, le_u16, le_u32, le_u64, slice};
use crate::error::Result;

type Found = Result<Option<Probe>>;

/// XFS ("XFS Algorithms & Data Structures", superblocks): everything is big-endian.
pub(super) fn xfs(view: &View<'_>) -> Found {
    let head = view.head();
    let block_bytes = be_u32(head, 4).unwrap_or(0);
    if !has(head, 0, b"XFSB") || !block_bytes.is_power_of_two() || !(512..=65536).contains(&block_bytes) {
        return Ok(None);
    }
    Ok(Some(Probe::file_system("xfs").with_uuid(array(head, 32)).with_label(slice(head, 108, 12))))
}

/// btrfs ("On-disk Format", superblock at 64 KiB).
pub(super) fn btrfs(view: &View<'_>) -> Found {
    const AT: usize = 64 << 10;
    let head = view.head();
    let found = has(head, AT + 64, b"_BHRfS_M");
    Ok(found
        .then(|| Probe::file_system("btrfs").with_uuid(array(head, AT + 32)).with_label(slice(head, AT + 299, 256))))
}

/// ext2, ext3, ext4 and their external journals (the kernel's "ext4 Data Structures", superblock at 1024).
pub(super) fn ext(view: &View<'_>) -> Found {
    Ok(ext_superblock(view.head().get(1024..2048).unwrap_or_default()))
}

/// A file system of the ext family whose primary superblock is lost: a sound copy shows it, as it does to `e2fsck -b`.
pub(super) fn ext_copy(view: &View<'_>) -> Found {
    Ok(super::ext::lost_superblock(view.device())?.as_deref().and_then(ext_superblock))
}

fn ext_superblock(superblock: &[u8]) -> Option<Probe> {
    if le_u16(superblock, 0x38)? != 0xef53 {
        return None;
    }
    let compatible = le_u32(superblock, 0x5c)?;
    let incompatible = le_u32(superblock, 0x60)?;
    let read_only = le_u32(superblock, 0x64)?;
    // ext3 knows filetype, recover and meta_bg, sparse_super, large_file and btree_dir; what goes beyond is ext4's.
    let beyond_ext3 = incompatible & !0x16 != 0 || read_only & !0x7 != 0;
    let (kind, usage) = match () {
        () if incompatible & 0x8 != 0 => ("jbd", Usage::Other),
        () if beyond_ext3 => ("ext4", Usage::FileSystem),
        () if compatible & 0x4 != 0 => ("ext3", Usage::FileSystem),
        () => ("ext2", Usage::FileSystem),
    };
    Some(Probe::new(kind, usage).with_uuid(array(superblock, 0x68)).with_label(slice(superblock, 0x78, 16)))
}

/// NTFS (boot sector as Microsoft documents it): the label is an attribute of the file `$Volume`, MFT record 3.
pub(super) fn ntfs(view: &View<'_>) -> Found {
    ntfs_boot_sector(view, view.head())
}

/// An NTFS whose boot sector is lost, by the copy at its end. What ends as a boot record does has lost nothing: it is another's.
pub(super) fn ntfs_copy(view: &View<'_>) -> Found {
    if has(view.head(), 510, &[0x55, 0xaa]) {
        return Ok(None);
    }
    match super::ntfs::lost_boot_sector(view.device())? {
        Some(sector) => ntfs_boot_sector(view, &sector),
        None => Ok(None),
    }
}

fn ntfs_boot_sector(view: &View<'_>, head: &[u8]) -> Found {
    let sector_bytes = u64::from(le_u16(head, 11).unwrap_or(0));
    if !has(head, 3, b"NTFS    ") || !sector_bytes.is_power_of_two() || !(256..=4096).contains(&sector_bytes) {
        return Ok(None);
    }
    let serial = le_u64(head, 72).map(|serial| format!("{serial:016X}"));
    let label = match ntfs_volume_record(head, sector_bytes) {
        Some((at, length)) => ntfs_label(&view.at(at, length)?),
        None => None,
    };
    Ok(Some(Probe::file_system("ntfs").with_uuid_text(serial).with_label_text(label)))
}

/// Negative values are powers of two, for clusters (in sectors) as for records (in bytes).
fn ntfs_volume_record(head: &[u8], sector_bytes: u64) -> Option<(u64, usize)> {
    let power = |raw: u8| 1_u64.checked_shl(u32::from(raw.wrapping_neg()));
    let sectors = *head.get(13)?;
    let cluster_bytes = if sectors > 128 { power(sectors)? } else { u64::from(sectors) }.checked_mul(sector_bytes)?;
    let clusters = *head.get(64)?;
    let record_bytes =
        if clusters > 127 { power(clusters)? } else { cluster_bytes.checked_mul(u64::from(clusters))? };
    let mft = le_u64(head, 48)?.checked_mul(cluster_bytes)?;
    let at = mft.checked_add(record_bytes.checked_mul(3)?)?;
    (512..=65536).contains(&record_bytes).then_some((at, usize::try_from(record_bytes).ok()?))
}

fn ntfs_label(record: &[u8]) -> Option<String> {
    if !has(record, 0, b"FILE") {
        return None;
    }
    let mut at = usize::from(le_u16(record, 20)?);
    loop {
        let (kind, length) = (le_u32(record, at)?, le_u32(record, at.checked_add(4)?)? as usize);
        if kind == u32::MAX || length < 24 {
            return None;
        }
        // $VOLUME_NAME, which is always resident.
        if kind == 0x60 {
            let attribute = slice(record, at, length)?;
            let value = slice(attribute, usize::from(le_u16(attribute, 20)?), le_u32(attribute, 16)? as usize)?;
            return label_utf16(value.chunks_exact(2).filter_map(|unit| le_u16(unit, 0)));
        }
        at = at.checked_add(length)?;
    }
}

/// exFAT ("exFAT file system specification", Microsoft): the label is an entry of the root directory.
pub(super) fn exfat(view: &View<'_>) -> Found {
    let head = view.head();
    if !has(head, 3, b"EXFAT   ") || !has(head, 510, &[0x55, 0xaa]) {
        return Ok(None);
    }
    let label = match ExfatRoot::parse(head) {
        Some(root) => root.find_label(view)?,
        None => None,
    };
    let serial = le_u32(head, 100).and_then(serial_number);
    Ok(Some(Probe::file_system("exfat").with_uuid_text(serial).with_label_text(label)))
}

#[derive(Debug)]
struct ExfatRoot {
    fat_start: u64,
    heap_start: u64,
    cluster_bytes: u64,
    cluster: u32,
}

impl ExfatRoot {
    fn parse(head: &[u8]) -> Option<Self> {
        let (sector_shift, cluster_shift) = (*head.get(108)?, *head.get(109)?);
        // Section 3.1.15: sectors of 512 bytes to 4 KiB, clusters of at most 32 MiB.
        if !(9..=12).contains(&sector_shift) || cluster_shift > 25 - sector_shift {
            return None;
        }
        Some(Self {
            fat_start: u64::from(le_u32(head, 80)?) << sector_shift,
            heap_start: u64::from(le_u32(head, 88)?) << sector_shift,
            cluster_bytes: 1 << (sector_shift + cluster_shift),
            cluster: le_u32(head, 96)?,
        })
    }

    fn find_label(&self, view: &View<'_>) -> Result<Option<String>> {
        let mut cluster = self.cluster;
        // As for FAT: the label comes early, and a chain this long goes in circles.
        for _ in 0..100 {
            let Some(index) = cluster.checked_sub(2) else { break };
            let at = self.heap_start.saturating_add(u64::from(index).saturating_mul(self.cluster_bytes));
            // The label of a large cluster is among its first entries.
            let entries = view.at(at, usize::try_from(self.cluster_bytes.min(65536)).unwrap_or(0))?;
            if let Some(label) = exfat_label(&entries) {
                return Ok(Some(label));
            }
            let ended = entries.is_empty() || entries.chunks_exact(32).any(|entry| entry.first() == Some(&0));
            let next = le_u32(&view.at(self.fat_start.saturating_add(u64::from(cluster) * 4), 4)?, 0);
            match next {
                Some(next) if !ended && next < 0xffff_fff7 => cluster = next,
                _ => break,
            }
        }
        Ok(None)
    }
}

fn exfat_label(directory: &[u8]) -> Option<String> {
    let entry = directory.chunks_exact(32).find(|entry| entry.first() == Some(&0x83))?;
    let length = usize::from(*entry.get(1)?).min(11) * 2;
    label_utf16(slice(entry, 2, length)?.chunks_exact(2).filter_map(|unit| le_u16(unit, 0)))
}

/// A FAT or exFAT volume's serial number; zero means that it has none.
fn serial_number(serial: u32) -> Option<String> {
    (serial != 0).then(|| format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff))
}

/// ReFS: a boot sector with its name and the structure identifier "FSRS".
pub(super) fn refs(view: &View<'_>) -> Found {
    let found = has(view.head(), 3, b"ReFS\0\0\0\0") && has(view.head(), 16, b"FSRS");
    Ok(found.then(|| Probe::file_system("ReFS")))
}

/// FAT12, FAT16, FAT32 ("FAT: General Overview of On-Disk Format", Microsoft).
pub(super) fn vfat(view: &View<'_>) -> Found {
    let Some(boot) = FatBoot::parse(view.head()) else { return Ok(None) };
    if !boot.is_signed && !boot.has_media_in_table(view)? {
        return Ok(None);
    }
    let label = boot.find_label(view)?;
    let serial = Some(boot.serial).filter(|_| boot.is_signed).and_then(serial_number);
    Ok(Some(Probe::file_system("vfat").with_uuid_text(serial).with_label_text(label)))
}

#[derive(Debug)]
struct FatBoot {
    /// Whether it says that it is FAT. Volumes for Atari do not; blkid does not name them, and Linux mounts them.
    is_signed: bool,
    media: u8,
    sector_bytes: u64,
    cluster_bytes: u64,
    /// Where the volume ends.
    end: u64,
    fat_start: u64,
    fats_bytes: u64,
    root_entries: u64,
    root_cluster: Option<u32>,
    serial: u32,
}

impl FatBoot {
    fn parse(head: &[u8]) -> Option<Self> {
        let named = [b"MSDOS".as_slice(), b"FAT12   ", b"FAT16   "].iter().any(|name| has(head, 54, name));
        let named = named || has(head, 82, b"FAT32   ") || has(head, 82, b"MSWIN");
        let jumps = matches!(head.first(), Some(0xeb | 0xe9));
        let bootable = jumps && has(head, 510, &[0x55, 0xaa]);
        let sector_bytes = u64::from(le_u16(head, 11)?);
        let cluster_sectors = u64::from(*head.get(13)?);
        let reserved = u64::from(le_u16(head, 14)?);
        let fats = u64::from(*head.get(16)?);
        let media = *head.get(21)?;
        let sane = matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
            && cluster_sectors.is_power_of_two()
            && reserved != 0
            && (1..=8).contains(&fats)
            && (media == 0xf0 || media >= 0xf8);
        if !sane {
            return None;
        }
        let short = u64::from(le_u16(head, 22)?);
        let is_fat32 = short == 0;
        let fat_sectors = if is_fat32 { u64::from(le_u32(head, 36)?) } else { short };
        let sectors = match le_u16(head, 19)? {
            0 => u64::from(le_u32(head, 32)?),
            few => u64::from(few),
        };
        if fat_sectors == 0 || sectors == 0 {
            return None;
        }
        Some(Self {
            is_signed: named || bootable,
            media,
            sector_bytes,
            cluster_bytes: cluster_sectors * sector_bytes,
            end: sectors * sector_bytes,
            fat_start: reserved * sector_bytes,
            fats_bytes: fats * fat_sectors * sector_bytes,
            root_entries: u64::from(le_u16(head, 17)?),
            root_cluster: if is_fat32 { Some(le_u32(head, 44)?) } else { None },
            serial: le_u32(head, if is_fat32 { 67 } else { 39 })?,
        })
    }

    /// The first entry of each table repeats the media byte, and all its other bits are set.
    fn has_media_in_table(&self, view: &View<'_>) -> Result<bool> {
        let first = view.at(self.fat_start, 3)?;
        Ok(first.first() == Some(&self.media) && first.get(1..) == Some(&[0xff; 2]) && view.len() >= self.end)
    }

    /// The label is an entry of the root directory; the one in the boot sector is not kept up and not looked at.
    fn find_label(&self, view: &View<'_>) -> Result<Option<String>> {
        let data = self.fat_start + self.fats_bytes;
        let Some(mut cluster) = self.root_cluster else {
            // 16-bit count: at most 2 MiB.
            let length = usize::try_from(self.root_entries * 32).unwrap_or(0);
            return Ok(fat_label(&view.at(data, length)?));
        };
        let data = data + (self.root_entries * 32).next_multiple_of(self.sector_bytes);
        // Formatters write the label first; a chain that has not shown it after a hundred clusters goes in circles.
        for _ in 0..100 {
            let Some(index) = u64::from(cluster & 0x0fff_ffff).checked_sub(2) else { break };
            let at = data.saturating_add(index.saturating_mul(self.cluster_bytes));
            let entries = view.at(at, usize::try_from(self.cluster_bytes).unwrap_or(0))?;
            if let Some(label) = fat_label(&entries) {
                return Ok(Some(label));
            }
            let ended = entries.is_empty() || entries.chunks_exact(32).any(|entry| entry.first() == Some(&0));
            let next = view.at(self.fat_start.saturating_add(u64::from(cluster & 0x0fff_ffff) * 4), 4)?;
            match le_u32(&next, 0) {
                Some(next) if !ended && next & 0x0fff_ffff < 0x0fff_fff8 => cluster = next,
                _ => break,
            }
        }
        Ok(None)
    }
}

fn fat_label(entries: &[u8]) -> Option<String> {
    let used = entries.chunks_exact(32).take_while(|entry| entry.first() != Some(&0));
    let is_label = |entry: &&[u8]| {
        let attributes = entry.get(11).copied().unwrap_or(0);
        entry.first() != Some(&0xe5) && attributes & 0x3f != 0x0f && attributes & 0x18 == 0x08
    };
    let mut name = array::<11>(used.into_iter().find(is_label)?, 0)?;
    // 05 stands for a first byte that would mean "deleted".
    if let Some(first) = name.first_mut().filter(|first| **first == 0x05) {
        *first = 0xe5;
    }
    label(&name)
}

/// Swap (the kernel's `swap.h`), and what hibernation writes in its signature's place: at the end of the first page,
/// whatever the machine's page size was.
pub(super) fn swap(view: &View<'_>) -> Found {
    let head = view.head();
    let identity = |found: Probe| found.with_uuid(array(head, 1036)).with_label(slice(head, 1052, 16));
    // TuxOnIce puts its mark at the very start.
    if has(head, 0, &[0xed, 0xc3, 0x02, 0xe9, 0x98, 0x56, 0xe5, 0x0c]) {
        return Ok(Some(identity(Probe::new("swsuspend", Usage::Other))));
    }
    for page_bytes in [4096, 8192, 16384, 32768, 65536] {
        let kind = match slice(head, page_bytes - 10, 10) {
            Some(b"SWAPSPACE2" | b"SWAP-SPACE") => "swap",
            Some(b"S1SUSPEND\0" | b"S2SUSPEND\0" | b"ULSUSPEND\0" | b"LINHIB0001") => "swsuspend",
            _ => continue,
        };
        let found = Probe::new(kind, Usage::Other);
        let version_1 = le_u32(head, 1024) == Some(1) || be_u32(head, 1024) == Some(1);
        return Ok(Some(if version_1 { identity(found) } else { found }));
    }
    Ok(None)
}

/// UDF (ECMA-167 and OSTA's UDF specification): a sequence of recognition descriptors, then an anchor that leads to the
/// volume's descriptors.
pub(super) fn udf(view: &View<'_>) -> Found {
    // ECMA-167 2/9.1: structures of 2 KiB, or of a sector where that is larger, from 32 KiB on.
    let has_nsr = |step: usize| {
        (0..64)
            .map(|index| (32 << 10) + index * step)
            .any(|at| has(view.head(), at + 1, b"NSR02") || has(view.head(), at + 1, b"NSR03"))
    };
    if !has_nsr(2048) && !has_nsr(4096) {
        return Ok(None);
    }
    let mut found = Probe::file_system("udf");
    for sector_bytes in [2048_u64, 512, 1024, 4096] {
        let last = (view.len() / sector_bytes).saturating_sub(1);
        for anchor_sector in [256, last, last.saturating_sub(256)] {
            let anchor = view.at(anchor_sector.saturating_mul(sector_bytes), 512)?;
            if le_u16(&anchor, 0) != Some(2) || le_u32(&anchor, 12).map(u64::from) != Some(anchor_sector) {
                continue;
            }
            let (length, start) = (le_u32(&anchor, 16).unwrap_or(0), le_u32(&anchor, 20).unwrap_or(0));
            // A sequence has some ten descriptors; real ones take 16 sectors.
            let count = (u64::from(length) / sector_bytes).min(64);
            for sector in (0..count).map(|index| u64::from(start) + index) {
                let descriptor = view.at(sector.saturating_mul(sector_bytes), 512)?;
                match le_u16(&descriptor, 0) {
                    Some(1) => found.uuid = slice(&descriptor, 72, 128).and_then(udf_text).and_then(|id| udf_uuid(&id)),
                    Some(6) => found.label = slice(&descriptor, 84, 128).and_then(udf_text),
                    Some(8) | None => break,
                    Some(_) => {}
                }
            }
            return Ok(Some(found));
        }
    }
    Ok(Some(found))
}

/// A "dstring" (UDF 2.1.3): compression identifier, characters of one or two bytes, and the length in its last byte.
fn udf_text(field: &[u8]) -> Option<String> {
    let length = usize::from(*field.last()?);
    let (kind, characters) = field.get(..length.min(field.len().saturating_sub(1)))?.split_first()?;
    let text = match kind {
        8 | 254 => characters.iter().map(|byte| char::from(*byte)).collect::<String>(),
        16 | 255 => return label_utf16(characters.chunks_exact(2).filter_map(|unit| be_u16(unit, 0))),
        _ => return None,
    };
    let text = text.split('\0').next().unwrap_or_default().trim_end().to_owned();
    Some(text).filter(|text| !text.is_empty())
}

/// As libblkid makes it of the volume set's identifier: 16 digits, or 8 digits and four characters, or 8 characters.
fn udf_uuid(id: &str) -> Option<String> {
    let mut start = [0; 16];
    start.iter_mut().zip(id.bytes()).for_each(|(to, from)| *to = from);
    let is_hex = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    let (first, rest) = start.split_at(8);
    if id.len() < 8 {
        return None;
    }
    Some(match () {
        () if is_hex(&start) => String::from_utf8_lossy(&start).to_ascii_lowercase(),
        () if is_hex(first) => {
            String::from_utf8_lossy(first).to_ascii_lowercase() + &hex(rest.get(..4).unwrap_or_default())
        }
        () => hex(first),
    })
}

/// ISO 9660 (ECMA-119) and Joliet: volume descriptors of 2 KiB from sector 16 on.
pub(super) fn iso9660(view: &View<'_>) -> Found {
    const AT: usize = 32 << 10;
    let head = view.head();
    if !has(head, AT + 1, b"CD001") {
        return Ok(if has(head, AT + 9, b"CDROM") { Some(Probe::file_system("iso9660")) } else { None });
    }
    let descriptors = || (0..16).map_while(|index| slice(head, AT + index * 2048, 2048));
    let Some(primary) = descriptors().find(|descriptor| descriptor.first() == Some(&1)) else { return Ok(None) };
    let is_joliet = |descriptor: &&[u8]| {
        let escapes = [b"%/@", b"%/C", b"%/E"];
        descriptor.first() == Some(&2) && escapes.iter().any(|escape| has(descriptor, 88, *escape))
    };
    let plain = slice(primary, 40, 32).unwrap_or_default();
    let label = match descriptors().find(is_joliet).and_then(|joliet| slice(joliet, 40, 32)) {
        Some(wide) => joliet_label(wide, plain),
        None => label(plain),
    };
    let date = iso_date(slice(primary, 830, 17)).or_else(|| iso_date(slice(primary, 813, 17)));
    Ok(Some(Probe::file_system("iso9660").with_label_text(label).with_uuid_text(date)))
}

/// Joliet has room for 16 characters; where they are the start of the plain label, the rest of that one follows.
fn joliet_label(wide: &[u8], plain: &[u8]) -> Option<String> {
    let units: Vec<u16> = wide.chunks_exact(2).filter_map(|unit| be_u16(unit, 0)).collect();
    let text = label_utf16(units.iter().copied())?;
    let continues = units.iter().zip(plain).all(|(unit, byte)| {
        let wide = char::from_u32(u32::from(*unit)).unwrap_or('\0');
        wide.eq_ignore_ascii_case(&char::from(*byte)) || *byte == b'_'
    });
    let rest = plain.get(units.len()..).and_then(label).filter(|_| continues && text.chars().count() == units.len());
    Some(text + &rest.unwrap_or_default())
}

/// ECMA-119 8.4.26.1: sixteen digits, and a byte of time zone that the identifier leaves out.
fn iso_date(field: Option<&[u8]>) -> Option<String> {
    let digits = std::str::from_utf8(field?.get(..16)?).ok()?;
    let is_set = digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.bytes().any(|byte| byte != b'0');
    let cut = |range: std::ops::Range<usize>| digits.get(range).filter(|_| is_set);
    let parts = [cut(0..4)?, cut(4..6)?, cut(6..8)?, cut(8..10)?, cut(10..12)?, cut(12..14)?, cut(14..16)?];
    Some(parts.join("-"))
}

/// squashfs (the kernel's `squashfs_fs.h`); before version 4 it could be of either endianness and is another format.
pub(super) fn squashfs(view: &View<'_>) -> Found {
    let head = view.head();
    let major = match () {
        () if has(head, 0, b"hsqs") => le_u16(head, 28),
        () if has(head, 0, b"sqsh") => be_u16(head, 28),
        () => None,
    };
    Ok(major.map(|major| Probe::file_system(if major >= 4 { "squashfs" } else { "squashfs3" })))
}

/// EROFS (the kernel's `erofs_fs.h`): superblock at 1024.
pub(super) fn erofs(view: &View<'_>) -> Found {
    let head = view.head();
    let found = le_u32(head, 1024) == Some(0xe0f5_e1e2);
    Ok(found.then(|| Probe::file_system("erofs").with_uuid(array(head, 1072)).with_label(slice(head, 1088, 16))))
}

/// F2FS (the kernel's `f2fs_fs.h`): superblock at 1024.
pub(super) fn f2fs(view: &View<'_>) -> Found {
    let head = view.head();
    if le_u32(head, 1024) != Some(0xf2f5_2010) {
        return Ok(None);
    }
    let units = slice(head, 1024 + 124, 1024).unwrap_or_default().chunks_exact(2).filter_map(|unit| le_u16(unit, 0));
    Ok(Some(Probe::file_system("f2fs").with_uuid(array(head, 1024 + 108)).with_label_text(label_utf16(units))))
}

/// JFS (the kernel's `jfs_superblock.h`): superblock at 32 KiB.
pub(super) fn jfs(view: &View<'_>) -> Found {
    const AT: usize = 32 << 10;
    let head = view.head();
    let found = has(head, AT, b"JFS1");
    Ok(found.then(|| Probe::file_system("jfs").with_uuid(array(head, AT + 136)).with_label(slice(head, AT + 152, 16))))
}

/// ReiserFS and Reiser4 (the kernel's `reiserfs.h`): superblock at 64 KiB, in the first versions at 8 KiB.
pub(super) fn reiserfs(view: &View<'_>) -> Found {
    let head = view.head();
    for at in [64 << 10, 8 << 10] {
        let has_uuid = has(head, at + 52, b"ReIsEr2Fs") || has(head, at + 52, b"ReIsEr3Fs");
        if has_uuid {
            let found = Probe::file_system("reiserfs").with_uuid(array(head, at + 84));
            return Ok(Some(found.with_label(slice(head, at + 100, 16))));
        }
        if has(head, at + 52, b"ReIsErFs") {
            return Ok(Some(Probe::file_system("reiserfs")));
        }
        if has(head, at, b"ReIsEr4\0") {
            let found = Probe::file_system("reiser4").with_uuid(array(head, at + 20));
            return Ok(Some(found.with_label(slice(head, at + 36, 16))));
        }
    }
    Ok(None)
}

/// APFS ("Apple File System Reference", `nx_superblock_t`): the container's superblock.
pub(super) fn apfs(view: &View<'_>) -> Found {
    let head = view.head();
    let found = has(head, 32, b"NXSB") && le_u32(head, 36).is_some_and(u32::is_power_of_two);
    Ok(found.then(|| Probe::file_system("apfs").with_uuid(array(head, 72))))
}

/// HFS and HFS+ ("Inside Macintosh: Files"; Apple's Technical Note 1150): volume header at 1024.
pub(super) fn hfs(view: &View<'_>) -> Found {
    let header = view.head().get(1024..1536).unwrap_or_default();
    let is_plus = (has(header, 0, b"H+") && be_u16(header, 2) == Some(4))
        || (has(header, 0, b"HX") && be_u16(header, 2) == Some(5))
        || (has(header, 0, b"BD") && has(header, 0x7c, b"H+"));
    if is_plus {
        return Ok(Some(Probe::file_system("hfsplus")));
    }
    // An allocation block is a multiple of 512 bytes.
    let is_hfs = has(header, 0, b"BD") && be_u32(header, 20).is_some_and(|bytes| bytes != 0 && bytes % 512 == 0);
    let name = header.get(36).and_then(|length| slice(header, 37, usize::from(*length).min(27)));
    Ok(is_hfs.then(|| Probe::file_system("hfs").with_label(name)))
}

/// NILFS2 (the kernel's `nilfs2_ondisk.h`): superblock at 1024.
pub(super) fn nilfs2(view: &View<'_>) -> Found {
    let head = view.head();
    let found = le_u16(head, 1024 + 6) == Some(0x3434) && le_u32(head, 1024) == Some(2);
    let probe = || Probe::file_system("nilfs2").with_uuid(array(head, 1024 + 152));
    Ok(found.then(|| probe().with_label(slice(head, 1024 + 168, 80))))
}

/// OCFS2 (the kernel's `ocfs2_fs.h`): the superblock is block 2, whatever a block is.
pub(super) fn ocfs2(view: &View<'_>) -> Found {
    let head = view.head();
    for block_bytes in [512, 1024, 2048, 4096] {
        let at = block_bytes * 2;
        if has(head, at, b"OCFSV2") {
            let found = Probe::file_system("ocfs2").with_uuid(array(head, at + 0x150));
            return Ok(Some(found.with_label(slice(head, at + 0x110, 64))));
        }
    }
    Ok(None)
}

/// UFS1 and UFS2 (FreeBSD's `ufs/ffs/fs.h`), of either endianness.
pub(super) fn ufs(view: &View<'_>) -> Found {
    let head = view.head();
    for at in [64 << 10, 8 << 10, 0] {
        let little = matches!(le_u32(head, at + 1372), Some(0x1954_0119 | 0x0001_1954));
        let big = matches!(be_u32(head, at + 1372), Some(0x1954_0119 | 0x0001_1954));
        if !little && !big {
            continue;
        }
        let word = |offset| if little { le_u32(head, at + offset) } else { be_u32(head, at + offset) };
        let id = word(144).zip(word(148)).filter(|id| *id != (0, 0)).map(|(high, low)| format!("{high:08x}{low:08x}"));
        let found = Probe::file_system("ufs").with_uuid_text(id);
        let is_ufs2 = word(1372) == Some(0x1954_0119);
        return Ok(Some(if is_ufs2 { found.with_label(slice(head, at + 680, 32)) } else { found }));
    }
    Ok(None)
}

/// GFS2 (the kernel's `gfs2_ondisk.h`): superblock at 64 KiB, big-endian.
pub(super) fn gfs2(view: &View<'_>) -> Found {
    const AT: usize = 64 << 10;
    let head = view.head();
    let found = be_u32(head, AT) == Some(0x0116_1970) && be_u32(head, AT + 4) == Some(1);
    let probe = || Probe::file_system("gfs2").with_label(slice(head, AT + 160, 64));
    Ok(found.then(|| probe().with_uuid(array(head, AT + 256))))
}

/// Small read-only file systems whose magic stands at the very start: cramfs, romfs, UBIFS (the kernel's headers).
pub(super) fn small(view: &View<'_>) -> Found {
    let head = view.head();
    Ok(match () {
        () if has(head, 16, b"Compressed ROMFS") => Some(Probe::file_system("cramfs").with_label(slice(head, 48, 16))),
        () if has(head, 0, b"-rom1fs-") => Some(Probe::file_system("romfs").with_label(slice(head, 16, 16))),
        () if le_u32(head, 0) == Some(0x0610_1831) && head.get(20) == Some(&6) => {
            Some(Probe::file_system("ubifs").with_uuid(array(head, 108)))
        }
        () => None,
    })
}

/// What blkid knows and few machines have: Novell Storage Services, ScoutFS (its kernel module's `format.h`), and the control
/// volume of drbdmanage.
pub(super) fn rare(view: &View<'_>) -> Found {
    const SCOUTFS: usize = 64 << 10;
    let head = view.head();
    if has(head, 4096, b"SPB5") {
        return Ok(Some(Probe::file_system("nss").with_uuid(array(head, 4096 + 348))));
    }
    if le_u32(head, SCOUTFS + 4) == Some(0x103c_428b) && le_u64(head, SCOUTFS + 24) == Some(16) {
        let is_metadata = le_u64(head, SCOUTFS + 48).is_some_and(|flags| flags & 1 != 0);
        let kind = if is_metadata { "scoutfs_meta" } else { "scoutfs_data" };
        return Ok(Some(Probe::file_system(kind).with_uuid(array(head, SCOUTFS + 56))));
    }
    if has(head, 0, b"$DRBDmgr=q+") {
        let uuid = slice(head, 11, 32).and_then(|digits| String::from_utf8(digits.to_vec()).ok());
        return Ok(Some(Probe::new("drbdmanage_control_volume", Usage::Other).with_uuid_text(uuid)));
    }
    Ok(None)
}

/// Minix (the kernel's `minix_fs.h`): superblock at 1024; a magic of two bytes, so the bitmaps must fit as well.
pub(super) fn minix(view: &View<'_>) -> Found {
    Ok(is_minix(view.head().get(1024..1056).unwrap_or_default()).then(|| Probe::file_system("minix")))
}

fn is_minix(superblock: &[u8]) -> bool {
    let fields = |read16: fn(&[u8], usize) -> Option<u16>, read32: fn(&[u8], usize) -> Option<u32>| {
        let (magic, magic_3) = (read16(superblock, 16)?, read16(superblock, 24)?);
        let (inodes, zones, maps) = match (magic, magic_3) {
            (0x137f | 0x138f, _) => (u32::from(read16(superblock, 0)?), u32::from(read16(superblock, 2)?), 4),
            (0x2468 | 0x2478, _) => (u32::from(read16(superblock, 0)?), read32(superblock, 20)?, 4),
            (_, 0x4d5a) => (read32(superblock, 0)?, read32(superblock, 20)?, 6),
            _ => return None,
        };
        let inode_maps = u32::from(read16(superblock, maps)?);
        let zone_maps = u32::from(read16(superblock, maps + 2)?);
        let enough = |blocks: u32, bits: u32| blocks != 0 && u64::from(blocks) * 8192 >= u64::from(bits);
        let first_zone = u32::from(read16(superblock, maps + 4)?);
        let fits = enough(inode_maps, inodes) && enough(zone_maps, zones.saturating_sub(first_zone));
        (inodes != 0 && zones > first_zone && first_zone != 0 && fits).then_some(())
    };
    fields(le_u16, le_u32).is_some() || fields(be_u16, be_u32).is_some()
}
