//! Who may become whom: sudoers(5) with its includes. Names are kept as written; aliases are listed beside the rules.

use std::cell::Cell;

use crate::guest::report::{SudoAlias, SudoDefault, SudoRule};

use super::files::Files;

/// Includes inside includes: sudo itself stops at 128.
const INCLUDE_DEPTH_MAX: usize = 128;
/// Files of one policy: sites keep one for each application.
const FILES_MAX: usize = 10_000;
/// Aliases inside aliases that are followed to tell whether somebody may do everything.
const ALIAS_DEPTH_MAX: usize = 32;

/// Names that all rules may hold together: every rule repeats its users and hosts, so a small file could ask for gigabytes.
const NAMES_MAX: usize = 1_000_000;
/// Comparisons that working out who may do everything takes at most; aliases of aliases multiply.
const STEPS_MAX: u32 = 20_000_000;

/// A whole policy.
#[derive(Debug, Default)]
pub(crate) struct Sudoers {
    names: usize,
    steps: Cell<u32>,
    pub(crate) rules: Vec<SudoRule>,
    pub(crate) defaults: Vec<SudoDefault>,
    pub(crate) aliases: Vec<SudoAlias>,
}

impl Sudoers {
    /// The policy of /etc/sudoers and what it includes; empty where there is none.
    pub(crate) fn read(files: &Files<'_>) -> Self {
        let mut policy = Self::default();
        let mut count = 0;
        policy.include(files, "/etc/sudoers", 0, &mut count);
        if policy.names > NAMES_MAX {
            files.warn("/etc/sudoers", format!("rules hold more than {NAMES_MAX} names; the rest is left out"));
        }
        policy
    }

    fn include(&mut self, files: &Files<'_>, path: &str, depth: usize, count: &mut usize) {
        *count += 1;
        if depth > INCLUDE_DEPTH_MAX || *count > FILES_MAX {
            files
                .warn(path, format!("includes go deeper than {INCLUDE_DEPTH_MAX} or name more than {FILES_MAX} files"));
            return;
        }
        let Some(text) = files.text(path) else { return };
        for (number, line) in logical_lines(&text) {
            let source = format!("{path}:{number}");
            match directive(&line) {
                Some(Directive::File(target)) => {
                    self.include(files, &beside(path, target), depth + 1, count);
                }
                Some(Directive::Directory(target)) => {
                    let directory = beside(path, target);
                    // Names with a dot or a tilde at the end are left out (sudoers(5), "Including other files").
                    let names = files.names(directory.trim_end_matches('/')).into_iter();
                    for name in names.filter(|name| !name.contains('.') && !name.ends_with('~')) {
                        let below = format!("{}/{name}", directory.trim_end_matches('/'));
                        self.include(files, &below, depth + 1, count);
                    }
                }
                None if !self.take(&line, &source) => {
                    files.warn(source, "the line is not understood as sudoers");
                }
                None => {}
            }
        }
    }

    /// Takes in one line that includes nothing; tells whether it is understood.
    fn take(&mut self, line: &str, source: &str) -> bool {
        let first_end = line.find(|c: char| c.is_whitespace()).unwrap_or(line.len());
        let (first, rest) = line.split_at_checked(first_end).unwrap_or((line, ""));
        let kind = match first {
            "User_Alias" => Some("user"),
            "Runas_Alias" => Some("runas"),
            "Host_Alias" => Some("host"),
            "Cmnd_Alias" | "Cmd_Alias" => Some("command"),
            _ => None,
        };
        if let Some(kind) = kind {
            return self.take_aliases(kind, rest);
        }
        if let Some(scope) = line.strip_prefix("Defaults") {
            return self.take_defaults(scope, source);
        }
        self.take_rule(line, source)
    }

