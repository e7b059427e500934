//! What superblocks say of themselves beyond what readers need: state, counted errors, features. Sources: Linux,
//! `Documentation/filesystems/ext4/super.rst`; XFS Algorithms & Data Structures, "Superblocks".

use crate::disk::Device;

/// What one file system says of its state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Whether it was unmounted cleanly, or says that it must be repaired.
    pub(crate) is_clean: bool,
    /// Errors that the kernel has counted.
    pub(crate) errors: u32,
    /// What it lacks of what is usual today.
    pub(crate) lacks: Vec<&'static str>,
    /// Whether its log waits to be replayed.
    pub(crate) needs_replay: bool,
}

fn bytes<const N: usize>(device: &Device, offset: u64) -> Option<[u8; N]> {
    let mut buffer = [0; N];
    device.source().read_exact_at(&mut buffer, offset).ok()?;
    Some(buffer)
}

/// The state of a device's file system; `None` for kinds that are not read here.
pub(crate) fn state(device: &Device) -> Option<State> {
    match device.probe.as_ref()?.kind {
        "ext2" | "ext3" | "ext4" => ext(device),
        "xfs" => xfs(device),
        _ => None,
    }
}

const EXT_SUPERBLOCK: u64 = 1_024;

fn ext(device: &Device) -> Option<State> {
    let word = |at: u64| Some(u32::from_le_bytes(bytes(device, EXT_SUPERBLOCK.checked_add(at)?)?));
    let half = |at: u64| Some(u16::from_le_bytes(bytes(device, EXT_SUPERBLOCK.checked_add(at)?)?));
    let (compat, incompat, ro_compat) = (word(0x5c)?, word(0x60)?, word(0x64)?);
    let state = half(0x3a)?;
    let mut lacks = Vec::new();
    let known = [
        (incompat & 0x40 == 0, "extents"),
        (compat & 0x20 == 0, "dir_index"),
        (ro_compat & 0x400 == 0, "metadata_csum"),
        (incompat & 0x80 == 0, "64bit"),
        (half(0x58)? < 256, "inodes of 256 bytes, without which times end in 2038"),
    ];
    lacks.extend(known.into_iter().filter(|(lacking, _)| *lacking).map(|(_, name)| name));
    // Bit 0: cleanly unmounted; bit 1: errors were detected. A journal that waits is no fault.
    let needs_replay = incompat & 0x4 != 0;
    let is_clean = state & 2 == 0 && (state & 1 != 0 || needs_replay);
    Some(State { is_clean, errors: word(0x194)?, lacks, needs_replay })
}

fn xfs(device: &Device) -> Option<State> {
    let version = u16::from_be_bytes(bytes(device, 100)?) & 0xf;
    let incompat = if version >= 5 { u32::from_be_bytes(bytes(device, 216)?) } else { 0 };
    let lacks = if version < 5 { vec!["checksums (version 5), without which times end in 2038"] } else { Vec::new() };
    Some(State { is_clean: incompat & 0x10 == 0, errors: 0, lacks, needs_replay: false })
}
