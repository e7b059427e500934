//! What BitLocker's metadata says of the keys that open a volume. Sources: libbde's "BitLocker Drive Encryption (BDE) format
//! specification", "Volume header", "FVE metadata block", "FVE metadata entry" and "FVE Volume Master Key (VMK)"; the bits of
//! the protection are those of Win32_EncryptableVolume's key protectors.

use std::fmt;

use crate::bytes::{has, le_u16, le_u32, le_u64, slice};
use crate::error::{Error, Result};
use crate::read_at::ReadAt;

pub(super) const SIGNATURE: &[u8] = b"-FVE-FS-";
/// The identifier of the boot sectors of Windows 7 and later; three places of the metadata follow it.
pub(super) const IDENTIFIER: [u8; 16] =
    [0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01];
/// Where it stands in the FAT boot sector of a volume "to go".
pub(super) const TO_GO: usize = 424;
/// Where it stands in a boot sector of BitLocker's own, and in the other.
const PLACES: [usize; 2] = [160, TO_GO];
/// The headers of a block and of its metadata; entries follow them.
const HEADERS_BYTES: usize = 64 + 48;
/// A block is no larger.
const BLOCK_BYTES: usize = 64 << 10;
/// An entry that holds a copy of the volume's master key.
const MASTER_KEY: u16 = 2;

/// What protects one copy of a volume's master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Protector(u16);

impl Protector {
    /// The key lies open beside the volume: protection is suspended.
    pub(crate) const fn is_clear(self) -> bool {
        self.0 == 0
    }

    /// Only the machine's TPM gives the key, whatever else is asked for.
    pub(crate) const fn needs_tpm(self) -> bool {
        self.0 & 0x0100 != 0
    }
}

impl fmt::Display for Protector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0x0000 => "clear key",
            0x0100 => "TPM",
            0x0200 => "startup key",
            0x0300 => "TPM and startup key",
            0x0500 => "TPM and PIN",
            0x0700 => "TPM, PIN and startup key",
            0x0800 => "recovery password",
            0x1000 => "public key",
            0x2000 => "password",
            other => return write!(f, "protector {other:#06x}"),
        };
        f.write_str(name)
    }
}

