//! The rules of the kernel's audit as it would hold them: files in the order of augenrules, both forms of a watch, system
//! calls and both ABIs. Sources: auditctl(8), audit.rules(7), augenrules(8).

use std::collections::BTreeSet;

use crate::guest::linux::boot::compare_versions;

use super::guest::Guest;
use super::report::Evidence;

/// Rules that are kept: large sites have some thousands.
const RULES_MAX: usize = 20_000;
/// Calls that machines newer than `openat` and its kin do not have.
const REPLACED: [&str; 7] = ["open", "creat", "chmod", "chown", "lchown", "unlink", "rename"];
const COMPILED: &str = "/etc/audit/audit.rules";

/// An ABI of system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Abi {
    B64,
    B32,
}

impl Abi {
    const fn name(self) -> &'static str {
        match self {
            Self::B64 => "b64",
            Self::B32 => "b32",
        }
    }
}

/// A rule in one form, whichever it was written in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AuditRule {
    /// It keeps what it matches out of the log.
    is_never: bool,
    list: String,
    /// What it watches: a file, or a directory with everything below it.
    path: Option<String>,
    is_directory: bool,
    /// Of `rwxa`.
    permissions: String,
    /// Empty for all.
    calls: BTreeSet<String>,
    /// `None` for the kernel's own.
    abi: Option<Abi>,
    /// Other conditions, in one spelling: `auid>=1000`, `exit=-13`, `euid!=uid`.
    fields: Vec<String>,
    file: String,
    line: usize,
    text: String,
}

impl AuditRule {
    pub(crate) fn evidence(&self) -> Evidence {
        Evidence::explicit(&*self.file, "rule", &*self.text).at_line(self.line)
    }
}

/// What the kernel is told.
#[derive(Debug, Default)]
pub(crate) struct AuditRules {
    pub(crate) rules: Vec<AuditRule>,
    /// The last `-e` that is heard, and where it stands.
    pub(crate) enabled: Option<(String, Evidence)>,
    /// Where the rules come from.
    pub(crate) files: Vec<String>,
    /// ABIs that programs can use.
    abis: Vec<Abi>,
    /// The machine was new when Linux came to it: it has none of the calls that newer ones replaced.
    is_new: bool,
}

/// Reads the rules: `rules.d` as augenrules compiles it, else the compiled file.
pub(crate) fn read(guest: &Guest<'_>) -> AuditRules {
    let mut parts = guest.files.with_suffix("/etc/audit/rules.d", ".rules");
    // `ls -v` is what augenrules orders them by.
    parts.sort_by(|a, b| compare_versions(a, b));
    let loads_compiled = ["audit-rules.service", "auditd.service"].iter().any(|name| {
        let text = guest.unit(name).and_then(|unit| guest.files.text(&unit.path)).unwrap_or_default();
        let mut lines = text.lines().filter(|line| line.starts_with("Exec") && !line.starts_with('#'));
        lines.any(|line| line.contains("auditctl -R"))
    });
    let is_compiled_here = !parts.is_empty() && !loads_compiled;
    let files = if is_compiled_here { parts } else { vec![COMPILED.to_owned()] };
    let abis = match guest.system.operating_system.arch.as_deref() {
        Some("i386" | "i686" | "arm") => vec![Abi::B32],
        Some("x86_64") | None => vec![Abi::B64, Abi::B32],
        Some(_) => vec![Abi::B64],
    };
    let is_new = matches!(guest.system.operating_system.arch.as_deref(), Some("aarch64" | "riscv64" | "loongarch64"));
    let mut read = AuditRules { abis, is_new, ..AuditRules::default() };
    for path in files {
        let Some(text) = guest.files.text(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            // Nothing is taken in once the rules are locked; augenrules writes the lock last of all.
            let is_locked = read.enabled.as_ref().is_some_and(|(value, _)| value == "2") && !is_compiled_here;
            if !is_locked && read.rules.len() < RULES_MAX {
                read.take(line, &path, number.saturating_add(1));
            }
        }
        read.files.push(path);
    }
    read
}

