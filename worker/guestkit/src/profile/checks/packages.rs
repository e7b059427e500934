//! Packages: where they come from, how old they are, whether they are what their maker shipped.

use std::collections::{BTreeMap, BTreeSet};

use crate::guest::report::Package;
use crate::profile::end_of_life;
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;
use crate::profile::text::{Assignment, assignments};

use super::services::{any_installed, any_started};

const DAY: i64 = 86_400;

/// Compilers, for everybody to use.
pub(crate) fn compilers(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(packages) = guest.packages() else { return Outcome::unknown("no package database could be read") };
    let is_compiler = |name: &str| {
        let base = name.split(['-', '.']).next().unwrap_or(name).trim_end_matches(|c: char| c.is_ascii_digit());
        ["gcc", "g++", "clang", "make", "golang", "rustc", "tcc"].contains(&base)
            && !["-base", "-doc", "-libs", "-common", "-lib"].iter().any(|end| name.ends_with(end))
            && !name.starts_with("gcc-c++-")
    };
    let found: Vec<_> = packages.filter(|package| is_compiler(&package.name)).collect();
    let programs = [
        "/usr/bin/gcc",
        "/usr/bin/cc",
        "/usr/bin/clang",
        "/usr/bin/make",
        "/usr/bin/g++",
        "/usr/bin/go",
        "/usr/bin/rustc",
    ];
    let for_all =
        programs.iter().find(|path| guest.files.stat(path).is_some_and(|metadata| metadata.mode & 0o001 != 0));
    let bad = found.iter().filter(|_| for_all.is_some()).map(|package| {
        Bad::new(&*package.name, Evidence::explicit(guest.package_database(), &*package.name, &*package.full_version))
    });
    let looked_at = vec![Evidence::absent(guest.package_database(), "gcc, clang, make, golang, rustc")];
    Outcome::none_of(bad.collect(), "everybody can compile programs", "no compiler for everybody", looked_at)
}

/// Packages that were installed for others that are gone.
pub(crate) fn unused(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let path = "/var/lib/apt/extended_states";
    let Some(text) = guest.files.text(path) else {
        return Outcome::unknown(format!("{path} is not there: which packages were asked for is not known"));
    };
    let automatic: BTreeSet<&str> = text
        .split("\n\n")
        .filter(|stanza| stanza.contains("Auto-Installed: 1"))
        .filter_map(|stanza| stanza.lines().find_map(|line| line.strip_prefix("Package: ")))
        .collect();
    let Some(status) = guest.files.text("/var/lib/dpkg/status") else {
        return Outcome::unknown("/var/lib/dpkg/status cannot be read");
    };
    let (needs, installed) = dependencies(&status);
    let mut wanted: BTreeSet<&str> = installed
        .iter()
        .filter(|(name, essential)| *essential || !automatic.contains(*name))
        .map(|(name, _)| *name)
        .collect();
    let mut pending: Vec<&str> = wanted.iter().copied().collect();
    while let Some(name) = pending.pop() {
        for need in needs.get(name).into_iter().flatten() {
            if wanted.insert(need) {
                pending.push(need);
            }
        }
    }
    let bad = installed
        .iter()
        .filter(|(name, _)| !wanted.contains(name))
        .map(|(name, _)| Bad::new(*name, Evidence::explicit(path, *name, "automatic, needed by nothing")));
    let looked_at = vec![Evidence::explicit(path, "automatic packages", automatic.len().to_string())];
    Outcome::none_of(bad.collect(), "packages that nothing needs", "every automatic package is needed", looked_at)
        .softened()
}

type Needs<'t> = BTreeMap<&'t str, Vec<&'t str>>;

/// What each installed package needs, or recommends; what provides a name counts as it. Source: deb-control(5).
fn dependencies(status: &str) -> (Needs<'_>, Vec<(&str, bool)>) {
    let (mut needs, mut provides): (Needs<'_>, Needs<'_>) = Default::default();
    let mut installed = Vec::new();
    for stanza in status.split("\n\n") {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (Some(name), Some(state)) = (field("Package"), field("Status")) else { continue };
        if !state.ends_with(" installed") {
            continue;
        }
        installed.push((name, field("Essential") == Some("yes") || field("Priority") == Some("required")));
        for key in ["Depends", "Pre-Depends", "Recommends"] {
            let list = field(key).unwrap_or_default();
            let one = |text| -> Option<&str> {
                str::split_whitespace(text).next().map(|one| one.split(':').next().unwrap_or(one))
            };
            needs.entry(name).or_default().extend(list.split([',', '|']).filter_map(one));
        }
        for provided in field("Provides").unwrap_or_default().split(',').filter_map(|one| one.split_whitespace().next())
        {
            provides.entry(provided).or_default().push(name);
        }
    }
    // A need of something virtual is a need of whatever provides it.
    for list in needs.values_mut() {
        let more: Vec<&str> = list.iter().filter_map(|name| provides.get(name)).flatten().copied().collect();
        list.extend(more);
    }
    (needs, installed)
}

