#!/bin/sh
# Makes the seeds of this folder: ./make.sh DEST   (root, loop devices, e2fsprogs, btrfs-progs, ntfs-3g, dosfstools, exfatprogs,
# xfsprogs, qemu-utils, cryptsetup-bin, lvm2, mdadm, fdisk, attr, xz)
# The kernel of the machine fills what it can mount; NAME-log is taken as it lies on the disk after an fsync, with its log.
set -eu
dest=${1:?usage: make.sh DEST}
mkdir -p "$dest"
work=$(mktemp -d)
cd "$work"
mkdir mnt

fill() { # what is small and has every kind of structure
    mkdir -p mnt/etc mnt/deep/1/2/3
    printf 'NAME=seed\n' > mnt/etc/os-release
    printf 'leaf' > mnt/deep/1/2/3/leaf
    for i in $(seq 60); do : > "mnt/deep/1/a name that is long enough to fill blocks $i"; done
    head -c 9000 /dev/zero | tr '\0' 'x' > mnt/text
    for at in 0 3 7 12 20 33 50; do printf 'sparse' | dd of=mnt/holes bs=4096 seek=$at conv=notrunc status=none; done
    ln -s text mnt/link
    ln -s "$(printf 'x%.0s' $(seq 180))" mnt/long-link
    ln mnt/text mnt/again
    mkfifo mnt/pipe
    setfattr -n user.small -v value mnt/text 2>/dev/null || :
    setfattr -n user.large -v "$(printf 'v%.0s' $(seq 700))" mnt/link-less 2>/dev/null || :
    setfattr -n user.large -v "$(printf 'v%.0s' $(seq 700))" mnt/holes 2>/dev/null || :
}
late() { # what only the log has
    printf 'late' > mnt/late; ln mnt/late mnt/later; rm mnt/again; mkdir mnt/new; mv mnt/etc/os-release mnt/new/
    setfattr -n user.late -v late mnt/text 2>/dev/null || :
    sync mnt/late mnt/new mnt/new/os-release mnt
}
keep() { xz -9e -c "$1" > "$dest/$1.xz"; rm "$1"; }

make_ext() { # NAME SIZE MKFS-OPTIONS...
    name=$1 size=$2; shift 2
    truncate -s "$size" "$name"
    mkfs.ext4 -q -U 6b5a0f3c-0000-4000-8000-00000000cafe -E hash_seed=6b5a0f3c-0000-4000-8000-00000000cafe "$@" "$name"
    mount -o loop "$name" mnt; fill
    case $name in
    *-log.img) sync -f mnt; late; xfs_io -x -c 'shutdown -f' mnt ;;
    esac
    umount mnt
    keep "$name"
}
make_ext ext4.img 1M -b 1024 -N 128 -O ^has_journal,metadata_csum,inline_data -I 256
make_ext ext4-plain.img 8M -b 1024 -N 128 -O ^metadata_csum,^extent,^64bit,uninit_bg -J size=1
make_ext ext4-log.img 8M -b 1024 -N 128 -J size=1
make_ext ext2.img 512K -b 1024 -N 96 -O ^has_journal,^extent,^metadata_csum,^64bit,^dir_index -I 128
make_ext ext4-bigalloc.img 4M -b 1024 -N 128 -O bigalloc,ea_inode,metadata_csum_seed,^has_journal,large_dir -C 4096

make_btrfs() { # NAME OPTIONS...
    name=$1; shift
    truncate -s 112M "$name"
    mkfs.btrfs -q -n 4096 -m single -d single -U 6b5a0f3c-0000-4000-8000-00000000cafe "$@" "$name"
    mount -o loop,compress=zstd "$name" mnt; fill

    btrfs -q subvolume create mnt/sub >/dev/null; printf 'sub' > mnt/sub/file
    btrfs -q subvolume snapshot -r mnt/sub mnt/snapshot >/dev/null
    sync -f mnt
    case $name in
    *-log.img) late; sync "$name"; cp --sparse=always "$name" kept; umount mnt; mv kept "$name" ;;
    *) umount mnt ;;
    esac
    keep "$name"
}
make_btrfs btrfs.img
make_btrfs btrfs-xxhash.img --csum xxhash
make_btrfs btrfs-log.img

make_xfs() { # NAME OPTIONS...
    name=$1; shift
    truncate -s 24M "$name"
    mkfs.xfs -q --unsupported -m uuid=6b5a0f3c-0000-4000-8000-00000000cafe "$@" "$name"
    mount -o loop "$name" mnt; fill
    case $name in
    *-log.img) sync -f mnt; late; xfs_io -x -c 'shutdown -f' mnt ;;
    esac
    umount mnt
    keep "$name"
}
make_xfs xfs.img -d agcount=1 -b size=1k -l size=6m
make_xfs xfs-log.img -d agcount=1 -l size=6m

