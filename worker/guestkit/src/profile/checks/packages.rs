//! Packages: where they come from, whether they are kept up to date, and what should not be there.

use std::collections::{BTreeSet, HashMap, HashSet};

use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use crate::bytes::hex;
use crate::filesystem::FileType;
use crate::guest::linux::files::without_usr;
use crate::guest::linux::{dpkg, rpm, time};
use crate::guest::report::Package;
use crate::profile::evaluate::Asked;
use crate::profile::guest::{Guest, NO_PACKAGE_DATABASE};
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::repositories::{self, AptConfiguration, Source};
use crate::profile::rule::Severity;
use crate::profile::settings;
use crate::profile::support::{self, Known};
use crate::profile::walk::{Code, is_called_code};
use crate::read_at::{ReadAt as _, read_up_to};

use super::services::{starting, unit_evidence};

const DAY: i64 = 86_400;
/// Days before the end of support from which on it is told.
const END_IS_NEAR: i64 = 180;
/// Sizes of files that are compared with their digests: units and settings are small.
const COMPARED_MAX: u64 = 64 << 10;

fn is_family(guest: &Guest<'_>, wanted: &[&str]) -> bool {
    guest.families().iter().any(|family| wanted.contains(family))
}

/// `gcc`, and the same with a version: `gcc-12`, `clang15`.
fn is_compiler(name: &str) -> bool {
    const NAMES: [&str; 11] =
        ["gcc", "g++", "gcc-c++", "clang", "make", "golang", "golang-go", "golang-bin", "rustc", "rust", "tcc"];
    NAMES.iter().any(|known| {
        let rest = name.strip_prefix(known).map(|rest| rest.trim_start_matches('-'));
        rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    })
}

/// Compilers that everybody may run.
pub(crate) fn compilers(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(packages) = guest.packages() else { return Outcome::unknown(NO_PACKAGE_DATABASE) };
    let database = guest.package_database();
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for package in packages.filter(|package| is_compiler(&package.name)) {
        let program = format!("/usr/bin/{}", package.name);
        let evidence = Evidence::explicit(database, &*package.name, &*package.full_version);
        // A package whose program has another name, or several, is taken as one that everybody may run.
        match guest.files.stat(&program) {
            Some(metadata) if metadata.mode & 0o001 == 0 => looked_at.push(super::ssh::stat(&program, &metadata)),
            _ => bad.push(Bad::new(&*package.name, evidence)),
        }
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent(database, "gcc, g++, clang, make, golang, rustc"));
    }
    Outcome::none_of(bad, "compilers are installed", "there are no compilers that everybody may run", looked_at)
}

/// Packages that were installed for others that are gone: what `apt autoremove` would take. Source: apt-get(8),
/// apt-mark(8); recommended and suggested packages count as needed, as apt's defaults have it.
pub(crate) fn unused(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    const STATES: &str = "/var/lib/apt/extended_states";
    const STATUS: &str = "/var/lib/dpkg/status";
    if !guest.package_database().starts_with("/var/lib/dpkg") {
        return Outcome::unknown("which packages of an rpm system somebody asked for is not read");
    }
    let Some(states) = guest.files.text(STATES) else {
        let evidence = vec![Evidence::absent(STATES, "Auto-Installed")];
        return Outcome::pass("no package is marked as installed for others", evidence);
    };
    let Ok(Some(status)) = guest.files.tree().read_file(STATUS) else { return Outcome::unknown(NO_PACKAGE_DATABASE) };
    let mut automatic: HashSet<&str> = HashSet::new();
    let mut name = "";
    for line in states.lines() {
        if let Some(value) = line.strip_prefix("Package:") {
            name = value.trim();
        } else if line.strip_prefix("Auto-Installed:").is_some_and(|value| value.trim() == "1") {
            automatic.insert(name);
        }
    }
    let packages: Vec<dpkg::Needs> = dpkg::needs(&status).take(250_000).collect();
    let mut providers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (number, package) in packages.iter().enumerate() {
        for name in package.provides.iter().chain([&package.name]) {
            providers.entry(name).or_default().push(number);
        }
    }
    let is_kept = |package: &dpkg::Needs| {
        let is_kernel = package.name.starts_with("linux-") || package.name.starts_with("firmware-");
        !automatic.contains(package.name.as_str()) || package.is_essential || is_kernel
    };
    let mut queue: Vec<usize> =
        packages.iter().enumerate().filter(|(_, package)| is_kept(package)).map(|(number, _)| number).collect();
    let mut needed: HashSet<usize> = queue.iter().copied().collect();
    while let Some(package) = queue.pop().and_then(|number| packages.get(number)) {
        for number in package.needs.iter().filter_map(|name| providers.get(name.as_str())).flatten() {
            if needed.insert(*number) {
                queue.push(*number);
            }
        }
    }
    let unused = packages.iter().enumerate().filter(|(number, _)| !needed.contains(number)).map(|(_, package)| package);
    let mut freed: u64 = 0;
    let mut bad = Vec::new();
    for package in unused {
        freed = freed.saturating_add(package.installed_kib);
        let evidence =
            Evidence::explicit(STATES, &*package.name, format!("Auto-Installed: 1, {} KiB", package.installed_kib));
        bad.push(Bad::new(&*package.name, evidence));
    }
    let found = format!("packages that nothing needs any more, {} MiB", freed / 1024);
    let looked_at = vec![Evidence::metadata(STATES, "Auto-Installed", automatic.len().to_string())];
    Outcome::none_of(bad, &found, "every package is asked for or needed", looked_at)
}

