//! The door: image files in, devices with what lies on them out.
//!
//! Opening reads headers, tables and superblocks only. Devices carry the names libguestfs gives them: the first image is
//! `/dev/sda`, its first partition `/dev/sda1`, a RAID array `/dev/md127`, a logical volume `/dev/vg/root`, an opened
//! encrypted volume `/dev/mapper/luks-UUID`.

mod assembly;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::block_cache::BlockCache;
use crate::error::{Error, Limit, Result};
use crate::filesystem::{self, Probe, SharedFileSystem, Usage};
use crate::image::{self, Format, Image, ImageOpener};
use crate::keys::Keys;
use crate::limits::{Budget, Limits};
use crate::partition::{self, Layout, Partition, PartitionTable};
use crate::read_at::{Slice, Source};
use crate::volume::{Array, VolumeGroup};
use crate::volume::{luks, md};

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

/// What a device is, as lsblk names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// A whole disk.
    Disk,
    /// A partition.
    Partition,
    /// A software RAID array.
    Raid,
    /// An opened encrypted volume.
    Crypt,
    /// A logical volume.
    Lvm,
}

impl DeviceKind {
    /// The name lsblk prints as TYPE.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Partition => "part",
            Self::Raid => "raid",
            Self::Crypt => "crypt",
            Self::Lvm => "lvm",
        }
    }
}

/// A device that can hold a file system: a partition, a volume, or a whole disk without a table.
#[derive(Debug, Clone)]
pub struct Device {
    /// `/dev/sda1`, or `/dev/sda` where the disk has no partitions; `/dev/md127`, `/dev/vg/root`…
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Its length in bytes, cut where the disk ends.
    pub size_bytes: u64,
    /// The partition, where it is one.
    pub partition: Option<Partition>,
    /// What its superblock shows; `None` where nothing is recognised.
    pub probe: Option<Probe>,
    /// Devices that it is made of: the disk of a partition, the members of an array…
    pub parents: Vec<String>,
    /// Devices that were made of it: it is a member of each of them.
    pub holders: Vec<String>,
    source: Source,
}

impl Device {
    /// Its bytes.
    #[must_use]
    pub fn source(&self) -> Source {
        Arc::clone(&self.source)
    }

    /// Whether a file system can be expected here: not swap and its like, and not what was put into a volume.
    #[must_use]
    pub fn is_candidate(&self) -> bool {
        self.holders.is_empty() && self.probe.as_ref().is_some_and(|probe| probe.usage != Usage::Other)
    }
}

