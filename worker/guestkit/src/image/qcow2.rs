//! QEMU copy-on-write images, versions 2 and 3, after QEMU's `docs/interop/qcow2.rst`, whose section names are used.
//!
//! Refcounts, snapshots, bitmaps and lazy refcounts serve writers and are not looked at: the active L1 table alone says
//! what the guest sees. Every offset is checked against its cluster and its file before it is followed.

use std::io::Read as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use super::inflate::Inflate;
use super::raw::Raw;
use crate::block_cache::Lru;
use crate::bytes::{array, be_u16, be_u32, be_u64, has, slice};
use crate::error::{Error, Limit, Result};
use crate::limits::{Budget, zeroed};
use crate::read_at::{ReadAt, Slice, Source, check_range, read_up_to};

/// Header fields of version 2; version 3 says its own length.
const HEADER_V2_BYTES: u32 = 72;
/// Fields up to and including `header_length`, which version 3 always has.
const HEADER_V3_BYTES: u32 = 104;
/// QEMU's QCOW_MAX_L1_SIZE: 32 MiB of L1 table, which is 2 EiB of guest at the default cluster size.
const L1_BYTES_MAX: u64 = 32 << 20;
/// The specification's bound on the length of a backing file name.
const BACKING_NAME_BYTES_MAX: u32 = 1023;
/// Bytes of an L2 table read and held at once: 512 entries, 32 MiB of guest at the default cluster size.
const L2_SLICE_BYTES: u64 = 4096;
/// L2 slices held: 4 MiB, which covers a 32 GiB guest at the default cluster size.
const L2_SLICES: usize = 1024;
/// Bytes of decompressed clusters held, for the small reads that follow one another in a cluster.
const DECOMPRESSED_BYTES: usize = 2 << 20;
/// Threads that unpack what one read asks for; qemu-img has as many.
const THREADS_MAX: usize = 4;
/// Clusters that are worth a thread: starting one takes a fifth of the time that unpacking 64 KiB does.
const CLUSTERS_PER_THREAD: usize = 2;

const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// "Header", byte 72: incompatible features, and what each asks of a reader.
mod incompatible {
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const EXTERNAL_DATA: u64 = 1 << 2;
    pub(super) const COMPRESSION_TYPE: u64 = 1 << 3;
    pub(super) const EXTENDED_L2: u64 = 1 << 4;
    /// Dirty (bit 0) only says that refcounts may be stale.
    pub(super) const KNOWN: u64 = 0b1_1111;
}

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate streams.
    Zlib,
    /// One Zstandard frame per cluster.
    Zstd,
}

impl Compression {
    /// The name `qemu-img info` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// What the header and its extensions say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) virtual_size: u64,
    l1_entries: u32,
    l1_offset: u64,
    /// Snapshots inside the image.
    pub(crate) snapshots: u32,
    pub(crate) compression: Compression,
    pub(crate) extended_l2: bool,
    pub(crate) marked_corrupt: bool,
    pub(crate) has_data_file: bool,
    pub(crate) backing_name: Option<Vec<u8>>,
    pub(crate) backing_format: Option<Vec<u8>>,
    pub(crate) data_file_name: Option<Vec<u8>>,
    /// "Full disk encryption header pointer": offset and length of the LUKS header.
    pub(crate) luks: Option<(u64, u64)>,
}

fn corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("qcow2 header", offset, reason)
}

