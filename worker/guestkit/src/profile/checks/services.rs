//! What is installed to serve, what starts, and what starts it.

use std::collections::BTreeSet;

use crate::guest::linux::unit::UnitFile;
use crate::guest::report::{Database, Unit};
use crate::profile::evaluate::Asked;
use crate::profile::exposure;
use crate::profile::guest::{Guest, NO_PACKAGE_DATABASE};
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;
use crate::profile::settings::{self, Systemd, is_yes};

use super::ssh::stat;

/// The unit of one of these names that starts with the system; a name without a suffix is a service's, a socket's or a
/// script's.
pub(super) fn starting<'g>(guest: &Guest<'g>, names: &[&str]) -> Option<(String, Option<&'g Unit>)> {
    let suffixes = ["", ".service", ".socket"];
    let candidates = names.iter().flat_map(|name| {
        let suffixes = if name.contains('.') { suffixes.get(..1) } else { suffixes.get(..) };
        suffixes.unwrap_or_default().iter().map(move |suffix| format!("{name}{suffix}"))
    });
    let mut candidates = candidates.filter(|name| guest.is_enabled(name));
    candidates.next().map(|name| (name.clone(), guest.unit(&name)))
}

pub(super) fn unit_evidence(name: &str, unit: Option<&Unit>) -> Evidence {
    match unit {
        Some(unit) => Evidence::metadata(&*unit.path, name, &*unit.state),
        None => Evidence::metadata("/etc/systemd/system", name, "enabled"),
    }
}

/// One of several units that starts, as evidence.
pub(super) fn any_started(guest: &Guest<'_>, names: &[&str]) -> Option<Evidence> {
    starting(guest, names).map(|(name, unit)| unit_evidence(&name, unit))
}

/// One of several packages that is installed, as evidence.
pub(super) fn any_installed(guest: &Guest<'_>, names: &[&str]) -> Option<Evidence> {
    guest.presence(names, &[]).ok().flatten()
}

/// What must be installed, by one of its packages or, where no database could be read, one of its files. Where it is not, the
/// outcome that says so of what is `wanted`, and why where nothing tells.
pub(super) fn required(
    guest: &Guest<'_>,
    packages: &[&str],
    files: &[&str],
    reason: &str,
    wanted: &str,
) -> Result<Evidence, Outcome> {
    match guest.presence(packages, files) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(Outcome::fail(reason, vec![Evidence::absent(guest.package_database(), wanted)])),
        Err(unknown) => Err(Outcome::unknown(unknown)),
    }
}

/// Programs that a super server starts on demand: lines of inetd.conf(5) and services of xinetd.conf(5) that are on.
fn on_demand(guest: &Guest<'_>, wanted: &[&str]) -> Option<(String, Evidence)> {
    if wanted.is_empty() {
        return None;
    }
    for (number, line) in guest.files.text("/etc/inetd.conf").unwrap_or_default().lines().enumerate() {
        let name = line.split_whitespace().next().unwrap_or_default();
        if wanted.contains(&name) {
            let evidence = Evidence::explicit("/etc/inetd.conf", "service", name).at_line(number.saturating_add(1));
            return Some((name.to_owned(), evidence));
        }
    }
    for path in guest.files.glob("/etc/xinetd.d/*") {
        let text = guest.files.text(&path).unwrap_or_default();
        let mut name = String::new();
        let mut is_disabled = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(service) = line.strip_prefix("service ") {
                (name, is_disabled) = (service.trim().to_owned(), false);
            } else if let Some((key, value)) = line.split_once('=') {
                is_disabled |= key.trim() == "disable" && value.trim() == "yes";
            } else if line == "}" && !is_disabled && wanted.contains(&name.as_str()) {
                let evidence = Evidence::explicit(&*path, "service", &*name).at_line(number.saturating_add(1));
                return Some((name, evidence));
            }
        }
    }
    None
}

