//! The report as plain data: the same messages, with the same field names, as `proto/guestkit/v1/report.proto`.
//!
//! The engine knows no wire type; whoever carries a report turns the JSON of [`InspectReport`] into the message, strictly,
//! so the two cannot drift apart unseen. An absent `Option` means "not known" or "not asked for", never "none".

use serde::{Deserialize, Serialize};

use super::overview::Overview;
use crate::volume::{Array, VolumeGroup};

/// Something that could not be read or taken in; everything else in the report stands nevertheless.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Warning {
    /// The part of the report that suffers: a module (`packages`, `services`…), a device (`/dev/sda2`) or `image`.
    pub r#where: String,
    /// What was met: a path in the guest or a structure on the disk.
    pub what: String,
    /// Why it could not be read, as a lower-case fragment.
    pub why: String,
}

/// A disk image as it lies in files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageInfo {
    /// The path the job named.
    pub path: String,
    /// `raw`, `qcow2`, `vmdk`, `vdi`, `vhd`, `vhdx`, `ova`.
    pub format: String,
    /// The format's own version where it has one: 2 or 3 for qcow2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format_version: Option<u32>,
    /// Bytes the guest sees.
    pub size_bytes: u64,
    /// The same; `file_size_bytes` beside it is what it takes.
    pub virtual_size_bytes: u64,
    /// Length of the file in bytes.
    pub file_size_bytes: u64,
    /// Bytes of one cluster or grain, where the format has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_size_bytes: Option<u64>,
    /// Compression of clusters: `zlib`, `zstd`; absent where the format has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// The images below this one, nearest first.
    pub backing_chain: Vec<ImageFile>,
    /// Lower-case hexadecimal SHA-256 of the file as it lies; present where a checksum was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// One image of a backing chain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageFile {
    /// Its path on the worker.
    pub path: String,
    /// Its format, as for ImageInfo.
    pub format: String,
    /// Bytes the guest would see of it.
    pub virtual_size_bytes: u64,
    /// Length of the file in bytes.
    pub file_size_bytes: u64,
}

/// A partition table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartitionTable {
    /// `gpt`, `dos`, or `none` where a file system fills the whole disk (the names sfdisk prints).
    pub r#type: String,
    /// Disk identifier as blkid prints PTUUID: a lower-case GUID, or the eight hexadecimal digits of an MBR's signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Bytes of one sector that the table counts in.
    pub sector_size_bytes: u32,
    /// The partitions, in table order.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Partition {
    /// Number as the kernel counts: 1 for the first, 5 for the first logical one.
    pub number: u32,
    /// Name the guest is likely to give it, such as `/dev/sda1`.
    pub device: String,
    /// First byte on the disk.
    pub start_bytes: u64,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Type: the GUID of a GPT entry in upper case, or the MBR type byte in hexadecimal (`83`).
    pub r#type: String,
    /// The type in words where it is known: `linux`, `efi-system`, `bios-boot`, `linux-swap`, `lvm`, `microsoft-basic-data`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
    /// PARTUUID in the form blkid prints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// PARTLABEL, the name in a GPT entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Marked active (MBR) or legacy-bootable (GPT).
    pub bootable: bool,
}

/// A file system, or what stands in the place of one (swap, an encrypted volume…).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filesystem {
    /// Device that holds it, such as `/dev/sda1`, or `/dev/sda` for a whole disk.
    pub device: String,
    /// Type as blkid names it: `ext4`, `xfs`, `swap`, `crypto_LUKS`, `LVM2_member`; absent where nothing was recognised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Volume label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// UUID in the form blkid prints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Bytes of the file system as its superblock tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Bytes in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Bytes not in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Inodes in all, where the format has a fixed number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    /// Inodes not in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes_free: Option<u64>,
    /// Whether its files can be read here.
    pub readable: bool,
}

/// The report of `guestkit.inspect`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InspectReport {
    /// Version of this shape, `1.0`.
    pub version: String,
    /// Path of the image as the job named it.
    pub image_path: String,
    /// The image.
    pub image: ImageInfo,
    /// Its partition table; absent where it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_table: Option<PartitionTable>,
    /// Every file system found, in the order they lie on the disk.
    pub filesystems: Vec<Filesystem>,
    /// Every operating system found; empty where the disk holds none.
    pub systems: Vec<GuestSystem>,
    /// What could not be read, for the whole report.
    pub warnings: Vec<Warning>,
    /// What it took.
    pub summary: InspectSummary,
    /// The first system in short, its parts beside the fields above; absent where there is no system.
    #[serde(flatten)]
    pub overview: Option<Overview>,
}

/// What was asked for and what it took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InspectSummary {
    /// Modules that ran, in order: `operating_system`, `packages`, `services`, `users`, `network`, `security`, `storage`,
    /// `databases`, `deep_scan`.
    pub modules: Vec<String>,
    /// Wall-clock seconds from opening the image to the report.
    pub duration_seconds: f64,
    /// Bytes read from the image files.
    pub bytes_read: u64,
    /// Version of the engine.
    pub engine_version: String,
}

/// One operating system on the disk. A module's message is absent where the module was not asked for or failed; in the
/// latter case `InspectReport.warnings` has an entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestSystem {
    /// Device of its root file system; `btrfsvol:DEVICE/SUBVOLUME` where it is a subvolume that is not the default one, as
    /// libguestfs writes it.
    pub root: String,
    /// What is mounted where, from the guest's own fstab, as far as it was found on this disk; the root comes first.
    pub mountpoints: Vec<Mountpoint>,
    /// The system itself; always present.
    pub operating_system: OperatingSystem,
    /// Module `packages`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packages: Option<Packages>,
    /// Module `services`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Services>,
    /// Module `users`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<Users>,
    /// Module `network`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Module `security`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// Module `storage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Module `databases`; off unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub databases: Option<Databases>,
    /// Facts that need a walk over every file; present where `deep_scan` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deep_scan: Option<DeepScan>,
    /// Earlier states of the root that lie beside it (snapper, timeshift): not systems of their own.
    pub snapshots: Vec<Snapshot>,
    /// Which deployment this is, where OSTree keeps the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ostree: Option<Ostree>,
    /// Drive letters of Windows and the devices of this disk they stand for, in order of letter.
    pub drive_mappings: Vec<DriveMapping>,
    /// What cloud-init is set to and did; absent where it is not installed and left nothing. Of Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    /// Agents and tools of hypervisors and clouds, in order of name.
    pub guest_agents: Vec<GuestAgent>,
    /// Containers, and what runs them; absent where nothing of the kind was found. Of Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<Containers>,
    /// Runtimes of programming languages, in order of language, then path. Of Linux.
    pub language_runtimes: Vec<LanguageRuntime>,
}

