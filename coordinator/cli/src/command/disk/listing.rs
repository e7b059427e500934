//! Files as `ls -l` and `stat` tell them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use guestkit::filesystem::{ExtendedAttribute, FileType, Metadata, Timestamp};
use guestkit::guest::WalkEntry;
use guestkit::{Error, Tree};
use serde_json::{Map, Value, json};

use super::{Lines, lossy};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{Pairs, Sheet, Text};

/// How much is told of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    Name,
    /// What stands in a line of `ls -l`.
    Line,
    All,
}

/// A file, and what is known about it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    file_type: FileType,
    known: Option<Result<Known, String>>,
}

#[derive(Debug)]
struct Known {
    metadata: Metadata,
    target: Option<Vec<u8>>,
    /// What keeps them from being told (one too large to be an attribute) is told in their place.
    attributes: Result<Vec<ExtendedAttribute>, String>,
}

impl Entry {
    /// What a walk came by, and as much of what its node tells.
    pub(super) fn of_walk(entry: &WalkEntry<'_>, detail: Detail) -> Self {
        let look = || -> Result<Known, Error> {
            let metadata = entry.metadata()?;
            let target = (metadata.file_type == FileType::Symlink).then(|| entry.read_link()).transpose()?;
            let attributes = match detail {
                Detail::All => entry.extended_attributes().map_err(|error| error.with_causes()),
                Detail::Line | Detail::Name => Ok(Vec::new()),
            };
            Ok(Known { metadata, target, attributes })
        };
        let known = (detail != Detail::Name).then(|| look().map_err(|error| error.with_causes()));
        Self { path: entry.path.to_vec(), file_type: entry.file_type, known }
    }

    /// What lies at `path`, a link not followed.
    pub(super) fn of_path(tree: &Tree, path: &[u8]) -> Result<Option<Self>, Error> {
        let Some(metadata) = tree.symlink_metadata(path)? else { return Ok(None) };
        let target = tree.read_link(path)?;
        let attributes = tree.extended_attributes(path).map(Option::unwrap_or_default);
        let attributes = attributes.map_err(|error| error.with_causes());
        let file_type = metadata.file_type;
        Ok(Some(Self { path: path.to_vec(), file_type, known: Some(Ok(Known { metadata, target, attributes })) }))
    }

    fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// As a program reads it.
    pub(super) fn document(&self) -> Value {
        let mut document = Map::new();
        let mut put = |name: &str, value: Value| drop(document.insert(name.to_owned(), value));
        put("path", lossy(&self.path).into());
        if std::str::from_utf8(&self.path).is_err() {
            put("path_base64", STANDARD.encode(&self.path).into());
        }
        put("type", type_name(self.file_type).into());
        match &self.known {
            None => {}
            Some(Err(why)) => put("error", why.as_str().into()),
            Some(Ok(Known { metadata, target, attributes })) => {
                put("inode", metadata.node.0.into());
                put("mode", format!("{:04o}", metadata.mode).into());
                put("uid", metadata.uid.into());
                put("gid", metadata.gid.into());
                put("links", metadata.links.into());
                put("size", metadata.size.into());
                if let Some((major, minor)) = metadata.device {
                    put("device", json!({ "major": major, "minor": minor }));
                }
                put("modified", instant(metadata.modified).into());
                put("changed", instant(metadata.changed).into());
                if let Some(accessed) = metadata.accessed {
                    put("accessed", instant(accessed).into());
                }
                if let Some(created) = metadata.created {
                    put("created", instant(created).into());
                }
                if let Some(target) = target {
                    put("target", lossy(target).into());
                }
                match attributes {
                    Ok(attributes) if attributes.is_empty() => {}
                    Ok(attributes) => {
                        let all = attributes.iter().map(|one| (lossy(&one.name), attribute_text(&one.value).into()));
                        put("extended_attributes", Value::Object(all.collect()));
                    }
                    Err(why) => put("extended_attributes_error", why.as_str().into()),
                }
            }
        }
        Value::Object(document)
    }

    /// A line as `ls -l` writes it, with an instant that sorts.
    pub(super) fn line(&self, name: &[u8]) -> Vec<u8> {
        let mut line = match &self.known {
            None => String::new(),
            Some(Err(why)) => format!("{}?????????  {why}  ", letter(self.file_type)),
            Some(Ok(Known { metadata, .. })) => {
                let size = match metadata.device {
                    Some((major, minor)) => format!("{major}, {minor}"),
                    None => metadata.size.to_string(),
                };
                format!(
                    "{} {:>3} {:>5} {:>5} {size:>12} {} ",
                    mode_text(metadata),
                    metadata.links,
                    metadata.uid,
                    metadata.gid,
                    seconds(metadata.modified)
                )
            }
        }
        .into_bytes();
        line.extend_from_slice(name);
        if let Some(Ok(Known { target: Some(target), .. })) = &self.known {
            line.extend_from_slice(b" -> ");
            line.extend_from_slice(target);
        }
        line
    }
}

