//! Package URLs. Source: the purl specification (package-url/purl-spec), "Rules for each purl component", and the
//! definitions of its types.

use std::fmt::Write as _;

use crate::guest::report::OperatingSystem;

/// A package URL; a namespace that is empty and qualifiers without a value are left out, and qualifiers must be in order of
/// key.
pub(crate) fn purl(
    r#type: &str,
    namespace: &str,
    name: &str,
    version: &str,
    qualifiers: &[(&str, Option<&str>)],
) -> String {
    let mut url = format!("pkg:{type}");
    // The parts of a namespace are apart by slashes.
    for part in namespace.split('/').filter(|part| !part.is_empty()).chain([name]) {
        url.push('/');
        url.push_str(&encode(part));
    }
    if !version.is_empty() {
        url.push('@');
        url.push_str(&encode(version));
    }
    let mut separator = '?';
    for (key, value) in qualifiers {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            url.push(separator);
            url.push_str(key);
            url.push('=');
            url.push_str(&encode(value));
            separator = '&';
        }
    }
    url
}

/// Type `rpm`: `pkg:rpm/fedora/curl@7.50.3-1.fc25?arch=i386&distro=fedora-25`. The namespace is the vendor, which for most
/// distributions is named as their os-release ID is; the name keeps its case.
pub(crate) fn rpm(
    system: &OperatingSystem,
    name: &str,
    version_release: &str,
    epoch: Option<u64>,
    arch: Option<&str>,
) -> Option<String> {
    let id = system.distribution.as_deref()?.to_ascii_lowercase();
    let vendor = match id.as_str() {
        "rhel" => "redhat",
        id if id.starts_with("opensuse") => "opensuse",
        id if id.starts_with("sle") => "suse",
        id => id,
    };
    let distro = match &system.version {
        Some(version) => format!("{id}-{version}"),
        None => id.clone(),
    };
    let epoch = epoch.map(|epoch| epoch.to_string());
    let qualifiers = [("arch", arch), ("distro", Some(distro.as_str())), ("epoch", epoch.as_deref())];
    Some(purl("rpm", vendor, name, version_release, &qualifiers))
}

/// Percent-encoding; letters, digits, `.`, `-`, `_`, `~` and `:` stay.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_follow_the_specification() {
        let qualifiers = [("arch", Some("i386")), ("distro", None)];
        assert_eq!(purl("deb", "debian", "curl", "7.50.3-1", &qualifiers), "pkg:deb/debian/curl@7.50.3-1?arch=i386");
        assert_eq!(purl("apk", "alpine", "c++", "1~2", &[]), "pkg:apk/alpine/c%2B%2B@1~2");
        assert_eq!(purl("nix", "", "hello", "2.12", &[]), "pkg:nix/hello@2.12");
    }

    #[test]
    fn rpm_urls_name_the_vendor_and_the_release() {
        let cases = [
            ("fedora", Some("25"), "pkg:rpm/fedora/curl@7.50.3-1.fc25?arch=i386&distro=fedora-25"),
            ("rhel", Some("9.4"), "pkg:rpm/redhat/curl@7.50.3-1.fc25?arch=i386&distro=rhel-9.4"),
            ("opensuse-leap", Some("15.6"), "pkg:rpm/opensuse/curl@7.50.3-1.fc25?arch=i386&distro=opensuse-leap-15.6"),
            ("sles", None, "pkg:rpm/suse/curl@7.50.3-1.fc25?arch=i386&distro=sles"),
        ];
        for (id, version, expected) in cases {
            let system = OperatingSystem {
                distribution: Some(id.to_owned()),
                version: version.map(str::to_owned),
                ..OperatingSystem::default()
            };
            assert_eq!(rpm(&system, "curl", "7.50.3-1.fc25", None, Some("i386")).as_deref(), Some(expected));
        }
        assert_eq!(rpm(&OperatingSystem::default(), "a", "1", None, None), None);
    }
}
