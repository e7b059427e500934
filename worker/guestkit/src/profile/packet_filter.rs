//! What rule sets do with a packet that no rule names: whether the input and what is passed on end in a refusal, for IPv4 and for
//! IPv6. Source: nft(8), "Tables", "Chains", "Verdict statements".

use std::collections::BTreeMap;

use crate::guest::linux::nft::{Chain, Ruleset, Table};

/// Chains that lead into one another are followed this far: honest rule sets lead through two or three.
const JUMPS_MAX: u32 = 16;

/// What becomes of a packet that no rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Ending {
    /// No chain is hooked in: it goes through.
    #[default]
    Absent,
    Accepted,
    Refused,
}

impl Ending {
    /// A packet goes through every chain that is hooked in, and each may refuse it.
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Refused, _) | (_, Self::Refused) => Self::Refused,
            (Self::Accepted, _) | (_, Self::Accepted) => Self::Accepted,
            (Self::Absent, Self::Absent) => Self::Absent,
        }
    }
}

/// The endings of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Endings {
    pub(crate) input: Ending,
    pub(crate) forward: Ending,
}

/// The endings of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Filter {
    pub(crate) ipv4: Endings,
    pub(crate) ipv6: Endings,
}

/// What a rule set comes to.
pub(crate) fn filter(ruleset: &Ruleset) -> Filter {
    let mut filter = Filter::default();
    for ((family, _), table) in &ruleset.tables {
        let (is_4, is_6) = (matches!(family.as_str(), "ip" | "inet"), matches!(family.as_str(), "ip6" | "inet"));
        for chain in table.values() {
            let ending = ending(chain, table, 0, &mut BTreeMap::new());
            for (is_of, endings) in [(is_4, &mut filter.ipv4), (is_6, &mut filter.ipv6)] {
                match chain.hook.as_deref().filter(|_| is_of) {
                    Some("input") => endings.input = endings.input.and(ending),
                    Some("forward") => endings.forward = endings.forward.and(ending),
                    _ => {}
                }
            }
        }
    }
    filter
}

/// What becomes of a packet that none of its rules names. `known` has the endings of chains that were led through, so that each
/// is followed once.
fn ending<'t>(chain: &'t Chain, table: &'t Table, depth: u32, known: &mut BTreeMap<&'t str, Ending>) -> Ending {
    for rule in &chain.rules {
        match verdict(rule) {
            Some(("accept", _)) => return Ending::Accepted,
            Some(("drop" | "reject", _)) => return Ending::Refused,
            Some(("return", _)) => break,
            Some((verdict @ ("jump" | "goto"), Some(name))) if depth < JUMPS_MAX => {
                // A chain that is not hooked in returns to where it was led from, and after `goto` to where that was.
                let Some((name, next)) = table.get_key_value(name) else { continue };
                let led = match known.get(name.as_str()) {
                    Some(led) => *led,
                    None => {
                        known.insert(name, Ending::Absent);
                        let led = ending(next, table, depth.saturating_add(1), known);
                        known.insert(name, led);
                        led
                    }
                };
                if led != Ending::Absent {
                    return led;
                }
                if verdict == "goto" {
                    break;
                }
            }
            _ => {}
        }
    }
    match (&chain.hook, chain.policy.as_deref()) {
        (None, _) => Ending::Absent,
        (_, Some("drop")) => Ending::Refused,
        _ => Ending::Accepted,
    }
}

