//! What is logged, where it stays, who watches over files, and what people read before they log in.

use crate::profile::evaluate::Asked;
use crate::profile::guest::{Guest, NO_PACKAGE_DATABASE};
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::rsyslog::{self, Statement};
use crate::profile::settings::{self, Systemd, is_yes};

use super::services::{any_installed, required, starting, unit_evidence};
use super::ssh::stat;

const JOURNAL: &str = "/var/log/journal";

fn has_systemd(guest: &Guest<'_>) -> bool {
    guest.services().is_some_and(|services| services.managers.iter().any(|manager| manager == "systemd"))
}

/// Whether the journal outlives a restart. Source: journald.conf(5).
pub(crate) fn journald_storage(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    if !has_systemd(guest) {
        return Outcome::not_applicable("the system has no systemd");
    }
    let (storage, evidence) = Systemd::read(guest, "journald.conf").get_or("Journal", "Storage", "auto");
    if let Some(outcome) = asked.unwritten(&evidence) {
        return outcome;
    }
    match storage.to_ascii_lowercase().as_str() {
        "persistent" => Outcome::pass("the journal is kept on the disk", vec![evidence]),
        "auto" if guest.files.is_dir(JOURNAL) => {
            let directory = Evidence::metadata(JOURNAL, "directory", "present");
            Outcome::pass(
                format!("the journal is kept on the disk, because {JOURNAL} is there"),
                vec![evidence, directory],
            )
        }
        "auto" => {
            let reason = format!("Storage is auto and {JOURNAL} is not there, so the journal is lost at every restart");
            Outcome::fail(reason, vec![evidence, Evidence::absent(JOURNAL, "directory")])
        }
        other => Outcome::fail(format!("Storage is {other}, so the journal is lost at every restart"), vec![evidence]),
    }
}

/// Compression, and whether what rsyslog waits for reaches it. Sources: journald.conf(5); Debian's patch of
/// `ForwardToSyslog`.
pub(crate) fn journald_options(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    if !has_systemd(guest) {
        return Outcome::not_applicable("the system has no systemd");
    }
    let conf = Systemd::read(guest, "journald.conf");
    let is_debian = guest.families().iter().any(|family| matches!(*family, "debian" | "ubuntu"));
    let (compress, compress_evidence) = conf.get_or("Journal", "Compress", "yes");
    let (forward, forward_evidence) = conf.get_or("Journal", "ForwardToSyslog", if is_debian { "yes" } else { "no" });
    if let Some(outcome) = asked.unwritten(&compress_evidence).or_else(|| asked.unwritten(&forward_evidence)) {
        return outcome;
    }
    let mut evidence = vec![compress_evidence, forward_evidence];
    evidence.extend(conf.get("Journal", "SystemMaxUse").map(|(_, evidence)| evidence));
    // A size from which on is compressed is as good as yes.
    if matches!(compress.to_ascii_lowercase().as_str(), "no" | "false" | "off" | "n" | "f" | "0") {
        return Outcome::fail("the journal is not compressed", evidence);
    }
    let Some((name, unit)) = starting(guest, &["rsyslog"]) else {
        return Outcome::pass("the journal is compressed", evidence);
    };
    evidence.push(unit_evidence(&name, unit));
    let statements = rsyslog::read(guest).unwrap_or_default();
    let reads_journal = statements.iter().any(|statement| {
        let loads = statement.object("module").and_then(|module| module.get("load").cloned());
        loads.as_deref() == Some("imjournal")
            || statement.directive("ModLoad").is_some_and(|name| name.starts_with("imjournal"))
    });
    if !is_yes(&forward) && !reads_journal {
        return Outcome::fail("rsyslog runs, but the journal passes nothing on to it", evidence);
    }
    Outcome::pass("the journal is compressed, and reaches rsyslog", evidence)
}

/// rsyslog's statements; the outcome to give where there are none.
fn rsyslog_statements(guest: &Guest<'_>) -> Result<Vec<Statement>, Outcome> {
    match guest.presence(&["rsyslog"], &["/usr/sbin/rsyslogd", "/sbin/rsyslogd"]) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(Outcome::not_applicable("rsyslog is not installed")),
        Err(reason) => return Err(Outcome::unknown(reason)),
    }
    rsyslog::read(guest).ok_or_else(|| Outcome::unknown("/etc/rsyslog.conf could not be read"))
}

