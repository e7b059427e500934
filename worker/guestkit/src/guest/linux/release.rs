//! Which distribution this is and in which version: os-release(5), and for what is older than that (before about 2012) or does
//! without, the file by which each distribution tells itself. Their contents are documented by what the distributions'
//! packages of that name install (`fedora-release`, `centos-release`, `base-files`, `aaa_base`…).

use crate::guest::report::OperatingSystem;

use super::files::Files;
use super::os_release;

/// Where os-release lies: where it should, where distributions keep it, in a /usr that is looked at without its root, and
/// where NixOS has it before its first start.
const OS_RELEASES: [&str; 4] =
    ["/etc/os-release", "/usr/lib/os-release", "/lib/os-release", "/nix/var/nix/profiles/system/etc/os-release"];

/// Reads what tells the distribution into `system`.
pub(super) fn identify(files: &Files<'_>, system: &mut OperatingSystem) {
    let found = by_os_release(files, system)
        || by_android(files, system)
        || by_lsb_release(files, system)
        || by_own_file(files, system);
    if found && system.version.is_none() {
        complete_version(files, system);
    }
}

fn by_os_release(files: &Files<'_>, system: &mut OperatingSystem) -> bool {
    for path in OS_RELEASES {
        let Some(text) = files.text(path) else { continue };
        let value = |key: &str| os_release::value_of(&text, key).filter(|value| !value.is_empty());
        let Some(id) = value("ID").or_else(|| value("NAME").map(|name| name.to_ascii_lowercase())) else { continue };
        system.distribution = Some(id);
        system.id_like =
            value("ID_LIKE").map(|like| like.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
        system.product_name = value("PRETTY_NAME").or_else(|| value("NAME"));
        system.version = value("VERSION_ID");
        system.codename = value("VERSION_CODENAME").or_else(|| value("VERSION").as_deref().and_then(in_parentheses));
        system.variant = value("VARIANT_ID");
        system.build_id = value("BUILD_ID");
        system.home_url = value("HOME_URL");
        system.support_end = value("SUPPORT_END");
        system.sources.push(path.to_owned());
        return true;
    }
    false
}

/// `12 (bookworm)` names `bookworm`; a name of several words is no code name that tools use.
fn in_parentheses(version: &str) -> Option<String> {
    let inner = version.split_once('(')?.1.split_once(')')?.0.trim();
    (!inner.is_empty() && !inner.contains(' ')).then(|| inner.to_ascii_lowercase())
}

/// Source: Android's documentation of build properties.
fn by_android(files: &Files<'_>, system: &mut OperatingSystem) -> bool {
    let Some((path, text)) =
        ["/system/build.prop", "/build.prop"].iter().find_map(|path| Some((path, files.text(path)?)))
    else {
        return false;
    };
    let value = |key: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    system.distribution = Some("android".to_owned());
    system.version = value("ro.build.version.release").or_else(|| value("ro.system.build.version.release"));
    system.build_id = value("ro.build.display.id").or_else(|| value("ro.build.id"));
    system.product_name = Some(match &system.version {
        Some(version) => format!("Android {version}"),
        None => "Android".to_owned(),
    });
    system.sources.push((*path).to_owned());
    true
}

/// Names in lsb-release and openwrt_release whose distribution has another ID.
const LSB_IDS: [(&str, &str); 7] = [
    ("ManjaroLinux", "manjaro"),
    ("MandrivaLinux", "mandriva"),
    ("Arch", "arch"),
    ("elementary OS", "elementary"),
    ("EndeavourOS", "endeavouros"),
    ("Kali", "kali"),
    ("RedHatEnterpriseServer", "rhel"),
];

fn lsb_id(name: &str) -> String {
    let known = LSB_IDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    known.map_or_else(|| name.to_ascii_lowercase().replace(' ', "-"), |(_, id)| (*id).to_owned())
}

/// The file of the Linux Standard Base, and OpenWrt's, which has its keys.
fn by_lsb_release(files: &Files<'_>, system: &mut OperatingSystem) -> bool {
    for path in ["/etc/lsb-release", "/etc/openwrt_release"] {
        let Some(text) = files.text(path) else { continue };
        let value = |key: &str| os_release::value_of(&text, key).filter(|value| !value.is_empty());
        // Some have LSB_VERSION alone.
        let Some(name) = value("DISTRIB_ID") else { continue };
        system.distribution = Some(lsb_id(&name));
        system.version = value("DISTRIB_RELEASE");
        system.codename = value("DISTRIB_CODENAME").map(|codename| codename.to_ascii_lowercase());
        system.product_name = value("DISTRIB_DESCRIPTION");
        system.build_id = value("DISTRIB_REVISION");
        system.sources.push(path.to_owned());
        return true;
    }
    false
}

/// Distributions' own files, those of derivatives before those of what they derive from.
const OWN_FILES: [(&str, &str); 32] = [
    ("/etc/oracle-release", "ol"),
    ("/etc/enterprise-release", "ol"),
    ("/etc/centos-release", "centos"),
    ("/etc/rocky-release", "rocky"),
    ("/etc/almalinux-release", "almalinux"),
    ("/etc/sl-release", "scientific"),
    ("/etc/fedora-release", "fedora"),
    ("/etc/altlinux-release", "altlinux"),
    ("/etc/mageia-release", "mageia"),
    ("/etc/mandriva-release", "mandriva"),
    ("/etc/mandrake-release", "mandriva"),
    ("/etc/openmandriva-release", "openmandriva"),
    ("/etc/meego-release", "meego"),
    ("/etc/neokylin-release", "neokylin"),
    ("/etc/pld-release", "pld"),
    ("/etc/redhat-release", "rhel"),
    ("/etc/system-release", "rhel"),
    ("/etc/SuSE-release", "suse"),
    ("/etc/alpine-release", "alpine"),
    ("/etc/devuan_version", "devuan"),
    ("/etc/debian_version", "debian"),
    ("/etc/pardus-release", "pardus"),
    ("/etc/arch-release", "arch"),
    ("/etc/gentoo-release", "gentoo"),
    ("/etc/slackware-version", "slackware"),
    ("/etc/photon-release", "photon"),
    ("/etc/frugalware-release", "frugalware"),
    ("/etc/ttylinux-target", "ttylinux"),
    ("/etc/cirros/version", "cirros"),
    ("/etc/br-version", "buildroot"),
    ("/etc/void-release", "void"),
    ("/etc/NIXOS", "nixos"),
];

/// How the lines of the Red Hat family's files begin: derivatives kept the name of the file, and say who they are in it.
const RED_HAT_NAMES: [(&str, &str); 18] = [
    ("centos", "centos"),
    ("fedora", "fedora"),
    ("scientific", "scientific"),
    ("cloudlinux", "cloudlinux"),
    ("rocky", "rocky"),
    ("almalinux", "almalinux"),
    ("oracle", "ol"),
    ("enterprise linux", "ol"),
    ("amazon linux", "amzn"),
    ("virtuozzo", "virtuozzo"),
    ("xenserver", "xenenterprise"),
    ("xcp-ng", "xenenterprise"),
    ("asianux", "asianux"),
    ("springdale", "springdale"),
    ("clearos", "clearos"),
    ("euleros", "euleros"),
    ("openeuler", "openEuler"),
    ("neokylin", "neokylin"),
];

fn by_own_file(files: &Files<'_>, system: &mut OperatingSystem) -> bool {
    for (path, distribution) in OWN_FILES {
        let Some(text) = files.text(path) else { continue };
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
        let lower = line.as_deref().unwrap_or_default().to_ascii_lowercase();
        let distribution = match distribution {
            "rhel" => RED_HAT_NAMES.iter().find(|(name, _)| lower.starts_with(name)).map_or("rhel", |(_, id)| *id),
            "suse" => suse(&lower),
            // CirrOS is made by Buildroot.
            "buildroot" if files.exists("/usr/share/cirros/logo") => "cirros",
            other => other,
        };
        system.distribution = Some(distribution.to_owned());
        system.version = match distribution {
            "sles" | "sled" | "nld" | "opensuse" | "suse" => suse_version(&text),
            _ => line.as_deref().and_then(version_in),
        };
        system.codename = line.as_deref().and_then(in_parentheses).filter(|name| !name.contains("update"));
        let names_itself = lower.contains(|c: char| c.is_ascii_alphabetic());
        system.product_name = match distribution {
            "debian" => {
                // `trixie/sid` is what the next stable release is made of.
                system.codename = lower.split_once('/').map(|(codename, _)| codename.to_owned());
                line.map(|line| format!("Debian GNU/Linux {line}"))
            }
            "devuan" => line.map(|line| format!("Devuan GNU/Linux {line}")),
            "alpine" => line.map(|line| format!("Alpine Linux {line}")),
            "buildroot" => line.map(|line| format!("Buildroot {line}")),
            "cirros" => line.map(|line| format!("CirrOS {line}")),
            _ => line.filter(|_| names_itself),
        };
        system.sources.push(path.to_owned());
        return true;
    }
    false
}

/// SUSE's products by the first line of SuSE-release.
fn suse(lower: &str) -> &'static str {
    match () {
        () if lower.contains("enterprise desktop") => "sled",
        () if lower.starts_with("suse linux enterprise") => "sles",
        () if lower.starts_with("suse sles") => "sles",
        () if lower.starts_with("novell linux desktop") => "nld",
        () if lower.starts_with("opensuse") || lower.starts_with("suse linux ") => "opensuse",
        () => "suse",
    }
}

