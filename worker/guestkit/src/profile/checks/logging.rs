//! Logs, banners, time, and who watches over files.

use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::text::{Assignment, assignments};

use super::services::{any_installed, any_started, manager_setting, manager_settings};
use super::ssh::stat;

fn has_systemd(guest: &Guest<'_>) -> bool {
    guest.files.is_dir("/etc/systemd")
        || guest.services().is_some_and(|services| services.managers.iter().any(|manager| manager == "systemd"))
}

/// The journal outlives a restart.
pub(crate) fn journald_storage(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    if !has_systemd(guest) {
        return Outcome::not_applicable("the service manager is not systemd");
    }
    let set = manager_setting(guest, "journald.conf", "Storage");
    let value = set.as_ref().map_or("auto", |one| one.value.as_str());
    let evidence = set
        .as_ref()
        .map_or_else(|| Evidence::default("/etc/systemd/journald.conf", "Storage", "auto"), Assignment::evidence);
    if asked.semantics == crate::profile::Semantics::Explicit && set.is_none() {
        return Outcome::fail("Storage is not set explicitly", vec![evidence]);
    }
    match value {
        "persistent" => Outcome::pass("the journal is kept", vec![evidence]),
        "auto" if guest.files.is_dir("/var/log/journal") => {
            let directory = Evidence::metadata("/var/log/journal", "directory", "present");
            Outcome::pass("the journal is kept, because its directory is there", vec![evidence, directory])
        }
        "auto" => {
            let directory = Evidence::absent("/var/log/journal", "directory");
            Outcome::fail("the journal is lost at a restart: its directory is not there", vec![evidence, directory])
        }
        other => Outcome::fail(format!("the journal is not kept (Storage={other})"), vec![evidence]),
    }
}

/// The journal is compressed, and handed to syslog where syslog is what keeps logs.
pub(crate) fn journald_options(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    if !has_systemd(guest) {
        return Outcome::not_applicable("the service manager is not systemd");
    }
    let set = manager_setting(guest, "journald.conf", "Compress");
    let evidence = set
        .as_ref()
        .map_or_else(|| Evidence::default("/etc/systemd/journald.conf", "Compress", "yes"), Assignment::evidence);
    let value = set.as_ref().map_or("yes", |one| one.value.as_str());
    if matches!(value, "no" | "false" | "off" | "0") {
        return Outcome::fail("the journal is not compressed", vec![evidence]);
    }
    if asked.semantics == crate::profile::Semantics::Explicit && set.is_none() {
        return Outcome::fail("Compress is not set explicitly", vec![evidence]);
    }
    let forward = manager_setting(guest, "journald.conf", "ForwardToSyslog");
    // Debian's build forwards by default, others do not.
    let by_default = guest.families().contains(&"debian");
    let forwards = forward.as_ref().map_or(by_default, |one| matches!(one.value.as_str(), "yes" | "true" | "on" | "1"));
    let has_syslog = any_installed(guest, &["rsyslog", "syslog-ng", "syslog-ng-core"]).is_some();
    let mut all = vec![evidence];
    all.extend(forward.as_ref().map(Assignment::evidence));
    let reads_journal = guest.files.text("/etc/rsyslog.conf").is_some_and(|text| text.contains("imjournal"));
    if has_syslog && !forwards && !reads_journal {
        return Outcome::fail("rsyslog is installed, but the journal is not handed to it", all);
    }
    Outcome::pass("the journal is compressed and goes where it should", all)
}

/// Every line of rsyslog's configuration, with its includes.
fn rsyslog(guest: &Guest<'_>) -> Vec<(String, usize, String)> {
    let mut paths = vec!["/etc/rsyslog.conf".to_owned()];
    paths.extend(guest.files.glob("/etc/rsyslog.d/*.conf"));
    let mut lines = Vec::new();
    for path in paths {
        let text = guest.files.text(&path).unwrap_or_default();
        for (at, line) in
            text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.trim().starts_with('#'))
        {
            lines.push((path.clone(), at.saturating_add(1), line.trim().to_owned()));
        }
    }
    lines
}

