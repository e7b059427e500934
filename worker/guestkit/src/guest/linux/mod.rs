//! Linux guests: one module of the report for each topic, all reading through [`files::Files`].

mod agents;
mod apk;
mod authorized_keys;
pub(crate) mod boot;
pub(crate) mod certificates;
pub(crate) mod cloud_init;
mod containers;
pub(crate) mod cron;
pub(crate) mod databases;
pub(crate) mod deep_scan;
pub(crate) mod dpkg;
pub(crate) mod files;
mod firewall;
#[cfg(test)]
pub(crate) mod fixture;
mod flatpak;
mod gvariant;
pub(crate) mod iptables;
pub(crate) mod journal;
mod languages;
pub(crate) mod network;
pub(crate) mod nft;
mod nix;
mod os;
mod os_release;
mod osinfo;
mod packages;
mod pacman;
pub(crate) mod pattern;
mod pkgtools;
mod portage;
mod purl;
mod release;
pub(crate) mod rpm;
mod runtimes;
pub(crate) mod security;
mod services;
mod snap;
mod sshd;
pub(crate) mod storage;
pub(crate) mod sudoers;
mod systemd;
pub(crate) mod time;
pub(crate) mod unit;
mod users;
mod xbps;

use std::cell::OnceCell;

use crate::disk::Disk;
use crate::guest::overview;
use crate::guest::report::{Filesystem, GuestSystem, Packages, Services, Warning};
use crate::guest::roots::{DeviceNames, Root};

use deep_scan::Rights;
use files::Files;
use journal::LastBoot;

/// A part of a report that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    OperatingSystem,
    Packages,
    Services,
    Users,
    Network,
    Security,
    Storage,
    Databases,
    DeepScan,
}

impl Module {
    /// Its name in reports, progress and warnings.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OperatingSystem => "operating_system",
            Self::Packages => "packages",
            Self::Services => "services",
            Self::Users => "users",
            Self::Network => "network",
            Self::Security => "security",
            Self::Storage => "storage",
            Self::Databases => "databases",
            Self::DeepScan => "deep_scan",
        }
    }

    /// The same for people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::OperatingSystem => "operating system",
            Self::DeepScan => "deep scan",
            other => other.name(),
        }
    }
}

/// What the modules of one system are given.
pub(crate) struct Context<'a> {
    pub(crate) root: &'a Root,
    pub(crate) names: &'a DeviceNames<'a>,
    pub(crate) disk: &'a Disk,
    pub(crate) filesystems: &'a [Filesystem],
}

/// Runs `modules` over one system, telling `found` of each what it found.
pub(crate) fn inspect(
    context: &Context<'_>,
    modules: &[Module],
    found: &mut dyn FnMut(Module, String),
) -> (GuestSystem, Vec<Warning>) {
    let files = Files::new(&context.root.tree);
    let mut system = GuestSystem {
        root: context.root.name(),
        mountpoints: context.root.mountpoints.clone(),
        snapshots: context.root.snapshots.clone(),
        ostree: context.root.ostree.clone(),
        ..GuestSystem::default()
    };
    let asks = |module: Module| modules.contains(&module);
    let boot = OnceCell::new();
    let last_boot = || boot.get_or_init(|| journal::last_boot(&files)).as_ref();
    // Security and databases need to know what is installed and enabled, whether or not the report shows it.
    let mut packages = None;
    let mut services = None;
    for module in modules {
        files.enter(module.name());
        match module {
            Module::OperatingSystem => {
                system.operating_system = os::inspect(&files);
                if system.operating_system.last_boot_at.is_none()
                    && let Some(boot) = last_boot()
                {
                    system.operating_system.last_boot_at = time::rfc3339(boot.began_at);
                    system.operating_system.last_boot_at_source = Some(boot.source.clone());
                }
            }
            Module::Packages => packages = Some(packages::inspect(&files, &system.operating_system)),
            Module::Services => {
                let packages = installed(&files, &system, &mut packages);
                let services = started(&files, &mut services, last_boot);
                system.guest_agents = agents::read(&files, &packages.packages, services);
                system.containers = containers::read(&files, &packages.packages, services);
            }
            Module::Users => system.users = Some(users::inspect(&files)),
            Module::Network => system.network = Some(network::inspect(&files, &system.operating_system)),
            Module::Security => {
                let packages = installed(&files, &system, &mut packages);
                let services = started(&files, &mut services, last_boot);
                files.enter(module.name());
                system.security =
                    Some(security::inspect(&files, &system.operating_system, &packages.packages, services));
            }
            Module::Storage => {
                let storage = storage::inspect(&files, context);
                system.storage = Some(storage);
            }
            Module::Databases => {
                let packages = installed(&files, &system, &mut packages);
                let services = started(&files, &mut services, last_boot);
                files.enter(module.name());
                let databases = databases::inspect(&files, &packages.packages, services, asks(Module::DeepScan));
                system.databases = Some(databases);
            }
            Module::DeepScan => system.deep_scan = deep_scan::inspect(&files, Rights::Modes),
        }
        let told = overview::told(*module, &system, packages.as_ref(), services.as_ref());
        found(*module, told.unwrap_or_else(|| "unknown".to_owned()));
    }
    if let (Some(databases), Some(scan)) = (&mut system.databases, &system.deep_scan) {
        databases.databases.extend(scan.sqlite_files.iter().map(databases::sqlite));
    }
    if asks(Module::Packages)
        && let Some(packages) = &packages
    {
        system.language_runtimes = runtimes::read(&files, &packages.packages);
    }
    files.enter(Module::OperatingSystem.name());
    let known = packages.as_ref().map(|packages| packages.packages.as_slice());
    system.cloud_init = cloud_init::inspect(&files, &system.operating_system, known, services.as_ref());
    system.packages = packages.filter(|_| asks(Module::Packages));
    system.services = services.filter(|_| asks(Module::Services));
    (system, files.into_warnings())
}

