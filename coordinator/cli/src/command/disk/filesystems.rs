//! `local filesystems`: what is on the disks, in the words of blkid, sfdisk and qemu-img, laid out as virt-filesystems does.

use guestkit::filesystem::Usage;
use guestkit::partition::{Layout, Partition, TableKind};
use guestkit::{Device, DeviceKind, Disk, Drive};
use serde_json::{Map, Value, json};

use super::{lossy, open};
use crate::args::{Listed, LocalFilesystems};
use crate::failure::Failure;
use crate::output::{Output, write};
use crate::table::{Sheet, Text, plain};

/// Lists what is on disk images.
pub(crate) fn filesystems(output: &Output, args: &LocalFilesystems) -> Result<(), Failure> {
    if args.csv && !output.is_plain() {
        return Err(Failure::usage("--csv: standard output is a document already"));
    }
    let images: Vec<_> = args.images.iter().chain(&args.add).cloned().collect();
    let disk = open(&images, &args.opening)?;
    for warning in disk.warnings() {
        output.note(&format!("{}: {}: {}", warning.device, warning.what, warning.why));
    }
    let listed = whole(args.listed);
    if !output.is_plain() {
        return output.document(|| document(&disk, listed), Sheet::default);
    }
    let rows = rows(&disk, listed);
    let columns = columns(args, listed);
    if args.csv {
        let titles = args.long.then(|| columns.iter().map(|column| column.title().to_owned()).collect());
        let lines = titles.filter(|_| !args.no_title).into_iter();
        let lines = lines.chain(rows.iter().map(|row| columns.iter().map(|column| row.field(*column, args)).collect()));
        return lines.collect::<Vec<Vec<String>>>().iter().try_for_each(|line| write(&csv_line(line)));
    }
    if columns == [Column::Name] {
        return rows.iter().try_for_each(|row| write(&format!("{}\n", plain(&row.name))));
    }
    let titles: Vec<_> = columns.iter().filter(|_| args.long && !args.no_title).map(|column| column.title()).collect();
    let cell = |row: &Row, column: &Column| match column {
        Column::Size => Text::number(row.field(*column, args)),
        _ => Text::new(row.field(*column, args)),
    };
    let cells = rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()).collect();
    output.document(|| Value::Null, || Sheet::default().grid(&titles, cells))
}

/// Everything that is chosen, spelled out.
fn whole(listed: Listed) -> Listed {
    let Listed { all, extra, partitions, block_devices, logical_volumes, volume_groups, physical_volumes, .. } = listed;
    let is_nothing = !(all || partitions || block_devices || logical_volumes || volume_groups || physical_volumes);
    Listed {
        all,
        filesystems: listed.filesystems || all || extra || is_nothing,
        extra: extra || all,
        partitions: partitions || all,
        block_devices: block_devices || all,
        logical_volumes: logical_volumes || all,
        volume_groups: volume_groups || all,
        physical_volumes: physical_volumes || all,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    Type,
    Vfs,
    Label,
    Mbr,
    Size,
    Parent,
    Uuid,
}

impl Column {
    /// As virt-filesystems(1) calls it.
    const fn title(self) -> &'static str {
        match self {
            Self::Name => "Name",
            Self::Type => "Type",
            Self::Vfs => "VFS",
            Self::Label => "Label",
            Self::Mbr => "MBR",
            Self::Size => "Size",
            Self::Parent => "Parent",
            Self::Uuid => "UUID",
        }
    }
}

/// The columns for what is listed, as virt-filesystems chooses them.
fn columns(args: &LocalFilesystems, listed: Listed) -> Vec<Column> {
    let is_made_of_others = listed.partitions || listed.block_devices || listed.logical_volumes || listed.volume_groups;
    [
        (Column::Name, true),
        (Column::Type, args.long),
        (Column::Vfs, args.long),
        (Column::Label, args.long),
        (Column::Mbr, args.long && listed.partitions),
        (Column::Size, args.long),
        (Column::Parent, args.long && is_made_of_others),
        (Column::Uuid, args.long || args.uuids),
    ]
    .into_iter()
    .filter_map(|(column, is_shown)| is_shown.then_some(column))
    .collect()
}

/// One thing that lies on the disks.
#[derive(Debug, Default)]
struct Row {
    name: String,
    kind: &'static str,
    vfs: String,
    label: String,
    mbr: String,
    size: Option<u64>,
    parents: Vec<String>,
    uuid: String,
}

impl Row {
    fn new(name: &str, kind: &'static str, size: u64) -> Self {
        Self { name: name.to_owned(), kind, size: Some(size), ..Self::default() }
    }

