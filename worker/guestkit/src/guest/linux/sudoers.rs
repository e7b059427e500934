//! Who may become whom: sudoers(5) with its includes. Names are kept as written; aliases are listed beside the rules.

mod grammar;
mod settings;

use std::cell::Cell;

use crate::guest::report::{SudoAlias, SudoDefault, SudoRule};

use super::files::Files;
use grammar::{Privilege, Statement};

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
            match grammar::statement(&line) {
                Ok(Statement::Include { target, is_folder: false }) => {
                    self.include(files, &beside(path, &target), depth + 1, count);
                }
                Ok(Statement::Include { target, is_folder: true }) => {
                    let directory = beside(path, &target);
                    // Names with a dot or a tilde at the end are left out (sudoers(5), "Including other files").
                    let names = files.names(directory.trim_end_matches('/')).into_iter();
                    for name in names.filter(|name| !name.contains('.') && !name.ends_with('~')) {
                        let below = format!("{}/{name}", directory.trim_end_matches('/'));
                        self.include(files, &below, depth + 1, count);
                    }
                }
                Ok(statement) => self.take(statement, &source),
                Err(why) => {
                    files.warn(&*source, format!("the line is no sudoers: {why}"));
                    self.flaws.push(source);
                }
            }
        }
    }

    /// Takes in what a line says that includes nothing.
    fn take(&mut self, statement: Statement, source: &str) {
        match statement {
            Statement::Nothing | Statement::Include { .. } => {}
            Statement::Aliases { kind, definitions } => {
                self.aliases.extend(definitions.into_iter().map(|(name, members)| SudoAlias {
                    kind: kind.to_owned(),
                    name,
                    members,
                }));
            }
            Statement::Defaults { scope, settings } => {
                self.defaults.extend(settings.into_iter().map(|setting| SudoDefault {
                    source: source.to_owned(),
                    scope: scope.clone(),
                    name: setting.name,
                    operator: setting.operator.to_owned(),
                    value: setting.value,
                }));
            }
            Statement::Rule { users, privileges } => {
                for privilege in privileges {
                    self.take_privilege(&users, privilege, source);
                }
            }
        }
    }

    fn take_privilege(&mut self, users: &[String], privilege: Privilege, source: &str) {
        // Run-as lists, options and tags hold for the commands that follow them (sudoers(5), "Tag_Spec").
        let (mut run_as_users, mut run_as_groups, mut tags) = (Vec::new(), Vec::new(), Vec::<String>::new());
        let mut options = Vec::<String>::new();
        for command in privilege.commands {
            if let Some((users, groups)) = command.run_as {
                (run_as_users, run_as_groups) = (users, groups);
            }
            for option in command.options {
                take_option(&mut options, option);
            }
            for tag in command.tags {
                take_tag(&mut tags, tag);
            }
            let hosts = &privilege.hosts;
            let lists =
                [users.len(), hosts.len(), run_as_users.len(), run_as_groups.len(), tags.len(), options.len(), 1];
            self.names = self.names.saturating_add(lists.iter().sum());
            if self.names > NAMES_MAX {
                return;
            }
            self.rules.push(SudoRule {
                source: source.to_owned(),
                users: users.to_vec(),
                hosts: hosts.clone(),
                run_as_users: run_as_users.clone(),
                run_as_groups: run_as_groups.clone(),
                command: command.text,
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

/// A path relative to the including file's directory.
fn beside(path: &str, target: &str) -> String {
    match path.rsplit_once('/') {
        Some((directory, _)) if !target.starts_with('/') => format!("{directory}/{target}"),
        _ => target.to_owned(),
    }
}

/// Lines with continuations joined, each with the number it begins at.
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
    // What would go on behind the last line keeps its backslash, and is refused.
    lines.extend(open.map(|(number, whole)| (number, whole + "\\")));
    lines
}

/// An option takes back what was said of its name.
fn take_option(options: &mut Vec<String>, option: String) {
    let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    options.retain(|known| name(known) != name(&option));
    options.push(option);
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
        let (short, hexadecimal) = ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", "ab".repeat(32));
        let long = format!("{}==", "B".repeat(86));
        let policy = parse(&format!(
            "a ALL = CWD=/tmp NOPASSWD: /bin/pwd, TIMEOUT=10m /bin/id\n\
             b ALL = /usr/bin/tee /etc/a\\,b\\:c, sha224:{short} /bin/ls, sha256:{hexadecimal}, sha512:{long} /bin/cat \\*\n\
             c 2001:db8::1, fe80::/10 = ALL : h2 = /bin/x\n\
             Cmnd_Alias H = sha224:{short} /bin/ls, /bin/a\\:b : I = /bin/i\nHost_Alias V = 2001:db8::1 : W = w\n\
             %#5000 ALL = (ALL) ALL\nDefaults:x badpass_message=\"no, \\\"way\\\"\"\n",
        ));
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
                &format!("b|ALL|||sha224:{short} /bin/ls"),
                &format!("b|ALL|||sha256:{hexadecimal}, sha512:{long} /bin/cat \\*"),
                "c|2001:db8::1,fe80::/10|||ALL",
                "c|h2|||/bin/x",
                "%#5000|ALL|||ALL",
            ]
        );
        let aliases: Vec<_> =
            policy.aliases.iter().map(|alias| format!("{}={}", alias.name, alias.members.join("|"))).collect();
        assert_eq!(aliases, [&*format!("H=sha224:{short} /bin/ls|/bin/a:b"), "I=/bin/i", "V=2001:db8::1", "W=w"]);
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