/// Kernels that lie about beside the default one.
pub(crate) fn old_kernels(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let system = &guest.system.operating_system;
    let kernels: Vec<_> = system.kernels.iter().filter(|kernel| kernel.path.is_some()).collect();
    let evidence: Vec<_> = kernels
        .iter()
        .map(|kernel| Evidence::metadata(kernel.path.as_deref().unwrap_or("/boot"), "kernel", &*kernel.version))
        .collect();
    if kernels.is_empty() {
        return Outcome::not_applicable("no kernel is installed");
    }
    let boot =
        guest.system.storage.as_ref().and_then(|storage| storage.mounts.iter().find(|mount| mount.path == "/boot"));
    if let Some(full) = boot.filter(|mount| mount.used_percent >= 80.0) {
        let reason = format!("/boot is {:.0} % full", full.used_percent);
        return Outcome::fail(reason, evidence);
    }
    if kernels.len() > 3 {
        return Outcome::fail(format!("{} kernels are installed", kernels.len()), evidence);
    }
    Outcome::pass(format!("{} kernels are installed", kernels.len()), evidence)
}

/// One place that apt takes packages from.
#[derive(Debug, Clone)]
struct AptSource {
    path: String,
    line: usize,
    uris: Vec<String>,
    suites: Vec<String>,
    options: Vec<String>,
}

impl AptSource {
    fn evidence(&self) -> Evidence {
        let value = format!("{} {} {}", self.options.join(" "), self.uris.join(" "), self.suites.join(" "));
        Evidence::explicit(&*self.path, "source", value.trim()).at_line(self.line)
    }
}

/// The sources in use, in both forms. Source: sources.list(5).
fn apt_sources(guest: &Guest<'_>) -> Vec<AptSource> {
    let mut all = Vec::new();
    let mut lists = vec!["/etc/apt/sources.list".to_owned()];
    lists.extend(guest.files.with_suffix("/etc/apt/sources.list.d", ".list"));
    for path in lists {
        for (at, line) in guest.files.text(&path).unwrap_or_default().lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let Some(rest) =
                line.strip_prefix("deb ").or_else(|| line.strip_prefix("deb\t")).or_else(|| line.strip_prefix("deb["))
            else {
                continue;
            };
            let (options, rest) = match rest.trim_start().trim_start_matches('[').split_once(']') {
                Some((options, rest)) if line.contains('[') => (options, rest),
                _ => ("", rest),
            };
            let mut words = rest.split_whitespace().map(str::to_owned);
            all.push(AptSource {
                path: path.clone(),
                line: at.saturating_add(1),
                uris: words.next().into_iter().collect(),
                suites: words.next().into_iter().collect(),
                options: options.split_whitespace().map(str::to_ascii_lowercase).collect(),
            });
        }
    }
    for path in guest.files.with_suffix("/etc/apt/sources.list.d", ".sources") {
        let text = guest.files.text(&path).unwrap_or_default();
        let mut line = 1_usize;
        for stanza in text.split("\n\n") {
            let field = |name: &str| -> Vec<String> {
                let lines = stanza.lines().filter(|line| !line.starts_with('#'));
                let found = lines
                    .filter_map(|line| line.split_once(':'))
                    .find(|(key, _)| key.trim().eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
            };
            let is_off = field("Enabled").iter().any(|value| value.eq_ignore_ascii_case("no"));
            let options = ["Trusted", "Allow-Insecure", "Allow-Weak"].iter().flat_map(|key| {
                field(key)
                    .into_iter()
                    .map(|value| format!("{}={}", key.to_ascii_lowercase(), value.to_ascii_lowercase()))
                    .collect::<Vec<_>>()
            });
            let options = options.collect();
            if field("Types").iter().any(|kind| kind == "deb") && !is_off {
                all.push(AptSource { path: path.clone(), line, uris: field("URIs"), suites: field("Suites"), options });
            }
            line = line.saturating_add(stanza.lines().count()).saturating_add(1);
        }
    }
    all
}

