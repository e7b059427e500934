//! Standards and how their requirements are named. Only identifiers and section numbers: the texts belong to their publishers.

use crate::guest::report::OperatingSystem;

use super::report::Mappings;
use super::rule::RuleMappings;

/// A standard that checks give evidence for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standard {
    /// The benchmark of the Center for Internet Security for this system, both levels.
    Cis,
    /// Its first level, for servers.
    CisLevel1,
    /// PCI DSS 4.0.1.
    PciDss,
    /// 45 CFR Part 164 Subpart C.
    Hipaa,
    /// NIST SP 800-53.
    Nist,
}

impl Standard {
    /// Every standard.
    pub const ALL: [Self; 5] = [Self::Cis, Self::CisLevel1, Self::PciDss, Self::Hipaa, Self::Nist];

    /// Its name in jobs and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cis => "cis",
            Self::CisLevel1 => "cis-level1",
            Self::PciDss => "pci-dss",
            Self::Hipaa => "hipaa",
            Self::Nist => "nist-800-53",
        }
    }

    /// The standard called `name`; the short names people use are taken too.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "cis" | "cis-level2" => Self::Cis,
            "cis-level1" => Self::CisLevel1,
            "pci-dss" | "pci" | "pci_dss" => Self::PciDss,
            "hipaa" => Self::Hipaa,
            "nist-800-53" | "nist" | "nist_800_53" => Self::Nist,
            _ => return None,
        })
    }

    /// The key of its limits in rules.
    pub(crate) const fn limit(self) -> &'static str {
        match self {
            Self::CisLevel1 => Self::Cis.name(),
            other => other.name(),
        }
    }

    /// Whether a rule gives evidence for it.
    pub(crate) fn is_mapped(self, mappings: &RuleMappings) -> bool {
        match self {
            Self::Cis => !mappings.cis.is_empty(),
            Self::CisLevel1 => !mappings.cis.is_empty() && mappings.cis_level != Some(2),
            Self::PciDss => !mappings.pci_dss.is_empty(),
            Self::Hipaa => !mappings.hipaa.is_empty(),
            Self::Nist => !mappings.nist_800_53.is_empty(),
        }
    }
}

/// The benchmarks whose numbers are known: key in rules, title, version.
const BENCHMARKS: [(&str, &str, &str); 7] = [
    ("debian12", "CIS Debian Linux 12 Benchmark", "1.1.0"),
    ("debian13", "CIS Debian Linux 13 Benchmark", "1.0.0"),
    ("ubuntu2404", "CIS Ubuntu Linux 24.04 LTS Benchmark", "1.0.0"),
    ("rhel9", "CIS Red Hat Enterprise Linux 9 Benchmark", "2.0.0"),
    ("rhel10", "CIS Red Hat Enterprise Linux 10 Benchmark", "1.0.1"),
    ("sle15", "CIS SUSE Linux Enterprise 15 Benchmark", "1.1.1"),
    ("win2022", "CIS Microsoft Windows Server 2022 Benchmark", "2.0.0"),
];

/// The benchmark of one system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Benchmark {
    known: Option<(&'static str, &'static str, &'static str)>,
}

impl Benchmark {
    /// The one that is written for this very release.
    pub(crate) fn of(system: &OperatingSystem) -> Self {
        let (major, minor) = (system.version_major.unwrap_or(0), system.version_minor.unwrap_or(0));
        let key = match (system.distribution.as_deref().unwrap_or_default(), major, minor) {
            ("debian", 12, _) => "debian12",
            ("debian", 13, _) => "debian13",
            ("ubuntu", 24, 4) => "ubuntu2404",
            ("rhel" | "almalinux" | "rocky" | "centos" | "ol", 9, _) => "rhel9",
            ("rhel" | "almalinux" | "rocky" | "centos" | "ol", 10, _) => "rhel10",
            ("sles" | "sled" | "opensuse-leap", 15, _) => "sle15",
            _ if system.product_name.as_deref().is_some_and(|name| name.starts_with("Windows Server 2022")) => {
                "win2022"
            }
            _ => "",
        };
        Self { known: BENCHMARKS.into_iter().find(|(known, ..)| *known == key) }
    }

    /// What the numbers of `standard` belong to.
    pub(crate) fn title(self, standard: Standard) -> String {
        match (standard, self.known) {
            (Standard::Cis, Some((_, title, version))) => format!("{title} {version}"),
            (Standard::CisLevel1, Some((_, title, version))) => format!("{title} {version}, level 1, server"),
            (Standard::Cis | Standard::CisLevel1, None) => "CIS; the benchmark of this system is not known".to_owned(),
            (Standard::PciDss, _) => "PCI DSS 4.0.1".to_owned(),
            (Standard::Hipaa, _) => "45 CFR Part 164 Subpart C (evidence for)".to_owned(),
            (Standard::Nist, _) => "NIST SP 800-53 Rev. 5".to_owned(),
        }
    }

    /// The mappings that hold for this system.
    pub(crate) fn mappings(self, of: &RuleMappings) -> Mappings {
        let key = self.known.map_or("", |(key, ..)| key);
        Mappings {
            cis: of.cis.get(key).cloned().unwrap_or_default(),
            pci_dss: of.pci_dss.clone(),
            hipaa: of.hipaa.clone(),
            nist_800_53: of.nist_800_53.clone(),
            ssg: of.ssg.clone(),
            wazuh_sca: of.wazuh_sca.get(key).cloned().unwrap_or_default(),
            lynis: of.lynis.clone(),
            derived: of.derived.clone(),
        }
    }

    /// The requirements as people write them, benchmark and version beside each number: numbers move between versions.
    pub(crate) fn references(self, mappings: &Mappings) -> Vec<String> {
        let named = |standard: Standard, numbers: &[String]| {
            let title = self.title(standard);
            numbers.iter().map(move |number| format!("{title}, {number}")).collect::<Vec<_>>()
        };
        let mut references = named(Standard::Cis, &mappings.cis);
        references.extend(named(Standard::PciDss, &mappings.pci_dss));
        references.extend(named(Standard::Hipaa, &mappings.hipaa));
        references.extend(named(Standard::Nist, &mappings.nist_800_53));
        references
    }
}
