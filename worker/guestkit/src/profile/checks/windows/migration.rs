//! What a move to another hypervisor meets on Windows. Source: virt-v2v(1) and Microsoft's documentation of the drivers.

use crate::guest::report::Unit;
use crate::guest::windows::hives::NamedHive;
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::registry;
use crate::profile::release::release;
use crate::profile::report::Evidence;

use super::{all_services, bcd, hive_path, key, known, number, service, start_of, value};

/// Storage drivers of virtio: the service, and the devices that it is for.
const VIRTIO: [(&str, &[&str]); 2] = [("viostor", &["DEV_1001", "DEV_1042"]), ("vioscsi", &["DEV_1004", "DEV_1048"])];

fn drivers_folder(guest: &Guest<'_>) -> String {
    format!("{}/System32/drivers", guest.root.system_root.as_deref().unwrap_or("/Windows"))
}

/// Whether a list of devices in the registry has one of virtio's `devices`: as a key `PCI\VEN_1AF4&DEV_…`, whatever follows.
fn has_device(hive: &NamedHive<'_>, path: &str, prefix: &str, devices: &[&str]) -> bool {
    let keys = hive.key(path).map(|key| key.keys()).unwrap_or_default();
    keys.iter().any(|key| {
        let name = key.name().to_ascii_uppercase();
        name.starts_with(prefix) && devices.iter().any(|device| name.contains(device))
    })
}

/// Whether Windows knows which device the driver is for: in the database of critical devices (until Windows 7), in the database
/// of drivers (Windows 8 and later; a hive of its own since Windows 10), or because it has run on such a device.
fn is_registered(guest: &Guest<'_>, devices: &[&str]) -> bool {
    let places = [
        ("system", "Control\\CriticalDeviceDatabase", "PCI#VEN_1AF4"),
        ("system", "Enum\\PCI", "VEN_1AF4"),
        ("machine", "DriverDatabase\\DeviceIds\\PCI", "VEN_1AF4"),
    ];
    let in_system = places.iter().any(|(hive, path, prefix)| {
        registry::hive(guest, hive, path).is_ok_and(|(hive, path)| has_device(hive, &path, prefix, devices))
    });
    if in_system {
        return true;
    }
    let path = hive_path(guest, "DRIVERS");
    let drivers = guest.files.exists(&path).then(|| NamedHive::open(guest.files, &path)).flatten();
    drivers.is_some_and(|hive| has_device(&hive, "DriverDatabase\\DeviceIds\\PCI", "VEN_1AF4", devices))
}

/// Why a driver would not start from the disk at boot; `None` where it would.
fn boot_flaw(guest: &Guest<'_>, name: &str, evidence: &mut Vec<Evidence>) -> Result<Option<String>, Outcome> {
    let Some(unit) = service(guest, name) else {
        evidence.push(Evidence::absent(hive_path(guest, "SYSTEM"), format!("Services\\{name}")));
        return Ok(Some(format!("{name} is not installed")));
    };
    evidence.push(start_of(guest, unit));
    if unit.start_type.as_deref() != Some("boot") {
        let start = unit.start_type.as_deref().unwrap_or("unknown");
        return Ok(Some(format!("{name} does not start at boot ({start})")));
    }
    // A subkey whose values win over Start, one for each profile of hardware.
    let (hive, path) = registry::hive(guest, "system", &format!("Services\\{name}\\StartOverride"))?;
    let override_key = hive.key(&path);
    let overridden = override_key.iter().flat_map(|key| {
        key.values()
            .iter()
            .filter_map(|value| Some((value.name().to_owned(), key.number(value.name())?)))
            .collect::<Vec<_>>()
    });
    let overridden: Vec<_> = overridden.filter(|(_, start)| *start != 0).collect();
    if let Some((profile, start)) = overridden.first() {
        evidence.push(Evidence::explicit(hive.path(), format!("{path}\\{profile}"), start.to_string()));
        return Ok(Some(format!("StartOverride of {name} is {start}")));
    }
    Ok(None)
}