/// `VERSION = 11` and `PATCHLEVEL = 3` are version 11.3, as SUSE's os-release writes it.
fn suse_version(text: &str) -> Option<String> {
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let (found, value) = line.split_once('=')?;
            (found.trim() == key).then(|| value.trim().to_owned())
        })
    };
    let version = value("VERSION")?;
    match value("PATCHLEVEL").filter(|level| level != "0") {
        Some(level) if !version.contains('.') => Some(format!("{version}.{level}")),
        _ => Some(version),
    }
}

/// The first word that begins with a digit; `5 (Tikanga Update 4)` and `release 4 Update 8` tell the point release in words.
pub(super) fn version_in(line: &str) -> Option<String> {
    let version = line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let update = line.split_once("Update ").and_then(|(_, rest)| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        (!digits.is_empty()).then_some(digits)
    });
    match update {
        Some(update) if !version.contains('.') => Some(format!("{version}.{update}")),
        _ => Some(version.to_owned()),
    }
}

/// The version, where os-release has none and the distribution writes one elsewhere.
fn complete_version(files: &Files<'_>, system: &mut OperatingSystem) {
    let distribution = system.distribution.clone().unwrap_or_default();
    let (path, version) = match distribution.as_str() {
        "gentoo" => {
            let path = "/etc/gentoo-release";
            (path, files.first_line(path).and_then(|line| version_in(&line)))
        }
        "debian" => {
            let path = "/etc/debian_version";
            let line = files.first_line(path).unwrap_or_default();
            if let Some((codename, _)) = line.split_once('/')
                && system.codename.is_none()
            {
                system.codename = Some(codename.to_owned());
            }
            (path, version_in(&line))
        }
        _ => {
            let path = "/etc/lsb-release";
            let text = files.text(path).unwrap_or_default();
            let is_same = os_release::value_of(&text, "DISTRIB_ID").is_some_and(|name| lsb_id(&name) == distribution);
            (path, os_release::value_of(&text, "DISTRIB_RELEASE").filter(|_| is_same))
        }
    };
    // `rolling` is no version.
    if let Some(version) = version.filter(|version| version.starts_with(|c: char| c.is_ascii_digit())) {
        system.version = Some(version);
        if !system.sources.iter().any(|source| source == path) {
            system.sources.push(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    fn found(files: &[(&str, &str)]) -> OperatingSystem {
        let fixture = Fixture::new();
        for (path, text) in files {
            fixture.file(path, text);
        }
        let tree = fixture.tree();
        let mut system = OperatingSystem::default();
        identify(&Files::new(&tree), &mut system);
        system
    }

    /// Lines as the distributions' packages have them.
    #[test]
    fn own_files_tell_distribution_and_version() {
        let cases: [(&str, &str, &str, Option<&str>); 24] = [
            ("etc/debian_version", "5.0.1\n", "debian", Some("5.0.1")),
            ("etc/debian_version", "lenny/sid\n", "debian", None),
            ("etc/fedora-release", "Fedora release 14 (Laughlin)\n", "fedora", Some("14")),
            ("etc/redhat-release", "CentOS release 6.5 (Final)\n", "centos", Some("6.5")),
            ("etc/redhat-release", "CentOS release 4 Update 8 (Final)\n", "centos", Some("4.8")),
            ("etc/redhat-release", "Red Hat Enterprise Linux Server release 6.4 (Santiago)\n", "rhel", Some("6.4")),
            ("etc/redhat-release", "Red Hat Enterprise Linux AS release 4 (Nahant Update 8)\n", "rhel", Some("4.8")),
            ("etc/redhat-release", "CloudLinux Server release 5.11 (Vladislav Volkov)\n", "cloudlinux", Some("5.11")),
            ("etc/redhat-release", "Scientific Linux release 6.4 (Carbon)\n", "scientific", Some("6.4")),
            ("etc/system-release", "Amazon Linux AMI release 2014.03\n", "amzn", Some("2014.03")),
            (
                "etc/enterprise-release",
                "Enterprise Linux Enterprise Linux Server release 5.4 (Carthage)\n",
                "ol",
                Some("5.4"),
            ),
            (
                "etc/SuSE-release",
                "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 3\n",
                "sles",
                Some("11.3"),
            ),
            ("etc/SuSE-release", "SUSE Linux Enterprise Desktop 10 (i586)\nVERSION = 10\n", "sled", Some("10")),
            ("etc/SuSE-release", "openSUSE 11.1 (i586)\nVERSION = 11.1\n", "opensuse", Some("11.1")),
            ("etc/arch-release", "", "arch", None),
            ("etc/gentoo-release", "Gentoo Base System release 2.2\n", "gentoo", Some("2.2")),
            ("etc/slackware-version", "Slackware 14.2\n", "slackware", Some("14.2")),
            ("etc/alpine-release", "3.4.6\n", "alpine", Some("3.4.6")),
            ("etc/mandriva-release", "Mandriva Linux release 2010.1 (Official) for i586\n", "mandriva", Some("2010.1")),
            ("etc/altlinux-release", "ALT Linux 6.0.0 Server (Berio)\n", "altlinux", Some("6.0.0")),
            ("etc/cirros/version", "0.3.4\n", "cirros", Some("0.3.4")),
            ("etc/br-version", "2015.08\n", "buildroot", Some("2015.08")),
            (
                "etc/lsb-release",
                "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=10.04\nDISTRIB_DESCRIPTION=\"Ubuntu 10.04 LTS\"\n",
                "ubuntu",
                Some("10.04"),
            ),
            ("etc/openwrt_release", "DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='21.02.3'\n", "openwrt", Some("21.02.3")),
        ];
        for (path, text, distribution, version) in cases {
            let system = found(&[(path, text)]);
            assert_eq!(system.distribution.as_deref(), Some(distribution), "{path} {text:?}");
            assert_eq!(system.version.as_deref(), version, "{path} {text:?}");
            assert_eq!(system.sources, [format!("/{path}")]);
        }
    }

    #[test]
    fn a_missing_version_is_looked_for_where_the_distribution_writes_it() {
        let gentoo = ("etc/os-release", "NAME=Gentoo\nID=gentoo\n");
        let system = found(&[gentoo, ("etc/gentoo-release", "Gentoo Base System release 2.15\n")]);
        assert_eq!(system.version.as_deref(), Some("2.15"));
        let lsb = "DISTRIB_ID=ManjaroLinux\nDISTRIB_RELEASE=rolling\n";
        let system = found(&[("etc/os-release", "ID=manjaro\n"), ("etc/lsb-release", lsb)]);
        assert_eq!(system.version, None);
        let testing = ("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux trixie/sid\"\n");
        let system = found(&[testing, ("etc/debian_version", "trixie/sid\n")]);
        assert_eq!((system.version, system.codename.as_deref()), (None, Some("trixie")));
    }

    #[test]
    fn android_is_told_by_its_properties() {
        let text = "# begin\nro.build.id=PI\nro.build.version.release=9\n";
        let system = found(&[("system/build.prop", text)]);
        assert_eq!(system.distribution.as_deref(), Some("android"));
        assert_eq!(system.product_name.as_deref(), Some("Android 9"));
    }

    /// The `distro` package 1.9.0 for Python on the same files.
    #[test]
    fn os_releases_agree_with_python_distro() {
        let Some(corpus) = std::env::var_os("GUESTKIT_CORPUS") else {
            assert!(std::env::var_os("CI").is_none(), "GUESTKIT_CORPUS must be set");
            println!("corpus not present");
            return;
        };
        let corpus = std::path::Path::new(&corpus).join("os-release");
        let truth = std::fs::read(corpus.join("truth/python-distro-1.9.0.json")).unwrap();
        let truth: serde_json::Value = serde_json::from_slice(&truth).unwrap();
        let mut checked = 0;
        for (path, expected) in truth.as_object().unwrap() {
            let text = String::from_utf8(std::fs::read(corpus.join(path)).unwrap()).unwrap();
            let system = found(&[("etc/os-release", &text)]);
            let same = |told: &Option<String>, key: &str| {
                assert_eq!(
                    told.as_deref().unwrap_or_default(),
                    expected[key].as_str().unwrap_or_default(),
                    "{path}: {key}"
                );
            };
            for (key, value) in expected["raw"].as_object().unwrap() {
                let told = os_release::value_of(&text, &key.to_ascii_uppercase());
                // It makes these two itself.
                if !matches!(key.as_str(), "codename" | "release_codename") {
                    assert_eq!(told.as_deref(), value.as_str(), "{path}: {key}");
                }
            }
            // Its own `id` is of a vocabulary of its own; ID is compared with the rest.
            assert_eq!(system.distribution.as_deref(), expected["raw"]["id"].as_str(), "{path}");
            same(&Some(system.id_like.join(" ")), "like");
            // For a system without a version it gives that of the machine it ran on.
            if !path.contains("debiantesting") {
                same(&system.version, "version");
            }
            checked += 1;
        }
        assert!(checked > 50, "{checked}");
    }
}
