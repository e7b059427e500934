//! Trees of a guest as a tar archive (POSIX.1-2001 pax, GNU long names) on standard output: what GNU tar run inside the
//! guest would write, save that owners are numbers. What cannot be read is told and left out.

use std::collections::HashMap;
use std::io::{self, BufWriter, Read};

use guestkit::filesystem::{ExtendedAttribute, FileType, Metadata, NodeId};
use guestkit::guest::{OpenFile, WalkNext};
use guestkit::{ReadAt as _, Tree};
use tar::{Builder, EntryType, Header};

use super::{Trouble, failed};
use crate::failure::Failure;
use crate::output::Output;

type Archive = Builder<BufWriter<io::StdoutLock<'static>>>;

/// Writes the trees at `paths`.
pub(super) fn write(output: &Output, tree: &Tree, paths: &[Vec<u8>]) -> Result<(), Failure> {
    if io::IsTerminal::is_terminal(&io::stdout()) {
        return Err(Failure::usage(
            "--tar writes an archive to standard output, which is a terminal here; redirect it",
        ));
    }
    let mut archive = Builder::new(BufWriter::with_capacity(1 << 20, io::stdout().lock()));
    let mut writer = Writer { trouble: Trouble::new(output), first_names: HashMap::new() };
    for path in paths {
        match writer.tree(&mut archive, tree, path) {
            Err(Failure::Write { source }) if source.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            done => done?,
        }
    }
    archive.into_inner().and_then(|mut out| io::Write::flush(&mut out)).map_err(|source| Failure::Write { source })?;
    writer.trouble.end()
}

struct Writer<'a> {
    trouble: Trouble<'a>,
    /// Files of several names, by what identifies them: the others become links to the first.
    first_names: HashMap<(usize, NodeId), Vec<u8>>,
}

/// What goes into the archive.
struct Item {
    path: Vec<u8>,
    metadata: Metadata,
    attributes: Vec<ExtendedAttribute>,
    target: Option<Vec<u8>>,
    contents: Option<OpenFile>,
    first_name: Option<Vec<u8>>,
}

impl Writer<'_> {
    fn tree(&mut self, archive: &mut Archive, tree: &Tree, path: &[u8]) -> Result<(), Failure> {
        let Some(metadata) = tree.symlink_metadata(path).map_err(failed)? else {
            self.trouble.tell(path, "no such file or directory");
            return Ok(());
        };
        let is_directory = metadata.file_type == FileType::Directory;
        let top = Item {
            path: path.to_vec(),
            attributes: tree.extended_attributes(path).map_err(failed)?.unwrap_or_default(),
            target: tree.read_link(path).map_err(failed)?,
            contents: if metadata.file_type == FileType::Regular { tree.open(path).map_err(failed)? } else { None },
            first_name: None,
            metadata,
        };
        self.item(archive, top)?;
        if !is_directory {
            return Ok(());
        }
        let mut stopped = None;
        let unreadable = tree.walk(path, |entry| {
            let mut look = || -> guestkit::Result<Item> {
                let metadata = entry.metadata()?;
                let is = |file_type| metadata.file_type == file_type;
                Ok(Item {
                    path: entry.path.to_vec(),
                    attributes: match entry.extended_attributes() {
                        Ok(attributes) => attributes,
                        Err(error) => {
                            self.trouble.tell(entry.path, &format!("its attributes: {}", error.with_causes()));
                            Vec::new()
                        }
                    },
                    target: is(FileType::Symlink).then(|| entry.read_link()).transpose()?,
                    contents: if is(FileType::Regular) { entry.open()? } else { None },
                    first_name: None,
                    metadata,
                })
            };
            let mut item = match look() {
                Ok(item) => item,
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Err(error) => {
                    self.trouble.tell(entry.path, &error.with_causes());
                    return Ok(WalkNext::Descend);
                }
            };
            if item.metadata.links > 1 && item.metadata.file_type != FileType::Directory {
                let first = self.first_names.entry(entry.identity()).or_insert_with(|| item.path.clone());
                item.first_name = Some(first.clone()).filter(|first| *first != item.path);
            }
            if let Err(failure) = self.item(archive, item) {
                stopped = Some(failure);
                return Ok(WalkNext::Stop);
            }
            Ok(WalkNext::Descend)
        });
        if let Some(failure) = stopped {
            return Err(failure);
        }
        self.trouble.unreadable(unreadable.map_err(failed)?);
        Ok(())
    }

    fn item(&mut self, archive: &mut Archive, item: Item) -> Result<(), Failure> {
        let Item { path, metadata, attributes, target, contents, first_name } = item;
        let entry_type = match (metadata.file_type, &first_name) {
            (_, Some(_)) => EntryType::Link,
            (FileType::Regular, None) => EntryType::Regular,
            (FileType::Directory, None) => EntryType::Directory,
            (FileType::Symlink, None) => EntryType::Symlink,
            (FileType::CharacterDevice, None) => EntryType::Char,
            (FileType::BlockDevice, None) => EntryType::Block,
            (FileType::Fifo, None) => EntryType::Fifo,
            // tar(5): no type stands for a socket.
            (FileType::Socket, None) => return Ok(()),
        };
        let wrote = |result: io::Result<()>| result.map_err(|source| Failure::Write { source });
        wrote(archive.append_pax_extensions(
            pax(&metadata, &attributes).iter().map(|(name, value)| (name.as_str(), value.as_slice())),
        ))?;
        let mut header = Header::new_gnu();
        header.set_entry_type(entry_type);
        header.set_mode(u32::from(metadata.mode));
        header.set_uid(metadata.uid.into());
        header.set_gid(metadata.gid.into());
        header.set_mtime(u64::try_from(metadata.modified.seconds).unwrap_or(0));
        if let Some((major, minor)) = metadata.device {
            wrote(header.set_device_major(major).and_then(|()| header.set_device_minor(minor)))?;
        }
        let name = relative(&path, metadata.file_type == FileType::Directory);
        let link = first_name.as_deref().map(|first| relative(first, false)).or(target);
        if let Some(link) = link {
            header.set_size(0);
            return wrote(archive.append_link(&mut header, as_path(&name), as_path(&link)));
        }
        let Some(file) = contents else {
            header.set_size(0);
            return wrote(archive.append_data(&mut header, as_path(&name), io::empty()));
        };
        header.set_size(file.len());
        let mut reader = Contents { file: &file, at: 0, failed: None };
        let appended = archive.append_data(&mut header, as_path(&name), &mut reader);
        if let Some(why) = reader.failed {
            // The header promised its size, so zeros stand where nothing could be read: that must not pass unseen.
            self.trouble.tell(&path, &format!("{why}; zeros stand in its place in the archive"));
        }
        wrote(appended)
    }
}

