//! Profiles: is this system configured as it should be? Facts from files, rules as data, and functions for walks and joins,
//! each verdict with its reason and evidence. What cannot be known is unknown, never passed.

mod audit_rules;
mod checks;
pub mod diff;
mod evaluate;
mod exposure;
mod facts;
#[cfg(test)]
mod fixture;
mod guest;
mod history;
mod initramfs;
mod kernel_log;
mod outcome;
mod overlay;
mod packet_filter;
mod pam;
mod readiness;
mod registry;
mod release;
pub mod report;
mod repositories;
mod rsyslog;
mod rule;
mod settings;
mod standards;
mod superblock;
mod support;
mod sysctl;
mod text;
pub mod waivers;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use sha2::{Digest as _, Sha256};

use crate::bytes::hex;
use crate::disk::Disk;
use crate::guest::linux::files::Files;
use crate::guest::linux::time;
use crate::guest::report::{GuestSystem, InspectReport, Warning};
use crate::guest::roots::{self, DeviceNames, Root};
use crate::guest::windows::hives::Hives;
use crate::guest::{Event, InspectOptions, Progress, linux, windows};

use guest::{Guest, Parts};
use outcome::{Outcome, Status};
use report::{CheckResult, ProfileReport, ProfiledSystem, Readiness};
use rule::Rule;
use waivers::{Cover, Place, Waiver, Waivers};

pub use overlay::RuleFile;
pub use rule::{Profile, Severity};
pub use standards::Standard;

/// Version of the checks' content: any change of a rule's meaning is a new one.
pub const CONTENT_VERSION: &str = "2026.11";
/// Version of the report's shape.
const REPORT_VERSION: &str = "1.0";
/// Pieces of evidence shown of one check; all are counted.
const EVIDENCE_SHOWN: usize = 20;
/// Subjects shown of one check.
const SUBJECTS_SHOWN: usize = 100;

/// Whether a safe default counts that nobody wrote down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Semantics {
    /// What the system will do.
    #[default]
    Effective,
    /// What somebody wrote down, as SSG judges.
    Explicit,
}

impl Semantics {
    /// Its name in reports and jobs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Effective => "effective",
            Self::Explicit => "explicit",
        }
    }

    /// The semantics called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Effective, Self::Explicit].into_iter().find(|semantics| semantics.name() == name)
    }
}

/// What to judge.
#[derive(Debug, Clone)]
pub struct ProfileOptions {
    /// The profiles; all checks of any of them run.
    pub profiles: Vec<Profile>,
    /// Standards that a check must map to, with their limits; empty for all, with the limits of CIS.
    pub standards: Vec<Standard>,
    /// Findings below this are left out.
    pub severity_threshold: Severity,
    /// Whether findings say what to do.
    pub remediation: bool,
    /// Whether every check is listed, not only what was found.
    pub all: bool,
    /// The only target of a migration that matters; `None` for all.
    pub target: Option<String>,
    /// Seconds since 1970 against which ages are judged; `None` for when the image was last written.
    pub reference_time: Option<i64>,
    /// Whether safe defaults count.
    pub semantics: Semantics,
    /// Accepted exceptions; [`Content::check_waivers`] says which of them make no sense.
    pub waivers: Vec<Waiver>,
}

impl Default for ProfileOptions {
    fn default() -> Self {
        Self {
            profiles: vec![Profile::Security],
            standards: Vec::new(),
            severity_threshold: Severity::Info,
            remediation: true,
            all: false,
            target: None,
            reference_time: None,
            semantics: Semantics::default(),
            waivers: Vec::new(),
        }
    }
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 5] = [Self::Security, Self::Compliance, Self::Hardening, Self::Performance, Self::Migration];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Security => "security",
            Self::Compliance => "compliance",
            Self::Hardening => "hardening",
            Self::Performance => "performance",
            Self::Migration => "migration",
        }
    }

    /// The profile called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }
}

impl Severity {
    /// Every severity, the least first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The severity called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.name() == name)
    }
}

/// The checks that a profile run judges by.
#[derive(Debug, Clone)]
pub struct Content {
    /// Sorted by their ids.
    rules: Vec<Rule>,
    version: String,
}

impl Content {
    /// The checks that are part of the program.
    ///
    /// # Panics
    /// Never: they were read when the program was built.
    #[must_use]
    pub fn embedded() -> Self {
        let rules = serde_json::from_str(include_str!(concat!(env!("OUT_DIR"), "/rules.json")));
        Self { rules: rules.unwrap_or_default(), version: CONTENT_VERSION.to_owned() }
    }

