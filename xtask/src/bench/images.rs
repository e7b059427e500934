//! The images that the engine is measured on: file systems as the kernel writes them, in each format as qemu-img writes it.
//! Made once into a folder beside the build, the same bytes on every machine.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell::{check, find, say, target_dir};

pub(super) const FILE_SYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];
/// Bytes of the file that is read from end to end.
const FILE_BYTES: u64 = 1 << 30;
/// Its path on every image that holds it.
pub(super) const FILE: &str = "/contents.bin";
/// Bytes of an image: the file, and what a file system keeps beside it.
const IMAGE_BYTES: u64 = 1300 << 20;
/// Files of the tree that is walked.
pub(super) const FILES: u64 = 200_000;
/// Packages of the rpm database.
pub(super) const PACKAGES: u64 = 2_000;

/// A format as qemu-img converts into it: what a table calls it, its driver, options.
pub(super) struct Format {
    pub(super) name: &'static str,
    pub(super) driver: &'static str,
    options: &'static [&'static str],
}

pub(super) const FORMATS: [Format; 8] = [
    Format { name: "qcow2", driver: "qcow2", options: &[] },
    Format { name: "qcow2, zlib", driver: "qcow2", options: &["-c", "-o", "compression_type=zlib"] },
    Format { name: "qcow2, zstd", driver: "qcow2", options: &["-c", "-o", "compression_type=zstd"] },
    Format { name: "vmdk, sparse", driver: "vmdk", options: &["-o", "subformat=monolithicSparse"] },
    Format { name: "vmdk, stream-optimized", driver: "vmdk", options: &["-o", "subformat=streamOptimized"] },
    Format { name: "vhdx", driver: "vhdx", options: &[] },
    Format { name: "vdi", driver: "vdi", options: &[] },
    Format { name: "vhd", driver: "vpc", options: &[] },
];

fn folder() -> Result<PathBuf> {
    let folder = target_dir().join("bench-engine");
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    folder.canonicalize().with_context(|| format!("failed to find {}", folder.display()))
}

/// An image mounted by the kernel, as long as this lives.
pub(super) struct Mounted {
    pub(super) at: PathBuf,
}

impl Mounted {
    /// Mounts `image` for reading.
    ///
    /// # Errors
    /// What mount(8) says; many machines allow it to root alone, some to nobody.
    pub(super) fn new(image: &Path) -> Result<Self> {
        Self::with(image, "loop,ro")
    }

    fn with(image: &Path, options: &str) -> Result<Self> {
        let at = folder()?.join("mounted");
        fs::create_dir_all(&at).with_context(|| format!("failed to make {}", at.display()))?;
        let output =
            Command::new("mount").args(["-o", options]).args([image, &at]).output().context("failed to start mount")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim().lines().next().unwrap_or("mount failed"));
        }
        Ok(Self { at })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What stays mounted is said by umount itself.
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

/// The image of `kind` that holds [`FILE`], and enough of an operating system to be a guest.
pub(super) fn with_file(kind: &str) -> Result<PathBuf> {
    made(&format!("file-{kind}.raw"), kind, |root| {
        let etc = root.join("etc");
        ["bin", "etc", "usr"].into_iter().try_for_each(|name| fs::create_dir(root.join(name)))?;
        fs::write(etc.join("os-release"), "ID=debian\nVERSION_ID=13\n")?;
        write_contents(&root.join(FILE.trim_start_matches('/')))
    })
}

/// The image of `kind` with [`FILES`] files in 2000 directories.
pub(super) fn with_tree(kind: &str) -> Result<PathBuf> {
    made(&format!("tree-{kind}.raw"), kind, |root| {
        let mut random = Random(2);
        for number in 0..FILES {
            let directory = root.join(format!("dir{:02}/part{:02}", number / 10_000, number / 100 % 100));
            if number % 100 == 0 {
                fs::create_dir_all(&directory)?;
            }
            // A walk does not look at contents, so they take no room.
            File::create(directory.join(format!("file-{number:06}.dat")))?.set_len(random.next() >> 44)?;
        }
        Ok(())
    })
}

