//! The packages of Slackware: a file for each, whose name is the package's. Source: installpkg(8) and `PACKAGES.TXT` of Slackware.

use crate::guest::report::{OperatingSystem, Package};

use super::files::Files;
use super::packages::{Installed, PACKAGES_MAX};
use super::purl;

/// Where they lie since 15.0, and before.
const FOLDERS: [&str; 2] = ["/var/lib/pkgtools/packages", "/var/log/packages"];

/// The packages that Slackware's tools installed; `None` where there are none of it.
pub(super) fn read(files: &Files<'_>, system: &OperatingSystem) -> Option<Installed> {
    let folder = FOLDERS.into_iter().find(|folder| files.is_dir(folder) && !files.names(folder).is_empty())?;
    let names = files.names(folder).into_iter().take(PACKAGES_MAX);
    let packages: Vec<_> = names
        .filter_map(|name| {
            let text = files.text(&format!("{folder}/{name}")).unwrap_or_default();
            package(&name, &text, system)
        })
        .collect();
    // A folder of other files is none of its.
    (!packages.is_empty()).then(|| Installed {
        manager: "pkgtools",
        databases: vec![folder.to_owned()],
        packages: Some(packages),
    })
}

/// `NAME-VERSION-ARCH-BUILD`, of which only the name may hold a hyphen.
fn package(file: &str, text: &str, system: &OperatingSystem) -> Option<Package> {
    let mut parts = file.rsplitn(4, '-');
    let (build, arch, version, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let field = |key: &str| Some(text.lines().find_map(|line| line.strip_prefix(key))?.trim());
    // The description's first line is the name and a summary in parentheses.
    let about = field(&format!("{name}:")).map(|line| line.strip_prefix(name).unwrap_or(line).trim());
    let summary = about.map(|line| line.trim_start_matches('(').trim_end_matches(')')).filter(|line| !line.is_empty());
    let full_version = format!("{version}-{build}");
    let purl = system.distribution.as_deref().map(|distribution| {
        purl::purl("generic", &distribution.to_ascii_lowercase(), name, &full_version, &[("arch", Some(arch))])
    });
    Some(Package {
        format: "pkgtools".to_owned(),
        name: name.to_owned(),
        state: "installed".to_owned(),
        version: version.to_owned(),
        release: Some(build.to_owned()),
        arch: Some(arch.to_owned()),
        summary: summary.map(str::to_owned),
        installed_size_bytes: field("UNCOMPRESSED PACKAGE SIZE:").and_then(size),
        purl,
        full_version,
        ..Package::default()
    })
}

/// `1.2M`, or `340 K` of before 13.0, in bytes.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text.chars().last()?.to_ascii_uppercase() {
        'K' => 1_u64 << 10,
        'M' => 1 << 20,
        'G' => 1 << 30,
        _ => 1,
    };
    let (whole, tenths) = digits.split_once('.').unwrap_or((digits, "0"));
    let tenths = tenths.get(..1)?.parse::<u64>().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(tenths.checked_mul(unit)? / 10)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn files_become_packages() {
        let fixture = Fixture::new();
        fixture.file(
            "var/log/packages/aaa_base-15.0-x86_64-4_slack15.0",
            "PACKAGE NAME:     aaa_base-15.0-x86_64-4_slack15.0\nCOMPRESSED PACKAGE SIZE:     12K\n\
             UNCOMPRESSED PACKAGE SIZE:     1.5M\nPACKAGE DESCRIPTION:\naaa_base: aaa_base (Basic Linux filesystem package)\naaa_base:\nFILE LIST:\n./\n",
        );
        fixture.file("var/log/packages/xorg-server-1.20.14-x86_64-1", "");
        fixture.file("var/log/packages/README", "");
        let tree = fixture.tree();
        let system = OperatingSystem { distribution: Some("slackware".to_owned()), ..OperatingSystem::default() };
        let found = read(&Files::new(&tree), &system).unwrap().packages.unwrap();
        let told: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.full_version.as_str())).collect();
        assert_eq!(told, [("aaa_base", "15.0-4_slack15.0"), ("xorg-server", "1.20.14-1")]);
        assert_eq!(found[0].summary.as_deref(), Some("Basic Linux filesystem package"));
        assert_eq!((found[0].installed_size_bytes, found[0].arch.as_deref()), (Some(1_572_864), Some("x86_64")));
    }
}
