//! Agents and tools that hypervisors and clouds bring to their guests: by the package that brought them, or by their own files.

use crate::guest::report::{GuestAgent, Package, Services};

use super::files::Files;
use super::security::is_enabled;

/// How one of them shows itself.
struct Known {
    name: &'static str,
    platform: &'static str,
    packages: &'static [&'static str],
    services: &'static [&'static str],
    /// Files of an installation by hand.
    paths: &'static [&'static str],
}

/// A list of those that distributions and vendors package, with the names of their services there.
const KNOWN: [Known; 19] = [
    Known {
        name: "qemu-guest-agent",
        platform: "qemu",
        packages: &["qemu-guest-agent", "qemu-ga"],
        services: &["qemu-guest-agent.service", "qemu-ga.service", "qemu-guest-agent"],
        paths: &["/usr/bin/qemu-ga", "/usr/sbin/qemu-ga", "/usr/local/bin/qemu-ga"],
    },
    Known {
        name: "spice-vdagent",
        platform: "qemu",
        packages: &["spice-vdagent"],
        services: &["spice-vdagentd.service", "spice-vdagent"],
        paths: &["/usr/sbin/spice-vdagentd"],
    },
    Known {
        name: "open-vm-tools",
        platform: "vmware",
        packages: &["open-vm-tools"],
        services: &["open-vm-tools.service", "vmtoolsd.service", "open-vm-tools"],
        paths: &["/usr/bin/vmtoolsd"],
    },
    Known {
        name: "vmware-tools",
        platform: "vmware",
        packages: &["vmware-tools", "vmware-tools-core", "vmware-tools-esx-nox"],
        services: &["vmware-tools.service", "vmware-tools"],
        paths: &["/usr/bin/vmware-config-tools.pl", "/etc/vmware-tools/locations"],
    },
    Known {
        name: "virtualbox-guest-additions",
        platform: "virtualbox",
        packages: &[
            "virtualbox-guest-utils",
            "virtualbox-guest-x11",
            "virtualbox-guest-additions",
            "virtualbox-guest-tools",
        ],
        services: &[
            "virtualbox-guest-utils.service",
            "vboxadd-service.service",
            "vboxservice.service",
            "vboxadd-service",
        ],
        paths: &["/usr/sbin/VBoxService", "/opt/VBoxGuestAdditions-init"],
    },
    Known {
        name: "hyperv-daemons",
        platform: "hyper-v",
        packages: &["hyperv-daemons", "hyperv-tools", "hyper-v", "linux-cloud-tools-virtual", "hv-kvp-daemon-init"],
        services: &["hv-kvp-daemon.service", "hypervkvpd.service", "hv_kvp_daemon.service"],
        paths: &["/usr/sbin/hv_kvp_daemon", "/usr/sbin/hypervkvpd"],
    },
    Known {
        name: "xe-guest-utilities",
        platform: "xen",
        packages: &["xe-guest-utilities", "xe-guest-utilities-latest", "xen-guest-agent"],
        services: &[
            "xe-linux-distribution.service",
            "xe-daemon.service",
            "xen-guest-agent.service",
            "xe-linux-distribution",
        ],
        paths: &["/usr/sbin/xe-daemon"],
    },
    Known {
        name: "parallels-tools",
        platform: "parallels",
        packages: &["parallels-tools"],
        services: &["prltoolsd.service", "prltoolsd"],
        paths: &["/usr/lib/parallels-tools", "/usr/bin/prltoolsd"],
    },
    Known {
        name: "walinuxagent",
        platform: "azure",
        packages: &["walinuxagent", "WALinuxAgent", "python-azure-agent", "python3-azure-agent"],
        services: &["walinuxagent.service", "waagent.service", "waagent"],
        paths: &["/usr/sbin/waagent"],
    },
    Known {
        name: "amazon-ssm-agent",
        platform: "aws",
        packages: &["amazon-ssm-agent"],
        services: &["amazon-ssm-agent.service", "snap.amazon-ssm-agent.amazon-ssm-agent.service"],
        paths: &["/usr/bin/amazon-ssm-agent"],
    },
    Known {
        name: "amazon-ec2-utils",
        platform: "aws",
        packages: &["amazon-ec2-utils", "ec2-utils", "amazon-ec2-net-utils"],
        services: &[],
        paths: &[],
    },
    Known {
        name: "ec2-instance-connect",
        platform: "aws",
        packages: &["ec2-instance-connect"],
        services: &["ec2-instance-connect.service"],
        paths: &[],
    },
    Known {
        name: "amazon-cloudwatch-agent",
        platform: "aws",
        packages: &["amazon-cloudwatch-agent"],
        services: &["amazon-cloudwatch-agent.service"],
        paths: &["/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent"],
    },
    Known {
        name: "google-guest-agent",
        platform: "gcp",
        packages: &["google-guest-agent", "google-compute-engine"],
        services: &["google-guest-agent.service", "google-guest-agent-manager.service"],
        paths: &["/usr/bin/google_guest_agent"],
    },
    Known {
        name: "google-osconfig-agent",
        platform: "gcp",
        packages: &["google-osconfig-agent"],
        services: &["google-osconfig-agent.service"],
        paths: &["/usr/bin/google_osconfig_agent"],
    },
    Known {
        name: "oracle-cloud-agent",
        platform: "oracle",
        packages: &["oracle-cloud-agent"],
        services: &["oracle-cloud-agent.service"],
        paths: &["/usr/libexec/oracle-cloud-agent/agent"],
    },
    Known {
        name: "afterburn",
        platform: "coreos",
        packages: &["afterburn"],
        services: &["afterburn.service", "coreos-metadata.service"],
        paths: &["/usr/bin/afterburn"],
    },
    Known {
        name: "ovirt-guest-agent",
        platform: "ovirt",
        packages: &["ovirt-guest-agent", "ovirt-guest-agent-common", "rhevm-guest-agent-common"],
        services: &["ovirt-guest-agent.service"],
        paths: &["/usr/share/ovirt-guest-agent"],
    },
    Known {
        name: "bosh-agent",
        platform: "cloud-foundry",
        packages: &[],
        services: &["bosh-agent.service"],
        paths: &["/var/vcap/bosh/bin/bosh-agent"],
    },
];

