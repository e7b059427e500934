//! What a guest calls the devices of its disks, in fstab, crypttab and on the kernel's command line. Sources: fstab(5),
//! crypttab(5), mdadm.conf(5), and the names that udev's and device-mapper's rules make beneath /dev/disk.

use crate::disk::{DeviceKind, Disk};
use crate::guest::report::CrypttabEntry;

/// Names that a guest gives to devices in files of its own.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    crypttab: Vec<CrypttabEntry>,
    /// Name and UUID, as bare hexadecimal digits, of the arrays of mdadm.conf.
    arrays: Vec<(String, String)>,
}

impl Aliases {
    /// From the lines of crypttab and the text of mdadm.conf.
    pub(crate) fn new(crypttab: Vec<CrypttabEntry>, mdadm_conf: &str) -> Self {
        let array = |line: &str| {
            let mut words = line.split_whitespace();
            let (keyword, device) = (words.next()?, words.next()?);
            let uuid = words.find_map(|word| {
                let (key, value) = word.split_once('=')?;
                key.eq_ignore_ascii_case("uuid").then(|| bare(value))
            })?;
            (keyword.eq_ignore_ascii_case("array") && device.starts_with('/')).then(|| (device.to_owned(), uuid))
        };
        Self { crypttab, arrays: mdadm_conf.lines().filter_map(array).collect() }
    }
}

/// The letters and digits of an identifier in lower case: LVM, md and cryptsetup put separators between them at will.
fn bare(id: &str) -> String {
    id.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// What a guest may call the devices of this disk.
#[derive(Debug)]
pub(crate) struct DeviceNames<'a> {
    disk: &'a Disk,
}

impl<'a> DeviceNames<'a> {
    pub(crate) const fn new(disk: &'a Disk) -> Self {
        Self { disk }
    }

    /// The device that a spec of fstab or crypttab stands for. Sources: fstab(5), udev's persistent names.
    pub(crate) fn device(&self, spec: &str) -> Option<String> {
        if let Some((tag, value)) = spec.split_once('=') {
            return self.tagged(tag, value.trim_matches('"'));
        }
        if let Some(rest) = spec.strip_prefix("/dev/disk/by-") {
            let (tag, value) = rest.split_once('/')?;
            return match tag {
                "id" | "path" => self.of_volume(value).or_else(|| self.numbered(value)),
                _ => self.tagged(tag, &unescape(value)),
            };
        }
        if let Some(device) = self
            .disk
            .device_called(spec)
            .filter(|device| device.kind != DeviceKind::Disk && device.kind != DeviceKind::Partition)
        {
            return Some(device.name.clone());
        }
        self.kernel_name(spec.strip_prefix("/dev/")?)
    }

    /// The same, where the guest's own files give more names.
    pub(crate) fn device_of(&self, spec: &str, aliases: &Aliases) -> Option<String> {
        // What mdadm.conf says goes before the name an array has of itself, and before its number here.
        self.array(spec, aliases).or_else(|| self.device(spec)).or_else(|| self.opened(spec, aliases))
    }

    fn array(&self, spec: &str, aliases: &Aliases) -> Option<String> {
        let (_, uuid) = aliases.arrays.iter().find(|(name, _)| name == spec)?;
        let array = self.disk.arrays().iter().find(|array| bare(&array.uuid) == *uuid)?;
        array.device.clone()
    }

    /// The device that a line of crypttab opens under the name of `spec`.
    fn opened(&self, spec: &str, aliases: &Aliases) -> Option<String> {
        let name = spec.strip_prefix("/dev/mapper/")?;
        let line = aliases.crypttab.iter().find(|line| line.name == name)?;
        let container = self.device(&line.spec)?;
        self.disk.device(&container)?.holders.first().cloned()
    }

    /// `dm-name-vg-lv`, `dm-uuid-LVM-…`, `dm-uuid-CRYPT-LUKS2-…-name`, `md-uuid-…`, `md-name-host:name`.
    fn of_volume(&self, id: &str) -> Option<String> {
        if let Some(name) = id.strip_prefix("dm-name-") {
            return self.device(&format!("/dev/mapper/{}", unescape(name)));
        }
        if let Some(uuids) = id.strip_prefix("dm-uuid-LVM-") {
            let wanted = bare(uuids);
            let volumes = self.disk.volume_groups().iter().flat_map(|group| {
                group.logical_volumes.iter().map(|volume| (bare(&format!("{}{}", group.uuid, volume.uuid)), volume))
            });
            let found = volumes.into_iter().find(|(uuid, _)| *uuid == wanted)?;
            return found.1.device.clone();
        }
        if let Some(rest) = id.strip_prefix("dm-uuid-CRYPT-LUKS") {
            // `2-UUID-NAME`, the UUID without hyphens.
            let uuid = rest.split('-').nth(1)?;
            let is_it = |probe: &crate::filesystem::Probe| probe.uuid.as_deref().is_some_and(|own| bare(own) == uuid);
            let container = self.disk.devices().iter().find(|device| device.probe.as_ref().is_some_and(is_it))?;
            return container.holders.first().cloned();
        }
        if let Some(uuid) = id.strip_prefix("md-uuid-") {
            let (uuid, part) = uuid.split_once("-part").map_or((uuid, ""), |(uuid, part)| (uuid, part));
            let array = self.disk.arrays().iter().find(|array| bare(&array.uuid) == bare(uuid))?;
            let device = array.device.as_ref()?;
            let name = if part.is_empty() { device.clone() } else { format!("{device}p{part}") };
            return self.disk.device(&name).map(|device| device.name.clone());
        }
        let name = id.strip_prefix("md-name-")?;
        let name = name.split_once(':').map_or(name, |(_, own)| own);
        self.disk.device_called(&format!("/dev/md/{name}")).map(|device| device.name.clone())
    }

