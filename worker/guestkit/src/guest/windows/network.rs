//! Adapters and their addresses. Sources: Microsoft's documentation of `Tcpip\Parameters` and of network connections.
//! Addresses of IPv6 that are set by hand stand in another store (`Nsi`), whose format is not published: they are not told.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::guest::linux::files::Files;
use crate::guest::linux::network::hosts;
use crate::guest::linux::time::rfc3339;
use crate::guest::report::{DhcpLease, Network, NetworkInterface};

use super::hives::{Hives, Node};

/// The class of network adapters.
const ADAPTERS: &str = "{4D36E972-E325-11CE-BFC1-08002BE10318}";

/// What the class key says of an adapter.
struct Adapter {
    description: Option<String>,
    mac: Option<String>,
}

/// The module.
pub(crate) fn inspect(files: &Files<'_>, hives: &Hives<'_>, hostname: Option<&String>, system_root: &str) -> Network {
    let mut report = Network { hostname: hostname.cloned(), ..Network::default() };
    let hosts_file = format!("{system_root}/System32/drivers/etc/hosts");
    report.hosts = files.text(&hosts_file).map(|text| hosts(&text)).unwrap_or_default();
    let Some(parameters) = hives.control_key("Services\\Tcpip\\Parameters") else { return report };
    report.managers.push("windows".to_owned());
    report.dns_servers = addresses(&parameters, "NameServer");
    report.dns_search = addresses(&parameters, "SearchList");
    let adapters = adapters(hives);
    let connections = hives.control_key(&format!("Control\\Network\\{ADAPTERS}"));
    for key in parameters.key("Interfaces").map(|key| key.keys()).unwrap_or_default() {
        let id = key.name().to_uppercase();
        let connection = connections.as_ref().and_then(|all| all.key(&format!("{id}\\Connection")));
        let adapter = adapters.get(&id);
        // Interfaces of tunnels and of adapters that are gone have neither.
        if connection.is_none() && adapter.is_none() && key.values().is_empty() {
            continue;
        }
        let name = connection.as_ref().and_then(|key| key.text("Name")).unwrap_or_else(|| id.clone());
        report.leases.extend(lease(&key, &name));
        report.interfaces.push(interface(&key, name, id, connection.as_ref(), adapter));
    }
    report.interfaces.sort_by(|one, other| one.name.cmp(&other.name));
    report
}

fn adapters(hives: &Hives<'_>) -> HashMap<String, Adapter> {
    let keys = hives.control_key(&format!("Control\\Class\\{ADAPTERS}")).map(|key| key.keys()).unwrap_or_default();
    let adapter = |key: &Node<'_>| {
        let id = key.text("NetCfgInstanceId")?.to_uppercase();
        let mac = key.text("NetworkAddress").and_then(|digits| mac_of(&digits));
        Some((id, Adapter { description: key.text("DriverDesc"), mac }))
    };
    keys.iter().filter_map(adapter).collect()
}

fn mac_of(digits: &str) -> Option<String> {
    let digits: String = digits.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_lowercase();
    if digits.len() != 12 {
        return None;
    }
    let pairs: Vec<&str> = (0..6).filter_map(|pair| digits.get(pair * 2..pair * 2 + 2)).collect();
    Some(pairs.join(":"))
}

fn interface(
    key: &Node<'_>,
    name: String,
    id: String,
    connection: Option<&Node<'_>>,
    adapter: Option<&Adapter>,
) -> NetworkInterface {
    let is_dhcp = key.flag("EnableDHCP") == Some(true);
    let masks = key.texts("SubnetMask");
    let with_prefix = |(address, mask): (String, &String)| match prefix(mask) {
        Some(prefix) => format!("{address}/{prefix}"),
        None => address,
    };
    let is_set = |address: &String| address != "0.0.0.0";
    let fixed = key.texts("IPAddress").into_iter().zip(&masks).filter(|(address, _)| is_set(address)).map(with_prefix);
    let addresses_set = if is_dhcp { Vec::new() } else { fixed.collect() };
    let device = connection.and_then(|key| key.text("PnpInstanceID")).unwrap_or_default().to_uppercase();
    let kind = match device.split('\\').next() {
        Some("PCI" | "VMBUS" | "XENVIF" | "USB") => Some("ethernet".to_owned()),
        _ => None,
    };
    NetworkInterface {
        name,
        kind,
        manager: "windows".to_owned(),
        source: key.path(),
        dhcp4: is_dhcp,
        addresses: addresses_set,
        gateways: key.texts("DefaultGateway").into_iter().filter(is_set).collect(),
        dns_servers: addresses(key, "NameServer"),
        dns_search: addresses(key, "Domain"),
        mac: adapter.and_then(|adapter| adapter.mac.clone()),
        mtu: key.number("MTU").and_then(|mtu| u32::try_from(mtu).ok()),
        id: Some(id),
        description: adapter.and_then(|adapter| adapter.description.clone()),
        ..NetworkInterface::default()
    }
}

/// A list with commas or spaces between.
fn addresses(key: &Node<'_>, name: &str) -> Vec<String> {
    let text = key.text(name).unwrap_or_default();
    text.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Bits of a mask whose ones all come first.
fn prefix(mask: &str) -> Option<u32> {
    let bits = u32::from(mask.parse::<Ipv4Addr>().ok()?);
    (bits.leading_ones() + bits.trailing_zeros().min(32) == 32 || bits == 0).then(|| bits.leading_ones())
}

/// What the last DHCP server gave, as far as it was kept.
fn lease(key: &Node<'_>, interface: &str) -> Option<DhcpLease> {
    let address = key.text("DhcpIPAddress").filter(|address| address != "0.0.0.0")?;
    let expires = key.number("LeaseTerminatesTime").and_then(|time| i64::try_from(time).ok());
    Some(DhcpLease {
        interface: Some(interface.to_owned()),
        address,
        routers: key.texts("DhcpDefaultGateway"),
        dns_servers: addresses(key, "DhcpNameServer"),
        server: key.text("DhcpServer"),
        expires_at: expires.and_then(rfc3339),
        source: key.path(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_prefixes() {
        for (mask, bits) in [("255.255.255.0", Some(24)), ("0.0.0.0", Some(0)), ("255.255.255.255", Some(32))] {
            assert_eq!(prefix(mask), bits, "{mask}");
        }
        assert_eq!(prefix("255.0.255.0"), None);
        assert_eq!(prefix("x"), None);
    }

    #[test]
    fn hardware_addresses_are_written_with_colons() {
        assert_eq!(mac_of("52-54-00-AB-CD-EF").as_deref(), Some("52:54:00:ab:cd:ef"));
        assert_eq!(mac_of("525400abcdef").as_deref(), Some("52:54:00:ab:cd:ef"));
        assert_eq!(mac_of("52540"), None);
    }
}
