//! When systems stop getting fixes: the publishers' own announcements, by the day in [`DATA_DATE`].

use crate::guest::report::OperatingSystem;

/// The day that the table was put together.
pub(crate) const DATA_DATE: &str = "2026-10-01";

/// How long one release is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Support {
    /// The last day of what everybody gets.
    pub(crate) standard: &'static str,
    /// The last day of what is paid for, or given by volunteers.
    pub(crate) extended: Option<&'static str>,
}

impl Support {
    /// The end of the last day, in seconds since 1970.
    pub(crate) fn end(self) -> Option<i64> {
        seconds(self.standard)
    }

    /// The same of extended support.
    pub(crate) fn extended_end(self) -> Option<i64> {
        seconds(self.extended?)
    }
}

fn seconds(day: &str) -> Option<i64> {
    let day: jiff::civil::Date = day.parse().ok()?;
    midnight(day)?.checked_add(86_400)
}

/// The first second of a day, in universal time.
pub(crate) fn midnight(day: jiff::civil::Date) -> Option<i64> {
    jiff::tz::Offset::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok().map(|at| at.as_second())
}

/// Distribution, major and minor version (`None` for any), standard and extended end. Sources: the life cycle pages of
/// debian.org, ubuntu.com, access.redhat.com, fedoraproject.org, suse.com, opensuse.org, aws.amazon.com, alpinelinux.org.
const LINUX: [(&str, u32, Option<u32>, &str, Option<&str>); 74] = [
    ("debian", 8, None, "2018-06-17", Some("2020-06-30")),
    ("debian", 9, None, "2020-07-18", Some("2022-06-30")),
    ("debian", 10, None, "2022-09-10", Some("2024-06-30")),
    ("debian", 11, None, "2024-08-14", Some("2026-08-31")),
    // The long-term support that the project itself gives is what users of Debian take as its life.
    ("debian", 12, None, "2028-06-30", None),
    ("debian", 13, None, "2030-06-30", None),
    ("ubuntu", 14, Some(4), "2019-04-25", Some("2026-04-30")),
    ("ubuntu", 16, Some(4), "2021-04-30", Some("2028-04-30")),
    ("ubuntu", 18, Some(4), "2023-05-31", Some("2030-04-30")),
    ("ubuntu", 20, Some(4), "2025-05-31", Some("2032-04-30")),
    ("ubuntu", 22, Some(4), "2027-04-30", Some("2034-04-30")),
    ("ubuntu", 22, Some(10), "2023-07-20", None),
    ("ubuntu", 23, Some(4), "2024-01-25", None),
    ("ubuntu", 23, Some(10), "2024-07-11", None),
    ("ubuntu", 24, Some(4), "2029-05-31", Some("2036-04-30")),
    ("ubuntu", 24, Some(10), "2025-07-10", None),
    ("ubuntu", 25, Some(4), "2026-01-15", None),
    ("ubuntu", 25, Some(10), "2026-07-31", None),
    ("ubuntu", 26, Some(4), "2031-05-31", Some("2038-04-30")),
    ("rhel", 5, None, "2017-03-31", Some("2020-11-30")),
    ("rhel", 6, None, "2020-11-30", Some("2024-06-30")),
    ("rhel", 7, None, "2024-06-30", Some("2028-06-30")),
    ("rhel", 8, None, "2029-05-31", Some("2032-05-31")),
    ("rhel", 9, None, "2032-05-31", Some("2035-05-31")),
    ("rhel", 10, None, "2035-05-31", Some("2038-05-31")),
    ("centos", 5, None, "2017-03-31", None),
    ("centos", 6, None, "2020-11-30", None),
    ("centos", 7, None, "2024-06-30", None),
    ("centos", 8, None, "2021-12-31", None),
    ("centos", 9, None, "2027-05-31", None),
    ("centos", 10, None, "2030-01-01", None),
    ("almalinux", 8, None, "2029-03-01", None),
    ("almalinux", 9, None, "2032-05-31", None),
    ("almalinux", 10, None, "2035-05-31", None),
    ("rocky", 8, None, "2029-05-31", None),
    ("rocky", 9, None, "2032-05-31", None),
    ("rocky", 10, None, "2035-05-31", None),
    ("ol", 6, None, "2021-03-31", Some("2024-12-31")),
    ("ol", 7, None, "2024-12-31", Some("2028-06-30")),
    ("ol", 8, None, "2029-07-31", Some("2032-07-31")),
    ("ol", 9, None, "2032-06-30", Some("2035-06-30")),
    ("ol", 10, None, "2035-06-30", Some("2038-06-30")),
    ("fedora", 36, None, "2023-05-16", None),
    ("fedora", 37, None, "2023-12-05", None),
    ("fedora", 38, None, "2024-05-21", None),
    ("fedora", 39, None, "2024-11-26", None),
    ("fedora", 40, None, "2025-05-13", None),
    ("fedora", 41, None, "2025-12-15", None),
    ("fedora", 42, None, "2026-05-13", None),
    ("fedora", 43, None, "2026-12-02", None),
    ("fedora", 44, None, "2027-06-02", None),
    ("sles", 11, Some(4), "2019-03-31", Some("2028-03-31")),
    ("sles", 12, Some(5), "2024-10-31", Some("2027-10-31")),
    ("sles", 15, Some(3), "2022-12-31", Some("2025-12-31")),
    ("sles", 15, Some(4), "2023-12-31", Some("2026-12-31")),
    ("sles", 15, Some(5), "2024-12-31", Some("2027-12-31")),
    ("sles", 15, Some(6), "2025-12-31", Some("2028-12-31")),
    ("sles", 15, Some(7), "2031-07-31", Some("2034-07-31")),
    ("sles", 16, Some(0), "2027-11-30", Some("2030-11-30")),
    ("opensuse-leap", 15, Some(4), "2023-12-07", None),
    ("opensuse-leap", 15, Some(5), "2024-12-31", None),
    ("opensuse-leap", 15, Some(6), "2026-04-30", None),
    ("opensuse-leap", 16, Some(0), "2027-10-31", None),
    ("amzn", 1, None, "2023-12-31", None),
    ("amzn", 2, None, "2026-06-30", None),
    ("amzn", 2018, None, "2023-12-31", None),
    ("amzn", 2023, None, "2029-06-30", None),
    ("alpine", 3, Some(18), "2025-05-09", None),
    ("alpine", 3, Some(19), "2025-11-01", None),
    ("alpine", 3, Some(20), "2026-04-01", None),
    ("alpine", 3, Some(21), "2026-11-01", None),
    ("alpine", 3, Some(22), "2027-05-01", None),
    ("alpine", 3, Some(23), "2027-11-01", None),
    ("photon", 5, None, "2028-06-30", None),
];

