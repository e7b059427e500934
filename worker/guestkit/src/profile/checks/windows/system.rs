//! The system as a whole: updates, virus scanner, what is audited and logged, rights, encryption, time.

use crate::bytes::{le_u32, slice};
use crate::guest::windows::sid::Sid;
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::registry;
use crate::profile::release::{Release, release};
use crate::profile::report::Evidence;
use crate::volume::bitlocker;

use super::{Holds, Setting, hive_path, known, number, service, settings, start_of, value};

/// Services of other virus scanners, by how their names begin.
const SCANNERS: [(&str, &str); 22] = [
    ("avast", "Avast"),
    ("avg", "AVG"),
    ("avp", "Kaspersky"),
    ("klnagent", "Kaspersky"),
    ("bdredline", "Bitdefender"),
    ("epsecurityservice", "Bitdefender"),
    ("csfalconservice", "CrowdStrike"),
    ("cylancesvc", "Cylance"),
    ("cyserver", "Cortex XDR"),
    ("ekrn", "ESET"),
    ("fsma", "F-Secure"),
    ("fshoster", "F-Secure"),
    ("mbamservice", "Malwarebytes"),
    ("mcshield", "McAfee"),
    ("mfemms", "McAfee"),
    ("ntrtscan", "Trend Micro"),
    ("tmlisten", "Trend Micro"),
    ("ds_agent", "Trend Micro"),
    ("savservice", "Sophos"),
    ("sophos", "Sophos"),
    ("sentinelagent", "SentinelOne"),
    ("sepmasterservice", "Symantec"),
];
const CENTER: &str = "Microsoft\\Security Center\\Provider\\Av";

/// Virus scanners beside Defender: those that told the security center, and those whose service starts.
pub(super) fn scanners(guest: &Guest<'_>) -> Vec<(String, Evidence)> {
    let mut found: Vec<(String, Evidence)> = Vec::new();
    if let Ok((hive, path)) = registry::hive(guest, "software", CENTER) {
        for key in hive.key(&path).map(|key| key.keys()).unwrap_or_default() {
            let Some(name) = key.text("DISPLAYNAME") else { continue };
            if !name.to_lowercase().contains("defender") {
                found.push((name.clone(), Evidence::explicit(hive.path(), format!("{path}\\{}", key.name()), name)));
            }
        }
    }
    let units = guest.services().map(|services| services.units.as_slice()).unwrap_or_default();
    for unit in units.iter().filter(|unit| unit.kind == "service" && unit.state == "enabled") {
        let name = unit.name.to_ascii_lowercase();
        if let Some((_, product)) = SCANNERS.iter().find(|(prefix, _)| name.starts_with(prefix))
            && !found.iter().any(|(known, _)| known.contains(product))
        {
            found.push(((*product).to_owned(), start_of(guest, unit)));
        }
    }
    found
}

