//! Java archives: the coordinates that Maven leaves in each (`pom.properties`; a bundle of several has several), else what the
//! manifest says. Archives inside of archives are not opened. Source: PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16;
//! "JAR File Specification"; Maven Archiver's documentation.

use std::io::Read as _;

use flate2::read::DeflateDecoder;

use crate::bytes::{has, le_u16, le_u32, slice};
use crate::error::{Error, Result};
use crate::guest::report::Package;
use crate::read_at::{ReadAt, read_up_to};

use super::{package, purl};

const END_MAGIC: &[u8; 4] = b"PK\x05\x06";
const ENTRY_MAGIC: &[u8; 4] = b"PK\x01\x02";
const LOCAL_MAGIC: &[u8; 4] = b"PK\x03\x04";
const END_BYTES: usize = 22;
const ENTRY_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;
/// A comment at the end is at most this long.
const COMMENT_BYTES_MAX: usize = 0xffff;
/// The largest directory that is read: archives with a hundred thousand classes have some ten megabytes.
const DIRECTORY_BYTES_MAX: u32 = 32 << 20;
/// The largest member that is read.
const MEMBER_BYTES_MAX: u64 = 256 << 10;
/// Members that are read of one archive: the largest bundles have some hundred.
const MEMBERS_MAX: usize = 2_000;
const MANIFEST: &[u8] = b"META-INF/MANIFEST.MF";

/// The packages in an archive; none where neither Maven nor the manifest names one.
///
/// # Errors
/// [`Error::Corrupt`] for what is no archive; whatever reading meets.
pub(super) fn packages(file: &dyn ReadAt) -> Result<Vec<Package>> {
    let (directory, shift) = directory(file)?;
    let (mut found, mut manifest) = (Vec::new(), None);
    for entry in entries(&directory).filter(|entry| is_wanted(entry.name)).take(MEMBERS_MAX) {
        let text = member(file, &entry, shift)?;
        if entry.name == MANIFEST {
            manifest = of_manifest(&text);
        } else {
            found.extend(of_properties(&text));
        }
    }
    if found.is_empty() {
        found.extend(manifest);
    }
    Ok(found)
}

fn is_wanted(name: &[u8]) -> bool {
    name == MANIFEST || (name.starts_with(b"META-INF/maven/") && name.ends_with(b"/pom.properties"))
}

fn corrupt(offset: u64, reason: &str) -> Error {
    Error::corrupt("zip archive", offset, reason)
}

/// The central directory, and by how much the archive lies behind where its own offsets count from: a program may stand
/// before it.
fn directory(file: &dyn ReadAt) -> Result<(Vec<u8>, u64)> {
    let tail_at = file.len().saturating_sub(COMMENT_BYTES_MAX.saturating_add(END_BYTES) as u64);
    let tail = read_up_to(file, tail_at, COMMENT_BYTES_MAX.saturating_add(END_BYTES))?;
    let end = tail.windows(END_MAGIC.len()).rposition(|window| window == END_MAGIC);
    let end = end.and_then(|at| Some((at, slice(&tail, at, END_BYTES)?)));
    let (at, end) = end.ok_or_else(|| corrupt(tail_at, "its end record is missing"))?;
    let (bytes, offset) = (le_u32(end, 12).unwrap_or_default(), le_u32(end, 16).unwrap_or_default());
    if offset == u32::MAX || bytes > DIRECTORY_BYTES_MAX {
        return Err(Error::unsupported("zip archive with a directory of 64 bits"));
    }
    let end_at = tail_at.saturating_add(at as u64);
    let start = end_at.checked_sub(u64::from(bytes)).filter(|start| *start >= u64::from(offset));
    let start = start.ok_or_else(|| corrupt(end_at, "its directory begins before the file"))?;
    let directory = read_up_to(file, start, usize::try_from(bytes).unwrap_or_default())?;
    Ok((directory, start.saturating_sub(u64::from(offset))))
}

struct Entry<'a> {
    name: &'a [u8],
    method: u16,
    packed_bytes: u32,
    local_at: u32,
}

/// The entries up to the first that is none.
fn entries(directory: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = directory;
    std::iter::from_fn(move || {
        let half = |at| le_u16(rest, at).map(usize::from);
        if !has(rest, 0, ENTRY_MAGIC) {
            return None;
        }
        let name_bytes = half(28)?;
        let entry = Entry {
            name: slice(rest, ENTRY_BYTES, name_bytes)?,
            method: le_u16(rest, 10)?,
            packed_bytes: le_u32(rest, 20)?,
            local_at: le_u32(rest, 42)?,
        };
        rest = rest.get(ENTRY_BYTES.checked_add(name_bytes)?.checked_add(half(30)?)?.checked_add(half(32)?)?..)?;
        Some(entry)
    })
}

