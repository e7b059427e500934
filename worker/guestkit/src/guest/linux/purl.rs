//! Package URLs. Source: the purl specification (package-url/purl-spec), "Rules for each purl component".

use std::fmt::Write as _;

/// A package URL of a type with a namespace; qualifiers without a value are left out, and must be in order of key.
pub(crate) fn purl(
    r#type: &str,
    namespace: &str,
    name: &str,
    version: &str,
    qualifiers: &[(&str, Option<&str>)],
) -> String {
    let mut url = format!("pkg:{type}/{}/{}", encode(namespace), encode(name));
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
    use super::purl;

    #[test]
    fn urls_follow_the_specification() {
        let qualifiers = [("arch", Some("i386")), ("distro", None)];
        assert_eq!(purl("deb", "debian", "curl", "7.50.3-1", &qualifiers), "pkg:deb/debian/curl@7.50.3-1?arch=i386");
        assert_eq!(purl("apk", "alpine", "c++", "1~2", &[]), "pkg:apk/alpine/c%2B%2B@1~2");
    }
}