impl Header {
    /// Reads and checks the header of `file`.
    pub(crate) fn read(file: &dyn ReadAt) -> Result<Self> {
        let head = read_up_to(file, 0, 4096)?;
        let short = || corrupt(0, format!("the file ends after {} bytes, within it", head.len()));
        let field32 = |at| be_u32(&head, at).ok_or_else(short);
        let field64 = |at| be_u64(&head, at).ok_or_else(short);
        if array::<4>(&head, 0) != Some(*b"QFI\xfb") {
            return Err(corrupt(0, "it does not begin with the magic QFI\\xfb"));
        }
        let version = field32(4)?;
        if !matches!(version, 2 | 3) {
            return Err(Error::unsupported(format!("qcow version {version}")));
        }
        let cluster_bits = field32(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(corrupt(20, format!("a cluster of 2^{cluster_bits} bytes is outside 512 bytes to 2 MiB")));
        }
        let is_luks = match field32(32)? {
            0 => false,
            1 => return Err(Error::Encrypted { what: "qcow2 image (AES)".into() }),
            2 => true,
            other => return Err(Error::unsupported(format!("qcow2 encryption method {other}"))),
        };
        let (features, header_length) = match version {
            3 => (field64(72)?, field32(100)?),
            _ => (0, HEADER_V2_BYTES),
        };
        if version == 3 && (header_length < HEADER_V3_BYTES || u64::from(header_length) > 1 << cluster_bits) {
            return Err(corrupt(100, format!("a header of {header_length} bytes is outside 104 bytes to one cluster")));
        }
        let extensions = Extensions::read(file, header_length, cluster_bits)?;
        let unknown = features & !incompatible::KNOWN;
        if unknown != 0 {
            return Err(Error::unsupported(extensions.describe_features(unknown)));
        }
        let compression = match (features & incompatible::COMPRESSION_TYPE != 0, header_length > HEADER_V3_BYTES) {
            (false, _) => Compression::Zlib,
            (true, false) => return Err(corrupt(72, "it says that it has a compression type and ends before it")),
            (true, true) => match head.get(104) {
                Some(0) => Compression::Zlib,
                Some(1) => Compression::Zstd,
                other => return Err(Error::unsupported(format!("qcow2 compression type {other:?}"))),
            },
        };
        let luks = match (is_luks, extensions.luks_header) {
            (false, _) => None,
            (true, None) => {
                return Err(corrupt(32, "it is encrypted, and no extension says where the LUKS header lies"));
            }
            (true, place) => place,
        };
        let header = Self {
            version,
            cluster_bits,
            virtual_size: field64(24)?,
            l1_entries: field32(36)?,
            l1_offset: field64(40)?,
            snapshots: field32(60)?,
            compression,
            extended_l2: features & incompatible::EXTENDED_L2 != 0,
            marked_corrupt: features & incompatible::CORRUPT != 0,
            has_data_file: features & incompatible::EXTERNAL_DATA != 0,
            backing_name: backing_name(file, field64(8)?, field32(16)?)?,
            backing_format: extensions.backing_format,
            data_file_name: extensions.data_file_name,
            luks,
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<()> {
        if self.virtual_size > i64::MAX as u64 {
            return Err(corrupt(24, format!("a virtual size of {} bytes cannot be", self.virtual_size)));
        }
        if self.extended_l2 && self.cluster_bits < 14 {
            return Err(corrupt(20, "extended L2 entries need clusters of at least 16 KiB"));
        }
        if u64::from(self.l1_entries) * 8 > L1_BYTES_MAX {
            return Err(corrupt(36, format!("an L1 table of {} entries is larger than 32 MiB", self.l1_entries)));
        }
        if !self.l1_offset.is_multiple_of(self.cluster_bytes()) {
            return Err(corrupt(40, format!("the L1 table's offset {} is not on a cluster", self.l1_offset)));
        }
        let needed = self.virtual_size.div_ceil(self.cluster_bytes()).div_ceil(self.l2_entries());
        if needed > u64::from(self.l1_entries) {
            return Err(corrupt(36, format!("{} L1 entries are too few: the size needs {needed}", self.l1_entries)));
        }
        Ok(())
    }

    pub(crate) const fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    const fn l2_entry_bytes(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    const fn l2_entries(&self) -> u64 {
        self.cluster_bytes() / self.l2_entry_bytes()
    }
}

fn backing_name(file: &dyn ReadAt, offset: u64, length: u32) -> Result<Option<Vec<u8>>> {
    if offset == 0 || length == 0 {
        return Ok(None);
    }
    if length > BACKING_NAME_BYTES_MAX {
        return Err(corrupt(16, format!("a backing file name of {length} bytes is longer than 1023")));
    }
    let mut name = vec![0; length as usize];
    file.read_exact_at(&mut name, offset).map_err(|_| corrupt(8, "the backing file name lies outside the file"))?;
    Ok(Some(name))
}

#[derive(Debug, Default)]
struct Extensions {
    backing_format: Option<Vec<u8>>,
    data_file_name: Option<Vec<u8>>,
    luks_header: Option<(u64, u64)>,
    /// "Feature name table": type, bit and name.
    feature_names: Vec<(u8, u8, Vec<u8>)>,
}

impl Extensions {
    /// "Header extensions" lie between the header and the end of the first cluster.
    fn read(file: &dyn ReadAt, header_length: u32, cluster_bits: u32) -> Result<Self> {
        let area = read_up_to(file, 0, 1 << cluster_bits)?;
        let mut found = Self::default();
        let mut at = header_length as usize;
        while let (Some(kind), Some(length)) = (be_u32(&area, at), be_u32(&area, at.saturating_add(4))) {
            if kind == 0 {
                break;
            }
            let start = at.saturating_add(8);
            let data = slice(&area, start, length as usize).ok_or_else(|| {
                corrupt(at as u64, format!("an extension of {length} bytes leaves the first cluster"))
            })?;
            match kind {
                0xe279_2aca => found.backing_format = Some(data.to_vec()),
                0x4441_5441 => found.data_file_name = Some(data.to_vec()),
                0x0537_be77 => found.luks_header = be_u64(data, 0).zip(be_u64(data, 8)),
                0x6803_f857 => {
                    let entries = data.chunks_exact(48).filter_map(|entry| entry.split_first_chunk::<2>());
                    found.feature_names = entries.map(|([kind, bit], name)| (*kind, *bit, name.to_vec())).collect();
                }
                _ => {}
            }
            at = start.saturating_add((length as usize).next_multiple_of(8));
        }
        Ok(found)
    }

    fn describe_features(&self, unknown: u64) -> String {
        let names: Vec<String> = (0..64_u8)
            .filter(|bit| unknown >> bit & 1 == 1)
            .map(|bit| {
                let named = self.feature_names.iter().find(|(kind, of, _)| (*kind, *of) == (0, bit));
                let name = named.map(|(_, _, name)| name.split(|byte| *byte == 0).next().unwrap_or_default());
                match name {
                    Some(name) if !name.is_empty() => format!("\"{}\" (bit {bit})", name.escape_ascii()),
                    _ => format!("bit {bit}"),
                }
            })
            .collect();
        format!("qcow2 incompatible feature {}", names.join(", "))
    }
}

/// An encrypted image as a LUKS volume: the LUKS header that lies at `place` of `file`, and behind it `data`, every byte
/// at the place it has in its file. Clusters are encrypted by where they lie there, so the plain bytes of this volume
/// are the file's, decrypted, without a word about qcow2.
///
/// # Errors
/// [`Error::Corrupt`] where no LUKS header lies there, [`Error::Unsupported`] for one of another version than 1.
pub(crate) fn luks_volume(file: &Source, place: (u64, u64), data: Source) -> Result<Source> {
    let (offset, length) = place;
    let head = read_up_to(&**file, offset, 592)?;
    let broken = |reason: &str| Error::corrupt("qcow2 LUKS header", offset, reason);
    if !has(&head, 0, b"LUKS\xba\xbe") {
        return Err(broken("its magic is wrong"));
    }
    match be_u16(&head, 6) {
        Some(1) => {}
        version => return Err(Error::unsupported(format!("qcow2 with LUKS version {}", version.unwrap_or(0)))),
    }
    let payload = be_u32(&head, 104).ok_or_else(|| broken("it ends early"))?;
    let payload = u64::from(payload).saturating_mul(512);
    if payload == 0 || payload > length {
        return Err(broken("its key slots leave the space that it has"));
    }
    let header = Slice::new(Arc::clone(file), offset, payload);
    if header.len() < payload {
        return Err(broken("it leaves the file"));
    }
    Ok(Arc::new(LuksVolume { header, data: Raw::new(data) }))
}

#[derive(Debug)]
struct LuksVolume {
    header: Slice,
    data: Raw,
}

impl ReadAt for LuksVolume {
    fn len(&self) -> u64 {
        self.header.len().saturating_add(self.data.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), buffer.len(), offset)?;
        let in_header = usize::try_from(self.header.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let (header, data) = buffer.split_at_mut(in_header.min(buffer.len()));
        if !header.is_empty() {
            self.header.read_exact_at(header, offset)?;
        }
        let from = offset.saturating_sub(self.header.len());
        if data.is_empty() { Ok(()) } else { self.data.read_exact_at(data, from) }
    }
}

/// Where the bytes of a stretch of the guest's disk come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The backing file, or zeros where there is none.
    Backing,
    /// Zeros.
    Zeros,
    /// So many bytes into the file that holds the data.
    At(u64),
    /// The whole cluster, compressed, in so many bytes at that offset.
    Compressed { offset: u64, length: u64 },
}

/// A whole cluster that is asked for and lies compressed in `length` bytes at `offset`.
struct WholeCluster<'a> {
    offset: u64,
    length: u64,
    cluster: &'a mut [u8],
}

/// Threads that unpack at the same time.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// An opened image.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    header: Header,
    file: Source,
    /// Where uncompressed clusters lie: the image file, or the external data file; either decrypted.
    data: Source,
    backing: Option<Source>,
    l1: Vec<u64>,
    l2: Mutex<Lru<u64, Arc<[u8]>>>,
    decompressed: Mutex<Lru<u64, Arc<[u8]>>>,
    inflate: Inflate,
    threads: OnceLock<usize>,
}

