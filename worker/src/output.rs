//! Where reports may be written: beneath the operator's output roots and nowhere else, whatever links lie on the way.
//! A report is written beside its name and renamed, so that whoever looks sees the old file or the whole new one.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use guestkit::export::{Form, ProfileForm};
use guestkit::guest::report::InspectReport;
use guestkit::profile::report::ProfileReport;
use guestkit_domain::ErrorCode;
use guestkit_protocol::v1;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;
use crate::roots::{RootsError, check_folders};

/// The operator's word on outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRoots {
    folders: Vec<PathBuf>,
}

/// How a report is laid into a file, as `OutputSpec` asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The text's format.
    pub format: Format,
    /// What is done to the text.
    pub compression: Compression,
}

/// A report's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON, indented.
    Json,
    /// YAML.
    Yaml,
    /// An inspection in a form of other tools.
    Form(Form),
    /// A profile in a form of other tools.
    ProfileForm(ProfileForm),
}

/// What is done to a report's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Layout {
    /// Reads the words of an `OutputSpec` for the report of `operation`; empty ones are the defaults.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for another word.
    pub fn of(operation: &str, spec: &v1::OutputSpec) -> Result<Self, Failure> {
        let unknown = |field: &str, word: &str, known: &str| {
            Failure::new(ErrorCode::ValidationError, format!("output.{field} {word:?} is none of {known}"))
        };
        let format = match spec.format.as_str() {
            "" | "json" => Format::Json,
            "yaml" => Format::Yaml,
            word if operation == "guestkit.profile" => {
                let known = || unknown("format", word, "json, yaml, sarif, html, junit, csv");
                Format::ProfileForm(ProfileForm::from_name(word).ok_or_else(known)?)
            }
            word => {
                let known = || unknown("format", word, "json, yaml, virt-inspector, cyclonedx, spdx, html");
                Format::Form(Form::from_name(word).ok_or_else(known)?)
            }
        };
        let compression = match spec.compression.as_str() {
            "" | "none" => Compression::None,
            "gzip" => Compression::Gzip,
            "zstd" => Compression::Zstd,
            word => return Err(unknown("compression", word, "none, gzip, zstd")),
        };
        Ok(Self { format, compression })
    }

    /// What a file of this layout is called after its stem.
    #[must_use]
    pub fn extension(self) -> String {
        let format = match self.format {
            Format::Json => "json",
            Format::Yaml => "yaml",
            Format::Form(form) => form.extension(),
            Format::ProfileForm(form) => form.extension(),
        };
        let compression = match self.compression {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        };
        format!("{format}{compression}")
    }

    fn media_type(self) -> &'static str {
        match (self.compression, self.format) {
            (Compression::Gzip, _) => "application/gzip",
            (Compression::Zstd, _) => "application/zstd",
            (Compression::None, Format::Json) => "application/json",
            (Compression::None, Format::Yaml) => "application/yaml",
            (Compression::None, Format::Form(form)) => form.media_type(),
            (Compression::None, Format::ProfileForm(form)) => form.media_type(),
        }
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// `OUTPUT_FAILED` where the report has no such form.
    pub fn render(self, report: &serde_json::Value) -> Result<Vec<u8>, Failure> {
        let failed = |what: &str, why: &dyn std::fmt::Display| {
            Failure::new(ErrorCode::OutputFailed, format!("the report could not be written as {what}: {why}"))
        };
        let text = match self.format {
            Format::Json => {
                let mut text = serde_json::to_vec_pretty(report).map_err(|error| failed("json", &error))?;
                text.push(b'\n');
                text
            }
            Format::Yaml => serde_saphyr::to_string(report).map_err(|error| failed("yaml", &error))?.into_bytes(),
            Format::Form(form) => {
                let report: InspectReport =
                    serde_json::from_value(report.clone()).map_err(|error| failed(form.name(), &error))?;
                form.render(&report, SystemTime::now()).into_bytes()
            }
            Format::ProfileForm(form) => {
                let report: ProfileReport =
                    serde_json::from_value(report.clone()).map_err(|error| failed(form.name(), &error))?;
                form.render(&report).into_bytes()
            }
        };
        match self.compression {
            Compression::None => Ok(text),
            Compression::Gzip => gzip(&text).map_err(|error| failed("gzip", &error)),
            Compression::Zstd => {
                Ok(ruzstd::encoding::compress_to_vec(text.as_slice(), ruzstd::encoding::CompressionLevel::Fastest))
            }
        }
    }
}