/// Those that are there, in order of name.
pub(super) fn read(files: &Files<'_>, packages: &[Package], services: &Services) -> Vec<GuestAgent> {
    let mut found: Vec<_> = KNOWN.iter().filter_map(|known| find(files, known, packages, services)).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn find(files: &Files<'_>, known: &Known, packages: &[Package], services: &Services) -> Option<GuestAgent> {
    let is_its = |package: &&Package| package.state == "installed" && known.packages.contains(&package.name.as_str());
    let package = packages.iter().find(is_its);
    let service = known.services.iter().find_map(|name| services.units.iter().find(|unit| unit.name == *name));
    // What a package manager knows of is told by it: a file alone is looked for where none does.
    let path = if package.is_none() { files.first_existing(known.paths) } else { None };
    if package.is_none() && path.is_none() {
        return None;
    }
    Some(GuestAgent {
        name: known.name.to_owned(),
        platform: known.platform.to_owned(),
        package: package.map(|package| package.name.clone()),
        version: package.map(|package| package.full_version.clone()),
        service: service.map(|unit| unit.name.clone()),
        // A static unit is started by its device, which only the machine has.
        enabled: service
            .map(|unit| is_enabled(services, &unit.name))
            .filter(|enabled| *enabled || service.is_some_and(|unit| unit.state != "static")),
        path: path.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;
    use crate::guest::report::Unit;

    #[test]
    fn agents_are_told_by_package_or_file() {
        let fixture = Fixture::new();
        fixture.file("usr/sbin/waagent", "");
        fixture.file("usr/bin/vmtoolsd", "");
        let package = |name: &str, state: &str| Package {
            name: name.to_owned(),
            state: state.to_owned(),
            full_version: "2:12.1-1".to_owned(),
            ..Package::default()
        };
        let packages = [package("open-vm-tools", "installed"), package("spice-vdagent", "config-files")];
        let unit = Unit {
            name: "open-vm-tools.service".to_owned(),
            kind: "service".to_owned(),
            state: "enabled".to_owned(),
            ..Unit::default()
        };
        let services = Services { units: vec![unit], ..Services::default() };
        let tree = fixture.tree();
        let found = read(&Files::new(&tree), &packages, &services);
        let told: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.version.as_deref(), one.enabled)).collect();
        assert_eq!(told, [("open-vm-tools", Some("2:12.1-1"), Some(true)), ("walinuxagent", None, None)]);
        assert_eq!(found[1].path.as_deref(), Some("/usr/sbin/waagent"));
        assert_eq!(found[0].path, None);
    }
}
