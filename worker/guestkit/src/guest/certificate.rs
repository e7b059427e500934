//! What a certificate says of itself: until when it holds, the kind and length of its key, how it is signed. A reader of the
//! few fields of DER that this takes; it verifies nothing. Source: RFC 5280, section 4.1; ITU-T X.690.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// A certificate's own statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Seconds since 1970 from which it holds.
    pub(crate) not_before: i64,
    /// Seconds since 1970 until which it holds.
    pub(crate) not_after: i64,
    /// `rsa`, `ec`, or the object identifier in hexadecimal.
    pub(crate) key: String,
    /// Bits of the key, where its kind has a length.
    pub(crate) key_bits: Option<u32>,
    /// Whether its signature is over MD5 or SHA-1.
    pub(crate) is_weakly_signed: bool,
    /// Whether it is its own issuer.
    pub(crate) is_self_signed: bool,
    /// Whether it may sign others. Source: RFC 5280, section 4.2.1.9.
    pub(crate) is_authority: bool,
    /// Whom it names, as RFC 4514 writes names: `CN=www.example.org,O=Example`.
    pub(crate) subject: String,
    /// Who signed it, in the same form.
    pub(crate) issuer: String,
    /// Serial number in upper-case hexadecimal, as OpenSSL prints it.
    pub(crate) serial: String,
    /// DNS names it holds for. Source: RFC 5280, section 4.2.1.6.
    pub(crate) dns_names: Vec<String>,
    /// SHA-256 of the whole in hexadecimal.
    pub(crate) fingerprint: String,
}

/// Tag and contents of one element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        (digits.iter().fold(0_usize, |length, digit| (length << 8) | usize::from(*digit)), rest)
    };
    let (contents, after) = rest.split_at_checked(length)?;
    Some((*tag, contents, after))
}

/// The next element, which must have this tag.
fn expect<'b>(bytes: &mut &'b [u8], wanted: u8) -> Option<&'b [u8]> {
    let (tag, contents, after) = element(bytes)?;
    *bytes = after;
    (tag == wanted).then_some(contents)
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const SET: u8 = 0x31;
const UTF16_STRING: u8 = 0x1e;

/// Certificates that are read of one file: more than a chain has, less than a list of all authorities.
const CHAIN_MAX: usize = 16;
/// DNS names that one certificate is read for: authorities sign hundreds at most.
const NAMES_MAX: usize = 1_000;

/// 2.5.29.17, 2.5.29.19.
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// Names of attributes. Source: RFC 4514, section 3; emailAddress from PKCS #9.
const ATTRIBUTES: [(&[u8], &str); 10] = [
    (&[0x55, 0x04, 0x03], "CN"),
    (&[0x55, 0x04, 0x05], "serialNumber"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "street"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01], "emailAddress"),
];

/// 1.2.840.113549.1.1.1, 1.2.840.10045.2.1.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// Signatures over MD2, MD5 and SHA-1, by RSA, ECDSA and DSA.
const WEAK: [&[u8]; 5] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x02],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01],
    &[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x03],
];
/// Bits of named curves: P-256, P-384, P-521, secp256k1.
const CURVES: [(&[u8], u32); 4] = [
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], 256),
    (&[0x2b, 0x81, 0x04, 0x00, 0x22], 384),
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], 521),
    (&[0x2b, 0x81, 0x04, 0x00, 0x0a], 256),
];

/// One certificate in DER.
pub(crate) fn from_der(der: &[u8]) -> Option<Certificate> {
    let mut bytes = der;
    let mut whole = expect(&mut bytes, SEQUENCE)?;
    let mut fields = expect(&mut whole, SEQUENCE)?;
    let mut algorithm = expect(&mut whole, SEQUENCE)?;
    let signature = expect(&mut algorithm, OBJECT_IDENTIFIER)?;
    // The version stands in brackets where it is not the first.
    if fields.first() == Some(&0xa0) {
        expect(&mut fields, 0xa0)?;
    }
    let serial = expect(&mut fields, INTEGER)?;
    expect(&mut fields, SEQUENCE)?;
    let issuer = expect(&mut fields, SEQUENCE)?;
    let mut validity = expect(&mut fields, SEQUENCE)?;
    let subject = expect(&mut fields, SEQUENCE)?;
    let mut key = expect(&mut fields, SEQUENCE)?;
    let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
    let mut kind = expect(&mut key, SEQUENCE)?;
    let identifier = expect(&mut kind, OBJECT_IDENTIFIER)?;
    let bits = expect(&mut key, BIT_STRING)?;
    let (name, key_bits) = match identifier {
        RSA => {
            // The first byte of a bit string counts the unused bits.
            let mut rest = bits.get(1..)?;
            let mut numbers = expect(&mut rest, SEQUENCE)?;
            let modulus = expect(&mut numbers, INTEGER)?;
            ("rsa".to_owned(), bit_length(modulus))
        }
        EC => {
            let curve = expect(&mut kind, OBJECT_IDENTIFIER);
            let bits = curve.and_then(|curve| CURVES.iter().find(|(known, _)| *known == curve)).map(|(_, bits)| *bits);
            ("ec".to_owned(), bits)
        }
        other => (crate::bytes::hex(other), None),
    };
    let extensions = extensions(fields);
    // What follows the certificate is not part of it.
    let length = der.len().checked_sub(bytes.len())?;
    Some(Certificate {
        fingerprint: crate::bytes::hex(&Sha256::digest(der.get(..length)?)),
        subject: distinguished_name(subject),
        issuer: distinguished_name(issuer),
        serial: serial_number(serial),
        is_authority: extensions.is_authority,
        dns_names: extensions.dns_names,
        not_before,
        not_after,
        key: name,
        key_bits,
        is_weakly_signed: WEAK.contains(&signature),
        is_self_signed: issuer == subject,
    })
}

