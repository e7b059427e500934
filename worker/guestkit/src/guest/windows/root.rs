//! What makes a file system the root of a Windows, and where on it Windows lies.

use crate::error::Result;
use crate::filesystem::FileType;
use crate::guest::linux::files::Files;
use crate::guest::report::Warning;
use crate::guest::tree::Tree;

use super::hives::NamedHive;

/// Folders that Windows is installed to, in lower case.
const FOLDERS: [&str; 5] = ["windows", "winnt", "win32", "win", "reactos"];
/// The hives that every installation has.
const HIVES: [&str; 2] = ["SYSTEM", "SOFTWARE"];
/// What tells a Windows that has lost a hive from a folder with a copy of one.
const SHELL: &str = "System32/cmd.exe";

/// The folders of the systems whose root is `tree`, as the disk writes them (`/Windows`, `/WINNT`).
///
/// A folder counts once it holds both hives, or one of them and the shell, which is a warning; names in it may be of any case
/// where the file system does not tell cases apart. What is only there to repair or install a system (Windows PE) is named in
/// a warning.
pub(crate) fn system_roots(device: &str, tree: &Tree, warnings: &mut Vec<Warning>) -> Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    let Some(entries) = tree.read_dir("/")? else { return Ok(found) };
    let mut candidates = Vec::new();
    let mut has_boot_ini = None;
    for entry in &entries {
        let Ok(name) = std::str::from_utf8(&entry.name) else { continue };
        let lower = name.to_ascii_lowercase();
        let may_be_folder = entry.file_type.is_none_or(|file_type| file_type == FileType::Directory);
        if may_be_folder && let Some(rank) = FOLDERS.iter().position(|folder| *folder == lower) {
            candidates.push((rank, format!("/{name}")));
        }
        if lower == "boot.ini" {
            has_boot_ini = Some(format!("/{name}"));
        }
    }
    candidates.sort();
    let mut candidates: Vec<String> = candidates.into_iter().map(|(_, path)| path).collect();
    if let Some(path) = has_boot_ini {
        let text = tree.read_text(&path)?.unwrap_or_default();
        candidates.extend(boot_ini_folders(&text));
    }
    for candidate in candidates {
        let is_known = found.iter().any(|known| known.eq_ignore_ascii_case(&candidate));
        if is_known {
            continue;
        }
        let missing = missing_hives(tree, &candidate)?;
        if missing.len() == HIVES.len() || (!missing.is_empty() && !tree.is_file(format!("{candidate}/{SHELL}"))?) {
            continue;
        }
        if is_preinstallation(tree, &candidate) {
            warnings.push(Warning {
                r#where: device.to_owned(),
                what: candidate,
                why: "it is Windows PE, which repairs and installs systems, and is not listed as one".to_owned(),
            });
        } else {
            warnings.extend(missing.into_iter().map(|path| Warning {
                r#where: device.to_owned(),
                what: path,
                why: "it is missing: what this hive of the registry told is unknown".to_owned(),
            }));
            found.push(candidate);
        }
    }
    Ok(found)
}

fn missing_hives(tree: &Tree, folder: &str) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for hive in HIVES {
        let path = format!("{folder}/System32/config/{hive}");
        if !tree.is_file(&path)? {
            missing.push(path);
        }
    }
    Ok(missing)
}

/// Whether the system hive has the key that only Windows PE has.
fn is_preinstallation(tree: &Tree, folder: &str) -> bool {
    let files = Files::new(tree);
    let hive = NamedHive::open(&files, &format!("{folder}/System32/config/SYSTEM"));
    let found = hive.as_ref().is_some_and(|hive| {
        ["ControlSet001", "ControlSet002"].iter().any(|set| hive.key(&format!("{set}\\Control\\MiniNT")).is_some())
    });
    drop(hive);
    found
}

/// The folders of lines such as `multi(0)disk(0)rdisk(0)partition(1)\WINNT="…"`. Which partition is meant cannot be told
/// without the machine, so each is looked for on the file system that boot.ini lies on.
fn boot_ini_folders(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    let systems = lines.skip_while(|line| !line.eq_ignore_ascii_case("[operating systems]")).skip(1);
    let systems = systems.take_while(|line| !line.starts_with('['));
    let folder = |line: &str| {
        let (place, _) = line.split_once('=')?;
        let (_, folder) = place.split_once(")\\")?;
        let is_arc = ["multi(", "scsi(", "signature("].iter().any(|kind| place.to_ascii_lowercase().starts_with(kind));
        (is_arc && !folder.is_empty()).then(|| format!("/{}", folder.trim_end().replace('\\', "/")))
    };
    // A menu of ten systems is a museum.
    systems.filter_map(folder).take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    #[test]
    fn folders_of_boot_ini_are_read() {
        let text = "[boot loader]\r\ntimeout=30\r\ndefault=multi(0)disk(0)rdisk(0)partition(1)\\WINDOWS\r\n\
                    [operating systems]\r\nmulti(0)disk(0)rdisk(0)partition(1)\\NT\\SYS=\"Windows NT\" /fastdetect\r\n\
                    C:\\CMDCONS\\BOOTSECT.DAT=\"Recovery Console\"\r\n";
        assert_eq!(boot_ini_folders(text), ["/NT/SYS"]);
        assert!(boot_ini_folders("multi(0)\\x=1").is_empty());
    }

    #[test]
    fn a_folder_counts_once_it_holds_both_hives() {
        let fixture = Fixture::new();
        fixture.file("WINNT/System32/config/SYSTEM", "regf");
        let tree = fixture.tree();
        let mut warnings = Vec::new();
        assert!(system_roots("/dev/sda1", &tree, &mut warnings).unwrap().is_empty());
        fixture.file("WINNT/System32/config/SOFTWARE", "regf");
        fixture.directory("Windows/System32/config");
        assert_eq!(system_roots("/dev/sda1", &tree, &mut warnings).unwrap(), ["/WINNT"]);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn a_windows_that_lost_a_hive_is_one() {
        let fixture = Fixture::new();
        fixture.file("Windows/System32/config/SYSTEM", "regf");
        fixture.file("Windows/System32/cmd.exe", "MZ");
        let mut warnings = Vec::new();
        assert_eq!(system_roots("/dev/sda1", &fixture.tree(), &mut warnings).unwrap(), ["/Windows"]);
        assert_eq!(warnings[0].what, "/Windows/System32/config/SOFTWARE");
        assert_eq!(warnings.len(), 1);
    }
}
