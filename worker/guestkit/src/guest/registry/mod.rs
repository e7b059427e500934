//! Registry hives, read as Windows would load them at its next start: from the primary file and, where that was not let go
//! in order, from its transaction logs. Nothing is written: what the logs hold is laid over the file in memory.
//!
//! Source: Maxim Suhanov, "Windows registry file format specification" (regf), versions 1.2 (NT 3.51) to 1.6. Offsets in a
//! hive count from its first bin, 4096 bytes into the file.
//!
//! A hive is read in blocks as it is asked for, so that a few keys of a hundred megabytes cost a few blocks. What one key or
//! value contradicts is noted ([`Hive::problems`]) and the others are told; a structure that lists them is an error.

mod base;
mod log;
mod marvin;
mod value;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::block_cache::Lru;
use crate::bytes::{le_u16, le_u32, le_u64, slice};
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::Source;

use self::base::BaseBlock;
use self::log::Overlay;

pub use self::value::{Value, ValueType, filetime_seconds, utf16_text};

/// Bytes before the first bin.
const BINS_START: u64 = 4096;
/// Bytes that are read at once, and how many such blocks are held (8 MiB).
const BLOCK_BYTES: usize = 32 << 10;
const BLOCKS_HELD: usize = 256;
/// Keys below one another: as many as Windows allows.
const DEPTH_MAX: u32 = 512;
/// Keys below one key: the largest honest lists (classes, components) have some tens of thousands.
const SUBKEYS_MAX: usize = 500_000;
/// Bytes of a key node without its name.
const KEY_NODE_BYTES: usize = 76;
/// The largest key or value node that is taken in: a name of 65,535 bytes.
const NODE_BYTES_MAX: usize = KEY_NODE_BYTES + 0xffff;
/// Problems that are kept: more say nothing new.
const PROBLEMS_MAX: usize = 50;

/// Key node flags: the name is stored in one byte for each character; the number of values is something else.
const COMPRESSED_NAME: u16 = 0x20;
const PREDEFINED_HANDLE: u16 = 0x40;
/// Value node flag: the name is stored in one byte for each character.
const COMPRESSED_VALUE_NAME: u16 = 1;

/// One hive.
pub struct Hive {
    source: Source,
    budget: Arc<Budget>,
    base: BaseBlock,
    overlay: Overlay,
    blocks: Mutex<Lru<u64, Arc<[u8]>>>,
    warnings: Vec<String>,
    problems: Mutex<Vec<String>>,
    problem_count: AtomicU64,
}

impl fmt::Debug for Hive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hive").field("base", &self.base).field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

impl Hive {
    /// Opens the hive in `primary`. `logs` are asked for only where it was not let go in order: its transaction logs in the
    /// order of their names (`.LOG1` before `.LOG2`; `.LOG` alone where there is one). Where they cannot be applied the hive
    /// is read as it lies, and [`Hive::warnings`] says so.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where `primary` is no hive, or neither its base block nor one of a log can be used;
    /// [`Error::Unsupported`] for versions other than 1.2 to 1.6; limits and I/O.
    pub fn open(primary: Source, logs: impl FnOnce() -> Vec<Source>, budget: Arc<Budget>) -> Result<Self> {
        let first = base::read(&*primary)?;
        let mut warnings = Vec::new();
        let (base, overlay) = match first {
            Some(base) if !base.is_dirty() => (base, Overlay::default()),
            found => log::replay(found, &*primary, &logs(), &budget, &mut warnings)?,
        };
        base.check_version()?;
        let on_disk = primary.len().saturating_sub(BINS_START);
        if u64::from(base.bins_bytes) > on_disk && overlay.is_empty() {
            warnings.push(format!("the file ends {} bytes before its last bin", u64::from(base.bins_bytes) - on_disk));
        }
        let blocks = Mutex::new(Lru::new(BLOCKS_HELD));
        Ok(Self {
            source: primary,
            budget,
            base,
            overlay,
            blocks,
            warnings,
            problems: Mutex::default(),
            problem_count: AtomicU64::new(0),
        })
    }

