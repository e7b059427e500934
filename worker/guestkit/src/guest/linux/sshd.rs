//! The effective configuration of an OpenSSH server: what `sshd -T` would print for the files of the guest. Source:
//! sshd_config(5) of OpenSSH 9.2; the observed behaviour of its `-T`.
//!
//! The first value of a keyword wins; a `Match all` block overrides; every other `Match` block is only listed, because it
//! depends on a connection. Compiled-in algorithm lists differ between builds: they are told for the build whose lists are
//! known here, and otherwise left out.

mod builds;
mod keywords;
mod values;

use std::collections::BTreeMap;

use crate::guest::report::{Package, SshServer, SshSetting};

use super::files::Files;
use builds::Build;
use keywords::{Kind, RENAMED, keywords};

/// Where the server starts to read.
const MAIN: &str = "/etc/ssh/sshd_config";
/// Includes inside includes that sshd follows (SERVCONF_MAX_DEPTH).
const INCLUDE_DEPTH_MAX: usize = 16;
/// Files of one configuration: drop-ins are tens.
const FILES_MAX: usize = 1_000;

/// Values of one keyword: sshd itself takes 256 ports, host keys and subsystems; lists of users are longer.
const VALUES_MAX: usize = 4_096;
/// Ports and subsystems (MAX_PORTS, MAX_SUBSYSTEMS of sshd).
const LINES_MAX: usize = 256;
/// Errors told of one configuration, and blocks listed: one error keeps the server from starting.
const TOLD_MAX: usize = 100;

/// The server's effective configuration; `None` where there is none.
pub(crate) fn inspect(files: &Files<'_>, packages: &[Package]) -> Option<SshServer> {
    if !files.exists(MAIN) && !files.exists("/usr/sbin/sshd") {
        return None;
    }
    let version = installed_version(packages);
    let mut parser = Parser::new(files, Build::of(version.as_deref()));
    parser.include(MAIN, Block::Global, 0);
    parser.check();
    let settings = if parser.errors.is_empty() { parser.settings() } else { Vec::new() };
    Some(SshServer {
        enabled: None,
        version,
        settings,
        match_blocks: parser.match_blocks,
        errors: parser.errors,
        sources: parser.sources,
    })
}

/// Where accounts keep their keys, as `AuthorizedKeysFile` says.
pub(crate) fn authorized_keys_files(files: &Files<'_>) -> Vec<String> {
    let mut parser = Parser::new(files, builds::UNKNOWN);
    parser.include(MAIN, Block::Global, 0);
    let found = parser.values.get("authorizedkeysfile").and_then(|values| values.first());
    let text = found.map_or(".ssh/authorized_keys .ssh/authorized_keys2", |(value, _)| value.as_str());
    text.split_whitespace().filter(|word| *word != "none").map(str::to_owned).collect()
}

fn installed_version(packages: &[Package]) -> Option<String> {
    let names = ["openssh-server", "openssh"];
    let found = packages.iter().find(|package| names.contains(&package.name.as_str()) && package.state == "installed");
    found.map(|package| package.full_version.clone())
}

/// Whether lines of the current block count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Global,
    /// `Match all`: overrides what is global.
    All,
    /// A block that depends on the connection.
    Conditional,
}

struct Parser<'a, 'b> {
    files: &'a Files<'b>,
    build: Build,
    values: BTreeMap<&'static str, Vec<(String, String)>>,
    overrides: BTreeMap<&'static str, Vec<(String, String)>>,
    match_blocks: Vec<String>,
    errors: Vec<String>,
    sources: Vec<String>,
    includes: usize,
}

impl<'a, 'b> Parser<'a, 'b> {
    fn new(files: &'a Files<'b>, build: Build) -> Self {
        Self {
            files,
            build,
            values: BTreeMap::new(),
            overrides: BTreeMap::new(),
            match_blocks: Vec::new(),
            errors: Vec::new(),
            sources: Vec::new(),
            includes: 0,
        }
    }

    /// Reads one file; a Match block that it opens ends with it.
    fn include(&mut self, path: &str, outer: Block, depth: usize) {
        if depth > INCLUDE_DEPTH_MAX || self.sources.len() >= FILES_MAX {
            self.errors.push(format!("{path}: includes go too deep"));
            return;
        }
        let Some(text) = self.files.text(path) else { return };
        self.sources.push(path.to_owned());
        let mut block = outer;
        for (index, line) in text.lines().enumerate() {
            let source = format!("{path}:{}", index + 1);
            if self.errors.len() >= TOLD_MAX {
                return;
            }
            let Some((keyword, rest)) = keyword(line) else { continue };
            let read = match keyword.as_str() {
                _ if rest.is_empty() => Err("no argument".to_owned()),
                "match" => self.open_match(rest, outer).map(|opened| block = opened),
                "include" => self.include_all(rest, block, depth),
                _ => self.setting(&keyword, rest, block, &source),
            };
            if let Err(why) = read {
                self.errors.push(format!("{source}: {keyword}: {why}"));
            }
        }
    }