/// apt's own settings as they stand in the end: names lower-case and whole, later files win. Source: apt.conf(5).
fn apt_settings(guest: &Guest<'_>) -> Vec<Assignment> {
    let mut paths = guest
        .files
        .names("/etc/apt/apt.conf.d")
        .into_iter()
        .filter(|name| {
            let end = name.rsplit_once('.').map_or("", |(_, end)| end);
            end.is_empty() || end == "conf"
        })
        .map(|name| format!("/etc/apt/apt.conf.d/{name}"))
        .collect::<Vec<_>>();
    paths.push("/etc/apt/apt.conf".to_owned());
    paths.iter().flat_map(|path| apt_file(path, &guest.files.text(path).unwrap_or_default())).collect()
}

/// One file: `Name::Of::It "value";` and scopes in braces; `//`, `#` and `/* */` comments.
fn apt_file(path: &str, text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut scopes: Vec<String> = Vec::new();
    let (mut word, mut value) = (String::new(), None::<String>);
    let (mut line, mut in_comment) = (1_usize, false);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\n' {
            line = line.saturating_add(1);
        }
        if in_comment {
            if c == '*' && characters.peek() == Some(&'/') {
                characters.next();
                in_comment = false;
            }
            continue;
        }
        match c {
            '/' if characters.peek() == Some(&'*') => in_comment = true,
            '/' if characters.peek() == Some(&'/') => while characters.next_if(|c| *c != '\n').is_some() {},
            '#' if word.is_empty() => while characters.next_if(|c| *c != '\n').is_some() {},
            '"' => {
                let mut text = String::new();
                while let Some(c) = characters.next_if(|c| *c != '"' && *c != '\n') {
                    text.push(c);
                }
                characters.next_if_eq(&'"');
                value = Some(text);
            }
            '{' => scopes.push(std::mem::take(&mut word).trim().to_owned()),
            '}' => {
                scopes.pop();
                word.clear();
            }
            ';' => {
                let mut written = std::mem::take(&mut word).trim().to_owned();
                let taken = value.take().or_else(|| {
                    let (name, rest) = written
                        .clone()
                        .split_once(char::is_whitespace)
                        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))?;
                    written = name;
                    Some(rest)
                });
                if let Some(taken) = taken.filter(|_| scopes.len() < 32) {
                    let key = scopes
                        .iter()
                        .cloned()
                        .chain([written])
                        .filter(|part| !part.is_empty())
                        .collect::<Vec<_>>()
                        .join("::");
                    found.push(Assignment { path: path.to_owned(), line, key: key.to_ascii_lowercase(), value: taken });
                }
            }
            c => word.push(c),
        }
        if found.len() > 20_000 {
            break;
        }
    }
    found
}

fn apt_last<'s>(settings: &'s [Assignment], key: &str) -> Option<&'s Assignment> {
    settings.iter().rfind(|one| one.key == key)
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "yes" | "true" | "always" | "on" | "with" | "enable")
}

/// Repositories of yum, dnf and zypper: section, file, settings.
fn rpm_repositories(guest: &Guest<'_>) -> Vec<(String, String, BTreeMap<String, String>)> {
    let mut all = Vec::new();
    for directory in ["/etc/yum.repos.d", "/etc/zypp/repos.d", "/etc/dnf/repos.d"] {
        for path in guest.files.with_suffix(directory, ".repo") {
            let mut current: Option<(String, BTreeMap<String, String>)> = None;
            for line in guest.files.text(&path).unwrap_or_default().lines() {
                let line = line.trim();
                if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                    all.extend(current.take().map(|(name, settings)| (name, path.clone(), settings)));
                    current = Some((name.to_owned(), BTreeMap::new()));
                } else if let (Some((_, settings)), Some((key, value)), false) =
                    (&mut current, line.split_once('='), line.starts_with('#'))
                {
                    settings.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
                }
            }
            all.extend(current.map(|(name, settings)| (name, path.clone(), settings)));
        }
    }
    all
}

