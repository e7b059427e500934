//! Linux software RAID (md): what a superblock says, and the array that members make.
//!
//! Sources: md(4), the kernel's `md_p.h` (the structures), `md.c` (what is verified, which member is current),
//! `raid0.c` (zones).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bytes::{array, le_u16, le_u32, le_u64, slice, sum_holds};
use crate::error::{Error, Result};
use crate::filesystem::probe::label;
use crate::limits::Budget;
use crate::partition::uuid;
use crate::read_at::{ReadAt, Slice, Source, read_up_to};
use crate::volume::compose::{Concat, Mirror, Part, Patchy, Striped};
use crate::volume::raid::{Parity, ParityLayout, Raid10};

const SECTOR: u64 = 512;
const MAGIC: u32 = 0xa92b_4efc;
/// The kernel's bound: the roles of as many devices fit a superblock of version 1.
const MEMBERS_MAX: u32 = 1920;

/// A software RAID array, as its members describe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Array {
    /// Its device; absent where it could not be put together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its name as mdadm prints it, `host:name`; version 0.90 has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its UUID, in the form blkid prints for its members.
    pub uuid: String,
    /// `linear`, `raid0`, `raid1`, `raid4`, `raid5`, `raid6`, `raid10`…
    pub level: String,
    /// Version of the superblock: `0.90`, `1.0`, `1.1`, `1.2`.
    pub version: String,
    /// Bytes of the array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Bytes of a chunk; none for a mirror.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_bytes: Option<u64>,
    /// Members it has when it is complete.
    pub members_expected: u32,
    /// Devices that hold its data, in the order of their places.
    pub members: Vec<String>,
    /// Devices that belong to it and hold none of its data: spares, journals, failed and stale members.
    pub others: Vec<String>,
}

/// What part a member has in its array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Data(u32),
    Spare,
    Faulty,
    Journal,
}

/// A superblock.
#[derive(Debug, Clone)]
pub(crate) struct Superblock {
    version: &'static str,
    pub(crate) uuid: [u8; 16],
    name: Option<String>,
    /// Number of the device node, in version 0.90.
    minor: Option<u32>,
    level: i32,
    layout: u32,
    chunk: u64,
    /// Bytes that the array uses of each member; 0 for linear and RAID 0.
    used: u64,
    raid_disks: u32,
    events: u64,
    /// This device's own number, an index into `roles`.
    number: u32,
    roles: Vec<Role>,
    data_offset: u64,
    data_size: u64,
    /// Bytes that have been rebuilt, where this member is being rebuilt.
    recovered: Option<u64>,
    is_clean: bool,
    is_reshaping: bool,
    has_journal: bool,
    is_replacement: bool,
    /// Whether the layout of RAID 0 is recorded.
    has_raid0_layout: bool,
    bad: Vec<(u64, u64)>,
}

impl Superblock {
    /// Reads the superblock of `member`, `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a wrong checksum; whatever reading gives.
    pub(crate) fn read(member: &dyn ReadAt) -> Result<Option<Self>> {
        let sectors = member.len() / SECTOR;
        let version_1_0 = (sectors.saturating_sub(16) & !7).saturating_mul(SECTOR);
        for (at, version) in [(0, "1.1"), (4096, "1.2"), (version_1_0, "1.0")] {
            let bytes = read_up_to(member, at, 4096)?;
            let is_here = le_u32(&bytes, 0) == Some(MAGIC) && le_u32(&bytes, 4) == Some(1);
            if is_here && le_u64(&bytes, 144) == Some(at / SECTOR) {
                let mut found = Self::version_1(&bytes, at, version)?;
                found.read_bad_blocks(member, &bytes, at)?;
                return Ok(Some(found));
            }
        }
        let at = (member.len() & !0xffff).saturating_sub(0x1_0000);
        let bytes = read_up_to(member, at, 4096)?;
        match (le_u32(&bytes, 0), le_u32(&bytes, 4)) {
            (Some(MAGIC), Some(0)) => Self::version_0(&bytes, at).map(Some),
            _ => Ok(None),
        }
    }

