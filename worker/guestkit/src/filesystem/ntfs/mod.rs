//! NTFS of the versions 1.2 (Windows NT 4) to 3.1: read as ntfs-3g shows it where it is mounted without permissions.
//!
//! What stands for what:
//! - Owners are root and modes 0777, 0555 for files with the read-only flag, unless WSL keeps others in extended
//!   attributes. Access control lists decide nothing, and are told as they are.
//! - A file's links are counted with its name for DOS, a directory's not at all.
//! - The volume's own files (`$MFT`, `$Extend`…) and names for DOS are not listed; both are found when asked for by name.
//!   A name that differs from the one asked for in case only is found where there is no other.
//! - Named streams of up to 64 KiB are extended attributes `user.NAME`. Any is found as `FILE:NAME` where no file has that
//!   name, and read as a file.
//! - Symbolic links and junctions lead to paths of the guest: targets on a drive below this volume's root where there is
//!   such a file, else to where ntfs-3g would send them, which nothing has.
//! - Files that the Windows Overlay Filter compresses show their contents. Contents that lie outside of the volume
//!   (deduplication, clouds, unknown reparse points) are [`Error::Unsupported`], those that EFS encrypts
//!   [`Error::Encrypted`].
//!
//! `$LogFile` is not replayed: where something may lie in it only, and where Windows hibernates, a warning says so.

mod attribute;
mod bits;
mod index;
mod lznt1;
mod lzx;
mod names;
mod reparse;
mod secure;
mod volume;
mod wof;
mod xpress;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::probe::label_utf16;
use super::{DirEntry, ExtendedAttribute, FileSystem, FileSystemInfo, FileType, Metadata, NodeId, Probe, Timestamp};
use crate::block_cache::Lru;
use crate::bytes::{has, le_u16, le_u32, le_u64};
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::Source;

use self::attribute::{Attribute, Stream, kind};
use self::index::{Listed, Root, Search};
use self::names::UpCase;
use self::reparse::{ELSEWHERE, Kind, Posix, Target};
pub(super) use self::volume::lost_boot_sector;
use self::volume::{Node, Pieces, Volume};

/// Records of the volume's own files (`FILE_*`).
const LOG_FILE: u64 = 2;
const VOLUME: u64 = 3;
const ROOT: u64 = 5;
const BITMAP: u64 = 6;
const SECURE: u64 = 9;
const UPCASE: u64 = 10;

/// A node is a record; of a named stream, the upper 16 bits say which of its file's it is, counted from 1.
const STREAM_SHIFT: u32 = 48;
/// The longest value of an extended attribute that Linux gives out (`XATTR_SIZE_MAX`).
const ATTRIBUTE_BYTES_MAX: u64 = 64 << 10;
/// What stands before the name of a stream that is longer; the value is its length in bytes, as text.
const LONG_STREAM: &[u8] = b"system.ntfs_stream_bytes.";

/// Files held, each of a kilobyte as a rule, and values; what weighs more than 16 KiB is held apart, and only the last.
const FILES_HELD: usize = 1024;
const STREAMS_HELD: usize = 64;
const HEAVY_BYTES: usize = 16 << 10;
/// Index blocks held; of 4 KiB as a rule and 64 KiB at most.
const BLOCKS_HELD: usize = 128;
/// Bytes that are read at once of a directory, and of the cluster bitmap.
const READ_AT_ONCE: usize = 256 << 10;
/// Names of one link's target: deeper trees are not walked.
const TARGET_NAMES_MAX: usize = 256;
/// Names of one directory; some gigabytes of mail or caches lie in one so large.
const DIRECTORY_ENTRIES_MAX: usize = 2_000_000;

/// A mounted NTFS volume.
pub(super) struct Ntfs {
    volume: Volume,
    upcase: UpCase,
    label: Option<String>,
    uuid: Option<String>,
    info: OnceLock<FileSystemInfo>,
    files: Mutex<Held<u64, Arc<File>>>,
    streams: Mutex<Held<(u64, u32), Arc<Stream>>>,
    blocks: Mutex<Pieces>,
    descriptors: OnceLock<(Stream, secure::Places)>,
}

impl fmt::Debug for Ntfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ntfs").field("volume", &self.volume).field("label", &self.label).finish_non_exhaustive()
    }
}

