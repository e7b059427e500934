//! Packages of programming languages, by the records that their tools leave beside them: pip's metadata, npm's package.json,
//! RubyGems' specifications, what `cargo install` and the Go linker noted, Maven's properties in archives. Each record is
//! one package; a folder of sources without such a record is none.

mod archive;
mod go;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::filesystem::{FileType, Metadata};
use crate::guest::report::Package;
use crate::guest::tree::{OpenFile, WalkEntry};
use crate::read_at::{ReadAt, read_up_to};

use super::purl::purl;

/// The largest record that is parsed: package.json of large packages are some tens of kilobytes.
const RECORD_BYTES_MAX: usize = 4 << 20;

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    /// `METADATA` or `PKG-INFO` of the core metadata specifications.
    Python,
    /// package.json of an installed package.
    Npm,
    /// A stub specification.
    Gem,
    /// `.crates.toml` of a folder that `cargo install` fills.
    Cargo,
    /// An archive of classes.
    Java,
    /// A program, which the Go linker may have made.
    Program,
}

impl Record {
    /// What a path may be, as far as its names tell.
    fn of(path: &[u8], metadata: &Metadata) -> Option<Self> {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let folder = path.strip_suffix(name).and_then(|rest| rest.strip_suffix(b"/")).unwrap_or_default();
        let is_module = |folder: &[u8]| {
            let mut names = folder.rsplit(|byte| *byte == b'/').skip(1);
            let above = names.next().unwrap_or_default();
            above == b"node_modules" || (above.starts_with(b"@") && names.next() == Some(b"node_modules"))
        };
        match name {
            b"METADATA" if folder.ends_with(b".dist-info") => Some(Self::Python),
            b"PKG-INFO" if folder.ends_with(b".egg-info") || folder.ends_with(b"/EGG-INFO") => Some(Self::Python),
            b"package.json" if is_module(folder) => Some(Self::Npm),
            b".crates.toml" => Some(Self::Cargo),
            _ if name.ends_with(b".egg-info") => Some(Self::Python),
            _ if name.ends_with(b".gemspec") => {
                let is_installed = folder.ends_with(b"/specifications") || folder.ends_with(b"/specifications/default");
                is_installed.then_some(Self::Gem)
            }
            _ if [b".jar".as_slice(), b".war", b".ear"].iter().any(|kind| name.ends_with(kind)) => Some(Self::Java),
            _ if metadata.mode & 0o111 != 0 && metadata.size >= go::PROGRAM_BYTES_MIN => Some(Self::Program),
            _ => None,
        }
    }
}

/// The packages that an entry of a walk is the record of; none where it is no record.
///
/// # Errors
/// Whatever reading meets; [`Error::Corrupt`] for a record that says nothing of a package.
pub(super) fn packages(entry: &WalkEntry<'_>, metadata: &Metadata) -> Result<Vec<Package>> {
    if entry.file_type != FileType::Regular {
        return Ok(Vec::new());
    }
    let Some(record) = Record::of(entry.path, metadata) else { return Ok(Vec::new()) };
    let Some(file) = entry.open()? else { return Ok(Vec::new()) };
    let mut packages = match record {
        Record::Program => go::packages(&file)?,
        Record::Java => archive::packages(&file)?,
        Record::Python => python(&text(&file)?).into_iter().collect(),
        Record::Npm => npm(&text(&file)?)?.into_iter().collect(),
        Record::Gem => gem(&text(&file)?).into_iter().collect(),
        Record::Cargo => cargo(&text(&file)?),
    };
    if packages.is_empty() && !matches!(record, Record::Program | Record::Java | Record::Npm | Record::Cargo) {
        return Err(Error::corrupt("record of a package", 0, "it has no name and version"));
    }
    for package in &mut packages {
        package.install_path = Some(String::from_utf8_lossy(entry.path).into_owned());
    }
    Ok(packages)
}

fn text(file: &OpenFile) -> Result<String> {
    if file.len() > RECORD_BYTES_MAX as u64 {
        let reason = format!("{} bytes are more than a record has", file.len());
        return Err(Error::corrupt("record of a package", 0, reason));
    }
    Ok(super::files::lossy(read_up_to(file, 0, RECORD_BYTES_MAX)?))
}

