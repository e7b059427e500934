//! The door: image files in, devices with what lies on them out.
//!
//! Opening reads headers, tables and superblocks only. Devices carry the names libguestfs gives them: the first image is
//! `/dev/sda`, its first partition `/dev/sda1`.

use std::path::PathBuf;
use std::sync::Arc;

use crate::block_cache::BlockCache;
use crate::error::{Error, Result};
use crate::filesystem::{self, Probe, SharedFileSystem, Usage};
use crate::image::{self, Format, Image, ImageOpener};
use crate::limits::{Budget, Limits};
use crate::partition::{self, Layout, Partition, PartitionTable};
use crate::read_at::{Slice, Source};

/// An image to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// Its path on the host.
    pub path: PathBuf,
    /// Its format, where it is known; otherwise it is recognised.
    pub format: Option<Format>,
}

impl ImageSpec {
    /// The image at `path`, whose format is to be recognised.
    #[must_use]
    pub fn recognised(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), format: None }
    }
}

/// Something that was met and could not be taken in; everything else stands nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The device it concerns.
    pub device: String,
    /// What was met.
    pub what: String,
    /// Why it could not be read, as a lower-case fragment.
    pub why: String,
}

/// One image as the guest saw it.
#[derive(Debug)]
pub struct Drive {
    /// `/dev/sda`, `/dev/sdb`…
    pub name: String,
    /// The image.
    pub image: Image,
    /// What its first sectors show.
    pub layout: Layout,
    source: Source,
}

impl Drive {
    /// Its partition table, where it has one that is read.
    #[must_use]
    pub const fn partition_table(&self) -> Option<&PartitionTable> {
        match &self.layout {
            Layout::Table(table) => Some(table),
            Layout::Unread(_) | Layout::Nothing => None,
        }
    }

    /// The disk's bytes, through the block cache.
    #[must_use]
    pub fn source(&self) -> Source {
        Arc::clone(&self.source)
    }
}

/// A device that can hold a file system: a partition, or a whole disk without a table.
#[derive(Debug, Clone)]
pub struct Device {
    /// `/dev/sda1`, or `/dev/sda` where the disk has no partitions.
    pub name: String,
    /// Its length in bytes, cut where the disk ends.
    pub size_bytes: u64,
    /// The partition, where it is one.
    pub partition: Option<Partition>,
    /// What its superblock shows; `None` where nothing is recognised.
    pub probe: Option<Probe>,
    source: Source,
}

impl Device {
    /// Its bytes.
    #[must_use]
    pub fn source(&self) -> Source {
        Arc::clone(&self.source)
    }
}

/// A machine's opened disks.
#[derive(Debug)]
pub struct Disk {
    drives: Vec<Drive>,
    devices: Vec<Device>,
    warnings: Vec<Warning>,
    budget: Arc<Budget>,
}

impl Disk {
    /// Opens the disks of one machine, in the order the machine had them, within one account of `limits`.
    ///
    /// # Errors
    /// Any variant of [`Error`]: an image that cannot be opened, or whose first sectors cannot be read, fails the whole.
    /// What is broken or unknown further in becomes a warning.
    pub fn open(images: &[ImageSpec], opener: &dyn ImageOpener, limits: &Limits) -> Result<Self> {
        let mut disk =
            Self { drives: Vec::new(), devices: Vec::new(), warnings: Vec::new(), budget: Budget::new(limits) };
        for spec in images {
            // An appliance holds all the disks of its machine.
            for image in image::open_all(&spec.path, spec.format, opener, &image::stay_locked, &disk.budget)? {
                disk.add(&drive_name(disk.drives.len()), spec, image)?;
            }
        }
        Ok(disk)
    }

    /// TEMPORARY until volumes land.
    ///
    /// # Errors
    /// As open.
    pub fn open_with_keys(
        images: &[ImageSpec],
        opener: &dyn ImageOpener,
        _: &crate::Keys,
        limits: &Limits,
    ) -> Result<Self> {
        Self::open(images, opener, limits)
    }

