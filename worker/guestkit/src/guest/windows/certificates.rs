//! Certificates of the machine's own store in the registry.

use crate::bytes::le_u32;
use crate::guest::certificate;
use crate::guest::linux::certificates::{Found, facts};
use crate::guest::report::Certificate;

use super::hives::Hives;

/// Certificates of a machine's own: a server of many names has hundreds.
const CERTIFICATES_MAX: usize = 1_000;
/// Bytes in front of each property of a blob: its number, 1, its length.
const PROPERTY_HEADER_BYTES: usize = 12;
/// The property that is the certificate. Source: [MS-GPEF], section 2.2.3 (registry value `Blob`).
const CERTIFICATE: u32 = 32;

/// Those of the machine's own store, in order of key.
pub(crate) fn of_machine(hives: &Hives<'_>) -> Vec<Found> {
    let Some(store) = hives.software_key("Microsoft\\SystemCertificates\\MY\\Certificates") else { return Vec::new() };
    let keys = store.keys().into_iter().take(CERTIFICATES_MAX);
    keys.filter_map(|key| {
        let blob = key.bytes("Blob")?;
        let chain = property(&blob).and_then(certificate::from_der).into_iter().collect();
        Some(Found { path: key.path(), used_by: None, chain })
    })
    .collect()
}

/// The facts of the module.
pub(super) fn read(hives: &Hives<'_>) -> Vec<Certificate> {
    of_machine(hives).into_iter().flat_map(facts).collect()
}

/// The certificate of a blob, which is a list of properties.
fn property(blob: &[u8]) -> Option<&[u8]> {
    let mut rest = blob;
    loop {
        let (number, length) = (le_u32(rest, 0)?, usize::try_from(le_u32(rest, 8)?).ok()?);
        let (value, after) = rest.get(PROPERTY_HEADER_BYTES..)?.split_at_checked(length)?;
        if number == CERTIFICATE {
            return Some(value);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_found_among_the_properties() {
        let property_of = |number: u32, value: &[u8]| {
            [&number.to_le_bytes(), &1_u32.to_le_bytes(), &u32::try_from(value.len()).unwrap().to_le_bytes(), value]
                .concat()
        };
        let blob = [property_of(3, b"hash"), property_of(32, b"der"), property_of(2, b"")].concat();
        assert_eq!(property(&blob), Some(&b"der"[..]));
        assert_eq!(property(&blob[..20]), None);
        assert_eq!(property(&property_of(1, b"")), None);
    }
}
