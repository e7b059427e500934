//! What people look for first: the few facts of the first system that stand at the top of a report, and a line for each
//! module.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::linux::Module;
use super::report::{GuestSystem, Network, OperatingSystem, Packages, Security, Services};

/// The first system in short. Each part is absent where its module was not asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The system.
    pub operating_system: SystemOverview,
    /// Module `packages`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packages: Option<PackagesOverview>,
    /// Module `services`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<ServicesOverview>,
    /// Module `network`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkOverview>,
    /// Module `security`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<SecurityOverview>,
}

/// The operating system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemOverview {
    /// `linux`, `windows`…
    pub r#type: String,
    /// Distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<String>,
    /// Version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The kernel that starts by default; the newest where none is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// Packages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackagesOverview {
    /// Packages that are installed; absent where the database could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What people install with: `apt`, `dnf`, `zypper`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager: Option<String>,
    /// The largest.
    pub top_packages: Vec<String>,
}

/// Services.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServicesOverview {
    /// Services in all.
    pub count: u64,
    /// Services that the last start left running where the journal tells, or else those that are enabled to start.
    pub active: u64,
    /// Services that failed in the last start; absent where nothing on the disk tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// What `active` is told by: `journal` or `enabled`.
    pub basis: String,
}

/// The network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkOverview {
    /// The interfaces that are configured, each once.
    pub interfaces: Vec<InterfaceOverview>,
}

/// One interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceOverview {
    /// Name.
    pub name: String,
    /// Its first configured address, or the last one that a DHCP server lent it; absent where the disk has neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// As it is configured: `up` where it comes up by itself, `down` where it does not, `unknown` where that is not told.
    pub state: String,
}

/// What protects the system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityOverview {
    /// SELinux.
    pub selinux: Enabled,
    /// AppArmor.
    pub apparmor: Enabled,
    /// Any firewall.
    pub firewall: Active,
}

/// Whether something is switched on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Enabled {
    /// Whether it will be when the system starts.
    pub enabled: bool,
}

/// Whether something does its work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Active {
    /// Whether it is loaded at start and judges packets: it has rules, or a policy that drops them.
    pub active: bool,
}

impl Overview {
    pub(super) fn of(system: &GuestSystem) -> Self {
        Self {
            operating_system: system_overview(&system.operating_system),
            packages: system.packages.as_ref().map(|packages| PackagesOverview {
                count: packages.count,
                manager: system.operating_system.package_management.clone().or_else(|| packages.manager.clone()),
                top_packages: packages.top_packages.clone(),
            }),
            services: system.services.as_ref().map(services_overview),
            network: system.network.as_ref().map(network_overview),
            security: system.security.as_ref().map(security_overview),
        }
    }
}

fn system_overview(system: &OperatingSystem) -> SystemOverview {
    let newest = || system.kernels.last().map(|kernel| kernel.version.clone());
    SystemOverview {
        r#type: system.r#type.clone(),
        distribution: system.distribution.clone(),
        version: system.version.clone(),
        hostname: system.hostname.clone(),
        kernel: system.default_kernel.clone().or_else(newest),
    }
}

fn services_overview(services: &Services) -> ServicesOverview {
    let (active, basis) = match services.state_source {
        Some(_) => (&services.active, "journal"),
        None => (&services.enabled, "enabled"),
    };
    ServicesOverview {
        count: services.count,
        active: active.len() as u64,
        failed: services.state_source.as_ref().map(|_| services.failed.len() as u64),
        basis: basis.to_owned(),
    }
}

/// One entry for each name, whichever managers and files have something to say of it.
fn network_overview(network: &Network) -> NetworkOverview {
    let mut interfaces: BTreeMap<&str, InterfaceOverview> = BTreeMap::new();
    for found in &network.interfaces {
        let entry = interfaces.entry(&found.name).or_insert_with(|| InterfaceOverview {
            name: found.name.clone(),
            state: "unknown".to_owned(),
            ..InterfaceOverview::default()
        });
        if entry.address.is_none() {
            entry.address = found.addresses.first().cloned();
        }
        match found.automatic {
            Some(true) => entry.state = "up".to_owned(),
            Some(false) if entry.state == "unknown" => entry.state = "down".to_owned(),
            _ => {}
        }
    }
    for lease in &network.leases {
        if let Some(entry) = lease.interface.as_deref().and_then(|name| interfaces.get_mut(name))
            && entry.address.is_none()
        {
            entry.address = Some(lease.address.clone());
        }
    }
    NetworkOverview { interfaces: interfaces.into_values().collect() }
}