/// What cloud-init is set to and did, as far as it keeps it on the disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloudInit {
    /// Version: of its package, else of what it wrote when it last ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it runs at boot: its services are not masked and nothing of what switches it off is there.
    pub enabled: bool,
    /// What switches it off: `/etc/cloud/cloud-init.disabled`, `kernel command line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_by: Option<String>,
    /// Data sources it looks for, in order; empty where it is not limited to any.
    pub datasources: Vec<String>,
    /// The file that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datasources_source: Option<String>,
    /// The data source it found: `DataSourceNoCloud [seed=/dev/sr0]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datasource: Option<String>,
    /// Identity of the instance it set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// When it was last done, as it writes it: RFC 3339 where that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Errors of its last run.
    pub errors: Vec<String>,
    /// Whether it was given user data.
    pub has_user_data: bool,
}

/// An agent or tool that a hypervisor or a cloud brings to its guests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestAgent {
    /// Name: `qemu-guest-agent`, `open-vm-tools`.
    pub name: String,
    /// `qemu`, `vmware`, `virtualbox`, `hyper-v`, `xen`, `parallels`, `azure`, `aws`, `gcp`, `openstack`…
    pub platform: String,
    /// Package that brought it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Whether that starts by itself; absent where it has none here, or a device of the machine starts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What told of it, where no package did: a path in the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Containers of a system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Containers {
    /// What runs containers, in order of name.
    pub runtimes: Vec<ContainerRuntime>,
    /// Images that are kept, in order of storage, then name.
    pub images: Vec<ContainerImage>,
    /// Containers that were made, in order of storage, then name.
    pub containers: Vec<Container>,
}

/// A program that runs containers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerRuntime {
    /// `docker`, `containerd`, `podman`, `cri-o`, `lxc`, `lxd`, `incus`, `kubelet`, `k3s`, `runc`, `crun`…
    pub name: String,
    /// Package that brought it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether its service starts by itself; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Where it keeps images and containers, where that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_directory: Option<String>,
}

/// An image that containers are made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerImage {
    /// Names with tags: `docker.io/library/nginx:1.25`; empty where it has none any more.
    pub names: Vec<String>,
    /// `sha256:…` of its configuration; absent where it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `sha256:…` of its manifest; absent where it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When it was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// Architecture it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// `docker`, `containers-storage`, `containerd`.
    pub storage: String,
    /// Path in the guest that tells of it.
    pub path: String,
    /// containerd's namespace: `k8s.io`, `moby`, `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its whole identifier.
    pub id: String,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Image it was made of, as it was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `running` where it was when the disk was last written, `paused`, `exited`, `created`, `dead`; absent where nothing on the
    /// disk tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Whether it is started with the system: Docker's restart policy (`always`, `unless-stopped`, `on-failure`, `no`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// As ContainerImage.
    pub storage: String,
    /// As ContainerImage.
    pub path: String,
    /// As ContainerImage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Whether it may do all that its host's root may; absent where nothing on the disk tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
}

/// What runs programs of a language.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LanguageRuntime {
    /// `python`, `node`, `ruby`, `java`, `go`, `php`, `perl`, `dotnet`, `rust`, `erlang`.
    pub language: String,
    /// Version.
    pub version: String,
    /// Package that brought it; absent where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Where it is, where no package brought it: `/opt/jdk-21`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A certificate (X.509) and until when it holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// Path in the guest; of Windows the key of its store.
    pub path: String,
    /// Whom it names, as RFC 4514 writes names.
    pub subject: String,
    /// Who signed it, in the same form.
    pub issuer: String,
    /// Serial number in upper-case hexadecimal.
    pub serial: String,
    /// When it begins to hold.
    pub not_before: String,
    /// When it ceases to.
    pub not_after: String,
    /// Kind of its key: `rsa`, `ec`, or the object identifier in hexadecimal.
    pub key_type: String,
    /// Bits of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_bits: Option<u32>,
    /// DNS names it holds for.
    pub dns_names: Vec<String>,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// Whether it is its own issuer.
    pub is_self_signed: bool,
    /// Whether its signature is over MD5 or SHA-1.
    pub is_weakly_signed: bool,
    /// SHA-256 of the whole in lower-case hexadecimal.
    pub sha256: String,
    /// The configuration that names it; absent where it was found by its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_by: Option<String>,
}

/// A command that cron, anacron or at runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CronJob {
    /// When, as it is written: `*/5 * * * *`, `@daily`; for `at` the time in RFC 3339.
    pub schedule: String,
    /// What; `/etc/cron.daily/apt` for a script of such a folder.
    pub command: String,
    /// As whom.
    pub user: String,
    /// `cron`, `anacron`, `at`.
    pub kind: String,
    /// The file that says so.
    pub source: String,
    /// Line in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// An earlier state of a system's root.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Its path from the top level of the file system, such as `@/.snapshots/3/snapshot`.
    pub path: String,
    /// UUID of the subvolume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Whether nothing may be written to it.
    pub read_only: bool,
    /// When it was made, as snapper notes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// What snapper was told it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// snapper's `single`, `pre` or `post`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
}

