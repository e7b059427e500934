//! ifcfg files of the Red Hat and SUSE families: `KEY=value` in the shell's quoting. Sources: the initscripts package's
//! sysconfig.txt; ifcfg(5) of wicked.

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
    for directory in DIRECTORIES {
        for file in files.names(directory) {
            let Some(name) = file.strip_prefix("ifcfg-") else { continue };
            // Editors' and package managers' left-overs are not read by the scripts either.
            let is_left_over =
                [".bak", ".orig", ".rpmsave", ".rpmnew", "~", ".template"].iter().any(|end| name.ends_with(end));
            let path = format!("{directory}/{file}");
            if !is_left_over && let Some(text) = files.text(&path) {
                found.push(parse(name, &text, &path));
            }
        }
    }
    found
}

fn parse(name: &str, text: &str, path: &str) -> NetworkInterface {
    let values: BTreeMap<_, _> = os_release::assignments(text).collect();
    let value = |key: &str| values.get(key).filter(|value| !value.is_empty()).cloned();
    let mut found = interface("ifcfg", value("DEVICE").as_deref().unwrap_or(name), path);
    let protocol = value("BOOTPROTO").unwrap_or_default().to_ascii_lowercase();
    found.dhcp4 = matches!(protocol.as_str(), "dhcp" | "dhcp4" | "bootp");
    found.dhcp6 = protocol == "dhcp6" || value("DHCPV6C").is_some_and(|flag| is_yes(&flag));
    for suffix in std::iter::once(String::new()).chain((0..100).map(|number| number.to_string())) {
        if let Some(address) = value(&format!("IPADDR{suffix}")) {
            let length = value(&format!("PREFIX{suffix}")).or_else(|| value(&format!("PREFIXLEN{suffix}")));
            let mask = length.or_else(|| value(&format!("NETMASK{suffix}")));
            found.addresses.push(with_prefix(&address, mask.as_deref()));
        }
        found.gateways.extend(value(&format!("GATEWAY{suffix}")));
        found.dns_servers.extend(value(&format!("DNS{suffix}")));
    }
    found.addresses.extend(value("IPV6ADDR"));
    found.gateways.extend(value("IPV6_DEFAULTGW"));
    found.dns_search =
        value("DOMAIN").map(|list| list.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
    found.mac = value("MACADDR").or_else(|| value("HWADDR")).or_else(|| value("LLADDR"));
    found.mtu = value("MTU").and_then(|mtu| mtu.parse().ok());
    let start = value("ONBOOT").map(|flag| is_yes(&flag));
    found.automatic = start
        .or_else(|| value("STARTMODE").map(|mode| matches!(mode.as_str(), "auto" | "boot" | "hotplug" | "nfsroot")));
    let r#type = value("TYPE").map(|kind| kind.to_ascii_lowercase());
    found.kind = found.kind.take().or(r#type);
    if value("VLAN").is_some_and(|flag| is_yes(&flag)) || value("ETHERDEVICE").is_some() {
        found.kind = Some("vlan".to_owned());
        found.parent = value("PHYSDEV").or_else(|| value("ETHERDEVICE"));
        found.vlan_id = value("VLAN_ID").and_then(|id| id.parse().ok());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;

    #[test]
    fn files_of_both_families_are_read() {
        let text = "DEVICE=\"eth0\"\nBOOTPROTO=none\nONBOOT=yes\nIPADDR=192.0.2.5\nPREFIX=24\nIPADDR1=192.0.2.6\nNETMASK1=255.255.0.0\nGATEWAY=192.0.2.1\nDNS1=1.1.1.1\n";
        let found = read("etc/sysconfig/network-scripts/ifcfg-eth0", text).interfaces;
        assert_eq!(found[0].addresses, ["192.0.2.5/24", "192.0.2.6/16"]);
        assert_eq!((found[0].dns_servers.join(","), found[0].automatic), ("1.1.1.1".to_owned(), Some(true)));
        let found = read("etc/sysconfig/network/ifcfg-eth1", "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n").interfaces;
        assert!(found[0].dhcp4);
        assert_eq!((found[0].name.as_str(), found[0].automatic), ("eth1", Some(true)));
    }
}