/// What a plain header cannot tell: parts of a second, instants before 1970, attributes (as star and GNU tar name them).
fn pax(metadata: &Metadata, attributes: &[ExtendedAttribute]) -> Vec<(String, Vec<u8>)> {
    let mut records = Vec::new();
    let time = metadata.modified;
    if time.nanoseconds != 0 || time.seconds < 0 {
        records.push(("mtime".to_owned(), decimal(time.seconds, time.nanoseconds).into_bytes()));
    }
    for attribute in attributes {
        // A record's key ends at the first `=`.
        if let Some(name) = std::str::from_utf8(&attribute.name).ok().filter(|name| !name.contains('=')) {
            records.push((format!("SCHILY.xattr.{name}"), attribute.value.clone()));
        }
    }
    records
}

/// Seconds with their parts: before 1970 the parts count towards it.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds > 0 {
        let whole = seconds.saturating_add(1);
        let sign = if whole == 0 { "-" } else { "" };
        return format!("{sign}{whole}.{:09}", 1_000_000_000_u32.saturating_sub(nanoseconds));
    }
    format!("{seconds}.{nanoseconds:09}")
}

/// A name that extracts beneath the folder where it is extracted.
fn relative(path: &[u8], is_directory: bool) -> Vec<u8> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"." | b".."));
    let mut relative = names.collect::<Vec<_>>().join(&b'/');
    if relative.is_empty() {
        relative.push(b'.');
    }
    if is_directory {
        relative.push(b'/');
    }
    relative
}

fn as_path(bytes: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt as _;
    std::path::Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// A file's contents; zeros from where they cannot be read.
struct Contents<'a> {
    file: &'a OpenFile,
    at: u64,
    failed: Option<String>,
}

impl Read for Contents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.file.len().saturating_sub(self.at);
        let count = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..count];
        if self.failed.is_none() {
            self.failed = self.file.read_exact_at(piece, self.at).err().map(|error| error.with_causes());
        }
        if self.failed.is_some() {
            piece.fill(0);
        }
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_beneath_and_instants_before_1970_are_whole() {
        assert_eq!(relative(b"/etc/../x//y", false), b"etc/x/y");
        assert_eq!(relative(b"/", true), b"./");
        assert_eq!(decimal(5, 10), "5.000000010");
        assert_eq!(decimal(-1, 750_000_000), "-0.250000000");
        assert_eq!(decimal(-2, 500_000_000), "-1.500000000");
        assert_eq!(decimal(-2, 0), "-2.000000000");
    }
}