    fn version_1(bytes: &[u8], at: u64, version: &'static str) -> Result<Self> {
        let short = || Error::corrupt("md superblock", at, "it ends early");
        let word = |offset| le_u32(bytes, offset).ok_or_else(short);
        let long = |offset| le_u64(bytes, offset).ok_or_else(short);
        let sectors = |count: u64| count.saturating_mul(SECTOR);
        let count = word(220)?;
        if count > MEMBERS_MAX {
            return Err(Error::corrupt("md superblock", at, format!("it lists {count} devices")));
        }
        let listed = slice(bytes, 0, 256 + count as usize * 2).ok_or_else(short)?;
        if !sum_holds(checksum_1(listed) == word(216)?) {
            return Err(Error::corrupt("md superblock", at, "its checksum is wrong"));
        }
        let features = word(8)?;
        // Bitmap, recovery offset, reshape (and its direction and offset), bad blocks, replacement, recovery bitmap,
        // clustered, journal, partial parity log (two kinds), layout of RAID 0.
        if features & !0x1fff != 0 {
            return Err(Error::unsupported(format!("md feature {:#x}", features & !0x1fff)));
        }
        let has = |feature: u32| features & feature != 0;
        let role = |index: usize| match le_u16(listed, 256 + index * 2) {
            Some(0xfffd) => Role::Journal,
            Some(0xfffe) => Role::Faulty,
            Some(role @ ..=0xff00) => Role::Data(u32::from(role)),
            _ => Role::Spare,
        };
        let level = word(72)?.cast_signed();
        Ok(Self {
            version,
            uuid: array(bytes, 16).ok_or_else(short)?,
            name: slice(bytes, 32, 32).and_then(label),
            minor: None,
            level,
            layout: word(76)?,
            chunk: sectors(u64::from(word(88)?)),
            used: sectors(long(80)?),
            raid_disks: word(92)?,
            events: long(200)?,
            number: word(160)?,
            roles: (0..count as usize).map(role).collect(),
            data_offset: sectors(long(128)?),
            data_size: sectors(long(136)?),
            recovered: if has(2) && !has(0x200) { Some(sectors(long(152)?)) } else { None },
            is_clean: long(208)? == u64::MAX,
            is_reshaping: has(4),
            has_journal: has(0x200),
            is_replacement: has(0x10),
            has_raid0_layout: has(0x1000),
            bad: Vec::new(),
        })
    }

    /// The list of bad blocks: numbers of 54 bits for the sector and 10 for the length, up to one of all ones.
    fn read_bad_blocks(&mut self, member: &dyn ReadAt, bytes: &[u8], at: u64) -> Result<()> {
        let fields = (|| Some((*bytes.get(185)?, le_u16(bytes, 186)?, le_u32(bytes, 188)?.cast_signed())))();
        let Some((shift, sectors, offset)) = fields else { return Ok(()) };
        let has_list = le_u32(bytes, 8).is_some_and(|features| features & 8 != 0);
        // More than 8 sectors (512 ranges) no kernel writes.
        if !has_list || sectors == 0 || sectors > 64 || shift > 32 {
            return Ok(());
        }
        let start = at.saturating_add_signed(i64::from(offset) * SECTOR.cast_signed());
        for entry in read_up_to(member, start, usize::from(sectors) * 512)?.chunks_exact(8) {
            let Some(entry) = le_u64(entry, 0).filter(|entry| *entry != u64::MAX) else { break };
            let (from, length) = ((entry >> 10) << shift, (entry & 0x3ff) << shift);
            if length > 0 {
                let from = from.saturating_mul(SECTOR);
                self.bad.push((from, from.saturating_add(length.saturating_mul(SECTOR))));
            }
        }
        Ok(())
    }

    fn version_0(bytes: &[u8], at: u64) -> Result<Self> {
        let words: Vec<u32> = bytes.chunks_exact(4).filter_map(|word| le_u32(word, 0)).collect();
        let word = |index: usize| {
            words.get(index).copied().ok_or_else(|| Error::corrupt("md superblock", at, "it ends early"))
        };
        let sum: u64 =
            words.iter().enumerate().map(|(index, word)| if index == 38 { 0 } else { u64::from(*word) }).sum();
        if !sum_holds((sum as u32).wrapping_add((sum >> 32) as u32) == word(38)?) {
            return Err(Error::corrupt("md superblock", at, "its checksum is wrong"));
        }
        let mut uuid = [0; 16];
        for (part, index) in uuid.chunks_exact_mut(4).zip([5, 13, 14, 15]) {
            part.copy_from_slice(&word(index)?.to_be_bytes());
        }
        let role = |place: u32, state: u32| {
            let has = |bit: u32| state >> bit & 1 != 0;
            match () {
                () if has(0) || has(3) => Role::Faulty,
                () if has(2) => Role::Data(place),
                () => Role::Spare,
            }
        };
        let disks = 27;
        let roles = (0..disks).map(|disk| Ok(role(word(128 + disk * 32 + 3)?, word(128 + disk * 32 + 4)?)));
        let level = word(7)?.cast_signed();
        let used = u64::from(word(8)?).saturating_mul(1024);
        Ok(Self {
            version: "0.90",
            uuid,
            name: None,
            minor: Some(word(11)?),
            level,
            layout: word(64)?,
            chunk: u64::from(word(65)?),
            used: if level > 0 { used } else { 0 },
            raid_disks: word(10)?,
            events: u64::from(word(39)?) | u64::from(word(40)?) << 32,
            number: word(992)?,
            roles: roles.collect::<Result<_>>()?,
            data_offset: 0,
            data_size: if level > 0 { used } else { at },
            recovered: None,
            is_clean: word(33)? & 1 != 0,
            is_reshaping: word(2)? > 90,
            has_journal: false,
            is_replacement: false,
            has_raid0_layout: false,
            bad: Vec::new(),
        })
    }

