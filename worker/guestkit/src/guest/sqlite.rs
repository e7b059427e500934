//! SQLite databases, read only and without SQLite: the rows of a table in order of rowid, as the next connection would see
//! them. What a write-ahead log committed is laid over the file, what an interrupted transaction left in a rollback journal
//! is taken back, both in memory. A damaged page loses the rows on it and no others.
//!
//! Source: "Database File Format" and "WAL-mode File Format" (<https://sqlite.org/fileformat2.html>,
//! <https://sqlite.org/walformat.html>).

mod journal;
mod record;
mod wal;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::bytes::{be_u16, be_u32, has, slice};
use crate::error::{Error, Result};
use crate::guest::damage::Damage;
use crate::limits::Budget;
use crate::read_at::ReadAt;

use record::{Values, varint};

/// What every database begins with (section 1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Bytes of the header on page 1.
const HEADER_BYTES: usize = 100;
/// Pages below one another in a b-tree: SQLite's own bound (BTCURSOR_MAX_DEPTH).
const DEPTH_MAX: u32 = 20;
/// The largest page there is.
const PAGE_BYTES_MAX: u32 = 65_536;

/// A database, opened.
#[derive(Debug)]
pub(crate) struct Database<'a> {
    file: &'a dyn ReadAt,
    budget: &'a Budget,
    page_bytes: u32,
    /// Bytes of a page that b-trees use.
    usable: usize,
    encoding: Encoding,
    pages: u32,
    /// Pages that are not as the file has them; the first that has a page holds its newest image.
    overlays: Vec<Overlay<'a>>,
    log_is_invalid: bool,
}

/// How text is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf16Le,
    Utf16Be,
}

/// Images of pages in another file.
#[derive(Debug)]
struct Overlay<'a> {
    file: &'a dyn ReadAt,
    page_bytes: u32,
    /// Where in that file the image of a page lies.
    images: HashMap<u32, u64>,
    /// Pages of the whole database.
    pages: u32,
}

/// The files of a database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DatabaseFiles<'a> {
    /// The database itself.
    pub(crate) main: &'a dyn ReadAt,
    /// The write-ahead log beside it (`-wal`).
    pub(crate) log: Option<&'a dyn ReadAt>,
    /// The rollback journal beside it (`-journal`).
    pub(crate) journal: Option<&'a dyn ReadAt>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    root: u32,
    columns: Vec<String>,
    /// The column that is another name of the rowid.
    rowid: Option<usize>,
}

/// A row.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    rowid: i64,
    rowid_column: Option<usize>,
    values: Values<'a>,
}

/// A value, as its storage class has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(&'a [u8]),
}

impl Value<'_> {
    /// The text; `None` for another class.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number; `None` for another class.
    pub(crate) const fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }
}

impl<'a> Row<'a> {
    /// The value of a column, as [`Table::column`] numbers them; null for a column that was added after the row.
    pub(crate) fn get(&self, column: usize) -> Value<'a> {
        match self.values.get(column) {
            Value::Null if self.rowid_column == Some(column) => Value::Integer(self.rowid),
            value => value,
        }
    }
}

impl Table {
    /// The number of the column `name`, in any case, counted from 0.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.eq_ignore_ascii_case(name))
    }

    fn of_schema() -> Self {
        let columns = ["type", "name", "tbl_name", "rootpage", "sql"].map(str::to_owned).to_vec();
        Self { root: 1, columns, rowid: None }
    }
}

impl<'a> Database<'a> {
    /// Opens a database; reads its header, and what was committed beside it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a header that is none, [`Error::Unsupported`] for a format newer than version 2.
    pub(crate) fn open(files: DatabaseFiles<'a>, budget: &'a Budget) -> Result<Self> {
        let mut overlays = Vec::new();
        let mut log_is_invalid = false;
        if let Some(log) = files.log {
            match wal::committed(log, budget)? {
                wal::Log::Pages(overlay) => overlays.push(overlay),
                wal::Log::Empty => {}
                wal::Log::Invalid => log_is_invalid = true,
            }
        }
        if let Some(journal) = files.journal {
            overlays.extend(journal::to_roll_back(journal, budget)?);
        }
        let first = overlays.iter().find_map(|overlay| Some((overlay.file, *overlay.images.get(&1)?)));
        let (file, at) = first.unwrap_or((files.main, 0));
        if file.len().saturating_sub(at) < HEADER_BYTES as u64 {
            let found = file.len().saturating_sub(at);
            return Err(Error::corrupt("sqlite header", at, format!("the file has only {found} bytes")));
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, at)?;
        let header = Header::parse(&header)?;
        if let Some(other) = overlays.iter().find(|overlay| overlay.page_bytes != header.page_bytes) {
            let reason = format!("its pages have {} bytes, those beside it {}", header.page_bytes, other.page_bytes);
            return Err(Error::corrupt("sqlite header", 16, reason));
        }
        let in_file = files.main.len() / u64::from(header.page_bytes);
        let in_file = u32::try_from(in_file).unwrap_or(u32::MAX);
        let pages = overlays.first().map(|overlay| overlay.pages).or(header.pages).unwrap_or(in_file);
        Ok(Self {
            file: files.main,
            budget,
            page_bytes: header.page_bytes,
            usable: header.usable,
            encoding: header.encoding,
            pages,
            overlays,
            log_is_invalid,
        })
    }