/// A service that a server does without: neither installed nor started. `deb`, `rpm`: its packages; `clients`: those of them
/// that are enough by themselves; `units`: what starts it; `inetd`: its names for a super server; `condition`: a file without
/// which its unit starts nothing; `tools`: installed for other reasons too, so it is only a warning.
pub(crate) fn absent(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let Some(packages) = guest.packages() else {
        return Outcome::unknown(NO_PACKAGE_DATABASE);
    };
    let (deb, rpm) = (asked.texts("deb"), asked.texts("rpm"));
    let (clients, units) = (asked.texts("clients"), asked.texts("units"));
    let is_of = |format: &str, name: &str| match format {
        "deb" => deb.contains(&name),
        "rpm" => rpm.contains(&name),
        _ => deb.contains(&name) || rpm.contains(&name),
    };
    let installed: Vec<_> = packages.filter(|package| is_of(&package.format, &package.name)).collect();
    let database = guest.package_database();
    let mut evidence: Vec<_> =
        installed.iter().map(|package| Evidence::explicit(database, &*package.name, &*package.full_version)).collect();
    let names: Vec<&str> = installed.iter().map(|package| package.name.as_str()).collect();
    let condition = asked.text("condition");
    if let Some((name, unit)) = starting(guest, &units) {
        let holds = condition.is_empty() || guest.files.exists(condition);
        evidence.push(unit_evidence(&name, unit));
        if holds {
            return Outcome::fail(format!("{name} starts with the system"), evidence).with_subjects([name]);
        }
        evidence.push(Evidence::absent(condition, "condition of the unit"));
        return Outcome::warn(format!("{name} starts with the system as soon as {condition} is there"), evidence)
            .with_subjects([name]);
    }
    if let Some((name, place)) = on_demand(guest, &asked.texts("inetd")) {
        evidence.push(place);
        return Outcome::fail(format!("a super server offers {name}"), evidence).with_subjects([name]);
    }
    if let Some(client) = names.iter().find(|name| units.is_empty() || clients.contains(name)) {
        return Outcome::fail(format!("{client} is installed"), evidence).with_subjects(names);
    }
    let Some(first) = names.first() else {
        let looked_for = if database.starts_with("/var/lib/dpkg") { &deb } else { &rpm };
        let mut looked_at = vec![Evidence::absent(database, looked_for.join(", "))];
        if !units.is_empty() {
            looked_at.push(Evidence::absent("/etc/systemd/system", units.join(", ")));
        }
        return Outcome::pass("it is neither installed nor started", looked_at);
    };
    evidence.push(Evidence::absent("/etc/systemd/system", units.join(", ")));
    let reason = format!("{first} is installed, but does not start with the system");
    let outcome = Outcome::fail(reason, evidence).with_severity(Severity::Low).with_subjects(names);
    if condition.is_empty() { outcome } else { outcome.softened() }
}

/// Whether an address is this machine's own alone.
fn is_loopback(address: &str) -> bool {
    let address = address.trim().trim_start_matches("inet:").trim_start_matches(['[', '/']).trim_end_matches(']');
    let address = address.split('%').next().unwrap_or_default();
    matches!(address, "localhost" | "loopback-only" | "::1" | "localhost.localdomain" | "ip6-localhost")
        || address.starts_with("127.")
        || address.starts_with("::ffff:127.")
}

/// Settings with continuation lines, as Postfix and Exim write them: the last one of `key`.
fn continued(text: &str, key: &str) -> Option<(String, usize)> {
    let mut found: Option<(String, usize)> = None;
    let mut is_ours = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            if let Some((value, _)) = found.as_mut().filter(|_| is_ours) {
                value.push(' ');
                value.push_str(line.trim());
            }
            continue;
        }
        is_ours = false;
        if let Some((known, value)) = line.split_once('=')
            && known.trim() == key
        {
            found = Some((value.trim().to_owned(), number.saturating_add(1)));
            is_ours = true;
        }
    }
    found
}

/// What a mail transfer agent is, and where it listens. Sources: postconf(5), update-exim4.conf(8), sendmail's cf/README,
/// smtpd.conf(5).
pub(crate) fn mta_local_only(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if guest.packages().is_none() {
        return Outcome::unknown(NO_PACKAGE_DATABASE);
    }
    let known: [(&str, &[&str]); 4] = [
        ("postfix", &["postfix"]),
        ("exim", &["exim4-daemon-light", "exim4-daemon-heavy", "exim"]),
        ("sendmail", &["sendmail", "sendmail-bin"]),
        ("opensmtpd", &["opensmtpd"]),
    ];
    let Some((agent, _)) = known.iter().find(|(_, names)| guest.installed(names).is_some()) else {
        return Outcome::not_applicable("no mail transfer agent is installed");
    };
    let (value, evidence) = match *agent {
        "postfix" => postfix_interfaces(guest),
        "exim" => exim_interfaces(guest),
        "sendmail" => sendmail_interfaces(guest),
        _ => opensmtpd_interfaces(guest),
    };
    let Some(value) = value else {
        return Outcome::pass(format!("{agent} has no configuration that listens"), vec![evidence]);
    };
    let separators = [',', ' ', '\t', ';'];
    let mut addresses = value.split(separators).filter(|address| !address.is_empty()).peekable();
    let is_local = addresses.peek().is_some() && addresses.all(is_loopback);
    if is_local {
        return Outcome::pass(format!("{agent} listens on {value} alone"), vec![evidence]);
    }
    Outcome::fail(
        format!("{agent} listens on {}", if value.is_empty() { "all addresses" } else { &value }),
        vec![evidence],
    )
    .with_subjects([*agent])
}

