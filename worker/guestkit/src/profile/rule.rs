//! The rule language: what a check is called, when it applies, and what it asks of which fact. Rules are data, one YAML file
//! for each subject in `rules/`; `build.rs` reads them with this very file and refuses what does not hold.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Defence in depth.
    Low,
    /// Weakens the system.
    Medium,
    /// A way in, or out, for many.
    High,
    /// A way in for anybody.
    Critical,
}

/// A set of checks that is asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// What lets somebody in.
    Security,
    /// What standards ask for.
    Compliance,
    /// What a hardened system does.
    Hardening,
    /// What costs speed.
    Performance,
    /// What a move to another hypervisor meets.
    Migration,
}

/// A check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// `subject.what`, stable for ever.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) severity: Severity,
    pub(crate) profiles: Vec<Profile>,
    /// `any`, `linux`, `windows`, or families of Linux: `debian`, `ubuntu`, `rhel`, `fedora`, `suse`.
    pub(crate) applies_to: Vec<String>,
    /// Where this does not hold, the check is not applicable, for the reason that stands beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) when: Option<When>,
    pub(crate) check: Check,
    /// The value that `$limit` stands for, by standard (`cis`, `pci-dss`, `hipaa`, `stig`) or by `default`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) limits: BTreeMap<String, Value>,
    /// What makes a finding more severe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) escalate: Vec<Escalation>,
    pub(crate) remediation: String,
    #[serde(default)]
    pub(crate) mappings: RuleMappings,
    /// For the migration profile: who makes the change, and for which targets the check matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) migration: Option<Migration>,
    /// Whether it is judged only where it is asked for by its id, because it reads much.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) on_request: bool,
}

/// A condition of applicability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct When {
    /// What must hold.
    pub(crate) holds: Check,
    /// Why the check is not applicable where it does not, as a clause: `no SSH server is installed`.
    pub(crate) otherwise: String,
}

/// What makes a finding more severe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Escalation {
    pub(crate) when: Check,
    pub(crate) to: Severity,
}

/// What a migration has to do about a check that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Migration {
    /// `blocker`, `automatic`, `manual-before`, `manual-after`, `information`.
    pub(crate) how: String,
    /// Targets it matters for; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) targets: Vec<String>,
}

/// A condition: a function, a fact and what is asked of it, or several of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Check {
    /// A function of `checks/`, `files.world-writable`.
    #[serde(rename = "fn", skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<String>,
    /// What the function is given.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(crate) with: Value,
    /// A fact of `facts.rs`, `family:argument`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fact: Option<String>,
    /// What the fact is taken to be where nothing sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<Value>,
    /// Equal, as text without regard to case or as a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) eq: Option<Value>,
    /// Not equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ne: Option<Value>,
    /// At most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) le: Option<Value>,
    /// At least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ge: Option<Value>,
    /// One of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) one_of: Option<Vec<Value>>,
    /// No bit outside of this mask is set: permissions that are stricter pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) within_mask: Option<Value>,
    /// Of a list (or of text with commas): no entry matches one of these shell patterns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) contains_none: Option<Vec<String>>,
    /// Whether anything sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) is_set: Option<bool>,
    /// All of these hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) all: Vec<Check>,
    /// One of these holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) any: Vec<Check>,
    /// What fails but meets this is only a warning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warn: Option<Box<Check>>,
}

/// Identifiers of the same matter in standards and other tools: identifiers and section numbers only, no text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RuleMappings {
    /// Section numbers by benchmark: `debian12`, `ubuntu2404`, `rhel9`, `win2022`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) cis: BTreeMap<String, Vec<String>>,
    /// 2 for what CIS asks only of servers that need more than the rest; 1 where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cis_level: Option<u8>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) pci_dss: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hipaa: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) nist_800_53: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ssg: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) wazuh_sca: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) lynis: Vec<String>,
    /// Which of these were assigned by us.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) derived: Vec<String>,
}

impl RuleMappings {
    /// Whether it maps to nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.cis.is_empty() && self.pci_dss.is_empty() && self.hipaa.is_empty() && self.nist_800_53.is_empty()
    }
}

impl Check {
    /// Every function and fact that is named.
    pub(crate) fn names(&self, functions: &mut BTreeSet<String>, facts: &mut BTreeSet<String>) {
        functions.extend(self.function.clone());
        let family = self.fact.as_ref().and_then(|fact| fact.split(':').next());
        facts.extend(family.map(str::to_owned));
        self.all.iter().chain(&self.any).chain(self.warn.as_deref()).for_each(|check| check.names(functions, facts));
    }

    fn is_operator_set(&self) -> bool {
        self.eq.is_some()
            || self.ne.is_some()
            || self.le.is_some()
            || self.ge.is_some()
            || self.one_of.is_some()
            || self.within_mask.is_some()
            || self.contains_none.is_some()
            || self.is_set.is_some()
    }

    /// What is wrong with it.
    fn flaw(&self) -> Option<String> {
        let forms = [self.function.is_some(), self.fact.is_some(), !self.all.is_empty(), !self.any.is_empty()];
        if forms.iter().filter(|form| **form).count() != 1 {
            return Some("a check is one of fn, fact, all and any".to_owned());
        }
        if self.fact.is_some() != self.is_operator_set() {
            return Some("a fact needs something that is asked of it, and nothing else does".to_owned());
        }
        self.all.iter().chain(&self.any).chain(self.warn.as_deref()).find_map(Self::flaw)
    }
}

impl Rule {
    /// The rules of one file.
    ///
    /// # Errors
    /// What is wrong with it, for whoever wrote it.
    pub(crate) fn flaw(&self) -> Option<String> {
        if !self.id.contains('.') || self.profiles.is_empty() || self.applies_to.is_empty() {
            return Some("a check has an id of two parts, a profile and a family that it applies to".to_owned());
        }
        if self.remediation.is_empty() {
            return Some("a check says what to do".to_owned());
        }
        if self.profiles.contains(&Profile::Compliance) && self.mappings.is_empty() {
            return Some("a check of the compliance profile maps to a standard".to_owned());
        }
        let conditions = self.when.iter().map(|when| &when.holds).chain(self.escalate.iter().map(|one| &one.when));
        conditions.chain([&self.check]).find_map(Check::flaw)
    }
}