/// Prints a listing.
pub(super) fn print(output: &Output, entries: &[Entry], long: bool, with_paths: bool) -> Result<(), Failure> {
    if !output.is_plain() {
        let documents = || Value::Array(entries.iter().map(Entry::document).collect());
        return output.document(documents, Sheet::default);
    }
    let mut lines = Lines::new();
    for entry in entries {
        let name = if with_paths { &entry.path } else { entry.name() };
        if long { lines.line(&entry.line(name))? } else { lines.line(name)? }
    }
    lines.end()
}

/// Prints all that is known of each.
pub(super) fn print_stat(output: &Output, entries: &[Entry]) -> Result<(), Failure> {
    let documents = || Value::Array(entries.iter().map(Entry::document).collect());
    let sheet = || {
        entries.iter().fold(Sheet::default(), |sheet, entry| {
            let pairs = Pairs::default().put("Path", lossy(&entry.path));
            let pairs = match &entry.known {
                Some(Ok(known)) => known_pairs(pairs, known),
                _ => pairs,
            };
            sheet.pairs(pairs)
        })
    };
    output.document(documents, sheet)
}

fn known_pairs(pairs: Pairs, Known { metadata, target, attributes }: &Known) -> Pairs {
    let mut pairs = pairs
        .put("Type", type_name(metadata.file_type))
        .put("Mode", format!("{:04o} {}", metadata.mode, mode_text(metadata)))
        .put("Owner", format!("{}:{}", metadata.uid, metadata.gid))
        .put("Size", metadata.size.to_string())
        .put("Inode", metadata.node.0.to_string())
        .put("Links", metadata.links.to_string())
        .put("Modified", instant(metadata.modified))
        .put("Changed", instant(metadata.changed));
    if let Some((major, minor)) = metadata.device {
        pairs = pairs.put("Device", format!("{major}, {minor}"));
    }
    if let Some(accessed) = metadata.accessed {
        pairs = pairs.put("Accessed", instant(accessed));
    }
    if let Some(created) = metadata.created {
        pairs = pairs.put("Created", instant(created));
    }
    if let Some(target) = target {
        pairs = pairs.put("Target", lossy(target));
    }
    match attributes {
        Ok(attributes) if attributes.is_empty() => pairs,
        Ok(attributes) => {
            let one = |one: &ExtendedAttribute| format!("{}={}", lossy(&one.name), attribute_text(&one.value));
            pairs.put("Attributes", Text::new(attributes.iter().map(one).collect::<Vec<_>>().join(", ")))
        }
        Err(why) => pairs.put("Attributes", Text::new(why)),
    }
}

/// A value as getfattr(1) writes it: text where it is text, else base64 behind `0s`.
fn attribute_text(value: &[u8]) -> String {
    let text = std::str::from_utf8(value.strip_suffix(b"\0").unwrap_or(value)).ok();
    match text.filter(|text| !text.chars().any(char::is_control)) {
        Some(text) => text.to_owned(),
        None => format!("0s{}", STANDARD.encode(value)),
    }
}

pub(super) const fn type_name(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Regular => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
    }
}

const fn letter(file_type: FileType) -> char {
    match file_type {
        FileType::Regular => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
    }
}

/// `drwxr-xr-x`, as POSIX has ls(1) write it.
fn mode_text(metadata: &Metadata) -> String {
    let mode = metadata.mode;
    let mut text = String::from(letter(metadata.file_type));
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// RFC 3339, with nanoseconds where there are any; a number of seconds where no calendar has the instant.
fn instant(time: Timestamp) -> String {
    match jiff::Timestamp::new(time.seconds, i32::try_from(time.nanoseconds).unwrap_or(0)) {
        Ok(instant) => instant.to_string(),
        Err(_) => time.seconds.to_string(),
    }
}

fn seconds(time: Timestamp) -> String {
    let mut text = instant(Timestamp { nanoseconds: 0, ..time });
    if text.len() < 20 {
        // Writing to a String cannot fail.
        let _ = write!(text, "{:width$}", "", width = 20 - text.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use guestkit::filesystem::NodeId;

    use super::*;

    #[test]
    fn modes_are_written_as_by_ls() {
        let text = |file_type, mode| {
            mode_text(&Metadata {
                node: NodeId(1),
                file_type,
                mode,
                uid: 0,
                gid: 0,
                size: 0,
                links: 1,
                device: None,
                accessed: None,
                modified: Timestamp::default(),
                changed: Timestamp::default(),
                created: None,
            })
        };
        assert_eq!(text(FileType::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(text(FileType::Regular, 0o4755), "-rwsr-xr-x");
        assert_eq!(text(FileType::Regular, 0o6640), "-rwSr-S---");
        assert_eq!(text(FileType::BlockDevice, 0o1660), "brw-rw---T");
    }

    #[test]
    fn values_are_written_as_by_getfattr() {
        assert_eq!(attribute_text(b"system_u:object_r:etc_t:s0\0"), "system_u:object_r:etc_t:s0");
        assert_eq!(attribute_text(&[1, 0, 0, 2]), "0sAQAAAg==");
    }
}
