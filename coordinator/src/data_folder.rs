//! The folder that holds the store: made when absent, locked for as long as a coordinator lives, and the place where it
//! tells which addresses it got.
//!
//! The lock is the operating system's (`flock`), so it ends with the process, however that ends.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const LOCK: &str = "lock";
const LISTEN: &str = "listen.json";
/// The kernel takes some milliseconds to end a killed process; whoever holds the lock for longer lives.
const PATIENCE: Duration = Duration::from_secs(1);
const STORE: &str = "coordinator.sqlite";
const ARTIFACTS: &str = "artifacts";
const UPLOADS: &str = "uploads";

/// A data folder that is ours until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// Another coordinator runs on it.
    #[error("use {}: another coordinator holds it", path.display())]
    Held {
        /// The folder.
        path: PathBuf,
    },
    /// The file system says no.
    #[error("use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DataFolder {
    /// Makes the folder when absent, and locks it.
    ///
    /// # Errors
    /// When another coordinator holds it, or the file system says no.
    pub fn open(path: &Path) -> Result<Self, DataFolderError> {
        let io_error = |path: &Path| {
            let path = path.to_path_buf();
            move |source| DataFolderError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(io_error(path))?;
        let file = path.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&file).map_err(io_error(&file))?;
        match patiently(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataFolderError::Held { path: path.into() }),
            Err(TryLockError::Error(source)) => return Err(DataFolderError::Io { path: file, source }),
        }
        let folder = Self { path: path.into(), _lock: lock };
        // Addresses of the process before us would mislead whoever waits for ours.
        match fs::remove_file(folder.path.join(LISTEN)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(DataFolderError::Io { path: folder.path.join(LISTEN), source })
            }
            _ => Ok(folder),
        }
    }

    /// The store's file.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// The folder of artifacts, unless they are kept elsewhere.
    #[must_use]
    pub fn artifacts(&self) -> PathBuf {
        self.path.join(ARTIFACTS)
    }

    /// The folder of artifacts on their way.
    #[must_use]
    pub fn uploads(&self) -> PathBuf {
        self.path.join(UPLOADS)
    }

    /// Tells the addresses in `listen.json`: `{"grpc": "127.0.0.1:40001", "http": "127.0.0.1:40002", "pid": 1}`.
    /// Written beside and renamed, so that a reader sees nothing or all of it.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn tell_addresses(&self, grpc: SocketAddr, http: SocketAddr) -> Result<(), DataFolderError> {
        let path = self.path.join(LISTEN);
        let beside = self.path.join("listen.json.new");
        let text = serde_json::json!({"grpc": grpc.to_string(), "http": http.to_string(), "pid": std::process::id()});
        File::create(&beside)
            .and_then(|mut file| writeln!(file, "{text}"))
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(|source| DataFolderError::Io { path, source })
    }
}

/// Takes the lock, waiting for a process that was killed a moment ago and has not quite gone.
fn patiently(lock: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(PATIENCE / 20),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_folder_has_one_coordinator() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataFolder::open(folder.path()).unwrap();
        assert!(matches!(DataFolder::open(folder.path()), Err(DataFolderError::Held { .. })));
        drop(first);
        DataFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn addresses_are_told_and_old_ones_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataFolder::open(folder.path()).unwrap();
        held.tell_addresses("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()).unwrap();
        let text = fs::read_to_string(folder.path().join("listen.json")).unwrap();
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["grpc"], "127.0.0.1:1");
        assert_eq!(told["http"], "127.0.0.1:2");
        drop(held);
        drop(DataFolder::open(folder.path()).unwrap());
        assert!(!folder.path().join("listen.json").exists());
    }
}
