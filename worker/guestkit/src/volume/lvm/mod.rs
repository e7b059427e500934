//! LVM2: volume groups on physical volumes, and the bytes of each logical volume.
//!
//! A volume is made of segments, a segment of areas on physical volumes or on other volumes. What lies on volumes that
//! are missing is refused by name; everything else of the group is read.

mod btree;
mod cache;
pub(crate) mod label;
mod raid;
mod snapshot;
pub(crate) mod text;
mod thin;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::{Slice, Source};
use crate::volume::compose::{Concat, Mirror, Part, Striped, Zeros};

use self::cache::Cached;
pub(crate) use self::label::Label;
use self::label::hyphenated;
use self::raid::Leg;
use self::snapshot::Snapshot;
use self::text::{Section, Value};
use self::thin::{Pool, Thin};

const SECTOR: u64 = 512;
/// Volumes below one another: a thin volume on a pool on a cache on a RAID has seven.
const DEPTH_MAX: usize = 24;
/// Segments of all volumes that are put together; a group that is often extended has some thousands.
const SEGMENTS_MAX: usize = 1 << 20;

/// A volume group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeGroup {
    /// Its name.
    pub name: String,
    /// Its UUID as LVM prints it.
    pub uuid: String,
    /// Number of its metadata's version; each change adds one.
    pub sequence: u64,
    /// Bytes of an extent.
    pub extent_bytes: u64,
    /// Bytes of all extents.
    pub size_bytes: u64,
    /// Bytes of extents that belong to no volume.
    pub free_bytes: u64,
    /// Its physical volumes, by the name it has for them.
    pub physical_volumes: Vec<PhysicalVolume>,
    /// Its logical volumes that are meant to be seen, by name.
    pub logical_volumes: Vec<LogicalVolume>,
}

/// A physical volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhysicalVolume {
    /// The device it is on; absent where it was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its UUID as LVM prints it.
    pub uuid: String,
    /// Bytes of its extents.
    pub size_bytes: u64,
    /// The device it was last seen on by the guest: a hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_device: Option<String>,
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalVolume {
    /// Its name.
    pub name: String,
    /// Its UUID as LVM prints it.
    pub uuid: String,
    /// Its device, such as `/dev/vg/root`; absent where it cannot be read, or is a pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The type of its first segment: `linear`, `striped`, `raid1`, `thin`, `thin-pool`, `snapshot`…
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes the guest sees.
    pub size_bytes: u64,
    /// The volume that it is a snapshot of, or that it starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The pool that it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// A device with its label.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) device: String,
    pub(crate) source: Source,
    /// UUID and version of the group that its own metadata tells of.
    pub(crate) group: Option<(String, u64)>,
}

/// The newest metadata of a group.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    /// The group's UUID as it stands in the text.
    pub(crate) uuid: String,
    pub(crate) sequence: u64,
    section: Section,
}

impl Metadata {
    /// The group that a metadata text describes: its only section that has a `seqno`.
    pub(crate) fn of(root: Section) -> Option<Self> {
        let (name, section) = root.into_sections().find(|(_, section)| section.number("seqno").is_some())?;
        let (uuid, sequence) = (section.text("id")?.to_owned(), section.number("seqno")?);
        Some(Self { name, uuid, sequence, section })
    }

    /// UUIDs of its physical volumes, without hyphens as labels have them.
    pub(crate) fn physical_ids(&self) -> impl Iterator<Item = String> {
        let volumes = self.section.section("physical_volumes").into_iter().flat_map(Section::sections);
        volumes.filter_map(|(_, volume)| volume.text("id")).map(|id| id.replace('-', ""))
    }
}

/// A volume of an assembled group.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) source: Result<Source>,
    /// Devices that its bytes lie on.
    pub(crate) parents: Vec<String>,
}

/// A group put together.
#[derive(Debug)]
pub(crate) struct Assembled {
    /// What it is; its volumes' devices are not filled in.
    pub(crate) group: VolumeGroup,
    /// Its volumes that have a device, by name.
    pub(crate) volumes: Vec<Volume>,
    pub(crate) warnings: Vec<String>,
}

