//! An operator's own rules for profiles: YAML files in a folder, over those of the program.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use guestkit::profile::{Content, RuleFile};
use serde::{Deserialize, Serialize};

/// Files read of a folder.
const FILES_MAX: usize = 1000;
/// Bytes of one file: all embedded rules have a third of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where an operator's rules lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesFolder(Option<PathBuf>);

impl RulesFolder {
    /// The rules of the program alone.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// The `*.yaml` and `*.yml` files of `folder`, which are read now to know that they hold.
    ///
    /// # Errors
    /// Everything that is wrong with them, for whoever wrote them.
    pub fn of(folder: &Path) -> Result<Self, String> {
        let absolute = fs::canonicalize(folder).map_err(|error| format!("rules in {}: {error}", folder.display()))?;
        let rules = Self(Some(absolute));
        rules.content()?;
        Ok(rules)
    }

    /// The folder that a sandbox must leave readable.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// The checks to judge by.
    ///
    /// # Errors
    /// What is wrong with the operator's rules.
    pub fn content(&self) -> Result<Content, String> {
        let content = Content::embedded();
        let Some(folder) = &self.0 else { return Ok(content) };
        let files = files(folder)?;
        if files.is_empty() {
            return Err(format!("rules in {}: there is no *.yaml file", folder.display()));
        }
        content.overlaid(&files).map_err(|problems| format!("rules in {}: {}", folder.display(), problems.join("; ")))
    }
}

fn files(folder: &Path) -> Result<Vec<RuleFile>, String> {
    let failed = |path: &Path, error: std::io::Error| format!("rules in {}: {error}", path.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        if path.extension().is_some_and(|end| end == "yaml" || end == "yml") {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(format!("rules in {}: more than {FILES_MAX} files", folder.display()));
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let mut text = String::new();
        let file = fs::File::open(&path).map_err(|error| failed(&path, error))?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| failed(&path, error))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("rules in {}: more than {FILE_BYTES_MAX} bytes", path.display()));
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(RuleFile { name, text })
    };
    paths.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_rules_holds_or_says_what_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let refused = |words: &str| {
            let why = RulesFolder::of(path).expect_err(words);
            assert!(why.contains(words), "{why}");
        };
        refused("there is no *.yaml file");
        fs::write(path.join("b.yaml"), "- id: ssh.permit-root-login\n  disabled: true\n").unwrap();
        fs::write(path.join("notes.txt"), "not a rule").unwrap();
        let content = RulesFolder::of(path).unwrap().content().unwrap();
        assert!(!content.ids().any(|id| id == "ssh.permit-root-login"));
        fs::write(path.join("a.yml"), "- id: ssh.no-such\n  severity: low\n").unwrap();
        refused("a.yml: ssh.no-such: there is no such check");
        assert!(RulesFolder::of(&path.join("gone")).is_err());
        assert!(RulesFolder::none().content().is_ok());
    }
}
