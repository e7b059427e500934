//! netplan(5): YAML in three directories; of one file name the first directory's counts, later names override earlier.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::guest::report::NetworkInterface;

use super::super::files::Files;
use super::{interface, is_yes};

/// Highest precedence first.
const DIRECTORIES: [&str; 3] = ["/run/netplan", "/etc/netplan", "/lib/netplan"];
/// The nodes of one document: a host with a hundred interfaces has some thousands; aliases cannot multiply past this.
const NODES_MAX: usize = 50_000;
/// Mappings inside one another; netplan's own documents have six levels.
const DEPTH_MAX: usize = 32;

/// Any YAML.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Yaml {
    Bool(bool),
    Number(i64),
    Text(String),
    List(Vec<Yaml>),
    Map(BTreeMap<String, Yaml>),
    Nothing(Nothing),
}

/// What says nothing.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "serde::de::IgnoredAny")]
pub(super) struct Nothing;

impl From<serde::de::IgnoredAny> for Nothing {
    fn from(_: serde::de::IgnoredAny) -> Self {
        Self
    }
}

impl Yaml {
    /// Takes in a later document: mappings combine, lists append, all else is overridden (netplan(5), "General
    /// structure"). The parser bounds the depth of both.
    fn merge(&mut self, later: Self) {
        match (self, later) {
            (Self::Map(known), Self::Map(later)) => {
                for (key, value) in later {
                    match known.get_mut(&key) {
                        Some(known) => known.merge(value),
                        None => {
                            known.insert(key, value);
                        }
                    }
                }
            }
            (Self::List(known), Self::List(later)) => known.extend(later),
            (known, later) => *known = later,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(map) => map.get(key),
            _ => None,
        }
    }

    pub(super) fn map(&self) -> impl Iterator<Item = (&String, &Self)> {
        let map = match self {
            Self::Map(map) => Some(map),
            _ => None,
        };
        map.into_iter().flatten()
    }

    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Number(number) => Some(number.to_string()),
            Self::Bool(flag) => Some(flag.to_string()),
            _ => None,
        }
    }

    /// The texts of a list; an address may be a mapping with options, whose key is the address.
    pub(super) fn texts(&self) -> Vec<String> {
        match self {
            Self::List(items) => items
                .iter()
                .filter_map(|item| item.text().or_else(|| item.map().next().map(|(key, _)| key.clone())))
                .collect(),
            other => other.text().into_iter().collect(),
        }
    }

    fn flag(&self) -> bool {
        self.text().is_some_and(|text| is_yes(&text))
    }

    pub(super) fn number(&self) -> Option<u32> {
        self.text()?.parse().ok()
    }
}

/// The interfaces of all documents.
pub(super) fn read(files: &Files<'_>) -> Vec<NetworkInterface> {
    let mut by_name: BTreeMap<String, String> = BTreeMap::new();
    for directory in DIRECTORIES {
        for path in files.with_suffix(directory, ".yaml") {
            by_name.entry(path.rsplit('/').next().unwrap_or_default().to_owned()).or_insert(path);
        }
    }
    let mut whole = Yaml::Map(BTreeMap::new());
    let mut sources: BTreeMap<String, &str> = BTreeMap::new();
    for path in by_name.values() {
        let Some(text) = files.text(path) else { continue };
        match parse(&text) {
            Ok(document) => {
                sources.extend(definitions(&document).map(|(_, name, _)| (name.clone(), path.as_str())));
                whole.merge(document);
            }
            Err(why) => files.warn(path.as_str(), why),
        }
    }
    let source = |name: &String| sources.get(name).copied().unwrap_or_default();
    let interfaces = definitions(&whole);
    interfaces.map(|(kind, name, found)| read_interface("netplan", name, kind, found, source(name))).collect()
}

/// A document, within bounds.
pub(super) fn parse(text: &str) -> Result<Yaml, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_events: NODES_MAX * 4,
            max_depth: DEPTH_MAX,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| format!("no valid YAML: {}", error.to_string().lines().next().unwrap_or_default()))
}

/// Every interface of a document: kind, name, definition.
pub(super) fn definitions(document: &Yaml) -> impl Iterator<Item = (&'static str, &String, &Yaml)> {
    let sections = [
        ("ethernets", "ethernet"),
        ("wifis", "wifi"),
        ("bonds", "bond"),
        ("bridges", "bridge"),
        ("vlans", "vlan"),
        ("tunnels", "tunnel"),
        ("dummy-devices", "dummy"),
        ("virtual-ethernets", "veth"),
        ("modems", "modem"),
        ("vrfs", "vrf"),
    ];
    sections.into_iter().flat_map(move |(section, kind)| {
        let found = document.get("network").and_then(|network| network.get(section)).into_iter().flat_map(Yaml::map);
        found.map(move |(name, definition)| (kind, name, definition))
    })
}

