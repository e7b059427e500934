//! The dpkg database: deb-control(5) stanzas of `/var/lib/dpkg/status`, or of the files in `/var/lib/dpkg/status.d` that
//! images without a package manager (distroless) carry. Source: dpkg(1), deb-version(7), deb-control(5).

use crate::guest::report::{OperatingSystem, Package};

use super::time;

/// The packages of a status file; the package URL tells of which `system`.
pub(crate) fn packages<'a>(status: &'a [u8], system: &'a OperatingSystem) -> impl Iterator<Item = Package> + 'a {
    stanzas(status).filter_map(move |stanza| package(&stanza, system))
}

/// What an installed package needs of others, and what it stands for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) name: String,
    /// Names that it depends on, recommends or suggests, alternatives all of them.
    pub(crate) needs: Vec<String>,
    pub(crate) provides: Vec<String>,
    /// dpkg refuses to remove it.
    pub(crate) is_essential: bool,
    pub(crate) installed_kib: u64,
}

/// The relations of the packages that are installed.
pub(crate) fn needs(status: &[u8]) -> impl Iterator<Item = Needs> + '_ {
    stanzas(status).filter_map(|stanza| {
        if stanza.text("Status").is_some_and(|status| !status.ends_with(" installed")) {
            return None;
        }
        let names = |field: &str| {
            let value = stanza.text(field).unwrap_or_default();
            let names = value.split([',', '|']).filter_map(|one| one.split(['(', '[', ':']).next().map(str::trim));
            names.filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let is_yes = |field: &str| stanza.text(field).is_some_and(|value| value == "yes");
        let fields = ["Pre-Depends", "Depends", "Recommends", "Suggests"];
        Some(Needs {
            name: stanza.text("Package")?,
            needs: fields.iter().flat_map(|field| names(field)).collect(),
            provides: names("Provides"),
            is_essential: is_yes("Essential") || is_yes("Protected"),
            installed_kib: stanza.text("Installed-Size").and_then(|size| size.parse().ok()).unwrap_or_default(),
        })
    })
}

/// What dpkg itself would stop at: a file that ends within a line or a stanza, and lines and stanzas that say nothing.
pub(crate) fn flaw(status: &[u8]) -> Option<String> {
    if status.last().is_some_and(|byte| *byte != b'\n') {
        return Some("ends in the middle of a line; packages behind it are missing".to_owned());
    }
    let is_junk = |line: &&[u8]| {
        !line.iter().all(u8::is_ascii_whitespace)
            && !line.starts_with(b" ")
            && !line.starts_with(b"\t")
            && !line.contains(&b':')
    };
    let junk = status.split(|byte| *byte == b'\n').filter(is_junk).count();
    let incomplete = stanzas(status).filter(|stanza| !is_complete(stanza)).count();
    let wrong = junk.saturating_add(incomplete);
    (wrong > 0).then(|| format!("{incomplete} stanzas are incomplete and {junk} lines are no fields"))
}

/// A name, a status of three words where there is one, and a version unless the package is not installed.
fn is_complete(stanza: &Stanza<'_>) -> bool {
    let status = stanza.text("Status").unwrap_or_else(|| "install ok installed".to_owned());
    let state = status.split_whitespace().nth(2);
    stanza.text("Package").is_some()
        && state.is_some_and(|state| state == "not-installed" || stanza.text("Version").is_some())
}

/// One stanza: the fields in order, continuation lines joined with newlines.
struct Stanza<'a> {
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl Stanza<'_> {
    fn raw(&self, name: &str) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> Option<String> {
        let value = String::from_utf8_lossy(self.raw(name)?).trim().to_owned();
        (!value.is_empty()).then_some(value)
    }
}

/// Splits at empty lines, without copying.
fn stanzas(text: &[u8]) -> impl Iterator<Item = Stanza<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut fields: Vec<(&[u8], &[u8])> = Vec::new();
        while !rest.is_empty() {
            let (line, after) = split_line(rest);
            if line.iter().all(u8::is_ascii_whitespace) {
                rest = after;
                if fields.is_empty() {
                    continue;
                }
                break;
            }
            let (key, value, after) = field(rest);
            rest = after;
            if let Some(key) = key {
                fields.push((key, value));
            }
        }
        (!fields.is_empty()).then_some(Stanza { fields })
    })
}

/// One field with its continuation lines: key, value, and what follows.
fn field(text: &[u8]) -> (Option<&[u8]>, &[u8], &[u8]) {
    let (first, mut rest) = split_line(text);
    while matches!(rest.first(), Some(b' ' | b'\t')) {
        let (line, after) = split_line(rest);
        if line.iter().all(u8::is_ascii_whitespace) {
            break;
        }
        rest = after;
    }
    let taken = text.len().saturating_sub(rest.len());
    let whole = text.get(..taken).unwrap_or_default();
    match first.iter().position(|byte| *byte == b':') {
        Some(colon) => (first.get(..colon), whole.get(colon.saturating_add(1)..).unwrap_or_default(), rest),
        None => (None, &[], rest),
    }
}

fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => (text.get(..end).unwrap_or_default(), text.get(end.saturating_add(1)..).unwrap_or_default()),
        None => (text, &[]),
    }
}