/// A machine's opened disks.
#[derive(Debug)]
pub struct Disk {
    drives: Vec<Drive>,
    devices: Vec<Device>,
    arrays: Vec<Array>,
    groups: Vec<VolumeGroup>,
    /// Why encrypted devices stay closed, in words, by the name of the device.
    closed: BTreeMap<String, String>,
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
        Self::open_with_keys(images, opener, &Keys::none(), limits)
    }

    /// The same with `keys` for encrypted volumes; each is tried on the volumes that it is for.
    ///
    /// # Errors
    /// As [`Disk::open`], and [`Error::LimitReached`] for more devices, or devices made of devices, than `limits` allow.
    /// A key that does not fit is no error here, but one of [`Disk::mount`].
    pub fn open_with_keys(
        images: &[ImageSpec],
        opener: &dyn ImageOpener,
        keys: &Keys,
        limits: &Limits,
    ) -> Result<Self> {
        let mut disk = Self {
            drives: Vec::new(),
            devices: Vec::new(),
            arrays: Vec::new(),
            groups: Vec::new(),
            closed: BTreeMap::new(),
            warnings: Vec::new(),
            budget: Budget::new(limits),
        };
        for spec in images {
            let name = drive_name(disk.drives.len());
            let budget = Arc::clone(&disk.budget);
            let unlock = |volume: Source| {
                let uuid = filesystem::probe(&*volume)?.and_then(|probe| probe.uuid);
                let mut secrets = keys.of(&name, uuid.as_deref()).peekable();
                if secrets.peek().is_none() {
                    return image::stay_locked(volume);
                }
                luks::open(volume, secrets, &budget)
            };
            // An appliance holds all the disks of its machine.
            for image in image::open_all(&spec.path, spec.format, opener, &unlock, &disk.budget)? {
                disk.add(&drive_name(disk.drives.len()), spec, image)?;
            }
        }
        assembly::assemble(&mut disk, keys)?;
        Ok(disk)
    }

    fn add(&mut self, name: &str, spec: &ImageSpec, image: Image) -> Result<()> {
        for warning in image.warnings() {
            self.warn(name, "disk image", warning);
        }
        let source: Source = Arc::new(BlockCache::new(image.source(), Arc::clone(&self.budget)));
        let probe = filesystem::probe(&*source)?;
        let layout = layout(&source, probe.as_ref())?;
        if probe.is_none() && layout == Layout::Nothing {
            refuse_misnamed(spec, &image)?;
        }
        let device = Device {
            name: name.to_owned(),
            kind: DeviceKind::Disk,
            size_bytes: source.len(),
            partition: None,
            probe,
            parents: Vec::new(),
            holders: Vec::new(),
            source: Arc::clone(&source),
        };
        self.add_device(device, &layout)?;
        self.drives.push(Drive { name: name.to_owned(), image, layout, source });
        Ok(())
    }

    /// Lists a device, or instead of it its partitions.
    fn add_device(&mut self, device: Device, layout: &Layout) -> Result<()> {
        match layout {
            Layout::Table(table) => {
                let controller = device.probe.as_ref().filter(|probe| is_of_controller(probe));
                if let Some(probe) = controller {
                    let why =
                        format!("it is a member of a RAID of its controller ({}); its own table is read", probe.kind);
                    self.warn(&device.name, "RAID", &why);
                }
                // A hybrid image of a disc starts as a disk too; the disc is the whole of it.
                let is_disc = device.probe.as_ref().is_some_and(|probe| matches!(probe.kind, "iso9660" | "udf"));
                if is_disc || table.partitions.is_empty() {
                    self.list(device.clone())?;
                }
                self.add_partitions(&device, table)
            }
            Layout::Unread(kind) => {
                let why = format!("a partition table of kind {kind} is not supported");
                self.warn(&device.name, "partition table", &why);
                // Such tables stand on discs as well.
                if device.probe.is_some() { self.list(device) } else { Ok(()) }
            }
            Layout::Nothing => self.list(device),
        }
    }

    fn list(&mut self, device: Device) -> Result<()> {
        let bound = self.budget.limits().devices;
        if self.devices.len() >= bound as usize {
            return Err(Error::LimitReached { which: Limit::Devices, value: u64::from(bound) });
        }
        self.devices.push(device);
        Ok(())
    }

    fn add_partitions(&mut self, whole: &Device, table: &PartitionTable) -> Result<()> {
        for warning in &table.warnings {
            self.warn(&whole.name, "partition table", warning);
        }
        // As the kernel does it: a name that ends in a digit takes a letter between.
        let infix = if whole.name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
        for partition in table.partitions.iter().filter(|partition| !partition.is_extended) {
            let name = format!("{}{infix}{}", whole.name, partition.number);
            let part: Source = Arc::new(Slice::new(whole.source(), partition.start_bytes, partition.size_bytes));
            let probe = filesystem::probe(&*part).unwrap_or_else(|error| {
                self.warn(&name, "superblock", &error.to_string());
                None
            });
            self.list(Device {
                name,
                kind: DeviceKind::Partition,
                size_bytes: part.len(),
                partition: Some(partition.clone()),
                probe,
                parents: vec![whole.name.clone()],
                holders: Vec::new(),
                source: part,
            })?;
        }
        Ok(())
    }

    fn warn(&mut self, device: &str, what: &str, why: &str) {
        self.warnings.push(Warning { device: device.into(), what: what.into(), why: why.into() });
    }

    /// The disks, in the order they were given.
    #[must_use]
    pub fn drives(&self) -> &[Drive] {
        &self.drives
    }

    /// The devices that can hold a file system, in the order of disks and partitions; what is made of others follows them.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The device called `name`.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// The device that a guest calls `name`, where that is another name of one: `/dev/mapper/vg-root` for a logical volume,
    /// `/dev/md/NAME` and `/dev/mdNAME` for an array.
    #[must_use]
    pub fn device_called(&self, name: &str) -> Option<&Device> {
        if let Some(device) = self.device(name) {
            return Some(device);
        }
        let mapped = name.strip_prefix("/dev/mapper/").and_then(|mapped| {
            // device-mapper joins names by a hyphen and doubles those within.
            let escaped = |name: &str| name.replace('-', "--");
            let called = |device: &&Device| {
                let (group, volume) = device.name.strip_prefix("/dev/")?.split_once('/')?;
                Some(device.kind == DeviceKind::Lvm && format!("{}-{}", escaped(group), escaped(volume)) == mapped)
            };
            self.devices.iter().find(|device| called(device).unwrap_or(false))
        });
        mapped.or_else(|| {
            let called = name.strip_prefix("/dev/md/").or_else(|| name.strip_prefix("/dev/md"))?;
            self.arrays.iter().find_map(|array| {
                let own = array.name.as_ref()?;
                let own = own.split_once(':').map_or(own.as_str(), |(_, own)| own);
                let device = array.device.as_ref()?;
                match called.strip_prefix(own)? {
                    "" => self.device(device),
                    // A name that ends in a digit takes a letter before the number of a partition.
                    rest if own.ends_with(|last: char| last.is_ascii_digit()) => {
                        self.device(&format!("{device}p{}", rest.strip_prefix('p')?))
                    }
                    rest => self.device(&format!("{device}p{rest}")),
                }
            })
        })
    }

    /// The software RAID arrays that members were found of.
    #[must_use]
    pub fn arrays(&self) -> &[Array] {
        &self.arrays
    }

    /// The volume groups that physical volumes were found of.
    #[must_use]
    pub fn volume_groups(&self) -> &[VolumeGroup] {
        &self.groups
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
        if let (Usage::Volume | Usage::Encrypted, Some(holder)) = (probe.usage, device.holders.first()) {
            let what = format!("{} is no file system, its content is on {holder}: mounting it", probe.kind);
            return Err(Error::unsupported(what));
        }
        match probe.usage {
            Usage::FileSystem => filesystem::mount(&self.members(device, probe), probe, &self.budget),
            Usage::Encrypted => {
                let why = self.closed.get(&device.name).map_or("", String::as_str);
                let what = format!("{} ({}{why})", device.name, probe.kind);
                Err(Error::Encrypted { what })
            }
            Usage::Volume => Err(Error::unsupported(format!("volume {}", probe.kind))),
            Usage::Other => Err(Error::unsupported(format!("{} is no file system: mounting it", probe.kind))),
        }
    }

    /// The device itself, then the others of the same file system where it may span several.
    fn members(&self, device: &Device, probe: &Probe) -> Vec<Source> {
        let is_other = |other: &&Device| {
            let same = |found: &Probe| found.kind == probe.kind && found.uuid == probe.uuid;
            other.name != device.name && other.probe.as_ref().is_some_and(same)
        };
        let others = self.devices.iter().filter(|_| probe.kind == "btrfs" && probe.uuid.is_some()).filter(is_other);
        std::iter::once(device).chain(others).map(Device::source).collect()
    }
}

