//! The headers of LUKS1 and LUKS2, held to their specifications before any work is done for them.
//!
//! Sources: LUKS On-Disk Format Specification 1.2.3; LUKS2 On-Disk Format Specification 1.1.

use base64::Engine as _;
use serde_json::{Map, Value};
use sha2::Digest as _;

use crate::bytes::{array, be_u16, be_u32, be_u64, has, slice, sum_holds};
use crate::error::{Error, Result};
use crate::filesystem::probe::label;
use crate::limits::Budget;
use crate::read_at::{ReadAt, read_up_to};

use super::kdf::{Argon2Cost, Hash, KEY_BYTES_MAX};

const SECTOR: u64 = 512;
/// LUKS1 fixes the number; LUKS2 allows others, and no tool writes any.
const STRIPES_MAX: u64 = 4000;

/// How a passphrase becomes a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Derivation {
    Pbkdf2 { hash: Hash, iterations: u32 },
    Argon2(Argon2Cost),
}

/// A key slot.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) derivation: Derivation,
    pub(crate) salt: Vec<u8>,
    /// Bytes of the key that it holds.
    pub(crate) key_bytes: usize,
    /// Bytes of the key that its material is encrypted with.
    pub(crate) area_key_bytes: usize,
    /// The cipher of its material.
    pub(crate) cipher: String,
    pub(crate) offset: u64,
    pub(crate) stripes: usize,
    /// What the stripes are merged with.
    pub(crate) hash: Hash,
    /// What the key must hash to.
    pub(crate) digest: KeyDigest,
}

/// A digest of the volume's key, by PBKDF2.
#[derive(Debug, Clone)]
pub(crate) struct KeyDigest {
    pub(crate) hash: Hash,
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: u32,
    pub(crate) value: Vec<u8>,
}

/// A header.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    /// The key slots that can be read, the preferred ones first.
    pub(crate) slots: Vec<Slot>,
    /// Why others cannot.
    pub(crate) refused: Option<String>,
    pub(crate) cipher: String,
    pub(crate) sector_bytes: usize,
    /// Where the encrypted data starts.
    pub(crate) offset: u64,
    /// Its length, where it is not all that follows.
    pub(crate) length: Option<u64>,
    /// What is added to the number of each sector.
    pub(crate) first_number: u64,
}

impl Header {
    /// Reads the header of `device`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for what contradicts the specification, [`Error::Unsupported`] for what is not read.
    pub(crate) fn read(device: &dyn ReadAt, budget: &Budget) -> Result<Self> {
        let first = read_up_to(device, 0, 4096)?;
        if !has(&first, 0, b"LUKS\xba\xbe") {
            return Err(Error::corrupt("LUKS header", 0, "its magic is wrong"));
        }
        match be_u16(&first, 6) {
            Some(1) => Self::version_1(&first, device.len()),
            Some(2) => Self::version_2(device, budget),
            version => Err(Error::unsupported(format!("LUKS version {}", version.unwrap_or(0)))),
        }
    }

