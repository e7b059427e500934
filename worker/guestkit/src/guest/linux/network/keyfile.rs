//! nm-settings-keyfile(5) of NetworkManager: one connection for each file.

use std::collections::BTreeMap;

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

/// A connection, and what others name it by.
struct Connection {
    interface: NetworkInterface,
    names: [Option<String>; 3],
    /// The bond, bridge or team that it is a port of.
    controller: Option<String>,
}

/// One interface for each connection. Of one file name the first directory's counts.
pub(super) fn read(files: &Files<'_>) -> Vec<NetworkInterface> {
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    for directory in DIRECTORIES {
        // Before 1.20 the files of the first directory had no extension, and they are read still.
        let is_old = |name: &str| directory == DIRECTORIES[0] && !name.contains('.') && !name.ends_with('~');
        for name in files.names(directory) {
            if !name.starts_with('.') && (name.ends_with(".nmconnection") || is_old(&name)) {
                let path = format!("{directory}/{name}");
                paths.entry(name).or_insert(path);
            }
        }
    }
    let read = |path: &String| connection(&files.text(path)?, path);
    let mut connections: Vec<Connection> = paths.values().filter_map(read).collect();
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for port in &connections {
        if let Some(controller) = &port.controller {
            members.entry(controller.clone()).or_default().push(port.interface.name.clone());
        }
    }
    for connection in &mut connections {
        let known = connection.names.iter().flatten().filter_map(|name| members.remove(name));
        connection.interface.members.extend(known.flatten());
    }
    connections.into_iter().map(|connection| connection.interface).collect()
}

fn connection(text: &str, path: &str) -> Option<Connection> {
    let file = UnitFile::parse(text);
    let value = |section: &str, key: &str| file.last(section, key).map(str::to_owned);
    let r#type = value("connection", "type")?;
    let name = value("connection", "interface-name").or_else(|| value("connection", "id"))?;
    let controller = value("connection", "controller").or_else(|| value("connection", "master"));
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
    // Without a method it is automatic, but for what has no addresses of its own.
    let has_addresses = controller.is_none() && r#type != "wireguard";
    let is_automatic = |section: &str| match file.last(section, "method") {
        Some(method) => matches!(method, "auto" | "dhcp"),
        None => has_addresses,
    };
    found.dhcp4 = is_automatic("ipv4");
    // `auto` of IPv6 is router advertisement first, and DHCPv6 where the router says so.
    found.dhcp6 = is_automatic("ipv6");
    for (section, length) in [("ipv4", "24"), ("ipv6", "64")] {
        let mut gateway = None;
        for (key, text) in file.section(section) {
            let list = || text.split([';', ',', '/']).map(str::trim).filter(|item| !item.is_empty());
            let is_of = |name: &str| {
                let number = key.strip_prefix(name).map(|rest| rest.strip_prefix("es").unwrap_or(rest));
                let number = number.map(|rest| rest.strip_prefix('s').unwrap_or(rest));
                number.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
            };
            if is_of("address") || is_of("route") {
                // `address1=192.0.2.5/24,192.0.2.1`, and as it was written before 1.0, `addresses1=192.0.2.5;24;192.0.2.1;`.
                let mut parts = list().peekable();
                let Some(address) = parts.next() else { continue };
                let is_number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
                let length = parts.next_if(is_number).unwrap_or(length);
                let via = parts.next().filter(|via| !matches!(*via, "0.0.0.0" | "::") && !is_number(via));
                match (is_of("address"), via) {
                    (true, via) => {
                        found.addresses.push(format!("{address}/{length}"));
                        gateway = gateway.or(via.map(str::to_owned));
                    }
                    (false, Some(via)) if length == "0" => found.gateways.push(via.to_owned()),
                    (false, Some(via)) => found.routes.push(format!("{address}/{length} via {via}")),
                    (false, None) => {}
                }
            } else {
                match key {
                    "dns" => found.dns_servers.extend(list().map(str::to_owned)),
                    "dns-search" => found.dns_search.extend(list().map(str::to_owned)),
                    _ => {}
                }
            }
        }
        // A connection has one of each family: the one that is named so, or the first of an address.
        found.gateways.extend(value(section, "gateway").or(gateway));
    }
    let mac = ["ethernet", "802-3-ethernet", "wifi"]
        .iter()
        .find_map(|section| value(section, "cloned-mac-address").or_else(|| value(section, "mac-address")));
    found.mac = mac;
    found.mtu = ["ethernet", "802-3-ethernet"].iter().find_map(|section| value(section, "mtu")?.parse().ok());
    found.vlan_id = value("vlan", "id").and_then(|id| id.parse().ok());
    found.parent = value("vlan", "parent");
    found.automatic = Some(value("connection", "autoconnect").as_deref() != Some("false"));
    let names = ["interface-name", "uuid", "id"].map(|key| value("connection", key));
    Some(Connection { interface: found, names, controller })
}

