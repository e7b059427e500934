//! Settings of daemons that are `Key=Value` in files with drop-ins, or `key value` lines, each with the place that decided.

use crate::guest::linux::unit::UnitFile;

use super::guest::Guest;
use super::report::Evidence;

/// Where systemd's daemons look for their configuration, first wins for files of one name. Source: journald.conf(5),
/// "Configuration Directories and Precedence".
const DIRECTORIES: [&str; 4] = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];
/// Files that settings are read from, however many are included.
const FILES_MAX: usize = 500;

/// The files of one of systemd's daemons in the order they apply.
pub(crate) struct Systemd {
    name: String,
    files: Vec<(String, String)>,
}

impl Systemd {
    /// Reads `name`, as `journald.conf`: the main file of the first directory, then drop-ins by file name.
    pub(crate) fn read(guest: &Guest<'_>, name: &str) -> Self {
        let main = DIRECTORIES.iter().map(|directory| format!("{directory}/{name}"));
        let main = main.filter_map(|path| Some((guest.files.text(&path)?, path))).next();
        let mut drop_ins: Vec<(String, String)> = Vec::new();
        for directory in DIRECTORIES {
            for path in guest.files.with_suffix(&format!("{directory}/{name}.d"), ".conf") {
                let file_name = path.rsplit('/').next().unwrap_or_default().to_owned();
                if !drop_ins.iter().any(|(known, _)| *known == file_name) && drop_ins.len() < FILES_MAX {
                    drop_ins.push((file_name, path));
                }
            }
        }
        drop_ins.sort();
        let mut files: Vec<(String, String)> = main.into_iter().map(|(text, path)| (path, text)).collect();
        files.extend(drop_ins.into_iter().filter_map(|(_, path)| Some((path.clone(), guest.files.text(&path)?))));
        Self { name: name.to_owned(), files }
    }

    /// The value that decides, with the values that lost; an empty assignment brings the default back.
    pub(crate) fn get(&self, section: &str, key: &str) -> Option<(String, Evidence)> {
        let mut found: Option<(String, Evidence)> = None;
        let mut lost = Vec::new();
        for (path, text) in &self.files {
            let file = UnitFile::parse(text);
            for (_, value) in file.section(section).filter(|(known, _)| *known == key) {
                lost.extend(found.take().map(|(_, evidence)| evidence));
                if !value.is_empty() {
                    let line = text.lines().position(|line| {
                        let pair = line.split_once('=');
                        pair.is_some_and(|(known, told)| known.trim() == key && told.trim() == value)
                    });
                    let evidence = Evidence::explicit(path, key, value);
                    let line = line.map_or(0, |line| line.saturating_add(1));
                    found = Some((value.to_owned(), if line == 0 { evidence } else { evidence.at_line(line) }));
                }
            }
        }
        found.map(|(value, evidence)| (value, Evidence { overridden: lost, ..evidence }))
    }

    /// The value that decides, or the compiled-in one.
    pub(crate) fn get_or(&self, section: &str, key: &str, default: &str) -> (String, Evidence) {
        let compiled = || (default.to_owned(), Evidence::default(format!("/etc/systemd/{}", self.name), key, default));
        self.get(section, key).unwrap_or_else(compiled)
    }
}

/// A boolean of systemd. Source: systemd.syntax(7).
pub(crate) fn is_yes(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "yes" | "y" | "true" | "t" | "on")
}

/// `key = value` lines; `#` starts a comment, keys are without regard to case, the last one wins.
pub(crate) fn assignment(text: &str, key: &str) -> Option<(String, usize)> {
    let mut found = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let Some((known, value)) = line.split_once('=') else { continue };
        if known.trim().eq_ignore_ascii_case(key) {
            let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
            found = Some((value.to_owned(), number.saturating_add(1)));
        }
    }
    found
}
