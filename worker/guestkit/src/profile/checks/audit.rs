//! The audit daemon: whether it runs, from when on, how long it keeps what it records, and what it records.

use crate::profile::audit_rules::{self, AuditRules};
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::settings;

use super::services::{required, starting, unit_evidence};
use super::ssh::stat;

const RULES: &str = "/etc/audit/rules.d";
const CONFIG: &str = "/etc/audit/auditd.conf";

/// Installed and enabled.
pub(crate) fn installed(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let files = ["/usr/sbin/auditd", "/sbin/auditd"];
    let reason = "no audit daemon is installed";
    let mut evidence = match required(guest, &["auditd", "audit"], &files, reason, "auditd, audit") {
        Ok(found) => vec![found],
        Err(outcome) => return outcome,
    };
    match starting(guest, &["auditd"]) {
        Some((name, unit)) => {
            evidence.push(unit_evidence(&name, unit));
            Outcome::pass("the audit daemon starts with the system", evidence)
        }
        None => {
            evidence.push(Evidence::absent("/etc/systemd/system", "auditd.service"));
            Outcome::fail("the audit daemon is installed, but does not start with the system", evidence)
        }
    }
}

/// What runs before the daemon is audited too, and waits in a queue that is long enough. Source: the kernel's parameters.
pub(crate) fn boot(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    const WHERE: &str = "kernel command line";
    let Some(line) = guest.system.operating_system.kernel_command_line.as_deref() else {
        return Outcome::unknown("the boot loader's configuration tells no command line of the kernel");
    };
    let last = |key: &str| {
        let mut words = line.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        words.next_back()
    };
    let told = |key: &str| {
        last(key).map_or_else(|| Evidence::absent(WHERE, key), |value| Evidence::explicit(WHERE, key, value))
    };
    let mut evidence = vec![told("audit"), told("audit_backlog_limit")];
    let limit = asked.limit_number(8_192);
    let is_on = last("audit").is_some_and(|value| matches!(value, "1" | "on"));
    let backlog = last("audit_backlog_limit").and_then(|value| value.parse::<i64>().ok());
    if is_on && backlog.is_some_and(|backlog| backlog >= limit) {
        return Outcome::pass("what starts before the audit daemon is audited", evidence);
    }
    // What stands in GRUB's defaults alone comes into force when its configuration is written anew.
    let defaults = guest.files.text("/etc/default/grub").unwrap_or_default();
    if let Some((value, number)) =
        settings::assignment(&defaults, "GRUB_CMDLINE_LINUX").filter(|(value, _)| value.contains("audit="))
    {
        evidence.push(Evidence::explicit("/etc/default/grub", "GRUB_CMDLINE_LINUX, pending", value).at_line(number));
    }
    let reason = match (is_on, backlog) {
        (false, _) => "the kernel is not started with audit=1".to_owned(),
        (true, None) => format!("audit_backlog_limit is not set, should be at least {limit}"),
        (true, Some(backlog)) => format!("audit_backlog_limit is {backlog}, should be at least {limit}"),
    };
    Outcome::fail(reason, evidence)
}

/// What happens when a log is full, and when the disk is. Source: auditd.conf(5).
pub(crate) fn retention(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let text = guest.files.text(CONFIG).unwrap_or_default();
    let get = |key: &str, default: &str| match settings::assignment(&text, key) {
        Some((value, line)) => (value.to_ascii_lowercase(), Evidence::explicit(CONFIG, key, value).at_line(line)),
        None => (default.to_ascii_lowercase(), Evidence::default(CONFIG, key, default)),
    };
    let wanted: [(&str, &str, &[&str]); 4] = [
        ("max_log_file_action", "ROTATE", &["keep_logs"]),
        ("space_left_action", "SYSLOG", &["email", "exec", "single", "halt"]),
        ("admin_space_left_action", "SUSPEND", &["single", "halt"]),
        ("disk_full_action", "SUSPEND", &[]),
    ];
    let (size, size_evidence) = get("max_log_file", "8");
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    if size.parse::<u64>().is_ok_and(|size| size >= 8) {
        looked_at.push(size_evidence);
    } else {
        bad.push(Bad::new(format!("max_log_file is {size}"), size_evidence));
    }
    for (key, default, allowed) in wanted {
        let (value, evidence) = get(key, default);
        // `exec /path` is an action with its program.
        let action = value.split_whitespace().next().unwrap_or_default();
        if allowed.is_empty() || allowed.contains(&action) {
            looked_at.push(evidence);
        } else {
            bad.push(Bad::new(format!("{key} is {value}"), evidence));
        }
    }
    Outcome::none_of(bad, "what was recorded can be lost", "what was recorded is kept", looked_at)
}

fn evidence_of(rules: &AuditRules) -> Vec<Evidence> {
    let files = rules.files.iter().map(|path| Evidence::metadata(path, "rules", "read"));
    let mut evidence: Vec<_> = files.collect();
    if evidence.is_empty() {
        evidence.push(Evidence::absent(RULES, "rules"));
    }
    evidence
}