    fn include_all(&mut self, rest: &str, block: Block, depth: usize) -> Result<(), String> {
        let patterns = values::arguments(rest)?;
        if patterns.is_empty() || patterns.iter().any(String::is_empty) {
            return Err("missing name of a file".to_owned());
        }
        for pattern in patterns.into_iter().take(LINES_MAX) {
            self.includes += 1;
            if self.includes > FILES_MAX {
                return Err(format!("more than {FILES_MAX} includes"));
            }
            let pattern = if pattern.starts_with('/') { pattern } else { format!("/etc/ssh/{pattern}") };
            for path in self.files.glob(&pattern) {
                self.include(&path, block, depth + 1);
            }
        }
        Ok(())
    }

    fn open_match(&mut self, criteria: &str, outer: Block) -> Result<Block, String> {
        values::arguments(criteria)?;
        let words = match_words(criteria);
        if self.match_blocks.len() < VALUES_MAX {
            self.match_blocks.push(words.join(" "));
        }
        let is_all = |word: &String| word.eq_ignore_ascii_case("all");
        if words.iter().step_by(2).any(is_all) && words.len() > 1 {
            return Err("\"all\" cannot be combined with others".to_owned());
        }
        if is_all(words.first().ok_or("one or more attributes required")?) {
            // A block inside a file that a conditional block includes never matches by itself.
            return Ok(if outer == Block::Conditional { outer } else { Block::All });
        }
        for pair in words.chunks(2) {
            let [attribute, value] = pair else { return Err("missing criteria".to_owned()) };
            match attribute.to_ascii_lowercase().as_str() {
                "user" | "group" | "host" | "rdomain" => {}
                "address" | "localaddress" if values::are_addresses(value) => {}
                "localport" if value.parse::<u16>().is_ok() => {}
                "address" | "localaddress" | "localport" => return Err(format!("invalid {attribute} {value}")),
                _ => return Err(format!("unsupported attribute {attribute}")),
            }
        }
        Ok(Block::Conditional)
    }

    fn setting(&mut self, keyword: &str, rest: &str, block: Block, source: &str) -> Result<(), String> {
        let name = RENAMED.iter().find(|(old, _)| *old == keyword).map_or(keyword, |(_, new)| new);
        let found = keywords().find(|(known, ..)| *known == name).filter(|_| !self.build.lacks(keyword));
        let (name, kind, _) = found.ok_or("bad configuration option")?;
        let may_be_matched = self.build.may_be_matched(keyword);
        if block == Block::Conditional && !may_be_matched {
            return Err("not allowed within a Match block".to_owned());
        }
        let values = values::read(&self.build, name, *kind, rest)?;
        let table = match block {
            Block::Global => &mut self.values,
            // What no Match block may change is read as if it stood before the first.
            Block::All if !may_be_matched => &mut self.values,
            Block::All => &mut self.overrides,
            Block::Conditional => return Ok(()),
        };
        if *kind == Kind::Ignored {
            return Ok(());
        }
        let known = table.entry(name).or_default();
        // Of the subsystems of one name the first counts; before 9.5 there could be no second.
        let is_repeated_subsystem = *kind == Kind::Subsystem
            && values.iter().any(|value| known.iter().any(|(other, _)| first_word(other) == first_word(value)));
        if is_repeated_subsystem && !self.build.has_matched_subsystems {
            return Err("already defined".to_owned());
        }
        let few = matches!(kind, Kind::Port | Kind::Paths | Kind::ListenAddress | Kind::Subsystem);
        let adds_up = few || matches!(kind, Kind::Names | Kind::Accounts);
        // Of these three alone the last line counts.
        if matches!(kind, Kind::SourceStartups | Kind::SourceNetwork | Kind::IpQos) {
            known.clear();
        }
        let bound = if few { LINES_MAX } else { VALUES_MAX };
        if known.len().saturating_add(values.len()) > bound {
            return Err(format!("more than {bound} values"));
        }
        if (adds_up || known.is_empty()) && !is_repeated_subsystem {
            known.extend(values.into_iter().map(|value| (value, source.to_owned())));
        }
        Ok(())
    }

    /// The value that holds before any connection.
    fn value(&self, name: &str) -> Option<&str> {
        let written = self.values.get(name).or_else(|| self.overrides.get(name)).and_then(|values| values.first());
        let default = || keywords().find(|(known, ..)| *known == name).and_then(|(_, _, default)| *default);
        written.map(|(value, _)| value.as_str()).or_else(|| self.build.default_of(name)).or_else(default)
    }

