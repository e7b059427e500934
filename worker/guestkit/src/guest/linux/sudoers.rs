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
const NAMES_MAX: usize = 200_000;
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
    /// Places of lines that are not understood.
    pub(crate) flaws: Vec<String>,
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
                    files.warn(&*source, "the line is not understood as sudoers");
                    self.flaws.push(source);
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
        for definition in split_definitions(text) {
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
                value: default_value(value.trim()),
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
        let mut options = Vec::<String>::new();
        // Digests of one command stand apart by commas as commands do.
        let mut digests = String::new();
        for command in split_commands(commands) {
            let mut rest = command.trim();
            if let Some(inner) = rest.strip_prefix('(')
                && let Some((list, after)) = inner.split_once(')')
            {
                let (who, groups) = list.split_once(':').unwrap_or((list, ""));
                (run_as_users, run_as_groups) = (words_of_list(who), words_of_list(groups));
                rest = after.trim_start();
            }
            while let Some((option, after)) = leading_option(rest) {
                take_option(&mut options, option);
                rest = after;
            }
            while let Some((tag, after)) = leading_tag(rest) {
                take_tag(&mut tags, tag);
                rest = after;
            }
            if is_digest(rest) {
                digests.push_str(rest);
                digests.push_str(", ");
                continue;
            }
            if rest.is_empty() {
                continue;
            }
            let command = format!("{}{}", std::mem::take(&mut digests), unescape(rest));
            let lists =
                [users.len(), hosts.len(), run_as_users.len(), run_as_groups.len(), tags.len(), options.len(), 1];
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
                command,
                tags: tags.clone(),
                options: options.clone(),
            });
        }
    }

    /// Whether working out who may do everything took more than it may; answers after that are not to be trusted.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.steps.get() >= STEPS_MAX
    }

    /// Whether the last rule that names this account for all commands gives them.
    pub(crate) fn gives_everything(&self, who: &Account<'_>) -> bool {
        let mut given = false;
        for rule in self.rules.iter().filter(|rule| matches!(rule.command.as_str(), "ALL" | "!ALL")) {
            if self.names(&rule.users, who, ALIAS_DEPTH_MAX) {
                match rule.command.as_str() {
                    "ALL" => given = true,
                    "!ALL" => given = false,
                    _ => {}
                }
            }
        }
        given
    }

    fn names(&self, list: &[String], who: &Account<'_>, depth: usize) -> bool {
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
            if self.names_one(word, who, depth) {
                named = !negated;
            }
        }
        named
    }

    fn names_one(&self, word: &str, who: &Account<'_>, depth: usize) -> bool {
        if word == "ALL" || word == who.name {
            return true;
        }
        if let Some(number) = word.strip_prefix("%#") {
            return number.parse().is_ok_and(|gid| who.gids.contains(&gid));
        }
        if let Some(group) = word.strip_prefix('%') {
            return who.groups.iter().any(|known| known == group);
        }
        if let Some(number) = word.strip_prefix('#') {
            return number.parse() == Ok(who.uid);
        }
        let alias = self.aliases.iter().find(|alias| alias.kind == "user" && alias.name == word);
        let Some((alias, depth)) = alias.zip(depth.checked_sub(1)) else { return false };
        self.names(&alias.members, who, depth)
    }
}

/// Who a rule may name.
#[derive(Debug)]
pub(crate) struct Account<'a> {
    pub(crate) name: &'a str,
    pub(crate) uid: u64,
    /// Groups by name.
    pub(crate) groups: &'a [String],
    /// The same groups by number.
    pub(crate) gids: &'a [u64],
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
            // Before the first `=` a colon belongs to an IPv6 address of the host list.
            let has_commands = specs.last().is_some_and(|spec| spec.contains('='));
            has_commands && !TAGS.contains(&last_word) && !DIGESTS.contains(&last_word) && part.contains('=')
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
    words.map(|word| unescape(&word.split_whitespace().collect::<Vec<_>>().join(" ")).replace('"', "")).collect()
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

/// Digests that a command may have to match (sudoers(5), "Digest_Spec").
const DIGESTS: [&str; 4] = ["sha224", "sha256", "sha384", "sha512"];

/// A digest by itself: its command follows behind the next comma.
fn is_digest(text: &str) -> bool {
    let Some((name, digest)) = text.split_once(':') else { return false };
    DIGESTS.contains(&name.trim_end()) && !digest.trim().contains(char::is_whitespace)
}

/// The names of options before a command (sudoers(5), "Option_Spec").
const OPTIONS: [&str; 10] =
    ["ROLE", "TYPE", "APPARMOR_PROFILE", "PRIVS", "LIMITPRIVS", "NOTBEFORE", "NOTAFTER", "TIMEOUT", "CWD", "CHROOT"];

/// `NAME=value` before a command.
fn leading_option(text: &str) -> Option<(String, &str)> {
    let (name, rest) = text.split_once('=')?;
    let name = name.trim_end();
    if !OPTIONS.contains(&name) {
        return None;
    }
    let rest = rest.trim_start();
    let value = split_where(rest, |character, _| character.is_whitespace()).first().copied()?;
    let after = rest.get(value.len()..)?.trim_start();
    Some((format!("{name}={}", default_value(value)), after))
}

