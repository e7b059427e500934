//! Scripts of nft: tables, chains and rules, as words. Source: nft(8), "Tables", "Chains", "Rules", "Include files".

use std::collections::BTreeMap;

/// Family and name of a table.
pub(crate) type Key = (String, String);
/// Chains of one table by name.
pub(crate) type Table = BTreeMap<String, Chain>;

/// What scripts set up.
#[derive(Debug, Default)]
pub(crate) struct Ruleset {
    /// Tables by family and name.
    pub(crate) tables: BTreeMap<Key, Table>,
    /// Files that are read in the place of a statement, as patterns.
    pub(crate) includes: Vec<String>,
    /// Table and name of the chains that are hooked in, in the order in which they stand.
    hooked: Vec<(Key, String)>,
}

/// A chain: what it is hooked into, its policy, and its rules as words.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) hook: Option<String>,
    pub(crate) policy: Option<String>,
    pub(crate) rules: Vec<Vec<String>>,
}

impl Ruleset {
    /// What a script sets up. What includes name is not read here.
    pub(crate) fn read(text: &str) -> Self {
        let mut ruleset = Self::default();
        let words = words_of(text);
        let mut rest = words.as_slice();
        while !rest.is_empty() {
            rest = ruleset.top(rest);
        }
        ruleset
    }

    /// Rules in all.
    pub(crate) fn rules(&self) -> usize {
        self.tables.values().flat_map(BTreeMap::values).map(|chain| chain.rules.len()).sum()
    }

    /// The policy of each chain that is hooked in, as `input=drop`, in the order in which they stand; one without accepts.
    pub(crate) fn policies(&self) -> Vec<String> {
        let chains = self.hooked.iter().filter_map(|(table, name)| self.tables.get(table)?.get(name));
        let told = chains.filter_map(|chain| Some((chain.hook.as_ref()?, chain.policy.as_deref())));
        told.map(|(hook, policy)| format!("{hook}={}", policy.unwrap_or("accept"))).collect()
    }

    /// A chain, made where it is not there.
    pub(crate) fn chain(&mut self, table: &Key, name: &str) -> &mut Chain {
        self.tables.entry(table.clone()).or_default().entry(name.to_owned()).or_default()
    }

    /// Hooks a chain in.
    pub(crate) fn hook(&mut self, table: &Key, name: &str, hook: &str) {
        let chain = self.chain(table, name);
        if chain.hook.replace(hook.to_owned()).is_none() {
            self.hooked.push((table.clone(), name.to_owned()));
        }
    }

    /// A statement outside of tables; what follows it.
    fn top<'w>(&mut self, words: &'w [String]) -> &'w [String] {
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
            ("include", [path, ..]) => {
                self.includes.push((*path).to_owned());
                rest
            }
            ("table", [name, ..]) if end == "{" => self.table(rest, &key(name)),
            ("chain", [table, name, ..]) => {
                let table = key(table);
                if end == "{" { self.chain_block(rest, &table, name) } else { rest }
            }
            ("rule", [table, name, rule @ ..]) => {
                let mut rule: Vec<String> = rule.iter().map(|word| (*word).to_owned()).collect();
                let rest = if end == "{" { rest_of_rule(rest, &mut rule) } else { rest };
                self.chain(&key(table), name).rules.push(rule);
                rest
            }
            ("flush", ["ruleset", ..]) => {
                self.tables.clear();
                self.hooked.clear();
                rest
            }
            _ if end == "{" => skip(rest),
            _ => rest,
        }
    }

    fn table<'w>(&mut self, mut words: &'w [String], table: &Key) -> &'w [String] {
        while !words.is_empty() {
            let (statement, end, rest) = statement(words);
            words = match (statement, end) {
                (_, "}") => return rest,
                ([kind, name, ..], "{") if kind == "chain" => self.chain_block(rest, table, name),
                ([kind, path, ..], ";") if kind == "include" => {
                    self.includes.push(path.clone());
                    rest
                }
                (_, "{") => skip(rest),
                _ => rest,
            };
        }
        words
    }

    fn chain_block<'w>(&mut self, mut words: &'w [String], table: &Key, name: &str) -> &'w [String] {
        let chain = self.tables.entry(table.clone()).or_default().entry(name.to_owned()).or_default();
        while !words.is_empty() {
            let (statement, end, rest) = statement(words);
            words = rest;
            match statement.first().map(String::as_str) {
                Some("type") => {
                    let mut following = statement.iter().skip_while(|word| *word != "hook");
                    chain.hook = following.nth(1).cloned();
                    self.hooked.push((table.clone(), name.to_owned()));
                }
                Some("policy") => chain.policy = statement.get(1).cloned(),
                Some("include") => self.includes.extend(statement.get(1).cloned()),
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
