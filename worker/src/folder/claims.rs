//! Which job files are whose. Each process has a folder of its own below `.claimed`, with a lock that the kernel releases
//! when the process ends, however it ends; a file is claimed by renaming it there. Whoever gets the lock of a folder knows
//! that its owner is dead, and puts the files back.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guestkit_domain::{BootId, WorkerId};
use rustix::fs::{FlockOperation, flock};

use super::files;

const LOCK: &str = ".lock";
/// A folder that is being made has this before its name, and no claims yet.
const MAKING: &str = ".making-";
/// A folder that was being made so long ago never will be.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

/// This process's claims.
#[derive(Debug)]
pub(super) struct Claims {
    all: PathBuf,
    own: PathBuf,
    _lock: File,
}

impl Claims {
    /// Makes this process's folder. It appears under its name only once it is locked, so nobody takes it for a dead one's.
    pub(super) fn open(jobs: &Path, worker_id: &WorkerId, boot_id: &BootId) -> io::Result<Self> {
        let all = jobs.join(".claimed");
        let name = format!("{worker_id}.{boot_id}");
        let making = all.join(format!("{MAKING}{name}"));
        fs::create_dir_all(&making)?;
        let lock = File::create(making.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let own = all.join(name);
        fs::rename(&making, &own)?;
        Ok(Self { all, own, _lock: lock })
    }

    /// Takes the file; `None` when it is gone, or when a file of its name is claimed by this process already.
    pub(super) fn claim(&self, file: &Path, name: &OsStr) -> io::Result<Option<PathBuf>> {
        let claimed = self.own.join(name);
        match files::rename_new(file, &claimed) {
            Ok(true) => Ok(Some(claimed)),
            Ok(false) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lays a claimed file back, under its name or the next free one like it.
    pub(super) fn give_back(&self, claimed: &Path, jobs: &Path, name: &OsStr) -> anyhow::Result<()> {
        match files::move_beside(claimed, jobs, name) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lays back what dead processes had claimed, and tells how many files that were.
    pub(super) fn recover(&self, jobs: &Path) -> io::Result<usize> {
        let mut count = 0;
        for entry in fs::read_dir(&self.all)? {
            let folder = entry?.path();
            if folder == self.own || !folder.is_dir() {
                continue;
            }
            count += self.recover_one(&folder, jobs)?;
        }
        Ok(count)
    }

    fn recover_one(&self, folder: &Path, jobs: &Path) -> io::Result<usize> {
        let is_making = folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(MAKING.as_bytes()));
        if is_making && !is_older(folder, ABANDONED_AFTER) {
            return Ok(0);
        }
        let lock = match File::open(folder.join(LOCK)) {
            Ok(lock) => Some(lock),
            // Another worker is taking it down, or did not get as far as its lock.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(lock) = &lock
            && flock(lock, FlockOperation::NonBlockingLockExclusive).is_err()
        {
            return Ok(0);
        }
        let mut count = 0;
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name() == LOCK {
                continue;
            }
            match files::move_beside(&entry.path(), jobs, &entry.file_name()) {
                Ok(_) => count += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // The lock goes last but one: who comes now finds an empty folder, and nothing to take.
        let _ = fs::remove_file(folder.join(LOCK));
        let _ = fs::remove_dir(folder);
        Ok(count)
    }
}

impl Drop for Claims {
    /// Leaves nothing behind when nothing is claimed; otherwise the next worker recovers it.
    fn drop(&mut self) {
        let is_empty =
            fs::read_dir(&self.own).is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name() == LOCK));
        if is_empty {
            let _ = fs::remove_file(self.own.join(LOCK));
            let _ = fs::remove_dir(&self.own);
        }
    }
}

fn is_older(path: &Path, age: Duration) -> bool {
    path.metadata().and_then(|found| found.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|since| since > age))
}