    /// The version that reports name: [`CONTENT_VERSION`], and what tells an operator's own rules where there are some.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The ids of its checks, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.id.as_str())
    }

    /// The checks that `options` ask for.
    fn selected(&self, options: &ProfileOptions) -> Vec<&Rule> {
        let asked = |rule: &&Rule| {
            let standards = &options.standards;
            rule.profiles.iter().any(|profile| options.profiles.contains(profile))
                && (standards.is_empty() || standards.iter().any(|standard| standard.is_mapped(&rule.mappings)))
        };
        self.rules.iter().filter(asked).collect()
    }
}

impl Disk {
    /// Judges every system of the disk by `content`. What cannot be read is in the report's warnings, and what hangs on it is
    /// unknown; a disk without a system gives a report without systems.
    pub fn profile(&self, content: &Content, options: &ProfileOptions, progress: &mut dyn Progress) -> ProfileReport {
        let mut inspected = InspectReport { image: crate::guest::image_info(self), ..InspectReport::default() };
        inspected.partition_table = self.drives().first().map(crate::guest::partition_table);
        inspected.warnings.extend(self.warnings().iter().map(|warning| Warning {
            r#where: warning.device.clone(),
            what: warning.what.clone(),
            why: warning.why.clone(),
        }));
        let reference_time = options.reference_time.unwrap_or_else(|| last_written(self));
        let mut report = ProfileReport {
            version: REPORT_VERSION.to_owned(),
            image_path: inspected.image.path.clone(),
            image: inspected.image.clone(),
            content_version: content.version().to_owned(),
            reference_time: time::rfc3339(reference_time).unwrap_or_default(),
            semantics: options.semantics.name().to_owned(),
            profiles: options.profiles.iter().map(|profile| profile.name().to_owned()).collect(),
            standards: options.standards.iter().map(|standard| standard.name().to_owned()).collect(),
            notes: vec!["judged by the configuration on the disk; no running system was asked".to_owned()],
            ..ProfileReport::default()
        };
        progress.on_event(&event("inspection", "looking at file systems".to_owned(), 0));
        let mounted = crate::guest::mount_all(self, &mut inspected);
        let names = DeviceNames::new(self);
        let systems = roots::find(self, &mounted, &names, &mut inspected.warnings);
        let rules = content.selected(options);
        let mut judged = Vec::new();
        for root in &systems {
            let (system, warnings) = facts_of(self, root, &names, &inspected, progress);
            inspected.warnings.extend(warnings);
            let files = Files::new(&root.tree);
            files.enter("profile");
            let (results, problem) = {
                let hives = root.system_root.as_deref().map(|system_root| Hives::new(&files, system_root));
                let guest = Guest::new(Parts {
                    disk: self,
                    root,
                    image: &inspected.image,
                    partition_table: inspected.partition_table.as_ref(),
                    filesystems: &inspected.filesystems,
                    systems: systems.len(),
                    files: &files,
                    system: &system,
                    hives: hives.as_ref(),
                    options,
                    reference_time,
                });
                (judge_all(&guest, &rules, progress), guest.walk_problem())
            };
            judged.push(results);
            inspected.warnings.extend(problem.map(|why| Warning {
                r#where: "profile".to_owned(),
                what: "walk over every file".to_owned(),
                why,
            }));
            inspected.warnings.extend(files.into_warnings());
            let operating_system = system.operating_system.clone();
            report.systems.push(ProfiledSystem { root: root.name(), operating_system });
        }
        progress.on_event(&event("analysis", "summing up".to_owned(), 100));
        let mut waivers = Waivers::new(&options.waivers, reference_time);
        let image = inspected.image.path.clone();
        let (places, summed) = (report.systems.clone(), judged.iter());
        for (system, place) in summed.zip(&places) {
            let place = Place { image: &image, root: &place.root, system: &place.operating_system };
            system.add_to(&mut report, options, &place, &mut waivers);
        }
        report.notes.extend(waivers.unused());
        if rules.is_empty() {
            report.notes.push("no check belongs to these profiles and standards: nothing was judged".to_owned());
        }
        report.warnings = inspected.warnings;
        sort_findings(&mut report);
        report
    }
}

fn event(phase: &'static str, message: String, done: u32) -> Event {
    Event { phase, message, done, total: 100 }
}

