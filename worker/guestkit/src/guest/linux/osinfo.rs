//! The short id that the osinfo database (osinfo-db 20250606) gives a Linux, by the rules its ids are made by; a release that
//! is newer than the database gets the id it will have. What the database does not have gets none.

use crate::guest::report::OperatingSystem;

/// The id, such as `debian12`, `rhel9.4`, `sle15sp6`.
pub(super) fn short_id(system: &OperatingSystem) -> Option<String> {
    let id = system.distribution.as_deref()?;
    let product = system.product_name.as_deref().unwrap_or_default();
    match id {
        "arch" => return Some("archlinux".to_owned()),
        "manjaro" | "gentoo" => return Some(id.to_owned()),
        "void" => return Some("voidlinux".to_owned()),
        "opensuse-tumbleweed" => return Some("opensusetumbleweed".to_owned()),
        "clear-linux-os" => return Some("clearlinux".to_owned()),
        _ => {}
    }
    let version = system.version.as_deref()?;
    // ALT's branches are named `p10`.
    if id == "altlinux" && version.starts_with('p') {
        return Some(format!("alt.{version}"));
    }
    let major = system.version_major?;
    let minor = system.version_minor.unwrap_or(0);
    Some(match id {
        "debian" | "raspbian" if major >= 4 => format!("debian{major}"),
        "debian" => format!("debian{major}.{minor}"),
        "fedora" | "mageia" | "rocky" | "eurolinux" | "pureos" | "trisquel" => format!("{id}{major}"),
        "ubuntu" => format!("ubuntu{major}.{minor:02}"),
        "centos" if major >= 9 || product.contains("Stream") => format!("centos-stream{major}"),
        "centos" if major == 8 => "centos8".to_owned(),
        // The later point releases of 7 have no ids of their own.
        "centos" if major == 7 => "centos7.0".to_owned(),
        "centos" => format!("centos{major}.{minor}"),
        "almalinux" if product.contains("Kitten") => format!("almalinux-kitten{major}"),
        "almalinux" => format!("almalinux{major}"),
        // Scientific Linux 7 calls itself rhel.
        "rhel" if product.starts_with("Scientific Linux") => format!("scientificlinux{major}.{minor}"),
        "scientific" => format!("scientificlinux{major}.{minor}"),
        "rhel" if major == 3 && minor == 0 => "rhel3".to_owned(),
        "rhel" => format!("rhel{major}.{minor}"),
        // Before 5.5 it was called Enterprise Linux.
        "ol" if (major, minor) < (5, 5) => format!("oel{major}.{minor}"),
        "ol" => format!("ol{major}.{minor}"),
        // From 15 on server and desktop are one.
        "sles" | "sled" | "sles_sap" if major >= 15 => with_service_pack("sle", major, minor),
        "sles" | "sled" => with_service_pack(id, major, minor),
        "sle-micro" => format!("slem{major}.{minor}"),
        "opensuse" | "opensuse-leap" => format!("opensuse{major}.{minor}"),
        "alpine" => format!("alpinelinux{major}.{minor}"),
        "altlinux" if major >= 8 => format!("alt{major}.{minor}"),
        "altlinux" => format!("altlinux{major}.{minor}"),
        "nixos" => format!("nixos-{major}.{minor:02}"),
        "circle" | "anolis" | "miraclelinux" | "asianux" => format!("{id}{major}.{minor}"),
        "slackware" => format!("slackware{version}"),
        "cirros" => format!("cirros{version}"),
        "mandriva" if minor == 0 && matches!(major, 2007 | 2011) => format!("mandriva{major}"),
        "mandriva" => format!("mandriva{major}.{minor}"),
        // Later ones are not in the database.
        "pop" if (major, minor) <= (20, 10) => format!("popos{major}.{minor:02}"),
        "elementary" if major == 5 && minor == 0 => "elementary5.0".to_owned(),
        "endless" => format!("eos{major}.{minor}"),
        _ => return None,
    })
}

fn with_service_pack(name: &str, major: u32, minor: u32) -> String {
    if minor == 0 { format!("{name}{major}") } else { format!("{name}{major}sp{minor}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids of osinfo-db 20250606.
    #[test]
    fn ids_are_those_of_the_database() {
        let cases = [
            ("debian", "12", 12, 5, Some("debian12")),
            ("ubuntu", "24.04", 24, 4, Some("ubuntu24.04")),
            ("centos", "7", 7, 9, Some("centos7.0")),
            ("centos", "6.10", 6, 10, Some("centos6.10")),
            ("centos", "9", 9, 0, Some("centos-stream9")),
            ("rocky", "9.4", 9, 4, Some("rocky9")),
            ("almalinux", "9.4", 9, 4, Some("almalinux9")),
            ("rhel", "9.4", 9, 4, Some("rhel9.4")),
            ("ol", "9.4", 9, 4, Some("ol9.4")),
            ("ol", "5.4", 5, 4, Some("oel5.4")),
            ("sles", "15.6", 15, 6, Some("sle15sp6")),
            ("sles", "15", 15, 0, Some("sle15")),
            ("sles", "11.4", 11, 4, Some("sles11sp4")),
            ("sled", "12", 12, 0, Some("sled12")),
            ("opensuse-leap", "15.6", 15, 6, Some("opensuse15.6")),
            ("opensuse-tumbleweed", "20240701", 20_240_701, 0, Some("opensusetumbleweed")),
            ("alpine", "3.19.1", 3, 19, Some("alpinelinux3.19")),
            ("arch", "", 0, 0, Some("archlinux")),
            ("nixos", "24.05", 24, 5, Some("nixos-24.05")),
            ("altlinux", "p10", 10, 0, Some("alt.p10")),
            ("altlinux", "10.1", 10, 1, Some("alt10.1")),
            ("slackware", "13.37", 13, 37, Some("slackware13.37")),
            ("mageia", "9", 9, 0, Some("mageia9")),
            ("kali", "2024.2", 2024, 2, None),
            ("amzn", "2023", 2023, 0, None),
            ("photon", "5.0", 5, 0, None),
            ("something", "1", 1, 0, None),
        ];
        for (id, version, major, minor, expected) in cases {
            let system = OperatingSystem {
                distribution: Some(id.to_owned()),
                version: Some(version.to_owned()).filter(|version| !version.is_empty()),
                version_major: Some(major),
                version_minor: Some(minor),
                ..OperatingSystem::default()
            };
            assert_eq!(short_id(&system).as_deref(), expected, "{id} {version}");
        }
    }
}
