//! The modules that a Go program was built of, which the linker writes into it. Source: Go's `debug/buildinfo` and
//! `cmd/link`'s "build info blob", whose strings are inline since Go 1.18; the ELF specification for where they lie.

use crate::bytes::{be_u16, be_u32, be_u64, has, le_u16, le_u32, le_u64, slice};
use crate::error::Result;
use crate::guest::report::Package;
use crate::read_at::{ReadAt, read_up_to};

use super::{package, purl};

/// The smallest Go program is larger.
pub(super) const PROGRAM_BYTES_MIN: u64 = 64 << 10;
const HEADER_BYTES: usize = 64;
/// The section, and how it begins.
const SECTION: &[u8] = b".go.buildinfo\0";
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Flag: the strings follow the header.
const IS_INLINE: u8 = 2;
/// Where the strings begin.
const STRINGS_AT: usize = 32;
/// The largest section that is read: a program of thousands of modules has some hundred kilobytes.
const SECTION_BYTES_MAX: u64 = 4 << 20;
/// Section headers and their names that are read of one program.
const TABLE_BYTES_MAX: u64 = 1 << 20;
/// What stands around the list of modules.
const SENTINEL_BYTES: usize = 16;

/// The main module and its dependencies; none of a program that another linker made.
///
/// # Errors
/// Whatever reading meets.
pub(super) fn packages(file: &dyn ReadAt) -> Result<Vec<Package>> {
    let section = build_info_section(file)?.unwrap_or_default();
    Ok(strings(&section).map(|(go, modules)| modules_of(go, modules)).unwrap_or_default())
}

/// Numbers of an ELF file in its own byte order.
#[derive(Clone, Copy)]
struct Elf {
    is_big_endian: bool,
    is_64: bool,
}

impl Elf {
    fn half(self, bytes: &[u8], at: usize) -> Option<u16> {
        if self.is_big_endian { be_u16(bytes, at) } else { le_u16(bytes, at) }
    }

    fn word(self, bytes: &[u8], at: usize) -> Option<u32> {
        if self.is_big_endian { be_u32(bytes, at) } else { le_u32(bytes, at) }
    }

    /// An address, offset or size: at `at` of the 64-bit layout, at `at_32` of the other.
    fn wide(self, bytes: &[u8], at: usize, at_32: usize) -> Option<u64> {
        match (self.is_64, self.is_big_endian) {
            (true, true) => be_u64(bytes, at),
            (true, false) => le_u64(bytes, at),
            (false, _) => self.word(bytes, at_32).map(u64::from),
        }
    }
}

/// The section's bytes; `None` where the file is no ELF file, or has no such section.
fn build_info_section(file: &dyn ReadAt) -> Result<Option<Vec<u8>>> {
    let header = read_up_to(file, 0, HEADER_BYTES)?;
    let is_64 = header.get(4) == Some(&2);
    if !has(&header, 0, b"\x7fELF") {
        return Ok(None);
    }
    let elf = Elf { is_big_endian: header.get(5) == Some(&2), is_64 };
    let half = |at, at_32| elf.half(&header, if is_64 { at } else { at_32 }).map(u64::from);
    let table = (|| Some((elf.wide(&header, 40, 32)?, half(58, 46)?, half(60, 48)?, half(62, 50)?)))();
    let Some((table_at, entry_bytes, count, names_index)) = table else { return Ok(None) };
    let table_bytes = entry_bytes.saturating_mul(count).min(TABLE_BYTES_MAX);
    let table = read_up_to(file, table_at, usize::try_from(table_bytes).unwrap_or_default())?;
    let entry_bytes = usize::try_from(entry_bytes).unwrap_or_default().max(40);
    let sections: Vec<&[u8]> = table.chunks_exact(entry_bytes).collect();
    let place = |section: &[u8]| Some((elf.wide(section, 24, 16)?, elf.wide(section, 32, 20)?));
    let names = usize::try_from(names_index).ok().and_then(|index| sections.get(index).copied()).and_then(place);
    let Some((names_at, names_bytes)) = names else { return Ok(None) };
    let names = read_up_to(file, names_at, usize::try_from(names_bytes.min(TABLE_BYTES_MAX)).unwrap_or_default())?;
    let is_it = |section: &&&[u8]| {
        let name = elf.word(section, 0).and_then(|name| usize::try_from(name).ok());
        name.is_some_and(|name| has(&names, name, SECTION))
    };
    let Some((at, length)) = sections.iter().find(is_it).and_then(|section| place(section)) else { return Ok(None) };
    let length = usize::try_from(length.min(SECTION_BYTES_MAX)).unwrap_or_default();
    read_up_to(file, at, length).map(Some)
}