/// Log files that only root and one group may read. Source: rsyslog's omfile.
pub(crate) fn rsyslog_mode(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let statements = match rsyslog_statements(guest) {
        Ok(statements) => statements,
        Err(outcome) => return outcome,
    };
    let is_lax = |mode: &str| u32::from_str_radix(mode, 8).is_ok_and(|mode| mode & !0o640 != 0);
    let mut current = ("0644".to_owned(), Evidence::default("/etc/rsyslog.conf", "FileCreateMode", "0644"));
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for statement in &statements {
        let of_module = statement
            .object("module")
            .filter(|module| module.get("load").is_some_and(|name| name == "builtin:omfile" || name == "omfile"));
        let set = statement.directive("FileCreateMode").map(str::to_owned);
        if let Some(mode) = set.or_else(|| of_module?.get("filecreatemode").cloned()) {
            let evidence = statement.evidence("FileCreateMode", &mode);
            if is_lax(&mode) {
                bad.push(Bad::new(format!("FileCreateMode {mode}"), evidence.clone()));
            } else {
                looked_at.push(evidence.clone());
            }
            current = (mode, evidence);
            continue;
        }
        let Some(file) = statement.file() else { continue };
        let own = statement.object("action").and_then(|action| action.get("filecreatemode").cloned());
        let mode = own.as_deref().unwrap_or(&current.0);
        // What a lax directive does to its files is told once, with the directive.
        if is_lax(mode) && (own.is_some() || current.1.source == "compiled-default") {
            bad.push(Bad::new(&*file, statement.evidence("FileCreateMode", mode)));
        }
    }
    if looked_at.is_empty() && bad.is_empty() {
        looked_at.push(Evidence::absent("/etc/rsyslog.conf", "actions that write to files"));
    }
    Outcome::none_of(bad, "log files that everybody may read", "log files are made with 0640 or stricter", looked_at)
}

/// Logs of others that are taken in from the network.
pub(crate) fn rsyslog_listen(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let statements = match rsyslog_statements(guest) {
        Ok(statements) => statements,
        Err(outcome) => return outcome,
    };
    let legacy = ["InputTCPServerRun", "InputPTCPServerRun", "UDPServerRun", "InputRELPServerRun", "InputGSSServerRun"];
    let mut bad = Vec::new();
    for statement in &statements {
        if let Some(input) = statement.object("input") {
            let kind = input.get("type").map(|kind| kind.to_ascii_lowercase()).unwrap_or_default();
            let is_network = matches!(kind.as_str(), "imtcp" | "imudp" | "imrelp" | "imptcp" | "imgssapi" | "imdtls");
            let is_local = input
                .get("address")
                .is_some_and(|address| address.starts_with("127.") || address == "::1" || address == "localhost");
            let is_socket = input.contains_key("path") && !input.contains_key("port");
            if is_network && !is_local && !is_socket {
                let port = input.get("port").or(input.get("name")).cloned().unwrap_or_default();
                bad.push(Bad::new(
                    format!("{kind} {port}").trim().to_owned(),
                    statement.evidence("input", &statement.text),
                ));
            }
        }
        if let Some((name, port)) = legacy.iter().find_map(|name| Some((name, statement.directive(name)?))) {
            bad.push(Bad::new(format!("{name} {port}"), statement.evidence(name, port)));
        }
    }
    let looked_at = vec![Evidence::absent("/etc/rsyslog.conf", "inputs of imtcp, imudp, imrelp, imptcp")];
    Outcome::none_of(bad, "rsyslog listens to the network", "rsyslog takes nothing in from the network", looked_at)
}