/// Puts the group of `metadata` together from `members`, by the UUIDs of their labels.
///
/// # Errors
/// [`Error::Corrupt`] where the metadata has no extents; limits. A volume that fails is its own.
pub(crate) fn assemble(
    metadata: &Metadata,
    members: &BTreeMap<String, Member>,
    budget: &Arc<Budget>,
) -> Result<Assembled> {
    let section = &metadata.section;
    let extent = section.number("extent_size").and_then(|sectors| sectors.checked_mul(SECTOR));
    let extent = extent.filter(|extent| *extent > 0);
    let extent = extent.ok_or_else(|| Error::corrupt("LVM2 volume group", 0, "its extents have no size"))?;
    let mut builder = Builder {
        extent,
        physical: BTreeMap::new(),
        logical: HashMap::new(),
        snapshots: HashMap::new(),
        merging: HashMap::new(),
        built: HashMap::new(),
        pools: HashMap::new(),
        stack: Vec::new(),
        used: BTreeSet::new(),
        warnings: Vec::new(),
        segments: 0,
        budget,
    };
    let mut group = VolumeGroup {
        name: metadata.name.clone(),
        uuid: metadata.uuid.clone(),
        sequence: metadata.sequence,
        extent_bytes: extent,
        size_bytes: 0,
        free_bytes: 0,
        physical_volumes: Vec::new(),
        logical_volumes: Vec::new(),
    };
    for (name, volume) in section.section("physical_volumes").into_iter().flat_map(Section::sections) {
        let uuid = volume.text("id").unwrap_or_default();
        let member = members.get(&uuid.replace('-', ""));
        let size = volume.number("pe_count").unwrap_or(0).saturating_mul(extent);
        let last_device = volume.text("device").map(str::to_owned);
        group.size_bytes = group.size_bytes.saturating_add(size);
        let start = volume.number("pe_start").unwrap_or(0).saturating_mul(SECTOR);
        builder.physical.insert(
            name,
            Physical {
                uuid: uuid.to_owned(),
                last_device: last_device.clone(),
                device: member.map(|member| member.device.clone()),
                source: member.map(|member| Arc::clone(&member.source)),
                start,
            },
        );
        let device = member.map(|member| member.device.clone());
        group.physical_volumes.push(PhysicalVolume { device, uuid: uuid.to_owned(), size_bytes: size, last_device });
    }
    let logical = section.section("logical_volumes");
    builder.logical = logical.into_iter().flat_map(Section::sections).collect();
    builder.find_snapshots();
    group.free_bytes = group.size_bytes.saturating_sub(builder.allocated());
    let mut volumes = Vec::new();
    let stores: BTreeSet<&str> =
        builder.merging.values().filter_map(|snapshot| snapshot.text("merging_store")).collect();
    let visible = builder.visible();
    let bound = budget.limits().devices;
    if visible.len() > bound as usize {
        return Err(Error::LimitReached { which: Limit::Devices, value: u64::from(bound) });
    }
    for (name, logical) in visible {
        budget.check_time()?;
        let described = builder.describe(name, logical);
        let is_pool = matches!(described.kind.as_str(), "thin-pool" | "cache-pool" | "vdo-pool");
        // The store of a snapshot that goes back into its origin is no device any more.
        let has_device = !is_pool && !stores.contains(name);
        group.logical_volumes.push(described);
        if !has_device {
            continue;
        }
        builder.used.clear();
        let source = builder.device(name);
        if let Err(error) = &source
            && error.is_budget_exhausted()
        {
            return source.map(|_| Assembled { group, volumes, warnings: Vec::new() });
        }
        volumes.push(Volume { name: name.to_owned(), source, parents: builder.used.iter().cloned().collect() });
    }
    builder.warnings.dedup();
    Ok(Assembled { group, volumes, warnings: builder.warnings })
}

struct Physical {
    uuid: String,
    last_device: Option<String>,
    device: Option<String>,
    source: Option<Source>,
    /// Where its first extent lies.
    start: u64,
}

/// A built volume, and the devices that its bytes lie on.
type Built = (Source, BTreeSet<String>);

