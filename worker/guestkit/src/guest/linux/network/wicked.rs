//! wicked's own files: interfaces as XML, beside the ifcfg files that it takes as well. Sources: wicked-config(5), and the
//! `interface` elements that `wicked show-config` prints.

use roxmltree::{Document, Node, ParsingOptions};

use crate::guest::report::NetworkInterface;

use super::super::files::Files;
use super::interface;

/// Elements and attributes of one file.
const NODES_MAX: u32 = 100_000;

/// Every interface of every file.
pub(super) fn read(files: &Files<'_>) -> Vec<NetworkInterface> {
    let mut found = Vec::new();
    for path in files.with_suffix("/etc/wicked/ifconfig", ".xml") {
        let Some(text) = files.text(&path) else { continue };
        // A file may be several elements without one around them; the prefixes in it are declared nowhere.
        let text = text.split_once("?>").map_or(text.as_str(), |(_, rest)| rest);
        let whole = format!("<all xmlns:ipv4=\"ipv4\" xmlns:ipv6=\"ipv6\">{text}</all>");
        let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
        match Document::parse_with_options(&whole, options) {
            Ok(document) => {
                let interfaces = document.descendants().filter(|node| node.has_tag_name("interface"));
                found.extend(interfaces.filter_map(|node| parse(node, &path)));
            }
            Err(error) => files.warn(&path, error.to_string()),
        }
    }
    found
}

/// The text at the end of a path of elements.
fn text<'d>(node: Node<'d, '_>, path: &[&str]) -> Option<&'d str> {
    let end = path.iter().try_fold(node, |node, name| node.children().find(|child| child.has_tag_name(*name)))?;
    end.text().map(str::trim).filter(|text| !text.is_empty())
}

/// Whether addresses of a family come by DHCP.
fn has_dhcp(node: Node<'_, '_>, family: &str) -> bool {
    let found = node.children().find(|child| child.has_tag_name((family, "dhcp")));
    found.is_some_and(|found| text(found, &["enabled"]) != Some("false"))
}

fn parse(node: Node<'_, '_>, path: &str) -> Option<NetworkInterface> {
    let mut found = interface("wicked", text(node, &["name"])?, path);
    found.dhcp4 = has_dhcp(node, "ipv4");
    found.dhcp6 = has_dhcp(node, "ipv6");
    for section in node.children().filter(Node::is_element) {
        match section.tag_name().name() {
            // Of either family.
            "static" => take_static(section, &mut found),
            "bond" | "bridge" => {
                found.kind = Some(section.tag_name().name().to_owned());
                let parts =
                    section.descendants().filter(|part| part.has_tag_name("slave") || part.has_tag_name("port"));
                found.members.extend(parts.filter_map(|part| text(part, &["device"])).map(str::to_owned));
            }
            "vlan" => {
                found.kind = Some("vlan".to_owned());
                found.parent = text(section, &["device"]).map(str::to_owned);
                found.vlan_id = text(section, &["tag"]).and_then(|tag| tag.parse().ok());
            }
            "link" | "ethernet" => {
                found.mtu = text(section, &["mtu"]).and_then(|mtu| mtu.parse().ok()).or(found.mtu);
                found.mac = text(section, &["address"]).map(str::to_owned).or(found.mac.take());
            }
            "control" => found.automatic = text(section, &["mode"]).map(|mode| matches!(mode, "boot" | "hotplug")),
            _ => {}
        }
    }
    Some(found)
}

fn take_static(section: Node<'_, '_>, found: &mut NetworkInterface) {
    for entry in section.children().filter(Node::is_element) {
        match entry.tag_name().name() {
            "address" => found.addresses.extend(text(entry, &["local"]).map(str::to_owned)),
            "route" => {
                let gateway = text(entry, &["nexthop", "gateway"]).or_else(|| text(entry, &["gateway"]));
                let destination = text(entry, &["destination"]).filter(|to| !matches!(*to, "0.0.0.0/0" | "::/0"));
                match (destination, gateway) {
                    (None, Some(gateway)) => found.gateways.push(gateway.to_owned()),
                    (Some(to), Some(gateway)) => found.routes.push(format!("{to} via {gateway}")),
                    (Some(to), None) => found.routes.push(to.to_owned()),
                    (None, None) => {}
                }
            }
            "resolver" => {
                let servers = entry.descendants().filter(|node| node.has_tag_name("server"));
                found.dns_servers.extend(servers.filter_map(|node| Some(node.text()?.trim().to_owned())));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;

    /// As wicked-config(5) and the package's own samples write them.
    #[test]
    fn interfaces_of_xml_are_read() {
        let text = "<?xml version=\"1.0\"?>\n<interface origin=\"static\"><name>eth0</name><control><mode>boot</mode></control>\
            <link><mtu>9000</mtu></link><ipv4><enabled>true</enabled></ipv4>\
            <ipv4:static><address><local>192.0.2.5/24</local></address>\
            <route><nexthop><gateway>192.0.2.1</gateway></nexthop></route>\
            <route><destination>10.0.0.0/8</destination><nexthop><gateway>192.0.2.9</gateway></nexthop></route></ipv4:static>\
            <ipv6:dhcp><enabled>true</enabled></ipv6:dhcp></interface>\n\
            <interface><name>bond0</name><bond><slaves><slave><device>eth1</device></slave></slaves></bond></interface>\n\
            <interface><name>eth0.7</name><vlan><device>eth0</device><tag>7</tag></vlan><ipv4:dhcp><enabled>false</enabled></ipv4:dhcp></interface>";
        let found = read("etc/wicked/ifconfig/a.xml", text).interfaces;
        let one = |name: &str| found.iter().find(|one| one.name == name).unwrap();
        assert_eq!(one("eth0").addresses, ["192.0.2.5/24"]);
        assert_eq!((one("eth0").gateways.join(" "), one("eth0").mtu), ("192.0.2.1".to_owned(), Some(9000)));
        assert_eq!(one("eth0").routes, ["10.0.0.0/8 via 192.0.2.9"]);
        assert_eq!((one("eth0").dhcp4, one("eth0").dhcp6, one("eth0").automatic), (false, true, Some(true)));
        assert_eq!((one("bond0").kind.as_deref(), one("bond0").members.join(" ")), (Some("bond"), "eth1".to_owned()));
        assert_eq!((one("eth0.7").parent.as_deref(), one("eth0.7").vlan_id), (Some("eth0"), Some(7)));
        assert!(!one("eth0.7").dhcp4);
    }

    #[test]
    fn hostile_xml_ends() {
        for text in
            ["<interface>", "", "<!DOCTYPE a [<!ENTITY b \"&b;&b;\">]><interface><name>&b;</name></interface>", "?>"]
        {
            assert!(read("etc/wicked/ifconfig/a.xml", text).interfaces.is_empty(), "{text}");
        }
        assert!(read("etc/wicked/ifconfig/a.xml", &"<interface>".repeat(100_000)).interfaces.is_empty());
    }
}