/// A serial number is written without the zero that keeps it positive.
fn serial_number(bytes: &[u8]) -> String {
    let digits = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    crate::bytes::hex(digits).to_uppercase()
}

/// A name, its last part first. Source: RFC 4514, section 2.
fn distinguished_name(mut bytes: &[u8]) -> String {
    let mut parts = Vec::new();
    while let Some(mut set) = expect(&mut bytes, SET) {
        let mut attributes = Vec::new();
        while let Some(mut attribute) = expect(&mut set, SEQUENCE) {
            let Some(kind) = expect(&mut attribute, OBJECT_IDENTIFIER) else { break };
            let Some((tag, value, _)) = element(attribute) else { break };
            let known = ATTRIBUTES.iter().find(|(identifier, _)| *identifier == kind);
            let kind = known.map_or_else(|| crate::bytes::hex(kind), |(_, name)| (*name).to_owned());
            attributes.push(format!("{kind}={}", escaped(&text(tag, value))));
        }
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    parts.join(",")
}

/// A text of a name: UTF-8 and what is part of it, or UTF-16 (BMPString).
fn text(tag: u8, value: &[u8]) -> String {
    if tag == UTF16_STRING {
        let (units, _) = value.as_chunks::<2>();
        return char::decode_utf16(units.iter().map(|unit| u16::from_be_bytes(*unit)))
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
    }
    String::from_utf8_lossy(value).into_owned()
}

/// Source: RFC 4514, section 2.4.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(value.len());
    for (at, c) in value.chars().enumerate() {
        let is_at_the_edge = (at == 0 && matches!(c, ' ' | '#')) || (at == last && c == ' ');
        if is_at_the_edge || matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[derive(Default)]
struct Extensions {
    is_authority: bool,
    dns_names: Vec<String>,
}

/// The two extensions that are told; what follows the key is optional. Source: RFC 5280, section 4.1.
fn extensions(mut fields: &[u8]) -> Extensions {
    let mut found = Extensions::default();
    let mut list = &b""[..];
    while let Some((tag, contents, after)) = element(fields) {
        if tag == 0xa3 {
            let mut contents = contents;
            list = expect(&mut contents, SEQUENCE).unwrap_or_default();
        }
        fields = after;
    }
    while let Some(mut extension) = expect(&mut list, SEQUENCE) {
        let Some(kind) = expect(&mut extension, OBJECT_IDENTIFIER) else { continue };
        if extension.first() == Some(&BOOLEAN) {
            expect(&mut extension, BOOLEAN);
        }
        let Some(mut value) = expect(&mut extension, OCTET_STRING) else { continue };
        let Some(mut value) = expect(&mut value, SEQUENCE) else { continue };
        match kind {
            BASIC_CONSTRAINTS => found.is_authority = expect(&mut value, BOOLEAN).is_some_and(|flag| flag != [0]),
            SUBJECT_ALTERNATIVE_NAME => {
                while let Some((tag, contents, after)) = element(value) {
                    // [2] is a DNS name.
                    if tag == 0x82 && found.dns_names.len() < NAMES_MAX {
                        found.dns_names.push(String::from_utf8_lossy(contents).into_owned());
                    }
                    value = after;
                }
            }
            _ => {}
        }
    }
    found
}

fn bit_length(number: &[u8]) -> Option<u32> {
    let first = number.iter().position(|byte| *byte != 0)?;
    let digits = number.get(first..)?;
    u32::try_from(digits.len()).ok()?.checked_mul(8)?.checked_sub(digits.first()?.leading_zeros())
}

/// UTCTime or GeneralizedTime. Source: RFC 5280, section 4.1.2.5.
fn time(bytes: &mut &[u8]) -> Option<i64> {
    let (tag, contents, after) = element(bytes)?;
    *bytes = after;
    let text = std::str::from_utf8(contents).ok()?;
    let full = match tag {
        0x17 => {
            let year: u32 = text.get(..2)?.parse().ok()?;
            format!("{}{text}", if year < 50 { "20" } else { "19" })
        }
        0x18 => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| full.get(from..to)?.parse::<i8>().ok();
    let year: i16 = full.get(..4)?.parse().ok()?;
    let day = jiff::civil::Date::new(year, part(4, 6)?, part(6, 8)?).ok()?;
    let at = day.at(0, 0, 0, 0);
    let seconds = i64::from(part(8, 10)?) * 3_600 + i64::from(part(10, 12)?) * 60 + i64::from(part(12, 14)?);
    jiff::tz::Offset::UTC.to_timestamp(at).ok()?.as_second().checked_add(seconds)
}

/// The certificates of a PEM file, at most as many as a chain has; other blocks are passed over.
pub(crate) fn from_pem(text: &str) -> Vec<Certificate> {
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1).take(CHAIN_MAX);
    let decoded = blocks.filter_map(|block| {
        let body: String =
            block.split("-----END CERTIFICATE-----").next()?.chars().filter(|c| !c.is_whitespace()).collect();
        STANDARD.decode(body).ok()
    });
    decoded.filter_map(|der| from_der(&der)).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Made by OpenSSL, which also says what is in it.
    #[test]
    fn certificates_of_openssl_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let made = |arguments: &[&str]| {
            let key = folder.path().join("key.pem");
            let output = Command::new("openssl")
                .args(["req", "-x509", "-nodes", "-subj", "/CN=a", "-days", "30", "-keyout"])
                .arg(key)
                .args(arguments)
                .output();
            output.ok().filter(|output| output.status.success()).map(|output| String::from_utf8(output.stdout).unwrap())
        };
        let Some(rsa) = made(&["-newkey", "rsa:2048", "-sha256"]) else { return };
        let [rsa] = from_pem(&rsa).try_into().unwrap();
        assert_eq!(
            (rsa.key.as_str(), rsa.key_bits, rsa.is_weakly_signed, rsa.is_self_signed),
            ("rsa", Some(2_048), false, true)
        );
        assert_eq!(rsa.not_after - rsa.not_before, 30 * 86_400);
        let ec = made(&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-sha1"]).unwrap();
        let [ec] = from_pem(&ec).try_into().unwrap();
        assert_eq!((ec.key.as_str(), ec.key_bits, ec.is_weakly_signed), ("ec", Some(256), true));
    }

    #[test]
    fn names_are_those_that_openssl_prints() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.pem");
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-utf8"])
            .args(["-subj", "/DC=org/O=Müller, Söhne + Co/OU= a/CN=www.example.org/emailAddress=a@example.org"])
            .args(["-addext", "subjectAltName=DNS:www.example.org,IP:10.0.0.1,DNS:*.example.net", "-keyout"])
            .args([folder.path().join("key.pem").as_os_str(), "-out".as_ref(), file.as_os_str()])
            .output();
        if !made.is_ok_and(|made| made.status.success()) {
            return;
        }
        let told = Command::new("openssl")
            .args(["x509", "-noout", "-nameopt", "RFC2253,utf8,-esc_msb", "-subject", "-issuer", "-serial"])
            .args(["-fingerprint", "-sha256", "-in"])
            .arg(&file)
            .output()
            .unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let value = |key: &str| told.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
        let [certificate] = from_pem(&std::fs::read_to_string(&file).unwrap()).try_into().unwrap();
        assert_eq!(certificate.subject, value("subject="));
        assert_eq!(certificate.issuer, value("issuer="));
        assert_eq!(certificate.serial, value("serial="));
        assert_eq!(certificate.fingerprint, value("sha256 Fingerprint=").replace(':', "").to_lowercase());
        assert_eq!(certificate.dns_names, ["www.example.org", "*.example.net"]);
        assert_eq!((certificate.key_bits, certificate.is_authority), (Some(384), true));
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        for bad in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x02\x01\x01", &[0x30; 64]] {
            assert_eq!(from_der(bad), None);
        }
        assert!(from_pem("-----BEGIN CERTIFICATE-----\nAAAA\n").is_empty());
    }
}
