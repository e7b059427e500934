//! The boot sector, the master file table, and values of any length on the clusters of one volume.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::attribute::{Attribute, Content, ListEntry, Record, Run, Stream, kind, parse_list};
use super::lznt1;
use super::wof::{ChunkTable, Wof};
use crate::block_cache::Lru;
use crate::bytes::{has, le_u16, le_u64};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, Source, read_up_to};

/// Records whose second copy `$MFTMirr` holds.
const MIRRORED: u64 = 4;
/// Bytes of the largest attribute list; Windows writes none that is longer.
const LIST_BYTES_MAX: u64 = 256 << 10;
/// Decompressed pieces held, for readers whose pieces are not ours; one is 64 KiB as a rule and 1 MiB at most.
const PIECES_HELD: usize = 16;
/// Compressed bytes that are read at once where many chunks lie behind one another.
const CHUNKS_BYTES: usize = 256 << 10;

/// What the boot sector tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) cluster_bytes: u64,
    pub(super) clusters: u64,
    record_bytes: u64,
    mft: u64,
    mirror: u64,
}

impl Boot {
    /// Parses a boot sector.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for sizes that no volume has.
    fn parse(sector: &[u8]) -> Result<Self> {
        let corrupt = |reason: &str| Error::corrupt("NTFS boot sector", 0, reason);
        if !has(sector, 3, b"NTFS    ") {
            return Err(corrupt("it has no signature"));
        }
        let byte = |at: usize| sector.get(at).copied().unwrap_or(0);
        // ntfs-3g makes and reads sectors of 256 bytes too.
        let sector_bytes = u64::from(le_u16(sector, 11).unwrap_or(0));
        if !sector_bytes.is_power_of_two() || !(256..=4096).contains(&sector_bytes) {
            return Err(corrupt("its sectors have no sound size"));
        }
        let cluster_sectors = sized(byte(13), 0x80, 1);
        let cluster_bytes = cluster_sectors.and_then(|sectors| sectors.checked_mul(sector_bytes));
        let cluster_bytes = cluster_bytes
            .filter(|bytes| bytes.is_power_of_two() && *bytes <= 2 << 20)
            .ok_or_else(|| corrupt("its clusters have no sound size"))?;
        let record_bytes = sized(byte(64), 0x7f, cluster_bytes)
            .filter(|bytes| bytes.is_power_of_two() && (512..=4096).contains(bytes))
            .ok_or_else(|| corrupt("its MFT records have no sound size"))?;
        let field = |at: usize| le_u64(sector, at).ok_or_else(|| corrupt("it is too short"));
        let bytes = field(40)?.checked_mul(sector_bytes).filter(|bytes| i64::try_from(*bytes).is_ok());
        let bytes = bytes.ok_or_else(|| corrupt("its volume has no sound size"))?;
        let place = |at: usize| {
            let place = field(at)?.checked_mul(cluster_bytes).filter(|place| *place < bytes);
            place.ok_or_else(|| corrupt("its MFT lies outside of the volume"))
        };
        Ok(Self {
            cluster_bytes,
            clusters: bytes / cluster_bytes,
            record_bytes,
            mft: place(48)?,
            mirror: place(56).unwrap_or(0),
        })
    }
}

/// The boot sector's copy, where the boot sector itself is lost: in the last sector of the partition ("NTFS.com", "Partition
/// Boot Sector"; Windows 2000 and later). Only one that leads to a record of `$MFT` counts.
///
/// # Errors
/// Whatever reading the device gives.
pub(in crate::filesystem) fn lost_boot_sector(device: &dyn ReadAt) -> Result<Option<Vec<u8>>> {
    for sector_bytes in [512, 4096] {
        let last = (device.len() / sector_bytes).saturating_sub(1).saturating_mul(sector_bytes);
        let sector = read_up_to(device, last, 512)?;
        let Ok(boot) = Boot::parse(&sector) else { continue };
        for place in [boot.mft, boot.mirror] {
            if has(&read_up_to(device, place, 4)?, 0, b"FILE") {
                return Ok(Some(sector));
            }
        }
    }
    Ok(None)
}