/// Where logs go beside this machine.
fn remote_target(guest: &Guest<'_>) -> Option<(String, Evidence)> {
    const UPLOAD: &str = "systemd-journal-upload.service";
    const AGENTS: [&str; 17] = [
        "fluent-bit",
        "td-agent-bit",
        "td-agent",
        "fluentd",
        "filebeat",
        "elastic-agent",
        "promtail",
        "alloy",
        "vector",
        "SplunkForwarder",
        "splunk",
        "Splunkd",
        "nxlog",
        "datadog-agent",
        "amazon-cloudwatch-agent",
        "google-cloud-ops-agent",
        "azuremonitoragent",
    ];
    if starting(guest, &["rsyslog"]).is_some() {
        let actions = ["omfwd", "omrelp", "omkafka", "omelasticsearch", "omhttp", "omgssapi", "omudpspoof"];
        for statement in rsyslog::read(guest).unwrap_or_default() {
            if let Some(action) = statement.object("action") {
                let kind = action.get("type").map(|kind| kind.to_ascii_lowercase()).unwrap_or_default();
                if actions.contains(&kind.as_str()) {
                    let target = action.get("target").or(action.get("server")).cloned().unwrap_or_else(|| kind.clone());
                    return Some((target.clone(), statement.evidence(&kind, &target)));
                }
                continue;
            }
            let target = statement.target().filter(|target| target.starts_with('@') || target.starts_with(":omrelp:"));
            if let Some(target) = target {
                return Some((target.to_owned(), statement.evidence("selector", target)));
            }
        }
    }
    if starting(guest, &[UPLOAD]).is_some()
        && let Some(found) = Systemd::read(guest, "journal-upload.conf").get("Upload", "URL")
    {
        return Some(found);
    }
    let (name, unit) = starting(guest, &AGENTS)?;
    Some((name.clone(), unit_evidence(&name, unit)))
}

/// Logs that an intruder on this machine cannot remove.
pub(crate) fn remote(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if guest.services().is_none() {
        return Outcome::unknown("no service manager was found");
    }
    match remote_target(guest) {
        Some((target, evidence)) => Outcome::pass(format!("logs are sent to {target}"), vec![evidence]),
        None => {
            let evidence = vec![
                Evidence::absent("/etc/rsyslog.conf", "@host, omfwd, omrelp"),
                Evidence::absent("/etc/systemd/journal-upload.conf", "URL"),
            ];
            Outcome::fail("logs stay on this machine", evidence)
        }
    }
}

/// Log files that do not grow for ever, and are kept long enough. The limit is in days. Source: logrotate(8).
pub(crate) fn rotation(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    const CONFIG: &str = "/etc/logrotate.conf";
    let files = ["/usr/sbin/logrotate", "/usr/bin/logrotate"];
    let mut evidence = match required(guest, &["logrotate"], &files, "logrotate is not installed", "logrotate") {
        Ok(found) => vec![found],
        Err(outcome) => return outcome,
    };
    if let Some((name, unit)) = starting(guest, &["logrotate.timer"]) {
        evidence.push(unit_evidence(&name, unit));
    } else {
        let scripts = ["/etc/cron.daily/logrotate", "/etc/cron.hourly/logrotate", "/etc/periodic/daily/logrotate"];
        let script = scripts.into_iter().find_map(|path| Some((path, guest.files.stat(path)?)));
        let runs = script.as_ref().is_some_and(|(_, metadata)| metadata.mode & 0o111 != 0);
        // Debian's script leaves the work to the timer where systemd runs.
        let defers = has_systemd(guest) && guest.unit("logrotate.timer").is_some();
        let cron = starting(guest, &["cron", "crond", "anacron", "anacron.timer"]);
        match (script, cron) {
            (Some((path, metadata)), Some((name, unit))) if runs && !defers => {
                evidence.push(stat(path, &metadata));
                evidence.push(unit_evidence(&name, unit));
            }
            _ => {
                evidence.push(Evidence::absent("/etc/systemd/system", "logrotate.timer"));
                return Outcome::fail("logrotate is installed, but nothing starts it", evidence);
            }
        }
    }
    let limit = asked.limit_number(0);
    if limit == 0 {
        return Outcome::pass("logs are rotated", evidence);
    }
    let (days, kept) = retention(&guest.files.text(CONFIG).unwrap_or_default());
    evidence.push(Evidence::explicit(CONFIG, "kept", kept));
    if days >= limit {
        return Outcome::pass(format!("logs are kept for {days} days"), evidence);
    }
    if let Some((target, place)) = remote_target(guest) {
        evidence.push(place);
        return Outcome::pass(format!("logs are rotated, and sent to {target}"), evidence);
    }
    Outcome::fail(format!("logs are kept for {days} days, should be {limit}, and are not sent elsewhere"), evidence)
}

