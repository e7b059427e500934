//! What a move to another hypervisor meets: how the system starts, what it is bound to, what the old platform left.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use base64::Engine as _;

use crate::guest::linux::cloud_init;
use crate::guest::report::{GuestAgent, Kernel};
use crate::profile::evaluate::Asked;
use crate::profile::guest::{Guest, Modules};
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::superblock;
use crate::volume::bitlocker;
use crate::volume::lvm::text;

use super::mounts::fstab;
use super::performance::{arguments, command_line, internal_snapshots};
use super::services::{any_installed, any_started};

const MIB: u64 = 1 << 20;

/// Targets by the names that jobs use.
pub(crate) const TARGETS: [&str; 8] = ["kvm", "kubevirt", "proxmox", "openstack", "hyperv", "aws", "azure", "gcp"];

/// Drivers that a target's disks need before the root file system can be mounted; any of them will do.
pub(crate) fn disk_drivers(target: &str) -> &'static [&'static str] {
    match target {
        "aws" => &["nvme", "xen_blkfront"],
        "azure" | "hyperv" => &["hv_storvsc"],
        "gcp" => &["virtio_scsi", "nvme"],
        _ => &["virtio_blk", "virtio_scsi"],
    }
}

/// The bus that those drivers sit on.
fn bus_driver(target: &str) -> &'static str {
    match target {
        "aws" => "",
        "azure" | "hyperv" => "hv_vmbus",
        _ => "virtio_pci",
    }
}

/// Drivers of a target's network.
fn network_drivers(target: &str) -> &'static [&'static str] {
    match target {
        "aws" => &["ena", "ixgbevf", "xen_netfront"],
        "azure" | "hyperv" => &["hv_netvsc"],
        "gcp" => &["virtio_net", "gve"],
        _ => &["virtio_net"],
    }
}

/// The target that is asked for; KVM where none is.
fn target<'g>(guest: &'g Guest<'_>) -> &'g str {
    guest.options.target.as_deref().unwrap_or("kvm")
}

/// Systems that the makers of the targets support: the oldest release. Sources: virt-v2v-support(1); the lists of endorsed
/// distributions of Microsoft Azure, AWS VM Import and Google Cloud.
const SUPPORTED: [(&str, u32); 16] = [
    ("debian", 9),
    ("ubuntu", 18),
    ("rhel", 7),
    ("centos", 7),
    ("almalinux", 8),
    ("rocky", 8),
    ("ol", 7),
    ("fedora", 38),
    ("sles", 12),
    ("opensuse-leap", 15),
    ("amzn", 2),
    ("alpine", 3),
    ("arch", 0),
    ("photon", 3),
    ("flatcar", 0),
    ("fedora-coreos", 0),
];

/// The targets take this system.
pub(crate) fn os_supported(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let system = &guest.system.operating_system;
    let name = system.product_name.clone().unwrap_or_else(|| system.r#type.clone());
    let evidence =
        vec![Evidence::explicit(system.sources.first().map_or("/etc/os-release", String::as_str), "system", &*name)];
    if system.r#type == "windows" {
        let build: u32 =
            system.windows.as_ref().and_then(|windows| windows.build.as_deref()?.parse().ok()).unwrap_or(0);
        return match build {
            14_393.. => Outcome::pass(format!("{name} is taken by every target"), evidence),
            9_200.. => Outcome::warn(format!("{name} is taken by some targets only"), evidence),
            _ => Outcome::fail(format!("{name} is taken by no target that is supported"), evidence),
        };
    }
    if system.r#type != "linux" {
        return Outcome::warn(format!("{name} is not on the lists of the targets"), evidence);
    }
    let distribution = system.distribution.as_deref().unwrap_or_default();
    let major = system.version_major.unwrap_or(0);
    match SUPPORTED.iter().find(|(known, _)| *known == distribution) {
        Some((_, oldest)) if major >= *oldest => {
            Outcome::pass(format!("{name} is on the lists of the targets"), evidence)
        }
        Some((_, oldest)) => {
            Outcome::warn(format!("{name} is older than what the targets support ({oldest})"), evidence)
        }
        None => Outcome::warn(
            format!("{name} is not on the lists of the targets, which need not mean that it does not run"),
            evidence,
        ),
    }
}

/// One system alone, so that it is clear which one moves.
pub(crate) fn multi_boot(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let evidence = vec![Evidence::metadata(guest.root.name(), "systems on the disk", guest.systems.to_string())];
    if guest.systems > 1 {
        return Outcome::fail(format!("the disk holds {} systems", guest.systems), evidence);
    }
    Outcome::pass("the disk holds one system", evidence)
}