/// A storage driver of virtio starts at boot, its file is there, and Windows knows its devices.
pub(in crate::profile) fn virtio(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    known!(all_services(guest));
    let (mut evidence, mut flaws) = (Vec::new(), Vec::new());
    for (name, devices) in VIRTIO {
        if let Some(flaw) = known!(boot_flaw(guest, name, &mut evidence)) {
            flaws.push(flaw);
            continue;
        }
        let file = format!("{}/{name}.sys", drivers_folder(guest));
        if !guest.files.exists(&file) {
            evidence.push(Evidence::absent(&*file, name));
            flaws.push(format!("{file} is missing"));
            continue;
        }
        if !is_registered(guest, devices) {
            evidence.push(Evidence::absent(hive_path(guest, "SYSTEM"), format!("PCI\\VEN_1AF4&{}", devices.join(","))));
            flaws.push(format!("{name} is registered for no device"));
            continue;
        }
        return Outcome::pass(format!("{name} starts at boot and is registered for its devices"), evidence);
    }
    Outcome::fail(format!("no driver of virtio can start Windows: {}", flaws.join("; ")), evidence)
}

/// Storage drivers that come with Windows, by target.
fn inbox_drivers(target: Option<&str>) -> &'static [&'static str] {
    match target {
        Some("hyperv" | "azure") => &["storvsc"],
        Some("aws") => &["stornvme"],
        // Until Windows 7 the driver of AHCI was called msahci.
        Some("kvm" | "kubevirt" | "proxmox" | "openstack") => &["storahci", "msahci"],
        Some("vmware") => &["LSI_SAS", "pvscsi"],
        _ => &["storahci", "msahci", "stornvme", "storvsc"],
    }
}

/// The driver of the target's bus is not kept from starting.
pub(in crate::profile) fn storage_start(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    known!(all_services(guest));
    let drivers = inbox_drivers(guest.options.target.as_deref());
    let (mut evidence, mut bad) = (Vec::new(), Vec::new());
    let present: Vec<&Unit> = drivers.iter().filter_map(|name| service(guest, name)).collect();
    if present.is_empty() {
        let absent = Evidence::absent(hive_path(guest, "SYSTEM"), format!("Services\\{{{}}}", drivers.join(",")));
        return Outcome::fail(format!("none of the drivers is there: {}", drivers.join(", ")), vec![absent]);
    }
    let present_count = present.len();
    for unit in present {
        let before = evidence.len();
        if let Some(flaw) = known!(boot_flaw(guest, &unit.name, &mut evidence)) {
            let own = evidence.get(before..).and_then(<[Evidence]>::last).cloned().unwrap_or_default();
            bad.push(Bad::new(flaw, own));
        }
    }
    let (clean, found) = ("the storage drivers of Windows start at boot", "storage drivers that would not start");
    // Which bus it will be is not said: one that starts is enough for some target.
    let may_do = guest.options.target.is_none() && bad.len() < present_count;
    let outcome = Outcome::none_of(bad, found, clean, evidence);
    if may_do { outcome.softened() } else { outcome }
}

