//! Volumes, page files, and how full the drives are.

use crate::guest::linux::files::Files;
use crate::guest::linux::storage::usage;
use crate::guest::report::{DriveMapping, Filesystem, Mountpoint, Storage, SwapArea, WindowsVolume};

use super::hives::Hives;
use super::profiles::guest_path;

/// The module.
pub(crate) fn inspect(
    files: &Files<'_>,
    hives: &Hives<'_>,
    filesystems: &[Filesystem],
    mountpoints: &[Mountpoint],
    volumes: Vec<WindowsVolume>,
    drives: &[DriveMapping],
) -> Storage {
    let root = mountpoints.first().map(|mount| mount.device.as_str());
    let others = drives.iter().filter(|drive| root != Some(drive.device.as_str()));
    let others = others.map(|drive| Mountpoint {
        path: format!("{}:", drive.name),
        device: drive.device.clone(),
        subvolume: None,
    });
    let mounts: Vec<Mountpoint> = mountpoints.iter().cloned().chain(others).collect();
    Storage {
        swap: page_files(files, hives),
        mounts: mounts.iter().filter_map(|mount| usage(mount, filesystems)).collect(),
        volumes,
        ..Storage::default()
    }
}

/// `PagingFiles`: a path, the smallest and the largest size in MiB; `?:` stands for the drive of Windows.
fn page_files(files: &Files<'_>, hives: &Hives<'_>) -> Vec<SwapArea> {
    let Some(key) = hives.control_key("Control\\Session Manager\\Memory Management") else { return Vec::new() };
    let mut paths = key.texts("PagingFiles");
    // What is in use now is written without sizes, and with the prefix of the object manager.
    paths.extend(key.texts("ExistingPageFiles").iter().map(|path| path.trim_start_matches("\\??\\").to_owned()));
    let mut areas: Vec<SwapArea> = Vec::new();
    for entry in paths {
        let mut words = entry.rsplitn(3, ' ');
        let is_sized = words.next().is_some_and(is_number) && words.next().is_some_and(is_number);
        let path = if is_sized { words.next().unwrap_or(&entry) } else { &entry }.to_owned();
        let in_guest = guest_path(&path.replacen("?:", "C:", 1));
        let size_bytes = in_guest.and_then(|path| files.stat(&path)).map(|metadata| metadata.size);
        let same = |area: &SwapArea| {
            let tail = |path: &str| path.get(1..).map(str::to_lowercase);
            tail(&area.path) == tail(&path)
        };
        if !areas.iter().any(same) {
            areas.push(SwapArea { path, kind: "file".to_owned(), size_bytes, in_fstab: false });
        }
    }
    areas
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}
