//! Until when systems get security updates: a table with a date of its own. Sources: the life cycle pages of Debian, Ubuntu,
//! Red Hat, AlmaLinux, Rocky Linux, Oracle, CentOS, Fedora, SUSE, openSUSE, Amazon, Alpine and Microsoft.

use crate::guest::report::{OperatingSystem, WindowsSystem};

/// The day that the table is of.
pub(crate) const DATA_DATE: &str = "2026-01-01";

/// How long a system is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Support {
    /// The last day of updates that everybody gets.
    pub(crate) end: &'static str,
    /// The last day of updates that are paid for, or given on request.
    pub(crate) extended: Option<&'static str>,
}

/// Identifier of os-release, version as it begins, end, extended end. Debian's end is that of its long-term support, which
/// everybody gets from the same sources; its extended one is paid for.
const LINUX: [(&str, &str, &str, &str); 120] = [
    ("debian", "7", "2018-05-31", "2020-06-30"),
    ("debian", "8", "2020-06-30", "2025-06-30"),
    ("debian", "9", "2022-06-30", "2027-06-30"),
    ("debian", "10", "2024-06-30", "2029-06-30"),
    ("debian", "11", "2026-08-31", "2031-06-30"),
    ("debian", "12", "2028-06-30", "2033-06-30"),
    ("debian", "13", "2030-06-30", "2035-06-30"),
    ("ubuntu", "12.04", "2017-04-28", "2019-04-30"),
    ("ubuntu", "14.04", "2019-04-25", "2026-04-25"),
    ("ubuntu", "16.04", "2021-04-30", "2028-04-30"),
    ("ubuntu", "18.04", "2023-05-31", "2030-04-30"),
    ("ubuntu", "20.04", "2025-05-31", "2032-04-30"),
    ("ubuntu", "20.10", "2021-07-22", ""),
    ("ubuntu", "21.04", "2022-01-20", ""),
    ("ubuntu", "21.10", "2022-07-14", ""),
    ("ubuntu", "22.04", "2027-04-30", "2034-04-30"),
    ("ubuntu", "22.10", "2023-07-20", ""),
    ("ubuntu", "23.04", "2024-01-25", ""),
    ("ubuntu", "23.10", "2024-07-11", ""),
    ("ubuntu", "24.04", "2029-05-31", "2036-04-30"),
    ("ubuntu", "24.10", "2025-07-10", ""),
    ("ubuntu", "25.04", "2026-01-15", ""),
    ("ubuntu", "25.10", "2026-07-31", ""),
    ("ubuntu", "26.04", "2031-04-30", "2038-04-30"),
    ("rhel", "5", "2017-03-31", "2020-11-30"),
    ("rhel", "6", "2020-11-30", "2024-06-30"),
    ("rhel", "7", "2024-06-30", "2029-05-31"),
    ("rhel", "8", "2029-05-31", "2032-05-31"),
    ("rhel", "9", "2032-05-31", "2035-05-31"),
    ("rhel", "10", "2035-05-31", "2038-05-31"),
    ("centos", "5", "2017-03-31", ""),
    ("centos", "6", "2020-11-30", ""),
    ("centos", "7", "2024-06-30", ""),
    ("almalinux", "8", "2029-03-01", ""),
    ("almalinux", "9", "2032-05-31", ""),
    ("almalinux", "10", "2035-05-31", ""),
    ("rocky", "8", "2029-05-31", ""),
    ("rocky", "9", "2032-05-31", ""),
    ("rocky", "10", "2035-05-31", ""),
    ("ol", "6", "2021-03-31", "2024-12-31"),
    ("ol", "7", "2024-12-31", "2028-06-30"),
    ("ol", "8", "2029-07-31", "2032-07-31"),
    ("ol", "9", "2032-06-30", "2035-06-30"),
    ("ol", "10", "2035-06-30", "2038-06-30"),
    ("fedora", "30", "2020-05-26", ""),
    ("fedora", "31", "2020-11-24", ""),
    ("fedora", "32", "2021-05-25", ""),
    ("fedora", "33", "2021-11-30", ""),
    ("fedora", "34", "2022-06-07", ""),
    ("fedora", "35", "2022-12-13", ""),
    ("fedora", "36", "2023-05-16", ""),
    ("fedora", "37", "2023-12-05", ""),
    ("fedora", "38", "2024-05-21", ""),
    ("fedora", "39", "2024-11-26", ""),
    ("fedora", "40", "2025-05-13", ""),
    ("fedora", "41", "2025-12-15", ""),
    ("fedora", "42", "2026-05-13", ""),
    ("fedora", "43", "2026-12-02", ""),
    ("fedora", "44", "2027-06-02", ""),
    ("sles", "11.4", "2019-03-31", "2028-03-31"),
    ("sles", "12.3", "2019-06-30", "2022-06-30"),
    ("sles", "12.4", "2020-06-30", "2023-06-30"),
    ("sles", "12.5", "2024-10-31", "2027-10-31"),
    ("sles", "15.0", "2019-12-31", "2022-12-31"),
    ("sles", "15.1", "2021-01-31", "2024-01-31"),
    ("sles", "15.2", "2021-12-31", "2024-12-31"),
    ("sles", "15.3", "2022-12-31", "2025-12-31"),
    ("sles", "15.4", "2023-12-31", "2026-12-31"),
    ("sles", "15.5", "2024-12-31", "2027-12-31"),
    ("sles", "15.6", "2025-12-31", "2028-12-31"),
    ("sles", "15.7", "2031-07-31", "2034-07-31"),
    ("sles", "16.0", "2027-11-30", "2030-11-30"),
    ("opensuse-leap", "42.3", "2019-07-01", ""),
    ("opensuse-leap", "15.0", "2019-12-03", ""),
    ("opensuse-leap", "15.1", "2021-02-02", ""),
    ("opensuse-leap", "15.2", "2022-01-04", ""),
    ("opensuse-leap", "15.3", "2022-12-31", ""),
    ("opensuse-leap", "15.4", "2023-12-07", ""),
    ("opensuse-leap", "15.5", "2024-12-31", ""),
    ("opensuse-leap", "15.6", "2026-04-30", ""),
    ("opensuse-leap", "16.0", "2027-10-31", ""),
    ("amzn", "2018", "2020-12-31", "2023-12-31"),
    ("amzn", "2023", "2029-06-30", ""),
    ("amzn", "2", "2026-06-30", ""),
    ("alpine", "3.8", "2020-05-01", ""),
    ("alpine", "3.9", "2020-11-01", ""),
    ("alpine", "3.10", "2021-05-01", ""),
    ("alpine", "3.11", "2021-11-01", ""),
    ("alpine", "3.12", "2022-05-01", ""),
    ("alpine", "3.13", "2022-11-01", ""),
    ("alpine", "3.14", "2023-05-01", ""),
    ("alpine", "3.15", "2023-11-01", ""),
    ("alpine", "3.16", "2024-05-23", ""),
    ("alpine", "3.17", "2024-11-22", ""),
    ("alpine", "3.18", "2025-05-09", ""),
    ("alpine", "3.19", "2025-11-01", ""),
    ("alpine", "3.20", "2026-04-01", ""),
    ("alpine", "3.21", "2026-11-01", ""),
    ("alpine", "3.22", "2027-05-01", ""),
    ("alpine", "3.23", "2027-11-01", ""),
    ("photon", "3", "2024-03-01", ""),
    ("photon", "4", "2026-03-01", ""),
    ("photon", "5", "2028-05-02", ""),
    ("mariner", "2", "2025-07-31", ""),
    ("azurelinux", "3", "2027-07-31", ""),
    ("centos-stream", "8", "2024-05-31", ""),
    ("centos-stream", "9", "2027-05-31", ""),
    ("centos-stream", "10", "2030-05-31", ""),
    ("linuxmint", "20", "2025-04-30", ""),
    ("linuxmint", "21", "2027-04-30", ""),
    ("linuxmint", "22", "2029-04-30", ""),
    ("nixos", "23.11", "2024-06-30", ""),
    ("nixos", "24.05", "2024-12-31", ""),
    ("nixos", "24.11", "2025-06-30", ""),
    ("nixos", "25.05", "2025-12-31", ""),
    ("nixos", "25.11", "2026-06-30", ""),
    ("openwrt", "21.02", "2023-05-01", ""),
    ("openwrt", "22.03", "2024-04-18", ""),
    ("openwrt", "23.05", "2025-08-29", ""),
    ("openwrt", "24.10", "2026-09-01", ""),
];

