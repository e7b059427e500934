//! `local filesystems`: what is on the disks, in the words of blkid, sfdisk and qemu-img.

use guestkit::filesystem::Usage;
use guestkit::{Device, Disk, Drive};
use serde_json::{Map, Value, json};

use super::open;
use crate::args::LocalFilesystems;
use crate::failure::Failure;
use crate::output::{Output, write};
use crate::table::{Sheet, Text};

/// Lists what is on disk images.
pub(crate) fn filesystems(output: &Output, args: &LocalFilesystems) -> Result<(), Failure> {
    let images: Vec<_> = args.images.iter().chain(&args.add).cloned().collect();
    let disk = open(&images, &args.opening)?;
    for warning in disk.warnings() {
        output.note(&format!("{}: {}: {}", warning.device, warning.what, warning.why));
    }
    let shown: Vec<&Device> = disk.devices().iter().filter(|device| args.all || holds_files(device)).collect();
    if output.is_plain() && !args.long {
        let disks = disk.drives().iter().filter(|_| args.all).map(|drive| drive.name.as_str());
        let mut names: Vec<&str> = disks.chain(shown.iter().map(|device| device.name.as_str())).collect();
        names.dedup();
        return names.iter().try_for_each(|name| write(&format!("{name}\n")));
    }
    let document = || {
        let mut document = Map::new();
        if args.all {
            document.insert("disks".to_owned(), disk.drives().iter().map(drive_document).collect());
        }
        let filesystems = shown.iter().map(|device| device_document(&disk, device)).collect();
        document.insert("filesystems".to_owned(), filesystems);
        Value::Object(document)
    };
    output.document(document, || sheet(&disk, &shown, args.all))
}

/// Whether files can lie on it: what is recognised as something else, and what is not recognised, is for `--all`.
fn holds_files(device: &&Device) -> bool {
    device.probe.as_ref().is_some_and(|probe| probe.usage == Usage::FileSystem)
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
                "device": format!("{}{}", drive.name, partition.number),
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
    }
    Value::Object(document)
}

/// `blkid` of one device, and how much of it is in use where its files can be read.
fn device_document(disk: &Disk, device: &Device) -> Value {
    let mut document = json!({ "device": device.name, "size_bytes": device.size_bytes });
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
    if holds_files(&device) {
        match disk.mount(device) {
            Ok(file_system) => {
                let info = file_system.info();
                document["filesystem_size_bytes"] = info.size_bytes.into();
                document["filesystem_free_bytes"] = info.free_bytes.into();
                document["readable"] = true.into();
            }
            Err(error) => {
                document["readable"] = false.into();
                document["why"] = error.with_causes().into();
            }
        }
    }
    document
}

/// A row for each, as virt-filesystems has them.
fn sheet(disk: &Disk, shown: &[&Device], all: bool) -> Sheet {
    let mut rows = Vec::new();
    for drive in disk.drives().iter().filter(|_| all) {
        let id = drive.partition_table().and_then(|table| table.id.clone()).unwrap_or_default();
        let table = drive.partition_table().map_or("", |table| table.kind.name());
        let size = drive.image.top().map_or(0, |top| top.virtual_size_bytes);
        rows.push(vec![
            Text::new(&drive.name),
            Text::new("device"),
            Text::new(table),
            Text::default(),
            Text::number(size),
            Text::default(),
            Text::new(id),
        ]);
    }
    for device in shown {
        let probe = device.probe.as_ref();
        let text = |value: Option<&String>| Text::new(value.map_or("", String::as_str));
        rows.push(vec![
            Text::new(&device.name),
            Text::new(if holds_files(device) { "filesystem" } else { "other" }),
            Text::new(probe.map_or("", |probe| probe.kind)),
            text(probe.and_then(|probe| probe.label.as_ref())),
            Text::number(device.size_bytes),
            Text::new(parents(disk, device).join(",")),
            text(probe.and_then(|probe| probe.uuid.as_ref())),
        ]);
    }
    Sheet::default().grid(&["NAME", "TYPE", "CONTENT", "LABEL", "SIZE", "PARENT", "UUID"], rows)
}

/// What a device lies on.
fn parents(disk: &Disk, device: &Device) -> Vec<String> {
    match device.partition {
        Some(_) => disk
            .drives()
            .iter()
            .filter(|drive| device.name.starts_with(&drive.name))
            .map(|drive| drive.name.clone())
            .collect(),
        None => Vec::new(),
    }
}
