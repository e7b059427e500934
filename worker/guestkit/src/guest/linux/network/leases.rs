//! DHCP leases that clients kept: dhclient.leases(5), NetworkManager's internal client, systemd-networkd.

use crate::guest::report::DhcpLease;

use super::super::files::Files;
use super::super::os_release;

/// Leases kept of one guest: a laptop of years has hundreds, and the last of each file is what counts.
const LEASES_MAX: usize = 1_000;

/// The last lease of each file.
pub(super) fn read(files: &Files<'_>) -> Vec<DhcpLease> {
    let mut found = Vec::new();
    for directory in ["/var/lib/dhcp", "/var/lib/dhclient", "/var/lib/NetworkManager"] {
        for name in files.names(directory) {
            let path = format!("{directory}/{name}");
            let is_dhclient = name.ends_with(".leases") || (name.starts_with("dhclient") && name.ends_with(".lease"));
            let is_internal = name.starts_with("internal-") && name.ends_with(".lease");
            if is_dhclient {
                found.extend(files.text(&path).and_then(|text| dhclient(&text, &path)));
            } else if is_internal {
                // internal-UUID-INTERFACE.lease: the UUID has 36 characters.
                let interface = name.trim_end_matches(".lease").get("internal-".len() + 37..).map(str::to_owned);
                found.extend(files.text(&path).and_then(|text| internal(&text, &path, interface)));
            }
        }
    }
    for directory in ["/run/systemd/netif/leases", "/var/lib/systemd/network"] {
        for name in files.names(directory) {
            let path = format!("{directory}/{name}");
            found.extend(files.text(&path).and_then(|text| internal(&text, &path, None)));
        }
    }
    found.truncate(LEASES_MAX);
    found
}

/// The last `lease { … }` block.
fn dhclient(text: &str, path: &str) -> Option<DhcpLease> {
    let block = text.rsplit_once("lease {")?.1;
    let block = block.split_once('}').map_or(block, |(inside, _)| inside);
    let mut lease = DhcpLease { source: path.to_owned(), ..DhcpLease::default() };
    for statement in block.split(';').map(str::trim) {
        let (key, value) = statement.split_once(char::is_whitespace).unwrap_or((statement, ""));
        let list = |text: &str| text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>();
        match key {
            "interface" => lease.interface = Some(value.trim_matches('"').to_owned()),
            "fixed-address" => value.clone_into(&mut lease.address),
            "expire" => lease.expires_at = expiry(value),
            "option" => match value.split_once(char::is_whitespace) {
                Some(("routers", value)) => lease.routers = list(value),
                Some(("domain-name-servers", value)) => lease.dns_servers = list(value),
                Some(("dhcp-server-identifier", value)) => lease.server = Some(value.to_owned()),
                _ => {}
            },
            _ => {}
        }
    }
    (!lease.address.is_empty()).then_some(lease)
}

/// `4 2026/01/31 08:15:00`, in UTC.
fn expiry(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let (day, time) = (words.nth(1)?, words.next()?);
    let time: jiff::Timestamp = format!("{}T{time}Z", day.replace('/', "-")).parse().ok()?;
    Some(time.to_string())
}

/// `KEY=value` as systemd's client writes it.
fn internal(text: &str, path: &str, interface: Option<String>) -> Option<DhcpLease> {
    let value = |key: &str| os_release::value_of(text, key);
    // Several addresses stand in one line without quotes.
    let list = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|line| line.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
    };
    Some(DhcpLease {
        interface,
        address: value("ADDRESS")?,
        routers: list("ROUTER"),
        dns_servers: list("DNS"),
        server: value("SERVER_ADDRESS"),
        expires_at: None,
        source: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;

    #[test]
    fn the_last_lease_counts() {
        let text = "lease {\n fixed-address 10.0.0.1;\n}\nlease {\n interface \"eth0\";\n fixed-address 10.0.0.2;\n option routers 10.0.0.254;\n option domain-name-servers 1.1.1.1,9.9.9.9;\n expire 4 2026/01/29 08:15:00;\n}\n";
        let found = read("var/lib/dhcp/dhclient.eth0.leases", text).leases;
        assert_eq!(found[0].address, "10.0.0.2");
        assert_eq!(found[0].dns_servers.len(), 2);
        assert_eq!(found[0].expires_at.as_deref(), Some("2026-01-29T08:15:00Z"));
    }
}
