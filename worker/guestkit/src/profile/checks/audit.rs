//! The audit of the kernel: rules in whichever spelling, and how records are kept. Source: auditctl(8), augenrules(8),
//! auditd.conf(5).

use std::collections::BTreeSet;

use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::text::{assignments, last};

use super::services::{any_installed, any_started};
use super::ssh::stat;

/// A rule: what it watches, whichever way it is written.
#[derive(Debug, Clone, Default)]
struct Rule {
    path: String,
    line: usize,
    /// The path or directory that is watched.
    watched: Option<String>,
    /// `r`, `w`, `x`, `a`.
    permissions: String,
    syscalls: BTreeSet<String>,
    /// `b64`, `b32`; empty for the machine's own.
    arch: String,
    /// Other fields as they stand: `exit=-EACCES`, `auid>=1000`.
    fields: BTreeSet<String>,
    /// Whether it records: `always,exit`.
    records: bool,
    text: String,
}

impl Rule {
    fn evidence(&self) -> Evidence {
        Evidence::explicit(&*self.path, "rule", &*self.text).at_line(self.line)
    }
}

/// What there is of rules, in the order that augenrules puts them.
struct Rules {
    rules: Vec<Rule>,
    /// The last `-e`.
    enabled: Option<(String, Evidence)>,
    sources: Vec<String>,
}

fn read(guest: &Guest<'_>) -> Rules {
    let mut sources = guest.files.with_suffix("/etc/audit/rules.d", ".rules");
    let compiled = "/etc/audit/audit.rules".to_owned();
    if sources.is_empty() && guest.files.exists(&compiled) {
        sources.push(compiled);
    }
    let mut rules = Rules { rules: Vec::new(), enabled: None, sources: sources.clone() };
    for path in sources {
        for (at, line) in guest.files.text(&path).unwrap_or_default().lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first() == Some(&"-D") {
                rules.rules.clear();
            }
            if let [.., "-e", value] = words.as_slice() {
                let evidence = Evidence::explicit(&*path, "-e", *value).at_line(at.saturating_add(1));
                rules.enabled = Some(((*value).to_owned(), evidence));
            }
            if let Some(rule) = rule(&path, at.saturating_add(1), line, &words) {
                rules.rules.push(rule);
            }
            if rules.rules.len() > 20_000 {
                return rules;
            }
        }
    }
    rules
}

fn rule(path: &str, line: usize, text: &str, words: &[&str]) -> Option<Rule> {
    let mut rule = Rule { path: path.to_owned(), line, text: text.to_owned(), ..Rule::default() };
    let mut rest = words.iter();
    let mut is_rule = false;
    while let Some(word) = rest.next() {
        match *word {
            "-w" => {
                rule.watched = rest.next().map(|path| path.trim_end_matches('/').to_owned());
                rule.permissions = "rwxa".to_owned();
                (rule.records, is_rule) = (true, true);
            }
            "-p" => rule.permissions = rest.next().map(|word| (*word).to_owned()).unwrap_or_default(),
            "-a" | "-A" => {
                let list = rest.next().copied().unwrap_or_default();
                rule.records = list.contains("always") && list.contains("exit");
                is_rule = true;
            }
            "-S" => rule.syscalls.extend(rest.next().copied().unwrap_or_default().split(',').map(str::to_owned)),
            "-F" | "-C" => {
                let field = rest.next().copied().unwrap_or_default();
                let (key, value) = field.split_once('=').unwrap_or((field, ""));
                match key {
                    "arch" => value.clone_into(&mut rule.arch),
                    "path" | "dir" => rule.watched = Some(value.trim_end_matches('/').to_owned()),
                    "perm" => value.clone_into(&mut rule.permissions),
                    _ => {
                        let unset = field.replace("4294967295", "-1").replace("unset", "-1");
                        rule.fields.insert(unset);
                    }
                }
            }
            _ => {}
        }
    }
    // A rule of a path without permissions watches everything.
    if is_rule && rule.watched.is_some() && rule.permissions.is_empty() {
        rule.permissions = "rwxa".to_owned();
    }
    is_rule.then_some(rule)
}

/// Where auditd is not installed there are no rules to judge.
fn missing(guest: &Guest<'_>) -> Option<Outcome> {
    let is_there =
        guest.files.first_existing(&["/sbin/auditd", "/usr/sbin/auditd", "/etc/audit/auditd.conf"]).is_some()
            || any_installed(guest, &["auditd", "audit"]).is_some()
            || !guest.files.with_suffix("/etc/audit/rules.d", ".rules").is_empty();
    (!is_there).then(|| Outcome::not_applicable("auditd is not installed"))
}

