//! RAID, LVM and LUKS against volumes that a Linux 6.1 wrote and hashed (`fixtures/volumes`, with the recipe beside them),
//! and the guests of the corpus, whose files a kernel read.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guestkit::image::Roots;
use guestkit::{Device, DeviceKind, Disk, Error, ImageSpec, Keys, Limits, Secret, Tree};
use sha2::{Digest as _, Sha256};
use support::{Noise, corpus, has_tool, run};

const PASSPHRASE: &[u8] = b"devcorpus";

fn keys(secret: &[u8]) -> Keys {
    let mut keys = Keys::none();
    keys.add("all", Secret::new(secret.to_vec()));
    keys
}

/// An unpacked fixture.
struct Fixture {
    name: String,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn disks(&self) -> Vec<PathBuf> {
        (0..).map(|number| self.folder.path().join(format!("{number}.img"))).take_while(|path| path.exists()).collect()
    }

    /// Name, length and SHA-256 of each device the kernel read.
    fn truth(&self) -> Vec<(String, u64, String)> {
        let text = fs::read_to_string(self.folder.path().join("truth")).unwrap();
        let fields = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        text.lines()
            .map(|line| match fields(line).as_slice() {
                [name, size, hash] => (name.clone(), size.parse().unwrap(), hash.clone()),
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

/// The fixtures whose names begin so, in order.
fn fixtures(wanted: &str) -> Vec<Fixture> {
    if !has_tool("xz") {
        return Vec::new();
    }
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/volumes");
    let mut found: Vec<_> = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let fixture = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(".tar.xz")?.to_owned();
        name.starts_with(wanted).then(|| {
            let folder = tempfile::tempdir().unwrap();
            run("tar", &["-xJf", path.to_str().unwrap(), "-C", folder.path().to_str().unwrap()]);
            Fixture { name, folder }
        })
    };
    found.into_iter().filter_map(fixture).collect()
}

fn open(disks: &[PathBuf], keys: &Keys) -> Disk {
    let specs: Vec<_> = disks.iter().map(ImageSpec::recognised).collect();
    Disk::open_with_keys(&specs, &Roots::anywhere(), keys, &Limits::default()).unwrap()
}

/// The device that the kernel's name in a truth file stands for.
fn device<'a>(disk: &'a Disk, name: &str) -> Option<&'a Device> {
    let top = disk.arrays().last().and_then(|array| array.device.clone());
    match name {
        "md" => disk.device(&top?),
        "luks" => disk.devices().iter().find(|device| device.kind == DeviceKind::Crypt),
        "p1" | "p2" => disk.device(&format!("{}{name}", top?)),
        _ => {
            let is_called = |device: &&Device| device.name.ends_with(&format!("/{name}"));
            disk.devices().iter().filter(|device| device.kind == DeviceKind::Lvm).find(is_called)
        }
    }
}

/// SHA-256 of all bytes, read in pieces of `piece` bytes.
fn hash(device: &Device, piece: usize) -> Result<String, Error> {
    let source = device.source();
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; piece];
    let mut at = 0;
    while at < source.len() {
        let length = usize::try_from((source.len() - at).min(piece as u64)).unwrap();
        source.read_exact_at(&mut buffer[..length], at)?;
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn warnings(disk: &Disk) -> String {
    disk.warnings().iter().map(|warning| format!("{}: {}: {}\n", warning.device, warning.what, warning.why)).collect()
}

/// Fixtures of what is refused, with words of the refusal.
const REFUSED: [(&str, &str); 1] = [("raid5-reshaping", "being reshaped")];

/// Fixtures whose truth is that of an array with a table on it: the array itself is no device of ours.
fn has_table(fixture: &Fixture) -> bool {
    fixture.truth().iter().any(|(name, ..)| name == "p1" || name == "p2")
}

fn check(wanted: &str) {
    let mut failures = Vec::new();
    let mut agree = 0;
    for fixture in fixtures(wanted) {
        let disk = open(&fixture.disks(), &keys(PASSPHRASE));
        for (name, size, expected) in fixture.truth() {
            let label = format!("{} {name}", fixture.name);
            if let Some((_, words)) = REFUSED.iter().find(|(refused, _)| *refused == fixture.name) {
                let said = warnings(&disk);
                assert!(device(&disk, &name).is_none() && said.contains(words), "{label}: {said}");
                continue;
            }
            if name == "md" && has_table(&fixture) {
                continue;
            }
            let Some(device) = device(&disk, &name) else {
                failures.push(format!("{label}: no device; {}", warnings(&disk)));
                continue;
            };
            // Pieces that fit no structure's size, and ones below a page of the cache.
            for piece in [300_007, 5_000] {
                let found = hash(device, piece);
                if found.as_ref().is_ok_and(|found| *found == expected) && device.size_bytes == size {
                    agree += 1;
                } else {
                    let said = warnings(&disk);
                    failures.push(format!("{label}: {} of {size} bytes, {found:?}; {said}", device.size_bytes));
                    break;
                }
            }
        }
    }
    println!("{wanted}: {} volumes agree", agree / 2);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn arrays_are_read_as_the_kernel_reads_them() {
    check("raid");
    check("linear");
}

#[test]
fn logical_volumes_are_read_as_the_kernel_reads_them() {
    check("lvm");
}

#[test]
fn encrypted_volumes_are_read_as_the_kernel_reads_them() {
    check("luks");
    check("tower");
}

/// Asserts that two devices hold the same, at places all over them.
fn assert_alike(found: &Device, expected: &Device, label: &str) {
    assert_eq!(found.size_bytes, expected.size_bytes, "{label}");
    let length = usize::try_from(expected.size_bytes.min(70_001)).unwrap();
    let (mut these, mut those) = (vec![0; length], vec![0; length]);
    for place in 0..=30 {
        let at = (expected.size_bytes - length as u64) / 30 * place;
        found.source().read_exact_at(&mut these, at).unwrap_or_else(|error| panic!("{label} at {at}: {error}"));
        expected.source().read_exact_at(&mut those, at).unwrap();
        support::assert_same(&these, &those, label);
    }
}

/// Whether an array holds its bytes without the members `missing`.
fn survives(name: &str, members: usize, missing: &[usize]) -> bool {
    let adjacent = |a: usize, b: usize| (a + 1) % members == b || (b + 1) % members == a;
    match missing {
        [_] => !name.starts_with("raid0") && !name.starts_with("linear"),
        [_, _] if name.starts_with("raid6") => true,
        [_, _] if name == "raid10-n3-5" || name == "raid10-f3-5" => true,
        [a, b] if name == "raid10-n2-4" => a / 2 != b / 2,
        [a, b] if name.starts_with("raid10") => !adjacent(*a, *b),
        _ => false,
    }
}

#[test]
fn degraded_arrays_are_read_and_hopeless_ones_refused() {
    let skipped = ["raid1-failed", "raid5-failed", "raid5-rebuilding", "raid5-reshaping", "raid1-of-raid0"];
    for fixture in fixtures("raid") {
        if skipped.contains(&fixture.name.as_str()) || has_table(&fixture) || fixture.name == "raid1-last-090" {
            continue;
        }
        let disks = fixture.disks();
        let whole = open(&disks, &Keys::none());
        let count = disks.len();
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| vec![a, b]));
        for missing in (0..count).map(|a| vec![a]).chain(pairs) {
            let label = format!("{} without {missing:?}", fixture.name);
            let left = (0..count).filter(|index| !missing.contains(index));
            let left: Vec<_> = left.map(|index| disks[index].clone()).collect();
            let disk = open(&left, &Keys::none());
            let said = warnings(&disk);
            assert!(left.is_empty() || said.contains("missing"), "{label}: {said}");
            match device(&disk, "md") {
                Some(device) => {
                    assert!(survives(&fixture.name, count, &missing), "{label} is read");
                    assert_alike(device, self::device(&whole, "md").unwrap(), &label);
                }
                None => assert!(!survives(&fixture.name, count, &missing), "{label}: {said}"),
            }
        }
    }
}

#[test]
fn volumes_that_lie_on_a_missing_disk_are_refused_and_the_others_read() {
    for fixture in fixtures("lvm-").into_iter().filter(|fixture| fixture.disks().len() > 1) {
        let disks = fixture.disks();
        let mut read = 0;
        for missing in 0..disks.len() {
            let mut left = disks.clone();
            left.remove(missing);
            let disk = open(&left, &Keys::none());
            let said = warnings(&disk);
            assert!(said.contains("physical volume") && said.contains("is missing"), "{said}");
            for (name, _, expected) in fixture.truth() {
                let label = format!("{} {name} without disk {missing}", fixture.name);
                let has_copies = ["r1", "r4", "r5", "r6", "mir"].iter().any(|kind| name.starts_with(kind));
                match device(&disk, &name) {
                    Some(device) => {
                        read += 1;
                        assert_eq!(hash(device, 100_003).unwrap(), expected, "{label}");
                    }
                    None => assert!(!has_copies && said.contains(&format!("/dev/vg/{name}: ")), "{label}: {said}"),
                }
            }
        }
        assert!(read > 0, "{}", fixture.name);
    }
}

#[test]
fn copies_of_a_disk_are_told_and_left_out() {
    let cases =
        [("lvm-thin", "copies of one disk"), ("raid1-1.2", "both have place"), ("luks2-4096", "copies of one disk")];
    for (name, words) in cases {
        let Some(fixture) = fixtures(name).pop() else { continue };
        let mut disks = fixture.disks();
        let copy = fixture.folder.path().join("copy.img");
        fs::copy(&disks[0], &copy).unwrap();
        disks.push(copy);
        let disk = open(&disks, &keys(PASSPHRASE));
        assert!(warnings(&disk).contains(words), "{name}: {}", warnings(&disk));
        let (device_name, _, expected) = fixture.truth().remove(0);
        assert_eq!(hash(device(&disk, &device_name).unwrap(), 1 << 20).unwrap(), expected, "{name}");
    }
}

#[test]
fn what_is_made_of_what_is_told() {
    let Some(fixture) = fixtures("tower").pop() else { return };
    let disk = open(&fixture.disks(), &keys(PASSPHRASE));
    let kinds: Vec<_> = disk.devices().iter().map(|device| (device.name.as_str(), device.kind.name())).collect();
    let crypt = disk.devices().iter().find(|device| device.kind == DeviceKind::Crypt).unwrap();
    let expected = [
        ("/dev/sda", "disk"),
        ("/dev/sdb", "disk"),
        ("/dev/sdc", "disk"),
        ("/dev/md127", "raid"),
        (crypt.name.as_str(), "crypt"),
        ("/dev/tow/top", "lvm"),
    ];
    assert_eq!(kinds, expected);
    let of = |name: &str| disk.device(name).unwrap();
    assert_eq!(of("/dev/md127").parents, ["/dev/sda", "/dev/sdb", "/dev/sdc"]);
    assert_eq!(of("/dev/sda").holders, ["/dev/md127"]);
    assert_eq!(crypt.parents, ["/dev/md127"]);
    assert_eq!(of("/dev/tow/top").parents, std::slice::from_ref(&crypt.name));
    assert!(disk.device_called("/dev/mapper/tow-top").is_some());
    let array = &disk.arrays()[0];
    assert_eq!((array.level.as_str(), array.version.as_str(), array.members_expected), ("raid5", "1.2", 3));
    let group = &disk.volume_groups()[0];
    let volume = &group.logical_volumes[0];
    assert_eq!((group.name.as_str(), group.extent_bytes, volume.size_bytes), ("tow", 512 << 10, 15 << 20));
    assert_eq!(group.size_bytes - group.free_bytes, 15 << 20);
    let closed = open(&fixture.disks(), &Keys::none());
    let Err(Error::Encrypted { what }) = closed.mount(closed.device("/dev/md127").unwrap()) else { panic!() };
    assert!(what.contains("/dev/md127 (crypto_LUKS, UUID ") && what.contains("opens it"), "{what}");
    let wrong = open(&fixture.disks(), &keys(b"something else"));
    let Err(Error::Encrypted { what }) = wrong.mount(wrong.device("/dev/md127").unwrap()) else { panic!() };
    assert!(what.contains("no key that was given"), "{what}");
}

/// The text between `open` and the next `close`, for each `open`.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

#[test]
fn guests_of_the_corpus_have_the_files_and_devices_that_a_kernel_saw() {
    let Some(corpus) = corpus() else { return };
    for (guest, disks) in [("lvm", 1), ("luks2-on-lvm", 1), ("md1", 2), ("md5", 3)] {
        let part = |number: usize| if disks == 1 { guest.to_owned() } else { format!("{guest}.{number}") };
        let paths: Vec<_> = (1..=disks).map(|number| corpus.join(format!("guests/{}.raw", part(number)))).collect();
        let disk = open(&paths, &keys(PASSPHRASE));
        let truth = corpus.join("stacks/truth");
        let xml = fs::read_to_string(truth.join(format!("{guest}.virt-inspector.xml"))).unwrap();
        for entry in between(&xml, "<filesystem dev=\"", "</filesystem>") {
            let name = entry.split('"').next().unwrap();
            let Some(device) = disk.device(name) else { panic!("{guest}: no {name}: {}", warnings(&disk)) };
            let probe = device.probe.as_ref().unwrap();
            assert_eq!(Some(probe.kind), between(entry, "<type>", "<").next(), "{guest} {name}");
            assert_eq!(probe.label.as_deref(), between(entry, "<label>", "<").next(), "{guest} {name}");
            assert_eq!(probe.uuid.as_deref(), between(entry, "<uuid>", "<").next(), "{guest} {name}");
        }
        let root = between(&xml, "<root>", "<").next().unwrap();
        let mut tree = Tree::new(disk.mount(disk.device(root).unwrap()).unwrap(), Arc::clone(disk.budget()));
        let mut unread = Vec::new();
        for entry in between(&xml, "<mountpoint dev=\"", "</mountpoint>") {
            let (name, path) = entry.split_once("\">").unwrap();
            if path != "/" {
                match disk.mount(disk.device(name).unwrap()) {
                    Ok(file_system) => assert!(tree.mount(path, file_system).unwrap()),
                    Err(Error::Unsupported { .. }) => unread.push(format!("{path}/")),
                    Err(error) => panic!("{guest} {name}: {error}"),
                }
            }
        }
        let mut compared = 0;
        for line in fs::read_to_string(truth.join(format!("{guest}.files.tsv"))).unwrap().lines().skip(1) {
            let fields: Vec<_> = line.split('\t').collect();
            let [path, kind, mode, _, _, size, sha, ..] = fields[..] else { panic!("{line}") };
            if unread.iter().any(|prefix| format!("{path}/").starts_with(prefix)) {
                continue;
            }
            compared += 1;
            let Some(metadata) = tree.symlink_metadata(path).unwrap() else { panic!("{guest}: {path}") };
            assert_eq!(format!("{:04o}", metadata.mode), mode, "{guest}: {path}");
            if kind == "file" {
                assert_eq!(metadata.size.to_string(), size, "{guest}: {path}");
                let content = tree.read_file(path).unwrap().unwrap();
                let found: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(found, sha, "{guest}: {path}");
            }
        }
        let read = disk.budget().bytes_read();
        println!("{guest}: {compared} files agree, not read: {unread:?}, {read} bytes read");
        assert!(compared > 20, "{guest}");
    }
}

/// Truth: the outcomes of cryptsetup 2.6.1 in the corpus.
#[test]
fn headers_of_cryptsetup_are_opened_or_refused_as_it_does() {
    let Some(corpus) = corpus() else { return };
    let home = tempfile::tempdir().unwrap();
    let mut opened = 0;
    for entry in fs::read_dir(corpus.join("luks")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() || !name.ends_with(".xz") || name.contains("tar") {
            continue;
        }
        let image = home.path().join(name.trim_end_matches(".xz").trim_end_matches(".img")).with_extension("raw");
        fs::write(&image, support::unpacked(&path)).unwrap();
        let started = Instant::now();
        let disk = open(std::slice::from_ref(&image), &keys(b"compatkey"));
        let wrong = open(std::slice::from_ref(&image), &keys(b"definitely-wrong"));
        assert!(started.elapsed() < Duration::from_secs(120), "{name}");
        let plain = disk.devices().iter().find(|device| device.kind == DeviceKind::Crypt);
        println!("{name}: {}; {}", plain.is_some(), warnings(&disk));
        assert!(wrong.devices().iter().all(|device| device.kind != DeviceKind::Crypt), "{name}");
        if name.starts_with("compat") {
            opened += 1;
            let Some(plain) = plain else { panic!("{name}: {}", warnings(&disk)) };
            hash(plain, 1 << 20).unwrap();
        } else {
            assert!(plain.is_none(), "{name}");
        }
        if name.starts_with("evil") {
            assert!(warnings(&disk).contains("is corrupt"), "{name}: {}", warnings(&disk));
        }
    }
    assert_eq!(opened, 3);
}

/// The plain bytes by QEMU's own LUKS driver.
#[test]
fn what_qemu_encrypts_is_read_as_qemu_reads_it() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("plain"), Noise::new(11).disk(1 << 20)).unwrap();
    let secret = "secret,id=s,data=devcorpus";
    for (cipher, mode, ivgen, hash_name) in [
        ("aes-256", "xts", "plain64", "sha256"),
        ("aes-128", "cbc", "essiv", "sha1"),
        ("aes-192", "cbc", "plain", "sha512"),
        ("serpent-256", "xts", "plain64", "sha256"),
        ("twofish-256", "cbc", "plain64", "sha256"),
        ("aes-256", "xts", "plain64", "ripemd160"),
    ] {
        let label = format!("{cipher}-{mode}-{ivgen}, {hash_name}");
        let mut options = format!("key-secret=s,iter-time=10,cipher-alg={cipher},cipher-mode={mode}");
        options.push_str(&format!(",ivgen-alg={ivgen},hash-alg={hash_name}"));
        if ivgen == "essiv" {
            options.push_str(",ivgen-hash-alg=sha256");
        }
        let (from, to) = (path("plain"), path("luks.raw"));
        let arguments = ["convert", "--object", secret, "-f", "raw", "-O", "luks", "-o", &options, &from, &to];
        let made = std::process::Command::new("qemu-img").args(arguments).output().unwrap();
        if !made.status.success() {
            println!("{label}: {}", String::from_utf8_lossy(&made.stderr));
            continue;
        }
        let disk = open(&[to.into()], &keys(PASSPHRASE));
        let plain = disk.devices().iter().find(|device| device.kind == DeviceKind::Crypt);
        let Some(plain) = plain else { panic!("{label}: {}", warnings(&disk)) };
        let mut found = vec![0; 1 << 20];
        for (part, at) in found.chunks_mut(70_001).zip((0..).step_by(70_001)) {
            plain.source().read_exact_at(part, at).unwrap();
        }
        support::assert_same(&found, &fs::read(&from).unwrap(), &label);
    }
}

