//! What opens encrypted volumes. Secrets are held in memory only, wiped when they are dropped, and never printed.

use std::fmt;

use zeroize::Zeroizing;

/// A passphrase, or the bytes of a key file.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The secret of these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Secrets, each for one volume or for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<(String, Secret)>);

impl Keys {
    /// No secrets.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds a secret for the volume `id`: its UUID, the name of its device such as `/dev/sda2` or `/dev/vg/lv`, or `all`.
    pub fn add(&mut self, id: impl Into<String>, secret: Secret) {
        self.0.push((id.into(), secret));
    }

    /// Adds what a key file holds for the volume `id`. A passphrase that an editor saved ends with a line feed that is not
    /// part of it, so that is tried without it first; a binary key is tried as it lies.
    pub fn add_file(&mut self, id: &str, contents: Vec<u8>) {
        if let Some(line) = contents.strip_suffix(b"\n") {
            self.add(id, Secret::new(line.to_vec()));
        }
        self.add(id, Secret::new(contents));
    }

    /// The secrets to try on the volume on `device` with `uuid`, in the order they were added.
    pub fn of<'a>(&'a self, device: &'a str, uuid: Option<&'a str>) -> impl Iterator<Item = &'a Secret> {
        let fits =
            move |id: &str| id == "all" || id == device || uuid.is_some_and(|uuid| id.eq_ignore_ascii_case(uuid));
        self.0.iter().filter(move |(id, _)| fits(id)).map(|(_, secret)| secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_tried_with_its_own_secrets_and_those_for_all() {
        let mut keys = Keys::none();
        for (id, secret) in [("/dev/sda2", "device"), ("all", "any"), ("ABCD-1", "uuid"), ("/dev/sdb", "other")] {
            keys.add(id, Secret::new(secret.into()));
        }
        let tried: Vec<_> = keys.of("/dev/sda2", Some("abcd-1")).map(Secret::bytes).collect();
        assert_eq!(tried, [b"device".as_slice(), b"any", b"uuid"]);
        assert_eq!(format!("{keys:?}").matches("any").count(), 0);
    }
}
