//! Whether a worker may be given a job, and which of several it would rather be given to.
//!
//! Jobs of equal requirements form a class, workers of equal properties a kind; the question is asked once per pair of those.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guestkit_domain::{JobSpec, Placement, WorkerProfile};

/// The label that holds a prefix of the image paths that are near a worker.
const DATA_LOCALITY: &str = "data_locality";

/// What placement sees of a worker: everything but its name, its process and its slots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    capabilities: BTreeSet<Arc<str>>,
    features: BTreeSet<Arc<str>>,
    version: semver::Version,
    pool: Arc<str>,
    labels: BTreeMap<Arc<str>, Arc<str>>,
    privileged: bool,
    image_roots: Vec<Arc<str>>,
}

impl Kind {
    pub(crate) fn of(profile: &WorkerProfile) -> Self {
        Self {
            capabilities: profile.capabilities.clone(),
            features: profile.features.clone(),
            version: profile.version.clone(),
            pool: profile.pool.clone(),
            labels: profile.labels.clone(),
            privileged: profile.privileged,
            image_roots: profile.image_roots.clone(),
        }
    }
}

/// One requirement that a worker does not meet; it reads as what such a worker would have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mismatch {
    Operation(Arc<str>),
    Capability(Arc<str>),
    Feature(Arc<str>),
    Version(String),
    Privileged,
    Pool,
    Label(Arc<str>, Arc<str>),
    ImageFolder(Arc<str>),
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Operation(name) => write!(f, "a handler for {name}"),
            Self::Capability(name) => f.write_str(name),
            Self::Feature(name) => write!(f, "the feature {name}"),
            Self::Version(minimum) => write!(f, "version {minimum} or later"),
            Self::Privileged => f.write_str("privileges"),
            Self::Pool => f.write_str("the right pool"),
            Self::Label(key, value) => write!(f, "anything but the label {key}={value}"),
            Self::ImageFolder(folder) => write!(f, "an image root that contains {folder}"),
        }
    }
}

/// Everything that keeps a worker of this kind from a job, its pin apart; empty when it may be given it.
pub(crate) fn mismatches(placement: &Placement, kind: &Kind) -> Vec<Mismatch> {
    let mut found = Vec::new();
    if !kind.capabilities.contains(&placement.operation) {
        found.push(Mismatch::Operation(placement.operation.clone()));
    }
    found.extend(placement.capabilities.difference(&kind.capabilities).cloned().map(Mismatch::Capability));
    found.extend(placement.features.difference(&kind.features).cloned().map(Mismatch::Feature));
    if let Some(minimum) = &placement.minimum_version
        && kind.version.cmp_precedence(minimum) == Ordering::Less
    {
        found.push(Mismatch::Version(minimum.to_string()));
    }
    if placement.privileged && !kind.privileged {
        found.push(Mismatch::Privileged);
    }
    if !placement.pools.is_empty() && !placement.pools.contains(&kind.pool) {
        found.push(Mismatch::Pool);
    }
    for (key, ruled_out) in &placement.anti_affinity {
        if let Some(value) = kind.labels.get(key).filter(|value| ruled_out.contains(*value)) {
            found.push(Mismatch::Label(key.clone(), value.clone()));
        }
    }
    if let Some(folder) = &placement.image_folder
        && !kind.image_roots.iter().any(|root| contains(root, folder))
    {
        found.push(Mismatch::ImageFolder(folder.clone()));
    }
    found
}

/// How much a job would like a worker of this kind: preferred labels it has, and one more where the image is near.
pub(crate) fn liking(spec: &JobSpec, kind: &Kind) -> usize {
    let near = kind.labels.get(DATA_LOCALITY);
    let labels = spec.affinity.iter().filter(|(key, value)| match kind.labels.get(*key) {
        Some(label) if key.as_ref() == DATA_LOCALITY => contains(label, value),
        Some(label) => label == *value,
        None => false,
    });
    let image = spec.placement.image_folder.as_ref().zip(near).is_some_and(|(folder, near)| contains(near, folder));
    labels.count() + usize::from(image)
}

/// Whether the folder `inner` is `outer` or lies beneath it, by name alone; a path that climbs (`..`) or is not absolute
/// lies nowhere. Links are the worker's to follow or refuse.
pub(crate) fn contains(outer: &str, inner: &str) -> bool {
    match (folder(outer), folder(inner)) {
        (Some(outer), Some(inner)) => inner.starts_with(&outer),
        _ => false,
    }
}

/// A folder as the names that lead to it. What lies beneath another begins with it, and follows it in order without a gap.
pub(crate) type Folder = Vec<String>;

/// `None` for a path that climbs or is not absolute.
pub(crate) fn folder(path: &str) -> Option<Folder> {
    let parts: Folder =
        path.strip_prefix('/')?.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
    (!parts.iter().any(|part| part == "..")).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_contain_by_whole_names() {
        for (outer, inner, expected) in [
            ("/", "/vms", true),
            ("/vms", "/vms", true),
            ("/vms/", "/vms/a/b", true),
            ("/vms", "/vms2", false),
            ("/vms/a", "/vms", false),
            ("/vms", "/vms/../etc", false),
            ("vms", "/vms", false),
            ("/vms", "vms", false),
            ("/vms//a", "/vms/./a/b", true),
        ] {
            assert_eq!(contains(outer, inner), expected, "{outer} contains {inner}");
        }
    }

    /// As Semantic Versioning 2.0.0, section 11 orders them.
    #[test]
    fn versions_are_compared_as_versions() {
        let profile = |version: &str| Kind {
            capabilities: ["op.x".into()].into(),
            features: BTreeSet::new(),
            version: version.parse().unwrap(),
            pool: "default".into(),
            labels: BTreeMap::new(),
            privileged: false,
            image_roots: Vec::new(),
        };
        for (minimum, version, fits) in [
            ("1.9.0", "1.10.0", true),
            ("1.10.0", "1.9.9", false),
            ("1.0.0", "1.0.0-rc.1", false),
            ("1.0.0-rc.1", "1.0.0-rc.2", true),
            ("1.0.0+b", "1.0.0+a", true),
        ] {
            let placement = Placement {
                operation: "op.x".into(),
                minimum_version: Some(minimum.parse().unwrap()),
                ..Placement::default()
            };
            assert_eq!(mismatches(&placement, &profile(version)).is_empty(), fits, "{version} for {minimum}");
        }
    }
}