/// Nothing keeps drivers from being installed.
pub(in crate::profile) fn installation(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let restrictions = "Policies\\Microsoft\\Windows\\DeviceInstall\\Restrictions";
    let (hive, path) = match registry::hive(guest, "software", restrictions) {
        Ok(found) => found,
        Err(missing) => return missing.into(),
    };
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    match hive.key(&path) {
        None => looked_at.push(Evidence::absent(hive.path(), &*path)),
        Some(key) => {
            for value in key.values() {
                let name = value.name().to_owned();
                let is_set = key.flag(&name) == Some(true);
                let evidence =
                    Evidence::explicit(hive.path(), format!("{path}\\{name}"), if is_set { "1" } else { "0" });
                if is_set && name.to_ascii_lowercase().starts_with("deny") {
                    bad.push(Bad::new(name, evidence));
                } else {
                    looked_at.push(evidence);
                }
            }
        }
    }
    let root = guest.root.system_root.as_deref().unwrap_or("/Windows");
    let policies = guest.files.glob(&format!("{root}/System32/GroupPolicy/*/Registry.pol"));
    looked_at.extend(policies.into_iter().map(|path| Evidence::metadata(path, "group policy", "present")));
    if !bad.is_empty() {
        return Outcome::none_of(bad, "policies that keep drivers from being installed", "", looked_at);
    }
    let scanners = super::system::scanners(guest);
    if !scanners.is_empty() {
        let names: Vec<String> = scanners.iter().map(|(name, _)| name.clone()).collect();
        looked_at.extend(scanners.into_iter().map(|(_, evidence)| evidence));
        let reason = format!("a virus scanner may keep drivers from starting: {}", names.join(", "));
        return Outcome::warn(reason, looked_at).with_subjects(names);
    }
    Outcome::pass("nothing keeps drivers from being installed", looked_at)
}

/// Further disks come online by themselves. Servers leave disks on shared buses offline by default.
pub(in crate::profile) fn disks_online(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let default = if release.is_server { 2 } else { 1 };
    let (policy, evidence) = known!(number(guest, "system:Services\\partmgr\\Parameters:SanPolicy", default));
    match policy {
        1 => Outcome::pass("every disk comes online by itself", vec![evidence]),
        2 => Outcome::fail("disks on shared buses stay offline (SanPolicy 2)", vec![evidence]),
        3 => Outcome::fail("further disks stay offline (SanPolicy 3)", vec![evidence]),
        4 => Outcome::fail("internal disks stay offline (SanPolicy 4)", vec![evidence]),
        other => Outcome::fail(format!("SanPolicy is {other}, should be 1"), vec![evidence]),
    }
}

/// Addresses that are set by hand stay with the adapter that is left behind.
pub(in crate::profile) fn static_addresses(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(network) = &guest.system.network else {
        return Outcome::unknown("the network's configuration cannot be read from the registry hive SYSTEM");
    };
    let path = hive_path(guest, "SYSTEM");
    let (mut bad, mut gone, mut looked_at) = (Vec::new(), false, Vec::new());
    for interface in &network.interfaces {
        let told = if interface.addresses.is_empty() { "DHCP".to_owned() } else { interface.addresses.join(", ") };
        let evidence = Evidence::explicit(&*path, interface.source.clone(), told);
        if interface.addresses.is_empty() {
            looked_at.push(evidence);
        } else {
            // An interface without a kind and a description belongs to no adapter any more.
            gone |= interface.kind.is_none() && interface.description.is_none();
            bad.push(Bad::new(format!("{} ({})", interface.name, interface.addresses.join(", ")), evidence));
        }
    }
    let (hive, pci) = match registry::hive(guest, "system", "Enum\\PCI") {
        Ok(found) => found,
        Err(missing) => return missing.into(),
    };
    let vmware = hive.key(&pci).map(|key| key.keys()).unwrap_or_default();
    let vmware = vmware.iter().filter(|key| key.name().to_ascii_uppercase().starts_with("VEN_15AD&DEV_07B0"));
    looked_at.extend(
        vmware.map(|key| Evidence::explicit(hive.path(), format!("{pci}\\{}", key.name()), "adapter of VMware")),
    );
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent(&*path, "Services\\Tcpip\\Parameters\\Interfaces"));
    }
    let outcome = Outcome::none_of(
        bad,
        "addresses that are set by hand stay with the adapter that is left behind",
        "no address is set by hand",
        looked_at,
    );
    if gone { outcome } else { outcome.softened() }
}

