//! What a job found, for people: a summary that fits a screen or two. Everything else is in `-o json` and `-o yaml`.

use guestkit_protocol::v1;
use v1::job_result::Report;

use super::{Pairs, Sheet, Text, Tone, bytes, members, names, seconds};
use crate::instant;

/// Names listed in one line before the rest is counted.
const NAMES_MAX: usize = 12;
/// Warnings listed before the rest is counted: a damaged image can have thousands.
const WARNINGS_MAX: usize = 20;
/// Rows of a grid before the rest is left to `-o json`.
const ROWS_MAX: usize = 30;

/// An outcome: its report, or why there is none. `None` where no summary is drawn for that operation's report.
pub(crate) fn outcome(result: &v1::JobResult) -> Option<Sheet> {
    match &result.report {
        Some(Report::Inspect(report)) => Some(inspect(report)),
        Some(Report::Echo(report)) => Some(echo(report)),
        Some(Report::Profile(report)) => Some(super::profile::report(report)),
        Some(_) => None,
        None => Some(without_report(result)),
    }
}

/// The frame around a report: who ran it, when, how long, at what cost.
pub(crate) fn frame(result: &v1::JobResult) -> Sheet {
    let ran = result.execution_summary.clone().unwrap_or_default();
    let outputs = result.outputs.clone().unwrap_or_default();
    let written: Vec<&str> = outputs.artifacts.iter().map(|artifact| artifact.path.as_str()).collect();
    let mut pairs = Pairs::default()
        .put("Job", &result.job_id)
        .put("Status", super::job::status(&result.status))
        .put("Worker", &result.worker_id)
        .put("Attempt", if ran.attempt > 0 { ran.attempt.to_string() } else { String::new() })
        .put("Started", instant::shown(ran.started_at.as_ref()))
        .put("Ended", instant::shown(result.completed_at.as_ref().or(result.failed_at.as_ref())))
        .put("Took", seconds(ran.duration_seconds))
        .put("Written", if written.is_empty() { outputs.primary.clone() } else { written.join(", ") });
    if let Some(cost) = &result.metrics {
        pairs = pairs.put(
            "Cost",
            format!(
                "{} of CPU, {:.0} MiB of memory, {} read, {} written",
                seconds(cost.cpu_seconds),
                cost.peak_memory_mb,
                bytes(cost.disk_read_bytes),
                bytes(cost.disk_write_bytes)
            ),
        );
    }
    Sheet::default().pairs(pairs)
}

fn without_report(result: &v1::JobResult) -> Sheet {
    let pairs = Pairs::default()
        .put("Job", &result.job_id)
        .put("Status", super::job::status(&result.status))
        .put("Worker", &result.worker_id)
        .put("Ended", instant::shown(result.completed_at.as_ref().or(result.failed_at.as_ref())));
    let pairs = match &result.report_artifact {
        Some(artifact) => pairs
            .put("Report", format!("{} in {} (too large to travel inline)", bytes(artifact.size_bytes), artifact.name)),
        None => pairs,
    };
    Sheet::default().pairs(super::job::error(pairs, result.error.as_ref()))
}

fn echo(report: &v1::EchoReport) -> Sheet {
    let pairs = Pairs::default()
        .put("Message", report.message.as_deref().unwrap_or_default())
        .put("Data", report.data.as_ref().map(members).unwrap_or_default());
    Sheet::default().pairs(pairs)
}

fn inspect(report: &v1::InspectReport) -> Sheet {
    let mut sheet = Sheet::default().pairs(image(report));
    sheet = sheet.titled_grid(
        "File systems",
        &["DEVICE", "TYPE", "LABEL", "UUID", "SIZE", "USED", "READ"],
        report.filesystems.iter().take(ROWS_MAX).map(filesystem).collect(),
    );
    if report.systems.is_empty() {
        sheet = sheet.lines("Systems", vec!["no operating system was found".to_owned()]);
    }
    for system in &report.systems {
        sheet = guest(sheet, system);
    }
    warnings(sheet, &report.warnings)
}

