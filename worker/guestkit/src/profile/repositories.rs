//! Where packages come from and what is asked of them: apt's sources and merged configuration, and the repositories of yum,
//! dnf and zypper. Sources: apt.conf(5), sources.list(5), apt-secure(8), dnf.conf(5), yum.conf(5), zypper(8).

use crate::guest::linux::unit::UnitFile;

use super::guest::Guest;
use super::report::Evidence;
use super::settings::is_yes;

/// Settings and sources that are kept: distributions have some hundreds.
const KEPT_MAX: usize = 20_000;

/// A setting of apt by its full name, `APT::Periodic::Enable`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AptSetting {
    name: String,
    pub(crate) value: String,
    path: String,
    line: usize,
}

impl AptSetting {
    pub(crate) fn evidence(&self) -> Evidence {
        Evidence::explicit(&*self.path, &*self.name, &*self.value).at_line(self.line)
    }

    /// Whether apt takes the value as yes. Source: `StringToBool` as apt.conf(5) describes it.
    pub(crate) fn is_yes(&self) -> bool {
        let value = self.value.trim().to_ascii_lowercase();
        matches!(value.as_str(), "yes" | "true" | "with" | "on" | "enable")
            || value.parse::<i64>().is_ok_and(|n| n != 0)
    }
}

/// apt's configuration as it merges it: the parts by name, then the main file; later values win.
pub(crate) struct AptConfiguration {
    settings: Vec<AptSetting>,
}

impl AptConfiguration {
    pub(crate) fn read(guest: &Guest<'_>) -> Self {
        let mut settings = Vec::new();
        let parts = guest.files.names("/etc/apt/apt.conf.d").into_iter().filter(|name| is_part(name, "conf"));
        let paths = parts.map(|name| format!("/etc/apt/apt.conf.d/{name}"));
        for path in paths.chain(["/etc/apt/apt.conf".to_owned()]) {
            if let Some(text) = guest.files.text(&path) {
                read_apt(&text, &path, &mut settings);
            }
        }
        Self { settings }
    }

    /// The value that decides; names are without regard to case.
    pub(crate) fn get(&self, name: &str) -> Option<&AptSetting> {
        self.settings.iter().rev().find(|setting| setting.name.eq_ignore_ascii_case(name))
    }
}

/// Names that apt reads in a directory of parts: letters, digits, `_`, `-` and `.`, and no other suffix than its own.
fn is_part(name: &str, suffix: &str) -> bool {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let suffix_fits = match name.rsplit_once('.') {
        Some((_, end)) => end == suffix,
        None => suffix == "conf",
    };
    is_plain && suffix_fits && !name.starts_with('.')
}

/// Reads one file: scopes in braces, `::` in names, quoted values, comments of three kinds, `#clear`.
fn read_apt(text: &str, path: &str, settings: &mut Vec<AptSetting>) {
    let mut scopes: Vec<String> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut line = 1_usize;
    let mut characters = text.chars().peekable();
    let full = |scopes: &[String], name: &str| {
        let above = scopes.join("::");
        if above.is_empty() { name.to_owned() } else { format!("{above}::{name}") }
    };
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        match character {
            '\n' => {
                line = line.saturating_add(1);
                flush(&mut word, &mut words);
            }
            '/' if next == Some('/') && (word.is_empty()) => skip_line(&mut characters),
            '/' if next == Some('*') => {
                let mut last = ' ';
                for character in characters.by_ref() {
                    line = line.saturating_add(usize::from(character == '\n'));
                    if last == '*' && character == '/' {
                        break;
                    }
                    last = character;
                }
            }
            '#' if word.is_empty() => {
                let mut directive = String::new();
                while let Some(character) = characters.peek().copied().filter(|character| *character != '\n') {
                    directive.push(character);
                    characters.next();
                }
                if let Some(rest) = directive.strip_prefix("clear ") {
                    for name in rest.split([';', ' ']).map(str::trim).filter(|name| !name.is_empty()) {
                        let below = format!("{}::", name.to_ascii_lowercase());
                        settings.retain(|setting| {
                            let known = setting.name.to_ascii_lowercase();
                            known != name.to_ascii_lowercase() && !known.starts_with(&below)
                        });
                    }
                }
            }
            '"' => {
                for character in characters.by_ref() {
                    line = line.saturating_add(usize::from(character == '\n'));
                    if character == '"' {
                        break;
                    }
                    word.push(character);
                }
                words.push(std::mem::take(&mut word));
            }
            '{' => {
                flush(&mut word, &mut words);
                scopes.push(words.first().cloned().unwrap_or_default());
                words.clear();
            }
            '}' | ';' => {
                flush(&mut word, &mut words);
                let name = match words.as_slice() {
                    [name, _, ..] => Some(full(&scopes, name)),
                    // A value alone is an entry of the list around it.
                    [_] if !scopes.is_empty() => Some(full(&scopes, "")),
                    _ => None,
                };
                if let (Some(name), Some(value)) = (name, words.last())
                    && settings.len() < KEPT_MAX
                {
                    settings.push(AptSetting { name, value: value.clone(), path: path.to_owned(), line });
                }
                words.clear();
                if character == '}' {
                    scopes.pop();
                }
            }
            character if character.is_whitespace() => flush(&mut word, &mut words),
            character => word.push(character),
        }
    }
}

