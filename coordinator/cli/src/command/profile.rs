//! `profile diff`: two reports compared, without a coordinator.

use std::path::Path;

use guestkit::profile::diff;
use guestkit::profile::report::ProfileReport;
use serde_json::{Value, json};

use crate::args::ProfileDiff;
use crate::document::{name_of, read_text};
use crate::failure::Failure;
use crate::output::Output;
use crate::table;

/// Bytes of a report: every check of many systems has some MiB.
const REPORT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Compares two reports.
pub(crate) fn diff(output: &Output, args: &ProfileDiff) -> Result<(), Failure> {
    if args.before == Path::new("-") && args.after == Path::new("-") {
        return Err(Failure::usage("standard input can be named once"));
    }
    let (before, after) = (report(&args.before)?, report(&args.after)?);
    let difference = diff::compare(&before, &after, args.force).map_err(|why| {
        let (before, after) = (name_of(&args.before), name_of(&args.after));
        Failure::usage(format!("{before} and {after} are not compared: {why}; --force compares them all the same"))
    })?;
    output.document(|| json!(difference), || table::profile::difference(&difference))
}

/// The report in a file, or in the outcome document around it.
fn report(file: &Path) -> Result<ProfileReport, Failure> {
    let name = name_of(file);
    let unusable = |why: &str| Failure::usage(format!("{name} is not the report of a profile as JSON: {why}"));
    let mut value: Value =
        serde_json::from_str(&read_text(file, REPORT_BYTES_MAX)?).map_err(|error| unusable(&error.to_string()))?;
    if let Some(data) = value.get_mut("data") {
        value = data.take();
    }
    for member in ["content_version", "findings"] {
        if value.get(member).is_none() {
            return Err(unusable(&format!("it has no {member}")));
        }
    }
    serde_json::from_value(value).map_err(|error| unusable(&error.to_string()))
}
