//! `guestkit.profile`: judges the systems of an image, and ends the job as failed where the document wants that.

use guestkit::profile::report::ProfileReport;
use guestkit::profile::waivers::{Scope, Waiver};
use guestkit::profile::{Content, Profile, ProfileOptions, Semantics, Severity, Standard};
use guestkit_domain::ErrorCode;
use guestkit_protocol::{document, v1};
use serde_json::Value;

use super::image::{self, Opened};
use super::{Handler, Job, Reporter, Success, payload};
use crate::failure::Failure;

const OPERATION: &str = "guestkit.profile";

/// Checks named in a failure before the rest is counted.
const NAMED_MAX: usize = 10;

/// The handler.
#[derive(Debug)]
pub struct ProfileImage;

impl Handler for ProfileImage {
    fn operation(&self) -> &'static str {
        OPERATION
    }

    fn capabilities(&self) -> Vec<String> {
        guestkit::capabilities()
    }

    fn run(&self, job: &Job<'_>, reporter: &mut Reporter<'_>) -> Result<Success, Failure> {
        let asked: v1::ProfilePayload = payload(document::payload(job.document))?;
        let given = asked.options.unwrap_or_default();
        let fail_on_critical = given.fail_on_critical.unwrap_or(false);
        let options = options(&asked.profiles, given)?;
        // Before the image is opened: what can be known to be wrong is told at once.
        let content = content(job, &options)?;
        let output = asked.output.unwrap_or_default();
        let image = Opened::new(job, OPERATION, asked.image.unwrap_or_default(), &output, reporter)?;
        let mut report = image.disk.profile(&content, &options, &mut |event: &_| image::tell(reporter, event));
        if report.systems.is_empty() {
            return Err(image.without_system(&report.warnings));
        }
        report.image_path.clone_from(&image.path);
        report.image.sha256.clone_from(&image.sha256);
        let success = image.finish(&report, "Profile complete", reporter)?;
        let verdict = if fail_on_critical { critical(&report) } else { None };
        Ok(Success { verdict, ..success })
    }
}

/// The checks to judge by, once it is known that every waiver can meet one.
fn content(job: &Job<'_>, options: &ProfileOptions) -> Result<Content, Failure> {
    let content = job.rules.content().map_err(|why| Failure::new(ErrorCode::Internal, why))?;
    content.check_waivers(options).map_err(|problems| {
        let text = format!("options.waivers: {}", problems.join("; "));
        Failure::new(ErrorCode::ValidationError, text).with("waivers", Value::from(problems))
    })?;
    Ok(content)
}

/// Why the job has failed, where something critical was found.
fn critical(report: &ProfileReport) -> Option<Failure> {
    let is_critical = |severity: &str, status: &str| severity == "critical" && status != "waived";
    let critical = report.findings.iter().filter(|finding| is_critical(&finding.severity, &finding.status));
    let mut ids: Vec<&str> = critical.map(|finding| finding.id.as_str()).collect();
    let count = ids.len();
    if count == 0 {
        return None;
    }
    ids.truncate(NAMED_MAX);
    let more = if count > ids.len() { format!(" and {} more", count - ids.len()) } else { String::new() };
    let text = format!("{count} critical findings: {}{more}", ids.join(", "));
    Some(Failure::new(ErrorCode::CriticalFindings, text).with("findings", count).with("checks", Value::from(ids)))
}

/// The words of the document; the protocol has checked them, and a word it knows but this does not is told.
fn options(profiles: &[String], given: v1::ProfileOptions) -> Result<ProfileOptions, Failure> {
    let default = ProfileOptions::default();
    let unknown = |field: &'static str| {
        move |word: &str| Failure::new(ErrorCode::ValidationError, format!("{field} {word:?} is not known"))
    };
    let profiles = all(profiles, Profile::from_name, unknown("profiles"))?;
    let waivers = given.waivers.into_iter().map(waiver).collect();
    Ok(ProfileOptions {
        profiles: if profiles.is_empty() { default.profiles } else { profiles },
        standards: all(&given.standards, Standard::from_name, unknown("options.standards"))?,
        severity_threshold: one(
            &given.severity_threshold,
            Severity::from_name,
            default.severity_threshold,
            unknown("options.severity_threshold"),
        )?,
        remediation: given.include_remediation.unwrap_or(default.remediation),
        all: given.all.unwrap_or(default.all),
        target: text(given.target),
        reference_time: match given.reference_time.as_str() {
            "" => None,
            time => {
                let read = time.parse::<jiff::Timestamp>();
                Some(read.map_err(|_| unknown("options.reference_time")(time))?.as_second())
            }
        },
        semantics: one(&given.semantics, Semantics::from_name, default.semantics, unknown("options.semantics"))?,
        waivers,
    })
}

fn all<T>(
    words: &[String],
    read: impl Fn(&str) -> Option<T>,
    unknown: impl Fn(&str) -> Failure,
) -> Result<Vec<T>, Failure> {
    words.iter().map(|word| read(word).ok_or_else(|| unknown(word))).collect()
}

fn one<T>(
    word: &str,
    read: impl Fn(&str) -> Option<T>,
    default: T,
    unknown: impl Fn(&str) -> Failure,
) -> Result<T, Failure> {
    if word.is_empty() { Ok(default) } else { read(word).ok_or_else(|| unknown(word)) }
}

fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn waiver(given: v1::ProfileWaiver) -> Waiver {
    let scope = given.scope.unwrap_or_default();
    Waiver {
        id: given.id,
        scope: Scope { image: text(scope.image), system: text(scope.system), path: text(scope.path) },
        justification: given.justification,
        approver: given.approver,
        expires: given.expires,
    }
}