/// Nothing is installed whose origin is not proved.
pub(crate) fn repo_trust(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for source in apt_sources(guest) {
        let lax = source
            .options
            .iter()
            .any(|option| matches!(option.as_str(), "trusted=yes" | "allow-insecure=yes" | "allow-weak=yes"));
        if lax {
            bad.push(Bad::new(source.uris.join(" "), source.evidence()));
        }
        looked_at.push(source.evidence());
    }
    let settings = apt_settings(guest);
    for key in [
        "apt::get::allowunauthenticated",
        "acquire::allowinsecurerepositories",
        "acquire::allowweakrepositories",
        "acquire::alloweddowngradetoinsecurerepositories",
    ] {
        if let Some(one) = apt_last(&settings, key).filter(|one| is_true(&one.value)) {
            bad.push(Bad::new(key, one.evidence()));
        }
    }
    let main: Vec<_> = ["/etc/yum.conf", "/etc/dnf/dnf.conf", "/etc/zypp/zypp.conf"]
        .into_iter()
        .flat_map(|path| assignments(guest.files, path))
        .collect();
    let checks_by_default = main.iter().rfind(|one| one.key == "gpgcheck").is_none_or(|one| is_true(&one.value));
    for one in main.iter().filter(|one| matches!(one.key.as_str(), "gpgcheck" | "sslverify") && !is_true(&one.value)) {
        bad.push(Bad::new(&*one.path, one.evidence()));
    }
    for (name, path, settings) in rpm_repositories(guest) {
        if settings.get("enabled").is_some_and(|value| !is_true(value)) {
            continue;
        }
        let checks = settings.get("gpgcheck").map_or(checks_by_default, |value| is_true(value));
        let verifies = settings.get("sslverify").is_none_or(|value| is_true(value));
        let evidence = Evidence::explicit(
            &*path,
            &*name,
            format!("gpgcheck={}, sslverify={}", u8::from(checks), u8::from(verifies)),
        );
        if !checks || !verifies {
            bad.push(Bad::new(&*name, evidence.clone()));
        }
        looked_at.push(evidence);
    }
    if looked_at.is_empty() && bad.is_empty() {
        return Outcome::unknown("no package source is configured in files that are known here");
    }
    Outcome::none_of(
        bad,
        "packages are taken without proof of their origin",
        "every source proves its packages",
        looked_at,
    )
}

/// Fixes of security problems come from somewhere.
pub(crate) fn security_repo(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let families = guest.families();
    if families.contains(&"debian") || families.contains(&"ubuntu") {
        let sources = apt_sources(guest);
        let fitting = sources.iter().find(|source| {
            source.suites.iter().any(|suite| suite.contains("-security") || suite.ends_with("/updates"))
                || source.uris.iter().any(|uri| uri.contains("security."))
        });
        return match fitting {
            Some(source) => Outcome::pass("security updates have a source", vec![source.evidence()]),
            None => {
                let mut evidence: Vec<_> = sources.iter().map(AptSource::evidence).collect();
                evidence.push(Evidence::absent("/etc/apt/sources.list", "a -security suite"));
                Outcome::fail("no source of security updates is configured", evidence)
            }
        };
    }
    let repositories = rpm_repositories(guest);
    let needed = ["baseos", "appstream", "updates", "base"];
    let fitting = repositories.iter().find(|(name, _, settings)| {
        let name = name.to_ascii_lowercase();
        needed.iter().any(|part| name.contains(part)) && settings.get("enabled").is_none_or(|value| is_true(value))
    });
    match fitting {
        Some((name, path, _)) => {
            Outcome::pass("updates have a source", vec![Evidence::explicit(&**path, &**name, "enabled")])
        }
        None if guest.files.exists("/etc/pki/consumer/cert.pem") => Outcome::pass(
            "the system is registered for updates",
            vec![Evidence::metadata("/etc/pki/consumer/cert.pem", "identity", "present")],
        ),
        None => Outcome::fail(
            "no source of updates is enabled",
            vec![Evidence::absent("/etc/yum.repos.d", "baseos, appstream")],
        ),
    }
}

