#!/usr/bin/env bash
# File systems with what is rare, written by this machine's kernel: make.sh FOLDER [CASE...]
#
# Each case becomes FOLDER/CASE.img, or FOLDER/CASE.1.img and so on for several disks. A case that this machine's tools or
# kernel do not know is left out with a word. Needs root and loop devices. `make.sh --list` names the cases.
set -uo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

declare -A CASES=()
ORDER=()
add() { CASES[$1]="$2"; ORDER+=("$1"); }

# NAME 'how it is made': `disk SIZE NUMBER`, `fill KIND MOUNT-OPTIONS`, and what is special.
add ext4 'disk 400M; mkfs.ext4 -q $D; fill'
add ext4-1k 'disk 300M; mkfs.ext4 -q -b 1024 $D; fill'
add ext4-2k-128 'disk 300M; mkfs.ext4 -q -b 2048 -I 128 $D; fill'
add ext4-bigalloc 'disk 600M; mkfs.ext4 -q -O bigalloc -C 65536 $D; fill'
add ext4-inline 'disk 300M; mkfs.ext4 -q -O inline_data -I 1024 $D; fill; '
add ext4-inline-256 'disk 300M; mkfs.ext4 -q -O inline_data -I 256 $D; fill'
add ext4-plain 'disk 300M; mkfs.ext4 -q -O ^metadata_csum,^64bit,^flex_bg,uninit_bg $D; fill'
add ext4-no-extents 'disk 400M; mkfs.ext4 -q -O ^extent,^64bit -b 1024 $D; fill'
add ext4-large 'disk 400M; mkfs.ext4 -q -O large_dir,ea_inode,metadata_csum_seed -b 1024 $D; fill; big_attributes'
add ext4-ea-inode 'disk 300M; mkfs.ext4 -q -O ea_inode $D; fill; big_attributes'
add ext4-meta-bg 'disk 600M; mkfs.ext4 -q -O meta_bg,^resize_inode -b 1024 $D; fill'
add ext4-sparse2 'disk 300M; mkfs.ext4 -q -O sparse_super2 -E hash_seed=00000000-0000-4000-8000-000000000001 $D; fill'
add ext4-tea 'disk 300M; mkfs.ext4 -q $D; tune2fs -E hash_alg=tea $D >/dev/null; fill'
add ext4-legacy 'disk 300M; mkfs.ext4 -q $D; tune2fs -E hash_alg=legacy $D >/dev/null; fill'
add ext4-dirty 'disk 400M; mkfs.ext4 -q $D; fill_and_crash'
add ext4-dirty-1k-data 'disk 400M; mkfs.ext4 -q -b 1024 -J size=4 $D; fill_and_crash data=journal'
add ext4-dirty-async 'disk 400M; mkfs.ext4 -q -O ^metadata_csum $D; fill_and_crash data=writeback,journal_async_commit'
add ext4-dirty-fast 'disk 400M; mkfs.ext4 -q -O fast_commit $D; fill_and_crash'
add ext3 'disk 300M; mkfs.ext3 -q $D; fill'
add ext3-dirty 'disk 300M; mkfs.ext3 -q -b 1024 $D; fill_and_crash'
add ext2 'disk 300M; mkfs.ext2 -q $D; fill'
add ext2-1k 'disk 300M; mkfs.ext2 -q -b 1024 -O ^dir_index $D; fill'
add ext2-old 'disk 60M; mkfs.ext2 -q -r 0 $D; DIRECTORY=500 fill'
for block in 1024 2048 4096 8192 16384 65536; do
    add xfs-$block "disk 600M; mkfs.xfs -q -b size=$block \$D; fill; big_attributes"
