//! Portage's database: `/var/db/pkg/CATEGORY/NAME-VERSION/` with a file for each fact. Source: the Package Manager
//! Specification (PMS), sections 3.2 "Version specifications" and 13 "Installed packages", and portage(5).

use crate::guest::report::{OperatingSystem, Package};

use super::files::Files;
use super::packages::{Installed, PACKAGES_MAX};
use super::{purl, time};

const DATABASE: &str = "/var/db/pkg";

/// The packages that portage installed; `None` where there is no database of it.
pub(super) fn read(files: &Files<'_>, system: &OperatingSystem) -> Option<Installed> {
    if !files.is_dir(DATABASE) {
        return None;
    }
    let mut packages = Vec::new();
    let mut unclear = Vec::new();
    for category in files.names(DATABASE).iter().filter(|name| !is_left_over(name)) {
        for entry in files.names(&format!("{DATABASE}/{category}")).iter().filter(|name| !is_left_over(name)) {
            if packages.len() > PACKAGES_MAX {
                break;
            }
            match split_name(entry) {
                Some((name, version)) => packages.push(package(files, category, entry, name, version, system)),
                None => unclear.push(format!("{category}/{entry}")),
            }
        }
    }
    if let Some(first) = unclear.first() {
        files.warn(DATABASE, format!("{} of its entries have no version, such as {first}", unclear.len()));
    }
    Some(Installed { manager: "portage", databases: vec![DATABASE.to_owned()], packages: Some(packages) })
}

/// Hidden files, and what an interrupted merge leaves behind.
fn is_left_over(name: &str) -> bool {
    name.starts_with('.') || name.starts_with("-MERGING-")
}

fn package(
    files: &Files<'_>,
    category: &str,
    entry: &str,
    name: &str,
    full_version: &str,
    system: &OperatingSystem,
) -> Package {
    let folder = format!("{DATABASE}/{category}/{entry}");
    let fact = |file: &str| files.first_line(&format!("{folder}/{file}"));
    let (version, release) = match full_version.rsplit_once("-r") {
        Some((version, revision)) if is_number(revision) => (version, Some(format!("r{revision}"))),
        _ => (full_version, None),
    };
    // CHOST is the triplet that it was built for: `x86_64-pc-linux-gnu`.
    let arch = fact("CHOST").and_then(|host| Some(host.split_once('-')?.0.to_owned()));
    let distro = system.distribution.as_deref();
    // Written last of all when it is merged.
    let merged = files.stat(&format!("{folder}/COUNTER")).or_else(|| files.stat(&folder));
    Package {
        name: format!("{category}/{name}"),
        format: "ebuild".to_owned(),
        state: "installed".to_owned(),
        version: version.to_owned(),
        release,
        section: Some(category.to_owned()),
        license: fact("LICENSE"),
        url: fact("HOMEPAGE").and_then(|pages| pages.split_whitespace().next().map(str::to_owned)),
        summary: fact("DESCRIPTION"),
        installed_size_bytes: fact("SIZE").and_then(|size| size.parse().ok()),
        installed_at: merged.and_then(|metadata| time::rfc3339(metadata.modified.seconds)),
        built_at: fact("BUILD_TIME").and_then(|seconds| time::rfc3339(seconds.parse().ok()?)),
        purl: Some(purl::purl(
            "ebuild",
            category,
            name,
            full_version,
            &[("arch", arch.as_deref()), ("distro", distro)],
        )),
        origin: fact("repository").or_else(|| fact("REPOSITORY")),
        arch,
        full_version: full_version.to_owned(),
        ..Package::default()
    }
}

/// Splits `gtk+-2.24.33-r3` at the hyphen that a version follows.
fn split_name(entry: &str) -> Option<(&str, &str)> {
    let mut hyphens = entry.match_indices('-').map(|(at, _)| at);
    hyphens.find_map(|at| {
        let (name, rest) = entry.split_at_checked(at)?;
        let version = rest.strip_prefix('-')?;
        (!name.is_empty() && is_version(version)).then_some((name, version))
    })
}

/// PMS 3.2: numbers apart by dots, a letter, suffixes such as `_rc2`, a revision.
fn is_version(text: &str) -> bool {
    let text = match text.rsplit_once("-r") {
        Some((version, revision)) if is_number(revision) => version,
        _ => text,
    };
    let mut parts = text.split('_');
    let numbers = parts.next().unwrap_or_default();
    let numbers = numbers.strip_suffix(|last: char| last.is_ascii_lowercase()).unwrap_or(numbers);
    let is_suffix = |part: &str| {
        let kinds = ["alpha", "beta", "pre", "rc", "p"];
        kinds.iter().any(|kind| part.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || is_number(rest)))
    };
    numbers.split('.').all(is_number) && parts.all(is_suffix)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn names_end_where_the_version_begins() {
        let cases = [
            ("gtk+-2.24.33-r3", Some(("gtk+", "2.24.33-r3"))),
            ("openssl-3.0.13", Some(("openssl", "3.0.13"))),
            ("font-adobe-100dpi-1.0.4", Some(("font-adobe-100dpi", "1.0.4"))),
            ("python-3.12.0_rc2_p1-r1", Some(("python", "3.12.0_rc2_p1-r1"))),
            ("libpng-1.6b", Some(("libpng", "1.6b"))),
            ("audio-0-r1", Some(("audio", "0-r1"))),
            ("linux-9999", Some(("linux", "9999"))),
            ("no-version", None),
            ("-1", None),
            ("", None),
        ];
        for (entry, expected) in cases {
            assert_eq!(split_name(entry), expected, "{entry}");
        }
    }

    #[test]
    fn folders_become_packages() {
        let fixture = Fixture::new();
        let folder = "var/db/pkg/dev-libs/openssl-3.0.13-r2";
        for (file, text) in [
            ("SLOT", "0/3"),
            ("LICENSE", "Apache-2.0\n"),
            ("DESCRIPTION", "TLS toolkit\n"),
            ("HOMEPAGE", "https://a https://b\n"),
            ("SIZE", "12345\n"),
            ("BUILD_TIME", "1700000000\n"),
            ("CHOST", "x86_64-pc-linux-gnu\n"),
            ("repository", "gentoo\n"),
            ("COUNTER", "7"),
        ] {
            fixture.file(&format!("{folder}/{file}"), text);
        }
        fixture.file("var/db/pkg/dev-libs/-MERGING-x-1/SLOT", "0");
        fixture.file("var/db/pkg/dev-libs/odd/SLOT", "0");
        let tree = fixture.tree();
        let files = Files::new(&tree);
        let system = OperatingSystem { distribution: Some("gentoo".to_owned()), ..OperatingSystem::default() };
        let packages = read(&files, &system).unwrap().packages.unwrap();
        assert_eq!(packages.len(), 1);
        let found = &packages[0];
        assert_eq!(found.name, "dev-libs/openssl");
        assert_eq!((found.version.as_str(), found.release.as_deref()), ("3.0.13", Some("r2")));
        assert_eq!(found.purl.as_deref(), Some("pkg:ebuild/dev-libs/openssl@3.0.13-r2?arch=x86_64&distro=gentoo"));
        assert_eq!(found.url.as_deref(), Some("https://a"));
        assert_eq!(found.installed_size_bytes, Some(12_345));
        assert!(found.installed_at.is_some());
        assert!(files.into_warnings()[0].why.contains("dev-libs/odd"));
    }
}