/// The deployments of an OSTree system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ostree {
    /// The deployment that is reported: the one that starts by default.
    pub deployment: Deployment,
    /// The others that could be started.
    pub others: Vec<Deployment>,
}

/// One deployment: a commit checked out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deployment {
    /// The name its state is kept under (`fedora`, `fedora-coreos`, `default`).
    pub os_name: String,
    /// The commit.
    pub checksum: String,
    /// Number among deployments of the same commit.
    pub serial: u32,
    /// Where updates come from: the refspec or container image of its origin file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// A mounted file system of a guest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mountpoint {
    /// Where it is mounted, such as `/boot`.
    pub path: String,
    /// Device, as in Filesystem.
    pub device: String,
    /// Subvolume that is mounted, as fstab's option `subvol` has it; absent for the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subvolume: Option<String>,
}

/// A drive letter of Windows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriveMapping {
    /// Letter without a colon: `C`.
    pub name: String,
    /// Device, as in Filesystem.
    pub device: String,
}

/// The system: who made it, how it starts, where it stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperatingSystem {
    /// `linux`, `windows`, `freebsd`, `openbsd`, `netbsd`, `dos`.
    pub r#type: String,
    /// Distribution: the `ID` of os-release (`debian`, `rhel`, `opensuse-leap`), or of the distribution's own file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<String>,
    /// `ID_LIKE` of os-release, split.
    pub id_like: Vec<String>,
    /// `PRETTY_NAME`, or the distribution's own line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_name: Option<String>,
    /// Version as the distribution writes it: `12`, `9.4`, `22.04`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// First number of the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_major: Option<u32>,
    /// Second number of the version; where `version` has none, the point release that the distribution writes elsewhere
    /// (/etc/debian_version, /etc/redhat-release), else 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_minor: Option<u32>,
    /// Release code name: `bookworm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codename: Option<String>,
    /// Variant: `VARIANT_ID` of os-release (`server`, `workstation`), or the Windows product variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// `BUILD_ID` of os-release, or the Windows build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Host name with its domain, where the host name has one or /etc/hosts gives it one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<String>,
    /// Content of /etc/machine-id; absent where it is empty or `uninitialized`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// `x86_64`, `i386`, `aarch64`, `arm`, `ppc64le`, `s390x`, `riscv64`… from the ELF header of a program of the guest,
    /// else from the name of its dynamic loader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Kernels installed, newest first.
    pub kernels: Vec<Kernel>,
    /// Version of the kernel that the boot loader starts by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_kernel: Option<String>,
    /// `systemd`, `sysvinit`, `openrc`, `busybox`, `upstart`, `runit`, `s6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_system: Option<String>,
    /// `grub2`, `grub-legacy`, `systemd-boot`, `syslinux`, `extlinux`, `lilo`, `u-boot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_loader: Option<String>,
    /// What the disk is laid out to start from: `bios`, `uefi`, `bios+uefi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Command line of the default kernel, as the boot loader's configuration has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_command_line: Option<String>,
    /// Time zone: `Europe/Prague`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Locale: `en_US.UTF-8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// When the system was installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed_at: Option<String>,
    /// The file that tells `installed_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed_at_source: Option<String>,
    /// The last start that left a trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_boot_at: Option<String>,
    /// The file that tells `last_boot_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_boot_at_source: Option<String>,
    /// `deb`, `rpm`, `apk`, `pacman`, `ebuild`… (virt-inspector's `package_format`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_format: Option<String>,
    /// `apt`, `dnf`, `yum`, `zypper`, `apk`, `pacman`, `portage`… (virt-inspector's `package_management`), and what that does
    /// not know: `tdnf`, `rpm-ostree`, `nix`, `opkg`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_management: Option<String>,
    /// Short id of the published osinfo database: `debian12`, `rhel9.4`, `sle15sp6`; absent for what that does not have.
    /// (virt-inspector makes up some that are not in it; `-o virt-inspector` prints those.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub osinfo: Option<String>,
    /// Home page of the distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_url: Option<String>,
    /// End of support as the guest itself says (`SUPPORT_END` of os-release), a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub support_end: Option<String>,
    /// The files that told the distribution and its version.
    pub sources: Vec<String>,
    /// What only Windows has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowsSystem>,
}

/// What only Windows has: facts of its registry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WindowsSystem {
    /// Folder it is installed in, as the disk writes it: `/Windows`.
    pub system_root: String,
    /// Control set it starts with: `ControlSet001`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_control_set: Option<String>,
    /// `ProductName` as it stands: Windows 11 still calls itself Windows 10 there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_product_name: Option<String>,
    /// `EditionID`: `Professional`, `ServerStandard`, `Enterprise`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edition: Option<String>,
    /// `InstallationType`: `Client`, `Server`, `Server Core`, `Nano Server`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installation_type: Option<String>,
    /// `workstation`, `server`, `domain-controller`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_type: Option<String>,
    /// Feature update: `22H2`, or the older `1809`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_version: Option<String>,
    /// Build with its revision: `19045.3803`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// Where the build comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_lab: Option<String>,
    /// `Service Pack 1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_pack: Option<String>,
    /// Whom it is registered to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_owner: Option<String>,
    /// Which organization it is registered to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered_organization: Option<String>,
    /// Product id; never a product key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_id: Option<String>,
    /// Domain it is a member of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Workgroup, where it is a member of no domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workgroup: Option<String>,
    /// Primary DNS suffix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_domain: Option<String>,
    /// Security identifier of its own accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_sid: Option<String>,
    /// When it was last shut down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_shutdown_at: Option<String>,
    /// It sleeps in hiberfil.sys (hibernation or fast startup): its file systems must not be written; absent where
    /// that file tells nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hibernated: Option<bool>,
    /// Tools and drivers of hypervisors, in order of name.
    pub virtual_drivers: Vec<VirtualDriver>,
}

