//! An inspection: every file system looked at once, every system found, the modules that were asked for one after another.
//! A module that fails leaves a warning and nothing else; the rest of the report stands.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::disk::{Device, Disk};
use crate::filesystem::SharedFileSystem;
use crate::guest::linux::{self, Module};
use crate::guest::overview::Overview;
use crate::guest::report::{
    Filesystem, ImageFile, ImageInfo, InspectReport, InspectSummary, Partition, PartitionTable, Warning,
};
use crate::guest::roots::{self, DeviceNames};
use crate::guest::windows;

/// Version of the report's shape: what is in it keeps its meaning as long as this stays.
const REPORT_VERSION: &str = "1.0";

/// What to look at. [`InspectOptions::default`] is the default of the job protocol: everything but databases and the walk
/// over every file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectOptions {
    /// Walk over every file: set-user-id files, files everybody may write, SQLite files, sizes of databases.
    pub deep_scan: bool,
    /// Installed packages.
    pub packages: bool,
    /// Services, timers, sockets.
    pub services: bool,
    /// Accounts and who may become whom.
    pub users: bool,
    /// Network configuration.
    pub network: bool,
    /// Security configuration.
    pub security: bool,
    /// Partitions, mounts, usage.
    pub storage: bool,
    /// Database servers.
    pub databases: bool,
}

impl Default for InspectOptions {
    fn default() -> Self {
        Self {
            deep_scan: false,
            packages: true,
            services: true,
            users: true,
            network: true,
            security: true,
            storage: true,
            databases: false,
        }
    }
}

impl InspectOptions {
    /// The modules, in the order they run.
    pub(crate) fn modules(&self) -> Vec<Module> {
        let asked = [
            (true, Module::OperatingSystem),
            (self.packages, Module::Packages),
            (self.services, Module::Services),
            (self.users, Module::Users),
            (self.network, Module::Network),
            (self.security, Module::Security),
            (self.storage, Module::Storage),
            (self.databases, Module::Databases),
            (self.deep_scan, Module::DeepScan),
        ];
        asked.into_iter().filter(|(asked, _)| *asked).map(|(_, module)| module).collect()
    }
}

/// Where an inspection stands. `done` of `total` steps are behind it when the event is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `inspection` before file systems and systems are looked for, the name of each module after it, then `analysis`.
    pub phase: &'static str,
    /// What begins now, or what a module found: `packages: 1,204 dpkg`.
    pub message: String,
    /// Steps that are done.
    pub done: u32,
    /// Steps in all, as far as is known.
    pub total: u32,
}

/// Who is told how far an inspection is.
pub trait Progress {
    /// A step begins or has ended.
    fn on_event(&mut self, event: &Event);
}

/// Nobody is told.
impl Progress for () {
    fn on_event(&mut self, _: &Event) {}
}

/// Events to a function.
impl<F: FnMut(&Event)> Progress for F {
    fn on_event(&mut self, event: &Event) {
        self(event);
    }
}

impl Disk {
    /// Looks at everything that `options` ask for. What cannot be read is in the report's warnings; a disk without an
    /// operating system gives a report without systems.
    pub fn inspect(&self, options: &InspectOptions, progress: &mut dyn Progress) -> InspectReport {
        let started = Instant::now();
        let mut report =
            InspectReport { version: REPORT_VERSION.to_owned(), image: image_info(self), ..InspectReport::default() };
        report.image_path.clone_from(&report.image.path);
        report.partition_table = self.drives().first().map(partition_table);
        report.warnings.extend(self.warnings().iter().map(|warning| Warning {
            r#where: warning.device.clone(),
            what: warning.what.clone(),
            why: warning.why.clone(),
        }));
        let modules = options.modules();
        let mut steps = Steps { progress, done: 0, total: 1 + to_u32(modules.len()) };
        steps.tell("inspection", "looking at file systems".to_owned());
        let mounted = mount_all(self, &mut report);
        let names = DeviceNames::new(self);
        let systems = roots::find(self, &mounted, &names, &mut report.warnings);
        steps.total = 1 + to_u32(modules.len().saturating_mul(systems.len()));
        steps.done = 1;
        for root in &systems {
            let filesystems = &report.filesystems;
            let mut found = |module: Module, found: String| {
                steps.done = steps.done.saturating_add(1);
                steps.tell(module.name(), format!("{}: {found}", module.title()));
            };
            let (system, warnings) = match &root.system_root {
                Some(system_root) => {
                    let context = windows::Context { root, system_root, disk: self, filesystems };
                    windows::inspect(&context, &modules, &mut found)
                }
                None => {
                    let context = linux::Context { root, names: &names, disk: self, filesystems };
                    linux::inspect(&context, &modules, &mut found)
                }
            };
            report.systems.push(system);
            report.warnings.extend(warnings);
        }
        report.systems.extend(roots::unread_systems(self, &mut report.warnings));
        for (device, file_system) in &mounted {
            let warnings = file_system.warnings().into_iter();
            report.warnings.extend(warnings.map(|why| Warning {
                r#where: device.clone(),
                what: "file system".to_owned(),
                why,
            }));
        }
        steps.done = steps.total;
        steps.tell("analysis", format!("{} found", count(report.systems.len(), "system")));
        report.overview = report.systems.first().map(Overview::of);
        report.summary = InspectSummary {
            modules: modules.iter().map(|module| module.name().to_owned()).collect(),
            duration_seconds: started.elapsed().as_secs_f64(),
            bytes_read: self.budget().bytes_read(),
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        report
    }
}

struct Steps<'a> {
    progress: &'a mut dyn Progress,
    done: u32,
    total: u32,
}

