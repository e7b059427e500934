//! The boot configuration: a registry hive of objects and their elements. Source: Microsoft, "BCD Reference" for the numbers of
//! objects and elements; the layout of a device as real stores have it.

use crate::bytes::{array, hex, le_u32, le_u64};
use crate::guest::linux::files::Files;
use crate::guest::report::PartitionTable;
use crate::guest::tree::Tree;
use crate::guest::windows::hives::{NamedHive, Node};
use crate::profile::guest::Guest;
use crate::profile::report::Evidence;

/// Where stores lie: with BIOS and with UEFI.
const STORES: [&str; 2] = ["/Boot/BCD", "/EFI/Microsoft/Boot/BCD"];
/// The boot manager, its element that names what starts by default, and the elements that name a device.
const MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";
const DEFAULT: &str = "23000003";
const APPLICATION_DEVICE: &str = "11000001";
const SYSTEM_DEVICE: &str = "21000001";
/// A device that is a partition, and how the table is called that it is of.
const PARTITION: u32 = 6;
const GPT: u32 = 0;
const MBR: u32 = 1;
/// The largest volume that only starts the system.
const SYSTEM_VOLUME_BYTES_MAX: u64 = 4 << 30;

/// A partition that the store names.
pub(super) struct Target {
    pub(super) evidence: Evidence,
    /// Whether the disk has it; `None` where the store leaves it to the firmware.
    pub(super) is_there: Option<bool>,
}

/// The partitions that the boot manager and what it starts by default are on; empty where no store was found.
pub(super) fn targets(guest: &Guest<'_>) -> Vec<Target> {
    let own = of_volume(guest, guest.files, &guest.root.device);
    if !own.is_empty() {
        return own;
    }
    // The system is started from a small volume of its own.
    let is_small = |device: &&crate::Device| {
        let kind = device.probe.as_ref().map(|probe| probe.kind);
        device.name != guest.root.device
            && device.size_bytes <= SYSTEM_VOLUME_BYTES_MAX
            && matches!(kind, Some("vfat" | "ntfs"))
            && device.is_candidate()
    };
    for device in guest.disk.devices().iter().filter(is_small) {
        let Ok(file_system) = guest.disk.mount(device) else { continue };
        let tree = Tree::new(file_system, guest.disk.budget().clone());
        let found = of_volume(guest, &Files::new(&tree), &device.name);
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn of_volume(guest: &Guest<'_>, files: &Files<'_>, device: &str) -> Vec<Target> {
    let mut found = Vec::new();
    for store in STORES.into_iter().filter(|store| files.exists(store)) {
        let Some(hive) = NamedHive::open(files, store) else { continue };
        let place = if device == guest.root.device { store.to_owned() } else { format!("{device}:{store}") };
        let Some(manager) = hive.key(&format!("Objects\\{MANAGER}\\Elements")) else { continue };
        let default = manager.key(DEFAULT).and_then(|key| key.text("Element"));
        let system = default.and_then(|default| hive.key(&format!("Objects\\{default}\\Elements")));
        let devices = [(Some(manager), APPLICATION_DEVICE), (system, SYSTEM_DEVICE)];
        for (elements, element) in devices {
            found.extend(elements.and_then(|elements| target(guest.partition_table, &elements, element, &place)));
        }
    }
    found
}

/// The partition of a device element: 16 bytes of options, its kind, flags, length and 4 bytes more; then the partition (a GUID,
/// or where it begins), 4 bytes, the kind of table, and the disk (a GUID, or its signature).
fn target(table: Option<&PartitionTable>, elements: &Node<'_>, element: &str, place: &str) -> Option<Target> {
    let data = elements.key(element)?.bytes("Element")?;
    let key = format!("{}\\{element}", elements.path());
    let is_partition = le_u32(&data, 16)? == PARTITION;
    let (told, is_there) = match le_u32(&data, 52).filter(|_| is_partition) {
        Some(GPT) => {
            let told = format!("gpt {}", guid_text(&array(&data, 32)?));
            let is_there = table.map(|table| is_in(table, &told));
            (told, is_there)
        }
        Some(MBR) => {
            let told = format!("mbr {:08x} {}", le_u32(&data, 56)?, le_u64(&data, 32)?);
            let is_there = table.map(|table| is_in(table, &told));
            (told, is_there)
        }
        _ => ("left to the firmware".to_owned(), None),
    };
    Some(Target { evidence: Evidence::explicit(place, key, told), is_there })
}

/// A GUID as it lies in memory: the first three parts are little-endian.
fn guid_text(guid: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, i, j, rest @ ..] = *guid;
    [&[d, c, b, a][..], &[f, e], &[h, g], &[i, j], &rest].map(hex).join("-")
}

/// Whether `table` has the partition that is called `mbr SIGNATURE OFFSET` or `gpt GUID`.
pub(super) fn is_in(table: &PartitionTable, target: &str) -> bool {
    let words: Vec<&str> = target.split(' ').collect();
    match words.as_slice() {
        ["gpt", guid] => {
            let mut ids = table.partitions.iter().filter_map(|partition| partition.uuid.as_deref());
            ids.any(|id| id.eq_ignore_ascii_case(guid))
        }
        ["mbr", signature, offset] => {
            table.id.as_deref().is_some_and(|id| id.eq_ignore_ascii_case(signature))
                && table.partitions.iter().any(|partition| partition.start_bytes.to_string() == *offset)
        }
        _ => false,
    }
}