/// Defender starts and is not switched off, or another scanner is there. What Defender does not look at is told; a whole drive
/// is as good as off.
pub(in crate::profile) fn defender(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    known!(super::all_services(guest));
    let others = scanners(guest);
    if !others.is_empty() {
        let names: Vec<String> = others.iter().map(|(name, _)| name.clone()).collect();
        let evidence = others.into_iter().map(|(_, evidence)| evidence).collect();
        return Outcome::pass(format!("another virus scanner is installed: {}", names.join(", ")), evidence);
    }
    let Some(unit) = service(guest, "WinDefend") else {
        let absent = Evidence::absent(hive_path(guest, "SYSTEM"), "Services\\WinDefend");
        return Outcome::fail("neither Defender nor a virus scanner that is known here is installed", vec![absent]);
    };
    let (policy, local) = ("Policies\\Microsoft\\Windows Defender", "Microsoft\\Windows Defender");
    let mut evidence = vec![start_of(guest, unit)];
    let mut flaws = Vec::new();
    if !unit.start_type.as_deref().is_some_and(|start| start.starts_with("automatic")) {
        flaws.push("its service does not start".to_owned());
    }
    for (below, name) in [
        ("", "DisableAntiSpyware"),
        ("", "DisableAntiVirus"),
        ("\\Real-Time Protection", "DisableRealtimeMonitoring"),
        ("\\Real-Time Protection", "DisableBehaviorMonitoring"),
    ] {
        let (number, found) =
            known!(number(guest, &format!("software:{policy}{below}:{name}|software:{local}{below}:{name}"), 0));
        evidence.push(found);
        if number != 0 {
            flaws.push(format!("{name} is {number}"));
        }
    }
    let security = guest.system.security.as_ref().and_then(|security| security.windows.as_ref());
    let exclusions =
        security.and_then(|windows| windows.defender.as_ref()).map(|defender| defender.exclusions.as_slice());
    let exclusions = exclusions.unwrap_or_default();
    let at = hive_path(guest, "SOFTWARE");
    evidence.extend(exclusions.iter().map(|path| Evidence::explicit(&*at, format!("{local}\\Exclusions"), path)));
    if !flaws.is_empty() {
        return Outcome::fail(format!("Defender is switched off: {}", flaws.join("; ")), evidence);
    }
    let is_drive = |path: &&String| path.trim_end_matches(['\\', '*']).len() == 2 && path.contains(':');
    let drives: Vec<_> = exclusions.iter().filter(is_drive).cloned().collect();
    if !drives.is_empty() {
        return Outcome::warn(format!("Defender does not look at {}", drives.join(", ")), evidence)
            .with_subjects(drives);
    }
    let told = if exclusions.is_empty() { String::new() } else { format!(", but for {} exclusions", exclusions.len()) };
    Outcome::pass(format!("Defender watches{told}"), evidence).with_subjects(exclusions.iter().cloned())
}

/// Updates are looked for.
pub(in crate::profile) fn updates(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let policy = "Policies\\Microsoft\\Windows\\WindowsUpdate\\AU";
    let (never, never_evidence) = known!(number(guest, &format!("software:{policy}:NoAutoUpdate"), 0));
    let local = "Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update";
    let options = format!("software:{policy}:AUOptions|software:{local}:AUOptions");
    let (options, options_evidence) = known!(number(guest, &options, 4));
    let start = known!(value(guest, "system:Services\\wuauserv:Start"));
    let mut flaws = Vec::new();
    if never != 0 {
        flaws.push("a policy forbids automatic updates");
    }
    if options == 1 {
        flaws.push("updates are never looked for (AUOptions 1)");
    }
    match start.number() {
        Some(4) => flaws.push("the service wuauserv is disabled"),
        None => flaws.push("the service wuauserv is not there"),
        Some(_) => {}
    }
    let evidence = vec![never_evidence, options_evidence, start.evidence];
    if flaws.is_empty() {
        return Outcome::pass("updates are looked for", evidence);
    }
    Outcome::fail(flaws.join("; "), evidence)
}