    fn take_aliases(&mut self, kind: &str, text: &str) -> bool {
        for definition in split_outside_quotes(text, ':') {
            let Some((name, members)) = definition.split_once('=') else { return false };
            self.aliases.push(SudoAlias {
                kind: kind.to_owned(),
                name: name.trim().to_owned(),
                members: words_of_list(members),
            });
        }
        true
    }

    fn take_defaults(&mut self, text: &str, source: &str) -> bool {
        let (scope, settings) = match text.chars().next() {
            Some('@' | ':' | '!' | '>') => match text.split_once(char::is_whitespace) {
                Some((scope, settings)) => (scope, settings),
                None => return false,
            },
            Some(first) if first.is_whitespace() => ("", text),
            _ => return false,
        };
        for setting in split_outside_quotes(settings, ',') {
            let setting = setting.trim();
            let (name, operator, value) = match setting.split_once('=') {
                Some((name, value)) => match name.chars().last() {
                    Some('+') => (name.trim_end_matches('+'), "+=", value),
                    Some('-') => (name.trim_end_matches('-'), "-=", value),
                    _ => (name, "=", value),
                },
                None => match setting.strip_prefix('!') {
                    Some(name) => (name, "!", ""),
                    None => (setting, "", ""),
                },
            };
            self.defaults.push(SudoDefault {
                source: source.to_owned(),
                scope: scope.to_owned(),
                name: name.trim().to_owned(),
                operator: operator.to_owned(),
                value: value.trim().trim_matches('"').to_owned(),
            });
        }
        true
    }

    /// `users hosts = (runas:groups) TAG: command, command : hosts = …`
    fn take_rule(&mut self, line: &str, source: &str) -> bool {
        let specs = split_specs(line);
        let mut users = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let Some((left, commands)) = split_once_outside_quotes(spec, '=') else { return false };
            let hosts = if index == 0 {
                let Some((who, hosts)) = split_user_list(left) else { return false };
                users = words_of_list(who);
                hosts
            } else {
                left
            };
            self.take_commands(&users, &words_of_list(hosts), commands, source);
        }
        !users.is_empty()
    }

    fn take_commands(&mut self, users: &[String], hosts: &[String], commands: &str, source: &str) {
        // Run-as lists and tags hold for the commands that follow them (sudoers(5), "Tag_Spec").
        let (mut run_as_users, mut run_as_groups, mut tags) = (Vec::new(), Vec::new(), Vec::<String>::new());
        for command in split_commands(commands) {
            let mut rest = command.trim();
            if let Some(inner) = rest.strip_prefix('(')
                && let Some((list, after)) = inner.split_once(')')
            {
                let (who, groups) = list.split_once(':').unwrap_or((list, ""));
                (run_as_users, run_as_groups) = (words_of_list(who), words_of_list(groups));
                rest = after.trim_start();
            }
            while let Some((tag, after)) = leading_tag(rest) {
                take_tag(&mut tags, tag);
                rest = after;
            }
            if rest.is_empty() {
                continue;
            }
            let lists = [users.len(), hosts.len(), run_as_users.len(), run_as_groups.len(), tags.len(), 1];
            self.names = self.names.saturating_add(lists.iter().sum());
            if self.names > NAMES_MAX {
                return;
            }
            self.rules.push(SudoRule {
                source: source.to_owned(),
                users: users.to_vec(),
                hosts: hosts.to_vec(),
                run_as_users: run_as_users.clone(),
                run_as_groups: run_as_groups.clone(),
                command: rest.to_owned(),
                tags: tags.clone(),
            });
        }
    }

    /// Whether working out who may do everything took more than it may; answers after that are not to be trusted.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.steps.get() >= STEPS_MAX
    }

    /// Whether the last rule that names this account for all commands gives them.
    pub(crate) fn gives_everything(&self, name: &str, uid: u64, groups: &[String]) -> bool {
        let mut given = false;
        for rule in self.rules.iter().filter(|rule| matches!(rule.command.as_str(), "ALL" | "!ALL")) {
            if self.names(&rule.users, name, uid, groups, ALIAS_DEPTH_MAX) {
                match rule.command.as_str() {
                    "ALL" => given = true,
                    "!ALL" => given = false,
                    _ => {}
                }
            }
        }
        given
    }

    fn names(&self, list: &[String], name: &str, uid: u64, groups: &[String], depth: usize) -> bool {
        let mut named = false;
        for word in list {
            self.steps.set(self.steps.get().saturating_add(1));
            if self.is_exhausted() {
                return false;
            }
            let (word, negated) = match word.strip_prefix('!') {
                Some(word) => (word, true),
                None => (word.as_str(), false),
            };
            if self.names_one(word, name, uid, groups, depth) {
                named = !negated;
            }
        }
        named
    }

    fn names_one(&self, word: &str, name: &str, uid: u64, groups: &[String], depth: usize) -> bool {
        if word == "ALL" || word == name {
            return true;
        }
        if let Some(group) = word.strip_prefix('%') {
            return groups.iter().any(|known| known == group);
        }
        if let Some(number) = word.strip_prefix('#') {
            return number.parse() == Ok(uid);
        }
        let alias = self.aliases.iter().find(|alias| alias.kind == "user" && alias.name == word);
        let Some((alias, depth)) = alias.zip(depth.checked_sub(1)) else { return false };
        self.names(&alias.members, name, uid, groups, depth)
    }
}