    fn version_1(header: &[u8], device_bytes: u64) -> Result<Self> {
        const STRUCTURE: &str = "LUKS1 header";
        let short = || Error::corrupt(STRUCTURE, 0, "it ends early");
        let text = |at, length| slice(header, at, length).and_then(label).ok_or_else(short);
        let word = |at| be_u32(header, at).ok_or_else(short);
        let cipher = format!("{}-{}", text(8, 32)?, text(40, 32)?);
        let hash = Hash::named(&text(72, 32)?)?;
        let payload = u64::from(word(104)?).saturating_mul(SECTOR);
        let key_bytes = word(108)? as usize;
        if key_bytes == 0 || key_bytes > KEY_BYTES_MAX {
            return Err(Error::corrupt(STRUCTURE, 108, format!("its key has {key_bytes} bytes")));
        }
        if payload == 0 {
            return Err(Error::unsupported("a LUKS header that is detached from its data"));
        }
        if payload >= device_bytes {
            let reason = format!("its data starts at byte {payload}, and there are {device_bytes}");
            return Err(Error::corrupt(STRUCTURE, 104, reason));
        }
        let digest = KeyDigest {
            hash,
            value: slice(header, 112, 20).ok_or_else(short)?.to_vec(),
            salt: slice(header, 132, 32).ok_or_else(short)?.to_vec(),
            iterations: word(164)?,
        };
        let mut slots = Vec::new();
        let mut areas: Vec<(u64, u64)> = Vec::new();
        for number in 0..8_usize {
            let at = 208 + number * 48;
            let wrong = |reason: String| Err(Error::corrupt(STRUCTURE, at as u64, reason));
            let state = word(at)?;
            let offset = u64::from(word(at + 40)?).saturating_mul(SECTOR);
            let stripes = u64::from(word(at + 44)?);
            // Each slot has its place, whether it is in use or not.
            let end = offset.saturating_add((stripes.saturating_mul(key_bytes as u64)).next_multiple_of(SECTOR));
            if stripes != STRIPES_MAX || offset < 1024 || end > payload {
                return wrong(format!("key slot {number} has {stripes} stripes from byte {offset}"));
            }
            if areas.iter().any(|(from, to)| *from < end && offset < *to) {
                return wrong(format!("key slot {number} overlaps another"));
            }
            areas.push((offset, end));
            match state {
                0x00ac_71f3 => slots.push(Slot {
                    derivation: Derivation::Pbkdf2 { hash, iterations: word(at + 4)? },
                    salt: slice(header, at + 8, 32).ok_or_else(short)?.to_vec(),
                    key_bytes,
                    area_key_bytes: key_bytes,
                    cipher: cipher.clone(),
                    offset,
                    stripes: STRIPES_MAX as usize,
                    hash,
                    digest: digest.clone(),
                }),
                0x0000_dead => {}
                _ => return wrong(format!("key slot {number} is neither in use nor free")),
            }
        }
        Ok(Self { slots, refused: None, cipher, sector_bytes: 512, offset: payload, length: None, first_number: 0 })
    }

    fn version_2(device: &dyn ReadAt, budget: &Budget) -> Result<Self> {
        const STRUCTURE: &str = "LUKS2 header";
        // The second copy follows the first, whose size is one of these.
        const SIZES: [u64; 9] =
            [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];
        let first = binary_header(device, 0, b"LUKS\xba\xbe", budget);
        let stated = first.as_ref().ok().map(|(size, ..)| *size);
        let places = SIZES.into_iter().filter(|size| stated.is_none_or(|stated| stated == *size));
        let second = places
            .map(|at| binary_header(device, at, b"SKUL\xba\xbe", budget))
            .find(|found| !matches!(found, Err(Error::Corrupt { .. })));
        let (size, _, text) = match (first, second) {
            (Ok(first), Some(Ok(second))) if second.1 > first.1 => second,
            (Ok(first), _) | (Err(_), Some(Ok(first))) => first,
            (Err(error), _) => return Err(error),
        };
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let root: Value = serde_json::from_slice(text)
            .map_err(|error| Error::corrupt(STRUCTURE, 4096, format!("its JSON cannot be read: {error}")))?;
        parse_json(&root, size, device.len())
    }
}

/// Size, sequence number and text of a binary header whose checksum is right.
fn binary_header(device: &dyn ReadAt, at: u64, magic: &[u8], budget: &Budget) -> Result<(u64, u64, Vec<u8>)> {
    const STRUCTURE: &str = "LUKS2 header";
    let head = read_up_to(device, at, 4096)?;
    let wrong = |reason: &str| Error::corrupt(STRUCTURE, at, reason);
    let size = be_u64(&head, 8).filter(|_| has(&head, 0, magic) && be_u16(&head, 6) == Some(2));
    let size = size.ok_or_else(|| wrong("its magic is wrong"))?;
    if !(0x4000..=0x40_0000).contains(&size) || be_u64(&head, 256) != Some(at) {
        return Err(wrong("it says that it lies elsewhere, or has an impossible size"));
    }
    let mut bytes = budget.allocate(size)?;
    device.read_exact_at(&mut bytes, at)?;
    let expected: [u8; 64] = array(&bytes, 448).ok_or_else(|| wrong("it ends early"))?;
    if let Some(checksum) = bytes.get_mut(448..512) {
        checksum.fill(0);
    }
    let name = slice(&head, 72, 32).and_then(label).unwrap_or_default();
    if !matches!(name.as_str(), "sha256" | "sha1" | "sha512") {
        return Err(Error::unsupported(format!("a LUKS2 header with checksum {}", name.escape_debug())));
    }
    let digest =
        if name == "sha256" { sha2::Sha256::digest(&bytes).to_vec() } else { Hash::named(&name)?.digest(&[&bytes]) };
    if !sum_holds(expected.get(..digest.len()) == Some(digest.as_slice())) {
        return Err(wrong("its checksum is wrong"));
    }
    let sequence = be_u64(&head, 16).unwrap_or(0);
    Ok((size, sequence, bytes.split_off(4096)))
}