impl AuditRules {
    fn take(&mut self, line: &str, path: &str, number: usize) {
        let words = words(line);
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => {}
            ["-D", ..] => self.rules.clear(),
            ["-e", value, ..] => {
                let evidence = Evidence::explicit(path, "-e", *value).at_line(number);
                self.enabled = Some(((*value).to_owned(), evidence));
            }
            words => {
                if let Some(rule) = parse(words) {
                    let place = AuditRule { file: path.to_owned(), line: number, text: line.trim().to_owned(), ..rule };
                    // `-A` stands before all others.
                    if words.first() == Some(&"-A") {
                        self.rules.insert(0, place);
                    } else {
                        self.rules.push(place);
                    }
                }
            }
        }
    }

    /// No system call is looked at by any task.
    fn is_off_for_tasks(&self) -> bool {
        self.rules.iter().any(|rule| rule.is_never && rule.list == "task")
    }

    /// The rule that watches writes to `path` and changes of its attributes: its own, or that of a directory above it.
    pub(crate) fn watching(&self, path: &str, permissions: &str) -> Option<&AuditRule> {
        if self.is_off_for_tasks() {
            return None;
        }
        let wanted = canonical(path);
        let mut covered: BTreeSet<Abi> = BTreeSet::new();
        self.rules.iter().find(|rule| {
            let Some(watched) = rule.path.as_deref().map(canonical) else { return false };
            let below = wanted.strip_prefix(&watched).is_some_and(|rest| rest.starts_with('/'));
            let is_watched = watched == wanted || (below && rule.is_directory);
            let has = permissions.chars().all(|one| rule.permissions.contains(one));
            let is_plain =
                rule.fields.iter().all(|field| is_neutral(field) || field == "auid>=1000" && permissions == "x");
            if rule.is_never || !is_watched || !has || !is_plain || !rule.calls.is_empty() {
                return false;
            }
            match rule.abi {
                None => true,
                Some(abi) => {
                    covered.insert(abi);
                    self.abis.iter().all(|abi| covered.contains(abi))
                }
            }
        })
    }

    /// What of `calls` is not recorded under these conditions: `setuid (b32)`; a rule with fewer conditions records more.
    pub(crate) fn unrecorded(&self, calls: &[&str], conditions: &[&str]) -> Vec<String> {
        let conditions: Vec<String> = conditions.iter().map(|field| normal(field)).collect();
        let mut missing = Vec::new();
        for abi in &self.abis {
            for call in calls.iter().filter(|call| !(self.is_new && REPLACED.contains(call))) {
                let mut rules = self.rules.iter().filter(|rule| {
                    let is_exit = rule.list == "exit" && rule.path.is_none();
                    let names = rule.calls.is_empty() || rule.calls.contains(*call) || rule.calls.contains("all");
                    let is_of_abi = match rule.abi {
                        Some(known) => known == *abi,
                        // Names without an ABI are those of the kernel's own.
                        None => rule.calls.is_empty() || self.abis.first() == Some(abi),
                    };
                    let holds =
                        |field: &String| is_neutral(field) || conditions.contains(field) || is_real_time(field, call);
                    is_exit && names && is_of_abi && rule.fields.iter().all(holds)
                });
                // The first rule that matches decides.
                let is_recorded = !self.is_off_for_tasks() && rules.next().is_some_and(|rule| !rule.is_never);
                if !is_recorded {
                    missing.push(format!("{call} ({})", abi.name()));
                }
            }
        }
        missing
    }

    /// The rules that name one of `calls`.
    pub(crate) fn naming<'r>(&'r self, calls: &'r [&str]) -> impl Iterator<Item = &'r AuditRule> {
        self.rules.iter().filter(|rule| calls.iter().any(|call| rule.calls.contains(*call)))
    }
}

/// Setting the real clock alone is all of `clock_settime` that matters.
fn is_real_time(field: &str, call: &str) -> bool {
    call == "clock_settime" && matches!(field, "a0=0" | "a0=0x0")
}

