//! Disk images: from files of the host to the bytes the guest saw.
//!
//! One file per format. [`open`] follows a chain of backing files through the caller's [`ImageOpener`]; whatever an
//! image names is held to the same policy as the image itself, and a format is only guessed where the caller asked for
//! it.

mod blocks;
mod checksum;
mod detect;
mod file;
mod inflate;
mod open;
mod ova;
mod parent;
mod qcow2;
mod raw;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use checksum::sha256;
pub use detect::{Format, detect};
pub use open::{ImageOpener, Roots};
pub use qcow2::Compression;

use self::file::HostFile;
use self::ova::Appliance;
use self::qcow2::{Header, Qcow2};
use self::raw::Raw;
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt as _, Source};

/// An image of a chain, as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The file, as it was named: by the caller, or by the image above resolved against that image's directory.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// The format's own version where it has one: 2 or 3 for qcow2.
    pub format_version: Option<u32>,
    /// Bytes the guest sees of this image.
    pub virtual_size_bytes: u64,
    /// Length of the file in bytes.
    pub file_size_bytes: u64,
    /// Bytes the file occupies on the host; less than its length where it is sparse.
    pub allocated_bytes: u64,
    /// Bytes of a cluster, where the format has them.
    pub cluster_size_bytes: Option<u64>,
    /// How clusters may be compressed, where the format has that.
    pub compression: Option<Compression>,
    /// The file that holds the data of this image, where it is not the image file.
    pub data_file: Option<PathBuf>,
    /// What a VMDK's descriptor calls its CID: changes whenever the contents were changed.
    pub content_id: Option<u32>,
    /// Snapshots inside the image: earlier states that it keeps, and that nobody below sees.
    pub internal_snapshots: u32,
}

/// An opened image, with all it rests on.
#[derive(Debug, Clone)]
pub struct Image {
    source: Source,
    layers: Vec<Layer>,
    format_was_guessed: bool,
    warnings: Vec<String>,
}

impl Image {
    /// The bytes the guest saw.
    #[must_use]
    pub fn source(&self) -> Source {
        Arc::clone(&self.source)
    }

    /// The image that was asked for.
    #[must_use]
    pub fn top(&self) -> Option<&Layer> {
        self.layers.first()
    }

    /// The images of the chain, the one that was asked for first.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Whether nobody stated the format of the image that was asked for.
    #[must_use]
    pub const fn format_was_guessed(&self) -> bool {
        self.format_was_guessed
    }

    /// What is odd about the image and was read nevertheless.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Opens the image at `path`. `stated` is its format, or `None` to have it recognised. Of an appliance with several
/// disks it opens the first, with a warning that names the others; [`open_all`] opens them all.
///
/// # Errors
/// Any variant of [`Error`]; the path in it is that of the file of the chain that failed.
pub fn open(path: &Path, stated: Option<Format>, opener: &dyn ImageOpener, budget: &Arc<Budget>) -> Result<Image> {
    let (mut image, appliance) = open_disk(path, stated, opener, &stay_locked, budget, None)?;
    let disks = appliance.map(|appliance| appliance.disk_names()).unwrap_or_default();
    if let Some((_, others)) = disks.split_first().filter(|(_, others)| !others.is_empty()) {
        image.warnings.push(format!("{} also holds the disks {}", path.display(), others.join(", ")));
    }
    Ok(image)
}

/// Opens the image at `path` as [`open`] does; an appliance (OVA) gives all its disks, in the order it lists them.
/// `unlock` opens what an encrypted image holds.
///
/// # Errors
/// As of [`open`], and what `unlock` gives.
pub fn open_all(
    path: &Path,
    stated: Option<Format>,
    opener: &dyn ImageOpener,
    unlock: &Unlock<'_>,
    budget: &Arc<Budget>,
) -> Result<Vec<Image>> {
    let (first, appliance) = open_disk(path, stated, opener, unlock, budget, None)?;
    let mut images = vec![first];
    for disk in 1..appliance.as_ref().map_or(0, |appliance| appliance.disk_count()) {
        let asked = appliance.clone().map(|appliance| (appliance, disk));
        images.push(open_disk(path, stated, opener, unlock, budget, asked)?.0);
    }
    Ok(images)
}

/// From a LUKS volume, as an image encrypts itself with one, to its plain bytes.
pub type Unlock<'a> = dyn Fn(Source) -> Result<Source> + 'a;

/// The [`Unlock`] of who has no key.
///
/// # Errors
/// [`Error::Encrypted`].
pub fn stay_locked(_: Source) -> Result<Source> {
    Err(Error::Encrypted { what: "qcow2 image (LUKS)".into() })
}

/// Opens one disk of the image: where it is an appliance the first, or the one asked for.
fn open_disk(
    path: &Path,
    stated: Option<Format>,
    opener: &dyn ImageOpener,
    unlock: &Unlock<'_>,
    budget: &Arc<Budget>,
    appliance: Option<(Arc<Appliance>, usize)>,
) -> Result<(Image, Option<Arc<Appliance>>)> {
    let mut chain = Chain {
        opener,
        budget,
        guessing: stated.is_none(),
        seen: HashSet::new(),
        image: Vec::new(),
        warnings: Vec::new(),
        unlock,
        appliance,
    };
    let known = stated.map_or(Known::Guess, Known::Stated);
    let source = chain.open(path, known)?;
    let image = Image { source, layers: chain.image, format_was_guessed: stated.is_none(), warnings: chain.warnings };
    Ok((image, chain.appliance.map(|(appliance, _)| appliance)))
}

/// How the format of one image of the chain is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The caller stated it: its header must agree.
    Stated(Format),
    /// The image above states it. What is declared raw is raw, whatever its first bytes look like: a guest wrote them.
    Declared(Format),
    /// Nobody does, and the caller asked for guessing: this is the image that was asked for.
    Guess,
    /// The same, for a backing file.
    GuessBacking,
}