/// Go's version and the list of modules.
fn strings(section: &[u8]) -> Option<(&str, &str)> {
    let flags = *section.get(MAGIC.len().checked_add(1)?)?;
    if !has(section, 0, MAGIC) || flags & IS_INLINE == 0 {
        return None;
    }
    let (go, next) = string(section, STRINGS_AT)?;
    let (modules, _) = string(section, next)?;
    let end = modules.len().checked_sub(SENTINEL_BYTES)?;
    let modules = modules.get(SENTINEL_BYTES..end)?;
    Some((std::str::from_utf8(go).ok()?, std::str::from_utf8(modules).ok()?))
}

/// A text behind its length, which is a number of seven bits in each byte, lowest first.
fn string(section: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (mut length, mut next) = (0_usize, at);
    for shift in [0_u32, 7, 14, 21, 28] {
        let byte = *section.get(next)?;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        next = next.checked_add(1)?;
        if byte < 0x80 {
            return Some((slice(section, next, length)?, next.checked_add(length)?));
        }
    }
    None
}

/// Lines of words apart by tabs: `mod` and `dep` with path, version and sum; `=>` replaces the one before.
fn modules_of(go: &str, modules: &str) -> Vec<Package> {
    let mut found: Vec<(&str, &str)> = vec![("stdlib", go.strip_prefix("go").unwrap_or(go))];
    for line in modules.lines() {
        let mut words = line.split('\t');
        let (kind, path, version) = (words.next(), words.next(), words.next());
        let (Some(path), Some(version)) = (path, version) else { continue };
        match kind {
            Some("mod" | "dep") => found.push((path, version)),
            Some("=>") => {
                if let Some(replaced) = found.last_mut() {
                    *replaced = (path, version);
                }
            }
            _ => {}
        }
    }
    let modules = found.into_iter().map(|(path, version)| {
        let (namespace, name) = path.rsplit_once('/').unwrap_or(("", path));
        package("golang", path, version, Some(purl("golang", namespace, name, version, &[])))
    });
    modules.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_listed() {
        let list = "path\tx\nmod\tgithub.com/a/b\t(devel)\t\ndep\tgolang.org/x/sys\tv0.1.0\th1:=\ndep\tc.d/e\tv1\n=>\tf.g/h\tv2\t\n";
        let mut section = MAGIC.to_vec();
        section.extend([8, IS_INLINE]);
        section.resize(STRINGS_AT, 0);
        section.push(8);
        section.extend(b"go1.22.1");
        let text = [&[0; 16], list.as_bytes(), &[0; 16]].concat();
        section.extend([u8::try_from(text.len() & 0x7f).unwrap() | 0x80, u8::try_from(text.len() >> 7).unwrap()]);
        section.extend(&text);
        let (go, modules) = strings(&section).unwrap();
        let purls: Vec<_> = modules_of(go, modules).into_iter().map(|package| package.purl.unwrap()).collect();
        let expected = [
            "pkg:golang/stdlib@1.22.1",
            "pkg:golang/github.com/a/b@%28devel%29",
            "pkg:golang/golang.org/x/sys@v0.1.0",
            "pkg:golang/f.g/h@v2",
        ];
        assert_eq!(purls, expected);
        for length in 0..section.len() {
            assert!(strings(&section[..length]).is_none());
        }
        assert!(packages(&b"\x7fELF".to_vec()).unwrap().is_empty());
        assert!(packages(&vec![0x7f; 100]).unwrap().is_empty());
    }
}
