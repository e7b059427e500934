//! Who has a profile on this machine, and the hive in it.

use crate::guest::linux::files::Files;

use super::hives::{Hives, NamedHive};

const PROFILE_LIST: &str = "Microsoft\\Windows NT\\CurrentVersion\\ProfileList";
/// Profiles that are looked into: terminal servers have hundreds.
const PROFILES_MAX: usize = 1_000;

/// A profile.
pub(crate) struct Profile {
    /// Security identifier of its account.
    pub(crate) sid: String,
    /// Where it lies, as the registry writes it.
    pub(crate) path: String,
}

/// A profile and the hive of its account.
pub(crate) struct UserHive<'a> {
    /// The account's name as its folder has it.
    pub(crate) user: String,
    pub(crate) hive: NamedHive<'a>,
}

/// The profiles that the machine knows.
pub(crate) fn all(hives: &Hives<'_>) -> Vec<Profile> {
    let Some(list) = hives.software_key(PROFILE_LIST) else { return Vec::new() };
    let profile = |key: &super::hives::Node<'_>| {
        let path = key.text("ProfileImagePath")?;
        Some(Profile { sid: key.name().to_owned(), path })
    };
    list.keys().iter().filter_map(profile).collect()
}

/// Those of people (not of services) whose hive is there.
pub(crate) fn with_hives<'a>(files: &'a Files<'a>, hives: &Hives<'_>) -> Vec<UserHive<'a>> {
    let mut people: Vec<Profile> = all(hives)
        .into_iter()
        .filter(|profile| profile.sid.starts_with("S-1-5-21-") || profile.sid.starts_with("S-1-12-"))
        .collect();
    if people.len() > PROFILES_MAX {
        files.warn(PROFILE_LIST, format!("profiles past the first {PROFILES_MAX} are left out"));
        people.truncate(PROFILES_MAX);
    }
    let opened = people.into_iter().filter_map(|profile| {
        let folder = guest_path(&profile.path)?;
        let hive = NamedHive::open(files, &format!("{folder}/NTUSER.DAT"))?;
        let user = folder.rsplit('/').next().unwrap_or_default().to_owned();
        Some(UserHive { user, hive })
    });
    opened.collect()
}

/// The path in the guest's tree of one that Windows writes; `None` for what lies on no drive. Which drive it is decides
/// nothing: only the system's own is in the tree.
pub(crate) fn guest_path(path: &str) -> Option<String> {
    let lower = path.to_ascii_lowercase();
    let after_drive = ["%systemdrive%", "\\??\\c:"]
        .iter()
        .find_map(|prefix| lower.starts_with(prefix).then(|| path.get(prefix.len()..))?)
        .or_else(|| {
            let (drive, rest) = path.split_at_checked(2)?;
            let is_drive = drive.starts_with(|letter: char| letter.is_ascii_alphabetic()) && drive.ends_with(':');
            is_drive.then_some(rest)
        })?;
    let plain = after_drive.replace('\\', "/");
    plain.starts_with('/').then(|| plain.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::guest_path;

    #[test]
    fn paths_of_windows_become_those_of_the_tree() {
        assert_eq!(guest_path("C:\\Users\\bob").as_deref(), Some("/Users/bob"));
        assert_eq!(
            guest_path("%SystemDrive%\\Documents and Settings\\a b\\").as_deref(),
            Some("/Documents and Settings/a b")
        );
        assert_eq!(guest_path("\\\\server\\share"), None);
        assert_eq!(guest_path("%systemroot%\\x"), None);
        assert_eq!(guest_path("é"), None);
    }
}