    /// Whether the data of the array could begin on a partition of `partition_bytes` instead of the whole device: version
    /// 0.90 alone does not say where it lies, and one at the end of the last partition lies at the end of the disk too.
    pub(crate) fn could_be_of(&self, partition_bytes: u64) -> bool {
        self.version == "0.90" && self.used <= partition_bytes
    }

    fn role(&self) -> Role {
        self.roles.get(self.number as usize).copied().unwrap_or(Role::Spare)
    }

    /// The level as mdadm spells it.
    fn level_name(&self) -> String {
        match self.level {
            -1 => "linear".into(),
            -4 => "multipath".into(),
            -5 => "faulty".into(),
            -100 => "container".into(),
            level => format!("raid{level}"),
        }
    }

    /// Members the array can do without, in the best case; a RAID 10 finds out itself.
    fn bearable(&self) -> u32 {
        match self.level {
            1 => self.raid_disks.saturating_sub(1),
            4 | 5 => 1,
            6 => 2,
            10 => self.raid_disks / 2,
            _ => 0,
        }
    }
}

/// Little-endian words summed up, the checksum itself left out, the carry added in.
fn checksum_1(superblock: &[u8]) -> u32 {
    let mut sum = 0_u64;
    for (index, word) in superblock.chunks(4).enumerate() {
        let value = match word {
            [a, b] => u64::from(u16::from_le_bytes([*a, *b])),
            _ => le_u32(word, 0).map_or(0, u64::from),
        };
        sum = sum.wrapping_add(if index == 54 { 0 } else { value });
    }
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// A device with its superblock.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) device: String,
    pub(crate) superblock: Superblock,
    pub(crate) source: Source,
}

/// How the kernel would name an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// By its number, which version 0.90 records.
    Number(u32),
    /// By the next number down from 127.
    Free,
}

/// Members of one array.
#[derive(Debug)]
pub(crate) struct Members {
    members: Vec<Member>,
}

