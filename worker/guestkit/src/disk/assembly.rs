//! Devices that are made of devices: arrays, opened encrypted volumes, logical volumes, in whatever order they lie upon
//! one another.
//!
//! Each round looks at the devices that are new, then puts together what is complete. Only when nothing is complete any
//! more, what lacks members is put together as far as it goes: its members might have appeared later. A device is only
//! ever made of devices that are there before it, so there are no cycles; how many there are, and how deep, is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Device, DeviceKind, Disk, layout};
use crate::error::{Error, Limit, Result};
use crate::filesystem;
use crate::keys::Keys;
use crate::read_at::Source;
use crate::volume::luks;
use crate::volume::lvm::{self, Label, Metadata};
use crate::volume::md::{self, Members, Naming, Superblock};

/// Devices upon one another. Disk, partition, array, encryption, logical volume, and a guest's disk with the same inside
/// of that volume make nine.
const DEPTH_MAX: u32 = 24;
/// Arrays without a number of their own are counted down from here, as mdadm does.
const FIRST_FREE_NUMBER: u32 = 127;

/// Puts together what the devices of `disk` make.
///
/// # Errors
/// Limits, where an image makes more of them than they allow. What cannot be put together becomes a warning.
pub(super) fn assemble(disk: &mut Disk, keys: &Keys) -> Result<()> {
    let mut assembly = Assembly {
        disk,
        keys,
        next: 0,
        arrays: Vec::new(),
        physical: BTreeMap::new(),
        groups: Vec::new(),
        depths: BTreeMap::new(),
    };
    loop {
        assembly.look_at_new_devices()?;
        let is_progress = assembly.arrays_of(Wanted::Complete)?
            || assembly.groups_of(Wanted::Complete)?
            || assembly.arrays_of(Wanted::Any)?
            || assembly.groups_of(Wanted::Any)?;
        if !is_progress {
            assembly.join_file_systems();
            return Ok(());
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Complete,
    Any,
}

/// Members of one array.
struct FoundArray {
    uuid: [u8; 16],
    members: Vec<md::Member>,
    is_assembled: bool,
}

/// A volume group by its newest metadata.
struct FoundGroup {
    newest: Metadata,
    is_assembled: bool,
}

struct Assembly<'a> {
    disk: &'a mut Disk,
    keys: &'a Keys,
    /// The first device that has not been looked at.
    next: usize,
    arrays: Vec<FoundArray>,
    /// Physical volumes by the UUIDs of their labels.
    physical: BTreeMap<String, lvm::Member>,
    groups: Vec<FoundGroup>,
    /// How many devices lie below each that was made here.
    depths: BTreeMap<String, u32>,
}

impl Assembly<'_> {
    /// A btrfs on several devices is met at the first of them; the others only lend their space.
    fn join_file_systems(&mut self) {
        let mut firsts: BTreeMap<String, String> = BTreeMap::new();
        for device in &mut self.disk.devices {
            let Some(probe) = device.probe.as_ref().filter(|probe| probe.kind == "btrfs") else { continue };
            let Some(uuid) = &probe.uuid else { continue };
            match firsts.get(uuid) {
                Some(first) => device.holders.push(first.clone()),
                None => drop(firsts.insert(uuid.clone(), device.name.clone())),
            }
        }
    }

    fn look_at_new_devices(&mut self) -> Result<()> {
        while let Some(device) = self.disk.devices.get(self.next) {
            self.next += 1;
            let (name, source) = (device.name.clone(), device.source());
            let uuid = device.probe.as_ref().and_then(|probe| probe.uuid.clone());
            let looked = match device.probe.as_ref().map(|probe| probe.kind) {
                Some("linux_raid_member") => self.add_member(&name, source),
                Some("LVM2_member") => self.add_physical(&name, source),
                Some("crypto_LUKS") => self.unlock(&name, uuid, source),
                _ => Ok(()),
            };
            match looked {
                Err(error @ Error::LimitReached { which: Limit::Devices, .. }) => return Err(error),
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Err(error) => self.disk.warn(&name, "volume", &error.with_causes()),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn add_member(&mut self, name: &str, source: Source) -> Result<()> {
        let Some(superblock) = Superblock::read(&*source)? else { return Ok(()) };
        let uuid = superblock.uuid;
        let member = md::Member { device: name.to_owned(), superblock, source };
        match self.arrays.iter_mut().find(|array| array.uuid == uuid) {
            Some(array) if array.is_assembled => {
                let why = "its array was put together without it";
                self.disk.warn(name, "RAID member", why);
            }
            Some(array) => array.members.push(member),
            None => self.arrays.push(FoundArray { uuid, members: vec![member], is_assembled: false }),
        }
        Ok(())
    }

    fn add_physical(&mut self, name: &str, source: Source) -> Result<()> {
        let budget = Arc::clone(&self.disk.budget);
        let label = Label::read(&*source, &budget)?;
        for warning in &label.warnings {
            self.disk.warn(name, "physical volume", warning);
        }
        if let Some(first) = self.physical.get(&label.id) {
            let why = format!("it has the UUID of {}, as copies of one disk do; the first is taken", first.device);
            self.disk.warn(name, "physical volume", &why);
            return Ok(());
        }
        let group = label.metadata.as_ref().map(|metadata| (metadata.uuid.clone(), metadata.sequence));
        if let Some(metadata) = label.metadata {
            match self.groups.iter_mut().find(|group| group.newest.uuid == metadata.uuid) {
                Some(group) if metadata.sequence > group.newest.sequence && !group.is_assembled => {
                    group.newest = metadata;
                }
                Some(_) => {}
                None => self.groups.push(FoundGroup { newest: metadata, is_assembled: false }),
            }
        }
        self.physical.insert(label.id, lvm::Member { device: name.to_owned(), source, group });
        Ok(())
    }

    fn unlock(&mut self, name: &str, uuid: Option<String>, source: Source) -> Result<()> {
        let shown = uuid.as_deref().map(|uuid| format!(", UUID {uuid}")).unwrap_or_default();
        let secrets: Vec<_> = self.keys.of(name, uuid.as_deref()).collect();
        let budget = Arc::clone(&self.disk.budget);
        if secrets.is_empty() {
            let why = format!("{shown}; a passphrase or key file for its name, its UUID or `all` opens it");
            self.disk.closed.insert(name.to_owned(), why);
            return Ok(());
        }
        let opened = format!("/dev/mapper/luks-{}", uuid.as_deref().unwrap_or_default());
        if self.disk.devices.iter().any(|device| device.name == opened) {
            self.disk.warn(
                name,
                "encrypted volume",
                "another with its UUID is open, as copies of one disk have; it stays closed",
            );
            return Ok(());
        }
        match luks::open(source, secrets, &budget) {
            Ok(plain) => self.add(opened, DeviceKind::Crypt, vec![name.to_owned()], plain),
            Err(Error::Encrypted { .. }) => {
                self.disk.closed.insert(name.to_owned(), format!("{shown}; no key that was given for it fits"));
                Ok(())
            }
            Err(error) => {
                self.disk.closed.insert(name.to_owned(), format!("{shown}; it could not be opened: {error}"));
                Err(error)
            }
        }
    }

    /// Puts arrays together; whether there was one.
    fn arrays_of(&mut self, wanted: Wanted) -> Result<bool> {
        let mut is_progress = false;
        for index in 0..self.arrays.len() {
            let Some(found) = self.arrays.get_mut(index).filter(|found| !found.is_assembled) else { continue };
            let members = Members::new(found.members.clone());
            if wanted == Wanted::Complete && !members.is_complete() {
                continue;
            }
            found.is_assembled = true;
            is_progress = true;
            let mut warnings = Vec::new();
            let (mut array, source) = members.assemble(&self.disk.budget, &mut warnings);
            let name = self.array_name(members.naming());
            for warning in &warnings {
                self.disk.warn(&name, "RAID array", warning);
            }
            match source {
                Ok(source) => {
                    array.device = Some(name.clone());
                    self.disk.arrays.push(array.clone());
                    self.add(name, DeviceKind::Raid, array.members, source)?;
                }
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Err(error) => {
                    let member = members.devices().next().unwrap_or_default().to_owned();
                    let uuid = &array.uuid;
                    self.disk.warn(&member, "RAID array", &format!("array {uuid} is not put together: {error}"));
                    self.disk.arrays.push(array);
                }
            }
        }
        Ok(is_progress)
    }

    fn array_name(&self, naming: Naming) -> String {
        let is_free = |name: &String| !self.disk.arrays.iter().any(|array| array.device.as_ref() == Some(name));
        let numbered = |number: u32| format!("/dev/md{number}");
        let own = match naming {
            Naming::Number(number) => Some(numbered(number)).filter(is_free),
            Naming::Free => None,
        };
        let counted = || (0..=FIRST_FREE_NUMBER).rev().map(numbered).find(is_free);
        own.or_else(counted).unwrap_or_else(|| format!("/dev/md_{}", self.disk.arrays.len()))
    }

    /// Puts volume groups together; whether there was one.
    fn groups_of(&mut self, wanted: Wanted) -> Result<bool> {
        let mut is_progress = false;
        for index in 0..self.groups.len() {
            let Some(found) = self.groups.get_mut(index).filter(|found| !found.is_assembled) else { continue };
            let ids: BTreeSet<String> = found.newest.physical_ids().collect();
            let is_complete = ids.iter().all(|id| self.physical.contains_key(id));
            if wanted == Wanted::Complete && !is_complete {
                continue;
            }
            found.is_assembled = true;
            is_progress = true;
            let metadata = found.newest.clone();
            self.warn_of_members(&metadata, &ids);
            match lvm::assemble(&metadata, &self.physical, &Arc::clone(&self.disk.budget)) {
                Ok(assembled) => self.add_group(assembled)?,
                Err(error @ Error::LimitReached { which: Limit::Devices, .. }) => return Err(error),
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Err(error) => self.disk.warn(&metadata.name, "volume group", &error.with_causes()),
            }
        }
        Ok(is_progress)
    }

    /// Tells which members are missing, out of date, or no members any more.
    fn warn_of_members(&mut self, metadata: &Metadata, ids: &BTreeSet<String>) {
        for id in ids.iter().filter(|id| !self.physical.contains_key(*id)) {
            let why = format!("physical volume {} is missing; volumes that lie on it are left out", lvm::printed(id));
            self.disk.warn(&metadata.name, "volume group", &why);
        }
        let mut warnings = Vec::new();
        for (id, member) in &self.physical {
            let Some((_, own)) = member.group.as_ref().filter(|(uuid, _)| *uuid == metadata.uuid) else { continue };
            if !ids.contains(id) {
                warnings.push((
                    member.device.clone(),
                    format!("volume group {} does not count it any more", metadata.name),
                ));
            } else if *own < metadata.sequence {
                let newest = metadata.sequence;
                warnings
                    .push((member.device.clone(), format!("its metadata has version {own}, the newest is {newest}")));
            }
        }
        for (device, why) in warnings {
            self.disk.warn(&device, "physical volume", &why);
        }
    }

    fn add_group(&mut self, assembled: lvm::Assembled) -> Result<()> {
        let lvm::Assembled { mut group, volumes, warnings } = assembled;
        for warning in warnings {
            self.disk.warn(&group.name, "volume group", &warning);
        }
        let mut folder = group.name.clone();
        if self.disk.groups.iter().any(|other| other.name == group.name) {
            folder = format!("{}@{}", group.name, group.uuid);
            let why = format!("another group has its name; its volumes are under /dev/{folder}");
            self.disk.warn(&group.name, "volume group", &why);
        }
        let mut made = Vec::new();
        for volume in volumes {
            let name = format!("/dev/{folder}/{}", volume.name);
            match volume.source {
                Ok(source) => {
                    if let Some(described) = group.logical_volumes.iter_mut().find(|found| found.name == volume.name) {
                        described.device = Some(name.clone());
                    }
                    made.push((name, volume.parents, source));
                }
                Err(error) => self.disk.warn(&name, "logical volume", &error.with_causes()),
            }
        }
        // A snapshot has the UUID of its origin's file system, which must be met first by whoever looks for that.
        let is_copy = |name: &String| {
            group.logical_volumes.iter().any(|volume| volume.origin.is_some() && volume.device.as_ref() == Some(name))
        };
        made.sort_by_key(|(name, ..)| is_copy(name));
        self.disk.groups.push(group);
        for (name, parents, source) in made {
            self.add(name, DeviceKind::Lvm, parents, source)?;
        }
        Ok(())
    }

    /// Lists a device that is made of `parents`, or its partitions.
    fn add(&mut self, name: String, kind: DeviceKind, parents: Vec<String>, source: Source) -> Result<()> {
        let depth = parents.iter().map(|parent| self.depth(parent)).max().unwrap_or(0).saturating_add(1);
        if depth > DEPTH_MAX {
            return Err(Error::LimitReached { which: Limit::Devices, value: u64::from(DEPTH_MAX) });
        }
        if self.disk.devices.iter().any(|device| device.name == name) {
            self.disk.warn(&name, "device", "another has this name; it is left out");
            return Ok(());
        }
        self.disk.budget.check_time()?;
        self.depths.insert(name.clone(), depth);
        for device in &mut self.disk.devices {
            if parents.contains(&device.name) && !device.holders.contains(&name) {
                device.holders.push(name.clone());
            }
        }
        let probed = filesystem::probe(&*source).and_then(|probe| Ok((layout(&source, probe.as_ref())?, probe)));
        let (layout, probe) = match probed {
            Ok(probed) => probed,
            Err(error) if error.is_budget_exhausted() => return Err(error),
            Err(error) => {
                self.disk.warn(&name, "superblock", &error.with_causes());
                (crate::partition::Layout::Nothing, None)
            }
        };
        let size_bytes = source.len();
        let device = Device { name, kind, size_bytes, partition: None, probe, parents, holders: Vec::new(), source };
        self.disk.add_device(device, &layout)
    }

    /// How many devices lie below `name`.
    fn depth(&self, name: &str) -> u32 {
        if let Some(depth) = self.depths.get(name) {
            return *depth;
        }
        // A partition: of a disk, or of a device that was made here.
        let parent = self.disk.device(name).and_then(|device| device.parents.first());
        parent.and_then(|parent| self.depths.get(parent)).map_or(1, |depth| depth.saturating_add(1))
    }
}
