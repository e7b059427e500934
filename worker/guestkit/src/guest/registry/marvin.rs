//! Marvin32, the hash that entries of transaction logs are checked with.

use crate::bytes::le_u32;

/// The seed of the registry: bytes `82 EF 4D 88 7A 4E 55 C5` (specification, "Log entries", note 3).
const SEED: u64 = 0x82ef_4d88_7a4e_55c5;

/// The 64-bit hash of `bytes`. Source: Microsoft's patent US 20130262421 A1 and the published implementation of .NET
/// (`Marvin.cs`), of which the registry keeps both halves.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let [low, high] = [SEED & 0xffff_ffff, SEED >> 32].map(|half| u32::try_from(half).unwrap_or(0));
    let mut state = (low, high);
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        state = mixed((state.0.wrapping_add(u32::from_le_bytes(*word)), state.1));
    }
    // A single bit closes what does not fill a word.
    let mut last = [0_u8; 4];
    for (to, from) in last.iter_mut().zip(rest.iter().chain([&0x80])) {
        *to = *from;
    }
    state = mixed((state.0.wrapping_add(le_u32(&last, 0).unwrap_or(0)), state.1));
    state = mixed(state);
    u64::from(state.1) << 32 | u64::from(state.0)
}

const fn mixed((mut low, mut high): (u32, u32)) -> (u32, u32) {
    high ^= low;
    low = low.rotate_left(20).wrapping_add(high);
    high = high.rotate_left(9) ^ low;
    low = low.rotate_left(27).wrapping_add(high);
    high = high.rotate_left(19);
    (low, high)
}