    /// What stops the server although each line is right by itself.
    fn check(&mut self) {
        for [command, user] in [
            ["authorizedkeyscommand", "authorizedkeyscommanduser"],
            ["authorizedprincipalscommand", "authorizedprincipalscommanduser"],
        ] {
            let is_set = self.value(command).is_some_and(|value| value != "none");
            if is_set && !self.values.contains_key(user) && !self.overrides.contains_key(user) {
                self.errors.push(format!("{command} set without {user}"));
            }
        }
        let methods = self.value("authenticationmethods").unwrap_or("any").to_owned();
        let is_on = |method: &str| {
            let method = method.split(':').next().unwrap_or_default();
            let switch = values::METHODS.iter().find(|(known, _)| *known == method).and_then(|(_, switch)| *switch);
            switch.is_some_and(|switch| self.value(switch) == Some("yes"))
        };
        if methods != "any" && !methods.split(' ').any(|list| list.split(',').all(is_on)) {
            self.errors.push("AuthenticationMethods cannot be satisfied by enabled authentication methods".to_owned());
        }
        let family = self.value("addressfamily").unwrap_or("any");
        let addresses = self.values.get("listenaddress").into_iter().flatten();
        let is_other = |address: &str| match family {
            "inet" => address.starts_with('['),
            "inet6" => {
                address.parse::<std::net::SocketAddrV4>().is_ok() || address.parse::<std::net::Ipv4Addr>().is_ok()
            }
            _ => false,
        };
        let other = addresses.map(|(address, _)| address).find(|address| is_other(address));
        if let Some(address) = other {
            self.errors.push(format!("bad addr or host: {address} is not of AddressFamily {family}"));
        }
    }

    /// Everything that holds, in order of key.
    fn settings(&mut self) -> Vec<SshSetting> {
        for (name, values) in std::mem::take(&mut self.overrides) {
            self.values.insert(name, values);
        }
        let defaults = keywords().filter_map(|(name, _, default)| Some((*name, (*default)?)));
        let defaults: Vec<_> = defaults.chain(self.build.defaults()).collect();
        for (name, value) in defaults.into_iter().chain([("port", "22")]) {
            self.values.entry(name).or_insert_with(|| vec![(value.to_owned(), "default".to_owned())]);
        }
        // Debian's switch of its own is in what `-T` prints from 10.0 on.
        if self.build.is_known() && self.build.default_of("debianbanner").is_none() {
            self.values.remove("debianbanner");
        }
        self.default_host_keys();
        self.listen_addresses();
        let entries = self.values.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        entries
            .map(|(name, (value, source))| SshSetting {
                key: (*name).to_owned(),
                value: value.clone(),
                source: source.clone(),
            })
            .collect()
    }

    fn default_host_keys(&mut self) {
        let keys = ["rsa", "ecdsa", "ed25519"].map(|kind| format!("/etc/ssh/ssh_host_{kind}_key"));
        let defaults = || keys.into_iter().map(|path| (path, "default".to_owned())).collect();
        self.values.entry("hostkey").or_insert_with(defaults);
    }

    /// Addresses with the ports that stand beside them.
    fn listen_addresses(&mut self) {
        let ports: Vec<String> = self.values.get("port").into_iter().flatten().map(|(port, _)| port.clone()).collect();
        let family = self.values.get("addressfamily").and_then(|values| values.first()).map(|(value, _)| value.clone());
        let addresses = match self.values.get("listenaddress") {
            Some(explicit) => explicit.clone(),
            None => {
                let both = [("[::]", "inet"), ("0.0.0.0", "inet6")];
                let wanted = both.iter().filter(|(_, other)| family.as_deref() != Some(*other));
                wanted.map(|(address, _)| ((*address).to_owned(), "default".to_owned())).collect()
            }
        };
        let mut found = Vec::new();
        for (address, source) in addresses {
            let with_port = |port: &String| (with_port(&address, port), source.clone());
            found.extend(ports.iter().map(with_port));
        }
        found.dedup();
        self.values.insert("listenaddress", found);
    }
}

/// `192.0.2.1` becomes `192.0.2.1:22`; an address with a port keeps it; IPv6 stands in brackets.
fn with_port(address: &str, port: &str) -> String {
    let behind_brackets = address.rsplit_once(']').map_or(address, |(_, behind)| behind);
    match address.split_once(' ') {
        Some((address, domain)) => format!("{} {domain}", with_port(address, port)),
        None if behind_brackets.contains(':') => address.to_owned(),
        None => format!("{address}:{port}"),
    }
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// The keyword in lower case, and the rest of the line behind white space and one optional `=`.
fn keyword(line: &str) -> Option<(String, &str)> {
    let line = line.trim_matches(|c: char| matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{c}'));
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (word, rest) = delimited(line);
    Some((word.to_ascii_lowercase(), rest))
}

/// The first word, in quotes or up to white space or `=`, and what follows these. Behind quotes a `=` is no separator.
fn delimited(text: &str) -> (&str, &str) {
    if let Some((word, rest)) = text.strip_prefix('"').and_then(|inside| inside.split_once('"')) {
        return (word, rest.trim_start());
    }
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '=' | '"')).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let rest = rest.trim_start();
    (word, rest.strip_prefix('=').unwrap_or(rest).trim_start())
}

/// Attributes and values of a Match line, apart like a keyword and its arguments.
fn match_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() && !rest.starts_with('#') && words.len() < VALUES_MAX {
        let (word, behind) = delimited(rest);
        if behind.len() >= rest.len() {
            break;
        }
        words.push(word.to_owned());
        rest = behind;
    }
    words
}

#[cfg(test)]
mod tests;