/// Days that logrotate.conf keeps logs by default, and how it says so.
fn retention(text: &str) -> (i64, String) {
    let (mut period, mut count) = (("weekly", 7), 0_i64);
    let mut depth = 0_i64;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        depth = depth.saturating_add(i64::from(line.ends_with('{'))).saturating_sub(i64::from(line == "}"));
        if depth > 0 {
            continue;
        }
        let mut words = line.split_whitespace();
        match words.next() {
            Some("hourly") => period = ("hourly", 0),
            Some("daily") => period = ("daily", 1),
            Some("weekly") => period = ("weekly", 7),
            Some("monthly") => period = ("monthly", 30),
            Some("yearly") => period = ("yearly", 365),
            Some("rotate") => count = words.next().and_then(|count| count.parse().ok()).unwrap_or(0),
            _ => {}
        }
    }
    // Twelve months are a year, fifty-two weeks are one too.
    let days = match period.0 {
        "monthly" => count.saturating_mul(365) / 12,
        "weekly" => count.saturating_mul(365) / 52,
        _ => count.saturating_mul(period.1),
    };
    (days, format!("{} rotate {count}", period.0))
}

/// What people read before and after they log in: not what runs here. Sources: agetty(8), issue(5), motd(5).
pub(crate) fn issue(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    let fixed = ["/etc/issue", "/etc/issue.net", "/etc/motd"].map(str::to_owned);
    let more = [guest.files.glob("/etc/issue.d/*.issue"), guest.files.glob("/etc/motd.d/*")].concat();
    for path in fixed.into_iter().chain(more) {
        let Some(metadata) = guest.files.stat(&path) else {
            if path == "/etc/issue" {
                bad.push(Bad::new(&*path, Evidence::absent(&*path, "text")));
            }
            continue;
        };
        if metadata.file_type != crate::filesystem::FileType::Regular {
            continue;
        }
        let text = guest.files.text(&path).unwrap_or_default();
        let escape = text.lines().enumerate().find_map(|(number, line)| {
            let found = ["\\m", "\\r", "\\s", "\\v", "\\S"].into_iter().find(|escape| line.contains(escape))?;
            Some((found, number.saturating_add(1)))
        });
        if let Some((escape, line)) = escape {
            bad.push(Bad::new(&*path, Evidence::explicit(&*path, "escape", escape).at_line(line)));
        } else if path == "/etc/issue" && text.trim().is_empty() {
            bad.push(Bad::new(&*path, Evidence::explicit(&*path, "text", "empty")));
        } else if metadata.uid != 0 || metadata.gid != 0 || metadata.mode & 0o7777 & !0o644 != 0 {
            bad.push(Bad::new(&*path, stat(&path, &metadata)));
        } else {
            looked_at.push(stat(&path, &metadata));
        }
    }
    Outcome::none_of(
        bad,
        "banners tell what runs here, are missing, or may be changed",
        "banners tell nothing about the system",
        looked_at,
    )
}