/// Days from 1970-01-01 at which cumulative updates came, and the revisions that they gave to builds. Source: Microsoft,
/// "Windows 10", "Windows 11" and "Windows Server update history". Only regular security updates, not previews.
const REVISIONS: [(i64, &[(u32, u32)]); 10] = [
    (
        20_004,
        &[
            (14_393, 7_428),
            (17_763, 6_414),
            (19_044, 5_011),
            (20_348, 2_762),
            (22_000, 3_260),
            (22_621, 4_317),
            (25_398, 1_189),
            (26_100, 2_033),
        ],
    ),
    (
        20_067,
        &[
            (14_393, 7_606),
            (17_763, 6_659),
            (19_044, 5_247),
            (20_348, 2_966),
            (22_621, 4_602),
            (25_398, 1_308),
            (26_100, 2_605),
        ],
    ),
    (
        20_102,
        &[
            (14_393, 7_699),
            (17_763, 6_775),
            (19_044, 5_371),
            (20_348, 3_091),
            (22_621, 4_751),
            (25_398, 1_369),
            (26_100, 2_894),
        ],
    ),
    (
        20_375,
        &[
            (14_393, 8_519),
            (17_763, 7_919),
            (19_044, 6_456),
            (20_348, 4_294),
            (22_621, 6_060),
            (25_398, 1_913),
            (26_100, 6_899),
        ],
    ),
    (
        20_403,
        &[
            (14_393, 8_594),
            (17_763, 8_027),
            (19_044, 6_575),
            (20_348, 4_405),
            (22_631, 6_199),
            (25_398, 1_965),
            (26_100, 7_171),
        ],
    ),
    (
        20_431,
        &[
            (14_393, 8_688),
            (17_763, 8_146),
            (19_044, 6_691),
            (20_348, 4_529),
            (22_631, 6_345),
            (25_398, 2_025),
            (26_100, 7_462),
        ],
    ),
    (
        20_466,
        &[
            (14_393, 8_783),
            (17_763, 8_276),
            (19_044, 6_809),
            (20_348, 4_648),
            (22_631, 6_491),
            (25_398, 2_092),
            (26_100, 7_623),
        ],
    ),
    (
        20_494,
        &[
            (14_393, 8_868),
            (17_763, 8_389),
            (19_044, 6_937),
            (20_348, 4_773),
            (22_631, 6_649),
            (25_398, 2_149),
            (26_100, 7_840),
            (28_000, 1_575),
        ],
    ),
    (
        20_522,
        &[
            (14_393, 8_957),
            (17_763, 8_511),
            (19_044, 7_058),
            (20_348, 4_893),
            (22_631, 6_783),
            (25_398, 2_207),
            (26_100, 8_037),
            (28_000, 1_719),
        ],
    ),
    (20_585, &[(20_348, 5_139)]),
];
/// Server 2025 counts by itself since January 2026.
const SERVER_2025: [(i64, u32); 3] = [(20_466, 32_230), (20_494, 32_370), (20_522, 32_522)];
/// Builds that are the same but for what is switched on, and share their revisions.
const SAME: [(u32, u32); 8] = [
    (19_041, 19_044),
    (19_042, 19_044),
    (19_043, 19_044),
    (19_045, 19_044),
    (22_631, 22_621),
    (26_200, 26_100),
    (6_001, 6_002),
    (7_600, 7_601),
];
/// The last day of support, extended but not paid for: builds up to this one. Source: Microsoft, "Lifecycle".
const ENDED: [(u32, i64, &str); 6] = [
    (3_790, 16_630, "2015-07-14"),
    (7_601, 18_275, "2020-01-14"),
    (9_600, 19_640, "2023-10-10"),
    (10_240, 20_375, "2025-10-14"),
    (10_586, 17_449, "2017-10-10"),
    (14_392, 17_449, "2017-10-10"),
];
const DAY_SECONDS: i64 = 86_400;
/// Days that an update may wait.
const GRACE_DAYS: i64 = 30;

/// The newest revision that had come for `release` when the day `limit` began.
fn wanted_revision(release: &Release, limit: i64) -> Option<(i64, u32)> {
    let own = release.build;
    let base = SAME.iter().find(|(build, _)| *build == own).map_or(own, |(_, base)| *base);
    let of_build = |(day, builds): &(i64, &[(u32, u32)])| {
        let found = builds.iter().find(|(build, _)| *build == own || *build == base);
        found.filter(|_| *day <= limit).map(|(_, revision)| (*day, *revision))
    };
    let newest = REVISIONS.iter().filter_map(of_build).next_back();
    let server = SERVER_2025.iter().rfind(|(day, _)| *day <= limit).copied();
    server.filter(|_| release.is_server && own == 26_100).or(newest)
}