impl Steps<'_> {
    fn tell(&mut self, phase: &'static str, message: String) {
        self.progress.on_event(&Event { phase, message, done: self.done, total: self.total });
    }
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Mounts what can be mounted, and lists every device.
pub(crate) fn mount_all(disk: &Disk, report: &mut InspectReport) -> BTreeMap<String, SharedFileSystem> {
    let mut mounted = BTreeMap::new();
    for device in disk.devices() {
        let mut filesystem = filesystem(device);
        if device.is_candidate() {
            match disk.mount(device) {
                Ok(file_system) => {
                    let info = file_system.info();
                    filesystem.size_bytes = Some(info.size_bytes);
                    filesystem.free_bytes = Some(info.free_bytes);
                    filesystem.used_bytes = info.size_bytes.checked_sub(info.free_bytes);
                    filesystem.inodes = info.inodes;
                    filesystem.inodes_free = info.inodes_free;
                    filesystem.readable = true;
                    mounted.insert(device.name.clone(), file_system);
                }
                Err(error) => report.warnings.push(Warning {
                    r#where: device.name.clone(),
                    what: filesystem.r#type.clone().unwrap_or_default(),
                    why: error.with_causes(),
                }),
            }
        }
        report.filesystems.push(filesystem);
    }
    mounted
}

fn filesystem(device: &Device) -> Filesystem {
    let probe = device.probe.as_ref();
    Filesystem {
        device: device.name.clone(),
        r#type: probe.map(|probe| probe.kind.to_owned()),
        label: probe.and_then(|probe| probe.label.clone()),
        uuid: probe.and_then(|probe| probe.uuid.clone()),
        // Swap fills its device.
        size_bytes: probe.filter(|probe| probe.kind == "swap").map(|_| device.size_bytes),
        ..Filesystem::default()
    }
}

pub(crate) fn image_info(disk: &Disk) -> ImageInfo {
    let Some(drive) = disk.drives().first() else { return ImageInfo::default() };
    let Some((top, below)) = drive.image.layers().split_first() else { return ImageInfo::default() };
    let file = |layer: &crate::image::Layer| ImageFile {
        path: layer.path.display().to_string(),
        format: layer.format.name().to_owned(),
        virtual_size_bytes: layer.virtual_size_bytes,
        file_size_bytes: layer.file_size_bytes,
    };
    ImageInfo {
        path: top.path.display().to_string(),
        format: top.format.name().to_owned(),
        format_version: top.format_version,
        size_bytes: top.virtual_size_bytes,
        virtual_size_bytes: top.virtual_size_bytes,
        file_size_bytes: top.file_size_bytes,
        cluster_size_bytes: top.cluster_size_bytes,
        compression: top.compression.map(|compression| compression.name().to_owned()),
        backing_chain: below.iter().map(file).collect(),
        sha256: None,
    }
}

pub(crate) fn partition_table(drive: &crate::disk::Drive) -> PartitionTable {
    let Some(table) = drive.partition_table() else {
        return PartitionTable { r#type: "none".to_owned(), sector_size_bytes: 512, ..PartitionTable::default() };
    };
    let partition = |partition: &crate::partition::Partition| Partition {
        number: partition.number,
        device: format!("{}{}", drive.name, partition.number),
        start_bytes: partition.start_bytes,
        size_bytes: partition.size_bytes,
        r#type: partition.type_id.clone(),
        type_name: partition.type_name.map(str::to_owned),
        uuid: partition.uuid.clone(),
        label: partition.label.clone(),
        bootable: partition.bootable,
    };
    PartitionTable {
        r#type: table.kind.name().to_owned(),
        id: table.id.clone(),
        sector_size_bytes: table.sector_bytes,
        partitions: table.partitions.iter().map(partition).collect(),
    }
}
