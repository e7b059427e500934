//! interfaces(5) of ifupdown: `/etc/network/interfaces` and what it sources.

use std::collections::BTreeSet;

use crate::guest::report::NetworkInterface;

use super::super::files::Files;
use super::{interface, with_prefix};

/// Files that one configuration may source: drop-ins are tens.
const FILES_MAX: usize = 1_000;

/// The interfaces of every stanza.
pub(super) fn read(files: &Files<'_>) -> Vec<NetworkInterface> {
    let mut pending = vec!["/etc/network/interfaces".to_owned()];
    let mut seen = BTreeSet::new();
    let mut found = Found::default();
    while let Some(path) = pending.pop() {
        if seen.contains(&path) {
            continue;
        }
        if seen.len() >= FILES_MAX {
            files.warn(path, format!("sourced files past the first {FILES_MAX} are left out"));
            break;
        }
        let Some(text) = files.text(&path) else { continue };
        let sourced = parse(&text, &path, &mut found);
        if sourced.len() > FILES_MAX {
            files.warn(path.as_str(), format!("`source` lines past the first {FILES_MAX} are left out"));
        }
        seen.insert(path);
        let mut next = Vec::new();
        for (is_directory, pattern) in sourced.into_iter().take(FILES_MAX) {
            let pattern = if pattern.starts_with('/') { pattern } else { format!("/etc/network/{pattern}") };
            for path in files.glob(&pattern) {
                if is_directory {
                    // Names of letters, digits, `_` and `-` only.
                    let is_plain =
                        |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
                    let names = files.names(&path).into_iter().filter(is_plain);
                    next.extend(names.map(|name| format!("{path}/{name}")));
                } else {
                    next.push(path);
                }
            }
        }
        // In the order they are written, which is that of the names.
        pending.extend(next.into_iter().rev());
    }
    for interface in &mut found.interfaces {
        name_vlan(interface);
        interface.automatic = Some(found.automatic.contains(&interface.name));
    }
    found.interfaces
}

#[derive(Default)]
struct Found {
    interfaces: Vec<NetworkInterface>,
    automatic: BTreeSet<String>,
}

/// Takes in one file; returns what it sources, and whether that is a directory.
fn parse(text: &str, path: &str, found: &mut Found) -> Vec<(bool, String)> {
    let mut sourced = Vec::new();
    let mut current: Option<usize> = None;
    let joined = text.replace("\\\n", " ");
    let mut mask = None;
    for line in joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "auto" | "allow-auto" | "allow-hotplug" => {
                found.automatic.extend(rest.split_whitespace().map(str::to_owned));
                current = None;
            }
            // One more than is read, so that the caller can tell of it.
            "source" | "source-directory" if sourced.len() > FILES_MAX => {}
            "source" => sourced.push((false, rest.to_owned())),
            "source-directory" => sourced.push((true, rest.to_owned())),
            // The caller tells of interfaces past its bound.
            "iface" if found.interfaces.len() > super::INTERFACES_MAX => current = None,
            "iface" => {
                mask = None;
                current = Some(stanza(rest, path, found));
            }
            "mapping" => current = None,
            _ => {
                if let Some(interface) = current.and_then(|index| found.interfaces.get_mut(index)) {
                    option(interface, word, rest, &mut mask);
                }
            }
        }
    }
    sourced
}

/// `iface NAME FAMILY METHOD`: stanzas of one name are one interface.
fn stanza(rest: &str, path: &str, found: &mut Found) -> usize {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let name = words.first().copied().unwrap_or_default();
    let known = found.interfaces.iter().position(|interface| interface.name == name);
    let index = known.unwrap_or_else(|| {
        found.interfaces.push(interface("ifupdown", name, path));
        found.interfaces.len() - 1
    });
    if let Some(interface) = found.interfaces.get_mut(index) {
        match (words.get(1).copied(), words.get(2).copied()) {
            (Some("inet"), Some("dhcp")) => interface.dhcp4 = true,
            (Some("inet6"), Some("dhcp")) => interface.dhcp6 = true,
            (_, Some("loopback")) => interface.kind = Some("loopback".to_owned()),
            _ => {}
        }
    }
    index
}

