//! Services: which start, and what can be put in the place of their programs.

use std::collections::HashSet;

use crate::guest::report::Unit;
use crate::guest::windows::profiles::{self, guest_path};
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;

use super::{all_services, hive_path, is_automatic, known, number, start_of};

/// Services that few machines need.
const UNNEEDED: [&str; 12] = [
    "RemoteRegistry",
    "TlntSvr",
    "SNMP",
    "FTPSVC",
    "MSFTPSVC",
    "W3SVC",
    "SSDPSRV",
    "upnphost",
    "XblAuthManager",
    "WMSVC",
    "simptcp",
    "RasMan",
];

/// The path of a program that a command begins with, with Windows' own variables resolved.
fn expanded(command: &str) -> String {
    const VARIABLES: [(&str, &str); 8] = [
        ("%systemroot%", "C:\\Windows"),
        ("%windir%", "C:\\Windows"),
        ("%systemdrive%", "C:"),
        ("%programfiles(x86)%", "C:\\Program Files (x86)"),
        ("%programfiles%", "C:\\Program Files"),
        ("%commonprogramfiles%", "C:\\Program Files\\Common Files"),
        ("%programdata%", "C:\\ProgramData"),
        ("\\systemroot\\", "C:\\Windows\\"),
    ];
    let plain = command.trim().trim_start_matches("\\??\\");
    let (quote, plain) = plain.strip_prefix('"').map_or(("", plain), |rest| ("\"", rest));
    let lower = plain.to_ascii_lowercase();
    let known = VARIABLES
        .iter()
        .find_map(|(name, path)| Some((path, lower.starts_with(name).then(|| plain.get(name.len()..))??)));
    match known {
        Some((path, rest)) => format!("{quote}{path}{rest}"),
        None if lower.starts_with("system32\\") => format!("{quote}C:\\Windows\\{plain}"),
        None => format!("{quote}{plain}"),
    }
}

/// The program of a command: what is quoted, else what ends in `.exe` or another program's suffix, else its first word.
pub(super) fn program(command: &str) -> String {
    let command = expanded(command);
    if let Some(quoted) = command.strip_prefix('"') {
        return quoted.split('"').next().unwrap_or_default().to_owned();
    }
    let lower = command.to_ascii_lowercase();
    let end = [".exe", ".sys", ".dll", ".bat", ".cmd", ".ps1", ".vbs"]
        .iter()
        .filter_map(|suffix| Some(lower.find(suffix)? + suffix.len()))
        .min();
    let plain = end.and_then(|end| command.get(..end)).or_else(|| command.split(' ').next());
    plain.unwrap_or_default().to_owned()
}

/// Whether Windows tries other programs first: a space within a path that is not quoted.
fn is_unquoted(guest: &Guest<'_>, command: &str) -> bool {
    let command = expanded(command);
    let path = program(&command);
    if command.starts_with('"') || !path.contains(' ') {
        return false;
    }
    // `C:\Windows\system32\cmd /c "…"`: the first word is the program.
    let first = path.split(' ').next().unwrap_or_default();
    let is_program = |path: &str| {
        guest_path(path).is_some_and(|path| {
            guest.files.stat(&path).is_some_and(|metadata| metadata.file_type == crate::filesystem::FileType::Regular)
        })
    };
    let is_argument = is_program(first) || is_program(&format!("{first}.exe"));
    !is_argument && path.to_ascii_lowercase().ends_with(".exe")
}

/// Paths of services whose spaces let another program start in their place.
pub(in crate::profile) fn unquoted(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let services = known!(all_services(guest));
    let services = services.iter().filter(|unit| unit.kind == "service");
    let (mut bad, mut count) = (Vec::new(), 0_u32);
    for unit in services {
        let Some(command) = &unit.exec_start else { continue };
        count = count.saturating_add(1);
        if is_unquoted(guest, command) {
            let evidence = Evidence::explicit(hive_path(guest, "SYSTEM"), format!("{}\\ImagePath", unit.path), command);
            bad.push(Bad::new(&*unit.name, evidence));
        }
    }
    let looked_at =
        Evidence::explicit(hive_path(guest, "SYSTEM"), "Services\\*\\ImagePath", format!("{count} commands"));
    Outcome::none_of(
        bad,
        "services whose path has spaces and no quotes",
        "paths with spaces are quoted",
        vec![looked_at],
    )
}

/// Services of others than Microsoft that start by themselves: their programs lie outside of Windows' folder.
fn is_third_party(unit: &Unit) -> bool {
    let program = unit.exec_start.as_deref().map(program).unwrap_or_default().to_ascii_lowercase();
    let own = ["c:\\windows\\", "c:\\program files\\windows defender", "c:\\programdata\\microsoft\\"];
    unit.kind == "service"
        && is_automatic(unit)
        && !program.is_empty()
        && !own.iter().any(|own| program.starts_with(own))
}