fn postfix_interfaces(guest: &Guest<'_>) -> (Option<String>, Evidence) {
    const MAIN: &str = "/etc/postfix/main.cf";
    let Some(text) = guest.files.text(MAIN) else {
        return (None, Evidence::absent(MAIN, "inet_interfaces"));
    };
    match continued(&text, "inet_interfaces") {
        Some((value, line)) => (Some(value.clone()), Evidence::explicit(MAIN, "inet_interfaces", value).at_line(line)),
        None => (Some("all".to_owned()), Evidence::default(MAIN, "inet_interfaces", "all")),
    }
}

fn exim_interfaces(guest: &Guest<'_>) -> (Option<String>, Evidence) {
    const DEBIAN: &str = "/etc/exim4/update-exim4.conf.conf";
    if let Some(text) = guest.files.text(DEBIAN) {
        return match settings::assignment(&text, "dc_local_interfaces") {
            Some((value, line)) => {
                (Some(value.clone()), Evidence::explicit(DEBIAN, "dc_local_interfaces", value).at_line(line))
            }
            None => (Some(String::new()), Evidence::default(DEBIAN, "dc_local_interfaces", "")),
        };
    }
    for path in ["/etc/exim/exim.conf", "/etc/exim4/exim4.conf"] {
        let Some(text) = guest.files.text(path) else { continue };
        // A list begins with its separator: `<; 127.0.0.1 ; ::1`.
        return match continued(&text, "local_interfaces") {
            Some((value, line)) => {
                let list = value.trim_start_matches('<').trim_start_matches(';').trim().to_owned();
                (Some(list), Evidence::explicit(path, "local_interfaces", value).at_line(line))
            }
            None => (Some(String::new()), Evidence::default(path, "local_interfaces", "")),
        };
    }
    (None, Evidence::absent(DEBIAN, "dc_local_interfaces"))
}

fn sendmail_interfaces(guest: &Guest<'_>) -> (Option<String>, Evidence) {
    const CONFIG: &str = "/etc/mail/sendmail.cf";
    let Some(text) = guest.files.text(CONFIG) else {
        return (None, Evidence::absent(CONFIG, "DaemonPortOptions"));
    };
    let mut addresses = Vec::new();
    let mut first = None;
    for (number, line) in text.lines().enumerate() {
        let Some(options) = line.strip_prefix("O DaemonPortOptions=") else { continue };
        first.get_or_insert_with(|| {
            Evidence::explicit(CONFIG, "DaemonPortOptions", options).at_line(number.saturating_add(1))
        });
        let address = options.split(',').find_map(|part| {
            let (key, value) = part.split_once('=')?;
            matches!(key.trim(), "Addr" | "A" | "Address").then(|| value.trim().to_owned())
        });
        addresses.push(address.unwrap_or_else(|| "all".to_owned()));
    }
    (Some(addresses.join(" ")), first.unwrap_or_else(|| Evidence::default(CONFIG, "DaemonPortOptions", "all")))
}

fn opensmtpd_interfaces(guest: &Guest<'_>) -> (Option<String>, Evidence) {
    let path = guest.files.first_existing(&["/etc/smtpd.conf", "/etc/mail/smtpd.conf", "/etc/opensmtpd/smtpd.conf"]);
    let Some(path) = path else { return (None, Evidence::absent("/etc/smtpd.conf", "listen on")) };
    let text = guest.files.text(path).unwrap_or_default();
    let listens = text.lines().filter_map(|line| line.trim().strip_prefix("listen on ")?.split_whitespace().next());
    let listens: Vec<&str> = listens
        .filter(|address| *address != "socket")
        .map(|address| if address == "lo" { "localhost" } else { address })
        .collect();
    // Without a line it listens on the loopback device.
    let value = if listens.is_empty() { "localhost".to_owned() } else { listens.join(" ") };
    (Some(value.clone()), Evidence::explicit(path, "listen on", value))
}

