#!/usr/bin/env python3
"""Makes the guests among the seeds of this folder: make-guests.py DEST CORPUS

Each is an ext2 file system of one block group, whose own structures end before byte 73728 (GUEST_FILES of the harness), with the
files that a part of the engine reads. Needs e2fsprogs, rpm, rpmbuild, systemd-journal-remote, qemu-img, ntfs-3g (ntfscat),
libhivex-bin, openssl, sfdisk and xz; no root. Files that are small and stand for their kind come from the corpus.
"""
import gzip
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

dest, corpus = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
engine = Path(__file__).resolve().parents[2]
work = Path(tempfile.mkdtemp())
DEBIAN = 'ID=debian\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\n'
FEDORA = 'ID=fedora\nNAME="Fedora Linux"\nVERSION_ID=40\nPRETTY_NAME="Fedora Linux 40"\nCPE_NAME="cpe:/o:fedoraproject:fedora:40"\n'


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, **options).stdout


def guest(name, files, links=(), size='2M'):
    """An image of `files`, a path and contents (or the path of a file) each."""
    root = work / name
    root.mkdir()
    for path, contents in files.items():
        path = root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(contents, Path):
            contents = contents.read_bytes()
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        path.chmod(0o755 if path.parent.name == 'bin' else 0o644)
    for path, target in dict(links).items():
        path = root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    image = work / f'guest-{name}.img'
    uuid = '6b5a0f3c-0000-4000-8000-00000000cafe'
    run('mke2fs', '-q', '-t', 'ext2', '-b', '1024', '-N', '512', '-I', '128', '-m', '0', '-O', '^resize_inode,^dir_index',
        '-U', uuid, '-E', f'hash_seed={uuid},root_owner=0:0', '-d', root, image, size)
    with open(dest / f'guest-{name}.img.xz', 'wb') as packed:
        packed.write(run('xz', '-9e', '-c', image))
    print(name, (dest / f'guest-{name}.img.xz').stat().st_size)


def linux(release, **more):
    base = {'etc/os-release': release, 'etc/hostname': 'seed\n', 'etc/fstab': '/dev/sda1 / ext2 defaults 0 1\n',
            'etc/passwd': 'root:x:0:0:root:/root:/bin/bash\n', 'bin/sh': '#', 'usr/bin/true': '#', 'sbin/init': '#'}
    return base | more


# Windows: the hives of the phony guest, and real ones beside them.
raw = work / 'windows.raw'
run('qemu-img', 'convert', '-O', 'raw', corpus / 'phony/windows.qcow2', raw)
table = json.loads(run('sfdisk', '-J', raw))['partitiontable']['partitions']
largest = max(table, key=lambda part: part['size'])
volume = work / 'windows.ntfs'
with open(raw, 'rb') as disk:
    disk.seek(largest['start'] * 512)
    volume.write_bytes(disk.read(largest['size'] * 512))


def hive(name):
    return run('ntfscat', volume, f'/Windows/System32/Config/{name}', stderr=subprocess.DEVNULL)


CONFIG = 'Windows/System32/config/'
TASK = '''<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><Author>seed</Author><Description>a &amp; b</Description><URI>\\Seed</URI></RegistrationInfo>
  <Triggers><CalendarTrigger><StartBoundary>2024-01-01T03:00:00</StartBoundary><Enabled>true</Enabled>
    <ScheduleByDay><DaysInterval>1</DaysInterval></ScheduleByDay></CalendarTrigger><LogonTrigger/></Triggers>
  <Principals><Principal id="Author"><UserId>S-1-5-18</UserId><RunLevel>HighestAvailable</RunLevel></Principal></Principals>
  <Settings><Enabled>true</Enabled></Settings>
  <Actions Context="Author"><Exec><Command>cmd.exe</Command><Arguments>/c exit</Arguments></Exec></Actions>
</Task>'''.encode('utf-16')
system, software = hive('SYSTEM'), hive('SOFTWARE')
sam, security = [corpus / f'registry/winreg-kb/{name}' for name in ['SAM', 'SECURITY']]
windows = {CONFIG + 'SYSTEM': system, CONFIG + 'SOFTWARE': software, CONFIG + 'SAM': sam, CONFIG + 'SECURITY': security,
           'Windows/System32/Tasks/Seed': TASK, 'boot.ini': '[boot loader]\ndefault=multi(0)disk(0)rdisk(0)partition(1)\\WINDOWS\n',
           'Windows/System32/drivers/etc/hosts': '127.0.0.1 localhost\n'}
guest('windows', windows)
# A hive that was not let go in order, with the log of the new format that belongs to it.


def marvin(data):
    seed = 0x82ef4d887a4e55c5
    low, high = seed & 0xffffffff, seed >> 32

    def turn(number, bits):
        return (number << bits | number >> (32 - bits)) & 0xffffffff

    def mixed(low, high):
        high ^= low
        low = (turn(low, 20) + high) & 0xffffffff
        high = turn(high, 9) ^ low
        low = (turn(low, 27) + high) & 0xffffffff
        return low, turn(high, 19)

    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack('<I', data[:whole]):
        low, high = mixed((low + word) & 0xffffffff, high)
    last = (data[whole:] + b'\x80\0\0\0')[:4]
    low, high = mixed((low + struct.unpack('<I', last)[0]) & 0xffffffff, high)
    low, high = mixed(low, high)
    return high << 32 | low