/// A package of a language: what all of them have.
fn package(format: &str, name: &str, version: &str, purl: Option<String>) -> Package {
    Package {
        name: name.to_owned(),
        format: format.to_owned(),
        state: "installed".to_owned(),
        version: version.to_owned(),
        full_version: version.to_owned(),
        purl,
        ..Package::default()
    }
}

/// Core metadata: fields as in a mail's header. Source: "Core metadata specifications" of the Python Packaging User Guide;
/// names are normalised as purl's type `pypi` asks.
fn python(text: &str) -> Option<Package> {
    let header = text.lines().take_while(|line| !line.trim().is_empty());
    let field = |key: &str| {
        let mut lines = header.clone().filter_map(|line| line.split_once(':'));
        let value = lines.find_map(|(name, value)| name.eq_ignore_ascii_case(key).then(|| value.trim()));
        value.filter(|value| !value.is_empty() && *value != "UNKNOWN").map(str::to_owned)
    };
    let (name, version) = (field("Name")?, field("Version")?);
    let purl = purl("pypi", "", &name.to_ascii_lowercase().replace('_', "-"), &version, &[]);
    Some(Package {
        license: field("License-Expression").or_else(|| field("License")),
        vendor: field("Author").or_else(|| field("Author-email")).or_else(|| field("Maintainer")),
        url: field("Home-page"),
        summary: field("Summary"),
        ..package("pypi", &name, &version, Some(purl))
    })
}

/// What of package.json tells of the package. Source: npm's documentation, "package.json".
#[derive(Deserialize)]
struct PackageJson {
    name: Option<String>,
    version: Option<String>,
    description: Option<serde_json::Value>,
    license: Option<serde_json::Value>,
    homepage: Option<serde_json::Value>,
    author: Option<serde_json::Value>,
}

/// `None` for a file that only sets how a folder is loaded.
fn npm(text: &str) -> Result<Option<Package>> {
    let json: PackageJson = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| Error::corrupt("package.json", 0, error.to_string()))?;
    let (Some(name), Some(version)) = (json.name, json.version) else { return Ok(None) };
    let (namespace, short) = match name.split_once('/') {
        Some((scope, short)) => (scope, short),
        None => ("", name.as_str()),
    };
    let purl = purl("npm", &namespace.to_ascii_lowercase(), &short.to_ascii_lowercase(), &version, &[]);
    // Older files name a licence and an author in an object.
    let named = |value: Option<serde_json::Value>, key: &str| match value {
        Some(serde_json::Value::String(text)) => Some(text),
        Some(serde_json::Value::Object(object)) => object.get(key)?.as_str().map(str::to_owned),
        _ => None,
    };
    Ok(Some(Package {
        license: named(json.license, "type"),
        vendor: named(json.author, "name"),
        url: named(json.homepage, "url"),
        summary: named(json.description, ""),
        ..package("npm", &name, &version, Some(purl))
    }))
}

/// A specification as RubyGems writes it on installation: assignments of literals. Source: RubyGems' `Specification#to_ruby`.
fn gem(text: &str) -> Option<Package> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("s."));
        let assigned = lines.find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='))?;
        let quote = assigned.find(['"', '\''])?;
        let (_, literal) = assigned.split_at_checked(quote)?;
        let end = literal.chars().next()?;
        literal.split(end).nth(1).filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let (name, version) = (value("name")?, value("version")?);
    // Only gems with native code name a platform in quotes.
    let platform = value("platform");
    let purl = purl("gem", "", &name, &version, &[("platform", platform.as_deref())]);
    Some(Package {
        license: value("licenses").or_else(|| value("license")),
        vendor: value("authors"),
        url: value("homepage"),
        summary: value("summary"),
        arch: platform,
        ..package("gem", &name, &version, Some(purl))
    })
}

