//! How the guest is set to reach the network, by whichever manager's files it has. Each manager's format is read by a pure
//! function of its own.

mod cloud_init;
mod ifcfg;
mod ifupdown;
mod keyfile;
mod leases;
mod netplan;
mod networkd;
mod wicked;

use crate::guest::report::{HostsEntry, Network, NetworkInterface, OperatingSystem, PersistentName};

use super::files::Files;

/// Interfaces of one guest: hypervisors with thousands of bridges exist, ten thousand interfaces do not.
const INTERFACES_MAX: usize = 10_000;

/// Reads one manager's files.
type Reader = fn(&Files<'_>) -> Vec<NetworkInterface>;

/// The module.
pub(crate) fn inspect(files: &Files<'_>, system: &OperatingSystem) -> Network {
    let mut report = Network { hostname: system.hostname.clone(), ..Network::default() };
    let managers: [(&str, Reader); 7] = [
        ("ifupdown", ifupdown::read),
        ("netplan", netplan::read),
        ("network-manager", keyfile::read),
        ("ifcfg", ifcfg::read),
        ("wicked", wicked::read),
        ("systemd-networkd", networkd::read),
        ("cloud-init", cloud_init::read),
    ];
    for (manager, read) in managers {
        let found = read(files);
        if !found.is_empty() {
            report.managers.push(manager.to_owned());
        }
        report.interfaces.extend(found);
    }
    if report.interfaces.len() > INTERFACES_MAX {
        files.warn("interfaces", format!("more than {INTERFACES_MAX} interfaces are configured; the rest is left out"));
        report.interfaces.truncate(INTERFACES_MAX);
    }
    report.interfaces.sort_by(|a, b| (&a.name, &a.manager, &a.source).cmp(&(&b.name, &b.manager, &b.source)));
    report.hosts = files.text("/etc/hosts").map(|text| hosts(&text)).unwrap_or_default();
    report.resolv_conf_target = files.link("/etc/resolv.conf");
    if let Some(text) = files.text("/etc/resolv.conf") {
        (report.dns_servers, report.dns_search) = resolv_conf(&text);
    }
    report.leases = leases::read(files);
    report.persistent_names = persistent_names(files);
    report
}

/// Source: hosts(5).
pub(crate) fn hosts(text: &str) -> Vec<HostsEntry> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            let address = words.next()?;
            Some(HostsEntry { address, names: words.collect() }).filter(|entry| !entry.names.is_empty())
        })
        .collect()
}

/// Name servers and search domains. Source: resolv.conf(5): the last `search` or `domain` counts.
fn resolv_conf(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => search = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    (servers, search)
}

/// Source: udev(7) (`NAME=` of net rules), systemd.link(5).
fn persistent_names(files: &Files<'_>) -> Vec<PersistentName> {
    let mut found = Vec::new();
    for path in files.with_suffix("/etc/udev/rules.d", ".rules") {
        let text = files.text(&path).unwrap_or_default();
        for line in text.lines().map(str::trim).filter(|line| line.contains("\"net\"") && !line.starts_with('#')) {
            let value = |key: &str| {
                let rest = line.split_once(key)?.1.trim_start_matches(['=', ':']);
                Some(rest.strip_prefix('"')?.split_once('"')?.0.to_owned())
            };
            let Some(name) = value(" NAME").or_else(|| value(",NAME")) else { continue };
            found.push(PersistentName { name, mac: value("ATTR{address}"), source: path.clone() });
        }
    }
    for path in files.with_suffix("/etc/systemd/network", ".link") {
        let file = super::unit::UnitFile::parse(&files.text(&path).unwrap_or_default());
        if let Some(name) = file.last("Link", "Name") {
            let mac = file.last("Match", "MACAddress").or_else(|| file.last("Match", "PermanentMACAddress"));
            found.push(PersistentName { name: name.to_owned(), mac: mac.map(str::to_owned), source: path });
        }
    }
    found
}

/// An interface of one manager.
fn interface(manager: &str, name: &str, source: &str) -> NetworkInterface {
    NetworkInterface {
        name: name.to_owned(),
        manager: manager.to_owned(),
        source: source.to_owned(),
        kind: (name == "lo").then(|| "loopback".to_owned()),
        ..NetworkInterface::default()
    }
}

/// `192.0.2.1` and `255.255.255.0` are `192.0.2.1/24`; an address with a length stays; a mask with holes is kept as it is.
fn with_prefix(address: &str, mask: Option<&str>) -> String {
    if address.contains('/') {
        return address.to_owned();
    }
    let Some(mask) = mask.filter(|mask| !mask.is_empty()) else { return address.to_owned() };
    if mask.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("{address}/{mask}");
    }
    match mask.parse::<std::net::Ipv4Addr>().map(u32::from) {
        Ok(bits) if bits.leading_ones() + bits.trailing_zeros() == 32 || bits == 0 => {
            format!("{address}/{}", bits.leading_ones())
        }
        _ => format!("{address}/{mask}"),
    }
}

/// A word that says yes or no in one of the spellings configuration files use.
fn is_yes(text: &str) -> bool {
    ["yes", "true", "on", "1", "y"].iter().any(|yes| text.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    pub(super) fn read(path: &str, text: &str) -> Network {
        let fixture = Fixture::new();
        fixture.file(path, text);
        let tree = fixture.tree();
        inspect(&Files::new(&tree), &OperatingSystem::default())
    }

    #[test]
    fn masks_become_prefixes() {
        let cases = [
            ("255.255.255.0", "/24"),
            ("255.255.254.0", "/23"),
            ("0.0.0.0", "/0"),
            ("24", "/24"),
            ("255.0.255.0", "/255.0.255.0"),
        ];
        for (mask, expected) in cases {
            assert_eq!(with_prefix("a", Some(mask)), format!("a{expected}"));
        }
    }

    #[test]
    fn hosts_and_resolvers_are_read() {
        assert_eq!(hosts("127.0.0.1 localhost # c\n#x\n::1 a b\n9.9.9.9\n").len(), 2);
        let (servers, search) = resolv_conf("nameserver 1.1.1.1\n# nameserver 2\nsearch a b\ndomain c\nnameserver\n");
        assert_eq!((servers, search), (vec!["1.1.1.1".to_owned()], vec!["c".to_owned()]));
    }

    #[test]
    fn names_fixed_by_udev_are_told() {
        let rule = "SUBSYSTEM==\"net\", ACTION==\"add\", ATTR{address}==\"52:54:00:12:34:56\", NAME=\"eth0\"\n";
        let found = read("etc/udev/rules.d/70-persistent-net.rules", rule).persistent_names;
        assert_eq!((found[0].name.as_str(), found[0].mac.as_deref()), ("eth0", Some("52:54:00:12:34:56")));
    }
}
