//! A guest as the checks see it: what the inspection found, and what only profiles ask, read once and when it is first asked.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use crate::disk::Disk;
use crate::guest::linux::files::Files;
use crate::guest::linux::security;
use crate::guest::report::{
    Filesystem, GuestSystem, ImageInfo, Package, PartitionTable, Services, SshServer, Unit, User,
};
use crate::guest::roots::Root;
use crate::guest::windows::hives::Hives;

use super::ProfileOptions;
use super::kernel_log::KernelLog;
use super::report::Evidence;
use super::walk::Walk;

/// Why nobody knows what is installed.
pub(crate) const NO_PACKAGE_DATABASE: &str = "no package database could be read";

/// One system of a disk.
pub(crate) struct Guest<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) root: &'a Root,
    pub(crate) image: &'a ImageInfo,
    pub(crate) partition_table: Option<&'a PartitionTable>,
    /// Every file system of the disk.
    pub(crate) filesystems: &'a [Filesystem],
    /// How many systems the disk has.
    pub(crate) systems: usize,
    pub(crate) files: &'a Files<'a>,
    /// The inspection's report of it.
    pub(crate) system: &'a GuestSystem,
    /// The registry, of Windows.
    pub(crate) hives: Option<&'a Hives<'a>>,
    pub(crate) options: &'a ProfileOptions,
    /// Seconds since 1970 against which ages are judged.
    pub(crate) reference_time: i64,
    walk: OnceCell<Walk>,
    initramfs: OnceCell<Result<BTreeSet<String>, String>>,
    modules: OnceCell<Vec<Modules>>,
    kernel_log: OnceCell<KernelLog>,
}

/// Names of a kernel's modules, `-` written as `_`.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// Those that it can load; `None` where its list cannot be read.
    pub(crate) loadable: Option<BTreeSet<String>>,
    /// Those that are part of it.
    pub(crate) built_in: BTreeSet<String>,
}

