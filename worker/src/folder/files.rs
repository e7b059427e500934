//! Looking at files that somebody may still be writing, and moving them without ever replacing another.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use guestkit_protocol::document::DOCUMENT_BYTES_MAX;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, openat, renameat_with};
use rustix::io::Errno;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

/// What a file shows.
#[derive(Debug)]
pub(super) enum Look {
    /// One whole JSON value.
    Whole {
        /// The file's bytes.
        bytes: Vec<u8>,
    },
    /// None, or not yet.
    Partial {
        /// Where it breaks off.
        why: String,
    },
    /// Nothing that could ever become a job.
    Refused(String),
    /// It is not there any more.
    Gone,
}

/// Names of what may be job files: `*.json`, not hidden.
pub(super) fn list(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if !is_hidden && Path::new(&name).extension() == Some(OsStr::new("json")) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The state a file is in; `None` when it is gone.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let found = path.symlink_metadata().ok()?;
    Some(Stamp { inode: found.ino(), length: found.len(), modified: found.modified().ok() })
}

/// Reads a file without following a link, waiting for a writer, or taking in more than a document may hold.
pub(super) fn read(path: &Path) -> Look {
    match try_read(path) {
        Ok(look) => look,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Look::Gone,
        Err(error) => Look::Refused(format!("INVALID_DOCUMENT: the file cannot be read: {error}\n")),
    }
}

fn try_read(path: &Path) -> io::Result<Look> {
    let found = path.symlink_metadata()?;
    if !found.is_file() {
        return Ok(not_a_file(found.file_type()));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // It was replaced between the look and the opening.
        Err(Errno::LOOP) => return Ok(Look::Refused("INVALID_DOCUMENT: it is a symbolic link\n".into())),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(not_a_file(file.metadata()?.file_type()));
    }
    let mut bytes = Vec::new();
    file.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > DOCUMENT_BYTES_MAX {
        let size = found.len();
        return Ok(Look::Refused(format!(
            "TOO_LARGE: the file has {size} bytes, a job document at most {DOCUMENT_BYTES_MAX}\n"
        )));
    }
    Ok(match serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        Ok(_) => Look::Whole { bytes },
        Err(error) => Look::Partial { why: error.to_string() },
    })
}

fn not_a_file(found: fs::FileType) -> Look {
    use std::os::unix::fs::FileTypeExt as _;
    let what = if found.is_symlink() {
        "a symbolic link"
    } else if found.is_dir() {
        "a directory"
    } else if found.is_fifo() {
        "a FIFO"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Look::Refused(format!("INVALID_DOCUMENT: it is {what}; a job is a regular file\n"))
}

/// Renames `from` to `to` unless something is there; `false` when there is.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<bool> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // A file system that cannot say "unless": looked at first instead, and the window is accepted.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if to.symlink_metadata().is_ok() {
                return Ok(false);
            }
            fs::rename(from, to).map(|()| true)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Files of one name that are kept side by side before giving up: somebody is looping.
const SAME_NAME_MAX: u32 = 10_000;

/// Moves `from` into `folder` under `name`, or under the first free name like it, and gives its path.
pub(super) fn move_beside(from: &Path, folder: &Path, name: &OsStr) -> io::Result<PathBuf> {
    for number in 0..SAME_NAME_MAX {
        let to = folder.join(numbered(name, number));
        if rename_new(from, &to)? {
            return Ok(to);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// `x.json`, `x.1.json`, `x.2.json`…
fn numbered(name: &OsStr, number: u32) -> OsString {
    if number == 0 {
        return name.to_owned();
    }
    let path = Path::new(name);
    let mut numbered = path.file_stem().unwrap_or(name).to_owned();
    numbered.push(format!(".{number}"));
    if let Some(extension) = path.extension() {
        numbered.push(".");
        numbered.push(extension);
    }
    numbered
}
