//! What a file is beside a file: reparse points, the extended attributes that WSL keeps POSIX's metadata in, and the
//! system files that Interix keeps links and devices in.
//!
//! Reparse points: \[MS-FSCC\], section 2.1.2; extended attributes: section 2.4.15; WSL's: Microsoft's "File permissions
//! for WSL". Interix's files are described where ntfs-3g reads and writes them (`include/ntfs-3g/layout.h`, `INTX_FILE`).

use super::names;
use super::wof::Wof;
use crate::bytes::{has, le_u16, le_u32, le_u64, slice};
use crate::error::{Error, Result};
use crate::filesystem::FileType;

const MOUNT_POINT: u32 = 0xa000_0003;
const SYMLINK: u32 = 0xa000_000c;
const WOF: u32 = 0x8000_0017;
const DEDUPLICATION: u32 = 0x8000_0013;
const LX_SYMLINK: u32 = 0xa000_001d;
const AF_UNIX: u32 = 0x8000_0023;
const LX_FIFO: u32 = 0x8000_0024;
const LX_CHARACTER: u32 = 0x8000_0025;
const LX_BLOCK: u32 = 0x8000_0026;
/// The tag's bit for a point that stands for another file (`IsReparseTagNameSurrogate`).
const SURROGATE: u32 = 0x2000_0000;
/// The symbolic link's flag for a target that begins where the link lies (`SYMLINK_FLAG_RELATIVE`).
const RELATIVE: u32 = 1;

/// The longest value of a reparse point (`MAXIMUM_REPARSE_DATA_BUFFER_SIZE`).
pub(super) const BYTES_MAX: u64 = 16 << 10;

/// The folder that ntfs-3g sends links to which leave the volume; there is none as a rule, so that they lead nowhere and
/// still tell where to.
pub(super) const ELSEWHERE: &[u8] = b"/.NTFS-3G/";

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file that holds its own contents.
    Regular,
    /// A regular file whose contents are compressed in a stream of it.
    Wof(Wof),
    /// A directory.
    Directory,
    /// A symbolic link or a junction.
    Link(Target),
    /// A device, a FIFO or a socket.
    Special { file_type: FileType, device: Option<(u32, u32)> },
    /// A file or directory whose contents something outside of the volume has, by its name.
    Elsewhere { file_type: FileType, what: String },
}

impl Kind {
    pub(super) const fn file_type(&self) -> FileType {
        match self {
            Self::Regular | Self::Wof(_) => FileType::Regular,
            Self::Directory => FileType::Directory,
            Self::Link(_) => FileType::Symlink,
            Self::Special { file_type, .. } | Self::Elsewhere { file_type, .. } => *file_type,
        }
    }
}

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A path as it stands.
    Posix(Vec<u8>),
    /// A path below the root of the drive of this letter, names between slashes.
    Drive { letter: u8, path: Vec<u8> },
}