/// States of a package (dpkg(1), "Package states").
const STATES: [&str; 8] = [
    "not-installed",
    "config-files",
    "half-installed",
    "unpacked",
    "half-configured",
    "triggers-awaited",
    "triggers-pending",
    "installed",
];

fn package(stanza: &Stanza<'_>, system: &OperatingSystem) -> Option<Package> {
    let name = stanza.text("Package")?;
    // status.d has no Status field: what is listed there is installed.
    let status = stanza.text("Status").unwrap_or_else(|| "install ok installed".to_owned());
    let words: Vec<&str> = status.split_whitespace().collect();
    let (selection, flag, state) = match words.as_slice() {
        [selection, flag, state, ..] => (*selection, *flag, *state),
        // Not as dpkg writes it, and told as a flaw; the package is there nevertheless.
        words => ("install", "ok", *words.iter().find(|word| STATES.contains(word))?),
    };
    let full_version = stanza.text("Version").unwrap_or_default();
    let version = Version::parse(&full_version);
    let arch = stanza.text("Architecture");
    let (source, source_version) = stanza.text("Source").map(|text| split_source(&text)).unwrap_or_default();
    let (summary, description) = stanza.raw("Description").map(split_description).unwrap_or_default();
    let purl = purl(&name, &full_version, arch.as_deref(), system);
    // opkg counts bytes where dpkg counts KiB (deb-control(5)), and is told by its time of installation.
    let installed_time = stanza.text("Installed-Time").and_then(|time| time.parse().ok());
    let size_unit = if installed_time.is_some() { 1 } else { 1024 };
    Some(Package {
        format: "deb".to_owned(),
        state: state.to_owned(),
        selection: (selection != "install").then(|| selection.to_owned()),
        reinstall_required: flag == "reinstreq",
        epoch: version.epoch,
        version: version.upstream.to_owned(),
        release: version.revision.map(str::to_owned),
        arch,
        source,
        source_version,
        section: stanza.text("Section"),
        license: stanza.text("License"),
        vendor: stanza.text("Maintainer"),
        url: stanza.text("Homepage"),
        summary,
        description,
        installed_size_bytes: stanza
            .text("Installed-Size")
            .and_then(|size| size.parse::<u64>().ok()?.checked_mul(size_unit)),
        installed_at: installed_time.and_then(time::rfc3339),
        purl,
        name,
        full_version,
        ..Package::default()
    })
}

/// A version as deb-version(7) splits it.
struct Version<'a> {
    epoch: Option<u64>,
    upstream: &'a str,
    revision: Option<&'a str>,
}

impl<'a> Version<'a> {
    fn parse(text: &'a str) -> Self {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) if epoch.parse::<u64>().is_ok() => (epoch.parse().ok(), rest),
            _ => (None, text),
        };
        match rest.rsplit_once('-') {
            Some((upstream, revision)) => Self { epoch, upstream, revision: Some(revision) },
            None => Self { epoch, upstream: rest, revision: None },
        }
    }
}

/// `Source: name (version)`.
fn split_source(text: &str) -> (Option<String>, Option<String>) {
    match text.split_once('(') {
        Some((name, version)) => (
            Some(name.trim().to_owned()),
            Some(version.trim_end_matches(')').trim().to_owned()).filter(|version| !version.is_empty()),
        ),
        None => (Some(text.to_owned()), None),
    }
}

/// The synopsis, and the extended description without its leading spaces.
fn split_description(raw: &[u8]) -> (Option<String>, Option<String>) {
    let text = String::from_utf8_lossy(raw);
    let mut lines = text.lines();
    let summary = lines.next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty());
    let rest: Vec<_> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    (summary, (!rest.is_empty()).then(|| rest.join("\n")))
}