make_fat() { # NAME SIZE OPTIONS...
    name=$1 size=$2; shift 2
    truncate -s "$size" "$name"
    mkfs.vfat -i cafecafe "$@" "$name" >/dev/null
    mkdir -p tree/etc tree/deep/1; printf 'NAME=seed\n' > tree/etc/os-release
    for i in $(seq 30); do printf 'x' > "tree/deep/1/a name that is long $i"; done
    head -c 9000 /dev/zero | tr '\0' 'x' > tree/text
    mcopy -s -Q -i "$name" tree/* ::
    keep "$name"
}
make_fat fat12.img 256K -F 12 -s 1
make_fat fat16.img 2200K -F 16 -s 1
make_fat fat32.img 34M -F 32 -s 1

truncate -s 2M ntfs.img
mkntfs -q -F -c 512 -s 512 -p 0 -H 1 -S 1 ntfs.img 2>/dev/null >/dev/null
if ntfs-3g ntfs.img mnt 2>/dev/null; then fill 2>/dev/null || :; umount mnt; fi
keep ntfs.img

truncate -s 512K exfat.img
mkfs.exfat -c 512 -b 4096 exfat.img >/dev/null
keep exfat.img

# One for each format of images, over a disk with little on it.
truncate -s 4M disk
printf 'label: gpt\nstart=40, size=100\nstart=200, size=100\n' | sfdisk -q disk
printf 'contents' | dd of=disk bs=512 seek=50 conv=notrunc status=none
for i in 300 1500 2500 4000; do head -c 2000 /dev/zero | tr '\0' 'y' | dd of=disk bs=512 seek=$i conv=notrunc status=none; done
cp --sparse=always disk gpt.img
qemu-img convert -O qcow2 -o cluster_size=4k disk qcow2.img
qemu-img convert -c -O qcow2 -o cluster_size=4k,compression_type=zstd disk qcow2-zstd.img
qemu-img convert -c -O qcow2 -o cluster_size=512,extended_l2=off disk qcow2-zlib.img
qemu-img convert -O qcow2 -o cluster_size=16k,extended_l2=on disk qcow2-extended.img
qemu-img create -q -f qcow2 --object secret,id=k,data=devcorpus -o cluster_size=4k,encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain64 qcow2-luks.img 1M
qemu-img create -q -f qcow2 -o cluster_size=4k -b qcow2.img -F qcow2 qcow2-overlay.img
qemu-img convert -O vdi disk vdi.img
qemu-img convert -O vpc disk vhd.img
qemu-img convert -O vpc -o subformat=fixed disk vhd-fixed.img
qemu-img convert -O vhdx -o block_size=1M,log_size=1M disk vhdx.img
qemu-img convert -O vmdk disk vmdk.img
qemu-img convert -O vmdk -o subformat=streamOptimized disk vmdk-stream.img
for name in gpt qcow2 qcow2-zstd qcow2-zlib qcow2-extended qcow2-luks qcow2-overlay vdi vhd vhd-fixed vhdx vmdk vmdk-stream; do keep $name.img; done
mkdir ova; cp disk ova.raw; qemu-img convert -O vmdk -o subformat=streamOptimized ova.raw ova/disk1.vmdk
cat > ova/machine.ovf <<'O'
<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References><File ovf:href="disk1.vmdk" ovf:id="file1"/></References>
  <DiskSection><Info>disks</Info><Disk ovf:capacity="4194304" ovf:diskId="disk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
  <VirtualSystem ovf:id="machine"><Info>one</Info></VirtualSystem>
</Envelope>
O
tar --format=ustar -C ova -cf ova.img machine.ovf disk1.vmdk; keep ova.img

truncate -s 1M mbr.img
printf 'label: dos\nstart=8, size=100, type=83\nstart=200, size=1500, type=5\nstart=210, size=50, type=83\nstart=300, size=60, type=82\n' | sfdisk -q mbr.img
keep mbr.img

# The key material of one slot, and zeros for the others.
luks() { # NAME OPTIONS...
    name=$1; shift
    truncate -s 4M "$name"
    printf devcorpus | cryptsetup luksFormat -q -c aes-cbc-plain64 -s 128 "$@" "$name" -
    case $name in luks1*) start=4096 ;; *) start=32768 ;; esac
    fallocate -z -o $((start + 65536)) -l $((4194304 - start - 65536)) "$name"
    keep "$name"
}
small='--luks2-metadata-size 16k --luks2-keyslots-size 256k'
luks luks1.img --type luks1 --pbkdf-force-iterations 1000
luks luks2.img --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $small
luks luks2-argon.img --type luks2 --pbkdf argon2id --pbkdf-force-iterations 4 --pbkdf-memory 32 --pbkdf-parallel 1 $small
rm -r "$work"
ls -l "$dest"