fn image(report: &v1::InspectReport) -> Pairs {
    let image = report.image.clone().unwrap_or_default();
    let format = match image.format_version {
        Some(version) => format!("{} v{version}", image.format),
        None => image.format.clone(),
    };
    let mut facts = vec![format];
    facts.push(format!("{} virtual", bytes(image.virtual_size_bytes)));
    facts.push(format!("{} file", bytes(image.file_size_bytes)));
    facts.extend(image.cluster_size_bytes.map(|size| format!("{} clusters", bytes(size))));
    facts.extend(image.compression.clone());
    let chain: Vec<String> =
        image.backing_chain.iter().map(|file| format!("{} ({})", file.path, file.format)).collect();
    let took = report.summary.as_ref().map(|summary| {
        format!(
            "{}, {} read, engine {}",
            seconds(summary.duration_seconds),
            bytes(summary.bytes_read),
            summary.engine_version
        )
    });
    Pairs::default()
        .put("Image", &report.image_path)
        .put("Format", facts.join(", "))
        .put("Backed by", chain.join(" <- "))
        .put("SHA-256", image.sha256.as_deref().unwrap_or_default())
        .put("Partitions", report.partition_table.as_ref().map(partitions).unwrap_or_default())
        .put("Inspected in", took.unwrap_or_default())
}

