//! One job in the caller's own process, through the same handlers as everywhere: what a job says of a disk does not depend
//! on how it was run. For people at a terminal, who may read and write what their user may.

use std::path::PathBuf;

use guestkit_protocol::v1;

use crate::handlers::{Job, Registry};
use crate::outcome::{self, Start};
use crate::output::OutputRoots;
use crate::roots::{ImageRoots, KeysRoot, RootsError};
use crate::rules::RulesFolder;
use crate::usage::{Account, Meter};

/// What a local job may touch.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which images may be opened.
    pub images: ImageRoots,
    /// Where keys lie that documents name.
    pub keys_root: KeysRoot,
    /// Keys that the caller holds.
    pub keys: guestkit::Keys,
    /// Where reports may be written.
    pub outputs: OutputRoots,
    /// The caller's own rules for profiles.
    pub rules: RulesFolder,
}

impl Settings {
    /// Whatever the caller's user may.
    ///
    /// # Errors
    /// The root folder cannot be used.
    pub fn unrestricted() -> Result<Self, RootsError> {
        Ok(Self {
            images: ImageRoots::anywhere(),
            keys_root: KeysRoot::none(),
            keys: guestkit::Keys::none(),
            outputs: OutputRoots::beneath(&[PathBuf::from("/")])?,
            rules: RulesFolder::none(),
        })
    }
}

/// Who ran a local job, in its outcome.
pub const WORKER_ID: &str = "local";

/// Runs `document`, which must have passed [`guestkit_protocol::document::check`], and gives its outcome. It blocks until
/// the job is over; `progress` is called on the way, with a percentage that never falls.
pub fn run(document: &v1::JobDocument, settings: &Settings, progress: &mut dyn FnMut(v1::Progress)) -> v1::JobResult {
    let start = Start::now();
    let account = Account::default();
    let unique = format!("{}.{WORKER_ID}.{}", document.job_id, std::process::id());
    let job = Job {
        document,
        images: &settings.images,
        keys_root: &settings.keys_root,
        keys: &settings.keys,
        outputs: &settings.outputs,
        rules: &settings.rules,
        unique: &unique,
        own_process: false,
        account: &account,
    };
    let result = Registry::default().execute(&job, &Meter::new(false), progress);
    outcome::complete(result, document, WORKER_ID, 1, start)
}
