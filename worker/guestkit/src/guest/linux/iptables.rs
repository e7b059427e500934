//! Rule sets of iptables, as the tables, chains and rules of nft that they stand for. Sources: iptables-save(8),
//! iptables-restore(8), iptables(8), iptables-translate(8).

use super::nft::Ruleset;

/// Where distributions keep what they load at start, and the family it is of.
pub(crate) const PLACES: [(&str, &str); 8] = [
    ("/etc/iptables/rules.v4", "ip"),
    ("/etc/iptables/rules.v6", "ip6"),
    ("/etc/sysconfig/iptables", "ip"),
    ("/etc/sysconfig/ip6tables", "ip6"),
    ("/etc/iptables/iptables.rules", "ip"),
    ("/etc/iptables/ip6tables.rules", "ip6"),
    ("/var/lib/iptables/rules-save", "ip"),
    ("/var/lib/ip6tables/rules-save", "ip6"),
];

/// In a chain with more rules than this, one that is to be put in front is put at the end: each moves all that follow it, and
/// what iptables-save(8) writes has none.
const MOVED_MAX: usize = 10_000;

/// Adds what iptables-restore(8) would load from a text.
pub(crate) fn add(ruleset: &mut Ruleset, text: &str, family: &str) {
    let mut table = (family.to_owned(), "filter".to_owned());
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            table.1 = name.trim().to_owned();
            continue;
        }
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            if let (Some(name), Some(policy)) = (words.next(), words.next()) {
                declare(ruleset, &table, name, (policy != "-").then_some(policy));
            }
            continue;
        }
        let mut words = words_of(line);
        // Counters may stand in front of a rule.
        if words.first().is_some_and(|first| first.starts_with('[')) {
            words.remove(0);
        }
        let [command, name, rest @ ..] = words.as_slice() else { continue };
        let (place, rule) = match (command.as_str(), rest) {
            ("-P" | "--policy", [policy, ..]) => {
                declare(ruleset, &table, name, Some(policy));
                continue;
            }
            ("-A" | "--append", rule) => (None, rule),
            ("-I" | "--insert", [number, rule @ ..]) if number.parse::<usize>().is_ok() => {
                (number.parse::<usize>().ok(), rule)
            }
            ("-I" | "--insert", rule) => (Some(1), rule),
            _ => continue,
        };
        let rule = unconditional(rule).unwrap_or_else(|| rule.to_vec());
        declare(ruleset, &table, name, None);
        let rules = &mut ruleset.chain(&table, name).rules;
        match place.map(|place| place.saturating_sub(1)) {
            Some(place) if place < rules.len() && rules.len() <= MOVED_MAX => rules.insert(place, rule),
            _ => rules.push(rule),
        }
    }
}

/// A chain with its policy. Those of the table `filter` that the kernel has by itself accept where none is written.
fn declare(ruleset: &mut Ruleset, table: &(String, String), name: &str, policy: Option<&str>) {
    if table.1 == "filter" && matches!(name, "INPUT" | "FORWARD" | "OUTPUT") {
        ruleset.hook(table, name, &name.to_ascii_lowercase());
        let chain = ruleset.chain(table, name);
        if let Some(policy) = policy {
            chain.policy = Some(policy.to_ascii_lowercase());
        }
    } else {
        ruleset.chain(table, name);
    }
}

/// Words as iptables-restore(8) takes them apart: a quoted one is one.
fn words_of(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut is_quoted, mut is_escaped) = (false, false);
    for c in line.chars() {
        match c {
            _ if is_escaped => {
                word.push(c);
                is_escaped = false;
            }
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if c.is_whitespace() && !is_quoted => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            _ => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// The rule in nft's words, where it holds for every packet.
fn unconditional(rule: &[String]) -> Option<Vec<String>> {
    let mut found = None;
    let mut words = rule.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-j" | "--jump" => {
                let target = words.next()?;
                found = Some(match target {
                    "ACCEPT" | "DROP" | "REJECT" | "RETURN" => vec![target.to_ascii_lowercase()],
                    chain => vec!["jump".to_owned(), chain.to_owned()],
                });
            }
            "-g" | "--goto" => found = Some(vec!["goto".to_owned(), words.next()?.to_owned()]),
            "--reject-with" | "--comment" => {
                words.next();
            }
            "-m" | "--match" if words.next()? == "comment" => {}
            _ => return None,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_those_that_restore_would_load() {
        let text = "# saved\n*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j DNAT --to 10.0.0.1\nCOMMIT\n*filter\n:INPUT DROP [1:2]\n:OUTPUT ACCEPT [0:0]\n:LOGGED - [0:0]\n[3:4] -A INPUT -i lo -j ACCEPT\n-A INPUT -m comment --comment \"the \\\"rest\\\" of it\" -g LOGGED\n-I INPUT -s 10.0.0.0/8 -j DROP\n-I INPUT 2 -j RETURN\n-A FORWARD -j REJECT --reject-with icmp-port-unreachable\n-P OUTPUT DROP\nCOMMIT\n";
        let mut ruleset = Ruleset::default();
        add(&mut ruleset, text, "ip");
        assert_eq!(ruleset.policies(), ["input=drop", "output=drop", "forward=accept"]);
        assert_eq!(ruleset.rules(), 6);
        let table = ("ip".to_owned(), "filter".to_owned());
        let rules: Vec<_> = ruleset.chain(&table, "INPUT").rules.iter().map(|rule| rule.join(" ")).collect();
        assert_eq!(rules, ["-s 10.0.0.0/8 -j DROP", "return", "-i lo -j ACCEPT", "goto LOGGED"]);
        assert_eq!(ruleset.chain(&table, "FORWARD").rules, [["reject"]]);
    }

    #[test]
    fn hostile_scripts_end() {
        let mut ruleset = Ruleset::default();
        add(&mut ruleset, &"-I INPUT -j DROP\n".repeat(300_000), "ip");
        assert_eq!(ruleset.rules(), 300_000);
        for line in ["-I", "-A x", "-P INPUT", ":", "*", "[", "[1:2]", "-I INPUT 0", "-A INPUT -j", "-A INPUT \"x"] {
            add(&mut ruleset, line, "ip");
        }
    }
}
