//! What clouds, desktops and intruders leave.

use std::collections::BTreeSet;

use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::text::assignments;

use super::services::any_installed;

/// The login screen tells and opens as little as it can.
pub(crate) fn gdm_settings(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if any_installed(guest, &["gdm", "gdm3"]).is_none() {
        return Outcome::not_applicable("GDM is not installed");
    }
    let mut lines = Vec::new();
    for path in guest.files.glob("/etc/dconf/db/*/*").into_iter().chain(["/etc/gdm3/greeter.dconf-defaults".to_owned()])
    {
        lines.extend(assignments(guest.files, &path));
    }
    let mut evidence = Vec::new();
    let mut problems = Vec::new();
    let demands = [
        ("banner-message-enable", "true", "no banner is shown"),
        ("disable-user-list", "true", "the users are listed"),
        ("automount", "false", "media are mounted by themselves"),
        ("automount-open", "false", "media are opened by themselves"),
        ("autorun-never", "true", "programs of media are run"),
    ];
    for (key, wanted, problem) in demands {
        match lines.iter().rfind(|one| one.key == key) {
            Some(one) if one.value == wanted => evidence.push(one.evidence()),
            Some(one) => {
                evidence.push(one.evidence());
                problems.push(problem);
            }
            None => problems.push(problem),
        }
    }
    for path in ["/etc/gdm3/custom.conf", "/etc/gdm3/daemon.conf", "/etc/gdm/custom.conf"] {
        let mut section = String::new();
        for line in guest.files.text(path).unwrap_or_default().lines().map(str::trim) {
            if line.starts_with('[') {
                line.clone_into(&mut section);
            }
            let compact: String = line.split_whitespace().collect::<String>().to_ascii_lowercase();
            if compact == "automaticloginenable=true" {
                problems.push("somebody is logged in by itself");
                evidence.push(Evidence::explicit(path, "AutomaticLoginEnable", "true"));
            }
            if section.eq_ignore_ascii_case("[xdmcp]") && compact == "enable=true" {
                problems.push("XDMCP is on");
                evidence.push(Evidence::explicit(path, "XDMCP Enable", "true"));
            }
        }
    }
    if evidence.is_empty() {
        evidence.push(Evidence::absent("/etc/dconf/db", "settings of the login screen"));
    }
    if problems.is_empty() {
        Outcome::pass("the login screen tells little", evidence)
    } else {
        Outcome::fail(problems.join(", "), evidence)
    }
}

/// What cloud-init was told: nothing that opens the machine to whoever reads it.
pub(crate) fn cloud_userdata(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if guest.files.first_existing(&["/etc/cloud/cloud.cfg", "/var/lib/cloud/instance", "/usr/bin/cloud-init"]).is_none()
    {
        return Outcome::not_applicable("cloud-init is not installed");
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    let mut paths: Vec<String> = vec!["/var/lib/cloud/instance/user-data.txt".to_owned()];
    paths.extend(guest.files.glob("/var/lib/cloud/seed/*/user-data"));
    paths.extend(guest.files.glob("/var/lib/cloud/instances/*/user-data.txt"));
    for path in paths {
        let Some(text) = guest.files.text(&path) else { continue };
        looked_at.push(Evidence::explicit(&*path, "lines", text.lines().count().to_string()));
        for (at, line) in text.lines().enumerate() {
            let lower = line.trim().trim_start_matches("- ").to_ascii_lowercase();
            let is_secret = [
                "password:",
                "passwd:",
                "plain_text_passwd:",
                "hashed_passwd:",
                "secret",
                "token:",
                "aws_secret_access_key",
                "private_key",
            ]
            .iter()
            .any(|key| lower.starts_with(key) && lower.len() > key.len().saturating_add(1));
            if is_secret || lower.contains("-----begin") && lower.contains("private key") {
                let key = lower.split(':').next().unwrap_or("secret").to_owned();
                bad.push(Bad::new(
                    format!("{path}:{}", at.saturating_add(1)),
                    Evidence::explicit(&*path, key, "(not shown)").at_line(at.saturating_add(1)),
                ));
            }
        }
    }
    let mut configs = vec!["/etc/cloud/cloud.cfg".to_owned()];
    configs.extend(guest.files.with_suffix("/etc/cloud/cloud.cfg.d", ".cfg"));
    let (mut root, mut password) = (None, None);
    for path in configs {
        for (at, line) in guest.files.text(&path).unwrap_or_default().lines().enumerate() {
            let compact: String = line
                .split('#')
                .next()
                .unwrap_or_default()
                .chars()
                .filter(|c| !c.is_whitespace())
                .collect::<String>()
                .to_ascii_lowercase();
            let evidence =
                |key: &str, value: &str| Evidence::explicit(&*path, key, value).at_line(at.saturating_add(1));
            if let Some(value) = compact.strip_prefix("ssh_pwauth:") {
                password = Some((matches!(value, "true" | "1" | "yes"), evidence("ssh_pwauth", value)));
            }
            if let Some(value) = compact.strip_prefix("disable_root:") {
                root = Some((matches!(value, "false" | "0" | "no"), evidence("disable_root", value)));
            }
        }
    }
    for (what, found) in [("passwords are accepted over SSH", password), ("root may log in", root)] {
        match found {
            Some((true, evidence)) => bad.push(Bad::new(what, evidence)),
            Some((false, evidence)) => looked_at.push(evidence),
            None => {}
        }
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent("/var/lib/cloud/instance/user-data.txt", "secrets"));
    }
    Outcome::none_of(
        bad,
        "cloud-init was told too much",
        "cloud-init was told nothing that opens the machine",
        looked_at,
    )
}