/// A file: its attributes, and what they say it is.
#[derive(Debug)]
struct File {
    node: Node,
    kind: Kind,
    flags: u32,
    posix: Posix,
}

/// Recently used values: many light ones, and the last heavy one.
#[derive(Debug)]
struct Held<K, V> {
    light: Lru<K, V>,
    heavy: Lru<K, V>,
}

impl<K: std::hash::Hash + Eq + Copy, V: Clone> Held<K, V> {
    fn new(capacity: usize) -> Mutex<Self> {
        Mutex::new(Self { light: Lru::new(capacity), heavy: Lru::new(1) })
    }

    fn get(&mut self, key: K) -> Option<V> {
        self.light.get(key).or_else(|| self.heavy.get(key))
    }

    fn insert(&mut self, key: K, value: V, weight: usize) {
        if weight <= HEAVY_BYTES {
            self.light.insert(key, value);
        } else {
            self.heavy.insert(key, value);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory's index: its root, its blocks, and the bytes that a block's number counts.
struct Directory<'a> {
    number: u64,
    root: Root<'a>,
    blocks: Option<Arc<Stream>>,
    unit_bytes: u64,
}

impl Ntfs {
    /// Opens the volume that fills `source`; `probe` is what its boot sector told.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a version that is not known; [`Error::Corrupt`]; limits and I/O.
    pub(super) fn open(source: Source, probe: &Probe, budget: Arc<Budget>) -> Result<Self> {
        let mut ntfs = Self {
            volume: Volume::open(source, budget)?,
            upcase: UpCase::substitute(),
            label: probe.label.clone(),
            uuid: probe.uuid.clone(),
            info: OnceLock::new(),
            files: Held::new(FILES_HELD),
            streams: Held::new(STREAMS_HELD),
            blocks: Mutex::new(Lru::new(BLOCKS_HELD)),
            descriptors: OnceLock::new(),
        };
        ntfs.read_volume_file()?;
        match ntfs.whole(UPCASE, UpCase::BYTES_MAX) {
            Ok(table) => ntfs.upcase = UpCase::new(&table),
            Err(error @ Error::LimitReached { .. }) => return Err(error),
            Err(error) => ntfs.volume.warn(format!("names are sorted by a substitute for $UpCase: {error}")),
        }
        ntfs.look_for_what_is_unwritten();
        Ok(ntfs)
    }

    /// `$Volume`: label, version, and whether it was left dirty.
    fn read_volume_file(&mut self) -> Result<()> {
        let file = self.file(VOLUME)?;
        let value = |kind| file.node.first(kind, &[]).and_then(Attribute::resident);
        if let Some(label) = value(kind::VOLUME_NAME) {
            self.label = label_utf16(names::units(label).into_iter()).or_else(|| self.label.take());
        }
        let Some(information) = value(kind::VOLUME_INFORMATION) else {
            self.volume.warn("the version of NTFS is missing".into());
            return Ok(());
        };
        let (major, minor) = (information.get(8).copied().unwrap_or(0), information.get(9).copied().unwrap_or(0));
        if !(1..=3).contains(&major) {
            return Err(Error::unsupported(format!("NTFS version {major}.{minor}")));
        }
        // VOLUME_IS_DIRTY
        if le_u16(information, 10).is_some_and(|flags| flags & 1 != 0) {
            self.volume.warn("the volume is dirty: it was not unmounted, and Windows would check it".into());
        }
        Ok(())
    }

    /// Warns of a log that was not written back and of a hibernated Windows. What cannot be read for that is met again
    /// where it matters.
    fn look_for_what_is_unwritten(&self) {
        match self.log_is_clean() {
            Ok(true) => {}
            Ok(false) => self.volume.warn(
                "$LogFile was not written back and is not replayed: the last changes before the end can be missing"
                    .into(),
            ),
            Err(error) => self.volume.warn(format!("$LogFile cannot be read: {error}")),
        }
        let hibernated = self.lookup(NodeId(ROOT), b"hiberfil.sys").and_then(|found| {
            let mut head = [0; 4];
            let count = found.map_or(Ok(0), |node| self.read(node, &mut head, 0))?;
            Ok(count == 4 && (&head == b"hibr" || &head == b"HIBR"))
        });
        if let Ok(true) = hibernated {
            self.volume
                .warn("Windows hibernates or was shut down for a fast start: what it holds is not written".into());
        }
    }

    /// Whether the newer of the two restart pages of `$LogFile` says that nothing is left to be done (`LFS_RESTART_AREA`
    /// has no client, or the volume is said to be clean). One filled with 0xff was never used.
    fn log_is_clean(&self) -> Result<bool> {
        let log = self.data(LOG_FILE)?;
        let mut head = [0; 32];
        self.volume.read(&log, u64::MAX, &mut head, 0)?;
        if head == [0xff; 32] {
            return Ok(true);
        }
        let page_bytes = le_u32(&head, 16).map_or(0, u64::from);
        if !page_bytes.is_power_of_two() || !(512..=65536).contains(&page_bytes) {
            return Ok(false);
        }
        let mut newest = (0, false);
        for at in [0, page_bytes] {
            let mut page = self.volume.budget.allocate(page_bytes)?;
            self.volume.read(&log, u64::MAX, &mut page, at)?;
            let signature = if has(&page, 0, b"CHKD") { *b"CHKD" } else { *b"RSTR" };
            if attribute::fix_up(&mut page, signature, "NTFS log restart page", at).is_err() {
                continue;
            }
            let area = le_u16(&page, 24).and_then(|start| page.get(usize::from(start)..)).unwrap_or_default();
            let (Some(lsn), Some(client), Some(flags)) = (le_u64(area, 0), le_u16(area, 12), le_u16(area, 14)) else {
                continue;
            };
            // LFS_NO_CLIENT, RESTART_VOLUME_IS_CLEAN
            newest = newest.max((lsn.saturating_add(1), client == 0xffff || flags & 2 != 0));
        }
        Ok(newest.1)
    }

    /// The unnamed contents of one of the volume's own files.
    fn data(&self, number: u64) -> Result<Arc<Stream>> {
        let file = self.file(number)?;
        self.stream(&file.node, (number, kind::DATA), &[])?.ok_or_else(|| no_data(number))
    }

    fn whole(&self, number: u64, bytes_max: u64) -> Result<Vec<u8>> {
        let stream = self.data(number)?;
        if stream.size > bytes_max {
            return Err(Error::corrupt("NTFS file", number, "it is longer than any such file can be"));
        }
        self.volume.read_all(&stream)
    }

    fn file(&self, number: u64) -> Result<Arc<File>> {
        if let Some(file) = lock(&self.files).get(number) {
            return Ok(file);
        }
        let file = Arc::new(self.load(number)?);
        let weight = file.node.weight();
        lock(&self.files).insert(number, Arc::clone(&file), weight);
        Ok(file)
    }

    fn load(&self, number: u64) -> Result<File> {
        let node = self.volume.node(number)?;
        // Version 1.2 knows less in it than later ones, and the flags already.
        let information = node.first(kind::STANDARD_INFORMATION, &[]).and_then(Attribute::resident);
        let flags = information.and_then(|information| le_u32(information, 32));
        let flags = flags.ok_or_else(|| Error::corrupt("NTFS file", number, "it has no standard information"))?;
        let posix = match self.small(&node, kind::EA)? {
            Some(list) => Posix::parse(&reparse::extended_attributes(&list, number)?),
            None => Posix::default(),
        };
        let kind = match self.small(&node, kind::REPARSE_POINT)? {
            Some(point) => reparse::parse(&point, node.is_directory, posix.device, number)?,
            None if node.is_directory => Kind::Directory,
            None => self.interix(&node, flags)?.unwrap_or(Kind::Regular),
        };
        Ok(File { node, kind, flags, posix })
    }

    /// The value of an attribute whose size the format bounds.
    fn small(&self, node: &Node, kind: u32) -> Result<Option<Vec<u8>>> {
        let Some(stream) = self.volume.stream(node, kind, &[])? else { return Ok(None) };
        // Both extended attributes and reparse points end below 64 KiB, padding apart.
        if stream.size > 2 * ATTRIBUTE_BYTES_MAX || kind == kind::REPARSE_POINT && stream.size > 2 * reparse::BYTES_MAX
        {
            return Err(Error::corrupt("NTFS attribute", node.number, "it is longer than any can be"));
        }
        self.volume.read_all(&stream).map(Some)
    }

    /// What a file with the system flag is to Interix.
    fn interix(&self, node: &Node, flags: u32) -> Result<Option<Kind>> {
        let size = node.first(kind::DATA, &[]).map(Attribute::size);
        let is_candidate = flags & index::SYSTEM != 0 && node.number >= index::FIRST_USER_RECORD;
        if !is_candidate || size.is_none_or(|size| size > reparse::INTERIX_BYTES_MAX) {
            return Ok(None);
        }
        match self.volume.stream(node, kind::DATA, &[])? {
            Some(stream) if !stream.encrypted => {
                let contents = self.volume.read_all(&stream)?;
                Ok(reparse::interix(&contents, flags & index::HIDDEN != 0))
            }
            _ => Ok(None),
        }
    }

    /// An attribute of `node` ready to be read, held under `key`.
    fn stream(&self, node: &Node, key: (u64, u32), name: &[u16]) -> Result<Option<Arc<Stream>>> {
        if let Some(stream) = lock(&self.streams).get(key) {
            return Ok(Some(stream));
        }
        let Some(stream) = self.volume.stream(node, key.1, name)?.map(Arc::new) else { return Ok(None) };
        lock(&self.streams).insert(key, Arc::clone(&stream), size_of_val(stream.runs()));
        Ok(Some(stream))
    }

    fn directory<'f>(&self, file: &'f File) -> Result<Directory<'f>> {
        let number = file.node.number;
        match &file.kind {
            Kind::Directory => {}
            Kind::Elsewhere { file_type: FileType::Directory, what } => return Err(Error::unsupported(what.as_str())),
            _ => return Err(wrong_type(number, "a directory")),
        }
        let name = index_name();
        let root = file.node.first(kind::INDEX_ROOT, &name).and_then(Attribute::resident);
        let root = root.ok_or_else(|| Error::corrupt("NTFS file", number, "the directory has no index"))?;
        let root = Root::parse(root, number)?;
        let blocks = self.stream(&file.node, (number, kind::INDEX_ALLOCATION), &name)?;
        // Blocks are counted in clusters, or where these are larger than a block, in pieces of 512 bytes.
        let cluster_bytes = self.volume.boot.cluster_bytes;
        let unit_bytes = if cluster_bytes <= root.block_bytes { cluster_bytes } else { 512 };
        Ok(Directory { number, root, blocks, unit_bytes })
    }

