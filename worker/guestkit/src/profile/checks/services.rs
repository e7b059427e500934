//! Services: what is installed and started, and how what is started is exposed.

use std::collections::BTreeSet;

use crate::guest::linux::unit::UnitFile;
use crate::guest::report::Unit;
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;
use crate::profile::text::{Assignment, assignments};

use super::ssh::stat;

/// The unit of this name that starts with the system, whichever way it is written.
fn started<'g>(guest: &'g Guest<'_>, name: &str) -> Option<Evidence> {
    let names =
        if name.contains('.') { vec![name.to_owned()] } else { vec![format!("{name}.service"), name.to_owned()] };
    names.iter().find(|name| guest.is_enabled(name)).map(|name| {
        let unit = guest.unit(name);
        Evidence::metadata(unit.map_or("", |unit| &unit.path), &**name, unit.map_or("enabled", |unit| &unit.state))
    })
}

/// An entry of inetd or xinetd that answers for a service.
fn super_server(guest: &Guest<'_>, service: &str) -> Option<Evidence> {
    let inetd = guest.files.text("/etc/inetd.conf").unwrap_or_default();
    for (at, line) in inetd.lines().enumerate() {
        if line.split_whitespace().next() == Some(service) {
            return Some(Evidence::explicit("/etc/inetd.conf", service, line.trim()).at_line(at.saturating_add(1)));
        }
    }
    let path = format!("/etc/xinetd.d/{service}");
    let text = guest.files.text(&path)?;
    let is_off = text.lines().any(|line| {
        let line: String = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        line == "disable=yes"
    });
    (!is_off).then(|| Evidence::explicit(path, service, "disable is not yes"))
}

/// A kind of service by the names that distributions give its packages and units; `with: {packages, units, clients, inetd,
/// condition}`. What is installed fails; it matters less where nothing starts it.
pub(crate) fn absent(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let Some(_) = guest.packages() else { return Outcome::unknown("no package database could be read") };
    let database = guest.package_database();
    let installed = |names: &[&str]| -> Vec<Evidence> {
        let packages = guest.packages().into_iter().flatten();
        let named = packages.filter(|package| names.contains(&package.name.as_str()));
        named.map(|package| Evidence::explicit(database, &*package.name, &*package.full_version)).collect()
    };
    let clients = installed(&asked.texts("clients"));
    if !clients.is_empty() {
        let names: Vec<_> = clients.iter().map(|one| one.key.clone()).collect();
        return Outcome::fail(format!("{} is installed", names.join(", ")), clients).with_subjects(names);
    }
    let servers = installed(&asked.texts("packages"));
    let mut starting: Vec<_> = asked.texts("units").into_iter().filter_map(|name| started(guest, name)).collect();
    starting.extend(asked.texts("inetd").into_iter().filter_map(|service| super_server(guest, service)));
    let condition = asked.text("condition");
    if !condition.is_empty() && !guest.files.exists(condition) {
        starting.clear();
    }
    let names: Vec<_> = servers.iter().map(|one| one.key.clone()).collect();
    if !starting.is_empty() {
        let units: Vec<_> = starting.iter().map(|one| one.key.clone()).collect();
        let reason = format!("{} starts with the system", units.join(", "));
        return Outcome::fail(reason, servers.into_iter().chain(starting).collect()).with_subjects(units);
    }
    // Packages that serve nobody by themselves are told only where they start something.
    if servers.is_empty() || asked.with.get("by_unit_alone").is_some() {
        let all = asked.texts("packages").into_iter().chain(asked.texts("clients")).collect::<Vec<_>>().join(", ");
        return Outcome::pass(
            "none of it is installed, or nothing of it starts",
            vec![Evidence::absent(database, all)],
        );
    }
    let reason = format!("{} is installed, though nothing starts it", names.join(", "));
    let outcome = Outcome::fail(reason, servers).with_severity(Severity::Low).with_subjects(names);
    // What is a client as well is no finding by itself.
    if condition.is_empty() { outcome } else { outcome.softened() }
}