fn flush(word: &mut String, words: &mut Vec<String>) {
    if !word.is_empty() {
        words.push(std::mem::take(word));
    }
}

fn skip_line(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while characters.peek().is_some_and(|character| *character != '\n') {
        characters.next();
    }
}

/// One place that packages come from, and that is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Source {
    /// apt's suite, or the repository's id.
    pub(crate) suite: String,
    pub(crate) uri: String,
    /// Options that are set, as `trusted=yes`.
    pub(crate) options: Vec<(String, String)>,
    path: String,
    line: usize,
}

impl Source {
    pub(crate) fn evidence(&self) -> Evidence {
        let options: Vec<_> = self.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let value = format!("{} {}", without_credentials(&self.uri), options.join(" "));
        let evidence = Evidence::explicit(&*self.path, &*self.suite, value.trim());
        if self.line == 0 { evidence } else { evidence.at_line(self.line) }
    }

    pub(crate) fn is_on(&self, key: &str) -> bool {
        self.options.iter().any(|(known, value)| known == key && is_yes(value))
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.options.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Whether `key` is set to no.
    pub(crate) fn is_off(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "0" | "no" | "false" | "off"))
    }

    pub(crate) fn place(&self) -> String {
        format!("{}: {}", self.path, self.suite)
    }
}

/// An address without the name and password that it may carry.
fn without_credentials(uri: &str) -> String {
    match uri.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
            match host.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://{host}/{path}"),
                None => uri.to_owned(),
            }
        }
        None => uri.to_owned(),
    }
}

/// apt's sources that are in use: `.list` lines and `.sources` stanzas.
pub(crate) fn apt_sources(guest: &Guest<'_>) -> Vec<Source> {
    let mut sources = Vec::new();
    let names = guest.files.names("/etc/apt/sources.list.d").into_iter();
    let parts = names.filter(|name| is_part(name, "list") || is_part(name, "sources"));
    let parts = parts.map(|name| format!("/etc/apt/sources.list.d/{name}"));
    for path in ["/etc/apt/sources.list".to_owned()].into_iter().chain(parts) {
        let Some(text) = guest.files.text(&path) else { continue };
        if path.ends_with(".sources") {
            read_stanzas(&text, &path, &mut sources);
        } else {
            let lines = text.lines().enumerate();
            sources.extend(lines.filter_map(|(number, line)| source_line(line, &path, number.saturating_add(1))));
        }
        sources.truncate(KEPT_MAX);
    }
    sources
}

/// `deb [ options ] uri suite components`.
fn source_line(line: &str, path: &str, number: usize) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb").filter(|rest| rest.starts_with(char::is_whitespace))?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let uri = words.next()?.to_owned();
    let suite = words.next()?.to_owned();
    let options = options.split_whitespace().filter_map(|option| option.split_once('='));
    let options = options.map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned())).collect();
    Some(Source { suite, uri, options, path: path.to_owned(), line: number })
}

