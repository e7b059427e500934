//! The targets and their seeds. Those under `fuzz/seeds` and `tests/fixtures` are always there, those of the corpus on machines
//! that have it.

use guestkit::image::Format;

use super::{Asked, Target};

macro_rules! targets {
    (@format Guest) => { Format::Raw };
    (@format Profile) => { Format::Raw };
    (@format $format:ident) => { Format::$format };
    (@asked Guest) => { Asked::Inspection };
    (@asked Profile) => { Asked::Profiles };
    (@asked $format:ident) => { Asked::Disk };
    ($($name:ident $format:ident { $($($file:literal)+,)+ })+) => {
        /// All targets, each with a file of its name in `fuzz_targets/`.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            format: targets!(@format $format),
            asked: targets!(@asked $format),
            seeds: &[$(&[$($file),+]),+],
        }),+];
    };
}

targets! {
    qcow2 Qcow2 {
        "fuzz/seeds/qcow2.img.xz",
        "fuzz/seeds/qcow2-zstd.img.xz",
        "fuzz/seeds/qcow2-zlib.img.xz",
        "fuzz/seeds/qcow2-extended.img.xz",
        "fuzz/seeds/qcow2-luks.img.xz",
        "fuzz/seeds/qcow2-overlay.img.xz" "fuzz/seeds/qcow2.img.xz",
        "corpus/disk-formats/cdi/cirros-snapshot1.qcow2",
        "corpus/disk-formats/dfvfs/ext2.qcow2",
    }
    vmdk Vmdk {
        "fuzz/seeds/vmdk.img.xz",
        "fuzz/seeds/vmdk-stream.img.xz",
        "corpus/disk-formats/govmomi/ttylinux-pc_i486-16.1-disk1.vmdk",
        "corpus/disk-formats/go-vmdk-parser/vmdk-streamoptimized.img",
        "corpus/disk-formats/go-vmdk-parser/vmdk-monolith.img",
        "corpus/disk-formats/vmdk-rs/streamOptimized.vmdk",
        "corpus/disk-formats/vmdk-rs/streamOptimizedWithMarkers.vmdk",
    }
    vmdk_descriptor Vmdk {
        "corpus/disk-formats/vmdk-rs/twoGbMaxExtentSparse.vmdk" "corpus/disk-formats/vmdk-rs/twoGbMaxExtentSparse-s001.vmdk",
        "corpus/disk-formats/vmdk-rs/vmfs_thick.vmdk" "corpus/disk-formats/vmdk-rs/vmfs_thick-flat.vmdk",
        "corpus/disk-formats/vmdk-rs/vmfs_thick-000001.vmdk" "corpus/disk-formats/vmdk-rs/vmfs_thick.vmdk",
        "corpus/disk-formats/vmdk-rs/monolithicFlat.vmdk",
    }
    vdi Vdi {
        "fuzz/seeds/vdi.img.xz",
    }
    vhd Vhd {
        "fuzz/seeds/vhd.img.xz",
        "fuzz/seeds/vhd-fixed.img.xz",
        "corpus/disk-formats/dfvfs/ext2.vhd",
    }
    vhdx Vhdx {
        "fuzz/seeds/vhdx.img.xz",
        "corpus/disk-formats/discutils/swap.vhdx.gz",
    }
    vhdx_log Vhdx {
        "corpus/disk-formats/discutils/vhdx-log-replay.vhdx.gz",
    }
    ova Ova {
        "fuzz/seeds/ova.img.xz",
        "corpus/disk-formats/govmomi/ttylinux-pc_i486-16.1.ova",
    }
    partition Raw {
        "fuzz/seeds/gpt.img.xz",
        "fuzz/seeds/mbr.img.xz",
        "corpus/partition-tables/gptman/disk1.img",
        "corpus/partition-tables/gptman/disk3.img",
        "corpus/partition-tables/mbrman/disk1.img",
        "corpus/partition-tables/mbrman/disk2.img",
        "corpus/volume-ids/bsd.img.xz",
        "corpus/volume-ids/sgi.img.xz",
        "corpus/volume-ids/dasd-ldl.img.xz",
        "corpus/volume-ids/atari-primary.img.xz",
    }
    lvm Raw {
        "tests/fixtures/volumes/lvm-plain.tar.xz",
        "tests/fixtures/volumes/lvm-thin.tar.xz",
        "tests/fixtures/volumes/lvm-snapshot.tar.xz",
        "tests/fixtures/volumes/lvm-merging.tar.xz",
        "tests/fixtures/volumes/lvm-cache.tar.xz",
        "tests/fixtures/volumes/lvm-cachevol.tar.xz",
        "tests/fixtures/volumes/lvm-raid5.tar.xz",
        "tests/fixtures/volumes/lvm-raid.tar.xz",
    }
    md Raw {
        "tests/fixtures/volumes/raid1-1.2.tar.xz",
        "tests/fixtures/volumes/raid1-1.0.tar.xz",
        "tests/fixtures/volumes/raid1-0.90.tar.xz",
        "tests/fixtures/volumes/raid0-zones.tar.xz",
        "tests/fixtures/volumes/raid5-ls.tar.xz",
        "tests/fixtures/volumes/raid5-reshaping.tar.xz",
        "tests/fixtures/volumes/raid5-rebuilding.tar.xz",
        "tests/fixtures/volumes/raid6-ls.tar.xz",
        "tests/fixtures/volumes/raid6-ddf-N-continue.tar.xz",
        "tests/fixtures/volumes/raid10-f2-4.tar.xz",
        "tests/fixtures/volumes/linear.tar.xz",
        "tests/fixtures/volumes/raid1-partitions.tar.xz",
    }
    luks Raw {
        "fuzz/seeds/luks1.img.xz",
        "fuzz/seeds/luks2.img.xz",
        "fuzz/seeds/luks2-argon.img.xz",
    }
    ext Raw {
        "fuzz/seeds/ext4.img.xz",
        "fuzz/seeds/ext2.img.xz",
        "fuzz/seeds/ext4-plain.img.xz",
        "fuzz/seeds/ext4-bigalloc.img.xz",
        "corpus/fs-matrix/ext4_42.img.zlib",
        "corpus/hostile-ext4/f_h_normal__image.gz",
        "corpus/hostile-ext4/f_ea_inode__image.gz",
        "corpus/hostile-ext4/f_inlinedata_repair__image.gz",
        "corpus/hostile-ext4/f_desc_size_128__image.gz",
        "corpus/hostile-ext4/f_selinux__image.gz",
    }
    ext_journal Raw {
        "fuzz/seeds/ext4-log.img.xz",
        "corpus/hostile-ext4/f_jnl_64bit__image.gz",
        "corpus/fs-ext/ext4-view-rs/test_disk_4k_block_journal.bin.zst",
    }
    xfs Raw {
        "fuzz/seeds/xfs.img.xz",
        "tests/fixtures/xfs/v5-empty.img.zst",
        "corpus/fs-matrix/xfs_00.img.zlib",
        "corpus/fs-matrix/xfs_05.img.zlib",
        "corpus/luks/img_fs_xfs.img.xz",
        "corpus/luks/xfs_512_block_size.img.xz",
    }
    xfs_log Raw {
        "fuzz/seeds/xfs-log.img.xz",
        "tests/fixtures/xfs/v5-parents-dirty.img.zst",
        "tests/fixtures/xfs/v5-2k-bare-dirty.img.zst",
    }
    btrfs Raw {
        "fuzz/seeds/btrfs.img.xz",
        "fuzz/seeds/btrfs-xxhash.img.xz",
        "corpus/fs-matrix/btrfs_62.img.zlib",
    }
    btrfs_log Raw {
        "fuzz/seeds/btrfs-log.img.xz",
    }
    ntfs Raw {
        "fuzz/seeds/ntfs.img.xz",
        "tests/fixtures/ntfs/pieces.img.zst",
        "tests/fixtures/ntfs/features.img.zst",
    }
    fat Raw {
        "fuzz/seeds/fat12.img.xz",
        "fuzz/seeds/fat16.img.xz",
        "fuzz/seeds/fat32.img.xz",
    }
    exfat Raw {
        "tests/fixtures/discs/exfat.img.gz",
        "fuzz/seeds/exfat.img.xz",
    }
    iso9660 Raw {
        "tests/fixtures/discs/rock-ridge.iso.gz",
        "tests/fixtures/discs/joliet.iso.gz",
        "tests/fixtures/discs/relocated-joliet.iso.gz",
        "tests/fixtures/discs/zisofs.iso.gz",
    }
    squashfs Raw {
        "tests/fixtures/discs/gzip.squashfs.gz",
        "tests/fixtures/discs/xz.squashfs.gz",
        "tests/fixtures/discs/lzo.squashfs.gz",
        "tests/fixtures/discs/lz4.squashfs.gz",
        "tests/fixtures/discs/zstd.squashfs.gz",
        "tests/fixtures/discs/lzma.squashfs.gz",
    }
    probes Raw {
        "corpus/volume-ids/zfs.img.xz",
        "corpus/volume-ids/ddf-raid.img.xz",
        "corpus/volume-ids/isw-raid.img.xz",
        "corpus/volume-ids/udf-hdd-mkudffs-1.3-5.img.xz",
        "corpus/volume-ids/bcache-B.img.xz",
        "corpus/volume-ids/swap-luks.img.xz",
        "corpus/volume-ids/minix-LE.img.xz",
        "corpus/volume-ids/squashfs3.img.xz",
        "corpus/volume-ids/apfs.img.xz",
    }
    registry Guest {
        "fuzz/seeds/guest-windows.img.xz",
        "fuzz/seeds/guest-windows-profile.img.xz",
        "fuzz/seeds/guest-windows-log.img.xz",
    }
    sqlite Guest {
        "fuzz/seeds/guest-rpm-sqlite.img.xz",
        "fuzz/seeds/guest-rpm-wal.img.xz",
        "fuzz/seeds/guest-rpm-journal.img.xz",
        "fuzz/seeds/guest-nix.img.xz",
    }
    rpm Guest {
        "fuzz/seeds/guest-rpm-bdb.img.xz",
        "fuzz/seeds/guest-rpm-hash.img.xz",
        "fuzz/seeds/guest-rpm-btree.img.xz",
        "fuzz/seeds/guest-rpm-ndb.img.xz",
    }
    journal Guest {
        "fuzz/seeds/guest-journal.img.xz",
        "fuzz/seeds/guest-journal-compact.img.xz",
    }
    packages Guest {
        "fuzz/seeds/guest-debian.img.xz",
        "fuzz/seeds/guest-alpine.img.xz",
        "fuzz/seeds/guest-arch.img.xz",
        "fuzz/seeds/guest-openwrt.img.xz",
        "fuzz/seeds/guest-gentoo.img.xz",
        "fuzz/seeds/guest-flatpak.img.xz",
    }
    configs Guest {
        "fuzz/seeds/guest-configs-debian.img.xz",
        "fuzz/seeds/guest-configs-fedora.img.xz",
        "fuzz/seeds/guest-configs-augeas.img.xz",
    }
    languages Guest {
        "fuzz/seeds/guest-languages.img.xz",
    }
    profile Profile {
        "fuzz/seeds/guest-profile.img.xz",
        "fuzz/seeds/guest-configs-debian.img.xz",
        "fuzz/seeds/guest-windows.img.xz",
        "fuzz/seeds/guest-history.img.xz",
    }
    surroundings Guest {
        "fuzz/seeds/guest-surroundings.img.xz",
    }
}