/// The revision is at least that of a month ago, as far as is known here.
pub(in crate::profile) fn patch_level(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let release = known!(release(guest));
    let path = hive_path(guest, "SOFTWARE");
    let key = "Microsoft\\Windows NT\\CurrentVersion\\UBR";
    let told =
        release.revision.map_or_else(|| release.build.to_string(), |revision| format!("{}.{revision}", release.build));
    let evidence = vec![Evidence::explicit(path, key, told.clone())];
    let today = guest.reference_time.div_euclid(DAY_SECONDS);
    if let Some((_, day, date)) = ENDED.iter().find(|(last, ..)| release.build <= *last)
        && today > *day
    {
        return Outcome::fail(format!("build {} has had no free updates since {date}", release.build), evidence);
    }
    let limit = today.saturating_sub(GRACE_DAYS);
    let Some((day, wanted)) = wanted_revision(&release, limit) else {
        return Outcome::unknown(format!("which revision build {} should have is not known here", release.build));
    };
    let Some(revision) = release.revision else {
        return Outcome::unknown("SOFTWARE does not tell the revision (UBR)");
    };
    let date = crate::guest::linux::time::day(day).unwrap_or_default();
    if revision >= wanted {
        return Outcome::pass(format!("build {told} has the updates of {date}"), evidence);
    }
    Outcome::fail(format!("build {told} lacks the updates of {date}, which give {}.{wanted}", release.build), evidence)
}

/// Subcategories that CIS asks for: success 1, failure 2.
const AUDITED: [(&str, u8); 11] = [
    ("Credential Validation", 3),
    ("Logon", 3),
    ("Special Logon", 1),
    ("Account Lockout", 2),
    ("User Account Management", 3),
    ("Security Group Management", 1),
    ("Process Creation", 1),
    ("Audit Policy Change", 1),
    ("Sensitive Privilege Use", 3),
    ("System Integrity", 3),
    ("Security State Change", 1),
];

/// What matters is audited.
pub(in crate::profile) fn audit_policy(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let security = guest.system.security.as_ref().and_then(|security| security.windows.as_ref());
    let settings = security.map(|windows| windows.audit_policy.as_slice()).unwrap_or_default();
    if settings.is_empty() {
        return Outcome::unknown("the audit policy (Policy\\PolAdtEv) cannot be read from the registry hive SECURITY");
    }
    if settings.iter().all(|setting| setting.subcategory.is_none()) {
        return Outcome::unknown("this Windows audits categories, and knows no subcategories");
    }
    let path = hive_path(guest, "SECURITY");
    let words = |bits: u8| match bits {
        0 => "no auditing",
        1 => "success",
        2 => "failure",
        _ => "success and failure",
    };
    let (mut evidence, mut missing) = (Vec::new(), Vec::new());
    for (name, wanted) in AUDITED {
        let found = settings.iter().find(|setting| setting.subcategory.as_deref() == Some(name));
        let bits = found.map_or(0, |setting| u8::from(setting.success) | u8::from(setting.failure) << 1);
        evidence.push(Evidence::explicit(&*path, format!("Policy\\PolAdtEv ({name})"), words(bits)));
        if bits & wanted != wanted {
            missing.push(format!("{name} ({})", words(wanted & !bits)));
        }
    }
    // Where the older policy wins, what is said here is overwritten by categories.
    let (force, force_evidence) = known!(number(guest, "system:Control\\Lsa:SCENoApplyLegacyAuditPolicy", 1));
    evidence.push(force_evidence);
    if force == 0 {
        missing.push("SCENoApplyLegacyAuditPolicy is 0: a policy of categories overwrites it".to_owned());
    }
    if missing.is_empty() {
        return Outcome::pass("logons, accounts, rights and policies are audited", evidence);
    }
    Outcome::fail(format!("not audited: {}", missing.join(", ")), evidence).with_subjects(missing)
}

