//! The report of a profile run as plain data: the messages of `proto/guestkit/v1/report.proto` by the same names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::guest::report::{ImageInfo, OperatingSystem, Warning};

use super::rule::Severity;

/// What was found wrong, and on request every check with its state, reason and evidence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfileReport {
    /// Version of the report's shape.
    pub version: String,
    /// Path of the image as the job named it.
    pub image_path: String,
    /// The image.
    pub image: ImageInfo,
    /// Version of the checks' content; findings of two versions are not compared.
    pub content_version: String,
    /// Time against which ages were judged, RFC 3339.
    pub reference_time: String,
    /// `effective` or `explicit`.
    pub semantics: String,
    /// Profiles that ran.
    pub profiles: Vec<String>,
    /// Standards that were asked for; empty for all.
    pub standards: Vec<String>,
    /// The systems that were judged.
    pub systems: Vec<ProfiledSystem>,
    /// Counts.
    pub summary: ProfileSummary,
    /// Checks that failed or warn, and those that a waiver covers; the most severe first.
    pub findings: Vec<CheckResult>,
    /// Every check that was selected, in the order of its id; where it was asked for.
    pub checks: Vec<CheckResult>,
    /// Readiness for each target; where the migration profile ran.
    pub migration: Vec<Readiness>,
    /// What holds for the whole report.
    pub notes: Vec<String>,
    /// What could not be read.
    pub warnings: Vec<Warning>,
}

/// A system whose configuration was judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfiledSystem {
    /// Device of its root file system.
    pub root: String,
    /// The system in short.
    pub operating_system: OperatingSystem,
}

/// Counts of a profile run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfileSummary {
    /// Findings, those that are waived not among them.
    pub total_findings: u64,
    /// The same by severity.
    pub by_severity: SeverityCounts,
    /// Checks that were selected.
    pub checks: u64,
    /// Checks by state.
    pub by_status: BTreeMap<String, u64>,
    /// Decided checks over applicable ones, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<f64>,
    /// The verdicts by standard, each with the limits of that standard.
    pub by_standard: BTreeMap<String, StandardSummary>,
}

/// Findings by severity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are the severities")]
pub struct SeverityCounts {
    pub critical: u64,
    pub high: u64,
    pub medium: u64,
    pub low: u64,
    pub info: u64,
}

impl SeverityCounts {
    /// One more of `severity`.
    pub fn add(&mut self, severity: Severity) {
        let count = match severity {
            Severity::Critical => &mut self.critical,
            Severity::High => &mut self.high,
            Severity::Medium => &mut self.medium,
            Severity::Low => &mut self.low,
            Severity::Info => &mut self.info,
        };
        *count = count.saturating_add(1);
    }
}

/// The checks that give evidence for a standard's requirements.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StandardSummary {
    /// Benchmark and version that the numbers belong to.
    pub title: String,
    /// Checks that apply.
    pub applicable: u64,
    /// Those that pass.
    pub passed: u64,
    /// Those that fail or warn.
    pub failed: u64,
    /// Those that could not be decided.
    pub undecided: u64,
    /// Those that fail or warn and are waived.
    pub waived: u64,
    /// Ids of the failed ones.
    pub failing: Vec<String>,
}

/// One check's result.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckResult {
    /// Check, `ssh.permit-root-login`.
    pub id: String,
    /// Device of the root file system of the system that was judged.
    pub system: String,
    /// Profiles that the check belongs to.
    pub profiles: Vec<String>,
    /// `critical`, `high`, `medium`, `low`, `info`.
    pub severity: String,
    /// `pass`, `fail`, `warn`, `notapplicable`, `unknown`, `error`, `manual`, `waived`.
    pub status: String,
    /// Title.
    pub title: String,
    /// What was found, and why it is in that state.
    pub description: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
    /// The requirements as people write them.
    pub references: Vec<String>,
    /// What was judged; the first of it where there is more.
    pub evidence: Vec<Evidence>,
    /// Pieces of evidence in all.
    pub evidence_count: u64,
    /// Users, paths or units that are concerned.
    pub subjects: Vec<String>,
    /// Identifiers of the same matter elsewhere.
    pub mappings: Mappings,
    /// Stable over runs: of the check and its system.
    pub fingerprint: String,
    /// The waiver that covers it, or covered it until it expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiver: Option<Waiver>,
}

/// Identifiers of the same matter elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mappings {
    /// Section numbers of the CIS benchmark of this system.
    pub cis: Vec<String>,
    /// Requirement numbers of PCI DSS 4.0.1.
    pub pci_dss: Vec<String>,
    /// Sections of 45 CFR Part 164 Subpart C that it is evidence for.
    pub hipaa: Vec<String>,
    /// Control ids of NIST SP 800-53.
    pub nist_800_53: Vec<String>,
    /// Rules of ComplianceAsCode (SSG).
    pub ssg: Vec<String>,
    /// Checks of Wazuh SCA for this system.
    pub wazuh_sca: Vec<String>,
    /// Tests of Lynis.
    pub lynis: Vec<String>,
    /// Which of these were assigned by us.
    pub derived: Vec<String>,
}

/// What a check was judged on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Path in the guest, or where else on the disk it stands.
    pub path: String,
    /// Line, where the evidence is a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Key or name of the fact.
    pub key: String,
    /// Value as it stands; redacted where it is a secret.
    pub value: String,
    /// `explicit`, `drop-in`, `distribution`, `compiled-default`, `metadata`, `absent`.
    pub source: String,
    /// Definitions that lost against it.
    pub overridden: Vec<Evidence>,
}

impl Evidence {
    /// A value that somebody wrote down in a file.
    #[must_use]
    pub fn explicit(path: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::of("explicit", path, key, value)
    }

    /// Metadata of a file.
    #[must_use]
    pub fn metadata(path: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::of("metadata", path, key, value)
    }

    /// What a program does where nothing is written down.
    #[must_use]
    pub fn default(path: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::of("compiled-default", path, key, value)
    }

    /// What was looked for at `path` and is not there.
    #[must_use]
    pub fn absent(path: impl Into<String>, key: impl Into<String>) -> Self {
        Self::of("absent", path, key, "not set")
    }

    fn of(source: &str, path: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            key: key.into(),
            value: value.into(),
            source: source.to_owned(),
            ..<Self as Default>::default()
        }
    }

    /// The same with its line.
    #[must_use]
    pub fn at_line(self, line: usize) -> Self {
        Self { line: u32::try_from(line).ok(), ..self }
    }
}

/// An accepted exception.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiver {
    /// Why.
    pub justification: String,
    /// By whom.
    pub approver: String,
    /// The last day it holds.
    pub expires: String,
    /// Whether that day was before the reference time.
    pub expired: bool,
}

/// Readiness of a system for a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Readiness {
    /// `kvm`, `kubevirt`, `proxmox`, `openstack`, `hyperv`, `aws`, `azure`, `gcp`.
    pub target: String,
    /// Device of the root file system of the system.
    pub system: String,
    /// `ready`, `ready-with-changes`, `not-ready`, `unknown`.
    pub state: String,
    /// What stands in the way.
    pub blockers: Vec<String>,
    /// What could not be decided and matters.
    pub unknowns: Vec<String>,
    /// What must change, in order.
    pub required_changes: Vec<RequiredChange>,
}

/// A change that a migration needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequiredChange {
    /// Check that asks for it.
    pub id: String,
    /// What changes.
    pub title: String,
    /// `automatic`, `manual-before`, `manual-after`.
    pub how: String,
    /// What it touches.
    pub subjects: Vec<String>,
}