/// Whether three keys restart the machine. Sources: systemd.special(7), systemd-system.conf(5).
pub(crate) fn ctrl_alt_del(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    const TARGET: &str = "ctrl-alt-del.target";
    let Some(services) = guest.services() else {
        return Outcome::unknown("no service manager was found");
    };
    if !services.managers.iter().any(|manager| manager == "systemd") {
        let text = guest.files.text("/etc/inittab").unwrap_or_default();
        let line = text.lines().position(|line| !line.starts_with('#') && line.contains(":ctrlaltdel:"));
        return match line {
            Some(line) => {
                let evidence = Evidence::explicit("/etc/inittab", "ctrlaltdel", "set").at_line(line.saturating_add(1));
                Outcome::fail("init acts on Ctrl-Alt-Del", vec![evidence])
            }
            None => {
                Outcome::pass("init does not act on Ctrl-Alt-Del", vec![Evidence::absent("/etc/inittab", "ctrlaltdel")])
            }
        };
    }
    let (burst, burst_evidence) =
        Systemd::read(guest, "system.conf").get_or("Manager", "CtrlAltDelBurstAction", "reboot-force");
    let (is_masked, evidence) = match guest.unit(TARGET) {
        Some(unit) => (unit.state.starts_with("masked"), unit_evidence(TARGET, Some(unit))),
        None => (true, Evidence::absent("/usr/lib/systemd/system", TARGET)),
    };
    let evidence = vec![evidence, burst_evidence];
    match (is_masked, burst == "none") {
        (true, true) => Outcome::pass("Ctrl-Alt-Del does nothing", evidence),
        (true, false) => Outcome::fail(format!("pressed seven times within two seconds it does {burst}"), evidence),
        (false, _) => Outcome::fail(format!("{TARGET} is not masked"), evidence),
    }
}

/// A root shell without a password on the ninth console. Source: systemd-debug-generator(8).
pub(crate) fn debug_shell(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    const UNIT: &str = "debug-shell.service";
    let line = guest.system.operating_system.kernel_command_line.as_deref().unwrap_or_default();
    let word = line.split_whitespace().find(|word| {
        let (key, value) = word.split_once('=').unwrap_or((word, "1"));
        matches!(key, "systemd.debug-shell" | "systemd.debug_shell") && !matches!(value, "0" | "no" | "false" | "off")
    });
    if let Some(word) = word {
        let evidence = Evidence::explicit("kernel command line", "systemd.debug-shell", word);
        return Outcome::fail("the kernel's command line starts a root shell without a password", vec![evidence]);
    }
    if let Some((name, unit)) = starting(guest, &[UNIT]) {
        return Outcome::fail(
            "a root shell without a password starts with the system",
            vec![unit_evidence(&name, unit)],
        )
        .with_subjects([name]);
    }
    let evidence = match guest.unit(UNIT) {
        Some(unit) => unit_evidence(UNIT, Some(unit)),
        None => Evidence::absent("/usr/lib/systemd/system", UNIT),
    };
    Outcome::pass("the debug shell does not start", vec![evidence])
}

/// A unit's settings with its drop-ins.
fn merged(guest: &Guest<'_>, unit: &Unit) -> Option<UnitFile> {
    let mut file = UnitFile::parse(&guest.files.text(&unit.path)?);
    for path in &unit.drop_ins {
        file.merge(&guest.files.text(path).unwrap_or_default());
    }
    Some(file)
}