/// A member of a RAID that a controller or its driver puts together.
fn is_of_controller(probe: &Probe) -> bool {
    matches!(probe.kind, "ddf_raid_member" | "isw_raid_member")
}

/// The partition table of a device on which `probe` was found, unless what was found makes it another's.
///
/// # Errors
/// Whatever reading the device gives.
fn layout(source: &Source, probe: Option<&Probe>) -> Result<Layout> {
    let kind = probe.map_or("", |probe| probe.kind);
    // A FAT or NTFS boot sector ends like a boot record, and encrypted bytes can look like anything.
    if matches!(kind, "vfat" | "ntfs" | "exfat" | "crypto_LUKS" | "BitLocker") {
        return Ok(Layout::Nothing);
    }
    let layout = partition::read(&**source)?;
    if let (Layout::Table(table), "linux_raid_member") = (&layout, kind) {
        // The table of a mirror lies at the same place on each member and belongs to the array.
        let superblock = md::Superblock::read(&**source).ok().flatten();
        let is_partition = |superblock: &md::Superblock| {
            table.partitions.iter().any(|partition| superblock.could_be_of(partition.size_bytes))
        };
        if superblock.is_some_and(|superblock| !is_partition(&superblock)) {
            return Ok(Layout::Nothing);
        }
    }
    Ok(layout)
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
