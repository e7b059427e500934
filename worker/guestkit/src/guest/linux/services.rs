//! What starts: systemd units, SysV scripts, OpenRC services, and what cron runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::guest::report::{Services, Unit};

use super::cron;
use super::files::Files;
use super::journal::LastBoot;
use super::systemd::Manager;

/// States in which a unit starts by itself.
const STARTS: [&str; 4] = ["enabled", "enabled-runtime", "generated", "transient"];

/// The module. `last_boot` is what the journal tells, and asked only of a system that systemd starts.
pub(crate) fn inspect<'b>(files: &Files<'_>, last_boot: impl FnOnce() -> Option<&'b LastBoot>) -> Services {
    let mut report = Services::default();
    let manager = Manager::read(files);
    if let Some(manager) = &manager {
        report.managers.push("systemd".to_owned());
        report.default_target = manager.default_target();
        let boot = last_boot();
        report.units = manager.units(boot);
        report.state_source = boot.map(|boot| boot.source.clone());
    }
    let openrc = openrc_units(files);
    let scripts = if openrc.is_empty() { sysv_units(files, manager.as_ref()) } else { openrc };
    if let Some(first) = scripts.first() {
        report.managers.push(first.manager.clone());
    }
    if manager.is_none() {
        report.default_target = files.text("/etc/inittab").and_then(|text| inittab_default(&text));
    }
    report.units.extend(scripts);
    report.units.sort_by(|a, b| (&a.name, &a.manager).cmp(&(&b.name, &b.manager)));
    if report.managers.is_empty() {
        files.warn("services", "neither systemd units nor init scripts were found");
    }
    report.cron_jobs = cron::read(files);
    summarise(&mut report);
    report
}

fn summarise(report: &mut Services) {
    let services = || report.units.iter().filter(|unit| unit.kind == "service" && unit.state != "alias");
    let names = |units: Vec<&Unit>| units.into_iter().map(|unit| unit.name.clone()).collect::<Vec<_>>();
    let starting = |kind: &str| {
        let units = report.units.iter().filter(|unit| unit.kind == kind && STARTS.contains(&unit.state.as_str()));
        names(units.collect())
    };
    let count = services().count() as u64;
    let (enabled, timers, sockets) = (starting("service"), starting("timer"), starting("socket"));
    let masked = names(services().filter(|unit| unit.state.starts_with("masked")).collect());
    let left = |state: &str| names(services().filter(|unit| unit.active_state.as_deref() == Some(state)).collect());
    let (active, failed) = (left("active"), left("failed"));
    report.active = active;
    report.failed = failed;
    report.count = count;
    report.enabled = enabled;
    report.enabled_timers = timers;
    report.enabled_sockets = sockets;
    report.masked = masked;
}

/// The run level that `id:N:initdefault:` names.
fn inittab_default(text: &str) -> Option<String> {
    let mut entries = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    entries.find_map(|line| {
        let mut fields = line.split(':');
        let level = fields.nth(1)?;
        (fields.next()? == "initdefault").then(|| level.to_owned())
    })
}

/// Names in /etc/init.d that are no services.
const NO_SERVICES: [&str; 9] =
    ["README", "functions", "functions.sh", "skeleton", "rc", "rcS", "rc.local", "halt", "killall"];

/// Scripts that no unit stands for: on systemd they run through its generator, where start links exist.
/// Source: systemd-sysv-generator(8); Debian policy 9.3; the LSB's init script comments.
fn sysv_units(files: &Files<'_>, manager: Option<&Manager<'_, '_>>) -> Vec<Unit> {
    let directory = ["/etc/init.d", "/etc/rc.d/init.d"].into_iter().find(|path| files.is_dir(path));
    let Some(directory) = directory else { return Vec::new() };
    let levels = start_levels(files);
    let names = files.names(directory).into_iter();
    let scripts = names.filter(|name| !NO_SERVICES.contains(&name.as_str()) && !name.starts_with('.'));
    let scripts = scripts.filter(|name| {
        let unit = format!("{}.service", name.strip_suffix(".sh").unwrap_or(name));
        !manager.is_some_and(|manager| manager.knows(&unit))
    });
    scripts
        .filter_map(|name| {
            let path = format!("{directory}/{name}");
            let text = files.text(&path)?;
            // Scripts begin with an interpreter; anything else in the directory is a library or a left-over.
            if !text.starts_with("#!") {
                return None;
            }
            let wanted_by = levels.get(&name).cloned().unwrap_or_default();
            let state = if wanted_by.is_empty() { "disabled" } else { "enabled" };
            Some(Unit {
                kind: "service".to_owned(),
                manager: "sysv".to_owned(),
                state: state.to_owned(),
                path,
                wanted_by: wanted_by.into_iter().collect(),
                description: header(&text, "Short-Description:"),
                name,
                ..Unit::default()
            })
        })
        .collect()
}