def based(block, **fields):
    block = bytearray(block)
    for at, value in fields.values():
        struct.pack_into('<I', block, at, value)
    total = 0
    for (word,) in struct.iter_unpack('<I', block[:508]):
        total ^= word
    struct.pack_into('<I', block, 508, {0: 1, 0xffffffff: 0xfffffffe}.get(total, total))
    return bytes(block)


def entry(sequence, bins_bytes, pages):
    body = b''.join(struct.pack('<II', at, len(page)) for at, page in pages) + b''.join(page for _, page in pages)
    size = -(-(40 + len(body)) // 512) * 512
    body = body.ljust(size - 40, b'\0')
    head = b'HvLE' + struct.pack('<IIIII', size, 0, sequence, bins_bytes, len(pages))
    head += struct.pack('<II', marvin(body) & 0xffffffff, marvin(body) >> 32)[:8]
    return head + struct.pack('<Q', marvin(head)) + body


bins = struct.unpack_from('<I', system, 40)[0]
dirty = based(system[:512], one=(4, 8), two=(8, 7)) + system[512:]
log = based(system[:512], one=(4, 7), two=(8, 7), kind=(28, 6))
page = [(0, system[4096:8192])]
logs = {CONFIG + 'SYSTEM.LOG1': log + entry(7, bins, page) + entry(8, bins, page), CONFIG + 'SYSTEM.LOG2': log + entry(9, bins, page)}
# Old logs: a bitmap of sectors, then those.
old = based(software[:512], one=(4, 5), two=(8, 5), kind=(28, 1))
count = struct.unpack_from('<I', software, 40)[0] // 512
bitmap = b'DIRT' + b'\1' + bytes(-(-count // 8) - 1)
old_log = old + bitmap.ljust(-(-len(bitmap) // 512) * 512, b'\0') + software[4096:4608]
lost = based(software[:512], one=(4, 6), two=(8, 5)) + software[512:]
others = {CONFIG + name: corpus / 'registry/ez' / name for name in ['SAM', 'SECURITY']}
guest('windows-log', windows | logs | others | {CONFIG + 'SYSTEM': dirty, CONFIG + 'SOFTWARE': lost, CONFIG + 'SOFTWARE.LOG': old_log})
# An account with a profile, whose hive is a real one.
known, commands = work / 'SOFTWARE', work / 'commands'
known.write_bytes(software)
SID = 'S-1-5-21-1-2-3-1001'
commands.write_text(f'cd \\Microsoft\\Windows NT\\CurrentVersion\nadd ProfileList\ncd ProfileList\nadd {SID}\ncd {SID}\nsetval 1\n'
                    'ProfileImagePath\nstring:C:\\Users\\seed\ncommit\n')
run('hivexsh', '-w', '-f', commands, known)
without = {path: held for path, held in windows.items() if not path.endswith(('/SAM', '/SECURITY'))}
guest('windows-profile', without | {CONFIG + 'SOFTWARE': known, 'Users/seed/NTUSER.DAT': corpus / 'registry/ez/NTUSER1.DAT'})

# Packages that rpm itself wrote, in each of its stores.
spec = work / 'seed.spec'
spec.write_text('''%define _build_id_links none
Name: seed
Version: 1.2
Release: 3%{?dist}
Epoch: 4
Summary: A seed
Summary(de): Ein Samen
License: MIT
URL: https://example.com/
Vendor: nobody
BuildArch: noarch
Requires: bash >= 4
Provides: other = 2
%description
Text of some length, so that there is something to lie across.
%post
echo done
%install
mkdir -p %{buildroot}/opt/seed
for i in 1 2 3 4 5; do echo $i > %{buildroot}/opt/seed/file-$i; done
%files
/opt/seed
%changelog
* Mon Jan 01 2024 A Name <a@example.com> - 1.2-3
- First
''')
run('rpmbuild', '-bb', '--define', f'_topdir {work}/build', '--define', f'_tmppath {work}/tmp', spec, stderr=subprocess.DEVNULL)
package = next((work / 'build/RPMS').rglob('*.rpm'))


def store():
    folder, backend = work / 'store', 'sqlite'
    folder.mkdir()
    run('rpm', '--dbpath', folder, '--define', f'_db_backend {backend}', '--initdb')
    run('rpm', '--dbpath', folder, '--define', f'_db_backend {backend}', '-i', '--justdb', '--nodeps', '--noscripts', '--force-debian',
        package, stderr=subprocess.DEVNULL)
    return folder


with tarfile.open(engine / 'tests/fixtures/rpm/berkeley-db.tar.xz') as archive:
    fixture = {name: archive.extractfile(name).read() for name in ['hash-be', 'btree-le', 'hash-checksum']}
guest('rpm-bdb', linux(FEDORA) | {'var/lib/rpm/Packages': corpus / 'rpmdb/libuuid/Packages'})
guest('rpm-hash', linux(FEDORA) | {'var/lib/rpm/Packages': fixture['hash-be']})
guest('rpm-btree', linux(FEDORA) | {'var/lib/rpm/Packages': fixture['btree-le']})

# SQLite as it lies while somebody writes.
plain = store() / 'rpmdb.sqlite'


def written(source, mode):
    path = work / f'{mode}.sqlite'
    shutil.copy(source, path)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f'pragma journal_mode={mode}')
    database.execute('pragma wal_autocheckpoint=0')
    database.execute('pragma cache_size=1')
    database.execute('pragma cache_spill=1')
    database.execute('begin')
    database.execute('insert into Packages(blob) select blob from Packages')
    database.execute('insert into Packages(blob) select blob from Packages')
    if mode == 'wal':
        database.execute('commit')
    else:
        # The changes reach the file, the journal still undoes them.
        for number in range(200):
            database.execute('insert into Packages(blob) values (zeroblob(900))')
    kept = {end: Path(f'{path}{end}').read_bytes() for end in ['', f'-{mode}'.replace('delete', 'journal')]}
    database.close()
    return {'var/lib/rpm/rpmdb.sqlite' + end: contents for end, contents in kept.items()}


database = sqlite3.connect(plain, isolation_level=None)
database.execute('pragma journal_mode=delete')
database.execute('vacuum')
header = database.execute('select blob from Packages').fetchone()[0]
database.close()


def ndb(blobs):
    """SUSE's store, which Debian's rpm does not write: a page of slots, then blobs in blocks of 16 bytes."""
    slots, body = b'RpmP' + struct.pack('<IIII', 0, 1, 1, len(blobs) + 1) + bytes(12), b''
    for number, blob in enumerate(blobs, 1):
        whole = b'BlbS' + struct.pack('<III', number, 1, len(blob)) + blob
        whole += bytes(-(len(whole) + 12) % 16)
        whole += struct.pack('<II', zlib.adler32(whole), len(blob)) + b'BlbE'
        slots += b'Slot' + struct.pack('<III', number, 256 + len(body) // 16, len(whole) // 16)
        body += whole
    while len(slots) < 4096:
        slots += b'Slot' + bytes(12)
    return slots + body


guest('rpm-ndb', linux(FEDORA) | {'usr/lib/sysimage/rpm/Packages.db': ndb([header] * 3)})
guest('rpm-sqlite', linux(FEDORA) | {'var/lib/rpm/rpmdb.sqlite': plain})
guest('rpm-wal', linux(FEDORA) | written(plain, 'wal'), size='4M')
guest('rpm-journal', linux(FEDORA) | written(plain, 'delete'), size='4M')
nix = work / 'nix.sqlite'
database = sqlite3.connect(nix)
database.executescript('''pragma page_size=512; pragma auto_vacuum=full; vacuum;
create table ValidPaths (id integer primary key autoincrement not null, path text unique not null, hash text not null,
registrationTime integer not null, deriver text, narSize integer, ultimate integer, sigs text, ca text);''')
for number in range(40):
    path = f'/nix/store/{number:032d}-package-{number}.{number}' + '-long' * number
    database.execute('insert into ValidPaths(path, hash, registrationTime, narSize) values (?, ?, ?, ?)',
                     (path, 'sha256:' + 'a' * 60, 1700000000 + number, number * 1000))
database.execute('delete from ValidPaths where id % 5 = 0')
database.commit()
database.close()
guest('nix', linux('ID=nixos\nNAME=NixOS\nVERSION_ID="24.05"\n', **{'etc/NIXOS': '', 'nix/var/nix/db/db.sqlite': nix}))

# Journals, each with the starts of two systems.
lines = []
for boot in range(2):
    for number in range(12):
        fields = {'__REALTIME_TIMESTAMP': 1700000000000000 + boot * 10**12 + number * 10**6, '__MONOTONIC_TIMESTAMP': number * 10**6,
                  '_BOOT_ID': f'{boot + 1:032x}', '_MACHINE_ID': 'a' * 32, 'PRIORITY': 6, 'SYSLOG_IDENTIFIER': 'systemd', '_PID': 1,
                  '_SYSTEMD_UNIT': 'init.scope', 'UNIT': f'seed-{number % 4}.service', 'MESSAGE': f'Started number {number}. ' * (1 + 30 * (number == 3)),
                  'MESSAGE_ID': ['39f53479d3a045ac8e11786248231fbf', 'be02cf6855d2428ba40df7e9d022f03d', 'de5b426a63be47a7b6ac3eaac82e2f6f',
                                 '9d1aaa27d60140bd96365438aad20286'][number % 4], 'JOB_TYPE': 'start', 'JOB_RESULT': 'done'}
        lines.append('\n'.join(f'{key}={value}' for key, value in fields.items()) + '\n\n')
for name, compact in [('journal', '0'), ('journal-compact', '1')]:
    path = work / f'{name}.journal'
    run('/lib/systemd/systemd-journal-remote', '-o', path, '-', input=''.join(lines).encode(),
        env=dict(os.environ, SYSTEMD_JOURNAL_COMPACT=compact), stderr=subprocess.DEVNULL)
    contents = path.read_bytes().rstrip(b'\0')
    units = {f'usr/lib/systemd/system/seed-{number}.service':
             f'[Unit]\nDescription=Seed %i\nAfter=a.target\n[Service]\nExecStart=/usr/bin/true\nType=oneshot\n[Install]\nWantedBy=multi-user.target\n' for number in range(4)}
    guest(name, linux(DEBIAN, **{f'var/log/journal/{"a" * 32}/system.journal': contents, 'etc/machine-id': 'a' * 32 + '\n'}) | units,
          {'sbin/init2': '/usr/lib/systemd/systemd'}, size='2M')

# Package managers that keep text.
data = corpus / 'dpkg-apk-pacman'
guest('debian', linux(DEBIAN, **{
    'var/lib/dpkg/status': data / 'dpkg/testdata/dpkg/valid', 'var/lib/dpkg/status.d/foo': data / 'dpkg/testdata/dpkg/status.d/foo',
    'var/lib/dpkg/updates/0001': data / 'dpkg/testdata/dpkg/transitional', 'var/lib/dpkg/info/format': '1\n', 'usr/bin/dpkg': '#',
    'var/lib/dpkg/info/bash.list': '/.\n/bin\n/bin/bash\n', 'etc/apt/sources.list': 'deb [arch=amd64] http://deb.debian.org/debian bookworm main\n',
    'var/lib/snapd/state.json': json.dumps({'data': {'snaps': {'core22': {'type': 'base', 'active': True, 'current': '1380', 'channel': 'latest/stable',
        'sequence': [{'name': 'core22', 'snap-id': 'x', 'revision': '1380', 'channel': 'latest/stable'}]}}}})}))
guest('alpine', linux('ID=alpine\nNAME="Alpine Linux"\nVERSION_ID=3.20.1\n', **{'lib/apk/db/installed': data / 'apk/testdata/installed',
    'etc/alpine-release': '3.20.1\n', 'etc/apk/repositories': 'https://dl-cdn.alpinelinux.org/alpine/v3.20/main\n', 'etc/apk/world': 'busybox\n'}))
desc = (data / 'pacman/testdata/valid').read_bytes()
guest('arch', linux('ID=arch\nNAME="Arch Linux"\n', **{'var/lib/pacman/local/one-1.0-1/desc': desc,
    'var/lib/pacman/local/two-1-1/desc': data / 'pacman/testdata/eof_after_dependencies', 'var/lib/pacman/local/ALPM_DB_VERSION': '9\n',
    'etc/pacman.conf': '[options]\nHoldPkg = pacman\n[core]\nInclude = /etc/pacman.d/mirrorlist\n'}))
guest('openwrt', linux('ID=openwrt\nNAME=OpenWrt\nVERSION_ID=23.05\n', **{'usr/lib/opkg/status': data / 'dpkg/testdata/opkg/valid',
    'etc/openwrt_release': "DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='23.05.3'\n", 'etc/config/system': "config system\n\toption hostname 'x'\n"}))
facts = {'PF': 'bash-5.2_p26-r3', 'SLOT': '0', 'CHOST': 'x86_64-pc-linux-gnu', 'LICENSE': 'GPL-3+', 'DESCRIPTION': 'A shell', 'SIZE': '1234',
         'HOMEPAGE': 'https://example.com/', 'BUILD_TIME': '1700000000', 'repository': 'gentoo', 'COUNTER': '5'}
guest('gentoo', linux('ID=gentoo\nNAME=Gentoo\n', **{f'var/db/pkg/app-shells/bash-5.2_p26-r3/{name}': value + '\n' for name, value in facts.items()},
    **{'etc/gentoo-release': 'Gentoo Base System release 2.15\n'}))


def deploy():
    """A variant `(ssasta{sv})` as GLib lays it out: what is of no fixed size ends at offsets that stand behind everything."""
    def strings(values):
        body, ends = b'', b''
        for value in values:
            body += value.encode() + b'\0'
            ends += bytes([len(body)])
        return body + ends

    entries = b''
    ends = []
    for key, text in [('appdata-name', 'Seed'), ('appdata-version', '1.2'), ('appdata-license', 'MIT'), ('appdata-summary', 'A seed')]:
        entries += bytes(-len(entries) % 8)
        name = key.encode() + b'\0'
        one = name + bytes(-len(name) % 8) + text.encode() + b'\0\0s' + bytes([len(name)])
        entries += one
        ends.append(len(entries))
    entries += bytes(ends)
    body, offsets = b'', []
    for member in [b'flathub\0', b'c' * 64 + b'\0', strings(['/app'])]:
        body += member
        offsets.append(len(body))
    body += bytes(-len(body) % 8) + struct.pack('>Q', 12345)
    body += entries
    width = 1 if len(body) < 250 else 2
    return body + b''.join(end.to_bytes(width, 'little') for end in reversed(offsets))


PLACE = 'var/lib/flatpak/app/org.seed.App/x86_64/stable/'
guest('flatpak', linux(FEDORA, **{PLACE + 'abc/deploy': deploy(), PLACE + 'abc/metadata': '[Application]\nname=org.seed.App\nruntime=a/b/c\n',
    PLACE + 'abc/files/share/metainfo/org.seed.App.metainfo.xml': '<component><id>x</id><releases><release version="1.2" date="2024-01-01"/></releases></component>',
    'etc/flatpak/installations.d/x.conf': '[Installation "x"]\nPath=/var/lib/flatpak\n'}), {PLACE + 'active': 'abc'})

# Configurations: those of the corpus that are read, and some of each kind that it lacks.
augeas = corpus / 'configs/augeas-root'
taken = ['etc/fstab', 'etc/passwd', 'etc/group', 'etc/shadow', 'etc/gshadow', 'etc/ssh/sshd_config', 'etc/sudoers', 'etc/inittab', 'etc/hosts',
         'etc/resolv.conf', 'etc/sysctl.conf', 'etc/network/interfaces', 'boot/grub/grub.conf', 'etc/pam.d/login', 'etc/pam.d/newrole',
         'etc/sysconfig/network', 'etc/sysconfig/network-scripts/ifcfg-eth0', 'etc/sysconfig/network-scripts/ifcfg-br0',
         'etc/sysconfig/network-scripts/ifcfg-wlan0', 'etc/sysconfig/iptables', 'etc/sysconfig/clock', 'etc/sysconfig/i18n']
real = {path: augeas / path for path in taken if (augeas / path).exists()}
guest('configs-augeas', linux(FEDORA) | real)
guest('configs-debian', linux(DEBIAN, **{
    'etc/netplan/01.yaml': 'network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    e0: &a\n      match: {macaddress: "52:54:00:00:00:01"}\n      dhcp4: yes\n      addresses: [10.0.0.2/24, "fd00::2/64"]\n      nameservers: {addresses: [1.1.1.1]}\n    e1: *a\n  bonds:\n    b0: {interfaces: [e0, e1]}\n  vlans:\n    v: {id: 5, link: e0}\n',
    'etc/crypttab': 'home UUID=6b5a0f3c-0000-4000-8000-00000000cafe none luks,discard,tries=3\nswap /dev/sda2 /dev/urandom swap\n',
    'etc/sudoers': 'Defaults env_reset\nUser_Alias A = a, %b\nCmnd_Alias C = /bin/ls, !/bin/rm\nroot ALL=(ALL:ALL) ALL\nA ALL = (root) NOPASSWD: SETENV: C, \\\n /bin/x\n@includedir /etc/sudoers.d\n',
    'etc/sudoers.d/a': '%sudo ALL=(ALL) NOPASSWD:ALL\n', 'etc/ssh/sshd_config': 'Include /etc/ssh/sshd_config.d/*.conf\nPort 22\nPermitRootLogin no\nMatch User a,!b Address 10.0.0.0/8\n  PasswordAuthentication yes\n',
    'etc/ssh/sshd_config.d/x.conf': 'Ciphers +aes128-cbc\nListenAddress [::1]:23\n', 'usr/sbin/sshd': '#',
    'root/.ssh/authorized_keys': 'from="10.*",command="a \\"b\\"" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA a\n',
    'etc/nftables.conf': '#!/usr/sbin/nft -f\nflush ruleset\ndefine X = { 22, 80 }\ntable inet f {\n chain input {\n  type filter hook input priority 0; policy drop;\n  tcp dport $X accept\n  ct state { established, related } accept\n }\n}\n',
    'etc/iptables/rules.v4': '*filter\n:INPUT DROP [0:0]\n:X - [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n',
    'etc/default/ufw': 'IPV6=yes\nDEFAULT_INPUT_POLICY="DROP"\n', 'etc/ufw/ufw.conf': 'ENABLED=yes\n', 'etc/ufw/user.rules': '*filter\n### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\nCOMMIT\n',
    'etc/apparmor.d/usr.bin.x': 'profile x /usr/bin/x flags=(complain) {\n #include <a>\n /etc/** r,\n}\n', 'etc/audit/rules.d/a.rules': '-w /etc/passwd -p wa -k a\n',
    'etc/locale.conf': 'LANG=C.UTF-8\n', 'etc/timezone': 'Etc/UTC\n', 'etc/mdadm/mdadm.conf': 'ARRAY /dev/md0 metadata=1.2 UUID=00000000:00000000:00000000:00000001\n',
    'boot/grub/grub.cfg': 'set default="0"\nmenuentry "Debian" --class debian $x {\n linux /vmlinuz-6.1.0 root=UUID=a ro quiet\n initrd /initrd.img\n}\nsubmenu "More" {\n menuentry \'Old\' {\n linux /vmlinuz-5\n }\n}\n',
    'boot/grub/grubenv': '# GRUB Environment Block\nsaved_entry=0\n#####', 'etc/subuid': 'a:100000:65536\n',
    'lib/systemd/system/a@.service': '[Unit]\nDescription=A %i\\\n b\nWants=c.service\n[Service]\nUser=a\nExecStart=-/bin/a "b c" ${D}\nEnvironment="A=b c" D=e\n[Install]\nWantedBy=multi-user.target\nAlias=b.service\nDefaultInstance=x\n',
    'lib/systemd/system/t.timer': '[Timer]\nOnCalendar=*-*-* 6,18:00\nPersistent=true\nUnit=a@x.service\n[Install]\nWantedBy=timers.target\n',
    'lib/systemd/system/s.socket': '[Socket]\nListenStream=0.0.0.0:80\nListenDatagram=/run/x\n', 'lib/systemd/system-preset/9.preset': 'enable a@.service x y\ndisable *\n',
    'etc/systemd/system/a@x.service.d/o.conf': '[Service]\nExecStart=\nExecStart=/bin/b\n', 'lib/systemd/systemd': '#',
    'etc/systemd/network/1.network': '[Match]\nName=e* !eth0\n[Network]\nDHCP=ipv4\nAddress=10.0.0.1/8\nDNS=1.1.1.1\n', 'etc/sysctl.d/a.conf': '-net.ipv4.ip_forward = 1\nnet/ipv4/x=2\n',
    'var/lib/dhcp/dhclient.e0.leases': 'lease {\n interface "e0";\n fixed-address 10.0.0.5;\n option routers 10.0.0.1;\n renew 4 2024/01/01 00:00:00;\n}\n',
    'etc/postgresql/15/main/postgresql.conf': "port = 5432 # x\nlisten_addresses = '*'\n", 'etc/redis/redis.conf': 'bind 127.0.0.1 ::1\nport 6379\n', 'usr/bin/redis-server': '#',
}), {'etc/localtime': '/usr/share/zoneinfo/Europe/Berlin', 'etc/systemd/system/multi-user.target.wants/a@x.service': '/lib/systemd/system/a@.service', 'usr/sbin/init': '/lib/systemd/systemd'})
guest('configs-fedora', linux(FEDORA, **{
    'etc/NetworkManager/system-connections/a.nmconnection': '[connection]\nid=a\ntype=ethernet\ninterface-name=e0\n[ipv4]\nmethod=manual\naddress1=10.0.0.2/24,10.0.0.1\ndns=1.1.1.1;8.8.8.8;\n[ipv6]\nmethod=auto\n',
    'etc/firewalld/firewalld.conf': 'DefaultZone=public\n', 'etc/firewalld/zones/public.xml': '<?xml version="1.0"?><zone target="DROP"><short>P</short><service name="ssh"/><port port="80-90" protocol="tcp"/><rule><source address="10.0.0.0/8"/><accept/></rule></zone>',
    'etc/selinux/config': 'SELINUX=enforcing\nSELINUXTYPE=targeted\n', 'boot/loader/entries/a.conf': 'title Fedora\nversion 6.8\nlinux /vmlinuz\ninitrd /i\noptions root=UUID=x $kernelopts\n',
    'boot/loader/loader.conf': 'default a*\ntimeout 3\n', 'etc/rc.conf': 'hostname="x"\n', 'etc/conf.d/hostname': 'hostname="y"\n', 'etc/init.d/x': '#!/sbin/openrc-run\n### BEGIN INIT INFO\n# Provides: x\n# Default-Start: 2 3\n### END INIT INFO\n',
    'etc/lilo.conf': 'default=Linux\nimage=/boot/vmlinuz\n label=Linux\n root=/dev/sda1\n append="a b"\n', 'boot/extlinux/extlinux.conf': 'DEFAULT a\nLABEL a\n KERNEL /v\n APPEND root=/dev/sda1\n',
    'etc/pam.d/sshd': 'auth required pam_faillock.so deny=3\nauth substack password-auth\n-session optional pam_x.so [a b]\n@include common\n', 'etc/my.cnf': '[mysqld]\ndatadir=/var/lib/mysql\nport=3306\n!includedir /etc/my.cnf.d\n',
    'etc/mongod.conf': 'net:\n  port: 27017\nstorage:\n  dbPath: /d\n', 'etc/fedora-release': 'Fedora release 40 (Forty)\n', 'root/anaconda-ks.cfg': '# x\nlang C\n', 'etc/machine-id': 'b' * 32 + '\n',
    'etc/crypttab': 'x UUID=1 - discard\n'}))

# What languages leave beside their packages.


def program():
    text = bytes(16) + b'path\tx\nmod\tgithub.com/a/b\t(devel)\t\ndep\tgolang.org/x/sys\tv0.1.0\th1:=\ndep\tc.d/e\tv1\n=>\tf.g/h\tv2\t\n' + bytes(16)
    section = (b'\xff Go buildinf:\x08\x02').ljust(32, b'\0') + b'\x08go1.22.1' + bytes([len(text) & 0x7f | 0x80, len(text) >> 7]) + text
    names = b'\0.shstrtab\0.go.buildinfo\0'
    body = section + names
    headers = bytes(64) + b''.join(struct.pack('<IIQQQQIIQQ', name, 1, 0, 0, at, size, 0, 0, 1, 0)
                                   for name, at, size in [(11, 64, len(section)), (1, 64 + len(section), len(names))])
    table = 64 + len(body)
    head = b'\x7fELF\2\1\1'.ljust(16, b'\0') + struct.pack('<HHIQQQIHHHHHH', 2, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    return (head + body + headers).ljust(70_000, b'\0')


jar = work / 'a.jar'
with zipfile.ZipFile(jar, 'w') as archive:
    archive.writestr('META-INF/MANIFEST.MF', 'Manifest-Version: 1.0\r\nImplementation-Title: a\r\nImplementation-Version: 1\r\n', zipfile.ZIP_DEFLATED)
    archive.writestr('META-INF/maven/g/a/pom.properties', 'groupId=g\nartifactId=a\nversion=1.0\n' * 5, zipfile.ZIP_DEFLATED)
    archive.writestr('META-INF/maven/g/b/pom.properties', 'groupId=g\nartifactId=b\nversion=2.0\n')
guest('languages', linux(DEBIAN, **{
    'usr/local/bin/program': program(), 'opt/a.jar': jar, 'srv/node_modules/b/package.json': '{"name":"b","version":"1.0.0","license":{"type":"MIT"},"description":"x","homepage":"https://example.com"}',
    'srv/node_modules/@s/c/package.json': '{"name":"@s/c","version":"2"}', 'usr/lib/python3/dist-packages/x-1.dist-info/METADATA': 'Metadata-Version: 2.1\nName: X_y\nVersion: 1.0\nLicense: MIT\nAuthor: a\n\nText\n',
    'usr/lib/python3/dist-packages/y.egg-info/PKG-INFO': 'Name: y\nVersion: 2\n', 'var/lib/gems/3.1.0/specifications/rake-13.gemspec': '# -*- encoding: utf-8 -*-\n# stub: rake 13.0.6 ruby lib\nGem::Specification.new do |s|\n s.name = "rake".freeze\n s.version = "13.0.6"\nend\n',
    'root/.cargo/.crates.toml': '[v1]\n"ripgrep 13.0.0 (registry+https://github.com/rust-lang/crates.io-index)" = ["rg"]\n"x 1 (path+file:///x)" = ["x"]\n',
    'srv/app.db': nix}))
shutil.rmtree(work)

# What the checks of profiles read beyond the inspection.


def certificate(*options):
    return run('openssl', 'req', '-x509', '-nodes', '-days', '3650', '-subj', '/C=XX/O=Seed, Inc./CN=www.example.org', '-addext',
               'subjectAltName=DNS:www.example.org,DNS:b.example.org', '-keyout', '/dev/null', *options, stderr=subprocess.DEVNULL)


def cpio(names):
    body = b''
    for name in [*names, 'TRAILER!!!']:
        fields = [1, 0o100644, 0, 0, 1, 0, 4, 0, 0, 0, 0, len(name) + 1, 0]
        body += b'070701' + b''.join(b'%08X' % field for field in fields) + name.encode() + b'\0'
        body += bytes(-len(body) % 4) + b'seed'
    return body


drivers = cpio(['init', 'lib/modules/6.1.0/kernel/drivers/block/virtio_blk.ko', 'lib/modules/6.1.0/kernel/drivers/nvme/host/nvme.ko.xz'])
rsa, ec = certificate('-newkey', 'rsa:2048'), certificate('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1')
profile = {
    'etc/nginx/conf.d/a.conf': 'server {\n  ssl_certificate /etc/nginx/a.pem;\n  ssl_protocols TLSv1 TLSv1.2;\n  listen 443 ssl;\n}\n', 'etc/nginx/a.pem': rsa,
    'etc/letsencrypt/live/a/cert.pem': ec, 'boot/vmlinuz-6.1.0': '#', 'boot/initrd.img-6.1.0': gzip.compress(drivers, mtime=0),
    'boot/config-6.1.0': 'CONFIG_VIRTIO_BLK=m\nCONFIG_HYPERV=y\n', 'usr/lib/modules/6.1.0/modules.dep': 'kernel/drivers/block/virtio_blk.ko:\n',
    'usr/lib/modules/6.1.0/modules.builtin': 'kernel/drivers/virtio/virtio_pci.ko\n',
    'boot/grub/grub.cfg': 'set superusers="root"\nmenuentry "a" --id b { linux /vmlinuz-6.1.0 root=/dev/sda1 ro quiet mitigations=off\n initrd /initrd.img-6.1.0 }\n',
    'etc/audit/rules.d/a.rules': '-D\n-b 8192\n-w /etc/passwd -p wa -k identity\n-a always,exit -F arch=b64 -S adjtimex,settimeofday -F auid>=1000 -F auid!=-1 -k time\n-e 2\n',
    'etc/audit/auditd.conf': 'max_log_file = 8\nspace_left_action = email\n', 'etc/pam.d/common-auth': 'auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\n',
    'etc/pam.d/su': 'auth required pam_wheel.so use_uid group=sudo\n@include common-auth\n', 'etc/security/pwquality.conf': 'minlen = 14\nminclass = 4\n',
    'etc/security/faillock.conf': 'deny = 5\nunlock_time = 900\n', 'etc/security/limits.conf': '* hard core 0\n',
    'etc/nftables.conf': 'flush ruleset\ntable inet f {\n chain last { log prefix "x: "; drop; }\n chain i {\n  type filter hook input priority 0; policy accept;\n  tcp dport { 22, 80 } accept\n  jump last\n }\n}\n',
    'etc/iptables/rules.v4': '*filter\n:INPUT DROP [0:0]\n:L - [0:0]\n-A INPUT -m comment --comment "a b" -j L\n-A L -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n',
    'etc/rsyslog.conf': '$FileCreateMode 0640\nmodule(load="imtcp")\n*.* @@log.example.org:514\nauth,authpriv.* /var/log/auth.log\n',
    'etc/systemd/journald.conf': '[Journal]\nStorage=persistent\nCompress=yes\n', 'etc/logrotate.conf': 'weekly\nrotate 4\ncreate\n',
    'etc/apt/sources.list.d/a.sources': 'Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main\nSigned-By: /usr/share/keyrings/a.gpg\n',
    'etc/yum.repos.d/a.repo': '[a]\nname=a\nbaseurl=http://example.org/\ngpgcheck=0\nenabled=1\n', 'etc/chrony/chrony.conf': 'pool 2.debian.pool.ntp.org iburst\nmakestep 1 3\n',
    'etc/login.defs': 'PASS_MAX_DAYS 365\nUMASK 027\nENCRYPT_METHOD SHA512\n', 'etc/shadow': 'root:$6$a$b:19000:0:99999:7:::\n', 'etc/group': 'root:x:0:\nsudo:x:27:\n',
    'etc/sudoers': 'Defaults use_pty\nroot ALL=(ALL:ALL) ALL\n%sudo ALL=(ALL) NOPASSWD: ALL\n', 'etc/ssh/sshd_config': 'PermitRootLogin yes\nCiphers aes128-cbc\nMatch User a\n  X11Forwarding yes\n',
    'usr/sbin/sshd': '#', 'etc/sysctl.d/a.conf': 'net.ipv4.ip_forward = 1\nkernel.randomize_va_space=2\n', 'etc/modprobe.d/a.conf': 'install cramfs /bin/false\nblacklist usb-storage\n',
    'etc/crypttab': 'a UUID=1 none luks\n', 'root/.bash_history': 'mysql -pSECRET\n', 'etc/hosts': '127.0.0.1 localhost\n',
    'etc/udev/rules.d/70-persistent-net.rules': 'SUBSYSTEM=="net", ATTR{address}=="00:50:56:00:00:01", NAME="eth0"\n',
    'var/lib/dpkg/status': 'Package: openssh-server\nStatus: install ok installed\nVersion: 1:9.2p1-2\nArchitecture: amd64\n\nPackage: open-vm-tools\nStatus: install ok installed\nVersion: 2:12\nArchitecture: amd64\n',
}
guest('profile', linux(DEBIAN) | profile)
shell = {path.lstrip('./'): held for path, held in ((member.name, tarfile_.extractfile(member).read()) for tarfile_ in
         [tarfile.open(engine / 'tests/fixtures/containers/storages.tar.xz')] for member in tarfile_.getmembers() if member.isfile())}
# A database of four pages instead of the space that it grew to.
metadata = 'var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db'
shell[metadata] = shell[metadata][:len(shell[metadata].rstrip(b'\0')) + 4095 & ~4095]
guest('surroundings', linux(DEBIAN) | shell | {
    'etc/crontab': 'SHELL=/bin/sh\n17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly\n@reboot root /bin/x\n', 'etc/anacrontab': '1\t5\tcron.daily\trun-parts /etc/cron.daily\n',
    'var/spool/cron/crontabs/root': '*/5 * * * * echo %\n', 'var/spool/cron/atjobs/a0000101c5f2a0': '#!/bin/sh\n# atrun uid=0 gid=0\nhalt\n',
    'etc/cloud/cloud.cfg': 'datasource_list: [ NoCloud, Ec2 ]\n', 'etc/cloud/cloud.cfg.d/a.cfg': 'datasource_list:\n  - None\n', 'var/lib/cloud/data/instance-id': 'iid-1\n',
    'var/lib/cloud/data/result.json': '{"v1": {"datasource": "DataSourceNoCloud", "errors": ["x"]}}', 'var/lib/cloud/instance/datasource': 'DataSourceNoCloud: DataSourceNoCloud [seed=/dev/sr0]\n',
    'var/lib/cloud/instance/boot-finished': '23.44 - Thu, 04 Jan 2024 09:12:13 +0000 - v. 23.4.1\n', 'etc/docker/daemon.json': '{"data-root": "/var/lib/docker"}',
    'etc/containers/storage.conf': '[storage]\ngraphroot = "/var/lib/containers/storage"\n', 'opt/jdk/release': 'JAVA_VERSION="21.0.1"\n', 'usr/local/go/VERSION': 'go1.21.5\n',
    'etc/ssl/a.pem': ec, 'srv/a.der': run('openssl', 'x509', '-outform', 'DER', input=rsa), 'usr/sbin/waagent': '#'}, size='4M')

# What sadc recorded, and beside the system a volume that BitLocker encrypts: both in one disk.
IDENTIFIER = bytes.fromhex('3bd66749292ed84a8399f6a339e3d001')


def history(samples):
    """A file of sysstat 12.6.1 with processors, swapping and memory."""
    held = struct.pack('<HH4B2I3I', 0xd596, 0x2175, 12, 6, 1, 0, 336, 0, 1, 1, 12) + bytes(48)
    held += struct.pack('<QQII10I3B', 1700000000, 100, 3, 3, 123, 0, 0, 9, 2, 0, 1, 36, 24, 0, 1, 0, 8) + bytes(269)
    for activity in [(1, 0x8b, 1, 1, 1, 80, 10, 0, 0), (4, 0x8a, 1, 1, 0, 16, 0, 2, 0), (7, 0x8b, 1, 1, 0, 136, 17, 0, 0)]:
        held += struct.pack('<9I', *activity)
    for number in range(samples):
        held += struct.pack('<QQI4B', number * 60000, 1700000000 + number * 600, 0, 1, 0, 0, 0)
        held += struct.pack('<I10Q', 1, number * 9, 0, number * 3, number * 80, number, 0, 0, 0, 0, 0)
        held += struct.pack('<2Q', number, number) + struct.pack('<17Q', 50, 10, 10, 100, *[0] * 8, 5, *[0] * 4)
    return held + struct.pack('<QQI4BI', 0, 0, 0, 2, 0, 0, 0, 3) + struct.pack('<QQI4B', 0, 0, 0, 4, 0, 0, 0) + bytes(64)


def bitlocker():
    keys = b''.join(struct.pack('<4H16s10xH', 36, 2, 8, 1, bytes([number]) * 16, protection)
                    for number, protection in enumerate([0x0100, 0x0800, 0]))
    block = struct.pack('<8s4H16xQ24x', b'-FVE-FS-', 64, 2, 4, 4, 0x8000) + struct.pack('<4I', 48 + len(keys), 1, 48, 48 + len(keys))
    block += bytes(20) + struct.pack('<HH8x', 0x8004, 0) + keys
    volume = bytearray(192 << 10)
    for at, held in [(0, b'\xeb\x58\x90-FVE-FS-\0\x02\x08'), (160, IDENTIFIER), (176, struct.pack('<QQ', 0x10000, 0x20000)),
                     (510, b'\x55\xaa'), (0x10000, block), (0x20000, block)]:
        volume[at:at + len(held)] = held
    return bytes(volume)


guest('history', linux(DEBIAN) | {'var/log/sysstat/sa01': history(20)})
disk, system = bytearray(32 << 10), (work / 'guest-history.img').read_bytes()
for number, (start, count, kind) in enumerate([(64, len(system) // 512, 0x83), (64 + len(system) // 512, 384, 0x07)]):
    disk[446 + number * 16:462 + number * 16] = struct.pack('<4xB3xII', kind, start, count)
disk[510:512] = b'\x55\xaa'
(dest / 'guest-history.img.xz').write_bytes(run('xz', '-9e', '-c', input=bytes(disk) + system + bitlocker()))