    fn field(&self, column: Column, args: &LocalFilesystems) -> String {
        match column {
            Column::Name => self.name.clone(),
            Column::Type => self.kind.to_owned(),
            Column::Vfs => self.vfs.clone(),
            Column::Label => self.label.clone(),
            Column::Mbr => self.mbr.clone(),
            Column::Size => match self.size {
                Some(size) if args.human_readable => human_readable(size),
                size => size.map(|size| size.to_string()).unwrap_or_default(),
            },
            Column::Parent => self.parents.join(","),
            Column::Uuid => self.uuid.clone(),
        }
    }
}

/// A row for each, what is most specific first.
fn rows(disk: &Disk, listed: Listed) -> Vec<Row> {
    let mut rows = Vec::new();
    if listed.filesystems {
        for device in disk.devices().iter().filter(|device| is_listed(device, listed)) {
            rows.extend(content_rows(disk, device));
        }
    }
    let groups = disk.volume_groups();
    if listed.logical_volumes {
        for (group, volume) in groups.iter().flat_map(|group| group.logical_volumes.iter().map(move |one| (group, one)))
        {
            let folder = format!("/dev/{}", group.name);
            let name = volume.device.clone().unwrap_or_else(|| format!("{folder}/{}", volume.name));
            rows.push(Row {
                parents: vec![folder],
                uuid: volume.uuid.clone(),
                ..Row::new(&name, "lv", volume.size_bytes)
            });
        }
    }
    if listed.volume_groups {
        rows.extend(groups.iter().map(|group| {
            let members = &group.physical_volumes;
            Row {
                // A member that is missing is told by its UUID.
                parents: members.iter().map(|one| one.device.clone().unwrap_or_else(|| one.uuid.clone())).collect(),
                uuid: group.uuid.clone(),
                ..Row::new(&format!("/dev/{}", group.name), "vg", group.size_bytes)
            }
        }));
    }
    if listed.physical_volumes {
        for device in disk.devices().iter().filter(|device| is_physical_volume(device)) {
            let mut row = Row { kind: "pv", ..content_row(device) };
            row.parents.clear();
            rows.push(row);
        }
    }
    if listed.partitions {
        rows.extend(partition_rows(disk));
    }
    if listed.block_devices {
        rows.extend(block_device_rows(disk));
    }
    rows
}

/// Whether files can lie on it; what is recognised as something else, and what is not recognised, is extra. A physical
/// volume is listed as such.
fn is_listed(device: &Device, listed: Listed) -> bool {
    holds_files(device) || listed.extra && !is_physical_volume(device)
}

fn holds_files(device: &Device) -> bool {
    device.probe.as_ref().is_some_and(|probe| probe.usage == Usage::FileSystem)
}

fn is_physical_volume(device: &Device) -> bool {
    device.probe.as_ref().is_some_and(|probe| probe.kind == "LVM2_member")
}

/// What lies on a device. The parents of a partition and a logical volume stand in their own rows.
fn content_row(device: &Device) -> Row {
    let probe = device.probe.as_ref();
    let is_member = probe.is_some_and(|probe| probe.usage == Usage::Volume);
    let is_made = matches!(device.kind, DeviceKind::Raid | DeviceKind::Crypt);
    Row {
        vfs: probe.map_or("unknown", |probe| probe.kind).to_owned(),
        label: probe.and_then(|probe| probe.label.clone()).unwrap_or_default(),
        parents: if is_made { device.parents.clone() } else { Vec::new() },
        uuid: probe.and_then(|probe| probe.uuid.clone()).unwrap_or_default(),
        ..Row::new(&device.name, if is_member { "member" } else { "filesystem" }, device.size_bytes)
    }
}

/// The same, and the subvolumes that it holds beside the one that is mounted when none is named.
fn content_rows(disk: &Disk, device: &Device) -> Vec<Row> {
    let mut rows = vec![content_row(device)];
    for path in subvolumes(disk, device) {
        rows.push(Row {
            name: format!("btrfsvol:{}/{path}", device.name),
            kind: "filesystem",
            vfs: "btrfs".to_owned(),
            ..Row::default()
        });
    }
    rows
}

/// Paths of the subvolumes beside the default one and the top level.
fn subvolumes(disk: &Disk, device: &Device) -> Vec<String> {
    let is_btrfs = device.probe.as_ref().is_some_and(|probe| probe.kind == "btrfs") && device.holders.is_empty();
    let Some(file_system) = is_btrfs.then(|| disk.mount(device).ok()).flatten() else { return Vec::new() };
    let others = file_system.subvolumes().unwrap_or_default().into_iter();
    let others = others.filter(|one| !one.path.is_empty() && one.root != file_system.root());
    others.map(|one| lossy(&one.path)).collect()
}