done
add xfs-plain 'disk 400M; mkfs.xfs -q -m reflink=0,finobt=0,rmapbt=0,bigtime=0,inobtcount=0 -i sparse=0 $D; fill'
add xfs-all 'disk 400M; mkfs.xfs -q -m reflink=1,rmapbt=1,bigtime=1 -i sparse=1,nrext64=1 $D; fill; big_attributes'
add xfs-inode-512-dir-64k 'disk 400M; mkfs.xfs -q -i size=512 -n size=65536 $D; fill; big_attributes'
add xfs-inode-2048 'disk 400M; mkfs.xfs -q -i size=2048 -b size=4096 -n size=8192 $D; fill; big_attributes'
add xfs-1k-dir-1k 'disk 400M; mkfs.xfs -q -b size=1024 -n size=1024 -d agcount=8 $D; fill; big_attributes'
add xfs-4k-sectors 'disk 400M; mkfs.xfs -q -s size=4096 $D; fill'
add xfs-dirty 'disk 400M; mkfs.xfs -q $D; fill_and_crash; '
add xfs-dirty-nrext64 'disk 400M; mkfs.xfs -q -b size=1024 -m rmapbt=1 -i nrext64=1 $D; fill_and_crash'
for by in zlib lzo zstd zstd:15; do
    add btrfs-${by/:/-} "disk 400M; mkfs.btrfs -q \$D; fill compress-force=$by; more_btrfs"
done
add btrfs-plain 'disk 400M; mkfs.btrfs -q -O ^no-holes,^extref,^skinny-metadata -R "" $D; LINKS=50 fill nodatasum; more_btrfs'
add btrfs-no-tree 'disk 400M; mkfs.btrfs -q $D; fill nodatacow,max_inline=0; more_btrfs'
add btrfs-64k 'disk 400M; mkfs.btrfs -q -n 65536 $D; fill max_inline=4095; more_btrfs'
add btrfs-4k-mixed 'disk 200M; mkfs.btrfs -q -n 4096 --mixed $D; fill; more_btrfs'
for sum in xxhash sha256 blake2; do
    add btrfs-$sum "disk 400M; mkfs.btrfs -q --csum $sum \$D; fill; more_btrfs"
done
add btrfs-group-tree 'disk 400M; mkfs.btrfs -q -O block-group-tree $D; fill; more_btrfs'
add btrfs-quota 'disk 400M; mkfs.btrfs -q -O quota $D; fill; more_btrfs'
for raid in raid0:3 raid1:2 raid1c3:3 raid1c4:4 raid10:4 raid5:3 raid6:4 single:2 dup:1; do
    add btrfs-${raid%:*} "for n in \$(seq ${raid#*:}); do disk 300M \$n; done; mkfs.btrfs -q -f -d ${raid%:*} -m ${raid%:*} \$ALL; fill; more_btrfs"
done
add btrfs-added 'disk 200M 1; disk 300M 2; mkfs.btrfs -q $(part 1); D=$(part 1); fill; mounted btrfs device add -f "$(loop_of 2)" .; mounted btrfs balance start --full-balance .; more_btrfs'
add btrfs-dirty 'disk 400M; mkfs.btrfs -q $D; fill_and_crash compress=zstd'
for by in gzip lzo lz4 xz zstd; do
    add squashfs-$by "tree; mksquashfs tree \$D -comp $by -quiet -no-progress >/dev/null"
done
add squashfs-small 'tree; mksquashfs tree $D -b 4096 -always-use-fragments -quiet -no-progress >/dev/null'
add squashfs-large 'tree; mksquashfs tree $D -b 1M -no-fragments -quiet -no-progress >/dev/null'
add squashfs-bare 'tree; mksquashfs tree $D -noI -noD -noF -noX -no-duplicates -nopad -quiet -no-progress >/dev/null'
add squashfs-xz-bcj 'tree; mksquashfs tree $D -comp xz -Xbcj x86,arm -Xdict-size 100% -b 128K -quiet -no-progress >/dev/null'
add squashfs-lz4-hc 'tree; mksquashfs tree $D -comp lz4 -Xhc -quiet -no-progress >/dev/null'