/// Kernels beside the one that starts, and the room that they take.
pub(crate) fn old_kernels(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let system = &guest.system.operating_system;
    // Directories of modules without an image are what removed kernels leave behind.
    let kernels: Vec<_> = system.kernels.iter().filter(|kernel| kernel.path.is_some()).collect();
    let default = system.default_kernel.as_deref().or_else(|| kernels.first().map(|kernel| kernel.version.as_str()));
    let evidence: Vec<_> = kernels
        .iter()
        .map(|kernel| {
            let is_default = default == Some(kernel.version.as_str());
            let told = if is_default { "starts by default" } else { "kept" };
            Evidence::metadata(kernel.path.as_deref().unwrap_or("/boot"), &*kernel.version, told)
        })
        .collect();
    let others: Vec<_> = kernels.iter().filter(|kernel| default != Some(kernel.version.as_str())).collect();
    if others.len() > 2 {
        let reason = format!("{} kernels are kept beside the one that starts", others.len());
        return Outcome::fail(reason, evidence).with_subjects(others.iter().map(|kernel| kernel.version.clone()));
    }
    let device = guest.root.mountpoints.iter().find(|mount| mount.path == "/boot").map(|mount| mount.device.as_str());
    let boot = guest.filesystems.iter().find(|filesystem| Some(filesystem.device.as_str()) == device);
    let usage = boot.and_then(|boot| boot.used_bytes?.checked_mul(100)?.checked_div(boot.size_bytes?));
    if let Some(percent) = usage.filter(|percent| *percent >= 80) {
        let evidence = vec![Evidence::metadata("/boot", "used", format!("{percent} %"))];
        return Outcome::fail(format!("/boot is full to {percent} %"), evidence);
    }
    if evidence.is_empty() {
        return Outcome::unknown("no kernel image was found");
    }
    Outcome::pass(format!("{} kernels are kept beside the one that starts", others.len()), evidence)
}