/// A driver or service that a hypervisor brings to its guests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VirtualDriver {
    /// Name of the service: `vioscsi`, `QEMU-GA`, `VMTools`.
    pub name: String,
    /// `virtio`, `qemu`, `vmware`, `virtualbox`, `hyper-v`, `xen`, `parallels`.
    pub platform: String,
    /// `driver`, `agent`.
    pub kind: String,
    /// As Unit.start_type.
    pub start_type: String,
    /// Its file, as the registry writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// An installed kernel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kernel {
    /// Version as `uname -r` would print it.
    pub version: String,
    /// Its image in the guest, such as `/boot/vmlinuz-6.1.0-18-amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its initial RAM disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// Its modules, such as `/usr/lib/modules/6.1.0-18-amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modules: Option<String>,
    /// Whether it is the one that starts by default; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
}

/// What is installed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Packages {
    /// Package manager of the system: `dpkg`, `rpm`, `apk`, `pacman`, `portage`, `opkg`, `nix`, `xbps`, `pkgtools`; absent
    /// where there is none.
    /// Snaps and flatpaks stand beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager: Option<String>,
    /// Packages that are installed (unpacked and configured, held ones included), those beside the manager's counted;
    /// absent where the manager's database could not be read. The keys that rpm lists as packages (`gpg-pubkey`) count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Sum of the installed sizes, where the database has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed_size_bytes: Option<u64>,
    /// Names of the ten largest installed packages by installed size, largest first; by name where sizes are equal.
    pub top_packages: Vec<String>,
    /// Every entry of the database, in order of name, then architecture, then version; also those that are not installed
    /// any more, told apart by `state`.
    pub packages: Vec<Package>,
    /// The databases that were found, such as `/var/lib/dpkg/status`.
    pub databases: Vec<String>,
}

/// One package.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Database it comes from: `deb`, `rpm`, `apk`, `pacman`, `ebuild`, `opkg`, `nix`, `snap`, `flatpak`, `msi`…
    pub format: String,
    /// `installed`, `config-files`, `half-configured`, `half-installed`, `unpacked`, `triggers-awaited`,
    /// `triggers-pending`, `not-installed`.
    pub state: String,
    /// What the administrator selected, where it says more than the state: `hold`, `deinstall`, `purge`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
    /// The database marks it as needing reinstallation.
    pub reinstall_required: bool,
    /// Epoch, where the version has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Upstream version, without epoch and release.
    pub version: String,
    /// Distribution's release or revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The version as the package manager prints it, epoch and release included.
    pub full_version: String,
    /// Architecture: `amd64`, `all`, `noarch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Source package, where it differs from `name` or is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Version of the source package, where it differs from the package's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// Section or group: `admin`, `System Environment/Base`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// Licence as the database has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Who built or maintains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Home page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// First line of the description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The rest of the description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Bytes it occupies when installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed_size_bytes: Option<u64>,
    /// When it was installed or last upgraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed_at: Option<String>,
    /// Package URL, as the purl specification (package-url/purl-spec) has it; absent for kinds it has no type for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purl: Option<String>,
    /// Who packaged it, where that is told apart from `vendor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packager: Option<String>,
    /// When it was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub built_at: Option<String>,
    /// Module it was built in, as rpm's modularity label has it: `perl:5.32:8060020220302142125:9fe1d287`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Folder it was installed to, where it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install_path: Option<String>,
    /// Where it came from: the channel of a snap, the remote of a flatpak, the repository of an ebuild.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Name as Windows shows it in its list of programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Account that it is installed for; absent where it is for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What starts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Services {
    /// Managers met: `systemd`, `sysv`, `openrc`.
    pub managers: Vec<String>,
    /// Services in all, of every manager; aliases are not counted.
    pub count: u64,
    /// Names of services that start by themselves: `state` is `enabled`, `enabled-runtime`, `generated` or `transient`.
    pub enabled: Vec<String>,
    /// Names of services that cannot be started: `state` is `masked` or `masked-runtime`.
    pub masked: Vec<String>,
    /// Names of timers that are enabled.
    pub enabled_timers: Vec<String>,
    /// Names of sockets that are enabled.
    pub enabled_sockets: Vec<String>,
    /// Everything, in order of name.
    pub units: Vec<Unit>,
    /// Target that the system starts into: `graphical.target`, or the SysV run level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_target: Option<String>,
    /// Names of services that the last start left running; empty, as `failed`, where `state_source` is absent.
    pub active: Vec<String>,
    /// Names of services that failed in the last start.
    pub failed: Vec<String>,
    /// The journal that tells of units' states; absent where nothing on the disk does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_source: Option<String>,
    /// Commands of cron, anacron and at, in order of file, then line.
    pub cron_jobs: Vec<CronJob>,
    /// Tasks of the Task Scheduler, in order of path.
    pub scheduled_tasks: Vec<ScheduledTask>,
    /// Commands that Windows runs when it starts or somebody logs on (Run keys, Winlogon).
    pub startup_commands: Vec<StartupCommand>,
}

/// A systemd unit, a SysV script or an OpenRC service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unit {
    /// Name with its suffix, `ssh.service`; for SysV and OpenRC the script's name.
    pub name: String,
    /// `service`, `timer`, `socket`, `target`, `mount`, `automount`, `swap`, `path`, `slice`, `scope`, `device`.
    pub kind: String,
    /// `systemd`, `sysv`, `openrc`.
    pub manager: String,
    /// As `systemctl --root list-unit-files` prints it: `enabled`, `enabled-runtime`, `disabled`, `static`, `masked`,
    /// `masked-runtime`, `alias`, `indirect`, `generated`, `transient`, `linked`, `linked-runtime`, `bad`.
    pub state: String,
    /// What presets say: `enabled`, `disabled`, `ignored`; absent for states to which presets do not apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Unit file, or link to it, in the guest.
    pub path: String,
    /// The unit an alias points to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias_of: Option<String>,
    /// Units, run levels or targets that pull it in through links on the disk.
    pub wanted_by: Vec<String>,
    /// Drop-in files that change it, in the order they apply.
    pub drop_ins: Vec<String>,
    /// `Description`, or the header of a script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// First `ExecStart` of a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_start: Option<String>,
    /// Account it runs as, where it says one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `OnCalendar`, `OnBootSec`… of a timer, `ListenStream`… of a socket, as `Key=value`.
    pub triggers: Vec<String>,
    /// Whether it was active when the disk was taken; absent where nothing on the disk tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_state: Option<String>,
    /// When Windows starts it: `boot`, `system`, `automatic`, `automatic-delayed`, `manual`, `disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_type: Option<String>,
    /// Name as Windows shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Library that a shared process runs for it (`ServiceDll`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
    /// Services that Windows starts before it.
    pub depends_on: Vec<String>,
}