/// Services that few machines need do not start by themselves; those of other makers that do are listed.
pub(in crate::profile) fn unneeded(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let services = known!(all_services(guest));
    let is_named = |unit: &&Unit| UNNEEDED.iter().any(|name| name.eq_ignore_ascii_case(&unit.name));
    let bad: Vec<_> = services
        .iter()
        .filter(is_named)
        .filter(|unit| is_automatic(unit))
        .map(|unit| Bad::new(&*unit.name, start_of(guest, unit)))
        .collect();
    let mut looked_at: Vec<_> = services.iter().filter(is_named).map(|unit| start_of(guest, unit)).collect();
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent(hive_path(guest, "SYSTEM"), format!("Services\\{{{}}}", UNNEEDED.join(","))));
    }
    looked_at.extend(services.iter().filter(|unit| is_third_party(unit)).map(|unit| start_of(guest, unit)));
    Outcome::none_of(
        bad,
        "services that few machines need start by themselves",
        "no such service starts by itself",
        looked_at,
    )
}

/// Packages are not installed with the system's rights for anybody: that takes the machine's value and the user's.
pub(in crate::profile) fn elevated_installs(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let name = "AlwaysInstallElevated";
    let (machine, evidence) =
        known!(number(guest, &format!("software:Policies\\Microsoft\\Windows\\Installer:{name}"), 0));
    let mut evidence = vec![evidence];
    let mut users = Vec::new();
    let people = guest.hives.map(|hives| profiles::with_hives(guest.files, hives)).unwrap_or_default();
    for person in people {
        let key = person.hive.key("Software\\Policies\\Microsoft\\Windows\\Installer");
        let is_set = key.and_then(|key| key.number(name)) == Some(1);
        let at = format!("Software\\Policies\\Microsoft\\Windows\\Installer\\{name}");
        evidence.push(if is_set {
            Evidence::explicit(person.hive.path(), at, "1")
        } else {
            Evidence::absent(person.hive.path(), at)
        });
        if is_set {
            users.push(person.user);
        }
    }
    match (machine == 1, users.is_empty()) {
        (true, false) => {
            let reason = format!("anybody of {} installs packages with the system's rights", users.join(", "));
            Outcome::fail(reason, evidence).with_subjects(users)
        }
        (true, true) => Outcome::fail("the machine lets packages be installed with the system's rights", evidence)
            .with_severity(Severity::Medium),
        (false, _) => Outcome::pass("packages are not installed with the system's rights", evidence),
    }
}

/// Programs whose descriptors are looked at.
const PROGRAMS_MAX: usize = 2_000;
/// Rights by which a file can be replaced: to write or append data, the list of rights or the owner, and all of them. In a
/// folder: to add files and delete what others have, not to add folders. Source: [MS-DTYP], section 2.4.3.
const OF_FILE: u32 = 0x0000_0002 | 0x0000_0004 | CONTROL;
const OF_FOLDER: u32 = 0x0000_0002 | 0x0000_0040 | CONTROL;
const CONTROL: u32 = 0x0004_0000 | 0x0008_0000 | 0x1000_0000 | 0x4000_0000;
/// The entry grants, and it holds for the object itself.
const ALLOWED: u8 = 0;
const DENIED: u8 = 1;
const INHERIT_ONLY: u8 = 0x08;

/// Whom everybody belongs to: Everyone, Authenticated Users, INTERACTIVE, Users, Guests.
const EVERYBODY: [(&str, &str); 5] = [
    ("S-1-1-0", "Everyone"),
    ("S-1-5-11", "Authenticated Users"),
    ("S-1-5-4", "INTERACTIVE"),
    ("S-1-5-32-545", "Users"),
    ("S-1-5-32-546", "Guests"),
];

/// Who of everybody may replace the object of this descriptor; `None` where it is cut off. A descriptor without a list lets
/// everybody do everything. Source: [MS-DTYP], sections 2.4.4 to 2.4.6.
fn writers(descriptor: &[u8], rights: u32) -> Option<Vec<&'static str>> {
    use crate::bytes::{le_u16, le_u32};
    use crate::guest::windows::sid::Sid;
    const HAS_LIST: u16 = 0x0004;
    let list_at = usize::try_from(le_u32(descriptor, 16)?).ok()?;
    if le_u16(descriptor, 2)? & HAS_LIST == 0 || list_at == 0 {
        return Some(vec!["Everyone"]);
    }
    let list = descriptor.get(list_at..)?;
    let count = le_u16(list, 4)?;
    let mut at = 8_usize;
    let (mut found, mut denied) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let entry = list.get(at..)?;
        let (kind, flags, size) = (*entry.first()?, *entry.get(1)?, usize::from(le_u16(entry, 2)?));
        let mask = le_u32(entry, 4)?;
        let sid = Sid::parse(entry.get(8..)?).map(|sid| sid.to_string()).unwrap_or_default();
        if flags & INHERIT_ONLY == 0
            && mask & rights != 0
            && let Some((_, name)) = EVERYBODY.iter().find(|(known, _)| *known == sid)
        {
            match kind {
                DENIED => denied.push(*name),
                ALLOWED if !denied.contains(name) => found.push(*name),
                _ => {}
            }
        }
        at = at.checked_add(size.max(8))?;
    }
    found.dedup();
    Some(found)
}

