//! Berkeley DB files, hash and btree, of either byte order: where rpm kept its packages up to 4.16. Source: Berkeley DB's
//! `src/dbinc/db_page.h`, which is the description of its pages, and `src/dbinc/hash.h` for where buckets lie.

use std::collections::HashSet;

use crate::bytes::{be_u16, be_u32, le_u16, le_u32, slice};
use crate::error::{Error, Result};
use crate::guest::damage::Damage;
use crate::limits::Budget;
use crate::read_at::ReadAt;

const HASH_MAGIC: u32 = 0x0006_1561;
const BTREE_MAGIC: u32 = 0x0005_3162;
/// What every version's metadata page has at least.
const META_BYTES: usize = 512;
/// Entries of `spares`, one for each doubling of the table.
const SPARES: u32 = 32;
/// The header of every page; with checksums, those follow.
const PAGE_HEADER_BYTES: usize = 26;
const PAGE_HEADER_BYTES_CHECKSUM: usize = 32;
/// `metaflags`: pages have checksums.
const HAS_CHECKSUMS: u8 = 1;
/// Pages of a btree below one another: levels are counted in a byte.
const DEPTH_MAX: u32 = 255;

/// Page types.
const HASH_UNSORTED: u8 = 2;
const BTREE_INNER: u8 = 3;
const BTREE_LEAF: u8 = 5;
const OVERFLOW: u8 = 7;
const HASH: u8 = 13;

/// Types of a hash page's items.
const HASH_HERE: u8 = 1;
const HASH_ELSEWHERE: u8 = 3;
/// Types of a btree page's items; the highest bit marks a deleted one.
const BTREE_HERE: u8 = 1;
const BTREE_ELSEWHERE: u8 = 3;
const BTREE_DELETED: u8 = 0x80;

/// Visits the value of each key but 0, which is where rpm counts its packages.
///
/// # Errors
/// [`Error::Corrupt`] for a metadata page that is none, [`Error::Unsupported`] for other versions and for encryption.
pub(super) fn values(file: &dyn ReadAt, budget: &Budget, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Damage> {
    let mut meta = [0; META_BYTES];
    file.read_exact_at(&mut meta, 0).map_err(|error| error.in_structure("berkeley db metadata", 0))?;
    let database = Database::open(file, budget, &meta)?;
    let mut walk = Walk { database: &database, seen: HashSet::from([0]), damage: Damage::default() };
    if database.is_hash {
        walk.hash(&meta, visit)?;
    } else {
        walk.btree(database.order.word(&meta, 88).unwrap_or_default(), visit)?;
    }
    Ok(walk.damage)
}

#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn half(self, bytes: &[u8], at: usize) -> Option<usize> {
        let half = match self {
            Self::Little => le_u16(bytes, at),
            Self::Big => be_u16(bytes, at),
        };
        half.map(usize::from)
    }

    fn word(self, bytes: &[u8], at: usize) -> Option<u32> {
        match self {
            Self::Little => le_u32(bytes, at),
            Self::Big => be_u32(bytes, at),
        }
    }
}

struct Database<'a> {
    file: &'a dyn ReadAt,
    budget: &'a Budget,
    order: Order,
    is_hash: bool,
    page_bytes: u32,
    last_page: u32,
    page_header_bytes: usize,
}

impl<'a> Database<'a> {
    fn open(file: &'a dyn ReadAt, budget: &'a Budget, meta: &[u8; META_BYTES]) -> Result<Self> {
        let corrupt = |at: u64, reason: &str| Error::corrupt("berkeley db metadata", at, reason);
        let orders = [Order::Little, Order::Big];
        let found = orders.into_iter().find_map(|order| match order.word(meta, 12) {
            Some(HASH_MAGIC) => Some((order, true)),
            Some(BTREE_MAGIC) => Some((order, false)),
            _ => None,
        });
        let (order, is_hash) = found.ok_or_else(|| corrupt(12, "it has the magic number of neither hash nor btree"))?;
        let word = |at| order.word(meta, at).unwrap_or_default();
        let (kind, versions) = if is_hash { ("hash", 7..=10) } else { ("btree", 8..=10) };
        if !versions.contains(&word(16)) {
            return Err(Error::unsupported(format!("berkeley db {kind} version {}", word(16))));
        }
        let byte = |at: usize| meta.get(at).copied().unwrap_or_default();
        if byte(24) != 0 {
            return Err(Error::Encrypted { what: "berkeley db".to_owned() });
        }
        let page_bytes = word(20);
        if !page_bytes.is_power_of_two() || !(512..=65_536).contains(&page_bytes) {
            return Err(corrupt(20, "the size of a page is no power of two from 512 to 65536"));
        }
        let has_checksums = byte(26) & HAS_CHECKSUMS != 0;
        let page_header_bytes = if has_checksums { PAGE_HEADER_BYTES_CHECKSUM } else { PAGE_HEADER_BYTES };
        Ok(Self { file, budget, order, is_hash, page_bytes, last_page: word(32), page_header_bytes })
    }