fn partition_rows(disk: &Disk) -> Vec<Row> {
    let mut rows = Vec::new();
    for drive in disk.drives() {
        for partition in drive.partition_table().map(|table| table.partitions.as_slice()).unwrap_or_default() {
            let is_mbr = drive.partition_table().is_some_and(|table| table.kind == TableKind::Mbr);
            rows.push(partition_row(&partition_name(drive, partition), &drive.name, partition, is_mbr));
        }
    }
    // Of what was put together: an array can be partitioned.
    for device in disk.devices() {
        if let (Some(partition), [parent]) = (&device.partition, device.parents.as_slice())
            && !disk.drives().iter().any(|drive| drive.name == *parent)
        {
            rows.push(partition_row(&device.name, parent, partition, partition.type_id.len() <= 2));
        }
    }
    rows
}

fn partition_name(drive: &Drive, partition: &Partition) -> String {
    format!("{}{}", drive.name, partition.number)
}

fn partition_row(name: &str, parent: &str, partition: &Partition, is_mbr: bool) -> Row {
    Row {
        label: partition.label.clone().unwrap_or_default(),
        mbr: if is_mbr { format!("{:0>2}", partition.type_id) } else { String::new() },
        parents: vec![parent.to_owned()],
        uuid: partition.uuid.clone().unwrap_or_default(),
        ..Row::new(name, "partition", partition.size_bytes)
    }
}

/// Disks, with what blkid says of their tables; arrays; opened encrypted volumes.
fn block_device_rows(disk: &Disk) -> Vec<Row> {
    let mut rows: Vec<Row> = disk
        .drives()
        .iter()
        .map(|drive| Row {
            vfs: table_name(&drive.layout).unwrap_or_default().to_owned(),
            uuid: drive.partition_table().and_then(|table| table.id.clone()).unwrap_or_default(),
            ..Row::new(&drive.name, "device", drive.source().len())
        })
        .collect();
    rows.extend(disk.arrays().iter().filter_map(|array| {
        let name = array.device.as_ref()?;
        let size = array.size_bytes.unwrap_or(0);
        Some(Row { parents: array.members.clone(), ..Row::new(name, "device", size) })
    }));
    let crypt = disk.devices().iter().filter(|device| device.kind == DeviceKind::Crypt);
    rows.extend(
        crypt.map(|device| Row {
            parents: device.parents.clone(),
            ..Row::new(&device.name, "device", device.size_bytes)
        }),
    );
    rows
}

const fn table_name(layout: &Layout) -> Option<&'static str> {
    match layout {
        Layout::Table(table) => Some(table.kind.name()),
        Layout::Unread(kind) => Some(kind),
        Layout::Nothing => None,
    }
}

/// To the nearest, as virt-filesystems does: `512`, `1.5K`, `20G`.
fn human_readable(bytes: u64) -> String {
    let rounded = |shift: u32| (u128::from(bytes) * 10 + (1_u128 << shift >> 1)) >> shift;
    for (index, unit) in ["", "K", "M", "G", "T", "P", "E"].into_iter().enumerate() {
        let shift = u32::try_from(index * 10).unwrap_or(0);
        let whole = (u128::from(bytes) + (1_u128 << shift >> 1)) >> shift;
        if index == 0 && whole < 1024 {
            return whole.to_string();
        }
        if rounded(shift) < 100 && index > 0 {
            return format!("{}.{}{unit}", rounded(shift) / 10, rounded(shift) % 10);
        }
        if whole < 1024 {
            return format!("{whole}{unit}");
        }
    }
    bytes.to_string()
}

/// Quoted where the value needs it (RFC 4180, and blanks as virt-filesystems does).
fn csv_line(fields: &[String]) -> String {
    let quoted = fields.iter().map(|field| match field.contains([' ', '"', '\n', '\r', ',']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.clone(),
    });
    quoted.collect::<Vec<_>>().join(",") + "\n"
}

fn document(disk: &Disk, listed: Listed) -> Value {
    let mut document = Map::new();
    if listed.block_devices || listed.partitions {
        document.insert("disks".to_owned(), disk.drives().iter().map(drive_document).collect());
    }
    if listed.block_devices {
        document.insert("arrays".to_owned(), json!(disk.arrays()));
    }
    if listed.logical_volumes || listed.volume_groups || listed.physical_volumes {
        document.insert("volume_groups".to_owned(), json!(disk.volume_groups()));
    }
    if listed.filesystems {
        let shown = disk.devices().iter().filter(|device| listed.extra || holds_files(device));
        document.insert("filesystems".to_owned(), shown.map(|device| device_document(disk, device)).collect());
    }
    Value::Object(document)
}

