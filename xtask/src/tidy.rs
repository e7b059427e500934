//! What no compiler checks: that every crate says why it exists, that nothing is left unfinished, that no text carries the
//! path of somebody's machine, that the walls stand, and that ARCHITECTURE.md's map is the tree's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::{root, say};

/// Words that mean that something was left for later. Split, so that this file does not find itself.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("#[ig", "nore"),
    concat!("place", "holder"),
];

/// Folders that exist on one machine only.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ho", "me/runner")];

/// What each crate may depend on inside the workspace: the walls.
const WALLS: [(&str, &[&str]); 9] = [
    ("protocol/domain", &[]),
    ("protocol/telemetry", &[]),
    ("protocol", &["guestkit-domain"]),
    ("coordinator/scheduler", &["guestkit-domain"]),
    ("coordinator", &["guestkit-domain", "guestkit-protocol", "guestkit-scheduler", "guestkit-telemetry"]),
    ("coordinator/cli", &["guestkit", "guestkit-domain", "guestkit-protocol", "guestkit-telemetry", "guestkit-worker"]),
    ("worker", &["guestkit", "guestkit-domain", "guestkit-protocol", "guestkit-telemetry"]),
    ("worker/guestkit", &[]),
    ("xtask", &["guestkit-system-tests"]),
];

pub(crate) fn run() -> Result<()> {
    let mut faults = Vec::new();
    for file in tracked()? {
        let Ok(text) = fs::read_to_string(root().join(&file)) else { continue };
        unfinished(&file, &text, &mut faults);
        crate_root(&file, &text, &mut faults);
    }
    walls(&mut faults)?;
    map(&mut faults)?;
    if faults.is_empty() {
        return Ok(());
    }
    for fault in &faults {
        say(fault);
    }
    bail!("{} places are not tidy", faults.len());
}

fn tracked() -> Result<Vec<PathBuf>> {
    let output = Command::new("git").args(["ls-files"]).current_dir(root()).output().context("failed to run git")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect())
}

fn unfinished(file: &Path, text: &str, faults: &mut Vec<String>) {
    let source = file.extension().is_some_and(|e| e == "rs" || e == "proto");
    for (number, line) in text.lines().enumerate() {
        let place = format!("{}:{}", file.display(), number + 1);
        if source && UNFINISHED.iter().any(|word| line.contains(word)) {
            faults.push(format!("{place}: reads as unfinished: {}", line.trim()));
        }
        if MACHINE_PATHS.iter().any(|path| line.contains(path)) {
            faults.push(format!("{place}: a path of one machine: {}", line.trim()));
        }
    }
}

fn crate_root(file: &Path, text: &str, faults: &mut Vec<String>) {
    let is_root = file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
    if is_root && !text.starts_with("//!") {
        faults.push(format!("{}: the first line does not say why the crate exists", file.display()));
    }
}

fn walls(faults: &mut Vec<String>) -> Result<()> {
    for (folder, allowed) in WALLS {
        let path = root().join(folder).join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let ours = dependencies(&text).filter(|name| name.starts_with("guestkit"));
        for name in ours.filter(|name| !allowed.contains(name)) {
            faults.push(format!("{folder}/Cargo.toml: {name} is on the other side of a wall"));
        }
    }
    Ok(())
}

/// Names in `[dependencies]`; tests may reach further.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
}

/// Each line "- `path`" of ARCHITECTURE.md must exist, and each module of the crates must be named there.
fn map(faults: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).context("failed to read ARCHITECTURE.md")?;
    let named: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- `")?.split('`').next()).collect();
    for path in named.iter().filter(|path| !root().join(path).exists()) {
        faults.push(format!("ARCHITECTURE.md: {path} does not exist"));
    }
    for (folder, _) in WALLS {
        for entry in
            fs::read_dir(root().join(folder).join("src")).with_context(|| format!("failed to list {folder}/src"))?
        {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let path = format!("{folder}/src/{name}");
            // A module with parts is told once: as its file, or as its folder where it has no file beside it.
            let told =
                |known: &&str| known.trim_end_matches('/').trim_end_matches(".rs") == path.trim_end_matches(".rs");
            if !named.iter().any(told) && !["lib.rs", "main.rs"].contains(&name.as_str()) {
                faults.push(format!("ARCHITECTURE.md: does not tell what {path} is for"));
            }
        }
    }
    Ok(())
}
