//! The disks that an OVF descriptor names: DMTF DSP0243, "Open Virtualization Format Specification", sections
//! "References" and "DiskSection".
//!
//! The descriptor is XML; all that is asked of it are attributes of three elements, so it is scanned for tags. Whatever
//! is no tag is passed over, entities other than XML's own five and character references are left as they stand.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// Elements that are looked at; a descriptor has some hundreds.
const TAGS_MAX: usize = 100_000;

/// A disk of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    /// `ovf:diskId`.
    pub(super) id: String,
    /// `ovf:href` of the file that holds it.
    pub(super) file: String,
    /// `ovf:format`: a URI that stands for the format.
    pub(super) format: String,
    /// `ovf:compression` of the file, such as `gzip`.
    pub(super) compression: Option<String>,
    /// Whether `ovf:chunkSize` says that the file is cut in several members.
    pub(super) chunked: bool,
    /// `ovf:parentRef`: the disk this one is a delta of.
    pub(super) parent: Option<String>,
}

/// What the descriptor says of disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Package {
    /// Those that have a file, in the order of the DiskSection.
    pub(super) disks: Vec<Disk>,
    /// Machines described.
    pub(super) machines: usize,
}

fn corrupt(offset: usize, reason: impl Into<String>) -> Error {
    Error::corrupt("ovf descriptor", offset as u64, reason)
}

/// Reads the descriptor.
///
/// # Errors
/// [`Error::Corrupt`]: what is no XML, or a disk whose file is not listed; [`Error::Unsupported`] for UTF-16.
pub(super) fn parse(bytes: &[u8]) -> Result<Package> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Error::unsupported("an ovf descriptor in UTF-16"));
    }
    let text = String::from_utf8_lossy(bytes);
    let tags = tags(&text)?;
    let files: Vec<&Tag<'_>> = tags.iter().filter(|tag| tag.name == "File").collect();
    let mut package =
        Package { machines: tags.iter().filter(|tag| tag.name == "VirtualSystem").count(), ..Package::default() };
    for disk in tags.iter().filter(|tag| tag.name == "Disk") {
        let id = disk.get("diskId").unwrap_or_default();
        // A disk without a file is blank: it is made when the machine is.
        let Some(reference) = disk.get("fileRef").filter(|reference| !reference.is_empty()) else { continue };
        let file = files.iter().find(|file| file.get("id").as_ref() == Some(&reference));
        let file =
            file.ok_or_else(|| corrupt(disk.offset, format!("disk {id} refers to {reference}, no such file")))?;
        let href = file.get("href").filter(|href| !href.is_empty());
        package.disks.push(Disk {
            file: href.ok_or_else(|| corrupt(file.offset, format!("file {reference} has no href")))?.into_owned(),
            id: id.into_owned(),
            format: disk.get("format").unwrap_or_default().into_owned(),
            compression: file.get("compression").filter(|by| !matches!(&**by, "" | "identity")).map(Cow::into_owned),
            chunked: file.get("chunkSize").is_some(),
            parent: disk.get("parentRef").filter(|parent| !parent.is_empty()).map(Cow::into_owned),
        });
    }
    Ok(package)
}

/// A start tag, by its local name.
struct Tag<'a> {
    name: &'a str,
    /// Local names and raw values.
    attributes: Vec<(&'a str, &'a str)>,
    offset: usize,
}

impl<'a> Tag<'a> {
    fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| unescaped(value))
    }
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// All start tags; comments, CDATA, declarations and instructions are passed over.
fn tags(text: &str) -> Result<Vec<Tag<'_>>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, inside)) = rest.split_once('<') {
        let offset = text.len().saturating_sub(inside.len()).saturating_sub(1);
        let unended = || corrupt(offset, "what begins here does not end");
        rest = if let Some(comment) = inside.strip_prefix("!--") {
            comment.split_once("-->").ok_or_else(unended)?.1
        } else if let Some(data) = inside.strip_prefix("![CDATA[") {
            data.split_once("]]>").ok_or_else(unended)?.1
        } else if inside.starts_with(['!', '?', '/']) {
            inside.split_once('>').ok_or_else(unended)?.1
        } else {
            let (tag, behind) = parse_tag(inside, offset).ok_or_else(unended)?;
            if found.len() >= TAGS_MAX {
                return Err(corrupt(offset, format!("there are more than {TAGS_MAX} elements")));
            }
            found.push(tag);
            behind
        };
    }
    Ok(found)
}