/// Distributions that are always the newest.
const ROLLING: [&str; 9] =
    ["arch", "archlinux", "opensuse-tumbleweed", "gentoo", "void", "manjaro", "kali", "wolfi", "opensuse-microos"];

/// Windows Server by build; for each edition updates come until the same day.
const SERVERS: [(u32, &str, &str); 15] = [
    (3790, "2015-07-14", ""),
    (6001, "2011-07-12", ""),
    (6002, "2020-01-14", "2026-01-13"),
    (6003, "2020-01-14", "2026-01-13"),
    (7600, "2013-04-09", ""),
    (7601, "2020-01-14", "2026-01-13"),
    (9200, "2023-10-10", "2026-10-13"),
    (9600, "2023-10-10", "2026-10-13"),
    (14393, "2027-01-12", ""),
    (17763, "2029-01-09", ""),
    (18363, "2021-05-11", ""),
    (19042, "2022-08-09", ""),
    (20348, "2031-10-14", ""),
    (25398, "2025-10-24", ""),
    (26100, "2034-11-14", ""),
];

/// Clients by build: Home and Professional, Enterprise and Education, long-term channel, extended.
const CLIENTS: [(u32, &str, &str, &str, &str); 26] = [
    (2600, "2014-04-08", "", "", ""),
    (3790, "2014-04-08", "", "", ""),
    (6002, "2017-04-11", "", "", ""),
    (7600, "2013-04-09", "", "", ""),
    (7601, "2020-01-14", "", "", "2023-01-10"),
    (9200, "2016-01-12", "", "", ""),
    (9600, "2023-01-10", "", "", ""),
    (10240, "2017-05-09", "", "2025-10-14", ""),
    (10586, "2017-10-10", "2018-04-10", "", ""),
    (14393, "2018-04-10", "2019-04-09", "2026-10-13", ""),
    (15063, "2018-10-09", "2019-10-08", "", ""),
    (16299, "2019-04-09", "2020-10-13", "", ""),
    (17134, "2019-11-12", "2021-05-11", "", ""),
    (17763, "2020-11-10", "2021-05-11", "2029-01-09", ""),
    (18362, "2020-12-08", "", "", ""),
    (18363, "2021-05-11", "2022-05-10", "", ""),
    (19041, "2021-12-14", "", "", ""),
    (19042, "2022-05-10", "2023-05-09", "", ""),
    (19043, "2022-12-13", "", "", ""),
    (19044, "2023-06-13", "2024-06-11", "2027-01-12", ""),
    (19045, "2025-10-14", "", "", "2028-10-10"),
    (22000, "2023-10-10", "2024-10-08", "", ""),
    (22621, "2024-10-08", "2025-10-14", "", ""),
    (22631, "2025-11-11", "2026-11-10", "", ""),
    (26100, "2026-10-13", "2027-10-12", "2029-10-09", ""),
    (26200, "2027-10-12", "2028-10-10", "", ""),
];