/// The drive of Windows is known by what this disk is called, and the boot configuration names partitions that are there.
pub(in crate::profile) fn boot_volume(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(storage) = &guest.system.storage else {
        return Outcome::unknown("the volumes cannot be read from MountedDevices of the registry hive SYSTEM");
    };
    let targets = bcd::targets(guest);
    let lost: Vec<_> = targets.iter().filter(|target| target.is_there == Some(false)).collect();
    let mut evidence: Vec<_> = targets.iter().map(|target| target.evidence.clone()).collect();
    if let Some(first) = lost.first() {
        let reason =
            format!("the boot configuration names a partition that is not on this disk: {}", first.evidence.value);
        return Outcome::fail(reason, evidence);
    }
    let root = known!(value(guest, "software:Microsoft\\Windows NT\\CurrentVersion:SystemRoot"));
    let letter = root.text().and_then(|path| path.get(..2)).unwrap_or("C:").to_uppercase();
    let Some(volume) = storage.volumes.iter().find(|volume| volume.name == letter) else {
        return Outcome::unknown(format!("MountedDevices does not name the drive {letter}"));
    };
    let key = format!("MountedDevices\\\\DosDevices\\{letter}");
    evidence.push(Evidence::explicit(hive_path(guest, "SYSTEM"), key, &*volume.target));
    let is_in_table = guest.partition_table.is_some_and(|table| bcd::is_in(table, &volume.target));
    if volume.device.is_some() || is_in_table {
        let boot = if targets.is_empty() { ", and no boot configuration was found" } else { "" };
        return Outcome::pass(format!("the drive {letter} is where Windows knows it{boot}"), evidence);
    }
    if volume.target.starts_with("mbr ") || volume.target.starts_with("gpt ") {
        let reason = format!("the drive {letter} is on no partition of this disk: its signature was changed");
        return Outcome::fail(reason, evidence);
    }
    Outcome::unknown(format!("the drive {letter} is {}, which tells no partition", volume.target))
}

/// Which domain it is a member of, and whether it is a controller of one.
pub(in crate::profile) fn domain(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let (has_policy, policy) = known!(key(guest, "security", "Policy\\PolPrDmN"));
    if !has_policy {
        return Outcome::unknown(format!("{}: {} is missing", policy.path, policy.key));
    }
    let windows = guest.system.operating_system.windows.as_ref();
    let workgroup = windows.and_then(|windows| windows.workgroup.as_deref()).unwrap_or("none");
    let at = |told: &str| vec![Evidence::explicit(&*policy.path, &*policy.key, told)];
    match super::accounts::domain(guest) {
        Some(name) if release.is_domain_controller => Outcome::warn(
            format!("it is a controller of the domain {name}: the target must give it a new generation identifier"),
            at(name),
        ),
        Some(name) => {
            let reason =
                format!("it is a member of the domain {name}: going back to the source breaks its secure channel");
            Outcome::warn(reason, at(name))
        }
        None => Outcome::pass(format!("it is a member of no domain (workgroup {workgroup})"), at(workgroup)),
    }
}

/// Nothing waits for a restart.
pub(in crate::profile) fn pending(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    let renames = known!(value(guest, "system:Control\\Session Manager:PendingFileRenameOperations"));
    let count = renames.texts().len();
    let evidence = Evidence { value: format!("{count} texts"), ..renames.evidence };
    if count > 0 {
        bad.push(Bad::new("files that are renamed at the next start", evidence));
    } else {
        looked_at.push(evidence);
    }
    let current = "Microsoft\\Windows\\CurrentVersion";
    for (path, what) in [
        (format!("{current}\\Component Based Servicing\\RebootPending"), "components that wait for a restart"),
        (format!("{current}\\WindowsUpdate\\Auto Update\\RebootRequired"), "updates that wait for a restart"),
    ] {
        let (is_there, evidence) = known!(key(guest, "software", &path));
        if is_there {
            bad.push(Bad::new(what, evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    let pending = format!("{}/winsxs/pending.xml", guest.root.system_root.as_deref().unwrap_or("/Windows"));
    if guest.files.exists(&pending) {
        bad.push(Bad::new("a transaction of components", Evidence::metadata(&*pending, "transaction", "present")));
    } else {
        looked_at.push(Evidence::absent(&*pending, "transaction"));
    }
    Outcome::none_of(bad, "something waits for a restart", "nothing waits for a restart", looked_at)
}