/// `eth0.100` and `vlan100` say their VLAN by name (interfaces(5), "VLAN INTERFACES").
fn name_vlan(interface: &mut NetworkInterface) {
    let dotted = interface.name.rsplit_once('.').map(|(parent, id)| (Some(parent.to_owned()), id));
    let prefixed = || interface.name.strip_prefix("vlan").map(|id| (None, id));
    let Some((parent, id)) = dotted.or_else(prefixed) else { return };
    // IEEE 802.1Q has twelve bits.
    let Some(id) = id.parse::<u32>().ok().filter(|id| *id < 4_096) else { return };
    if parent.is_some() || interface.parent.is_some() {
        interface.kind = Some("vlan".to_owned());
        interface.vlan_id = interface.vlan_id.or(Some(id));
        interface.parent = interface.parent.take().or(parent);
    }
}

fn option(interface: &mut NetworkInterface, word: &str, rest: &str, mask: &mut Option<String>) {
    let words = || rest.split_whitespace().map(str::to_owned);
    match word {
        "address" => interface.addresses.push(with_prefix(rest, mask.take().as_deref())),
        "netmask" => match interface.addresses.last_mut().filter(|address| !address.contains('/')) {
            Some(address) => *address = with_prefix(address, Some(rest)),
            None => *mask = Some(rest.to_owned()),
        },
        "gateway" => interface.gateways.push(rest.to_owned()),
        "dns-nameservers" | "dns-nameserver" => interface.dns_servers.extend(words()),
        "dns-search" | "dns-domain" => interface.dns_search.extend(words()),
        "mtu" => interface.mtu = rest.parse().ok(),
        "hwaddress" => interface.mac = words().next_back(),
        "bridge_ports" | "bridge-ports" => {
            interface.kind = Some("bridge".to_owned());
            interface.members.extend(words().filter(|member| member != "none"));
        }
        "bond-slaves" | "slaves" | "bond_slaves" => {
            interface.kind = Some("bond".to_owned());
            interface.members.extend(words().filter(|member| member != "none"));
        }
        "vlan-raw-device" | "vlan_raw_device" => {
            interface.kind = Some("vlan".to_owned());
            interface.parent = Some(rest.to_owned());
        }
        "vlan-id" => interface.vlan_id = rest.parse().ok(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::files::Files;
    use super::super::super::fixture::Fixture;
    use super::super::tests::read;

    #[test]
    fn stanzas_are_joined_by_name() {
        let text = "auto lo eth0\niface lo inet loopback\niface eth0 inet static\n address 192.0.2.5\n netmask 255.255.255.0\n gateway 192.0.2.1\n\
                    dns-nameservers 1.1.1.1 \\\n 9.9.9.9\niface eth0 inet6 dhcp\niface br0 inet dhcp\n bridge_ports eth1 eth2\n";
        let found = read("etc/network/interfaces", text).interfaces;
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].addresses, ["192.0.2.5/24"]);
        assert_eq!(found[1].dns_servers, ["1.1.1.1", "9.9.9.9"]);
        assert!(found[1].dhcp6 && !found[1].dhcp4);
        assert_eq!(
            (found[0].kind.as_deref(), found[0].members.len(), found[0].automatic),
            (Some("bridge"), 2, Some(false))
        );
    }

    #[test]
    fn vlans_are_told_by_their_names() {
        let text = "iface eth0.100 inet static\n vlan-raw-device eth0\niface vlan7 inet manual\n vlan_raw_device eth1\niface en1.x inet dhcp\niface eth2.5 inet dhcp\n";
        let found = read("etc/network/interfaces", text).interfaces;
        let shown: Vec<_> =
            found.iter().map(|found| (found.name.as_str(), found.vlan_id, found.parent.as_deref())).collect();
        assert_eq!(
            shown,
            [
                ("en1.x", None, None),
                ("eth0.100", Some(100), Some("eth0")),
                ("eth2.5", Some(5), Some("eth2")),
                ("vlan7", Some(7), Some("eth1")),
            ]
        );
    }

    #[test]
    fn more_sources_than_are_read_give_a_warning() {
        let fixture = Fixture::new();
        fixture.file("etc/network/interfaces", "source /etc/network/none\n".repeat(1_001));
        let tree = fixture.tree();
        let files = Files::new(&tree);
        super::read(&files);
        assert_eq!(files.into_warnings().len(), 1);
    }

    #[test]
    fn a_file_that_sources_itself_ends() {
        assert!(
            read("etc/network/interfaces", "source /etc/network/*\nsource-directory /etc/network\niface\n")
                .interfaces
                .len()
                <= 1
        );
    }
}