/// A task of the Task Scheduler.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduledTask {
    /// Path in the scheduler: `\Microsoft\Windows\Defrag\ScheduledDefrag`.
    pub path: String,
    /// Whether it runs; absent where nothing tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Programs it runs, with their arguments; `com:` and a class for handlers.
    pub commands: Vec<String>,
    /// Kinds of its triggers: `calendar`, `boot`, `logon`, `time`, `idle`, `event`, `registration`, `session-state`.
    pub triggers: Vec<String>,
    /// Account it runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as: Option<String>,
    /// `least-privilege`, `highest-available`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_level: Option<String>,
    /// File or registry key it stands in.
    pub source: String,
}

/// A command that runs at a start or logon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartupCommand {
    /// Name of the value.
    pub name: String,
    /// The command.
    pub command: String,
    /// Registry key it stands in.
    pub source: String,
    /// Account whose logon it is; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Accounts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Users {
    /// Accounts in /etc/passwd.
    pub count: u64,
    /// Accounts that can open a session: their shell does not end it at once, and they have a usable password (or none) or
    /// an authorized key.
    pub login_users: Vec<String>,
    /// The accounts, in file order.
    pub users: Vec<User>,
    /// The groups, in file order.
    pub groups: Vec<Group>,
    /// Rules of sudoers, in the order they are read; the last that matches wins.
    pub sudo_rules: Vec<SudoRule>,
    /// `Defaults` of sudoers, in the order they are read.
    pub sudo_defaults: Vec<SudoDefault>,
    /// Aliases of sudoers.
    pub sudo_aliases: Vec<SudoAlias>,
    /// Contradictions in the account files, as pwck and grpck look for them.
    pub problems: Vec<AccountProblem>,
    /// What Windows asks of the passwords of its own accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<AccountPolicy>,
}

/// One account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Numeric user id (Windows: relative id).
    pub uid: u64,
    /// Numeric id of the primary group.
    pub gid: u64,
    /// Full name and further GECOS fields as they stand.
    pub gecos: String,
    /// Home directory.
    pub home: String,
    /// Login shell; empty means /bin/sh.
    pub shell: String,
    /// Names of the groups it is in, primary first.
    pub groups: Vec<String>,
    /// `set`, `empty` (logs in without a password), `locked` (a password behind `!`), `disabled` (`*` or `!`: no password
    /// can match), `unknown` (no shadow entry).
    pub password_state: String,
    /// Algorithm of the password's hash: `yescrypt`, `sha512crypt`, `sha256crypt`, `bcrypt`, `md5crypt`, `descrypt`…;
    /// never the hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_algorithm: Option<String>,
    /// Password cannot be used: `locked` or `disabled`.
    pub locked: bool,
    /// Day of the last change of the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_changed_on: Option<String>,
    /// The password must be changed at the next login.
    pub password_change_required: bool,
    /// Days before it may be changed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_min_days: Option<i64>,
    /// Days after which it must be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_max_days: Option<i64>,
    /// Days of warning before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_warn_days: Option<i64>,
    /// Days after expiry until the account is shut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_inactive_days: Option<i64>,
    /// Day on which the account expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_on: Option<String>,
    /// Whether a sudo rule gives this account, or a group it is in, any command.
    pub sudo: bool,
    /// Keys that may log in.
    pub authorized_keys: Vec<AuthorizedKey>,
    /// Last login that left a trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_login_at: Option<String>,
    /// Security identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// What the administrator noted of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Flags of the Windows account: `disabled`, `locked-out`, `password-not-required`, `password-never-expires`,
    /// `smartcard-required`…
    pub flags: Vec<String>,
    /// Logins counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_count: Option<u32>,
    /// Wrong passwords since the last login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_password_count: Option<u32>,
}

/// A key of an authorized_keys file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorizedKey {
    /// File in the guest.
    pub path: String,
    /// `ssh-ed25519`, `ssh-rsa`…
    pub r#type: String,
    /// Size of the key in bits, where the type leaves it open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
    /// `SHA256:…` as `ssh-keygen -lf` prints it.
    pub fingerprint: String,
    /// Comment after the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Options before the key, such as `command="…"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
}

/// One group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Numeric id.
    pub gid: u64,
    /// Members listed in /etc/group.
    pub members: Vec<String>,
    /// Administrators listed in /etc/gshadow.
    pub administrators: Vec<String>,
    /// Whether a group password is set.
    pub has_password: bool,
    /// Security identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// What it is for, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// What Windows asks of passwords. Zero means that nothing is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccountPolicy {
    /// Characters at least.
    pub password_min_length: u32,
    /// Earlier passwords that may not be used again.
    pub password_history: u32,
    /// Days after which it must be changed; absent for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_max_days: Option<u32>,
    /// Days before it may be changed again.
    pub password_min_days: u32,
    /// Letters of several kinds are asked for.
    pub password_complexity: bool,
    /// Passwords are kept so that they can be read again.
    pub password_reversible: bool,
    /// Wrong passwords after which an account is locked.
    pub lockout_threshold: u32,
    /// Minutes until it is opened again; absent where an administrator must do that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lockout_minutes: Option<u32>,
    /// Minutes within which wrong passwords are counted.
    pub lockout_window_minutes: u32,
}

