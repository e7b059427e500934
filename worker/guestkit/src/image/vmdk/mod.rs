//! VMware's virtual disks, after "Virtual Disk Format 5.0" (VMware, 2011), whose section names are used.
//!
//! A descriptor lists the extents that follow one another on the disk, each in a file of its own or, with the
//! descriptor embedded, in this one; a delta disk also names its parent. Whoever wrote the descriptor chose the names:
//! every file goes through the caller's [`super::ImageOpener`].

mod descriptor;
mod sparse;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::descriptor::{DESCRIPTOR_BYTES_MAX, Descriptor, ExtentKind, Parent};
use self::sparse::{Held, Hosted, Sparse};
use super::{Chain, Compression, Format, Known, Layer, Naming, resolve_name};
use crate::bytes::{has, le_u64};
use crate::error::{Error, Result};
use crate::read_at::{ReadAt, Source, check_range, read_up_to};

const SECTOR_BYTES: u64 = 512;

/// A disk: its extents, and what lies beneath.
#[derive(Debug)]
struct Vmdk {
    /// In the order of the disk, without gaps.
    extents: Vec<Extent>,
    parent: Option<Source>,
    length: u64,
    held: Held,
}

/// A stretch of the disk, in bytes.
#[derive(Debug)]
struct Extent {
    start: u64,
    length: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// The bytes as they are, from that byte of the file.
    Flat(Source, u64),
    Sparse(Sparse),
    Zeros,
}

/// What a sparse extent needs besides itself.
struct Layers<'a> {
    held: &'a Held,
    parent: Option<&'a Source>,
    /// Which extent of the disk it is.
    index: usize,
}

impl Layers<'_> {
    /// A parent that is shorter is completed with zeros.
    fn read_parent(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let length = self.parent.map_or(0, |parent| parent.len());
        let there = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let (present, beyond) = buffer.split_at_mut(there);
        beyond.fill(0);
        match self.parent {
            Some(parent) if !present.is_empty() => parent.read_exact_at(present, offset),
            _ => Ok(()),
        }
    }
}

impl Vmdk {
    fn new(extents: Vec<Extent>, parent: Option<Source>) -> Self {
        let length = extents.last().map_or(0, |last| last.start.saturating_add(last.length));
        let packed = extents.iter().filter_map(|extent| match &extent.content {
            Content::Sparse(sparse) if sparse.is_packed() => Some(sparse.grain_bytes()),
            _ => None,
        });
        let held = Held::new(packed.max().unwrap_or(0));
        Self { extents, parent, length, held }
    }

    /// Bytes of a grain, of the first extent that has grains.
    fn grain_bytes(&self) -> Option<u64> {
        self.extents.iter().find_map(|extent| match &extent.content {
            Content::Sparse(sparse) => Some(sparse.grain_bytes()),
            _ => None,
        })
    }

    fn is_packed(&self) -> bool {
        let packed = |extent: &Extent| matches!(&extent.content, Content::Sparse(sparse) if sparse.is_packed());
        self.extents.iter().any(packed)
    }
}

impl ReadAt for Vmdk {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.length, buffer.len(), offset)?;
        let mut at = offset;
        let mut rest = buffer;
        let first = self.extents.partition_point(|extent| extent.start.saturating_add(extent.length) <= offset);
        for (index, extent) in self.extents.iter().enumerate().skip(first) {
            if rest.is_empty() {
                break;
            }
            let within = at.saturating_sub(extent.start);
            let count = usize::try_from(extent.length.saturating_sub(within)).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = rest.split_at_mut(count);
            match &extent.content {
                Content::Flat(file, start) => {
                    let from = start.saturating_add(within);
                    file.read_exact_at(part, from).map_err(|error| cut_extent(error, from, file.len()))?;
                }
                Content::Sparse(sparse) => {
                    let layers = Layers { held: &self.held, parent: self.parent.as_ref(), index };
                    sparse.read(&layers, part, within, extent.start)?;
                }
                Content::Zeros => part.fill(0),
            }
            at = at.saturating_add(count as u64);
            rest = behind;
        }
        Ok(())
    }
}