/// The verdict of a rule that holds for every packet: nothing but counters, logging and comments is in front of it.
fn verdict(rule: &[String]) -> Option<(&str, Option<&str>)> {
    let mut words = rule.iter().map(String::as_str).peekable();
    loop {
        match words.next()? {
            "counter" => {
                while words.next_if(|word| matches!(*word, "packets" | "bytes") || is_number(word)).is_some() {}
            }
            "comment" => {
                words.next();
            }
            "log" => {
                let settings = ["prefix", "level", "group", "flags", "snaplen", "queue-threshold"];
                while let Some(setting) = words.next_if(|word| settings.contains(word)) {
                    words.next();
                    if setting == "flags" {
                        while words.next_if(|word| matches!(*word, "all" | "tcp" | "ip" | "options")).is_some() {}
                    }
                }
            }
            verdict @ ("accept" | "drop" | "reject" | "return") => return Some((verdict, None)),
            verdict @ ("jump" | "goto") => return Some((verdict, words.next())),
            _ => return None,
        }
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use Ending::{Absent, Accepted, Refused};

    use super::*;
    use crate::guest::linux::iptables;

    fn nftables(text: &str) -> Filter {
        filter(&Ruleset::read(text))
    }

    fn of(filter: Filter) -> [Ending; 4] {
        [filter.ipv4.input, filter.ipv4.forward, filter.ipv6.input, filter.ipv6.forward]
    }

    #[test]
    fn a_policy_or_a_last_rule_refuses() {
        let drop = "table inet f {\n chain i {\n type filter hook input priority 0; policy drop;\n tcp dport { 22, 80 } accept\n }\n}\n";
        assert_eq!(of(nftables(drop)), [Refused, Absent, Refused, Absent]);
        let last = "table ip f { chain i { type filter hook input priority filter; ct state vmap { established : accept, invalid : drop }; iif lo accept; counter packets 0 bytes 0 log prefix \"no: \" reject with icmp type host-prohibited; }\n chain f { type filter hook forward priority 0; } }";
        assert_eq!(of(nftables(last)), [Refused, Accepted, Absent, Absent]);
        let opened = "flush ruleset\ntable inet f {\n chain i { type filter hook input priority 0; policy drop; }\n}\nadd rule inet f i accept # all\n";
        assert_eq!(of(nftables(opened)), [Accepted, Absent, Accepted, Absent]);
        let led = "table ip6 f {\n chain end { log; drop; }\n chain i { type filter hook input priority 0\n tcp dport 22 jump end\n jump end\n }\n}\n";
        assert_eq!(of(nftables(led)), [Absent, Absent, Refused, Absent]);
        assert_eq!(of(nftables("")), [Absent; 4]);
    }

    #[test]
    fn two_chains_of_one_hook_both_have_a_say() {
        let text = "table ip a { chain i { type filter hook input priority 0; policy accept; } }\ntable inet b { chain i { type filter hook input priority 1; policy drop; } }\n";
        assert_eq!(of(nftables(text)), [Refused, Absent, Refused, Absent]);
    }

    #[test]
    fn rules_of_iptables_are_read() {
        let input_and_forward = |text: &str| {
            let mut ruleset = Ruleset::default();
            iptables::add(&mut ruleset, text, "ip");
            let Filter { ipv4, ipv6 } = filter(&ruleset);
            assert_eq!(ipv6, Endings::default());
            [ipv4.input, ipv4.forward]
        };
        let text = "*nat\n:INPUT DROP [0:0]\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:LAST - [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -m comment --comment \"the rest of it\" -j LAST\n-A LAST -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n";
        assert_eq!(input_and_forward(text), [Refused, Refused]);
        let open = "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n";
        assert_eq!(input_and_forward(open), [Accepted, Accepted]);
        assert_eq!(input_and_forward("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j DROP\n"), [Accepted, Absent]);
        let returns = "*filter\n:INPUT ACCEPT [0:0]\n:A - [0:0]\n-A INPUT -j A\n-A INPUT -j DROP\n-A A -j RETURN\n-A A -j ACCEPT\n";
        assert_eq!(input_and_forward(returns), [Refused, Absent]);
        let goes = "*filter\n:INPUT ACCEPT [0:0]\n:A - [0:0]\n-A INPUT -g A\n-A INPUT -j DROP\n-A A -p tcp -j ACCEPT\n";
        assert_eq!(input_and_forward(goes), [Accepted, Absent]);
    }

    #[test]
    fn hostile_scripts_end() {
        for text in ["{".repeat(50_000), "}".repeat(50_000), "chain ".repeat(50_000), "table a {".repeat(20_000)] {
            nftables(&text);
        }
        let circle = format!(
            "table ip f {{ chain a {{ type filter hook input priority 0; {0} }}\n chain b {{ {0} }} }}",
            "jump a; jump b; ".repeat(500)
        );
        assert_eq!(nftables(&circle).ipv4.input, Accepted);
    }
}