/// Parses the value of a reparse point; `device` is what an extended attribute tells of a device's number.
///
/// # Errors
/// [`Error::Corrupt`] for a value that does not hold what its tag says.
pub(super) fn parse(value: &[u8], is_directory: bool, device: Option<(u32, u32)>, at: u64) -> Result<Kind> {
    let corrupt = || Error::corrupt("NTFS reparse point", at, "it does not hold what its tag says");
    let tag = le_u32(value, 0).ok_or_else(corrupt)?;
    let length = usize::from(le_u16(value, 4).ok_or_else(corrupt)?);
    let data = slice(value, 8, length).ok_or_else(corrupt)?;
    let special = |file_type, device| Ok(Kind::Special { file_type, device });
    let file_type = if is_directory { FileType::Directory } else { FileType::Regular };
    match tag {
        MOUNT_POINT | SYMLINK => windows_link(data, tag).map(Kind::Link).ok_or_else(corrupt),
        LX_SYMLINK => match (le_u32(data, 0), data.get(4..)) {
            (Some(2), Some(target)) => Ok(Kind::Link(Target::Posix(target.to_vec()))),
            _ => Ok(Kind::Elsewhere { file_type, what: "a WSL symbolic link of an unknown version".into() }),
        },
        AF_UNIX => special(FileType::Socket, None),
        LX_FIFO => special(FileType::Fifo, None),
        LX_CHARACTER => special(FileType::CharacterDevice, device),
        LX_BLOCK => special(FileType::BlockDevice, device),
        WOF => match Wof::parse(data, at) {
            Ok(wof) => Ok(Kind::Wof(wof)),
            Err(Error::Unsupported { what }) => Ok(Kind::Elsewhere { file_type, what }),
            Err(other) => Err(other),
        },
        // What stands in the directory itself stays readable, as for the folders of a cloud's synchronisation.
        _ if is_directory && tag & SURROGATE == 0 => Ok(Kind::Directory),
        DEDUPLICATION => Ok(Kind::Elsewhere { file_type, what: "a file whose contents are deduplicated".into() }),
        _ => Ok(Kind::Elsewhere { file_type, what: format!("the contents of a reparse point of tag {tag:#010x}") }),
    }
}

/// The substitute name of a symbolic link or a junction; the print name beside it is for people.
fn windows_link(data: &[u8], tag: u32) -> Option<Target> {
    let (names_at, flags) = if tag == SYMLINK { (12, le_u32(data, 8)?) } else { (8, 0) };
    let name = |start, length| {
        let name = slice(data, names_at + usize::from(le_u16(data, start)?), usize::from(le_u16(data, length)?))?;
        let slashed = names::units(name).into_iter().map(|unit| if unit == 0x5c { 0x2f } else { unit });
        // Junctions can carry a zero at their end.
        Some(names::to_bytes(slashed.take_while(|unit| *unit != 0)))
    };
    Some(translate(&name(0, 2)?, &name(4, 6)?, flags & RELATIVE != 0))
}

/// A path of Windows, its names between slashes by now, as a path of the guest. `/??/C:/x` lies below a drive, `/x` below
/// the root of this one; other objects of the NT namespace, such as volumes by GUID and shares, lie [`ELSEWHERE`].
fn translate(path: &[u8], printed: &[u8], is_relative: bool) -> Target {
    let posix = |path: &[u8]| Target::Posix(path.to_vec());
    let Some(object) = path.strip_prefix(b"/??/").filter(|_| !is_relative) else { return posix(path) };
    match object {
        [letter, b':'] if letter.is_ascii_alphabetic() => Target::Drive { letter: *letter, path: b"/".to_vec() },
        [letter, b':', rest @ ..] if letter.is_ascii_alphabetic() && rest.starts_with(b"/") => {
            Target::Drive { letter: *letter, path: rest.to_vec() }
        }
        // Linux's ntfs3 puts the prefix before whatever a link leads to, and prints that; Windows prints no such objects.
        _ if object == printed => posix(object),
        _ => Target::Posix([ELSEWHERE, object.strip_suffix(b"/").unwrap_or(object)].concat()),
    }
}

/// What an Interix system file is: nothing at all is a FIFO, one byte a socket, and a magic number begins a link or a
/// device. `None` for any other file.
pub(super) fn interix(contents: &[u8], is_hidden: bool) -> Option<Kind> {
    let special = |file_type, device| Some(Kind::Special { file_type, device });
    match contents.len() {
        0 if !is_hidden => return special(FileType::Fifo, None),
        1 if !is_hidden => return special(FileType::Socket, None),
        _ => {}
    }
    if has(contents, 0, b"IntxLNK\x01") {
        let target = names::units(contents.get(8..)?);
        return Some(Kind::Link(Target::Posix(names::to_bytes(target.into_iter().take_while(|unit| *unit != 0)))));
    }
    let number = |at| u32::try_from(le_u64(contents, at)?).ok();
    let device = number(8).zip(number(16));
    match contents.len() {
        24 if has(contents, 0, b"IntxCHR\0") => special(FileType::CharacterDevice, device),
        24 if has(contents, 0, b"IntxBLK\0") => special(FileType::BlockDevice, device),
        _ => None,
    }
}

