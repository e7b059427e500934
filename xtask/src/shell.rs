//! Running programs: what is missing is said in one line with how to get it, before anything has been half done.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    // xtask lies one folder below the workspace.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The folder cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A line to the user; nothing else of this program goes to standard output.
pub(crate) fn say(text: impl std::fmt::Display) {
    // A closed terminal is no reason to fail a chore.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A program this chore needs, and the Debian package that brings it.
pub(crate) struct Need {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// Fails with one line naming every program that is missing and the command that brings them.
pub(crate) fn require(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| find(need.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<&str> = missing.iter().map(|need| need.program).collect();
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    bail!("missing on this machine: {}; on Debian: apt-get install {}", programs.join(", "), packages.join(" "));
}

/// Where `program` lies on the PATH, the administrator's folders included, and those where Debian keeps PostgreSQL.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let postgres = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain(postgres.filter_map(|version| Some(version.ok()?.path().join("bin"))))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Runs a program in the workspace's folder and fails when it does.
pub(crate) fn run<I, S>(program: &str, args: I) -> Result<()>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args).current_dir(root()).stdin(Stdio::null());
    check(&mut command)
}

/// Runs a prepared command and fails when it does.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("failed to start {}", command.get_program().display()))?;
    if !status.success() {
        let words: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        bail!("{} {} ended with {status}", command.get_program().display(), words.join(" "));
    }
    Ok(())
}

/// The cargo that runs us.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// The files of the guest on `image` in the folder `tree`, by our own reader, unless they are there: for tools that read files and
/// no disks.
pub(crate) fn unpack_guest(image: &Path, tree: &Path) -> Result<()> {
    if tree.join("etc/os-release").exists() {
        return Ok(());
    }
    std::fs::create_dir_all(tree).with_context(|| format!("failed to make {}", tree.display()))?;
    let mut archive = Command::new(target_dir().join("release/guestkit"));
    archive.args(["local", "cat", "-i", "--tar", "-a"]).arg(image).arg("/").stdout(Stdio::piped());
    let mut archive = archive.spawn().context("failed to start guestkit")?;
    let files = archive.stdout.take().context("guestkit without output")?;
    check(Command::new("tar").args(["-x", "-C"]).arg(tree).stdin(files))?;
    let ended = archive.wait()?;
    if !ended.success() {
        bail!("{} could not be unpacked: {ended}", image.display());
    }
    Ok(())
}
