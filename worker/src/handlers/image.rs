//! What every operation that reads a disk has in common: the image is verified and opened, what the engine says becomes an
//! outcome, and the report is written where it was asked for.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guestkit::guest::report::Warning;
use guestkit::image::{self, Format, ImageOpener};
use guestkit::{Disk, Error, ImageSpec, Keys, Limits};
use guestkit_domain::ErrorCode;
use guestkit_protocol::{document, v1};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Job, Reporter, Success};
use crate::failure::Failure;
use crate::output::{self, Destination, Layout};

/// Where the phases begin, in percent, as the job protocol names them.
const VALIDATION: f64 = 5.0;
const INSPECTION: f64 = 20.0;
const ANALYSIS: f64 = 80.0;
const EXPORT: f64 = 90.0;

/// How often the hashing of a large image is told of.
const CHECKSUM_PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// An image that is open, and where its report goes.
pub(super) struct Opened<'j> {
    job: &'j Job<'j>,
    operation: &'static str,
    /// The disk.
    pub(super) disk: Disk,
    /// Its path as the document names it.
    pub(super) path: String,
    /// Its SHA-256, where the document names one: it is that.
    pub(super) sha256: Option<String>,
    destination: Option<(Destination, Layout)>,
}

impl Drop for Opened<'_> {
    /// Whatever comes of it, this much was read.
    fn drop(&mut self) {
        self.job.account.add_read(self.disk.budget().bytes_read());
    }
}

impl<'j> Opened<'j> {
    /// Verifies and opens the image that a document names.
    pub(super) fn new(
        job: &'j Job<'j>,
        operation: &'static str,
        image: v1::ImageRef,
        output: &v1::OutputSpec,
        reporter: &mut Reporter<'_>,
    ) -> Result<Self, Failure> {
        reporter.report("validation", VALIDATION, format!("Validating {}", image.path), Map::new());
        let destination = destination(job, operation, output)?;
        let opener = job.images.opener().map_err(|error| failure(&error, None))?;
        let stated = stated_format(&image)?;
        check_size(&image, &*opener)?;
        let sha256 = verify_checksum(job, &image, &*opener, reporter)?;

        reporter.report("inspection", INSPECTION, "Opening the image", Map::new());
        let first = ImageSpec { path: PathBuf::from(&image.path), format: stated };
        let specs: Vec<_> = [first].into_iter().chain(image.paths.iter().map(ImageSpec::recognised)).collect();
        let keys = keys(job, &image)?;
        let disk =
            Disk::open_with_keys(&specs, &*opener, &keys, &limits(job)).map_err(|error| failure(&error, stated))?;
        let opened = Self { job, operation, disk, path: image.path, sha256, destination };
        check_virtual_size(job, &opened.disk)?;
        Ok(opened)
    }

    /// Why no system was found, which is told first; `warnings` are the report's.
    pub(super) fn without_system(&self, warnings: &[Warning]) -> Failure {
        // What an installer starts from is not what it installs.
        let medium = warnings.iter().find(|warning| warning.what == "installation medium");
        medium.map_or_else(
            || why_no_system(&self.disk),
            |medium| {
                let text = format!("no operating system was found; {}: {}", medium.r#where, medium.why);
                Failure::new(ErrorCode::NoOperatingSystem, text)
            },
        )
    }

    /// Gives the report, and writes it where it was asked for.
    pub(super) fn finish(
        &self,
        report: &impl Serialize,
        done: &str,
        reporter: &mut Reporter<'_>,
    ) -> Result<Success, Failure> {
        let report = serde_json::to_value(report)
            .map_err(|error| Failure::new(ErrorCode::Internal, format!("the report has no JSON form: {error}")))?;
        reporter.report("export", EXPORT, "Writing the report", Map::new());
        let write = |(to, layout): &(Destination, Layout)| export(self.job, self.operation, to, *layout, &report);
        let outputs = self.destination.as_ref().map(write).transpose()?;
        reporter.report("complete", 100.0, done, Map::new());
        Ok(Success { report, outputs, verdict: None })
    }
}

/// Tells what the engine tells, between the image's opening and its report.
pub(super) fn tell(reporter: &mut Reporter<'_>, event: &guestkit::guest::Event) {
    let share = f64::from(event.done) / f64::from(event.total.max(1));
    let percent = if event.phase == "analysis" { ANALYSIS } else { INSPECTION + (ANALYSIS - INSPECTION) * share };
    reporter.report(event.phase, percent, event.message.clone(), Map::new());
}

fn destination(
    job: &Job<'_>,
    operation: &str,
    output: &v1::OutputSpec,
) -> Result<Option<(Destination, Layout)>, Failure> {
    let layout = Layout::of(operation, output)?;
    if output.destination.is_empty() {
        return Ok(None);
    }
    let kind = operation.rsplit('.').next().unwrap_or(operation);
    let default_name = format!("{}-{kind}.{}", job.document.job_id, layout.extension());
    Ok(Some((job.outputs.destination(&output.destination, &default_name)?, layout)))
}

fn stated_format(image: &v1::ImageRef) -> Result<Option<Format>, Failure> {
    match image.format.as_str() {
        "" | "auto" => Ok(None),
        name => Format::from_name(name).map(Some).ok_or_else(|| {
            Failure::new(ErrorCode::ValidationError, format!("image.format {name:?} is no format of disk images"))
        }),
    }
}

fn check_size(image: &v1::ImageRef, opener: &dyn ImageOpener) -> Result<(), Failure> {
    let Some(expected) = image.size_bytes else { return Ok(()) };
    let path = Path::new(&image.path);
    let file = opener.open(path).map_err(|error| failure(&error, None))?;
    let actual = file
        .metadata()
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("{} cannot be examined: {error}", path.display())))?
        .len();
    if actual == expected {
        return Ok(());
    }
    let text = format!("{} has {actual} bytes, the job names a file of {expected}", path.display());
    Err(Failure::new(ErrorCode::ImageChecksumMismatch, text)
        .with("what", "size_bytes")
        .with("expected", expected)
        .with("actual", actual))
}

