//! One line of sudoers(5), with continuations joined: what it says, or where it is no sudoers. Source: sudoers(5) of sudo 1.9.13,
//! "SUDOERS FILE FORMAT"; what its `visudo -c` accepted or refused and `cvtsudoers` told.

use std::net::IpAddr;

use super::settings;

/// What a line says.
#[derive(Debug)]
pub(super) enum Statement {
    /// Nothing: it is empty or a comment.
    Nothing,
    /// `@include` or, for a whole folder, `@includedir`.
    Include { target: String, is_folder: bool },
    /// Aliases of one kind.
    Aliases { kind: &'static str, definitions: Vec<(String, Vec<String>)> },
    /// Settings for a scope, which is empty or begins with what it is of (`:`, `@`, `>`, `!`).
    Defaults { scope: String, settings: Vec<Setting> },
    /// What users may do.
    Rule { users: Vec<String>, privileges: Vec<Privilege> },
}

/// One setting of a `Defaults` line.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) name: String,
    /// Nothing, `!`, `=`, `+=` or `-=`.
    pub(super) operator: &'static str,
    pub(super) value: String,
}

/// What may be done on some hosts.
#[derive(Debug)]
pub(super) struct Privilege {
    pub(super) hosts: Vec<String>,
    pub(super) commands: Vec<Command>,
}

/// One command, with what holds from it on.
#[derive(Debug)]
pub(super) struct Command {
    /// Users and groups that it may run as, where the line says so here.
    pub(super) run_as: Option<(Vec<String>, Vec<String>)>,
    pub(super) options: Vec<String>,
    pub(super) tags: Vec<&'static str>,
    /// With its arguments, and the digests it may have to match in front.
    pub(super) text: String,
}

const ALIASES: [(&str, &str); 5] = [
    ("User_Alias", "user"),
    ("Runas_Alias", "runas"),
    ("Host_Alias", "host"),
    ("Cmnd_Alias", "command"),
    ("Cmd_Alias", "command"),
];
/// Tags, each with its opposite (sudoers(5), "Tag_Spec").
const TAGS: [&str; 16] = [
    "NOPASSWD",
    "PASSWD",
    "NOEXEC",
    "EXEC",
    "NOSETENV",
    "SETENV",
    "NOLOG_INPUT",
    "LOG_INPUT",
    "NOLOG_OUTPUT",
    "LOG_OUTPUT",
    "NOMAIL",
    "MAIL",
    "NOFOLLOW",
    "FOLLOW",
    "NOINTERCEPT",
    "INTERCEPT",
];
/// Digests that a command may have to match, and their bytes (sudoers(5), "Digest_Spec").
const DIGESTS: [(&str, usize); 4] = [("sha224", 28), ("sha256", 32), ("sha384", 48), ("sha512", 64)];
/// The names of options before a command (sudoers(5), "Option_Spec").
const OPTIONS: [&str; 10] =
    ["ROLE", "TYPE", "APPARMOR_PROFILE", "PRIVS", "LIMITPRIVS", "NOTBEFORE", "NOTAFTER", "TIMEOUT", "CWD", "CHROOT"];

/// Reads one line.
///
/// # Errors
/// What is wrong with it.
pub(super) fn statement(line: &str) -> Result<Statement, &'static str> {
    let mut scanner = Scanner { rest: line };
    if let Some(include) = scanner.include() {
        return include;
    }
    if scanner.is_at_end(true) {
        return Ok(Statement::Nothing);
    }
    for (name, kind) in ALIASES {
        if scanner.rest.strip_prefix(name).is_some_and(|rest| rest.starts_with(is_blank)) {
            scanner.forward(name.len());
            return scanner.aliases(kind);
        }
    }
    if scanner.takes("Defaults") {
        return scanner.defaults();
    }
    scanner.rule()
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

/// Whether `text` may be an alias: a name in capitals.
fn is_alias(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

struct Scanner<'t> {
    rest: &'t str,
}