/// The mail server listens to this machine alone.
pub(crate) fn mta_local_only(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let is_local = |text: &str| {
        let mut words = text.split([',', ' ', ';', ':']).map(str::trim).filter(|word| !word.is_empty());
        words.all(|word| {
            matches!(
                word,
                "loopback-only" | "localhost" | "127.0.0.1" | "[::1]" | "::1" | "[127.0.0.1]" | "1" | "[" | "]"
            )
        })
    };
    if guest.files.exists("/etc/postfix/main.cf") {
        let lines = continued(guest, "/etc/postfix/main.cf");
        let (value, evidence) = match lines.iter().rfind(|one| one.key == "inet_interfaces") {
            Some(one) => (one.value.clone(), one.evidence()),
            None => ("all".to_owned(), Evidence::default("/usr/sbin/postfix", "inet_interfaces", "all")),
        };
        return if is_local(&value) {
            Outcome::pass("postfix listens to this machine alone", vec![evidence])
        } else {
            Outcome::fail(format!("postfix listens to {value}"), vec![evidence])
        };
    }
    let exim = "/etc/exim4/update-exim4.conf.conf";
    if guest.files.exists(exim) {
        let lines = assignments(guest.files, exim);
        let found = lines.iter().rfind(|one| one.key == "dc_local_interfaces");
        let value = found.map(|one| one.value.trim_matches('\'').to_owned()).unwrap_or_default();
        let evidence = found.map_or_else(|| Evidence::absent(exim, "dc_local_interfaces"), Assignment::evidence);
        return if !value.is_empty() && is_local(&value) {
            Outcome::pass("exim listens to this machine alone", vec![evidence])
        } else {
            Outcome::fail(
                format!("exim listens to {}", if value.is_empty() { "every address" } else { &value }),
                vec![evidence],
            )
        };
    }
    if let Some(text) = guest.files.text("/etc/mail/sendmail.mc") {
        let daemon = text
            .lines()
            .enumerate()
            .find(|(_, line)| line.trim().starts_with("DAEMON_OPTIONS") && line.contains("Port=smtp"));
        return match daemon {
            Some((at, line)) if line.contains("127.0.0.1") || line.contains("::1") => {
                let evidence = Evidence::explicit("/etc/mail/sendmail.mc", "DAEMON_OPTIONS", line.trim())
                    .at_line(at.saturating_add(1));
                Outcome::pass("sendmail listens to this machine alone", vec![evidence])
            }
            found => {
                let line = found.map_or("not set", |(_, line)| line.trim());
                Outcome::fail(
                    "sendmail listens to every address",
                    vec![Evidence::explicit("/etc/mail/sendmail.mc", "DAEMON_OPTIONS", line)],
                )
            }
        };
    }
    Outcome::not_applicable("no mail server is installed")
}

/// Assignments of a file whose lines go on where the next begins with white space, as postfix's do.
fn continued(guest: &Guest<'_>, path: &str) -> Vec<Assignment> {
    let mut all: Vec<Assignment> = Vec::new();
    for (at, line) in guest.files.text(path).unwrap_or_default().lines().enumerate() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        if line.starts_with(char::is_whitespace) {
            if let Some(last) = all.last_mut() {
                last.value.push(' ');
                last.value.push_str(line.trim());
            }
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            all.push(Assignment { path: path.to_owned(), line: at.saturating_add(1), key, value });
        }
    }
    all
}

/// Ctrl-Alt-Del on the console does nothing.
pub(crate) fn ctrl_alt_del(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(services) = guest.services() else { return Outcome::unknown("no service manager was found") };
    if !services.managers.iter().any(|manager| manager == "systemd") {
        return Outcome::not_applicable("the service manager is not systemd");
    }
    let link = guest.files.link("/etc/systemd/system/ctrl-alt-del.target");
    let is_masked =
        link.as_deref() == Some("/dev/null") || services.masked.iter().any(|name| name == "ctrl-alt-del.target");
    let evidence = match &link {
        Some(target) => Evidence::explicit("/etc/systemd/system/ctrl-alt-del.target", "link", &**target),
        None => Evidence::default("/usr/lib/systemd/system/ctrl-alt-del.target", "link", "reboot.target"),
    };
    let burst = manager_setting(guest, "system.conf", "CtrlAltDelBurstAction");
    let action = burst.as_ref().map_or("reboot-force", |one| one.value.as_str());
    let mut all = vec![evidence];
    all.extend(burst.as_ref().map(Assignment::evidence));
    if !is_masked {
        return Outcome::fail("Ctrl-Alt-Del restarts the system", all);
    }
    if action == "none" {
        return Outcome::pass("Ctrl-Alt-Del does nothing", all);
    }
    Outcome::fail(format!("pressed seven times in two seconds, Ctrl-Alt-Del does {action}"), all)
}

