//! A local folder of attempts: `FOLDER/<job id>/<lease id>/…`, listed and removed by whole attempts, with whatever lies in them.
//!
//! Everything here blocks.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use guestkit_domain::{JobId, LeaseId};
use tracing::{info, warn};

use super::Attempt;

#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it when absent.
    pub(super) fn open(path: PathBuf) -> std::io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn attempt(&self, attempt: &Attempt) -> PathBuf {
        self.job(&attempt.job_id).join(attempt.lease.0.to_string())
    }

    fn job(&self, job_id: &JobId) -> PathBuf {
        self.0.join(job_id.as_str())
    }

    /// Attempts that have a folder here, those of each job together. Folders of jobs that have none are removed.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        for name in names(&self.0) {
            let Ok(job_id) = JobId::new(&name) else {
                warn!(name, "something that is no job's folder lies among the artifacts");
                continue;
            };
            let of_job = self.attempts_of(&job_id);
            if of_job.is_empty() {
                self.remove_job(&job_id);
            }
            attempts.extend(of_job);
        }
        attempts
    }

    pub(super) fn attempts_of(&self, job_id: &JobId) -> Vec<Attempt> {
        let leases = names(&self.job(job_id)).into_iter().filter_map(|name| name.parse().map(LeaseId).ok());
        leases.map(|lease| Attempt { job_id: job_id.clone(), lease }).collect()
    }

    pub(super) fn remove(&self, attempt: &Attempt) {
        let (job, lease) = (&attempt.job_id, attempt.lease.0);
        match fs::remove_dir_all(self.attempt(attempt)) {
            Ok(()) => info!(%job, lease, "artifacts removed"),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => warn!(%job, lease, %error, "artifacts stay until the next sweep"),
        }
        self.remove_job(job);
    }

    fn remove_job(&self, job_id: &JobId) {
        // One that holds a lease's folder, or was never there, stays as it is.
        let _ = fs::remove_dir(self.job(job_id));
    }
}

/// Names in a folder; none of a folder that is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                warn!(folder = %folder.display(), %error, "cannot list artifacts");
            }
            return Vec::new();
        }
    };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
