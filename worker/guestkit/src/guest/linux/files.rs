//! What the Linux modules ask a guest's tree, with one rule for failures: what is absent is absent, what cannot be read
//! becomes a warning of the module that asked, and the module goes on.

use std::cell::{Cell, RefCell};
use std::error::Error as _;

use crate::error::{Error, Result};
use crate::filesystem::{DirEntry, FileType, Metadata};
use crate::guest::report::Warning;
use crate::guest::sqlite::DatabaseFiles;
use crate::guest::tree::{OpenFile, Tree};
use crate::read_at::ReadAt;

/// The largest configuration file that is parsed: the largest honest ones (hosts block lists, sudoers of a big site) are a
/// few megabytes, and every one of them is held in memory while it is parsed.
const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Warnings kept for one report: more say nothing new, and a hostile tree could make one for every file.
const WARNINGS_MAX: usize = 200;

/// Homes that are looked into.
const HOMES_MAX: usize = 1_000;

/// `/dev/null`. Source: Linux, `Documentation/admin-guide/devices.txt`.
const NULL: (u32, u32) = (1, 3);

/// One guest's files, and the warnings that reading them gave.
pub(crate) struct Files<'a> {
    tree: &'a Tree,
    module: Cell<&'static str>,
    warnings: RefCell<Vec<Warning>>,
}

impl<'a> Files<'a> {
    pub(crate) const fn new(tree: &'a Tree) -> Self {
        Self { tree, module: Cell::new("operating_system"), warnings: RefCell::new(Vec::new()) }
    }

    pub(crate) const fn tree(&self) -> &'a Tree {
        self.tree
    }

    /// From here on warnings belong to `module`.
    pub(crate) fn enter(&self, module: &'static str) {
        self.module.set(module);
    }

    pub(crate) fn into_warnings(self) -> Vec<Warning> {
        self.warnings.into_inner()
    }

    pub(crate) fn warn(&self, what: impl Into<String>, why: impl Into<String>) {
        let mut warnings = self.warnings.borrow_mut();
        let warning = Warning { r#where: self.module.get().to_owned(), what: what.into(), why: why.into() };
        if warnings.len() < WARNINGS_MAX && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// The error of reading `what`, with its causes.
    pub(crate) fn warn_error(&self, what: &str, error: &Error) {
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            why.push_str(": ");
            why.push_str(&source.to_string());
            cause = source.source();
        }
        self.warn(what, why);
    }

    fn or_warn<T>(&self, what: &str, result: Result<Option<T>>) -> Option<T> {
        result.unwrap_or_else(|error| {
            self.warn_error(what, &error);
            None
        })
    }

    /// A configuration file as bytes.
    pub(crate) fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let read = self.tree.read_file_within(path, CONFIG_BYTES_MAX);
        self.or_note(path, read)
    }

    /// A configuration file as text; bytes that are not UTF-8 become replacement characters.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        self.bytes(path).map(lossy)
    }

    /// The first line that says something, trimmed.
    pub(crate) fn first_line(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    }

    pub(crate) fn open(&self, path: &str) -> Option<OpenFile> {
        self.or_note(path, self.tree.open(path))
    }

    fn or_note<T>(&self, path: &str, read: Result<Option<T>>) -> Option<T> {
        if matches!(read, Ok(None)) {
            self.note_no_file(path);
        }
        self.or_warn(path, read)
    }

    /// Tells what is in the place of a file at `path` and would make its reader wait or lead it elsewhere; whether there is
    /// such a thing. The null device is how an empty file is configured.
    pub(crate) fn note_no_file(&self, path: &str) -> bool {
        let Ok(Some(found)) = self.tree.metadata(path) else { return false };
        let what = match found.file_type {
            FileType::Fifo => "a named pipe",
            FileType::Socket => "a socket",
            FileType::BlockDevice => "a block device",
            FileType::CharacterDevice if found.device != Some(NULL) => "a character device",
            _ => return false,
        };
        self.warn(path, format!("it is {what}, not a file"));
        true
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.or_warn(path, self.tree.exists(path).map(Some)).unwrap_or(false)
    }

    pub(crate) fn is_dir(&self, path: &str) -> bool {
        self.or_warn(path, self.tree.is_dir(path).map(Some)).unwrap_or(false)
    }

    pub(crate) fn stat(&self, path: &str) -> Option<Metadata> {
        self.or_warn(path, self.tree.metadata(path))
    }

    pub(crate) fn stat_link(&self, path: &str) -> Option<Metadata> {
        self.or_warn(path, self.tree.symlink_metadata(path))
    }

    /// The target of a symbolic link as it is stored.
    pub(crate) fn link(&self, path: &str) -> Option<String> {
        self.or_warn(path, self.tree.read_link(path)).map(lossy)
    }

    /// The entries of a directory in byte order of their names; empty where there is none.
    pub(crate) fn entries(&self, path: &str) -> Vec<Entry> {
        let entries = self.or_warn(path, self.tree.read_dir(path)).unwrap_or_default();
        let mut entries: Vec<_> = entries.into_iter().filter_map(Entry::from_entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }

    /// The names in a directory in byte order.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        self.entries(path).into_iter().map(|entry| entry.name).collect()
    }

    /// The paths of the files in `directory` whose names end in `suffix`, in byte order; hidden ones left out.
    pub(crate) fn with_suffix(&self, directory: &str, suffix: &str) -> Vec<String> {
        let names = self.names(directory).into_iter();
        names
            .filter(|name| name.ends_with(suffix) && !name.starts_with('.'))
            .map(|name| format!("{directory}/{name}"))
            .collect()
    }

    /// The homes of root and of those below `/home`, whether an account still has them or not.
    pub(crate) fn homes(&self) -> Vec<String> {
        let is_folder = |entry: &Entry| matches!(entry.file_type, None | Some(FileType::Directory));
        let users = self.entries("/home").into_iter().filter(is_folder).take(HOMES_MAX);
        std::iter::once("/root".to_owned()).chain(users.map(|entry| format!("/home/{}", entry.name))).collect()
    }

    /// The first of `paths` that exists.
    pub(crate) fn first_existing<'p>(&self, paths: &[&'p str]) -> Option<&'p str> {
        paths.iter().copied().find(|path| self.exists(path))
    }

    /// Files named by a shell pattern whose last parts may hold `*`, `?` and `[…]`; in byte order, as glob(3) sorts
    /// them in the C locale.
    pub(crate) fn glob(&self, pattern: &str) -> Vec<String> {
        let mut found = vec![String::new()];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let is_pattern = part.contains(['*', '?', '[']);
            let mut next = Vec::new();
            for base in found {
                if is_pattern {
                    let names = self.names(if base.is_empty() { "/" } else { &base });
                    let matching = names.into_iter().filter(|name| {
                        super::pattern::matches(part, name) && (part.starts_with('.') || !name.starts_with('.'))
                    });
                    next.extend(matching.map(|name| format!("{base}/{name}")));
                } else {
                    next.push(format!("{base}/{part}"));
                }
                // A pattern over a hostile directory names at most this many files.
                if next.len() > GLOB_MAX {
                    self.warn(pattern, format!("the pattern names more than {GLOB_MAX} files"));
                    return Vec::new();
                }
            }
            found = next;
        }
        found.retain(|path| self.exists(path));
        found
    }
}

