//! The ciphers of dm-crypt as LUKS names them, `aes-xts-plain64`: over sectors, with an initial vector from their number.
//!
//! Sources: the kernel's `dm-crypt.c` (initial vectors), IEEE 1619 (XTS).

use std::fmt;

use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit, consts::U16};
use aes::{Aes128, Aes192, Aes256};
use serpent::Serpent;
use twofish::Twofish;
use zeroize::Zeroizing;

use super::kdf::Hash;
use crate::error::{Error, Result};

const BLOCK_BYTES: usize = 16;

/// A block cipher with its key.
trait BlockCipher: Send + Sync {
    /// Encrypts one block.
    fn encrypt(&self, block: &mut [u8; BLOCK_BYTES]);
    /// Decrypts whole blocks.
    fn decrypt(&self, blocks: &mut [u8]);
}

impl<C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Send + Sync> BlockCipher for C {
    fn encrypt(&self, block: &mut [u8; BLOCK_BYTES]) {
        let mut whole = Block::<C>::from(*block);
        self.encrypt_block(&mut whole);
        *block = whole.into();
    }

    fn decrypt(&self, blocks: &mut [u8]) {
        let (blocks, _) = Block::<C>::slice_as_chunks_mut(blocks);
        self.decrypt_blocks(blocks);
    }
}

type Boxed = Box<dyn BlockCipher>;

fn block_cipher(name: &str, key: &[u8]) -> Result<Boxed> {
    fn keyed<C: KeyInit + BlockCipher + 'static>(key: &[u8]) -> Option<Boxed> {
        C::new_from_slice(key).ok().map(|cipher| Box::new(cipher) as Boxed)
    }
    let cipher = match (name, key.len()) {
        ("aes", 16) => keyed::<Aes128>(key),
        ("aes", 24) => keyed::<Aes192>(key),
        ("aes", 32) => keyed::<Aes256>(key),
        ("serpent", 16 | 24 | 32) => keyed::<Serpent>(key),
        ("twofish", 16 | 24 | 32) => keyed::<Twofish>(key),
        _ => None,
    };
    cipher.ok_or_else(|| Error::unsupported(format!("cipher {name} with a key of {} bits", key.len() * 8)))
}

/// What stands before the first block of a sector.
enum Vector {
    /// Nothing.
    Null,
    /// The lower 32 bits of the number.
    Plain,
    /// The number.
    Plain64,
    /// The number, big-endian, at the end.
    Plain64Be,
    /// The number, encrypted with the hash of the key.
    Essiv(Boxed),
}

enum Mode {
    Cbc(Boxed),
    /// For the data, and for the vector.
    Xts(Boxed, Boxed),
    Ecb(Boxed),
}

/// Decrypts sectors.
pub(crate) struct Cipher {
    mode: Mode,
    vector: Vector,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    /// The cipher called `spec`, such as `aes-cbc-essiv:sha256`, with its key.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming what is not known, or does not go with the length of the key.
    pub(crate) fn new(spec: &str, key: &[u8]) -> Result<Self> {
        let unknown = || Error::unsupported(format!("cipher {}", spec.escape_debug()));
        let (name, rest) = spec.split_once('-').ok_or_else(unknown)?;
        let (mode, vector) = rest.split_once('-').unwrap_or((rest, "null"));
        let mode = match mode {
            "cbc" => Mode::Cbc(block_cipher(name, key)?),
            "ecb" => Mode::Ecb(block_cipher(name, key)?),
            "xts" => {
                let (first, second) = key.split_at(key.len() / 2);
                Mode::Xts(block_cipher(name, first)?, block_cipher(name, second)?)
            }
            _ => return Err(unknown()),
        };
        let vector = match vector {
            "null" => Vector::Null,
            "plain" => Vector::Plain,
            "plain64" => Vector::Plain64,
            "plain64be" => Vector::Plain64Be,
            _ => {
                let hash = vector.strip_prefix("essiv:").and_then(Hash::from_name).ok_or_else(unknown)?;
                Vector::Essiv(block_cipher(name, &Zeroizing::new(hash.digest(&[key])))?)
            }
        };
        Ok(Self { mode, vector })
    }