enum Directive<'a> {
    File(&'a str),
    Directory(&'a str),
}

fn directive(line: &str) -> Option<Directive<'_>> {
    let (word, target) = line.split_once(char::is_whitespace)?;
    let target = target.trim().trim_matches('"');
    match word {
        "@include" | "#include" => Some(Directive::File(target)),
        "@includedir" | "#includedir" => Some(Directive::Directory(target)),
        _ => None,
    }
}

/// A path relative to the including file's directory.
fn beside(path: &str, target: &str) -> String {
    match path.rsplit_once('/') {
        Some((directory, _)) if !target.starts_with('/') => format!("{directory}/{target}"),
        _ => target.to_owned(),
    }
}

/// Lines with continuations joined and comments taken off, each with the number it begins at.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let (number, mut whole) = open.take().unwrap_or((index + 1, String::new()));
        if let Some(start) = line.strip_suffix('\\') {
            whole.push_str(start);
            open = Some((number, whole));
            continue;
        }
        whole.push_str(line);
        lines.push((number, whole));
    }
    lines.extend(open);
    let stripped = lines.into_iter().map(|(number, line)| (number, without_comment(&line).trim().to_owned()));
    stripped.filter(|(_, line)| !line.is_empty()).collect()
}

/// A `#` begins a comment unless it begins a user id, an include, or stands in quotes or behind a backslash.
fn without_comment(line: &str) -> &str {
    let trimmed = line.trim_start();
    if trimmed.starts_with("#include ")
        || trimmed.starts_with("#includedir ")
        || trimmed.starts_with("#include\t")
        || trimmed.starts_with("#includedir\t")
    {
        return line;
    }
    let (mut quoted, mut escaped) = (false, false);
    for (at, character) in line.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => {
                let rest = line.get(at.saturating_add(1)..).unwrap_or_default();
                let is_id = rest.starts_with(|c: char| c.is_ascii_digit() || c == '-');
                let before = line.get(..at).unwrap_or_default().trim_end();
                let is_list_start = before.is_empty() || before.ends_with([',', '!', '(', ':', '=', '%']);
                if !(is_id && is_list_start) {
                    return line.get(..at).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    line
}

/// Splits where `separator` stands outside quotes, not behind a backslash.
fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    split_where(text, |character, _| character == separator)
}

fn split_once_outside_quotes(text: &str, separator: char) -> Option<(&str, &str)> {
    let first = split_outside_quotes(text, separator).first().map(|first| first.len())?;
    Some((text.get(..first)?, text.get(first.checked_add(separator.len_utf8())?..)?))
}

/// Splits where `is_separator(character, inside_parentheses)` holds outside quotes.
fn split_where(text: &str, is_separator: impl Fn(char, bool) -> bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut quoted, mut escaped, mut inside) = (false, false, false);
    let mut start = 0;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' => inside = true,
            ')' => inside = false,
            _ if is_separator(character, inside) => {
                parts.push(text.get(start..at).unwrap_or_default());
                start = at + character.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

/// Splits a line at the colons that begin another host list, as in `user H1 = a : H2 = b`: a colon behind a tag or in a
/// run-as list is none of them.
fn split_specs(line: &str) -> Vec<&str> {
    let mut specs: Vec<&str> = Vec::new();
    let mut start = 0;
    for part in split_where(line, |character, inside| character == ':' && !inside) {
        let end = start + part.len();
        let begins_spec = specs.last().is_some_and(|_| {
            let last_word = line.get(..start.saturating_sub(1)).unwrap_or_default().trim_end();
            let last_word = last_word.rsplit([' ', '\t', ',', ')', '=', ':']).next().unwrap_or_default();
            !TAGS.contains(&last_word) && part.contains('=')
        });
        if begins_spec || specs.is_empty() {
            specs.push(part);
        } else if let Some(last) = specs.last_mut() {
            let from = last.as_ptr() as usize - line.as_ptr() as usize;
            *last = line.get(from..end).unwrap_or(last);
        }
        start = end + 1;
    }
    specs
}

/// The user list ends at white space that no comma precedes or follows.
fn split_user_list(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let mut quoted = false;
    let mut last = ' ';
    for (at, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            _ if quoted || !character.is_whitespace() => {}
            _ => {
                let rest = text.get(at..)?.trim_start();
                if last != ',' && last != '!' && !rest.starts_with(',') {
                    return Some((text.get(..at)?, rest));
                }
                continue;
            }
        }
        if !character.is_whitespace() {
            last = character;
        }
    }
    None
}

fn words_of_list(text: &str) -> Vec<String> {
    let words = split_outside_quotes(text, ',').into_iter().map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| word.split_whitespace().collect::<Vec<_>>().join(" ").replace('"', "")).collect()
}