/// The longest contents of an Interix file: a link to the longest path.
pub(super) const INTERIX_BYTES_MAX: u64 = 8 + 2 * 4096;

/// The extended attributes in an `$EA` (`FILE_FULL_EA_INFORMATION`): names and values.
///
/// # Errors
/// [`Error::Corrupt`] for one that leaves the list.
pub(super) fn extended_attributes<'a>(list: &'a [u8], at: u64) -> Result<Vec<(&'a [u8], &'a [u8])>> {
    let corrupt = || Error::corrupt("NTFS extended attributes", at, "an attribute leaves the list");
    let parse = |entry: &'a [u8]| {
        let (name_length, value_length) = (usize::from(*entry.get(5)?), usize::from(le_u16(entry, 6)?));
        // A zero stands behind the name.
        Some((slice(entry, 8, name_length)?, slice(entry, 9 + name_length, value_length)?))
    };
    let mut found = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let next = le_u32(rest, 0).and_then(|next| usize::try_from(next).ok()).ok_or_else(corrupt)?;
        let entry = match next {
            0 => rest,
            next => rest.get(..next).ok_or_else(corrupt)?,
        };
        found.push(parse(entry).ok_or_else(corrupt)?);
        rest = if next == 0 { &[] } else { rest.get(next..).unwrap_or_default() };
    }
    Ok(found)
}

/// POSIX's metadata as WSL keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Posix {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mode: Option<u32>,
    pub(super) device: Option<(u32, u32)>,
}