/// Sources whose packages nobody has to have signed.
pub(crate) fn repo_trust(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for source in repositories::apt_sources(guest) {
        let options = ["trusted", "allow-insecure", "allow-weak", "allow-downgrade-to-insecure"];
        if options.iter().any(|option| source.is_on(option)) {
            bad.push(Bad::new(source.place(), source.evidence()));
        } else {
            looked_at.push(source.evidence());
        }
    }
    let apt = AptConfiguration::read(guest);
    let loose = [
        "APT::Get::AllowUnauthenticated",
        "Acquire::AllowInsecureRepositories",
        "Acquire::AllowWeakRepositories",
        "Acquire::AllowDowngradeToInsecureRepositories",
    ];
    for setting in loose.iter().filter_map(|name| apt.get(name)) {
        if setting.is_yes() {
            let evidence = setting.evidence();
            bad.push(Bad::new(evidence.key.clone(), evidence));
        } else {
            looked_at.push(setting.evidence());
        }
    }
    for source in repositories::rpm_repositories(guest) {
        // What is on this machine is not verified on its way; its packages are still signed.
        let is_unsigned = source.is_off("gpgcheck") || source.is_off("pkg_gpgcheck");
        if is_unsigned || source.is_off("sslverify") {
            bad.push(Bad::new(source.place(), source.evidence()));
        } else {
            looked_at.push(source.evidence());
        }
    }
    if bad.is_empty() && looked_at.is_empty() {
        if guest.package_database().starts_with("/var/lib/dpkg") || is_family(guest, &["rhel", "fedora", "suse"]) {
            let path =
                if is_family(guest, &["debian", "ubuntu"]) { "/etc/apt/sources.list" } else { "/etc/yum.repos.d" };
            return Outcome::pass("no source of packages is set up", vec![Evidence::absent(path, "sources")]);
        }
        return Outcome::unknown("no sources of packages that are understood were found");
    }
    Outcome::none_of(bad, "packages are taken without a valid signature", "packages must be signed", looked_at)
}

/// A source of security updates that is in use.
pub(crate) fn security_repo(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let shown = |sources: &[Source]| sources.iter().map(Source::evidence).collect::<Vec<_>>();
    if is_family(guest, &["debian", "ubuntu"]) {
        let sources = repositories::apt_sources(guest);
        let is_rolling = matches!(support::of(&guest.system.operating_system, false), Known::Rolling);
        let is_security = |source: &&Source| {
            let suite = source.suite.trim_end_matches('/');
            suite.ends_with("-security") || suite.ends_with("/updates") || source.uri.contains("security.debian.org")
        };
        if let Some(source) = sources.iter().find(is_security) {
            return Outcome::pass(format!("{} is in use", source.suite), vec![source.evidence()]);
        }
        if is_rolling && !sources.is_empty() {
            return Outcome::pass("updates come by the same source as everything", shown(&sources));
        }
        let mut evidence = shown(&sources);
        evidence.push(Evidence::absent("/etc/apt/sources.list", "a suite of security updates"));
        return Outcome::fail("no source of security updates is in use", evidence);
    }
    let sources = repositories::rpm_repositories(guest);
    let wanted = ["baseos", "appstream", "updates", "amazonlinux", "amzn2-core", "rhel-7-server-rpms", "ol7_latest"];
    let found: Vec<&Source> =
        sources.iter().filter(|source| wanted.iter().any(|name| source.suite.contains(name))).collect();
    if let Some(first) = found.first() {
        let evidence = found.iter().map(|source| source.evidence()).collect();
        return Outcome::pass(format!("{} is in use", first.suite), evidence);
    }
    let identity = "/etc/pki/consumer/cert.pem";
    if guest.files.exists(identity) {
        let evidence = vec![Evidence::metadata(identity, "subscription identity", "present")];
        let unknown = Outcome::unknown("the system is subscribed, but its repositories are not on the disk");
        return Outcome { evidence, ..unknown };
    }
    let mut evidence = shown(&sources);
    evidence.push(Evidence::absent("/etc/yum.repos.d", "baseos, appstream"));
    Outcome::fail("no source of security updates is in use", evidence)
}

