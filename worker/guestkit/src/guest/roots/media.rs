//! Installation and live media: discs that hold the makings of a system, not an installed one. Sources: what the tools that
//! make them write (Debian's debian-cd, Red Hat's lorax, SUSE's kiwi, Arch's archiso, Microsoft's setup).

use crate::disk::{Device, Disk};
use crate::filesystem::SharedFileSystem;
use crate::guest::report::Warning;
use crate::guest::tree::Tree;

/// What a medium says of itself is a line or two.
const TEXT_BYTES_MAX: u64 = 64 << 10;

/// Says what medium `device` is, where it is a disc; such a one is no root.
pub(super) fn describe(device: &Device, file_system: &SharedFileSystem, disk: &Disk) -> Option<Warning> {
    if file_system.info().kind != "iso9660" {
        return None;
    }
    let tree = Tree::new(file_system.clone(), disk.budget().clone());
    let label = device.probe.as_ref().and_then(|probe| probe.label.clone());
    let name = name(&tree).or(label);
    let named = name.map(|name| format!(" ({name})")).unwrap_or_default();
    let why = match kind(&tree) {
        Some(kind) => format!("it is {kind}{named}, not an installed system"),
        None => format!("it is a disc{named}, not an installed system"),
    };
    Some(Warning { r#where: device.name.clone(), what: "installation medium".to_owned(), why })
}

/// The name a medium gives itself.
fn name(tree: &Tree) -> Option<String> {
    let text = |path: &str| {
        let bytes = tree.read_file_within(path, TEXT_BYTES_MAX).ok()??;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let first = |path: &str| text(path)?.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    let setting = |path: &str, key: &str| {
        text(path)?.lines().find_map(|line| {
            let (found, value) = line.split_once('=')?;
            (found.trim() == key).then(|| value.trim().to_owned())
        })
    };
    let discinfo = || text("/.discinfo")?.lines().nth(1).map(|line| line.trim().to_owned());
    let products = || first("/media.1/products").map(|line| line.trim_start_matches("/ ").to_owned());
    first("/.disk/info")
        .or_else(|| setting("/.treeinfo", "name"))
        .or_else(discinfo)
        .or_else(products)
        .or_else(|| first("/.alpine-release"))
        .filter(|name| !name.is_empty())
}

fn kind(tree: &Tree) -> Option<&'static str> {
    const MARKS: [(&str, &str); 18] = [
        ("/casper", "a live and installation medium"),
        ("/live/filesystem.squashfs", "a live medium"),
        ("/LiveOS/squashfs.img", "a live medium"),
        ("/LiveOS/rootfs.img", "a live medium"),
        ("/arch/x86_64/airootfs.sfs", "a live medium"),
        ("/sysresccd", "a live medium"),
        ("/sources/install.wim", "an installation medium of Windows"),
        ("/sources/install.esd", "an installation medium of Windows"),
        ("/sources/boot.wim", "an installation medium of Windows"),
        ("/I386/TXTSETUP.SIF", "an installation medium of Windows"),
        ("/.disk/info", "an installation medium"),
        ("/.treeinfo", "an installation medium"),
        ("/.discinfo", "an installation medium"),
        ("/media.1", "an installation medium"),
        ("/.alpine-release", "an installation medium"),
        ("/install.amd", "an installation medium"),
        ("/isolinux", "a medium that starts"),
        ("/EFI/BOOT", "a medium that starts"),
    ];
    MARKS.iter().find(|(path, _)| tree.exists(path).unwrap_or(false)).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    #[test]
    fn media_are_told_by_what_their_makers_write() {
        let cases: [(&str, &str, &str, Option<&str>); 4] = [
            (
                ".disk/info",
                "Debian GNU/Linux 12.5.0 \"Bookworm\" - Official\n",
                "an installation medium",
                Some("Debian GNU/Linux 12.5.0 \"Bookworm\" - Official"),
            ),
            (".treeinfo", "[general]\nname = Fedora 40\nversion = 40\n", "an installation medium", Some("Fedora 40")),
            (
                ".discinfo",
                "1713000000.1\nRed Hat Enterprise Linux 9.4\nx86_64\n",
                "an installation medium",
                Some("Red Hat Enterprise Linux 9.4"),
            ),
            ("sources/install.wim", "MSWIM", "an installation medium of Windows", None),
        ];
        for (path, text, expected, named) in cases {
            let fixture = Fixture::new();
            fixture.file(path, text);
            let tree = fixture.tree();
            assert_eq!(kind(&tree), Some(expected), "{path}");
            assert_eq!(name(&tree).as_deref(), named, "{path}");
        }
    }
}