impl Posix {
    pub(super) fn parse(attributes: &[(&[u8], &[u8])]) -> Self {
        let value = |name: &[u8]| attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        let number = |name| value(name).and_then(|value| le_u32(value, 0));
        Self {
            uid: number(b"$LXUID"),
            gid: number(b"$LXGID"),
            mode: number(b"$LXMOD"),
            device: value(b"$LXDEV").and_then(|value| Some((le_u32(value, 0)?, le_u32(value, 4)?))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(tag: u32, data: &[u8]) -> Vec<u8> {
        let mut value = tag.to_le_bytes().to_vec();
        value.extend((data.len() as u16).to_le_bytes());
        value.extend([0, 0]);
        value.extend(data);
        value
    }

    fn link(tag: u32, target: &str, printed: &str, flags: u32) -> Kind {
        let bytes = |name: &str| name.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let (name, printed) = (bytes(target), bytes(printed));
        let (length, start) = (name.len() as u16, printed.len() as u16);
        // The print name first, as Windows writes it for symbolic links.
        let mut data: Vec<u8> = [start, length, 0, start].iter().flat_map(|field: &u16| field.to_le_bytes()).collect();
        if tag == SYMLINK {
            data.extend(flags.to_le_bytes());
        }
        data.extend(&printed);
        data.extend(&name);
        parse(&point(tag, &data), true, None, 0).unwrap()
    }

    #[test]
    fn targets_become_paths_of_the_guest() {
        let posix = |path: &str| Kind::Link(Target::Posix(path.into()));
        let drive = |letter, path: &str| Kind::Link(Target::Drive { letter, path: path.into() });
        for (tag, target, flags, expected) in [
            (MOUNT_POINT, r"\??\C:\Users\All Users", 0, drive(b'C', "/Users/All Users")),
            (MOUNT_POINT, r"\??\d:\", 0, drive(b'd', "/")),
            (MOUNT_POINT, "\\??\\C:\\ends\0", 0, drive(b'C', "/ends")),
            (MOUNT_POINT, r"\??\Volume{6f462fc1}\", 0, posix("/.NTFS-3G/Volume{6f462fc1}")),
            (SYMLINK, r"\??\C:\ProgramData", 0, drive(b'C', "/ProgramData")),
            (SYMLINK, r"\??\C:", 0, drive(b'C', "/")),
            (SYMLINK, r"\??\UNC\server\share", 0, posix("/.NTFS-3G/UNC/server/share")),
            (SYMLINK, r"..\ü\file", 1, posix("../ü/file")),
            (SYMLINK, r"\from\root", 1, posix("/from/root")),
        ] {
            assert_eq!(link(tag, target, "for people", flags), expected, "{target}");
        }
        for target in ["/tmp/file", "some/file"] {
            assert_eq!(link(SYMLINK, &format!(r"\??\{target}"), target, 0), posix(target), "as ntfs3 writes them");
        }
        let data = [2, 0, 0, 0, b'/', b'e', b't', b'c'];
        assert_eq!(parse(&point(LX_SYMLINK, &data), false, None, 0).unwrap(), posix("/etc"));
    }

    #[test]
    fn tags_say_what_a_file_is() {
        let of = |tag, data: &[u8], is_directory| parse(&point(tag, data), is_directory, Some((8, 1)), 0);
        let special = |file_type, device| Kind::Special { file_type, device };
        assert_eq!(of(AF_UNIX, &[], false).unwrap(), special(FileType::Socket, None));
        assert_eq!(of(LX_FIFO, &[], false).unwrap(), special(FileType::Fifo, None));
        assert_eq!(of(LX_BLOCK, &[], false).unwrap(), special(FileType::BlockDevice, Some((8, 1))));
        assert_eq!(of(0x9000_001a, &[], true).unwrap(), Kind::Directory, "a cloud's folder");
        for (tag, is_directory) in [(0x9000_001a, false), (DEDUPLICATION, false), (0xa000_0019, true)] {
            let kind = of(tag, &[], is_directory).unwrap();
            assert!(matches!(kind, Kind::Elsewhere { .. }), "{tag:x}: {kind:?}");
        }
        for (tag, data) in [(SYMLINK, &[0; 11][..]), (MOUNT_POINT, &[0, 0, 9, 0, 0, 0, 0, 0]), (WOF, &[1, 0, 0, 0])] {
            assert!(matches!(of(tag, data, false), Err(Error::Corrupt { .. })), "{tag:x}");
        }
        let mut short = point(AF_UNIX, &[0; 4]);
        short.pop();
        assert!(parse(&short, false, None, 0).is_err());
    }

    #[test]
    fn interix_files_are_what_they_hold() {
        let special = |file_type, device| Some(Kind::Special { file_type, device });
        assert_eq!(interix(&[], false), special(FileType::Fifo, None));
        assert_eq!(interix(&[], true), None);
        assert_eq!(interix(&[0], false), special(FileType::Socket, None));
        assert_eq!(interix(b"IntxLNK\x01/\0a\0", true), Some(Kind::Link(Target::Posix(b"/a".to_vec()))));
        let mut device = b"IntxBLK\0".to_vec();
        device.extend([8_u64, 17].iter().flat_map(|number| number.to_le_bytes()));
        assert_eq!(interix(&device, false), special(FileType::BlockDevice, Some((8, 17))));
        device.push(0);
        assert_eq!(interix(&device, false), None);
    }

    #[test]
    fn extended_attributes_follow_one_another() {
        let mut list = vec![20, 0, 0, 0, 0, 6, 4, 0];
        list.extend(b"$LXUID\0\xe8\x03\0\0\0");
        list.extend([0, 0, 0, 0, 0, 1, 2, 0, b'x', 0, 7, 8]);
        let found = extended_attributes(&list, 0).unwrap();
        assert_eq!(found, [(&b"$LXUID"[..], &[0xe8, 3, 0, 0][..]), (b"x", &[7, 8])]);
        assert_eq!(Posix::parse(&found), Posix { uid: Some(1000), ..Posix::default() });
        for (at, value) in [(0, 60), (0, 3), (5, 9), (26, 3)] {
            let mut broken = list.clone();
            broken[at] = value;
            assert!(extended_attributes(&broken, 0).is_err(), "{at}");
        }
    }
}