/// LUKS2 writes numbers of 64 bits as text.
fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64(),
        _ => None,
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

fn decoded(value: &Value, key: &str) -> Option<Vec<u8>> {
    let encoded: String = text(value, key)?.chars().filter(|c| !c.is_whitespace()).collect();
    base64::engine::general_purpose::STANDARD.decode(encoded).ok()
}

fn wrong(reason: impl Into<String>) -> Error {
    Error::corrupt("LUKS2 metadata", 4096, reason)
}

fn objects<'a>(root: &'a Value, key: &str) -> Result<&'a Map<String, Value>> {
    root.get(key).and_then(Value::as_object).ok_or_else(|| wrong(format!("it has no {key}")))
}

fn parse_json(root: &Value, header_bytes: u64, device_bytes: u64) -> Result<Header> {
    let requirements = root.get("config").and_then(|config| config.get("requirements")?.get("mandatory")?.as_array());
    if let Some(requirement) = requirements.and_then(|requirements| requirements.first()) {
        let name = requirement.as_str().unwrap_or_default();
        return Err(Error::unsupported(match name {
            _ if name.contains("reencrypt") => "a LUKS2 volume that is being reencrypted".to_owned(),
            _ => format!("LUKS2 requirement {}", name.escape_debug()),
        }));
    }
    let segments = objects(root, "segments")?;
    let is_backup = |segment: &Value| {
        let flags = segment.get("flags").and_then(Value::as_array);
        flags.is_some_and(|flags| flags.iter().filter_map(Value::as_str).any(|flag| flag.starts_with("backup-")))
    };
    let mut current = segments.iter().filter(|(_, segment)| !is_backup(segment));
    let (Some((segment_id, segment)), None) = (current.next(), current.next()) else {
        return Err(Error::unsupported(format!("a LUKS2 volume of {} segments", segments.len())));
    };
    if text(segment, "type") != Some("crypt") {
        return Err(Error::unsupported(format!("LUKS2 segment type {:?}", text(segment, "type").unwrap_or_default())));
    }
    if segment.get("integrity").is_some() {
        return Err(Error::unsupported("a LUKS2 volume with integrity tags"));
    }
    let offset = number(segment.get("offset")).ok_or_else(|| wrong("its segment has no offset"))?;
    // A header in a file of its own says 0, or an offset into another device.
    if offset < header_bytes.saturating_mul(2) {
        return Err(Error::unsupported("a LUKS header that is detached from its data"));
    }
    if offset >= device_bytes {
        return Err(wrong(format!("its data starts at byte {offset}, and there are {device_bytes}")));
    }
    let sector_bytes = number(segment.get("sector_size")).unwrap_or(512);
    if !matches!(sector_bytes, 512 | 1024 | 2048 | 4096) {
        return Err(wrong(format!("its sectors have {sector_bytes} bytes")));
    }
    let length = match segment.get("size").and_then(Value::as_str) {
        Some("dynamic") | None => None,
        Some(size) => Some(size.parse().map_err(|_| wrong("the size of its segment is no number"))?),
    };
    let (slots, refused) = key_slots(root, segment_id, device_bytes)?;
    Ok(Header {
        slots,
        refused,
        cipher: text(segment, "encryption").ok_or_else(|| wrong("its segment has no cipher"))?.to_owned(),
        sector_bytes: usize::try_from(sector_bytes).unwrap_or(512),
        offset,
        length,
        first_number: number(segment.get("iv_tweak")).unwrap_or(0),
    })
}