fn gzip(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text)?;
    encoder.finish()
}

/// A place beneath an output root, its name checked, nothing opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    root: PathBuf,
    /// The folders between the root and the file, and the file's name.
    below: Vec<String>,
}

impl Destination {
    /// The file's path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.below.iter().fold(self.root.clone(), |path, name| path.join(name))
    }
}

fn refused(message: String) -> Failure {
    Failure::new(ErrorCode::OutputFailed, message)
}

impl OutputRoots {
    /// Only what lies beneath `folders`; none means that nothing is ever written.
    ///
    /// # Errors
    /// A folder that is none, or cannot be used.
    pub fn beneath(folders: &[PathBuf]) -> Result<Self, RootsError> {
        Ok(Self { folders: check_folders("output", folders)? })
    }

    /// The folders, absolute.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Where `destination` is: a file, or `default_name` in the folder it names with a `/` at its end.
    ///
    /// # Errors
    /// `OUTPUT_FAILED` when there are no output roots or it lies outside them.
    pub fn destination(&self, destination: &str, default_name: &str) -> Result<Destination, Failure> {
        if self.folders.is_empty() {
            return Err(refused(format!(
                "output.destination {destination:?} cannot be written: this worker has no output roots"
            )));
        }
        let outside = |why: &str| refused(format!("output.destination {destination:?} {why}"));
        let is_folder = destination.ends_with('/');
        let path = Path::new(destination);
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(outside("must not contain \"..\""));
        }
        let path = std::path::absolute(path).map_err(|error| outside(&format!("is no path: {error}")))?;
        let inside = |root: &PathBuf| Some((root.clone(), path.strip_prefix(root).ok()?.to_owned()));
        let (root, below) =
            self.folders.iter().find_map(inside).ok_or_else(|| outside("lies outside this worker's output roots"))?;
        let mut below: Vec<String> =
            below.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        if is_folder || below.is_empty() {
            below.push(default_name.to_owned());
        }
        Ok(Destination { root, below })
    }
}

/// Writes `bytes` to `to`, making the folders on the way. `unique` names this attempt among all that may write there.
///
/// # Errors
/// `OUTPUT_FAILED`: a link or something else than a folder lies on the way, or the disk says no.
pub fn write(to: &Destination, layout: Layout, bytes: &[u8], unique: &str) -> Result<v1::Artifact, Failure> {
    let path = to.path();
    place(to, bytes, unique)
        .map_err(|(what, error)| refused(format!("{} could not be written: {what}: {error}", path.display())))?;
    Ok(v1::Artifact {
        name: to.below.last().cloned().unwrap_or_default(),
        path: path.to_string_lossy().into_owned(),
        media_type: layout.media_type().into(),
        size_bytes: bytes.len() as u64,
        sha256: hex(&Sha256::digest(bytes)),
    })
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

type Step<T> = Result<T, (String, io::Error)>;

fn place(to: &Destination, bytes: &[u8], unique: &str) -> Step<()> {
    let Some((name, folders)) = to.below.split_last() else {
        return Err(("it names no file".into(), io::ErrorKind::InvalidInput.into()));
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, &to.root, flags, Mode::empty())
        .map_err(|errno| (format!("opening {}", to.root.display()), errno.into()))?;
    let folder = folders.iter().try_fold(root, |at, name| enter(&at, name))?;
    refuse_occupied(&folder, name)?;

    let partial = format!(".{unique}.partial");
    let outcome = write_whole(&folder, &partial, bytes).and_then(|()| {
        renameat(&folder, &partial, &folder, name.as_str()).map_err(|errno| ("renaming".into(), errno.into()))?;
        rustix::fs::fsync(&folder).map_err(|errno| ("making the name durable".into(), errno.into()))
    });
    if outcome.is_err() {
        // Best effort: the first error is the one to tell.
        let _ = unlinkat(&folder, &partial, AtFlags::empty());
    }
    outcome
}

/// Opens the folder `name` in `at`, making it where it is missing; a link there is refused, wherever it leads.
fn enter(at: &OwnedFd, name: &str) -> Step<OwnedFd> {
    let step = |errno: Errno| (format!("entering {name:?}"), io::Error::from(errno));
    match mkdirat(at, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err((format!("making {name:?}"), errno.into())),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(at, name, flags, Mode::empty(), resolve) {
        // Kernels before 5.6, and sandboxes that do not know the call: one component needs no more than NOFOLLOW.
        Err(Errno::NOSYS | Errno::PERM) => openat(at, name, flags, Mode::empty()).map_err(step),
        opened => opened.map_err(step),
    }
}

/// Only a regular file may be replaced.
fn refuse_occupied(folder: &OwnedFd, name: &str) -> Step<()> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err((format!("examining {name:?}"), errno.into())),
        Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile => Ok(()),
        Ok(_) => Err((format!("{name:?} is there"), io::Error::other("not a regular file"))),
    }
}