#[cfg(test)]
mod tests {
    use super::super::super::files::Files;
    use super::super::super::fixture::Fixture;
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

    /// Addresses, gateways and methods as `nmcli --offline connection modify` of NetworkManager 1.42 writes them again.
    #[test]
    fn old_spellings_and_defaults_are_those_of_network_manager() {
        let text = "[connection]\nid=z\ntype=ethernet\n[ipv4]\naddress1=10.1.1.1\naddresses2=10.2.0.1;16;10.2.0.9;\naddress4=10.5.5.5/24,10.5.5.1\nroute1=10.0.0.0/8,192.0.2.9,5\nroutes2=10.1.0.0;16;192.0.2.9;0;\nmethod=manual\n[ipv6]\nmethod=manual\naddress1=2001:db8::1,2001:db8::ff\naddresses2=2001:db8::2;64;::\nroute1=::/0,2001:db8::9\n";
        let found = &read("etc/NetworkManager/system-connections/z.nmconnection", text).interfaces[0];
        let addresses = ["10.1.1.1/24", "10.2.0.1/16", "10.5.5.5/24", "2001:db8::1/64", "2001:db8::2/64"];
        assert_eq!(found.addresses, addresses);
        assert_eq!(found.gateways, ["10.2.0.9", "2001:db8::9", "2001:db8::ff"]);
        assert_eq!(found.routes, ["10.0.0.0/8 via 192.0.2.9", "10.1.0.0/16 via 192.0.2.9"]);
        let bare = "[connection]\nid=x\ntype=ethernet\n";
        let found = &read("etc/NetworkManager/system-connections/x.nmconnection", bare).interfaces[0];
        assert!(found.dhcp4 && found.dhcp6);
        let tunnel = "[connection]\nid=w\ntype=wireguard\n";
        let found = &read("etc/NetworkManager/system-connections/w.nmconnection", tunnel).interfaces[0];
        assert!(!found.dhcp4 && !found.dhcp6);
    }

    #[test]
    fn ports_are_members_and_the_first_file_of_a_name_counts() {
        let fixture = Fixture::new();
        let connection = |id: &str, rest: &str| format!("[connection]\nid={id}\ntype=ethernet\n{rest}");
        let own = |name: &str| format!("etc/NetworkManager/system-connections/{name}.nmconnection");
        fixture.file(&own("bond"), "[connection]\nid=b\nuuid=1-2\ntype=bond\ninterface-name=bond0\n");
        fixture.file(&own("a"), connection("a", "interface-name=ens3\nmaster=bond0\nslave-type=bond\n"));
        fixture.file(&own("c"), connection("c", "interface-name=ens4\ncontroller=1-2\nport-type=bond\n"));
        fixture.file("usr/lib/NetworkManager/system-connections/a.nmconnection", connection("z", ""));
        let tree = fixture.tree();
        let found = super::read(&Files::new(&tree));
        assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["ens3", "bond0", "ens4"]);
        assert_eq!((found[1].members.join(" "), found[0].dhcp4), ("ens3 ens4".to_owned(), false));
    }
}