/// Room for a new initial RAM disk and drivers, as virt-v2v asks for it. Source: virt-v2v(1), "Disk space".
pub(crate) fn free_space(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mounts = guest.system.storage.as_ref().map(|storage| storage.mounts.as_slice()).unwrap_or_default();
    if mounts.is_empty() {
        return Outcome::unknown("how much room the file systems have is not known");
    }
    let has_boot = mounts.iter().any(|mount| mount.path == "/boot");
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for mount in mounts {
        let wanted = match mount.path.as_str() {
            "/" if has_boot || guest.is_windows() => 100,
            "/" => 150,
            "/boot" => 50,
            path if path.contains("efi") => 1,
            _ => 10,
        } * MIB;
        let inodes_left =
            mount.inodes.zip(mount.inodes_used).filter(|(all, _)| *all > 0).map(|(all, used)| all.saturating_sub(used));
        let evidence = Evidence::metadata(&*mount.path, "free", format!("{} MiB", mount.free_bytes / MIB));
        if mount.free_bytes < wanted || inodes_left.is_some_and(|left| left < 100) {
            bad.push(Bad::new(&*mount.path, evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    Outcome::none_of(
        bad,
        "file systems without room for what a move writes",
        "there is room for what a move writes",
        looked_at,
    )
}

/// File systems that a tool may write to: clean, or with a journal that can be replayed; nobody sleeps.
pub(crate) fn fs_clean(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for device in guest.disk.devices().iter().filter(|device| device.is_candidate()) {
        let Some(state) = superblock::state(device) else { continue };
        let told = match (state.is_clean, state.needs_replay) {
            (true, true) => "its journal waits to be replayed",
            (true, false) => "clean",
            (false, _) => "must be checked first",
        };
        let evidence = Evidence::metadata(&*device.name, "state", told);
        if state.is_clean { looked_at.push(evidence) } else { bad.push(Bad::new(&*device.name, evidence)) }
    }
    for device in devices_of(guest, &["swsuspend"]) {
        bad.push(Bad::new(
            &*device.name,
            Evidence::metadata(&*device.name, "state", "the system sleeps on the disk (suspended)"),
        ));
    }
    let (dirty, clean) = ntfs_states(guest);
    bad.extend(dirty);
    looked_at.extend(clean);
    if guest.is_windows() && is_hibernated(guest) {
        bad.push(Bad::new(
            "hiberfil.sys",
            Evidence::metadata("/hiberfil.sys", "state", "the system sleeps on the disk (hibernation or Fast Startup)"),
        ));
    }
    let unreadable = guest.filesystems.iter().filter(|found| {
        !found.readable
            && found
                .r#type
                .as_deref()
                .is_some_and(|kind| kind.starts_with("ext") || matches!(kind, "xfs" | "btrfs" | "ntfs"))
    });
    bad.extend(
        unreadable.map(|found| Bad::new(&*found.device, Evidence::metadata(&*found.device, "state", "cannot be read"))),
    );
    if bad.is_empty() && looked_at.is_empty() {
        let readable = guest
            .filesystems
            .iter()
            .filter(|found| found.readable)
            .map(|found| Evidence::metadata(&*found.device, "state", "readable"));
        looked_at.extend(readable);
        if looked_at.is_empty() {
            return Outcome::unknown("the state of the file systems is not known");
        }
    }
    Outcome::none_of(bad, "file systems that no tool may write to", "every file system may be written to", looked_at)
}

/// NTFS volumes that Windows would check before it uses them, and those that it would not, as their reader found them.
pub(super) fn ntfs_states(guest: &Guest<'_>) -> (Vec<Bad>, Vec<Evidence>) {
    let (mut dirty, mut clean) = (Vec::new(), Vec::new());
    for (path, file_system) in guest.root.tree.mounts().filter(|(_, file_system)| file_system.info().kind == "ntfs") {
        let path = String::from_utf8_lossy(&path).into_owned();
        let path = if path.is_empty() { "/".to_owned() } else { path };
        if file_system.warnings().iter().any(|warning| warning.starts_with("the volume is dirty")) {
            dirty.push(Bad::new(&*path, Evidence::metadata(&*path, "state", "dirty")));
        } else {
            clean.push(Evidence::metadata(path, "state", "clean"));
        }
    }
    (dirty, clean)
}

/// Whether Windows left its memory on the disk: the file begins with `HIBR` or `hibr`; what was resumed begins with zeros.
pub(crate) fn is_hibernated(guest: &Guest<'_>) -> bool {
    let Some(file) = guest.files.open("/hiberfil.sys") else { return false };
    let mut start = [0; 4];
    let is_read = crate::read_at::ReadAt::read_exact_at(&file, &mut start, 0).is_ok();
    is_read && (start.eq_ignore_ascii_case(b"hibr") || start.eq_ignore_ascii_case(b"rstr"))
}

/// Whether a name is one that the old machine's controller gave.
fn is_device_name(spec: &str) -> bool {
    let Some(name) = spec.strip_prefix("/dev/") else { return false };
    let disk = ["sd", "hd", "vd", "xvd"]
        .iter()
        .any(|start| name.strip_prefix(start).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase())));
    // What is called by what lies on it, not by the disk's serial number, moves with it.
    let by_id = name.strip_prefix("disk/by-id/");
    let by_serial = by_id.is_some_and(|id| {
        !["dm-uuid-", "dm-name-", "lvm-pv-uuid-", "md-uuid-", "md-name-"].iter().any(|start| id.starts_with(start))
    });
    disk || name.starts_with("nvme") || name.starts_with("disk/by-path/") || by_serial
}

/// Disks are named by what moves with them.
pub(crate) fn root_by_device_name(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mut bad = Vec::new();
    let mut looked_at = Vec::new();
    for entry in fstab(guest) {
        let evidence = Evidence::explicit("/etc/fstab", &*entry.path, &*entry.spec);
        if is_device_name(&entry.spec) && !entry.options.iter().any(|option| option == "noauto") {
            bad.push(Bad::new(format!("/etc/fstab: {}", entry.spec), evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    let crypttab = guest.system.storage.as_ref().map(|storage| storage.crypttab.as_slice()).unwrap_or_default();
    for entry in crypttab {
        let evidence = Evidence::explicit("/etc/crypttab", &*entry.name, &*entry.spec);
        if is_device_name(&entry.spec) {
            bad.push(Bad::new(format!("/etc/crypttab: {}", entry.spec), evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    let line = guest.system.operating_system.kernel_command_line.clone().unwrap_or_default();
    for word in line.split_whitespace() {
        if let Some((key, value)) =
            word.split_once('=').filter(|(key, _)| matches!(*key, "root" | "resume" | "cryptdevice"))
        {
            let evidence = Evidence::explicit("kernel command line", key, value);
            if is_device_name(value) { bad.push(Bad::new(word, evidence)) } else { looked_at.push(evidence) }
        }
    }
    for path in ["/boot/grub/device.map", "/boot/grub2/device.map", "/etc/lilo.conf"] {
        for (at, line) in guest
            .files
            .text(path)
            .unwrap_or_default()
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().starts_with('#'))
        {
            if let Some(word) = line.split(['=', ' ', '\t']).find(|word| is_device_name(word)) {
                bad.push(Bad::new(
                    format!("{path}: {word}"),
                    Evidence::explicit(path, "device", word).at_line(at.saturating_add(1)),
                ));
            }
        }
    }
    if bad.is_empty() && looked_at.is_empty() {
        return Outcome::not_applicable("neither /etc/fstab nor the boot loader names a disk");
    }
    Outcome::none_of(
        bad,
        "disks named as the old machine names them",
        "disks are named by what moves with them",
        looked_at,
    )
}

/// The kernel that starts by default.
fn default_kernel<'g>(guest: &'g Guest<'_>) -> Option<(&'g Kernel, &'g Modules)> {
    let kernels = guest.system.operating_system.kernels.iter().zip(guest.modules());
    let found = |is_it: &dyn Fn(&Kernel) -> bool| kernels.clone().find(|(kernel, _)| is_it(kernel));
    found(&|kernel| kernel.is_default == Some(true))
        .or_else(|| found(&|kernel| kernel.path.is_some()))
        .or_else(|| found(&|_| true))
}

/// What is needed to mount the root file system on a target is in the kernel or its initial RAM disk.
pub(crate) fn initramfs_drivers(guest: &Guest<'_>, target: &str) -> Outcome {
    let Some((kernel, own)) = default_kernel(guest) else { return Outcome::not_applicable("no kernel is installed") };
    let drivers = disk_drivers(target);
    let bus = bus_driver(target);
    let inside = &own.built_in;
    let has =
        |modules: &BTreeSet<String>, name: &str| name.is_empty() || modules.contains(name) || inside.contains(name);
    let named = |what: &str| Evidence::metadata(kernel.modules.as_deref().unwrap_or("/boot"), "built in", what);
    if has(inside, bus) && drivers.iter().any(|driver| inside.contains(*driver)) {
        let found: Vec<&str> = drivers.iter().copied().filter(|driver| inside.contains(*driver)).collect();
        return Outcome::pass(format!("{} is part of the kernel", found.join(", ")), vec![named(&found.join(", "))]);
    }
    let Some(path) = &kernel.initrd else {
        return Outcome::fail(
            format!("kernel {} has no initial RAM disk, and no driver for {target} built in", kernel.version),
            vec![named("none")],
        );
    };
    let all = TARGETS.into_iter().flat_map(|target| disk_drivers(target).iter().copied().chain([bus_driver(target)]));
    let wanted = all.filter(|name| !name.is_empty() && !inside.contains(*name)).collect();
    let modules = match guest.initramfs_modules(path, &wanted) {
        Ok(modules) => modules,
        Err(why) => return Outcome::unknown(format!("the initial RAM disk could not be looked through: {why}")),
    };
    let found: Vec<&str> = drivers.iter().copied().filter(|driver| has(modules, driver)).collect();
    let evidence = vec![Evidence::metadata(
        &**path,
        "drivers",
        if found.is_empty() { "none".to_owned() } else { found.join(", ") },
    )];
    if !found.is_empty() && has(modules, bus) {
        return Outcome::pass(format!("the initial RAM disk has {}", found.join(", ")), evidence);
    }
    let missing = if found.is_empty() { drivers.join(" or ") } else { bus.to_owned() };
    Outcome::fail(format!("the initial RAM disk of {} lacks {missing}", kernel.version), evidence)
        .with_subjects([kernel.version.clone()])
}

/// The same for the target that is asked for.
pub(crate) fn initramfs_virtio(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    initramfs_drivers(guest, target(guest))
}

/// The kernel has the drivers of the target that is asked for.
pub(crate) fn kernel_virtio(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    kernel_drivers(guest, target(guest))
}

/// The kernel has a target's drivers at all.
pub(crate) fn kernel_drivers(guest: &Guest<'_>, target: &str) -> Outcome {
    let Some((kernel, Modules { loadable, built_in })) = default_kernel(guest) else {
        return Outcome::not_applicable("no kernel is installed");
    };
    if loadable.is_none() && built_in.is_empty() {
        return Outcome::unknown(format!("the modules of kernel {} are not known", kernel.version));
    }
    let config = OnceCell::new();
    let is_configured = |name: &str| {
        let option = format!("CONFIG_{}=", name.to_ascii_uppercase());
        let path = format!("/boot/config-{}", kernel.version);
        let config: &String = config.get_or_init(|| guest.files.text(&path).unwrap_or_default());
        config.lines().any(|line| line.starts_with(&option) && !line.ends_with("=n"))
    };
    let is_loadable = |name: &str| loadable.as_ref().is_some_and(|modules| modules.contains(name));
    let has = |name: &str| is_loadable(name) || built_in.contains(name) || is_configured(name);
    let mut missing = Vec::new();
    if !disk_drivers(target).iter().any(|driver| has(driver)) {
        missing.push(disk_drivers(target).join(" or "));
    }
    if !network_drivers(target).iter().any(|driver| has(driver)) {
        missing.push(network_drivers(target).join(" or "));
    }
    let evidence = vec![Evidence::metadata(
        kernel.modules.as_deref().unwrap_or("/lib/modules"),
        "modules",
        format!("{} loadable, {} built in", loadable.as_ref().map_or(0, BTreeSet::len), built_in.len()),
    )];
    if missing.is_empty() {
        return Outcome::pass(format!("kernel {} has the drivers of {target}", kernel.version), evidence);
    }
    Outcome::fail(format!("kernel {} has no {}", kernel.version, missing.join(", no ")), evidence)
        .with_subjects(missing)
}

/// What the boot loader starts is there.
pub(crate) fn default_kernel_exists(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let system = &guest.system.operating_system;
    if system.kernels.is_empty() && system.default_kernel.is_none() {
        return Outcome::not_applicable("no kernel is installed");
    }
    let Some(version) = &system.default_kernel else {
        return Outcome::unknown("which kernel starts by default is not known");
    };
    let evidence = vec![Evidence::explicit("boot loader", "default", &**version)];
    match system.kernels.iter().find(|kernel| kernel.version == *version) {
        Some(kernel) if kernel.path.as_deref().is_some_and(|path| guest.files.exists(path)) => {
            let initrd = kernel.initrd.as_deref().is_some_and(|path| guest.files.exists(path));
            if initrd {
                Outcome::pass(format!("kernel {version} and its initial RAM disk are there"), evidence)
            } else {
                Outcome::warn(format!("kernel {version} has no initial RAM disk"), evidence)
            }
        }
        _ => Outcome::fail(format!("kernel {version}, which starts by default, is not there"), evidence),
    }
}

/// Whether a name of an interface comes from where the card sat in the old machine.
fn is_slot_name(name: &str) -> bool {
    ["ens", "enp", "eno", "enx", "eth", "em", "p1p", "p2p"]
        .iter()
        .any(|start| name.strip_prefix(start).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_hexdigit())))
}

/// Interfaces are configured by names that will still be there.
pub(crate) fn nic_names(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(network) = &guest.system.network else {
        return Outcome::unknown("the network's configuration could not be read");
    };
    let line = guest.system.operating_system.kernel_command_line.clone().unwrap_or_default();
    let fixed = line.split_whitespace().any(|word| word == "net.ifnames=0");
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for interface in network.interfaces.iter().filter(|interface| interface.name != "lo") {
        let by_rule = network.persistent_names.iter().any(|rule| rule.name == interface.name && rule.mac.is_some());
        let is_static = !interface.addresses.is_empty();
        let evidence = Evidence::explicit(
            &*interface.source,
            "interface",
            format!("{}{}", interface.name, if is_static { ", static" } else { "" }),
        );
        let survives = interface.name.contains(['*', '?']) || (fixed && interface.name.starts_with("eth")) || by_rule;
        if is_slot_name(&interface.name) && !survives && interface.kind.as_deref().is_none_or(|kind| kind == "ethernet")
        {
            bad.push(Bad::new(
                format!("{} (on {} likely {})", interface.name, target(guest), predicted(target(guest))),
                evidence,
            ));
        } else {
            looked_at.push(evidence);
        }
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent("/etc", "interfaces by name"));
    }
    Outcome::none_of(bad, "interfaces that get another name", "interfaces are configured by what stays", looked_at)
}

/// The name that the first interface of a target usually gets.
fn predicted(target: &str) -> &'static str {
    match target {
        "aws" | "gcp" => "ens5 or ens4",
        "azure" | "hyperv" => "eth0",
        "proxmox" => "ens18",
        _ => "enp1s0",
    }
}

/// Addresses that must be given again.
pub(crate) fn nic_static_ip(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(network) = &guest.system.network else {
        return Outcome::unknown("the network's configuration could not be read");
    };
    let fixed: Vec<_> = network
        .interfaces
        .iter()
        .filter(|interface| interface.name != "lo" && !interface.addresses.is_empty())
        .collect();
    let evidence: Vec<_> = fixed
        .iter()
        .map(|interface| {
            let value = format!(
                "{} via {} dns {}",
                interface.addresses.join(" "),
                interface.gateways.join(" "),
                interface.dns_servers.join(" ")
            );
            Evidence::explicit(&*interface.source, &*interface.name, value)
        })
        .collect();
    if fixed.is_empty() {
        return Outcome::pass("no address is fixed", vec![Evidence::absent("/etc", "static addresses")]);
    }
    let names: Vec<_> =
        fixed.iter().map(|interface| format!("{}: {}", interface.name, interface.addresses.join(" "))).collect();
    if fixed.iter().any(|interface| is_slot_name(&interface.name) || guest.is_windows()) {
        return Outcome::fail(format!("addresses hang on interfaces that change: {}", names.join(", ")), evidence)
            .with_subjects(names);
    }
    Outcome::warn(format!("addresses to keep: {}", names.join(", ")), evidence).with_subjects(names)
}

/// Hardware addresses that are written down.
pub(crate) fn mac_pinned(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(network) = &guest.system.network else {
        return Outcome::unknown("the network's configuration could not be read");
    };
    let by_interface = network.interfaces.iter().filter_map(|interface| {
        Some(Bad::new(&*interface.name, Evidence::explicit(&*interface.source, "address", interface.mac.clone()?)))
    });
    let by_rule = network.persistent_names.iter().filter_map(|rule| {
        Some(Bad::new(&*rule.name, Evidence::explicit(&*rule.source, "address", rule.mac.clone()?)))
    });
    let bad = by_interface.chain(by_rule).collect();
    Outcome::none_of(
        bad,
        "hardware addresses that the target must keep",
        "no hardware address is written down",
        vec![Evidence::absent("/etc/udev/rules.d", "hardware addresses")],
    )
}

/// Platforms whose tools are of no use elsewhere. Those of other clouds are wanted for their own sake, wherever a system runs.
const OWN_TOOLS: [&str; 6] = ["vmware", "virtualbox", "parallels", "xen", "hyper-v", "azure"];

/// Whether the tools of a platform are of use on a target.
fn serves(platform: &str, target: &str) -> bool {
    match target {
        "azure" => matches!(platform, "azure" | "hyper-v"),
        "hyperv" => platform == "hyper-v",
        "aws" | "gcp" => platform == target,
        _ => platform == "qemu",
    }
}

fn agent_evidence(guest: &Guest<'_>, agent: &GuestAgent) -> Evidence {
    match (&agent.package, &agent.path) {
        (Some(package), _) => {
            Evidence::explicit(guest.package_database(), &**package, agent.version.as_deref().unwrap_or_default())
        }
        (None, Some(path)) => Evidence::metadata(&**path, &*agent.name, "present"),
        (None, None) => Evidence::metadata("services", &*agent.name, "present"),
    }
}

/// What the old platform left, of no use on the target that is asked for.
pub(crate) fn vm_tools(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    vm_tools_for(guest, target(guest))
}

/// What the old platform left, of no use on a target.
pub(crate) fn vm_tools_for(guest: &Guest<'_>, target: &str) -> Outcome {
    let is_left = |platform: &str| OWN_TOOLS.contains(&platform) && !serves(platform, target);
    let mut bad = Vec::new();
    if guest.is_windows() {
        let known = [
            "VMware Tools",
            "Oracle VM VirtualBox Guest Additions",
            "Oracle VirtualBox Guest Additions",
            "Parallels Tools",
            "Citrix XenServer",
            "XenServer",
            "Xen PV",
        ];
        for package in guest.packages().into_iter().flatten() {
            let name = package.display_name.as_deref().unwrap_or(&package.name);
            if known.iter().any(|start| name.starts_with(start)) {
                bad.push(Bad::new(name, Evidence::explicit("SOFTWARE", name, &*package.full_version)));
            }
        }
        // Hyper-V's own come with every Windows.
        let drivers = guest.system.operating_system.windows.iter().flat_map(|windows| &windows.virtual_drivers);
        bad.extend(drivers.filter(|driver| is_left(&driver.platform) && driver.platform != "hyper-v").map(|driver| {
            let path = guest.unit(&driver.name).map_or("SYSTEM", |unit| unit.path.as_str());
            Bad::new(&*driver.name, Evidence::explicit(path, "Start", &*driver.start_type))
        }));
    } else {
        let agents = guest.system.guest_agents.iter().filter(|agent| is_left(&agent.platform));
        bad.extend(agents.map(|agent| Bad::new(&*agent.name, agent_evidence(guest, agent))));
    }
    let looked_at = vec![Evidence::absent(guest.package_database(), "tools of another platform")];
    Outcome::none_of(bad, "the old platform left", "no platform left anything", looked_at).softened()
}

/// The agent of the target is there.
pub(crate) fn guest_agent_for(guest: &Guest<'_>, target: &str) -> Outcome {
    let names: &[&str] = match target {
        "aws" => &["amazon-ssm-agent"],
        "azure" => &["walinuxagent", "azure-guest-agent"],
        "gcp" => &["google-guest-agent"],
        "hyperv" => &["hyperv-daemons", "hyper-v-data-exchange"],
        _ => &["qemu-guest-agent"],
    };
    let Some(agent) = guest.system.guest_agents.iter().find(|agent| names.contains(&agent.name.as_str())) else {
        let name = names.join(" or ");
        let evidence = vec![Evidence::absent(guest.package_database(), &name)];
        return Outcome::fail(format!("{name} is not installed"), evidence);
    };
    let mut evidence = vec![agent_evidence(guest, agent)];
    let unit = agent.service.as_ref().and_then(|name| guest.unit(name));
    evidence.extend(unit.map(|unit| Evidence::metadata(&*unit.path, &*unit.name, &*unit.state)));
    match unit {
        // A unit that its device starts is neither enabled nor not.
        Some(_) if agent.enabled != Some(false) => Outcome::pass(format!("{} is there", agent.name), evidence),
        _ => Outcome::warn(format!("{} is installed, but does not start", agent.name), evidence),
    }
}

/// The same for the target that is asked for.
pub(crate) fn guest_agent(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    guest_agent_for(guest, target(guest))
}

/// The target starts the system the way it started before.
pub(crate) fn boot_firmware(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let firmware = guest.system.operating_system.firmware.as_deref();
    let has_esp = guest.partition_table.is_some_and(|table| {
        table.partitions.iter().any(|partition| partition.type_name.as_deref() == Some("efi-system"))
    });
    let table = guest.partition_table.map_or("none", |table| table.r#type.as_str());
    let mut evidence = vec![Evidence::metadata("disk", "partition table", table)];
    evidence.extend(firmware.map(|firmware| Evidence::metadata("/boot", "firmware", firmware)));
    if !has_esp && firmware != Some("uefi") {
        return Outcome::pass("the system starts by BIOS", evidence);
    }
    let fallback = [
        "/boot/efi/EFI/BOOT/BOOTX64.EFI",
        "/efi/EFI/BOOT/BOOTX64.EFI",
        "/boot/EFI/BOOT/BOOTX64.EFI",
        "/boot/efi/EFI/BOOT/BOOTAA64.EFI",
        "/boot/efi/EFI/BOOT/bootx64.efi",
    ];
    let fallback = fallback.into_iter().find(|path| guest.files.exists(path));
    match fallback {
        Some(path) => {
            evidence.push(Evidence::metadata(path, "loader", "present"));
            Outcome::pass("the system starts by UEFI, also where no entry is kept", evidence)
        }
        None if has_esp || firmware == Some("uefi") => {
            evidence.push(Evidence::absent("/boot/efi/EFI/BOOT/BOOTX64.EFI", "loader"));
            Outcome::warn(
                "the system starts by UEFI through an entry that the old machine keeps; the ESP has no fallback that was seen",
                evidence,
            )
        }
        None => Outcome::pass("the system starts by BIOS", evidence),
    }
}

/// Modules that Secure Boot would refuse.
pub(crate) fn secure_boot(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if guest.is_windows() {
        let state = guest.system.security.as_ref().and_then(|security| security.windows.as_ref()?.secure_boot);
        return match state {
            Some(on) => Outcome::pass(
                format!("Secure Boot was {}", if on { "on" } else { "off" }),
                vec![Evidence::explicit("SYSTEM", "SecureBoot\\State", on.to_string())],
            ),
            None => Outcome::unknown("whether Secure Boot was on is not recorded"),
        };
    }
    let shim = guest.system.security.as_ref().and_then(|security| security.secure_boot.as_ref());
    let evidence = vec![Evidence::metadata("/boot/efi/EFI", "shim", shim.is_some_and(|found| found.shim).to_string())];
    let dkms: Vec<String> =
        guest.files.names("/var/lib/dkms").into_iter().filter(|name| name != "mok.key" && name != "mok.pub").collect();
    let own_key = shim.is_some_and(|found| found.machine_owner_key);
    if !dkms.is_empty() && !own_key {
        return Outcome::warn(
            format!("modules without a signature, where the target enforces one: {}", dkms.join(", ")),
            evidence,
        )
        .with_subjects(dkms);
    }
    Outcome::pass("no module of third parties without a key of the machine's owner", evidence)
}

/// Devices by what a superblock says they are.
fn devices_of<'g>(guest: &'g Guest<'_>, kinds: &[&str]) -> Vec<&'g crate::disk::Device> {
    guest
        .disk
        .devices()
        .iter()
        .filter(|device| device.probe.as_ref().is_some_and(|probe| kinds.contains(&probe.kind)))
        .collect()
}

/// Whether a LUKS2 header's JSON has a token that a TPM opens (systemd's, or Clevis's, which names its pin in the protected
/// header of a JWE (RFC 7516), for a threshold of several pins in one inside), and, with one, whether a key slot is left that no
/// token at all opens: somebody knows its passphrase, or has its key file.
fn tpm_token(json: &str) -> Option<bool> {
    let root = serde_json::from_str::<serde_json::Value>(json).ok()?;
    let entries = |key: &str| root.get(key).and_then(serde_json::Value::as_object);
    let tokens = || entries("tokens").into_iter().flatten().map(|(_, token)| token);
    let is_tpm = |token: &serde_json::Value| match token.get("type").and_then(serde_json::Value::as_str) {
        Some("systemd-tpm2") => true,
        Some("clevis") => {
            let header = token.get("jwe").and_then(|jwe| jwe.get("protected")?.as_str());
            header.is_some_and(|header| names_tpm(header, 4))
        }
        _ => false,
    };
    let taken: BTreeSet<&str> = tokens()
        .filter_map(|token| token.get("keyslots")?.as_array())
        .flatten()
        .filter_map(serde_json::Value::as_str)
        .collect();
    let mut slots = entries("keyslots").into_iter().flatten();
    tokens().any(is_tpm).then(|| slots.any(|(slot, _)| !taken.contains(slot.as_str())))
}

/// Whether a protected header, or one of those inside it, names the pin `tpm2`.
fn names_tpm(header: &str, depth: u32) -> bool {
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header.trim_end_matches('='));
    let value = decoded.ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let Some(clevis) = value.as_ref().and_then(|value| value.get("clevis")) else { return false };
    if clevis.get("pin").and_then(serde_json::Value::as_str) == Some("tpm2") {
        return true;
    }
    let inner = clevis.get("sss").and_then(|shares| shares.get("jwe")?.as_array());
    let mut inner = inner.into_iter().flatten().filter_map(|jwe| jwe.as_str()?.split('.').next());
    depth > 0 && inner.any(|header| names_tpm(header, depth.saturating_sub(1)))
}

/// Nothing opens only with the old machine's TPM.
pub(crate) fn tpm_bound(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let luks = devices_of(guest, &["crypto_LUKS"]);
    let windows = devices_of(guest, &["BitLocker"]);
    if luks.is_empty() && windows.is_empty() {
        return Outcome::pass("nothing is encrypted", vec![Evidence::absent(guest.root.name(), "LUKS, BitLocker")]);
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for device in &windows {
        let protectors = match bitlocker::protectors(&*device.source()) {
            Ok(protectors) => protectors,
            Err(error) => return Outcome::unknown(format!("{}: {error}", device.name)),
        };
        let names: Vec<_> = protectors.iter().map(ToString::to_string).collect();
        let evidence = Evidence::metadata(&*device.name, "protectors", names.join(", "));
        let is_bound = !protectors.is_empty() && protectors.iter().all(|protector| protector.needs_tpm());
        if is_bound { bad.push(Bad::new(&*device.name, evidence)) } else { looked_at.push(evidence) }
    }
    for device in &luks {
        // The JSON of a LUKS2 header follows the first 4096 bytes. Source: LUKS2 On-Disk Format Specification, section 2.2.
        let mut area = vec![0; 12_288];
        if crate::read_at::ReadAt::read_exact_at(&*device.source(), &mut area, 4_096).is_ok() {
            let text = String::from_utf8_lossy(&area);
            match tpm_token(text.split('\0').next().unwrap_or_default()) {
                Some(false) => bad.push(Bad::new(&*device.name, Evidence::metadata(&*device.name, "token", "TPM 2"))),
                Some(true) => {
                    looked_at.push(Evidence::metadata(&*device.name, "token", "TPM 2, and a key slot without a token"));
                }
                None => looked_at.push(Evidence::metadata(&*device.name, "token", "none of a TPM")),
            }
        }
    }
    Outcome::none_of(bad, "volumes that only a TPM opens", "no volume needs the old machine's TPM", looked_at)
}

/// Encrypted volumes need their key on the target.
pub(crate) fn encrypted_root(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let encrypted = devices_of(guest, &["crypto_LUKS", "BitLocker"]);
    if encrypted.is_empty() {
        return Outcome::pass("nothing is encrypted", vec![Evidence::absent(guest.root.name(), "LUKS, BitLocker")]);
    }
    let evidence = encrypted
        .iter()
        .map(|device| {
            Evidence::metadata(&*device.name, "encryption", device.probe.as_ref().map_or("", |probe| probe.kind))
        })
        .collect();
    Outcome::warn("volumes that must be opened on the target", evidence)
        .with_subjects(encrypted.iter().map(|device| device.name.clone()))
}

/// Names of disks on a target, of which one kind is there; a partition's number follows.
fn disk_names(target: &str) -> &'static [&'static str] {
    match target {
        "aws" => &["/dev/nvme0n1p", "/dev/xvda"],
        "azure" | "hyperv" => &["/dev/sda"],
        "gcp" => &["/dev/sda", "/dev/nvme0n1p"],
        _ => &["/dev/vda", "/dev/sda"],
    }
}

/// Whether a filter of LVM lets a device in: the first of its patterns that is found in the name decides, and what none is found in
/// is let in. Source: lvm.conf(5), `devices/filter`.
fn lets_in(filter: &[&str], name: &str) -> Result<bool, String> {
    for pattern in filter {
        let mut characters = pattern.chars();
        let (Some(verdict @ ('a' | 'r')), Some(delimiter)) = (characters.next(), characters.next()) else {
            return Err(format!("{pattern:?} is no pattern of LVM"));
        };
        let delimiter = match delimiter {
            '(' => ')',
            '[' => ']',
            '{' => '}',
            other => other,
        };
        let inside = characters.as_str();
        let inside = inside.rfind(delimiter).and_then(|end| inside.get(..end)).unwrap_or(inside);
        let regex = regex_lite::RegexBuilder::new(inside).size_limit(1 << 20).build();
        if regex.map_err(|error| format!("{pattern:?}: {error}"))?.is_match(name) {
            return Ok(verdict == 'a');
        }
    }
    Ok(true)
}

/// LVM looks at the target's disks.
pub(crate) fn lvm_filters(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (conf, devices) = ("/etc/lvm/lvm.conf", "/etc/lvm/devices/system.devices");
    if guest.files.first_existing(&[conf, devices]).is_none() {
        return Outcome::not_applicable("LVM is not configured");
    }
    let settings = match text::parse(guest.files.text(conf).unwrap_or_default().as_bytes()) {
        Ok(settings) => settings.section("devices").cloned().unwrap_or_default(),
        Err(error) => return Outcome::unknown(format!("{conf}: {error}")),
    };
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for key in ["filter", "global_filter"] {
        let one = settings.text(key);
        let filter: Vec<&str> = one.into_iter().chain(settings.texts(key)).collect();
        if filter.is_empty() {
            continue;
        }
        // One that names some partitions of a disk by their numbers is the old machine's, though the new one may have such.
        let takes_all = |disk: &&str| -> Result<bool, String> {
            let each: Result<Vec<_>, _> = (1..=3).map(|number| lets_in(&filter, &format!("{disk}{number}"))).collect();
            Ok(each?.into_iter().all(|is_in| is_in))
        };
        let taken: Result<Vec<_>, _> = disk_names(target(guest)).iter().map(takes_all).collect();
        let evidence = Evidence::explicit(conf, key, filter.join(", "));
        match taken {
            Ok(taken) if taken.contains(&true) => looked_at.push(evidence),
            Ok(_) => bad.push(Bad::new(key, evidence)),
            Err(why) => return Outcome::unknown(format!("{conf}: {key}: {why}")),
        }
    }
    // Where it is switched off, the file is not read. Source: lvmdevices(8).
    let is_ignored = settings.number("use_devicesfile") == Some(0);
    let listed = if is_ignored { None } else { guest.files.text(devices) };
    for (at, line) in listed.unwrap_or_default().lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        if line.contains("IDTYPE=sys_wwid") || line.contains("IDTYPE=sys_serial") {
            let evidence = Evidence::explicit(devices, "device", line.trim()).at_line(at.saturating_add(1));
            bad.push(Bad::new(devices, evidence));
        }
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent(conf, "filter"));
    }
    Outcome::none_of(bad, "LVM will not see the target's disks", "LVM sees the target's disks", looked_at)
}

/// Paths to disks of a storage network.
pub(crate) fn multipath(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let unit = any_started(guest, &["multipathd.service", "iscsid.service", "iscsi.service", "open-iscsi.service"]);
    let other = any_installed(guest, &["EMCpower.LINUX", "DellEMCPower.LINUX", "HDLM"]);
    let used =
        guest.files.exists("/etc/multipath.conf") || fstab(guest).iter().any(|entry| entry.spec.contains("mpath"));
    let nodes = guest.files.names("/etc/iscsi/nodes").len() + guest.files.names("/var/lib/iscsi/nodes").len();
    let mut bad: Vec<_> = other.into_iter().map(|evidence| Bad::new(evidence.key.clone(), evidence)).collect();
    if let Some(unit) = unit.filter(|_| used || nodes > 0) {
        bad.push(Bad::new(unit.key.clone(), unit));
    }
    Outcome::none_of(
        bad,
        "disks are reached over a storage network",
        "no disk is reached over a storage network",
        vec![Evidence::absent("/etc/multipath.conf", "multipath, iSCSI")],
    )
}

/// Shares that the target must reach.
pub(crate) fn network_mounts(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let remote = fstab(guest)
        .iter()
        .filter(|entry| {
            matches!(
                entry.r#type.as_str(),
                "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "glusterfs" | "fuse.sshfs" | "lustre"
            )
        })
        .collect::<Vec<_>>();
    if remote.is_empty() {
        return Outcome::pass(
            "no share of another machine is mounted",
            vec![Evidence::absent("/etc/fstab", "nfs, cifs, ceph, glusterfs")],
        );
    }
    let evidence: Vec<_> = remote
        .iter()
        .map(|entry| {
            Evidence::explicit("/etc/fstab", &*entry.path, format!("{} {}", entry.spec, entry.options.join(",")))
        })
        .collect();
    let waits: Vec<String> = remote
        .iter()
        .filter(|entry| {
            !entry.options.iter().any(|option| option == "nofail" || option == "_netdev" || option == "noauto")
        })
        .map(|entry| entry.path.clone())
        .collect();
    if !waits.is_empty() {
        return Outcome::fail(format!("a start waits for shares: {}", waits.join(", ")), evidence).with_subjects(waits);
    }
    Outcome::warn("shares that the target must reach", evidence)
}

/// Disks that several machines write to.
pub(crate) fn shared_disk(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mut bad = Vec::new();
    for device in devices_of(guest, &["gfs2", "ocfs2", "vmfs", "lustre"]) {
        bad.push(Bad::new(
            &*device.name,
            Evidence::metadata(&*device.name, "file system", device.probe.as_ref().map_or("", |probe| probe.kind)),
        ));
    }
    let units = ["pacemaker.service", "corosync.service", "o2cb.service", "ClusSvc"];
    bad.extend(any_started(guest, &units).map(|evidence| Bad::new(evidence.key.clone(), evidence)));
    Outcome::none_of(
        bad,
        "the machine is part of a cluster",
        "the machine shares no disk",
        vec![Evidence::absent("/etc/systemd/system", "pacemaker, corosync, GFS2, OCFS2")],
    )
}

/// A console that the target shows that is asked for.
pub(crate) fn console(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    console_for(guest, target(guest))
}

/// A console that a target shows.
pub(crate) fn console_for(guest: &Guest<'_>, target: &str) -> Outcome {
    let line = match command_line(guest) {
        Ok(line) => line,
        Err(outcome) => return outcome,
    };
    let consoles = arguments(&line, &["console="]);
    let evidence = vec![Evidence::explicit(
        "kernel command line",
        "console",
        if consoles.is_empty() { "default".to_owned() } else { consoles.join(" ") },
    )];
    let is_cloud = matches!(target, "aws" | "azure" | "gcp" | "openstack");
    let has_serial = consoles.iter().any(|word| word.starts_with("console=ttyS0"));
    if let Some(odd) = consoles
        .iter()
        .find(|word| ["console=hvc", "console=xvc", "console=ttyAMA"].iter().any(|start| word.starts_with(start)))
    {
        return Outcome::warn(format!("{odd} is a console of another platform"), evidence);
    }
    if is_cloud && !has_serial {
        return Outcome::warn("clouds show the first serial port, on which nothing is written", evidence);
    }
    Outcome::pass("the target shows the console", evidence)
}

/// A driver of the display that only one platform has.
pub(crate) fn display_driver(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mut paths = vec!["/etc/X11/xorg.conf".to_owned()];
    paths.extend(guest.files.glob("/etc/X11/xorg.conf.d/*.conf"));
    let mut bad = Vec::new();
    for path in paths {
        for (at, line) in guest.files.text(&path).unwrap_or_default().lines().enumerate() {
            let lower = line.trim().to_ascii_lowercase();
            let driver = ["vmware", "fglrx", "nvidia", "cirrus", "vboxvideo"]
                .into_iter()
                .find(|driver| lower.starts_with("driver") && lower.contains(driver));
            bad.extend(driver.map(|driver| {
                Bad::new(driver, Evidence::explicit(&*path, "Driver", driver).at_line(at.saturating_add(1)))
            }));
        }
    }
    Outcome::none_of(
        bad,
        "a display's driver is fixed",
        "no display's driver is fixed",
        vec![Evidence::absent("/etc/X11/xorg.conf", "Driver")],
    )
}

/// Arguments for hardware that the target does not have.
pub(crate) fn cmdline_hw(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let line = match command_line(guest) {
        Ok(line) => line,
        Err(outcome) => return outcome,
    };
    let starts = [
        "intel_iommu=",
        "amd_iommu=",
        "pci=",
        "acpi=",
        "noapic",
        "nolapic",
        "vmw_pvscsi.",
        "xen_",
        "clocksource=",
        "hv_",
        "nomodeset",
        "ide",
        "edd=",
    ];
    let words = arguments(&line, &starts);
    let evidence = vec![Evidence::explicit("kernel command line", "arguments", &*line)];
    let stops: Vec<_> = words
        .iter()
        .filter(|word| matches!(word.as_str(), "acpi=off" | "noapic" | "nolapic" | "pci=noacpi"))
        .cloned()
        .collect();
    if !stops.is_empty() {
        return Outcome::fail(
            format!("arguments that may keep the target from starting: {}", stops.join(" ")),
            evidence,
        )
        .with_subjects(stops);
    }
    if words.is_empty() {
        Outcome::pass("no argument is for hardware", evidence)
    } else {
        Outcome::warn(format!("arguments for hardware: {}", words.join(" ")), evidence).with_subjects(words)
    }
}

/// Modules that are loaded for the old machine.
pub(crate) fn hw_modules(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    const OLD: [&str; 12] = [
        "vmxnet",
        "vmxnet3",
        "vmw_pvscsi",
        "vmw_balloon",
        "vmw_vmci",
        "vmwgfx",
        "vboxguest",
        "vboxsf",
        "xen_netfront",
        "xen_blkfront",
        "e1000",
        "mptspi",
    ];
    let mut paths = vec!["/etc/modules".to_owned()];
    paths.extend(guest.files.with_suffix("/etc/modules-load.d", ".conf"));
    let (mut aliases, mut loaded) = (Vec::new(), Vec::new());
    for path in paths {
        for (at, line) in guest.files.text(&path).unwrap_or_default().lines().enumerate() {
            let name = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .replace('-', "_");
            if OLD.contains(&name.as_str()) {
                loaded
                    .push(Bad::new(&*name, Evidence::explicit(&*path, "module", &*name).at_line(at.saturating_add(1))));
            }
        }
    }
    for path in guest.files.with_suffix("/etc/modprobe.d", ".conf").into_iter().chain(["/etc/modprobe.conf".to_owned()])
    {
        for (at, line) in guest.files.text(&path).unwrap_or_default().lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["alias", name, module] = words.as_slice()
                && (name.starts_with("eth") || name.starts_with("scsi_hostadapter"))
                && OLD.contains(&module.replace('-', "_").as_str())
            {
                aliases.push(Bad::new(*name, Evidence::explicit(&*path, *name, *module).at_line(at.saturating_add(1))));
            }
        }
    }
    let looked_at = vec![Evidence::absent("/etc/modprobe.d", "aliases of the old machine")];
    if aliases.is_empty() && !loaded.is_empty() {
        return Outcome::none_of(loaded, "modules of the old machine are loaded", "", looked_at).softened();
    }
    Outcome::none_of(
        aliases,
        "names that lead to the old machine's drivers",
        "no name leads to the old machine's drivers",
        looked_at,
    )
}

/// Licences that are bound to a machine.
pub(crate) fn license_bound(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if guest.is_windows() {
        let channel = guest.hives.and_then(|hives| {
            let node = hives.software_key("Microsoft\\Windows NT\\CurrentVersion\\SoftwareProtectionPlatform")?;
            node.text("KeyManagementServiceName").map(|server| (node.path(), server))
        });
        return match channel {
            Some((path, server)) => Outcome::pass(
                "the system is activated by a server of its network",
                vec![Evidence::explicit(path, "KeyManagementServiceName", server)],
            ),
            None => Outcome::manual(
                "whether the licence moves depends on its kind (OEM, retail, volume), which people must tell",
                vec![Evidence::absent("SOFTWARE", "KeyManagementServiceName")],
            ),
        };
    }
    let mut bad = Vec::new();
    for pattern in
        ["/opt/*/*.lic", "/opt/*/licenses/*.lic", "/usr/local/*/*.lic", "/usr/local/flexlm/licenses/*", "/etc/*.lic"]
    {
        for path in guest.files.glob(pattern) {
            let text = guest.files.text(&path).unwrap_or_default();
            if text.lines().any(|line| line.starts_with("SERVER ") || line.contains("HOSTID=")) {
                bad.push(Bad::new(&*path, Evidence::explicit(&*path, "HOSTID", "bound to a host")));
            }
        }
    }
    let packages = ["oracle-database-ee-19c", "matlab", "sapinst", "oracle-xe", "oracle-database-xe-21c"];
    bad.extend(any_installed(guest, &packages).map(|evidence| Bad::new(evidence.key.clone(), evidence)));
    Outcome::none_of(
        bad,
        "licences that may be bound to the machine",
        "no licence that is bound to a machine was found",
        vec![Evidence::absent("/opt", "*.lic")],
    )
    .softened()
}

/// The target's processors run the system.
pub(crate) fn architecture(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let system = &guest.system.operating_system;
    let Some(arch) = system.arch.as_deref() else { return Outcome::unknown("the architecture is not known") };
    let family = system.distribution.as_deref().unwrap_or_default();
    let major = system.version_major.unwrap_or(0);
    let is_el = ["rhel", "centos", "almalinux", "rocky", "ol"].contains(&family);
    let level = match (arch, is_el, major) {
        ("x86_64", true, 10..) => "x86-64-v3",
        ("x86_64", true, 9) => "x86-64-v2",
        ("x86_64", false, _) if family == "sles" && major >= 16 => "x86-64-v2",
        _ => "baseline",
    };
    let evidence = vec![Evidence::metadata("/sbin/init", "architecture", format!("{arch}, {level}"))];
    match arch {
        "i386" | "i486" | "i586" | "i686" => {
            Outcome::warn("the system is of 32 bits, which some targets do not take", evidence)
        }
        _ if level != "baseline" => Outcome::warn(format!("the target's processor model must offer {level}"), evidence),
        _ => Outcome::pass(format!("{arch}, without demands on the processor"), evidence),
    }
}

/// Disks that the target that is asked for takes as they are.
pub(crate) fn disk_layout(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    disk_layout_for(guest, target(guest))
}

/// Disks that a target takes as they are.
pub(crate) fn disk_layout_for(guest: &Guest<'_>, target: &str) -> Outcome {
    let drives = guest.disk.drives();
    let mut bad = Vec::new();
    let mut looked_at = Vec::new();
    if drives.len() > 165 {
        bad.push(Bad::new("more than 165 disks", Evidence::metadata("disks", "count", drives.len().to_string())));
    }
    for drive in drives {
        let size = drive.image.top().map_or(0, |top| top.virtual_size_bytes);
        let (kind, sector) =
            drive.partition_table().map_or(("none", 512), |table| (table.kind.name(), table.sector_bytes));
        let evidence =
            Evidence::metadata(&*drive.name, "disk", format!("{} MiB, {kind}, sectors of {sector}", size / MIB));
        if kind == "dos" && size > 2 << 40 {
            bad.push(Bad::new(
                format!("{}: what lies behind 2 TiB is beyond its partition table", drive.name),
                evidence,
            ));
        } else if sector != 512 {
            bad.push(Bad::new(format!("{}: sectors of {sector} bytes", drive.name), evidence));
        } else if target == "azure"
            && drives.first().is_some_and(|first| first.name == drive.name)
            && size > 4_095 << 30
        {
            bad.push(Bad::new(format!("{}: larger than what Azure starts from", drive.name), evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    Outcome::none_of(
        bad,
        "disks that the target does not take as they are",
        "the target takes the disks as they are",
        looked_at,
    )
}

/// One consolidated image.
pub(crate) fn snapshots(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mut bad = Vec::new();
    for layer in &guest.image.backing_chain {
        bad.push(Bad::new(&*layer.path, Evidence::metadata(&*layer.path, "layer below", &*layer.format)));
    }
    let count = internal_snapshots(guest);
    if count > 0 {
        bad.push(Bad::new(
            format!("{count} snapshots inside"),
            Evidence::metadata(&*guest.image.path, "internal snapshots", count.to_string()),
        ));
    }
    Outcome::none_of(
        bad,
        "the image is not one",
        "the image is one, without snapshots",
        vec![Evidence::metadata(&*guest.image.path, "layers", "1")],
    )
}

/// Labels after an edit from outside.
pub(crate) fn selinux_relabel(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mode = guest.system.security.as_ref().and_then(|security| security.selinux.as_ref()?.mode.clone());
    match mode.as_deref() {
        Some("enforcing" | "permissive") => {
            if guest.files.exists("/.autorelabel") {
                return Outcome::pass(
                    "labels are written anew at the next start",
                    vec![Evidence::metadata("/.autorelabel", "file", "present")],
                );
            }
            Outcome::warn(
                "whatever the move writes needs labels: /.autorelabel, or labels written with it",
                vec![Evidence::absent("/.autorelabel", "file")],
            )
        }
        _ => Outcome::not_applicable("SELinux is not in use"),
    }
}

/// Whether the hardware clock keeps universal time.
pub(crate) fn time_and_clock(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if guest.is_windows() {
        let universal = guest
            .hives
            .and_then(|hives| hives.control_key("Control\\TimeZoneInformation")?.number("RealTimeIsUniversal"));
        let evidence = Evidence::explicit("SYSTEM", "RealTimeIsUniversal", universal.unwrap_or(0).to_string());
        return if universal == Some(1) {
            Outcome::pass("the hardware clock keeps universal time", vec![evidence])
        } else {
            Outcome::warn("the hardware clock keeps local time: the target's definition must say so", vec![evidence])
        };
    }
    let text = guest.files.text("/etc/adjtime");
    let local = text.as_deref().is_some_and(|text| text.lines().any(|line| line.trim() == "LOCAL"));
    let sync = guest.files.text("/etc/vmware-tools/tools.conf").is_some_and(|text| text.contains("timeSync"));
    let evidence = match &text {
        Some(_) => Evidence::explicit("/etc/adjtime", "clock", if local { "LOCAL" } else { "UTC" }),
        None => Evidence::default("/etc/adjtime", "clock", "UTC"),
    };
    if local {
        return Outcome::warn(
            "the hardware clock keeps local time: the target's definition must say so",
            vec![evidence],
        );
    }
    if sync {
        return Outcome::warn("VMware Tools set the clock, and will be gone", vec![evidence]);
    }
    Outcome::pass("the hardware clock keeps universal time", vec![evidence])
}

/// A name of its own. Source: RFC 1123, section 2.1.
pub(crate) fn hostname(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let path = if guest.is_windows() { "SYSTEM" } else { "/etc/hostname" };
    let Some(name) = guest.system.operating_system.hostname.as_deref().filter(|name| !name.is_empty()) else {
        return Outcome::warn("the system has no name", vec![Evidence::absent(path, "host name")]);
    };
    let evidence = vec![Evidence::explicit(path, "host name", name)];
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_default =
        ["localhost", "localhost.localdomain", "debian", "ubuntu", "centos", "fedora", "archlinux", "alpine"]
            .contains(&name);
    if !name.split('.').all(is_label) || name.len() > 253 {
        return Outcome::fail(format!("{name:?} is no name that a network takes"), evidence);
    }
    if is_default {
        return Outcome::warn(format!("{name} is the name that a distribution gives"), evidence);
    }
    Outcome::pass(format!("the system is called {name}"), evidence)
}

/// cloud-init looks where the target tells it something.
pub(crate) fn cloud_init_for(guest: &Guest<'_>, target: &str) -> Outcome {
    if guest.files.first_existing(&["/etc/cloud/cloud.cfg", "/usr/bin/cloud-init"]).is_none() {
        return Outcome::pass(
            "cloud-init is absent by design",
            vec![Evidence::absent("/etc/cloud/cloud.cfg", "cloud-init")],
        );
    }
    if guest.files.exists("/etc/cloud/cloud-init.disabled") {
        return Outcome::pass(
            "cloud-init is switched off",
            vec![Evidence::metadata("/etc/cloud/cloud-init.disabled", "file", "present")],
        );
    }
    let wanted: &[&str] = match target {
        "aws" => &["Ec2"],
        "azure" => &["Azure"],
        "gcp" => &["GCE"],
        "openstack" => &["OpenStack", "ConfigDrive"],
        _ => &["NoCloud", "ConfigDrive"],
    };
    let list = cloud_init::datasource_list(guest.files);
    match list {
        None => Outcome::pass(
            "cloud-init looks everywhere",
            vec![Evidence::default("/etc/cloud/cloud.cfg", "datasource_list", "every one")],
        ),
        Some(list) => {
            let evidence = Evidence::explicit(list.path, "datasource_list", list.names.join(", "));
            let evidence = vec![evidence.at_line(list.line)];
            match wanted.iter().any(|name| list.names.iter().any(|listed| listed == name)) {
                true => Outcome::pass(format!("cloud-init looks for what {target} gives"), evidence),
                false => Outcome::fail(format!("cloud-init does not look for {}", wanted.join(" or ")), evidence),
            }
        }
    }
}

/// The same for the target that is asked for.
pub(crate) fn cloud_init_datasource(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    cloud_init_for(guest, target(guest))
}

/// Applications whose move is a project of its own.
pub(crate) fn apps_inventory(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let known: [(&str, &[&str]); 8] = [
        ("Oracle Database", &["oracle-database-ee-19c", "oracle-database-xe-21c"]),
        ("Kubernetes node", &["kubelet", "k3s", "rke2-server"]),
        ("Ceph", &["ceph-osd", "ceph-mon"]),
        ("ZFS", &["zfsutils-linux", "zfs"]),
        ("Docker", &["docker-ce", "docker.io"]),
        ("SAP", &["sapinst", "saphostagent"]),
        ("FreeIPA", &["freeipa-server", "ipa-server"]),
        ("Pacemaker", &["pacemaker"]),
    ];
    let mut found: Vec<Bad> =
        known.iter().filter_map(|(name, packages)| Some(Bad::new(*name, any_installed(guest, packages)?))).collect();
    for (service, name) in
        [("NTDS", "Active Directory"), ("MSSQLSERVER", "SQL Server"), ("MSExchangeIS", "Exchange"), ("vpxd", "vCenter")]
    {
        if guest.is_windows() {
            found.extend(
                guest.unit(service).map(|unit| Bad::new(name, Evidence::explicit(&*unit.path, service, &*unit.state))),
            );
        }
    }
    let databases = guest.system.databases.as_ref().map(|databases| databases.databases.as_slice()).unwrap_or_default();
    found.extend(databases.iter().map(|database| {
        Bad::new(
            &*database.engine,
            Evidence::explicit(
                database.config.as_deref().unwrap_or("configuration"),
                "version",
                database.version.clone().unwrap_or_default(),
            ),
        )
    }));
    Outcome::none_of(
        found,
        "applications to plan for",
        "no application that needs a plan of its own",
        vec![Evidence::absent(guest.package_database(), "Oracle, SAP, Kubernetes, Ceph, Exchange")],
    )
    .softened()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    /// As lvm.conf(5) explains its examples.
    #[test]
    fn the_first_pattern_of_a_filter_that_is_found_decides() {
        let cases: [(&[&str], &str, bool); 7] = [
            (&["a|.*/|"], "/dev/sdz", true),
            (&["r|/dev/cdrom|"], "/dev/vda1", true),
            (&["a|loop|", "r|.*|"], "/dev/vda1", false),
            (&["a|^/dev/vda8$|", "r|.*/|"], "/dev/vda8", true),
            (&["a|^/dev/vda8$|", "r|.*/|"], "/dev/vda1", false),
            (&["a/dev/sd.*/", "r/.*/"], "/dev/sda1", true),
            (&["r{^/dev/[sv]d[a-c]}"], "/dev/vda1", false),
        ];
        for (filter, name, expected) in cases {
            assert_eq!(lets_in(filter, name), Ok(expected), "{filter:?} {name}");
        }
        assert!(lets_in(&["x|a|"], "/dev/vda").is_err() && lets_in(&["a|(|"], "/dev/vda").is_err());
    }

    #[test]
    fn tokens_of_a_tpm_are_found_in_what_clevis_encodes() {
        let token = |header: &str| {
            format!(r#"{{"tokens":{{"0":{{"type":"clevis","keyslots":["1"],"jwe":{{"protected":"{header}"}}}}}}}}"#)
        };
        let tpm = URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","clevis":{"pin":"tpm2","tpm2":{"hash":"sha256"}}}"#);
        let tang = URL_SAFE_NO_PAD.encode(r#"{"alg":"ECDH-ES","clevis":{"pin":"tang","tang":{}}}"#);
        let both = format!(r#"{{"clevis":{{"pin":"sss","sss":{{"t":2,"jwe":["{tang}.x.y.z","{tpm}.x.y.z"]}}}}}}"#);
        assert_eq!(tpm_token(&token(&tpm)), Some(false));
        assert_eq!(tpm_token(&token(&tang)), None);
        assert_eq!(tpm_token(&token(&URL_SAFE_NO_PAD.encode(both))), Some(false));
        let systemd = |slots: &str| {
            format!(r#"{{"tokens":{{"0":{{"type":"systemd-tpm2","keyslots":["1"]}}}},"keyslots":{{{slots}}}}}"#)
        };
        assert_eq!(tpm_token(&systemd(r#""1":{}"#)), Some(false));
        assert_eq!(tpm_token(&systemd(r#""0":{},"1":{}"#)), Some(true), "a passphrase opens it too");
        assert_eq!((tpm_token(r#"{"tokens":{}}"#), tpm_token("{")), (None, None));
    }

    #[test]
    fn disks_are_named_by_the_machine_or_by_what_lies_on_them() {
        for name in
            ["/dev/sda1", "/dev/vdb", "/dev/nvme0n1p2", "/dev/disk/by-path/pci-0", "/dev/disk/by-id/scsi-36000c29"]
        {
            assert!(is_device_name(name), "{name}");
        }
        for name in [
            "UUID=1",
            "/dev/vg/root",
            "/dev/mapper/a",
            "/dev/sr0",
            "/dev/disk/by-uuid/1",
            "/dev/disk/by-id/dm-uuid-LVM-x",
        ] {
            assert!(!is_device_name(name), "{name}");
        }
    }
}