fn write_whole(folder: &OwnedFd, name: &str, bytes: &[u8]) -> Step<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::from_raw_mode(0o644))
        .map_err(|errno| (format!("making {name:?}"), errno.into()))?;
    let mut file = File::from(file);
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| ("writing".into(), error))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    const JSON: Layout = Layout { format: Format::Json, compression: Compression::None };

    fn roots(folder: &Path) -> OutputRoots {
        OutputRoots::beneath(&[folder.to_owned()]).unwrap()
    }

    fn put(roots: &OutputRoots, destination: &str) -> Result<v1::Artifact, Failure> {
        write(&roots.destination(destination, "job-report.json")?, JSON, b"{}\n", "job-1")
    }

    #[test]
    fn reports_stay_beneath_the_root() {
        let home = tempfile::tempdir().unwrap();
        let (root, outside) = (home.path().join("out"), home.path().join("outside"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("precious"), "precious").unwrap();
        symlink(&outside, root.join("door")).unwrap();
        symlink(outside.join("precious"), root.join("link.json")).unwrap();
        std::fs::create_dir(root.join("folder")).unwrap();
        let at = |name: &str| format!("{}/{name}", root.display());

        let outputs = roots(&root);
        for (destination, expected) in [("a.json", "a.json"), ("new/deep/", "new/deep/job-report.json")] {
            let artifact = put(&outputs, &at(destination)).unwrap();
            assert_eq!(artifact.path, at(expected));
            assert_eq!(std::fs::read(at(expected)).unwrap(), b"{}\n");
        }
        assert!(put(&outputs, &at("a.json")).is_ok(), "another attempt may replace the report");
        let elsewhere = format!("{}/x", outside.display());
        for refused in [&at("door/x"), &at("link.json"), &at("folder"), &at("../outside/x"), &elsewhere] {
            assert_eq!(put(&outputs, refused).unwrap_err().code, ErrorCode::OutputFailed, "{refused}");
        }
        assert_eq!(std::fs::read_to_string(outside.join("precious")).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        let none = put(&OutputRoots::default(), "/x").unwrap_err();
        assert!(none.message.contains("no output roots"), "{none}");
    }

    /// Oracles: `gzip -d` and `zstd -d`.
    #[test]
    fn other_tools_unpack_what_is_packed() {
        let entries: Vec<_> =
            (0..3000).map(|n| serde_json::json!({"name": format!("package-{n}"), "size": n * 37})).collect();
        let report = serde_json::json!({ "packages": entries, "text": "ž".repeat(5000) });
        let plain = JSON.render(&report).unwrap();
        for (compression, tool) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
            let packed = Layout { format: Format::Json, compression }.render(&report).unwrap();
            assert!(packed.len() < plain.len() / 3, "{tool}: {} of {}", packed.len(), plain.len());
            let Ok(mut child) = std::process::Command::new(tool)
                .args(["-d", "-c"])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
            else {
                assert!(std::env::var_os("CI").is_none(), "{tool} is not there");
                continue;
            };
            let mut stdin = child.stdin.take().unwrap();
            let writer = std::thread::spawn(move || stdin.write_all(&packed));
            let mut unpacked = Vec::new();
            child.stdout.take().unwrap().read_to_end(&mut unpacked).unwrap();
            writer.join().unwrap().unwrap();
            assert!(child.wait().unwrap().success() && unpacked == plain, "{tool} gives back something else");
        }
    }
}
