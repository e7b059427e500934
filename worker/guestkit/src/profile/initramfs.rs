//! The modules in an initial RAM disk: cpio archives one behind the other, the first often uncompressed for processors' own
//! updates, the last compressed. Only names are looked at. Sources: Linux, `Documentation/driver-api/early-userspace/
//! buffer-format.rst`; cpio(5), "New ASCII Format".

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::guest::linux::files::Files;
use crate::read_at::{Cursor, ReadAt as _, Source};

/// The largest archive that is looked through, packed.
const PACKED_MAX: u64 = 256 << 20;
/// The largest archive, unpacked: distributions' are a few hundred megabytes at most.
const UNPACKED_MAX: u64 = 1 << 30;
/// Memory that a decoder may ask for: `xz -9` needs 65 MiB, and zstd of that level has windows of up to 128 MiB.
const MEMORY_KIB_MAX: u32 = 128 << 10;
const WINDOW_BYTES_MAX: u64 = 128 << 20;
/// Names in one archive.
const NAMES_MAX: usize = 100_000;
/// Bytes of one name (PATH_MAX of Linux).
const NAME_MAX: u64 = 4_096;

/// Names of modules that were met, `-` written as `_`, without `.ko` and what compresses it.
struct Met<'w> {
    names: BTreeSet<String>,
    wanted: &'w BTreeSet<&'w str>,
    /// Of those that are wanted, how many have not been met.
    missing: usize,
}

impl Met<'_> {
    fn insert(&mut self, name: String) {
        let is_wanted = self.wanted.contains(name.as_str());
        if self.names.insert(name) && is_wanted {
            self.missing = self.missing.saturating_sub(1);
        }
    }

    /// Whether nothing that is wanted can follow: unpacking the rest, which is most of the work, would tell nothing.
    const fn is_done(&self) -> bool {
        self.missing == 0
    }
}

/// Names of modules, `-` written as `_`, without `.ko` and what compresses it. All of them, or, where every one of `wanted` is
/// there, those up to the last of these.
///
/// # Errors
/// Why the archive cannot be looked through.
pub(crate) fn modules(files: &Files<'_>, path: &str, wanted: &BTreeSet<&str>) -> Result<BTreeSet<String>, String> {
    let Some(file) = files.open(path) else { return Err(format!("{path} is not there or cannot be opened")) };
    if file.len() > PACKED_MAX {
        return Err(format!("{path} is larger than {} MiB", PACKED_MAX >> 20));
    }
    let mut found = Met { names: BTreeSet::new(), wanted, missing: wanted.len() };
    // Decoders meet hostile bytes here; one that panics has found them broken.
    let result = catch_unwind(AssertUnwindSafe(|| read(Arc::new(file), &mut found)));
    result.unwrap_or_else(|_| Err("it is broken".to_owned())).map_err(|why| format!("{path}: {why}"))?;
    Ok(found.names)
}

fn read(file: Source, found: &mut Met<'_>) -> Result<(), String> {
    let mut input = BufReader::with_capacity(1 << 20, Cursor::new(file));
    // Uncompressed archives first; zeros between them are padding.
    loop {
        let start = peek(&mut input)?;
        match start.first() {
            None => return Ok(()),
            Some(0) => {
                let zeros = start.iter().take_while(|byte| **byte == 0).count();
                input.consume(zeros);
            }
            Some(b'0') => {
                archive(&mut input, found)?;
                if found.is_done() {
                    return Ok(());
                }
            }
            Some(_) => return compressed(input, found),
        }
    }
}

fn peek(input: &mut impl BufRead) -> Result<&[u8], String> {
    input.fill_buf().map_err(|error| error.to_string())
}

