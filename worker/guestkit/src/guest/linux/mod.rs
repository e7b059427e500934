//! Linux guests: one module of the report for each topic, all reading through [`files::Files`].

mod apk;
mod authorized_keys;
mod boot;
mod databases;
mod deep_scan;
mod dpkg;
mod files;
mod firewall;
#[cfg(test)]
mod fixture;
mod network;
mod os;
mod os_release;
mod packages;
mod pattern;
mod purl;
mod security;
mod services;
mod sshd;
pub(crate) mod storage;
mod sudoers;
mod systemd;
mod time;
mod unit;
mod users;

use crate::guest::report::{Filesystem, GuestSystem, Packages, Services, Warning};
use crate::guest::roots::{DeviceNames, Root};

use files::Files;

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
}

/// What the modules of one system are given.
pub(crate) struct Context<'a> {
    pub(crate) root: &'a Root,
    pub(crate) names: &'a DeviceNames<'a>,
    pub(crate) filesystems: &'a [Filesystem],
}

/// Runs `modules` over one system, telling `begin` of each before it starts.
pub(crate) fn inspect(
    context: &Context<'_>,
    modules: &[Module],
    begin: &mut dyn FnMut(Module),
) -> (GuestSystem, Vec<Warning>) {
    let files = Files::new(&context.root.tree);
    let mut system = GuestSystem {
        root: context.root.device.clone(),
        mountpoints: context.root.mountpoints.clone(),
        ..GuestSystem::default()
    };
    let asks = |module: Module| modules.contains(&module);
    // Security and databases need to know what is installed and enabled, whether or not the report shows it.
    let mut packages = None;
    let mut services = None;
    for module in modules {
        begin(*module);
        files.enter(module.name());
        match module {
            Module::OperatingSystem => system.operating_system = os::inspect(&files),
            Module::Packages => packages = Some(packages::inspect(&files, &system.operating_system)),
            Module::Services => services = Some(services::inspect(&files)),
            Module::Users => system.users = Some(users::inspect(&files)),
            Module::Network => system.network = Some(network::inspect(&files, &system.operating_system)),
            Module::Security => {
                let packages = installed(&files, &system, &mut packages);
                let services = started(&files, &mut services);
                files.enter(module.name());
                system.security =
                    Some(security::inspect(&files, &system.operating_system, &packages.packages, services));
            }
            Module::Storage => {
                let storage = storage::inspect(&files, context.names, context.filesystems, &system.mountpoints);
                system.storage = Some(storage);
            }
            Module::Databases => {
                let packages = installed(&files, &system, &mut packages);
                let services = started(&files, &mut services);
                files.enter(module.name());
                let databases = databases::inspect(&files, &packages.packages, services, asks(Module::DeepScan));
                system.databases = Some(databases);
            }
            Module::DeepScan => system.deep_scan = deep_scan::inspect(&files),
        }
    }
    if let (Some(databases), Some(scan)) = (&mut system.databases, &system.deep_scan) {
        databases.databases.extend(scan.sqlite_files.iter().map(databases::sqlite));
    }
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

fn started<'a>(files: &Files<'_>, services: &'a mut Option<Services>) -> &'a Services {
    services.get_or_insert_with(|| {
        files.enter(Module::Services.name());
        services::inspect(files)
    })
}