/// auditd is installed and starts.
pub(crate) fn installed(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(_) = guest.packages() else { return Outcome::unknown("no package database could be read") };
    match (any_installed(guest, &["auditd", "audit"]), any_started(guest, &["auditd"])) {
        (Some(package), Some(unit)) => Outcome::pass("auditd is installed and starts", vec![package, unit]),
        (Some(package), None) => Outcome::fail("auditd is installed, but does not start", vec![package]),
        (None, _) => {
            Outcome::fail("auditd is not installed", vec![Evidence::absent(guest.package_database(), "auditd")])
        }
    }
}

/// What happens before auditd starts is recorded too: the kernel's arguments.
pub(crate) fn boot(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    if !guest.has_kernel() {
        return Outcome::not_applicable("no kernel is installed");
    }
    let Some(line) = &guest.system.operating_system.kernel_command_line else {
        return Outcome::unknown("the kernel's command line is not known");
    };
    let limit = asked.limit_number(8_192);
    let evidence = vec![Evidence::explicit("kernel command line", "audit", &**line)];
    let value = |key: &str| line.split_whitespace().rev().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    if value("audit") != Some("1") {
        return Outcome::fail("audit=1 is not among the kernel's arguments", evidence);
    }
    match value("audit_backlog_limit").and_then(|value| value.parse::<i64>().ok()) {
        Some(backlog) if backlog >= limit => Outcome::pass("the audit begins with the kernel", evidence),
        _ => Outcome::fail(format!("audit_backlog_limit should be at least {limit}"), evidence),
    }
}

/// Records are kept, and somebody hears when there is no room.
pub(crate) fn retention(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = missing(guest) {
        return outcome;
    }
    let path = "/etc/audit/auditd.conf";
    let lines = assignments(guest.files, path);
    let mut evidence = Vec::new();
    let mut lax = Vec::new();
    // Defaults of auditd.conf(5).
    let mut value = |key: &str, default: &str| {
        let fact = last(&lines, key, path);
        let found = fact.value.as_ref().and_then(|value| value.as_str()).unwrap_or(default).to_ascii_lowercase();
        evidence.extend(fact.evidence);
        found
    };
    let demands: [(&str, &str, &[&str]); 3] = [
        ("max_log_file_action", "rotate", &["keep_logs"]),
        ("space_left_action", "syslog", &["email", "exec", "single", "halt"]),
        ("admin_space_left_action", "suspend", &["single", "halt"]),
    ];
    for (key, default, allowed) in demands {
        let found = value(key, default);
        if !allowed.contains(&found.as_str()) {
            lax.push(format!("{key} is {found}, should be {}", allowed.join(" or ")));
        }
    }
    let size = value("max_log_file", "8");
    if !size.parse::<u64>().is_ok_and(|size| size >= 8) {
        lax.push(format!("max_log_file is {size}, should be at least 8"));
    }
    if lax.is_empty() {
        return Outcome::pass("records are kept", evidence);
    }
    Outcome::fail(lax.join("; "), evidence)
}

/// Whether a rule watches `path` for changes: by a watch of it or of a directory above, or by system calls on it.
fn watches(rules: &[Rule], path: &str) -> bool {
    rules.iter().any(|rule| {
        let Some(watched) = rule.watched.as_deref().filter(|_| rule.records) else { return false };
        let covers = path == watched || path.strip_prefix(watched).is_some_and(|rest| rest.starts_with('/'));
        covers && rule.permissions.contains('w') && rule.permissions.contains('a')
    })
}

/// Whether rules record a system call on both ABIs, each with all of `fields`.
fn records(rules: &[Rule], call: &str, fields: &[&str]) -> bool {
    let fits = |rule: &&Rule| {
        rule.records
            && rule.watched.is_none()
            && (rule.syscalls.contains(call) || rule.syscalls.contains("all"))
            && fields.iter().all(|field| rule.fields.contains(*field))
    };
    let arches: BTreeSet<&str> = rules.iter().filter(fits).map(|rule| rule.arch.as_str()).collect();
    // A 64-bit kernel takes 32-bit calls too, so that one without the other records half.
    (arches.contains("b64") && (arches.contains("b32") || ONLY_64.contains(&call))) || arches.contains("")
}

/// Calls that the 32-bit ABI does not have.
const ONLY_64: [&str; 1] = ["newfstatat"];

