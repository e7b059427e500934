//! The text that says what a VMDK is made of: Virtual Disk Format 5.0, "The Descriptor File".

use std::borrow::Cow;

use crate::error::{Error, Result};

/// Bytes of a descriptor; QEMU reads as many. A disk of 62 TiB in extents of 2 GiB takes 2 MB, one of 2 TiB 60 KB.
pub(super) const DESCRIPTOR_BYTES_MAX: u64 = 4 << 20;
/// Extents of one disk: 62 TiB in extents of 2 GiB are twice as many files as a process may open.
const EXTENTS_MAX: usize = 32 << 10;
/// The content id that stands for "no parent".
const NO_PARENT: u32 = u32::MAX;

/// What the descriptor says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// `createType`, such as `monolithicSparse`.
    pub(super) create_type: String,
    /// `CID`: changes whenever the contents were changed.
    pub(super) content_id: Option<u32>,
    pub(super) parent: Option<Parent>,
    /// In the order of the disk, those of no length left out.
    pub(super) extents: Vec<Extent>,
}

/// What a delta disk rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parent {
    /// `parentCID`: the content id of the parent when the delta was begun.
    pub(super) content_id: u32,
    /// `parentFileNameHint`.
    pub(super) name: Vec<u8>,
}

/// A stretch of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) sectors: u64,
    pub(super) kind: ExtentKind,
    /// The file that holds it; nothing for zeros.
    pub(super) name: Vec<u8>,
    /// Where it begins in that file, in sectors; for flat extents only.
    pub(super) offset: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExtentKind {
    /// FLAT and VMFS: the bytes as they are.
    Flat,
    /// SPARSE, VMFSSPARSE and SESPARSE: what the file's own header says.
    Sparse,
    /// ZERO.
    Zero,
    /// A physical disk, or what may not be read, by its words in the descriptor.
    Other(String),
}

fn corrupt(line: usize, reason: impl Into<String>) -> Error {
    Error::corrupt("vmdk descriptor", 0, format!("line {line}: {}", reason.into()))
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

impl Descriptor {
    /// Reads the descriptor in `bytes`, which end with it or with zeros.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the line's number; [`Error::Encrypted`] where VMware encrypted the disk.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut found = Self::default();
        let mut fields = Fields::default();
        for (index, line) in bytes.split(|byte| matches!(byte, b'\n' | b'\r')).enumerate() {
            let (number, line) = (index.saturating_add(1), line.trim_ascii());
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if is_extent(line) {
                let extent = parse_extent(number, line)?;
                if found.extents.len() >= EXTENTS_MAX {
                    return Err(corrupt(number, format!("there are more than {EXTENTS_MAX} extents")));
                }
                found.extents.extend(Some(extent).filter(|extent| extent.sectors > 0));
            } else if let Some((name, value)) = split_once(line, b'=') {
                fields.take(number, name.trim_ascii(), unquoted(value.trim_ascii()))?;
            }
        }
        for extent in &mut found.extents {
            extent.name = fields.decode(&extent.name).into_owned();
        }
        found.parent = fields.parent()?;
        found.content_id = fields.content_id;
        found.create_type = fields.create_type.unwrap_or_default();
        Ok(found)
    }
}

/// The fields a reader needs; the first of each name counts.
#[derive(Debug, Default)]
struct Fields {
    create_type: Option<String>,
    content_id: Option<u32>,
    parent_id: Option<u32>,
    parent_name: Option<Vec<u8>>,
    windows_encoding: bool,
}