/// Stanzas of deb822.
fn read_stanzas(text: &str, path: &str, sources: &mut Vec<Source>) {
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut start = 1_usize;
    for (number, line) in text.lines().chain([""]).enumerate() {
        if line.trim_start().starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            add_stanza(&std::mem::take(&mut fields), path, start, sources);
            start = number.saturating_add(2);
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

fn add_stanza(fields: &[(String, String)], path: &str, line: usize, sources: &mut Vec<Source>) {
    let get = |key: &str| fields.iter().find(|(known, _)| known == key).map_or("", |(_, value)| value.as_str());
    let is_disabled = matches!(get("enabled").to_ascii_lowercase().as_str(), "no" | "false" | "0" | "off");
    if is_disabled || !get("types").split_whitespace().any(|kind| kind == "deb") {
        return;
    }
    let kept = ["trusted", "allow-insecure", "allow-weak", "allow-downgrade-to-insecure"];
    let options: Vec<_> = fields.iter().filter(|(key, _)| kept.contains(&key.as_str())).cloned().collect();
    for uri in get("uris").split_whitespace() {
        for suite in get("suites").split_whitespace() {
            if sources.len() < KEPT_MAX {
                let (suite, uri) = (suite.to_owned(), uri.to_owned());
                sources.push(Source { suite, uri, options: options.clone(), path: path.to_owned(), line });
            }
        }
    }
}

/// Repositories of yum, dnf and zypper that are enabled, with what the main section gives those that say nothing.
pub(crate) fn rpm_repositories(guest: &Guest<'_>) -> Vec<Source> {
    let mut sources = Vec::new();
    let kept = ["gpgcheck", "repo_gpgcheck", "pkg_gpgcheck", "sslverify"];
    let main =
        ["/etc/dnf/dnf.conf", "/etc/yum.conf", "/etc/zypp/zypp.conf"].iter().find_map(|path| guest.files.text(path));
    let main = UnitFile::parse(&main.unwrap_or_default());
    let inherited: Vec<(String, String)> = main
        .section("main")
        .filter(|(key, _)| kept.contains(key))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    for directory in ["/etc/yum.repos.d", "/etc/zypp/repos.d", "/etc/distro.repos.d"] {
        for path in guest.files.with_suffix(directory, ".repo") {
            let text = guest.files.text(&path).unwrap_or_default();
            let file = UnitFile::parse(&text);
            let ids = text.lines().enumerate().filter_map(|(number, line)| {
                Some((number.saturating_add(1), line.trim().strip_prefix('[')?.strip_suffix(']')?.to_owned()))
            });
            for (line, id) in ids.take(KEPT_MAX) {
                let get = |key: &str| file.last(&id, key);
                // Zypper and dnf take a repository that says nothing as enabled.
                if id == "main" || get("enabled").is_some_and(|value| !is_yes(value)) {
                    continue;
                }
                let uri = ["baseurl", "mirrorlist", "metalink"].iter().find_map(|key| get(key));
                let uri = uri.unwrap_or_default().to_owned();
                let mut options: Vec<_> = inherited.iter().filter(|(key, _)| get(key).is_none()).cloned().collect();
                let own = kept.iter().filter_map(|key| Some(((*key).to_owned(), get(key)?.to_owned())));
                options.extend(own);
                // yum and dnf check nothing that they are not told to check; zypper checks everything.
                let is_told = options.iter().any(|(key, _)| matches!(key.as_str(), "gpgcheck" | "pkg_gpgcheck"));
                if !is_told && directory != "/etc/zypp/repos.d" {
                    options.push(("gpgcheck".to_owned(), "0".to_owned()));
                }
                sources.push(Source { suite: id, uri, options, path: path.clone(), line });
            }
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_merges_scopes_lists_and_comments() {
        let text = "// c\nAPT::Periodic::Enable \"1\"; /* x\n y */\nAPT { Periodic { Unattended-Upgrade \"0\"; }; };\n# d\n\
                    APT::Periodic::Unattended-Upgrade \"1\";\nUnattended-Upgrade::Allowed-Origins { \"a:b\"; \"c://d\"; };\n\
                    Dir::Bin x;\n#clear Dir;\n";
        let mut settings = Vec::new();
        read_apt(text, "/f", &mut settings);
        let shown: Vec<_> = settings.iter().map(|one| (one.name.as_str(), one.value.as_str(), one.line)).collect();
        assert_eq!(
            shown,
            [
                ("APT::Periodic::Enable", "1", 2),
                ("APT::Periodic::Unattended-Upgrade", "0", 4),
                ("APT::Periodic::Unattended-Upgrade", "1", 6),
                ("Unattended-Upgrade::Allowed-Origins::", "a:b", 7),
                ("Unattended-Upgrade::Allowed-Origins::", "c://d", 7),
            ]
        );
        for hostile in ["{", "}}}}", "\"", "/*", "#", "::;;{\"", "a{"] {
            read_apt(hostile, "/f", &mut settings);
        }
    }

    #[test]
    fn sources_are_lines_and_stanzas() {
        let line = source_line("deb [ arch=amd64 Trusted=yes ] https://a:secret@b/c stable main # x", "/f", 3).unwrap();
        assert!(line.is_on("trusted"));
        assert_eq!(line.evidence().value, "https://b/c arch=amd64 trusted=yes");
        assert_eq!(source_line("# deb x y", "/f", 1), None);
        assert_eq!(source_line("deb-src x y", "/f", 1), None);
        let mut sources = Vec::new();
        read_stanzas(
            "Types: deb deb-src\nURIs: http://a\nSuites: s s-security\nTrusted: yes\n\nTypes: deb\nEnabled: no\nURIs: x\nSuites: y\n",
            "/f",
            &mut sources,
        );
        let shown: Vec<_> = sources.iter().map(|one| (one.suite.as_str(), one.is_on("trusted"), one.line)).collect();
        assert_eq!(shown, [("s", true, 1), ("s-security", true, 1)]);
    }
}