/// Security updates that install themselves. Sources: `/usr/lib/apt/apt.systemd.daily`, dnf-automatic(8), yum-cron(8),
/// transactional-update(8).
pub(crate) fn auto_updates(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if guest.packages().is_none() {
        return Outcome::unknown(NO_PACKAGE_DATABASE);
    }
    if is_family(guest, &["debian", "ubuntu"]) {
        return apt_updates(guest);
    }
    let timers = ["dnf-automatic-install.timer", "transactional-update.timer", "os-update.timer"];
    if let Some((name, unit)) = starting(guest, &timers) {
        return Outcome::pass(format!("{name} installs updates"), vec![unit_evidence(&name, unit)]);
    }
    let appliers = [
        ("/etc/dnf/automatic.conf", "apply_updates", &["dnf-automatic.timer", "dnf5-automatic.timer"][..]),
        ("/etc/dnf/dnf5-plugins/automatic.conf", "apply_updates", &["dnf5-automatic.timer"][..]),
        ("/etc/yum/yum-cron.conf", "apply_updates", &["yum-cron.service", "yum-cron"][..]),
        ("/etc/sysconfig/automatic_online_update", "AOU_ENABLE_CRONJOB", &[][..]),
    ];
    let mut evidence = Vec::new();
    for (path, key, units) in appliers {
        let Some(text) = guest.files.text(path) else { continue };
        let found = settings::assignment(&text, key);
        let applies = found.as_ref().is_some_and(|(value, _)| settings::is_yes(value));
        evidence.push(match found {
            Some((value, line)) => Evidence::explicit(path, key, value).at_line(line),
            None => Evidence::absent(path, key),
        });
        let unit = starting(guest, units);
        evidence.push(match &unit {
            Some((name, unit)) => unit_evidence(name, *unit),
            None => Evidence::absent("/etc/systemd/system", units.join(", ")),
        });
        if applies && (unit.is_some() || units.is_empty()) {
            return Outcome::pass("updates install themselves", evidence);
        }
    }
    if !is_family(guest, &["rhel", "fedora", "suse"]) {
        return Outcome::unknown("how this distribution updates itself is not known");
    }
    evidence.push(Evidence::absent("/etc/systemd/system", timers.join(", ")));
    Outcome::fail("updates do not install themselves", evidence)
}

fn apt_updates(guest: &Guest<'_>) -> Outcome {
    let database = guest.package_database();
    let Some(package) = guest.installed(&["unattended-upgrades"]) else {
        return Outcome::fail(
            "unattended-upgrades is not installed",
            vec![Evidence::absent(database, "unattended-upgrades")],
        );
    };
    let mut evidence = vec![Evidence::explicit(database, &*package.name, &*package.full_version)];
    let apt = AptConfiguration::read(guest);
    // `always` and intervals with a unit are as good as a number.
    let is_on = |value: &str| !matches!(value.trim(), "0" | "" | "no" | "false");
    if let Some(setting) = apt.get("APT::Periodic::Enable").filter(|setting| !is_on(&setting.value)) {
        evidence.push(setting.evidence());
        return Outcome::fail("apt does nothing by itself", evidence);
    }
    for name in ["APT::Periodic::Update-Package-Lists", "APT::Periodic::Unattended-Upgrade"] {
        match apt.get(name) {
            Some(setting) => {
                evidence.push(setting.evidence());
                if !is_on(&setting.value) {
                    return Outcome::fail(format!("{name} is {}", setting.value), evidence);
                }
            }
            None => {
                evidence.push(Evidence::absent("/etc/apt/apt.conf.d", name));
                return Outcome::fail(format!("{name} is not set"), evidence);
            }
        }
    }
    // Without systemd the same script runs from cron.
    match starting(guest, &["apt-daily-upgrade.timer"]) {
        Some((name, unit)) => evidence.push(unit_evidence(&name, unit)),
        None if guest.unit("apt-daily-upgrade.timer").is_none() && guest.files.exists("/etc/cron.daily/apt-compat") => {
            evidence.push(Evidence::metadata("/etc/cron.daily/apt-compat", "script", "present"));
        }
        None => {
            evidence.push(Evidence::absent("/etc/systemd/system", "apt-daily-upgrade.timer"));
            return Outcome::fail("apt-daily-upgrade.timer does not start", evidence);
        }
    }
    Outcome::pass("security updates install themselves", evidence)
}

/// How long ago a package was installed, upgraded or removed.
pub(crate) fn pending_updates_age(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let newest = if guest.is_windows() { newest_windows_change(guest) } else { newest_change(guest) };
    let Some((seconds, evidence)) = newest else {
        return Outcome::unknown("nothing tells when packages were last changed");
    };
    let days = guest.reference_time.saturating_sub(seconds).max(0) / DAY;
    let limit = asked.limit_number(90);
    let reason = format!("the newest change of packages is {days} days before the reference time");
    if days < limit {
        return Outcome::pass(reason, vec![evidence]);
    }
    Outcome::fail(format!("{reason}, should be less than {limit}"), vec![evidence])
}

