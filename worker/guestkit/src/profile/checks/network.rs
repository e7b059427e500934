//! The network: firewalls, names, and what listens.

use std::collections::BTreeMap;

use crate::guest::linux::iptables;
use crate::guest::linux::nft::Ruleset;
use crate::guest::report::Firewall;
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::packet_filter::{self, Ending, Filter};
use crate::profile::report::Evidence;

use super::services::any_started;

fn firewalls<'g>(guest: &'g Guest<'_>) -> &'g [Firewall] {
    guest.system.security.as_ref().map(|security| security.firewalls.as_slice()).unwrap_or_default()
}

fn firewall_evidence(firewall: &Firewall) -> Evidence {
    let path = firewall.sources.first().map_or(firewall.r#type.as_str(), String::as_str);
    let state = if firewall.enabled { "enabled" } else { "not enabled" };
    let rules = firewall.rules.map_or_else(|| "rules unknown".to_owned(), |rules| format!("{rules} rules"));
    Evidence::explicit(path, &*firewall.r#type, format!("{state}, {rules}, {}", firewall.default_policies.join(" ")))
}

/// Rules that lie beyond the disk, as those of a cloud's network do, are nobody's to see here.
const BEYOND: &str = "what a cloud's own network filters is not on the disk";

/// Whether a firewall that starts filters anything: it has rules, or refuses by default. firewalld's zones refuse what they do
/// not name.
fn filters(firewall: &Firewall) -> bool {
    let refuses = firewall
        .default_policies
        .iter()
        .any(|policy| policy.ends_with("=drop") || policy.ends_with("=reject") || policy.ends_with("=deny"));
    firewall.enabled && (firewall.rules.is_some_and(|rules| rules > 0) || refuses || firewall.r#type == "firewalld")
}

/// A firewall starts, and filters.
pub(crate) fn firewall_active(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(_) = guest.services() else { return Outcome::unknown("no service manager was found") };
    let all = firewalls(guest);
    if let Some(evidence) = any_started(guest, &["shorewall", "csf", "firehol"]) {
        return Outcome::pass("a firewall starts", vec![evidence]);
    }
    let evidence: Vec<_> = all.iter().map(firewall_evidence).collect();
    if all.iter().any(filters) {
        return Outcome::pass("a firewall starts and filters", evidence);
    }
    let reason = match all.iter().find(|firewall| firewall.enabled) {
        Some(firewall) => format!("{} starts without a rule; {BEYOND}", firewall.r#type),
        None if all.is_empty() => format!("no firewall is installed; {BEYOND}"),
        None => format!("no firewall starts; {BEYOND}"),
    };
    let evidence =
        if evidence.is_empty() { vec![Evidence::absent("/etc/nftables.conf", "firewall")] } else { evidence };
    Outcome::fail(reason, evidence)
}

/// What nobody allowed is refused, also over IPv6 and in what is passed on.
pub(crate) fn default_deny(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let all = firewalls(guest);
    let active: Vec<_> = all.iter().filter(|firewall| firewall.enabled).collect();
    if active.is_empty() {
        let evidence: Vec<_> = all.iter().map(firewall_evidence).collect();
        let evidence =
            if evidence.is_empty() { vec![Evidence::absent("/etc/nftables.conf", "firewall")] } else { evidence };
        return Outcome::fail(format!("no firewall starts, so that everything is accepted; {BEYOND}"), evidence);
    }
    let evidence: Vec<_> = active.iter().map(|firewall| firewall_evidence(firewall)).collect();
    // A packet goes through the rules of every one that starts: it is enough that one of them refuses.
    let judged: Vec<_> = active.iter().map(|firewall| refuses_the_rest(guest, firewall)).collect();
    if let Some(told) = judged.iter().find_map(|judged| judged.as_ref().ok()) {
        return Outcome::pass(told.clone(), evidence);
    }
    let reasons: Vec<_> = judged.into_iter().filter_map(Result::err).collect();
    Outcome::fail(reasons.join("; "), evidence)
}

/// How a firewall refuses what it does not name, or why it does not.
fn refuses_the_rest(guest: &Guest<'_>, firewall: &Firewall) -> Result<String, String> {
    match firewall.r#type.as_str() {
        "firewalld" => firewalld_refuses(guest, firewall),
        "ufw" => ufw_refuses(firewall),
        "nftables" => {
            let texts = firewall.sources.iter().filter_map(|path| guest.files.text(path));
            let script = texts.fold(String::new(), |all, text| all + &text + "\n");
            filter_refuses(guest, packet_filter::filter(&Ruleset::read(&script)))
        }
        "iptables" => {
            let mut ruleset = Ruleset::default();
            for (path, family) in iptables::PLACES {
                iptables::add(&mut ruleset, &guest.files.text(path).unwrap_or_default(), family);
            }
            filter_refuses(guest, packet_filter::filter(&ruleset))
        }
        other => Err(format!("the default of {other} is not known")),
    }
}

/// Source: firewalld.zone(5): a zone refuses what it does not name, unless its target says otherwise. A zone that interfaces or
/// addresses are bound to is in force beside the default one.
fn firewalld_refuses(guest: &Guest<'_>, firewall: &Firewall) -> Result<String, String> {
    let zone = firewall.default_zone.as_deref().unwrap_or("public");
    let paths = [format!("/etc/firewalld/zones/{zone}.xml"), format!("/usr/lib/firewalld/zones/{zone}.xml")];
    let text = paths.iter().find_map(|path| guest.files.text(path)).unwrap_or_default();
    let accepts = |text: &str| text.contains("target=\"ACCEPT\"");
    if accepts(&text) || (text.is_empty() && zone == "trusted") {
        return Err(format!("zone {zone} accepts everything"));
    }
    for path in guest.files.with_suffix("/etc/firewalld/zones", ".xml") {
        let text = guest.files.text(&path).unwrap_or_default();
        if accepts(&text) && text.contains("<interface ") {
            return Err(format!("{path} accepts everything of its interfaces"));
        }
    }
    Ok(format!("zone {zone} refuses what it does not name"))
}

/// Source: ufw(8): without IPV6=yes it drops all of IPv6.
fn ufw_refuses(firewall: &Firewall) -> Result<String, String> {
    for (chain, default) in [("input", "drop"), ("forward", "drop")] {
        let stated =
            firewall.default_policies.iter().rev().find_map(|entry| entry.strip_prefix(chain)?.strip_prefix('='));
        let policy = stated.unwrap_or(default);
        if !matches!(policy, "drop" | "reject" | "deny") {
            return Err(format!("the policy of {chain} is {policy}"));
        }
    }
    Ok("the policies of input and forward refuse".to_owned())
}

fn filter_refuses(guest: &Guest<'_>, filter: Filter) -> Result<String, String> {
    let is_on = |key: &str| {
        let fact = crate::profile::facts::sysctl(guest, key).ok();
        fact.and_then(|fact| fact.value).as_ref().and_then(crate::profile::evaluate::number) == Some(1)
    };
    let line = guest.system.operating_system.kernel_command_line.as_deref().unwrap_or_default();
    let has_no_ipv6 = line.split_whitespace().any(|word| word == "ipv6.disable=1")
        || (is_on("net.ipv6.conf.all.disable_ipv6") && is_on("net.ipv6.conf.default.disable_ipv6"));
    let protocols =
        [("IPv4", filter.ipv4, "net.ipv4.ip_forward"), ("IPv6", filter.ipv6, "net.ipv6.conf.all.forwarding")];
    for (name, endings, forwards) in protocols.into_iter().filter(|(name, ..)| !(has_no_ipv6 && *name == "IPv6")) {
        match endings.input {
            Ending::Absent => {
                return Err(format!("no chain is hooked into the input of {name}: everything is accepted"));
            }
            Ending::Accepted => return Err(format!("the input of {name} accepts what no rule names")),
            Ending::Refused => {}
        }
        // A machine that passes nothing on needs no chain for it; one that is there has to refuse.
        let passes_on = endings.forward == Ending::Accepted || (endings.forward == Ending::Absent && is_on(forwards));
        if passes_on {
            return Err(format!("what is passed on over {name} is accepted"));
        }
    }
    Ok("what no rule names is refused".to_owned())
}

/// One manager alone writes the rules.
pub(crate) fn multiple_managers(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(_) = guest.services() else { return Outcome::unknown("no service manager was found") };
    let active: Vec<_> = firewalls(guest).iter().filter(|firewall| firewall.enabled).collect();
    let evidence: Vec<_> = active.iter().map(|firewall| firewall_evidence(firewall)).collect();
    if active.len() > 1 {
        let names: Vec<_> = active.iter().map(|firewall| firewall.r#type.clone()).collect();
        return Outcome::fail(format!("several managers write rules: {}", names.join(", ")), evidence)
            .with_subjects(names);
    }
    let evidence =
        if evidence.is_empty() { vec![Evidence::absent("/etc/systemd/system", "a second firewall")] } else { evidence };
    Outcome::pass("at most one manager writes rules", evidence)
}

/// Ports that configurations open: the number, and by what.
fn open_ports(guest: &Guest<'_>) -> BTreeMap<u32, Evidence> {
    let mut ports = BTreeMap::new();
    if guest.is_enabled("ssh.service") || guest.is_enabled("sshd.service") || guest.is_enabled("ssh.socket") {
        let settings = guest.ssh().map(|server| server.settings.as_slice()).unwrap_or_default();
        for setting in settings.iter().filter(|setting| setting.key == "port") {
            if let Ok(port) = setting.value.parse() {
                ports.insert(port, Evidence::explicit("/etc/ssh/sshd_config", "Port", &*setting.value));
            }
        }
    }
    let units = guest.services().map(|services| services.units.as_slice()).unwrap_or_default();
    for unit in units.iter().filter(|unit| unit.kind == "socket" && guest.is_enabled(&unit.name)) {
        let file = crate::guest::linux::unit::UnitFile::parse(&guest.files.text(&unit.path).unwrap_or_default());
        for listen in file.values("Socket", "ListenStream").into_iter().chain(file.values("Socket", "ListenDatagram")) {
            let port =
                listen.rsplit(':').next().and_then(|port| port.parse().ok()).filter(|_| !listen.starts_with('/'));
            ports.extend(port.map(|port| (port, Evidence::explicit(&*unit.path, &*unit.name, listen))));
        }
    }
    let databases = guest.system.databases.as_ref().map(|found| found.databases.as_slice()).unwrap_or_default();
    for database in databases.iter().filter(|database| database.enabled == Some(true)) {
        let config = database.config.as_deref().unwrap_or("configuration");
        ports.extend(database.port.map(|port| (port, Evidence::explicit(config, &*database.engine, port.to_string()))));
    }
    let listens: [(&str, &str, &[&str]); 2] = [
        (
            "nginx.service",
            "listen",
            &["/etc/nginx/nginx.conf", "/etc/nginx/conf.d/*.conf", "/etc/nginx/sites-enabled/*"],
        ),
        (
            "apache2.service",
            "Listen",
            &["/etc/apache2/ports.conf", "/etc/httpd/conf/httpd.conf", "/etc/httpd/conf.d/*.conf"],
        ),
    ];
    for (unit, key, patterns) in listens {
        let other = if unit == "apache2.service" { "httpd.service" } else { unit };
        if !guest.is_enabled(unit) && !guest.is_enabled(other) {
            continue;
        }
        for path in patterns.iter().flat_map(|pattern| guest.files.glob(pattern)) {
            for line in guest.files.text(&path).unwrap_or_default().lines().map(str::trim) {
                let value = line
                    .strip_prefix(key)
                    .filter(|rest| rest.starts_with(char::is_whitespace))
                    .map(|rest| rest.trim().trim_end_matches(';'));
                let port = value.and_then(|value| value.split_whitespace().next()?.rsplit(':').next()?.parse().ok());
                ports.extend(port.map(|port| (port, Evidence::explicit(&*path, key, line))));
            }
        }
    }
    ports
}

/// What the configuration opens, for people to look through; with a firewall that filters, or without.
pub(crate) fn ports(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(_) = guest.services() else { return Outcome::unknown("no service manager was found") };
    let ports = open_ports(guest);
    if ports.is_empty() {
        return Outcome::pass(
            "no configuration that is known here opens a port",
            vec![Evidence::absent("/etc", "ports")],
        );
    }
    let told: Vec<_> = ports.keys().map(u32::to_string).collect();
    let evidence = ports.into_values().collect();
    if firewalls(guest).iter().any(filters) {
        return Outcome::pass(format!("ports behind a firewall: {}", told.join(", ")), evidence);
    }
    Outcome::warn(format!("ports that nothing filters: {}", told.join(", ")), evidence).with_subjects(told)
}

/// Whether the system speaks IPv6, and is of one mind about it.
pub(crate) fn ipv6_state(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let line = guest.system.operating_system.kernel_command_line.clone().unwrap_or_default();
    if line.split_whitespace().any(|word| word == "ipv6.disable=1") {
        return Outcome::pass(
            "IPv6 is switched off in the kernel",
            vec![Evidence::explicit("kernel command line", "ipv6.disable", "1")],
        );
    }
    let keys = ["net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.default.disable_ipv6"];
    let facts: Vec<_> = keys.iter().filter_map(|key| crate::profile::facts::sysctl(guest, key).ok()).collect();
    let off =
        facts.iter().filter(|fact| fact.value.as_ref().and_then(crate::profile::evaluate::number) == Some(1)).count();
    let evidence = facts.into_iter().flat_map(|fact| fact.evidence).collect();
    match off {
        0 => Outcome::pass("IPv6 is on", evidence),
        2 => Outcome::pass("IPv6 is off", evidence),
        _ => Outcome::warn("IPv6 is off for some interfaces and on for others", evidence),
    }
}

/// No radio is started.
pub(crate) fn wireless(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(_) = guest.services() else { return Outcome::unknown("no service manager was found") };
    let units = ["wpa_supplicant.service", "iwd.service", "hostapd.service", "ofono.service", "ModemManager.service"];
    let started = any_started(guest, &units);
    let profiles = guest
        .files
        .glob("/etc/NetworkManager/system-connections/*")
        .into_iter()
        .find(|path| guest.files.text(path).is_some_and(|text| text.contains("type=wifi")));
    let bad: Vec<_> = started
        .into_iter()
        .map(|evidence| Bad::new(evidence.key.clone(), evidence))
        .chain(profiles.map(|path| Bad::new(path.clone(), Evidence::explicit(path, "type", "wifi"))))
        .collect();
    Outcome::none_of(
        bad,
        "wireless networks are used",
        "nothing uses wireless networks",
        vec![Evidence::absent("/etc/systemd/system", "wpa_supplicant, iwd, hostapd")],
    )
}

/// Names lead where people expect.
pub(crate) fn dns_hosts(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    let network = guest.system.network.as_ref();
    let hosts = network.map(|network| network.hosts.as_slice()).unwrap_or_default();
    if hosts.iter().any(|entry| entry.names.iter().any(|name| name == "localhost")) {
        looked_at.push(Evidence::explicit("/etc/hosts", "localhost", "set"));
    } else {
        bad.push(Bad::new("/etc/hosts without localhost", Evidence::absent("/etc/hosts", "localhost")));
    }
    // Names of the public tree that are led to this machine, or away from where they belong.
    let public = [".com", ".org", ".net", ".io", ".gov", ".edu"];
    for entry in hosts {
        let own = guest.system.operating_system.fqdn.as_deref();
        for name in
            entry.names.iter().filter(|name| public.iter().any(|end| name.ends_with(end)) && Some(name.as_str()) != own)
        {
            let host = guest.system.operating_system.hostname.as_deref().unwrap_or_default();
            if !host.is_empty() && name.starts_with(host) {
                continue;
            }
            bad.push(Bad::new(&**name, Evidence::explicit("/etc/hosts", &**name, &*entry.address)));
        }
    }
    if let Some(target) = guest.files.link("/etc/resolv.conf") {
        // What the service makes at start is in /run, which is empty on a disk.
        let made_at_start = ["/run/", "../run/", "/var/run/"].iter().any(|start| target.starts_with(start));
        let evidence = Evidence::explicit("/etc/resolv.conf", "link", &*target);
        let by_resolved = !target.contains("systemd/resolve") || guest.is_enabled("systemd-resolved.service");
        if (made_at_start && by_resolved) || guest.files.exists("/etc/resolv.conf") {
            looked_at.push(evidence);
        } else {
            bad.push(Bad::new("/etc/resolv.conf leads nowhere", evidence));
        }
    }
    Outcome::none_of(bad, "names that lead elsewhere", "names lead where people expect", looked_at)
}
