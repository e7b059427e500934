//! What rule sets do with a packet that no rule names: whether the input and what is passed on end in a refusal, for IPv4 and for
//! IPv6. Sources: nft(8) ("Tables", "Chains", "Verdict statements"), iptables-save(8), iptables-extensions(8).

use std::collections::BTreeMap;

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

/// A chain: what it is hooked into, what its policy is, and its rules as words.
#[derive(Debug, Default)]
struct Chain {
    hook: Option<String>,
    refuses: bool,
    rules: Vec<Vec<String>>,
}

/// Chains of one table by name.
type Table = BTreeMap<String, Chain>;

/// Scripts of nft, as one text.
pub(crate) fn nftables(text: &str) -> Filter {
    let mut tables: BTreeMap<(String, String), Table> = BTreeMap::new();
    let words = words_of(text);
    let mut rest = words.as_slice();
    while !rest.is_empty() {
        rest = top(rest, &mut tables);
    }
    let mut filter = Filter::default();
    for ((family, _), table) in &tables {
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

/// Words, with braces and ends of statements as words of their own; comments left out.
fn words_of(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for line in text.lines() {
        let mut word = String::new();
        let mut is_quoted = false;
        for c in line.chars() {
            match c {
                '"' => is_quoted = !is_quoted,
                _ if is_quoted => word.push(c),
                '#' => break,
                '{' | '}' | ';' => {
                    words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                    words.push(c.to_string());
                }
                _ if c.is_whitespace() => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
                _ => word.push(c),
            }
        }
        words.extend((!word.is_empty()).then_some(word));
        // A line's end ends a statement, unless it is continued.
        if words.last().is_some_and(|last| last == "\\") {
            words.pop();
        } else {
            words.push(";".to_owned());
        }
    }
    words
}

/// A statement outside of tables; what follows it.
fn top<'w>(words: &'w [String], tables: &mut BTreeMap<(String, String), Table>) -> &'w [String] {
    let (statement, end, rest) = statement(words);
    let mut known: Vec<&str> = statement.iter().map(String::as_str).collect();
    if matches!(known.first(), Some(&"add" | &"create" | &"insert")) {
        known.remove(0);
    }
    let Some((kind, named)) = known.split_first() else { return if end == "{" { skip(rest) } else { rest } };
    let families = ["ip", "ip6", "inet", "arp", "bridge", "netdev"];
    let (family, named) = match named.split_first() {
        Some((family, named)) if families.contains(family) => (*family, named),
        _ => ("ip", named),
    };
    let key = |name: &str| (family.to_owned(), name.to_owned());
    match (*kind, named) {
        ("table", [name, ..]) => {
            let table = tables.entry(key(name)).or_default();
            if end == "{" { table_block(rest, table) } else { rest }
        }
        ("chain", [table, name, ..]) => {
            let chain = tables.entry(key(table)).or_default().entry((*name).to_owned()).or_default();
            if end == "{" { chain_block(rest, chain) } else { rest }
        }
        ("rule", [table, name, rule @ ..]) => {
            let mut rule: Vec<String> = rule.iter().map(|word| (*word).to_owned()).collect();
            let rest = if end == "{" { rest_of_rule(rest, &mut rule) } else { rest };
            tables.entry(key(table)).or_default().entry((*name).to_owned()).or_default().rules.push(rule);
            rest
        }
        ("flush", ["ruleset", ..]) => {
            tables.clear();
            rest
        }
        _ if end == "{" => skip(rest),
        _ => rest,
    }
}

/// The words to the end of a statement, what ends it, and what follows that.
fn statement(words: &[String]) -> (&[String], &str, &[String]) {
    let end = words.iter().position(|word| matches!(word.as_str(), ";" | "{" | "}"));
    let (statement, rest) = words.split_at(end.unwrap_or(words.len()));
    match rest.split_first() {
        Some((end, rest)) => (statement, end, rest),
        None => (statement, ";", rest),
    }
}

/// What follows the brace that closes the one that was just opened.
fn skip(words: &[String]) -> &[String] {
    let mut depth = 1_usize;
    for (at, word) in words.iter().enumerate() {
        match word.as_str() {
            "{" => depth = depth.saturating_add(1),
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return words.get(at.saturating_add(1)..).unwrap_or_default();
        }
    }
    &[]
}

fn table_block<'w>(mut words: &'w [String], table: &mut Table) -> &'w [String] {
    while !words.is_empty() {
        let (statement, end, rest) = statement(words);
        words = match (statement, end) {
            (_, "}") => return rest,
            ([kind, name, ..], "{") if kind == "chain" => chain_block(rest, table.entry(name.clone()).or_default()),
            (_, "{") => skip(rest),
            _ => rest,
        };
    }
    words
}

