//! nm-settings-keyfile(5) of NetworkManager: one connection for each file.

use crate::guest::report::NetworkInterface;

use super::super::files::Files;
use super::super::unit::UnitFile;
use super::interface;

/// Where connections lie.
const DIRECTORIES: [&str; 3] = [
    "/etc/NetworkManager/system-connections",
    "/run/NetworkManager/system-connections",
    "/usr/lib/NetworkManager/system-connections",
];

/// One interface for each connection.
pub(super) fn read(files: &Files<'_>) -> Vec<NetworkInterface> {
    let paths = DIRECTORIES.iter().flat_map(|directory| {
        // Before 1.20 the files of the first directory had no extension, and they are read still.
        let is_old = |name: &&String| *directory == DIRECTORIES[0] && !name.contains('.') && !name.ends_with('~');
        let names = files.names(directory);
        let taken =
            names.iter().filter(|name| !name.starts_with('.') && (name.ends_with(".nmconnection") || is_old(name)));
        taken.map(|name| format!("{directory}/{name}")).collect::<Vec<_>>()
    });
    paths.filter_map(|path| connection(&files.text(&path)?, &path)).collect()
}

fn connection(text: &str, path: &str) -> Option<NetworkInterface> {
    let file = UnitFile::parse(text);
    let value = |section: &str, key: &str| file.last(section, key).map(str::to_owned);
    let r#type = value("connection", "type")?;
    let name = value("connection", "interface-name").or_else(|| value("connection", "id"))?;
    let mut found = interface("network-manager", &name, path);
    found.kind = Some(
        match r#type.as_str() {
            "802-3-ethernet" => "ethernet",
            "802-11-wireless" => "wifi",
            "ip-tunnel" | "wireguard" | "vpn" => "tunnel",
            other => other,
        }
        .to_owned(),
    );
    let is_automatic = |section: &str| matches!(file.last(section, "method"), Some("auto" | "dhcp"));
    found.dhcp4 = is_automatic("ipv4");
    // `auto` of IPv6 is router advertisement first, and DHCPv6 where the router says so.
    found.dhcp6 = is_automatic("ipv6");
    for section in ["ipv4", "ipv6"] {
        for (key, text) in file.section(section) {
            let list = || text.split([';', ',']).map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned);
            let is_numbered = |prefix: &str| {
                key.strip_prefix(prefix).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
            };
            if is_numbered("address") || key == "addresses" {
                // `address1=192.0.2.5/24,192.0.2.1`: address, then gateway.
                let mut parts = list();
                found.addresses.extend(parts.next());
                found.gateways.extend(parts.next());
            } else if is_numbered("route") {
                let mut parts = list();
                if let (Some(to), Some(via)) = (parts.next(), parts.next()) {
                    found.routes.push(format!("{to} via {via}"));
                }
            } else {
                match key {
                    "gateway" => found.gateways.push(text.to_owned()),
                    "dns" => found.dns_servers.extend(list()),
                    "dns-search" => found.dns_search.extend(list()),
                    _ => {}
                }
            }
        }
    }
    let mac = ["ethernet", "802-3-ethernet", "wifi"]
        .iter()
        .find_map(|section| value(section, "cloned-mac-address").or_else(|| value(section, "mac-address")));
    found.mac = mac;
    found.mtu = ["ethernet", "802-3-ethernet"].iter().find_map(|section| value(section, "mtu")?.parse().ok());
    found.vlan_id = value("vlan", "id").and_then(|id| id.parse().ok());
    found.parent = value("vlan", "parent");
    found.automatic = Some(value("connection", "autoconnect").as_deref() != Some("false"));
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;

    #[test]
    fn connections_are_read() {
        let text = "[connection]\nid=lan\ntype=ethernet\ninterface-name=ens3\nautoconnect=false\n[ethernet]\nmtu=9000\n[ipv4]\nmethod=manual\naddress1=192.0.2.5/24,192.0.2.1\ndns=1.1.1.1;9.9.9.9;\n[ipv6]\nmethod=auto\n";
        let found = read("etc/NetworkManager/system-connections/lan.nmconnection", text).interfaces;
        assert_eq!(found[0].addresses, ["192.0.2.5/24"]);
        assert_eq!((found[0].gateways.join(","), found[0].dns_servers.len()), ("192.0.2.1".to_owned(), 2));
        assert!(!found[0].dhcp4 && found[0].dhcp6);
        assert_eq!((found[0].mtu, found[0].automatic), (Some(9000), Some(false)));
        assert_eq!(read("etc/NetworkManager/system-connections/Wired 1", text).interfaces.len(), 1);
        assert!(read("etc/NetworkManager/system-connections/lan.rpmsave", text).interfaces.is_empty());
        assert!(read("usr/lib/NetworkManager/system-connections/lan", text).interfaces.is_empty());
    }
}