/// Structures changed at places drawn from a seed, and disks cut short: an answer within seconds, and no panic.
#[test]
fn hostile_volumes_end_in_an_answer() {
    let mut noise = Noise::new(77);
    let names = [
        "lvm-thin",
        "lvm-snapshot",
        "lvm-cache",
        "lvm-raid5",
        "raid0-zones",
        "raid6-ls",
        "raid10-f2-5",
        "raid1-0.90",
        "luks1-cbc-plain",
        "luks2-4096",
    ];
    for name in names {
        let Some(fixture) = fixtures(name).into_iter().find(|fixture| fixture.name == name) else { continue };
        let disks = fixture.disks();
        let first = fs::read(&disks[0]).unwrap();
        // Where something stands that is not of the pattern that the volumes are filled with.
        let is_structure = |at: &usize| first[*at] != 0 && (at % 4096 > 16 || *at < 1 << 20);
        let places: Vec<usize> = (0..first.len()).filter(is_structure).collect();
        for _ in 0..24 {
            let mut bytes = first.clone();
            for _ in 0..=noise.below(4) {
                bytes[places[noise.below(places.len())]] = noise.next() as u8;
            }
            if noise.below(4) == 0 {
                bytes.truncate(noise.below(first.len()).max(512));
            }
            fs::write(&disks[0], &bytes).unwrap();
            let specs: Vec<_> = disks.iter().map(ImageSpec::recognised).collect();
            let limits = Limits { time: Duration::from_secs(5), ..Limits::default() };
            let started = Instant::now();
            if let Ok(disk) = Disk::open_with_keys(&specs, &Roots::anywhere(), &keys(PASSPHRASE), &limits) {
                for device in disk.devices() {
                    let source = device.source();
                    for at in [0, device.size_bytes / 2, device.size_bytes.saturating_sub(9000)] {
                        let _ = source.read_exact_at(&mut [0; 8000], at);
                    }
                    let _ = disk.mount(device);
                }
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{name}: {:?}", started.elapsed());
        }
    }
}

#[test]
fn a_bound_on_devices_is_kept() {
    let Some(fixture) = fixtures("lvm-plain").pop() else { return };
    let specs: Vec<_> = fixture.disks().iter().map(ImageSpec::recognised).collect();
    let limits = Limits { devices: 7, ..Limits::default() };
    let found = Disk::open(&specs, &Roots::anywhere(), &limits);
    assert!(matches!(found, Err(Error::LimitReached { .. })));
}