/// An image with [`PACKAGES`] packages of rpm: the headers of a real database, again and again.
pub(super) fn with_rpms(corpus: &Path) -> Result<PathBuf> {
    let real = corpus.join("rpmdb/cbl-mariner-2.0/rpmdb.sqlite");
    made("rpms.raw", "ext4", |root| {
        let folder = root.join("usr/lib/sysimage/rpm");
        fs::create_dir_all(&folder)?;
        ["bin", "etc", "var/lib"].into_iter().try_for_each(|name| fs::create_dir_all(root.join(name)))?;
        symlink("../../usr/lib/sysimage/rpm", root.join("var/lib/rpm"))?;
        fs::write(root.join("etc/os-release"), "ID=fedora\nVERSION_ID=40\nPRETTY_NAME=\"Fedora Linux 40\"\n")?;
        let fill = format!(
            "ATTACH 'file:{}?immutable=1' AS real;
             CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);
             WITH RECURSIVE times(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM times WHERE n < {PACKAGES})
             INSERT INTO Packages (blob) SELECT blob FROM times, real.Packages LIMIT {PACKAGES};",
            real.display()
        );
        let status = Command::new("sqlite3").arg(folder.join("rpmdb.sqlite")).arg(fill).status()?;
        if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("sqlite3 ended with {status}"))) }
    })
}

fn made(name: &str, kind: &str, fill: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<PathBuf> {
    let path = folder()?.join(name);
    if path.is_file() {
        return Ok(path);
    }
    say(format_args!("making {}", path.display()));
    let part = path.with_extension("part");
    File::create(&part)
        .and_then(|file| file.set_len(IMAGE_BYTES))
        .with_context(|| format!("failed to make {}", part.display()))?;
    let program = format!("mkfs.{kind}");
    let mut mkfs = Command::new(find(&program).with_context(|| format!("{program} is not installed"))?);
    match kind {
        // The default has too few inodes for the tree.
        "ext4" => mkfs.args(["-q", "-F", "-N", "260000"]),
        _ => mkfs.args(["-q", "-f"]),
    };
    check(mkfs.arg(&part).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let mounted = Mounted::with(&part, "loop")?;
    fill(&mounted.at).with_context(|| format!("failed to fill {}", part.display()))?;
    drop(mounted);
    fs::rename(&part, &path).with_context(|| format!("failed to rename {}", part.display()))?;
    Ok(path)
}

/// `image` in another format, as long as this lives: nine of a gigabyte each are too many to keep.
pub(super) struct Converted {
    pub(super) path: PathBuf,
    /// Bytes of the disk in it; some formats round them up.
    pub(super) virtual_bytes: u64,
}

impl Converted {
    pub(super) fn new(image: &Path, format: &Format) -> Result<Self> {
        let mut converted = Self { path: image.with_extension(format.driver), virtual_bytes: 0 };
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-W", "-f", "raw", "-O", format.driver]).args(format.options);
        check(convert.arg(image).arg(&converted.path))?;
        let output = Command::new("qemu-img")
            .args(["info", "--output=json", "-f", format.driver])
            .arg(&converted.path)
            .output()
            .context("failed to start qemu-img")?;
        let told: Value = serde_json::from_slice(&output.stdout).context("failed to read what qemu-img info told")?;
        converted.virtual_bytes =
            told.get("virtual-size").and_then(Value::as_u64).context("an image without a size")?;
        Ok(converted)
    }
}

impl Drop for Converted {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Half of its blocks of 4 KiB are random, the others words: compressors find in it what they find on a disk of both
/// packed files and text.
fn write_contents(path: &Path) -> std::io::Result<()> {
    const BLOCK_BYTES: usize = 4096;
    let mut random = Random(1);
    let words: Vec<Vec<u8>> = (0..2048)
        .map(|_| {
            let length = 2 + random.next() % 8;
            let letters = (0..length).map(|_| b'a' + u8::try_from(random.next() % 26).unwrap_or(0));
            letters.chain([b' ']).collect()
        })
        .collect();
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut block = Vec::with_capacity(2 * BLOCK_BYTES);
    for _ in 0..FILE_BYTES / BLOCK_BYTES as u64 {
        block.clear();
        let is_random = random.next().is_multiple_of(2);
        while block.len() < BLOCK_BYTES {
            let number = random.next();
            if is_random {
                block.extend_from_slice(&number.to_le_bytes());
            } else if let Some(word) = usize::try_from(number % 2048).ok().and_then(|index| words.get(index)) {
                block.extend_from_slice(word);
            }
        }
        block.truncate(BLOCK_BYTES);
        out.write_all(&block)?;
    }
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