    fn add(&mut self, name: &str, spec: &ImageSpec, image: Image) -> Result<()> {
        for warning in image.warnings() {
            self.warn(name, "disk image", warning);
        }
        let source: Source = Arc::new(BlockCache::new(image.source(), Arc::clone(&self.budget)));
        let whole = filesystem::probe(&*source)?;
        // A FAT or NTFS boot sector ends like a boot record; what it is says its own superblock.
        let is_boot_sector = whole.as_ref().is_some_and(|probe| matches!(probe.kind, "vfat" | "ntfs" | "exfat"));
        let layout = if is_boot_sector { Layout::Nothing } else { partition::read(&*source)? };
        if whole.is_none() && layout == Layout::Nothing {
            refuse_misnamed(spec, &image)?;
        }
        match &layout {
            Layout::Table(table) => self.add_partitions(name, table, &source),
            Layout::Unread(kind) => {
                self.warn(name, "partition table", &format!("a partition table of kind {kind} is not supported"));
            }
            Layout::Nothing => self.devices.push(Device {
                name: name.to_owned(),
                size_bytes: source.len(),
                partition: None,
                probe: whole,
                source: Arc::clone(&source),
            }),
        }
        self.drives.push(Drive { name: name.to_owned(), image, layout, source });
        Ok(())
    }

    fn add_partitions(&mut self, drive: &str, table: &PartitionTable, source: &Source) {
        for warning in &table.warnings {
            self.warn(drive, "partition table", warning);
        }
        for partition in table.partitions.iter().filter(|partition| !partition.is_extended) {
            let name = format!("{drive}{}", partition.number);
            let part: Source = Arc::new(Slice::new(Arc::clone(source), partition.start_bytes, partition.size_bytes));
            let probe = filesystem::probe(&*part).unwrap_or_else(|error| {
                self.warn(&name, "superblock", &error.to_string());
                None
            });
            let size_bytes = part.len();
            self.devices.push(Device { name, size_bytes, partition: Some(partition.clone()), probe, source: part });
        }
    }

    fn warn(&mut self, device: &str, what: &str, why: &str) {
        self.warnings.push(Warning { device: device.into(), what: what.into(), why: why.into() });
    }

    /// The disks, in the order they were given.
    #[must_use]
    pub fn drives(&self) -> &[Drive] {
        &self.drives
    }

    /// The devices that can hold a file system, in the order of disks and partitions.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The device called `name`.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// What was met while opening and could not be taken in.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The account of these disks.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Mounts the file system on `device`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming what lies there; [`Error::Encrypted`]; [`Error::Corrupt`]; limits and I/O.
    pub fn mount(&self, device: &Device) -> Result<SharedFileSystem> {
        let Some(probe) = &device.probe else {
            return Err(Error::unsupported(format!("the unrecognised content of {}", device.name)));
        };
        match probe.usage {
            Usage::FileSystem => filesystem::mount(&[device.source()], probe, &self.budget),
            Usage::Encrypted => Err(Error::Encrypted { what: format!("{} ({})", device.name, probe.kind) }),
            Usage::Volume => Err(Error::unsupported(format!("volume {}", probe.kind))),
            Usage::Other => Err(Error::unsupported(format!("{} is no file system: mounting it", probe.kind))),
        }
    }
}

/// A file called `.qcow2` that shows neither the format nor anything else a disk has was not what its name says.
fn refuse_misnamed(spec: &ImageSpec, image: &Image) -> Result<()> {
    let claimed = spec.path.extension().and_then(|extension| Format::from_extension(extension.to_str()?));
    let is_raw = image.top().is_some_and(|layer| layer.format == Format::Raw);
    match claimed {
        Some(claimed) if image.format_was_guessed() && is_raw => Err(Error::FormatMismatch {
            path: spec.path.clone(),
            stated: format!("{} by its name", claimed.name()),
            found: "raw bytes without anything that is recognised".into(),
        }),
        _ => Ok(()),
    }
}

/// `sda` to `sdz`, then `sdaa`: as the kernel's sd driver counts.
fn drive_name(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        let letter = u8::try_from((rest - 1) % 26).unwrap_or(0);
        letters.push(char::from(b'a' + letter));
        rest = (rest - 1) / 26;
    }
    letters.push('d');
    letters.push('s');
    format!("/dev/{}", letters.iter().rev().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_are_lettered_as_by_the_kernel() {
        for (index, name) in
            [(0, "/dev/sda"), (25, "/dev/sdz"), (26, "/dev/sdaa"), (27, "/dev/sdab"), (702, "/dev/sdaaa")]
        {
            assert_eq!(drive_name(index), name);
        }
    }
}