/// Beginnings of product names, the longest first where one begins another. Source: learn.microsoft.com, "Product lifecycle";
/// of clients the last release of a product line.
const WINDOWS: [(&str, &str, Option<&str>); 19] = [
    ("Windows Server 2025", "2029-11-13", Some("2034-11-14")),
    ("Windows Server 2022", "2026-10-13", Some("2031-10-14")),
    ("Windows Server 2019", "2024-01-09", Some("2029-01-09")),
    ("Windows Server 2016", "2022-01-11", Some("2027-01-12")),
    ("Windows Server 2012", "2018-10-09", Some("2023-10-10")),
    ("Windows Server 2008", "2015-01-13", Some("2020-01-14")),
    ("Windows Server 2003", "2010-07-13", Some("2015-07-14")),
    ("Microsoft Windows Server 2003", "2010-07-13", Some("2015-07-14")),
    ("Windows 2000", "2005-06-30", Some("2010-07-13")),
    ("Microsoft Windows 2000", "2005-06-30", Some("2010-07-13")),
    ("Windows NT", "2002-12-31", Some("2004-12-31")),
    ("Microsoft Windows XP", "2009-04-14", Some("2014-04-08")),
    ("Windows XP", "2009-04-14", Some("2014-04-08")),
    ("Windows Vista", "2012-04-10", Some("2017-04-11")),
    ("Windows 7", "2015-01-13", Some("2020-01-14")),
    ("Windows 8.1", "2018-01-09", Some("2023-01-10")),
    ("Windows 8", "2016-01-12", None),
    ("Windows 10", "2025-10-14", Some("2028-10-10")),
    ("Windows 11", "2027-10-12", None),
];

/// Distributions that live as long as the one that they are made of.
const SAME_AS: [(&str, &str); 5] = [
    ("centos-stream", "centos"),
    ("oraclelinux", "ol"),
    ("sled", "sles"),
    ("sles_sap", "sles"),
    ("raspbian", "debian"),
];

/// The support of a system; `None` for one that is not in the table.
pub(crate) fn of(system: &OperatingSystem) -> Option<Support> {
    if system.r#type == "windows" {
        let name = system.product_name.as_deref()?;
        let (_, standard, extended) = WINDOWS.iter().find(|(start, ..)| name.starts_with(start))?;
        // Of a server both phases bring fixes of security problems to everybody.
        return Some(match extended {
            Some(end) if name.contains("Server") => Support { standard: end, extended: None },
            _ => Support { standard, extended: *extended },
        });
    }
    let distribution = system.distribution.as_deref()?;
    let name = SAME_AS.iter().find(|(known, _)| *known == distribution).map_or(distribution, |(_, same)| *same);
    let major = system.version_major?;
    let minor = system.version_minor;
    let found = LINUX
        .iter()
        .find(|(known, of, at, ..)| *known == name && *of == major && at.is_none_or(|at| minor == Some(at)))?;
    Some(Support { standard: found.3, extended: found.4 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_the_table_is_one_and_extended_is_later() {
        for (name, _, _, standard, extended) in LINUX {
            assert!(seconds(standard).is_some(), "{name} {standard}");
            assert!(extended.is_none_or(|extended| seconds(extended) > seconds(standard)), "{name} {standard}");
        }
        for (name, standard, extended) in WINDOWS {
            assert!(seconds(standard).is_some(), "{name}");
            assert!(extended.is_none_or(|extended| seconds(extended) > seconds(standard)), "{name}");
        }
    }
}