    fn tagged(&self, tag: &str, value: &str) -> Option<String> {
        let probed = |wanted: &dyn Fn(&crate::filesystem::Probe) -> bool| {
            self.disk.devices().iter().find(|device| device.probe.as_ref().is_some_and(wanted))
        };
        let on_partition = |wanted: &dyn Fn(&crate::partition::Partition) -> bool| {
            self.disk.devices().iter().find(|device| device.partition.as_ref().is_some_and(wanted))
        };
        let same = |known: &Option<String>| known.as_ref().is_some_and(|known| known.eq_ignore_ascii_case(value));
        let exact = |known: &Option<String>| known.as_deref() == Some(value);
        let found = match tag.to_ascii_uppercase().as_str() {
            "UUID" => probed(&|probe| same(&probe.uuid)),
            "LABEL" => probed(&|probe| exact(&probe.label)),
            "PARTUUID" => on_partition(&|partition| same(&partition.uuid)),
            "PARTLABEL" => on_partition(&|partition| exact(&partition.label)),
            _ => None,
        };
        found.map(|device| device.name.clone())
    }

    /// `…-part2`: on a machine of one disk the number alone decides.
    fn numbered(&self, id: &str) -> Option<String> {
        let [drive] = self.disk.drives() else { return None };
        let name = match id.rsplit_once("-part") {
            Some((_, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => format!("{}{number}", drive.name),
            _ => drive.name.clone(),
        };
        self.disk.device(&name).map(|device| device.name.clone())
    }

    /// `vda1`, `xvdb2`, `hda`, `nvme0n1p3`, `mmcblk0p1`: the disk by its letter or number, the partition by its number.
    fn kernel_name(&self, name: &str) -> Option<String> {
        let lettered = ["sd", "vd", "xvd", "hd"].iter().find_map(|prefix| name.strip_prefix(prefix));
        let (index, number) = if let Some(rest) = lettered {
            let end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            let (letters, number) = rest.split_at_checked(end)?;
            let mut index = 0_usize;
            for letter in letters.bytes() {
                index = index.checked_mul(26)?.checked_add(usize::from(letter.checked_sub(b'a')?) + 1)?;
            }
            (index.checked_sub(1)?, number)
        } else if let Some(rest) = name.strip_prefix("nvme") {
            let (controller, rest) = rest.split_once('n')?;
            let (_, number) = rest.split_once('p').unwrap_or((rest, ""));
            (controller.parse().ok()?, number)
        } else if let Some(rest) = name.strip_prefix("cciss/c0d").or_else(|| name.strip_prefix("ida/c0d")) {
            // Smart Array controllers: the disks of the first one are the machine's.
            let (index, number) = rest.split_once('p').unwrap_or((rest, ""));
            (index.parse().ok()?, number)
        } else {
            let (index, number) = name.strip_prefix("mmcblk")?.split_once('p')?;
            (index.parse().ok()?, number)
        };
        let drive = self.disk.drives().get(index)?;
        let device = self.disk.device(&format!("{}{number}", drive.name))?;
        Some(device.name.clone())
    }
}

/// udev and systemd write `\x20` for a space.
pub(crate) fn unescape(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_at_checked(2).and_then(|(hex, rest)| Some((u8::from_str_radix(hex, 16).ok()?, rest))) {
            Some((byte, rest)) => {
                plain.push(char::from(byte));
                plain.push_str(rest);
            }
            None => {
                plain.push_str("\\x");
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{Aliases, bare, unescape};

    #[test]
    fn arrays_of_mdadm_conf_are_known_by_uuid() {
        let text = "# ARRAY /dev/md9 UUID=1\nDEVICE partitions\nARRAY /dev/md/root metadata=1.2 name=h:root UUID=AB:cd:01:23\n\
                    array <ignore> uuid=1\nARRAY /dev/md1\nARRAY";
        let aliases = Aliases::new(Vec::new(), text);
        assert_eq!(aliases.arrays, [("/dev/md/root".to_owned(), "abcd0123".to_owned())]);
        assert_eq!(bare("A-b:c."), "abc");
    }

    #[test]
    fn labels_of_udev_are_unescaped() {
        assert_eq!(unescape("my\\x20disk"), "my disk");
        assert_eq!(unescape("a\\xzz\\x2"), "a\\xzz\\x2");
    }
}