/// `"ripgrep 13.0.0 (registry+https://…)" = ["rg"]` for each crate. Source: the Cargo book, "cargo install".
fn cargo(text: &str) -> Vec<Package> {
    let keys = text.lines().filter_map(|line| line.trim_start().strip_prefix('"')?.split('"').next());
    let found = keys.filter_map(|key| {
        let mut words = key.split_whitespace();
        let (name, version) = (words.next()?, words.next()?);
        let source = words.next().map(|source| source.trim_matches(['(', ')']).to_owned());
        Some(Package { origin: source, ..package("cargo", name, version, Some(purl("cargo", "", name, version, &[]))) })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(package: &Package) -> (&str, &str, &str) {
        (&package.name, &package.version, package.purl.as_deref().unwrap())
    }

    #[test]
    fn records_are_known_by_their_place() {
        let metadata = |mode, size| Metadata {
            node: crate::filesystem::NodeId(1),
            file_type: FileType::Regular,
            mode,
            uid: 0,
            gid: 0,
            size,
            links: 1,
            device: None,
            accessed: None,
            modified: crate::filesystem::Timestamp { seconds: 0, nanoseconds: 0 },
            changed: crate::filesystem::Timestamp { seconds: 0, nanoseconds: 0 },
            created: None,
        };
        let cases = [
            ("/usr/lib/python3/dist-packages/x-1.dist-info/METADATA", Some(Record::Python)),
            ("/usr/lib/python3/dist-packages/x-1.egg-info", Some(Record::Python)),
            ("/usr/lib/python3/dist-packages/x.egg-info/PKG-INFO", Some(Record::Python)),
            ("/srv/a/node_modules/b/package.json", Some(Record::Npm)),
            ("/srv/a/node_modules/@s/b/package.json", Some(Record::Npm)),
            ("/srv/a/package.json", None),
            ("/srv/a/node_modules/b/lib/package.json", None),
            ("/var/lib/gems/3.1.0/specifications/rake-13.gemspec", Some(Record::Gem)),
            ("/home/a/src/rake.gemspec", None),
            ("/root/.cargo/.crates.toml", Some(Record::Cargo)),
            ("/opt/x/a.jar", Some(Record::Java)),
            ("/METADATA", None),
        ];
        for (path, expected) in cases {
            assert_eq!(Record::of(path.as_bytes(), &metadata(0o644, 10)), expected, "{path}");
        }
        assert_eq!(Record::of(b"/usr/bin/x", &metadata(0o755, 1 << 20)), Some(Record::Program));
    }

    #[test]
    fn records_become_packages() {
        let found =
            python("Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1.2\nLicense: UNKNOWN\n\nName: no\n").unwrap();
        assert_eq!(told(&found), ("Foo_Bar", "1.2", "pkg:pypi/foo-bar@1.2"));
        assert_eq!(found.license, None);
        let json =
            r#"{"name": "@types/node", "version": "20.1.0", "license": {"type": "MIT"}, "author": {"name": "A"}}"#;
        let found = npm(json).unwrap().unwrap();
        assert_eq!(told(&found), ("@types/node", "20.1.0", "pkg:npm/%40types/node@20.1.0"));
        assert_eq!((found.license.as_deref(), found.vendor.as_deref()), (Some("MIT"), Some("A")));
        assert!(npm(r#"{"type": "module"}"#).unwrap().is_none() && npm("{").is_err());
        let spec = "Gem::Specification.new do |s|\n  s.name = \"nokogiri\".freeze\n  s.version = \"1.15.4\"\n  \
                    s.platform = \"x86_64-linux\".freeze\n  s.licenses = [\"MIT\".freeze]\nend\n";
        let found = gem(spec).unwrap();
        assert_eq!(told(&found), ("nokogiri", "1.15.4", "pkg:gem/nokogiri@1.15.4?platform=x86_64-linux"));
        assert_eq!(found.license.as_deref(), Some("MIT"));
        let found = cargo("[v1]\n\"ripgrep 13.0.0 (registry+https://x)\" = [\"rg\"]\n");
        assert_eq!(told(&found[0]), ("ripgrep", "13.0.0", "pkg:cargo/ripgrep@13.0.0"));
    }
}