/// One user specification of sudoers, one entry for each command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SudoRule {
    /// File and line it stands on, `/etc/sudoers:27`.
    pub source: String,
    /// Who: user names, `%group`, `#uid`, `+netgroup`, aliases, `ALL`; `!` negates.
    pub users: Vec<String>,
    /// On which hosts.
    pub hosts: Vec<String>,
    /// As which users; empty means root.
    pub run_as_users: Vec<String>,
    /// As which groups.
    pub run_as_groups: Vec<String>,
    /// The command with its arguments, `ALL`, or an alias; `!` negates.
    pub command: String,
    /// Tags in force: `NOPASSWD`, `SETENV`, `NOEXEC`…
    pub tags: Vec<String>,
    /// Options in force, as written: `CWD=/tmp`, `TIMEOUT=10m`, `ROLE=…` (sudoers(5), "Option_Spec").
    pub options: Vec<String>,
}

/// One setting of a `Defaults` line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SudoDefault {
    /// File and line.
    pub source: String,
    /// Whom it binds: `@host`, `:user`, `!command`, `>runas`; empty for everybody.
    pub scope: String,
    /// Setting, such as `env_reset`.
    pub name: String,
    /// `=`, `+=`, `-=`, `!` (switched off), or empty (switched on).
    pub operator: String,
    /// Value, without quotes.
    pub value: String,
}

/// An alias of sudoers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SudoAlias {
    /// `user`, `runas`, `host`, `command`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub members: Vec<String>,
}

/// A contradiction in the account files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccountProblem {
    /// File: `/etc/passwd`, `/etc/shadow`, `/etc/group`, `/etc/gshadow`.
    pub file: String,
    /// The account or group, or the line where it has no name.
    pub subject: String,
    /// `duplicate-name`, `duplicate-id`, `missing-home`, `missing-shell`, `missing-group`, `missing-user`,
    /// `missing-entry`, `invalid-name`, `invalid-line`, `future-change`.
    pub problem: String,
    /// What is meant, in words.
    pub detail: String,
}

/// How the guest is set to reach the network. Addresses are as configured, not as they were at run time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Host name from the guest's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What manages the network, as far as configuration is found: `ifupdown`, `netplan`, `network-manager`, `ifcfg`,
    /// `systemd-networkd`.
    pub managers: Vec<String>,
    /// Interfaces that configuration names, in order of name.
    pub interfaces: Vec<NetworkInterface>,
    /// Lines of /etc/hosts.
    pub hosts: Vec<HostsEntry>,
    /// resolv.conf: name servers.
    pub dns_servers: Vec<String>,
    /// resolv.conf: search domains.
    pub dns_search: Vec<String>,
    /// resolv.conf: where it points when it is a link, such as `../run/systemd/resolve/stub-resolv.conf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolv_conf_target: Option<String>,
    /// DHCP leases that stand on the disk.
    pub leases: Vec<DhcpLease>,
    /// Names that udev rules fix to hardware addresses.
    pub persistent_names: Vec<PersistentName>,
}

/// One interface of one configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkInterface {
    /// Name, or the pattern the configuration matches with.
    pub name: String,
    /// `ethernet`, `loopback`, `bond`, `bridge`, `vlan`, `wifi`, `tunnel`, `dummy`; absent where it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Which manager's configuration it is.
    pub manager: String,
    /// File it comes from.
    pub source: String,
    /// Whether addresses come by DHCPv4.
    pub dhcp4: bool,
    /// Whether addresses come by DHCPv6.
    pub dhcp6: bool,
    /// Static addresses with their prefix length, `192.0.2.10/24`.
    pub addresses: Vec<String>,
    /// Default gateways.
    pub gateways: Vec<String>,
    /// Name servers of this interface.
    pub dns_servers: Vec<String>,
    /// Search domains of this interface.
    pub dns_search: Vec<String>,
    /// Other routes as `destination via gateway`.
    pub routes: Vec<String>,
    /// Hardware address that the configuration sets or matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Maximum transmission unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether it comes up by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic: Option<bool>,
    /// Members of a bond or bridge.
    pub members: Vec<String>,
    /// VLAN id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_id: Option<u32>,
    /// Parent of a VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Identifier of the adapter in Windows, a GUID in braces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What the adapter is, as its driver says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A line of /etc/hosts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostsEntry {
    /// Address.
    pub address: String,
    /// Names.
    pub names: Vec<String>,
}

/// A DHCP lease as a client kept it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DhcpLease {
    /// Interface, where the lease tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Address.
    pub address: String,
    /// Routers.
    pub routers: Vec<String>,
    /// Name servers.
    pub dns_servers: Vec<String>,
    /// Address of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// File it stands in.
    pub source: String,
}

/// An interface name bound to hardware by a udev rule or a .link file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PersistentName {
    /// The name.
    pub name: String,
    /// Hardware address it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// File it stands in.
    pub source: String,
}

/// How the guest is set to defend itself: configuration, not run-time state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// SELinux; absent where it is not configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<Selinux>,
    /// AppArmor; absent where it is not installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<Apparmor>,
    /// Firewalls found.
    pub firewalls: Vec<Firewall>,
    /// The SSH server; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshServer>,
    /// PAM; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pam: Option<Pam>,
    /// Linux audit; absent where it is not installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auditd: Option<Auditd>,
    /// Command line of the default kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_command_line: Option<String>,
    /// Kernel settings that sysctl.d would apply at start, in order of key.
    pub sysctls: Vec<Sysctl>,
    /// Hints at Secure Boot: a signed shim in the EFI system partition, enrolled owner keys; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<SecureBoot>,
    /// Certificates that services are set to use, and those in the places where they are kept; trusted authorities are not
    /// among them. In order of path.
    pub certificates: Vec<Certificate>,
    /// What only Windows has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowsSecurity>,
}