/// What is known of a system's support.
pub(crate) enum Known {
    Until(Support),
    /// It has no versions that end.
    Rolling,
    /// The table does not have it; its name.
    Nothing(String),
}

/// Looks a system up.
pub(crate) fn of(system: &OperatingSystem, is_stream: bool) -> Known {
    if let Some(windows) = &system.windows {
        return of_windows(system, windows);
    }
    let distribution = system.distribution.as_deref().unwrap_or_default();
    let name = match distribution {
        "redhat" | "redhatlinux" => "rhel",
        "oraclelinux" => "ol",
        "rockylinux" => "rocky",
        "sled" | "sles_sap" | "sle_hpc" => "sles",
        "opensuse" => "opensuse-leap",
        "centos" if is_stream => "centos-stream",
        other => other,
    };
    let version = system.version.as_deref().unwrap_or_default();
    let codename = system.codename.as_deref().unwrap_or_default();
    // Testing and unstable of Debian have no number.
    if ROLLING.contains(&name) || (name == "debian" && version.is_empty()) || matches!(codename, "sid" | "rolling") {
        return Known::Rolling;
    }
    let begins = |known: &str| {
        version.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', ' ']))
    };
    let full = if name == "sles" && !version.contains('.') { format!("{version}.0") } else { version.to_owned() };
    let entry = LINUX.iter().find(|(id, known, ..)| *id == name && (begins(known) || full == *known));
    match entry {
        Some((_, _, end, extended)) => Known::Until(Support { end, extended: some(extended) }),
        None => Known::Nothing(format!("{name} {version}").trim().to_owned()),
    }
}