fn split_commands(text: &str) -> Vec<&str> {
    split_where(text, |character, inside| character == ',' && !inside)
}

const TAGS: [&str; 18] = [
    "NOPASSWD",
    "PASSWD",
    "NOEXEC",
    "EXEC",
    "SETENV",
    "NOSETENV",
    "LOG_INPUT",
    "NOLOG_INPUT",
    "LOG_OUTPUT",
    "NOLOG_OUTPUT",
    "MAIL",
    "NOMAIL",
    "FOLLOW",
    "NOFOLLOW",
    "INTERCEPT",
    "NOINTERCEPT",
    "SELINUX",
    "NOFOLLOWSYM",
];

fn leading_tag(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once(':')?;
    let word = word.trim();
    TAGS.contains(&word).then(|| (word, rest.trim_start()))
}

/// A tag takes back its opposite.
fn take_tag(tags: &mut Vec<String>, tag: &str) {
    let bare = tag.strip_prefix("NO").unwrap_or(tag);
    tags.retain(|known| known.strip_prefix("NO").unwrap_or(known) != bare);
    tags.push(tag.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    fn parse(text: &str) -> Sudoers {
        let fixture = Fixture::new();
        fixture.file("etc/sudoers", text);
        let tree = fixture.tree();
        Sudoers::read(&Files::new(&tree))
    }

    #[test]
    fn rules_split_into_commands_with_their_tags() {
        let policy = parse(
            "# comment\nroot\tALL=(ALL:ALL) ALL\n%ops, bob ALL, !db = (www) NOPASSWD: /bin/a -x, PASSWD: /bin/b : web = SETENV:NOEXEC: /bin/c\n\
             #1000 ALL = ALL # trailing\nalice ALL=(root) NOPASSWD:ALL\n",
        );
        let shown: Vec<_> = policy
            .rules
            .iter()
            .map(|rule| {
                (
                    rule.users.join(","),
                    rule.hosts.join(","),
                    rule.run_as_users.join(","),
                    rule.tags.join(","),
                    rule.command.clone(),
                )
            })
            .collect();
        let row = |a: &str, b: &str, c: &str, d: &str, e: &str| (a.into(), b.into(), c.into(), d.into(), e.into());
        assert_eq!(
            shown,
            [
                row("root", "ALL", "ALL", "", "ALL"),
                row("%ops,bob", "ALL,!db", "www", "NOPASSWD", "/bin/a -x"),
                row("%ops,bob", "ALL,!db", "www", "PASSWD", "/bin/b"),
                row("%ops,bob", "web", "", "SETENV,NOEXEC", "/bin/c"),
                row("#1000", "ALL", "", "", "ALL"),
                row("alice", "ALL", "root", "NOPASSWD", "ALL"),
            ]
        );
        assert!(policy.gives_everything("x", 1000, &[]));
        assert!(!policy.gives_everything("bob", 1, &["ops".to_owned()]));
    }

    #[test]
    fn defaults_aliases_and_includes_are_read() {
        let fixture = Fixture::new();
        fixture.file(
            "etc/sudoers",
            "Defaults env_reset, !authenticate, secure_path=\"/a:/b\", env_keep += \"X Y\"\nDefaults:bob timestamp_timeout=0\n\
             User_Alias ADMINS = a, b : OPS = c\nADMINS ALL = (ALL) ALL\n@includedir /etc/sudoers.d\n@include extra\n",
        );
        fixture.file("etc/sudoers.d/10-x", "x ALL=(ALL) \\\n  ALL\n");
        fixture.file("etc/sudoers.d/20.skipped", "y ALL=ALL\n");
        fixture.file("etc/sudoers.d/30~", "z ALL=ALL\n");
        fixture.file("etc/extra", "@include extra\n");
        let tree = fixture.tree();
        let files = Files::new(&tree);
        let policy = Sudoers::read(&files);
        assert_eq!(policy.defaults.len(), 5);
        assert_eq!((policy.defaults[1].operator.as_str(), policy.defaults[1].name.as_str()), ("!", "authenticate"));
        assert_eq!(policy.defaults[2].value, "/a:/b");
        assert_eq!(policy.defaults[4].scope, ":bob");
        assert_eq!(policy.aliases.len(), 2);
        assert!(policy.gives_everything("b", 5, &[]));
        assert_eq!(policy.rules.len(), 2);
        assert_eq!(policy.rules[1].source, "/etc/sudoers.d/10-x:1");
        assert_eq!(files.into_warnings().len(), 1, "the endless include is told");
    }

    #[test]
    fn hostile_lines_end() {
        for text in ["=", "a", "a b", "a b=", ":=:=", "(", "\"", "Defaults", "Defaults@", "User_Alias", "a ALL=(", "\\"]
        {
            parse(text);
        }
        parse(&"a ALL=(x) ".repeat(20_000));
        parse(&"User_Alias A = A\nA ALL = ALL\n".repeat(10)).gives_everything("x", 1, &[]);
        let chain: String = (0..30).map(|level| format!("User_Alias A{level} = A{0}, A{0}\n", level + 1)).collect();
        let policy = parse(&format!("{chain}A0 ALL = ALL\n"));
        assert!(!policy.gives_everything("x", 1, &[]));
        assert!(policy.is_exhausted());
        let names = "a,".repeat(3_000);
        assert!(parse(&format!("{names}b ALL = {}", "/x, ".repeat(3_000))).rules.len() < 1_000);
    }
}
