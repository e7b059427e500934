//! The walk over every file: who may become another, what everybody may write, what nobody owns, SQLite files, certificates, and
//! packages of programming languages. It reads every directory and every inode, of candidates for SQLite the first bytes, of
//! programs the table of sections, certificates, and the records of packages.

use std::collections::HashSet;

use crate::error::Result;
use crate::filesystem::{FileType, Metadata};
use crate::guest::report::{DeepScan, FileFact};
use crate::guest::tree::{WalkEntry, WalkNext};
use crate::read_at::ReadAt as _;

use super::files::Files;
use super::{certificates, languages};

/// Facts of one kind kept: a tree where everything may be written says no more with its millionth file.
const FACTS_MAX: usize = 100_000;
/// What a database begins with (https://sqlite.org/fileformat.html, section 1.3).
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The smallest page is the smallest database.
const SQLITE_BYTES_MIN: u64 = 512;
/// Names that databases go by; only those are opened.
const SQLITE_SUFFIXES: [&[u8]; 6] = [b".db", b".sqlite", b".sqlite3", b".sqlite2", b".db3", b".sdb"];

/// Who may use a file is told by its mode and its owner's number, or, as on Windows, by neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    Modes,
    Other,
}

/// The module; `None` where a limit ended the walk, because half a walk would look whole.
pub(crate) fn inspect(files: &Files<'_>, rights: Rights) -> Option<DeepScan> {
    let (uids, gids) = match rights {
        Rights::Modes => (known_ids(files, "/etc/passwd"), known_ids(files, "/etc/group")),
        Rights::Other => Default::default(),
    };
    let mut scan = DeepScan::default();
    let mut seen = HashSet::new();
    let mut left_out = 0_u64;
    let walked = files.tree().walk("/", |entry| {
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error @ crate::Error::LimitReached { .. }) => return Err(error),
            Err(error) => {
                files.warn_error(&String::from_utf8_lossy(entry.path), &error);
                return Ok(WalkNext::Skip);
            }
        };
        count(&mut scan, entry, &metadata, &mut seen);
        if rights == Rights::Modes {
            left_out += judge(&mut scan, entry, &metadata, &uids, &gids);
        }
        left_out += take_in(files, entry, &mut scan.language_packages, languages::packages(entry, &metadata))?;
        left_out += take_in(files, entry, &mut scan.certificates, certificates::of_entry(entry, &metadata))?;
        if is_sqlite(files, entry, &metadata) {
            left_out += keep(&mut scan.sqlite_files, entry, &metadata);
        }
        Ok(WalkNext::Descend)
    });
    match walked {
        Ok(unreadable) => {
            for directory in unreadable {
                files.warn_error(&String::from_utf8_lossy(&directory.path), &directory.error);
            }
        }
        Err(error) => {
            files.warn_error("the walk over every file", &error);
            return None;
        }
    }
    if left_out > 0 {
        files.warn("lists of files", format!("{left_out} entries past the first {FACTS_MAX} of a list are left out"));
    }
    for list in [
        &mut scan.setuid_files,
        &mut scan.world_writable_files,
        &mut scan.world_writable_directories,
        &mut scan.unowned_files,
        &mut scan.sqlite_files,
    ] {
        list.sort_by(|a, b| a.path.cmp(&b.path));
    }
    scan.language_packages.sort_by(|a, b| (&a.install_path, &a.name).cmp(&(&b.install_path, &b.name)));
    scan.certificates.sort_by(|a, b| a.path.cmp(&b.path));
    Some(scan)
}

/// The third field of every line.
fn known_ids(files: &Files<'_>, path: &str) -> HashSet<u32> {
    let text = files.text(path).unwrap_or_default();
    text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
}

fn count(
    scan: &mut DeepScan,
    entry: &WalkEntry<'_>,
    metadata: &Metadata,
    seen: &mut HashSet<(u64, crate::filesystem::NodeId)>,
) {
    scan.entries += 1;
    match entry.file_type {
        FileType::Regular => {
            scan.files += 1;
            // Several names of one inode hold its content once. Inode numbers repeat over mounts, times rarely do.
            let is_new = metadata.links <= 1 || seen.insert((metadata.changed.seconds.cast_unsigned(), metadata.node));
            if is_new {
                scan.content_bytes = scan.content_bytes.saturating_add(metadata.size);
            }
        }
        FileType::Directory => scan.directories += 1,
        FileType::Symlink => scan.symlinks += 1,
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => {}
    }
}

fn judge(
    scan: &mut DeepScan,
    entry: &WalkEntry<'_>,
    metadata: &Metadata,
    uids: &HashSet<u32>,
    gids: &HashSet<u32>,
) -> u64 {
    let mut left_out = 0;
    match entry.file_type {
        FileType::Regular => {
            if metadata.mode & 0o6000 != 0 {
                left_out += keep(&mut scan.setuid_files, entry, metadata);
            }
            if metadata.mode & 0o002 != 0 {
                left_out += keep(&mut scan.world_writable_files, entry, metadata);
            }
        }
        FileType::Directory if metadata.mode & 0o1002 == 0o002 => {
            left_out += keep(&mut scan.world_writable_directories, entry, metadata);
        }
        _ => {}
    }
    if !uids.contains(&metadata.uid) || !gids.contains(&metadata.gid) {
        left_out += keep(&mut scan.unowned_files, entry, metadata);
    }
    left_out
}

fn is_sqlite(files: &Files<'_>, entry: &WalkEntry<'_>, metadata: &Metadata) -> bool {
    let name = entry.name();
    let is_candidate = entry.file_type == FileType::Regular
        && metadata.size >= SQLITE_BYTES_MIN
        && SQLITE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    if !is_candidate {
        return false;
    }
    let mut magic = [0_u8; 16];
    let read = entry.open().and_then(|file| match file {
        Some(file) => file.read_exact_at(&mut magic, 0),
        None => Ok(()),
    });
    if let Err(error) = read {
        files.warn_error(&String::from_utf8_lossy(entry.path), &error);
    }
    magic == *SQLITE_MAGIC
}

/// Takes in what an entry's content gave, and tells how much was left out; a file that cannot be read is told and passed over.
fn take_in<T>(files: &Files<'_>, entry: &WalkEntry<'_>, list: &mut Vec<T>, found: Result<Vec<T>>) -> Result<u64> {
    match found {
        Ok(found) => {
            let room = FACTS_MAX.saturating_sub(list.len());
            let left_out = found.len().saturating_sub(room) as u64;
            list.extend(found.into_iter().take(room));
            Ok(left_out)
        }
        Err(error) if error.is_budget_exhausted() => Err(error),
        Err(error) => {
            files.warn_error(&String::from_utf8_lossy(entry.path), &error);
            Ok(0)
        }
    }
}

/// Keeps a fact, or tells that one was left out.
fn keep(list: &mut Vec<FileFact>, entry: &WalkEntry<'_>, metadata: &Metadata) -> u64 {
    if list.len() >= FACTS_MAX {
        return 1;
    }
    list.push(FileFact {
        path: String::from_utf8_lossy(entry.path).into_owned(),
        mode: format!("{:o}", metadata.mode & 0o7777),
        uid: metadata.uid,
        gid: metadata.gid,
        size_bytes: metadata.size,
    });
    0
}