fn compressed(mut input: impl BufRead, found: &mut Met<'_>) -> Result<(), String> {
    let start: Vec<u8> = peek(&mut input)?.iter().take(6).copied().collect();
    let mut unpacked = |reader: &mut dyn Read| -> Result<(), String> {
        // Large beside the 32 KiB that an inflater keeps of what it gave last, and copies each time.
        let mut reader = BufReader::with_capacity(1 << 18, reader.take(UNPACKED_MAX));
        while peek(&mut reader)?.first() == Some(&b'0') {
            archive(&mut reader, found)?;
            if found.is_done() {
                return Ok(());
            }
            while peek(&mut reader)?.first() == Some(&0) {
                let zeros = peek(&mut reader)?.iter().take_while(|byte| **byte == 0).count();
                reader.consume(zeros);
            }
        }
        Ok(())
    };
    match start.as_slice() {
        [0x1f, 0x8b, ..] => unpacked(&mut flate2::bufread::MultiGzDecoder::new(input)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            unpacked(&mut lzma_rust2::XzReader::new_mem_limit(input, true, MEMORY_KIB_MAX))
        }
        [0x5d, 0, 0, ..] => {
            let stream = lzma_rust2::LzmaReader::new_mem_limit(input, MEMORY_KIB_MAX, None);
            unpacked(&mut stream.map_err(|error| error.to_string())?)
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut frame = ruzstd::decoding::FrameDecoder::new();
            frame.set_max_window_size(WINDOW_BYTES_MAX);
            let decoder = ruzstd::decoding::StreamingDecoder::new_with_decoder(input, frame);
            let mut decoder = decoder.map_err(|error| error.to_string())?;
            unpacked(&mut decoder)
        }
        [0x02, 0x21, 0x4c, 0x18, ..] => unpacked(&mut LegacyLz4 { input, block: Vec::new(), at: 0, is_started: false }),
        _ => Err("it is compressed in a way that is not read".to_owned()),
    }
}

/// The legacy frame of lz4, which kernels' archives use: blocks of at most 8 MiB, each with its packed length in front.
struct LegacyLz4<R> {
    input: R,
    block: Vec<u8>,
    at: usize,
    is_started: bool,
}

impl<R: Read> Read for LegacyLz4<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at >= self.block.len() {
            let mut word = [0; 4];
            if !self.is_started {
                self.input.read_exact(&mut word)?;
                self.is_started = true;
            }
            if self.input.read_exact(&mut word).is_err() {
                return Ok(0);
            }
            let length = u32::from_le_bytes(word);
            if length > 9 << 20 {
                return Ok(0);
            }
            let mut packed = Vec::new();
            self.input.by_ref().take(u64::from(length)).read_to_end(&mut packed)?;
            self.block = lz4_flex::block::decompress(&packed, 8 << 20).map_err(std::io::Error::other)?;
            self.at = 0;
        }
        let rest = self.block.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(into), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            into.copy_from_slice(from);
        }
        self.at = self.at.saturating_add(count);
        Ok(count)
    }
}

/// Leaves up to `count` bytes out; how many there were.
fn pass_over(input: &mut impl BufRead, count: u64) -> Result<u64, String> {
    let mut left = count;
    while left > 0 {
        let here = peek(input)?.len();
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(here);
        if part == 0 {
            break;
        }
        input.consume(part);
        left = left.saturating_sub(part as u64);
    }
    Ok(count.saturating_sub(left))
}