/// Hashes the file where the job names its checksum; gives the checksum.
fn verify_checksum(
    job: &Job<'_>,
    image: &v1::ImageRef,
    opener: &dyn ImageOpener,
    reporter: &mut Reporter<'_>,
) -> Result<Option<String>, Failure> {
    if image.checksum.is_empty() {
        return Ok(None);
    }
    let expected = image.checksum.strip_prefix("sha256:").unwrap_or(&image.checksum).to_ascii_lowercase();
    let mut read = 0;
    let mut told = Instant::now();
    let progress = |done: u64, total: u64| {
        read = done;
        // A person watching sees it move; a small image is hashed before anybody looks.
        if told.elapsed() >= CHECKSUM_PROGRESS_INTERVAL && done < total {
            told = Instant::now();
            #[allow(clippy::cast_precision_loss)]
            let share = done as f64 / total as f64;
            let percent = VALIDATION + (INSPECTION - VALIDATION) * share;
            let details = json!({ "bytes_done": done, "bytes_total": total });
            let details = details.as_object().cloned().unwrap_or_default();
            reporter.report("validation", percent, "Verifying the checksum", details);
        }
        Ok(())
    };
    let actual = image::sha256(Path::new(&image.path), opener, &limits(job), progress);
    job.account.add_read(read);
    let actual = actual.map_err(|error| failure(&error, None))?;
    if actual == expected {
        return Ok(Some(actual));
    }
    let text = format!("{} has the SHA-256 {actual}, the job names {expected}", image.path);
    Err(Failure::new(ErrorCode::ImageChecksumMismatch, text)
        .with("what", "sha256")
        .with("expected", expected)
        .with("actual", actual))
}

/// The keys that the job refers to, and those of whoever runs it.
fn keys(job: &Job<'_>, image: &v1::ImageRef) -> Result<Keys, Failure> {
    let mut keys = job.keys.clone();
    for key in &image.keys {
        let volume = if key.volume.is_empty() { "all" } else { &key.volume };
        let contents = job.keys_root.read(&key.file).map_err(|error| {
            // What was wrong with a key file is told by its name alone.
            Failure::new(ErrorCode::ValidationError, format!("image.keys: {}", error.with_causes()))
        })?;
        keys.add_file(volume, contents);
    }
    Ok(keys)
}

/// The engine's own bounds; its time is the attempt's, so that a bound met is told as what it is where possible.
fn limits(job: &Job<'_>) -> Limits {
    let seconds = job.document.execution.as_ref().and_then(|execution| execution.timeout_seconds);
    let time = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let limits = Limits::default();
    Limits { time: time.unwrap_or(limits.time), ..limits }
}

fn check_virtual_size(job: &Job<'_>, disk: &Disk) -> Result<(), Failure> {
    let constraints = job.document.constraints.as_ref();
    let Some(gigabytes) = constraints.and_then(|constraints| constraints.maximum_disk_size_gb) else { return Ok(()) };
    let most = u64::try_from(gigabytes).unwrap_or(0).saturating_mul(1 << 30);
    let actual = disk.drives().first().and_then(|drive| drive.image.top()).map_or(0, |top| top.virtual_size_bytes);
    if actual <= most {
        return Ok(());
    }
    let text = format!("the disk has {actual} bytes, constraints.maximum_disk_size_gb allows {gigabytes} GiB");
    Err(Failure::new(ErrorCode::LimitExceeded, text)
        .with("limit", "maximum_disk_size_gb")
        .with("value", gigabytes)
        .with("actual_bytes", actual))
}