fn some(day: &'static str) -> Option<&'static str> {
    (!day.is_empty()).then_some(day)
}

fn of_windows(system: &OperatingSystem, windows: &WindowsSystem) -> Known {
    let build = windows.build.as_deref().or(system.build_id.as_deref()).unwrap_or_default();
    let number = build.split('.').next().and_then(|number| number.parse::<u32>().ok());
    let name = || Known::Nothing(format!("Windows build {build}"));
    let Some(number) = number else { return name() };
    let is_server = windows.product_type.as_deref().is_some_and(|kind| kind != "workstation")
        || windows.installation_type.as_deref().is_some_and(|kind| kind.starts_with("Server"));
    if is_server {
        let entry = SERVERS.iter().find(|(known, ..)| *known == number);
        return entry.map_or_else(name, |(_, end, extended)| Known::Until(Support { end, extended: some(extended) }));
    }
    let edition = windows.edition.as_deref().unwrap_or_default();
    let is_long = edition.starts_with("EnterpriseS") || edition.starts_with("IoTEnterpriseS");
    let is_company =
        ["Enterprise", "Education", "ServerRdsh", "IoTEnterprise"].iter().any(|kind| edition.starts_with(kind));
    let Some((_, end, company, long, extended)) = CLIENTS.iter().find(|(known, ..)| *known == number) else {
        return name();
    };
    let end = match (is_long, is_company) {
        (true, _) if !long.is_empty() => long,
        (_, true) if !company.is_empty() => company,
        _ => end,
    };
    Known::Until(Support { end, extended: some(extended) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_by_their_beginning() {
        let system = |name: &str, version: &str| OperatingSystem {
            distribution: Some(name.to_owned()),
            version: Some(version.to_owned()),
            ..OperatingSystem::default()
        };
        let end = |name, version| match of(&system(name, version), false) {
            Known::Until(support) => support.end,
            Known::Rolling => "rolling",
            Known::Nothing(_) => "unknown",
        };
        assert_eq!(end("debian", "12"), "2028-06-30");
        assert_eq!(end("rhel", "9.4"), "2032-05-31");
        assert_eq!(end("rhel", "10.0"), "2035-05-31");
        assert_eq!(end("alpine", "3.20.3"), "2026-04-01");
        assert_eq!(end("alpine", "3.2.3"), "unknown");
        assert_eq!(end("sles", "15.5"), "2024-12-31");
        assert_eq!(end("sles", "15"), "2019-12-31");
        assert_eq!(end("amzn", "2"), "2026-06-30");
        assert_eq!(end("amzn", "2023"), "2029-06-30");
        assert_eq!(end("arch", ""), "rolling");
    }

    #[test]
    fn editions_of_windows_end_on_their_own_days() {
        let system = |build: &str, edition: &str, kind: &str| OperatingSystem {
            windows: Some(WindowsSystem {
                build: Some(build.to_owned()),
                edition: Some(edition.to_owned()),
                product_type: Some(kind.to_owned()),
                ..WindowsSystem::default()
            }),
            ..OperatingSystem::default()
        };
        let end = |build, edition, kind| match of(&system(build, edition, kind), false) {
            Known::Until(support) => support.end,
            _ => "unknown",
        };
        assert_eq!(end("19045.3803", "Professional", "workstation"), "2025-10-14");
        assert_eq!(end("22631.1", "Enterprise", "workstation"), "2026-11-10");
        assert_eq!(end("17763.1", "EnterpriseS", "workstation"), "2029-01-09");
        assert_eq!(end("17763.1", "ServerStandard", "server"), "2029-01-09");
        assert_eq!(end("1.1", "x", "server"), "unknown");
    }
}
