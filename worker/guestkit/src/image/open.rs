//! Which files of the host may be opened, and how: the caller's policy, obeyed for images and for what images name.
//!
//! An image names further files (backing files, data files), and whoever wrote the image chose the names. So every
//! file goes through one [`ImageOpener`], which opens regular files only, without blocking and without side effects.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Entries of a directory that are shown: a folder of images holds some hundreds.
const LISTED_MAX: usize = 10_000;

/// Opens a file of the host for reading, or says why not.
pub trait ImageOpener: fmt::Debug + Send + Sync {
    /// Opens the regular file at `path`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::AccessDenied`], [`Error::NotAnImage`] or [`Error::Io`].
    fn open(&self, path: &Path) -> Result<File>;

    /// The paths of what lies in `directory`, in order, for an image that is known by its identity and not by its name.
    /// Nothing for a policy that does not show directories, and for one outside of what the policy allows.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn files_in(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let _ = directory;
        Ok(Vec::new())
    }
}

/// The policy of a list of directories: only files beneath them are opened, symbolic links resolved first.
///
/// Without any directory every regular file that the process's user may read is allowed.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    directories: Vec<PathBuf>,
}

impl Roots {
    /// Everything that the process's user may read.
    #[must_use]
    pub const fn anywhere() -> Self {
        Self { directories: Vec::new() }
    }

    /// Only what lies beneath `directories`.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Io`] for a directory that cannot be resolved; an empty list is refused, because
    /// it would mean everything.
    pub fn beneath(directories: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<Self> {
        let resolved: Result<Vec<_>> = directories
            .into_iter()
            .map(|directory| {
                let directory = directory.as_ref();
                directory.canonicalize().map_err(|source| host_error(directory, "resolving the image root", source))
            })
            .collect();
        let directories = resolved?;
        if directories.is_empty() {
            let source = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(Error::Io { action: "restricting images to no directory at all".into(), source });
        }
        Ok(Self { directories })
    }

    fn open_beneath(&self, path: &Path) -> Result<File> {
        let outside = || Error::AccessDenied { path: path.into(), reason: "it lies outside the image roots".into() };
        let real = match path.canonicalize() {
            Ok(real) => real,
            // Whether a file outside exists is nobody's business.
            Err(_) if !self.names_inside(path) => return Err(outside()),
            Err(source) => return Err(host_error(path, "resolving", source)),
        };
        let inside = |root: &PathBuf| Some((root.clone(), real.strip_prefix(root).ok()?.to_owned()));
        let (root, below) = self.directories.iter().find_map(inside).ok_or_else(outside)?;
        refuse_special(path, &real)?;
        open_resolved(&root, &below).map_err(|source| host_error(path, "opening", source))
    }

    fn names_inside(&self, path: &Path) -> bool {
        let no_way_up = !path.components().any(|part| part == Component::ParentDir);
        no_way_up && self.directories.iter().any(|root| path.starts_with(root))
    }
}

impl ImageOpener for Roots {
    fn open(&self, path: &Path) -> Result<File> {
        let file = if self.directories.is_empty() {
            refuse_special(path, path)?;
            openat(CWD, path, read_flags(), Mode::empty())
                .map(File::from)
                .map_err(|errno| host_error(path, "opening", errno.into()))?
        } else {
            self.open_beneath(path)?
        };
        // Looked at once more, on what was really opened.
        let metadata = file.metadata().map_err(|source| host_error(path, "examining", source))?;
        refuse_type(path, metadata.file_type())?;
        Ok(file)
    }

    fn files_in(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let directory = if directory == Path::new("") { Path::new(".") } else { directory };
        let Ok(real) = directory.canonicalize() else { return Ok(Vec::new()) };
        if !self.directories.is_empty() && !self.directories.iter().any(|root| real.starts_with(root)) {
            return Ok(Vec::new());
        }
        let Ok(entries) = std::fs::read_dir(&real) else { return Ok(Vec::new()) };
        let names: io::Result<Vec<_>> = entries.take(LISTED_MAX).map(|entry| Ok(entry?.file_name())).collect();
        let mut names = names.map_err(|source| host_error(directory, "listing", source))?;
        names.sort();
        Ok(names.into_iter().map(|name| directory.join(name)).collect())
    }
}

/// `NONBLOCK`: opening a FIFO must not wait for a writer, should one replace the file after it was looked at.
fn read_flags() -> OFlags {
    OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY
}

/// Opens `below`, which holds no links, beneath `root`; links that appeared since are refused by the kernel.
fn open_resolved(root: &Path, below: &Path) -> io::Result<File> {
    let directory = openat(CWD, root, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(&directory, below, read_flags() | OFlags::NOFOLLOW, Mode::empty(), resolve) {
        Ok(file) => Ok(file.into()),
        // Kernels before 5.6, and sandboxes that do not know the call: the same walk, step by step.
        Err(Errno::NOSYS | Errno::PERM) => open_step_by_step(directory.into(), below),
        Err(errno) => Err(errno.into()),
    }
}

fn open_step_by_step(root: File, below: &Path) -> io::Result<File> {
    let mut parts = below.components().peekable();
    let mut at = root;
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
        let kind = if parts.peek().is_some() { OFlags::DIRECTORY } else { OFlags::empty() };
        at = openat(&at, name, read_flags() | OFlags::NOFOLLOW | kind, Mode::empty())?.into();
    }
    Ok(at)
}

/// Refuses what must not even be opened: opening a device or a FIFO can have effects.
fn refuse_special(shown: &Path, real: &Path) -> Result<()> {
    let metadata = std::fs::metadata(real).map_err(|source| host_error(shown, "examining", source))?;
    refuse_type(shown, metadata.file_type())
}

fn refuse_type(path: &Path, file_type: std::fs::FileType) -> Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    let found = if file_type.is_file() {
        return Ok(());
    } else if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() {
        "a FIFO"
    } else if file_type.is_socket() {
        "a socket"
    } else if file_type.is_block_device() {
        "a block device"
    } else if file_type.is_char_device() {
        "a character device"
    } else {
        "no regular file"
    };
    Err(Error::NotAnImage { path: path.into(), found })
}

