//! Which Windows this is. Sources: Microsoft's documentation of the registry entries named here, and what virt-inspector
//! (libguestfs) reads.

use crate::bytes::{has, le_u16, le_u32, le_u64};
use crate::guest::linux::files::Files;
use crate::guest::linux::time::rfc3339;
use crate::guest::registry::{filetime_seconds, utf16_text};
use crate::guest::report::{OperatingSystem, VirtualDriver, WindowsSystem};
use crate::read_at::ReadAt as _;

use super::hives::{Hives, Node};
use super::services;
use super::sid::Sid;
use super::version::Version;

/// Where the version stands.
const VERSION_KEY: &str = "Microsoft\\Windows NT\\CurrentVersion";

/// The module.
pub(crate) fn inspect(files: &Files<'_>, hives: &Hives<'_>, system_root: &str) -> OperatingSystem {
    let mut system = OperatingSystem {
        r#type: "windows".to_owned(),
        distribution: Some("windows".to_owned()),
        init_system: Some("windows".to_owned()),
        ..OperatingSystem::default()
    };
    let mut windows = WindowsSystem { system_root: system_root.to_owned(), ..WindowsSystem::default() };
    let options = hives.control_key("Control\\ProductOptions");
    let product_type = options.as_ref().and_then(|options| options.text("ProductType"));
    windows.product_type = product_type.as_deref().and_then(product_type_name).map(str::to_owned);
    if let Some(key) = hives.software_key(VERSION_KEY) {
        version(&key, &mut system, &mut windows);
        system.sources.extend(hives.software().map(|hive| hive.path().to_owned()));
    }
    system.machine_id = hives.software_key("Microsoft\\Cryptography").and_then(|key| key.text("MachineGuid"));
    system.sources.extend(hives.system().map(|hive| hive.path().to_owned()));
    windows.current_control_set = hives.control_set();
    system.hostname = hostname(hives);
    system.arch = arch(files, hives, system_root);
    system.timezone = timezone(hives);
    system.locale = hives
        .control_key("Control\\MUI\\UILanguages")
        .and_then(|key| key.keys().first().map(|language| language.name().to_owned()));
    system.firmware = firmware(hives);
    system.boot_loader = boot_loader(files).map(str::to_owned);
    windows.last_shutdown_at = hives
        .control_key("Control\\Windows")
        .and_then(|key| key.bytes("ShutdownTime"))
        .and_then(|time| rfc3339(filetime_seconds(le_u64(&time, 0)?)?));
    domain(hives, &mut windows);
    windows.hibernated = hibernated(files);
    windows.virtual_drivers = virtual_drivers(hives);
    system.windows = Some(windows);
    system
}

/// `Control\ProductOptions\ProductType`.
fn product_type_name(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "winnt" => Some("workstation"),
        "servernt" => Some("server"),
        "lanmannt" => Some("domain-controller"),
        _ => None,
    }
}