impl Members {
    /// Members with the same UUID, at least one, in the order of their devices.
    pub(crate) const fn new(members: Vec<Member>) -> Self {
        Self { members }
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.device.as_str())
    }

    /// The one that was written last: it says which of the others count.
    fn freshest(&self) -> Option<&Superblock> {
        let superblocks = self.members.iter().map(|member| &member.superblock);
        // The first of several that are equal.
        superblocks.reduce(|best, next| if next.events > best.events { next } else { best })
    }

    pub(crate) fn naming(&self) -> Naming {
        self.freshest().and_then(|superblock| superblock.minor).map_or(Naming::Free, Naming::Number)
    }

    /// Whether each place is taken, so that nothing has to be waited for.
    pub(crate) fn is_complete(&self) -> bool {
        let mut warnings = Vec::new();
        self.freshest().is_some_and(|freshest| {
            freshest.raid_disks <= MEMBERS_MAX && self.places(freshest, &mut warnings).iter().all(Option::is_some)
        })
    }

    /// What the array is, and its bytes; what was left out or is odd goes into `warnings`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where too many members are missing, [`Error::Unsupported`] naming what is not read.
    pub(crate) fn assemble(&self, budget: &Budget, warnings: &mut Vec<String>) -> (Array, Result<Source>) {
        let Some(freshest) = self.freshest() else {
            let array = Array {
                device: None,
                name: None,
                uuid: String::new(),
                level: String::new(),
                version: String::new(),
                size_bytes: None,
                chunk_bytes: None,
                members_expected: 0,
                members: Vec::new(),
                others: Vec::new(),
            };
            return (array, Err(Error::corrupt("md array", 0, "it has no member")));
        };
        let places = if freshest.raid_disks <= MEMBERS_MAX { self.places(freshest, warnings) } else { Vec::new() };
        let members: Vec<String> = places.iter().flatten().map(|member| member.device.clone()).collect();
        let others = self.devices().filter(|device| !members.iter().any(|member| member == device));
        let mut array = Array {
            device: None,
            name: freshest.name.clone(),
            uuid: uuid(freshest.uuid),
            level: freshest.level_name(),
            version: freshest.version.to_owned(),
            size_bytes: None,
            chunk_bytes: Some(freshest.chunk).filter(|chunk| *chunk > 0 && freshest.level != 1),
            members_expected: freshest.raid_disks,
            others: others.map(str::to_owned).collect(),
            members,
        };
        let source = budget.check_time().and_then(|()| build(freshest, &places, warnings));
        array.size_bytes = source.as_ref().ok().map(|source| source.len());
        (array, source)
    }

    /// The member in each place.
    fn places(&self, freshest: &Superblock, warnings: &mut Vec<String>) -> Vec<Option<&Member>> {
        let mut places: Vec<Option<&Member>> = vec![None; freshest.raid_disks as usize];
        // A replacement counts only where the one that it replaces is not there.
        let (replacements, firsts): (Vec<_>, Vec<_>) =
            self.members.iter().partition(|member| member.superblock.is_replacement);
        for member in firsts.into_iter().chain(replacements) {
            let superblock = &member.superblock;
            let device = &member.device;
            let place = match superblock.role() {
                Role::Data(place) => place,
                Role::Journal => {
                    warnings.push(format!("{device} is its journal, which is not replayed"));
                    continue;
                }
                Role::Spare => continue,
                Role::Faulty => {
                    warnings.push(format!("{device} has failed and is left out"));
                    continue;
                }
            };
            // The kernel lets one event pass: a crash comes between the writes of two superblocks.
            let is_stale = freshest.bearable() > 0 && superblock.events.saturating_add(1) < freshest.events;
            let is_disowned = freshest.roles.get(superblock.number as usize) == Some(&Role::Faulty);
            if is_stale || is_disowned {
                warnings.push(format!(
                    "{device} is out of date and left out: it has seen {} events of {}",
                    superblock.events, freshest.events
                ));
                continue;
            }
            match places.get_mut(place as usize) {
                Some(free @ None) => *free = Some(member),
                Some(Some(taken)) if superblock.is_replacement => {
                    warnings.push(format!("{device} is to replace {} and is left out", taken.device));
                }
                Some(Some(taken)) => {
                    warnings.push(format!(
                        "{device} and {} both have place {place}, as copies of one disk do; the first is taken",
                        taken.device
                    ));
                }
                None => warnings.push(format!("{device} has place {place} of {}", freshest.raid_disks)),
            }
        }
        places
    }
}

fn build(superblock: &Superblock, places: &[Option<&Member>], warnings: &mut Vec<String>) -> Result<Source> {
    let level = superblock.level_name();
    if places.is_empty() {
        let reason = format!("it says that it has {} members", superblock.raid_disks);
        return Err(Error::corrupt("md array", 0, reason));
    }
    if superblock.is_reshaping {
        return Err(Error::unsupported(format!("an md array ({level}) that is being reshaped")));
    }
    let missing = places.iter().filter(|place| place.is_none()).count();
    if missing > superblock.bearable() as usize {
        let reason = format!("{missing} of the {} members of this {level} are missing", places.len());
        return Err(Error::corrupt("md array", 0, reason));
    }
    if missing > 0 {
        warnings.push(format!("{missing} of its {} members are missing; it is read without", places.len()));
    }
    if superblock.has_journal && !superblock.is_clean {
        warnings.push("it was not shut down cleanly, and what only its journal holds is missing".into());
    } else if missing > 0 && !superblock.is_clean && matches!(superblock.level, 4..=6) {
        warnings.push("it was not shut down cleanly, so what is computed for the missing member may be wrong".into());
    }
    let members: Vec<Option<Source>> =
        places.iter().map(|place| place.map(|member| data_of(member, superblock, warnings))).collect();
    let used = superblock.used;
    let chunk = superblock.chunk;
    match superblock.level {
        -1 => linear(places, &members, chunk),
        0 => raid0(superblock, places, &members),
        1 | -4 => Ok(Arc::new(Mirror { legs: members.into_iter().flatten().collect(), length: used })),
        4..=6 => match ParityLayout::of_md(superblock.level, superblock.layout) {
            Some(layout) => Ok(Arc::new(Parity::new(members, layout, chunk, used)?)),
            None => Err(Error::unsupported(format!("{level} layout {}", superblock.layout))),
        },
        10 => Ok(Arc::new(Raid10::new(members, superblock.layout, chunk, used)?)),
        _ => Err(Error::unsupported(format!("md level {level}"))),
    }
}

