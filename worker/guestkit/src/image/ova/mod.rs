//! Open Virtual Appliances: a tar archive of an OVF descriptor and the disks it names (DMTF DSP0243, "OVF Package").
//!
//! The disks are read where they lie in the archive. What lies in an archive may not name further files.

mod ovf;
mod tar;

use std::path::Path;
use std::sync::Arc;

use self::ovf::{Disk, Package};
use self::tar::Member;
use super::{Chain, Format, Layer, Naming, detect};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, Slice, Source};

/// Bytes of a descriptor; VMware's and VirtualBox's have some 10 KB, with licences and icons up to a megabyte.
const DESCRIPTOR_BYTES_MAX: u64 = 8 << 20;
/// Disks of one appliance: vSphere gives a machine at most so many.
const DISKS_MAX: usize = 256;

fn is_descriptor(member: &Member) -> bool {
    member.name.to_ascii_lowercase().ends_with(b".ovf")
}

/// Whether a tar archive is an appliance: the descriptor comes first, or at least it is there.
pub(super) fn is_appliance(file: &dyn ReadAt) -> Result<bool> {
    let budget = Budget::new(&crate::limits::Limits::default());
    match tar::members(file, &budget, is_descriptor) {
        Ok(members) => Ok(members.iter().any(is_descriptor)),
        // A broken archive is none of ours to refuse here.
        Err(Error::Corrupt { .. } | Error::Unsupported { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What an archive holds, and what its descriptor says.
#[derive(Debug)]
pub(super) struct Appliance {
    members: Vec<Member>,
    package: Package,
}

impl Appliance {
    fn read(file: &dyn ReadAt, budget: &Budget) -> Result<Self> {
        let members = tar::members(file, budget, |_| false)?;
        let Some(descriptor) = members.iter().find(|member| is_descriptor(member)) else {
            return Err(Error::unsupported("a tar archive without an ovf descriptor"));
        };
        if descriptor.size > DESCRIPTOR_BYTES_MAX {
            let reason = format!("a descriptor of {} bytes is longer than 8 MiB", descriptor.size);
            return Err(Error::corrupt("ovf descriptor", descriptor.start, reason));
        }
        let mut text = budget.allocate(descriptor.size)?;
        file.read_exact_at(&mut text, descriptor.start)?;
        let package = ovf::parse(&text)?;
        match package.disks.len() {
            0 => Err(Error::corrupt("ovf descriptor", descriptor.start, "it names no disk that has contents")),
            1..=DISKS_MAX => Ok(Self { members, package }),
            count => Err(Error::unsupported(format!("an appliance of {count} disks"))),
        }
    }

    pub(super) fn disk_count(&self) -> usize {
        self.package.disks.len()
    }

    pub(super) fn disk_names(&self) -> Vec<String> {
        self.package.disks.iter().map(|disk| disk.file.clone()).collect()
    }
}

impl Chain<'_> {
    /// Opens the disk of the appliance that was asked for, or the first.
    pub(super) fn open_ova(&mut self, file: &Source, mut layer: Layer) -> Result<Source> {
        let path = layer.path.clone();
        let (appliance, number) = match self.appliance.take() {
            Some(known) => known,
            None => (Arc::new(Appliance::read(&**file, self.budget)?), 0),
        };
        self.appliance = Some((Arc::clone(&appliance), number));
        let machines = appliance.package.machines;
        if machines > 1 && number == 0 {
            self.warnings
                .push(format!("{} holds {machines} machines; their disks are taken for one's", path.display()));
        }
        let Some(disk) = appliance.package.disks.get(number) else {
            return Err(Error::corrupt("ovf descriptor", 0, "it has lost a disk"));
        };
        let member = find(&appliance.members, disk)?;
        let content: Source = Arc::new(Slice::new(Arc::clone(file), member.start, member.size));
        let inner = Layer {
            path: path.join(&disk.file),
            format: disk_format(&path, disk, &*content)?,
            file_size_bytes: member.size,
            allocated_bytes: member.size,
            ..layer.clone()
        };
        let place = self.image.len();
        self.image.push(layer.clone());
        let naming = Naming::Refused("it lies in an archive, and may not name further files");
        let source = self.open_contents(content, inner, naming)?;
        layer.virtual_size_bytes = source.len();
        if let Some(top) = self.image.get_mut(place) {
            *top = layer;
        }
        Ok(source)
    }
}

/// The member that holds `disk`. References are URIs, so what is not found as it stands is tried decoded.
fn find<'a>(members: &'a [Member], disk: &Disk) -> Result<&'a Member> {
    if let Some(by) = &disk.compression {
        return Err(Error::unsupported(format!("a disk compressed by {by} in an appliance: {}", disk.file)));
    }
    if disk.chunked {
        return Err(Error::unsupported(format!("a disk cut in chunks in an appliance: {}", disk.file)));
    }
    if let Some(parent) = &disk.parent {
        return Err(Error::unsupported(format!("a disk in an appliance that is a delta of another, {parent}")));
    }
    let named =
        |name: &[u8]| members.iter().find(|member| member.name.strip_prefix(b"./").unwrap_or(&member.name) == name);
    named(disk.file.as_bytes()).or_else(|| named(&percent_decoded(disk.file.as_bytes()))).ok_or_else(|| {
        let reason = format!("disk {} lies in {}, which is not in the archive", disk.id, disk.file.escape_debug());
        Error::corrupt("ovf descriptor", 0, reason)
    })
}

/// RFC 3986, section 2.1; a percent sign before anything else stands for itself.
fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = name;
    while let Some((byte, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|digits| *byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        decoded.push(code.unwrap_or(*byte));
        rest = if code.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    decoded
}

/// The format the descriptor states must be the one the contents show.
fn disk_format(path: &Path, disk: &Disk, content: &dyn ReadAt) -> Result<Format> {
    let found = detect(content)?;
    let states_vmdk = disk.format.to_ascii_lowercase().contains("vmdk");
    if states_vmdk && found != Format::Vmdk && !matches!(found, Format::Compressed(_)) {
        return Err(Error::FormatMismatch {
            path: path.join(&disk.file),
            stated: "vmdk by the descriptor of its archive".into(),
            found: found.name().into(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_decoded() {
        assert_eq!(percent_decoded(b"My%20Disk%2d1.vmdk"), b"My Disk-1.vmdk");
        assert_eq!(percent_decoded(b"100%"), b"100%");
        assert_eq!(percent_decoded(b"%zz%4"), b"%zz%4");
    }
}