/// A number of units up to `most`, or the negative of a power of two: of sectors, or of bytes for a record.
fn sized(raw: u8, most: u8, unit: u64) -> Option<u64> {
    match raw {
        0 => None,
        raw if raw <= most => u64::from(raw).checked_mul(unit),
        raw => 1_u64.checked_shl(u32::from(raw.wrapping_neg())),
    }
}

/// Pieces of values, by the value's key and the piece's number in it.
pub(super) type Pieces = Lru<(u64, u64), Arc<[u8]>>;

/// The clusters of a volume and its master file table.
pub(super) struct Volume {
    source: Source,
    pub(super) budget: Arc<Budget>,
    pub(super) boot: Boot,
    mft: Stream,
    warnings: Mutex<Vec<String>>,
    pieces: Mutex<Pieces>,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("boot", &self.boot).finish_non_exhaustive()
    }
}

/// The attributes of a file, those in its extension records with them.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: u64,
    pub(super) sequence: u16,
    pub(super) links: u16,
    pub(super) is_directory: bool,
    pub(super) attributes: Vec<Attribute>,
}

impl Node {
    /// The first piece of an attribute, which tells the size of the whole.
    pub(super) fn first(&self, kind: u32, name: &[u16]) -> Option<&Attribute> {
        self.attributes.iter().filter(|attribute| attribute.is(kind, name)).min_by_key(|piece| piece.first_vcn())
    }

    /// Bytes of memory that it holds.
    pub(super) fn weight(&self) -> usize {
        self.attributes.iter().map(Attribute::weight).sum()
    }
}

impl Volume {
    /// Reads the boot sector and finds all of the master file table.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where neither `$MFT` nor its mirror begins with a sound record; limits and I/O.
    pub(super) fn open(source: Source, budget: Arc<Budget>) -> Result<Self> {
        let mut copied = None;
        let boot = match Boot::parse(&read_up_to(&*source, 0, 512)?) {
            Ok(boot) => boot,
            Err(error) => {
                copied = Some(format!("{error}; its copy at the end of the volume was taken"));
                Boot::parse(&lost_boot_sector(&*source)?.ok_or(error)?)?
            }
        };
        let mut volume = Self {
            source,
            budget,
            boot,
            mft: Stream { size: 0, initialised: 0, encrypted: false, content: Content::Plain(Vec::new()) },
            warnings: Mutex::new(Vec::new()),
            pieces: Mutex::new(Lru::new(PIECES_HELD)),
        };
        if let Some(warning) = copied {
            volume.warn(warning);
        }
        let size_bytes = boot.clusters.saturating_mul(boot.cluster_bytes);
        if size_bytes > volume.source.len() {
            volume.warn(format!("the volume has {size_bytes} bytes, its device only {}", volume.source.len()));
        }
        let record = volume.record_at(boot.mft).or_else(|error| volume.mirrored(0, error))?;
        volume.mft = volume.find_mft(record)?;
        Ok(volume)
    }