fn no_rsyslog(guest: &Guest<'_>) -> bool {
    !guest.files.exists("/etc/rsyslog.conf")
}

/// A parameter of one of rsyslog's statements: `name="value"`, whichever way it is written.
fn parameter(line: &str, name: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    let at = lower.find(&format!("{name}="))?.checked_add(name.len())?.checked_add(1)?;
    let rest = line.get(at..)?;
    Some(rest.trim_start_matches('"').split(['"', ' ', ')']).next()?.to_owned())
}

/// Modes of the log files that rsyslog makes.
pub(crate) fn rsyslog_mode(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if no_rsyslog(guest) {
        return Outcome::not_applicable("rsyslog is not installed");
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for (path, at, line) in rsyslog(guest) {
        let lower = line.to_ascii_lowercase();
        let mode = lower
            .strip_prefix("$filecreatemode")
            .map(|rest| rest.trim().to_owned())
            .or_else(|| parameter(&line, "filecreatemode"));
        let Some(mode) = mode else { continue };
        let evidence = Evidence::explicit(&*path, "FileCreateMode", &*mode).at_line(at);
        if u32::from_str_radix(&mode, 8).is_ok_and(|mode| mode & !0o640 & 0o777 == 0) {
            looked_at.push(evidence);
        } else {
            bad.push(Bad::new(format!("{path}:{at}"), evidence));
        }
    }
    if looked_at.is_empty() && bad.is_empty() {
        return Outcome::fail(
            "log files are made with mode 0644",
            vec![Evidence::default("rsyslogd", "FileCreateMode", "0644")],
        );
    }
    Outcome::none_of(bad, "log files are made laxer than 0640", "log files are made 0640 or stricter", looked_at)
}

/// rsyslog takes nothing from the network.
pub(crate) fn rsyslog_listen(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if no_rsyslog(guest) {
        return Outcome::not_applicable("rsyslog is not installed");
    }
    let inputs = [
        "$inputtcpserverrun",
        "$udpserverrun",
        "$inputrelpserverrun",
        "$modload imtcp",
        "$modload imudp",
        "$modload imrelp",
    ];
    let lines = rsyslog(guest);
    let bad = lines.iter().filter(|(_, _, line)| {
        let lower = line.to_ascii_lowercase();
        let listens = inputs.iter().any(|start| lower.starts_with(start));
        let modern = (lower.starts_with("module(") || lower.starts_with("input("))
            && ["imtcp", "imudp", "imrelp", "imptcp"].iter().any(|module| lower.contains(&format!("\"{module}\"")));
        listens || modern
    });
    let bad = bad.map(|(path, at, line)| {
        Bad::new(format!("{path}:{at}"), Evidence::explicit(&**path, "input", &**line).at_line(*at))
    });
    let looked_at = vec![Evidence::absent("/etc/rsyslog.conf", "inputs from the network")];
    Outcome::none_of(
        bad.collect(),
        "logs are taken from the network",
        "logs are taken from this machine alone",
        looked_at,
    )
}

/// Logs go to another machine.
pub(crate) fn remote(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mut found = Vec::new();
    for (path, at, line) in rsyslog(guest) {
        let lower = line.to_ascii_lowercase();
        let legacy = line
            .split_whitespace()
            .nth(1)
            .is_some_and(|target| target.starts_with('@') || target.starts_with(":omrelp:"));
        let modern = lower.contains("action(") && (lower.contains("\"omfwd\"") || lower.contains("\"omrelp\""))
            || lower.contains("target=") && lower.contains("omfwd");
        if legacy || modern {
            found.push(Evidence::explicit(&*path, "target", &*line).at_line(at));
        }
    }
    let upload = manager_setting(guest, "journal-upload.conf", "URL");
    if let (Some(url), Some(unit)) = (&upload, any_started(guest, &["systemd-journal-upload.service"])) {
        found.extend([url.evidence(), unit]);
    }
    let agents = [
        "fluent-bit",
        "td-agent-bit",
        "filebeat",
        "promtail",
        "alloy",
        "splunkd",
        "SplunkForwarder",
        "nxlog",
        "vector",
        "rsyslog-relp-forwarder",
        "amazon-cloudwatch-agent",
        "google-cloud-ops-agent",
    ];
    found.extend(any_started(guest, &agents));
    if let Some(text) = guest.files.text("/etc/syslog-ng/syslog-ng.conf") {
        let sends = text.lines().enumerate().find(|(_, line)| {
            ["tcp(", "udp(", "network(", "syslog("].iter().any(|driver| line.trim().starts_with(driver))
        });
        found.extend(sends.map(|(at, line)| {
            Evidence::explicit("/etc/syslog-ng/syslog-ng.conf", "destination", line.trim())
                .at_line(at.saturating_add(1))
        }));
    }
    if found.is_empty() {
        let looked = ["/etc/rsyslog.conf", "/etc/systemd/journal-upload.conf"]
            .map(|path| Evidence::absent(path, "a target"))
            .to_vec();
        return Outcome::fail("logs stay on this machine", looked);
    }
    Outcome::pass("logs go to another machine", found)
}

/// Logs are turned over by a schedule.
pub(crate) fn rotation(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let Some(package) = any_installed(guest, &["logrotate"]) else {
        return match guest.packages() {
            None => Outcome::unknown("no package database could be read"),
            Some(_) => Outcome::fail(
                "logrotate is not installed",
                vec![Evidence::absent(guest.package_database(), "logrotate")],
            ),
        };
    };
    let timer = any_started(guest, &["logrotate.timer"]);
    let by_cron = guest.files.stat("/etc/cron.daily/logrotate").is_some_and(|metadata| metadata.mode & 0o111 != 0);
    let scheduled =
        timer.or_else(|| by_cron.then(|| Evidence::metadata("/etc/cron.daily/logrotate", "script", "daily")));
    let Some(scheduled) = scheduled else {
        return Outcome::fail("logrotate is installed, but nothing runs it", vec![package]);
    };
    // A year of logs, where the standard asks for it: what is kept times how long one is.
    let days = asked.limit_number(0);
    if days > 0 {
        let (kept, evidence) = retention(guest);
        if kept < days {
            return Outcome::fail(
                format!("logs are kept for {kept} days, should be {days}"),
                vec![scheduled, evidence],
            );
        }
    }
    Outcome::pass("logs are turned over", vec![package, scheduled])
}

/// Days that logs are kept by default.
fn retention(guest: &Guest<'_>) -> (i64, Evidence) {
    let lines = assignments(guest.files, "/etc/logrotate.conf");
    let period = lines.iter().rev().find_map(|one| match one.key.as_str() {
        "daily" => Some(1),
        "weekly" => Some(7),
        "monthly" => Some(30),
        "yearly" => Some(365),
        _ => None,
    });
    let rotate = lines.iter().rfind(|one| one.key == "rotate");
    let count: i64 = rotate.and_then(|one| one.value.parse().ok()).unwrap_or(0);
    let evidence = rotate.map_or_else(|| Evidence::absent("/etc/logrotate.conf", "rotate"), Assignment::evidence);
    (count.saturating_mul(period.unwrap_or(7)), evidence)
}

/// What is shown before and after logging in: something, and nothing of the system.
pub(crate) fn issue(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for path in ["/etc/issue", "/etc/issue.net"] {
        let Some(metadata) = guest.files.stat(path) else {
            looked_at.push(Evidence::absent(path, "file"));
            continue;
        };
        let text = guest.files.text(path).unwrap_or_default();
        let first = text.lines().next().unwrap_or_default().to_owned();
        let evidence = Evidence::explicit(path, "text", first);
        let tells = ["\\m", "\\r", "\\s", "\\v"].into_iter().find(|escape| text.contains(escape));
        if let Some(escape) = tells {
            bad.push(Bad::new(format!("{path} tells {escape}"), evidence.clone()));
        }
        if metadata.uid != 0 || metadata.gid != 0 || metadata.mode & 0o133 != 0 {
            bad.push(Bad::new(format!("{path} is laxer than 0644 root:root"), stat(path, &metadata)));
        }
        looked_at.push(evidence);
    }
    if let Some(metadata) =
        guest.files.stat("/etc/motd").filter(|metadata| metadata.mode & 0o133 != 0 || metadata.uid != 0)
    {
        bad.push(Bad::new("/etc/motd is laxer than 0644 root:root", stat("/etc/motd", &metadata)));
    }
    let texts = ["/etc/issue", "/etc/issue.net"].map(|path| guest.files.text(path).unwrap_or_default());
    if bad.is_empty() && texts.iter().all(|text| text.trim().is_empty()) {
        return Outcome::fail("nothing is shown before logging in", looked_at);
    }
    Outcome::none_of(bad, "what is shown before logging in", "what is shown tells nothing of the kernel", looked_at)
}

/// One client of one time service, with a source.
pub(crate) fn time_sync(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let Some(_) = guest.services() else { return Outcome::unknown("no service manager was found") };
    let clients: [(&[&str], &[&str]); 4] = [
        (&["chrony", "chronyd"], &["chrony"]),
        (&["systemd-timesyncd"], &["systemd-timesyncd", "systemd", "systemd-timesyncd-libs"]),
        (&["ntpsec", "ntp", "ntpd"], &["ntpsec", "ntp"]),
        (&["openntpd"], &["openntpd"]),
    ];
    let mut running = Vec::new();
    for (units, packages) in clients {
        // A link to a unit that is gone, as removing a package leaves it, starts nothing.
        let Some(unit) = any_started(guest, units) else { continue };
        if guest.packages().is_some() && any_installed(guest, packages).is_none() {
            continue;
        }
        let source = match units.first().copied() {
            Some("chrony") => chrony_sources(guest),
            Some("systemd-timesyncd") => {
                let source = timesyncd_sources(guest);
                let is_default = source.source == "compiled-default";
                (!is_default || asked.semantics == crate::profile::Semantics::Effective).then_some(source)
            }
            _ => ntp_sources(guest),
        };
        running.push((unit, source));
    }
    let evidence: Vec<_> =
        running.iter().flat_map(|(unit, source)| std::iter::once(unit.clone()).chain(source.clone())).collect();
    match running.as_slice() {
        [] => {
            let tools = guest.files.text("/etc/vmware-tools/tools.conf").is_some_and(|text| text.contains("timeSync"));
            let reason = if tools { "only VMware Tools may set the clock" } else { "nothing sets the clock" };
            Outcome::fail(reason, vec![Evidence::absent("/etc/systemd/system", "chrony, systemd-timesyncd, ntpsec")])
        }
        [(_, Some(_))] => Outcome::pass("one client sets the clock", evidence),
        [(_, None)] => Outcome::fail("the client that sets the clock has no source", evidence),
        _ => Outcome::fail("several clients set the clock", evidence),
    }
}

fn chrony_sources(guest: &Guest<'_>) -> Option<Evidence> {
    let mut paths = vec!["/etc/chrony.conf".to_owned(), "/etc/chrony/chrony.conf".to_owned()];
    for pattern in ["/etc/chrony/conf.d/*.conf", "/etc/chrony.d/*.conf", "/etc/chrony/sources.d/*.sources"] {
        paths.extend(guest.files.glob(pattern));
    }
    let all = paths.iter().flat_map(|path| assignments(guest.files, path));
    all.filter(|one| matches!(one.key.as_str(), "server" | "pool" | "peer" | "refclock" | "sourcedir"))
        .map(|one| one.evidence())
        .next()
}

fn timesyncd_sources(guest: &Guest<'_>) -> Evidence {
    let settings = manager_settings(guest, "timesyncd.conf");
    let set = settings.iter().rfind(|one| matches!(one.key.as_str(), "NTP" | "FallbackNTP") && !one.value.is_empty());
    set.map_or_else(
        || Evidence::default("systemd-timesyncd", "FallbackNTP", "the distribution's"),
        Assignment::evidence,
    )
}

fn ntp_sources(guest: &Guest<'_>) -> Option<Evidence> {
    let paths = ["/etc/ntpsec/ntp.conf", "/etc/ntp.conf", "/etc/openntpd/ntpd.conf", "/etc/ntpd.conf"];
    let all = paths.iter().flat_map(|path| assignments(guest.files, path));
    all.filter(|one| matches!(one.key.as_str(), "server" | "pool" | "servers" | "peer"))
        .map(|one| one.evidence())
        .next()
}

/// Something remembers what files looked like: installed, scheduled, and with a memory.
pub(crate) fn file_integrity(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(_) = guest.packages() else { return Outcome::unknown("no package database could be read") };
    if let (Some(package), Some(unit)) = (
        any_installed(guest, &["samhain", "ossec-hids", "ossec-hids-agent", "wazuh-agent", "tripwire"]),
        any_started(guest, &["samhain", "ossec", "wazuh-agent", "ossec-hids"]),
    ) {
        return Outcome::pass("files are watched", vec![package, unit]);
    }
    let Some(package) = any_installed(guest, &["aide"]) else {
        return Outcome::fail(
            "nothing watches over files",
            vec![Evidence::absent(guest.package_database(), "aide, tripwire, samhain, wazuh-agent")],
        );
    };
    let databases = ["/var/lib/aide/aide.db", "/var/lib/aide/aide.db.gz"];
    let database =
        databases.into_iter().find_map(|path| Some((path, guest.files.stat(path).filter(|found| found.size > 0)?)));
    let timer = any_started(guest, &["dailyaidecheck.timer", "aidecheck.timer", "aide-check.timer"]);
    let crons = ["/etc/cron.daily/aide", "/etc/cron.daily/dailyaidecheck", "/etc/cron.weekly/aide"];
    let by_cron = crons
        .into_iter()
        .find(|path| guest.files.exists(path))
        .map(|path| Evidence::metadata(path, "script", "present"))
        .or_else(|| crontab_line(guest, "aide"));
    let mut evidence = vec![package];
    let Some((path, found)) = database else {
        return Outcome::fail("AIDE has no database to compare with", evidence);
    };
    evidence.push(Evidence::metadata(path, "bytes", found.size.to_string()));
    match timer.or(by_cron) {
        Some(scheduled) => {
            evidence.push(scheduled);
            Outcome::pass("AIDE compares files by a schedule", evidence)
        }
        None => Outcome::fail("AIDE has a database, but nothing runs it", evidence),
    }
}

/// A line of a crontab that names a program.
fn crontab_line(guest: &Guest<'_>, program: &str) -> Option<Evidence> {
    let mut paths =
        vec!["/etc/crontab".to_owned(), "/var/spool/cron/root".to_owned(), "/var/spool/cron/crontabs/root".to_owned()];
    paths.extend(guest.files.glob("/etc/cron.d/*"));
    paths.into_iter().find_map(|path| {
        let text = guest.files.text(&path)?;
        let (at, line) =
            text.lines().enumerate().find(|(_, line)| !line.trim().starts_with('#') && line.contains(program))?;
        Some(Evidence::explicit(&*path, program, line.trim()).at_line(at.saturating_add(1)))
    })
}