/// How Windows is set to defend itself. What a policy sets wins over what is set locally; what nothing sets is
/// absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WindowsSecurity {
    /// Profiles of the Windows Firewall.
    pub firewall_profiles: Vec<FirewallProfile>,
    /// Microsoft Defender; absent where it is not installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defender: Option<Defender>,
    /// User Account Control.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_account_control: Option<UserAccountControl>,
    /// Remote Desktop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_desktop: Option<RemoteDesktop>,
    /// Devices of this disk that BitLocker encrypts.
    pub bitlocker_devices: Vec<String>,
    /// What is audited; of older systems one entry for each category.
    pub audit_policy: Vec<AuditSetting>,
    /// Whether it last started with Secure Boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
    /// Whether its SMB 1 server is on; absent where the default of the build decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smb1_server: Option<bool>,
    /// Whether its SMB server asks for signatures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smb_signing_required: Option<bool>,
    /// `LmCompatibilityLevel`: which generations of NTLM are sent and taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lm_compatibility_level: Option<u32>,
    /// Whether the local security authority runs protected (`RunAsPPL`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsa_protection: Option<bool>,
    /// Whether security based on virtualization is switched on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtualization_based_security: Option<bool>,
    /// Whether somebody is logged on at each start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_logon: Option<bool>,
    /// Who that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_logon_user: Option<String>,
    /// Whether the password for it stands in the registry as it is; it is not told here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_logon_password_stored: Option<bool>,
    /// Which scripts PowerShell runs: `RemoteSigned`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub powershell_execution_policy: Option<String>,
    /// `disabled`, `notify`, `download`, `install`, `local-admin`; absent where nothing sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_updates: Option<String>,
}

/// A profile of the Windows Firewall.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FirewallProfile {
    /// `domain`, `private`, `public`.
    pub name: String,
    /// Whether it filters.
    pub enabled: bool,
    /// What happens to connections that no rule names: `block`, `allow`.
    pub default_inbound: String,
    /// The same for connections from here.
    pub default_outbound: String,
    /// Registry key that decides whether it filters.
    pub source: String,
}

/// Microsoft Defender.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Defender {
    /// When its service starts, as Unit.start_type.
    pub start_type: String,
    /// Switched off as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Files are not watched as they are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real_time_disabled: Option<bool>,
    /// Its settings are protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tamper_protection: Option<bool>,
    /// Version of its engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// Version of its signatures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature_version: Option<String>,
    /// When its signatures were last applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signatures_at: Option<String>,
    /// What it does not look at: paths, extensions, processes.
    pub exclusions: Vec<String>,
}

/// User Account Control.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserAccountControl {
    /// Whether administrators work without their rights until they ask (`EnableLUA`).
    pub enabled: bool,
    /// `ConsentPromptBehaviorAdmin`: 0 never asks, 5 asks for what is not of Windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_prompt: Option<u32>,
    /// `ConsentPromptBehaviorUser`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_prompt: Option<u32>,
    /// Whether it asks on a desktop of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_desktop: Option<bool>,
    /// Whether local administrators have all rights over the network (`LocalAccountTokenFilterPolicy`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_admin_unfiltered: Option<bool>,
}

/// Remote Desktop.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoteDesktop {
    /// Whether connections are taken.
    pub enabled: bool,
    /// Whether users must prove who they are before a session begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_level_authentication: Option<bool>,
    /// Port.
    pub port: u32,
    /// 0 RDP, 1 negotiated, 2 TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_layer: Option<u32>,
}

/// What is audited of one kind of event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditSetting {
    /// `Logon/Logoff`.
    pub category: String,
    /// `Account Lockout`; absent where the whole category is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subcategory: Option<String>,
    /// What succeeds is audited.
    pub success: bool,
    /// What fails is audited.
    pub failure: bool,
}

/// SELinux as /etc/selinux/config sets it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selinux {
    /// `enforcing`, `permissive`, `disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `targeted`, `mls`, `default`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Whether the files of that policy are on the disk.
    pub policy_installed: bool,
}

/// AppArmor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Apparmor {
    /// Whether its service is enabled.
    pub enabled: bool,
    /// Profiles in /etc/apparmor.d, by file name.
    pub profiles: Vec<String>,
    /// Those that are linked in /etc/apparmor.d/disable.
    pub disabled: Vec<String>,
    /// Those in complain mode: linked in /etc/apparmor.d/force-complain, or by the flags of their own profile.
    pub complain: Vec<String>,
}

/// One firewall.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Firewall {
    /// `nftables`, `iptables`, `ufw`, `firewalld`.
    pub r#type: String,
    /// Whether it is loaded at start.
    pub enabled: bool,
    /// Rules that judge packets, in its configuration; absent where they cannot be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<u64>,
    /// Default policies as `input=drop`, where they are stated.
    pub default_policies: Vec<String>,
    /// Default zone of firewalld.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_zone: Option<String>,
    /// Files they come from.
    pub sources: Vec<String>,
}

/// The effective configuration of an OpenSSH server, as `sshd -T` prints it without a connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SshServer {
    /// Whether the server or its socket is enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Version of the installed package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The settings, in order of key; empty where `errors` says why the server would not start. Of Match blocks only
    /// `Match all` takes part. Algorithm lists compiled into the server are told for builds whose lists are known.
    pub settings: Vec<SshSetting>,
    /// Conditions of Match blocks, in order.
    pub match_blocks: Vec<String>,
    /// Why the server would refuse to start with this configuration.
    pub errors: Vec<String>,
    /// Files read, in order.
    pub sources: Vec<String>,
}

/// One setting of the SSH server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SshSetting {
    /// Keyword in lower case.
    pub key: String,
    /// Value; several values of one keyword are several entries.
    pub value: String,
    /// Where it stands, `/etc/ssh/sshd_config:33`, or `default`.
    pub source: String,
}