/// The event logs hold a while, and go on when they are full. Policies count in KiB, the logs themselves in bytes.
pub(in crate::profile) fn event_logs(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    const DEFAULT_KIB: i64 = 20_480;
    let (mut evidence, mut flaws) = (Vec::new(), Vec::new());
    for (log, least) in [("Application", 32_768), ("Security", 196_608), ("System", 32_768)] {
        let policy = known!(value(guest, &format!("software:Policies\\Microsoft\\Windows\\EventLog\\{log}:MaxSize")));
        let local = known!(value(guest, &format!("system:Services\\EventLog\\{log}:MaxSize")));
        let size =
            policy.number().or_else(|| local.number().map(|bytes| bytes.div_euclid(1_024))).unwrap_or(DEFAULT_KIB);
        evidence.push(match (policy.number(), local.number()) {
            (Some(_), _) => {
                Evidence { overridden: local.value.map(|_| local.evidence).into_iter().collect(), ..policy.evidence }
            }
            (None, Some(_)) => local.evidence,
            (None, None) => Evidence::default(local.evidence.path, local.evidence.key, format!("{DEFAULT_KIB} KiB")),
        });
        if size < least {
            flaws.push(format!("the log {log} holds {size} KiB, should hold {least}"));
        }
        let policy = known!(value(guest, &format!("software:Policies\\Microsoft\\Windows\\EventLog\\{log}:Retention")));
        let (retention, found) = known!(number(guest, &format!("system:Services\\EventLog\\{log}:Retention"), 0));
        let archives = format!(
            "software:Policies\\Microsoft\\Windows\\EventLog\\{log}:AutoBackupLogFiles|system:Services\\EventLog\\{log}:AutoBackupLogFiles"
        );
        let (archives, _) = known!(number(guest, &archives, 0));
        let keeps = archives == 0 && policy.number().map_or(retention == 0xffff_ffff, |number| number != 0);
        evidence.push(if policy.value.is_some() { policy.evidence } else { found });
        if keeps {
            flaws.push(format!("the log {log} stops when it is full"));
        }
    }
    if flaws.is_empty() {
        return Outcome::pass("the event logs are large enough, and overwrite the oldest events", evidence);
    }
    Outcome::fail(flaws.join("; "), evidence)
}

/// Privileges that make whoever has them the system: number, name. Source: the Windows SDK, `winnt.h`; [MS-LSAD].
const PRIVILEGES: [(u32, &str); 3] = [(7, "SeTcbPrivilege"), (10, "SeLoadDriverPrivilege"), (20, "SeDebugPrivilege")];
/// Bits of `ActSysAc`. Source: [MS-LSAD], section 2.2.1.2 (system access flags).
const DENY_INTERACTIVE: u32 = 0x40;
const DENY_NETWORK: u32 = 0x80;
const LOGONS: u32 = 0x1 | 0x2 | 0x4 | 0x10 | 0x400;
const ADMINISTRATORS: &str = "S-1-5-32-544";
const SYSTEM: &str = "S-1-5-18";
const GUESTS: &str = "S-1-5-32-546";
const ANONYMOUS: &str = "S-1-5-7";
/// Accounts that have rights: some tens.
const ACCOUNTS_MAX: usize = 10_000;

/// The privileges of a `PRIVILEGE_SET`: count, control, then number, its upper half and attributes of each.
fn privileges(set: &[u8]) -> Vec<u32> {
    let count = le_u32(set, 0).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let entries = set.get(8..).unwrap_or_default().as_chunks::<12>().0.iter().take(count);
    entries.filter(|entry| slice(*entry, 4, 4) == Some(&[0; 4])).filter_map(|entry| le_u32(entry, 0)).collect()
}