impl Qcow2 {
    /// Opens the image whose header was read from `file`, and whose uncompressed clusters lie in `data`.
    pub(crate) fn open(
        header: Header,
        file: Source,
        data: Source,
        backing: Option<Source>,
        budget: &Budget,
    ) -> Result<Self> {
        let mut table = budget.allocate(u64::from(header.l1_entries) * 8)?;
        file.read_exact_at(&mut table, header.l1_offset)
            .map_err(|error| error.in_structure("qcow2 L1 table", header.l1_offset))?;
        let l1 = table.chunks_exact(8).filter_map(|entry| be_u64(entry, 0)).collect();
        let clusters_held = DECOMPRESSED_BYTES >> header.cluster_bits;
        Ok(Self {
            header,
            file,
            data,
            backing,
            l1,
            l2: Mutex::new(Lru::new(L2_SLICES)),
            decompressed: Mutex::new(Lru::new(clusters_held)),
            inflate: Inflate::raw(),
            threads: OnceLock::new(),
        })
    }

    /// The L2 entry of guest cluster `cluster`: the entry itself and, with extended entries, its subcluster bitmap.
    fn l2_entry(&self, cluster: u64) -> Result<Option<(u64, u64)>> {
        let per_table = self.header.l2_entries();
        let l1_index = cluster / per_table;
        let entry = usize::try_from(l1_index).ok().and_then(|index| self.l1.get(index)).copied().unwrap_or(0);
        let table = entry & OFFSET_MASK;
        if table == 0 {
            return Ok(None);
        }
        if !table.is_multiple_of(self.header.cluster_bytes()) {
            return Err(Error::corrupt("qcow2 L1 entry", l1_index, format!("L2 offset {table} is not on a cluster")));
        }
        let within = cluster % per_table * self.header.l2_entry_bytes();
        let slice_bytes = L2_SLICE_BYTES.min(self.header.cluster_bytes());
        let slice = self.l2_slice(table.saturating_add(within / slice_bytes * slice_bytes), slice_bytes)?;
        let at = usize::try_from(within % slice_bytes).unwrap_or(usize::MAX);
        let entry = be_u64(&slice, at).unwrap_or(0);
        let bitmap = if self.header.extended_l2 { be_u64(&slice, at.saturating_add(8)).unwrap_or(0) } else { 0 };
        Ok(Some((entry, bitmap)))
    }