/// When the image file was last written: ages are judged against the disk's own time.
fn last_written(disk: &Disk) -> i64 {
    let top = disk.drives().first().and_then(|drive| drive.image.top());
    let modified = top.and_then(|layer| std::fs::metadata(&layer.path).ok()?.modified().ok());
    let since = modified.and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

/// Everything an inspection finds but the walk.
fn facts_of(
    disk: &Disk,
    root: &Root,
    names: &DeviceNames<'_>,
    inspected: &InspectReport,
    progress: &mut dyn Progress,
) -> (GuestSystem, Vec<Warning>) {
    let modules = InspectOptions { databases: true, ..InspectOptions::default() }.modules();
    let filesystems = &inspected.filesystems;
    let mut done = 0_u32;
    let mut found = |module: linux::Module, found: String| {
        done = done.saturating_add(4);
        progress.on_event(&event("inspection", format!("{}: {found}", module.title()), done));
    };
    match &root.system_root {
        Some(system_root) => {
            let context = windows::Context { root, system_root, disk, filesystems };
            windows::inspect(&context, &modules, &mut found)
        }
        None => linux::inspect(&linux::Context { root, names, disk, filesystems }, &modules, &mut found),
    }
}

/// A rule and what it came to, with the limits of each standard that has its own.
struct Judged<'r> {
    rule: &'r Rule,
    outcome: Outcome,
    by_standard: BTreeMap<Standard, Status>,
}

/// One system's results.
struct JudgedSystem<'r> {
    name: String,
    benchmark: standards::Benchmark,
    results: Vec<Judged<'r>>,
    readiness: Vec<Readiness>,
}