/// Why a backing file of a guessed format may not name files.
const GUESSED: &str = "its format was only guessed, so it may not name further files; \
                       `qemu-img rebase -u -F` in the image above it records the format";

/// Whether an image may name further files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    Allowed,
    /// It may not, for this reason.
    Refused(&'static str),
}

impl Naming {
    fn check(self, path: &Path) -> Result<()> {
        match self {
            Self::Allowed => Ok(()),
            Self::Refused(reason) => Err(Error::AccessDenied { path: path.into(), reason: reason.into() }),
        }
    }
}

struct Chain<'a> {
    opener: &'a dyn ImageOpener,
    budget: &'a Arc<Budget>,
    guessing: bool,
    seen: HashSet<(u64, u64)>,
    image: Vec<Layer>,
    warnings: Vec<String>,
    unlock: &'a Unlock<'a>,
    /// The appliance that the image is, and which of its disks is asked for.
    appliance: Option<(Arc<Appliance>, usize)>,
}

impl Chain<'_> {
    fn open(&mut self, path: &Path, known: Known) -> Result<Source> {
        let bound = self.budget.limits().chain_length;
        if self.image.len() >= bound as usize {
            return Err(Error::LimitReached { which: Limit::ChainLength, value: u64::from(bound) });
        }
        let file = self.host_file(path)?;
        if !self.seen.insert(file.identity()) {
            let reason = format!("the chain comes back to {}", path.display());
            return Err(Error::corrupt("backing chain", 0, reason));
        }
        if file.is_empty() && known != Known::Declared(Format::Raw) {
            return Err(Error::NotAnImage { path: path.into(), found: "an empty file" });
        }
        let format = settle_format(path, known, &file)?;
        let layer = Layer {
            path: path.into(),
            format,
            format_version: None,
            virtual_size_bytes: 0,
            file_size_bytes: file.len(),
            allocated_bytes: file.allocated(),
            cluster_size_bytes: None,
            compression: None,
            data_file: None,
            content_id: None,
            internal_snapshots: 0,
        };
        let is_guess = known == Known::GuessBacking;
        let naming = if is_guess { Naming::Refused(GUESSED) } else { Naming::Allowed };
        self.open_contents(Arc::new(file), layer, naming)
    }

    /// Opens what is in `file` by the format that `layer` names.
    fn open_contents(&mut self, file: Source, mut layer: Layer, naming: Naming) -> Result<Source> {
        match layer.format {
            Format::Raw => {
                let raw = Raw::new(file);
                layer.virtual_size_bytes = raw.len();
                self.image.push(layer);
                Ok(Arc::new(raw))
            }
            Format::Qcow2 => self.open_qcow2(file, layer, naming),
            Format::Vmdk => self.open_vmdk(file, layer, naming),
            Format::Vdi => self.open_vdi(file, layer, naming != Naming::Allowed),
            Format::Vhd => self.open_vhd(file, layer, naming != Naming::Allowed),
            Format::Vhdx => self.open_vhdx(file, layer, naming != Naming::Allowed),
            Format::Ova if self.image.is_empty() => self.open_ova(&file, layer),
            Format::Compressed(by) => Err(Error::unsupported(format!("an image compressed as a whole by {by}"))),
            other => {
                let size = detect::virtual_size_of_unread(&*file, other)?;
                let size = size.map(|size| format!(", of a disk of {size} bytes,")).unwrap_or_default();
                Err(Error::unsupported(format!("image format {}{size}", other.name())))
            }
        }
    }

    fn host_file(&self, path: &Path) -> Result<HostFile> {
        HostFile::new(self.opener.open(path)?, path, Arc::clone(self.budget))
    }

    fn open_qcow2(&mut self, file: Source, mut layer: Layer, naming: Naming) -> Result<Source> {
        let header = Header::read(&*file)?;
        let path = layer.path.clone();
        if header.marked_corrupt {
            self.warnings.push(format!("{} is marked corrupt by the program that wrote it", path.display()));
        }
        layer.format_version = Some(header.version);
        layer.virtual_size_bytes = header.virtual_size;
        layer.cluster_size_bytes = Some(header.cluster_bytes());
        layer.compression = Some(header.compression);
        layer.internal_snapshots = header.snapshots;
        if header.backing_name.is_some() || header.has_data_file {
            naming.check(&path)?;
        }
        let data_file = match (header.has_data_file, &header.data_file_name) {
            (false, _) => None,
            (true, None) => return Err(Error::corrupt("qcow2 header", 72, "it has a data file and does not name it")),
            (true, Some(name)) => {
                let named = resolve_name(&path, name)?;
                let data = self.host_file(&named)?;
                if !self.seen.insert(data.identity()) {
                    return Err(Error::corrupt("backing chain", 0, "a data file is an image of the same chain"));
                }
                layer.data_file = Some(named);
                let data: Source = Arc::new(data);
                Some(data)
            }
        };
        self.image.push(layer);
        let backing = match &header.backing_name {
            Some(name) => Some(self.open_backing(&path, name, header.backing_format.as_deref())?),
            None => None,
        };
        let data = data_file.unwrap_or_else(|| Arc::clone(&file));
        let data = match header.luks {
            Some(place) => (self.unlock)(qcow2::luks_volume(&file, place, data)?)?,
            None => data,
        };
        Ok(Arc::new(Qcow2::open(header, file, data, backing, self.budget)?))
    }

    /// The oldest trick against overlays: a guest writes a header into its raw disk and names a file.
    fn refuse_guessed(&self, path: &Path, only_guessed: bool) -> Result<()> {
        if only_guessed { Naming::Refused(GUESSED).check(path) } else { Ok(()) }
    }

    fn open_backing(&mut self, overlay: &Path, name: &[u8], declared: Option<&[u8]>) -> Result<Source> {
        let path = resolve_name(overlay, name)?;
        let known = match declared.map(String::from_utf8_lossy) {
            Some(declared) => match Format::from_name(&declared) {
                Some(format) => Known::Declared(format),
                None => return Err(Error::unsupported(format!("backing format \"{}\"", declared.escape_debug()))),
            },
            None if self.guessing => {
                self.warnings.push(format!(
                    "{} does not record the format of its backing file {}; it was guessed",
                    overlay.display(),
                    path.display()
                ));
                Known::GuessBacking
            }
            None => {
                let what = "a backing file whose format is not recorded, where the image's format was stated";
                return Err(Error::unsupported(what));
            }
        };
        self.open(&path, known)
    }
}