fn partitions(table: &v1::PartitionTable) -> String {
    if table.partitions.is_empty() {
        return table.r#type.clone();
    }
    let listed: Vec<String> = table
        .partitions
        .iter()
        .map(|partition| {
            let kind = partition.type_name.as_deref().unwrap_or(&partition.r#type);
            format!("{} {kind} {}", partition.device, bytes(partition.size_bytes))
        })
        .collect();
    format!("{}: {}", table.r#type, names(&listed, NAMES_MAX))
}

fn filesystem(found: &v1::Filesystem) -> Vec<Text> {
    vec![
        (&found.device).into(),
        found.r#type.as_deref().unwrap_or("not recognised").into(),
        found.label.as_deref().unwrap_or_default().into(),
        found.uuid.as_deref().unwrap_or_default().into(),
        size(found.size_bytes),
        size(found.used_bytes),
        if found.readable { Text::new("yes") } else { Text::new("no").tone(Tone::Faint) },
    ]
}

fn size(count: Option<u64>) -> Text {
    Text::number(count.map(bytes).unwrap_or_default())
}

/// A system's name, as far as it tells one: `Debian GNU/Linux 12 (bookworm)`.
pub(crate) fn system_name(system: &v1::GuestSystem) -> String {
    let os = system.operating_system.clone().unwrap_or_default();
    let built = || {
        let parts = [os.distribution.clone(), os.version.clone()];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { os.r#type.clone() } else { parts.join(" ") }
    };
    os.product_name.clone().unwrap_or_else(built)
}

fn guest(sheet: Sheet, system: &v1::GuestSystem) -> Sheet {
    let pairs = operating_system(system);
    let pairs = software(pairs, system);
    let pairs = surroundings(pairs, system);
    let pairs = accounts(pairs, system.users.as_ref());
    let pairs = network(pairs, system.network.as_ref());
    let pairs = security(pairs, system.security.as_ref());
    let pairs = deep_scan(pairs, system.deep_scan.as_ref());
    let sheet = sheet.pairs(pairs);
    let sheet = interfaces(sheet, system.network.as_ref());
    let sheet = storage(sheet, system.storage.as_ref());
    databases(sheet, system.databases.as_ref())
}

fn operating_system(system: &v1::GuestSystem) -> Pairs {
    let os = system.operating_system.clone().unwrap_or_default();
    let mut line = system_name(system);
    line.extend(os.arch.as_ref().map(|arch| format!(", {arch}")));
    let boot: Vec<String> = [&os.firmware, &os.boot_loader, &os.init_system].into_iter().flatten().cloned().collect();
    let place: Vec<String> = [&os.timezone, &os.locale].into_iter().flatten().cloned().collect();
    let mounts: Vec<String> =
        system.mountpoints.iter().map(|mount| format!("{} on {}", mount.path, mount.device)).collect();
    Pairs::default()
        .put("System", Text::new(line).tone(Tone::Good))
        .put("Root", &system.root)
        .put("Mounts", names(&mounts, NAMES_MAX))
        .put("Hostname", os.hostname.as_deref().unwrap_or_default())
        .put("Machine ID", os.machine_id.as_deref().unwrap_or_default())
        .put("Kernel", kernels(&os))
        .put("Boots by", boot.join(", "))
        .put("Place", place.join(", "))
        .put("Installed", os.installed_at.as_deref().unwrap_or_default())
        .put("Last boot", os.last_boot_at.as_deref().unwrap_or_default())
        .put("Support ends", os.support_end.as_deref().unwrap_or_default())
}

fn kernels(os: &v1::OperatingSystem) -> String {
    let default = os.default_kernel.as_deref();
    let mut listed: Vec<String> = os
        .kernels
        .iter()
        .map(|kernel| {
            let is_default = kernel.is_default.unwrap_or(default == Some(kernel.version.as_str()));
            format!("{}{}", kernel.version, if is_default { " (default)" } else { "" })
        })
        .collect();
    if listed.is_empty() {
        listed.extend(default.map(str::to_owned));
    }
    names(&listed, NAMES_MAX)
}

fn software(pairs: Pairs, system: &v1::GuestSystem) -> Pairs {
    let pairs = match &system.packages {
        None => pairs,
        Some(packages) => {
            let manager = packages.manager.as_deref().unwrap_or("no package manager");
            let mut line = match packages.count {
                Some(count) => format!("{count} installed ({manager})"),
                None => format!("not known ({manager})"),
            };
            line.extend(packages.installed_size_bytes.map(|size| format!(", {}", bytes(size))));
            pairs.put("Packages", line).put("Largest", names(&packages.top_packages, 5))
        }
    };
    match &system.services {
        None => pairs,
        Some(services) => {
            let managers = names(&services.managers, NAMES_MAX);
            let line = format!("{} ({managers}), {} start by themselves", services.count, services.enabled.len());
            pairs
                .put("Services", line)
                .put("Enabled", names(&services.enabled, NAMES_MAX))
                .put("Masked", names(&services.masked, NAMES_MAX))
                .put("Timers", names(&services.enabled_timers, NAMES_MAX))
                .put("Sockets", names(&services.enabled_sockets, NAMES_MAX))
                .put("Starts into", services.default_target.as_deref().unwrap_or_default())
        }
    }
}

/// What the place a system runs in brought it, and what runs in it.
fn surroundings(pairs: Pairs, system: &v1::GuestSystem) -> Pairs {
    let cron = system.services.as_ref().map_or(0, |services| services.cron_jobs.len());
    let versioned = |name: &str, version: Option<&str>| match version {
        Some(version) => format!("{name} {version}"),
        None => name.to_owned(),
    };
    let agents: Vec<String> =
        system.guest_agents.iter().map(|agent| versioned(&agent.name, agent.version.as_deref())).collect();
    let languages: Vec<String> =
        system.language_runtimes.iter().map(|runtime| versioned(&runtime.language, Some(&runtime.version))).collect();
    let cloud = system.cloud_init.as_ref().map(|cloud| {
        let state = if cloud.enabled { "enabled" } else { "switched off" };
        [Some(state), cloud.datasource.as_deref(), cloud.instance_id.as_deref()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", ")
    });
    let pairs = pairs
        .put("Scheduled", if cron == 0 { String::new() } else { format!("{cron} commands of cron, anacron and at") })
        .put("Agents", names(&agents, NAMES_MAX))
        .put("cloud-init", cloud.unwrap_or_default())
        .put("Languages", names(&languages, NAMES_MAX));
    let Some(containers) = &system.containers else { return pairs };
    let runtimes: Vec<String> =
        containers.runtimes.iter().map(|runtime| versioned(&runtime.name, runtime.version.as_deref())).collect();
    let kept = format!("{} images, {} containers", containers.images.len(), containers.containers.len());
    pairs.put("Containers", kept).put("Run by", names(&runtimes, NAMES_MAX))
}

/// Those that end first, each as `NAME (until DAY)`.
fn certificates(list: &[v1::Certificate]) -> String {
    let mut list: Vec<&v1::Certificate> = list.iter().collect();
    list.sort_by(|a, b| a.not_after.cmp(&b.not_after));
    let told: Vec<String> = list
        .iter()
        .map(|one| format!("{} (until {})", one.path, one.not_after.split('T').next().unwrap_or_default()))
        .collect();
    names(&told, 4)
}

fn accounts(pairs: Pairs, users: Option<&v1::Users>) -> Pairs {
    let Some(users) = users else { return pairs };
    let named = |wanted: &dyn Fn(&v1::User) -> bool| -> Vec<&str> {
        users.users.iter().filter(|user| wanted(user)).map(|user| user.name.as_str()).collect()
    };
    let powerful = named(&|user| user.sudo);
    let open = named(&|user| user.password_state == "empty");
    let pairs = pairs
        .put("Users", format!("{} accounts, {} groups", users.count, users.groups.len()))
        .put("Can log in", names(&users.login_users, NAMES_MAX))
        .put("May do all", names(&powerful, NAMES_MAX))
        .put("No password", Text::new(names(&open, NAMES_MAX)).tone(Tone::Bad));
    let problems: Vec<String> =
        users.problems.iter().map(|problem| format!("{} {}", problem.subject, problem.problem)).collect();
    pairs.put("Contradictions", Text::new(names(&problems, NAMES_MAX)).tone(Tone::Notice))
}

fn network(pairs: Pairs, network: Option<&v1::Network>) -> Pairs {
    let Some(network) = network else { return pairs };
    let leases: Vec<String> = network
        .leases
        .iter()
        .map(|lease| match &lease.interface {
            Some(interface) => format!("{} ({interface})", lease.address),
            None => lease.address.clone(),
        })
        .collect();
    pairs
        .put(
            "Network",
            if network.managers.is_empty() { "not configured".to_owned() } else { names(&network.managers, NAMES_MAX) },
        )
        .put("Name servers", names(&network.dns_servers, NAMES_MAX))
        .put("Leases", names(&leases, NAMES_MAX))
}

fn interfaces(sheet: Sheet, network: Option<&v1::Network>) -> Sheet {
    let rows =
        network.map(|network| network.interfaces.iter().take(ROWS_MAX).map(interface).collect()).unwrap_or_default();
    sheet.titled_grid("Interfaces", &["NAME", "KIND", "ADDRESSES", "GATEWAYS", "MAC", "BY", "SOURCE"], rows)
}

fn interface(interface: &v1::NetworkInterface) -> Vec<Text> {
    let dynamic = [(interface.dhcp4, "dhcp4"), (interface.dhcp6, "dhcp6")];
    let mut addresses: Vec<&str> = dynamic.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
    addresses.extend(interface.addresses.iter().map(String::as_str));
    vec![
        (&interface.name).into(),
        interface.kind.as_deref().unwrap_or_default().into(),
        names(&addresses, 4).into(),
        names(&interface.gateways, 4).into(),
        interface.mac.as_deref().unwrap_or_default().into(),
        (&interface.manager).into(),
        (&interface.source).into(),
    ]
}

fn security(pairs: Pairs, security: Option<&v1::Security>) -> Pairs {
    let Some(security) = security else { return pairs };
    let selinux = security.selinux.as_ref().map(|selinux| {
        [selinux.mode.as_deref(), selinux.policy.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(", ")
    });
    let apparmor = security.apparmor.as_ref().map(|apparmor| {
        format!("{}, {} profiles", if apparmor.enabled { "enabled" } else { "not enabled" }, apparmor.profiles.len())
    });
    let firewalls: Vec<String> = security.firewalls.iter().map(firewall).collect();
    pairs
        .put("SELinux", selinux.unwrap_or_default())
        .put("AppArmor", apparmor.unwrap_or_default())
        .put("Firewall", if firewalls.is_empty() { "none".to_owned() } else { firewalls.join("; ") })
        .put("SSH server", security.ssh.as_ref().map(ssh).unwrap_or_default())
        .put(
            "Audit",
            security
                .auditd
                .as_ref()
                .map(|audit| {
                    format!("{}, {} rules", if audit.enabled { "enabled" } else { "not enabled" }, audit.rules)
                })
                .unwrap_or_default(),
        )
        .put("Certificates", certificates(&security.certificates))
        .put("Kernel line", security.kernel_command_line.as_deref().unwrap_or_default())
}

fn firewall(firewall: &v1::Firewall) -> String {
    let mut line = format!("{} {}", firewall.r#type, if firewall.enabled { "enabled" } else { "not enabled" });
    line.extend(firewall.rules.map(|rules| format!(", {rules} rules")));
    if !firewall.default_policies.is_empty() {
        line.push_str(&format!(", {}", firewall.default_policies.join(" ")));
    }
    line
}

/// The settings of an SSH server that decide who gets in.
const SSH_KEYS: [&str; 4] = ["port", "permitrootlogin", "passwordauthentication", "permitemptypasswords"];

fn ssh(server: &v1::SshServer) -> String {
    let mut facts = vec![
        match server.enabled {
            Some(true) => "enabled",
            Some(false) => "not enabled",
            None => "installed",
        }
        .to_owned(),
    ];
    for key in SSH_KEYS {
        facts.extend(
            server
                .settings
                .iter()
                .filter(|setting| setting.key == key)
                .map(|setting| format!("{key} {}", setting.value)),
        );
    }
    facts.extend(server.errors.first().map(|error| format!("would not start: {error}")));
    facts.join(", ")
}

fn storage(sheet: Sheet, storage: Option<&v1::Storage>) -> Sheet {
    let Some(storage) = storage else { return sheet };
    let mounts = storage.mounts.iter().take(ROWS_MAX).map(|mount| {
        let tone = if mount.used_percent >= 90.0 { Tone::Bad } else { Tone::Plain };
        vec![
            Text::new(&mount.path),
            Text::new(&mount.device),
            Text::new(&mount.r#type),
            Text::number(bytes(mount.size_bytes)),
            Text::number(bytes(mount.used_bytes)),
            Text::number(format!("{:.0}%", mount.used_percent)).tone(tone),
        ]
    });
    let groups = storage.volume_groups.iter().flat_map(|group| {
        group.logical_volumes.iter().map(|volume| {
            vec![
                Text::new(&group.name),
                Text::new(&volume.name),
                Text::new(&volume.r#type),
                Text::number(bytes(volume.size_bytes)),
                Text::new(volume.origin.as_deref().or(volume.pool.as_deref()).unwrap_or_default()),
                // A member that is missing is told by its UUID.
                Text::new(names(
                    &group
                        .physical_volumes
                        .iter()
                        .map(|one| one.device.clone().unwrap_or_else(|| format!("missing {}", one.uuid)))
                        .collect::<Vec<_>>(),
                    NAMES_MAX,
                )),
            ]
        })
    });
    let arrays = storage.arrays.iter().take(ROWS_MAX).map(|array| {
        let found = u32::try_from(array.members.len()).unwrap_or(u32::MAX);
        let tone = if found < array.members_expected { Tone::Bad } else { Tone::Plain };
        vec![
            Text::new(array.device.as_deref().unwrap_or_default()),
            Text::new(array.name.as_deref().unwrap_or_default()),
            Text::new(&array.level),
            Text::number(array.size_bytes.map(bytes).unwrap_or_default()),
            Text::new(format!("{found} of {}", array.members_expected)).tone(tone),
            Text::new(array.members.join(",")),
        ]
    });
    let swap: Vec<String> = storage
        .swap
        .iter()
        .map(|area| match area.size_bytes {
            Some(size) => format!("{} ({})", area.path, bytes(size)),
            None => area.path.clone(),
        })
        .collect();
    let encrypted: Vec<String> =
        storage.crypttab.iter().map(|entry| format!("{} on {}", entry.name, entry.spec)).collect();
    let fstab = storage.fstab.iter().take(ROWS_MAX).map(|entry| {
        vec![
            Text::new(&entry.path),
            Text::new(&entry.spec),
            Text::new(entry.device.as_deref().unwrap_or_default()),
            Text::new(&entry.r#type),
            Text::new(entry.options.join(",")),
        ]
    });
    sheet
        .titled_grid("Mounted", &["PATH", "DEVICE", "TYPE", "SIZE", "USED", "USE"], mounts.collect())
        .titled_grid(
            "Logical volumes",
            &["GROUP", "NAME", "TYPE", "SIZE", "OF", "PHYSICAL VOLUMES"],
            groups.take(ROWS_MAX).collect(),
        )
        .titled_grid("RAID arrays", &["DEVICE", "NAME", "LEVEL", "SIZE", "MEMBERS", "DEVICES"], arrays.collect())
        .titled_grid("fstab", &["PATH", "SPEC", "DEVICE", "TYPE", "OPTIONS"], fstab.collect())
        .pairs(Pairs::default().put("Swap", names(&swap, NAMES_MAX)).put("Encrypted", names(&encrypted, NAMES_MAX)))
}

fn databases(sheet: Sheet, databases: Option<&v1::Databases>) -> Sheet {
    let Some(databases) = databases else { return sheet };
    if databases.databases.is_empty() {
        return sheet.pairs(Pairs::default().put("Databases", "none"));
    }
    let rows = databases.databases.iter().take(ROWS_MAX).map(|database| {
        vec![
            Text::new(&database.engine),
            Text::new(database.version.as_deref().unwrap_or_default()),
            Text::new(database.data_directory.as_deref().unwrap_or_default()),
            Text::number(database.port.map(|port| port.to_string()).unwrap_or_default()),
            Text::new(match database.enabled {
                Some(true) => "enabled",
                Some(false) => "not enabled",
                None => "",
            }),
        ]
    });
    sheet.titled_grid("Databases", &["ENGINE", "VERSION", "DATA", "PORT", "SERVICE"], rows.collect())
}

fn deep_scan(pairs: Pairs, scan: Option<&v1::DeepScan>) -> Pairs {
    let Some(scan) = scan else { return pairs };
    let paths = |files: &[v1::FileFact]| {
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        names(&paths, NAMES_MAX)
    };
    pairs
        .put("Files", format!("{} in {} directories, {}", scan.files, scan.directories, bytes(scan.content_bytes)))
        .put("Set-user-ID", paths(&scan.setuid_files))
        .put("All may write", Text::new(paths(&scan.world_writable_files)).tone(Tone::Notice))
        .put("Open folders", Text::new(paths(&scan.world_writable_directories)).tone(Tone::Notice))
        .put("Unowned", paths(&scan.unowned_files))
        .put("SQLite", paths(&scan.sqlite_files))
        .put("Certificates", certificates(&scan.certificates))
}

fn warnings(sheet: Sheet, warnings: &[v1::Warning]) -> Sheet {
    let mut lines: Vec<String> = warnings
        .iter()
        .take(WARNINGS_MAX)
        .map(|warning| format!("{}: {}: {}", warning.r#where, warning.what, warning.why))
        .collect();
    if warnings.len() > WARNINGS_MAX {
        lines.push(format!("… and {} more (-o json lists them all)", warnings.len() - WARNINGS_MAX));
    }
    sheet.lines("Could not be read", lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Layout;

    fn debian() -> v1::InspectReport {
        v1::InspectReport {
            image_path: "/vms/web1.qcow2".into(),
            image: Some(v1::ImageInfo {
                format: "qcow2".into(),
                format_version: Some(3),
                virtual_size_bytes: 2 << 30,
                file_size_bytes: 312 << 20,
                ..Default::default()
            }),
            systems: vec![v1::GuestSystem {
                root: "/dev/sda1".into(),
                operating_system: Some(v1::OperatingSystem {
                    r#type: "linux".into(),
                    product_name: Some("Debian GNU/Linux 12 (bookworm)".into()),
                    arch: Some("x86_64".into()),
                    hostname: Some("web1".into()),
                    default_kernel: Some("6.1.0-18-amd64".into()),
                    kernels: vec![v1::Kernel { version: "6.1.0-18-amd64".into(), ..Default::default() }],
                    ..Default::default()
                }),
                packages: Some(v1::Packages { manager: Some("dpkg".into()), count: Some(412), ..Default::default() }),
                users: Some(v1::Users {
                    count: 1,
                    users: vec![v1::User {
                        name: "root".into(),
                        password_state: "empty".into(),
                        sudo: true,
                        ..Default::default()
                    }],
                    ..Default::default()
                }),
                ..Default::default()
            }],
            warnings: vec![v1::Warning {
                r#where: "services".into(),
                what: "/etc/systemd".into(),
                why: "is a loop".into(),
            }],
            ..Default::default()
        }
    }

    fn shown(report: v1::InspectReport) -> String {
        let result = v1::JobResult { report: Some(Report::Inspect(report)), ..Default::default() };
        outcome(&result).unwrap().render(Layout::default())
    }

    #[test]
    fn a_guest_is_summed_up() {
        let shown = shown(debian());
        for line in [
            "Image   /vms/web1.qcow2",
            "Format  qcow2 v3, 2.00 GiB virtual, 312 MiB file",
            "System       Debian GNU/Linux 12 (bookworm), x86_64",
            "Hostname     web1",
            "Kernel       6.1.0-18-amd64 (default)",
            "Packages     412 installed (dpkg)",
            "Users        1 accounts, 0 groups",
            "No password  root",
            "Could not be read",
            "  services: /etc/systemd: is a loop",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line:?} is not in\n{shown}");
        }
    }

    #[test]
    fn what_was_not_asked_for_is_not_shown() {
        let shown = shown(debian());
        for word in ["Services", "Network", "Firewall", "Databases", "fstab"] {
            assert!(!shown.contains(word), "{word} is in\n{shown}");
        }
    }

    #[test]
    fn a_disk_without_a_system_says_so() {
        let shown = shown(v1::InspectReport { systems: Vec::new(), ..debian() });
        assert!(shown.contains("no operating system was found"), "{shown}");
    }

    #[test]
    fn thousands_of_warnings_are_counted() {
        let warning = debian().warnings.remove(0);
        let shown = shown(v1::InspectReport { warnings: vec![warning; 1000], ..debian() });
        assert!(shown.ends_with("  … and 980 more (-o json lists them all)\n"), "{shown}");
    }
}
