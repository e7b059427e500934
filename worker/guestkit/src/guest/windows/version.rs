//! What a Windows is called: by its version numbers, its build and its product name.
//!
//! Sources: Microsoft's tables "Operating System Version", "Windows 11 release information", "Windows Server release
//! information" (learn.microsoft.com) for versions and builds; the osinfo database (`data/os/microsoft.com`) for short ids,
//! and libguestfs's `inspect-get-osinfo` for which is chosen.

/// The first build of Windows 11; its version is still 10.0.
const WINDOWS_11: u32 = 22_000;
/// The first builds of servers of version 10.0, newest first, with their years.
const SERVER_BUILDS: [(u32, &str, &str); 4] =
    [(26_100, "2025", "win2k25"), (20_348, "2022", "win2k22"), (17_763, "2019", "win2k19"), (0, "2016", "win2k16")];

/// The numbers and names that tell one version from another.
pub(crate) struct Version<'a> {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) build: Option<u32>,
    pub(crate) product_name: &'a str,
    pub(crate) is_server: bool,
}

impl Version<'_> {
    /// The short id of the osinfo database.
    pub(crate) fn osinfo(&self) -> Option<&'static str> {
        let server = |server: &'static str, client: &'static str| if self.is_server { server } else { client };
        Some(match (self.major, self.minor) {
            (3, 1) => "winnt3.1",
            (3, 5 | 50) => "winnt3.5",
            (3, 51) => "winnt3.51",
            (4, 0) => "winnt4.0",
            (5, 0) => "win2k",
            (5, 1) => "winxp",
            (5, 2) if self.product_name.contains("XP") => "winxp",
            (5, 2) if self.product_name.contains("R2") => "win2k3r2",
            (5, 2) => "win2k3",
            (6, 0) => server("win2k8", "winvista"),
            (6, 1) => server("win2k8r2", "win7"),
            (6, 2) => server("win2k12", "win8"),
            (6, 3) => server("win2k12r2", "win8.1"),
            (10, 0) if self.is_server => {
                let by_name = SERVER_BUILDS.iter().find(|(_, year, _)| self.product_name.contains(year));
                let by_build =
                    || SERVER_BUILDS.iter().find(|(first, ..)| self.build.is_some_and(|build| build >= *first));
                by_name.or_else(by_build)?.2
            }
            (10, 0) if self.build? >= WINDOWS_11 => "win11",
            (10, 0) => "win10",
            _ => return None,
        })
    }

    /// The product name as people know it: the registry of Windows 11 says Windows 10.
    pub(crate) fn product_name(&self) -> String {
        let is_11 = self.major == 10 && !self.is_server && self.build.is_some_and(|build| build >= WINDOWS_11);
        match self.product_name.strip_prefix("Windows 10") {
            Some(rest) if is_11 => format!("Windows 11{rest}"),
            _ => self.product_name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Product names as installations have them; versions and builds as Microsoft's release information lists them, ids as
    /// the osinfo database has them.
    #[test]
    fn every_windows_is_told_from_the_others() {
        #[rustfmt::skip]
        let cases: [(u32, u32, u32, bool, &str, &str); 29] = [
            (3, 51, 1057, false, "Windows NT", "winnt3.51"),
            (4, 0, 1381, false, "Windows NT", "winnt4.0"),
            (5, 0, 2195, false, "Microsoft Windows 2000", "win2k"),
            (5, 1, 2600, false, "Microsoft Windows XP", "winxp"),
            (5, 2, 3790, false, "Microsoft Windows XP x64 Edition", "winxp"),
            (5, 2, 3790, true, "Microsoft Windows Server 2003", "win2k3"),
            (5, 2, 3790, true, "Microsoft Windows Server 2003 R2", "win2k3r2"),
            (6, 0, 6002, false, "Windows Vista (TM) Business", "winvista"),
            (6, 0, 6003, true, "Windows Server (R) 2008 Standard", "win2k8"),
            (6, 1, 7601, false, "Windows 7 Professional", "win7"),
            (6, 1, 7601, true, "Windows Server 2008 R2 Standard", "win2k8r2"),
            (6, 2, 9200, false, "Windows 8 Pro", "win8"),
            (6, 2, 9200, true, "Windows Server 2012 Standard", "win2k12"),
            (6, 3, 9600, false, "Windows 8.1 Pro", "win8.1"),
            (6, 3, 9600, true, "Windows Server 2012 R2 Standard", "win2k12r2"),
            (10, 0, 10_240, false, "Windows 10 Enterprise 2015 LTSB", "win10"),
            (10, 0, 19_045, false, "Windows 10 Pro", "win10"),
            (10, 0, 22_000, false, "Windows 10 Pro", "win11"),
            (10, 0, 22_631, false, "Windows 10 Enterprise", "win11"),
            (10, 0, 26_100, false, "Windows 10 Pro", "win11"),
            (10, 0, 14_393, true, "Windows Server 2016 Standard", "win2k16"),
            (10, 0, 17_134, true, "Windows Server Standard", "win2k16"),
            (10, 0, 17_763, true, "Windows Server 2019 Datacenter", "win2k19"),
            (10, 0, 19_042, true, "Windows Server Standard", "win2k19"),
            (10, 0, 20_348, true, "Windows Server 2022 Standard", "win2k22"),
            (10, 0, 25_398, true, "Windows Server Datacenter", "win2k22"),
            (10, 0, 20_348, true, "Azure Stack HCI", "win2k22"),
            (10, 0, 26_100, true, "Windows Server 2025 Datacenter", "win2k25"),
            (10, 0, 26_100, true, "Windows Server", "win2k25"),
        ];
        for (major, minor, build, is_server, product_name, osinfo) in cases {
            let version = Version { major, minor, build: Some(build), product_name, is_server };
            assert_eq!(version.osinfo(), Some(osinfo), "{product_name} {build}");
        }
        let unknown = Version { major: 11, minor: 0, build: None, product_name: "", is_server: false };
        assert_eq!(unknown.osinfo(), None);
    }

    #[test]
    fn windows_11_is_called_so() {
        let version = |build: u32, is_server| Version {
            major: 10,
            minor: 0,
            build: Some(build),
            product_name: "Windows 10 Pro for Workstations",
            is_server,
        };
        assert_eq!(version(22_621, false).product_name(), "Windows 11 Pro for Workstations");
        assert_eq!(version(19_045, false).product_name(), "Windows 10 Pro for Workstations");
    }
}
