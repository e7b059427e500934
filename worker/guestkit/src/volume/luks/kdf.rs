//! From a passphrase to a key: PBKDF2 and Argon2, and the merging of a key that was split to be easy to destroy.
//!
//! Sources: RFC 8018, section 5.2; RFC 9106; LUKS On-Disk Format Specification 1.2.3, section 2.4. The header says how
//! much work it is, so each loop here looks at the time, and memory has a bound of its own.

use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, KeyInit as _, Mac as _};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::limits::Budget;

/// The longest key that a cipher here takes is 64 bytes; no derivation needs more.
pub(crate) const KEY_BYTES_MAX: usize = 512;
/// cryptsetup measures for 2 seconds on the machine that formats and never takes more memory than 4 GiB, by default 1 GiB
/// at most. It is given back before the volume is read. Whoever bounds an engine's process must leave room for it.
const ARGON2_KIB_MAX: u32 = 1 << 20;
/// KiB times passes. One pass over 1 GiB takes a second; cryptsetup starts at four.
const ARGON2_WORK_MAX: u64 = 64 << 20;
/// For all key slots of one volume and all secrets: an old machine may be thirty times slower than the one that formatted.
const UNLOCK_TIME: Duration = Duration::from_secs(60);

/// The time that is left to open one volume.
#[derive(Debug)]
pub(crate) struct Clock<'a> {
    budget: &'a Budget,
    started: Instant,
}

impl<'a> Clock<'a> {
    pub(crate) fn new(budget: &'a Budget) -> Self {
        Self { budget, started: Instant::now() }
    }

    fn check(&self) -> Result<()> {
        self.budget.check_time()?;
        if self.started.elapsed() > UNLOCK_TIME {
            let what = format!("a LUKS header that takes more than {} seconds to open", UNLOCK_TIME.as_secs());
            return Err(Error::unsupported(what));
        }
        Ok(())
    }
}

/// The hashes that cryptsetup offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Ripemd160,
    Whirlpool,
    /// Whirlpool cut to 256 bits.
    Whirlpool256,
}

/// Calls `$then` with the digest type of `$hash`.
macro_rules! with_digest {
    ($hash:expr, $name:ident => $then:expr) => {
        match $hash {
            Hash::Sha1 => {
                type $name = sha1::Sha1;
                $then
            }
            Hash::Sha224 => {
                type $name = sha2::Sha224;
                $then
            }
            Hash::Sha256 => {
                type $name = sha2::Sha256;
                $then
            }
            Hash::Sha384 => {
                type $name = sha2::Sha384;
                $then
            }
            Hash::Sha512 => {
                type $name = sha2::Sha512;
                $then
            }
            Hash::Ripemd160 => {
                type $name = ripemd::Ripemd160;
                $then
            }
            Hash::Whirlpool | Hash::Whirlpool256 => {
                type $name = whirlpool::Whirlpool;
                $then
            }
        }
    };
}

impl Hash {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "sha1" => Self::Sha1,
            "sha224" => Self::Sha224,
            "sha256" => Self::Sha256,
            "sha384" => Self::Sha384,
            "sha512" => Self::Sha512,
            "ripemd160" | "rmd160" => Self::Ripemd160,
            "whirlpool" | "wp512" => Self::Whirlpool,
            "wp256" => Self::Whirlpool256,
            _ => return None,
        })
    }

    /// As [`Hash::from_name`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the hash.
    pub(crate) fn named(name: &str) -> Result<Self> {
        Self::from_name(name).ok_or_else(|| Error::unsupported(format!("hash {}", name.escape_debug())))
    }

    /// The hash of `parts`, one after another.
    pub(crate) fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        use sha2::Digest as _;
        let mut digest = with_digest!(self, D => {
            let mut hasher = D::new();
            parts.iter().for_each(|part| hasher.update(part));
            hasher.finalize().to_vec()
        });
        if self == Self::Whirlpool256 {
            digest.truncate(32);
        }
        digest
    }
}

/// Iterations between two looks at the clock: some ten milliseconds.
const ITERATIONS_BETWEEN: u32 = 1 << 14;

/// PBKDF2 with HMAC.
///
/// # Errors
/// [`Error::Unsupported`] where it takes too long; limits.
pub(crate) fn pbkdf2(
    hash: Hash,
    secret: &[u8],
    salt: &[u8],
    iterations: u32,
    length: usize,
    clock: &Clock<'_>,
) -> Result<Zeroizing<Vec<u8>>> {
    let mut key = Zeroizing::new(vec![0; length.min(KEY_BYTES_MAX)]);
    with_digest!(hash, D => {
        let keyed = Hmac::<D>::new_from_slice(secret).map_err(|_| Error::unsupported("a secret of this length"))?;
        let size = hash.digest(&[]).len();
        for (block, number) in key.chunks_mut(size.max(1)).zip(1_u32..) {
            let mut mac = keyed.clone();
            mac.update(salt);
            mac.update(&number.to_be_bytes());
            let mut value = mac.finalize().into_bytes();
            for (to, from) in block.iter_mut().zip(&value) {
                *to = *from;
            }
            for iteration in 1..iterations {
                if iteration % ITERATIONS_BETWEEN == 0 {
                    clock.check()?;
                }
                let mut mac = keyed.clone();
                mac.update(&value);
                value = mac.finalize().into_bytes();
                for (to, from) in block.iter_mut().zip(&value) {
                    *to ^= *from;
                }
            }
        }
    });
    Ok(key)
}