fn cut_extent(error: Error, offset: u64, length: u64) -> Error {
    match error {
        Error::Corrupt { .. } => {
            Error::corrupt("vmdk flat extent", offset, format!("its file ends before, after {length} bytes"))
        }
        other => other,
    }
}

/// What the file that was named turned out to be.
enum Opened {
    /// A descriptor, and the one extent behind it.
    Embedded(Descriptor, Sparse, u32),
    /// A descriptor alone: a text file, or text behind a header without a disk.
    Beside(Descriptor),
}

fn read_file(file: &Source) -> Result<Opened> {
    let head = read_up_to(&**file, 0, 512)?;
    let lone = |kind: &str| Err(Error::unsupported(format!("a {kind} extent without the descriptor that names it")));
    if has(&head, 0, b"COWD") {
        return lone("COWD");
    }
    if le_u64(&head, 0) == Some(0xcafe_babe) {
        return lone("seSparse");
    }
    if !has(&head, 0, b"KDMV") {
        if file.len() > DESCRIPTOR_BYTES_MAX {
            let reason = format!("a text of {} bytes is no descriptor", file.len());
            return Err(Error::corrupt("vmdk descriptor", 0, reason));
        }
        let text = read_up_to(&**file, 0, usize::try_from(DESCRIPTOR_BYTES_MAX).unwrap_or(0))?;
        return Ok(Opened::Beside(Descriptor::parse(&text)?));
    }
    let header = Hosted::parse(&head, 0)?;
    if header.descriptor_offset == 0 {
        return lone("sparse");
    }
    let offset = header.descriptor_offset.saturating_mul(SECTOR_BYTES);
    let length = header.descriptor_sectors.saturating_mul(SECTOR_BYTES).min(DESCRIPTOR_BYTES_MAX);
    let text = read_up_to(&**file, offset, usize::try_from(length).unwrap_or(0))?;
    let descriptor = Descriptor::parse(&text)?;
    if header.capacity == 0 {
        return Ok(Opened::Beside(descriptor));
    }
    if descriptor.create_type.is_empty() {
        let reason = "there is none where the header says that it lies";
        return Err(Error::corrupt("vmdk descriptor", offset, reason));
    }
    if descriptor.extents.len() > 1 {
        let count = descriptor.extents.len();
        return Err(Error::unsupported(format!("an embedded vmdk descriptor of {count} extents")));
    }
    Ok(Opened::Embedded(descriptor, Sparse::open(Arc::clone(file))?, header.version))
}