impl Fields {
    fn take(&mut self, line: usize, name: &[u8], value: &[u8]) -> Result<()> {
        let number = || {
            let digits = std::str::from_utf8(value).ok();
            let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            number.ok_or_else(|| corrupt(line, format!("{} is no content id", text(value))))
        };
        let name = name.to_ascii_lowercase();
        match name.as_slice() {
            b"createtype" if self.create_type.is_none() => self.create_type = Some(text(value)),
            b"cid" if self.content_id.is_none() => self.content_id = Some(number()?),
            b"parentcid" if self.parent_id.is_none() => self.parent_id = Some(number()?),
            b"parentfilenamehint" if self.parent_name.is_none() && !value.is_empty() => {
                self.parent_name = Some(value.to_vec());
            }
            b"encoding" => self.windows_encoding = value.eq_ignore_ascii_case(b"windows-1252"),
            // Workstation encrypts the descriptor as well; ESXi names the filter that encrypted the extents.
            b"encryption.keysafe" => return Err(Error::Encrypted { what: "vmdk image (VMware key safe)".into() }),
            b"ddb.iofilters" if value.windows(11).any(|word| word.eq_ignore_ascii_case(b"vmwarevmcry")) => {
                return Err(Error::Encrypted { what: "vmdk image (vSphere VM encryption)".into() });
            }
            _ => {}
        }
        Ok(())
    }

    fn parent(&mut self) -> Result<Option<Parent>> {
        let contradiction = |reason: &str| Err(Error::corrupt("vmdk descriptor", 0, reason));
        match (self.parent_id, self.parent_name.take()) {
            (None | Some(NO_PARENT), None) => Ok(None),
            (Some(content_id), Some(name)) if content_id != NO_PARENT => {
                Ok(Some(Parent { content_id, name: self.decode(&name).into_owned() }))
            }
            (_, None) => contradiction("its parentCID says that it has a parent, which it does not name"),
            (_, Some(_)) => contradiction("it names a parent, and its parentCID says that there is none"),
        }
    }

    /// File names as they are on this host: UTF-8, also where the descriptor was written on Windows.
    fn decode<'a>(&self, name: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.windows_encoding || name.is_ascii() || std::str::from_utf8(name).is_ok() {
            return Cow::Borrowed(name);
        }
        Cow::Owned(name.iter().map(|byte| windows_1252(*byte)).collect::<String>().into_bytes())
    }
}

/// Windows code page 1252: ISO 8859-1 but for the bytes 0x80 to 0x9f, five of which stand for nothing.
fn windows_1252(byte: u8) -> char {
    const UPPER: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    usize::from(byte).checked_sub(0x80).and_then(|index| UPPER.get(index)).copied().unwrap_or(char::from(byte))
}

fn is_extent(line: &[u8]) -> bool {
    let (word, _) = next_word(line);
    [b"RW".as_slice(), b"RDONLY", b"NOACCESS"].iter().any(|access| word.eq_ignore_ascii_case(access))
}

/// "Extent Descriptions": access, size in sectors, type, then for all but ZERO a quoted name, and for some an offset.
fn parse_extent(line_number: usize, line: &[u8]) -> Result<Extent> {
    let (access, rest) = next_word(line);
    let (size, rest) = next_word(rest);
    let (kind, rest) = next_word(rest);
    let sectors = number(size).ok_or_else(|| corrupt(line_number, format!("{} is no size", text(size))))?;
    let (name, rest) = match rest.split_first() {
        Some((b'"', quoted)) => {
            split_once(quoted, b'"').ok_or_else(|| corrupt(line_number, "a file name does not end"))?
        }
        _ => next_word(rest),
    };
    let (offset, _) = next_word(rest.trim_ascii());
    let offset = match offset {
        [] => 0,
        digits => number(digits).ok_or_else(|| corrupt(line_number, format!("{} is no offset", text(digits))))?,
    };
    let kind = match kind.to_ascii_uppercase().as_slice() {
        _ if access.eq_ignore_ascii_case(b"NOACCESS") => ExtentKind::Other(format!("NOACCESS {}", text(kind))),
        b"FLAT" | b"VMFS" => ExtentKind::Flat,
        b"SPARSE" | b"VMFSSPARSE" | b"SESPARSE" => ExtentKind::Sparse,
        b"ZERO" => ExtentKind::Zero,
        other => ExtentKind::Other(text(other)),
    };
    if name.is_empty() && matches!(kind, ExtentKind::Flat | ExtentKind::Sparse) {
        return Err(corrupt(line_number, "an extent names no file"));
    }
    Ok(Extent { sectors, kind, name: name.to_vec(), offset })
}