impl<'t> Scanner<'t> {
    fn forward(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn blank(&mut self) {
        self.rest = self.rest.trim_start_matches(is_blank);
    }

    fn takes(&mut self, text: &str) -> bool {
        let is_next = self.rest.starts_with(text);
        if is_next {
            self.forward(text.len());
        }
        is_next
    }

    /// The same behind blanks.
    fn takes_next(&mut self, text: &str) -> bool {
        self.blank();
        self.takes(text)
    }

    /// Whether nothing but a comment follows; where a list begins, `#` and a number are a user.
    fn is_at_end(&mut self, at_list: bool) -> bool {
        self.blank();
        let comment = self.rest.strip_prefix('#');
        let is_id = |rest: &str| rest.strip_prefix('-').unwrap_or(rest).starts_with(|c: char| c.is_ascii_digit());
        self.rest.is_empty() || comment.is_some_and(|rest| !(at_list && is_id(rest)))
    }

    fn end(&mut self) -> Result<(), &'static str> {
        if self.is_at_end(false) { Ok(()) } else { Err("more than its grammar has") }
    }

    fn include(&mut self) -> Option<Result<Statement, &'static str>> {
        self.blank();
        let (first, rest) = self.rest.split_at_checked(self.rest.find(is_blank).unwrap_or(self.rest.len()))?;
        let is_folder = match first {
            "@include" | "#include" => false,
            "@includedir" | "#includedir" => true,
            _ => return None,
        };
        let target = rest.trim();
        let target = target.strip_prefix('"').and_then(|inside| inside.strip_suffix('"')).unwrap_or(target);
        if target.is_empty() {
            return Some(Err("an include without a path"));
        }
        Some(Ok(Statement::Include { target: target.replace("\\ ", " "), is_folder }))
    }

    /// What stands apart by `separator`: at least one.
    fn separated<T>(
        &mut self,
        separator: &str,
        mut one: impl FnMut(&mut Self) -> Result<T, &'static str>,
    ) -> Result<Vec<T>, &'static str> {
        let mut all = vec![one(self)?];
        while self.takes_next(separator) {
            all.push(one(self)?);
        }
        Ok(all)
    }

    /// Members apart by commas, each negated by an odd number of `!`.
    fn list(
        &mut self,
        member: impl Fn(&mut Self) -> Result<String, &'static str>,
    ) -> Result<Vec<String>, &'static str> {
        self.separated(",", |scanner| {
            let negation = if scanner.takes_negation() { "!" } else { "" };
            Ok(format!("{negation}{}", member(scanner)?))
        })
    }

    fn takes_negation(&mut self) -> bool {
        let mut is_negated = false;
        while self.takes_next("!") {
            is_negated = !is_negated;
        }
        is_negated
    }

    /// Characters up to one that `ends`, without the backslashes that take their meaning from them.
    fn characters(&mut self, ends: impl Fn(char) -> bool, strips: impl Fn(char) -> bool) -> String {
        let mut found = String::new();
        let mut characters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some((_, escaped)) if strips(escaped) => found.push(escaped),
                    Some((_, other)) => found.extend(['\\', other]),
                    // At the end of the line: what would go on is missing.
                    None => {
                        end = at;
                        break;
                    }
                },
                _ if ends(character) => {
                    end = at;
                    break;
                }
                _ => found.push(character),
            }
        }
        self.forward(end);
        found
    }

    /// A string in double quotes, of which the first is next.
    fn quoted(&mut self) -> Result<String, &'static str> {
        self.forward(1);
        let inside = self.characters(|c| c == '"', |c| c == '"');
        if !self.takes("\"") {
            return Err("a quote that is not closed");
        }
        if inside.is_empty() { Err("an empty string") } else { Ok(inside) }
    }

    fn word(&mut self) -> Result<String, &'static str> {
        if self.rest.starts_with('"') {
            return self.quoted();
        }
        let word = self.characters(|c| "#>!=:,() \t\"".contains(c), |_| true);
        if word.is_empty() { Err("a name is missing") } else { Ok(word) }
    }

    /// A user, `#` and a number, a group behind `%`, a group of a plugin behind `%:`, or a netgroup behind `+`.
    fn user(&mut self) -> Result<String, &'static str> {
        self.blank();
        let sign = ["%:#", "%:", "%#", "%", "#", "+"].into_iter().find(|sign| self.rest.starts_with(sign));
        let Some(sign) = sign else { return self.word() };
        self.forward(sign.len());
        if self.rest.starts_with('"') {
            return Err("an empty group");
        }
        let name = self.word()?;
        if sign.ends_with('#') && name.parse::<i64>().is_err() {
            return Err("a number is missing");
        }
        Ok(format!("{sign}{name}"))
    }

    fn host(&mut self) -> Result<String, &'static str> {
        self.blank();
        let end = self.rest.find(|c: char| !(c.is_ascii_hexdigit() || ":./".contains(c))).unwrap_or(self.rest.len());
        let (address, _) = self.rest.split_at_checked(end).unwrap_or_default();
        // A colon behind an address parts it from the next hosts.
        for address in [address, address.trim_end_matches(':')] {
            let bare = address.split('/').next().unwrap_or_default();
            if matches!(bare.parse(), Ok(IpAddr::V6(_))) {
                self.forward(address.len());
                return Ok(address.to_owned());
            }
        }
        let sign = if self.takes("+") { "+" } else { "" };
        Ok(format!("{sign}{}", self.word()?))
    }

    fn aliases(&mut self, kind: &'static str) -> Result<Statement, &'static str> {
        let definitions = self.separated(":", |scanner| {
            scanner.blank();
            let name = scanner.word()?;
            if !is_alias(&name) || name == "ALL" {
                return Err("the name of an alias is one in capitals");
            }
            if !scanner.takes_next("=") {
                return Err("an alias without members");
            }
            let members = match kind {
                "host" => scanner.list(Self::host)?,
                "command" => scanner.separated(",", Self::command_with_digests)?,
                _ => scanner.list(Self::user)?,
            };
            Ok((name, members))
        })?;
        self.end()?;
        Ok(Statement::Aliases { kind, definitions })
    }

    fn rule(&mut self) -> Result<Statement, &'static str> {
        let users = self.list(Self::user)?;
        let privileges = self.separated(":", |scanner| {
            let hosts = scanner.list(Self::host)?;
            if !scanner.takes_next("=") {
                return Err("hosts without commands");
            }
            Ok(Privilege { hosts, commands: scanner.separated(",", Self::command)? })
        })?;
        self.end()?;
        Ok(Statement::Rule { users, privileges })
    }

    fn command(&mut self) -> Result<Command, &'static str> {
        let run_as = if self.takes_next("(") { Some(self.run_as()?) } else { None };
        let (mut options, mut tags) = (Vec::new(), Vec::new());
        while let Some(option) = self.option() {
            options.push(option?);
        }
        while let Some(tag) = self.tag() {
            tags.push(tag);
        }
        Ok(Command { run_as, options, tags, text: self.command_with_digests()? })
    }

    fn run_as(&mut self) -> Result<(Vec<String>, Vec<String>), &'static str> {
        self.blank();
        let users = if self.rest.starts_with([')', ':']) { Vec::new() } else { self.list(Self::user)? };
        let has_groups = self.takes_next(":");
        self.blank();
        let groups = if !has_groups || self.rest.starts_with(')') { Vec::new() } else { self.list(Self::user)? };
        if self.takes_next(")") { Ok((users, groups)) } else { Err("a parenthesis that is not closed") }
    }

    /// `NAME=value` before a command.
    fn option(&mut self) -> Option<Result<String, &'static str>> {
        self.blank();
        let is_next = |name: &&&str| {
            let rest = self.rest.strip_prefix(**name);
            rest.is_some_and(|rest| rest.trim_start_matches(is_blank).starts_with('='))
        };
        let name = *OPTIONS.iter().find(is_next)?;
        self.forward(name.len());
        self.takes_next("=");
        self.blank();
        let value = if self.rest.starts_with('"') {
            self.quoted()
        } else {
            let value = self.characters(|c| ", \t\"#".contains(c), |_| true);
            if value.is_empty() { Err("an option without a value") } else { Ok(value) }
        };
        Some(value.and_then(|value| {
            let is_right = match name {
                "TIMEOUT" => settings::is_timeout(&value),
                "CWD" | "CHROOT" => settings::is_working_directory(&value),
                "NOTBEFORE" | "NOTAFTER" => {
                    value.len() >= 10 && value.bytes().take(10).all(|byte| byte.is_ascii_digit())
                }
                _ => true,
            };
            if is_right { Ok(format!("{name}={value}")) } else { Err("an option with a value that it cannot have") }
        }))
    }

    fn tag(&mut self) -> Option<&'static str> {
        self.blank();
        for tag in TAGS {
            let rest = self.rest.strip_prefix(tag).map(|rest| rest.trim_start_matches(is_blank));
            if let Some(rest) = rest.and_then(|rest| rest.strip_prefix(':')) {
                self.rest = rest;
                return Some(tag);
            }
        }
        None
    }

    /// A command, and in front of it the digests of which it must match one.
    fn command_with_digests(&mut self) -> Result<String, &'static str> {
        let mut digests = Vec::new();
        loop {
            self.blank();
            let digest = DIGESTS.iter().find_map(|(name, bytes)| {
                let rest = self.rest.strip_prefix(name)?.trim_start_matches(is_blank);
                Some((*name, *bytes, rest.strip_prefix(':')?))
            });
            let Some((name, bytes, rest)) = digest else { break };
            self.rest = rest.trim_start_matches(is_blank);
            let digest = self.characters(|c| c == ',' || is_blank(c), |_| false);
            // In hexadecimal, or in base64 with its padding.
            let is_right = [bytes * 2, bytes.div_ceil(3) * 4].contains(&digest.len());
            if !is_right {
                return Err("a digest that is none");
            }
            digests.push(format!("{name}:{digest}"));
            if !self.takes_next(",") {
                break;
            }
        }
        let front = if digests.is_empty() { String::new() } else { format!("{} ", digests.join(", ")) };
        let negation = if self.takes_negation() { "!" } else { "" };
        Ok(format!("{front}{negation}{}", self.plain_command()?))
    }

    fn plain_command(&mut self) -> Result<String, &'static str> {
        self.blank();
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let name = self.rest.get(..end).unwrap_or_default();
        if is_alias(name) {
            self.forward(end);
            return Ok(name.to_owned());
        }
        let is_built_in = matches!(name, "sudoedit" | "list");
        if !is_built_in && !self.rest.starts_with(['/', '^']) {
            return Err("no path of a command from the root");
        }
        let mut command = String::new();
        if self.rest.starts_with('^') {
            // A regular expression ends with the first `$` behind which no more of it follows.
            let ends = self.rest.match_indices('$').map(|(at, _)| at.saturating_add(1));
            let is_end = |at: &usize| {
                self.rest
                    .get(*at..)
                    .is_none_or(|behind| behind.is_empty() || behind.starts_with([' ', '\t', ',', ':', '#']))
            };
            let end = ends.into_iter().find(is_end).ok_or("a regular expression that does not end")?;
            command.push_str(self.rest.get(..end).unwrap_or_default());
            self.forward(end);
        }
        let arguments = self.characters(|c| "#:,".contains(c), |c| ":\\,= \t#".contains(c));
        command.push_str(arguments.trim_end_matches(is_blank));
        if name == "list" && command != "list" { Err("arguments of `list`") } else { Ok(command) }
    }

    fn defaults(&mut self) -> Result<Statement, &'static str> {
        let sign = [":", "@", ">", "!"].into_iter().find(|sign| self.rest.starts_with(sign));
        let scope = match sign {
            None if self.rest.starts_with(is_blank) => String::new(),
            None => return Err("no scope"),
            Some(sign) => {
                self.forward(sign.len());
                if self.rest.starts_with(is_blank) {
                    return Err("no scope");
                }
                let names = match sign {
                    "@" => self.list(Self::host)?,
                    "!" => self.list(Self::command_of_scope)?,
                    _ => self.list(Self::user)?,
                };
                format!("{sign}{}", names.join(","))
            }
        };
        let settings = self.separated(",", Self::setting)?;
        self.end()?;
        Ok(Statement::Defaults { scope, settings })
    }

    /// A command without arguments.
    fn command_of_scope(&mut self) -> Result<String, &'static str> {
        self.blank();
        let command = self.characters(|c| "#:,= \t".contains(c), |c| ":\\,= \t#".contains(c));
        let is_right = command.starts_with(['/', '^']) || is_alias(&command) || command == "sudoedit";
        if is_right { Ok(command) } else { Err("no path of a command from the root") }
    }

    fn setting(&mut self) -> Result<Setting, &'static str> {
        let is_negated = self.takes_negation();
        self.blank();
        let end = self.rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(self.rest.len());
        let name = self.rest.get(..end).unwrap_or_default().to_owned();
        self.forward(end);
        let operator = if is_negated {
            "!"
        } else {
            ["+=", "-=", "="].into_iter().find(|operator| self.takes_next(operator)).unwrap_or_default()
        };
        let has_value = matches!(operator, "+=" | "-=" | "=");
        let value = if has_value { self.value()? } else { String::new() };
        settings::check(&name, operator, &value)?;
        Ok(Setting { name, operator, value })
    }

    fn value(&mut self) -> Result<String, &'static str> {
        self.blank();
        if self.rest.starts_with('"') {
            return self.quoted();
        }
        let value = self.characters(|c| "#=, \t\"".contains(c), |_| true);
        if value.is_empty() { Err("a setting without its value") } else { Ok(value) }
    }
}