/// PAM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pam {
    /// Service files in /etc/pam.d.
    pub services: Vec<String>,
    /// Modules that the common stacks use, in order of name.
    pub modules: Vec<String>,
    /// Whether pam_pwquality or pam_cracklib stands in a password stack.
    pub password_quality: bool,
    /// Whether pam_faillock or pam_tally2 stands in an auth stack.
    pub lockout: bool,
    /// Whether pam_unix accepts empty passwords (`nullok`).
    pub empty_passwords: bool,
    /// Algorithm that pam_unix makes new hashes with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_algorithm: Option<String>,
}

/// Linux audit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Auditd {
    /// Whether its service is enabled.
    pub enabled: bool,
    /// Rules in /etc/audit/rules.d or /etc/audit/audit.rules.
    pub rules: u64,
}

/// One kernel setting.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sysctl {
    /// Key with dots.
    pub key: String,
    /// Value.
    pub value: String,
    /// File that wins.
    pub source: String,
}

/// Hints at Secure Boot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecureBoot {
    /// A shim stands in the EFI system partition.
    pub shim: bool,
    /// A signed kernel or boot-loader package is installed.
    pub signed_boot_packages: bool,
    /// A machine owner key stands on the disk.
    pub machine_owner_key: bool,
}

/// Where the guest keeps its data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// Lines of /etc/fstab, in file order.
    pub fstab: Vec<FstabEntry>,
    /// Lines of /etc/crypttab.
    pub crypttab: Vec<CrypttabEntry>,
    /// Swap areas and files.
    pub swap: Vec<SwapArea>,
    /// The mounted file systems with their usage.
    pub mounts: Vec<MountUsage>,
    /// Volume groups of all the machine's disks.
    pub volume_groups: Vec<VolumeGroup>,
    /// Software RAID arrays of all the machine's disks.
    pub arrays: Vec<Array>,
    /// Volumes that Windows knows by a letter or a folder, on this disk or not.
    pub volumes: Vec<WindowsVolume>,
}

/// A volume that Windows has given a name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WindowsVolume {
    /// Letter with a colon, `C:`, or `\\?\Volume{…}`.
    pub name: String,
    /// Device of this disk; absent where it is none of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What the registry says it is: `mbr DISK OFFSET`, `gpt GUID`, or the path of a removable device.
    pub target: String,
}

/// A line of /etc/fstab.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FstabEntry {
    /// First field, `UUID=…`, unescaped.
    pub spec: String,
    /// The device of this disk it stands for; absent where none was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Where it is mounted; `none` for swap.
    pub path: String,
    /// Type as written.
    pub r#type: String,
    /// Options, split.
    pub options: Vec<String>,
    /// Fifth field.
    pub dump: u32,
    /// Sixth field.
    pub pass: u32,
}

/// A line of /etc/crypttab.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CrypttabEntry {
    /// Name of the mapped device.
    pub name: String,
    /// Underlying device as written.
    pub spec: String,
    /// The device of this disk it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Whether a key file is named (its path is in `key_file`), else a passphrase is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Options, split.
    pub options: Vec<String>,
}

/// A swap area.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SwapArea {
    /// Device or file.
    pub path: String,
    /// `partition`, `file`.
    pub kind: String,
    /// Bytes, where it is on this disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Whether fstab switches it on.
    pub in_fstab: bool,
}

/// A mounted file system and how full it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountUsage {
    /// Where it is mounted.
    pub path: String,
    /// Device.
    pub device: String,
    /// Type.
    pub r#type: String,
    /// Bytes in all.
    pub size_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes not in use.
    pub free_bytes: u64,
    /// Used part in per cent, 0 to 100.
    pub used_percent: f64,
    /// Inodes in all, where the number is fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    /// Inodes in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes_used: Option<u64>,
}

/// Database servers and files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Databases {
    /// Those found, in order of engine, then data directory.
    pub databases: Vec<Database>,
}

/// One database.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Database {
    /// `postgresql`, `mysql`, `mariadb`, `mongodb`, `redis`, `valkey`, `sqlite`, `etcd`, `influxdb`, `elasticsearch`,
    /// `opensearch`, `oracle`, `mssql`.
    pub engine: String,
    /// Version: of the data directory where it tells, else of the package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Package that brought it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Data directory, or the file for SQLite (those are listed with `deep_scan` alone).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_directory: Option<String>,
    /// Whether the data directory holds data (its marker file stands there).
    pub initialized: bool,
    /// Port it is set to listen on, stated or the engine's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Addresses it is set to listen on.
    pub listen_addresses: Vec<String>,
    /// Whether its service is enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Bytes of the data directory's files; measured only with `deep_scan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// What told of it: `package`, `config`, `data`.
    pub evidence: Vec<String>,
    /// Name of the instance, where one engine has several: `MSSQLSERVER`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Edition: `Standard Edition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edition: Option<String>,
}

/// What a walk over every file of the mounted file systems found. Paths are in byte order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeepScan {
    /// Files met, directories included.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of content of regular files, each inode once.
    pub content_bytes: u64,
    /// Regular files with the set-user-id or set-group-id bit.
    pub setuid_files: Vec<FileFact>,
    /// Regular files that everybody may write.
    pub world_writable_files: Vec<FileFact>,
    /// Directories that everybody may write and that are not sticky.
    pub world_writable_directories: Vec<FileFact>,
    /// Files whose owner or group is in no account file.
    pub unowned_files: Vec<FileFact>,
    /// SQLite database files, by their header.
    pub sqlite_files: Vec<FileFact>,
    /// Packages of programming languages (`format`: `pypi`, `npm`, `gem`, `cargo`, `golang`, `maven`), in order of the file
    /// that tells of each, which `install_path` names.
    pub language_packages: Vec<Package>,
    /// Certificates anywhere (`.pem`, `.crt`, `.cer`, `.der`), the bundles of trusted authorities that the system brings left
    /// out.
    pub certificates: Vec<Certificate>,
}

/// A file and who may use it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileFact {
    /// Path in the guest.
    pub path: String,
    /// Mode in octal with set-user-id, set-group-id and sticky: `4755`.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content.
    pub size_bytes: u64,
}