fn settle_format(path: &Path, known: Known, file: &HostFile) -> Result<Format> {
    let (stated, by) = match known {
        Known::Guess | Known::GuessBacking => return detect(file),
        Known::Declared(Format::Raw) => return Ok(Format::Raw),
        Known::Declared(format) => (format, " by the image above it"),
        Known::Stated(format) => (format, ""),
    };
    let found = detect(file)?;
    if found == stated {
        return Ok(stated);
    }
    let found = match found {
        Format::Raw => "raw bytes without the header of any image format".to_owned(),
        other => other.name().to_owned(),
    };
    Err(Error::FormatMismatch { path: path.into(), stated: format!("{}{by}", stated.name()), found })
}

/// The path an image names, against the image's own directory; names of protocols are refused as QEMU would read them:
/// a colon before any slash.
fn resolve_name(image: &Path, name: &[u8]) -> Result<PathBuf> {
    let path = Path::new(OsStr::from_bytes(name));
    let protocol = name.iter().find(|byte| matches!(byte, b':' | b'/')) == Some(&b':');
    if protocol || name.contains(&0) {
        let reason = format!("{} names it, and only plain paths are followed", image.display());
        return Err(Error::AccessDenied { path: PathBuf::from(name.escape_ascii().to_string()), reason });
    }
    Ok(image.parent().unwrap_or(Path::new("")).join(path))
}