/// A container engine that anybody on the network commands, or whoever is in its group.
pub(crate) fn docker_exposed(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    const DAEMON: &str = "/etc/docker/daemon.json";
    let names =
        ["docker.io", "docker-ce", "moby-engine", "docker-engine", "docker", "podman", "docker-ce-rootless-extras"];
    let has_unit = ["docker.service", "podman.service"].iter().any(|name| guest.unit(name).is_some());
    if guest.installed(&names).is_none() && !has_unit && !guest.files.exists(DAEMON) {
        return Outcome::not_applicable("no container engine is installed");
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    let text = guest.files.text(DAEMON);
    let daemon: serde_json::Value = match text.as_deref().map(serde_json::from_str) {
        Some(Ok(value)) => value,
        Some(Err(_)) => return Outcome::unknown(format!("{DAEMON} is not JSON")),
        None => serde_json::Value::Null,
    };
    let is_verified = daemon.get("tlsverify").and_then(serde_json::Value::as_bool).unwrap_or(false);
    let hosts = daemon.get("hosts").and_then(serde_json::Value::as_array).into_iter().flatten();
    for host in hosts.filter_map(serde_json::Value::as_str) {
        let evidence = Evidence::explicit(DAEMON, "hosts", host);
        if is_open_tcp(host) && !is_verified {
            bad.push(Bad::new(host, evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    if let Some(file) = guest.unit("docker.service").and_then(|unit| merged(guest, unit)) {
        for command in file.values("Service", "ExecStart") {
            let evidence = Evidence::explicit("docker.service", "ExecStart", command);
            let words: Vec<&str> = command.split_whitespace().collect();
            let hosts = words.iter().enumerate().filter_map(|(at, word)| match *word {
                "-H" | "--host" => words.get(at.saturating_add(1)).copied(),
                word => word
                    .strip_prefix("--host=")
                    .or_else(|| word.strip_prefix("-H="))
                    .or_else(|| word.strip_prefix("-H")),
            });
            let is_verified =
                is_verified || words.iter().any(|word| matches!(*word, "--tlsverify" | "--tlsverify=true"));
            let mut open = hosts.filter(|host| is_open_tcp(host) && !is_verified).peekable();
            if open.peek().is_none() {
                looked_at.push(evidence.clone());
            }
            bad.extend(open.map(|host| Bad::new(host, evidence.clone())));
        }
    }
    for name in ["docker.socket", "podman.socket"] {
        let Some(unit) = guest.unit(name).filter(|_| starting(guest, &[name]).is_some()) else { continue };
        for trigger in &unit.triggers {
            let address = trigger.strip_prefix("ListenStream=").unwrap_or_default();
            let evidence = Evidence::explicit(&*unit.path, "ListenStream", address);
            let host = address.rsplit_once(':').map_or("", |(host, _)| host);
            if !address.is_empty() && !address.starts_with(['/', '%', '@']) && !is_loopback(host) {
                bad.push(Bad::new(name, evidence));
            } else {
                looked_at.push(evidence);
            }
        }
    }
    if !bad.is_empty() {
        return Outcome::none_of(bad, "the engine takes commands over the network without TLS clients", "", Vec::new());
    }
    let groups = guest.system.users.as_ref().map(|users| users.groups.as_slice()).unwrap_or_default();
    let members =
        groups.iter().find(|group| group.name == "docker").map(|group| group.members.as_slice()).unwrap_or_default();
    if !members.is_empty() {
        looked_at.push(Evidence::explicit("/etc/group", "docker", members.join(",")));
        let reason = format!("members of group docker are as powerful as root: {}", members.join(", "));
        return Outcome::warn(reason, looked_at).with_subjects(members.iter().cloned());
    }
    looked_at.push(Evidence::absent("/etc/group", "members of docker"));
    Outcome::pass("the engine takes commands on its local socket alone", looked_at)
}

/// Whether `tcp://…` is open to others than this machine.
fn is_open_tcp(host: &str) -> bool {
    let Some(address) = host.strip_prefix("tcp://") else { return false };
    let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
    !is_loopback(name)
}

/// Databases that others than this machine reach without proving who they are.
pub(crate) fn database_exposure(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let databases = guest.system.databases.as_ref().map(|found| found.databases.as_slice()).unwrap_or_default();
    let mut servers: Vec<&Database> = Vec::new();
    for database in
        databases.iter().filter(|database| !matches!(database.engine.as_str(), "sqlite" | "oracle" | "mssql"))
    {
        if !servers.iter().any(|known| known.engine == database.engine && known.config == database.config) {
            servers.push(database);
        }
    }
    if servers.is_empty() {
        return Outcome::not_applicable("no database server is installed");
    }
    let (mut bad, mut looked_at, mut undecided) = (Vec::new(), Vec::new(), Vec::new());
    for database in servers {
        let judged = match database.engine.as_str() {
            "mysql" | "mariadb" => mysql(guest),
            "postgresql" => postgresql(guest, database),
            "redis" | "valkey" => redis(guest, database),
            "mongodb" => mongodb(guest, database),
            "elasticsearch" | "opensearch" => elasticsearch(guest, database),
            _ => None,
        };
        match judged {
            Some(Judged::Open(why, evidence)) => bad.push(Bad::new(format!("{}: {why}", database.engine), evidence)),
            Some(Judged::Closed(evidence)) => looked_at.push(evidence),
            None => undecided.push(database.engine.clone()),
        }
    }
    if bad.is_empty() && !undecided.is_empty() {
        return Outcome::unknown(format!("the configuration of {} could not be judged", undecided.join(", ")));
    }
    Outcome::none_of(bad, "open to the network", "databases listen on this machine alone or ask who comes", looked_at)
}

enum Judged {
    Open(String, Evidence),
    Closed(Evidence),
}

/// The option files of MySQL and MariaDB in their order. Source: MySQL manual, "Using Option Files".
fn mysql(guest: &Guest<'_>) -> Option<Judged> {
    let mut queue: Vec<String> = vec!["/etc/mysql/my.cnf".to_owned(), "/etc/my.cnf".to_owned()];
    let mut seen = BTreeSet::new();
    let mut skips: Option<Evidence> = None;
    let mut last = None;
    while let Some(path) = queue.pop() {
        let real = guest.files.tree().canonicalize(&path).ok().flatten();
        if seen.len() > 200 || !seen.insert(real.unwrap_or_else(|| path.clone().into_bytes())) {
            continue;
        }
        let Some(text) = guest.files.text(&path) else { continue };
        let mut is_server = false;
        let mut included = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(directory) = line.strip_prefix("!includedir") {
                included.extend(guest.files.with_suffix(directory.trim().trim_end_matches('/'), ".cnf"));
            } else if let Some(file) = line.strip_prefix("!include") {
                included.push(file.trim().to_owned());
            } else if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                is_server = ["mysqld", "server", "mariadb", "mariadbd", "galera"].iter().any(|name| {
                    section.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                });
            } else if is_server && !line.starts_with(['#', ';']) {
                let (key, value) = line.split_once('=').unwrap_or((line, "1"));
                let key = key.trim().replace('_', "-");
                let evidence = Evidence::explicit(&*path, &*key, value.trim()).at_line(number.saturating_add(1));
                match key.as_str() {
                    "skip-grant-tables" => skips = is_yes(value.trim()).then_some(evidence),
                    "bind-address" => last = Some(evidence),
                    _ => {}
                }
            }
        }
        included.reverse();
        queue.extend(included);
    }
    if let Some(evidence) = skips {
        return Some(Judged::Open("anybody is let in without a password".to_owned(), evidence));
    }
    Some(Judged::Closed(last.unwrap_or_else(|| Evidence::default("/etc/mysql/my.cnf", "skip-grant-tables", "off"))))
}

/// Source: PostgreSQL manual, "The pg_hba.conf File".
fn postgresql(guest: &Guest<'_>, database: &Database) -> Option<Judged> {
    let beside = database.config.as_ref().and_then(|config| Some(config.rsplit_once('/')?.0.to_owned()));
    let directories = beside.into_iter().chain(database.data_directory.clone());
    let paths: Vec<String> = directories.map(|directory| format!("{directory}/pg_hba.conf")).collect();
    let (path, text) = paths.into_iter().find_map(|path| Some((path.clone(), guest.files.text(&path)?)))?;
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let is_host = words.first().is_some_and(|kind| kind.starts_with("host"));
        // With a mask of its own the method is one word later.
        let method = match words.get(4).copied() {
            Some(word) if word.contains(['.', ':']) && word.starts_with(|c: char| c.is_ascii_digit()) => {
                words.get(5).copied()
            }
            other => other,
        };
        if is_host && method == Some("trust") {
            let evidence = Evidence::explicit(&*path, "host", words.join(" ")).at_line(number.saturating_add(1));
            return Some(Judged::Open("hosts are trusted without a password".to_owned(), evidence));
        }
    }
    let evidence = Evidence::absent(path, "host … trust");
    Some(Judged::Closed(evidence))
}

/// Source: the comments of redis.conf.
fn redis(guest: &Guest<'_>, database: &Database) -> Option<Judged> {
    let path = database.config.as_deref()?;
    let text = guest.files.text(path)?;
    let get = |key: &str| {
        let lines = text.lines().enumerate().filter_map(|(number, line)| {
            let (known, value) = line.trim().split_once(char::is_whitespace)?;
            known
                .eq_ignore_ascii_case(key)
                .then(|| (value.trim().trim_matches('"').to_owned(), number.saturating_add(1)))
        });
        lines.last()
    };
    let has_password = get("requirepass").is_some_and(|(value, _)| !value.is_empty()) || get("aclfile").is_some();
    let is_protected = get("protected-mode").is_none_or(|(value, _)| value != "no");
    let (bind, evidence) = match get("bind") {
        Some((value, line)) => (value.clone(), Evidence::explicit(path, "bind", value).at_line(line)),
        None => ("*".to_owned(), Evidence::default(path, "bind", "*")),
    };
    let is_local = bind.split_whitespace().all(|address| is_loopback(address.trim_start_matches('-')));
    if is_local || has_password || is_protected {
        return Some(Judged::Closed(evidence));
    }
    Some(Judged::Open(format!("it listens on {bind} without a password"), evidence))
}

/// A setting of a YAML file by its path, written nested or with dots.
fn yaml(document: &serde_json::Value, key: &str) -> Option<serde_json::Value> {
    if let Some(value) = document.get(key) {
        return Some(value.clone());
    }
    let (first, rest) = key.split_once('.')?;
    yaml(document.get(first)?, rest)
}

fn yaml_text(document: &serde_json::Value, key: &str) -> Option<String> {
    yaml(document, key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Source: MongoDB manual, "Configuration File Options".
fn mongodb(guest: &Guest<'_>, database: &Database) -> Option<Judged> {
    let path = database.config.as_deref()?;
    let document: serde_json::Value = serde_saphyr::from_str(&guest.files.text(path)?).ok()?;
    let authorization = yaml_text(&document, "security.authorization").unwrap_or_else(|| "disabled".to_owned());
    let all = yaml_text(&document, "net.bindIpAll").is_some_and(|value| value == "true");
    let bind = yaml_text(&document, "net.bindIp").unwrap_or_else(|| "localhost".to_owned());
    let evidence = Evidence::explicit(path, "net.bindIp, security.authorization", format!("{bind}, {authorization}"));
    let is_local = !all && bind.split(',').all(is_loopback);
    if is_local || authorization == "enabled" {
        return Some(Judged::Closed(evidence));
    }
    Some(Judged::Open(format!("it listens on {bind} without authorization"), evidence))
}

/// Source: Elasticsearch guide, "Security settings" and "Networking".
fn elasticsearch(guest: &Guest<'_>, database: &Database) -> Option<Judged> {
    let path = database.config.as_deref()?;
    let document: serde_json::Value = serde_saphyr::from_str(&guest.files.text(path)?).ok()?;
    let key = if database.engine == "opensearch" { "plugins.security.disabled" } else { "xpack.security.enabled" };
    let is_new = database.version.as_deref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    let is_secure = match (yaml_text(&document, key), database.engine.as_str()) {
        (Some(value), "opensearch") => value != "true",
        (Some(value), _) => value == "true",
        (None, "opensearch") => true,
        // Security is on by itself since version 8.
        (None, _) => is_new.is_some_and(|major| major >= 8),
    };
    let host = yaml_text(&document, "http.host").or_else(|| yaml_text(&document, "network.host"));
    let host = host.unwrap_or_else(|| "_local_".to_owned());
    let evidence = Evidence::explicit(path, "network.host", &*host);
    if is_secure || host == "_local_" || is_loopback(&host) {
        return Some(Judged::Closed(evidence));
    }
    Some(Judged::Open(format!("it listens on {host} without authentication"), evidence))
}

/// Services of the network that could reach nearly everything, as systemd weighs them.
pub(crate) fn unit_exposure(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(services) = guest.services() else {
        return Outcome::unknown("no service manager was found");
    };
    if !services.managers.iter().any(|manager| manager == "systemd") {
        return Outcome::not_applicable("the system has no systemd");
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    let is_own = |unit: &&Unit| unit.kind == "service" && unit.manager == "systemd" && unit.state != "alias";
    for unit in services.units.iter().filter(is_own) {
        if starting(guest, &[&unit.name]).is_none_or(|(name, _)| name != unit.name) {
            continue;
        }
        let Some(file) = merged(guest, unit).filter(is_of_network) else { continue };
        let exposure = exposure::of(&file);
        let told = format!("{}.{}", exposure / 10, exposure % 10);
        let evidence = Evidence::metadata(&*unit.path, "exposure", &*told);
        if exposure >= 90 {
            bad.push(Bad::new(format!("{} ({told})", unit.name), evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    if looked_at.is_empty() && bad.is_empty() {
        looked_at.push(Evidence::absent("/etc/systemd/system", "services of the network"));
    }
    Outcome::none_of(
        bad,
        "services of the network without confinement",
        "services of the network are confined",
        looked_at,
    )
    .softened()
}

/// Whether a service belongs to the network: it is ordered after it, and may use it.
fn is_of_network(file: &UnitFile) -> bool {
    let is_network = |word: &&str| matches!(*word, "network.target" | "network-online.target");
    let words = ["After", "Wants", "Requires"].into_iter().flat_map(|key| file.words("Unit", key));
    let is_ordered = words.into_iter().any(|word| is_network(&word));
    let is_oneshot = file.last("Service", "Type") == Some("oneshot");
    is_ordered && !is_oneshot && !file.last("Service", "PrivateNetwork").is_some_and(is_yes)
}

/// Unit files, drop-ins and what they start, changed by others than root.
pub(crate) fn unit_writable(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(services) = guest.services() else {
        return Outcome::unknown("no service manager was found");
    };
    let mut seen = BTreeSet::new();
    let mut bad = Vec::new();
    let mut looked_at: u64 = 0;
    for unit in services.units.iter().filter(|unit| unit.state != "masked" && unit.state != "bad") {
        let program = unit.exec_start.as_deref().and_then(program_of);
        let own = unit.user.as_deref().and_then(|user| guest.users().iter().find(|known| known.name == user));
        let own = own.map(|user| user.uid);
        let files = unit.drop_ins.iter().map(String::as_str).chain([unit.path.as_str()]).map(|path| (path, None));
        for (path, allowed) in files.chain(program.map(|path| (path, own))) {
            if !seen.insert(path.to_owned()) {
                continue;
            }
            let Some(metadata) = guest.files.stat(path) else { continue };
            looked_at = looked_at.saturating_add(1);
            let uid = u64::from(metadata.uid);
            let is_foreign = uid != 0 && allowed != Some(uid);
            // A character device is a mask; nothing is read from it.
            let is_file = metadata.file_type == crate::filesystem::FileType::Regular;
            if is_file && (is_foreign || metadata.mode & 0o022 != 0) {
                bad.push(Bad::new(path, stat(path, &metadata)));
            }
        }
    }
    let clean = vec![Evidence::metadata("/usr/lib/systemd/system", "unit files and programs", looked_at.to_string())];
    Outcome::none_of(bad, "others than root may change what starts", "only root may change what starts", clean)
}

/// The program of a command line, without the prefixes of systemd.service(5).
fn program_of(command: &str) -> Option<&str> {
    let first = command.split_whitespace().next()?.trim_start_matches(['-', '@', ':', '+', '!', '|']).trim_matches('"');
    first.starts_with('/').then_some(first)
}

/// Start mechanisms of before systemd that still do something.
pub(crate) fn legacy_rc(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(services) = guest.services() else {
        return Outcome::unknown("no service manager was found");
    };
    if !services.managers.iter().any(|manager| manager == "systemd") {
        return Outcome::not_applicable("the system does not start with systemd");
    }
    let mut bad = Vec::new();
    for path in ["/etc/rc.local", "/etc/rc.d/rc.local"] {
        let is_program = guest.files.stat(path).is_some_and(|metadata| metadata.mode & 0o111 != 0);
        let link =
            guest.files.stat_link(path).is_some_and(|found| found.file_type == crate::filesystem::FileType::Symlink);
        if !is_program || link {
            continue;
        }
        let text = guest.files.text(path).unwrap_or_default();
        let does = |line: &&str| {
            let line = line.trim();
            !line.is_empty()
                && !line.starts_with('#')
                && !line.starts_with("exit")
                && line != "touch /var/lock/subsys/local"
        };
        if let Some(line) = text.lines().position(|line| does(&line)) {
            bad.push(Bad::new(
                path,
                Evidence::explicit(path, "commands", "it runs some").at_line(line.saturating_add(1)),
            ));
        }
    }
    for unit in services.units.iter().filter(|unit| unit.manager == "sysv" && unit.state == "enabled") {
        bad.push(Bad::new(&*unit.path, Evidence::metadata(&*unit.path, "run levels", unit.wanted_by.join(" "))));
    }
    for path in ["/etc/inittab", "/etc/inetd.conf"] {
        let text = guest.files.text(path).unwrap_or_default();
        if let Some(line) = text.lines().position(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        {
            bad.push(Bad::new(
                path,
                Evidence::explicit(path, "entries", "it has some").at_line(line.saturating_add(1)),
            ));
        }
    }
    let clean =
        vec![Evidence::absent("/etc/rc.local", "commands"), Evidence::absent("/etc/init.d", "scripts without a unit")];
    Outcome::none_of(bad, "started by what was before systemd", "everything starts by units", clean).softened()
}