/// The slots that hold the key of `segment`, those of high priority first, and why others are left out.
fn key_slots(root: &Value, segment: &str, device_bytes: u64) -> Result<(Vec<Slot>, Option<String>)> {
    let names = |value: &Value, key: &str| -> Vec<String> {
        let list = value.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut slots = Vec::new();
    let mut refused = None;
    let listed = objects(root, "keyslots")?;
    for digest in objects(root, "digests")?.values() {
        if !names(digest, "segments").iter().any(|name| name == segment) {
            continue;
        }
        for name in names(digest, "keyslots") {
            let Some(slot) = listed.get(&name) else { return Err(wrong(format!("it has no key slot {name}"))) };
            let priority = number(slot.get("priority")).unwrap_or(1);
            match key_slot(slot, digest, device_bytes) {
                Ok(slot) => slots.push((priority, slot)),
                Err(error) => refused = refused.or(Some(format!("key slot {name}: {error}"))),
            }
        }
    }
    slots.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    Ok((slots.into_iter().map(|(_, slot)| slot).collect(), refused))
}

fn key_slot(slot: &Value, digest: &Value, device_bytes: u64) -> Result<Slot> {
    let part = |key: &str| slot.get(key).ok_or_else(|| wrong(format!("a key slot has no {key}")));
    let (kdf, area, af) = (part("kdf")?, part("area")?, part("af")?);
    let small = |value: &Value, key: &str| {
        let found = number(value.get(key)).and_then(|number| u32::try_from(number).ok());
        found.ok_or_else(|| wrong(format!("a key slot has no {key}")))
    };
    let named = |value: &Value, key: &str| {
        Hash::named(text(value, key).ok_or_else(|| wrong(format!("a key slot has no {key}")))?)
    };
    if text(slot, "type") != Some("luks2") || text(area, "type") != Some("raw") || text(af, "type") != Some("luks1") {
        return Err(Error::unsupported("a LUKS2 key slot of an unknown type"));
    }
    let derivation = match text(kdf, "type") {
        Some("pbkdf2") => Derivation::Pbkdf2 { hash: named(kdf, "hash")?, iterations: small(kdf, "iterations")? },
        Some(kind @ ("argon2i" | "argon2id")) => Derivation::Argon2(Argon2Cost {
            is_i: kind == "argon2i",
            passes: small(kdf, "time")?,
            kib: small(kdf, "memory")?,
            lanes: small(kdf, "cpus")?,
        }),
        other => return Err(Error::unsupported(format!("LUKS2 key derivation {other:?}"))),
    };
    let key_bytes = small(slot, "key_size")? as usize;
    let area_key_bytes = small(area, "key_size")? as usize;
    let stripes = u64::from(small(af, "stripes")?);
    let (offset, length) = (number(area.get("offset")), number(area.get("size")));
    let (Some(offset), Some(length)) = (offset, length) else { return Err(wrong("a key slot has no place")) };
    let sizes = 1..=KEY_BYTES_MAX;
    let needed = stripes.saturating_mul(key_bytes as u64).next_multiple_of(SECTOR);
    let fits = offset.checked_add(length).is_some_and(|end| end <= device_bytes) && needed <= length;
    if !sizes.contains(&key_bytes) || !sizes.contains(&area_key_bytes) || !(1..=STRIPES_MAX).contains(&stripes) || !fits
    {
        return Err(wrong("a key slot leaves its place, or its key has an impossible length"));
    }
    if text(digest, "type") != Some("pbkdf2") {
        return Err(Error::unsupported("a LUKS2 digest of an unknown type"));
    }
    let digest = KeyDigest {
        hash: named(digest, "hash")?,
        iterations: small(digest, "iterations")?,
        salt: decoded(digest, "salt").ok_or_else(|| wrong("a digest has no salt"))?,
        value: decoded(digest, "digest").ok_or_else(|| wrong("a digest has no value"))?,
    };
    if digest.value.len() < 16 || digest.value.len() > KEY_BYTES_MAX {
        return Err(wrong("a digest has an impossible length"));
    }
    Ok(Slot {
        derivation,
        salt: decoded(kdf, "salt").ok_or_else(|| wrong("a key slot has no salt"))?,
        key_bytes,
        area_key_bytes,
        cipher: text(area, "encryption").ok_or_else(|| wrong("a key slot has no cipher"))?.to_owned(),
        offset,
        stripes: usize::try_from(stripes).unwrap_or(0),
        hash: named(af, "hash")?,
        digest,
    })
}