/// A setting of systemd's own configuration: the file, then drop-ins by name over all directories; the last counts.
/// Source: systemd-system.conf(5), "Configuration directories and precedence".
pub(crate) fn manager_setting(guest: &Guest<'_>, file: &str, key: &str) -> Option<Assignment> {
    manager_settings(guest, file).into_iter().rfind(|one| one.key == key && !one.value.is_empty())
}

/// Every assignment of one file of systemd's and its drop-ins, in the order they apply.
pub(crate) fn manager_settings(guest: &Guest<'_>, file: &str) -> Vec<Assignment> {
    const DIRECTORIES: [&str; 4] = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];
    let mains = DIRECTORIES.map(|directory| format!("{directory}/{file}"));
    let mut all = mains
        .iter()
        .find(|path| guest.files.exists(path))
        .map(|path| assignments(guest.files, path))
        .unwrap_or_default();
    let mut by_name: Vec<(String, String)> = Vec::new();
    for directory in DIRECTORIES {
        for path in guest.files.with_suffix(&format!("{directory}/{file}.d"), ".conf") {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            if !by_name.iter().any(|(known, _)| *known == name) {
                by_name.push((name, path));
            }
        }
    }
    by_name.sort();
    for (_, path) in by_name {
        all.extend(assignments(guest.files, &path));
    }
    all
}

/// A shell of root on a console, for whoever stands in front of it.
pub(crate) fn debug_shell(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(_) = guest.services() else { return Outcome::unknown("no service manager was found") };
    let mut bad = Vec::new();
    if let Some(evidence) = started(guest, "debug-shell.service") {
        bad.push(Bad::new("debug-shell.service", evidence));
    }
    let line = guest.system.operating_system.kernel_command_line.as_deref().unwrap_or_default();
    if let Some(word) = line
        .split_whitespace()
        .find(|word| word.starts_with("systemd.debug-shell") || word.starts_with("systemd.debug_shell"))
    {
        let is_off = word.ends_with("=0") || word.ends_with("=no") || word.ends_with("=false");
        if !is_off {
            bad.push(Bad::new(word, Evidence::explicit("kernel command line", "systemd.debug-shell", word)));
        }
    }
    let looked_at = vec![Evidence::absent("/etc/systemd/system", "debug-shell.service")];
    Outcome::none_of(bad, "a shell of root waits on a console", "no shell of root waits on a console", looked_at)
}