/// The protectors of a volume's master key, in the order of the first metadata block that is whole.
///
/// # Errors
/// When none of its blocks can be read.
pub(crate) fn protectors(volume: &dyn ReadAt) -> Result<Vec<Protector>> {
    let mut sector = [0; 512];
    volume.read_exact_at(&mut sector, 0)?;
    let mut failure = Error::corrupt("BitLocker boot sector", 0, "it names no metadata");
    for offset in offsets(&sector) {
        match block(volume, offset) {
            Ok(found) => return Ok(found),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Where the metadata blocks stand. Vista's boot sector names one of them by its cluster.
fn offsets(sector: &[u8]) -> Vec<u64> {
    if let Some(place) = PLACES.iter().find(|place| has(sector, **place, &IDENTIFIER)) {
        let places = [16, 24, 32].iter().filter_map(|after| le_u64(sector, place.checked_add(*after)?));
        return places.filter(|offset| *offset > 0).collect();
    }
    let cluster = || {
        let bytes = u64::from(le_u16(sector, 11)?).checked_mul(u64::from(*sector.get(13)?))?;
        le_u64(sector, 56)?.checked_mul(bytes)
    };
    cluster().into_iter().filter(|offset| *offset > 0).collect()
}

fn block(volume: &dyn ReadAt, offset: u64) -> Result<Vec<Protector>> {
    let corrupt = |reason: &str| Error::corrupt("BitLocker metadata", offset, reason);
    let mut headers = [0; HEADERS_BYTES];
    volume.read_exact_at(&mut headers, offset)?;
    if !has(&headers, 0, SIGNATURE) {
        return Err(corrupt("it does not begin with its signature"));
    }
    let size = le_u32(&headers, 64).and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX);
    let entries = size.checked_sub(48).filter(|bytes| *bytes <= BLOCK_BYTES);
    let mut bytes = vec![0; entries.ok_or_else(|| corrupt("its size is none of a block"))?];
    volume.read_exact_at(&mut bytes, offset.saturating_add(HEADERS_BYTES as u64))?;
    let mut found = Vec::new();
    let mut rest = bytes.as_slice();
    while let (Some(size), Some(kind)) = (le_u16(rest, 0), le_u16(rest, 2)) {
        if size == 0 {
            break;
        }
        let entry = slice(rest, 0, usize::from(size)).filter(|entry| entry.len() >= 8);
        let entry = entry.ok_or_else(|| corrupt("an entry ends outside of it"))?;
        if kind == MASTER_KEY {
            // Behind the entry's header stand the key's identifier, its time, and two bytes more.
            found.push(Protector(le_u16(entry, 34).ok_or_else(|| corrupt("a master key is cut off"))?));
        }
        rest = rest.get(entry.len()..).unwrap_or_default();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A volume with its metadata at 64 KiB and 128 KiB.
    fn volume(protections: &[u16]) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        put(0, b"\xeb\x58\x90-FVE-FS-\x00\x02\x08");
        put(160, &IDENTIFIER);
        put(176, &0x1_0000_u64.to_le_bytes());
        put(184, &0x2_0000_u64.to_le_bytes());
        put(510, b"\x55\xaa");
        let mut entries = Vec::new();
        for (number, protection) in (1_u8..).zip(protections) {
            entries.extend([36_u16, MASTER_KEY, 8, 1].iter().flat_map(|number| number.to_le_bytes()));
            entries.extend([number; 16]);
            entries.extend([0; 10]);
            entries.extend(protection.to_le_bytes());
        }
        // The key of the volume itself, encrypted: cryptsetup looks for it.
        entries.extend([80_u16, 3, 5, 1].iter().flat_map(|number| number.to_le_bytes()));
        entries.extend([0; 72]);
        let size = u32::try_from(48 + entries.len()).unwrap().to_le_bytes();
        for block in [0x1_0000, 0x2_0000] {
            put(block, SIGNATURE);
            put(block + 8, &[0x40, 0, 2, 0, 4, 0, 4, 0]);
            put(block + 32, &0x8000_u64.to_le_bytes());
            put(block + 64, &size);
            put(block + 68, &[1, 0, 0, 0, 48, 0, 0, 0]);
            put(block + 76, &size);
            put(block + 100, &0x8004_u16.to_le_bytes());
            put(block + 112, &entries);
        }
        bytes
    }

    fn names(bytes: &Vec<u8>) -> Vec<String> {
        protectors(bytes).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn protectors_are_those_of_the_first_whole_block() {
        let mut bytes = volume(&[0x0100, 0x0800, 0x0500, 0x0000, 0x2000]);
        let expected = ["TPM", "recovery password", "TPM and PIN", "clear key", "password"];
        assert_eq!(names(&bytes), expected);
        // The first block is broken: the second counts.
        bytes[0x1_0000 + 112] = 3;
        assert_eq!(names(&bytes), expected);
        bytes[0x2_0000] = 0;
        assert!(protectors(&bytes).unwrap_err().to_string().contains("signature"));
    }

    /// By `cryptsetup bitlkDump`, where it is installed.
    #[test]
    fn protectors_agree_with_cryptsetup() {
        let bytes = volume(&[0x0100, 0x0800, 0x0500, 0x2000]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes[..]).unwrap();
        let Ok(output) = Command::new("cryptsetup").arg("bitlkDump").arg(file.path()).output() else {
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let told: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("Protection:")).collect();
        let told: Vec<_> = told.iter().map(|protection| protection.trim().to_ascii_lowercase()).collect();
        let words = [("TPM", "tpm"), ("recovery password", "recovery"), ("TPM and PIN", "tpm"), ("password", "pass")];
        assert_eq!(told.len(), words.len(), "{text}");
        for ((ours, theirs), (name, told)) in words.iter().zip(names(&bytes).iter().zip(&told)) {
            assert!(ours == name && told.contains(theirs), "{name} is {told} there");
        }
    }

    #[test]
    fn hostile_metadata_ends_in_an_error() {
        assert!(protectors(&vec![0; 16]).is_err());
        assert!(protectors(&vec![0xff; 1 << 16]).is_err());
        let good = volume(&[0x0100, 0x0800]);
        for at in (0..512).chain(0x1_0000..0x1_0000 + 200) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                // What matters is that it comes back.
                let _ = protectors(&bytes);
            }
        }
    }
}