/// The parameters of Argon2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Argon2Cost {
    /// `argon2i` instead of `argon2id`.
    pub(crate) is_i: bool,
    pub(crate) passes: u32,
    pub(crate) kib: u32,
    pub(crate) lanes: u32,
}

/// Argon2, version 1.3.
///
/// # Errors
/// [`Error::Unsupported`] where it takes too much memory or work; limits.
pub(crate) fn argon2(
    cost: Argon2Cost,
    secret: &[u8],
    salt: &[u8],
    length: usize,
    clock: &Clock<'_>,
) -> Result<Zeroizing<Vec<u8>>> {
    clock.check()?;
    let Argon2Cost { passes, kib, lanes, .. } = cost;
    if kib > ARGON2_KIB_MAX || u64::from(kib).saturating_mul(u64::from(passes)) > ARGON2_WORK_MAX {
        let what = format!("a LUKS key slot that takes {passes} passes over {kib} KiB to open");
        return Err(Error::unsupported(what));
    }
    let refused = |error: argon2::Error| Error::corrupt("LUKS2 key slot", 0, format!("Argon2 refuses it: {error}"));
    let params = Params::new(kib, passes, lanes, Some(length)).map_err(refused)?;
    let mut blocks = Vec::new();
    let count = params.block_count();
    let no_memory = |_| Error::Io {
        action: format!("taking {kib} KiB of memory to open a LUKS key slot"),
        source: std::io::ErrorKind::OutOfMemory.into(),
    };
    blocks.try_reserve_exact(count).map_err(no_memory)?;
    blocks.resize(count, argon2::Block::new());
    let algorithm = if cost.is_i { Algorithm::Argon2i } else { Algorithm::Argon2id };
    let mut key = Zeroizing::new(vec![0; length.min(KEY_BYTES_MAX)]);
    let argon2 = Argon2::new(algorithm, Version::V0x13, params);
    argon2.hash_password_into_with_memory(secret, salt, &mut key, &mut blocks).map_err(refused)?;
    Ok(key)
}

/// Merges the `stripes` of `material` to a key of `length` bytes.
pub(crate) fn merge(hash: Hash, material: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(vec![0; length]);
    let mut stripes = material.chunks_exact(length.max(1)).peekable();
    while let Some(stripe) = stripes.next() {
        for (to, from) in key.iter_mut().zip(stripe) {
            *to ^= from;
        }
        if stripes.peek().is_some() {
            diffuse(hash, &mut key);
        }
    }
    key
}

/// Each piece as long as a digest becomes the digest of its number and itself; the last one may be shorter.
fn diffuse(hash: Hash, key: &mut [u8]) {
    let size = hash.digest(&[]).len().max(1);
    for (piece, number) in key.chunks_mut(size).zip(0_u32..) {
        let digest = Zeroizing::new(hash.digest(&[&number.to_be_bytes(), piece]));
        for (to, from) in piece.iter_mut().zip(digest.iter()) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::hex;
    use crate::limits::Limits;

    /// RFC 6070 (SHA-1) and RFC 7914, section 11 (SHA-256).
    #[test]
    fn pbkdf2_agrees_with_published_vectors() {
        let budget = Budget::new(&Limits::default());
        let clock = Clock::new(&budget);
        let sha1 =
            pbkdf2(Hash::Sha1, b"passwordPASSWORDpassword", b"saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096, 25, &clock);
        assert_eq!(hex(&sha1.unwrap()), "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038");
        let sha256 = pbkdf2(Hash::Sha256, b"passwd", b"salt", 1, 64, &clock).unwrap();
        assert_eq!(hex(&sha256[..16]), "55ac046e56e3089fec1691c22544b605");
    }

    #[test]
    fn work_without_end_is_ended() {
        let budget = Budget::new(&Limits { time: Duration::from_millis(30), ..Limits::default() });
        let clock = Clock::new(&budget);
        assert!(pbkdf2(Hash::Sha512, b"p", b"s", u32::MAX, 64, &clock).is_err());
        let budget = Budget::new(&Limits::default());
        let clock = Clock::new(&budget);
        for (passes, kib, lanes) in [(u32::MAX, 64, 1), (1, u32::MAX, 1), (4, 1 << 20 | 1, 4), (0, 64, 1), (1, 0, 0)] {
            let cost = Argon2Cost { is_i: false, passes, kib, lanes };
            assert!(argon2(cost, b"password", b"saltsalt", 32, &clock).is_err(), "{cost:?}");
        }
    }
}