    fn l2_slice(&self, offset: u64, length: u64) -> Result<Arc<[u8]>> {
        let held = self.l2.lock().unwrap_or_else(PoisonError::into_inner).get(offset);
        if let Some(slice) = held {
            return Ok(slice);
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| error.in_structure("qcow2 L2 table", offset))?;
        let slice: Arc<[u8]> = bytes.into();
        self.l2.lock().unwrap_or_else(PoisonError::into_inner).insert(offset, Arc::clone(&slice));
        Ok(slice)
    }

    /// Where the bytes at guest offset `at` lie, and for how many bytes that holds.
    fn place(&self, at: u64) -> Result<(Place, u64)> {
        let cluster_bytes = self.header.cluster_bytes();
        let within = at % cluster_bytes;
        let rest = cluster_bytes - within;
        let Some((entry, bitmap)) = self.l2_entry(at >> self.header.cluster_bits)? else {
            return Ok((Place::Backing, rest));
        };
        if entry & COMPRESSED != 0 {
            return Ok((self.compressed_place(entry, at)?, rest));
        }
        let offset = entry & OFFSET_MASK;
        if !offset.is_multiple_of(cluster_bytes) {
            return Err(Error::corrupt("qcow2 L2 entry", at, format!("cluster offset {offset} is not on a cluster")));
        }
        if self.header.extended_l2 {
            return self.subcluster_place(offset, bitmap, at);
        }
        let place = match (entry & ZERO != 0, offset) {
            (true, _) if self.header.version < 3 => {
                return Err(Error::corrupt("qcow2 L2 entry", at, "a zero cluster needs version 3"));
            }
            (true, _) => Place::Zeros,
            // In a data file, offset 0 is a cluster like any other; the "copied" bit tells it from a hole.
            (false, 0) if !(self.header.has_data_file && entry >> 63 == 1) => Place::Backing,
            (false, offset) => Place::At(offset.saturating_add(within)),
        };
        Ok((place, rest))
    }