/// That changes of files (`watch`; `optional`: where they are there), runs of programs (`run`) and system calls (`calls`) are
/// recorded, the calls under each of the sets of conditions in `conditions`.
pub(crate) fn rules(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let rules = audit_rules::read(guest);
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    let optional = asked.texts("optional");
    for path in asked.texts("watch") {
        match rules.watching(path, "wa") {
            Some(rule) => looked_at.push(rule.evidence()),
            None if optional.contains(&path) && !guest.files.exists(path) => {}
            None => bad.push(Bad::new(path, Evidence::absent(RULES, format!("watch of {path}")))),
        }
    }
    for path in asked.texts("run") {
        match rules.watching(path, "x") {
            Some(rule) => looked_at.push(rule.evidence()),
            None if optional.contains(&path) && !guest.files.exists(path) => {}
            None => bad.push(Bad::new(path, Evidence::absent(RULES, format!("runs of {path}")))),
        }
    }
    let calls = asked.texts("calls");
    let mut conditions = asked.texts("conditions");
    if conditions.is_empty() {
        conditions.push("");
    }
    for set in conditions {
        let fields: Vec<&str> = set.split_whitespace().collect();
        bad.extend(rules.unrecorded(&calls, &fields).into_iter().map(|call| {
            let told = if set.contains("exit=") { format!("{call} with {set}") } else { call };
            Bad::new(&*told, Evidence::absent(RULES, &*told))
        }));
    }
    looked_at.extend(rules.naming(&calls).map(audit_rules::AuditRule::evidence));
    if looked_at.is_empty() {
        looked_at = evidence_of(&rules);
    }
    Outcome::none_of(bad, "not recorded", "everything is recorded", looked_at)
}

/// That every program that takes other rights is recorded when it runs.
pub(crate) fn privileged(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let rules = audit_rules::read(guest);
    let programs = &guest.walk().set_id;
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for program in &programs.found {
        match rules.watching(&program.path, "x") {
            Some(rule) => looked_at.push(rule.evidence()),
            None => bad.push(Bad::new(&*program.path, stat(&program.path, &program.metadata))),
        }
    }
    if bad.is_empty()
        && let Some(why) = guest.walk_problem()
    {
        return Outcome::unknown(format!("not every file could be looked at: {why}"));
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent("/", "set-user-ID and set-group-ID programs"));
    }
    Outcome::none_of(bad, "not recorded when they run", "every privileged program is recorded when it runs", looked_at)
}

/// That nobody changes the rules before the next start.
pub(crate) fn immutable(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let rules = audit_rules::read(guest);
    match rules.enabled {
        Some((value, evidence)) if value == "2" => {
            Outcome::pass("the rules are locked until the next start", vec![evidence])
        }
        Some((value, evidence)) => Outcome::fail(format!("the rules are not locked: -e {value}"), vec![evidence]),
        None => Outcome::fail("the rules are not locked", vec![Evidence::absent(RULES, "-e 2")]),
    }
}

/// Logs, configuration and tools that only root changes, and reads.
pub(crate) fn log_permissions(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let configured = guest.files.text(CONFIG).and_then(|text| settings::assignment(&text, "log_file"));
    let log = configured.map_or_else(|| "/var/log/audit/audit.log".to_owned(), |(path, _)| path);
    let directory = log.rsplit_once('/').map_or("/var/log/audit", |(directory, _)| directory).to_owned();
    let below = |directory: &str| {
        guest.files.names(directory).into_iter().map(|name| format!("{directory}/{name}")).collect::<Vec<_>>()
    };
    let logs = below(&directory);
    let configuration = [below("/etc/audit"), below(RULES)].concat();
    let tools = ["auditctl", "aureport", "ausearch", "autrace", "auditd", "augenrules"].map(|name| {
        guest.files.first_existing(&[&format!("/sbin/{name}"), &format!("/usr/sbin/{name}")]).map(str::to_owned)
    });
    let directories = vec![directory.clone()];
    let kinds: [(Vec<String>, u16, bool); 4] = [
        (directories, 0o750, true),
        (logs, 0o640, true),
        (configuration, 0o750, false),
        (tools.into_iter().flatten().collect(), 0o755, false),
    ];
    let groups = guest.system.users.as_ref().map(|users| users.groups.as_slice()).unwrap_or_default();
    let readers = groups.iter().find(|group| group.name == "adm").map(|group| group.gid);
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for (paths, mask, may_be_of_readers) in kinds {
        for path in paths {
            let Some(metadata) = guest.files.stat(&path) else { continue };
            let is_directory = metadata.file_type == crate::filesystem::FileType::Directory;
            // Directories are searched; plain files of the configuration are not run.
            let mask = if is_directory || mask == 0o755 { mask } else { mask & 0o640 };
            let gid = u64::from(metadata.gid);
            let is_owned = metadata.uid == 0 && (gid == 0 || (may_be_of_readers && readers == Some(gid)));
            if is_owned && metadata.mode & 0o7777 & !mask == 0 {
                looked_at.push(stat(&path, &metadata));
            } else {
                bad.push(Bad::new(&*path, stat(&path, &metadata)));
            }
        }
    }
    if looked_at.is_empty() && bad.is_empty() {
        looked_at.push(Evidence::absent(directory, "logs"));
    }
    Outcome::none_of(bad, "audit files that others than root may read or change", "audit files are root's", looked_at)
}
