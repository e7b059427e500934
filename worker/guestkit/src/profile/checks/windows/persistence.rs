//! What starts by itself, and what stands in another program's place. Source: MITRE ATT&CK T1546, T1547 for which keys matter.

use crate::guest::windows::profiles;
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::registry;
use crate::profile::release::{build, release};
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;

use super::{hive_path, known, value};

const NT: &str = "Microsoft\\Windows NT\\CurrentVersion";
/// Programs that the logon screen starts for anybody.
const AT_LOGON: [&str; 7] =
    ["sethc.exe", "utilman.exe", "osk.exe", "magnify.exe", "narrator.exe", "displayswitch.exe", "atbroker.exe"];
/// Values of Run keys that Windows and the tools of hypervisors write.
const KNOWN_STARTS: [&str; 14] = [
    "securityhealth",
    "windows defender",
    "onedrive",
    "onedrivesetup",
    "vmware user process",
    "vmware tools",
    "vboxtray",
    "spice agent",
    "rtkaudbgsvc",
    "microsoftedgeautolaunch",
    "ctfmon",
    "ctfmon.exe",
    "userinit",
    "internat.exe",
];
/// Packages that the security authority loads by default.
const PACKAGES: [(&str, &[&str]); 3] = [
    ("Authentication Packages", &["msv1_0"]),
    (
        "Security Packages",
        &["", "\"\"", "kerberos", "msv1_0", "schannel", "wdigest", "tspkg", "pku2u", "livessp", "cloudap", "negoexts"],
    ),
    ("Notification Packages", &["scecli", "rassfm", "fpnwclnt", "kdcsvc", "clipcsp"]),
];
/// Words of commands that no honest autostart has.
const SUSPICIOUS: [&str; 16] = [
    "\\temp\\",
    "\\users\\public\\",
    "\\appdata\\local\\temp",
    "\\$recycle.bin\\",
    "\\perflogs\\",
    "-enc ",
    "-encodedcommand",
    "frombase64string",
    "downloadstring",
    "mshta",
    "javascript:",
    "vbscript:",
    "scrobj.dll",
    "bitsadmin",
    "certutil",
    "http://",
];
/// Programs whose hijacks are looked for.
const PROGRAMS_MAX: usize = 10_000;

/// What was found, and what of it is worst.
#[derive(Default)]
struct Search {
    bad: Vec<Bad>,
    odd: Vec<Bad>,
    looked_at: Vec<Evidence>,
    is_critical: bool,
}

/// Only what Windows itself starts, nothing in another program's place.
pub(in crate::profile) fn entries(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let mut search = Search::default();
    let searched = hijacks(guest, &mut search)
        .and_then(|()| logon(guest, &mut search))
        .and_then(|()| libraries(guest, &mut search))
        .and_then(|()| packages(guest, &mut search, release.build >= build::VISTA));
    known!(searched);
    starts(guest, &mut search);
    let Search { bad, odd, looked_at, is_critical } = search;
    if bad.is_empty() {
        let clean = "only what Windows brings starts by itself, as far as the registry and the tasks tell";
        return Outcome::none_of(odd, "programs that start by themselves", clean, looked_at).softened_to_low();
    }
    let outcome = Outcome::none_of(bad, "programs in another's place, or hidden autostarts", "", looked_at);
    if is_critical { outcome.with_severity(Severity::Critical) } else { outcome }
}

impl Outcome {
    /// Unknown programs are worth a look, and most are honest.
    fn softened_to_low(self) -> Self {
        if self.status == crate::profile::outcome::Status::Fail {
            return self.softened().with_severity(Severity::Low);
        }
        self
    }
}

/// Debuggers that are started instead of a program, and monitors of its end.
fn hijacks(guest: &Guest<'_>, search: &mut Search) -> Result<(), Outcome> {
    for root in [NT, "WOW6432Node\\Microsoft\\Windows NT\\CurrentVersion"] {
        let path = format!("{root}\\Image File Execution Options");
        let (hive, full) = registry::hive(guest, "software", &path)?;
        let programs = hive.key(&full).map(|key| key.keys()).unwrap_or_default();
        for key in programs.iter().take(PROGRAMS_MAX) {
            let Some(debugger) = key.text("Debugger") else { continue };
            let name = key.name().to_owned();
            search.is_critical |= AT_LOGON.iter().any(|program| program.eq_ignore_ascii_case(&name));
            let evidence = Evidence::explicit(hive.path(), format!("{full}\\{name}\\Debugger"), debugger);
            search.bad.push(Bad::new(name, evidence));
        }
        search.looked_at.push(Evidence::explicit(hive.path(), full, format!("{} programs", programs.len())));
        let path = format!("{root}\\SilentProcessExit");
        for key in hive.key(&path).map(|key| key.keys()).unwrap_or_default() {
            let Some(monitor) = key.text("MonitorProcess") else { continue };
            let evidence = Evidence::explicit(hive.path(), format!("{path}\\{}\\MonitorProcess", key.name()), monitor);
            search.bad.push(Bad::new(key.name(), evidence));
        }
    }
    Ok(())
}

