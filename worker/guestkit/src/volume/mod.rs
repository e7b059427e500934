//! What lies between a disk and a file system: RAID, logical volumes, encryption. Each makes sources out of sources.
//!
//! [`probes`] recognises members by their signatures. The other modules read what a member says of its volume and give
//! the volume as a [`crate::ReadAt`]; which devices are members of what is for [`crate::Disk`] to find out.

pub(crate) mod bitlocker;
pub(crate) mod compose;
mod controllers;
pub(crate) mod luks;
pub(crate) mod lvm;
pub(crate) mod md;
pub(crate) mod probes;
mod raid;

pub use lvm::{LogicalVolume, PhysicalVolume, VolumeGroup};
pub use md::Array;