# What all of them hold, written into the current folder. Where the kind of file system has no such thing, it is not there.
populate() {
    local kind=${1:-}
    mkdir -p plain deep/a/b/c/d/e/f odd owners times sparse links special attributes "big directory"
    : > plain/empty
    for size in 1 59 60 61 155 156 157 160 500 1023 1024 1025 2048 4095 4096 4097 65535 65536 65537 1000003; do
        head -c $size /dev/urandom > plain/random.$size
        head -c $size < <(yes "the quick brown fox $size") > plain/text.$size
    done
    head -c 9000000 /dev/urandom > deep/a/b/c/d/e/f/random
    head -c 9000000 < <(seq 1 2000000) > deep/a/b/numbers
    cat deep/a/b/numbers plain/random.1000003 deep/a/b/numbers > deep/mixed
    # Written in pieces, at random and backwards: extents out of order.
    python3 - <<'PY' 2>/dev/null
import os, random
random.seed(7)
def pieces(name, order, size, step=1):
    with open(name, "wb", 0) as file:
        for index in order:
            file.seek(index * size * step)
            file.write(bytes([index % 251 + 1]) * size)
            if index % 64 == 0:
                os.fsync(file.fileno())
pieces("sparse/backwards", range(400, -1, -1), 4096)
shuffled = list(range(900)); random.shuffle(shuffled)
pieces("sparse/shuffled", shuffled, 4096)
pieces("sparse/every second block", range(2500), 4096, 2)
pieces("sparse/every second kilobyte", range(700), 1024, 2)
one, other = open("sparse/woven.1", "wb", 0), open("sparse/woven.2", "wb", 0)
for index in range(500):
    for file in (one, other):
        file.write(bytes([index % 255 + 1]) * 4096)
        os.fsync(file.fileno()) if index % 32 == 0 else None
PY
    truncate -s 3G sparse/nothing
    truncate -s 100M sparse/end && printf end >> sparse/end
    dd if=plain/random.65537 of=sparse/middle bs=1 seek=50000001 conv=notrunc status=none 2>/dev/null || true
    dd if=plain/random.65537 of=sparse/middle bs=65537 seek=1000 conv=notrunc status=none
    truncate -s 200000001 sparse/middle
    fallocate -l 3M sparse/unwritten
    fallocate -l 3M sparse/partly && dd if=plain/random.65537 of=sparse/partly bs=65537 seek=10 conv=notrunc status=none
    : > sparse/beyond; fallocate -n -l 2M sparse/beyond; printf short 1<> sparse/beyond
    cp plain/random.1000003 sparse/punched && fallocate -p -o 100000 -l 300000 sparse/punched
    cp plain/random.1000003 sparse/zeroed && fallocate -z -o 100000 -l 300000 sparse/zeroed
    cp plain/random.1000003 sparse/shifted && fallocate -c -o 65536 -l 131072 sparse/shifted
    cp plain/random.1000003 sparse/inserted && fallocate -i -o 65536 -l 131072 sparse/inserted
    cp plain/random.1000003 sparse/cut && truncate -s 123457 sparse/cut && truncate -s 900000 sparse/cut
    cp --reflink=always plain/random.1000003 sparse/cloned && dd if=plain/random.4096 of=sparse/cloned bs=4096 seek=30 conv=notrunc status=none
    for length in 1 30 59 60 61 155 156 255 500 1000 1023 1024 2000 4000 4090; do
        ln -s "$(head -c $length /dev/zero | tr '\0' x)" links/to.$length
    done
    ln -s /absolute/target links/absolute; ln -s ../plain/empty links/relative; ln -s "" links/none
    ln plain/text.500 links/hard
    python3 -c 'import os, sys
for number in range(int(sys.argv[1])): os.link("plain/text.60", f"links/hard link number {number} of a file with many names")' ${LINKS:-300}
    mknod special/block b 8 17; mknod special/char c 1 3; mknod special/large c 511 1048575; mknod special/mid b 259 300
    mkfifo special/fifo; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("special/socket")'
    for mode in 0000 0111 0444 1777 2755 4755 6711 7777; do
        : > owners/mode.$mode; chmod $mode owners/mode.$mode; mkdir owners/directory.$mode; chmod $mode owners/directory.$mode
    done
    for id in 1 1000 65534 65535 65536 100000 2147483648 4294967294; do : > owners/$id; chown $id:$id owners/$id; done
    for time in 1901-12-13T20:45:52 1901-01-01 1969-12-31T23:59:59.999999999 1970-01-01 2001-09-09T01:46:40.123456789 \
        2038-01-19T03:14:07.5 2038-01-19T03:14:08 2106-02-07T06:28:16 2242-03-16T12:56:31 2446-05-10T22:38:55 2500-01-01; do
        : > "times/$time"; touch -d "${time}Z" "times/$time" 2>/dev/null
        TZ=UTC touch -h -d "$time" "times/$time"
    done
    : > "odd/$(printf 'a\377b\001\n')"; : > "odd/$(head -c 255 /dev/zero | tr '\0' n)"; : > $'odd/\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80'
    : > 'odd/ blank '; : > 'odd/back\slash'; : > 'odd/...'; : > odd/-x; mkdir "odd/$(head -c 254 /dev/zero | tr '\0' d)"
    for number in $(seq ${DIRECTORY:-9000}); do : > "big directory/a name of some length that goes into the tree $number"; done
    rm "big directory/"*7[0-9]
    mkdir many; (cd many && seq -f 'd%g' 1 700 | xargs mkdir)
    mkdir -p medium; for number in $(seq 60); do : > medium/$number; done
    setfattr -n user.short -v value attributes; setfattr -n user.empty attributes
    for number in 1 2 3; do : > attributes/$number; done
    setfattr -n user.text -v text attributes/1; setfattr -n user.binary -v 0x00ff0001 attributes/1
    setfattr -n trusted.overlay.opaque -v y attributes/1; setfattr -n security.selinux -v system_u:object_r:etc_t:s0 attributes/1
    setfattr -n user.long -v "$(head -c 900 /dev/zero | tr '\0' v)" attributes/2
    for number in $(seq 12); do setfattr -n user.number.$number -v "value $number" attributes/3; done
    cp /bin/true attributes/capable; setcap cap_net_raw,cap_sys_admin+ep attributes/capable
    setfacl -m u:1000:rwx,g:2000:r-x,u:70000:--- attributes/2; setfacl -d -m u:1000:rwx,o::--- attributes
    mkdir attributes/inherits; : > attributes/inherits/file
    ln -s nowhere attributes/link; setfattr -h -n trusted.link -v yes attributes/link
    chattr +i plain/text.1025; chattr +a plain/text.2048; chattr +C odd 2>/dev/null; chattr +c medium 2>/dev/null
    return 0
} 2>/dev/null