fn installed<'a>(files: &Files<'_>, system: &GuestSystem, packages: &'a mut Option<Packages>) -> &'a Packages {
    packages.get_or_insert_with(|| {
        files.enter(Module::Packages.name());
        packages::inspect(files, &system.operating_system)
    })
}

fn started<'a, 'b>(
    files: &Files<'_>,
    services: &'a mut Option<Services>,
    last_boot: impl FnOnce() -> Option<&'b LastBoot>,
) -> &'a Services {
    services.get_or_insert_with(|| {
        files.enter(Module::Services.name());
        services::inspect(files, last_boot)
    })
}

#[cfg(test)]
mod tests {
    use super::fixture::Fixture;
    use super::*;

    /// One honest file of each format that is parsed.
    const TEXTS: [(&str, &str); 41] = [
        ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian \"12\"'\nVERSION=\"12 (bookworm)\"\n"),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nbob:x:1:1::/home/bob:/bin/sh\n"),
        ("etc/shadow", "root:$6$a$b:19000:0:99999:7:::\n"),
        ("etc/group", "root:x:0:bob\n"),
        ("etc/gshadow", "root:*:bob:bob\n"),
        (
            "etc/sudoers",
            "Defaults env_reset\nUser_Alias A = b, c\n%A ALL=(ALL:ALL) NOPASSWD: ALL, !/bin/x\n@includedir /etc/sudoers.d\n",
        ),
        ("etc/sudoers.d/a", "#1 ALL = \\\n ALL\n"),
        (
            "etc/ssh/sshd_config",
            "Include /etc/ssh/sshd_config.d/*.conf\nPort 22\nCiphers -a*,b\nMatch all\nRekeyLimit 1G 1h\n",
        ),
        ("etc/ssh/sshd_config.d/a.conf", "ListenAddress [::1]:22\nMaxStartups 1:2:3\n"),
        ("root/.ssh/authorized_keys", "command=\"x\" ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQC1 c\n"),
        ("etc/fstab", "UUID=a / ext4 defaults 0 1\n/dev/sda2 /my\\040x xfs ro\n"),
        ("etc/hosts", "127.0.0.1 a b\n"),
        (
            "etc/network/interfaces",
            "auto a\niface a inet static\n address 1.2.3.4\n netmask 255.0.0.0\nsource /etc/network/x*\n",
        ),
        ("etc/netplan/a.yaml", "network: {ethernets: {a: {dhcp4: true, addresses: [1.2.3.4/8], mtu: 9}}}\n"),
        (
            "etc/NetworkManager/system-connections/a.nmconnection",
            "[connection]\nid=a\ntype=vlan\n[ipv4]\naddress1=1/8,2\n[vlan]\nid=3\n",
        ),
        ("etc/sysconfig/network-scripts/ifcfg-a", "DEVICE=a\nIPADDR=1.2.3.4\nPREFIX=8\n"),
        ("etc/systemd/network/a.network", "[Match]\nName=a\n[Route]\nGateway=1\nDestination=2\n"),
        ("var/lib/dhcp/dhclient.leases", "lease {\n fixed-address 1.2.3.4;\n expire 4 2026/01/01 00:00:00;\n}\n"),
        (
            "etc/nftables.conf",
            "table inet f { chain i { type filter hook input priority 0; policy drop; tcp dport { 1, 2 } accept; } }\n",
        ),
        (
            "etc/iptables/rules.v4",
            "*filter\n:INPUT DROP [0:0]\n:A - [0:0]\n[1:2] -I INPUT 2 -m comment --comment \"x\" -g A\nCOMMIT\n",
        ),
        ("etc/sysctl.d/a.conf", "-a/b.c = 1\n"),
        ("etc/pam.d/login", "auth [success=1 default=die] pam_unix.so nullok\n"),
        (
            "boot/grub/grub.cfg",
            "set default=\"1>0\"\nmenuentry 'a' --id b { linux /vmlinuz-1 ro }\nsubmenu c { menuentry d {\nlinux /vmlinuz-2\n} }\n",
        ),
        (
            "var/lib/dpkg/status",
            "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nSource: b (1)\nDescription: x\n y\n",
        ),
        ("var/lib/dpkg/updates/0000", "Package: a\nStatus: install ok unpacked\nVersion: 2\n"),
        ("usr/lib/opkg/status", "Package: a\nStatus: install user installed\nVersion: 1\nInstalled-Time: 9\n"),
        ("var/lib/pacman/local/a-1-1/desc", "%NAME%\na\n\n%VERSION%\n1:1-1\n\n%SIZE%\n9\n\n%LICENSE%\nx\ny\n"),
        ("var/db/pkg/a-b/c-1.2_rc3-r1/LICENSE", "x\n"),
        (
            "var/lib/snapd/state.json",
            "{\"data\": {\"snaps\": {\"a\": {\"current\": \"7\", \"sequence\": [{\"revision\": \"7\"}]}}}}",
        ),
        ("snap/a/7/meta/snap.yaml", "name: a\nversion: '1'\narchitectures: [amd64]\nsummary: |\n x\n"),
        ("var/lib/flatpak/app/a/b/c/active/metadata", "[Application]\nname=a\n"),
        (
            "var/lib/flatpak/app/a/b/c/active/deploy",
            "a\0b\0\0\0\0\0\x01\0\0\0\0\0\0\0k\0\0\0\0\0\0\0v\0\0s\x02\x0d\x04\x04\x02",
        ),
        ("usr/lib/python3/a.dist-info/METADATA", "Name: a\nVersion: 1\n"),
        ("lib/apk/db/installed", "P:a\nV:1-r2\nI:3\n\nP:b\n"),
        (
            "usr/lib/systemd/system/a.service",
            "[Unit]\nDescription=a \\\n b\n[Install]\nWantedBy=x.target\nAlias=%p-b.service\n",
        ),
        ("usr/lib/systemd/system-preset/a.preset", "disable [a-z]*.service\n"),
        ("etc/init.d/a", "#!/sbin/openrc-run\ndescription=\"a\"\n"),
        ("etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=10.04\n"),
        ("etc/redhat-release", "Red Hat Enterprise Linux AS release 4 (Nahant Update 8)\n"),
        ("etc/SuSE-release", "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 3\n"),
        ("system/build.prop", "ro.build.version.release=9\n"),
    ];

    /// The same numbers in every run (the xorshift of Marsaglia, 2003).
    struct Noise(u64);

    impl Noise {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % bound.max(1) as u64).unwrap()
        }

        fn spoil(&mut self, text: &str) -> Vec<u8> {
            const MARKS: &[u8] = b"\0\n\"'\\{}[]()=:,#*%!\xff\xc3-@ ";
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..=self.below(6) {
                let at = self.below(bytes.len());
                match self.below(5) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, MARKS[self.below(MARKS.len())]),
                    2 => bytes.extend_from_within(at..),
                    3 if !bytes.is_empty() => bytes[at] = MARKS[self.below(MARKS.len())],
                    _ => bytes.splice(at..at, *b"99999999999999999999").for_each(drop),
                }
            }
            bytes
        }
    }

    #[test]
    fn no_text_of_a_guest_can_end_an_inspection() {
        let mut noise = Noise(0x5eed_cafe);
        for _ in 0..60 {
            let fixture = Fixture::new();
            for (path, text) in TEXTS {
                fixture.file(path, noise.spoil(text));
            }
            let tree = fixture.tree();
            let files = Files::new(&tree);
            let system = os::inspect(&files);
            let packages = packages::inspect(&files, &system).packages;
            let services = services::inspect(&files, || None);
            users::inspect(&files);
            network::inspect(&files, &system);
            security::inspect(&files, &system, &packages, &services);
            databases::inspect(&files, &packages, &services, true);
            assert!(deep_scan::inspect(&files, Rights::Modes).is_some());
            storage::parse_fstab(&files.text("/etc/fstab").unwrap());
        }
    }

    /// What tells the system, file by file: without os-release the others are asked.
    #[test]
    fn no_release_file_can_end_an_inspection() {
        let mut noise = Noise(0x0dd_ba11);
        for path in ["etc/lsb-release", "etc/redhat-release", "etc/SuSE-release", "system/build.prop", "etc/os-release"]
        {
            let (_, text) = TEXTS.iter().find(|(known, _)| *known == path).unwrap();
            for _ in 0..40 {
                let fixture = Fixture::new();
                fixture.file(path, noise.spoil(text));
                let tree = fixture.tree();
                os::inspect(&Files::new(&tree));
            }
        }
    }
}
