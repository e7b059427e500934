//! What cloud-init will write into the configuration of the system's own manager at the first start. Of a system that it has set up
//! already, only what it wrote counts. Source: the cloud-init documentation, "Network configuration", "Networking config Version
//! 1" and "Version 2", whose second is netplan's.

use std::collections::BTreeMap;

use crate::guest::report::NetworkInterface;

use super::super::files::Files;
use super::netplan::{Yaml, definitions, parse, read_interface};
use super::{interface, with_prefix};

const MANAGER: &str = "cloud-init";
/// The identity of the instance that was set up.
const INSTANCE: &str = "/var/lib/cloud/data/instance-id";
/// What a disk of its own is seeded with.
const SEEDS: [&str; 2] =
    ["/var/lib/cloud/seed/nocloud-net/network-config", "/var/lib/cloud/seed/nocloud/network-config"];

/// The interfaces; none of a system that has been set up, or where cloud-init is told to leave the network alone.
pub(super) fn read(files: &Files<'_>) -> Vec<NetworkInterface> {
    if !files.is_dir("/etc/cloud") || files.exists(INSTANCE) {
        return Vec::new();
    }
    let mut configs = vec!["/etc/cloud/cloud.cfg".to_owned()];
    configs.extend(files.with_suffix("/etc/cloud/cloud.cfg.d", ".cfg"));
    // The system's own configuration is before that of a data source, and of files the last.
    let mut found = None;
    for path in SEEDS.into_iter().map(str::to_owned).chain(configs) {
        let Some(text) = files.text(&path) else { continue };
        let is_seed = SEEDS.contains(&path.as_str());
        if !is_seed && !text.lines().any(|line| line.starts_with("network:")) {
            continue;
        }
        match parse(&text) {
            Ok(document) => found = Some((document, path)),
            Err(why) => files.warn(path, why),
        }
    }
    let Some((document, path)) = found else { return Vec::new() };
    // A seed may leave the outermost key out.
    let document = match document.get("network") {
        Some(_) => document,
        None => Yaml::Map(BTreeMap::from([("network".to_owned(), document)])),
    };
    let network = document.get("network");
    match network.and_then(|network| network.get("config")) {
        Some(Yaml::List(items)) => items.iter().filter_map(|item| version_1(item, &path)).collect(),
        _ => definitions(&document)
            .map(|(kind, name, definition)| read_interface(MANAGER, name, kind, definition, &path))
            .collect(),
    }
}

/// One item of version 1.
fn version_1(item: &Yaml, path: &str) -> Option<NetworkInterface> {
    let text = |key: &str| item.get(key).and_then(Yaml::text);
    let kind = match text("type")?.as_str() {
        "physical" => "ethernet",
        "bond" => "bond",
        "bridge" => "bridge",
        "vlan" => "vlan",
        "loopback" => "loopback",
        _ => return None,
    };
    let mut found = interface(MANAGER, &text("name")?, path);
    found.kind = Some(kind.to_owned());
    found.mac = text("mac_address");
    found.mtu = item.get("mtu").and_then(Yaml::number);
    found.vlan_id = item.get("vlan_id").and_then(Yaml::number);
    found.parent = text("vlan_link");
    let members = item.get("bond_interfaces").or_else(|| item.get("bridge_interfaces"));
    found.members = members.map(Yaml::texts).unwrap_or_default();
    found.automatic = Some(true);
    let Some(Yaml::List(subnets)) = item.get("subnets") else { return Some(found) };
    for subnet in subnets {
        let text = |key: &str| subnet.get(key).and_then(Yaml::text);
        match text("type").as_deref() {
            Some("dhcp" | "dhcp4") => found.dhcp4 = true,
            Some("dhcp6" | "ipv6_dhcpv6-stateful" | "ipv6_dhcpv6-stateless") => found.dhcp6 = true,
            _ => {}
        }
        found.addresses.extend(text("address").map(|address| with_prefix(&address, text("netmask").as_deref())));
        found.gateways.extend(text("gateway"));
        found.dns_servers.extend(subnet.get("dns_nameservers").map(Yaml::texts).unwrap_or_default());
        found.dns_search.extend(subnet.get("dns_search").map(Yaml::texts).unwrap_or_default());
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::super::super::files::Files;
    use super::super::super::fixture::Fixture;
    use super::read;
    use crate::guest::report::NetworkInterface;

    fn found(files: &[(&str, &str)]) -> Vec<NetworkInterface> {
        let fixture = Fixture::new();
        fixture.file("etc/cloud/cloud.cfg", "users: [default]\n");
        for (path, text) in files {
            fixture.file(path, text);
        }
        let tree = fixture.tree();
        read(&Files::new(&tree))
    }

    /// The examples of the documentation.
    #[test]
    fn both_versions_are_read() {
        let first = "network:\n  version: 1\n  config:\n    - type: physical\n      name: eth0\n      mac_address: '00:11:22:33:44:55'\n      subnets:\n         - type: static\n           address: 192.168.23.14\n           netmask: 255.255.255.192\n           gateway: 192.168.23.1\n           dns_nameservers: [192.168.23.2, 8.8.8.8]\n         - type: dhcp6\n    - type: nameserver\n      address: [1.1.1.1]\n";
        let [eth0] = found(&[("etc/cloud/cloud.cfg.d/50-net.cfg", first)]).try_into().unwrap();
        assert_eq!((eth0.name.as_str(), eth0.addresses.as_slice()), ("eth0", &["192.168.23.14/26".to_owned()][..]));
        assert_eq!((eth0.gateways.join(" "), eth0.dhcp4, eth0.dhcp6), ("192.168.23.1".into(), false, true));
        let second = "version: 2\nethernets:\n  interface0:\n    match: {macaddress: '52:54:00:12:34:00'}\n    set-name: interface0\n    addresses: [192.168.1.10/24]\n";
        let [seeded] = found(&[("var/lib/cloud/seed/nocloud/network-config", second)]).try_into().unwrap();
        assert_eq!((seeded.name.as_str(), seeded.manager.as_str()), ("interface0", "cloud-init"));
        assert_eq!(seeded.addresses, ["192.168.1.10/24"]);
    }

    #[test]
    fn what_was_set_up_or_is_left_alone_is_not_told() {
        let seed = ("var/lib/cloud/seed/nocloud/network-config", "version: 2\nethernets: {e: {dhcp4: true}}\n");
        assert_eq!(found(&[seed]).len(), 1);
        assert!(found(&[seed, ("var/lib/cloud/data/instance-id", "i\n")]).is_empty());
        assert!(found(&[seed, ("etc/cloud/cloud.cfg.d/99.cfg", "network: {config: disabled}\n")]).is_empty());
    }
}