/// Conditions that leave nothing out that a person did.
fn is_neutral(field: &str) -> bool {
    matches!(field, "auid!=-1" | "success=1")
}

/// A path in one spelling: without the link of a merged `/usr` and of `/var/run`.
fn canonical(path: &str) -> String {
    let path = path.trim_end_matches('/');
    if let Some(rest) = path.strip_prefix("/var/run/") {
        return format!("/run/{rest}");
    }
    let merged = ["/bin/", "/sbin/", "/lib/", "/lib64/"];
    if merged.iter().any(|start| path.starts_with(start)) { format!("/usr{path}") } else { path.to_owned() }
}

/// Words of a line, quotes taken off; a comment has none.
fn words(line: &str) -> Vec<String> {
    let line = line.trim();
    if line.starts_with('#') {
        return Vec::new();
    }
    line.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect()
}

/// A condition in one spelling.
fn normal(field: &str) -> String {
    let field: String = field.chars().filter(|character| !character.is_whitespace() && *character != '"').collect();
    let Some((key, operator, value)) = split_field(&field) else { return field };
    let value = match value {
        "unset" | "4294967295" | "-1" => "-1",
        "-EACCES" | "EACCES" => "-13",
        "-EPERM" | "EPERM" => "-1",
        "root" => "0",
        "yes" | "true" => "1",
        other => other,
    };
    let (key, value) = match (key, value) {
        // The same comparison read from the other side.
        ("uid", "euid") => ("euid", "uid"),
        ("gid", "egid") => ("egid", "gid"),
        (key, value) => (key, value),
    };
    match (key, operator, value.parse::<i64>()) {
        ("auid", ">", Ok(999)) => "auid>=1000".to_owned(),
        // Who may log in starts at 500 or 1000; beginning earlier records more.
        ("auid", ">=", Ok(first)) if first <= 1_000 => "auid>=1000".to_owned(),
        _ => format!("{key}{operator}{value}"),
    }
}

fn split_field(field: &str) -> Option<(&str, &str, &str)> {
    ["!=", ">=", "<=", "&=", "=", ">", "<", "&"].iter().find_map(|operator| {
        let (key, value) = field.split_once(operator)?;
        (!key.ends_with(['!', '>', '<', '&'])).then_some((key, *operator, value))
    })
}

/// One rule; `None` for what sets something else.
fn parse(words: &[&str]) -> Option<AuditRule> {
    let mut rule = AuditRule { list: "exit".to_owned(), ..AuditRule::default() };
    let mut is_rule = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-w" => {
                let path = words.next()?;
                (rule.path, rule.is_directory, is_rule) = (Some((*path).to_owned()), true, true);
                if rule.permissions.is_empty() {
                    "rwxa".clone_into(&mut rule.permissions);
                }
            }
            "-p" => (*words.next()?).clone_into(&mut rule.permissions),
            "-a" | "-A" => {
                is_rule = true;
                for part in words.next()?.split(',') {
                    match part {
                        "always" => rule.is_never = false,
                        "never" => rule.is_never = true,
                        list => list.clone_into(&mut rule.list),
                    }
                }
            }
            "-S" => rule.calls.extend(words.next()?.split(',').map(str::to_owned)),
            "-F" => take_field(&mut rule, words.next()?),
            "-C" => rule.fields.push(normal(words.next()?)),
            "-k" => {
                words.next();
            }
            // `-Fkey=…` and `-Sopen`.
            other if other.starts_with("-F") => take_field(&mut rule, other.get(2..)?),
            other if other.starts_with("-S") => rule.calls.extend(other.get(2..)?.split(',').map(str::to_owned)),
            _ => {}
        }
    }
    // A path with no permissions matches every use of it.
    if rule.path.is_some() && rule.permissions.is_empty() {
        "rwxa".clone_into(&mut rule.permissions);
    }
    is_rule.then_some(rule)
}