fn security_overview(security: &Security) -> SecurityOverview {
    let selinux = security.selinux.as_ref();
    let is_policed = |mode: &str| mode != "disabled";
    SecurityOverview {
        selinux: Enabled {
            enabled: selinux
                .is_some_and(|found| found.policy_installed && found.mode.as_deref().is_some_and(is_policed)),
        },
        apparmor: Enabled { enabled: security.apparmor.as_ref().is_some_and(|found| found.enabled) },
        firewall: Active {
            active: security.firewalls.iter().any(|firewall| {
                let drops = firewall.default_policies.iter().any(|policy| !policy.ends_with("=accept"));
                // Where rules cannot be counted, being enabled is all that is known.
                firewall.enabled && (drops || firewall.rules.is_none_or(|rules| rules > 0))
            }),
        },
    }
}

/// What a module found, in a few words; `None` where it has nothing to say. Packages and services come beside the system,
/// which has them only where the report shows them.
pub(super) fn told(
    module: Module,
    system: &GuestSystem,
    packages: Option<&Packages>,
    services: Option<&Services>,
) -> Option<String> {
    Some(match module {
        Module::OperatingSystem => {
            let found = &system.operating_system;
            found.product_name.clone().or_else(|| found.distribution.clone()).unwrap_or_else(|| found.r#type.clone())
        }
        Module::Packages => {
            let packages = packages?;
            match (packages.count, packages.manager.as_deref()) {
                (Some(count), Some(manager)) => format!("{} {manager}", grouped(count)),
                (Some(count), None) => grouped(count),
                (None, Some(manager)) => format!("unknown, of {manager}"),
                (None, None) => "none found".to_owned(),
            }
        }
        Module::Services => {
            let services = services?;
            format!("{}, {} enabled", grouped(services.count), grouped(services.enabled.len() as u64))
        }
        Module::Users => {
            let users = system.users.as_ref()?;
            format!("{}, {} can log in", grouped(users.count), grouped(users.login_users.len() as u64))
        }
        Module::Network => number(system.network.as_ref()?.interfaces.len(), "configured interface"),
        Module::Security => {
            let security = system.security.as_ref()?;
            let firewall = if security_overview(security).firewall.active { "a firewall" } else { "no firewall" };
            format!("{firewall}, {}", number(security.sysctls.len(), "kernel setting"))
        }
        Module::Storage => number(system.storage.as_ref()?.mounts.len(), "mounted file system"),
        Module::Databases => number(system.databases.as_ref()?.databases.len(), "database"),
        Module::DeepScan => {
            let scan = system.deep_scan.as_ref()?;
            format!("{} entries, {} set-user-ID", grouped(scan.entries), grouped(scan.setuid_files.len() as u64))
        }
    })
}

fn number(count: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count as u64), if count == 1 { "" } else { "s" })
}

/// `1204` as `1,204`.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::report::{DhcpLease, Firewall, NetworkInterface};

    #[test]
    fn counts_are_grouped() {
        for (count, expected) in [(0, "0"), (999, "999"), (1204, "1,204"), (1_000_000, "1,000,000")] {
            assert_eq!(grouped(count), expected);
        }
    }

    #[test]
    fn an_interface_is_told_once_with_its_first_address() {
        let interface = |name: &str, automatic, addresses: &[&str]| NetworkInterface {
            name: name.to_owned(),
            automatic,
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
            ..NetworkInterface::default()
        };
        let lease =
            DhcpLease { interface: Some("eth1".to_owned()), address: "10.0.0.9".to_owned(), ..DhcpLease::default() };
        let network = Network {
            interfaces: vec![
                interface("eth0", Some(true), &["192.0.2.1/24", "192.0.2.2/24"]),
                interface("eth0", None, &["2001:db8::1/64"]),
                interface("eth1", Some(false), &[]),
                interface("eth2", None, &[]),
            ],
            leases: vec![lease],
            ..Network::default()
        };
        let told: Vec<_> = network_overview(&network)
            .interfaces
            .into_iter()
            .map(|one| format!("{} {} {}", one.name, one.address.unwrap_or_default(), one.state))
            .collect();
        assert_eq!(told, ["eth0 192.0.2.1/24 up", "eth1 10.0.0.9 down", "eth2  unknown"]);
    }

    #[test]
    fn a_firewall_that_lets_everything_in_is_not_active() {
        let firewall = |enabled, rules, policy: &str| Security {
            firewalls: vec![Firewall {
                enabled,
                rules,
                default_policies: vec![format!("input={policy}")],
                ..Firewall::default()
            }],
            ..Security::default()
        };
        let cases = [
            (firewall(true, Some(0), "accept"), false),
            (firewall(true, Some(3), "accept"), true),
            (firewall(true, Some(0), "drop"), true),
            (firewall(false, Some(3), "drop"), false),
            (firewall(true, None, "accept"), true),
            (Security::default(), false),
        ];
        for (security, expected) in cases {
            assert_eq!(security_overview(&security).firewall.active, expected, "{security:?}");
        }
    }
}