/// Nobody but administrators has rights as the system has, and guests are kept out. Accounts without a key have no rights.
pub(in crate::profile) fn user_rights(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (hive, path) = match registry::hive(guest, "security", "Policy\\Accounts") {
        Ok(found) => found,
        Err(missing) => return missing.into(),
    };
    let Some(accounts) = hive.key(&path) else {
        return Outcome::unknown(format!("{}: {path} cannot be read", hive.path()));
    };
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    let mut guests_denied = 0_u32;
    for account in accounts.keys().iter().take(ACCOUNTS_MAX) {
        let sid = account.key("Sid").and_then(|key| key.bytes("")).and_then(|sid| Sid::parse(&sid));
        let sid = sid.map_or_else(|| account.name().to_owned(), |sid| sid.to_string());
        let held =
            account.key("Privilgs").and_then(|key| key.bytes("")).map(|set| privileges(&set)).unwrap_or_default();
        let access =
            account.key("ActSysAc").and_then(|key| key.bytes("")).and_then(|bits| le_u32(&bits, 0)).unwrap_or(0);
        let names: Vec<&str> =
            PRIVILEGES.iter().filter(|(number, _)| held.contains(number)).map(|(_, name)| *name).collect();
        let at = |what: &str, told: String| Evidence::explicit(hive.path(), format!("{path}\\{sid}\\{what}"), told);
        if !names.is_empty() {
            let evidence = at("Privilgs", names.join(", "));
            if sid == ADMINISTRATORS || sid == SYSTEM {
                looked_at.push(evidence);
            } else {
                bad.push(Bad::new(&*sid, evidence));
            }
        }
        let is_guest = sid == GUESTS || (sid.starts_with("S-1-5-21-") && sid.ends_with("-501"));
        if is_guest {
            guests_denied |= access;
            looked_at.push(at("ActSysAc", format!("{access:#x}")));
        }
        if sid == ANONYMOUS && access & LOGONS != 0 {
            bad.push(Bad::new(&*sid, at("ActSysAc", format!("{access:#x}"))));
        }
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::explicit(hive.path(), path, "nobody has these rights"));
    }
    let wanted = DENY_INTERACTIVE | DENY_NETWORK;
    if bad.is_empty() && guests_denied & wanted != wanted {
        return Outcome::warn("guests are not denied to log on here and from the network", looked_at);
    }
    Outcome::none_of(
        bad,
        "rights of the system are given to others",
        "only administrators have rights of the system",
        looked_at,
    )
}

/// Volumes of Windows that are smaller hold what starts it, or repairs it.
const DATA_BYTES: u64 = 2 << 30;

/// Volumes with data are encrypted. That this one can be read says that it is not, unless its key was given.
pub(in crate::profile) fn encryption(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let is_windows = |kind: &str| matches!(kind.to_ascii_lowercase().as_str(), "ntfs" | "refs");
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for filesystem in guest.filesystems {
        let kind = filesystem.r#type.as_deref().unwrap_or_default();
        if kind == "BitLocker" {
            // A key that lies open beside the volume protects nothing.
            let device = guest.disk.devices().iter().find(|device| device.name == filesystem.device);
            let protectors = device.and_then(|device| bitlocker::protectors(&*device.source()).ok());
            let names: Vec<_> = protectors.iter().flatten().map(ToString::to_string).collect();
            let told =
                if names.is_empty() { "BitLocker".to_owned() } else { format!("BitLocker: {}", names.join(", ")) };
            let evidence = Evidence::metadata(&*filesystem.device, "encryption", told);
            if protectors.iter().flatten().any(|protector| protector.is_clear()) {
                bad.push(Bad::new(format!("{} (suspended)", filesystem.device), evidence));
            } else {
                looked_at.push(evidence);
            }
        } else if is_windows(kind) && filesystem.size_bytes.is_none_or(|size| size > DATA_BYTES) {
            let evidence = Evidence::metadata(&*filesystem.device, "file system", kind);
            let device = guest.disk.devices().iter().find(|device| device.name == filesystem.device);
            if device.is_some_and(|device| !device.parents.is_empty() && device.partition.is_none()) {
                looked_at.push(evidence);
            } else {
                bad.push(Bad::new(&*filesystem.device, evidence));
            }
        }
    }
    if bad.is_empty() && looked_at.is_empty() {
        return Outcome::unknown("no volume of Windows was recognised");
    }
    Outcome::none_of(
        bad,
        "volumes that are not encrypted, unless the storage below encrypts",
        "volumes are encrypted",
        looked_at,
    )
}