    /// The index block `vcn` of a directory.
    fn block(&self, directory: &Directory<'_>, vcn: u64) -> Result<Arc<[u8]>> {
        let key = (directory.number, vcn);
        if let Some(block) = lock(&self.blocks).get(key) {
            return Ok(block);
        }
        let at = vcn.saturating_mul(directory.unit_bytes);
        let block_bytes = directory.root.block_bytes;
        let blocks = directory.blocks.as_ref().filter(|blocks| at.saturating_add(block_bytes) <= blocks.size);
        let blocks = blocks.ok_or_else(|| Error::corrupt("NTFS index", at, "a block lies outside of it"))?;
        let mut block = self.volume.budget.allocate(block_bytes)?;
        self.volume.read(blocks, u64::MAX, &mut block, at)?;
        index::check_block(&mut block, vcn, at)?;
        let block: Arc<[u8]> = block.into();
        lock(&self.blocks).insert(key, Arc::clone(&block));
        Ok(block)
    }

    /// What a directory lists: its root, then the blocks that its bitmap says are in use, read in the order they lie in.
    fn list(&self, file: &File) -> Result<Vec<Listed>> {
        let directory = self.directory(file)?;
        let mut listed = Vec::new();
        directory.root.entries().list(&mut listed)?;
        let Some(blocks) = &directory.blocks else { return Ok(listed) };
        let block_bytes = directory.root.block_bytes;
        let bitmap = self.volume.stream(&file.node, kind::BITMAP, &index_name())?;
        let bitmap = bitmap.map(|bitmap| self.volume.read_all(&bitmap)).transpose()?;
        let bitmap = bitmap.ok_or_else(|| Error::corrupt("NTFS index", file.node.number, "it has no bitmap"))?;
        let at_once = READ_AT_ONCE as u64 / block_bytes;
        let mut used = used_blocks(&bitmap).take_while(|block| *block < blocks.size / block_bytes).peekable();
        while let Some(first) = used.next() {
            let mut last = first;
            while let Some(next) = used.next_if(|next| *next == last + 1 && next - first < at_once) {
                last = next;
            }
            let count = last - first + 1;
            let mut bytes = self.volume.budget.allocate(count.saturating_mul(block_bytes))?;
            self.volume.read(blocks, u64::MAX, &mut bytes, first.saturating_mul(block_bytes))?;
            let block_length = usize::try_from(block_bytes).unwrap_or(usize::MAX);
            for (number, block) in (first..).zip(bytes.chunks_exact_mut(block_length)) {
                let at = number.saturating_mul(block_bytes);
                index::check_block(block, at / directory.unit_bytes, at)?;
                index::block_entries(block, at)?.list(&mut listed)?;
            }
            if listed.len() > DIRECTORY_ENTRIES_MAX {
                return Err(Error::LimitReached { which: Limit::Entries, value: DIRECTORY_ENTRIES_MAX as u64 });
            }
        }
        Ok(listed)
    }