/// An option takes back what was said of its name.
fn take_option(options: &mut Vec<String>, option: String) {
    let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    options.retain(|known| name(known) != name(&option));
    options.push(option);
}

/// Alias definitions of one line: a colon parts them where a name and `=` follow, not inside IPv6 addresses and digests.
fn split_definitions(text: &str) -> Vec<&str> {
    let mut definitions = Vec::new();
    let (mut start, mut end) = (0_usize, 0_usize);
    for part in split_outside_quotes(text, ':') {
        let name = part.split_once('=').map_or("", |(name, _)| name.trim());
        let is_name = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        let before = text.get(start..end.saturating_sub(1)).unwrap_or_default();
        let last_word = before.rsplit([' ', '\t', ',', '=', '!']).next().unwrap_or_default();
        if end > 0 && is_name && !DIGESTS.contains(&last_word) {
            definitions.push(before);
            start = end;
        }
        end = end.saturating_add(part.len()).saturating_add(1);
    }
    definitions.push(text.get(start..).unwrap_or_default());
    definitions
}

/// A command without the backslashes that sudoers itself asks for; those of shell patterns stay.
fn unescape(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match characters.next_if(|next| character == '\\' && ":\\,= \t#".contains(*next)) {
            Some(escaped) => value.push(escaped),
            None => value.push(character),
        }
    }
    value
}

/// A value of a `Defaults` line or an option: in double quotes only a quote is escaped, elsewhere what [`unescape`] takes.
fn default_value(text: &str) -> String {
    match text.strip_prefix('"').map(|rest| rest.strip_suffix('"').unwrap_or(rest)) {
        Some(inside) => inside.replace("\\\"", "\""),
        None => unescape(text),
    }
}

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

    fn gives_everything(policy: &Sudoers, name: &str, uid: u64, groups: &[&str], gids: &[u64]) -> bool {
        let groups: Vec<_> = groups.iter().map(|group| (*group).to_owned()).collect();
        policy.gives_everything(&Account { name, uid, groups: &groups, gids })
    }

    /// As `cvtsudoers -f json` and `sudo -l -U` of sudo 1.9.13 and 1.9.16 tell the same lines.
    #[test]
    fn options_digests_and_escapes_are_no_part_of_a_command() {
        let policy = parse(
            "a ALL = CWD=/tmp NOPASSWD: /bin/pwd, TIMEOUT=10m /bin/id\n\
             b ALL = /usr/bin/tee /etc/a\\,b\\:c, sha224:0GomF8== /bin/ls, sha256:aa, sha512:bb= /bin/cat \\*\n\
             c 2001:db8::1, fe80::/10 = ALL : h2 = /bin/x\n\
             Cmnd_Alias H = sha224:NsQ== /bin/ls, /bin/a\\:b : I = /bin/i\nHost_Alias V = 2001:db8::1 : W = w\n\
             %#5000 ALL = (ALL) ALL\nDefaults:x badpass_message=\"no, \\\"way\\\"\"\n",
        );
        let shown: Vec<_> = policy
            .rules
            .iter()
            .map(|rule| {
                let lists = [&rule.users, &rule.hosts, &rule.tags, &rule.options].map(|list| list.join(","));
                format!("{}|{}", lists.join("|"), rule.command)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "a|ALL|NOPASSWD|CWD=/tmp|/bin/pwd",
                "a|ALL|NOPASSWD|CWD=/tmp,TIMEOUT=10m|/bin/id",
                "b|ALL|||/usr/bin/tee /etc/a,b:c",
                "b|ALL|||sha224:0GomF8== /bin/ls",
                "b|ALL|||sha256:aa, sha512:bb= /bin/cat \\*",
                "c|2001:db8::1,fe80::/10|||ALL",
                "c|h2|||/bin/x",
                "%#5000|ALL|||ALL",
            ]
        );
        let aliases: Vec<_> =
            policy.aliases.iter().map(|alias| format!("{}={}", alias.name, alias.members.join("|"))).collect();
        assert_eq!(aliases, ["H=sha224:NsQ== /bin/ls|/bin/a:b", "I=/bin/i", "V=2001:db8::1", "W=w"]);
        assert_eq!(policy.defaults[0].value, "no, \"way\"");
        assert!(gives_everything(&policy, "x", 1, &["dev"], &[5000]));
        assert!(!gives_everything(&policy, "x", 1, &["5000"], &[1]));
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
        assert!(gives_everything(&policy, "x", 1000, &[], &[]));
        assert!(!gives_everything(&policy, "bob", 1, &["ops"], &[]));
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
        assert!(gives_everything(&policy, "b", 5, &[], &[]));
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
        gives_everything(&parse(&"User_Alias A = A\nA ALL = ALL\n".repeat(10)), "x", 1, &[], &[]);
        let chain: String = (0..30).map(|level| format!("User_Alias A{level} = A{0}, A{0}\n", level + 1)).collect();
        let policy = parse(&format!("{chain}A0 ALL = ALL\n"));
        assert!(!gives_everything(&policy, "x", 1, &[], &[]));
        assert!(policy.is_exhausted());
        let names = "a,".repeat(3_000);
        assert!(parse(&format!("{names}b ALL = {}", "/x, ".repeat(3_000))).rules.len() < 1_000);
    }
}
