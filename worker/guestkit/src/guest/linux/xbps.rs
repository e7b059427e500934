//! The package database of Void Linux: a property list of XML. Source: the X Binary Package System's `xbps-query(1)`, whose properties
//! these are.

use std::collections::BTreeMap;

use roxmltree::{Document, Node, ParsingOptions};

use crate::guest::report::{OperatingSystem, Package};

use super::files::Files;
use super::packages::{Installed, PACKAGES_MAX};
use super::{purl, time};

/// Its folder; the file's name holds the version of its format.
const FOLDER: &str = "/var/db/xbps";
/// Elements of one database: a package has some sixty.
const NODES_MAX: u32 = 4_000_000;

/// The packages that xbps installed; `None` where there is no database of it.
pub(super) fn read(files: &Files<'_>, system: &OperatingSystem) -> Option<Installed> {
    let names = files.names(FOLDER).into_iter();
    let path = names.filter(|name| name.starts_with("pkgdb-") && name.ends_with(".plist")).max()?;
    let path = format!("{FOLDER}/{path}");
    let text = files.text(&path)?;
    // Property lists name a document type, which is never fetched.
    let options = ParsingOptions { allow_dtd: true, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let packages = match Document::parse_with_options(&text, options) {
        Ok(document) => {
            let dict = document.descendants().find(|node| node.has_tag_name("dict"));
            let entries = dict.into_iter().flat_map(entries);
            Some(entries.filter_map(|(name, dict)| package(name, dict, system)).take(PACKAGES_MAX).collect())
        }
        Err(error) => {
            files.warn(&path, error.to_string());
            None
        }
    };
    Some(Installed { manager: "xbps", databases: vec![path], packages })
}

/// Keys of a dictionary with what they stand for.
fn entries<'d, 'i>(dict: Node<'d, 'i>) -> impl Iterator<Item = (&'d str, Node<'d, 'i>)> {
    let keys = dict.children().filter(|node| node.has_tag_name("key"));
    keys.filter_map(|key| Some((key.text()?, key.next_sibling_element()?)))
}

fn package(name: &str, dict: Node<'_, '_>, system: &OperatingSystem) -> Option<Package> {
    // Beside the packages stand tables of alternatives.
    let fields: BTreeMap<&str, &str> = entries(dict)
        .filter_map(|(key, value)| Some((key, value.text()?.trim())))
        .filter(|(_, text)| !text.is_empty())
        .collect();
    let field = |key: &str| fields.get(key).map(|text| (*text).to_owned());
    let full_version = field("pkgver")?.strip_prefix(name)?.strip_prefix('-')?.to_owned();
    // `1.2_3` is version 1.2, revision 3.
    let (version, release) = full_version.rsplit_once('_').unwrap_or((&full_version, ""));
    let arch = field("architecture");
    let purl = system.distribution.as_deref().map(|distribution| {
        purl::purl("xbps", &distribution.to_ascii_lowercase(), name, &full_version, &[("arch", arch.as_deref())])
    });
    Some(Package {
        format: "xbps".to_owned(),
        name: name.to_owned(),
        state: field("state").unwrap_or_else(|| "installed".to_owned()),
        version: version.to_owned(),
        release: (!release.is_empty()).then(|| release.to_owned()),
        source: field("source-revisions").and_then(|text| Some(text.split_once(':')?.0.to_owned())),
        license: field("license"),
        vendor: field("maintainer"),
        url: field("homepage"),
        summary: field("short_desc"),
        installed_size_bytes: field("installed_size").and_then(|size| size.parse().ok()),
        // `2024-05-01 10:00 UTC`
        installed_at: field("install-date").and_then(|text| time::normalised(&text)),
        arch,
        purl,
        full_version,
        ..Package::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const DATABASE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple Computer//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
        <plist version=\"1.0\">\n<dict>\n<key>_XBPS_ALTERNATIVES_</key>\n<dict>\n<key>vi</key>\n<array>\n<string>vim</string>\n</array>\n</dict>\n\
        <key>gtk+3</key>\n<dict>\n<key>architecture</key>\n<string>x86_64</string>\n<key>automatic-install</key>\n<true/>\n\
        <key>homepage</key>\n<string>https://gtk.org</string>\n<key>install-date</key>\n<string>2024-05-01 10:00 UTC</string>\n\
        <key>installed_size</key>\n<integer>1234</integer>\n<key>license</key>\n<string>LGPL-2.1-or-later</string>\n\
        <key>pkgver</key>\n<string>gtk+3-3.24.41_1</string>\n<key>short_desc</key>\n<string>GIMP Toolkit &amp; more</string>\n\
        <key>state</key>\n<string>installed</string>\n</dict>\n</dict>\n</plist>\n";

    fn packages(text: &str) -> Option<Vec<Package>> {
        let fixture = Fixture::new();
        fixture.file("var/db/xbps/pkgdb-0.38.plist", text);
        let tree = fixture.tree();
        read(&Files::new(&tree), &OperatingSystem::default()).unwrap().packages
    }

    #[test]
    fn properties_become_packages() {
        let found = packages(DATABASE).unwrap();
        assert_eq!(found.len(), 1);
        let one = &found[0];
        assert_eq!((one.name.as_str(), one.version.as_str(), one.release.as_deref()), ("gtk+3", "3.24.41", Some("1")));
        assert_eq!((one.arch.as_deref(), one.installed_size_bytes), (Some("x86_64"), Some(1234)));
        assert_eq!(one.summary.as_deref(), Some("GIMP Toolkit & more"));
        assert_eq!(one.state, "installed");
    }

    #[test]
    fn what_is_no_property_list_is_told() {
        assert!(packages("<plist><dict>").is_none());
        assert!(
            packages("<!DOCTYPE a [<!ENTITY b \"&c;&c;\"><!ENTITY c \"&b;&b;\">]><a>&b;</a>")
                .is_none_or(|found| found.is_empty())
        );
    }
}