/// Programs that start by themselves, by the path in the guest's tree, with what starts them.
fn programs(guest: &Guest<'_>) -> Vec<(String, String)> {
    let services = guest.services();
    let units = services.map(|services| services.units.as_slice()).unwrap_or_default().iter();
    let units = units
        .filter(|unit| unit.state != "disabled")
        .filter_map(|unit| Some((unit.exec_start.as_deref()?, format!("service {}", unit.name))));
    let libraries = services.map(|services| services.units.as_slice()).unwrap_or_default().iter();
    let libraries = libraries.filter_map(|unit| Some((unit.library.as_deref()?, format!("service {}", unit.name))));
    let starts = services.map(|services| services.startup_commands.as_slice()).unwrap_or_default().iter();
    let starts = starts.map(|start| (start.command.as_str(), format!("{}\\{}", start.source, start.name)));
    let tasks = services.map(|services| services.scheduled_tasks.as_slice()).unwrap_or_default().iter();
    let tasks = tasks
        .filter(|task| task.enabled != Some(false))
        .flat_map(|task| task.commands.iter().map(move |command| (command.as_str(), format!("task {}", task.path))));
    let all = units.chain(libraries).chain(starts).chain(tasks);
    let found = all.filter_map(|(command, who)| Some((guest_path(&program(command))?, who)));
    let mut found: Vec<_> = found.collect();
    found.sort();
    found.dedup_by(|one, other| one.0.eq_ignore_ascii_case(&other.0));
    found.truncate(PROGRAMS_MAX);
    found
}

/// Nobody but administrators may replace a program that starts by itself, or put another into its folder.
pub(in crate::profile) fn writable_programs(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    known!(all_services(guest));
    let descriptor = |path: &str| guest.root.tree.security_descriptor(path).ok().flatten();
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for (path, who) in programs(guest) {
        let folder = path.rsplit_once('/').map(|(folder, _)| folder).filter(|folder| !folder.is_empty());
        for (place, rights) in [(Some(path.as_str()), OF_FILE), (folder, OF_FOLDER)] {
            let Some(place) = place.filter(|place| seen.insert(place.to_lowercase())) else { continue };
            let found = descriptor(place);
            let Some(writers) = found.as_deref().and_then(|found| writers(found, rights)) else { continue };
            let told = if writers.is_empty() { "administrators alone".to_owned() } else { writers.join(", ") };
            let evidence = Evidence::metadata(place, format!("may write ({who})"), told);
            if writers.is_empty() {
                looked_at.push(evidence);
            } else {
                bad.push(Bad::new(place, evidence));
            }
        }
    }
    if bad.is_empty() && looked_at.is_empty() {
        return Outcome::unknown("no security descriptor of a program that starts by itself can be read");
    }
    Outcome::none_of(
        bad,
        "everybody may replace programs that start by themselves",
        "administrators alone may replace them",
        looked_at,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_commands_are_found() {
        for (command, wanted) in [
            ("%SystemRoot%\\system32\\svchost.exe -k netsvcs -p", "C:\\Windows\\system32\\svchost.exe"),
            ("\\SystemRoot\\System32\\drivers\\a.sys", "C:\\Windows\\System32\\drivers\\a.sys"),
            ("System32\\drivers\\a.sys", "C:\\Windows\\System32\\drivers\\a.sys"),
            ("\"C:\\Program Files\\a b\\c.exe\" -x", "C:\\Program Files\\a b\\c.exe"),
            ("C:\\Program Files\\a\\c.exe -x", "C:\\Program Files\\a\\c.exe"),
            ("%ProgramFiles%\\a\\c.exe", "C:\\Program Files\\a\\c.exe"),
            ("\\??\\C:\\a\\b.sys", "C:\\a\\b.sys"),
            ("explorer", "explorer"),
            ("", ""),
        ] {
            assert_eq!(program(command), wanted);
        }
    }

    #[test]
    fn descriptors_that_are_cut_off_tell_nothing() {
        // One entry: Users may modify.
        let mut descriptor = vec![1, 0, 4, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0];
        descriptor.extend([2, 0, 32, 0, 1, 0, 0, 0]);
        descriptor.extend([0, 3, 24, 0, 0xbf, 1, 0x13, 0, 1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x21, 2, 0, 0]);
        assert_eq!(writers(&descriptor, OF_FILE), Some(vec!["Users"]));
        for length in 0..descriptor.len() {
            assert_ne!(writers(&descriptor[..length], OF_FILE), Some(vec!["Users"]), "{length}");
        }
        let mut read_only = descriptor.clone();
        read_only[32..36].copy_from_slice(&0x0012_00a9_u32.to_le_bytes());
        assert_eq!(writers(&read_only, OF_FILE), Some(vec![]));
    }
}