impl Chain<'_> {
    pub(super) fn open_vmdk(&mut self, file: Source, mut layer: Layer, naming: Naming) -> Result<Source> {
        let path = layer.path.clone();
        let (descriptor, extents) = match read_file(&file)? {
            Opened::Embedded(descriptor, sparse, version) => {
                if descriptor.parent.is_some() {
                    naming.check(&path)?;
                }
                layer.format_version = Some(version);
                let length = sparse.capacity().saturating_mul(SECTOR_BYTES);
                (descriptor, vec![Extent { start: 0, length, content: Content::Sparse(sparse) }])
            }
            Opened::Beside(descriptor) => {
                naming.check(&path)?;
                let extents = self.open_extents(&path, &descriptor, &mut layer)?;
                (descriptor, extents)
            }
        };
        let mut disk = Vmdk::new(extents, None);
        layer.virtual_size_bytes = disk.length;
        layer.cluster_size_bytes = disk.grain_bytes();
        layer.compression = disk.is_packed().then_some(Compression::Zlib);
        layer.content_id = descriptor.content_id;
        self.image.push(layer);
        disk.parent = descriptor.parent.map(|parent| self.open_vmdk_parent(&path, &parent)).transpose()?;
        Ok(Arc::new(disk))
    }

    fn open_extents(&self, path: &Path, descriptor: &Descriptor, layer: &mut Layer) -> Result<Vec<Extent>> {
        if descriptor.extents.is_empty() {
            let kind = &descriptor.create_type;
            return Err(Error::corrupt("vmdk descriptor", 0, format!("a disk of type \"{kind}\" lists no extent")));
        }
        let mut files: HashMap<PathBuf, Source> = HashMap::new();
        let mut start = 0_u64;
        let mut extents = Vec::new();
        for listed in &descriptor.extents {
            self.budget.check_time()?;
            let end = listed.sectors.checked_mul(SECTOR_BYTES).and_then(|length| start.checked_add(length));
            let Some(end) = end.filter(|end| *end <= i64::MAX as u64) else {
                return Err(Error::corrupt("vmdk descriptor", 0, "its extents are larger than a disk can be"));
            };
            let mut file = || -> Result<Source> {
                let named = resolve_name(path, &listed.name)?;
                if let Some(file) = files.get(&named) {
                    return Ok(Arc::clone(file));
                }
                let file = self.host_file(&named)?;
                layer.allocated_bytes = layer.allocated_bytes.saturating_add(file.allocated());
                let file: Source = Arc::new(file);
                files.insert(named, Arc::clone(&file));
                Ok(file)
            };
            let content = match &listed.kind {
                ExtentKind::Zero => Content::Zeros,
                ExtentKind::Flat => Content::Flat(file()?, listed.offset.saturating_mul(SECTOR_BYTES)),
                ExtentKind::Sparse => Content::Sparse(open_sparse(file()?, listed.sectors)?),
                ExtentKind::Other(words) => return Err(Error::unsupported(format!("vmdk extent type {words}"))),
            };
            extents.push(Extent { start, length: end.saturating_sub(start), content });
            start = end;
        }
        Ok(extents)
    }

    /// Opens the parent of the delta disk at `path`. VMware refuses a chain whose content ids do not fit, because then
    /// the parent was written after the delta was begun; so do we.
    fn open_vmdk_parent(&mut self, path: &Path, parent: &Parent) -> Result<Source> {
        let place = self.image.len();
        let known = Known::Declared(Format::Vmdk);
        let named = resolve_name(path, &parent.name).and_then(|named| self.open(&named, known));
        let source = match (named, moved_parent(path, &parent.name)) {
            (Ok(source), _) => source,
            // The hint of a disk that was copied elsewhere with its parent: the content id tells whether it is that one.
            (Err(Error::NotFound { .. } | Error::AccessDenied { .. }), Some(beside))
                if self.image.len() == place && self.opener.open(&beside).is_ok() =>
            {
                self.warnings.push(format!(
                    "{} names its parent {}, which cannot be opened; {} was taken",
                    path.display(),
                    parent.name.escape_ascii(),
                    beside.display()
                ));
                self.open(&beside, known)?
            }
            (Err(error), _) => return Err(error),
        };
        let found = self.image.get(place).and_then(|layer| layer.content_id);
        if found == Some(parent.content_id) {
            return Ok(source);
        }
        let found = found.map_or("none".into(), |id| format!("{id:08x}"));
        let reason = format!(
            "{} was made for a parent of content id {:08x}, its parent has {found}: the parent was changed since",
            path.display(),
            parent.content_id
        );
        Err(Error::corrupt("vmdk chain", 0, reason))
    }
}

fn open_sparse(file: Source, sectors: u64) -> Result<Sparse> {
    let sparse = Sparse::open(file)?;
    if sparse.capacity() < sectors {
        let reason = format!("it lists an extent of {sectors} sectors, whose file has {}", sparse.capacity());
        return Err(Error::corrupt("vmdk descriptor", 0, reason));
    }
    Ok(sparse)
}

/// Where the parent lies if it was moved together with the delta disk: beside it, under the last part of an absolute
/// hint, be it of Windows or not.
fn moved_parent(path: &Path, hint: &[u8]) -> Option<PathBuf> {
    let absolute = hint.starts_with(b"/") || hint.starts_with(b"\\") || hint.get(1..3) == Some(b":\\");
    let name = hint.rsplit(|byte| matches!(byte, b'/' | b'\\')).next()?;
    let plain = absolute && !matches!(name, b"" | b"." | b"..");
    plain.then(|| resolve_name(path, name).ok()).flatten()
}