/// The part of a member that belongs to the array, without what is not to be read.
fn data_of(member: &Member, array: &Superblock, warnings: &mut Vec<String>) -> Source {
    let superblock = &member.superblock;
    let wanted = if array.used > 0 { array.used } else { superblock.data_size };
    let slice = Slice::new(Arc::clone(&member.source), superblock.data_offset, wanted);
    if slice.len() < wanted {
        let device = &member.device;
        warnings.push(format!("{device} ends {} bytes before its part of the array does", wanted - slice.len()));
    }
    // Bad blocks count from the start of the device.
    let mut bad: Vec<(u64, u64)> = superblock
        .bad
        .iter()
        .map(|(from, to)| (from.saturating_sub(superblock.data_offset), to.saturating_sub(superblock.data_offset)))
        .collect();
    if let Some(recovered) = superblock.recovered.filter(|recovered| *recovered < wanted) {
        warnings.push(format!("{} is not rebuilt yet past byte {recovered}", member.device));
        bad.push((recovered, u64::MAX));
    }
    let slice: Source = Arc::new(slice);
    if bad.is_empty() { slice } else { Arc::new(Patchy { source: slice, bad }) }
}

/// Bytes of each member that the array uses, where they may differ: whole chunks.
fn usable(places: &[Option<&Member>], chunk: u64) -> Vec<u64> {
    let whole = |size: u64| size - size.checked_rem(chunk).unwrap_or(0);
    places.iter().map(|place| place.map_or(0, |member| whole(member.superblock.data_size))).collect()
}

fn linear(places: &[Option<&Member>], members: &[Option<Source>], chunk: u64) -> Result<Source> {
    let mut parts = Vec::new();
    let mut start = 0_u64;
    for (source, length) in members.iter().flatten().zip(usable(places, chunk)) {
        parts.push(Part { start, length, source: Arc::clone(source), offset: 0 });
        start = start.saturating_add(length);
    }
    Ok(Concat::new(parts)?.into_source())
}

/// Zones: the first goes over all members as far as the smallest one reaches, the next over those that are longer, and
/// so on. Since Linux 3.14 the turn of the members starts anew with each zone; before, it went on.
fn raid0(superblock: &Superblock, places: &[Option<&Member>], members: &[Option<Source>]) -> Result<Source> {
    let chunk = superblock.chunk;
    if chunk == 0 {
        return Err(Error::corrupt("md superblock", 0, "a raid0 with chunks of 0 bytes"));
    }
    let sizes = usable(places, chunk);
    let mut ends: Vec<u64> = sizes.clone();
    ends.sort_unstable();
    ends.dedup();
    let layout = if superblock.has_raid0_layout { superblock.layout } else { 0 };
    let turns_go_on = match (ends.len(), layout) {
        (0 | 1, _) | (_, 1) => true,
        (_, 2) => false,
        // The last zone of a single member is the same in both.
        (2, _) if sizes.iter().max().is_some_and(|max| sizes.iter().filter(|size| *size == max).count() == 1) => true,
        _ => {
            let what = "an md raid0 of members of different sizes that does not record its layout";
            return Err(Error::unsupported(what));
        }
    };
    let mut parts = Vec::new();
    let (mut start, mut begin) = (0_u64, 0);
    for end in ends {
        let zone = members.iter().flatten().zip(&sizes).filter(|(_, size)| **size >= end);
        let zone: Vec<_> = zone.map(|(source, _)| (Arc::clone(source), begin)).collect();
        let length = (end - begin).checked_mul(zone.len() as u64);
        let length = length.ok_or_else(|| Error::corrupt("md array", 0, "it is longer than any device"))?;
        let shift = if turns_go_on { start / chunk } else { 0 };
        let source: Source = Arc::new(Striped { members: zone, chunk, shift, length });
        parts.push(Part { start, length, source, offset: 0 });
        start = start.saturating_add(length);
        begin = end;
    }
    Ok(Concat::new(parts)?.into_source())
}
