//! What rpm keeps of each package: a header, as a blob of one index and one store. Source: rpm's "RPM Package format", section
//! "Header" (<https://rpm-software-management.github.io/rpm/manual/format_header.html>) and its tag list.

use crate::bytes::{be_u16, be_u32, be_u64, slice};
use crate::error::{Error, Result};
use crate::guest::linux::{purl, time};
use crate::guest::report::{OperatingSystem, Package};

/// Length of index and store, before both.
const INTRO_BYTES: usize = 8;
/// One entry of the index: tag, type, offset in the store, count.
const ENTRY_BYTES: usize = 16;
/// Entries of one header: rpm's own bound.
const ENTRIES_MAX: usize = 0xffff;
/// The largest text of one tag: the longest descriptions are some tens of kilobytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Types of values.
const CHAR: u32 = 1;
const INT16: u32 = 3;
const INT32: u32 = 4;
const INT64: u32 = 5;
const STRING: u32 = 6;
const STRING_ARRAY: u32 = 8;
const I18N_STRING: u32 = 9;

/// Tags.
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const SUMMARY: u32 = 1004;
const DESCRIPTION: u32 = 1005;
const BUILD_TIME: u32 = 1006;
const INSTALL_TIME: u32 = 1008;
const SIZE: u32 = 1009;
const VENDOR: u32 = 1011;
const LICENSE: u32 = 1014;
const PACKAGER: u32 = 1015;
const GROUP: u32 = 1016;
const URL: u32 = 1020;
const ARCH: u32 = 1022;
const FILE_SIZES: u32 = 1028;
const FILE_STATES: u32 = 1029;
const FILE_MODES: u32 = 1030;
const FILE_TIMES: u32 = 1034;
const FILE_DIGESTS: u32 = 1035;
const FILE_FLAGS: u32 = 1037;
const SOURCE_RPM: u32 = 1044;
const DIRECTORY_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIRECTORY_NAMES: u32 = 1118;
const FILE_CAPABILITIES: u32 = 5010;
const FILE_DIGEST_ALGORITHM: u32 = 5011;
const LONG_SIZE: u32 = 5009;
const MODULARITY_LABEL: u32 = 5096;

/// Texts that one database may give in all: the largest systems have some ten megabytes. Values of one header may share
/// their bytes, so the size of the database is no bound.
pub(super) struct Room(pub(super) usize);

/// The package of a header's blob.
///
/// # Errors
/// [`Error::Corrupt`] for a header that contradicts itself or has no name and version.
pub(super) fn package(blob: &[u8], system: &OperatingSystem, room: &mut Room) -> Result<Package> {
    let header = Header::parse(blob)?;
    let mut text = |tag| header.text(tag, room);
    let required = |value: Option<String>, what: &str| {
        value.filter(|value| !value.is_empty()).ok_or_else(|| corrupt(0, format!("it has no {what}")))
    };
    let name = required(text(NAME)?, "name")?;
    let version = required(text(VERSION)?, "version")?;
    let release = text(RELEASE)?;
    let arch = text(ARCH)?;
    let epoch = header.number(EPOCH);
    let (source, source_version) = text(SOURCE_RPM)?.as_deref().map(split_source).unwrap_or_default();
    let version_release = match &release {
        Some(release) => format!("{version}-{release}"),
        None => version.clone(),
    };
    Ok(Package {
        format: "rpm".to_owned(),
        state: "installed".to_owned(),
        epoch,
        arch: arch.clone(),
        source,
        source_version,
        section: text(GROUP)?,
        license: text(LICENSE)?,
        vendor: text(VENDOR)?,
        packager: text(PACKAGER)?,
        url: text(URL)?,
        summary: text(SUMMARY)?,
        description: text(DESCRIPTION)?,
        module: text(MODULARITY_LABEL)?,
        installed_size_bytes: header.number(LONG_SIZE).or_else(|| header.number(SIZE)),
        installed_at: header.number(INSTALL_TIME).and_then(rfc3339),
        built_at: header.number(BUILD_TIME).and_then(rfc3339),
        purl: purl::rpm(system, &name, &version_release, epoch, arch.as_deref()),
        full_version: match epoch {
            Some(epoch) => format!("{epoch}:{version_release}"),
            None => version_release,
        },
        name,
        version,
        release,
        ..Package::default()
    })
}