fn version(key: &Node<'_>, system: &mut OperatingSystem, windows: &mut WindowsSystem) {
    let number = |name: &str| key.number(name).and_then(|number| u32::try_from(number).ok());
    let written = key.text("CurrentVersion");
    // Since Windows 10 the text stays at 6.3 for programs that compare it.
    let numbers = number("CurrentMajorVersionNumber").zip(number("CurrentMinorVersionNumber"));
    let numbers = numbers.or_else(|| {
        let (major, minor) = written.as_deref()?.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    system.build_id = key.text("CurrentBuildNumber").or_else(|| key.text("CurrentBuild"));
    let build = system.build_id.as_deref().and_then(|build| build.parse().ok());
    windows.edition = key.text("EditionID");
    windows.installation_type = key.text("InstallationType");
    let is_server = match windows.installation_type.as_deref() {
        Some(kind) => kind.contains("Server"),
        None => matches!(windows.product_type.as_deref(), Some("server" | "domain-controller")),
    };
    // Before Windows Vista nothing says the variant itself.
    let variant = windows.product_type.as_deref().map(|kind| if kind == "workstation" { "Client" } else { "Server" });
    system.variant = windows.installation_type.clone().or_else(|| variant.map(str::to_owned));
    windows.registry_product_name = key.text("ProductName");
    if let Some((major, minor)) = numbers {
        let product_name = windows.registry_product_name.as_deref().unwrap_or_default();
        let version = Version { major, minor, build, product_name, is_server };
        system.osinfo = version.osinfo().map(str::to_owned);
        system.product_name = Some(version.product_name()).filter(|name| !name.is_empty());
        system.version = Some(format!("{major}.{minor}"));
        system.version_major = Some(major);
        system.version_minor = Some(minor);
    } else {
        system.product_name.clone_from(&windows.registry_product_name);
    }
    windows.display_version = key.text("DisplayVersion").or_else(|| key.text("ReleaseId"));
    windows.build = system.build_id.as_ref().map(|build| match number("UBR") {
        Some(revision) => format!("{build}.{revision}"),
        None => build.clone(),
    });
    windows.build_lab = key.text("BuildLabEx").or_else(|| key.text("BuildLab"));
    windows.service_pack = key.text("CSDVersion");
    windows.registered_owner = key.text("RegisteredOwner");
    windows.registered_organization = key.text("RegisteredOrganization");
    windows.product_id = key.text("ProductId");
    let installed = key.number("InstallTime").and_then(filetime_seconds);
    let installed = installed.or_else(|| key.number("InstallDate").filter(|time| *time > 0)?.try_into().ok());
    system.installed_at = installed.and_then(rfc3339);
    system.installed_at_source = system.installed_at.as_ref().map(|_| key.path());
}

/// The name of the machine; of several, the one that the next start takes.
fn hostname(hives: &Hives<'_>) -> Option<String> {
    let network = hives.control_key("Services\\Tcpip\\Parameters");
    let from_network = network.as_ref().and_then(|key| key.text("Hostname").or_else(|| key.text("NV Hostname")));
    from_network.or_else(|| hives.control_key("Control\\ComputerName\\ComputerName")?.text("ComputerName"))
}

/// What the environment says, else the header of a program.
fn arch(files: &Files<'_>, hives: &Hives<'_>, system_root: &str) -> Option<String> {
    let environment = hives.control_key("Control\\Session Manager\\Environment");
    let stated = environment.and_then(|key| key.text("PROCESSOR_ARCHITECTURE"));
    let known = stated.as_deref().and_then(|name| match name.to_ascii_uppercase().as_str() {
        "AMD64" => Some("x86_64"),
        "X86" => Some("i386"),
        "ARM64" => Some("aarch64"),
        "ARM" => Some("arm"),
        "IA64" => Some("ia64"),
        "ALPHA" => Some("alpha"),
        "MIPS" => Some("mips"),
        "PPC" => Some("ppc"),
        _ => None,
    });
    let by_program = || {
        let programs = ["cmd.exe", "ntoskrnl.exe", "smss.exe"];
        programs.iter().find_map(|program| pe_arch(files, &format!("{system_root}/System32/{program}")))
    };
    known.or_else(by_program).map(str::to_owned)
}

/// The machine that a program is made for. Source: Microsoft, "PE Format": the offset of the PE header at 0x3c, the machine
/// behind its signature.
fn pe_arch(files: &Files<'_>, path: &str) -> Option<&'static str> {
    let file = files.open(path)?;
    let read = |bytes: &mut [u8], at: u64| {
        let is_within = at.checked_add(bytes.len() as u64).is_some_and(|end| end <= file.len());
        if !is_within {
            return None;
        }
        file.read_exact_at(bytes, at).map_err(|error| files.warn_error(path, &error)).ok()
    };
    let mut start = [0; 64];
    read(&mut start, 0)?;
    let mut header = [0; 6];
    read(&mut header, u64::from(le_u32(&start, 60).filter(|_| has(&start, 0, b"MZ"))?))?;
    if !has(&header, 0, b"PE\0\0") {
        return None;
    }
    Some(match le_u16(&header, 4)? {
        0x014c => "i386",
        0x8664 => "x86_64",
        0xaa64 => "aarch64",
        0x01c0 | 0x01c4 => "arm",
        0x0200 => "ia64",
        0x0184 => "alpha",
        0x0166 => "mips",
        0x01f0 => "ppc",
        _ => return None,
    })
}

/// `Control\TimeZoneInformation`: the zone's key, which older systems do not have.
fn timezone(hives: &Hives<'_>) -> Option<String> {
    let key = hives.control_key("Control\\TimeZoneInformation")?;
    key.text("TimeZoneKeyName").or_else(|| key.text("StandardName").filter(|name| !name.starts_with('@')))
}

/// `Control\PEFirmwareType`.
fn firmware(hives: &Hives<'_>) -> Option<String> {
    match hives.control_key("Control")?.number("PEFirmwareType")? {
        1 => Some("bios".to_owned()),
        2 => Some("uefi".to_owned()),
        _ => None,
    }
}

fn boot_loader(files: &Files<'_>) -> Option<&'static str> {
    [("/bootmgr", "bootmgr"), ("/ntldr", "ntldr")].iter().find(|(path, _)| files.exists(path)).map(|(_, name)| *name)
}

/// Domain or workgroup, as the local security authority knows them.
fn domain(hives: &Hives<'_>, windows: &mut WindowsSystem) {
    let network = hives.control_key("Services\\Tcpip\\Parameters");
    windows.dns_domain = network.and_then(|key| key.text("Domain").or_else(|| key.text("NV Domain")));
    let Some(policy) = hives.security().and_then(|hive| hive.key("Policy")) else { return };
    let default_of = |name: &str| policy.key(name)?.bytes("");
    let name = default_of("PolPrDmN").and_then(|data| counted_text(&data)).filter(|name| !name.is_empty());
    let is_member = default_of("PolPrDmS").is_some_and(|data| Sid::parse(&data).is_some());
    if is_member {
        windows.domain = name;
    } else {
        windows.workgroup = name;
    }
    windows.machine_sid = default_of("PolAcDmS").and_then(|data| Sid::parse(&data)).map(|sid| sid.to_string());
}

/// A text behind its length and place: bytes at 0, offset at 4.
fn counted_text(data: &[u8]) -> Option<String> {
    let length = usize::from(le_u16(data, 0)?);
    let at = usize::try_from(le_u32(data, 4)?).ok()?;
    crate::bytes::slice(data, at, length).map(utf16_text)
}

/// Whether hiberfil.sys holds a session. Source: its signatures, as libhibr's documentation has them: `hibr` holds one, `wake`
/// was started from, `rstr` was being started from.
fn hibernated(files: &Files<'_>) -> Option<bool> {
    let file = files.open("/hiberfil.sys").filter(|file| file.len() >= 4)?;
    let mut signature = [0; 4];
    if let Err(error) = file.read_exact_at(&mut signature, 0) {
        files.warn_error("/hiberfil.sys", &error);
        return None;
    }
    match &signature.to_ascii_lowercase()[..] {
        b"hibr" | b"rstr" => Some(true),
        b"wake" | [0, 0, 0, 0] => Some(false),
        _ => None,
    }
}

/// Services that hypervisors bring: name, platform, kind.
const VIRTUAL_DRIVERS: [(&str, &str, &str); 44] = [
    ("balloon", "virtio", "driver"),
    ("BalloonService", "virtio", "agent"),
    ("BLNSVR", "virtio", "agent"),
    ("netkvm", "virtio", "driver"),
    ("vioscsi", "virtio", "driver"),
    ("viostor", "virtio", "driver"),
    ("vioser", "virtio", "driver"),
    ("VirtioSerial", "virtio", "driver"),
    ("viorng", "virtio", "driver"),
    ("viofs", "virtio", "driver"),
    ("VirtioFsSvc", "virtio", "agent"),
    ("viogpudo", "virtio", "driver"),
    ("vioinput", "virtio", "driver"),
    ("viocrypt", "virtio", "driver"),
    ("viosock", "virtio", "driver"),
    ("viomem", "virtio", "driver"),
    ("pvpanic", "qemu", "driver"),
    ("qxl", "qemu", "driver"),
    ("qxldod", "qemu", "driver"),
    ("fwcfg", "qemu", "driver"),
    ("QEMU-GA", "qemu", "agent"),
    ("QEMU Guest Agent VSS Provider", "qemu", "agent"),
    ("vdservice", "qemu", "agent"),
    ("VMTools", "vmware", "agent"),
    ("vmvss", "vmware", "agent"),
    ("VGAuthService", "vmware", "agent"),
    ("vmci", "vmware", "driver"),
    ("pvscsi", "vmware", "driver"),
    ("vmxnet3ndis6", "vmware", "driver"),
    ("vmhgfs", "vmware", "driver"),
    ("vm3dmp", "vmware", "driver"),
    ("vm3dservice", "vmware", "agent"),
    ("vmmemctl", "vmware", "driver"),
    ("vmmouse", "vmware", "driver"),
    ("VBoxService", "virtualbox", "agent"),
    ("VBoxGuest", "virtualbox", "driver"),
    ("VBoxSF", "virtualbox", "driver"),
    ("VBoxMouse", "virtualbox", "driver"),
    ("xenbus", "xen", "driver"),
    ("xenvbd", "xen", "driver"),
    ("xennet", "xen", "driver"),
    ("XenAgent", "xen", "agent"),
    ("prl_tools", "parallels", "agent"),
    ("vmbus", "hyper-v", "driver"),
];

fn virtual_drivers(hives: &Hives<'_>) -> Vec<VirtualDriver> {
    let Some(all) = hives.control_key("Services") else { return Vec::new() };
    let mut found: Vec<VirtualDriver> = Vec::new();
    for (name, platform, kind) in VIRTUAL_DRIVERS {
        let Some(key) = all.key(name) else { continue };
        let Some(start_type) = services::start_type(&key) else { continue };
        found.push(VirtualDriver {
            name: key.name().to_owned(),
            platform: platform.to_owned(),
            kind: kind.to_owned(),
            start_type: start_type.to_owned(),
            path: key.text("ImagePath"),
        });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}