fn judge_all<'r>(guest: &Guest<'_>, rules: &[&'r Rule], progress: &mut dyn Progress) -> JudgedSystem<'r> {
    let families = guest.families();
    let benchmark = standards::Benchmark::of(&guest.system.operating_system);
    let mut results = Vec::with_capacity(rules.len());
    let mut subject = "";
    for (at, rule) in rules.iter().enumerate() {
        let of = rule.id.split('.').next().unwrap_or_default();
        if of != subject {
            subject = of;
            let done = 40 + at.saturating_mul(60) / rules.len().max(1);
            progress.on_event(&event("profile", format!("judging {subject}"), u32::try_from(done).unwrap_or(100)));
        }
        results.push(judge(guest, rule, &families));
    }
    let readiness = if guest.options.profiles.contains(&Profile::Migration) {
        readiness::of(guest, results.iter().map(|judged| (judged.rule, &judged.outcome)))
    } else {
        Vec::new()
    };
    JudgedSystem { name: guest.root.name(), benchmark, results, readiness }
}

fn judge<'r>(guest: &Guest<'_>, rule: &'r Rule, families: &[&str]) -> Judged<'r> {
    let applies = rule.applies_to.iter().any(|name| name == "any" || families.contains(&name.as_str()));
    if !applies {
        let reason = format!("it is for {}", rule.applies_to.join(", "));
        return Judged { rule, outcome: Outcome::not_applicable(reason), by_standard: BTreeMap::new() };
    }
    let asked = &guest.options.standards;
    let default = evaluate::judge(rule, guest, asked.first().map_or("cis", |standard| standard.limit()));
    let mut by_standard = BTreeMap::new();
    let mut outcome = default.clone();
    for standard in Standard::ALL.into_iter().filter(|standard| standard.is_mapped(&rule.mappings)) {
        let own = if rule.limits.contains_key(standard.limit()) {
            evaluate::judge(rule, guest, standard.limit())
        } else {
            default.clone()
        };
        by_standard.insert(standard, own.status);
        // Of the standards that were asked for, the strictest decides.
        if asked.contains(&standard) && own.status == Status::Fail && outcome.status != Status::Fail {
            outcome = Outcome { reason: format!("{} ({})", own.reason, standard.name()), ..own };
        }
    }
    Judged { rule, outcome, by_standard }
}

impl JudgedSystem<'_> {
    fn add_to(
        &self,
        report: &mut ProfileReport,
        options: &ProfileOptions,
        place: &Place<'_>,
        waivers: &mut Waivers<'_>,
    ) {
        report.migration.extend(self.readiness.iter().cloned());
        let (mut decided, mut applicable) = (0_u64, 0_u64);
        let mut waived = BTreeSet::new();
        for judged in &self.results {
            let status = judged.outcome.status;
            let severity = judged.outcome.severity.unwrap_or(judged.rule.severity);
            let is_bad = matches!(status, Status::Fail | Status::Warn);
            let id = judged.rule.id.as_str();
            let cover = if is_bad { waivers.cover(place, id, &judged.outcome) } else { Cover::None };
            let is_waived = matches!(cover, Cover::Whole(_));
            if is_waived || waivers.is_waived_whole(place, id) {
                waived.insert(id);
            }
            report.summary.checks = report.summary.checks.saturating_add(1);
            let name = if is_waived { WAIVED } else { status.name() };
            let count = report.summary.by_status.entry(name.to_owned()).or_default();
            *count = count.saturating_add(1);
            // What somebody has accepted is in no rate.
            let is_decided = (is_bad || status == Status::Pass) && !is_waived;
            decided = decided.saturating_add(u64::from(is_decided));
            applicable = applicable.saturating_add(u64::from(status != Status::NotApplicable && !is_waived));
            if let Cover::Expired(waiver) = &cover {
                report.notes.push(format!(
                    "the waiver of {id} on {}, approved by {}, expired on {}: the finding counts again",
                    self.name, waiver.approver, waiver.expires
                ));
            }
            let is_finding = is_bad && severity >= options.severity_threshold;
            if !is_finding && !options.all {
                continue;
            }
            let result = covered(self.result(judged, severity, options), cover);
            if is_finding {
                if !is_waived {
                    report.summary.total_findings = report.summary.total_findings.saturating_add(1);
                    report.summary.by_severity.add(severity);
                }
                report.findings.push(result.clone());
            }
            if options.all {
                report.checks.push(result);
            }
        }
        // Of several systems the least known is what people must see.
        if applicable > 0 {
            #[allow(clippy::cast_precision_loss, reason = "a few hundred checks")]
            let coverage = decided as f64 / applicable as f64;
            let known = report.summary.coverage.unwrap_or(1.0);
            report.summary.coverage = Some(known.min(coverage));
        }
        self.sum_by_standard(report, &waived);
    }

    fn sum_by_standard(&self, report: &mut ProfileReport, waived: &BTreeSet<&str>) {
        for judged in &self.results {
            for (standard, status) in &judged.by_standard {
                let name = standard.name().to_owned();
                let sum = report.summary.by_standard.entry(name).or_default();
                if sum.title.is_empty() {
                    sum.title = self.benchmark.title(*standard);
                }
                let (count, failed) = match status {
                    Status::NotApplicable => continue,
                    Status::Pass => (&mut sum.passed, false),
                    Status::Fail | Status::Warn if waived.contains(judged.rule.id.as_str()) => (&mut sum.waived, false),
                    Status::Fail | Status::Warn => (&mut sum.failed, true),
                    Status::Unknown | Status::Error | Status::Manual => (&mut sum.undecided, false),
                };
                *count = count.saturating_add(1);
                sum.applicable = sum.applicable.saturating_add(1);
                if failed {
                    sum.failing.push(judged.rule.id.clone());
                }
            }
        }
    }

    fn result(&self, judged: &Judged<'_>, severity: Severity, options: &ProfileOptions) -> CheckResult {
        let Judged { rule, outcome, .. } = judged;
        let mappings = self.benchmark.mappings(&rule.mappings);
        let evidence_count = outcome.evidence.len() as u64;
        CheckResult {
            id: rule.id.clone(),
            system: self.name.clone(),
            profiles: rule.profiles.iter().map(|profile| profile.name().to_owned()).collect(),
            severity: severity.name().to_owned(),
            status: outcome.status.name().to_owned(),
            title: rule.title.clone(),
            description: outcome.reason.clone(),
            remediation: options.remediation.then(|| rule.remediation.clone()),
            references: self.benchmark.references(&mappings),
            evidence: outcome.evidence.iter().take(EVIDENCE_SHOWN).cloned().collect(),
            evidence_count,
            subjects: outcome.subjects.iter().take(SUBJECTS_SHOWN).cloned().collect(),
            mappings,
            fingerprint: fingerprint(&rule.id, &self.name),
            waiver: None,
        }
    }
}

/// The state of a finding that somebody has accepted.
const WAIVED: &str = "waived";

/// The result with what waivers say of it.
fn covered(result: CheckResult, cover: Cover) -> CheckResult {
    match cover {
        Cover::None => result,
        Cover::Whole(waiver) => CheckResult { status: WAIVED.to_owned(), waiver: Some(waiver), ..result },
        Cover::Expired(waiver) => CheckResult { waiver: Some(waiver), ..result },
        Cover::Part { covered, concerned } => {
            let description = format!("{}; {covered} of {concerned} accepted by waivers", result.description);
            CheckResult { description, ..result }
        }
    }
}

/// Of what was judged and where, not of what was found: the same finding is the same after a line has moved.
fn fingerprint(id: &str, system: &str) -> String {
    let mut digits = hex(&Sha256::new().chain_update(id).chain_update([0]).chain_update(system).finalize());
    digits.truncate(32);
    digits
}

fn sort_findings(report: &mut ProfileReport) {
    let rank = |finding: &CheckResult| Severity::from_name(&finding.severity);
    report.findings.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.id.cmp(&b.id)));
}