    /// The root key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where there is none.
    pub fn root(&self) -> Result<Key<'_>> {
        Key::read(self, self.base.root_cell, 0)
    }

    /// The key at `path` below the root, names parted by `\`, whatever their case; `None` where there is none.
    ///
    /// # Errors
    /// As [`Key::subkey`].
    pub fn key(&self, path: &str) -> Result<Option<Key<'_>>> {
        self.root()?.descend(path)
    }

    /// Version of the format, such as `(1, 5)`.
    #[must_use]
    pub const fn version(&self) -> (u32, u32) {
        (self.base.major, self.base.minor)
    }

    /// Whether the hive was not let go in order.
    #[must_use]
    pub fn was_dirty(&self) -> bool {
        self.base.is_dirty() || !self.overlay.is_empty()
    }

    /// Pages of its transaction logs that are laid over it.
    #[must_use]
    pub fn recovered_pages(&self) -> usize {
        self.overlay.pages()
    }

    /// What is to be said of the hive as a whole.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The keys and values that were met so far and could not be read, as fragments.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often something was met that could not be read, the same thing again too.
    pub(crate) fn problem_count(&self) -> u64 {
        self.problem_count.load(Ordering::Relaxed)
    }

    /// Remembers what could not be read; a budget that is used up ends everything instead.
    fn note(&self, error: Error) -> Result<()> {
        if error.is_budget_exhausted() {
            return Err(error);
        }
        self.problem_count.fetch_add(1, Ordering::Relaxed);
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let text = error.with_causes();
        if problems.len() < PROBLEMS_MAX && !problems.contains(&text) {
            problems.push(text);
        }
        Ok(())
    }

    /// The `length` bytes at `offset`.
    fn read(&self, offset: u32, length: usize) -> Result<Vec<u8>> {
        let end = u64::from(offset).saturating_add(length as u64);
        if end > u64::from(self.base.bins_bytes) {
            let why = format!("{length} bytes there leave the {} of the hive", self.base.bins_bytes);
            return Err(Error::corrupt("registry hive", u64::from(offset), why));
        }
        let bound = self.budget.limits().allocation_bytes;
        if length as u64 > bound {
            return Err(Error::LimitReached { which: Limit::Allocation, value: bound });
        }
        let mut bytes = Vec::with_capacity(length);
        let mut at = u64::from(offset);
        while at < end {
            let block = self.block(at / BLOCK_BYTES as u64)?;
            let from = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or(0);
            let wanted = length - bytes.len();
            let part = block.get(from..).unwrap_or_default();
            let part = part.get(..wanted).unwrap_or(part);
            bytes.extend_from_slice(part);
            at += part.len() as u64;
            if part.is_empty() {
                return Err(Error::corrupt("registry hive", at, "the file ends there"));
            }
        }
        Ok(bytes)
    }

    fn block(&self, number: u64) -> Result<Arc<[u8]>> {
        let held = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).get(number);
        if let Some(block) = held {
            return Ok(block);
        }
        self.budget.check_time()?;
        let start = number * BLOCK_BYTES as u64;
        let wanted = u64::from(self.base.bins_bytes).saturating_sub(start).min(BLOCK_BYTES as u64);
        let mut block = vec![0; usize::try_from(wanted).unwrap_or(0)];
        // What a log has grown the hive by is not in the file.
        let in_file = self.source.len().saturating_sub(BINS_START.saturating_add(start)).min(wanted);
        if self.overlay.is_empty() {
            block.truncate(usize::try_from(in_file).unwrap_or(0));
        }
        if let Some(part) = block.get_mut(..usize::try_from(in_file).unwrap_or(0)).filter(|part| !part.is_empty()) {
            self.source.read_exact_at(part, BINS_START + start)?;
        }
        self.overlay.apply(start, &mut block);
        let block: Arc<[u8]> = block.into();
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&block));
        Ok(block)
    }

    /// Bytes of the cell at `offset` without its size field.
    fn cell_length(&self, offset: u32, structure: &'static str) -> Result<usize> {
        let at = u64::from(offset);
        let size = self.read(offset, 4).map_err(|error| error.in_structure(structure, at))?;
        let size = le_u32(&size, 0).map_or(0, u32::cast_signed);
        if size >= 0 {
            return Err(Error::corrupt(structure, at, "its cell is not in use"));
        }
        let size = size.unsigned_abs();
        let left = self.base.bins_bytes.saturating_sub(offset);
        if size < 8 || size > left {
            return Err(Error::corrupt(
                structure,
                at,
                format!("its cell has {size} bytes of the {left} that are left"),
            ));
        }
        Ok(usize::try_from(size).unwrap_or(usize::MAX) - 4)
    }

    /// The first bytes of the cell at `offset`, at most `length_max` of them.
    fn cell(&self, offset: u32, length_max: usize, structure: &'static str) -> Result<Vec<u8>> {
        let length = self.cell_length(offset, structure)?.min(length_max);
        self.read(offset.saturating_add(4), length)
    }
}