/// Docker's socket over the network, and who may use it.
pub(crate) fn docker_exposed(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let config = "/etc/docker/daemon.json";
    let is_there =
        guest.unit("docker.service").is_some() || guest.unit("podman.socket").is_some() || guest.files.exists(config);
    if !is_there {
        return Outcome::not_applicable("no container engine is installed");
    }
    let mut bad = Vec::new();
    let mut looked_at = Vec::new();
    let text = guest.files.text(config).unwrap_or_default();
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let verified = parsed.get("tlsverify").and_then(serde_json::Value::as_bool) == Some(true);
    for host in
        parsed.get("hosts").and_then(serde_json::Value::as_array).into_iter().flatten().filter_map(|host| host.as_str())
    {
        let evidence = Evidence::explicit(config, "hosts", host);
        if host.starts_with("tcp://") && !verified {
            bad.push(Bad::new(host, evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    if let Some(unit) = guest.unit("docker.service") {
        let command = unit.exec_start.as_deref().unwrap_or_default();
        let evidence = Evidence::explicit(&*unit.path, "ExecStart", command);
        let listens = command
            .split_whitespace()
            .any(|word| word.trim_start_matches("-H=").trim_start_matches("--host=").starts_with("tcp://"));
        if listens && !command.contains("--tlsverify") {
            bad.push(Bad::new("docker.service", evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    let groups = guest.system.users.as_ref().map(|users| users.groups.as_slice()).unwrap_or_default();
    let members: Vec<String> =
        groups.iter().filter(|group| group.name == "docker").flat_map(|group| group.members.clone()).collect();
    if bad.is_empty() && !members.is_empty() {
        let evidence = members.iter().map(|name| Evidence::explicit("/etc/group", "docker", &**name)).collect();
        return Outcome::warn(format!("members of group docker are as good as root: {}", members.join(", ")), evidence)
            .with_subjects(members);
    }
    looked_at.push(Evidence::absent("/etc/group", "members of docker"));
    Outcome::none_of(
        bad,
        "the engine takes commands over the network from anybody",
        "the engine listens to this machine alone",
        looked_at,
    )
}

/// Whether an address is this machine's own.
fn is_loopback(address: &str) -> bool {
    let address = address.trim().trim_matches(['"', '\'', '[', ']']);
    matches!(address, "localhost" | "::1" | "ip6-localhost") || address.starts_with("127.") || address.starts_with('/')
}

/// Database servers that answer the network without asking who is there.
pub(crate) fn database_exposure(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let databases = guest.system.databases.as_ref().map(|found| found.databases.as_slice()).unwrap_or_default();
    if databases.is_empty() {
        return Outcome::not_applicable("no database server is installed");
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for database in databases {
        let config = database.config.as_deref().unwrap_or(&database.engine);
        let text = guest.files.text(config).unwrap_or_default();
        let has = |line: &str| text.lines().any(|found| found.trim().starts_with(line));
        let problem = match database.engine.as_str() {
            "mysql" | "mariadb" if has("skip-grant-tables") || has("skip_grant_tables") => {
                Some("asks for no password (skip-grant-tables)".to_owned())
            }
            "postgresql" => trusting_hosts(guest, config),
            "redis" => {
                let open = database.listen_addresses.iter().any(|address| !is_loopback(address));
                let password = has("requirepass") || has("aclfile") || has("user default");
                let protected = !has("protected-mode no");
                (open && !password && !protected).then(|| "answers the network without a password".to_owned())
            }
            "mongodb" => {
                let open = database.listen_addresses.iter().any(|address| !is_loopback(address));
                let asks = text.lines().any(|line| line.trim().replace(' ', "") == "authorization:enabled");
                (open && !asks).then(|| "answers the network without a password".to_owned())
            }
            _ => None,
        };
        let addresses = if database.listen_addresses.is_empty() {
            "default".to_owned()
        } else {
            database.listen_addresses.join(", ")
        };
        let evidence = Evidence::explicit(config, "listen addresses", addresses);
        match problem {
            Some(problem) => bad.push(Bad::new(format!("{} {problem}", database.engine), evidence)),
            None => looked_at.push(evidence),
        }
    }
    Outcome::none_of(bad, "database servers that are open", "database servers ask who is there", looked_at)
}

/// Lines of pg_hba.conf that trust other machines.
fn trusting_hosts(guest: &Guest<'_>, config: &str) -> Option<String> {
    let folder = config.rsplit_once('/').map_or("", |(folder, _)| folder);
    let text = guest.files.text(&format!("{folder}/pg_hba.conf"))?;
    let line = text.lines().find(|line| {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let is_host = words.first().is_some_and(|kind| kind.starts_with("host"));
        let is_local = words.get(3).is_some_and(|address| {
            address.starts_with("127.")
                || address.starts_with("::1")
                || *address == "localhost"
                || *address == "samehost"
        });
        is_host && words.last() == Some(&"trust") && !is_local
    })?;
    Some(format!("trusts other machines ({})", line.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Unit files as they merge: the file and its drop-ins.
fn merged(guest: &Guest<'_>, unit: &Unit) -> UnitFile {
    let mut file = UnitFile::parse(&guest.files.text(&unit.path).unwrap_or_default());
    for path in &unit.drop_ins {
        file.merge(&guest.files.text(path).unwrap_or_default());
    }
    file
}

/// What a service could do to the rest of the system: weights after systemd-analyze(1), "security", summed to 0.0–10.0.
fn exposure(file: &UnitFile) -> f64 {
    let get = |key: &str| file.last("Service", key).unwrap_or_default().to_owned();
    let on = |key: &str| matches!(get(key).as_str(), "yes" | "true" | "1" | "on");
    let user = get("User");
    let is_root = (user.is_empty() || user == "root" || user == "0") && !on("DynamicUser");
    let bounding = file.words("Service", "CapabilityBoundingSet");
    let has_capability = |name: &str| -> bool {
        if file.last("Service", "CapabilityBoundingSet").is_none() {
            return true;
        }
        let is_negative = bounding.first().is_some_and(|word| word.starts_with('~'));
        let named = bounding.iter().any(|word| word.trim_start_matches('~') == name);
        named != is_negative
    };
    let filter = file.words("Service", "SystemCallFilter");
    let is_allow_list = filter.first().is_some_and(|word| !word.starts_with('~'));
    let allows_calls = |set: &str| -> bool {
        if filter.is_empty() {
            return true;
        }
        let denied = filter.iter().any(|word| word.trim_start_matches('~') == set && word.starts_with('~'));
        if is_allow_list { filter.contains(&set) && !denied } else { !denied }
    };
    let families = file.words("Service", "RestrictAddressFamilies");
    let allows_family = |name: &str| -> bool {
        if families.is_empty() {
            return true;
        }
        let is_negative = families.first().is_some_and(|word| word.starts_with('~'));
        let named = families.iter().any(|word| word.trim_start_matches('~') == name);
        named != is_negative
    };
    let protect_system = match get("ProtectSystem").as_str() {
        "strict" => 0.0,
        "full" => 0.3,
        "yes" | "true" | "1" => 0.6,
        _ => 1.0,
    };
    let protect_home = match get("ProtectHome").as_str() {
        "yes" | "true" | "1" => 0.0,
        "tmpfs" => 0.1,
        "read-only" => 0.5,
        _ => 1.0,
    };
    let device_policy = match get("DevicePolicy").as_str() {
        "strict" | "closed" => 0.0,
        _ if on("PrivateDevices") => 0.0,
        _ => 1.0,
    };
    let weigh = |weight: f64, bad: f64| (weight, bad);
    let yes = |bad: bool| if bad { 1.0 } else { 0.0 };
    let umask = u32::from_str_radix(&get("UMask"), 8).unwrap_or(0o022);
    let umask = if umask & 0o002 == 0 {
        1.0
    } else if umask & 0o004 == 0 {
        0.4
    } else {
        0.0
    };
    let factors = [
        weigh(2000.0, yes(is_root)),
        weigh(25.0, yes(get("SupplementaryGroups").is_empty() && is_root)),
        weigh(1000.0, yes(!on("PrivateDevices"))),
        weigh(1000.0, yes(!on("PrivateMounts") && !on("PrivateTmp") && get("ProtectSystem").is_empty())),
        weigh(2500.0, yes(!on("PrivateNetwork"))),
        weigh(1000.0, yes(!on("PrivateTmp"))),
        weigh(1000.0, yes(!on("PrivateUsers"))),
        weigh(1000.0, yes(!on("ProtectControlGroups"))),
        weigh(1000.0, yes(!on("ProtectKernelModules"))),
        weigh(1000.0, yes(!on("ProtectKernelTunables"))),
        weigh(1000.0, yes(!on("ProtectKernelLogs"))),
        weigh(1000.0, yes(!on("ProtectClock"))),
        weigh(1000.0, protect_home),
        weigh(50.0, yes(!on("ProtectHostname"))),
        weigh(1000.0, protect_system),
        weigh(100.0, yes(get("RootDirectory").is_empty() && get("RootImage").is_empty())),
        weigh(100.0, yes(!on("LockPersonality"))),
        weigh(100.0, yes(!on("MemoryDenyWriteExecute"))),
        weigh(1000.0, yes(!on("NoNewPrivileges"))),
        weigh(100.0, umask),
        weigh(1000.0, yes(get("KeyringMode") == "shared")),
        weigh(1000.0, yes(matches!(get("ProtectProc").as_str(), "" | "default"))),
        weigh(10.0, yes(matches!(get("ProcSubset").as_str(), "" | "all"))),
        weigh(100.0, yes(matches!(get("NotifyAccess").as_str(), "all"))),
        weigh(100.0, yes(!on("RemoveIPC") && !is_root)),
        weigh(100.0, yes(on("Delegate"))),
        weigh(500.0, yes(!on("RestrictRealtime"))),
        weigh(1000.0, yes(!on("RestrictSUIDSGID"))),
        weigh(100.0, yes(get("SystemCallArchitectures").is_empty())),
        weigh(1500.0, yes(file.words("Service", "RestrictNamespaces").is_empty())),
        weigh(1500.0, yes(allows_family("AF_INET") || allows_family("AF_INET6"))),
        weigh(25.0, yes(allows_family("AF_UNIX"))),
        weigh(200.0, yes(allows_family("AF_NETLINK"))),
        weigh(1000.0, yes(allows_family("AF_PACKET"))),
        weigh(1250.0, yes(families.is_empty())),
        weigh(2000.0, yes(get("IPAddressDeny").is_empty())),
        weigh(1000.0, device_policy),
        weigh(1500.0, yes(has_capability("CAP_SYS_ADMIN"))),
        weigh(
            1500.0,
            yes(has_capability("CAP_SETUID") || has_capability("CAP_SETGID") || has_capability("CAP_SETPCAP")),
        ),
        weigh(1500.0, yes(has_capability("CAP_SYS_PTRACE"))),
        weigh(1000.0, yes(has_capability("CAP_SYS_TIME"))),
        weigh(1000.0, yes(has_capability("CAP_NET_ADMIN"))),
        weigh(1000.0, yes(has_capability("CAP_SYS_RAWIO"))),
        weigh(1000.0, yes(has_capability("CAP_SYS_MODULE"))),
        weigh(500.0, yes(has_capability("CAP_AUDIT_CONTROL"))),
        weigh(400.0, yes(has_capability("CAP_SYSLOG"))),
        weigh(400.0, yes(has_capability("CAP_SYS_NICE"))),
        weigh(400.0, yes(has_capability("CAP_MKNOD"))),
        weigh(
            1000.0,
            yes(has_capability("CAP_CHOWN") || has_capability("CAP_FSETID") || has_capability("CAP_SETFCAP")),
        ),
        weigh(
            1000.0,
            yes(has_capability("CAP_DAC_OVERRIDE") || has_capability("CAP_FOWNER") || has_capability("CAP_IPC_OWNER")),
        ),
        weigh(750.0, yes(has_capability("CAP_KILL"))),
        weigh(
            500.0,
            yes(has_capability("CAP_NET_BIND_SERVICE")
                || has_capability("CAP_NET_BROADCAST")
                || has_capability("CAP_NET_RAW")),
        ),
        weigh(100.0, yes(has_capability("CAP_SYS_BOOT"))),
        weigh(100.0, yes(has_capability("CAP_MAC_ADMIN") || has_capability("CAP_MAC_OVERRIDE"))),
        weigh(75.0, yes(has_capability("CAP_LINUX_IMMUTABLE"))),
        weigh(50.0, yes(has_capability("CAP_IPC_LOCK"))),
        weigh(50.0, yes(has_capability("CAP_SYS_CHROOT"))),
        weigh(
            25.0,
            yes(has_capability("CAP_BLOCK_SUSPEND") || has_capability("CAP_WAKE_ALARM") || has_capability("CAP_LEASE")),
        ),
        weigh(25.0, yes(has_capability("CAP_SYS_PACCT") || has_capability("CAP_SYS_TTY_CONFIG"))),
        weigh(1000.0, yes(allows_calls("@swap"))),
        weigh(1000.0, yes(allows_calls("@obsolete"))),
        weigh(1000.0, yes(allows_calls("@clock"))),
        weigh(1000.0, yes(allows_calls("@cpu-emulation"))),
        weigh(1000.0, yes(allows_calls("@debug"))),
        weigh(1000.0, yes(allows_calls("@mount"))),
        weigh(1000.0, yes(allows_calls("@module"))),
        weigh(1000.0, yes(allows_calls("@raw-io"))),
        weigh(1000.0, yes(allows_calls("@reboot"))),
        weigh(700.0, yes(allows_calls("@privileged"))),
        weigh(700.0, yes(allows_calls("@resources"))),
    ];
    let (mut sum, mut most) = (0.0, 0.0);
    for (weight, bad) in factors {
        sum += weight * bad;
        most += weight;
    }
    (sum / most * 100.0).round() / 10.0
}

/// Services that start and could do anything.
pub(crate) fn unit_exposure(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(services) = guest.services() else { return Outcome::unknown("no service manager was found") };
    if !services.managers.iter().any(|manager| manager == "systemd") {
        return Outcome::not_applicable("the service manager is not systemd");
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for unit in services
        .units
        .iter()
        .filter(|unit| unit.kind == "service" && unit.manager == "systemd" && unit.alias_of.is_none())
    {
        if !guest.is_enabled(&unit.name) {
            continue;
        }
        let score = exposure(&merged(guest, unit));
        let evidence = Evidence::metadata(&*unit.path, "exposure", format!("{score:.1} of 10"));
        if score >= 9.0 {
            bad.push(Bad::new(&*unit.name, evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent("/etc/systemd/system", "enabled services"));
    }
    Outcome::none_of(bad, "services that are not confined", "every service is confined to some degree", looked_at)
        .softened()
}

/// The first word of a command line of a unit, without systemd's prefixes.
fn program(command: &str) -> &str {
    command.trim_start_matches(['-', '@', ':', '+', '!']).split_whitespace().next().unwrap_or_default()
}

/// Units, drop-ins and what they start, where others than root could change them.
pub(crate) fn unit_writable(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(services) = guest.services() else { return Outcome::unknown("no service manager was found") };
    let mut paths: BTreeSet<&str> = BTreeSet::new();
    for unit in &services.units {
        paths.insert(&unit.path);
        paths.extend(unit.drop_ins.iter().map(String::as_str));
        let command = unit.exec_start.as_deref().map(program).unwrap_or_default();
        if command.starts_with('/') {
            paths.insert(command);
        }
    }
    let mut bad = Vec::new();
    let mut count = 0_usize;
    for path in paths.into_iter().filter(|path| path.starts_with('/')) {
        // A mask, or a unit that a generator makes, is no file.
        let Some(metadata) =
            guest.files.stat(path).filter(|found| found.file_type == crate::filesystem::FileType::Regular)
        else {
            continue;
        };
        count = count.saturating_add(1);
        if metadata.uid != 0 || metadata.mode & 0o022 != 0 {
            bad.push(Bad::new(path, stat(path, &metadata)));
        }
    }
    if count == 0 {
        return Outcome::unknown("no unit file could be read");
    }
    let looked_at = vec![Evidence::metadata("/usr/lib/systemd/system", "files", count.to_string())];
    Outcome::none_of(bad, "others than root can change what starts", "what starts is root's alone", looked_at)
}

/// Ways to start something that systemd does not show.
pub(crate) fn legacy_rc(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(services) = guest.services() else { return Outcome::unknown("no service manager was found") };
    let mut bad = Vec::new();
    for path in ["/etc/rc.local", "/etc/rc.d/rc.local"] {
        let is_executable = guest.files.stat(path).is_some_and(|metadata| metadata.mode & 0o111 != 0);
        let does = guest.files.text(path).unwrap_or_default().lines().map(str::trim).any(|line| {
            !line.is_empty()
                && !line.starts_with('#')
                && line != "exit 0"
                && !line.starts_with("touch /var/lock/subsys")
        });
        if is_executable && does {
            bad.push(Bad::new(path, Evidence::explicit(path, "commands", "run at start")));
        }
    }
    let has_systemd = services.managers.iter().any(|manager| manager == "systemd");
    for unit in
        services.units.iter().filter(|unit| has_systemd && unit.manager == "sysv" && guest.is_enabled(&unit.name))
    {
        bad.push(Bad::new(&*unit.name, Evidence::explicit(&*unit.path, "script", &*unit.state)));
    }
    for path in ["/etc/inetd.conf"] {
        let lines = guest
            .files
            .text(path)
            .unwrap_or_default()
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            .count();
        if lines > 0 {
            bad.push(Bad::new(path, Evidence::explicit(path, "services", lines.to_string())));
        }
    }
    let looked_at = ["/etc/rc.local", "/etc/inetd.conf"].map(|path| Evidence::absent(path, "commands")).to_vec();
    Outcome::none_of(bad, "started in ways of the past", "nothing starts in ways of the past", looked_at).softened()
}

/// Whether any unit of several starts; for facts and other checks.
pub(crate) fn any_started(guest: &Guest<'_>, names: &[&str]) -> Option<Evidence> {
    names.iter().find_map(|name| started(guest, name))
}

/// A package of several that is installed, as evidence.
pub(crate) fn any_installed(guest: &Guest<'_>, names: &[&str]) -> Option<Evidence> {
    let found = guest.installed(names)?;
    Some(Evidence::explicit(guest.package_database(), &*found.name, &*found.full_version))
}
