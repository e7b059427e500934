//! ifcfg files of the Red Hat and SUSE families, and the files of routes beside them: `KEY=value` in the shell's quoting. Sources:
//! the initscripts package's sysconfig.txt; ifcfg(5), ifcfg-bonding(5), ifcfg-bridge(5), ifcfg-vlan(5) and routes(5) of wicked.

use std::collections::BTreeMap;

use crate::guest::report::NetworkInterface;

use super::super::files::Files;
use super::super::os_release;
use super::{interface, is_yes, with_prefix};

/// Where they lie, in the Red Hat and in the SUSE family.
const DIRECTORIES: [&str; 2] = ["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"];

/// One interface for each file.
pub(super) fn read(files: &Files<'_>) -> Vec<NetworkInterface> {
    let mut found = Vec::new();
    // What interfaces say of those they are part of.
    let mut members: Vec<(String, String)> = Vec::new();
    for directory in DIRECTORIES {
        for file in files.names(directory) {
            let Some(name) = file.strip_prefix("ifcfg-") else { continue };
            // Editors' and package managers' left-overs are not read by the scripts either.
            let is_left_over =
                [".bak", ".orig", ".rpmsave", ".rpmnew", "~", ".template"].iter().any(|end| name.ends_with(end));
            let path = format!("{directory}/{file}");
            let Some(text) = files.text(&path).filter(|_| !is_left_over) else { continue };
            let values = Values(os_release::assignments(&text).collect());
            let mut one = parse(name, &values, &path);
            let of = ["MASTER", "TEAM_MASTER", "BRIDGE"].into_iter().filter_map(|key| values.get(key));
            // SUSE says here that the interface is a bridge.
            members.extend(of.filter(|name| !is_yes(name) && *name != "no").map(|bridge| (bridge, one.name.clone())));
            for route in [format!("{directory}/route-{name}"), format!("{directory}/route6-{name}")] {
                initscripts_routes(&files.text(&route).unwrap_or_default(), &mut one);
            }
            wicked_routes(&files.text(&format!("{directory}/ifroute-{name}")).unwrap_or_default(), &mut [&mut one]);
            found.push(one);
        }
    }
    for (whole, member) in members {
        if let Some(one) = found.iter_mut().find(|one| one.name == whole && !one.members.contains(&member)) {
            one.members.push(member);
        }
    }
    if let Some(text) = files.text("/etc/sysconfig/network/routes") {
        wicked_routes(&text, &mut found.iter_mut().collect::<Vec<_>>());
    }
    found
}

/// Assignments of one file, the last of each name.
struct Values<'t>(BTreeMap<&'t str, String>);

impl Values<'_> {
    fn get(&self, key: &str) -> Option<String> {
        self.0.get(key).filter(|value| !value.is_empty()).cloned()
    }

    fn is_yes(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| is_yes(&value))
    }

    /// Values of all names that begin so, in the order of names, with how each name ends.
    fn beginning(&self, start: &str) -> impl Iterator<Item = (&str, &str)> {
        let named = self.0.iter().filter_map(move |(key, value)| Some((key.strip_prefix(start)?, value.as_str())));
        named.filter(|(_, value)| !value.is_empty())
    }
}