/// Paths and calls that must be recorded; `with: {watch: […], calls: […], fields: [[…], …], any: […]}`.
pub(crate) fn rules(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    if let Some(outcome) = missing(guest) {
        return outcome;
    }
    let read = read(guest);
    let mut gaps = Vec::new();
    for path in asked.texts("watch") {
        // Files that a distribution does not have need no watch.
        let is_optional = asked.texts("optional").contains(&path) && !guest.files.exists(path);
        if !is_optional && !watches(&read.rules, path) {
            gaps.push(path.to_owned());
        }
    }
    let sets: Vec<Vec<&str>> = match asked.with.get("fields").and_then(|fields| fields.as_array()) {
        Some(sets) => sets
            .iter()
            .map(|set| set.as_array().into_iter().flatten().filter_map(|field| field.as_str()).collect())
            .collect(),
        None => vec![Vec::new()],
    };
    for call in asked.texts("calls") {
        for fields in &sets {
            if !records(&read.rules, call, fields) {
                let told = if fields.is_empty() { call.to_owned() } else { format!("{call} ({})", fields.join(", ")) };
                gaps.push(told);
            }
        }
    }
    let looked_at: Vec<_> = read
        .sources
        .iter()
        .map(|path| {
            Evidence::explicit(
                &**path,
                "rules",
                read.rules.iter().filter(|rule| rule.path == *path).count().to_string(),
            )
        })
        .collect();
    let looked_at =
        if looked_at.is_empty() { vec![Evidence::absent("/etc/audit/rules.d", "rules")] } else { looked_at };
    if gaps.is_empty() {
        return Outcome::pass("everything that was asked for is recorded", looked_at);
    }
    Outcome::fail(format!("not recorded: {}", gaps.join(", ")), looked_at).with_subjects(gaps)
}

/// Every set-id program has a rule of its own.
pub(crate) fn privileged(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = missing(guest) {
        return outcome;
    }
    let read = read(guest);
    let walk = guest.walk();
    let bad = walk.set_id.found.iter().filter(|found| {
        let is_recorded = read.rules.iter().any(|rule| {
            rule.records
                && rule.permissions.contains('x')
                && rule.watched.as_deref().is_some_and(|path| path == found.path || same_program(path, &found.path))
        });
        !is_recorded
    });
    let bad: Vec<_> = bad.map(|found| Bad::new(&*found.path, stat(&found.path, &found.metadata))).collect();
    let looked_at = vec![Evidence::metadata("/", "set-id programs", walk.set_id.count.to_string())];
    Outcome::none_of(
        bad,
        "set-id programs whose use is not recorded",
        "the use of every set-id program is recorded",
        looked_at,
    )
}

/// `/bin/su` and `/usr/bin/su` are one file where `/usr` is merged.
fn same_program(a: &str, b: &str) -> bool {
    a.strip_prefix("/usr").unwrap_or(a) == b.strip_prefix("/usr").unwrap_or(b)
}

/// The rules cannot be changed without a restart: `-e 2` last.
pub(crate) fn immutable(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = missing(guest) {
        return outcome;
    }
    match read(guest).enabled {
        Some((value, evidence)) if value == "2" => Outcome::pass("the rules are locked", vec![evidence]),
        Some((value, evidence)) => Outcome::fail(format!("the last -e is {value}, should be 2"), vec![evidence]),
        None => Outcome::fail("the rules are not locked", vec![Evidence::absent("/etc/audit/rules.d", "-e 2")]),
    }
}

/// Records, rules and tools are root's.
pub(crate) fn log_permissions(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = missing(guest) {
        return outcome;
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    let mut judge = |path: String, mask: u16, any_group: bool| {
        let Some(metadata) = guest.files.stat(&path) else { return };
        let evidence = stat(&path, &metadata);
        if metadata.uid != 0 || (metadata.gid != 0 && !any_group) || metadata.mode & 0o777 & !mask != 0 {
            bad.push(Bad::new(path, evidence));
        } else {
            looked_at.push(evidence);
        }
    };
    judge("/var/log/audit".to_owned(), 0o750, true);
    for name in guest.files.names("/var/log/audit") {
        judge(format!("/var/log/audit/{name}"), 0o640, true);
    }
    for path in guest
        .files
        .glob("/etc/audit/*.conf")
        .into_iter()
        .chain(guest.files.glob("/etc/audit/*.rules"))
        .chain(guest.files.glob("/etc/audit/rules.d/*.rules"))
    {
        judge(path, 0o640, false);
    }
    for name in ["auditctl", "aureport", "ausearch", "autrace", "auditd", "augenrules"] {
        judge(format!("/sbin/{name}"), 0o755, false);
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent("/var/log/audit", "records"));
    }
    Outcome::none_of(bad, "others can read or change what is recorded", "records and rules are root's", looked_at)
}