/// Directories from which nothing of a system is started.
const ODD_PLACES: [&str; 6] = ["/tmp/", "/var/tmp/", "/dev/shm/", "/home/", "/run/user/", "/root/."];

/// Ways in which intruders come back.
pub(crate) fn suspicious(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    match guest.files.text("/etc/ld.so.preload").filter(|text| !text.trim().is_empty()) {
        Some(text) => {
            bad.push(Bad::new("/etc/ld.so.preload", Evidence::explicit("/etc/ld.so.preload", "library", text.trim())));
        }
        None => looked_at.push(Evidence::absent("/etc/ld.so.preload", "library")),
    }
    let units = guest.services().map(|services| services.units.as_slice()).unwrap_or_default();
    for unit in units {
        let command = unit.exec_start.as_deref().unwrap_or_default().trim_start_matches(['-', '@', ':', '+', '!']);
        if ODD_PLACES.iter().any(|place| command.starts_with(place)) || pipes_download(command) {
            bad.push(Bad::new(&*unit.name, Evidence::explicit(&*unit.path, "ExecStart", command)));
        }
    }
    let mut tables = vec!["/etc/crontab".to_owned()];
    for pattern in [
        "/etc/cron.d/*",
        "/var/spool/cron/crontabs/*",
        "/var/spool/cron/*",
        "/etc/cron.hourly/*",
        "/etc/cron.daily/*",
        "/etc/cron.weekly/*",
        "/etc/cron.monthly/*",
    ] {
        tables.extend(guest.files.glob(pattern));
    }
    for path in tables.iter().collect::<BTreeSet<_>>() {
        for (at, line) in guest.files.text(path).unwrap_or_default().lines().enumerate() {
            if !line.trim().starts_with('#') && pipes_download(line) {
                bad.push(Bad::new(
                    format!("{path}:{}", at.saturating_add(1)),
                    Evidence::explicit(&**path, "command", line.trim()).at_line(at.saturating_add(1)),
                ));
            }
        }
    }
    for user in guest.users() {
        for key in user.authorized_keys.iter().filter(|key| {
            key.options.as_deref().is_some_and(|options| {
                options.contains("command=")
                    && (pipes_download(options) || options.contains("bash -i") || options.contains("/dev/tcp"))
            })
        }) {
            bad.push(Bad::new(
                &*key.path,
                Evidence::explicit(&*key.path, "options", key.options.clone().unwrap_or_default()),
            ));
        }
    }
    for line in crate::profile::pam::everywhere(guest.files, "auth") {
        let is_odd = line.module == "pam_exec" || line.module.starts_with('/');
        if is_odd
            && line.module == "pam_exec"
            && line.arguments.iter().any(|word| ODD_PLACES.iter().any(|place| word.starts_with(place)))
        {
            bad.push(Bad::new(format!("{}:{}", line.path, line.line), line.evidence()));
        }
    }
    Outcome::none_of(bad, "something that intruders leave", "nothing that intruders are known to leave", looked_at)
}

/// A download that is run at once.
fn pipes_download(command: &str) -> bool {
    let lower = command.to_ascii_lowercase();
    let downloads = lower.contains("curl ") || lower.contains("wget ");
    let runs = [
        "| sh",
        "|sh",
        "| bash",
        "|bash",
        "| /bin/sh",
        "| /bin/bash",
        "|/bin/sh",
        "|/bin/bash",
        "| python",
        "|python",
        "| perl",
    ];
    (downloads && runs.iter().any(|run| lower.contains(run)))
        || lower.contains("/dev/tcp/")
        || (lower.contains("base64 -d") && runs.iter().any(|run| lower.contains(run)))
}