/// One archive up to its trailer, or to the last module that is wanted.
fn archive(input: &mut impl BufRead, found: &mut Met<'_>) -> Result<(), String> {
    for _ in 0..NAMES_MAX {
        let mut header = [0; 110];
        input.read_exact(&mut header).map_err(|error| format!("the archive ends early: {error}"))?;
        if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
            return Err("a file's header is none".to_owned());
        }
        let number = |field: usize| -> Result<u64, String> {
            let start = field.saturating_mul(8).saturating_add(6);
            let digits = header.get(start..start.saturating_add(8)).and_then(|digits| std::str::from_utf8(digits).ok());
            digits
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .ok_or_else(|| "a file's header holds no number".to_owned())
        };
        let (size, name_size) = (number(6)?, number(11)?);
        if name_size > NAME_MAX {
            return Err("a name is too long".to_owned());
        }
        let mut name = vec![0; usize::try_from(name_size).unwrap_or(0)];
        input.read_exact(&mut name).map_err(|error| error.to_string())?;
        // Header and name together, and contents, are padded to four bytes.
        let padding = (4 - (110_u64.saturating_add(name_size)) % 4) % 4;
        let skipped = padding.saturating_add(size).saturating_add((4 - size % 4) % 4);
        let passed = pass_over(input, skipped)?;
        let name = String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(&name)).into_owned();
        if name == "TRAILER!!!" {
            return Ok(());
        }
        if passed < skipped {
            return Err("the archive ends early".to_owned());
        }
        let base = name.rsplit('/').next().unwrap_or(&name);
        if let Some((module, _)) = base.split_once(".ko") {
            found.insert(module.replace('-', "_"));
            if found.is_done() {
                return Ok(());
            }
        }
    }
    Err(format!("it holds more than {NAMES_MAX} files"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::guest::linux::fixture::Fixture;

    fn cpio(names: &[&str]) -> Vec<u8> {
        let mut archive = Vec::new();
        for name in names.iter().chain(&["TRAILER!!!"]) {
            let fields = [
                1,
                0o100_644,
                0,
                0,
                1,
                0,
                5 * u32::from(*name != "TRAILER!!!"),
                0,
                0,
                0,
                0,
                u32::try_from(name.len()).unwrap() + 1,
                0,
            ];
            archive.extend(b"070701");
            fields.iter().for_each(|field| write!(archive, "{field:08X}").unwrap());
            archive.extend(name.bytes().chain([0]));
            archive.resize(archive.len().next_multiple_of(4), 0);
            if *name != "TRAILER!!!" {
                archive.extend(b"bytes");
                archive.resize(archive.len().next_multiple_of(4), 0);
            }
        }
        archive.resize(archive.len().next_multiple_of(512), 0);
        archive
    }

    fn found_of(bytes: &[u8], wanted: &[&str]) -> Result<BTreeSet<String>, String> {
        let fixture = Fixture::new();
        fixture.file("boot/initrd", bytes);
        let tree = fixture.tree();
        modules(&Files::new(&tree), "/boot/initrd", &wanted.iter().copied().collect())
    }

    fn found(bytes: &[u8]) -> Result<BTreeSet<String>, String> {
        found_of(bytes, &["never there"])
    }

    #[test]
    fn the_rest_is_left_when_all_that_is_wanted_was_met() {
        let main = cpio(&["a.ko", "b-c.ko", "d.ko"]);
        assert_eq!(found_of(&main, &["b_c", "a"]).unwrap(), ["a", "b_c"].map(str::to_owned).into());
        assert!(found_of(&main[..300], &["b_c"]).is_ok() && found_of(&main[..300], &["d"]).is_err());
    }

    #[test]
    fn modules_are_found_behind_the_processors_updates_however_they_are_packed() {
        let early = cpio(&["kernel/x86/microcode/AuthenticAMD.bin"]);
        let main = cpio(&[
            "usr/lib/modules/6.1/kernel/drivers/block/virtio_blk.ko.xz",
            "lib/modules/6.1/hv-storvsc.ko",
            "init",
        ]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&main).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(main.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        let block = lz4_flex::block::compress(&main);
        let lz4 =
            [&[0x02, 0x21, 0x4c, 0x18], u32::try_from(block.len()).unwrap().to_le_bytes().as_slice(), &block].concat();
        let wanted: BTreeSet<_> = ["virtio_blk", "hv_storvsc"].map(str::to_owned).into();
        for packed in [main.clone(), gzip.finish().unwrap(), zstd, lz4] {
            assert_eq!(found(&packed).unwrap(), wanted);
            assert_eq!(found(&[early.clone(), packed].concat()).unwrap(), wanted);
        }
    }

    #[test]
    fn what_is_broken_says_so() {
        let main = cpio(&["a.ko"]);
        assert!(found(&main[..150]).is_err());
        assert!(found(b"BZh9").is_err());
        assert!(found(&[0x1f, 0x8b, 8, 0, 0]).is_err());
    }
}