fn next_word(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.trim_ascii_start();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    (word, rest.trim_ascii_start())
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == at)?;
    Some((bytes.get(..place)?, bytes.get(place.saturating_add(1)..)?))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").map_or(value, |rest| rest.split(|byte| *byte == b'"').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Descriptor> {
        Descriptor::parse(text.as_bytes())
    }

    #[test]
    fn extents_of_every_kind_are_read() {
        let found = parse(
            "# Disk DescriptorFile\r\nversion=1 \r\nCID=0000fffe\r\nparentCID=ffffffff \r\n\
             createType=\"custom\"\r\n\r\n# Extent description\r\n\
             RW 4192256 SPARSE \"a b-s001.vmdk\"\r\nRDONLY 63 ZERO\r\nRW 10 FLAT \"a \tb-f001.vmdk\" 63\r\n\
             RW 0 FLAT \"nothing\" 0\r\nrw 5 VMFS \"flat.vmdk\"\r\nRW 9 VMFSRDM \"rdm.vmdk\"\r\n\
             NOACCESS 7 FLAT \"x\" 0\r\nRW 1 SESPARSE \"se.vmdk\"\r\n#DDB\r\nddb.adapterType = \"ide\"\0RW 1 ZERO",
        )
        .unwrap();
        assert_eq!((found.create_type.as_str(), found.content_id, found.parent), ("custom", Some(0xfffe), None));
        let extents: Vec<_> = found
            .extents
            .iter()
            .map(|extent| (extent.sectors, extent.kind.clone(), extent.name.as_slice(), extent.offset))
            .collect();
        let other = |words: &str| ExtentKind::Other(words.into());
        let expected: Vec<(u64, ExtentKind, &[u8], u64)> = vec![
            (4_192_256, ExtentKind::Sparse, b"a b-s001.vmdk", 0),
            (63, ExtentKind::Zero, b"", 0),
            (10, ExtentKind::Flat, b"a \tb-f001.vmdk", 63),
            (5, ExtentKind::Flat, b"flat.vmdk", 0),
            (9, other("VMFSRDM"), b"rdm.vmdk", 0),
            (7, other("NOACCESS FLAT"), b"x", 0),
            (1, ExtentKind::Sparse, b"se.vmdk", 0),
        ];
        assert_eq!(extents, expected);
    }

    #[test]
    fn a_parent_needs_both_its_name_and_its_content_id() {
        let found = parse("CID=2\nparentCID=8f67ca74\nparentFileNameHint=\"base.vmdk\"\n").unwrap();
        assert_eq!(found.parent, Some(Parent { content_id: 0x8f67_ca74, name: b"base.vmdk".to_vec() }));
        for broken in [
            "parentCID=8f67ca74\n",
            "parentFileNameHint=\"base.vmdk\"\n",
            "parentCID=ffffffff\nparentFileNameHint=\"base.vmdk\"\n",
            "parentCID=none\n",
            "RW many SPARSE \"a\"\n",
            "RW 1 SPARSE \"a\n",
            "RW 1 FLAT \"a\" -1\n",
            "RW 1 SPARSE\n",
            "RW 99999999999999999999 ZERO\n",
        ] {
            let met = parse(broken);
            assert!(matches!(met, Err(Error::Corrupt { .. })), "{broken}: {met:?}");
        }
        assert_eq!(parse("parentCID=ffffffff\nparentFileNameHint=\"\"\n").unwrap().parent, None);
    }

    #[test]
    fn encrypted_disks_are_named_as_such_and_names_of_windows_are_understood() {
        for text in ["encryption.keySafe = \"vmware:key/list/x\"\n", "ddb.iofilters = \"vmwarevmcrypt\"\n"] {
            assert!(matches!(parse(text), Err(Error::Encrypted { .. })), "{text}");
        }
        let found = Descriptor::parse(b"encoding=\"windows-1252\"\nRW 1 FLAT \"M\xfcller \x80.vmdk\" 0\n").unwrap();
        assert_eq!(found.extents[0].name, "Müller €.vmdk".as_bytes());
    }
}