/// The tag whose `<` was just passed, and what follows it.
fn parse_tag(inside: &str, offset: usize) -> Option<(Tag<'_>, &str)> {
    let end = inside.find(|letter: char| letter.is_whitespace() || matches!(letter, '>' | '/'))?;
    let (name, mut rest) = inside.split_at(end);
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '/');
        if let Some(behind) = rest.strip_prefix('>') {
            return Some((Tag { name: local(name), attributes, offset }, behind));
        }
        let (attribute, value) = rest.split_once('=')?;
        let value = value.trim_start();
        let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let (value, behind) = value.get(1..)?.split_once(quote)?;
        attributes.push((local(attribute.trim()), value));
        rest = behind;
    }
}

/// XML 1.0, sections 4.1 and 4.6: character references and the five predefined entities.
fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('&') {
        return Cow::Borrowed(value);
    }
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, behind)) = rest.split_once('&') {
        text.push_str(before);
        let known = behind.split_once(';').and_then(|(name, after)| Some((entity(name)?, after)));
        match known {
            Some((letter, after)) => {
                text.push(letter);
                rest = after;
            }
            None => {
                text.push('&');
                rest = behind;
            }
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_found_with_their_files() {
        let package = parse(
            br#"<?xml version="1.0"?><!-- <Disk ovf:fileRef="none"/> -->
            <ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
              <References><File ovf:id="f1" ovf:href='a &amp; b&#x2d;1.vmdk'/>
                <File ovf:href="two.vmdk.gz" ovf:id="f2" ovf:compression="gzip" ovf:chunkSize="7" /></References>
              <DiskSection><Info>x &lt; y</Info><![CDATA[<Disk fileRef="f9"/>]]>
                <Disk ovf:diskId="d1" ovf:fileRef="f1" ovf:capacity="30" ovf:format="http://x/vmdk.html#streamOptimized"/>
                <Disk ovf:diskId="blank" ovf:capacity="1"/>
                <ovf:Disk
                   ovf:diskId="d2" ovf:fileRef="f2" ovf:parentRef="d1"></ovf:Disk></DiskSection>
              <VirtualSystem ovf:id="vm"></VirtualSystem></ovf:Envelope>"#,
        )
        .unwrap();
        assert_eq!(package.machines, 1);
        let [one, two] = package.disks.as_slice() else { panic!("{package:?}") };
        assert_eq!((one.id.as_str(), one.file.as_str(), &one.compression), ("d1", "a & b-1.vmdk", &None));
        assert!(one.format.ends_with("#streamOptimized") && !one.chunked && one.parent.is_none());
        assert_eq!((two.file.as_str(), two.compression.as_deref()), ("two.vmdk.gz", Some("gzip")));
        assert!(two.chunked && two.parent.as_deref() == Some("d1"));
    }

    #[test]
    fn what_is_broken_is_refused() {
        for broken in ["<Disk", "<!-- ", "<![CDATA[", "<?xml", "<Disk a=b>", "<Disk fileRef=\"f\"/>", "<Disk a=\"1"] {
            let met = parse(broken.as_bytes());
            assert!(matches!(met, Err(Error::Corrupt { .. })), "{broken}: {met:?}");
        }
        assert!(matches!(parse(&[0xff, 0xfe, b'<', 0]), Err(Error::Unsupported { .. })));
        assert_eq!(parse(b"no markup & nothing").unwrap(), Package::default());
        assert_eq!(unescaped("&&amp;&no;&#0;&#x110000;&"), "&&&no;\0&#x110000;&");
    }
}