/// Updates install themselves.
pub(crate) fn auto_updates(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let settings = apt_settings(guest);
    if guest.files.is_dir("/etc/apt") {
        let list = apt_last(&settings, "apt::periodic::update-package-lists");
        let upgrade = apt_last(&settings, "apt::periodic::unattended-upgrade");
        let runs = |one: Option<&Assignment>| one.is_some_and(|one| !matches!(one.value.as_str(), "0" | "" | "never"));
        let timer = any_started(guest, &["apt-daily-upgrade.timer"]);
        let package = any_installed(guest, &["unattended-upgrades"]);
        let evidence: Vec<_> = list
            .into_iter()
            .chain(upgrade)
            .map(Assignment::evidence)
            .chain(timer.clone())
            .chain(package.clone())
            .collect();
        return if runs(list) && runs(upgrade) && timer.is_some() && package.is_some() {
            Outcome::pass("updates install themselves", evidence)
        } else {
            let what = match (package.is_some(), runs(upgrade), timer.is_some()) {
                (false, ..) => "unattended-upgrades is not installed",
                (_, false, _) => "APT::Periodic::Unattended-Upgrade is not on",
                (.., false) => "apt-daily-upgrade.timer is not enabled",
                _ => "APT::Periodic::Update-Package-Lists is not on",
            };
            let mut evidence = evidence;
            evidence.push(Evidence::absent("/etc/apt/apt.conf.d", "APT::Periodic"));
            Outcome::fail(what, evidence)
        };
    }
    for path in [
        "/etc/dnf/automatic.conf",
        "/etc/dnf/dnf5-plugins/automatic.conf",
        "/usr/share/dnf5/dnf5-plugins/automatic.conf",
    ] {
        let lines = assignments(guest.files, path);
        let timers = ["dnf-automatic-install.timer", "dnf-automatic.timer", "dnf5-automatic.timer"];
        if let Some(apply) = lines.iter().rfind(|one| one.key == "apply_updates") {
            let timer = any_started(guest, &timers);
            let installs = is_true(&apply.value) || guest.is_enabled("dnf-automatic-install.timer");
            let evidence = std::iter::once(apply.evidence()).chain(timer.clone()).collect();
            return if installs && timer.is_some() {
                Outcome::pass("updates install themselves", evidence)
            } else {
                Outcome::fail("dnf-automatic does not install updates", evidence)
            };
        }
    }
    match any_started(
        guest,
        &["transactional-update.timer", "yum-cron.service", "os-update.timer", "packagekit-background.timer"],
    ) {
        Some(evidence) => Outcome::pass("updates install themselves", vec![evidence]),
        None => Outcome::fail(
            "updates do not install themselves",
            vec![Evidence::absent("/etc/systemd/system", "a timer that installs updates")],
        ),
    }
}

/// When a package was last changed: by its own database, or by the logs of its manager.
fn last_change(guest: &Guest<'_>) -> Option<(i64, Evidence)> {
    let seconds = |text: &str| text.parse::<jiff::Timestamp>().ok().map(|at| at.as_second());
    let packages = guest.packages()?;
    let by_database = packages
        .filter_map(|package: &Package| Some((seconds(package.installed_at.as_deref()?)?, package)))
        .max_by_key(|(at, _)| *at);
    let by_database = by_database.map(|(at, package)| {
        (
            at,
            Evidence::explicit(
                guest.package_database(),
                &*package.name,
                package.installed_at.clone().unwrap_or_default(),
            ),
        )
    });
    let mut by_log = None;
    for path in ["/var/log/dpkg.log", "/var/log/dpkg.log.1"] {
        let text = guest.files.text(path).unwrap_or_default();
        let last = text.lines().rev().find(|line| {
            line.contains(" status installed ") || line.contains(" upgrade ") || line.contains(" install ")
        });
        let day = last.and_then(|line| line.get(..10)?.parse::<jiff::civil::Date>().ok());
        let at = day.and_then(end_of_life::midnight);
        if let (Some(at), Some(line)) = (at, last) {
            by_log = Some((at, Evidence::explicit(path, "last change", line.get(..19).unwrap_or(line))));
            break;
        }
    }
    // dpkg keeps no dates; what it wrote last has one.
    let by_file =
        ["/var/lib/dpkg/status", "/var/lib/apk/db/installed", "/lib/apk/db/installed"].into_iter().find_map(|path| {
            let at = guest.files.stat(path)?.modified.seconds;
            Some((at, Evidence::metadata(path, "modified", crate::guest::linux::time::rfc3339(at).unwrap_or_default())))
        });
    [by_database, by_log, by_file].into_iter().flatten().max_by_key(|(at, _)| *at)
}

/// The newest change of a package is not long ago.
pub(crate) fn pending_updates_age(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let limit = asked.limit_number(90);
    let Some((at, evidence)) = last_change(guest) else {
        return Outcome::unknown("nothing tells when a package was last changed");
    };
    let days = guest.reference_time.saturating_sub(at).div_euclid(DAY);
    let told = format!("the newest change of a package is {days} days old");
    if days < limit {
        Outcome::pass(told, vec![evidence])
    } else {
        Outcome::fail(format!("{told}, should be less than {limit}"), vec![evidence])
    }
}

