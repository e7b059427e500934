//! `guestkit.inspect`: verifies the image, has the engine look at it, and writes the report where it was asked for.

use guestkit::guest::InspectOptions;
use guestkit_protocol::{document, v1};

use super::image::{self, Opened};
use super::{Handler, Job, Reporter, Success, payload};
use crate::failure::Failure;

const OPERATION: &str = "guestkit.inspect";

/// The handler.
#[derive(Debug)]
pub struct Inspect;

impl Handler for Inspect {
    fn operation(&self) -> &'static str {
        OPERATION
    }

    fn capabilities(&self) -> Vec<String> {
        guestkit::capabilities()
    }

    fn run(&self, job: &Job<'_>, reporter: &mut Reporter<'_>) -> Result<Success, Failure> {
        let asked: v1::InspectPayload = payload(document::payload(job.document))?;
        let output = asked.output.unwrap_or_default();
        let image = Opened::new(job, OPERATION, asked.image.unwrap_or_default(), &output, reporter)?;
        let options = options(asked.options.unwrap_or_default());
        let mut report = image.disk.inspect(&options, &mut |event: &_| image::tell(reporter, event));
        if report.systems.is_empty() {
            return Err(image.without_system(&report.warnings));
        }
        report.image_path.clone_from(&image.path);
        report.image.sha256.clone_from(&image.sha256);
        image.finish(&report, "Inspection complete", reporter)
    }
}

fn options(asked: v1::InspectOptions) -> InspectOptions {
    let default = InspectOptions::default();
    InspectOptions {
        deep_scan: asked.deep_scan.unwrap_or(default.deep_scan),
        packages: asked.include_packages.unwrap_or(default.packages),
        services: asked.include_services.unwrap_or(default.services),
        users: asked.include_users.unwrap_or(default.users),
        network: asked.include_network.unwrap_or(default.network),
        security: asked.include_security.unwrap_or(default.security),
        storage: asked.include_storage.unwrap_or(default.storage),
        databases: asked.include_databases.unwrap_or(default.databases),
    }
}