/// What a guest is made of.
pub(crate) struct Parts<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) root: &'a Root,
    pub(crate) image: &'a ImageInfo,
    pub(crate) partition_table: Option<&'a PartitionTable>,
    pub(crate) filesystems: &'a [Filesystem],
    pub(crate) systems: usize,
    pub(crate) files: &'a Files<'a>,
    pub(crate) system: &'a GuestSystem,
    pub(crate) hives: Option<&'a Hives<'a>>,
    pub(crate) options: &'a ProfileOptions,
    pub(crate) reference_time: i64,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(parts: Parts<'a>) -> Self {
        let Parts { disk, root, image, partition_table, filesystems, systems, files, .. } = parts;
        let Parts { system, hives, options, reference_time, .. } = parts;
        let (walk, initramfs, modules, kernel_log) = Default::default();
        Self {
            disk,
            root,
            image,
            partition_table,
            filesystems,
            systems,
            files,
            system,
            hives,
            options,
            reference_time,
            walk,
            initramfs,
            modules,
            kernel_log,
        }
    }

    pub(crate) fn is_windows(&self) -> bool {
        self.root.system_root.is_some()
    }

    /// Names of its family that rules apply to: `linux`, `debian`, `ubuntu`, `rhel`, `fedora`, `suse`, `windows`.
    pub(crate) fn families(&self) -> Vec<&'static str> {
        if self.is_windows() {
            return vec!["windows"];
        }
        let os = &self.system.operating_system;
        let like = |name: &str| os.distribution.as_deref() == Some(name) || os.id_like.iter().any(|id| id == name);
        let mut families = vec!["linux"];
        let known: [(&str, &[&str]); 5] = [
            ("debian", &["debian"]),
            ("ubuntu", &["ubuntu"]),
            ("rhel", &["rhel", "centos", "almalinux", "rocky", "ol", "oraclelinux", "amzn"]),
            ("fedora", &["fedora"]),
            ("suse", &["suse", "opensuse", "sles", "sled", "opensuse-leap", "opensuse-tumbleweed"]),
        ];
        families.extend(known.iter().filter(|(_, names)| names.iter().any(|name| like(name))).map(|(name, _)| *name));
        families
    }

    /// The packages that are installed, where their databases could be read.
    pub(crate) fn packages(&self) -> Option<impl Iterator<Item = &'a Package>> {
        let packages = self.system.packages.as_ref()?;
        // A system without any package database has no packages that are known; its count says so.
        packages.count?;
        Some(packages.packages.iter().filter(|package| package.state == "installed"))
    }

    /// The first of `names` that is installed; `None` where none is, or nothing is known.
    pub(crate) fn installed(&self, names: &[&str]) -> Option<&'a Package> {
        self.packages()?.find(|package| names.contains(&package.name.as_str()))
    }

    /// What tells that a program is installed: one of its packages, or one of its files where no package database could be read.
    /// `None` where a database has none of them; an error, the reason, where nothing tells.
    pub(crate) fn presence(&self, packages: &[&str], files: &[&str]) -> Result<Option<Evidence>, &'static str> {
        if self.packages().is_some() {
            let found = self.installed(packages);
            return Ok(
                found.map(|found| Evidence::explicit(self.package_database(), &*found.name, &*found.full_version))
            );
        }
        match files.iter().find(|path| self.files.exists(path)) {
            Some(path) => Ok(Some(Evidence::metadata(*path, "file", "present"))),
            None => Err(NO_PACKAGE_DATABASE),
        }
    }

    /// Where the packages stand in the guest.
    pub(crate) fn package_database(&self) -> &'a str {
        let packages = self.system.packages.as_ref();
        packages.and_then(|packages| packages.databases.first()).map_or("package database", String::as_str)
    }

    pub(crate) fn services(&self) -> Option<&'a Services> {
        self.system.services.as_ref()
    }

    pub(crate) fn unit(&self, name: &str) -> Option<&'a Unit> {
        self.services()?.units.iter().find(|unit| unit.name == name)
    }

    /// Whether the unit, script or service starts with the system.
    pub(crate) fn is_enabled(&self, name: &str) -> bool {
        self.services().is_some_and(|services| {
            let mut listed =
                [&services.enabled, &services.enabled_sockets, &services.enabled_timers].into_iter().flatten();
            listed.any(|known| known == name) || security::is_enabled(services, name)
        })
    }

    pub(crate) fn users(&self) -> &'a [User] {
        self.system.users.as_ref().map_or(&[], |users| &users.users)
    }

    pub(crate) fn ssh(&self) -> Option<&'a SshServer> {
        self.system.security.as_ref()?.ssh.as_ref()
    }

    /// Whether a kernel is installed: a tree without one is a container's, or a template.
    pub(crate) fn has_kernel(&self) -> bool {
        !self.system.operating_system.kernels.is_empty()
    }

    /// One walk over the whole tree, shared by every check that needs one.
    pub(crate) fn walk(&self) -> &Walk {
        self.walk.get_or_init(|| Walk::over(self))
    }

    /// The modules in the initial RAM disk at `path`, which is the one that starts by default, as far as `wanted`, which is the
    /// same in every call, asks for them; or why they are not known.
    pub(crate) fn initramfs_modules(&self, path: &str, wanted: &BTreeSet<&str>) -> &Result<BTreeSet<String>, String> {
        self.initramfs.get_or_init(|| super::initramfs::modules(self.files, path, wanted))
    }

    /// The modules of each kernel that is installed, in their order.
    pub(crate) fn modules(&self) -> &[Modules] {
        // A module's path up to what compresses it; in `modules.dep` what it needs follows.
        let base = |line: &str| {
            let path = line.split(':').next()?;
            Some(path.rsplit('/').next()?.split(".ko").next()?.replace('-', "_"))
        };
        let named = |folder: &str, list: &str| -> Option<BTreeSet<String>> {
            Some(self.files.text(&format!("{folder}/{list}"))?.lines().filter_map(base).collect())
        };
        let of = |folder: &str| Modules {
            loadable: named(folder, "modules.dep"),
            built_in: named(folder, "modules.builtin").unwrap_or_default(),
        };
        self.modules.get_or_init(|| {
            let kernels = self.system.operating_system.kernels.iter();
            kernels.map(|kernel| kernel.modules.as_deref().map(of).unwrap_or_default()).collect()
        })
    }

    /// What the kernel wrote, as far as it was kept.
    pub(crate) fn kernel_log(&self) -> &KernelLog {
        self.kernel_log.get_or_init(|| KernelLog::read(self.files))
    }

    /// Why the walk is not whole, where there was one and it is not.
    pub(crate) fn walk_problem(&self) -> Option<String> {
        self.walk.get().and_then(|walk| walk.incomplete.clone())
    }
}
