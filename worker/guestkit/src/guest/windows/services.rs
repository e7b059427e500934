//! Services and drivers, scheduled tasks, and commands that run at a start or logon. Sources: Microsoft's documentation of
//! `CreateService` (types and starts) and of the keys named here.

use crate::guest::linux::files::Files;
use crate::guest::report::{Services, StartupCommand, Unit};

use super::hives::{Hives, Node};
use super::{profiles, tasks};

/// Bits of `Type`.
const DRIVER: u64 = 0x0b;
const SERVICE: u64 = 0x30;

/// The module.
pub(crate) fn inspect(files: &Files<'_>, hives: &Hives<'_>, system_root: &str) -> Services {
    let mut report = units(hives);
    report.scheduled_tasks = tasks::inspect(files, hives, system_root);
    report.startup_commands = startup_commands(files, hives);
    report
}

/// Services and drivers alone.
pub(crate) fn units(hives: &Hives<'_>) -> Services {
    let mut report = Services::default();
    let Some(all) = hives.control_key("Services") else { return report };
    report.managers.push("windows".to_owned());
    report.units = all.keys().iter().filter_map(unit).collect();
    report.units.sort_by_key(|unit| unit.name.to_lowercase());
    let services = || report.units.iter().filter(|unit| unit.kind == "service");
    let enabled = services().filter(|unit| unit.state == "enabled").map(|unit| unit.name.clone()).collect();
    report.count = services().count() as u64;
    report.enabled = enabled;
    report
}

/// When the service of `key` starts; `None` where the key is of no service.
pub(crate) fn start_type(key: &Node<'_>) -> Option<&'static str> {
    Some(match key.number("Start")? {
        0 => "boot",
        1 => "system",
        2 if key.flag("DelayedAutostart") == Some(true) => "automatic-delayed",
        2 => "automatic",
        3 => "manual",
        4 => "disabled",
        _ => return None,
    })
}

fn unit(key: &Node<'_>) -> Option<Unit> {
    let bits = key.number("Type")?;
    let kind = match bits {
        _ if bits & SERVICE != 0 => "service",
        _ if bits & DRIVER != 0 => "driver",
        _ => return None,
    };
    let start_type = start_type(key)?;
    let state = match start_type {
        "manual" => "manual",
        "disabled" => "disabled",
        _ => "enabled",
    };
    // Names of texts in libraries (`@%SystemRoot%\…,-100`) say nothing to people.
    let plain = |name: &str| key.text(name).filter(|text| !text.starts_with('@'));
    let library = key.key("Parameters").and_then(|key| key.text("ServiceDll")).or_else(|| key.text("ServiceDll"));
    let dependencies = key.texts("DependOnService");
    let is_triggered = key.key("TriggerInfo").is_some();
    Some(Unit {
        name: key.name().to_owned(),
        kind: kind.to_owned(),
        manager: "windows".to_owned(),
        state: state.to_owned(),
        path: key.path(),
        description: plain("Description"),
        exec_start: key.text("ImagePath"),
        user: key.text("ObjectName").filter(|_| kind == "service"),
        triggers: is_triggered.then(|| "TriggerInfo".to_owned()).into_iter().collect(),
        start_type: Some(start_type.to_owned()),
        display_name: plain("DisplayName"),
        library,
        depends_on: dependencies,
        ..Unit::default()
    })
}

/// Keys below `SOFTWARE` and `Software` of a user whose values are commands.
const RUN_KEYS: [&str; 5] = [
    "Microsoft\\Windows\\CurrentVersion\\Run",
    "Microsoft\\Windows\\CurrentVersion\\RunOnce",
    "Microsoft\\Windows\\CurrentVersion\\RunServices",
    "Microsoft\\Windows\\CurrentVersion\\Policies\\Explorer\\Run",
    "WOW6432Node\\Microsoft\\Windows\\CurrentVersion\\Run",
];
const RUN_ONCE_32: &str = "WOW6432Node\\Microsoft\\Windows\\CurrentVersion\\RunOnce";
const WINLOGON: &str = "Microsoft\\Windows NT\\CurrentVersion\\Winlogon";

fn startup_commands(files: &Files<'_>, hives: &Hives<'_>) -> Vec<StartupCommand> {
    let mut commands = Vec::new();
    let run_keys = || RUN_KEYS.into_iter().chain([RUN_ONCE_32]);
    for path in run_keys() {
        commands.extend(hives.software_key(path).iter().flat_map(|key| commands_of(key, None)));
    }
    if let Some(key) = hives.software_key(WINLOGON) {
        for name in ["Shell", "Userinit", "Taskman"] {
            let command = |command| StartupCommand { name: name.to_owned(), command, source: key.path(), user: None };
            commands.extend(key.text(name).map(command));
        }
    }
    if let Some(key) = hives.control_key("Control\\Session Manager") {
        let command = |command| {
            let name = "BootExecute".to_owned();
            StartupCommand { name, command, source: key.path(), user: None }
        };
        commands.extend(key.texts("BootExecute").into_iter().map(command));
    }
    for profile in profiles::with_hives(files, hives) {
        for path in run_keys() {
            let key = profile.hive.key(&format!("Software\\{path}"));
            commands.extend(key.iter().flat_map(|key| commands_of(key, Some(&profile.user))));
        }
        profile.hive.report_problems();
    }
    commands
}

fn commands_of(key: &Node<'_>, user: Option<&str>) -> Vec<StartupCommand> {
    let command = |value: &crate::guest::registry::Value<'_>| {
        let command = key.text_of(value).filter(|command| !command.is_empty())?;
        let name = value.name().to_owned();
        Some(StartupCommand { name, command, source: key.path(), user: user.map(str::to_owned) })
    };
    key.values().iter().filter_map(command).collect()
}