fn parse(name: &str, values: &Values<'_>, path: &str) -> NetworkInterface {
    let value = |key: &str| values.get(key);
    let mut found = interface("ifcfg", value("DEVICE").as_deref().unwrap_or(name), path);
    let protocol = value("BOOTPROTO").unwrap_or_default().to_ascii_lowercase();
    found.dhcp4 = protocol.split('+').any(|part| matches!(part, "dhcp" | "dhcp4" | "bootp"));
    found.dhcp6 = protocol.split('+').any(|part| matches!(part, "dhcp" | "dhcp6")) && path.starts_with(DIRECTORIES[1])
        || protocol == "dhcp6"
        || values.is_yes("DHCPV6C");
    for (suffix, address) in values.beginning("IPADDR") {
        let length = value(&format!("PREFIX{suffix}")).or_else(|| value(&format!("PREFIXLEN{suffix}")));
        let mask = length.or_else(|| value(&format!("NETMASK{suffix}")));
        found.addresses.push(with_prefix(address, mask.as_deref()));
    }
    let secondary = value("IPV6ADDR_SECONDARIES").unwrap_or_default();
    found.addresses.extend(value("IPV6ADDR"));
    found.addresses.extend(secondary.split_whitespace().map(str::to_owned));
    let numbered = |start: &str| {
        let named = values.beginning(start).filter(|(suffix, _)| suffix.bytes().all(|byte| byte.is_ascii_digit()));
        named.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    found.gateways = numbered("GATEWAY");
    found.gateways.extend(value("IPV6_DEFAULTGW"));
    found.dns_servers = numbered("DNS");
    found.dns_search =
        value("DOMAIN").map(|list| list.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
    found.mac = value("MACADDR").or_else(|| value("HWADDR")).or_else(|| value("LLADDR"));
    found.mtu = value("MTU").and_then(|mtu| mtu.parse().ok());
    let start = value("ONBOOT").map(|flag| is_yes(&flag));
    found.automatic = start
        .or_else(|| value("STARTMODE").map(|mode| matches!(mode.as_str(), "auto" | "boot" | "hotplug" | "nfsroot")));
    take_kind(values, &mut found);
    found
}

/// What kind of interface it is, and what it is made of.
fn take_kind(values: &Values<'_>, found: &mut NetworkInterface) {
    let value = |key: &str| values.get(key);
    let r#type = value("TYPE").map(|kind| kind.to_ascii_lowercase());
    found.kind = found.kind.take().or(r#type);
    if values.is_yes("BONDING_MASTER") || value("BONDING_OPTS").is_some() {
        found.kind = Some("bond".to_owned());
    }
    found.members.extend(values.beginning("BONDING_SLAVE").map(|(_, name)| name.to_owned()));
    if values.is_yes("BRIDGE") || value("BRIDGE_PORTS").is_some() {
        found.kind = Some("bridge".to_owned());
        found.members.extend(value("BRIDGE_PORTS").unwrap_or_default().split_whitespace().map(str::to_owned));
    }
    if values.is_yes("VLAN") || value("ETHERDEVICE").is_some() || found.kind.as_deref() == Some("vlan") {
        // The name tells what nothing else does: `eth0.100`, `vlan100`.
        let by_name = found.name.rsplit_once('.').map(|(parent, id)| (parent.to_owned(), id.to_owned()));
        let id = by_name.as_ref().map_or_else(|| found.name.trim_start_matches("vlan"), |(_, id)| id.as_str());
        found.vlan_id = value("VLAN_ID").as_deref().unwrap_or(id).parse().ok();
        let parent = value("PHYSDEV").or_else(|| value("ETHERDEVICE"));
        found.parent = parent.or_else(|| by_name.map(|(parent, _)| parent));
        found.kind = Some("vlan".to_owned());
    }
}

fn take_route(found: &mut NetworkInterface, destination: &str, gateway: Option<&str>) {
    let is_default = matches!(destination, "default" | "0.0.0.0/0" | "::/0");
    match gateway {
        Some(gateway) if is_default => found.gateways.push(gateway.to_owned()),
        Some(gateway) => found.routes.push(format!("{destination} via {gateway}")),
        None => found.routes.push(destination.to_owned()),
    }
}

/// `ADDRESS0=`, `NETMASK0=`, `GATEWAY0=`; or the arguments of `ip route add`, a line for each.
fn initscripts_routes(text: &str, found: &mut NetworkInterface) {
    let values = Values(os_release::assignments(text).collect());
    for (number, address) in values.beginning("ADDRESS") {
        let destination = with_prefix(address, values.get(&format!("NETMASK{number}")).as_deref());
        take_route(found, &destination, values.get(&format!("GATEWAY{number}")).as_deref());
    }
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(destination) = words.first().filter(|word| !word.contains('=')) else { continue };
        let gateway = words.iter().position(|word| *word == "via").and_then(|at| words.get(at.checked_add(1)?));
        take_route(found, destination, gateway.copied());
    }
}

/// `DESTINATION GATEWAY NETMASK INTERFACE`, where `-` is nothing. A route without an interface is that of the one that reaches its
/// gateway, which a file of one interface has no doubt of.
fn wicked_routes(text: &str, interfaces: &mut [&mut NetworkInterface]) {
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let word = |at: usize| words.get(at).copied().filter(|word| *word != "-");
        let Some(destination) = word(0) else { continue };
        let destination =
            if destination == "default" { destination.to_owned() } else { with_prefix(destination, word(2)) };
        let is_only = interfaces.len() == 1;
        let named = |one: &&mut &mut NetworkInterface| is_only || word(3).is_some_and(|name| name == one.name);
        // Of several it is the one with static addresses, where there is one such.
        let at = interfaces.iter_mut().position(|one| named(&one)).or_else(|| {
            let mut fixed = interfaces.iter().enumerate().filter(|(_, one)| {
                word(3).is_none() && !one.addresses.is_empty() && one.kind.as_deref() != Some("loopback")
            });
            let first = fixed.next();
            first.filter(|_| fixed.next().is_none()).map(|(at, _)| at)
        });
        if let Some(found) = at.and_then(|at| interfaces.get_mut(at)) {
            take_route(found, &destination, word(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;
    use crate::guest::linux::files::Files;
    use crate::guest::linux::fixture::Fixture;

    #[test]
    fn files_of_both_families_are_read() {
        let text = "DEVICE=\"eth0\"\nBOOTPROTO=none\nONBOOT=yes\nIPADDR=192.0.2.5\nPREFIX=24\nIPADDR1=192.0.2.6\nNETMASK1=255.255.0.0\nGATEWAY=192.0.2.1\nDNS1=1.1.1.1\n";
        let found = read("etc/sysconfig/network-scripts/ifcfg-eth0", text).interfaces;
        assert_eq!(found[0].addresses, ["192.0.2.5/24", "192.0.2.6/16"]);
        assert_eq!((found[0].dns_servers.join(","), found[0].automatic), ("1.1.1.1".to_owned(), Some(true)));
        let found = read("etc/sysconfig/network/ifcfg-eth1", "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n").interfaces;
        assert!(found[0].dhcp4 && found[0].dhcp6);
        assert_eq!((found[0].name.as_str(), found[0].automatic), ("eth1", Some(true)));
    }

    #[test]
    fn bonds_bridges_and_vlans_name_what_they_are_made_of() {
        let fixture = Fixture::new();
        let old = "etc/sysconfig/network-scripts";
        fixture.file(&format!("{old}/ifcfg-bond0"), "DEVICE=bond0\nTYPE=Bond\nBONDING_MASTER=yes\nBRIDGE=br0\n");
        fixture.file(&format!("{old}/ifcfg-eth0"), "DEVICE=eth0\nMASTER=bond0\nSLAVE=yes\n");
        fixture.file(&format!("{old}/ifcfg-eth1"), "DEVICE=eth1\nMASTER=bond0\nSLAVE=yes\n");
        fixture.file(&format!("{old}/ifcfg-br0"), "DEVICE=br0\nTYPE=Bridge\nIPADDR=192.0.2.5\nPREFIX=24\n");
        fixture.file(&format!("{old}/ifcfg-eth2.100"), "DEVICE=eth2.100\nVLAN=yes\n");
        fixture.file(
            &format!("{old}/route-br0"),
            "ADDRESS0=10.0.0.0\nNETMASK0=255.0.0.0\nGATEWAY0=192.0.2.9\n172.16.0.0/12 via 192.0.2.8 dev br0\n",
        );
        let suse = "etc/sysconfig/network";
        fixture
            .file(&format!("{suse}/ifcfg-bond1"), "BONDING_MASTER='yes'\nBONDING_SLAVE0='em1'\nBONDING_SLAVE1='em2'\n");
        fixture
            .file(&format!("{suse}/ifcfg-br1"), "BRIDGE='yes'\nBRIDGE_PORTS='em3 em4'\nIPADDR_0='198.51.100.2/24'\n");
        fixture.file(&format!("{suse}/ifcfg-vlan7"), "ETHERDEVICE='em1'\n");
        fixture.file(&format!("{suse}/routes"), "default 198.51.100.1 - br1\n10.9.0.0/16 198.51.100.3 - -\n");
        let tree = fixture.tree();
        let found = super::read(&Files::new(&tree));
        let one = |name: &str| found.iter().find(|one| one.name == name).unwrap();
        assert_eq!(
            (one("bond0").kind.as_deref(), one("bond0").members.join(" ")),
            (Some("bond"), "eth0 eth1".to_owned())
        );
        assert_eq!((one("br0").kind.as_deref(), one("br0").members.join(" ")), (Some("bridge"), "bond0".to_owned()));
        assert_eq!(one("br0").routes, ["10.0.0.0/8 via 192.0.2.9", "172.16.0.0/12 via 192.0.2.8"]);
        let vlan = |name: &str| (one(name).parent.clone().unwrap(), one(name).vlan_id);
        assert_eq!(vlan("eth2.100"), ("eth2".to_owned(), Some(100)));
        assert_eq!(vlan("vlan7"), ("em1".to_owned(), Some(7)));
        assert_eq!(
            (one("bond1").kind.as_deref(), one("bond1").members.join(" ")),
            (Some("bond"), "em1 em2".to_owned())
        );
        assert_eq!(
            (one("br1").addresses.join(" "), one("br1").members.join(" ")),
            ("198.51.100.2/24".to_owned(), "em3 em4".to_owned())
        );
        assert_eq!(one("br1").gateways, ["198.51.100.1"]);
    }
}
