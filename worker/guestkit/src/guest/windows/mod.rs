//! Windows guests: one module of the report for each topic, all reading the registry through [`hives::Hives`].

mod agents;
pub(crate) mod audit;
pub(crate) mod certificates;
mod databases;
mod drives;
pub(crate) mod hives;
mod network;
mod os;
mod packages;
pub(crate) mod profiles;
mod root;
mod security;
pub(crate) mod services;
pub(crate) mod sid;
mod storage;
mod tasks;
mod users;
mod version;

use crate::disk::Disk;
use crate::guest::linux::Module;
use crate::guest::linux::databases::sqlite;
use crate::guest::linux::deep_scan::{self, Rights};
use crate::guest::linux::files::Files;
use crate::guest::overview;
use crate::guest::report::{Filesystem, GuestSystem, Packages, Services, Warning};
use crate::guest::roots::Root;

use hives::Hives;

pub(crate) use root::system_roots;

/// What the modules of one system are given.
pub(crate) struct Context<'a> {
    pub(crate) root: &'a Root,
    /// Where Windows lies on its file system.
    pub(crate) system_root: &'a str,
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
    let hives = Hives::new(&files, context.system_root);
    let mut system = GuestSystem {
        root: context.root.device.clone(),
        mountpoints: context.root.mountpoints.clone(),
        ..GuestSystem::default()
    };
    let asks = |module: Module| modules.contains(&module);
    // Databases need to know what is installed and enabled, whether or not the report shows it.
    let mut packages = None;
    let mut services = None;
    let mut volumes = Vec::new();
    for module in modules {
        files.enter(module.name());
        match module {
            Module::OperatingSystem => {
                system.operating_system = os::inspect(&files, &hives, context.system_root);
                volumes = drives::volumes(&hives, context.disk);
                system.drive_mappings = drives::mappings(&volumes, system_letter(&hives), &context.root.device);
            }
            Module::Packages => packages = Some(packages::inspect(&files, &hives, &system.operating_system)),
            Module::Services => {
                let found = services::inspect(&files, &hives, context.system_root);
                system.guest_agents = agents::read(&found);
                services = Some(found);
            }
            Module::Users => system.users = users::inspect(&files, &hives),
            Module::Network => {
                let hostname = system.operating_system.hostname.as_ref();
                system.network = Some(network::inspect(&files, &hives, hostname, context.system_root));
            }
            Module::Security => system.security = Some(security::inspect(&files, &hives, context.filesystems)),
            Module::Storage => {
                let volumes = std::mem::take(&mut volumes);
                let (filesystems, mounts) = (context.filesystems, &system.mountpoints);
                let storage = storage::inspect(&files, &hives, filesystems, mounts, volumes, &system.drive_mappings);
                system.storage = Some(storage);
            }
            Module::Databases => {
                let packages: &Packages =
                    packages.get_or_insert_with(|| packages::inspect(&files, &hives, &system.operating_system));
                let services: &Services = services.get_or_insert_with(|| services::units(&hives));
                system.databases = Some(databases::inspect(&files, &hives, &packages.packages, services));
            }
            Module::DeepScan => system.deep_scan = deep_scan::inspect(&files, Rights::Other),
        }
        let told = overview::told(*module, &system, packages.as_ref(), services.as_ref());
        found(*module, told.unwrap_or_else(|| "unknown".to_owned()));
    }
    if let (Some(databases), Some(scan)) = (&mut system.databases, &system.deep_scan) {
        databases.databases.extend(scan.sqlite_files.iter().map(sqlite));
    }
    system.packages = packages.filter(|_| asks(Module::Packages));
    system.services = services.filter(|_| asks(Module::Services));
    hives.report_problems();
    drop(hives);
    (system, files.into_warnings())
}

/// The drive of `SystemRoot`, as Windows knows itself.
fn system_letter(hives: &Hives<'_>) -> Option<char> {
    let key = hives.software_key("Microsoft\\Windows NT\\CurrentVersion")?;
    let path = key.text("SystemRoot")?;
    let mut letters = path.chars();
    let letter = letters.next().filter(char::is_ascii_alphabetic)?;
    (letters.next() == Some(':')).then_some(letter)
}