    pub(super) fn warn(&self, warning: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record_at(&self, at: u64) -> Result<Record> {
        Record::parse(read_whole(&self.source, at, self.boot.record_bytes)?, at)
    }

    /// The copy of a record in `$MFTMirr`, in place of one that is broken.
    fn mirrored(&self, number: u64, error: Error) -> Result<Record> {
        if number >= MIRRORED || !matches!(error, Error::Corrupt { .. }) || self.boot.mirror == 0 {
            return Err(error);
        }
        let at = self.boot.mirror.saturating_add(number.saturating_mul(self.boot.record_bytes));
        let record = self.record_at(at).map_err(|_| error)?;
        self.warn(format!("MFT record {number} is broken; its copy in $MFTMirr was taken"));
        Ok(record)
    }

    /// The whole of `$MFT`'s own contents. A fragmented one has an attribute list, and each record that it names lies in
    /// what the pieces before it map.
    fn find_mft(&self, base: Record) -> Result<Stream> {
        let at = self.boot.mft;
        let Some(list) = base.attributes.iter().find(|attribute| attribute.kind == kind::ATTRIBUTE_LIST) else {
            let pieces = base.attributes.iter().filter(|attribute| attribute.is(kind::DATA, &[]));
            return self.assemble(pieces, at);
        };
        let mut entries = parse_list(&self.list(list, at)?, at)?;
        entries.retain(|entry| entry.kind == kind::DATA && entry.name.is_empty());
        entries.sort_by_key(|entry| entry.first_vcn);
        let mut records = BTreeMap::from([(0, base)]);
        let mut pieces: Vec<Attribute> = Vec::new();
        for entry in &entries {
            if !records.contains_key(&entry.record.record) {
                let known = self.assemble(&pieces, at)?;
                let (number, bytes) = (entry.record.record, self.boot.record_bytes);
                let place = number.saturating_mul(bytes);
                let mut raw = self.budget.allocate(bytes)?;
                self.read_mapped(known.runs(), &mut raw, place)?;
                records.insert(number, self.check_extension(Record::parse(raw, place)?, entry, 0)?);
            }
            let record = records.get_mut(&entry.record.record);
            pieces.push(record.and_then(|record| take(record, entry)).ok_or_else(|| missing(0, at))?);
        }
        self.assemble(&pieces, at)
    }

    /// The record `number`, or its copy where that is broken and has one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where there is none.
    fn record(&self, number: u64) -> Result<Record> {
        let bytes = self.boot.record_bytes;
        let at = number.checked_mul(bytes).filter(|at| at.saturating_add(bytes) <= self.mft.size);
        let at = at.ok_or_else(|| Error::corrupt("NTFS MFT", 0, format!("it has no record {number}")))?;
        let mut raw = self.budget.allocate(bytes)?;
        self.read(&self.mft, 0, &mut raw, at)?;
        Record::parse(raw, at).or_else(|error| self.mirrored(number, error))
    }

    /// The file whose base record is `number`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where no file has it, or an attribute that it lists is missing.
    pub(super) fn node(&self, number: u64) -> Result<Node> {
        let at = number.saturating_mul(self.boot.record_bytes);
        let mut base = self.record(number)?;
        if !base.in_use {
            return Err(Error::corrupt("NTFS MFT record", at, format!("record {number} is not in use")));
        }
        if let Some(other) = base.base {
            let reason = format!("record {number} belongs to the file {}", other.record);
            return Err(Error::corrupt("NTFS MFT record", at, reason));
        }
        let (sequence, links, is_directory) = (base.sequence, base.links, base.is_directory);
        let list = base.attributes.iter().find(|attribute| attribute.kind == kind::ATTRIBUTE_LIST);
        let attributes = match list.map(|list| self.list(list, at)).transpose()? {
            Some(list) => self.gather(number, &mut base, &parse_list(&list, at)?, at)?,
            None => base.attributes,
        };
        Ok(Node { number, sequence, links, is_directory, attributes })
    }

    /// All attributes that an attribute list names, in its order.
    fn gather(&self, number: u64, base: &mut Record, entries: &[ListEntry], at: u64) -> Result<Vec<Attribute>> {
        let mut extensions = BTreeMap::new();
        let mut attributes = Vec::new();
        for entry in entries.iter().filter(|entry| entry.kind != kind::ATTRIBUTE_LIST) {
            let holder = entry.record.record;
            let found = if holder == number {
                take(base, entry)
            } else {
                let record = match extensions.entry(holder) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => new.insert(self.check_extension(self.record(holder)?, entry, number)?),
                };
                take(record, entry)
            };
            attributes.push(found.ok_or_else(|| missing(number, at))?);
        }
        Ok(attributes)
    }