/// The system still gets fixes.
pub(crate) fn os_eol(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let system = &guest.system.operating_system;
    let name =
        system.product_name.clone().or_else(|| system.distribution.clone()).unwrap_or_else(|| system.r#type.clone());
    let Some(support) = end_of_life::of(system) else {
        return Outcome::unknown(format!(
            "the end of support of {name} is not in the table of {}",
            end_of_life::DATA_DATE
        ));
    };
    let evidence = vec![Evidence::default(
        "table of ends of support",
        name.clone(),
        format!("standard {}, as of {}", support.standard, end_of_life::DATA_DATE),
    )];
    let Some(end) = support.end() else {
        return Outcome::unknown("the table of ends of support has a day that is none");
    };
    let left = end.saturating_sub(guest.reference_time).div_euclid(DAY);
    if left >= 180 {
        return Outcome::pass(format!("{name} is supported until {}", support.standard), evidence);
    }
    if left >= 0 {
        return Outcome::warn(
            format!("{name} is supported for {left} more days, until {}", support.standard),
            evidence,
        );
    }
    match support.extended.filter(|_| support.extended_end().is_some_and(|end| end >= guest.reference_time)) {
        Some(extended) => {
            Outcome::fail(format!("{name} gets fixes only for those who pay or opt in, until {extended}"), evidence)
                .with_severity(Severity::Medium)
        }
        None => Outcome::fail(format!("{name} is out of support since {}", support.standard), evidence),
    }
}

/// Files of programs that are gone, or that are not what their package shipped; where dpkg keeps checksums.
pub(crate) fn integrity(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let directory = "/var/lib/dpkg/info";
    let lists: Vec<_> = guest.files.names(directory).into_iter().filter(|name| name.ends_with(".md5sums")).collect();
    if lists.is_empty() {
        return Outcome::unknown("the package database keeps no checksums that are read here");
    }
    let (mut missing, mut looked_at) = (Vec::new(), 0_usize);
    for name in lists {
        let path = format!("{directory}/{name}");
        for line in guest.files.text(&path).unwrap_or_default().lines() {
            let Some((_, file)) = line.split_once("  ") else { continue };
            let is_program = ["bin/", "sbin/", "usr/bin/", "usr/sbin/"].iter().any(|start| file.starts_with(start));
            if !is_program {
                continue;
            }
            looked_at = looked_at.saturating_add(1);
            let file = format!("/{file}");
            // A diversion moves a file away by intent.
            if guest.files.stat_link(&file).is_none()
                && !guest.files.exists(&format!("{file}.distrib"))
                && !is_diverted(guest, &file)
            {
                missing.push(Bad::new(&*file, Evidence::explicit(&*path, "missing", &*file)));
            }
        }
    }
    let clean = "every program that packages shipped is there; contents were not compared";
    Outcome::none_of(
        missing,
        "programs of packages are gone",
        clean,
        vec![Evidence::explicit(directory, "programs", looked_at.to_string())],
    )
}

fn is_diverted(guest: &Guest<'_>, path: &str) -> bool {
    guest.files.text("/var/lib/dpkg/diversions").is_some_and(|text| text.lines().any(|line| line == path))
}

/// Something looks for malware.
pub(crate) fn malware_scanner(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(_) = guest.packages() else { return Outcome::unknown("no package database could be read") };
    let known = [
        "clamav-daemon",
        "clamd",
        "clamav-server",
        "falcon-sensor",
        "mdatp",
        "ds_agent",
        "ds-agent",
        "sophos-spl",
        "savinstpkg",
        "cbagentd",
        "SentinelAgent",
        "sentinelagent",
        "esets",
        "xagt",
    ];
    let units = [
        "clamav-daemon",
        "clamd@scan",
        "falcon-sensor",
        "mdatp",
        "ds_agent",
        "sophos-spl",
        "sav-protect",
        "cbagentd",
        "sentinelone",
        "xagt",
    ];
    match (any_installed(guest, &known), any_started(guest, &units)) {
        (Some(package), Some(unit)) => Outcome::pass("a scanner is installed and starts", vec![package, unit]),
        (Some(package), None) => Outcome::fail("a scanner is installed, but does not start", vec![package]),
        (None, _) => Outcome::fail(
            "no scanner for malware is installed",
            vec![Evidence::absent(guest.package_database(), "clamav-daemon, falcon-sensor, mdatp, ds_agent, sophos")],
        ),
    }
}