/// The clock follows a source. Members of a domain follow it, others a server.
pub(in crate::profile) fn time_source(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let start = known!(value(guest, "system:Services\\W32Time:Start"));
    if !matches!(start.number(), Some(0..=3)) {
        return Outcome::fail("the time service does not start", vec![start.evidence]);
    }
    let (policy, local) = ("software:Policies\\Microsoft\\W32time", "system:Services\\W32Time");
    let kind = known!(value(guest, &format!("{policy}\\Parameters:Type|{local}\\Parameters:Type")));
    let server = known!(value(guest, &format!("{policy}\\Parameters:NtpServer|{local}\\Parameters:NtpServer")));
    let is_member = super::accounts::domain(guest).is_some();
    let name = kind.text().unwrap_or(if is_member { "NT5DS" } else { "NTP" }).to_owned();
    let peers = server.text().unwrap_or("time.windows.com,0x9").to_owned();
    let client = Setting::new(
        "Enabled of the NTP client",
        format!("{policy}\\TimeProviders\\NtpClient:Enabled|{local}\\TimeProviders\\NtpClient:Enabled"),
        Some(1),
        Holds::AtLeast(1),
    );
    let outcome = settings(guest, asked, &[client], "");
    let mut evidence = vec![start.evidence, kind.evidence, server.evidence];
    evidence.extend(outcome.evidence.iter().cloned());
    if outcome.status != crate::profile::outcome::Status::Pass {
        return Outcome { evidence, ..outcome };
    }
    match name.to_ascii_uppercase().as_str() {
        "NT5DS" => Outcome::pass("the clock follows the domain", evidence),
        "NTP" | "ALLSYNC" if peers.is_empty() => Outcome::fail("no server of time is named", evidence),
        "NTP" | "ALLSYNC" => Outcome::pass(format!("the clock follows {peers}"), evidence),
        _ => Outcome::fail(format!("the clock follows no source (Type {name})"), evidence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_those_of_a_month_ago() {
        let of = |build: u32, is_server: bool| Release {
            build,
            revision: None,
            is_server,
            is_domain_controller: false,
            edition: String::new(),
        };
        assert_eq!(wanted_revision(&of(20_348, true), 20_430), Some((20_403, 4_405)));
        assert_eq!(wanted_revision(&of(19_045, false), 20_430), Some((20_403, 6_575)));
        assert_eq!(wanted_revision(&of(22_621, false), 20_600), Some((20_375, 6_060)));
        assert_eq!(wanted_revision(&of(22_631, false), 20_600), Some((20_522, 6_783)));
        assert_eq!(wanted_revision(&of(26_100, true), 20_600), Some((20_522, 32_522)));
        assert_eq!(wanted_revision(&of(26_100, true), 20_440), Some((20_431, 7_462)));
        assert_eq!(wanted_revision(&of(26_200, false), 20_600), Some((20_522, 8_037)));
        assert_eq!(wanted_revision(&of(18_363, false), 20_600), None);
    }

    #[test]
    fn sets_of_privileges_are_read_as_far_as_they_go() {
        let mut set = vec![2, 0, 0, 0, 0, 0, 0, 0];
        set.extend([20, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(privileges(&set), [20]);
        assert_eq!(privileges(&set[..12]), Vec::<u32>::new());
        assert_eq!(privileges(&[]), Vec::<u32>::new());
    }
}