    fn check_extension(&self, record: Record, entry: &ListEntry, base: u64) -> Result<Record> {
        let belongs = record.base.is_some_and(|reference| reference.record == base);
        if record.in_use && belongs && record.sequence == entry.record.sequence {
            return Ok(record);
        }
        let number = entry.record.record;
        let at = number.saturating_mul(self.boot.record_bytes);
        Err(Error::corrupt("NTFS MFT record", at, format!("record {number} does not extend the file {base}")))
    }

    fn list(&self, list: &Attribute, at: u64) -> Result<Vec<u8>> {
        let stream = self.assemble([list], at)?;
        if stream.size > LIST_BYTES_MAX {
            return Err(Error::corrupt("NTFS attribute list", at, "it is longer than any can be"));
        }
        self.read_all(&stream)
    }

    /// The pieces of one attribute as one value.
    ///
    /// # Errors
    /// As [`Stream::assemble`].
    pub(super) fn assemble<'a>(&self, pieces: impl IntoIterator<Item = &'a Attribute>, at: u64) -> Result<Stream> {
        Stream::assemble(pieces, self.boot.cluster_bytes, self.boot.clusters, at)
    }

    /// An attribute of `node`, whole; `None` where it has none.
    ///
    /// # Errors
    /// As [`Stream::assemble`].
    pub(super) fn stream(&self, node: &Node, kind: u32, name: &[u16]) -> Result<Option<Stream>> {
        let mut pieces: Vec<_> = node.attributes.iter().filter(|attribute| attribute.is(kind, name)).collect();
        if pieces.is_empty() {
            return Ok(None);
        }
        pieces.sort_by_key(|piece| piece.first_vcn());
        self.assemble(pieces, node.number.saturating_mul(self.boot.record_bytes)).map(Some)
    }

    /// All bytes of a value that the format or the caller bounds.
    ///
    /// # Errors
    /// [`Error::LimitReached`] past the allocation bound; as [`Self::read`].
    pub(super) fn read_all(&self, stream: &Stream) -> Result<Vec<u8>> {
        let mut bytes = self.budget.allocate(stream.size)?;
        self.read(stream, u64::MAX, &mut bytes, 0)?;
        Ok(bytes)
    }

    /// Reads at most `buffer.len()` bytes at `offset`, fewer only at the end. `key` names the value among all of the
    /// volume's that are compressed.
    ///
    /// # Errors
    /// [`Error::Encrypted`]; [`Error::Corrupt`]; limits and I/O.
    pub(super) fn read(&self, stream: &Stream, key: u64, buffer: &mut [u8], offset: u64) -> Result<usize> {
        if stream.encrypted {
            return Err(Error::Encrypted { what: "an NTFS file (EFS)".into() });
        }
        let count = stream.size.saturating_sub(offset).min(buffer.len() as u64);
        let count = usize::try_from(count).unwrap_or(buffer.len());
        let Some(buffer) = buffer.get_mut(..count) else { return Ok(0) };
        let written = stream.initialised.saturating_sub(offset).min(count as u64);
        let (written, zeros) = buffer.split_at_mut(usize::try_from(written).unwrap_or(count));
        zeros.fill(0);
        match &stream.content {
            Content::Resident(value) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                if let Some(value) = value.get(start..start.saturating_add(written.len())) {
                    written.copy_from_slice(value);
                }
            }
            Content::Plain(runs) => self.read_mapped(runs, written, offset)?,
            Content::Compressed { runs, unit_clusters } => {
                self.read_compressed(runs, *unit_clusters, key, written, offset)?;
            }
        }
        Ok(count)
    }

    /// Fills `buffer` from the clusters that `runs` map: one read for each run.
    fn read_mapped(&self, runs: &[Run], buffer: &mut [u8], offset: u64) -> Result<()> {
        let cluster_bytes = self.boot.cluster_bytes;
        let first = runs.partition_point(|run| end_of(run).saturating_mul(cluster_bytes) <= offset);
        let mut runs = runs.get(first..).unwrap_or_default().iter();
        let (mut rest, mut at) = (buffer, offset);
        while !rest.is_empty() {
            self.budget.check_time()?;
            let run = runs.next().ok_or_else(|| unmapped(at))?;
            let within = at.checked_sub(run.vcn.saturating_mul(cluster_bytes)).ok_or_else(|| unmapped(at))?;
            let available = run.length.saturating_mul(cluster_bytes).saturating_sub(within);
            let count = usize::try_from(available).unwrap_or(usize::MAX).min(rest.len());
            let (piece, after) = rest.split_at_mut_checked(count).ok_or_else(|| unmapped(at))?;
            match run.lcn {
                Some(lcn) => {
                    let place = lcn.saturating_mul(cluster_bytes).saturating_add(within);
                    self.source.read_exact_at(piece, place)?;
                }
                None => piece.fill(0),
            }
            at = at.saturating_add(count as u64);
            rest = after;
        }
        Ok(())
    }

    /// Fills `buffer` unit by unit. A unit that became shorter ends in a hole, one that is all hole is zeros, and one
    /// that did not become shorter is as it is.
    fn read_compressed(
        &self,
        runs: &[Run],
        unit_clusters: u64,
        key: u64,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        let unit_bytes = unit_clusters.saturating_mul(self.boot.cluster_bytes);
        let (mut rest, mut at) = (buffer, offset);
        while !rest.is_empty() {
            let unit = at / unit_bytes;
            let within = at % unit_bytes;
            let first_vcn = unit.saturating_mul(unit_clusters);
            let index = runs.partition_point(|run| end_of(run) <= first_vcn);
            let runs = runs.get(index..).unwrap_or_default();
            let first = runs.first().ok_or_else(|| unmapped(at))?;
            // Units that one run, or one hole, covers need no decoding and are read as one.
            let whole_units = end_of(first).saturating_sub(first_vcn) / unit_clusters;
            let available = whole_units.max(1).saturating_mul(unit_bytes).saturating_sub(within);
            let count = usize::try_from(available).unwrap_or(usize::MAX).min(rest.len());
            let (piece, after) = rest.split_at_mut_checked(count).ok_or_else(|| unmapped(at))?;
            let allocated = allocated_clusters(runs, first_vcn, unit_clusters).ok_or_else(|| {
                Error::corrupt("NTFS compression unit", at, "a hole within it is followed by clusters")
            })?;
            if whole_units > 0 || allocated == unit_clusters {
                self.read_mapped(runs, piece, at)?;
            } else if allocated == 0 {
                piece.fill(0);
            } else {
                let decode = |output: &mut [u8]| {
                    let mut input = self.budget.allocate(allocated.saturating_mul(self.boot.cluster_bytes))?;
                    self.read_mapped(runs, &mut input, unit.saturating_mul(unit_bytes))?;
                    let decoded = lznt1::decode(&input, output);
                    decoded.ok_or_else(|| Error::corrupt("NTFS compression unit", at, "it is not LZNT1"))
                };
                self.decoded((key, unit), unit_bytes, within, piece, decode)?;
            }
            at = at.saturating_add(count as u64);
            rest = after;
        }
        Ok(())
    }

    /// Gives `part`, which begins at byte `within` of something that decodes to `bytes`. What is wanted whole is decoded
    /// in its place; of the rest, the last few are held.
    fn decoded(
        &self,
        key: (u64, u64),
        bytes: u64,
        within: u64,
        part: &mut [u8],
        decode: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let held = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).get(key);
        let whole = match held {
            Some(whole) => whole,
            None if part.len() as u64 == bytes => return decode(part),
            None => {
                let mut whole = self.budget.allocate(bytes)?;
                decode(&mut whole)?;
                let whole: Arc<[u8]> = whole.into();
                // The key of all that has none.
                if key.0 != u64::MAX {
                    self.pieces.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&whole));
                }
                whole
            }
        };
        let start = usize::try_from(within).unwrap_or(usize::MAX);
        let wanted = whole.get(start..start.saturating_add(part.len()));
        part.copy_from_slice(wanted.ok_or_else(|| unmapped(within))?);
        Ok(())
    }

    /// Reads at most `buffer.len()` bytes at `offset` of a file of `size` bytes whose contents `stream` holds in chunks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a chunk or the table of chunks contradicts the format; limits and I/O.
    pub(super) fn read_wof(
        &self,
        wof: Wof,
        stream: &Stream,
        key: u64,
        size: u64,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<usize> {
        let chunk_bytes = wof.chunk_bytes as u64;
        let table = ChunkTable::new(wof, size, stream.size);
        let count = size.saturating_sub(offset).min(buffer.len() as u64);
        let count = usize::try_from(count).unwrap_or(buffer.len());
        let mut rest = buffer.get_mut(..count).unwrap_or_default();
        let mut at = offset;
        let at_once = (CHUNKS_BYTES as u64 / chunk_bytes).max(1);
        while !rest.is_empty() {
            let first = at / chunk_bytes;
            let last = at.saturating_add(rest.len() as u64 - 1) / chunk_bytes;
            let chunks = (last - first).saturating_add(1).min(at_once);
            let (entries_at, entries_bytes) = table.entries(first, chunks);
            let mut entries = self.budget.allocate(entries_bytes)?;
            self.read_exactly(stream, &mut entries, entries_at)?;
            let bounds = table.bounds(first, chunks, &entries)?;
            let (Some(&start), Some(&end)) = (bounds.first(), bounds.last()) else { return Err(unmapped(at)) };
            // No chunk is stored in more bytes than it decodes to.
            if end - start > chunks.saturating_mul(chunk_bytes) {
                return Err(Error::corrupt("WOF chunk table", at, "a chunk is longer than what it decodes to"));
            }
            let mut input = self.budget.allocate(end - start)?;
            self.read_exactly(stream, &mut input, start)?;
            for (index, bounds) in (first..).zip(bounds.windows(2)) {
                let chunk_at = index.saturating_mul(chunk_bytes);
                let decoded_bytes = size.saturating_sub(chunk_at).min(chunk_bytes);
                let within = at.saturating_sub(chunk_at);
                let available = usize::try_from(decoded_bytes.saturating_sub(within)).unwrap_or(0);
                let part;
                (part, rest) = rest.split_at_mut(available.min(rest.len()));
                at = at.saturating_add(part.len() as u64);
                let [from, to] = [0, 1].map(|index| bounds.get(index).map_or(0, |bound| bound - start));
                let chunk = usize::try_from(from).ok().zip(usize::try_from(to).ok());
                let stored = chunk.and_then(|(from, to)| input.get(from..to)).unwrap_or_default();
                self.decoded((key, index), decoded_bytes, within, part, |output| {
                    let decoded = wof.decode(stored, output);
                    decoded.ok_or_else(|| Error::corrupt("WOF chunk", chunk_at, "it contradicts its compression"))
                })?;
            }
        }
        Ok(count)
    }

    fn read_exactly(&self, stream: &Stream, buffer: &mut [u8], offset: u64) -> Result<()> {
        if self.read(stream, u64::MAX, buffer, offset)? == buffer.len() {
            return Ok(());
        }
        Err(Error::corrupt("NTFS stream", offset, "it ends before what it should hold"))
    }
}

