//! Keys that may log in, by fingerprint. Source: sshd(8), "AUTHORIZED_KEYS FILE FORMAT"; RFC 4253 section 6.6 for key blobs.

use std::collections::{BTreeSet, HashMap};

use sha2::{Digest as _, Sha256};

use crate::guest::report::{AuthorizedKey, User};

use super::files::Files;

/// Keys told of all accounts together: a bastion's shared account holds hundreds, and accounts may share one file.
const KEYS_MAX: usize = 20_000;
/// Files that `AuthorizedKeysFile` may name; people name one or two.
const PATTERNS_MAX: usize = 16;

/// Reads the key files of one guest, each once.
pub(crate) struct Reader<'a, 'b> {
    files: &'a Files<'b>,
    patterns: &'a [String],
    known: HashMap<String, Vec<AuthorizedKey>>,
    told: usize,
}

impl<'a, 'b> Reader<'a, 'b> {
    /// `patterns` are the files that the server's configuration names, with its tokens `%h`, `%u`, `%U`.
    pub(crate) fn new(files: &'a Files<'b>, patterns: &'a [String]) -> Self {
        if patterns.len() > PATTERNS_MAX {
            files.warn("AuthorizedKeysFile", format!("files past the first {PATTERNS_MAX} are left out"));
        }
        let patterns = patterns.get(..PATTERNS_MAX).unwrap_or(patterns);
        Self { files, patterns, known: HashMap::new(), told: 0 }
    }

    /// The keys of one account.
    pub(crate) fn read(&mut self, user: &User) -> Vec<AuthorizedKey> {
        let mut keys: Vec<AuthorizedKey> = Vec::new();
        // An account without a home of its own has no key files below it.
        if user.home.is_empty() || user.home == "/nonexistent" {
            return keys;
        }
        let paths: BTreeSet<String> = self.patterns.iter().map(|pattern| expand(pattern, user)).collect();
        for path in paths {
            let files = self.files;
            let found = self.known.entry(path).or_insert_with_key(|path| {
                let text = files.text(path).unwrap_or_default();
                text.lines().filter_map(|line| key(line, path)).take(KEYS_MAX).collect()
            });
            keys.extend(found.iter().take(KEYS_MAX.saturating_sub(self.told.saturating_add(keys.len()))).cloned());
            if self.told.saturating_add(keys.len()) >= KEYS_MAX {
                files.warn("authorized keys", format!("keys past the first {KEYS_MAX} are left out"));
            }
        }
        self.told = self.told.saturating_add(keys.len());
        keys
    }
}

fn expand(pattern: &str, user: &User) -> String {
    let home = user.home.trim_end_matches('/');
    let path = pattern
        .replace("%%", "\0")
        .replace("%h", home)
        .replace("%u", &user.name)
        .replace("%U", &user.uid.to_string())
        .replace('\0', "%");
    if path.starts_with('/') { path } else { format!("{home}/{path}") }
}

/// One line: options, type, base64, comment.
fn key(line: &str, path: &str) -> Option<AuthorizedKey> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (options, rest) = if is_key_type(first_word(line)) {
        (None, line)
    } else {
        let end = options_end(line);
        (line.get(..end), line.get(end..)?.trim_start())
    };
    let mut parts = rest.splitn(3, [' ', '\t']).filter(|part| !part.is_empty());
    let r#type = parts.next().filter(|word| is_key_type(word))?;
    // The blob says its type again; sshd takes no key whose two types differ.
    let blob =
        decode_base64(parts.next()?).filter(|blob| string(blob).is_some_and(|(name, _)| name == r#type.as_bytes()))?;
    Some(AuthorizedKey {
        path: path.to_owned(),
        r#type: r#type.to_owned(),
        bits: bits(&blob),
        fingerprint: format!("SHA256:{}", encode_base64(&Sha256::digest(&blob))),
        comment: parts.next().map(|comment| comment.trim().to_owned()).filter(|comment| !comment.is_empty()),
        options: options.map(str::to_owned),
    })
}

fn first_word(text: &str) -> &str {
    text.split([' ', '\t']).next().unwrap_or_default()
}

fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-", "rsa-sha2-"].iter().any(|prefix| word.starts_with(prefix))
}

/// Options end at white space outside quotes.
fn options_end(line: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, character) in line.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => return at,
            _ => {}
        }
    }
    line.len()
}

/// Bits of an RSA modulus or a DSA prime: the third and the second field of the blob.
fn bits(blob: &[u8]) -> Option<u32> {
    let (name, rest) = string(blob)?;
    let number = match name {
        b"ssh-rsa" => string(string(rest)?.1)?.0,
        b"ssh-dss" => string(rest)?.0,
        _ => return None,
    };
    let leading = number.iter().take_while(|byte| **byte == 0).count();
    let significant = number.get(leading..)?;
    let top = significant.first()?.leading_zeros();
    u32::try_from(significant.len()).ok()?.checked_mul(8)?.checked_sub(top)
}

/// A length and as many bytes (RFC 4251 section 5), and what follows.
fn string(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 without padding (RFC 4648 section 4), as fingerprints are written.
fn encode_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for chunk in bytes.chunks(3) {
        let mut group = [0_u8; 4];
        for (to, from) in group.iter_mut().skip(1).zip(chunk) {
            *to = *from;
        }
        let bits = u32::from_be_bytes(group);
        for position in 0..=chunk.len() {
            let index = (bits >> (18_usize.saturating_sub(position.saturating_mul(6)))) & 63;
            text.extend(ALPHABET.get(index as usize).map(|byte| char::from(*byte)));
        }
    }
    text
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|known| *known == byte)?;
        bits = (bits << 6 | u32::try_from(value).ok()?) & 0xff_ffff;
        count = count.wrapping_add(6);
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    /// Fingerprints as `ssh-keygen -lf` of OpenSSH prints them for the same keys.
    #[test]
    fn keys_are_shown_by_fingerprint() {
        let ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github";
        let found = key(ed25519, "/k").unwrap();
        assert_eq!(found.fingerprint, "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
        assert_eq!(found.comment.as_deref(), Some("github"));
        let with_options = format!("command=\"echo \\\"a b\\\"\",no-pty {ed25519}");
        let found = key(&with_options, "/k").unwrap();
        assert_eq!(found.options.as_deref(), Some("command=\"echo \\\"a b\\\"\",no-pty"));
        for bad in [
            "",
            "# x",
            "ssh-rsa",
            "ssh-rsa !!!!",
            "ssh-rsa bogus",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA",
            "option-only",
            "\"unterminated",
        ] {
            assert!(key(bad, "/k").is_none(), "{bad:?}");
        }
    }

    #[test]
    fn more_key_files_than_are_read_give_a_warning() {
        let fixture = Fixture::new();
        let tree = fixture.tree();
        let files = Files::new(&tree);
        Reader::new(&files, &vec!["x".to_owned(); PATTERNS_MAX]);
        Reader::new(&files, &vec!["x".to_owned(); PATTERNS_MAX + 1]);
        assert_eq!(files.into_warnings().len(), 1);
    }

    #[test]
    fn blobs_with_lying_lengths_have_no_bits() {
        assert_eq!(bits(&[0, 0, 0, 7, b's', b's', b'h', b'-', b'r', b's', b'a', 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(bits(&[]), None);
    }
}
