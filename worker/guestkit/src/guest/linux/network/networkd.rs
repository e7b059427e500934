//! systemd.network(5) and systemd.netdev(5).

use std::collections::BTreeMap;

use crate::guest::report::NetworkInterface;

use super::super::files::Files;
use super::super::unit::UnitFile;
use super::{interface, is_yes};

/// Of one file name the first directory's counts.
const DIRECTORIES: [&str; 4] =
    ["/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network"];

/// One interface for each `.network` that is the guest's own: those the distribution ships match every container and
/// virtual link there could be, and tell nothing of this guest.
pub(super) fn read(files: &Files<'_>) -> Vec<NetworkInterface> {
    let mut by_name: BTreeMap<String, String> = BTreeMap::new();
    for directory in DIRECTORIES {
        for path in files.with_suffix(directory, ".network") {
            by_name.entry(path.rsplit('/').next().unwrap_or_default().to_owned()).or_insert(path);
        }
    }
    let own = by_name.into_values().filter(|path| !path.starts_with("/usr/lib/"));
    let texts: Vec<(UnitFile, String)> = own
        .filter_map(|path| {
            let mut file = UnitFile::parse(&files.text(&path)?);
            for drop_in in files.with_suffix(&format!("{path}.d"), ".conf") {
                file.merge(&files.text(&drop_in).unwrap_or_default());
            }
            Some((file, path))
        })
        .collect();
    let devices = Devices::read(files);
    let mut found: Vec<_> = texts.iter().map(|(file, path)| network(file, path, &devices)).collect();
    // Who belongs to whom is told by the ports and the parents.
    let (mut members, mut parents) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
    for ((file, _), port) in texts.iter().zip(&found) {
        for controller in ["Bridge", "Bond"].iter().filter_map(|key| file.last("Network", key)) {
            members.entry(controller).or_default().push(port.name.clone());
        }
        parents.extend(file.words("Network", "VLAN").into_iter().map(|vlan| (vlan, port.name.clone())));
    }
    for interface in &mut found {
        interface.parent = parents.remove(interface.name.as_str());
        interface.members = members.remove(interface.name.as_str()).unwrap_or_default();
    }
    found
}

fn network(file: &UnitFile, path: &str, devices: &Devices) -> NetworkInterface {
    let name = file.words("Match", "Name").join(" ");
    let stem = path.rsplit('/').next().unwrap_or_default();
    let mut found = interface("systemd-networkd", if name.is_empty() { stem } else { &name }, path);
    let dhcp = file.last("Network", "DHCP").unwrap_or_default();
    found.dhcp4 = is_yes(dhcp) || matches!(dhcp, "ipv4" | "both" | "v4");
    found.dhcp6 = is_yes(dhcp) || matches!(dhcp, "ipv6" | "both" | "v6");
    let texts = |section: &str, key: &str| file.values(section, key).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let words = |section: &str, key: &str| file.words(section, key).into_iter().map(str::to_owned).collect::<Vec<_>>();
    found.addresses = [texts("Network", "Address"), texts("Address", "Address")].concat();
    // `_dhcp4` and `_ipv6ra` are whatever the network says.
    let is_address = |gateway: &String| !gateway.starts_with('_');
    found.gateways = texts("Network", "Gateway").into_iter().filter(is_address).collect();
    for route in file.blocks("Route") {
        let value = |wanted: &str| route.iter().rev().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
        match (value("Destination"), value("Gateway").filter(|gateway| !gateway.starts_with('_'))) {
            (None | Some("0.0.0.0/0" | "::/0"), Some(via)) => found.gateways.push(via.to_owned()),
            (Some(to), Some(via)) => found.routes.push(format!("{to} via {via}")),
            (_, None) => {}
        }
    }
    found.dns_servers = words("Network", "DNS");
    found.dns_search = words("Network", "Domains");
    found.mac = file.last("Match", "MACAddress").or_else(|| file.last("Link", "MACAddress")).map(str::to_owned);
    found.mtu = file.last("Link", "MTUBytes").and_then(|mtu| mtu.parse().ok());
    found.automatic =
        Some(file.last("Link", "ActivationPolicy").is_none_or(|policy| !matches!(policy, "manual" | "always-down")));
    if let Some(device) = devices.0.get(&found.name) {
        found.kind = device.last("NetDev", "Kind").map(str::to_owned);
        found.vlan_id = device.last("VLAN", "Id").and_then(|id| id.parse().ok());
    }
    found
}

/// The virtual devices by name.
struct Devices(BTreeMap<String, UnitFile>);

impl Devices {
    fn read(files: &Files<'_>) -> Self {
        let mut found = BTreeMap::new();
        for path in DIRECTORIES.iter().flat_map(|directory| files.with_suffix(directory, ".netdev")) {
            let file = UnitFile::parse(&files.text(&path).unwrap_or_default());
            if let Some(name) = file.last("NetDev", "Name").map(str::to_owned) {
                found.entry(name).or_insert(file);
            }
        }
        Self(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::files::Files;
    use super::super::super::fixture::Fixture;
    use super::super::tests::read;

    #[test]
    fn networks_are_read() {
        let text = "[Match]\nName=ens3\n[Network]\nDHCP=ipv4\nAddress=192.0.2.5/24\nGateway=192.0.2.1\nDNS=1.1.1.1 9.9.9.9\n[Route]\nGateway=192.0.2.9\nDestination=10.0.0.0/8\n[Route]\nGateway=192.0.2.8\n";
        let found = read("etc/systemd/network/10-lan.network", text).interfaces;
        assert_eq!((found[0].name.as_str(), found[0].addresses.len(), found[0].dns_servers.len()), ("ens3", 1, 2));
        assert!(found[0].dhcp4 && !found[0].dhcp6);
        assert_eq!(found[0].routes, ["10.0.0.0/8 via 192.0.2.9"]);
        assert_eq!(found[0].gateways, ["192.0.2.1", "192.0.2.8"]);
    }

    #[test]
    fn ports_and_parents_are_told() {
        let fixture = Fixture::new();
        let files = [
            ("10-a.network", "[Match]\nName=ens3\n[Network]\nBridge=br0\n"),
            ("10-b.network", "[Match]\nName=ens4\n[Network]\nVLAN=v5\nDHCP=yes\nGateway=_dhcp4\n"),
            ("20-br.network", "[Match]\nName=br0\n[Network]\nAddress=192.0.2.5/24\n"),
            ("20-v5.network", "[Match]\nName=v5\n"),
            ("br.netdev", "[NetDev]\nName=br0\nKind=bridge\n"),
            ("v5.netdev", "[NetDev]\nName=v5\nKind=vlan\n[VLAN]\nId=5\n"),
        ];
        for (name, text) in files {
            fixture.file(&format!("etc/systemd/network/{name}"), text);
        }
        let tree = fixture.tree();
        let found = super::read(&Files::new(&tree));
        assert_eq!((found[2].members.join(" "), found[2].kind.as_deref()), ("ens3".to_owned(), Some("bridge")));
        assert_eq!((found[3].parent.as_deref(), found[3].vlan_id), (Some("ens4"), Some(5)));
        assert!(found[1].gateways.is_empty());
    }
}
