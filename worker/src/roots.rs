//! Which images may be opened: those beneath the operator's image roots, or, where there are none, whatever the worker's
//! own user may read. The engine asks this policy for the image and for every file that an image names, so a backing
//! file obeys the same rules. Symbolic links may lead around inside the roots, never out of them.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use guestkit::image::{ImageOpener, Roots};
use serde::{Deserialize, Serialize};

/// Where the keys of encrypted volumes lie, if anywhere: jobs name files beneath it, and never see what is in them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysRoot(Option<PathBuf>);

/// Bytes of a key file: as many as cryptsetup takes.
const KEY_BYTES_MAX: u64 = 8 << 20;

impl KeysRoot {
    /// No keys.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// The files beneath `folder`.
    ///
    /// # Errors
    /// A folder that is none, or cannot be used.
    pub fn beneath(folder: &Path) -> Result<Self, RootsError> {
        Ok(Self(check_folders("keys", std::slice::from_ref(&folder.to_owned()))?.pop()))
    }

    /// The folder a sandbox must leave readable.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// The contents of the key file `name`; links may lead around inside the root, never out of it.
    ///
    /// # Errors
    /// [`guestkit::Error`]: no root, no such file, or one too long to be a key.
    pub fn read(&self, name: &str) -> guestkit::Result<Vec<u8>> {
        let path = Path::new(name);
        let denied = |reason: &str| guestkit::Error::AccessDenied { path: path.into(), reason: reason.into() };
        let folder = self.0.as_deref().ok_or_else(|| denied("this worker has no keys root (--keys-root)"))?;
        let file = Roots::beneath([folder])?.open(&folder.join(path))?;
        let mut contents = Vec::new();
        let read = file.take(KEY_BYTES_MAX + 1).read_to_end(&mut contents);
        read.map_err(|source| guestkit::Error::Io { action: format!("reading the key file {name}"), source })?;
        if contents.len() as u64 > KEY_BYTES_MAX {
            return Err(denied("it is too long to be a key"));
        }
        Ok(contents)
    }
}

/// The operator's word on images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRoots {
    folders: Vec<PathBuf>,
}

/// Why folders cannot be roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It does not exist, or may not be entered.
    #[error("{role} root {} cannot be used", .path.display())]
    Unusable {
        /// `image` or `output`.
        role: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// It is something else than a folder.
    #[error("{role} root {} is not a folder", .path.display())]
    NotAFolder {
        /// `image` or `output`.
        role: &'static str,
        /// What it names.
        path: PathBuf,
    },
}

/// Checks that every one of `folders` is a folder and makes it absolute, keeping the name its operator gave.
pub(crate) fn check_folders(role: &'static str, folders: &[PathBuf]) -> Result<Vec<PathBuf>, RootsError> {
    folders
        .iter()
        .map(|path| {
            let unusable = |source| RootsError::Unusable { role, path: path.clone(), source };
            if !path.metadata().map_err(unusable)?.is_dir() {
                return Err(RootsError::NotAFolder { role, path: path.clone() });
            }
            std::path::absolute(path).map_err(unusable)
        })
        .collect()
}

impl ImageRoots {
    /// Everything that the process's user may read.
    #[must_use]
    pub fn anywhere() -> Self {
        Self::default()
    }

    /// Only what lies beneath `folders`; none means [`ImageRoots::anywhere`].
    ///
    /// # Errors
    /// A folder that is none, or cannot be used.
    pub fn beneath(folders: &[PathBuf]) -> Result<Self, RootsError> {
        Ok(Self { folders: check_folders("image", folders)? })
    }

    /// Whether images may lie anywhere.
    #[must_use]
    pub fn is_anywhere(&self) -> bool {
        self.folders.is_empty()
    }

    /// The folders, absolute.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Folders a sandbox must leave readable.
    #[must_use]
    pub fn readable(&self) -> Vec<PathBuf> {
        if self.is_anywhere() { vec![PathBuf::from("/")] } else { self.folders.clone() }
    }

    /// Whether `path`, by its name alone, may lie beneath a root: what can be said without looking at the disk.
    #[must_use]
    pub fn may_hold(&self, path: &Path) -> bool {
        self.is_anywhere() || self.folders.iter().any(|root| path.starts_with(root))
    }

    /// The policy the engine opens files by.
    ///
    /// # Errors
    /// [`guestkit::Error`] when a root has gone away.
    pub fn opener(&self) -> guestkit::Result<Arc<dyn ImageOpener>> {
        Ok(if self.is_anywhere() { Arc::new(Roots::anywhere()) } else { Arc::new(Roots::beneath(&self.folders)?) })
    }
}