struct Builder<'a> {
    extent: u64,
    physical: BTreeMap<&'a str, Physical>,
    logical: HashMap<&'a str, &'a Section>,
    /// Snapshots by the volume that is their store.
    snapshots: HashMap<&'a str, &'a Section>,
    /// Snapshots that go back into their origin, by the origin.
    merging: HashMap<&'a str, &'a Section>,
    built: HashMap<String, Built>,
    pools: HashMap<String, (Arc<Pool>, BTreeSet<String>)>,
    /// Names of the volumes that are being built, each for the one before.
    stack: Vec<String>,
    /// Devices that the volume being built lies on.
    used: BTreeSet<String>,
    warnings: Vec<String>,
    segments: usize,
    budget: &'a Arc<Budget>,
}

/// The segments of a volume, without those of other sections.
fn segments(volume: &Section) -> impl Iterator<Item = &Section> {
    volume.sections().filter(|(name, _)| name.starts_with("segment")).map(|(_, section)| section)
}

/// The type of a segment without the flags that old versions of LVM must not overlook.
fn kind(segment: &Section) -> &str {
    segment.text("type").and_then(|kind| kind.split('+').next()).unwrap_or_default()
}

fn missing(what: &str) -> Error {
    Error::corrupt("LVM2 metadata text", 0, format!("a segment has no {what}"))
}

impl<'a> Builder<'a> {
    /// The volumes that are meant to be seen, by name.
    fn visible(&self) -> Vec<(&'a str, &'a Section)> {
        let is_marked = |volume: &Section| volume.texts("status").any(|flag| flag == "VISIBLE");
        let is_snapshot = |volume: &Section| segments(volume).next().is_some_and(|first| kind(first) == "snapshot");
        // A snapshot is seen under the name of its store; the volume that is marked in its place tells what it is of.
        let is_visible = |name: &str, volume: &Section| {
            (is_marked(volume) && !is_snapshot(volume)) || self.snapshots.contains_key(name)
        };
        let mut volumes: Vec<_> = self.logical.iter().filter(|(name, volume)| is_visible(name, volume)).collect();
        volumes.sort_unstable_by_key(|(name, _)| **name);
        volumes.into_iter().map(|(name, volume)| (*name, *volume)).collect()
    }

    /// Bytes of extents that belong to a volume.
    fn allocated(&self) -> u64 {
        let mut extents = 0_u64;
        for segment in self.logical.values().flat_map(|volume| segments(volume)) {
            let count = segment.number("extent_count").unwrap_or(0);
            let of_stripe = count.checked_div(segment.number("stripe_count").unwrap_or(1)).unwrap_or(0);
            for (list, each) in [("stripes", of_stripe), ("mirrors", count)] {
                let areas = segment.texts(list).filter(|name| self.physical.contains_key(name)).count();
                extents = extents.saturating_add(each.saturating_mul(areas as u64));
            }
        }
        extents.saturating_mul(self.extent)
    }

    fn describe(&self, name: &str, volume: &Section) -> LogicalVolume {
        let first = segments(volume).next();
        let snapshot = self.snapshots.get(name).copied();
        let kind = match (snapshot, first) {
            (Some(_), _) => "snapshot",
            (None, Some(first)) => match kind(first) {
                "striped" if first.number("stripe_count") == Some(1) => "linear",
                kind => kind,
            },
            (None, None) => "",
        };
        let extents = match snapshot {
            Some(snapshot) => snapshot.number("extent_count").unwrap_or(0),
            None => segments(volume).filter_map(|segment| segment.number("extent_count")).fold(0, u64::saturating_add),
        };
        let of_first = |key| first.and_then(|first| first.text(key)).map(str::to_owned);
        LogicalVolume {
            name: name.to_owned(),
            uuid: volume.text("id").unwrap_or_default().to_owned(),
            device: None,
            kind: kind.to_owned(),
            size_bytes: extents.saturating_mul(self.extent),
            origin: match snapshot {
                Some(snapshot) => snapshot.text("origin").map(str::to_owned),
                None if kind == "thin" => of_first("origin").or_else(|| of_first("external_origin")),
                None => None,
            },
            pool: of_first("thin_pool"),
        }
    }