/// One key of a hive.
#[derive(Debug, Clone)]
pub struct Key<'h> {
    hive: &'h Hive,
    offset: u32,
    depth: u32,
    name: String,
    written: u64,
    flags: u16,
    subkeys: u32,
    subkeys_at: u32,
    values: u32,
    values_at: u32,
    class_at: u32,
    class_bytes: u16,
}

impl<'h> Key<'h> {
    fn read(hive: &'h Hive, offset: u32, depth: u32) -> Result<Self> {
        let corrupt = |why: &str| Error::corrupt("registry key", u64::from(offset), why);
        if depth > DEPTH_MAX {
            return Err(Error::LimitReached { which: Limit::DirectoryDepth, value: u64::from(DEPTH_MAX) });
        }
        let node = hive.cell(offset, NODE_BYTES_MAX, "registry key")?;
        if !node.starts_with(b"nk") {
            return Err(corrupt("it has no signature nk"));
        }
        let short = || corrupt("it is cut off");
        let word = |at: usize| le_u16(&node, at).ok_or_else(short);
        let long = |at: usize| le_u32(&node, at).ok_or_else(short);
        let flags = word(2)?;
        let name_bytes = usize::from(word(72)?);
        let name = slice(&node, KEY_NODE_BYTES, name_bytes).ok_or_else(|| corrupt("its name leaves its cell"))?;
        let has_values = flags & PREDEFINED_HANDLE == 0;
        Ok(Self {
            hive,
            offset,
            depth,
            name: name_text(name, flags & COMPRESSED_NAME != 0),
            written: le_u64(&node, 4).ok_or_else(short)?,
            flags,
            subkeys: long(20)?,
            subkeys_at: long(28)?,
            values: if has_values { long(36)? } else { 0 },
            values_at: long(40)?,
            class_at: long(48)?,
            class_bytes: word(74)?,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it or one of its values was last written: seconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn written_at(&self) -> Option<i64> {
        filetime_seconds(self.written)
    }

    /// Where its cell lies, which no other key of the hive has.
    #[must_use]
    pub const fn offset(&self) -> u32 {
        self.offset
    }

    /// Keys above it.
    #[must_use]
    pub const fn depth(&self) -> u32 {
        self.depth
    }

    /// Whether it only leads to another key (the value `SymbolicLinkValue`).
    #[must_use]
    pub const fn is_link(&self) -> bool {
        self.flags & 0x10 != 0
    }

    /// Its class name, which few keys have; `None` also where it cannot be read, which is noted.
    ///
    /// # Errors
    /// A budget that is used up.
    pub fn class(&self) -> Result<Option<String>> {
        if self.class_bytes == 0 || self.class_at == u32::MAX {
            return Ok(None);
        }
        match self.hive.cell(self.class_at, usize::from(self.class_bytes), "registry key's class name") {
            Ok(bytes) => Ok(Some(utf16_text(&bytes))),
            Err(error) => self.hive.note(error).map(|()| None),
        }
    }

    /// The key called `name` below this one, whatever its case; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the list of keys cannot be read; limits and I/O.
    pub fn subkey(&self, name: &str) -> Result<Option<Self>> {
        let wanted = Name::new(name);
        let leaves = self.leaves()?;
        // Whoever wrote a wrong hash wrote a key that Windows does not find; other tools find it, and so do we.
        for by_hash in [true, false] {
            for entry in &leaves {
                let is_hashed_away = entry.hash.is_some_and(|hash| hash != wanted.hash);
                if is_hashed_away == by_hash {
                    continue;
                }
                match Self::read(self.hive, entry.offset, self.depth + 1) {
                    Ok(key) if wanted.is(&key.name) => return Ok(Some(key)),
                    Ok(_) => {}
                    Err(error @ Error::LimitReached { .. }) => return Err(error),
                    Err(error) => self.hive.note(error)?,
                }
            }
        }
        Ok(None)
    }

    /// The key at `path` below this one, names parted by `\`; an empty path is the key itself.
    ///
    /// # Errors
    /// As [`Key::subkey`].
    pub fn descend(&self, path: &str) -> Result<Option<Self>> {
        let mut key = self.clone();
        for name in path.split('\\').filter(|name| !name.is_empty()) {
            match key.subkey(name)? {
                Some(below) => key = below,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }

    /// The keys below this one, in stored order, which is that of their names. Those that cannot be read are noted.
    ///
    /// # Errors
    /// As [`Key::subkey`].
    pub fn subkeys(&self) -> Result<Vec<Self>> {
        let mut keys = Vec::new();
        for entry in self.leaves()? {
            match Self::read(self.hive, entry.offset, self.depth + 1) {
                Ok(key) => keys.push(key),
                Err(error @ Error::LimitReached { .. }) => return Err(error),
                Err(error) => self.hive.note(error)?,
            }
        }
        Ok(keys)
    }

    /// Its values, in stored order. Those that cannot be read are noted.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the list of values cannot be read; limits and I/O.
    pub fn values(&self) -> Result<Vec<Value<'h>>> {
        let mut values = Vec::new();
        for offset in self.value_offsets()? {
            match Value::read(self.hive, offset) {
                Ok(value) => values.push(value),
                Err(error) => self.hive.note(error)?,
            }
        }
        Ok(values)
    }

    /// The value called `name`, whatever its case; an empty name is the default value.
    ///
    /// # Errors
    /// As [`Key::values`].
    pub fn value(&self, name: &str) -> Result<Option<Value<'h>>> {
        let wanted = Name::new(name);
        for offset in self.value_offsets()? {
            match Value::read(self.hive, offset) {
                Ok(value) if wanted.is(value.name()) => return Ok(Some(value)),
                Ok(_) => {}
                Err(error) => self.hive.note(error)?,
            }
        }
        Ok(None)
    }

    fn value_offsets(&self) -> Result<Vec<u32>> {
        if self.values == 0 {
            return Ok(Vec::new());
        }
        let structure = "registry value list";
        let at = u64::from(self.values_at);
        let length = self.hive.cell_length(self.values_at, structure)?;
        let wanted = usize::try_from(self.values).unwrap_or(usize::MAX).saturating_mul(4);
        if wanted > length {
            let why = format!("{} values do not fit into its {length} bytes", self.values);
            return Err(Error::corrupt(structure, at, why));
        }
        let list = self.hive.read(self.values_at.saturating_add(4), wanted)?;
        Ok(list.as_chunks::<4>().0.iter().map(|entry| u32::from_le_bytes(*entry)).collect())
    }

    /// What the list of keys points to, lists of lists followed.
    fn leaves(&self) -> Result<Vec<Leaf>> {
        let mut leaves = Vec::new();
        if self.subkeys == 0 || self.subkeys_at == u32::MAX {
            return Ok(leaves);
        }
        let structure = "registry key list";
        let (signature, list) = self.list(self.subkeys_at)?;
        if signature != *b"ri" {
            read_leaf(signature, &list, &mut leaves);
            self.hive.budget.charge_entries(leaves.len())?;
            return Ok(leaves);
        }
        let mut seen = HashSet::new();
        for entry in list.as_chunks::<4>().0 {
            let at = u32::from_le_bytes(*entry);
            self.hive.budget.check_time()?;
            let (signature, list) = self.list(at)?;
            if signature == *b"ri" || !seen.insert(at) {
                return Err(Error::corrupt(structure, u64::from(at), "a list of lists holds itself"));
            }
            read_leaf(signature, &list, &mut leaves);
            if leaves.len() > SUBKEYS_MAX {
                return Err(Error::LimitReached { which: Limit::Entries, value: SUBKEYS_MAX as u64 });
            }
        }
        self.hive.budget.charge_entries(leaves.len())?;
        Ok(leaves)
    }

    /// Signature and elements of the list at `offset`.
    fn list(&self, offset: u32) -> Result<([u8; 2], Vec<u8>)> {
        let structure = "registry key list";
        let corrupt = |why: String| Error::corrupt(structure, u64::from(offset), why);
        let length = self.hive.cell_length(offset, structure)?;
        let header = self.hive.read(offset.saturating_add(4), 4)?;
        let [first, second, low, high] = *header else { return Err(corrupt("it is cut off".to_owned())) };
        let signature = [first, second];
        let element = match &signature {
            b"li" | b"ri" => 4,
            b"lf" | b"lh" => 8,
            _ => return Err(corrupt(format!("signature {first:#04x} {second:#04x} is none of li, lf, lh and ri"))),
        };
        let count = u16::from_le_bytes([low, high]);
        let bytes = usize::from(count) * element;
        if bytes > length.saturating_sub(4) {
            return Err(corrupt(format!("{count} entries do not fit into its {length} bytes")));
        }
        Ok((signature, self.hive.read(offset.saturating_add(8), bytes)?))
    }
}

/// One entry of a list of keys.
struct Leaf {
    offset: u32,
    /// Of the name, where the list has it.
    hash: Option<u32>,
}

fn read_leaf(signature: [u8; 2], list: &[u8], leaves: &mut Vec<Leaf>) {
    if signature == *b"li" {
        let offsets = list.as_chunks::<4>().0.iter().map(|entry| u32::from_le_bytes(*entry));
        leaves.extend(offsets.map(|offset| Leaf { offset, hash: None }));
        return;
    }
    leaves.extend(list.as_chunks::<8>().0.iter().map(|[a, b, c, d, hash @ ..]| Leaf {
        offset: u32::from_le_bytes([*a, *b, *c, *d]),
        // The four letters of an lf are hints for people: tools write them in either case, or not at all.
        hash: (signature == *b"lh").then(|| u32::from_le_bytes(*hash)),
    }));
}

/// A name that is looked for.
struct Name {
    capitals: String,
    hash: u32,
}

impl Name {
    fn new(name: &str) -> Self {
        let capitals: String = name.chars().map(capital).collect();
        // Specification, "Hash leaf": times 37 plus each unit of the name in capitals.
        let hash =
            capitals.encode_utf16().fold(0_u32, |hash, unit| hash.wrapping_mul(37).wrapping_add(u32::from(unit)));
        Self { capitals, hash }
    }

    fn is(&self, name: &str) -> bool {
        self.capitals.chars().eq(name.chars().map(capital))
    }
}

/// The capital of a letter that has one of its own.
fn capital(letter: char) -> char {
    let mut capitals = letter.to_uppercase();
    match (capitals.next(), capitals.next()) {
        (Some(one), None) => one,
        _ => letter,
    }
}

/// A name as it is stored: one byte for each character (the first 256 of Unicode), or UTF-16.
fn name_text(bytes: &[u8], is_compressed: bool) -> String {
    if is_compressed {
        return bytes.iter().copied().map(char::from).collect();
    }
    let units = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
mod tests;
