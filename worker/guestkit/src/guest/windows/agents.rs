//! Agents that hypervisors and clouds bring to Windows: by the services they are.

use crate::guest::report::{GuestAgent, Services};

/// Name, the service, the platform.
const KNOWN: [(&str, &str, &str); 21] = [
    ("virtio-balloon", "BalloonService", "qemu"),
    ("virtio-fs", "VirtioFsSvc", "qemu"),
    ("qemu-guest-agent", "QEMU-GA", "qemu"),
    ("spice-vdagent", "vdservice", "qemu"),
    ("vmware-tools", "VMTools", "vmware"),
    ("virtualbox-guest-additions", "VBoxService", "virtualbox"),
    ("hyper-v-heartbeat", "vmicheartbeat", "hyper-v"),
    ("hyper-v-data-exchange", "vmickvpexchange", "hyper-v"),
    ("xen-agent", "XenAgent", "xen"),
    ("xen-agent", "xensvc", "xen"),
    ("parallels-tools", "prl_tools", "parallels"),
    ("azure-guest-agent", "WindowsAzureGuestAgent", "azure"),
    ("azure-rd-agent", "RdAgent", "azure"),
    ("amazon-ssm-agent", "AmazonSSMAgent", "aws"),
    ("ec2launch", "Amazon EC2Launch", "aws"),
    ("ec2config", "Ec2Config", "aws"),
    ("google-guest-agent", "GCEAgent", "gcp"),
    ("google-osconfig-agent", "google_osconfig_agent", "gcp"),
    ("cloudbase-init", "cloudbase-init", "openstack"),
    ("nutanix-guest-agent", "Nutanix Guest Agent", "nutanix"),
    ("ovirt-guest-agent", "OVirtGuestAgent", "ovirt"),
];

/// Those that are there, in order of name.
pub(super) fn read(services: &Services) -> Vec<GuestAgent> {
    let known = KNOWN.iter().filter_map(|(name, service, platform)| {
        let unit = services.units.iter().find(|unit| unit.name.eq_ignore_ascii_case(service))?;
        let starts = unit.start_type.as_deref().map(|start| !matches!(start, "manual" | "disabled"));
        Some(GuestAgent {
            name: (*name).to_owned(),
            platform: (*platform).to_owned(),
            service: Some(unit.name.clone()),
            enabled: starts,
            path: unit.exec_start.clone(),
            ..GuestAgent::default()
        })
    });
    let mut found: Vec<_> = known.collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}