/// Takes the attribute that a list's entry names out of the record that holds it.
fn take(record: &mut Record, entry: &ListEntry) -> Option<Attribute> {
    let is_it = |attribute: &Attribute| {
        attribute.is(entry.kind, &entry.name) && attribute.id == entry.id && attribute.first_vcn() == entry.first_vcn
    };
    let index = record.attributes.iter().position(is_it)?;
    Some(record.attributes.swap_remove(index))
}

fn missing(number: u64, at: u64) -> Error {
    let reason = format!("an attribute of the file {number} does not lie where its list says");
    Error::corrupt("NTFS attribute list", at, reason)
}

fn unmapped(at: u64) -> Error {
    Error::corrupt("NTFS run list", at, "it ends before the value does")
}

/// The cluster of the value behind a run.
const fn end_of(run: &Run) -> u64 {
    run.vcn.saturating_add(run.length)
}

/// Clusters of a unit that are allocated, which come before its hole; `None` where they do not.
fn allocated_clusters(runs: &[Run], first_vcn: u64, unit_clusters: u64) -> Option<u64> {
    let end = first_vcn.saturating_add(unit_clusters);
    let mut allocated = 0;
    let mut hole = false;
    let of_unit = runs.iter().skip_while(|run| end_of(run) <= first_vcn).take_while(|run| run.vcn < end);
    for run in of_unit {
        let count = end_of(run).min(end).saturating_sub(run.vcn.max(first_vcn));
        match run.lcn {
            Some(_) if hole => return None,
            Some(_) => allocated += count,
            None => hole = true,
        }
    }
    Some(allocated)
}

