//! Earlier states of a system that lie beside it on the same btrfs: snapper's (`.snapshots/NUMBER/snapshot`, with notes in
//! `info.xml`), timeshift's, and whatever else says that it is a snapshot of the root.

use crate::disk::Disk;
use crate::filesystem::{NodeId, SharedFileSystem, Subvolume};
use crate::guest::report::Snapshot;
use crate::guest::tree::Tree;

use super::text;

/// Snapshots that one report lists: snapper keeps some tens, one that is never cleaned up some thousands.
const SNAPSHOTS_MAX: usize = 10_000;
/// snapper's notes are some hundred bytes.
const NOTES_BYTES_MAX: u64 = 64 << 10;

/// The number of a snapshot in snapper's layout.
pub(super) fn number(path: &[u8]) -> Option<u64> {
    let path = std::str::from_utf8(path).ok()?;
    let rest = path.strip_suffix("/snapshot")?;
    let (folder, number) = rest.rsplit_once('/')?;
    (folder == ".snapshots" || folder.ends_with("/.snapshots")).then(|| number.parse().ok())?
}

/// The snapshots of the system whose root directory is `root`.
pub(super) fn of(
    tree: &Tree,
    root: NodeId,
    subvolumes: &[Subvolume],
    disk: &Disk,
    file_system: &SharedFileSystem,
) -> Vec<Snapshot> {
    let own = subvolumes.iter().find(|subvolume| subvolume.root == root);
    let is_of_root = |subvolume: &Subvolume| {
        let parent = subvolume.parent_uuid.as_ref();
        parent.is_some() && parent == own.and_then(|own| own.uuid.as_ref())
    };
    // Snapshots of other subvolumes, such as a home, lie in folders of theirs.
    let home = own.and_then(|own| root_of_layout(&own.path)).unwrap_or_default();
    let is_of_layout = |subvolume: &Subvolume| root_of_layout(&subvolume.path).is_some_and(|other| other == home);
    let mut found: Vec<&Subvolume> = subvolumes
        .iter()
        .filter(|subvolume| subvolume.root != root && subvolume.id != 5)
        .filter(|subvolume| is_of_root(subvolume) || is_of_layout(subvolume))
        .take(SNAPSHOTS_MAX)
        .collect();
    found.sort_by_key(|subvolume| (number(&subvolume.path), subvolume.id));
    let top = subvolumes.iter().find(|subvolume| subvolume.path.is_empty());
    let top = top.map(|top| Tree::with_root(file_system.clone(), top.root, disk.budget().clone()));
    found.into_iter().map(|subvolume| snapshot(subvolume, tree, top.as_ref())).collect()
}

/// `@` of `@/.snapshots/3/snapshot`, and of `timeshift-btrfs/snapshots/2024-05-01_10-00-01/@`.
fn root_of_layout(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    if number(path.as_bytes()).is_some() {
        return Some(path.split_once(".snapshots/")?.0.trim_end_matches('/').to_owned());
    }
    if matches!(path, "@" | "root" | "@rootfs") {
        return Some(path.to_owned());
    }
    let (_, subvolume) = path.strip_prefix("timeshift-btrfs/snapshots/")?.split_once('/')?;
    Some(subvolume.to_owned())
}

fn snapshot(subvolume: &Subvolume, tree: &Tree, top: Option<&Tree>) -> Snapshot {
    let notes = number(&subvolume.path).and_then(|number| {
        // Where .snapshots is mounted, and where it lies.
        let beside = text(&subvolume.path).strip_suffix("snapshot").map(|folder| format!("/{folder}info.xml"));
        let read = |tree: &Tree, path: &str| tree.read_file_within(path, NOTES_BYTES_MAX).ok().flatten();
        read(tree, &format!("/.snapshots/{number}/info.xml")).or_else(|| read(top?, &beside?))
    });
    let notes = notes.map(|notes| String::from_utf8_lossy(&notes).into_owned()).unwrap_or_default();
    Snapshot {
        path: text(&subvolume.path),
        uuid: subvolume.uuid.clone(),
        read_only: subvolume.read_only,
        // `2024-05-01 10:00:01`, in UTC.
        created_at: note(&notes, "date").map(|date| format!("{}Z", date.replacen(' ', "T", 1))),
        description: note(&notes, "description"),
        r#type: note(&notes, "type"),
    }
}

/// The text of one element of snapper's notes.
fn note(notes: &str, name: &str) -> Option<String> {
    let (_, rest) = notes.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    Some(text.replace("&amp;", "&")).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_snappers_layout() {
        assert_eq!(number(b"@/.snapshots/12/snapshot"), Some(12));
        assert_eq!(number(b".snapshots/1/snapshot"), Some(1));
        for path in ["@/.snapshots/x/snapshot", "snapshot", "@/snapshots/1/snapshot", "@/.snapshots/1", "1/snapshot"] {
            assert_eq!(number(path.as_bytes()), None, "{path}");
        }
        assert_eq!(root_of_layout(b"@/.snapshots/3/snapshot").as_deref(), Some("@"));
        assert_eq!(root_of_layout(b"timeshift-btrfs/snapshots/2024-05-01_10-00-01/@").as_deref(), Some("@"));
        assert_eq!(root_of_layout(b"@home/.snapshots/3/snapshot").as_deref(), Some("@home"));
    }

    #[test]
    fn notes_are_read() {
        let notes = "<?xml version=\"1.0\"?>\n<snapshot>\n  <type>pre</type>\n  <num>2</num>\n  <date>2024-05-01 10:00:01</date>\n  \
                     <description>zypp(a &amp; b)</description>\n</snapshot>\n";
        assert_eq!(note(notes, "description").as_deref(), Some("zypp(a & b)"));
        assert_eq!(note(notes, "type").as_deref(), Some("pre"));
        assert_eq!(note(notes, "cleanup"), None);
        assert_eq!(note("<type>", "type"), None);
    }
}