fn host_error(path: &Path, verb: &str, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotFound { path: path.into() },
        io::ErrorKind::PermissionDenied => {
            Error::AccessDenied { path: path.into(), reason: "the process's user may not read it".into() }
        }
        _ => Error::Io { action: format!("{verb} {}", path.display()), source },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn denied(result: &Result<File>) -> bool {
        matches!(result, Err(Error::AccessDenied { .. }))
    }

    #[test]
    fn only_what_lies_beneath_a_root_is_opened() {
        let home = tempfile::tempdir().unwrap();
        let (root, outside) = (home.path().join("images"), home.path().join("outside"));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(root.join("sub/disk.raw"), b"disk").unwrap();
        std::fs::write(outside.join("secret"), b"secret").unwrap();
        symlink("sub/disk.raw", root.join("good")).unwrap();
        symlink(root.join("sub/disk.raw"), root.join("absolute")).unwrap();
        symlink(outside.join("secret"), root.join("escape")).unwrap();
        symlink(&outside, root.join("door")).unwrap();
        symlink(root.join("sub"), outside.join("back")).unwrap();
        symlink("turning", root.join("turning")).unwrap();

        let policy = Roots::beneath([&root]).unwrap();
        for allowed in ["sub/disk.raw", "good", "absolute", "sub/../good", "../outside/back/disk.raw"] {
            let opened = policy.open(&root.join(allowed));
            assert!(opened.is_ok(), "{allowed}: {opened:?}");
        }
        for refused in ["escape", "door/secret", "../outside/secret", "../outside/absent"] {
            let met = policy.open(&root.join(refused));
            assert!(denied(&met), "{refused}: {met:?}");
        }
        assert!(denied(&policy.open(Path::new("/etc/passwd"))));
        assert!(denied(&policy.open(Path::new("/absent/at/all"))));
        assert!(matches!(policy.open(&root.join("absent")), Err(Error::NotFound { .. })));
        let listed = |directory: &str| policy.files_in(&root.join(directory)).unwrap();
        assert_eq!(listed("sub"), [root.join("sub/disk.raw")]);
        for hidden in ["door", "../outside", "absent"] {
            assert!(listed(hidden).is_empty(), "{hidden}");
        }
        assert!(matches!(policy.open(&root.join("turning")), Err(Error::Io { .. })));
        assert!(matches!(policy.open(&root.join("sub")), Err(Error::NotAnImage { found: "a directory", .. })));
        assert!(Roots::beneath(Vec::<PathBuf>::new()).is_err(), "no directory must not mean every directory");
    }

    #[test]
    fn the_walk_for_old_kernels_refuses_links_too() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("sub")).unwrap();
        std::fs::write(home.path().join("sub/disk"), b"disk").unwrap();
        symlink("sub", home.path().join("link")).unwrap();
        let root = || File::open(home.path()).unwrap();
        assert!(open_step_by_step(root(), Path::new("sub/disk")).is_ok());
        assert!(open_step_by_step(root(), Path::new("link/disk")).is_err());
        assert!(open_step_by_step(root(), Path::new("../x")).is_err());
    }

    #[test]
    fn special_files_are_refused_and_never_wait() {
        let home = tempfile::tempdir().unwrap();
        let fifo = home.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let socket = home.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for policy in [Roots::anywhere(), Roots::beneath([home.path()]).unwrap()] {
            assert!(matches!(policy.open(&fifo), Err(Error::NotAnImage { found: "a FIFO", .. })));
            assert!(matches!(policy.open(&socket), Err(Error::NotAnImage { found: "a socket", .. })));
            assert!(matches!(policy.open(home.path()), Err(Error::NotAnImage { found: "a directory", .. })));
            assert!(matches!(policy.open(&home.path().join("absent")), Err(Error::NotFound { .. })));
        }
        let device = Roots::anywhere().open(Path::new("/dev/null"));
        assert!(matches!(device, Err(Error::NotAnImage { found: "a character device", .. })));
    }
}