    fn find(&self, directory: u64, name: &[u16]) -> Result<Option<u64>> {
        let file = self.file(directory)?;
        let directory = self.directory(&file)?;
        let search = Search::new(name, &self.upcase, |vcn| self.block(&directory, vcn));
        let Some(found) = search.find(directory.root.entries())? else { return Ok(None) };
        let sequence = self.file(found.record)?.node.sequence;
        // The record can have come to another file since the name was written; 0 is said where nobody counted.
        if found.sequence != sequence && found.sequence != 0 {
            let reason =
                format!("a name refers to the use {} of record {}, not {sequence}", found.sequence, found.record);
            return Err(Error::corrupt("NTFS index", file.node.number, reason));
        }
        Ok(Some(found.record))
    }

    /// The named stream `name` of a file, itself a node.
    fn find_stream(&self, number: u64, name: &[u16]) -> Result<Option<NodeId>> {
        let file = self.file(number)?;
        let is_it = |stream: &&[u16]| self.upcase.compare(name, stream.iter().copied()).is_eq();
        let index = named_streams(&file.node).position(|stream| is_it(&stream));
        Ok(index.map(|index| stream_id(number, index)))
    }

    /// The descriptors that files share, and where each lies; `None` before version 3.0, where each file has its own.
    fn shared_descriptors(&self) -> Result<Option<&(Stream, secure::Places)>> {
        if let Some(found) = self.descriptors.get() {
            return Ok(Some(found));
        }
        let name: Vec<u16> = "$SDS".encode_utf16().collect();
        let Some(stream) = self.volume.stream(&self.file(SECURE)?.node, kind::DATA, &name)? else { return Ok(None) };
        let places = secure::places(&self.volume, &stream)?;
        Ok(Some(self.descriptors.get_or_init(|| (stream, places))))
    }