/// A SQLite database in the guest, with what lies beside it.
pub(crate) struct SqliteFiles {
    main: OpenFile,
    log: Option<OpenFile>,
    journal: Option<OpenFile>,
}

impl SqliteFiles {
    /// `None` where there is no file at `path`, or it cannot be opened, which is then told.
    pub(crate) fn open(files: &Files<'_>, path: &str) -> Option<Self> {
        let beside = |suffix| files.open(&format!("{path}{suffix}"));
        Some(Self { main: files.open(path)?, log: beside("-wal"), journal: beside("-journal") })
    }

    pub(crate) fn readers(&self) -> DatabaseFiles<'_> {
        DatabaseFiles {
            main: &self.main,
            log: self.log.as_ref().map(|file| file as &dyn ReadAt),
            journal: self.journal.as_ref().map(|file| file as &dyn ReadAt),
        }
    }
}

/// Files that one pattern may name: a directory of drop-ins holds tens.
const GLOB_MAX: usize = 10_000;

/// A name in a directory.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) file_type: Option<FileType>,
}

impl Entry {
    /// A name that is not UTF-8 names nothing that a Linux configuration could mean, so it is left out.
    fn from_entry(entry: DirEntry) -> Option<Self> {
        Some(Self { name: String::from_utf8(entry.name).ok()?, file_type: entry.file_type })
    }
}

/// A path without `/usr` in front: where that is merged into the root both names of a file are one.
pub(crate) fn without_usr(path: &str) -> &str {
    path.strip_prefix("/usr").unwrap_or(path)
}

/// Text of bytes; what is not UTF-8 becomes a replacement character.
pub(crate) fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::guest::linux::fixture::Fixture;

    #[test]
    fn what_is_no_file_is_told_and_not_waited_for() {
        let fixture = Fixture::new();
        fixture.file("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        fixture.directory("etc/group");
        let pipe = fixture.path().join("etc/shadow");
        assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        let tree = fixture.tree();
        let files = Files::new(&tree);
        assert!(files.text("/etc/passwd").is_some());
        for path in ["/etc/group", "/etc/shadow", "/etc/absent"] {
            assert!(files.text(path).is_none() && files.open(path).is_none(), "{path}");
        }
        let told: Vec<_> = files.into_warnings().into_iter().map(|one| format!("{}: {}", one.what, one.why)).collect();
        assert_eq!(told, ["/etc/shadow: it is a named pipe, not a file"]);
    }
}