    fn page(&self, number: u32) -> Result<Page> {
        self.budget.check_time()?;
        let offset = u64::from(number).saturating_mul(u64::from(self.page_bytes));
        if number > self.last_page {
            let reason = format!("page {number} is behind the last, {}", self.last_page);
            return Err(Error::corrupt("berkeley db page", offset, reason));
        }
        let mut bytes = vec![0; usize::try_from(self.page_bytes).unwrap_or_default()];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(|error| error.in_structure("berkeley db page", offset))?;
        let kind = bytes.get(25).copied().unwrap_or_default();
        let page = Page { order: self.order, header_bytes: self.page_header_bytes, offset, kind, bytes };
        if page.word(8) != Some(number) {
            return Err(page.corrupt(format!("it is not page {number}")));
        }
        Ok(page)
    }
}

struct Page {
    order: Order,
    header_bytes: usize,
    offset: u64,
    kind: u8,
    bytes: Vec<u8>,
}

impl Page {
    fn word(&self, at: usize) -> Option<u32> {
        self.order.word(&self.bytes, at)
    }

    fn next(&self) -> u32 {
        self.word(16).unwrap_or_default()
    }

    /// Items of the page; on an overflow page, how many pages refer to it.
    fn items(&self) -> usize {
        self.order.half(&self.bytes, 20).unwrap_or_default()
    }

    /// Where the item `index` begins.
    fn start_of(&self, index: usize) -> Result<usize> {
        let at = self.header_bytes.saturating_add(index.saturating_mul(2));
        let first = self.header_bytes.saturating_add(self.items().saturating_mul(2));
        let start = self.order.half(&self.bytes, at).filter(|start| *start >= first && *start < self.bytes.len());
        start.ok_or_else(|| self.corrupt(format!("item {index} lies outside of the page")))
    }

    /// An item of a hash page: items are stored from the end of the page on, so each ends where the one before begins.
    fn hash_item(&self, index: usize) -> Result<&[u8]> {
        let start = self.start_of(index)?;
        let end = match index.checked_sub(1) {
            Some(before) => self.start_of(before)?,
            None => self.bytes.len(),
        };
        let item = self.bytes.get(start..end).filter(|item| !item.is_empty());
        item.ok_or_else(|| self.corrupt(format!("item {index} ends before it begins")))
    }

    /// Kind and bytes of an item of a btree leaf, from its header on.
    fn leaf_item(&self, index: usize) -> Result<(u8, &[u8])> {
        let item = self.bytes.get(self.start_of(index)?..).unwrap_or_default();
        match item.get(2) {
            Some(kind) => Ok((*kind, item)),
            None => Err(self.corrupt(format!("item {index} leaves the page"))),
        }
    }

    fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::corrupt("berkeley db page", self.offset, reason)
    }
}

/// Whether a key is that of rpm's own counter: four bytes of zero.
fn is_counter(key: &[u8]) -> bool {
    key == [0; 4]
}

/// One walk; no page belongs to it twice.
struct Walk<'d, 'a> {
    database: &'d Database<'a>,
    seen: HashSet<u32>,
    damage: Damage,
}

impl Walk<'_, '_> {
    fn enter(&mut self, number: u32) -> Result<Page> {
        if self.seen.insert(number) {
            return self.database.page(number);
        }
        Err(Error::corrupt("berkeley db page", 0, format!("page {number} belongs to the database twice")))
    }

    /// Every bucket, and the pages it went on to.
    fn hash(&mut self, meta: &[u8], visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let order = self.database.order;
        let last_bucket = order.word(meta, 72).unwrap_or_default();
        if last_bucket > self.database.last_page {
            let reason = format!("{last_bucket} buckets are more than its {} pages", self.database.last_page);
            return Err(Error::corrupt("berkeley db metadata", 72, reason));
        }
        for bucket in 0..=last_bucket {
            // Buckets are made in doublings, and the pages of each doubling lie together.
            let buckets = bucket.checked_add(1).and_then(u32::checked_next_power_of_two);
            let doubling = buckets.map_or(SPARES, u32::trailing_zeros);
            let spare_at = usize::try_from(doubling.min(SPARES - 1)).unwrap_or_default().saturating_mul(4);
            let spare = order.word(meta, spare_at.saturating_add(96)).unwrap_or_default();
            let mut next = bucket.saturating_add(spare);
            while next != 0 {
                let page = self.enter(next).and_then(|page| match page.kind {
                    HASH | HASH_UNSORTED => Ok(page),
                    kind => Err(page.corrupt(format!("type {kind} is no page of a hash"))),
                });
                let Some(page) = self.damage.keep(page)? else { break };
                for key in (0..page.items()).step_by(2) {
                    let value = self.hash_value(&page, key);
                    let visited = value.and_then(|value| value.map_or(Ok(()), |value| visit(&value)));
                    self.damage.keep(visited)?;
                }
                next = page.next();
            }
        }
        Ok(())
    }

