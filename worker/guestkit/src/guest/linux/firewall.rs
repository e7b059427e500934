//! Firewalls: which are loaded at start, and how many rules their configuration holds. A firewall that is enabled and has
//! no rule protects nothing, so both are told.

use crate::guest::report::Firewall;

use super::files::Files;
use super::nft::Ruleset;
use super::{iptables, os_release};

/// Scripts that one rule set may include, and includes that one script may hold: honest ones have tens.
const NFT_FILES_MAX: usize = 256;

/// Every firewall that has configuration or is enabled.
pub(crate) fn inspect(files: &Files<'_>, is_enabled: impl Fn(&str) -> bool) -> Vec<Firewall> {
    let mut found = Vec::new();
    found.extend(nftables(files, is_enabled("nftables.service") || is_enabled("nftables")));
    let services = ["netfilter-persistent.service", "iptables.service", "ip6tables.service", "iptables", "ip6tables"];
    found.extend(saved(files, services.iter().any(|name| is_enabled(name))));
    found.extend(ufw(files, is_enabled("ufw.service") || is_enabled("ufw")));
    found.extend(firewalld(files, is_enabled("firewalld.service")));
    found
}

/// Source: nft(8).
fn nftables(files: &Files<'_>, enabled: bool) -> Option<Firewall> {
    let mut pending: Vec<String> = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf", "/etc/nftables.nft"]
        .into_iter()
        .filter(|path| files.exists(path))
        .map(str::to_owned)
        .collect();
    if pending.is_empty() && !enabled {
        return None;
    }
    let mut firewall = Firewall { r#type: "nftables".to_owned(), enabled, rules: Some(0), ..Firewall::default() };
    while let Some(path) = pending.pop() {
        if firewall.sources.contains(&path) {
            continue;
        }
        if firewall.sources.len() >= NFT_FILES_MAX {
            files.warn(path, format!("scripts past the first {NFT_FILES_MAX} are left out"));
            break;
        }
        let Some(text) = files.text(&path) else { continue };
        firewall.sources.push(path);
        let script = Ruleset::read(&text);
        firewall.rules = firewall.rules.map(|rules| rules.saturating_add(script.rules() as u64));
        firewall.default_policies.extend(script.policies());
        if script.includes.len() > NFT_FILES_MAX {
            files.warn("nft includes", format!("includes past the first {NFT_FILES_MAX} of a script are left out"));
        }
        for include in script.includes.into_iter().take(NFT_FILES_MAX) {
            let include = if include.starts_with('/') { include } else { format!("/etc/{include}") };
            pending.extend(files.glob(&include));
        }
    }
    Some(firewall)
}

fn saved(files: &Files<'_>, enabled: bool) -> Option<Firewall> {
    let mut firewall = Firewall { r#type: "iptables".to_owned(), enabled, ..Firewall::default() };
    let mut ruleset = Ruleset::default();
    for (path, family) in iptables::PLACES {
        let Some(text) = files.text(path) else { continue };
        iptables::add(&mut ruleset, &text, family);
        firewall.sources.push(path.to_owned());
    }
    if !firewall.sources.is_empty() {
        firewall.rules = Some(ruleset.rules() as u64);
        for policy in ruleset.policies() {
            if !firewall.default_policies.contains(&policy) {
                firewall.default_policies.push(policy);
            }
        }
    }
    (enabled || !firewall.sources.is_empty()).then_some(firewall)
}

/// Source: ufw(8), ufw-framework(8).
fn ufw(files: &Files<'_>, enabled: bool) -> Option<Firewall> {
    let text = files.text("/etc/ufw/ufw.conf")?;
    let switched_on = os_release::value_of(&text, "ENABLED").is_some_and(|value| value.eq_ignore_ascii_case("yes"));
    let mut firewall = Firewall { r#type: "ufw".to_owned(), enabled: enabled && switched_on, ..Firewall::default() };
    firewall.sources.push("/etc/ufw/ufw.conf".to_owned());
    for path in ["/etc/ufw/user.rules", "/etc/ufw/user6.rules", "/var/lib/ufw/user.rules", "/var/lib/ufw/user6.rules"] {
        if let Some(text) = files.text(path) {
            let rules = text.lines().filter(|line| line.starts_with("### tuple ###")).count() as u64;
            firewall.rules = Some(firewall.rules.unwrap_or(0).saturating_add(rules));
            firewall.sources.push(path.to_owned());
        }
    }
    if let Some(text) = files.text("/etc/default/ufw") {
        for (key, name) in [
            ("DEFAULT_INPUT_POLICY", "input"),
            ("DEFAULT_OUTPUT_POLICY", "output"),
            ("DEFAULT_FORWARD_POLICY", "forward"),
        ] {
            let policy = os_release::value_of(&text, key);
            firewall.default_policies.extend(policy.map(|policy| format!("{name}={}", policy.to_ascii_lowercase())));
        }
        firewall.sources.push("/etc/default/ufw".to_owned());
    }
    Some(firewall)
}

/// Source: firewalld.conf(5), firewalld.zone(5).
fn firewalld(files: &Files<'_>, enabled: bool) -> Option<Firewall> {
    let path = files.first_existing(&["/etc/firewalld/firewalld.conf", "/usr/etc/firewalld/firewalld.conf"])?;
    let zone = files.text(path).and_then(|text| os_release::value_of(&text, "DefaultZone"));
    let mut firewall =
        Firewall { r#type: "firewalld".to_owned(), enabled, sources: vec![path.to_owned()], ..Firewall::default() };
    if let Some(zone) = &zone {
        let places = ["/etc/firewalld/zones", "/usr/lib/firewalld/zones"].map(|place| format!("{place}/{zone}.xml"));
        if let Some(place) = places.into_iter().find(|place| files.exists(place)) {
            let text = files.text(&place).unwrap_or_default();
            let openings = [
                "<service ",
                "<port ",
                "<protocol ",
                "<rule",
                "<source-port ",
                "<forward-port ",
                "<masquerade",
                "<icmp-block ",
            ];
            firewall.rules = Some(openings.iter().map(|tag| text.matches(tag).count() as u64).sum());
            firewall.sources.push(place);
        }
    }
    firewall.default_zone = zone;
    Some(firewall)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    fn nft(text: &str) -> Firewall {
        let fixture = Fixture::new();
        fixture.file("etc/nftables.conf", text);
        let tree = fixture.tree();
        nftables(&Files::new(&tree), true).unwrap()
    }

    #[test]
    fn a_chain_without_rules_counts_none() {
        let text = "#!/usr/sbin/nft -f\nflush ruleset\ntable inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter;\n\t}\n}\n";
        let found = nft(text);
        assert_eq!(found.rules, Some(0));
        assert_eq!(found.default_policies, ["input=accept"]);
    }

    #[test]
    fn rules_policies_and_sets_are_told_apart() {
        let text = "table inet f {\n set s { type ipv4_addr; elements = { 1.2.3.4, 5.6.7.8 } }\n chain input {\n type filter hook input priority 0; policy drop;\n\
                    ct state established,related accept\n tcp dport { 22, 80 } accept\n iif lo accept; udp dport 53 drop\n }\n}\nadd rule inet f input accept\n";
        let found = nft(text);
        assert_eq!(found.rules, Some(5));
        assert_eq!(found.default_policies, ["input=drop"]);
    }

    #[test]
    fn rules_are_added_by_command_and_too_many_includes_are_told() {
        assert_eq!(nft("add chain inet f c\nadd  rule inet f c accept; insert rule inet f c drop\nreplace rule inet f c handle 1 drop\n").rules, Some(2));
        let fixture = Fixture::new();
        fixture.file("etc/nftables.conf", "include \"/etc/n/*.nft\"\n");
        for number in 0..300 {
            fixture.file(&format!("etc/n/{number}.nft"), "");
        }
        let tree = fixture.tree();
        let files = Files::new(&tree);
        assert_eq!(nftables(&files, true).unwrap().sources.len(), NFT_FILES_MAX);
        assert_eq!(files.into_warnings().len(), 1);
    }

    #[test]
    fn hostile_scripts_end() {
        nft(&"{".repeat(100_000));
        nft(&"}".repeat(100_000));
        nft("include \"/etc/nftables.conf\"\ninclude \"/etc/*\"\n");
    }

    #[test]
    fn ufw_needs_both_its_service_and_its_switch() {
        let fixture = Fixture::new();
        fixture.file("etc/ufw/ufw.conf", "ENABLED=no\n");
        fixture.file(
            "etc/ufw/user.rules",
            "### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n-A ufw-user-input -j ACCEPT\n",
        );
        fixture.file("etc/default/ufw", "DEFAULT_INPUT_POLICY=\"DROP\"\n");
        let tree = fixture.tree();
        let found = ufw(&Files::new(&tree), true).unwrap();
        assert!(!found.enabled);
        assert_eq!((found.rules, found.default_policies), (Some(1), vec!["input=drop".to_owned()]));
    }
}