    /// Each snapshot is told of by a hidden volume.
    fn find_snapshots(&mut self) {
        for segment in self.logical.values().flat_map(|volume| segments(volume)) {
            if kind(segment) == "snapshot" {
                self.snapshots.extend(segment.text("cow_store").map(|store| (store, segment)));
                if let (Some(origin), Some(_)) = (segment.text("origin"), segment.text("merging_store")) {
                    self.merging.insert(origin, segment);
                }
            }
        }
    }

    /// What the guest sees under the name of a volume.
    fn device(&mut self, name: &str) -> Result<Source> {
        if let Some(snapshot) = self.snapshots.get(name).copied() {
            let origin = snapshot.text("origin").ok_or_else(|| missing("origin"))?;
            return self.snapshot(snapshot, origin, name);
        }
        // While a snapshot goes back into its origin, the guest sees what will be there in the end.
        if let Some(snapshot) = self.merging.get(name).copied() {
            let store = snapshot.text("merging_store").ok_or_else(|| missing("merging_store"))?;
            return self.snapshot(snapshot, name, store);
        }
        self.build(name)
    }

    fn snapshot(&mut self, segment: &Section, origin: &str, store: &str) -> Result<Source> {
        let (origin, store) = (self.build(origin)?, self.build(store)?);
        let extents = segment.number("extent_count").unwrap_or(0);
        let length = extents.saturating_mul(self.extent).min(origin.len());
        Ok(Arc::new(Snapshot::open(origin, store, length, self.budget)?))
    }

    /// The bytes of a volume as its segments say.
    fn build(&mut self, name: &str) -> Result<Source> {
        if let Some((source, used)) = self.built.get(name) {
            self.used.extend(used.iter().cloned());
            return Ok(Arc::clone(source));
        }
        if self.stack.iter().any(|above| above == name) || self.stack.len() >= DEPTH_MAX {
            let reason = format!("volume {name} lies upon itself, or too deep");
            return Err(Error::corrupt("LVM2 volume group", 0, reason));
        }
        let not_there = || Error::corrupt("LVM2 volume group", 0, format!("it has no volume {name}"));
        let volume = *self.logical.get(name).ok_or_else(not_there)?;
        self.stack.push(name.to_owned());
        let above = std::mem::take(&mut self.used);
        let built = self.join(volume);
        self.stack.pop();
        let used = std::mem::replace(&mut self.used, above);
        self.used.extend(used.iter().cloned());
        let source = built?;
        self.built.insert(name.to_owned(), (Arc::clone(&source), used));
        Ok(source)
    }

    fn join(&mut self, volume: &'a Section) -> Result<Source> {
        let mut parts = Vec::new();
        for segment in segments(volume) {
            self.segments += 1;
            if self.segments > SEGMENTS_MAX {
                return Err(Error::corrupt(
                    "LVM2 volume group",
                    0,
                    format!("it has more than {SEGMENTS_MAX} segments"),
                ));
            }
            self.budget.check_time()?;
            let place = |key| segment.number(key).and_then(|extents| extents.checked_mul(self.extent));
            let start = place("start_extent").ok_or_else(|| missing("start_extent"))?;
            let length = place("extent_count").ok_or_else(|| missing("extent_count"))?;
            let source = self.segment(segment, length)?;
            parts.push(Part { start, length, source, offset: 0 });
        }
        Ok(Concat::new(parts)?.into_source())
    }

    fn segment(&mut self, segment: &'a Section, length: u64) -> Result<Source> {
        let kind = kind(segment);
        let bytes = |key| segment.number(key).unwrap_or(0).saturating_mul(SECTOR);
        match kind {
            "striped" | "linear" => self.striped(segment, length),
            "mirror" => self.mirror(segment, length),
            "zero" => Ok(Arc::new(Zeros(length))),
            "thin" => self.thin(segment, length),
            "cache" => self.cache(segment),
            _ if kind.starts_with("raid") => {
                let legs = self.legs(segment)?;
                let copies = segment.number("data_copies").and_then(|copies| u32::try_from(copies).ok()).unwrap_or(2);
                let mut warnings = Vec::new();
                let source = raid::build(kind, &legs, bytes("stripe_size"), copies, length, &mut warnings);
                self.warnings.append(&mut warnings);
                source
            }
            _ => Err(Error::unsupported(format!("LVM segment type {kind}"))),
        }
    }