fn member(file: &dyn ReadAt, entry: &Entry<'_>, shift: u64) -> Result<String> {
    let at = shift.saturating_add(u64::from(entry.local_at));
    let local = read_up_to(file, at, LOCAL_BYTES)?;
    let lengths = le_u16(&local, 26).zip(le_u16(&local, 28)).filter(|_| has(&local, 0, LOCAL_MAGIC));
    let (name, extra) = lengths.ok_or_else(|| corrupt(at, "a member's header is missing"))?;
    let data_at =
        at.saturating_add(LOCAL_BYTES as u64).saturating_add(u64::from(name)).saturating_add(u64::from(extra));
    let packed_bytes = usize::try_from(u64::from(entry.packed_bytes).min(MEMBER_BYTES_MAX)).unwrap_or_default();
    let packed = read_up_to(file, data_at, packed_bytes)?;
    let mut text = Vec::new();
    match entry.method {
        0 => text = packed,
        8 => {
            let unpacked = DeflateDecoder::new(packed.as_slice()).take(MEMBER_BYTES_MAX).read_to_end(&mut text);
            unpacked.map_err(|error| corrupt(data_at, &error.to_string()))?;
        }
        method => return Err(Error::unsupported(format!("zip compression {method}"))),
    }
    Ok(crate::guest::linux::files::lossy(text))
}

fn of_properties(text: &str) -> Option<Package> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        let value = lines.find_map(|(name, value)| (name.trim() == key).then(|| value.trim()));
        value.filter(|value| !value.is_empty())
    };
    let (group, artifact, version) = (value("groupId")?, value("artifactId")?, value("version")?);
    let purl = purl("maven", group, artifact, version, &[]);
    Some(package("maven", &format!("{group}:{artifact}"), version, Some(purl)))
}

/// Lines of `Name: value` up to the first empty one; a line that begins with a space goes on with the one before.
fn of_manifest(text: &str) -> Option<Package> {
    let text = text.replace("\r\n", "\n").replace("\n ", "");
    let value = |key: &str| {
        let mut lines = text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
        let value = lines.find_map(|(name, value)| name.eq_ignore_ascii_case(key).then(|| value.trim()));
        value.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let name = value("Bundle-SymbolicName").and_then(|name| Some(name.split(';').next()?.trim().to_owned()));
    let name = name.or_else(|| value("Implementation-Title"))?;
    let version = value("Implementation-Version").or_else(|| value("Bundle-Version"))?;
    let vendor = value("Implementation-Vendor").or_else(|| value("Bundle-Vendor"));
    let license = value("Bundle-License");
    let purl = value("Implementation-Vendor-Id").map(|group| purl("maven", &group, &name, &version, &[]));
    Some(Package { vendor, license, ..package("maven", &name, &version, purl) })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// An archive of these members, behind some bytes that are none of it.
    fn archive(members: &[(&str, &str)]) -> Vec<u8> {
        let before = b"#!/bin/sh\nexec java -jar $0\n";
        let (mut file, mut directory) = (before.to_vec(), Vec::new());
        for (name, text) in members {
            let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
            packer.write_all(text.as_bytes()).unwrap();
            let packed = packer.finish().unwrap();
            let local_at = u32::try_from(file.len() - before.len()).unwrap();
            let name_bytes = u16::try_from(name.len()).unwrap().to_le_bytes();
            let packed_bytes = u32::try_from(packed.len()).unwrap().to_le_bytes();
            let mut local = [0; LOCAL_BYTES];
            local[..4].copy_from_slice(LOCAL_MAGIC);
            local[26..28].copy_from_slice(&name_bytes);
            file.extend(local);
            file.extend(name.as_bytes());
            file.extend(packed);
            let mut entry = [0; ENTRY_BYTES];
            entry[..4].copy_from_slice(ENTRY_MAGIC);
            entry[10] = 8;
            entry[20..24].copy_from_slice(&packed_bytes);
            entry[28..30].copy_from_slice(&name_bytes);
            entry[42..46].copy_from_slice(&local_at.to_le_bytes());
            directory.extend(entry);
            directory.extend(name.as_bytes());
        }
        let mut end = [0; END_BYTES];
        end[..4].copy_from_slice(END_MAGIC);
        end[12..16].copy_from_slice(&u32::try_from(directory.len()).unwrap().to_le_bytes());
        end[16..20].copy_from_slice(&u32::try_from(file.len() - before.len()).unwrap().to_le_bytes());
        [file, directory, end.to_vec()].concat()
    }

    #[test]
    fn coordinates_and_manifests_are_read() {
        let manifest =
            "Manifest-Version: 1.0\r\nBundle-SymbolicName: org.a.b;x:=y\r\nBundle-Ver\r\n sion: 2.0\r\n\r\nName: c\r\n";
        let properties = "#x\nversion=1.2.17\ngroupId=log4j\nartifactId=log4j\n";
        let file = archive(&[
            ("META-INF/MANIFEST.MF", manifest),
            ("a/B.class", "x"),
            ("META-INF/maven/log4j/log4j/pom.properties", properties),
        ]);
        let found = packages(&file).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].version.as_str()), ("log4j:log4j", "1.2.17"));
        assert_eq!(found[0].purl.as_deref(), Some("pkg:maven/log4j/log4j@1.2.17"));
        let found = packages(&archive(&[("META-INF/MANIFEST.MF", manifest)])).unwrap();
        assert_eq!((found[0].name.as_str(), found[0].version.as_str()), ("org.a.b", "2.0"));
        assert_eq!(found[0].purl, None);
        for length in 0..file.len() {
            assert!(packages(&file[..length].to_vec()).is_err(), "{length}");
        }
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 0xff;
            // A result or a typed error.
            drop(packages(&changed));
        }
    }
}