fn read_whole(source: &Source, at: u64, bytes: u64) -> Result<Vec<u8>> {
    let mut raw = vec![0; usize::try_from(bytes).unwrap_or(0)];
    source.read_exact_at(&mut raw, at)?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut sector = vec![0; 512];
        let sound: [(usize, &[u8]); 8] = [
            (3, b"NTFS    "),
            (11, &[0, 2]),
            (13, &[8]),
            (40, &[0, 0, 1]),
            (48, &[4]),
            (56, &[8]),
            (64, &[0xf6]),
            (68, &[1]),
        ];
        for (at, bytes) in sound.iter().chain(fields) {
            sector[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        sector
    }

    #[test]
    fn sizes_are_numbers_or_negative_powers_of_two() {
        let sound = Boot { cluster_bytes: 4096, clusters: 8192, record_bytes: 1024, mft: 4 * 4096, mirror: 8 * 4096 };
        assert_eq!(Boot::parse(&sector(&[])).unwrap(), sound);
        let large = Boot::parse(&sector(&[(13, &[0xf4])])).unwrap();
        assert_eq!((large.cluster_bytes, large.clusters), (2 << 20, 16));
        let by_clusters = Boot::parse(&sector(&[(13, &[1]), (64, &[2])])).unwrap();
        assert_eq!((by_clusters.cluster_bytes, by_clusters.record_bytes), (512, 1024));
        let no_mirror = Boot::parse(&sector(&[(56, &[0xff, 0xff, 0xff])])).unwrap();
        assert_eq!(no_mirror.mirror, 0);
        for broken in [
            (3, &b"EXFAT   "[..]),
            (11, &[0, 0]),
            (11, &[1, 2]),
            (11, &[0, 32]),
            (13, &[0]),
            (13, &[3]),
            (13, &[0xf3]),
            (64, &[0]),
            (64, &[0x80]),
            (64, &[0xf3]),
            (64, &[0xf8]),
            (48, &[0xff, 0xff, 0xff]),
            (40, &[0xff; 8]),
            (40, &[0; 3]),
        ] {
            assert!(matches!(Boot::parse(&sector(&[broken])), Err(Error::Corrupt { .. })), "{broken:?}");
        }
        for length in 0..64 {
            assert!(Boot::parse(&sector(&[])[..length]).is_err());
        }
    }

    #[test]
    fn a_units_clusters_come_before_its_hole() {
        let run = |vcn, length, lcn| Run { vcn, length, lcn };
        let runs =
            [run(0, 20, Some(100)), run(20, 12, None), run(32, 16, None), run(48, 2, Some(7)), run(50, 2, Some(9))];
        let of = |unit: u64| allocated_clusters(&runs, unit * 16, 16);
        assert_eq!((of(0), of(1), of(2), of(3)), (Some(16), Some(4), Some(0), Some(4)));
        assert_eq!(allocated_clusters(&[run(0, 4, None), run(4, 4, Some(1))], 0, 16), None);
    }
}