/// `pkg:deb/debian/curl@7.88.1-10%2Bdeb12u5?arch=amd64&distro=debian-12` without the distribution version, which only the
/// codename tells for certain. Source: purl-spec, types `deb`.
fn purl(name: &str, version: &str, arch: Option<&str>, system: &OperatingSystem) -> Option<String> {
    let distro = system.distribution.as_deref()?;
    let qualifiers = [("arch", arch), ("distro", system.codename.as_deref())];
    Some(super::purl::purl("deb", &distro.to_ascii_lowercase(), &name.to_ascii_lowercase(), version, &qualifiers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Package> {
        let system = OperatingSystem {
            distribution: Some("debian".to_owned()),
            codename: Some("bookworm".to_owned()),
            ..OperatingSystem::default()
        };
        packages(text.as_bytes(), &system).collect()
    }

    #[test]
    fn what_dpkg_would_stop_at_is_told() {
        let whole = "Package: a\nStatus: install ok installed\nVersion: 1\n";
        assert_eq!(flaw(whole.as_bytes()), None);
        assert_eq!(flaw(b"Package: a\nStatus: unknown ok not-installed\n\nPackage: b\nVersion: 2\n"), None);
        let cases = [
            format!("{whole}\nPackage: b\nSta"),
            format!("{whole}\nPackage: b\n"),
            format!("{whole}\nPackage: b\nStatus: install ok\nVersion: 1\n"),
            format!("{whole}\nnonsense\n\n{whole}"),
            format!("{whole}\nVersion: 2\n"),
        ];
        for text in cases {
            assert!(flaw(text.as_bytes()).is_some(), "{text:?}");
        }
    }

    #[test]
    fn status_words_are_told_apart() {
        let cases = [
            ("install ok installed", "installed", None, false),
            ("hold ok installed", "installed", Some("hold"), false),
            ("install ok half-configured", "half-configured", None, false),
            ("deinstall ok config-files", "config-files", Some("deinstall"), false),
            ("install reinstreq half-installed", "half-installed", None, true),
            // As libguestfs' own Debian guest has it.
            ("installed ok", "installed", None, false),
        ];
        for (status, state, selection, reinstall) in cases {
            let found = parse(&format!("Package: p\nStatus: {status}\nVersion: 1\n"));
            assert_eq!(found[0].state, state);
            assert_eq!(found[0].selection.as_deref(), selection);
            assert_eq!(found[0].reinstall_required, reinstall);
        }
    }

    #[test]
    fn versions_split_as_deb_version_says() {
        let cases = [
            ("1:2.3-4", (Some(1), "2.3", Some("4"))),
            ("2.3", (None, "2.3", None)),
            ("1.0-rc1-2", (None, "1.0-rc1", Some("2"))),
            ("0:1:2-3", (Some(0), "1:2", Some("3"))),
        ];
        for (text, expected) in cases {
            let version = Version::parse(text);
            assert_eq!((version.epoch, version.upstream, version.revision), expected, "{text}");
        }
    }

    #[test]
    fn fields_and_descriptions_are_whole() {
        let text = "Package: a\nStatus: install ok installed\nSource: src (1:9)\nVersion: 1:2+b-3\nArchitecture: amd64\n\
                    Installed-Size: 3\nDescription: short\n long one\n .\n  two\n\n\n\nPackage: b\nVersion: 1\n";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].source.as_deref(), Some("src"));
        assert_eq!(found[0].source_version.as_deref(), Some("1:9"));
        assert_eq!(found[0].installed_size_bytes, Some(3072));
        assert_eq!(found[0].summary.as_deref(), Some("short"));
        assert_eq!(found[0].description.as_deref(), Some("long one\n.\n two"));
        assert_eq!(found[0].purl.as_deref(), Some("pkg:deb/debian/a@1:2%2Bb-3?arch=amd64&distro=bookworm"));
    }

    /// `dpkg-query -W` of each status file: status words, name, version, architecture, source and its version.
    #[test]
    fn status_files_agree_with_dpkg_query() {
        let Some(corpus) = std::env::var_os("GUESTKIT_CORPUS") else {
            assert!(std::env::var_os("CI").is_none(), "GUESTKIT_CORPUS must be set");
            println!("corpus not present");
            return;
        };
        let corpus = std::path::Path::new(&corpus).join("dpkg-apk-pacman");
        let mut checked = 0;
        for family in ["dpkg", "opkg"] {
            for case in ["single", "statusfield", "trailingnewlines", "transitional", "valid"] {
                let status = std::fs::read(corpus.join(format!("dpkg/testdata/{family}/{case}"))).unwrap();
                let truth = corpus.join(format!("truth/dpkg__testdata__{family}__{case}.dpkg-query.tsv"));
                let truth = std::fs::read_to_string(truth).unwrap();
                let told: Vec<_> = packages(&status, &OperatingSystem::default()).collect();
                for line in truth.lines().filter(|line| !line.starts_with('#')) {
                    let fields: Vec<_> = line.split('\t').collect();
                    let found = told.iter().find(|package| package.name == fields[1]).unwrap();
                    let state = match fields[0].chars().nth(1).unwrap() {
                        'n' => "not-installed",
                        'c' => "config-files",
                        'H' => "half-installed",
                        'U' => "unpacked",
                        'F' => "half-configured",
                        'W' => "triggers-awaited",
                        't' => "triggers-pending",
                        _ => "installed",
                    };
                    assert_eq!(found.state, state, "{family}/{case}: {line}");
                    assert_eq!(found.reinstall_required, fields[0].ends_with('R'), "{family}/{case}: {line}");
                    assert_eq!(found.full_version, fields[2], "{family}/{case}");
                    assert_eq!(found.arch.as_deref().unwrap_or_default(), fields[3], "{family}/{case}");
                    assert_eq!(found.source.as_deref().unwrap_or(&found.name), fields[4], "{family}/{case}");
                    checked += 1;
                }
            }
        }
        assert!(checked > 10);
    }

    #[test]
    fn hostile_text_gives_no_package_and_no_panic() {
        for text in
            ["", "\n\n\n", ":\n", "Package:\n", "Package: x\nStatus: a b\n", " continuation\n", "\0\0\0", "Package: x"]
        {
            parse(text);
        }
        let long = format!("Package: {}\n", "x".repeat(1 << 20));
        assert_eq!(parse(&long).len(), 1);
        parse(&"\n ".repeat(100_000));
        parse(&"a:\n".repeat(100_000));
    }
}