/// Whether changes of files are noticed: a tool, its schedule and its database.
pub(crate) fn file_integrity(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let agents: [(&[&str], &[&str]); 4] = [
        (&["wazuh-agent"], &["wazuh-agent"]),
        (&["ossec-hids-agent", "ossec-hids-server", "ossec-hids"], &["ossec", "ossec-hids"]),
        (&["samhain"], &["samhain"]),
        (&["osquery"], &["osqueryd"]),
    ];
    for (packages, units) in agents {
        if let Some((name, unit)) = starting(guest, units) {
            return Outcome::pass(format!("{name} watches over files"), vec![unit_evidence(&name, unit)]);
        }
        if let Some(package) = any_installed(guest, packages) {
            let reason = format!("{} is installed, but does not start with the system", package.key);
            return Outcome::fail(reason, vec![package]);
        }
    }
    let tools: [(&str, &[&str], &[&str]); 2] = [
        ("aide", &["aide", "aide-dynamic", "aide-xen"], &["/usr/bin/aide", "/usr/sbin/aide"]),
        ("tripwire", &["tripwire"], &["/usr/sbin/tripwire"]),
    ];
    let found = tools.iter().find_map(|(tool, packages, files)| Some((*tool, guest.presence(packages, files).ok()??)));
    let Some((tool, found)) = found else {
        if guest.packages().is_none() {
            return Outcome::unknown(NO_PACKAGE_DATABASE);
        }
        let names = "aide, tripwire, samhain, ossec, wazuh-agent";
        return Outcome::fail("nothing watches over files", vec![Evidence::absent(guest.package_database(), names)]);
    };
    let mut evidence = vec![found];
    match schedule(guest, tool) {
        Some(place) => evidence.push(place),
        None => {
            evidence.push(Evidence::absent("/etc/systemd/system", "dailyaidecheck.timer"));
            return Outcome::fail(format!("{tool} is installed, but nothing starts it"), evidence);
        }
    }
    let paths = if tool == "tripwire" {
        guest.files.glob("/var/lib/tripwire/*.twd")
    } else {
        let configured =
            ["/etc/aide/aide.conf", "/etc/aide.conf"].iter().find_map(|path| aide_database(&guest.files.text(path)?));
        let known = ["/var/lib/aide/aide.db", "/var/lib/aide/aide.db.gz"].map(str::to_owned);
        configured.map_or_else(|| known.to_vec(), |path| vec![path])
    };
    let filled = paths.iter().find(|path| guest.files.stat(path).is_some_and(|metadata| metadata.size > 0));
    match filled {
        Some(path) => {
            evidence.push(Evidence::metadata(&**path, "database", "present"));
            Outcome::pass(format!("{tool} is scheduled and has its database"), evidence)
        }
        None => {
            let path = paths.first().map_or("/var/lib/tripwire", String::as_str);
            evidence.push(Evidence::absent(path, "database"));
            Outcome::fail(format!("{tool} has no database to compare with"), evidence)
        }
    }
}

/// `database_in=file:/var/lib/aide/aide.db`, older `database=`, with `@@define`d names in the path. Source: aide.conf(5).
fn aide_database(text: &str) -> Option<String> {
    let value = settings::assignment(text, "database_in").or_else(|| settings::assignment(text, "database"))?.0;
    let mut path = value.strip_prefix("file:")?.to_owned();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("@@define")
            && let (Some(name), Some(value)) = (words.next(), words.next())
        {
            path = path.replace(&format!("@@{{{name}}}"), value);
        }
    }
    (!path.contains("@@")).then_some(path)
}

/// What starts a tool of this name regularly.
fn schedule(guest: &Guest<'_>, tool: &str) -> Option<Evidence> {
    let timers = [
        "dailyaidecheck.timer",
        "aidecheck.timer",
        "aide.timer",
        "aide-check.timer",
        "tripwire.timer",
        "tripwire-check.timer",
    ];
    let timers: Vec<&str> = timers.into_iter().filter(|name| name.contains(tool)).collect();
    if let Some((name, unit)) = starting(guest, &timers) {
        return Some(unit_evidence(&name, unit));
    }
    for directory in ["/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.hourly"] {
        for path in guest.files.glob(&format!("{directory}/*{tool}*")) {
            let metadata = guest.files.stat(&path)?;
            // Debian's dailyaidecheck leaves the work to the timer where systemd runs.
            let defers = path.contains("dailyaidecheck") && has_systemd(guest);
            if metadata.mode & 0o111 != 0 && !defers {
                return Some(stat(&path, &metadata));
            }
        }
    }
    let tables = [
        vec!["/etc/crontab".to_owned()],
        guest.files.glob("/etc/cron.d/*"),
        guest.files.glob("/var/spool/cron/crontabs/root"),
        guest.files.glob("/var/spool/cron/root"),
    ]
    .concat();
    for path in tables {
        let text = guest.files.text(&path).unwrap_or_default();
        let line = text.lines().position(|line| !line.trim_start().starts_with('#') && line.contains(tool));
        if let Some(line) = line {
            return Some(Evidence::explicit(path, "entry", tool).at_line(line.saturating_add(1)));
        }
    }
    None
}