    /// The value of the key at `index`; `None` for rpm's counter.
    fn hash_value(&mut self, page: &Page, index: usize) -> Result<Option<Vec<u8>>> {
        let key = page.hash_item(index)?;
        if key.split_first().is_some_and(|(kind, key)| *kind == HASH_HERE && is_counter(key)) {
            return Ok(None);
        }
        let item = page.hash_item(index.saturating_add(1))?;
        match item.split_first() {
            Some((&HASH_HERE, value)) => Ok(Some(value.to_vec())),
            Some((&HASH_ELSEWHERE, _)) => self.overflow(page, item).map(Some),
            kind => {
                let kind = kind.map(|(kind, _)| *kind).unwrap_or_default();
                Err(page.corrupt(format!("type {kind} is no item that rpm writes")))
            }
        }
    }

    fn btree(&mut self, root: u32, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut pending = vec![(root, 0)];
        while let Some((number, depth)) = pending.pop() {
            let page = self.enter(number);
            let Some(page) = self.damage.keep(page)? else { continue };
            match page.kind {
                BTREE_LEAF => {
                    for key in (0..page.items()).step_by(2) {
                        let value = self.leaf_value(&page, key);
                        let visited = value.and_then(|value| value.map_or(Ok(()), |value| visit(&value)));
                        self.damage.keep(visited)?;
                    }
                }
                BTREE_INNER if depth < DEPTH_MAX => {
                    for index in (0..page.items()).rev() {
                        let child = page.start_of(index).and_then(|at| {
                            page.word(at.saturating_add(4)).ok_or_else(|| page.corrupt("an item leaves the page"))
                        });
                        let child = self.damage.keep(child)?;
                        pending.extend(child.map(|child| (child, depth.saturating_add(1))));
                    }
                }
                kind => self.damage.note(page.corrupt(format!("type {kind} is no page of a btree")))?,
            }
        }
        Ok(())
    }

    fn leaf_value(&mut self, page: &Page, index: usize) -> Result<Option<Vec<u8>>> {
        let here = |item| {
            let length = page.order.half(item, 0)?;
            slice(item, 3, length)
        };
        let (key_kind, key) = page.leaf_item(index)?;
        let (kind, item) = page.leaf_item(index.saturating_add(1))?;
        let is_deleted = (key_kind | kind) & BTREE_DELETED != 0;
        if is_deleted || (key_kind == BTREE_HERE && here(key).is_some_and(is_counter)) {
            return Ok(None);
        }
        match kind {
            BTREE_HERE => {
                let value = here(item).ok_or_else(|| page.corrupt("an item leaves the page"))?;
                Ok(Some(value.to_vec()))
            }
            BTREE_ELSEWHERE => self.overflow(page, item).map(Some),
            kind => Err(page.corrupt(format!("type {kind} is no item that rpm writes"))),
        }
    }

    /// The value that an item of either kind of page says to lie on overflow pages.
    fn overflow(&mut self, page: &Page, item: &[u8]) -> Result<Vec<u8>> {
        let (first, length) = (page.order.word(item, 4), page.order.word(item, 8));
        let (Some(mut next), Some(length)) = (first, length) else {
            return Err(page.corrupt("an item leaves the page"));
        };
        let bound = self.database.file.len().min(self.database.budget.limits().allocation_bytes);
        if u64::from(length) > bound {
            return Err(page.corrupt(format!("a value of {length} bytes is larger than can be")));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut value = Vec::new();
        while value.len() < length {
            let part = self.enter(next)?;
            // An overflow page has no items; in their place it says how many bytes lie on it.
            let held = part.order.half(&part.bytes, 22).unwrap_or_default();
            let held =
                slice(&part.bytes, part.header_bytes, held).filter(|held| part.kind == OVERFLOW && !held.is_empty());
            let held = held.ok_or_else(|| part.corrupt("it is no overflow page"))?;
            let wanted = length.saturating_sub(value.len()).min(held.len());
            value.extend_from_slice(held.get(..wanted).unwrap_or_default());
            next = part.next();
        }
        Ok(value)
    }
}