    /// An area: `length` bytes of a physical or another logical volume from extent `first` on.
    fn area(&mut self, name: &str, first: u64, length: u64) -> Result<Source> {
        let start = first.saturating_mul(self.extent);
        let Some(physical) = self.physical.get(name) else {
            let volume = self.build(name)?;
            return cut(volume, start, length, name);
        };
        let Some(source) = &physical.source else {
            let hint = physical.last_device.as_ref().map(|device| format!(", last seen as {device}"));
            let reason = format!("physical volume {}{} is missing", physical.uuid, hint.unwrap_or_default());
            return Err(Error::corrupt("LVM2 volume group", 0, reason));
        };
        self.used.extend(physical.device.clone());
        cut(Arc::clone(source), physical.start.saturating_add(start), length, name)
    }

    fn striped(&mut self, segment: &Section, length: u64) -> Result<Source> {
        let areas = pairs(segment.list("stripes"))?;
        let count = areas.len() as u64;
        let each = length.checked_div(count).ok_or_else(|| missing("stripes"))?;
        if let [(name, first)] = areas.as_slice() {
            return self.area(name, *first, length);
        }
        let chunk = segment.number("stripe_size").unwrap_or(0).saturating_mul(SECTOR);
        if chunk == 0 {
            return Err(missing("stripe_size"));
        }
        let members = areas.iter().map(|(name, first)| Ok((self.area(name, *first, each)?, 0)));
        let members = members.collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Striped { members, chunk, shift: 0, length }))
    }

    fn mirror(&mut self, segment: &Section, length: u64) -> Result<Source> {
        let mut legs = Vec::new();
        let mut first_error = None;
        for (name, first) in pairs(segment.list("mirrors"))? {
            match self.area(name, first, length) {
                Ok(leg) => legs.push(leg),
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Err(error) => {
                    if legs.is_empty() {
                        // The first leg is the one that the others are copied from.
                        self.warnings
                            .push(format!("the first leg of a mirror, {name}, cannot be read; others may be older"));
                    }
                    first_error = first_error.or(Some(error));
                }
            }
        }
        match first_error {
            Some(error) if legs.is_empty() => Err(error),
            None if legs.is_empty() => Err(missing("mirrors")),
            _ => Ok(Arc::new(Mirror { legs, length })),
        }
    }

    /// Images with their metadata volumes before them; raid0 has only images.
    fn legs(&mut self, segment: &'a Section) -> Result<Vec<Leg>> {
        let names: Vec<&str> = segment.texts("raids").chain(segment.texts("raid0_lvs")).collect();
        let mut legs = Vec::new();
        let mut metadata = None;
        for name in names {
            let volume = self.build(name);
            if name.contains("_rmeta_") {
                metadata = volume.ok();
                continue;
            }
            let image = match volume {
                Ok(image) => Some(image),
                Err(error) if error.is_budget_exhausted() => return Err(error),
                // What cannot be read at all is another matter than a disk that is missing.
                Err(error @ Error::Unsupported { .. }) => return Err(error),
                Err(error) => {
                    self.warnings.push(format!("{name}: {error}"));
                    None
                }
            };
            let flags = self.logical.get(name).map(|image| image.list("status")).unwrap_or_default();
            let is_rebuilding = flags.iter().any(|flag| flag.text() == Some("LV_REBUILD"));
            legs.push(Leg { name: name.to_owned(), image, metadata: metadata.take(), is_rebuilding });
        }
        Ok(legs)
    }

    fn pool(&mut self, name: &str) -> Result<Arc<Pool>> {
        if let Some((pool, used)) = self.pools.get(name) {
            self.used.extend(used.iter().cloned());
            return Ok(Arc::clone(pool));
        }
        let segment = self.logical.get(name).and_then(|volume| segments(volume).next());
        let segment = segment.filter(|segment| kind(segment) == "thin-pool");
        let segment =
            segment.ok_or_else(|| Error::corrupt("LVM2 volume group", 0, format!("{name} is no thin pool")))?;
        let above = std::mem::take(&mut self.used);
        let opened = (|| {
            let metadata = self.build(segment.text("metadata").ok_or_else(|| missing("metadata"))?)?;
            let data = self.build(segment.text("pool").ok_or_else(|| missing("pool"))?)?;
            Pool::open(metadata, data, segment.number("transaction_id"), Arc::clone(self.budget))
        })();
        let used = std::mem::replace(&mut self.used, above);
        self.used.extend(used.iter().cloned());
        let pool = Arc::new(opened?);
        self.warnings.extend(pool.warnings.iter().map(|warning| format!("{name}: {warning}")));
        self.pools.insert(name.to_owned(), (Arc::clone(&pool), used));
        Ok(pool)
    }

    fn thin(&mut self, segment: &Section, length: u64) -> Result<Source> {
        let pool = self.pool(segment.text("thin_pool").ok_or_else(|| missing("thin_pool"))?)?;
        let id = segment.number("device_id").ok_or_else(|| missing("device_id"))?;
        let origin = segment.text("external_origin").map(|origin| self.build(origin)).transpose()?;
        Ok(Arc::new(Thin::open(pool, id, length, origin)?))
    }

    fn cache(&mut self, segment: &'a Section) -> Result<Source> {
        let origin = self.build(segment.text("origin").ok_or_else(|| missing("origin"))?)?;
        let pool = segment.text("cache_pool").ok_or_else(|| missing("cache_pool"))?;
        let of_pool = self.logical.get(pool).and_then(|volume| segments(volume).next());
        let of_pool = of_pool.filter(|segment| kind(segment) == "cache-pool");
        // With "cachevol" one plain volume holds both, and the mode stands with the cached volume.
        let mode = of_pool.unwrap_or(segment).text("cache_mode").unwrap_or("writethrough");
        if mode != "writeback" {
            return Ok(origin);
        }
        let (metadata, data) = match of_pool {
            Some(of_pool) => {
                let metadata = self.build(of_pool.text("metadata").ok_or_else(|| missing("metadata"))?)?;
                (metadata, self.build(of_pool.text("data").ok_or_else(|| missing("data"))?)?)
            }
            None => {
                let volume = self.build(pool)?;
                let part = |start, length| {
                    let sectors = |key| segment.number(key).map(|count| count.saturating_mul(SECTOR));
                    let (start, length) = (sectors(start).ok_or_else(|| missing(start)), sectors(length));
                    cut(Arc::clone(&volume), start?, length.ok_or_else(|| missing(pool))?, pool)
                };
                (part("metadata_start", "metadata_len")?, part("data_start", "data_len")?)
            }
        };
        Ok(Arc::new(Cached::open(origin, metadata, data, self.budget)?))
    }
}

/// `length` bytes of `source` from `start` on, which must be there.
fn cut(source: Source, start: u64, length: u64, name: &str) -> Result<Source> {
    if start == 0 && length == source.len() {
        return Ok(source);
    }
    match start.checked_add(length) {
        // A partition that was made smaller, or a disk cut short: what is there can be read all the same.
        Some(_) if start < source.len() => Ok(Arc::new(Slice::new(source, start, length))),
        _ => Err(Error::corrupt("LVM2 volume group", start, format!("{length} bytes there leave {name}"))),
    }
}

/// Names and numbers of extents in turn.
fn pairs(list: &[Value]) -> Result<Vec<(&str, u64)>> {
    let mut areas = Vec::new();
    for pair in list.chunks(2) {
        match pair {
            [Value::Text(name), first] => areas.push((name.as_str(), first.number().ok_or_else(|| missing("extent"))?)),
            _ => return Err(missing("pairs of area and extent")),
        }
    }
    Ok(areas)
}

/// The UUID of a label as LVM prints it.
pub(crate) fn printed(id: &str) -> String {
    hyphenated(id).unwrap_or_else(|| id.to_owned())
}