/// The run levels each script is started in, from `rcN.d/SNNname`; `S` is start-up itself.
fn start_levels(files: &Files<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let mut levels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for level in ["2", "3", "4", "5", "S"] {
        for directory in [format!("/etc/rc{level}.d"), format!("/etc/rc.d/rc{level}.d")] {
            for name in files.names(&directory) {
                let Some(script) =
                    name.strip_prefix('S').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()))
                else {
                    continue;
                };
                // A link to nothing starts nothing.
                if !script.is_empty() && files.exists(&format!("{directory}/{name}")) {
                    levels.entry(script.to_owned()).or_default().insert(level.to_owned());
                }
            }
        }
    }
    levels
}

/// A line of the LSB comment block.
fn header(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().take(100).map(|line| line.trim_start_matches('#').trim());
    lines.find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Services of OpenRC: scripts run by `openrc-run`, enabled by links in `/etc/runlevels/LEVEL`.
/// Source: openrc(8), openrc-run(8).
fn openrc_units(files: &Files<'_>) -> Vec<Unit> {
    let levels = files.names("/etc/runlevels");
    if levels.is_empty() {
        return Vec::new();
    }
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for level in levels {
        for name in files.names(&format!("/etc/runlevels/{level}")) {
            if files.exists(&format!("/etc/runlevels/{level}/{name}")) {
                wanted.entry(name).or_default().insert(level.clone());
            }
        }
    }
    let names = files.names("/etc/init.d").into_iter();
    names
        .filter_map(|name| {
            let path = format!("/etc/init.d/{name}");
            let text = files.text(&path)?;
            let first = text.lines().next().unwrap_or_default();
            if !(first.starts_with("#!") && (first.contains("openrc-run") || first.contains("runscript"))) {
                return None;
            }
            let wanted_by: Vec<_> = wanted.get(&name).into_iter().flatten().cloned().collect();
            let description = super::os_release::value_of(&text, "description");
            Some(Unit {
                kind: "service".to_owned(),
                manager: "openrc".to_owned(),
                state: if wanted_by.is_empty() { "disabled" } else { "enabled" }.to_owned(),
                path,
                wanted_by,
                description,
                name,
                ..Unit::default()
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    #[test]
    fn openrc_services_are_enabled_by_run_levels() {
        let fixture = Fixture::new();
        fixture.file("etc/init.d/sshd", "#!/sbin/openrc-run\ndescription=\"OpenBSD Secure Shell server\"\n");
        fixture.file("etc/init.d/crond", "#!/sbin/openrc-run\n");
        fixture.file("etc/init.d/functions.sh", "# library\n");
        fixture.link("etc/runlevels/default/sshd", "/etc/init.d/sshd");
        fixture.link("etc/runlevels/default/absent", "/etc/init.d/absent");
        let tree = fixture.tree();
        let report = inspect(&Files::new(&tree), || None);
        assert_eq!(report.managers, ["openrc"]);
        assert_eq!(report.enabled, ["sshd"]);
        assert_eq!(report.count, 2);
        assert_eq!(report.units[1].description.as_deref(), Some("OpenBSD Secure Shell server"));
    }

    #[test]
    fn sysv_scripts_are_enabled_by_start_links_that_lead_somewhere() {
        let fixture = Fixture::new();
        fixture.file("etc/init.d/xinetd", "#!/bin/sh\n### BEGIN INIT INFO\n# Short-Description: super server\n");
        fixture.file("etc/init.d/other", "#!/bin/sh\n");
        fixture.link("etc/rc2.d/S01xinetd", "../init.d/xinetd");
        fixture.link("etc/rc3.d/S01gone", "../init.d/gone");
        fixture.link("etc/rc6.d/K01other", "../init.d/other");
        fixture.file("etc/inittab", "# x\nid:2:initdefault:\n");
        let tree = fixture.tree();
        let report = inspect(&Files::new(&tree), || None);
        assert_eq!(report.enabled, ["xinetd"]);
        assert_eq!(report.units[0].state, "disabled");
        assert_eq!(report.units[1].wanted_by, ["2"]);
        assert_eq!(report.default_target.as_deref(), Some("2"));
    }
}