    /// Whether there is a write-ahead log that is none: SQLite would begin a new one, and so it says nothing here.
    pub(crate) const fn log_is_invalid(&self) -> bool {
        self.log_is_invalid
    }

    /// The table `name`, in any case; `None` where there is none.
    ///
    /// # Errors
    /// What the schema table meets, where the table was not found in the rest of it.
    pub(crate) fn table(&self, name: &str) -> Result<Option<Table>> {
        let mut found = None;
        let damage = self.rows(&Table::of_schema(), &mut |row| {
            let is_it = row.get(0).text() == Some("table")
                && row.get(1).text().is_some_and(|text| text.eq_ignore_ascii_case(name));
            if is_it && found.is_none() {
                let root = row.get(3).integer().and_then(|root| u32::try_from(root).ok());
                let root = root
                    .filter(|root| *root > 0)
                    .ok_or_else(|| Error::corrupt("sqlite schema", 0, format!("the table {name} has no root page")))?;
                let (columns, rowid) = columns(row.get(4).text().unwrap_or_default());
                found = Some(Table { root, columns, rowid });
            }
            Ok(())
        })?;
        match (found, damage.first) {
            (None, Some(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }

    /// Visits the rows of `table` in order of rowid; `visit` may refuse a row, which is then damage as well.
    ///
    /// # Errors
    /// [`Error::LimitReached`] where a budget of the whole disk is used up.
    pub(crate) fn rows(&self, table: &Table, visit: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<Damage> {
        let mut walk = Walk { database: self, seen: HashSet::new(), damage: Damage::default() };
        let mut pending = vec![(table.root, 0)];
        while let Some((number, depth)) = pending.pop() {
            self.budget.check_time()?;
            let page = walk.enter(number).and_then(|()| TreePage::read(self, number));
            let Some(page) = walk.damage.keep(page)? else { continue };
            if page.is_leaf {
                walk.leaf(table, &page, visit)?;
            } else if depth >= DEPTH_MAX {
                let reason = format!("more than {DEPTH_MAX} pages below one another");
                walk.damage.note(Error::corrupt("sqlite b-tree", page.offset, reason))?;
            } else if let Some(children) = walk.damage.keep(page.children())? {
                pending.extend(children.into_iter().rev().map(|child| (child, depth.saturating_add(1))));
            }
        }
        Ok(walk.damage)
    }

    /// The newest image of a page.
    fn page(&self, number: u32) -> Result<Vec<u8>> {
        let offset = u64::from(number).saturating_sub(1).saturating_mul(u64::from(self.page_bytes));
        if number == 0 || number > self.pages {
            let reason = format!("page {number} is none of {}", self.pages);
            return Err(Error::corrupt("sqlite page", offset, reason));
        }
        let image = self.overlays.iter().find_map(|overlay| Some((overlay.file, *overlay.images.get(&number)?)));
        let (file, at) = image.unwrap_or((self.file, offset));
        let mut page = vec![0; usize::try_from(self.page_bytes).unwrap_or_default()];
        let read = file.read_exact_at(&mut page, at);
        read.map_err(|error| error.in_structure("sqlite page", at))?;
        Ok(page)
    }
}

/// The header of page 1 (section 1.3).
struct Header {
    page_bytes: u32,
    usable: usize,
    encoding: Encoding,
    /// Pages, where the header is sure of their number.
    pages: Option<u32>,
}

impl Header {
    fn parse(header: &[u8; HEADER_BYTES]) -> Result<Self> {
        let corrupt = |at: u64, reason: String| Error::corrupt("sqlite header", at, reason);
        if !has(header, 0, MAGIC) {
            return Err(corrupt(0, "it does not begin with \"SQLite format 3\"".to_owned()));
        }
        let word = |at| be_u32(header, at).unwrap_or_default();
        let page_bytes = page_bytes(u32::from(be_u16(header, 16).unwrap_or_default()))
            .ok_or_else(|| corrupt(16, "the size of a page is no power of two from 512 to 65536".to_owned()))?;
        let byte = |at: usize| header.get(at).copied().unwrap_or_default();
        if byte(19) > 2 {
            return Err(Error::unsupported(format!("sqlite format version {}", byte(19))));
        }
        // At least 480 bytes of each page are usable.
        let usable = page_bytes.checked_sub(u32::from(byte(20))).filter(|usable| *usable >= 480);
        let usable = usable.ok_or_else(|| corrupt(20, "nearly all of each page is reserved".to_owned()))?;
        let encoding = match word(56) {
            // 0 stands in a database that was never written to.
            0 | 1 => Encoding::Utf8,
            2 => Encoding::Utf16Le,
            3 => Encoding::Utf16Be,
            other => return Err(corrupt(56, format!("there is no text encoding {other}"))),
        };
        // The number of pages counts only if it was written with the change that was counted last (section 1.3.7).
        let pages = Some(word(28)).filter(|pages| *pages > 0 && word(24) == word(92));
        let usable = usize::try_from(usable).unwrap_or_default();
        Ok(Self { page_bytes, usable, encoding, pages })
    }
}

/// The size of a page as headers spell it: 1 stands for 65536.
fn page_bytes(stored: u32) -> Option<u32> {
    let bytes = if stored == 1 { PAGE_BYTES_MAX } else { stored };
    (bytes.is_power_of_two() && (512..=PAGE_BYTES_MAX).contains(&bytes)).then_some(bytes)
}

/// A page of a table's b-tree (section 1.6).
struct TreePage {
    bytes: Vec<u8>,
    /// Where it lies in the database, for messages.
    offset: u64,
    /// Where its own header begins: behind the database's on page 1.
    start: usize,
    is_leaf: bool,
    cells: u16,
}

impl TreePage {
    fn read(database: &Database<'_>, number: u32) -> Result<Self> {
        let bytes = database.page(number)?;
        let offset = u64::from(number).saturating_sub(1).saturating_mul(u64::from(database.page_bytes));
        let start = if number == 1 { HEADER_BYTES } else { 0 };
        let is_leaf = match bytes.get(start) {
            Some(13) => true,
            Some(5) => false,
            other => {
                let reason = format!("{} is no page of a table", other.copied().unwrap_or_default());
                return Err(Error::corrupt("sqlite b-tree page", offset, reason));
            }
        };
        let cells = be_u16(&bytes, start.saturating_add(3)).unwrap_or_default();
        Ok(Self { bytes, offset, start, is_leaf, cells })
    }

    /// Where each cell begins.
    fn cells(&self) -> impl Iterator<Item = Result<usize>> + '_ {
        let pointers = self.start.saturating_add(if self.is_leaf { 8 } else { 12 });
        (0..usize::from(self.cells)).map(move |cell| {
            let at = pointers.saturating_add(cell.saturating_mul(2));
            let pointer = be_u16(&self.bytes, at).map(usize::from);
            let pointer = pointer.filter(|pointer| *pointer >= pointers && *pointer < self.bytes.len());
            pointer.ok_or_else(|| self.corrupt(format!("cell {cell} lies outside of the page")))
        })
    }

    /// The pages below an inner one, in order.
    fn children(&self) -> Result<Vec<u32>> {
        let last = be_u32(&self.bytes, self.start.saturating_add(8));
        let inner = self.cells().map(|cell| {
            cell.and_then(|at| be_u32(&self.bytes, at).ok_or_else(|| self.corrupt("a cell leaves the page")))
        });
        inner.chain(last.map(Ok)).collect()
    }

    fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::corrupt("sqlite b-tree page", self.offset, reason)
    }
}

/// One walk over a table. No page belongs to it twice, which bounds what a damaged tree can make of it.
struct Walk<'d, 'a> {
    database: &'d Database<'a>,
    seen: HashSet<u32>,
    damage: Damage,
}

impl Walk<'_, '_> {
    fn enter(&mut self, number: u32) -> Result<()> {
        if self.seen.insert(number) {
            return Ok(());
        }
        Err(Error::corrupt("sqlite b-tree", 0, format!("page {number} belongs to it twice")))
    }

    fn leaf(&mut self, table: &Table, page: &TreePage, visit: &mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<()> {
        for cell in page.cells() {
            let cell = cell.and_then(|at| self.cell(page, at));
            let Some((rowid, payload)) = self.damage.keep(cell)? else { continue };
            let values = Values::parse(&payload, self.database.encoding);
            let values = values.ok_or_else(|| page.corrupt(format!("the record of row {rowid} is none")));
            let visited = values.and_then(|values| visit(&Row { rowid, rowid_column: table.rowid, values }));
            self.damage.keep(visited)?;
        }
        Ok(())
    }

    /// The rowid and the payload of a leaf's cell, joined from its overflow pages (section 1.6).
    fn cell<'p>(&mut self, page: &'p TreePage, at: usize) -> Result<(i64, Cow<'p, [u8]>)> {
        let cut = || page.corrupt("a cell leaves the page");
        let cell = page.bytes.get(at..).ok_or_else(cut)?;
        let (length, first) = varint(cell).ok_or_else(cut)?;
        let (rowid, second) = cell.get(first..).and_then(varint).ok_or_else(cut)?;
        let start = first.saturating_add(second);
        let whole = u64::from(self.database.pages).saturating_mul(u64::from(self.database.page_bytes));
        if length > whole || length > self.database.budget.limits().allocation_bytes {
            return Err(page.corrupt(format!("a row of {length} bytes is larger than can be")));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let local = local_bytes(length, self.database.usable);
        let kept = slice(cell, start, local).ok_or_else(cut)?;
        let rowid = rowid.cast_signed();
        if local == length {
            return Ok((rowid, Cow::Borrowed(kept)));
        }
        let mut next = be_u32(cell, start.saturating_add(local)).ok_or_else(cut)?;
        let mut payload = kept.to_vec();
        while payload.len() < length {
            self.enter(next)?;
            let overflow = self.database.page(next)?;
            let wanted = length.saturating_sub(payload.len()).min(self.database.usable.saturating_sub(4));
            payload.extend_from_slice(slice(&overflow, 4, wanted).ok_or_else(cut)?);
            next = be_u32(&overflow, 0).unwrap_or_default();
        }
        Ok((rowid, Cow::Owned(payload)))
    }
}

/// Bytes of a payload that lie on the leaf itself: the rest is on overflow pages (section 1.6, "X", "M" and "K").
fn local_bytes(length: usize, usable: usize) -> usize {
    let most = usable.saturating_sub(35);
    if length <= most {
        return length;
    }
    let least = (usable.saturating_sub(12).saturating_mul(32) / 255).saturating_sub(23);
    let rest = length.saturating_sub(least).checked_rem(usable.saturating_sub(4)).unwrap_or_default();
    let local = least.saturating_add(rest);
    if local <= most { local } else { least }
}

/// The columns of a CREATE TABLE statement, and the one that is the rowid by another name: `INTEGER PRIMARY KEY`.
fn columns(sql: &str) -> (Vec<String>, Option<usize>) {
    let body = sql.split_once('(').map_or("", |(_, body)| body);
    let mut names = Vec::new();
    let mut rowid = None;
    for definition in definitions(body) {
        let (name, rest) = first_word(definition);
        let upper = rest.to_ascii_uppercase();
        let is_quoted = definition.trim_start().starts_with(['"', '\'', '`', '[']);
        let is_constraint =
            ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"].iter().any(|word| name.eq_ignore_ascii_case(word));
        if name.is_empty() || (is_constraint && !is_quoted) {
            continue;
        }
        let mut words = upper.split_whitespace();
        if words.next() == Some("INTEGER") && upper.contains("PRIMARY KEY") && !upper.contains(" DESC") {
            rowid = Some(names.len());
        }
        names.push(name.to_owned());
    }
    (names, rowid)
}

/// Splits at the commas that are in no parentheses and no quotes, up to the parenthesis that closes the statement.
fn definitions(body: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start, mut quote) = (0_u32, 0, None);
    for (at, character) in body.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(character),
            (None, '[') => quote = Some(']'),
            (None, '(') => depth = depth.saturating_add(1),
            (None, ')') if depth == 0 => {
                parts.extend(body.get(start..at));
                return parts;
            }
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.extend(body.get(start..at));
                start = at.saturating_add(1);
            }
            (None, _) => {}
        }
    }
    parts
}

/// The name a definition begins with, without its quotes, and what follows.
fn first_word(definition: &str) -> (&str, &str) {
    let text = definition.trim_start();
    let quoted = |open: char, close: char| text.strip_prefix(open).and_then(|rest| rest.split_once(close));
    let found = quoted('"', '"').or_else(|| quoted('\'', '\'')).or_else(|| quoted('`', '`'));
    if let Some(found) = found.or_else(|| quoted('[', ']')) {
        return found;
    }
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests;