fn chain_block<'w>(mut words: &'w [String], chain: &mut Chain) -> &'w [String] {
    while !words.is_empty() {
        let (statement, end, rest) = statement(words);
        words = rest;
        match statement.first().map(String::as_str) {
            Some("type") => {
                let mut following = statement.iter().skip_while(|word| *word != "hook");
                chain.hook = following.nth(1).cloned();
            }
            Some("policy") => chain.refuses = statement.get(1).is_some_and(|policy| policy == "drop"),
            Some("devices" | "comment") | None => {
                if end == "{" {
                    words = skip(rest);
                }
            }
            Some(_) => {
                let mut rule = statement.to_vec();
                if end == "{" {
                    words = rest_of_rule(rest, &mut rule);
                }
                chain.rules.push(rule);
            }
        }
        if end == "}" {
            return words;
        }
    }
    words
}

/// A rule behind the set that was just opened in it, to the statement's end.
fn rest_of_rule<'w>(words: &'w [String], rule: &mut Vec<String>) -> &'w [String] {
    rule.push("{}".to_owned());
    let mut words = skip(words);
    loop {
        // The brace that closes the chain is its own to see.
        let stop = words.iter().position(|word| matches!(word.as_str(), ";" | "{" | "}")).unwrap_or(words.len());
        let (more, rest) = words.split_at(stop);
        rule.extend_from_slice(more);
        match rest.split_first() {
            Some((end, rest)) if end == "{" => {
                rule.push("{}".to_owned());
                words = skip(rest);
            }
            Some((end, rest)) if end == ";" => return rest,
            _ => return rest,
        }
    }
}

/// What becomes of a packet that none of its rules names. `known` has the endings of chains that were led through, so that each
/// is followed once.
fn ending<'t>(chain: &'t Chain, table: &'t Table, depth: u32, known: &mut BTreeMap<&'t str, Ending>) -> Ending {
    for rule in &chain.rules {
        match verdict(rule) {
            Some(("accept", _)) => return Ending::Accepted,
            Some(("drop" | "reject", _)) => return Ending::Refused,
            Some(("jump" | "goto", Some(name))) if depth < JUMPS_MAX => {
                // A chain that is not hooked in returns to where it was led from.
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
            }
            _ => {}
        }
    }
    match (&chain.hook, chain.refuses) {
        (None, _) => Ending::Absent,
        (_, true) => Ending::Refused,
        (_, false) => Ending::Accepted,
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
            verdict @ ("accept" | "drop" | "reject") => return Some((verdict, None)),
            verdict @ ("jump" | "goto") => return Some((verdict, words.next())),
            _ => return None,
        }
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// What iptables-save(8) prints, for one protocol.
pub(crate) fn iptables(text: &str) -> Endings {
    let mut table = Table::new();
    let mut is_filter = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            is_filter = name.trim() == "filter";
        } else if !is_filter {
            continue;
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let (Some(name), Some(policy)) = (words.next(), words.next()) else { continue };
            let hook = (policy != "-").then(|| name.to_owned());
            table.insert(name.to_owned(), Chain { hook, refuses: policy == "DROP", rules: Vec::new() });
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let mut words = rule.split_whitespace();
            let Some(chain) = words.next().and_then(|name| table.get_mut(name)) else { continue };
            chain.rules.extend(unconditional(words));
        }
    }
    let of =
        |name: &str| table.get(name).map_or(Ending::Absent, |chain| ending(chain, &table, 0, &mut BTreeMap::new()));
    Endings { input: of("INPUT"), forward: of("FORWARD") }
}

/// The rule in nft's words, where it holds for every packet.
fn unconditional<'w>(mut words: impl Iterator<Item = &'w str>) -> Option<Vec<String>> {
    let mut found = None;
    while let Some(word) = words.next() {
        match word {
            "-j" | "--jump" | "-g" | "--goto" => {
                let target = words.next()?;
                found = Some(match target {
                    "ACCEPT" | "DROP" | "REJECT" => vec![target.to_ascii_lowercase()],
                    chain => vec!["jump".to_owned(), chain.to_owned()],
                });
            }
            "--reject-with" => {
                words.next();
            }
            // A comment ends with its closing quotation mark.
            "-m" | "--match" if words.next()? == "comment" => {
                words.next();
                let mut quoted = words.next()?;
                while quoted.starts_with('"') && !quoted.ends_with('"') {
                    quoted = match words.next() {
                        Some(more) if more.ends_with('"') => break,
                        Some(_) => quoted,
                        None => break,
                    };
                }
            }
            _ => return None,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use Ending::{Absent, Accepted, Refused};

    use super::*;

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
        let text = "*nat\n:INPUT DROP [0:0]\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:LAST - [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -m comment --comment \"the rest of it\" -j LAST\n-A LAST -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n";
        assert_eq!(iptables(text), Endings { input: Refused, forward: Refused });
        let open = "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n";
        assert_eq!(iptables(open), Endings { input: Accepted, forward: Accepted });
        assert_eq!(iptables("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j DROP\n").input, Accepted);
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
