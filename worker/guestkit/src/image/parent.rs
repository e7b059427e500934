//! The parents of differencing images (VDI, VHD, VHDX): named by paths of another machine, or by identity alone.
//!
//! Whoever wrote an image chose these names. A relative one is taken against the image's directory, of an absolute one
//! nothing but the file name counts, beside the image; and every file is opened by the caller's policy, as one more image
//! of the chain, and only taken if it is the one whose identity the image records.

use std::path::{Path, PathBuf};

use super::file::HostFile;
use super::{Chain, Format, Known};
use crate::error::{Error, Result};
use crate::read_at::Source;

/// Where the file that `image` calls `name` may lie here: `name` is a path as Windows writes it, or as Unix does.
/// `None` for what names no file.
pub(super) fn place_beside(image: &Path, name: &str) -> Option<PathBuf> {
    let is_separator = |c: char| matches!(c, '/' | '\\');
    let has_drive = name.as_bytes().get(1) == Some(&b':');
    let parts: Vec<&str> = name.split(is_separator).filter(|part| !matches!(*part, "" | ".")).collect();
    let (file, _) = parts.split_last().filter(|(file, _)| **file != ".." && !name.contains('\0'))?;
    let directory = image.parent().unwrap_or(Path::new(""));
    if has_drive || name.starts_with(is_separator) {
        let file = file.rsplit(':').next().filter(|file| !file.is_empty())?;
        return Some(directory.join(file));
    }
    Some(parts.iter().fold(directory.to_path_buf(), |path, part| path.join(part)))
}

/// The text in UTF-16 up to its first NUL, what is no text replaced by U+FFFD.
pub(super) fn utf16_text(units: impl Iterator<Item = u16>) -> String {
    let units = units.take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A GUID as Windows writes it, without braces: its first three fields are little-endian.
pub(super) fn guid_text(guid: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let tail = crate::bytes::hex(rest);
    let (clock, node) = tail.split_at(4);
    format!("{d:02x}{c:02x}{b:02x}{a:02x}-{f:02x}{e:02x}-{h:02x}{g:02x}-{clock}-{node}")
}

impl Chain<'_> {
    /// Opens the parent of `image`, of the same format: the first of `candidates` that can be opened and that `check`
    /// takes for it. `check` fails where it is another image, and may have something to say of one that it takes.
    pub(super) fn open_parent(
        &mut self,
        image: &Path,
        format: Format,
        candidates: &[PathBuf],
        check: impl Fn(&HostFile) -> Result<Option<String>>,
    ) -> Result<Source> {
        let mut refusal = None;
        for path in candidates {
            match self.host_file(path).and_then(|file| check(&file)) {
                Ok(remark) => {
                    self.warnings.extend(remark);
                    return self.open(path, Known::Declared(format));
                }
                Err(error) if error.is_budget_exhausted() => return Err(error),
                // The most telling reason is that of a file that is there.
                Err(error @ Error::NotFound { .. }) => {
                    refusal.get_or_insert(error);
                }
                Err(error) => match &refusal {
                    None | Some(Error::NotFound { .. }) => refusal = Some(error),
                    Some(_) => {}
                },
            }
        }
        Err(refusal.unwrap_or_else(|| {
            let reason = format!("{} does not say where its parent is", image.display());
            Error::corrupt("parent locator", 0, reason)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_machines_lead_beside_the_image() {
        let image = Path::new("/images/vm/child.vhd");
        for (name, expected) in [
            (r".\parent.vhd", Some("/images/vm/parent.vhd")),
            (r"..\base\parent.vhd", Some("/images/vm/../base/parent.vhd")),
            ("./parent.vhd", Some("/images/vm/parent.vhd")),
            ("parent.vhd", Some("/images/vm/parent.vhd")),
            (r"C:\VMs\other\parent.vhd", Some("/images/vm/parent.vhd")),
            (r"C:parent.vhd", Some("/images/vm/parent.vhd")),
            (r"\\server\share\parent.vhd", Some("/images/vm/parent.vhd")),
            (r"\\?\C:\x\parent.vhdx", Some("/images/vm/parent.vhdx")),
            ("/etc/passwd", Some("/images/vm/passwd")),
            (r"C:\..", None),
            (r"..\..", None),
            (r"C:", None),
            ("", None),
            ("a\0b", None),
        ] {
            assert_eq!(place_beside(image, name).as_deref(), expected.map(Path::new), "{name}");
        }
        assert_eq!(place_beside(Path::new("child.vhd"), r".\p.vhd"), Some("p.vhd".into()));
    }

    #[test]
    fn guids_are_written_as_windows_does() {
        let bytes: [u8; 16] = std::array::from_fn(|at| at as u8);
        assert_eq!(guid_text(&bytes), "03020100-0504-0706-0809-0a0b0c0d0e0f");
    }
}