fn take_field(rule: &mut AuditRule, field: &str) {
    let Some((key, operator, value)) = split_field(field) else { return };
    match (key, operator) {
        ("arch", "=") => {
            let is_64 = matches!(value, "b64" | "x86_64" | "aarch64" | "ppc64le" | "ppc64" | "s390x");
            rule.abi = Some(if is_64 { Abi::B64 } else { Abi::B32 });
        }
        ("path" | "dir", "=") => (rule.path, rule.is_directory) = (Some(value.to_owned()), key == "dir"),
        ("perm", "=") => value.clone_into(&mut rule.permissions),
        ("key", "=") => {}
        _ => rule.fields.push(normal(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> AuditRules {
        let mut rules = AuditRules { abis: vec![Abi::B64, Abi::B32], ..AuditRules::default() };
        text.lines().for_each(|line| rules.take(line, "/f", 1));
        rules
    }

    #[test]
    fn both_forms_of_a_watch_are_one() {
        let watched = |text: &str| rules(text).watching("/etc/passwd", "wa").is_some();
        assert!(watched("-w /etc/passwd -p wa -k any"));
        assert!(watched("-w /etc/passwd"));
        assert!(watched("-w /etc -p wa"));
        assert!(watched("-a always,exit -F path=/etc/passwd -F perm=wa -F key=x"));
        assert!(watched("-a exit,always -F dir=/etc/ -F perm=wa"));
        assert!(watched(
            "-a always,exit -F arch=b64 -F path=/etc/passwd -F perm=wa\n-a always,exit -F arch=b32 -F path=/etc/passwd -F perm=wa"
        ));
        assert!(!watched("-a always,exit -F arch=b64 -F path=/etc/passwd -F perm=wa"));
        assert!(!watched("-w /etc/passwd -p w"));
        assert!(!watched("-w /etc/passw -p wa"));
        assert!(!watched("-a always,exit -F path=/etc -F perm=wa"));
        assert!(!watched("-w /etc/passwd -p wa\n-D"));
        assert!(!watched("-a task,never\n-w /etc/passwd -p wa"));
        assert!(!watched("#-w /etc/passwd -p wa"));
    }

    #[test]
    fn calls_are_recorded_on_both_abis_however_they_are_split() {
        let missing = |text: &str| rules(text).unrecorded(&["chmod", "chown"], &["auid>=1000"]);
        let both = |rest: &str| format!("-a always,exit -F arch=b64 {rest}\n-a always,exit -F arch=b32 {rest}\n");
        assert!(missing(&both("-S chmod,chown -F auid>=1000 -F auid!=unset -k x")).is_empty());
        assert!(missing(&both("-S chmod -S chown -F auid>=1000 -F auid!=4294967295")).is_empty());
        assert!(missing(&format!("{}{}", both("-S chmod -F auid>=500 -F auid!=-1"), both("-S chown"))).is_empty());
        assert_eq!(missing(&both("-S chmod")), ["chown (b64)", "chown (b32)"]);
        assert_eq!(missing("-a always,exit -S chmod,chown"), ["chmod (b32)", "chown (b32)"]);
        assert!(missing("-a always,exit").is_empty());
        assert_eq!(missing(&both("-S chmod,chown -F uid=0")).len(), 4);
        assert_eq!(
            missing(&format!("{}{}", both("-S chmod").replace("always", "never"), both("-S chmod,chown"))).len(),
            2
        );
        let exits = rules(&both("-S open -F exit=-EACCES -F auid>=1000"));
        assert!(exits.unrecorded(&["open"], &["exit=-13", "auid>=1000"]).is_empty());
        assert_eq!(exits.unrecorded(&["open"], &["exit=-EPERM"]).len(), 2);
        assert!(rules(&both("-S execve -C uid!=euid")).unrecorded(&["execve"], &["euid!=uid"]).is_empty());
    }

    #[test]
    fn hostile_rules_end() {
        for text in ["-w", "-a", "-F", "-F =", "-S", "-e", "-C !=", "-a always,exit -F arch", "\"", "-A x -Fé"] {
            rules(text);
        }
    }
}