/// How a package ships a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shipped {
    /// Type and rights, as stat(2) has them.
    pub(crate) mode: u16,
    /// Whether it has capabilities.
    pub(crate) has_capabilities: bool,
    /// Bytes; absent of files of 4 GiB.
    pub(crate) size: Option<u64>,
    /// When its content was written, in seconds since 1970.
    pub(crate) modified: Option<i64>,
    /// Its sum in hexadecimal, with the algorithm as RFC 4880, section 9.4, numbers it.
    pub(crate) digest: Option<(u64, String)>,
    /// Whether the administrator may change it, or it need not be there. Source: rpm's `rpmfileAttrs`.
    pub(crate) may_differ: bool,
    /// When the package was installed, in seconds since 1970.
    pub(crate) installed: Option<i64>,
}

/// `RPMFILE_CONFIG`, `RPMFILE_MISSINGOK`, `RPMFILE_GHOST`.
const MAY_DIFFER: u32 = 1 | 8 | 64;
/// MD5, which headers without an algorithm have.
const MD5: u64 = 1;

/// Tells `visit` of those installed files of a header's package that `is_wanted` by the last part of their path and their mode.
///
/// # Errors
/// [`Error::Corrupt`] for a header that contradicts itself.
pub(super) fn files(
    blob: &[u8],
    is_wanted: &dyn Fn(&[u8], u16) -> bool,
    visit: &mut dyn FnMut(&[u8], Shipped),
) -> Result<()> {
    let header = Header::parse(blob)?;
    let Some(modes) = header.array(FILE_MODES, INT16) else { return Ok(()) };
    let Some(indexes) = header.array(DIRECTORY_INDEXES, INT32) else { return Ok(()) };
    let directories: Vec<&[u8]> = header.strings(DIRECTORY_NAMES).collect();
    let (sizes, times) = (header.array(FILE_SIZES, INT32), header.array(FILE_TIMES, INT32));
    let (flags, states) = (header.array(FILE_FLAGS, INT32), header.array(FILE_STATES, CHAR));
    let number = |array: Option<&[u8]>, at: usize| be_u32(array?, at.checked_mul(4)?);
    let installed = header.number(INSTALL_TIME).and_then(|time| i64::try_from(time).ok());
    let algorithm = header.number(FILE_DIGEST_ALGORITHM).unwrap_or(MD5);
    let mut capabilities = header.strings(FILE_CAPABILITIES);
    let mut digests = header.strings(FILE_DIGESTS);
    for (at, name) in header.strings(BASE_NAMES).enumerate() {
        let has_capabilities = capabilities.next().is_some_and(|text| !text.is_empty());
        let digest = digests.next().filter(|digest| !digest.is_empty());
        let Some(mode) = at.checked_mul(2).and_then(|at| be_u16(modes, at)) else { break };
        // Another package's file may have taken its place: of libraries for two architectures one program is installed.
        let is_there = states.and_then(|states| states.get(at)).is_none_or(|state| *state == 0);
        if !is_there || !is_wanted(name, mode) {
            continue;
        }
        let directory = number(Some(indexes), at).and_then(|at| directories.get(usize::try_from(at).ok()?));
        let Some(directory) = directory else { continue };
        let shipped = Shipped {
            mode,
            has_capabilities,
            size: number(sizes, at).map(u64::from),
            modified: number(times, at).map(i64::from),
            digest: digest.map(|digest| (algorithm, String::from_utf8_lossy(digest).into_owned())),
            may_differ: number(flags, at).is_some_and(|flags| flags & MAY_DIFFER != 0),
            installed,
        };
        visit(&[directory, name].concat(), shipped);
    }
    Ok(())
}