    /// "Extended L2 Entries": bit x of the low half says allocated, of the high half reads as zeros.
    fn subcluster_place(&self, offset: u64, bitmap: u64, at: u64) -> Result<(Place, u64)> {
        let subcluster_bytes = self.header.cluster_bytes() / 32;
        let within = at % self.header.cluster_bytes();
        let index = within / subcluster_bytes;
        let rest = subcluster_bytes - within % subcluster_bytes;
        let place = match (bitmap >> index & 1, bitmap >> (index + 32) & 1) {
            (1, 1) => return Err(Error::corrupt("qcow2 L2 entry", at, "a subcluster is both allocated and zero")),
            (_, 1) => Place::Zeros,
            (1, _) if offset == 0 && !self.header.has_data_file => {
                return Err(Error::corrupt("qcow2 L2 entry", at, "a subcluster is allocated nowhere"));
            }
            (1, _) => Place::At(offset.saturating_add(within)),
            _ => Place::Backing,
        };
        Ok((place, rest))
    }

    /// "Compressed Clusters Descriptor".
    fn compressed_place(&self, entry: u64, at: u64) -> Result<Place> {
        if self.header.has_data_file {
            return Err(Error::corrupt("qcow2 L2 entry", at, "a compressed cluster cannot lie in a data file"));
        }
        let offset_bits = 62 - (self.header.cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> offset_bits;
        let end = (offset & !511).saturating_add((sectors + 1).saturating_mul(512));
        let length = end.min(self.file.len()).saturating_sub(offset);
        Ok(Place::Compressed { offset, length })
    }

    fn read_compressed(&self, offset: u64, length: u64, buffer: &mut [u8], within: u64) -> Result<()> {
        let held = self.decompressed.lock().unwrap_or_else(PoisonError::into_inner).get(offset);
        let cluster = match held {
            Some(cluster) => cluster,
            None => {
                let too_large = Error::LimitReached { which: Limit::Allocation, value: self.header.cluster_bytes() };
                let mut cluster = zeroed(self.header.cluster_bytes()).ok_or(too_large)?;
                self.decompress(offset, length, &mut cluster)?;
                let cluster: Arc<[u8]> = cluster.into();
                let mut kept = self.decompressed.lock().unwrap_or_else(PoisonError::into_inner);
                kept.insert(offset, Arc::clone(&cluster));
                cluster
            }
        };
        let start = usize::try_from(within).unwrap_or(usize::MAX);
        let bytes = slice(&cluster, start, buffer.len())
            .ok_or_else(|| Error::corrupt("qcow2 compressed cluster", offset, "it is shorter than a cluster"))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    /// Unpacks whole clusters, many by several threads. Each of them holds one packed cluster at a time.
    fn decompress_all(&self, clusters: Vec<WholeCluster<'_>>) -> Result<()> {
        let helpers = (clusters.len() / CLUSTERS_PER_THREAD).min(*self.threads.get_or_init(threads)).saturating_sub(1);
        let pending = Mutex::new(clusters.into_iter());
        let next = || pending.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(WholeCluster { offset, length, cluster }) = next() {
                self.decompress(offset, length, cluster)?;
            }
            Ok(())
        };
        if helpers == 0 {
            return work();
        }
        thread::scope(|scope| {
            // Where no thread can be had, those there are do it.
            let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
            let helpers: Vec<_> = (0..helpers).map_while(start).collect();
            let own = work();
            helpers.into_iter().fold(own, |result, helper| {
                let helped = helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result.and(helped)
            })
        })
    }

    /// Unpacks a whole cluster into `cluster`.
    fn decompress(&self, offset: u64, length: u64, cluster: &mut [u8]) -> Result<()> {
        let refused = |reason: String| Error::corrupt("qcow2 compressed cluster", offset, reason);
        // At most two clusters: the sector count has cluster_bits - 8 bits.
        let mut packed = zeroed(length).ok_or_else(|| refused(format!("it takes {length} bytes")))?;
        self.file.read_exact_at(&mut packed, offset)?;
        match self.header.compression {
            Compression::Zlib => {
                let unpacked = self.inflate.unpack(&packed, cluster).map_err(refused)?;
                if unpacked.length != cluster.len() {
                    return Err(refused(format!("it unpacks to {} bytes only", unpacked.length)));
                }
            }
            Compression::Zstd => {
                let window = self.header.cluster_bytes().max(1 << 20);
                let mut stream =
                    ruzstd::decoding::StreamingDecoder::new_with_max_window_size(packed.as_slice(), window)
                        .map_err(|error| refused(error.to_string()))?;
                stream.read_exact(cluster).map_err(|error| refused(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// Reads allocated bytes. The last cluster of a file may be cut short: what is missing there reads as zeros, as
    /// QEMU has it; a cluster that begins past the end means a file that was cut.
    fn read_data(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let length = self.data.len();
        let last = offset.saturating_add((buffer.len() as u64).saturating_sub(1));
        let last_cluster = last - last % self.header.cluster_bytes();
        if last_cluster >= length {
            let reason = format!("it lies past the end of the file, which has {length} bytes");
            return Err(Error::corrupt("qcow2 data cluster", last_cluster, reason));
        }
        let there = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let (present, missing) = buffer.split_at_mut(there);
        missing.fill(0);
        if present.is_empty() { Ok(()) } else { self.data.read_exact_at(present, offset) }
    }

    fn read_backing(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let length = self.backing.as_ref().map_or(0, |backing| backing.len());
        let there = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let (present, beyond) = buffer.split_at_mut(there);
        beyond.fill(0);
        match &self.backing {
            Some(backing) if !present.is_empty() => backing.read_exact_at(present, offset),
            _ => Ok(()),
        }
    }
}

impl ReadAt for Qcow2 {
    fn len(&self) -> u64 {
        self.header.virtual_size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), buffer.len(), offset)?;
        let mut whole = Vec::new();
        let mut rest = buffer;
        let mut at = offset;
        while !rest.is_empty() {
            let wanted = rest.len() as u64;
            let (place, mut length) = self.place(at)?;
            // Neighbours on the disk that are neighbours in the file are one read.
            while length < wanted && !matches!(place, Place::Compressed { .. }) {
                let (next, more) = self.place(at.saturating_add(length))?;
                match (place, next) {
                    (Place::At(from), Place::At(to)) if from.saturating_add(length) == to => {}
                    (Place::Zeros, Place::Zeros) | (Place::Backing, Place::Backing) => {}
                    _ => break,
                }
                length = length.saturating_add(more);
            }
            let count = usize::try_from(length.clamp(1, wanted)).unwrap_or(rest.len());
            let (part, later) = std::mem::take(&mut rest).split_at_mut(count);
            match place {
                Place::Backing => self.read_backing(part, at)?,
                Place::Zeros => part.fill(0),
                Place::At(offset) => self.read_data(part, offset)?,
                Place::Compressed { offset, length } if part.len() as u64 == self.header.cluster_bytes() => {
                    whole.push(WholeCluster { offset, length, cluster: part });
                }
                Place::Compressed { offset, length } => {
                    self.read_compressed(offset, length, part, at % self.header.cluster_bytes())?;
                }
            }
            rest = later;
            at = at.saturating_add(count as u64);
        }
        self.decompress_all(whole)
    }
}