# Values too long for an inode or a block, and enough of them for a tree.
big_attributes() { mounted python3 - <<'PY' 2>/dev/null
import os
os.mkdir("values")
def put(name, key, size):
    try:
        os.setxattr(name, "user." + key, os.urandom(size))
    except OSError:
        pass
for name in ["all", "many", "middle", *(f"only {size}" for size in range(0, 66000, 1111))]:
    open("values/" + name, "w").close()
for size in range(0, 66000, 1111):
    put("values/all", f"size.{size}", size)
    put(f"values/only {size}", f"size.{size}", size)
for number in range(700):
    put("values/many", f"one.of.many.attributes.{number}", number % 90)
for number in range(100):
    put("values/middle", f"middle.{number}", number * 13)
for number in range(0, 600, 3):
    try:
        os.removexattr("values/many", f"user.one.of.many.attributes.{number}")
    except OSError:
        pass
put("values", "directory", 3000)
PY
return 0; }

# Snapshots, clones and what else only btrfs has.
more_btrfs() { mounted bash -c '
    btrfs -q subvolume create sub; btrfs -q subvolume create sub/below; cp -r plain sub; cp -r plain sub/below
    btrfs -q subvolume snapshot -r sub "sub ro"; btrfs -q subvolume snapshot sub "sub rw"
    echo changed > "sub rw/plain/text.500"; rm "sub rw/plain/text.1"
    cp --reflink=always deep/mixed cloned
    python3 - <<PY
import fcntl, os, struct
source, to = os.open("deep/mixed", os.O_RDONLY), os.open("ranges", os.O_RDWR | os.O_CREAT)
for index in range(40):
    fcntl.ioctl(to, 0x4020940d, struct.pack("qQQQ", source, 4096 * (index * 7 % 90), 65536, 131072 * index))
PY
    btrfs -q property set medium compression zlib; cp deep/a/b/numbers medium/numbers; btrfs property set medium compression ""
    : > swapfile; chattr +C swapfile; fallocate -l 1M swapfile
    sync; btrfs -q subvolume delete -c "sub ro"; btrfs -q subvolume snapshot -r sub "sub again"' 2>/dev/null; return 0; }

disk() { truncate -s "$1" "$(part "${2:-}")"; D=$(part "${2:-}"); ALL="$ALL $D"; }
part() { echo "$FOLDER/$CASE${1:+.$1}.img"; }
tree() { mkdir -p tree; (cd tree && populate >/dev/null; chattr -ia plain/*); } 2>/dev/null
loop_of() { losetup -j "$(part "$1")" -O NAME -n | head -1; }

# Runs a command within the mounted file system.
mounted() {
    local loops=() file options=${OPTIONS:-}
    for file in "$FOLDER/$CASE".*img; do loops+=("$(losetup -f --show "$file")") || return 1; done
    case $CASE in btrfs*) btrfs -q device scan "${loops[@]}" ;; esac
    mkdir -p mnt
    if mount ${options:+-o "$options"} "${loops[0]}" mnt; then
        (cd mnt && "$@"); local code=$?
        [ -z "${CRASH:-}" ] || { cp --sparse=always "$(part)" crashed.img; }
        umount mnt
        [ -z "${CRASH:-}" ] || mv crashed.img "$(part)"
    else
        local code=1
    fi
    losetup -d "${loops[@]}"
    return $code
}
fill() { OPTIONS=${1:-} mounted "${2:-populate}" || { echo "$CASE: cannot be mounted here"; rm -f $ALL; return 1; }; }
# What was written last lies in the log alone, as when the power fails.
crash() {
    populate; sync
    mkdir late; for n in $(seq 300); do echo "late $n" > late/$n; done
    mv "big directory" "renamed directory"; rm -r many; rm plain/text.65536; truncate -s 5000 deep/mixed
    setfattr -n user.late -v late attributes/1; ln -s late links/late; chown 7:7 owners/1
    python3 - <<'PY'
import os
for name in ["late/1", "late/synced", "plain/random.500"]:
    with open(name, "ab") as file:
        file.write(b"synced" * 1000)
        os.fsync(file.fileno())
PY
    : > late/last; python3 -c 'import os; os.fsync(os.open("late", os.O_RDONLY))'
    return 0
} 2>/dev/null
fill_and_crash() { CRASH=yes fill "${1:-}" crash; }

[ "${1:-}" != --list ] || { printf '%s\n' "${ORDER[@]}"; exit 0; }
mkdir -p "$1"; FOLDER=$(realpath "$1"); shift
[ $# -gt 0 ] || set -- "${ORDER[@]}"
for CASE in "$@"; do
    work=$(mktemp -d) && cd "$work" || exit 1
    ALL=""; D=$(part)
    (eval "${CASES[$CASE]}") > log 2>&1 || { echo "$CASE is left out: $(tail -n 1 log)"; rm -f "$FOLDER/$CASE".*img; }
    cd / && rm -rf --one-file-system "$work"
done