    /// Decrypts whole sectors of `sector_bytes`, the first of which has the number `number` in sectors of 512 bytes.
    pub(crate) fn decrypt(&self, data: &mut [u8], sector_bytes: usize, number: u64) {
        let step = (sector_bytes / 512) as u64;
        let mut number = number;
        for sector in data.chunks_mut(sector_bytes.max(BLOCK_BYTES)) {
            let vector = self.vector(number);
            match &self.mode {
                Mode::Ecb(cipher) => cipher.decrypt(sector),
                Mode::Cbc(cipher) => decrypt_cbc(&**cipher, sector, vector),
                Mode::Xts(cipher, tweak) => decrypt_xts(&**cipher, &**tweak, sector, vector),
            }
            number = number.wrapping_add(step);
        }
    }

    fn vector(&self, number: u64) -> [u8; BLOCK_BYTES] {
        let mut vector = match self.vector {
            Vector::Null => 0,
            Vector::Plain => u128::from(number as u32),
            Vector::Plain64 | Vector::Essiv(_) => u128::from(number),
            Vector::Plain64Be => return u128::from(number).to_be_bytes(),
        }
        .to_le_bytes();
        if let Vector::Essiv(cipher) = &self.vector {
            cipher.encrypt(&mut vector);
        }
        vector
    }
}

/// Bytes that are decrypted at once: a sector of dm-crypt at most.
const RUN_BYTES: usize = 4096;

fn add(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

fn decrypt_cbc(cipher: &dyn BlockCipher, sector: &mut [u8], mut vector: [u8; BLOCK_BYTES]) {
    let mut before = [0; RUN_BYTES];
    for run in sector.chunks_mut(RUN_BYTES) {
        let Some(encrypted) = before.get_mut(..run.len()) else { return };
        encrypted.copy_from_slice(run);
        cipher.decrypt(run);
        let (first, rest) = run.split_at_mut(BLOCK_BYTES.min(run.len()));
        add(first, &vector);
        add(rest, encrypted);
        if let Some(last) = encrypted.last_chunk() {
            vector = *last;
        }
    }
}

fn decrypt_xts(cipher: &dyn BlockCipher, tweak: &dyn BlockCipher, sector: &mut [u8], mut vector: [u8; BLOCK_BYTES]) {
    tweak.encrypt(&mut vector);
    let mut value = u128::from_le_bytes(vector);
    let mut tweaks = [0; RUN_BYTES];
    for run in sector.chunks_mut(RUN_BYTES) {
        let Some(tweaks) = tweaks.get_mut(..run.len()) else { return };
        for block in tweaks.chunks_exact_mut(BLOCK_BYTES) {
            block.copy_from_slice(&value.to_le_bytes());
            // Times x in the field of x^128 + x^7 + x^2 + x + 1.
            value = value << 1 ^ if value >> 127 == 0 { 0 } else { 0x87 };
        }
        add(run, tweaks);
        cipher.decrypt(run);
        add(run, tweaks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// IEEE 1619-2007, annex B, vectors 2 and 10 (its first two blocks).
    #[test]
    fn xts_agrees_with_the_vectors_of_its_standard() {
        let cases = [
            (
                "1111111111111111111111111111111122222222222222222222222222222222",
                0x33_3333_3333,
                "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0",
                "4444444444444444444444444444444444444444444444444444444444444444",
            ),
            (
                "2718281828459045235360287471352662497757247093699959574966967627\
                 3141592653589793238462643383279502884197169399375105820974944592",
                0xff,
                "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
                "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            ),
        ];
        for (key, number, encrypted, plain) in cases {
            let mut data = bytes(encrypted);
            Cipher::new("aes-xts-plain64", &bytes(&key.replace(' ', ""))).unwrap().decrypt(&mut data, 512, number);
            assert_eq!(data, bytes(plain));
        }
    }

    /// NIST SP 800-38A, F.2.2 (CBC-AES128.Decrypt), with its vector as the sector's number where it fits none.
    #[test]
    fn cbc_agrees_with_the_vectors_of_its_standard() {
        let cipher = block_cipher("aes", &bytes("2b7e151628aed2a6abf7158809cf4f3c")).unwrap();
        let mut data = bytes("7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2");
        let vector = bytes("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
        decrypt_cbc(&*cipher, &mut data, vector);
        assert_eq!(data, bytes("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"));
    }

    #[test]
    fn unknown_ciphers_and_keys_are_refused_by_name() {
        for (spec, length) in [
            ("aes", 32),
            ("aes-xts-plain64", 20),
            ("aes-lrw-plain64", 32),
            ("aes-cbc-essiv:crc32", 32),
            ("cast5-cbc-plain", 16),
            ("aes-xts-random", 64),
            ("", 0),
        ] {
            assert!(matches!(Cipher::new(spec, &vec![7; length]), Err(Error::Unsupported { .. })), "{spec}");
        }
    }
}