/// `qemu-img info` and `sfdisk -J` of one disk.
fn drive_document(drive: &Drive) -> Value {
    let mut document = Map::new();
    document.insert("device".to_owned(), drive.name.as_str().into());
    if let Some((top, below)) = drive.image.layers().split_first() {
        document.insert("path".to_owned(), top.path.display().to_string().into());
        document.insert("format".to_owned(), top.format.name().into());
        document.insert("virtual_size_bytes".to_owned(), top.virtual_size_bytes.into());
        document.insert("file_size_bytes".to_owned(), top.file_size_bytes.into());
        document.insert("allocated_bytes".to_owned(), top.allocated_bytes.into());
        if let Some(bytes) = top.cluster_size_bytes {
            document.insert("cluster_size_bytes".to_owned(), bytes.into());
        }
        if !below.is_empty() {
            let chain = below.iter().map(|layer| {
                json!({ "path": layer.path.display().to_string(), "format": layer.format.name(),
                        "virtual_size_bytes": layer.virtual_size_bytes })
            });
            document.insert("backing_chain".to_owned(), chain.collect());
        }
    }
    if let Some(table) = drive.partition_table() {
        let partitions = table.partitions.iter().map(|partition| {
            let mut document = json!({
                "device": partition_name(drive, partition),
                "start_bytes": partition.start_bytes,
                "size_bytes": partition.size_bytes,
                "type": partition.type_id,
                "bootable": partition.bootable,
            });
            for (name, value) in [("uuid", &partition.uuid), ("label", &partition.label)] {
                if let Some(value) = value {
                    document[name] = value.as_str().into();
                }
            }
            document
        });
        let mut table_document = json!({
            "type": table.kind.name(),
            "sector_size_bytes": table.sector_bytes,
            "partitions": partitions.collect::<Vec<_>>(),
        });
        if let Some(id) = &table.id {
            table_document["uuid"] = id.as_str().into();
        }
        document.insert("partition_table".to_owned(), table_document);
    } else if let Some(kind) = table_name(&drive.layout) {
        document.insert("partition_table".to_owned(), json!({ "type": kind }));
    }
    Value::Object(document)
}

/// `blkid` of one device, and how much of it is in use where its files can be read.
fn device_document(disk: &Disk, device: &Device) -> Value {
    let mut document = json!({ "device": device.name, "kind": device.kind.name(), "size_bytes": device.size_bytes });
    for (name, others) in [("parents", &device.parents), ("holders", &device.holders)] {
        if !others.is_empty() {
            document[name] = json!(others);
        }
    }
    if let Some(probe) = &device.probe {
        document["type"] = probe.kind.into();
        for (name, value) in [("label", &probe.label), ("uuid", &probe.uuid)] {
            if let Some(value) = value {
                document[name] = value.as_str().into();
            }
        }
    }
    if let Some(partition) = &device.partition {
        for (name, value) in [("partition_uuid", &partition.uuid), ("partition_label", &partition.label)] {
            if let Some(value) = value {
                document[name] = value.as_str().into();
            }
        }
    }
    if holds_files(device) && device.holders.is_empty() {
        match disk.mount(device) {
            Ok(file_system) => {
                let info = file_system.info();
                document["filesystem_size_bytes"] = info.size_bytes.into();
                document["filesystem_free_bytes"] = info.free_bytes.into();
                document["readable"] = true.into();
                let subvolumes = subvolumes(disk, device);
                if !subvolumes.is_empty() {
                    document["subvolumes"] = json!(subvolumes);
                }
            }
            Err(error) => {
                document["readable"] = false.into();
                document["why"] = error.with_causes().into();
            }
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_to_the_nearest() {
        for (bytes, expected) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (10_188, "9.9K"),
            (10_200, "10K"),
            (104_857_600, "100M"),
            (1_048_575, "1.0M"),
            (524_288_000, "500M"),
            (10_212_081_664, "9.5G"),
            (20 << 30, "20G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(human_readable(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn values_are_quoted_where_it_matters() {
        assert_eq!(csv_line(&["a".into(), String::new(), "b c".into(), "d\"e,".into()]), "a,,\"b c\",\"d\"\"e,\"\n");
    }
}
