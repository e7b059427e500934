//! LUKS1 and LUKS2: from a secret to the plain bytes of an encrypted volume.
//!
//! [`unlock`] finds the key, [`open`] gives the plain bytes of a device. An image format that encrypts with LUKS inside
//! of itself has its header elsewhere than its data: it takes the [`Unlocked`] cipher and decrypts its own clusters.

mod cipher;
mod header;
mod kdf;

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::block_cache::BlockCache;
use crate::error::{Error, Result};
use crate::keys::Secret;
use crate::limits::Budget;
use crate::read_at::{ReadAt, Slice, Source, check_range};

use self::cipher::Cipher;
use self::header::{Derivation, Header, Slot};
use self::kdf::Clock;

/// An opened volume: how to decrypt it, and where its data lies.
#[derive(Debug)]
pub(crate) struct Unlocked {
    cipher: Cipher,
    sector_bytes: usize,
    first_number: u64,
    offset: u64,
    length: Option<u64>,
}

impl Unlocked {
    /// Decrypts whole sectors, the first of which is at byte `at` of the data.
    pub(crate) fn decrypt(&self, data: &mut [u8], at: u64) {
        self.cipher.decrypt(data, self.sector_bytes, (at / 512).wrapping_add(self.first_number));
    }
}

/// Finds the key of the volume whose header starts `device`, by the first of `secrets` that fits a key slot.
///
/// # Errors
/// [`Error::Encrypted`] where none fits, [`Error::Corrupt`] and [`Error::Unsupported`] for the header; limits and I/O.
pub(crate) fn unlock<'a>(
    device: &dyn ReadAt,
    secrets: impl IntoIterator<Item = &'a Secret>,
    budget: &Budget,
) -> Result<Unlocked> {
    let header = Header::read(device, budget)?;
    let clock = Clock::new(budget);
    let mut refused = header.refused.map(Error::unsupported);
    for secret in secrets {
        for slot in &header.slots {
            match try_slot(device, slot, secret, &clock, budget) {
                Ok(Some(key)) => {
                    let cipher = Cipher::new(&header.cipher, &key)?;
                    return Ok(Unlocked {
                        cipher,
                        sector_bytes: header.sector_bytes,
                        first_number: header.first_number,
                        offset: header.offset,
                        length: header.length,
                    });
                }
                Ok(None) => {}
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Err(error) => refused = Some(error),
            }
        }
    }
    // A slot that is not understood might have been the right one.
    Err(refused.unwrap_or_else(|| Error::Encrypted { what: "LUKS volume, which no given key opens,".into() }))
}

/// The volume's key, where `secret` opens `slot`.
fn try_slot(
    device: &dyn ReadAt,
    slot: &Slot,
    secret: &Secret,
    clock: &Clock<'_>,
    budget: &Budget,
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let area_key = match &slot.derivation {
        Derivation::Pbkdf2 { hash, iterations } => {
            kdf::pbkdf2(*hash, secret.bytes(), &slot.salt, *iterations, slot.area_key_bytes, clock)?
        }
        Derivation::Argon2(cost) => kdf::argon2(*cost, secret.bytes(), &slot.salt, slot.area_key_bytes, clock)?,
    };
    let bytes = slot.stripes.saturating_mul(slot.key_bytes);
    let mut material = Zeroizing::new(budget.allocate(bytes.next_multiple_of(512) as u64)?);
    device.read_exact_at(&mut material, slot.offset)?;
    // The numbers of its sectors count from its own start.
    Cipher::new(&slot.cipher, &area_key)?.decrypt(&mut material, 512, 0);
    let key = kdf::merge(slot.hash, material.get(..bytes).unwrap_or_default(), slot.key_bytes);
    let digest = &slot.digest;
    let found = kdf::pbkdf2(digest.hash, &key, &digest.salt, digest.iterations, digest.value.len(), clock)?;
    Ok((*found == digest.value).then_some(key))
}

/// The plain bytes of `device`, cached.
///
/// # Errors
/// As [`unlock`].
pub(crate) fn open<'a>(
    device: Source,
    secrets: impl IntoIterator<Item = &'a Secret>,
    budget: &Arc<Budget>,
) -> Result<Source> {
    let unlocked = unlock(&*device, secrets, budget)?;
    let available = device.len().saturating_sub(unlocked.offset);
    let sector = unlocked.sector_bytes as u64;
    let length = unlocked.length.unwrap_or(available).min(available);
    let length = length - length.checked_rem(sector).unwrap_or(0);
    let encrypted = Slice::new(device, unlocked.offset, length);
    Ok(Arc::new(BlockCache::new(Arc::new(Plain { encrypted, unlocked }), Arc::clone(budget))))
}

/// Decrypts what it reads.
#[derive(Debug)]
struct Plain {
    encrypted: Slice,
    unlocked: Unlocked,
}

impl Plain {
    /// Reads part of one sector.
    fn read_within(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        let sector_bytes = self.unlocked.sector_bytes as u64;
        let within = at.checked_rem(sector_bytes).unwrap_or(0);
        let mut sector = [0; 4096];
        let sector = sector.get_mut(..self.unlocked.sector_bytes).unwrap_or_default();
        self.encrypted.read_exact_at(sector, at - within)?;
        self.unlocked.decrypt(sector, at - within);
        let start = usize::try_from(within).unwrap_or(usize::MAX);
        if let Some(part) = start.checked_add(buffer.len()).and_then(|end| sector.get(start..end)) {
            buffer.copy_from_slice(part);
        }
        Ok(())
    }
}

impl ReadAt for Plain {
    fn len(&self) -> u64 {
        self.encrypted.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), buffer.len(), offset)?;
        let sector_bytes = self.unlocked.sector_bytes;
        let to_boundary = |at: u64| {
            let within = at.checked_rem(sector_bytes as u64).unwrap_or(0);
            if within == 0 { 0 } else { sector_bytes.saturating_sub(usize::try_from(within).unwrap_or(0)) }
        };
        // What is left of a sector, whole sectors in one read and in place, the start of a sector.
        let (head, rest) = buffer.split_at_mut(to_boundary(offset).min(buffer.len()));
        if !head.is_empty() {
            self.read_within(head, offset)?;
        }
        let at = offset.saturating_add(head.len() as u64);
        let (middle, tail) = rest.split_at_mut(rest.len() - rest.len().checked_rem(sector_bytes).unwrap_or(0));
        if !middle.is_empty() {
            self.encrypted.read_exact_at(middle, at)?;
            self.unlocked.decrypt(middle, at);
        }
        if !tail.is_empty() {
            self.read_within(tail, at.saturating_add(middle.len() as u64))?;
        }
        Ok(())
    }
}