fn rfc3339(seconds: u64) -> Option<String> {
    time::rfc3339(i64::try_from(seconds).ok()?)
}

fn corrupt(offset: usize, reason: impl Into<String>) -> Error {
    Error::corrupt("rpm header", offset as u64, reason)
}

/// A header's index and store.
struct Header<'a> {
    index: &'a [u8],
    store: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self> {
        let length = |at| be_u32(blob, at).and_then(|length| usize::try_from(length).ok());
        let (Some(entries), Some(store_bytes)) = (length(0), length(4)) else {
            return Err(corrupt(0, format!("it has only {} bytes", blob.len())));
        };
        if entries == 0 || entries > ENTRIES_MAX {
            return Err(corrupt(0, format!("it has {entries} entries")));
        }
        let index_bytes = entries.saturating_mul(ENTRY_BYTES);
        let store_at = INTRO_BYTES.saturating_add(index_bytes);
        if store_at.checked_add(store_bytes) != Some(blob.len()) {
            let reason = format!("{entries} entries and {store_bytes} bytes of values are not {} bytes", blob.len());
            return Err(corrupt(0, reason));
        }
        let index = slice(blob, INTRO_BYTES, index_bytes).unwrap_or_default();
        let store = slice(blob, store_at, store_bytes).unwrap_or_default();
        Ok(Self { index, store })
    }

    /// Type of a tag and the store from its value on. The last entry counts: what was added after the header was signed
    /// stands behind it, and replaces what it says.
    fn find(&self, tag: u32) -> Option<(u32, &'a [u8])> {
        let entry = self.index.as_chunks::<ENTRY_BYTES>().0.iter().rfind(|entry| be_u32(*entry, 0) == Some(tag))?;
        let offset = usize::try_from(be_u32(entry, 8)?).ok()?;
        let count = be_u32(entry, 12)?;
        (count > 0).then_some((be_u32(entry, 4)?, self.store.get(offset..)?))
    }

    /// A tag's text: of one in several languages the first, which is that of the locale `C`.
    fn text(&self, tag: u32, room: &mut Room) -> Result<Option<String>> {
        let Some((STRING | STRING_ARRAY | I18N_STRING, value)) = self.find(tag) else { return Ok(None) };
        let within = value.get(..TEXT_BYTES_MAX.min(value.len())).unwrap_or_default();
        let end = within.iter().position(|byte| *byte == 0);
        let end = end.ok_or_else(|| corrupt(0, format!("the text of tag {tag} has no end")))?;
        room.0 = room.0.checked_sub(end).ok_or_else(|| corrupt(0, "the texts of all headers are too many"))?;
        let text = String::from_utf8_lossy(within.get(..end).unwrap_or_default());
        Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
    }

    /// The store from the first value of an array on.
    fn array(&self, tag: u32, kind: u32) -> Option<&'a [u8]> {
        self.find(tag).filter(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The texts of an array, as many as its entry counts.
    fn strings(&self, tag: u32) -> impl Iterator<Item = &'a [u8]> {
        let value = self.array(tag, STRING_ARRAY).unwrap_or_default();
        let entry = self.index.as_chunks::<ENTRY_BYTES>().0.iter().rfind(|entry| be_u32(*entry, 0) == Some(tag));
        let count = entry.and_then(|entry| usize::try_from(be_u32(entry, 12)?).ok()).unwrap_or_default();
        value.split(|byte| *byte == 0).take(count)
    }

    fn number(&self, tag: u32) -> Option<u64> {
        match self.find(tag)? {
            (INT32, value) => be_u32(value, 0).map(u64::from),
            (INT64, value) => be_u64(value, 0),
            _ => None,
        }
    }
}

