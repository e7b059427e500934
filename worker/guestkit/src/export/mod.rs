//! Reports in other tools' forms. A form is a pure function of the report: what carries a report, and whoever prints it, need
//! not agree on anything else.

mod csv;
mod cyclonedx;
mod html;
mod junit;
mod page;
mod profile_html;
mod sarif;
mod spdx;
mod virt_inspector;
mod xml;

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::bytes::hex;
use crate::guest::report::{GuestSystem, InspectReport, Package};
use crate::profile::report::{CheckResult, ProfileReport};

/// A form that a report of an inspection can have, besides its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The XML of virt-inspector.
    VirtInspector,
    /// CycloneDX 1.6 in JSON.
    CycloneDx,
    /// SPDX 2.3 in JSON.
    Spdx,
    /// One page of HTML that needs nothing else.
    Html,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 4] = [Self::VirtInspector, Self::CycloneDx, Self::Spdx, Self::Html];

    /// The word that is typed for it and that documents name it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtInspector => "virt-inspector",
            Self::CycloneDx => "cyclonedx",
            Self::Spdx => "spdx",
            Self::Html => "html",
        }
    }

    /// The form called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    /// What a file of this form is called after its stem.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::VirtInspector => "xml",
            Self::CycloneDx => "cdx.json",
            Self::Spdx => "spdx.json",
            Self::Html => "html",
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::VirtInspector => "application/xml",
            Self::CycloneDx => "application/vnd.cyclonedx+json",
            Self::Spdx => "application/spdx+json",
            Self::Html => "text/html",
        }
    }

    /// `report` in this form, with a line feed at its end; `now` is noted as the time of the document where the form has one.
    #[must_use]
    pub fn render(self, report: &InspectReport, now: SystemTime) -> String {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let instant = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(0)).unwrap_or_default();
        let created_at = instant.to_string();
        match self {
            Self::VirtInspector => virt_inspector::render(report),
            Self::CycloneDx => cyclonedx::render(report, &created_at),
            Self::Spdx => spdx::render(report, &created_at),
            Self::Html => html::render(report, &created_at),
        }
    }
}

/// A form that a report of profiles can have, besides its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProfileForm {
    /// SARIF 2.1.0 (OASIS).
    Sarif,
    /// One page of HTML that needs nothing else.
    Html,
    /// The XML of JUnit, as continuous integration reads it.
    Junit,
    /// Comma-separated values (RFC 4180), one row for each finding.
    Csv,
}

impl ProfileForm {
    /// Every form.
    pub const ALL: [Self; 4] = [Self::Sarif, Self::Html, Self::Junit, Self::Csv];

    /// The word that is typed for it and that documents name it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sarif => "sarif",
            Self::Html => "html",
            Self::Junit => "junit",
            Self::Csv => "csv",
        }
    }

    /// The form called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    /// What a file of this form is called after its stem.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Sarif => "sarif",
            Self::Html => "html",
            Self::Junit => "junit.xml",
            Self::Csv => "csv",
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Sarif => "application/sarif+json",
            Self::Html => "text/html",
            Self::Junit => "application/xml",
            Self::Csv => "text/csv",
        }
    }

    /// `report` in this form, with a line feed at its end. The same report always has the same text.
    #[must_use]
    pub fn render(self, report: &ProfileReport) -> String {
        match self {
            Self::Sarif => sarif::render(report),
            Self::Html => profile_html::render(report),
            Self::Junit => junit::render(report),
            Self::Csv => csv::render(report),
        }
    }
}

impl fmt::Display for ProfileForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a report of profiles lists: every check where it was asked for, else the findings.
fn listed(report: &ProfileReport) -> &[CheckResult] {
    if report.checks.is_empty() { &report.findings } else { &report.checks }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The packages that are installed.
fn installed(system: &GuestSystem) -> impl Iterator<Item = &Package> {
    let packages = system.packages.iter().flat_map(|packages| &packages.packages);
    packages.filter(|package| package.state == "installed")
}

/// A UUID that the same report always gets (version 8 of RFC 9562, from a SHA-256).
fn uuid_of(report: &InspectReport) -> String {
    let mut hash = Sha256::new();
    hash.update(report.image_path.as_bytes());
    hash.update(report.image.sha256.as_deref().unwrap_or_default().as_bytes());
    for system in &report.systems {
        hash.update(system.root.as_bytes());
        hash.update(system.operating_system.machine_id.as_deref().unwrap_or_default().as_bytes());
        for package in installed(system) {
            hash.update(package.name.as_bytes());
            hash.update(package.full_version.as_bytes());
            hash.update([0]);
        }
    }
    let digits = hex(&hash.finalize());
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-8{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

/// The last name of a path on the host.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}

/// A system in words: its product name, or what else is known.
fn system_name(system: &GuestSystem) -> String {
    let os = &system.operating_system;
    os.product_name.clone().or_else(|| os.distribution.clone()).unwrap_or_else(|| os.r#type.clone())
}

/// A report with one finding of each kind.
#[cfg(test)]
fn profile_sample() -> ProfileReport {
    use crate::profile::report::{Evidence, ProfileSummary, ProfiledSystem, StandardSummary, Waiver};

    let text = str::to_owned;
    let result = |id: &str, severity: &str, evidence: Evidence| CheckResult {
        id: text(id),
        system: text("/dev/sda1"),
        profiles: vec![text("security")],
        severity: text(severity),
        status: text("fail"),
        title: text("Root <cannot> log in"),
        description: text("PermitRootLogin is yes"),
        remediation: Some(text("Set PermitRootLogin no.")),
        evidence: vec![evidence],
        evidence_count: 1,
        fingerprint: text("f1"),
        ..CheckResult::default()
    };
    let first = Evidence::explicit("/etc/ssh/sshd config", "PermitRootLogin", "yes").at_line(3);
    let waiver = Waiver {
        justification: text("cloud image"),
        approver: text("security"),
        expires: text("2027-01-31"),
        expired: false,
    };
    let waived = CheckResult {
        status: text("waived"),
        waiver: Some(waiver),
        ..result("sudo.nopasswd", "high", Evidence::explicit("/etc/sudoers.d/90", "debian", "ALL"))
    };
    let sum =
        StandardSummary { title: text("PCI DSS 4.0.1"), applicable: 3, failed: 2, waived: 1, ..Default::default() };
    ProfileReport {
        image_path: text("/vms/web1.qcow2"),
        content_version: text("2026.11"),
        reference_time: text("2026-01-31T00:00:00Z"),
        profiles: vec![text("security")],
        systems: vec![ProfiledSystem { root: text("/dev/sda1"), ..ProfiledSystem::default() }],
        summary: ProfileSummary {
            total_findings: 2,
            checks: 3,
            by_standard: [(text("pci-dss"), sum)].into(),
            ..ProfileSummary::default()
        },
        findings: vec![
            result("ssh.permit-root-login", "critical", first),
            waived,
            result("pkg.compilers", "low", Evidence::explicit("package database", "gcc", "12")),
        ],
        ..ProfileReport::default()
    }
}