    /// What a node id names: its file, and of a named stream, the name.
    fn open_node(&self, id: NodeId) -> Result<(Arc<File>, Option<Vec<u16>>)> {
        let file = self.file(id.0 & ((1 << STREAM_SHIFT) - 1))?;
        let name = match (id.0 >> STREAM_SHIFT).checked_sub(1) {
            None => None,
            Some(index) => {
                let name = named_streams(&file.node).nth(usize::try_from(index).unwrap_or(usize::MAX));
                Some(name.ok_or_else(|| Error::corrupt("NTFS file", id.0, "it has no such stream"))?.to_vec())
            }
        };
        Ok((file, name))
    }

    /// The target of a link as a path of the guest.
    fn target(&self, target: &Target) -> Result<Vec<u8>> {
        match target {
            Target::Posix(path) => Ok(path.clone()),
            Target::Drive { path, .. } if self.is_on_volume(path)? => Ok(path.clone()),
            Target::Drive { letter, path } => Ok([ELSEWHERE, &[*letter, b':'], path.as_slice()].concat()),
        }
    }

    /// Whether this volume has what lies at `path` of a drive: whose letter is whose tells the registry of one Windows
    /// only. A link on the way is taken to lead on.
    fn is_on_volume(&self, path: &[u8]) -> Result<bool> {
        let mut node = ROOT;
        let names = || path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        if !(1..=TARGET_NAMES_MAX).contains(&names().count()) {
            return Ok(false);
        }
        for name in names() {
            match &self.file(node)?.kind {
                Kind::Directory => {}
                Kind::Link(_) => return Ok(true),
                _ => return Ok(false),
            }
            let found = names::to_units(name).map(|name| self.find(node, &name)).transpose()?;
            match found.flatten() {
                Some(found) => node = found,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Clusters that `$Bitmap` says are free.
    fn free_clusters(&self) -> Result<u64> {
        let bitmap = self.data(BITMAP)?;
        let mut free = 0_u64;
        let mut left = self.volume.boot.clusters;
        let mut piece = self.volume.budget.allocate(READ_AT_ONCE as u64)?;
        let mut at = 0;
        while left > 0 {
            self.volume.budget.check_time()?;
            let count = self.volume.read(&bitmap, u64::MAX, &mut piece, at)?;
            if count == 0 {
                return Err(Error::corrupt("NTFS bitmap", at, "it ends before the volume does"));
            }
            for byte in piece.get(..count).unwrap_or_default() {
                // Bits past the last cluster are set, or mean nothing.
                let bits = left.min(8) as u32;
                free += u64::from((!byte & (0xff_u32 >> (8 - bits)) as u8).count_ones());
                left -= u64::from(bits);
                if left == 0 {
                    break;
                }
            }
            at = at.saturating_add(count as u64);
        }
        Ok(free)
    }
}

impl FileSystem for Ntfs {
    fn info(&self) -> &FileSystemInfo {
        // Counting reads all of the bitmap, which most who mount do not want.
        self.info.get_or_init(|| {
            let boot = self.volume.boot;
            let free = self.free_clusters().unwrap_or_else(|error| {
                self.volume.warn(format!("free space cannot be told: {error}"));
                0
            });
            FileSystemInfo {
                kind: "ntfs",
                label: self.label.clone(),
                uuid: self.uuid.clone(),
                size_bytes: boot.clusters.saturating_mul(boot.cluster_bytes),
                free_bytes: free.saturating_mul(boot.cluster_bytes),
                inodes: None,
                inodes_free: None,
            }
        })
    }

    fn root(&self) -> NodeId {
        NodeId(ROOT)
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let Some(name) = names::to_units(name) else { return Ok(None) };
        let (NodeId(number), colon) = (directory, u16::from(b':'));
        if let Some(found) = self.find(number, &name)? {
            return Ok(Some(NodeId(found)));
        }
        let Some(at) = name.iter().position(|unit| *unit == colon) else { return Ok(None) };
        let (file, stream) = name.split_at_checked(at).unwrap_or_default();
        let file = if file.is_empty() { Some(number) } else { self.find(number, file)? };
        match (file, stream.get(1..)) {
            (Some(file), Some(stream)) if !stream.is_empty() => self.find_stream(file, stream),
            _ => Ok(None),
        }
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (file, stream) = self.open_node(node)?;
        let information = file.node.first(kind::STANDARD_INFORMATION, &[]).and_then(Attribute::resident);
        let information = information.unwrap_or_default();
        let time = |at| timestamp(le_u64(information, at).unwrap_or(0));
        let file_type = if stream.is_some() { FileType::Regular } else { file.kind.file_type() };
        let size_of = |kind, name: &[u16]| file.node.first(kind, name).map_or(0, Attribute::size);
        let size = match (&stream, &file.kind) {
            (Some(name), _) => size_of(kind::DATA, name),
            (None, Kind::Link(target)) => self.target(target)?.len() as u64,
            (None, Kind::Regular | Kind::Wof(_)) => size_of(kind::DATA, &[]),
            (None, Kind::Elsewhere { file_type: FileType::Regular, .. }) => size_of(kind::DATA, &[]),
            (None, Kind::Directory | Kind::Elsewhere { .. }) => size_of(kind::INDEX_ALLOCATION, &index_name()),
            (None, Kind::Special { .. }) => 0,
        };
        let is_read_only = file_type == FileType::Regular && file.flags & index::READ_ONLY != 0;
        let mode = file.posix.mode.unwrap_or(if is_read_only { 0o555 } else { 0o777 });
        Ok(Metadata {
            node,
            file_type,
            mode: (mode & 0o7777) as u16,
            uid: file.posix.uid.unwrap_or(0),
            gid: file.posix.gid.unwrap_or(0),
            size,
            links: if file_type == FileType::Directory { 1 } else { u32::from(file.node.links) },
            device: match file.kind {
                Kind::Special { device, .. } if stream.is_none() => device,
                _ => None,
            },
            accessed: Some(time(24)),
            modified: time(8),
            changed: time(16),
            created: Some(time(0)),
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        let file = self.file(directory.0)?;
        let listed = self.list(&file)?;
        let entry = |one: Listed| DirEntry {
            name: one.name,
            node: NodeId(one.reference.record),
            file_type: one.is_directory.map(|yes| if yes { FileType::Directory } else { FileType::Regular }),
        };
        Ok(listed.into_iter().map(entry).collect())
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let (file, name) = self.open_node(node)?;
        let number = file.node.number;
        match (&name, &file.kind) {
            (Some(_), _) | (None, Kind::Regular) => {
                let stream = self.stream(&file.node, (node.0, kind::DATA), name.as_deref().unwrap_or_default())?;
                match stream {
                    Some(stream) => self.volume.read(&stream, node.0, buffer, offset),
                    // The volume's own files need not have any.
                    None => Ok(0),
                }
            }
            (None, Kind::Wof(wof)) => {
                let chunks: Vec<u16> = wof::STREAM.encode_utf16().collect();
                let index = named_streams(&file.node).position(|stream| stream == chunks);
                let id = index.map(|index| stream_id(number, index)).ok_or_else(|| no_data(number))?;
                let stream = self.stream(&file.node, (id.0, kind::DATA), &chunks)?.ok_or_else(|| no_data(number))?;
                let size = file.node.first(kind::DATA, &[]).map_or(0, Attribute::size);
                self.volume.read_wof(*wof, &stream, node.0, size, buffer, offset)
            }
            (None, Kind::Elsewhere { file_type: FileType::Regular, what }) => Err(Error::unsupported(what.as_str())),
            _ => Err(wrong_type(number, "a regular file")),
        }
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        match self.open_node(node)? {
            (file, None) => match &file.kind {
                Kind::Link(target) => self.target(target),
                _ => Err(wrong_type(node.0, "a symbolic link")),
            },
            (_, Some(_)) => Err(wrong_type(node.0, "a symbolic link")),
        }
    }

    /// Named streams as `user.NAME`; extended attributes of NTFS's own under the name they have where that is one of
    /// Linux's, as the kernel writes them, else as `system.ntfs_ea.NAME`. WSL's are part of the metadata. A stream longer
    /// than Linux lets an attribute be is [`Error::Unsupported`]: it is read as a file.
    fn extended_attributes(&self, node: NodeId) -> Result<Vec<ExtendedAttribute>> {
        let (file, None) = self.open_node(node)? else { return Ok(Vec::new()) };
        let number = file.node.number;
        let mut found = Vec::new();
        let mut left = self.volume.budget.limits().allocation_bytes;
        for (index, name) in named_streams(&file.node).enumerate() {
            let shown = names::to_bytes(name.iter().copied());
            if matches!(file.kind, Kind::Wof(_)) && shown == wof::STREAM.as_bytes() {
                continue;
            }
            let key = (stream_id(number, index).0, kind::DATA);
            let stream = self.stream(&file.node, key, name)?.ok_or_else(|| no_data(number))?;
            // No value of an attribute is as long as streams can be: it is told by its length, and read as FILE:NAME.
            if stream.size > ATTRIBUTE_BYTES_MAX.min(left) {
                let name = [LONG_STREAM, shown.as_slice()].concat();
                found.push(ExtendedAttribute { name, value: stream.size.to_string().into_bytes() });
                continue;
            }
            left = left.saturating_sub(stream.size);
            let value = self.volume.read_all(&stream)?;
            found.push(ExtendedAttribute { name: [b"user.", shown.as_slice()].concat(), value });
        }
        if let Some(list) = self.small(&file.node, kind::EA)? {
            for (name, value) in reparse::extended_attributes(&list, number)? {
                if !name.starts_with(b"$LX") {
                    found.push(ExtendedAttribute { name: attribute_name(name), value: value.to_vec() });
                }
            }
        }
        Ok(found)
    }

    fn security_descriptor(&self, node: NodeId) -> Result<Option<Vec<u8>>> {
        let (file, _) = self.open_node(node)?;
        let information = file.node.first(kind::STANDARD_INFORMATION, &[]).and_then(Attribute::resident);
        // Since version 3.0 files name a descriptor that they share.
        let id = information.and_then(|information| le_u32(information, 52)).filter(|id| *id != 0);
        if let Some(id) = id
            && let Some((stream, places)) = self.shared_descriptors()?
            && let Some((offset, length)) = places.get(&id)
        {
            let mut descriptor = self.volume.budget.allocate(u64::from(*length))?;
            let count = self.volume.read(stream, u64::MAX, &mut descriptor, *offset)?;
            descriptor.truncate(count);
            return Ok(Some(descriptor));
        }
        self.small(&file.node, kind::SECURITY_DESCRIPTOR)
    }

    fn warnings(&self) -> Vec<String> {
        self.volume.warnings()
    }
}

fn index_name() -> Vec<u16> {
    index::NAME.encode_utf16().collect()
}

/// The names of a file's named streams, in on-disk order.
fn named_streams(node: &Node) -> impl Iterator<Item = &[u16]> {
    let is_named = |attribute: &&Attribute| attribute.kind == kind::DATA && !attribute.name.is_empty();
    let firsts = node.attributes.iter().filter(is_named).filter(|piece| piece.first_vcn() == 0);
    firsts.map(|attribute| attribute.name.as_slice())
}

fn stream_id(number: u64, index: usize) -> NodeId {
    NodeId(number | (index as u64 + 1) << STREAM_SHIFT)
}

fn attribute_name(name: &[u8]) -> Vec<u8> {
    const NAMESPACES: [&[u8]; 4] = [b"user.", b"security.", b"trusted.", b"system."];
    if NAMESPACES.iter().any(|namespace| name.starts_with(namespace)) {
        return name.to_vec();
    }
    [b"system.ntfs_ea.", name].concat()
}

/// The numbers of the set bits.
fn used_blocks(bitmap: &[u8]) -> impl Iterator<Item = u64> {
    let bytes = (0_u64..).zip(bitmap).filter(|(_, byte)| **byte != 0);
    bytes.flat_map(|(at, byte)| (0..8).filter(move |bit| byte >> bit & 1 != 0).map(move |bit| 8 * at + bit))
}

/// Hundreds of nanoseconds since 1601-01-01 UTC (`FILETIME`).
fn timestamp(raw: u64) -> Timestamp {
    const PER_SECOND: i64 = 10_000_000;
    const SECONDS_1601_TO_1970: i64 = 11_644_473_600;
    let ticks = raw.cast_signed();
    Timestamp {
        seconds: ticks.div_euclid(PER_SECOND) - SECONDS_1601_TO_1970,
        // Below ten million hundreds.
        nanoseconds: ticks.rem_euclid(PER_SECOND) as u32 * 100,
    }
}

fn wrong_type(number: u64, expected: &str) -> Error {
    Error::corrupt("NTFS file", number, format!("the file {number} is not {expected}"))
}

fn no_data(number: u64) -> Error {
    Error::corrupt("NTFS file", number, format!("the file {number} has no contents"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_1601() {
        for (raw, seconds, nanoseconds) in [
            (0, -11_644_473_600, 0),
            (116_444_736_000_000_000, 0, 0),
            (116_444_735_999_999_999, -1, 999_999_900),
            (133_195_000_000_000_007, 1_675_026_400, 700),
            (u64::MAX, -11_644_473_601, 999_999_900),
        ] {
            assert_eq!(timestamp(raw), Timestamp { seconds, nanoseconds }, "{raw}");
        }
    }

    #[test]
    fn bitmaps_count_from_the_lowest_bit() {
        assert_eq!(used_blocks(&[0b1000_0001, 0, 0b10]).collect::<Vec<_>>(), [0, 7, 17]);
    }

    #[test]
    fn only_attributes_of_linuxs_namespaces_keep_their_name() {
        assert_eq!(attribute_name(b"user.xattr1"), b"user.xattr1");
        assert_eq!(attribute_name(b"$CI.CATALOGHINT"), b"system.ntfs_ea.$CI.CATALOGHINT");
    }
}