/// Why nothing that starts was found: because something could not be read, which is told first, or because there is none.
fn why_no_system(disk: &Disk) -> Failure {
    let errors: Vec<Error> = disk
        .devices()
        .iter()
        .filter(|device| device.is_candidate())
        .filter_map(|device| disk.mount(device).err())
        .collect();
    let rank = |error: &Error| match error {
        Error::LimitReached { .. } => 0,
        Error::Encrypted { .. } => 1,
        Error::Unsupported { .. } => 2,
        Error::Corrupt { .. } => 3,
        _ => 4,
    };
    if let Some(error) = errors.iter().min_by_key(|error| rank(error)) {
        return failure(error, None);
    }
    if let Some(warning) = disk.warnings().iter().find(|warning| warning.why.contains("not supported")) {
        return Failure::new(ErrorCode::ImageUnsupported, format!("{}: {}", warning.device, warning.why))
            .with("what", warning.why.clone());
    }
    let filesystems: Vec<String> = disk
        .devices()
        .iter()
        .map(|device| {
            let kind = device.probe.as_ref().map_or("unrecognised", |probe| probe.kind);
            format!("{} ({kind})", device.name)
        })
        .collect();
    let seen = if filesystems.is_empty() { "no partitions".to_owned() } else { filesystems.join(", ") };
    Failure::new(ErrorCode::NoOperatingSystem, format!("no operating system was found; seen: {seen}"))
        .with("filesystems", Value::from(filesystems))
}

fn export(
    job: &Job<'_>,
    operation: &str,
    to: &Destination,
    layout: Layout,
    report: &Value,
) -> Result<v1::Outputs, Failure> {
    // The file holds the very report that is returned: through its message and back.
    let mut result = v1::JobResult::default();
    document::set_report(&mut result, operation, report.clone())
        .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
    let bytes = layout.render(&document::report_to_json(&result))?;
    let artifact = output::write(to, layout, &bytes, job.unique)?;
    job.account.add_written(artifact.size_bytes);
    Ok(v1::Outputs { primary: artifact.path.clone(), artifacts: vec![artifact] })
}

/// The engine's errors as outcomes. `stated` is the format the job stated, where it did.
fn failure(error: &Error, stated: Option<Format>) -> Failure {
    let text = error.with_causes();
    match error {
        Error::Corrupt { structure, offset, reason } => Failure::new(ErrorCode::ImageCorrupt, text)
            .with("structure", *structure)
            .with("offset", *offset)
            .with("reason", reason.clone()),
        Error::Unsupported { what } => Failure::new(ErrorCode::ImageUnsupported, text).with("what", what.clone()),
        Error::LimitReached { which, value } => {
            Failure::new(ErrorCode::LimitExceeded, text).with("limit", which.to_string()).with("value", *value)
        }
        Error::Encrypted { what } => Failure::new(ErrorCode::ImageEncrypted, text).with("what", what.clone()),
        Error::NotFound { path } => {
            Failure::new(ErrorCode::ImageNotFound, text).with("path", path.to_string_lossy().into_owned())
        }
        Error::AccessDenied { path, reason } => Failure::new(ErrorCode::ImageAccessDenied, text)
            .with("path", path.to_string_lossy().into_owned())
            .with("reason", reason.clone()),
        // Nothing was left of the image, or nothing was ever in it.
        Error::NotAnImage { found: found @ "an empty file", .. } => Failure::new(ErrorCode::ImageCorrupt, text)
            .with("structure", "image file")
            .with("offset", 0)
            .with("reason", *found),
        Error::NotAnImage { found, .. } => Failure::new(ErrorCode::ImageUnsupported, text).with("what", *found),
        Error::FormatMismatch { stated: said, found, .. } => {
            // Stated in the document, it is the document that is wrong; claimed by the file itself, it is the file.
            let failure = match stated {
                Some(_) => Failure::new(ErrorCode::ValidationError, text),
                None => Failure::new(ErrorCode::ImageCorrupt, text).with("structure", "image header").with("offset", 0),
            };
            failure.with("stated", said.clone()).with("found", found.clone())
        }
        Error::Io { .. } => Failure::new(ErrorCode::Internal, text),
    }
}