/// What a definition says, on behalf of `manager`.
pub(super) fn read_interface(manager: &str, name: &str, kind: &str, definition: &Yaml, path: &str) -> NetworkInterface {
    let set_name = definition.get("set-name").and_then(Yaml::text);
    let mut found = interface(manager, set_name.as_deref().unwrap_or(name), path);
    found.kind = Some(kind.to_owned());
    let flag = |key: &str| definition.get(key).is_some_and(Yaml::flag);
    let texts = |key: &str| definition.get(key).map(Yaml::texts).unwrap_or_default();
    (found.dhcp4, found.dhcp6) = (flag("dhcp4"), flag("dhcp6"));
    found.addresses = texts("addresses");
    found.gateways = [texts("gateway4"), texts("gateway6")].concat();
    if let Some(Yaml::List(routes)) = definition.get("routes") {
        for route in routes {
            let to = route.get("to").and_then(Yaml::text).unwrap_or_default();
            let Some(via) = route.get("via").and_then(Yaml::text) else { continue };
            if matches!(to.as_str(), "default" | "0.0.0.0/0" | "::/0") {
                found.gateways.push(via);
            } else {
                found.routes.push(format!("{to} via {via}"));
            }
        }
    }
    let nameservers = definition.get("nameservers");
    found.dns_servers = nameservers.and_then(|servers| servers.get("addresses")).map(Yaml::texts).unwrap_or_default();
    found.dns_search = nameservers.and_then(|servers| servers.get("search")).map(Yaml::texts).unwrap_or_default();
    let matched = definition.get("match").and_then(|matched| matched.get("macaddress"));
    found.mac = definition.get("macaddress").or(matched).and_then(Yaml::text);
    found.mtu = definition.get("mtu").and_then(Yaml::number);
    found.members = texts("interfaces");
    found.vlan_id = definition.get("id").and_then(Yaml::number).filter(|_| kind == "vlan");
    found.parent = definition.get("link").and_then(Yaml::text);
    let activation = definition.get("activation-mode").and_then(Yaml::text);
    found.automatic = Some(activation.is_none_or(|mode| !matches!(mode.as_str(), "off" | "manual")));
    found
}

#[cfg(test)]
mod tests {
    use super::super::super::files::Files;
    use super::super::super::fixture::Fixture;
    use super::super::tests::read;
    use super::parse;

    #[test]
    fn documents_of_several_shapes_are_read() {
        let text = "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    id0:\n      match: {macaddress: '52:54:00:00:00:01'}\n      set-name: ens3\n      dhcp4: yes\n      addresses:\n      - 192.0.2.5/24\n      - 2001:db8::5/64: {lifetime: 0}\n      routes:\n      - {to: default, via: 192.0.2.1}\n      - {to: 10.0.0.0/8, via: 192.0.2.2}\n      nameservers:\n        addresses: [1.1.1.1]\n        search: [a.example]\n  vlans:\n    v5: {id: 5, link: ens3}\n";
        let found = read("etc/netplan/50-cloud-init.yaml", text).interfaces;
        assert_eq!(found[0].name, "ens3");
        assert!(found[0].dhcp4);
        assert_eq!(found[0].addresses, ["192.0.2.5/24", "2001:db8::5/64"]);
        assert_eq!(
            (found[0].gateways[0].as_str(), found[0].routes[0].as_str()),
            ("192.0.2.1", "10.0.0.0/8 via 192.0.2.2")
        );
        assert_eq!((found[1].vlan_id, found[1].parent.as_deref()), (Some(5), Some("ens3")));
    }

    /// As `netplan get` of netplan 0.106 prints the two documents together.
    #[test]
    fn documents_combine_by_key() {
        let fixture = Fixture::new();
        fixture.file(
            "etc/netplan/01-a.yaml",
            "network: {ethernets: {e0: {addresses: [192.0.2.5/24], mtu: 1400, dhcp6: true, nameservers: {addresses: [1.1.1.1], search: [a]}}}}\n",
        );
        fixture.file(
            "etc/netplan/02-b.yaml",
            "network:\n  ethernets:\n    e0:\n      dhcp4: true\n      mtu: 1450\n      addresses: [192.0.2.6/24]\n      nameservers:\n        addresses: [9.9.9.9]\n    e1:\n",
        );
        let tree = fixture.tree();
        let found = super::read(&Files::new(&tree));
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].dhcp4, found[0].dhcp6, found[0].mtu), (true, true, Some(1450)));
        assert_eq!(found[0].addresses, ["192.0.2.5/24", "192.0.2.6/24"]);
        assert_eq!(
            (found[0].dns_servers.join(","), found[0].dns_search.join(",")),
            ("1.1.1.1,9.9.9.9".into(), "a".into())
        );
        assert_eq!((found[0].source.as_str(), found[1].name.as_str()), ("/etc/netplan/02-b.yaml", "e1"));
    }

    #[test]
    fn hostile_documents_are_refused() {
        assert!(parse(&"[".repeat(100_000)).is_err());
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..20 {
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(",")));
        }
        assert!(parse(&bomb).is_err());
        assert!(parse("a: [").is_err());
    }
}