/// The shell and what prepares a session.
fn logon(guest: &Guest<'_>, search: &mut Search) -> Result<(), Outcome> {
    let is_default = |name: &str, text: &str| {
        let words = text
            .split(',')
            .map(|word| word.trim().trim_matches('"').to_ascii_lowercase())
            .filter(|word| !word.is_empty());
        let mut last = words.map(|word| word.rsplit('\\').next().unwrap_or_default().to_owned());
        match name {
            "Shell" => last.all(|word| word == "explorer.exe" || word == "cmd.exe /c" || word == "sconfig.cmd"),
            "Userinit" => last.all(|word| word == "userinit.exe"),
            _ => text.is_empty(),
        }
    };
    for name in ["Shell", "Userinit", "Taskman"] {
        let found = value(guest, &format!("software:{NT}\\Winlogon:{name}"))?;
        match found.text() {
            Some(text) if !is_default(name, text) => {
                search.bad.push(Bad::new(format!("Winlogon {name}"), found.evidence));
            }
            _ => search.looked_at.push(found.evidence),
        }
    }
    Ok(())
}

/// Libraries that every program loads.
fn libraries(guest: &Guest<'_>, search: &mut Search) -> Result<(), Outcome> {
    for root in [NT, "WOW6432Node\\Microsoft\\Windows NT\\CurrentVersion"] {
        let names = value(guest, &format!("software:{root}\\Windows:AppInit_DLLs"))?;
        let loads = value(guest, &format!("software:{root}\\Windows:LoadAppInit_DLLs"))?;
        if names.text().is_some_and(|text| !text.is_empty()) && loads.number().unwrap_or(0) != 0 {
            search.bad.push(Bad::new("AppInit_DLLs", names.evidence));
        } else {
            search.looked_at.push(names.evidence);
        }
    }
    let path = "Control\\Session Manager\\AppCertDlls";
    let (hive, full) = registry::hive(guest, "system", path)?;
    let Some(key) = hive.key(&full) else {
        search.looked_at.push(Evidence::absent(hive.path(), full));
        return Ok(());
    };
    for value in key.values() {
        let library = key.text_of(&value).unwrap_or_default();
        search.bad.push(Bad::new(
            "AppCertDlls",
            Evidence::explicit(hive.path(), format!("{full}\\{}", value.name()), library),
        ));
    }
    Ok(())
}

/// Packages of the security authority.
fn packages(guest: &Guest<'_>, search: &mut Search, is_new: bool) -> Result<(), Outcome> {
    for (name, known) in PACKAGES {
        let found = value(guest, &format!("system:Control\\Lsa:{name}"))?;
        let others: Vec<String> = found
            .texts()
            .into_iter()
            .map(str::to_ascii_lowercase)
            .filter(|text| !known.contains(&text.as_str()))
            .collect();
        if others.is_empty() {
            search.looked_at.push(found.evidence);
        } else if is_new {
            search.bad.push(Bad::new(format!("{name} {}", others.join(", ")), found.evidence));
        } else {
            search.odd.push(Bad::new(format!("{name} {}", others.join(", ")), found.evidence));
        }
    }
    Ok(())
}

fn is_suspicious(command: &str) -> bool {
    let lower = command.to_ascii_lowercase();
    SUSPICIOUS.iter().any(|word| lower.contains(word))
}

/// Run keys of the machine and of people, and scheduled tasks.
fn starts(guest: &Guest<'_>, search: &mut Search) {
    let Some(services) = guest.services() else { return };
    for start in services.startup_commands.iter().filter(|start| start.source.to_ascii_lowercase().contains("\\run")) {
        let path = match &start.user {
            Some(user) => format!("/Users/{user}/NTUSER.DAT"),
            None => hive_path(guest, "SOFTWARE"),
        };
        let evidence = Evidence::explicit(path, format!("{}\\{}", start.source, start.name), &*start.command);
        let name = start.name.to_ascii_lowercase();
        if is_suspicious(&start.command) {
            search.bad.push(Bad::new(&*start.name, evidence));
        } else if KNOWN_STARTS.iter().any(|known| name.starts_with(known)) {
            search.looked_at.push(evidence);
        } else {
            search.odd.push(Bad::new(&*start.name, evidence));
        }
    }
    for task in services.scheduled_tasks.iter().filter(|task| task.enabled != Some(false)) {
        if let Some(command) = task.commands.iter().find(|command| is_suspicious(command)) {
            search.bad.push(Bad::new(&*task.path, Evidence::explicit(&*task.source, "Exec", command)));
        }
    }
    // The people whose Run keys were looked at.
    let people = guest.hives.map(profiles::all).unwrap_or_default();
    search.looked_at.extend(
        people.iter().take(20).map(|profile| {
            Evidence::explicit(format!("{}\\NTUSER.DAT", profile.path), "Software\\…\\Run", "looked at")
        }),
    );
}