/// Name and version of `util-linux-2.32.1-42.el8_8.src.rpm`.
fn split_source(file: &str) -> (Option<String>, Option<String>) {
    let stem = file.strip_suffix(".src.rpm").or_else(|| file.strip_suffix(".nosrc.rpm")).unwrap_or(file);
    let split = stem.rsplit_once('-').and_then(|(rest, release)| Some((rest.rsplit_once('-')?, release)));
    match split {
        Some(((name, version), release)) => (Some(name.to_owned()), Some(format!("{version}-{release}"))),
        None => (Some(stem.to_owned()), None),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header of texts and numbers, as rpm lays it out.
    pub(in crate::guest::linux::rpm) fn blob(texts: &[(u32, u32, &str)], numbers: &[(u32, u32)]) -> Vec<u8> {
        let (mut index, mut store) = (Vec::new(), Vec::new());
        let mut entry = |tag: u32, kind: u32, offset: usize| {
            for word in [tag, kind, u32::try_from(offset).unwrap(), 1] {
                index.extend(word.to_be_bytes());
            }
        };
        for (tag, number) in numbers {
            entry(*tag, INT32, store.len());
            store.extend(number.to_be_bytes());
        }
        for (tag, kind, text) in texts {
            entry(*tag, *kind, store.len());
            store.extend(text.as_bytes());
            store.push(0);
        }
        let count = u32::try_from(texts.len() + numbers.len()).unwrap();
        let length = u32::try_from(store.len()).unwrap();
        [count.to_be_bytes().to_vec(), length.to_be_bytes().to_vec(), index, store].concat()
    }

    fn parse(blob: &[u8]) -> Result<Package> {
        let system = OperatingSystem {
            distribution: Some("fedora".to_owned()),
            version: Some("40".to_owned()),
            ..OperatingSystem::default()
        };
        package(blob, &system, &mut Room(1 << 20))
    }

    #[test]
    fn headers_become_packages() {
        let texts = [
            (NAME, STRING, "libstdc++"),
            (VERSION, STRING, "1.0~rc1"),
            (RELEASE, STRING, "2.fc40"),
            (ARCH, STRING, "x86_64"),
            (SUMMARY, I18N_STRING, "short"),
            (SOURCE_RPM, STRING, "gcc-c-1.0~rc1-2.fc40.src.rpm"),
            (VENDOR, STRING, ""),
            (NAME, STRING, "libstdc++-static"),
        ];
        let found = parse(&blob(&texts, &[(EPOCH, 2), (SIZE, 7), (INSTALL_TIME, 1_700_000_000)])).unwrap();
        assert_eq!(found.name, "libstdc++-static", "the last entry of a tag counts");
        assert_eq!(found.full_version, "2:1.0~rc1-2.fc40");
        assert_eq!((found.epoch, found.release.as_deref()), (Some(2), Some("2.fc40")));
        assert_eq!(found.source.as_deref(), Some("gcc-c"));
        assert_eq!(found.source_version.as_deref(), Some("1.0~rc1-2.fc40"));
        assert_eq!(found.installed_at.as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(found.installed_size_bytes, Some(7));
        assert_eq!(found.vendor, None);
        let purl = "pkg:rpm/fedora/libstdc%2B%2B-static@1.0~rc1-2.fc40?arch=x86_64&distro=fedora-40&epoch=2";
        assert_eq!(found.purl.as_deref(), Some(purl));
    }

    #[test]
    fn headers_that_contradict_themselves_are_refused() {
        let whole = blob(&[(NAME, STRING, "a"), (VERSION, STRING, "1")], &[]);
        assert!(parse(&whole).is_ok());
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
        assert!(parse(&blob(&[(NAME, STRING, "a")], &[])).is_err());
        assert!(parse(&blob(&[(NAME, INT32, "abcd"), (VERSION, STRING, "1")], &[])).is_err());
        let mut endless = whole.clone();
        *endless.last_mut().unwrap() = b'x';
        assert!(parse(&endless).is_err());
        assert!(package(&whole, &OperatingSystem::default(), &mut Room(1)).is_err());
    }
}