fn seconds_of(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

fn newest_change(guest: &Guest<'_>) -> Option<(i64, Evidence)> {
    let database = guest.package_database();
    let packages = guest.packages()?;
    let dated = packages.filter_map(|package| Some((package, seconds_of(package.installed_at.as_deref()?)?)));
    let newest = dated.max_by_key(|(_, seconds)| *seconds).map(|(package, seconds)| {
        let told = time::rfc3339(seconds).unwrap_or_default();
        (seconds, Evidence::metadata(database, format!("{} installed", package.name), told))
    });
    // The log also tells of packages that are gone.
    let log = guest.files.text("/var/log/dpkg.log").and_then(|text| {
        let changes = [" install ", " upgrade ", " status installed ", " remove "];
        let line = text.lines().rev().find(|line| changes.iter().any(|change| line.contains(change)))?;
        let (day, clock) = (line.get(..10)?, line.get(11..19)?);
        let seconds = seconds_of(&format!("{day}T{clock}Z"))?;
        Some((seconds, Evidence::explicit("/var/log/dpkg.log", "last change", format!("{day} {clock}"))))
    });
    [newest, log].into_iter().flatten().max_by_key(|(seconds, _)| *seconds)
}

/// Times of the servicing stack's packages. Source: the registry of Windows, `Component Based Servicing`.
fn newest_windows_change(guest: &Guest<'_>) -> Option<(i64, Evidence)> {
    const KEY: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages";
    let packages = guest.hives?.software_key(KEY)?;
    let dated = packages.keys().into_iter().take(50_000).filter_map(|package| {
        let (high, low) = (package.number("InstallTimeHigh")?, package.number("InstallTimeLow")?);
        let ticks = (high & 0xFFFF_FFFF) << 32 | (low & 0xFFFF_FFFF);
        // Ticks of 100 ns since 1601.
        let seconds = i64::try_from(ticks / 10_000_000).ok()?.checked_sub(11_644_473_600)?;
        (seconds > 0).then(|| (seconds, package.name().to_owned()))
    });
    let (seconds, name) = dated.max_by_key(|(seconds, _)| *seconds)?;
    let path = format!("HKLM\\SOFTWARE\\{KEY}");
    Some((seconds, Evidence::metadata(path, name, time::rfc3339(seconds).unwrap_or_default())))
}

/// Whether the system still gets security updates.
pub(crate) fn os_eol(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let system = &guest.system.operating_system;
    let is_stream = system.product_name.as_deref().is_some_and(|name| name.contains("Stream"));
    let name = system.product_name.clone().unwrap_or_else(|| "this system".to_owned());
    let path = system.sources.first().map_or("/etc/os-release", String::as_str);
    let version = system.version.clone().unwrap_or_default();
    let identity = Evidence::explicit(path, "system", format!("{name} {version}").trim().to_owned());
    let table = |end: &str| Evidence::metadata(format!("table of {}", support::DATA_DATE), "end of support", end);
    let dated = support::DATA_DATE;
    let (end, extended) = match support::of(system, is_stream) {
        Known::Until(known) => (known.end.to_owned(), known.extended),
        Known::Rolling => {
            return Outcome::pass(format!("{name} is always the newest (data of {dated})"), vec![identity]);
        }
        Known::Nothing(what) => match &system.support_end {
            Some(end) => (end.clone(), None),
            None => return Outcome::unknown(format!("the end of support of {what} is not known (data of {dated})")),
        },
    };
    let evidence = vec![identity, table(&end)];
    let day = |text: &str| seconds_of(&format!("{text}T23:59:59Z"));
    let Some(last) = day(&end) else {
        return Outcome::unknown(format!("the end of support is no day: {end} (data of {dated})"));
    };
    let left = last.saturating_sub(guest.reference_time) / DAY;
    if guest.reference_time <= last {
        let reason = format!("{name} is supported until {end} (data of {dated})");
        return if left < END_IS_NEAR { Outcome::warn(reason, evidence) } else { Outcome::pass(reason, evidence) };
    }
    let reason = format!("support of {name} ended on {end} (data of {dated})");
    match extended.filter(|extended| day(extended).is_some_and(|last| guest.reference_time <= last)) {
        Some(extended) => {
            let reason = format!("{reason}; extended support, where it is bought, ends on {extended}");
            Outcome::fail(reason, evidence).with_severity(Severity::Medium)
        }
        None => Outcome::fail(reason, evidence),
    }
}

/// Where programs lie that `integrity` looks for.
const PROGRAMS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
/// Where the files lie whose contents it compares: small ones that decide what runs and with which rights.
const COMPARED: [&str; 6] = [
    "usr/lib/systemd/system/",
    "lib/systemd/system/",
    "usr/lib/sysctl.d/",
    "usr/share/pam-configs/",
    "usr/share/polkit-1/rules.d/",
    "usr/share/polkit-1/actions/",
];

/// Seconds after a package was unpacked within which its own scripts may still have touched its files.
const UNPACKED_WITHIN: i64 = 3_600;
/// Bytes of code that are read at most, of files that were touched later than that.
const HASHED_MAX: u64 = 512 << 20;
/// The number of MD5, which is all that dpkg keeps.
const MD5: u64 = 1;
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// Code that was touched after its package was unpacked, as far as the times tell: that is read and compared, the rest is not. A
/// program that was put in the place of another has a time of change that no call sets back.
struct Touched {
    /// Bytes that may still be read.
    left: u64,
    /// Files that could not be compared.
    skipped: u64,
    /// Files that are as packaged.
    equal: u64,
}

impl Touched {
    const fn new() -> Self {
        Self { left: HASHED_MAX, skipped: 0, equal: 0 }
    }

    /// Whether the file at `path` has another sum than `digest`, by the algorithm of this number (RFC 4880, section 9.4).
    fn differs(&mut self, guest: &Guest<'_>, path: &str, size: u64, algorithm: u64, digest: &str) -> bool {
        let sum = self.left.checked_sub(size).and_then(|left| {
            self.left = left;
            match algorithm {
                MD5 => sum_of::<Md5>(guest, path),
                2 => sum_of::<Sha1>(guest, path),
                8 => sum_of::<Sha256>(guest, path),
                10 => sum_of::<Sha512>(guest, path),
                _ => None,
            }
        });
        let is_equal = sum.as_ref().map(|sum| sum.eq_ignore_ascii_case(digest));
        match is_equal {
            Some(true) => self.equal = self.equal.saturating_add(1),
            Some(false) => {}
            None => self.skipped = self.skipped.saturating_add(1),
        }
        is_equal == Some(false)
    }

    /// The verdict on what was found.
    fn outcome(&self, bad: Vec<Bad>, mut looked_at: Vec<Evidence>, database: &str) -> Outcome {
        if bad.is_empty() && self.skipped > 0 {
            return Outcome::unknown(format!("{} files were touched since and could not be compared", self.skipped));
        }
        looked_at.push(Evidence::metadata(database, "touched code that is as packaged", self.equal.to_string()));
        let clean = "programs are there, and what was touched since it was unpacked is as packaged";
        Outcome::none_of(bad, "files differ from the package database", clean, looked_at)
    }
}

/// Programs of rpm's packages that are gone, and code of theirs with another size or, where its times are not the package's,
/// another sum.
fn rpm_integrity(guest: &Guest<'_>) -> Outcome {
    const REGULAR: u16 = 0o100_000;
    const DATABASE: &str = "rpm database";
    let code = &guest.walk().code;
    let mut touched = Touched::new();
    let mut present = 0_u64;
    let mut bad = Vec::new();
    let is_wanted = |name: &[u8], mode: u16| mode & 0o170_000 == REGULAR && is_called_code(name, mode);
    let read = rpm::each_file(guest.files, &is_wanted, &mut |path, shipped| {
        if shipped.may_differ {
            return;
        }
        let evidence = |what: &str| Evidence::metadata(path, DATABASE, what);
        let Some(found) = code.get(without_usr(path)) else {
            let above = path.rsplit_once('/').map_or("", |(above, _)| above);
            if PROGRAMS.contains(&above) && !guest.files.exists(path) {
                bad.push(Bad::new(path, evidence("it is gone")));
            }
            return;
        };
        present = present.saturating_add(1);
        if shipped.size.is_some_and(|size| size != found.size) {
            bad.push(Bad::new(path, evidence("its size is not its package's")));
            return;
        }
        let is_late = shipped.modified.is_some_and(|modified| modified != found.modified)
            || shipped.installed.is_some_and(|installed| found.changed > installed.saturating_add(UNPACKED_WITHIN));
        let Some((algorithm, digest)) = shipped.digest.filter(|_| is_late) else { return };
        if touched.differs(guest, path, found.size, algorithm, &digest) {
            bad.push(Bad::new(path, evidence("it differs from its package's")));
        }
    });
    if read.is_none() {
        return Outcome::unknown("this package database's digests of files are not compared");
    }
    let looked_at = vec![Evidence::metadata(DATABASE, "code of the packaged size", present.to_string())];
    touched.outcome(bad, looked_at, DATABASE)
}

/// The sum of a file; `None` where it cannot be read, which is told.
fn sum_of<D: Digest>(guest: &Guest<'_>, path: &str) -> Option<String> {
    let file = guest.files.open(path)?;
    let mut digest = D::new();
    let mut at = 0;
    while at < file.len() {
        match read_up_to(&file, at, PIECE) {
            Ok(piece) if piece.is_empty() => break,
            Ok(piece) => {
                digest.update(&piece);
                at = at.saturating_add(piece.len() as u64);
            }
            Err(error) => {
                guest.files.warn_error(path, &error);
                return None;
            }
        }
    }
    Some(hex(&digest.finalize()))
}

/// Programs that are gone, units that were changed, and code that was touched and changed, by the checksums of dpkg.
pub(crate) fn integrity(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    const INFO: &str = "/var/lib/dpkg/info";
    if guest.packages().is_none() {
        return Outcome::unknown(NO_PACKAGE_DATABASE);
    }
    let names: Vec<String> =
        guest.files.names(INFO).into_iter().filter(|name| name.ends_with(".md5sums")).take(250_000).collect();
    if names.is_empty() {
        return rpm_integrity(guest);
    }
    let diverted: HashSet<String> =
        guest.files.text("/var/lib/dpkg/diversions").unwrap_or_default().lines().map(str::to_owned).collect();
    let mut programs: HashSet<String> = HashSet::new();
    for directory in PROGRAMS {
        programs.extend(guest.files.names(directory).into_iter().map(|name| format!("{directory}/{name}")));
    }
    let installed: HashSet<&str> =
        guest.packages().into_iter().flatten().map(|package| package.name.as_str()).collect();
    let (mut present, mut equal) = (0_u64, 0_u64);
    let mut touched = Touched::new();
    let mut bad = Vec::new();
    for name in names {
        let package = name.trim_end_matches(".md5sums").split(':').next().unwrap_or_default();
        if !installed.contains(package) {
            continue;
        }
        let list = format!("{INFO}/{name}");
        let Some(text) = guest.files.text(&list) else { continue };
        // When the package was unpacked: the times of its list of files.
        let unpacked = guest.files.stat(&format!("{}.list", list.trim_end_matches(".md5sums")));
        let is_late = |code: &&Code| {
            unpacked.as_ref().is_some_and(|unpacked| {
                code.modified > unpacked.modified.seconds.saturating_add(UNPACKED_WITHIN)
                    || code.changed > unpacked.changed.seconds.saturating_add(UNPACKED_WITHIN)
            })
        };
        for (number, line) in text.lines().enumerate() {
            let Some((digest, path)) = line.split_once("  ") else { continue };
            let full = || format!("/{path}");
            let evidence =
                |what: &str| Evidence::metadata(full(), format!("{list}:{}", number.saturating_add(1)), what);
            let in_programs = path
                .rsplit_once('/')
                .is_some_and(|(above, _)| PROGRAMS.iter().any(|known| known.trim_start_matches('/') == above));
            if in_programs {
                if programs.contains(&full()) || diverted.contains(&full()) {
                    present = present.saturating_add(1);
                } else {
                    bad.push(Bad::new(full(), evidence("it is gone")));
                }
            } else if COMPARED.iter().any(|known| path.starts_with(known)) && !diverted.contains(&full()) {
                let Some(metadata) = guest.files.stat(&full()) else {
                    bad.push(Bad::new(full(), evidence("it is gone")));
                    continue;
                };
                if metadata.file_type != FileType::Regular || metadata.size > COMPARED_MAX {
                    continue;
                }
                let Some(bytes) = guest.files.bytes(&full()) else { continue };
                if hex(&Md5::digest(&bytes)).eq_ignore_ascii_case(digest) {
                    equal = equal.saturating_add(1);
                } else {
                    bad.push(Bad::new(full(), evidence("it differs from its package's")));
                }
                continue;
            }
            let late = guest.walk().code.get(without_usr(&full())).filter(is_late);
            if let Some(code) = late.filter(|_| !diverted.contains(&full()))
                && touched.differs(guest, &full(), code.size, MD5, digest)
            {
                bad.push(Bad::new(full(), evidence("it differs from its package's")));
            }
        }
    }
    let looked_at = vec![
        Evidence::metadata(INFO, "programs that are there", present.to_string()),
        Evidence::metadata(INFO, "units and settings that are as packaged", equal.to_string()),
    ];
    touched.outcome(bad, looked_at, INFO)
}

/// A scanner for malware that runs.
pub(crate) fn malware_scanner(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    const SCANNERS: [(&str, &[&str], &[&str]); 13] = [
        (
            "ClamAV",
            &["clamav-daemon", "clamd", "clamav"],
            &["clamav-daemon", "clamd@scan.service", "clamd", "clamonacc", "clamav-clamonacc"],
        ),
        ("CrowdStrike Falcon", &["falcon-sensor"], &["falcon-sensor"]),
        ("Microsoft Defender", &["mdatp"], &["mdatp"]),
        ("Trend Micro", &["ds_agent", "ds-agent", "tmxbc"], &["ds_agent"]),
        ("Sophos", &["sophos-spl", "savinstpkg"], &["sophos-spl", "sav-protect"]),
        ("SentinelOne", &["SentinelAgent", "sentinelagent"], &["sentinelone", "sentinelagent"]),
        ("ESET", &["efs", "esets", "eea"], &["efs", "esets", "eea"]),
        ("Cortex XDR", &["cortex-agent", "traps"], &["traps_pmd", "cortex-agent"]),
        ("Carbon Black", &["cb-psc-sensor", "cb-sensor"], &["cbagentd", "cbdaemon"]),
        ("Bitdefender", &["bitdefender-security-tools"], &["bdsec", "bd"]),
        ("Kaspersky", &["kesl"], &["kesl", "kesl-supervisor"]),
        ("Trellix", &["mcafeetp", "McAfeeTP", "xagt", "mfetp"], &["mfetpd", "xagt"]),
        (
            "WithSecure",
            &["f-secure-linuxsecurity", "withsecure-linuxsecurity"],
            &["f-secure-linuxsecurity-activate", "fsma"],
        ),
    ];
    if guest.packages().is_none() {
        return Outcome::unknown(NO_PACKAGE_DATABASE);
    }
    let database = guest.package_database();
    let mut idle: Option<(&str, &Package)> = None;
    for (title, packages, units) in SCANNERS {
        // Most bring their own installer, so the unit alone is enough.
        if let Some((name, unit)) = starting(guest, units) {
            return Outcome::pass(format!("{title} runs"), vec![unit_evidence(&name, unit)]);
        }
        idle = idle.or_else(|| Some((title, guest.installed(packages)?)));
    }
    match idle {
        Some((title, package)) => {
            let evidence = vec![Evidence::explicit(database, &*package.name, &*package.full_version)];
            Outcome::fail(format!("{title} is installed, but does not start with the system"), evidence)
        }
        None => {
            let names: BTreeSet<&str> =
                SCANNERS.iter().filter_map(|(_, packages, _)| packages.first().copied()).collect();
            let names: Vec<&str> = names.into_iter().collect();
            Outcome::fail("no scanner for malware is installed", vec![Evidence::absent(database, names.join(", "))])
        }
    }
}
